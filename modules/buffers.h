/*
   durable_state: buffers of requests and replies

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

#ifndef _DURABLE_STATE_BUFFERS_H_
#define _DURABLE_STATE_BUFFERS_H_

#include "replace.h"
#include <talloc.h>

/*
 * Memory for requests and replies that outlives its process: it belongs to
 * a memfd. Another process that has the descriptor finds in it what the
 * image of the client names by offset and length.
 *
 * Which parts are in use is known to the process that allocates only. It
 * does so from one thread. Pointers stay what they are until they are
 * freed.
 */
struct ds_buffers;

/* ---- for the process that allocates */

/*
 * Nothing is in use and the file is empty. All is unmapped with the talloc
 * context, also what was not freed until then. The mapping is not there in
 * a process that is forked off. Returns 0 or an errno.
 */
int ds_buffers_create(TALLOC_CTX *mem_ctx, struct ds_buffers **b);

/*
 * So much memory, in a talloc child of owner: freed with it, moved with it.
 * Aligned to 512 bytes, longer ones to the power of two that they take. Not
 * initialised. NULL if it is too much for one (beyond 16 MiB) or there is
 * no room: private memory is the caller's other choice.
 */
void *ds_buffers_alloc(struct ds_buffers *b,
		       TALLOC_CTX *owner,
		       size_t length);

/*
 * The same without an owner: whoever took it gives it back, with the length
 * it was taken with.
 */
void *ds_buffers_take(struct ds_buffers *b, size_t length);
void ds_buffers_give(struct ds_buffers *b, void *p, size_t length);

/*
 * Give memory that is free back to the kernel. For times when nothing is
 * going on: it is not cheap. Bytes that were freed since the last time tell
 * whether it is worth it, about.
 */
void ds_buffers_trim(struct ds_buffers *b);
size_t ds_buffers_freed(const struct ds_buffers *b);

/* ---- for a reader */

/*
 * Map what is behind fd, which stays the caller's and has to be open for
 * reading and writing. Whoever allocates must be gone or stand still.
 * Returns 0, EBADMSG if it cannot be such a file, another errno if it
 * cannot be mapped.
 */
int ds_buffers_open(TALLOC_CTX *mem_ctx, int fd, struct ds_buffers **b);

/* ---- for both */

/*
 * Is all of [p, p + length) in here, and where?
 */
bool ds_buffers_find(const struct ds_buffers *b,
		     const void *p,
		     size_t length,
		     uint64_t *offset);

/*
 * The way back. NULL if some of it is not in here.
 */
const uint8_t *ds_buffers_at(const struct ds_buffers *b,
			     uint64_t offset,
			     size_t length);

/*
 * The memfd, which stays the buffers' (the caller's where it was opened).
 */
int ds_buffers_fd(const struct ds_buffers *b);

/*
 * Everything reads as zeros from now on, in other processes too.
 */
void ds_buffers_wipe(struct ds_buffers *b);

#endif /* _DURABLE_STATE_BUFFERS_H_ */
