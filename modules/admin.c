/*
   durable_state: the control socket

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
#include "system/network.h"
#include "lib/util/dlinklist.h"
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "durable_state/durable_state.h"
#include "options.h"
#include "parent.h"

/*
 * Lines of JSON from and to samba-tool durable-state, see
 * docs/interfaces.md.
 */

#define DS_ADMIN_LINE_MAX 4096

/* How long the clients' processes may take to say how they are */
#define DS_STATUS_USECS 2000000

struct ds_admin_conn {
	struct ds_admin_conn *prev, *next;
	struct ds_admin *admin;
	int fd;
	struct tevent_fd *fde;

	char in[DS_ADMIN_LINE_MAX];
	size_t in_len;
	/* what the socket has not taken yet */
	char *out;

	/* a status that is being collected */
	json_t *connections;
	struct tevent_timer *timer;
};

struct ds_admin {
	struct ds_parent *parent;
	int fd;
	struct tevent_fd *fde;
	struct ds_admin_conn *conns;
};

static int ds_admin_destructor(struct ds_admin *admin)
{
	TALLOC_FREE(admin->fde);
	close(admin->fd);
	return 0;
}

static int ds_admin_conn_destructor(struct ds_admin_conn *conn)
{
	ds_stop_forget(conn->admin->parent, conn);
	TALLOC_FREE(conn->fde);
	close(conn->fd);
	json_decref(conn->connections);
	DLIST_REMOVE(conn->admin->conns, conn);
	return 0;
}

static void ds_admin_flush(struct ds_admin_conn *conn)
{
	while ((conn->out != NULL) && (conn->out[0] != '\0')) {
		ssize_t n = send(conn->fd,
				 conn->out,
				 strlen(conn->out),
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0) {
			if (conn->fde != NULL) {
				TEVENT_FD_WRITEABLE(conn->fde);
			}
			return;
		}
		memmove(conn->out, conn->out + n, strlen(conn->out + n) + 1);
	}
	TALLOC_FREE(conn->out);
	if (conn->fde != NULL) {
		TEVENT_FD_NOT_WRITEABLE(conn->fde);
	}
}

static void ds_admin_line(void *private_data, json_t *json)
{
	struct ds_admin_conn *conn = talloc_get_type_abort(
		private_data, struct ds_admin_conn);
	char *text = json_dumps(json, JSON_COMPACT);

	if (text == NULL) {
		return;
	}
	conn->out = talloc_asprintf_append(
		conn->out != NULL ? conn->out : talloc_strdup(conn, ""),
		"%s\n",
		text);
	free(text);
	ds_admin_flush(conn);
}

static void ds_admin_reply(struct ds_admin_conn *conn, json_t *json)
{
	ds_admin_line(conn, json);
	json_decref(json);
}

static void ds_admin_error(struct ds_admin_conn *conn, const char *error)
{
	ds_admin_reply(conn, json_pack("{sb ss}", "ok", false, "error", error));
}

static json_t *ds_admin_keeper(struct ds_parent *parent, json_t **events)
{
	json_t *status = NULL;
	json_t *result = NULL;
	const char *state = NULL;

	*events = NULL;
	if (parent->keeper == NULL) {
		return json_pack("{sn ss}", "pid", "state", "gone");
	}
	if (keeper_status(parent->keeper, &status) != 0) {
		return json_pack("{sn ss}", "pid", "state", "gone");
	}
	state = ds_json_string(status, "state");
	result = json_pack("{sI ss}",
			   "pid", ds_json_int(status, "pid"),
			   "state", state != NULL ? state : "idle");
	*events = json_incref(json_object_get(status, "events"));
	json_decref(status);
	return result;
}

/*
 * Why no client is protected as long as this smbd runs. NULL if that is not
 * so.
 */
static const char *ds_admin_problem(const struct ds_parent *parent)
{
	if (parent->config_ok) {
		return NULL;
	}
	if (parent->config->problem != NULL) {
		return parent->config->problem;
	}
	return "the directory durable_state in the lock directory cannot be "
	       "used, smbd's log says why";
}

static json_t *ds_admin_smbd(struct ds_parent *parent)
{
	struct tm *tm = gmtime(&parent->started);
	const char *state = "running";
	char buf[32] = "";

	if (tm != NULL) {
		strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", tm);
	}
	if (parent->stop != NULL) {
		state = "stopping";
	} else if (parent->ret != NULL) {
		state = "restoring";
	}
	return json_pack("{sI ss sO ss ss?}",
			 "pid", (json_int_t)getpid(),
			 "state", state,
			 "argv", parent->argv,
			 "started", buf,
			 "problem", ds_admin_problem(parent));
}

/*
 * A client is protected only while somebody can hold it.
 */
static void ds_admin_unprotect(struct ds_parent *parent, json_t *connections)
{
	const char *protection = "none";
	const char *reason = ds_admin_problem(parent);
	json_t *connection = NULL;
	size_t i;

	if (reason != NULL) {
		/* whatever else there is */
	} else if (parent->keeper == NULL) {
		reason = "the keeper is not running";
	} else if (parent->config->on_stop == DS_ON_STOP_DROP) {
		protection = "partly";
		reason = "durable_state:on stop = drop: only "
			 "'samba-tool durable-state restart' keeps it";
	} else {
		return;
	}
	json_array_foreach(connections, i, connection) {
		const char *old = ds_json_string(connection, "protected");

		if ((old != NULL) && strequal(old, "none")) {
			/* it has a reason of its own */
			continue;
		}
		json_object_set_new(
			connection, "protected", json_string(protection));
		json_object_set_new(
			connection, "reason", json_string(reason));
	}
}

static void ds_admin_status_done(struct ds_admin_conn *conn)
{
	struct ds_parent *parent = conn->admin->parent;
	json_t *events = NULL;
	json_t *keeper = NULL;

	TALLOC_FREE(conn->timer);
	ds_admin_unprotect(parent, conn->connections);
	keeper = ds_admin_keeper(parent, &events);

	ds_admin_reply(conn,
		       json_pack("{sb ss so so so so so}",
				 "ok", true,
				 "version", samba_version_string(),
				 "smbd", ds_admin_smbd(parent),
				 "crashes", ds_crash_status(parent),
				 "keeper", keeper,
				 "connections", conn->connections,
				 "events",
				 events != NULL ? events : json_array()));
	conn->connections = NULL;
}

static bool ds_admin_asked(struct ds_parent *parent)
{
	struct ds_peer *peer = NULL;

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->asked != 0) {
			return true;
		}
	}
	return false;
}

static void ds_admin_check(struct ds_parent *parent)
{
	struct ds_admin_conn *conn = NULL;

	if ((parent->admin == NULL) || ds_admin_asked(parent)) {
		return;
	}
	for (conn = parent->admin->conns; conn != NULL; conn = conn->next) {
		if (conn->connections != NULL) {
			ds_admin_status_done(conn);
		}
	}
}

void ds_admin_peer_status(struct ds_peer *peer,
			  json_int_t number,
			  json_t *connection)
{
	struct ds_admin_conn *conn = NULL;

	if ((peer->asked == 0) || (number != peer->asked)) {
		/* of a question that is not waited for any more */
		return;
	}
	peer->asked = 0;
	if (peer->parent->admin == NULL) {
		return;
	}
	for (conn = peer->parent->admin->conns;
	     conn != NULL;
	     conn = conn->next) {
		if ((conn->connections != NULL) &&
		    json_is_object(connection))
		{
			json_array_append(conn->connections, connection);
		}
	}
	ds_admin_check(peer->parent);
}

void ds_admin_peer_gone(struct ds_peer *peer)
{
	peer->asked = 0;
	ds_admin_check(peer->parent);
}

static void ds_admin_status_timeout(struct tevent_context *ev,
				    struct tevent_timer *te,
				    struct timeval now,
				    void *private_data)
{
	struct ds_admin_conn *conn = talloc_get_type_abort(
		private_data, struct ds_admin_conn);
	struct ds_parent *parent = conn->admin->parent;
	struct ds_peer *peer = NULL;

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->asked == 0) {
			continue;
		}
		peer->asked = 0;
		json_array_append_new(
			conn->connections,
			json_pack("{sI ss ss ss sI sI sI ss ss}",
				  "pid", (json_int_t)peer->pid,
				  "client",
				  peer->client != NULL ? peer->client : "?",
				  "user", "",
				  "dialect", "",
				  "sessions", (json_int_t)0,
				  "opens", (json_int_t)0,
				  "locks", (json_int_t)0,
				  "protected", "partly",
				  "reason", "the process does not answer"));
	}
	ds_admin_check(parent);
}

static void ds_admin_status(struct ds_admin_conn *conn)
{
	struct ds_parent *parent = conn->admin->parent;
	struct ds_peer *peer = NULL;
	static unsigned int asked;

	if (conn->connections != NULL) {
		ds_admin_error(conn, "a status is being collected already");
		return;
	}
	conn->connections = json_array();
	conn->timer = tevent_add_timer(
		parent->ev,
		conn,
		timeval_current_ofs_usec(DS_STATUS_USECS),
		ds_admin_status_timeout,
		conn);
	if ((conn->connections == NULL) || (conn->timer == NULL)) {
		ds_admin_error(conn, "out of memory");
		return;
	}
	asked = (asked == UINT_MAX) ? 1 : asked + 1;
	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->fd == -1) {
			/* it has ended, and another one is about to follow */
			continue;
		}
		peer->asked = asked;
		ds_peer_send(peer,
			     json_pack("{ss sI}",
				       "op", "status",
				       "number", (json_int_t)asked));
	}
	ds_admin_check(parent);
}

static void ds_admin_stop(struct ds_admin_conn *conn, json_t *request)
{
	struct ds_parent *parent = conn->admin->parent;
	json_int_t timeout = ds_json_int(request, "timeout");
	bool force = json_is_true(json_object_get(request, "force"));
	const char *error = NULL;

	if ((timeout < 1) || (timeout > 600)) {
		ds_admin_error(conn,
			       "timeout must be a number from 1 to 600");
		return;
	}
	error = ds_admin_problem(parent);
	if (error == NULL) {
		error = ds_stop_begin(
			parent, timeout, force, ds_admin_line, conn);
	}
	if (error != NULL) {
		ds_admin_error(conn, error);
	}
}

static void ds_admin_request(struct ds_admin_conn *conn, const char *line)
{
	json_error_t json_error;
	json_t *request = json_loads(line, JSON_REJECT_DUPLICATES, &json_error);
	const char *command = ds_json_string(request, "command");

	if (command == NULL) {
		ds_admin_error(conn, "not a JSON object with a command");
	} else if (strequal(command, "status")) {
		ds_admin_status(conn);
	} else if (strequal(command, "stop")) {
		ds_admin_stop(conn, request);
	} else {
		ds_admin_error(conn, "unknown command");
	}
	json_decref(request);
}

static void ds_admin_read(struct ds_admin_conn *conn)
{
	char *end = NULL;
	ssize_t n;

	n = recv(conn->fd,
		 conn->in + conn->in_len,
		 sizeof(conn->in) - 1 - conn->in_len,
		 MSG_DONTWAIT);
	if ((n == -1) && ((errno == EAGAIN) || (errno == EINTR))) {
		return;
	}
	if (n <= 0) {
		TALLOC_FREE(conn);
		return;
	}
	conn->in_len += n;
	conn->in[conn->in_len] = '\0';

	while ((end = memchr(conn->in, '\n', conn->in_len)) != NULL) {
		size_t len = end + 1 - conn->in;

		*end = '\0';
		ds_admin_request(conn, conn->in);
		memmove(conn->in, end + 1, conn->in_len - len + 1);
		conn->in_len -= len;
	}
	if (conn->in_len == sizeof(conn->in) - 1) {
		DBG_WARNING("control socket: a line of more than %d bytes\n",
			    DS_ADMIN_LINE_MAX);
		TALLOC_FREE(conn);
	}
}

static void ds_admin_handler(struct tevent_context *ev,
			     struct tevent_fd *fde,
			     uint16_t flags,
			     void *private_data)
{
	struct ds_admin_conn *conn = talloc_get_type_abort(
		private_data, struct ds_admin_conn);

	if (flags & TEVENT_FD_WRITE) {
		ds_admin_flush(conn);
		return;
	}
	ds_admin_read(conn);
}

static void ds_admin_accept(struct tevent_context *ev,
			    struct tevent_fd *fde,
			    uint16_t flags,
			    void *private_data)
{
	struct ds_admin *admin = talloc_get_type_abort(
		private_data, struct ds_admin);
	struct ds_admin_conn *conn = NULL;
	int ret;
	int fd;

	fd = accept4(admin->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd == -1) {
		return;
	}
	ret = keeper_check_peer(fd, NULL);
	if (ret != 0) {
		DBG_ERR("control socket: only root may use it\n");
		close(fd);
		return;
	}

	conn = talloc_zero(admin, struct ds_admin_conn);
	if (conn == NULL) {
		close(fd);
		return;
	}
	conn->admin = admin;
	conn->fd = fd;
	DLIST_ADD(admin->conns, conn);
	talloc_set_destructor(conn, ds_admin_conn_destructor);
	conn->fde = tevent_add_fd(
		ev, conn, fd, TEVENT_FD_READ, ds_admin_handler, conn);
	if (conn->fde == NULL) {
		TALLOC_FREE(conn);
	}
}

int ds_admin_listen(struct ds_parent *parent)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, };
	char *dir = ds_config_directory(talloc_tos());
	struct ds_admin *admin = NULL;
	mode_t mask;
	int ret;

	if (dir == NULL) {
		return ENOMEM;
	}
	ret = snprintf(un.sun_path, sizeof(un.sun_path), "%s/control", dir);
	TALLOC_FREE(dir);
	if ((ret < 0) || (ret >= (int)sizeof(un.sun_path))) {
		return ENAMETOOLONG;
	}

	admin = talloc(parent, struct ds_admin);
	if (admin == NULL) {
		return ENOMEM;
	}
	*admin = (struct ds_admin) {
		.parent = parent,
		.fd = socket(AF_UNIX,
			     SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			     0),
	};
	if (admin->fd == -1) {
		ret = errno;
		TALLOC_FREE(admin);
		return ret;
	}
	talloc_set_destructor(admin, ds_admin_destructor);

	/* of a smbd that has ended: there is one at a time, pidfile */
	unlink(un.sun_path);
	mask = umask(0177);
	ret = bind(admin->fd, (struct sockaddr *)&un, sizeof(un));
	umask(mask);
	if (ret == 0) {
		ret = listen(admin->fd, 5);
	}
	if (ret == -1) {
		ret = errno;
		TALLOC_FREE(admin);
		return ret;
	}

	admin->fde = tevent_add_fd(parent->ev,
				   admin,
				   admin->fd,
				   TEVENT_FD_READ,
				   ds_admin_accept,
				   admin);
	if (admin->fde == NULL) {
		TALLOC_FREE(admin);
		return ENOMEM;
	}
	parent->admin = admin;
	return 0;
}
