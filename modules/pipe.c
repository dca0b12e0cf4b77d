/*
   durable_state: named pipes after a restart

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
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "../lib/tsocket/tsocket.h"
#include "../lib/tsocket/tsocket_internal.h"
#include "rpc_server/rpc_ncacn_np.h"
#include "fake_file.h"
#include "records.h"

/*
 * The process at the other end of a pipe keeps its state to itself, so a
 * pipe cannot go on. Its open does, in order that the client is told
 * PIPE_DISCONNECTED ([MS-SMB2] 3.3.5.12, 3.3.5.13) and opens the pipe
 * again: this is a stream that answers everything with EPIPE, which
 * nt_status_np_pipe() makes of it.
 */

struct ds_pipe_stream {
	uint8_t dummy;
};

struct ds_pipe_state {
	uint8_t dummy;
};

static ssize_t ds_pipe_pending_bytes(struct tstream_context *stream)
{
	errno = EPIPE;
	return -1;
}

static struct tevent_req *ds_pipe_send(TALLOC_CTX *mem_ctx,
				       struct tevent_context *ev)
{
	struct tevent_req *req = NULL;
	struct ds_pipe_state *state = NULL;

	req = tevent_req_create(mem_ctx, &state, struct ds_pipe_state);
	if (req == NULL) {
		return NULL;
	}
	tevent_req_error(req, EPIPE);
	return tevent_req_post(req, ev);
}

static int ds_pipe_recv(struct tevent_req *req, int *perrno)
{
	int ret;

	ret = tsocket_simple_int_recv(req, perrno);
	tevent_req_received(req);
	return ret;
}

static struct tevent_req *ds_pipe_readv_send(TALLOC_CTX *mem_ctx,
					     struct tevent_context *ev,
					     struct tstream_context *stream,
					     struct iovec *vector,
					     size_t count)
{
	return ds_pipe_send(mem_ctx, ev);
}

static struct tevent_req *ds_pipe_writev_send(TALLOC_CTX *mem_ctx,
					      struct tevent_context *ev,
					      struct tstream_context *stream,
					      const struct iovec *vector,
					      size_t count)
{
	return ds_pipe_send(mem_ctx, ev);
}

static struct tevent_req *ds_pipe_disconnect_send(
	TALLOC_CTX *mem_ctx,
	struct tevent_context *ev,
	struct tstream_context *stream)
{
	return ds_pipe_send(mem_ctx, ev);
}

static const struct tstream_context_ops ds_pipe_ops = {
	.name = "durable_state pipe",
	.pending_bytes = ds_pipe_pending_bytes,
	.readv_send = ds_pipe_readv_send,
	.readv_recv = ds_pipe_recv,
	.writev_send = ds_pipe_writev_send,
	.writev_recv = ds_pipe_recv,
	.disconnect_send = ds_pipe_disconnect_send,
	.disconnect_recv = ds_pipe_recv,
};

NTSTATUS ds_restore_pipe(struct files_struct *fsp)
{
	struct fake_file_handle *handle = NULL;
	struct npa_state *npa = NULL;
	struct ds_pipe_stream *state = NULL;

	handle = talloc_zero(fsp, struct fake_file_handle);
	if (handle == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	npa = npa_state_init(handle);
	if (npa == NULL) {
		goto nomem;
	}
	npa->stream = tstream_context_create(npa,
					     &ds_pipe_ops,
					     &state,
					     struct ds_pipe_stream,
					     __location__);
	if (npa->stream == NULL) {
		goto nomem;
	}
	handle->type = FAKE_FILE_TYPE_NAMED_PIPE_PROXY;
	handle->private_data = npa;

	fsp->fake_file_handle = handle;
	return NT_STATUS_OK;
nomem:
	TALLOC_FREE(handle);
	return NT_STATUS_NO_MEMORY;
}
