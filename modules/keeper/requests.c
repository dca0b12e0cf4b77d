/*
 * durable_state: SMB clients survive smbd restarts
 * What the keeper does on request
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
#include "lib/util/debug.h"
#include "keeper_protocol.h"
#include "handover.h"
#include "keeper.h"
#include "peer.h"

/* A day: nobody's client waits longer, and it fits everywhere */
#define KEEPER_HOLD_MAX 86400

/* More than the databases of smbd by far; bounds a mistake */
#define KEEPER_GUARD_MAX 256

static json_t *reply_ok(void)
{
	return json_pack("{s:b}", "ok", true);
}

static bool label_valid(const char *label)
{
	size_t len = strlen(label);

	return (len > 0) && (len <= KEEPER_LABEL_MAX);
}

/* Parse a request that has nothing but a label */
static const char *request_label(struct keeper_peer *peer,
				 struct keeper_packet *packet)
{
	const char *label = NULL;
	int ret;

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:s}",
			     "label", &label);
	if ((ret != 0) || !label_valid(label)) {
		peer_reject(peer, "A label is expected, and nothing else");
		return NULL;
	}
	return label;
}

/* Parse a request that has nothing at all */
static bool request_empty(struct keeper_peer *peer,
			  struct keeper_packet *packet)
{
	if (json_object_size(packet->json) != 0) {
		peer_reject(peer, "Unexpected parameters");
		return false;
	}
	return true;
}

static void request_hello(struct keeper_peer *peer,
			  struct keeper_packet *packet)
{
	const char *role = NULL;
	int version = 0;
	int ret;

	if (peer->role != PEER_NEW) {
		peer_reject(peer, "hello was said before");
		return;
	}

	/* Another version may have other fields */
	ret = json_unpack(packet->json, "{s:i}", "version", &version);
	if ((ret == 0) && (version != KEEPER_PROTOCOL_VERSION)) {
		peer_reject(peer,
			    "Protocol version %d is not known, only %d",
			    version,
			    KEEPER_PROTOCOL_VERSION);
		return;
	}

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:i, s:s}",
			     "version", &version,
			     "role", &role);
	if ((ret != 0) || !peer_role_parse(role, &peer->role)) {
		peer_reject(peer, "hello needs a version and a role");
		return;
	}

	DBG_INFO("Process %d is here as %s\n", (int)peer->pid, role);

	keeper_settle(peer->keeper);
	peer_reply(peer,
		   json_pack("{s:b, s:i, s:i}",
			     "ok", true,
			     "version", KEEPER_PROTOCOL_VERSION,
			     "pid", (int)getpid()));
}

static void put_complete(struct keeper_peer *peer,
			 struct holding *former,
			 json_t *info)
{
	struct keeper *k = peer->keeper;
	struct holding *h = peer->building;

	if (former != NULL) {
		holdings_drop(k->holdings, former, HOLDING_END_CLOSE);
	}

	if (info != NULL) {
		json_decref(h->info);
		h->info = json_incref(info);
	}
	h->since_ms = holding_now_ms();
	peer->building = NULL;
	holdings_add(k->holdings, h);

	DBG_INFO("Holding %s (%zu descriptors) for process %d\n",
		 h->label,
		 h->num_fds,
		 (int)peer->pid);
	keeper_settle(k);
}

static void request_put(struct keeper_peer *peer, struct keeper_packet *packet)
{
	struct holdings *hs = peer->keeper->holdings;
	const char *label = NULL;
	json_t *info = NULL;
	const char *former_label = NULL;
	struct holding *former = NULL;
	struct holding *old = NULL;
	int more = 0;
	int replace = 0;
	int ret;

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:s, s:b, s?:o, s?:b, s?:s}",
			     "label", &label,
			     "more", &more,
			     "info", &info,
			     "replace", &replace,
			     "former", &former_label);
	if ((ret != 0) || !label_valid(label) ||
	    ((info != NULL) && !json_is_object(info)))
	{
		peer_reject(peer, "put needs a label, more and an info");
		return;
	}
	if ((peer->building != NULL) &&
	    (strcmp(peer->building->label, label) != 0))
	{
		peer_reject(peer,
			    "Holding %s has to be completed first",
			    peer->building->label);
		return;
	}

	old = holdings_find(hs, label);
	if ((old != NULL) && !replace) {
		TALLOC_FREE(peer->building);
		peer_refuse(peer, EEXIST, "%s is held already", label);
		return;
	}
	if ((former_label != NULL) && (strcmp(former_label, label) != 0)) {
		former = holdings_find(hs, former_label);
	}
	if ((former != NULL) && former->lent) {
		TALLOC_FREE(peer->building);
		peer_refuse(peer, EBUSY, "%s is being taken", former_label);
		return;
	}
	if ((old != NULL) && old->lent) {
		/* Its taker may use it already, and is yet to say so */
		TALLOC_FREE(peer->building);
		peer_refuse(peer, EBUSY, "%s is being taken", label);
		return;
	}
	if ((info != NULL) && (keeper_json_size(info) > KEEPER_INFO_MAX)) {
		TALLOC_FREE(peer->building);
		peer_refuse(peer, EMSGSIZE, "Info of %s is too long", label);
		return;
	}

	if (peer->building == NULL) {
		peer->building = holding_new(peer, label, peer->pid);
	}
	if ((peer->building == NULL) ||
	    (holding_append(peer->building, packet) != 0))
	{
		TALLOC_FREE(peer->building);
		peer_refuse(peer, ENOMEM, "No memory to hold %s", label);
		return;
	}

	if (!more) {
		put_complete(peer, former, info);
	}
	peer_reply(peer, reply_ok());
}

static void request_drop(struct keeper_peer *peer, struct keeper_packet *packet)
{
	struct keeper *k = peer->keeper;
	const char *label = request_label(peer, packet);
	enum holding_end end = keeper_holding_end(k);
	struct holding *h = NULL;

	if (label == NULL) {
		return;
	}

	h = holdings_find(k->holdings, label);
	if ((h != NULL) && h->lent && (h != peer->lent)) {
		peer_refuse(peer, EBUSY, "%s is being taken", label);
		return;
	}
	if ((h != NULL) && h->lent) {
		/* All of it has arrived, and is used there from now on */
		h->lent = false;
		peer->lent = NULL;
		end = HOLDING_END_CLOSE;
	}
	if (h != NULL) {
		DBG_INFO("Dropping %s for process %d\n",
			 label,
			 (int)peer->pid);
		holdings_drop(k->holdings, h, end);
	}
	peer_reply(peer,
		   json_pack("{s:b, s:b}", "ok", true, "found", h != NULL));
}

static void request_take(struct keeper_peer *peer, struct keeper_packet *packet)
{
	const char *label = request_label(peer, packet);
	struct holding *h = NULL;

	if (label == NULL) {
		return;
	}

	if (peer->lent != NULL) {
		peer_reject(peer,
			    "Holding %s has to be dropped first",
			    peer->lent->label);
		return;
	}
	h = holdings_find(peer->keeper->holdings, label);
	if (h == NULL) {
		peer_refuse(peer, ENOENT, "%s is not held", label);
		return;
	}
	if (h->lent) {
		peer_refuse(peer, EBUSY, "%s is being taken", label);
		return;
	}

	DBG_INFO("Giving %s to process %d\n", label, (int)peer->pid);
	peer->lent = h;
	h->lent = true;
	peer_reply_holding(peer, h);
}

static void request_copy(struct keeper_peer *peer, struct keeper_packet *packet)
{
	const char *label = request_label(peer, packet);
	struct holding *h = NULL;

	if (label == NULL) {
		return;
	}

	h = holdings_find(peer->keeper->holdings, label);
	if (h == NULL) {
		peer_refuse(peer, ENOENT, "%s is not held", label);
		return;
	}
	if (h->lent) {
		peer_refuse(peer, EBUSY, "%s is being taken", label);
		return;
	}

	DBG_INFO("Copying %s to process %d\n", label, (int)peer->pid);
	peer_reply_holding(peer, h);
}

static void request_list(struct keeper_peer *peer, struct keeper_packet *packet)
{
	int64_t now = holding_now_ms();
	struct holding *h = NULL;
	json_t *array = NULL;

	if (!request_empty(peer, packet)) {
		return;
	}

	array = json_array();
	for (h = peer->keeper->holdings->list; h != NULL; h = h->next) {
		json_array_append_new(
			array,
			json_pack("{s:s, s:O, s:I, s:I, s:I}",
				  "label", h->label,
				  "info", h->info,
				  "fds", (json_int_t)h->num_fds,
				  "age_ms", (json_int_t)(now - h->since_ms),
				  "pid", (json_int_t)h->pid));
	}
	peer_reply_array(peer, reply_ok(), "holdings", array);
}

static void request_guard(struct keeper_peer *peer,
			  struct keeper_packet *packet)
{
	struct guard *guard = peer->keeper->guard;
	json_t *paths = NULL;
	json_t *path = NULL;
	size_t i;
	int ret;

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:o}",
			     "paths", &paths);
	if ((ret != 0) || !json_is_array(paths) ||
	    (json_array_size(paths) > KEEPER_GUARD_MAX))
	{
		peer_reject(peer, "guard needs an array of paths");
		return;
	}
	json_array_foreach(paths, i, path) {
		if (!json_is_string(path) ||
		    (json_string_value(path)[0] != '/'))
		{
			peer_reject(peer, "guard needs absolute paths");
			return;
		}
	}

	json_array_foreach(paths, i, path) {
		const char *p = json_string_value(path);

		ret = guard_add(guard, p);
		if ((ret != 0) && (ret != ENOENT)) {
			peer_refuse(peer,
				    ret,
				    "Can't guard %s: %s",
				    p,
				    strerror(ret));
			return;
		}
	}
	keeper_settle(peer->keeper);
	peer_reply(peer,
		   json_pack("{s:b, s:I}",
			     "ok", true,
			     "guarded", (json_int_t)guard->num));
}

static void request_unguard(struct keeper_peer *peer,
			    struct keeper_packet *packet)
{
	if (!request_empty(peer, packet)) {
		return;
	}
	guard_release(peer->keeper->guard);
	peer_reply(peer, reply_ok());
}

static void request_hold(struct keeper_peer *peer, struct keeper_packet *packet)
{
	struct keeper *k = peer->keeper;
	json_int_t seconds = -1;
	int ret;

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:I}",
			     "seconds", &seconds);
	if ((ret != 0) || (seconds < 0) || (seconds > KEEPER_HOLD_MAX)) {
		peer_reject(peer,
			    "hold needs 0 to %d seconds",
			    KEEPER_HOLD_MAX);
		return;
	}
	if (peer->role != PEER_PARENT) {
		peer_refuse(peer, EPERM, "hold is for a parent that ends");
		return;
	}

	peer->ended = true;
	if (keeper_num_parents(k) == 0) {
		keeper_hold_start(k, seconds);
	}
	peer_reply(peer, reply_ok());
}

static void request_event(struct keeper_peer *peer,
			  struct keeper_packet *packet)
{
	json_t *events = peer->keeper->events;
	json_t *event = NULL;
	int ret;

	ret = json_unpack_ex(packet->json,
			     NULL,
			     JSON_STRICT,
			     "{s:o}",
			     "event", &event);
	if ((ret != 0) || !json_is_object(event) ||
	    (keeper_json_size(event) > KEEPER_EVENT_MAX))
	{
		peer_reject(peer,
			    "event needs an object of at most %d bytes",
			    KEEPER_EVENT_MAX);
		return;
	}

	json_array_append(events, event);
	if (json_array_size(events) > KEEPER_EVENTS_MAX) {
		json_array_remove(events, 0);
	}
	peer_reply(peer, reply_ok());
}

static void request_status(struct keeper_peer *peer,
			   struct keeper_packet *packet)
{
	struct keeper *k = peer->keeper;
	int64_t left_ms = keeper_hold_left_ms(k);
	json_t *left = NULL;
	json_t *reply = NULL;

	if (!request_empty(peer, packet)) {
		return;
	}

	/* Rounded up: 0 would say that it is over */
	left = (left_ms == -1) ? json_null() :
				 json_integer((left_ms + 999) / 1000);
	reply = json_pack("{s:b, s:i, s:i, s:s, s:I, s:I, s:I, s:o}",
			  "ok", true,
			  "pid", (int)getpid(),
			  "version", KEEPER_PROTOCOL_VERSION,
			  "state", (left_ms == -1) ? "idle" : "holding",
			  "holdings", (json_int_t)k->holdings->num,
			  "fds", (json_int_t)k->holdings->num_fds,
			  "guarded", (json_int_t)k->guard->num,
			  "held_seconds_left", left);
	peer_reply_array(peer, reply, "events", json_copy(k->events));
}

static void request_wipe(struct keeper_peer *peer, struct keeper_packet *packet)
{
	size_t num;

	if (!request_empty(peer, packet)) {
		return;
	}
	num = keeper_drop_all(peer->keeper);
	DBG_NOTICE("Dropped %zu holdings at the request of process %d\n",
		   num,
		   (int)peer->pid);
	peer_reply(peer, reply_ok());
}

static const struct {
	const char *op;
	void (*fn)(struct keeper_peer *peer, struct keeper_packet *packet);
	bool others_first; /* looks at what others have done */
} requests[] = {
	{ "hello", request_hello },
	{ "put", request_put },
	{ "drop", request_drop, true },
	{ "list", request_list, true },
	{ "take", request_take, true },
	{ "copy", request_copy, true },
	{ "guard", request_guard },
	{ "unguard", request_unguard },
	{ "hold", request_hold },
	{ "event", request_event },
	{ "status", request_status, true },
	{ "wipe", request_wipe, true },
};

void peer_request(struct keeper_peer *peer, struct keeper_packet *packet)
{
	json_t *op = json_object_get(packet->json, "op");
	size_t i;

	if (!json_is_string(op)) {
		peer_reject(peer, "A request needs an op");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(json_string_value(op), requests[i].op) == 0) {
			break;
		}
	}
	if (i == ARRAY_SIZE(requests)) {
		peer_reject(peer, "Unknown operation");
		return;
	}
	if ((peer->role == PEER_NEW) && (requests[i].fn != request_hello)) {
		peer_reject(peer, "hello has to come first");
		return;
	}
	if ((packet->num_fds > 0) && (requests[i].fn != request_put)) {
		peer_reject(peer, "Only put brings descriptors");
		return;
	}

	if (requests[i].others_first) {
		peer_others_first(peer);
	}

	/* What is left are the parameters, and all of them are looked at */
	json_object_del(packet->json, "op");
	requests[i].fn(peer, packet);
}
