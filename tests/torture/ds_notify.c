/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: change notify

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

static struct smb2_request *ds_notify_send(struct ds_client *c,
					   struct smb2_handle h,
					   uint32_t filter,
					   bool recursive)
{
	struct smb2_notify io = {
		.in.file.handle = h,
		.in.buffer_size = 4096,
		.in.completion_filter = filter,
		.in.recursive = recursive,
	};

	return smb2_notify_send(c->tree, &io);
}

/* It waits, and notifyd knows of it: that is told by a message of its own. */
static bool ds_notify_waits(struct torture_context *tctx,
			    struct smb2_request *req)
{
	if (!ds_wait_interim(tctx, req)) {
		return false;
	}
	ds_loop(tctx, 100);
	return true;
}

/* The request is answered with one change, of that name. */
static bool ds_notify_check(struct torture_context *tctx,
			    struct smb2_request *req,
			    uint32_t action,
			    const char *name)
{
	struct smb2_notify io = { .out.num_changes = 0 };
	bool ret = true;

	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(smb2_notify_recv(req, tctx, &io));
	CHECK_VAL(io.out.num_changes, 1);
	CHECK_VAL(io.out.changes[0].action, action);
	torture_assert_str_equal_goto(tctx,
				      io.out.changes[0].name.s,
				      name,
				      ret,
				      done,
				      "name");
done:
	return ret;
}

static bool ds_notify_open(struct torture_context *tctx,
			   struct ds_client *c,
			   struct smb2_handle *h)
{
	bool ret = true;

	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("watched"), h));
done:
	return ret;
}

/* Waits across the restart and is answered then, once. */
static bool test_waiting(struct torture_context *tctx,
			 struct ds_client *c1,
			 struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));

	RESTART();

	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\new"), "", 0));
	CHECK_TRUE(ds_notify_check(tctx, req, NOTIFY_ACTION_ADDED, "new"));

	/* the next one gets the next change, not this one again */
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));
	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_OK(smb2_util_unlink(c2->tree, DS_NAME("watched\\new")));
	CHECK_TRUE(ds_notify_check(tctx, req, NOTIFY_ACTION_REMOVED, "new"));
done:
	ds_close(c1, &h);
	return ret;
}

/* Both the watcher and who is watched go on for several restarts. */
static bool test_again(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;
	int i;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	for (i = 0; i < 3; i++) {
		req = ds_notify_send(c1,
				     h,
				     FILE_NOTIFY_CHANGE_FILE_NAME,
				     false);
		CHECK_TRUE(ds_notify_waits(tctx, req));
		RESTART();
		CHECK_OK(ds_create_file(c2, DS_NAME("watched\\dir"), "", 0));
		CHECK_TRUE(ds_notify_check(tctx,
					   req,
					   NOTIFY_ACTION_ADDED,
					   "dir"));
		req = ds_notify_send(c1,
				     h,
				     FILE_NOTIFY_CHANGE_FILE_NAME,
				     false);
		CHECK_TRUE(ds_notify_waits(tctx, req));
		RESTART();
		CHECK_OK(smb2_util_unlink(c2->tree, DS_NAME("watched\\dir")));
		CHECK_TRUE(ds_notify_check(tctx,
					   req,
					   NOTIFY_ACTION_REMOVED,
					   "dir"));
	}
done:
	ds_close(c1, &h);
	return ret;
}

/*
 * What happened while no request waited is told to the next one: the
 * changes themselves, or that there were some (MS-SMB2 3.3.4.4).
 */
static bool test_buffered(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_notify io;
	NTSTATUS status;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\one"), "", 0));
	CHECK_TRUE(ds_notify_check(tctx, req, NOTIFY_ACTION_ADDED, "one"));
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\two"), "", 0));
	ds_loop(tctx, 300);

	RESTART();

	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	status = smb2_notify_recv(req, tctx, &io);
	if (!NT_STATUS_EQUAL(status, NT_STATUS_NOTIFY_ENUM_DIR)) {
		CHECK_OK(status);
		CHECK_VAL(io.out.num_changes, 1);
		torture_assert_str_equal_goto(tctx,
					      io.out.changes[0].name.s,
					      "two",
					      ret,
					      done,
					      "name");
	}
done:
	ds_close(c1, &h);
	return ret;
}

static bool test_tree(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	CHECK_OK(smb2_util_mkdir(c1->tree, DS_NAME("watched\\sub")));
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, true);
	CHECK_TRUE(ds_notify_waits(tctx, req));

	RESTART();

	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\sub\\deep"), "", 0));
	CHECK_TRUE(ds_notify_check(tctx,
				   req,
				   NOTIFY_ACTION_ADDED,
				   "sub\\deep"));
done:
	ds_close(c1, &h);
	return ret;
}

/* What the request did not ask for does not answer it. */
static bool test_filter(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	CHECK_OK(ds_open_rw(c2, DS_NAME("watched\\file"), &h2));
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));

	RESTART();

	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\new"), "", 0));
	CHECK_TRUE(ds_notify_check(tctx, req, NOTIFY_ACTION_ADDED, "new"));
done:
	ds_close(c1, &h);
	ds_close(c2, &h2);
	return ret;
}

static bool test_cancel(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c, &h));
	req = ds_notify_send(c, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_STATUS(ds_cancel(tctx, req), NT_STATUS_CANCELLED);
done:
	ds_close(c, &h);
	return ret;
}

static bool test_close(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_notify io;
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c, &h));
	req = ds_notify_send(c, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));
	RESTART();
	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_CLOSE(c, h);
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_STATUS(smb2_notify_recv(req, tctx, &io),
		     NT_STATUS_NOTIFY_CLEANUP);
done:
	ds_close(c, &h);
	return ret;
}

/* Several wait on one handle: the first is answered first. */
static bool test_queue(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *reqs[3];
	const char *names[3] = { "q0", "q1", "q2" };
	bool ret = true;
	int i;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	for (i = 0; i < 3; i++) {
		reqs[i] = ds_notify_send(c1,
					 h,
					 FILE_NOTIFY_CHANGE_FILE_NAME,
					 false);
		CHECK_TRUE(ds_notify_waits(tctx, reqs[i]));
	}

	RESTART();

	for (i = 0; i < 3; i++) {
		char *name = talloc_asprintf(tctx,
					     DS_NAME("watched\\%s"),
					     names[i]);

		CHECK_TRUE(ds_still_waiting(tctx, reqs[i]));
		CHECK_OK(ds_create_file(c2, name, "", 0));
		CHECK_TRUE(ds_notify_check(tctx,
					   reqs[i],
					   NOTIFY_ACTION_ADDED,
					   names[i]));
	}
done:
	ds_close(c1, &h);
	return ret;
}

static bool test_async_id(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	bool ret = true;

	CHECK_TRUE(ds_notify_open(tctx, c1, &h));
	req = ds_notify_send(c1, h, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_notify_waits(tctx, req));
	RESTART();
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\new"), "", 0));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_TRUE(ds_check_async_id(tctx, c1, req));
	CHECK_TRUE(ds_notify_check(tctx, req, NOTIFY_ACTION_ADDED, "new"));
done:
	ds_close(c1, &h);
	return ret;
}

/* The request is the second half of a compound, after its create. */
static bool test_compound(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	const struct smb2_handle any = { .data = { UINT64_MAX, UINT64_MAX } };
	struct smb2_create cr = {
		.in.fname = DS_NAME("watched"),
		.in.desired_access = SEC_RIGHTS_FILE_READ,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = NTCREATEX_DISP_OPEN,
		.in.create_options = NTCREATEX_OPTIONS_DIRECTORY,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *reqs[2] = { NULL };
	bool ret = true;

	CHECK_OK(smb2_util_mkdir(c1->tree, DS_NAME("watched")));
	smb2_transport_compound_start(c1->transport, 2);
	reqs[0] = smb2_create_send(c1->tree, &cr);
	smb2_transport_compound_set_related(c1->transport, true);
	reqs[1] = ds_notify_send(c1, any, FILE_NOTIFY_CHANGE_FILE_NAME, false);
	CHECK_TRUE(ds_wait_req(tctx, reqs[0], DS_WAIT_MSEC));
	CHECK_OK(smb2_create_recv(reqs[0], tctx, &cr));
	h = cr.out.file.handle;
	CHECK_TRUE(ds_notify_waits(tctx, reqs[1]));

	RESTART();

	CHECK_TRUE(ds_still_waiting(tctx, reqs[1]));
	CHECK_OK(ds_create_file(c2, DS_NAME("watched\\new"), "", 0));
	CHECK_TRUE(ds_notify_check(tctx, reqs[1], NOTIFY_ACTION_ADDED, "new"));
done:
	ds_close(c1, &h);
	return ret;
}

void ds_notify_tests(struct torture_suite *suite)
{
	ds_add_test2(suite, "notify-waiting", test_waiting);
	ds_add_test2(suite, "notify-again", test_again);
	ds_add_test2(suite, "notify-buffered", test_buffered);
	ds_add_test2(suite, "notify-tree", test_tree);
	ds_add_test2(suite, "notify-filter", test_filter);
	ds_add_test1(suite, "notify-cancel", test_cancel);
	ds_add_test1(suite, "notify-close", test_close);
	ds_add_test2(suite, "notify-queue", test_queue);
	ds_add_relay_test2(suite, "notify-async-id", test_async_id);
	ds_add_test2(suite, "notify-compound", test_compound);
}
