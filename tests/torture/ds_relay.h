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

#ifndef __TORTURE_DURABLE_STATE_DS_RELAY_H__
#define __TORTURE_DURABLE_STATE_DS_RELAY_H__

#include <talloc.h>
#include <tevent.h>

/*
 * The library writes whole PDUs, signed or encrypted. To leave the server
 * with a part of one, the library talks to one end of a socketpair, and the
 * relay passes on what comes out of the other: as many bytes as it is told
 * to. It lives in the event loop of the test.
 */
struct ds_relay;

/*
 * server_fd belongs to the relay afterwards, *client_fd (a new descriptor)
 * to the caller. NULL without memory or descriptors.
 */
struct ds_relay *ds_relay_create(TALLOC_CTX *mem_ctx,
				 struct tevent_context *ev,
				 int server_fd,
				 int *client_fd);

/* Pass on that many more bytes to the server, keep what comes after them. */
void ds_relay_hold_requests(struct ds_relay *r, size_t bytes);
void ds_relay_release_requests(struct ds_relay *r);
/* How many bytes wait in the relay for the server. */
size_t ds_relay_held(struct ds_relay *r);

/* Do not read from the server any more, until released. */
void ds_relay_hold_replies(struct ds_relay *r);
void ds_relay_release_replies(struct ds_relay *r);

/* The TCP connection ended or failed. */
bool ds_relay_broken(struct ds_relay *r);

/*
 * The async id of the last interim response. False: there was none, or the
 * replies are encrypted.
 */
bool ds_relay_interim_id(struct ds_relay *r, uint64_t *async_id);

/*
 * How many encrypted replies came, and whether every nonce was new.
 */
size_t ds_relay_encrypted(struct ds_relay *r);
bool ds_relay_nonces_unique(struct ds_relay *r);

#endif /* __TORTURE_DURABLE_STATE_DS_RELAY_H__ */
