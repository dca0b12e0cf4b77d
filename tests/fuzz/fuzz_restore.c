/*
   durable_state: fuzz what restores a client

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

/*
 * The parts of the module that need no more of smbd than a connection. The
 * first byte of the input is the type of a record of durable_state.idl, which
 * follows; 0 stands for those of a process that was killed, struct fuzz_killed
 * and then the bytes of its buffers.
 *
 * The rest of smbd is the real one, but what would begin to serve the client.
 */

#include "includes.h"
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "../libcli/smb/smb_common.h"
#include "lib/util/bitmap.h"
#include "locking/leases_db.h"
#include "passdb.h"
#include "smbd/smbXsrv_open.h"
#include "durable_state/ndr_durable_state.h"
#include "durable_state/effect.h"
#include "durable_state/records.h"
#include "durable_state/resume.h"
#include "durable_state/save.h"
#include "fuzz_common.h"
#include "fuzz_map.h"
#include "fuzz_restore.h"

static struct fuzz_killed killed;

/* whom requests are answered for; of it, the buffers */
static struct ds_restore *restoring;
static struct fuzz_input buffers;

/* ---- called by the module in place of what they are named after */

int fuzz_ds_stream_position(int sock, uint64_t *nread, uint64_t *nwritten)
{
	*nread = killed.read;
	*nwritten = killed.written;
	return 0;
}

const uint8_t *fuzz_ds_save_again(struct smbd_smb2_request *req,
				  const uint8_t *pdu,
				  const struct ds_slot *slot)
{
	struct ds_slot *copy = talloc_memdup(req, slot, sizeof(*slot));

	copy->again = true;
	req->durable = copy;
	return talloc_memdup(req, pdu, slot->length);
}

bool fuzz_ds_save_is_again(const struct smbd_smb2_request *req)
{
	const struct ds_slot *slot = req->durable;

	return (slot != NULL) && slot->again;
}

bool fuzz_ds_image_next(const struct ds_image *image,
			size_t *pos,
			uint32_t *type,
			uint64_t *key,
			DATA_BLOB *data)
{
	if (*pos != 0) {
		return false;
	}
	*pos = 1;
	*type = DS_RECORD_OPEN;
	*key = FUZZ_OPEN_ID;
	*data = data_blob_null;
	if (killed.open.offset < buffers.size) {
		/* of that size, so that nothing is read behind it */
		*data = data_blob_talloc(
			restoring,
			buffers.data + killed.open.offset,
			MIN(killed.open.num,
			    buffers.size - killed.open.offset));
	}
	return true;
}

void fuzz_ds_restore_forget_opens(struct ds_restore *restore)
{
	abort();
}

const struct ds_restore *fuzz_ds_child_restoring(void)
{
	return restoring;
}

bool fuzz_ds_restore_is_former(const struct ds_restore *restore,
			       const struct server_id *id)
{
	abort();
}

void fuzz_ds_effect_undo(struct ds_restore *restore,
			 const struct ds_effect *effect)
{
}

NTSTATUS fuzz_ds_capture_record(struct ds_capture *cap,
				enum ds_record_type type,
				uint64_t key,
				const void *record,
				ndr_push_flags_fn_t push_fn)
{
	abort();
}

uint32_t fuzz_ds_capture_fd(struct ds_capture *cap, int fd)
{
	abort();
}

bool fuzz_ds_child_is_later(const struct smbd_smb2_request *req)
{
	abort();
}

NTSTATUS fuzz_ds_pulled(enum ndr_err_code ndr_err,
			uint32_t version,
			const void *object)
{
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		return ndr_map_error2ntstatus(ndr_err);
	}
	if (version != 0) {
		return NT_STATUS_REVISION_MISMATCH;
	}
	return (object != NULL) ? NT_STATUS_OK : NT_STATUS_INVALID_PARAMETER;
}

void fuzz_ds_restore_lost(struct ds_restore *restore,
			  const char *what,
			  const char *name,
			  NTSTATUS status)
{
	TALLOC_FREE(restore->lost);
	restore->lost = (const char **)talloc_asprintf(
		restore, "%s '%s': %s", what, name, nt_errstr(status));
}

struct smbXsrv_connection *fuzz_ds_find_channel(struct smbXsrv_client *client,
						uint64_t channel_id)
{
	return client->connections;
}

NTSTATUS fuzz_smbXsrv_connection_init_tables(struct smbXsrv_connection *xconn,
					     enum protocol_types protocol)
{
	return NT_STATUS_OK;
}

NTSTATUS fuzz_smbd_initialize_smb2(struct smbXsrv_connection *xconn,
				   uint64_t seq_low)
{
	xconn->smb2.credits.seq_low = seq_low;
	xconn->smb2.credits.seq_range = 1;
	xconn->smb2.credits.granted = 1;
	xconn->smb2.credits.max = 512;
	xconn->smb2.credits.bitmap = bitmap_talloc(xconn, 512);
	return NT_STATUS_OK;
}

/* All but the request that the last byte makes */
NTSTATUS fuzz_smbd_smb2_advance_incoming(struct smbXsrv_connection *xconn,
					 size_t n)
{
	struct smbd_smb2_request_read_state *state =
		&xconn->smb2.request_read_state;

	if ((state->count == 1) && (state->vector->iov_len == n)) {
		if (state->pktlen == 0) {
			if (smb_len_tcp(state->nbt) == 0) {
				return NT_STATUS_OK;
			}
		} else if (!state->doing_receivefile) {
			return NT_STATUS_OK;
		} else {
			/* where a WRITE would go directly to its file */
			return NT_STATUS_RETRY;
		}
	}
	return smbd_smb2_advance_incoming(xconn, n);
}

NTSTATUS fuzz_smbXsrv_session_restore(struct smbXsrv_client *client,
				      struct smbXsrv_session_global0 *global,
				      NTTIME idle_time,
				      struct smbXsrv_session **_session)
{
	struct smbXsrv_session *session = talloc_zero(
		client, struct smbXsrv_session);

	session->global = talloc_move(session, &global);
	*_session = session;
	return NT_STATUS_OK;
}

int fuzz_register_homes_share(const char *username)
{
	return strlen(username);
}

void fuzz_set_current_user_info(const char *smb_name,
				const char *unix_name,
				const char *domain)
{
	volatile size_t length = strlen(smb_name) + strlen(unix_name);

	if (domain != NULL) {
		length += strlen(domain);
	}
}

bool fuzz_reload_services(struct smbd_server_connection *sconn,
			  bool (*snumused)(struct smbd_server_connection *,
					   int),
			  bool test)
{
	return true;
}

NTSTATUS fuzz_smb2srv_open_lookup(struct smbXsrv_connection *conn,
				  uint64_t persistent_id,
				  uint64_t volatile_id,
				  NTTIME now,
				  struct smbXsrv_open **_open)
{
	return (persistent_id == FUZZ_OPEN_ID) ?
		NT_STATUS_OK : NT_STATUS_FILE_CLOSED;
}

const struct GUID *fuzz_fsp_client_guid(const struct files_struct *fsp)
{
	static struct GUID guid;

	return &guid;
}

NTSTATUS fuzz_leases_db_get(const struct GUID *client_guid,
			    const struct smb2_lease_key *lease_key,
			    const struct file_id *file_id,
			    uint32_t *current_state,
			    bool *breaking,
			    uint32_t *breaking_to_requested,
			    uint32_t *breaking_to_required,
			    uint16_t *lease_version,
			    uint16_t *epoch)
{
	*current_state = SMB2_LEASE_READ;
	*breaking = false;
	return NT_STATUS_OK;
}

bool fuzz_fsp_lease_update(struct files_struct *fsp)
{
	return true;
}

/* Where an answer would be sent. It is all there. */
NTSTATUS fuzz_smbd_smb2_request_done_ex(struct smbd_smb2_request *req,
					NTSTATUS status,
					DATA_BLOB body,
					DATA_BLOB *dyn,
					const char *location)
{
	FUZZ_CHECK(body.length >= 2);
	FUZZ_CHECK(SVAL(body.data, 0) == body.length);
	data_blob_free(&body);
	return NT_STATUS_OK;
}

NTSTATUS fuzz_smbd_smb2_request_error_ex(struct smbd_smb2_request *req,
					 NTSTATUS status,
					 uint8_t error_context_count,
					 DATA_BLOB *info,
					 const char *location)
{
	return NT_STATUS_OK;
}

bool fuzz_sid_check_is_in_our_sam(const struct dom_sid *sid)
{
	return (sid->num_auths > 0) && (sid->sub_auths[0] % 2 == 0);
}

struct samu *fuzz_samu_new(TALLOC_CTX *ctx)
{
	return talloc_zero(ctx, struct samu);
}

bool fuzz_pdb_getsampwsid(struct samu *sam, const struct dom_sid *sid)
{
	return true;
}

/* ---- */

static struct ds_restore *fuzz_restore(TALLOC_CTX *mem_ctx)
{
	struct ds_restore *restore = talloc_zero(mem_ctx, struct ds_restore);
	struct smbXsrv_client *client = talloc_zero(
		restore, struct smbXsrv_client);
	struct smbXsrv_connection *xconn = talloc_zero(
		client, struct smbXsrv_connection);

	restore->sconn = talloc_zero(client, struct smbd_server_connection);
	restore->sconn->client = client;
	restore->client = client;
	restore->old = talloc_zero(restore, struct ds_client);
	client->sconn = restore->sconn;
	client->connections = xconn;
	xconn->client = client;
	xconn->transport.sock = -1;
	xconn->transport.status = NT_STATUS_OK;
	return restore;
}

/* One that is back */
static void fuzz_open(struct ds_restore *restore)
{
	struct files_struct *fsp = talloc_zero(restore, struct files_struct);

	fsp->op = talloc_zero(fsp, struct smbXsrv_open);
	fsp->op->global = talloc_zero(fsp->op, struct smbXsrv_open_global0);
	fsp->op->global->open_persistent_id = FUZZ_OPEN_ID;
	fsp->lease = talloc_zero(fsp, struct fsp_lease);
	restore->sconn->files = fsp;
}

static void fuzz_serve(struct smbXsrv_connection *xconn)
{
	fuzz_smbd_initialize_smb2(xconn, 0);
	FUZZ_CHECK(NT_STATUS_IS_OK(smbd_smb2_request_next_incoming(xconn)));
}

/* Requests are answered some day */
static void fuzz_requests(struct smbXsrv_connection *xconn)
{
	struct smbd_smb2_request *req = NULL;

	for (req = xconn->smb2.requests; req != NULL; req = req->next) {
		FUZZ_CHECK(req->in.vector_count >= 5);
		FUZZ_CHECK(req->out.vector_count == req->in.vector_count);
		(void)SVAL(SMBD_SMB2_IN_HDR_PTR(req), SMB2_HDR_OPCODE);
		(void)SVAL(SMBD_SMB2_IN_BODY_PTR(req), 0);
		(void)SVAL(SMBD_SMB2_OUT_HDR_PTR(req), SMB2_HDR_OPCODE);
	}
}

/* Some of them at once */
static void fuzz_answers(struct ds_restore *restore)
{
	const struct ds_open closed = { .oplock_type = LEASE_OPLOCK, };
	struct smbXsrv_connection *xconn = restore->client->connections;
	struct smbd_smb2_request *req = NULL;

	(void)ds_resume_closing(restore, NULL, &closed, FUZZ_OPEN_ID);
	for (req = xconn->smb2.requests; req != NULL; req = req->next) {
		ds_resume_chain(req);
		(void)ds_resume_answer(req);
	}
}

static void fuzz_one_killed(TALLOC_CTX *frame, struct fuzz_input *in)
{
	struct ds_restore *restore = fuzz_restore(frame);
	struct smbXsrv_connection *xconn = restore->client->connections;
	struct ds_resume *resume = talloc_zero(restore, struct ds_resume);
	NTSTATUS status;
	size_t size;
	const uint8_t *p = fuzz_take_data(in, sizeof(killed), &size);
	size_t num;
	int fd;

	memset(&killed, 0, sizeof(killed));
	memcpy(&killed, p, size);
	num = killed.num_seen % (ARRAY_SIZE(killed.seen) + 1);
	buffers = *in;
	restoring = restore;
	fuzz_open(restore);

	fd = fuzz_memfd(in->data, in->size);
	FUZZ_CHECK(ds_buffers_open(frame, fd, &resume->buffers) == 0);
	resume->side = killed.side & 1;
	restore->resume = resume;
	if (killed.is_smb2 & 1) {
		fuzz_serve(xconn);
	}

	status = ds_resume_channel(
		restore, 0, data_blob_const(&killed.channel, 16));
	if (NT_STATUS_IS_OK(status)) {
		status = ds_resume_seen(
			restore, 0, data_blob_const(killed.seen, num * 8));
	}
	if (NT_STATUS_IS_OK(status)) {
		status = ds_resume_slots(
			restore, data_blob_const(&killed.slots, 16));
	}
	if (NT_STATUS_IS_OK(status)) {
		fuzz_requests(xconn);
		fuzz_answers(restore);
	}
	restoring = NULL;
	TALLOC_FREE(resume->buffers);
	close(fd);
}

#define FUZZ_PULL(name, record) NDR_ERR_CODE_IS_SUCCESS( \
	ndr_pull_struct_blob_all(&blob, \
				 frame, \
				 record, \
				 (ndr_pull_flags_fn_t)ndr_pull_##name))

static void fuzz_one_record(TALLOC_CTX *frame, uint8_t type, DATA_BLOB blob)
{
	struct ds_restore *restore = fuzz_restore(frame);
	struct smbXsrv_connection *xconn = restore->client->connections;
	struct ds_connection connection;
	struct ds_session session;
	struct ds_request request;
	struct smbd_smb2_request *req = NULL;
	NTSTATUS status;

	switch (type) {
	case DS_RECORD_EFFECT:
		restore->resume = talloc_zero(restore, struct ds_resume);
		(void)ds_resume_effect(restore, blob);
		ds_resume_undo(restore);
		break;
	case DS_RECORD_CONNECTION:
		if (FUZZ_PULL(ds_connection, &connection)) {
			(void)ds_restore_connection(
				restore, &connection, xconn);
		}
		break;
	case DS_RECORD_SESSION:
		if (FUZZ_PULL(ds_session, &session)) {
			(void)ds_restore_session(restore, &session);
		}
		break;
	case DS_RECORD_REQUEST:
		if (!FUZZ_PULL(ds_request, &request)) {
			break;
		}
		fuzz_serve(xconn);
		status = ds_restore_request(restore, &request, &req);
		if (NT_STATUS_IS_OK(status)) {
			fuzz_requests(xconn);
		}
		break;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct fuzz_input in = { .data = data, .size = size };
	uint8_t type = fuzz_take(&in, 1);

	fuzz_map_copies = true;
	if (type == 0) {
		fuzz_one_killed(frame, &in);
	} else {
		fuzz_one_record(
			frame,
			type,
			data_blob_talloc(frame, in.data, in.size));
	}
	fuzz_map_copies = false;
	TALLOC_FREE(frame);
	return 0;
}
