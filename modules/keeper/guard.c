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

#include "replace.h"
#include "system/filesys.h"
#include "lib/util/debug.h"
#include "lib/util/dlinklist.h"
#include "handover.h"
#include "guard.h"

/* ACTIVE_LOCK of lib/tdb/common/tdb_private.h: part of the file format */
#define GUARD_ACTIVE_LOCK 4

static int guarded_file_destructor(struct guarded_file *f)
{
	close(f->fd);
	return 0;
}

static int guard_lock(int fd)
{
	struct flock fl = {
		.l_type = F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = GUARD_ACTIVE_LOCK,
		.l_len = 1,
	};

	if (fcntl(fd, F_SETLK, &fl) == -1) {
		return (errno == EACCES) ? EAGAIN : errno;
	}
	return 0;
}

/* Takes over fd */
static int guard_add_fd(struct guard *g, const char *path, int fd)
{
	struct guarded_file *f = NULL;
	struct stat st;
	int ret;

	ret = guard_lock(fd);
	if (ret != 0) {
		close(fd);
		return ret;
	}

	f = talloc_zero(g, struct guarded_file);
	if (f == NULL) {
		close(fd);
		return ENOMEM;
	}
	f->fd = fd;
	talloc_set_destructor(f, guarded_file_destructor);

	f->path = talloc_strdup(f, path);
	if ((f->path == NULL) || (fstat(fd, &st) == -1)) {
		TALLOC_FREE(f);
		return ENOMEM;
	}
	f->dev = st.st_dev;
	f->ino = st.st_ino;

	DLIST_ADD_END(g->list, f);
	g->num += 1;
	return 0;
}

int guard_add(struct guard *g, const char *path)
{
	struct guarded_file *f = NULL;
	struct stat st;
	int fd;

	/*
	 * Compared before it is opened: a second descriptor could not be
	 * closed without losing the lock.
	 */
	if (stat(path, &st) == -1) {
		return errno;
	}
	if (!S_ISREG(st.st_mode)) {
		return EINVAL;
	}
	for (f = g->list; f != NULL; f = f->next) {
		if ((f->dev == st.st_dev) && (f->ino == st.st_ino)) {
			return 0;
		}
	}

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1) {
		return errno;
	}
	return guard_add_fd(g, path, fd);
}

void guard_release(struct guard *g)
{
	while (g->list != NULL) {
		struct guarded_file *f = g->list;

		DLIST_REMOVE(g->list, f);
		TALLOC_FREE(f);
	}
	g->num = 0;
}

json_t *guard_save(const struct guard *g, struct handover_out *out)
{
	const struct guarded_file *f = NULL;
	json_t *array = json_array();

	for (f = g->list; f != NULL; f = f->next) {
		json_array_append_new(
			array,
			json_pack("{s:s, s:o}",
				  "path", f->path,
				  "fd", handover_give(out, f->fd)));
	}
	return array;
}

void guard_load(struct guard *g,
		const json_t *json,
		struct handover_in *in)
{
	json_t *entry = NULL;
	size_t i;

	json_array_foreach(json, i, entry) {
		const char *path = NULL;
		json_t *number = NULL;
		int fd, ret;

		ret = json_unpack(entry,
				  "{s:s, s:o}",
				  "path", &path,
				  "fd", &number);
		if (ret != 0) {
			continue;
		}

		fd = handover_take(in, number);
		if (fd == -1) {
			continue;
		}
		/* After execve(2) we have the lock and get it again */
		ret = guard_add_fd(g, path, fd);
		if (ret != 0) {
			DBG_ERR("Can't guard %s any longer: %s. If smbd is "
				"restarted now its contents may be lost\n",
				path,
				strerror(ret));
		}
	}
}
