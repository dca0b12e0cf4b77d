/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: byte-range locks

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
#include "torture/durable_state/ds_util.h"

#define DS_NUM_LOCKS 200

static bool test_exclusive(struct torture_context *tctx,
			   struct ds_client *c1,
			   struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	DATA_BLOB data;
	bool ret = true;
	int i;

	CHECK_OK(ds_create_file(c1, DS_NAME("lock"), "0123456789", 10));
	CHECK_OK(ds_open_rw(c1, DS_NAME("lock"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("lock"), &h2));
	CHECK_OK(ds_lock(c1, h1, 2, 4, DS_LOCK_TRY_EXCLUSIVE));

	for (i = 0; i < 2; i++) {
		CHECK_STATUS(ds_lock(c2, h2, 5, 2, DS_LOCK_TRY_SHARED),
			     NT_STATUS_LOCK_NOT_GRANTED);
		CHECK_STATUS(smb2_util_write(c2->tree, h2, "x", 2, 1),
			     NT_STATUS_FILE_LOCK_CONFLICT);
		CHECK_STATUS(ds_read(c2, tctx, h2, 0, 10, &data),
			     NT_STATUS_FILE_LOCK_CONFLICT);
		CHECK_OK(smb2_util_write(c2->tree, h2, "x", 6, 1));
		CHECK_OK(smb2_util_write(c1->tree, h1, "x", 2, 1));
		CHECK_STATUS(ds_lock(c2, h2, 2, 4, SMB2_LOCK_FLAG_UNLOCK),
			     NT_STATUS_RANGE_NOT_LOCKED);
		if (i == 0) {
			RESTART();
		}
	}

	CHECK_OK(ds_lock(c1, h1, 2, 4, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c2, h2, 5, 2, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_STATUS(ds_lock(c1, h1, 2, 4, DS_LOCK_TRY_EXCLUSIVE),
		     NT_STATUS_LOCK_NOT_GRANTED);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static bool test_shared(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	DATA_BLOB data;
	bool ret = true;
	int i;

	CHECK_OK(ds_create_file(c1, DS_NAME("shared"), "0123456789", 10));
	CHECK_OK(ds_open_rw(c1, DS_NAME("shared"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("shared"), &h2));
	CHECK_OK(ds_lock(c1, h1, 0, 10, DS_LOCK_TRY_SHARED));

	for (i = 0; i < 2; i++) {
		CHECK_STATUS(ds_lock(c2, h2, 0, 1, DS_LOCK_TRY_EXCLUSIVE),
			     NT_STATUS_LOCK_NOT_GRANTED);
		CHECK_STATUS(smb2_util_write(c2->tree, h2, "x", 2, 1),
			     NT_STATUS_FILE_LOCK_CONFLICT);
		CHECK_OK(ds_read(c2, tctx, h2, 0, 10, &data));
		if (i == 0) {
			RESTART();
		}
	}

	CHECK_OK(ds_lock(c2, h2, 0, 10, DS_LOCK_TRY_SHARED));
	CHECK_OK(ds_lock(c1, h1, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_STATUS(ds_lock(c1, h1, 0, 1, DS_LOCK_TRY_EXCLUSIVE),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock(c2, h2, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c1, h1, 0, 1, DS_LOCK_TRY_EXCLUSIVE));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* Shared locks stack: as many unlocks as locks. */
static bool test_stacked(struct torture_context *tctx,
			 struct ds_client *c1,
			 struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("stacked"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("stacked"), &h2));
	CHECK_OK(ds_lock(c1, h1, 0, 10, DS_LOCK_TRY_SHARED));
	CHECK_OK(ds_lock(c1, h1, 0, 10, DS_LOCK_TRY_SHARED));
	RESTART();
	CHECK_OK(ds_lock(c1, h1, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_STATUS(ds_lock(c2, h2, 0, 10, DS_LOCK_TRY_EXCLUSIVE),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock(c1, h1, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_STATUS(ds_lock(c1, h1, 0, 10, SMB2_LOCK_FLAG_UNLOCK),
		     NT_STATUS_RANGE_NOT_LOCKED);
	CHECK_OK(ds_lock(c2, h2, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static bool test_many(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;
	int i;

	CHECK_OK(ds_open_rw(c1, DS_NAME("many"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("many"), &h2));
	for (i = 0; i < DS_NUM_LOCKS; i++) {
		uint32_t flags = (i % 2 == 0) ? DS_LOCK_TRY_EXCLUSIVE
					      : DS_LOCK_TRY_SHARED;

		CHECK_OK(ds_lock(c1, h1, i * 10, 5, flags));
	}
	RESTART();
	for (i = 0; i < DS_NUM_LOCKS; i++) {
		CHECK_STATUS(ds_lock(c2,
				     h2,
				     i * 10 + 4,
				     1,
				     DS_LOCK_TRY_EXCLUSIVE),
			     NT_STATUS_LOCK_NOT_GRANTED);
		CHECK_OK(ds_lock(c2, h2, i * 10 + 5, 5, DS_LOCK_TRY_EXCLUSIVE));
		if (i % 2 == 1) {
			CHECK_OK(ds_lock(c2,
					 h2,
					 i * 10,
					 5,
					 DS_LOCK_TRY_SHARED));
		}
	}
	for (i = 0; i < DS_NUM_LOCKS; i++) {
		CHECK_OK(ds_lock(c1, h1, i * 10, 5, SMB2_LOCK_FLAG_UNLOCK));
	}
	CHECK_STATUS(ds_lock(c1, h1, 0, 5, SMB2_LOCK_FLAG_UNLOCK),
		     NT_STATUS_RANGE_NOT_LOCKED);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* Two clients hold locks on one file: both keep theirs. */
static bool test_two_clients(struct torture_context *tctx,
			     struct ds_client *c1,
			     struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("clients"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("clients"), &h2));
	CHECK_OK(ds_lock(c1, h1, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_OK(ds_lock(c2, h2, 10, 10, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_OK(ds_lock(c1, h1, 20, 10, DS_LOCK_TRY_SHARED));
	CHECK_OK(ds_lock(c2, h2, 20, 10, DS_LOCK_TRY_SHARED));

	RESTART();

	CHECK_STATUS(ds_lock(c2, h2, 9, 1, DS_LOCK_TRY_SHARED),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_STATUS(ds_lock(c1, h1, 10, 1, DS_LOCK_TRY_SHARED),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock(c1, h1, 20, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_STATUS(ds_lock(c1, h1, 20, 10, DS_LOCK_TRY_EXCLUSIVE),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock(c2, h2, 20, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c1, h1, 20, 10, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_OK(ds_lock(c1, h1, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c2, h2, 10, 10, SMB2_LOCK_FLAG_UNLOCK));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* A lock belongs to its handle, not to the client. */
static bool test_two_handles(struct torture_context *tctx,
			     struct ds_client *c)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("handles"), &h1));
	CHECK_OK(ds_open_rw(c, DS_NAME("handles"), &h2));
	CHECK_OK(ds_lock(c, h1, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
	RESTART();
	CHECK_STATUS(ds_lock(c, h2, 0, 10, DS_LOCK_TRY_SHARED),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_STATUS(smb2_util_write(c->tree, h2, "x", 0, 1),
		     NT_STATUS_FILE_LOCK_CONFLICT);
	CHECK_STATUS(ds_lock(c, h2, 0, 10, SMB2_LOCK_FLAG_UNLOCK),
		     NT_STATUS_RANGE_NOT_LOCKED);
	CHECK_OK(smb2_util_write(c->tree, h1, "x", 0, 1));
	/* closing the one frees it for the other */
	CHECK_CLOSE(c, h1);
	CHECK_OK(ds_lock(c, h2, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

/* Ranges that no fcntl() lock can express, and one of no length. */
static bool test_odd_ranges(struct torture_context *tctx,
			    struct ds_client *c1,
			    struct ds_client *c2)
{
	static const struct {
		uint64_t ofs;
		uint64_t len;
	} r[] = {
		{ UINT64_C(0x7fffffffffffff00), 0x80 },
		{ UINT64_C(0xeeffffffffffff00), 0x100 },
		{ UINT64_MAX - 1, 1 },
		{ 100, 0 },
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;
	size_t i;

	CHECK_OK(ds_open_rw(c1, DS_NAME("odd"), &h1));
	CHECK_OK(ds_open_rw(c2, DS_NAME("odd"), &h2));
	for (i = 0; i < ARRAY_SIZE(r); i++) {
		CHECK_OK(ds_lock(c1,
				 h1,
				 r[i].ofs,
				 r[i].len,
				 DS_LOCK_TRY_EXCLUSIVE));
	}
	RESTART();
	for (i = 0; i < 3; i++) {
		CHECK_STATUS(ds_lock(c2,
				     h2,
				     r[i].ofs,
				     1,
				     DS_LOCK_TRY_SHARED),
			     NT_STATUS_LOCK_NOT_GRANTED);
	}
	/* the empty one is in the way of what surrounds it */
	CHECK_STATUS(ds_lock(c2, h2, 99, 2, DS_LOCK_TRY_SHARED),
		     NT_STATUS_LOCK_NOT_GRANTED);
	for (i = 0; i < ARRAY_SIZE(r); i++) {
		CHECK_OK(ds_lock(c1,
				 h1,
				 r[i].ofs,
				 r[i].len,
				 SMB2_LOCK_FLAG_UNLOCK));
	}
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static NTSTATUS ds_lock_sequence(struct ds_client *c,
				 struct smb2_handle h,
				 uint32_t flags,
				 uint32_t bucket,
				 uint32_t number)
{
	struct smb2_lock_element el = {
		.length = 10,
		.offset = bucket * 100,
		.flags = flags,
	};
	struct smb2_lock io = {
		.in.file.handle = h,
		.in.lock_count = 1,
		.in.lock_sequence = (bucket << 4) | number,
		.in.locks = &el,
	};

	return smb2_lock(c->tree, &io);
}

/*
 * MS-SMB2 3.3.5.14: a lock request that repeats the sequence number of its
 * bucket is one that was sent again, and succeeds without doing anything.
 */
static bool test_sequence(struct torture_context *tctx, struct ds_client *c)
{
	uint32_t caps =
		smb2cli_conn_server_capabilities(c->transport->conn);
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_create io;
	bool ret = true;
	uint32_t b;

	if (ds_protocol(c) < PROTOCOL_SMB2_10) {
		torture_skip(tctx, "lock sequences need SMB 2.10\n");
	}
	smb2_oplock_create_share(&io,
				 DS_NAME("sequence"),
				 smb2_util_share_access(""),
				 SMB2_OPLOCK_LEVEL_BATCH);
	io.in.durable_open = true;
	CHECK_OK(smb2_create(c->tree, tctx, &io));
	h = io.out.file.handle;
	if (!io.out.durable_open &&
	    (ds_protocol(c) < PROTOCOL_SMB3_00 ||
	     !(caps & SMB2_CAP_MULTI_CHANNEL))) {
		ds_close(c, &h);
		torture_skip(tctx, "the handle keeps no lock sequences\n");
	}

	for (b = 1; b <= 64; b++) {
		CHECK_OK(ds_lock_sequence(c,
					  h,
					  DS_LOCK_TRY_EXCLUSIVE,
					  b,
					  b & 0xf));
	}
	RESTART();
	for (b = 1; b <= 64; b++) {
		CHECK_OK(ds_lock_sequence(c,
					  h,
					  DS_LOCK_TRY_EXCLUSIVE,
					  b,
					  b & 0xf));
	}
	/* another number: this is a lock on what is locked */
	CHECK_STATUS(ds_lock_sequence(c, h, DS_LOCK_TRY_EXCLUSIVE, 1, 2),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock_sequence(c, h, SMB2_LOCK_FLAG_UNLOCK, 1, 3));
	CHECK_OK(ds_lock_sequence(c, h, SMB2_LOCK_FLAG_UNLOCK, 1, 3));
	CHECK_STATUS(ds_lock_sequence(c, h, SMB2_LOCK_FLAG_UNLOCK, 1, 4),
		     NT_STATUS_RANGE_NOT_LOCKED);
done:
	ds_close(c, &h);
	return ret;
}

void ds_lock_tests(struct torture_suite *suite)
{
	ds_add_test2(suite, "lock-exclusive", test_exclusive);
	ds_add_test2(suite, "lock-shared", test_shared);
	ds_add_test2(suite, "lock-stacked", test_stacked);
	ds_add_test2(suite, "lock-many", test_many);
	ds_add_test2(suite, "lock-two-clients", test_two_clients);
	ds_add_test1(suite, "lock-two-handles", test_two_handles);
	ds_add_test2(suite, "lock-odd-ranges", test_odd_ranges);
	ds_add_test1(suite, "lock-sequence", test_sequence);
}
