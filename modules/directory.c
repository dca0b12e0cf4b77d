/*
   durable_state: capture and restore of directory scans and change notification

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
#include "smbd/dir.h"
#include "lib/util/server_id_db.h"
#include "messages.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"
#include "save.h"

/* notifyd does nothing that takes long */
#define DS_NOTIFYD_READ_MSEC 1000

/*
 * Where the scan was before the QUERY_DIRECTORY that is in progress
 */
static void ds_capture_former_scan(TALLOC_CTX *mem_ctx,
				   struct files_struct *fsp,
				   struct ds_open *record)
{
	DATA_BLOB blob = ds_vfs_scan(fsp);
	enum ndr_err_code ndr_err;

	if (blob.length == 0) {
		/* at its beginning */
		return;
	}
	record->scan = talloc(mem_ctx, struct ds_scan);
	if (record->scan == NULL) {
		return;
	}
	ndr_err = ndr_pull_struct_blob_all(
		&blob,
		record->scan,
		record->scan,
		(ndr_pull_flags_fn_t)ndr_pull_ds_scan);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		TALLOC_FREE(record->scan);
	}
}

static void ds_keep_scan(struct files_struct *fsp,
			 const struct ds_scan *scan)
{
	DATA_BLOB blob = data_blob_null;
	enum ndr_err_code ndr_err;

	ndr_err = ndr_push_struct_blob(
		&blob,
		talloc_tos(),
		scan,
		(ndr_push_flags_fn_t)ndr_push_ds_scan);
	if (NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		ds_vfs_keep_scan(fsp, blob);
		data_blob_free(&blob);
	}
}

void ds_capture_scan(TALLOC_CTX *mem_ctx,
		     struct files_struct *fsp,
		     bool live,
		     struct ds_open *record)
{
	struct dptr_state state;

	if (fsp->dptr == NULL) {
		return;
	}
	if (live && ds_save_is_scanning(fsp)) {
		ds_capture_former_scan(mem_ctx, fsp, record);
		return;
	}

	dptr_get_state(fsp->dptr, &state);

	record->scan = talloc(mem_ctx, struct ds_scan);
	if (record->scan == NULL) {
		/* the scan begins anew */
		return;
	}
	*record->scan = (struct ds_scan) {
		.wcard = state.wcard,
		.attr = state.attr,
		.has_wild = state.has_wild,
		.did_stat = state.did_stat,
		.priv = state.priv,
		.file_number = state.file_number,
		.offset = state.offset,
		.overflow_fname = state.overflow_fname,
		.overflow_dname = state.overflow_dname,
		.overflow_mode = state.overflow_mode,
	};
	if (live) {
		ds_keep_scan(fsp, record->scan);
	}
}

NTSTATUS ds_restore_scan(struct files_struct *fsp,
			 const struct ds_scan *scan)
{
	struct dptr_state state = {
		.wcard = scan->wcard,
		.attr = scan->attr,
		.has_wild = scan->has_wild,
		.did_stat = scan->did_stat,
		.priv = scan->priv,
		.file_number = scan->file_number,
		.offset = scan->offset,
		.overflow_fname = scan->overflow_fname,
		.overflow_dname = scan->overflow_dname,
		.overflow_mode = scan->overflow_mode,
	};
	NTSTATUS status;

	if ((scan->overflow_fname == NULL) != (scan->overflow_dname == NULL)) {
		return NT_STATUS_INVALID_PARAMETER;
	}

	status = dptr_create(fsp->conn,
			     NULL, /* req */
			     fsp,
			     false, /* old_handle: SMB1 */
			     scan->wcard,
			     scan->attr,
			     &fsp->dptr);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	dptr_set_state(fsp->dptr, &state);
	return NT_STATUS_OK;
}

NTSTATUS ds_capture_notify(TALLOC_CTX *mem_ctx,
			   struct files_struct *fsp,
			   bool live,
			   struct ds_open *record)
{
	struct change_notify_state state;
	struct ds_notify *notify = NULL;
	NTTIME ctime;
	int i;
	NTSTATUS status;

	if (!change_notify_get_state(mem_ctx, fsp, &state)) {
		return NT_STATUS_OK;
	}
	status = vfs_stat_fsp(fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}

	if (live) {
		ctime = ds_certain_time(&fsp->fsp_name->st.st_ex_ctime);
	} else {
		/* clients rest, and so do those that they would be told of */
		ctime = full_timespec_to_nt_time(
			&fsp->fsp_name->st.st_ex_ctime);
	}
	if (ctime == 0) {
		ds_save_again_soon();
	}

	notify = talloc(mem_ctx, struct ds_notify);
	if (notify == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	*notify = (struct ds_notify) {
		.filter = state.filter,
		.subdir_filter = state.subdir_filter,
		.max_buffer_size = state.max_buffer_size,
		.overrun = (state.num_changes == -1),
		.ctime = ctime,
	};
	if (state.num_changes > 0) {
		notify->changes = talloc_zero_array(
			notify, struct ds_notify_change, state.num_changes);
		if (notify->changes == NULL) {
			return NT_STATUS_NO_MEMORY;
		}
		notify->num_changes = state.num_changes;
	}
	for (i = 0; i < (int)notify->num_changes; i++) {
		notify->changes[i] = (struct ds_notify_change) {
			.seconds = state.changes[i].when.tv_sec,
			.nanoseconds = state.changes[i].when.tv_nsec,
			.action = state.changes[i].action,
			.name = state.changes[i].name,
		};
	}

	record->notify = notify;
	return NT_STATUS_OK;
}

/*
 * Does all that it watches for show in the directory's change time?
 */
static bool ds_notify_is_plain(const struct ds_notify *notify)
{
	const uint32_t names = FILE_NOTIFY_CHANGE_FILE_NAME |
			       FILE_NOTIFY_CHANGE_DIR_NAME;

	return (notify->subdir_filter == 0) &&
	       ((notify->filter & ~names) == 0);
}

NTSTATUS ds_restore_notify(struct ds_restore *restore,
			   struct files_struct *fsp,
			   const struct ds_notify *notify)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct change_notify_state state = {
		.filter = notify->filter,
		.subdir_filter = notify->subdir_filter,
		.max_buffer_size = notify->max_buffer_size,
		.num_changes = notify->num_changes,
	};
	struct ds_watch *watches = NULL;
	uint32_t i;
	NTSTATUS status;

	state.changes = talloc_zero_array(
		frame, struct change_notify_record, notify->num_changes);
	if (state.changes == NULL) {
		status = NT_STATUS_NO_MEMORY;
		goto done;
	}
	for (i = 0; i < notify->num_changes; i++) {
		const struct ds_notify_change *c = &notify->changes[i];

		if (c->name == NULL) {
			status = NT_STATUS_INVALID_PARAMETER;
			goto done;
		}
		state.changes[i] = (struct change_notify_record) {
			.when.tv_sec = c->seconds,
			.when.tv_nsec = c->nanoseconds,
			.action = c->action,
			.name = c->name,
		};
	}

	if (notify->overrun) {
		/* NOTIFY_ENUM_DIR: something happened, look yourself */
		state.num_changes = -1;
	}

	status = change_notify_set_state(fsp, &state);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}

	watches = talloc_realloc(restore,
				 restore->watches,
				 struct ds_watch,
				 restore->num_watches + 1);
	if (watches == NULL) {
		status = NT_STATUS_NO_MEMORY;
		goto done;
	}
	watches[restore->num_watches] = (struct ds_watch) {
		.fsp = fsp,
		.ctime = notify->ctime,
		.plain = ds_notify_is_plain(notify),
	};
	restore->watches = watches;
	restore->num_watches += 1;
done:
	TALLOC_FREE(frame);
	return status;
}

/*
 * Until notifyd has read what we have sent to it: it does so in turn.
 */
static void ds_wait_for_notifyd(struct messaging_context *msg_ctx)
{
	struct server_id notifyd = { .pid = 0 };
	struct tevent_context *ev = NULL;
	struct tevent_req *req = NULL;
	NTSTATUS status = NT_STATUS_NOT_FOUND;

	ev = samba_tevent_context_init(msg_ctx);
	if (ev == NULL) {
		return;
	}
	req = messaging_read_send(ev, ev, msg_ctx, MSG_PONG);
	if ((req != NULL) &&
	    tevent_req_set_endtime(
		    req,
		    ev,
		    timeval_current_ofs_msec(DS_NOTIFYD_READ_MSEC)) &&
	    server_id_db_lookup_one(messaging_names_db(msg_ctx),
				    "notify-daemon",
				    &notifyd))
	{
		status = messaging_send_buf(
			msg_ctx, notifyd, MSG_PING, NULL, 0);
	}
	if (!NT_STATUS_IS_OK(status) || !tevent_req_poll(req, ev) ||
	    (messaging_read_recv(req, NULL, NULL) != 0))
	{
		DBG_WARNING("notifyd does not answer: clients may not be told "
			    "of a change in a directory\n");
	}
	TALLOC_FREE(req);
	TALLOC_FREE(ev);
}

/*
 * From here on all changes are told. Was there one before, of which nobody
 * was told?
 */
void ds_restore_watches(struct ds_restore *restore)
{
	size_t i;

	if (restore->num_watches == 0) {
		return;
	}
	ds_wait_for_notifyd(restore->sconn->msg_ctx);

	for (i = 0; i < restore->num_watches; i++) {
		const struct ds_watch *w = &restore->watches[i];
		bool same = NT_STATUS_IS_OK(vfs_stat_fsp(w->fsp)) &&
			    (w->ctime == full_timespec_to_nt_time(
				&w->fsp->fsp_name->st.st_ex_ctime));

		if (!same || ((restore->resume != NULL) && !w->plain)) {
			change_notify_set_overrun(w->fsp);
		}
	}
}
