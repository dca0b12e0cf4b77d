/*
   durable_state: capture and restore of requests that wait

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
#include "smbd/smbXsrv_open.h"
#include "../libcli/smb/smb_common.h"
#include "rpc_server/srv_pipe_hnd.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"
#include "process.h"

/*
 * A create waits if it was deferred until an oplock or lease break is
 * acknowledged. One that a thread works on does not: it comes to its end
 * by itself.
 */
static bool ds_create_waits(struct smbd_smb2_request *req)
{
	struct deferred_open_record *open_rec = NULL;
	bool deferred;

	deferred = get_deferred_open_message_state_smb2(req, NULL, &open_rec);
	if (!deferred) {
		return false;
	}
	return (open_rec == NULL) || !is_deferred_open_async(open_rec);
}

bool ds_request_waits(struct smbd_smb2_request *req)
{
	const uint8_t *inhdr = NULL;

	if (ds_child_is_later(req)) {
		return true;
	}
	if ((req->subreq == NULL) || (req->current_idx != 1)) {
		return false;
	}
	if (!tevent_req_is_in_progress(req->subreq)) {
		return false;
	}

	inhdr = SMBD_SMB2_IN_HDR_PTR(req);
	switch (SVAL(inhdr, SMB2_HDR_OPCODE)) {
	case SMB2_OP_NOTIFY:
	case SMB2_OP_LOCK:
		return true;
	case SMB2_OP_CREATE:
		return ds_create_waits(req);
	case SMB2_OP_READ:
	case SMB2_OP_IOCTL:
		/* the answer will be PIPE_DISCONNECTED */
		return fsp_is_np(req->compat_chain_fsp);
	default:
		return false;
	}
}

NTSTATUS ds_capture_request(struct ds_capture *cap,
			    struct smbd_smb2_request *req)
{
	TALLOC_CTX *frame = talloc_stackframe();
	const uint8_t *outhdr = SMBD_SMB2_OUT_HDR_PTR(req);
	struct ds_request record = {
		.channel_id = req->xconn->channel_id,
		.request_time = timeval_to_nttime(&req->request_time),
		.interim_sent =
			IVAL(outhdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC,
		.async_id = BVAL(outhdr, SMB2_HDR_ASYNC_ID),
		.last_session_id = req->last_session_id,
		.last_tid = req->last_tid,
		/* 0 is for the transport, there is nothing in it */
		.num_iov = req->in.vector_count - 1,
	};
	uint32_t i;
	NTSTATUS status;

	if ((req->compat_chain_fsp != NULL) &&
	    (req->compat_chain_fsp->op != NULL))
	{
		record.compat_chain_open =
			req->compat_chain_fsp->op->global->open_persistent_id;
	}

	record.iov = talloc_zero_array(frame, struct ds_iov, record.num_iov);
	if (record.iov == NULL) {
		status = NT_STATUS_NO_MEMORY;
		goto done;
	}
	for (i = 0; i < record.num_iov; i++) {
		const struct iovec *v = &req->in.vector[1 + i];

		record.iov[i].data = data_blob_const(v->iov_base, v->iov_len);
	}

	status = ds_capture_record(cap,
				   DS_RECORD_REQUEST,
				   &record,
				   (ndr_push_flags_fn_t)ndr_push_ds_request);
done:
	TALLOC_FREE(frame);
	return status;
}

/*
 * All parts are put into one buffer, as smbd_smb2_inbuf_parse_compound()
 * finds them: some code looks beyond the end of a vector.
 */
static NTSTATUS ds_restore_vectors(struct smbd_smb2_request *req,
				   const struct ds_request *record)
{
	struct iovec *vector = req->in._vector;
	size_t total = 0;
	uint8_t *buf = NULL;
	uint32_t i;

	if ((record->num_iov == 0) ||
	    (record->num_iov % SMBD_SMB2_NUM_IOV_PER_REQ) != 0)
	{
		return NT_STATUS_INVALID_PARAMETER;
	}
	for (i = 0; i < record->num_iov; i++) {
		size_t len = record->iov[i].data.length;
		size_t min = 0;

		switch (i % SMBD_SMB2_NUM_IOV_PER_REQ) {
		case SMBD_SMB2_TF_IOV_OFS:
			min = (len == 0) ? 0 : SMB2_TF_HDR_SIZE;
			break;
		case SMBD_SMB2_HDR_IOV_OFS:
			min = SMB2_HDR_BODY;
			break;
		case SMBD_SMB2_BODY_IOV_OFS:
			min = 2;
			break;
		}
		if (len < min) {
			return NT_STATUS_INVALID_PARAMETER;
		}
		total += len;
	}

	if (1 + record->num_iov > ARRAY_SIZE(req->in._vector)) {
		vector = talloc_zero_array(
			req, struct iovec, 1 + record->num_iov);
		if (vector == NULL) {
			return NT_STATUS_NO_MEMORY;
		}
	}
	buf = talloc_array(req, uint8_t, total);
	if (buf == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	for (i = 0; i < record->num_iov; i++) {
		const DATA_BLOB *data = &record->iov[i].data;

		vector[1 + i] = (struct iovec) {
			.iov_base = (data->length != 0) ? buf : NULL,
			.iov_len = data->length,
		};
		if (data->length != 0) {
			memcpy(buf, data->data, data->length);
			buf += data->length;
		}
	}

	req->in.vector = vector;
	req->in.vector_count = 1 + record->num_iov;
	return NT_STATUS_OK;
}

/*
 * What smbd_smb2_advance_incoming() does with a PDU, but for the message
 * id, which has been counted.
 */
NTSTATUS ds_restore_request(struct ds_restore *restore,
			    const struct ds_request *record,
			    struct smbd_smb2_request **_req)
{
	struct smbXsrv_connection *xconn = NULL;
	struct smbd_smb2_request *req = NULL;
	struct smbXsrv_open *op = NULL;
	uint8_t *outhdr = NULL;
	NTSTATUS status;

	*_req = NULL;

	xconn = ds_find_channel(restore->client, record->channel_id);
	if (xconn == NULL) {
		/* the connection is gone, nobody waits for the answer */
		return NT_STATUS_OK;
	}

	req = smbd_smb2_request_allocate(xconn);
	if (req == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	nttime_to_timeval(&req->request_time, record->request_time);
	req->last_session_id = record->last_session_id;
	req->last_tid = record->last_tid;

	if (record->compat_chain_open != 0) {
		struct files_struct *fsp = NULL;

		for (fsp = restore->sconn->files;
		     fsp != NULL;
		     fsp = fsp->next) {
			op = fsp->op;
			if ((op != NULL) &&
			    (op->global->open_persistent_id ==
			     record->compat_chain_open))
			{
				req->compat_chain_fsp = fsp;
				break;
			}
		}
	}

	status = ds_restore_vectors(req, record);
	if (!NT_STATUS_IS_OK(status)) {
		TALLOC_FREE(req);
		return status;
	}
	req->current_idx = 1;

	status = smbd_smb2_request_setup_out(req);
	if (!NT_STATUS_IS_OK(status)) {
		TALLOC_FREE(req);
		return status;
	}

	if (record->interim_sent) {
		outhdr = SMBD_SMB2_OUT_HDR_PTR(req);
		SIVAL(outhdr,
		      SMB2_HDR_FLAGS,
		      IVAL(outhdr, SMB2_HDR_FLAGS) | SMB2_HDR_FLAG_ASYNC);
		SBVAL(outhdr, SMB2_HDR_ASYNC_ID, record->async_id);
	}

	*_req = req;
	return NT_STATUS_OK;
}
