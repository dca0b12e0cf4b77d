/*
   durable_state: the end of smbd with its clients kept

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

#include "includes.h"
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "smbd/durable_hooks.h"
#include "system/select.h"
#include "system/wait.h"
#include <sys/pidfd.h>
#include "messages.h"
#include "lib/util/server_id.h"
#include "keeper/keeper_client.h"
#include "options.h"
#include "parent.h"

/*
 * 1. Freeze: every client comes to rest. Nobody has ended yet, so what
 *    each has in the databases is still somebody's.
 * 2. Barrier: a change that one client made and another one waits for is
 *    on its way through notifyd. When that answers, all before is out.
 * 3. Capture: each client writes its image and gives it to the keeper,
 *    with its sockets and files.
 * 4. The parent gives its listening sockets to the keeper.
 * 5. Clients that are not kept are cut off, and clean up after themselves;
 *    then the others end, last the parent. It waits for each of them, so
 *    that none is left as a zombie: to serverid_exists() that is alive,
 *    and would swallow what is meant for who takes its place.
 */

/* Beyond what a child allows itself, before it is given up */
#define DS_STOP_GRACE 2

/* How long notifyd may take */
#define DS_BARRIER_USECS 500000

/* Writing all images */
#define DS_CAPTURE_SECONDS 10

/* Closing all files of those that are cut off; the end of the others */
#define DS_END_SECONDS 5

/* notifyd has nothing to do when it ends */
#define DS_NOTIFYD_END_MSEC 1000

enum ds_stop_phase {
	DS_STOP_FREEZE,
	DS_STOP_BARRIER,
	DS_STOP_CAPTURE,
	DS_STOP_CUT,
	DS_STOP_END,
};

struct ds_stop {
	struct ds_parent *parent;
	enum ds_stop_phase phase;
	bool force;
	/* smbd has to end, whatever becomes of the clients */
	bool sigterm;
	NTTIME begun;
	struct tevent_timer *timer;
	/* notifyd has not answered yet */
	bool pinged;
	/* and may end before it does */
	pid_t notifyd_pid;
	int notifyd_fd;
	struct tevent_fd *notifyd_fde;
	unsigned int num_held;
	unsigned int num_failed;
	/* of {"client":…,"reason":…} */
	json_t *lost;
	ds_stop_progress_fn fn;
	void *private_data;
};

static void ds_stop_next(struct ds_stop *stop);
static void ds_stop_pong(struct messaging_context *msg_ctx,
			 void *private_data,
			 uint32_t msg_type,
			 struct server_id src,
			 DATA_BLOB *data);

static int ds_stop_destructor(struct ds_stop *stop)
{
	messaging_deregister(stop->parent->msg_ctx, MSG_PONG, stop);
	TALLOC_FREE(stop->notifyd_fde);
	if (stop->notifyd_fd != -1) {
		close(stop->notifyd_fd);
	}
	json_decref(stop->lost);
	return 0;
}

static void ds_stop_tell(struct ds_stop *stop, json_t *line)
{
	if (stop->fn != NULL) {
		stop->fn(stop->private_data, line);
	}
	json_decref(line);
}

void ds_stop_forget(struct ds_parent *parent, void *private_data)
{
	struct ds_stop *stop = parent->stop;

	if ((stop != NULL) && (stop->private_data == private_data)) {
		stop->fn = NULL;
		stop->private_data = NULL;
	}
}

static void ds_stop_listener_off(int fd,
				 struct tevent_fd *fde,
				 void *private_data)
{
	TEVENT_FD_NOT_READABLE(fde);
}

static void ds_stop_listener_on(int fd,
				struct tevent_fd *fde,
				void *private_data)
{
	TEVENT_FD_READABLE(fde);
}

/*
 * All is as it was before. Only if a signal asked for it smbd ends all the
 * same, as without us.
 */
static void ds_stop_abort(struct ds_stop *stop, const char *reason)
{
	struct ds_parent *parent = stop->parent;
	bool sigterm = stop->sigterm;
	struct ds_peer *peer = NULL;

	DBG_ERR("%s: %s\n",
		sigterm ? "Clients will be cut off" :
			  "smbd goes on, nothing has happened",
		reason);

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		peer->state = DS_PEER_RUNNING;
		ds_peer_send(peer, json_pack("{ss}", "op", "thaw"));
	}
	parent->smbd->listeners(ds_stop_listener_on, NULL);

	parent->stop = NULL;
	ds_stop_tell(stop,
		     json_pack("{sb ss}", "ok", false, "error", reason));
	TALLOC_FREE(stop);

	if (sigterm) {
		ds_drop_all(parent);
		exit_server_cleanly("termination signal");
	}
}

void ds_stop_keeper_gone(struct ds_parent *parent)
{
	struct ds_stop *stop = parent->stop;

	/* what was held is gone, and a new keeper knows nothing of it */
	if ((stop != NULL) && (stop->phase < DS_STOP_CUT)) {
		ds_stop_abort(stop, "the keeper has ended");
	}
}

void ds_stop_signal(struct ds_parent *parent)
{
	parent->stop->sigterm = true;
	parent->stop->force = true;
}

static void ds_stop_progress(struct ds_peer *peer,
			     const char *state,
			     const char *reason)
{
	ds_stop_tell(peer->parent->stop,
		     json_pack("{s{ss ss ss}}",
			       "progress",
			       "client",
			       peer->client != NULL ? peer->client : "?",
			       "state", state,
			       "reason", reason));
}

static void ds_stop_failed(struct ds_peer *peer, const char *reason)
{
	struct ds_stop *stop = peer->parent->stop;

	peer->state = DS_PEER_FAILED;
	stop->num_failed += 1;
	json_array_append_new(
		stop->lost,
		json_pack("{ss ss}",
			  "client", peer->client != NULL ? peer->client : "?",
			  "reason", reason));
	ds_stop_progress(peer, "failed", reason);
}

static size_t ds_stop_count(const struct ds_stop *stop,
			    enum ds_peer_state state)
{
	const struct ds_peer *peer = NULL;
	size_t num = 0;

	for (peer = stop->parent->peers; peer != NULL; peer = peer->next) {
		num += (peer->state == state) ? 1 : 0;
	}
	return num;
}

/*
 * Those that did not do in time what the phase is about. A client whose
 * process does not answer is lost when smbd has to end, and must not keep
 * the others waiting then.
 */
static void ds_stop_late(struct ds_stop *stop, enum ds_peer_state late)
{
	struct ds_peer *peer = NULL;

	for (peer = stop->parent->peers; peer != NULL; peer = peer->next) {
		if (peer->state != late) {
			continue;
		}
		ds_stop_failed(peer, "the process does not answer");
		if (stop->force) {
			kill(peer->pid, SIGKILL);
		}
	}
}

static void ds_stop_timeout(struct tevent_context *ev,
			    struct tevent_timer *te,
			    struct timeval now,
			    void *private_data)
{
	struct ds_stop *stop = talloc_get_type_abort(
		private_data, struct ds_stop);
	struct ds_peer *peer = NULL;

	TALLOC_FREE(stop->timer);

	switch (stop->phase) {
	case DS_STOP_FREEZE:
		ds_stop_late(stop, DS_PEER_FREEZING);
		break;
	case DS_STOP_BARRIER:
		DBG_WARNING("notifyd does not answer: clients may miss a "
			    "change in a directory that they watch\n");
		stop->pinged = false;
		break;
	case DS_STOP_CAPTURE:
		ds_stop_late(stop, DS_PEER_CAPTURING);
		break;
	case DS_STOP_CUT:
	case DS_STOP_END:
		DBG_WARNING("not all processes ended in time\n");
		for (peer = stop->parent->peers;
		     peer != NULL;
		     peer = peer->next) {
			kill(peer->pid, SIGKILL);
		}
		exit_server_cleanly("termination signal");
		break;
	}
	ds_stop_next(stop);
}

static bool ds_stop_timer(struct ds_stop *stop, struct timeval end)
{
	TALLOC_FREE(stop->timer);
	stop->timer = tevent_add_timer(
		stop->parent->ev, stop, end, ds_stop_timeout, stop);
	return (stop->timer != NULL);
}

static void ds_stop_pong(struct messaging_context *msg_ctx,
			 void *private_data,
			 uint32_t msg_type,
			 struct server_id src,
			 DATA_BLOB *data)
{
	struct ds_stop *stop = talloc_get_type_abort(
		private_data, struct ds_stop);

	if (stop->pinged) {
		stop->pinged = false;
		ds_stop_next(stop);
	}
}

static void ds_stop_notifyd_gone(struct tevent_context *ev,
				 struct tevent_fd *fde,
				 uint16_t flags,
				 void *private_data)
{
	struct ds_stop *stop = talloc_get_type_abort(
		private_data, struct ds_stop);

	TALLOC_FREE(stop->notifyd_fde);
	stop->pinged = false;
	ds_stop_next(stop);
}

/*
 * Without an answer to wait for there is no barrier: notifyd has ended by
 * the same signal as we, or is about to.
 */
static void ds_stop_barrier(struct ds_stop *stop)
{
	struct ds_parent *parent = stop->parent;
	struct server_id notifyd = parent->smbd->notifyd();
	NTSTATUS status;

	/* readable when the process has ended, also as a zombie */
	stop->notifyd_pid = procid_to_pid(&notifyd);
	if (stop->notifyd_pid <= 0) {
		/* it has ended, and the next one is not there yet */
		return;
	}
	stop->notifyd_fd = pidfd_open(stop->notifyd_pid, 0);
	if (stop->notifyd_fd == -1) {
		return;
	}
	stop->notifyd_fde = tevent_add_fd(parent->ev,
					  stop,
					  stop->notifyd_fd,
					  TEVENT_FD_READ,
					  ds_stop_notifyd_gone,
					  stop);

	status = messaging_register(
		parent->msg_ctx, stop, MSG_PONG, ds_stop_pong);
	if (!NT_STATUS_IS_OK(status)) {
		return;
	}
	status = messaging_send(parent->msg_ctx,
				notifyd,
				MSG_PING,
				&data_blob_null);
	if (!NT_STATUS_IS_OK(status)) {
		return;
	}
	stop->pinged = ds_stop_timer(
		stop, timeval_current_ofs(0, DS_BARRIER_USECS));
}

static void ds_stop_capture(struct ds_stop *stop)
{
	struct ds_peer *peer = NULL;

	for (peer = stop->parent->peers; peer != NULL; peer = peer->next) {
		NTSTATUS status;

		if (peer->state != DS_PEER_QUIET) {
			continue;
		}
		peer->state = DS_PEER_CAPTURING;
		status = messaging_send(stop->parent->msg_ctx,
					pid_to_procid(peer->pid),
					MSG_DS_CAPTURE,
					&data_blob_null);
		if (NT_STATUS_EQUAL(status, NT_STATUS_OBJECT_NAME_NOT_FOUND)) {
			/* its client has gone, and so will it be said */
			continue;
		}
		if (!NT_STATUS_IS_OK(status)) {
			ds_stop_failed(peer, nt_errstr(status));
		}
	}
	(void)ds_stop_timer(stop, timeval_current_ofs(DS_CAPTURE_SECONDS, 0));
}

struct ds_stop_fds {
	int *fds;
	size_t num;
};

static void ds_stop_listener_add(int fd,
				 struct tevent_fd *fde,
				 void *private_data)
{
	struct ds_stop_fds *state = private_data;
	int *fds = talloc_realloc(
		talloc_tos(), state->fds, int, state->num + 1);

	if (fds != NULL) {
		state->fds = fds;
		state->fds[state->num] = fd;
		state->num += 1;
	}
}

/*
 * After this the clients belong to the keeper.
 */
static int ds_stop_hand_over(struct ds_stop *stop)
{
	struct ds_parent *parent = stop->parent;
	struct ds_stop_fds listeners = { .num = 0 };
	json_t *info = NULL;
	int ret;

	parent->smbd->listeners(ds_stop_listener_add, &listeners);

	info = json_pack("{sI sO}",
			 "begun", (json_int_t)stop->begun,
			 "lost", stop->lost);
	ret = keeper_put(parent->keeper,
			 "smbd",
			 info,
			 listeners.fds,
			 listeners.num);
	json_decref(info);
	if (ret == 0) {
		ret = keeper_hold(parent->keeper, parent->config->hold_time);
	}
	if (ret != 0) {
		return ret;
	}

	DBG_ERR("smbd ends. The keeper holds %u connections for %u seconds; "
		"%u are cut off.\n",
		stop->num_held,
		parent->config->hold_time,
		stop->num_failed);
	ds_stop_tell(stop,
		     json_pack("{sb sI sI}",
			       "ok", true,
			       "connections", (json_int_t)stop->num_held,
			       "failed", (json_int_t)stop->num_failed));
	return 0;
}

/*
 * To all in this state.
 */
static void ds_stop_send(struct ds_stop *stop,
			 enum ds_peer_state state,
			 const char *op)
{
	struct ds_peer *peer = NULL;

	for (peer = stop->parent->peers; peer != NULL; peer = peer->next) {
		if (peer->state == state) {
			ds_peer_send(peer, json_pack("{ss}", "op", op));
		}
	}
}

/*
 * It has ended, or is on its way. Another child's end may interrupt the wait;
 * smbd's own handler may be first.
 */
static void ds_stop_reap(pid_t pid)
{
	pid_t ret;

	do {
		ret = waitpid(pid, NULL, 0);
	} while ((ret == -1) && (errno == EINTR));
}

/*
 * Names of processes outlive smbd where others, as samba-dcerpcd, have the
 * database open, and one that is not reaped is taken for alive: the next
 * notifyd could not have its name.
 */
static void ds_stop_notifyd_end(struct ds_stop *stop)
{
	static const int signals[] = { SIGTERM, SIGKILL };
	struct pollfd pfd = { .fd = stop->notifyd_fd, .events = POLLIN, };
	size_t i;

	if (stop->notifyd_fd == -1) {
		return;
	}
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		/* as long as it is not reaped its number is no other's */
		if (waitpid(stop->notifyd_pid, NULL, WNOHANG) != 0) {
			return;
		}
		(void)kill(stop->notifyd_pid, signals[i]);
		(void)poll(&pfd, 1, DS_NOTIFYD_END_MSEC);
	}
	(void)waitpid(stop->notifyd_pid, NULL, WNOHANG);
}

/*
 * Go on as far as the phase's condition is met.
 */
static void ds_stop_next(struct ds_stop *stop)
{
	struct ds_parent *parent = stop->parent;
	int ret;

	if (stop->phase == DS_STOP_FREEZE) {
		if (ds_stop_count(stop, DS_PEER_FREEZING) != 0) {
			return;
		}
		if (!stop->force && (stop->num_failed != 0)) {
			ds_stop_abort(stop, "not all clients can be kept");
			return;
		}
		stop->phase = DS_STOP_BARRIER;
		ds_stop_barrier(stop);
	}

	if (stop->phase == DS_STOP_BARRIER) {
		if (stop->pinged) {
			return;
		}
		TALLOC_FREE(stop->notifyd_fde);
		stop->phase = DS_STOP_CAPTURE;
		ds_stop_capture(stop);
	}

	if (stop->phase == DS_STOP_CAPTURE) {
		if (ds_stop_count(stop, DS_PEER_CAPTURING) != 0) {
			return;
		}
		if (!stop->force && (stop->num_failed != 0)) {
			ds_stop_abort(stop, "not all clients can be kept");
			return;
		}
		ret = ds_stop_hand_over(stop);
		if (ret != 0) {
			ds_stop_abort(stop, keeper_error(parent->keeper));
			return;
		}
		stop->phase = DS_STOP_CUT;
		(void)ds_stop_timer(stop,
				    timeval_current_ofs(DS_END_SECONDS, 0));
		ds_stop_send(stop, DS_PEER_FAILED, "exit");
	}

	if (stop->phase == DS_STOP_CUT) {
		if (ds_stop_count(stop, DS_PEER_FAILED) != 0) {
			return;
		}
		stop->phase = DS_STOP_END;
		ds_stop_send(stop, DS_PEER_HELD, "end");
	}

	if (ds_stop_count(stop, DS_PEER_HELD) == 0) {
		ds_stop_notifyd_end(stop);
		exit_server_cleanly("termination signal");
	}
}

void ds_stop_peer(struct ds_peer *peer, const char *op, json_t *json)
{
	struct ds_stop *stop = peer->parent->stop;
	const char *reason = NULL;

	if (stop == NULL) {
		return;
	}

	if (strequal(op, "quiet") && (peer->state == DS_PEER_FREEZING)) {
		peer->state = DS_PEER_QUIET;
		ds_stop_progress(peer, "frozen", "");
	} else if (strequal(op, "held") &&
		   (peer->state == DS_PEER_CAPTURING)) {
		peer->state = DS_PEER_HELD;
		stop->num_held += 1;
	} else if (strequal(op, "failed") && (peer->state != DS_PEER_FAILED)) {
		reason = ds_json_string(json, "reason");
		ds_stop_failed(peer, reason != NULL ? reason : "");
	} else if (strequal(op, "gone")) {
		/* its client has gone, or it was told to end */
		if (stop->phase >= DS_STOP_CUT) {
			ds_stop_reap(peer->pid);
		}
		peer->state = DS_PEER_GONE;
	}
	ds_stop_next(stop);
}

int ds_guard(struct ds_parent *parent)
{
	TALLOC_CTX *frame = talloc_stackframe();
	/* all that is cleared when the first smbd opens it */
	static const char *names[] = {
		"locking.tdb",
		"brlock.tdb",
		"leases.tdb",
		"smbXsrv_version_global.tdb",
		"smbXsrv_client_global.tdb",
		"smbXsrv_session_global.tdb",
		"smbXsrv_tcon_global.tdb",
		"smbXsrv_open_global.tdb",
		"g_lock.tdb",
	};
	const char *paths[ARRAY_SIZE(names)];
	size_t i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		paths[i] = lock_path(frame, names[i]);
		if (paths[i] == NULL) {
			TALLOC_FREE(frame);
			return ENOMEM;
		}
	}
	ret = keeper_guard(parent->keeper, paths, ARRAY_SIZE(paths));
	if (ret == 0) {
		/* another keeper has to hold them as well */
		parent->guarded = true;
	} else {
		DBG_ERR("The keeper cannot hold Samba's databases (%s): if "
			"all of smbd is killed, no client goes on.\n",
			strerror(ret));
	}
	TALLOC_FREE(frame);
	return ret;
}

static void ds_stop_first(struct tevent_context *ev,
			  struct tevent_immediate *im,
			  void *private_data)
{
	struct ds_stop *stop = talloc_get_type_abort(
		private_data, struct ds_stop);

	TALLOC_FREE(im);
	ds_stop_next(stop);
}

const char *ds_stop_begin(struct ds_parent *parent,
			  unsigned int timeout,
			  bool force,
			  ds_stop_progress_fn fn,
			  void *private_data)
{
	struct ds_stop *stop = NULL;
	struct ds_peer *peer = NULL;
	struct tevent_immediate *im = NULL;
	struct timeval tv = timeval_current();
	int ret;

	if (parent->stop != NULL) {
		return "smbd is about to end already";
	}
	if (!parent->config_ok) {
		return parent->config->problem != NULL ?
			parent->config->problem :
			"smbd's log says why nothing can be kept";
	}
	/* as the next smbd will find it */
	(void)reload_services(NULL, NULL, true);
	if (!ds_config_used()) {
		return "no share has 'vfs objects = durable_state' any more";
	}
	if (parent->keeper == NULL) {
		return "the keeper (durable_stated) is not running";
	}

	stop = talloc(parent, struct ds_stop);
	if (stop == NULL) {
		return "out of memory";
	}
	*stop = (struct ds_stop) {
		.parent = parent,
		.notifyd_fd = -1,
		.force = force,
		/* nobody is there to be told that it did not work */
		.sigterm = (fn == NULL),
		.begun = timeval_to_nttime(&tv),
		.lost = json_array(),
		.fn = fn,
		.private_data = private_data,
	};
	talloc_set_destructor(stop, ds_stop_destructor);

	ret = ds_guard(parent);
	if (ret != 0) {
		TALLOC_FREE(stop);
		return keeper_error(parent->keeper);
	}
	im = tevent_create_immediate(stop);
	if ((im == NULL) ||
	    !ds_stop_timer(stop,
			   timeval_current_ofs(timeout + DS_STOP_GRACE, 0)))
	{
		TALLOC_FREE(stop);
		return "out of memory";
	}

	parent->smbd->listeners(ds_stop_listener_off, NULL);
	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		peer->state = DS_PEER_FREEZING;
		ds_peer_send(peer,
			     json_pack("{ss sI}",
				       "op", "freeze",
				       "timeout", (json_int_t)timeout));
	}
	parent->stop = stop;

	/* there may be no client at all */
	tevent_schedule_immediate(im, parent->ev, ds_stop_first, stop);
	return NULL;
}
