/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: named pipes

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

/* DCE/RPC bind to srvsvc 3.0 with NDR 2.0 (C706, 12.6.4.3) */
static const uint8_t ds_bind_pdu[] = {
	/* version 5.0, bind, first and last fragment, little endian */
	0x05, 0x00, 0x0b, 0x03, 0x10, 0x00, 0x00, 0x00,
	/* 72 bytes, no auth, call id 1 */
	0x48, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
	/* fragments of 4280 bytes, a new association group */
	0xb8, 0x10, 0xb8, 0x10, 0x00, 0x00, 0x00, 0x00,
	/* one context, id 0, one transfer syntax */
	0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
	/* 4b324fc8-1670-01d3-1278-5a47bf6ee188 v3.0 */
	0xc8, 0x4f, 0x32, 0x4b, 0x70, 0x16, 0xd3, 0x01,
	0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88,
	0x03, 0x00, 0x00, 0x00,
	/* 8a885d04-1ceb-11c9-9fe8-08002b104860 v2.0 */
	0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11,
	0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60,
	0x02, 0x00, 0x00, 0x00,
};

#define DS_BIND_ACK 0x0c

static NTSTATUS ds_pipe_open(struct smb2_tree *ipc, struct smb2_handle *h)
{
	struct smb2_create io = {
		.in.fname = "srvsvc",
		.in.desired_access = DS_RW,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = NTCREATEX_DISP_OPEN,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	NTSTATUS status;

	status = smb2_create(ipc, ipc, &io);
	if (NT_STATUS_IS_OK(status)) {
		*h = io.out.file.handle;
	}
	return status;
}

static NTSTATUS ds_pipe_read(struct smb2_tree *ipc,
			     struct smb2_handle h,
			     DATA_BLOB *data)
{
	struct smb2_read io = {
		.in.file.handle = h,
		.in.length = 4280,
	};
	NTSTATUS status;

	status = smb2_read(ipc, ipc, &io);
	*data = io.out.data;
	return status;
}

/* Binds to the service behind the pipe. */
static bool ds_pipe_bind(struct torture_context *tctx,
			 struct smb2_tree *ipc,
			 struct smb2_handle h)
{
	DATA_BLOB data;
	bool ret = true;

	CHECK_OK(smb2_util_write(ipc,
				 h,
				 ds_bind_pdu,
				 0,
				 sizeof(ds_bind_pdu)));
	CHECK_OK(ds_pipe_read(ipc, h, &data));
	CHECK_TRUE(data.length > 3);
	CHECK_VAL(data.data[2], DS_BIND_ACK);
done:
	return ret;
}

/*
 * Pipes may be lost, but in order: STATUS_PIPE_DISCONNECTED, closing works,
 * and so does a new one. Everything else of the client goes on.
 */
static bool test_pipe(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_tree *ipc = ds_tcon(tctx, c, "IPC$");
	struct smb2_handle file = { .data = { 0 } };
	struct smb2_handle h;
	NTSTATUS status;
	DATA_BLOB data;
	bool ret = true;

	CHECK_TRUE(ipc != NULL);
	CHECK_OK(ds_open_rw(c, DS_NAME("file"), &file));
	CHECK_OK(ds_pipe_open(ipc, &h));
	CHECK_TRUE(ds_pipe_bind(tctx, ipc, h));

	RESTART();

	status = smb2_util_write(ipc, h, ds_bind_pdu, 0, sizeof(ds_bind_pdu));
	if (!NT_STATUS_IS_OK(status)) {
		CHECK_STATUS(status, NT_STATUS_PIPE_DISCONNECTED);
		CHECK_STATUS(ds_pipe_read(ipc, h, &data),
			     NT_STATUS_PIPE_DISCONNECTED);
	}
	CHECK_OK(smb2_util_close(ipc, h));
	CHECK_OK(ds_pipe_open(ipc, &h));
	CHECK_TRUE(ds_pipe_bind(tctx, ipc, h));
	CHECK_OK(smb2_util_close(ipc, h));
	CHECK_OK(smb2_util_write(c->tree, file, "x", 0, 1));
done:
	ds_close(c, &file);
	return ret;
}

/* A read that waits for the pipe to say something ends as well. */
static bool test_pipe_read(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_tree *ipc = ds_tcon(tctx, c, "IPC$");
	struct smb2_request *req = NULL;
	struct smb2_handle h;
	struct smb2_read io;
	NTSTATUS status;
	bool ret = true;

	CHECK_TRUE(ipc != NULL);
	CHECK_OK(ds_pipe_open(ipc, &h));
	CHECK_TRUE(ds_pipe_bind(tctx, ipc, h));
	io = (struct smb2_read) {
		.in.file.handle = h,
		.in.length = 1024,
	};
	req = smb2_read_send(ipc, &io);
	CHECK_TRUE(ds_wait_interim(tctx, req));

	RESTART();

	if (ds_wait_req(tctx, req, 2000)) {
		status = smb2_read_recv(req, tctx, &io);
		CHECK_STATUS(status, NT_STATUS_PIPE_DISCONNECTED);
	} else {
		/* the pipe lives on */
		CHECK_STATUS(ds_cancel(tctx, req), NT_STATUS_CANCELLED);
	}
	CHECK_OK(smb2_util_close(ipc, h));
	CHECK_OK(ds_pipe_open(ipc, &h));
	CHECK_TRUE(ds_pipe_bind(tctx, ipc, h));
	CHECK_OK(smb2_util_close(ipc, h));
done:
	return ret;
}

void ds_pipe_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "pipe", test_pipe);
	ds_add_test1(suite, "pipe-read", test_pipe_read);
}
