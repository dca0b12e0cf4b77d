/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state: connections, restarts, waits

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

#include "includes.h"
#include "system/network.h"
#include "system/filesys.h"
#include "system/wait.h"
#include "auth/credentials/credentials.h"
#include "lib/cmdline/cmdline.h"
#include "lib/param/param.h"
#include "lib/util/dlinklist.h"
#include "lib/util/tevent_ntstatus.h"
#include "libcli/resolve/resolve.h"
#include "libcli/security/security.h"
#include "torture/durable_state/ds_util.h"
#include "torture/durable_state/ds_relay.h"

/*
 * Loops
 */

static void ds_loop_timeout(struct tevent_context *ev,
			    struct tevent_timer *te,
			    struct timeval now,
			    void *private_data)
{
	bool *expired = private_data;

	*expired = true;
}

/* Runs the event loop until cond() is true or the time is over. */
static bool ds_loop_until(struct torture_context *tctx,
			  bool (*cond)(void *private_data),
			  void *private_data,
			  unsigned msec)
{
	TALLOC_CTX *frame = talloc_new(tctx);
	struct tevent_timer *te = NULL;
	bool expired = false;
	bool ok = false;

	te = tevent_add_timer(tctx->ev,
			      frame,
			      timeval_current_ofs_msec(msec),
			      ds_loop_timeout,
			      &expired);
	if (te == NULL) {
		goto done;
	}
	while (!(ok = cond(private_data)) && !expired) {
		if (tevent_loop_once(tctx->ev) != 0) {
			break;
		}
	}
done:
	TALLOC_FREE(frame);
	return ok;
}

static bool ds_never(void *private_data)
{
	return false;
}

void ds_loop(struct torture_context *tctx, unsigned msec)
{
	ds_loop_until(tctx, ds_never, NULL, msec);
}

static bool ds_req_done(void *private_data)
{
	struct smb2_request *req = private_data;

	return req->state > SMB2_REQUEST_RECV;
}

bool ds_wait_req(struct torture_context *tctx,
		 struct smb2_request *req,
		 unsigned msec)
{
	return ds_loop_until(tctx, ds_req_done, req, msec);
}

static bool ds_req_interim(void *private_data)
{
	struct smb2_request *req = private_data;

	return req->cancel.can_cancel || ds_req_done(req);
}

/* Waits for the interim response; true if the request goes on waiting. */
bool ds_wait_interim(struct torture_context *tctx, struct smb2_request *req)
{
	ds_loop_until(tctx, ds_req_interim, req, DS_WAIT_MSEC);
	if (ds_req_done(req)) {
		torture_comment(tctx,
				"does not wait: %s\n",
				nt_errstr(req->status));
		return false;
	}
	return req->cancel.can_cancel;
}

bool ds_still_waiting(struct torture_context *tctx, struct smb2_request *req)
{
	return !ds_wait_req(tctx, req, 300);
}

NTSTATUS ds_cancel(struct torture_context *tctx, struct smb2_request *req)
{
	NTSTATUS status;

	status = smb2_cancel(req);
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	if (!ds_wait_req(tctx, req, DS_WAIT_MSEC)) {
		return NT_STATUS_IO_TIMEOUT;
	}
	return smb2_request_destroy(req);
}

bool ds_check_async_id(struct torture_context *tctx,
		       struct ds_client *c,
		       struct smb2_request *req)
{
	uint64_t interim_id;
	uint64_t final_id;

	if (!ds_relay_interim_id(c->relay, &interim_id)) {
		torture_comment(tctx, "async ids are encrypted\n");
		return true;
	}
	torture_assert(tctx,
		       req->state == SMB2_REQUEST_DONE,
		       "there is no final response");
	torture_assert(tctx,
		       IVAL(req->in.hdr, SMB2_HDR_FLAGS) & SMB2_HDR_FLAG_ASYNC,
		       "the final response is not asynchronous");
	final_id = BVAL(req->in.hdr, SMB2_HDR_ASYNC_ID);
	torture_assert_u64_equal(tctx, final_id, interim_id, "async id");
	return true;
}

struct ds_break_cond {
	struct ds_client *c;
	unsigned count;
};

static bool ds_break_reached(void *private_data)
{
	struct ds_break_cond *cond = private_data;

	return cond->c->brk.count >= cond->count;
}

/* Waits until the client has got that many breaks in all, and no more. */
bool ds_wait_break(struct torture_context *tctx,
		   struct ds_client *c,
		   unsigned count)
{
	struct ds_break_cond cond = { .c = c, .count = count };

	ds_loop_until(tctx, ds_break_reached, &cond, DS_WAIT_MSEC);
	return c->brk.count == count;
}

/*
 * Connections
 */

static bool ds_oplock_handler(struct smb2_transport *transport,
			      const struct smb2_handle *handle,
			      uint8_t level,
			      void *private_data)
{
	struct ds_client *c = talloc_get_type_abort(private_data,
						    struct ds_client);

	c->brk.count++;
	c->brk.handle = *handle;
	c->brk.level = level;
	return true;
}

static bool ds_lease_handler(struct smb2_transport *transport,
			     const struct smb2_lease_break *lb,
			     void *private_data)
{
	struct ds_client *c = talloc_get_type_abort(private_data,
						    struct ds_client);

	c->brk.count++;
	c->brk.lease = *lb;
	return true;
}

static int ds_tcp_connect(struct torture_context *tctx, int rcvbuf)
{
	const char *host = torture_setting_string(tctx, "host", NULL);
	const char **ports = lpcfg_smb_ports(tctx->lp_ctx);
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *res = NULL;
	struct addrinfo *ai = NULL;
	int fd = -1;
	int ret;

	ret = getaddrinfo(host, ports[0], &hints, &res);
	if (ret != 0) {
		torture_comment(tctx,
				"%s port %s: %s\n",
				host,
				ports[0],
				gai_strerror(ret));
		return -1;
	}

	for (ai = res; ai != NULL; ai = ai->ai_next) {
		fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, 0);
		if (fd == -1) {
			continue;
		}
		/* before connect: it bounds the window that is announced */
		if (rcvbuf != 0) {
			setsockopt(fd,
				   SOL_SOCKET,
				   SO_RCVBUF,
				   &rcvbuf,
				   sizeof(rcvbuf));
		}
		ret = connect(fd, ai->ai_addr, ai->ai_addrlen);
		if (ret == 0) {
			break;
		}
		torture_comment(tctx,
				"connect to %s port %s: %s\n",
				host,
				ports[0],
				strerror(errno));
		close(fd);
		fd = -1;
	}
	freeaddrinfo(res);
	return fd;
}

static uint16_t ds_local_port(int fd)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(ss);
	int ret;

	ret = getsockname(fd, (struct sockaddr *)(void *)&ss, &len);
	if (ret == -1) {
		return 0;
	}
	switch (ss.ss_family) {
	case AF_INET:
		return ntohs(((struct sockaddr_in *)(void *)&ss)->sin_port);
	case AF_INET6:
		return ntohs(((struct sockaddr_in6 *)(void *)&ss)->sin6_port);
	}
	return 0;
}

static NTSTATUS ds_negprot(struct ds_client *c, struct smbXcli_conn *conn)
{
	struct tevent_context *ev = c->tctx->ev;
	struct tevent_req *req = NULL;
	NTSTATUS status;
	bool ok;

	req = smbXcli_negprot_send(c,
				   ev,
				   conn,
				   c->options.request_timeout * 1000,
				   MAX(c->options.min_protocol,
				       PROTOCOL_SMB2_02),
				   c->options.max_protocol,
				   c->options.max_credits,
				   NULL);
	if (req == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	ok = tevent_req_poll_ntstatus(req, ev, &status);
	if (ok) {
		status = smbXcli_negprot_recv(req, NULL, NULL);
	}
	TALLOC_FREE(req);
	return status;
}

static void ds_set_options(struct ds_client *c,
			   const struct ds_connect_params *params)
{
	struct cli_credentials *creds = samba_cmdline_get_creds();
	enum smb_encryption_setting encryption =
		cli_credentials_get_smb_encryption(creds);

	lpcfg_smbcli_options(c->tctx->lp_ctx, &c->options);

	if (encryption >= SMB_ENCRYPTION_DESIRED ||
	    (params->flags & DS_CONNECT_SIGN)) {
		c->options.signing = SMB_SIGNING_REQUIRED;
	}
	if (params->flags & DS_CONNECT_UNSIGNED) {
		c->options.signing = SMB_SIGNING_IF_REQUIRED;
	}
	if (c->options.max_protocol < PROTOCOL_SMB2_02) {
		c->options.max_protocol = PROTOCOL_LATEST;
	}
	if (params->max_protocol != PROTOCOL_NONE) {
		c->options.max_protocol = params->max_protocol;
	}
	if (params->client_guid != NULL) {
		c->options.client_guid = *params->client_guid;
	}
	if (params->max_credits != 0) {
		c->options.max_credits = params->max_credits;
	}
}

struct ds_client *ds_connect(struct torture_context *tctx,
			     TALLOC_CTX *mem_ctx,
			     const struct ds_connect_params *params)
{
	static const struct ds_connect_params no_params;
	const char *host = torture_setting_string(tctx, "host", NULL);
	const char *share = torture_setting_string(tctx, "share", NULL);
	struct ds_client *c = NULL;
	struct smbXcli_conn *conn = NULL;
	NTSTATUS status;
	int fd;

	if (params == NULL) {
		params = &no_params;
	}

	c = talloc_zero(mem_ctx, struct ds_client);
	if (c == NULL) {
		return NULL;
	}
	c->tctx = tctx;
	ds_set_options(c, params);

	c->fd = ds_tcp_connect(tctx, params->rcvbuf);
	if (c->fd == -1) {
		goto fail;
	}
	c->port = ds_local_port(c->fd);
	fd = c->fd;

	if (params->flags & DS_CONNECT_RELAY) {
		c->relay = ds_relay_create(c, tctx->ev, c->fd, &fd);
		if (c->relay == NULL) {
			close(c->fd);
			goto fail;
		}
	}

	conn = smbXcli_conn_create(c,
				   fd,
				   host,
				   c->options.signing,
				   0, /* smb1_capabilities */
				   &c->options.client_guid,
				   c->options.smb2_capabilities,
				   &c->options.smb3_capabilities);
	if (conn == NULL) {
		close(fd);
		goto fail;
	}

	status = ds_negprot(c, conn);
	if (!NT_STATUS_IS_OK(status)) {
		torture_comment(tctx, "negprot: %s\n", nt_errstr(status));
		goto fail;
	}

	if (params->flags & DS_CONNECT_NEGPROT_ONLY) {
		status = smb2_transport_raw_init(c,
						 tctx->ev,
						 &conn,
						 &c->options,
						 &c->transport);
		if (!NT_STATUS_IS_OK(status)) {
			goto fail;
		}
	} else {
		status = smb2_connect_ext(
			c,
			host,
			lpcfg_smb_ports(tctx->lp_ctx),
			share,
			lpcfg_resolve_context(tctx->lp_ctx),
			samba_cmdline_get_creds(),
			&conn,
			0, /* previous_session_id */
			&c->tree,
			tctx->ev,
			&c->options,
			lpcfg_socket_options(tctx->lp_ctx),
			lpcfg_gensec_settings(tctx, tctx->lp_ctx));
		if (!NT_STATUS_IS_OK(status)) {
			torture_comment(tctx,
					"connect to \\\\%s\\%s: %s\n",
					host,
					share,
					nt_errstr(status));
			goto fail;
		}
		c->session = c->tree->session;
		/* other sessions may use it as well */
		c->transport = talloc_steal(c, c->session->transport);
	}

	c->transport->oplock.handler = ds_oplock_handler;
	c->transport->oplock.private_data = c;
	c->transport->lease.handler = ds_lease_handler;
	c->transport->lease.private_data = c;

	/* the library waits for breaks from the next request on */
	status = ds_echo(c);
	if (!NT_STATUS_IS_OK(status)) {
		goto fail;
	}
	return c;
fail:
	TALLOC_FREE(c);
	return NULL;
}

enum protocol_types ds_protocol(struct ds_client *c)
{
	return smbXcli_conn_protocol(c->transport->conn);
}

NTSTATUS ds_echo(struct ds_client *c)
{
	return smb2_keepalive(c->transport);
}

/* A further tree connect of the session; NULL if it fails. */
struct smb2_tree *ds_tcon(struct torture_context *tctx,
			  struct ds_client *c,
			  const char *share)
{
	const char *host = torture_setting_string(tctx, "host", NULL);
	struct smb2_tree *tree = smb2_tree_init(c->session, c, false);
	struct tevent_req *req = NULL;
	NTSTATUS status;
	bool ok;

	req = smb2cli_tcon_send(tree,
				tctx->ev,
				c->transport->conn,
				c->options.request_timeout * 1000,
				c->session->smbXcli,
				tree->smbXcli,
				0, /* flags */
				talloc_asprintf(tree,
						"\\\\%s\\%s",
						host,
						share));
	if (req == NULL) {
		goto fail;
	}
	ok = tevent_req_poll_ntstatus(req, tctx->ev, &status);
	if (ok) {
		status = smb2cli_tcon_recv(req);
	}
	TALLOC_FREE(req);
	if (!NT_STATUS_IS_OK(status)) {
		torture_comment(tctx, "%s: %s\n", share, nt_errstr(status));
		goto fail;
	}
	return tree;
fail:
	TALLOC_FREE(tree);
	return NULL;
}

/* The connection is the one that was made, and it works. */
bool ds_check_connection(struct torture_context *tctx, struct ds_client *c)
{
	torture_assert(tctx,
		       smbXcli_conn_is_connected(c->transport->conn),
		       "the connection was lost");
	torture_assert(tctx,
		       c->relay == NULL || !ds_relay_broken(c->relay),
		       "the connection was lost");
	torture_assert_int_equal(tctx,
				 ds_local_port(c->fd),
				 c->port,
				 "the local TCP port changed");
	torture_assert_ntstatus_ok(tctx, ds_echo(c), "echo");
	return true;
}

/*
 * Restarts
 */

struct ds_restart {
	pid_t pid;
	int wstatus;
	unsigned timeout;
	const char *cmd;
};

/* How many restarts the running test has made. */
static unsigned ds_restarts;

static unsigned ds_restart_timeout(struct torture_context *tctx)
{
	return torture_setting_int(tctx, "restart_timeout", 60);
}

/*
 * A test that failed in the middle leaves the restart to its end: the next
 * one needs the server.
 */
static int ds_restart_destructor(struct ds_restart *r)
{
	struct timeval end = timeval_current_ofs(r->timeout, 0);

	while (ds_restart_running(r) && !timeval_expired(&end)) {
		smb_msleep(10);
	}
	if (r->pid != 0) {
		kill(r->pid, SIGKILL);
		waitpid(r->pid, &r->wstatus, 0);
	}
	return 0;
}

static void ds_restart_exec(const char *cmd)
{
	int fd;

	/* the daemon that is started must not inherit our connections */
	closefrom(STDERR_FILENO + 1);
	fd = open("/dev/null", O_RDONLY);
	if (fd != -1) {
		dup2(fd, STDIN_FILENO);
		close(fd);
	}
	execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	_exit(127);
}

struct ds_restart *ds_restart_start(struct torture_context *tctx)
{
	struct ds_restart *r = NULL;
	const char *cmd = torture_setting_string(tctx,
						 "restart_command",
						 NULL);

	if (cmd == NULL) {
		torture_result(tctx,
			       TORTURE_FAIL,
			       "--option=torture:restart_command=COMMAND "
			       "must name the command that restarts smbd\n");
		return NULL;
	}

	r = talloc_zero(tctx, struct ds_restart);
	if (r == NULL) {
		return NULL;
	}
	r->cmd = cmd;
	r->timeout = ds_restart_timeout(tctx);
	r->pid = fork();
	if (r->pid == -1) {
		torture_result(tctx,
			       TORTURE_FAIL,
			       "fork: %s\n",
			       strerror(errno));
		TALLOC_FREE(r);
		return NULL;
	}
	if (r->pid == 0) {
		ds_restart_exec(cmd);
	}
	talloc_set_destructor(r, ds_restart_destructor);
	ds_restarts++;
	return r;
}

bool ds_restart_running(struct ds_restart *r)
{
	pid_t pid;

	if (r->pid == 0) {
		return false;
	}
	pid = waitpid(r->pid, &r->wstatus, WNOHANG);
	if (pid == 0 || (pid == -1 && errno == EINTR)) {
		return true;
	}
	r->pid = 0;
	return false;
}

bool ds_restart_wait(struct torture_context *tctx, struct ds_restart *r)
{
	struct timeval end;
	bool ok;

	if (r == NULL) {
		return false;
	}
	end = timeval_current_ofs(r->timeout, 0);

	while (ds_restart_running(r)) {
		if (timeval_expired(&end)) {
			torture_result(tctx,
				       TORTURE_FAIL,
				       "'%s' runs for more than %u seconds\n",
				       r->cmd,
				       r->timeout);
			kill(r->pid, SIGKILL);
			TALLOC_FREE(r);
			return false;
		}
		ds_loop(tctx, 5);
	}

	ok = WIFEXITED(r->wstatus) && (WEXITSTATUS(r->wstatus) == 0);
	if (!ok) {
		torture_result(tctx,
			       TORTURE_FAIL,
			       "'%s' failed, wait status 0x%x\n",
			       r->cmd,
			       r->wstatus);
	}
	TALLOC_FREE(r);
	return ok;
}

bool ds_restart(struct torture_context *tctx)
{
	return ds_restart_wait(tctx, ds_restart_start(tctx));
}

/*
 * Files
 */

/* A pattern in which every part looks different, and for every seed. */
void ds_fill(uint8_t *buf, size_t len, uint32_t seed)
{
	uint32_t x = seed * 2654435761U + 1;
	size_t i;

	for (i = 0; i < len; i++) {
		if ((i & 3) == 0) {
			x = x * 1664525U + 1013904223U;
		}
		buf[i] = x >> (24 - 8 * (i & 3));
	}
}

NTSTATUS ds_open(struct ds_client *c,
		 const char *fname,
		 uint32_t access,
		 uint32_t share,
		 uint32_t disposition,
		 uint32_t options,
		 struct smb2_handle *h)
{
	struct smb2_create io = {
		.in.fname = fname,
		.in.desired_access = access,
		.in.share_access = share,
		.in.create_disposition = disposition,
		.in.create_options = options,
		.in.file_attributes = FILE_ATTRIBUTE_NORMAL,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	TALLOC_CTX *frame = talloc_new(c);
	NTSTATUS status;

	status = smb2_create(c->tree, frame, &io);
	TALLOC_FREE(frame);
	if (NT_STATUS_IS_OK(status)) {
		*h = io.out.file.handle;
	}
	return status;
}

NTSTATUS ds_open_rw(struct ds_client *c,
		    const char *fname,
		    struct smb2_handle *h)
{
	return ds_open(c,
		       fname,
		       DS_RW | SEC_STD_DELETE,
		       NTCREATEX_SHARE_ACCESS_MASK,
		       NTCREATEX_DISP_OPEN_IF,
		       0,
		       h);
}

NTSTATUS ds_create_file(struct ds_client *c,
			const char *fname,
			const void *data,
			size_t len)
{
	const uint8_t *p = data;
	struct smb2_handle h;
	NTSTATUS status;
	size_t ofs = 0;

	status = ds_open_rw(c, fname, &h);
	while (NT_STATUS_IS_OK(status) && ofs < len) {
		size_t n = MIN(len - ofs, 65536);

		status = smb2_util_write(c->tree, h, p + ofs, ofs, n);
		ofs += n;
	}
	if (!NT_STATUS_IS_OK(status)) {
		return status;
	}
	return smb2_util_close(c->tree, h);
}

NTSTATUS ds_read(struct ds_client *c,
		 TALLOC_CTX *mem_ctx,
		 struct smb2_handle h,
		 uint64_t ofs,
		 uint32_t len,
		 DATA_BLOB *data)
{
	struct smb2_read io = {
		.in.file.handle = h,
		.in.offset = ofs,
		.in.length = len,
	};
	NTSTATUS status;

	status = smb2_read(c->tree, mem_ctx, &io);
	if (NT_STATUS_IS_OK(status)) {
		*data = io.out.data;
	}
	return status;
}

NTSTATUS ds_lock(struct ds_client *c,
		 struct smb2_handle h,
		 uint64_t ofs,
		 uint64_t len,
		 uint32_t flags)
{
	struct smb2_lock_element el = {
		.offset = ofs,
		.length = len,
		.flags = flags,
	};
	struct smb2_lock io = {
		.in.file.handle = h,
		.in.lock_count = 1,
		.in.locks = &el,
	};

	return smb2_lock(c->tree, &io);
}

bool ds_exists(struct ds_client *c, const char *fname)
{
	struct smb2_handle h;
	NTSTATUS status;

	status = ds_open(c,
			 fname,
			 SEC_FILE_READ_ATTRIBUTE,
			 NTCREATEX_SHARE_ACCESS_MASK,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h);
	if (!NT_STATUS_IS_OK(status)) {
		return false;
	}
	smb2_util_close(c->tree, h);
	return true;
}

/* For cleaning up: closes what is open, and remembers that it is not. */
void ds_close(struct ds_client *c, struct smb2_handle *h)
{
	if (smb2_util_handle_empty(*h)) {
		return;
	}
	smb2_util_close(c->tree, *h);
	*h = (struct smb2_handle) { .data = { 0 } };
}

/*
 * Running a test
 */

static void ds_cleanup(struct torture_context *tctx)
{
	struct ds_client *c = ds_connect(tctx, tctx, NULL);

	if (c != NULL) {
		smb2_deltree(c->tree, DS_DIR);
	}
	TALLOC_FREE(c);
}

static bool ds_run(struct torture_context *tctx,
		   struct torture_test *test,
		   size_t num,
		   uint32_t flags)
{
	struct ds_connect_params params = { .flags = flags };
	struct ds_client *c[2] = { NULL, NULL };
	bool ret = true;
	size_t i;

	ds_restarts = 0;

	for (i = 0; i < num; i++) {
		c[i] = ds_connect(tctx, tctx, i == 0 ? &params : NULL);
		torture_assert_goto(tctx,
				    c[i] != NULL,
				    ret,
				    done,
				    "could not connect");
	}

	ret = smb2_util_setup_dir(tctx, c[0]->tree, DS_DIR);
	torture_assert_goto(tctx, ret, ret, done, "no " DS_DIR);

	if (num == 1) {
		ds_test1_fn fn = test->fn;
		ret = fn(tctx, c[0]);
	} else {
		ds_test2_fn fn = test->fn;
		ret = fn(tctx, c[0], c[1]);
	}
	if (!ret || tctx->last_result == TORTURE_SKIP) {
		goto done;
	}

	torture_assert_goto(tctx,
			    ds_restarts > 0,
			    ret,
			    done,
			    "the test did not restart smbd");
	for (i = 0; i < num; i++) {
		ret &= ds_check_connection(tctx, c[i]);
	}
done:
	for (i = 0; i < num; i++) {
		TALLOC_FREE(c[i]);
	}
	ds_cleanup(tctx);
	return ret;
}

static bool ds_run_test1(struct torture_context *tctx,
			 struct torture_tcase *tcase,
			 struct torture_test *test)
{
	return ds_run(tctx, test, 1, 0);
}

static bool ds_run_test2(struct torture_context *tctx,
			 struct torture_tcase *tcase,
			 struct torture_test *test)
{
	return ds_run(tctx, test, 2, 0);
}

static bool ds_run_relay_test1(struct torture_context *tctx,
			       struct torture_tcase *tcase,
			       struct torture_test *test)
{
	return ds_run(tctx, test, 1, DS_CONNECT_RELAY);
}

static bool ds_run_relay_test2(struct torture_context *tctx,
			       struct torture_tcase *tcase,
			       struct torture_test *test)
{
	return ds_run(tctx, test, 2, DS_CONNECT_RELAY);
}

static void ds_add_test(struct torture_suite *suite,
			const char *name,
			bool (*run)(struct torture_context *tctx,
				    struct torture_tcase *tcase,
				    struct torture_test *test),
			void *fn)
{
	struct torture_tcase *tcase = torture_suite_add_tcase(suite, name);
	struct torture_test *test = talloc_zero(tcase, struct torture_test);

	test->name = talloc_strdup(test, name);
	test->run = run;
	test->fn = fn;
	DLIST_ADD_END(tcase->tests, test);
}

void ds_add_test1(struct torture_suite *suite,
		  const char *name,
		  ds_test1_fn fn)
{
	ds_add_test(suite, name, ds_run_test1, fn);
}

void ds_add_test2(struct torture_suite *suite,
		  const char *name,
		  ds_test2_fn fn)
{
	ds_add_test(suite, name, ds_run_test2, fn);
}

void ds_add_relay_test1(struct torture_suite *suite,
			const char *name,
			ds_test1_fn fn)
{
	ds_add_test(suite, name, ds_run_relay_test1, fn);
}

void ds_add_relay_test2(struct torture_suite *suite,
			const char *name,
			ds_test2_fn fn)
{
	ds_add_test(suite, name, ds_run_relay_test2, fn);
}
