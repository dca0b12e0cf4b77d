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

#include "includes.h"
#include "smbd/smbd.h"
#include "smbd/globals.h"
#include "../libcli/smb/smb_common.h"
#include "fault.h"

static const char *const ds_fault_names[DS_NUM_FAULTS] = {
	[DS_FAULT_RECEIVED] = "received",
	[DS_FAULT_STARTED] = "started",
	[DS_FAULT_EFFECT] = "effect",
	[DS_FAULT_EFFECTED] = "effected",
	[DS_FAULT_DONE] = "done",
	[DS_FAULT_COMPLETED] = "completed",
	[DS_FAULT_ACKNOWLEDGED] = "acknowledged",
	[DS_FAULT_BACK] = "back",
	[DS_FAULT_RESTORED] = "restored",
};

/* NULL: none of all that costs anything */
static char *ds_fault_file;

void ds_fault_configure(void)
{
	const char *file = lp_parm_const_string(
		GLOBAL_SECTION_SNUM, "durable_state", "test kill", NULL);

	TALLOC_FREE(ds_fault_file);
	if (file != NULL) {
		ds_fault_file = talloc_strdup(NULL, file);
	}
}

static bool ds_fault_read(char *point,
			  char *command,
			  unsigned int *count,
			  bool *again)
{
	char buf[64] = "";
	char word[8] = "";
	ssize_t n;
	int num;
	int fd;

	fd = open(ds_fault_file, O_RDONLY | O_CLOEXEC);
	if (fd == -1) {
		return false;
	}
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0) {
		return false;
	}
	num = sscanf(buf, "%15s %15s %u %7s", point, command, count, word);
	*again = strequal(word, "again");
	return (num >= 3);
}

void ds_fault(enum ds_fault fault, uint16_t opcode)
{
	/* that come by before it, in this process */
	static unsigned int passed;
	const char *name = NULL;
	char point[16];
	char command[16];
	unsigned int count;
	bool again;

	if ((ds_fault_file == NULL) ||
	    !ds_fault_read(point, command, &count, &again) ||
	    !strequal(point, ds_fault_names[fault]))
	{
		return;
	}
	name = smb2_opcode_name(opcode);
	if (strncmp(name, "SMB2_OP_", 8) == 0) {
		name += 8;
	}
	if (!strequal(command, name) && !strequal(command, "ANY")) {
		return;
	}
	if (passed < count) {
		passed += 1;
		return;
	}
	become_root();
	if (again || (unlink(ds_fault_file) == 0)) {
		DBG_ERR("killed for a test: %s %s\n", point, name);
		kill(getpid(), SIGKILL);
	}
	unbecome_root();
}

void ds_fault_request(enum ds_fault fault,
		      const struct smbd_smb2_request *req)
{
	int idx;

	if (ds_fault_file == NULL) {
		return;
	}
	for (idx = 1;
	     idx < req->in.vector_count;
	     idx += SMBD_SMB2_NUM_IOV_PER_REQ)
	{
		const uint8_t *inhdr = SMBD_SMB2_IDX_HDR_IOV(
			req, in, idx)->iov_base;

		ds_fault(fault, SVAL(inhdr, SMB2_HDR_OPCODE));
	}
}
