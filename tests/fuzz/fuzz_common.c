/*
   durable_state: what all fuzzers need

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
#include "system/network.h"
#include "system/shmem.h"
#include <sys/timerfd.h>
#include "lib/util/debug.h"
#include "fuzz_common.h"

static void fuzz_message(void *private_data, int level, const char *msg)
{
}

void fuzz_messages(void)
{
	debug_set_callback(NULL, fuzz_message);
	debuglevel_set(10);
}

int fuzz_memfd(const void *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	FUZZ_CHECK(fd != -1);
	FUZZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
	return fd;
}

void fuzz_write_seed(const char *dir,
		     const char *target,
		     const uint8_t *data,
		     size_t size)
{
	char *path = NULL;
	uint64_t sum = 0;
	size_t i;
	int fd;

	if (size > FUZZ_SEED_MAX) {
		return;
	}
	for (i = 0; i < size; i++) {
		sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
	}
	path = talloc_asprintf(
		NULL, "%s/%s/%016" PRIx64, dir, target, sum);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if ((fd == -1) || (write(fd, data, size) != (ssize_t)size)) {
		perror(path);
		exit(1);
	}
	close(fd);
	TALLOC_FREE(path);
}

uint64_t fuzz_take(struct fuzz_input *in, size_t bytes)
{
	uint64_t value = 0;
	size_t size;
	const uint8_t *p = fuzz_take_data(in, bytes, &size);

	if (size != 0) {
		memcpy(&value, p, size);
	}
	return value;
}

const uint8_t *fuzz_take_data(struct fuzz_input *in, size_t max, size_t *size)
{
	const uint8_t *p = in->data;

	*size = MIN(max, in->size);
	in->data += *size;
	in->size -= *size;
	return p;
}

bool fuzz_line(struct fuzz_input *in, struct fuzz_input *line)
{
	const uint8_t *end = NULL;

	if (in->size == 0) {
		return false;
	}
	*line = *in;
	end = memchr(in->data, '\n', in->size);
	if (end != NULL) {
		line->size = end - in->data;
		in->data += line->size + 1;
		in->size -= line->size + 1;
	} else {
		in->size = 0;
	}
	return true;
}

static int fuzz_socket(void)
{
	/* nobody holds the other end: it is as if the client had left */
	int fds[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ==
		   0);
	close(fds[1]);
	return fds[0];
}

static int fuzz_listener(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX,
			SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);

	/* the kernel finds a name for it */
	FUZZ_CHECK(fd != -1);
	FUZZ_CHECK(bind(fd,
			(struct sockaddr *)&addr,
			sizeof(addr.sun_family)) == 0);
	FUZZ_CHECK(listen(fd, 5) == 0);
	return fd;
}

static int fuzz_pipe(void)
{
	int fds[2];

	FUZZ_CHECK(pipe2(fds, O_CLOEXEC) == 0);
	close(fds[1]);
	return fds[0];
}

static int fuzz_fd(char letter)
{
	switch (letter) {
	case 'm':
		return fuzz_memfd("key", 3);
	case 'f':
		return open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	case 's':
		return fuzz_socket();
	case 'l':
		return fuzz_listener();
	case 't':
		return timerfd_create(CLOCK_MONOTONIC,
				      TFD_CLOEXEC | TFD_NONBLOCK);
	case 'p':
		return fuzz_pipe();
	case 'n':
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	default:
		return -1;
	}
}

size_t fuzz_line_fds(struct fuzz_input *line, int *fds, size_t max)
{
	size_t num = 0;

	for (; line->size > 0; line->data++, line->size--) {
		size_t same = 1;
		char letter = line->data[0];

		if (letter == 'M') {
			letter = 'm';
			same = 200;
		}
		if (strchr("mfsltpn", letter) == NULL || letter == '\0') {
			break;
		}
		for (; (same > 0) && (num < max); same--) {
			fds[num] = fuzz_fd(letter);
			if (fds[num] == -1) {
				break;
			}
			num += 1;
		}
	}
	return num;
}

size_t fuzz_num_fds(void)
{
	size_t num = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++) {
		if (fcntl(fd, F_GETFD) != -1) {
			num += 1;
		}
	}
	return num;
}
