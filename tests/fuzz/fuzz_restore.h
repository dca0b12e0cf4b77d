/*
   durable_state: a process that was killed, as input of a fuzzer

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

#ifndef _DURABLE_STATE_FUZZ_RESTORE_H_
#define _DURABLE_STATE_FUZZ_RESTORE_H_

#include "replace.h"
#include "durable_state/save.h"

/* What is not in the buffers, which follow. All of it is the input's. */
struct fuzz_killed {
	uint64_t read;
	uint64_t written;
	struct ds_place channel;
	struct ds_place slots;
	uint64_t seen[4];
	/* so many of them */
	uint8_t num_seen;
	uint8_t side;
	uint8_t is_smb2;
	uint8_t reserved[5];
	/* the only record of an open in the image: num bytes */
	struct ds_place open;
};

/* The id of that open, and of another one that is closed and open again */
#define FUZZ_OPEN_ID 7

#endif /* _DURABLE_STATE_FUZZ_RESTORE_H_ */
