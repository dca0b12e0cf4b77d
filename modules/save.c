/*
   durable_state: the save points of a client's process

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
#include "../libcli/smb/smb_common.h"
#include "rpc_server/srv_pipe_hnd.h"
#include "lib/util/bitmap.h"
#include "lib/util/iov_buf.h"
#include "durable_state/ndr_durable_state.h"
#include "effect.h"
#include "fault.h"
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "buffers.h"
#include "image.h"
#include "options.h"
#include "process.h"
#include "records.h"
#include "resume.h"
#include "save.h"
#include "stream.h"

/*
 * What the process after this one reads: it need not be done when the next
 * instruction is, only before those that follow. A process that is killed
 * has done its instructions in their order.
 */
#define DS_STORE(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)

/* A keeper that does not answer must not keep clients waiting */
#define DS_KEEPER_TIMEOUT_MS 1000

/* Slots come in blocks, each twice as long as the one before */
#define DS_SLOTS_BYTES ((size_t)4096)
#define DS_SLOTS_BLOCKS 10

/* What is worth to be given back to the kernel, and when nothing happens */
#define DS_TRIM_BYTES ((size_t)4 * 1024 * 1024)
#define DS_TRIM_SECONDS 5

/* What a request has done to names */
struct ds_save_effect {
	struct ds_save_effect *prev, *next;
	const struct ds_slot *slot;
	uint64_t key;
	DATA_BLOB blob;
};

/*
 * An open that a request has closed. It is in the image until the request is
 * answered there: by it a process that follows knows what it was.
 */
struct ds_save_closed {
	struct ds_save_closed *prev, *next;
	const struct ds_slot *slot;
	uint64_t persistent_id;
};

/* A connection; belongs to smbd's */
struct ds_save_channel {
	struct ds_save_channel *prev, *next;
	struct smbXsrv_connection *xconn;

	/* in the buffers; what is in it at the next commit */
	struct ds_channel *block;
	struct ds_stream stream;
	/* behind the highest message id that was used */
	uint64_t next_mid;

	/*
	 * Replies in the buffers, in their order: those that are not named
	 * any more at the next commit, and then all
	 */
	struct ds_reply *taken;
	struct ds_reply *first_reply;
	struct ds_reply *last_reply;
	size_t num_replies;
};

static struct ds_save {
	struct smbd_server_connection *sconn;
	/* why there is no image that is current */
	char *reason;

	struct ds_image *image;
	struct ds_buffers *buffers;
	struct ds_capture *cap;

	/* the first reply is sent: ds_save_start() is next */
	struct tevent_immediate *start;
	struct ds_save_channel *channels;
	/* sessions, tree connects or the connections changed */
	bool rewrite;

	struct ds_place slots[DS_SLOTS_BLOCKS];
	size_t num_slots_blocks;
	struct ds_slot **free_slots;
	size_t num_free_slots;

	/* of the request that was dispatched last, NULL if it is done */
	struct ds_slot *current;
	bool current_is_compound;
	/* what it has changed is being saved */
	const struct smbd_smb2_request *answered;
	struct ds_save_effect *effects;
	uint64_t next_effect;
	struct ds_save_closed *closed;

	struct tevent_timer *trim;
	struct tevent_timer *watched;
	/* for lists of message ids */
	uint64_t *seen;
} *ds_save;

bool ds_save_running(void)
{
	return (ds_save != NULL) && (ds_save->image != NULL);
}

const char *ds_save_reason(void)
{
	if (ds_save_running()) {
		return NULL;
	}
	return ((ds_save != NULL) && (ds_save->reason != NULL)) ?
		ds_save->reason : "there is no memory for its state";
}

/*
 * NULL: nothing is saved of it.
 */
static struct ds_save_channel *ds_save_channel(
	const struct smbXsrv_connection *xconn)
{
	struct ds_save_channel *ch = NULL;

	if (!ds_save_running()) {
		return NULL;
	}
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		if (ch->xconn == xconn) {
			break;
		}
	}
	return ch;
}

/*
 * From here on the client does not survive this process. What is in the
 * buffers may still be in use.
 */
static void ds_save_end(const char *reason)
{
	TALLOC_FREE(ds_save->reason);
	ds_save->reason = talloc_strdup(ds_save, reason);
	if (ds_save->image != NULL) {
		ds_image_wipe(ds_save->image);
	}
	TALLOC_FREE(ds_save->cap);
	TALLOC_FREE(ds_save->image);
}

static void ds_save_stop(const char *reason)
{
	DBG_WARNING("client %s will not survive a crash of its process: %s\n",
		    ds_client_name(talloc_tos(), ds_save->sconn),
		    reason);
	ds_save_end(reason);
}

void ds_save_exit(void)
{
	if (ds_save_running()) {
		ds_image_wipe(ds_save->image);
		TALLOC_FREE(ds_save->image);
	}
}

static int ds_save_put(uint32_t type,
		       uint64_t key,
		       const void *data,
		       size_t length)
{
	return ds_image_put(
		ds_save->image, type, key, data_blob_const(data, length));
}

static uint64_t ds_save_offset(const void *p)
{
	uint64_t offset = 0;

	(void)ds_buffers_find(ds_save->buffers, p, 1, &offset);
	return offset;
}

static struct ds_reply *ds_save_reply(uint64_t offset)
{
	return discard_const_p(struct ds_reply,
			       ds_buffers_at(ds_save->buffers,
					     offset,
					     sizeof(struct ds_reply)));
}

/*
 * Nothing names them any more.
 */
static void ds_save_free_replies(struct ds_save_channel *ch)
{
	struct ds_reply *reply = NULL;

	while ((reply = ch->taken) != ch->first_reply) {
		ch->taken = (reply != ch->last_reply) ?
			ds_save_reply(reply->next) : NULL;
		if (ch->taken == NULL) {
			ch->last_reply = NULL;
		}
		ds_buffers_give(ds_save->buffers, reply, reply->size);
	}
}

/*
 * The end of a save point: what was staged is valid, or the image is not.
 */
static void ds_save_commit(int ret)
{
	struct ds_save_channel *ch = NULL;
	unsigned int side;

	if (!ds_save_running()) {
		return;
	}
	if (ret != 0) {
		ds_save_stop(strerror(ret));
		return;
	}
	side = ds_image_side(ds_save->image) ^ 1;
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		ch->block->stream[side] = ch->stream;
	}
	ds_image_commit(ds_save->image);
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		ds_save_free_replies(ch);
	}
}

/* ---- the streams */

static int ds_save_put_seen(struct ds_save_channel *ch)
{
	const struct smbXsrv_connection *xconn = ch->xconn;
	struct ds_stream *s = &ch->stream;
	uint64_t end = MIN(ch->next_mid, s->seq_low + s->seq_range);
	uint64_t id;

	if (talloc_array_length(ds_save->seen) < s->seq_range) {
		TALLOC_FREE(ds_save->seen);
		ds_save->seen = talloc_array(
			ds_save, uint64_t, xconn->smb2.credits.max);
		if (ds_save->seen == NULL) {
			return ENOMEM;
		}
	}
	for (id = s->seq_low; id < end; id++) {
		if (bitmap_query(xconn->smb2.credits.bitmap,
				 id % xconn->smb2.credits.max))
		{
			ds_save->seen[s->num_seen] = id;
			s->num_seen += 1;
		}
	}
	if (s->num_seen == 0) {
		return 0;
	}
	return ds_save_put(DS_RECORD_SEEN,
			   xconn->channel_id,
			   ds_save->seen,
			   s->num_seen * sizeof(ds_save->seen[0]));
}

/*
 * The window of message ids, with the ids in it that were used: none, as
 * long as a client uses them in their order.
 */
static int ds_save_window(struct ds_save_channel *ch)
{
	const struct smbXsrv_connection *xconn = ch->xconn;
	struct ds_stream *s = &ch->stream;

	s->seq_low = xconn->smb2.credits.seq_low;
	s->seq_range = xconn->smb2.credits.seq_range;
	s->granted = xconn->smb2.credits.granted;
	s->num_seen = 0;
	return (ch->next_mid > s->seq_low) ? ds_save_put_seen(ch) : 0;
}

/* ---- replies */

/*
 * What the kernel has taken is in no queue any more.
 */
static void ds_save_drop_replies(struct ds_save_channel *ch,
				 size_t num_queued)
{
	while (ch->num_replies > num_queued) {
		ch->num_replies -= 1;
		if (ch->num_replies == 0) {
			ch->first_reply = NULL;
			ch->stream.replies = 0;
			return;
		}
		ch->stream.replies = ch->first_reply->next;
		ch->first_reply = ds_save_reply(ch->stream.replies);
	}
}

/*
 * What is in the buffers is named, all else is copied.
 */
static int ds_save_put_reply(struct ds_save_channel *ch,
			     const struct iovec *vector,
			     int count)
{
	struct ds_reply *reply = NULL;
	struct ds_segment *segments = NULL;
	uint64_t offsets[count];
	size_t size = sizeof(*reply) + count * sizeof(*segments);
	uint64_t offset;
	uint8_t *p = NULL;
	int i;

	for (i = 0; i < count; i++) {
		if (!ds_buffers_find(ds_save->buffers,
				     vector[i].iov_base,
				     vector[i].iov_len,
				     &offsets[i]))
		{
			offsets[i] = DS_SEGMENT_INLINE;
			size += vector[i].iov_len;
		}
	}
	reply = ds_buffers_take(ds_save->buffers, size);
	if (reply == NULL) {
		return ENOMEM;
	}
	*reply = (struct ds_reply) {
		.begin = ch->stream.completed,
		.size = size,
		.num_segments = count,
	};
	segments = (struct ds_segment *)(reply + 1);
	p = (uint8_t *)(segments + count);

	for (i = 0; i < count; i++) {
		segments[i] = (struct ds_segment) {
			.offset = offsets[i],
			.length = vector[i].iov_len,
		};
		reply->length += vector[i].iov_len;
		if ((offsets[i] == DS_SEGMENT_INLINE) &&
		    (vector[i].iov_len != 0))
		{
			memcpy(p, vector[i].iov_base, vector[i].iov_len);
			p += vector[i].iov_len;
		}
	}

	offset = ds_save_offset(reply);
	if (ch->last_reply != NULL) {
		ch->last_reply->next = offset;
	}
	ch->last_reply = reply;
	if (ch->taken == NULL) {
		ch->taken = reply;
	}
	if (ch->first_reply == NULL) {
		ch->first_reply = reply;
		ch->stream.replies = offset;
	}
	ch->num_replies += 1;
	ch->stream.completed += reply->length;
	return 0;
}

/* ---- effects */

/*
 * Of whichever command it is that makes a name
 */
static void ds_save_fault(enum ds_fault fault)
{
	const struct ds_save_channel *ch = NULL;
	const struct smbd_smb2_request *req = NULL;

	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		for (req = ch->xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			if ((req->durable != NULL) &&
			    (req->durable == ds_save->current)) {
				ds_fault_request(fault, req);
			}
		}
	}
}

bool ds_save_in_compound(void)
{
	return ds_save_running() && (ds_save->current != NULL) &&
	       ds_save->current_is_compound;
}

void ds_save_effected(void)
{
	int err = errno;

	if (ds_save_running()) {
		ds_save_fault(DS_FAULT_EFFECTED);
	}
	errno = err;
}

void ds_save_effect(const struct ds_effect *effect)
{
	struct ds_slot *slot = ds_save->current;
	struct ds_save_effect *e = NULL;
	enum ndr_err_code ndr_err;
	int ret;

	if (!ds_save_running() || (slot == NULL)) {
		return;
	}
	e = talloc(ds_save, struct ds_save_effect);
	if (e == NULL) {
		ds_save_stop("out of memory");
		return;
	}
	*e = (struct ds_save_effect) {
		.slot = slot, .key = ds_save->next_effect,
	};
	ndr_err = ndr_push_struct_blob(
		&e->blob,
		e,
		effect,
		(ndr_push_flags_fn_t)ndr_push_ds_effect);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		TALLOC_FREE(e);
		ds_save_stop("a name cannot be written down");
		return;
	}
	DLIST_ADD_END(ds_save->effects, e);
	ds_save->next_effect += 1;
	slot->flags |= DS_SLOT_EFFECT;

	ret = ds_save_put(
		DS_RECORD_EFFECT, e->key, e->blob.data, e->blob.length);
	ds_save_commit(ret);
	ds_save_fault(DS_FAULT_EFFECT);
}

void ds_save_once(void)
{
	if (ds_save_running() && (ds_save->current != NULL)) {
		ds_save->current->flags |= DS_SLOT_LOST;
	}
}

/*
 * They are meant, from the next commit on.
 */
static int ds_save_drop_effects(struct ds_slot *slot)
{
	struct ds_save_effect *e = NULL;
	struct ds_save_effect *next = NULL;
	int ret = 0;

	for (e = ds_save->effects; e != NULL; e = next) {
		next = e->next;
		if (e->slot != slot) {
			continue;
		}
		if ((ret == 0) && ds_save_running()) {
			ret = ds_image_remove(
				ds_save->image, DS_RECORD_EFFECT, e->key);
		}
		DLIST_REMOVE(ds_save->effects, e);
		TALLOC_FREE(e);
	}
	slot->flags &= ~DS_SLOT_EFFECT;
	return ret;
}

static int ds_save_put_effects(void)
{
	const struct ds_save_effect *e = NULL;
	int ret = 0;

	for (e = ds_save->effects; (ret == 0) && (e != NULL); e = e->next) {
		ret = ds_save_put(DS_RECORD_EFFECT,
				  e->key,
				  e->blob.data,
				  e->blob.length);
	}
	return ret;
}

/* ---- all of the client, in a new log */

static int ds_save_put_records(struct ds_save_channel *ch)
{
	struct smbd_smb2_request *req = NULL;

	for (req = ch->xconn->smb2.requests;
	     req != NULL;
	     req = req->next) {
		struct ds_slot *slot = req->durable;
		NTSTATUS status;

		if ((slot == NULL) || !(slot->flags & DS_SLOT_RECORD)) {
			continue;
		}
		slot->offset = ds_save->cap->num_requests;
		status = ds_capture_request(ds_save->cap, req);
		if (!NT_STATUS_IS_OK(status)) {
			return map_errno_from_nt_status(status);
		}
	}
	return 0;
}

/*
 * Staged, as all else: the caller commits.
 */
static int ds_save_put_channel(struct ds_save_channel *ch)
{
	const struct ds_place place = {
		.offset = ds_save_offset(ch->block), .num = 1,
	};
	int ret;

	ret = ds_save_put(DS_RECORD_CHANNEL,
			  ch->xconn->channel_id,
			  &place,
			  sizeof(place));
	if (ret == 0) {
		ret = ds_save_put_records(ch);
	}
	if (ret == 0) {
		ret = ds_save_window(ch);
	}
	return ret;
}

static int ds_save_all(void)
{
	struct ds_save_channel *ch = NULL;
	const char *reason = NULL;
	NTSTATUS status;
	size_t i;
	int ret = 0;

	if (ds_protection(ds_save->sconn, &reason) == DS_UNPROTECTED) {
		/* as it is configured */
		ds_save_end(reason);
		return 0;
	}
	ds_save->rewrite = false;
	ds_image_rewrite(ds_save->image);

	status = ds_capture_objects(ds_save->cap, 0);
	if (!NT_STATUS_IS_OK(status)) {
		return map_errno_from_nt_status(status);
	}
	for (i = 0; (ret == 0) && (i < ds_save->num_slots_blocks); i++) {
		ret = ds_save_put(DS_RECORD_SLOTS,
				  i,
				  &ds_save->slots[i],
				  sizeof(ds_save->slots[i]));
	}
	if (ret == 0) {
		ret = ds_save_put_effects();
	}
	for (ch = ds_save->channels; (ret == 0) && (ch != NULL); ch = ch->next)
	{
		ret = ds_save_put_channel(ch);
	}
	return ret;
}

/* ---- received and started */

uint8_t *ds_save_buffer(struct smbXsrv_connection *xconn,
			TALLOC_CTX *mem_ctx,
			size_t len)
{
	if ((ds_save == NULL) || (len == 0)) {
		return NULL;
	}
	return ds_buffers_alloc(ds_save->buffers, mem_ctx, len);
}

uint8_t *ds_save_header(struct smbXsrv_connection *xconn)
{
	struct ds_save_channel *ch = ds_save_channel(xconn);

	return (ch != NULL) ? ch->block->nbt : NULL;
}

/*
 * A PDU in private memory has no place in the buffers: a crash in the middle
 * of it is one too many.
 */
void ds_save_reading(struct smbXsrv_connection *xconn,
		     const uint8_t *pdu,
		     size_t len)
{
	struct ds_save_channel *ch = ds_save_channel(xconn);
	struct ds_reading *reading = NULL;
	uint64_t offset;

	if (ch == NULL) {
		return;
	}
	if (!ds_buffers_find(ds_save->buffers, pdu, len, &offset)) {
		offset = UINT64_MAX;
	}
	reading = &ch->block->reading;
	/* not of the PDU before, while it is half of this one */
	DS_STORE(&reading->received, UINT64_MAX);
	reading->offset = offset;
	reading->length = len;
	reading->crashes = 0;
	DS_STORE(&reading->received, ch->stream.received);
}

static int ds_save_more_slots(void)
{
	size_t length = DS_SLOTS_BYTES << ds_save->num_slots_blocks;
	size_t num = length / sizeof(struct ds_slot);
	size_t total = num + talloc_array_length(ds_save->free_slots);
	struct ds_place *place = NULL;
	struct ds_slot **free_slots = NULL;
	struct ds_slot *slots = NULL;
	size_t i;

	if (ds_save->num_slots_blocks == DS_SLOTS_BLOCKS) {
		return ENOMEM;
	}
	/* room for all, so freeing one cannot fail */
	free_slots = talloc_realloc(
		ds_save, ds_save->free_slots, struct ds_slot *, total);
	if (free_slots == NULL) {
		return ENOMEM;
	}
	ds_save->free_slots = free_slots;
	slots = ds_buffers_take(ds_save->buffers, length);
	if (slots == NULL) {
		return ENOMEM;
	}
	memset(slots, 0, length);
	for (i = num; i > 0; i--) {
		free_slots[ds_save->num_free_slots] = &slots[i - 1];
		ds_save->num_free_slots += 1;
	}
	place = &ds_save->slots[ds_save->num_slots_blocks];
	*place = (struct ds_place) {
		.offset = ds_save_offset(slots), .num = num,
	};
	ds_save->num_slots_blocks += 1;
	if (!ds_save_running()) {
		return 0;
	}
	return ds_save_put(DS_RECORD_SLOTS,
			   ds_save->num_slots_blocks - 1,
			   place,
			   sizeof(*place));
}

void ds_save_closed(uint64_t persistent_id)
{
	struct ds_save_closed *closed = NULL;
	int ret;

	if (!ds_save_running()) {
		return;
	}
	if (ds_save->current != NULL) {
		closed = talloc(ds_save, struct ds_save_closed);
	}
	if (closed != NULL) {
		*closed = (struct ds_save_closed) {
			.slot = ds_save->current,
			.persistent_id = persistent_id,
		};
		ds_save->current->flags |= DS_SLOT_CLOSED;
		DLIST_ADD(ds_save->closed, closed);
		return;
	}
	/* valid with the next commit */
	ret = ds_image_remove(ds_save->image, DS_RECORD_OPEN, persistent_id);
	if (ret != 0) {
		ds_save_stop(strerror(ret));
	}
}

static int ds_save_drop_closed(struct ds_slot *slot)
{
	struct ds_save_closed *closed = NULL;
	struct ds_save_closed *next = NULL;
	int ret = 0;

	for (closed = ds_save->closed; closed != NULL; closed = next) {
		next = closed->next;
		if (closed->slot != slot) {
			continue;
		}
		if ((ret == 0) && ds_save_running()) {
			ret = ds_image_remove(ds_save->image,
					      DS_RECORD_OPEN,
					      closed->persistent_id);
		}
		DLIST_REMOVE(ds_save->closed, closed);
		TALLOC_FREE(closed);
	}
	slot->flags &= ~DS_SLOT_CLOSED;
	return ret;
}

/*
 * What belongs to a request that is not answered, and to no other.
 */
static int ds_save_drop_records(struct ds_slot *slot)
{
	int ret = 0;

	if (slot->flags & DS_SLOT_EFFECT) {
		ret = ds_save_drop_effects(slot);
	}
	if ((slot->flags & DS_SLOT_CLOSED) && (ret == 0)) {
		ret = ds_save_drop_closed(slot);
	}
	if ((slot->flags & DS_SLOT_RECORD) && ds_save_running()) {
		slot->flags &= ~DS_SLOT_RECORD;
		if (ret == 0) {
			ret = ds_image_remove(ds_save->image,
					      DS_RECORD_REQUEST,
					      slot->offset);
		}
	}
	return ret;
}

/*
 * It needs no answer, or will never get one, or that is saved.
 */
void ds_save_freed(struct smbd_smb2_request *req)
{
	struct ds_slot *slot = req->durable;
	int ret = 0;

	if (slot == NULL) {
		return;
	}
	req->durable = NULL;
	if (ds_save->current == slot) {
		ds_save->current = NULL;
	}
	if (slot->answered != 0) {
		ds_fault_request(DS_FAULT_ACKNOWLEDGED, req);
	}
	if (slot->flags &
	    (DS_SLOT_RECORD | DS_SLOT_EFFECT | DS_SLOT_CLOSED)) {
		/* it was not answered: valid with the next commit */
		ret = ds_save_drop_records(slot);
	}
	if ((ret != 0) && ds_save_running()) {
		ds_save_stop(strerror(ret));
	}
	DS_STORE(&slot->flags, 0);
	ds_save->free_slots[ds_save->num_free_slots] = slot;
	ds_save->num_free_slots += 1;
}

static int ds_save_new_slot(struct smbd_smb2_request *req,
			    uint64_t begin,
			    const uint8_t *pdu,
			    size_t len)
{
	struct ds_slot *slot = NULL;
	uint32_t flags = DS_SLOT_USED;
	uint64_t offset = 0;
	int ret;

	if (ds_save->num_free_slots == 0) {
		ret = ds_save_more_slots();
		if (ret != 0) {
			return ret;
		}
	}
	ds_save->num_free_slots -= 1;
	slot = ds_save->free_slots[ds_save->num_free_slots];

	if (pdu == NULL) {
		flags |= DS_SLOT_RECORD;
	} else if (!ds_buffers_find(ds_save->buffers, pdu, len, &offset)) {
		flags |= DS_SLOT_LOST;
	}
	*slot = (struct ds_slot) {
		.channel_id = req->xconn->channel_id,
		.begin = begin,
		.offset = offset,
		.length = len,
		.request_time = timeval_to_nttime(&req->request_time),
	};
	DS_STORE(&slot->flags, flags);
	req->durable = slot;
	return 0;
}

uint8_t *ds_save_received(struct smbd_smb2_request *req,
			  uint8_t *pdu,
			  size_t len)
{
	struct ds_save_channel *ch = ds_save_channel(req->xconn);

	if (ch == NULL) {
		return pdu;
	}
	if (len >= SMB2_HDR_BODY) {
		/* or whatever there is if it is encrypted */
		ds_fault(DS_FAULT_RECEIVED, SVAL(pdu, SMB2_HDR_OPCODE));
	}
	if (ch->block->nbt[0] != 0) {
		/* not SMB2, and ignored: a keepalive of NetBIOS */
		ch->stream.received += NBT_HDR_SIZE + len;
		ds_save_commit(0);
		return pdu;
	}
	if ((len >= 4) && (IVAL(pdu, 0) == SMB2_TF_MAGIC))
	{
		/* decrypted in place, and a crash may be in the middle */
		return talloc_memdup(req, pdu, len);
	}
	return pdu;
}

static void ds_save_set_current(const struct smbd_smb2_request *req)
{
	ds_save->current = req->durable;
	ds_save->current_is_compound =
		(req->in.vector_count > 1 + SMBD_SMB2_NUM_IOV_PER_REQ);
}

/*
 * A CANCEL has no answer that could be waited for: it belongs to the request
 * that it is for, found as smbd_smb2_request_process_cancel() does.
 */
static void ds_save_cancel(const struct smbd_smb2_request *cancel)
{
	const uint8_t *inhdr = SMBD_SMB2_IN_HDR_PTR(cancel);
	/* the async id is in its place */
	size_t ofs = (IVAL(inhdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC) ?
		SMB2_HDR_ASYNC_ID : SMB2_HDR_MESSAGE_ID;
	struct smbd_smb2_request *req = NULL;

	for (req = cancel->xconn->smb2.requests;
	     req != NULL;
	     req = req->next) {
		struct ds_slot *slot = req->durable;
		const uint8_t *outhdr = NULL;

		if ((req == cancel) || (slot == NULL)) {
			continue;
		}
		outhdr = SMBD_SMB2_OUT_HDR_PTR(req);
		if (BVAL(outhdr, ofs) == BVAL(inhdr, ofs)) {
			slot->flags |= DS_SLOT_CANCELLED;
		}
	}
}

static const struct files_struct *ds_save_open(uint64_t persistent_id)
{
	const struct files_struct *fsp = NULL;

	for (fsp = ds_save->sconn->files; fsp != NULL; fsp = fsp->next) {
		if ((fsp->op != NULL) &&
		    (fsp->op->global->open_persistent_id == persistent_id))
		{
			break;
		}
	}
	return fsp;
}

/*
 * Does it copy within a file to what it reads as well? [MS-SMB2] 2.2.31.1; the
 * source key begins with the id of the open. A second run would copy what the
 * first one has written.
 */
static bool ds_save_copies_onto_itself(const struct smbd_smb2_request *req)
{
	const struct iovec *iov = SMBD_SMB2_IN_BODY_IOV(req);
	const struct iovec *dyn = SMBD_SMB2_IN_DYN_IOV(req);
	const uint8_t *body = iov->iov_base;
	const uint8_t *in = dyn->iov_base;
	const struct files_struct *from = NULL;
	const struct files_struct *to = NULL;
	uint32_t num;
	uint32_t i;

	if ((iov->iov_len < 0x20) || (dyn->iov_len < 0x20) ||
	    ((IVAL(body, 0x04) != FSCTL_SRV_COPYCHUNK) &&
	     (IVAL(body, 0x04) != FSCTL_SRV_COPYCHUNK_WRITE)))
	{
		return false;
	}
	from = ds_save_open(BVAL(in, 0));
	to = ds_save_open(BVAL(body, 0x08));
	if ((from == NULL) || (to == NULL) ||
	    !file_id_equal(&from->file_id, &to->file_id))
	{
		return false;
	}
	/* smbd takes 256 at most */
	num = MIN(IVAL(in, 0x18), (dyn->iov_len - 0x20) / 0x18);
	num = MIN(num, 256);
	for (i = 0; i < num * num; i++) {
		const uint8_t *read = in + 0x20 + (i / num) * 0x18;
		const uint8_t *write = in + 0x20 + (i % num) * 0x18;
		uint64_t source = BVAL(read, 0x00);
		uint64_t target = BVAL(write, 0x08);

		if ((source < target) ?
			    (target - source < IVAL(read, 0x10)) :
			    (source - target < IVAL(write, 0x10)))
		{
			return true;
		}
	}
	return false;
}

void ds_save_started(struct smbd_smb2_request *req)
{
	struct ds_save_channel *ch = ds_save_channel(req->xconn);
	uint16_t opcode = SVAL(SMBD_SMB2_IN_HDR_PTR(req), SMB2_HDR_OPCODE);
	const struct ds_reading *reading = NULL;
	const uint8_t *pdu = NULL;
	size_t length;
	int idx;
	int ret;

	if (ch == NULL) {
		return;
	}
	if (req->durable != NULL) {
		/* once more, or the next one of a compound */
		ds_save_set_current(req);
		ds_fault(DS_FAULT_STARTED, opcode);
		return;
	}
	reading = &ch->block->reading;
	if (reading->received != ch->stream.received) {
		/* smbd reads the first PDU of a connection by itself */
		return;
	}
	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(
			req, in, idx)->iov_base;
		uint64_t charge = MAX(SVAL(inhdr, SMB2_HDR_CREDIT_CHARGE), 1);

		if (SVAL(inhdr, SMB2_HDR_OPCODE) != SMB2_OP_CANCEL) {
			ch->next_mid = MAX(
				ch->next_mid,
				BVAL(inhdr, SMB2_HDR_MESSAGE_ID) + charge);
		}
	}

	length = reading->length;
	pdu = ds_buffers_at(ds_save->buffers, reading->offset, length);
	if (pdu == NULL) {
		/* not in the buffers, which the slot then says */
		pdu = SMBD_SMB2_IN_HDR_PTR(req);
	}
	ret = ds_save_new_slot(req, reading->received, pdu, length);
	if (ret == 0) {
		struct ds_slot *slot = req->durable;

		slot->crashes = reading->crashes;
		ds_save_set_current(req);
		if ((opcode == SMB2_OP_IOCTL) &&
		    ds_save_copies_onto_itself(req))
		{
			slot->flags |= DS_SLOT_LOST;
		}
	}
	ch->stream.received += NBT_HDR_SIZE + length;
	if (ret == 0) {
		ret = ds_save_window(ch);
	}
	ds_save_commit(ret);
	ds_fault(DS_FAULT_STARTED, opcode);
	if (opcode == SMB2_OP_CANCEL) {
		ds_save_cancel(req);
	}
}

/* ---- completed */

static struct ds_save_channel *ds_save_join(struct smbXsrv_connection *xconn);
static void ds_save_begin(struct smbXsrv_connection *xconn);

/*
 * A compound that waits may have made an open already. It is made again with
 * all of the compound, so it does not count before there is an answer.
 */
bool ds_save_is_new(struct files_struct *fsp)
{
	const struct ds_save_channel *ch = NULL;
	const struct smbd_smb2_request *req = NULL;
	uint64_t channel_id;
	uint64_t begin;

	if ((ds_save == NULL) || ds_vfs_is_known(fsp) ||
	    !ds_vfs_made_by(fsp, &channel_id, &begin))
	{
		return false;
	}
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		for (req = ch->xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			const struct ds_slot *slot = req->durable;

			if ((slot != NULL) && (slot->begin == begin) &&
			    (slot->channel_id == channel_id))
			{
				return (req != ds_save->answered) &&
				       (slot->parts == 0);
			}
		}
	}
	return false;
}

bool ds_save_compound(uint64_t *channel_id, uint64_t *begin)
{
	if (!ds_save_in_compound()) {
		return false;
	}
	*channel_id = ds_save->current->channel_id;
	*begin = ds_save->current->begin;
	return true;
}

static int ds_save_put_open(struct files_struct *fsp)
{
	NTSTATUS status;

	if ((fsp->op == NULL) || fsp_is_np(fsp) || ds_save_is_new(fsp)) {
		return 0;
	}
	status = ds_capture_open(ds_save->cap, fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return map_errno_from_nt_status(status);
	}
	ds_vfs_saved(fsp);
	return 0;
}

/*
 * Opens that have changed, or that are new: those are at the head of smbd's
 * list.
 */
static int ds_save_put_opens(bool (*wanted)(struct files_struct *fsp))
{
	struct files_struct *fsp = NULL;
	struct files_struct *next = NULL;

	for (fsp = ds_save->sconn->files; fsp != NULL; fsp = next) {
		int ret;

		next = fsp->next;
		if ((fsp->op == NULL) || fsp_is_np(fsp)) {
			continue;
		}
		if (wanted == NULL) {
			if (ds_vfs_is_known(fsp)) {
				break;
			}
		} else if (!wanted(fsp)) {
			continue;
		}
		ret = ds_save_put_open(fsp);
		if (ret != 0) {
			return ret;
		}
	}
	return 0;
}

/*
 * A new name is one for all opens of the file.
 */
static int ds_save_put_named(struct files_struct *fsp)
{
	struct files_struct *other = NULL;
	int ret = 0;

	for (other = ds_save->sconn->files;
	     (other != NULL) && (ret == 0);
	     other = other->next) {
		if ((other == fsp) ||
		    file_id_equal(&other->file_id, &fsp->file_id))
		{
			ret = ds_save_put_open(other);
		}
	}
	return ret;
}

bool ds_save_is_scanning(const struct files_struct *fsp)
{
	const struct ds_save_channel *ch = NULL;
	const struct smbd_smb2_request *req = NULL;

	if (ds_save == NULL) {
		return false;
	}
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		for (req = ch->xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			if ((req->compat_chain_fsp == fsp) &&
			    (req->durable != NULL) &&
			    (req != ds_save->answered) &&
			    (SVAL(SMBD_SMB2_IN_HDR_PTR(req),
				  SMB2_HDR_OPCODE) == SMB2_OP_QUERY_DIRECTORY))
			{
				return true;
			}
		}
	}
	return false;
}

static bool ds_save_is_watched(struct files_struct *fsp)
{
	return (fsp->notify != NULL);
}

static void ds_save_watched(struct tevent_context *ev,
			    struct tevent_timer *te,
			    struct timeval now,
			    void *private_data)
{
	TALLOC_FREE(ds_save->watched);
	if (ds_save_running()) {
		ds_save_commit(ds_save_put_opens(ds_save_is_watched));
	}
}

/*
 * By the next time it is certain, unless there was a change again.
 */
void ds_save_again_soon(void)
{
	if (!ds_save_running() || (ds_save->watched != NULL)) {
		return;
	}
	ds_save->watched = tevent_add_timer(
		ds_save->sconn->ev_ctx,
		ds_save,
		timeval_current_ofs_usec(DS_TICK / 10),
		ds_save_watched,
		NULL);
}

/* Those of a compound need not be the last ones. */
static bool ds_save_is_not_known(struct files_struct *fsp)
{
	return !ds_vfs_is_known(fsp);
}

static bool ds_save_has_break(struct files_struct *fsp)
{
	return (fsp->oplock_type != NO_OPLOCK) || ds_vfs_had_oplock(fsp);
}

/*
 * What a request may have changed
 */
static int ds_save_put_changes(struct smbd_smb2_request *req, int idx)
{
	const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, idx)->iov_base;
	const uint8_t *outhdr = SMBD_SMB2_IDX_HDR_IOV(req, out, idx)->iov_base;
	struct files_struct *fsp = req->compat_chain_fsp;

	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_SESSSETUP:
		/* a login that is half done is not kept */
		ds_save->rewrite |= !NT_STATUS_EQUAL(
			NT_STATUS(IVAL(outhdr, SMB2_HDR_STATUS)),
			NT_STATUS_MORE_PROCESSING_REQUIRED);
		return 0;
	case SMB2_OP_NEGPROT:
	case SMB2_OP_LOGOFF:
	case SMB2_OP_TCON:
	case SMB2_OP_TDIS:
		ds_save->rewrite = true;
		return 0;
	case SMB2_OP_CREATE:
		return ds_save_put_opens(
			(req->in.vector_count >
			 1 + SMBD_SMB2_NUM_IOV_PER_REQ) ?
				ds_save_is_not_known : NULL);
	case SMB2_OP_CLOSE:
	case SMB2_OP_KEEPALIVE:
	case SMB2_OP_CANCEL:
	case SMB2_OP_GETINFO:
		return 0;
	case SMB2_OP_BREAK:
		return ds_save_put_opens(ds_save_has_break);
	case SMB2_OP_SETINFO:
		return (fsp != NULL) ? ds_save_put_named(fsp) : 0;
	case SMB2_OP_READ:
	case SMB2_OP_WRITE:
	case SMB2_OP_FLUSH:
	case SMB2_OP_IOCTL:
		if ((fsp == NULL) || ds_vfs_is_saved(fsp)) {
			return 0;
		}
		break;
	default:
		break;
	}
	return (fsp != NULL) ? ds_save_put_open(fsp) : 0;
}

/*
 * An interim response has been made of one of them; or, if it was for a
 * compound, of the part that is done already.
 */
static int ds_save_interim(struct ds_save_channel *ch, size_t length)
{
	struct smbd_smb2_request *req = NULL;
	int ret;

	for (req = ch->xconn->smb2.requests;
	     req != NULL;
	     req = req->next) {
		const uint8_t *outhdr = NULL;
		struct ds_slot *slot = req->durable;

		if ((slot == NULL) || (slot->interim != 0)) {
			continue;
		}
		outhdr = SMBD_SMB2_OUT_HDR_PTR(req);
		if (!(IVAL(outhdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC)) {
			continue;
		}
		slot->async_id = BVAL(outhdr, SMB2_HDR_ASYNC_ID);
		/* counts with the commit */
		slot->interim = ch->stream.completed + length;

		if (req->compat_chain_fsp != NULL) {
			/* it may be a watch that has begun */
			ret = ds_save_put_open(req->compat_chain_fsp);
			if (ret != 0) {
				return ret;
			}
		}
	}
	return 0;
}

/*
 * The first parts of a compound are answered by a copy of the request, which
 * has nothing of what came in.
 */
static int ds_save_parts(struct ds_save_channel *ch,
			 struct smbd_smb2_request *copy,
			 size_t length)
{
	uint64_t mid = BVAL(SMBD_SMB2_IDX_HDR_IOV(copy, out, 1)->iov_base,
			    SMB2_HDR_MESSAGE_ID);
	struct smbd_smb2_request *req = NULL;

	for (req = ch->xconn->smb2.requests; req != NULL; req = req->next) {
		const uint8_t *inhdr = NULL;
		struct ds_slot *slot = req->durable;
		struct files_struct *fsp = req->compat_chain_fsp;

		if ((slot == NULL) || (req->current_idx <= 1)) {
			continue;
		}
		inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, 1)->iov_base;
		if (BVAL(inhdr, SMB2_HDR_MESSAGE_ID) != mid) {
			continue;
		}
		slot->num_parts = (req->current_idx - 1) /
				  SMBD_SMB2_NUM_IOV_PER_REQ;
		slot->last_session_id = req->last_session_id;
		slot->last_tid = req->last_tid;
		slot->chain_open = ((fsp != NULL) && (fsp->op != NULL)) ?
			fsp->op->global->open_persistent_id : 0;
		/* counts with the commit, as do the names that they made */
		slot->parts = ch->stream.completed + length;
		if (slot->flags & DS_SLOT_EFFECT) {
			int ret = ds_save_drop_effects(slot);

			if (ret != 0) {
				return ret;
			}
		}
		return ds_save_put_opens(ds_save_is_not_known);
	}
	return 0;
}

static int ds_save_put_answer(struct ds_save_channel *ch,
			      struct smbd_smb2_request *req,
			      size_t length)
{
	struct ds_slot *slot = req->durable;
	int idx;
	int ret = 0;

	ds_save->answered = req;
	for (idx = 1;
	     (idx < req->in.vector_count) && (ret == 0);
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		ret = ds_save_put_changes(req, idx);
	}
	ds_save->answered = NULL;
	if (ret != 0) {
		return ret;
	}
	if (slot == NULL) {
		return 0;
	}
	/* counts with the commit; the slot is freed with the request */
	slot->answered = ch->stream.completed + length;
	return ds_save_drop_records(slot);
}

static int ds_save_put_entry(struct ds_save_channel *ch,
			     struct smbd_smb2_send_queue *e,
			     const struct smbd_smb2_request **answered)
{
	struct smbd_smb2_request *req = talloc_get_type(
		e->mem_ctx, struct smbd_smb2_request);
	size_t length = iov_buflen(e->vector, e->count);
	int ret;

	if ((req != NULL) && (&req->queue_entry == e) &&
	    (req->in.vector_count != 0))
	{
		ds_fault_request(DS_FAULT_DONE, req);
		ret = ds_save_put_answer(ch, req, length);
		*answered = req;
	} else {
		ret = ds_save_interim(ch, length);
		if ((ret == 0) && (req != NULL) && (req->out.vector_count > 1)) {
			ret = ds_save_parts(ch, req, length);
		}
		if (ret == 0) {
			/* or it is a break */
			ret = ds_save_put_opens(ds_save_has_break);
		}
	}
	if (ret == 0) {
		ret = ds_save_put_reply(ch, e->vector, e->count);
	}
	if (ret == 0) {
		e->durable = true;
	}
	return ret;
}

static void ds_save_trim(struct tevent_context *ev,
			 struct tevent_timer *te,
			 struct timeval now,
			 void *private_data)
{
	TALLOC_FREE(ds_save->trim);
	ds_buffers_trim(ds_save->buffers);
}

/*
 * Memory that a transfer has filled is kept while there may be more of it.
 */
static void ds_save_schedule_trim(void)
{
	if ((ds_save->trim == NULL) &&
	    (ds_buffers_freed(ds_save->buffers) > DS_TRIM_BYTES))
	{
		ds_save->trim = tevent_add_timer(
			ds_save->sconn->ev_ctx,
			ds_save,
			timeval_current_ofs(DS_TRIM_SECONDS, 0),
			ds_save_trim,
			NULL);
	}
}

/*
 * Whatever is in the send queue and not in the image
 */
static int ds_save_put_queue(struct ds_save_channel *ch,
			     bool *new,
			     const struct smbd_smb2_request **answered)
{
	struct smbd_smb2_send_queue *e = NULL;
	size_t num = 0;
	int ret = 0;

	for (e = ch->xconn->smb2.send_queue; e != NULL; e = e->next) {
		if (e->durable) {
			num += 1;
			continue;
		}
		if (!*new) {
			*new = true;
			ds_save_drop_replies(ch, num);
		}
		if (e->sendfile_header != NULL) {
			ds_save_stop("sendfile");
			return 0;
		}
		ret = ds_save_put_entry(ch, e, answered);
		if (ret != 0) {
			break;
		}
	}
	return ret;
}

void ds_save_completed(struct smbXsrv_connection *xconn)
{
	struct ds_save_channel *ch = ds_save_channel(xconn);
	const struct smbd_smb2_request *answered = NULL;
	bool new = false;
	int ret = 0;

	if ((ch == NULL) && ds_save_running()) {
		/* a further one of this client */
		ch = ds_save_join(xconn);
	}
	if (ch == NULL) {
		ds_save_begin(xconn);
		return;
	}
	if (ch->stream.received == 0) {
		/* the first PDU, which smbd reads in a way of its own */
		ret = ds_stream_position(xconn->transport.sock,
					 &ch->stream.received,
					 &ch->stream.completed);
	}
	if (ret == 0) {
		ret = ds_save_put_queue(ch, &new, &answered);
	}
	if (!new || !ds_save_running()) {
		return;
	}
	if (ret == 0) {
		ret = (ds_save->rewrite ||
		       ds_image_is_long(ds_save->image)) ?
			ds_save_all() : ds_save_window(ch);
	}
	ds_save_commit(ret);
	if (answered != NULL) {
		ds_fault_request(DS_FAULT_COMPLETED, answered);
	}
	ds_save_schedule_trim();
}

/* ---- begin */

int ds_save_hold(const char *former)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct keeper_conn *keeper = NULL;
	const struct ds_save_channel *ch = NULL;
	json_t *info = NULL;
	char label[DS_LABEL_SIZE];
	int *fds = NULL;
	size_t num = 0;
	int ret;

	if (!ds_save_running()) {
		TALLOC_FREE(frame);
		return 0;
	}
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		num += 1;
	}
	fds = talloc_array(frame, int, num + 2);
	if (fds == NULL) {
		TALLOC_FREE(frame);
		return ENOMEM;
	}
	num = 0;
	fds[num++] = ds_image_fd(ds_save->image);
	for (ch = ds_save->channels; ch != NULL; ch = ch->next) {
		fds[num++] = ch->xconn->transport.sock;
	}
	fds[num++] = ds_buffers_fd(ds_save->buffers);

	snprintf(label, sizeof(label), "client-%d", (int)getpid());
	info = json_pack("{sI ss ss sb}",
			 "version", (json_int_t)DS_IMAGE_VERSION,
			 "samba", samba_version_string(),
			 "client", ds_client_name(frame, ds_save->sconn),
			 "live", true);
	ret = keeper_connect(frame,
			     ds_config_directory(frame),
			     "child",
			     DS_KEEPER_TIMEOUT_MS,
			     &keeper);
	if (ret == 0) {
		ret = keeper_replace(keeper, label, former, info, fds, num);
	}
	json_decref(info);
	TALLOC_FREE(frame);
	return ret;
}

void ds_save_hold_again(void)
{
	int ret = ds_save_hold(NULL);

	if (ret != 0) {
		ds_save_stop(talloc_asprintf(talloc_tos(),
					     "the keeper does not take it: %s",
					     strerror(ret)));
	}
}

int ds_save_create(struct smbd_server_connection *sconn)
{
	int ret;

	ds_save = talloc_zero(NULL, struct ds_save);
	if (ds_save == NULL) {
		return ENOMEM;
	}
	ds_save->sconn = sconn;
	ds_fault_configure();
	ret = ds_buffers_create(ds_save, &ds_save->buffers);
	if (ret == 0) {
		/* slots stay: no reply is at offset 0 */
		ret = ds_save_more_slots();
	}
	if (ret != 0) {
		TALLOC_FREE(ds_save);
	}
	return ret;
}

const uint8_t *ds_save_again(struct smbd_smb2_request *req,
			     const uint8_t *pdu,
			     const struct ds_slot *old)
{
	struct ds_slot *slot = NULL;
	uint8_t *copy = NULL;
	int ret;

	if (ds_save == NULL) {
		return pdu;
	}
	copy = ds_buffers_alloc(ds_save->buffers, req, old->length);
	if (copy == NULL) {
		return NULL;
	}
	memcpy(copy, pdu, old->length);

	ret = ds_save_new_slot(req, old->begin, copy, old->length);
	if (ret != 0) {
		return NULL;
	}
	slot = req->durable;
	slot->flags |= old->flags & (DS_SLOT_LOST | DS_SLOT_CANCELLED);
	slot->async_id = old->async_id;
	slot->interim = old->interim;
	slot->parts = old->parts;
	slot->num_parts = old->num_parts;
	slot->last_session_id = old->last_session_id;
	slot->last_tid = old->last_tid;
	slot->chain_open = old->chain_open;
	slot->crashes = old->crashes;
	slot->again = true;
	return copy;
}

bool ds_save_is_again(const struct smbd_smb2_request *req)
{
	const struct ds_slot *slot = req->durable;

	return (slot != NULL) && slot->again;
}

bool ds_save_is_cancelled(const struct smbd_smb2_request *req)
{
	const struct ds_slot *slot = req->durable;

	return (slot != NULL) && (slot->flags & DS_SLOT_CANCELLED);
}

static int ds_save_channel_destructor(struct ds_save_channel *ch)
{
	DLIST_REMOVE(ds_save->channels, ch);
	if (ds_save_running() && (ds_save->channels != NULL)) {
		/* smbd has forgotten the connection: without it */
		ds_save_commit(ds_save_all());
		ds_save_hold_again();
	}
	if (ds_save->image == NULL) {
		/* what is in the buffers does not matter any more */
		return 0;
	}
	ch->first_reply = NULL;
	ds_save_free_replies(ch);
	ds_buffers_give(ds_save->buffers, ch->block, sizeof(*ch->block));
	return 0;
}

static struct ds_save_channel *ds_save_new_channel(
	struct smbXsrv_connection *xconn)
{
	struct ds_save_channel *ch = talloc(xconn, struct ds_save_channel);

	if (ch == NULL) {
		return NULL;
	}
	*ch = (struct ds_save_channel) {
		.xconn = xconn,
		.block = ds_buffers_take(ds_save->buffers, sizeof(*ch->block)),
	};
	if (ch->block == NULL) {
		TALLOC_FREE(ch);
		return NULL;
	}
	*ch->block = (struct ds_channel) { .reading.received = UINT64_MAX, };
	DLIST_ADD_END(ds_save->channels, ch);
	talloc_set_destructor(ch, ds_save_channel_destructor);
	return ch;
}

/*
 * A further connection of the client. The keeper has it before the image
 * names it; without it the client as it was goes on.
 */
static struct ds_save_channel *ds_save_join(struct smbXsrv_connection *xconn)
{
	struct ds_save_channel *ch = ds_save_new_channel(xconn);

	if (ch == NULL) {
		ds_save_stop("out of memory");
		return NULL;
	}
	ds_save_hold_again();
	ds_save->rewrite = true;
	return ds_save_running() ? ch : NULL;
}

/*
 * Requests that came along with a restart.
 */
static int ds_save_old_requests(struct ds_save_channel *ch)
{
	struct smbd_smb2_request *req = NULL;

	for (req = ch->xconn->smb2.requests; req != NULL; req = req->next) {
		int ret;

		if (req->durable != NULL) {
			continue;
		}
		ret = ds_save_new_slot(req, 0, NULL, 0);
		if (ret != 0) {
			return ret;
		}
	}
	return 0;
}

/*
 * A PDU whose length was being read into smbd's own memory
 */
static void ds_save_move_header(struct ds_save_channel *ch)
{
	struct smbd_smb2_request_read_state *state =
		&ch->xconn->smb2.request_read_state;
	uint8_t *nbt = ch->block->nbt;

	if ((state->pktbuf != NULL) || (state->nbt == nbt)) {
		return;
	}
	memcpy(nbt, state->nbt, NBT_HDR_SIZE);
	state->vector[0].iov_base = nbt + NBT_HDR_SIZE -
				    state->vector[0].iov_len;
	state->nbt = nbt;
}

/*
 * A connection that is new has read nothing, and one that is not stands
 * where the kernel says; bytes of a PDU that is not complete do not count.
 */
static int ds_save_position(struct ds_save_channel *ch,
			    const struct ds_resume_channel *resumed)
{
	struct smbXsrv_connection *xconn = ch->xconn;
	struct smbd_smb2_request_read_state *state =
		&xconn->smb2.request_read_state;
	uint64_t partial = 0;
	int ret;

	if (!ds_connection_is_smb2(xconn)) {
		return 0;
	}
	ret = ds_stream_position(xconn->transport.sock,
				 &ch->stream.received,
				 &ch->stream.completed);
	if (ret != 0) {
		return ret;
	}
	if (state->req != NULL) {
		ds_save_move_header(ch);
		partial = (state->pktbuf != NULL) ?
			NBT_HDR_SIZE + state->pktlen : NBT_HDR_SIZE;
		partial -= iov_buflen(state->vector, state->count);
	}
	if (resumed != NULL) {
		/* smbd has not been told yet */
		partial += resumed->whole;
	}
	ch->stream.received -= partial;
	/* ids above this one may have been used */
	ch->next_mid = xconn->smb2.credits.seq_low +
		       xconn->smb2.credits.seq_range;
	if (state->pktbuf != NULL) {
		ds_save_reading(xconn, state->pktbuf, state->pktfull);
		if (resumed != NULL) {
			ch->block->reading.crashes = resumed->whole_crashes;
		}
	}
	return 0;
}

static int ds_save_start_channel(struct smbXsrv_connection *xconn,
				 const struct ds_resume *resume)
{
	const struct smbd_smb2_request *answered = NULL;
	struct ds_save_channel *ch = ds_save_new_channel(xconn);
	bool new = false;
	int ret;

	if (ch == NULL) {
		return ENOMEM;
	}
	ret = ds_save_position(ch, ds_resume_find(resume, xconn));
	if (ret == 0) {
		ret = ds_save_old_requests(ch);
	}
	if (ret == 0) {
		/* what came along and was not sent before */
		ret = ds_save_put_queue(ch, &new, &answered);
	}
	return ret;
}

int ds_save_start(struct smbd_server_connection *sconn,
		  const struct ds_resume *resume,
		  const char *former)
{
	struct smbXsrv_connection *xconn = NULL;
	int ret;

	if (ds_save == NULL) {
		return ENOMEM;
	}
	if (ds_save->image != NULL) {
		return 0;
	}
	ret = ds_image_create(ds_save, &ds_save->image);
	if (ret != 0) {
		goto fail;
	}
	ds_save->cap = talloc_zero(ds_save, struct ds_capture);
	if (ds_save->cap == NULL) {
		ret = ENOMEM;
		goto fail;
	}
	ds_save->cap->client = sconn->client;
	ds_save->cap->image = ds_save->image;
	ds_save->cap->live = true;

	for (xconn = sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		ret = ds_save_start_channel(xconn, resume);
		if (ret != 0) {
			goto fail;
		}
	}
	ret = ds_save_all();
	if (ret != 0) {
		goto fail;
	}
	ds_save_commit(0);
	ret = ds_save_hold(former);
	if (ret != 0) {
		goto fail;
	}
	return 0;
fail:
	ds_save_stop(strerror(ret));
	return ret;
}

static void ds_save_started_fn(struct tevent_context *ev,
			       struct tevent_immediate *im,
			       void *private_data)
{
	(void)ds_save_start(ds_save->sconn, NULL, NULL);
}

/*
 * A client of which nothing is known yet but its dialect: there is nothing to
 * be saved before, and while it reads the reply nobody waits for the keeper.
 */
static void ds_save_begin(struct smbXsrv_connection *xconn)
{
	if ((ds_save == NULL) || (ds_save->start != NULL) ||
	    (ds_save->reason != NULL))
	{
		return;
	}
	ds_save->start = tevent_create_immediate(ds_save);
	if (ds_save->start != NULL) {
		tevent_schedule_immediate(ds_save->start,
					  xconn->client->raw_ev_ctx,
					  ds_save_started_fn,
					  NULL);
	}
}
