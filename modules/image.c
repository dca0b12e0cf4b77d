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

#include "replace.h"
#include "system/filesys.h"
#include "system/shmem.h"
#include "lib/util/time.h"
#include "lib/util/tsort.h"
#include "durable_state/durable_state.h"
#include "image.h"

#define DS_IMAGE_MAGIC UINT64_C(0x44535f494d414745)

/* What the image grows by: most clients need one */
#define DS_IMAGE_CHUNK (64 * 1024)

/* What a log may have more than its records took when it was written */
#define DS_IMAGE_SLACK (16 * 1024)

/*
 * All structs are read from shared memory as they are: the same machine
 * wrote them, or the version differs.
 */
struct ds_image_header {
	uint64_t magic;
	uint32_t version;
	/*
	 * 0 while records may follow, then the sum of the other fields and
	 * of the log's length
	 */
	uint32_t complete;
	/* where the log that counts begins; the commit mark of a new one */
	uint64_t log;
	/* of readers: no sum is made of them */
	uint8_t notes[DS_IMAGE_NOTES];
};

/* Records follow it */
struct ds_image_log {
	/*
	 * Bytes that count, this struct included: a multiple of 8. Bit 0 is
	 * ds_image_side(). The commit mark.
	 */
	uint64_t used;
};

#define DS_IMAGE_SIDE UINT64_C(1)

/* Flags of a record */
#define DS_IMAGE_REMOVED 1

struct ds_image_record {
	uint32_t type;
	/* of the data that follows, padded with zeros to 8 bytes */
	uint32_t length;
	uint64_t key;
	/* DS_IMAGE_REMOVED: there is none of this type and key any more */
	uint32_t flags;
	/* of all above and the data */
	uint32_t sum;
};

/* A record that counts, for readers */
struct ds_image_entry {
	uint32_t type;
	uint32_t flags;
	uint64_t key;
	/* records of one type are returned in the order they came in first */
	size_t order;
	DATA_BLOB data;
};

struct ds_image {
	int fd;
	uint8_t *map;
	size_t size;
	bool writer;

	/* writers: the log that is written, the end of what is in it */
	size_t log;
	size_t staged;
	/* it is not the one that counts yet */
	bool rewriting;
	/* what it took when it was new, so about what its records take */
	size_t live;

	/* readers */
	struct ds_image_entry *entries;
	size_t num_entries;
};

static struct ds_image_header *ds_image_header(const struct ds_image *image)
{
	return (struct ds_image_header *)image->map;
}

static struct ds_image_log *ds_image_log(const struct ds_image *image,
					 size_t log)
{
	return (struct ds_image_log *)(image->map + log);
}

static size_t ds_image_used(const struct ds_image *image, size_t log)
{
	return ds_image_log(image, log)->used & ~DS_IMAGE_SIDE;
}

unsigned int ds_image_side(const struct ds_image *image)
{
	size_t log = ds_image_header(image)->log;

	return ds_image_log(image, log)->used & DS_IMAGE_SIDE;
}

static size_t ds_image_padded(size_t length)
{
	return (length + 7) & ~(size_t)7;
}

/*
 * A sum that tells damage. It is made for each record that is put, most of
 * which are short: a CRC takes longer than all else. Every step can be
 * undone, so a change within one word is never lost before the end.
 */
static uint64_t ds_image_add(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return sum ^ (sum >> 32);
}

static uint32_t ds_image_record_sum(const struct ds_image_record *record)
{
	const uint8_t *data = (const uint8_t *)(record + 1);
	size_t length = ds_image_padded(record->length);
	uint64_t sum = DS_IMAGE_MAGIC;
	uint64_t word;
	size_t i;

	sum = ds_image_add(sum, record->type);
	sum = ds_image_add(sum, record->length);
	sum = ds_image_add(sum, record->key);
	sum = ds_image_add(sum, record->flags);
	for (i = 0; i < length; i += sizeof(word)) {
		memcpy(&word, data + i, sizeof(word));
		sum = ds_image_add(sum, word);
	}
	return sum;
}

static uint32_t ds_image_seal(const struct ds_image *image)
{
	const struct ds_image_header *header = ds_image_header(image);
	const struct ds_image_log *log = ds_image_log(image, header->log);
	uint64_t sum = header->magic;
	uint32_t seal;

	sum = ds_image_add(sum, header->version);
	sum = ds_image_add(sum, header->log);
	seal = ds_image_add(sum, log->used);
	return (seal != 0) ? seal : 1;
}

static int ds_image_destructor(struct ds_image *image)
{
	if (image->map != NULL) {
		munmap(image->map, image->size);
	}
	if (image->writer && (image->fd != -1)) {
		close(image->fd);
	}
	return 0;
}

/*
 * There are keys in it, which must not get into a core dump.
 */
static void ds_image_no_dump(const struct ds_image *image)
{
	(void)madvise(image->map, image->size, MADV_DONTDUMP);
}

int ds_image_create(TALLOC_CTX *mem_ctx, struct ds_image **_image)
{
	struct ds_image *image = NULL;
	int ret;

	image = talloc(mem_ctx, struct ds_image);
	if (image == NULL) {
		return ENOMEM;
	}
	*image = (struct ds_image) {
		.size = DS_IMAGE_CHUNK,
		.fd = -1,
		.writer = true,
		.log = sizeof(struct ds_image_header),
	};
	image->live = sizeof(struct ds_image_log);
	image->staged = image->log + image->live;
	talloc_set_destructor(image, ds_image_destructor);

	image->fd = memfd_create("durable_state image",
				 MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (image->fd == -1) {
		goto fail;
	}
	ret = ftruncate(image->fd, image->size);
	if (ret == -1) {
		goto fail;
	}
	image->map = mmap(NULL,
			  image->size,
			  PROT_READ | PROT_WRITE,
			  MAP_SHARED,
			  image->fd,
			  0);
	if (image->map == MAP_FAILED) {
		image->map = NULL;
		goto fail;
	}
	ds_image_no_dump(image);

	*ds_image_header(image) = (struct ds_image_header) {
		.magic = DS_IMAGE_MAGIC,
		.version = DS_IMAGE_VERSION,
		.log = image->log,
	};
	ds_image_log(image, image->log)->used = image->live;

	*_image = image;
	return 0;
fail:
	ret = errno;
	TALLOC_FREE(image);
	return ret;
}

static int ds_image_grow(struct ds_image *image, size_t needed)
{
	size_t size = image->size;
	void *map = NULL;
	int ret;

	while (size < needed) {
		/* doubling keeps the copies of a large client few */
		size *= 2;
	}
	if (size == image->size) {
		return 0;
	}

	ret = ftruncate(image->fd, size);
	if (ret == -1) {
		return ENOMEM;
	}
	map = mremap(image->map, image->size, size, MREMAP_MAYMOVE);
	if (map == MAP_FAILED) {
		return ENOMEM;
	}
	image->map = map;
	image->size = size;
	ds_image_no_dump(image);
	return 0;
}

/*
 * All stores before are done when this one is, and none that follows is
 * done before it: memory that counted until now may be used for something
 * else then. A writer that is killed has done its instructions in their
 * order, so it is only the compiler that has to be told.
 */
static void ds_image_mark(uint64_t *mark, uint64_t value)
{
	__atomic_store_n(mark, value, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/*
 * Where the log that counts ends
 */
static size_t ds_image_end(const struct ds_image *image)
{
	size_t log = ds_image_header(image)->log;

	return log + ds_image_used(image, log);
}

/*
 * Room for so many more bytes, and for the beginning of a new log behind
 * them: a rewrite does not fail before something is put. A new log begins
 * in front of the one that counts where it is likely to fit, and moves
 * behind it where it does not.
 */
static int ds_image_room(struct ds_image *image, size_t length)
{
	size_t old = ds_image_header(image)->log;
	size_t written = image->staged - image->log;
	size_t log = image->log;
	int ret;

	if (image->rewriting &&
	    (log < old) &&
	    (image->staged + length > old))
	{
		log = ds_image_end(image);
	}

	ret = ds_image_grow(
		image,
		log + written + length + sizeof(struct ds_image_log));
	if (ret != 0) {
		return ret;
	}
	if (log != image->log) {
		memcpy(image->map + log, image->map + image->log, written);
		image->log = log;
		image->staged = log + written;
	}
	return 0;
}

static int ds_image_stage(struct ds_image *image,
			  const struct ds_image_record *head,
			  const uint8_t *data)
{
	struct ds_image_record *record = NULL;
	size_t padded = ds_image_padded(head->length);
	uint8_t *p = NULL;
	int ret;

	ret = ds_image_room(image, sizeof(*record) + padded);
	if (ret != 0) {
		return ret;
	}

	record = (struct ds_image_record *)(image->map + image->staged);
	*record = *head;
	p = (uint8_t *)(record + 1);
	if (head->length != 0) {
		memset(p + padded - 8, 0, 8);
		memcpy(p, data, head->length);
	}
	record->sum = ds_image_record_sum(record);
	image->staged += sizeof(*record) + padded;
	return 0;
}

int ds_image_put(struct ds_image *image,
		 uint32_t type,
		 uint64_t key,
		 DATA_BLOB data)
{
	struct ds_image_record record = { .type = type, .key = key, };

	if (data.length >= UINT32_MAX) {
		return EMSGSIZE;
	}
	record.length = data.length;
	return ds_image_stage(image, &record, data.data);
}

int ds_image_remove(struct ds_image *image, uint32_t type, uint64_t key)
{
	struct ds_image_record record = {
		.type = type, .key = key, .flags = DS_IMAGE_REMOVED,
	};

	return ds_image_stage(image, &record, NULL);
}

void ds_image_commit(struct ds_image *image)
{
	struct ds_image_header *header = ds_image_header(image);
	size_t used = image->staged - image->log;
	unsigned int side = ds_image_side(image) ^ DS_IMAGE_SIDE;

	if (header->complete != 0) {
		/* the seal would not fit, which looks like damage */
		__atomic_store_n(&header->complete, 0, __ATOMIC_RELEASE);
	}

	ds_image_mark(&ds_image_log(image, image->log)->used, used | side);
	if (image->rewriting) {
		ds_image_mark(&header->log, image->log);
		image->rewriting = false;
		image->live = used;
	}
	if (image->live == sizeof(struct ds_image_log)) {
		image->live = used;
	}
}

void ds_image_cancel(struct ds_image *image)
{
	image->rewriting = false;
	image->log = ds_image_header(image)->log;
	image->staged = ds_image_end(image);
}

void ds_image_rewrite(struct ds_image *image)
{
	size_t front = sizeof(struct ds_image_header);
	size_t end;

	ds_image_cancel(image);
	end = image->staged;

	image->rewriting = true;
	/* it may still turn out to be too long: ds_image_room() */
	if (image->log - front < image->live + sizeof(struct ds_image_log)) {
		front = end;
	}
	image->log = front;
	image->staged = front + sizeof(struct ds_image_log);
}

bool ds_image_is_long(const struct ds_image *image)
{
	size_t length = image->staged - image->log;

	return !image->rewriting &&
	       (length > 2 * image->live + DS_IMAGE_SLACK);
}

void ds_image_complete(struct ds_image *image)
{
	__atomic_store_n(&ds_image_header(image)->complete,
			 ds_image_seal(image),
			 __ATOMIC_RELEASE);
}

static int ds_image_cmp_key(const struct ds_image_entry *a,
			    const struct ds_image_entry *b)
{
	if (a->type != b->type) {
		return NUMERIC_CMP(a->type, b->type);
	}
	if (a->key != b->key) {
		return NUMERIC_CMP(a->key, b->key);
	}
	return NUMERIC_CMP(a->order, b->order);
}

static int ds_image_cmp_order(const struct ds_image_entry *a,
			      const struct ds_image_entry *b)
{
	if (a->type != b->type) {
		return NUMERIC_CMP(a->type, b->type);
	}
	return NUMERIC_CMP(a->order, b->order);
}

/*
 * Of all records of a type and key the last one counts, where the first one
 * after a removal stood.
 */
static void ds_image_sort(struct ds_image *image)
{
	size_t num = 0;
	size_t i;

	TYPESAFE_QSORT(image->entries, image->num_entries, ds_image_cmp_key);

	for (i = 0; i < image->num_entries; i++) {
		struct ds_image_entry *e = &image->entries[i];
		struct ds_image_entry *last = &image->entries[num];

		if ((num > 0) &&
		    (last[-1].type == e->type) && (last[-1].key == e->key))
		{
			if (!(last[-1].flags & DS_IMAGE_REMOVED)) {
				e->order = last[-1].order;
			}
			last -= 1;
			num -= 1;
		}
		*last = *e;
		num += 1;
	}

	image->num_entries = 0;
	for (i = 0; i < num; i++) {
		if (!(image->entries[i].flags & DS_IMAGE_REMOVED)) {
			image->entries[image->num_entries] = image->entries[i];
			image->num_entries += 1;
		}
	}
	TYPESAFE_QSORT(image->entries, image->num_entries, ds_image_cmp_order);
}

static int ds_image_add_entry(struct ds_image *image,
			      const struct ds_image_record *record)
{
	size_t num = image->num_entries;

	if (num == talloc_array_length(image->entries)) {
		struct ds_image_entry *entries = talloc_realloc(
			image,
			image->entries,
			struct ds_image_entry,
			MAX(16, 2 * num));

		if (entries == NULL) {
			return ENOMEM;
		}
		image->entries = entries;
	}
	image->entries[num] = (struct ds_image_entry) {
		.type = record->type,
		.flags = record->flags,
		.key = record->key,
		.order = num,
		.data = data_blob_const(record + 1, record->length),
	};
	image->num_entries += 1;
	return 0;
}

static int ds_image_check_header(const struct ds_image *image, bool live)
{
	const struct ds_image_header *header = ds_image_header(image);
	size_t used;

	if (header->magic != DS_IMAGE_MAGIC) {
		return EBADMSG;
	}
	if (header->version != DS_IMAGE_VERSION) {
		return EPROTONOSUPPORT;
	}
	if ((header->complete == 0) && !live) {
		return ENODATA;
	}
	if ((header->log < sizeof(*header)) ||
	    (header->log > image->size - sizeof(struct ds_image_log)) ||
	    (header->log % 8 != 0))
	{
		return EBADMSG;
	}
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
	if ((header->complete != 0) &&
	    (header->complete != ds_image_seal(image)))
	{
		return EBADMSG;
	}
#endif
	used = ds_image_used(image, header->log);
	if ((used < sizeof(struct ds_image_log)) || (used % 8 != 0) ||
	    (used > image->size - header->log))
	{
		return EBADMSG;
	}
	return 0;
}

static int ds_image_read(struct ds_image *image)
{
	size_t pos = ds_image_header(image)->log + sizeof(struct ds_image_log);
	size_t end = ds_image_end(image);

	while (pos < end) {
		const struct ds_image_record *record = NULL;
		size_t left = end - pos;
		int ret;

		if (left < sizeof(*record)) {
			return EBADMSG;
		}
		record = (const struct ds_image_record *)(image->map + pos);
		left -= sizeof(*record);

		if (ds_image_padded(record->length) > left) {
			return EBADMSG;
		}
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
		if (record->sum != ds_image_record_sum(record)) {
			return EBADMSG;
		}
#endif
		ret = ds_image_add_entry(image, record);
		if (ret != 0) {
			return ret;
		}
		pos += sizeof(*record) + ds_image_padded(record->length);
	}
	ds_image_sort(image);
	return 0;
}

static int ds_image_map(TALLOC_CTX *mem_ctx,
			int fd,
			bool live,
			struct ds_image **_image)
{
	struct ds_image *image = NULL;
	struct stat st;
	int ret;

	ret = fstat(fd, &st);
	if (ret == -1) {
		return errno;
	}
	if (!S_ISREG(st.st_mode) ||
	    (st.st_size < (off_t)(sizeof(struct ds_image_header) +
				  sizeof(struct ds_image_log))))
	{
		return EBADMSG;
	}

	image = talloc(mem_ctx, struct ds_image);
	if (image == NULL) {
		return ENOMEM;
	}
	*image = (struct ds_image) { .fd = fd, .size = st.st_size, };
	talloc_set_destructor(image, ds_image_destructor);

	image->map = mmap(NULL,
			  image->size,
			  PROT_READ | PROT_WRITE,
			  MAP_SHARED,
			  fd,
			  0);
	if (image->map == MAP_FAILED) {
		ret = errno;
		image->map = NULL;
		TALLOC_FREE(image);
		return ret;
	}
	ds_image_no_dump(image);

	ret = ds_image_check_header(image, live);
	if (ret == 0) {
		ret = ds_image_read(image);
	}
	if (ret != 0) {
		TALLOC_FREE(image);
		return ret;
	}

	*_image = image;
	return 0;
}

int ds_image_open(TALLOC_CTX *mem_ctx, int fd, struct ds_image **image)
{
	return ds_image_map(mem_ctx, fd, false, image);
}

int ds_image_open_live(TALLOC_CTX *mem_ctx, int fd, struct ds_image **image)
{
	return ds_image_map(mem_ctx, fd, true, image);
}

bool ds_image_next(const struct ds_image *image,
		   size_t *pos,
		   uint32_t *type,
		   uint64_t *key,
		   DATA_BLOB *data)
{
	const struct ds_image_entry *e = NULL;

	if (*pos >= image->num_entries) {
		return false;
	}
	e = &image->entries[*pos];
	*type = e->type;
	*key = e->key;
	*data = e->data;
	*pos += 1;
	return true;
}

int ds_image_fd(const struct ds_image *image)
{
	return image->fd;
}

uint8_t *ds_image_notes(const struct ds_image *image)
{
	return ds_image_header(image)->notes;
}

size_t ds_image_size(const struct ds_image *image)
{
	return sizeof(struct ds_image_header) +
	       ds_image_used(image, ds_image_header(image)->log);
}

void ds_image_wipe(struct ds_image *image)
{
	memset_s(image->map, image->size, 0, image->size);
	image->num_entries = 0;
}
