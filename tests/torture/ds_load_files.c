/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state-load: names and bytes

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
#include "librpc/gen_ndr/ndr_ioctl.h"
#include "torture/durable_state/ds_load.h"

/*
 * Each lane has a directory. Nobody else looks into it, so the model is exact
 * all the time: what names there are, which file each is of, and its bytes.
 */

#define DS_FILES_HANDLES 4
#define DS_FILES_NAMES 8
/* Of all models together; decides how large files become */
#define DS_FILES_MEMORY (512 * 1024 * 1024)

#define DS_FILES_ACCESS \
	(SEC_RIGHTS_FILE_READ | SEC_RIGHTS_FILE_WRITE | SEC_STD_DELETE)

struct ds_file {
	uint8_t *data;
	uint64_t size;
	unsigned links;
	unsigned opens;
	/* it is deleted when the last handle is closed; then links is 1 */
	bool pending;
	/* 0: opened without a lease, by all */
	uint64_t key;
	/* 0: it is not known */
	NTTIME write_time;
	/* by a handle that is still open: its close may set the write time */
	bool touched;
};

struct ds_name {
	char name[16];
	struct ds_file *file;
};

struct ds_handle {
	struct smb2_handle h;
	struct ds_file *file;
	/* for FSCTL_SRV_COPYCHUNK */
	bool has_resume_key;
	uint8_t resume_key[24];
};

struct ds_span {
	uint64_t ofs;
	uint32_t len;
	uint8_t *data;
};

struct ds_files {
	char path[64];
	struct smb2_handle dir;
	uint64_t max_size;
	unsigned num_names;
	struct ds_name names[DS_FILES_NAMES];
	struct ds_handle handles[DS_FILES_HANDLES];

	/* of the operation under way */
	struct ds_name *name;
	struct ds_name *target;
	struct ds_handle *handle;
	struct ds_handle *source;
	NTSTATUS wanted;
	uint32_t action;
	uint32_t disposition;
	uint64_t key;
	uint64_t value;
	NTTIME time;
	struct ds_span spans[DS_LANE_REQS];
	size_t num_spans;
	struct smb2_lease lease;
	/* how often a scan has found each name */
	unsigned seen[DS_FILES_NAMES];
	unsigned dots;
	uint32_t scan_size;
};

static struct ds_files *ds_files(struct ds_lane *lane)
{
	return talloc_get_type_abort(lane->model, struct ds_files);
}

/*
 * The model
 */

static const char *ds_files_path(struct ds_files *f, struct ds_name *n)
{
	return talloc_asprintf(talloc_tos(), "%s\\%s", f->path, n->name);
}

static struct ds_name *ds_files_any_name(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	return &f->names[ds_lane_random(lane, f->num_names)];
}

static struct ds_handle *ds_files_any_handle(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h =
		&f->handles[ds_lane_random(lane, DS_FILES_HANDLES)];

	return h->file == NULL ? NULL : h;
}

static struct ds_handle *ds_files_free_handle(struct ds_files *f)
{
	unsigned i;

	for (i = 0; i < DS_FILES_HANDLES; i++) {
		if (f->handles[i].file == NULL) {
			return &f->handles[i];
		}
	}
	return NULL;
}

static struct ds_name *ds_files_name_of(struct ds_files *f,
					struct ds_file *file)
{
	unsigned i;

	for (i = 0; i < f->num_names; i++) {
		if (f->names[i].file == file) {
			return &f->names[i];
		}
	}
	return NULL;
}

static const char *ds_files_label(struct ds_files *f, struct ds_handle *h)
{
	return ds_files_name_of(f, h->file)->name;
}

static void ds_files_new(struct ds_files *f, struct ds_name *n, uint64_t key)
{
	n->file = talloc_zero(f, struct ds_file);
	n->file->links = 1;
	n->file->key = key;
}

static void ds_files_unlink(struct ds_name *n)
{
	struct ds_file *file = n->file;

	n->file = NULL;
	file->links--;
	if (file->links == 0) {
		talloc_free(file);
	}
}

static void ds_files_touch(struct ds_file *file)
{
	file->write_time = 0;
	file->touched = true;
}

static void ds_files_resize(struct ds_file *file, uint64_t size)
{
	file->data = talloc_realloc(file, file->data, uint8_t, MAX(size, 1));
	if (size > file->size) {
		memset(file->data + file->size, 0, size - file->size);
	}
	file->size = size;
	ds_files_touch(file);
}

static void ds_files_store(struct ds_file *file,
			   uint64_t ofs,
			   const uint8_t *data,
			   size_t len)
{
	if (ofs + len > file->size) {
		ds_files_resize(file, ofs + len);
	}
	memcpy(file->data + ofs, data, len);
	ds_files_touch(file);
}

static void ds_files_closed(struct ds_files *f, struct ds_handle *h)
{
	struct ds_file *file = h->file;

	*h = (struct ds_handle) { .file = NULL };
	file->opens--;
	if (file->opens > 0) {
		return;
	}
	file->touched = false;
	if (file->pending) {
		ds_files_unlink(ds_files_name_of(f, file));
	}
}

/*
 * CREATE
 */

static bool ds_files_wants_lease(struct ds_lane *lane)
{
	bool v2;

	return !ds_load_avoids(lane->load, "filelease") &&
	       ds_load_has_leases(lane->c, &v2) &&
	       ds_lane_random(lane, 2) == 0;
}

static void ds_files_create_io(struct ds_lane *lane,
			       struct ds_name *n,
			       uint32_t disposition,
			       uint32_t options,
			       uint64_t key,
			       struct smb2_create *io)
{
	struct ds_files *f = ds_files(lane);
	bool v2 = false;

	*io = (struct smb2_create) {
		.in.fname = ds_files_path(f, n),
		.in.desired_access = DS_FILES_ACCESS,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = disposition,
		.in.create_options = NTCREATEX_OPTIONS_NON_DIRECTORY_FILE |
				     options,
		.in.file_attributes = FILE_ATTRIBUTE_NORMAL,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	if (key == 0) {
		return;
	}
	f->lease = (struct smb2_lease) {
		.lease_key.data = { key, ~key },
		.lease_state = smb2_util_lease_state("RWH"),
	};
	io->in.oplock_level = SMB2_OPLOCK_LEVEL_LEASE;
	ds_load_has_leases(lane->c, &v2);
	if (v2) {
		io->in.lease_request_v2 = &f->lease;
	} else {
		io->in.lease_request = &f->lease;
	}
}

static NTSTATUS ds_files_create_wanted(struct ds_name *n,
				       uint32_t disposition,
				       uint32_t *action)
{
	bool there = n->file != NULL;

	switch (disposition) {
	case NTCREATEX_DISP_CREATE:
		if (there) {
			return NT_STATUS_OBJECT_NAME_COLLISION;
		}
		break;
	case NTCREATEX_DISP_OPEN:
	case NTCREATEX_DISP_OVERWRITE:
		if (!there) {
			return NT_STATUS_OBJECT_NAME_NOT_FOUND;
		}
		break;
	}
	if (!there) {
		*action = NTCREATEX_ACTION_CREATED;
		return NT_STATUS_OK;
	}
	if (n->file->pending) {
		return NT_STATUS_DELETE_PENDING;
	}
	switch (disposition) {
	case NTCREATEX_DISP_SUPERSEDE:
		*action = FILE_WAS_SUPERSEDED;
		break;
	case NTCREATEX_DISP_OVERWRITE:
	case NTCREATEX_DISP_OVERWRITE_IF:
		*action = NTCREATEX_ACTION_TRUNCATED;
		break;
	default:
		*action = NTCREATEX_ACTION_EXISTED;
		break;
	}
	return NT_STATUS_OK;
}

static bool ds_files_created(struct ds_lane *lane,
			     const struct smb2_create *io)
{
	struct ds_files *f = ds_files(lane);
	const struct smb2_lease *got = &io->out.lease_response;
	bool v2;

	if (!ds_lane_u64(lane,
			 "create action",
			 io->out.create_action,
			 f->action)) {
		return false;
	}
	if (f->name->file == NULL) {
		ds_files_new(f, f->name, f->key);
	} else if (f->action != NTCREATEX_ACTION_EXISTED) {
		ds_files_resize(f->name->file, 0);
	}
	if (!ds_lane_u64(lane, "size", io->out.size, f->name->file->size)) {
		return false;
	}
	if (f->key == 0) {
		return true;
	}
	ds_load_has_leases(lane->c, &v2);
	if (v2) {
		got = &io->out.lease_response_v2;
	}
	return ds_lane_u64(lane,
			   "lease key",
			   got->lease_key.data[0],
			   f->key) &&
	       ds_lane_u64(lane,
			   "lease state",
			   got->lease_state,
			   smb2_util_lease_state("RWH"));
}

static void ds_files_create_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct smb2_create io;
	NTSTATUS status;

	status = smb2_create_recv(ds_lane_take(lane, 0), frame, &io);
	if (!ds_lane_status(lane, "CREATE", status, f->wanted)) {
		goto done;
	}
	if (NT_STATUS_IS_OK(status) && ds_files_created(lane, &io)) {
		f->handle->h = io.out.file.handle;
		f->handle->file = f->name->file;
		f->handle->file->opens++;
	}
done:
	TALLOC_FREE(frame);
}

static bool ds_files_create_as(struct ds_lane *lane,
			       const char *label,
			       uint32_t disposition)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct smb2_create io;

	f->name = ds_files_any_name(lane);
	f->handle = ds_files_free_handle(f);
	if (f->handle == NULL) {
		TALLOC_FREE(frame);
		return false;
	}
	f->wanted = ds_files_create_wanted(f->name, disposition, &f->action);
	if (f->name->file != NULL) {
		f->key = f->name->file->key;
	} else {
		f->key = ds_files_wants_lease(lane) ? ds_load_key(lane->load)
						    : 0;
	}
	ds_files_create_io(lane, f->name, disposition, 0, f->key, &io);
	ds_lane_begin(lane,
		      ds_files_create_done,
		      "create %s %s%s",
		      io.in.fname,
		      label,
		      f->key != 0 ? " with a lease" : "");
	ds_lane_add(lane, smb2_create_send(lane->c->tree, &io));
	TALLOC_FREE(frame);
	return true;
}

static bool ds_files_open(struct ds_lane *lane)
{
	return ds_files_create_as(lane, "OPEN", NTCREATEX_DISP_OPEN);
}

static bool ds_files_create(struct ds_lane *lane)
{
	static const struct {
		uint32_t disposition;
		const char *name;
	} dispositions[] = {
		{ NTCREATEX_DISP_CREATE, "CREATE" },
		{ NTCREATEX_DISP_OPEN_IF, "OPEN_IF" },
		{ NTCREATEX_DISP_OVERWRITE, "OVERWRITE" },
		{ NTCREATEX_DISP_OVERWRITE_IF, "OVERWRITE_IF" },
		{ NTCREATEX_DISP_SUPERSEDE, "SUPERSEDE" },
	};
	/* what was written is wanted for a while */
	unsigned num = ds_lane_random(lane, 3) == 0 ? ARRAY_SIZE(dispositions)
						    : 2;
	unsigned d = ds_lane_random(lane, num);

	return ds_files_create_as(lane,
				  dispositions[d].name,
				  dispositions[d].disposition);
}

/*
 * CLOSE
 */

static bool ds_files_check_close(struct ds_lane *lane,
				 const struct smb2_close *io,
				 uint64_t size)
{
	if (!(io->out.flags & SMB2_CLOSE_FLAGS_FULL_INFORMATION)) {
		return true;
	}
	return ds_lane_u64(lane, "size at the close", io->out.size, size);
}

static void ds_files_close_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct smb2_close io = { .out.flags = 0 };
	NTSTATUS status = smb2_close_recv(ds_lane_take(lane, 0), &io);

	if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK) ||
	    !ds_files_check_close(lane, &io, f->handle->file->size)) {
		return;
	}
	ds_files_closed(f, f->handle);
}

static bool ds_files_close(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct smb2_close io = {
		.in.flags = ds_lane_random(lane, 2) == 0
				    ? SMB2_CLOSE_FLAGS_FULL_INFORMATION
				    : 0,
	};

	f->handle = ds_files_any_handle(lane);
	if (f->handle == NULL) {
		return false;
	}
	io.in.file.handle = f->handle->h;
	ds_lane_begin(lane,
		      ds_files_close_done,
		      "close %s%s",
		      ds_files_label(f, f->handle),
		      f->handle->file->pending ? " (to be deleted)" : "");
	ds_lane_add(lane, smb2_close_send(lane->c->tree, &io));
	return true;
}

/*
 * READ, WRITE
 */

/* Up to so many spans, none touches another; false without credits. */
static bool ds_files_spans(struct ds_lane *lane, uint64_t ofs, uint64_t end)
{
	struct ds_files *f = ds_files(lane);
	size_t num = 1 + ds_lane_random(lane, DS_LANE_REQS);
	size_t all = 0;

	f->num_spans = 0;
	while (f->num_spans < num && ofs < end) {
		uint32_t len = 1 + ds_lane_random(lane, lane->load->io);

		/* most applications use one size */
		if (ds_lane_random(lane, 2) == 0) {
			len = lane->load->io;
		}
		len = MIN(len, end - ofs);
		f->spans[f->num_spans++] = (struct ds_span) {
			.ofs = ofs,
			.len = len,
		};
		ofs += len;
		all += len;
	}
	return f->num_spans > 0 && ds_lane_credits(lane, all);
}

static uint64_t ds_files_spans_end(struct ds_files *f)
{
	const struct ds_span *last = &f->spans[f->num_spans - 1];

	return last->ofs + last->len;
}

static void ds_files_write_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	size_t i;

	for (i = 0; i < f->num_spans; i++) {
		struct ds_span *s = &f->spans[i];
		struct smb2_write io = { .out.nwritten = 0 };
		NTSTATUS status = smb2_write_recv(ds_lane_take(lane, i), &io);

		if (!ds_lane_status(lane, "WRITE", status, NT_STATUS_OK) ||
		    !ds_lane_u64(lane, "written", io.out.nwritten, s->len)) {
			return;
		}
		ds_files_store(f->handle->file, s->ofs, s->data, s->len);
		TALLOC_FREE(s->data);
	}
}

static bool ds_files_write_at(struct ds_lane *lane,
			      const char *op,
			      struct ds_handle *h,
			      uint64_t ofs)
{
	struct ds_files *f = ds_files(lane);
	size_t i;

	if (!ds_files_spans(lane, ofs, f->max_size)) {
		return false;
	}
	f->handle = h;
	ds_lane_begin(lane,
		      ds_files_write_done,
		      "%s %s from %" PRIu64 " to %" PRIu64 " in %zu requests",
		      op,
		      ds_files_label(f, h),
		      ofs,
		      ds_files_spans_end(f),
		      f->num_spans);
	for (i = 0; i < f->num_spans; i++) {
		struct ds_span *s = &f->spans[i];
		struct smb2_write io = {
			.in.file.handle = h->h,
			.in.offset = s->ofs,
		};

		s->data = talloc_array(f, uint8_t, s->len);
		ds_fill(s->data, s->len, ds_lane_random(lane, UINT32_MAX));
		io.in.data = data_blob_const(s->data, s->len);
		ds_lane_add(lane, smb2_write_send(lane->c->tree, &io));
	}
	return true;
}

static bool ds_files_write(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint64_t end;

	if (h == NULL) {
		return false;
	}
	/* sometimes behind the end: what is between is zeros */
	end = MIN(h->file->size + 10000, f->max_size);
	return ds_files_write_at(lane, "write", h, ds_lane_random(lane, end));
}

static bool ds_files_append(struct ds_lane *lane)
{
	struct ds_handle *h = ds_files_any_handle(lane);

	if (h == NULL) {
		return false;
	}
	return ds_files_write_at(lane, "append to", h, h->file->size);
}

static void ds_files_read_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct ds_file *file = f->handle->file;
	size_t i;

	for (i = 0; i < f->num_spans; i++) {
		struct ds_span *s = &f->spans[i];
		struct smb2_read io = { .out.data = { .length = 0 } };
		NTSTATUS wanted = s->ofs < file->size ? NT_STATUS_OK
						      : NT_STATUS_END_OF_FILE;
		uint64_t len = 0;
		NTSTATUS status;

		status = smb2_read_recv(ds_lane_take(lane, i), frame, &io);
		if (!ds_lane_status(lane, "READ", status, wanted)) {
			break;
		}
		if (!NT_STATUS_IS_OK(status)) {
			continue;
		}
		len = MIN(s->len, file->size - s->ofs);
		if (!ds_lane_u64(lane, "read", io.out.data.length, len) ||
		    !ds_lane_bytes(lane,
				   s->ofs,
				   io.out.data.data,
				   file->data + s->ofs,
				   len)) {
			break;
		}
	}
	TALLOC_FREE(frame);
}

static bool ds_files_read(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint64_t ofs;
	size_t i;

	if (h == NULL) {
		return false;
	}
	/* sometimes at the end, or behind it */
	ofs = ds_lane_random(lane, h->file->size + 100);
	if (!ds_files_spans(lane, ofs, f->max_size)) {
		return false;
	}
	f->handle = h;
	ds_lane_begin(lane,
		      ds_files_read_done,
		      "read %s from %" PRIu64 " to %" PRIu64
		      " in %zu requests, size %" PRIu64,
		      ds_files_label(f, h),
		      ofs,
		      ds_files_spans_end(f),
		      f->num_spans,
		      h->file->size);
	for (i = 0; i < f->num_spans; i++) {
		struct smb2_read io = {
			.in.file.handle = h->h,
			.in.offset = f->spans[i].ofs,
			.in.length = f->spans[i].len,
		};

		ds_lane_add(lane, smb2_read_send(lane->c->tree, &io));
	}
	return true;
}

static void ds_files_flush_done(struct ds_lane *lane)
{
	struct smb2_flush io;
	NTSTATUS status = smb2_flush_recv(ds_lane_take(lane, 0), &io);

	ds_lane_status(lane, "FLUSH", status, NT_STATUS_OK);
}

static bool ds_files_flush(struct ds_lane *lane)
{
	struct ds_handle *h = ds_files_any_handle(lane);
	struct smb2_flush io = { .in.reserved1 = 0 };

	if (h == NULL) {
		return false;
	}
	io.in.file.handle = h->h;
	ds_lane_begin(lane,
		      ds_files_flush_done,
		      "flush %s",
		      ds_files_label(ds_files(lane), h));
	ds_lane_add(lane, smb2_flush_send(lane->c->tree, &io));
	return true;
}

/*
 * SET_INFO
 */

static void ds_files_setinfo_send(struct ds_lane *lane,
				  enum smb_setfileinfo_level level,
				  DATA_BLOB blob)
{
	struct smb2_setinfo io = {
		.in.level = smb2_getinfo_map_level(level, SMB2_0_INFO_FILE),
		.in.file.handle = ds_files(lane)->handle->h,
		.in.blob = blob,
	};

	ds_lane_add(lane, smb2_setinfo_send(lane->c->tree, &io));
}

static bool ds_files_setinfo_ok(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	NTSTATUS status = smb2_setinfo_recv(ds_lane_take(lane, 0));

	return ds_lane_status(lane, "SET_INFO", status, f->wanted) &&
	       NT_STATUS_IS_OK(status);
}

/* FileRenameInformation and FileLinkInformation are the same on the wire. */
static void ds_files_send_name(struct ds_lane *lane,
			       enum smb_setfileinfo_level level,
			       struct ds_name *n,
			       bool replace)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	DATA_BLOB blob;
	size_t len;
	uint8_t *name = NULL;
	const char *path = ds_files_path(f, n);

	if (!convert_string_talloc(frame,
				   CH_UNIX,
				   CH_UTF16,
				   path,
				   strlen(path),
				   &name,
				   &len)) {
		ds_lane_fail(lane, "no UTF-16");
		goto done;
	}
	blob = data_blob_talloc_zero(frame, 20 + len);
	SCVAL(blob.data, 0, replace ? 1 : 0);
	SIVAL(blob.data, 16, len);
	memcpy(blob.data + 20, name, len);
	ds_files_setinfo_send(lane, level, blob);
done:
	TALLOC_FREE(frame);
}

static void ds_files_rename_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (!ds_files_setinfo_ok(lane)) {
		return;
	}
	if (f->target->file != NULL) {
		ds_files_unlink(f->target);
	}
	f->target->file = f->name->file;
	f->name->file = NULL;
}

static bool ds_files_rename(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	bool replace = ds_lane_random(lane, 2) == 0;
	struct ds_file *file = NULL;

	/* with another link its open handles have two names */
	if (h == NULL || h->file->pending || h->file->links > 1) {
		return false;
	}
	f->handle = h;
	f->name = ds_files_name_of(f, h->file);
	f->target = ds_files_any_name(lane);
	file = f->target->file;
	/* an attempt at an open file takes H from its lease */
	if (f->target == f->name ||
	    (file != NULL && file->opens > 0 && file->key != 0)) {
		return false;
	}
	f->wanted = NT_STATUS_OK;
	if (file != NULL && !replace) {
		f->wanted = NT_STATUS_OBJECT_NAME_COLLISION;
	} else if (file != NULL && file->pending) {
		f->wanted = NT_STATUS_DELETE_PENDING;
	} else if (file != NULL && file->opens > 0) {
		f->wanted = NT_STATUS_ACCESS_DENIED;
	}
	ds_lane_begin(lane,
		      ds_files_rename_done,
		      "rename %s to %s, %s, %u handles%s",
		      f->name->name,
		      f->target->name,
		      replace ? "replace" : "do not replace",
		      h->file->opens,
		      file == NULL	? ""
		      : file->opens > 0 ? ", which is open"
					: ", which exists");
	ds_files_send_name(lane,
			   RAW_SFILEINFO_RENAME_INFORMATION,
			   f->target,
			   replace);
	return true;
}

static void ds_files_link_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (!ds_files_setinfo_ok(lane)) {
		return;
	}
	f->target->file = f->handle->file;
	f->target->file->links++;
}

static bool ds_files_link(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);

	/* a lease is of one name */
	if (h == NULL || h->file->pending || h->file->links > 1 ||
	    h->file->key != 0) {
		return false;
	}
	f->handle = h;
	f->target = ds_files_any_name(lane);
	if (f->target->file != NULL && f->target->file->pending) {
		return false;
	}
	f->wanted = f->target->file != NULL ? NT_STATUS_OBJECT_NAME_COLLISION
					    : NT_STATUS_OK;
	ds_lane_begin(lane,
		      ds_files_link_done,
		      "link %s to %s%s",
		      f->target->name,
		      ds_files_label(f, h),
		      f->target->file != NULL ? ", which exists" : "");
	ds_files_send_name(lane,
			   RAW_SFILEINFO_LINK_INFORMATION,
			   f->target,
			   false);
	return true;
}

static void ds_files_delete_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (ds_files_setinfo_ok(lane)) {
		f->handle->file->pending = f->value != 0;
	}
}

/* Marks a file as to be deleted, or takes that back. */
static bool ds_files_delete(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint8_t b;

	if (h == NULL || h->file->links > 1) {
		return false;
	}
	f->handle = h;
	f->value = ds_lane_random(lane, 4) != 0;
	f->wanted = NT_STATUS_OK;
	ds_lane_begin(lane,
		      ds_files_delete_done,
		      "%s %s at the last of %u closes",
		      f->value != 0 ? "delete" : "do not delete",
		      ds_files_label(f, h),
		      h->file->opens);
	b = f->value;
	ds_files_setinfo_send(
		lane,
		RAW_SFILEINFO_DISPOSITION_INFORMATION,
		data_blob_const(&b, 1));
	return true;
}

static void ds_files_eof_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (ds_files_setinfo_ok(lane)) {
		ds_files_resize(f->handle->file, f->value);
	}
}

static bool ds_files_eof(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint8_t b[8];

	if (h == NULL) {
		return false;
	}
	f->handle = h;
	f->value = ds_lane_random(lane, f->max_size + 1);
	f->wanted = NT_STATUS_OK;
	ds_lane_begin(lane,
		      ds_files_eof_done,
		      "end of %s from %" PRIu64 " to %" PRIu64,
		      ds_files_label(f, h),
		      h->file->size,
		      f->value);
	SBVAL(b, 0, f->value);
	ds_files_setinfo_send(
		lane,
		RAW_SFILEINFO_END_OF_FILE_INFORMATION,
		data_blob_const(b, sizeof(b)));
	return true;
}

static void ds_files_allocation_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (ds_files_setinfo_ok(lane)) {
		ds_files_touch(f->handle->file);
	}
}

/* More than the size: a smaller one truncates after some rounding. */
static bool ds_files_allocation(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint8_t b[8];

	if (h == NULL) {
		return false;
	}
	f->handle = h;
	f->value = h->file->size + ds_lane_random(lane, f->max_size);
	f->wanted = NT_STATUS_OK;
	ds_lane_begin(lane,
		      ds_files_allocation_done,
		      "allocation of %s to %" PRIu64 ", size %" PRIu64,
		      ds_files_label(f, h),
		      f->value,
		      h->file->size);
	SBVAL(b, 0, f->value);
	ds_files_setinfo_send(
		lane,
		RAW_SFILEINFO_ALLOCATION_INFORMATION,
		data_blob_const(b, sizeof(b)));
	return true;
}

static void ds_files_times_done(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	if (ds_files_setinfo_ok(lane) && !f->handle->file->touched) {
		f->handle->file->write_time = f->time;
	}
}

static bool ds_files_times(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	uint8_t b[40] = { 0 };

	if (h == NULL) {
		return false;
	}
	f->handle = h;
	f->wanted = NT_STATUS_OK;
	/* years ago; whole seconds, for the file system's sake */
	unix_to_nt_time(&f->time,
			1000000000 + ds_lane_random(lane, 500000000));
	ds_lane_begin(lane,
		      ds_files_times_done,
		      "write time of %s to %" PRIu64,
		      ds_files_label(f, h),
		      f->time);
	SBVAL(b, 16, f->time);
	ds_files_setinfo_send(lane,
			      RAW_SFILEINFO_BASIC_INFORMATION,
			      data_blob_const(b, sizeof(b)));
	return true;
}

/*
 * QUERY_INFO
 */

static bool ds_files_check_info(struct ds_lane *lane,
				const union smb_fileinfo *io,
				struct ds_file *file)
{
	const typeof(io->all_info2.out) *info = &io->all_info2.out;

	return ds_lane_u64(lane, "size", info->size, file->size) &&
	       ds_lane_u64(lane,
			   "delete pending",
			   info->delete_pending,
			   file->pending) &&
	       ds_lane_u64(lane,
			   "links",
			   info->nlink,
			   file->links - file->pending) &&
	       (file->write_time == 0 || ds_lane_u64(lane,
						     "write time",
						     info->write_time,
						     file->write_time));
}

static void ds_files_getinfo_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	union smb_fileinfo io = {
		.generic.level = RAW_FILEINFO_SMB2_ALL_INFORMATION,
	};
	NTSTATUS status;

	status = smb2_getinfo_file_recv(ds_lane_take(lane, 0), frame, &io);
	if (ds_lane_status(lane, "QUERY_INFO", status, NT_STATUS_OK)) {
		ds_files_check_info(lane, &io, f->handle->file);
	}
	TALLOC_FREE(frame);
}

static bool ds_files_getinfo(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *h = ds_files_any_handle(lane);
	union smb_fileinfo io = {
		.generic.level = RAW_FILEINFO_SMB2_ALL_INFORMATION,
	};

	if (h == NULL) {
		return false;
	}
	f->handle = h;
	io.generic.in.file.handle = h->h;
	ds_lane_begin(lane,
		      ds_files_getinfo_done,
		      "getinfo %s",
		      ds_files_label(f, h));
	ds_lane_add(lane, smb2_getinfo_file_send(lane->c->tree, &io));
	return true;
}

/*
 * FSCTL_SRV_COPYCHUNK
 */

static void ds_files_copychunk_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct ds_file *to = f->handle->file;
	struct ds_file *from = f->source->file;
	struct smb2_ioctl io = { .level = RAW_IOCTL_SMB2 };
	struct srv_copychunk_rsp rsp;
	enum ndr_err_code ndr_err;
	uint64_t all = 0;
	NTSTATUS status;
	size_t i;

	status = smb2_ioctl_recv(ds_lane_take(lane, 0), frame, &io);
	if (!ds_lane_status(lane, "IOCTL", status, NT_STATUS_OK)) {
		goto done;
	}
	ndr_err = ndr_pull_struct_blob(
		&io.out.out,
		frame,
		&rsp,
		(ndr_pull_flags_fn_t)ndr_pull_srv_copychunk_rsp);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		ds_lane_fail(lane, "not the reply of a copychunk");
		goto done;
	}
	for (i = 0; i < f->num_spans; i++) {
		struct ds_span *s = &f->spans[i];

		ds_files_store(to,
			       f->value + s->ofs,
			       from->data + s->ofs,
			       s->len);
		all += s->len;
	}
	if (ds_lane_u64(lane, "chunks", rsp.chunks_written, f->num_spans)) {
		ds_lane_u64(lane, "bytes", rsp.total_bytes_written, all);
	}
done:
	TALLOC_FREE(frame);
}

/* f->source to f->handle, each span to f->value bytes behind its own offset */
static void ds_files_copychunk_send(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct srv_copychunk chunks[DS_LANE_REQS] = { { .length = 0 } };
	struct srv_copychunk_copy copy = {
		.chunk_count = f->num_spans,
		.chunks = chunks,
	};
	struct smb2_ioctl io = {
		.level = RAW_IOCTL_SMB2,
		.in.file.handle = f->handle->h,
		.in.function = FSCTL_SRV_COPYCHUNK,
		.in.max_output_response = sizeof(struct srv_copychunk_rsp),
		.in.flags = SMB2_IOCTL_FLAG_IS_FSCTL,
	};
	enum ndr_err_code ndr_err;
	size_t i;

	memcpy(copy.source_key, f->source->resume_key, 24);
	for (i = 0; i < f->num_spans; i++) {
		chunks[i] = (struct srv_copychunk) {
			.source_off = f->spans[i].ofs,
			.target_off = f->value + f->spans[i].ofs,
			.length = f->spans[i].len,
		};
	}
	ndr_err = ndr_push_struct_blob(
		&io.in.out,
		frame,
		&copy,
		(ndr_push_flags_fn_t)ndr_push_srv_copychunk_copy);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		ds_lane_fail(lane, "no memory");
	}
	ds_lane_begin(lane,
		      ds_files_copychunk_done,
		      "copychunk %s from %" PRIu64 " to %s at %" PRIu64
		      ", %zu chunks, the first of %u",
		      ds_files_label(f, f->source),
		      f->spans[0].ofs,
		      ds_files_label(f, f->handle),
		      f->value + f->spans[0].ofs,
		      f->num_spans,
		      f->spans[0].len);
	ds_lane_add(lane, smb2_ioctl_send(lane->c->tree, &io));
	TALLOC_FREE(frame);
}

static void ds_files_resume_key_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct smb2_ioctl io = { .level = RAW_IOCTL_SMB2 };
	NTSTATUS status;

	status = smb2_ioctl_recv(ds_lane_take(lane, 0), frame, &io);
	if (!ds_lane_status(lane, "IOCTL", status, NT_STATUS_OK)) {
		goto done;
	}
	if (io.out.out.length < 24) {
		ds_lane_fail(lane, "no resume key");
		goto done;
	}
	memcpy(f->source->resume_key, io.out.out.data, 24);
	f->source->has_resume_key = true;
	ds_files_copychunk_send(lane);
done:
	TALLOC_FREE(frame);
}

static bool ds_files_copychunk(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	struct ds_handle *from = ds_files_any_handle(lane);
	struct ds_handle *to = ds_files_any_handle(lane);
	struct smb2_ioctl io = {
		.level = RAW_IOCTL_SMB2,
		.in.function = FSCTL_SRV_REQUEST_RESUME_KEY,
		.in.max_output_response = 32,
		.in.flags = SMB2_IOCTL_FLAG_IS_FSCTL,
	};
	uint64_t ofs, end;
	size_t i;

	if (from == NULL || to == NULL || from->file == to->file ||
	    from->file->size == 0) {
		return false;
	}
	ofs = ds_lane_random(lane, from->file->size);
	end = from->file->size;
	f->value = ds_lane_random(lane, 2) * ds_lane_random(lane, 10000);
	if (f->value + end > f->max_size) {
		f->value = 0;
	}
	if (!ds_files_spans(lane, ofs, end)) {
		return false;
	}
	/* what the server takes at most */
	for (i = 0; i < f->num_spans; i++) {
		f->spans[i].len = MIN(f->spans[i].len, 1024 * 1024);
	}
	f->source = from;
	f->handle = to;
	if (from->has_resume_key) {
		ds_files_copychunk_send(lane);
		return true;
	}
	io.in.file.handle = from->h;
	ds_lane_begin(lane,
		      ds_files_resume_key_done,
		      "resume key of %s",
		      ds_files_label(f, from));
	ds_lane_add(lane, smb2_ioctl_send(lane->c->tree, &io));
	return true;
}

/*
 * Compounds
 */

static const struct smb2_handle ds_files_related = {
	.data = { UINT64_MAX, UINT64_MAX },
};

static void ds_files_close_related(struct ds_lane *lane)
{
	struct smb2_close io = {
		.in.file.handle = ds_files_related,
		.in.flags = SMB2_CLOSE_FLAGS_FULL_INFORMATION,
	};

	ds_lane_add(lane, smb2_close_send(lane->c->tree, &io));
}

static bool ds_files_create_recv(struct ds_lane *lane, TALLOC_CTX *mem_ctx)
{
	struct smb2_create io;
	NTSTATUS status;

	status = smb2_create_recv(ds_lane_take(lane, 0), mem_ctx, &io);
	return ds_lane_status(lane, "CREATE", status, NT_STATUS_OK) &&
	       ds_files_created(lane, &io);
}

static bool ds_files_close_recv(struct ds_lane *lane, size_t i, uint64_t size)
{
	struct smb2_close io = { .out.flags = 0 };
	NTSTATUS status = smb2_close_recv(ds_lane_take(lane, i), &io);

	return ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK) &&
	       ds_files_check_close(lane, &io, size);
}

static void ds_files_put_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct ds_span *s = &f->spans[0];
	struct smb2_write io = { .out.nwritten = 0 };
	NTSTATUS status;

	if (!ds_files_create_recv(lane, frame)) {
		goto done;
	}
	status = smb2_write_recv(ds_lane_take(lane, 1), &io);
	if (!ds_lane_status(lane, "WRITE", status, NT_STATUS_OK) ||
	    !ds_lane_u64(lane, "written", io.out.nwritten, s->len)) {
		goto done;
	}
	ds_files_store(f->name->file, 0, s->data, s->len);
	f->name->file->touched = false;
	TALLOC_FREE(s->data);
	ds_files_close_recv(lane, 2, s->len);
done:
	TALLOC_FREE(frame);
}

/* CREATE, WRITE and CLOSE in one */
static bool ds_files_put(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smb2_transport *transport = lane->c->transport;
	struct ds_files *f = ds_files(lane);
	struct ds_span *s = &f->spans[0];
	struct smb2_create io;
	struct smb2_write w = { .in.file.handle = ds_files_related };

	f->name = ds_files_any_name(lane);
	if (f->name->file != NULL) {
		TALLOC_FREE(frame);
		return false;
	}
	f->key = 0;
	f->action = NTCREATEX_ACTION_CREATED;
	f->num_spans = 1;
	*s = (struct ds_span) {
		.len = 1 + ds_lane_random(lane, MIN(lane->load->io, 60000)),
	};
	s->data = talloc_array(f, uint8_t, s->len);
	ds_fill(s->data, s->len, ds_lane_random(lane, UINT32_MAX));
	w.in.data = data_blob_const(s->data, s->len);
	ds_files_create_io(lane, f->name, NTCREATEX_DISP_CREATE, 0, 0, &io);
	ds_lane_begin(lane,
		      ds_files_put_done,
		      "compound: create, write, close %s of %u bytes",
		      io.in.fname,
		      s->len);
	smb2_transport_compound_start(transport, 3);
	ds_lane_add(lane, smb2_create_send(lane->c->tree, &io));
	smb2_transport_compound_set_related(transport, true);
	ds_lane_add(lane, smb2_write_send(lane->c->tree, &w));
	ds_files_close_related(lane);
	TALLOC_FREE(frame);
	return true;
}

static void ds_files_stat_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	union smb_fileinfo io = {
		.generic.level = RAW_FILEINFO_SMB2_ALL_INFORMATION,
	};
	NTSTATUS status;

	if (!ds_files_create_recv(lane, frame)) {
		goto done;
	}
	status = smb2_getinfo_file_recv(ds_lane_take(lane, 1), frame, &io);
	if (!ds_lane_status(lane, "QUERY_INFO", status, NT_STATUS_OK) ||
	    !ds_files_check_info(lane, &io, f->name->file)) {
		goto done;
	}
	ds_files_close_recv(lane, 2, f->name->file->size);
done:
	TALLOC_FREE(frame);
}

/* CREATE, QUERY_INFO and CLOSE in one */
static bool ds_files_stat(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smb2_transport *transport = lane->c->transport;
	struct ds_files *f = ds_files(lane);
	struct smb2_create io;
	union smb_fileinfo info = {
		.generic.level = RAW_FILEINFO_SMB2_ALL_INFORMATION,
		.generic.in.file.handle = ds_files_related,
	};

	f->name = ds_files_any_name(lane);
	if (f->name->file == NULL || f->name->file->pending) {
		TALLOC_FREE(frame);
		return false;
	}
	f->key = f->name->file->key;
	f->action = NTCREATEX_ACTION_EXISTED;
	ds_files_create_io(lane,
			   f->name,
			   NTCREATEX_DISP_OPEN,
			   0,
			   f->key,
			   &io);
	ds_lane_begin(lane,
		      ds_files_stat_done,
		      "compound: open, getinfo, close %s",
		      io.in.fname);
	smb2_transport_compound_start(transport, 3);
	ds_lane_add(lane, smb2_create_send(lane->c->tree, &io));
	smb2_transport_compound_set_related(transport, true);
	ds_lane_add(lane, smb2_getinfo_file_send(lane->c->tree, &info));
	ds_files_close_related(lane);
	TALLOC_FREE(frame);
	return true;
}

static void ds_files_remove_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct ds_file *file = f->name->file;

	if (!ds_files_create_recv(lane, frame) ||
	    !ds_files_close_recv(lane, 1, file->size)) {
		goto done;
	}
	if (file->opens > 0) {
		file->pending = true;
	} else {
		ds_files_unlink(f->name);
	}
done:
	TALLOC_FREE(frame);
}

/* CREATE with FILE_DELETE_ON_CLOSE, and CLOSE, in one */
static bool ds_files_remove(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smb2_transport *transport = lane->c->transport;
	struct ds_files *f = ds_files(lane);
	struct ds_file *file = NULL;
	struct smb2_create io;

	f->name = ds_files_any_name(lane);
	file = f->name->file;
	if (file == NULL || file->pending ||
	    (file->links > 1 && file->opens > 0)) {
		TALLOC_FREE(frame);
		return false;
	}
	f->key = file->key;
	f->action = NTCREATEX_ACTION_EXISTED;
	ds_files_create_io(lane,
			   f->name,
			   NTCREATEX_DISP_OPEN,
			   NTCREATEX_OPTIONS_DELETE_ON_CLOSE,
			   f->key,
			   &io);
	ds_lane_begin(lane,
		      ds_files_remove_done,
		      "compound: delete on close, close %s, %u handles",
		      io.in.fname,
		      file->opens);
	smb2_transport_compound_start(transport, 2);
	ds_lane_add(lane, smb2_create_send(lane->c->tree, &io));
	smb2_transport_compound_set_related(transport, true);
	ds_files_close_related(lane);
	TALLOC_FREE(frame);
	return true;
}

/*
 * QUERY_DIRECTORY
 */

static void ds_files_scan_done(struct ds_lane *lane);

static void ds_files_scan_send(struct ds_lane *lane, uint8_t flags)
{
	struct ds_files *f = ds_files(lane);
	struct smb2_find io = {
		.in.file.handle = f->dir,
		.in.pattern = "*",
		.in.continue_flags = flags,
		.in.max_response_size = f->scan_size,
		.in.level = SMB2_FIND_BOTH_DIRECTORY_INFO,
	};

	ds_lane_begin(lane,
		      ds_files_scan_done,
		      "%s %s, %u bytes at a time",
		      flags != 0 ? "scan" : "go on with the scan of",
		      f->path,
		      f->scan_size);
	ds_lane_add(lane, smb2_find_send(lane->c->tree, &io));
}

static void ds_files_scanned(struct ds_lane *lane,
			     const char *name,
			     uint64_t size)
{
	struct ds_files *f = ds_files(lane);
	unsigned i;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		f->dots++;
		return;
	}
	for (i = 0; i < f->num_names; i++) {
		struct ds_name *n = &f->names[i];

		if (!strequal(n->name, name)) {
			continue;
		}
		if (n->file == NULL) {
			break;
		}
		f->seen[i]++;
		if (size != n->file->size) {
			ds_lane_fail(lane,
				     "size of %s: expected %" PRIu64
				     ", got %" PRIu64,
				     name,
				     n->file->size,
				     size);
		}
		return;
	}
	ds_lane_fail(lane, "there is %s, which should not be", name);
}

static void ds_files_scan_end(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	unsigned i;

	for (i = 0; i < f->num_names; i++) {
		unsigned wanted = f->names[i].file != NULL ? 1 : 0;

		if (f->seen[i] != wanted) {
			ds_lane_fail(lane,
				     "%s is there %u times, expected %u",
				     f->names[i].name,
				     f->seen[i],
				     wanted);
		}
	}
	if (f->dots != 2) {
		ds_lane_fail(lane, ". and .. are there %u times", f->dots);
	}
}

static void ds_files_scan_done(struct ds_lane *lane)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct smb2_request *req = ds_lane_take(lane, 0);
	union smb_search_data *d = NULL;
	unsigned count = 0;
	NTSTATUS status;
	unsigned i;

	status = smb2_find_level_recv(req,
				      frame,
				      SMB2_FIND_BOTH_DIRECTORY_INFO,
				      &count,
				      &d);
	if (NT_STATUS_EQUAL(status, STATUS_NO_MORE_FILES)) {
		ds_files_scan_end(lane);
		goto done;
	}
	if (!ds_lane_status(lane, "QUERY_DIRECTORY", status, NT_STATUS_OK)) {
		goto done;
	}
	for (i = 0; i < count; i++) {
		ds_files_scanned(lane,
				 d[i].both_directory_info.name.s,
				 d[i].both_directory_info.size);
	}
	ds_files_scan_send(lane, 0);
done:
	TALLOC_FREE(frame);
}

static bool ds_files_scan(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);

	ZERO_ARRAY(f->seen);
	f->dots = 0;
	f->scan_size = ds_lane_random(lane, 2) == 0
			       ? 65536
			       : 256 + ds_lane_random(lane, 1024);
	ds_files_scan_send(lane, SMB2_CONTINUE_FLAG_RESTART);
	return true;
}

/*
 * Before and after
 */

static bool ds_files_setup_file(struct ds_lane *lane, struct ds_name *n)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	uint32_t len = ds_lane_random(lane, 2 * lane->load->io);
	uint8_t *data = talloc_array(frame, uint8_t, len + 1);
	NTSTATUS status;

	ds_fill(data, len, ds_lane_random(lane, UINT32_MAX));
	status = ds_create_file(lane->c, ds_files_path(f, n), data, len);
	ds_files_new(f,
		     n,
		     ds_files_wants_lease(lane) ? ds_load_key(lane->load) : 0);
	ds_files_store(n->file, 0, data, len);
	n->file->touched = false;
	TALLOC_FREE(frame);
	return ds_lane_status(lane, "file", status, NT_STATUS_OK);
}

static bool ds_files_setup(struct ds_lane *lane)
{
	struct ds_load *load = lane->load;
	struct ds_files *f = talloc_zero(lane, struct ds_files);
	NTSTATUS status;
	unsigned i;

	lane->model = f;
	snprintf(f->path,
		 sizeof(f->path),
		 DS_LOAD_DIR "\\c%u-files%u",
		 lane->client,
		 lane->number);
	f->max_size = load->io <= 65536 ? load->io * 16 : load->io * 2;
	/* without overflow: the lanes of all clients, as many as this one's */
	f->num_names = DS_FILES_MEMORY / f->max_size /
		       (load->num_clients * 3);
	f->num_names = MAX(MIN(f->num_names, DS_FILES_NAMES), 3);
	for (i = 0; i < f->num_names; i++) {
		snprintf(f->names[i].name,
			 sizeof(f->names[i].name),
			 "file%u",
			 i);
	}
	status = smb2_util_mkdir(lane->c->tree, f->path);
	if (!ds_lane_status(lane, "mkdir", status, NT_STATUS_OK)) {
		return false;
	}
	/* there is something to do, even without creating */
	for (i = 0; i < f->num_names / 2; i++) {
		if (!ds_files_setup_file(lane, &f->names[i])) {
			return false;
		}
	}
	status = ds_open(lane->c,
			 f->path,
			 SEC_RIGHTS_DIR_READ,
			 NTCREATEX_SHARE_ACCESS_MASK,
			 NTCREATEX_DISP_OPEN,
			 NTCREATEX_OPTIONS_DIRECTORY,
			 &f->dir);
	return ds_lane_status(lane, "open directory", status, NT_STATUS_OK);
}

static bool ds_files_verify_file(struct ds_lane *lane, struct ds_name *n)
{
	TALLOC_CTX *frame = talloc_stackframe();
	struct ds_files *f = ds_files(lane);
	struct smb2_handle h;
	uint64_t ofs = 0;
	bool ok = false;
	NTSTATUS status;

	snprintf(lane->what, sizeof(lane->what), "verify %s", n->name);
	status = ds_open(lane->c,
			 ds_files_path(f, n),
			 DS_FILES_ACCESS,
			 NTCREATEX_SHARE_ACCESS_MASK,
			 NTCREATEX_DISP_OPEN,
			 NTCREATEX_OPTIONS_DELETE_ON_CLOSE,
			 &h);
	if (!ds_lane_status(lane, "CREATE", status, NT_STATUS_OK)) {
		goto done;
	}
	while (ofs < n->file->size) {
		uint32_t len = MIN(lane->load->io, n->file->size - ofs);
		DATA_BLOB data;

		status = ds_read(lane->c, frame, h, ofs, len, &data);
		if (!ds_lane_status(lane, "READ", status, NT_STATUS_OK) ||
		    !ds_lane_u64(lane, "read", data.length, len) ||
		    !ds_lane_bytes(lane,
				   ofs,
				   data.data,
				   n->file->data + ofs,
				   len)) {
			goto done;
		}
		data_blob_free(&data);
		ofs += len;
	}
	status = smb2_util_close(lane->c->tree, h);
	ok = ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK);
	ds_files_unlink(n);
done:
	TALLOC_FREE(frame);
	return ok;
}

static bool ds_files_verify(struct ds_lane *lane)
{
	struct ds_files *f = ds_files(lane);
	NTSTATUS status;
	unsigned i;

	for (i = 0; i < DS_FILES_HANDLES; i++) {
		if (f->handles[i].file == NULL) {
			continue;
		}
		status = smb2_util_close(lane->c->tree, f->handles[i].h);
		if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
			return false;
		}
		ds_files_closed(f, &f->handles[i]);
	}
	for (i = 0; i < f->num_names; i++) {
		if (f->names[i].file != NULL &&
		    !ds_files_verify_file(lane, &f->names[i])) {
			return false;
		}
	}
	/* nothing is left: it can be removed */
	strlcpy(lane->what, f->path, sizeof(lane->what));
	status = smb2_util_close(lane->c->tree, f->dir);
	if (!ds_lane_status(lane, "CLOSE", status, NT_STATUS_OK)) {
		return false;
	}
	status = smb2_util_rmdir(lane->c->tree, f->path);
	return ds_lane_status(lane, "rmdir", status, NT_STATUS_OK);
}

static const struct ds_load_op ds_files_ops[] = {
	{ "open", 10, ds_files_open },
	{ "create", 16, ds_files_create },
	{ "close", 10, ds_files_close },
	{ "write", 20, ds_files_write },
	{ "append", 20, ds_files_append },
	{ "read", 30, ds_files_read },
	{ "flush", 2, ds_files_flush },
	{ "rename", 6, ds_files_rename },
	{ "link", 3, ds_files_link },
	{ "delete", 6, ds_files_delete },
	{ "eof", 4, ds_files_eof },
	{ "allocation", 3, ds_files_allocation },
	{ "times", 4, ds_files_times },
	{ "getinfo", 8, ds_files_getinfo },
	{ "copychunk", 6, ds_files_copychunk },
	{ "put", 6, ds_files_put },
	{ "stat", 6, ds_files_stat },
	{ "remove", 4, ds_files_remove },
	{ "scan", 4, ds_files_scan },
	{ .weight = 0 },
};

const struct ds_lane_kind ds_files_kind = {
	.name = "files",
	.setup = ds_files_setup,
	.verify = ds_files_verify,
	.ops = ds_files_ops,
};
