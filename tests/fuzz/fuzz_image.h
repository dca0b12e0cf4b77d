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
 * The first bytes of an input are the difference to those of an empty image:
 * so what was found with one version of the image is of use with the next.
 */
static inline void fuzz_image_header(uint8_t *data, size_t size)
{
	static uint8_t header[64];
	static bool known;
	struct ds_image *image = NULL;
	size_t i;

	if (!known) {
		FUZZ_CHECK(ds_image_create(NULL, &image) == 0);
		FUZZ_CHECK(pread(ds_image_fd(image),
				 header,
				 sizeof(header),
				 0) == sizeof(header));
		TALLOC_FREE(image);
		known = true;
	}

	for (i = 0; (i < size) && (i < sizeof(header)); i++) {
		data[i] ^= header[i];
	}
}

#endif /* _DURABLE_STATE_FUZZ_IMAGE_H_ */
