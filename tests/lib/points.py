# Unix SMB/CIFS implementation.
#
# A process is killed at a given point of a request.
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

"""A case is a function that makes what it needs, sends one request with
Cell.run(), and looks at what came of it. It is run once without a kill, and
then once for each point: all that is seen must be the same. A cell is one of
these runs, in a directory of its own.

    @case("FLUSH")
    def flush(cell):
        handle = cell.open("file")
        cell.run(packets.flush(handle))

See modules/fault.h for the points.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import stat
import struct

import packets
import smb2
from packets import Client
from server import wait_until

EARLY = "received", "started"
LATE = "done", "completed", "acknowledged"
POINTS = EARLY + LATE
# of requests that make names
NAMES = EARLY + ("effect", "effected") + LATE
# of requests that have no answer
SILENT = EARLY

KILL_SECONDS = 10
EXCLUSIVE = smb2.LOCK_EXCLUSIVE | smb2.FAIL_IMMEDIATELY
KEPT = b"it is still here"

CASES = []


class Case:
    def __init__(self, function, title, points, **options):
        self.function = function
        self.title = title
        # as it stands in the file, and as it is shown
        self.points = points
        # of a client of its own for each cell
        self.alone = options.pop("alone", False)
        # True: it may have another result than without a kill
        self.differs = options.pop("differs", False)
        # how often the command comes by before; what is said for it
        self.count = options.pop("count", 0)
        self.command = options.pop("command")
        self.compound = options.pop("compound", False)
        if options:
            raise TypeError(f"{title}: {options}")


def case(command, points=POINTS, title=None, **options):
    """Decorator. Of a compound there are several commands, each of which is
    started; the other points belong to all of it, or to what is left of it
    when others are answered already."""
    def add(function):
        name = title or function.__name__.replace("_", " ")
        commands = command.split()
        CASES.append(Case(function, f"{commands[0]}: {name}", points,
                          command=commands[0], compound=len(commands) > 1,
                          **options))
        for n, other in enumerate(commands[1:], 1):
            CASES.append(Case(
                function, f"{commands[0]}: {name}, at {other}", ("started",),
                command=other, **dict(options, count=commands[:n].count(
                    other))))
        return function
    return add


def cases(command, table, points=POINTS, **options):
    """The same with arguments from a table: title: arguments"""
    def add(function):
        for title, arguments in table.items():
            bound = functools.partial(_call, function, arguments)
            case(command, points, title, **options)(bound)
        return function
    return add


def _call(function, arguments, cell):
    function(cell, *arguments)


class Matrix:
    """A server and what is said to it besides requests"""

    def __init__(self, server, address):
        self.server = server
        self.address = address
        self.kill_file = server.path("points", "kill")
        os.mkdir(server.path("points"))
        os.chmod(server.path("points"), 0o777)
        self.rival = None
        self.cells = 0

    def start(self):
        self.server.option(f"durable_state:test kill = {self.kill_file}",
                           "log level = 1")
        self.server.start()
        self._control = socket.socket(socket.AF_UNIX)
        self._control.settimeout(20)
        self._control.connect(self.server.path("lock", "durable_state",
                                               "control"))
        self.rival = self.client()
        self.rival_handles = {}

    def stop(self):
        self._control.close()

    def client(self):
        return Client(self.address, "durable")

    def status(self):
        self._control.sendall(b'{"command": "status"}\n')
        text = b""
        while not text.endswith(b"\n"):
            data = self._control.recv(1024 * 1024)
            if not data:
                raise AssertionError("the control socket was closed")
            text += data
        return json.loads(text)

    def connection(self, client, status=None):
        """What the status says of it, None if that is nothing"""
        status = status or self.status()
        for connection in status["connections"]:
            if connection["client"].endswith(f":{client.port}"):
                return connection
        return None

    def arm(self, text):
        with open(self.kill_file + ".new", "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(self.kill_file + ".new", 0o666)
        os.rename(self.kill_file + ".new", self.kill_file)

    def armed(self):
        return os.path.exists(self.kill_file)

    def disarm(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.kill_file)


class Cell:
    """point: None for a run without a kill"""

    def __init__(self, matrix, client, case, point):
        self.matrix = matrix
        self.client = client
        self.rival = matrix.rival
        self.case = case
        self.point = point
        matrix.cells += 1
        self.directory = f"cell{matrix.cells:05}"
        os.mkdir(self.path())
        os.chmod(self.path(), 0o777)
        # all that is compared with the run without a kill: (what, value)
        self.seen = []
        self._posted = False
        self._former = self._events = None
        self._others = []

    # files

    def path(self, name=""):
        return self.matrix.server.path("durable", self.directory,
                                       *name.split("\\"))

    def name(self, name=""):
        """For a request"""
        return f"{self.directory}\\{name}" if name else self.directory

    def make(self, name, data=b""):
        with open(self.path(name), "wb") as f:
            f.write(data)
        os.chmod(self.path(name), 0o666)

    def make_directory(self, name):
        os.mkdir(self.path(name))
        os.chmod(self.path(name), 0o777)

    def content(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def exists(self, name):
        return os.path.lexists(self.path(name))

    def open(self, name, client=None, **options):
        """The handle"""
        return self.create(name, client, **options).handle

    def create(self, name, client=None, **options):
        return (client or self.client).do(
            packets.create(self.name(name), **options))

    def other(self):
        """A client of this cell only"""
        client = self.matrix.client()
        self._others.append(client)
        return client

    def tree(self):
        """Whatever there is in its directory"""
        found = {}
        for where, directories, files in os.walk(self.path()):
            for name in directories + files:
                path = os.path.join(where, name)
                st = os.lstat(path)
                data = None
                if stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as f:
                        data = f.read()
                more = {attribute: os.getxattr(path, attribute)
                        for attribute in os.listxattr(path)
                        if attribute.startswith("user.") and
                        attribute != "user.DOSATTRIB"}
                found[os.path.relpath(path, self.path())] = (
                    stat.S_IFMT(st.st_mode), st.st_nlink, data, more)
        return found

    # checks

    def see(self, what, value):
        """To be the same without a kill"""
        self.seen.append((what, value))

    def check(self, condition, what):
        if not condition:
            raise AssertionError(what)

    def equal(self, value, wanted, what):
        self.check(value == wanted,
                   f"{what}: {shorten(value)} and not {shorten(wanted)}")

    # the request

    def run(self, *requests, related=False, separate=False, waits=False,
            meanwhile=None):
        """Their replies. waits: they wait for something else, which
        meanwhile(mids) does when they do. separate: in PDUs of their own, all
        sent before a reply is read."""
        status = self.matrix.status()
        connection = self.matrix.connection(self.client, status)
        self.check(not self._posted, "one request each")
        self._posted = True
        self._former = connection["pid"]
        self._events = [(e["time"], e["pid"]) for e in status["events"]]
        waiting = connection["waiting"]
        later = waits and not self._is_early(requests)
        if not later:
            self._arm()
        if separate:
            mids = [mid for request in requests
                    for mid in self.client.post([request])]
        else:
            mids = self.client.post(requests, related)
        if waits:
            if not later:
                self._wait_killed()
            # or is told at once that it has missed something
            wait_until(lambda: self.waiting() > waiting or
                       self.client.answered(mids[0], 0),
                       "a request that waits", KILL_SECONDS)
        with self._stopped() if later else contextlib.nullcontext():
            if meanwhile is not None:
                meanwhile(mids)
            if later:
                # what they were asked for is behind them
                for client in (self.rival, *self._others):
                    client.do(packets.echo())
                self._arm(later)
        replies = self.client.replies(mids)
        for n, reply in enumerate(replies):
            self._see_reply(n, reply)
        if self.point is not None:
            self._wait_killed()
            self._wait_successor()
        return replies

    def _kill(self):
        point, _, count = (self.point or "").partition(" ")
        return point, int(count or self.case.count)

    def _arm(self, later=False):
        point, count = self._kill()
        if later:
            # it came by before it waited
            count = 0
        command = self.case.command
        if self.case.compound and point in LATE:
            command = "ANY"
        if self.point is not None:
            self.matrix.arm(f"{point} {command} {count}")

    @contextlib.contextmanager
    def _stopped(self):
        """What others do meanwhile they do before it comes to a point, and
        are not killed themselves."""
        os.kill(self._former, signal.SIGSTOP)
        try:
            wait_until(lambda: process_state(self._former) == "T",
                       "a process that is stopped")
            yield
        finally:
            os.kill(self._former, signal.SIGCONT)

    def _is_early(self, requests):
        """It is killed before it waits"""
        point, count = self._kill()
        names = {packets.LOCK: "LOCK", packets.NOTIFY: "NOTIFY",
                 packets.CREATE: "CREATE"}
        return (point in EARLY and count == 0 and
                names.get(requests[0].command) == self.case.command)

    def waiting(self):
        connection = self.matrix.connection(self.client)
        # nobody is there for a moment
        return (connection or {}).get("waiting", -1)

    def _wait_killed(self):
        wait_until(lambda: not self.matrix.armed(),
                   "nothing was killed", KILL_SECONDS)

    def _wait_successor(self):
        def event():
            for e in self.matrix.status()["events"]:
                if (e["kind"] == "crash" and
                        (e["time"], e["pid"]) not in self._events):
                    return e
            return None
        found = wait_until(event, "a crash event", KILL_SECONDS)
        self.equal((found["connections"], found["lost"]), (1, 0),
                   f"crash event {found}")
        connection = self.matrix.connection(self.client)
        self.check(connection is not None, "it is not in the status")
        self.check(connection["pid"] != self._former, "the same process")
        self.equal(connection["pid"], found["pid"], "process")
        self.equal(connection["protected"], "full", connection["reason"])

    def _see_reply(self, n, reply):
        name = f"reply {n}"
        self.see(f"{name}: status", smb2.status_name(reply.status))
        self.see(f"{name}: command", reply.command)
        self.see(f"{name}: flags", reply.flags & ~packets.FLAG_ASYNC)
        self.see(f"{name}: credits", reply.credits)
        if not reply.ok:
            return
        if reply.command == packets.CREATE:
            self.see(f"{name}: oplock", reply.oplock)
            self.see(f"{name}: action", reply.action)
            self.see(f"{name}: sizes", reply.sizes)
        elif reply.command == packets.CLOSE:
            self.see(f"{name}: flags", reply.body[:4])
            self.see(f"{name}: sizes", reply.sizes)
        elif reply.command == packets.READ:
            self.see(f"{name}: data", reply.data)
            self.see(f"{name}: remaining", reply.body[8:12])
        elif reply.command in (packets.WRITE, packets.FLUSH, packets.LOCK,
                               packets.ECHO, packets.SET_INFO,
                               packets.TREE_DISCONNECT, packets.LOGOFF):
            self.see(f"{name}: body", reply.body)

    # before and after

    def begin(self):
        connection = self.matrix.connection(self.client)
        self._opens = connection["opens"]
        self._locks = connection["locks"]
        self._idle = connection["waiting"]
        kept = f"kept{self.client.port}"
        if not hasattr(self.client, "kept"):
            self.client.kept = self.client.do(packets.create(kept)).handle
            self.client.do(packets.lock(self.client.kept, (0, 10, EXCLUSIVE)))
            self._opens += 1
            self._locks += 1

    def end(self):
        """What it had before"""
        self.check(self._posted, "nothing was run")
        # behind all that might still come
        self.client.do(packets.echo())
        self._left = len(self.seen)
        self.see("tree", self.tree())
        connection = self.matrix.connection(self.client)
        self.see("opens", connection["opens"] - self._opens)
        self.see("locks", connection["locks"] - self._locks)
        self.see("waiting", connection["waiting"] - self._idle)
        if self.client.kept is not None:
            self._look_at_kept()
        for client in self._others:
            client.close()

    def left(self):
        """What there was at its end"""
        return self.seen[self._left:]

    def _look_at_kept(self):
        kept = self.client.kept
        data = KEPT + str(self.matrix.cells).encode()
        self.equal(self.client.do(packets.write(kept, 0, data)).count,
                   len(data), "written with the old handle")
        self.equal(self.client.do(packets.read(kept, 0, 100)).data, data,
                   "read with the old handle")
        handles = self.matrix.rival_handles
        if self.client not in handles:
            handles[self.client] = self.rival.do(
                packets.create(f"kept{self.client.port}")).handle
        reply = self.rival.ask(packets.lock(handles[self.client],
                                            (0, 10, EXCLUSIVE)))
        self.check(not reply.ok, "somebody else has got the lock")


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return f.read().rpartition(") ")[2][0]


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]}...{text[-40:]}"


def compare(cell, reference):
    """Was the same seen in both? A case that may have another result leaves
    the same behind."""
    first, second = cell.seen, reference.seen
    if cell.case.differs:
        first, second = cell.left(), reference.left()
    for (what, value), (wanted, expected) in zip(first, second):
        cell.equal(what, wanted, "order of what was seen")
        cell.equal(value, expected, what)
    cell.equal(len(first), len(second), "number of things seen")


def info_times(data):
    """Basic information without its times"""
    return data[32:40]


def standard(data):
    return struct.unpack_from("<QQIBB", data)
