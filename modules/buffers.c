/*
   durable_state: buffers of requests and replies

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
#include "lib/util/dlinklist.h"
#include "lib/util/tsort.h"
#include "buffers.h"

/* Address space, and with it how long the file can become */
#define DS_BUFFERS_ROOM ((size_t)1024 * 1024 * 1024)

/* What the file grows by at least: not a system call for every block */
#define DS_BUFFERS_STEP ((size_t)1024 * 1024)

/* Blocks are of 512 << class bytes, and aligned to that */
#define DS_BUFFERS_UNIT_SHIFT 9
#define DS_BUFFERS_CLASSES 16
#define DS_BUFFERS_MAX \
	((size_t)1 << (DS_BUFFERS_UNIT_SHIFT + DS_BUFFERS_CLASSES - 1))

/* Free blocks below 64 KiB are not worth a system call: ds_buffers_trim() */
#define DS_BUFFERS_PUNCH_CLASS 7

struct ds_buffers_class {
	/*
	 * Where the free blocks begin, in units of 512 bytes. The last one
	 * is taken first: it is the one that is in the cache.
	 */
	uint32_t *units;
	size_t num;
	/*
	 * All blocks of the class, free or not. There is always room for
	 * so many units, so freeing a block cannot fail.
	 */
	size_t total;
};

/* A block in use, a child of who uses it */
struct ds_buffer {
	struct ds_buffer *prev, *next;
	/* NULL if they are gone */
	struct ds_buffers *b;
	uint32_t unit;
	unsigned int class;
};

struct ds_buffers {
	int fd;
	uint8_t *map;
	size_t mapped;
	/* the length of the file */
	size_t size;
	bool writer;

	/* writers: units below it belong to a block, none above it does */
	uint32_t end;
	struct ds_buffers_class classes[DS_BUFFERS_CLASSES];
	struct ds_buffer *used;
	/* bytes that were freed since free blocks were joined, or trimmed */
	size_t freed;
	size_t untrimmed;
};

static uint32_t ds_buffers_units(unsigned int class)
{
	return (uint32_t)1 << class;
}

static size_t ds_buffers_bytes(uint32_t units)
{
	return (size_t)units << DS_BUFFERS_UNIT_SHIFT;
}

static int ds_buffers_destructor(struct ds_buffers *b)
{
	struct ds_buffer *buffer = NULL;

	while ((buffer = b->used) != NULL) {
		DLIST_REMOVE(b->used, buffer);
		buffer->b = NULL;
	}
	if (b->map != NULL) {
		munmap(b->map, b->mapped);
	}
	if (b->writer && (b->fd != -1)) {
		close(b->fd);
	}
	return 0;
}

static int ds_buffers_map(struct ds_buffers *b)
{
	b->map = mmap(NULL,
		      b->mapped,
		      PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_NORESERVE,
		      b->fd,
		      0);
	if (b->map == MAP_FAILED) {
		b->map = NULL;
		return errno;
	}
	/* what clients read and write must not get into a core dump */
	(void)madvise(b->map, b->mapped, MADV_DONTDUMP);
	return 0;
}

int ds_buffers_create(TALLOC_CTX *mem_ctx, struct ds_buffers **_b)
{
	struct ds_buffers *b = NULL;
	int ret;

	b = talloc(mem_ctx, struct ds_buffers);
	if (b == NULL) {
		return ENOMEM;
	}
	*b = (struct ds_buffers) {
		.fd = -1, .mapped = DS_BUFFERS_ROOM, .writer = true,
	};
	talloc_set_destructor(b, ds_buffers_destructor);

	b->fd = memfd_create("durable_state buffers",
			     MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->fd == -1) {
		ret = errno;
		TALLOC_FREE(b);
		return ret;
	}
	ret = ds_buffers_map(b);
	if (ret != 0) {
		TALLOC_FREE(b);
		return ret;
	}
	/* two processes that allocate from it would not know of each other */
	(void)madvise(b->map, b->mapped, MADV_DONTFORK);

	*_b = b;
	return 0;
}

/* ---- free blocks */

static bool ds_buffers_reserve(struct ds_buffers *b,
			       unsigned int class,
			       size_t num)
{
	struct ds_buffers_class *c = &b->classes[class];
	size_t length = talloc_array_length(c->units);
	uint32_t *units = NULL;

	if (c->total + num <= length) {
		return true;
	}
	units = talloc_realloc(
		b, c->units, uint32_t, MAX(2 * length, c->total + num + 16));
	if (units == NULL) {
		return false;
	}
	c->units = units;
	return true;
}

static void ds_buffers_push(struct ds_buffers *b,
			    unsigned int class,
			    uint32_t unit)
{
	struct ds_buffers_class *c = &b->classes[class];

	c->units[c->num] = unit;
	c->num += 1;
}

/*
 * A free block of the class by halving a larger one
 */
static bool ds_buffers_split(struct ds_buffers *b, unsigned int class)
{
	unsigned int i = class + 1;

	while ((i < DS_BUFFERS_CLASSES) && (b->classes[i].num == 0)) {
		i += 1;
	}
	if (i == DS_BUFFERS_CLASSES) {
		return false;
	}

	for (; i > class; i--) {
		struct ds_buffers_class *c = &b->classes[i];
		uint32_t unit;

		if (!ds_buffers_reserve(b, i - 1, 2)) {
			return false;
		}
		c->num -= 1;
		c->total -= 1;
		unit = c->units[c->num];

		b->classes[i - 1].total += 2;
		ds_buffers_push(b, i - 1, unit + ds_buffers_units(i - 1));
		ds_buffers_push(b, i - 1, unit);
	}
	return true;
}

static int ds_buffers_cmp_unit(const uint32_t *a, const uint32_t *b)
{
	/* the first in memory are taken first, so the end becomes free */
	return NUMERIC_CMP(*b, *a);
}

/*
 * Join what was once halved. On return the free blocks of a class are
 * sorted, the last in memory comes first.
 */
static void ds_buffers_join(struct ds_buffers *b)
{
	unsigned int i;

	for (i = 0; i < DS_BUFFERS_CLASSES; i++) {
		struct ds_buffers_class *c = &b->classes[i];
		uint32_t size = ds_buffers_units(i);
		size_t num = 0;
		size_t j;

		TYPESAFE_QSORT(c->units, c->num, ds_buffers_cmp_unit);
		if (i == DS_BUFFERS_CLASSES - 1) {
			break;
		}

		for (j = 0; j < c->num; j++) {
			uint32_t unit = c->units[j];

			if ((j + 1 < c->num) &&
			    (c->units[j + 1] == unit - size) &&
			    ((unit & size) != 0) &&
			    ds_buffers_reserve(b, i + 1, 1))
			{
				b->classes[i + 1].total += 1;
				ds_buffers_push(b, i + 1, unit - size);
				c->total -= 2;
				j += 1;
				continue;
			}
			c->units[num] = unit;
			num += 1;
		}
		c->num = num;
	}
	b->freed = 0;
}

/*
 * A free block of the class behind all others
 */
static bool ds_buffers_grow(struct ds_buffers *b, unsigned int class)
{
	uint32_t units = ds_buffers_units(class);
	uint32_t start = (b->end + units - 1) & ~(units - 1);
	size_t needed = ds_buffers_bytes(start + units);

	if (needed > DS_BUFFERS_ROOM) {
		return false;
	}
	if (needed > b->size) {
		size_t size = (needed + DS_BUFFERS_STEP - 1) &
			      ~(DS_BUFFERS_STEP - 1);
		int ret;

		ret = ftruncate(b->fd, size);
		if (ret == -1) {
			return false;
		}
		b->size = size;
	}

	while (b->end < start + units) {
		/* up to where the block begins, one of each class it takes */
		unsigned int i = class;

		if (b->end < start) {
			i = __builtin_ctz(b->end);
		}
		if (!ds_buffers_reserve(b, i, 1)) {
			return false;
		}
		b->classes[i].total += 1;
		ds_buffers_push(b, i, b->end);
		b->end += ds_buffers_units(i);
	}
	return true;
}

/*
 * There is no free block of the class: make one.
 */
static bool ds_buffers_provide(struct ds_buffers *b, unsigned int class)
{
	size_t length = ds_buffers_bytes(ds_buffers_units(class));

	if (ds_buffers_split(b, class)) {
		return true;
	}
	if (b->freed >= MAX(length, DS_BUFFERS_STEP)) {
		/* so much is not looked through for nothing each time */
		ds_buffers_join(b);
		if ((b->classes[class].num > 0) ||
		    ds_buffers_split(b, class))
		{
			return true;
		}
	}
	return ds_buffers_grow(b, class);
}

/* ---- blocks in use */

static void ds_buffers_free(struct ds_buffers *b,
			    unsigned int class,
			    uint32_t unit)
{
	size_t length = ds_buffers_bytes(ds_buffers_units(class));

	ds_buffers_push(b, class, unit);
	b->freed += length;
	if (class >= DS_BUFFERS_PUNCH_CLASS) {
		b->untrimmed += length;
	}
}

static int ds_buffer_destructor(struct ds_buffer *buffer)
{
	if (buffer->b == NULL) {
		return 0;
	}
	DLIST_REMOVE(buffer->b->used, buffer);
	ds_buffers_free(buffer->b, buffer->class, buffer->unit);
	return 0;
}

static unsigned int ds_buffers_class(size_t length)
{
	size_t units = (length - 1) >> DS_BUFFERS_UNIT_SHIFT;

	if ((length == 0) || (units == 0)) {
		return 0;
	}
	return 8 * sizeof(long) - __builtin_clzl(units);
}

/*
 * A block of the class that nobody has
 */
static bool ds_buffers_pop(struct ds_buffers *b,
			   unsigned int class,
			   uint32_t *unit)
{
	struct ds_buffers_class *c = &b->classes[class];

	if ((c->num == 0) && !ds_buffers_provide(b, class)) {
		return false;
	}
	c->num -= 1;
	*unit = c->units[c->num];
	return true;
}

void *ds_buffers_alloc(struct ds_buffers *b,
		       TALLOC_CTX *owner,
		       size_t length)
{
	struct ds_buffer *buffer = NULL;
	unsigned int class;
	uint32_t unit;

	if (length > DS_BUFFERS_MAX) {
		return NULL;
	}
	buffer = talloc(owner, struct ds_buffer);
	if (buffer == NULL) {
		return NULL;
	}
	class = ds_buffers_class(length);
	if (!ds_buffers_pop(b, class, &unit)) {
		TALLOC_FREE(buffer);
		return NULL;
	}
	*buffer = (struct ds_buffer) {
		.b = b, .unit = unit, .class = class,
	};
	DLIST_ADD(b->used, buffer);
	talloc_set_destructor(buffer, ds_buffer_destructor);
	return b->map + ds_buffers_bytes(unit);
}

void *ds_buffers_take(struct ds_buffers *b, size_t length)
{
	uint32_t unit;

	if ((length > DS_BUFFERS_MAX) ||
	    !ds_buffers_pop(b, ds_buffers_class(length), &unit))
	{
		return NULL;
	}
	return b->map + ds_buffers_bytes(unit);
}

void ds_buffers_give(struct ds_buffers *b, void *p, size_t length)
{
	size_t offset = (uint8_t *)p - b->map;

	ds_buffers_free(b,
			ds_buffers_class(length),
			offset >> DS_BUFFERS_UNIT_SHIFT);
}

/*
 * Drop the free blocks at the end. The last one in memory comes first in
 * every class.
 */
static void ds_buffers_cut(struct ds_buffers *b)
{
	size_t num_cut[DS_BUFFERS_CLASSES] = { 0 };
	unsigned int i = 0;

	while (i < DS_BUFFERS_CLASSES) {
		const struct ds_buffers_class *c = &b->classes[i];
		size_t num = num_cut[i];

		if ((num < c->num) &&
		    (c->units[num] + ds_buffers_units(i) == b->end))
		{
			b->end = c->units[num];
			num_cut[i] += 1;
			/* before it may be one of any class */
			i = 0;
			continue;
		}
		i += 1;
	}

	for (i = 0; i < DS_BUFFERS_CLASSES; i++) {
		struct ds_buffers_class *c = &b->classes[i];

		if (num_cut[i] == 0) {
			continue;
		}
		c->num -= num_cut[i];
		c->total -= num_cut[i];
		memmove(c->units,
			c->units + num_cut[i],
			c->num * sizeof(c->units[0]));
	}
}

void ds_buffers_trim(struct ds_buffers *b)
{
	unsigned int i;
	int ret;

	ds_buffers_join(b);
	ds_buffers_cut(b);
	b->untrimmed = 0;

	if (b->size > ds_buffers_bytes(b->end)) {
		ret = ftruncate(b->fd, ds_buffers_bytes(b->end));
		if (ret == 0) {
			b->size = ds_buffers_bytes(b->end);
		}
	}

	/* one request that waits for long may stand at the end */
	for (i = DS_BUFFERS_PUNCH_CLASS; i < DS_BUFFERS_CLASSES; i++) {
		const struct ds_buffers_class *c = &b->classes[i];
		size_t j;

		for (j = 0; j < c->num; j++) {
			(void)fallocate(b->fd,
					FALLOC_FL_PUNCH_HOLE |
						FALLOC_FL_KEEP_SIZE,
					ds_buffers_bytes(c->units[j]),
					ds_buffers_bytes(ds_buffers_units(i)));
		}
	}
}

size_t ds_buffers_freed(const struct ds_buffers *b)
{
	return b->untrimmed;
}

/* ---- readers and both */

int ds_buffers_open(TALLOC_CTX *mem_ctx, int fd, struct ds_buffers **_b)
{
	struct ds_buffers *b = NULL;
	struct stat st;
	int ret;

	ret = fstat(fd, &st);
	if (ret == -1) {
		return errno;
	}
	if (!S_ISREG(st.st_mode) || (st.st_size > (off_t)DS_BUFFERS_ROOM)) {
		return EBADMSG;
	}

	b = talloc(mem_ctx, struct ds_buffers);
	if (b == NULL) {
		return ENOMEM;
	}
	*b = (struct ds_buffers) {
		.fd = fd, .mapped = st.st_size, .size = st.st_size,
	};
	talloc_set_destructor(b, ds_buffers_destructor);

	if (b->size != 0) {
		ret = ds_buffers_map(b);
		if (ret != 0) {
			TALLOC_FREE(b);
			return ret;
		}
	}

	*_b = b;
	return 0;
}

/*
 * What can be looked at
 */
static size_t ds_buffers_length(const struct ds_buffers *b)
{
	return b->writer ? ds_buffers_bytes(b->end) : b->size;
}

bool ds_buffers_find(const struct ds_buffers *b,
		     const void *_p,
		     size_t length,
		     uint64_t *offset)
{
	uintptr_t p = (uintptr_t)_p;
	uintptr_t map = (uintptr_t)b->map;

	if ((p < map) || (ds_buffers_at(b, p - map, length) == NULL)) {
		return false;
	}
	*offset = p - map;
	return true;
}

const uint8_t *ds_buffers_at(const struct ds_buffers *b,
			     uint64_t offset,
			     size_t length)
{
	size_t end = ds_buffers_length(b);

	if ((offset > end) || (length > end - offset) || (b->map == NULL)) {
		return NULL;
	}
	return b->map + offset;
}

int ds_buffers_fd(const struct ds_buffers *b)
{
	return b->fd;
}

void ds_buffers_wipe(struct ds_buffers *b)
{
	int ret;

	if (b->size == 0) {
		return;
	}
	/* not by writing: that would fill what was never used with pages */
	ret = fallocate(b->fd,
			FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			0,
			b->size);
	if (ret == -1) {
		memset_s(b->map, b->size, 0, b->size);
	}
}
