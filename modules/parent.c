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
#include "keeper/keeper_protocol.h"
#include "options.h"
#include "parent.h"

struct ds_parent *ds_parent;

static int ds_peer_destructor(struct ds_peer *peer)
{
	TALLOC_FREE(peer->fde);
	close(peer->fd);
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
		ds_admin_peer_status(peer, json_object_get(json, "connection"));
	} else if (strequal(op, "thawed")) {
		ds_return_thawed(peer, json);
	} else {
		ds_stop_peer(peer, op, json);
	}
}

static void ds_peer_handler(struct tevent_context *ev,
			    struct tevent_fd *fde,
			    uint16_t flags,
			    void *private_data)
{
	struct ds_peer *peer = talloc_get_type_abort(
		private_data, struct ds_peer);
	struct keeper_packet *packet = NULL;
	int ret;

	ret = keeper_packet_recv(peer, peer->fd, &packet);
	if (ret == EAGAIN) {
		return;
	}
	if (ret != 0) {
		/* the process has ended, or is about to */
		ds_return_gone(peer);
		ds_admin_peer_gone(peer);
		ds_stop_peer(peer, "gone", NULL);
		TALLOC_FREE(peer);
		return;
	}
	ds_peer_packet(peer, packet->json);
	TALLOC_FREE(packet);
}

pid_t ds_parent_fork(struct ds_parent *parent, struct ds_held *held)
{
	struct ds_peer *peer = NULL;
	int sv[2] = { -1, -1 };
	int size = 256 * 1024;
	pid_t pid;
	int ret;

	ret = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
	if (ret == -1) {
		DBG_ERR("socketpair failed: %s\n", strerror(errno));
		if (held != NULL) {
			return -1;
		}
		/* serve the client all the same, unprotected */
		pid = fork();
		if (pid == 0) {
			TALLOC_FREE(ds_parent);
		}
		return pid;
	}
	(void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));

	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		held = talloc_steal(NULL, held);
		/* with it the other children's sockets */
		TALLOC_FREE(ds_parent);
		ds_child_born(sv[1], held);
		return 0;
	}
	close(sv[1]);
	if (pid == -1) {
		close(sv[0]);
		return -1;
	}

	peer = talloc(parent, struct ds_peer);
	if (peer == NULL) {
		close(sv[0]);
		return pid;
	}
	*peer = (struct ds_peer) {
		.parent = parent,
		.pid = pid,
		.fd = sv[0],
		.returning = (held != NULL),
	};
	DLIST_ADD_END(parent->peers, peer);
	talloc_set_destructor(peer, ds_peer_destructor);

	peer->fde = tevent_add_fd(parent->ev,
				  peer,
				  peer->fd,
				  TEVENT_FD_READ,
				  ds_peer_handler,
				  peer);
	if (peer->fde == NULL) {
		TALLOC_FREE(peer);
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

	for (i = 0; i < parent->num_listeners; i++) {
		if (parent->listeners[i] != -1) {
			close(parent->listeners[i]);
		}
	}
	json_decref(parent->argv);
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
	};
	talloc_set_destructor(ds_parent, ds_parent_destructor);
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
	}
	if (ds_parent->config_ok) {
		ds_keeper_start(ds_parent);
		ds_return_begin(ds_parent);
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
		return false;
	}
	error = ds_stop_begin(
		parent, parent->config->drain_timeout, true, NULL, NULL);
	if (error != NULL) {
		DBG_ERR("Clients will be cut off: %s\n", error);
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
};
