/*
   durable_state: what a client has, for the status

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
#include "../lib/tsocket/tsocket.h"
#include "../libcli/smb/smb_constants.h"
#include "auth.h"
#include "options.h"
#include "records.h"
#include "save.h"
#include "process.h"

enum ds_protection ds_protection(struct smbd_server_connection *sconn,
				 const char **reason)
{
	const struct smbXsrv_connection *xconn = NULL;
	const struct connection_struct *conn = NULL;
	const struct files_struct *fsp = NULL;
	size_t num_pipes = 0;

	*reason = "";

	for (xconn = sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		if ((xconn->protocol != PROTOCOL_NONE) &&
		    (xconn->protocol < PROTOCOL_SMB2_02))
		{
			*reason = "SMB1 connections are not protected";
			return DS_UNPROTECTED;
		}
	}

	for (conn = sconn->connections; conn != NULL; conn = conn->next) {
		const char *share = lp_const_servicename(SNUM(conn));

		if (IS_IPC(conn)) {
			continue;
		}
		if (IS_PRINT(conn)) {
			*reason = talloc_asprintf(
				talloc_tos(),
				"'%s' is a printer",
				share);
			return DS_UNPROTECTED;
		}
		if (!ds_config_share(SNUM(conn))) {
			*reason = talloc_asprintf(
				talloc_tos(),
				"share '%s' has no "
				"'vfs objects = durable_state'",
				share);
			return DS_UNPROTECTED;
		}
	}

	for (fsp = sconn->files; fsp != NULL; fsp = fsp->next) {
		if ((fsp->op != NULL) && (fsp->fake_file_handle != NULL)) {
			num_pipes += 1;
		}
	}
	if (num_pipes != 0) {
		*reason = talloc_asprintf(
			talloc_tos(),
			"%zu named pipes will be disconnected",
			num_pipes);
		return DS_PARTLY_PROTECTED;
	}
	return DS_PROTECTED;
}

static char *ds_address(TALLOC_CTX *mem_ctx,
			const struct tsocket_address *address)
{
	char *name = NULL;
	char *result = NULL;

	if (!tsocket_address_is_inet(address, "ip")) {
		return tsocket_address_string(address, mem_ctx);
	}
	name = tsocket_address_inet_addr_string(address, mem_ctx);
	result = talloc_asprintf(mem_ctx,
				 tsocket_address_is_inet(address, "ipv6") ?
					 "[%s]:%u" : "%s:%u",
				 name,
				 tsocket_address_inet_port(address));
	TALLOC_FREE(name);
	return result;
}

char *ds_client_name(TALLOC_CTX *mem_ctx,
		     struct smbd_server_connection *sconn)
{
	return ds_address(mem_ctx, sconn->remote_address);
}

static const char *ds_dialect(const struct smbXsrv_connection *xconn)
{
	if (xconn == NULL) {
		return "";
	}
	if (xconn->protocol == PROTOCOL_NONE) {
		return "";
	}
	if (xconn->protocol < PROTOCOL_SMB2_02) {
		return "NT1";
	}
	switch (xconn->smb2.server.dialect) {
	case SMB2_DIALECT_REVISION_202:
		return "SMB2_02";
	case SMB2_DIALECT_REVISION_210:
		return "SMB2_10";
	case SMB3_DIALECT_REVISION_300:
		return "SMB3_00";
	case SMB3_DIALECT_REVISION_302:
		return "SMB3_02";
	case SMB3_DIALECT_REVISION_311:
		return "SMB3_11";
	}
	return "unknown";
}

struct ds_session_count {
	size_t num;
	char *user;
};

static int ds_session_count_fn(struct smbXsrv_session *session,
			       void *private_data)
{
	struct ds_session_count *count = private_data;
	const struct auth_session_info *info =
		session->global->auth_session_info;

	if (info == NULL) {
		return 0;
	}
	count->num += 1;
	if (count->user == NULL) {
		count->user = talloc_asprintf(talloc_tos(),
					      "%s\\%s",
					      info->info->domain_name,
					      info->info->account_name);
	}
	return 0;
}

/*
 * What the image would take. Writing one is the way to know.
 */
static size_t ds_image_estimate(struct smbd_server_connection *sconn)
{
	struct ds_capture *cap = NULL;
	size_t size;
	NTSTATUS status;

	status = ds_capture_client(talloc_tos(), sconn->client, 0, &cap);
	if (!NT_STATUS_IS_OK(status)) {
		return 0;
	}
	size = ds_image_size(cap->image);
	ds_image_wipe(cap->image);
	TALLOC_FREE(cap);
	return size;
}

json_t *ds_client_status(struct smbd_server_connection *sconn)
{
	TALLOC_CTX *frame = talloc_stackframe();
	const struct smbXsrv_connection *xconn = NULL;
	const struct connection_struct *conn = NULL;
	const struct files_struct *fsp = NULL;
	struct smbd_smb2_request *req = NULL;
	static const char *words[] = { "full", "partly", "none" };
	struct ds_session_count sessions = { .num = 0 };
	json_t *shares = json_array();
	json_t *result = NULL;
	size_t num_channels = 0;
	size_t num_waiting = 0;
	size_t num_tcons = 0;
	size_t num_opens = 0;
	size_t num_leases = 0;
	size_t num_locks = 0;
	enum ds_protection protection;
	const char *reason = NULL;

	for (xconn = sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		num_channels += 1;
		for (req = xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			num_waiting += ds_request_waits(req) ? 1 : 0;
		}
	}
	if (sconn->client->session_table != NULL) {
		(void)smbXsrv_session_local_traverse(
			sconn->client, ds_session_count_fn, &sessions);
	}
	for (conn = sconn->connections; conn != NULL; conn = conn->next) {
		num_tcons += 1;
		json_array_append_new(
			shares,
			json_string(lp_const_servicename(SNUM(conn))));
	}
	for (fsp = sconn->files; fsp != NULL; fsp = fsp->next) {
		if (fsp->op == NULL) {
			continue;
		}
		num_opens += 1;
		/* NO_LOCKING_COUNT is negative */
		num_locks += MAX(fsp->current_lock_count, 0);
		num_leases += (fsp->oplock_type == LEASE_OPLOCK) ? 1 : 0;
	}
	protection = ds_protection(sconn, &reason);
	if ((protection == DS_PROTECTED) && !ds_save_running()) {
		protection = DS_PARTLY_PROTECTED;
		reason = talloc_asprintf(frame,
					 "a crash ends the connection: %s",
					 ds_save_reason());
	}

	result = json_pack(
		"{sI ss ss ss ss sI sI sI sI sI sI sI sI so ss ss}",
		"pid", (json_int_t)getpid(),
		"client", ds_client_name(frame, sconn),
		"server", ds_address(frame, sconn->local_address),
		"user", sessions.user != NULL ? sessions.user : "",
		"dialect", ds_dialect(sconn->client->connections),
		"channels", (json_int_t)num_channels,
		"sessions", (json_int_t)sessions.num,
		"tcons", (json_int_t)num_tcons,
		"opens", (json_int_t)num_opens,
		"locks", (json_int_t)num_locks,
		"leases", (json_int_t)num_leases,
		"waiting", (json_int_t)num_waiting,
		"image_size", (json_int_t)ds_image_estimate(sconn),
		"shares", shares,
		"protected", words[protection],
		"reason", reason);
	TALLOC_FREE(frame);
	return result;
}
