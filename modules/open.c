/*
   durable_state: capture and restore of an open

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
#include "lib/util/server_id.h"
#include "smbd/fd_handle.h"
#include "source3/smbd/smbXsrv_session.h"
#include "smbd/smbXsrv_open.h"
#include "locking/share_mode_lock.h"
#include "locking/leases_db.h"
#include "librpc/gen_ndr/ndr_leases_db.h"
#include "locking/proto.h"
#include "librpc/gen_ndr/open_files.h"
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "rpc_server/srv_pipe_hnd.h"
#include "messages.h"
#include "durable_state/ndr_durable_state.h"
#include "records.h"
#include "resume.h"
#include "save.h"

/* Bit fields have no address: the pairs, once */
#define DS_FSP_FLAGS(F) \
	F(DS_FSP_IS_PATHREF, is_pathref) \
	F(DS_FSP_UPDATE_WRITE_TIME_TRIGGERED, update_write_time_triggered) \
	F(DS_FSP_UPDATE_WRITE_TIME_ON_CLOSE, update_write_time_on_close) \
	F(DS_FSP_WRITE_TIME_FORCED, write_time_forced) \
	F(DS_FSP_CAN_LOCK, can_lock) \
	F(DS_FSP_CAN_READ, can_read) \
	F(DS_FSP_CAN_WRITE, can_write) \
	F(DS_FSP_MODIFIED, modified) \
	F(DS_FSP_IS_DIRECTORY, is_directory) \
	F(DS_FSP_INITIAL_DELETE_ON_CLOSE, initial_delete_on_close) \
	F(DS_FSP_DELETE_ON_CLOSE, delete_on_close) \
	F(DS_FSP_IS_SPARSE, is_sparse) \
	F(DS_FSP_BACKUP_INTENT, backup_intent) \
	F(DS_FSP_USE_OFD_LOCKS, use_ofd_locks) \
	F(DS_FSP_LOCK_FAILURE_SEEN, lock_failure_seen) \
	F(DS_FSP_ENCRYPTION_REQUIRED, encryption_required) \
	F(DS_FSP_FSTAT_BEFORE_CLOSE, fstat_before_close) \
	F(DS_FSP_POSIX_OPEN, posix_open) \
	F(DS_FSP_POSIX_APPEND, posix_append) \
	F(DS_FSP_KERNEL_SHARE_MODES_TAKEN, kernel_share_modes_taken)

uint32_t ds_fsp_flags(const struct files_struct *fsp)
{
	uint32_t flags = 0;

#define F(bit, field) flags |= fsp->fsp_flags.field ? bit : 0;
	DS_FSP_FLAGS(F)
#undef F
	return flags;
}

static void ds_fsp_flags_set(struct files_struct *fsp, uint32_t flags)
{
#define F(bit, field) fsp->fsp_flags.field = (flags & bit) != 0;
	DS_FSP_FLAGS(F)
#undef F
}

/*
 * Requests that wait are issued again, and counted again then.
 */
static void ds_open_request_counts(const struct smbXsrv_open *op,
				   struct ds_open *record)
{
	const struct smbXsrv_connection *xconn = NULL;
	const struct smbd_smb2_request *req = NULL;

	record->request_count = op->request_count;
	record->pre_request_count = op->pre_request_count;

	for (xconn = op->compat->conn->sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		for (req = xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			if (!req->request_counters_updated ||
			    (req->compat_chain_fsp != op->compat))
			{
				continue;
			}
			if (req->channel_generation ==
			    op->global->channel_generation)
			{
				record->request_count -= 1;
			} else {
				record->pre_request_count -= 1;
			}
		}
	}
}

NTTIME ds_certain_time(const struct timespec *ts)
{
	struct timeval now = timeval_current();
	NTTIME when = full_timespec_to_nt_time(ts);

	return (when + DS_TICK > timeval_to_nttime(&now)) ? 0 : when;
}

/*
 * May the client take what it has read for true, but not write?
 */
static bool ds_open_reads_only(struct files_struct *fsp)
{
	uint32_t state = fsp_lease_type(fsp);

	return (state & SMB2_LEASE_READ) && !(state & SMB2_LEASE_WRITE);
}

/*
 * In which order and how often does matter: shared ones may be stacked.
 */
static NTSTATUS ds_capture_locks(TALLOC_CTX *mem_ctx,
				 struct files_struct *fsp,
				 struct ds_open *record)
{
	struct lock_struct *locks = NULL;
	unsigned int num = 0;
	unsigned int i;

	if (!brl_own_locks(mem_ctx,
			   fsp,
			   brl_get_locks_readonly(fsp),
			   &locks,
			   &num))
	{
		return NT_STATUS_NO_MEMORY;
	}
	record->locks = talloc_array(mem_ctx, struct ds_lock, num);
	if (record->locks == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	record->num_locks = num;
	for (i = 0; i < num; i++) {
		record->locks[i] = (struct ds_lock) {
			.start = locks[i].start,
			.size = locks[i].size,
			.type = locks[i].lock_type,
			.flavour = locks[i].lock_flav,
		};
	}
	return NT_STATUS_OK;
}

NTSTATUS ds_capture_open(struct ds_capture *cap, struct files_struct *fsp)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_open *op = fsp->op;
	struct smbXsrv_open_globalB global = {
		.version = SMBXSRV_VERSION_0,
		.info.info0 = op->global,
	};
	struct ds_open record = {
		.session_id = fsp->vuid,
		.tcon_id = fsp->conn->cnum,
		.idle_time = op->idle_time,
		.flags = op->flags,
		.create_action = op->create_action,
		.is_pipe = fsp_is_np(fsp),
		.fd = DS_NO_FD,
		.base_name = fsp->fsp_name->base_name,
		.stream_name = fsp->fsp_name->stream_name,
		.name_flags = fsp->fsp_name->flags,
		.twrp = fsp->fsp_name->twrp,
		.file_id = fsp->file_id,
		.share_file_id = fh_get_gen_id(fsp->fh),
		.access_mask = fsp->access_mask,
		.private_options = fh_get_private_options(fsp->fh),
		.position_information =
			fh_get_position_information(fsp->fh),
		.pos = fh_get_pos(fsp->fh),
		.initial_allocation_size = fsp->initial_allocation_size,
		.file_pid = fsp->file_pid,
		.mid = fsp->mid,
		.open_time_sec = fsp->open_time.tv_sec,
		.open_time_usec = fsp->open_time.tv_usec,
		.close_write_time = full_timespec_to_nt_time(
			&fsp->close_write_time),
		.oplock_type = fsp->oplock_type,
		.sent_oplock_break = fsp->sent_oplock_break,
		.lock_count = fsp->current_lock_count,
		.has_resume_key = ds_vfs_has_resume_key(fsp),
	};
	struct files_struct *fd_fsp =
		fsp_is_alternate_stream(fsp) ? fsp->base_fsp : fsp;
	enum ndr_err_code ndr_err;
	NTSTATUS status;
	int flags;

	ndr_err = ndr_push_struct_blob(
		&record.global,
		frame,
		&global,
		(ndr_push_flags_fn_t)ndr_push_smbXsrv_open_globalB);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		status = ndr_map_error2ntstatus(ndr_err);
		goto done;
	}
	ds_open_request_counts(op, &record);

	if (record.is_pipe) {
		record.fsp_flags = ds_fsp_flags(fsp);
		goto store;
	}

	record.fsp_flags = ds_fsp_flags(fsp);
	if (fd_fsp != fsp) {
		record.base_share_file_id = fh_get_gen_id(fd_fsp->fh);
		record.base_file_id = fd_fsp->file_id;
		record.base_access_mask = fd_fsp->access_mask;
		record.base_fsp_flags = ds_fsp_flags(fd_fsp);
	}

	record.fd = ds_capture_fd(cap, fsp_get_pathref_fd(fd_fsp));
	flags = fcntl(fsp_get_pathref_fd(fd_fsp), F_GETFL);
	record.fd_flags = (flags == -1) ? 0 : flags;

	if (fsp->oplock_type == LEASE_OPLOCK) {
		record.lease_key = fsp->lease->lease.lease_key;
		record.parent_lease_key = fsp->lease->lease.parent_lease_key;
		record.lease_flags = fsp->lease->lease.lease_flags;
		record.lease_state = fsp->lease->lease.lease_state;
	}
	record.break_timeout = fsp_break_timeout(fsp);

	if (cap->live && (fsp->current_lock_count != 0)) {
		status = ds_capture_locks(frame, fsp, &record);
		if (!NT_STATUS_IS_OK(status)) {
			goto done;
		}
	}

	ds_capture_scan(frame, fsp, cap->live, &record);
	status = ds_capture_notify(frame, fsp, cap->live, &record);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
store:
	status = ds_capture_record(cap,
				   DS_RECORD_OPEN,
				   fsp->op->global->open_persistent_id,
				   &record,
				   (ndr_push_flags_fn_t)ndr_push_ds_open);
done:
	TALLOC_FREE(frame);
	return status;
}

struct ds_restore_open_state {
	struct ds_restore *restore;
	const struct ds_open *record;
	struct files_struct *fsp;
	bool break_sent;
	NTSTATUS status;
};

/*
 * An open that cannot be brought back to its end. From where its entries
 * in the databases are ours they must go with it, and what is not ours
 * names a process that is gone: whoever meets it next removes it.
 */
static void ds_restore_undo(struct files_struct *fsp)
{
	struct files_struct *base_fsp = fsp->base_fsp;

	if (base_fsp != NULL) {
		base_fsp->stream_fsp = NULL;
		fsp->base_fsp = NULL;
	}
	if (fsp->fsp_flags.is_fsa) {
		close_file_free(NULL, &fsp, ERROR_CLOSE);
	} else {
		fd_close(fsp);
		file_free(NULL, fsp);
	}
	if (base_fsp != NULL) {
		close_file_free(NULL, &base_fsp, ERROR_CLOSE);
	}
}

/*
 * smbd writes a lease break down before it sends it. If the client was not
 * told it is sent now: nobody else does, and others wait for it.
 */
static NTSTATUS ds_restore_break(struct ds_restore_open_state *state,
				 uint32_t to)
{
	struct ds_restore *restore = state->restore;
	const struct ds_open *record = state->record;
	struct ds_break *breaks = NULL;
	size_t i;

	if ((record->break_timeout != 0) || ((record->lease_state & ~to) == 0))
	{
		return NT_STATUS_OK;
	}
	for (i = 0; i < restore->num_breaks; i++) {
		if (restore->breaks[i].fsp->lease == state->fsp->lease) {
			return NT_STATUS_OK;
		}
	}
	breaks = talloc_realloc(restore,
				restore->breaks,
				struct ds_break,
				restore->num_breaks + 1);
	if (breaks == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	breaks[restore->num_breaks] = (struct ds_break) {
		.fsp = state->fsp, .from = record->lease_state, .to = to,
	};
	restore->breaks = breaks;
	restore->num_breaks += 1;
	return NT_STATUS_OK;
}

struct ds_leases {
	const struct ds_restore *restore;
	struct ds_left_lease {
		struct smb2_lease_key key;
		struct file_id file_id;
	} *left;
};

static bool ds_lease_is_used(const struct ds_restore *restore,
			     const struct smb2_lease_key *key,
			     const struct file_id *file_id)
{
	const struct files_struct *fsp = NULL;

	for (fsp = restore->sconn->files; fsp != NULL; fsp = fsp->next) {
		if ((fsp->lease != NULL) &&
		    smb2_lease_key_equal(&fsp->lease->lease.lease_key, key) &&
		    file_id_equal(&fsp->file_id, file_id))
		{
			return true;
		}
	}
	return false;
}

static int ds_find_left_lease(const struct leases_db_key *key,
			      const struct leases_db_value *value,
			      void *private_data)
{
	struct ds_leases *leases = private_data;
	const struct ds_restore *restore = leases->restore;
	size_t num = talloc_array_length(leases->left);
	uint32_t i;

	if (!GUID_equal(&key->client_guid, &restore->old->client_guid)) {
		return 0;
	}
	for (i = 0; i < value->num_files; i++) {
		const struct file_id *file_id = &value->files[i].id;

		if (ds_lease_is_used(restore, &key->lease_key, file_id)) {
			continue;
		}
		leases->left = talloc_realloc(
			restore, leases->left, struct ds_left_lease, num + 1);
		if (leases->left == NULL) {
			return -1;
		}
		leases->left[num] = (struct ds_left_lease) {
			.key = key->lease_key, .file_id = *file_id,
		};
		num += 1;
	}
	return 0;
}

static void ds_forget_leases(struct ds_restore *restore)
{
	const struct GUID *guid = &restore->old->client_guid;
	struct ds_leases leases = { .restore = restore, };
	size_t i;

	(void)leases_db_forall_read(ds_find_left_lease, &leases);
	for (i = 0; i < talloc_array_length(leases.left); i++) {
		const struct ds_left_lease *left = &leases.left[i];
		struct share_mode_lock *lck = get_existing_share_mode_lock(
			talloc_tos(), left->file_id);

		if (lck != NULL) {
			/* others of the client may have it as well */
			(void)remove_lease_if_stale(lck, guid, &left->key);
		} else {
			(void)leases_db_del(guid, &left->key, &left->file_id);
		}
		TALLOC_FREE(lck);
	}
	TALLOC_FREE(leases.left);
}

struct ds_entries {
	struct ds_restore *restore;
	struct file_id *left;
};

static int ds_find_left_entry(struct file_id file_id,
			      const struct share_mode_data *data,
			      const struct share_mode_entry *e,
			      void *private_data)
{
	struct ds_entries *entries = private_data;
	size_t num = talloc_array_length(entries->left);

	if (!ds_restore_is_former(entries->restore, &e->pid)) {
		return 0;
	}
	entries->left = talloc_realloc(
		entries->restore, entries->left, struct file_id, num + 1);
	if (entries->left == NULL) {
		return -1;
	}
	entries->left[num] = file_id;
	return 0;
}

static bool ds_forget_entry(struct share_mode_entry *e,
			    bool *modified,
			    void *private_data)
{
	const struct ds_restore *restore = private_data;

	if (ds_restore_is_former(restore, &e->pid)) {
		e->stale = true;
		*modified = true;
	}
	return false;
}

static void ds_forget_entries(struct ds_restore *restore)
{
	struct ds_entries entries = { .restore = restore, };
	size_t i;

	(void)share_entry_forall_read(ds_find_left_entry, &entries);
	for (i = 0; i < talloc_array_length(entries.left); i++) {
		struct share_mode_lock *lck = get_existing_share_mode_lock(
			talloc_tos(), entries.left[i]);

		if (lck != NULL) {
			(void)share_mode_forall_entries(
				lck, ds_forget_entry, restore);
		}
		TALLOC_FREE(lck);
	}
	TALLOC_FREE(entries.left);
}

/*
 * The process before was killed between a lease and the share mode entry, or
 * has opened something that is going to be opened again. Others would take
 * its entries for somebody's as long as it is a zombie.
 */
void ds_restore_forget_opens(struct ds_restore *restore)
{
	ds_forget_entries(restore);
	ds_forget_leases(restore);
}

/*
 * As if the one who has sent it did so now.
 */
static void ds_restore_missed_break(struct files_struct *fsp)
{
	struct share_mode_entry e = {
		.pid = messaging_server_id(fsp->conn->sconn->msg_ctx),
		.share_file_id = fh_get_gen_id(fsp->fh),
	};

	(void)send_break_message(fsp->conn->sconn->msg_ctx,
				 &fsp->file_id,
				 &e,
				 SMB2_LEASE_NONE);
}

void ds_restore_breaks(struct ds_restore *restore)
{
	struct files_struct *missed = NULL;
	size_t i;

	for (missed = restore->sconn->files;
	     (restore->resume != NULL) && (missed != NULL);
	     missed = missed->next) {
		if (missed->op == NULL) {
			continue;
		}
		if (ds_resume_has_missed(restore->resume, missed)) {
			ds_restore_missed_break(missed);
		}
	}

	for (i = 0; i < restore->num_breaks; i++) {
		const struct ds_break *b = &restore->breaks[i];
		struct files_struct *fsp = NULL;

		for (fsp = restore->sconn->files;
		     fsp != NULL;
		     fsp = fsp->next) {
			if (fsp != b->fsp) {
				continue;
			}
			/* the time for the answer begins */
			(void)fsp_lease_update(fsp);
			send_break_message_smb2(fsp, b->from, b->to);
			break;
		}
	}
}

static NTSTATUS ds_restore_lease(struct ds_restore_open_state *state)
{
	const struct ds_open *record = state->record;
	struct files_struct *fsp = state->fsp;
	uint32_t current_state;
	uint32_t required;
	uint16_t version;
	uint16_t epoch;
	bool breaking;
	NTSTATUS status;

	status = leases_db_get(fsp_client_guid(fsp),
			       &record->lease_key,
			       &fsp->file_id,
			       &current_state,
			       &breaking,
			       NULL, /* breaking_to_requested */
			       &required,
			       &version,
			       &epoch);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}

	/*
	 * Looked for among the opens that have a lease: this one has none
	 * yet.
	 */
	fsp->oplock_type = NO_OPLOCK;
	fsp->lease = find_fsp_lease(
		fsp, &record->lease_key, current_state, version, epoch);
	if (fsp->lease == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	fsp->oplock_type = LEASE_OPLOCK;
	fsp->lease->lease.parent_lease_key = record->parent_lease_key;
	fsp->lease->lease.lease_flags = record->lease_flags;
	if (state->restore->resume != NULL) {
		return ds_restore_break(
			state, breaking ? required : current_state);
	}
	return NT_STATUS_OK;
}

static bool ds_same_lock(const struct lock_struct *a, const struct ds_lock *b)
{
	return (a->start == b->start) && (a->size == b->size) &&
	       (a->lock_type == b->type) && (a->lock_flav == b->flavour);
}

/*
 * A lock or unlock that is run again finds what it has found before. Others
 * may have got what had been unlocked: it stays so.
 */
static bool ds_restore_locks(struct files_struct *fsp,
			     struct byte_range_lock *br_lck,
			     const struct ds_open *record)
{
	struct server_id self = messaging_server_id(fsp->conn->sconn->msg_ctx);
	uint64_t smblctx = fsp->op->global->open_persistent_id;
	struct lock_struct *locks = NULL;
	unsigned int num = 0;
	unsigned int same = 0;
	unsigned int i;

	if (!brl_own_locks(talloc_tos(), fsp, br_lck, &locks, &num)) {
		return false;
	}
	while ((same < num) && (same < record->num_locks) &&
	       ds_same_lock(&locks[same], &record->locks[same]))
	{
		same += 1;
	}
	for (i = num; i > same; i--) {
		(void)brl_unlock(br_lck,
				 smblctx,
				 self,
				 locks[i - 1].start,
				 locks[i - 1].size,
				 locks[i - 1].lock_flav);
	}
	for (i = same; i < record->num_locks; i++) {
		struct server_id blocker = { .pid = 0 };
		uint64_t blocker_smblctx = 0;
		NTSTATUS status;

		status = brl_lock(br_lck,
				  smblctx,
				  self,
				  record->locks[i].start,
				  record->locks[i].size,
				  record->locks[i].type,
				  record->locks[i].flavour,
				  &blocker,
				  &blocker_smblctx);
		if (!NT_STATUS_IS_OK(status)) {
			DBG_WARNING("%s: a lock that was being unlocked is "
				    "another's already\n",
				    fsp_str_dbg(fsp));
		}
	}
	TALLOC_FREE(locks);
	if (fsp->current_lock_count != NO_LOCKING_COUNT) {
		fsp->current_lock_count = record->num_locks;
	}
	return true;
}

/*
 * The entry is the former process', or one's that came before us; it has the
 * same number in all of them.
 */
static bool ds_restore_entry(const struct ds_restore *restore,
			     struct share_mode_lock *lck,
			     struct files_struct *fsp,
			     uint64_t mid)
{
	uint64_t id = fh_get_gen_id(fsp->fh);
	bool ok = false;
	size_t i;

	for (i = 0; !ok && (i < restore->num_former); i++) {
		ok = reset_share_mode_entry(
			lck,
			restore->former[i],
			id,
			messaging_server_id(fsp->conn->sconn->msg_ctx),
			mid,
			id);
	}
	return ok;
}

/*
 * The entries in the databases shared with the others become ours. They
 * were never away: nobody got in between.
 */
/*
 * Nobody waits for a break of what is only to read, so one that the killed
 * process did not see is told by nothing else.
 */
static bool ds_find_break_sent(struct share_mode_entry *e,
			       bool *modified,
			       void *private_data)
{
	struct ds_restore_open_state *state = private_data;
	const struct files_struct *fsp = state->fsp;
	struct server_id self = messaging_server_id(fsp->conn->sconn->msg_ctx);

	if (!server_id_equal(&e->pid, &self) ||
	    (e->share_file_id != fh_get_gen_id(fsp->fh)))
	{
		return false;
	}
	state->break_sent = (e->flags & SHARE_MODE_FLAG_BREAK_SENT);
	return true;
}

static void ds_restore_open_locked(struct share_mode_lock *lck,
				   struct byte_range_lock *br_lck,
				   void *private_data)
{
	struct ds_restore_open_state *state = private_data;
	const struct ds_open *record = state->record;
	struct files_struct *fsp = state->fsp;
	const struct ds_restore *restore = state->restore;
	size_t i;
	bool ok;

	if (record->oplock_type == LEASE_OPLOCK) {
		state->status = ds_restore_lease(state);
		if (!NT_STATUS_IS_OK(state->status)) {
			return;
		}
	} else {
		fsp->oplock_type = record->oplock_type;
	}

	ok = ds_restore_entry(restore, lck, fsp, record->mid);
	if (!ok) {
		state->status = NT_STATUS_NOT_FOUND;
		return;
	}
	ok = share_mode_forall_entries(lck, ds_find_break_sent, state);
	if (!ok) {
		state->status = NT_STATUS_INTERNAL_DB_ERROR;
		return;
	}

	/* a close cleans up from here on */
	fsp->fsp_flags.is_fsa = true;

	for (i = 0; (br_lck != NULL) && (i < restore->num_former); i++) {
		ok = brl_adopt(fsp,
			       br_lck,
			       &restore->former[i],
			       restore->resume == NULL);
		if (!ok) {
			state->status = NT_STATUS_INTERNAL_DB_ERROR;
			return;
		}
	}
	if ((br_lck != NULL) && (state->restore->resume != NULL) &&
	    !ds_restore_locks(fsp, br_lck, record))
	{
		state->status = NT_STATUS_NO_MEMORY;
		return;
	}

	state->status = NT_STATUS_OK;
}

/*
 * Open through all VFS modules, so that they can attach what they keep for
 * an open file, but end at the descriptor that travelled.
 */
static NTSTATUS ds_restore_fsp_fd(struct ds_restore *restore,
				  struct files_struct *fsp,
				  const struct ds_open *record)
{
	struct vfs_open_how how = { .flags = record->fd_flags, };
	int kept;
	int fd;

	if (restore->resume != NULL) {
		return ds_resume_fd(fsp, record);
	}
	kept = ds_restore_fd(restore, record->fd);
	if (kept == -1) {
		return NT_STATUS_INVALID_HANDLE;
	}

	ds_vfs_expect_open(fsp, kept);
	fd = SMB_VFS_OPENAT(fsp->conn,
			    fsp->conn->cwd_fsp,
			    fsp->fsp_name,
			    fsp,
			    &how);
	ds_vfs_expect_open(NULL, -1);
	if (fd != kept) {
		/* a module has opened something else, or refused */
		NTSTATUS status = map_nt_error_from_unix_common(errno);

		close(kept);
		if (fd == -1) {
			return status;
		}
		close(fd);
		return NT_STATUS_NOT_SUPPORTED;
	}
	fsp_set_fd(fsp, fd);
	return vfs_stat_fsp(fsp);
}

static void ds_restore_base_locked(struct share_mode_lock *lck,
				   struct byte_range_lock *br_lck,
				   void *private_data)
{
	struct ds_restore_open_state *state = private_data;
	bool ok;

	/* mid: no request asked for this open */
	ok = ds_restore_entry(state->restore, lck, state->fsp, 0);
	state->status = ok ? NT_STATUS_OK : NT_STATUS_NOT_FOUND;
}

/*
 * The file that a stream belongs to, as create_file_unixpath() opens it
 * for the stream.
 */
static NTSTATUS ds_restore_base_fsp(struct ds_restore *restore,
				    struct connection_struct *conn,
				    const struct ds_open *record,
				    struct files_struct **_base_fsp)
{
	struct smb_filename base_fname = {
		.base_name = discard_const_p(char, record->base_name),
		.flags = record->name_flags,
		.twrp = record->twrp,
	};
	struct ds_restore_open_state state = {
		.restore = restore,
		.record = record,
	};
	struct files_struct *fsp = NULL;
	NTSTATUS status;

	status = fsp_new(conn, conn, &fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	state.fsp = fsp;
	fsp_restore_gen_id(fsp, record->base_share_file_id);
	ds_fsp_flags_set(fsp, record->base_fsp_flags);
	fsp->access_mask = record->base_access_mask;
	fsp->fsp_flags.is_fsa = true;

	status = fsp_set_smb_fname(fsp, &base_fname);
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}
	status = ds_restore_fsp_fd(restore, fsp, record);
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}
	fsp->file_id = vfs_file_id_from_sbuf(conn, &fsp->fsp_name->st);

	status = share_mode_do_locked_brl(
		fsp, ds_restore_base_locked, &state);
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}
	if (!NT_STATUS_IS_OK(state.status)) {
		status = state.status;
		goto fail;
	}

	*_base_fsp = fsp;
	return NT_STATUS_OK;
fail:
	fd_close(fsp);
	file_free(NULL, fsp);
	return status;
}

static NTSTATUS ds_restore_stream_fd(struct ds_restore *restore,
				     struct files_struct *fsp,
				     const struct ds_open *record)
{
	struct vfs_open_how how = { .flags = O_RDONLY, };
	struct files_struct *base_fsp = NULL;
	NTSTATUS status;
	int fd;

	status = ds_restore_base_fsp(restore, fsp->conn, record, &base_fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	fsp_set_base_fsp(fsp, base_fsp);

	if (record->fsp_flags & DS_FSP_CAN_WRITE) {
		how.flags = O_RDWR;
	}
	fd = SMB_VFS_OPENAT(fsp->conn,
			    NULL, /* relative to fsp->base_fsp */
			    fsp->fsp_name,
			    fsp,
			    &how);
	if (fd == -1) {
		return map_nt_error_from_unix_common(errno);
	}
	fsp_set_fd(fsp, fd);
	return vfs_stat_fsp(fsp);
}

/*
 * The client has it and may use it. What fails here fails then.
 */
static void ds_restore_resume_key(struct files_struct *fsp)
{
	TALLOC_CTX *frame = talloc_stackframe();

	/* it is done when this returns, by vfs_default */
	(void)SMB_VFS_OFFLOAD_READ_SEND(frame,
					fsp->conn->sconn->ev_ctx,
					fsp,
					FSCTL_SRV_REQUEST_RESUME_KEY,
					0,
					0,
					0);
	TALLOC_FREE(frame);
}

static NTSTATUS ds_restore_file(struct ds_restore *restore,
				struct files_struct *fsp,
				const struct ds_open *record)
{
	struct ds_restore_open_state state = {
		.restore = restore,
		.record = record,
		.fsp = fsp,
	};
	struct file_id file_id;
	NTSTATUS status;

	if (record->stream_name != NULL) {
		status = ds_restore_stream_fd(restore, fsp, record);
	} else {
		status = ds_restore_fsp_fd(restore, fsp, record);
	}
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}

	file_id = vfs_file_id_from_sbuf(fsp->conn, &fsp->fsp_name->st);
	if (!file_id_equal(&file_id, &record->file_id)) {
		return NT_STATUS_OBJECTID_NOT_FOUND;
	}
	fsp->file_id = file_id;

	status = share_mode_do_locked_brl(
		fsp, ds_restore_open_locked, &state);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	if (!NT_STATUS_IS_OK(state.status)) {
		return state.status;
	}

	status = set_file_oplock(fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	if (state.break_sent && (restore->resume != NULL) &&
	    ds_open_reads_only(fsp))
	{
		status = ds_resume_missed(restore->resume, fsp);
		if (!NT_STATUS_IS_OK(status)) {
			return status;
		}
	}
	fsp->sent_oplock_break = record->sent_oplock_break;
	if (record->break_timeout != 0) {
		fsp_break_timeout_restore(fsp, record->break_timeout);
	}

	if (record->has_resume_key) {
		ds_restore_resume_key(fsp);
	}

	/* without these the handle is still of use */
	if (record->scan != NULL) {
		status = ds_restore_scan(fsp, record->scan);
		if (!NT_STATUS_IS_OK(status)) {
			ds_restore_lost(restore, "scan of",
					record->base_name, status);
		}
	}
	if (record->notify != NULL) {
		status = ds_restore_notify(restore, fsp, record->notify);
		if (!NT_STATUS_IS_OK(status)) {
			ds_restore_lost(restore, "watch of",
					record->base_name, status);
		}
	}
	return NT_STATUS_OK;
}

static NTSTATUS ds_restore_fsp(struct ds_restore *restore,
			       struct smbXsrv_open *op,
			       struct connection_struct *conn,
			       const struct ds_open *record)
{
	struct smb_filename fname = {
		.base_name = discard_const_p(char, record->base_name),
		.stream_name = discard_const_p(char, record->stream_name),
		.flags = record->name_flags,
		.twrp = record->twrp,
	};
	struct files_struct *fsp = NULL;
	NTSTATUS status;

	status = fsp_new(conn, conn, &fsp);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	fsp->op = op;
	op->compat = fsp;
	fsp->fnum = op->local_id;
	fsp->vuid = record->session_id;
	fsp_restore_gen_id(fsp, record->share_file_id);

	ds_fsp_flags_set(fsp, record->fsp_flags);
	fsp->access_mask = record->access_mask;
	fh_set_private_options(fsp->fh, record->private_options);
	fh_set_position_information(fsp->fh, record->position_information);
	fh_set_pos(fsp->fh, record->pos);
	fsp->initial_allocation_size = record->initial_allocation_size;
	fsp->file_pid = record->file_pid;
	fsp->mid = record->mid;
	fsp->open_time.tv_sec = record->open_time_sec;
	fsp->open_time.tv_usec = record->open_time_usec;
	fsp->close_write_time = nt_time_to_full_timespec(
		record->close_write_time);

	status = fsp_set_smb_fname(fsp, &fname);
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}

	if (record->is_pipe) {
		status = ds_restore_pipe(fsp);
	} else {
		status = ds_restore_file(restore, fsp, record);
	}
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}

	ZERO_STRUCT(conn->sconn->fsp_fi_cache);
	return NT_STATUS_OK;
fail:
	ds_restore_undo(fsp);
	return status;
}

struct connection_struct *ds_find_share(struct ds_restore *restore,
					uint64_t session_id,
					uint32_t tcon_id)
{
	struct smbXsrv_session *session = NULL;
	struct smbXsrv_tcon *tcon = NULL;
	NTSTATUS status;

	(void)smb2srv_session_lookup_client(restore->client,
					    session_id,
					    restore->old->frozen,
					    &session);
	if (session == NULL) {
		return NULL;
	}
	status = smb2srv_tcon_lookup(
		session, tcon_id, restore->old->frozen, &tcon);
	return NT_STATUS_IS_OK(status) ? tcon->compat : NULL;
}

NTSTATUS ds_restore_open(struct ds_restore *restore,
			 const struct ds_open *record)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smbXsrv_open_globalB global_blob = { .version = 0 };
	struct connection_struct *conn = NULL;
	struct smbXsrv_open *op = NULL;
	enum ndr_err_code ndr_err;
	NTSTATUS status;

	ndr_err = ndr_pull_struct_blob(
		&record->global,
		frame,
		&global_blob,
		(ndr_pull_flags_fn_t)ndr_pull_smbXsrv_open_globalB);
	status = ds_pulled(
		ndr_err, global_blob.version, global_blob.info.info0);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
	if (record->base_name == NULL) {
		status = NT_STATUS_INVALID_PARAMETER;
		goto done;
	}

	conn = ds_find_share(restore, record->session_id, record->tcon_id);
	if (conn == NULL) {
		/* the user, or the share, is gone */
		status = NT_STATUS_USER_SESSION_DELETED;
		goto lost;
	}
	if (!change_to_user_and_service(conn, record->session_id)) {
		status = NT_STATUS_ACCESS_DENIED;
		goto lost;
	}

	status = smbXsrv_open_restore(restore->client,
				      global_blob.info.info0,
				      record->flags,
				      record->idle_time,
				      &op);
	if (!NT_STATUS_IS_OK(status)) {
		goto lost;
	}
	op->create_action = record->create_action;
	op->request_count = record->request_count;
	op->pre_request_count = record->pre_request_count;

	status = ds_restore_fsp(restore, op, conn, record);
	if (!NT_STATUS_IS_OK(status)) {
		goto lost;
	}
	goto done;
lost:
	if (!ds_resume_closing(restore,
			       conn,
			       record,
			       global_blob.info.info0->open_volatile_id))
	{
		/* FILE_CLOSED for the client, the others go on */
		ds_restore_lost(restore, "file", record->base_name, status);
	}
	status = NT_STATUS_OK;
done:
	change_to_root_user();
	TALLOC_FREE(frame);
	return status;
}
