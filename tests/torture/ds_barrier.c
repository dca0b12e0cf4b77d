/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: nobody slips in while smbd is restarted

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

/*
 * Each of these tests repeats, during some restarts, what must fail as long
 * as the other client has what it has. try_it() returns the status.
 */
static bool ds_hammer(struct torture_context *tctx,
		      NTSTATUS (*try_it)(void *private_data),
		      void *private_data,
		      NTSTATUS expected)
{
	struct ds_restart *r = NULL;
	unsigned num = 0;
	bool ret = true;
	bool ok;
	int i;

	for (i = 0; i < 5; i++) {
		r = ds_restart_start(tctx);
		CHECK_TRUE(r != NULL);
		do {
			CHECK_STATUS(try_it(private_data), expected);
			num++;
		} while (ds_restart_running(r));
		ok = ds_restart_wait(tctx, r);
		r = NULL;
		CHECK_TRUE(ok);
		CHECK_STATUS(try_it(private_data), expected);
	}
	torture_comment(tctx, "%u attempts\n", num);
done:
	TALLOC_FREE(r);
	return ret;
}

struct ds_intruder {
	struct torture_context *tctx;
	struct ds_client *c;
	struct smb2_handle h;
	const char *fname;
};

static NTSTATUS ds_try_open(void *private_data)
{
	struct ds_intruder *in = private_data;

	return ds_open(in->c,
		       in->fname,
		       SEC_RIGHTS_FILE_READ,
		       NTCREATEX_SHARE_ACCESS_MASK,
		       NTCREATEX_DISP_OPEN,
		       0,
		       &in->h);
}

static bool test_open(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	struct ds_intruder in = { .c = c2, .fname = DS_NAME("barrier") };
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open(c1,
			 DS_NAME("barrier"),
			 DS_RW,
			 NTCREATEX_SHARE_ACCESS_NONE,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h));
	CHECK_TRUE(ds_hammer(tctx,
			     ds_try_open,
			     &in,
			     NT_STATUS_SHARING_VIOLATION));
done:
	ds_close(c1, &h);
	return ret;
}

/* The same from clients that come only now. */
static NTSTATUS ds_try_connect_open(void *private_data)
{
	struct ds_intruder *in = private_data;
	NTSTATUS status = NT_STATUS_CONNECTION_REFUSED;

	in->c = ds_connect(in->tctx, in->tctx, NULL);
	if (in->c != NULL) {
		status = ds_try_open(in);
	}
	TALLOC_FREE(in->c);
	return status;
}

static bool test_new_client(struct torture_context *tctx,
			    struct ds_client *c1,
			    struct ds_client *c2)
{
	struct ds_intruder in = {
		.tctx = tctx,
		.fname = DS_NAME("newcomer"),
	};
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open(c1,
			 DS_NAME("newcomer"),
			 DS_RW,
			 NTCREATEX_SHARE_ACCESS_NONE,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h));
	CHECK_TRUE(ds_hammer(tctx,
			     ds_try_connect_open,
			     &in,
			     NT_STATUS_SHARING_VIOLATION));
done:
	ds_close(c1, &h);
	return ret;
}

static NTSTATUS ds_try_lock(void *private_data)
{
	struct ds_intruder *in = private_data;

	return ds_lock(in->c, in->h, 0, 10, DS_LOCK_TRY_EXCLUSIVE);
}

static bool test_lock(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	struct ds_intruder in = { .c = c2 };
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("barrier"), &h));
	CHECK_OK(ds_open_rw(c2, DS_NAME("barrier"), &in.h));
	CHECK_OK(ds_lock(c1, h, 5, 1, DS_LOCK_TRY_SHARED));
	CHECK_TRUE(ds_hammer(tctx,
			     ds_try_lock,
			     &in,
			     NT_STATUS_LOCK_NOT_GRANTED));
done:
	ds_close(c1, &h);
	ds_close(c2, &in.h);
	return ret;
}

static NTSTATUS ds_try_write(void *private_data)
{
	struct ds_intruder *in = private_data;

	return smb2_util_write(in->c->tree, in->h, "x", 5, 1);
}

static bool test_write(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	struct ds_intruder in = { .c = c2 };
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("barrier"), &h));
	CHECK_OK(ds_open_rw(c2, DS_NAME("barrier"), &in.h));
	CHECK_OK(ds_lock(c1, h, 0, 10, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_TRUE(ds_hammer(tctx,
			     ds_try_write,
			     &in,
			     NT_STATUS_FILE_LOCK_CONFLICT));
done:
	ds_close(c1, &h);
	ds_close(c2, &in.h);
	return ret;
}

static NTSTATUS ds_try_unlink(void *private_data)
{
	struct ds_intruder *in = private_data;

	return smb2_util_unlink(in->c->tree, in->fname);
}

static bool test_unlink(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct ds_intruder in = { .c = c2, .fname = DS_NAME("barrier") };
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open(c1,
			 DS_NAME("barrier"),
			 DS_RW,
			 NTCREATEX_SHARE_ACCESS_READ |
				 NTCREATEX_SHARE_ACCESS_WRITE,
			 NTCREATEX_DISP_CREATE,
			 0,
			 &h));
	CHECK_TRUE(ds_hammer(tctx,
			     ds_try_unlink,
			     &in,
			     NT_STATUS_SHARING_VIOLATION));
done:
	ds_close(c1, &h);
	return ret;
}

/* Two read: nobody gets an oplock that lets it write in its cache. */
static NTSTATUS ds_try_oplock(void *private_data)
{
	struct ds_intruder *in = private_data;
	struct smb2_create io;
	NTSTATUS status;

	smb2_oplock_create_share(&io,
				 in->fname,
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_BATCH);
	io.in.create_disposition = NTCREATEX_DISP_OPEN;
	status = smb2_create(in->c->tree, in->c, &io);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	smb2_util_close(in->c->tree, io.out.file.handle);
	if (io.out.oplock_level == SMB2_OPLOCK_LEVEL_BATCH) {
		return NT_STATUS_OPLOCK_NOT_GRANTED;
	}
	return NT_STATUS_OK;
}

static bool test_oplock(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	struct ds_intruder in = { .c = c2, .fname = DS_NAME("barrier") };
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c1, DS_NAME("barrier"), &h));
	CHECK_TRUE(ds_hammer(tctx, ds_try_oplock, &in, NT_STATUS_OK));
done:
	ds_close(c1, &h);
	return ret;
}

/* The same with leases. */
static NTSTATUS ds_try_lease(void *private_data)
{
	struct ds_intruder *in = private_data;
	struct smb2_create io;
	struct smb2_lease ls;
	NTSTATUS status;

	smb2_lease_create(&io,
			  &ls,
			  false,
			  in->fname,
			  0x1234,
			  smb2_util_lease_state("RWH"));
	status = smb2_create(in->c->tree, in->c, &io);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	smb2_util_close(in->c->tree, io.out.file.handle);
	if (io.out.lease_response.lease_state & SMB2_LEASE_WRITE) {
		return NT_STATUS_OPLOCK_NOT_GRANTED;
	}
	return NT_STATUS_OK;
}

static bool test_lease(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	uint32_t caps =
		smb2cli_conn_server_capabilities(c1->transport->conn);
	struct ds_intruder in = { .c = c2, .fname = DS_NAME("barrier") };
	struct smb2_create io;
	struct smb2_lease ls;
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	if (!(caps & SMB2_CAP_LEASING)) {
		torture_skip(tctx, "there are no leases\n");
	}
	smb2_lease_create(&io,
			  &ls,
			  false,
			  in.fname,
			  0x5678,
			  smb2_util_lease_state("RH"));
	CHECK_OK(smb2_create(c1->tree, tctx, &io));
	h = io.out.file.handle;
	CHECK_VAL(io.out.lease_response.lease_state,
		  smb2_util_lease_state("RH"));
	CHECK_TRUE(ds_hammer(tctx, ds_try_lease, &in, NT_STATUS_OK));
	CHECK_VAL(c1->brk.count, 0);
done:
	ds_close(c1, &h);
	return ret;
}

/*
 * Who writes in his cache is asked before another client opens the file,
 * whenever during the restart it does so.
 */
static bool test_break(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	struct smb2_request *req = NULL;
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_create io;
	struct ds_restart *r = NULL;
	bool ret = true;
	bool ok;
	int i;

	for (i = 0; i < 6; i++) {
		struct smb2_break ack;

		c1->brk.count = 0;
		smb2_oplock_create_share(&io,
					 DS_NAME("asked"),
					 smb2_util_share_access("RWD"),
					 SMB2_OPLOCK_LEVEL_BATCH);
		CHECK_OK(smb2_create(c1->tree, tctx, &io));
		CHECK_VAL(io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);
		h1 = io.out.file.handle;

		r = ds_restart_start(tctx);
		CHECK_TRUE(r != NULL);
		ds_loop(tctx, 15 * i);
		smb2_oplock_create_share(&io,
					 DS_NAME("asked"),
					 smb2_util_share_access("RWD"),
					 SMB2_OPLOCK_LEVEL_NONE);
		req = smb2_create_send(c2->tree, &io);
		ok = ds_restart_wait(tctx, r);
		r = NULL;
		CHECK_TRUE(ok);

		CHECK_TRUE(ds_wait_break(tctx, c1, 1));
		CHECK_TRUE(ds_still_waiting(tctx, req));
		ack = (struct smb2_break) {
			.in.file.handle = h1,
			.in.oplock_level = SMB2_OPLOCK_LEVEL_II,
		};
		CHECK_OK(smb2_break(c1->tree, &ack));
		CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
		CHECK_OK(smb2_create_recv(req, tctx, &io));
		h2 = io.out.file.handle;
		CHECK_CLOSE(c1, h1);
		CHECK_CLOSE(c2, h2);
	}
done:
	TALLOC_FREE(r);
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

void ds_barrier_tests(struct torture_suite *suite)
{
	ds_add_test2(suite, "barrier-open", test_open);
	ds_add_test2(suite, "barrier-new-client", test_new_client);
	ds_add_test2(suite, "barrier-lock", test_lock);
	ds_add_test2(suite, "barrier-write", test_write);
	ds_add_test2(suite, "barrier-unlink", test_unlink);
	ds_add_test2(suite, "barrier-oplock", test_oplock);
	ds_add_test2(suite, "barrier-lease", test_lease);
	ds_add_test2(suite, "barrier-break", test_break);
}
