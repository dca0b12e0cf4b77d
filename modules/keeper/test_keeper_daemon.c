/*
 * durable_state: SMB clients survive smbd restarts
 * Tests of durable_stated as a process, through its client library
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
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <tdb.h>
#include "system/filesys.h"
#include "system/dir.h"
#include "system/network.h"
#include "system/select.h"
#include "system/shmem.h"
#include "system/time.h"
#include "system/wait.h"
#include "keeper_protocol.h"
#include "keeper_client.h"

/*
 * Each test has a directory and a durable_stated of its own. Where something
 * has to happen in the daemon first, the test waits for a descriptor that it
 * closes, or asks it until it has, with an end.
 */
#define TIMEOUT_MS 20000

struct daemon {
	TALLOC_CTX *frame;
	char *dir;
	char *conf;
	char *log;
	char *lockdir;
	char *sockdir;
	char *program;
	pid_t pid;

	/* To play systemd */
	int notify_fd;
	char *notify_path;
};

/* How to start it */
struct start {
	const char *hold_time;
	rlim_t max_fds;
	const int *listen_fds;
	size_t num_listen_fds;
	const char *listen_names;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait until all other duplicates of a pipe's write end are closed */
static void wait_eof(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char c;

	assert_int_equal(poll(&pfd, 1, TIMEOUT_MS), 1);
	assert_int_equal(read(fd, &c, 1), 0);
}

static bool is_open(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 0;
}

static void exec_daemon(const struct daemon *d,
			const struct start *start,
			int ready_fd)
{
	char *ready = talloc_asprintf(
		d->frame, "--ready-signal-fd=%d", ready_fd);
	char *hold = talloc_asprintf(
		d->frame, "--hold-time=%s", start->hold_time);
	size_t i;

	if (start->max_fds != 0) {
		struct rlimit rl = { start->max_fds, start->max_fds };

		setrlimit(RLIMIT_NOFILE, &rl);
	}
	if (d->notify_path != NULL) {
		setenv("NOTIFY_SOCKET", d->notify_path, 1);
	}
	if (start->num_listen_fds > 0) {
		setenv("LISTEN_PID",
		       talloc_asprintf(d->frame, "%d", (int)getpid()),
		       1);
		setenv("LISTEN_FDS",
		       talloc_asprintf(d->frame, "%zu", start->num_listen_fds),
		       1);
		setenv("LISTEN_FDNAMES", start->listen_names, 1);
	}
	for (i = 0; i < start->num_listen_fds; i++) {
		dup2(start->listen_fds[i], 3 + i);
	}
	execl(d->program,
	      "durable_stated",
	      "-F",
	      "-s",
	      d->conf,
	      hold,
	      ready,
	      NULL);
	_exit(99);
}

static void start_daemon(struct daemon *d, struct start start)
{
	int fds[2];

	if (start.hold_time == NULL) {
		start.hold_time = "60";
	}

	/* High, since those that systemd passes start at 3 */
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	d->pid = fork();
	assert_int_not_equal(d->pid, -1);
	if (d->pid == 0) {
		exec_daemon(d, &start, fcntl(fds[1], F_DUPFD, 50));
	}
	close(fds[1]);
	wait_eof(fds[0]);
	close(fds[0]);
}

static int wait_daemon(struct daemon *d)
{
	int status = -1;

	assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
	d->pid = -1;
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int setup(void **state)
{
	struct daemon *d = talloc_zero(NULL, struct daemon);
	char template[] = "/tmp/test_keeper.XXXXXX";
	const char *env = getenv("DURABLE_STATED");
	char self[PATH_MAX] = {};
	FILE *f = NULL;

	if (geteuid() != 0) {
		print_message("These tests need root\n");
		return -1;
	}

	assert_non_null(d);
	d->frame = talloc_new(d);
	d->pid = -1;
	d->notify_fd = -1;
	d->dir = talloc_strdup(d, mkdtemp(template));
	d->conf = talloc_asprintf(d, "%s/smb.conf", d->dir);
	d->log = talloc_asprintf(d, "%s/log", d->dir);
	d->lockdir = talloc_asprintf(d, "%s/lock", d->dir);
	d->sockdir = talloc_asprintf(d, "%s/durable_state", d->lockdir);

	/* Beside us in the build directory */
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	*strrchr(self, '/') = '\0';
	d->program = (env != NULL) ?
			talloc_strdup(d, env) :
			talloc_asprintf(d, "%s/durable_stated", self);

	f = fopen(d->conf, "w");
	assert_non_null(f);
	fprintf(f,
		"[global]\n"
		"lock directory = %s\n"
		"state directory = %s\n"
		"cache directory = %s\n"
		"private dir = %s\n"
		"pid directory = %s\n"
		"log file = %s\n"
		"log level = 5\n",
		d->lockdir,
		d->dir,
		d->dir,
		d->dir,
		d->dir,
		d->log);
	fclose(f);

	*state = d;
	return 0;
}

static int setup_started(void **state)
{
	int ret = setup(state);

	if (ret == 0) {
		start_daemon(*state, (struct start) { .hold_time = NULL });
	}
	return ret;
}

static int remove_entry(const char *path,
			const struct stat *st,
			int type,
			struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct daemon *d = *state;

	TALLOC_FREE(d->frame);
	if (d->pid != -1) {
		kill(d->pid, SIGKILL);
		waitpid(d->pid, NULL, 0);
	}
	if (d->notify_fd != -1) {
		close(d->notify_fd);
	}
	nftw(d->dir, remove_entry, 10, FTW_DEPTH | FTW_PHYS);
	TALLOC_FREE(d);
	return 0;
}

static struct keeper_conn *connect_as(struct daemon *d, const char *role)
{
	struct keeper_conn *kc = NULL;

	assert_int_equal(
		keeper_connect(d->frame, d->sockdir, role, TIMEOUT_MS, &kc),
		0);
	assert_int_equal(keeper_conn_pid(kc), d->pid);
	return kc;
}

static size_t num_holdings(struct keeper_conn *kc)
{
	struct keeper_holding *list = NULL;
	size_t num = 0;

	assert_int_equal(keeper_list(kc, kc, &list, &num), 0);
	TALLOC_FREE(list);
	return num;
}

static json_int_t status_int(struct keeper_conn *kc, const char *key)
{
	json_t *status = NULL;
	json_t *value = NULL;
	json_int_t n;

	assert_int_equal(keeper_status(kc, &status), 0);
	value = json_object_get(status, key);
	n = json_is_null(value) ? -1 : json_integer_value(value);
	json_decref(status);
	return n;
}

static bool log_has(struct daemon *d, const char *str)
{
	FILE *f = fopen(d->log, "r");
	char line[1024];
	bool found = false;

	while ((f != NULL) && !found && fgets(line, sizeof(line), f)) {
		found = (strstr(line, str) != NULL);
	}
	if (f != NULL) {
		fclose(f);
	}
	return found;
}

/* The answers pace the loop */
static void wait_log(struct daemon *d, struct keeper_conn *kc, const char *str)
{
	int64_t end = now_ms() + TIMEOUT_MS;

	while (!log_has(d, str)) {
		assert_true(now_ms() < end);
		status_int(kc, "pid");
	}
}

static void take_and_close(struct keeper_conn *kc,
			   const char *label,
			   size_t num_fds)
{
	size_t i, num = 0;
	int *fds = NULL;

	assert_int_equal(keeper_take(kc, kc, label, NULL, &fds, &num), 0);
	assert_int_equal(num, num_fds);
	for (i = 0; i < num; i++) {
		close(fds[i]);
	}
	TALLOC_FREE(fds);
}

static void make_pipe(int fds[2])
{
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
}

/* Put the write end of a pipe, return the read end */
static int put_pipe(struct keeper_conn *kc, const char *label)
{
	int fds[2];

	make_pipe(fds);
	assert_int_equal(keeper_put(kc, label, NULL, &fds[1], 1), 0);
	close(fds[1]);
	return fds[0];
}

/* A connection without the client library, to say what it never would */
static int connect_raw(struct daemon *d)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path,
		 sizeof(addr.sun_path),
		 "%s/keeper",
		 d->sockdir);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)),
			 0);
	return fd;
}

static void send_raw(int sock, const char *str, const int *fds, size_t num)
{
	assert_int_equal(keeper_packet_send(sock,
					    (const uint8_t *)str,
					    strlen(str),
					    fds,
					    num),
			 0);
}

static int recv_raw(struct daemon *d, int sock, struct keeper_packet **packet)
{
	struct pollfd pfd = { .fd = sock, .events = POLLIN };

	assert_int_equal(poll(&pfd, 1, TIMEOUT_MS), 1);
	return keeper_packet_recv(d->frame, sock, packet);
}

static bool recv_ok(struct daemon *d, int sock)
{
	struct keeper_packet *packet = NULL;
	bool ok;

	assert_int_equal(recv_raw(d, sock, &packet), 0);
	ok = json_is_true(json_object_get(packet->json, "ok"));
	TALLOC_FREE(packet);
	return ok;
}

static const char *hello =
	"{\"op\":\"hello\",\"version\":1,\"role\":\"child\"}";

static int connect_raw_hello(struct daemon *d)
{
	int fd = connect_raw(d);

	send_raw(fd, hello, NULL, 0);
	assert_true(recv_ok(d, fd));
	return fd;
}

static void test_put_take(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	struct keeper_conn *child = connect_as(d, "child");
	struct keeper_holding *list = NULL;
	json_t *info = json_pack("{s:s}", "client", "10.0.0.7:51234");
	json_t *got = NULL;
	size_t num = 0;
	int fd = put_pipe(child, "empty info");

	assert_int_equal(keeper_put(child, "c1", info, NULL, 0), 0);
	assert_int_equal(keeper_put(child, "c1", info, &fd, 1), EEXIST);
	assert_string_not_equal(keeper_error(child), "");

	assert_int_equal(keeper_list(parent, parent, &list, &num), 0);
	assert_int_equal(num, 2);
	assert_string_equal(list[0].label, "empty info");
	assert_int_equal(list[0].num_fds, 1);
	assert_true(list[0].age_ms < TIMEOUT_MS);
	assert_int_equal(list[0].pid, getpid());
	assert_string_equal(list[1].label, "c1");
	assert_true(json_equal(list[1].info, info));
	TALLOC_FREE(list);

	assert_int_equal(status_int(parent, "holdings"), 2);
	assert_int_equal(status_int(parent, "fds"), 1);
	assert_int_equal(status_int(parent, "held_seconds_left"), -1);

	{
		int *fds = NULL;

		assert_int_equal(
			keeper_take(parent, parent, "c1", &got, &fds, &num),
			0);
		assert_int_equal(num, 0);
		assert_true(json_equal(got, info));
		json_decref(got);
		assert_int_equal(
			keeper_take(parent, parent, "c1", &got, &fds, &num),
			ENOENT);
	}

	assert_true(is_open(fd));
	take_and_close(parent, "empty info", 1);
	wait_eof(fd);
	assert_int_equal(num_holdings(parent), 0);
	assert_int_equal(keeper_drop(parent, "c1"), 0);

	json_decref(info);
	close(fd);
}

/* The kernel drops what a taker has no descriptors for */
static void test_take_few_fds(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	struct rlimit old, rl;
	size_t num = 0;
	int *fds = NULL;
	int fd = put_pipe(kc, "h");

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	rl = old;
	/* The lowest number that is free */
	rl.rlim_cur = dup(fd);
	close(rl.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &rl), 0);
	assert_int_equal(keeper_take(kc, kc, "h", NULL, &fds, &num), EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);

	assert_true(is_open(fd));
	TALLOC_FREE(kc);
	kc = connect_as(d, "parent");
	take_and_close(kc, "h", 1);
	wait_eof(fd);
	close(fd);
}

static void test_put_wrong(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "tool");
	char *str = talloc_zero_array(d->frame, char, KEEPER_INFO_MAX + 1);
	json_t *info = NULL;

	memset(str, 'a', KEEPER_INFO_MAX);
	info = json_pack("{s:s}", "a", str);
	assert_int_equal(keeper_put(kc, "h", info, NULL, 0), EMSGSIZE);
	json_decref(info);

	assert_int_equal(keeper_put(kc, "\xff", NULL, NULL, 0), EINVAL);
	assert_int_equal(num_holdings(kc), 0);

	/* Refused by the keeper, which wants to see no more of us */
	assert_int_equal(keeper_put(kc, "", NULL, NULL, 0), EPROTO);
	assert_int_equal(keeper_drop(kc, "h"), ECONNRESET);

	kc = connect_as(d, "tool");
	str[KEEPER_LABEL_MAX] = '\0';
	assert_int_equal(keeper_put(kc, str, NULL, NULL, 0), 0);
	assert_int_equal(keeper_drop(kc, str), 0);
	assert_int_equal(keeper_hold(kc, 1), EPERM);
}

static void test_many_fds(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	const size_t num_fds = 5000;
	struct rlimit old, rl;
	ino_t *inodes = talloc_array(d->frame, ino_t, num_fds);
	int *fds = talloc_array(d->frame, int, num_fds);
	int *got = NULL;
	struct stat st;
	size_t i, num = 0;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	rl = old;
	rl.rlim_cur = rl.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &rl), 0);

	for (i = 0; i < num_fds; i++) {
		fds[i] = memfd_create("test", MFD_CLOEXEC);
		assert_int_equal(fstat(fds[i], &st), 0);
		inodes[i] = st.st_ino;
	}
	assert_int_equal(keeper_put(kc, "many", NULL, fds, num_fds), 0);
	for (i = 0; i < num_fds; i++) {
		close(fds[i]);
	}
	assert_int_equal(status_int(kc, "fds"), num_fds);

	assert_int_equal(keeper_copy(kc, kc, "many", NULL, &got, &num), 0);
	assert_int_equal(num, num_fds);
	for (i = 0; i < num_fds; i++) {
		assert_int_equal(fstat(got[i], &st), 0);
		assert_int_equal(st.st_ino, inodes[i]);
	}

	/* By itself, while all of both are there */
	assert_int_equal(keeper_replace(kc, "many", NULL, NULL, got, num), 0);
	assert_int_equal(status_int(kc, "holdings"), 1);
	assert_int_equal(status_int(kc, "fds"), num_fds);
	for (i = 0; i < num_fds; i++) {
		close(got[i]);
	}
	TALLOC_FREE(got);

	assert_int_equal(keeper_take(kc, kc, "many", NULL, &got, &num), 0);
	assert_int_equal(num, num_fds);
	for (i = 0; i < num_fds; i++) {
		assert_int_equal(fstat(got[i], &st), 0);
		assert_int_equal(st.st_ino, inodes[i]);
		close(got[i]);
	}
	assert_int_equal(status_int(kc, "fds"), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

static void test_closed_early(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	int sock = connect_raw_hello(d);
	int fds[2];

	make_pipe(fds);
	send_raw(sock,
		 "{\"op\":\"put\",\"label\":\"h\",\"more\":true}",
		 &fds[1],
		 1);
	assert_true(recv_ok(d, sock));
	close(fds[1]);
	assert_int_equal(num_holdings(kc), 0);
	assert_true(is_open(fds[0]));

	close(sock);
	wait_eof(fds[0]);
	assert_int_equal(num_holdings(kc), 0);
	close(fds[0]);
}

static void test_not_understood(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	int held = put_pipe(kc, "h");
	static const char *wrong[] = {
		"{\"op\":\"put\"",
		"[\"put\"]",
		"{}",
		"{\"op\":1}",
		"{\"op\":\"unknown\"}",
		"{\"op\":\"hello\",\"version\":1,\"role\":\"child\"}",
		"{\"op\":\"put\"}",
		"{\"op\":\"put\",\"label\":1,\"more\":false}",
		"{\"op\":\"put\",\"label\":\"\",\"more\":false}",
		"{\"op\":\"put\",\"label\":\"a\",\"more\":0}",
		"{\"op\":\"put\",\"label\":\"a\",\"more\":false,\"info\":[]}",
		"{\"op\":\"put\",\"label\":\"a\",\"more\":false,\"x\":1}",
		"{\"op\":\"put\",\"label\":\"h\",\"more\":false,"
		"\"replace\":1}",
		"{\"op\":\"copy\"}",
		"{\"op\":\"copy\",\"label\":\"h\",\"x\":1}",
		"{\"op\":\"drop\",\"label\":{}}",
		"{\"op\":\"drop\",\"label\":\"h\",\"x\":1}",
		"{\"op\":\"take\"}",
		"{\"op\":\"list\",\"label\":\"h\"}",
		"{\"op\":\"guard\",\"paths\":\"/\"}",
		"{\"op\":\"guard\",\"paths\":[\"relative\"]}",
		"{\"op\":\"guard\",\"paths\":[1]}",
		"{\"op\":\"hold\"}",
		"{\"op\":\"hold\",\"seconds\":-1}",
		"{\"op\":\"hold\",\"seconds\":1.5}",
		"{\"op\":\"hold\",\"seconds\":9999999999}",
		"{\"op\":\"event\",\"event\":\"x\"}",
		"{\"op\":\"wipe\",\"label\":\"h\"}",
	};
	static const char *wrong_hello[] = {
		"{\"op\":\"wipe\"}",
		"{\"op\":\"hello\"}",
		"{\"op\":\"hello\",\"version\":1}",
		"{\"op\":\"hello\",\"version\":2,\"role\":\"child\"}",
		"{\"op\":\"hello\",\"version\":\"1\",\"role\":\"child\"}",
		"{\"op\":\"hello\",\"version\":1,\"role\":\"new\"}",
	};
	struct keeper_packet *packet = NULL;
	size_t i;
	int sock;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		sock = connect_raw_hello(d);
		send_raw(sock, wrong[i], NULL, 0);
		assert_false(recv_ok(d, sock));
		assert_int_equal(recv_raw(d, sock, &packet), ECONNRESET);
		close(sock);
	}
	for (i = 0; i < ARRAY_SIZE(wrong_hello); i++) {
		sock = connect_raw(d);
		send_raw(sock, wrong_hello[i], NULL, 0);
		assert_false(recv_ok(d, sock));
		assert_int_equal(recv_raw(d, sock, &packet), ECONNRESET);
		close(sock);
	}

	/* Descriptors where none are expected are closed */
	sock = connect_raw_hello(d);
	{
		int fds[2];

		make_pipe(fds);
		send_raw(sock, "{\"op\":\"wipe\"}", &fds[1], 1);
		close(fds[1]);
		wait_eof(fds[0]);
		close(fds[0]);
	}
	close(sock);

	assert_int_equal(num_holdings(kc), 1);
	assert_true(is_open(held));
	close(held);
}

/* The file permissions keep others out; the daemon does not rely on them */
static void test_wrong_peer(void **state)
{
	struct daemon *d = *state;
	char *sock = talloc_asprintf(d->frame, "%s/keeper", d->sockdir);
	struct stat st;
	int status = -1;
	pid_t pid;

	assert_int_equal(stat(sock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(d->sockdir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	chmod(d->dir, 0755);
	chmod(d->sockdir, 0755);
	chmod(sock, 0666);

	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		struct keeper_conn *kc = NULL;
		int ret;

		if (setuid(65534) == -1) {
			_exit(99);
		}
		ret = keeper_connect(
			NULL, d->sockdir, "tool", TIMEOUT_MS, &kc);
		_exit((ret == ECONNRESET) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(log_has(d, "not root's"));
}

static void test_no_keeper(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = NULL;
	struct keeper_conn *old = connect_as(d, "tool");

	kill(d->pid, SIGTERM);
	assert_int_equal(wait_daemon(d), 0);

	assert_int_equal(keeper_wipe(old), ECONNRESET);
	assert_int_equal(keeper_wipe(old), ECONNRESET);
	assert_int_equal(
		keeper_connect(d->frame, d->sockdir, "tool", 1000, &kc),
		ENOENT);
}

/* Something listens there, but does not answer */
static void test_timeout(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = NULL;

	kill(d->pid, SIGSTOP);
	assert_int_equal(keeper_connect(d->frame, d->sockdir, "tool", 50, &kc),
			 ETIMEDOUT);
	kill(d->pid, SIGCONT);
	connect_as(d, "tool");
}

static void test_few_fds(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = NULL;
	int fds[100];
	int pipe_fds[2];
	size_t i;
	int held;

	start_daemon(d, (struct start) { .max_fds = 64 });
	kc = connect_as(d, "parent");

	make_pipe(pipe_fds);
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = pipe_fds[1];
	}
	assert_int_equal(keeper_put(kc, "h", NULL, fds, 100), EMFILE);
	close(pipe_fds[1]);
	wait_eof(pipe_fds[0]);
	close(pipe_fds[0]);

	/* Nothing else has happened to us */
	assert_int_equal(num_holdings(kc), 0);
	held = put_pipe(kc, "h");
	assert_int_equal(num_holdings(kc), 1);

	/* Nor does it cost what should have been replaced */
	make_pipe(pipe_fds);
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = pipe_fds[1];
	}
	assert_int_equal(keeper_replace(kc, "h", NULL, NULL, fds, 100), EMFILE);
	close(pipe_fds[1]);
	wait_eof(pipe_fds[0]);
	close(pipe_fds[0]);
	assert_true(is_open(held));
	take_and_close(kc, "h", 1);
	wait_eof(held);
	close(held);
}

struct objects {
	int sock[2];
	int mem;
	int eof;
};

/* What a client process would put: all stay open here, but for a pipe */
static void put_objects(struct keeper_conn *kc, struct objects *o)
{
	int fds[3];
	int pipe_fds[2];

	make_pipe(pipe_fds);
	o->eof = pipe_fds[0];
	o->mem = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(write(o->mem, "key", 3), 3);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, o->sock), 0);

	fds[0] = o->sock[0];
	fds[1] = o->mem;
	fds[2] = pipe_fds[1];
	assert_int_equal(keeper_put(kc, "h", NULL, fds, 3), 0);
	close(pipe_fds[1]);
}

/* The objects were destroyed, or the descriptors closed and no more */
static void check_objects(struct objects *o, bool destroyed)
{
	char buf[3], c;
	ssize_t nread;

	wait_eof(o->eof);
	nread = recv(o->sock[1], &c, 1, MSG_DONTWAIT);
	assert_int_equal(nread, destroyed ? 0 : -1);
	assert_int_equal(pread(o->mem, buf, 3, 0), 3);
	assert_memory_equal(buf, destroyed ? "\0\0\0" : "key", 3);

	close(o->eof);
	close(o->mem);
	close(o->sock[0]);
	close(o->sock[1]);
}

/* What it has sent is the taker's when that says so, and not before */
static void test_take_confirmed(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "tool");
	const char *take = "{\"op\":\"take\",\"label\":\"h\"}";
	const char *drop = "{\"op\":\"drop\",\"label\":\"h\"}";
	struct keeper_packet *packet = NULL;
	size_t num = 0;
	int *fds = NULL;
	struct objects o;
	int sock;

	/* It ends with the descriptors in its hands */
	put_objects(kc, &o);
	sock = connect_raw_hello(d);
	send_raw(sock, take, NULL, 0);
	assert_int_equal(recv_raw(d, sock, &packet), 0);
	assert_int_equal(packet->num_fds, 3);
	assert_int_equal(keeper_take(kc, kc, "h", NULL, &fds, &num), EBUSY);
	assert_int_equal(keeper_drop(kc, "h"), EBUSY);
	assert_int_equal(keeper_wipe(kc), 0);
	assert_int_equal(num_holdings(kc), 1);
	TALLOC_FREE(packet);
	close(sock);

	/* It ends before it has read them */
	sock = connect_raw_hello(d);
	send_raw(sock, take, NULL, 0);
	assert_int_equal(poll(&(struct pollfd) {
				      .fd = sock,
				      .events = POLLIN
			      }, 1, TIMEOUT_MS), 1);
	close(sock);

	/* A new program in between; no parent is here, yet nothing is shut */
	sock = connect_raw_hello(d);
	send_raw(sock, take, NULL, 0);
	assert_int_equal(recv_raw(d, sock, &packet), 0);
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "carries on");
	assert_int_equal(keeper_drop(kc, "h"), EBUSY);
	send_raw(sock, drop, NULL, 0);
	assert_true(recv_ok(d, sock));
	assert_int_equal(num_holdings(kc), 0);
	assert_true(is_open(o.eof));
	TALLOC_FREE(packet);
	check_objects(&o, false);

	/* One at a time */
	close(put_pipe(kc, "h"));
	send_raw(sock, take, NULL, 0);
	assert_true(recv_ok(d, sock));
	send_raw(sock, take, NULL, 0);
	assert_false(recv_ok(d, sock));
	close(sock);
	take_and_close(kc, "h", 1);
}

/* From here on it takes all that is sent at once, when continued */
static void stop_daemon(struct daemon *d)
{
	int status = -1;

	kill(d->pid, SIGSTOP);
	assert_int_equal(waitpid(d->pid, &status, WUNTRACED), d->pid);
	assert_true(WIFSTOPPED(status));
}

static const char *replace_more =
	"{\"op\":\"put\",\"label\":\"h\",\"more\":true,\"replace\":true}";
static const char *replace_last =
	"{\"op\":\"put\",\"label\":\"h\",\"more\":false,\"replace\":true}";

static void test_replace(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "child");
	struct keeper_holding *list = NULL;
	json_t *info = json_pack("{s:s}", "client", "10.0.0.7:51234");
	struct objects o;
	size_t num = 0;
	int fds[2];

	/* None there: a put */
	make_pipe(fds);
	assert_int_equal(keeper_replace(kc, "h", NULL, info, &fds[1], 1), 0);
	close(fds[1]);
	take_and_close(kc, "h", 1);
	wait_eof(fds[0]);
	close(fds[0]);

	/* No parent is here, yet nothing is destroyed */
	put_objects(kc, &o);
	close(put_pipe(kc, "other"));
	make_pipe(fds);
	assert_int_equal(keeper_put(kc, "h", info, &fds[1], 1), EEXIST);
	assert_int_equal(keeper_replace(kc, "h", NULL, info, &fds[1], 1), 0);
	close(fds[1]);
	check_objects(&o, false);

	assert_int_equal(keeper_list(d->frame, kc, &list, &num), 0);
	assert_int_equal(num, 2);
	assert_string_equal(list[0].label, "other");
	assert_string_equal(list[1].label, "h");
	assert_int_equal(list[1].num_fds, 1);
	assert_true(json_equal(list[1].info, info));
	assert_int_equal(status_int(kc, "fds"), 2);

	/* What is in both does not end in between */
	TALLOC_FREE(list);
	close(fds[0]);
	make_pipe(fds);
	assert_int_equal(keeper_replace(kc, "h", NULL, NULL, &fds[1], 1), 0);
	assert_int_equal(keeper_replace(kc, "h", NULL, NULL, &fds[1], 1), 0);
	close(fds[1]);
	assert_true(is_open(fds[0]));
	take_and_close(kc, "h", 1);
	wait_eof(fds[0]);
	close(fds[0]);
	json_decref(info);
}

/* The old one stays, whatever happens to what should have replaced it */
static void test_replace_fails(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	char *str = talloc_zero_array(d->frame, char, KEEPER_INFO_MAX + 1);
	char *too_long = NULL;
	int held = put_pipe(kc, "h");
	int sock = connect_raw_hello(d);
	int fds[2];
	size_t i;

	memset(str, 'a', KEEPER_INFO_MAX);
	too_long = talloc_asprintf(d->frame,
				   "{\"op\":\"put\",\"label\":\"h\","
				   "\"more\":false,\"replace\":true,"
				   "\"info\":{\"a\":\"%s\"}}",
				   str);
	{
		const char *wrong[] = {
			too_long,
			/* One that does not replace */
			"{\"op\":\"put\",\"label\":\"h\",\"more\":false}",
			/* Not understood, and not connected any more */
			"{\"op\":\"put\",\"label\":\"i\",\"more\":false,"
			"\"replace\":true}",
			NULL,
		};

		for (i = 0; i < ARRAY_SIZE(wrong); i++) {
			make_pipe(fds);
			send_raw(sock, replace_more, &fds[1], 1);
			assert_true(recv_ok(d, sock));
			close(fds[1]);
			assert_int_equal(num_holdings(kc), 1);
			assert_true(is_open(fds[0]));

			if (wrong[i] != NULL) {
				send_raw(sock, wrong[i], NULL, 0);
				assert_false(recv_ok(d, sock));
			} else {
				close(sock);
			}
			wait_eof(fds[0]);
			close(fds[0]);
			assert_int_equal(num_holdings(kc), 1);
			assert_true(is_open(held));

			if (i == 2) {
				close(sock);
				sock = connect_raw_hello(d);
			}
		}
	}

	/* It is being taken */
	sock = connect_raw_hello(d);
	send_raw(sock, "{\"op\":\"take\",\"label\":\"h\"}", NULL, 0);
	assert_true(recv_ok(d, sock));
	assert_int_equal(keeper_replace(kc, "h", NULL, NULL, NULL, 0), EBUSY);
	send_raw(sock, replace_last, NULL, 0);
	assert_false(recv_ok(d, sock));
	close(sock);

	/* A new program in between */
	sock = connect_raw_hello(d);
	make_pipe(fds);
	send_raw(sock, replace_more, &fds[1], 1);
	assert_true(recv_ok(d, sock));
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "carries on");
	assert_true(is_open(held));
	send_raw(sock, replace_last, &fds[1], 1);
	assert_true(recv_ok(d, sock));
	close(fds[1]);
	wait_eof(held);
	close(held);
	take_and_close(kc, "h", 2);
	wait_eof(fds[0]);
	close(fds[0]);
	close(sock);
}

static void test_copy(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	json_t *info = json_pack("{s:s}", "client", "10.0.0.7:51234");
	json_t *got = NULL;
	struct stat st, st2;
	int *fds = NULL;
	size_t num = 0;
	int pipe_fds[2];
	int i, sock;

	make_pipe(pipe_fds);
	assert_int_equal(keeper_put(parent, "h", info, pipe_fds, 2), 0);
	assert_int_equal(fstat(pipe_fds[1], &st), 0);
	close(pipe_fds[1]);
	for (i = 0; i < 2; i++) {
		assert_int_equal(
			keeper_copy(parent, parent, "h", &got, &fds, &num), 0);
		assert_int_equal(num, 2);
		assert_true(json_equal(got, info));
		json_decref(got);
		assert_int_equal(fstat(fds[1], &st2), 0);
		assert_int_equal(st.st_ino, st2.st_ino);
		assert_int_equal(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
		close(fds[0]);
		if (i == 0) {
			close(fds[1]);
			TALLOC_FREE(fds);
		}
	}
	assert_int_equal(num_holdings(parent), 1);

	/* The old one is dropped, what was copied is ours */
	assert_int_equal(keeper_put(parent, "new", info, fds, 0), 0);
	assert_int_equal(keeper_drop(parent, "h"), 0);
	assert_int_equal(num_holdings(parent), 1);
	assert_true(is_open(pipe_fds[0]));
	close(fds[1]);
	wait_eof(pipe_fds[0]);
	close(pipe_fds[0]);

	assert_int_equal(keeper_copy(parent, parent, "h", NULL, &fds, &num),
			 ENOENT);

	/* Who takes it may use it already */
	sock = connect_raw_hello(d);
	send_raw(sock, "{\"op\":\"take\",\"label\":\"new\"}", NULL, 0);
	assert_true(recv_ok(d, sock));
	assert_int_equal(keeper_copy(parent, parent, "new", NULL, &fds, &num),
			 EBUSY);
	close(sock);
	json_decref(info);
}

/* Packets that wait to be sent keep nothing open */
static void test_copy_dropped(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	const size_t num_fds = KEEPER_PACKET_FDS * 20;
	int *fds = talloc_array(d->frame, int, num_fds);
	int copier = connect_raw_hello(d);
	int dropper = connect_raw_hello(d);
	struct keeper_packet *packet = NULL;
	int pipe_fds[2];
	json_int_t code;
	size_t i;

	make_pipe(pipe_fds);
	for (i = 0; i < num_fds; i++) {
		/* The first packets have arrived before it is dropped */
		fds[i] = (i < num_fds - 1) ? pipe_fds[0] : pipe_fds[1];
	}
	assert_int_equal(keeper_put(parent, "h", NULL, fds, num_fds), 0);
	close(pipe_fds[1]);

	/*
	 * Before it copies it does one thing that others have asked for. While
	 * it sends it goes on with the next.
	 */
	stop_daemon(d);
	send_raw(copier, "{\"op\":\"copy\",\"label\":\"h\"}", NULL, 0);
	send_raw(dropper, "{\"op\":\"unguard\"}", NULL, 0);
	send_raw(dropper, "{\"op\":\"drop\",\"label\":\"h\"}", NULL, 0);
	kill(d->pid, SIGCONT);
	assert_true(recv_ok(d, dropper));
	assert_true(recv_ok(d, dropper));
	wait_eof(pipe_fds[0]);
	close(pipe_fds[0]);

	do {
		TALLOC_FREE(packet);
		assert_int_equal(recv_raw(d, copier, &packet), 0);
	} while (json_is_true(json_object_get(packet->json, "more")));
	assert_true(json_is_false(json_object_get(packet->json, "ok")));
	code = json_integer_value(json_object_get(packet->json, "errno"));
	assert_int_equal(code, ESTALE);
	TALLOC_FREE(packet);

	/* That was the last, and the connection goes on */
	send_raw(copier, "{\"op\":\"unguard\"}", NULL, 0);
	assert_true(recv_ok(d, copier));
	close(copier);
	close(dropper);
}

/* A TCP connection that is established, of which the client's end is open */
struct tcp {
	int listener;
	int client;
};

static void tcp_connect(struct tcp *tcp)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);

	tcp->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	tcp->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(tcp->listener, (struct sockaddr *)&addr, len),
			 0);
	assert_int_equal(listen(tcp->listener, 1), 0);
	assert_int_equal(
		getsockname(tcp->listener, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(connect(tcp->client, (struct sockaddr *)&addr, len),
			 0);
}

static void tcp_close(struct tcp *tcp)
{
	close(tcp->listener);
	close(tcp->client);
}

/*
 * What a client's process does: it accepts the connection, gives it to the
 * keeper, changes the holding and is killed. Returns its pid.
 */
static pid_t tcp_holder(struct daemon *d,
			struct tcp *tcp,
			const char *label,
			json_t *info)
{
	int status = -1;
	pid_t pid;

	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		struct keeper_conn *kc = NULL;
		int fd = accept(tcp->listener, NULL, NULL);
		int ret;

		ret = keeper_connect(
			NULL, d->sockdir, "child", TIMEOUT_MS, &kc);
		if (ret == 0) {
			ret = keeper_put(kc, label, NULL, &fd, 1);
		}
		if (ret == 0) {
			ret = keeper_replace(
				kc, label, NULL, info, &fd, 1);
		}
		if (ret == 0) {
			raise(SIGKILL);
		}
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return pid;
}

/* What is held for processes that have ended is closed for good by a drop */
static void test_drop_is_end(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	const char *drop = "{\"op\":\"drop\",\"label\":\"h\"}";
	struct tcp tcp;
	int *fds = NULL;
	size_t num = 0;
	int fd, child, sock;

	tcp_connect(&tcp);
	tcp_holder(d, &tcp, "h", NULL);
	assert_int_equal(num_holdings(parent), 1);
	assert_true(is_open(tcp.client));
	assert_int_equal(keeper_drop(parent, "h"), 0);
	wait_eof(tcp.client);
	tcp_close(&tcp);

	/* In a new program, and after it was copied */
	tcp_connect(&tcp);
	tcp_holder(d, &tcp, "h", NULL);
	kill(d->pid, SIGHUP);
	wait_log(d, parent, "carries on");
	assert_int_equal(keeper_copy(parent, parent, "h", NULL, &fds, &num),
			 0);
	assert_int_equal(num, 1);
	close(fds[0]);
	assert_true(is_open(tcp.client));
	assert_int_equal(keeper_drop(parent, "h"), 0);
	wait_eof(tcp.client);
	tcp_close(&tcp);

	/* It was in the middle of changing the holding */
	tcp_connect(&tcp);
	fd = accept(tcp.listener, NULL, NULL);
	child = connect_raw_hello(d);
	assert_int_equal(keeper_put(parent, "h", NULL, &fd, 1), 0);
	send_raw(child, replace_more, &fd, 1);
	assert_true(recv_ok(d, child));
	close(fd);
	close(child);
	assert_int_equal(keeper_drop(parent, "h"), 0);
	wait_eof(tcp.client);
	assert_int_equal(num_holdings(parent), 0);
	tcp_close(&tcp);

	/*
	 * Its last packet was not read yet. The drop is sent before, and on the
	 * connection that was served last, so that epoll(2) tells of it first.
	 */
	tcp_connect(&tcp);
	fd = accept(tcp.listener, NULL, NULL);
	child = connect_raw_hello(d);
	sock = connect_raw_hello(d);
	stop_daemon(d);
	send_raw(sock, drop, NULL, 0);
	send_raw(child, replace_last, &fd, 1);
	close(child);
	close(fd);
	kill(d->pid, SIGCONT);
	assert_true(recv_ok(d, sock));
	wait_eof(tcp.client);
	assert_int_equal(num_holdings(parent), 0);
	tcp_close(&tcp);
	close(sock);
}

/* smbd has crashed, all of it */
static void test_parent_gone(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *tool = connect_as(d, "tool");
	struct keeper_conn *parent = connect_as(d, "parent");
	json_t *info = json_pack("{s:s}", "client", "10.0.0.7:51234");
	struct keeper_holding *list = NULL;
	struct objects o;
	struct tcp tcp;
	size_t i, num = 0;
	pid_t pid;

	put_objects(parent, &o);
	tcp_connect(&tcp);
	pid = tcp_holder(d, &tcp, "c1", info);
	assert_int_equal(status_int(tool, "held_seconds_left"), -1);
	TALLOC_FREE(parent);
	assert_in_range(status_int(tool, "held_seconds_left"), 30, 60);
	assert_int_equal(num_holdings(tool), 2);

	/* All that the next one needs is there, also in a new program */
	parent = connect_as(d, "parent");
	for (i = 0; i < 2; i++) {
		assert_int_equal(status_int(tool, "held_seconds_left"), -1);
		assert_int_equal(keeper_list(d->frame, parent, &list, &num),
				 0);
		assert_int_equal(num, 2);
		assert_string_equal(list[0].label, "h");
		assert_int_equal(list[0].pid, getpid());
		assert_string_equal(list[1].label, "c1");
		assert_true(json_equal(list[1].info, info));
		assert_int_equal(list[1].num_fds, 1);
		assert_int_equal(list[1].pid, pid);
		TALLOC_FREE(list);

		kill(d->pid, SIGHUP);
		wait_log(d, parent, "carries on");
	}

	assert_true(is_open(o.eof));
	assert_true(is_open(tcp.client));
	take_and_close(parent, "h", 3);
	check_objects(&o, false);
	take_and_close(parent, "c1", 1);
	wait_eof(tcp.client);
	tcp_close(&tcp);
	json_decref(info);
}

static void test_drop_with_parent(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	struct objects o;

	put_objects(parent, &o);
	assert_int_equal(keeper_drop(parent, "h"), 0);
	check_objects(&o, false);

	put_objects(parent, &o);
	assert_int_equal(keeper_wipe(parent), 0);
	check_objects(&o, false);

	/* The keeper ends: smbd goes on serving */
	put_objects(parent, &o);
	kill(d->pid, SIGTERM);
	assert_int_equal(wait_daemon(d), 0);
	check_objects(&o, false);
}

static void test_drop_without_parent(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *tool = connect_as(d, "tool");
	struct objects o;

	put_objects(tool, &o);
	assert_int_equal(keeper_drop(tool, "h"), 0);
	check_objects(&o, true);

	put_objects(tool, &o);
	assert_int_equal(keeper_wipe(tool), 0);
	check_objects(&o, true);

	put_objects(tool, &o);
	kill(d->pid, SIGTERM);
	assert_int_equal(wait_daemon(d), 0);
	check_objects(&o, true);
}

static void test_hold(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *tool = connect_as(d, "tool");
	struct keeper_conn *parent = connect_as(d, "parent");
	struct objects o;

	put_objects(parent, &o);
	assert_int_equal(status_int(tool, "held_seconds_left"), -1);

	/* Comes back in time */
	assert_int_equal(keeper_hold(parent, 1000), 0);
	assert_in_range(status_int(tool, "held_seconds_left"), 990, 1000);
	TALLOC_FREE(parent);
	assert_in_range(status_int(tool, "held_seconds_left"), 990, 1000);
	parent = connect_as(d, "parent");
	assert_int_equal(status_int(tool, "held_seconds_left"), -1);
	assert_true(is_open(o.eof));

	/* Another one is here: nothing has to be held for the one that ends */
	{
		struct keeper_conn *old = connect_as(d, "parent");

		assert_int_equal(keeper_hold(old, 1), 0);
		assert_int_equal(status_int(tool, "held_seconds_left"), -1);
		TALLOC_FREE(old);
		assert_int_equal(status_int(tool, "held_seconds_left"), -1);
	}

	/* Does not come back */
	assert_int_equal(keeper_hold(parent, 1), 0);
	check_objects(&o, true);
	assert_int_equal(num_holdings(tool), 0);
	assert_int_equal(status_int(tool, "held_seconds_left"), -1);

	/* Immediately */
	put_objects(parent, &o);
	assert_int_equal(keeper_hold(parent, 0), 0);
	check_objects(&o, true);
}

static void test_default_hold(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = NULL;
	struct objects o;

	start_daemon(d, (struct start) { .hold_time = "1" });
	parent = connect_as(d, "parent");
	put_objects(parent, &o);
	TALLOC_FREE(parent);
	check_objects(&o, true);
}

/* Open it as the first smbd would: is what was stored still there? */
static bool tdb_survives(const char *path)
{
	uint8_t byte = 1;
	TDB_DATA key = { .dptr = &byte, .dsize = 1 };
	struct tdb_context *tdb = NULL;
	bool exists;

	tdb = tdb_open(path, 0, TDB_CLEAR_IF_FIRST, O_RDWR | O_CREAT, 0600);
	assert_non_null(tdb);
	exists = tdb_exists(tdb, key);
	assert_int_equal(tdb_store(tdb, key, key, 0), 0);
	tdb_close(tdb);
	return exists;
}

static void test_guard(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	const char *paths[] = {
		talloc_asprintf(d->frame, "%s/a.tdb", d->dir),
		talloc_asprintf(d->frame, "%s/b.tdb", d->dir),
		talloc_asprintf(d->frame, "%s/missing.tdb", d->dir),
		/* Another name of one that is named already */
		talloc_asprintf(d->frame, "%s/./a.tdb", d->dir),
	};
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_false(tdb_survives(paths[i]));
		assert_false(tdb_survives(paths[i]));
	}

	assert_int_equal(keeper_guard(kc, paths, 4), 0);
	assert_int_equal(keeper_guard(kc, paths, 4), 0);
	assert_int_equal(status_int(kc, "guarded"), 2);
	assert_true(tdb_survives(paths[0]));
	assert_true(tdb_survives(paths[1]));

	/* Locks live on over execve(2) */
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "carries on");
	assert_int_equal(status_int(kc, "guarded"), 2);
	assert_true(tdb_survives(paths[0]));
	assert_true(tdb_survives(paths[1]));

	assert_int_equal(keeper_unguard(kc), 0);
	assert_int_equal(status_int(kc, "guarded"), 0);
	assert_false(tdb_survives(paths[0]));
	assert_false(tdb_survives(paths[1]));

	/* The end of the hold time is the end of the guard */
	assert_int_equal(keeper_guard(kc, paths, 2), 0);
	close(put_pipe(kc, "h"));
	assert_int_equal(keeper_hold(kc, 0), 0);
	while (status_int(kc, "guarded") != 0) {
		/* its timer has run out, and needs one turn of the loop */
	}
	assert_false(tdb_survives(paths[0]));
}

static void test_events(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	char *str = talloc_zero_array(d->frame, char, KEEPER_EVENT_MAX);
	json_t *status = NULL;
	json_t *events = NULL;
	size_t i;

	/* Together they are many times longer than a packet */
	memset(str, 'a', KEEPER_EVENT_MAX - 100);
	for (i = 0; i < 103; i++) {
		json_t *event = json_pack("{s:i, s:s}", "n", i, "a", str);

		assert_int_equal(keeper_event(kc, event), 0);
		json_decref(event);
	}

	assert_int_equal(keeper_status(kc, &status), 0);
	events = json_object_get(status, "events");
	assert_int_equal(json_array_size(events), 100);
	for (i = 0; i < 100; i++) {
		json_t *event = json_array_get(events, i);

		assert_int_equal(
			json_integer_value(json_object_get(event, "n")),
			i + 3);
	}
	json_decref(status);
}

static void test_long_list(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	char *str = talloc_zero_array(d->frame, char, 10000);
	struct keeper_holding *list = NULL;
	json_t *info = NULL;
	char label[32];
	size_t i, num = 0;

	memset(str, 'a', 9999);
	info = json_pack("{s:s}", "a", str);
	for (i = 0; i < 300; i++) {
		snprintf(label, sizeof(label), "h%zu", i);
		assert_int_equal(keeper_put(kc, label, info, NULL, 0), 0);
	}

	assert_int_equal(keeper_list(d->frame, kc, &list, &num), 0);
	assert_int_equal(num, 300);
	for (i = 0; i < num; i++) {
		snprintf(label, sizeof(label), "h%zu", i);
		assert_string_equal(list[i].label, label);
		assert_true(json_equal(list[i].info, info));
	}
	json_decref(info);
}

/* Who does not read its replies does not keep others from theirs */
static void test_slow_reader(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "parent");
	struct keeper_packet *packet = NULL;
	int sock;

	test_events(state);
	sock = connect_raw_hello(d);
	send_raw(sock, "{\"op\":\"status\"}", NULL, 0);
	close(put_pipe(kc, "h"));
	assert_int_equal(num_holdings(kc), 1);

	/* A new program starts when the last reply is out */
	kill(d->pid, SIGHUP);
	do {
		assert_int_equal(recv_raw(d, sock, &packet), 0);
		if (!json_is_true(json_object_get(packet->json, "more"))) {
			break;
		}
		TALLOC_FREE(packet);
	} while (true);
	wait_log(d, kc, "carries on");
	send_raw(sock, "{\"op\":\"unguard\"}", NULL, 0);
	assert_true(recv_ok(d, sock));

	/* Or when it has not been read for some time */
	send_raw(sock, "{\"op\":\"status\"}", NULL, 0);
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "does not read its replies");
	assert_int_equal(num_holdings(kc), 1);
	close(sock);
}

static void test_exec(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *parent = connect_as(d, "parent");
	int sock = connect_raw_hello(d);
	json_t *event = json_pack("{s:s}", "kind", "restart");
	int more[2];
	struct objects o;
	size_t i;

	put_objects(parent, &o);
	assert_int_equal(keeper_event(parent, event), 0);
	json_decref(event);
	assert_int_equal(keeper_hold(parent, 1000), 0);

	/* In the middle of a put */
	make_pipe(more);
	send_raw(sock,
		 "{\"op\":\"put\",\"label\":\"h2\",\"more\":true}",
		 &more[1],
		 1);
	assert_true(recv_ok(d, sock));

	kill(d->pid, SIGHUP);
	wait_log(d, parent, "carries on");

	/* They don't hurt while a program is starting */
	for (i = 0; i < 100; i++) {
		kill(d->pid, SIGHUP);
		if (i % 10 == 0) {
			status_int(parent, "pid");
		}
	}

	/* The same connections go on, and the time that is left */
	assert_int_equal(status_int(parent, "pid"), d->pid);
	assert_in_range(status_int(parent, "held_seconds_left"), 900, 1000);
	assert_int_equal(num_holdings(parent), 1);
	send_raw(sock,
		 "{\"op\":\"put\",\"label\":\"h2\",\"more\":false}",
		 &more[1],
		 1);
	assert_true(recv_ok(d, sock));
	close(more[1]);
	take_and_close(parent, "h2", 2);
	wait_eof(more[0]);
	close(more[0]);
	close(sock);

	/* So do new ones, and we are who have ended */
	connect_as(d, "parent");
	assert_int_equal(status_int(parent, "held_seconds_left"), -1);

	assert_true(is_open(o.eof));
	take_and_close(parent, "h", 3);
	check_objects(&o, false);
}

/* A program that is not there, or could not go on from where we are */
static void test_exec_fails(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = NULL;
	char *copy = talloc_asprintf(d->frame, "%s/durable_stated", d->dir);
	const char *program = d->program;
	const char *bad[] = {
		"true",
		/* in the middle of an upgrade */
		"head -c 5000 $GOOD >$COPY",
		"head -c 5000 $GOOD >$COPY; truncate -s 1M $COPY",
		/* what the dynamic linker does if a library is missing */
		"printf '#!/bin/sh\\nexit 127\\n' >$COPY",
		"cp /bin/true $COPY",
		/* it has another state */
		"printf '#!/bin/sh\\necho durable_stated state 12\\n' >$COPY",
	};
	struct objects o;
	size_t i;

	setenv("GOOD", program, 1);
	setenv("COPY", copy, 1);
	assert_int_equal(system("cp $GOOD $COPY"), 0);
	d->program = copy;
	start_daemon(d, (struct start) { .hold_time = NULL });
	kc = connect_as(d, "parent");
	put_objects(kc, &o);

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		unlink(copy);
		assert_int_equal(system(bad[i]), 0);
		(void)chmod(copy, 0755);
		assert_int_equal(truncate(d->log, 0), 0);
		kill(d->pid, SIGHUP);
		wait_log(d, kc, "Going on as before");
		assert_false(log_has(d, "Executing"));
		assert_int_equal(num_holdings(kc), 1);
	}

	/* Until it is mended */
	unlink(copy);
	assert_int_equal(system("cp $GOOD $COPY"), 0);
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "carries on");

	take_and_close(kc, "h", 3);
	check_objects(&o, false);
}

static void test_second(void **state)
{
	struct daemon *d = *state;
	struct keeper_conn *kc = connect_as(d, "tool");
	char *cmd = talloc_asprintf(d->frame,
				    "%s -s %s | grep -q 'process %d'",
				    d->program,
				    d->conf,
				    (int)d->pid);

	assert_int_equal(system(cmd), 0);
	cmd = talloc_asprintf(d->frame, "%s -F -s %s", d->program, d->conf);
	assert_int_equal(system(cmd), 0);

	/* The lock is ours in the new program, too */
	kill(d->pid, SIGHUP);
	wait_log(d, kc, "carries on");
	assert_int_equal(system(cmd), 0);
	connect_as(d, "tool");
}

/* What systemd does with one message of a service */
struct stored {
	int fds[64];
	char *names; /* separated by ':' */
	size_t num;
	bool complete;
};

static void play_systemd(struct daemon *d, struct stored *s)
{
	uint8_t control[CMSG_SPACE(sizeof(int))];
	char buf[1024] = {};
	struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) - 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct pollfd pfd = { .fd = d->notify_fd, .events = POLLIN };
	struct cmsghdr *cmsg = NULL;
	char *name = NULL;
	int fd = -1;

	assert_int_equal(poll(&pfd, 1, TIMEOUT_MS), 1);
	assert_true(recvmsg(d->notify_fd, &msg, MSG_CMSG_CLOEXEC) > 0);
	cmsg = CMSG_FIRSTHDR(&msg);
	if ((cmsg != NULL) && (cmsg->cmsg_type == SCM_RIGHTS)) {
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	}

	if (strstr(buf, "BARRIER=1") != NULL) {
		s->complete = true;
		close(fd);
		return;
	}
	if (strstr(buf, "FDSTORE=1") == NULL) {
		return;
	}
	assert_non_null(strstr(buf, "FDPOLL=0"));
	name = strstr(buf, "FDNAME=") + strlen("FDNAME=");
	name[strcspn(name, "\n")] = '\0';
	assert_in_range(s->num, 0, ARRAY_SIZE(s->fds) - 1);
	s->fds[s->num++] = fd;
	s->names = (s->names == NULL) ?
			talloc_strdup(d->frame, name) :
			talloc_asprintf(d->frame, "%s:%s", s->names, name);
}

static void test_systemd(void **state)
{
	struct daemon *d = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stored s = { .num = 0 };
	struct keeper_conn *kc = NULL;
	struct keeper_holding *list = NULL;
	struct objects o;
	size_t i, num = 0;
	const char *tdb = talloc_asprintf(d->frame, "%s/a.tdb", d->dir);

	tdb_survives(tdb);
	d->notify_path = talloc_asprintf(d, "%s/notify", d->dir);
	strlcpy(addr.sun_path, d->notify_path, sizeof(addr.sun_path));
	d->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(
		bind(d->notify_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);

	start_daemon(d, (struct start) { .hold_time = NULL });
	kc = connect_as(d, "parent");
	put_objects(kc, &o);
	assert_int_equal(keeper_guard(kc, &tdb, 1), 0);
	assert_int_equal(keeper_hold(kc, 1000), 0);

	kill(d->pid, SIGTERM);
	while (!s.complete) {
		play_systemd(d, &s);
	}
	assert_int_equal(wait_daemon(d), 0);

	/* Nobody is there, and nothing is lost */
	assert_true(is_open(o.eof));
	assert_int_equal(keeper_wipe(kc), ECONNRESET);

	start_daemon(d, (struct start) {
		.listen_fds = s.fds,
		.num_listen_fds = s.num,
		.listen_names = s.names,
	});
	for (i = 0; i < s.num; i++) {
		close(s.fds[i]);
	}
	kc = connect_as(d, "tool");
	assert_in_range(status_int(kc, "held_seconds_left"), 900, 1000);
	assert_true(tdb_survives(tdb));
	assert_int_equal(keeper_list(d->frame, kc, &list, &num), 0);
	assert_int_equal(num, 1);
	assert_int_equal(list[0].pid, getpid());
	take_and_close(kc, "h", 3);
	check_objects(&o, false);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_started, teardown)
#define TEST_STARTS(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_put_take),
		TEST(test_take_confirmed),
		TEST(test_take_few_fds),
		TEST(test_put_wrong),
		TEST(test_many_fds),
		TEST(test_closed_early),
		TEST(test_not_understood),
		TEST(test_wrong_peer),
		TEST(test_no_keeper),
		TEST(test_timeout),
		TEST_STARTS(test_few_fds),
		TEST(test_replace),
		TEST(test_replace_fails),
		TEST(test_copy),
		TEST(test_copy_dropped),
		TEST(test_drop_is_end),
		TEST(test_parent_gone),
		TEST(test_drop_with_parent),
		TEST(test_drop_without_parent),
		TEST(test_hold),
		TEST_STARTS(test_default_hold),
		TEST(test_guard),
		TEST(test_events),
		TEST(test_long_list),
		TEST(test_slow_reader),
		TEST(test_exec),
		TEST_STARTS(test_exec_fails),
		TEST(test_second),
		TEST_STARTS(test_systemd),
	};

	/* Inherited from where the tests run, not meant for them */
	unsetenv("NOTIFY_SOCKET");
	unsetenv("SYSTEMD_EXEC_PID");

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
