/*
   durable_state: options

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

#ifndef _DURABLE_STATE_OPTIONS_H_
#define _DURABLE_STATE_OPTIONS_H_

#include "replace.h"
#include <talloc.h>

enum ds_on_stop { DS_ON_STOP_KEEP, DS_ON_STOP_DROP };
enum ds_unprotected { DS_UNPROTECTED_CUT, DS_UNPROTECTED_VETO };

/* The "durable_state:" options of [global], vfs_durable_state(8) */
struct ds_config {
	unsigned int drain_timeout;	/* seconds */
	unsigned int hold_time;		/* seconds */
	unsigned int restore_timeout;	/* seconds */
	enum ds_on_stop on_stop;
	enum ds_unprotected unprotected;
	const char *keeper;		/* path of durable_stated */
	/* the first thing that is wrong with them, NULL if nothing is */
	const char *problem;
};

/*
 * Read the options. An option that does not exist, stands in a share or has a
 * value that it cannot have is logged with its line in smb.conf: false, and
 * nothing is protected until it is mended.
 */
bool ds_config_load(TALLOC_CTX *mem_ctx, struct ds_config **config);

/* "<lock directory>/durable_state" */
char *ds_config_directory(TALLOC_CTX *mem_ctx);

/* Has this share "vfs objects = durable_state"? */
bool ds_config_share(int snum);

/* Has any share? Without one smbd does not load us. */
bool ds_config_used(void);

#endif /* _DURABLE_STATE_OPTIONS_H_ */
