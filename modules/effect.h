/*
   durable_state: what a request does to names

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

#ifndef _DURABLE_STATE_EFFECT_H_
#define _DURABLE_STATE_EFFECT_H_

#include "replace.h"
#include "durable_state/durable_state.h"

/*
 * A request that is run again must not meet what it has done before: a name
 * that it has made would be a collision, one that it has given away not found.
 * So before it makes or changes a name that is written down, and undone before
 * it is run again. Everything else that requests do can be done twice.
 *
 * From the VFS, before the name is made: a regular file or a directory, a
 * new name of a file, a link to it. Before the name is removed: by a compound
 * only, which has opened it by its name; to a CLOSE that finds nothing more
 * to do there is an answer (resume.h).
 */
struct connection_struct;
struct files_struct;
struct smb_filename;
struct ds_restore;

void ds_effect_create(struct connection_struct *conn,
		      const struct files_struct *dirfsp,
		      const struct smb_filename *smb_fname,
		      enum ds_effect_kind kind);
void ds_effect_name(struct connection_struct *conn,
		    const struct files_struct *srcfsp,
		    const struct smb_filename *src,
		    const struct files_struct *dstfsp,
		    const struct smb_filename *dst,
		    enum ds_effect_kind kind);

void ds_effect_unlink(struct connection_struct *conn,
		      const struct files_struct *dirfsp,
		      const struct smb_filename *smb_fname);

/*
 * Undo it, if it was done, and if nobody else has made something of it. An
 * error is for the log only: the request will have another answer then.
 */
void ds_effect_undo(struct ds_restore *restore,
		    const struct ds_effect *effect);

#endif /* _DURABLE_STATE_EFFECT_H_ */
