/*
   durable_state: the start of smbd with the clients that were kept

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
#include "smbd/scavenger.h"
#include "smbd/durable_hooks.h"
#include "smbd/smbXsrv_open.h"
#include "lib/util/server_id.h"
#include "lib/util/server_id_db.h"
#include "messages.h"
#include "system/select.h"
#include <sys/pidfd.h>
#include "lib/util/util_process.h"
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "librpc/gen_ndr/ndr_open_files.h"
#include "durable_state/durable_state.h"
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "options.h"
#include "parent.h"

/*
 * Each client gets a process, which brings it back from its image. Only
 * when all are back any of them goes on: until then nobody can take what
 * belongs to another one.
 */

/* How long a process may take to end that was killed */
#define DS_OLD_WAIT_MSEC 5000

/* How long notifyd may take to start */
#define DS_NOTIFYD_WAIT_MSEC 2000

/* Processes that may be killed, one after the other, before one is back */
#define DS_RETURN_CRASHES 3

struct ds_return {
	bool restart;
	/* smbd was killed, with all or some of its processes */
	bool crashed;
	/* the keeper was connected to once more */
	bool reconnected;
	/* processes that have not said "restored" */
	unsigned int num_restoring;
	/* processes that have not said "thawed", and ds_return_begin() */
	unsigned int num_pending;
	unsigned int num_connections;
	json_int_t longest_pause_ms;
	/* connections and handles */
	json_int_t num_lost;
	/* of {"client":…,"reason":…}, the first ones of each client */
	json_t *lost;
};

static int ds_return_destructor(struct ds_return *ret)
{
	json_decref(ret->lost);
	return 0;
}

static void ds_return_lost(struct ds_parent *parent,
			   const char *client,
			   const char *reason)
{
	struct ds_return *ret = parent->ret;

	DBG_ERR("client %s: cannot resume, %s\n", client, reason);
	if (ret->crashed) {
		ds_crash_count_dropped(parent, reason);
	}
	ret->num_lost += 1;
	json_array_append_new(ret->lost,
			      json_pack("{ss ss}",
					"client", client,
					"reason", reason));
}

/*
 * The last one has reported: the event, for the log and the status.
 */
static void ds_return_check(struct ds_parent *parent)
{
	struct ds_return *ret = parent->ret;
	struct tm *tm = NULL;
	char buf[32] = "";
	time_t now = time(NULL);
	json_t *event = NULL;

	if (ret->num_pending != 0) {
		return;
	}

	if (ret->restart || ret->crashed) {
		DBG_ERR("smbd was restarted: %u connections go on after "
			"%" JSON_INTEGER_FORMAT " ms at most, "
			"%" JSON_INTEGER_FORMAT " connections or handles "
			"were lost\n",
			ret->num_connections,
			ret->longest_pause_ms,
			ret->num_lost);

		tm = gmtime(&now);
		if (tm != NULL) {
			strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", tm);
		}
		event = json_pack("{ss ss sI sI sI sI sO}",
				  "kind",
				  ret->restart ? "restart" : "crash",
				  "time", buf,
				  "pid", (json_int_t)getpid(),
				  "connections",
				  (json_int_t)ret->num_connections,
				  "longest_pause_ms", ret->longest_pause_ms,
				  "lost", ret->num_lost,
				  "lost_detail", ret->lost);
		if (parent->keeper != NULL) {
			(void)keeper_event(parent->keeper, event);
		}
		json_decref(event);
	}
	TALLOC_FREE(parent->ret);
}

/*
 * The end of a process' return, good or bad.
 */
static void ds_return_end(struct ds_peer *peer, const char *lost)
{
	struct ds_return *ret = peer->parent->ret;

	if (peer->state == DS_PEER_RESTORING) {
		ret->num_restoring -= 1;
		peer->state = DS_PEER_FAILED;
	}
	ret->num_pending -= 1;
	peer->returning = false;

	if (lost != NULL) {
		ds_return_lost(peer->parent,
			       peer->client != NULL ? peer->client : "?",
			       lost);
		if (peer->parent->keeper != NULL) {
			/* its socket is open as long as it is there */
			(void)keeper_drop(peer->parent->keeper, peer->label);
		}
	}
	ds_return_check(peer->parent);
}

static void ds_return_thawed(struct ds_peer *peer, json_t *json)
{
	struct ds_return *ret = peer->parent->ret;
	json_int_t pause_ms = ds_json_int(json, "pause_ms");
	json_t *reason = NULL;
	size_t i;

	if (ret->crashed) {
		ds_crash_count(peer->parent, json);
	}
	ret->num_connections += 1;
	ret->longest_pause_ms = MAX(ret->longest_pause_ms, pause_ms);
	ret->num_lost += ds_json_int(json, "num_lost");
	json_array_foreach(json_object_get(json, "lost"), i, reason) {
		json_array_append_new(
			ret->lost,
			json_pack("{ss sO}",
				  "client",
				  peer->client != NULL ? peer->client : "?",
				  "reason", reason));
	}
	ds_return_end(peer, NULL);
}

/*
 * A process that was killed before all were back: the others wait, so it can
 * be done once more. From its own holding, if it had made that already.
 */
static bool ds_return_again(struct ds_peer *peer)
{
	struct ds_parent *parent = peer->parent;
	struct ds_held *held = NULL;
	struct ds_peer *next = NULL;
	json_t *info = NULL;
	pid_t pid = -1;
	int err = ENOENT;

	if (((peer->state != DS_PEER_RESTORING) &&
	     (peer->state != DS_PEER_QUIET)) ||
	    (parent->keeper == NULL) ||
	    (peer->num_crashes >= DS_RETURN_CRASHES))
	{
		return false;
	}
	held = talloc_zero(parent, struct ds_held);
	if (held == NULL) {
		return false;
	}
	snprintf(held->label,
		 sizeof(held->label),
		 "client-%d",
		 (int)peer->pid);
	if (peer->state == DS_PEER_RESTORING) {
		err = keeper_copy(held,
				  parent->keeper,
				  peer->label,
				  &info,
				  &held->fds,
				  &held->num_fds);
		if (err == 0) {
			strlcpy(held->label, peer->label, sizeof(held->label));
		}
	}
	if (err == ENOENT) {
		err = keeper_copy(held,
				  parent->keeper,
				  held->label,
				  &info,
				  &held->fds,
				  &held->num_fds);
	}
	if ((err == 0) && (held->num_fds >= 2)) {
		struct timeval now = timeval_current();

		held->live = json_is_true(json_object_get(info, "live"));
		held->since = timeval_to_nttime(&now);
		pid = ds_return_fork(
			parent, held, (peer->client != NULL) ?
				peer->client : "?");
	}
	if (err == 0) {
		json_decref(info);
	}
	ds_held_close(held);
	TALLOC_FREE(held);

	for (next = parent->peers; next != NULL; next = next->next) {
		if ((pid > 0) && (next->pid == pid)) {
			break;
		}
	}
	if (next == NULL) {
		return false;
	}
	next->num_crashes = peer->num_crashes + 1;
	if (peer->client != NULL) {
		next->client = talloc_strdup(next, peer->client);
	}
	if (peer->state == DS_PEER_QUIET) {
		parent->ret->num_restoring += 1;
	}
	/* it is not the one that is waited for any more */
	peer->returning = false;
	peer->state = DS_PEER_GONE;
	return true;
}

/*
 * A process says "restored", waits for "thaw", and says "thawed".
 */
void ds_return_peer(struct ds_peer *peer, const char *op, json_t *json)
{
	struct ds_return *ret = peer->parent->ret;
	const char *reason = NULL;

	if ((ret == NULL) || !peer->returning) {
		return;
	}
	if (strequal(op, "restored") &&
	    (peer->state == DS_PEER_RESTORING))
	{
		peer->state = DS_PEER_QUIET;
		ret->num_restoring -= 1;
	} else if (strequal(op, "thawed")) {
		ds_return_thawed(peer, json);
	} else if (strequal(op, "failed")) {
		reason = ds_json_string(json, "reason");
		ds_return_end(peer, reason != NULL ? reason : "?");
	} else if (strequal(op, "gone") && !ds_return_again(peer)) {
		ds_return_end(peer, "its process has ended");
	}
}

static void ds_return_child(struct tevent_context *ev,
			    struct messaging_context *msg_ctx,
			    int sock,
			    const char *client)
{
	NTSTATUS status;

	/* as smbd_accept_connection() does */
	talloc_free(am_parent);
	CatchChild();

	status = smbd_reinit_after_fork(msg_ctx, ev, true);
	if (!NT_STATUS_IS_OK(status)) {
		DBG_ERR("reinit_after_fork() failed: %s\n",
			nt_errstr(status));
		exit_server_cleanly("end of child");
	}
	process_set_title("smbd[%s]", "client [%s]", client);

	smbd_process(ev, msg_ctx, sock, false);
	exit_server_cleanly("end of child");
}

/*
 * The keeper has it until the process has put its own holding in its place. A
 * connection to the keeper that failed is of no use any more; only one more
 * is tried: a keeper that does not answer must not hold up the start for each
 * client.
 */
static struct ds_held *ds_return_take(struct ds_parent *parent,
				      const char *label,
				      const char *client)
{
	struct ds_return *ret = parent->ret;
	struct ds_held *held = talloc_zero(parent, struct ds_held);
	int err = ENOMEM;

	while ((held != NULL) && (parent->keeper != NULL)) {
		err = keeper_copy(held,
				  parent->keeper,
				  label,
				  NULL,
				  &held->fds,
				  &held->num_fds);
		if ((err == 0) || (err == ENOENT) || ret->reconnected) {
			break;
		}
		ret->reconnected = true;
		ds_keeper_reconnect(parent);
	}
	if ((err == 0) && (held->num_fds >= 2)) {
		strlcpy(held->label, label, sizeof(held->label));
		return held;
	}

	ds_return_lost(parent,
		       client,
		       (err == 0) ? "the keeper has no socket of it" :
				    strerror(err));
	ds_held_close(held);
	if (parent->keeper != NULL) {
		/* otherwise it would be open until the hold time is over */
		(void)keeper_drop(parent->keeper, label);
	}
	TALLOC_FREE(held);
	return NULL;
}

pid_t ds_return_fork(struct ds_parent *parent,
		     struct ds_held *held,
		     const char *client)
{
	struct tevent_context *ev = parent->ev;
	struct messaging_context *msg_ctx = parent->msg_ctx;
	int sock = held->fds[1];
	pid_t pid;

	/* the client's name is the parent's memory */
	pid = ds_parent_fork(parent, held);
	if (pid == 0) {
		ds_return_child(ev, msg_ctx, sock, client);
	}
	if (pid > 0) {
		parent->smbd->add_child(pid);
	}
	return pid;
}

/*
 * A process of smbd has the lock of its messaging socket as long as it lives,
 * and nobody else ever has it, whatever became of the number.
 */
static bool ds_return_is_alive(pid_t pid)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, };
	char name[64];
	char *path = NULL;
	int fd = -1;
	int ret;

	snprintf(name, sizeof(name), "msg.lock/%d", (int)pid);
	path = lock_path(talloc_tos(), name);
	if (path != NULL) {
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	TALLOC_FREE(path);
	if (fd == -1) {
		return false;
	}
	ret = fcntl(fd, F_GETLK, &lock);
	close(fd);
	return (ret == 0) && (lock.l_type != F_UNLCK) && (lock.l_pid == pid);
}

/*
 * The process of a client may have outlived its parent, if it was not killed
 * itself: it ends when it finds out, which may be after a long request.
 * Nothing is lost when it is killed in it. False: it is still there.
 */
static bool ds_return_end_old(pid_t pid)
{
	struct pollfd pfd = { .events = POLLIN, };
	bool alive = true;

	if ((pid <= 0) || !ds_return_is_alive(pid)) {
		return true;
	}
	pfd.fd = pidfd_open(pid, 0);
	if (pfd.fd == -1) {
		return (errno == ESRCH);
	}
	/* it had the number before there was a descriptor for it, and still */
	if (ds_return_is_alive(pid)) {
		(void)pidfd_send_signal(pfd.fd, SIGKILL, NULL, 0);
		alive = (poll(&pfd, 1, DS_OLD_WAIT_MSEC) != 1);
	} else {
		alive = false;
	}
	close(pfd.fd);
	return !alive;
}

static void ds_return_one(struct ds_parent *parent,
			  const struct keeper_holding *holding)
{
	struct ds_return *ret = parent->ret;
	const char *client = ds_json_string(holding->info, "client");
	struct ds_held *held = NULL;
	pid_t pid;

	if (client == NULL) {
		client = "?";
	}
	if (ds_json_int(holding->info, "version") != DS_IMAGE_VERSION) {
		ds_return_lost(parent, client,
			       "its image was written by another version");
		(void)keeper_drop(parent->keeper, holding->label);
		return;
	}

	held = ds_return_take(parent, holding->label, client);
	if (held == NULL) {
		return;
	}
	held->live = json_is_true(json_object_get(holding->info, "live"));
	if (held->live) {
		struct timeval now = timeval_current();

		held->since = timeval_to_nttime(&now);
		ret->crashed = true;
	}
	if (held->live && !ds_return_end_old(holding->pid)) {
		/* two of them would be worse than none */
		ds_return_lost(parent, client,
			       "its former process does not end");
		(void)keeper_drop(parent->keeper, holding->label);
		ds_held_close(held);
		TALLOC_FREE(held);
		return;
	}

	pid = ds_return_fork(parent, held, client);
	ds_held_close(held);
	TALLOC_FREE(held);

	if (pid == -1) {
		ds_return_lost(parent, client, "no process could be started");
		(void)keeper_drop(parent->keeper, holding->label);
		return;
	}
	ret->num_restoring += 1;
	ret->num_pending += 1;
}

/*
 * Until every process is either back or lost, at most for the restore
 * timeout: what is not back then is killed, so that the others can go on.
 */
static void ds_return_wait(struct ds_parent *parent)
{
	struct timeval end = timeval_current_ofs(
		parent->config->restore_timeout, 0);
	struct ds_peer *peer = NULL;
	int err = 0;

	while ((err == 0) && (parent->ret->num_restoring != 0)) {
		struct timeval now = timeval_current();
		int64_t left = usec_time_diff(&end, &now);

		if (left <= 0) {
			break;
		}
		err = ds_peers_handle(parent, 1 + left / 1000);
	}

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->state == DS_PEER_RESTORING) {
			kill(peer->pid, SIGKILL);
			ds_return_end(peer,
				      "it was not back within the "
				      "restore timeout");
		}
	}
}

/*
 * The clocks of handles whose clients are away ran in the process that is
 * gone.
 */
static int ds_return_scavenger_fn(struct db_record *rec,
				  struct smbXsrv_open_global0 *global,
				  void *private_data)
{
	struct vfs_default_durable_cookie cookie;
	enum ndr_err_code ndr_err;
	NTTIME until;

	if (!server_id_is_disconnected(&global->server_id) ||
	    !global->durable)
	{
		return 0;
	}
	ndr_err = ndr_pull_struct_blob(
		&global->backend_cookie,
		talloc_tos(),
		&cookie,
		(ndr_pull_flags_fn_t)ndr_pull_vfs_default_durable_cookie);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		return 0;
	}
	until = global->disconnect_time +
		(NTTIME)global->durable_timeout_msec * 10000;
	scavenger_schedule(cookie.id, global->open_persistent_id, until);
	return 0;
}

/*
 * What the processes restore, and what new clients open, is watched by
 * notifyd, which they find by its name: it must have it first. It says so to
 * us when it has.
 */
static void ds_return_notifyd(struct ds_parent *parent)
{
	struct server_id notifyd = parent->smbd->notifyd();
	struct server_id named = { .pid = 0 };
	struct tevent_context *ev = NULL;
	struct tevent_req *req = NULL;
	bool ok;

	if (procid_to_pid(&notifyd) == 0) {
		/* smbd --interactive is notifyd itself */
		return;
	}
	ev = samba_tevent_context_init(parent);
	if (ev == NULL) {
		return;
	}
	req = messaging_read_send(
		ev, ev, parent->msg_ctx, MSG_SMB_NOTIFY_STARTED);
	if ((req == NULL) ||
	    !tevent_req_set_endtime(req,
				    ev,
				    timeval_current_ofs_msec(
					    DS_NOTIFYD_WAIT_MSEC)))
	{
		TALLOC_FREE(ev);
		return;
	}
	ok = server_id_db_lookup_one(
		messaging_names_db(parent->msg_ctx), "notify-daemon", &named);
	if (!ok || (procid_to_pid(&named) != procid_to_pid(&notifyd))) {
		ok = tevent_req_poll(req, ev);
		if (!ok || (messaging_read_recv(req, NULL, NULL) != 0)) {
			DBG_ERR("notifyd does not start: clients may no "
				"longer be told of changes in directories\n");
		}
	}
	TALLOC_FREE(req);
	TALLOC_FREE(ev);
}

void ds_return_begin(struct ds_parent *parent)
{
	struct keeper_holding *list = NULL;
	struct ds_peer *peer = NULL;
	struct ds_return *ret = NULL;
	json_t *info = NULL;
	size_t num = 0;
	size_t i;
	int err;

	if (parent->keeper == NULL) {
		return;
	}
	err = keeper_list(parent, parent->keeper, &list, &num);
	if (err != 0) {
		DBG_ERR("cannot ask the keeper what it holds: %s\n",
			keeper_error(parent->keeper));
		return;
	}
	if (num == 0) {
		TALLOC_FREE(list);
		return;
	}

	ret = talloc_zero(parent, struct ds_return);
	if (ret == NULL) {
		return;
	}
	ret->num_pending = 1;
	ret->lost = json_array();
	talloc_set_destructor(ret, ds_return_destructor);
	parent->ret = ret;

	err = keeper_take(parent,
			  parent->keeper,
			  "smbd",
			  &info,
			  &parent->listeners,
			  &parent->num_listeners);
	if (err == 0) {
		ret->restart = true;
		json_array_extend(ret->lost, json_object_get(info, "lost"));
		ret->num_lost = json_array_size(ret->lost);
		json_decref(info);
	}

	ds_return_notifyd(parent);

	for (i = 0; i < num; i++) {
		if (strncmp(list[i].label, "client-", 7) == 0) {
			ds_return_one(parent, &list[i]);
		}
	}
	TALLOC_FREE(list);

	ds_return_wait(parent);

	if (ret->restart || ret->crashed) {
		(void)smbXsrv_open_global_traverse(
			ds_return_scavenger_fn, NULL);
	}

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->state != DS_PEER_QUIET) {
			continue;
		}
		peer->state = DS_PEER_RUNNING;
		ds_peer_send(peer, json_pack("{ss}", "op", "thaw"));
	}
	ret->num_pending -= 1;
	ds_return_check(parent);
}
