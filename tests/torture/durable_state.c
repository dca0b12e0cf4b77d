/*
   Unix SMB/CIFS implementation.

   smbtorture suite smb2.durable-state: a restart of smbd goes unnoticed

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
#include "torture/smbtorture.h"
#include "torture/durable_state/ds_util.h"

NTSTATUS torture_durable_state_init(TALLOC_CTX *ctx)
{
	struct torture_suite *suite =
		torture_suite_create(ctx, "smb2.durable-state");

	suite->description = talloc_strdup(
		suite,
		"clients survive restarts of smbd with their connection "
		"(needs --option=torture:restart_command=COMMAND)");

	ds_stream_tests(suite);
	ds_session_tests(suite);
	ds_channel_tests(suite);
	ds_open_tests(suite);
	ds_oplock_tests(suite);
	ds_lease_tests(suite);
	ds_lock_tests(suite);
	ds_dir_tests(suite);
	ds_apple_tests(suite);
	ds_notify_tests(suite);
	ds_pending_tests(suite);
	ds_durable_tests(suite);
	ds_barrier_tests(suite);
	ds_pipe_tests(suite);

	torture_register_suite(ctx, suite);

	suite = torture_suite_create(ctx, "smb2.durable-state-load");
	suite->description = talloc_strdup(
		suite,
		"clients work and know what must come of it "
		"(while somebody else kills processes of smbd)");
	ds_load_tests(suite);
	torture_register_suite(ctx, suite);

	return NT_STATUS_OK;
}
