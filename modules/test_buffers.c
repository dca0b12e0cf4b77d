/*
   durable_state: tests of the buffers of requests and replies

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
#include "buffers.h"

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* The least and the most that a block takes, and what there is in all */
#define MIN_BLOCK 512
#define MAX_BLOCK (16 * MIB)
#define ROOM (1024 * MIB)

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
	struct ds_buffers *b;
	size_t num_open;
};

static int setup(void **state)
{
	struct test *t = talloc_zero(NULL, struct test);

	assert_non_null(t);
	t->num_open = num_open_fds();
	assert_int_equal(ds_buffers_create(t, &t->b), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	TALLOC_FREE(t->b);
	assert_int_equal(num_open_fds(), t->num_open);
	TALLOC_FREE(t);
	return 0;
}

static void fill(uint8_t *data, size_t length, size_t number)
{
	size_t i;

	for (i = 0; i < length; i++) {
		data[i] = 1 + (i * 7 + number * 31) % 255;
	}
}

static bool is_filled(const uint8_t *data, size_t length, size_t number)
{
	size_t i;

	for (i = 0; i < length; i++) {
		if (data[i] != 1 + (i * 7 + number * 31) % 255) {
			return false;
		}
	}
	return true;
}

static off_t fd_size(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

/* Bytes that take memory */
static size_t fd_pages(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (size_t)st.st_blocks * 512;
}

static uint64_t offset_of(const struct ds_buffers *b,
			  const void *p,
			  size_t length)
{
	uint64_t offset = UINT64_MAX;

	assert_true(ds_buffers_find(b, p, length, &offset));
	assert_ptr_equal(ds_buffers_at(b, offset, length), p);
	return offset;
}

/* ---- allocation */

static void test_nothing(void **state)
{
	struct test *t = *state;
	uint64_t offset;
	int c;

	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 0);
	assert_false(ds_buffers_find(t->b, &c, sizeof(c), &offset));
	assert_false(ds_buffers_find(t->b, NULL, 0, &offset));
	assert_null(ds_buffers_at(t->b, 0, 1));
	ds_buffers_trim(t->b);
	ds_buffers_wipe(t->b);
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 0);
}

static void test_lengths(void **state)
{
	struct test *t = *state;
	static const size_t lengths[] = {
		0, 1, 511, 512, 513, 1024, 1025, 4096, 65536, 65537,
		MIB, MIB + 1, 8 * MIB, 8 * MIB + 1, MAX_BLOCK,
	};
	void *owner = talloc_new(t);
	uint8_t *p[ARRAY_SIZE(lengths)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		p[i] = ds_buffers_alloc(t->b, owner, lengths[i]);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % MIN_BLOCK, 0);
		fill(p[i], lengths[i], i);
		offset_of(t->b, p[i], lengths[i]);
	}
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		assert_true(is_filled(p[i], lengths[i], i));
	}

	assert_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK + 1));
	assert_null(ds_buffers_alloc(t->b, owner, ROOM));
	assert_null(ds_buffers_alloc(t->b, owner, SIZE_MAX));
	TALLOC_FREE(owner);
}

static void test_owner(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	void *other = talloc_new(t);
	void *p = ds_buffers_alloc(t->b, owner, 1000);
	void *q = ds_buffers_alloc(t->b, owner, 1000);
	struct ds_buffers *reader = NULL;

	assert_non_null(p);
	assert_non_null(q);
	assert_ptr_not_equal(p, q);
	assert_int_equal(talloc_total_blocks(owner), 3);

	/* what was freed last is used first */
	TALLOC_FREE(owner);
	owner = talloc_new(t);
	assert_ptr_equal(ds_buffers_alloc(t->b, owner, 600), p);
	assert_ptr_equal(ds_buffers_alloc(t->b, other, 1024), q);

	/* it goes where its owner goes, and they may live longer */
	talloc_steal(other, owner);
	assert_int_equal(ds_buffers_open(t, ds_buffers_fd(t->b), &reader), 0);
	TALLOC_FREE(t->b);
	TALLOC_FREE(other);
	TALLOC_FREE(reader);
}

/* The first pointers are good when there is much more */
static void test_pointers_stay(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	uint8_t *p = ds_buffers_alloc(t->b, owner, 5000);
	uint64_t offset;
	size_t i;

	assert_non_null(p);
	fill(p, 5000, 1);
	offset = offset_of(t->b, p, 5000);
	for (i = 0; i < 20; i++) {
		uint8_t *q = ds_buffers_alloc(t->b, owner, MAX_BLOCK);

		assert_non_null(q);
		q[MAX_BLOCK - 1] = 1;
	}
	assert_true(is_filled(p, 5000, 1));
	assert_int_equal(offset_of(t->b, p, 5000), offset);
	TALLOC_FREE(owner);
}

static size_t alloc_all(struct ds_buffers *b, void *owner, size_t length)
{
	size_t num = 0;

	while (ds_buffers_alloc(b, owner, length) != NULL) {
		num += 1;
	}
	return num;
}

static void test_out_of_room(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	void *small = talloc_new(t);
	void *one = talloc_new(t);

	assert_non_null(ds_buffers_alloc(t->b, one, MAX_BLOCK));
	assert_int_equal(alloc_all(t->b, owner, MAX_BLOCK),
			 ROOM / MAX_BLOCK - 1);
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), ROOM);
	/* none of another length either, nor after that */
	assert_null(ds_buffers_alloc(t->b, small, 1));
	assert_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK));

	/* one becomes many */
	TALLOC_FREE(one);
	assert_int_equal(alloc_all(t->b, small, 1), MAX_BLOCK / MIN_BLOCK);
	assert_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK));

	/* and many become one */
	TALLOC_FREE(small);
	assert_int_equal(alloc_all(t->b, owner, MAX_BLOCK), 1);
	TALLOC_FREE(owner);

	/* nothing was lost */
	owner = talloc_new(t);
	assert_int_equal(alloc_all(t->b, owner, MAX_BLOCK), ROOM / MAX_BLOCK);
	TALLOC_FREE(owner);
	owner = talloc_new(t);
	assert_int_equal(alloc_all(t->b, owner, 64 * KIB),
			 ROOM / (64 * KIB));
	TALLOC_FREE(owner);
}

/* What is skipped so that a large one is aligned is not lost */
static void test_gap(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	size_t num;

	assert_non_null(ds_buffers_alloc(t->b, owner, 1));
	assert_non_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK));
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 2 * MAX_BLOCK);
	for (num = 1; num < MAX_BLOCK / MIN_BLOCK; num++) {
		assert_non_null(ds_buffers_alloc(t->b, owner, 1));
	}
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 2 * MAX_BLOCK);
	assert_non_null(ds_buffers_alloc(t->b, owner, 1));
	assert_true(fd_size(ds_buffers_fd(t->b)) > (off_t)(2 * MAX_BLOCK));
	TALLOC_FREE(owner);
}

static void test_file_is_full(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	uint8_t *p = ds_buffers_alloc(t->b, owner, 1000);
	size_t left = fd_size(ds_buffers_fd(t->b));

	assert_non_null(p);
	fill(p, 1000, 3);
	assert_int_equal(
		fcntl(ds_buffers_fd(t->b), F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK));
	assert_null(ds_buffers_alloc(t->b, owner, MAX_BLOCK));
	/* there is still room for small ones */
	assert_int_equal(alloc_all(t->b, owner, 1024), left / 1024 - 1);
	assert_true(is_filled(p, 1000, 3));
	TALLOC_FREE(owner);
}

static void test_no_address_space(void **state)
{
	struct test *t = *state;
	struct ds_buffers *b = NULL;
	struct rlimit old;
	struct rlimit none;
	int ret;

	if (RUNNING_ON_VALGRIND) {
		/* it needs memory too */
		skip();
	}

	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit) { .rlim_cur = 4096, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	ret = ds_buffers_create(t, &b);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	assert_int_equal(ret, ENOMEM);
	assert_null(b);
}

static void test_no_descriptor(void **state)
{
	struct test *t = *state;
	struct ds_buffers *b = NULL;
	struct rlimit old;
	struct rlimit none;
	int ret;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit) { .rlim_cur = 0, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	ret = ds_buffers_create(t, &b);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(ret, EMFILE);
	assert_null(b);
}

/* ---- pointers and offsets */

static void test_find(void **state)
{
	struct test *t = *state;
	uint8_t *private = talloc_array(t, uint8_t, 512);
	uint8_t *p = ds_buffers_alloc(t->b, t, 512);
	uint8_t *q = ds_buffers_alloc(t->b, t, 512);
	uint64_t first;
	uint64_t offset = 77;

	assert_non_null(private);
	assert_non_null(p);
	assert_non_null(q);
	first = offset_of(t->b, p, 512);
	assert_int_equal(first, 0);
	assert_int_equal(offset_of(t->b, q, 512), 512);
	assert_int_equal(offset_of(t->b, p + 100, 10), 100);
	assert_int_equal(offset_of(t->b, p, 1024), 0);
	assert_int_equal(offset_of(t->b, p, 0), 0);

	assert_false(ds_buffers_find(t->b, private, 512, &offset));
	assert_false(ds_buffers_find(t->b, NULL, 512, &offset));
	assert_false(ds_buffers_find(t->b, p - 1, 512, &offset));
	assert_false(ds_buffers_find(t->b, p - 1, 0, &offset));
	/* nothing was ever there */
	assert_false(ds_buffers_find(t->b, q, 513, &offset));
	assert_false(ds_buffers_find(t->b, q + 512, 1, &offset));
	assert_false(ds_buffers_find(t->b, q + 513, 0, &offset));
	assert_false(ds_buffers_find(t->b, p, SIZE_MAX, &offset));
	assert_false(ds_buffers_find(t->b, q, -(uintptr_t)q, &offset));
	assert_int_equal(offset, 77);
}

static void test_at(void **state)
{
	struct test *t = *state;
	uint8_t *p = ds_buffers_alloc(t->b, t, 1000);

	assert_non_null(p);
	assert_ptr_equal(ds_buffers_at(t->b, 0, 1024), p);
	assert_ptr_equal(ds_buffers_at(t->b, 1023, 1), p + 1023);
	assert_null(ds_buffers_at(t->b, 0, 1025));
	assert_null(ds_buffers_at(t->b, 1024, 1));
	assert_null(ds_buffers_at(t->b, 1025, 0));
	assert_null(ds_buffers_at(t->b, 1, SIZE_MAX));
	assert_null(ds_buffers_at(t->b, UINT64_MAX, 1));
	assert_null(ds_buffers_at(t->b, UINT64_MAX - 511, 512));
}

/* ---- readers */

static void test_reader(void **state)
{
	struct test *t = *state;
	uint8_t *p = ds_buffers_alloc(t->b, t, 3 * MIB);
	uint8_t *q = ds_buffers_alloc(t->b, t, 700);
	struct ds_buffers *reader = NULL;
	uint64_t offset_p;
	uint64_t offset_q;
	off_t size;
	int fd = ds_buffers_fd(t->b);

	assert_non_null(p);
	assert_non_null(q);
	fill(p, 3 * MIB, 1);
	fill(q, 700, 2);
	offset_p = offset_of(t->b, p, 3 * MIB);
	offset_q = offset_of(t->b, q, 700);
	size = fd_size(fd);

	assert_int_equal(ds_buffers_open(t, fd, &reader), 0);
	assert_int_equal(ds_buffers_fd(reader), fd);
	assert_true(is_filled(
		ds_buffers_at(reader, offset_p, 3 * MIB), 3 * MIB, 1));
	assert_true(is_filled(ds_buffers_at(reader, offset_q, 700), 700, 2));
	assert_non_null(ds_buffers_at(reader, 0, size));
	assert_null(ds_buffers_at(reader, 0, size + 1));
	assert_null(ds_buffers_at(reader, size, 1));
	assert_false(ds_buffers_find(reader, p, 1, &offset_p));
	assert_int_equal(
		offset_of(reader, ds_buffers_at(reader, 55, 10), 10), 55);
	TALLOC_FREE(reader);

	/* the descriptor is still good */
	assert_int_equal(ds_buffers_open(t, fd, &reader), 0);
	TALLOC_FREE(reader);
}

static void test_reader_of_nothing(void **state)
{
	struct test *t = *state;
	struct ds_buffers *reader = NULL;
	uint64_t offset;
	int c;

	assert_int_equal(ds_buffers_open(t, ds_buffers_fd(t->b), &reader), 0);
	assert_null(ds_buffers_at(reader, 0, 0));
	assert_null(ds_buffers_at(reader, 0, 1));
	assert_false(ds_buffers_find(reader, &c, sizeof(c), &offset));
	assert_false(ds_buffers_find(reader, NULL, 0, &offset));
	ds_buffers_wipe(reader);
	TALLOC_FREE(reader);
}

static void check_error(int fd, int error)
{
	struct ds_buffers *reader = NULL;

	assert_int_equal(ds_buffers_open(NULL, fd, &reader), error);
	assert_null(reader);
}

static void test_not_buffers(void **state)
{
	int fds[2];
	int fd;

	check_error(-1, EBADF);

	fd = open("/dev/zero", O_RDWR);
	assert_int_not_equal(fd, -1);
	check_error(fd, EBADMSG);
	close(fd);

	assert_int_equal(pipe(fds), 0);
	check_error(fds[0], EBADMSG);
	close(fds[0]);
	close(fds[1]);

	/* longer than one can be */
	fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_not_equal(fd, -1);
	assert_int_equal(ftruncate(fd, ROOM + 1), 0);
	check_error(fd, EBADMSG);
	close(fd);
}

/* What a process has written when it is killed: the offsets are sent */
static void killed_child(int fd)
{
	struct ds_buffers *b = NULL;
	size_t i;

	if (ds_buffers_create(NULL, &b) != 0) {
		_exit(1);
	}
	i = ds_buffers_fd(b);
	(void)write(fd, &i, sizeof(i));
	for (i = 0;; i++) {
		uint8_t *p = ds_buffers_alloc(b, b, 3000);
		uint64_t offset;

		if ((p == NULL) || !ds_buffers_find(b, p, 3000, &offset)) {
			_exit(1);
		}
		fill(p, 3000, i);
		if (write(fd, &offset, sizeof(offset)) != sizeof(offset)) {
			_exit(1);
		}
	}
}

static void test_killed(void **state)
{
	struct test *t = *state;
	struct ds_buffers *reader = NULL;
	uint64_t offset;
	char path[64];
	size_t i;
	int fds[2];
	int fd;
	int status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		close(fds[0]);
		killed_child(fds[1]);
	}
	close(fds[1]);

	assert_int_equal(read(fds[0], &offset, sizeof(offset)),
			 sizeof(offset));
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, (int)offset);
	fd = open(path, O_RDWR);
	assert_int_not_equal(fd, -1);
	for (i = 0; i < 1000; i++) {
		assert_int_equal(read(fds[0], &offset, sizeof(offset)),
				 sizeof(offset));
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	assert_int_equal(ds_buffers_open(t, fd, &reader), 0);
	do {
		const uint8_t *p = ds_buffers_at(reader, offset, 3000);

		assert_non_null(p);
		assert_true(is_filled(p, 3000, i - 1));
		i += 1;
	} while (read(fds[0], &offset, sizeof(offset)) == sizeof(offset));
	TALLOC_FREE(reader);
	close(fd);
	close(fds[0]);
}

/* Two would use the same memory */
static void test_fork(void **state)
{
	struct test *t = *state;
	volatile uint8_t *p = ds_buffers_alloc(t->b, t, 1000);
	int status;
	pid_t pid;

	if (RUNNING_ON_VALGRIND) {
		skip();
	}

	assert_non_null(p);
	p[0] = 1;
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		p[0] = 2;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_int_equal(p[0], 1);
}

/* ---- back to the kernel */

static void test_trim(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	uint8_t *p = ds_buffers_alloc(t->b, t, 5000);
	uint8_t *q = NULL;
	size_t i;
	int fd = ds_buffers_fd(t->b);

	assert_non_null(p);
	fill(p, 5000, 1);
	for (i = 0; i < 200; i++) {
		q = ds_buffers_alloc(t->b, owner, (i * i * 997) % MIB);
		assert_non_null(q);
		fill(q, (i * i * 997) % MIB, i);
	}
	assert_true(fd_pages(fd) > 50 * MIB);
	TALLOC_FREE(owner);
	assert_true(fd_pages(fd) > 50 * MIB);

	ds_buffers_trim(t->b);
	assert_int_equal(fd_size(fd), 8192);
	assert_true(fd_pages(fd) <= 8192);
	assert_true(is_filled(p, 5000, 1));

	/* and it goes on: what is next is behind the first one */
	q = ds_buffers_alloc(t->b, t, 5000);
	assert_ptr_equal(q, p + 8192);
	fill(q, 5000, 2);
	assert_true(is_filled(p, 5000, 1));
}

/* One at the end holds what is before it, but not its memory */
static void test_trim_pinned(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	uint8_t *p = NULL;
	uint8_t *q = NULL;
	size_t i;
	int fd = ds_buffers_fd(t->b);

	for (i = 0; i < 50; i++) {
		q = ds_buffers_alloc(t->b, owner, MIB);
		assert_non_null(q);
		fill(q, MIB, i);
	}
	p = ds_buffers_alloc(t->b, t, 3000);
	assert_non_null(p);
	fill(p, 3000, 1);
	TALLOC_FREE(owner);
	ds_buffers_trim(t->b);
	assert_true(fd_size(fd) >= (off_t)(50 * MIB));
	assert_true(fd_pages(fd) <= 8192);
	assert_true(is_filled(p, 3000, 1));

	/* what has no memory is used before there is more of it */
	q = ds_buffers_alloc(t->b, t, 1000);
	assert_non_null(q);
	assert_true(offset_of(t->b, q, 1000) < 50 * MIB);
	fill(q, 1000, 2);
	ds_buffers_trim(t->b);
	assert_true(is_filled(p, 3000, 1));
	assert_true(is_filled(q, 1000, 2));
}

static void test_trim_all(void **state)
{
	struct test *t = *state;
	void *owner = talloc_new(t);
	size_t i;

	for (i = 0; i < 10; i++) {
		assert_non_null(ds_buffers_alloc(t->b, owner, 1 << (2 * i)));
		assert_non_null(ds_buffers_alloc(t->b, owner, 1 << (i + 10)));
	}
	TALLOC_FREE(owner);
	ds_buffers_trim(t->b);
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 0);
	assert_int_equal(fd_pages(ds_buffers_fd(t->b)), 0);

	owner = talloc_new(t);
	assert_int_equal(alloc_all(t->b, owner, MAX_BLOCK), ROOM / MAX_BLOCK);
	TALLOC_FREE(owner);
}

static void check_wiped(const uint8_t *p, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++) {
		assert_int_equal(p[i], 0);
	}
}

static void test_wipe(void **state)
{
	struct test *t = *state;
	struct ds_buffers *reader = NULL;
	uint8_t *p = ds_buffers_alloc(t->b, t, 100 * KIB);
	uint8_t *q = ds_buffers_alloc(t->b, t, 2 * MIB);
	int fd = ds_buffers_fd(t->b);
	off_t size = fd_size(fd);

	assert_non_null(p);
	assert_non_null(q);
	assert_int_equal(ds_buffers_open(t, fd, &reader), 0);

	fill(p, 100 * KIB, 1);
	fill(q, 2 * MIB, 2);
	ds_buffers_wipe(t->b);
	check_wiped(ds_buffers_at(reader, 0, size), size);

	/* who reads it can do it as well; what is in use stays so */
	fill(p, 100 * KIB, 1);
	fill(q, 2 * MIB, 2);
	ds_buffers_wipe(reader);
	check_wiped(ds_buffers_at(reader, 0, size), size);
	check_wiped(p, 100 * KIB);
	check_wiped(q, 2 * MIB);
	assert_int_equal(fd_size(fd), size);
	TALLOC_FREE(reader);
}

/* ---- all of it in any order */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) +
		UINT64_C(1442695040888963407);
	return *seed >> 33;
}

struct random_block {
	void *owner;
	uint8_t *p;
	size_t length;
	size_t number;
};

/* Long ones are seldom, and looked at in part */
static size_t random_length(uint64_t *seed)
{
	uint32_t bits = 4 + next_random(seed) % 14;

	if (next_random(seed) % 50 == 0) {
		bits = 24;
	}
	return next_random(seed) % ((1U << bits) + 1);
}

static void check_block(const struct random_block *block)
{
	size_t length = MIN(block->length, 2000);

	assert_true(is_filled(block->p, length, block->number));
	if (block->length > length) {
		/* its last byte is its own, too */
		assert_int_equal(block->p[block->length - 1],
				 1 + block->number % 255);
	}
}

static void random_alloc(struct test *t,
			 struct random_block *block,
			 size_t number,
			 size_t length)
{
	size_t block_size = MIN_BLOCK;

	block->owner = talloc_new(t);
	block->p = ds_buffers_alloc(t->b, block->owner, length);
	block->length = length;
	block->number = number;
	if (block->p == NULL) {
		TALLOC_FREE(block->owner);
		return;
	}
	/* aligned to what it takes */
	while (block_size < length) {
		block_size *= 2;
	}
	assert_int_equal(offset_of(t->b, block->p, length) % block_size, 0);
	fill(block->p, MIN(length, 2000), number);
	if (length > 2000) {
		block->p[length - 1] = 1 + number % 255;
	}
}

static void test_random(void **state)
{
	struct test *t = *state;
	static struct random_block blocks[400];
	uint64_t seed = 20260102;
	size_t i;
	size_t j;

	memset(blocks, 0, sizeof(blocks));
	for (i = 0; i < 20000; i++) {
		struct random_block *block =
			&blocks[next_random(&seed) % ARRAY_SIZE(blocks)];

		if (block->owner == NULL) {
			random_alloc(t, block, i, random_length(&seed));
		} else {
			check_block(block);
			TALLOC_FREE(block->owner);
		}
		if (i % 1000 != 0) {
			continue;
		}
		ds_buffers_trim(t->b);
		for (j = 0; j < ARRAY_SIZE(blocks); j++) {
			if (blocks[j].owner != NULL) {
				check_block(&blocks[j]);
			}
		}
	}

	for (j = 0; j < ARRAY_SIZE(blocks); j++) {
		TALLOC_FREE(blocks[j].owner);
	}
	ds_buffers_trim(t->b);
	assert_int_equal(fd_size(ds_buffers_fd(t->b)), 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_nothing),
		TEST(test_lengths),
		TEST(test_owner),
		TEST(test_pointers_stay),
		TEST(test_out_of_room),
		TEST(test_gap),
		TEST(test_file_is_full),
		TEST(test_no_address_space),
		TEST(test_no_descriptor),
		TEST(test_find),
		TEST(test_at),
		TEST(test_reader),
		TEST(test_reader_of_nothing),
		TEST(test_not_buffers),
		TEST(test_killed),
		TEST(test_fork),
		TEST(test_trim),
		TEST(test_trim_pinned),
		TEST(test_trim_all),
		TEST(test_wipe),
		TEST(test_random),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
