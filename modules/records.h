/*
   durable_state: capture and restore of what makes up a client

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

#ifndef _DURABLE_STATE_RECORDS_H_
#define _DURABLE_STATE_RECORDS_H_

#include "image.h"
#include "librpc/ndr/libndr.h"
#include "durable_state/durable_state.h"

/*
 * How much older than the clock a file's time may be, NTTIME: the kernel takes
 * that of its last tick, which is 10 ms where it is slow.
 */
#define DS_TICK (20 * 10000)

struct server_id;
struct smbXsrv_client;
struct smbXsrv_connection;
struct smbXsrv_session;
struct smbXsrv_tcon;
struct smbXsrv_open;
struct smbd_smb2_request;
struct files_struct;

/*
 * For each kind of object there is one file with ds_capture_x(), which
 * turns smbd's state into a record, and ds_restore_x(), which does the
 * reverse, field by field in the same order.
 */

/* An image being written */
struct ds_capture {
	struct smbXsrv_client *client;
	struct ds_image *image;
	/* what travels with the image; still smbd's */
	int *fds;
	size_t num_fds;
	/* so far: the key of the next one */
	uint64_t num_requests;
	/*
	 * The process goes on: no descriptors of files travel, and the
	 * streams are written elsewhere (save.h).
	 */
	bool live;
};

struct ds_resume;

/* An open that is gone, and what an SMB2 CLOSE of it is answered with */
struct ds_closed {
	uint64_t volatile_id;
	uint8_t body[0x3C];
};

/* A directory, and its change time when its watch was known to be complete */
struct ds_watch {
	struct files_struct *fsp;
	NTTIME ctime;
	/* all that it watches for shows in that time */
	bool plain;
};

struct ds_break {
	struct files_struct *fsp;
	uint32_t from;
	uint32_t to;
};

/* An image being read */
struct ds_restore {
	const struct ds_image *image;
	struct smbXsrv_client *client;
	struct smbd_server_connection *sconn;
	struct ds_client *old;
	/*
	 * Processes to which the client may still belong in Samba's
	 * databases: the one before, then those that were killed when they
	 * brought it back
	 */
	struct server_id *former;
	size_t num_former;
	/* a descriptor is set to -1 when somebody has taken it */
	int *fds;
	size_t num_fds;
	/* resume.h: the process before was killed, NULL if it was not */
	struct ds_resume *resume;
	/*
	 * Lease breaks that the process before was killed over, not freed
	 * with their open: it is looked for by its address
	 */
	struct ds_break *breaks;
	size_t num_breaks;
	struct ds_watch *watches;
	size_t num_watches;
	/* opens that a request was closing, and that are gone */
	struct ds_closed *closed;
	size_t num_closed;
	/* why it cannot be brought back, if there is more than a status */
	const char *reason;
	/* those that are run again, by command */
	uint32_t again[SMB2_OP_BREAK + 1];
	/* handles that could not be brought back */
	const char **lost;
	size_t num_lost;
};

/*
 * Write all of a client. On return *cap has an image that is complete, on
 * mem_ctx.
 */
NTSTATUS ds_capture_client(TALLOC_CTX *mem_ctx,
			   struct smbXsrv_client *client,
			   NTTIME frozen,
			   struct ds_capture **cap);

/*
 * Bring all of a client back. xconn is a connection that was made of
 * fds[DS_FIRST_SOCKET] and has seen no byte yet. On error the process must
 * end: what there is of the client is cleaned up as at any end.
 */
#define DS_FIRST_SOCKET 0
NTSTATUS ds_restore_client(const struct ds_image *image,
			   struct ds_restore *restore,
			   struct smbXsrv_connection *xconn);

/* Is it one of restore->former? */
bool ds_restore_is_former(const struct ds_restore *restore,
			  const struct server_id *id);

/*
 * Stage one record. The key is what tells it from the others of its type as
 * long as the object lives.
 */
NTSTATUS ds_capture_record(struct ds_capture *cap,
			   enum ds_record_type type,
			   uint64_t key,
			   const void *record,
			   ndr_push_flags_fn_t push_fn);

/*
 * What came of a record in the form of Samba's databases, smbXsrv.idl
 */
NTSTATUS ds_pulled(enum ndr_err_code ndr_err,
		   uint32_t version,
		   const void *object);

/* Let a descriptor travel with the image: its index, DS_NO_FD for -1 */
uint32_t ds_capture_fd(struct ds_capture *cap, int fd);

/* Take a descriptor that travelled: now the caller's, -1 if there is none */
int ds_restore_fd(struct ds_restore *restore, uint32_t idx);

/* Count and log a handle that did not come back */
void ds_restore_lost(struct ds_restore *restore,
		     const char *what,
		     const char *name,
		     NTSTATUS status);

/*
 * All but requests: what changes less often than with each of them
 */
NTSTATUS ds_capture_objects(struct ds_capture *cap, NTTIME frozen);

NTSTATUS ds_capture_connection(struct ds_capture *cap,
			       struct smbXsrv_connection *xconn);
/* Bytes of a PDU that were read, of replies that are to be sent */
NTSTATUS ds_restore_incoming(struct smbXsrv_connection *xconn,
			     DATA_BLOB incoming);
NTSTATUS ds_restore_outgoing(struct smbXsrv_connection *xconn,
			     DATA_BLOB outgoing);
NTSTATUS ds_restore_connection(struct ds_restore *restore,
			       const struct ds_connection *record,
			       struct smbXsrv_connection *xconn);
/*
 * Has smbd made the connection one of SMB2? With "SMB 2.???" that is before
 * its protocol is known.
 */
bool ds_connection_is_smb2(const struct smbXsrv_connection *xconn);
/* What tells it from all other sockets as long as it is there; 0: none has */
uint64_t ds_socket_cookie(int sock);
struct smbXsrv_connection *ds_find_channel(struct smbXsrv_client *client,
					   uint64_t channel_id);

NTSTATUS ds_capture_session(struct ds_capture *cap,
			    struct smbXsrv_session *session);
NTSTATUS ds_restore_session(struct ds_restore *restore,
			    const struct ds_session *record);

NTSTATUS ds_capture_tcon(struct ds_capture *cap,
			 struct smbXsrv_session *session,
			 struct smbXsrv_tcon *tcon);
NTSTATUS ds_restore_tcon(struct ds_restore *restore,
			 const struct ds_tcon *record);

/* What a tree connect is to smbd, NULL if it did not come back */
struct connection_struct *ds_find_share(struct ds_restore *restore,
					uint64_t session_id,
					uint32_t tcon_id);

NTSTATUS ds_capture_open(struct ds_capture *cap, struct files_struct *fsp);
NTSTATUS ds_restore_open(struct ds_restore *restore,
			 const struct ds_open *record);

/* As NTTIME; 0 if the file may change once more without another time */
NTTIME ds_certain_time(const struct timespec *ts);

/* When all opens are there: what their watches have missed */
void ds_restore_watches(struct ds_restore *restore);

/* Remove share mode entries and leases of no open. When all are back. */
void ds_restore_forget_opens(struct ds_restore *restore);

/* Send what ds_restore_open() found was not sent. Event loop. */
void ds_restore_breaks(struct ds_restore *restore);

/* The parts of an open that exist for directories only */
void ds_capture_scan(TALLOC_CTX *mem_ctx,
		     struct files_struct *fsp,
		     bool live,
		     struct ds_open *record);
NTSTATUS ds_restore_scan(struct files_struct *fsp,
			 const struct ds_scan *scan);
NTSTATUS ds_capture_notify(TALLOC_CTX *mem_ctx,
			   struct files_struct *fsp,
			   bool live,
			   struct ds_open *record);
NTSTATUS ds_restore_notify(struct ds_restore *restore,
			   struct files_struct *fsp,
			   const struct ds_notify *notify);

/* A named pipe whose other end is gone */
NTSTATUS ds_restore_pipe(struct files_struct *fsp);

/*
 * Does this request wait for others by nature, so that it can be issued
 * again?
 */
bool ds_request_waits(struct smbd_smb2_request *req);

/*
 * All requests of all connections in the order in which they came, NULL
 * behind the last one; NULL if there is no memory.
 */
struct smbd_smb2_request **ds_requests(TALLOC_CTX *mem_ctx,
				       struct smbXsrv_client *client);
NTSTATUS ds_capture_request(struct ds_capture *cap,
			    struct smbd_smb2_request *req);
NTSTATUS ds_restore_request(struct ds_restore *restore,
			    const struct ds_request *record,
			    struct smbd_smb2_request **req);

/*
 * vfs_durable_state.c: the next openat() for this fsp returns fd instead
 * of opening a file.
 */
void ds_vfs_expect_open(struct files_struct *fsp, int fd);

/*
 * vfs_durable_state.c: the image has this open as it is now; is that still
 * so, and is it known at all? When it is freed ds_save_closed() is called.
 */
void ds_vfs_saved(struct files_struct *fsp);
bool ds_vfs_is_saved(struct files_struct *fsp);
bool ds_vfs_is_known(struct files_struct *fsp);
/* When it was saved last */
bool ds_vfs_had_oplock(struct files_struct *fsp);
/* The compound that has made it, if one has */
bool ds_vfs_made_by(struct files_struct *fsp,
		    uint64_t *channel_id,
		    uint64_t *begin);
/* struct ds_scan as NDR, as the image has it; kept is a copy */
DATA_BLOB ds_vfs_scan(struct files_struct *fsp);
void ds_vfs_keep_scan(struct files_struct *fsp, DATA_BLOB blob);
/* Did the client ask for a key to copy from it? */
bool ds_vfs_has_resume_key(struct files_struct *fsp);

/* open.c: enum ds_fsp_flags of an open */
uint32_t ds_fsp_flags(const struct files_struct *fsp);

/*
 * vfs_durable_state.c: the AAPL create context that vfs_fruit accepted on
 * this tree connect; empty if there was none. It belongs to conn.
 */
DATA_BLOB ds_vfs_aapl(struct connection_struct *conn);
/* Let vfs_fruit see it again. On return the process is root again. */
NTSTATUS ds_vfs_aapl_repeat(struct connection_struct *conn,
			    uint64_t session_id,
			    DATA_BLOB aapl);

#endif /* _DURABLE_STATE_RECORDS_H_ */
