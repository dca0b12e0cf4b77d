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
#include "smbd/durable_hooks.h"
#include "records.h"
#include "process.h"

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
	if ((ds_vfs_expected.fsp != fsp) || (ds_vfs_expected.fd == -1)) {
		return SMB_VFS_NEXT_OPENAT(
			handle, dirfsp, smb_fname, fsp, how);
	}

	/* as vfs_default does it */
	fsp->fsp_flags.have_proc_fds = fsp->conn->have_proc_fds;
	return ds_vfs_expected.fd;
}

static struct vfs_fn_pointers ds_vfs_fns = {
	.openat_fn = ds_vfs_openat,
};

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
