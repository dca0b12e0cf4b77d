#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Samba's Python bindings over restarts of smbd.
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

"""usage: bindings.py SMB.CONF ADDRESS SHARE USER PASSWORD RESTART-COMMAND

libsmb does not reconnect: whatever the server loses is an exception here.
It cannot ask for leases and does not hear of oplock breaks over SMB2.
The server has to listen on port 445. DS_PREFIX names the installation.
"""

import glob
import os
import subprocess
import sys

PREFIX = os.environ["DS_PREFIX"]
sys.dont_write_bytecode = True
sys.path[:0] = glob.glob(os.path.join(PREFIX, "lib*", "python3*",
                                      "*-packages"))

from samba import NTSTATUSError, ntstatus
from samba.credentials import Credentials
from samba.samba3 import libsmb_samba_internal as libsmb
from samba.samba3 import param

CONF, ADDRESS, SHARE, USER, PASSWORD, RESTART = sys.argv[1:]

GENERIC_READ_WRITE = 0xc0000000
SHARE_ALL = (libsmb.FILE_SHARE_READ | libsmb.FILE_SHARE_WRITE |
             libsmb.FILE_SHARE_DELETE)
PATIENCE_MS = 60 * 1000


def say(text):
    print("Python bindings: " + text, flush=True)


def connect(**more):
    lp = param.get_context()
    lp.load(CONF)
    creds = Credentials()
    creds.guess(lp)
    creds.set_username(USER)
    creds.set_password(PASSWORD)
    conn = libsmb.Conn(ADDRESS, SHARE, lp=lp, creds=creds, **more)
    conn.settimeout(PATIENCE_MS)
    return conn


def restart():
    subprocess.run(["sh", "-c", RESTART], check=True, timeout=60,
                   stdin=subprocess.DEVNULL)


def ports():
    """Local ports of our connections."""
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    with open("/proc/net/tcp", encoding="ascii") as f:
        fields = [line.split() for line in list(f)[1:]]
    # 01: established
    return {field[1].split(":")[1] for field in fields
            if field[9] in inodes and field[3] == "01"}


def expect(status, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except NTSTATUSError as e:
        if e.args[0] != status:
            raise
    else:
        raise AssertionError(f"{function.__name__} should have failed")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def files(conns):
    """A file for each connection, opened before, used after."""
    handles = []
    for number, conn in enumerate(conns):
        name = f"file{number}"
        fnum = conn.create(name, DesiredAccess=GENERIC_READ_WRITE,
                           ShareAccess=libsmb.FILE_SHARE_READ,
                           CreateDisposition=libsmb.FILE_OVERWRITE_IF)
        conn.write(fnum, b"before", 0)
        handles.append((name, fnum))
    restart()
    for number, (conn, (name, fnum)) in enumerate(zip(conns, handles)):
        rival = conns[number - 1]
        expect(ntstatus.NT_STATUS_SHARING_VIOLATION, rival.create, name,
               DesiredAccess=GENERIC_READ_WRITE, ShareAccess=SHARE_ALL)
        conn.write(fnum, b" and after", 6)
        check(conn.read(fnum, 0, 100) == b"before and after", "contents")
        conn.close(fnum)
        check(rival.loadfile(name) == b"before and after", "contents")
    say(f"{len(conns)} connections with a file each")


def directories(conns):
    conn, other = conns[:2]
    conn.mkdir("dir")
    for number in range(300):
        conn.savefile(f"dir\\entry{number}", b"x" * number)
    wanted = {e["name"]: e["size"] for e in conn.list("dir")}
    check(len(wanted) == 300, "300 entries")
    restart()
    check({e["name"]: e["size"] for e in conn.list("dir")} == wanted,
          "the same listing")
    other.rename("dir\\entry7", "dir\\entry7777")
    check(not any(e["name"] == "entry7" for e in conn.list("dir")),
          "a new listing")
    restart()
    conn.deltree("dir")
    check(not other.chkpath("dir"), "the directory is gone")
    say("directories")


def delete_on_close(conns):
    conn, other = conns[:2]
    fnum = conn.create("doomed", DesiredAccess=GENERIC_READ_WRITE | 0x10000,
                       ShareAccess=SHARE_ALL,
                       CreateDisposition=libsmb.FILE_CREATE)
    conn.delete_on_close(fnum, 1)
    restart()
    expect(ntstatus.NT_STATUS_DELETE_PENDING, other.create, "doomed",
           ShareAccess=SHARE_ALL)
    conn.close(fnum)
    expect(ntstatus.NT_STATUS_OBJECT_NAME_NOT_FOUND, other.create, "doomed",
           ShareAccess=SHARE_ALL)
    say("delete on close")


def notify():
    watcher = connect()
    rival = connect()
    watcher.mkdir("watched")
    fnum = watcher.create("watched", DesiredAccess=1,
                          ShareAccess=SHARE_ALL,
                          CreateOptions=libsmb.FILE_DIRECTORY_FILE)
    watch = watcher.notify(fnum=fnum, buffer_size=65536,
                           completion_filter=libsmb.FILE_NOTIFY_CHANGE_NAME,
                           recursive=False)
    restart()
    check(watch.get_changes(wait=False) is None, "nothing has changed")
    rival.savefile("watched\\new", b"")
    changes = watch.get_changes(wait=True)
    check([(c["name"], c["action"]) for c in changes] ==
          [("new", libsmb.NOTIFY_ACTION_ADDED)], f"a change, not {changes}")
    watcher.close(fnum)
    rival.deltree("watched")
    say("change notification")


def main():
    conns = [connect() for _ in range(5)]
    before = ports()
    check(len(before) == len(conns), "a port for each connection")
    files(conns)
    directories(conns)
    delete_on_close(conns)
    check(ports() == before, "the connections are the same")
    notify()
    return 0


if __name__ == "__main__":
    sys.exit(main())
