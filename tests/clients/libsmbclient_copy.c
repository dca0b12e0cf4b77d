/*
   Unix SMB/CIFS implementation.

   Copies a tree with libsmbclient, up or down.

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

/*
 * usage: libsmbclient_copy up|down SMB.CONF PORT LOCALDIR smb://HOST/SHARE/DIR
 *
 * USER and PASSWORD come from the environment. The target must not exist.
 * Every error ends it with a message and exit code 1; nothing is tried twice.
 */

#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libsmbclient.h>

static char buffer[1024 * 1024];

static void fail(const char *what, const char *name)
{
	fprintf(stderr, "%s %s: %s\n", what, name, strerror(errno));
	exit(1);
}

static char *join(const char *dir, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", dir, name) == -1) {
		fail("no memory for", name);
	}
	return path;
}

static bool is_dot(const char *name)
{
	return (strcmp(name, ".") == 0) || (strcmp(name, "..") == 0);
}

static void login(SMBCCTX *context,
		  const char *server,
		  const char *share,
		  char *workgroup,
		  int workgroup_len,
		  char *user,
		  int user_len,
		  char *password,
		  int password_len)
{
	snprintf(user, user_len, "%s", getenv("USER"));
	snprintf(password, password_len, "%s", getenv("PASSWORD"));
}

static void put(const char *local, const char *remote)
{
	ssize_t n;
	int from;
	int to;

	from = open(local, O_RDONLY);
	if (from == -1) {
		fail("open", local);
	}
	to = smbc_open(remote, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (to < 0) {
		fail("open", remote);
	}
	while ((n = read(from, buffer, sizeof(buffer))) > 0) {
		/* a short write would be an error of the library */
		if (smbc_write(to, buffer, n) != n) {
			fail("write", remote);
		}
	}
	if (n == -1) {
		fail("read", local);
	}
	if (smbc_close(to) != 0) {
		fail("close", remote);
	}
	close(from);
}

static void get(const char *remote, const char *local)
{
	ssize_t n;
	int from;
	int to;

	from = smbc_open(remote, O_RDONLY, 0);
	if (from < 0) {
		fail("open", remote);
	}
	to = open(local, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (to == -1) {
		fail("open", local);
	}
	while ((n = smbc_read(from, buffer, sizeof(buffer))) > 0) {
		if (write(to, buffer, n) != n) {
			fail("write", local);
		}
	}
	if (n < 0) {
		fail("read", remote);
	}
	if (smbc_close(from) != 0) {
		fail("close", remote);
	}
	close(to);
}

static void up(const char *local, const char *remote)
{
	struct dirent *entry = NULL;
	DIR *dir = NULL;

	if (smbc_mkdir(remote, 0755) != 0) {
		fail("mkdir", remote);
	}
	dir = opendir(local);
	if (dir == NULL) {
		fail("opendir", local);
	}
	while ((entry = readdir(dir)) != NULL) {
		char *from = join(local, entry->d_name);
		char *to = join(remote, entry->d_name);
		struct stat st;

		if (is_dot(entry->d_name)) {
			/* neither up nor around */
		} else if (stat(from, &st) != 0) {
			fail("stat", from);
		} else if (S_ISDIR(st.st_mode)) {
			up(from, to);
		} else {
			put(from, to);
		}
		free(from);
		free(to);
	}
	closedir(dir);
}

/* The directory stays open while what is below it is copied */
static void down(const char *remote, const char *local)
{
	const struct smbc_dirent *entry = NULL;
	int dir;

	if (mkdir(local, 0755) != 0) {
		fail("mkdir", local);
	}
	dir = smbc_opendir(remote);
	if (dir < 0) {
		fail("opendir", remote);
	}
	errno = 0;
	while ((entry = smbc_readdir(dir)) != NULL) {
		char *from = join(remote, entry->name);
		char *to = join(local, entry->name);

		if (is_dot(entry->name)) {
			/* neither up nor around */
		} else if (entry->smbc_type == SMBC_DIR) {
			down(from, to);
		} else {
			get(from, to);
		}
		free(from);
		free(to);
		errno = 0;
	}
	if (errno != 0) {
		fail("readdir", remote);
	}
	if (smbc_closedir(dir) != 0) {
		fail("closedir", remote);
	}
}

int main(int argc, char *argv[])
{
	SMBCCTX *context = NULL;

	if ((argc != 6) || (getenv("USER") == NULL) ||
	    (getenv("PASSWORD") == NULL))
	{
		fprintf(stderr,
			"usage: USER=... PASSWORD=... %s up|down SMB.CONF "
			"PORT LOCALDIR smb://HOST/SHARE/DIR\n",
			argv[0]);
		return 2;
	}

	context = smbc_new_context();
	if (context == NULL) {
		fail("context", "");
	}
	smbc_setFunctionAuthDataWithContext(context, login);
	if (smbc_init_context(context) == NULL) {
		fail("init", "");
	}
	if (smbc_setConfiguration(context, argv[2]) != 0) {
		fail("configuration", argv[2]);
	}
	smbc_setPort(context, atoi(argv[3]));
	smbc_set_context(context);

	if (strcmp(argv[1], "up") == 0) {
		up(argv[4], argv[5]);
	} else {
		down(argv[5], argv[4]);
	}
	smbc_free_context(context, 1);
	return 0;
}
