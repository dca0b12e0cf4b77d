/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: locks and creates that wait for another client

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

static struct smb2_request *ds_lock_send(struct ds_client *c,
					 struct smb2_handle h,
					 uint64_t ofs,
					 uint64_t len)
{
	struct smb2_lock_element el = {
		.offset = ofs,
		.length = len,
		.flags = SMB2_LOCK_FLAG_EXCLUSIVE,
	};
	struct smb2_lock io = {
		.in.file.handle = h,
		.in.lock_count = 1,
		.in.locks = &el,
	};

	return smb2_lock_send(c->tree, &io);
}

/* Every test here: c2 holds, c1 waits for the same range. */
struct ds_lock_wait {
	struct smb2_handle holder;
	struct smb2_handle waiter;
	struct smb2_request *req;
};

static bool ds_lock_wait_start(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2,
			       struct ds_lock_wait *w)
{
	bool ret = true;

	*w = (struct ds_lock_wait) { .req = NULL };
	CHECK_OK(ds_open_rw(c2, DS_NAME("wait"), &w->holder));
	CHECK_OK(ds_open_rw(c1, DS_NAME("wait"), &w->waiter));
	CHECK_OK(ds_lock(c2, w->holder, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
	w->req = ds_lock_send(c1, w->waiter, 0, 10);
	CHECK_TRUE(ds_wait_interim(tctx, w->req));
done:
	return ret;
}

/* Waits across the restart, and gets the lock at the unlock. */
static bool test_lock(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	struct ds_lock_wait w;
	struct smb2_lock io;
	bool ret = true;

	CHECK_TRUE(ds_lock_wait_start(tctx, c1, c2, &w));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	CHECK_OK(ds_lock(c2, w.holder, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_TRUE(ds_wait_req(tctx, w.req, DS_WAIT_MSEC));
	CHECK_TRUE(ds_check_async_id(tctx, c1, w.req));
	CHECK_OK(smb2_lock_recv(w.req, &io));
	CHECK_STATUS(ds_lock(c2, w.holder, 0, 10, DS_LOCK_TRY_EXCLUSIVE),
		     NT_STATUS_LOCK_NOT_GRANTED);
	CHECK_OK(ds_lock(c1, w.waiter, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
done:
	ds_close(c1, &w.waiter);
	ds_close(c2, &w.holder);
	return ret;
}

static bool test_lock_cancel(struct torture_context *tctx,
			     struct ds_client *c1,
			     struct ds_client *c2)
{
	struct ds_lock_wait w;
	bool ret = true;

	CHECK_TRUE(ds_lock_wait_start(tctx, c1, c2, &w));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	CHECK_STATUS(ds_cancel(tctx, w.req), NT_STATUS_CANCELLED);
	/* nobody is waiting any more */
	CHECK_OK(ds_lock(c2, w.holder, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c2, w.holder, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
done:
	ds_close(c1, &w.waiter);
	ds_close(c2, &w.holder);
	return ret;
}

/* The handle is closed over a waiting lock. */
static bool test_lock_waiter_closed(struct torture_context *tctx,
				    struct ds_client *c1,
				    struct ds_client *c2)
{
	struct ds_lock_wait w;
	struct smb2_lock io;
	bool ret = true;

	CHECK_TRUE(ds_lock_wait_start(tctx, c1, c2, &w));
	RESTART();
	CHECK_CLOSE(c1, w.waiter);
	CHECK_TRUE(ds_wait_req(tctx, w.req, DS_WAIT_MSEC));
	CHECK_STATUS(smb2_lock_recv(w.req, &io), NT_STATUS_RANGE_NOT_LOCKED);
done:
	ds_close(c1, &w.waiter);
	ds_close(c2, &w.holder);
	return ret;
}

/* The wait of one client does not stop its other requests. */
static bool test_lock_meanwhile(struct torture_context *tctx,
				struct ds_client *c1,
				struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_lock_wait w;
	struct smb2_lock io;
	bool ret = true;
	int i;

	CHECK_TRUE(ds_lock_wait_start(tctx, c1, c2, &w));
	CHECK_OK(ds_open_rw(c1, DS_NAME("meanwhile"), &h));
	for (i = 0; i < 3; i++) {
		RESTART();
		CHECK_OK(smb2_util_write(c1->tree, h, "x", i, 1));
		CHECK_OK(smb2_util_write(c1->tree, w.waiter, "x", 10, 1));
	}
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	CHECK_OK(ds_lock(c2, w.holder, 0, 10, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_TRUE(ds_wait_req(tctx, w.req, DS_WAIT_MSEC));
	CHECK_OK(smb2_lock_recv(w.req, &io));
done:
	ds_close(c1, &h);
	ds_close(c1, &w.waiter);
	ds_close(c2, &w.holder);
	return ret;
}

/* Every test here: c2 has a batch oplock, c1's open waits for the break. */
struct ds_create_wait {
	struct smb2_handle holder;
	struct smb2_request *req;
};

static bool ds_create_wait_start(struct torture_context *tctx,
				 struct ds_client *c1,
				 struct ds_client *c2,
				 struct ds_create_wait *w)
{
	struct smb2_create io;
	bool ret = true;

	*w = (struct ds_create_wait) { .req = NULL };
	smb2_oplock_create_share(&io,
				 DS_NAME("create"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_BATCH);
	CHECK_OK(smb2_create(c2->tree, tctx, &io));
	CHECK_VAL(io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);
	w->holder = io.out.file.handle;

	smb2_oplock_create_share(&io,
				 DS_NAME("create"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_II);
	w->req = smb2_create_send(c1->tree, &io);
	CHECK_TRUE(ds_wait_break(tctx, c2, 1));
	CHECK_TRUE(ds_wait_interim(tctx, w->req));
done:
	return ret;
}

static bool test_create(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_create_wait w;
	struct smb2_create io;
	struct smb2_break ack;
	bool ret = true;

	CHECK_TRUE(ds_create_wait_start(tctx, c1, c2, &w));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	ack = (struct smb2_break) {
		.in.file.handle = w.holder,
		.in.oplock_level = SMB2_OPLOCK_LEVEL_II,
	};
	CHECK_OK(smb2_break(c2->tree, &ack));
	CHECK_TRUE(ds_wait_req(tctx, w.req, DS_WAIT_MSEC));
	CHECK_TRUE(ds_check_async_id(tctx, c1, w.req));
	CHECK_OK(smb2_create_recv(w.req, tctx, &io));
	h = io.out.file.handle;
	CHECK_VAL(io.out.oplock_level, SMB2_OPLOCK_LEVEL_II);
	CHECK_VAL(io.out.create_action, NTCREATEX_ACTION_EXISTED);
	CHECK_OK(smb2_util_write(c1->tree, h, "x", 0, 1));
done:
	ds_close(c1, &h);
	ds_close(c2, &w.holder);
	return ret;
}

/* A compound whose first part waits: the others wait for that one. */
static bool test_compound(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	struct smb2_handle any = { .data = { UINT64_MAX, UINT64_MAX } };
	struct smb2_write wr = {
		.in.file.handle = any,
		.in.data = data_blob_string_const("compound"),
	};
	struct smb2_close cl = { .in.file.handle = any };
	struct smb2_handle holder = { .data = { 0 } };
	struct smb2_request *reqs[3] = { NULL };
	struct smb2_create io;
	struct smb2_break ack;
	DATA_BLOB data;
	bool ret = true;
	int i;

	smb2_oplock_create_share(&io,
				 DS_NAME("compound"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_BATCH);
	CHECK_OK(smb2_create(c2->tree, tctx, &io));
	CHECK_VAL(io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);
	holder = io.out.file.handle;

	smb2_oplock_create_share(&io,
				 DS_NAME("compound"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_NONE);
	smb2_transport_compound_start(c1->transport, 3);
	reqs[0] = smb2_create_send(c1->tree, &io);
	smb2_transport_compound_set_related(c1->transport, true);
	reqs[1] = smb2_write_send(c1->tree, &wr);
	reqs[2] = smb2_close_send(c1->tree, &cl);
	CHECK_TRUE(ds_wait_break(tctx, c2, 1));
	CHECK_TRUE(ds_wait_interim(tctx, reqs[0]));

	RESTART();

	for (i = 0; i < 3; i++) {
		CHECK_TRUE(ds_still_waiting(tctx, reqs[i]));
	}
	ack = (struct smb2_break) {
		.in.file.handle = holder,
		.in.oplock_level = SMB2_OPLOCK_LEVEL_II,
	};
	CHECK_OK(smb2_break(c2->tree, &ack));
	for (i = 0; i < 3; i++) {
		CHECK_TRUE(ds_wait_req(tctx, reqs[i], DS_WAIT_MSEC));
	}
	CHECK_OK(smb2_create_recv(reqs[0], tctx, &io));
	CHECK_OK(smb2_write_recv(reqs[1], &wr));
	CHECK_VAL(wr.out.nwritten, 8);
	CHECK_OK(smb2_close_recv(reqs[2], &cl));
	CHECK_OK(ds_read(c2, tctx, holder, 0, 8, &data));
	CHECK_VAL(data.length, 8);
done:
	ds_close(c2, &holder);
	return ret;
}

static bool test_create_cancel(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	struct ds_create_wait w;
	struct smb2_break ack;
	bool ret = true;

	CHECK_TRUE(ds_create_wait_start(tctx, c1, c2, &w));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	CHECK_STATUS(ds_cancel(tctx, w.req), NT_STATUS_CANCELLED);
	ack = (struct smb2_break) {
		.in.file.handle = w.holder,
		.in.oplock_level = SMB2_OPLOCK_LEVEL_II,
	};
	CHECK_OK(smb2_break(c2->tree, &ack));
	CHECK_OK(smb2_util_write(c2->tree, w.holder, "x", 0, 1));
done:
	ds_close(c2, &w.holder);
	return ret;
}

static bool test_create_holder_gone(struct torture_context *tctx,
				    struct ds_client *c1,
				    struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *c3 = NULL;
	struct ds_create_wait w;
	struct smb2_create io;
	bool ret = true;

	c3 = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c3 != NULL);
	CHECK_TRUE(ds_create_wait_start(tctx, c1, c3, &w));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, w.req));
	TALLOC_FREE(c3);
	CHECK_TRUE(ds_wait_req(tctx, w.req, DS_WAIT_MSEC));
	CHECK_OK(smb2_create_recv(w.req, tctx, &io));
	h = io.out.file.handle;
done:
	ds_close(c1, &h);
	TALLOC_FREE(c3);
	return ret;
}

void ds_pending_tests(struct torture_suite *suite)
{
	ds_add_relay_test2(suite, "wait-lock", test_lock);
	ds_add_test2(suite, "wait-lock-cancel", test_lock_cancel);
	ds_add_test2(suite,
		     "wait-lock-waiter-closed",
		     test_lock_waiter_closed);
	ds_add_test2(suite, "wait-lock-meanwhile", test_lock_meanwhile);
	ds_add_relay_test2(suite, "wait-create", test_create);
	ds_add_test2(suite, "wait-compound", test_compound);
	ds_add_test2(suite, "wait-create-cancel", test_create_cancel);
	ds_add_test2(suite,
		     "wait-create-holder-gone",
		     test_create_holder_gone);
}
