/*
   durable_state: the records of an image, for fuzzers

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

#ifndef _DURABLE_STATE_FUZZ_NDR_H_
#define _DURABLE_STATE_FUZZ_NDR_H_

#include "replace.h"
#include "lib/util/data_blob.h"

/* Types beyond those of durable_state.idl: what is in their blobs */
enum fuzz_record_type {
	FUZZ_RECORD_SESSION_GLOBAL = 0x10,
	FUZZ_RECORD_TCON_GLOBAL = 0x11,
	FUZZ_RECORD_OPEN_GLOBAL = 0x12,
};

/*
 * Pull a record of this type, and with it what is in it. Where that works
 * the record is pushed and pulled again, and has to be the same.
 */
void fuzz_record(uint32_t type, DATA_BLOB data);

#endif /* _DURABLE_STATE_FUZZ_NDR_H_ */
