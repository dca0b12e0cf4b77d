/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: clients and their lanes

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
#include "torture/smbtorture.h"
#include "torture/durable_state/ds_load.h"

/* Lanes with files of their own, for each client */
#define DS_LOAD_FILE_LANES 3
/* Files that clients have leases on in turn */
#define DS_LOAD_LEASE_LANES 2
/* How long a reply may take, in seconds */
#define DS_LOAD_PATIENCE 40
/* What a client has at hand for requests that are small */
#define DS_LOAD_CREDITS 64
/* The loop looks around at least so often, in milliseconds */
#define DS_LOAD_TURN_MSEC 5

/*
 * Failures
 */

void ds_load_fail(struct ds_load *load, const char *fmt, ...)
{
	va_list ap;

	if (load->failure != NULL) {
		return;
	}
	va_start(ap, fmt);
	load->failure = talloc_vasprintf(load, fmt, ap);
	va_end(ap);
}

void ds_lane_fail(struct ds_lane *lane, const char *fmt, ...)
{
	struct ds_load *load = lane->load;
	char *text = NULL;
	unsigned i;
	va_list ap;

	if (load->failure != NULL) {
		return;
	}
	va_start(ap, fmt);
	text = talloc_vasprintf(load, fmt, ap);
	va_end(ap);
	ds_load_fail(load,
		     "client %u (port %u), %s %u, operation %u: %s: %s",
		     lane->client,
		     lane->c->port,
		     lane->kind->name,
		     lane->number,
		     lane->num_ops,
		     lane->what,
		     text);
	for (i = MIN(lane->num_ops, DS_LANE_HISTORY); i > 1; i--) {
		unsigned op = lane->num_ops - i + 1;

		torture_comment(load->tctx,
				"before: operation %u: %s\n",
				op,
				lane->history[op % DS_LANE_HISTORY]);
	}
}

bool ds_lane_status(struct ds_lane *lane,
		    const char *call,
		    NTSTATUS got,
		    NTSTATUS wanted)
{
	if (NT_STATUS_EQUAL(got, wanted)) {
		return true;
	}
	ds_lane_fail(lane,
		     "%s: expected %s, got %s",
		     call,
		     nt_errstr(wanted),
		     nt_errstr(got));
	return false;
}

bool ds_lane_u64(struct ds_lane *lane,
		 const char *value,
		 uint64_t got,
		 uint64_t wanted)
{
	if (got == wanted) {
		return true;
	}
	ds_lane_fail(lane,
		     "%s: expected %" PRIu64 ", got %" PRIu64,
		     value,
		     wanted,
		     got);
	return false;
}

bool ds_lane_bytes(struct ds_lane *lane,
		   uint64_t ofs,
		   const uint8_t *got,
		   const uint8_t *wanted,
		   size_t len)
{
	size_t i;
	size_t end;

	if (memcmp(got, wanted, len) == 0) {
		return true;
	}
	for (i = 0; got[i] == wanted[i]; i++) {
	}
	for (end = len; got[end - 1] == wanted[end - 1]; end--) {
	}
	ds_lane_fail(lane,
		     "other bytes from offset %" PRIu64 " to %" PRIu64
		     ": expected 0x%02x..., got 0x%02x...",
		     ofs + i,
		     ofs + end,
		     wanted[i],
		     got[i]);
	return false;
}

/*
 * Lanes
 */

uint32_t ds_lane_random(struct ds_lane *lane, uint32_t n)
{
	/* xorshift32: never 0 */
	lane->random ^= lane->random << 13;
	lane->random ^= lane->random >> 17;
	lane->random ^= lane->random << 5;
	return lane->random % n;
}

bool ds_load_avoids(struct ds_load *load, const char *op)
{
	return load->avoid != NULL && str_list_check(load->avoid, op);
}

uint64_t ds_load_key(struct ds_load *load)
{
	return ((uint64_t)load->seed << 32) | ++load->keys;
}

void ds_lane_begin(struct ds_lane *lane,
		   void (*done)(struct ds_lane *lane),
		   const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(lane->what, sizeof(lane->what), fmt, ap);
	va_end(ap);
	lane->num_ops++;
	strlcpy(lane->history[lane->num_ops % DS_LANE_HISTORY],
		lane->what,
		sizeof(lane->what));
	lane->since = timeval_current();
	lane->num_reqs = 0;
	lane->ready = NULL;
	lane->done = done;
}

void ds_lane_add(struct ds_lane *lane, struct smb2_request *req)
{
	if (req == NULL) {
		ds_lane_fail(lane, "could not be sent");
		return;
	}
	if (lane->num_reqs == DS_LANE_REQS) {
		ds_lane_fail(lane, "too many requests");
		talloc_free(req);
		return;
	}
	lane->reqs[lane->num_reqs++] = req;
}

struct smb2_request *ds_lane_take(struct ds_lane *lane, size_t i)
{
	struct smb2_request *req = lane->reqs[i];

	lane->reqs[i] = NULL;
	return req;
}

bool ds_lane_credits(struct ds_lane *lane, size_t bytes)
{
	return smb2cli_conn_get_cur_credits(lane->c->transport->conn) >=
	       DS_LOAD_CREDITS + bytes / 65536 + DS_LANE_REQS;
}

bool ds_lane_answered(struct ds_lane *lane)
{
	size_t i;

	for (i = 0; i < lane->num_reqs; i++) {
		if (lane->reqs[i] != NULL &&
		    lane->reqs[i]->state <= SMB2_REQUEST_RECV) {
			return false;
		}
	}
	return true;
}

static bool ds_lane_ready(struct ds_lane *lane)
{
	return lane->ready != NULL ? lane->ready(lane)
				   : ds_lane_answered(lane);
}

static void ds_lane_end_op(struct ds_lane *lane)
{
	struct ds_load *load = lane->load;
	void (*done)(struct ds_lane *lane) = lane->done;
	uint32_t msec = timeval_elapsed(&lane->since) * 1000;

	if (msec > load->longest_msec) {
		load->longest_msec = msec;
		strlcpy(load->longest, lane->what, sizeof(load->longest));
	}
	lane->done = NULL;
	if (lane->kind->pause_msec != 0) {
		lane->next = timeval_current_ofs_msec(
			ds_lane_random(lane, lane->kind->pause_msec));
	}
	done(lane);
}

/* Draws until something is possible, but not for ever. */
static void ds_lane_start_op(struct ds_lane *lane)
{
	const struct ds_load_op *ops = lane->kind->ops;
	unsigned sum = 0;
	unsigned i;
	unsigned tries;

	if (!timeval_expired(&lane->next) || !ds_lane_credits(lane, 0)) {
		return;
	}
	for (i = 0; ops[i].weight != 0; i++) {
		sum += ops[i].weight;
	}
	for (tries = 0; tries < 32; tries++) {
		unsigned n = ds_lane_random(lane, sum);

		for (i = 0; n >= ops[i].weight; i++) {
			n -= ops[i].weight;
		}
		if (ds_load_avoids(lane->load, ops[i].name)) {
			continue;
		}
		if (ops[i].start(lane)) {
			return;
		}
	}
}

static void ds_lane_turn(struct ds_lane *lane, bool stop)
{
	struct ds_load *load = lane->load;

	if (lane->kind->poll != NULL) {
		lane->kind->poll(lane);
	}
	if (lane->done != NULL && ds_lane_ready(lane)) {
		ds_lane_end_op(lane);
	}
	if (load->failure != NULL) {
		return;
	}
	if (lane->done != NULL) {
		if (timeval_elapsed(&lane->since) > DS_LOAD_PATIENCE) {
			ds_lane_fail(lane,
				     "not done after %u s",
				     DS_LOAD_PATIENCE);
		}
		return;
	}
	if (!stop) {
		ds_lane_start_op(lane);
		return;
	}
	lane->finished = lane->kind->drain == NULL || lane->kind->drain(lane);
}

static bool ds_lane_add_new(struct ds_load *load,
			    const struct ds_lane_kind *kind,
			    unsigned client,
			    unsigned number)
{
	struct ds_lane *lane = NULL;

	if (ds_load_avoids(load, kind->name)) {
		return true;
	}
	lane = talloc_zero(load, struct ds_lane);
	lane->load = load;
	lane->kind = kind;
	lane->client = client;
	lane->c = load->clients[client];
	lane->number = number;
	lane->random = load->seed * 2654435761U + load->num_lanes * 40503U + 1;
	strlcpy(lane->what, "setup", sizeof(lane->what));
	load->lanes = talloc_realloc(load,
				     load->lanes,
				     struct ds_lane *,
				     load->num_lanes + 1);
	load->lanes[load->num_lanes++] = lane;
	return kind->setup(lane) && load->failure == NULL;
}

static bool ds_load_lanes(struct ds_load *load)
{
	unsigned i, n;

	for (i = 0; i < load->num_clients; i++) {
		for (n = 0; n < DS_LOAD_FILE_LANES; n++) {
			if (!ds_lane_add_new(load, &ds_files_kind, i, n)) {
				return false;
			}
		}
	}
	/* the others need somebody to meet */
	if (load->num_clients < 2) {
		return true;
	}
	for (i = 0; i < load->num_clients; i++) {
		if (!ds_lane_add_new(load, &ds_locks_kind, i, 0) ||
		    !ds_lane_add_new(load, &ds_notify_kind, i, 0)) {
			return false;
		}
	}
	for (n = 0; n < DS_LOAD_LEASE_LANES; n++) {
		if (!ds_lane_add_new(load,
				     &ds_leases_kind,
				     n % load->num_clients,
				     n)) {
			return false;
		}
	}
	return true;
}

/*
 * Breaks
 */

bool ds_load_has_leases(struct ds_client *c, bool *v2)
{
	uint32_t caps = smb2cli_conn_server_capabilities(c->transport->conn);

	*v2 = ds_protocol(c) >= PROTOCOL_SMB3_00;
	return ds_protocol(c) >= PROTOCOL_SMB2_10 &&
	       (caps & SMB2_CAP_LEASING) != 0;
}

static void ds_load_break(struct ds_load *load,
			  struct ds_client *c,
			  const struct ds_break *brk,
			  bool lease)
{
	unsigned i;

	for (i = 0; i < load->num_lanes; i++) {
		if (load->lanes[i]->kind == &ds_leases_kind &&
		    ds_leases_break(load->lanes[i], c, brk, lease)) {
			return;
		}
	}
	if (lease) {
		ds_load_fail(load,
			     "port %u: a break of lease 0x%" PRIx64
			     " from %u to %u, for which there is no reason",
			     c->port,
			     brk->lease.current_lease.lease_key.data[0],
			     brk->lease.current_lease.lease_state,
			     brk->lease.new_lease_state);
	} else {
		ds_load_fail(load,
			     "port %u: an oplock break to %u, for which there "
			     "is no reason",
			     c->port,
			     brk->level);
	}
}

static struct ds_client *ds_load_client(struct ds_load *load,
					struct smb2_transport *transport)
{
	unsigned i;

	for (i = 0; i < load->num_clients; i++) {
		if (load->clients[i]->transport == transport) {
			return load->clients[i];
		}
	}
	return NULL;
}

static bool ds_load_oplock_handler(struct smb2_transport *transport,
				   const struct smb2_handle *handle,
				   uint8_t level,
				   void *private_data)
{
	struct ds_load *load = talloc_get_type_abort(private_data,
						     struct ds_load);
	struct ds_break brk = { .handle = *handle, .level = level };

	ds_load_break(load, ds_load_client(load, transport), &brk, false);
	return true;
}

static bool ds_load_lease_handler(struct smb2_transport *transport,
				  const struct smb2_lease_break *lb,
				  void *private_data)
{
	struct ds_load *load = talloc_get_type_abort(private_data,
						     struct ds_load);
	struct ds_break brk = { .lease = *lb };

	ds_load_break(load, ds_load_client(load, transport), &brk, true);
	return true;
}

/*
 * The run
 */

/* The largest requests of all lanes at a time need credits. */
static bool ds_load_credits(struct ds_load *load, struct ds_client *c)
{
	size_t wanted = DS_LOAD_CREDITS * 2 +
			DS_LOAD_FILE_LANES * DS_LANE_REQS *
				(load->io / 65536 + 1);
	unsigned i;

	for (i = 0; i < 1000; i++) {
		if (smb2cli_conn_get_cur_credits(c->transport->conn) >=
		    MIN(wanted, 4096)) {
			return true;
		}
		if (!NT_STATUS_IS_OK(ds_echo(c))) {
			return false;
		}
	}
	/* then they take turns */
	return smb2cli_conn_get_cur_credits(c->transport->conn) >=
	       DS_LOAD_CREDITS + load->io / 65536 + DS_LANE_REQS;
}

static bool ds_load_connect(struct ds_load *load, unsigned num)
{
	const struct ds_connect_params params = { .max_credits = 8192 };

	load->clients = talloc_zero_array(load, struct ds_client *, num);

	while (load->num_clients < num) {
		struct ds_client *c = ds_connect(load->tctx, load, &params);
		struct smbXcli_conn *conn = NULL;

		if (c == NULL) {
			ds_load_fail(load, "could not connect");
			return false;
		}
		conn = c->transport->conn;
		load->clients[load->num_clients++] = c;
		c->transport->oplock.handler = ds_load_oplock_handler;
		c->transport->oplock.private_data = load;
		c->transport->lease.handler = ds_load_lease_handler;
		c->transport->lease.private_data = load;
		load->io = MIN(load->io, smb2cli_conn_max_write_size(conn));
		load->io = MIN(load->io, smb2cli_conn_max_read_size(conn));
		if (!ds_load_credits(load, c)) {
			ds_load_fail(load, "not enough credits");
			return false;
		}
	}
	return true;
}

static void ds_load_tick(struct tevent_context *ev,
			 struct tevent_timer *te,
			 struct timeval now,
			 void *private_data)
{
	struct ds_load *load = talloc_get_type_abort(private_data,
						     struct ds_load);

	if (load->stop_file != NULL && file_exist(load->stop_file)) {
		load->end = timeval_current();
	}
	tevent_add_timer(load->tctx->ev,
			 load,
			 timeval_current_ofs_msec(DS_LOAD_TURN_MSEC),
			 ds_load_tick,
			 load);
}

static void ds_load_loop(struct ds_load *load)
{
	bool finished = false;
	unsigned i;

	load->end = timeval_current_ofs(load->seconds, 0);
	ds_load_tick(load->tctx->ev, NULL, timeval_current(), load);
	while (!finished && load->failure == NULL) {
		bool stop = timeval_expired(&load->end);

		finished = true;
		for (i = 0; i < load->num_lanes; i++) {
			if (!load->lanes[i]->finished) {
				ds_lane_turn(load->lanes[i], stop);
				finished = false;
			}
			if (load->failure != NULL) {
				return;
			}
		}
		if (tevent_loop_once(load->tctx->ev) != 0) {
			ds_load_fail(load, "no event loop");
		}
	}
}

static bool ds_load_verify(struct ds_load *load)
{
	unsigned i;

	for (i = 0; i < load->num_lanes; i++) {
		struct ds_lane *lane = load->lanes[i];

		strlcpy(lane->what, "verify", sizeof(lane->what));
		if (!lane->kind->verify(lane) || load->failure != NULL) {
			return false;
		}
	}
	return true;
}

static struct ds_load *ds_load_create(struct torture_context *tctx)
{
	const char *avoid = torture_setting_string(tctx, "avoid", "");
	struct ds_load *load = talloc_zero(tctx, struct ds_load);

	load->tctx = tctx;
	load->seed = torture_setting_int(tctx, "seed", 1);
	load->seconds = torture_setting_int(tctx, "seconds", 10);
	load->stop_file = torture_setting_string(tctx, "stop_file", NULL);
	load->io = MAX(torture_setting_int(tctx, "io", 65536), 512);
	load->avoid = (const char **)str_list_make(load, avoid, NULL);
	return load;
}

static bool test_load(struct torture_context *tctx)
{
	struct ds_load *load = ds_load_create(tctx);
	unsigned num = MAX(torture_setting_int(tctx, "clients", 4), 1);
	unsigned ops = 0;
	bool ret = true;
	unsigned i;

	if (!ds_load_connect(load, num)) {
		goto done;
	}
	if (!smb2_util_setup_dir(tctx, load->clients[0]->tree, DS_LOAD_DIR)) {
		ds_load_fail(load, "no " DS_LOAD_DIR);
		goto done;
	}
	if (!ds_load_lanes(load)) {
		ds_load_fail(load, "setup");
		goto done;
	}
	torture_comment(tctx,
			"load: %u clients, %u lanes, io %u, seed %u\n",
			num,
			load->num_lanes,
			load->io,
			load->seed);
	ds_load_loop(load);
	if (load->failure != NULL || !ds_load_verify(load)) {
		goto done;
	}
	CHECK_OK(smb2_util_rmdir(load->clients[0]->tree, DS_LOAD_DIR));
	for (i = 0; i < num; i++) {
		ret &= ds_check_connection(tctx, load->clients[i]);
	}
done:
	for (i = 0; i < load->num_lanes; i++) {
		ops += load->lanes[i]->num_ops;
	}
	torture_comment(tctx,
			"load: %u operations, %u directories to be looked at, "
			"%u changes seen twice, the longest took %u ms: %s\n",
			ops,
			load->enumerations,
			load->undone,
			load->longest_msec,
			load->longest);
	if (load->failure != NULL) {
		torture_result(tctx,
			       TORTURE_FAIL,
			       "%s (seed %u)\n",
			       load->failure,
			       load->seed);
		ret = false;
	}
	TALLOC_FREE(load);
	return ret;
}

void ds_load_tests(struct torture_suite *suite)
{
	torture_suite_add_simple_test(suite, "load", test_load);
}
