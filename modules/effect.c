/*
   durable_state: what a request does to names

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
#include "locking/leases_db.h"
#include "locking/share_mode_lock.h"
#include "librpc/gen_ndr/open_files.h"
#include "librpc/gen_ndr/smbXsrv.h"
#include "durable_state/ndr_durable_state.h"
#include "effect.h"
#include "records.h"
#include "save.h"

/* ---- before */

static char *ds_effect_path(TALLOC_CTX *mem_ctx,
			    const struct files_struct *dirfsp,
			    const struct smb_filename *smb_fname)
{
	struct smb_filename *full = NULL;

	if (dirfsp == dirfsp->conn->cwd_fsp) {
		return talloc_strdup(mem_ctx, smb_fname->base_name);
	}
	full = full_path_from_dirfsp_atname(mem_ctx, dirfsp, smb_fname);
	return (full != NULL) ? full->base_name : NULL;
}

static void ds_effect_save(struct connection_struct *conn,
			   struct ds_effect *effect)
{
	struct timeval now = timeval_current();

	/* with SMB2 the id on the wire is the global one */
	effect->session_id = conn->tcon->global->session_global_id;
	effect->tcon_id = conn->cnum;
	effect->when = timeval_to_nttime(&now);
	effect->compound = ds_save_in_compound();
	ds_save_effect(effect);
}

void ds_effect_create(struct connection_struct *conn,
		      const struct files_struct *dirfsp,
		      const struct smb_filename *smb_fname,
		      enum ds_effect_kind kind)
{
	TALLOC_CTX *frame = NULL;
	struct ds_effect effect = { .kind = kind, .former_name = "", };

	if (!ds_save_running() || (conn->tcon == NULL)) {
		return;
	}
	frame = talloc_stackframe();
	effect.name = ds_effect_path(frame, dirfsp, smb_fname);
	if (effect.name != NULL) {
		ds_effect_save(conn, &effect);
	}
	TALLOC_FREE(frame);
}

void ds_effect_name(struct connection_struct *conn,
		    const struct files_struct *srcfsp,
		    const struct smb_filename *src,
		    const struct files_struct *dstfsp,
		    const struct smb_filename *dst,
		    enum ds_effect_kind kind)
{
	TALLOC_CTX *frame = NULL;
	struct ds_effect effect = { .kind = kind, };
	SMB_STRUCT_STAT st;
	int ret;

	if (!ds_save_running() || (conn->tcon == NULL)) {
		return;
	}
	frame = talloc_stackframe();
	ret = SMB_VFS_FSTATAT(conn, srcfsp, src, &st, AT_SYMLINK_NOFOLLOW);
	effect.former_name = ds_effect_path(frame, srcfsp, src);
	effect.name = ds_effect_path(frame, dstfsp, dst);
	if ((ret == 0) && (effect.name != NULL) &&
	    (effect.former_name != NULL))
	{
		effect.file_id = vfs_file_id_from_sbuf(conn, &st);
		ds_effect_save(conn, &effect);
	}
	TALLOC_FREE(frame);
}

void ds_effect_unlink(struct connection_struct *conn,
		      const struct files_struct *dirfsp,
		      const struct smb_filename *smb_fname)
{
	TALLOC_CTX *frame = NULL;
	struct ds_effect effect = { .kind = DS_EFFECT_UNLINK, };
	SMB_STRUCT_STAT st;
	int ret;

	if (!ds_save_in_compound() || (conn->tcon == NULL)) {
		return;
	}
	frame = talloc_stackframe();
	ret = SMB_VFS_FSTATAT(
		conn, dirfsp, smb_fname, &st, AT_SYMLINK_NOFOLLOW);
	effect.name = ds_effect_path(frame, dirfsp, smb_fname);
	effect.former_name = effect.name;
	if ((ret == 0) && (effect.name != NULL)) {
		effect.file_id = vfs_file_id_from_sbuf(conn, &st);
		effect.mode = st.st_ex_mode;
		effect.uid = st.st_ex_uid;
		effect.gid = st.st_ex_gid;
		effect.size = st.st_ex_size;
		ds_effect_save(conn, &effect);
	}
	TALLOC_FREE(frame);
}

/* ---- after the process was killed */

struct ds_effect_opens {
	const struct ds_restore *restore;
	bool others;
};

static bool ds_effect_open_fn(struct share_mode_entry *e,
			      bool *modified,
			      void *private_data)
{
	struct ds_effect_opens *opens = private_data;

	if (!ds_restore_is_former(opens->restore, &e->pid)) {
		opens->others = true;
	}
	return opens->others;
}

/*
 * Somebody else has it open already.
 */
static bool ds_effect_is_used(struct ds_restore *restore,
			      struct file_id file_id)
{
	struct ds_effect_opens opens = { .restore = restore, };
	struct share_mode_lock *lck = NULL;

	lck = fetch_share_mode_unlocked(talloc_tos(), file_id);
	if (lck != NULL) {
		(void)share_mode_forall_entries(
			lck, ds_effect_open_fn, &opens);
		TALLOC_FREE(lck);
	}
	return opens.others;
}

/*
 * What the open of a file that is undone has left: a lease key belongs to one
 * file, and will be that of the next one.
 */
static bool ds_effect_forget_fn(struct share_mode_entry *e,
				bool *modified,
				void *private_data)
{
	const struct file_id *file_id = private_data;

	(void)leases_db_del(&e->client_guid, &e->lease_key, file_id);
	e->stale = true;
	*modified = true;
	return false;
}

static void ds_effect_forget(struct file_id file_id)
{
	struct share_mode_lock *lck = get_existing_share_mode_lock(
		talloc_tos(), file_id);

	if (lck != NULL) {
		(void)share_mode_forall_entries(
			lck, ds_effect_forget_fn, &file_id);
		TALLOC_FREE(lck);
	}
}

static void ds_effect_undo_create(struct ds_restore *restore,
				  struct connection_struct *conn,
				  const struct ds_effect *effect)
{
	struct smb_filename name = {
		.base_name = discard_const_p(char, effect->name),
	};
	bool directory = (effect->kind == DS_EFFECT_DIRECTORY);
	struct file_id file_id;
	NTTIME ctime;
	int ret;

	ret = SMB_VFS_FSTATAT(
		conn, conn->cwd_fsp, &name, &name.st, AT_SYMLINK_NOFOLLOW);
	if (ret == -1) {
		/* it did not come so far */
		return;
	}
	file_id = vfs_file_id_from_sbuf(conn, &name.st);
	ctime = full_timespec_to_nt_time(&name.st.st_ex_ctime);
	if ((directory ? !S_ISDIR(name.st.st_ex_mode) :
			 (!S_ISREG(name.st.st_ex_mode) ||
			  ((name.st.st_ex_size != 0) &&
			   !effect->compound))) ||
	    (ctime + DS_TICK < effect->when) ||
	    ds_effect_is_used(restore, file_id))
	{
		DBG_WARNING("%s is not as this client has made it\n",
			    effect->name);
		return;
	}
	/* this first, or who is killed in between leaves it for ever */
	ds_effect_forget(file_id);
	/* of a directory only if nobody has put anything into it */
	ret = SMB_VFS_UNLINKAT(
		conn, conn->cwd_fsp, &name, directory ? AT_REMOVEDIR : 0);
	if (ret == -1) {
		DBG_WARNING("cannot remove %s, to make it again: %s\n",
			    effect->name,
			    strerror(errno));
	}
}

static void ds_effect_undo_name(struct connection_struct *conn,
				const struct ds_effect *effect)
{
	struct smb_filename name = {
		.base_name = discard_const_p(char, effect->name),
	};
	struct smb_filename former = {
		.base_name = discard_const_p(char, effect->former_name),
	};
	struct vfs_rename_how how = { .flags = 0, };
	struct file_id file_id;
	int ret;

	ret = SMB_VFS_FSTATAT(
		conn, conn->cwd_fsp, &name, &name.st, AT_SYMLINK_NOFOLLOW);
	if (ret == -1) {
		return;
	}
	file_id = vfs_file_id_from_sbuf(conn, &name.st);
	if (!file_id_equal(&file_id, &effect->file_id)) {
		return;
	}
	ret = SMB_VFS_FSTATAT(conn,
			      conn->cwd_fsp,
			      &former,
			      &former.st,
			      AT_SYMLINK_NOFOLLOW);
	if (effect->kind == DS_EFFECT_LINK) {
		/* only one of two names */
		ret = (ret == 0) ? SMB_VFS_UNLINKAT(
			conn, conn->cwd_fsp, &name, 0) : 0;
	} else if (ret == -1) {
		ret = SMB_VFS_RENAMEAT(conn,
				       conn->cwd_fsp,
				       &name,
				       conn->cwd_fsp,
				       &former,
				       &how);
	} else {
		ret = 0;
	}
	if (ret == -1) {
		DBG_WARNING("cannot take back that %s became %s, to do it "
			    "again: %s\n",
			    effect->former_name,
			    effect->name,
			    strerror(errno));
	}
}

/*
 * What was in it is gone, as it was meant to be: something that can be opened
 * and removed once more is enough.
 */
static void ds_effect_undo_unlink(struct connection_struct *conn,
				  const struct ds_effect *effect)
{
	char *path = talloc_asprintf(talloc_tos(),
				     "%s/%s",
				     conn->connectpath,
				     effect->name);
	struct smb_filename name = {
		.base_name = discard_const_p(char, effect->name),
	};
	int ret;
	int fd = -1;

	if (path == NULL) {
		return;
	}
	if (S_ISDIR(effect->mode)) {
		ret = SMB_VFS_MKDIRAT(
			conn, conn->cwd_fsp, &name, effect->mode & 07777);
		fd = (ret == 0) ? open(path, O_RDONLY | O_NOFOLLOW) : -1;
	} else if (S_ISREG(effect->mode)) {
		fd = open(path,
			  O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC,
			  0);
	}
	if (fd != -1) {
		if (S_ISREG(effect->mode)) {
			/* a hole: as the client sees it */
			(void)ftruncate(fd, effect->size);
		}
		if ((fchown(fd, effect->uid, effect->gid) == -1) ||
		    (fchmod(fd, effect->mode & 07777) == -1))
		{
			DBG_WARNING("%s, to be removed again: %s\n",
				    effect->name,
				    strerror(errno));
		}
		close(fd);
	} else if (errno != EEXIST) {
		DBG_WARNING("cannot make %s, to be removed again: %s\n",
			    effect->name,
			    strerror(errno));
	}
	TALLOC_FREE(path);
}

void ds_effect_undo(struct ds_restore *restore,
		    const struct ds_effect *effect)
{
	struct connection_struct *conn = NULL;

	if ((effect->name == NULL) || (effect->former_name == NULL)) {
		return;
	}
	conn = ds_find_share(
		restore, effect->session_id, effect->tcon_id);
	if ((conn == NULL) ||
	    !change_to_user_and_service(conn, effect->session_id))
	{
		return;
	}
	DBG_NOTICE("taken back, to be done again: %s\n", effect->name);
	/* what was granted then need not be granted today */
	become_root();
	switch (effect->kind) {
	case DS_EFFECT_FILE:
	case DS_EFFECT_DIRECTORY:
		ds_effect_undo_create(restore, conn, effect);
		break;
	case DS_EFFECT_RENAME:
	case DS_EFFECT_LINK:
		ds_effect_undo_name(conn, effect);
		break;
	case DS_EFFECT_UNLINK:
		ds_effect_undo_unlink(conn, effect);
		break;
	}
	unbecome_root();
	change_to_root_user();
}
