/*
   durable_state: smbd's parent and its children

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
#include "system/network.h"
#include "system/filesys.h"
#include <sys/epoll.h>
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "options.h"
#include "parent.h"
#include "resume.h"
#include "save.h"

struct ds_parent *ds_parent;

/* Peers that are read before other events have their turn */
#define DS_PEER_EVENTS 64

void ds_peer_close(struct ds_peer *peer)
{
	if (peer->fd == -1) {
		return;
	}
	/* closing is not enough while another process has a copy */
	(void)epoll_ctl(peer->parent->peers_fd, EPOLL_CTL_DEL, peer->fd, NULL);
	close(peer->fd);
	peer->fd = -1;
}

static int ds_peer_destructor(struct ds_peer *peer)
{
	ds_peer_close(peer);
	TALLOC_FREE(peer->end_fde);
	if (peer->end_fd != -1) {
		close(peer->end_fd);
	}
	DLIST_REMOVE(peer->parent->peers, peer);
	return 0;
}

void ds_peer_send(struct ds_peer *peer, json_t *json)
{
	int ret;

	ret = ds_send(peer->fd, json);
	if (ret != 0) {
		/* its end of the socket pair is about to say so */
		DBG_NOTICE("cannot tell process %d: %s\n",
			   (int)peer->pid,
			   strerror(ret));
	}
}

/*
 * Who sends a signal to all processes may come to the parent last. Only when
 * it has had the time to come is the signal meant for the one process.
 */
#define DS_TERM_WAIT_MSEC 200

static void ds_peer_term(struct tevent_context *ev,
			 struct tevent_timer *te,
			 struct timeval now,
			 void *private_data)
{
	struct ds_peer *peer = talloc_get_type_abort(
		private_data, struct ds_peer);

	TALLOC_FREE(te);
	if (peer->parent->stop == NULL) {
		ds_peer_send(peer, json_pack("{ss}", "op", "exit"));
	}
}

static void ds_peer_packet(struct ds_peer *peer, json_t *json)
{
	const char *op = ds_json_string(json, "op");
	const char *client = ds_json_string(json, "client");

	if (op == NULL) {
		return;
	}
	if ((client != NULL) && (peer->client == NULL)) {
		peer->client = talloc_strdup(peer, client);
	}

	if (strequal(op, "term")) {
		struct tevent_timer *te = tevent_add_timer(
			peer->parent->ev,
			peer,
			timeval_current_ofs_msec(DS_TERM_WAIT_MSEC),
			ds_peer_term,
			peer);

		if (te == NULL) {
			ds_peer_send(peer, json_pack("{ss}", "op", "exit"));
		}
	} else if (strequal(op, "status")) {
		ds_admin_peer_status(peer,
				     ds_json_int(json, "number"),
				     json_object_get(json, "connection"));
	} else if ((peer->victim != NULL) || (peer->resumed != 0)) {
		ds_crash_peer(peer, op, json);
	} else if (peer->returning) {
		ds_return_peer(peer, op, json);
	} else {
		ds_stop_peer(peer, op, json);
	}
}

/*
 * While the keeper has a duplicate of its socket the client sees no end.
 */
static void ds_peer_forget(struct ds_peer *peer)
{
	struct ds_parent *parent = peer->parent;
	char label[DS_LABEL_SIZE];

	if ((parent->keeper == NULL) || (peer->state == DS_PEER_HELD) ||
	    /* another one brings the client back from it */
	    (peer->state == DS_PEER_GONE))
	{
		return;
	}
	snprintf(label, sizeof(label), "client-%d", (int)peer->pid);
	(void)keeper_drop(parent->keeper, label);
}

void ds_peer_ended(struct ds_peer *peer)
{
	struct ds_parent *parent = peer->parent;

	ds_return_peer(peer, "gone", NULL);
	ds_peer_forget(peer);
	ds_admin_peer_gone(peer);
	ds_stop_peer(peer, "gone", NULL);
	TALLOC_FREE(peer);
	if (parent->stop == NULL) {
		/* it may have been kept as a zombie */
		parent->smbd->reap();
	}
}

static void ds_peer_read(struct ds_peer *peer)
{
	struct keeper_packet *packet = NULL;
	int ret;

	ret = keeper_packet_recv(peer, peer->fd, &packet);
	if (ret == EAGAIN) {
		return;
	}
	if (ret != 0) {
		/* the process has ended, or is about to */
		if (!ds_crash_begin(peer)) {
			ds_peer_ended(peer);
		}
		return;
	}
	ds_peer_packet(peer, packet->json);
	TALLOC_FREE(packet);
}

int ds_peers_handle(struct ds_parent *parent, int msec)
{
	struct epoll_event events[DS_PEER_EVENTS];
	int num;
	int i;

	num = epoll_wait(parent->peers_fd, events, DS_PEER_EVENTS, msec);
	if (num == -1) {
		return (errno == EINTR) ? 0 : errno;
	}
	for (i = 0; i < num; i++) {
		/* frees no other peer than this one */
		ds_peer_read(events[i].data.ptr);
	}
	return 0;
}

static void ds_peers_handler(struct tevent_context *ev,
			     struct tevent_fd *fde,
			     uint16_t flags,
			     void *private_data)
{
	struct ds_parent *parent = talloc_get_type_abort(
		private_data, struct ds_parent);

	(void)ds_peers_handle(parent, 0);
}

/*
 * In a new child. The parent's memory is shared with it until one of them
 * writes there, so what grows with the number of clients is left alone:
 * nothing but the descriptors must go. smbd removes all events itself.
 */
static void ds_parent_leave(struct ds_parent *parent)
{
	struct ds_peer *peer = NULL;
	size_t i;

	/* before its descriptor, which tevent would not find any more */
	TALLOC_FREE(parent->peers_fde);
	close(parent->peers_fd);
	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->fd != -1) {
			close(peer->fd);
		}
	}
	for (i = 0; i < parent->num_listeners; i++) {
		if (parent->listeners[i] != -1) {
			close(parent->listeners[i]);
		}
	}
	TALLOC_FREE(parent->keeper_fde);
	TALLOC_FREE(parent->keeper);
	TALLOC_FREE(parent->admin);
	ds_parent = NULL;
}

static struct ds_peer *ds_peer_create(struct ds_parent *parent, int fd)
{
	struct ds_peer *peer = NULL;
	struct epoll_event event = { .events = EPOLLIN, };
	int ret;

	peer = talloc(parent, struct ds_peer);
	if (peer == NULL) {
		close(fd);
		return NULL;
	}
	*peer = (struct ds_peer) {
		.parent = parent,
		.fd = fd,
		.end_fd = -1,
		.born = time(NULL),
	};
	DLIST_ADD_END(parent->peers, peer);
	talloc_set_destructor(peer, ds_peer_destructor);

	event.data.ptr = peer;
	ret = epoll_ctl(parent->peers_fd, EPOLL_CTL_ADD, fd, &event);
	if (ret == -1) {
		DBG_ERR("epoll_ctl failed: %s\n", strerror(errno));
		TALLOC_FREE(peer);
	}
	return peer;
}

/*
 * Without a peer the client is served all the same, unprotected.
 */
static struct ds_peer *ds_parent_socketpair(struct ds_parent *parent, int *fd)
{
	struct ds_peer *peer = NULL;
	int sv[2] = { -1, -1 };
	int size = 256 * 1024;
	int ret;

	ret = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
	if (ret == -1) {
		DBG_ERR("socketpair failed: %s\n", strerror(errno));
		return NULL;
	}
	(void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));

	peer = ds_peer_create(parent, sv[0]);
	if (peer == NULL) {
		close(sv[1]);
		return NULL;
	}
	*fd = sv[1];
	return peer;
}

pid_t ds_parent_fork(struct ds_parent *parent, struct ds_held *held)
{
	struct ds_peer *peer = NULL;
	int fd = -1;
	pid_t pid;

	peer = ds_parent_socketpair(parent, &fd);
	if ((peer == NULL) && (held != NULL)) {
		return -1;
	}

	pid = fork();
	if (pid == 0) {
		held = talloc_steal(NULL, held);
		ds_parent_leave(parent);
		if (fd != -1) {
			ds_child_born(fd, held);
		}
		return 0;
	}
	if (fd != -1) {
		close(fd);
	}
	if (pid == -1) {
		TALLOC_FREE(peer);
		return -1;
	}
	if (peer != NULL) {
		peer->pid = pid;
		peer->returning = (held != NULL);
		if (held != NULL) {
			strlcpy(peer->label, held->label, sizeof(peer->label));
		}
		peer->state = (held != NULL) ? DS_PEER_RESTORING :
					       DS_PEER_RUNNING;
	}
	return pid;
}

static pid_t ds_hook_fork(void)
{
	if (ds_parent == NULL) {
		return fork();
	}
	return ds_parent_fork(ds_parent, NULL);
}

static int ds_parent_destructor(struct ds_parent *parent)
{
	size_t i;

	if (parent->peers_fd != -1) {
		close(parent->peers_fd);
	}
	for (i = 0; i < parent->num_listeners; i++) {
		if (parent->listeners[i] != -1) {
			close(parent->listeners[i]);
		}
	}
	json_decref(parent->argv);
	json_decref(parent->again);
	json_decref(parent->dropped);
	return 0;
}

static bool ds_parent_directory(void)
{
	char *dir = ds_config_directory(talloc_tos());
	bool ok = false;

	if (dir != NULL) {
		ok = directory_create_or_exist_strict(dir, 0, 0700);
	}
	if (!ok) {
		DBG_ERR("cannot use the directory %s: it must be root's and "
			"have mode 0700. No client is protected.\n",
			dir);
	}
	TALLOC_FREE(dir);
	return ok;
}

static void ds_hook_start(struct tevent_context *ev,
			  struct messaging_context *msg_ctx,
			  const struct smbd_durable_parent *smbd,
			  int argc,
			  const char **argv)
{
	int i;

	ds_parent = talloc(NULL, struct ds_parent);
	if (ds_parent == NULL) {
		return;
	}
	*ds_parent = (struct ds_parent) {
		.ev = ev,
		.msg_ctx = msg_ctx,
		.smbd = smbd,
		.argv = json_array(),
		.started = time(NULL),
		.peers_fd = epoll_create1(EPOLL_CLOEXEC),
	};
	talloc_set_destructor(ds_parent, ds_parent_destructor);
	ds_parent->peers_fde = tevent_add_fd(ev,
					     ds_parent,
					     ds_parent->peers_fd,
					     TEVENT_FD_READ,
					     ds_peers_handler,
					     ds_parent);
	if (ds_parent->peers_fde == NULL) {
		DBG_ERR("No event for the clients' processes: no client is "
			"protected.\n");
		TALLOC_FREE(ds_parent);
		return;
	}
	for (i = 0; i < argc; i++) {
		json_array_append_new(ds_parent->argv, json_string(argv[i]));
	}

	ds_parent->config_ok = ds_config_load(ds_parent, &ds_parent->config);
	if (ds_parent->config == NULL) {
		TALLOC_FREE(ds_parent);
		return;
	}
	if (!ds_parent->config_ok) {
		DBG_ERR("The options are wrong (see above): no client is "
			"protected until they are mended and smbd is "
			"started again.\n");
	}
	if (!ds_parent_directory()) {
		ds_parent->config_ok = false;
		return;
	}
	if (ds_parent->config_ok) {
		ds_keeper_start(ds_parent);
	} else {
		ds_keeper_find(ds_parent);
	}
	/* those that were kept are innocent of a wrong option */
	ds_return_begin(ds_parent);
	if (ds_parent->config_ok && (ds_parent->keeper != NULL)) {
		(void)ds_guard(ds_parent);
	}
}

static void ds_hook_ready(void)
{
	struct ds_parent *parent = ds_parent;
	size_t i;
	int ret;

	if (parent == NULL) {
		return;
	}

	/* sockets for addresses that are not configured any more */
	for (i = 0; i < parent->num_listeners; i++) {
		if (parent->listeners[i] != -1) {
			close(parent->listeners[i]);
			parent->listeners[i] = -1;
		}
	}

	ret = ds_admin_listen(parent);
	if (ret != 0) {
		DBG_ERR("samba-tool durable-state will not work: %s\n",
			strerror(ret));
	}
}

static int ds_hook_listener(const struct sockaddr_storage *ss, uint16_t port)
{
	struct ds_parent *parent = ds_parent;
	struct samba_sockaddr want = { .u = { .ss = *ss, }, };
	size_t i;

	if (parent == NULL) {
		return -1;
	}
	set_sockaddr_port(&want.u.sa, port);

	for (i = 0; i < parent->num_listeners; i++) {
		struct samba_sockaddr have = {
			.sa_socklen = sizeof(have.u.ss),
		};
		int fd = parent->listeners[i];
		int ret;

		if (fd == -1) {
			continue;
		}
		ret = getsockname(fd, &have.u.sa, &have.sa_socklen);
		if ((ret == -1) ||
		    !sockaddr_equal(&have.u.sa, &want.u.sa) ||
		    (get_sockaddr_port(&have.u.ss) != port))
		{
			continue;
		}
		parent->listeners[i] = -1;
		return fd;
	}
	return -1;
}

void ds_drop_all(struct ds_parent *parent)
{
	struct ds_peer *peer = NULL;

	if (parent->keeper != NULL) {
		(void)keeper_wipe(parent->keeper);
	}
	/* what they find when they see that there is no parent any more */
	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->fd != -1) {
			ds_peer_send(peer, json_pack("{ss}", "op", "exit"));
		}
	}
}

static bool ds_hook_stop(void)
{
	struct ds_parent *parent = ds_parent;
	const char *error = NULL;

	if (parent == NULL) {
		return false;
	}
	if (parent->stop != NULL) {
		ds_stop_signal(parent);
		return true;
	}
	if (parent->config->on_stop == DS_ON_STOP_DROP) {
		ds_drop_all(parent);
		return false;
	}
	error = ds_stop_begin(
		parent, parent->config->drain_timeout, true, NULL, NULL);
	if (error != NULL) {
		DBG_ERR("Clients will be cut off: %s\n", error);
		ds_drop_all(parent);
		return false;
	}
	return true;
}

const struct smbd_durable_hooks ds_process_hooks = {
	.parent_start = ds_hook_start,
	.parent_listener = ds_hook_listener,
	.parent_ready = ds_hook_ready,
	.parent_stop = ds_hook_stop,
	.parent_fork = ds_hook_fork,
	.child_start = ds_child_start,
	.child_stop = ds_child_stop,
	.child_may_read = ds_child_may_read,
	.child_progress = ds_child_progress,
	.child_header = ds_save_header,
	.child_buffer = ds_save_buffer,
	.child_reading = ds_save_reading,
	.child_received = ds_save_received,
	.child_started = ds_save_started,
	.child_done = ds_resume_answer,
	.child_completed = ds_save_completed,
	.child_freed = ds_save_freed,
	.child_exit = ds_save_exit,
	.parent_zombie = ds_crash_zombie,
};
