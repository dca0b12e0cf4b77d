/*
   durable_state: fuzz the writer of an image

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
 * The input is a list of calls. What they leave is read after each commit,
 * and compared with what they say there is; at the end bytes of the image
 * are changed. What a reader noted stays as it is all the time.
 */

#include "replace.h"
#include "system/filesys.h"
#include <talloc.h>
#include "durable_state/image.h"
#include "fuzz_common.h"
#include "fuzz_image.h"

enum fuzz_call {
	CALL_PUT,
	CALL_PUT_LONG,
	CALL_REMOVE,
	CALL_COMMIT,
	CALL_CANCEL,
	CALL_REWRITE,
	CALL_COMPLETE,
	CALL_CHANGE,
	NUM_CALLS,
};

#define FUZZ_MAX_RECORDS 512

struct fuzz_model_record {
	uint32_t type;
	uint64_t key;
	/* all bytes of it are the same */
	uint32_t length;
	uint8_t fill;
};

struct fuzz_model {
	struct fuzz_model_record records[FUZZ_MAX_RECORDS];
	size_t num;
};

static struct fuzz_model committed;
static struct fuzz_model staged;

#define FUZZ_NOTE 0xa5

static void fuzz_model_remove(struct fuzz_model *m, uint32_t type, uint64_t key)
{
	size_t i;

	for (i = 0; i < m->num; i++) {
		if ((m->records[i].type == type) &&
		    (m->records[i].key == key))
		{
			m->num -= 1;
			memmove(&m->records[i],
				&m->records[i + 1],
				(m->num - i) * sizeof(m->records[0]));
			return;
		}
	}
}

static void fuzz_model_put(struct fuzz_model *m,
			   const struct fuzz_model_record *record)
{
	size_t i;

	for (i = 0; i < m->num; i++) {
		if ((m->records[i].type == record->type) &&
		    (m->records[i].key == record->key))
		{
			m->records[i] = *record;
			return;
		}
	}
	m->records[m->num] = *record;
	m->num += 1;
}

static void fuzz_compare(const struct ds_image *image,
			 const struct fuzz_model *m)
{
	size_t pos = 0;
	uint32_t want;
	size_t num = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;
	size_t i;

	/* by type, and of one type in their order */
	for (want = 0; want < 4; want++) {
		for (i = 0; i < m->num; i++) {
			const struct fuzz_model_record *r = &m->records[i];
			size_t j;

			if (r->type != want) {
				continue;
			}
			FUZZ_CHECK(ds_image_next(
				image, &pos, &type, &key, &data));
			FUZZ_CHECK(type == r->type);
			FUZZ_CHECK(key == r->key);
			FUZZ_CHECK(data.length == r->length);
			for (j = 0; j < data.length; j++) {
				FUZZ_CHECK(data.data[j] == r->fill);
			}
			num += 1;
		}
	}
	FUZZ_CHECK(num == m->num);
	FUZZ_CHECK(!ds_image_next(image, &pos, &type, &key, &data));
}

static void fuzz_compare_notes(const struct ds_image *image)
{
	const uint8_t *notes = ds_image_notes(image);
	size_t i;

	for (i = 0; i < DS_IMAGE_NOTES; i++) {
		FUZZ_CHECK(notes[i] == FUZZ_NOTE);
	}
}

static void fuzz_read(struct ds_image *writer, bool complete)
{
	struct ds_image *image = NULL;
	int ret;

	ret = ds_image_open_live(NULL, ds_image_fd(writer), &image);
	FUZZ_CHECK(ret == 0);
	fuzz_compare(image, &committed);
	fuzz_compare_notes(image);
	FUZZ_CHECK(ds_image_size(image) == ds_image_size(writer));
	FUZZ_CHECK(ds_image_side(image) == ds_image_side(writer));
	TALLOC_FREE(image);

	ret = ds_image_open(NULL, ds_image_fd(writer), &image);
	FUZZ_CHECK(ret == (complete ? 0 : ENODATA));
	if (ret == 0) {
		fuzz_compare(image, &committed);
		TALLOC_FREE(image);
	}
}

static void fuzz_change(struct fuzz_input *in, struct ds_image *writer)
{
	int fd = ds_image_fd(writer);
	size_t notes = fuzz_image_empty()->notes;
	struct ds_image *image = NULL;
	size_t pos = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;

	while (in->size > 0) {
		size_t where = fuzz_take(in, 2);
		uint8_t what = fuzz_take(in, 1);

		if (where >= notes) {
			where += DS_IMAGE_NOTES;
		}
		FUZZ_CHECK(pwrite(fd, &what, 1, where) == 1);
	}
	if (ds_image_open_live(NULL, fd, &image) != 0) {
		return;
	}
	while (ds_image_next(image, &pos, &type, &key, &data)) {
		size_t i;
		volatile uint8_t sum = 0;

		for (i = 0; i < data.length; i++) {
			sum += data.data[i];
		}
	}
	TALLOC_FREE(image);
}

static void fuzz_put(struct fuzz_input *in,
		     struct ds_image *image,
		     bool is_long)
{
	struct fuzz_model_record record = {
		.type = fuzz_take(in, 1) % 4,
		.key = fuzz_take(in, 1) % 64,
		.length = fuzz_take(in, 1),
	};
	uint8_t *data = NULL;
	int ret;

	record.fill = record.key ^ record.length;
	if (is_long) {
		record.length *= 256;
	}
	data = malloc(record.length);
	memset(data, record.fill, record.length);
	ret = ds_image_put(image,
			   record.type,
			   record.key,
			   data_blob_const(data, record.length));
	FUZZ_CHECK(ret == 0);
	free(data);
	fuzz_model_put(&staged, &record);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { .data = data, .size = size };
	struct ds_image *image = NULL;
	bool complete = false;
	bool ended = false;

	FUZZ_CHECK(ds_image_create(NULL, &image) == 0);
	memset(ds_image_notes(image), FUZZ_NOTE, DS_IMAGE_NOTES);
	committed.num = 0;
	staged.num = 0;

	while ((in.size > 0) && !ended) {
		enum fuzz_call call = fuzz_take(&in, 1) % NUM_CALLS;
		uint32_t type;
		uint64_t key;

		switch (call) {
		case CALL_PUT:
		case CALL_PUT_LONG:
			fuzz_put(&in, image, call == CALL_PUT_LONG);
			break;
		case CALL_REMOVE:
			type = fuzz_take(&in, 1) % 4;
			key = fuzz_take(&in, 1) % 64;
			FUZZ_CHECK(ds_image_remove(image, type, key) == 0);
			fuzz_model_remove(&staged, type, key);
			break;
		case CALL_COMMIT:
			ds_image_commit(image);
			committed = staged;
			complete = false;
			break;
		case CALL_CANCEL:
			ds_image_cancel(image);
			staged = committed;
			break;
		case CALL_REWRITE:
			(void)ds_image_is_long(image);
			ds_image_rewrite(image);
			staged.num = 0;
			break;
		case CALL_COMPLETE:
			ds_image_complete(image);
			complete = true;
			break;
		case CALL_CHANGE:
			ended = true;
			break;
		default:
			break;
		}
		fuzz_read(image, complete);
	}
	fuzz_change(&in, image);
	TALLOC_FREE(image);
	return 0;
}
