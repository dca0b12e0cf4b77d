/*
 * durable_state: SMB clients survive smbd restarts
 * State and descriptors from one keeper process to the next
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

#ifndef _DURABLE_STATE_HANDOVER_H_
#define _DURABLE_STATE_HANDOVER_H_

#include <talloc.h>
#include <jansson.h>

/*
 * A keeper leaves its state as one JSON object in a sealed memfd. Where that
 * speaks of a descriptor it gives the number that it had in the process that
 * wrote it. Over execve(2) the number is the same; what was in systemd's
 * descriptor store has that number in its name, "fd<number>".
 */
struct handover_out;
struct handover_in;

struct handover_out *handover_new(TALLOC_CTX *mem_ctx);

/**
 * @brief Have a descriptor handed over with the state.
 *
 * @param[in] fd  Stays the caller's. -1 gives nothing.
 *
 * @return What the state has to say for handover_take().
 */
json_t *handover_give(struct handover_out *out, int fd);

/**
 * @brief Execute the program again with this state.
 *
 * No descriptors but those that were given get through.
 *
 * @return an errno. If it works, it does not return.
 */
int handover_exec(struct handover_out *out,
		  const json_t *state,
		  const char *program,
		  char *const argv[]);

/**
 * @brief Block or unblock the signals that we have handlers for.
 *
 * They are blocked when handover_exec() starts the new program: before it has
 * handlers they would end it, and all would be lost. It has to unblock them.
 *
 * @param[in] how  SIG_BLOCK or SIG_UNBLOCK
 */
void handover_block_signals(int how);

/**
 * @brief Leave state and descriptors in systemd's descriptor store.
 *
 * Waits until systemd has read all of it.
 *
 * @return 0, ENOTSUP (not a service of systemd's) or another errno.
 */
int handover_store(struct handover_out *out, const json_t *state);

/**
 * @brief Get what the predecessor left, by execve(2) or in systemd's store.
 *
 * To be called once, first thing in the process. All descriptors get
 * FD_CLOEXEC.
 *
 * @param[out] _in  NULL: nothing was left, or it is not readable, which is
 *		    logged. Freeing it closes what nobody took.
 *
 * @return 0 or an errno.
 */
int handover_receive(TALLOC_CTX *mem_ctx, struct handover_in **_in);

/**
 * @brief The state, owned by in.
 */
json_t *handover_state(struct handover_in *in);

/**
 * @brief Was it left by execve(2)? Then this process is the predecessor.
 */
bool handover_by_exec(const struct handover_in *in);

/**
 * @brief Become the owner of a descriptor that was given.
 *
 * @return -1 if it did not come, or was taken already.
 */
int handover_take(struct handover_in *in, const json_t *number);

/**
 * @brief Everything has its owner: free it, have systemd forget its duplicates.
 */
void handover_finish(struct handover_in *in);

#endif /* _DURABLE_STATE_HANDOVER_H_ */
