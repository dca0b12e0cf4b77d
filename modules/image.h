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
 * A log of records in shared memory (a memfd) with one writer: what a
 * reader finds is always current. Knows nothing of what is in a record.
 *
 * A record has a type and a key. What is put or removed is staged behind
 * the log and becomes valid with all else that is staged by one store of
 * the length that counts (a commit): a writer that is killed at any
 * instruction leaves all of it or nothing. A log that has become long is
 * written anew where it is in nobody's way, and counts from one store on,
 * too.
 *
 * Beyond that an image can be complete: its writer has said that there is
 * nothing more to come.
 */
struct ds_image;

/* ---- for the writer */

/*
 * A new, empty image, unmapped with its talloc context: whoever has the fd
 * by then keeps what is in it, else ds_image_wipe() comes first. Returns 0
 * or an errno.
 */
int ds_image_create(TALLOC_CTX *mem_ctx, struct ds_image **image);

/*
 * Stage a record, which replaces the one of this type and key. "data" is
 * copied. Returns 0, ENOMEM if the image cannot grow (all is as it was,
 * what was staged before among it), EMSGSIZE for a record of 4 GiB or more.
 */
int ds_image_put(struct ds_image *image,
		 uint32_t type,
		 uint64_t key,
		 DATA_BLOB data);

/*
 * Stage that there is no record of this type and key, whether there was
 * one or not. Returns 0 or ENOMEM, as ds_image_put().
 */
int ds_image_remove(struct ds_image *image, uint32_t type, uint64_t key);

/*
 * From now on all that is staged counts. An image that was complete is not
 * any more.
 */
void ds_image_commit(struct ds_image *image);

/*
 * Forget what is staged, with it a rewrite that was begun.
 */
void ds_image_cancel(struct ds_image *image);

/*
 * What is put until the next commit is all that there will be: nothing that
 * counts now does so after it. What was staged before is forgotten.
 */
void ds_image_rewrite(struct ds_image *image);

/*
 * Is it time for a rewrite? So seldom that its cost does not matter, so
 * often that the log does not take much more than its records.
 */
bool ds_image_is_long(const struct ds_image *image);

/*
 * What was committed is all, no record will follow. Staged ones do not
 * count.
 */
void ds_image_complete(struct ds_image *image);

/* ---- for the reader */

/*
 * Map and check the image behind fd, which stays the caller's and has to
 * be open for reading and writing. Returns 0, EPROTONOSUPPORT if another
 * version wrote it, ENODATA if it is not complete, EBADMSG if it is
 * damaged, another errno if it cannot be mapped.
 */
int ds_image_open(TALLOC_CTX *mem_ctx, int fd, struct ds_image **image);

/*
 * The same for an image whose writer ended somehow: it need not be
 * complete, all that was committed counts. The writer must be gone or
 * stand still.
 */
int ds_image_open_live(TALLOC_CTX *mem_ctx, int fd, struct ds_image **image);

/*
 * Go through the records of an image that was opened: *pos is 0 before the
 * first. They come by type, those of one type in the order in which they
 * were first put; a record that was removed and put again is a new one.
 * "data" points into the image. Returns false after the last one.
 */
bool ds_image_next(const struct ds_image *image,
		   size_t *pos,
		   uint32_t *type,
		   uint64_t *key,
		   DATA_BLOB *data);

/* ---- for both */

/*
 * The memfd, which stays the image's (the caller's where it was opened).
 */
int ds_image_fd(const struct ds_image *image);

/*
 * 0 or 1, the other one with each commit. Who has a few words that change
 * all the time keeps them elsewhere, twice: it writes those of the other
 * side, and the commit makes them valid together with the records.
 */
unsigned int ds_image_side(const struct ds_image *image);

/*
 * Bytes that count.
 */
size_t ds_image_size(const struct ds_image *image);

/*
 * Bytes that are zero at first, for readers: what one writes there is found by
 * the next one if it is killed. They belong to the image.
 */
#define DS_IMAGE_NOTES 256
uint8_t *ds_image_notes(const struct ds_image *image);

/*
 * Overwrite everything: an image holds the keys of sessions. It has no
 * record any more, and can only be freed.
 */
void ds_image_wipe(struct ds_image *image);

#endif /* _DURABLE_STATE_IMAGE_H_ */
