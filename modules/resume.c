/*
   durable_state: going on where a process was killed

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
#include "lib/util/bitmap.h"
#include "locking/share_mode_lock.h"
#include "dbwrap/dbwrap.h"
#include "locking/leases_db.h"
#include "librpc/gen_ndr/smbXsrv.h"
#include "smbd/smbXsrv_open.h"
#include "durable_state/ndr_durable_state.h"
#include "effect.h"
#include "process.h"
#include "records.h"
#include "resume.h"
#include "save.h"
#include "stream.h"

/* Processes that may end over one request before it is given up */
#define DS_RESUME_CRASHES 3

/* No reply is as long: 24 bits are on the wire */
#define DS_REPLY_MAX 0x1ffffff

static const void *ds_resume_at(const struct ds_resume *resume,
				uint64_t offset,
				size_t length)
{
	if (offset % 8 != 0) {
		return NULL;
	}
	return ds_buffers_at(resume->buffers, offset, length);
}

struct ds_resume_channel *ds_resume_find(
	const struct ds_resume *resume, const struct smbXsrv_connection *xconn)
{
	size_t i;

	for (i = 0; (resume != NULL) && (i < resume->num_channels); i++) {
		if (resume->channels[i].xconn == xconn) {
			return &resume->channels[i];
		}
	}
	return NULL;
}

/*
 * NULL: that connection has ended.
 */
static struct ds_resume_channel *ds_resume_by_id(struct ds_restore *restore,
						 uint64_t channel_id)
{
	struct smbXsrv_connection *xconn = ds_find_channel(
		restore->client, channel_id);

	return (xconn != NULL) ? ds_resume_find(restore->resume, xconn) : NULL;
}

static bool ds_resume_place(DATA_BLOB data, struct ds_place *place)
{
	if (data.length != sizeof(*place)) {
		return false;
	}
	memcpy(place, data.data, sizeof(*place));
	return true;
}

/*
 * What was read of the next PDU
 */
static const char *ds_resume_pdu_name(const uint8_t *pdu, size_t len)
{
	if ((len < SMB2_HDR_BODY) || (IVAL(pdu, 0) != SMB2_MAGIC)) {
		return "encrypted";
	}
	return smb2_opcode_name(SVAL(pdu, SMB2_HDR_OPCODE));
}

static NTSTATUS ds_resume_reading(struct ds_restore *restore,
				  struct ds_resume_channel *rc,
				  const struct ds_channel *channel)
{
	const struct ds_resume *resume = restore->resume;
	const struct ds_reading *reading = &channel->reading;
	struct smbXsrv_connection *xconn = rc->xconn;
	uint64_t got = rc->read - rc->stream.received;
	const uint8_t *pdu = NULL;
	NTSTATUS status;

	if (got == 0) {
		return NT_STATUS_OK;
	}
	status = ds_restore_incoming(
		xconn,
		data_blob_const(channel->nbt, MIN(got, NBT_HDR_SIZE)));
	if (!NT_STATUS_IS_OK(status) || (got <= NBT_HDR_SIZE)) {
		return status;
	}

	got -= NBT_HDR_SIZE;
	pdu = ds_buffers_at(resume->buffers, reading->offset, reading->length);
	if ((pdu == NULL) || (reading->received != rc->stream.received) ||
	    (reading->length != xconn->smb2.request_read_state.pktfull) ||
	    (got > reading->length))
	{
		DBG_ERR("%" PRIu64 " bytes of a PDU were read and are not in "
			"the image\n",
			got);
		return NT_STATUS_DATA_ERROR;
	}
	if (got < reading->length) {
		return ds_restore_incoming(xconn, data_blob_const(pdu, got));
	}

	/* smbd processes it at once when it is told */
	if (xconn->smb2.request_read_state.pktlen != got) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	if (reading->crashes + 1 >= DS_RESUME_CRASHES) {
		restore->reason = talloc_asprintf(
			restore,
			"%d processes have ended over one PDU (%s, %" PRIu64
			" bytes) before it could be run",
			DS_RESUME_CRASHES,
			ds_resume_pdu_name(pdu, got),
			got);
		return NT_STATUS_CANNOT_MAKE;
	}
	memcpy(xconn->smb2.request_read_state.pktbuf, pdu, got);
	rc->whole = got;
	rc->whole_crashes = reading->crashes + 1;
	return NT_STATUS_OK;
}

/*
 * What of a reply the kernel has not taken
 */
static NTSTATUS ds_resume_reply(const struct ds_resume *resume,
				const struct ds_resume_channel *rc,
				const struct ds_reply *reply)
{
	const struct ds_segment *segments =
		(const struct ds_segment *)(reply + 1);
	uint32_t num = reply->num_segments;
	DATA_BLOB out = data_blob_null;
	const uint8_t *p = NULL;
	size_t left;
	size_t ofs = 0;
	size_t skip;
	uint32_t i;
	NTSTATUS status = NT_STATUS_INVALID_PARAMETER;

	if ((reply->length > rc->stream.completed - reply->begin) ||
	    (reply->length > DS_REPLY_MAX) ||
	    (num > (reply->size - sizeof(*reply)) / sizeof(*segments)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	p = (const uint8_t *)(segments + num);
	left = reply->size - sizeof(*reply) - num * sizeof(*segments);

	out = data_blob_talloc(talloc_tos(), NULL, reply->length);
	if (out.data == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	for (i = 0; i < num; i++) {
		size_t length = segments[i].length;
		const uint8_t *from = NULL;

		if (length > out.length - ofs) {
			goto done;
		}
		if (segments[i].offset != DS_SEGMENT_INLINE) {
			from = ds_buffers_at(resume->buffers,
					     segments[i].offset,
					     length);
		} else if (length <= left) {
			from = p;
			p += length;
			left -= length;
		}
		if (from == NULL) {
			goto done;
		}
		memcpy(out.data + ofs, from, length);
		ofs += length;
	}
	if (ofs != out.length) {
		goto done;
	}

	skip = (rc->written > reply->begin) ?
		rc->written - reply->begin : 0;
	status = ds_restore_outgoing(
		rc->xconn,
		data_blob_const(out.data + skip, out.length - skip));
done:
	data_blob_free(&out);
	return status;
}

/*
 * From the first reply that was not sent to the last one that counts
 */
static NTSTATUS ds_resume_replies(const struct ds_resume *resume,
				  const struct ds_resume_channel *rc)
{
	uint64_t offset = rc->stream.replies;
	uint64_t queued = rc->written;
	uint64_t before = 0;

	if (rc->written > rc->stream.completed) {
		DBG_ERR("%" PRIu64 " bytes were written, the image knows of "
			"%" PRIu64 "\n",
			rc->written,
			rc->stream.completed);
		return NT_STATUS_DATA_ERROR;
	}
	while (queued < rc->stream.completed) {
		const struct ds_reply *reply = NULL;
		NTSTATUS status;

		reply = ds_resume_at(resume, offset, sizeof(*reply));
		if ((reply == NULL) || (reply->size < sizeof(*reply)) ||
		    (ds_resume_at(resume, offset, reply->size) == NULL) ||
		    /* one in between is missing, or they go in circles */
		    (reply->begin > queued) || (reply->begin < before) ||
		    (reply->length == 0))
		{
			DBG_ERR("of the replies up to %" PRIu64 " there is "
				"none behind %" PRIu64 "\n",
				rc->stream.completed,
				queued);
			return NT_STATUS_DATA_ERROR;
		}
		before = reply->begin + 1;
		offset = reply->next;
		if (reply->begin + reply->length <= queued) {
			continue;
		}
		status = ds_resume_reply(resume, rc, reply);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
		queued = reply->begin + reply->length;
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_channel(struct ds_restore *restore,
			   uint64_t channel_id,
			   DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct ds_resume_channel *rc = NULL;
	struct smbXsrv_connection *xconn = NULL;
	const struct ds_channel *channel = NULL;
	const struct ds_stream *s = NULL;
	struct ds_place place;
	uint64_t id;
	NTSTATUS status;
	int ret;

	if ((resume == NULL) || !ds_resume_place(data, &place)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	channel = ds_resume_at(resume, place.offset, sizeof(*channel));
	if (channel == NULL) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	xconn = ds_find_channel(restore->client, channel_id);
	if (xconn == NULL) {
		/* the client has closed it; its sessions have others */
		return NT_STATUS_OK;
	}
	rc = talloc_realloc(resume,
			    resume->channels,
			    struct ds_resume_channel,
			    resume->num_channels + 1);
	if (rc == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	resume->channels = rc;
	rc += resume->num_channels;
	resume->num_channels += 1;

	s = &channel->stream[resume->side];
	*rc = (struct ds_resume_channel) { .xconn = xconn, };
	ret = ds_stream_position(
		xconn->transport.sock, &rc->read, &rc->written);
	if (ret != 0) {
		return map_nt_error_from_unix_common(ret);
	}
	if (!ds_connection_is_smb2(xconn)) {
		/* nothing was said, or all of it is lost */
		return (rc->read == 0) ? NT_STATUS_OK : NT_STATUS_DATA_ERROR;
	}
	rc->stream = *s;
	if ((s->seq_range > xconn->smb2.credits.max) ||
	    (s->granted > xconn->smb2.credits.max))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	if (s->received > rc->read) {
		DBG_ERR("%" PRIu64 " bytes were read, the image knows of "
			"%" PRIu64 "\n",
			rc->read,
			s->received);
		return NT_STATUS_DATA_ERROR;
	}

	for (id = 0; id < xconn->smb2.credits.max; id++) {
		bitmap_clear(xconn->smb2.credits.bitmap, id);
	}
	xconn->smb2.credits.seq_low = s->seq_low;
	xconn->smb2.credits.seq_range = s->seq_range;
	xconn->smb2.credits.granted = s->granted;

	status = ds_resume_reading(restore, rc, channel);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	return ds_resume_replies(resume, rc);
}

NTSTATUS ds_resume_seen(struct ds_restore *restore,
			uint64_t channel_id,
			DATA_BLOB data)
{
	const struct ds_resume_channel *rc = ds_resume_by_id(
		restore, channel_id);
	uint64_t id;
	size_t i;

	if ((rc == NULL) || (rc->stream.num_seen == 0)) {
		/* from a time when there were some */
		return NT_STATUS_OK;
	}
	if (rc->stream.num_seen != data.length / sizeof(id)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	for (i = 0; i < rc->stream.num_seen; i++) {
		memcpy(&id, data.data + i * sizeof(id), sizeof(id));
		bitmap_set(rc->xconn->smb2.credits.bitmap,
			   id % rc->xconn->smb2.credits.max);
	}
	return NT_STATUS_OK;
}

/*
 * Has a request the same result when it is run again? Names that it may have
 * made are not there any more (effect.h), and the locks are those from before
 * (open.c).
 */
static bool ds_resume_again(const struct smbd_smb2_request *req, int idx)
{
	const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, idx)->iov_base;
	const struct iovec *iov = SMBD_SMB2_IOV_IDX_OFS(
		req, in, idx, SMBD_SMB2_BODY_IOV_OFS);
	const uint8_t *body = iov->iov_base;

	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_WRITE:
		/* -1 is the end of the file, wherever it is */
		return (iov->iov_len < 0x30) ||
		       (BVAL(body, 0x08) != VFS_PWRITE_APPEND_OFFSET);
	default:
		return true;
	}
}

/*
 * [MS-SMB2] 2.2: where a command has its FileId; 0: nowhere
 */
static size_t ds_resume_file_id(uint16_t opcode)
{
	switch (opcode) {
	case SMB2_OP_CLOSE:
	case SMB2_OP_FLUSH:
	case SMB2_OP_LOCK:
	case SMB2_OP_IOCTL:
	case SMB2_OP_QUERY_DIRECTORY:
	case SMB2_OP_NOTIFY:
	case SMB2_OP_BREAK:
		return 0x08;
	case SMB2_OP_READ:
	case SMB2_OP_WRITE:
	case SMB2_OP_SETINFO:
		return 0x10;
	case SMB2_OP_GETINFO:
		return 0x18;
	}
	return 0;
}

static const char *ds_resume_open_name(struct ds_restore *restore,
				       uint64_t persistent_id)
{
	const char *name = NULL;
	size_t pos = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;

	while (ds_image_next(restore->image, &pos, &type, &key, &data)) {
		struct ds_open open;
		enum ndr_err_code ndr_err;

		if ((type != DS_RECORD_OPEN) || (key != persistent_id)) {
			continue;
		}
		ndr_err = ndr_pull_struct_blob(
			&data,
			restore,
			&open,
			(ndr_pull_flags_fn_t)ndr_pull_ds_open);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			name = open.base_name;
		}
		break;
	}
	return name;
}

/*
 * For an administrator: which file a request is about. "" if it is about none
 */
static const char *ds_resume_file(struct ds_restore *restore,
				  const struct smbd_smb2_request *req,
				  int idx)
{
	const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, idx)->iov_base;
	const struct iovec *body = SMBD_SMB2_IOV_IDX_OFS(
		req, in, idx, SMBD_SMB2_BODY_IOV_OFS);
	const struct iovec *dyn = SMBD_SMB2_IOV_IDX_OFS(
		req, in, idx, SMBD_SMB2_DYN_IOV_OFS);
	uint16_t opcode = SVAL(inhdr, SMB2_HDR_OPCODE);
	size_t offset = ds_resume_file_id(opcode);
	const char *name = NULL;
	char *path = NULL;
	size_t len;

	if ((opcode == SMB2_OP_CREATE) && (body->iov_len >= 0x38)) {
		len = SVAL((const uint8_t *)body->iov_base, 0x2E);
		if (convert_string_talloc(restore,
					  CH_UTF16,
					  CH_UNIX,
					  dyn->iov_base,
					  MIN(len, dyn->iov_len),
					  &path,
					  &len))
		{
			name = path;
		}
	} else if ((offset != 0) && (body->iov_len >= offset + 0x10)) {
		name = ds_resume_open_name(
			restore,
			BVAL((const uint8_t *)body->iov_base, offset));
	}
	return (name != NULL) ?
		talloc_asprintf(restore, " of \"%s\"", name) : "";
}

static NTSTATUS ds_resume_check(struct ds_restore *restore,
				const struct smbd_smb2_request *req,
				const struct ds_slot *slot)
{
	int idx;

	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(
			req, in, idx)->iov_base;
		uint16_t opcode = SVAL(inhdr, SMB2_HDR_OPCODE);
		const char *name = smb2_opcode_name(opcode);

		if (opcode == SMB2_OP_CREATE) {
			restore->resume->creates = true;
		}
		if (slot->crashes >= DS_RESUME_CRASHES) {
			restore->reason = talloc_asprintf(
				restore,
				"%" PRIu32 " processes have ended over one "
				"%s%s, it is not run again",
				slot->crashes,
				name,
				ds_resume_file(restore, req, idx));
			return NT_STATUS_CANNOT_MAKE;
		}
		if ((slot->flags & DS_SLOT_LOST) ||
		    !ds_resume_again(req, idx))
		{
			restore->reason = talloc_asprintf(
				restore,
				"%s%s was being processed, and cannot be run "
				"again",
				name,
				ds_resume_file(restore, req, idx));
			return NT_STATUS_NOT_SUPPORTED;
		}
		if (opcode < ARRAY_SIZE(restore->again)) {
			restore->again[opcode] += 1;
		}
	}
	return NT_STATUS_OK;
}

/*
 * The first parts of a compound were answered when one of them had to wait,
 * as smbd_smb2_request_pending_queue() does it.
 */
static NTSTATUS ds_resume_parts(struct smbd_smb2_request *req,
				const struct ds_slot *slot)
{
	size_t first = 1 + slot->num_parts * SMBD_SMB2_NUM_IOV_PER_REQ;
	size_t num = req->in.vector_count;

	if (slot->parts == 0) {
		return NT_STATUS_OK;
	}
	if ((slot->num_parts >= num) || (first >= num)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	memmove(&req->in.vector[1],
		&req->in.vector[first],
		(num - first) * sizeof(req->in.vector[0]));
	req->in.vector_count = 1 + num - first;
	req->last_session_id = slot->last_session_id;
	req->last_tid = slot->last_tid;
	return NT_STATUS_OK;
}

void ds_resume_chain(struct smbd_smb2_request *req)
{
	const struct ds_slot *slot = req->durable;
	struct files_struct *fsp = NULL;

	if ((slot == NULL) || (slot->parts == 0) || (slot->chain_open == 0)) {
		return;
	}
	for (fsp = req->sconn->files; fsp != NULL; fsp = fsp->next) {
		if ((fsp->op != NULL) &&
		    (fsp->op->global->open_persistent_id == slot->chain_open))
		{
			req->compat_chain_fsp = fsp;
			break;
		}
	}
}

static NTSTATUS ds_resume_request(struct ds_restore *restore,
				  struct smbXsrv_connection *xconn,
				  const struct ds_slot *slot)
{
	struct ds_resume *resume = restore->resume;
	struct smbd_smb2_request *req = NULL;
	const uint8_t *old = NULL;
	uint8_t *pdu = NULL;
	const uint8_t *buf = NULL;
	NTSTATUS status;

	old = ds_buffers_at(resume->buffers, slot->offset, slot->length);
	if ((old == NULL) || (slot->length == 0)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	req = smbd_smb2_request_allocate(xconn);
	if (req == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	nttime_to_timeval(&req->request_time, slot->request_time);

	buf = ds_save_again(req, old, slot);
	pdu = (buf != NULL) ? talloc_memdup(req, buf, slot->length) : NULL;
	if (pdu == NULL) {
		TALLOC_FREE(req);
		return NT_STATUS_NO_MEMORY;
	}

	status = smbd_smb2_inbuf_parse_compound(xconn,
						slot->request_time,
						pdu,
						slot->length,
						req,
						&req->in.vector,
						&req->in.vector_count);
	if (NT_STATUS_IS_OK(status)) {
		status = ds_resume_parts(req, slot);
	}
	if (NT_STATUS_IS_OK(status)) {
		/* its message ids are counted */
		req->current_idx = 1;
		status = ds_resume_check(restore, req, slot);
	}
	if (NT_STATUS_IS_OK(status)) {
		status = smbd_smb2_request_setup_out(req);
	}
	if (!NT_STATUS_IS_OK(status)) {
		TALLOC_FREE(req);
		return status;
	}
	if (slot->interim != 0) {
		uint8_t *outhdr = SMBD_SMB2_OUT_HDR_PTR(req);

		SIVAL(outhdr,
		      SMB2_HDR_FLAGS,
		      IVAL(outhdr, SMB2_HDR_FLAGS) | SMB2_HDR_FLAG_ASYNC);
		SBVAL(outhdr, SMB2_HDR_ASYNC_ID, slot->async_id);
	}
	if (slot->parts != 0) {
		uint8_t *outhdr = SMBD_SMB2_OUT_HDR_PTR(req);

		if (req->in.vector_count == 1 + SMBD_SMB2_NUM_IOV_PER_REQ) {
			SIVAL(outhdr,
			      SMB2_HDR_FLAGS,
			      IVAL(outhdr, SMB2_HDR_FLAGS) &
				      ~SMB2_HDR_FLAG_CHAINED);
		}
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_slots(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	const struct ds_slot *slots = NULL;
	struct ds_place place;
	uint64_t i;

	if ((resume == NULL) || !ds_resume_place(data, &place) ||
	    (place.num > UINT32_MAX / sizeof(*slots)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	slots = ds_resume_at(
		resume, place.offset, place.num * sizeof(*slots));
	if (slots == NULL) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	for (i = 0; i < place.num; i++) {
		const struct ds_resume_channel *rc = NULL;
		struct ds_slot slot = slots[i];
		NTSTATUS status;

		if (!(slot.flags & DS_SLOT_USED) ||
		    (slot.flags & DS_SLOT_RECORD)) {
			continue;
		}
		rc = ds_resume_by_id(restore, slot.channel_id);
		if ((rc == NULL) || (slot.begin >= rc->stream.received) ||
		    ((slot.answered != 0) &&
		     (slot.answered <= rc->stream.completed)))
		{
			continue;
		}
		if (slot.interim > rc->stream.completed) {
			/* it was never sent */
			slot.interim = 0;
		}
		if (slot.parts > rc->stream.completed) {
			slot.parts = 0;
		}
		if (slot.interim == 0) {
			/* those that wait for others are not the reason */
			slot.crashes += 1;
		}
		status = ds_resume_request(restore, rc->xconn, &slot);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_effect(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct ds_effect *effects = NULL;
	enum ndr_err_code ndr_err;

	if (resume == NULL) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	effects = talloc_realloc(resume,
				 resume->effects,
				 struct ds_effect,
				 resume->num_effects + 1);
	if (effects == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	resume->effects = effects;
	ndr_err = ndr_pull_struct_blob_all(
		&data,
		resume,
		&effects[resume->num_effects],
		(ndr_pull_flags_fn_t)ndr_pull_ds_effect);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		return ndr_map_error2ntstatus(ndr_err);
	}
	resume->num_effects += 1;
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_missed(struct ds_resume *resume,
			  struct files_struct *fsp)
{
	struct files_struct **missed = talloc_realloc(
		resume,
		resume->missed,
		struct files_struct *,
		resume->num_missed + 1);

	if (missed == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	missed[resume->num_missed] = fsp;
	resume->missed = missed;
	resume->num_missed += 1;
	return NT_STATUS_OK;
}

bool ds_resume_has_missed(const struct ds_resume *resume,
			  const struct files_struct *fsp)
{
	size_t i;

	for (i = 0; i < resume->num_missed; i++) {
		if (resume->missed[i] == fsp) {
			return true;
		}
	}
	return false;
}

struct ds_resume_forget_state {
	const struct ds_restore *restore;
	struct ds_resume_left {
		uint64_t persistent_id;
		struct server_id server_id;
	} *left;
};

static int ds_resume_forget_fn(struct db_record *rec,
			       struct smbXsrv_open_global0 *global,
			       void *private_data)
{
	struct ds_resume_forget_state *state = private_data;
	size_t num = talloc_array_length(state->left);

	if (!ds_restore_is_former(state->restore, &global->server_id)) {
		return 0;
	}
	state->left = talloc_realloc(
		talloc_tos(), state->left, struct ds_resume_left, num + 1);
	if (state->left == NULL) {
		return -1;
	}
	state->left[num] = (struct ds_resume_left) {
		.persistent_id = global->open_persistent_id,
		.server_id = global->server_id,
	};
	return 0;
}

void ds_resume_forget(struct ds_restore *restore)
{
	struct ds_resume_forget_state state = { .restore = restore, };
	size_t i;

	if (restore->resume == NULL) {
		return;
	}
	if (!restore->resume->creates && (restore->num_closed == 0) &&
	    (restore->num_former == 1))
	{
		return;
	}
	(void)smbXsrv_open_global_traverse(ds_resume_forget_fn, &state);
	for (i = 0; i < talloc_array_length(state.left); i++) {
		(void)smbXsrv_open_cleanup_killed(
			state.left[i].persistent_id, &state.left[i].server_id);
	}
	TALLOC_FREE(state.left);

	ds_restore_forget_opens(restore);
}

void ds_resume_undo(struct ds_restore *restore)
{
	struct ds_resume *resume = restore->resume;

	/* the last one first */
	while ((resume != NULL) && (resume->num_effects > 0)) {
		resume->num_effects -= 1;
		ds_effect_undo(restore, &resume->effects[resume->num_effects]);
	}
}

static bool ds_request_closes(const struct smbd_smb2_request *req,
			      uint64_t volatile_id)
{
	int idx;

	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(
			req, in, idx)->iov_base;
		const struct iovec *iov = SMBD_SMB2_IOV_IDX_OFS(
			req, in, idx, SMBD_SMB2_BODY_IOV_OFS);
		const uint8_t *body = iov->iov_base;

		switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
		case SMB2_OP_LOGOFF:
		case SMB2_OP_TDIS:
			return true;
		case SMB2_OP_CLOSE:
			if ((iov->iov_len >= 0x18) &&
			    (BVAL(body, 0x10) == volatile_id))
			{
				return true;
			}
			break;
		}
	}
	return false;
}

static bool ds_resume_is_closing(struct ds_restore *restore,
				 uint64_t volatile_id)
{
	const struct smbXsrv_connection *xconn = NULL;
	const struct smbd_smb2_request *req = NULL;

	if (restore->resume == NULL) {
		return false;
	}
	for (xconn = restore->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		for (req = xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			if (ds_request_closes(req, volatile_id)) {
				return true;
			}
		}
	}
	return false;
}

/*
 * [MS-SMB2] 2.2.16: of a file that is still there with its attributes
 */
static void ds_resume_close_body(struct connection_struct *conn,
				 const struct ds_open *record,
				 uint8_t *body)
{
	enum timestamp_set_resolution res = conn->ts_res;
	struct smb_filename *name = NULL;
	struct timespec create_time;
	struct timespec change_time;
	SMB_STRUCT_STAT *st = NULL;
	NTSTATUS status;

	status = synthetic_pathref(talloc_tos(),
				   conn->cwd_fsp,
				   record->base_name,
				   record->stream_name,
				   NULL,
				   record->twrp,
				   record->name_flags,
				   &name);
	if (!NT_STATUS_IS_OK(status)) {
		return;
	}
	st = &name->st;
	create_time = get_create_timespec(conn, NULL, name);
	change_time = get_change_timespec(conn, NULL, name);

	SSVAL(body, 0x02, SMB2_CLOSE_FLAGS_FULL_INFORMATION);
	put_long_date_full_timespec(res, (char *)body + 0x08, &create_time);
	put_long_date_full_timespec(res, (char *)body + 0x10, &st->st_ex_atime);
	put_long_date_full_timespec(res, (char *)body + 0x18, &st->st_ex_mtime);
	put_long_date_full_timespec(res, (char *)body + 0x20, &change_time);
	SBVAL(body, 0x28, SMB_VFS_GET_ALLOC_SIZE(conn, NULL, st));
	if (!S_ISDIR(st->st_ex_mode)) {
		SBVAL(body, 0x30, get_file_size_stat(st));
	}
	SIVAL(body, 0x38, fdos_mode(name->fsp));
	TALLOC_FREE(name);
}

bool ds_resume_closing(struct ds_restore *restore,
		       struct connection_struct *conn,
		       const struct ds_open *record,
		       uint64_t volatile_id)
{
	struct ds_closed *closed = NULL;

	if (!ds_resume_is_closing(restore, volatile_id)) {
		return false;
	}
	closed = talloc_realloc(restore,
				restore->closed,
				struct ds_closed,
				restore->num_closed + 1);
	if (closed == NULL) {
		return true;
	}
	restore->closed = closed;
	closed += restore->num_closed;
	restore->num_closed += 1;
	*closed = (struct ds_closed) { .volatile_id = volatile_id, };
	SSVAL(closed->body, 0x00, sizeof(closed->body));

	if ((conn != NULL) &&
	    change_to_user_and_service(conn, record->session_id))
	{
		ds_resume_close_body(conn, record, closed->body);
	}
	return true;
}

static const struct ds_closed *ds_resume_closed(uint64_t volatile_id)
{
	const struct ds_restore *restore = ds_child_restoring();
	size_t i;

	for (i = 0; (restore != NULL) && (i < restore->num_closed); i++) {
		if (restore->closed[i].volatile_id == volatile_id) {
			return &restore->closed[i];
		}
	}
	return NULL;
}

static bool ds_resume_answer_close(struct smbd_smb2_request *req,
				   DATA_BLOB *out)
{
	const uint8_t *body = SMBD_SMB2_IN_BODY_PTR(req);
	const struct ds_closed *closed = NULL;
	NTSTATUS status;

	status = smbd_smb2_request_verify_sizes(req, 0x18);
	if (!NT_STATUS_IS_OK(status)) {
		return false;
	}
	closed = ds_resume_closed(BVAL(body, 0x10));
	if (closed == NULL) {
		return false;
	}
	*out = data_blob_talloc(req, closed->body, sizeof(closed->body));
	if ((out->data != NULL) &&
	    !(SVAL(body, 0x02) & SMB2_CLOSE_FLAGS_FULL_INFORMATION))
	{
		memset(out->data + 0x02, 0, out->length - 0x02);
	}
	return true;
}

/*
 * It waited, so it had an open, which was closed since: what a request is
 * then answered with.
 */
static bool ds_resume_answer_waiting(struct smbd_smb2_request *req,
				     NTSTATUS answer)
{
	const struct ds_slot *slot = req->durable;
	const uint8_t *body = SMBD_SMB2_IN_BODY_PTR(req);
	struct smbXsrv_open *op = NULL;
	NTSTATUS status;

	if ((slot->interim == 0) || (SMBD_SMB2_IN_BODY_LEN(req) < 0x18)) {
		return false;
	}
	/* the file id is where it is in both */
	status = smb2srv_open_lookup(
		req->xconn, BVAL(body, 0x08), BVAL(body, 0x10), 0, &op);
	if (NT_STATUS_IS_OK(status)) {
		return false;
	}
	status = smbd_smb2_request_error(req, answer);
	return NT_STATUS_IS_OK(status);
}

/*
 * [MS-SMB2] 2.2.25.2, to an acknowledgement [MS-SMB2] 2.2.24.2 that the lease
 * has followed. One of an oplock can be done twice.
 */
static bool ds_resume_answer_lease(struct smbd_smb2_request *req,
				   DATA_BLOB *out)
{
	const uint8_t *body = SMBD_SMB2_IN_BODY_PTR(req);
	struct smb2_lease_key key;
	struct files_struct *fsp = NULL;
	uint32_t wanted;
	uint32_t current;
	bool breaking;
	NTSTATUS status;

	status = smbd_smb2_request_verify_sizes(req, 0x24);
	if (!NT_STATUS_IS_OK(status)) {
		return false;
	}
	key.data[0] = BVAL(body, 0x08);
	key.data[1] = BVAL(body, 0x10);
	wanted = IVAL(body, 0x18);

	for (fsp = req->sconn->files; fsp != NULL; fsp = fsp->next) {
		if ((fsp->lease != NULL) &&
		    smb2_lease_key_equal(&fsp->lease->lease.lease_key, &key))
		{
			break;
		}
	}
	if (fsp == NULL) {
		return false;
	}
	status = leases_db_get(fsp_client_guid(fsp),
			       &key,
			       &fsp->file_id,
			       &current,
			       &breaking,
			       NULL,
			       NULL,
			       NULL,
			       NULL);
	if (!NT_STATUS_IS_OK(status) || breaking || (current != wanted)) {
		return false;
	}
	/* what the image knew was from before it */
	(void)fsp_lease_update(fsp);

	*out = data_blob_talloc_zero(req, 0x24);
	if (out->data != NULL) {
		SSVAL(out->data, 0x00, 0x24);
		SBVAL(out->data, 0x08, key.data[0]);
		SBVAL(out->data, 0x10, key.data[1]);
		SIVAL(out->data, 0x18, current);
	}
	return true;
}

bool ds_resume_answer(struct smbd_smb2_request *req)
{
	const uint8_t *inhdr = SMBD_SMB2_IN_HDR_PTR(req);
	DATA_BLOB out = data_blob_null;
	bool done = false;
	NTSTATUS status;

	if (!ds_save_is_again(req) ||
	    (req->in.vector_count > 1 + SMBD_SMB2_NUM_IOV_PER_REQ)) {
		return false;
	}
	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_CLOSE:
		done = ds_resume_answer_close(req, &out);
		break;
	case SMB2_OP_BREAK:
		done = ds_resume_answer_lease(req, &out);
		break;
	case SMB2_OP_NOTIFY:
		return ds_resume_answer_waiting(
			req, NT_STATUS_NOTIFY_CLEANUP);
	case SMB2_OP_LOCK:
		return ds_resume_answer_waiting(
			req, NT_STATUS_RANGE_NOT_LOCKED);
	}
	if (!done || (out.data == NULL)) {
		return false;
	}
	status = smbd_smb2_request_done(req, out, NULL);
	return NT_STATUS_IS_OK(status);
}

static int ds_resume_openat(struct files_struct *fsp,
			    const struct vfs_open_how *how)
{
	struct file_id file_id;
	int fd;

	fd = SMB_VFS_OPENAT(fsp->conn,
			    fsp->conn->cwd_fsp,
			    fsp->fsp_name,
			    fsp,
			    how);
	if (fd == -1) {
		return -1;
	}
	fsp_set_fd(fsp, fd);
	if (!NT_STATUS_IS_OK(vfs_stat_fsp(fsp))) {
		fd_close(fsp);
		errno = ENOENT;
		return -1;
	}
	file_id = vfs_file_id_from_sbuf(fsp->conn, &fsp->fsp_name->st);
	if (!file_id_equal(&file_id, &fsp->file_id)) {
		/* another file has its name */
		fd_close(fsp);
		errno = ENOENT;
		return -1;
	}
	return fd;
}

/*
 * The name that all who have it open know it by: another process may have
 * renamed it, and told ours when it was dead.
 */
static bool ds_resume_renamed(struct files_struct *fsp)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct share_mode_lock *lck = NULL;
	struct smb_filename fname = *fsp->fsp_name;
	const char *path = NULL;
	char *name = NULL;
	bool ok = false;

	lck = fetch_share_mode_unlocked(frame, fsp->file_id);
	if (lck == NULL) {
		goto done;
	}
	path = share_mode_servicepath(lck);
	name = share_mode_filename(frame, lck);
	if ((path == NULL) || (name == NULL) ||
	    !strequal(path, fsp->conn->connectpath) ||
	    (strcmp(name, fname.base_name) == 0))
	{
		goto done;
	}
	fname.base_name = name;
	fname.fsp = NULL;
	ok = NT_STATUS_IS_OK(fsp_set_smb_fname(fsp, &fname));
done:
	TALLOC_FREE(frame);
	return ok;
}

NTSTATUS ds_resume_fd(struct files_struct *fsp, const struct ds_open *record)
{
	struct vfs_open_how how = {
		.flags = record->fd_flags & ~(O_CREAT | O_EXCL | O_TRUNC),
	};
	int fd;
	int err;

	fsp->file_id = (record->stream_name == NULL) ?
		record->file_id : record->base_file_id;
	become_root();
	fd = ds_resume_openat(fsp, &how);
	if ((fd == -1) && (errno == ENOENT) && ds_resume_renamed(fsp)) {
		fd = ds_resume_openat(fsp, &how);
	}
	err = errno;
	unbecome_root();
	return (fd != -1) ? NT_STATUS_OK : map_nt_error_from_unix_common(err);
}
