/*
 * durable_state: SMB clients survive smbd restarts
 * Keep what must outlive smbd
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

#include "includes.h"
#include "lib/cmdline/cmdline.h"
#include "lib/cmdline/closefrom_except.h"
#include "lib/util/become_daemon.h"
#include "lib/util/pidfile.h"
#include "source3/lib/substitute.h"
#include <jansson.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif
#include "keeper_protocol.h"
#include "handover.h"
#include "keeper.h"
#include "probe.h"

/*
 * This process does as little as possible, since it must not end or block:
 * no messaging, no CTDB, no database, and nothing but local descriptors.
 */

#define DURABLE_STATED_DIR "durable_state"
#define DURABLE_STATED_PID_FILE "keeper.pid"
#define DURABLE_STATED_HOLD_TIME 60 /* seconds */

struct durable_stated {
	struct keeper *keeper;
	const char *program;
	char *const *argv;
	/* The program is asked whether it can carry on */
	struct probe *probe;
	bool stop;
};

static void durable_stated_sigterm(struct tevent_context *ev,
				   struct tevent_signal *se,
				   int signum,
				   int count,
				   void *siginfo,
				   void *private_data)
{
	struct durable_stated *d = private_data;

	d->stop = true;
}

static void durable_stated_probed(void *private_data, bool ok)
{
	struct durable_stated *d = private_data;

	d->probe = NULL;
	if (ok) {
		keeper_exec(d->keeper, d->program, d->argv);
	} else {
		DBG_ERR("Going on as before\n");
	}
}

static void durable_stated_sighup(struct tevent_context *ev,
				  struct tevent_signal *se,
				  int signum,
				  int count,
				  void *siginfo,
				  void *private_data)
{
	struct durable_stated *d = private_data;

	if (d->probe != NULL) {
		return;
	}
	d->probe = probe_program(
		d->keeper, ev, d->program, durable_stated_probed, d);
	if (d->probe == NULL) {
		DBG_ERR("Going on as before\n");
	}
}

static bool durable_stated_signals(struct durable_stated *d,
				   struct tevent_context *ev)
{
	struct tevent_signal *term = NULL;
	struct tevent_signal *intr = NULL;
	struct tevent_signal *hup = NULL;

	BlockSignals(true, SIGPIPE);

	term = tevent_add_signal(
		ev, ev, SIGTERM, 0, durable_stated_sigterm, d);
	intr = tevent_add_signal(
		ev, ev, SIGINT, 0, durable_stated_sigterm, d);
	hup = tevent_add_signal(ev, ev, SIGHUP, 0, durable_stated_sighup, d);

	/* They are while a new program starts in our place */
	handover_block_signals(SIG_UNBLOCK);

	return (term != NULL) && (intr != NULL) && (hup != NULL);
}

/*
 * Each client may need several descriptors, and when memory is short we must
 * be the last to go.
 */
static void durable_stated_limits(void)
{
	struct rlimit rl;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &rl) == -1) {
			DBG_WARNING("Can't raise RLIMIT_NOFILE: %s\n",
				    strerror(errno));
		}
	}

	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd != -1) {
		if (write(fd, "-1000", 5) != 5) {
			DBG_INFO("Can't set oom_score_adj: %s\n",
				 strerror(errno));
		}
		close(fd);
	}
}

/*
 * Started by smbd we have the environment of smbd's unit: its messages are
 * not ours to send, and what it has stored is not ours to take.
 */
static void durable_stated_check_systemd(void)
{
	const char *pid = getenv("SYSTEMD_EXEC_PID");

	if ((pid != NULL) && (strtol(pid, NULL, 10) != getpid())) {
		unsetenv("NOTIFY_SOCKET");
	}
}

/*
 * A duplicate of a client's socket that smbd let through to us would keep it
 * from ending.
 */
static void durable_stated_close_inherited(int argc, const char *argv[])
{
	int keep[2] = { STDERR_FILENO, -1 };
	int i;

	for (i = 1; i < argc; i++) {
		sscanf(argv[i], "--ready-signal-fd=%d", &keep[1]);
	}
	closefrom_except(STDERR_FILENO + 1, keep, ARRAY_SIZE(keep));
}

/* The directory of our socket and pid file; exits if it can't be made */
static const char *durable_stated_dir(TALLOC_CTX *mem_ctx)
{
	char *dir = NULL;
	bool ok;

	ok = directory_create_or_exist(lp_lock_directory(), 0755);
	if (!ok) {
		exit_daemon("Failed to create directory for lock files, "
			    "check 'lock directory'",
			    errno);
	}

	dir = talloc_asprintf(mem_ctx,
			      "%s/" DURABLE_STATED_DIR,
			      lp_lock_directory());
	if (dir == NULL) {
		exit_daemon("No memory", ENOMEM);
	}
	ok = directory_create_or_exist_strict(dir, getuid(), 0700);
	if (!ok) {
		exit_daemon("Failed to create the directory durable_state in "
			    "'lock directory', or its owner or mode are not "
			    "as they should be",
			    errno);
	}
	return dir;
}

/*
 * Returns the locked pid file, or exits if another one has it. It is never
 * removed: a process that had just opened it could then lock a file that the
 * next one does not see.
 */
static int durable_stated_lock(const char *dir)
{
	char *path = NULL;
	pid_t other = -1;
	int fd, ret;

	path = talloc_asprintf(
		talloc_tos(), "%s/" DURABLE_STATED_PID_FILE, dir);
	if (path == NULL) {
		exit_daemon("No memory", ENOMEM);
	}
	ret = pidfile_path_create(path, &fd, &other);
	if (ret == EAGAIN) {
		DBG_STARTUP_NOTICE("durable_stated runs already for %s, as "
				   "process %d\n",
				   dir,
				   (int)other);
		/* stderr may be the log already */
		printf("durable_stated runs already for %s, as process %d\n",
		       dir,
		       (int)other);
		exit(0);
	}
	if (ret != 0) {
		exit_daemon("Failed to lock keeper.pid", ret);
	}
	TALLOC_FREE(path);
	return fd;
}

static void durable_stated_run(const char *program,
			       char *const argv[],
			       unsigned int hold_time,
			       int ready_signal_fd,
			       struct handover_in *in)
{
	struct durable_stated d = { .program = program, .argv = argv };
	struct tevent_context *ev = NULL;
	char *socket_path = NULL;
	int pid_fd = -1;

	if (in != NULL) {
		pid_fd = handover_take(
			in, json_object_get(handover_state(in), "pidfile"));
	}
	if (pid_fd == -1) {
		const char *dir = durable_stated_dir(talloc_tos());

		pid_fd = durable_stated_lock(dir);
		socket_path = talloc_asprintf(
			talloc_tos(), "%s/" KEEPER_SOCKET_NAME, dir);
		if (socket_path == NULL) {
			exit_daemon("No memory", ENOMEM);
		}
	}

	DBG_STARTUP_NOTICE("durable_stated version %s %s.\n%s\n",
			   samba_version_string(),
			   (socket_path == NULL) ? "carries on" : "started",
			   samba_copyright_string());

	ev = samba_tevent_context_init(talloc_tos());
	if (ev == NULL) {
		exit_daemon("No memory", ENOMEM);
	}
	d.keeper = keeper_start(
		ev, ev, socket_path, pid_fd, hold_time, in);
	if (d.keeper == NULL) {
		exit_daemon("Failed to open the keeper's socket", errno);
	}
	if (!durable_stated_signals(&d, ev)) {
		exit_daemon("Failed to set up signals", errno);
	}
	if (in != NULL) {
		handover_finish(in);
	}

	if (ready_signal_fd != -1) {
		close(ready_signal_fd);
	}
	daemon_ready("durable_stated");

	while (!d.stop) {
		if (tevent_loop_once(ev) != 0) {
			DBG_ERR("tevent_loop_once failed: %s\n",
				strerror(errno));
			break;
		}
	}
#ifdef HAVE_LIBSYSTEMD
	sd_notify(0, "STOPPING=1");
#endif
	keeper_stop(d.keeper);
}

int main(int argc, const char *argv[])
{
	const struct loadparm_substitution *lp_sub =
		loadparm_s3_global_substitution();
	struct samba_cmdline_daemon_cfg *cfg = NULL;
	struct handover_in *in = NULL;
	TALLOC_CTX *frame = NULL;
	char *program = NULL;
	poptContext pc;
	int hold_time = -1;
	int ready_signal_fd = -1;
	bool carrying_on;
	bool log_stdout;
	bool ok;
	int ret;

	struct poptOption long_options[] = {
		POPT_AUTOHELP
		{
			.longName   = "hold-time",
			.argInfo    = POPT_ARG_INT,
			.arg        = &hold_time,
			.descrip    = "How long to keep things when smbd "
				      "is gone without a word",
			.argDescrip = "SECONDS",
		},
		{
			.longName   = "ready-signal-fd",
			.argInfo    = POPT_ARG_INT | POPT_ARGFLAG_DOC_HIDDEN,
			.arg        = &ready_signal_fd,
			.descrip    = "fd to close when initialized",
		},
		POPT_COMMON_SAMBA
		POPT_COMMON_DAEMON
		POPT_COMMON_VERSION
		POPT_TABLEEND
	};

	if ((argc == 2) && (strcmp(argv[1], PROBE_OPTION) == 0)) {
		probe_answer();
		return 0;
	}

	frame = talloc_stackframe();

	durable_stated_check_systemd();
	ret = handover_receive(frame, &in);
	if (ret != 0) {
		fprintf(stderr,
			"Can't take over from the previous durable_stated: "
			"%s\n",
			strerror(ret));
	}
	carrying_on = (in != NULL) && handover_by_exec(in);
	if (in == NULL) {
		durable_stated_close_inherited(argc, argv);
	}

	umask(0);
	smb_init_locale();

	/*
	 * Before execve(2) it could be read. If it can't now we need no more
	 * of it than the name of a directory, and have too much to lose.
	 */
	ok = samba_cmdline_init(frame,
				SAMBA_CMDLINE_CONFIG_SERVER,
				!carrying_on /* require_smbconf */);
	if (!ok) {
		DBG_ERR("Failed to init cmdline parser!\n");
		exit(ENOMEM);
	}
	cfg = samba_cmdline_get_daemon_cfg();

	pc = samba_popt_get_context(
		getprogname(), argc, argv, long_options, 0);
	if (pc == NULL) {
		DBG_ERR("Failed to setup popt context!\n");
		exit(1);
	}
	while ((ret = poptGetNextOpt(pc)) != -1) {
		fprintf(stderr,
			"\nInvalid option %s: %s\n\n",
			poptBadOption(pc, 0),
			poptStrerror(ret));
		poptPrintUsage(pc, stderr, 0);
		exit(1);
	}
	poptFreeContext(pc);

	if (hold_time < 0) {
		hold_time = lp_parm_int(GLOBAL_SECTION_SNUM,
					"durable_state",
					"hold time",
					DURABLE_STATED_HOLD_TIME);
	}

	/* %m in "log file" */
	set_remote_machine_name(getprogname(), false);

	log_stdout = (debug_get_log_type() == DEBUG_STDOUT);
	setup_logging(getprogname(), log_stdout ? DEBUG_STDOUT : DEBUG_FILE);
	if (log_stdout && cfg->fork) {
		DBG_ERR("Can't log to stdout unless in foreground\n");
		exit(1);
	}

	/*
	 * Asked now: when the package is upgraded this becomes the name of a
	 * deleted file.
	 */
	program = talloc_zero_array(frame, char, PATH_MAX);
	if ((program == NULL) ||
	    (readlink("/proc/self/exe", program, PATH_MAX - 1) == -1))
	{
		DBG_ERR("Can't find out my own name\n");
		exit(1);
	}

	if (cfg->fork && !carrying_on) {
		/*
		 * systemd starts us with -F, so this is not meant for us. What
		 * can't be is better said while somebody listens; the lock
		 * belongs to the process, the child has to take it anew.
		 */
		unsetenv("NOTIFY_SOCKET");
		close(durable_stated_lock(durable_stated_dir(frame)));
		become_daemon(true, cfg->no_process_group, log_stdout);
	}

	dump_core_setup(getprogname(), lp_logfile(frame, lp_sub));
	reopen_logs();
	durable_stated_limits();
	durable_stated_run(program,
			   discard_const_p(char *, argv),
			   hold_time,
			   ready_signal_fd,
			   in);

	TALLOC_FREE(frame);
	return 0;
}
