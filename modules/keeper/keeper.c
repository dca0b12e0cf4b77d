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

#include "replace.h"
#include "system/filesys.h"
#include "system/network.h"
#include "system/time.h"
#include <sys/timerfd.h>
#include "lib/util/debug.h"
#include "lib/util/dlinklist.h"
#include "lib/util/samba_util.h"
#include "keeper_protocol.h"
#include "handover.h"
#include "keeper.h"
#include "peer.h"

/* How long to wait for slow readers before executing ourselves again */
#define KEEPER_EXEC_PATIENCE_SECS 3

/* How long to leave new connections alone when out of descriptors */
#define KEEPER_ACCEPT_PAUSE_SECS 1

size_t keeper_num_parents(const struct keeper *k)
{
	const struct keeper_peer *peer = NULL;
	size_t num = 0;

	for (peer = k->peers; peer != NULL; peer = peer->next) {
		if ((peer->role == PEER_PARENT) && !peer->ended) {
			num += 1;
		}
	}
	return num;
}

enum holding_end keeper_holding_end(const struct keeper *k)
{
	return (keeper_num_parents(k) > 0) ? HOLDING_END_CLOSE :
					     HOLDING_END_DESTROY;
}

size_t keeper_drop_all(struct keeper *k)
{
	guard_release(k->guard);
	return holdings_drop_all(k->holdings, keeper_holding_end(k));
}

int64_t keeper_hold_left_ms(const struct keeper *k)
{
	struct itimerspec its;

	if ((timerfd_gettime(k->hold_fd, &its) == -1) ||
	    ((its.it_value.tv_sec == 0) && (its.it_value.tv_nsec == 0)))
	{
		return -1;
	}
	return (int64_t)its.it_value.tv_sec * 1000 +
	       its.it_value.tv_nsec / 1000000;
}

void keeper_hold_start(struct keeper *k, unsigned int seconds)
{
	struct itimerspec its = {
		.it_value.tv_sec = seconds,
		/* All zeros would be "never" */
		.it_value.tv_nsec = (seconds == 0) ? 1 : 0,
	};

	timerfd_settime(k->hold_fd, 0, &its, NULL);
	DBG_NOTICE("No smbd is here. Keeping %zu holdings (%zu descriptors) "
		   "and %zu guarded databases for %u seconds\n",
		   k->holdings->num,
		   k->holdings->num_fds,
		   k->guard->num,
		   seconds);
}

static void keeper_hold_stop(struct keeper *k)
{
	struct itimerspec its = { .it_value.tv_sec = 0 };

	timerfd_settime(k->hold_fd, 0, &its, NULL);
}

static void keeper_hold_handler(struct tevent_context *ev,
				struct tevent_fd *fde,
				uint16_t flags,
				void *private_data)
{
	struct keeper *k = talloc_get_type_abort(private_data, struct keeper);
	uint64_t expirations;
	ssize_t nread;
	size_t num;

	nread = read(k->hold_fd, &expirations, sizeof(expirations));
	if (nread != sizeof(expirations)) {
		/* Stopped or started anew after it had expired */
		return;
	}

	num = keeper_drop_all(k);
	if (num > 0) {
		DBG_ERR("No smbd came back within the hold time. "
			"Dropped %zu holdings, their clients have to connect "
			"again\n",
			num);
	}
}

void keeper_settle(struct keeper *k)
{
	bool running = (keeper_hold_left_ms(k) != -1);

	if (keeper_num_parents(k) > 0) {
		if (running) {
			keeper_hold_stop(k);
			DBG_NOTICE("smbd is here, keeping things for it\n");
		}
		return;
	}
	if (!running && ((k->holdings->num > 0) || (k->guard->num > 0))) {
		keeper_hold_start(k, k->default_hold_time);
	}
}

static void keeper_listen_again(struct tevent_context *ev,
				struct tevent_timer *te,
				struct timeval now,
				void *private_data)
{
	struct keeper *k = talloc_get_type_abort(private_data, struct keeper);

	tevent_fd_set_flags(k->listen_fde, TEVENT_FD_READ);
}

static void keeper_listen_handler(struct tevent_context *ev,
				  struct tevent_fd *fde,
				  uint16_t flags,
				  void *private_data)
{
	struct keeper *k = talloc_get_type_abort(private_data, struct keeper);
	struct tevent_timer *te = NULL;
	int fd;

	fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd != -1) {
		peer_accept(k, fd);
		return;
	}
	if ((errno != EMFILE) && (errno != ENFILE) && (errno != ENOMEM)) {
		return;
	}

	/* It stays readable: without a pause we would spin */
	DBG_ERR("Can't accept connections: %s\n", strerror(errno));
	te = tevent_add_timer(k->ev,
			      k,
			      tevent_timeval_current_ofs(
				      KEEPER_ACCEPT_PAUSE_SECS, 0),
			      keeper_listen_again,
			      k);
	if (te != NULL) {
		tevent_fd_set_flags(fde, 0);
	}
}

/* We own the pid file, so what is there under this name is a dead one's */
static int keeper_listen(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	mode_t old_umask;
	int fd, ret;

	if (strlcpy(addr.sun_path, path, sizeof(addr.sun_path)) >=
	    sizeof(addr.sun_path))
	{
		errno = ENAMETOOLONG;
		return -1;
	}

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1) {
		return -1;
	}

	unlink(path);
	old_umask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(old_umask);
	if (ret == 0) {
		ret = listen(fd, SOMAXCONN);
	}
	if (ret == -1) {
		ret = errno;
		close(fd);
		errno = ret;
		return -1;
	}
	return fd;
}

static json_t *keeper_save(const struct keeper *k, struct handover_out *out)
{
	const struct holding *h = NULL;
	const struct keeper_peer *peer = NULL;
	json_t *holdings = json_array();
	json_t *peers = json_array();

	for (h = k->holdings->list; h != NULL; h = h->next) {
		json_array_append_new(holdings, holding_save(h, out));
	}
	for (peer = k->peers; peer != NULL; peer = peer->next) {
		json_array_append_new(peers, peer_save(peer, out));
	}

	return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:O, s:o}",
			 "version", KEEPER_STATE_VERSION,
			 "socket", k->socket_path,
			 "pidfile", handover_give(out, k->pid_fd),
			 "listen", handover_give(out, k->listen_fd),
			 "hold", handover_give(out, k->hold_fd),
			 "holdings", holdings,
			 "guard", guard_save(k->guard, out),
			 "events", k->events,
			 "peers", peers);
}

static void keeper_load_holdings(struct keeper *k,
				 const json_t *array,
				 struct handover_in *in)
{
	json_t *json = NULL;
	size_t i;

	json_array_foreach(array, i, json) {
		struct holding *h = holding_load(k, json, in);

		if (h == NULL) {
			DBG_ERR("A holding did not survive the restart of "
				"durable_stated, its client has to connect "
				"again: %s\n",
				json_string_value(
					json_object_get(json, "label")));
			continue;
		}
		holdings_add(k->holdings, h);
	}
}

static bool keeper_load(struct keeper *k, struct handover_in *in)
{
	const char *socket_path = NULL;
	json_t *listen_fd = NULL;
	json_t *hold_fd = NULL;
	json_t *holdings = NULL;
	json_t *guard = NULL;
	json_t *events = NULL;
	json_t *peers = NULL;
	json_t *json = NULL;
	int version = 0;
	size_t i;
	int ret;

	ret = json_unpack(handover_state(in),
			  "{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o}",
			  "version", &version,
			  "socket", &socket_path,
			  "listen", &listen_fd,
			  "hold", &hold_fd,
			  "holdings", &holdings,
			  "guard", &guard,
			  "events", &events,
			  "peers", &peers);
	if ((ret != 0) || (version != KEEPER_STATE_VERSION)) {
		DBG_ERR("The previous durable_stated left its state in "
			"version %d, this one can only read version %d. What "
			"it held is lost, clients that waited for smbd have "
			"to connect again\n",
			version,
			KEEPER_STATE_VERSION);
		return false;
	}

	json_decref(k->events);
	k->events = json_incref(events);
	if (k->socket_path == NULL) {
		k->socket_path = talloc_strdup(k, socket_path);
	}
	if (strequal(k->socket_path, socket_path)) {
		k->listen_fd = handover_take(in, listen_fd);
	}
	k->hold_fd = handover_take(in, hold_fd);
	keeper_load_holdings(k, holdings, in);
	guard_load(k->guard, guard, in);
	json_array_foreach(peers, i, json) {
		peer_load(k, json, in);
	}

	DBG_NOTICE("Carrying on with %zu holdings (%zu descriptors)\n",
		   k->holdings->num,
		   k->holdings->num_fds);
	return true;
}

static int keeper_destructor(struct keeper *k)
{
	/* Before the descriptors that they watch */
	TALLOC_FREE(k->listen_fde);
	TALLOC_FREE(k->hold_fde);
	while (k->peers != NULL) {
		TALLOC_FREE(k->peers);
	}
	if (k->listen_fd != -1) {
		close(k->listen_fd);
	}
	if (k->hold_fd != -1) {
		close(k->hold_fd);
	}
	json_decref(k->events);
	return 0;
}

struct keeper *keeper_start(TALLOC_CTX *mem_ctx,
			    struct tevent_context *ev,
			    const char *socket_path,
			    int pid_fd,
			    unsigned int default_hold_time,
			    struct handover_in *in)
{
	struct keeper *k = NULL;

	k = talloc(mem_ctx, struct keeper);
	if (k == NULL) {
		return NULL;
	}
	*k = (struct keeper) {
		.ev = ev,
		.default_hold_time = default_hold_time,
		.holdings = talloc_zero(k, struct holdings),
		.guard = talloc_zero(k, struct guard),
		.events = json_array(),
		.pid_fd = pid_fd,
		.listen_fd = -1,
		.hold_fd = -1,
	};
	talloc_set_destructor(k, keeper_destructor);
	if ((k->holdings == NULL) || (k->guard == NULL) || (k->events == NULL))
	{
		TALLOC_FREE(k);
		return NULL;
	}
	if (socket_path != NULL) {
		k->socket_path = talloc_strdup(k, socket_path);
	}

	if (in != NULL) {
		keeper_load(k, in);
	}
	if (k->socket_path == NULL) {
		TALLOC_FREE(k);
		return NULL;
	}

	if (k->hold_fd == -1) {
		k->hold_fd = timerfd_create(CLOCK_MONOTONIC,
					    TFD_CLOEXEC | TFD_NONBLOCK);
	}
	if (k->listen_fd == -1) {
		k->listen_fd = keeper_listen(k->socket_path);
	}
	if ((k->hold_fd == -1) || (k->listen_fd == -1)) {
		DBG_ERR("Can't listen on %s: %s\n",
			k->socket_path,
			strerror(errno));
		TALLOC_FREE(k);
		return NULL;
	}

	k->hold_fde = tevent_add_fd(
		ev, k, k->hold_fd, TEVENT_FD_READ, keeper_hold_handler, k);
	k->listen_fde = tevent_add_fd(
		ev, k, k->listen_fd, TEVENT_FD_READ, keeper_listen_handler, k);
	if ((k->hold_fde == NULL) || (k->listen_fde == NULL)) {
		TALLOC_FREE(k);
		return NULL;
	}

	keeper_settle(k);
	return k;
}

static bool keeper_store(struct keeper *k)
{
	struct handover_out *out = NULL;
	json_t *state = NULL;
	int ret;

	/*
	 * Peers have to find out that we end. A holding that is half way to
	 * one is still ours; a parent's end does not start the hold time that
	 * is for the next keeper to start.
	 */
	while (k->peers != NULL) {
		TALLOC_FREE(k->peers);
	}

	/* Nor does anybody but us have the lock on the pid file */
	k->pid_fd = -1;

	out = handover_new(k);
	if (out == NULL) {
		return false;
	}
	state = keeper_save(k, out);
	ret = handover_store(out, state);
	json_decref(state);
	TALLOC_FREE(out);

	if (ret == 0) {
		DBG_NOTICE("Left %zu holdings (%zu descriptors) with "
			   "systemd\n",
			   k->holdings->num,
			   k->holdings->num_fds);
	} else if (ret != ENOTSUP) {
		DBG_ERR("Can't leave what is held with systemd: %s\n",
			strerror(ret));
	}
	return ret == 0;
}

void keeper_stop(struct keeper *k)
{
	/* Asked while we still know whether an smbd lives */
	enum holding_end end = keeper_holding_end(k);
	size_t num;

	if (keeper_store(k)) {
		TALLOC_FREE(k);
		return;
	}

	num = holdings_drop_all(k->holdings, end);
	DBG_NOTICE("Ending, dropped %zu holdings\n", num);
	unlink(k->socket_path);
	TALLOC_FREE(k);
}

/* With exec_wanted no new requests are taken */
static void keeper_exec_want(struct keeper *k, bool wanted)
{
	struct keeper_peer *peer = NULL;

	k->exec_wanted = wanted;
	for (peer = k->peers; peer != NULL; peer = peer->next) {
		peer_update_flags(peer);
	}
}

static void keeper_exec_now(struct keeper *k)
{
	struct handover_out *out = NULL;
	json_t *state = NULL;
	int ret = ENOMEM;

	TALLOC_FREE(k->exec_timer);

	DBG_NOTICE("Executing %s again, carrying %zu holdings (%zu "
		   "descriptors)\n",
		   k->program,
		   k->holdings->num,
		   k->holdings->num_fds);

	out = handover_new(k);
	if (out != NULL) {
		state = keeper_save(k, out);
		ret = handover_exec(out, state, k->program, k->argv);
	}

	json_decref(state);
	TALLOC_FREE(out);
	keeper_exec_want(k, false);
	DBG_ERR("Can't execute %s: %s. Going on as before\n",
		k->program,
		strerror(ret));
}

void keeper_peer_idle(struct keeper *k)
{
	const struct keeper_peer *peer = NULL;

	if (!k->exec_wanted) {
		return;
	}
	for (peer = k->peers; peer != NULL; peer = peer->next) {
		if (peer_busy(peer)) {
			return;
		}
	}
	keeper_exec_now(k);
}

static void keeper_exec_impatient(struct tevent_context *ev,
				  struct tevent_timer *te,
				  struct timeval now,
				  void *private_data)
{
	struct keeper *k = talloc_get_type_abort(private_data, struct keeper);
	struct keeper_peer *peer = NULL;
	struct keeper_peer *next = NULL;

	k->exec_timer = NULL; /* tevent frees it */

	/* The last one's end is what keeper_peer_idle() waits for */
	for (peer = k->peers; peer != NULL; peer = next) {
		next = peer->next;
		if (peer_busy(peer)) {
			DBG_WARNING("Process %d does not read its replies, "
				    "closing its connection\n",
				    (int)peer->pid);
			peer_close(peer);
		}
	}
}

void keeper_exec(struct keeper *k, const char *program, char *const argv[])
{
	k->program = program;
	k->argv = argv;
	keeper_exec_want(k, true);

	if (k->exec_timer == NULL) {
		k->exec_timer = tevent_add_timer(
			k->ev,
			k,
			tevent_timeval_current_ofs(KEEPER_EXEC_PATIENCE_SECS,
						   0),
			keeper_exec_impatient,
			k);
	}
	keeper_peer_idle(k);
}
