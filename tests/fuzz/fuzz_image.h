/*
   durable_state: images as input of a fuzzer

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

#ifndef _DURABLE_STATE_FUZZ_IMAGE_H_
#define _DURABLE_STATE_FUZZ_IMAGE_H_

#include "replace.h"
#include "system/filesys.h"
#include <talloc.h>
#include "durable_state/image.h"
#include "fuzz_common.h"

/*
 * An input is an image without ds_image_notes(), and its first bytes are the
 * difference to those of an empty image: so what was found with one version of
 * the image is of use with the next.
 */
#define FUZZ_IMAGE_HEADER 64

struct fuzz_image_empty {
	/* without the notes */
	uint8_t header[FUZZ_IMAGE_HEADER];
	/* where they are */
	size_t notes;
};

static inline const struct fuzz_image_empty *fuzz_image_empty(void)
{
	static struct fuzz_image_empty empty;
	static bool known;
	uint8_t data[FUZZ_IMAGE_HEADER + DS_IMAGE_NOTES];
	uint8_t mark[DS_IMAGE_NOTES];
	struct ds_image *image = NULL;

	if (known) {
		return &empty;
	}
	memset(mark, 0xa5, sizeof(mark));
	FUZZ_CHECK(ds_image_create(NULL, &image) == 0);
	memcpy(ds_image_notes(image), mark, sizeof(mark));
	FUZZ_CHECK(pread(ds_image_fd(image), data, sizeof(data), 0) ==
		   sizeof(data));
	TALLOC_FREE(image);

	while (memcmp(data + empty.notes, mark, sizeof(mark)) != 0) {
		empty.notes += 1;
		FUZZ_CHECK(empty.notes <= FUZZ_IMAGE_HEADER);
	}
	memcpy(empty.header, data, empty.notes);
	memcpy(empty.header + empty.notes,
	       data + empty.notes + DS_IMAGE_NOTES,
	       FUZZ_IMAGE_HEADER - empty.notes);
	known = true;
	return &empty;
}

static inline void fuzz_image_header(uint8_t *data, size_t size)
{
	const struct fuzz_image_empty *empty = fuzz_image_empty();
	size_t i;

	for (i = 0; (i < size) && (i < FUZZ_IMAGE_HEADER); i++) {
		data[i] ^= empty->header[i];
	}
}

/* The image that an input is, in *size bytes: talloc_free() */
static inline uint8_t *fuzz_image_of_input(const uint8_t *data, size_t *size)
{
	size_t notes = fuzz_image_empty()->notes;
	uint8_t *image = talloc_zero_size(NULL, *size + DS_IMAGE_NOTES);

	FUZZ_CHECK(image != NULL);
	memcpy(image, data, *size);
	fuzz_image_header(image, *size);
	if (*size >= notes) {
		memmove(image + notes + DS_IMAGE_NOTES,
			image + notes,
			*size - notes);
		memset(image + notes, 0, DS_IMAGE_NOTES);
		*size += DS_IMAGE_NOTES;
	}
	return image;
}

/* The reverse, in place: its size */
static inline size_t fuzz_image_to_input(uint8_t *image, size_t size)
{
	size_t notes = fuzz_image_empty()->notes;

	if (size >= notes + DS_IMAGE_NOTES) {
		size -= DS_IMAGE_NOTES;
		memmove(image + notes,
			image + notes + DS_IMAGE_NOTES,
			size - notes);
	}
	fuzz_image_header(image, size);
	return size;
}

#endif /* _DURABLE_STATE_FUZZ_IMAGE_H_ */
