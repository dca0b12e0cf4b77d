/*
   durable_state: images that smbd has made as input of fuzzers

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

/*
 * usage: make_seeds CORPUS IMAGE...
 *
 * CORPUS has the directories fuzz_image, fuzz_records and fuzz_restore. An
 * image is a descriptor of a process that keeps one, /proc/PID/fd/NUMBER.
 */

#include "replace.h"
#include "system/filesys.h"
#include "fuzz_image.h"

static void split(const char *dir, int fd)
{
	struct ds_image *image = NULL;
	size_t pos = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;

	if (ds_image_open_live(NULL, fd, &image) != 0) {
		/* its process goes on, and was just writing */
		return;
	}
	while (ds_image_next(image, &pos, &type, &key, &data)) {
		uint8_t *record = talloc_size(image, 1 + data.length);

		record[0] = type;
		memcpy(record + 1, data.data, data.length);
		fuzz_write_seed(dir, "fuzz_records", record, 1 + data.length);
		fuzz_write_seed(dir, "fuzz_restore", record, 1 + data.length);
	}
	TALLOC_FREE(image);
}

static void whole(const char *dir, int fd)
{
	struct stat st;
	uint8_t *data = NULL;
	size_t size;

	if (fstat(fd, &st) == -1) {
		return;
	}
	data = talloc_size(NULL, st.st_size);
	size = pread(fd, data, st.st_size, 0);
	while ((size > 0) && (data[size - 1] == 0)) {
		size -= 1;
	}
	/* the last record may end with zeros */
	size = MIN(size + 128, (size_t)st.st_size);
	size = fuzz_image_to_input(data, size);
	fuzz_write_seed(dir, "fuzz_image", data, size);
	TALLOC_FREE(data);
}

int main(int argc, char *argv[])
{
	int i;

	for (i = 2; i < argc; i++) {
		int fd = open(argv[i], O_RDWR);

		if (fd == -1) {
			continue;
		}
		split(argv[1], fd);
		whole(argv[1], fd);
		close(fd);
	}
	return 0;
}
