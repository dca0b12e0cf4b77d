/*
 * durable_state: SMB clients survive smbd restarts
 * One connection to the keeper
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

#ifndef _DURABLE_STATE_KEEPER_PEER_H_
#define _DURABLE_STATE_KEEPER_PEER_H_

#include <talloc.h>
#include <tevent.h>
#include <jansson.h>

struct keeper;
struct handover_in;
struct handover_out;
struct keeper_packet;
struct holding;

enum peer_role {
	PEER_NEW, /* has not said hello */
	PEER_PARENT,
	PEER_CHILD,
	PEER_TOOL,
};

struct keeper_peer {
	struct keeper_peer *prev, *next;
	struct keeper *keeper;
	int fd;
	struct tevent_fd *fde;
	pid_t pid;
	enum peer_role role;
	bool ended;   /* a parent that has said "hold" */
	bool closing; /* closed as soon as its replies are out */

	/* What it puts, complete when the last packet has come */
	struct holding *building;

	/* What it takes, forgotten when it says that it has all of it */
	struct holding *lent;

	/* Replies to be sent. While there are any nothing is received. */
	struct peer_reply *replies;
};

/**
 * @brief Serve a new connection. Takes over fd.
 */
void peer_accept(struct keeper *k, int fd);

/**
 * @brief Close it, whatever it was doing.
 */
void peer_close(struct keeper_peer *peer);

/**
 * @brief Is a reply still to be sent?
 */
bool peer_busy(const struct keeper_peer *peer);

/**
 * @brief Watch for what can be done now: send, or else receive unless this
 *	  program is about to be left.
 */
void peer_update_flags(struct keeper_peer *peer);

bool peer_role_parse(const char *str, enum peer_role *role);

/**
 * @brief Do what other connections have asked for already, one thing each.
 *
 * Somebody who knows that a process has ended must find what it did before,
 * but its last packet is on another connection, and epoll(2) promises no order.
 */
void peer_others_first(struct keeper_peer *peer);

/**
 * @brief Queue a reply. It is used up.
 */
void peer_reply(struct keeper_peer *peer, json_t *reply);

/**
 * @brief Queue a reply with an array in it, in as many packets as it takes.
 *
 * @param[in] reply  What the last packet says beside. Used up.
 * @param[in] array  Used up.
 */
void peer_reply_array(struct keeper_peer *peer,
		      json_t *reply,
		      const char *key,
		      json_t *array);

/**
 * @brief Queue the replies that send a complete holding.
 *
 * They do not keep it: if it is gone when its turn comes, an error is sent
 * instead.
 */
void peer_reply_holding(struct keeper_peer *peer, struct holding *h);

/**
 * @brief Queue an error reply; the connection goes on.
 */
void peer_refuse(struct keeper_peer *peer, int err, const char *fmt, ...)
	PRINTF_ATTRIBUTE(3, 4);

/**
 * @brief Queue an error reply and close: the peer does not speak our language.
 */
void peer_reject(struct keeper_peer *peer, const char *fmt, ...)
	PRINTF_ATTRIBUTE(2, 3);

/**
 * @brief What is known of a connection, to serve it on after execve(2).
 */
json_t *peer_save(const struct keeper_peer *peer, struct handover_out *out);

/**
 * @brief The reverse of peer_save().
 */
void peer_load(struct keeper *k,
	       const json_t *json,
	       struct handover_in *in);

/**
 * @brief Do what a packet asks for and queue the reply. In requests.c.
 */
void peer_request(struct keeper_peer *peer, struct keeper_packet *packet);

#endif /* _DURABLE_STATE_KEEPER_PEER_H_ */
