/*
   durable_state: capture and restore of a session

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
#include "../libcli/security/security.h"
#include "../libcli/smb/smb_constants.h"
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "auth.h"
#include "passdb.h"
#include "passdb/machine_sid.h"
#include "source3/lib/substitute.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"

/*
 * A nonce must never be used twice with one key ([MS-SMB2] 3.3.4.1.4). The
 * image has the newest nonce that was used; the distance is there for one
 * that was used after the image was written.
 */
#define DS_NONCE_JUMP 1

NTSTATUS ds_capture_session(struct ds_capture *cap,
			    struct smbXsrv_session *session)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_session_globalB global = {
		.version = SMBXSRV_VERSION_0,
		.info.info0 = session->global,
	};
	struct ds_session record = {
		.status = session->status,
		.idle_time = session->idle_time,
		.nonce_high_random = session->nonce_high_random,
		.nonce_high_max = session->nonce_high_max,
		.nonce_high = session->nonce_high,
		.nonce_low = session->nonce_low,
	};
	enum ndr_err_code ndr_err;
	NTSTATUS status;

	ndr_err = ndr_push_struct_blob(
		&record.global,
		frame,
		&global,
		(ndr_push_flags_fn_t)ndr_push_smbXsrv_session_globalB);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		status = ndr_map_error2ntstatus(ndr_err);
		goto done;
	}
	talloc_keep_secret(record.global.data);

	status = ds_capture_record(cap,
				   DS_RECORD_SESSION,
				   session->global->session_wire_id,
				   &record,
				   (ndr_push_flags_fn_t)ndr_push_ds_session);
done:
	TALLOC_FREE(frame);
	return status;
}

/*
 * A channel belongs to the connection that has its id. Channels whose
 * connection did not come along are gone.
 */
static NTSTATUS ds_restore_channels(struct ds_restore *restore,
				    struct smbXsrv_session_global0 *global)
{
	uint32_t num = 0;
	uint32_t i;

	for (i = 0; i < global->num_channels; i++) {
		struct smbXsrv_channel_global0 *c = &global->channels[i];

		c->connection = ds_find_channel(restore->client,
						c->channel_id);
		if (c->connection == NULL) {
			continue;
		}
		global->channels[num] = *c;
		num += 1;
	}
	global->num_channels = num;

	return (num == 0) ? NT_STATUS_CONNECTION_DISCONNECTED : NT_STATUS_OK;
}

static const char *ds_session_user(const struct smbXsrv_session_global0 *global)
{
	const struct auth_session_info *info = global->auth_session_info;

	return (info != NULL) ? info->info->account_name : "";
}

/*
 * Is there still such a user? Only our own SAM is asked: a domain's users
 * are valid as long as their session is, with smbd too.
 */
static bool ds_session_user_exists(const struct auth_session_info *info)
{
	const struct security_token *token = info->security_token;
	struct samu *sam = NULL;
	const struct dom_sid *sid = NULL;
	bool ok;

	if (security_session_user_level(info, NULL) < SECURITY_USER) {
		return true;
	}
	sid = &token->sids[PRIMARY_USER_SID_INDEX];
	if (!sid_check_is_in_our_sam(sid)) {
		return true;
	}
	sam = samu_new(talloc_tos());
	if (sam == NULL) {
		return true;
	}
	ok = pdb_getsampwsid(sam, sid);
	TALLOC_FREE(sam);
	return ok && (getpwuid(info->unix_token->uid) != NULL);
}

/*
 * What smbd does not look whether it is there: in NDR it need not be.
 */
static bool ds_session_info_is_whole(const struct auth_session_info *info)
{
	return (info == NULL) ||
	       ((info->security_token != NULL) &&
		(info->security_token->num_sids > PRIMARY_USER_SID_INDEX) &&
		(info->unix_token != NULL) && (info->unix_info != NULL) &&
		(info->unix_info->unix_name != NULL) &&
		(info->unix_info->sanitized_username != NULL) &&
		(info->info != NULL) && (info->info->account_name != NULL) &&
		(info->info->domain_name != NULL));
}

NTSTATUS ds_restore_session(struct ds_restore *restore,
			    const struct ds_session *record)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_session_globalB global_blob = { .version = 0 };
	struct smbXsrv_session_global0 *global = NULL;
	struct smbXsrv_session *session = NULL;
	struct auth_session_info *info = NULL;
	enum ndr_err_code ndr_err;
	NTSTATUS status;

	talloc_keep_secret(record->global.data);
	ndr_err = ndr_pull_struct_blob(
		&record->global,
		frame,
		&global_blob,
		(ndr_pull_flags_fn_t)ndr_pull_smbXsrv_session_globalB);
	status = ds_pulled(
		ndr_err, global_blob.version, global_blob.info.info0);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
	global = global_blob.info.info0;
	if (!ds_session_info_is_whole(global->auth_session_info)) {
		status = NT_STATUS_INVALID_PARAMETER;
		goto done;
	}

	status = ds_restore_channels(restore, global);
	if (!NT_STATUS_IS_OK(status)) {
		/* what belongs to it is missed by the records that follow */
		ds_restore_lost(restore,
				"session of",
				ds_session_user(global),
				status);
		status = NT_STATUS_OK;
		goto done;
	}
	if ((global->auth_session_info != NULL) &&
	    !ds_session_user_exists(global->auth_session_info))
	{
		/* USER_SESSION_DELETED for the client */
		ds_restore_lost(restore,
				"session of",
				ds_session_user(global),
				NT_STATUS_NO_SUCH_USER);
		goto done;
	}

	status = smbXsrv_session_restore(
		restore->client, global, record->idle_time, &session);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
	session->status = record->status;
	session->nonce_high_random = record->nonce_high_random;
	session->nonce_high_max = record->nonce_high_max;
	session->nonce_high = record->nonce_high;
	if (session->nonce_high_max != 0) {
		session->nonce_high += DS_NONCE_JUMP;
	}
	session->nonce_low = record->nonce_low;

	/* as after a session setup, smb2_sesssetup.c */
	info = session->global->auth_session_info;
	if (info == NULL) {
		goto done;
	}
	talloc_keep_secret(info->session_key.data);
	/* taken away again when the session ends, whatever comes first */
	restore->sconn->num_users += 1;
	if (security_session_user_level(info, NULL) >= SECURITY_USER) {
		session->homes_snum = register_homes_share(
			info->unix_info->unix_name);
	}
	set_current_user_info(info->unix_info->sanitized_username,
			      info->unix_info->unix_name,
			      info->info->domain_name);
	/* the configuration may depend on the user */
	reload_services(restore->sconn, conn_snum_used, true);
done:
	TALLOC_FREE(frame);
	return status;
}
