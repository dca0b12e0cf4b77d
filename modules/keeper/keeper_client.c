/*
 * durable_state: SMB clients survive smbd restarts
 * Client of the keeper
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
#include "system/select.h"
#include "system/time.h"
#include "lib/util/debug.h"
#include "keeper_protocol.h"
#include "keeper_client.h"

struct keeper_conn {
	int fd;
	pid_t pid;
	int timeout_ms;
	bool broken;
	char *error;
};

/* The holding that keeper_take() and keeper_copy() put together */
struct keeper_taken {
	json_t *info;
	int *fds;
	size_t num_fds;
};

static int keeper_conn_destructor(struct keeper_conn *kc)
{
	close(kc->fd);
	return 0;
}

int keeper_conn_fd(const struct keeper_conn *kc)
{
	return kc->fd;
}

pid_t keeper_conn_pid(const struct keeper_conn *kc)
{
	return kc->pid;
}

const char *keeper_error(const struct keeper_conn *kc)
{
	return (kc->error != NULL) ? kc->error : "";
}

static void keeper_set_error(struct keeper_conn *kc, const char *fmt, ...)
	PRINTF_ATTRIBUTE(2, 3);

static void keeper_set_error(struct keeper_conn *kc, const char *fmt, ...)
{
	va_list ap;

	TALLOC_FREE(kc->error);
	va_start(ap, fmt);
	kc->error = talloc_vasprintf(kc, fmt, ap);
	va_end(ap);
}

/*
 * After this request and reply are out of step, or the keeper is gone. The
 * descriptor stays open, as the caller's event loop may be watching it.
 */
static int keeper_break(struct keeper_conn *kc, int err)
{
	kc->broken = true;
	shutdown(kc->fd, SHUT_RDWR);

	if (err == EPIPE) {
		err = ECONNRESET;
	}
	keeper_set_error(kc,
			 "Connection to durable_stated (pid %d) failed: %s",
			 (int)kc->pid,
			 strerror(err));
	return err;
}

static int64_t keeper_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int keeper_wait(struct keeper_conn *kc, short events, int64_t end)
{
	struct pollfd pfd = { .fd = kc->fd, .events = events };
	int64_t left;
	int ret;

	do {
		left = end - keeper_now_ms();
		if (left <= 0) {
			return ETIMEDOUT;
		}
		ret = poll(&pfd, 1, left);
	} while ((ret == -1) && (errno == EINTR));

	if (ret == -1) {
		return errno;
	}
	return (ret == 0) ? ETIMEDOUT : 0;
}

static int keeper_send_request(struct keeper_conn *kc,
			       json_t *request,
			       const int *fds,
			       size_t num_fds)
{
	int64_t end = keeper_now_ms() + kc->timeout_ms;
	uint8_t *buf = NULL;
	int ret;

	ret = keeper_packet_build(kc, request, &buf);
	if (ret != 0) {
		/* Nothing was sent, the connection is as it was */
		keeper_set_error(kc, "Can't build a request: %s",
				 strerror(ret));
		return ret;
	}

	while (true) {
		ret = keeper_packet_send(kc->fd,
					 buf,
					 talloc_array_length(buf),
					 fds,
					 num_fds);
		if (ret != EAGAIN) {
			break;
		}
		ret = keeper_wait(kc, POLLOUT, end);
		if (ret != 0) {
			break;
		}
	}
	TALLOC_FREE(buf);
	if (ret == EPIPE) {
		/*
		 * What the keeper said before it closed the connection tells
		 * more; receiving it finds out that it has closed.
		 */
		return 0;
	}
	return (ret == 0) ? 0 : keeper_break(kc, ret);
}

static int keeper_recv_reply(TALLOC_CTX *mem_ctx,
			     struct keeper_conn *kc,
			     struct keeper_packet **_reply)
{
	int64_t end = keeper_now_ms() + kc->timeout_ms;
	struct keeper_packet *reply = NULL;
	const char *error = NULL;
	int ok = 0;
	int code = EREMOTEIO;
	int ret;

	while (true) {
		ret = keeper_packet_recv(mem_ctx, kc->fd, &reply);
		if (ret != EAGAIN) {
			break;
		}
		ret = keeper_wait(kc, POLLIN, end);
		if (ret != 0) {
			break;
		}
	}
	if (ret != 0) {
		return keeper_break(kc, (ret == EBADMSG) ? EPROTO : ret);
	}

	ret = json_unpack(reply->json,
			  "{s:b, s?:s, s?:i}",
			  "ok", &ok,
			  "error", &error,
			  "errno", &code);
	if (ret != 0) {
		TALLOC_FREE(reply);
		return keeper_break(kc, EPROTO);
	}
	if (!ok) {
		keeper_set_error(kc, "durable_stated (pid %d): %s",
				 (int)kc->pid,
				 (error != NULL) ? error : "refused");
		TALLOC_FREE(reply);
		return (code > 0) ? code : EREMOTEIO;
	}

	*_reply = reply;
	return 0;
}

/*
 * Send a request and receive the first packet of its reply. The request is
 * used up, so that it can be built in the call; NULL means no memory or a
 * string that is not UTF-8.
 */
static int keeper_call_fds(TALLOC_CTX *mem_ctx,
			   struct keeper_conn *kc,
			   json_t *request,
			   const int *fds,
			   size_t num_fds,
			   struct keeper_packet **_reply)
{
	int ret;

	if (request == NULL) {
		keeper_set_error(kc, "Invalid characters in a request");
		return EINVAL;
	}
	if (kc->broken) {
		json_decref(request);
		return ECONNRESET;
	}

	ret = keeper_send_request(kc, request, fds, num_fds);
	json_decref(request);
	if (ret != 0) {
		return ret;
	}
	return keeper_recv_reply(mem_ctx, kc, _reply);
}

static int keeper_call(TALLOC_CTX *mem_ctx,
		       struct keeper_conn *kc,
		       json_t *request,
		       struct keeper_packet **_reply)
{
	return keeper_call_fds(mem_ctx, kc, request, NULL, 0, _reply);
}

/* For requests whose reply says nothing more than "ok" */
static int keeper_do(struct keeper_conn *kc, json_t *request)
{
	struct keeper_packet *reply = NULL;
	int ret;

	ret = keeper_call(kc, kc, request, &reply);
	TALLOC_FREE(reply);
	return ret;
}

static bool keeper_reply_more(const struct keeper_packet *reply)
{
	return json_is_true(json_object_get(reply->json, "more"));
}

/*
 * Append one reply's part of an array. The parts of a long one are in
 * several packets.
 */
static int keeper_collect(struct keeper_packet *reply,
			  const char *key,
			  json_t *all)
{
	json_t *part = json_object_get(reply->json, key);

	if (!json_is_array(part)) {
		return EPROTO;
	}
	return (json_array_extend(all, part) == 0) ? 0 : ENOMEM;
}

static int keeper_hello(struct keeper_conn *kc, const char *role)
{
	struct keeper_packet *reply = NULL;
	int version = 0;
	int pid = 0;
	int ret;

	ret = keeper_call(kc,
			  kc,
			  json_pack("{s:s, s:i, s:s}",
				    "op", "hello",
				    "version", KEEPER_PROTOCOL_VERSION,
				    "role", role),
			  &reply);
	if (ret != 0) {
		return ret;
	}

	ret = json_unpack(reply->json,
			  "{s:i, s:i}",
			  "version", &version,
			  "pid", &pid);
	TALLOC_FREE(reply);
	if (ret != 0) {
		return EPROTO;
	}
	if (version != KEEPER_PROTOCOL_VERSION) {
		return EPROTONOSUPPORT;
	}

	/* The socket has the pid of a keeper that listened on it before */
	kc->pid = pid;
	return 0;
}

int keeper_connect(TALLOC_CTX *mem_ctx,
		   const char *sockdir,
		   const char *role,
		   int timeout_ms,
		   struct keeper_conn **_kc)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval tv = {
		.tv_sec = timeout_ms / 1000,
		.tv_usec = (timeout_ms % 1000) * 1000,
	};
	struct keeper_conn *kc = NULL;
	int len, ret;

	len = snprintf(addr.sun_path,
		       sizeof(addr.sun_path),
		       "%s/%s",
		       sockdir,
		       KEEPER_SOCKET_NAME);
	if ((len < 0) || ((size_t)len >= sizeof(addr.sun_path))) {
		return ENAMETOOLONG;
	}

	kc = talloc(mem_ctx, struct keeper_conn);
	if (kc == NULL) {
		return ENOMEM;
	}
	*kc = (struct keeper_conn) {
		.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0),
		.timeout_ms = timeout_ms,
	};
	if (kc->fd == -1) {
		ret = errno;
		TALLOC_FREE(kc);
		return ret;
	}
	talloc_set_destructor(kc, keeper_conn_destructor);

	/*
	 * When the listen queue is full a Unix connect(2) waits for as long as
	 * a send may take; without that it could not be waited for at all.
	 */
	ret = setsockopt(kc->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (ret == -1) {
		goto fail_errno;
	}
	do {
		ret = connect(kc->fd, (struct sockaddr *)&addr, sizeof(addr));
	} while ((ret == -1) && (errno == EINTR));
	if (ret == -1) {
		if (errno == EAGAIN) {
			errno = ETIMEDOUT;
		}
		goto fail_errno;
	}

	ret = keeper_check_peer(kc->fd, &kc->pid);
	if (ret == EPERM) {
		DBG_ERR("The process %d listening on %s is not root's, "
			"not talking to it\n",
			(int)kc->pid,
			addr.sun_path);
	}
	if (ret != 0) {
		goto fail;
	}

	ret = keeper_hello(kc, role);
	if (ret != 0) {
		DBG_WARNING("durable_stated (pid %d) at %s does not accept "
			    "us: %s (%s)\n",
			    (int)kc->pid,
			    addr.sun_path,
			    strerror(ret),
			    keeper_error(kc));
		goto fail;
	}

	*_kc = kc;
	return 0;

fail_errno:
	ret = errno;
fail:
	TALLOC_FREE(kc);
	return ret;
}

static int keeper_put_packets(struct keeper_conn *kc,
			      const char *label,
			      const char *former,
			      json_t *info,
			      const int *fds,
			      size_t num_fds,
			      bool replace)
{
	size_t sent = 0;
	int ret;

	/* Found out in the last packet all would have been sent in vain */
	if ((info != NULL) && (keeper_json_size(info) > KEEPER_INFO_MAX)) {
		keeper_set_error(kc, "Info of holding %s is too long", label);
		return EMSGSIZE;
	}

	do {
		struct keeper_packet *reply = NULL;
		size_t num = MIN(num_fds - sent, KEEPER_PACKET_FDS);
		bool more = (sent + num < num_fds);
		json_t *request = NULL;

		request = json_pack("{s:s, s:s, s:b}",
				    "op", "put",
				    "label", label,
				    "more", more);
		if ((info != NULL) && !more) {
			json_object_set(request, "info", info);
		}
		if (replace) {
			json_object_set_new(request, "replace", json_true());
		}
		if (former != NULL) {
			json_object_set_new(
				request, "former", json_string(former));
		}

		ret = keeper_call_fds(kc,
				      kc,
				      request,
				      (num > 0) ? &fds[sent] : NULL,
				      num,
				      &reply);
		if (ret != 0) {
			return ret;
		}
		TALLOC_FREE(reply);
		sent += num;
	} while (sent < num_fds);

	return 0;
}

int keeper_put(struct keeper_conn *kc,
	       const char *label,
	       json_t *info,
	       const int *fds,
	       size_t num_fds)
{
	return keeper_put_packets(kc, label, NULL, info, fds, num_fds, false);
}

int keeper_replace(struct keeper_conn *kc,
		   const char *label,
		   const char *former,
		   json_t *info,
		   const int *fds,
		   size_t num_fds)
{
	return keeper_put_packets(
		kc, label, former, info, fds, num_fds, true);
}

int keeper_drop(struct keeper_conn *kc, const char *label)
{
	return keeper_do(kc,
			 json_pack("{s:s, s:s}",
				   "op", "drop",
				   "label", label));
}

static int keeper_taken_destructor(struct keeper_taken *taken)
{
	size_t i;

	for (i = 0; i < taken->num_fds; i++) {
		close(taken->fds[i]);
	}
	json_decref(taken->info);
	return 0;
}

/* Move what came in one packet of a "take" or a "copy" */
static int keeper_taken_add(struct keeper_taken *taken,
			    struct keeper_packet *reply)
{
	int *fds = NULL;

	if (!keeper_reply_more(reply)) {
		json_t *info = json_object_get(reply->json, "info");

		if (!json_is_object(info)) {
			return EPROTO;
		}
		taken->info = json_incref(info);
	}

	if (reply->num_fds == 0) {
		return 0;
	}

	fds = talloc_realloc(taken,
			     taken->fds,
			     int,
			     taken->num_fds + reply->num_fds);
	if (fds == NULL) {
		return ENOMEM;
	}
	memcpy(&fds[taken->num_fds],
	       reply->fds,
	       reply->num_fds * sizeof(int));
	taken->fds = fds;
	taken->num_fds += reply->num_fds;
	reply->num_fds = 0;

	return 0;
}

/* Receive all of a holding */
static int keeper_receive(struct keeper_conn *kc,
			  const char *op,
			  const char *label,
			  struct keeper_taken **_taken)
{
	struct keeper_taken *taken = NULL;
	struct keeper_packet *reply = NULL;
	bool more;
	int ret;

	taken = talloc_zero(kc, struct keeper_taken);
	if (taken == NULL) {
		return ENOMEM;
	}
	talloc_set_destructor(taken, keeper_taken_destructor);

	ret = keeper_call(taken,
			  kc,
			  json_pack("{s:s, s:s}",
				    "op", op,
				    "label", label),
			  &reply);
	while (ret == 0) {
		ret = keeper_taken_add(taken, reply);
		if (ret != 0) {
			keeper_break(kc, ret);
			break;
		}
		more = keeper_reply_more(reply);
		TALLOC_FREE(reply);
		if (!more) {
			break;
		}
		ret = keeper_recv_reply(taken, kc, &reply);
	}
	if (ret != 0) {
		TALLOC_FREE(taken);
		return ret;
	}

	*_taken = taken;
	return 0;
}

/* Its parts become the caller's, and it is no more */
static void keeper_taken_give(TALLOC_CTX *mem_ctx,
			      struct keeper_taken *taken,
			      json_t **_info,
			      int **_fds,
			      size_t *_num_fds)
{
	if (_info != NULL) {
		*_info = json_incref(taken->info);
	}
	*_fds = talloc_move(mem_ctx, &taken->fds);
	*_num_fds = taken->num_fds;
	taken->num_fds = 0;
	TALLOC_FREE(taken);
}

int keeper_take(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		const char *label,
		json_t **_info,
		int **_fds,
		size_t *_num_fds)
{
	struct keeper_taken *taken = NULL;
	int ret;

	ret = keeper_receive(kc, "take", label, &taken);
	if (ret != 0) {
		return ret;
	}

	/*
	 * Until the keeper has forgotten it we must not use it: if it does not
	 * hear of us it gives the same to the next one.
	 */
	ret = keeper_drop(kc, label);
	if (ret != 0) {
		keeper_break(kc, ret);
		TALLOC_FREE(taken);
		return ret;
	}

	keeper_taken_give(mem_ctx, taken, _info, _fds, _num_fds);
	return 0;
}

int keeper_copy(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		const char *label,
		json_t **_info,
		int **_fds,
		size_t *_num_fds)
{
	struct keeper_taken *taken = NULL;
	int ret;

	ret = keeper_receive(kc, "copy", label, &taken);
	if (ret != 0) {
		return ret;
	}
	keeper_taken_give(mem_ctx, taken, _info, _fds, _num_fds);
	return 0;
}

/* Call for a reply whose array comes in parts; the last packet is returned */
static int keeper_call_array(struct keeper_conn *kc,
			     const char *op,
			     const char *key,
			     json_t *all,
			     struct keeper_packet **_last)
{
	struct keeper_packet *reply = NULL;
	int ret;

	ret = keeper_call(kc, kc, json_pack("{s:s}", "op", op), &reply);
	while (ret == 0) {
		ret = keeper_collect(reply, key, all);
		if (ret != 0) {
			TALLOC_FREE(reply);
			return keeper_break(kc, ret);
		}
		if (!keeper_reply_more(reply)) {
			*_last = reply;
			return 0;
		}
		TALLOC_FREE(reply);
		ret = keeper_recv_reply(kc, kc, &reply);
	}
	return ret;
}

static int keeper_list_destructor(struct keeper_holding *list)
{
	size_t i, num = talloc_array_length(list);

	for (i = 0; i < num; i++) {
		json_decref(list[i].info);
	}
	return 0;
}

static struct keeper_holding *keeper_parse_list(TALLOC_CTX *mem_ctx,
						const json_t *all)
{
	struct keeper_holding *list = NULL;
	size_t i, num = json_array_size(all);

	list = talloc_zero_array(mem_ctx, struct keeper_holding, num);
	if (list == NULL) {
		return NULL;
	}
	talloc_set_destructor(list, keeper_list_destructor);

	for (i = 0; i < num; i++) {
		const char *label = NULL;
		json_int_t num_fds = 0;
		json_int_t age_ms = 0;
		json_int_t pid = 0;
		int ret;

		/* A keeper that was started before it knew pids has none */
		ret = json_unpack(json_array_get(all, i),
				  "{s:s, s:O, s:I, s:I, s?:I}",
				  "label", &label,
				  "info", &list[i].info,
				  "fds", &num_fds,
				  "age_ms", &age_ms,
				  "pid", &pid);
		if (ret != 0) {
			TALLOC_FREE(list);
			return NULL;
		}
		list[i].num_fds = num_fds;
		list[i].age_ms = age_ms;
		list[i].pid = pid;
		list[i].label = talloc_strdup(list, label);
		if (list[i].label == NULL) {
			TALLOC_FREE(list);
			return NULL;
		}
	}

	return list;
}

int keeper_list(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		struct keeper_holding **_list,
		size_t *_num)
{
	struct keeper_packet *last = NULL;
	struct keeper_holding *list = NULL;
	json_t *all = json_array();
	int ret;

	ret = keeper_call_array(kc, "list", "holdings", all, &last);
	if (ret != 0) {
		json_decref(all);
		return ret;
	}
	TALLOC_FREE(last);

	list = keeper_parse_list(mem_ctx, all);
	json_decref(all);
	if (list == NULL) {
		return keeper_break(kc, EPROTO);
	}

	*_list = list;
	*_num = talloc_array_length(list);
	return 0;
}

int keeper_guard(struct keeper_conn *kc, const char **paths, size_t num_paths)
{
	json_t *array = json_array();
	size_t i;

	for (i = 0; i < num_paths; i++) {
		int ret;

		ret = json_array_append_new(array, json_string(paths[i]));
		if (ret != 0) {
			json_decref(array);
			return EINVAL;
		}
	}

	return keeper_do(kc,
			 json_pack("{s:s, s:o}",
				   "op", "guard",
				   "paths", array));
}

int keeper_unguard(struct keeper_conn *kc)
{
	return keeper_do(kc, json_pack("{s:s}", "op", "unguard"));
}

int keeper_hold(struct keeper_conn *kc, unsigned int seconds)
{
	return keeper_do(kc,
			 json_pack("{s:s, s:I}",
				   "op", "hold",
				   "seconds", (json_int_t)seconds));
}

int keeper_event(struct keeper_conn *kc, json_t *event)
{
	return keeper_do(kc,
			 json_pack("{s:s, s:O}",
				   "op", "event",
				   "event", event));
}

int keeper_status(struct keeper_conn *kc, json_t **_status)
{
	struct keeper_packet *last = NULL;
	json_t *all = json_array();
	int ret;

	ret = keeper_call_array(kc, "status", "events", all, &last);
	if (ret != 0) {
		json_decref(all);
		return ret;
	}

	json_object_set_new(last->json, "events", all);
	*_status = json_incref(last->json);
	TALLOC_FREE(last);
	return 0;
}

int keeper_wipe(struct keeper_conn *kc)
{
	return keeper_do(kc, json_pack("{s:s}", "op", "wipe"));
}
