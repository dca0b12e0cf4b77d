/*
   durable_state: processes that end at a given point, for tests

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

#ifndef _DURABLE_STATE_FAULT_H_
#define _DURABLE_STATE_FAULT_H_

#include "replace.h"

/*
 * For tests: "durable_state:test kill = FILE". Whoever comes to the point that
 * stands in the file, on behalf of such a command, takes the file away and is
 * killed. In the file: the name of a point, of a command as smbd's
 * smb2_opcode_name() has it without "SMB2_OP_", and how often that comes by
 * before. With "again" behind it the file stays, and whoever comes next is
 * killed as well.
 *
 *	started CREATE 0
 *	started WRITE 0 again
 */
enum ds_fault {
	/* all of a PDU was read, nothing is known of it */
	DS_FAULT_RECEIVED,
	/* it has a slot and is going to be processed */
	DS_FAULT_STARTED,
	/* a name is going to be made, and has been written down */
	DS_FAULT_EFFECT,
	/* it has been made */
	DS_FAULT_EFFECTED,
	/* the answer is there, nothing of it is in the image */
	DS_FAULT_DONE,
	/* all of it is in the image, nothing is sent */
	DS_FAULT_COMPLETED,
	/* the kernel has taken it */
	DS_FAULT_ACKNOWLEDGED,
	/* all of a client is back, its image is that of the process before */
	DS_FAULT_BACK,
	/* ... its own, and nobody knows; the command is ANY for both */
	DS_FAULT_RESTORED,
	DS_NUM_FAULTS
};

/* May be called again. */
void ds_fault_configure(void);

/* opcode: SMB2_OP_ */
void ds_fault(enum ds_fault fault, uint16_t opcode);

struct smbd_smb2_request;
/* The same for any of its parts */
void ds_fault_request(enum ds_fault fault,
		      const struct smbd_smb2_request *req);

#endif /* _DURABLE_STATE_FAULT_H_ */
