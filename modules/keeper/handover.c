/*
 * durable_state: SMB clients survive smbd restarts
 * State and descriptors from one keeper process to the next
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
#include "system/dir.h"
#include "system/shmem.h"
#include "system/wait.h"
#include "lib/util/debug.h"
#include "lib/util/smb_strtox.h"
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif
#include "handover.h"

#define HANDOVER_ENV "DURABLE_STATED_STATE"
#define HANDOVER_NAME_STATE "state"
#define HANDOVER_NAME_FD "fd"

/* Longest wait for systemd to have stored everything, in microseconds */
#define HANDOVER_STORE_TIMEOUT_US 5000000

struct handover_out {
	int *fds;
	size_t num_fds;
	bool failed;
};

struct handover_in {
	json_t *state;
	bool by_exec;

	/* Ours, indexed by the number at the predecessor, or one of these */
#define HANDOVER_NONE -1
#define HANDOVER_TAKEN -2
	int *fds;
};

static int handover_in_destructor(struct handover_in *in)
{
	size_t i;

	for (i = 0; i < talloc_array_length(in->fds); i++) {
		if (in->fds[i] >= 0) {
			close(in->fds[i]);
		}
	}
	json_decref(in->state);
	return 0;
}

/* Takes over fd */
static int handover_add(struct handover_in *in, size_t was, int fd)
{
	size_t i, num = talloc_array_length(in->fds);

	if (was >= num) {
		size_t new_num = MAX(was + 1, num * 2);
		int *fds = NULL;

		fds = talloc_realloc(in, in->fds, int, new_num);
		if (fds == NULL) {
			close(fd);
			return ENOMEM;
		}
		for (i = num; i < new_num; i++) {
			fds[i] = HANDOVER_NONE;
		}
		in->fds = fds;
	}

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	in->fds[was] = fd;
	return 0;
}

static bool handover_parse_number(const char *str, int *number)
{
	int error = 0;
	unsigned long n;

	n = smb_strtoul(str, NULL, 10, &error, SMB_STR_FULL_STR_CONV);
	if ((error != 0) || (n > INT_MAX / 2)) {
		return false;
	}
	*number = n;
	return true;
}

/*
 * Our predecessor lets nothing through execve(2) but what its state speaks
 * of, so everything that is open now belongs to it.
 */
static int handover_add_open(struct handover_in *in)
{
	struct dirent *de = NULL;
	DIR *dir = NULL;
	int ret = 0;

	dir = opendir("/proc/self/fd");
	if (dir == NULL) {
		return errno;
	}
	while ((ret == 0) && ((de = readdir(dir)) != NULL)) {
		int fd;

		if (!handover_parse_number(de->d_name, &fd)) {
			continue;
		}
		if ((fd > STDERR_FILENO) && (fd != dirfd(dir))) {
			ret = handover_add(in, fd, fd);
		}
	}
	closedir(dir);
	return ret;
}

/* What systemd has kept, which is not by number but by name */
static int handover_add_stored(struct handover_in *in, int *state_fd)
{
	int ret = 0;
#ifdef HAVE_LIBSYSTEMD
	char **names = NULL;
	int i, num;

	num = sd_listen_fds_with_names(1 /* unset_environment */, &names);

	for (i = 0; i < num; i++) {
		int fd = SD_LISTEN_FDS_START + i;
		const char *name = names[i];
		size_t len = strlen(HANDOVER_NAME_FD);
		int was;

		if (strcmp(name, HANDOVER_NAME_STATE) == 0) {
			*state_fd = fd;
		} else if ((strncmp(name, HANDOVER_NAME_FD, len) == 0) &&
			   handover_parse_number(name + len, &was))
		{
			ret = handover_add(in, was, fd);
		} else {
			close(fd);
		}
		free(names[i]);
	}
	free(names);
#endif
	return ret;
}

void handover_finish(struct handover_in *in)
{
#ifdef HAVE_LIBSYSTEMD
	size_t i;

	/*
	 * While systemd has duplicates a client would not see that its
	 * connection is closed. After execve(2) it has none.
	 */
	for (i = 0; !in->by_exec && i < talloc_array_length(in->fds); i++) {
		if (in->fds[i] != HANDOVER_NONE) {
			sd_notifyf(0,
				   "FDSTOREREMOVE=1\nFDNAME=%s%zu",
				   HANDOVER_NAME_FD,
				   i);
		}
	}
	if (!in->by_exec) {
		sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=" HANDOVER_NAME_STATE);
	}
#endif
	TALLOC_FREE(in);
}

int handover_receive(TALLOC_CTX *mem_ctx, struct handover_in **_in)
{
	struct handover_in *in = NULL;
	const char *env = getenv(HANDOVER_ENV);
	json_error_t error;
	int state_fd = -1;
	int ret;

	*_in = NULL;

	in = talloc_zero(mem_ctx, struct handover_in);
	if (in == NULL) {
		return ENOMEM;
	}
	talloc_set_destructor(in, handover_in_destructor);

	if ((env != NULL) && handover_parse_number(env, &state_fd)) {
		in->by_exec = true;
		ret = handover_add_open(in);
		if ((size_t)state_fd < talloc_array_length(in->fds)) {
			in->fds[state_fd] = HANDOVER_TAKEN;
		}
	} else {
		ret = handover_add_stored(in, &state_fd);
	}
	unsetenv(HANDOVER_ENV);

	if ((ret != 0) || (state_fd == -1)) {
		handover_finish(in);
		return ret;
	}

	lseek(state_fd, 0, SEEK_SET);
	in->state = json_loadfd(state_fd, JSON_REJECT_DUPLICATES, &error);
	close(state_fd);
	if (in->state == NULL) {
		DBG_ERR("The state that the previous durable_stated left "
			"can't be read (%s). What it held is lost, clients "
			"that waited for smbd have to connect again\n",
			error.text);
		handover_finish(in);
		return 0;
	}

	*_in = in;
	return 0;
}

json_t *handover_state(struct handover_in *in)
{
	return in->state;
}

bool handover_by_exec(const struct handover_in *in)
{
	return in->by_exec;
}

int handover_take(struct handover_in *in, const json_t *number)
{
	json_int_t was = json_integer_value(number);
	int fd;

	if (!json_is_integer(number) || (was < 0) ||
	    ((size_t)was >= talloc_array_length(in->fds)))
	{
		return -1;
	}
	fd = in->fds[was];
	if (fd < 0) {
		return -1;
	}
	in->fds[was] = HANDOVER_TAKEN;
	return fd;
}

static int handover_write(const json_t *state)
{
	int fd, ret;

	fd = memfd_create("durable_stated state",
			  MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd == -1) {
		return -1;
	}
	ret = json_dumpfd(state, fd, JSON_COMPACT);
	if (ret == -1) {
		close(fd);
		errno = ENOSPC;
		return -1;
	}
	ret = fcntl(fd,
		    F_ADD_SEALS,
		    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	if (ret == -1) {
		ret = errno;
		close(fd);
		errno = ret;
		return -1;
	}
	return fd;
}

struct handover_out *handover_new(TALLOC_CTX *mem_ctx)
{
	return talloc_zero(mem_ctx, struct handover_out);
}

json_t *handover_give(struct handover_out *out, int fd)
{
	if (fd == -1) {
		return json_null();
	}
	if (out->num_fds == talloc_array_length(out->fds)) {
		int *fds = NULL;

		fds = talloc_realloc(out,
				     out->fds,
				     int,
				     MAX(64, out->num_fds * 2));
		if (fds == NULL) {
			/* A state without a descriptor is not handed over */
			out->failed = true;
			return json_null();
		}
		out->fds = fds;
	}
	out->fds[out->num_fds] = fd;
	out->num_fds += 1;
	return json_integer(fd);
}

static void handover_set_cloexec(const struct handover_out *out, int flag)
{
	size_t i;

	for (i = 0; i < out->num_fds; i++) {
		fcntl(out->fds[i], F_SETFD, flag);
	}
}

void handover_block_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(how, &set, NULL);
}

int handover_exec(struct handover_out *out,
		  const json_t *state,
		  const char *program,
		  char *const argv[])
{
	char number[16];
	int state_fd, ret;

	if (out->failed || (state == NULL)) {
		return ENOMEM;
	}
	state_fd = handover_write(state);
	if (state_fd == -1) {
		return errno;
	}
	json_decref(handover_give(out, state_fd));

	snprintf(number, sizeof(number), "%d", state_fd);
	ret = setenv(HANDOVER_ENV, number, 1);
	if ((ret == -1) || out->failed) {
		close(state_fd);
		return ENOMEM;
	}

	handover_block_signals(SIG_BLOCK);
	handover_set_cloexec(out, 0);
	execv(program, argv);
	ret = errno;
	handover_set_cloexec(out, FD_CLOEXEC);
	handover_block_signals(SIG_UNBLOCK);

	unsetenv(HANDOVER_ENV);
	close(state_fd);
	return ret;
}

#ifdef HAVE_LIBSYSTEMD
static int handover_store_fd(const char *name, int fd)
{
	char *msg = NULL;
	int ret;

	/*
	 * Without FDPOLL=0 systemd closes sockets whose client hung up, and
	 * a holding is whole or lost.
	 */
	msg = talloc_asprintf(NULL, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	if (msg == NULL) {
		return ENOMEM;
	}
	ret = sd_pid_notify_with_fds(0, 0, msg, &fd, 1);
	TALLOC_FREE(msg);
	if (ret == 0) {
		return ENOTSUP; /* no NOTIFY_SOCKET */
	}
	return (ret < 0) ? -ret : 0;
}
#endif

int handover_store(struct handover_out *out, const json_t *state)
{
#ifdef HAVE_LIBSYSTEMD
	int state_fd, ret;
	size_t i;

	if (out->failed || (state == NULL)) {
		return ENOMEM;
	}
	for (i = 0; i < out->num_fds; i++) {
		char name[32];

		snprintf(name,
			 sizeof(name),
			 HANDOVER_NAME_FD "%d",
			 out->fds[i]);
		ret = handover_store_fd(name, out->fds[i]);
		if (ret != 0) {
			return ret;
		}
	}

	state_fd = handover_write(state);
	if (state_fd == -1) {
		return errno;
	}
	ret = handover_store_fd(HANDOVER_NAME_STATE, state_fd);
	close(state_fd);
	if (ret != 0) {
		return ret;
	}

	/* It believes only processes that live when it reads the message */
	ret = sd_notify_barrier(0, HANDOVER_STORE_TIMEOUT_US);
	return (ret < 0) ? -ret : 0;
#else
	return ENOTSUP;
#endif
}
