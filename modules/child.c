/*
   durable_state: a client's process: freeze, drain, capture, restore, thaw

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
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "source3/smbd/smbXsrv_session.h"
#include "../libcli/smb/smb_common.h"
#include "messages.h"
#include "serverid.h"
#include "system/network.h"
#include "system/select.h"
#include "fault.h"
#include "options.h"
#include "records.h"
#include "process.h"
#include "resume.h"
#include "save.h"
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"

/* Lost handles of one client that are reported with their reason */
#define DS_LOST_MAX 20

/* How long the keeper may take for one answer */
#define DS_KEEPER_TIMEOUT_MS 5000

enum ds_child_state {
	/* as without us */
	DS_CHILD_RUNNING,
	/* reads nothing new, works on what it has */
	DS_CHILD_FREEZING,
	/* at rest: all that is left waits for others */
	DS_CHILD_QUIET,
	/* reads nothing, and will be cut off */
	DS_CHILD_FAILED,
	/* being brought back: no event loop runs, so nothing is read */
	DS_CHILD_RETURNING,
};

static struct ds_child {
	int fd;
	struct ds_held *held;

	struct smbd_server_connection *sconn;
	struct tevent_fd *fde;
	enum ds_child_state state;
	NTTIME frozen;
	struct tevent_timer *drain;
	struct tevent_immediate *check;
	/* SIGTERM came, the parent was asked what it means */
	bool term;

	/* of a restore, until it is reported */
	struct ds_restore *restore;
	/* what it was restored from, until there is a new one */
	struct ds_image *image;
	/* creates that were brought back and are not issued yet */
	struct ds_later *later;
} *ds_child;

struct ds_later {
	struct ds_later *prev, *next;
	struct smbd_smb2_request *req;
};

static int ds_child_destructor(struct ds_child *child)
{
	if (child->fd != -1) {
		close(child->fd);
	}
	return 0;
}

int ds_send(int fd, json_t *json)
{
	uint8_t *buf = NULL;
	int ret;

	if (json == NULL) {
		return ENOMEM;
	}
	ret = keeper_packet_build(talloc_tos(), json, &buf);
	json_decref(json);
	if (ret != 0) {
		return ret;
	}
	ret = keeper_packet_send(
		fd, buf, talloc_get_size(buf), NULL, 0);
	TALLOC_FREE(buf);
	return ret;
}

const char *ds_json_string(json_t *json, const char *name)
{
	return json_string_value(json_object_get(json, name));
}

json_int_t ds_json_int(json_t *json, const char *name)
{
	return json_integer_value(json_object_get(json, name));
}

void ds_child_born(int fd, struct ds_held *held)
{
	ds_child = talloc(NULL, struct ds_child);
	if (ds_child == NULL) {
		exit_server("talloc failed");
	}
	*ds_child = (struct ds_child) {
		.fd = fd, .held = talloc_move(ds_child, &held),
	};
	talloc_set_destructor(ds_child, ds_child_destructor);
}

const struct ds_restore *ds_child_restoring(void)
{
	return (ds_child != NULL) ? ds_child->restore : NULL;
}

static NTTIME ds_now(void)
{
	struct timeval tv = timeval_current();

	return timeval_to_nttime(&tv);
}

static void ds_child_report(const char *op)
{
	TALLOC_CTX *frame = talloc_stackframe();

	(void)ds_send(ds_child->fd,
		      json_pack("{ss ss}",
				"op", op,
				"client",
				ds_client_name(frame, ds_child->sconn)));
	TALLOC_FREE(frame);
}

static void ds_child_failed(const char *reason)
{
	TALLOC_CTX *frame = talloc_stackframe();
	const char *client = ds_client_name(frame, ds_child->sconn);

	TALLOC_FREE(ds_child->drain);
	ds_child->state = DS_CHILD_FAILED;

	DBG_WARNING("client %s will be cut off: %s\n", client, reason);
	(void)ds_send(ds_child->fd,
		      json_pack("{ss ss ss}",
				"op", "failed",
				"client", client,
				"reason", reason));
	TALLOC_FREE(frame);
}

/*
 * A session setup takes several requests, and what there is between them
 * cannot be written down. So it is let come to its end.
 */
static int ds_pending_auth_fn(struct smbXsrv_session *session,
			      void *private_data)
{
	struct smbXsrv_connection *xconn = private_data;
	struct smbXsrv_session_auth0 *auth = NULL;

	for (auth = session->pending_auth; auth != NULL; auth = auth->next) {
		if ((xconn == NULL) || (auth->connection == xconn)) {
			return -1;
		}
	}
	return 0;
}

/* xconn NULL: on any connection */
static bool ds_pending_auth(struct smbXsrv_client *client,
			    struct smbXsrv_connection *xconn)
{
	NTSTATUS status;

	if (client->session_table == NULL) {
		return false;
	}
	status = smbXsrv_session_local_traverse(
		client, ds_pending_auth_fn, xconn);
	/* -1 ends the traverse as an error */
	return !NT_STATUS_IS_OK(status);
}

bool ds_child_may_read(struct smbXsrv_connection *xconn)
{
	if (ds_child == NULL) {
		return true;
	}
	switch (ds_child->state) {
	case DS_CHILD_RUNNING:
	case DS_CHILD_RETURNING:
		return true;
	case DS_CHILD_FREEZING:
		return ds_pending_auth(xconn->client, xconn);
	default:
		return false;
	}
}

/*
 * The first request that does not wait, NULL if all do.
 */
static struct smbd_smb2_request *ds_busy_request(struct smbXsrv_client *client)
{
	struct smbXsrv_connection *xconn = NULL;
	struct smbd_smb2_request *req = NULL;

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		for (req = xconn->smb2.requests;
		     req != NULL;
		     req = req->next) {
			if (!ds_request_waits(req)) {
				return req;
			}
		}
	}
	return NULL;
}

/*
 * At rest. A session setup that was waited for may have left a connection
 * readable. Write times that a timer would set are set now: to do it is a
 * change that others may watch for, so it must not come later.
 */
static void ds_child_quiet(void)
{
	struct smbd_server_connection *sconn = ds_child->sconn;
	struct smbXsrv_connection *xconn = NULL;
	struct files_struct *fsp = NULL;

	TALLOC_FREE(ds_child->drain);

	for (xconn = sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		if (NT_STATUS_IS_OK(xconn->transport.status)) {
			TEVENT_FD_NOT_READABLE(xconn->transport.fde);
		}
	}
	change_to_root_user();
	for (fsp = sconn->files; fsp != NULL; fsp = fsp->next) {
		if (fsp->update_write_time_event != NULL) {
			fsp_flush_write_time_update(fsp);
		}
	}

	ds_child->state = DS_CHILD_QUIET;
	ds_child_report("quiet");
}

/* ---- creates of one file, one after the other
 *
 * A create that waits watches the file's record in locking.tdb. If the next
 * one of this process has to wait for the record's lock, only the first
 * watcher is woken when it is free, and that is the one that is not looked
 * after meanwhile (dbwrap_watched_trigger_wakeup(), g_lock_lock()): both stand
 * still for seconds. Creates of a client seldom come at the same time; after
 * a restart all that waited do.
 */

static bool ds_same_create(struct smbd_smb2_request *a,
			   struct smbd_smb2_request *b)
{
	const uint8_t *ha = SMBD_SMB2_IN_HDR_PTR(a);
	const uint8_t *hb = SMBD_SMB2_IN_HDR_PTR(b);
	const struct iovec *va = SMBD_SMB2_IN_DYN_IOV(a);
	const struct iovec *vb = SMBD_SMB2_IN_DYN_IOV(b);
	size_t len;

	if ((SVAL(ha, SMB2_HDR_OPCODE) != SMB2_OP_CREATE) ||
	    (SVAL(hb, SMB2_HDR_OPCODE) != SMB2_OP_CREATE) ||
	    (IVAL(ha, SMB2_HDR_TID) != IVAL(hb, SMB2_HDR_TID)) ||
	    (SMBD_SMB2_IN_BODY_LEN(a) < 0x30) ||
	    (SMBD_SMB2_IN_BODY_LEN(b) < 0x30))
	{
		return false;
	}
	/* the name is the first thing behind the body, [MS-SMB2] 2.2.13 */
	len = SVAL(SMBD_SMB2_IN_BODY_PTR(a), 0x2E);
	return (len == SVAL(SMBD_SMB2_IN_BODY_PTR(b), 0x2E)) &&
	       (len <= va->iov_len) && (len <= vb->iov_len) &&
	       (memcmp(va->iov_base, vb->iov_base, len) == 0);
}

static bool ds_create_is_behind(struct smbd_smb2_request *req)
{
	struct smbXsrv_connection *xconn = NULL;
	struct smbd_smb2_request *r = NULL;

	for (xconn = ds_child->sconn->client->connections;
	     xconn != NULL;
	     xconn = xconn->next) {
		for (r = xconn->smb2.requests; r != NULL; r = r->next) {
			if ((r != req) && (r->subreq != NULL) &&
			    ds_same_create(r, req))
			{
				return true;
			}
		}
	}
	return false;
}

bool ds_child_is_later(const struct smbd_smb2_request *req)
{
	const struct ds_later *later = NULL;

	if (ds_child == NULL) {
		return false;
	}
	for (later = ds_child->later; later != NULL; later = later->next) {
		if (later->req == req) {
			return true;
		}
	}
	return false;
}

static int ds_later_destructor(struct ds_later *later)
{
	DLIST_REMOVE(ds_child->later, later);
	return 0;
}

/*
 * Issue a request that was brought back, or let it wait for its turn.
 */
static NTSTATUS ds_child_issue(struct smbd_smb2_request *req)
{
	struct ds_later *later = NULL;

	ds_resume_chain(req);
	if (!ds_create_is_behind(req)) {
		bool cancelled = ds_save_is_cancelled(req);
		struct smbXsrv_connection *xconn = req->xconn;
		struct smbd_smb2_request *r = NULL;
		NTSTATUS status = smbd_smb2_request_dispatch(req);

		/* if it waits again, which it may not */
		for (r = xconn->smb2.requests;
		     cancelled && NT_STATUS_IS_OK(status) && (r != NULL);
		     r = r->next) {
			if ((r == req) && (r->subreq != NULL)) {
				tevent_req_cancel(r->subreq);
				break;
			}
		}
		return status;
	}
	later = talloc(req, struct ds_later);
	if (later == NULL) {
		return NT_STATUS_NO_MEMORY;
	}
	*later = (struct ds_later) { .req = req, };
	DLIST_ADD_END(ds_child->later, later);
	talloc_set_destructor(later, ds_later_destructor);
	return NT_STATUS_OK;
}

/*
 * One at a time: what it does may end others.
 */
static void ds_child_issue_next(void)
{
	struct ds_later *later = NULL;
	struct smbd_smb2_request *req = NULL;
	NTSTATUS status;

	for (later = ds_child->later; later != NULL; later = later->next) {
		if (!ds_create_is_behind(later->req)) {
			break;
		}
	}
	if (later == NULL) {
		return;
	}
	req = later->req;
	TALLOC_FREE(later);
	status = smbd_smb2_request_dispatch(req);
	if (!NT_STATUS_IS_OK(status)) {
		smbd_server_connection_terminate(req->xconn,
						 nt_errstr(status));
	}
	/* the others, too, may be free to go */
	ds_child_progress(NULL);
}

static void ds_child_check(struct tevent_context *ev,
			   struct tevent_immediate *im,
			   void *private_data)
{
	struct smbXsrv_client *client = ds_child->sconn->client;

	if (ds_child->state == DS_CHILD_RUNNING) {
		ds_child_issue_next();
		return;
	}
	if (ds_child->state != DS_CHILD_FREEZING) {
		return;
	}
	if ((ds_busy_request(client) != NULL) ||
	    ds_pending_auth(client, NULL))
	{
		return;
	}
	ds_child_quiet();
}

/*
 * From inside of a request: look when it is left.
 */
void ds_child_progress(struct smbXsrv_connection *xconn)
{
	if (ds_child == NULL) {
		return;
	}
	if ((ds_child->state != DS_CHILD_FREEZING) &&
	    ((ds_child->state != DS_CHILD_RUNNING) ||
	     (ds_child->later == NULL)))
	{
		return;
	}
	tevent_schedule_immediate(ds_child->check,
				  ds_child->sconn->client->raw_ev_ctx,
				  ds_child_check,
				  NULL);
}

static void ds_child_drained(struct tevent_context *ev,
			     struct tevent_timer *te,
			     struct timeval now,
			     void *private_data)
{
	struct smbXsrv_client *client = ds_child->sconn->client;
	struct smbd_smb2_request *req = ds_busy_request(client);
	const char *name = NULL;
	char *reason = NULL;

	TALLOC_FREE(ds_child->drain);

	if (req == NULL) {
		/*
		 * Only a session setup is not finished. It will fail
		 * alone, the sessions that there are go on.
		 */
		ds_child_quiet();
		return;
	}

	name = smb2_opcode_name(SVAL(SMBD_SMB2_IN_HDR_PTR(req),
				     SMB2_HDR_OPCODE));
	reason = talloc_asprintf(talloc_tos(),
				 "%s is not finished within the "
				 "drain timeout",
				 name);
	ds_child_failed(reason != NULL ? reason : name);
	TALLOC_FREE(reason);
}

static void ds_child_freeze(json_t *json)
{
	struct smbXsrv_client *client = ds_child->sconn->client;
	struct smbXsrv_connection *xconn = NULL;
	enum ds_protection protection;
	const char *reason = NULL;

	if (ds_child->state != DS_CHILD_RUNNING) {
		return;
	}
	ds_child->frozen = ds_now();
	ds_child->state = DS_CHILD_FREEZING;

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		if (NT_STATUS_IS_OK(xconn->transport.status) &&
		    !ds_child_may_read(xconn))
		{
			TEVENT_FD_NOT_READABLE(xconn->transport.fde);
		}
	}

	protection = ds_protection(ds_child->sconn, &reason);
	if (protection == DS_UNPROTECTED) {
		/*
		 * It rests as well, in order that it takes nothing away
		 * from those that are being kept.
		 */
		ds_child_failed(reason);
		return;
	}

	ds_child->drain = tevent_add_timer(
		client->raw_ev_ctx,
		ds_child,
		timeval_current_ofs(ds_json_int(json, "timeout"), 0),
		ds_child_drained,
		NULL);
	if (ds_child->drain == NULL) {
		ds_child_failed("out of memory");
		return;
	}
	ds_child_progress(NULL);
}

static void ds_child_thaw(void)
{
	struct smbXsrv_client *client = ds_child->sconn->client;
	struct smbXsrv_connection *xconn = NULL;
	struct smbXsrv_connection *next = NULL;

	TALLOC_FREE(ds_child->drain);
	ds_child->state = DS_CHILD_RUNNING;
	ds_child_progress(NULL);

	for (xconn = client->connections; xconn != NULL; xconn = next) {
		NTSTATUS status;

		next = xconn->next;

		if (!NT_STATUS_IS_OK(xconn->transport.status)) {
			continue;
		}
		if (!ds_connection_is_smb2(xconn)) {
			TEVENT_FD_READABLE(xconn->transport.fde);
			continue;
		}
		status = smbd_smb2_request_next_incoming(xconn);
		if (!NT_STATUS_IS_OK(status)) {
			smbd_server_connection_terminate(xconn,
							 nt_errstr(status));
			continue;
		}
		/* also in the middle of a PDU */
		TEVENT_FD_READABLE(xconn->transport.fde);
	}
}

static void ds_child_take_back(const char *label)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct keeper_conn *keeper = NULL;
	int ret;

	if (ds_save_running() && (ds_save_hold(NULL) == 0)) {
		TALLOC_FREE(frame);
		return;
	}
	ret = keeper_connect(frame,
			     ds_config_directory(frame),
			     "child",
			     DS_KEEPER_TIMEOUT_MS,
			     &keeper);
	if (ret == 0) {
		ret = keeper_drop(keeper, label);
	}
	if ((ret == ENOENT) || (ret == ECONNREFUSED)) {
		/* it is not there any more, and what it had neither */
		ret = 0;
	}
	if (ret != 0) {
		/*
		 * The keeper has the connection too, and may hand it to a
		 * new smbd: two processes must not serve it.
		 */
		DBG_ERR("cannot take back what the keeper holds: %s\n",
			strerror(ret));
		exit_server_cleanly("keeper lost");
	}
	TALLOC_FREE(frame);
}

static NTSTATUS ds_child_hand_over(const char *label)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_capture *cap = NULL;
	struct keeper_conn *keeper = NULL;
	json_t *info = NULL;
	int *fds = NULL;
	NTSTATUS status;
	int ret;

	status = ds_capture_client(
		frame, ds_child->sconn->client, ds_child->frozen, &cap);
	if (!NT_STATUS_IS_OK(status)) {
		DBG_ERR("cannot write down what there is of this client: %s\n",
			nt_errstr(status));
		goto done;
	}

	fds = talloc_array(frame, int, 1 + cap->num_fds);
	info = json_pack("{sI ss ss}",
			 "version", (json_int_t)DS_IMAGE_VERSION,
			 "samba", samba_version_string(),
			 "client", ds_client_name(frame, ds_child->sconn));
	if ((fds == NULL) || (info == NULL)) {
		status = NT_STATUS_NO_MEMORY;
		goto wipe;
	}
	fds[0] = ds_image_fd(cap->image);
	memcpy(&fds[1], cap->fds, cap->num_fds * sizeof(int));

	ret = keeper_connect(frame,
			     ds_config_directory(frame),
			     "child",
			     DS_KEEPER_TIMEOUT_MS,
			     &keeper);
	if (ret == 0) {
		ret = keeper_replace(
			keeper, label, NULL, info, fds, 1 + cap->num_fds);
	}
	if (ret != 0) {
		DBG_ERR("the keeper does not take this client: %s\n",
			(keeper != NULL) ? keeper_error(keeper) :
					   strerror(ret));
		status = map_nt_error_from_unix_common(ret);
		if (keeper != NULL) {
			/* a late answer may mean that it has it all */
			TALLOC_FREE(keeper);
			ds_child_take_back(label);
		}
		goto wipe;
	}
	goto done;
wipe:
	ds_image_wipe(cap->image);
done:
	json_decref(info);
	TALLOC_FREE(frame);
	return status;
}

/*
 * Wait for a packet and nothing else: the image stands, so no event may
 * change what it was made of. False if the parent has ended.
 */
static bool ds_child_wait(char *op, size_t len)
{
	while (true) {
		struct pollfd pfd = { .fd = ds_child->fd, .events = POLLIN, };
		struct keeper_packet *packet = NULL;
		const char *name = NULL;
		int ret;

		ret = poll(&pfd, 1, -1);
		if ((ret == -1) && (errno == EINTR)) {
			/* SIGTERM: the end of the parent decides */
			continue;
		}
		ret = keeper_packet_recv(
			talloc_tos(), ds_child->fd, &packet);
		if (ret == EAGAIN) {
			continue;
		}
		if (ret != 0) {
			return false;
		}
		name = ds_json_string(packet->json, "op");
		strlcpy(op, name != NULL ? name : "", len);
		TALLOC_FREE(packet);
		return true;
	}
}

/*
 * All messages that were sent before this one are done.
 */
static void ds_child_capture(struct messaging_context *msg_ctx,
			     void *private_data,
			     uint32_t msg_type,
			     struct server_id server_id,
			     DATA_BLOB *data)
{
	char label[DS_LABEL_SIZE];
	char op[16];
	NTSTATUS status;

	if (ds_child->state != DS_CHILD_QUIET) {
		return;
	}
	change_to_root_user();
	if (ds_busy_request(ds_child->sconn->client) != NULL) {
		ds_child_failed("a request is being processed again");
		return;
	}

	snprintf(label, sizeof(label), "client-%d", (int)getpid());
	status = ds_child_hand_over(label);
	if (!NT_STATUS_IS_OK(status)) {
		ds_child_failed(nt_errstr(status));
		return;
	}
	ds_child_report("held");

	while (ds_child_wait(op, sizeof(op))) {
		if (strequal(op, "thaw")) {
			ds_child_take_back(label);
			ds_child_thaw();
			return;
		}
		if (strequal(op, "exit")) {
			/* we were too late */
			ds_child_take_back(label);
			exit_server_cleanly("termination signal");
		}
		if (strequal(op, "end")) {
			break;
		}
	}

	/*
	 * Told to end, or the parent has: now the client belongs to the
	 * next smbd. Nothing is closed and nothing is cleaned up here, but
	 * what the kernel does for us.
	 */
	_exit(0);
}

/*
 * Without a parent smbd ends. The next one can go on with what the keeper
 * has, if nothing is taken down here.
 */
static void ds_child_orphan(void)
{
	if (ds_save_running()) {
		_exit(0);
	}
}

static void ds_child_handler(struct tevent_context *ev,
			     struct tevent_fd *fde,
			     uint16_t flags,
			     void *private_data)
{
	struct keeper_packet *packet = NULL;
	const char *op = NULL;
	int ret;

	ret = keeper_packet_recv(ds_child, ds_child->fd, &packet);
	if (ret == EAGAIN) {
		return;
	}
	if (ret != 0) {
		/* the parent has ended; Samba's own pipe tells as well */
		ds_child_orphan();
		TALLOC_FREE(ds_child->fde);
		if (ds_child->term) {
			exit_server_cleanly("termination signal");
		}
		return;
	}

	op = ds_json_string(packet->json, "op");
	if (op == NULL) {
		op = "";
	}
	if (strequal(op, "freeze")) {
		ds_child_freeze(packet->json);
	} else if (strequal(op, "thaw")) {
		ds_child_thaw();
	} else if (strequal(op, "hold")) {
		ds_save_hold_again();
	} else if (strequal(op, "status")) {
		change_to_root_user();
		(void)ds_send(ds_child->fd,
			      json_pack("{ss sI so}",
					"op", "status",
					"number",
					ds_json_int(packet->json, "number"),
					"connection",
					ds_client_status(ds_child->sconn)));
	} else if (strequal(op, "exit")) {
		TALLOC_FREE(packet);
		exit_server_cleanly("termination signal");
	}
	TALLOC_FREE(packet);
}

bool ds_child_stop(struct smbd_server_connection *sconn)
{
	int ret;

	if ((ds_child == NULL) || (ds_child->fde == NULL)) {
		return false;
	}
	/*
	 * systemd and killall send the signal to all processes at once.
	 * Only the parent knows whether all of smbd ends, or this one.
	 */
	ret = ds_send(ds_child->fd, json_pack("{ss}", "op", "term"));
	if ((ret != 0) && (ret != EPIPE) && (ret != ECONNRESET)) {
		return false;
	}
	/* a parent that has ended may have left a word */
	ds_child->term = true;
	return true;
}

static bool ds_child_has(const struct smbXsrv_client *client,
			 const struct smbd_smb2_request *req)
{
	const struct smbXsrv_connection *xconn = NULL;
	const struct smbd_smb2_request *r = NULL;

	for (xconn = client->connections; xconn != NULL; xconn = xconn->next) {
		for (r = xconn->smb2.requests; r != NULL; r = r->next) {
			if (r == req) {
				return true;
			}
		}
	}
	return false;
}

/*
 * All requests that were brought back, in the order in which they came. The
 * end of a connection takes its requests away.
 */
static void ds_child_issue_all(void)
{
	struct smbXsrv_client *client = ds_child->sconn->client;
	struct smbd_smb2_request **requests = ds_requests(ds_child, client);
	/* of the request that ended its connection */
	struct timeval last = timeval_zero();
	size_t i = 0;

	while ((requests != NULL) && (requests[i] != NULL)) {
		struct smbd_smb2_request *req = requests[i];
		NTSTATUS status;

		i += 1;
		if (!ds_child_has(client, req)) {
			/* one before it has brought it to its end */
			continue;
		}
		if (!timeval_is_zero(&last) &&
		    (timeval_compare(&req->request_time, &last) <= 0))
		{
			continue;
		}
		status = ds_child_issue(req);
		if (!NT_STATUS_IS_OK(status)) {
			last = req->request_time;
			smbd_server_connection_terminate(req->xconn,
							 nt_errstr(status));
			TALLOC_FREE(requests);
			requests = ds_requests(ds_child, client);
			i = 0;
		}
	}
	TALLOC_FREE(requests);
}

/*
 * The first thing in the event loop after a restore.
 */
static void ds_child_restored(struct tevent_context *ev,
			      struct tevent_immediate *im,
			      void *private_data)
{
	struct smbXsrv_client *client = ds_child->sconn->client;
	struct smbXsrv_connection *xconn = NULL;
	struct smbXsrv_connection *next = NULL;
	struct ds_restore *restore = ds_child->restore;
	NTTIME pause = ds_now() - restore->old->frozen;
	json_t *lost = json_array();
	json_t *again = json_object();
	json_t *report = NULL;
	size_t i;
	NTSTATUS status;

	for (i = 0; i < ARRAY_SIZE(restore->again); i++) {
		/* "SMB2_OP_CREATE" */
		const char *name = smb2_opcode_name(i) + strlen("SMB2_OP_");

		if (restore->again[i] != 0) {
			json_object_set_new(again,
					    name,
					    json_integer(restore->again[i]));
		}
	}
	/* more than a few would not fit into a packet, nor help anybody */
	for (i = 0; i < MIN(restore->num_lost, DS_LOST_MAX); i++) {
		json_array_append_new(lost, json_string(restore->lost[i]));
	}
	report = json_pack("{ss ss sI so sI so}",
			   "op", "thawed",
			   "client",
			   ds_client_name(talloc_tos(), ds_child->sconn),
			   /* NTTIME counts 100 ns */
			   "pause_ms", (json_int_t)(pause / 10000),
			   "again", again,
			   "num_lost", (json_int_t)restore->num_lost,
			   "lost", lost);
	if (keeper_json_size(report) > KEEPER_PACKET_MAX) {
		/* long names: the number is what must arrive */
		json_array_clear(lost);
	}
	(void)ds_send(ds_child->fd, report);

	/* the process before is not there any more, for anybody */
	ds_resume_forget(restore);

	/*
	 * In the order in which it would have happened: what was answered
	 * goes out, what was asked is done, then new things are read.
	 */
	for (xconn = client->connections; xconn != NULL; xconn = next) {
		next = xconn->next;
		if (!ds_connection_is_smb2(xconn)) {
			continue;
		}
		status = smbd_smb2_flush_send_queue(xconn);
		if (!NT_STATUS_IS_OK(status)) {
			smbd_server_connection_terminate(xconn,
							 nt_errstr(status));
		}
	}
	ds_restore_breaks(restore);
	ds_child_issue_all();

	for (xconn = client->connections; xconn != NULL; xconn = next) {
		const struct ds_resume_channel *rc = ds_resume_find(
			restore->resume, xconn);

		next = xconn->next;
		if ((rc == NULL) || (rc->whole == 0)) {
			continue;
		}
		/* a PDU that had been read, and nothing had been done */
		status = smbd_smb2_advance_incoming(xconn, rc->whole);
		if (!NT_STATUS_IS_OK(status)) {
			smbd_server_connection_terminate(xconn,
							 nt_errstr(status));
		}
	}
	TALLOC_FREE(ds_child->restore);

	ds_child_thaw();
}

static const char *ds_image_reason(int err)
{
	switch (err) {
	case EPROTONOSUPPORT:
		return "its image was written by another version";
	case ENODATA:
		return "its image is not complete";
	case EBADMSG:
		return "its image is damaged";
	default:
		return strerror(err);
	}
}

static const char *ds_child_resume(struct ds_restore *restore,
				   struct ds_held *held)
{
	struct ds_resume *resume = talloc_zero(restore, struct ds_resume);
	int ret;

	if ((resume == NULL) || (held->num_fds < 3)) {
		return "it was not held as it should be";
	}
	/* the image is the first one, sockets are in between */
	ret = ds_buffers_open(
		resume, held->fds[held->num_fds - 1], &resume->buffers);
	if (ret != 0) {
		return ds_image_reason(ret);
	}
	restore->resume = resume;
	return NULL;
}

/*
 * NULL, or why it cannot be brought back
 */
static const char *ds_child_restore(struct smbXsrv_connection *xconn)
{
	struct ds_held *held = ds_child->held;
	struct ds_restore *restore = NULL;
	struct ds_image *image = NULL;
	NTSTATUS status;
	int ret;

	restore = talloc_zero(ds_child, struct ds_restore);
	if (restore == NULL) {
		return "out of memory";
	}
	restore->client = ds_child->sconn->client;
	restore->sconn = ds_child->sconn;
	restore->fds = held->fds + 1;
	restore->num_fds = held->num_fds - 1;
	/* xconn was made of it */
	restore->fds[DS_FIRST_SOCKET] = -1;
	ds_child->restore = restore;

	if (held->live) {
		const char *reason = ds_child_resume(restore, held);

		if (reason != NULL) {
			return reason;
		}
		ret = ds_image_open_live(restore, held->fds[0], &image);
		if (ret == 0) {
			restore->resume->side = ds_image_side(image);
		}
	} else {
		ret = ds_image_open(restore, held->fds[0], &image);
	}
	if (ret != 0) {
		return ds_image_reason(ret);
	}
	status = ds_restore_client(image, restore, xconn);
	if (held->live && NT_STATUS_IS_OK(status)) {
		/* when it was killed, not when the image was begun */
		restore->old->frozen = held->since;
	}
	ds_child->image = image;
	if (NT_STATUS_IS_OK(status)) {
		return NULL;
	}
	return (restore->reason != NULL) ? restore->reason : nt_errstr(status);
}

/*
 * There are keys in it, and files' contents in the buffers.
 */
static void ds_child_forget_image(void)
{
	struct ds_resume *resume = ds_child->restore->resume;

	ds_image_wipe(ds_child->image);
	TALLOC_FREE(ds_child->image);
	if (resume != NULL) {
		ds_buffers_wipe(resume->buffers);
		TALLOC_FREE(resume->buffers);
	}
}

void ds_held_close(struct ds_held *held)
{
	size_t i;

	for (i = 0; (held != NULL) && (i < held->num_fds); i++) {
		if (held->fds[i] != -1) {
			close(held->fds[i]);
			held->fds[i] = -1;
		}
	}
}

/*
 * smbd reads the first packet of a connection without looking at anything
 * else: a client that sends one byte would hold up every restart. SMB2
 * reads with MSG_DONTWAIT, so the limit is for that packet only.
 */
static void ds_first_read_timeout(struct smbXsrv_connection *xconn)
{
	struct timeval tv = { .tv_sec = 2, };
	int ret;

	ret = setsockopt(xconn->transport.sock,
			 SOL_SOCKET,
			 SO_RCVTIMEO,
			 &tv,
			 sizeof(tv));
	if (ret == -1) {
		DBG_NOTICE("SO_RCVTIMEO: %s\n", strerror(errno));
	}
}

void ds_child_start(struct smbd_server_connection *sconn,
		    struct smbXsrv_connection *xconn)
{
	struct tevent_immediate *im = NULL;
	const char *reason = NULL;
	char op[16];
	NTSTATUS status;
	int ret;

	if (ds_child == NULL) {
		/* "smbd -i": no parent */
		return;
	}
	ds_child->sconn = sconn;
	ds_child->check = tevent_create_immediate(ds_child);
	ds_child->fde = tevent_add_fd(sconn->ev_ctx,
				      ds_child,
				      ds_child->fd,
				      TEVENT_FD_READ,
				      ds_child_handler,
				      NULL);
	if ((ds_child->check == NULL) || (ds_child->fde == NULL)) {
		exit_server("talloc failed");
	}
	status = messaging_register(
		sconn->msg_ctx, sconn, MSG_DS_CAPTURE, ds_child_capture);
	if (!NT_STATUS_IS_OK(status)) {
		exit_server("messaging_register failed");
	}

	(void)ds_save_create(sconn);
	if (ds_child->held == NULL) {
		ds_first_read_timeout(xconn);
		return;
	}

	ds_child->state = DS_CHILD_RETURNING;
	reason = ds_child_restore(xconn);
	change_to_root_user();
	if (reason != NULL) {
		ds_child_failed(reason);
		exit_server_cleanly("cannot be restored");
	}

	ds_fault(DS_FAULT_BACK, UINT16_MAX);

	/*
	 * One image gives way to the next in one step: whenever this process
	 * is killed, there is one from which its client can be brought back.
	 */
	ret = ds_save_start(
		sconn, ds_child->restore->resume, ds_child->held->label);
	if (ret != 0) {
		ds_child_take_back(ds_child->held->label);
	}
	ds_child_forget_image();
	ds_held_close(ds_child->held);
	TALLOC_FREE(ds_child->held);

	ds_fault(DS_FAULT_RESTORED, UINT16_MAX);

	/*
	 * Everybody's locks must be back before anybody can ask for one.
	 */
	ds_child_report("restored");
	do {
		if (!ds_child_wait(op, sizeof(op))) {
			ds_child_orphan();
			exit_server_cleanly("the parent has ended");
		}
	} while (!strequal(op, "thaw"));

	/* dispatching wants a running event loop */
	im = tevent_create_immediate(ds_child);
	if (im == NULL) {
		exit_server("talloc failed");
	}
	tevent_schedule_immediate(
		im, sconn->client->raw_ev_ctx, ds_child_restored, NULL);
}
