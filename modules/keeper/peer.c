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

#include "replace.h"
#include "system/filesys.h"
#include "system/network.h"
#include "system/select.h"
#include "lib/util/debug.h"
#include "lib/util/dlinklist.h"
#include "keeper_protocol.h"
#include "handover.h"
#include "keeper.h"
#include "peer.h"

struct peer_reply {
	struct peer_reply *prev, *next;
	uint8_t *buf;

	/*
	 * Descriptors come from a holding when this is sent. Duplicates of our
	 * own would keep a client's connection open after it was dropped.
	 */
	uint64_t holding; /* 0: none */
	size_t first_fd;
	size_t num_fds;
};

static const char *peer_roles[] = {
	[PEER_NEW] = "new",
	[PEER_PARENT] = "parent",
	[PEER_CHILD] = "child",
	[PEER_TOOL] = "tool",
};

bool peer_role_parse(const char *str, enum peer_role *role)
{
	size_t i;

	for (i = PEER_PARENT; i < ARRAY_SIZE(peer_roles); i++) {
		if (strcmp(str, peer_roles[i]) == 0) {
			*role = i;
			return true;
		}
	}
	return false;
}

static int peer_destructor(struct keeper_peer *peer)
{
	if (peer->lent != NULL) {
		peer->lent->lent = false;
	}
	DLIST_REMOVE(peer->keeper->peers, peer);

	/* No event may be left for a descriptor that is closed */
	TALLOC_FREE(peer->fde);
	close(peer->fd);
	return 0;
}

void peer_close(struct keeper_peer *peer)
{
	struct keeper *k = peer->keeper;

	DBG_INFO("Process %d (%s) has left\n",
		 (int)peer->pid,
		 peer_roles[peer->role]);
	if (peer->building != NULL) {
		DBG_NOTICE("Process %d left in the middle of putting "
			   "holding %s, forgetting what came of it\n",
			   (int)peer->pid,
			   peer->building->label);
	}
	TALLOC_FREE(peer);
	keeper_settle(k);
	keeper_peer_idle(k);
}

bool peer_busy(const struct keeper_peer *peer)
{
	return peer->replies != NULL;
}

void peer_update_flags(struct keeper_peer *peer)
{
	uint16_t flags = peer->keeper->exec_wanted ? 0 : TEVENT_FD_READ;

	if (peer_busy(peer)) {
		/* Without the latter tevent does not tell that it has gone */
		flags = TEVENT_FD_WRITE | TEVENT_FD_ERROR;
	}
	tevent_fd_set_flags(peer->fde, flags);
}

static void peer_receive(struct keeper_peer *peer)
{
	struct keeper_packet *packet = NULL;
	int ret;

	ret = keeper_packet_recv(peer, peer->fd, &packet);
	switch (ret) {
	case 0:
		peer_request(peer, packet);
		TALLOC_FREE(packet);
		break;
	case EAGAIN:
		break;
	case EMFILE:
		DBG_ERR("Can't take all descriptors of process %d: it sent "
			"too many, or the limit for open files "
			"(RLIMIT_NOFILE) is too low\n",
			(int)peer->pid);
		TALLOC_FREE(peer->building);
		peer_refuse(peer, ret, "Not all descriptors arrived");
		break;
	case EMSGSIZE:
	case EBADMSG:
		peer_reject(peer, "Not a valid packet: %s", strerror(ret));
		break;
	default:
		if (ret != ECONNRESET) {
			DBG_WARNING("Receiving from process %d failed: %s\n",
				    (int)peer->pid,
				    strerror(ret));
		}
		peer_close(peer);
		break;
	}
}

/* All replies are with the peer */
static void peer_sent(struct keeper_peer *peer)
{
	struct keeper *k = peer->keeper;

	if (peer->closing) {
		peer_close(peer);
		return;
	}
	peer_update_flags(peer);
	keeper_peer_idle(k);
}

/* All replies are of one request: none is received while there are any */
static void peer_holding_gone(struct keeper_peer *peer)
{
	while (peer->replies != NULL) {
		struct peer_reply *reply = peer->replies;

		DLIST_REMOVE(peer->replies, reply);
		TALLOC_FREE(reply);
	}
	peer_refuse(peer, ESTALE, "It was dropped or replaced meanwhile");
}

static void peer_send(struct keeper_peer *peer)
{
	struct peer_reply *reply = peer->replies;
	const int *fds = NULL;
	int ret;

	if (reply->holding != 0) {
		struct holding *h = NULL;

		h = holdings_find_id(peer->keeper->holdings, reply->holding);
		if (h == NULL) {
			peer_holding_gone(peer);
			return;
		}
		if (reply->num_fds > 0) {
			fds = &h->fds[reply->first_fd];
		}
	}

	ret = keeper_packet_send(peer->fd,
				 reply->buf,
				 talloc_array_length(reply->buf),
				 fds,
				 reply->num_fds);
	if (ret == EAGAIN) {
		return;
	}
	if (ret != 0) {
		DBG_WARNING("Sending to process %d failed: %s\n",
			    (int)peer->pid,
			    strerror(ret));
		peer_close(peer);
		return;
	}

	DLIST_REMOVE(peer->replies, reply);
	TALLOC_FREE(reply);
	if (peer->replies == NULL) {
		peer_sent(peer);
	}
}

static void peer_handler(struct tevent_context *ev,
			 struct tevent_fd *fde,
			 uint16_t flags,
			 void *private_data)
{
	struct keeper_peer *peer = talloc_get_type_abort(
		private_data, struct keeper_peer);

	if (!peer_busy(peer)) {
		peer_receive(peer);
	} else if (flags & TEVENT_FD_WRITE) {
		peer_send(peer);
	} else {
		/* It says nothing more, and does not read what we say */
		peer_close(peer);
	}
}

void peer_others_first(struct keeper_peer *peer)
{
	struct keeper *k = peer->keeper;
	struct keeper_peer *other = NULL;
	struct keeper_peer *next = NULL;
	struct pollfd *pfds = NULL;
	size_t i, num = 0;
	int ret;

	if (k->others_first) {
		/* Called by the loop below, which sees to all of them */
		return;
	}

	for (other = k->peers; other != NULL; other = other->next) {
		num += 1;
	}
	pfds = talloc_array(peer, struct pollfd, num);
	if (pfds == NULL) {
		return;
	}
	i = 0;
	for (other = k->peers; other != NULL; other = other->next) {
		bool skip = (other == peer) || peer_busy(other);

		pfds[i] = (struct pollfd) {
			.fd = skip ? -1 : other->fd,
			.events = POLLIN,
		};
		i += 1;
	}

	ret = poll(pfds, num, 0);

	/* Each one may close its own connection, none opens one */
	k->others_first = true;
	i = 0;
	for (other = k->peers; other != NULL; other = next) {
		next = other->next;
		if ((ret > 0) && (pfds[i].revents != 0)) {
			peer_receive(other);
		}
		i += 1;
	}
	k->others_first = false;

	TALLOC_FREE(pfds);
}

/* Takes over fd */
static struct keeper_peer *peer_new(struct keeper *k, int fd)
{
	struct keeper_peer *peer = NULL;

	peer = talloc(k, struct keeper_peer);
	if (peer == NULL) {
		close(fd);
		return NULL;
	}
	*peer = (struct keeper_peer) { .keeper = k, .fd = fd };
	DLIST_ADD_END(k->peers, peer);
	talloc_set_destructor(peer, peer_destructor);

	peer->fde = tevent_add_fd(
		k->ev, peer, fd, TEVENT_FD_READ, peer_handler, peer);
	if (peer->fde == NULL) {
		TALLOC_FREE(peer);
		return NULL;
	}
	return peer;
}

void peer_accept(struct keeper *k, int fd)
{
	struct keeper_peer *peer = NULL;
	pid_t pid = -1;
	int ret;

	ret = keeper_check_peer(fd, &pid);
	if (ret != 0) {
		DBG_ERR("Refusing process %d, which is not root's: %s\n",
			(int)pid,
			strerror(ret));
		close(fd);
		return;
	}

	peer = peer_new(k, fd);
	if (peer != NULL) {
		peer->pid = pid;
	}
}

static void peer_queue(struct keeper_peer *peer,
		       json_t *json,
		       const struct holding *h,
		       size_t first_fd,
		       size_t num_fds)
{
	struct peer_reply *reply = NULL;
	int ret = ENOMEM;

	reply = talloc(peer, struct peer_reply);
	if (reply != NULL) {
		*reply = (struct peer_reply) {
			.holding = (h != NULL) ? h->id : 0,
			.first_fd = first_fd,
			.num_fds = num_fds,
		};
		ret = keeper_packet_build(reply, json, &reply->buf);
	}
	json_decref(json);

	if (ret != 0) {
		/* It would wait for an answer that does not come */
		DBG_ERR("Can't answer process %d: %s\n",
			(int)peer->pid,
			strerror(ret));
		TALLOC_FREE(reply);
		shutdown(peer->fd, SHUT_RDWR);
		return;
	}

	DLIST_ADD_END(peer->replies, reply);
	peer_update_flags(peer);
}

void peer_reply(struct keeper_peer *peer, json_t *reply)
{
	peer_queue(peer, reply, NULL, 0, 0);
}

void peer_reply_array(struct keeper_peer *peer,
		      json_t *reply,
		      const char *key,
		      json_t *array)
{
	/* Room for everything but the elements */
	const size_t max = KEEPER_PACKET_MAX - 4096;
	size_t i, num = json_array_size(array);
	json_t *part = json_array();
	size_t used = 0;

	for (i = 0; i < num; i++) {
		json_t *element = json_array_get(array, i);
		size_t size = keeper_json_size(element) + 1;

		if (used + size > max) {
			peer_reply(peer,
				   json_pack("{s:b, s:b, s:o}",
					     "ok", true,
					     "more", true,
					     key, part));
			part = json_array();
			used = 0;
		}
		json_array_append(part, element);
		used += size;
	}

	json_object_set_new(reply, key, part);
	peer_reply(peer, reply);
	json_decref(array);
}

void peer_reply_holding(struct keeper_peer *peer, struct holding *h)
{
	size_t given = 0;

	do {
		size_t num = MIN(h->num_fds - given, KEEPER_PACKET_FDS);
		bool more = (given + num < h->num_fds);
		json_t *reply = json_pack("{s:b, s:b}",
					  "ok", true,
					  "more", more);

		if (!more) {
			json_object_set(reply, "info", h->info);
		}
		peer_queue(peer, reply, h, given, num);
		given += num;
	} while (given < h->num_fds);
}

static void peer_error(struct keeper_peer *peer,
		       int err,
		       const char *fmt,
		       va_list ap)
{
	char *sentence = talloc_vasprintf(peer, fmt, ap);

	DBG_NOTICE("To process %d (%s): %s\n",
		   (int)peer->pid,
		   peer_roles[peer->role],
		   sentence);
	peer_reply(peer,
		   json_pack("{s:b, s:s, s:i}",
			     "ok", false,
			     "error", (sentence != NULL) ? sentence : "",
			     "errno", err));
	TALLOC_FREE(sentence);
}

void peer_refuse(struct keeper_peer *peer, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	peer_error(peer, err, fmt, ap);
	va_end(ap);
}

void peer_reject(struct keeper_peer *peer, const char *fmt, ...)
{
	va_list ap;

	peer->closing = true;
	va_start(ap, fmt);
	peer_error(peer, EPROTO, fmt, ap);
	va_end(ap);
}

json_t *peer_save(const struct keeper_peer *peer, struct handover_out *out)
{
	return json_pack("{s:o, s:i, s:i, s:b, s:o*, s:s*}",
			 "fd", handover_give(out, peer->fd),
			 "pid", (int)peer->pid,
			 "role", (int)peer->role,
			 "ended", peer->ended,
			 "building", (peer->building != NULL) ?
				holding_save(peer->building, out) : NULL,
			 "lent", (peer->lent != NULL) ?
				peer->lent->label : NULL);
}

void peer_load(struct keeper *k,
	       const json_t *json,
	       struct handover_in *in)
{
	struct keeper_peer *peer = NULL;
	json_t *number = NULL;
	json_t *building = NULL;
	const char *lent = NULL;
	int pid, role, ended;
	int fd, ret;

	ret = json_unpack(discard_const_p(json_t, json),
			  "{s:o, s:i, s:i, s:b, s?:o, s?:s}",
			  "fd", &number,
			  "pid", &pid,
			  "role", &role,
			  "ended", &ended,
			  "building", &building,
			  "lent", &lent);
	if ((ret != 0) || (role < PEER_NEW) || (role > PEER_TOOL)) {
		return;
	}

	fd = handover_take(in, number);
	if (fd == -1) {
		return;
	}
	peer = peer_new(k, fd);
	if (peer == NULL) {
		return;
	}
	peer->pid = pid;
	peer->role = role;
	peer->ended = ended;
	if (lent != NULL) {
		peer->lent = holdings_find(k->holdings, lent);
	}
	if ((peer->lent != NULL) && peer->lent->lent) {
		/* It is another one's */
		peer->lent = NULL;
	}
	if (peer->lent != NULL) {
		peer->lent->lent = true;
	}
	if (building != NULL) {
		peer->building = holding_load(peer, building, in);
		if (peer->building == NULL) {
			/* The rest of it must not pass for the whole */
			TALLOC_FREE(peer);
		}
	}
}
