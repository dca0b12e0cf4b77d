/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: leases that others break

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
#include "torture/durable_state/ds_load.h"

/*
 * A file that two clients open in turn: the first one has a lease, or an
 * oplock where the dialect has no leases; the second one's open breaks it and
 * waits, its WRITE takes the rest. Each break must come once.
 */

#define DS_LEASE_LEN 64

struct ds_party {
	struct ds_client *c;
	unsigned number;
	struct smb2_handle h;
	uint64_t key;
	/* what it asks for and has: SMB2_LEASE_*, or SMB2_OPLOCK_LEVEL_* */
	uint32_t state;
	uint16_t epoch;
	/* how many breaks may have come, and did */
	unsigned expected;
	struct ds_break brk;
};

struct ds_leases {
	char path[64];
	bool lease;
	bool v2;
	struct ds_party a;
	struct ds_party b;
	struct smb2_lease ls;
	uint8_t data[DS_LEASE_LEN];
};

static struct ds_leases *ds_leases(struct ds_lane *lane)
{
	return talloc_get_type_abort(lane->model, struct ds_leases);
}

bool ds_leases_break(struct ds_lane *lane,
		     struct ds_client *c,
		     const struct ds_break *brk,
		     bool lease)
{
	struct ds_leases *l = ds_leases(lane);
	struct ds_party *p = c == l->a.c ? &l->a : &l->b;
	unsigned count;

	if (c != p->c || lease != l->lease) {
		return false;
	}
	if (lease ? brk->lease.current_lease.lease_key.data[0] != p->key
		  : memcmp(&brk->handle, &p->h, sizeof(p->h)) != 0) {
		return false;
	}
	count = p->brk.count + 1;
	if (count > p->expected) {
		ds_lane_fail(lane,
			     "client %u got break number %u, expected %u",
			     p->number,
			     count,
			     p->expected);
		return true;
	}
	p->brk = *brk;
	p->brk.count = count;
	return true;
}

static bool ds_leases_has_write(struct ds_leases *l, struct ds_party *p)
{
	if (l->lease) {
		return p->state & SMB2_LEASE_WRITE;
	}
	return p->state == SMB2_OPLOCK_LEVEL_BATCH ||
	       p->state == SMB2_OPLOCK_LEVEL_EXCLUSIVE;
}

/* What is left of it when somebody else opens. */
static uint32_t ds_leases_without_write(struct ds_leases *l, uint32_t state)
{
	return l->lease ? state & ~SMB2_LEASE_WRITE : SMB2_OPLOCK_LEVEL_II;
}

static struct smb2_request *ds_leases_open_send(struct ds_leases *l,
						struct ds_party *p,
						uint64_t key,
						uint32_t state)
{
	struct smb2_create io;

	*p = (struct ds_party) {
		.c = p->c,
		.number = p->number,
		.key = key,
		.state = state,
		.epoch = key & 0xfff,
	};
	if (!l->lease) {
		smb2_oplock_create_share(&io,
					 l->path,
					 smb2_util_share_access("RWD"),
					 state);
	} else if (l->v2) {
		smb2_lease_v2_create_share(&io,
					   &l->ls,
					   false,
					   l->path,
					   smb2_util_share_access("RWD"),
					   key,
					   NULL,
					   state,
					   p->epoch);
	} else {
		smb2_lease_create_share(&io,
					&l->ls,
					false,
					l->path,
					smb2_util_share_access("RWD"),
					key,
					state);
	}
	return smb2_create_send(p->c->tree, &io);
}

static bool ds_leases_open_recv(struct ds_lane *lane,
				size_t i,
				struct ds_party *p,
				uint32_t wanted)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_leases *l = ds_leases(lane);
	const struct smb2_lease *got = NULL;
	struct smb2_create io;
	bool ok = false;
	NTSTATUS status;

	status = smb2_create_recv(ds_lane_take(lane, i), frame, &io);
	if (!ds_lane_status(lane, "CREATE", status, NT_STATUS_OK)) {
		goto done;
	}
	p->h = io.out.file.handle;
	p->state = wanted;
	if (!l->lease) {
		ok = ds_lane_u64(lane, "oplock", io.out.oplock_level, wanted);
		goto done;
	}
	got = l->v2 ? &io.out.lease_response_v2 : &io.out.lease_response;
	p->epoch = got->lease_epoch;
	ok = ds_lane_u64(lane, "lease key", got->lease_key.data[0], p->key) &&
	     ds_lane_u64(lane, "lease", got->lease_state, wanted);
done:
	TALLOC_FREE(frame);
	return ok;
}

/* *ack: it waits for an answer */
static bool ds_leases_check_break(struct ds_lane *lane,
				  struct ds_party *p,
				  uint32_t wanted,
				  bool *ack)
{
	struct ds_leases *l = ds_leases(lane);
	const struct smb2_lease_break *lb = &p->brk.lease;

	if (!ds_lane_u64(lane, "breaks", p->brk.count, p->expected)) {
		return false;
	}
	if (!l->lease) {
		*ack = ds_leases_has_write(l, p);
		p->state = wanted;
		return ds_lane_u64(lane, "break to", p->brk.level, wanted);
	}
	if (!ds_lane_u64(lane,
			 "break from",
			 lb->current_lease.lease_state,
			 p->state) ||
	    !ds_lane_u64(lane, "break to", lb->new_lease_state, wanted)) {
		return false;
	}
	if (l->v2) {
		p->epoch++;
		if (!ds_lane_u64(lane,
				 "epoch of the break",
				 lb->new_epoch,
				 p->epoch)) {
			return false;
		}
	}
	*ack = lb->break_flags & SMB2_NOTIFY_BREAK_LEASE_FLAG_ACK_REQUIRED;
	p->state = wanted;
	return true;
}

static void ds_leases_ack_send(struct ds_lane *lane, struct ds_party *p)
{
	struct ds_leases *l = ds_leases(lane);

	if (l->lease) {
		struct smb2_lease_break_ack io = {
			.in.lease.lease_key =
				p->brk.lease.current_lease.lease_key,
			.in.lease.lease_state = p->state,
		};

		ds_lane_add(lane, smb2_lease_break_ack_send(p->c->tree, &io));
	} else {
		struct smb2_break io = {
			.in.file.handle = p->h,
			.in.oplock_level = p->state,
		};

		ds_lane_add(lane, smb2_break_send(p->c->tree, &io));
	}
}

static bool ds_leases_ack_recv(struct ds_lane *lane, size_t i)
{
	struct smb2_request *req = ds_lane_take(lane, i);
	NTSTATUS status;

	if (ds_leases(lane)->lease) {
		struct smb2_lease_break_ack io;

		status = smb2_lease_break_ack_recv(req, &io);
	} else {
		struct smb2_break io;

		status = smb2_break_recv(req, &io);
	}
	return ds_lane_status(lane, "acknowledgement", status, NT_STATUS_OK);
}

/*
 * The steps, from the last to the first
 */

static void ds_leases_close_done(struct ds_lane *lane)
{
	struct smb2_close io;
	size_t i;

	for (i = 0; i < 2; i++) {
		NTSTATUS status = smb2_close_recv(ds_lane_take(lane, i), &io);

		if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
			return;
		}
	}
}

static void ds_leases_close(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	struct smb2_close a = { .in.file.handle = l->a.h };
	struct smb2_close b = { .in.file.handle = l->b.h };

	ds_lane_begin(lane,
		      ds_leases_close_done,
		      "clients %u and %u close %s",
		      l->a.number,
		      l->b.number,
		      l->path);
	ds_lane_add(lane, smb2_close_send(l->a.c->tree, &a));
	ds_lane_add(lane, smb2_close_send(l->b.c->tree, &b));
}

static void ds_leases_last_ack_done(struct ds_lane *lane)
{
	if (ds_leases_ack_recv(lane, 0)) {
		ds_leases_close(lane);
	}
}

static bool ds_leases_written(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);

	return ds_lane_answered(lane) && l->a.brk.count == l->a.expected &&
	       l->b.brk.count == l->b.expected;
}

static void ds_leases_write_done(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	struct smb2_write io;
	NTSTATUS status = smb2_write_recv(ds_lane_take(lane, 0), &io);
	bool ack = false;

	if (!ds_lane_status(lane, "WRITE", status, NT_STATUS_OK) ||
	    !ds_leases_check_break(lane, &l->a, 0, &ack)) {
		return;
	}
	if (!ack) {
		ds_leases_close(lane);
		return;
	}
	ds_lane_begin(lane,
		      ds_leases_last_ack_done,
		      "client %u acknowledges the second break",
		      l->a.number);
	ds_leases_ack_send(lane, &l->a);
}

static void ds_leases_read_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_leases *l = ds_leases(lane);
	struct smb2_read r;
	struct smb2_write io = {
		.in.file.handle = l->b.h,
		.in.data = data_blob_const(l->data, DS_LEASE_LEN),
	};
	NTSTATUS status = smb2_read_recv(ds_lane_take(lane, 0), frame, &r);

	if (!ds_lane_status(lane, "READ", status, NT_STATUS_OK) ||
	    !ds_lane_u64(lane, "read", r.out.data.length, DS_LEASE_LEN) ||
	    !ds_lane_bytes(lane, 0, r.out.data.data, l->data, DS_LEASE_LEN)) {
		goto done;
	}
	if (ds_lane_random(lane, 2) == 0) {
		ds_leases_close(lane);
		goto done;
	}
	ds_lane_begin(lane,
		      ds_leases_write_done,
		      "client %u writes to %s, client %u has 0x%x",
		      l->b.number,
		      l->path,
		      l->a.number,
		      l->a.state);
	lane->ready = ds_leases_written;
	l->a.expected++;
	/* a lease stays with who writes, a level II oplock does not */
	l->b.expected += l->lease ? 0 : 1;
	ds_lane_add(lane, smb2_write_send(l->b.c->tree, &io));
done:
	TALLOC_FREE(frame);
}

static void ds_leases_b_opened(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	struct smb2_read io = {
		.in.length = DS_LEASE_LEN,
	};

	if (!ds_leases_open_recv(lane,
				 0,
				 &l->b,
				 ds_leases_without_write(l, l->b.state)) ||
	    !ds_lane_u64(lane, "breaks", l->a.brk.count, l->a.expected)) {
		return;
	}
	ds_lane_begin(lane,
		      ds_leases_read_done,
		      "client %u reads %s",
		      l->b.number,
		      l->path);
	io.in.file.handle = l->b.h;
	ds_lane_add(lane, smb2_read_send(l->b.c->tree, &io));
}

static void ds_leases_acked(struct ds_lane *lane)
{
	if (ds_leases_ack_recv(lane, 1)) {
		ds_leases_b_opened(lane);
	}
}

static bool ds_leases_broken_or_answered(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);

	return l->a.brk.count == l->a.expected || ds_lane_answered(lane);
}

static void ds_leases_broken(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	bool ack = false;

	if (ds_lane_answered(lane)) {
		ds_lane_fail(lane,
			     "answered before client %u acknowledged the "
			     "break",
			     l->a.number);
		return;
	}
	if (!ds_leases_check_break(lane,
				   &l->a,
				   ds_leases_without_write(l, l->a.state),
				   &ack)) {
		return;
	}
	if (!ack) {
		ds_lane_fail(lane, "the break needs no acknowledgement");
		return;
	}
	/* still the same operation: the open is answered in the end */
	ds_leases_ack_send(lane, &l->a);
	lane->ready = NULL;
	lane->done = ds_leases_acked;
}

static void ds_leases_a_wrote(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	struct smb2_write io;
	NTSTATUS status = smb2_write_recv(ds_lane_take(lane, 0), &io);
	bool breaks = ds_leases_has_write(l, &l->a);
	uint32_t state = l->lease ? smb2_util_lease_state("RWH")
				  : SMB2_OPLOCK_LEVEL_BATCH;

	if (!ds_lane_status(lane, "WRITE", status, NT_STATUS_OK)) {
		return;
	}
	ds_lane_begin(lane,
		      breaks ? ds_leases_broken : ds_leases_b_opened,
		      "client %u opens %s, client %u has 0x%x",
		      l->b.number,
		      l->path,
		      l->a.number,
		      l->a.state);
	if (breaks) {
		l->a.expected++;
		lane->ready = ds_leases_broken_or_answered;
	}
	ds_lane_add(lane,
		    ds_leases_open_send(l,
					&l->b,
					ds_load_key(lane->load),
					state));
}

static void ds_leases_a_opened(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	struct smb2_write io = {
		.in.data = data_blob_const(l->data, DS_LEASE_LEN),
	};

	if (!ds_leases_open_recv(lane, 0, &l->a, l->a.state)) {
		return;
	}
	ds_fill(l->data, DS_LEASE_LEN, ds_lane_random(lane, UINT32_MAX));
	ds_lane_begin(lane,
		      ds_leases_a_wrote,
		      "client %u writes to %s, has 0x%x",
		      l->a.number,
		      l->path,
		      l->a.state);
	io.in.file.handle = l->a.h;
	ds_lane_add(lane, smb2_write_send(l->a.c->tree, &io));
}

static bool ds_leases_start(struct ds_lane *lane)
{
	static const char *states[] = { "RWH", "RW", "RH", "R" };
	/* its own WRITE ends a level II oplock */
	static const uint8_t oplocks[] = {
		SMB2_OPLOCK_LEVEL_BATCH,
		SMB2_OPLOCK_LEVEL_EXCLUSIVE,
	};
	struct ds_load *load = lane->load;
	struct ds_leases *l = ds_leases(lane);
	uint32_t state;

	l->a.number = ds_lane_random(lane, load->num_clients);
	l->b.number = (l->a.number + 1 +
		       ds_lane_random(lane, load->num_clients - 1)) %
		      load->num_clients;
	l->a.c = load->clients[l->a.number];
	l->b.c = load->clients[l->b.number];
	lane->c = l->a.c;

	if (l->lease) {
		state = smb2_util_lease_state(
			states[ds_lane_random(lane, ARRAY_SIZE(states))]);
	} else {
		state = oplocks[ds_lane_random(lane, ARRAY_SIZE(oplocks))];
	}
	ds_lane_begin(lane,
		      ds_leases_a_opened,
		      "client %u opens %s, wants 0x%x",
		      l->a.number,
		      l->path,
		      state);
	ds_lane_add(lane,
		    ds_leases_open_send(l, &l->a, ds_load_key(load), state));
	return true;
}

static bool ds_leases_setup(struct ds_lane *lane)
{
	struct ds_leases *l = talloc_zero(lane, struct ds_leases);

	lane->model = l;
	l->lease = ds_load_has_leases(lane->c, &l->v2);
	snprintf(l->path,
		 sizeof(l->path),
		 DS_LOAD_DIR "\\leased%u",
		 lane->number);
	return true;
}

static bool ds_leases_verify(struct ds_lane *lane)
{
	struct ds_leases *l = ds_leases(lane);
	NTSTATUS status;

	if (lane->num_ops == 0) {
		return true;
	}
	status = smb2_util_unlink(lane->c->tree, l->path);
	return ds_lane_status(lane, "unlink", status, NT_STATUS_OK);
}

static const struct ds_load_op ds_leases_ops[] = {
	{ "lease", 1, ds_leases_start },
	{ .weight = 0 },
};

const struct ds_lane_kind ds_leases_kind = {
	.name = "leases",
	.pause_msec = 20,
	.setup = ds_leases_setup,
	.verify = ds_leases_verify,
	.ops = ds_leases_ops,
};
