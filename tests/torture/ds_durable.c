/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: durable handles and replayed creates

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

#define DS_KEY 0x1122334455667788ULL

/* What a client asked for, and has to name when it comes back. */
struct ds_durable {
	struct smb2_handle h;
	struct GUID create_guid;
	struct GUID client_guid;
	struct smb2_create io;
	struct smb2_lease lease;
	bool v2;
};

enum ds_durable_kind {
	DS_DURABLE_OPLOCK,
	DS_DURABLE_LEASE,
};

/* False: the handle is not durable, the caller skips the test. */
static bool ds_durable_open(struct torture_context *tctx,
			    struct ds_client *c,
			    const char *fname,
			    bool v2,
			    enum ds_durable_kind kind,
			    uint32_t timeout,
			    struct ds_durable *d)
{
	NTSTATUS status;

	*d = (struct ds_durable) {
		.create_guid = GUID_random(),
		.client_guid = c->options.client_guid,
		.v2 = v2,
	};
	if (kind == DS_DURABLE_LEASE) {
		smb2_lease_create_share(&d->io,
					&d->lease,
					false,
					fname,
					smb2_util_share_access("RWD"),
					DS_KEY,
					smb2_util_lease_state("RWH"));
	} else {
		smb2_oplock_create_share(&d->io,
					 fname,
					 smb2_util_share_access("RWD"),
					 SMB2_OPLOCK_LEVEL_BATCH);
	}
	d->io.in.durable_open = !v2;
	d->io.in.durable_open_v2 = v2;
	d->io.in.create_guid = d->create_guid;
	d->io.in.timeout = timeout;

	status = smb2_create(c->tree, tctx, &d->io);
	if (!NT_STATUS_IS_OK(status)) {
		torture_comment(tctx, "%s: %s\n", fname, nt_errstr(status));
		return false;
	}
	d->h = d->io.out.file.handle;
	return v2 ? d->io.out.durable_open_v2 : d->io.out.durable_open;
}

static NTSTATUS ds_durable_reconnect(struct torture_context *tctx,
				     struct ds_client *c,
				     struct ds_durable *d)
{
	struct smb2_create io = {
		.in.fname = d->io.in.fname,
		.in.lease_request = d->io.in.lease_request,
		.in.oplock_level = d->io.in.oplock_level,
	};
	NTSTATUS status;

	if (d->v2) {
		io.in.durable_handle_v2 = &d->h;
		io.in.create_guid = d->create_guid;
	} else {
		io.in.durable_handle = &d->h;
	}
	status = smb2_create(c->tree, tctx, &io);
	if (NT_STATUS_IS_OK(status)) {
		d->h = io.out.file.handle;
		d->io.out = io.out;
	}
	return status;
}

#define CHECK_DURABLE(c, dialect) do { \
	if (ds_protocol(c) < (dialect)) { \
		torture_skip(tctx, "the dialect has no such handles\n"); \
	} \
} while (0)

/*
 * The client is away when smbd is restarted, and comes back afterwards with
 * another connection.
 */
static bool ds_away(struct torture_context *tctx,
		    struct ds_client *c2,
		    bool v2,
		    enum ds_durable_kind kind)
{
	struct ds_connect_params params = { .flags = 0 };
	struct ds_client *c = NULL;
	struct ds_durable d;
	struct smb2_handle h2 = { .data = { 0 } };
	DATA_BLOB data;
	bool ret = true;

	c = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c != NULL);
	if (!ds_durable_open(tctx, c, DS_NAME("away"), v2, kind, 60000, &d)) {
		TALLOC_FREE(c);
		torture_skip(tctx, "the handle is not durable\n");
	}
	CHECK_OK(smb2_util_write(c->tree, d.h, "durable", 0, 7));
	TALLOC_FREE(c);
	ds_loop(tctx, 500);

	RESTART();

	params.client_guid = &d.client_guid;
	c = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c != NULL);
	CHECK_OK(ds_durable_reconnect(tctx, c, &d));
	if (kind == DS_DURABLE_LEASE) {
		CHECK_VAL(d.io.out.lease_response.lease_state,
			  smb2_util_lease_state("RWH"));
	} else {
		CHECK_VAL(d.io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);
	}
	CHECK_OK(ds_read(c, tctx, d.h, 0, 7, &data));
	CHECK_VAL(data.length, 7);
	CHECK_OK(smb2_util_write(c->tree, d.h, "DURABLE", 0, 7));
	CHECK_OK(smb2_util_close(c->tree, d.h));
	/* and the entry is gone with the handle */
	CHECK_OK(ds_open(c2,
			 DS_NAME("away"),
			 DS_RW,
			 NTCREATEX_SHARE_ACCESS_NONE,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h2));
done:
	ds_close(c2, &h2);
	TALLOC_FREE(c);
	return ret;
}

static bool test_v1(struct torture_context *tctx, struct ds_client *c)
{
	CHECK_DURABLE(c, PROTOCOL_SMB2_02);
	return ds_away(tctx, c, false, DS_DURABLE_OPLOCK);
}

static bool test_v1_lease(struct torture_context *tctx, struct ds_client *c)
{
	CHECK_DURABLE(c, PROTOCOL_SMB2_10);
	return ds_away(tctx, c, false, DS_DURABLE_LEASE);
}

static bool test_v2(struct torture_context *tctx, struct ds_client *c)
{
	CHECK_DURABLE(c, PROTOCOL_SMB3_00);
	return ds_away(tctx, c, true, DS_DURABLE_OPLOCK);
}

static bool test_v2_lease(struct torture_context *tctx, struct ds_client *c)
{
	CHECK_DURABLE(c, PROTOCOL_SMB3_00);
	return ds_away(tctx, c, true, DS_DURABLE_LEASE);
}

/* not in DS_DIR, which every test empties */
#define DS_LOCKED_FILE "durable-state-locked"

/*
 * A client that is away keeps its locks. Not every server lets it: the
 * first time is without a restart.
 */
static bool test_locks(struct torture_context *tctx, struct ds_client *c2)
{
	struct ds_connect_params params = { .flags = 0 };
	struct smb2_handle h2 = { .data = { 0 } };
	struct ds_client *c = NULL;
	struct ds_durable d;
	NTSTATUS status;
	bool ret = true;
	int i;

	c = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c != NULL);
	if (!ds_durable_open(tctx,
			     c,
			     DS_LOCKED_FILE,
			     false,
			     DS_DURABLE_OPLOCK,
			     0,
			     &d)) {
		TALLOC_FREE(c);
		torture_skip(tctx, "the handle is not durable\n");
	}
	params.client_guid = &d.client_guid;
	CHECK_OK(ds_lock(c, d.h, 0, 4, DS_LOCK_TRY_EXCLUSIVE));

	for (i = 0; i < 2; i++) {
		TALLOC_FREE(c);
		ds_loop(tctx, 500);
		if (i == 1) {
			RESTART();
		}
		c = ds_connect(tctx, tctx, &params);
		CHECK_TRUE(c != NULL);
		status = ds_durable_reconnect(tctx, c, &d);
		if (i == 0 && !NT_STATUS_IS_OK(status)) {
			/*
			 * smbd has forgotten the handle, but not its locks.
			 * They must not be found on another file, which
			 * would have the inode of this one: it stays.
			 */
			TALLOC_FREE(c);
			torture_skip(tctx, "a locked file is not durable\n");
		}
		CHECK_OK(status);
	}
	CHECK_OK(ds_lock(c, d.h, 0, 4, SMB2_LOCK_FLAG_UNLOCK));
	CHECK_OK(ds_lock(c, d.h, 0, 4, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_OK(smb2_util_close(c->tree, d.h));
	CHECK_OK(ds_open_rw(c2, DS_LOCKED_FILE, &h2));
	CHECK_OK(ds_lock(c2, h2, 0, 4, DS_LOCK_TRY_EXCLUSIVE));
	CHECK_CLOSE(c2, h2);
	CHECK_OK(smb2_util_unlink(c2->tree, DS_LOCKED_FILE));
done:
	ds_close(c2, &h2);
	TALLOC_FREE(c);
	return ret;
}

/* The server does not wait longer for a client because it was restarted. */
static bool test_timeout(struct torture_context *tctx, struct ds_client *c2)
{
	struct ds_connect_params params = { .flags = 0 };
	struct ds_client *c = NULL;
	struct ds_durable d;
	bool ret = true;

	CHECK_DURABLE(c2, PROTOCOL_SMB3_00);
	c = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c != NULL);
	if (!ds_durable_open(tctx,
			     c,
			     DS_NAME("timeout"),
			     true,
			     DS_DURABLE_OPLOCK,
			     6000,
			     &d)) {
		TALLOC_FREE(c);
		torture_skip(tctx, "the handle is not durable\n");
	}
	CHECK_VAL(d.io.out.timeout, 6000);
	TALLOC_FREE(c);
	ds_loop(tctx, 3500);

	RESTART();

	/* half of it is over, the whole would end only 6 s from now */
	ds_loop(tctx, 4000);
	params.client_guid = &d.client_guid;
	c = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c != NULL);
	CHECK_STATUS(ds_durable_reconnect(tctx, c, &d),
		     NT_STATUS_OBJECT_NAME_NOT_FOUND);
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c);
	return ret;
}

/* A handle is durable still: its client can be cut off after the restart. */
static bool ds_cut_off_later(struct torture_context *tctx,
			     struct ds_client *c2,
			     bool v2)
{
	struct ds_connect_params params = { .flags = 0 };
	struct ds_client *c = NULL;
	struct ds_durable d;
	bool ret = true;

	c = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c != NULL);
	if (!ds_durable_open(tctx,
			     c,
			     DS_NAME("later"),
			     v2,
			     DS_DURABLE_OPLOCK,
			     60000,
			     &d)) {
		TALLOC_FREE(c);
		torture_skip(tctx, "the handle is not durable\n");
	}

	RESTART();

	CHECK_OK(smb2_util_write(c->tree, d.h, "durable", 0, 7));
	CHECK_TRUE(ds_check_connection(tctx, c));
	TALLOC_FREE(c);
	ds_loop(tctx, 500);
	params.client_guid = &d.client_guid;
	c = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c != NULL);
	CHECK_OK(ds_durable_reconnect(tctx, c, &d));
	CHECK_VAL(d.io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);
	CHECK_OK(smb2_util_close(c->tree, d.h));
done:
	TALLOC_FREE(c);
	return ret;
}

static bool test_v1_later(struct torture_context *tctx, struct ds_client *c)
{
	return ds_cut_off_later(tctx, c, false);
}

static bool test_v2_later(struct torture_context *tctx, struct ds_client *c)
{
	CHECK_DURABLE(c, PROTOCOL_SMB3_00);
	return ds_cut_off_later(tctx, c, true);
}

/*
 * MS-SMB2 3.3.5.9.10: a create that is sent again, because its reply was
 * lost, gets the handle that the first one made.
 */
static bool test_replay(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_durable d;
	struct smb2_create io;
	bool ret = true;

	CHECK_DURABLE(c, PROTOCOL_SMB3_00);
	if (!ds_durable_open(tctx,
			     c,
			     DS_NAME("replay"),
			     true,
			     DS_DURABLE_OPLOCK,
			     60000,
			     &d)) {
		ds_close(c, &d.h);
		torture_skip(tctx, "the handle is not durable\n");
	}

	RESTART();

	io = d.io;
	smb2cli_session_start_replay(c->session->smbXcli);
	CHECK_OK(smb2_create(c->tree, tctx, &io));
	smb2cli_session_stop_replay(c->session->smbXcli);
	CHECK_TRUE(smb2_util_handle_equal(io.out.file.handle, d.h));
	CHECK_VAL(io.out.create_action, d.io.out.create_action);
	CHECK_VAL(io.out.oplock_level, d.io.out.oplock_level);
	CHECK_VAL(io.out.durable_open_v2, d.io.out.durable_open_v2);
	CHECK_VAL(c->brk.count, 0);
	CHECK_OK(smb2_util_write(c->tree, d.h, "replay", 0, 6));
done:
	smb2cli_session_stop_replay(c->session->smbXcli);
	ds_close(c, &d.h);
	return ret;
}

/* The first one is still waiting for another client when it is repeated. */
static NTSTATUS ds_replay_waiting(struct torture_context *tctx,
				  struct ds_client *c,
				  const struct smb2_create *create)
{
	struct smb2_create io = *create;
	struct smb2_request *req = NULL;

	smb2cli_session_start_replay(c->session->smbXcli);
	req = smb2_create_send(c->tree, &io);
	smb2cli_session_stop_replay(c->session->smbXcli);
	if (!ds_wait_req(tctx, req, 3000)) {
		(void)ds_cancel(tctx, req);
		return NT_STATUS_IO_TIMEOUT;
	}
	return smb2_create_recv(req, tctx, &io);
}

static bool test_replay_pending(struct torture_context *tctx,
				struct ds_client *c1,
				struct ds_client *c2)
{
	struct smb2_handle holder = { .data = { 0 } };
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_create io;
	struct smb2_create sent;
	struct smb2_break ack;
	NTSTATUS before;
	bool ret = true;

	CHECK_DURABLE(c1, PROTOCOL_SMB3_00);
	smb2_oplock_create_share(&io,
				 DS_NAME("replay-pending"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_BATCH);
	CHECK_OK(smb2_create(c2->tree, tctx, &io));
	holder = io.out.file.handle;
	CHECK_VAL(io.out.oplock_level, SMB2_OPLOCK_LEVEL_BATCH);

	smb2_oplock_create_share(&sent,
				 DS_NAME("replay-pending"),
				 smb2_util_share_access("RWD"),
				 SMB2_OPLOCK_LEVEL_BATCH);
	sent.in.durable_open_v2 = true;
	sent.in.create_guid = GUID_random();
	sent.in.timeout = 60000;
	req = smb2_create_send(c1->tree, &sent);
	CHECK_TRUE(ds_wait_interim(tctx, req));
	CHECK_TRUE(ds_wait_break(tctx, c2, 1));
	before = ds_replay_waiting(tctx, c1, &sent);
	torture_comment(tctx, "before: %s\n", nt_errstr(before));

	RESTART();

	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_STATUS(ds_replay_waiting(tctx, c1, &sent), before);
	CHECK_TRUE(ds_still_waiting(tctx, req));
	ack = (struct smb2_break) {
		.in.file.handle = holder,
		.in.oplock_level = SMB2_OPLOCK_LEVEL_II,
	};
	CHECK_OK(smb2_break(c2->tree, &ack));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(smb2_create_recv(req, tctx, &io));
	h = io.out.file.handle;
	CHECK_OK(smb2_util_write(c1->tree, h, "x", 0, 1));
done:
	ds_close(c1, &h);
	ds_close(c2, &holder);
	return ret;
}

/*
 * After a handle was used, the create that made it is no replay any more.
 * The lease lets the client open the file again without a break.
 */
static NTSTATUS ds_replay_used(struct torture_context *tctx,
			       struct ds_client *c,
			       const struct ds_durable *d)
{
	struct smb2_create io = d->io;
	NTSTATUS status;

	smb2cli_session_start_replay(c->session->smbXcli);
	status = smb2_create(c->tree, tctx, &io);
	smb2cli_session_stop_replay(c->session->smbXcli);
	if (NT_STATUS_IS_OK(status)) {
		smb2_util_close(c->tree, io.out.file.handle);
	}
	return status;
}

static bool test_replay_used(struct torture_context *tctx,
			     struct ds_client *c)
{
	struct ds_durable d1, d2;
	NTSTATUS before;
	bool ret = true;

	CHECK_DURABLE(c, PROTOCOL_SMB3_00);
	if (!ds_durable_open(tctx,
			     c,
			     DS_NAME("used"),
			     true,
			     DS_DURABLE_LEASE,
			     60000,
			     &d1)) {
		ds_close(c, &d1.h);
		torture_skip(tctx, "the handle is not durable\n");
	}
	CHECK_TRUE(ds_durable_open(tctx,
				   c,
				   DS_NAME("used"),
				   true,
				   DS_DURABLE_LEASE,
				   60000,
				   &d2));
	CHECK_OK(smb2_util_write(c->tree, d1.h, "used", 0, 4));
	CHECK_OK(smb2_util_write(c->tree, d2.h, "used", 0, 4));
	before = ds_replay_used(tctx, c, &d1);

	RESTART();

	CHECK_STATUS(ds_replay_used(tctx, c, &d2), before);
	CHECK_VAL(c->brk.count, 0);
done:
	ds_close(c, &d1.h);
	ds_close(c, &d2.h);
	return ret;
}

void ds_durable_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "durable-v1", test_v1);
	ds_add_test1(suite, "durable-v1-lease", test_v1_lease);
	ds_add_test1(suite, "durable-v2", test_v2);
	ds_add_test1(suite, "durable-v2-lease", test_v2_lease);
	ds_add_test1(suite, "durable-locks", test_locks);
	ds_add_test1(suite, "durable-timeout", test_timeout);
	ds_add_test1(suite, "durable-v1-later", test_v1_later);
	ds_add_test1(suite, "durable-v2-later", test_v2_later);
	ds_add_test1(suite, "replay-create", test_replay);
	ds_add_test2(suite, "replay-create-pending", test_replay_pending);
	ds_add_test1(suite, "replay-create-used", test_replay_used);
}
