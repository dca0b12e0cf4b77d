/*
   durable_state: the VFS module

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
#include "../libcli/smb/smb2_create_blob.h"
#include "smbd/durable_hooks.h"
#include "records.h"
#include "process.h"
#include "effect.h"
#include "save.h"

/*
 * Last in "vfs objects": a file that is brought back is opened through all
 * modules above, and ends here at the descriptor that came along.
 */

static struct {
	struct files_struct *fsp;
	int fd;
} ds_vfs_expected = { .fd = -1 };

void ds_vfs_expect_open(struct files_struct *fsp, int fd)
{
	ds_vfs_expected.fsp = fsp;
	ds_vfs_expected.fd = fd;
}

static int ds_vfs_openat(struct vfs_handle_struct *handle,
			 const struct files_struct *dirfsp,
			 const struct smb_filename *smb_fname,
			 struct files_struct *fsp,
			 const struct vfs_open_how *how)
{
	const int create = O_CREAT | O_EXCL;
	int fd;

	if ((ds_vfs_expected.fsp != fsp) || (ds_vfs_expected.fd == -1)) {
		if ((how->flags & create) != create) {
			/* there was one */
		} else if (smb_fname->stream_name == NULL) {
			ds_effect_create(handle->conn,
					 dirfsp,
					 smb_fname,
					 DS_EFFECT_FILE);
		} else {
			ds_save_once();
		}
		fd = SMB_VFS_NEXT_OPENAT(
			handle, dirfsp, smb_fname, fsp, how);
		if ((how->flags & create) == create) {
			ds_save_effected();
		}
		return fd;
	}

	/* as vfs_default does it */
	fsp->fsp_flags.have_proc_fds = fsp->conn->have_proc_fds;
	return ds_vfs_expected.fd;
}

static int ds_vfs_mkdirat(struct vfs_handle_struct *handle,
			  struct files_struct *dirfsp,
			  const struct smb_filename *smb_fname,
			  mode_t mode)
{
	int ret;

	ds_effect_create(
		handle->conn, dirfsp, smb_fname, DS_EFFECT_DIRECTORY);
	ret = SMB_VFS_NEXT_MKDIRAT(handle, dirfsp, smb_fname, mode);
	ds_save_effected();
	return ret;
}

static int ds_vfs_renameat(struct vfs_handle_struct *handle,
			   struct files_struct *srcdir_fsp,
			   const struct smb_filename *src,
			   struct files_struct *dstdir_fsp,
			   const struct smb_filename *dst,
			   const struct vfs_rename_how *how)
{
	int ret;

	if ((src->stream_name == NULL) && (dst->stream_name == NULL)) {
		ds_effect_name(handle->conn,
			       srcdir_fsp,
			       src,
			       dstdir_fsp,
			       dst,
			       DS_EFFECT_RENAME);
	} else {
		ds_save_once();
	}
	ret = SMB_VFS_NEXT_RENAMEAT(
		handle, srcdir_fsp, src, dstdir_fsp, dst, how);
	ds_save_effected();
	return ret;
}

static int ds_vfs_unlinkat(struct vfs_handle_struct *handle,
			   struct files_struct *dirfsp,
			   const struct smb_filename *smb_fname,
			   int flags)
{
	int ret;

	if (smb_fname->stream_name == NULL) {
		ds_effect_unlink(handle->conn, dirfsp, smb_fname);
	}
	ret = SMB_VFS_NEXT_UNLINKAT(handle, dirfsp, smb_fname, flags);
	ds_save_effected();
	return ret;
}

static int ds_vfs_linkat(struct vfs_handle_struct *handle,
			 struct files_struct *srcfsp,
			 const struct smb_filename *src,
			 struct files_struct *dstfsp,
			 const struct smb_filename *dst,
			 int flags)
{
	int ret;

	ds_effect_name(
		handle->conn, srcfsp, src, dstfsp, dst, DS_EFFECT_LINK);
	ret = SMB_VFS_NEXT_LINKAT(handle, srcfsp, src, dstfsp, dst, flags);
	ds_save_effected();
	return ret;
}

/*
 * An Apple client says in a create context what it understands, once for each
 * tree connect, and vfs_fruit changes what directory listings mean. What was
 * said is kept here and said again in the next process.
 */
struct ds_vfs_data {
	DATA_BLOB aapl;
};

static void ds_vfs_data_free(void **_data)
{
	TALLOC_FREE(*_data);
}

static void ds_vfs_aapl_keep(struct vfs_handle_struct *handle, DATA_BLOB aapl)
{
	struct ds_vfs_data *data = NULL;

	if (SMB_VFS_HANDLE_TEST_DATA(handle)) {
		SMB_VFS_HANDLE_GET_DATA(
			handle, data, struct ds_vfs_data, return);
	} else {
		data = talloc_zero(handle->conn, struct ds_vfs_data);
		if (data == NULL) {
			return;
		}
		SMB_VFS_HANDLE_SET_DATA(handle,
					data,
					ds_vfs_data_free,
					struct ds_vfs_data,
					return);
	}
	data_blob_free(&data->aapl);
	data->aapl = data_blob_dup_talloc(data, aapl);
}

static void ds_vfs_made(struct files_struct *fsp);

static NTSTATUS ds_vfs_create_file(struct vfs_handle_struct *handle,
				   struct smb_request *req,
				   struct files_struct *dirfsp,
				   struct smb_filename *smb_fname,
				   uint32_t access_mask,
				   uint32_t share_access,
				   uint32_t create_disposition,
				   uint32_t create_options,
				   uint32_t file_attributes,
				   uint32_t oplock_request,
				   const struct smb2_lease *lease,
				   uint64_t allocation_size,
				   uint32_t private_flags,
				   struct security_descriptor *sd,
				   struct ea_list *ea_list,
				   files_struct **result,
				   int *pinfo,
				   const struct smb2_create_blobs *in_blobs,
				   struct smb2_create_blobs *out_blobs)
{
	struct smb2_create_blob *aapl = NULL;
	NTSTATUS status;

	/* fruit, above us, has answered already */
	if ((in_blobs != NULL) && (out_blobs != NULL) &&
	    (smb2_create_blob_find(out_blobs, SMB2_CREATE_TAG_AAPL) != NULL))
	{
		aapl = smb2_create_blob_find(in_blobs, SMB2_CREATE_TAG_AAPL);
	}
	if (aapl != NULL) {
		ds_vfs_aapl_keep(handle, aapl->data);
	}

	status = SMB_VFS_NEXT_CREATE_FILE(handle,
					  req,
					  dirfsp,
					  smb_fname,
					  access_mask,
					  share_access,
					  create_disposition,
					  create_options,
					  file_attributes,
					  oplock_request,
					  lease,
					  allocation_size,
					  private_flags,
					  sd,
					  ea_list,
					  result,
					  pinfo,
					  in_blobs,
					  out_blobs);
	if (NT_STATUS_IS_OK(status) && ((*result)->op != NULL)) {
		ds_vfs_made(*result);
	}
	return status;
}

static struct tevent_req *ds_vfs_offload_read_send(
	TALLOC_CTX *mem_ctx,
	struct tevent_context *ev,
	struct vfs_handle_struct *handle,
	struct files_struct *fsp,
	uint32_t fsctl,
	uint32_t ttl,
	off_t offset,
	size_t to_copy);

static struct vfs_fn_pointers ds_vfs_fns = {
	.openat_fn = ds_vfs_openat,
	.mkdirat_fn = ds_vfs_mkdirat,
	.renameat_fn = ds_vfs_renameat,
	.unlinkat_fn = ds_vfs_unlinkat,
	.linkat_fn = ds_vfs_linkat,
	.offload_read_send_fn = ds_vfs_offload_read_send,
	.create_file_fn = ds_vfs_create_file,
};

static struct vfs_handle_struct *ds_vfs_handle(struct connection_struct *conn)
{
	struct vfs_handle_struct *handle = NULL;

	for (handle = conn->vfs_handles;
	     handle != NULL;
	     handle = handle->next) {
		if (handle->fns == &ds_vfs_fns) {
			break;
		}
	}
	return handle;
}

/*
 * Of an open that the image has
 */
struct ds_vfs_open {
	/* 0: not yet */
	uint64_t persistent_id;
	/* the compound that has made it */
	bool in_compound;
	uint64_t channel_id;
	uint64_t begin;
	uint32_t flags;
	bool had_oplock;
	bool has_resume_key;
	DATA_BLOB scan;
};

static void ds_vfs_open_destroy(void *private_data)
{
	struct ds_vfs_open *open = private_data;

	data_blob_free(&open->scan);
	if (open->persistent_id != 0) {
		ds_save_closed(open->persistent_id);
	}
}

static struct ds_vfs_open *ds_vfs_open(struct files_struct *fsp)
{
	struct vfs_handle_struct *handle = ds_vfs_handle(fsp->conn);

	if (handle == NULL) {
		return NULL;
	}
	return VFS_FETCH_FSP_EXTENSION(handle, fsp);
}

static struct ds_vfs_open *ds_vfs_add_open(struct files_struct *fsp)
{
	struct vfs_handle_struct *handle = ds_vfs_handle(fsp->conn);
	struct ds_vfs_open *open = ds_vfs_open(fsp);

	if ((open == NULL) && (handle != NULL)) {
		open = VFS_ADD_FSP_EXTENSION(
			handle, fsp, struct ds_vfs_open, ds_vfs_open_destroy);
	}
	return open;
}

bool ds_vfs_has_resume_key(struct files_struct *fsp)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	return (open != NULL) && open->has_resume_key;
}

DATA_BLOB ds_vfs_scan(struct files_struct *fsp)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	return (open != NULL) ? open->scan : data_blob_null;
}

void ds_vfs_keep_scan(struct files_struct *fsp, DATA_BLOB blob)
{
	struct ds_vfs_open *open = ds_vfs_add_open(fsp);

	if (open != NULL) {
		data_blob_free(&open->scan);
		open->scan = data_blob_dup_talloc(NULL, blob);
	}
}

/*
 * vfs_default keeps the key in its memory; it is made of the ids of the open.
 */
static struct tevent_req *ds_vfs_offload_read_send(
	TALLOC_CTX *mem_ctx,
	struct tevent_context *ev,
	struct vfs_handle_struct *handle,
	struct files_struct *fsp,
	uint32_t fsctl,
	uint32_t ttl,
	off_t offset,
	size_t to_copy)
{
	if ((fsctl == FSCTL_SRV_REQUEST_RESUME_KEY) && (fsp->op != NULL)) {
		struct ds_vfs_open *open = ds_vfs_add_open(fsp);

		if (open != NULL) {
			open->has_resume_key = true;
			/* the image does not know */
			open->flags = ~ds_fsp_flags(fsp);
		}
	}
	return SMB_VFS_NEXT_OFFLOAD_READ_SEND(
		mem_ctx, ev, handle, fsp, fsctl, ttl, offset, to_copy);
}

void ds_vfs_saved(struct files_struct *fsp)
{
	struct ds_vfs_open *open = ds_vfs_add_open(fsp);

	if (open != NULL) {
		open->persistent_id = fsp->op->global->open_persistent_id;
		open->flags = ds_fsp_flags(fsp);
		open->had_oplock = (fsp->oplock_type != NO_OPLOCK);
	}
}

bool ds_vfs_had_oplock(struct files_struct *fsp)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	return (open != NULL) && open->had_oplock;
}

static void ds_vfs_made(struct files_struct *fsp)
{
	struct ds_vfs_open *open = NULL;
	uint64_t channel_id;
	uint64_t begin;

	if (!ds_save_compound(&channel_id, &begin)) {
		return;
	}
	open = ds_vfs_add_open(fsp);
	if (open != NULL) {
		open->in_compound = true;
		open->channel_id = channel_id;
		open->begin = begin;
	}
}

bool ds_vfs_made_by(struct files_struct *fsp,
		    uint64_t *channel_id,
		    uint64_t *begin)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	if ((open == NULL) || !open->in_compound) {
		return false;
	}
	*channel_id = open->channel_id;
	*begin = open->begin;
	return true;
}

bool ds_vfs_is_known(struct files_struct *fsp)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	return (open != NULL) && (open->persistent_id != 0);
}

bool ds_vfs_is_saved(struct files_struct *fsp)
{
	const struct ds_vfs_open *open = ds_vfs_open(fsp);

	return (open != NULL) && (open->flags == ds_fsp_flags(fsp));
}

DATA_BLOB ds_vfs_aapl(struct connection_struct *conn)
{
	struct vfs_handle_struct *handle = ds_vfs_handle(conn);
	struct ds_vfs_data *data = NULL;

	if ((handle != NULL) && SMB_VFS_HANDLE_TEST_DATA(handle)) {
		SMB_VFS_HANDLE_GET_DATA(handle,
					data,
					struct ds_vfs_data,
					return data_blob_null);
		return data->aapl;
	}
	return data_blob_null;
}

NTSTATUS ds_vfs_aapl_repeat(struct connection_struct *conn,
			    uint64_t session_id,
			    DATA_BLOB aapl)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smb2_create_blobs in = { .num_blobs = 0 };
	struct smb2_create_blobs *out = NULL;
	struct smb_filename *smb_fname = NULL;
	struct files_struct *fsp = NULL;
	NTSTATUS status;

	out = talloc_zero(frame, struct smb2_create_blobs);
	if (out == NULL) {
		status = NT_STATUS_NO_MEMORY;
		goto done;
	}
	status = smb2_create_blob_add(
		frame, &in, SMB2_CREATE_TAG_AAPL, aapl);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}
	if (!change_to_user_and_service(conn, session_id)) {
		status = NT_STATUS_NETWORK_ACCESS_DENIED;
		goto done;
	}
	status = synthetic_pathref(frame,
				   conn->cwd_fsp,
				   ".",
				   NULL,
				   NULL,
				   0,
				   0,
				   &smb_fname);
	if (!NT_STATUS_IS_OK(status)) {
		goto done;
	}

	/* the root of the share, as that is what is always there */
	status = SMB_VFS_CREATE_FILE(conn,
				     NULL, /* req */
				     conn->cwd_fsp,
				     smb_fname,
				     SEC_FILE_READ_ATTRIBUTE,
				     FILE_SHARE_READ | FILE_SHARE_WRITE |
					     FILE_SHARE_DELETE,
				     FILE_OPEN,
				     FILE_DIRECTORY_FILE,
				     0,    /* file_attributes */
				     NO_OPLOCK,
				     NULL, /* lease */
				     0,    /* allocation_size */
				     0,    /* private_flags */
				     NULL, /* sd */
				     NULL, /* ea_list */
				     &fsp,
				     NULL, /* pinfo */
				     &in,
				     out);
	if (NT_STATUS_IS_OK(status)) {
		status = close_file_free(NULL, &fsp, NORMAL_CLOSE);
	}
done:
	change_to_root_user();
	TALLOC_FREE(frame);
	return status;
}

static_decl_vfs;
NTSTATUS vfs_durable_state_init(TALLOC_CTX *ctx)
{
	NTSTATUS status;

	status = smb_register_vfs(SMB_VFS_INTERFACE_VERSION,
				  "durable_state",
				  &ds_vfs_fns);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	smbd_durable_hooks_register(&ds_process_hooks);
	return NT_STATUS_OK;
}
