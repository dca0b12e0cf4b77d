/*
   durable_state: what the parts of smbd's parent share

   Copyright (C) The durable_state developers 2026

   This program is free software; you can redistribute it and/or modify
   it under the terms of the GNU General Public License as published by
   the Free Software Foundation; either version 3 of the License, or
   (at your option) any later version.

   This program is distributed in the hope that it will be useful,
   but WITHOUT ANY WARRANTY; without even the implied warranty of
   MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
   GNU General Public License for more details.

   You should have received a copy of the GNU General Public License
   along with this program.  If not, see <http://www.gnu.org/licenses/>.
*/

#ifndef _DURABLE_STATE_PARENT_H_
#define _DURABLE_STATE_PARENT_H_

#include "replace.h"
#include <talloc.h>
#include <tevent.h>
#include <jansson.h>
#include "process.h"

struct smbd_durable_parent;
struct ds_config;
struct ds_parent;
struct ds_stop;
struct ds_return;
struct ds_admin;
struct ds_held;
struct keeper_conn;

enum ds_peer_state {
	DS_PEER_RUNNING,
	/* it came from a holding and is not back yet */
	DS_PEER_RESTORING,
	DS_PEER_FREEZING,
	/* all is written down or brought back, nothing is read */
	DS_PEER_QUIET,
	DS_PEER_CAPTURING,
	DS_PEER_HELD,
	DS_PEER_FAILED,
	/* its process has ended */
	DS_PEER_GONE,
};

/* One child, that is one client */
struct ds_peer {
	struct ds_peer *prev, *next;
	struct ds_parent *parent;
	pid_t pid;
	int fd;
	enum ds_peer_state state;
	/* "address:port", as soon as it was told */
	const char *client;
	/* the holding it comes from, until it has its own */
	char label[DS_LABEL_SIZE];
	/* it came from there and has not reported what it lost */
	bool returning;
	/* an answer to "status" with this number is awaited, 0: none is */
	unsigned int asked;

	/* crash.c: its end is awaited, to see which it was */
	int end_fd;
	struct tevent_fd *end_fde;
	/* it takes over from this one, which is dead */
	struct ds_peer *victim;
	/* it did so from this one, and has not reported */
	pid_t resumed;
	time_t born;
	unsigned int num_crashes;
};

struct ds_parent {
	struct tevent_context *ev;
	struct messaging_context *msg_ctx;
	/* what smbd does for us */
	const struct smbd_durable_parent *smbd;
	/* the command line, for who starts the next smbd */
	json_t *argv;
	time_t started;

	struct ds_config *config;
	/* false if an option is wrong: nothing is protected then */
	bool config_ok;
	/* the keeper has been asked to hold Samba's databases */
	bool guarded;

	/* keeper.c */
	struct keeper_conn *keeper;
	struct tevent_fd *keeper_fde;
	struct tevent_timer *keeper_timer;
	unsigned int keeper_wait;

	/* parent.c: an epoll descriptor for all peers, and its event */
	struct ds_peer *peers;
	int peers_fd;
	struct tevent_fd *peers_fde;

	/* clients whose processes were killed, since smbd was started */
	json_int_t num_survived;
	json_int_t num_dropped;
	/* their requests that were run again: { command: number } */
	json_t *again;
	/* why they were dropped: { reason: number } */
	json_t *dropped;

	/* stop.c: while smbd ends */
	struct ds_stop *stop;

	/* return.c: from the start of smbd until all clients reported */
	struct ds_return *ret;
	int *listeners;
	size_t num_listeners;

	/* admin.c */
	struct ds_admin *admin;
};

/* The one of this process; NULL in a child */
extern struct ds_parent *ds_parent;

/* parent.c */

/*
 * fork() a child for a new client, or for one that comes back: held is
 * the child's then. Returns as fork() does.
 */
pid_t ds_parent_fork(struct ds_parent *parent, struct ds_held *held);
void ds_peer_send(struct ds_peer *peer, json_t *json);
/*
 * Handle what children have said, and wait for it at most so long; -1: for
 * ever. Returns 0 or an errno.
 */
int ds_peers_handle(struct ds_parent *parent, int msec);

/*
 * smbd ends without anybody who is kept: clients' processes clean up, the
 * next smbd begins anew.
 */
void ds_drop_all(struct ds_parent *parent);
/* A process has ended, and it is not to be gone on with */
void ds_peer_ended(struct ds_peer *peer);
/* Its end of the socket pair is closed */
void ds_peer_close(struct ds_peer *peer);

/* crash.c */

/* The hook parent_zombie */
bool ds_crash_zombie(pid_t pid, int code, int status);
/*
 * A process has ended somehow. False: ds_peer_ended() is the caller's, else
 * peer is looked after.
 */
bool ds_crash_begin(struct ds_peer *peer);
/* A process that takes over said something */
void ds_crash_peer(struct ds_peer *peer, const char *op, json_t *json);
/* For the status: a client goes on, of which a process reports; or does not */
void ds_crash_count(struct ds_parent *parent, json_t *report);
void ds_crash_count_dropped(struct ds_parent *parent, const char *reason);
json_t *ds_crash_status(const struct ds_parent *parent);

/* keeper.c */

/*
 * Connect to the keeper, and start one if there is none. Goes on trying
 * in the background when it fails or ends: protection comes back with it.
 */
void ds_keeper_start(struct ds_parent *parent);
/*
 * Connect to a keeper that runs; it may hold clients from before the options
 * were made wrong.
 */
void ds_keeper_find(struct ds_parent *parent);
/* Request and reply are out of step: a new connection */
void ds_keeper_reconnect(struct ds_parent *parent);

/* stop.c */

typedef void (*ds_stop_progress_fn)(void *private_data, json_t *line);

/*
 * Begin to end smbd with all clients kept. Lines as the control protocol
 * has them go to fn, if there is one; the last one has "ok". With force a
 * client that cannot be kept is cut off, without it nothing happens.
 * Returns NULL or a sentence why it cannot begin.
 */
const char *ds_stop_begin(struct ds_parent *parent,
			  unsigned int timeout,
			  bool force,
			  ds_stop_progress_fn fn,
			  void *private_data);
/* Whoever is told of the progress has gone */
void ds_stop_forget(struct ds_parent *parent, void *private_data);
/* SIGTERM while smbd is about to end: then it has to */
void ds_stop_signal(struct ds_parent *parent);
void ds_stop_keeper_gone(struct ds_parent *parent);
/* The keeper sees to it that no new smbd wipes the databases. 0 or an errno */
int ds_guard(struct ds_parent *parent);
/* A child said something about its state, or ended */
void ds_stop_peer(struct ds_peer *peer, const char *op, json_t *json);

/* return.c */

void ds_return_begin(struct ds_parent *parent);
/*
 * fork() a process that serves what is held. Its descriptors stay the
 * caller's.
 */
pid_t ds_return_fork(struct ds_parent *parent,
		     struct ds_held *held,
		     const char *client);
/* A child that is being brought back said something */
void ds_return_peer(struct ds_peer *peer, const char *op, json_t *json);
void ds_return_gone(struct ds_peer *peer);

/* admin.c */

int ds_admin_listen(struct ds_parent *parent);
void ds_admin_peer_status(struct ds_peer *peer,
			  json_int_t number,
			  json_t *connection);
void ds_admin_peer_gone(struct ds_peer *peer);

#endif /* _DURABLE_STATE_PARENT_H_ */
