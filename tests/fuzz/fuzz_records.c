/*
   durable_state: fuzz the records of an image

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
 * The first byte is the type of a record, what follows the record.
 */

#include "replace.h"
#include "fuzz_common.h"
#include "fuzz_ndr.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_messages();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DATA_BLOB copy;

	if (size == 0) {
		return 0;
	}
	/* of that size, so that nothing is read behind it */
	copy = data_blob_talloc(NULL, data + 1, size - 1);
	fuzz_record(data[0], copy);
	data_blob_free(&copy);
	return 0;
}
