/*
   durable_state: fuzz an image, as a reader finds it

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
 * The input is the image (fuzz_image_of_input()): whatever is in the memfd, it
 * is opened or refused.
 * The sums that would refuse most of it are not looked at in a build with
 * FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION.
 */

#include "replace.h"
#include "system/filesys.h"
#include "fuzz_image.h"
#include "fuzz_map.h"
#include "fuzz_ndr.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	return 0;
}

static void fuzz_look(struct ds_image *image)
{
	size_t pos = 0;
	uint32_t last_type = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;

	while (ds_image_next(image, &pos, &type, &key, &data)) {
		FUZZ_CHECK(type >= last_type);
		last_type = type;
		fuzz_record(type, data);
	}
	FUZZ_CHECK(!ds_image_next(image, &pos, &type, &key, &data));

	(void)ds_image_size(image);
	(void)ds_image_side(image);
	/* all of them are there */
	memset(ds_image_notes(image), 0xff, DS_IMAGE_NOTES);
	ds_image_wipe(image);
	pos = 0;
	FUZZ_CHECK(!ds_image_next(image, &pos, &type, &key, &data));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ds_image *image = NULL;
	uint8_t *copy = fuzz_image_of_input(data, &size);
	int fd;
	int live;
	int complete;

	fd = fuzz_memfd(copy, size);
	TALLOC_FREE(copy);

	fuzz_map_copies = true;
	live = ds_image_open_live(NULL, fd, &image);
	if (live == 0) {
		fuzz_look(image);
		TALLOC_FREE(image);
	}
	complete = ds_image_open(NULL, fd, &image);
	if (complete == 0) {
		/* what is complete is current as well */
		FUZZ_CHECK(live == 0);
		fuzz_look(image);
		TALLOC_FREE(image);
	}
	fuzz_map_copies = false;
	close(fd);
	return 0;
}
