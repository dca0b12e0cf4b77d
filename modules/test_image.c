/*
   durable_state: tests of the image of a client

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
#include <setjmp.h>
#include <cmocka.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include "system/filesys.h"
#include "system/dir.h"
#include "system/shmem.h"
#include "system/wait.h"
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif
#include "image.h"

/* What an image begins with and grows by */
#define CHUNK (64 * 1024)

/* Of the log, of the image with the log in it, of a record */
#define LOG_SIZE 8
#define NOTES_OFFSET 24
#define HEADER_SIZE (NOTES_OFFSET + DS_IMAGE_NOTES + LOG_SIZE)
#define RECORD_SIZE 24

/* Where in the image it says where the log is */
#define LOG_POS 16

static size_t num_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t num = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL) {
		num += 1;
	}
	closedir(dir);
	return num;
}

struct test {
	struct ds_image *image;
	size_t num_open;
};

static int setup(void **state)
{
	struct test *t = talloc_zero(NULL, struct test);

	assert_non_null(t);
	t->num_open = num_open_fds();
	assert_int_equal(ds_image_create(t, &t->image), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	TALLOC_FREE(t->image);
	assert_int_equal(num_open_fds(), t->num_open);
	TALLOC_FREE(t);
	return 0;
}

/* ---- records that know from their number what must be in them */

static void fill(uint8_t *data, size_t length, size_t number)
{
	size_t i;

	for (i = 0; i < length; i++) {
		data[i] = 1 + (i * 7 + number * 31) % 255;
	}
}

static uint32_t type_of(size_t number)
{
	return 0x1000 + number;
}

static uint64_t key_of(size_t number)
{
	return UINT64_C(0xfedcba9876543210) * number;
}

static int put(struct ds_image *image,
	       uint32_t type,
	       uint64_t key,
	       size_t number,
	       size_t length)
{
	uint8_t *data = talloc_array(image, uint8_t, length);
	int ret;

	assert_non_null(data);
	fill(data, length, number);
	ret = ds_image_put(image, type, key, data_blob_const(data, length));
	TALLOC_FREE(data);
	return ret;
}

static int append(struct ds_image *image, size_t number, size_t length)
{
	int ret = put(image, type_of(number), key_of(number), number, length);

	if (ret == 0) {
		ds_image_commit(image);
	} else {
		ds_image_cancel(image);
	}
	return ret;
}

static void append_all(struct ds_image *image,
		       const size_t *lengths,
		       size_t num)
{
	size_t i;

	for (i = 0; i < num; i++) {
		assert_int_equal(append(image, i, lengths[i]), 0);
	}
}

/*
 * How many of the records are there? Those that are must be right.
 */
static size_t check_all(const struct ds_image *image,
			const size_t *lengths,
			size_t num)
{
	size_t pos = 0;
	size_t i = 0;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;

	while (ds_image_next(image, &pos, &type, &key, &data)) {
		uint8_t *expected = NULL;

		assert_true(i < num);
		assert_int_equal(type, type_of(i));
		assert_true(key == key_of(i));
		assert_int_equal(data.length, lengths[i]);
		expected = talloc_array(NULL, uint8_t, lengths[i]);
		assert_non_null(expected);
		fill(expected, lengths[i], i);
		assert_int_equal(
			memcmp(data.data, expected, lengths[i]), 0);
		TALLOC_FREE(expected);
		i += 1;
	}
	return i;
}

/* An image that was opened by its descriptor has all of them */
static void check_fd(int fd, const size_t *lengths, size_t num)
{
	struct ds_image *image = NULL;

	assert_int_equal(ds_image_open(NULL, fd, &image), 0);
	assert_int_equal(check_all(image, lengths, num), num);
	TALLOC_FREE(image);
}

/* One that is still written has so many of them */
static void check_live(int fd, const size_t *lengths, size_t num)
{
	struct ds_image *image = NULL;

	assert_int_equal(ds_image_open_live(NULL, fd, &image), 0);
	assert_int_equal(check_all(image, lengths, num), num);
	TALLOC_FREE(image);
}

static void check_error(int fd, int error)
{
	struct ds_image *image = NULL;

	assert_int_equal(ds_image_open(NULL, fd, &image), error);
	assert_null(image);
}

static off_t fd_size(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

/* Where the log is that counts */
static uint64_t log_pos(const struct ds_image *image)
{
	uint64_t pos;

	assert_int_equal(
		pread(ds_image_fd(image), &pos, sizeof(pos), LOG_POS),
		sizeof(pos));
	return pos;
}

/* ---- round trips */

static void test_no_record(void **state)
{
	struct test *t = *state;

	check_live(ds_image_fd(t->image), NULL, 0);
	assert_int_equal(ds_image_size(t->image), HEADER_SIZE);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), NULL, 0);
}

static void test_empty_record(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 0, 0, 1, 0 };

	/* no data at all is an empty record too */
	assert_int_equal(
		ds_image_put(t->image, type_of(0), key_of(0), data_blob_null),
		0);
	assert_int_equal(append(t->image, 1, 0), 0);
	assert_int_equal(append(t->image, 2, 1), 0);
	assert_int_equal(append(t->image, 3, 0), 0);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void test_many_records(void **state)
{
	struct test *t = *state;
	size_t lengths[5000];
	size_t size = HEADER_SIZE;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		lengths[i] = (i * 13) % 257;
		size += RECORD_SIZE + ((lengths[i] + 7) & ~(size_t)7);
	}
	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	assert_int_equal(ds_image_size(t->image), size);
	assert_true(size > 8 * CHUNK);

	check_live(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	check_live(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void test_large_record(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 5, 9 * CHUNK + 3, 0, CHUNK, 11 };

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

/* A chunk is used to its end, where a new log can begin, before it grows */
static void test_chunk_is_full(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = {
		CHUNK - LOG_SIZE - HEADER_SIZE - 2 * RECORD_SIZE - 8, 8, 0,
	};

	append_all(t->image, lengths, 2);
	assert_int_equal(ds_image_size(t->image), CHUNK - LOG_SIZE);
	assert_int_equal(fd_size(ds_image_fd(t->image)), CHUNK);

	assert_int_equal(append(t->image, 2, 0), 0);
	assert_true(fd_size(ds_image_fd(t->image)) > CHUNK);

	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

/* The reader's descriptor is its own, and lives longer than the writer */
static void test_writer_is_gone(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 100, 3 * CHUNK };
	int fd;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	fd = dup(ds_image_fd(t->image));
	assert_int_not_equal(fd, -1);
	TALLOC_FREE(t->image);

	check_fd(fd, lengths, ARRAY_SIZE(lengths));
	check_fd(fd, lengths, ARRAY_SIZE(lengths));
	assert_int_equal(close(fd), 0);
}

/* ---- full */

static void test_too_large(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 10, 20 };
	uint8_t c = 0;

	append_all(t->image, lengths, 1);
	/* it is refused by its length, nothing is read */
	assert_int_equal(ds_image_put(t->image,
				      type_of(1),
				      key_of(1),
				      data_blob_const(&c, UINT32_MAX)),
			 EMSGSIZE);
	assert_int_equal(fd_size(ds_image_fd(t->image)), CHUNK);
	assert_int_equal(append(t->image, 1, 20), 0);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void test_file_is_full(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 1000, CHUNK - 2000, 300 };
	size_t size;

	append_all(t->image, lengths, 2);
	size = ds_image_size(t->image);
	assert_int_equal(
		fcntl(ds_image_fd(t->image), F_ADD_SEALS, F_SEAL_GROW), 0);

	assert_int_equal(append(t->image, 2, 2000), ENOMEM);
	assert_int_equal(append(t->image, 2, 9 * CHUNK), ENOMEM);
	assert_int_equal(ds_image_size(t->image), size);
	assert_int_equal(fd_size(ds_image_fd(t->image)), CHUNK);
	check_live(ds_image_fd(t->image), lengths, 2);

	/* there is still room for a small one */
	assert_int_equal(append(t->image, 2, 300), 0);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void test_memory_is_full(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 1000, CHUNK };
	uint8_t *data = talloc_array(t, uint8_t, CHUNK);
	struct rlimit old;
	struct rlimit none;
	size_t size;
	int ret;

	if (RUNNING_ON_VALGRIND) {
		/* it needs memory too */
		skip();
	}

	assert_non_null(data);
	fill(data, CHUNK, 1);
	append_all(t->image, lengths, 1);
	size = ds_image_size(t->image);

	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit) { .rlim_cur = 4096, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	ret = ds_image_put(t->image,
			   type_of(1),
			   key_of(1),
			   data_blob_const(data, CHUNK));
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);

	assert_int_equal(ret, ENOMEM);
	assert_int_equal(ds_image_size(t->image), size);
	check_live(ds_image_fd(t->image), lengths, 1);

	/* and goes on when there is memory again */
	assert_int_equal(append(t->image, 1, CHUNK), 0);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void test_no_descriptor(void **state)
{
	struct test *t = *state;
	struct ds_image *image = NULL;
	struct rlimit old;
	struct rlimit none;
	int ret;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit) { .rlim_cur = 0, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	ret = ds_image_create(t, &image);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);

	assert_int_equal(ret, EMFILE);
	assert_null(image);
}

/* ---- what is not an image, not complete or damaged */

static void test_not_an_image(void **state)
{
	struct test *t = *state;
	int fds[2];
	int fd;

	(void)t;
	check_error(-1, EBADF);

	fd = open("/dev/zero", O_RDWR);
	assert_int_not_equal(fd, -1);
	check_error(fd, EBADMSG);
	close(fd);

	assert_int_equal(pipe(fds), 0);
	check_error(fds[0], EBADMSG);
	close(fds[0]);
	close(fds[1]);

	fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_not_equal(fd, -1);
	check_error(fd, EBADMSG);
	assert_int_equal(ftruncate(fd, CHUNK), 0);
	check_error(fd, EBADMSG);
	close(fd);
}

static void test_not_complete(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 77 };

	check_error(ds_image_fd(t->image), ENODATA);
	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	check_error(ds_image_fd(t->image), ENODATA);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), lengths, ARRAY_SIZE(lengths));
}

static void flip(int fd, off_t pos, uint8_t bits)
{
	uint8_t c;

	assert_int_equal(pread(fd, &c, 1, pos), 1);
	c ^= bits;
	assert_int_equal(pwrite(fd, &c, 1, pos), 1);
}

static void test_wrong_magic(void **state)
{
	struct test *t = *state;
	int fd = ds_image_fd(t->image);
	off_t pos;

	ds_image_complete(t->image);
	for (pos = 0; pos < 8; pos++) {
		flip(fd, pos, 0xff);
		check_error(fd, EBADMSG);
		flip(fd, pos, 0xff);
	}
	check_fd(fd, NULL, 0);
}

/*
 * Another version is told apart from damage, whether it is complete or
 * not: what comes after the version may be something else there.
 */
static void test_wrong_version(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 10 };
	int fd = ds_image_fd(t->image);
	off_t pos;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	for (pos = 8; pos < 12; pos++) {
		flip(fd, pos, 0xff);
		check_error(fd, EPROTONOSUPPORT);
		flip(fd, pos, 0xff);
	}
	ds_image_complete(t->image);
	for (pos = 8; pos < 12; pos++) {
		flip(fd, pos, 0xff);
		check_error(fd, EPROTONOSUPPORT);
		flip(fd, pos, 0xff);
	}
	check_fd(fd, lengths, ARRAY_SIZE(lengths));
}

static void test_truncated(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 0, 3000, 24, 1, 5001, 0 };
	off_t size;
	off_t used;
	int fd;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	used = ds_image_size(t->image);
	fd = dup(ds_image_fd(t->image));
	assert_int_not_equal(fd, -1);
	TALLOC_FREE(t->image);

	/* behind what is used nothing is lost */
	for (size = CHUNK; size >= used; size--) {
		assert_int_equal(ftruncate(fd, size), 0);
		check_fd(fd, lengths, ARRAY_SIZE(lengths));
	}
	for (; size >= 0; size--) {
		assert_int_equal(ftruncate(fd, size), 0);
		check_error(fd, EBADMSG);
	}
	close(fd);
}

/* The end of the file is lost, but not its length */
static void test_zeroed(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 5, 200, 0, 100 };
	off_t size;
	int fd;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	fd = dup(ds_image_fd(t->image));
	assert_int_not_equal(fd, -1);
	/* the last record ends in padding */
	size = ds_image_size(t->image) - 4;
	TALLOC_FREE(t->image);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(ftruncate(fd, CHUNK), 0);
	check_fd(fd, lengths, ARRAY_SIZE(lengths));
	while (size > 0) {
		struct ds_image *image = NULL;
		int ret;

		size -= 1;
		assert_int_equal(ftruncate(fd, size), 0);
		assert_int_equal(ftruncate(fd, CHUNK), 0);
		ret = ds_image_open(NULL, fd, &image);
		assert_true((ret == EBADMSG) || (ret == ENODATA) ||
			    (ret == EPROTONOSUPPORT));
	}
	close(fd);
}

/*
 * The lengths are such that one bit of the log's makes the end of the last
 * record that of another one.
 */
static void test_flipped(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 16, 5, 0, 17, 8 };
	int fd = ds_image_fd(t->image);
	size_t used;
	size_t pos;
	unsigned int bit;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	used = ds_image_size(t->image);

	for (pos = 0; pos < used + 64; pos++) {
		if (pos == NOTES_OFFSET) {
			/* the image says nothing about what they are */
			pos += DS_IMAGE_NOTES;
		}
		for (bit = 0; bit < 8; bit++) {
			struct ds_image *image = NULL;
			int ret;

			flip(fd, pos, 1 << bit);
			ret = ds_image_open(t, fd, &image);
			if (pos >= used) {
				assert_int_equal(ret, 0);
				assert_int_equal(
					check_all(image,
						  lengths,
						  ARRAY_SIZE(lengths)),
					ARRAY_SIZE(lengths));
				TALLOC_FREE(image);
			} else {
				assert_true((ret == EBADMSG) ||
					    (ret == EPROTONOSUPPORT));
			}
			flip(fd, pos, 1 << bit);
		}
	}
	check_fd(fd, lengths, ARRAY_SIZE(lengths));
}

/*
 * Records and logs that end elsewhere, in an image without a seal: no luck
 * with a sum may lead beyond the end.
 */
static void test_flipped_live(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 16, 5, 0, 17, 8 };
	int fd = ds_image_fd(t->image);
	size_t num_fewer = 0;
	size_t used;
	size_t pos;
	unsigned int bit;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	used = ds_image_size(t->image);

	for (pos = 12; pos < used; pos++) {
		for (bit = 0; bit < 8; bit++) {
			struct ds_image *image = NULL;
			int ret;

			flip(fd, pos, 1 << bit);
			ret = ds_image_open_live(t, fd, &image);
			flip(fd, pos, 1 << bit);

			if (ret != 0) {
				assert_int_equal(ret, EBADMSG);
				continue;
			}
			if (check_all(image, lengths, ARRAY_SIZE(lengths)) <
			    ARRAY_SIZE(lengths))
			{
				/* the log's length is less */
				num_fewer += 1;
			}
			TALLOC_FREE(image);
		}
	}
	assert_true(num_fewer > 0);

	/* shorter than a log is */
	for (used = 0; used < LOG_SIZE; used++) {
		struct ds_image *image = NULL;

		assert_int_equal(
			pwrite(fd, &used, sizeof(used), log_pos(t->image)),
			sizeof(used));
		assert_int_equal(ds_image_open_live(t, fd, &image), EBADMSG);
	}
}

static void check_wiped(int fd)
{
	struct ds_image *image = NULL;
	off_t size = fd_size(fd);
	uint8_t *map = NULL;
	off_t i;

	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	for (i = 0; i < size; i++) {
		assert_int_equal(map[i], 0);
	}
	munmap(map, size);
	check_error(fd, EBADMSG);
	assert_int_equal(ds_image_open_live(NULL, fd, &image), EBADMSG);
	assert_null(image);
}

static void test_wipe(void **state)
{
	struct test *t = *state;
	/* used to the end */
	const size_t lengths[] = { 1000, 3 * CHUNK + 1, CHUNK - 1120 - DS_IMAGE_NOTES };
	struct ds_image *reader = NULL;
	int fd = ds_image_fd(t->image);
	off_t size;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	size = fd_size(fd);
	assert_int_equal(ds_image_size(t->image), size - LOG_SIZE);
	ds_image_wipe(t->image);
	check_wiped(fd);
	assert_int_equal(fd_size(fd), size);
	TALLOC_FREE(t->image);

	/* who reads it can do it as well */
	assert_int_equal(ds_image_create(t, &t->image), 0);
	fd = ds_image_fd(t->image);
	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	assert_int_equal(ds_image_open(t, fd, &reader), 0);
	ds_image_wipe(reader);
	check_wiped(fd);
	assert_int_equal(check_all(reader, NULL, 0), 0);
	TALLOC_FREE(reader);
}

/* ---- a model of what has to be in it */

struct model_record {
	uint32_t type;
	uint64_t key;
	size_t number;
	size_t length;
};

/* In the order in which they came in first */
struct model {
	struct model_record records[200];
	size_t num;
};

static struct model_record *model_find(struct model *m,
				       uint32_t type,
				       uint64_t key)
{
	size_t i;

	for (i = 0; i < m->num; i++) {
		struct model_record *r = &m->records[i];

		if ((r->type == type) && (r->key == key)) {
			return r;
		}
	}
	return NULL;
}

/* Both are done to the image, too, if there is one */
static void model_put(struct model *m,
		      struct ds_image *image,
		      uint32_t type,
		      uint64_t key,
		      size_t number,
		      size_t length)
{
	struct model_record *r = model_find(m, type, key);

	if (r == NULL) {
		assert_true(m->num < ARRAY_SIZE(m->records));
		r = &m->records[m->num];
		m->num += 1;
	}
	*r = (struct model_record) {
		.type = type, .key = key, .number = number, .length = length,
	};
	if (image != NULL) {
		assert_int_equal(put(image, type, key, number, length), 0);
	}
}

static void model_remove(struct model *m,
			 struct ds_image *image,
			 uint32_t type,
			 uint64_t key)
{
	struct model_record *r = model_find(m, type, key);

	if (r != NULL) {
		m->num -= 1;
		memmove(r, r + 1, (m->records + m->num - r) * sizeof(*r));
	}
	if (image != NULL) {
		assert_int_equal(ds_image_remove(image, type, key), 0);
	}
}

static bool model_record_is(const struct model_record *r,
			    uint32_t type,
			    uint64_t key,
			    DATA_BLOB data)
{
	uint8_t *expected = NULL;
	bool same;

	if ((r->type != type) || (r->key != key) ||
	    (r->length != data.length))
	{
		return false;
	}
	expected = talloc_array(NULL, uint8_t, r->length);
	assert_non_null(expected);
	fill(expected, r->length, r->number);
	same = (memcmp(expected, data.data, r->length) == 0);
	TALLOC_FREE(expected);
	return same;
}

/* Types are small in models */
#define MODEL_TYPES 8

static bool model_is(const struct model *m, const struct ds_image *image)
{
	uint32_t want;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;
	size_t pos = 0;
	size_t i;

	for (want = 0; want < MODEL_TYPES; want++) {
		for (i = 0; i < m->num; i++) {
			const struct model_record *r = &m->records[i];

			if (r->type != want) {
				continue;
			}
			if (!ds_image_next(image, &pos, &type, &key, &data) ||
			    !model_record_is(r, type, key, data))
			{
				return false;
			}
		}
	}
	return !ds_image_next(image, &pos, &type, &key, &data);
}

static void check_model(const struct ds_image *written, const struct model *m)
{
	struct ds_image *image = NULL;

	assert_int_equal(
		ds_image_open_live(NULL, ds_image_fd(written), &image), 0);
	assert_true(model_is(m, image));
	TALLOC_FREE(image);
}

/* Where the first one is */
#define FRONT (NOTES_OFFSET + DS_IMAGE_NOTES)

/*
 * A short log behind the place of a longer one, which took so much data
 */
static void model_behind(struct model *m, struct ds_image *image, size_t gap)
{
	*m = (struct model) { .num = 0 };
	model_put(m, image, 1, 1, 1, gap);
	ds_image_commit(image);
	assert_int_equal(log_pos(image), FRONT);

	ds_image_rewrite(image);
	*m = (struct model) { .num = 0 };
	model_put(m, image, 2, 1, 2, 20);
	model_put(m, image, 1, 2, 3, 0);
	ds_image_commit(image);
	assert_int_equal(log_pos(image),
			 HEADER_SIZE + RECORD_SIZE + gap);
	check_model(image, m);
}

/* ---- records that come and go */

static void test_replace(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };
	size_t i;

	/* shorter, longer, empty; in one commit and in several */
	for (i = 0; i < 50; i++) {
		model_put(&m, t->image, 1 + i % 2, i % 5, i, (i * 37) % 101);
		if (i % 3 == 0) {
			ds_image_commit(t->image);
			check_model(t->image, &m);
		}
	}
	ds_image_commit(t->image);
	check_model(t->image, &m);
	assert_int_equal(m.num, 10);
}

static void test_remove(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };

	/* one that never was */
	model_remove(&m, t->image, 1, 1);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	model_put(&m, t->image, 1, 1, 1, 10);
	model_put(&m, t->image, 1, 2, 2, 20);
	model_put(&m, t->image, 2, 1, 3, 30);
	ds_image_commit(t->image);

	/* the others of its type and of its key stay */
	model_remove(&m, t->image, 1, 1);
	ds_image_commit(t->image);
	check_model(t->image, &m);
	assert_int_equal(m.num, 2);

	/* again, and all of them */
	model_remove(&m, t->image, 1, 1);
	model_remove(&m, t->image, 2, 1);
	model_remove(&m, t->image, 1, 2);
	ds_image_commit(t->image);
	assert_int_equal(m.num, 0);
	check_model(t->image, &m);

	/* put and removed at once */
	model_put(&m, t->image, 1, 1, 1, 10);
	model_remove(&m, t->image, 1, 1);
	ds_image_commit(t->image);
	check_model(t->image, &m);
	ds_image_complete(t->image);
	check_fd(ds_image_fd(t->image), NULL, 0);
}

static void check_order(const struct ds_image *written,
			const uint32_t (*expected)[2],
			size_t num)
{
	struct ds_image *image = NULL;
	uint32_t type;
	uint64_t key;
	DATA_BLOB data;
	size_t pos = 0;
	size_t i;

	assert_int_equal(
		ds_image_open_live(NULL, ds_image_fd(written), &image), 0);
	for (i = 0; i < num; i++) {
		assert_true(ds_image_next(image, &pos, &type, &key, &data));
		assert_int_equal(type, expected[i][0]);
		assert_int_equal(key, expected[i][1]);
	}
	assert_false(ds_image_next(image, &pos, &type, &key, &data));
	TALLOC_FREE(image);
}

/* What the model takes for granted, in plain numbers */
static void test_order(void **state)
{
	struct test *t = *state;
	static const uint32_t put_order[][2] = {
		{ 3, 7 }, { 1, 9 }, { 3, 2 }, { 2, 5 }, { 1, 4 }, { 3, 5 },
	};
	static const uint32_t by_type[][2] = {
		{ 1, 9 }, { 1, 4 }, { 2, 5 }, { 3, 7 }, { 3, 2 }, { 3, 5 },
	};
	static const uint32_t put_again[][2] = {
		{ 1, 9 }, { 1, 4 }, { 2, 5 }, { 3, 2 }, { 3, 5 }, { 3, 7 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(put_order); i++) {
		assert_int_equal(put(t->image,
				     put_order[i][0],
				     put_order[i][1],
				     i,
				     i * 10),
				 0);
	}
	ds_image_commit(t->image);
	check_order(t->image, by_type, ARRAY_SIZE(by_type));

	/* replacing one leaves it where it is */
	assert_int_equal(put(t->image, 3, 7, 100, 50), 0);
	assert_int_equal(put(t->image, 1, 9, 101, 50), 0);
	ds_image_commit(t->image);
	check_order(t->image, by_type, ARRAY_SIZE(by_type));

	/* one that was removed is new, also within one commit */
	assert_int_equal(ds_image_remove(t->image, 3, 7), 0);
	assert_int_equal(put(t->image, 3, 7, 102, 50), 0);
	ds_image_commit(t->image);
	check_order(t->image, put_again, ARRAY_SIZE(put_again));

	assert_int_equal(ds_image_remove(t->image, 3, 2), 0);
	ds_image_commit(t->image);
	assert_int_equal(put(t->image, 3, 2, 103, 50), 0);
	assert_int_equal(ds_image_remove(t->image, 3, 5), 0);
	assert_int_equal(put(t->image, 3, 5, 104, 50), 0);
	assert_int_equal(ds_image_remove(t->image, 3, 7), 0);
	assert_int_equal(put(t->image, 3, 7, 105, 50), 0);
	assert_int_equal(put(t->image, 3, 2, 106, 50), 0);
	ds_image_commit(t->image);
	check_order(t->image, put_again, ARRAY_SIZE(put_again));

	/* after a rewrite the order is that of the rewrite */
	ds_image_rewrite(t->image);
	for (i = ARRAY_SIZE(by_type); i > 0; i--) {
		assert_int_equal(put(t->image,
				     put_order[i - 1][0],
				     put_order[i - 1][1],
				     i,
				     0),
				 0);
	}
	ds_image_commit(t->image);
	check_order(t->image,
		    (const uint32_t[][2]) {
			    { 1, 4 }, { 1, 9 }, { 2, 5 },
			    { 3, 5 }, { 3, 2 }, { 3, 7 },
		    },
		    6);
}

static void test_cancel(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };
	struct model staged;
	size_t size;

	/* nothing is there, nothing is staged */
	ds_image_cancel(t->image);
	check_model(t->image, &m);

	model_put(&m, t->image, 1, 1, 1, 100);
	ds_image_commit(t->image);
	size = ds_image_size(t->image);

	staged = m;
	model_put(&staged, t->image, 1, 1, 2, 200);
	model_put(&staged, t->image, 1, 2, 3, 3 * CHUNK);
	ds_image_cancel(t->image);
	ds_image_commit(t->image);
	check_model(t->image, &m);
	assert_int_equal(ds_image_size(t->image), size);

	/* what comes after it is not mixed with what was staged */
	staged = m;
	model_remove(&staged, t->image, 1, 1);
	ds_image_cancel(t->image);
	model_put(&m, t->image, 2, 1, 4, 10);
	ds_image_commit(t->image);
	check_model(t->image, &m);
}

/* Whoever goes on with an image that was complete has to say it again */
static void test_commit_after_complete(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };
	struct ds_image *image = NULL;
	int fd = ds_image_fd(t->image);

	model_put(&m, t->image, 1, 1, 1, 100);
	ds_image_commit(t->image);
	ds_image_complete(t->image);
	assert_int_equal(ds_image_open(t, fd, &image), 0);
	TALLOC_FREE(image);

	/* what is staged only changes nothing */
	model_put(&m, t->image, 1, 2, 2, 10);
	assert_int_equal(ds_image_open(t, fd, &image), 0);
	TALLOC_FREE(image);
	ds_image_commit(t->image);
	check_error(fd, ENODATA);
	check_model(t->image, &m);

	ds_image_complete(t->image);
	assert_int_equal(ds_image_open(t, fd, &image), 0);
	assert_true(model_is(&m, image));
	TALLOC_FREE(image);

	ds_image_rewrite(t->image);
	ds_image_commit(t->image);
	check_error(fd, ENODATA);
	ds_image_complete(t->image);
	check_fd(fd, NULL, 0);
}

/* ---- rewriting */

static void test_rewrite(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };
	struct model old;
	size_t i;

	/* of nothing */
	ds_image_rewrite(t->image);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	for (i = 0; i < 20; i++) {
		size_t j;

		old = m;
		/* what was staged before is no part of it */
		assert_int_equal(put(t->image, 7, 7, 0, 100), 0);
		ds_image_rewrite(t->image);
		m = (struct model) { .num = 0 };
		for (j = 0; j < 10; j++) {
			model_put(&m, t->image, 1 + j % 3, j, i + j, j * 40);
			check_model(t->image, &old);
		}
		model_remove(&m, t->image, 1, 3);
		ds_image_commit(t->image);
		check_model(t->image, &m);

		/* and it goes on from there */
		model_put(&m, t->image, 1, 3, i, 70);
		ds_image_commit(t->image);
		check_model(t->image, &m);
	}
	/* the place was used again and again */
	assert_int_equal(fd_size(ds_image_fd(t->image)), CHUNK);
	ds_image_complete(t->image);
	check_model(t->image, &m);
}

/* There is no room behind it, and nothing is put */
static void test_rewrite_of_full(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };

	assert_int_equal(
		fcntl(ds_image_fd(t->image), F_ADD_SEALS, F_SEAL_GROW), 0);
	/* the next log needs its place */
	assert_int_equal(
		put(t->image, 1, 1, 1, CHUNK - HEADER_SIZE - RECORD_SIZE),
		ENOMEM);
	model_put(&m,
		  t->image,
		  1,
		  1,
		  1,
		  CHUNK - LOG_SIZE - HEADER_SIZE - RECORD_SIZE);
	assert_int_equal(put(t->image, 1, 2, 1, 0), ENOMEM);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	ds_image_rewrite(t->image);
	assert_int_equal(put(t->image, 1, 2, 1, 0), ENOMEM);
	ds_image_cancel(t->image);
	check_model(t->image, &m);

	ds_image_rewrite(t->image);
	ds_image_commit(t->image);
	m = (struct model) { .num = 0 };
	check_model(t->image, &m);

	/* all of it is in front now */
	ds_image_rewrite(t->image);
	model_put(&m, t->image, 1, 1, 1, CHUNK / 2);
	ds_image_commit(t->image);
	check_model(t->image, &m);
	ds_image_complete(t->image);
	check_model(t->image, &m);
}

static void test_rewrite_cancel(void **state)
{
	struct test *t = *state;
	struct model m;
	struct model staged = { .num = 0 };

	/* in front and moved behind; the old log goes on */
	model_behind(&m, t->image, 400);
	ds_image_rewrite(t->image);
	model_put(&staged, t->image, 1, 1, 1, 100);
	ds_image_cancel(t->image);
	check_model(t->image, &m);
	model_put(&m, t->image, 3, 3, 3, 50);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	ds_image_rewrite(t->image);
	model_put(&staged, t->image, 1, 1, 1, 1000);
	ds_image_cancel(t->image);
	check_model(t->image, &m);
	model_put(&m, t->image, 3, 3, 4, 5000);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	/* so does it after a second beginning */
	ds_image_rewrite(t->image);
	model_put(&staged, t->image, 1, 1, 1, 100);
	ds_image_rewrite(t->image);
	m = (struct model) { .num = 0 };
	model_put(&m, t->image, 4, 1, 1, 10);
	ds_image_commit(t->image);
	check_model(t->image, &m);
}

/* One record that takes as much as there is in front, or 8 bytes more */
static void test_rewrite_fits(void **state)
{
	struct test *t = *state;
	static const size_t lengths[] = { 400, 401, 408, };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct model m = { .num = 0 };
		struct model old;
		uint64_t pos;

		TALLOC_FREE(t->image);
		assert_int_equal(ds_image_create(t, &t->image), 0);
		model_behind(&old, t->image, 400);
		pos = log_pos(t->image);

		ds_image_rewrite(t->image);
		model_put(&m, t->image, 3, 1, 1, lengths[i]);
		check_model(t->image, &old);
		ds_image_commit(t->image);
		check_model(t->image, &m);
		if (lengths[i] == 400) {
			assert_int_equal(log_pos(t->image), FRONT);
		} else {
			assert_true(log_pos(t->image) > pos);
		}
	}
}

/*
 * The new log begins in front of the old one, and has to move behind it
 * when it gets longer.
 */
static void test_rewrite_moves(void **state)
{
	struct test *t = *state;
	static const size_t lengths[] = { 408, 1000, CHUNK, 5 * CHUNK, };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct model m = { .num = 0 };
		struct model old;
		uint64_t pos;

		TALLOC_FREE(t->image);
		assert_int_equal(ds_image_create(t, &t->image), 0);
		model_behind(&old, t->image, 400);
		pos = log_pos(t->image);

		ds_image_rewrite(t->image);
		model_put(&m, t->image, 3, 1, 1, 33);
		model_put(&m, t->image, 3, 2, 2, 0);
		model_put(&m, t->image, 3, 3, 3, lengths[i]);
		check_model(t->image, &old);
		model_put(&m, t->image, 1, 3, 4, 44);
		ds_image_commit(t->image);
		assert_true(log_pos(t->image) > pos);
		check_model(t->image, &m);

		/* in front there is room again */
		ds_image_rewrite(t->image);
		m = (struct model) { .num = 0 };
		ds_image_commit(t->image);
		check_model(t->image, &m);
	}
}

static void test_rewrite_is_full(void **state)
{
	struct test *t = *state;
	struct model m;
	struct model staged = { .num = 0 };
	int fd = ds_image_fd(t->image);

	model_behind(&m, t->image, 400);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);

	/* it would have to move, and cannot: then what is there stays */
	ds_image_rewrite(t->image);
	model_put(&staged, t->image, 3, 1, 1, 33);
	assert_int_equal(put(t->image, 3, 2, 2, CHUNK), ENOMEM);
	check_model(t->image, &m);
	ds_image_cancel(t->image);
	check_model(t->image, &m);
	model_put(&m, t->image, 3, 3, 3, 1000);
	ds_image_commit(t->image);
	check_model(t->image, &m);

	/* without the one that is too large it is a whole */
	ds_image_rewrite(t->image);
	staged = (struct model) { .num = 0 };
	model_put(&staged, t->image, 3, 1, 1, 33);
	assert_int_equal(put(t->image, 3, 2, 2, CHUNK), ENOMEM);
	model_put(&staged, t->image, 3, 3, 3, 34);
	ds_image_commit(t->image);
	check_model(t->image, &staged);
}

/*
 * A log that is rewritten when it is long takes only so much more than its
 * records, and does not have to be often.
 */
static void test_is_long(void **state)
{
	struct test *t = *state;
	struct model m = { .num = 0 };
	size_t num_rewrites = 0;
	size_t live;
	size_t i;

	assert_false(ds_image_is_long(t->image));
	for (i = 0; i < 100; i++) {
		model_put(&m, t->image, 1 + i % 5, i, i, 500);
	}
	ds_image_commit(t->image);
	live = ds_image_size(t->image);
	/* all of it was new */
	assert_false(ds_image_is_long(t->image));

	for (i = 0; i < 20000; i++) {
		size_t j;

		model_put(&m, t->image, 1, 5 * (i % 20), i, 100);
		ds_image_commit(t->image);
		assert_true(ds_image_size(t->image) < 3 * live);
		if (!ds_image_is_long(t->image)) {
			continue;
		}

		ds_image_rewrite(t->image);
		assert_false(ds_image_is_long(t->image));
		for (j = 0; j < m.num; j++) {
			const struct model_record *r = &m.records[j];

			assert_int_equal(put(t->image,
					     r->type,
					     r->key,
					     r->number,
					     r->length),
					 0);
		}
		ds_image_commit(t->image);
		assert_false(ds_image_is_long(t->image));
		check_model(t->image, &m);
		num_rewrites += 1;
	}
	assert_true(num_rewrites > 10);
	assert_true(num_rewrites < 100);
	assert_true(fd_size(ds_image_fd(t->image)) <= (off_t)(8 * live));
}

/* ---- all of it in any order */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) +
		UINT64_C(1442695040888963407);
	return *seed >> 33;
}

static size_t random_length(uint64_t *seed)
{
	uint32_t r = next_random(seed);

	switch (r % 64) {
	case 0:
		return r % (2 * CHUNK);
	case 1:
	case 2:
		return 0;
	default:
		return r % 300;
	}
}

/* One step of the writer; returns whether what counts may be another */
static bool random_step(struct ds_image *image,
			uint64_t *seed,
			struct model *counts,
			struct model *staged)
{
	uint32_t type = 1 + next_random(seed) % 5;
	uint64_t key = next_random(seed) % 30;
	uint32_t what = next_random(seed) % 100;
	size_t i;

	if (what < 55) {
		model_put(staged,
			  image,
			  type,
			  key,
			  next_random(seed),
			  random_length(seed));
		return false;
	}
	if (what < 75) {
		model_remove(staged, image, type, key);
		return false;
	}
	if (what < 93) {
		ds_image_commit(image);
		*counts = *staged;
		return true;
	}
	if (what < 95) {
		ds_image_cancel(image);
		*staged = *counts;
		return true;
	}
	if (what < 96) {
		ds_image_complete(image);
		return true;
	}
	if ((what < 99) && !ds_image_is_long(image)) {
		return false;
	}

	/* some of what there is, or all */
	ds_image_rewrite(image);
	*staged = (struct model) { .num = 0 };
	for (i = next_random(seed) % 5; i < counts->num; i++) {
		const struct model_record *r = &counts->records[i];

		model_put(staged,
			  image,
			  r->type,
			  r->key,
			  r->number,
			  r->length);
	}
	return true;
}

static void test_random(void **state)
{
	struct test *t = *state;
	struct model counts = { .num = 0 };
	struct model staged = { .num = 0 };
	uint64_t seed = 20260101;
	size_t num_places = 0;
	uint64_t place = log_pos(t->image);
	size_t i;

	for (i = 0; i < 10000; i++) {
		if (!random_step(t->image, &seed, &counts, &staged) &&
		    (i % 16 != 0))
		{
			continue;
		}
		check_model(t->image, &counts);
		if (log_pos(t->image) != place) {
			place = log_pos(t->image);
			num_places += 1;
		}
	}
	/* the sequence is one in which something happens */
	assert_true(num_places > 50);
	assert_true(counts.num > 10);
}

/* ---- killed at any instruction */

/*
 * The writer is a child that goes on by one instruction at a time. What it
 * has done until then is what a kill would leave.
 */
static pid_t step_start(void (*fn)(struct ds_image *image, const void *arg),
			struct ds_image *image,
			const void *arg)
{
	pid_t pid = fork();
	int status;

	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1) {
			_exit(1);
		}
		raise(SIGSTOP);
		fn(image, arg);
		raise(SIGSTOP);
		_exit(0);
	}

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status) && (WSTOPSIG(status) == SIGSTOP));
	assert_int_equal(
		ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL), 0);
	return pid;
}

/* Returns false at the end of fn */
static bool step(pid_t pid)
{
	int status;

	assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	if (WSTOPSIG(status) == SIGSTOP) {
		return false;
	}
	assert_int_equal(WSTOPSIG(status), SIGTRAP);
	return true;
}

static void step_kill(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

/* What the writer has stored, as a reader finds it in the file */
struct snapshot {
	uint8_t *data;
	size_t length;
};

/* Returns whether it is another one than the last */
static bool snapshot(TALLOC_CTX *mem_ctx, int fd, struct snapshot *s)
{
	size_t length = fd_size(fd);
	uint8_t *data = talloc_array(mem_ctx, uint8_t, length);

	assert_non_null(data);
	assert_int_equal(pread(fd, data, length, 0), length);
	if ((length == s->length) && (memcmp(data, s->data, length) == 0)) {
		TALLOC_FREE(data);
		return false;
	}
	TALLOC_FREE(s->data);
	*s = (struct snapshot) { .data = data, .length = length };
	return true;
}

/* What a reader would find: the image is live */
static struct ds_image *snapshot_open(TALLOC_CTX *mem_ctx,
				      const struct snapshot *s)
{
	struct ds_image *image = NULL;
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_not_equal(fd, -1);
	assert_int_equal(pwrite(fd, s->data, s->length, 0), s->length);
	assert_int_equal(ds_image_open_live(mem_ctx, fd, &image), 0);
	/* the mapping is all that is needed */
	close(fd);
	return image;
}

/*
 * The writer goes from one model to the next by one store.
 */
static void step_commit(struct test *t,
			void (*fn)(struct ds_image *image, const void *arg),
			const void *arg,
			const struct model *before,
			const struct model *after)
{
	struct snapshot s = { .data = NULL };
	struct ds_image *image = NULL;
	size_t num_old = 0;
	size_t num_new = 0;
	pid_t pid;
	int fd = ds_image_fd(t->image);

	if (RUNNING_ON_VALGRIND) {
		/* its instructions would be counted */
		skip();
	}

	pid = step_start(fn, t->image, arg);
	do {
		if (!snapshot(t, fd, &s)) {
			continue;
		}
		image = snapshot_open(t, &s);
		if ((num_new == 0) && model_is(before, image)) {
			num_old += 1;
		} else {
			/* once it is there, it stays */
			assert_true(model_is(after, image));
			num_new += 1;
		}
		TALLOC_FREE(image);
	} while (step(pid));
	step_kill(pid);

	/* the mark is the last of several stores */
	assert_true(num_old > 2);
	assert_int_equal(num_new, 1);

	/* and nobody had said that it is complete */
	check_error(fd, ENODATA);
	assert_int_equal(ds_image_open_live(t, fd, &image), 0);
	assert_true(model_is(after, image));
	TALLOC_FREE(image);
}

static void step_put_fn(struct ds_image *image, const void *arg)
{
	const DATA_BLOB *data = arg;

	if (ds_image_put(image, 3, 1, *data) != 0) {
		_exit(2);
	}
	ds_image_commit(image);
}

/*
 * Two records are there, a third one of this length is added.
 */
static void step_put(struct test *t, size_t filled, size_t length)
{
	uint8_t *buf = talloc_array(t, uint8_t, length);
	DATA_BLOB data = data_blob_const(buf, length);
	struct model before = { .num = 0 };
	struct model after;

	assert_non_null(buf);
	fill(buf, length, 7);
	model_put(&before, t->image, 1, 1, 1, filled);
	model_put(&before, t->image, 2, 1, 2, 3);
	ds_image_commit(t->image);

	after = before;
	model_put(&after, NULL, 3, 1, 7, length);
	step_commit(t, step_put_fn, &data, &before, &after);
}

static void test_killed(void **state)
{
	step_put(*state, 100, 1000);
}

static void test_killed_empty(void **state)
{
	step_put(*state, 100, 0);
}

static void test_killed_growing(void **state)
{
	step_put(*state, CHUNK - 200, 500);
}

/* Some are new, some replaced, some removed */
static void step_several(struct model *m, struct ds_image *image)
{
	model_put(m, image, 2, 1, 11, 130);
	model_remove(m, image, 1, 1);
	model_put(m, image, 1, 3, 12, 0);
	model_remove(m, image, 2, 2);
	model_put(m, image, 2, 2, 13, 44);
	model_put(m, image, 2, 1, 14, 70);
}

static void step_several_fn(struct ds_image *image, const void *arg)
{
	struct model m = *(const struct model *)arg;

	step_several(&m, image);
	ds_image_commit(image);
}

static void model_begin(struct model *m, struct ds_image *image)
{
	*m = (struct model) { .num = 0 };
	model_put(m, image, 2, 1, 1, 100);
	model_put(m, image, 2, 2, 2, 30);
	model_put(m, image, 1, 1, 3, 20);
	model_put(m, image, 2, 3, 4, 400);
	ds_image_commit(image);
}

/* All of it is there, or nothing */
static void test_killed_several(void **state)
{
	struct test *t = *state;
	struct model before;
	struct model after;

	model_begin(&before, t->image);
	after = before;
	step_several(&after, NULL);
	step_commit(t, step_several_fn, &before, &before, &after);
}

/* What is staged when the writer is killed is nothing */
static void test_killed_staged(void **state)
{
	struct test *t = *state;
	struct ds_image *image = NULL;
	struct model before;
	struct model after;

	model_begin(&before, t->image);
	after = before;
	step_several(&after, t->image);
	assert_int_equal(
		ds_image_open_live(t, ds_image_fd(t->image), &image), 0);
	assert_true(model_is(&before, image));
	TALLOC_FREE(image);

	/* nor does an end make it something */
	ds_image_complete(t->image);
	check_model(t->image, &before);
}

struct step_rewrite {
	size_t lengths[4];
};

static void step_rewrite(struct model *m,
			 struct ds_image *image,
			 const struct step_rewrite *r)
{
	size_t i;

	*m = (struct model) { .num = 0 };
	for (i = 0; i < ARRAY_SIZE(r->lengths); i++) {
		model_put(m, image, 3 - i % 2, 5 - i, 40 + i, r->lengths[i]);
	}
}

static void step_rewrite_fn(struct ds_image *image, const void *arg)
{
	struct model m;

	ds_image_rewrite(image);
	step_rewrite(&m, image, arg);
	ds_image_commit(image);
}

static void test_killed_rewriting(void **state)
{
	struct test *t = *state;
	const struct step_rewrite r = { { 10, 130, 0, 200 } };
	struct model before;
	struct model after;

	/* behind the old one */
	model_begin(&before, t->image);
	step_rewrite(&after, NULL, &r);
	step_commit(t, step_rewrite_fn, &r, &before, &after);
	assert_true(log_pos(t->image) > HEADER_SIZE);
}

/* The new log begins in front of the old one and stays there */
static void test_killed_rewriting_front(void **state)
{
	struct test *t = *state;
	const struct step_rewrite r = { { 10, 130, 0, 200 } };
	struct model before;
	struct model after;

	model_behind(&before, t->image, 600);
	step_rewrite(&after, NULL, &r);
	step_commit(t, step_rewrite_fn, &r, &before, &after);
	assert_int_equal(log_pos(t->image), FRONT);
}

/* It does not fit there: one part was written before that is known */
static void test_killed_rewriting_moves(void **state)
{
	struct test *t = *state;
	const struct step_rewrite r = { { 10, 130, 200, 150 } };
	struct model before;
	struct model after;
	uint64_t old;

	model_behind(&before, t->image, 400);
	old = log_pos(t->image);
	step_rewrite(&after, NULL, &r);
	step_commit(t, step_rewrite_fn, &r, &before, &after);
	assert_true(log_pos(t->image) > old);
}

/* And the file is too short for that */
static void test_killed_rewriting_grows(void **state)
{
	struct test *t = *state;
	const struct step_rewrite r = { { 10, 130, 500, 1000 } };
	struct model before;
	struct model after;

	model_behind(&before, t->image, 400);
	model_put(&before, t->image, 2, 9, 9, CHUNK - 2200);
	ds_image_commit(t->image);
	step_rewrite(&after, NULL, &r);
	assert_int_equal(fd_size(ds_image_fd(t->image)), CHUNK);
	step_commit(t, step_rewrite_fn, &r, &before, &after);
	assert_true(fd_size(ds_image_fd(t->image)) > CHUNK);
}

static void step_complete_fn(struct ds_image *image, const void *arg)
{
	ds_image_complete(image);
}

static void test_killed_completing(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 10, 0, 333 };
	size_t num_steps = 0;
	bool complete = false;
	pid_t pid;
	int fd = ds_image_fd(t->image);

	if (RUNNING_ON_VALGRIND) {
		skip();
	}

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	pid = step_start(step_complete_fn, t->image, NULL);
	do {
		struct ds_image *image = NULL;
		int ret = ds_image_open(t, fd, &image);

		num_steps += 1;
		if (ret != 0) {
			assert_int_equal(ret, ENODATA);
			assert_false(complete);
			continue;
		}
		complete = true;
		assert_int_equal(
			check_all(image, lengths, ARRAY_SIZE(lengths)),
			ARRAY_SIZE(lengths));
		TALLOC_FREE(image);
	} while (step(pid));
	step_kill(pid);

	assert_true(complete);
	assert_true(num_steps > 10);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_no_record),
		TEST(test_empty_record),
		TEST(test_many_records),
		TEST(test_large_record),
		TEST(test_chunk_is_full),
		TEST(test_writer_is_gone),
		TEST(test_too_large),
		TEST(test_file_is_full),
		TEST(test_memory_is_full),
		TEST(test_no_descriptor),
		TEST(test_not_an_image),
		TEST(test_not_complete),
		TEST(test_wrong_magic),
		TEST(test_wrong_version),
		TEST(test_truncated),
		TEST(test_zeroed),
		TEST(test_flipped),
		TEST(test_flipped_live),
		TEST(test_wipe),
		TEST(test_replace),
		TEST(test_remove),
		TEST(test_order),
		TEST(test_cancel),
		TEST(test_commit_after_complete),
		TEST(test_rewrite),
		TEST(test_rewrite_of_full),
		TEST(test_rewrite_cancel),
		TEST(test_rewrite_fits),
		TEST(test_rewrite_moves),
		TEST(test_rewrite_is_full),
		TEST(test_is_long),
		TEST(test_random),
		TEST(test_killed),
		TEST(test_killed_empty),
		TEST(test_killed_growing),
		TEST(test_killed_several),
		TEST(test_killed_staged),
		TEST(test_killed_rewriting),
		TEST(test_killed_rewriting_front),
		TEST(test_killed_rewriting_moves),
		TEST(test_killed_rewriting_grows),
		TEST(test_killed_completing),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
