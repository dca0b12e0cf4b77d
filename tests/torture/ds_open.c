/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: opens of files, directories and streams

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
#include "system/time.h"
#include "torture/durable_state/ds_util.h"

#define SHARE_ALL NTCREATEX_SHARE_ACCESS_MASK
#define SHARE_NONE NTCREATEX_SHARE_ACCESS_NONE

static NTSTATUS ds_getinfo(struct ds_client *c,
			   struct smb2_handle h,
			   union smb_fileinfo *info)
{
	*info = (union smb_fileinfo) {
		.generic.level = RAW_FILEINFO_SMB2_ALL_INFORMATION,
		.generic.in.file.handle = h,
	};
	return smb2_getinfo_file(c->tree, c, info);
}

static NTSTATUS ds_delete_on_close(struct ds_client *c,
				   struct smb2_handle h,
				   bool set)
{
	union smb_setfileinfo info = {
		.disposition_info.level = RAW_SFILEINFO_DISPOSITION_INFORMATION,
		.disposition_info.in.file.handle = h,
		.disposition_info.in.delete_on_close = set,
	};

	return smb2_setinfo_file(c->tree, &info);
}

static NTSTATUS ds_rename(struct ds_client *c,
			  struct smb2_handle h,
			  const char *new_name)
{
	union smb_setfileinfo info = {
		.rename_information.level =
			RAW_SFILEINFO_RENAME_INFORMATION_SMB2,
		.rename_information.in.file.handle = h,
		.rename_information.in.new_name = new_name,
	};

	return smb2_setinfo_file(c->tree, &info);
}

#define CHECK_DATA(c, h, text) do { \
	DATA_BLOB _data; \
	CHECK_OK(ds_read(c, tctx, h, 0, 1024, &_data)); \
	CHECK_VAL(_data.length, strlen(text)); \
	torture_assert_mem_equal_goto(tctx, \
				      _data.data, \
				      text, \
				      strlen(text), \
				      ret, \
				      done, \
				      "data changed"); \
} while (0)

static bool test_file(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_fileinfo before, after;
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("file"), &h));
	CHECK_OK(smb2_util_write(c->tree, h, "one", 0, 3));
	CHECK_OK(ds_getinfo(c, h, &before));
	RESTART();
	CHECK_DATA(c, h, "one");
	CHECK_OK(smb2_util_write(c->tree, h, "two", 3, 3));
	CHECK_DATA(c, h, "onetwo");
	CHECK_OK(ds_getinfo(c, h, &after));
	CHECK_VAL(after.all_info2.out.file_id, before.all_info2.out.file_id);
	CHECK_VAL(after.all_info2.out.create_time,
		  before.all_info2.out.create_time);
	torture_assert_str_equal_goto(tctx,
				      after.all_info2.out.fname.s,
				      before.all_info2.out.fname.s,
				      ret,
				      done,
				      "name changed");
	CHECK_OK(smb2_util_close(c->tree, h));
	CHECK_STATUS(smb2_util_close(c->tree, h), NT_STATUS_FILE_CLOSED);
	h = (struct smb2_handle) { .data = { 0 } };
done:
	ds_close(c, &h);
	return ret;
}

/* Closed before, closed after; and new opens get ids of their own. */
static bool test_closed(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	struct smb2_handle gone;
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("closed1"), &h1));
	CHECK_OK(ds_open_rw(c, DS_NAME("closed2"), &h2));
	CHECK_OK(smb2_util_close(c->tree, h1));
	gone = h1;
	h1 = (struct smb2_handle) { .data = { 0 } };
	RESTART();
	CHECK_STATUS(smb2_util_write(c->tree, gone, "x", 0, 1),
		     NT_STATUS_FILE_CLOSED);
	CHECK_OK(ds_open_rw(c, DS_NAME("closed3"), &h3));
	CHECK_TRUE(h3.data[0] != h2.data[0]);
	CHECK_TRUE(h3.data[1] != h2.data[1]);
	CHECK_OK(smb2_util_write(c->tree, h2, "two", 0, 3));
	CHECK_OK(smb2_util_write(c->tree, h3, "three", 0, 5));
	CHECK_DATA(c, h2, "two");
	CHECK_DATA(c, h3, "three");
done:
	ds_close(c, &h2);
	ds_close(c, &h3);
	return ret;
}

static bool test_directory(struct torture_context *tctx,
			   struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_fileinfo info;
	bool ret = true;

	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("dir"), &h));
	RESTART();
	CHECK_OK(ds_getinfo(c, h, &info));
	CHECK_VAL(info.all_info2.out.directory, 1);
	CHECK_TRUE(ds_exists(c, DS_NAME("dir")));
	CHECK_OK(smb2_util_mkdir(c->tree, DS_NAME("dir\\sub")));
done:
	ds_close(c, &h);
	return ret;
}

static bool test_root(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_fileinfo info;
	bool ret = true;

	CHECK_OK(smb2_util_roothandle(c->tree, &h));
	RESTART();
	CHECK_OK(ds_getinfo(c, h, &info));
	CHECK_VAL(info.all_info2.out.directory, 1);
done:
	ds_close(c, &h);
	return ret;
}

static bool test_stream(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle base = { .data = { 0 } };
	struct smb2_handle h = { .data = { 0 } };
	union smb_fsinfo fs = {
		.attribute_info.level = RAW_QFS_ATTRIBUTE_INFORMATION,
	};
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("streams"), &base));
	fs.attribute_info.handle = base;
	CHECK_OK(smb2_getinfo_fs(c->tree, tctx, &fs));

	if (!(fs.attribute_info.out.fs_attr & FILE_NAMED_STREAMS)) {
		ds_close(c, &base);
		torture_skip(tctx, "the share has no streams\n");
	}
	CHECK_OK(smb2_util_write(c->tree, base, "base", 0, 4));
	CHECK_OK(ds_open_rw(c, DS_NAME("streams:one"), &h));
	CHECK_OK(smb2_util_write(c->tree, h, "stream", 0, 6));
	RESTART();
	CHECK_DATA(c, h, "stream");
	CHECK_DATA(c, base, "base");
	CHECK_OK(smb2_util_write(c->tree, h, "STREAM", 0, 6));
	CHECK_DATA(c, h, "STREAM");
	CHECK_OK(smb2_util_close(c->tree, h));
	CHECK_OK(ds_open_rw(c, DS_NAME("streams:one"), &h));
	CHECK_DATA(c, h, "STREAM");
done:
	ds_close(c, &h);
	ds_close(c, &base);
	return ret;
}

/* Nobody but us has the file of the stream open, and we only the stream. */
static bool test_stream_delete(struct torture_context *tctx,
			       struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_create_file(c, DS_NAME("alone"), "base", 4));
	if (!NT_STATUS_IS_OK(ds_open_rw(c, DS_NAME("alone:one"), &h))) {
		torture_skip(tctx, "the share has no streams\n");
	}
	CHECK_OK(smb2_util_write(c->tree, h, "stream", 0, 6));
	CHECK_OK(ds_delete_on_close(c, h, true));
	RESTART();
	CHECK_DATA(c, h, "stream");
	CHECK_CLOSE(c, h);
	CHECK_TRUE(!ds_exists(c, DS_NAME("alone:one")));
	CHECK_TRUE(ds_exists(c, DS_NAME("alone")));
	CHECK_OK(smb2_util_unlink(c->tree, DS_NAME("alone")));
done:
	ds_close(c, &h);
	return ret;
}

/* What a handle was not granted it is not granted after the restart. */
static bool test_access(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle r = { .data = { 0 } };
	struct smb2_handle w = { .data = { 0 } };
	struct smb2_handle a = { .data = { 0 } };
	uint32_t before[3], after[3];
	DATA_BLOB data;
	bool ret = true;
	int i;

	CHECK_OK(ds_create_file(c, DS_NAME("access"), "data", 4));
	CHECK_OK(ds_open(c,
			 DS_NAME("access"),
			 SEC_RIGHTS_FILE_READ,
			 SHARE_ALL,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &r));
	CHECK_OK(ds_open(c,
			 DS_NAME("access"),
			 SEC_FILE_WRITE_DATA | SEC_FILE_READ_ATTRIBUTE,
			 SHARE_ALL,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &w));
	CHECK_OK(ds_open(c,
			 DS_NAME("access"),
			 SEC_FILE_READ_ATTRIBUTE,
			 SHARE_ALL,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &a));
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, r, &before[0]));
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, w, &before[1]));
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, a, &before[2]));

	for (i = 0; i < 2; i++) {
		CHECK_OK(ds_read(c, tctx, r, 0, 4, &data));
		CHECK_STATUS(smb2_util_write(c->tree, r, "x", 0, 1),
			     NT_STATUS_ACCESS_DENIED);
		CHECK_OK(smb2_util_write(c->tree, w, "x", 0, 1));
		CHECK_STATUS(ds_read(c, tctx, w, 0, 4, &data),
			     NT_STATUS_ACCESS_DENIED);
		CHECK_STATUS(ds_read(c, tctx, a, 0, 4, &data),
			     NT_STATUS_ACCESS_DENIED);
		CHECK_STATUS(smb2_util_write(c->tree, a, "x", 0, 1),
			     NT_STATUS_ACCESS_DENIED);
		CHECK_STATUS(ds_delete_on_close(c, w, true),
			     NT_STATUS_ACCESS_DENIED);
		if (i == 0) {
			RESTART();
		}
	}
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, r, &after[0]));
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, w, &after[1]));
	CHECK_OK(torture_smb2_get_allinfo_access(c->tree, a, &after[2]));
	for (i = 0; i < 3; i++) {
		CHECK_VAL(after[i], before[i]);
	}
done:
	ds_close(c, &r);
	ds_close(c, &w);
	ds_close(c, &a);
	return ret;
}

static bool test_share_mode(struct torture_context *tctx,
			    struct ds_client *c1,
			    struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct ds_client *c[2] = { c2, c1 };
	bool ret = true;
	size_t i;

	CHECK_OK(ds_open(c1,
			 DS_NAME("share"),
			 DS_RW,
			 NTCREATEX_SHARE_ACCESS_READ,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h));
	for (i = 0; i < 2; i++) {
		CHECK_STATUS(ds_open(c[i],
				     DS_NAME("share"),
				     SEC_FILE_WRITE_DATA,
				     SHARE_ALL,
				     NTCREATEX_DISP_OPEN,
				     0,
				     &h2),
			     NT_STATUS_SHARING_VIOLATION);
	}
	RESTART();
	for (i = 0; i < 2; i++) {
		CHECK_STATUS(ds_open(c[i],
				     DS_NAME("share"),
				     SEC_FILE_WRITE_DATA,
				     SHARE_ALL,
				     NTCREATEX_DISP_OPEN,
				     0,
				     &h2),
			     NT_STATUS_SHARING_VIOLATION);
		CHECK_STATUS(ds_open(c[i],
				     DS_NAME("share"),
				     SEC_FILE_READ_DATA,
				     NTCREATEX_SHARE_ACCESS_READ,
				     NTCREATEX_DISP_OPEN,
				     0,
				     &h2),
			     NT_STATUS_SHARING_VIOLATION);
		CHECK_STATUS(ds_open(c[i],
				     DS_NAME("share"),
				     SEC_STD_DELETE,
				     SHARE_ALL,
				     NTCREATEX_DISP_OPEN,
				     0,
				     &h2),
			     NT_STATUS_SHARING_VIOLATION);
		CHECK_OK(ds_open(c[i],
				 DS_NAME("share"),
				 SEC_FILE_READ_DATA,
				 SHARE_ALL,
				 NTCREATEX_DISP_OPEN,
				 0,
				 &h2));
		ds_close(c[i], &h2);
	}
	/* and the entry goes with the handle */
	CHECK_CLOSE(c1, h);
	CHECK_OK(ds_open(c2,
			 DS_NAME("share"),
			 DS_RW,
			 SHARE_NONE,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h2));
done:
	ds_close(c1, &h);
	ds_close(c2, &h2);
	return ret;
}

/* Handles of two clients on a file, none of which may lose its entry. */
static bool test_share_two(struct torture_context *tctx,
			   struct ds_client *c1,
			   struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open(c1,
			 DS_NAME("two"),
			 SEC_FILE_READ_DATA,
			 NTCREATEX_SHARE_ACCESS_READ,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h1));
	CHECK_OK(ds_open(c2,
			 DS_NAME("two"),
			 SEC_FILE_READ_DATA,
			 NTCREATEX_SHARE_ACCESS_READ,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h2));
	RESTART();
	ds_close(c1, &h1);
	CHECK_STATUS(ds_open(c1,
			     DS_NAME("two"),
			     SEC_FILE_WRITE_DATA,
			     SHARE_ALL,
			     NTCREATEX_DISP_OPEN,
			     0,
			     &h3),
		     NT_STATUS_SHARING_VIOLATION);
	ds_close(c2, &h2);
	CHECK_OK(ds_open(c1,
			 DS_NAME("two"),
			 SEC_FILE_WRITE_DATA,
			 SHARE_ALL,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h3));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	ds_close(c1, &h3);
	return ret;
}

/* What was granted at open does not depend on what the file is today. */
static bool test_set_readonly(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	union smb_setfileinfo info = {
		.basic_info.level = RAW_SFILEINFO_BASIC_INFORMATION,
		.basic_info.in.attrib = FILE_ATTRIBUTE_READONLY,
	};
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("readonly"), &h));
	info.basic_info.in.file.handle = h;
	CHECK_OK(smb2_setinfo_file(c->tree, &info));
	CHECK_OK(smb2_util_write(c->tree, h, "one", 0, 3));
	RESTART();
	CHECK_OK(smb2_util_write(c->tree, h, "two", 3, 3));
	CHECK_DATA(c, h, "onetwo");
	CHECK_STATUS(ds_open(c,
			     DS_NAME("readonly"),
			     SEC_FILE_WRITE_DATA,
			     SHARE_ALL,
			     NTCREATEX_DISP_OPEN,
			     0,
			     &h2),
		     NT_STATUS_ACCESS_DENIED);
	info.basic_info.in.attrib = FILE_ATTRIBUTE_NORMAL;
	CHECK_OK(smb2_setinfo_file(c->tree, &info));
done:
	ds_close(c, &h);
	return ret;
}

/* Nor on its ACL of today. */
static bool test_acl_changed(struct torture_context *tctx,
				struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_fileinfo q = {
		.query_secdesc.level = RAW_FILEINFO_SEC_DESC,
		.query_secdesc.in.secinfo_flags = SECINFO_DACL,
	};
	union smb_setfileinfo s = {
		.set_secdesc.level = RAW_SFILEINFO_SEC_DESC,
		.set_secdesc.in.secinfo_flags = SECINFO_DACL,
	};
	struct security_descriptor *sd = NULL;
	bool changed = false;
	bool ret = true;

	CHECK_OK(ds_open(c,
			 DS_NAME("denied"),
			 DS_RW | SEC_STD_READ_CONTROL | SEC_STD_WRITE_DAC |
				 SEC_STD_DELETE,
			 SHARE_ALL,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h));
	q.query_secdesc.in.file.handle = h;
	CHECK_OK(smb2_getinfo_file(c->tree, tctx, &q));

	/* nobody may do anything with the file, but the handle is there */
	sd = security_descriptor_dacl_create(tctx,
					     0,
					     NULL,
					     NULL,
					     SID_WORLD,
					     SEC_ACE_TYPE_ACCESS_ALLOWED,
					     SEC_FILE_READ_ATTRIBUTE,
					     0,
					     NULL);
	s.set_secdesc.in.file.handle = h;
	s.set_secdesc.in.sd = sd;
	CHECK_OK(smb2_setinfo_file(c->tree, &s));
	changed = true;

	RESTART();

	CHECK_OK(smb2_util_write(c->tree, h, "mine", 0, 4));
	CHECK_DATA(c, h, "mine");
done:
	if (changed) {
		s.set_secdesc.in.sd = q.query_secdesc.out.sd;
		smb2_setinfo_file(c->tree, &s);
	}
	ds_close(c, &h);
	return ret;
}

static bool test_position(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_setfileinfo set = {
		.position_information.level =
			RAW_SFILEINFO_POSITION_INFORMATION,
		.position_information.in.position = 0x123456,
	};
	union smb_fileinfo get = {
		.position_information.level =
			RAW_FILEINFO_POSITION_INFORMATION,
	};
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("position"), &h));
	set.position_information.in.file.handle = h;
	get.position_information.in.file.handle = h;
	CHECK_OK(smb2_setinfo_file(c->tree, &set));
	RESTART();
	CHECK_OK(smb2_getinfo_file(c->tree, tctx, &get));
	CHECK_VAL(get.position_information.out.position, 0x123456);
done:
	ds_close(c, &h);
	return ret;
}

/* Deleted at the close, and no earlier. */
static bool test_delete_at_open(struct torture_context *tctx,
				struct ds_client *c1,
				struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open(c1,
			 DS_NAME("doc"),
			 DS_RW | SEC_STD_DELETE,
			 SHARE_ALL,
			 NTCREATEX_DISP_CREATE,
			 NTCREATEX_OPTIONS_DELETE_ON_CLOSE,
			 &h));
	CHECK_TRUE(ds_exists(c2, DS_NAME("doc")));
	RESTART();
	CHECK_TRUE(ds_exists(c2, DS_NAME("doc")));
	CHECK_OK(smb2_util_write(c1->tree, h, "doc", 0, 3));
	CHECK_DATA(c1, h, "doc");
	CHECK_CLOSE(c1, h);
	CHECK_TRUE(!ds_exists(c2, DS_NAME("doc")));
done:
	ds_close(c1, &h);
	return ret;
}

static bool test_delete_later(struct torture_context *tctx,
			      struct ds_client *c1,
			      struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	union smb_fileinfo info;
	NTSTATUS status;
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("later"), &h));
	CHECK_OK(ds_delete_on_close(c1, h, true));
	RESTART();
	CHECK_OK(ds_getinfo(c1, h, &info));
	CHECK_VAL(info.all_info2.out.delete_pending, 1);
	status = ds_open_rw(c2, DS_NAME("later"), &h2);
	CHECK_STATUS(status, NT_STATUS_DELETE_PENDING);
	CHECK_CLOSE(c1, h);
	CHECK_TRUE(!ds_exists(c2, DS_NAME("later")));
done:
	ds_close(c1, &h);
	return ret;
}

/* Set before the restart, taken back after it. */
static bool test_delete_undone(struct torture_context *tctx,
			       struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("undone"), &h));
	CHECK_OK(ds_delete_on_close(c, h, true));
	RESTART();
	CHECK_OK(ds_delete_on_close(c, h, false));
	CHECK_CLOSE(c, h);
	CHECK_TRUE(ds_exists(c, DS_NAME("undone")));
done:
	ds_close(c, &h);
	return ret;
}

static bool test_delete_directory(struct torture_context *tctx,
				  struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("deldir"), &h));
	CHECK_OK(ds_delete_on_close(c, h, true));
	RESTART();
	CHECK_CLOSE(c, h);
	CHECK_TRUE(!ds_exists(c, DS_NAME("deldir")));
done:
	ds_close(c, &h);
	return ret;
}

/*
 * The handle that asked for the deletion is closed, another one keeps the
 * file: who asked is known only to the record of the file.
 */
static bool test_unlinked(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("unlinked"), &h1));
	CHECK_OK(smb2_util_write(c1->tree, h1, "data", 0, 4));
	CHECK_OK(ds_open_rw(c2, DS_NAME("unlinked"), &h2));
	CHECK_OK(ds_delete_on_close(c2, h2, true));
	CHECK_CLOSE(c2, h2);
	CHECK_STATUS(ds_open_rw(c2, DS_NAME("unlinked"), &h3),
		     NT_STATUS_DELETE_PENDING);

	RESTART();

	CHECK_DATA(c1, h1, "data");
	CHECK_OK(smb2_util_write(c1->tree, h1, "DATA", 0, 4));
	CHECK_STATUS(ds_open_rw(c2, DS_NAME("unlinked"), &h3),
		     NT_STATUS_DELETE_PENDING);
	CHECK_CLOSE(c1, h1);
	CHECK_TRUE(!ds_exists(c2, DS_NAME("unlinked")));
done:
	ds_close(c1, &h1);
	return ret;
}

/* The other client's smbd learns of a rename by a message of its own. */
static bool ds_wait_name(struct torture_context *tctx,
			 struct ds_client *c,
			 struct smb2_handle h,
			 const char *wanted)
{
	const char *name = NULL;
	bool ret = true;
	int i;

	for (i = 0; i < 50; i++) {
		union smb_fileinfo info;

		CHECK_OK(ds_getinfo(c, h, &info));
		name = strrchr(info.all_info2.out.fname.s, '\\');
		CHECK_TRUE(name != NULL);
		if (strcmp(name + 1, wanted) == 0) {
			return true;
		}
		ds_loop(tctx, 100);
	}
	torture_result(tctx,
		       TORTURE_FAIL,
		       "the name is %s, not %s\n",
		       name + 1,
		       wanted);
	ret = false;
done:
	return ret;
}

static bool test_renamed(struct torture_context *tctx,
			 struct ds_client *c1,
			 struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("old-name"), &h));
	CHECK_OK(smb2_util_write(c1->tree, h, "data", 0, 4));
	CHECK_OK(ds_open_rw(c2, DS_NAME("old-name"), &h2));
	CHECK_OK(ds_rename(c1, h, DS_NAME("new-name")));
	/* another file takes the old name */
	CHECK_OK(ds_create_file(c1, DS_NAME("old-name"), "other", 5));

	RESTART();

	CHECK_DATA(c1, h, "data");
	CHECK_DATA(c2, h2, "data");
	CHECK_TRUE(ds_wait_name(tctx, c2, h2, "new-name"));
	CHECK_OK(ds_rename(c1, h, DS_NAME("newest-name")));
	CHECK_TRUE(!ds_exists(c1, DS_NAME("new-name")));
	CHECK_TRUE(ds_exists(c1, DS_NAME("newest-name")));
	CHECK_TRUE(ds_wait_name(tctx, c2, h2, "newest-name"));
done:
	ds_close(c1, &h);
	ds_close(c2, &h2);
	return ret;
}

/* Another client gave the directory above an open file another name. */
static bool test_parent_renamed(struct torture_context *tctx,
				struct ds_client *c1,
				struct ds_client *c2)
{
	struct smb2_handle dir = { .data = { 0 } };
	struct smb2_handle h = { .data = { 0 } };
	NTSTATUS status;
	bool ret = true;

	CHECK_OK(smb2_util_mkdir(c1->tree, DS_NAME("p1")));
	CHECK_OK(ds_open_rw(c1, DS_NAME("p1\\file"), &h));
	CHECK_OK(smb2_util_write(c1->tree, h, "data", 0, 4));
	CHECK_OK(ds_open(c2,
			 DS_NAME("p1"),
			 SEC_STD_DELETE | SEC_FILE_READ_ATTRIBUTE,
			 SHARE_ALL,
			 NTCREATEX_DISP_OPEN,
			 NTCREATEX_OPTIONS_DIRECTORY,
			 &dir));
	status = ds_rename(c2, dir, DS_NAME("p2"));
	if (NT_STATUS_EQUAL(status, NT_STATUS_ACCESS_DENIED)) {
		torture_skip(tctx, "not while files are open below\n");
	}
	CHECK_OK(status);

	RESTART();

	CHECK_DATA(c1, h, "data");
	CHECK_OK(smb2_util_write(c1->tree, h, "DATA", 0, 4));
	CHECK_DATA(c1, h, "DATA");
	CHECK_TRUE(ds_exists(c2, DS_NAME("p2\\file")));
	CHECK_TRUE(!ds_exists(c2, DS_NAME("p1")));
done:
	ds_close(c2, &dir);
	ds_close(c1, &h);
	return ret;
}

/* A time set through a handle stays, whatever that handle writes. */
static bool test_write_time(struct torture_context *tctx,
			    struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	union smb_setfileinfo set = {
		.basic_info.level = RAW_SFILEINFO_BASIC_INFORMATION,
	};
	union smb_fileinfo info;
	struct smb2_close cl;
	NTTIME t;
	bool ret = true;

	unix_to_nt_time(&t, 1000000000);
	CHECK_OK(ds_open_rw(c, DS_NAME("write-time"), &h));
	set.basic_info.in.file.handle = h;
	set.basic_info.in.write_time = t;
	CHECK_OK(smb2_setinfo_file(c->tree, &set));

	RESTART();

	CHECK_OK(smb2_util_write(c->tree, h, "data", 0, 4));
	ds_loop(tctx, 500);
	CHECK_OK(ds_getinfo(c, h, &info));
	CHECK_VAL(info.all_info2.out.write_time, t);
	cl = (struct smb2_close) {
		.in.file.handle = h,
		.in.flags = SMB2_CLOSE_FLAGS_FULL_INFORMATION,
	};
	CHECK_OK(smb2_close(c->tree, &cl));
	h = (struct smb2_handle) { .data = { 0 } };
	CHECK_VAL(cl.out.write_time, t);
done:
	ds_close(c, &h);
	return ret;
}

static bool test_two_handles(struct torture_context *tctx,
			     struct ds_client *c)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("handles"), &h1));
	CHECK_OK(ds_open_rw(c, DS_NAME("handles"), &h2));
	RESTART();
	CHECK_OK(smb2_util_write(c->tree, h1, "first", 0, 5));
	CHECK_DATA(c, h2, "first");
	CHECK_CLOSE(c, h1);
	CHECK_OK(smb2_util_write(c->tree, h2, "again", 0, 5));
	CHECK_DATA(c, h2, "again");
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

/* More than one message of descriptors holds. */
static bool test_many(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h[200];
	bool ret = true;
	size_t num = 0;
	size_t i;

	for (num = 0; num < ARRAY_SIZE(h); num++) {
		char *name = talloc_asprintf(tctx, DS_NAME("many%zu"), num);

		CHECK_OK(ds_open_rw(c, name, &h[num]));
		CHECK_OK(smb2_util_write(c->tree, h[num], &num, 0, 4));
	}
	RESTART();
	for (i = 0; i < num; i++) {
		uint32_t i32 = i;
		DATA_BLOB data;

		CHECK_OK(ds_read(c, tctx, h[i], 0, 4, &data));
		CHECK_VAL(data.length, 4);
		torture_assert_mem_equal_goto(tctx,
					      data.data,
					      &i32,
					      4,
					      ret,
					      done,
					      "data changed");
	}
done:
	for (i = 0; i < num; i++) {
		ds_close(c, &h[i]);
	}
	return ret;
}

/* A handle for attributes only: it has no descriptor for data. */
static bool test_attributes_only(struct torture_context *tctx,
				 struct ds_client *c1,
				 struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	union smb_fileinfo info;
	bool ret = true;

	CHECK_OK(ds_create_file(c1, DS_NAME("attributes"), "data", 4));
	CHECK_OK(ds_open(c1,
			 DS_NAME("attributes"),
			 SEC_FILE_READ_ATTRIBUTE,
			 SHARE_NONE,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h));
	RESTART();
	CHECK_OK(ds_getinfo(c1, h, &info));
	CHECK_VAL(info.all_info2.out.size, 4);
	/* it still does not take part in sharing */
	CHECK_OK(ds_open(c2,
			 DS_NAME("attributes"),
			 DS_RW,
			 SHARE_NONE,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h2));
done:
	ds_close(c1, &h);
	ds_close(c2, &h2);
	return ret;
}

void ds_open_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "open-file", test_file);
	ds_add_test1(suite, "open-closed", test_closed);
	ds_add_test1(suite, "open-directory", test_directory);
	ds_add_test1(suite, "open-root", test_root);
	ds_add_test1(suite, "open-stream", test_stream);
	ds_add_test1(suite, "open-stream-delete", test_stream_delete);
	ds_add_test1(suite, "open-access", test_access);
	ds_add_test2(suite, "open-share-mode", test_share_mode);
	ds_add_test2(suite, "open-share-two", test_share_two);
	ds_add_test1(suite, "open-set-readonly", test_set_readonly);
	ds_add_test1(suite, "open-acl-changed", test_acl_changed);
	ds_add_test1(suite, "open-position", test_position);
	ds_add_test2(suite, "open-delete-on-close", test_delete_at_open);
	ds_add_test2(suite, "open-delete-later", test_delete_later);
	ds_add_test1(suite, "open-delete-undone", test_delete_undone);
	ds_add_test1(suite, "open-delete-directory", test_delete_directory);
	ds_add_test2(suite, "open-unlinked", test_unlinked);
	ds_add_test2(suite, "open-renamed", test_renamed);
	ds_add_test2(suite, "open-parent-renamed", test_parent_renamed);
	ds_add_test1(suite, "open-write-time", test_write_time);
	ds_add_test1(suite, "open-two-handles", test_two_handles);
	ds_add_test1(suite, "open-many", test_many);
	ds_add_test2(suite, "open-attributes-only", test_attributes_only);
}
