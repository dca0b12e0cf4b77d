/*
 * durable_state: SMB clients survive smbd restarts
 * Tests of the parts that the keeper is made of
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
#include "system/filesys.h"
#include "system/dir.h"
#include "system/network.h"
#include "system/shmem.h"
#include "system/wait.h"
#include "keeper_protocol.h"
#include "holdings.h"

static size_t num_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t num = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL) {
		num += 1;
	}
	closedir(dir);
	return num;
}

static ino_t fd_ino(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static int make_memfd(const char *content)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, content, strlen(content)),
			 strlen(content));
	return fd;
}

struct pair {
	TALLOC_CTX *frame;
	int fds[2];
	size_t num_open;
};

static int setup_pair(void **state)
{
	struct pair *p = talloc_zero(NULL, struct pair);

	assert_non_null(p);
	p->frame = talloc_new(p);
	p->num_open = num_open_fds();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p->fds), 0);
	*state = p;
	return 0;
}

/* No test leaves descriptors open, whatever went wrong in it */
static int teardown_pair(void **state)
{
	struct pair *p = *state;

	TALLOC_FREE(p->frame);
	close(p->fds[0]);
	close(p->fds[1]);
	assert_int_equal(num_open_fds(), p->num_open);
	TALLOC_FREE(p);
	return 0;
}

static int parse(TALLOC_CTX *mem_ctx, const char *str, size_t len)
{
	struct keeper_packet *packet = NULL;
	/* On the heap and of that size, for valgrind and ASan to see more */
	uint8_t *buf = talloc_memdup(mem_ctx, str, len);
	int ret;

	ret = keeper_packet_parse(mem_ctx, buf, len, &packet);
	TALLOC_FREE(packet);
	TALLOC_FREE(buf);
	return ret;
}

static void test_parse_truncated(void **state)
{
	struct pair *p = *state;
	const char *str = "{\"op\":\"put\",\"label\":\"\\u00e4\",\"info\":{}}";
	size_t len = strlen(str);
	size_t i;

	for (i = 0; i < len; i++) {
		assert_int_equal(parse(p->frame, str, i), EBADMSG);
	}
	assert_int_equal(parse(p->frame, str, len), 0);
}

static void test_parse_wrong(void **state)
{
	struct pair *p = *state;
	static const char *wrong[] = {
		"[]",
		"\"op\"",
		"null",
		"{}{}",
		"{\"op\":\"put\"} x",
		"{\"op\":\"put\",\"op\":\"put\"}",
		"{\"op\":\"\\u0000\"}",
		"{\"op\":\"\xff\"}",
		"{\"n\":1e999}",
	};
	char *deep = talloc_array(p->frame, char, KEEPER_PACKET_MAX + 1);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(parse(p->frame, wrong[i], strlen(wrong[i])),
				 EBADMSG);
	}
	assert_int_equal(parse(p->frame, "{}\0", 3), EBADMSG);

	memset(deep, '[', KEEPER_PACKET_MAX + 1);
	memcpy(deep, "{\"a\":", 5);
	assert_int_equal(parse(p->frame, deep, KEEPER_PACKET_MAX), EBADMSG);
	assert_int_equal(parse(p->frame, deep, KEEPER_PACKET_MAX + 1),
			 EMSGSIZE);
}

/* Flip each bit of a packet: it is refused or it is an object, no more */
static void test_parse_flipped(void **state)
{
	struct pair *p = *state;
	char str[] = "{\"op\":\"hold\",\"seconds\":10,\"a\":[true,null]}";
	size_t len = strlen(str);
	size_t bit;

	for (bit = 0; bit < len * 8; bit++) {
		int ret;

		str[bit / 8] ^= 1 << (bit % 8);
		ret = parse(p->frame, str, len);
		assert_true((ret == 0) || (ret == EBADMSG));
		str[bit / 8] ^= 1 << (bit % 8);
	}
}

static void test_round_trip(void **state)
{
	struct pair *p = *state;
	struct keeper_packet *packet = NULL;
	json_t *json = json_pack("{s:s, s:{s:i}}", "op", "put",
				 "info", "n", 42);
	uint8_t *buf = NULL;
	int fds[3];
	size_t i;

	for (i = 0; i < 3; i++) {
		fds[i] = make_memfd("x");
	}
	assert_int_equal(keeper_packet_build(p->frame, json, &buf), 0);
	assert_int_equal(keeper_packet_send(p->fds[0],
					    buf,
					    talloc_array_length(buf),
					    fds,
					    3),
			 0);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet), 0);

	assert_true(json_equal(packet->json, json));
	assert_int_equal(packet->num_fds, 3);
	for (i = 0; i < 3; i++) {
		int fd = packet->fds[i];

		assert_int_equal(fd_ino(fd), fd_ino(fds[i]));
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		close(fds[i]);
	}

	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 EAGAIN);
	shutdown(p->fds[0], SHUT_WR);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 ECONNRESET);
	assert_int_equal(keeper_packet_send(p->fds[1], buf, 1, NULL, 0), 0);
	json_decref(json);
}

static void test_build_too_long(void **state)
{
	struct pair *p = *state;
	char *str = talloc_zero_array(p->frame, char, KEEPER_PACKET_MAX + 1);
	uint8_t *buf = NULL;
	json_t *json = NULL;

	memset(str, 'a', KEEPER_PACKET_MAX);
	json = json_pack("{s:s}", "a", str);
	assert_int_equal(keeper_packet_build(p->frame, json, &buf), EMSGSIZE);
	json_decref(json);
}

/* What a sender can do that does not use keeper_packet_send() */
static void send_raw(int sock, size_t len, size_t num_fds)
{
	uint8_t control[CMSG_SPACE(sizeof(int) * 253)] = {};
	uint8_t *buf = talloc_zero_array(NULL, uint8_t, len);
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	size_t i;

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
	for (i = 0; i < num_fds; i++) {
		memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &sock, sizeof(int));
	}
	memset(buf, '{', len);
	assert_int_equal(sendmsg(sock, &msg, 0), len);
	TALLOC_FREE(buf);
}

static void test_recv_bad(void **state)
{
	struct pair *p = *state;
	struct keeper_packet *packet = NULL;
	struct rlimit old, low;

	send_raw(p->fds[0], 2, 253);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 EMFILE);

	send_raw(p->fds[0], KEEPER_PACKET_MAX + 1, 10);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 EMSGSIZE);

	send_raw(p->fds[0], 2, 10);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 EBADMSG);

	/* Room for some of them only */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = num_open_fds() + 5;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	send_raw(p->fds[0], 2, 100);
	assert_int_equal(keeper_packet_recv(p->frame, p->fds[1], &packet),
			 EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);

	assert_null(packet);
}

static void test_peer_is_root(void **state)
{
	struct pair *p = *state;
	int fds[2];
	pid_t pid = -1;

	if (geteuid() != 0) {
		skip();
	}

	assert_int_equal(keeper_check_peer(p->fds[0], &pid), 0);
	assert_int_equal(pid, getpid());

	assert_int_equal(seteuid(65534), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(keeper_check_peer(fds[0], NULL), EPERM);
	close(fds[0]);
	close(fds[1]);

	fds[0] = make_memfd("");
	assert_int_equal(keeper_check_peer(fds[0], NULL), ENOTSOCK);
	close(fds[0]);
}

/* A holding of one descriptor, which it takes over */
static void hold_fd(struct holdings *hs, int fd)
{
	struct keeper_packet packet = { .fds = &fd, .num_fds = 1 };
	struct holding *h = holding_new(hs, "h", getpid());

	assert_non_null(h);
	assert_int_equal(holding_append(h, &packet), 0);
	assert_int_equal(packet.num_fds, 0);
	holdings_add(hs, h);
}

static void test_drop_memory(void **state)
{
	struct pair *p = *state;
	struct holdings *hs = talloc_zero(p->frame, struct holdings);
	char buf[4] = {};
	int fd = make_memfd("key");

	hold_fd(hs, dup(fd));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_CLOSE), 1);
	assert_int_equal(pread(fd, buf, 3, 0), 3);
	assert_string_equal(buf, "key");

	hold_fd(hs, dup(fd));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_DESTROY), 1);
	assert_int_equal(pread(fd, buf, 3, 0), 3);
	assert_memory_equal(buf, "\0\0\0", 3);

	/* Far out in a hole, which must not be filled */
	assert_int_equal(pwrite(fd, "key", 3, 1024 * 1024 * 1024), 3);
	hold_fd(hs, dup(fd));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_DESTROY), 1);
	assert_int_equal(pread(fd, buf, 3, 1024 * 1024 * 1024), 3);
	assert_memory_equal(buf, "\0\0\0", 3);

	assert_int_equal(hs->num, 0);
	assert_int_equal(hs->num_fds, 0);
	close(fd);
}

/* Who replaces a holding has the objects of the old one in use */
static void test_add_replaces(void **state)
{
	struct pair *p = *state;
	struct holdings *hs = talloc_zero(p->frame, struct holdings);
	char buf[4] = {};
	int fd = make_memfd("key");
	uint64_t id;
	char c;

	hold_fd(hs, dup(p->fds[0]));
	id = hs->list->id;
	assert_ptr_equal(holdings_find_id(hs, id), hs->list);
	hold_fd(hs, dup(fd));
	assert_int_equal(hs->num, 1);
	assert_int_equal(hs->num_fds, 1);
	assert_null(holdings_find_id(hs, id));
	assert_int_equal(recv(p->fds[1], &c, 1, MSG_DONTWAIT), -1);

	hold_fd(hs, dup(p->fds[0]));
	assert_int_equal(hs->num, 1);
	assert_int_equal(pread(fd, buf, 3, 0), 3);
	assert_string_equal(buf, "key");
	close(fd);
}

static void test_save_load(void **state)
{
	struct pair *p = *state;
	struct holding *h = holding_new(p->frame, "h", 1234);
	struct holding *loaded = NULL;
	json_t *json = NULL;

	h->since_ms = 42;
	/* Without descriptors nothing has to be handed over */
	json = holding_save(h, NULL);
	loaded = holding_load(p->frame, json, NULL);
	assert_non_null(loaded);
	assert_string_equal(loaded->label, "h");
	assert_int_equal(loaded->since_ms, 42);
	assert_int_equal(loaded->pid, 1234);

	/* From a program that did not know pids */
	json_object_del(json, "pid");
	loaded = holding_load(p->frame, json, NULL);
	assert_non_null(loaded);
	assert_int_equal(loaded->pid, 0);
	json_decref(json);
}

/* A client's file is not ours to overwrite, though a tmpfs has seals too */
static void test_drop_file(void **state)
{
	struct pair *p = *state;
	struct holdings *hs = talloc_zero(p->frame, struct holdings);
	char path[] = "/dev/shm/test_keeper.XXXXXX";
	char buf[5] = {};
	int fd = mkstemp(path);

	if (fd == -1) {
		skip();
	}
	unlink(path);
	assert_int_equal(write(fd, "data", 4), 4);

	hold_fd(hs, dup(fd));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_DESTROY), 1);
	assert_int_equal(pread(fd, buf, 4, 0), 4);
	assert_string_equal(buf, "data");
	close(fd);
}

static void test_drop_socket(void **state)
{
	struct pair *p = *state;
	struct holdings *hs = talloc_zero(p->frame, struct holdings);
	char c;

	hold_fd(hs, dup(p->fds[0]));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_CLOSE), 1);
	assert_int_equal(recv(p->fds[1], &c, 1, MSG_DONTWAIT), -1);

	/* We have fds[0] open, and yet the other side sees the end */
	hold_fd(hs, dup(p->fds[0]));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_DESTROY), 1);
	assert_int_equal(recv(p->fds[1], &c, 1, MSG_DONTWAIT), 0);
}

static void test_drop_listener(void **state)
{
	struct pair *p = *state;
	struct holdings *hs = talloc_zero(p->frame, struct holdings);
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int client = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);

	hold_fd(hs, dup(fd));
	assert_int_equal(holdings_drop_all(hs, HOLDING_END_DESTROY), 1);
	assert_int_equal(connect(client, (struct sockaddr *)&addr, len), 0);
	close(client);
	close(fd);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_pair, teardown_pair)
	const struct CMUnitTest tests[] = {
		TEST(test_parse_truncated),
		TEST(test_parse_wrong),
		TEST(test_parse_flipped),
		TEST(test_round_trip),
		TEST(test_build_too_long),
		TEST(test_recv_bad),
		TEST(test_peer_is_root),
		TEST(test_add_replaces),
		TEST(test_save_load),
		TEST(test_drop_memory),
		TEST(test_drop_file),
		TEST(test_drop_socket),
		TEST(test_drop_listener),
	};

	cmocka_set_message_output(CM_OUTPUT_SUBUNIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
