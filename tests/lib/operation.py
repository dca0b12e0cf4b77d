# Unix SMB/CIFS implementation.
#
# For tests of what clients see when something happens to their server.
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

"""What test_operation.py and test_crash.py have in common.

The client never reconnects: if it goes on, its connection is the same.
"""

import os
import struct
import sys
import time
import unittest

sys.path[:0] = [os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "demo")]
from server import PASSWORD, PORT, USER, Server, import_bindings

import_bindings()
import smb2
from samba.ntstatus import (NT_STATUS_FILE_LOCK_CONFLICT,
                            NT_STATUS_LOCK_NOT_GRANTED)

EXCLUSIVE = smb2.LOCK_EXCLUSIVE | smb2.FAIL_IMMEDIATELY
FULL = smb2.LEASE_READ | smb2.LEASE_WRITE | smb2.LEASE_HANDLE
# What is changed within the same tick of the kernel's clock as a watch begins
# may have been missed by a process that is killed: the client is told so
TICK_SECONDS = 0.05
# How long a client may take to notice that it was cut off
NOTICE_SECONDS = 15


class Worker(smb2.Client):
    """A client that has a locked file, one with a lease, and watches the
    directory that has its name."""

    def __init__(self, address, share, name, user=USER):
        super().__init__(address, PORT, share, user, PASSWORD)
        self.address = address
        self.key = name.encode().ljust(16)
        self.count = 0
        self.locked, _ = self.open(f"{name}.locked")
        self.lock(self.locked, 0, 10, EXCLUSIVE)
        self.leased, lease = self.open(f"{name}.leased", lease_key=self.key,
                                       lease=FULL)
        if lease != FULL:
            raise AssertionError(f"lease {smb2.lease_name(lease)}")
        self.directory, _ = self.open(name, smb2.LIST_DIRECTORY,
                                      directory=True)
        self.watch = self.watch_send(self.directory)

    def work(self):
        """Goes on with the handles; raises what smb2.Client raises."""
        self.count += 1
        data = f"{self.count} times".encode()
        for handle in (self.locked, self.leased):
            self.write(handle, 0, data)
            if self.read(handle, 0, len(data)) != data:
                raise AssertionError("read something else than was written")

    def cut_off(self, seconds=NOTICE_SECONDS):
        """True if the connection ends, now or soon; nothing is sent."""
        try:
            while self._readable(seconds):
                self._receive()
        except smb2.Disconnected:
            return True
        return False

    def tree_connect(self, share):
        """One more tree connect; the former one's id is returned."""
        former, self._tree = self._tree, 0
        path = f"\\\\{self.address}\\{share}".encode("utf-16-le")
        self.call(smb2.TREE_CONNECT,
                  struct.pack("<HHHH", 9, 0, 72, len(path)) + path)
        return former

    def use_tree(self, tree):
        former, self._tree = self._tree, tree
        return former

    def login(self, user, share):
        """One more session with a tree connect; the former ones' ids are
        returned."""
        former = self._session, self._tree
        self._session = self._tree = 0
        self._login(user, PASSWORD)
        self.tree_connect(share)
        return former

    def use_session(self, ids):
        former = self._session, self._tree
        self._session, self._tree = ids
        return former


class TestCase(unittest.TestCase):
    """A test with a server of its own: NAME and ADDRESS are the server's."""

    NAME = ADDRESS = None

    def setUp(self):
        print(f"{self.id().rpartition('.')[2]}: {self.shortDescription()}",
              flush=True)
        self.clients = []
        self.server = self.enterContext(Server(self.NAME, self.ADDRESS))
        self.addCleanup(self.close_clients)
        # not more than one wants to read
        self.server.option("log level = 1")

    def close_clients(self):
        for client in self.clients:
            client.close()

    def client(self, share="durable", name="worker", user=USER):
        watched = self.server.path(share, name)
        os.mkdir(watched)
        os.chmod(watched, 0o777)
        client = Worker(self.ADDRESS, share, name, user)
        self.clients.append(client)
        time.sleep(TICK_SECONDS)
        return client

    def rival(self):
        """A client that has nothing yet."""
        rival = smb2.Client(self.ADDRESS, PORT, "durable", USER, PASSWORD)
        self.clients.append(rival)
        return rival

    def connection(self, client):
        """What the status says of one client."""
        found = [c for c in self.server.status()["connections"]
                 if c["client"].endswith(f":{client.port}")]
        self.assertEqual(len(found), 1)
        return found[0]

    def assert_protected(self, client, wanted, reason=""):
        connection = self.connection(client)
        self.assertEqual(connection["protected"], wanted, connection)
        self.assertIn(reason, connection["reason"])

    def assert_lives(self, client):
        """And all that it had."""
        client.work()
        rival = self.rival()
        name = client.key.decode().strip()
        handle, _ = rival.open(f"{name}.locked")
        with self.assertRaises(smb2.SMBError) as caught:
            rival.lock(handle, 0, 10, EXCLUSIVE)
        self.assertIn(caught.exception.status,
                      (NT_STATUS_LOCK_NOT_GRANTED,
                       NT_STATUS_FILE_LOCK_CONFLICT))
        if client.watch is None:
            return
        self.assertFalse(client.answered(client.watch, 0),
                         "there was nothing to see")
        rival.open(f"{name}\\new")
        self.assertEqual(client.watch_wait(client.watch), ["new"])
        client.watch = None

    def assert_cut_off(self, client):
        self.assertTrue(client.cut_off(), "the connection is still there")

    def assert_nothing_left(self, client):
        """Others get what it had, and none has to wait for it."""
        name = client.key.decode().strip()
        rival = self.rival()
        handle, _ = rival.open(f"{name}.locked")
        rival.lock(handle, 0, 10, EXCLUSIVE)
        _, lease = rival.open(f"{name}.leased", lease_key=b"rival".ljust(16),
                              lease=FULL)
        self.assertEqual(lease, FULL)

    def assert_refused(self, status, function, *args):
        with self.assertRaises(smb2.SMBError) as caught:
            function(*args)
        self.assertEqual(caught.exception.status, status, caught.exception)


class Result(unittest.TextTestResult):
    """Shows the server's log while it is there."""

    def addError(self, test, err):
        super().addError(test, err)
        self.show_log(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.show_log(test)

    def show_log(self, test):
        print("FAILED, end of the server's log:")
        for line in test.server.log().splitlines()[-40:]:
            print("    " + line, flush=True)
