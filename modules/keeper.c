/*
   durable_state: smbd's parent and the keeper

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
#include "dynconfig/dynconfig.h"
#include "system/select.h"
#include "system/wait.h"
#include "lib/util/util_process.h"
#include "keeper/keeper_client.h"
#include "options.h"
#include "parent.h"

#define DS_KEEPER_TIMEOUT_MS 5000

/* Between two attempts to start it, doubled up to the second one */
#define DS_KEEPER_WAIT_MIN 1
#define DS_KEEPER_WAIT_MAX 60

static void ds_keeper_retry(struct ds_parent *parent);

static void ds_keeper_gone(struct tevent_context *ev,
			   struct tevent_fd *fde,
			   uint16_t flags,
			   void *private_data)
{
	struct ds_parent *parent = talloc_get_type_abort(
		private_data, struct ds_parent);

	DBG_ERR("The keeper (durable_stated) has ended: no client is "
		"protected until it is back.\n");
	ds_stop_keeper_gone(parent);
	ds_keeper_reconnect(parent);
}

/*
 * It becomes a daemon in a session of its own, and closes the pipe when
 * it listens. If it does not get that far the pipe is closed as well, and
 * the connect that follows tells.
 */
static int ds_keeper_spawn(struct ds_parent *parent)
{
	char *ready_option = NULL;
	struct pollfd pfd = { .events = POLLIN, };
	int ready[2];
	pid_t pid;
	int ret;

	ret = pipe(ready);
	if (ret == -1) {
		return errno;
	}
	ready_option = talloc_asprintf(
		talloc_tos(), "--ready-signal-fd=%d", ready[1]);
	if (ready_option == NULL) {
		close(ready[0]);
		close(ready[1]);
		return ENOMEM;
	}

	pid = fork();
	if (pid == 0) {
		close(ready[0]);
		execl(parent->config->keeper,
		      parent->config->keeper,
		      "-D",
		      "-s",
		      get_dyn_CONFIGFILE(),
		      ready_option,
		      (char *)NULL);
		_exit(127);
	}
	ret = (pid == -1) ? errno : 0;
	TALLOC_FREE(ready_option);
	close(ready[1]);

	pfd.fd = ready[0];
	while ((ret == 0) &&
	       (poll(&pfd, 1, DS_KEEPER_TIMEOUT_MS) == -1) &&
	       (errno == EINTR)) {
		/* the end of the process that became the daemon */
	}
	close(ready[0]);
	if (pid > 0) {
		(void)waitpid(pid, NULL, WNOHANG);
	}
	return ret;
}

static int ds_keeper_connect(struct ds_parent *parent)
{
	char *dir = ds_config_directory(talloc_tos());
	int ret;

	if (dir == NULL) {
		return ENOMEM;
	}
	ret = keeper_connect(parent,
			     dir,
			     "parent",
			     DS_KEEPER_TIMEOUT_MS,
			     &parent->keeper);
	TALLOC_FREE(dir);
	if (ret != 0) {
		return ret;
	}

	parent->keeper_fde = tevent_add_fd(parent->ev,
					   parent,
					   keeper_conn_fd(parent->keeper),
					   TEVENT_FD_READ,
					   ds_keeper_gone,
					   parent);
	if (parent->keeper_fde == NULL) {
		TALLOC_FREE(parent->keeper);
		return ENOMEM;
	}
	return 0;
}

/*
 * What processes gave to a keeper that has ended is gone with it.
 */
static void ds_keeper_fill(struct ds_parent *parent)
{
	struct ds_peer *peer = NULL;

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->state == DS_PEER_RUNNING) {
			ds_peer_send(peer, json_pack("{ss}", "op", "hold"));
		}
	}
}

void ds_keeper_start(struct ds_parent *parent)
{
	int ret;

	ret = ds_keeper_connect(parent);
	if ((ret == ENOENT) || (ret == ECONNREFUSED) ||
	    /* it was about to end */
	    (ret == ECONNRESET) || (ret == EPIPE))
	{
		ret = ds_keeper_spawn(parent);
		if (ret == 0) {
			ret = ds_keeper_connect(parent);
		}
	}
	if (ret == 0) {
		DBG_WARNING("The keeper is process %d.\n",
			    (int)keeper_conn_pid(parent->keeper));
		parent->keeper_wait = 0;
		if (parent->guarded) {
			(void)ds_guard(parent);
		}
		ds_keeper_fill(parent);
		return;
	}

	DBG_ERR("Cannot use the keeper %s: %s. No client is protected.\n",
		parent->config->keeper,
		strerror(ret));
	ds_keeper_retry(parent);
}

void ds_keeper_find(struct ds_parent *parent)
{
	int ret;

	ret = ds_keeper_connect(parent);
	if ((ret != 0) && (ret != ENOENT) && (ret != ECONNREFUSED)) {
		DBG_ERR("Cannot use the keeper: %s\n", strerror(ret));
	}
}

void ds_keeper_reconnect(struct ds_parent *parent)
{
	TALLOC_FREE(parent->keeper_fde);
	TALLOC_FREE(parent->keeper);
	ds_keeper_start(parent);
}

static void ds_keeper_again(struct tevent_context *ev,
			    struct tevent_timer *te,
			    struct timeval now,
			    void *private_data)
{
	struct ds_parent *parent = talloc_get_type_abort(
		private_data, struct ds_parent);

	TALLOC_FREE(parent->keeper_timer);
	ds_keeper_start(parent);
}

static void ds_keeper_retry(struct ds_parent *parent)
{
	parent->keeper_wait = MIN(MAX(2 * parent->keeper_wait,
				      DS_KEEPER_WAIT_MIN),
				  DS_KEEPER_WAIT_MAX);
	parent->keeper_timer = tevent_add_timer(
		parent->ev,
		parent,
		timeval_current_ofs(parent->keeper_wait, 0),
		ds_keeper_again,
		parent);
}
