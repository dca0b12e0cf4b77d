# Unix SMB/CIFS implementation.
#
# SMB2 requests one by one, for tests.
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

"""Requests that nobody waits for, compounds, and what is in the replies.

    client = Client(address, "durable")
    mids = client.post([create("file"), close(RELATED)], related=True)
    created, closed = client.replies(mids)

Sections in the comments are those of MS-SMB2.
"""

import collections
import os
import struct

from server import PASSWORD, PORT, USER, import_bindings

import_bindings()
import smb2
from samba.ntstatus import NT_STATUS_OK, NT_STATUS_PENDING

(NEGOTIATE, SESSION_SETUP, LOGOFF, TREE_CONNECT, TREE_DISCONNECT, CREATE, CLOSE,
 FLUSH, READ, WRITE, LOCK, IOCTL, CANCEL, ECHO, QUERY_DIRECTORY, NOTIFY,
 QUERY_INFO, SET_INFO, BREAK) = range(19)

FLAG_ASYNC, FLAG_RELATED = 2, 4
# What is asked for here is answered at once
smb2.TIMEOUT = 10

# The file that the request before it in a compound has opened
RELATED = b"\xff" * 16
UNIT = 65536
# leases and large PDUs
CAPABILITIES = 2 | 4

# dispositions and options of CREATE
SUPERSEDE, OPEN, MAKE, OPEN_IF, OVERWRITE, OVERWRITE_IF = range(6)
DIRECTORY_FILE, NON_DIRECTORY, DELETE_ON_CLOSE = 1, 0x40, 0x1000
# access
READ_WRITE, ALL = 0xc0000000, 0x001f01ff
# oplock levels
LEVEL_NONE, LEVEL_II, LEVEL_EXCLUSIVE, LEVEL_BATCH = 0, 1, 8, 9
LEASE_LEVEL = smb2.LEASE_LEVEL

# what and which class: QUERY_INFO and SET_INFO (2.2.37, 2.2.39)
INFO_FILE, INFO_FILESYSTEM, INFO_SECURITY = 1, 2, 3
(BASIC, STANDARD, INTERNAL, EA_SIZE, RENAME, LINK, NAMES, DISPOSITION,
 POSITION, FULL_EA, MODE, ALL_INFO, ALLOCATION, END_OF_FILE, STREAMS,
 NETWORK_OPEN, ATTRIBUTE_TAG, ID_BOTH_DIRECTORY) = (
     4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 22, 34, 35, 37)
FS_VOLUME, FS_SIZE, FS_ATTRIBUTE, FS_FULL_SIZE, FS_OBJECT_ID = 1, 3, 5, 7, 8

# flags of QUERY_DIRECTORY
RESTART, SINGLE_ENTRY = 1, 2

(FSCTL_RESUME_KEY, FSCTL_COPYCHUNK, FSCTL_COPYCHUNK_WRITE, FSCTL_SET_SPARSE,
 FSCTL_SET_ZERO_DATA, FSCTL_ALLOCATED_RANGES, FSCTL_VALIDATE_NEGOTIATE,
 FSCTL_NETWORK_INTERFACES, FSCTL_GET_COMPRESSION, FSCTL_SET_COMPRESSION,
 FSCTL_OBJECT_ID, FSCTL_DUP_EXTENTS, FSCTL_GET_REPARSE_POINT) = (
     0x00140078, 0x001440F2, 0x001480F2, 0x000900C4, 0x000980C8, 0x000940CF,
     0x00140204, 0x001401FC, 0x0009003C, 0x0009C040, 0x000900C0, 0x00098344,
     0x000900A8)

Request = collections.namedtuple("Request", "command body charge",
                                 defaults=(1,))


def charge(size):
    return max(1, (size + UNIT - 1) // UNIT)


# requests, in the order of their numbers

def logoff():
    return Request(LOGOFF, struct.pack("<HH", 4, 0))


def tree_connect(address, share):
    path = f"\\\\{address}\\{share}".encode("utf-16-le")
    return Request(TREE_CONNECT,
                   struct.pack("<HHHH", 9, 0, 72, len(path)) + path)


def tree_disconnect():
    return Request(TREE_DISCONNECT, struct.pack("<HH", 4, 0))


def contexts(*pairs):
    """(2.2.13.2)"""
    out = b""
    for n, (name, data) in enumerate(pairs):
        one = struct.pack("<HHHHI4s4x", 16, 4, 0, 24, len(data), name) + data
        following = 0
        if n + 1 < len(pairs):
            one += bytes(-(4 + len(one)) % 8)
            following = 4 + len(one)
        out += struct.pack("<I", following) + one
    return out


def create(name, disposition=OPEN_IF, options=0, access=ALL, share=7,
           attributes=0, oplock=0, extra=()):
    """extra: pairs of a create context's name and its data"""
    path = name.encode("utf-16-le")
    more = contexts(*extra)
    padding = bytes(-(120 + len(path)) % 8) if more else b""
    return Request(CREATE, struct.pack(
        "<HBBIQQIIIIIHHII", 57, 0, oplock, 2, 0, 0, access, attributes, share,
        disposition, options, 120, len(path),
        120 + len(path) + len(padding) if more else 0, len(more)) +
        (path or b"\0") + padding + more)


def lease(key, state):
    return b"RqLs", struct.pack("<16sIIQ", key, state, 0, 0)


def lease_v2(key, state, epoch=0):
    return b"RqLs", struct.pack("<16sIIQ16sHH", key, state, 0, 0, bytes(16),
                                epoch, 0)


def durable(guid, timeout=60000):
    return b"DH2Q", struct.pack("<IIQ16s", timeout, 0, 0, guid)


def close(handle, attributes=False):
    return Request(CLOSE, struct.pack("<HHI16s", 24, int(attributes), 0,
                                      handle))


def flush(handle):
    return Request(FLUSH, struct.pack("<HHI16s", 24, 0, 0, handle))


def read(handle, offset, length, minimum=0):
    return Request(READ, struct.pack("<HBBIQ16sIIIHHB", 49, 80, 0, length,
                                     offset, handle, minimum, 0, 0, 0, 0, 0),
                   charge(length))


def write(handle, offset, data):
    return Request(WRITE, struct.pack("<HHIQ16sIIHHI", 49, 112, len(data),
                                      offset, handle, 0, 0, 0, 0, 0) + data,
                   charge(len(data)))


def lock(handle, *elements, sequence=0):
    """elements: offset, length, flags"""
    return Request(LOCK, struct.pack("<HHI16s", 48, len(elements), sequence,
                                     handle) +
                   b"".join(struct.pack("<QQII", *element, 0)
                            for element in elements))


def ioctl(handle, code, data=b"", maximum=UNIT):
    return Request(IOCTL, struct.pack(
        "<HHI16sIIIIIIII", 57, 0, code, handle, 120 if data else 0, len(data),
        0, 0, 0, maximum, 1, 0) + (data or b"\0"),
        charge(max(maximum, len(data))))


def echo():
    return Request(ECHO, struct.pack("<HH", 4, 0))


def query_directory(handle, level=NAMES, flags=0, pattern="*", maximum=UNIT):
    pattern = pattern.encode("utf-16-le")
    return Request(QUERY_DIRECTORY, struct.pack(
        "<HBBI16sHHI", 33, level, flags, 0, handle, 96, len(pattern),
        maximum) + pattern, charge(maximum))


def notify(handle, tree=False, what=3):
    return Request(NOTIFY, struct.pack("<HHI16sII", 32, int(tree), UNIT,
                                       handle, what, 0))


def query_info(handle, kind, level=0, additional=0, data=b""):
    return Request(QUERY_INFO, struct.pack(
        "<HBBIHHIII16s", 41, kind, level, UNIT, 104 if data else 0, 0,
        len(data), additional, 0, handle) + data)


def set_info(handle, kind, level, data, additional=0):
    return Request(SET_INFO, struct.pack(
        "<HBBIHHI16s", 33, kind, level, len(data), 96, 0, additional,
        handle) + data)


def set_name(handle, level, name, replace=False):
    """RENAME or LINK"""
    path = name.encode("utf-16-le")
    return set_info(handle, INFO_FILE, level, struct.pack(
        "<B7xQI", int(replace), 0, len(path)) + path)


def oplock_break(handle, level):
    return Request(BREAK, struct.pack("<HBBI16s", 24, level, 0, 0, handle))


def lease_break(key, state):
    return Request(BREAK, struct.pack("<HHI16sIQ", 36, 0, 0, key, state, 0))


class Reply:
    """The last one to a request; credits: of all to it."""

    def __init__(self, packet, credits):
        (_, _, _, self.status, self.command, _, self.flags, _, self.mid, _,
         self.tree, self.session, _) = smb2.HEADER.unpack_from(packet)
        self.packet = packet
        self.body = packet[64:]
        self.credits = credits

    @property
    def ok(self):
        return self.status == NT_STATUS_OK

    def _part(self, offset, length):
        return self.packet[offset:offset + length]

    def _unpack(self, layout, offset):
        """Fields of a reply, SMBError if it is an error"""
        if not self.ok:
            raise smb2.SMBError(f"command {self.command}", self.status)
        return struct.unpack_from(layout, self.body, offset)

    # CREATE (2.2.14)

    @property
    def handle(self):
        return self._unpack("16s", 64)[0]

    @property
    def oplock(self):
        return self._unpack("<B", 2)[0]

    @property
    def action(self):
        return self._unpack("<I", 4)[0]

    @property
    def write_time(self):
        """Of CREATE, and of CLOSE with attributes"""
        return self._unpack("<Q", 24)[0]

    @property
    def sizes(self):
        """Allocated, end of file, and attributes: of CREATE and CLOSE"""
        return self._unpack("<QQI", 40)

    def contexts(self):
        offset, length = self._unpack("<II", 80)
        found = {}
        while length:
            following, name, _, _, begin, size = struct.unpack_from(
                "<IHHHHI", self.packet, offset)
            found[self._part(offset + name, 4)] = self._part(offset + begin,
                                                             size)
            if not following:
                break
            offset += following
        return found

    # those with data

    @property
    def data(self):
        if self.command == READ:
            return self._part(self._unpack("<B", 2)[0],
                              self._unpack("<I", 4)[0])
        if self.command == IOCTL:
            return self._part(*self._unpack("<II", 32))
        return self._part(*self._unpack("<HI", 2))

    @property
    def count(self):
        """Of WRITE"""
        return self._unpack("<I", 4)[0]

    def entries(self, name=12):
        """Of a list in which each has the offset of the next: from "name" on
        there is a name."""
        data = self.data
        found = []
        while data:
            following, = struct.unpack_from("<I", data)
            size, = struct.unpack_from("<I", data, 60 if name > 12 else 8)
            found.append(data[name:name + size].decode("utf-16-le"))
            data = data[following:] if following else b""
        return found


class Client(smb2.Client):
    """As smb2.Client, and requests of this file."""

    def __init__(self, address, share, user=USER):
        self.address = address
        self.guid = os.urandom(16)
        # of all requests that were sent, credits by message id
        self._granted = {}
        self._answered = set()
        self.pending = {}
        self.oplock_breaks = []
        super().__init__(address, PORT, share, user, PASSWORD)

    # transport

    def _receive(self):
        length, = struct.unpack(">I", self._bytes(4))
        rest = self._bytes(length)
        while rest:
            following, = struct.unpack_from("<I", rest, 20)
            packet = rest[:following or len(rest)]
            rest = rest[len(packet):]
            self._received(packet)

    def _received(self, packet):
        (_, _, _, status, _, credits, flags, _, mid, _, tree, session,
         _) = smb2.HEADER.unpack_from(packet)
        if mid == smb2.UNSOLICITED:
            if packet[64] == 24:
                self.oplock_breaks.append((packet[72:88], packet[66]))
            else:
                self._lease_break(packet)
            return
        if mid >= self._next_id:
            raise AssertionError(f"an answer to {mid}, which was never asked")
        if mid in self._answered:
            raise AssertionError(f"request {mid} was answered twice")
        self._granted[mid] = self._granted.get(mid, 0) + credits
        if status == NT_STATUS_PENDING:
            self.pending[mid] = packet[32:40]
            return
        self.pending.pop(mid, None)
        self._answered.add(mid)
        self._replies[mid] = (status, tree, session, packet)

    def _header(self, request, mid, flags=0, following=0, async_id=None):
        header = smb2.HEADER.pack(
            b"\xfeSMB", 64, request.charge, 0, request.command,
            # as many as it takes: so they are the same each time
            request.charge, flags, following, mid, 0, self._tree,
            self._session, bytes(16))
        if async_id is not None:
            header = header[:32] + async_id + header[40:]
        return header

    def _send_pdu(self, pdu):
        try:
            self._sock.sendall(struct.pack(">I", len(pdu)) + pdu)
        except OSError as e:
            raise smb2.Disconnected(
                f"connection lost: {e.strerror}") from None

    def post(self, requests, related=False):
        """One PDU; returns the message ids."""
        mids = []
        pdu = b""
        for n, request in enumerate(requests):
            last = n == len(requests) - 1
            body = request.body
            if not last:
                body += bytes(-len(body) % 8)
            pdu += self._header(request, self._next_id,
                                FLAG_RELATED if related and n else 0,
                                0 if last else 64 + len(body)) + body
            mids.append(self._next_id)
            self._next_id += request.charge
        self._send_pdu(pdu)
        return mids

    def cancel(self, mid):
        async_id = self.pending.get(mid)
        request = Request(CANCEL, struct.pack("<HH", 4, 0), 0)
        self._send_pdu(self._header(
            request, mid, 0 if async_id is None else FLAG_ASYNC, 0,
            async_id) + request.body)

    def replies(self, mids):
        found = []
        for mid in mids:
            while mid not in self._replies:
                self._receive()
            packet = self._replies.pop(mid)[3]
            found.append(Reply(packet, self._granted.pop(mid)))
        return found

    def ask(self, request):
        """Its reply, whatever that is"""
        return self.replies(self.post([request]))[0]

    def do(self, request):
        """Its reply, or SMBError"""
        reply = self.ask(request)
        if not reply.ok:
            raise smb2.SMBError(f"command {request.command}", reply.status)
        return reply

    def oplock_break(self, handle):
        """The level that this file's oplock is broken to"""
        while True:
            for n, (broken, level) in enumerate(self.oplock_breaks):
                if broken == handle:
                    del self.oplock_breaks[n]
                    return level
            if not self._readable(smb2.TIMEOUT):
                raise AssertionError("no oplock break")
            self._receive()

    def lease_break(self, key):
        """The same of a lease: former and new state, wants an answer"""
        while True:
            for n, (broken, *states) in enumerate(self.breaks):
                if broken == key:
                    del self.breaks[n]
                    return tuple(states)
            if not self._readable(smb2.TIMEOUT):
                raise AssertionError("no lease break")
            self._receive()

    # connection and sessions

    def _negotiate(self):
        self.call(NEGOTIATE, struct.pack(
            "<HHHHI16sQH", 36, 1, 1, 0, CAPABILITIES, self.guid, 0,
            smb2.DIALECT),
            "negotiate")

    @property
    def ids(self):
        return self._session, self._tree

    def use(self, ids):
        """Another session and tree connect; returns the former ones."""
        former = self.ids
        self._session, self._tree = ids
        return former
