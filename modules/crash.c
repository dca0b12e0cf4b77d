/*
   durable_state: a client's process that was killed

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
#include "smbd/durable_hooks.h"
#include "system/wait.h"
#include <sys/pidfd.h>
#include "keeper/keeper_client.h"
#include "keeper/keeper_protocol.h"
#include "options.h"
#include "parent.h"

/*
 * A process that was killed stays a zombie until its successor has made all
 * that it had in the databases its own: to everybody else it is alive until
 * then, and nobody can take anything away.
 */

/*
 * Processes that may end one after the other, each so soon after its return. A
 * request that kills is found out earlier (resume.c).
 */
#define DS_CRASH_MAX 50
#define DS_CRASH_SECONDS 1

/* Different ones, in the status */
#define DS_CRASH_REASONS 20

static struct ds_peer *ds_crash_find(struct ds_parent *parent, pid_t pid)
{
	struct ds_peer *peer = NULL;

	for (peer = parent->peers; peer != NULL; peer = peer->next) {
		if (peer->pid == pid) {
			break;
		}
	}
	return peer;
}

/*
 * smbd exits by itself where core files are not wanted (dump_core()).
 */
static bool ds_crash_is_one(int code, int status)
{
	return (code == CLD_KILLED) || (code == CLD_DUMPED) ||
	       ((code == CLD_EXITED) && (status != 0));
}

bool ds_crash_zombie(pid_t pid, int code, int status)
{
	if ((ds_parent == NULL) || (ds_parent->stop != NULL)) {
		return false;
	}
	if (!ds_crash_is_one(code, status)) {
		return false;
	}
	return (ds_crash_find(ds_parent, pid) != NULL);
}

static void ds_crash_drop(struct ds_parent *parent, pid_t pid)
{
	char label[DS_LABEL_SIZE];

	snprintf(label, sizeof(label), "client-%d", (int)pid);
	if (parent->keeper != NULL) {
		(void)keeper_drop(parent->keeper, label);
	}
}

static const char *ds_crash_client(const struct ds_peer *peer)
{
	return (peer->client != NULL) ? peer->client : "?";
}

static void ds_crash_add(json_t **counts, const char *name, json_int_t num)
{
	if (*counts == NULL) {
		*counts = json_object();
	}
	json_object_set_new(
		*counts,
		name,
		json_integer(num + json_integer_value(
					   json_object_get(*counts, name))));
}

void ds_crash_count(struct ds_parent *parent, json_t *report)
{
	const char *command = NULL;
	json_t *num = NULL;

	parent->num_survived += 1;
	json_object_foreach(json_object_get(report, "again"), command, num) {
		ds_crash_add(&parent->again, command, json_integer_value(num));
	}
}

void ds_crash_count_dropped(struct ds_parent *parent, const char *reason)
{
	/* the status has to end somewhere */
	const char *name = (json_object_size(parent->dropped) <
			    DS_CRASH_REASONS) ? reason : "others";

	parent->num_dropped += 1;
	ds_crash_add(&parent->dropped, name, 1);
}

json_t *ds_crash_status(const struct ds_parent *parent)
{
	json_t *again = (parent->again != NULL) ?
		json_incref(parent->again) : json_object();
	json_t *dropped = (parent->dropped != NULL) ?
		json_incref(parent->dropped) : json_object();

	return json_pack("{sI sI so so}",
			 "survived", parent->num_survived,
			 "dropped", parent->num_dropped,
			 "requests", again,
			 "reasons", dropped);
}

static void ds_crash_event(struct ds_parent *parent,
			   const struct ds_peer *peer,
			   json_int_t connections,
			   json_t *report)
{
	char buf[32] = "";
	time_t now = time(NULL);
	struct tm *tm = gmtime(&now);
	json_t *lost = json_array();
	json_t *reason = NULL;
	json_t *event = NULL;
	size_t i;

	json_array_foreach(json_object_get(report, "lost"), i, reason) {
		json_array_append_new(lost,
				      json_pack("{ss sO}",
						"client",
						ds_crash_client(peer),
						"reason", reason));
	}
	if (tm != NULL) {
		strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", tm);
	}
	event = json_pack("{ss ss sI sI sI sI sO}",
			  "kind", "crash",
			  "time", buf,
			  "pid", (json_int_t)peer->pid,
			  "connections", connections,
			  "longest_pause_ms", ds_json_int(report, "pause_ms"),
			  "lost", ds_json_int(report, "num_lost"),
			  "lost_detail", lost);
	json_decref(lost);
	if ((event != NULL) && (parent->keeper != NULL)) {
		(void)keeper_event(parent->keeper, event);
	}
	json_decref(event);
}

/*
 * The client is cut off: its socket is closed with the last duplicate.
 */
static void ds_crash_lost(struct ds_parent *parent,
			  struct ds_peer *victim,
			  const char *reason)
{
	json_t *report = json_pack("{sI s[s]}",
				   "num_lost", (json_int_t)1,
				   "lost", reason);

	DBG_ERR("client %s: its process %d was killed, and it cannot go on: "
		"%s\n",
		ds_crash_client(victim),
		(int)victim->pid,
		reason);
	ds_crash_count_dropped(parent, reason);
	ds_crash_event(parent, victim, 0, report);
	json_decref(report);

	ds_crash_drop(parent, victim->pid);
	TALLOC_FREE(victim);
	parent->smbd->reap();
}

static struct ds_held *ds_crash_held(struct ds_parent *parent,
				     struct ds_peer *victim)
{
	struct ds_held *held = talloc_zero(parent, struct ds_held);
	struct timeval now = timeval_current();
	json_t *info = NULL;
	int ret;

	if (held == NULL) {
		return NULL;
	}
	snprintf(held->label,
		 sizeof(held->label),
		 "client-%d",
		 (int)victim->pid);
	ret = keeper_copy(held,
			  parent->keeper,
			  held->label,
			  &info,
			  &held->fds,
			  &held->num_fds);
	if (ret != 0) {
		TALLOC_FREE(held);
		return NULL;
	}
	held->live = json_is_true(json_object_get(info, "live"));
	held->since = timeval_to_nttime(&now);
	if (victim->client == NULL) {
		victim->client = talloc_strdup(
			victim, ds_json_string(info, "client"));
	}
	json_decref(info);
	return held;
}

static void ds_crash_resume(struct ds_peer *victim)
{
	struct ds_parent *parent = victim->parent;
	time_t now = time(NULL);
	struct ds_held *held = NULL;
	struct ds_peer *peer = NULL;
	pid_t pid = -1;

	if (now - victim->born > DS_CRASH_SECONDS) {
		victim->num_crashes = 0;
	}
	if (victim->num_crashes >= DS_CRASH_MAX) {
		ds_crash_lost(parent, victim, "it was killed again and again");
		return;
	}
	if (parent->keeper != NULL) {
		held = ds_crash_held(parent, victim);
	}
	if (held == NULL) {
		ds_crash_lost(parent, victim, "the keeper does not have it");
		return;
	}
	if (held->num_fds >= 2) {
		pid = ds_return_fork(parent, held, ds_crash_client(victim));
	}
	ds_held_close(held);
	TALLOC_FREE(held);
	peer = (pid > 0) ? ds_crash_find(parent, pid) : NULL;
	if (peer == NULL) {
		ds_crash_lost(parent, victim, "no process could be started");
		return;
	}
	peer->returning = false;
	peer->victim = victim;
	peer->born = now;
	peer->num_crashes = victim->num_crashes + 1;
	peer->client = talloc_strdup(peer, ds_crash_client(victim));
}

/*
 * The process that was to go on has been killed as well. If the keeper has its
 * holding the client was its own already; else it is done once more, and this
 * one stays a zombie as long: some things may be its own.
 */
static void ds_crash_again(struct ds_peer *peer)
{
	struct ds_parent *parent = peer->parent;
	struct ds_peer *victim = peer->victim;
	struct ds_held *held = NULL;

	peer->victim = NULL;
	if (parent->keeper != NULL) {
		held = ds_crash_held(parent, peer);
	}
	if (held != NULL) {
		ds_held_close(held);
		TALLOC_FREE(held);
		TALLOC_FREE(victim);
		parent->smbd->reap();
		ds_crash_resume(peer);
		return;
	}
	talloc_steal(victim, peer);
	victim->num_crashes += 1;
	victim->born = time(NULL);
	ds_crash_resume(victim);
}

static void ds_crash_ended(struct tevent_context *ev,
			   struct tevent_fd *fde,
			   uint16_t flags,
			   void *private_data)
{
	struct ds_peer *peer = talloc_get_type_abort(
		private_data, struct ds_peer);
	struct ds_peer *victim = NULL;
	siginfo_t info = { .si_pid = 0 };
	bool crashed;
	int ret;

	ret = waitid(P_PID, peer->pid, &info, WEXITED | WNOHANG | WNOWAIT);
	if ((ret == 0) && (info.si_pid == 0)) {
		/* not yet */
		return;
	}
	TALLOC_FREE(peer->end_fde);

	crashed = (ret == 0) && (peer->parent->stop == NULL) &&
		  ds_crash_is_one(info.si_code, info.si_status);
	victim = peer->victim;
	if (crashed && (victim != NULL)) {
		ds_crash_again(peer);
	} else if (crashed) {
		ds_crash_resume(peer);
	} else {
		peer->victim = NULL;
		if (victim != NULL) {
			ds_crash_lost(peer->parent,
				      victim,
				      "the process that took it over has "
				      "ended");
		}
		ds_peer_ended(peer);
	}
}

bool ds_crash_begin(struct ds_peer *peer)
{
	struct ds_peer *victim = peer->victim;
	bool wait = (peer->parent->stop == NULL) &&
		    (peer->parent->keeper != NULL) && !peer->returning;

	if (wait) {
		peer->end_fd = pidfd_open(peer->pid, 0);
	}
	if (peer->end_fd != -1) {
		ds_peer_close(peer);
		ds_admin_peer_gone(peer);
		peer->end_fde = tevent_add_fd(peer->parent->ev,
					      peer,
					      peer->end_fd,
					      TEVENT_FD_READ,
					      ds_crash_ended,
					      peer);
	}
	if (peer->end_fde != NULL) {
		return true;
	}
	peer->victim = NULL;
	if (victim != NULL) {
		ds_crash_lost(peer->parent,
			      victim,
			      "the process that took it over has ended");
	}
	return false;
}

void ds_crash_peer(struct ds_peer *peer, const char *op, json_t *json)
{
	struct ds_parent *parent = peer->parent;
	struct ds_peer *victim = peer->victim;
	const char *reason = NULL;

	if (strequal(op, "restored") && (victim != NULL)) {
		peer->victim = NULL;
		peer->resumed = victim->pid;
		TALLOC_FREE(victim);
		/* what nobody took over is a dead process' from here on */
		parent->smbd->reap();
		peer->state = DS_PEER_RUNNING;
		ds_peer_send(peer, json_pack("{ss}", "op", "thaw"));
	} else if (strequal(op, "thawed") && (peer->resumed != 0)) {
		DBG_ERR("client %s: its process %d was killed, %d goes on "
			"after %" JSON_INTEGER_FORMAT " ms\n",
			ds_crash_client(peer),
			(int)peer->resumed,
			(int)peer->pid,
			ds_json_int(json, "pause_ms"));
		peer->resumed = 0;
		ds_crash_count(parent, json);
		ds_crash_event(parent, peer, 1, json);
	} else if (strequal(op, "failed") && (victim != NULL)) {
		peer->victim = NULL;
		reason = ds_json_string(json, "reason");
		ds_crash_lost(parent, victim, reason != NULL ? reason : "?");
	}
}
