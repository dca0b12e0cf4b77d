/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: what a watched directory tells

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
#include "torture/durable_state/ds_load.h"

/*
 * The lane's client watches a directory, the next one changes it. Each change
 * must be told, in order and once.
 *
 * After a crash the server may not know what there was and say that the client
 * has to look itself (NT_STATUS_NOTIFY_ENUM_DIR). That is an answer for all
 * that was expected, but what it stands for may be told nevertheless.
 *
 * A name that a killed process has made, without its client having been told,
 * is taken back before the request is run again. The kernel shows that to who
 * watches the directory: then that, and once more the change, may be told.
 */

/* A rename, taken back, done again, and the next operation */
#define DS_NOTIFY_EVENTS 8

struct ds_event {
	uint32_t action;
	const char *name;
};

/* What an operation does, and what takes it back, if it can be */
struct ds_change {
	struct ds_event done[2];
	struct ds_event undone[2];
	size_t num;
	bool can_undo;
};

struct ds_notify {
	char path[64];
	struct ds_client *other;
	struct smb2_handle h;
	struct smb2_request *req;
	/* the file in it, NULL: none */
	const char *name;
	const char *next;
	struct smb2_handle file;
	/* what is expected of the operation under way, and how much was told */
	struct ds_event events[DS_NOTIFY_EVENTS];
	size_t num_events;
	size_t told;
	/* this operation and the one before it */
	struct ds_change now;
	struct ds_change before;
	/* it was answered with STATUS_NOTIFY_ENUM_DIR */
	bool enumerate;
	struct ds_event former[DS_NOTIFY_EVENTS];
};

static struct ds_notify *ds_notify(struct ds_lane *lane)
{
	return talloc_get_type_abort(lane->model, struct ds_notify);
}

static void ds_notify_watch(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);
	struct smb2_notify io = {
		.in.file.handle = n->h,
		.in.buffer_size = 4096,
		.in.completion_filter = FILE_NOTIFY_CHANGE_FILE_NAME,
	};

	n->req = smb2_notify_send(lane->c->tree, &io);
	if (n->req == NULL) {
		ds_lane_fail(lane, "could not be sent");
	}
}

static bool ds_event_is(const struct ds_event *e,
			uint32_t action,
			const char *name)
{
	if (e->name == NULL || !strequal(e->name, name)) {
		return false;
	}
	/* notifyd has it from the kernel, and may read the halves apart */
	switch (e->action) {
	case NOTIFY_ACTION_OLD_NAME:
		return action == NOTIFY_ACTION_OLD_NAME ||
		       action == NOTIFY_ACTION_REMOVED;
	case NOTIFY_ACTION_NEW_NAME:
		return action == NOTIFY_ACTION_NEW_NAME ||
		       action == NOTIFY_ACTION_ADDED;
	}
	return action == e->action;
}

/* In front of what is expected still */
static bool ds_notify_insert(struct ds_notify *n,
			     const struct ds_event *events,
			     size_t num)
{
	size_t rest = n->num_events - n->told;

	if (num + rest > DS_NOTIFY_EVENTS) {
		return false;
	}
	memmove(&n->events[num],
		&n->events[n->told],
		rest * sizeof(n->events[0]));
	memcpy(n->events, events, num * sizeof(n->events[0]));
	n->num_events = num + rest;
	n->told = 0;
	return true;
}

/* Is it the beginning of "taken back and done again"? */
static bool ds_notify_undone(struct ds_notify *n,
			     const struct ds_change *c,
			     uint32_t action,
			     const char *name)
{
	if (!c->can_undo || !ds_event_is(&c->undone[0], action, name)) {
		return false;
	}
	return ds_notify_insert(n, c->done, c->num) &&
	       ds_notify_insert(n, &c->undone[1], c->num - 1);
}

/*
 * This operation does what would take back the last one, and was thought to
 * be told of when that was taken back.
 */
static bool ds_notify_mistaken(struct ds_notify *n,
			       uint32_t action,
			       const char *name)
{
	const struct ds_change *c = &n->before;

	if (!c->can_undo || n->now.num != c->num ||
	    n->now.done[0].action != c->undone[0].action ||
	    !strequal(n->now.done[0].name, c->undone[0].name) ||
	    !ds_event_is(&c->done[0], action, name))
	{
		return false;
	}
	return ds_notify_insert(n, n->now.done, n->now.num) &&
	       ds_notify_insert(n, &c->done[1], c->num - 1);
}

static void ds_notify_told(struct ds_lane *lane,
			   uint32_t action,
			   const char *name)
{
	struct ds_notify *n = ds_notify(lane);
	size_t i;

	if (n->told < n->num_events &&
	    ds_event_is(&n->events[n->told], action, name)) {
		n->told++;
		return;
	}
	for (i = 0; i < DS_NOTIFY_EVENTS; i++) {
		if (ds_event_is(&n->former[i], action, name)) {
			n->former[i].name = NULL;
			return;
		}
	}
	if (ds_notify_undone(n, &n->before, action, name) ||
	    ds_notify_undone(n, &n->now, action, name) ||
	    ds_notify_mistaken(n, action, name))
	{
		lane->load->undone++;
		return;
	}
	ds_lane_fail(lane,
		     "told of action %u of %s, expected %s",
		     action,
		     name,
		     n->told < n->num_events ? n->events[n->told].name
					     : "nothing");
}

static void ds_notify_poll(struct ds_lane *lane)
{
	TALLOC_CTX *frame = NULL;
	struct ds_notify *n = ds_notify(lane);
	struct smb2_notify io = { .out.num_changes = 0 };
	NTSTATUS status;
	uint32_t i;

	if (n->req == NULL || n->req->state <= SMB2_REQUEST_RECV) {
		return;
	}
	frame = talloc_stackframe();
	status = smb2_notify_recv(n->req, frame, &io);
	n->req = NULL;
	if (NT_STATUS_EQUAL(status, NT_STATUS_NOTIFY_ENUM_DIR)) {
		/* and it may have been taken back meanwhile, and done again */
		for (i = 0; i < 2; i++) {
			n->former[i] = n->now.done[i];
			n->former[2 + i] = n->now.undone[i];
			n->former[4 + i] = n->before.done[i];
			n->former[6 + i] = n->before.undone[i];
		}
		n->told = n->num_events;
		lane->load->enumerations++;
	} else if (ds_lane_status(lane, "NOTIFY", status, NT_STATUS_OK)) {
		for (i = 0; i < io.out.num_changes; i++) {
			ds_notify_told(lane,
				       io.out.changes[i].action,
				       io.out.changes[i].name.s);
		}
	}
	if (lane->load->failure == NULL) {
		ds_notify_watch(lane);
	}
	TALLOC_FREE(frame);
}

static bool ds_notify_all_told(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);

	return ds_lane_answered(lane) && n->told == n->num_events;
}

static void ds_notify_expect(struct ds_notify *n,
			     const struct ds_change *change)
{
	n->now = *change;
	memcpy(n->events, change->done, change->num * sizeof(n->events[0]));
	n->num_events = change->num;
}

static const char *ds_notify_file(struct ds_notify *n, const char *name)
{
	return talloc_asprintf(talloc_tos(), "%s\\%s", n->path, name);
}

static const char *ds_notify_any(struct ds_lane *lane)
{
	static const char *names[] = { "one", "two", "three" };

	return names[ds_lane_random(lane, ARRAY_SIZE(names))];
}

static void ds_notify_begin(struct ds_lane *lane,
			    void (*done)(struct ds_lane *lane),
			    const char *op,
			    const char *name)
{
	struct ds_notify *n = ds_notify(lane);

	ds_lane_begin(lane,
		      done,
		      "client %u does %s %s\\%s",
		      (lane->client + 1) % lane->load->num_clients,
		      op,
		      n->path,
		      name);
	lane->ready = ds_notify_all_told;
	n->num_events = 0;
	n->told = 0;
	if (n->now.num != 0) {
		n->before = n->now;
	}
	n->now.num = 0;
}

static void ds_notify_create_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_notify *n = ds_notify(lane);
	struct smb2_create io;
	NTSTATUS status;

	status = smb2_create_recv(ds_lane_take(lane, 0), frame, &io);
	if (ds_lane_status(lane, "CREATE", status, NT_STATUS_OK) &&
	    ds_lane_u64(lane,
			"create action",
			io.out.create_action,
			NTCREATEX_ACTION_CREATED)) {
		n->file = io.out.file.handle;
		n->name = n->next;
	}
	TALLOC_FREE(frame);
}

static bool ds_notify_create(struct ds_lane *lane)
{
	TALLOC_CTX *frame = NULL;
	struct ds_notify *n = ds_notify(lane);
	struct smb2_create io;

	if (n->name != NULL) {
		return false;
	}
	frame = talloc_stackframe();
	n->next = ds_notify_any(lane);
	smb2_generic_create_share(&io,
				  NULL,
				  false,
				  ds_notify_file(n, n->next),
				  NTCREATEX_DISP_CREATE,
				  smb2_util_share_access("RWD"),
				  SMB2_OPLOCK_LEVEL_NONE,
				  0,
				  0);
	ds_notify_begin(lane, ds_notify_create_done, "create", n->next);
	ds_notify_expect(n, &(struct ds_change) {
		.done[0] = { NOTIFY_ACTION_ADDED, n->next },
		.undone[0] = { NOTIFY_ACTION_REMOVED, n->next },
		.num = 1,
		.can_undo = true,
	});
	ds_lane_add(lane, smb2_create_send(n->other->tree, &io));
	TALLOC_FREE(frame);
	return true;
}

static void ds_notify_rename_done(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);
	NTSTATUS status = smb2_setinfo_recv(ds_lane_take(lane, 0));

	if (ds_lane_status(lane, "SET_INFO", status, NT_STATUS_OK)) {
		n->name = n->next;
	}
}

static bool ds_notify_rename(struct ds_lane *lane)
{
	TALLOC_CTX *frame = NULL;
	struct ds_notify *n = ds_notify(lane);
	union smb_setfileinfo io = {
		.generic.level = RAW_SFILEINFO_RENAME_INFORMATION,
		.generic.in.file.handle = n->file,
	};

	n->next = ds_notify_any(lane);
	if (n->name == NULL || n->name == n->next) {
		return false;
	}
	frame = talloc_stackframe();
	io.rename_information.in.new_name = ds_notify_file(n, n->next);
	ds_notify_begin(lane, ds_notify_rename_done, "rename to", n->next);
	ds_notify_expect(n, &(struct ds_change) {
		.done[0] = { NOTIFY_ACTION_OLD_NAME, n->name },
		.done[1] = { NOTIFY_ACTION_NEW_NAME, n->next },
		.undone[0] = { NOTIFY_ACTION_OLD_NAME, n->next },
		.undone[1] = { NOTIFY_ACTION_NEW_NAME, n->name },
		.num = 2,
		.can_undo = true,
	});
	ds_lane_add(lane, smb2_setinfo_file_send(n->other->tree, &io));
	TALLOC_FREE(frame);
	return true;
}

static void ds_notify_close_done(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);
	struct smb2_close io;
	NTSTATUS status = smb2_close_recv(ds_lane_take(lane, 0), &io);

	if (ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
		n->name = NULL;
	}
}

static void ds_notify_marked(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);
	NTSTATUS status = smb2_setinfo_recv(ds_lane_take(lane, 0));
	struct smb2_close io = { .in.file.handle = n->file };

	if (!ds_lane_status(lane, "SET_INFO", status, NT_STATUS_OK)) {
		return;
	}
	ds_notify_begin(lane, ds_notify_close_done, "close", n->name);
	ds_notify_expect(n, &(struct ds_change) {
		.done[0] = { NOTIFY_ACTION_REMOVED, n->name },
		.num = 1,
	});
	ds_lane_add(lane, smb2_close_send(n->other->tree, &io));
}

static bool ds_notify_delete(struct ds_lane *lane)
{
	struct ds_notify *n = ds_notify(lane);
	union smb_setfileinfo io = {
		.disposition_info.level =
			RAW_SFILEINFO_DISPOSITION_INFORMATION,
		.disposition_info.in.file.handle = n->file,
		.disposition_info.in.delete_on_close = 1,
	};

	if (n->name == NULL) {
		return false;
	}
	ds_notify_begin(lane, ds_notify_marked, "delete", n->name);
	ds_lane_add(lane, smb2_setinfo_file_send(n->other->tree, &io));
	return true;
}

static bool ds_notify_setup(struct ds_lane *lane)
{
	struct ds_notify *n = talloc_zero(lane, struct ds_notify);
	struct ds_load *load = lane->load;
	NTSTATUS status;

	lane->model = n;
	n->other = load->clients[(lane->client + 1) % load->num_clients];
	snprintf(n->path,
		 sizeof(n->path),
		 DS_LOAD_DIR "\\watched%u",
		 lane->client);
	status = smb2_util_mkdir(lane->c->tree, n->path);
	if (!ds_lane_status(lane, "mkdir", status, NT_STATUS_OK)) {
		return false;
	}
	status = ds_open(lane->c,
			 n->path,
			 SEC_RIGHTS_DIR_READ,
			 NTCREATEX_SHARE_ACCESS_MASK,
			 NTCREATEX_DISP_OPEN,
			 NTCREATEX_OPTIONS_DIRECTORY,
			 &n->h);
	if (!ds_lane_status(lane, "CREATE", status, NT_STATUS_OK)) {
		return false;
	}
	ds_notify_watch(lane);
	/* notifyd is told of it by a message, nobody says when it was read */
	ds_loop(load->tctx, 100);
	return true;
}

/* Nothing is waiting to be told; the watch ends with its handle. */
static bool ds_notify_verify(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_notify *n = ds_notify(lane);
	struct smb2_notify io;
	bool ok = false;
	NTSTATUS status;

	if (n->name != NULL) {
		status = smb2_util_close(n->other->tree, n->file);
		if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
			goto done;
		}
	}
	if (n->req->state > SMB2_REQUEST_RECV) {
		ds_lane_fail(lane, "the watch was answered");
		goto done;
	}
	status = smb2_util_close(lane->c->tree, n->h);
	if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
		goto done;
	}
	if (!ds_wait_req(lane->load->tctx, n->req, DS_WAIT_MSEC)) {
		ds_lane_fail(lane, "the watch did not end with its handle");
		goto done;
	}
	status = smb2_notify_recv(n->req, frame, &io);
	if (!ds_lane_status(lane, "NOTIFY", status, NT_STATUS_NOTIFY_CLEANUP)) {
		goto done;
	}
	if (n->name != NULL) {
		status = smb2_util_unlink(n->other->tree,
					  ds_notify_file(n, n->name));
		if (!ds_lane_status(lane, "unlink", status, NT_STATUS_OK)) {
			goto done;
		}
	}
	status = smb2_util_rmdir(lane->c->tree, n->path);
	ok = ds_lane_status(lane, "rmdir", status, NT_STATUS_OK);
done:
	TALLOC_FREE(frame);
	return ok;
}

static const struct ds_load_op ds_notify_ops[] = {
	{ "notifycreate", 2, ds_notify_create },
	{ "notifyrename", 2, ds_notify_rename },
	{ "notifydelete", 1, ds_notify_delete },
	{ .weight = 0 },
};

const struct ds_lane_kind ds_notify_kind = {
	.name = "notify",
	.pause_msec = 20,
	.setup = ds_notify_setup,
	.verify = ds_notify_verify,
	.ops = ds_notify_ops,
	.poll = ds_notify_poll,
};
