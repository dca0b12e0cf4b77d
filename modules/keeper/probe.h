/*
 * durable_state: SMB clients survive smbd restarts
 * Can a program carry on for this one?
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

#ifndef _DURABLE_STATE_PROBE_H_
#define _DURABLE_STATE_PROBE_H_

#include <talloc.h>
#include <tevent.h>

/*
 * After execve(2) there is no way back: a program that then does not find a
 * library, or cannot read what we leave it, takes everything with it. So it
 * is run once beforehand, beside us, and has to say that it can.
 */
#define PROBE_OPTION "--reads-state"

struct probe;

typedef void (*probe_fn)(void *private_data, bool ok);

/**
 * @brief The answer to PROBE_OPTION, on standard output.
 */
void probe_answer(void);

/**
 * @brief Ask a program. Freeing the result ends it.
 *
 * @param[in] fn  Called once, not before this has returned. What is wrong is
 *		  logged before.
 *
 * @return NULL on error, which is logged.
 */
struct probe *probe_program(TALLOC_CTX *mem_ctx,
			    struct tevent_context *ev,
			    const char *program,
			    probe_fn fn,
			    void *private_data);

#endif /* _DURABLE_STATE_PROBE_H_ */
