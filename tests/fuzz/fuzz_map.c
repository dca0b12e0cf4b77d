/*
   durable_state: memory that a fuzzer maps

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

#include "replace.h"
#include "system/filesys.h"
#include "system/shmem.h"
#include "fuzz_common.h"
#include "fuzz_map.h"

bool fuzz_map_copies;

void *fuzz_mmap(void *addr,
		size_t length,
		int prot,
		int flags,
		int fd,
		off_t offset)
{
	void *copy = NULL;

	if (!fuzz_map_copies) {
		return mmap(addr, length, prot, flags, fd, offset);
	}
	copy = malloc(length);
	FUZZ_CHECK(copy != NULL);
	FUZZ_CHECK(pread(fd, copy, length, offset) == (ssize_t)length);
	return copy;
}

int fuzz_munmap(void *addr, size_t length)
{
	if (!fuzz_map_copies) {
		return munmap(addr, length);
	}
	free(addr);
	return 0;
}

int fuzz_madvise(void *addr, size_t length, int advice)
{
	return 0;
}
