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
#include "save.h"

struct ds_restore;
struct connection_struct;
struct ds_open;
struct files_struct;
struct smbXsrv_connection;
struct smbd_smb2_request;

/*
 * What a restore needs beyond the records of objects when the process before
 * was killed (save.h). The connection is first where its last save point was,
 * then what the kernel says was read and written since is added.
 */
struct ds_resume_channel {
	struct smbXsrv_connection *xconn;
	/* the kernel's, bytes */
	uint64_t read;
	uint64_t written;
	/* the image's */
	struct ds_stream stream;
	/* all of the next PDU was read: so much is still to be told to smbd */
	size_t whole;
	/* processes that have ended over it */
	uint64_t whole_crashes;
};

struct ds_resume {
	/* of the process before; they hold PDUs and parts of replies */
	struct ds_buffers *buffers;
	/* ds_image_side() */
	unsigned int side;

	struct ds_resume_channel *channels;
	size_t num_channels;
	/* opens whose break of a lease to read was not seen */
	struct files_struct **missed;
	size_t num_missed;
	/* a request may have made an open that the image does not know */
	bool creates;
	/* of requests that are run again; still to be undone */
	struct ds_effect *effects;
	size_t num_effects;
};

/* NULL if there is none; resume may be NULL. */
struct ds_resume_channel *ds_resume_find(
	const struct ds_resume *resume,
	const struct smbXsrv_connection *xconn);

/* One for each type of record, in this order. Errors cost the client. */
NTSTATUS ds_resume_channel(struct ds_restore *restore,
			   uint64_t channel_id,
			   DATA_BLOB data);
NTSTATUS ds_resume_seen(struct ds_restore *restore,
			uint64_t channel_id,
			DATA_BLOB data);
NTSTATUS ds_resume_slots(struct ds_restore *restore, DATA_BLOB data);
NTSTATUS ds_resume_effect(struct ds_restore *restore, DATA_BLOB data);

/* Remember such an open; is it one? */
NTSTATUS ds_resume_missed(struct ds_resume *resume,
			  struct files_struct *fsp);
bool ds_resume_has_missed(const struct ds_resume *resume,
			  const struct files_struct *fsp);

/*
 * When all are back and the process before is gone: what is left in Samba's
 * databases of opens that are not back.
 */
void ds_resume_forget(struct ds_restore *restore);

/* Before opens: undo what requests did that are run again. */
void ds_resume_undo(struct ds_restore *restore);

/*
 * An open cannot be brought back. True if a request is being run again that
 * closes it: then it was closed already, and is not lost. conn may be NULL.
 */
bool ds_resume_closing(struct ds_restore *restore,
		       struct connection_struct *conn,
		       const struct ds_open *record,
		       uint64_t volatile_id);

/*
 * The rest of a compound goes on with the open of its first parts. After
 * opens.
 */
void ds_resume_chain(struct smbd_smb2_request *req);

/*
 * A request that is run again has done what it was to do, and nothing is left
 * to do it with: the answer is queued. False if it has to be dispatched. The
 * hook child_done.
 */
bool ds_resume_answer(struct smbd_smb2_request *req);

/*
 * No descriptor has come along: open the file by its name, as root, since
 * what was granted does not depend on what today's mode bits say.
 */
NTSTATUS ds_resume_fd(struct files_struct *fsp, const struct ds_open *record);

#endif /* _DURABLE_STATE_RESUME_H_ */
