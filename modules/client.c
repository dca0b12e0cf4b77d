/*
   durable_state: the whole of a client

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
#include "source3/smbd/smbXsrv_session.h"
#include "messages.h"
#include "lib/util/tsort.h"
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "../lib/tsocket/tsocket.h"
#include "rpc_server/srv_pipe_hnd.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"
#include "lib/util/server_id.h"
#include "locking/share_mode_lock.h"
#include "resume.h"

NTSTATUS ds_capture_record(struct ds_capture *cap,
			   enum ds_record_type type,
			   uint64_t key,
			   const void *record,
			   ndr_push_flags_fn_t push_fn)
{
	DATA_BLOB blob;
	enum ndr_err_code ndr_err;
	int ret;

	ndr_err = ndr_push_struct_blob(
		&blob, talloc_tos(), record, push_fn);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		return ndr_map_error2ntstatus(ndr_err);
	}

	ret = ds_image_put(cap->image, type, key, blob);
	/* there may be keys in it */
	data_blob_clear_free(&blob);
	if (ret != 0) {
		return map_nt_error_from_unix_common(ret);
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_pulled(enum ndr_err_code ndr_err,
		   uint32_t version,
		   const void *object)
{
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		return ndr_map_error2ntstatus(ndr_err);
	}
	if (version != SMBXSRV_VERSION_0) {
		return NT_STATUS_REVISION_MISMATCH;
	}
	if (object == NULL) {
		/* in NDR it need not be there */
		return NT_STATUS_INVALID_PARAMETER;
	}
	return NT_STATUS_OK;
}

uint32_t ds_capture_fd(struct ds_capture *cap, int fd)
{
	int *fds = NULL;

	if ((fd < 0) || cap->live) {
		return DS_NO_FD;
	}
	fds = talloc_realloc(cap, cap->fds, int, cap->num_fds + 1);
	if (fds == NULL) {
		return DS_NO_FD;
	}
	cap->fds = fds;
	cap->fds[cap->num_fds] = fd;
	cap->num_fds += 1;
	return cap->num_fds - 1;
}

int ds_restore_fd(struct ds_restore *restore, uint32_t idx)
{
	int fd;

	if (idx >= restore->num_fds) {
		return -1;
	}
	fd = restore->fds[idx];
	restore->fds[idx] = -1;
	return fd;
}

void ds_restore_lost(struct ds_restore *restore,
		     const char *what,
		     const char *name,
		     NTSTATUS status)
{
	DBG_ERR("client %s: %s '%s' did not come back: %s\n",
		tsocket_address_string(restore->sconn->remote_address,
				       talloc_tos()),
		what,
		name,
		nt_errstr(status));

	(void)add_string_to_array(
		restore,
		talloc_asprintf(talloc_tos(),
				"%s '%s': %s",
				what,
				name,
				nt_errstr(status)),
		&restore->lost,
		&restore->num_lost);
}

static int ds_capture_session_fn(struct smbXsrv_session *session,
				 void *private_data)
{
	struct ds_capture *cap = private_data;
	NTSTATUS status;

	if (session->global->auth_session_info == NULL) {
		/* never came to its end */
		return 0;
	}
	status = ds_capture_session(cap, session);
	return NT_STATUS_IS_OK(status) ? 0 : -1;
}

static NTSTATUS ds_capture_tcons(struct ds_capture *cap)
{
	struct connection_struct *conn = NULL;

	for (conn = cap->client->sconn->connections;
	     conn != NULL;
	     conn = conn->next) {
		struct smbXsrv_session *session = NULL;
		NTSTATUS status;

		if (conn->tcon == NULL) {
			continue;
		}
		/* conn->vuid is the last user, not always there */
		(void)smb2srv_session_lookup_client(
			cap->client,
			conn->tcon->global->session_global_id,
			0,
			&session);
		if (session == NULL) {
			continue;
		}
		status = ds_capture_tcon(cap, session, conn->tcon);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}
	return NT_STATUS_OK;
}

/*
 * Oldest first: each open is put at the head of smbd's list again.
 */
static NTSTATUS ds_capture_opens(struct ds_capture *cap)
{
	struct files_struct *fsp = NULL;

	for (fsp = DLIST_TAIL(cap->client->sconn->files);
	     fsp != NULL;
	     fsp = DLIST_PREV(fsp)) {
		NTSTATUS status;

		if (fsp->op == NULL) {
			/* internal to smbd */
			continue;
		}
		if (cap->live && fsp_is_np(fsp)) {
			/* its other end is lost in any case */
			continue;
		}
		if (cap->live && ds_save_is_new(fsp)) {
			continue;
		}
		status = ds_capture_open(cap, fsp);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
		if (cap->live) {
			ds_vfs_saved(fsp);
		}
	}
	return NT_STATUS_OK;
}

static int ds_request_cmp(struct smbd_smb2_request **a,
			  struct smbd_smb2_request **b)
{
	return timeval_compare(&(*a)->request_time, &(*b)->request_time);
}

struct smbd_smb2_request **ds_requests(TALLOC_CTX *mem_ctx,
				       struct smbXsrv_client *client)
{
	struct smbd_smb2_request **requests = NULL;
	struct smbXsrv_connection *xconn = NULL;
	struct smbd_smb2_request *req = NULL;
	size_t num = 0;

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		for (req = xconn->smb2.requests; req != NULL; req = req->next) {
			num += 1;
		}
	}
	requests = talloc_array(mem_ctx, struct smbd_smb2_request *, num + 1);
	if (requests == NULL) {
		return NULL;
	}
	num = 0;
	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		for (req = xconn->smb2.requests; req != NULL; req = req->next) {
			requests[num] = req;
			num += 1;
		}
	}
	requests[num] = NULL;
	TYPESAFE_QSORT(requests, num, ds_request_cmp);
	return requests;
}

static NTSTATUS ds_capture_requests(struct ds_capture *cap)
{
	struct smbd_smb2_request **requests = ds_requests(cap, cap->client);
	NTSTATUS status = NT_STATUS_OK;
	size_t i;

	if (requests == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	for (i = 0; (requests[i] != NULL) && NT_STATUS_IS_OK(status); i++) {
		status = ds_capture_request(cap, requests[i]);
	}
	TALLOC_FREE(requests);
	return status;
}

NTSTATUS ds_capture_objects(struct ds_capture *cap, NTTIME frozen)
{
	struct smbXsrv_client *client = cap->client;
	struct smbXsrv_connection *xconn = NULL;
	struct ds_client record = {
		.server_id = messaging_server_id(client->msg_ctx),
		.frozen = frozen,
		.connect_time = client->global->initial_connect_time,
		.client_guid = client->global->client_guid,
		.stored = client->global->stored,
		.next_channel_id = client->next_channel_id,
		.global_client_caps = global_client_caps,
	};
	NTSTATUS status;

	status = ds_capture_record(cap,
				   DS_RECORD_CLIENT,
				   0,
				   &record,
				   (ndr_push_flags_fn_t)ndr_push_ds_client);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		if (!NT_STATUS_IS_OK(xconn->transport.status)) {
			continue;
		}
		status = ds_capture_connection(cap, xconn);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}

	if (client->session_table != NULL) {
		status = smbXsrv_session_local_traverse(
			client, ds_capture_session_fn, cap);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}

	status = ds_capture_tcons(cap);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	return ds_capture_opens(cap);
}

NTSTATUS ds_capture_client(TALLOC_CTX *mem_ctx,
			   struct smbXsrv_client *client,
			   NTTIME frozen,
			   struct ds_capture **_cap)
{
	struct ds_capture *cap = NULL;
	NTSTATUS status;
	int ret;

	cap = talloc_zero(mem_ctx, struct ds_capture);
	if (cap == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	cap->client = client;

	ret = ds_image_create(cap, &cap->image);
	if (ret != 0) {
		TALLOC_FREE(cap);
		return map_nt_error_from_unix_common(ret);
	}

	status = ds_capture_objects(cap, frozen);
	if (NT_STATUS_IS_OK(status)) {
		status = ds_capture_requests(cap);
	}
	if (!NT_STATUS_IS_OK(status)) {
		ds_image_wipe(cap->image);
		TALLOC_FREE(cap);
		return status;
	}
	ds_image_commit(cap->image);
	ds_image_complete(cap->image);

	*_cap = cap;
	return NT_STATUS_OK;
}

/*
 * The first connection of an image is the one that the process was started
 * for, the others join as further channels do.
 */
/*
 * The socket that has this cookie, as ds_restore_fd()
 */
static int ds_restore_socket(struct ds_restore *restore, uint64_t cookie)
{
	size_t i;

	for (i = 0; i < restore->num_fds; i++) {
		if ((restore->fds[i] != -1) &&
		    (ds_socket_cookie(restore->fds[i]) == cookie))
		{
			return ds_restore_fd(restore, i);
		}
	}
	return -1;
}

static NTSTATUS ds_restore_connection_record(
	struct ds_restore *restore,
	const struct ds_connection *record,
	struct smbXsrv_connection **first)
{
	struct smbXsrv_connection *xconn = *first;
	NTSTATUS status;
	int fd;

	if ((xconn != NULL) &&
	    ((record->cookie == 0) ||
	     (record->cookie == ds_socket_cookie(xconn->transport.sock))))
	{
		*first = NULL;
		return ds_restore_connection(restore, record, xconn);
	}

	fd = (record->cookie == 0) ?
		ds_restore_fd(restore, record->fd) :
		ds_restore_socket(restore, record->cookie);
	if (fd == -1) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	status = smbd_add_connection(
		restore->client, fd, record->connect_time, &xconn);
	if (!NT_STATUS_IS_OK(status)) {
		/* the client has closed it; its sessions have others */
		close(fd);
		ds_restore_lost(restore, "channel", "", status);
		return NT_STATUS_OK;
	}
	return ds_restore_connection(restore, record, xconn);
}

#define DS_PULL(mem_ctx, data, record, name) \
	ndr_pull_struct_blob_all( \
		data, mem_ctx, record, (ndr_pull_flags_fn_t)ndr_pull_##name)

static NTSTATUS ds_restore_record(struct ds_restore *restore,
				  uint32_t type,
				  uint64_t key,
				  const DATA_BLOB *data,
				  struct smbXsrv_connection **first)
{
	TALLOC_CTX *frame = talloc_stackframe();
	union {
		struct ds_connection connection;
		struct ds_session session;
		struct ds_tcon tcon;
		struct ds_open open;
		struct ds_request request;
	} r;
	struct smbd_smb2_request *req = NULL;
	enum ndr_err_code ndr_err;
	size_t i;
	NTSTATUS status = NT_STATUS_INVALID_PARAMETER;

	if ((restore->old == NULL) != (type == DS_RECORD_CLIENT)) {
		/* the client comes first, and once */
		goto done;
	}

	switch (type) {
	case DS_RECORD_CLIENT:
		restore->old = talloc(restore, struct ds_client);
		if (restore->old == NULL) {
			status = NT_STATUS_NO_MEMORY;
			goto done;
		}
		ndr_err = DS_PULL(restore->old, data, restore->old, ds_client);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			/* by it the client's leases are found */
			restore->client->global->client_guid =
				restore->old->client_guid;
			restore->former[0] = restore->old->server_id;
			for (i = 0;
			     (restore->resume != NULL) &&
			     (i < restore->num_former);
			     i++) {
				/*
				 * or we would wait for it, as long as it is a
				 * zombie; of others everybody sees that they
				 * are gone
				 */
				if (serverid_exists(&restore->former[i])) {
					share_mode_unlock_killed(
						restore->former[i]);
				}
			}
			status = NT_STATUS_OK;
		}
		break;
	case DS_RECORD_CONNECTION:
		ndr_err = DS_PULL(frame, data, &r.connection, ds_connection);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			status = ds_restore_connection_record(
				restore, &r.connection, first);
		}
		break;
	case DS_RECORD_SESSION:
		ndr_err = DS_PULL(frame, data, &r.session, ds_session);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			status = ds_restore_session(restore, &r.session);
		}
		break;
	case DS_RECORD_TCON:
		ndr_err = DS_PULL(frame, data, &r.tcon, ds_tcon);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			status = ds_restore_tcon(restore, &r.tcon);
		}
		break;
	case DS_RECORD_OPEN:
		ds_resume_undo(restore);
		ndr_err = DS_PULL(frame, data, &r.open, ds_open);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			status = ds_restore_open(restore, &r.open);
		}
		break;
	case DS_RECORD_REQUEST:
		ndr_err = DS_PULL(frame, data, &r.request, ds_request);
		if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
			status = ds_restore_request(
				restore, &r.request, &req);
		}
		break;
	case DS_RECORD_CHANNEL:
		status = ds_resume_channel(restore, key, *data);
		break;
	case DS_RECORD_SEEN:
		status = ds_resume_seen(restore, key, *data);
		break;
	case DS_RECORD_EFFECT:
		status = ds_resume_effect(restore, *data);
		break;
	case DS_RECORD_SLOTS:
		status = ds_resume_slots(restore, *data);
		break;
	default:
		break;
	}
done:
	if (!NT_STATUS_IS_OK(status)) {
		DBG_ERR("record of type %" PRIu32 " (%zu bytes) cannot be "
			"restored: %s\n",
			type,
			data->length,
			nt_errstr(status));
	}
	TALLOC_FREE(frame);
	return status;
}

/*
 * Those that came to bring it back before, each of which says so before it
 * makes anything its own; and this one.
 */
static NTSTATUS ds_restore_former(const struct ds_image *image,
				  struct ds_restore *restore)
{
	uint8_t *notes = ds_image_notes(image);
	uint64_t *num = (uint64_t *)notes;
	uint8_t *ids = notes + sizeof(*num);
	const size_t max = (DS_IMAGE_NOTES - sizeof(*num)) /
			   SERVER_ID_BUF_LENGTH;
	size_t i;

	if (*num >= max) {
		DBG_ERR("%" PRIu64 " processes have ended when they brought "
			"this client back\n",
			*num);
		return NT_STATUS_CANNOT_MAKE;
	}
	restore->former = talloc_zero_array(
		restore, struct server_id, 1 + *num);
	if (restore->former == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	/* the first one is in the client's record */
	restore->num_former = 1 + *num;
	for (i = 0; i < *num; i++) {
		server_id_get(&restore->former[1 + i],
			      ids + i * SERVER_ID_BUF_LENGTH);
	}
	server_id_put(ids + *num * SERVER_ID_BUF_LENGTH,
		      messaging_server_id(restore->sconn->msg_ctx));
	__atomic_store_n(num, *num + 1, __ATOMIC_RELEASE);
	return NT_STATUS_OK;
}

bool ds_restore_is_former(const struct ds_restore *restore,
			  const struct server_id *id)
{
	size_t i;

	for (i = 0; i < restore->num_former; i++) {
		if (server_id_equal(&restore->former[i], id)) {
			return true;
		}
	}
	return false;
}

NTSTATUS ds_restore_client(const struct ds_image *image,
			   struct ds_restore *restore,
			   struct smbXsrv_connection *xconn)
{
	struct smbXsrv_client *client = restore->client;
	struct smbXsrv_connection *first = xconn;
	size_t pos = 0;
	size_t i;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;
	NTSTATUS status;

	restore->image = image;
	status = ds_restore_former(image, restore);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}

	while (ds_image_next(image, &pos, &type, &key, &data)) {
		status = ds_restore_record(
			restore, type, key, &data, &first);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}
	if ((restore->old == NULL) || (first != NULL)) {
		return NT_STATUS_INVALID_PARAMETER;
	}
	if (restore->resume != NULL) {
		ds_resume_undo(restore);
		if (restore->resume->num_channels == 0) {
			return NT_STATUS_INVALID_PARAMETER;
		}
	}

	ds_restore_watches(restore);

	client->global->initial_connect_time = restore->old->connect_time;
	client->next_channel_id = restore->old->next_channel_id;
	client->server_multi_channel_enabled =
		(restore->old->next_channel_id != 0);
	global_client_caps = restore->old->global_client_caps;

	if (restore->old->stored) {
		for (i = 0; i < restore->num_former; i++) {
			status = smbXsrv_client_adopt(
				client,
				&restore->old->client_guid,
				&restore->former[i]);
			if (NT_STATUS_IS_OK(status)) {
				break;
			}
		}
		if (!NT_STATUS_IS_OK(status)) {
			/* no further channels for this one, no harm else */
			DBG_WARNING("cannot keep the client GUID: %s\n",
				    nt_errstr(status));
		}
	}
	return NT_STATUS_OK;
}
