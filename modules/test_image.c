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

#define HEADER_SIZE 24
#define RECORD_SIZE 16

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

static int append(struct ds_image *image, size_t number, size_t length)
{
	uint8_t *data = talloc_array(image, uint8_t, length);
	int ret;

	assert_non_null(data);
	fill(data, length, number);
	ret = ds_image_append(
		image, type_of(number), data_blob_const(data, length));
	TALLOC_FREE(data);
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
	DATA_BLOB data;

	while (ds_image_next(image, &pos, &type, &data)) {
		uint8_t *expected = NULL;

		assert_true(i < num);
		assert_int_equal(type, type_of(i));
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

/* ---- round trips */

static void test_no_record(void **state)
{
	struct test *t = *state;

	assert_int_equal(check_all(t->image, NULL, 0), 0);
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
		ds_image_append(t->image, type_of(0), data_blob_null), 0);
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

	/* the writer sees them as well, before the end and after it */
	assert_int_equal(check_all(t->image, lengths, ARRAY_SIZE(lengths)),
			 ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	assert_int_equal(check_all(t->image, lengths, ARRAY_SIZE(lengths)),
			 ARRAY_SIZE(lengths));
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

/* The last byte of a chunk is used before it grows */
static void test_chunk_is_full(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = {
		CHUNK - HEADER_SIZE - 2 * RECORD_SIZE - 8, 8, 0,
	};

	append_all(t->image, lengths, 2);
	assert_int_equal(ds_image_size(t->image), CHUNK);
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
	assert_int_equal(ds_image_append(t->image,
					 type_of(1),
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
	assert_int_equal(check_all(t->image, lengths, 2), 2);

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
	ret = ds_image_append(
		t->image, type_of(1), data_blob_const(data, CHUNK));
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);

	assert_int_equal(ret, ENOMEM);
	assert_int_equal(ds_image_size(t->image), size);
	assert_int_equal(check_all(t->image, lengths, 1), 1);

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
 * The lengths are such that one bit in the header makes the end of the last
 * record that of another one.
 */
static void test_flipped(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 16, 5, 0, 17, 48, 0 };
	int fd = ds_image_fd(t->image);
	bool same[2000] = { false, };
	size_t used;
	size_t pos;
	size_t i;
	unsigned int bit;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	used = ds_image_size(t->image);
	assert_true(used + 64 < ARRAY_SIZE(same));

	/* padding, a record's reserved field and what is not used */
	pos = HEADER_SIZE;
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(&same[pos + 12], true, 4);
		pos += RECORD_SIZE + lengths[i];
		while ((pos % 8) != 0) {
			same[pos++] = true;
		}
	}
	assert_int_equal(pos, used);
	memset(&same[used], true, 64);

	for (pos = 0; pos < used + 64; pos++) {
		for (bit = 0; bit < 8; bit++) {
			struct ds_image *image = NULL;
			int ret;

			flip(fd, pos, 1 << bit);
			ret = ds_image_open(t, fd, &image);
			if (same[pos]) {
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
 * Records that end elsewhere, in an image that is complete for all that its
 * header says: no luck with a sum may lead beyond the end.
 */
static void test_flipped_before_complete(void **state)
{
	struct test *t = *state;
	const size_t lengths[] = { 16, 5, 0, 17, 48, 0 };
	uint8_t good[HEADER_SIZE + 1000];
	size_t used;
	size_t pos;
	unsigned int bit;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	used = ds_image_size(t->image);
	assert_true(used < sizeof(good));
	assert_int_equal(
		pread(ds_image_fd(t->image), good, used, 0), used);

	for (pos = 12; pos < used; pos++) {
		for (bit = 0; bit < 8; bit++) {
			struct ds_image *copy = NULL;
			struct ds_image *image = NULL;
			int ret;

			assert_int_equal(ds_image_create(t, &copy), 0);
			good[pos] ^= 1 << bit;
			assert_int_equal(
				pwrite(ds_image_fd(copy), good, used, 0),
				used);
			good[pos] ^= 1 << bit;
			ds_image_complete(copy);

			ret = ds_image_open(t, ds_image_fd(copy), &image);
			if (ret == 0) {
				/* or fewer: the header's length is less */
				check_all(image,
					  lengths,
					  ARRAY_SIZE(lengths));
			} else {
				assert_int_equal(ret, EBADMSG);
			}
			TALLOC_FREE(image);
			TALLOC_FREE(copy);
		}
	}
}

static void check_wiped(int fd)
{
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
}

static void test_wipe(void **state)
{
	struct test *t = *state;
	/* used to the last byte */
	const size_t lengths[] = { 1000, 3 * CHUNK + 1, CHUNK - 1080 };
	struct ds_image *reader = NULL;
	int fd = ds_image_fd(t->image);
	off_t size;

	append_all(t->image, lengths, ARRAY_SIZE(lengths));
	ds_image_complete(t->image);
	size = fd_size(fd);
	assert_int_equal(ds_image_size(t->image), size);
	ds_image_wipe(t->image);
	check_wiped(fd);
	assert_int_equal(fd_size(fd), size);
	assert_int_equal(check_all(t->image, NULL, 0), 0);
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

/* Complete a copy of it: how many good records has it? */
static size_t snapshot_check(TALLOC_CTX *mem_ctx,
			     const struct snapshot *s,
			     const size_t *lengths,
			     size_t num)
{
	struct ds_image *copy = NULL;
	struct ds_image *image = NULL;
	size_t num_found;

	assert_int_equal(ds_image_create(mem_ctx, &copy), 0);
	assert_int_equal(pwrite(ds_image_fd(copy), s->data, s->length, 0),
			 s->length);
	ds_image_complete(copy);
	assert_int_equal(
		ds_image_open(mem_ctx, ds_image_fd(copy), &image), 0);
	num_found = check_all(image, lengths, num);
	TALLOC_FREE(image);
	TALLOC_FREE(copy);
	return num_found;
}

static void step_append_fn(struct ds_image *image, const void *arg)
{
	const DATA_BLOB *data = arg;

	if (ds_image_append(image, type_of(2), *data) != 0) {
		_exit(2);
	}
}

/*
 * Two records are there, a third one of this length is added.
 */
static void step_append(struct test *t, size_t filled, size_t length)
{
	const size_t lengths[] = { filled, 3, length };
	uint8_t *buf = talloc_array(t, uint8_t, length);
	DATA_BLOB data = data_blob_const(buf, length);
	struct snapshot s = { .data = NULL };
	size_t num_old = 0;
	size_t num_new = 0;
	pid_t pid;
	int fd = ds_image_fd(t->image);

	if (RUNNING_ON_VALGRIND) {
		/* its instructions would be counted */
		skip();
	}

	assert_non_null(buf);
	fill(buf, length, 2);
	append_all(t->image, lengths, 2);

	pid = step_start(step_append_fn, t->image, &data);
	do {
		if (!snapshot(t, fd, &s)) {
			continue;
		}
		switch (snapshot_check(t, &s, lengths, 3)) {
		case 2:
			/* once it is there, it stays */
			assert_int_equal(num_new, 0);
			num_old += 1;
			break;
		case 3:
			num_new += 1;
			break;
		default:
			fail();
		}
	} while (step(pid));
	step_kill(pid);

	/* the header's length is the last of several stores */
	assert_true(num_old > 2);
	assert_int_equal(num_new, 1);

	/* and nobody had said that it is complete */
	check_error(fd, ENODATA);
	ds_image_complete(t->image);
	check_fd(fd, lengths, 3);
}

static void test_killed(void **state)
{
	step_append(*state, 100, 1000);
}

static void test_killed_empty(void **state)
{
	step_append(*state, 100, 0);
}

static void test_killed_growing(void **state)
{
	step_append(*state, CHUNK - 200, 500);
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
		TEST(test_flipped_before_complete),
		TEST(test_wipe),
		TEST(test_killed),
		TEST(test_killed_empty),
		TEST(test_killed_growing),
		TEST(test_killed_completing),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
