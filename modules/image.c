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
#include <zlib.h>
#include "lib/util/time.h"
#include "durable_state/durable_state.h"
#include "image.h"

#define DS_IMAGE_MAGIC UINT64_C(0x44535f494d414745)

/* What the image grows by: most clients need one */
#define DS_IMAGE_CHUNK (64 * 1024)

/*
 * Both structs are read from shared memory as they are: the same machine
 * wrote them, or the version differs.
 */
struct ds_image_header {
	uint64_t magic;
	uint32_t version;
	/* 0 while records may follow, then the CRC of the other fields */
	uint32_t complete;
	/* bytes that count, this header included; the commit mark */
	uint64_t used;
};

struct ds_image_record {
	uint32_t type;
	/* of the data that follows, padded to 8 bytes */
	uint32_t length;
	/* of type, length and data */
	uint32_t crc;
	uint32_t reserved;
};

struct ds_image {
	int fd;
	uint8_t *map;
	size_t size;
	bool writer;
};

static struct ds_image_header *ds_image_header(const struct ds_image *image)
{
	return (struct ds_image_header *)image->map;
}

static size_t ds_image_padded(size_t length)
{
	return (length + 7) & ~(size_t)7;
}

static uint32_t ds_image_crc(const struct ds_image_record *record,
			     const uint8_t *data)
{
	uLong crc = crc32(0, Z_NULL, 0);

	crc = crc32(crc, (const Bytef *)&record->type, sizeof(record->type));
	crc = crc32(crc,
		    (const Bytef *)&record->length,
		    sizeof(record->length));
	return crc32(crc, data, record->length);
}

static uint32_t ds_image_seal(const struct ds_image_header *header)
{
	uLong crc = crc32(0, Z_NULL, 0);

	crc = crc32(crc,
		    (const Bytef *)&header->magic,
		    sizeof(header->magic));
	crc = crc32(crc,
		    (const Bytef *)&header->version,
		    sizeof(header->version));
	crc = crc32(crc, (const Bytef *)&header->used, sizeof(header->used));
	return (crc != 0) ? crc : 1;
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
		.size = DS_IMAGE_CHUNK, .fd = -1, .writer = true,
	};
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
		.used = sizeof(struct ds_image_header),
	};

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

int ds_image_append(struct ds_image *image, uint32_t type, DATA_BLOB data)
{
	struct ds_image_record *record = NULL;
	size_t used = ds_image_header(image)->used;
	size_t end;
	int ret;

	if (data.length >= UINT32_MAX) {
		return EMSGSIZE;
	}
	end = used + sizeof(*record) + ds_image_padded(data.length);

	ret = ds_image_grow(image, end);
	if (ret != 0) {
		return ret;
	}

	record = (struct ds_image_record *)(image->map + used);
	*record = (struct ds_image_record) {
		.type = type,
		.length = data.length,
	};
	if (data.length != 0) {
		memcpy(record + 1, data.data, data.length);
	}
	record->crc = ds_image_crc(record, (const uint8_t *)(record + 1));

	/* whoever sees the new length sees the record too */
	__atomic_store_n(
		&ds_image_header(image)->used, end, __ATOMIC_RELEASE);
	return 0;
}

void ds_image_complete(struct ds_image *image)
{
	struct ds_image_header *header = ds_image_header(image);

	__atomic_store_n(
		&header->complete, ds_image_seal(header), __ATOMIC_RELEASE);
}

static int ds_image_check(const struct ds_image *image)
{
	const struct ds_image_header *header = ds_image_header(image);
	size_t pos = sizeof(*header);

	if (image->size < sizeof(*header)) {
		return EBADMSG;
	}
	if (header->magic != DS_IMAGE_MAGIC) {
		return EBADMSG;
	}
	if (header->version != DS_IMAGE_VERSION) {
		return EPROTONOSUPPORT;
	}
	if (header->complete == 0) {
		return ENODATA;
	}
	if (header->complete != ds_image_seal(header)) {
		return EBADMSG;
	}
	if ((header->used < sizeof(*header)) ||
	    (header->used > image->size))
	{
		return EBADMSG;
	}

	while (pos < header->used) {
		const struct ds_image_record *record = NULL;
		size_t left = header->used - pos;

		if (left < sizeof(*record)) {
			return EBADMSG;
		}
		record = (const struct ds_image_record *)(image->map + pos);
		left -= sizeof(*record);

		if (ds_image_padded(record->length) > left) {
			return EBADMSG;
		}
		if (record->crc !=
		    ds_image_crc(record, (const uint8_t *)(record + 1)))
		{
			return EBADMSG;
		}
		pos += sizeof(*record) + ds_image_padded(record->length);
	}
	return 0;
}

int ds_image_open(TALLOC_CTX *mem_ctx, int fd, struct ds_image **_image)
{
	struct ds_image *image = NULL;
	struct stat st;
	int ret;

	ret = fstat(fd, &st);
	if (ret == -1) {
		return errno;
	}
	if (!S_ISREG(st.st_mode) ||
	    (st.st_size < (off_t)sizeof(struct ds_image_header)))
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

	ret = ds_image_check(image);
	if (ret != 0) {
		TALLOC_FREE(image);
		return ret;
	}

	*_image = image;
	return 0;
}

bool ds_image_next(const struct ds_image *image,
		   size_t *pos,
		   uint32_t *type,
		   DATA_BLOB *data)
{
	const struct ds_image_header *header = ds_image_header(image);
	const struct ds_image_record *record = NULL;

	if (*pos == 0) {
		*pos = sizeof(*header);
	}
	if (*pos >= header->used) {
		return false;
	}

	record = (const struct ds_image_record *)(image->map + *pos);
	*type = record->type;
	*data = data_blob_const(record + 1, record->length);
	*pos += sizeof(*record) + ds_image_padded(record->length);
	return true;
}

int ds_image_fd(const struct ds_image *image)
{
	return image->fd;
}

size_t ds_image_size(const struct ds_image *image)
{
	return ds_image_header(image)->used;
}

void ds_image_wipe(struct ds_image *image)
{
	memset_s(image->map, image->size, 0, image->size);
}
