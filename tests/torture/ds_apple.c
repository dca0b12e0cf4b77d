/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: what an Apple client agreed upon with vfs_fruit

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
#include "libcli/security/security.h"
#include "libcli/smb/smb2_create_ctx.h"
#include "torture/durable_state/ds_util.h"

#define DS_APPLE_FILE "durable-state-apple"

/* The create context with which an Apple client begins. */
static NTSTATUS ds_apple_begin(struct torture_context *tctx,
			       struct smb2_tree *tree,
			       bool *answered)
{
	DATA_BLOB aapl = data_blob_talloc_zero(tctx, 24);
	struct smb2_create io = {
		.in.desired_access = SEC_FILE_READ_ATTRIBUTE,
		.in.create_options = NTCREATEX_OPTIONS_DIRECTORY,
		.in.create_disposition = NTCREATEX_DISP_OPEN,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.fname = "",
	};
	NTSTATUS status;

	SBVAL(aapl.data, 0, SMB2_CRTCTX_AAPL_SERVER_QUERY);
	SBVAL(aapl.data, 8, SMB2_CRTCTX_AAPL_SERVER_CAPS);
	SBVAL(aapl.data, 16, SMB2_CRTCTX_AAPL_SUPPORTS_READ_DIR_ATTR);

	status = smb2_create_blob_add(tctx, &io.in.blobs, "AAPL", aapl);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	status = smb2_create(tree, tctx, &io);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	*answered = (smb2_create_blob_find(&io.out.blobs, "AAPL") != NULL);
	return smb2_util_close(tree, io.out.file.handle);
}

/*
 * In a listing for an Apple client the size of the EAs is the access that
 * the user has.
 */
static NTSTATUS ds_apple_listed(struct smb2_tree *tree,
				TALLOC_CTX *mem_ctx,
				uint32_t *access)
{
	struct smb2_find f = {
		.in.pattern = DS_APPLE_FILE,
		.in.max_response_size = 0x1000,
		.in.level = SMB2_FIND_ID_BOTH_DIRECTORY_INFO,
	};
	union smb_search_data *d = NULL;
	unsigned count = 0;
	NTSTATUS status;

	status = torture_smb2_testdir(tree, "", &f.in.file.handle);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	status = smb2_find_level(tree, mem_ctx, &f, &count, &d);
	if (NT_STATUS_IS_OK(status)) {
		*access = (count == 1) ?
			d[0].id_both_directory_info.ea_size : 0;
	}
	smb2_util_close(tree, f.in.file.handle);
	return status;
}

static bool test_apple(struct torture_context *tctx, struct ds_client *c)
{
	const char *share = torture_setting_string(
		tctx, "apple_share", "apple");
	struct smb2_tree *tree = ds_tcon(tctx, c, share);
	struct smb2_handle h = { .data = { 0 } };
	uint32_t plain = UINT32_MAX;
	uint32_t before = 0;
	uint32_t after = 0;
	bool answered = false;
	bool ret = true;

	if (tree == NULL) {
		torture_skip(tctx, "no share with vfs_fruit "
				   "(--option=torture:apple_share)");
	}
	CHECK_OK(torture_smb2_testfile(tree, DS_APPLE_FILE, &h));
	CHECK_OK(smb2_util_close(tree, h));

	CHECK_OK(ds_apple_listed(tree, c, &plain));
	CHECK_VAL(plain, 0);
	CHECK_OK(ds_apple_begin(tctx, tree, &answered));
	CHECK_TRUE(answered);
	CHECK_OK(ds_apple_listed(tree, c, &before));
	CHECK_TRUE(before != plain);

	RESTART();

	CHECK_OK(ds_apple_listed(tree, c, &after));
	CHECK_VAL(after, before);

	/* what is brought back is known for the next time, too */
	RESTART();

	CHECK_OK(ds_apple_listed(tree, c, &after));
	CHECK_VAL(after, before);
done:
	smb2_util_unlink(tree, DS_APPLE_FILE);
	TALLOC_FREE(tree);
	return ret;
}

void ds_apple_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "apple", test_apple);
}
