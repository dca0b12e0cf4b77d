/*
 * durable_state: SMB clients survive smbd restarts
 * Can a program carry on for this one?
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
#include "system/wait.h"
#include <spawn.h>
#include "lib/util/debug.h"
#include "keeper.h"
#include "probe.h"

#define PROBE_TIMEOUT_SECS 10

extern char **environ;

struct probe {
	const char *program;
	probe_fn fn;
	void *private_data;

	pid_t pid;
	int fd;
	struct tevent_fd *fde;
	char answer[128];
	size_t len;
};

static void probe_line(char *buf, size_t size)
{
	snprintf(buf, size, "durable_stated state %d\n", KEEPER_STATE_VERSION);
}

void probe_answer(void)
{
	char line[64];

	probe_line(line, sizeof(line));
	fputs(line, stdout);
}

static int probe_destructor(struct probe *probe)
{
	TALLOC_FREE(probe->fde);
	if (probe->fd != -1) {
		close(probe->fd);
	}
	if (probe->pid != -1) {
		/* What it had to say has been said */
		kill(probe->pid, SIGKILL);
		waitpid(probe->pid, NULL, 0);
	}
	return 0;
}

static void probe_done(struct probe *probe)
{
	probe_fn fn = probe->fn;
	void *private_data = probe->private_data;
	char line[64];
	bool ok;

	probe_line(line, sizeof(line));
	ok = (strstr(probe->answer, line) != NULL);
	if (!ok) {
		DBG_ERR("%s is not there, is broken or cannot read our state "
			"(version %d)\n",
			probe->program,
			KEEPER_STATE_VERSION);
	}
	TALLOC_FREE(probe);
	fn(private_data, ok);
}

static void probe_handler(struct tevent_context *ev,
			  struct tevent_fd *fde,
			  uint16_t flags,
			  void *private_data)
{
	struct probe *probe = talloc_get_type_abort(
		private_data, struct probe);
	ssize_t nread;

	nread = read(probe->fd,
		     probe->answer + probe->len,
		     sizeof(probe->answer) - 1 - probe->len);
	if ((nread == -1) && (errno == EINTR)) {
		return;
	}
	if (nread > 0) {
		probe->len += nread;
		return;
	}
	/* It has ended, or says more than we want to know */
	probe_done(probe);
}

static void probe_timeout(struct tevent_context *ev,
			  struct tevent_timer *te,
			  struct timeval now,
			  void *private_data)
{
	struct probe *probe = talloc_get_type_abort(
		private_data, struct probe);

	probe->answer[0] = '\0';
	probe_done(probe);
}

/* Returns an errno */
static int probe_spawn(struct probe *probe, int fd)
{
	char *argv[] = {
		discard_const_p(char, probe->program),
		discard_const_p(char, PROBE_OPTION),
		NULL,
	};
	posix_spawn_file_actions_t actions;
	int ret;

	ret = posix_spawn_file_actions_init(&actions);
	if (ret != 0) {
		return ret;
	}
	ret = posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	if (ret == 0) {
		ret = posix_spawn(&probe->pid,
				  probe->program,
				  &actions,
				  NULL,
				  argv,
				  environ);
	}
	posix_spawn_file_actions_destroy(&actions);
	if (ret != 0) {
		probe->pid = -1;
	}
	return ret;
}

struct probe *probe_program(TALLOC_CTX *mem_ctx,
			    struct tevent_context *ev,
			    const char *program,
			    probe_fn fn,
			    void *private_data)
{
	struct probe *probe = NULL;
	struct tevent_timer *te = NULL;
	int fds[2];
	int ret;

	probe = talloc(mem_ctx, struct probe);
	if (probe == NULL) {
		return NULL;
	}
	*probe = (struct probe) {
		.program = program,
		.fn = fn,
		.private_data = private_data,
		.pid = -1,
		.fd = -1,
	};
	talloc_set_destructor(probe, probe_destructor);

	ret = pipe2(fds, O_CLOEXEC);
	if (ret == -1) {
		ret = errno;
		goto fail;
	}
	probe->fd = fds[0];
	ret = probe_spawn(probe, fds[1]);
	close(fds[1]);
	if (ret != 0) {
		goto fail;
	}

	probe->fde = tevent_add_fd(
		ev, probe, probe->fd, TEVENT_FD_READ, probe_handler, probe);
	te = tevent_add_timer(
		ev,
		probe,
		tevent_timeval_current_ofs(PROBE_TIMEOUT_SECS, 0),
		probe_timeout,
		probe);
	if ((probe->fde == NULL) || (te == NULL)) {
		ret = ENOMEM;
		goto fail;
	}
	return probe;

fail:
	DBG_ERR("Can't execute %s: %s\n", program, strerror(ret));
	TALLOC_FREE(probe);
	return NULL;
}
