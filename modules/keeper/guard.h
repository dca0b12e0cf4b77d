/*
 * durable_state: SMB clients survive smbd restarts
 * Hold the active locks of TDBs while no smbd does
 *
 * Copyright (C) The durable_state developers 2026
 *
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation; either version 3 of the License, or
 * (at your option) any later version.
 *
 * This program is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
 * GNU General Public License for more details.
 *
 * You should have received a copy of the GNU General Public License
 * along with this program.  If not, see <http://www.gnu.org/licenses/>.
 */

#ifndef _DURABLE_STATE_GUARD_H_
#define _DURABLE_STATE_GUARD_H_

#include <talloc.h>
#include <jansson.h>

struct handover_in;
struct handover_out;

/*
 * The first to open a TDB with TDB_CLEAR_IF_FIRST is who gets an exclusive
 * fcntl lock on one byte of it, and wipes it; all openers keep a shared lock
 * there. We keep such a shared lock while there is no smbd.
 *
 * These locks belong to the process and the file: closing any descriptor of
 * the file releases them. So each file is open exactly once here, and nothing
 * in this process may open a TDB.
 */
struct guarded_file {
	struct guarded_file *prev, *next;
	char *path;
	dev_t dev;
	ino_t ino;
	int fd;
};

struct guard {
	struct guarded_file *list;
	size_t num;
};

/**
 * @brief Lock one TDB, if it exists and is not locked by us already.
 *
 * @return 0, ENOENT, EAGAIN (somebody has it locked exclusively), EINVAL (not
 *	   a regular file) or another error of open(2).
 */
int guard_add(struct guard *g, const char *path);

/**
 * @brief Release all.
 */
void guard_release(struct guard *g);

/**
 * @brief All guarded files as JSON.
 */
json_t *guard_save(const struct guard *g, struct handover_out *out);

/**
 * @brief The reverse of guard_save().
 *
 * Over execve(2) the locks are held throughout, otherwise taken again.
 */
void guard_load(struct guard *g,
		const json_t *json,
		struct handover_in *in);

#endif /* _DURABLE_STATE_GUARD_H_ */
