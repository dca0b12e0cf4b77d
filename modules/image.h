/*
   durable_state: the image of a client

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

#ifndef _DURABLE_STATE_IMAGE_H_
#define _DURABLE_STATE_IMAGE_H_

#include "replace.h"
#include <talloc.h>
#include "lib/util/data_blob.h"

/*
 * Typed records in shared memory (a memfd) with one writer. Knows nothing
 * of what is in a record.
 *
 * A record is written behind the last one, then made valid by one store of
 * the length that counts: a writer that is killed at any instruction
 * leaves all of the record or nothing. The image as a whole is complete
 * only after ds_image_complete(), the last of these stores.
 */
struct ds_image;

/*
 * A new, empty image, unmapped with its talloc context: whoever has the fd
 * by then keeps what is in it, else ds_image_wipe() comes first. Returns 0
 * or an errno.
 */
int ds_image_create(TALLOC_CTX *mem_ctx, struct ds_image **image);

/*
 * Append a record. "data" is copied. Returns 0, ENOMEM if the image cannot
 * grow (it stays as it was), EMSGSIZE for a record of 4 GiB or more.
 */
int ds_image_append(struct ds_image *image, uint32_t type, DATA_BLOB data);

/*
 * No record will follow.
 */
void ds_image_complete(struct ds_image *image);

/*
 * Map and check the image behind fd, which stays the caller's. Returns 0,
 * EPROTONOSUPPORT if another version wrote it, ENODATA if it was never
 * completed, EBADMSG if it is damaged.
 */
int ds_image_open(TALLOC_CTX *mem_ctx, int fd, struct ds_image **image);

/*
 * Go through the records: *pos is 0 before the first. "data" points into
 * the image. Returns false after the last one.
 */
bool ds_image_next(const struct ds_image *image,
		   size_t *pos,
		   uint32_t *type,
		   DATA_BLOB *data);

/*
 * The memfd, which stays the image's.
 */
int ds_image_fd(const struct ds_image *image);

/*
 * Bytes in use.
 */
size_t ds_image_size(const struct ds_image *image);

/*
 * Overwrite everything: an image holds the keys of sessions.
 */
void ds_image_wipe(struct ds_image *image);

#endif /* _DURABLE_STATE_IMAGE_H_ */
