/*
   durable_state: where the streams of a TCP connection stand

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

#ifndef _DURABLE_STATE_STREAM_H_
#define _DURABLE_STATE_STREAM_H_

#include "replace.h"

/*
 * How many bytes were read from a TCP socket, and how many were written to
 * it, since the connection began: the kernel knows it exactly, also of a
 * process that was killed in the middle of a system call (tcp(7), TCP_INFO;
 * SIOCINQ and SIOCOUTQ). Nobody may read or write meanwhile. Returns 0 or an
 * errno.
 */
int ds_stream_position(int sock, uint64_t *read, uint64_t *written);

#endif /* _DURABLE_STATE_STREAM_H_ */
