/*
   Unix SMB/CIFS implementation.

   a relay between the SMB client library and its TCP socket

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
#include "libcli/smb/smb2_constants.h"
#include "libcli/smb/smb_constants.h"
#include "lib/util/blocking.h"
#include "torture/durable_state/ds_relay.h"

struct ds_relay_way {
	uint8_t *buf;
	size_t len;
	/* how many bytes may still pass */
	size_t allowed;
};

struct ds_relay_nonce {
	uint8_t data[16];
};

struct ds_relay {
	int client_fd;
	int server_fd;
	struct tevent_fd *client_fde;
	struct tevent_fd *server_fde;
	struct ds_relay_way requests;
	struct ds_relay_way replies;
	bool replies_held;
	bool broken;
	/* where we are in the stream of replies */
	uint8_t head[NBT_HDR_SIZE + SMB2_HDR_BODY];
	size_t head_len;
	size_t pdu_left;
	uint64_t interim_id;
	bool got_interim;
	struct ds_relay_nonce *nonces;
	size_t num_nonces;
};

static int ds_relay_destructor(struct ds_relay *r)
{
	TALLOC_FREE(r->client_fde);
	TALLOC_FREE(r->server_fde);
	close(r->client_fd);
	close(r->server_fd);
	return 0;
}

static void ds_relay_fail(struct ds_relay *r)
{
	r->broken = true;
	TALLOC_FREE(r->client_fde);
	TALLOC_FREE(r->server_fde);
	/* the library sees the end as it would on the TCP socket */
	shutdown(r->client_fd, SHUT_RDWR);
}

static void ds_relay_update(struct ds_relay *r)
{
	uint16_t client_flags = TEVENT_FD_READ;
	uint16_t server_flags = TEVENT_FD_READ;

	if (r->broken) {
		return;
	}
	if (r->replies_held) {
		server_flags = 0;
	}
	if (r->replies.len > 0) {
		client_flags |= TEVENT_FD_WRITE;
	}
	if (MIN(r->requests.len, r->requests.allowed) > 0) {
		server_flags |= TEVENT_FD_WRITE;
	}
	tevent_fd_set_flags(r->client_fde, client_flags);
	tevent_fd_set_flags(r->server_fde, server_flags);
}

static void ds_relay_add_nonce(struct ds_relay *r, const uint8_t *nonce)
{
	r->nonces = talloc_realloc(r,
				   r->nonces,
				   struct ds_relay_nonce,
				   r->num_nonces + 1);
	if (r->nonces == NULL) {
		ds_relay_fail(r);
		return;
	}
	memcpy(r->nonces[r->num_nonces].data, nonce, 16);
	r->num_nonces++;
}

static void ds_relay_inspect_head(struct ds_relay *r)
{
	const uint8_t *hdr = r->head + NBT_HDR_SIZE;

	if (IVAL(hdr, SMB2_TF_PROTOCOL_ID) == SMB2_TF_MAGIC) {
		ds_relay_add_nonce(r, hdr + SMB2_TF_NONCE);
		return;
	}
	if (IVAL(hdr, SMB2_HDR_PROTOCOL_ID) != SMB2_MAGIC) {
		return;
	}
	if (!(IVAL(hdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC)) {
		return;
	}
	if (!NT_STATUS_EQUAL(NT_STATUS(IVAL(hdr, SMB2_HDR_STATUS)),
			     NT_STATUS_PENDING)) {
		return;
	}
	r->interim_id = BVAL(hdr, SMB2_HDR_ASYNC_ID);
	r->got_interim = true;
}

/*
 * Follow the PDUs in the stream of replies. Every one is longer than its
 * header.
 */
static void ds_relay_inspect(struct ds_relay *r, const uint8_t *buf, size_t n)
{
	while (n > 0) {
		size_t want;

		if (r->pdu_left > 0) {
			want = MIN(n, r->pdu_left);
			r->pdu_left -= want;
			buf += want;
			n -= want;
			continue;
		}

		want = MIN(n, sizeof(r->head) - r->head_len);
		memcpy(r->head + r->head_len, buf, want);
		r->head_len += want;
		buf += want;
		n -= want;

		if (r->head_len == sizeof(r->head)) {
			ds_relay_inspect_head(r);
			r->pdu_left = RIVAL(r->head, 0) & 0xffffff;
			r->pdu_left -= MIN(r->pdu_left, SMB2_HDR_BODY);
			r->head_len = 0;
		}
	}
}

static ssize_t ds_relay_read(struct ds_relay *r,
			     int fd,
			     struct ds_relay_way *way)
{
	uint8_t chunk[65536];
	ssize_t n;

	n = recv(fd, chunk, sizeof(chunk), 0);
	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		return 0;
	}
	if (n <= 0) {
		ds_relay_fail(r);
		return -1;
	}
	way->buf = talloc_realloc(r, way->buf, uint8_t, way->len + n);
	if (way->buf == NULL) {
		ds_relay_fail(r);
		return -1;
	}
	memcpy(way->buf + way->len, chunk, n);
	way->len += n;
	return n;
}

static void ds_relay_write(struct ds_relay *r,
			   int fd,
			   struct ds_relay_way *way)
{
	ssize_t n;

	n = send(fd, way->buf, MIN(way->len, way->allowed), MSG_NOSIGNAL);
	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (n == -1) {
		ds_relay_fail(r);
		return;
	}
	memmove(way->buf, way->buf + n, way->len - n);
	way->len -= n;
	if (way->allowed != SIZE_MAX) {
		way->allowed -= n;
	}
}

static void ds_relay_client_handler(struct tevent_context *ev,
				    struct tevent_fd *fde,
				    uint16_t flags,
				    void *private_data)
{
	struct ds_relay *r = talloc_get_type_abort(private_data,
						   struct ds_relay);

	if (flags & TEVENT_FD_WRITE) {
		ds_relay_write(r, r->client_fd, &r->replies);
	} else if (flags & TEVENT_FD_READ) {
		ds_relay_read(r, r->client_fd, &r->requests);
	}
	ds_relay_update(r);
}

static void ds_relay_server_handler(struct tevent_context *ev,
				    struct tevent_fd *fde,
				    uint16_t flags,
				    void *private_data)
{
	struct ds_relay *r = talloc_get_type_abort(private_data,
						   struct ds_relay);

	if (flags & TEVENT_FD_WRITE) {
		ds_relay_write(r, r->server_fd, &r->requests);
	} else if (flags & TEVENT_FD_READ) {
		size_t before = r->replies.len;
		ssize_t n;

		n = ds_relay_read(r, r->server_fd, &r->replies);
		if (n > 0) {
			ds_relay_inspect(r, r->replies.buf + before, n);
		}
	}
	ds_relay_update(r);
}

struct ds_relay *ds_relay_create(TALLOC_CTX *mem_ctx,
				 struct tevent_context *ev,
				 int server_fd,
				 int *client_fd)
{
	struct ds_relay *r = NULL;
	int fds[2];
	int ret;

	ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
	if (ret == -1) {
		return NULL;
	}

	r = talloc_zero(mem_ctx, struct ds_relay);
	if (r == NULL) {
		close(fds[0]);
		close(fds[1]);
		return NULL;
	}
	r->client_fd = fds[0];
	r->server_fd = server_fd;
	r->requests.allowed = SIZE_MAX;
	r->replies.allowed = SIZE_MAX;
	talloc_set_destructor(r, ds_relay_destructor);

	set_blocking(r->client_fd, false);
	set_blocking(r->server_fd, false);

	r->client_fde = tevent_add_fd(ev,
				      r,
				      r->client_fd,
				      TEVENT_FD_READ,
				      ds_relay_client_handler,
				      r);
	r->server_fde = tevent_add_fd(ev,
				      r,
				      r->server_fd,
				      TEVENT_FD_READ,
				      ds_relay_server_handler,
				      r);
	if (r->client_fde == NULL || r->server_fde == NULL) {
		close(fds[1]);
		TALLOC_FREE(r);
		return NULL;
	}

	*client_fd = fds[1];
	return r;
}

void ds_relay_hold_requests(struct ds_relay *r, size_t bytes)
{
	r->requests.allowed = bytes;
	ds_relay_update(r);
}

void ds_relay_release_requests(struct ds_relay *r)
{
	r->requests.allowed = SIZE_MAX;
	ds_relay_update(r);
}

size_t ds_relay_held(struct ds_relay *r)
{
	return r->requests.len;
}

void ds_relay_hold_replies(struct ds_relay *r)
{
	r->replies_held = true;
	ds_relay_update(r);
}

void ds_relay_release_replies(struct ds_relay *r)
{
	r->replies_held = false;
	ds_relay_update(r);
}

bool ds_relay_broken(struct ds_relay *r)
{
	return r->broken;
}

bool ds_relay_interim_id(struct ds_relay *r, uint64_t *async_id)
{
	*async_id = r->interim_id;
	return r->got_interim;
}

size_t ds_relay_encrypted(struct ds_relay *r)
{
	return r->num_nonces;
}

bool ds_relay_nonces_unique(struct ds_relay *r)
{
	size_t i, j;

	for (i = 1; i < r->num_nonces; i++) {
		for (j = 0; j < i; j++) {
			if (memcmp(r->nonces[i].data,
				   r->nonces[j].data,
				   sizeof(r->nonces[i].data)) == 0) {
				return false;
			}
		}
	}
	return true;
}
