/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: oplocks

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

static NTSTATUS ds_open_oplock(struct ds_client *c,
			       const char *fname,
			       const char *level,
			       struct smb2_handle *h,
			       uint8_t *granted)
{
	struct smb2_create io;
	NTSTATUS status;

	smb2_oplock_create_share(&io,
				 fname,
				 smb2_util_share_access("RWD"),
				 smb2_util_oplock_level(level));
	status = smb2_create(c->tree, c, &io);
	if (NT_STATUS_IS_OK(status)) {
		*h = io.out.file.handle;
		*granted = io.out.oplock_level;
	}
	return status;
}

#define CHECK_OPLOCK(c, fname, level, h) do { \
	uint8_t _granted; \
	CHECK_OK(ds_open_oplock(c, fname, level, h, &_granted)); \
	CHECK_VAL(_granted, smb2_util_oplock_level(level)); \
} while (0)

/* An open by another client, which waits until the break is answered. */
static struct smb2_request *ds_open_send(struct ds_client *c,
					 const char *fname)
{
	struct smb2_create io;

	smb2_oplock_create_share(&io,
				 fname,
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_NONE);
	return smb2_create_send(c->tree, &io);
}

static NTSTATUS ds_open_recv(struct ds_client *c,
			     struct smb2_request *req,
			     struct smb2_handle *h)
{
	struct smb2_create io;
	NTSTATUS status;

	status = smb2_create_recv(req, c, &io);
	if (NT_STATUS_IS_OK(status)) {
		*h = io.out.file.handle;
	}
	return status;
}

static NTSTATUS ds_ack(struct ds_client *c, uint8_t level)
{
	struct smb2_break io = {
		.in.file.handle = c->brk.handle,
		.in.oplock_level = level,
	};

	return smb2_break(c->tree, &io);
}

static bool test_level2(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OPLOCK(c1, DS_NAME("level2"), "s", &h1);
	RESTART();
	CHECK_OK(ds_open_rw(c2, DS_NAME("level2"), &h2));
	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 0);
	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_VAL(c1->brk.level, SMB2_OPLOCK_LEVEL_NONE);
	CHECK_TRUE(smb2_util_handle_equal(c1->brk.handle, h1));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* Kept over the restart, broken and acknowledged after it. */
static bool ds_kept(struct torture_context *tctx,
		    struct ds_client *c1,
		    struct ds_client *c2,
		    const char *level)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_OPLOCK(c1, DS_NAME("kept"), level, &h1);

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 0);
	req = ds_open_send(c2, DS_NAME("kept"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_TRUE(smb2_util_handle_equal(c1->brk.handle, h1));
	CHECK_VAL(c1->brk.level, SMB2_OPLOCK_LEVEL_II);
	CHECK_TRUE(req->state == SMB2_REQUEST_RECV);
	CHECK_OK(ds_ack(c1, SMB2_OPLOCK_LEVEL_II));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));

	/* and now it is a level II oplock */
	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 2));
	CHECK_VAL(c1->brk.level, SMB2_OPLOCK_LEVEL_NONE);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static bool test_exclusive(struct torture_context *tctx,
			   struct ds_client *c1,
			   struct ds_client *c2)
{
	return ds_kept(tctx, c1, c2, "x");
}

static bool test_batch(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	return ds_kept(tctx, c1, c2, "b");
}

/* Broken before the restart, level II after it. */
static bool test_broken_before(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_OPLOCK(c1, DS_NAME("broken"), "b", &h1);
	req = ds_open_send(c2, DS_NAME("broken"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_OK(ds_ack(c1, SMB2_OPLOCK_LEVEL_II));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 1);
	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 2));
	CHECK_VAL(c1->brk.level, SMB2_OPLOCK_LEVEL_NONE);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/*
 * The break is sent, then comes the restart, then the acknowledgement: it
 * is accepted, the other open goes on, and there is no second break.
 */
static bool test_break_pending(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_OPLOCK(c1, DS_NAME("pending"), "b", &h1);
	req = ds_open_send(c2, DS_NAME("pending"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_TRUE(ds_wait_interim(tctx, req));

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 1);
	CHECK_TRUE(req->state == SMB2_REQUEST_RECV);
	CHECK_OK(ds_ack(c1, SMB2_OPLOCK_LEVEL_II));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));
	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 2));
	CHECK_VAL(c1->brk.level, SMB2_OPLOCK_LEVEL_NONE);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* The same, answered by closing the file. */
static bool test_break_close(struct torture_context *tctx,
			     struct ds_client *c1,
			     struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_OPLOCK(c1, DS_NAME("close"), "b", &h1);
	req = ds_open_send(c2, DS_NAME("close"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));

	RESTART();

	CHECK_CLOSE(c1, h1);
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));
	CHECK_VAL(c1->brk.count, 1);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/*
 * Never acknowledged: the other client waits for as long as it would have
 * without the restart (35 s from the break), not for that long once more.
 */
static bool test_break_timeout(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct timeval start;
	double elapsed;
	bool ret = true;

	if (!torture_setting_bool(tctx, "slow", false)) {
		torture_skip(tctx, "needs torture:slow=yes, takes 35 s\n");
	}
	CHECK_OPLOCK(c1, DS_NAME("timeout"), "b", &h1);
	start = timeval_current();
	req = ds_open_send(c2, DS_NAME("timeout"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	ds_loop(tctx, 15000);

	RESTART();

	CHECK_TRUE(ds_wait_req(tctx, req, 30000));
	elapsed = timeval_elapsed(&start);
	torture_comment(tctx, "granted after %.1f s\n", elapsed);
	CHECK_OK(ds_open_recv(c2, req, &h2));
	CHECK_TRUE(elapsed > 30);
	CHECK_TRUE(elapsed < 42);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

void ds_oplock_tests(struct torture_suite *suite)
{
	ds_add_test2(suite, "oplock-level2", test_level2);
	ds_add_test2(suite, "oplock-exclusive", test_exclusive);
	ds_add_test2(suite, "oplock-batch", test_batch);
	ds_add_test2(suite, "oplock-broken-before", test_broken_before);
	ds_add_test2(suite, "oplock-break-pending", test_break_pending);
	ds_add_test2(suite, "oplock-break-close", test_break_close);
	ds_add_test2(suite, "oplock-break-timeout", test_break_timeout);
}
