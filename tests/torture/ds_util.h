/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state: what its files share

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

#ifndef __TORTURE_DURABLE_STATE_DS_UTIL_H__
#define __TORTURE_DURABLE_STATE_DS_UTIL_H__

#include "libcli/smb2/smb2.h"
#include "libcli/smb2/smb2_calls.h"
#include "libcli/smb/smbXcli_base.h"
#include "torture/torture.h"
#include "torture/smb2/proto.h"

/* The directory that every test finds empty. */
#define DS_DIR "durable-state"
#define DS_NAME(name) DS_DIR "\\" name

/* How long something that must happen may take, in milliseconds. */
#define DS_WAIT_MSEC 30000
/* How long to look for something that must not happen, in milliseconds. */
#define DS_QUIET_MSEC 1000

struct ds_relay;

/* What a client was told to give up: an oplock or a lease. */
struct ds_break {
	unsigned count;
	struct smb2_handle handle;
	uint8_t level;
	struct smb2_lease_break lease;
};

/* One client: one TCP connection, one session, one tree connect. */
struct ds_client {
	struct torture_context *tctx;
	struct smbcli_options options;
	struct smb2_transport *transport;
	struct smb2_session *session;
	struct smb2_tree *tree;
	/* the TCP socket; owned by the transport or by the relay */
	int fd;
	uint16_t port;
	/* NULL: the client library talks to the TCP socket itself */
	struct ds_relay *relay;
	struct ds_break brk;
};

/* Bits for struct ds_connect_params */
enum ds_connect_flags {
	DS_CONNECT_RELAY = 1,		/* through a struct ds_relay */
	DS_CONNECT_NEGPROT_ONLY = 2,	/* no session, no tree connect */
	DS_CONNECT_SIGN = 4,		/* with signing required */
	DS_CONNECT_UNSIGNED = 8,	/* a guest cannot sign */
};

struct ds_connect_params {
	uint32_t flags;
	/* bytes; 0 leaves the choice to the kernel */
	int rcvbuf;
	/* NULL: a client of its own, with a GUID of its own */
	const struct GUID *client_guid;
	/* 0: as many as the library asks for */
	uint16_t max_credits;
	/* PROTOCOL_NONE: what the command line says */
	enum protocol_types max_protocol;
};

struct ds_client *ds_connect(struct torture_context *tctx,
			     TALLOC_CTX *mem_ctx,
			     const struct ds_connect_params *params);
struct smb2_tree *ds_tcon(struct torture_context *tctx,
			  struct ds_client *c,
			  const char *share);
bool ds_check_connection(struct torture_context *tctx, struct ds_client *c);
enum protocol_types ds_protocol(struct ds_client *c);

struct ds_restart;

/* Starts the restart and returns; the caller goes on using the clients. */
struct ds_restart *ds_restart_start(struct torture_context *tctx);
bool ds_restart_running(struct ds_restart *r);
bool ds_restart_wait(struct torture_context *tctx, struct ds_restart *r);
/* Restarts and returns when the new smbd serves. */
bool ds_restart(struct torture_context *tctx);

void ds_loop(struct torture_context *tctx, unsigned msec);
bool ds_wait_req(struct torture_context *tctx,
		 struct smb2_request *req,
		 unsigned msec);
bool ds_wait_interim(struct torture_context *tctx, struct smb2_request *req);
bool ds_wait_break(struct torture_context *tctx,
		   struct ds_client *c,
		   unsigned count);
NTSTATUS ds_echo(struct ds_client *c);
/* The request is still waiting, and stays so for a while. */
bool ds_still_waiting(struct torture_context *tctx, struct smb2_request *req);
/* Cancels the request; the status is that of the request. */
NTSTATUS ds_cancel(struct torture_context *tctx, struct smb2_request *req);
/* What an interim response promised: the final one has the same async id. */
bool ds_check_async_id(struct torture_context *tctx,
		       struct ds_client *c,
		       struct smb2_request *req);

void ds_fill(uint8_t *buf, size_t len, uint32_t seed);
NTSTATUS ds_create_file(struct ds_client *c,
			const char *fname,
			const void *data,
			size_t len);
NTSTATUS ds_open(struct ds_client *c,
		 const char *fname,
		 uint32_t access,
		 uint32_t share,
		 uint32_t disposition,
		 uint32_t options,
		 struct smb2_handle *h);
NTSTATUS ds_open_rw(struct ds_client *c,
		    const char *fname,
		    struct smb2_handle *h);
NTSTATUS ds_read(struct ds_client *c,
		 TALLOC_CTX *mem_ctx,
		 struct smb2_handle h,
		 uint64_t ofs,
		 uint32_t len,
		 DATA_BLOB *data);
NTSTATUS ds_lock(struct ds_client *c,
		 struct smb2_handle h,
		 uint64_t ofs,
		 uint64_t len,
		 uint32_t flags);
bool ds_exists(struct ds_client *c, const char *fname);
void ds_close(struct ds_client *c, struct smb2_handle *h);

#define DS_RW (SEC_RIGHTS_FILE_READ | SEC_RIGHTS_FILE_WRITE)
#define DS_LOCK_TRY_EXCLUSIVE \
	(SMB2_LOCK_FLAG_EXCLUSIVE | SMB2_LOCK_FLAG_FAIL_IMMEDIATELY)
#define DS_LOCK_TRY_SHARED \
	(SMB2_LOCK_FLAG_SHARED | SMB2_LOCK_FLAG_FAIL_IMMEDIATELY)

/*
 * All of these want variables tctx and ret and a label done.
 */
#define CHECK_STATUS(got, wanted) \
	torture_assert_ntstatus_equal_goto(tctx, got, wanted, ret, done, #got)
#define CHECK_OK(got) CHECK_STATUS(got, NT_STATUS_OK)
#define CHECK_VAL(got, wanted) \
	torture_assert_u64_equal_goto(tctx, got, wanted, ret, done, #got)
#define CHECK_TRUE(expr) \
	torture_assert_goto(tctx, expr, ret, done, #expr)
#define CHECK_CLOSE(c, h) do { \
	CHECK_OK(smb2_util_close((c)->tree, h)); \
	(h) = (struct smb2_handle) { .data = { 0 } }; \
} while (0)
/* ds_restart() has said what went wrong */
#define RESTART() do { \
	ret = ds_restart(tctx); \
	if (!ret) { \
		goto done; \
	} \
} while (0)

typedef bool (*ds_test1_fn)(struct torture_context *tctx,
			    struct ds_client *c);
typedef bool (*ds_test2_fn)(struct torture_context *tctx,
			    struct ds_client *c1,
			    struct ds_client *c2);

/*
 * Test functions get connected clients and an empty DS_DIR. When they
 * return true, the connections are checked once more, and that smbd was
 * restarted at all.
 */
void ds_add_test1(struct torture_suite *suite,
		  const char *name,
		  ds_test1_fn fn);
void ds_add_test2(struct torture_suite *suite,
		  const char *name,
		  ds_test2_fn fn);
/* The same, c (or c1) through a struct ds_relay. */
void ds_add_relay_test1(struct torture_suite *suite,
			const char *name,
			ds_test1_fn fn);
void ds_add_relay_test2(struct torture_suite *suite,
			const char *name,
			ds_test2_fn fn);

void ds_stream_tests(struct torture_suite *suite);
void ds_session_tests(struct torture_suite *suite);
void ds_channel_tests(struct torture_suite *suite);
void ds_open_tests(struct torture_suite *suite);
void ds_oplock_tests(struct torture_suite *suite);
void ds_lease_tests(struct torture_suite *suite);
void ds_lock_tests(struct torture_suite *suite);
void ds_dir_tests(struct torture_suite *suite);
void ds_apple_tests(struct torture_suite *suite);
void ds_notify_tests(struct torture_suite *suite);
void ds_pending_tests(struct torture_suite *suite);
void ds_durable_tests(struct torture_suite *suite);
void ds_barrier_tests(struct torture_suite *suite);
void ds_pipe_tests(struct torture_suite *suite);
/* of a suite of its own */
void ds_load_tests(struct torture_suite *suite);

NTSTATUS torture_durable_state_init(TALLOC_CTX *ctx);

#endif /* __TORTURE_DURABLE_STATE_DS_UTIL_H__ */
