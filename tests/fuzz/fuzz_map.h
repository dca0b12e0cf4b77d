/*
   durable_state: memory that a fuzzer maps

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

#ifndef _DURABLE_STATE_FUZZ_MAP_H_
#define _DURABLE_STATE_FUZZ_MAP_H_

#include "replace.h"

/*
 * While it is set, what is mapped is a copy on the heap: a mapping ends with a
 * page, and what is read behind the end of the file goes unnoticed.
 */
extern bool fuzz_map_copies;

#endif /* _DURABLE_STATE_FUZZ_MAP_H_ */
