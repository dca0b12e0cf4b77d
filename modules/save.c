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
#include "lib/util/iov_buf.h"
#include "durable_state/ndr_durable_state.h"
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "buffers.h"
#include "image.h"
#include "options.h"
#include "process.h"
#include "records.h"
#include "save.h"
#include "stream.h"

/* A keeper that does not answer must not keep clients waiting */
#define DS_KEEPER_TIMEOUT_MS 1000

/* A request that is not answered, or its answer is not saved */
struct ds_save_request {
	struct ds_save_request *prev, *next;
	struct smbd_smb2_request *req;
	uint64_t key;
	struct ds_received record;
};

static struct ds_save {
	struct smbd_server_connection *sconn;
	/* clients with several connections do not survive a crash yet */
	struct smbXsrv_connection *xconn;

	struct ds_image *image;
	struct ds_buffers *buffers;
	struct ds_capture *cap;

	struct ds_stream stream;
	/* behind the highest message id that was used */
	uint64_t next_mid;
	struct ds_reading reading;

	struct ds_save_request *requests;
	uint64_t next_key;
	/* sessions, tree connects or the connection changed */
	bool rewrite;

	/* for what is put together */
	uint8_t *scratch;
} *ds_save;

bool ds_save_running(void)
{
	return (ds_save != NULL) && (ds_save->image != NULL);
}

static bool ds_saves(const struct smbXsrv_connection *xconn)
{
	return ds_save_running() && (ds_save->xconn == xconn);
}

/*
 * From here on the client does not survive this process. What is in the
 * buffers may still be in use.
 */
static void ds_save_stop(const char *reason)
{
	DBG_NOTICE("The client will not survive a crash: %s\n", reason);
	if (ds_save->image != NULL) {
		ds_image_wipe(ds_save->image);
	}
	TALLOC_FREE(ds_save->cap);
	TALLOC_FREE(ds_save->image);
}

void ds_save_exit(void)
{
	if (ds_save_running()) {
		ds_image_wipe(ds_save->image);
		TALLOC_FREE(ds_save->image);
	}
}

static uint8_t *ds_save_scratch(size_t length)
{
	if (talloc_array_length(ds_save->scratch) < length) {
		TALLOC_FREE(ds_save->scratch);
		ds_save->scratch = talloc_array(
			ds_save, uint8_t, MAX(length, 4096));
	}
	return ds_save->scratch;
}

static int ds_save_put(uint32_t type,
		       uint64_t key,
		       const void *data,
		       size_t length)
{
	return ds_image_put(
		ds_save->image, type, key, data_blob_const(data, length));
}

/* ---- the streams */

/*
 * The window of message ids, with the ids in it that were used: none, as
 * long as a client uses them in their order.
 */
static int ds_save_put_stream(void)
{
	const struct smbXsrv_connection *xconn = ds_save->xconn;
	struct ds_stream *s = &ds_save->stream;
	uint64_t *seen = NULL;
	uint8_t *buf = NULL;
	uint64_t id;

	s->seq_low = xconn->smb2.credits.seq_low;
	s->seq_range = xconn->smb2.credits.seq_range;
	s->granted = xconn->smb2.credits.granted;
	s->num_seen = 0;
	if (ds_save->next_mid <= s->seq_low) {
		return ds_save_put(
			DS_RECORD_STREAM, s->channel_id, s, sizeof(*s));
	}

	buf = ds_save_scratch(sizeof(*s) + s->seq_range * sizeof(*seen));
	if (buf == NULL) {
		return ENOMEM;
	}
	seen = (uint64_t *)(buf + sizeof(*s));
	for (id = s->seq_low;
	     id < MIN(ds_save->next_mid, s->seq_low + s->seq_range);
	     id++)
	{
		if (bitmap_query(xconn->smb2.credits.bitmap,
				 id % xconn->smb2.credits.max))
		{
			seen[s->num_seen] = id;
			s->num_seen += 1;
		}
	}
	memcpy(buf, s, sizeof(*s));
	return ds_save_put(DS_RECORD_STREAM,
			   s->channel_id,
			   buf,
			   sizeof(*s) + s->num_seen * sizeof(*seen));
}

/* ---- replies */

/*
 * What is in the buffers is named, all else is copied.
 */
static int ds_save_put_reply(uint64_t begin,
			     const struct iovec *vector,
			     int count,
			     size_t length)
{
	struct ds_reply *reply = NULL;
	struct ds_segment *segments = NULL;
	uint8_t *buf = NULL;
	uint8_t *p = NULL;
	size_t copied = 0;
	uint64_t offset;
	int i;

	for (i = 0; i < count; i++) {
		if (!ds_buffers_find(ds_save->buffers,
				     vector[i].iov_base,
				     vector[i].iov_len,
				     &offset))
		{
			copied += vector[i].iov_len;
		}
	}
	buf = ds_save_scratch(sizeof(*reply) +
			      count * sizeof(*segments) + copied);
	if (buf == NULL) {
		return ENOMEM;
	}
	reply = (struct ds_reply *)buf;
	*reply = (struct ds_reply) {
		.channel_id = ds_save->stream.channel_id,
		.begin = begin,
		.length = length,
		.num_segments = count,
	};
	segments = (struct ds_segment *)(reply + 1);
	p = (uint8_t *)(segments + count);

	for (i = 0; i < count; i++) {
		segments[i] = (struct ds_segment) {
			.offset = DS_SEGMENT_INLINE,
			.length = vector[i].iov_len,
		};
		if (ds_buffers_find(ds_save->buffers,
				    vector[i].iov_base,
				    vector[i].iov_len,
				    &segments[i].offset))
		{
			continue;
		}
		segments[i].offset = DS_SEGMENT_INLINE;
		if (vector[i].iov_len != 0) {
			memcpy(p, vector[i].iov_base, vector[i].iov_len);
			p += vector[i].iov_len;
		}
	}
	return ds_save_put(DS_RECORD_REPLY, begin, buf, p - buf);
}

/* ---- all of the client, in a new log */

static int ds_save_put_requests(void)
{
	const struct ds_save_request *r = NULL;

	for (r = ds_save->requests; r != NULL; r = r->next) {
		int ret = ds_save_put(DS_RECORD_RECEIVED,
				      r->key,
				      &r->record,
				      sizeof(r->record));

		if (ret != 0) {
			return ret;
		}
	}
	return 0;
}

/*
 * What the kernel has not taken yet of replies that were saved: the end of
 * what was completed.
 */
static int ds_save_put_queue(void)
{
	struct smbd_smb2_send_queue *e = NULL;
	uint64_t begin = ds_save->stream.completed;

	for (e = ds_save->xconn->smb2.send_queue; e != NULL; e = e->next) {
		if (e->durable) {
			begin -= iov_buflen(e->vector, e->count);
		}
	}
	for (e = ds_save->xconn->smb2.send_queue; e != NULL; e = e->next) {
		size_t length = iov_buflen(e->vector, e->count);
		int ret;

		if (!e->durable) {
			continue;
		}
		ret = ds_save_put_reply(begin, e->vector, e->count, length);
		if (ret != 0) {
			return ret;
		}
		begin += length;
	}
	return 0;
}

/*
 * Staged, as all else: the caller commits.
 */
static int ds_save_all(void)
{
	const char *reason = NULL;
	NTSTATUS status;
	int ret;

	if (ds_protection(ds_save->sconn, &reason) == DS_UNPROTECTED) {
		ds_save_stop(reason);
		return 0;
	}
	ds_save->rewrite = false;
	ds_image_rewrite(ds_save->image);

	status = ds_capture_objects(ds_save->cap, 0);
	if (!NT_STATUS_IS_OK(status)) {
		return map_errno_from_nt_status(status);
	}
	ret = ds_save_put_stream();
	if (ret != 0) {
		return ret;
	}
	if (ds_save->reading.received == ds_save->stream.received) {
		ret = ds_save_put(DS_RECORD_READING,
				  ds_save->stream.channel_id,
				  &ds_save->reading,
				  sizeof(ds_save->reading));
		if (ret != 0) {
			return ret;
		}
	}
	ret = ds_save_put_requests();
	if (ret != 0) {
		return ret;
	}
	return ds_save_put_queue();
}

/*
 * The end of a save point: what was staged is valid, or the image is not.
 */
static void ds_save_commit(int ret)
{
	if (!ds_save_running()) {
		return;
	}
	if (ret != 0) {
		ds_save_stop(strerror(ret));
		return;
	}
	ds_image_commit(ds_save->image);
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

static void ds_save_set_reading(const uint8_t *pdu, size_t len)
{
	ds_save->reading = (struct ds_reading) {
		.received = ds_save->stream.received,
		.length = len,
	};
	if (!ds_buffers_find(ds_save->buffers,
			     pdu,
			     len,
			     &ds_save->reading.offset))
	{
		/* a crash in the middle of it is one too many */
		ds_save->reading.received = UINT64_MAX;
	}
}

void ds_save_reading(struct smbXsrv_connection *xconn,
		     const uint8_t *pdu,
		     size_t len)
{
	if (!ds_saves(xconn)) {
		return;
	}
	ds_save_set_reading(pdu, len);
	ds_save_commit(ds_save_put(DS_RECORD_READING,
				   ds_save->stream.channel_id,
				   &ds_save->reading,
				   sizeof(ds_save->reading)));
}

/*
 * It needs no answer, or will never get one.
 */
static int ds_save_request_destructor(struct ds_save_request *r)
{
	DLIST_REMOVE(ds_save->requests, r);
	if (ds_save_running()) {
		ds_save_commit(ds_image_remove(
			ds_save->image, DS_RECORD_RECEIVED, r->key));
	}
	return 0;
}

static struct ds_save_request *ds_save_new_request(
	struct smbd_smb2_request *req, const uint8_t *pdu, size_t len)
{
	struct ds_save_request *r = talloc(req, struct ds_save_request);

	if (r == NULL) {
		return NULL;
	}
	ds_save->next_key += 1;
	*r = (struct ds_save_request) {
		.req = req,
		.key = ds_save->next_key,
		.record = {
			.channel_id = ds_save->stream.channel_id,
			.length = len,
			.request_time = timeval_to_nttime(&req->request_time),
		},
	};
	if (!ds_buffers_find(
		    ds_save->buffers, pdu, len, &r->record.offset))
	{
		r->record.flags |= DS_RECEIVED_LOST;
	}
	DLIST_ADD_END(ds_save->requests, r);
	talloc_set_destructor(r, ds_save_request_destructor);
	req->durable = r;
	return r;
}

uint8_t *ds_save_received(struct smbd_smb2_request *req,
			  uint8_t *pdu,
			  size_t len)
{
	struct ds_save_request *r = NULL;
	int ret;

	if (!ds_saves(req->xconn)) {
		return pdu;
	}
	r = ds_save_new_request(req, pdu, len);
	if (r == NULL) {
		ds_save_stop("out of memory");
		return pdu;
	}
	ds_save->stream.received += NBT_HDR_SIZE + len;

	ret = ds_save_put(
		DS_RECORD_RECEIVED, r->key, &r->record, sizeof(r->record));
	if (ret == 0) {
		ret = ds_save_put_stream();
	}
	ds_save_commit(ret);

	if ((len >= 4) && (IVAL(pdu, 0) == SMB2_TF_MAGIC)) {
		/* decrypted in place, and a crash may be in the middle */
		return talloc_memdup(req, pdu, len);
	}
	return pdu;
}

void ds_save_started(struct smbd_smb2_request *req)
{
	struct ds_save_request *r = req->durable;
	int idx;
	int ret;

	if (!ds_saves(req->xconn) || (r == NULL)) {
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
			ds_save->next_mid = MAX(
				ds_save->next_mid,
				BVAL(inhdr, SMB2_HDR_MESSAGE_ID) + charge);
		}
	}

	r->record.flags |= DS_RECEIVED_STARTED;
	if (ds_image_is_long(ds_save->image)) {
		ret = ds_save_all();
	} else {
		ret = ds_save_put(DS_RECORD_RECEIVED,
				  r->key,
				  &r->record,
				  sizeof(r->record));
		if (ret == 0) {
			ret = ds_save_put_stream();
		}
	}
	ds_save_commit(ret);
}

/* ---- completed */

static int ds_save_put_open(struct files_struct *fsp)
{
	NTSTATUS status;

	if ((fsp->op == NULL) || fsp_is_np(fsp)) {
		return 0;
	}
	status = ds_capture_open(ds_save->cap, fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return map_errno_from_nt_status(status);
	}
	ds_vfs_saved(fsp);
	return 0;
}

void ds_save_closed(uint64_t persistent_id)
{
	if (ds_save_running()) {
		/* valid with the next commit: before the answer is sent */
		int ret = ds_image_remove(
			ds_save->image, DS_RECORD_OPEN, persistent_id);

		if (ret != 0) {
			ds_save_stop(strerror(ret));
		}
	}
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

static bool ds_save_has_break(struct files_struct *fsp)
{
	return (fsp->oplock_type != NO_OPLOCK);
}

/*
 * What a request may have changed
 */
static int ds_save_put_changes(struct smbd_smb2_request *req, int idx)
{
	const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, idx)->iov_base;
	struct files_struct *fsp = req->compat_chain_fsp;

	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_NEGPROT:
	case SMB2_OP_SESSSETUP:
	case SMB2_OP_LOGOFF:
	case SMB2_OP_TCON:
	case SMB2_OP_TDIS:
		ds_save->rewrite = true;
		return 0;
	case SMB2_OP_CREATE:
		return ds_save_put_opens(NULL);
	case SMB2_OP_CLOSE:
	case SMB2_OP_KEEPALIVE:
	case SMB2_OP_CANCEL:
	case SMB2_OP_GETINFO:
		return 0;
	case SMB2_OP_BREAK:
		return ds_save_put_opens(ds_save_has_break);
	case SMB2_OP_READ:
	case SMB2_OP_WRITE:
	case SMB2_OP_FLUSH:
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
static int ds_save_put_interim(void)
{
	struct ds_save_request *r = NULL;

	for (r = ds_save->requests; r != NULL; r = r->next) {
		const uint8_t *outhdr = SMBD_SMB2_OUT_HDR_PTR(r->req);
		int ret;

		if (r->record.flags & DS_RECEIVED_INTERIM) {
			continue;
		}
		if (!(IVAL(outhdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC)) {
			continue;
		}
		r->record.flags |= DS_RECEIVED_INTERIM;
		r->record.async_id = BVAL(outhdr, SMB2_HDR_ASYNC_ID);
		if (r->req->in.vector_count > 1 + SMBD_SMB2_NUM_IOV_PER_REQ) {
			r->record.flags |= DS_RECEIVED_LOST;
		}
		ret = ds_save_put(DS_RECORD_RECEIVED,
				  r->key,
				  &r->record,
				  sizeof(r->record));
		if (ret != 0) {
			return ret;
		}
	}
	return 0;
}

static int ds_save_put_answer(struct smbd_smb2_request *req)
{
	struct ds_save_request *r = req->durable;
	int idx;
	int ret;

	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		ret = ds_save_put_changes(req, idx);
		if (ret != 0) {
			return ret;
		}
	}
	if (r == NULL) {
		return 0;
	}
	req->durable = NULL;
	talloc_set_destructor(r, NULL);
	DLIST_REMOVE(ds_save->requests, r);
	ret = ds_image_remove(ds_save->image, DS_RECORD_RECEIVED, r->key);
	TALLOC_FREE(r);
	return ret;
}

static int ds_save_put_entry(struct smbd_smb2_send_queue *e)
{
	struct smbd_smb2_request *req = talloc_get_type(
		e->mem_ctx, struct smbd_smb2_request);
	size_t length = iov_buflen(e->vector, e->count);
	int ret;

	if ((req != NULL) && (&req->queue_entry == e) &&
	    (req->in.vector_count != 0))
	{
		ret = ds_save_put_answer(req);
	} else {
		ret = ds_save_put_interim();
		if (ret == 0) {
			/* or it is a break */
			ret = ds_save_put_opens(ds_save_has_break);
		}
	}
	if (ret != 0) {
		return ret;
	}
	ret = ds_save_put_reply(
		ds_save->stream.completed, e->vector, e->count, length);
	if (ret != 0) {
		return ret;
	}
	ds_save->stream.completed += length;
	e->durable = true;
	return 0;
}

void ds_save_completed(struct smbXsrv_connection *xconn)
{
	struct smbd_smb2_send_queue *e = NULL;
	bool new = false;
	int ret = 0;

	if (!ds_saves(xconn)) {
		return;
	}
	if (ds_save->sconn->client->connections->next != NULL) {
		ds_save_stop("it has several connections");
		return;
	}
	if (ds_save->stream.received == 0) {
		/* the first PDU, which smbd reads in a way of its own */
		uint64_t received;
		uint64_t completed;

		ret = ds_stream_position(
			xconn->transport.sock, &received, &completed);
		ds_save->stream.received = received;
		ds_save->stream.completed = completed;
	}

	for (e = xconn->smb2.send_queue; e != NULL; e = e->next) {
		if (e->durable) {
			continue;
		}
		if (e->sendfile_header != NULL) {
			ds_save_stop("sendfile");
			return;
		}
		new = true;
		if (ret == 0) {
			ret = ds_save_put_entry(e);
		}
	}
	if (!new) {
		return;
	}
	if (ret == 0) {
		ret = (ds_save->rewrite) ? ds_save_all() : ds_save_put_stream();
	}
	ds_save_commit(ret);
}

/* ---- begin */

int ds_save_hold(void)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct keeper_conn *keeper = NULL;
	json_t *info = NULL;
	char label[32];
	int fds[3];
	int ret;

	if (!ds_save_running()) {
		TALLOC_FREE(frame);
		return 0;
	}
	fds[0] = ds_image_fd(ds_save->image);
	fds[1] = ds_save->xconn->transport.sock;
	fds[2] = ds_buffers_fd(ds_save->buffers);

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
		ret = keeper_replace(
			keeper, label, info, fds, ARRAY_SIZE(fds));
	}
	json_decref(info);
	TALLOC_FREE(frame);
	return ret;
}

int ds_save_create(struct smbd_server_connection *sconn)
{
	int ret;

	ds_save = talloc_zero(NULL, struct ds_save);
	if (ds_save == NULL) {
		return ENOMEM;
	}
	ds_save->sconn = sconn;
	ret = ds_buffers_create(ds_save, &ds_save->buffers);
	if (ret != 0) {
		TALLOC_FREE(ds_save);
	}
	return ret;
}

const uint8_t *ds_save_again(struct smbd_smb2_request *req,
			     const uint8_t *pdu,
			     const struct ds_received *received)
{
	struct ds_save_request *r = NULL;
	uint8_t *copy = NULL;

	if (ds_save == NULL) {
		return pdu;
	}
	copy = ds_buffers_alloc(ds_save->buffers, req, received->length);
	if (copy == NULL) {
		return NULL;
	}
	memcpy(copy, pdu, received->length);

	r = ds_save_new_request(req, copy, received->length);
	if (r == NULL) {
		return NULL;
	}
	r->record.flags |= received->flags;
	r->record.async_id = received->async_id;
	r->record.crashes = received->crashes + 1;
	return copy;
}

/*
 * Requests that came along with a restart.
 */
static int ds_save_old_requests(void)
{
	struct smbd_smb2_request *req = NULL;

	for (req = ds_save->xconn->smb2.requests;
	     req != NULL;
	     req = req->next) {
		struct ds_save_request *r = req->durable;

		if (r == NULL) {
			r = ds_save_new_request(req, NULL, 0);
		}
		if (r == NULL) {
			return ENOMEM;
		}
		r->record.flags |= DS_RECEIVED_STARTED;
		r->record.channel_id = ds_save->stream.channel_id;
	}
	return 0;
}

/*
 * A connection that is new has read nothing, and one that is not stands
 * where the kernel says; bytes of a PDU that is not complete do not count.
 */
static int ds_save_position(void)
{
	struct smbXsrv_connection *xconn = ds_save->xconn;
	const struct smbd_smb2_request_read_state *state =
		&xconn->smb2.request_read_state;
	uint64_t partial = 0;
	int ret;

	if (!ds_connection_is_smb2(xconn)) {
		return 0;
	}
	ret = ds_stream_position(xconn->transport.sock,
				 &ds_save->stream.received,
				 &ds_save->stream.completed);
	if (ret != 0) {
		return ret;
	}
	if (state->req != NULL) {
		partial = (state->pktbuf != NULL) ?
			NBT_HDR_SIZE + state->pktlen : NBT_HDR_SIZE;
		partial -= iov_buflen(state->vector, state->count);
	}
	ds_save->stream.received -= partial;
	/* ids above this one may have been used */
	ds_save->next_mid = xconn->smb2.credits.seq_low +
			    xconn->smb2.credits.seq_range;
	if (state->pktbuf != NULL) {
		ds_save_set_reading(state->pktbuf, state->pktfull);
	}
	return 0;
}

int ds_save_start(struct smbd_server_connection *sconn)
{
	int ret;

	if (ds_save == NULL) {
		return ENOMEM;
	}
	ds_save->xconn = sconn->client->connections;
	ds_save->stream.channel_id = ds_save->xconn->channel_id;
	ds_save->reading.received = UINT64_MAX;

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

	ret = ds_save_position();
	if (ret != 0) {
		goto fail;
	}
	ret = ds_save_old_requests();
	if (ret != 0) {
		goto fail;
	}
	ret = ds_save_all();
	if (ret != 0) {
		goto fail;
	}
	ds_save_commit(0);
	ret = ds_save_hold();
	if (ret != 0) {
		goto fail;
	}
	return 0;
fail:
	ds_save_stop(strerror(ret));
	return ret;
}
