/*
   durable_state: the surroundings of a keeper that is fuzzed

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

#include "replace.h"
#include "system/filesys.h"
#include "system/dir.h"
#include "system/network.h"
#include "system/select.h"
#include "system/time.h"
#include <tevent.h>
#include <jansson.h>
#include "durable_state/keeper/keeper_protocol.h"
#include "durable_state/keeper/keeper.h"
#include "durable_state/keeper/peer.h"
#include "fuzz_common.h"
#include "fuzz_files.h"

char **fuzz_stored_names;
int fuzz_num_stored;

static char fuzz_paths[4][32];

void fuzz_files_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fuzz_paths); i++) {
		snprintf(fuzz_paths[i],
			 sizeof(fuzz_paths[i]),
			 "/proc/self/fd/%d",
			 fuzz_memfd("tdb", 3));
	}
}

static const char *fuzz_path(const char *path)
{
	unsigned int i;

	if (path[0] != '/') {
		return NULL;
	}
	if (path[1] == 'e') {
		return "/proc/self";
	}
	i = path[1] - 'a';
	return (i < ARRAY_SIZE(fuzz_paths)) ? fuzz_paths[i] : NULL;
}

/* ---- called by the keeper in place of what they are named after */

int fuzz_stat(const char *path, struct stat *st)
{
	path = fuzz_path(path);
	if (path == NULL) {
		errno = ENOENT;
		return -1;
	}
	return stat(path, st);
}

int fuzz_open(const char *path, int flags)
{
	path = fuzz_path(path);
	if (path == NULL) {
		errno = ENOENT;
		return -1;
	}
	return open(path, flags);
}

int fuzz_unlink(const char *path)
{
	return 0;
}

int fuzz_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	/* the kernel finds a name that is no file's */
	return bind(fd, addr, sizeof(addr->sa_family));
}

int fuzz_keeper_check_peer(int sock, pid_t *pid)
{
	*pid = 1;
	return 0;
}

struct timeval fuzz_tevent_timeval_current_ofs(uint32_t secs, uint32_t usecs)
{
	/* nobody waits for anything */
	return tevent_timeval_current();
}

int fuzz_sd_listen_fds_with_names(int unset_environment, char ***names)
{
	*names = fuzz_stored_names;
	return fuzz_num_stored;
}

struct dirent *fuzz_readdir(DIR *dir)
{
	struct dirent *de = NULL;

	/* the others are the fuzzer's */
	while ((de = readdir(dir)) != NULL) {
		int fd = atoi(de->d_name);

		if (fd < FUZZ_FDS_END) {
			break;
		}
	}
	return de;
}

/* ---- for the fuzzers */

static short fuzz_events(struct tevent_fd *fde)
{
	uint16_t flags = tevent_fd_get_flags(fde);

	return ((flags & TEVENT_FD_READ) ? POLLIN : 0) |
	       ((flags & TEVENT_FD_WRITE) ? POLLOUT : 0) |
	       ((flags & TEVENT_FD_ERROR) ? POLLRDHUP : 0);
}

static bool fuzz_ready(int fd, struct tevent_fd *fde)
{
	struct pollfd pfd = { .fd = fd, .events = fuzz_events(fde), };

	/*
	 * tevent tells of an end those who read or want to know of it; it does
	 * not tell others, and may not tell them that they can write either.
	 */
	return (pfd.events != 0) && (poll(&pfd, 1, 0) == 1) &&
	       ((pfd.events != POLLOUT) ||
		!(pfd.revents & (POLLHUP | POLLERR)));
}

static bool fuzz_keeper_ready(const struct keeper *k)
{
	const struct keeper_peer *peer = NULL;

	if ((k->exec_timer != NULL) ||
	    fuzz_ready(k->listen_fd, k->listen_fde) ||
	    fuzz_ready(k->hold_fd, k->hold_fde))
	{
		return true;
	}
	for (peer = k->peers; peer != NULL; peer = peer->next) {
		if (fuzz_ready(peer->fd, peer->fde)) {
			return true;
		}
	}
	return false;
}

void fuzz_keeper_loop(struct keeper *k)
{
	size_t i;

	for (i = 0; (i < 100) && fuzz_keeper_ready(k); i++) {
		tevent_loop_once(k->ev);
		fuzz_keeper_check(k);
	}
}

void fuzz_keeper_check(const struct keeper *k)
{
	const struct keeper_peer *peer = NULL;
	const struct holding *h = NULL;
	const struct holding *other = NULL;
	const struct guarded_file *f = NULL;
	size_t num = 0;
	size_t num_fds = 0;
	size_t num_lent = 0;
	size_t i;

	for (h = k->holdings->list; h != NULL; h = h->next) {
		num += 1;
		num_fds += h->num_fds;
		num_lent += h->lent ? 1 : 0;
		FUZZ_CHECK(h->id != 0);
		FUZZ_CHECK(h->num_fds <= talloc_array_length(h->fds));
		FUZZ_CHECK(json_is_object(h->info));
		for (i = 0; i < h->num_fds; i++) {
			FUZZ_CHECK(fcntl(h->fds[i], F_GETFD) == FD_CLOEXEC);
		}
		for (other = h->next; other != NULL; other = other->next) {
			FUZZ_CHECK(strcmp(h->label, other->label) != 0);
			FUZZ_CHECK(h->id != other->id);
		}
	}
	FUZZ_CHECK(num == k->holdings->num);
	FUZZ_CHECK(num_fds == k->holdings->num_fds);

	/* a holding is lent to one, and nothing else is lent */
	for (peer = k->peers; peer != NULL; peer = peer->next) {
		if (peer->lent == NULL) {
			continue;
		}
		FUZZ_CHECK(holdings_find_id(k->holdings, peer->lent->id) ==
			   peer->lent);
		FUZZ_CHECK(peer->lent->lent);
		FUZZ_CHECK(num_lent > 0);
		num_lent -= 1;
	}
	FUZZ_CHECK(num_lent == 0);

	num = 0;
	for (f = k->guard->list; f != NULL; f = f->next) {
		num += 1;
	}
	FUZZ_CHECK(num == k->guard->num);
	FUZZ_CHECK(json_array_size(k->events) <= KEEPER_EVENTS_MAX);
}

void fuzz_receive(int fd)
{
	struct keeper_packet *packet = NULL;
	int ret;

	while ((ret = keeper_packet_recv(NULL, fd, &packet)) == 0) {
		FUZZ_CHECK(json_is_boolean(
			json_object_get(packet->json, "ok")));
		TALLOC_FREE(packet);
	}
	FUZZ_CHECK((ret == EAGAIN) || (ret == ECONNRESET));
}
