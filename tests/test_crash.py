#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Processes of a server are killed, and what its clients see of it.
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

"""usage: test_crash.py [TestCrash.test_...]

Each test has a server of its own. The client never reconnects: if it goes on,
its connection is the same.

DS_PREFIX   the installed tree (default: build/prefix)
DS_ADDRESS  address of the server (default: 127.0.0.67)
"""

import contextlib
import filecmp
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib")]
from server import (PASSWORD, PORT, USER, alive, end_cleanly, program,
                    wait_until)
# with Samba's modules
from operation import EXCLUSIVE, FULL, TICK_SECONDS, Result, TestCase
import smb2

MIB = 1024 * 1024
# A transfer is of TRANSFER bytes, or of more if it was too fast for so many
# kills; one that is killed all the time is given up, DS_CRASH_MAX of crash.c
TRANSFER = 300 * MIB
TRANSFER_MAX = 8 * TRANSFER
KILLS, KILLS_MAX = 5, 40
# A process may process something before its end
KILL_SECONDS = 0.05


def kill(pid, number=signal.SIGKILL):
    """Returns when it has ended; what has ended before is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    wait_until(lambda: not alive(pid), f"the end of {pid}")


class TestCrash(TestCase):
    NAME = "DSCRASH"
    ADDRESS = os.environ.get("DS_ADDRESS", "127.0.0.67")

    def setUp(self):
        super().setUp()
        # the same as of samba-tool, which takes its time to start
        self.server.status = self.status

    def status(self):
        with self.control() as control:
            return self.ask(control)

    def control(self):
        control = socket.socket(socket.AF_UNIX)
        control.settimeout(20)
        control.connect(self.server.path("lock", "durable_state", "control"))
        return control

    def ask(self, control):
        control.sendall(b'{"command": "status"}\n')
        text = b""
        while not text.endswith(b"\n"):
            data = control.recv(MIB)
            self.assertTrue(data, "the control socket was closed")
            text += data
        return json.loads(text)

    def pid(self, client):
        return self.connection(client)["pid"]

    def crashes(self):
        return [event for event in self.server.status()["events"]
                if event["kind"] == "crash"]

    def kill_child(self, client, number=signal.SIGKILL):
        """Returns the pid of the process that serves it afterwards."""
        former = self.pid(client)
        crashes = len(self.crashes())
        kill(former, number)
        wait_until(lambda: len(self.crashes()) > crashes, "a crash event")
        event = self.crashes()[-1]
        self.assertEqual((event["connections"], event["lost"]), (1, 0), event)
        pid = self.pid(client)
        self.assertNotEqual(pid, former)
        self.assertEqual(self.connection(client)["protected"], "full")
        return pid

    def assert_lease(self, client):
        """Another open breaks its lease, and waits for the answer."""
        name = client.key.decode().strip()
        rival = self.rival()
        mid = rival.open_send(f"{name}.leased")
        self.assertTrue(client.wait_break(10), "no lease break")
        key, old, new, answer = client.breaks.pop()
        self.assertEqual((key, old), (client.key, FULL))
        self.assertTrue(answer)
        self.assertFalse(rival.answered(mid, 0.2), "it did not wait")
        client.acknowledge(key, new)
        rival.open_wait(mid)
        client.work()

    # a client's process

    def child(self, number):
        self.server.start()
        client = self.client()
        self.assert_protected(client, "full")
        for _ in range(3):
            self.assertEqual(self.kill_child(client, number),
                             self.crashes()[-1]["pid"])
            client.work()
        self.assert_lives(client)
        self.assert_lease(client)

    def test_kill(self):
        """SIGKILL to the process of a client, three times"""
        self.child(signal.SIGKILL)

    def test_segv(self):
        """SIGSEGV to the process of a client, three times"""
        self.child(signal.SIGSEGV)

    def test_abort(self):
        """SIGABRT to the process of a client, three times"""
        self.child(signal.SIGABRT)

    def test_kill_lives(self):
        """SIGKILL, and all is looked at after each of three times"""
        self.server.start()
        client = self.client()
        for _ in range(3):
            self.kill_child(client)
            self.assert_lives(client)
            os.unlink(self.server.path("durable", "worker", "new"))
            # the rivals' handles would see it as well
            self.close_rivals(client)
            client.directory, _ = client.open(
                "worker", smb2.LIST_DIRECTORY, directory=True)
            client.watch = client.watch_send(client.directory)
            time.sleep(TICK_SECONDS)
        self.assert_lease(client)

    def close_rivals(self, *kept):
        for client in self.clients[:]:
            if client not in kept:
                client.close()
                self.clients.remove(client)
        wait_until(lambda: len(self.server.status()["connections"]) ==
                   len(kept), "the end of the rivals' connections")

    def test_another(self):
        """SIGKILL to a client's process is nothing to another client"""
        self.server.start()
        client = self.client()
        another = self.client(name="another")
        pid = self.pid(another)
        for _ in range(3):
            self.kill_child(client)
            self.assertEqual(self.pid(another), pid)
            another.work()
            client.work()
        handle, _ = another.open("worker.locked")
        # in no moment can it be had
        former = self.pid(client)
        os.kill(former, signal.SIGKILL)
        for _ in range(100):
            with self.assertRaises(smb2.SMBError):
                another.lock(handle, 0, 10, EXCLUSIVE)
        wait_until(lambda: self.pid(client) != former, "the process after it")
        with self.assertRaises(smb2.SMBError):
            another.lock(handle, 0, 10, EXCLUSIVE)
        self.assert_lives(client)
        self.assert_lease(client)
        self.assert_lives(another)
        self.assertEqual(self.pid(another), pid)

    # what waits

    def test_notify(self):
        """A change notify is answered by the process after a killed one"""
        self.server.start()
        client = self.client()
        rival = self.rival()
        for n in range(5):
            self.kill_child(client)
            self.assertFalse(client.answered(client.watch, 0.1))
            rival.open(f"worker\\{n}")
            self.assertTrue(client.answered(client.watch, 10), "no answer")
            self.assertIn(client.watch_wait(client.watch), ([f"{n}"], None))
            client.watch = client.watch_send(client.directory)
            wait_until(lambda: self.connection(client)["waiting"] == 1,
                       "a change notify that waits")
            time.sleep(TICK_SECONDS)

    def test_notify_many(self):
        """A change notify that waits while five processes are killed"""
        self.server.start()
        client = self.client()
        for _ in range(5):
            self.kill_child(client)
        self.assert_lives(client)

    def test_notify_missed(self):
        """A change that the killed process did not see"""
        self.server.start()
        client = self.client()
        rival = self.rival()
        pid = self.pid(client)
        os.kill(pid, signal.SIGSTOP)
        rival.open("worker\\missed")
        kill(pid)
        self.assertTrue(client.answered(client.watch, 10), "no answer")
        self.assertIn(client.watch_wait(client.watch), (["missed"], None))
        client.watch = None
        self.assert_lives(client)

    def lock_send(self, client, handle):
        """Asks for a lock that is held, and waits until it waits."""
        waiting = self.connection(client)["waiting"]
        mid = client.send(smb2.LOCK, struct.pack(
            "<HHI16sQQII", 48, 1, 0, handle, 0, 10, smb2.LOCK_EXCLUSIVE, 0))
        wait_until(lambda: self.connection(client)["waiting"] > waiting,
                   "a lock that waits")
        return mid

    def blocking_lock(self, happens):
        self.server.start()
        owner = self.client(name="owner")
        client = self.client()
        handle, _ = client.open("owner.locked")
        mid = self.lock_send(client, handle)
        happens(owner, client)
        self.assertFalse(client.answered(mid, 0.2), "both have the lock")
        owner.lock(owner.locked, 0, 10, smb2.UNLOCK)
        self.assertTrue(client.answered(mid, 10), "no answer")
        client.wait(mid, "lock")
        with self.assertRaises(smb2.SMBError):
            owner.lock(owner.locked, 0, 10, EXCLUSIVE)
        self.assert_lives(client)

    def test_lock_waits(self):
        """A lock that waits when the process of its client is killed"""
        self.blocking_lock(lambda owner, client: self.kill_child(client))

    def test_lock_owner(self):
        """A lock that waits when the process of its owner is killed"""
        self.blocking_lock(lambda owner, client: self.kill_child(owner))

    def test_lock_both(self):
        """A lock that waits when both processes are killed, twice"""
        def happens(owner, client):
            for _ in range(2):
                crashes = len(self.crashes())
                pids = [self.pid(owner), self.pid(client)]
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda: len(self.crashes()) == crashes + 2,
                           "two crash events")
        self.blocking_lock(happens)

    def test_lock_missed(self):
        """An unlock that the killed process did not see"""
        self.server.start()
        owner = self.client(name="owner")
        client = self.client()
        handle, _ = client.open("owner.locked")
        mid = self.lock_send(client, handle)
        pid = self.pid(client)
        os.kill(pid, signal.SIGSTOP)
        owner.lock(owner.locked, 0, 10, smb2.UNLOCK)
        kill(pid)
        self.assertTrue(client.answered(mid, 10), "no answer")
        client.wait(mid, "lock")
        self.assert_lives(client)

    # transfers

    def transfer(self, command, source, target):
        """Returns how many processes were killed meanwhile."""
        kills = []
        with self.control() as control, \
                open(self.server.path("smbclient.log"), "w+b") as out, \
                subprocess.Popen([program("smbclient"),
                                  f"//{self.ADDRESS}/durable", "-s",
                                  self.server.path("client.conf"), "-p",
                                  str(PORT), "-U", f"{USER}%{PASSWORD}",
                                  "-c", command], stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out) as run:
            try:
                # when it is under way
                wait_until(lambda: run.poll() is not None or
                           os.path.exists(target) and
                           os.path.getsize(target) > 0, "the transfer")
                while run.poll() is None and len(kills) < KILLS_MAX:
                    found = self.ask(control)["connections"]
                    pid = found[0]["pid"] if len(found) == 1 else None
                    if pid not in (None, *kills):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            kills.append(pid)
                    time.sleep(KILL_SECONDS)
                run.wait(60)
            finally:
                if run.poll() is None:
                    run.kill()
            out.seek(0)
            said = out.read().decode(errors="replace")
        self.assertEqual(run.returncode, 0,
                         f"{said} after {len(kills)} kills")
        self.assertTrue(filecmp.cmp(source, target, False),
                        f"another content after {len(kills)} kills")
        return len(kills)

    def transfers(self, command, source, target):
        self.server.start()
        size, kills = TRANSFER, 0
        data = os.urandom(TRANSFER)
        while kills < KILLS:
            self.assertLessEqual(size, TRANSFER_MAX,
                                 f"only {kills} kills in that time")
            with open(source, "wb") as f:
                for begin in range(size // TRANSFER):
                    # no part is as another one
                    f.write(data[begin:] + data[:begin])
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            kills = self.transfer(command, source, target)
            print(f"    {size // MIB} MB, {kills} kills", flush=True)
            size *= 2

    def test_get(self):
        """smbclient get, its process is killed again and again"""
        there = self.server.path("durable", "data")
        here = self.server.path("data")
        self.transfers(f"get data {here}", there, here)

    def test_put(self):
        """smbclient put, its process is killed again and again"""
        there = self.server.path("durable", "data")
        here = self.server.path("data")
        self.transfers(f"put {here} data", here, there)

    # more than one process

    def kill_all(self, pids):
        """At once: none has the time to see the end of another."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), "their end")

    def tree(self, end):
        self.server.start()
        clients = [self.client(name=f"worker{n}") for n in range(3)]
        for _ in range(3):
            end()
            keeper = self.server.keeper_pid()
            self.server.start()
            for client in clients:
                client.work()
                self.assert_protected(client, "full")
            self.assertEqual(self.server.keeper_pid(), keeper)
        for client in clients:
            self.assert_lives(client)
            self.assert_lease(client)

    def test_tree(self):
        """SIGKILL to all processes of smbd at once, three times"""
        self.tree(lambda: self.kill_all(self.server.processes()))

    def test_tree_in_turn(self):
        """SIGKILL to all processes of smbd, the parent last"""
        def end():
            for pid in sorted(self.server.processes(), reverse=True):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # and those that came in the meantime
            wait_until(lambda: not self.end_rest(), "the end of smbd")
        self.tree(end)

    def end_rest(self):
        rest = self.server.processes()
        for pid in rest:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return rest

    def test_parent(self):
        """SIGKILL to the parent only, three times"""
        def end():
            former = self.server.processes()
            kill(self.server.pid())
            # what it leaves behind sees that
            wait_until(lambda: not any(map(alive, former)),
                       "the end of the other processes")
        self.tree(end)

    def test_parent_start_at_once(self):
        """SIGKILL to the parent only, and a start at once"""
        self.tree(lambda: kill(self.server.pid()))

    def test_keeper(self):
        """SIGKILL to the keeper and to a child: that one is cut off"""
        self.server.start()
        client = self.client()
        another = self.client(name="another")
        pid = self.pid(client)
        self.kill_all([self.server.keeper_pid(), pid])
        self.assertTrue(client.cut_off(5), "not cut off")
        self.assert_nothing_left(client)
        wait_until(lambda: self.connection(another)["protected"] == "full",
                   "protection", 60)
        self.kill_child(another)
        self.assert_lives(another)

    def test_keeper_then_tree(self):
        """SIGKILL to the keeper, and to all of smbd when the next one is
        there"""
        def end():
            former = self.server.keeper_pid()
            kill(former)
            wait_until(lambda: self.server.keeper_pid() not in (None, former),
                       "the next keeper")
            wait_until(lambda: all(c["protected"] == "full" for c in
                                   self.server.status()["connections"]),
                       "protection", 60)
            self.kill_all(self.server.processes())
        self.tree(end)

    # what cannot be run

    def killed_while_back(self, point, end):
        """The process that takes over is killed as well, at this point of
        its return: the next one does it"""
        kills = self.server.path("kills")
        self.server.option(f"durable_state:test kill = {kills}")
        self.server.start()
        clients = [self.client(name=f"worker{n}") for n in range(2)]
        for _ in range(2):
            with open(kills, "w", encoding="ascii") as f:
                f.write(f"{point} ANY 0")
            end(clients[0])
            wait_until(lambda: not os.path.exists(kills), "the second kill")
            for client in clients:
                wait_until(lambda c=client: self.is_full(c), "protection")
                client.work()
        for client in clients:
            self.assert_lives(client)
            self.assert_lease(client)
        self.assertEqual([event["lost"] for event in self.crashes()
                          if event["lost"]], [])

    def is_full(self, client):
        return any(client.port == int(c["client"].rsplit(":", 1)[1]) and
                   c["protected"] == "full"
                   for c in self.server.status()["connections"])

    def kill_one(self, client):
        kill(self.pid(client))

    def kill_tree(self, _):
        self.kill_all(self.server.processes())
        self.server.start()

    def test_back_child(self):
        self.killed_while_back("back", self.kill_one)

    def test_restored_child(self):
        self.killed_while_back("restored", self.kill_one)

    def test_back_tree(self):
        self.killed_while_back("back", self.kill_tree)

    def test_restored_tree(self):
        self.killed_while_back("restored", self.kill_tree)

    def test_poison(self):
        """A request over which three processes end: its client is dropped,
        the log and the status say why, others go on"""
        kills = self.server.path("kills")
        self.server.option(f"durable_state:test kill = {kills}")
        self.server.start()
        client = self.client(name="poison")
        another = self.client(name="another")
        handle, _ = client.open("poison.written")
        with open(kills, "w", encoding="ascii") as f:
            f.write("started WRITE 0 again")
        client.write_send(handle, 0, b"x")
        self.assertTrue(client.cut_off(10), "not cut off")
        os.unlink(kills)
        wait_until(lambda: self.server.status()["crashes"]["dropped"] == 1,
                   "a dropped client")
        crashes = self.server.status()["crashes"]
        self.assertEqual(crashes["survived"], 2, crashes)
        # and the client's watch
        self.assertEqual(crashes["requests"], {"NOTIFY": 2, "WRITE": 2})
        reason, = crashes["reasons"]
        for words in ("3 processes", "WRITE", "poison.written"):
            self.assertIn(words, reason)
        event = self.crashes()[-1]
        self.assertEqual((event["connections"], event["lost"]), (0, 1))
        self.assertEqual(event["lost_detail"][0]["reason"], reason)
        self.assertIn(reason, self.server.log())
        self.assert_nothing_left(client)
        self.assert_lives(another)

    # the end of a connection

    def assert_closed(self, client):
        """It is closed by us for writing: the server does so as well."""
        client._sock.settimeout(2)
        client._sock.shutdown(socket.SHUT_WR)
        # smbd without us resets it as well
        with contextlib.suppress(ConnectionResetError):
            while client._sock.recv(MIB):
                # answers may be on their way
                pass
        wait_until(lambda: not self.server.status()["connections"],
                   "no connection in the status", 5)

    def test_close(self):
        """The client closes: nothing keeps the connection open"""
        self.server.start()
        self.assert_closed(self.client())

    def test_close_after_kill(self):
        """As above, by a process that follows a killed one"""
        self.server.start()
        client = self.client()
        for _ in range(2):
            self.kill_child(client)
        self.assert_closed(client)
        self.assert_nothing_left(client)

    def test_drop(self):
        """durable_state:on stop = drop: a stop closes at once"""
        self.server.option("durable_state:on stop = drop")
        self.server.start()
        client = self.client()
        killed = self.client(name="killed")
        crashes = len(self.crashes())
        former = self.pid(killed)
        kill(former)
        wait_until(lambda: len(self.crashes()) > crashes, "a crash event")
        killed.work()
        self.server.stop()
        for each in (client, killed):
            self.assertTrue(each.cut_off(2), "still open")


if __name__ == "__main__":
    end_cleanly()
    unittest.main(testRunner=unittest.TextTestRunner(resultclass=Result))
