/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: several connections of one client

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
#include "system/network.h"
#include "auth/credentials/credentials.h"
#include "lib/cmdline/cmdline.h"
#include "lib/param/param.h"
#include "libcli/security/security.h"
#include "torture/durable_state/ds_util.h"

/* A second connection of the same client, bound to the session of c. */
static bool ds_bind(struct torture_context *tctx,
		    struct ds_client *c,
		    struct ds_client **_n)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_NEGPROT_ONLY,
		.client_guid = &c->options.client_guid,
	};
	struct ds_client *n = NULL;
	bool ret = true;

	n = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(n != NULL);
	n->session = smb2_session_channel(n->transport,
					  lpcfg_gensec_settings(tctx,
								tctx->lp_ctx),
					  n,
					  c->session);
	CHECK_TRUE(n->session != NULL);
	CHECK_OK(smb2_session_setup_spnego(n->session,
					   samba_cmdline_get_creds(),
					   0));
	n->tree = smb2_tree_channel(c->tree, n, false, n->session);
	CHECK_TRUE(n->tree != NULL);
	*_n = n;
	return true;
done:
	TALLOC_FREE(n);
	return ret;
}

#define CHECK_MULTICHANNEL(c) do { \
	uint32_t caps = \
		smb2cli_conn_server_capabilities((c)->transport->conn); \
	if (ds_protocol(c) < PROTOCOL_SMB3_00) { \
		torture_skip(tctx, "channels need SMB 3.00\n"); \
	} \
	if (!(caps & SMB2_CAP_MULTI_CHANNEL)) { \
		torture_skip(tctx, "the server does no multichannel\n"); \
	} \
} while (0)

static bool ds_write_check(struct torture_context *tctx,
			   struct ds_client *writer,
			   struct ds_client *reader,
			   struct smb2_handle h,
			   const char *text)
{
	DATA_BLOB data;
	bool ret = true;

	CHECK_OK(smb2_util_write(writer->tree, h, text, 0, strlen(text)));
	CHECK_OK(ds_read(reader, tctx, h, 0, strlen(text), &data));
	CHECK_VAL(data.length, strlen(text));
	torture_assert_mem_equal_goto(tctx,
				      data.data,
				      text,
				      strlen(text),
				      ret,
				      done,
				      "data changed");
done:
	return ret;
}

/* Both connections of a client go on, and share their handles. */
static bool test_channels(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *n = NULL;
	bool ret = true;

	CHECK_MULTICHANNEL(c);
	CHECK_TRUE(ds_bind(tctx, c, &n));
	CHECK_OK(ds_open_rw(c, DS_NAME("channels"), &h));
	CHECK_TRUE(ds_write_check(tctx, n, c, h, "before"));

	RESTART();

	CHECK_TRUE(ds_write_check(tctx, c, n, h, "first"));
	CHECK_TRUE(ds_write_check(tctx, n, c, h, "second"));
	CHECK_TRUE(ds_check_connection(tctx, n));
done:
	ds_close(c, &h);
	TALLOC_FREE(n);
	return ret;
}

/* Another connection can be bound to the session after the restart. */
static bool test_channel_bind(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *n = NULL;
	bool ret = true;

	CHECK_MULTICHANNEL(c);
	CHECK_OK(ds_open_rw(c, DS_NAME("bind"), &h));

	RESTART();

	CHECK_TRUE(ds_bind(tctx, c, &n));
	CHECK_TRUE(ds_write_check(tctx, n, c, h, "bound"));
	CHECK_TRUE(ds_check_connection(tctx, n));
done:
	ds_close(c, &h);
	TALLOC_FREE(n);
	return ret;
}

/* One channel goes away after the restart, the handles do not. */
static bool test_channel_close(struct torture_context *tctx,
			       struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *n = NULL;
	bool ret = true;

	CHECK_MULTICHANNEL(c);
	CHECK_TRUE(ds_bind(tctx, c, &n));
	CHECK_OK(ds_open_rw(n, DS_NAME("channel-close"), &h));

	RESTART();

	TALLOC_FREE(n);
	ds_loop(tctx, 300);
	CHECK_TRUE(ds_write_check(tctx, c, c, h, "left"));
done:
	ds_close(c, &h);
	TALLOC_FREE(n);
	return ret;
}

/* The one that goes away is the first, by which the client logged in. */
static bool test_channel_first_close(struct torture_context *tctx,
				     struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *first = NULL;
	struct ds_client *n = NULL;
	bool ret = true;

	CHECK_MULTICHANNEL(c);
	first = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(first != NULL);
	CHECK_TRUE(ds_bind(tctx, first, &n));
	CHECK_OK(ds_open_rw(first, DS_NAME("first-close"), &h));

	RESTART();

	CHECK_TRUE(ds_write_check(tctx, first, n, h, "both"));
	shutdown(first->fd, SHUT_RDWR);
	ds_loop(tctx, 300);
	CHECK_TRUE(ds_write_check(tctx, n, n, h, "left"));
	RESTART();
	CHECK_TRUE(ds_write_check(tctx, n, n, h, "still"));
	CHECK_TRUE(ds_check_connection(tctx, n));
done:
	TALLOC_FREE(n);
	TALLOC_FREE(first);
	return ret;
}

static struct smb2_request *ds_notify_send(struct ds_client *c,
					   struct smb2_handle h)
{
	struct smb2_notify io = {
		.in.file.handle = h,
		.in.buffer_size = 4096,
		.in.completion_filter = FILE_NOTIFY_CHANGE_FILE_NAME,
	};

	return smb2_notify_send(c->tree, &io);
}

/* What the request sees of a new file. */
static bool ds_notify_check(struct torture_context *tctx,
			    struct ds_client *c,
			    struct smb2_request *req,
			    const char *fname)
{
	struct smb2_notify io;
	bool ret = true;

	CHECK_TRUE(ds_still_waiting(tctx, req));
	CHECK_OK(ds_create_file(c, fname, "", 0));
	CHECK_TRUE(ds_wait_req(tctx, req, 5000));
	CHECK_OK(smb2_notify_recv(req, tctx, &io));
	CHECK_VAL(io.out.num_changes, 1);
done:
	return ret;
}

/* A request that waits belongs to the connection on which it came. */
static bool test_channel_waiting(struct torture_context *tctx,
				 struct ds_client *c)
{
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	struct smb2_request *req1 = NULL;
	struct smb2_request *req2 = NULL;
	struct ds_client *n = NULL;
	bool ret = true;

	CHECK_MULTICHANNEL(c);
	CHECK_TRUE(ds_bind(tctx, c, &n));
	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("watched1"), &h1));
	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("watched2"), &h2));
	req1 = ds_notify_send(n, h1);
	CHECK_TRUE(ds_wait_interim(tctx, req1));
	req2 = ds_notify_send(c, h2);
	CHECK_TRUE(ds_wait_interim(tctx, req2));
	ds_loop(tctx, 100);

	RESTART();

	CHECK_TRUE(ds_notify_check(tctx, c, req1, DS_NAME("watched1\\new")));
	CHECK_TRUE(ds_notify_check(tctx, n, req2, DS_NAME("watched2\\new")));
	CHECK_TRUE(ds_check_connection(tctx, n));
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	TALLOC_FREE(n);
	return ret;
}

/* Requests for one handle: the order is that in which they came. */
static bool test_channel_order(struct torture_context *tctx,
			       struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_request *reqs[4] = { NULL };
	struct ds_client *n = NULL;
	bool ret = true;
	int i;

	CHECK_MULTICHANNEL(c);
	CHECK_TRUE(ds_bind(tctx, c, &n));
	CHECK_OK(torture_smb2_testdir(c->tree, DS_NAME("order"), &h));
	for (i = 0; i < 4; i++) {
		reqs[i] = ds_notify_send((i % 2 == 0) ? n : c, h);
		CHECK_TRUE(ds_wait_interim(tctx, reqs[i]));
	}
	ds_loop(tctx, 100);

	RESTART();

	for (i = 0; i < 4; i++) {
		char *name = talloc_asprintf(tctx, DS_NAME("order\\%d"), i);

		CHECK_TRUE(ds_notify_check(tctx, c, reqs[i], name));
	}
done:
	ds_close(c, &h);
	TALLOC_FREE(n);
	return ret;
}

static NTSTATUS ds_write_sequence(struct ds_client *c,
				  struct smb2_handle h,
				  uint16_t sequence)
{
	smb2cli_session_reset_channel_sequence(c->session->smbXcli, sequence);
	return smb2_util_write(c->tree, h, "x", 0, 1);
}

/* MS-SMB2 3.3.5.2.10: writes of an earlier channel sequence are refused. */
static bool test_channel_sequence(struct torture_context *tctx,
				  struct ds_client *c)
{
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	if (ds_protocol(c) < PROTOCOL_SMB3_00) {
		torture_skip(tctx, "channel sequences need SMB 3.00\n");
	}
	smbXcli_conn_set_force_channel_sequence(c->transport->conn, true);
	CHECK_OK(ds_open_rw(c, DS_NAME("sequence"), &h));
	CHECK_OK(ds_write_sequence(c, h, 5));
	CHECK_STATUS(ds_write_sequence(c, h, 4), NT_STATUS_FILE_NOT_AVAILABLE);

	RESTART();

	CHECK_STATUS(ds_write_sequence(c, h, 4), NT_STATUS_FILE_NOT_AVAILABLE);
	CHECK_OK(ds_write_sequence(c, h, 5));
	CHECK_OK(ds_write_sequence(c, h, 6));
	CHECK_STATUS(ds_write_sequence(c, h, 5), NT_STATUS_FILE_NOT_AVAILABLE);
done:
	smb2cli_session_reset_channel_sequence(c->session->smbXcli, 6);
	ds_close(c, &h);
	return ret;
}

void ds_channel_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "channel-two", test_channels);
	ds_add_test1(suite, "channel-bind", test_channel_bind);
	ds_add_test1(suite, "channel-close", test_channel_close);
	ds_add_test1(suite, "channel-first-close", test_channel_first_close);
	ds_add_test1(suite, "channel-waiting", test_channel_waiting);
	ds_add_test1(suite, "channel-order", test_channel_order);
	ds_add_test1(suite, "channel-sequence", test_channel_sequence);
}
