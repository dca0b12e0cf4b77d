/*
   durable_state: the surroundings of a keeper that is fuzzed

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

#ifndef _DURABLE_STATE_FUZZ_FILES_H_
#define _DURABLE_STATE_FUZZ_FILES_H_

#include "replace.h"
#include <tevent.h>

struct keeper;

/*
 * Paths are the input's, and this may be root: what the keeper opens, binds
 * or unlinks is not what is there by that name. "/a" to "/d" are files, "/e"
 * is a directory, nothing else exists.
 */
void fuzz_files_init(void);

/*
 * Do all that there is to do now, a bounded time. NULL: the keeper has ended.
 */
void fuzz_keeper_loop(struct keeper *k);

/* What must be true of a keeper at any time */
void fuzz_keeper_check(const struct keeper *k);

/* Receive what it has said on this socket, and forget it. Replies are JSON. */
void fuzz_receive(int fd);

/*
 * What sd_listen_fds_with_names() returns, which owns it from then on. What the
 * previous keeper left has these numbers, the fuzzer's own descriptors do not.
 */
#define FUZZ_FDS_BEGIN 3
#define FUZZ_FDS_END 40
extern char **fuzz_stored_names;
extern int fuzz_num_stored;

#endif /* _DURABLE_STATE_FUZZ_FILES_H_ */
