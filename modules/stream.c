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

/* not together with netinet/tcp.h, whose tcp_info ends before what we need */
#include "replace.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include "stream.h"

/* enum of the kernel, which no header of linux/ has */
#define DS_TCP_CLOSE_WAIT 8

static int ds_tcp_info(int sock, struct tcp_info *info)
{
	socklen_t len = sizeof(*info);
	int ret;

	*info = (struct tcp_info) { .tcpi_state = 0 };
	ret = getsockopt(sock, IPPROTO_TCP, TCP_INFO, info, &len);
	if (ret == -1) {
		return errno;
	}
	if (len < offsetof(struct tcp_info, tcpi_segs_out)) {
		return ENOTSUP;
	}
	return 0;
}

int ds_stream_position(int sock, uint64_t *nread, uint64_t *nwritten)
{
	struct tcp_info before;
	struct tcp_info after;
	int in;
	int out;
	int ret;

	ret = ds_tcp_info(sock, &after);
	do {
		before = after;
		if ((ret != 0) ||
		    (ioctl(sock, SIOCINQ, &in) == -1) ||
		    (ioctl(sock, SIOCOUTQ, &out) == -1))
		{
			return (ret != 0) ? ret : errno;
		}
		ret = ds_tcp_info(sock, &after);
		/* segments and acknowledgements may arrive meanwhile */
	} while ((ret != 0) ||
		 (before.tcpi_bytes_received != after.tcpi_bytes_received) ||
		 (before.tcpi_bytes_acked != after.tcpi_bytes_acked));

	*nread = after.tcpi_bytes_received - in;
	if ((after.tcpi_state == DS_TCP_CLOSE_WAIT) && (*nread > 0)) {
		/* the FIN was counted as one */
		*nread -= 1;
	}
	*nwritten = after.tcpi_bytes_acked + out;
	return 0;
}
