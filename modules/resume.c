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
#include "durable_state/ndr_durable_state.h"
#include "records.h"
#include "resume.h"
#include "save.h"
#include "stream.h"

/* Processes that may end over one request before it is given up */
#define DS_RESUME_CRASHES 3

NTSTATUS ds_resume_stream(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct smbXsrv_connection *xconn = NULL;
	struct ds_stream s;
	uint64_t id;
	uint32_t i;
	int ret;

	if ((resume == NULL) || (resume->xconn != NULL) ||
	    (data.length < sizeof(s)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	memcpy(&s, data.data, sizeof(s));
	xconn = ds_find_channel(restore->client, s.channel_id);
	if ((xconn == NULL) || !ds_connection_is_smb2(xconn) ||
	    (s.num_seen != (data.length - sizeof(s)) / sizeof(id)) ||
	    (s.seq_range > xconn->smb2.credits.max) ||
	    (s.granted > xconn->smb2.credits.max))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	ret = ds_stream_position(
		xconn->transport.sock, &resume->read, &resume->written);
	if (ret != 0) {
		return map_nt_error_from_unix_common(ret);
	}
	resume->xconn = xconn;
	resume->received = s.received;
	resume->completed = s.completed;

	for (id = 0; id < xconn->smb2.credits.max; id++) {
		bitmap_clear(xconn->smb2.credits.bitmap, id);
	}
	xconn->smb2.credits.seq_low = s.seq_low;
	xconn->smb2.credits.seq_range = s.seq_range;
	xconn->smb2.credits.granted = s.granted;
	for (i = 0; i < s.num_seen; i++) {
		memcpy(&id,
		       data.data + sizeof(s) + i * sizeof(id),
		       sizeof(id));
		bitmap_set(xconn->smb2.credits.bitmap,
			   id % xconn->smb2.credits.max);
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_reading(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct smbXsrv_connection *xconn = NULL;
	struct ds_reading r;
	uint8_t nbt[NBT_HDR_SIZE];
	const uint8_t *pdu = NULL;
	uint64_t got;
	NTSTATUS status;

	if ((resume == NULL) || (resume->xconn == NULL) ||
	    (data.length != sizeof(r)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	xconn = resume->xconn;
	memcpy(&r, data.data, sizeof(r));
	if ((r.received != resume->received) ||
	    (resume->read <= resume->received))
	{
		/* of one that has been received since */
		return NT_STATUS_OK;
	}

	got = resume->read - resume->received;
	if ((got < NBT_HDR_SIZE) || (got - NBT_HDR_SIZE > r.length) ||
	    (r.length > 0xffffff))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	got -= NBT_HDR_SIZE;
	pdu = ds_buffers_at(resume->buffers, r.offset, r.length);
	if (pdu == NULL) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	_smb_setlen_tcp(nbt, r.length);
	status = ds_restore_incoming(
		xconn, data_blob_const(nbt, sizeof(nbt)));
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	resume->reading = true;
	if (got < r.length) {
		return ds_restore_incoming(xconn, data_blob_const(pdu, got));
	}

	/* smbd processes it at once when it is told */
	if (xconn->smb2.request_read_state.pktlen != r.length) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	memcpy(xconn->smb2.request_read_state.pktbuf, pdu, r.length);
	resume->whole = r.length;
	return NT_STATUS_OK;
}

/*
 * What of it the kernel has not taken
 */
NTSTATUS ds_resume_reply(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct ds_reply reply;
	DATA_BLOB out = data_blob_null;
	size_t pos;
	size_t ofs = 0;
	size_t skip;
	uint32_t i;
	NTSTATUS status;

	if ((resume == NULL) || (resume->xconn == NULL) ||
	    (data.length < sizeof(reply)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	memcpy(&reply, data.data, sizeof(reply));
	pos = sizeof(reply) + reply.num_segments * sizeof(struct ds_segment);
	if ((pos > data.length) || (reply.length > 0x2000000)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	if (reply.begin + reply.length <= resume->written) {
		return NT_STATUS_OK;
	}
	if ((resume->queued != 0) ? (reply.begin != resume->queued) :
				    (reply.begin > resume->written))
	{
		/* one in between is missing */
		return NT_STATUS_INVALID_PARAMETER;
	}

	out = data_blob_talloc(talloc_tos(), NULL, reply.length);
	if (out.data == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	for (i = 0; i < reply.num_segments; i++) {
		struct ds_segment segment;
		const uint8_t *p = NULL;

		memcpy(&segment,
		       data.data + sizeof(reply) + i * sizeof(segment),
		       sizeof(segment));
		if (segment.length > out.length - ofs) {
			return NT_STATUS_INVALID_PARAMETER;
		}
		if (segment.offset != DS_SEGMENT_INLINE) {
			p = ds_buffers_at(resume->buffers,
					  segment.offset,
					  segment.length);
		} else if (segment.length <= data.length - pos) {
			p = data.data + pos;
			pos += segment.length;
		}
		if (p == NULL) {
			return NT_STATUS_INVALID_PARAMETER;
		}
		memcpy(out.data + ofs, p, segment.length);
		ofs += segment.length;
	}
	if (ofs != out.length) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	resume->queued = reply.begin + reply.length;

	skip = (resume->written > reply.begin) ?
		resume->written - reply.begin : 0;
	status = ds_restore_outgoing(
		resume->xconn,
		data_blob_const(out.data + skip, out.length - skip));
	data_blob_free(&out);
	return status;
}

/*
 * Has a request the same result when it is run again?
 */
static bool ds_resume_again(const struct smbd_smb2_request *req,
			    int idx,
			    uint32_t flags)
{
	const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(req, in, idx)->iov_base;
	const struct iovec *iov = SMBD_SMB2_IOV_IDX_OFS(
		req, in, idx, SMBD_SMB2_BODY_IOV_OFS);
	const uint8_t *body = iov->iov_base;

	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_SESSSETUP:
		/* what was begun is not known any more, and that fails */
	case SMB2_OP_LOGOFF:
	case SMB2_OP_TCON:
	case SMB2_OP_TDIS:
	case SMB2_OP_CLOSE:
	case SMB2_OP_FLUSH:
	case SMB2_OP_READ:
	case SMB2_OP_CANCEL:
	case SMB2_OP_KEEPALIVE:
	case SMB2_OP_QUERY_DIRECTORY:
	case SMB2_OP_NOTIFY:
	case SMB2_OP_GETINFO:
	case SMB2_OP_BREAK:
		return true;
	case SMB2_OP_WRITE:
		/* -1 is the end of the file, wherever it is */
		return (iov->iov_len >= 0x30) &&
		       (BVAL(body, 0x08) != UINT64_MAX);
	case SMB2_OP_CREATE:
		if (flags & DS_RECEIVED_INTERIM) {
			/* it waited, nothing was done */
			return true;
		}
		return (iov->iov_len >= 0x38) &&
		       (IVAL(body, 0x24) == FILE_OPEN) &&
		       !(IVAL(body, 0x28) & FILE_DELETE_ON_CLOSE);
	case SMB2_OP_LOCK:
		return (flags & DS_RECEIVED_INTERIM) != 0;
	default:
		return false;
	}
}

static NTSTATUS ds_resume_check(struct ds_restore *restore,
				const struct smbd_smb2_request *req,
				const struct ds_received *r)
{
	int idx;

	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(
			req, in, idx)->iov_base;
		const char *name = smb2_opcode_name(
			SVAL(inhdr, SMB2_HDR_OPCODE));

		if (r->crashes + 1 >= DS_RESUME_CRASHES) {
			DBG_ERR("%u processes have ended over this %s, it is "
				"not run again\n",
				(unsigned)r->crashes + 1,
				name);
			return NT_STATUS_CANNOT_MAKE;
		}
		if ((r->flags & DS_RECEIVED_LOST) ||
		    !ds_resume_again(req, idx, r->flags))
		{
			DBG_ERR("%s was being processed, and cannot be run "
				"again\n",
				name);
			return NT_STATUS_NOT_SUPPORTED;
		}
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_received(struct ds_restore *restore, DATA_BLOB data)
{
	struct ds_resume *resume = restore->resume;
	struct smbd_smb2_request *req = NULL;
	struct ds_received r;
	const uint8_t *old = NULL;
	uint8_t *pdu = NULL;
	const uint8_t *buf = NULL;
	NTSTATUS status;

	if ((resume == NULL) || (resume->xconn == NULL) ||
	    (data.length != sizeof(r)))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	memcpy(&r, data.data, sizeof(r));
	old = ds_buffers_at(resume->buffers, r.offset, r.length);
	if ((old == NULL) || (r.flags & DS_RECEIVED_LOST)) {
		DBG_ERR("a request was being processed that is not in the "
			"image\n");
		return NT_STATUS_NOT_SUPPORTED;
	}
	req = smbd_smb2_request_allocate(resume->xconn);
	if (req == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	nttime_to_timeval(&req->request_time, r.request_time);

	buf = ds_save_again(req, old, &r);
	pdu = (buf != NULL) ? talloc_memdup(req, buf, r.length) : NULL;
	if (pdu == NULL) {
		TALLOC_FREE(req);
		return NT_STATUS_NO_MEMORY;
	}

	status = smbd_smb2_inbuf_parse_compound(resume->xconn,
						r.request_time,
						pdu,
						r.length,
						req,
						&req->in.vector,
						&req->in.vector_count);
	if (!NT_STATUS_IS_OK(status)) {
		TALLOC_FREE(req);
		return status;
	}
	req->current_idx = 1;
	if (!(r.flags & DS_RECEIVED_STARTED)) {
		status = smbd_smb2_request_validate(req);
		if (!NT_STATUS_IS_OK(status)) {
			TALLOC_FREE(req);
			return status;
		}
	}
	status = ds_resume_check(restore, req, &r);
	if (NT_STATUS_IS_OK(status)) {
		status = smbd_smb2_request_setup_out(req);
	}
	if (!NT_STATUS_IS_OK(status)) {
		TALLOC_FREE(req);
		return status;
	}
	if (r.flags & DS_RECEIVED_INTERIM) {
		uint8_t *outhdr = SMBD_SMB2_OUT_HDR_PTR(req);

		SIVAL(outhdr,
		      SMB2_HDR_FLAGS,
		      IVAL(outhdr, SMB2_HDR_FLAGS) | SMB2_HDR_FLAG_ASYNC);
		SBVAL(outhdr, SMB2_HDR_ASYNC_ID, r.async_id);
	}
	resume->num_requests += 1;
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_end(struct ds_restore *restore)
{
	const struct ds_resume *resume = restore->resume;
	uint64_t read = resume->received;

	if (resume->xconn == NULL) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	if ((resume->read != read) && !resume->reading) {
		DBG_ERR("%" PRIu64 " bytes were read and are not in the "
			"image\n",
			resume->read - read);
		return NT_STATUS_DATA_ERROR;
	}
	if (MAX(resume->queued, resume->written) != resume->completed) {
		DBG_ERR("%" PRIu64 " bytes were written, the image knows of "
			"%" PRIu64 "\n",
			resume->written,
			resume->completed);
		return NT_STATUS_DATA_ERROR;
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_resume_fd(struct files_struct *fsp, const struct ds_open *record)
{
	struct vfs_open_how how = {
		.flags = record->fd_flags & ~(O_CREAT | O_EXCL | O_TRUNC),
	};
	int fd;

	become_root();
	fd = SMB_VFS_OPENAT(fsp->conn,
			    fsp->conn->cwd_fsp,
			    fsp->fsp_name,
			    fsp,
			    &how);
	unbecome_root();
	if (fd == -1) {
		return map_nt_error_from_unix_common(errno);
	}
	fsp_set_fd(fsp, fd);
	return vfs_stat_fsp(fsp);
}
