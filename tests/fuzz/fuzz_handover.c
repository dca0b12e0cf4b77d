/*
   durable_state: fuzz what a keeper leaves to the next one

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
 * The first line of the input says which descriptors there are
 * (fuzz_line_fds()) after a letter for the way they came: e over execve(2),
 * everything else out of systemd's store. Their numbers in the state, which
 * is the rest, are from 10 on.
 */

#include "replace.h"
#include "system/filesys.h"
#include "system/network.h"
#include <tevent.h>
#include "durable_state/keeper/keeper_protocol.h"
#include "durable_state/keeper/handover.h"
#include "durable_state/keeper/keeper.h"
#include "durable_state/keeper/peer.h"
#include "fuzz_common.h"
#include "fuzz_files.h"

#define FUZZ_FIRST 10
#define FUZZ_MAX 24

static void fuzz_occupy(void)
{
	int fd;

	/* these numbers are never the fuzzer's own */
	for (fd = FUZZ_FDS_BEGIN; fd < FUZZ_FDS_END; fd++) {
		int null;

		if (fcntl(fd, F_GETFD) != -1) {
			continue;
		}
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		FUZZ_CHECK(null != -1);
		if (null != fd) {
			dup2(null, fd);
			close(null);
		}
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_occupy();
	fuzz_messages();
	fuzz_files_init();
	unsetenv("NOTIFY_SOCKET");
	return 0;
}

/* Takes over fds and state */
static void fuzz_leave_by_exec(int state, const int *fds, size_t num)
{
	size_t i;
	int fd;

	for (fd = FUZZ_FDS_BEGIN; fd < FUZZ_FDS_END; fd++) {
		close(fd);
	}
	for (i = 0; i < num; i++) {
		dup2(fds[i], FUZZ_FIRST + i);
		close(fds[i]);
	}
	dup2(state, FUZZ_FIRST - 1);
	close(state);
	setenv("DURABLE_STATED_STATE", "9", 1);
}

static void fuzz_leave_stored(int state, const int *fds, size_t num)
{
	size_t i;

	dup2(state, FUZZ_FDS_BEGIN);
	close(state);
	fuzz_num_stored = num + 1;
	fuzz_stored_names = calloc(num + 2, sizeof(char *));
	fuzz_stored_names[0] = strdup("state");
	for (i = 0; i < num; i++) {
		dup2(fds[i], FUZZ_FDS_BEGIN + 1 + i);
		close(fds[i]);
		asprintf(&fuzz_stored_names[1 + i],
			 "fd%zu",
			 (size_t)FUZZ_FIRST + i);
	}
}

static void fuzz_ask(struct keeper *k)
{
	static const char *questions[] = {
		"{\"op\":\"hello\",\"version\":1,\"role\":\"tool\"}",
		"{\"op\":\"status\"}",
		"{\"op\":\"list\"}",
		"{\"op\":\"take\",\"label\":\"a\"}",
		"{\"op\":\"drop\",\"label\":\"a\"}",
		"{\"op\":\"copy\",\"label\":\"b\"}",
	};
	int pair[2];
	size_t i;

	FUZZ_CHECK(socketpair(AF_UNIX,
			      SOCK_SEQPACKET | SOCK_CLOEXEC,
			      0,
			      pair) == 0);
	peer_accept(k, pair[1]);
	for (i = 0; i < ARRAY_SIZE(questions); i++) {
		(void)keeper_packet_send(pair[0],
					 (const uint8_t *)questions[i],
					 strlen(questions[i]),
					 NULL,
					 0);
		fuzz_keeper_loop(k);
		fuzz_receive(pair[0]);
	}
	close(pair[0]);
	fuzz_keeper_loop(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { .data = data, .size = size };
	struct fuzz_input line;
	static char *const argv[] = { NULL };
	struct handover_in *handover = NULL;
	struct tevent_context *ev = NULL;
	struct keeper *k = NULL;
	int fds[FUZZ_MAX];
	uint8_t how;
	size_t num;
	int state;
	int ret;

	if (!fuzz_line(&in, &line)) {
		return 0;
	}
	how = fuzz_take(&line, 1);
	num = fuzz_line_fds(&line, fds, ARRAY_SIZE(fds));
	state = fuzz_memfd(in.data, in.size);
	if (how == 'e') {
		fuzz_leave_by_exec(state, fds, num);
	} else {
		fuzz_leave_stored(state, fds, num);
	}

	ret = handover_receive(NULL, &handover);
	FUZZ_CHECK(ret == 0);
	fuzz_num_stored = 0;
	fuzz_stored_names = NULL;
	if (handover == NULL) {
		goto done;
	}
	FUZZ_CHECK(handover_by_exec(handover) == (how == 'e'));

	/* a keeper that carries on listens where the one before did */
	ev = tevent_context_init(NULL);
	k = keeper_start(ev,
			 ev,
			 (how == 'o') ? "/fuzz/keeper" : NULL,
			 -1,
			 60,
			 handover);
	handover_finish(handover);
	if (k != NULL) {
		fuzz_keeper_check(k);
		fuzz_keeper_loop(k);
		fuzz_ask(k);
		/* which writes down all of it once more */
		keeper_exec(k, "/nonexistent", argv);
		fuzz_keeper_loop(k);
		keeper_stop(k);
	}
	TALLOC_FREE(ev);
done:
	/* nothing is left open but what was not given, of our own */
	fuzz_occupy();
	return 0;
}
