/*
   durable_state: the save points of a client's process

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

#ifndef _DURABLE_STATE_SAVE_H_
#define _DURABLE_STATE_SAVE_H_

#include "replace.h"
#include <talloc.h>
#include "lib/util/data_blob.h"

/*
 * While a client is served its image is kept current, so that another
 * process can go on if this one is killed. The save points are those of US
 * patent 7,296,073:
 *
 * received	a PDU is read into memory that outlives the process, and was
 *		named there before its first byte was read; how far it came
 *		the kernel knows
 * started	the request has a slot, its message ids are counted
 * completed	the reply, and what the request changed, are in the image
 *		before the first byte is sent
 * acknowledged	when the kernel has taken the last byte; it knows how many
 *		that were, so nothing is written down for it
 *
 * What changes with each request is not in records but in words of the
 * client's buffers (buffers.h), which the image names:
 *
 * - of each connection a struct ds_channel, in which the state of its streams
 *   is there twice: that of ds_image_side() counts. So it becomes valid
 *   together with the records of the same commit.
 * - slots of requests. A slot counts if its PDU is in front of
 *   ds_stream.received, and its answer is not in front of ds_stream.completed:
 *   it, too, comes and goes with a commit.
 * - replies, each of which says where the next one is. Those count that end
 *   in front of ds_stream.completed.
 *
 * The same machine reads them, as with the image itself.
 */

/* Where a connection's streams and its message ids stand */
struct ds_stream {
	/* bytes of whole PDUs, and of all replies in the image */
	uint64_t received;
	uint64_t completed;
	uint64_t seq_low;
	uint16_t seq_range;
	uint16_t granted;
	/* ids above seq_low that were used already: DS_RECORD_SEEN */
	uint32_t num_seen;
	/* the first reply that the kernel may not have taken; 0: none */
	uint64_t replies;
};

/* The PDU that is being read */
struct ds_reading {
	uint64_t offset;
	uint64_t length;
	/* processes that have ended over it, when all of it was read */
	uint64_t crashes;
	/* ds_stream.received when it began, else it is an old one; set last */
	uint64_t received;
};

struct ds_channel {
	struct ds_stream stream[2];
	struct ds_reading reading;
	/* the length in front of a PDU is read to here */
	uint8_t nbt[8];
};

/* DS_RECORD_CHANNEL, by channel id; DS_RECORD_SLOTS */
struct ds_place {
	uint64_t offset;
	/* channels: 1 */
	uint64_t num;
};

enum ds_slot_flags {
	/* somebody's */
	DS_SLOT_USED	= 0x01,
	/* parts of it were answered, it cannot be run again */
	DS_SLOT_LOST	= 0x02,
	/* from before a restart: DS_RECORD_REQUEST, of which offset is the key */
	DS_SLOT_RECORD	= 0x04,
	/* it has made names: DS_RECORD_EFFECT */
	DS_SLOT_EFFECT	= 0x08,
	/* a CANCEL has come for it */
	DS_SLOT_CANCELLED = 0x10,
	/* it has closed opens */
	DS_SLOT_CLOSED	= 0x20,
};

/* A request that is not answered */
struct ds_slot {
	uint64_t channel_id;
	/* ds_stream.received in front of it */
	uint64_t begin;
	uint64_t offset;
	uint32_t length;
	uint32_t flags;
	/* NTTIME */
	uint64_t request_time;
	/*
	 * ds_stream.completed behind its interim response, and behind its
	 * answer, 0 as long as there is none
	 */
	uint64_t interim;
	uint64_t answered;
	uint64_t async_id;
	/*
	 * The same of the first parts of a compound, how many they are, and
	 * what the others need of them
	 */
	uint64_t parts;
	uint64_t last_session_id;
	uint64_t chain_open;
	uint32_t last_tid;
	uint32_t num_parts;
	/* processes that have ended over it */
	uint32_t crashes;
	/* it was received by another process */
	uint32_t again;
};

/* What goes out, as it is on the wire */
struct ds_reply {
	/* ds_stream.completed in front of it */
	uint64_t begin;
	uint64_t length;
	/* where the next one is */
	uint64_t next;
	/* of all of this */
	uint32_t size;
	uint32_t num_segments;
	/*
	 * segments follow, then the bytes of those whose offset is
	 * DS_SEGMENT_INLINE, one after the other
	 */
};

#define DS_SEGMENT_INLINE UINT64_MAX

struct ds_segment {
	uint64_t offset;
	uint64_t length;
};

struct ds_resume;
struct files_struct;
struct smbd_server_connection;
struct smbXsrv_connection;
struct smbd_smb2_request;

/*
 * Memory for requests that are brought back; nothing is saved yet. 0 or an
 * errno: nothing will be.
 */
int ds_save_create(struct smbd_server_connection *sconn);

/*
 * A request of the process before, with its PDU as that read it, is one of
 * this process: a copy of the PDU that lasts, NULL if there is no memory. The
 * copy is the request's, and not to be changed.
 */
const uint8_t *ds_save_again(struct smbd_smb2_request *req,
			     const uint8_t *pdu,
			     const struct ds_slot *slot);

/* Is it such a request? Was it cancelled then? */
bool ds_save_is_again(const struct smbd_smb2_request *req);
bool ds_save_is_cancelled(const struct smbd_smb2_request *req);

/*
 * From here on the image is current. Called when all of the client that there
 * is is in this process, before it reads or sends anything. 0 or an errno;
 * then the client is served, but does not survive this process. resume: how
 * the client was brought back, NULL if no process was killed. former: the
 * holding it was brought back from, NULL if it is new.
 */
int ds_save_start(struct smbd_server_connection *sconn,
		  const struct ds_resume *resume,
		  const char *former);

/*
 * Give the keeper this holding instead of one that was made by a freeze, or by
 * the process before: "former", which may be NULL. 0 or an errno.
 */
int ds_save_hold(const char *former);

/* The keeper that had it has ended: the same for the one that came after it. */
void ds_save_hold_again(void);

/* Is there an image that is current? If not, why? */
bool ds_save_running(void);
const char *ds_save_reason(void);

/* The hooks, smbd/durable_hooks.h */
uint8_t *ds_save_header(struct smbXsrv_connection *xconn);
uint8_t *ds_save_buffer(struct smbXsrv_connection *xconn,
			TALLOC_CTX *mem_ctx,
			size_t len);
void ds_save_reading(struct smbXsrv_connection *xconn,
		     const uint8_t *pdu,
		     size_t len);
uint8_t *ds_save_received(struct smbd_smb2_request *req,
			  uint8_t *pdu,
			  size_t len);
void ds_save_started(struct smbd_smb2_request *req);
void ds_save_completed(struct smbXsrv_connection *xconn);
void ds_save_freed(struct smbd_smb2_request *req);
/* An open is gone */
void ds_save_closed(uint64_t persistent_id);
/*
 * What the request that is being processed is about to do (effect.h), that it
 * has done it, or that it is about to do something that can neither be undone
 * nor done twice.
 */
struct ds_effect;
void ds_save_effect(const struct ds_effect *effect);
void ds_save_effected(void);
/* Is that request a compound? */
bool ds_save_in_compound(void);
void ds_save_once(void);
/* Is it further than the client was told? */
bool ds_save_is_scanning(const struct files_struct *fsp);
/* When a file or directory was changed is not certain until then. */
void ds_save_again_soon(void);

/* The compound that is being processed, false: there is none */
bool ds_save_compound(uint64_t *channel_id, uint64_t *begin);

/* Is it of one that is not answered? Such an open is not written down. */
bool ds_save_is_new(struct files_struct *fsp);
/* Nobody may go on with what is being taken down */
void ds_save_exit(void);

#endif /* _DURABLE_STATE_SAVE_H_ */
