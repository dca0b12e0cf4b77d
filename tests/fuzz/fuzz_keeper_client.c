/*
   durable_state: fuzz what a keeper says to its client

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

/*
 * The first line of the input is requests, a letter each; every other line
 * is a packet of replies, with descriptors in front of it (fuzz_line_fds()).
 * After the last one the keeper is gone.
 */

#include "replace.h"
#include "system/network.h"
#include <jansson.h>
#include "durable_state/keeper/keeper_protocol.h"
#include "durable_state/keeper/keeper_client.h"
#include "fuzz_common.h"

static struct fuzz_input replies;

/* ---- called by the client in place of what they are named after */

int fuzz_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	return 0;
}

int fuzz_keeper_check_peer(int sock, pid_t *pid)
{
	*pid = 1;
	return 0;
}

int fuzz_keeper_packet_send(int sock,
			    const uint8_t *buf,
			    size_t len,
			    const int *fds,
			    size_t num_fds)
{
	struct keeper_packet *packet = NULL;

	/* what the client says is JSON, whatever it was told */
	FUZZ_CHECK(num_fds <= KEEPER_PACKET_FDS);
	FUZZ_CHECK(keeper_packet_parse(NULL, buf, len, &packet) == 0);
	TALLOC_FREE(packet);
	return 0;
}

int fuzz_keeper_packet_recv(TALLOC_CTX *mem_ctx,
			    int sock,
			    struct keeper_packet **packet)
{
	int fds[KEEPER_PACKET_FDS];
	struct fuzz_input line;
	uint8_t *copy = NULL;
	size_t num_fds;
	int ret;

	if (!fuzz_line(&replies, &line)) {
		return ECONNRESET;
	}
	num_fds = fuzz_line_fds(&line, fds, ARRAY_SIZE(fds));
	copy = talloc_memdup(NULL, line.data, line.size);
	ret = keeper_packet_parse(mem_ctx, copy, line.size, packet);
	TALLOC_FREE(copy);
	if (ret != 0) {
		while (num_fds > 0) {
			num_fds -= 1;
			close(fds[num_fds]);
		}
		return ret;
	}
	(*packet)->fds = talloc_memdup(*packet, fds, num_fds * sizeof(int));
	(*packet)->num_fds = num_fds;
	return 0;
}

/* ---- */

static void fuzz_taken(int ret, json_t *info, int *fds, size_t num_fds)
{
	size_t i;

	if (ret != 0) {
		return;
	}
	FUZZ_CHECK(json_is_object(info));
	for (i = 0; i < num_fds; i++) {
		FUZZ_CHECK(close(fds[i]) == 0);
	}
	json_decref(info);
	TALLOC_FREE(fds);
}

static void fuzz_call(struct keeper_conn *kc, char letter)
{
	const char *paths[] = { "/a", "/b", };
	struct keeper_holding *list = NULL;
	json_t *json = NULL;
	int *fds = NULL;
	size_t num = 0;
	size_t i;
	int ret = 0;

	switch (letter) {
	case 't':
		ret = keeper_take(kc, kc, "a", &json, &fds, &num);
		fuzz_taken(ret, json, fds, num);
		break;
	case 'c':
		ret = keeper_copy(kc, kc, "a", &json, &fds, &num);
		fuzz_taken(ret, json, fds, num);
		break;
	case 'l':
		ret = keeper_list(kc, kc, &list, &num);
		for (i = 0; (ret == 0) && (i < num); i++) {
			FUZZ_CHECK(list[i].label != NULL);
			FUZZ_CHECK(list[i].info != NULL);
		}
		TALLOC_FREE(list);
		break;
	case 's':
		ret = keeper_status(kc, &json);
		if (ret == 0) {
			FUZZ_CHECK(json_is_object(json));
			json_decref(json);
		}
		break;
	case 'p':
		json = json_object();
		ret = keeper_put(kc, "a", json, NULL, 0);
		json_decref(json);
		break;
	case 'd':
		ret = keeper_drop(kc, "a");
		break;
	case 'g':
		ret = keeper_guard(kc, paths, ARRAY_SIZE(paths));
		break;
	case 'h':
		ret = keeper_hold(kc, 60);
		break;
	}
	FUZZ_CHECK(ret >= 0);
	FUZZ_CHECK(keeper_error(kc) != NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input calls = { .size = 0 };
	struct keeper_conn *kc = NULL;
	size_t num_fds = fuzz_num_fds();
	size_t i;
	int ret;

	replies = (struct fuzz_input) { .data = data, .size = size };
	(void)fuzz_line(&replies, &calls);

	ret = keeper_connect(NULL, "/fuzz", "tool", 1000, &kc);
	if (ret == 0) {
		for (i = 0; (i < calls.size) && (i < 32); i++) {
			fuzz_call(kc, calls.data[i]);
		}
		TALLOC_FREE(kc);
	}
	FUZZ_CHECK(fuzz_num_fds() == num_fds);
	return 0;
}
