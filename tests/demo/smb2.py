# Unix SMB/CIFS implementation.
#
# A small SMB2 client for the demonstration.
#
# Copyright (C) The durable_state developers 2026
#
# This program is free software; you can redistribute it and/or modify
# it under the terms of the GNU General Public License as published by
# the Free Software Foundation; either version 3 of the License, or
# (at your option) any later version.
#
# This program is distributed in the hope that it will be useful,
# but WITHOUT ANY WARRANTY; without even the implied warranty of
# MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
# GNU General Public License for more details.
#
# You should have received a copy of the GNU General Public License
# along with this program.  If not, see <http://www.gnu.org/licenses/>.
#

"""Enough of SMB 3.02 to hold locks and a lease and to watch a directory.

Samba's own Python client has neither locks nor leases. This one never
reconnects and repeats nothing, so whatever the server loses is an error here.
Sections in the comments are those of MS-SMB2.
"""

import os
import select
import socket
import struct

from samba import gensec, ntstatus
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.ntstatus import (NT_STATUS_MORE_PROCESSING_REQUIRED,
                            NT_STATUS_NOTIFY_ENUM_DIR, NT_STATUS_OK,
                            NT_STATUS_PENDING)
from samba.param import LoadParm

DIALECT = 0x0302

NEGOTIATE, SESSION_SETUP = 0, 1
TREE_CONNECT, CREATE, CLOSE = 3, 5, 6
READ, WRITE, LOCK, NOTIFY, BREAK = 8, 9, 10, 15, 18

HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
FLAG_RESPONSE = 1
UNSOLICITED = 0xffffffffffffffff

LEASE_READ, LEASE_HANDLE, LEASE_WRITE = 1, 2, 4
LEASE_LEVEL = 0xff

LOCK_SHARED, LOCK_EXCLUSIVE, UNLOCK, FAIL_IMMEDIATELY = 1, 2, 4, 0x10

GENERIC_READ_WRITE = 0xc0000000
LIST_DIRECTORY = 0x00100081
SHARE_ALL = 7
OPEN, OPEN_IF = 1, 3
OPTION_DIRECTORY = 1

# More than a restart may take, less than a person waits for a demonstration
TIMEOUT = 60


def status_name(status):
    """NT_STATUS_..., or the number of one that Samba has no name for."""
    for name, value in vars(ntstatus).items():
        if name.startswith("NT_STATUS_") and value == status:
            return name
    return f"NT_STATUS 0x{status:08x}"


class SMBError(Exception):
    """The server answered with an error."""

    def __init__(self, what, status):
        super().__init__(f"{what}: {status_name(status)}")
        self.status = status


class Disconnected(Exception):
    """The server closed the connection."""


def lease_name(state):
    """'RWH' and the like."""
    return "".join(c for c, bit in zip("RWH", (LEASE_READ, LEASE_WRITE,
                                               LEASE_HANDLE))
                   if state & bit) or "none"


class Client:
    """One connection with one session and one tree connect.

    Requests are sent with send() and their replies fetched with wait(), in
    any order; call() does both. Lease breaks are collected in `breaks`.
    """

    def __init__(self, address, port, share, user, password):
        self._next_id = 0
        self._session = self._tree = 0
        self._replies = {}
        self._buffer = b""
        self.breaks = []
        self._sock = socket.create_connection((address, port), TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._sock.getsockname()[1]
        self._negotiate()
        self._login(user, password)
        path = f"\\\\{address}\\{share}".encode("utf-16-le")
        self.call(TREE_CONNECT,
                  struct.pack("<HHHH", 9, 0, 72, len(path)) + path)

    def close(self):
        """Ends the connection, without a logoff."""
        self._sock.close()

    # transport

    def send(self, command, body):
        """Returns the message id, for wait()."""
        mid = self._next_id
        self._next_id += 1
        header = HEADER.pack(b"\xfeSMB", 64, 1, 0, command, 32, 0, 0, mid, 0,
                             self._tree, self._session, bytes(16))
        try:
            self._sock.sendall(struct.pack(">I", len(header) + len(body)) +
                               header + body)
        except OSError as e:
            raise Disconnected(f"connection lost: {e.strerror}") from None
        return mid

    def _readable(self, seconds):
        """True if something arrives in time, or has been read already."""
        return bool(self._buffer or
                    select.select([self._sock], [], [], seconds)[0])

    def _bytes(self, count):
        while len(self._buffer) < count:
            try:
                data = self._sock.recv(1024 * 1024)
            except TimeoutError:
                raise Disconnected(f"no answer for {TIMEOUT} s") from None
            except OSError as e:
                raise Disconnected(f"connection lost: {e.strerror}") from None
            if not data:
                raise Disconnected("connection closed by the server")
            self._buffer += data
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _receive(self):
        length, = struct.unpack(">I", self._bytes(4))
        packet = self._bytes(length)
        (_, _, _, status, command, _, flags, _, mid, _, tree, session,
         _) = HEADER.unpack_from(packet)
        if mid == UNSOLICITED:
            self._lease_break(packet)
        elif status != NT_STATUS_PENDING:
            self._replies[mid] = (status, tree, session, packet)

    def wait(self, mid, what="request", allowed=()):
        """(status, packet) of the final reply; raises SMBError."""
        while mid not in self._replies:
            self._receive()
        status, tree, session, packet = self._replies.pop(mid)
        if not self._session:
            self._session = session
        if not self._tree:
            self._tree = tree
        if status != NT_STATUS_OK and status not in allowed:
            raise SMBError(what, status)
        return status, packet

    def call(self, command, body, what="request", allowed=()):
        return self.wait(self.send(command, body), what, allowed)

    def answered(self, mid, seconds):
        """True if the reply is there within that time."""
        while mid not in self._replies:
            if not self._readable(seconds):
                return False
            self._receive()
        return True

    # connection, session (2.2.3, 2.2.5)

    def _negotiate(self):
        self.call(NEGOTIATE,
                  struct.pack("<HHHHI16sQH", 36, 1, 1, 0, 2, os.urandom(16),
                              0, DIALECT), "negotiate")

    def _login(self, user, password):
        lp = LoadParm()
        credentials = Credentials()
        credentials.guess(lp)
        credentials.set_kerberos_state(DONT_USE_KERBEROS)
        credentials.set_username(user)
        credentials.set_password(password)
        mechanism = gensec.Security.start_client({"lp_ctx": lp,
                                                  "target_hostname": ""})
        mechanism.set_credentials(credentials)
        mechanism.start_mech_by_name("spnego")
        token = b""
        status = NT_STATUS_MORE_PROCESSING_REQUIRED
        while status != NT_STATUS_OK:
            _, token = mechanism.update(token)
            status, packet = self.call(
                SESSION_SETUP,
                struct.pack("<HBBIIHHQ", 25, 0, 1, 0, 0, 88, len(token), 0) +
                token, "login", (NT_STATUS_MORE_PROCESSING_REQUIRED,))
            offset, length = struct.unpack_from("<HH", packet, 68)
            token = packet[offset:offset + length]

    # files

    def open(self, name, access=GENERIC_READ_WRITE, lease_key=None,
             lease=0, directory=False):
        """The 16 bytes of the file id, and the lease state granted."""
        return self.open_wait(self.open_send(name, access, lease_key, lease,
                                             directory))

    def open_send(self, name, access=GENERIC_READ_WRITE, lease_key=None,
                  lease=0, directory=False):
        path = name.encode("utf-16-le")
        context = b""
        padding = b""
        if lease_key is not None:
            # 2.2.13.2.8 in the frame of 2.2.13.2
            context = struct.pack("<IHHHHI4s4x16sIIQ", 0, 16, 4, 0, 24, 32,
                                  b"RqLs", lease_key, lease, 0, 0)
            padding = bytes(-(120 + len(path)) % 8)
        body = struct.pack("<HBBIQQIIIIIHHII", 57, 0,
                           LEASE_LEVEL if context else 0, 2, 0, 0,
                           access, 0, SHARE_ALL,
                           OPEN if directory else OPEN_IF,
                           OPTION_DIRECTORY if directory else 0,
                           120, len(path),
                           120 + len(path) + len(padding) if context else 0,
                           len(context))
        return self.send(CREATE, body + (path or b"\0") + padding + context)

    def open_wait(self, mid):
        _, packet = self.wait(mid, "open")
        offset, length = struct.unpack_from("<II", packet, 64 + 80)
        granted = 0
        if length:
            # the only context there can be is the lease
            data, = struct.unpack_from("<H", packet, offset + 10)
            granted, = struct.unpack_from("<I", packet, offset + data + 16)
        return packet[64 + 64:64 + 80], granted

    def write(self, handle, offset, data):
        self.call(WRITE, struct.pack("<HHIQ16sIIHHI", 49, 112, len(data),
                                     offset, handle, 0, 0, 0, 0, 0) + data,
                  "write")

    def write_send(self, handle, offset, data):
        body = struct.pack("<HHIQ16sIIHHI", 49, 64 + 48, len(data), offset,
                           handle, 0, 0, 0, 0, 0)
        return self.send(WRITE, body + data)

    def read(self, handle, offset, length):
        _, packet = self.call(READ,
                              struct.pack("<HBBIQ16sIIIHHB", 49, 80, 0,
                                          length, offset, handle, 0, 0, 0, 0,
                                          0, 0), "read")
        start = packet[64 + 2]
        return packet[start:start + length]

    def lock(self, handle, offset, length, flags):
        self.call(LOCK, struct.pack("<HHI16sQQII", 48, 1, 0, handle, offset,
                                    length, flags, 0), "lock")

    def watch_send(self, handle):
        """Asks for changes of names in a directory."""
        return self.send(NOTIFY, struct.pack("<HHI16sII", 32, 0, 65536,
                                             handle, 3, 0))

    def watch_wait(self, mid):
        """Names that changed; None if the server says only that some did."""
        status, packet = self.wait(mid, "change notify",
                                   (NT_STATUS_NOTIFY_ENUM_DIR,))
        if status == NT_STATUS_NOTIFY_ENUM_DIR:
            return None
        offset, length = struct.unpack_from("<HI", packet, 64 + 2)
        names = []
        while length:
            following, _, size = struct.unpack_from("<III", packet, offset)
            names.append(packet[offset + 12:offset + 12 + size]
                         .decode("utf-16-le"))
            if not following:
                break
            offset += following
        return names

    # leases (2.2.23.2, 2.2.24.2)

    def _lease_break(self, packet):
        flags, key, old, new = struct.unpack_from("<4xI16sII", packet, 64)
        self.breaks.append((key, old, new, bool(flags & 1)))

    def wait_break(self, seconds):
        """True if there is a lease break within that time."""
        while not self.breaks:
            if not self._readable(seconds):
                return False
            self._receive()
        return True

    def acknowledge(self, key, state):
        self.call(BREAK, struct.pack("<HHI16sIQ", 36, 0, 0, key, state, 0),
                  "lease break acknowledgement")
