/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: directory scans

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
#include "libcli/security/security.h"
#include "torture/durable_state/ds_util.h"

/* How often each of the files of a directory was returned. */
struct ds_scan {
	struct ds_client *c;
	struct smb2_handle h;
	unsigned num_files;
	unsigned *seen;
	/* entries that are not files of ours, as "." */
	unsigned others;
};

static bool ds_scan_prepare(struct torture_context *tctx,
			    struct ds_client *c,
			    unsigned num_files,
			    struct ds_scan *s)
{
	bool ret = true;
	unsigned i;

	*s = (struct ds_scan) {
		.c = c,
		.num_files = num_files,
		.seen = talloc_zero_array(tctx, unsigned, num_files),
	};
	CHECK_OK(smb2_util_mkdir(c->tree, DS_NAME("scan")));
	for (i = 0; i < num_files; i++) {
		char *name = talloc_asprintf(s->seen,
					     DS_NAME("scan\\file%04u"),
					     i);

		CHECK_OK(ds_create_file(c, name, "", 0));
		TALLOC_FREE(name);
	}
	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("scan"), &s->h));
done:
	return ret;
}

/* One request; counts what it returns. */
static NTSTATUS ds_scan_next(struct ds_scan *s,
			     const char *pattern,
			     uint8_t flags,
			     uint32_t max_size,
			     unsigned *_count)
{
	struct smb2_find f = {
		.in.file.handle = s->h,
		.in.pattern = pattern,
		.in.continue_flags = flags,
		.in.max_response_size = max_size,
		.in.level = SMB2_FIND_ID_BOTH_DIRECTORY_INFO,
	};
	TALLOC_CTX *frame = talloc_new(s->seen);
	union smb_search_data *d = NULL;
	unsigned count = 0;
	unsigned i;
	NTSTATUS status;

	status = smb2_find_level(s->c->tree, frame, &f, &count, &d);
	for (i = 0; i < count && NT_STATUS_IS_OK(status); i++) {
		const char *name = d[i].id_both_directory_info.name.s;
		unsigned n;

		if (sscanf(name, "file%04u", &n) == 1 && n < s->num_files) {
			s->seen[n]++;
		} else {
			s->others++;
		}
	}
	TALLOC_FREE(frame);
	if (_count != NULL) {
		*_count = count;
	}
	return status;
}

/* All files from first on were returned that many times. */
static bool ds_scan_check(struct torture_context *tctx,
			  struct ds_scan *s,
			  unsigned first,
			  unsigned times)
{
	unsigned i;

	for (i = first; i < s->num_files; i++) {
		if (s->seen[i] != times) {
			torture_result(tctx,
				       TORTURE_FAIL,
				       "file%04u was returned %u times, "
				       "not %u\n",
				       i,
				       s->seen[i],
				       times);
			return false;
		}
	}
	return true;
}

/* Every name exactly once, with three restarts on the way. */
static bool test_scan(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	unsigned requests = 0;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 500, &s));
	while (true) {
		status = ds_scan_next(&s, "*", 0, 4096, NULL);
		if (NT_STATUS_EQUAL(status, STATUS_NO_MORE_FILES)) {
			break;
		}
		CHECK_OK(status);
		requests++;
		if (requests % 4 == 0 && requests <= 12) {
			RESTART();
		}
	}
	CHECK_TRUE(requests > 12);
	CHECK_TRUE(ds_scan_check(tctx, &s, 0, 1));
	CHECK_VAL(s.others, 2);
done:
	ds_close(c, &s.h);
	return ret;
}

static bool test_single_entry(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	unsigned requests = 0;
	unsigned count;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 20, &s));
	while (true) {
		status = ds_scan_next(&s,
				      "*",
				      SMB2_CONTINUE_FLAG_SINGLE,
				      65536,
				      &count);
		if (NT_STATUS_EQUAL(status, STATUS_NO_MORE_FILES)) {
			break;
		}
		CHECK_OK(status);
		CHECK_VAL(count, 1);
		requests++;
		if (requests % 7 == 0) {
			RESTART();
		}
	}
	CHECK_VAL(requests, 22);
	CHECK_TRUE(ds_scan_check(tctx, &s, 0, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* The scan goes back to its beginning when the client wants that. */
static bool test_restart_scan(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	uint8_t flags = SMB2_CONTINUE_FLAG_RESTART;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 100, &s));
	CHECK_OK(ds_scan_next(&s, "*", 0, 2048, NULL));
	memset(s.seen, 0, s.num_files * sizeof(*s.seen));

	RESTART();

	do {
		status = ds_scan_next(&s, "*", flags, 4096, NULL);
		flags = 0;
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	CHECK_TRUE(ds_scan_check(tctx, &s, 0, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* The same with another pattern. */
static bool test_reopen_scan(struct torture_context *tctx,
			     struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	uint8_t flags = SMB2_CONTINUE_FLAG_REOPEN;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 100, &s));
	CHECK_OK(ds_scan_next(&s, "file*", 0, 2048, NULL));
	memset(s.seen, 0, s.num_files * sizeof(*s.seen));

	RESTART();

	do {
		status = ds_scan_next(&s, "file009*", flags, 1024, NULL);
		flags = 0;
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	CHECK_VAL(s.seen[89], 0);
	CHECK_TRUE(ds_scan_check(tctx, &s, 90, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* A scan for a pattern goes on with that pattern. */
static bool test_pattern(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 200, &s));
	CHECK_OK(ds_scan_next(&s, "file01*", 0, 1024, NULL));

	RESTART();

	do {
		status = ds_scan_next(&s, "file01*", 0, 1024, NULL);
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	CHECK_VAL(s.seen[99], 0);
	CHECK_VAL(s.others, 0);
	CHECK_TRUE(ds_scan_check(tctx, &s, 100, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* What was at its end stays there. */
static bool test_ended(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 10, &s));
	do {
		status = ds_scan_next(&s, "*", 0, 65536, NULL);
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);

	RESTART();

	CHECK_STATUS(ds_scan_next(&s, "*", 0, 65536, NULL),
		     STATUS_NO_MORE_FILES);
	CHECK_TRUE(ds_scan_check(tctx, &s, 0, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* Files that are returned already may go without disturbing the scan. */
static bool test_changed(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_scan s = { .c = NULL };
	NTSTATUS status;
	bool ret = true;
	unsigned i;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 300, &s));
	for (i = 0; i < 3; i++) {
		CHECK_OK(ds_scan_next(&s, "*", 0, 4096, NULL));
	}

	RESTART();

	for (i = 0; i < s.num_files; i++) {
		char *name = NULL;

		if (s.seen[i] == 0) {
			continue;
		}
		name = talloc_asprintf(s.seen, DS_NAME("scan\\file%04u"), i);
		CHECK_OK(smb2_util_unlink(c->tree, name));
		TALLOC_FREE(name);
	}
	do {
		status = ds_scan_next(&s, "*", 0, 4096, NULL);
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	CHECK_TRUE(ds_scan_check(tctx, &s, 0, 1));
done:
	ds_close(c, &s.h);
	return ret;
}

/* Two scans of one directory do not know of each other. */
static bool test_two_scans(struct torture_context *tctx,
			   struct ds_client *c)
{
	struct ds_scan s1 = { .c = NULL };
	struct ds_scan s2 = { .c = NULL };
	NTSTATUS status;
	bool ret = true;

	CHECK_TRUE(ds_scan_prepare(tctx, c, 100, &s1));
	s2 = s1;
	s2.seen = talloc_zero_array(tctx, unsigned, s1.num_files);
	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("scan"), &s2.h));
	CHECK_OK(ds_scan_next(&s1, "*", 0, 2048, NULL));
	CHECK_OK(ds_scan_next(&s2, "*", 0, 6000, NULL));

	RESTART();

	do {
		status = ds_scan_next(&s1, "*", 0, 2048, NULL);
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	do {
		status = ds_scan_next(&s2, "*", 0, 2048, NULL);
	} while (NT_STATUS_IS_OK(status));
	CHECK_STATUS(status, STATUS_NO_MORE_FILES);
	CHECK_TRUE(ds_scan_check(tctx, &s1, 0, 1));
	CHECK_TRUE(ds_scan_check(tctx, &s2, 0, 1));
done:
	ds_close(c, &s1.h);
	ds_close(c, &s2.h);
	return ret;
}

void ds_dir_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "dir-scan", test_scan);
	ds_add_test1(suite, "dir-single-entry", test_single_entry);
	ds_add_test1(suite, "dir-restart-scan", test_restart_scan);
	ds_add_test1(suite, "dir-reopen-scan", test_reopen_scan);
	ds_add_test1(suite, "dir-pattern", test_pattern);
	ds_add_test1(suite, "dir-ended", test_ended);
	ds_add_test1(suite, "dir-changed", test_changed);
	ds_add_test1(suite, "dir-two-scans", test_two_scans);
}
