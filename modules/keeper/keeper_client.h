/*
 * durable_state: SMB clients survive smbd restarts
 * Client of the keeper
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

#ifndef _DURABLE_STATE_KEEPER_CLIENT_H_
#define _DURABLE_STATE_KEEPER_CLIENT_H_

#include <talloc.h>
#include <jansson.h>

/*
 * Blocking client of the keeper. Every wait ends after the timeout given to
 * keeper_connect(); there is no reconnecting.
 *
 * All functions return 0 or an errno:
 *
 * ETIMEDOUT    The keeper did not answer. As a late answer could be taken for
 *              the next one, the connection cannot be used any more.
 * ECONNRESET   The keeper has ended, or closed the connection.
 * EPROTO       It answered what we do not understand; the connection cannot
 *              be used any more.
 * EREMOTEIO    It refused, without an errno of its own.
 *
 * and what is said at the function. keeper_error() has the sentence for the
 * log. After a refusal the connection is usable.
 *
 * Writing never raises SIGPIPE.
 */

struct keeper_conn;

/* One holding, without its descriptors */
struct keeper_holding {
	char *label;
	json_t *info;    /* borrowed: freed with the list */
	size_t num_fds;
	uint64_t age_ms; /* milliseconds since it became complete */

	/*
	 * The process that has put it, 0 if not known. It may have ended, and
	 * the number may be another's now.
	 */
	pid_t pid;
};

/**
 * @brief Connect to the keeper and say hello.
 *
 * Freeing *kc closes the connection.
 *
 * @param[in] sockdir     "<lock directory>/durable_state"
 * @param[in] role        "parent": the smbd that holdings are kept for. While
 *			  one is connected no hold time runs.
 *			  "child": one of its clients' processes.
 *			  "tool": an administrator's program.
 * @param[in] timeout_ms  Longest wait for one answer, in milliseconds.
 *
 * @return ENOENT, ECONNREFUSED: no keeper is running.
 *	   EPERM: what listens there is not root's.
 *	   EPROTONOSUPPORT: it speaks another version of the protocol.
 */
int keeper_connect(TALLOC_CTX *mem_ctx,
		   const char *sockdir,
		   const char *role,
		   int timeout_ms,
		   struct keeper_conn **_kc);

/**
 * @brief The socket, to watch for its end.
 *
 * The keeper sends nothing unasked, so when no call is under way readable
 * means that it has ended. Not to be read or closed by the caller.
 */
int keeper_conn_fd(const struct keeper_conn *kc);

/**
 * @brief The keeper's process id.
 */
pid_t keeper_conn_pid(const struct keeper_conn *kc);

/**
 * @brief What went wrong in the call that failed last, as a sentence.
 *
 * Valid until the next call.
 */
const char *keeper_error(const struct keeper_conn *kc);

/**
 * @brief Give duplicates of descriptors to the keeper, as one holding.
 *
 * Others see the holding when all of it has arrived, or never. The
 * descriptors stay the caller's, and so does info.
 *
 * @param[in] label  1 to KEEPER_LABEL_MAX bytes of UTF-8.
 * @param[in] info   An object, at most KEEPER_INFO_MAX bytes. May be NULL.
 *
 * @return EEXIST: there is a complete holding of that label.
 *	   EMFILE: the keeper may not open so many descriptors.
 *	   EINVAL, EMSGSIZE: label or info are not as they should be.
 *	   On any error nothing is held.
 */
int keeper_put(struct keeper_conn *kc,
	       const char *label,
	       json_t *info,
	       const int *fds,
	       size_t num_fds);

/**
 * @brief As keeper_put(), but a complete holding of that label gives way.
 *
 * The new one takes the place of the old one in one step when all of it has
 * arrived. The keeper closes its duplicates of what the old one had and does
 * no more to it, with or without a parent. Where there is none of that label
 * it is a keeper_put().
 *
 * @return As keeper_put(), without EEXIST, and
 *	   EBUSY: another one is taking the old one.
 *	   On any error the old one stays as it was, except that after those
 *	   which say that the connection has failed it may be either of them.
 */
int keeper_replace(struct keeper_conn *kc,
		   const char *label,
		   const char *former,
		   json_t *info,
		   const int *fds,
		   size_t num_fds);

/**
 * @brief Forget a holding.
 *
 * While a parent is connected this closes the keeper's duplicates only, so
 * that it can be used to take back a put. Without one, connected sockets are
 * shut down as well and memory is overwritten.
 *
 * @return 0, also when there is none of that label.
 *	   EBUSY: it is being taken.
 */
int keeper_drop(struct keeper_conn *kc, const char *label);

/**
 * @brief Get a holding back. The keeper forgets it when all has arrived.
 *
 * @param[out] _info  The caller has to json_decref() it. May be NULL.
 * @param[out] _fds   In the order in which they were put, with FD_CLOEXEC;
 *		      talloc'ed on mem_ctx. The caller has to close them.
 *
 * @return ENOENT: no holding of that label.
 *	   EBUSY: another one is taking it.
 *	   EMFILE: this process may not open so many descriptors.
 *	   After EMFILE, and all that says that the connection has failed,
 *	   the keeper still has it for a new connection, unless it has ended.
 */
int keeper_take(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		const char *label,
		json_t **_info,
		int **_fds,
		size_t *_num_fds);

/**
 * @brief As keeper_take(), but the keeper goes on holding it.
 *
 * The new owner puts a holding of its own, and drops this one after that.
 *
 * @return As keeper_take(), and
 *	   ESTALE: it was dropped or replaced before all of it was sent, which
 *	   nobody is kept from. There may be another one of that label.
 */
int keeper_copy(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		const char *label,
		json_t **_info,
		int **_fds,
		size_t *_num_fds);

/**
 * @brief List the complete holdings, oldest first.
 *
 * @param[out] _list  talloc'ed on mem_ctx.
 */
int keeper_list(TALLOC_CTX *mem_ctx,
		struct keeper_conn *kc,
		struct keeper_holding **_list,
		size_t *_num);

/**
 * @brief Have the keeper hold the active lock of TDBs.
 *
 * Until keeper_unguard() or the end of the hold time TDB_CLEAR_IF_FIRST does
 * not wipe them. Files that do not exist are skipped, those that are guarded
 * already stay so.
 *
 * @param[in] paths  Absolute paths.
 *
 * @return EAGAIN: another process has one of them locked exclusively.
 */
int keeper_guard(struct keeper_conn *kc, const char **paths, size_t num_paths);

int keeper_unguard(struct keeper_conn *kc);

/**
 * @brief The last call of a parent that ends: keep everything for a while.
 *
 * @param[in] seconds  From now on, unless another parent connects.
 *
 * @return EPERM: the connection's role is not "parent".
 */
int keeper_hold(struct keeper_conn *kc, unsigned int seconds);

/**
 * @brief Append to the event log that keeper_status() shows.
 *
 * @param[in] event  An object of at most KEEPER_EVENT_MAX bytes, stays the
 *		     caller's.
 */
int keeper_event(struct keeper_conn *kc, json_t *event);

/**
 * @brief Status of the keeper, see docs/interfaces.md.
 *
 * @param[out] _status  The caller has to json_decref() it.
 */
int keeper_status(struct keeper_conn *kc, json_t **_status);

/**
 * @brief Drop all holdings and the guard. See keeper_drop().
 */
int keeper_wipe(struct keeper_conn *kc);

#endif /* _DURABLE_STATE_KEEPER_CLIENT_H_ */
