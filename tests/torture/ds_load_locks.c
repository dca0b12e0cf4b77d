/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: byte ranges that clients want

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
 * All clients have the same file open. Of each range it is known who has it,
 * and while one request about it is under way nobody else sends another: then
 * it does not depend on the moment who gets it.
 */

#define DS_RANGES 10
#define DS_RANGE_LEN 100
#define DS_LOCKS_FILE DS_LOAD_DIR "\\locks"
/* Who waits gets it within that time after nobody has it, in seconds */
#define DS_LOCKS_PATIENCE 30

struct ds_range {
	/* a bit for each client */
	uint32_t holders;
	bool exclusive;
	/* a request about it is under way */
	bool busy;
	/* who waits for it */
	struct ds_lane *waiter;
	struct smb2_request *req;
	bool wants_exclusive;
	/* since when nobody is in the waiter's way, 0: somebody is */
	struct timeval free_since;
	uint8_t data[DS_RANGE_LEN];
};

struct ds_locks {
	struct smb2_handle h;
	/* of the operation under way */
	struct ds_range *r[2];
	size_t num;
	NTSTATUS wanted;
	bool exclusive;
	uint8_t data[DS_RANGE_LEN];
};

static struct ds_locks *ds_locks(struct ds_lane *lane)
{
	return talloc_get_type_abort(lane->model, struct ds_locks);
}

static uint32_t ds_locks_me(struct ds_lane *lane)
{
	return 1U << lane->client;
}

static unsigned ds_range_number(struct ds_lane *lane, struct ds_range *r)
{
	return r - lane->load->ranges;
}

static uint64_t ds_range_ofs(struct ds_lane *lane, struct ds_range *r)
{
	return ds_range_number(lane, r) * (uint64_t)DS_RANGE_LEN;
}

/* One that nobody asks for at the moment. */
static struct ds_range *ds_locks_any(struct ds_lane *lane)
{
	struct ds_range *r =
		&lane->load->ranges[ds_lane_random(lane, DS_RANGES)];

	if (r->busy || (r->waiter != NULL && r->holders == 0)) {
		return NULL;
	}
	return r;
}

static bool ds_range_conflict(struct ds_range *r, bool exclusive)
{
	return r->holders != 0 && (exclusive || r->exclusive);
}

static const char *ds_range_state(struct ds_lane *lane, struct ds_range *r)
{
	return talloc_asprintf(talloc_tos(),
			       "range %u (%s 0x%x%s)",
			       ds_range_number(lane, r),
			       r->holders == 0 ? "free"
			       : r->exclusive  ? "exclusive to"
					       : "shared by",
			       r->holders,
			       r->waiter != NULL ? ", somebody waits" : "");
}

static void ds_locks_begin(struct ds_lane *lane,
			   void (*done)(struct ds_lane *lane),
			   const char *op,
			   NTSTATUS wanted)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_locks *l = ds_locks(lane);
	size_t i;

	l->wanted = wanted;
	for (i = 0; i < l->num; i++) {
		l->r[i]->busy = true;
	}
	ds_lane_begin(lane,
		      done,
		      "%s %s%s%s, must be %s",
		      op,
		      ds_range_state(lane, l->r[0]),
		      l->num > 1 ? " and " : "",
		      l->num > 1 ? ds_range_state(lane, l->r[1]) : "",
		      nt_errstr(wanted));
	TALLOC_FREE(frame);
}

static bool ds_locks_end(struct ds_lane *lane,
			 const char *call,
			 NTSTATUS status)
{
	struct ds_locks *l = ds_locks(lane);
	size_t i;

	for (i = 0; i < l->num; i++) {
		l->r[i]->busy = false;
	}
	return ds_lane_status(lane, call, status, l->wanted) &&
	       NT_STATUS_IS_OK(status);
}

static struct smb2_request *ds_locks_send(struct ds_lane *lane, uint32_t flags)
{
	struct ds_locks *l = ds_locks(lane);
	struct smb2_lock_element el[2];
	struct smb2_lock io = {
		.in.file.handle = l->h,
		.in.lock_count = l->num,
		.in.locks = el,
	};
	size_t i;

	for (i = 0; i < l->num; i++) {
		el[i] = (struct smb2_lock_element) {
			.offset = ds_range_ofs(lane, l->r[i]),
			.length = DS_RANGE_LEN,
			.flags = flags,
		};
	}
	return smb2_lock_send(lane->c->tree, &io);
}

/*
 * Lock and unlock
 */

static void ds_locks_try_done(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	struct smb2_lock io;
	NTSTATUS status = smb2_lock_recv(ds_lane_take(lane, 0), &io);
	size_t i;

	if (!ds_locks_end(lane, "LOCK", status)) {
		return;
	}
	for (i = 0; i < l->num; i++) {
		l->r[i]->holders |= ds_locks_me(lane);
		l->r[i]->exclusive = l->exclusive;
	}
}

static bool ds_locks_try_n(struct ds_lane *lane, size_t num)
{
	struct ds_locks *l = ds_locks(lane);
	NTSTATUS wanted = NT_STATUS_OK;
	size_t i;

	l->exclusive = ds_lane_random(lane, 2) == 0;
	for (i = 0; i < num; i++) {
		struct ds_range *r = ds_locks_any(lane);

		if (r == NULL || (i > 0 && r == l->r[0])) {
			return false;
		}
		if ((r->holders & ds_locks_me(lane)) && !l->exclusive) {
			/* one handle may have both, or one twice */
			return false;
		}
		if (ds_range_conflict(r, l->exclusive)) {
			wanted = NT_STATUS_LOCK_NOT_GRANTED;
		} else if (r->waiter != NULL) {
			/* past somebody who waits */
			return false;
		}
		l->r[i] = r;
	}
	l->num = num;
	ds_locks_begin(lane,
		       ds_locks_try_done,
		       l->exclusive ? "try exclusive lock of"
				    : "try shared lock of",
		       wanted);
	ds_lane_add(lane,
		    ds_locks_send(lane,
				  l->exclusive ? DS_LOCK_TRY_EXCLUSIVE
					       : DS_LOCK_TRY_SHARED));
	return true;
}

static bool ds_locks_try(struct ds_lane *lane)
{
	return ds_locks_try_n(lane, 1);
}

/* All or nothing */
static bool ds_locks_try_two(struct ds_lane *lane)
{
	return ds_locks_try_n(lane, 2);
}

static void ds_locks_unlock_done(struct ds_lane *lane)
{
	struct ds_range *r = ds_locks(lane)->r[0];
	struct smb2_lock io;
	NTSTATUS status = smb2_lock_recv(ds_lane_take(lane, 0), &io);

	if (!ds_locks_end(lane, "unlock", status)) {
		return;
	}
	r->holders &= ~ds_locks_me(lane);
	if (!ds_range_conflict(r, r->wants_exclusive)) {
		r->free_since = timeval_current();
	}
}

static void ds_locks_unlock_range(struct ds_lane *lane, struct ds_range *r)
{
	struct ds_locks *l = ds_locks(lane);

	l->r[0] = r;
	l->num = 1;
	ds_locks_begin(lane,
		       ds_locks_unlock_done,
		       "unlock",
		       (r->holders & ds_locks_me(lane))
			       ? NT_STATUS_OK
			       : NT_STATUS_RANGE_NOT_LOCKED);
	ds_lane_add(lane, ds_locks_send(lane, SMB2_LOCK_FLAG_UNLOCK));
}

static bool ds_locks_unlock(struct ds_lane *lane)
{
	struct ds_range *r = ds_locks_any(lane);

	/* rarely one that it does not have */
	if (r == NULL ||
	    (!(r->holders & ds_locks_me(lane)) &&
	     ds_lane_random(lane, 10) != 0) ||
	    r->waiter == lane) {
		return false;
	}
	ds_locks_unlock_range(lane, r);
	return true;
}

/*
 * Waiting. The lane goes on meanwhile: two that wait for each other would do
 * so for ever.
 */

static bool ds_locks_wait(struct ds_lane *lane)
{
	struct smb2_transport *transport = lane->c->transport;
	uint32_t timeout = transport->options.request_timeout;
	struct ds_locks *l = ds_locks(lane);
	struct ds_range *r = ds_locks_any(lane);
	TALLOC_CTX *frame = NULL;

	l->exclusive = ds_lane_random(lane, 2) == 0;
	if (r == NULL || r->waiter != NULL ||
	    (r->holders & ds_locks_me(lane)) ||
	    !ds_range_conflict(r, l->exclusive)) {
		return false;
	}
	frame = talloc_stackframe();
	/* an operation for the history only: it is over at once */
	ds_lane_begin(lane,
		      NULL,
		      "wait for %s lock of %s",
		      l->exclusive ? "exclusive" : "shared",
		      ds_range_state(lane, r));
	TALLOC_FREE(frame);
	l->r[0] = r;
	l->num = 1;
	transport->options.request_timeout = 0;
	r->req = ds_locks_send(lane,
			       l->exclusive ? SMB2_LOCK_FLAG_EXCLUSIVE
					    : SMB2_LOCK_FLAG_SHARED);
	transport->options.request_timeout = timeout;
	if (r->req == NULL) {
		ds_lane_fail(lane, "could not be sent");
		return true;
	}
	r->waiter = lane;
	r->wants_exclusive = l->exclusive;
	r->free_since = timeval_zero();
	return true;
}

static void ds_locks_waited(struct ds_lane *lane, struct ds_range *r)
{
	TALLOC_CTX *frame = talloc_stackframe();
	const char *state = ds_range_state(lane, r);
	struct smb2_lock io;
	NTSTATUS status = smb2_lock_recv(r->req, &io);

	r->req = NULL;
	r->waiter = NULL;
	if (!NT_STATUS_IS_OK(status)) {
		ds_lane_fail(lane,
			     "the lock that waited for %s: expected "
			     "NT_STATUS_OK, got %s",
			     state,
			     nt_errstr(status));
	} else if (ds_range_conflict(r, r->wants_exclusive)) {
		ds_lane_fail(lane, "got a lock in spite of %s", state);
	}
	r->holders |= ds_locks_me(lane);
	r->exclusive = r->wants_exclusive;
	TALLOC_FREE(frame);
}

static void ds_locks_poll(struct ds_lane *lane)
{
	unsigned i;

	for (i = 0; i < DS_RANGES; i++) {
		struct ds_range *r = &lane->load->ranges[i];

		/* without a request it is being cancelled */
		if (r->waiter != lane || r->req == NULL) {
			continue;
		}
		if (r->req->state > SMB2_REQUEST_RECV) {
			/* not before the unlock: it says who has it */
			if (r->busy) {
				continue;
			}
			ds_locks_waited(lane, r);
		} else if (!timeval_is_zero(&r->free_since) &&
			   timeval_elapsed(&r->free_since) >
				   DS_LOCKS_PATIENCE) {
			ds_lane_fail(lane,
				     "range %u is free since %u s, who waits "
				     "for it did not get it",
				     i,
				     DS_LOCKS_PATIENCE);
		}
	}
}

static void ds_locks_cancel_done(struct ds_lane *lane)
{
	struct ds_range *r = ds_locks(lane)->r[0];
	struct smb2_lock io;
	NTSTATUS status = smb2_lock_recv(ds_lane_take(lane, 0), &io);

	ds_locks_end(lane, "cancelled LOCK", status);
	r->waiter = NULL;
}

static bool ds_locks_cancel(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	struct ds_range *r = ds_locks_any(lane);
	NTSTATUS status;

	/*
	 * A shared one may be granted by the unlock of one holder, answered
	 * later: only where somebody is in its way for sure
	 */
	if (r == NULL || r->waiter != lane || !r->req->cancel.can_cancel ||
	    !ds_range_conflict(r, r->wants_exclusive)) {
		return false;
	}
	l->r[0] = r;
	l->num = 1;
	ds_locks_begin(lane,
		       ds_locks_cancel_done,
		       "cancel the wait for",
		       NT_STATUS_CANCELLED);
	status = smb2_cancel(r->req);
	ds_lane_status(lane, "CANCEL", status, NT_STATUS_OK);
	ds_lane_add(lane, r->req);
	r->req = NULL;
	return true;
}

/*
 * Others read and write only what nobody has locked
 */

static void ds_locks_write_done(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	struct smb2_write io;
	NTSTATUS status = smb2_write_recv(ds_lane_take(lane, 0), &io);

	if (ds_locks_end(lane, "WRITE", status)) {
		memcpy(l->r[0]->data, l->data, DS_RANGE_LEN);
	}
}

static bool ds_locks_write(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	struct ds_range *r = ds_locks_any(lane);
	struct smb2_write io = { .in.file.handle = l->h };
	bool ok;

	if (r == NULL) {
		return false;
	}
	ok = r->holders == 0 ||
	     (r->exclusive && r->holders == ds_locks_me(lane));
	l->r[0] = r;
	l->num = 1;
	ds_locks_begin(lane,
		       ds_locks_write_done,
		       "write",
		       ok ? NT_STATUS_OK : NT_STATUS_FILE_LOCK_CONFLICT);
	ds_fill(l->data, DS_RANGE_LEN, ds_lane_random(lane, UINT32_MAX));
	io.in.offset = ds_range_ofs(lane, r);
	io.in.data = data_blob_const(l->data, DS_RANGE_LEN);
	ds_lane_add(lane, smb2_write_send(lane->c->tree, &io));
	return true;
}

static void ds_locks_read_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_range *r = ds_locks(lane)->r[0];
	struct smb2_read io;
	NTSTATUS status = smb2_read_recv(ds_lane_take(lane, 0), frame, &io);

	if (ds_locks_end(lane, "READ", status) &&
	    ds_lane_u64(lane, "read", io.out.data.length, DS_RANGE_LEN)) {
		ds_lane_bytes(lane,
			      ds_range_ofs(lane, r),
			      io.out.data.data,
			      r->data,
			      DS_RANGE_LEN);
	}
	TALLOC_FREE(frame);
}

static bool ds_locks_read(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	struct ds_range *r = ds_locks_any(lane);
	struct smb2_read io = {
		.in.file.handle = l->h,
		.in.length = DS_RANGE_LEN,
	};
	bool ok;

	if (r == NULL) {
		return false;
	}
	ok = r->holders == 0 || !r->exclusive ||
	     r->holders == ds_locks_me(lane);
	l->r[0] = r;
	l->num = 1;
	ds_locks_begin(lane,
		       ds_locks_read_done,
		       "read",
		       ok ? NT_STATUS_OK : NT_STATUS_FILE_LOCK_CONFLICT);
	io.in.offset = ds_range_ofs(lane, r);
	ds_lane_add(lane, smb2_read_send(lane->c->tree, &io));
	return true;
}

/*
 * Before and after
 */

static bool ds_locks_drain(struct ds_lane *lane)
{
	struct ds_range *ranges = lane->load->ranges;
	bool done = true;
	unsigned i;

	for (i = 0; i < DS_RANGES; i++) {
		if (ranges[i].waiter == lane) {
			done = false;
		}
		if (!(ranges[i].holders & ds_locks_me(lane))) {
			continue;
		}
		done = false;
		if (!ranges[i].busy) {
			ds_locks_unlock_range(lane, &ranges[i]);
			break;
		}
	}
	return done;
}

static bool ds_locks_setup(struct ds_lane *lane)
{
	struct ds_load *load = lane->load;
	struct ds_locks *l = talloc_zero(lane, struct ds_locks);
	NTSTATUS status;

	lane->model = l;
	if (load->ranges == NULL) {
		size_t len = DS_RANGES * DS_RANGE_LEN;
		uint8_t *zero = talloc_zero_array(lane, uint8_t, len);

		load->ranges = talloc_zero_array(load,
						 struct ds_range,
						 DS_RANGES);
		status = ds_create_file(lane->c, DS_LOCKS_FILE, zero, len);
		TALLOC_FREE(zero);
		if (!ds_lane_status(lane, "file", status, NT_STATUS_OK)) {
			return false;
		}
	}
	status = ds_open_rw(lane->c, DS_LOCKS_FILE, &l->h);
	return ds_lane_status(lane, "CREATE", status, NT_STATUS_OK);
}

static bool ds_locks_verify(struct ds_lane *lane)
{
	struct ds_locks *l = ds_locks(lane);
	NTSTATUS status;

	/* nobody has anything any more */
	status = ds_lock(lane->c,
			 l->h,
			 0,
			 DS_RANGES * DS_RANGE_LEN,
			 DS_LOCK_TRY_EXCLUSIVE);
	if (!ds_lane_status(lane, "LOCK", status, NT_STATUS_OK)) {
		return false;
	}
	status = smb2_util_close(lane->c->tree, l->h);
	if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
		return false;
	}
	if (lane->client + 1 < lane->load->num_clients) {
		return true;
	}
	status = smb2_util_unlink(lane->c->tree, DS_LOCKS_FILE);
	return ds_lane_status(lane, "unlink", status, NT_STATUS_OK);
}

static const struct ds_load_op ds_locks_ops[] = {
	{ "lock", 10, ds_locks_try },
	{ "locktwo", 3, ds_locks_try_two },
	/*
	 * Rarely: a lock that waits watches the record that smbd's g_lock is
	 * in. It is woken instead of a process that waits for the g_lock, and
	 * that one looks again after 5 to 9 seconds. So it is without us too.
	 */
	{ "lockwait", 1, ds_locks_wait },
	{ "lockcancel", 1, ds_locks_cancel },
	{ "unlock", 20, ds_locks_unlock },
	{ "lockwrite", 5, ds_locks_write },
	{ "lockread", 5, ds_locks_read },
	{ .weight = 0 },
};

const struct ds_lane_kind ds_locks_kind = {
	.name = "locks",
	.pause_msec = 20,
	.setup = ds_locks_setup,
	.verify = ds_locks_verify,
	.ops = ds_locks_ops,
	.poll = ds_locks_poll,
	.drain = ds_locks_drain,
};
