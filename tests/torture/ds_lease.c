/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: leases

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

#define DS_KEY1 0x1122334455667788ULL
#define DS_KEY2 0x8877665544332211ULL
#define DS_PARENT 0x0102030405060708ULL

#define CHECK_LEASES(c, version) do { \
	uint32_t caps = \
		smb2cli_conn_server_capabilities((c)->transport->conn); \
	if (ds_protocol(c) < ((version) == 2 ? PROTOCOL_SMB3_00 \
					     : PROTOCOL_SMB2_10)) { \
		torture_skip(tctx, "the dialect has no such leases\n"); \
	} \
	if (!(caps & SMB2_CAP_LEASING)) { \
		torture_skip(tctx, "the server has no leases\n"); \
	} \
} while (0)

struct ds_lease_open {
	const char *fname;
	uint64_t key;
	const char *state;
	bool v2;
	bool directory;
	uint16_t epoch;
	const uint64_t *parent;
};

static void ds_lease_io(const struct ds_lease_open *o,
			struct smb2_create *io,
			struct smb2_lease *ls)
{
	if (o->v2) {
		smb2_lease_v2_create_share(io,
					   ls,
					   o->directory,
					   o->fname,
					   smb2_util_share_access("RWD"),
					   o->key,
					   o->parent,
					   smb2_util_lease_state(o->state),
					   o->epoch);
	} else {
		smb2_lease_create_share(io,
					ls,
					o->directory,
					o->fname,
					smb2_util_share_access("RWD"),
					o->key,
					smb2_util_lease_state(o->state));
	}
}

/* *got is what the server answered, whatever the version. */
static NTSTATUS ds_open_lease(struct ds_client *c,
			      const struct ds_lease_open *o,
			      struct smb2_handle *h,
			      struct smb2_lease *got)
{
	struct smb2_create io;
	struct smb2_lease ls;
	NTSTATUS status;

	ds_lease_io(o, &io, &ls);
	status = smb2_create(c->tree, c, &io);
	if (NT_STATUS_IS_OK(status)) {
		*h = io.out.file.handle;
		*got = o->v2 ? io.out.lease_response_v2
			     : io.out.lease_response;
	}
	return status;
}

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

static NTSTATUS ds_ack(struct ds_client *c)
{
	struct smb2_lease_break_ack io = {
		.in.lease.lease_key = c->brk.lease.current_lease.lease_key,
		.in.lease.lease_state = c->brk.lease.new_lease_state,
	};

	return smb2_lease_break_ack(c->tree, &io);
}

#define CHECK_LEASE(got, k, s) do { \
	CHECK_VAL((got).lease_key.data[0], k); \
	CHECK_VAL((got).lease_key.data[1], ~(k)); \
	CHECK_VAL((got).lease_state, smb2_util_lease_state(s)); \
} while (0)

#define CHECK_BREAK(c, k, from, to) do { \
	CHECK_LEASE((c)->brk.lease.current_lease, k, from); \
	CHECK_VAL((c)->brk.lease.new_lease_state, smb2_util_lease_state(to)); \
} while (0)

/*
 * The client opens with a lease; smbd restarts; what another client then
 * does breaks the lease as it would have done before.
 */
static bool ds_kept(struct torture_context *tctx,
		    struct ds_client *c1,
		    struct ds_client *c2,
		    bool v2,
		    const char *state,
		    const char *after_open)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("kept"),
		.key = DS_KEY1,
		.state = state,
		.v2 = v2,
		.epoch = 0x4000,
	};
	bool breaks = strcmp(state, after_open) != 0;
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_lease before, after;
	uint16_t epoch = 0;
	unsigned num = 0;
	bool ret = true;

	CHECK_OK(ds_open_lease(c1, &o, &h1, &before));
	CHECK_LEASE(before, DS_KEY1, state);
	if (v2) {
		epoch = before.lease_epoch;
	}

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 0);

	/* the same lease for another handle */
	CHECK_OK(ds_open_lease(c1, &o, &h2, &after));
	CHECK_LEASE(after, DS_KEY1, state);
	CHECK_VAL(after.lease_flags, before.lease_flags);
	CHECK_VAL(after.lease_epoch, before.lease_epoch);
	CHECK_CLOSE(c1, h2);

	req = ds_open_send(c2, o.fname);
	if (breaks) {
		num += 1;
		epoch += v2 ? 1 : 0;
		CHECK_TRUE(ds_wait_break(tctx, c1, num));
		CHECK_BREAK(c1, DS_KEY1, state, after_open);
		CHECK_VAL(c1->brk.lease.new_epoch, epoch);
		CHECK_TRUE(req->state == SMB2_REQUEST_RECV);
		CHECK_OK(ds_ack(c1));
	}
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));
	CHECK_VAL(c1->brk.count, num);

	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	num += 1;
	epoch += v2 ? 1 : 0;
	CHECK_TRUE(ds_wait_break(tctx, c1, num));
	CHECK_BREAK(c1, DS_KEY1, after_open, "");
	CHECK_VAL(c1->brk.lease.new_epoch, epoch);
	if (c1->brk.lease.break_flags &
	    SMB2_NOTIFY_BREAK_LEASE_FLAG_ACK_REQUIRED) {
		CHECK_OK(ds_ack(c1));
	}
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static bool test_v1_r(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	CHECK_LEASES(c1, 1);
	return ds_kept(tctx, c1, c2, false, "R", "R");
}

static bool test_v1_rh(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	CHECK_LEASES(c1, 1);
	return ds_kept(tctx, c1, c2, false, "RH", "RH");
}

static bool test_v1_rw(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	CHECK_LEASES(c1, 1);
	return ds_kept(tctx, c1, c2, false, "RW", "R");
}

static bool test_v1_rwh(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	CHECK_LEASES(c1, 1);
	return ds_kept(tctx, c1, c2, false, "RWH", "RH");
}

static bool test_v2_r(struct torture_context *tctx,
		      struct ds_client *c1,
		      struct ds_client *c2)
{
	CHECK_LEASES(c1, 2);
	return ds_kept(tctx, c1, c2, true, "R", "R");
}

static bool test_v2_rh(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	CHECK_LEASES(c1, 2);
	return ds_kept(tctx, c1, c2, true, "RH", "RH");
}

static bool test_v2_rw(struct torture_context *tctx,
		       struct ds_client *c1,
		       struct ds_client *c2)
{
	CHECK_LEASES(c1, 2);
	return ds_kept(tctx, c1, c2, true, "RW", "R");
}

static bool test_v2_rwh(struct torture_context *tctx,
			struct ds_client *c1,
			struct ds_client *c2)
{
	CHECK_LEASES(c1, 2);
	return ds_kept(tctx, c1, c2, true, "RWH", "RH");
}

static bool test_parent(struct torture_context *tctx, struct ds_client *c)
{
	const uint64_t parent = DS_PARENT;
	const struct ds_lease_open o = {
		.fname = DS_NAME("parent"),
		.key = DS_KEY1,
		.state = "RWH",
		.v2 = true,
		.epoch = 7,
		.parent = &parent,
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_lease before, after;
	bool ret = true;

	CHECK_LEASES(c, 2);
	CHECK_OK(ds_open_lease(c, &o, &h1, &before));
	CHECK_LEASE(before, DS_KEY1, "RWH");
	CHECK_TRUE(before.lease_flags & SMB2_LEASE_FLAG_PARENT_LEASE_KEY_SET);

	RESTART();

	CHECK_OK(ds_open_lease(c, &o, &h2, &after));
	CHECK_LEASE(after, DS_KEY1, "RWH");
	CHECK_VAL(after.lease_flags, before.lease_flags);
	CHECK_VAL(after.lease_epoch, before.lease_epoch);
	CHECK_VAL(after.parent_lease_key.data[0], DS_PARENT);
	CHECK_VAL(after.parent_lease_key.data[1], ~DS_PARENT);
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

/* Two handles share a lease; it ends with the second. */
static bool test_same_key(struct torture_context *tctx,
			  struct ds_client *c1,
			  struct ds_client *c2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("same-key"),
		.key = DS_KEY1,
		.state = "RWH",
	};
	const struct ds_lease_open other = {
		.fname = DS_NAME("same-key"),
		.key = DS_KEY2,
		.state = "RWH",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c1, 1);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	CHECK_OK(ds_open_lease(c1, &o, &h2, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");

	RESTART();

	CHECK_CLOSE(c1, h1);
	CHECK_OK(ds_open_lease(c1, &o, &h3, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	CHECK_CLOSE(c1, h3);
	CHECK_CLOSE(c1, h2);
	CHECK_VAL(c1->brk.count, 0);
	CHECK_OK(ds_open_lease(c2, &other, &h3, &got));
	CHECK_LEASE(got, DS_KEY2, "RWH");
	CHECK_CLOSE(c2, h3);
done:
	ds_close(c1, &h1);
	ds_close(c1, &h2);
	return ret;
}

/* A key belongs to one file. */
static bool test_key_in_use(struct torture_context *tctx,
			    struct ds_client *c)
{
	struct ds_lease_open o = {
		.fname = DS_NAME("in-use"),
		.key = DS_KEY1,
		.state = "RH",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c, 1);
	CHECK_OK(ds_open_lease(c, &o, &h1, &got));
	RESTART();
	o.fname = DS_NAME("in-use2");
	CHECK_STATUS(ds_open_lease(c, &o, &h2, &got),
		     NT_STATUS_INVALID_PARAMETER);
	CHECK_CLOSE(c, h1);
	CHECK_OK(ds_open_lease(c, &o, &h2, &got));
	CHECK_LEASE(got, DS_KEY1, "RH");
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

static bool test_upgrade(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_lease_open o = {
		.fname = DS_NAME("upgrade"),
		.key = DS_KEY1,
		.state = "R",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c, 1);
	CHECK_OK(ds_open_lease(c, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "R");
	RESTART();
	o.state = "RWH";
	CHECK_OK(ds_open_lease(c, &o, &h2, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	RESTART();
	o.state = "R";
	CHECK_CLOSE(c, h1);
	CHECK_OK(ds_open_lease(c, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

/* The break is sent before the restart and acknowledged after it. */
static bool ds_break_pending(struct torture_context *tctx,
			     struct ds_client *c1,
			     struct ds_client *c2,
			     bool v2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("breaking"),
		.key = DS_KEY1,
		.state = "RWH",
		.v2 = v2,
		.epoch = 1,
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_lease got;
	bool ret = true;

	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	req = ds_open_send(c2, o.fname);
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_BREAK(c1, DS_KEY1, "RWH", "RH");
	CHECK_TRUE(ds_wait_interim(tctx, req));

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 1);
	CHECK_TRUE(req->state == SMB2_REQUEST_RECV);

	/* "a break is in progress" is part of the state */
	CHECK_OK(ds_open_lease(c1, &o, &h3, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	CHECK_VAL(got.lease_flags, SMB2_LEASE_FLAG_BREAK_IN_PROGRESS);
	CHECK_CLOSE(c1, h3);

	CHECK_OK(ds_ack(c1));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));
	/* nothing is being broken any more */
	CHECK_STATUS(ds_ack(c1), NT_STATUS_UNSUCCESSFUL);
	CHECK_OK(ds_open_lease(c1, &o, &h3, &got));
	CHECK_LEASE(got, DS_KEY1, "RH");
	CHECK_VAL(got.lease_flags, 0);
	CHECK_VAL(c1->brk.count, 1);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	ds_close(c1, &h3);
	return ret;
}

static bool test_v1_break_pending(struct torture_context *tctx,
				  struct ds_client *c1,
				  struct ds_client *c2)
{
	CHECK_LEASES(c1, 1);
	return ds_break_pending(tctx, c1, c2, false);
}

static bool test_v2_break_pending(struct torture_context *tctx,
				  struct ds_client *c1,
				  struct ds_client *c2)
{
	CHECK_LEASES(c1, 2);
	return ds_break_pending(tctx, c1, c2, true);
}

/*
 * While one break is under way another open wants more than that gives: the
 * further breaks come after the restart, each after the acknowledgement of
 * the one before it (as smb2.lease.breaking3 has it).
 */
static bool ds_break_further(struct torture_context *tctx,
			     struct ds_client *c1,
			     struct ds_client *c2,
			     bool twice)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("further"),
		.key = DS_KEY1,
		.state = "RWH",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_handle h3 = { .data = { 0 } };
	struct smb2_request *req2 = NULL;
	struct smb2_request *req3 = NULL;
	struct smb2_create io;
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c1, 1);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	req2 = ds_open_send(c2, o.fname);
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_BREAK(c1, DS_KEY1, "RWH", "RH");
	smb2_oplock_create(&io, o.fname, SMB2_OPLOCK_LEVEL_NONE);
	io.in.create_disposition = NTCREATEX_DISP_OVERWRITE;
	req3 = smb2_create_send(c2->tree, &io);
	CHECK_TRUE(ds_wait_interim(tctx, req2));
	CHECK_TRUE(ds_wait_interim(tctx, req3));

	RESTART();

	CHECK_TRUE(ds_still_waiting(tctx, req2));
	CHECK_TRUE(ds_still_waiting(tctx, req3));
	CHECK_VAL(c1->brk.count, 1);
	CHECK_OK(ds_ack(c1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 2));
	CHECK_BREAK(c1, DS_KEY1, "RH", "R");

	if (twice) {
		RESTART();
		CHECK_VAL(c1->brk.count, 2);
	}

	CHECK_OK(ds_ack(c1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 3));
	CHECK_BREAK(c1, DS_KEY1, "R", "");
	CHECK_TRUE(ds_wait_req(tctx, req2, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req2, &h2));
	CHECK_TRUE(ds_wait_req(tctx, req3, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req3, &h3));
	CHECK_VAL(c1->brk.count, 3);
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	ds_close(c2, &h3);
	return ret;
}

static bool test_break_further(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	return ds_break_further(tctx, c1, c2, false);
}

/* The other client's process must be free for the second restart. */
static bool test_break_further_twice(struct torture_context *tctx,
				     struct ds_client *c1,
				     struct ds_client *c2)
{
	return ds_break_further(tctx, c1, c2, true);
}

/* As oplock-break-timeout, with a lease. */
static bool test_break_timeout(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("timeout"),
		.key = DS_KEY1,
		.state = "RWH",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_lease got;
	struct timeval start;
	double elapsed;
	bool ret = true;

	if (!torture_setting_bool(tctx, "slow", false)) {
		torture_skip(tctx, "needs torture:slow=yes, takes 35 s\n");
	}
	CHECK_LEASES(c1, 1);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	start = timeval_current();
	req = ds_open_send(c2, o.fname);
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

/* A lease that was broken before stays what it has become. */
static bool test_broken_before(struct torture_context *tctx,
			       struct ds_client *c1,
			       struct ds_client *c2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("broken"),
		.key = DS_KEY1,
		.state = "RWH",
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c1, 1);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	req = ds_open_send(c2, o.fname);
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_OK(ds_ack(c1));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));

	RESTART();

	CHECK_OK(smb2_util_write(c2->tree, h2, "x", 0, 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 2));
	CHECK_BREAK(c1, DS_KEY1, "RH", "");
	CHECK_OK(ds_ack(c1));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

/* The lease follows the file to its new name. */
static bool test_renamed(struct torture_context *tctx,
			 struct ds_client *c1,
			 struct ds_client *c2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("lease-old"),
		.key = DS_KEY1,
		.state = "RWH",
	};
	union smb_setfileinfo info = {
		.rename_information.level =
			RAW_SFILEINFO_RENAME_INFORMATION_SMB2,
		.rename_information.in.new_name = DS_NAME("lease-new"),
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req = NULL;
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c1, 1);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	CHECK_LEASE(got, DS_KEY1, "RWH");
	info.rename_information.in.file.handle = h1;
	CHECK_OK(smb2_setinfo_file(c1->tree, &info));

	RESTART();

	req = ds_open_send(c2, DS_NAME("lease-new"));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_BREAK(c1, DS_KEY1, "RWH", "RH");
	CHECK_OK(ds_ack(c1));
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(ds_open_recv(c2, req, &h2));
done:
	ds_close(c1, &h1);
	ds_close(c2, &h2);
	return ret;
}

static bool test_directory(struct torture_context *tctx,
			   struct ds_client *c1,
			   struct ds_client *c2)
{
	const struct ds_lease_open o = {
		.fname = DS_NAME("lease-dir"),
		.key = DS_KEY1,
		.state = "RH",
		.v2 = true,
		.directory = true,
	};
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_lease got;
	bool ret = true;

	CHECK_LEASES(c1, 2);
	CHECK_OK(ds_open_lease(c1, &o, &h1, &got));
	if (got.lease_state == 0) {
		ds_close(c1, &h1);
		torture_skip(tctx, "the server has no directory leases\n");
	}
	CHECK_LEASE(got, DS_KEY1, "RH");

	RESTART();

	ds_loop(tctx, 200);
	CHECK_VAL(c1->brk.count, 0);
	CHECK_OK(ds_create_file(c2, DS_NAME("lease-dir\\new"), "x", 1));
	CHECK_TRUE(ds_wait_break(tctx, c1, 1));
	CHECK_BREAK(c1, DS_KEY1, "RH", "");
	CHECK_OK(ds_ack(c1));
done:
	ds_close(c1, &h1);
	return ret;
}

void ds_lease_tests(struct torture_suite *suite)
{
	ds_add_test2(suite, "lease-v1-r", test_v1_r);
	ds_add_test2(suite, "lease-v1-rh", test_v1_rh);
	ds_add_test2(suite, "lease-v1-rw", test_v1_rw);
	ds_add_test2(suite, "lease-v1-rwh", test_v1_rwh);
	ds_add_test2(suite, "lease-v2-r", test_v2_r);
	ds_add_test2(suite, "lease-v2-rh", test_v2_rh);
	ds_add_test2(suite, "lease-v2-rw", test_v2_rw);
	ds_add_test2(suite, "lease-v2-rwh", test_v2_rwh);
	ds_add_test1(suite, "lease-parent", test_parent);
	ds_add_test2(suite, "lease-same-key", test_same_key);
	ds_add_test1(suite, "lease-key-in-use", test_key_in_use);
	ds_add_test1(suite, "lease-upgrade", test_upgrade);
	ds_add_test2(suite, "lease-v1-break-pending", test_v1_break_pending);
	ds_add_test2(suite, "lease-v2-break-pending", test_v2_break_pending);
	ds_add_test2(suite, "lease-break-further", test_break_further);
	ds_add_test2(suite,
		     "lease-break-further-twice",
		     test_break_further_twice);
	ds_add_test2(suite, "lease-break-timeout", test_break_timeout);
	ds_add_test2(suite, "lease-broken-before", test_broken_before);
	ds_add_test2(suite, "lease-renamed", test_renamed);
	ds_add_test2(suite, "lease-directory", test_directory);
}
