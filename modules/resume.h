/*
   durable_state: going on where a process was killed

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

#ifndef _DURABLE_STATE_RESUME_H_
#define _DURABLE_STATE_RESUME_H_

#include "replace.h"
#include <talloc.h>
#include "lib/util/data_blob.h"
#include "libcli/util/ntstatus.h"
#include "buffers.h"

struct ds_restore;
struct ds_open;
struct files_struct;
struct smbXsrv_connection;

/*
 * What a restore needs beyond the records of objects when the process before
 * was killed (save.h). The connection is first where its last save point was,
 * then what the kernel says was read and written since is added.
 */
struct ds_resume {
	/* of the process before; they hold PDUs and parts of replies */
	struct ds_buffers *buffers;

	struct smbXsrv_connection *xconn;
	/* the kernel's, bytes */
	uint64_t read;
	uint64_t written;
	/* the image's */
	uint64_t received;
	uint64_t completed;
	/* behind the last reply that was queued, 0 if none was */
	uint64_t queued;
	/* what was read of the next PDU has been found */
	bool reading;
	/* all of it was read: so much is still to be told to smbd */
	size_t whole;
	size_t num_requests;
};

/* One for each type of record, in this order. Errors cost the client. */
NTSTATUS ds_resume_stream(struct ds_restore *restore, DATA_BLOB data);
NTSTATUS ds_resume_reading(struct ds_restore *restore, DATA_BLOB data);
NTSTATUS ds_resume_reply(struct ds_restore *restore, DATA_BLOB data);
NTSTATUS ds_resume_received(struct ds_restore *restore, DATA_BLOB data);
/* Does it all fit together? */
NTSTATUS ds_resume_end(struct ds_restore *restore);

/*
 * No descriptor has come along: open the file by its name, as root, since
 * what was granted does not depend on what today's mode bits say.
 */
NTSTATUS ds_resume_fd(struct files_struct *fsp, const struct ds_open *record);

#endif /* _DURABLE_STATE_RESUME_H_ */
