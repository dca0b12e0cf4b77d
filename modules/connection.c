/*
   durable_state: capture and restore of a connection

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
#include "lib/util/bitmap.h"
#include "lib/util/iov_buf.h"
#include "../libcli/smb/smb_common.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"

/*
 * What was read of the next PDU: it is not in the kernel any more and not
 * yet a request.
 */
static NTSTATUS ds_capture_incoming(TALLOC_CTX *mem_ctx,
				    struct smbXsrv_connection *xconn,
				    DATA_BLOB *incoming)
{
	struct smbd_smb2_request_read_state *state =
		&xconn->smb2.request_read_state;
	size_t left = 0;
	size_t got;

	*incoming = data_blob_null;

	if (state->req == NULL) {
		return NT_STATUS_OK;
	}
	if (state->count > 0) {
		left = state->vector[0].iov_len;
	}

	if (state->pktbuf == NULL) {
		*incoming = data_blob_talloc(
			mem_ctx, state->nbt, NBT_HDR_SIZE - left);
		return NT_STATUS_OK;
	}

	got = state->pktlen - left;
	*incoming = data_blob_talloc(mem_ctx, NULL, NBT_HDR_SIZE + got);
	if (incoming->data == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	memcpy(incoming->data, state->nbt, NBT_HDR_SIZE);
	memcpy(incoming->data + NBT_HDR_SIZE, state->pktbuf, got);
	return NT_STATUS_OK;
}

NTSTATUS ds_restore_incoming(struct smbXsrv_connection *xconn,
				    DATA_BLOB incoming)
{
	struct smbd_smb2_request_read_state *state =
		&xconn->smb2.request_read_state;

	while (incoming.length > 0) {
		struct iovec *iov = state->vector;
		NTSTATUS status;
		size_t n;

		if ((state->req == NULL) || (state->count == 0)) {
			return NT_STATUS_INVALID_PARAMETER;
		}
		n = MIN(incoming.length, iov->iov_len);
		memcpy(iov->iov_base, incoming.data, n);
		incoming.data += n;
		incoming.length -= n;

		/*
		 * As if n bytes had been read. A whole PDU would have been
		 * made a request before the image was written.
		 */
		status = smbd_smb2_advance_incoming(xconn, n);
		if (!NT_STATUS_EQUAL(status, NT_STATUS_PENDING) &&
		    !NT_STATUS_EQUAL(status, NT_STATUS_RETRY))
		{
			return NT_STATUS_INVALID_PARAMETER;
		}
	}
	return NT_STATUS_OK;
}

/*
 * Replies that the kernel has not taken yet, as they will go on the wire.
 */
static NTSTATUS ds_capture_outgoing(TALLOC_CTX *mem_ctx,
				    struct smbXsrv_connection *xconn,
				    DATA_BLOB *outgoing)
{
	struct smbd_smb2_send_queue *e = NULL;
	size_t ofs = 0;

	*outgoing = data_blob_null;

	for (e = xconn->smb2.send_queue; e != NULL; e = e->next) {
		ssize_t len = iov_buflen(e->vector, e->count);

		if ((len == -1) || (e->sendfile_header != NULL)) {
			return NT_STATUS_NOT_SUPPORTED;
		}
		ofs += len;
	}
	if (ofs == 0) {
		return NT_STATUS_OK;
	}

	*outgoing = data_blob_talloc(mem_ctx, NULL, ofs);
	if (outgoing->data == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	ofs = 0;
	for (e = xconn->smb2.send_queue; e != NULL; e = e->next) {
		ofs += iov_buf(e->vector,
			       e->count,
			       outgoing->data + ofs,
			       outgoing->length - ofs);
	}
	return NT_STATUS_OK;
}

struct ds_outgoing {
	struct smbd_smb2_send_queue queue_entry;
	struct iovec vector;
};

NTSTATUS ds_restore_outgoing(struct smbXsrv_connection *xconn,
				    DATA_BLOB outgoing)
{
	struct ds_outgoing *out = NULL;

	if (outgoing.length == 0) {
		return NT_STATUS_OK;
	}

	out = talloc_zero(xconn, struct ds_outgoing);
	if (out == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	out->vector.iov_len = outgoing.length;
	out->vector.iov_base = talloc_memdup(
		out, outgoing.data, outgoing.length);
	if (out->vector.iov_base == NULL) {
		TALLOC_FREE(out);
		return NT_STATUS_NO_MEMORY;
	}
	out->queue_entry.mem_ctx = out;
	out->queue_entry.vector = &out->vector;
	out->queue_entry.count = 1;
	DLIST_ADD_END(xconn->smb2.send_queue, &out->queue_entry);
	xconn->smb2.send_queue_len++;
	return NT_STATUS_OK;
}

uint64_t ds_socket_cookie(int sock)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (getsockopt(sock, SOL_SOCKET, SO_COOKIE, &cookie, &len) == -1) {
		return 0;
	}
	return cookie;
}

bool ds_connection_is_smb2(const struct smbXsrv_connection *xconn)
{
	return (xconn->smb2.credits.bitmap != NULL);
}

NTSTATUS ds_capture_connection(struct ds_capture *cap,
			       struct smbXsrv_connection *xconn)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_connection record = {
		.fd = ds_capture_fd(cap, xconn->transport.sock),
		.cookie = cap->live ?
			ds_socket_cookie(xconn->transport.sock) : 0,
		.channel_id = xconn->channel_id,
		.connect_time = xconn->connect_time,
		.protocol = xconn->protocol,
		.nbt_got_session = xconn->transport.nbt.got_session,
		.seq_low = xconn->smb2.credits.seq_low,
		.seq_range = xconn->smb2.credits.seq_range,
		.granted = xconn->smb2.credits.granted,
		.max_credits = xconn->smb2.credits.max,
		.multicredit = xconn->smb2.credits.multicredit,
		.allow_2ff = xconn->smb2.allow_2ff,
		.client_capabilities = xconn->smb2.client.capabilities,
		.client_guid = xconn->smb2.client.guid,
		.client_guid_verified = xconn->smb2.client.guid_verified,
		.client_security_mode = xconn->smb2.client.security_mode,
		.num_dialects = xconn->smb2.client.num_dialects,
		.dialects = xconn->smb2.client.dialects,
		.server_capabilities = xconn->smb2.server.capabilities,
		.server_guid = xconn->smb2.server.guid,
		.server_security_mode = xconn->smb2.server.security_mode,
		.dialect = xconn->smb2.server.dialect,
		.max_trans = xconn->smb2.server.max_trans,
		.max_read = xconn->smb2.server.max_read,
		.max_write = xconn->smb2.server.max_write,
		.sign_algo = xconn->smb2.server.sign_algo,
		.cipher = xconn->smb2.server.cipher,
		.posix_extensions =
			xconn->smb2.server.posix_extensions_negotiated,
		.signing_mandatory = xconn->smb2.signing_mandatory,
		.got_authenticated_session =
			xconn->smb2.got_authenticated_session,
	};
	uint32_t i;
	NTSTATUS status;

	memcpy(record.preauth,
	       xconn->smb2.preauth.sha512_value,
	       sizeof(record.preauth));

	if (ds_connection_is_smb2(xconn) && !cap->live) {
		record.seen = talloc_array(frame, uint16_t, record.seq_range);
		if ((record.seen == NULL) && (record.seq_range != 0)) {
			status = NT_STATUS_NO_MEMORY;
			goto done;
		}
		for (i = 0; i < record.seq_range; i++) {
			uint64_t id = record.seq_low + i;

			if (bitmap_query(xconn->smb2.credits.bitmap,
					 id % record.max_credits))
			{
				record.seen[record.num_seen] = i;
				record.num_seen += 1;
			}
		}
		status = ds_capture_incoming(frame, xconn, &record.incoming);
		if (!NT_STATUS_IS_OK(status)) {
			goto done;
		}
		status = ds_capture_outgoing(frame, xconn, &record.outgoing);
		if (!NT_STATUS_IS_OK(status)) {
			goto done;
		}
	}

	status = ds_capture_record(
		cap,
		DS_RECORD_CONNECTION,
		xconn->channel_id,
		&record,
		(ndr_push_flags_fn_t)ndr_push_ds_connection);
done:
	TALLOC_FREE(frame);
	return status;
}

/*
 * xconn comes from smbd_add_connection().
 */
NTSTATUS ds_restore_connection(struct ds_restore *restore,
			       const struct ds_connection *record,
			       struct smbXsrv_connection *xconn)
{
	uint32_t i;
	NTSTATUS status;

	xconn->channel_id = record->channel_id;
	xconn->connect_time = record->connect_time;
	if (record->max_credits == 0) {
		/* nothing is said yet */
		return NT_STATUS_OK;
	}
	if (((record->protocol != PROTOCOL_NONE) &&
	     (record->protocol < PROTOCOL_SMB2_02)) ||
	    (record->protocol > PROTOCOL_LATEST) ||
	    (record->seq_range > record->max_credits) ||
	    (record->granted > record->max_credits))
	{
		return NT_STATUS_INVALID_PARAMETER;
	}

	if (record->protocol != PROTOCOL_NONE) {
		status = smbXsrv_connection_init_tables(xconn,
							record->protocol);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}
	xconn->protocol = record->protocol;
	xconn->transport.nbt.got_session = record->nbt_got_session;

	status = smbd_initialize_smb2(xconn, record->seq_low);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	xconn->smb2.credits.seq_range = record->seq_range;
	xconn->smb2.credits.granted = record->granted;
	if (xconn->smb2.credits.max != record->max_credits) {
		/*
		 * "smb2 max credits" was changed: the client may use what
		 * it was granted, the new limit is for new connections.
		 */
		TALLOC_FREE(xconn->smb2.credits.bitmap);
		xconn->smb2.credits.max = record->max_credits;
		xconn->smb2.credits.bitmap = bitmap_talloc(
			xconn, record->max_credits);
		if (xconn->smb2.credits.bitmap == NULL) {
			return NT_STATUS_NO_MEMORY;
		}
	}
	xconn->smb2.credits.multicredit = record->multicredit;
	for (i = 0; i < record->num_seen; i++) {
		uint64_t id = record->seq_low + record->seen[i];

		bitmap_set(xconn->smb2.credits.bitmap,
			   id % record->max_credits);
	}

	xconn->smb2.allow_2ff = record->allow_2ff;
	xconn->smb2.client.capabilities = record->client_capabilities;
	xconn->smb2.client.guid = record->client_guid;
	xconn->smb2.client.guid_verified = record->client_guid_verified;
	xconn->smb2.client.security_mode = record->client_security_mode;
	xconn->smb2.client.num_dialects = record->num_dialects;
	xconn->smb2.client.dialects = talloc_memdup(
		xconn,
		record->dialects,
		record->num_dialects * sizeof(record->dialects[0]));
	if ((xconn->smb2.client.dialects == NULL) &&
	    (record->num_dialects != 0))
	{
		return NT_STATUS_NO_MEMORY;
	}
	xconn->smb2.server.capabilities = record->server_capabilities;
	xconn->smb2.server.guid = record->server_guid;
	xconn->smb2.server.security_mode = record->server_security_mode;
	xconn->smb2.server.dialect = record->dialect;
	xconn->smb2.server.max_trans = record->max_trans;
	xconn->smb2.server.max_read = record->max_read;
	xconn->smb2.server.max_write = record->max_write;
	xconn->smb2.server.sign_algo = record->sign_algo;
	xconn->smb2.server.cipher = record->cipher;
	xconn->smb2.server.posix_extensions_negotiated =
		record->posix_extensions;
	xconn->smb2.signing_mandatory = record->signing_mandatory;
	xconn->smb2.got_authenticated_session =
		record->got_authenticated_session;
	memcpy(xconn->smb2.preauth.sha512_value,
	       record->preauth,
	       sizeof(record->preauth));

	/* makes room for the next PDU, in which the bytes below begin */
	status = smbd_smb2_request_next_incoming(xconn);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	status = ds_restore_incoming(xconn, record->incoming);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	return ds_restore_outgoing(xconn, record->outgoing);
}

struct smbXsrv_connection *ds_find_channel(struct smbXsrv_client *client,
					   uint64_t channel_id)
{
	struct smbXsrv_connection *xconn = NULL;

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		if (xconn->channel_id == channel_id) {
			return xconn;
		}
	}
	return NULL;
}
