/*
 * durable_state: SMB clients survive smbd restarts
 * Packets between the keeper and those who use it
 *
 * Copyright (C) The durable_state developers 2026
 *
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation; either version 3 of the License, or
 * (at your option) any later version.
 *
 * This program is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
 * GNU General Public License for more details.
 *
 * You should have received a copy of the GNU General Public License
 * along with this program.  If not, see <http://www.gnu.org/licenses/>.
 */

#include "replace.h"
#include "system/filesys.h"
#include "system/network.h"
#include "lib/util/debug.h"
#include "keeper_protocol.h"

static int keeper_packet_destructor(struct keeper_packet *packet)
{
	size_t i;

	for (i = 0; i < packet->num_fds; i++) {
		close(packet->fds[i]);
	}
	json_decref(packet->json);
	return 0;
}

int keeper_packet_parse(TALLOC_CTX *mem_ctx,
			const uint8_t *buf,
			size_t len,
			struct keeper_packet **_packet)
{
	struct keeper_packet *packet = NULL;

	if (len > KEEPER_PACKET_MAX) {
		return EMSGSIZE;
	}

	packet = talloc_zero(mem_ctx, struct keeper_packet);
	if (packet == NULL) {
		return ENOMEM;
	}

	packet->json = json_loadb((const char *)buf,
				  len,
				  JSON_REJECT_DUPLICATES,
				  NULL);
	talloc_set_destructor(packet, keeper_packet_destructor);

	if (!json_is_object(packet->json)) {
		TALLOC_FREE(packet);
		return EBADMSG;
	}

	*_packet = packet;
	return 0;
}

int keeper_packet_build(TALLOC_CTX *mem_ctx,
			const json_t *json,
			uint8_t **_buf)
{
	uint8_t *buf = NULL;
	size_t len;

	len = json_dumpb(json, NULL, 0, JSON_COMPACT);
	if (len == 0) {
		return ENOMEM;
	}
	if (len > KEEPER_PACKET_MAX) {
		return EMSGSIZE;
	}

	buf = talloc_array(mem_ctx, uint8_t, len);
	if (buf == NULL) {
		return ENOMEM;
	}
	json_dumpb(json, (char *)buf, len, JSON_COMPACT);

	*_buf = buf;
	return 0;
}

size_t keeper_json_size(const json_t *json)
{
	return json_dumpb(json, NULL, 0, JSON_COMPACT);
}

/*
 * Move the descriptors of a received message into an array. Nothing but
 * descriptors is expected: SO_PASSCRED and the like are not set.
 */
static size_t keeper_packet_extract_fds(struct msghdr *msg,
					int fds[KEEPER_PACKET_FDS])
{
	struct cmsghdr *cmsg = NULL;
	size_t num_fds = 0;

	for (cmsg = CMSG_FIRSTHDR(msg);
	     cmsg != NULL;
	     cmsg = CMSG_NXTHDR(msg, cmsg))
	{
		size_t num;

		if ((cmsg->cmsg_level != SOL_SOCKET) ||
		    (cmsg->cmsg_type != SCM_RIGHTS))
		{
			continue;
		}

		/* The control buffer has no room for more than fit here */
		num = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(&fds[num_fds], CMSG_DATA(cmsg), num * sizeof(int));
		num_fds += num;
	}

	return num_fds;
}

int keeper_packet_recv(TALLOC_CTX *mem_ctx,
		       int sock,
		       struct keeper_packet **_packet)
{
	union {
		struct cmsghdr align;
		uint8_t buf[CMSG_SPACE(sizeof(int) * KEEPER_PACKET_FDS)];
	} control;
	int fds[KEEPER_PACKET_FDS];
	size_t i, num_fds;
	struct keeper_packet *packet = NULL;
	uint8_t *buf = NULL;
	struct iovec iov;
	struct msghdr msg;
	ssize_t nread;
	int ret;

	buf = talloc_array(mem_ctx, uint8_t, KEEPER_PACKET_MAX);
	if (buf == NULL) {
		return ENOMEM;
	}

	iov = (struct iovec) {
		.iov_base = buf,
		.iov_len = KEEPER_PACKET_MAX,
	};
	msg = (struct msghdr) {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};

	do {
		nread = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while ((nread == -1) && (errno == EINTR));

	if (nread == -1) {
		ret = errno;
		TALLOC_FREE(buf);
		return (ret == EWOULDBLOCK) ? EAGAIN : ret;
	}

	num_fds = keeper_packet_extract_fds(&msg, fds);

	/*
	 * A short list of descriptors must never be taken for the whole: the
	 * kernel cuts it when we are out of descriptor numbers.
	 */
	if (msg.msg_flags & MSG_CTRUNC) {
		ret = EMFILE;
	} else if (msg.msg_flags & MSG_TRUNC) {
		ret = EMSGSIZE;
	} else if (nread == 0) {
		ret = ECONNRESET;
	} else {
		ret = keeper_packet_parse(mem_ctx, buf, nread, &packet);
	}
	TALLOC_FREE(buf);
	if (ret != 0) {
		goto fail;
	}

	packet->fds = talloc_memdup(packet, fds, num_fds * sizeof(int));
	if (packet->fds == NULL) {
		TALLOC_FREE(packet);
		ret = ENOMEM;
		goto fail;
	}
	packet->num_fds = num_fds;

	*_packet = packet;
	return 0;

fail:
	for (i = 0; i < num_fds; i++) {
		close(fds[i]);
	}
	return ret;
}

int keeper_packet_send(int sock,
		       const uint8_t *buf,
		       size_t len,
		       const int *fds,
		       size_t num_fds)
{
	union {
		struct cmsghdr align;
		uint8_t buf[CMSG_SPACE(sizeof(int) * KEEPER_PACKET_FDS)];
	} control = {};
	struct iovec iov = {
		.iov_base = discard_const_p(uint8_t, buf),
		.iov_len = len,
	};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t nwritten;

	if ((len > KEEPER_PACKET_MAX) || (num_fds > KEEPER_PACKET_FDS)) {
		return EMSGSIZE;
	}

	if (num_fds > 0) {
		struct cmsghdr *cmsg = NULL;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);

		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * num_fds);
	}

	do {
		nwritten = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while ((nwritten == -1) && (errno == EINTR));

	if (nwritten == -1) {
		return (errno == EWOULDBLOCK) ? EAGAIN : errno;
	}
	return 0;
}

int keeper_check_peer(int sock, pid_t *_pid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int ret;

	ret = getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	if (ret == -1) {
		return errno;
	}
	if (_pid != NULL) {
		*_pid = cred.pid;
	}
	return (cred.uid == 0) ? 0 : EPERM;
}
