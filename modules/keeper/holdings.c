/*
 * durable_state: SMB clients survive smbd restarts
 * What the keeper holds
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
#include "system/network.h"
#include "system/shmem.h"
#include "system/time.h"
#include "lib/util/debug.h"
#include "lib/util/dlinklist.h"
#include "keeper_protocol.h"
#include "handover.h"
#include "holdings.h"

int64_t holding_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int holding_destructor(struct holding *h)
{
	size_t i;

	for (i = 0; i < h->num_fds; i++) {
		close(h->fds[i]);
	}
	json_decref(h->info);
	return 0;
}

struct holding *holding_new(TALLOC_CTX *mem_ctx,
			    const char *label,
			    pid_t pid)
{
	struct holding *h = NULL;

	h = talloc_zero(mem_ctx, struct holding);
	if (h == NULL) {
		return NULL;
	}
	talloc_set_destructor(h, holding_destructor);

	h->pid = pid;
	h->info = json_object();
	h->label = talloc_strdup(h, label);
	if ((h->label == NULL) || (h->info == NULL)) {
		TALLOC_FREE(h);
		return NULL;
	}
	return h;
}

int holding_append(struct holding *h, struct keeper_packet *packet)
{
	int *fds = NULL;

	if (packet->num_fds == 0) {
		return 0;
	}

	fds = talloc_realloc(h, h->fds, int, h->num_fds + packet->num_fds);
	if (fds == NULL) {
		return ENOMEM;
	}
	memcpy(&fds[h->num_fds],
	       packet->fds,
	       packet->num_fds * sizeof(int));
	h->fds = fds;
	h->num_fds += packet->num_fds;
	packet->num_fds = 0;

	return 0;
}

struct holding *holdings_find(struct holdings *hs, const char *label)
{
	struct holding *h = NULL;

	for (h = hs->list; h != NULL; h = h->next) {
		if (strcmp(h->label, label) == 0) {
			return h;
		}
	}
	return NULL;
}

struct holding *holdings_find_id(struct holdings *hs, uint64_t id)
{
	struct holding *h = NULL;

	for (h = hs->list; h != NULL; h = h->next) {
		if (h->id == id) {
			return h;
		}
	}
	return NULL;
}

void holdings_add(struct holdings *hs, struct holding *h)
{
	struct holding *old = holdings_find(hs, h->label);

	if (old != NULL) {
		/* The sockets may be the same as those of the new one */
		holdings_drop(hs, old, HOLDING_END_CLOSE);
	}

	h = talloc_steal(hs, h);
	hs->last_id += 1;
	h->id = hs->last_id;
	DLIST_ADD_END(hs->list, h);
	hs->num += 1;
	hs->num_fds += h->num_fds;
}

/*
 * Anonymous memory has no file system that anybody can mount: files on it are
 * memfds. F_GET_SEALS alone would not do, it also succeeds for a client's
 * file on a share that is on a tmpfs, which must not be overwritten.
 */
static bool holding_fd_is_memory(const struct stat *st)
{
	static dev_t memory_dev;
	static bool known;

	if (!known) {
		struct stat mine;
		int fd, ret;

		fd = memfd_create("durable_stated probe", MFD_CLOEXEC);
		if (fd == -1) {
			return false;
		}
		ret = fstat(fd, &mine);
		close(fd);
		if (ret == -1) {
			return false;
		}
		memory_dev = mine.st_dev;
		known = true;
	}

	return S_ISREG(st->st_mode) && (st->st_dev == memory_dev);
}

/* Overwrite what has been written; holes stay holes */
static void holding_wipe_memory(int fd)
{
	static const uint8_t zeros[65536];
	off_t start = 0;
	off_t end;

	while ((start = lseek(fd, start, SEEK_DATA)) != -1) {
		end = lseek(fd, start, SEEK_HOLE);

		while (start < end) {
			size_t len = MIN(end - start, (off_t)sizeof(zeros));
			ssize_t nwritten = pwrite(fd, zeros, len, start);

			if (nwritten <= 0) {
				/* Its owner has sealed it against writing */
				return;
			}
			start += nwritten;
		}
	}
}

static void holding_destroy_fd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == -1) {
		return;
	}
	if (S_ISSOCK(st.st_mode)) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);

		/* A listening socket may be a service manager's */
		if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0) {
			shutdown(fd, SHUT_RDWR);
		}
	} else if (holding_fd_is_memory(&st)) {
		holding_wipe_memory(fd);
	}
}

void holdings_drop(struct holdings *hs,
		   struct holding *h,
		   enum holding_end end)
{
	if (end == HOLDING_END_DESTROY) {
		size_t i;

		for (i = 0; i < h->num_fds; i++) {
			holding_destroy_fd(h->fds[i]);
		}
	}

	DLIST_REMOVE(hs->list, h);
	hs->num -= 1;
	hs->num_fds -= h->num_fds;
	TALLOC_FREE(h);
}

size_t holdings_drop_all(struct holdings *hs, enum holding_end end)
{
	struct holding *h = NULL;
	struct holding *next = NULL;
	size_t num = 0;

	for (h = hs->list; h != NULL; h = next) {
		next = h->next;
		if (!h->lent) {
			holdings_drop(hs, h, end);
			num += 1;
		}
	}
	return num;
}

json_t *holding_save(const struct holding *h, struct handover_out *out)
{
	json_t *fds = json_array();
	size_t i;

	for (i = 0; i < h->num_fds; i++) {
		json_array_append_new(fds, handover_give(out, h->fds[i]));
	}
	return json_pack("{s:s, s:O, s:o, s:I, s:I}",
			 "label", h->label,
			 "info", h->info,
			 "fds", fds,
			 "since_ms", (json_int_t)h->since_ms,
			 "pid", (json_int_t)h->pid);
}

struct holding *holding_load(TALLOC_CTX *mem_ctx,
			     const json_t *json,
			     struct handover_in *in)
{
	const char *label = NULL;
	json_t *info = NULL;
	json_t *fds = NULL;
	json_int_t since_ms = 0;
	json_int_t pid = 0;
	struct holding *h = NULL;
	size_t i, num;
	int ret;

	/* A predecessor that did not know pids is no reason to lose it all */
	ret = json_unpack(discard_const_p(json_t, json),
			  "{s:s, s:o, s:o, s:I, s?:I}",
			  "label", &label,
			  "info", &info,
			  "fds", &fds,
			  "since_ms", &since_ms,
			  "pid", &pid);
	if ((ret != 0) || !json_is_object(info) || !json_is_array(fds)) {
		return NULL;
	}

	h = holding_new(mem_ctx, label, pid);
	if (h == NULL) {
		return NULL;
	}
	json_decref(h->info);
	h->info = json_incref(info);
	h->since_ms = since_ms;

	num = json_array_size(fds);
	h->fds = talloc_array(h, int, num);
	if (h->fds == NULL) {
		TALLOC_FREE(h);
		return NULL;
	}
	for (i = 0; i < num; i++) {
		int fd = handover_take(in, json_array_get(fds, i));

		if (fd == -1) {
			TALLOC_FREE(h);
			return NULL;
		}
		h->fds[h->num_fds] = fd;
		h->num_fds += 1;
	}
	return h;
}
