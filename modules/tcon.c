/*
   durable_state: capture and restore of a tree connect

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
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"

NTSTATUS ds_capture_tcon(struct ds_capture *cap,
			 struct smbXsrv_session *session,
			 struct smbXsrv_tcon *tcon)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_tcon_globalB global = {
		.version = SMBXSRV_VERSION_0,
		.info.info0 = tcon->global,
	};
	struct ds_tcon record = {
		.session_id = session->global->session_wire_id,
		.idle_time = tcon->idle_time,
		.aapl = ds_vfs_aapl(tcon->compat),
	};
	enum ndr_err_code ndr_err;
	NTSTATUS status;

	ndr_err = ndr_push_struct_blob(
		&record.global,
		frame,
		&global,
		(ndr_push_flags_fn_t)ndr_push_smbXsrv_tcon_globalB);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		status = ndr_map_error2ntstatus(ndr_err);
		goto done;
	}

	status = ds_capture_record(cap,
				   DS_RECORD_TCON,
				   tcon->global->tcon_global_id,
				   &record,
				   (ndr_push_flags_fn_t)ndr_push_ds_tcon);
done:
	TALLOC_FREE(frame);
	return status;
}

/*
 * May the share be used by this session as it is configured now? What a
 * tree connect asks beyond make_connection_snum(), smb2_tcon.c.
 */
static NTSTATUS ds_tcon_check(const struct smbXsrv_tcon_global0 *global,
			      int snum)
{
	if (snum == -1) {
		return NT_STATUS_BAD_NETWORK_NAME;
	}
	if ((lp_server_smb_encrypt(snum) == SMB_ENCRYPTION_REQUIRED) &&
	    !(global->encryption_flags & SMBXSRV_ENCRYPTION_REQUIRED))
	{
		return NT_STATUS_ACCESS_DENIED;
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_restore_tcon(struct ds_restore *restore,
			 const struct ds_tcon *record)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_tcon_globalB global_blob = { .version = 0 };
	struct smbXsrv_tcon_global0 *global = NULL;
	struct smbXsrv_session *session = NULL;
	struct smbXsrv_tcon *tcon = NULL;
	connection_struct *conn = NULL;
	const char *share = NULL;
	char *service = NULL;
	enum ndr_err_code ndr_err;
	int snum;
	NTSTATUS status;

	ndr_err = ndr_pull_struct_blob(
		&record->global,
		frame,
		&global_blob,
		(ndr_pull_flags_fn_t)ndr_pull_smbXsrv_tcon_globalB);
	status = ds_pulled(
		ndr_err, global_blob.version, global_blob.info.info0);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
	global = global_blob.info.info0;
	share = talloc_strdup(frame, global->share_name);

	/* an expired session is one as well */
	status = smb2srv_session_lookup_client(
		restore->client,
		record->session_id,
		restore->old->frozen,
		&session);
	if (session == NULL) {
		/* it did not come back, and was counted */
		status = NT_STATUS_OK;
		goto done;
	}

	snum = find_service(frame, share, &service);
	status = ds_tcon_check(global, snum);
	if (!NT_STATUS_IS_OK(status)) {
		goto lost;
	}

	status = smb2srv_tcon_restore(
		session, global, record->idle_time, &tcon);
	if (!NT_STATUS_IS_OK(status)) {
		goto lost;
	}
	conn = restore_connection_smb2(
		restore->client->connections, session, tcon, snum, &status);
	if (conn == NULL) {
		TALLOC_FREE(tcon);
		goto lost;
	}
	tcon->compat = talloc_move(tcon, &conn);
	tcon->status = NT_STATUS_OK;

	if (record->aapl.length != 0) {
		status = ds_vfs_aapl_repeat(tcon->compat,
					    record->session_id,
					    record->aapl);
		if (!NT_STATUS_IS_OK(status)) {
			ds_restore_lost(restore, "AAPL of", share, status);
			status = NT_STATUS_OK;
		}
	}
	goto done;
lost:
	/*
	 * The client is told NETWORK_NAME_DELETED when it uses this tree
	 * connect, the others go on.
	 */
	ds_restore_lost(restore, "share", share, status);
	status = NT_STATUS_OK;
done:
	TALLOC_FREE(frame);
	return status;
}
