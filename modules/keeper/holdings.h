/*
 * durable_state: SMB clients survive smbd restarts
 * What the keeper holds
 *
 * Copyright (C) The durable_state developers 2026
 *
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation; either version 3 of the License, or
 * (at your option) any later version.
 *
 * This program is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
 * GNU General Public License for more details.
 *
 * You should have received a copy of the GNU General Public License
 * along with this program.  If not, see <http://www.gnu.org/licenses/>.
 */

#ifndef _DURABLE_STATE_HOLDINGS_H_
#define _DURABLE_STATE_HOLDINGS_H_

#include <talloc.h>
#include <jansson.h>

struct keeper_packet;
struct handover_in;
struct handover_out;

/*
 * A holding: descriptors under a label, with an info that the keeper does not
 * look into.
 */
struct holding {
	struct holding *prev, *next;
	uint64_t id; /* once complete: not 0, no other one gets it again */
	char *label;
	json_t *info; /* an object */
	int *fds;     /* talloc length is at least num_fds */
	size_t num_fds;
	int64_t since_ms; /* CLOCK_MONOTONIC, when it became complete */
	pid_t pid;    /* who has put it */
	bool lent;    /* it is being given away, until the taker has it */
};

/* What becomes of the objects behind the descriptors of a dropped holding */
enum holding_end {
	/* A living smbd uses them: close our duplicates, no more */
	HOLDING_END_CLOSE,
	/*
	 * Nobody will come back for them: shut sockets down, so that the
	 * client sees the end even if a stray duplicate lives on, and
	 * overwrite memory, which may contain session keys.
	 */
	HOLDING_END_DESTROY,
};

/* The complete holdings, in the order in which they became complete */
struct holdings {
	struct holding *list;
	size_t num;
	size_t num_fds;
	uint64_t last_id;
};

/**
 * @brief Start a holding. Freeing it closes its descriptors.
 */
struct holding *holding_new(TALLOC_CTX *mem_ctx,
			    const char *label,
			    pid_t pid);

/**
 * @brief Move the descriptors of a packet to the end of a holding.
 *
 * @return 0 or ENOMEM, then the packet still has them.
 */
int holding_append(struct holding *h, struct keeper_packet *packet);

/**
 * @brief Milliseconds of CLOCK_MONOTONIC.
 */
int64_t holding_now_ms(void);

struct holding *holdings_find(struct holdings *hs, const char *label);
struct holding *holdings_find_id(struct holdings *hs, uint64_t id);

/**
 * @brief Make a holding complete, under the ownership of hs.
 *
 * One of the same label gives way: our duplicates of what it has are closed.
 * It must not be lent.
 */
void holdings_add(struct holdings *hs, struct holding *h);

/**
 * @brief Forget one holding. It must not be lent.
 */
void holdings_drop(struct holdings *hs,
		   struct holding *h,
		   enum holding_end end);

/**
 * @brief Forget all holdings that are not lent.
 *
 * @return their number.
 */
size_t holdings_drop_all(struct holdings *hs, enum holding_end end);

/**
 * @brief One holding as JSON, its descriptors given to the handover.
 */
json_t *holding_save(const struct holding *h, struct handover_out *out);

/**
 * @brief The reverse of holding_save().
 *
 * @return NULL if a descriptor is missing or the JSON is wrong. The
 *	   descriptors that were there are closed then.
 */
struct holding *holding_load(TALLOC_CTX *mem_ctx,
			     const json_t *json,
			     struct handover_in *in);

#endif /* _DURABLE_STATE_HOLDINGS_H_ */
