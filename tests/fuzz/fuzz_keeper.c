/*
   durable_state: fuzz the keeper's socket

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
 * The input is lines, for a keeper that has nothing yet:
 *
 * 0mm{"op":...}  peer 0 of 8, which connects if it has not, sends this with
 *                two memfds: fuzz_line_fds()
 * .              the keeper does what there is to do
 * <0             peer 0 receives its replies
 * -0             peer 0 ends
 * !              the keeper executes itself again, and cannot
 */

#include "replace.h"
#include "system/network.h"
#include <tevent.h>
#include "durable_state/keeper/keeper_protocol.h"
#include "durable_state/keeper/keeper.h"
#include "durable_state/keeper/peer.h"
#include "fuzz_common.h"
#include "fuzz_files.h"

#define FUZZ_PEERS 8

/* The kernel's limit: more than the keeper takes */
#define FUZZ_PACKET_FDS 253

static int fuzz_peers[FUZZ_PEERS];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	fuzz_files_init();
	unsetenv("NOTIFY_SOCKET");
	return 0;
}

static void fuzz_send(struct keeper *k, unsigned int i, struct fuzz_input line)
{
	uint8_t control[CMSG_SPACE(sizeof(int) * FUZZ_PACKET_FDS)] = {};
	int fds[FUZZ_PACKET_FDS];
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, };
	size_t num_fds;

	if (fuzz_peers[i] == -1) {
		int pair[2];

		FUZZ_CHECK(socketpair(AF_UNIX,
				      SOCK_SEQPACKET | SOCK_CLOEXEC,
				      0,
				      pair) == 0);
		fuzz_peers[i] = pair[0];
		peer_accept(k, pair[1]);
	}

	num_fds = fuzz_line_fds(&line, fds, ARRAY_SIZE(fds));
	iov = (struct iovec) {
		.iov_base = discard_const_p(uint8_t, line.data),
		.iov_len = line.size,
	};
	if (num_fds > 0) {
		struct cmsghdr *cmsg = NULL;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * num_fds);
	}
	/* the keeper may have closed it, or not read for long */
	(void)sendmsg(fuzz_peers[i], &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	while (num_fds > 0) {
		num_fds -= 1;
		close(fds[num_fds]);
	}
}

static void fuzz_do(struct keeper *k, struct fuzz_input line)
{
	static char *const argv[] = { NULL };
	uint8_t what = fuzz_take(&line, 1);
	unsigned int i;

	switch (what) {
	case '.':
		fuzz_keeper_loop(k);
		break;
	case '!':
		keeper_exec(k, "/nonexistent", argv);
		break;
	case '<':
	case '-':
		i = (uint8_t)(fuzz_take(&line, 1) - '0');
		if ((i >= FUZZ_PEERS) || (fuzz_peers[i] == -1)) {
			break;
		}
		fuzz_receive(fuzz_peers[i]);
		if (what == '-') {
			close(fuzz_peers[i]);
			fuzz_peers[i] = -1;
		}
		break;
	default:
		i = (uint8_t)(what - '0');
		if (i < FUZZ_PEERS) {
			fuzz_send(k, i, line);
		}
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { .data = data, .size = size };
	struct fuzz_input line;
	size_t num_fds = fuzz_num_fds();
	struct tevent_context *ev = tevent_context_init(NULL);
	struct keeper *k = NULL;
	unsigned int i;

	memset(fuzz_peers, 0xff, sizeof(fuzz_peers));
	k = keeper_start(ev, ev, "/fuzz/keeper", -1, 60, NULL);
	FUZZ_CHECK(k != NULL);

	while (fuzz_line(&in, &line)) {
		fuzz_do(k, line);
		fuzz_keeper_check(k);
	}
	fuzz_keeper_loop(k);
	for (i = 0; i < FUZZ_PEERS; i++) {
		if (fuzz_peers[i] != -1) {
			fuzz_receive(fuzz_peers[i]);
			close(fuzz_peers[i]);
		}
	}
	fuzz_keeper_loop(k);

	/* with them goes all that they have begun */
	FUZZ_CHECK(k->peers == NULL);
	keeper_stop(k);
	TALLOC_FREE(ev);
	FUZZ_CHECK(fuzz_num_fds() == num_fds);
	return 0;
}
