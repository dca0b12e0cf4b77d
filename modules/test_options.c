/*
   durable_state: tests of the options

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

#include "includes.h"
#include <setjmp.h>
#include <cmocka.h>
#include "system/filesys.h"
#include "dynconfig/dynconfig.h"
#include "options.h"

struct test {
	TALLOC_CTX *frame;
	char *dir;
	char *file;
	/* what was logged */
	char *log;
};

static void test_log(void *private_data, int level, const char *msg)
{
	struct test *t = private_data;

	if (level > DBGLVL_ERR) {
		return;
	}
	t->log = talloc_asprintf_append(t->log, "%s\n", msg);
	assert_non_null(t->log);
}

static int setup(void **state)
{
	struct test *t = talloc_zero(NULL, struct test);

	assert_non_null(t);
	t->frame = talloc_stackframe();
	t->dir = talloc_strdup(t, "/tmp/test_options.XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	t->file = talloc_asprintf(t, "%s/smb.conf", t->dir);
	t->log = talloc_strdup(t, "");
	assert_non_null(t->file);
	assert_non_null(t->log);
	set_dyn_CONFIGFILE(t->file);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	debug_set_callback(NULL, NULL);
	unlink(t->file);
	assert_int_equal(rmdir(t->dir), 0);
	TALLOC_FREE(t->frame);
	TALLOC_FREE(t);
	return 0;
}

/* Line 1 is the first one of "lines" */
static bool load(struct test *t, const char *lines, struct ds_config **config)
{
	FILE *f = fopen(t->file, "w");
	bool ok;

	assert_non_null(f);
	assert_int_not_equal(fputs(lines, f), EOF);
	assert_int_equal(fclose(f), 0);
	/* shares would stay from one load to the next */
	lp_kill_all_services();
	assert_true(lp_load_with_shares(t->file));

	t->log[0] = '\0';
	debug_set_callback(t, test_log);
	ok = ds_config_load(t, config);
	debug_set_callback(NULL, NULL);
	return ok;
}

static void load_good(struct test *t,
		      const char *lines,
		      struct ds_config **config)
{
	assert_true(load(t, lines, config));
	assert_string_equal(t->log, "");
}

static void load_bad(struct test *t,
		     const char *lines,
		     int lineno,
		     const char *sentence)
{
	struct ds_config *config = NULL;
	char *expected = talloc_asprintf(
		t, "%s:%d: %s\n", t->file, lineno, sentence);

	assert_non_null(expected);
	assert_false(load(t, lines, &config));
	if (strstr(t->log, expected) == NULL) {
		fail_msg("'%s' is not in '%s'", expected, t->log);
	}
	assert_non_null(config->problem);
	assert_non_null(strstr(t->log, config->problem));
}

static void test_defaults(void **state)
{
	struct test *t = *state;
	struct ds_config *config = NULL;

	load_good(t, "[global]\n", &config);
	assert_null(config->problem);
	assert_int_equal(config->drain_timeout, 5);
	assert_int_equal(config->hold_time, 60);
	assert_int_equal(config->restore_timeout, 20);
	assert_int_equal(config->on_stop, DS_ON_STOP_KEEP);
	assert_int_equal(config->unprotected, DS_UNPROTECTED_CUT);
	assert_string_equal(strrchr(config->keeper, '/'), "/durable_stated");
}

static void test_values(void **state)
{
	struct test *t = *state;
	struct ds_config *config = NULL;

	load_good(t,
		  "[global]\n"
		  "durable_state:drain timeout = 600\n"
		  "  durable_state: hold time = 3600\n"
		  "\tdurable_state:restore timeout=1\n"
		  "# durable_state:no such = option\n"
		  "; durable_state:drain timeout = 0\n"
		  "Durable_State:On Stop = Drop\n"
		  "durable_state:unprotected =\tveto \n"
		  "durable_state:keeper = /opt/my keeper\n",
		  &config);
	assert_int_equal(config->drain_timeout, 600);
	assert_int_equal(config->hold_time, 3600);
	assert_int_equal(config->restore_timeout, 1);
	assert_int_equal(config->on_stop, DS_ON_STOP_DROP);
	assert_int_equal(config->unprotected, DS_UNPROTECTED_VETO);
	assert_string_equal(config->keeper, "/opt/my keeper");
}

static void test_unknown(void **state)
{
	struct test *t = *state;

	load_bad(t,
		 "[global]\n"
		 "\n"
		 "# a comment\n"
		 "durable_state:hold tiem = 60\n",
		 4,
		 "there is no option 'durable_state:hold tiem'");
	/* it does not matter in which section */
	load_bad(t,
		 "[global]\n"
		 "[share]\n"
		 "path = /\n"
		 "durable_state:share = yes\n",
		 4,
		 "there is no option 'durable_state:share'");
}

static void test_wrong_seconds(void **state)
{
	struct test *t = *state;
	const char *wrong[] = {
		"0", "601", "-1", "5s", "5 s", "soon", "1.5", "0x10",
		"99999999999999999999999",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		char *lines = talloc_asprintf(
			t,
			"[global]\ndurable_state:drain timeout = %s\n",
			wrong[i]);
		char *sentence = talloc_asprintf(
			t,
			"'durable_state:drain timeout' must be a number of "
			"seconds from 1 to 600, not '%s'",
			wrong[i]);

		assert_non_null(lines);
		assert_non_null(sentence);
		load_bad(t, lines, 2, sentence);
	}
}

static void test_wrong_choice(void **state)
{
	struct test *t = *state;

	load_bad(t,
		 "[global]\n"
		 "durable_state:on stop = dorp\n",
		 2,
		 "'durable_state:on stop' must be 'keep' or 'drop', "
		 "not 'dorp'");
	load_bad(t,
		 "[global]\n"
		 "durable_state:unprotected = yes\n",
		 2,
		 "'durable_state:unprotected' must be 'cut' or 'veto', "
		 "not 'yes'");
}

static void test_wrong_path(void **state)
{
	struct test *t = *state;

	load_bad(t,
		 "[global]\n"
		 "durable_state:keeper = durable_stated\n",
		 2,
		 "'durable_state:keeper' must be an absolute path, "
		 "not 'durable_stated'");
}

/* All of them are named, and what is used instead is the default */
static void test_several(void **state)
{
	struct test *t = *state;
	const char *lines =
		"[global]\n"
		"durable_state:drain timeout = 7\n"
		"durable_state:hold time = forever\n"
		"durable_state:foo = bar\n";
	struct ds_config *config = NULL;

	load_bad(t,
		 lines,
		 3,
		 "'durable_state:hold time' must be a number of seconds "
		 "from 1 to 3600, not 'forever'");
	load_bad(t, lines, 4, "there is no option 'durable_state:foo'");

	assert_false(load(t, lines, &config));
	/* who asks later is told of the first one */
	assert_non_null(strstr(config->problem, "smb.conf:3: "));
	assert_int_equal(config->drain_timeout, 7);
	assert_int_equal(config->hold_time, 60);
}

/* In a share it would look as if it had an effect */
static void test_in_share(void **state)
{
	struct test *t = *state;

	load_bad(t,
		 "durable_state:hold time = 30\n"
		 "[ Globals ]\n"
		 "durable_state:drain timeout = 7\n"
		 "# [share]\n"
		 "durable_state:restore timeout = 7\n"
		 "[my share]\n"
		 "path = /\n"
		 "durable_state:hold time = 30\n",
		 8,
		 "'durable_state:hold time' holds for the whole server: it "
		 "belongs in [global], not in [my share]");
	assert_null(strstr(t->log, "timeout"));

	load_good(t,
		  "[share]\n"
		  "path = /\n"
		  "[global]\n"
		  "durable_state:hold time = 30\n",
		  &(struct ds_config *){ NULL });
}

/* included is included at the end of lines */
static bool load_included(struct test *t,
			  const char *lines,
			  const char *included,
			  struct ds_config **config)
{
	char *file = talloc_asprintf(t, "%s/included", t->dir);
	FILE *f = NULL;
	bool ok;

	assert_non_null(file);
	f = fopen(file, "w");
	assert_non_null(f);
	assert_int_not_equal(fputs(included, f), EOF);
	assert_int_equal(fclose(f), 0);

	lines = talloc_asprintf(t, "%sinclude = %s\n", lines, file);
	assert_non_null(lines);
	ok = load(t, lines, config);
	unlink(file);
	return ok;
}

/* loadparm does not say in which line of which file it stood */
static void test_included(void **state)
{
	struct test *t = *state;
	struct ds_config *config = NULL;

	assert_false(load_included(t,
				   "[global]\n",
				   "durable_state:hold time = 0\n",
				   &config));
	assert_non_null(strstr(t->log, "'durable_state:hold time'"));
	assert_non_null(strstr(config->problem, "'durable_state:hold time'"));
	assert_int_equal(config->hold_time, 60);
}

static void test_included_in_share(void **state)
{
	struct test *t = *state;
	struct ds_config *config = NULL;

	assert_false(load_included(t,
				   "[global]\n"
				   "durable_state:hold time = 30\n"
				   "[other]\n"
				   "path = /\n"
				   "[share]\n"
				   "path = /\n",
				   "durable_state:hold time = 30\n",
				   &config));
	assert_string_equal(config->problem,
			    "'durable_state:hold time' holds for the whole "
			    "server: it belongs in [global], not in [share]");
	assert_int_equal(config->hold_time, 30);
}

static void test_share(void **state)
{
	struct test *t = *state;
	struct ds_config *config = NULL;

	load_good(t,
		  "[global]\n"
		  "[with]\n"
		  "path = /\n"
		  "vfs objects = streams_xattr durable_state\n"
		  "[without]\n"
		  "path = /\n"
		  "vfs objects = streams_xattr\n"
		  "[none]\n"
		  "path = /\n",
		  &config);
	assert_true(ds_config_share(lp_servicenumber("with")));
	assert_false(ds_config_share(lp_servicenumber("without")));
	assert_false(ds_config_share(lp_servicenumber("none")));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_defaults),
		TEST(test_values),
		TEST(test_unknown),
		TEST(test_wrong_seconds),
		TEST(test_wrong_choice),
		TEST(test_wrong_path),
		TEST(test_several),
		TEST(test_in_share),
		TEST(test_included),
		TEST(test_included_in_share),
		TEST(test_share),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
