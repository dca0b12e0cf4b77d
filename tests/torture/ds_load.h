/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: what its files share

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

#ifndef __TORTURE_DURABLE_STATE_DS_LOAD_H__
#define __TORTURE_DURABLE_STATE_DS_LOAD_H__

#include "torture/durable_state/ds_util.h"

/*
 * Clients work, somebody else kills the server's processes meanwhile. What is
 * done comes from a seed, and before a request is sent it is known what the
 * answer must be: every status, every byte, every name.
 *
 * To know that while many requests are under way, the work is cut into lanes.
 * A lane does one operation after the other, with things that no other lane
 * touches, or that are marked while one does.
 */

#define DS_LOAD_DIR "durable-state-load"

/* One operation has no more requests at a time. */
#define DS_LANE_REQS 4
/* How many former operations are told with a failure. */
#define DS_LANE_HISTORY 8

struct ds_lane;

/* Something to do, for a lane. */
struct ds_load_op {
	/* as in torture:avoid */
	const char *name;
	/* how often, compared with others; 0 ends a table */
	unsigned weight;
	/* False: not possible at the moment, nothing was sent */
	bool (*start)(struct ds_lane *lane);
};

struct ds_lane_kind {
	const char *name;
	/*
	 * Up to so long nothing is done between two operations: those that
	 * contend for one file are many anyway.
	 */
	unsigned pause_msec;
	/* Before the first operation, and after the last; synchronous */
	bool (*setup)(struct ds_lane *lane);
	bool (*verify)(struct ds_lane *lane);
	const struct ds_load_op *ops;
	/* In each turn of the loop, whatever the lane does; may be NULL */
	void (*poll)(struct ds_lane *lane);
	/*
	 * Called instead of an operation when the time is over. True: nothing
	 * is waiting any more. May be NULL.
	 */
	bool (*drain)(struct ds_lane *lane);
};

struct ds_load;

struct ds_lane {
	struct ds_load *load;
	const struct ds_lane_kind *kind;
	/* where it works, unless it works for several */
	struct ds_client *c;
	unsigned client;
	unsigned number;
	uint32_t random;
	/* what it knows */
	void *model;

	/* The operation under way; done is NULL without one */
	char what[160];
	struct timeval since;
	/* no other one before that */
	struct timeval next;
	struct smb2_request *reqs[DS_LANE_REQS];
	size_t num_reqs;
	/* When it is done, if not when all requests were answered */
	bool (*ready)(struct ds_lane *lane);
	void (*done)(struct ds_lane *lane);

	char history[DS_LANE_HISTORY][160];
	unsigned num_ops;
	bool finished;
};

struct ds_range;

struct ds_load {
	struct torture_context *tctx;
	uint32_t seed;
	unsigned seconds;
	/* NULL, or: the time is over when this file is there */
	const char *stop_file;
	struct timeval end;
	/* bytes of the largest READ and WRITE */
	uint32_t io;
	const char **avoid;
	struct ds_client **clients;
	unsigned num_clients;
	struct ds_lane **lanes;
	unsigned num_lanes;
	/* what clients contend for, see ds_load_locks.c */
	struct ds_range *ranges;
	uint64_t keys;
	/* how often a watch was told to look itself */
	unsigned enumerations;
	/* ... or that a change was taken back, to be done again */
	unsigned undone;
	uint32_t longest_msec;
	char longest[160];
	/* NULL: all is well */
	char *failure;
};

/* The first failure is kept, all that follows is its consequence. */
void ds_load_fail(struct ds_load *load, const char *fmt, ...)
	PRINTF_ATTRIBUTE(2, 3);
/* The same, with what the lane was doing. */
void ds_lane_fail(struct ds_lane *lane, const char *fmt, ...)
	PRINTF_ATTRIBUTE(2, 3);

/* Below n; the same sequence for the same seed. */
uint32_t ds_lane_random(struct ds_lane *lane, uint32_t n);
bool ds_load_avoids(struct ds_load *load, const char *op);
/* A lease key that was not used before. */
uint64_t ds_load_key(struct ds_load *load);

/* Names the operation that is about to be sent. */
void ds_lane_begin(struct ds_lane *lane,
		   void (*done)(struct ds_lane *lane),
		   const char *fmt, ...) PRINTF_ATTRIBUTE(3, 4);
/* One more request of it; NULL is a failure. */
void ds_lane_add(struct ds_lane *lane, struct smb2_request *req);
bool ds_lane_answered(struct ds_lane *lane);
/* The request is the caller's afterwards: one of smb2_*_recv frees it. */
struct smb2_request *ds_lane_take(struct ds_lane *lane, size_t i);
/* False after a failure, which is that got is not wanted. */
bool ds_lane_status(struct ds_lane *lane,
		    const char *call,
		    NTSTATUS got,
		    NTSTATUS wanted);
bool ds_lane_u64(struct ds_lane *lane,
		 const char *value,
		 uint64_t got,
		 uint64_t wanted);
bool ds_lane_bytes(struct ds_lane *lane,
		   uint64_t ofs,
		   const uint8_t *got,
		   const uint8_t *wanted,
		   size_t len);
/* The client library disconnects when it has less than it needs. */
bool ds_lane_credits(struct ds_lane *lane, size_t bytes);

bool ds_load_has_leases(struct ds_client *c, bool *v2);
/*
 * False: it is not about what the lane has. What is about nothing, or comes
 * once too often, is a failure.
 */
bool ds_leases_break(struct ds_lane *lane,
		     struct ds_client *c,
		     const struct ds_break *brk,
		     bool lease);

extern const struct ds_lane_kind ds_files_kind;
extern const struct ds_lane_kind ds_locks_kind;
extern const struct ds_lane_kind ds_leases_kind;
extern const struct ds_lane_kind ds_notify_kind;

#endif /* __TORTURE_DURABLE_STATE_DS_LOAD_H__ */
