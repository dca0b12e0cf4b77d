/*
   durable_state: the processes of smbd

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

#ifndef _DURABLE_STATE_PROCESS_H_
#define _DURABLE_STATE_PROCESS_H_

#include "replace.h"
#include <talloc.h>
#include <tevent.h>
#include <jansson.h>

struct smbd_durable_hooks;
struct smbd_server_connection;
struct smbXsrv_connection;
struct smbd_smb2_request;
struct messaging_context;

/*
 * smbd's parent (parent.c, restore_parent.c) and its children, one for
 * each client (child.c), talk over a socket pair that each child is born
 * with: packets of JSON as keeper_protocol.h has them. So nothing is lost
 * before a child can receive messages, and each side sees the other's end.
 *
 * parent to child:
 *	{"op":"freeze","timeout":S}	stop reading, come to rest
 *	{"op":"thaw"}			go on
 *	{"op":"exit"}			end as after SIGTERM without us
 *	{"op":"end"}			after "held": end, clean up nothing
 *	{"op":"status"}
 * and as a message, to be behind all others in the queue:
 *	MSG_DS_CAPTURE			write the image, give it to the keeper
 *
 * child to parent:
 *	{"op":"quiet","client":C}	after freeze: at rest
 *	{"op":"held","client":C}	after capture: the keeper has it all
 *	{"op":"failed","client":C,"reason":R}	after freeze or capture
 *	{"op":"restored","client":C}	all is back; waits for thaw
 *	{"op":"thawed","client":C,"pause_ms":N,"num_lost":N,"lost":[R,...]}
 *	{"op":"term"}			got SIGTERM, what now?
 *	{"op":"status","connection":{...}}
 */

/* In the range that is Samba's for temporary use (MSG_TMP_BASE) */
#define MSG_DS_CAPTURE 0xFD50

extern const struct smbd_durable_hooks ds_process_hooks;

int ds_send(int fd, json_t *json);

/*
 * A string or number of a packet, NULL or 0 if it is not there.
 */
const char *ds_json_string(json_t *json, const char *name);
json_int_t ds_json_int(json_t *json, const char *name);

/* child.c */

/* "client-" and a process id */
#define DS_LABEL_SIZE 32

struct ds_restore;

struct ds_held {
	/* the image and the sockets and files that belong to it */
	int *fds;
	size_t num_fds;
	/* its process was killed, at this NTTIME as far as known */
	bool live;
	uint64_t since;
	/* where the keeper has it, until the process has put its own */
	char label[DS_LABEL_SIZE];
};

/* Close those that nobody has taken out (-1). held may be NULL. */
void ds_held_close(struct ds_held *held);

/*
 * As long as what was in progress when the process before was killed is being
 * done again: how the client was brought back. Else NULL.
 */
const struct ds_restore *ds_child_restoring(void);

/*
 * Called right after fork(): fd is this end of the socket pair. held is
 * NULL for a new client.
 */
void ds_child_born(int fd, struct ds_held *held);

void ds_child_start(struct smbd_server_connection *sconn,
		    struct smbXsrv_connection *xconn);
bool ds_child_stop(struct smbd_server_connection *sconn);
bool ds_child_may_read(struct smbXsrv_connection *xconn);
void ds_child_progress(struct smbXsrv_connection *xconn);
/* Was it brought back, and is it not its turn yet? */
bool ds_child_is_later(const struct smbd_smb2_request *req);

/* protection.c */

enum ds_protection { DS_PROTECTED, DS_PARTLY_PROTECTED, DS_UNPROTECTED };

/*
 * Would this client survive a restart? If not all of it *reason says why.
 */
enum ds_protection ds_protection(struct smbd_server_connection *sconn,
				 const char **reason);

/* "address:port" */
char *ds_client_name(TALLOC_CTX *mem_ctx,
		     struct smbd_server_connection *sconn);

/* An element of "connections" in docs/interfaces.md */
json_t *ds_client_status(struct smbd_server_connection *sconn);

#endif /* _DURABLE_STATE_PROCESS_H_ */
