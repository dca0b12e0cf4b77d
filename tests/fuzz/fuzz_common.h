/*
   durable_state: what all fuzzers need

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

#ifndef _DURABLE_STATE_FUZZ_COMMON_H_
#define _DURABLE_STATE_FUZZ_COMMON_H_

#include "replace.h"
#include <talloc.h>

/* What libFuzzer calls */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Something that must not be is found
 */
#define FUZZ_CHECK(cond) do { \
	if (!(cond)) { \
		fprintf(stderr, \
			"%s:%d: not true: %s\n", \
			__FILE__, \
			__LINE__, \
			#cond); \
		abort(); \
	} \
} while (0)

/*
 * All messages are put together, none is shown: their arguments are looked
 * at, too.
 */
void fuzz_messages(void);

/* A memfd with this in it */
int fuzz_memfd(const void *data, size_t size);

/* Longer ones do not help */
#define FUZZ_SEED_MAX 4096

/*
 * An input for this target, in its directory under dir. Its name is made of
 * what is in it, so that the same is there once.
 */
void fuzz_write_seed(const char *dir,
		     const char *target,
		     const uint8_t *data,
		     size_t size);

/* ---- input of the binary kind */

struct fuzz_input {
	const uint8_t *data;
	size_t size;
};

/* 0 behind the end */
uint64_t fuzz_take(struct fuzz_input *in, size_t bytes);

/* At most that much, *size is what there is */
const uint8_t *fuzz_take_data(struct fuzz_input *in, size_t max, size_t *size);

/* ---- input of the textual kind: lines */

/* false behind the last one; without the end of the line */
bool fuzz_line(struct fuzz_input *in, struct fuzz_input *line);

/*
 * The descriptors that a line begins with, one for each letter: m a memfd,
 * f a file, s a socket with somebody at its other end, l one that listens,
 * t a timer, p a pipe, n /dev/null; M is 200 memfds. They are the caller's.
 */
size_t fuzz_line_fds(struct fuzz_input *line, int *fds, size_t max);

/* How many descriptors are open? */
size_t fuzz_num_fds(void);

#endif /* _DURABLE_STATE_FUZZ_COMMON_H_ */
