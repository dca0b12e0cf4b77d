/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: the TCP connection and its message ids

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
#include "torture/durable_state/ds_relay.h"

#define DS_CHUNK 65536

static bool test_echo(struct torture_context *tctx, struct ds_client *c)
{
	bool ret = true;
	int i;

	for (i = 0; i < 3; i++) {
		CHECK_OK(ds_echo(c));
		RESTART();
		CHECK_OK(ds_echo(c));
	}
done:
	return ret;
}

/* Many restarts of one connection: nothing is used up by them. */
static bool test_restart_often(struct torture_context *tctx,
			       struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;
	int i;

	CHECK_OK(ds_open_rw(c, DS_NAME("often"), &h));
	for (i = 0; i < 8; i++) {
		DATA_BLOB data;

		CHECK_OK(smb2_util_write(c->tree, h, &i, i * 4, 4));
		RESTART();
		CHECK_OK(ds_read(c, tctx, h, i * 4, 4, &data));
		CHECK_VAL(data.length, 4);
		torture_assert_mem_equal_goto(tctx,
					      data.data,
					      &i,
					      4,
					      ret,
					      done,
					      "data changed");
	}
done:
	ds_close(c, &h);
	return ret;
}

/* A connection that was negotiated, and no more, can log in afterwards. */
static bool test_negotiated_only(struct torture_context *tctx,
				 struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_NEGPROT_ONLY,
	};
	struct ds_client *n = NULL;
	bool ret = true;

	n = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(n != NULL);

	RESTART();

	CHECK_TRUE(torture_smb2_session_setup(tctx,
					      n->transport,
					      0,
					      n,
					      &n->session));
	talloc_steal(n, n->transport);
	CHECK_TRUE(torture_smb2_tree_connect(tctx, n->session, n, &n->tree));
	CHECK_TRUE(ds_check_connection(tctx, n));
done:
	TALLOC_FREE(n);
	return ret;
}

static NTSTATUS ds_echo_mid(struct ds_client *c, uint64_t mid)
{
	smb2cli_conn_set_mid(c->transport->conn, mid);
	return ds_echo(c);
}

/* Message ids that were skipped before the restart may be used after it. */
static bool test_mid_holes(struct torture_context *tctx, struct ds_client *c)
{
	uint64_t mid = smb2cli_conn_get_mid(c->transport->conn);
	bool ret = true;

	CHECK_OK(ds_echo_mid(c, mid + 1));
	CHECK_OK(ds_echo_mid(c, mid + 2));
	CHECK_OK(ds_echo_mid(c, mid + 5));

	RESTART();

	CHECK_OK(ds_echo_mid(c, mid + 4));
	CHECK_OK(ds_echo_mid(c, mid));
	CHECK_OK(ds_echo_mid(c, mid + 3));
	CHECK_OK(ds_echo_mid(c, mid + 6));
done:
	return ret;
}

/* A message id that was used before the restart ends the connection. */
static bool test_mid_used(struct torture_context *tctx, struct ds_client *c)
{
	struct ds_client *c2 = NULL;
	uint64_t mid;
	bool ret = true;

	c2 = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c2 != NULL);
	mid = smb2cli_conn_get_mid(c2->transport->conn);

	CHECK_OK(ds_echo_mid(c2, mid + 1));
	RESTART();
	CHECK_OK(ds_echo_mid(c2, mid + 2));

	CHECK_TRUE(!NT_STATUS_IS_OK(ds_echo_mid(c2, mid + 1)));
	CHECK_TRUE(!smbXcli_conn_is_connected(c2->transport->conn));
done:
	TALLOC_FREE(c2);
	return ret;
}

/* The server grants after the restart what it owed before it. */
static bool test_credits(struct torture_context *tctx, struct ds_client *c)
{
	const struct ds_connect_params params = { .max_credits = 64 };
	struct smb2_request *reqs[64];
	struct ds_client *c2 = NULL;
	struct smbXcli_conn *conn = NULL;
	uint16_t credits;
	bool ret = true;
	int i;

	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	conn = c2->transport->conn;

	credits = smb2cli_conn_get_cur_credits(conn);
	CHECK_VAL(credits, 64);

	RESTART();

	CHECK_VAL(smb2cli_conn_get_cur_credits(conn), credits);
	/* from now on every reply gives back what its request took */
	smb2cli_conn_set_max_credits(conn, 0);
	for (i = 0; i < credits; i++) {
		reqs[i] = smb2_keepalive_send(c2->transport, NULL);
		CHECK_TRUE(reqs[i] != NULL);
	}
	CHECK_VAL(smb2cli_conn_get_cur_credits(conn), 0);
	for (i = 0; i < credits; i++) {
		CHECK_OK(smb2_keepalive_recv(reqs[i]));
	}
	CHECK_VAL(smb2cli_conn_get_cur_credits(conn), credits);
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	return ret;
}

/* All credits used up, all requests waiting, when the restart comes. */
static bool test_credits_used_up(struct torture_context *tctx,
				 struct ds_client *c)
{
	const struct ds_connect_params params = { .max_credits = 32 };
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *reqs[32] = { NULL };
	struct smb2_notify io;
	struct ds_client *c2 = NULL;
	struct smbXcli_conn *conn = NULL;
	bool ret = true;
	int i, num;

	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	conn = c2->transport->conn;

	CHECK_OK(torture_smb2_testdir(c2->tree, DS_DIR, &h));
	io = (struct smb2_notify) {
		.in.file.handle = h,
		.in.buffer_size = 1000,
		.in.completion_filter = FILE_NOTIFY_CHANGE_NAME,
	};

	num = smb2cli_conn_get_cur_credits(conn) - 1;
	CHECK_VAL(num, 31);
	for (i = 0; i < num; i++) {
		reqs[i] = smb2_notify_send(c2->tree, &io);
		CHECK_TRUE(ds_wait_interim(tctx, reqs[i]));
	}

	RESTART();

	CHECK_OK(ds_echo(c2));
	for (i = 0; i < num; i++) {
		CHECK_OK(smb2_cancel(reqs[i]));
		CHECK_TRUE(ds_wait_req(tctx, reqs[i], DS_WAIT_MSEC));
		CHECK_STATUS(smb2_notify_recv(reqs[i], tctx, &io),
			     NT_STATUS_CANCELLED);
	}
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	return ret;
}

/* Bytes that one read or write may carry. */
static size_t ds_large(struct ds_client *c)
{
	struct smbXcli_conn *conn = c->transport->conn;
	size_t large = 1024 * 1024;

	if (ds_protocol(c) < PROTOCOL_SMB2_10) {
		return DS_CHUNK;
	}
	large = MIN(large, smb2cli_conn_max_write_size(conn));
	large = MIN(large, smb2cli_conn_max_read_size(conn));
	large = MIN(large, DS_CHUNK * smb2cli_conn_get_cur_credits(conn));
	return large;
}

/* Requests that are charged several credits, before and after. */
static bool test_multi_credit(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	size_t len = ds_large(c);
	uint8_t *buf = talloc_array(tctx, uint8_t, 2 * len);
	DATA_BLOB data;
	bool ret = true;
	int i;

	ds_fill(buf, 2 * len, 1);
	CHECK_OK(ds_open_rw(c, DS_NAME("large"), &h));
	CHECK_OK(smb2_util_write(c->tree, h, buf, 0, len));

	RESTART();

	CHECK_OK(smb2_util_write(c->tree, h, buf + len, len, len));
	for (i = 0; i < 2; i++) {
		CHECK_OK(ds_read(c, tctx, h, i * len, len, &data));
		CHECK_VAL(data.length, len);
		torture_assert_mem_equal_goto(tctx,
					      data.data,
					      buf + i * len,
					      len,
					      ret,
					      done,
					      "data changed");
	}
done:
	ds_close(c, &h);
	TALLOC_FREE(buf);
	return ret;
}

/*
 * The server has the first bytes of a write when it is restarted, and gets
 * the others afterwards.
 */
static bool ds_half_request(struct torture_context *tctx,
			    struct ds_client *c,
			    size_t bytes)
{
	struct smb2_handle h = { .data = { 0 } };
	size_t len = ds_large(c);
	uint8_t *buf = talloc_array(tctx, uint8_t, len);
	struct smb2_write io;
	struct smb2_request *req = NULL;
	DATA_BLOB data;
	bool ret = true;

	ds_fill(buf, len, 2);
	CHECK_OK(ds_open_rw(c, DS_NAME("half"), &h));

	ds_relay_hold_requests(c->relay, bytes);
	io = (struct smb2_write) {
		.in.file.handle = h,
		.in.data = data_blob_const(buf, len),
	};
	req = smb2_write_send(c->tree, &io);
	CHECK_TRUE(req != NULL);
	ds_loop(tctx, 300);
	CHECK_TRUE(ds_relay_held(c->relay) + bytes > len);
	CHECK_TRUE(ds_relay_held(c->relay) + bytes < len + 1024);

	RESTART();

	CHECK_TRUE(req->state == SMB2_REQUEST_RECV);
	ds_relay_release_requests(c->relay);
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(smb2_write_recv(req, &io));
	CHECK_VAL(io.out.nwritten, len);

	CHECK_OK(ds_read(c, tctx, h, 0, len, &data));
	CHECK_VAL(data.length, len);
	torture_assert_mem_equal_goto(tctx,
				      data.data,
				      buf,
				      len,
				      ret,
				      done,
				      "data changed");
done:
	ds_relay_release_requests(c->relay);
	ds_close(c, &h);
	TALLOC_FREE(buf);
	return ret;
}

static bool test_half_length(struct torture_context *tctx,
			     struct ds_client *c)
{
	return ds_half_request(tctx, c, 2);
}

static bool test_half_header(struct torture_context *tctx,
			     struct ds_client *c)
{
	return ds_half_request(tctx, c, 4 + 30);
}

static bool test_half_body(struct torture_context *tctx,
			   struct ds_client *c)
{
	return ds_half_request(tctx, c, 4 + 64 + 20);
}

static bool test_half_payload(struct torture_context *tctx,
			      struct ds_client *c)
{
	return ds_half_request(tctx, c, ds_large(c) / 2);
}

/* The rest of a request comes in pieces, each to another smbd. */
static bool test_half_thrice(struct torture_context *tctx,
			     struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	size_t len = ds_large(c);
	uint8_t *buf = talloc_array(tctx, uint8_t, len);
	struct smb2_write io;
	struct smb2_request *req = NULL;
	DATA_BLOB data;
	bool ret = true;
	int i;

	ds_fill(buf, len, 3);
	CHECK_OK(ds_open_rw(c, DS_NAME("thrice"), &h));

	ds_relay_hold_requests(c->relay, 3);
	io = (struct smb2_write) {
		.in.file.handle = h,
		.in.data = data_blob_const(buf, len),
	};
	req = smb2_write_send(c->tree, &io);
	CHECK_TRUE(req != NULL);
	for (i = 0; i < 3; i++) {
		ds_loop(tctx, 100);
		RESTART();
		CHECK_TRUE(req->state == SMB2_REQUEST_RECV);
		ds_relay_hold_requests(c->relay, len / 4);
	}
	ds_relay_release_requests(c->relay);
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(smb2_write_recv(req, &io));

	CHECK_OK(ds_read(c, tctx, h, 0, len, &data));
	CHECK_VAL(data.length, len);
	torture_assert_mem_equal_goto(tctx,
				      data.data,
				      buf,
				      len,
				      ret,
				      done,
				      "data changed");
done:
	ds_relay_release_requests(c->relay);
	ds_close(c, &h);
	TALLOC_FREE(buf);
	return ret;
}

#define DS_NUM_READS 192

/*
 * The client stops reading: replies fill the socket and the server's send
 * queue, one of them is out by half. After the restart all arrive.
 */
static bool test_half_reply(struct torture_context *tctx,
			    struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_RELAY,
		.rcvbuf = 8192,
		.max_credits = 2 * DS_NUM_READS,
	};
	const size_t len = DS_NUM_READS * DS_CHUNK;
	uint8_t *buf = talloc_array(tctx, uint8_t, len);
	struct smb2_request *reqs[DS_NUM_READS] = { NULL };
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *c2 = NULL;
	bool ret = true;
	int i;

	ds_fill(buf, len, 4);
	CHECK_OK(ds_create_file(c, DS_NAME("reply"), buf, len));

	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("reply"), &h));
	CHECK_TRUE(smb2cli_conn_get_cur_credits(c2->transport->conn) >=
		   DS_NUM_READS);

	ds_relay_hold_replies(c2->relay);
	for (i = 0; i < DS_NUM_READS; i++) {
		struct smb2_read io = {
			.in.file.handle = h,
			.in.offset = (uint64_t)i * DS_CHUNK,
			.in.length = DS_CHUNK,
		};

		reqs[i] = smb2_read_send(c2->tree, &io);
		CHECK_TRUE(reqs[i] != NULL);
	}
	ds_loop(tctx, 500);

	RESTART();

	CHECK_TRUE(reqs[0]->state == SMB2_REQUEST_RECV);
	ds_relay_release_replies(c2->relay);
	for (i = 0; i < DS_NUM_READS; i++) {
		struct smb2_read io;

		CHECK_TRUE(ds_wait_req(tctx, reqs[i], DS_WAIT_MSEC));
		CHECK_OK(smb2_read_recv(reqs[i], tctx, &io));
		CHECK_VAL(io.out.data.length, DS_CHUNK);
		torture_assert_mem_equal_goto(tctx,
					      io.out.data.data,
					      buf + i * DS_CHUNK,
					      DS_CHUNK,
					      ret,
					      done,
					      "data changed");
		data_blob_free(&io.out.data);
	}
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	TALLOC_FREE(buf);
	return ret;
}

/* Half of a request is in, half of a reply is out, on one connection. */
static bool test_half_both(struct torture_context *tctx,
			   struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_RELAY,
		.rcvbuf = 8192,
		.max_credits = 2 * DS_NUM_READS,
	};
	const size_t len = DS_NUM_READS * DS_CHUNK;
	uint8_t *buf = talloc_array(tctx, uint8_t, len);
	struct smb2_request *reqs[DS_NUM_READS] = { NULL };
	struct smb2_request *req = NULL;
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct ds_client *c2 = NULL;
	struct smb2_write wr;
	DATA_BLOB data;
	bool ret = true;
	int i;

	ds_fill(buf, len, 5);
	CHECK_OK(ds_create_file(c, DS_NAME("both"), buf, len));

	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("both"), &h));
	CHECK_OK(ds_open_rw(c2, DS_NAME("both2"), &h2));
	CHECK_TRUE(smb2cli_conn_get_cur_credits(c2->transport->conn) >
		   DS_NUM_READS);

	ds_relay_hold_replies(c2->relay);
	for (i = 0; i < DS_NUM_READS; i++) {
		struct smb2_read io = {
			.in.file.handle = h,
			.in.offset = (uint64_t)i * DS_CHUNK,
			.in.length = DS_CHUNK,
		};

		reqs[i] = smb2_read_send(c2->tree, &io);
		CHECK_TRUE(reqs[i] != NULL);
	}
	ds_loop(tctx, 500);
	ds_relay_hold_requests(c2->relay, 1000);
	wr = (struct smb2_write) {
		.in.file.handle = h2,
		.in.data = data_blob_const(buf, DS_CHUNK),
	};
	req = smb2_write_send(c2->tree, &wr);
	CHECK_TRUE(req != NULL);
	ds_loop(tctx, 300);
	CHECK_TRUE(ds_relay_held(c2->relay) > DS_CHUNK - 1000);

	RESTART();

	CHECK_TRUE(reqs[0]->state == SMB2_REQUEST_RECV);
	ds_relay_release_requests(c2->relay);
	ds_relay_release_replies(c2->relay);
	for (i = 0; i < DS_NUM_READS; i++) {
		struct smb2_read io;

		CHECK_TRUE(ds_wait_req(tctx, reqs[i], DS_WAIT_MSEC));
		CHECK_OK(smb2_read_recv(reqs[i], tctx, &io));
		CHECK_VAL(io.out.data.length, DS_CHUNK);
		torture_assert_mem_equal_goto(tctx,
					      io.out.data.data,
					      buf + i * DS_CHUNK,
					      DS_CHUNK,
					      ret,
					      done,
					      "data changed");
		data_blob_free(&io.out.data);
	}
	CHECK_TRUE(ds_wait_req(tctx, req, DS_WAIT_MSEC));
	CHECK_OK(smb2_write_recv(req, &wr));
	CHECK_VAL(wr.out.nwritten, DS_CHUNK);
	CHECK_OK(ds_read(c2, tctx, h2, 0, DS_CHUNK, &data));
	CHECK_VAL(data.length, DS_CHUNK);
	torture_assert_mem_equal_goto(tctx,
				      data.data,
				      buf,
				      DS_CHUNK,
				      ret,
				      done,
				      "data changed");
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	TALLOC_FREE(buf);
	return ret;
}

/* Requests that the server has not seen yet when the restart begins. */
static bool test_requests_queued(struct torture_context *tctx,
				 struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *reqs[16] = { NULL };
	struct ds_restart *r = NULL;
	uint8_t buf[4096];
	bool ret = true;
	int i;

	CHECK_OK(ds_open_rw(c, DS_NAME("queued"), &h));

	for (i = 0; i < 16; i++) {
		struct smb2_write io = {
			.in.file.handle = h,
			.in.offset = i * sizeof(buf),
			.in.data = data_blob_const(buf, sizeof(buf)),
		};

		ds_fill(buf, sizeof(buf), i);
		reqs[i] = smb2_write_send(c->tree, &io);
		CHECK_TRUE(reqs[i] != NULL);
	}
	r = ds_restart_start(tctx);
	CHECK_TRUE(ds_restart_wait(tctx, r));

	for (i = 0; i < 16; i++) {
		struct smb2_write io;
		DATA_BLOB data;

		CHECK_TRUE(ds_wait_req(tctx, reqs[i], DS_WAIT_MSEC));
		CHECK_OK(smb2_write_recv(reqs[i], &io));
		ds_fill(buf, sizeof(buf), i);
		CHECK_OK(ds_read(c, tctx, h, i * 4096, 4096, &data));
		torture_assert_mem_equal_goto(tctx,
					      data.data,
					      buf,
					      sizeof(buf),
					      ret,
					      done,
					      "data changed");
	}
done:
	ds_close(c, &h);
	return ret;
}

/* The client works on all the time; every request is answered. */
static bool test_requests_during(struct torture_context *tctx,
				 struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_restart *r = NULL;
	uint8_t buf[16384];
	uint32_t i = 0;
	bool ret = true;
	int loop;

	CHECK_OK(ds_open_rw(c, DS_NAME("during"), &h));
	for (loop = 0; loop < 3; loop++) {
		r = ds_restart_start(tctx);
		CHECK_TRUE(r != NULL);
		do {
			DATA_BLOB data;

			i++;
			ds_fill(buf, sizeof(buf), i);
			CHECK_OK(smb2_util_write(c->tree,
						 h,
						 buf,
						 0,
						 sizeof(buf)));
			CHECK_OK(ds_read(c, c, h, 0, sizeof(buf), &data));
			CHECK_VAL(data.length, sizeof(buf));
			torture_assert_mem_equal_goto(tctx,
						      data.data,
						      buf,
						      sizeof(buf),
						      ret,
						      done,
						      "data changed");
			data_blob_free(&data);
		} while (ds_restart_running(r));
		CHECK_TRUE(ds_restart_wait(tctx, r));
		r = NULL;
	}
done:
	TALLOC_FREE(r);
	ds_close(c, &h);
	return ret;
}

/* Who connects during the restart waits, and is served. */
static bool test_connect_during(struct torture_context *tctx,
				struct ds_client *c)
{
	struct ds_restart *r = NULL;
	bool ret = true;
	int num = 0;

	r = ds_restart_start(tctx);
	CHECK_TRUE(r != NULL);
	do {
		struct ds_client *n = ds_connect(tctx, tctx, NULL);

		CHECK_TRUE(n != NULL);
		CHECK_TRUE(ds_check_connection(tctx, n));
		TALLOC_FREE(n);
		num++;
	} while (ds_restart_running(r));
	CHECK_TRUE(ds_restart_wait(tctx, r));
	r = NULL;
	torture_comment(tctx, "%d connections\n", num);
done:
	TALLOC_FREE(r);
	return ret;
}

/* Create, write and close in one packet, the later ones on "the handle". */
static bool ds_compound(struct torture_context *tctx,
			struct ds_client *c,
			const char *fname)
{
	struct smb2_tree *tree = c->tree;
	struct smb2_handle any = { .data = { UINT64_MAX, UINT64_MAX } };
	struct smb2_create cr = {
		.in.fname = fname,
		.in.desired_access = DS_RW,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = NTCREATEX_DISP_OPEN_IF,
	};
	struct smb2_write wr = {
		.in.file.handle = any,
		.in.data = data_blob_string_const("compound"),
	};
	struct smb2_close cl = { .in.file.handle = any };
	struct smb2_request *reqs[3];
	bool ret = true;

	smb2_transport_compound_start(c->transport, 3);
	reqs[0] = smb2_create_send(tree, &cr);

	smb2_transport_compound_set_related(c->transport, true);
	reqs[1] = smb2_write_send(tree, &wr);
	reqs[2] = smb2_close_send(tree, &cl);

	CHECK_OK(smb2_create_recv(reqs[0], tree, &cr));
	CHECK_OK(smb2_write_recv(reqs[1], &wr));
	CHECK_VAL(wr.out.nwritten, 8);
	CHECK_OK(smb2_close_recv(reqs[2], &cl));
done:
	return ret;
}

static bool test_compound(struct torture_context *tctx, struct ds_client *c)
{
	bool ret = true;

	CHECK_TRUE(ds_compound(tctx, c, DS_NAME("compound1")));
	RESTART();
	CHECK_TRUE(ds_compound(tctx, c, DS_NAME("compound2")));
done:
	return ret;
}

void ds_stream_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "echo", test_echo);
	ds_add_test1(suite, "restart-often", test_restart_often);
	ds_add_test1(suite, "negotiated-only", test_negotiated_only);
	ds_add_test1(suite, "mid-holes", test_mid_holes);
	ds_add_test1(suite, "mid-used", test_mid_used);
	ds_add_test1(suite, "credits", test_credits);
	ds_add_test1(suite, "credits-used-up", test_credits_used_up);
	ds_add_test1(suite, "multi-credit", test_multi_credit);
	ds_add_relay_test1(suite, "half-length", test_half_length);
	ds_add_relay_test1(suite, "half-header", test_half_header);
	ds_add_relay_test1(suite, "half-body", test_half_body);
	ds_add_relay_test1(suite, "half-payload", test_half_payload);
	ds_add_relay_test1(suite, "half-thrice", test_half_thrice);
	ds_add_test1(suite, "half-reply", test_half_reply);
	ds_add_test1(suite, "half-both", test_half_both);
	ds_add_test1(suite, "requests-queued", test_requests_queued);
	ds_add_test1(suite, "requests-during", test_requests_during);
	ds_add_test1(suite, "connect-during", test_connect_during);
	ds_add_test1(suite, "compound", test_compound);
}
