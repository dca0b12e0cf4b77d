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

#ifndef _DURABLE_STATE_KEEPER_PROTOCOL_H_
#define _DURABLE_STATE_KEEPER_PROTOCOL_H_

#include <talloc.h>
#include <jansson.h>

/*
 * One packet is one JSON object and up to KEEPER_PACKET_FDS descriptors
 * on a SOCK_SEQPACKET Unix socket. What the objects say is described in
 * docs/interfaces.md.
 */

#define KEEPER_PROTOCOL_VERSION 1
#define KEEPER_SOCKET_NAME "keeper"

/* Bytes of JSON in one packet */
#define KEEPER_PACKET_MAX 65536

/* Descriptors in one packet; the kernel's limit (SCM_MAX_FD) is 253 */
#define KEEPER_PACKET_FDS 200

/* Bytes of a label, without the final zero */
#define KEEPER_LABEL_MAX 255

/* Bytes of a holding's info and of an event, in compact JSON */
#define KEEPER_INFO_MAX 16384
#define KEEPER_EVENT_MAX 16384

struct keeper_packet {
	json_t *json; /* an object */

	/*
	 * Freeing the packet closes these. Who keeps them takes the numbers
	 * and sets num_fds to 0.
	 */
	int *fds;
	size_t num_fds;
};

/**
 * @brief Check and decode the JSON part of a packet.
 *
 * @return 0, EMSGSIZE (too long), EBADMSG (no JSON object) or ENOMEM.
 */
int keeper_packet_parse(TALLOC_CTX *mem_ctx,
			const uint8_t *buf,
			size_t len,
			struct keeper_packet **_packet);

/**
 * @brief Encode an object, to be sent as the JSON part of a packet.
 *
 * @param[out] _buf  talloc'ed on mem_ctx, its talloc length is the size.
 *
 * @return 0, EMSGSIZE (longer than a packet may be) or ENOMEM.
 */
int keeper_packet_build(TALLOC_CTX *mem_ctx,
			const json_t *json,
			uint8_t **_buf);

/**
 * @brief Receive one packet without waiting.
 *
 * All descriptors in it have FD_CLOEXEC. On error those that came are closed.
 *
 * @return 0, EAGAIN (nothing there), ECONNRESET (the other side has closed),
 *	   EMFILE (not all descriptors could be received: too many were sent,
 *	   or this process may not open more), EMSGSIZE, EBADMSG, ENOMEM, or
 *	   the error of recvmsg(2).
 */
int keeper_packet_recv(TALLOC_CTX *mem_ctx,
		       int sock,
		       struct keeper_packet **_packet);

/**
 * @brief Send one packet without waiting.
 *
 * The descriptors stay the caller's.
 *
 * @return 0, EAGAIN (no room now) or the error of sendmsg(2).
 */
int keeper_packet_send(int sock,
		       const uint8_t *buf,
		       size_t len,
		       const int *fds,
		       size_t num_fds);

/**
 * @brief Is the process at the other end of a Unix socket root's?
 *
 * The credentials are those at connect(2), listen(2) or socketpair(2).
 *
 * @param[out] _pid  Its process id, may be NULL.
 *
 * @return 0, EPERM or the error of getsockopt(2).
 */
int keeper_check_peer(int sock, pid_t *_pid);

/**
 * @brief Bytes an object takes in a packet.
 */
size_t keeper_json_size(const json_t *json);

#endif /* _DURABLE_STATE_KEEPER_PROTOCOL_H_ */
