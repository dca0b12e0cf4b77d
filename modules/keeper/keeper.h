/*
 * durable_state: SMB clients survive smbd restarts
 * State and rules of the keeper
 *
 * Copyright (C) The durable_state developers 2026
 *
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation; either version 3 of the License, or
 * (at your option) any later version.
 *
 * This program is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
 * GNU General Public License for more details.
 *
 * You should have received a copy of the GNU General Public License
 * along with this program.  If not, see <http://www.gnu.org/licenses/>.
 */

#ifndef _DURABLE_STATE_KEEPER_H_
#define _DURABLE_STATE_KEEPER_H_

#include <talloc.h>
#include <tevent.h>
#include <jansson.h>
#include "holdings.h"
#include "guard.h"

struct keeper_peer;

#define KEEPER_EVENTS_MAX 100

/* Of what a keeper leaves to the next program or to systemd */
#define KEEPER_STATE_VERSION 1

struct keeper {
	struct tevent_context *ev;
	const char *socket_path;
	unsigned int default_hold_time; /* seconds */

	struct holdings *holdings;
	struct guard *guard;
	json_t *events; /* oldest first */
	struct keeper_peer *peers;
	bool others_first; /* peer_others_first() is under way */

	/* Locked as long as this process lives, not closed before */
	int pid_fd;

	int listen_fd;
	struct tevent_fd *listen_fde;

	/*
	 * A timerfd, armed while things are kept for an smbd to come. It goes
	 * on counting over a restart of the keeper and does not mind when the
	 * clock is set.
	 */
	int hold_fd;
	struct tevent_fd *hold_fde;

	/*
	 * The way to carry on in a new program. Waits until no peer has
	 * replies outstanding.
	 */
	const char *program;
	char *const *argv;
	bool exec_wanted;
	struct tevent_timer *exec_timer;
};

/**
 * @brief Start keeping, with what the predecessor left, if any.
 *
 * @param[in] socket_path  NULL: where the predecessor listened.
 * @param[in] pid_fd       The locked pid file, stays the caller's.
 *
 * @return NULL on error, which is logged.
 */
struct keeper *keeper_start(TALLOC_CTX *mem_ctx,
			    struct tevent_context *ev,
			    const char *socket_path,
			    int pid_fd,
			    unsigned int default_hold_time,
			    struct handover_in *in);

/**
 * @brief End: leave everything to systemd, or drop it.
 */
void keeper_stop(struct keeper *k);

/**
 * @brief Carry on in a new program as soon as no reply is outstanding.
 *
 * If it cannot be executed the keeper goes on as it is. What comes after that
 * is for probe_program() to find out beforehand.
 */
void keeper_exec(struct keeper *k, const char *program, char *const argv[]);

/**
 * @brief See to it that what is held is held for somebody.
 *
 * To be called when a peer came or went, or something was put: with a parent
 * there is no hold time, without one it runs.
 */
void keeper_settle(struct keeper *k);

/**
 * @brief To be called when a peer has got all its replies.
 */
void keeper_peer_idle(struct keeper *k);

/**
 * @brief Start the time after which everything is dropped.
 */
void keeper_hold_start(struct keeper *k, unsigned int seconds);

/**
 * @brief Milliseconds that are left of it, -1 if it does not run.
 */
int64_t keeper_hold_left_ms(const struct keeper *k);

/**
 * @brief How many smbd parents are here to stay?
 */
size_t keeper_num_parents(const struct keeper *k);

/**
 * @brief What a drop has to do now: does anybody live who uses these objects?
 */
enum holding_end keeper_holding_end(const struct keeper *k);

/**
 * @brief Drop everything, guard included.
 *
 * @return The number of holdings that were dropped.
 */
size_t keeper_drop_all(struct keeper *k);

#endif /* _DURABLE_STATE_KEEPER_H_ */
