/*
   durable_state: tests of the records of an image

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
#include <talloc.h>
#include "lib/util/data_blob.h"
#include "lib/util/talloc_stack.h"
#include "durable_state/ndr_durable_state.h"

/* ---- values that differ from each other and from 0 in every byte */

static uint32_t last_value;

static uint32_t value32(void)
{
	/* a step that has no factor with 2^32: no value comes twice */
	last_value += 0x9e3779b1;
	return last_value | 0x01010101;
}

static uint16_t value16(void)
{
	return (value32() >> 16) | 0x0101;
}

static uint8_t value8(void)
{
	return (value32() >> 24) | 1;
}

static uint64_t value64(void)
{
	uint64_t high = value32();

	return (high << 32) | value32();
}

static struct GUID value_guid(void)
{
	struct GUID guid = {
		.time_low = value32(),
		.time_mid = value16(),
		.time_hi_and_version = value16(),
	};
	size_t i;

	for (i = 0; i < sizeof(guid.clock_seq); i++) {
		guid.clock_seq[i] = value8();
	}
	for (i = 0; i < sizeof(guid.node); i++) {
		guid.node[i] = value8();
	}
	return guid;
}

static DATA_BLOB value_blob(TALLOC_CTX *mem_ctx, size_t length)
{
	DATA_BLOB blob = data_blob_talloc(mem_ctx, NULL, length);
	size_t i;

	assert_non_null(blob.data);
	for (i = 0; i < length; i++) {
		blob.data[i] = value8();
	}
	return blob;
}

/* ---- one description of each record: how it is filled and compared */

#define SAME_INT(a, b, field) assert_int_equal((a)->field, (b)->field)

#define SAME_MEM(a, b, field) \
	assert_memory_equal(&(a)->field, &(b)->field, sizeof((a)->field))

#define SAME_BLOB(a, b, field) do { \
	assert_int_equal((a)->field.length, (b)->field.length); \
	if ((a)->field.length != 0) { \
		assert_memory_equal((a)->field.data, \
				    (b)->field.data, \
				    (a)->field.length); \
	} \
} while (0)

#define SAME_STRING(a, b, field) do { \
	if ((a)->field == NULL) { \
		assert_null((b)->field); \
	} else { \
		assert_non_null((b)->field); \
		assert_string_equal((a)->field, (b)->field); \
	} \
} while (0)

static void fill_client(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_client *r = p;

	*r = (struct ds_client) {
		.server_id = {
			.pid = value64(),
			.task_id = value32(),
			.vnn = value32(),
			.unique_id = value64(),
		},
		.frozen = value64(),
		.connect_time = value64(),
		.client_guid = value_guid(),
		.stored = value8(),
		.next_channel_id = value64(),
		.global_client_caps = value32(),
	};
}

static void same_client(const void *pa, const void *pb)
{
	const struct ds_client *a = pa;
	const struct ds_client *b = pb;

	SAME_INT(a, b, server_id.pid);
	SAME_INT(a, b, server_id.task_id);
	SAME_INT(a, b, server_id.vnn);
	SAME_INT(a, b, server_id.unique_id);
	SAME_INT(a, b, frozen);
	SAME_INT(a, b, connect_time);
	SAME_MEM(a, b, client_guid);
	SAME_INT(a, b, stored);
	SAME_INT(a, b, next_channel_id);
	SAME_INT(a, b, global_client_caps);
}

static void fill_connection(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_connection *r = p;
	size_t i;

	*r = (struct ds_connection) {
		.fd = value32(),
		.channel_id = value64(),
		.connect_time = value64(),
		.protocol = value32(),
		.nbt_got_session = value8(),
		.seq_low = value64(),
		.seq_range = value16(),
		.granted = value16(),
		.max_credits = value16(),
		.multicredit = value8(),
		.num_seen = 5,
		.allow_2ff = value8(),
		.client_capabilities = value32(),
		.client_guid = value_guid(),
		.client_guid_verified = value8(),
		.client_security_mode = value16(),
		.num_dialects = 3,
		.server_capabilities = value32(),
		.server_guid = value_guid(),
		.server_security_mode = value16(),
		.dialect = value16(),
		.max_trans = value32(),
		.max_read = value32(),
		.max_write = value32(),
		.sign_algo = value16(),
		.cipher = value16(),
		.posix_extensions = value8(),
		.signing_mandatory = value8(),
		.got_authenticated_session = value8(),
		.incoming = value_blob(mem_ctx, 67),
		.outgoing = value_blob(mem_ctx, 101),
	};
	r->seen = talloc_array(mem_ctx, uint16_t, r->num_seen);
	r->dialects = talloc_array(mem_ctx, uint16_t, r->num_dialects);
	assert_non_null(r->seen);
	assert_non_null(r->dialects);
	for (i = 0; i < r->num_seen; i++) {
		r->seen[i] = value16();
	}
	for (i = 0; i < r->num_dialects; i++) {
		r->dialects[i] = value16();
	}
	for (i = 0; i < sizeof(r->preauth); i++) {
		r->preauth[i] = value8();
	}
}

/* Nothing seen, nothing negotiated, nothing under way */
static void fill_connection_new(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_connection *r = p;

	*r = (struct ds_connection) { .fd = DS_NO_FD, };
}

static void same_connection(const void *pa, const void *pb)
{
	const struct ds_connection *a = pa;
	const struct ds_connection *b = pb;
	size_t i;

	SAME_INT(a, b, fd);
	SAME_INT(a, b, channel_id);
	SAME_INT(a, b, connect_time);
	SAME_INT(a, b, protocol);
	SAME_INT(a, b, nbt_got_session);
	SAME_INT(a, b, seq_low);
	SAME_INT(a, b, seq_range);
	SAME_INT(a, b, granted);
	SAME_INT(a, b, max_credits);
	SAME_INT(a, b, multicredit);
	SAME_INT(a, b, num_seen);
	for (i = 0; i < a->num_seen; i++) {
		SAME_INT(a, b, seen[i]);
	}
	SAME_INT(a, b, allow_2ff);
	SAME_INT(a, b, client_capabilities);
	SAME_MEM(a, b, client_guid);
	SAME_INT(a, b, client_guid_verified);
	SAME_INT(a, b, client_security_mode);
	SAME_INT(a, b, num_dialects);
	for (i = 0; i < a->num_dialects; i++) {
		SAME_INT(a, b, dialects[i]);
	}
	SAME_INT(a, b, server_capabilities);
	SAME_MEM(a, b, server_guid);
	SAME_INT(a, b, server_security_mode);
	SAME_INT(a, b, dialect);
	SAME_INT(a, b, max_trans);
	SAME_INT(a, b, max_read);
	SAME_INT(a, b, max_write);
	SAME_INT(a, b, sign_algo);
	SAME_INT(a, b, cipher);
	SAME_INT(a, b, posix_extensions);
	SAME_MEM(a, b, preauth);
	SAME_INT(a, b, signing_mandatory);
	SAME_INT(a, b, got_authenticated_session);
	SAME_BLOB(a, b, incoming);
	SAME_BLOB(a, b, outgoing);
}

static void fill_session(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_session *r = p;

	*r = (struct ds_session) {
		.global = value_blob(mem_ctx, 123),
		.status = NT_STATUS(value32()),
		.idle_time = value64(),
		.nonce_high_random = value64(),
		.nonce_high_max = value64(),
		.nonce_high = value64(),
		.nonce_low = value64(),
	};
}

static void same_session(const void *pa, const void *pb)
{
	const struct ds_session *a = pa;
	const struct ds_session *b = pb;

	SAME_BLOB(a, b, global);
	assert_int_equal(NT_STATUS_V(a->status), NT_STATUS_V(b->status));
	SAME_INT(a, b, idle_time);
	SAME_INT(a, b, nonce_high_random);
	SAME_INT(a, b, nonce_high_max);
	SAME_INT(a, b, nonce_high);
	SAME_INT(a, b, nonce_low);
}

static void fill_tcon(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_tcon *r = p;

	*r = (struct ds_tcon) {
		.session_id = value64(),
		.global = value_blob(mem_ctx, 99),
		.idle_time = value64(),
		.aapl = value_blob(mem_ctx, 24),
	};
}

static void same_tcon(const void *pa, const void *pb)
{
	const struct ds_tcon *a = pa;
	const struct ds_tcon *b = pb;

	SAME_INT(a, b, session_id);
	SAME_BLOB(a, b, global);
	SAME_INT(a, b, idle_time);
	SAME_BLOB(a, b, aapl);
}

static struct ds_scan *value_scan(TALLOC_CTX *mem_ctx)
{
	struct ds_scan *scan = talloc(mem_ctx, struct ds_scan);

	assert_non_null(scan);
	*scan = (struct ds_scan) {
		.wcard = "a*.t?t",
		.attr = value32(),
		.has_wild = value8(),
		.did_stat = value8(),
		.priv = value8(),
		.file_number = value32(),
		.offset = (int64_t)value64(),
		.overflow_fname = "next",
		.overflow_dname = "NEXT",
		.overflow_mode = value32(),
	};
	return scan;
}

static void same_scan(const struct ds_scan *a, const struct ds_scan *b)
{
	SAME_STRING(a, b, wcard);
	SAME_INT(a, b, attr);
	SAME_INT(a, b, has_wild);
	SAME_INT(a, b, did_stat);
	SAME_INT(a, b, priv);
	SAME_INT(a, b, file_number);
	SAME_INT(a, b, offset);
	SAME_STRING(a, b, overflow_fname);
	SAME_STRING(a, b, overflow_dname);
	SAME_INT(a, b, overflow_mode);
}

static struct ds_notify *value_notify(TALLOC_CTX *mem_ctx, uint32_t num)
{
	struct ds_notify *notify = talloc(mem_ctx, struct ds_notify);
	uint32_t i;

	assert_non_null(notify);
	*notify = (struct ds_notify) {
		.filter = value32(),
		.subdir_filter = value32(),
		.max_buffer_size = value32(),
		.overrun = value8(),
		.ctime = value64(),
		.num_changes = num,
		.changes = talloc_array(
			mem_ctx, struct ds_notify_change, num),
	};
	assert_non_null(notify->changes);
	for (i = 0; i < num; i++) {
		notify->changes[i] = (struct ds_notify_change) {
			.seconds = value64(),
			.nanoseconds = value32(),
			.action = value32(),
			.name = talloc_asprintf(
				mem_ctx, "sub/f\xc3\xbc""r %"PRIu32, i),
		};
		assert_non_null(notify->changes[i].name);
	}
	return notify;
}

static void same_notify(const struct ds_notify *a, const struct ds_notify *b)
{
	size_t i;

	SAME_INT(a, b, filter);
	SAME_INT(a, b, subdir_filter);
	SAME_INT(a, b, max_buffer_size);
	SAME_INT(a, b, overrun);
	SAME_INT(a, b, ctime);
	SAME_INT(a, b, num_changes);
	for (i = 0; i < a->num_changes; i++) {
		SAME_INT(a, b, changes[i].seconds);
		SAME_INT(a, b, changes[i].nanoseconds);
		SAME_INT(a, b, changes[i].action);
		SAME_STRING(a, b, changes[i].name);
	}
}

static void fill_open(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_open *r = p;

	*r = (struct ds_open) {
		.session_id = value64(),
		.tcon_id = value32(),
		.global = value_blob(mem_ctx, 151),
		.idle_time = value64(),
		.flags = value8(),
		.create_action = value32(),
		.request_count = value64(),
		.pre_request_count = value64(),
		.is_pipe = value8(),
		.fd = value32(),
		.base_share_file_id = value64(),
		.base_access_mask = value32(),
		.base_fsp_flags = value32(),
		.fd_flags = value32(),
		.base_name = "dir/na\xc3\xafve",
		.stream_name = ":stream:$DATA",
		.name_flags = value32(),
		.twrp = value64(),
		.file_id = {
			.devid = value64(),
			.inode = value64(),
			.extid = value64(),
		},
		.share_file_id = value64(),
		/* those that have no name here as well */
		.fsp_flags = value32(),
		.access_mask = value32(),
		.private_options = value32(),
		.position_information = value64(),
		.pos = value64(),
		.initial_allocation_size = value64(),
		.file_pid = value16(),
		.mid = value64(),
		.open_time_sec = value64(),
		.open_time_usec = value32(),
		.close_write_time = value64(),
		.oplock_type = value32(),
		.lease_key = { .data = { value64(), value64() } },
		.parent_lease_key = { .data = { value64(), value64() } },
		.lease_flags = value32(),
		.sent_oplock_break = value32(),
		.break_timeout = value64(),
		.lock_count = value32(),
		.scan = value_scan(mem_ctx),
		.notify = value_notify(mem_ctx, 4),
	};
}

/* A file: it is neither read as a directory nor watched */
static void fill_open_file(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_open *r = p;

	fill_open(mem_ctx, r);
	r->stream_name = NULL;
	r->scan = NULL;
	r->notify = NULL;
}

/* Nothing is known but its ids */
static void fill_open_pipe(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_open *r = p;

	*r = (struct ds_open) {
		.session_id = value64(),
		.tcon_id = value32(),
		.global = value_blob(mem_ctx, 151),
		.is_pipe = true,
	};
}

/* Strings that are empty, absent or no UTF-8, as file names may be */
static void fill_open_names(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_open *r = p;

	fill_open(mem_ctx, r);
	r->base_name = "latin \xe4\xf6\xfc \xff\xfe/\x80";
	r->stream_name = "";
	r->scan->wcard = "";
	r->scan->overflow_fname = NULL;
	r->scan->overflow_dname = "\xed\xa0\x80";
	r->notify->changes[1].name = NULL;
	r->notify->changes[2].name = "";
	r->notify->changes[3].name = "\xc3";
}

static void same_open(const void *pa, const void *pb)
{
	const struct ds_open *a = pa;
	const struct ds_open *b = pb;

	SAME_INT(a, b, session_id);
	SAME_INT(a, b, tcon_id);
	SAME_BLOB(a, b, global);
	SAME_INT(a, b, idle_time);
	SAME_INT(a, b, flags);
	SAME_INT(a, b, create_action);
	SAME_INT(a, b, request_count);
	SAME_INT(a, b, pre_request_count);
	SAME_INT(a, b, is_pipe);
	SAME_INT(a, b, fd);
	SAME_INT(a, b, base_share_file_id);
	SAME_INT(a, b, base_access_mask);
	SAME_INT(a, b, base_fsp_flags);
	SAME_INT(a, b, fd_flags);
	SAME_STRING(a, b, base_name);
	SAME_STRING(a, b, stream_name);
	SAME_INT(a, b, name_flags);
	SAME_INT(a, b, twrp);
	SAME_INT(a, b, file_id.devid);
	SAME_INT(a, b, file_id.inode);
	SAME_INT(a, b, file_id.extid);
	SAME_INT(a, b, share_file_id);
	SAME_INT(a, b, fsp_flags);
	SAME_INT(a, b, access_mask);
	SAME_INT(a, b, private_options);
	SAME_INT(a, b, position_information);
	SAME_INT(a, b, pos);
	SAME_INT(a, b, initial_allocation_size);
	SAME_INT(a, b, file_pid);
	SAME_INT(a, b, mid);
	SAME_INT(a, b, open_time_sec);
	SAME_INT(a, b, open_time_usec);
	SAME_INT(a, b, close_write_time);
	SAME_INT(a, b, oplock_type);
	SAME_MEM(a, b, lease_key);
	SAME_MEM(a, b, parent_lease_key);
	SAME_INT(a, b, lease_flags);
	SAME_INT(a, b, sent_oplock_break);
	SAME_INT(a, b, break_timeout);
	SAME_INT(a, b, lock_count);

	assert_int_equal(a->scan == NULL, b->scan == NULL);
	if (a->scan != NULL) {
		same_scan(a->scan, b->scan);
	}
	assert_int_equal(a->notify == NULL, b->notify == NULL);
	if (a->notify != NULL) {
		same_notify(a->notify, b->notify);
	}
}

static void fill_request(TALLOC_CTX *mem_ctx, void *p)
{
	struct ds_request *r = p;

	*r = (struct ds_request) {
		.channel_id = value64(),
		.request_time = value64(),
		.interim_sent = value8(),
		.async_id = value64(),
		.last_session_id = value64(),
		.last_tid = value32(),
		.compat_chain_open = value64(),
		.num_iov = 4,
		.iov = talloc_zero_array(mem_ctx, struct ds_iov, 4),
	};
	assert_non_null(r->iov);
	/* iov[0] is the transform header that is not there */
	r->iov[1].data = value_blob(mem_ctx, 64);
	r->iov[2].data = value_blob(mem_ctx, 57);
	r->iov[3].data = value_blob(mem_ctx, 3);
}

static void same_request(const void *pa, const void *pb)
{
	const struct ds_request *a = pa;
	const struct ds_request *b = pb;
	size_t i;

	SAME_INT(a, b, channel_id);
	SAME_INT(a, b, request_time);
	SAME_INT(a, b, interim_sent);
	SAME_INT(a, b, async_id);
	SAME_INT(a, b, last_session_id);
	SAME_INT(a, b, last_tid);
	SAME_INT(a, b, compat_chain_open);
	SAME_INT(a, b, num_iov);
	for (i = 0; i < a->num_iov; i++) {
		SAME_BLOB(a, b, iov[i].data);
	}
}

struct kind {
	size_t size;
	void (*fill)(TALLOC_CTX *mem_ctx, void *record);
	void (*same)(const void *a, const void *b);
	ndr_push_flags_fn_t push;
	ndr_pull_flags_fn_t pull;
};

#define KIND(name, variant) { \
	.size = sizeof(struct ds_##name), \
	.fill = fill_##name##variant, \
	.same = same_##name, \
	.push = (ndr_push_flags_fn_t)ndr_push_ds_##name, \
	.pull = (ndr_pull_flags_fn_t)ndr_pull_ds_##name, \
}

static struct kind kind_client = KIND(client,);
static struct kind kind_connection = KIND(connection,);
static struct kind kind_connection_new = KIND(connection, _new);
static struct kind kind_session = KIND(session,);
static struct kind kind_tcon = KIND(tcon,);
static struct kind kind_open = KIND(open,);
static struct kind kind_open_file = KIND(open, _file);
static struct kind kind_open_pipe = KIND(open, _pipe);
static struct kind kind_open_names = KIND(open, _names);
static struct kind kind_request = KIND(request,);

/* ---- the tests, each of them for every kind */

/*
 * The blob has the length that it says, so that a read beyond its end is
 * one beyond what was allocated.
 */
static enum ndr_err_code pull(TALLOC_CTX *mem_ctx,
			      const struct kind *kind,
			      const uint8_t *data,
			      size_t length,
			      void **record)
{
	DATA_BLOB blob = { .length = length, };
	enum ndr_err_code ndr_err;

	*record = talloc_zero_size(mem_ctx, kind->size);
	assert_non_null(*record);
	blob.data = talloc_array(mem_ctx, uint8_t, length);
	assert_non_null(blob.data);
	memcpy(blob.data, data, length);

	ndr_err = ndr_pull_struct_blob_all(
		&blob, *record, *record, kind->pull);
	TALLOC_FREE(blob.data);
	return ndr_err;
}

static DATA_BLOB push(TALLOC_CTX *mem_ctx,
		      const struct kind *kind,
		      const void *record)
{
	DATA_BLOB blob;

	assert_int_equal(
		ndr_push_struct_blob(&blob, mem_ctx, record, kind->push),
		NDR_ERR_SUCCESS);
	return blob;
}

static DATA_BLOB push_filled(TALLOC_CTX *mem_ctx, const struct kind *kind)
{
	void *record = talloc_zero_size(mem_ctx, kind->size);

	assert_non_null(record);
	last_value = 0;
	kind->fill(mem_ctx, record);
	return push(mem_ctx, kind, record);
}

static void test_round_trip(void **state)
{
	const struct kind *kind = *state;
	TALLOC_CTX *frame = talloc_stackframe();
	void *record = talloc_zero_size(frame, kind->size);
	void *copy = NULL;
	DATA_BLOB blob;
	DATA_BLOB again;

	assert_non_null(record);
	last_value = 0;
	kind->fill(frame, record);
	blob = push(frame, kind, record);

	assert_int_equal(pull(frame, kind, blob.data, blob.length, &copy),
			 NDR_ERR_SUCCESS);
	kind->same(record, copy);

	/* no field is compared that was not filled, nor the reverse */
	again = push(frame, kind, copy);
	assert_int_equal(blob.length, again.length);
	assert_memory_equal(blob.data, again.data, blob.length);
	TALLOC_FREE(frame);
}

static void test_truncated(void **state)
{
	const struct kind *kind = *state;
	TALLOC_CTX *frame = talloc_stackframe();
	DATA_BLOB blob = push_filled(frame, kind);
	size_t length;

	for (length = 0; length < blob.length; length++) {
		void *copy = NULL;

		assert_int_not_equal(
			pull(frame, kind, blob.data, length, &copy),
			NDR_ERR_SUCCESS);
		TALLOC_FREE(copy);
	}
	TALLOC_FREE(frame);
}

/* More than a record is none */
static void test_extended(void **state)
{
	const struct kind *kind = *state;
	TALLOC_CTX *frame = talloc_stackframe();
	DATA_BLOB blob = push_filled(frame, kind);
	size_t length = blob.length;
	size_t i;

	assert_true(data_blob_realloc(frame, &blob, length + 16));
	memset(blob.data + length, 0, 16);
	for (i = 1; i <= 16; i++) {
		void *copy = NULL;

		assert_int_not_equal(
			pull(frame, kind, blob.data, length + i, &copy),
			NDR_ERR_SUCCESS);
		TALLOC_FREE(copy);
	}
	TALLOC_FREE(frame);
}

/*
 * Damage that the sums of the image did not find: an error or a record that
 * can be used to its end, which push does.
 */
static void check_damaged(TALLOC_CTX *mem_ctx,
			  const struct kind *kind,
			  DATA_BLOB blob)
{
	TALLOC_CTX *frame = talloc_stackframe();
	enum ndr_err_code ndr_err;
	void *copy = NULL;

	ndr_err = pull(frame, kind, blob.data, blob.length, &copy);
	if (ndr_err == NDR_ERR_SUCCESS) {
		push(frame, kind, copy);
	}
	TALLOC_FREE(frame);
}

static void test_flipped(void **state)
{
	const struct kind *kind = *state;
	TALLOC_CTX *frame = talloc_stackframe();
	DATA_BLOB blob = push_filled(frame, kind);
	size_t i;
	unsigned int bit;

	for (i = 0; i < blob.length; i++) {
		for (bit = 0; bit < 8; bit++) {
			blob.data[i] ^= 1 << bit;
			check_damaged(frame, kind, blob);
			blob.data[i] ^= 1 << bit;
		}
	}
	TALLOC_FREE(frame);
}

static void test_random(void **state)
{
	const struct kind *kind = *state;
	TALLOC_CTX *frame = talloc_stackframe();
	DATA_BLOB good = push_filled(frame, kind);
	size_t i;

	srandom(20261122);
	for (i = 0; i < 2000; i++) {
		DATA_BLOB blob = data_blob_dup_talloc(frame, good);
		size_t num = 1 + random() % 8;

		assert_non_null(blob.data);
		while (num > 0) {
			blob.data[random() % blob.length] = random();
			num -= 1;
		}
		check_damaged(frame, kind, blob);
		data_blob_free(&blob);
	}
	TALLOC_FREE(frame);
}

int main(void)
{
#define TEST(fn, kind) { #fn " " #kind, fn, NULL, NULL, &kind_##kind }
#define TESTS(kind) \
	TEST(test_round_trip, kind), \
	TEST(test_truncated, kind), \
	TEST(test_extended, kind), \
	TEST(test_flipped, kind), \
	TEST(test_random, kind)
	const struct CMUnitTest tests[] = {
		TESTS(client),
		TESTS(connection),
		TESTS(connection_new),
		TESTS(session),
		TESTS(tcon),
		TESTS(open),
		TESTS(open_file),
		TESTS(open_pipe),
		TESTS(open_names),
		TESTS(request),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
