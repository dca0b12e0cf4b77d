/*
   durable_state: a process that is killed in the middle of a store to a TDB

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
#include "system/filesys.h"
#include "system/time.h"
#include "system/wait.h"
#include <tdb.h>
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

/*
 * The databases of open files are stored to by the process of each client.
 * Whenever one is killed, the others find in each record what it was before or
 * what it was to become, and can store, delete and allocate as always.
 *
 * Of the keys, the first half always exists. There are few hash chains, so
 * that records share them and take each other's space.
 */
#define NUM_KEYS 24
#define NUM_CHAINS 5
#define MAX_LENGTH 700
#define NUM_KILLS (RUNNING_ON_VALGRIND ? 20 : 2000)

/* As dbwrap opens locking.tdb */
#define FLAGS (TDB_VOLATILE | TDB_CLEAR_IF_FIRST | TDB_INCOMPATIBLE_HASH)

struct test {
	char dir[64];
	char path[96];
	struct tdb_context *tdb;
	unsigned int seed;
	size_t num[NUM_KEYS];
};

static TDB_DATA key_of(const unsigned int *i)
{
	return (TDB_DATA) {
		.dptr = discard_const_p(uint8_t, i), .dsize = sizeof(*i),
	};
}

/* A value says how long it is, and is the same byte all over. */
static size_t fill(uint8_t *buf, unsigned int *seed)
{
	size_t len = sizeof(uint32_t) + rand_r(seed) % MAX_LENGTH;
	uint32_t said = len;

	memset(buf, rand_r(seed), len);
	memcpy(buf, &said, sizeof(said));
	return len;
}

static int check_value(TDB_DATA key, TDB_DATA data, void *private_data)
{
	uint32_t said = 0;
	size_t i;

	assert_true(data.dsize >= sizeof(said));
	memcpy(&said, data.dptr, sizeof(said));
	assert_int_equal(said, data.dsize);
	for (i = sizeof(said) + 1; i < data.dsize; i++) {
		assert_int_equal(data.dptr[i], data.dptr[sizeof(said)]);
	}
	return 0;
}

static int check_record(struct tdb_context *tdb,
			TDB_DATA key,
			TDB_DATA data,
			void *private_data)
{
	struct test *t = private_data;
	unsigned int i;

	assert_int_equal(key.dsize, sizeof(i));
	memcpy(&i, key.dptr, sizeof(i));
	assert_true(i < NUM_KEYS);
	t->num[i] += 1;
	return check_value(key, data, NULL);
}

static int store_any(struct tdb_context *tdb, unsigned int i,
		     unsigned int *seed)
{
	uint8_t buf[sizeof(uint32_t) + MAX_LENGTH];
	TDB_DATA data = { .dptr = buf, };

	data.dsize = fill(buf, seed);
	return tdb_store(tdb, key_of(&i), data, TDB_REPLACE);
}

static void change_any(struct tdb_context *tdb, unsigned int *seed)
{
	unsigned int i = rand_r(seed) % NUM_KEYS;

	if ((i >= NUM_KEYS / 2) && (rand_r(seed) % 2 == 0)) {
		(void)tdb_delete(tdb, key_of(&i));
	} else {
		(void)store_any(tdb, i, seed);
	}
}

static int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	int flags = FLAGS;
	unsigned int i;

	assert_non_null(t);
	strlcpy(t->dir, "/tmp/test_tdb.XXXXXX", sizeof(t->dir));
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->path, sizeof(t->path), "%s/test.tdb", t->dir);
	if (tdb_runtime_check_for_robust_mutexes()) {
		flags |= TDB_MUTEX_LOCKING;
	}
	t->tdb = tdb_open(t->path, NUM_CHAINS, flags, O_RDWR | O_CREAT, 0600);
	assert_non_null(t->tdb);
	for (i = 0; i < NUM_KEYS; i++) {
		assert_int_equal(store_any(t->tdb, i, &t->seed), 0);
	}
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	tdb_close(t->tdb);
	unlink(t->path);
	rmdir(t->dir);
	free(t);
	return 0;
}

static void run_and_kill(struct test *t)
{
	struct timespec wait = { .tv_nsec = rand_r(&t->seed) % 200000, };
	unsigned int seed = rand_r(&t->seed);
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		if (tdb_reopen(t->tdb) != 0) {
			_exit(1);
		}
		(void)write(ready[1], "", 1);
		while (true) {
			change_any(t->tdb, &seed);
		}
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	(void)nanosleep(&wait, NULL);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void check_all(struct test *t)
{
	unsigned int i;

	for (i = 0; i < NUM_KEYS / 2; i++) {
		assert_int_equal(tdb_parse_record(t->tdb,
						  key_of(&i),
						  check_value,
						  NULL),
				 0);
	}
}

static void test_kill(void **state)
{
	struct test *t = *state;
	int kills;
	unsigned int i;

	for (kills = 0; kills < NUM_KILLS; kills++) {
		run_and_kill(t);
		check_all(t);
		for (i = 0; i < 8; i++) {
			change_any(t->tdb, &t->seed);
		}
		check_all(t);
	}

	/* one store for each, and there is one of each */
	for (i = 0; i < NUM_KEYS; i++) {
		assert_int_equal(store_any(t->tdb, i, &t->seed), 0);
	}
	memset(t->num, 0, sizeof(t->num));
	assert_int_equal(tdb_traverse_read(t->tdb, check_record, t),
			 NUM_KEYS);
	for (i = 0; i < NUM_KEYS; i++) {
		assert_int_equal(t->num[i], 1);
	}
	/* and none that comes back */
	for (i = 0; i < NUM_KEYS; i++) {
		assert_int_equal(tdb_delete(t->tdb, key_of(&i)), 0);
	}
	assert_int_equal(tdb_traverse_read(t->tdb, NULL, NULL), 0);
}

/* What a killed process leaves unused is little. */
static void test_size(void **state)
{
	struct test *t = *state;
	int kills;

	for (kills = 0; kills < NUM_KILLS / 4; kills++) {
		run_and_kill(t);
	}
	assert_true(tdb_map_size(t->tdb) < 4 * 1024 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
