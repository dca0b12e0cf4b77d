#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# What an administrator may do to a server, and what its clients see of it.
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

"""usage: test_operation.py [TestOperation.test_...]

Each test has a server of its own. The client never reconnects: if it goes on,
its connection is the same.

DS_PREFIX   the installed tree (default: build/prefix)
DS_ADDRESS  address of the server (default: 127.0.0.65)
"""

import contextlib
import fcntl
import glob
import os
import shutil
import signal
import struct
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib")]
from server import (PASSWORD, PORT, USER, alive, end_cleanly, program,
                    wait_until)
# with Samba's modules
from operation import Result, TestCase
import smb2
from samba import NTSTATUSError
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.ntstatus import (NT_STATUS_NETWORK_NAME_DELETED,
                            NT_STATUS_PIPE_DISCONNECTED,
                            NT_STATUS_USER_SESSION_DELETED)
from samba.samba3 import libsmb_samba_internal as libsmb
from samba.samba3 import param

ADDRESS = os.environ.get("DS_ADDRESS", "127.0.0.65")
# ds_record_type
RECORD_SESSION, RECORD_OPEN = 3, 9
# A second user, known to every system
OTHER_USER = "daemon"


def record_sum(head, data):
    """The checksum of a record, ds_image_record_sum() of image.c."""
    kind, length, key, flags, _ = struct.unpack("=IIQII", head)
    data = data.ljust((length + 7) // 8 * 8, b"\0")
    result = 0x44535f494d414745
    for word in (kind, length, key, flags,
                 *struct.unpack(f"={len(data) // 8}Q", data)):
        result = (result ^ word) * 0x9e3779b97f4a7c15 % 2 ** 64
        result ^= result >> 32
    return struct.pack("=I", result % 2 ** 32)


class TestOperation(TestCase):
    NAME, ADDRESS = "DSOPERATION", ADDRESS

    # ways to restart

    def test_term_and_start(self):
        """SIGTERM to the parent, then a start, as a service manager does"""
        self.server.start()
        client = self.client()
        self.assert_protected(client, "full")
        for _ in range(3):
            self.server.restart()
            client.work()
        self.assert_protected(client, "full")
        self.assert_lives(client)

    def killall(self, order):
        self.server.start()
        clients = [self.client(name=f"worker{n}") for n in range(4)]
        for _ in range(3):
            processes = self.server.processes()
            self.assertGreater(len(processes), len(clients))
            for pid in sorted(processes, key=order):
                # that of a client that has just left may be gone
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not any(map(alive, processes)),
                       "the end of all smbd processes")
            self.server.start()
            for client in clients:
                client.work()
        for client in clients:
            self.assert_lives(client)

    def test_term_to_all(self):
        """SIGTERM to all processes at once, as killall does"""
        self.killall(lambda pid: pid)

    def test_term_to_all_children_first(self):
        """SIGTERM to all processes at once, to the parent last"""
        self.killall(lambda pid: -pid)

    def test_drop(self):
        """durable_state:on stop = drop: a stop cuts off"""
        self.server.option("durable_state:on stop = drop")
        self.server.start()
        client = self.client()
        self.assert_protected(client, "partly", "on stop = drop")
        self.server.stop()
        self.assert_cut_off(client)
        self.server.start()
        self.assert_nothing_left(client)

    def test_hold_time(self):
        """No start within the hold time: closed as by a normal stop"""
        self.server.option("durable_state:hold time = 3")
        self.server.start()
        client = self.client()
        self.server.stop()
        self.assertFalse(client.cut_off(1), "cut off before its time")
        self.assert_cut_off(client)
        self.server.start()
        self.assert_nothing_left(client)
        another = self.client(name="another")
        self.server.restart()
        self.assert_lives(another)

    def test_within_hold_time(self):
        """A start that comes late, but within the hold time"""
        self.server.option("durable_state:hold time = 30")
        self.server.start()
        client = self.client()
        self.server.stop()
        self.assertFalse(client.cut_off(4), "cut off before its time")
        self.server.start()
        self.assert_lives(client)

    # the keeper

    def test_keeper_killed(self):
        """SIGKILL to the keeper: clients are served, then protected again"""
        # a keeper that can be kept from starting
        keeper, off = self.server.path("keeper"), self.server.path("off")
        with open(keeper, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\n[ -e {off} ] && exit 1\n"
                    f"exec {program('durable_stated')} \"$@\"\n")
        os.chmod(keeper, 0o755)
        self.server.option(f"durable_state:keeper = {keeper}")
        self.server.start()
        client = self.client()
        self.assert_protected(client, "full")

        with open(off, "w", encoding="ascii"):
            pass
        former = self.server.keeper_pid()
        os.kill(former, signal.SIGKILL)
        wait_until(lambda: self.connection(client)["protected"] == "none",
                   "status 'none'")
        self.assertIn("keeper", self.connection(client)["reason"])
        self.assertEqual(self.server.status()["keeper"]["state"], "gone")
        client.work()

        os.unlink(off)
        wait_until(lambda: self.connection(client)["protected"] == "full",
                   "protection", 60)
        self.assertNotEqual(self.server.keeper_pid(), former)
        client.work()
        self.server.restart()
        self.assert_lives(client)

    def test_keeper_back_at_once(self):
        """SIGKILL to the keeper again and again, with a restart after each"""
        self.server.start()
        client = self.client()
        for _ in range(3):
            former = self.server.keeper_pid()
            os.kill(former, signal.SIGKILL)
            wait_until(lambda: self.server.keeper_pid()
                       not in (None, former), "a new keeper")
            wait_until(lambda: self.connection(client)["protected"] ==
                       "full", "protection")
            self.server.restart()
            client.work()
        self.assert_lives(client)

    def test_keeper_reexec(self):
        """SIGHUP to the keeper while it holds"""
        self.server.start()
        client = self.client()
        for _ in range(2):
            keeper = self.server.keeper_pid()
            self.server.stop()
            os.kill(keeper, signal.SIGHUP)
            self.server.start()
            self.assertEqual(self.server.keeper_pid(), keeper)
            client.work()
        self.assert_lives(client)

    def test_keeper_reexec_idle(self):
        """SIGHUP to the keeper while smbd runs"""
        self.server.start()
        client = self.client()
        keeper = self.server.keeper_pid()
        os.kill(keeper, signal.SIGHUP)
        wait_until(lambda: self.connection(client)["protected"] == "full",
                   "protection")
        self.server.restart()
        self.assertEqual(self.server.keeper_pid(), keeper)
        self.assert_lives(client)

    # images that cannot be used

    def spoil(self, offset, data, most):
        """Overwrites something in the images that the keeper holds."""
        keeper = self.server.keeper_pid()
        spoiled = set()
        for link in sorted(glob.glob(f"/proc/{keeper}/fd/*")):
            if (os.readlink(link).startswith("/memfd:durable_state image")
                    and len(spoiled) < most):
                with open(link, "r+b", buffering=0) as image:
                    image.seek(offset)
                    image.write(data)
                    spoiled.add(os.fstat(image.fileno()).st_ino)
        return len(spoiled)

    def rewrite(self, change):
        """Applies change(type, data) to the records of one image that the
        keeper holds, and makes the checksums right again; returns how many
        records were changed."""
        keeper = self.server.keeper_pid()
        for link in sorted(glob.glob(f"/proc/{keeper}/fd/*")):
            if os.readlink(link).startswith("/memfd:durable_state image"):
                break
        changed = 0
        # struct ds_image_header has the place of struct ds_image_log, which
        # struct ds_image_record and its data follow
        with open(link, "r+b", buffering=0) as image:
            image.seek(16)
            log, = struct.unpack("=Q", image.read(8))
            image.seek(log)
            used, = struct.unpack("=Q", image.read(8))
            position = log + 8
            while position < log + used:
                image.seek(position)
                head = image.read(24)
                kind, length, _, _, _ = struct.unpack("=IIQII", head)
                data = image.read(length)
                other = change(kind, data)
                if other != data:
                    self.assertEqual(len(other), length)
                    image.seek(position + 20)
                    image.write(record_sum(head, other) + other)
                    changed += 1
                position += 24 + (length + 7) // 8 * 8
        return changed

    def one_lost(self, damage):
        """Of some clients one is cut off, the others do not notice."""
        self.server.start()
        clients = [self.client(name=f"worker{n}") for n in range(3)]
        self.server.stop()
        damage()
        self.server.start()
        lost = [client for client in clients
                if client.port not in self.ports()]
        self.assertEqual(len(lost), 1)
        for client in clients:
            if client in lost:
                self.assert_cut_off(client)
                self.assert_nothing_left(client)
            else:
                self.assert_lives(client)
        self.assertIn(f":{lost[0].port}: cannot resume", self.server.log())
        # and the next restart is as any other
        self.server.restart()
        for client in clients:
            if client not in lost:
                client.work()

    def test_other_version(self):
        """Images of another version: said so, cut off, a clean start"""
        self.server.start()
        clients = [self.client(name=f"worker{n}") for n in range(2)]
        self.server.stop()
        # ds_image_header.version
        self.assertEqual(self.spoil(8, struct.pack("=I", 0x7fffffff), 2), 2)
        self.server.start()
        for client in clients:
            self.assert_cut_off(client)
        self.assertRegex(self.server.log(), "cannot resume, .*version")
        another = self.client(name="another")
        self.server.restart()
        self.assert_lives(another)

    def test_damaged_image(self):
        """An image that is damaged costs that connection only"""
        # behind ds_image_header with its notes, and ds_image_log: in the
        # first record
        self.one_lost(lambda: self.assertEqual(
            self.spoil(24 + 256 + 8 + 16, b"\xff" * 16, 1), 1))

    def test_incomplete_image(self):
        """An image that was not completed costs that connection only"""
        # ds_image_header.complete
        self.one_lost(lambda: self.assertEqual(
            self.spoil(12, bytes(4), 1), 1))

    def test_unreadable_record(self):
        """A record that does not parse costs that connection only"""
        self.one_lost(lambda: self.assertGreater(
            self.rewrite(lambda kind, data: b"\xff" * len(data)
                         if kind == RECORD_OPEN else data), 0))

    def test_cut_record(self):
        """A record with zeros instead of its end costs that connection"""
        self.one_lost(lambda: self.assertGreater(
            self.rewrite(lambda kind, data: data[:40].ljust(len(data), b"\0")
                         if kind == RECORD_SESSION else data), 0))

    def ports(self):
        return {int(c["client"].rpartition(":")[2])
                for c in self.server.status()["connections"]}

    # the configuration

    def test_share_without_module(self):
        """A share without the module: said so, cut off; others live"""
        self.server.share("bare", "vfs objects = streams_xattr",
                          "kernel oplocks = no")
        self.server.start()
        client = self.client()
        bare = self.client("bare", "bare")
        self.assert_protected(client, "full")
        self.assert_protected(bare, "none", "'bare'")
        self.server.restart()
        self.assert_cut_off(bare)
        self.assert_lives(client)

    def test_smb1(self):
        """SMB1: said so, cut off; others live"""
        # the Python bindings know no other port
        self.edit(lambda conf: conf.replace("min protocol = SMB2_02",
                                            "min protocol = NT1")
                  .replace(f"ports = {PORT}", f"ports = {PORT} 445"))
        self.server.start()
        client = self.client()
        conn = self.connect_smb1()
        handle = conn.create("smb1", DesiredAccess=smb2.GENERIC_READ_WRITE,
                             CreateDisposition=libsmb.FILE_OPEN_IF)
        conn.write(handle, b"data", 0)
        old = [c for c in self.server.status()["connections"]
               if not c["client"].endswith(f":{client.port}")]
        self.assertEqual([(c["dialect"], c["protected"]) for c in old],
                         [("NT1", "none")])
        self.assertIn("SMB1", old[0]["reason"])
        self.assert_protected(client, "full")
        self.server.restart()
        with self.assertRaises(NTSTATUSError):
            conn.write(handle, b"data", 0)
        # nothing of it is left, and SMB1 is served as before
        conn = self.connect_smb1()
        conn.create("smb1", DesiredAccess=smb2.GENERIC_READ_WRITE,
                    ShareAccess=0, CreateDisposition=libsmb.FILE_OPEN)
        self.assert_lives(client)

    def connect_smb1(self):
        conf = self.server.path("smb1.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write("[global]\n\tclient min protocol = NT1\n"
                    "\tclient max protocol = NT1\n")
        lp = param.get_context()
        lp.load(conf)
        creds = Credentials()
        creds.guess(lp)
        creds.set_kerberos_state(DONT_USE_KERBEROS)
        creds.set_username(USER)
        creds.set_password(PASSWORD)
        return libsmb.Conn(ADDRESS, "durable", lp=lp, creds=creds,
                           force_smb1=True)

    def test_named_pipe(self):
        """A named pipe: said so, disconnected; the client lives"""
        self.server.start()
        client = self.client()
        durable = client.tree_connect("IPC$")
        pipe, _ = client.open("srvsvc")
        ipc = client.use_tree(durable)
        self.assert_protected(client, "partly", "named pipe")
        self.server.restart()
        client.use_tree(ipc)
        self.assert_refused(NT_STATUS_PIPE_DISCONNECTED,
                            client.write, pipe, 0, b"data")
        client.open("srvsvc")
        client.use_tree(durable)
        self.assert_lives(client)

    # what is there no more, or not for everyone

    def remove_user(self, user):
        subprocess.run([program("pdbedit"), "-s", self.server.conf, "-x",
                        "-u", user], check=True, capture_output=True)

    def test_user_removed(self):
        """A user that is gone after the start: the other one lives"""
        self.server.sh("ds_server_user", OTHER_USER, PASSWORD)
        self.server.start()
        client = self.client()
        first = client.login(OTHER_USER, "durable")
        handle, _ = client.open("others")
        client.write(handle, 0, b"data")
        second = client.use_session(first)
        alone = self.client(name="alone", user=OTHER_USER)

        self.server.stop()
        self.remove_user(OTHER_USER)
        self.server.start()

        client.use_session(second)
        self.assert_refused(NT_STATUS_USER_SESSION_DELETED,
                            client.read, handle, 0, 4)
        client.use_session(first)
        self.assert_lives(client)
        with self.assertRaises((smb2.SMBError, smb2.Disconnected)):
            alone.work()
        self.assert_nothing_left(alone)

    def test_file_unlinked(self):
        """Local processes unlink and replace open files while none serves"""
        self.server.start()
        client = self.client()
        handle, _ = client.open("doomed")
        client.write(handle, 0, b"data")
        renamed, _ = client.open("renamed")
        client.write(renamed, 0, b"data")
        self.server.stop()
        os.unlink(self.server.path("durable", "doomed"))
        os.rename(self.server.path("durable", "renamed"),
                  self.server.path("durable", "elsewhere"))
        with open(self.server.path("durable", "renamed"), "wb") as f:
            f.write(b"another file")
        self.server.start()
        # as for who has a file open: it is there until it is closed
        self.assertEqual(client.read(handle, 0, 4), b"data")
        client.write(renamed, 0, b"DATA")
        self.assertEqual(client.read(renamed, 0, 100), b"DATA")
        with open(self.server.path("durable", "renamed"), "rb") as f:
            self.assertEqual(f.read(), b"another file")
        self.assert_lives(client)

    def test_directory_removed(self):
        """A share whose directory is gone: the other one lives"""
        self.two_shares(lambda conf: shutil.rmtree(
            self.server.path("other")) or conf)

    def test_local_lock(self):
        """A local process does not get the lock of a client meanwhile"""
        self.server.start()
        client = self.client("plain", "worker")
        path = self.server.path("plain", "worker.locked")
        with open(path, "r+b") as f:
            for step in (None, self.server.stop, self.server.start):
                if step is not None:
                    step()
                with self.assertRaises(BlockingIOError):
                    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
                fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
            client.work()
            client.lock(client.locked, 0, 10, smb2.UNLOCK)
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)

    def wrong(self, line, message):
        with open(self.server.conf, encoding="utf-8") as f:
            number = [text.strip() for text in f].index(line) + 1
        self.server.start()
        self.assertIn(f"{self.server.conf}:{number}: ", self.server.log())
        self.assertIn(message, self.server.log())
        client = self.client()
        self.assert_protected(client, "none", message)
        for command in ("restart", "check"):
            run = subprocess.run([sys.executable, program("samba-tool"),
                                  "durable-state", command, "-s",
                                  self.server.conf],
                                 capture_output=True, text=True, timeout=60)
            said = run.stdout + run.stderr
            self.assertEqual(run.returncode, 2, said)
            self.assertIn(f"{self.server.conf}:{number}: ", said)
            self.assertIn(message, said)
        client.work()
        self.server.restart()
        self.assert_cut_off(client)

    def test_wrong_value(self):
        """A wrong value: the line is named, clients served unprotected"""
        line = "durable_state:hold time = soon"
        self.server.option(line)
        self.wrong(line, "must be a number of seconds")

    def test_unknown_option(self):
        """An unknown option: the line is named, clients unprotected"""
        line = "durable_state:hold tine = 5"
        self.server.option(line)
        self.wrong(line, "there is no option 'durable_state:hold tine'")

    def test_option_in_share(self):
        """An option in a share: the line is named, clients unprotected"""
        line = "durable_state:hold time = 5"
        self.server.share("other", line)
        self.wrong(line, "belongs in [global], not in [other]")

    def edit(self, change):
        """Gives smb.conf another text."""
        with open(self.server.conf, encoding="utf-8") as f:
            conf = f.read()
        with open(self.server.conf, "w", encoding="utf-8") as f:
            f.write(change(conf))

    def test_wrong_while_held(self):
        """An option is wrong at the start: who was kept is not cut off"""
        self.server.start()
        client = self.client()
        self.server.stop()
        self.server.option("durable_state:hold time = soon")
        self.server.start()
        self.assert_lives(client)
        self.assert_protected(client, "none", "must be a number of seconds")

    def test_module_removed(self):
        """No share wants us any more: cut off, the next smbd is free"""
        self.server.start()
        client = self.client()
        self.edit(lambda conf: conf.replace(" durable_state\n", "\n"))
        self.server.stop()
        self.assert_cut_off(client)
        self.server.start()
        # none of them waits at a socket that somebody else has
        for _ in range(10):
            smb2.Client(ADDRESS, PORT, "durable", USER, PASSWORD).close()
        self.assert_nothing_left(client)

    def two_shares(self, change):
        self.server.share("other", "kernel oplocks = no")
        self.server.start()
        client = self.client()
        durable = client.tree_connect("other")
        handle, _ = client.open("file")
        client.write(handle, 0, b"data")
        other = client.use_tree(durable)
        self.server.stop()
        self.edit(change)
        self.server.start()

        client.use_tree(other)
        self.assert_refused(NT_STATUS_NETWORK_NAME_DELETED,
                            client.read, handle, 0, 4)
        client.use_tree(durable)
        self.assert_lives(client)

    def test_share_removed(self):
        """A share that is gone after the start: the other one lives"""
        self.two_shares(lambda conf: conf.partition("[other]")[0])

    def test_share_forbidden(self):
        """A share that the user may no longer use: the other one lives"""
        self.two_shares(lambda conf: conf + "\tvalid users = nobody\n")


if __name__ == "__main__":
    end_cleanly()
    unittest.main(testRunner=unittest.TextTestRunner(resultclass=Result))
