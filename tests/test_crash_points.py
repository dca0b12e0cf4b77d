#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# A client's process is killed at each save point of each SMB2 command.
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

"""usage: test_crash_points.py [-p POINT] [-v VARIANT] [PATTERN...]

Only cases whose title in the table has such a pattern in it. How a case works
is said in lib/points.py; the client never reconnects. Signed and encrypted
requests are in test_torture_suite.sh.

DS_PREFIX   the installed tree (default: build/prefix)
DS_ADDRESS  address of the server (default: 127.0.0.81)
"""

import argparse
import os
import stat
import struct
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "demo")]
from server import PASSWORD, USER, Server, end_cleanly, wait_until
# with Samba's modules
import packets as p
import smb2
from points import (CASES, EARLY, EXCLUSIVE, NAMES, POINTS, SILENT, Cell,
                    Matrix, case, cases, compare, info_times, standard)
from samba import gensec
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack
from samba.ntstatus import (NT_STATUS_CANCELLED, NT_STATUS_DELETE_PENDING,
                            NT_STATUS_FILE_CLOSED, NT_STATUS_LOCK_NOT_GRANTED,
                            NT_STATUS_MORE_PROCESSING_REQUIRED,
                            NT_STATUS_NO_MORE_FILES, NT_STATUS_NOTIFY_ENUM_DIR,
                            NT_STATUS_SHARING_VIOLATION,
                            NT_STATUS_USER_SESSION_DELETED)
from samba.param import LoadParm

ADDRESS = os.environ.get("DS_ADDRESS", "127.0.0.81")
VARIANTS = {
    "default": (),
    # all of them in the process itself, and not in a thread of it
    "synchronous": ("aio read size = 0", "aio write size = 0"),
}
# What differs with "synchronous"
SYNCHRONOUS = "READ", "WRITE", "FLUSH", "IOCTL", "CREATE: compound"
SHARED = smb2.LOCK_SHARED | smb2.FAIL_IMMEDIATELY
FULL = smb2.LEASE_READ | smb2.LEASE_WRITE | smb2.LEASE_HANDLE
DATA = bytes(range(256)) * 40
EPOCH = 11644473600


def nttime(seconds):
    return int((seconds + EPOCH) * 10000000)


def utf16(text):
    return text.encode("utf-16-le")


def same_time(cell, reply, name):
    """The answer has the time of the file that there is now."""
    written = os.stat(cell.path(name)).st_mtime_ns // 100 + EPOCH * 10000000
    cell.see("time is the file's", reply.write_time == written)


def works(cell, handle, name):
    """A handle of a file, for writing and reading"""
    cell.client.do(p.write(handle, 3, b"works"))
    cell.equal(cell.client.do(p.read(handle, 3, 5)).data, b"works",
               "read with the handle")
    cell.equal(cell.content(name)[3:8], b"works", "content of the file")


def can_list(cell, handle):
    return sorted(cell.client.do(p.query_directory(
        handle, flags=p.RESTART)).entries())


# ECHO, TREE_CONNECT, TREE_DISCONNECT, LOGOFF, SESSION_SETUP

# Whether a change was before or after something is not certain within a tick
# of the kernel's clock
TICK_SECONDS = 0.05
WATCH_ENDS = (NT_STATUS_CANCELLED, NT_STATUS_NOTIFY_ENUM_DIR)



@case("KEEPALIVE")
def echo(cell):
    cell.run(p.echo())


@case("TCON")
def tree_connect(cell):
    client = cell.client
    client.use((client.ids[0], 0))
    reply, = cell.run(p.tree_connect(client.address, "plain"))
    cell.see("body", reply.body)
    former = client.use((client.ids[0], reply.tree))
    # in the other share
    handle = client.do(p.create(f"tcon{cell.matrix.cells}")).handle
    client.do(p.write(handle, 0, b"x"))
    client.do(p.tree_disconnect())
    client.use((former[0], cell.tree_id))


@case("TCON")
def tree_connect_nowhere(cell):
    cell.run(p.tree_connect(cell.client.address, "nowhere"))


@case("TDIS", alone=True)
def tree_disconnect(cell):
    client = cell.client
    other = client.do(p.tree_connect(client.address, "durable")).tree
    former = client.use((client.ids[0], other))
    handle = cell.open("file")
    client.do(p.lock(handle, (0, 10, EXCLUSIVE)))
    cell.run(p.tree_disconnect())
    reply = client.ask(p.create(cell.name("other")))
    cell.check(not reply.ok, "it goes on with the tree connect")
    client.use(former)
    cell.equal(client.ask(p.close(handle)).status, NT_STATUS_FILE_CLOSED,
               "status of CLOSE")
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    cell.rival.do(p.close(rival))


@case("TDIS", alone=True)
def tree_disconnect_deletes(cell):
    client = cell.client
    other = client.do(p.tree_connect(client.address, "durable")).tree
    former = client.use((client.ids[0], other))
    cell.open("deleted", options=p.DELETE_ON_CLOSE)
    cell.open("file")
    cell.run(p.tree_disconnect())
    client.use(former)
    cell.check(not cell.exists("deleted"), "it is not deleted")


@case("LOGOFF", alone=True)
def logoff(cell):
    client = cell.client
    former = client.ids
    log_in(client)
    handle = cell.open("file")
    client.do(p.lock(handle, (0, 10, EXCLUSIVE)))
    cell.run(p.logoff())
    cell.equal(client.ask(p.create(cell.name("other"))).status,
               NT_STATUS_USER_SESSION_DELETED, "status of CREATE")
    client.use(former)
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    cell.rival.do(p.close(rival))


@case("LOGOFF", alone=True)
def logoff_of_the_only_one(cell):
    client = cell.client
    cell.open("file")
    cell.open("deleted", options=p.DELETE_ON_CLOSE)
    cell.run(p.logoff())
    client.use((0, 0))
    log_in(client)
    client.kept = None
    cell.check(not cell.exists("deleted"), "it is not deleted")


def log_in(client):
    """One more session, and a tree connect of it"""
    client.use((0, 0))
    client._login(USER, PASSWORD)
    client.use((client.ids[0], client.do(p.tree_connect(
        client.address, "durable")).tree))


class Login:
    """The two requests of a session setup"""

    def __init__(self):
        lp = LoadParm()
        credentials = Credentials()
        credentials.guess(lp)
        credentials.set_kerberos_state(DONT_USE_KERBEROS)
        credentials.set_username(USER)
        credentials.set_password(PASSWORD)
        self.mechanism = gensec.Security.start_client(
            {"lp_ctx": lp, "target_hostname": ""})
        self.mechanism.set_credentials(credentials)
        self.mechanism.start_mech_by_name("spnego")
        self.token = b""

    def request(self, reply=None):
        if reply is not None:
            offset, length = struct.unpack_from("<HH", reply.packet, 68)
            self.token = reply.packet[offset:offset + length]
        _, token = self.mechanism.update(self.token)
        return p.Request(p.SESSION_SETUP, struct.pack(
            "<HBBIIHHQ", 25, 0, 1, 0, 0, 88, len(token), 0) + token)


def session_setup(cell, second, again):
    client = cell.client
    former = client.ids
    if again:
        log_in(client)
    else:
        client.use((0, 0))
    login = Login()
    if second:
        reply = client.ask(login.request())
        cell.equal(reply.status, NT_STATUS_MORE_PROCESSING_REQUIRED, "status")
        client.use((reply.session, client.ids[1]))
        reply, = cell.run(login.request(reply))
    else:
        reply, = cell.run(login.request())
        if reply.status == NT_STATUS_MORE_PROCESSING_REQUIRED:
            client.use((reply.session, client.ids[1]))
            reply = client.ask(login.request(reply))
    if reply.ok:
        client.do(p.echo())
        tree = client.do(p.tree_connect(client.address, "durable")).tree
        client.use((client.ids[0], tree))
        cell.open("file")
        client.do(p.logoff())
    else:
        cell.check(cell.point is not None, "it failed without a kill")
        client.use((0, 0))
        log_in(client)
        cell.open("file")
        client.do(p.logoff())
    client.use(former)


# It may fail alone: the other sessions live on
cases("SESSSETUP", {
    "first request": (False, False), "second request": (True, False),
    "first request, again": (False, True),
    "second request, again": (True, True),
}, alone=True, differs=True)(session_setup)


# CREATE


FILES = {
    f"{name}, {'there' if exists else 'not there'}": (
        disposition, exists)
    for name, disposition in (
        ("supersede", p.SUPERSEDE), ("open", p.OPEN), ("create", p.MAKE),
        ("open if", p.OPEN_IF), ("overwrite", p.OVERWRITE),
        ("overwrite if", p.OVERWRITE_IF))
    for exists in (False, True)}
MAKES = p.SUPERSEDE, p.MAKE, p.OPEN_IF, p.OVERWRITE_IF


def some(table, wanted):
    return {title: row for title, row in table.items() if wanted(*row)}


def create_file(cell, disposition, exists):
    if exists:
        cell.make("file", DATA)
    reply, = cell.run(p.create(cell.name("file"), disposition))
    if reply.ok:
        same_time(cell, reply, "file")
        works(cell, reply.handle, "file")


cases("CREATE", some(FILES, lambda d, exists: not exists and d in MAKES),
      NAMES)(create_file)
cases("CREATE", some(FILES, lambda d, exists: exists or d not in MAKES))(
    create_file)


DIRECTORIES = {
    f"directory, {name}, {'there' if exists else 'not there'}": (
        disposition, exists)
    for name, disposition in (("open", p.OPEN), ("create", p.MAKE),
                              ("open if", p.OPEN_IF))
    for exists in (False, True)}


def create_directory(cell, disposition, exists):
    if exists:
        cell.make_directory("directory")
    reply, = cell.run(p.create(cell.name("directory"), disposition,
                               p.DIRECTORY_FILE))
    if reply.ok:
        same_time(cell, reply, "directory")
        cell.open("directory\\inside")
        cell.equal(can_list(cell, reply.handle), [".", "..", "inside"],
                   "listing")


cases("CREATE", some(DIRECTORIES,
                     lambda d, exists: not exists and d in MAKES),
      NAMES)(create_directory)
cases("CREATE", some(DIRECTORIES, lambda d, exists: exists or d not in MAKES))(
    create_directory)


@case("CREATE", NAMES)
def create_for_one_only(cell):
    reply, = cell.run(p.create(cell.name("file"), p.MAKE, share=0))
    works(cell, reply.handle, "file")
    cell.equal(cell.rival.ask(p.create(cell.name("file"))).status,
               NT_STATUS_SHARING_VIOLATION, "status of the rival")


@case("CREATE")
def create_for_one_only_there(cell):
    cell.make("file", DATA)
    reply, = cell.run(p.create(cell.name("file"), p.OPEN, share=0))
    works(cell, reply.handle, "file")
    cell.equal(cell.rival.ask(p.create(cell.name("file"))).status,
               NT_STATUS_SHARING_VIOLATION, "status of the rival")


@case("CREATE")
def create_sharing_violation(cell):
    handle = cell.open("file", cell.rival, share=0)
    reply, = cell.run(p.create(cell.name("file")))
    cell.equal(reply.status, NT_STATUS_SHARING_VIOLATION, "status")
    cell.rival.do(p.close(handle))
    works(cell, cell.open("file"), "file")


@case("CREATE")
def create_in_no_directory(cell):
    cell.run(p.create(cell.name("nowhere\\file")))


def delete_on_close(cell, exists, directory):
    if exists:
        (cell.make_directory if directory else cell.make)("gone")
    reply, = cell.run(p.create(
        cell.name("gone"), p.OPEN_IF,
        p.DELETE_ON_CLOSE | (p.DIRECTORY_FILE if directory else 0)))
    cell.check(cell.exists("gone"), "it is gone already")
    if not directory:
        works(cell, reply.handle, "gone")
    cell.client.do(p.close(reply.handle))
    cell.check(not cell.exists("gone"), "it is not deleted")


cases("CREATE", {"delete on close, new": (False, False),
                 "delete on close, new directory": (False, True)},
      NAMES)(delete_on_close)
cases("CREATE", {"delete on close, there": (True, False),
                 "delete on close, directory there": (True, True)})(
    delete_on_close)


def create_oplock(cell, level, exists):
    if exists:
        cell.make("file", DATA)
    reply, = cell.run(p.create(cell.name("file"), oplock=level))
    cell.equal(reply.oplock, level, "oplock")
    works(cell, reply.handle, "file")
    if level == p.LEVEL_II:
        return
    # another one breaks it
    mid = cell.rival.post([p.create(cell.name("file"))])
    level = cell.client.oplock_break(reply.handle)
    cell.client.do(p.oplock_break(reply.handle, level))
    opened, = cell.rival.replies(mid)
    cell.see("status of the rival", opened.status)
    cell.rival.do(p.close(opened.handle))
    works(cell, reply.handle, "file")


cases("CREATE", {"batch oplock, new": (p.LEVEL_BATCH, False),
                 "level II oplock, new": (p.LEVEL_II, False)},
      NAMES)(create_oplock)
cases("CREATE", {"batch oplock, there": (p.LEVEL_BATCH, True),
                 "exclusive oplock, there": (p.LEVEL_EXCLUSIVE, True)})(
    create_oplock)


def lease_key(cell):
    return f"key{cell.matrix.cells}".encode().ljust(16)


def create_lease(cell, version, exists):
    if exists:
        cell.make("file", DATA)
    key = lease_key(cell)
    extra = (p.lease(key, FULL) if version == 1 else
             p.lease_v2(key, FULL, 0x1234))
    reply, = cell.run(p.create(cell.name("file"), oplock=p.LEASE_LEVEL,
                               extra=[extra]))
    granted = reply.contexts()[b"RqLs"]
    cell.equal(granted[:16], key, "key")
    cell.see("lease", granted[16:])
    works(cell, reply.handle, "file")
    mid = cell.rival.post([p.create(cell.name("file"))])
    old, new, answer = cell.client.lease_break(key)
    cell.equal((old, answer), (FULL, True), "break")
    cell.check(not cell.rival.answered(mid[0], 0), "it did not wait")
    cell.client.do(p.lease_break(key, new))
    opened, = cell.rival.replies(mid)
    cell.see("status of the rival", opened.status)
    cell.rival.do(p.close(opened.handle))
    works(cell, reply.handle, "file")


cases("CREATE", {"lease, new": (1, False), "lease v2, new": (2, False)},
      NAMES)(create_lease)
cases("CREATE", {"lease, there": (1, True), "lease v2, there": (2, True)})(
    create_lease)


@case("CREATE")
def create_second_open_of_a_lease(cell):
    cell.make("file", DATA)
    key = lease_key(cell)
    first = cell.open("file", oplock=p.LEASE_LEVEL,
                      extra=[p.lease_v2(key, FULL)])
    reply, = cell.run(p.create(cell.name("file"), oplock=p.LEASE_LEVEL,
                               extra=[p.lease_v2(key, FULL)]))
    cell.see("lease", reply.contexts()[b"RqLs"][16:])
    works(cell, reply.handle, "file")
    works(cell, first, "file")


def create_durable(cell, exists, with_lease):
    if exists:
        cell.make("file", DATA)
    guid = os.urandom(16)
    extra = [p.durable(guid)]
    if with_lease:
        extra.append(p.lease_v2(lease_key(cell), FULL))
    reply, = cell.run(p.create(
        cell.name("file"), extra=extra,
        oplock=p.LEASE_LEVEL if with_lease else p.LEVEL_BATCH))
    found = reply.contexts()
    cell.check(b"DH2Q" in found, "it is not durable")
    cell.see("durable", found[b"DH2Q"])
    works(cell, reply.handle, "file")


cases("CREATE", {"durable, new": (False, False),
                 "durable with lease, new": (False, True)},
      NAMES)(create_durable)
cases("CREATE", {"durable, there": (True, False),
                 "durable with lease, there": (True, True)})(create_durable)


def create_stream(cell, exists, disposition=p.OPEN_IF):
    cell.make("file", DATA)
    if exists:
        cell.client.do(p.close(cell.open("file:stream")))
    reply, = cell.run(p.create(cell.name("file:stream"), disposition))
    if reply.ok:
        cell.client.do(p.write(reply.handle, 0, b"in the stream"))
        cell.equal(cell.client.do(p.read(reply.handle, 0, 100)).data,
                   b"in the stream", "read from the stream")
        cell.client.do(p.close(reply.handle))
        cell.see("streams", cell.client.do(p.query_info(
            cell.open("file"), p.INFO_FILE, p.STREAMS)).data)


cases("CREATE", {"stream, there": (True,),
                 "stream, create, there": (True, p.MAKE)})(create_stream)
# "cannot be run again" as soon as it is about to be made
cases("CREATE", {"stream, new": (False,),
                 "stream, create, new": (False, p.MAKE)},
      tuple(point for point in POINTS if point != "done"))(create_stream)
cases("CREATE", {"stream and its file, new": ()},
      EARLY + ("effect", "completed", "acknowledged"))(
    lambda cell: cell.run(p.create(cell.name("new:stream"), p.MAKE)))


@case("CREATE", NAMES)
def create_what_it_is(cell):
    """maximal access, file id, attributes"""
    reply, = cell.run(p.create(
        cell.name("file"), p.MAKE, attributes=0x22,
        extra=[(b"MxAc", b""), (b"QFid", b""),
               (b"AlSi", struct.pack("<Q", 100000))]))
    found = reply.contexts()
    cell.see("maximal access", found[b"MxAc"])
    cell.equal(struct.unpack_from("<Q", found[b"QFid"])[0],
               os.stat(cell.path("file")).st_ino, "file id")
    cell.see("contexts", sorted(found))


@case("CREATE", NAMES)
def create_with_security(cell):
    sd = security.descriptor.from_sddl(
        "D:(A;;FA;;;WD)(A;;FR;;;BA)", security.dom_sid("S-1-5-21-1-2-3"))
    reply, = cell.run(p.create(cell.name("file"), p.MAKE,
                               extra=[(b"SecD", ndr_pack(sd))]))
    cell.see("security", cell.client.do(p.query_info(
        reply.handle, p.INFO_SECURITY, additional=4)).data)


def full_ea(name, value):
    return struct.pack("<IBBH", 0, 0, len(name), len(value)) + \
        name + b"\0" + value


@case("CREATE", NAMES)
def create_with_attributes(cell):
    reply, = cell.run(p.create(cell.name("file"), p.MAKE, extra=[
        (b"ExtA", full_ea(b"AUTHOR", b"somebody"))]))
    cell.see("attributes", cell.client.do(p.query_info(
        reply.handle, p.INFO_FILE, p.FULL_EA)).data)


@case("CREATE", POINTS + ("started 1",))
def create_waits_for_oplock(cell):
    """The rival acknowledges when it waits"""
    rival = cell.other()
    handle = cell.open("file", rival, oplock=p.LEVEL_BATCH)

    def acknowledge(_):
        rival.do(p.oplock_break(handle, rival.oplock_break(handle)))
    reply, = cell.run(p.create(cell.name("file")), waits=True,
                      meanwhile=acknowledge)
    works(cell, reply.handle, "file")


@case("CREATE", POINTS + ("started 1",))
def create_waits_for_lease(cell):
    rival = cell.other()
    key = lease_key(cell)
    handle = cell.open("file", rival, oplock=p.LEASE_LEVEL,
                       extra=[p.lease(key, FULL)])

    def acknowledge(_):
        _, new, _ = rival.lease_break(key)
        rival.do(p.lease_break(key, new))
    reply, = cell.run(p.create(cell.name("file")), waits=True,
                      meanwhile=acknowledge)
    rival.do(p.write(handle, 0, b"x"))
    cell.equal(rival.breaks, [], "more breaks")
    works(cell, reply.handle, "file")


@case("CREATE", POINTS + ("started 1",))
def create_waits_and_truncates(cell):
    rival = cell.other()
    cell.make("file", DATA)
    handle = cell.open("file", rival, oplock=p.LEVEL_BATCH)

    def close(_):
        rival.oplock_break(handle)
        rival.do(p.close(handle))
    reply, = cell.run(p.create(cell.name("file"), p.OVERWRITE), waits=True,
                      meanwhile=close)
    works(cell, reply.handle, "file")


# CLOSE


@case("CLOSE")
def close(cell):
    handle = cell.open("file")
    cell.client.do(p.write(handle, 0, DATA))
    cell.client.do(p.lock(handle, (0, 10, EXCLUSIVE)))
    cell.run(p.close(handle))
    cell.equal(cell.client.ask(p.close(handle)).status, NT_STATUS_FILE_CLOSED,
               "status of a second CLOSE")
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    cell.rival.do(p.close(rival))


@case("CLOSE")
def close_with_attributes(cell):
    handle = cell.open("file")
    cell.client.do(p.write(handle, 0, DATA))
    reply, = cell.run(p.close(handle, True))
    same_time(cell, reply, "file")


@case("CLOSE")
def close_directory(cell):
    handle = cell.open("directory", options=p.DIRECTORY_FILE)
    cell.run(p.close(handle))


@case("CLOSE")
def close_nothing(cell):
    cell.run(p.close(b"\x77" * 16))


def close_deletes(cell, attributes, directory, by_info):
    handle = cell.open("gone", options=(p.DIRECTORY_FILE if directory else 0) |
                       (0 if by_info else p.DELETE_ON_CLOSE))
    if by_info:
        cell.client.do(p.set_info(handle, p.INFO_FILE, p.DISPOSITION, b"\1"))
    cell.run(p.close(handle, attributes))
    cell.check(not cell.exists("gone"), "it is not deleted")


cases("CLOSE", {
    "delete on close": (False, False, False),
    "disposition": (False, False, True),
    "directory, delete on close": (False, True, False),
    "directory, disposition": (False, True, True)})(close_deletes)

# Its attributes are gone with it, if that was all that was missing
cases("CLOSE", {
    "delete on close, attributes": (True, False, False)},
      differs=True)(close_deletes)


@case("CLOSE")
def close_deletes_for_all(cell):
    """The last one of two deletes"""
    first = cell.open("gone", options=p.DELETE_ON_CLOSE)
    second = cell.open("gone", cell.rival)
    cell.run(p.close(first))
    cell.check(cell.exists("gone"), "it is gone already")
    cell.equal(cell.rival.ask(p.create(cell.name("gone"))).status,
               NT_STATUS_DELETE_PENDING, "status of an open")
    cell.rival.do(p.close(second))
    cell.check(not cell.exists("gone"), "it is not deleted")


@case("CLOSE")
def close_stream_deletes(cell):
    cell.make("file", DATA)
    handle = cell.open("file:stream", options=p.DELETE_ON_CLOSE)
    cell.run(p.close(handle))


@case("CLOSE")
def close_one_of_two(cell):
    key = lease_key(cell)
    handles = [cell.open("file", oplock=p.LEASE_LEVEL,
                         extra=[p.lease_v2(key, FULL)]) for _ in range(2)]
    cell.run(p.close(handles[0]))
    works(cell, handles[1], "file")


# FLUSH, READ, WRITE


@case("FLUSH")
def flush(cell):
    handle = cell.open("file")
    cell.client.do(p.write(handle, 0, DATA))
    cell.run(p.flush(handle))
    works(cell, handle, "file")


def read_some(cell, offset, length, minimum=0):
    cell.make("file", DATA * 200)
    handle = cell.open("file")
    cell.run(p.read(handle, offset, length, minimum))
    works(cell, handle, "file")


cases("READ", {
    "small": (1000, 100), "64K": (1001, p.UNIT), "1M": (7, 1024 * 1024),
    "up to the end": (len(DATA) * 200 - 10, 1000),
    "behind the end": (len(DATA) * 300, 100), "nothing": (0, 0),
    "less than the minimum": (len(DATA) * 200 - 10, 1000, 11)})(read_some)


@case("READ", count=2, title="several")
def read_several(cell):
    cell.make("file", DATA * 200)
    handle = cell.open("file")
    replies = cell.run(*(p.read(handle, n * 60000, 50000) for n in range(5)),
                       separate=True)
    for n, reply in enumerate(replies):
        cell.equal(reply.data, (DATA * 200)[n * 60000:n * 60000 + 50000],
                   f"data {n}")


@case("READ")
def read_locked(cell):
    cell.make("file", DATA)
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    handle = cell.open("file")
    cell.run(p.read(handle, 0, 100))
    cell.rival.do(p.close(rival))


@case("READ")
def read_stream(cell):
    handle = cell.open("file:stream")
    cell.client.do(p.write(handle, 0, DATA[:100]))
    cell.run(p.read(handle, 10, 50))


def write_some(cell, offset, data, former=DATA):
    cell.make("file", former)
    handle = cell.open("file")
    reply, = cell.run(p.write(handle, offset, data))
    cell.equal(reply.count, len(data), "count")
    wanted = bytearray(former.ljust(offset + len(data), b"\0"))
    wanted[offset:offset + len(data)] = data
    if not data:
        wanted = former
    cell.equal(cell.content("file"), bytes(wanted), "content")
    works(cell, handle, "file")


cases("WRITE", {
    "over": (100, b"new"), "at the end": (len(DATA), b"new"),
    "behind the end": (len(DATA) + 5000, b"new"),
    "64K": (50, DATA[:256] * 256), "1M": (3, DATA[:256] * 4096),
    "nothing": (100, b"")})(write_some)


def write_several(cell):
    handle = cell.open("file")
    cell.run(*(p.write(handle, n * 1000, bytes([65 + n]) * 1000)
               for n in range(5)), separate=True)
    cell.equal(len(cell.content("file")), 5000, "size")


for number in (0, 2, 4):
    case("WRITE", count=number, title=f"number {number + 1} of several")(
        lambda cell: write_several(cell))


@case("WRITE")
def write_locked(cell):
    cell.make("file", DATA)
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    handle = cell.open("file")
    cell.run(p.write(handle, 5, b"not this"))
    cell.rival.do(p.close(rival))


@case("WRITE")
def write_stream(cell):
    handle = cell.open("file:stream")
    cell.run(p.write(handle, 10, b"in the stream"))
    cell.see("stream", cell.client.do(p.read(handle, 0, 100)).data)


@case("WRITE")
def write_breaks_lease(cell):
    """Of the rival, who has it for reading"""
    rival = cell.other()
    key = lease_key(cell)
    cell.make("file", DATA)
    cell.open("file", rival, oplock=p.LEASE_LEVEL,
              extra=[p.lease(key, smb2.LEASE_READ)])
    handle = cell.open("file")
    cell.run(p.write(handle, 0, b"new"))
    cell.equal(rival.lease_break(key), (smb2.LEASE_READ, 0, False), "break")
    rival.do(p.echo())
    cell.equal(rival.breaks, [], "more breaks")


# LOCK


def taken(cell, name, offset, length, flags=EXCLUSIVE):
    """Nobody else can have it"""
    handle = cell.open(name, cell.rival)
    reply = cell.rival.ask(p.lock(handle, (offset, length, flags)))
    cell.rival.do(p.close(handle))
    return not reply.ok


def lock_some(cell, elements, before=(), sequence=0):
    cell.make("file", DATA)
    handle = cell.open("file")
    if before:
        cell.client.do(p.lock(handle, *before))
    cell.run(p.lock(handle, *elements, sequence=sequence))
    for offset in range(0, 100, 10):
        cell.see(f"lock at {offset}", (
            taken(cell, "file", offset, 10),
            taken(cell, "file", offset, 10, SHARED)))
    # they can be given back, once
    for offset, length, flags in elements + tuple(before):
        status = cell.client.ask(p.lock(
            handle, (offset, length, smb2.UNLOCK))).status
        cell.see(f"unlock of {offset}", smb2.status_name(status))
    cell.see("any left", taken(cell, "file", 0, 100))


cases("LOCK", {
    "exclusive": (((10, 10, EXCLUSIVE),),),
    "shared": (((10, 10, SHARED),),),
    "several": (((10, 10, EXCLUSIVE), (30, 20, SHARED), (70, 5, EXCLUSIVE)),),
    "second fails": (((10, 10, EXCLUSIVE), (12, 2, EXCLUSIVE),
                      (50, 10, EXCLUSIVE)),),
    "shared twice": (((10, 10, SHARED),), ((10, 10, SHARED),)),
    "unlock": (((10, 10, smb2.UNLOCK),),
               ((10, 10, EXCLUSIVE), (30, 10, EXCLUSIVE))),
    "unlock of several": (((10, 10, smb2.UNLOCK), (30, 10, smb2.UNLOCK)),
                          ((10, 10, EXCLUSIVE), (30, 10, EXCLUSIVE))),
    "unlock, second fails": (((10, 10, smb2.UNLOCK), (31, 9, smb2.UNLOCK)),
                             ((10, 10, EXCLUSIVE), (30, 10, EXCLUSIVE))),
    "unlock of nothing": (((10, 10, smb2.UNLOCK),),),
    "its own": (((10, 10, EXCLUSIVE),), ((10, 10, EXCLUSIVE),)),
})(lock_some)


@case("LOCK")
def lock_fails(cell):
    cell.make("file", DATA)
    rival = cell.open("file", cell.rival)
    cell.rival.do(p.lock(rival, (0, 10, EXCLUSIVE)))
    handle = cell.open("file")
    reply, = cell.run(p.lock(handle, (5, 10, EXCLUSIVE)))
    cell.equal(reply.status, NT_STATUS_LOCK_NOT_GRANTED, "status")
    cell.rival.do(p.close(rival))
    cell.client.do(p.lock(handle, (5, 10, EXCLUSIVE)))


@case("LOCK")
def lock_with_sequence(cell):
    """The same number again is the same lock"""
    handle = cell.open("file", oplock=p.LEVEL_BATCH,
                       extra=[p.durable(os.urandom(16))])
    request = p.lock(handle, (0, 10, EXCLUSIVE), sequence=0x15)
    cell.run(request)
    for n in range(2):
        cell.see(f"status of {n}", cell.client.ask(request).status)
    cell.see("status of another", cell.client.ask(
        p.lock(handle, (0, 10, EXCLUSIVE), sequence=0x25)).status)


def lock_waits(cell, happens, elements=((0, 10, smb2.LOCK_EXCLUSIVE),)):
    cell.make("file", DATA)
    owner = cell.other()
    held = cell.open("file", owner)
    owner.do(p.lock(held, (0, 10, EXCLUSIVE)))
    handle = cell.open("file")
    reply, = cell.run(p.lock(handle, *elements), waits=True,
                      meanwhile=lambda mids: happens(cell, owner, held,
                                                     handle, mids[0]))
    cell.see("taken", taken(cell, "file", 0, 10))
    return reply


# smbd does not look again when the one who has it closes

@case("LOCK", title="waits for unlock")
def lock_waits_for_unlock(cell):
    lock_waits(cell, lambda cell, owner, held, *_: owner.do(
        p.lock(held, (0, 10, smb2.UNLOCK))))


@case("LOCK", POINTS, title="waits and is cancelled")
def lock_cancelled(cell):
    reply = lock_waits(cell, lambda cell, owner, held, handle, mid:
                       cell.client.cancel(mid))
    cell.equal(reply.status, NT_STATUS_CANCELLED, "status")


@case("LOCK", POINTS, title="waits and its file is closed")
def lock_closed(cell):
    def happens(cell, owner, held, handle, mid):
        cell.closing = cell.client.post([p.close(handle)])
    lock_waits(cell, happens)
    cell.client.replies(cell.closing)


# IOCTL


def resume_key(client, handle):
    return client.do(p.ioctl(handle, p.FSCTL_RESUME_KEY)).data[:24]


def copychunk(key, *chunks):
    return key + struct.pack("<II", len(chunks), 0) + \
        b"".join(struct.pack("<QQI4x", *chunk) for chunk in chunks)


def copy(cell, chunks, code, same_file, size):
    data = bytes(os.urandom(256)) * (size // 256)
    cell.make("source", data)
    source = target = cell.open("source")
    if not same_file:
        target = cell.open("target")
    key = resume_key(cell.client, source)
    reply, = cell.run(p.ioctl(target, code, copychunk(key, *chunks), 12))
    cell.see("copied", reply.data if reply.ok else None)
    wanted = bytearray(data if same_file else b"")
    for begin, where, length in chunks:
        end = where + length
        if len(wanted) < end:
            wanted.extend(bytes(end - len(wanted)))
        wanted[where:end] = data[begin:begin + length]
    if reply.ok:
        cell.equal(cell.content("source" if same_file else "target"),
                   bytes(wanted), "content")
        cell.client.do(p.read(target, 0, 10))
        for name in "source", "target":
            if cell.exists(name):
                # they are random
                os.truncate(cell.path(name), 0)
    else:
        os.truncate(cell.path("source"), 0)


MIB = 1024 * 1024
cases("IOCTL", {
    "copychunk": (((0, 0, 1000),), p.FSCTL_COPYCHUNK, False, 5120),
    "copychunk write": (((0, 0, 1000),), p.FSCTL_COPYCHUNK_WRITE, False,
                        5120),
    "copychunk of 16M": (tuple((n * MIB, n * MIB, MIB) for n in range(16)),
                         p.FSCTL_COPYCHUNK, False, 16 * MIB),
    "copychunk of several": (((0, 4096, 1000), (100, 0, 500),
                              (4000, 9000, 1000)), p.FSCTL_COPYCHUNK, False,
                             5120),
    "copychunk in one file": (((0, 8192, 4096), (5000, 20000, 100)),
                              p.FSCTL_COPYCHUNK, True, 8192),
    "copychunk from behind the end": (((8000, 0, 4096),), p.FSCTL_COPYCHUNK,
                                      False, 8192),
})(copy)


def ioctl(cell, code, data=b"", directory=False, before=()):
    handle = cell.open("file", options=p.DIRECTORY_FILE if directory else 0)
    if not directory:
        cell.client.do(p.write(handle, 0, DATA))
    for request in before:
        cell.client.do(request(handle))
    reply, = cell.run(p.ioctl(handle, code, data))
    if not directory:
        works(cell, handle, "file")
    cell.see("ranges", cell.client.ask(p.ioctl(
        handle, p.FSCTL_ALLOCATED_RANGES,
        struct.pack("<QQ", 0, 1000000))).status)
    cell.see("attributes", info_times(cell.client.do(p.query_info(
        handle, p.INFO_FILE, p.BASIC)).data))
    return reply


def sparse(handle):
    return p.ioctl(handle, p.FSCTL_SET_SPARSE)


cases("IOCTL", {
    "set sparse": (p.FSCTL_SET_SPARSE,),
    "set not sparse": (p.FSCTL_SET_SPARSE, b"\0", False, (sparse,)),
    "zero data": (p.FSCTL_SET_ZERO_DATA, struct.pack("<QQ", 100, 5000)),
    "zero data, sparse": (p.FSCTL_SET_ZERO_DATA,
                          struct.pack("<QQ", 0, 4096), False, (sparse,)),
    "allocated ranges": (p.FSCTL_ALLOCATED_RANGES,
                         struct.pack("<QQ", 0, 100000)),
    "get compression": (p.FSCTL_GET_COMPRESSION,),
    "set compression": (p.FSCTL_SET_COMPRESSION, b"\0\0"),
    "object id": (p.FSCTL_OBJECT_ID,),
    "get reparse point": (p.FSCTL_GET_REPARSE_POINT,),
    "of nobody": (0x00090FFC,),
})(ioctl)


@case("IOCTL")
def resume_key_asked(cell):
    cell.make("file", DATA)
    handle = cell.open("file")
    reply, = cell.run(p.ioctl(handle, p.FSCTL_RESUME_KEY))
    target = cell.open("target")
    cell.client.do(p.ioctl(target, p.FSCTL_COPYCHUNK,
                           copychunk(reply.data[:24], (0, 0, 100)), 12))
    cell.equal(cell.content("target"), DATA[:100], "what was copied with it")


NO_FILE = b"\xff" * 16


@case("IOCTL")
def validate_negotiate(cell):
    reply, = cell.run(p.ioctl(NO_FILE, p.FSCTL_VALIDATE_NEGOTIATE, struct.pack(
        "<I16sHHH", p.CAPABILITIES, cell.client.guid, 1, 1, smb2.DIALECT)))
    cell.see("answer", reply.data)


@case("IOCTL")
def network_interfaces(cell):
    reply, = cell.run(p.ioctl(NO_FILE, p.FSCTL_NETWORK_INTERFACES))
    cell.see("answer", reply.data)


# CANCEL: of the two that wait, and of nothing


@case("CANCEL", SILENT, title="of a lock")
def cancel_lock(cell):
    reply = lock_waits(cell, lambda cell, owner, held, handle, mid:
                       cell.client.cancel(mid))
    cell.check(reply.status in WATCH_ENDS, f"status {reply.status:#x}")


@case("CANCEL", SILENT, title="of a change notify", differs=True)
def cancel_notify(cell):
    handle = cell.open("watched", options=p.DIRECTORY_FILE)
    reply, = cell.run(p.notify(handle), waits=True,
                      meanwhile=lambda mids: cell.client.cancel(mids[0]))
    cell.check(reply.status in WATCH_ENDS, f"status {reply.status:#x}")
    request = p.notify(handle)
    mid = until_it_waits(cell, request)
    by_rival("watched\\new")(cell)
    until_event(cell, request, mid, "new")


@case("NOTIFY", title="waits and is cancelled", differs=True)
def notify_cancelled(cell):
    cancel_notify(cell)


@case("CANCEL", SILENT, title="of what is done")
def cancel_nothing(cell):
    cell.run(p.echo(), meanwhile=lambda mids: cell.client.cancel(mids[0]))


# QUERY_DIRECTORY


def listing(cell, number, level=p.NAMES):
    """number: which of the requests"""
    names = [f"name{n:03}{'x' * (n % 50)}" for n in range(100)]
    for name in names:
        cell.make(name)
    name_offset = {p.NAMES: 12, p.ID_BOTH_DIRECTORY: 104}[level]
    handle = cell.open("", options=p.DIRECTORY_FILE)
    found = []
    n = 0
    while True:
        request = p.query_directory(handle, level, maximum=2000)
        if n == number:
            reply, = cell.run(request)
        else:
            reply = cell.client.ask(request)
        n += 1
        if reply.status == NT_STATUS_NO_MORE_FILES:
            break
        cell.check(reply.ok, smb2.status_name(reply.status))
        found += reply.entries(name_offset)
    cell.see("requests", n)
    cell.equal(sorted(found), sorted(names + [".", ".."]), "listing")
    cell.equal(can_list(cell, handle), sorted(names + [".", ".."]),
               "listing once more")


cases("QUERY_DIRECTORY", {
    "first": (0,), "second": (1,), "third": (2,),
    "first, with ids": (0, p.ID_BOTH_DIRECTORY),
    "third, with ids": (2, p.ID_BOTH_DIRECTORY)})(listing)


@case("QUERY_DIRECTORY")
def query_directory_end(cell):
    handle = cell.open("", options=p.DIRECTORY_FILE)
    cell.client.do(p.query_directory(handle))
    reply, = cell.run(p.query_directory(handle))
    cell.equal(reply.status, NT_STATUS_NO_MORE_FILES, "status")
    cell.equal(can_list(cell, handle), [".", ".."], "listing once more")


@case("QUERY_DIRECTORY")
def query_directory_restart(cell):
    for n in range(20):
        cell.make(f"name{n}")
    handle = cell.open("", options=p.DIRECTORY_FILE)
    cell.client.do(p.query_directory(handle, maximum=500))
    reply, = cell.run(p.query_directory(handle, flags=p.RESTART))
    cell.see("names", reply.entries())
    cell.equal(cell.client.ask(p.query_directory(handle)).status,
               NT_STATUS_NO_MORE_FILES, "status of the next one")


@case("QUERY_DIRECTORY")
def query_directory_pattern(cell):
    for n in range(20):
        cell.make(f"name{n}")
    handle = cell.open("", options=p.DIRECTORY_FILE)
    reply, = cell.run(p.query_directory(handle, pattern="name1*",
                                        flags=p.SINGLE_ENTRY))
    found = reply.entries()
    cell.equal(len(found), 1, "names")
    while True:
        # the pattern is that of the first
        reply = cell.client.ask(p.query_directory(handle, pattern="name1*"))
        if not reply.ok:
            break
        found += reply.entries()
    cell.equal(sorted(found), sorted(["name1"] +
                                     [f"name1{n}" for n in range(10)]),
               "listing")


@case("QUERY_DIRECTORY")
def query_directory_nothing(cell):
    handle = cell.open("", options=p.DIRECTORY_FILE)
    cell.run(p.query_directory(handle, pattern="no such file"))


# CHANGE_NOTIFY


def until_it_waits(cell, request):
    """What was missed is answered at once; the message id of what waits"""
    while True:
        waiting = cell.waiting()
        mids = cell.client.post([request])
        wait_until(lambda: cell.waiting() > waiting or
                   cell.client.answered(mids[0], 0), "a watch that waits")
        if not cell.client.answered(mids[0], 0):
            return mids[0]
        cell.client.replies(mids)


def until_event(cell, request, mid, name):
    """Events come one after the other"""
    while True:
        reply, = cell.client.replies([mid])
        if reply.status == NT_STATUS_NOTIFY_ENUM_DIR:
            return
        cell.check(reply.ok, smb2.status_name(reply.status))
        if name in reply.entries():
            return
        mid, = cell.client.post([request])


def notify(cell, tree, name):
    cell.make_directory("watched")
    cell.make_directory("watched\\below")
    handle = cell.open("watched", options=p.DIRECTORY_FILE)
    request = p.notify(handle, tree)
    mid = until_it_waits(cell, request)
    by_rival("watched\\before")(cell)
    until_event(cell, request, mid, "before")
    reply, = cell.run(request, waits=True,
                      meanwhile=lambda _: by_rival(f"watched\\{name}")(cell))
    if reply.ok:
        cell.equal(reply.entries(), [name], "events")
    else:
        cell.check(cell.point is not None, "events are lost without a kill")
        cell.equal(reply.status, NT_STATUS_NOTIFY_ENUM_DIR, "status")
    # and it goes on
    mid = until_it_waits(cell, request)
    by_rival("watched\\next")(cell)
    until_event(cell, request, mid, "next")


def by_rival(name):
    def happens(cell):
        cell.rival.do(p.close(cell.open(name, cell.rival)))
    return happens


cases("NOTIFY", {
    "of one directory": (False, "new"),
    "of a tree": (True, "below\\new"),
}, differs=True)(notify)


@case("NOTIFY", differs=True)
def notify_of_its_own(cell):
    """... changes"""
    handle = cell.open("watched", options=p.DIRECTORY_FILE)

    def happens(_):
        cell.making = cell.client.post([p.create(cell.name("watched\\new"))])
    reply, = cell.run(p.notify(handle), waits=True, meanwhile=happens)
    created, = cell.client.replies(cell.making)
    cell.check(created.ok, "CREATE fails")
    cell.check(reply.status == NT_STATUS_NOTIFY_ENUM_DIR or
               reply.entries() == ["new"], "events")


@case("NOTIFY", differs=True)
def notify_ends_with_its_directory(cell):
    handle = cell.open("watched", options=p.DIRECTORY_FILE)

    def happens(_):
        cell.closing = cell.client.post([p.close(handle)])
    reply, = cell.run(p.notify(handle), waits=True, meanwhile=happens)
    cell.equal(smb2.status_name(reply.status), "NT_STATUS_NOTIFY_CLEANUP",
               "status")
    closed, = cell.client.replies(cell.closing)
    cell.check(closed.ok, "CLOSE fails")


# QUERY_INFO


def query(cell, kind, level=0, additional=0):
    cell.make("file", DATA)
    os.utime(cell.path("file"), (1000000000, 1000000000))
    handle = cell.open("file")
    request = p.query_info(handle, kind, level, additional)
    before = cell.client.ask(request)
    reply, = cell.run(request)
    after = cell.client.ask(request)
    cell.equal(reply.status, before.status, "status")
    cell.equal(after.status, before.status, "status of the next")
    if reply.ok and (kind, level) not in (
            (p.INFO_FILESYSTEM, p.FS_SIZE),
            (p.INFO_FILESYSTEM, p.FS_FULL_SIZE)):
        cell.equal(reply.data, before.data, "data")
        cell.equal(after.data, before.data, "data of the next")


cases("GETINFO", {
    "basic": (p.INFO_FILE, p.BASIC), "standard": (p.INFO_FILE, p.STANDARD),
    "internal": (p.INFO_FILE, p.INTERNAL), "all": (p.INFO_FILE, p.ALL_INFO),
    "attributes": (p.INFO_FILE, p.FULL_EA),
    "streams": (p.INFO_FILE, p.STREAMS),
    "network open": (p.INFO_FILE, p.NETWORK_OPEN),
    "volume": (p.INFO_FILESYSTEM, p.FS_VOLUME),
    "size": (p.INFO_FILESYSTEM, p.FS_SIZE),
    "full size": (p.INFO_FILESYSTEM, p.FS_FULL_SIZE),
    "file system": (p.INFO_FILESYSTEM, p.FS_ATTRIBUTE),
    "security": (p.INFO_SECURITY, 0, 7),
    "nothing": (p.INFO_FILE, 99)})(query)


# SET_INFO


def file_info(level, data):
    return lambda handle: p.set_info(handle, p.INFO_FILE, level, data)


def rename_to(cell, handle, name, replace=False, level=p.RENAME):
    return p.set_name(handle, level, cell.name(name), replace)


def moved(cell, handle, name):
    """The handle is of that name"""
    reply = cell.client.do(p.query_info(handle, p.INFO_FILE, p.ALL_INFO))
    size, = struct.unpack_from("<I", reply.data, 96)
    path = reply.data[100:100 + size].decode("utf-16-le")
    cell.equal(path, "\\" + cell.name(name), "name of the handle")


def rename(cell, source, target, there=(), replace=False, opened=(),
           directory=False):
    for name in there:
        if name.endswith("\\"):
            cell.make_directory(name[:-1])
        else:
            cell.make(name, b"former")
    if directory:
        cell.make_directory(source)
        cell.make(source + "\\inside", DATA)
    else:
        cell.make(source, DATA)
    handle = cell.open(source, options=p.DIRECTORY_FILE if directory else 0)
    others = [cell.open(source) for _ in opened]
    reply, = cell.run(rename_to(cell, handle, target, replace))
    name = target if reply.ok else source
    for each in [handle, *others]:
        moved(cell, each, name)
    if directory:
        cell.equal(can_list(cell, handle), [".", "..", "inside"], "listing")
    else:
        works(cell, handle, name)


cases("SETINFO", {
    "rename": ("file", "other"),
    "rename, other case": ("file", "FILE"),
    "rename, two handles": ("file", "other", (), False, (1,)),
    "rename, replace nothing": ("file", "other", (), True),
    "rename, replace": ("file", "other", ("other",), True),
    "rename into a directory": ("file", "below\\file", ("below\\",)),
    "rename into a directory, replace": (
        "file", "below\\file", ("below\\", "below\\file"), True),
    "rename out of a directory": ("below\\file", "other", ("below\\",)),
    "rename a directory": ("directory", "other", (), False, (), True),
}, NAMES)(rename)
cases("SETINFO", {
    "rename, there already": ("file", "other", ("other",)),
    "rename into no directory": ("file", "nowhere\\file"),
    "rename to itself": ("file", "file"),
})(rename)


@case("SETINFO", NAMES)
def rename_for_a_rival(cell):
    """The rival has it open, and sees its new name"""
    handle = cell.open("file")
    other = cell.open("file", cell.rival)
    cell.run(rename_to(cell, handle, "other"))
    moved(cell, handle, "other")
    reply = cell.rival.do(p.query_info(other, p.INFO_FILE, p.ALL_INFO))
    cell.check(reply.data.endswith(utf16("other")), "name for the rival")
    cell.rival.do(p.close(other))


@case("SETINFO", NAMES)
def rename_and_back(cell):
    handle = cell.open("file")
    cell.client.do(rename_to(cell, handle, "other"))
    cell.run(rename_to(cell, handle, "file"))
    moved(cell, handle, "file")


@case("SETINFO", NAMES)
def rename_with_lease(cell):
    handle = cell.open("file", oplock=p.LEASE_LEVEL,
                       extra=[p.lease_v2(lease_key(cell), FULL)])
    cell.run(rename_to(cell, handle, "other"))
    works(cell, handle, "other")


def link(cell, name, there=(), replace=False):
    cell.make("file", DATA)
    for each in there:
        if each.endswith("\\"):
            cell.make_directory(each[:-1])
        else:
            cell.make(each, b"former")
    handle = cell.open("file")
    reply, = cell.run(rename_to(cell, handle, name, replace, p.LINK))
    works(cell, handle, "file")
    links = standard(cell.client.do(p.query_info(
        handle, p.INFO_FILE, p.STANDARD)).data)[2]
    cell.see("links", links)
    if reply.ok:
        cell.equal(os.stat(cell.path(name)).st_ino,
                   os.stat(cell.path("file")).st_ino, "inode")


cases("SETINFO", {
    "hardlink": ("other",),
    "hardlink in a directory": ("below\\other", ("below\\",)),
    "hardlink, replace": ("other", ("other",), True)}, NAMES)(link)
cases("SETINFO", {"hardlink, there already": ("other", ("other",))})(link)


def set_file(cell, level, data, directory=False):
    if directory:
        cell.make_directory("file")
    else:
        cell.make("file", DATA)
    handle = cell.open("file", options=p.DIRECTORY_FILE if directory else 0)
    cell.run(p.set_info(handle, p.INFO_FILE, level, data))
    cell.see("standard", standard(cell.client.do(p.query_info(
        handle, p.INFO_FILE, p.STANDARD)).data))
    basic = cell.client.do(p.query_info(handle, p.INFO_FILE, p.BASIC)).data
    cell.see("attributes", info_times(basic))
    if level == p.BASIC:
        cell.see("times", [now for now, then in zip(
            struct.unpack("<QQQ", basic[:24]), struct.unpack("<QQQ",
                                                             data[:24]))
            if then])
        st = os.stat(cell.path("file"))
        cell.see("mode of the file", stat.S_IMODE(st.st_mode))
        if data == TIMES:
            cell.see("time of the file", st.st_mtime)
    if level == p.FULL_EA:
        cell.see("extended attributes", cell.client.do(p.query_info(
            handle, p.INFO_FILE, p.FULL_EA)).data)
    if level == p.DISPOSITION:
        # a new open is refused, and it goes with its last handle
        cell.see("open", cell.rival.ask(p.create(cell.name("file"), p.OPEN))
                 .status)
        cell.client.do(p.close(handle))
        cell.see("there", cell.exists("file"))
    elif not directory:
        works(cell, handle, "file")


TIMES = struct.pack("<QQQQI4x", nttime(1000000000), nttime(1100000000),
                    nttime(1200000000), 0, 0)
cases("SETINFO", {
    "end of file, smaller": (p.END_OF_FILE, struct.pack("<Q", 100)),
    "end of file, larger": (p.END_OF_FILE, struct.pack("<Q", 100000)),
    "allocation, smaller": (p.ALLOCATION, struct.pack("<Q", 100)),
    "allocation, larger": (p.ALLOCATION, struct.pack("<Q", 1000000)),
    "times": (p.BASIC, TIMES),
    "times of a directory": (p.BASIC, TIMES, True),
    "hidden": (p.BASIC, struct.pack("<QQQQI4x", 0, 0, 0, 0, 2)),
    "read only": (p.BASIC, struct.pack("<QQQQI4x", 0, 0, 0, 0, 1)),
    "position": (p.POSITION, struct.pack("<Q", 77)),
    "mode": (p.MODE, struct.pack("<I", 0)),
    "extended attributes": (p.FULL_EA, full_ea(b"AUTHOR", b"somebody")),
    "disposition": (p.DISPOSITION, b"\1"),
    "disposition of a directory": (p.DISPOSITION, b"\1", True),
    "disposition, not": (p.DISPOSITION, b"\0"),
    "nothing": (99, b"12345678"),
})(set_file)


@case("SETINFO")
def no_disposition_after_all(cell):
    handle = cell.open("file")
    cell.client.do(p.set_info(handle, p.INFO_FILE, p.DISPOSITION, b"\1"))
    cell.run(p.set_info(handle, p.INFO_FILE, p.DISPOSITION, b"\0"))
    cell.client.do(p.close(handle))
    cell.check(cell.exists("file"), "it is deleted")


@case("SETINFO")
def security_descriptor(cell):
    cell.make("file", DATA)
    handle = cell.open("file")
    sd = security.descriptor.from_sddl(
        "D:(A;;FA;;;WD)(A;;FR;;;BA)", security.dom_sid("S-1-5-21-1-2-3"))
    cell.run(p.set_info(handle, p.INFO_SECURITY, 0, ndr_pack(sd), 4))
    found = ndr_unpack(security.descriptor, cell.client.do(p.query_info(
        handle, p.INFO_SECURITY, additional=4)).data)
    cell.see("security", found.as_sddl())
    works(cell, handle, "file")


@case("SETINFO")
def end_of_file_breaks_lease(cell):
    rival = cell.other()
    key = lease_key(cell)
    cell.make("file", DATA)
    cell.open("file", rival, oplock=p.LEASE_LEVEL,
              extra=[p.lease(key, smb2.LEASE_READ)])
    handle = cell.open("file")
    cell.run(p.set_info(handle, p.INFO_FILE, p.END_OF_FILE,
                        struct.pack("<Q", 5)))
    cell.equal(rival.lease_break(key), (smb2.LEASE_READ, 0, False), "break")
    rival.do(p.echo())
    cell.equal(rival.breaks, [], "more breaks")


# OPLOCK_BREAK


@case("BREAK")
def oplock_acknowledged(cell):
    handle = cell.open("file", oplock=p.LEVEL_BATCH)
    rival = cell.rival.post([p.create(cell.name("file"))])
    time.sleep(TICK_SECONDS)
    reply, = cell.run(p.oplock_break(handle,
                                     cell.client.oplock_break(handle)))
    cell.see("level", reply.body[:4])
    opened, = cell.rival.replies(rival)
    cell.see("rival", (opened.status, opened.oplock))
    cell.rival.do(p.close(opened.handle))
    cell.client.do(p.echo())
    cell.check(handle not in dict(cell.client.oplock_breaks), "more breaks")
    works(cell, handle, "file")


def lease_acknowledged(cell, version, acknowledged):
    key = lease_key(cell)
    extra = p.lease(key, FULL) if version == 1 else p.lease_v2(key, FULL, 7)
    handle = cell.open("file", oplock=p.LEASE_LEVEL, extra=[extra])
    rival = cell.rival.post([p.create(cell.name("file"))])
    old, new, _ = cell.client.lease_break(key)
    cell.equal(old, FULL, "lease before the break")
    time.sleep(TICK_SECONDS)
    reply, = cell.run(p.lease_break(key, new & acknowledged))
    if reply.ok:
        cell.equal(reply.body[8:24], key, "lease")
        cell.see("state", reply.body[24:])
    opened, = cell.rival.replies(rival)
    cell.see("rival", (opened.status, opened.oplock))
    cell.rival.do(p.close(opened.handle))
    works(cell, handle, "file")
    cell.equal(cell.client.breaks, [], "more breaks")


cases("BREAK", {"lease": (1, FULL), "lease v2": (2, FULL),
                "lease, to nothing": (1, 0),
                "lease v2, to nothing": (2, 0)})(lease_acknowledged)


@case("BREAK")
def break_of_nothing(cell):
    handle = cell.open("file")
    cell.run(p.oplock_break(handle, p.LEVEL_NONE))


# compounds


@case("CREATE GETINFO CLOSE", NAMES)
def compound_create_query_close(cell):
    cell.run(p.create(cell.name("file"), p.MAKE),
             p.query_info(p.RELATED, p.INFO_FILE, p.STANDARD),
             p.close(p.RELATED, True), related=True)


@case("CREATE GETINFO CLOSE")
def compound_open_query_close(cell):
    cell.make("file", DATA)
    replies = cell.run(p.create(cell.name("file"), p.OPEN),
                       p.query_info(p.RELATED, p.INFO_FILE, p.STANDARD),
                       p.close(p.RELATED, True), related=True)
    cell.see("data", standard(replies[1].data))


@case("CREATE WRITE CLOSE", NAMES)
def compound_create_write_close(cell):
    cell.run(p.create(cell.name("file"), p.MAKE),
             p.write(p.RELATED, 0, DATA), p.close(p.RELATED, True),
             related=True)
    cell.equal(cell.content("file"), DATA, "content")


@case("CREATE WRITE")
def compound_overwrite_write(cell):
    cell.make("file", DATA)
    replies = cell.run(p.create(cell.name("file"), p.OVERWRITE_IF),
                       p.write(p.RELATED, 0, b"new"), related=True)
    cell.equal(cell.content("file"), b"new", "content")
    works(cell, replies[0].handle, "file")


@case("CREATE SETINFO CLOSE", NAMES)
def compound_create_rename_close(cell):
    cell.run(p.create(cell.name("file"), p.MAKE),
             rename_to(cell, p.RELATED, "other"), p.close(p.RELATED),
             related=True)


# Run again as a whole: the file is an archive by then, as one is after a rename
@case("CREATE SETINFO CLOSE", NAMES, differs=True)
def compound_open_rename_close(cell):
    cell.make("file", DATA)
    cell.run(p.create(cell.name("file"), p.OPEN),
             rename_to(cell, p.RELATED, "other"), p.close(p.RELATED),
             related=True)


# Run again as a whole: what it opens is there to be removed, no more
@case("CREATE SETINFO CLOSE", differs=True)
def compound_open_delete_close(cell):
    cell.make("file", DATA)
    cell.run(p.create(cell.name("file"), p.OPEN),
             p.set_info(p.RELATED, p.INFO_FILE, p.DISPOSITION, b"\1"),
             p.close(p.RELATED), related=True)
    cell.check(not cell.exists("file"), "it is not deleted")


@case("CREATE CREATE", NAMES)
def compound_unrelated(cell):
    replies = cell.run(p.create(cell.name("one"), p.MAKE),
                       p.create(cell.name("two"), p.MAKE))
    for reply, name in zip(replies, ("one", "two")):
        works(cell, reply.handle, name)


@case("CREATE KEEPALIVE WRITE", NAMES)
def compound_unrelated_mixed(cell):
    other = cell.open("other")
    replies = cell.run(p.create(cell.name("file"), p.MAKE), p.echo(),
                       p.write(other, 0, DATA))
    works(cell, replies[0].handle, "file")


@case("CREATE GETINFO CLOSE")
def compound_failing(cell):
    cell.run(p.create(cell.name("nothing"), p.OPEN),
             p.query_info(p.RELATED, p.INFO_FILE, p.STANDARD),
             p.close(p.RELATED), related=True)


@case("CREATE READ CLOSE")
def compound_read(cell):
    cell.make("file", DATA)
    cell.run(p.create(cell.name("file"), p.OPEN),
             p.read(p.RELATED, 0, 5000), p.close(p.RELATED), related=True)


@case("WRITE WRITE READ")
def compound_writes(cell):
    handle = cell.open("file")
    cell.run(p.write(handle, 0, DATA), p.write(handle, 100, b"second"),
             p.read(handle, 0, 200), related=True)


@case("CREATE QUERY_DIRECTORY CLOSE")
def compound_listing(cell):
    for n in range(20):
        cell.make(f"name{n}")
    replies = cell.run(p.create(cell.name(), p.OPEN, p.DIRECTORY_FILE),
                       p.query_directory(p.RELATED), p.close(p.RELATED),
                       related=True)
    cell.see("names", replies[1].entries())


@case("CREATE LOCK")
def compound_lock(cell):
    cell.make("file", DATA)
    replies = cell.run(p.create(cell.name("file"), p.OPEN),
                       p.lock(p.RELATED, (0, 10, EXCLUSIVE)), related=True)
    cell.check(taken(cell, "file", 0, 10), "it is not locked")
    cell.client.do(p.lock(replies[0].handle, (0, 10, smb2.UNLOCK)))
    cell.check(not taken(cell, "file", 0, 10), "it is locked twice")


# all of them


class Run:
    """Of a variant; the results are by the title of a case and its point"""

    def __init__(self, variant, wanted, point):
        self.variant = variant
        self.wanted = wanted
        self.point = point
        self.results = {}
        self.log = 0

    def cases(self):
        for each in CASES:
            title = each.title
            if (self.variant == "synchronous" and not self.wanted and
                    not title.startswith(SYNCHRONOUS)):
                continue
            if self.wanted and not any(w in title for w in self.wanted):
                continue
            yield each

    def all(self):
        with Server("DSPOINTS", ADDRESS) as server:
            self.matrix = Matrix(server, ADDRESS)
            server.option(*VARIANTS[self.variant])
            self.matrix.start()
            try:
                for each in self.cases():
                    self.case(each)
            finally:
                self.matrix.stop()

    def case(self, each):
        self.client = None
        reference = None
        began = time.monotonic()
        for point in (None, *each.points):
            if point is not None and self.point not in (None, point):
                continue
            cell = self.cell(each, point, reference)
            if point is None and cell is None:
                # the case itself is wrong
                for missed in each.points:
                    self.results[each.title, missed] = "no reference"
                break
            reference = reference or cell
        self.drop()
        seconds = time.monotonic() - began
        if seconds > 3:
            print(f"    {each.title}: {seconds:.1f} s", flush=True)

    def cell(self, each, point, reference):
        """None if it failed"""
        failure = None
        cell = None
        self.new_log()
        try:
            if self.client is None or each.alone:
                self.drop()
                self.client = self.matrix.client()
            cell = Cell(self.matrix, self.client, each, point)
            cell.tree_id = self.client.ids[1]
            cell.begin()
            each.function(cell)
            cell.end()
            if reference is not None:
                compare(cell, reference)
        except (AssertionError, smb2.SMBError, smb2.Disconnected,
                TimeoutError, OSError, struct.error, LookupError,
                TypeError) as e:
            failure = str(e) or type(e).__name__
            where = [f for f in traceback.extract_tb(e.__traceback__)
                     if f.filename == os.path.abspath(__file__)]
            if where and where[-1].name not in ("cell", "compare"):
                failure += f" (line {where[-1].lineno})"
        self.matrix.disarm()
        if point is not None:
            self.results[each.title, point] = failure
        if failure is None:
            return cell
        print(f"FAILED {each.title}, {point}: {failure}")
        for line in self.new_log():
            print(f"    {line}")
        sys.stdout.flush()
        self.drop()
        return None

    def drop(self):
        if self.client is not None:
            self.matrix.rival_handles.pop(self.client, None)
            self.client.close()
        self.client = None

    def new_log(self):
        """What the server has said since, but for what it always says"""
        text = self.matrix.server.log()
        new, self.log = text[self.log:], len(text)
        return [line for line in new.splitlines()
                if line.startswith("  ") and "killed for a test" not in line]

    def table(self):
        points = [point for point in NAMES if any(
            at.split()[0] == point for _, at in self.results)]
        titles = list(dict.fromkeys(title for title, _ in self.results))
        width = max(map(len, titles), default=0)
        print(f"\n{self.variant}\n{'':{width}}  " +
              "  ".join(f"{point:6}" for point in points))
        for title in titles:
            words = []
            for point in points:
                found = [result for (name, at), result in
                         self.results.items()
                         if name == title and at.split()[0] == point]
                word = ("-" if not found else
                        "FAILED" if any(found) else "ok")
                words.append(f"{word:{max(6, len(point))}}")
            print(f"{title:{width}}  " + "  ".join(words).rstrip())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--point")
    parser.add_argument("-v", "--variant", choices=VARIANTS)
    parser.add_argument("pattern", nargs="*")
    args = parser.parse_args()
    end_cleanly()
    runs = [Run(variant, args.pattern, args.point)
            for variant in VARIANTS if args.variant in (None, variant)]
    for run in runs:
        run.all()
    passed = failed = 0
    for run in runs:
        run.table()
        failed += sum(1 for result in run.results.values() if result)
        passed += sum(1 for result in run.results.values() if not result)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
