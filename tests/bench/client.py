# Unix SMB/CIFS implementation.
#
# The clients of the benchmark, in processes of their own.
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

"""Started by run; says what it found as JSON lines on standard output.

client.py '{"mode": "sample", "op": "write/4096", "servers": [...], ...}'
    clients that keep one server busy and then the other; their rates
client.py '{"mode": "watch", "op": "read", ...}'
    one client with one request after the other; "report" on standard input:
    the longest that one of them took since the last report
client.py '{"mode": "record", ...}'
    one client whose throughput over time is wanted
client.py '{"mode": "many", "count": 75, "opens": 10, ...}'
    many clients that do little; "run", "stop", "reconnect", see Many
"""

import heapq
import json
import os
import queue
import resource
import select
import struct
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "demo"))

import smb2                                             # noqa: E402
from samba import gensec                                # noqa: E402
from samba.credentials import DONT_USE_KERBEROS, Credentials  # noqa: E402
from samba.ntstatus import (NT_STATUS_MORE_PROCESSING_REQUIRED,  # noqa: E402
                            NT_STATUS_OK, NT_STATUS_PENDING)
from samba.param import LoadParm                        # noqa: E402

ECHO = 13
RELATED = 4
SAME_FILE = b"\xff" * 16
KIB, MIB = 1024, 1024 * 1024

# Of a reply only this much is looked at
HEAD_BYTES = 1024
# How long a client that was cut off tries to get back
RECONNECT_SECONDS = 60
RETRY_SECONDS = 0.005

# How long a server has its turn
SLICE_SECONDS = 0.05

# Each of many clients sends a request this often
MANY_INTERVAL = 0.25

FILE_BYTES = 64 * MIB
FILE_NAME = "bench.bin"
SMALL_NAME = "small.bin"


def say(**what):
    print(json.dumps(what), flush=True)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Client(smb2.Client):
    """With a login that is cheap for the client."""

    _lp = None

    def _login(self, user, password):
        if Client._lp is None:
            Client._lp = LoadParm()
        credentials = Credentials()
        credentials.guess(self._lp)
        credentials.set_kerberos_state(DONT_USE_KERBEROS)
        credentials.set_username(user)
        credentials.set_password(password)
        mechanism = gensec.Security.start_client({"lp_ctx": self._lp,
                                                  "target_hostname": ""})
        mechanism.set_credentials(credentials)
        mechanism.start_mech_by_name("spnego")
        token = b""
        status = NT_STATUS_MORE_PROCESSING_REQUIRED
        while status != NT_STATUS_OK:
            _, token = mechanism.update(token)
            status, packet = self.call(
                smb2.SESSION_SETUP,
                struct.pack("<HBBIIHHQ", 25, 0, 1, 0, 0, 88, len(token), 0) +
                token, "login", (NT_STATUS_MORE_PROCESSING_REQUIRED,))
            offset, length = struct.unpack_from("<HH", packet, 68)
            token = packet[offset:offset + length]

    @property
    def sock(self):
        return self._sock

    def frame(self, *requests):
        """A template: one frame of requests that follow each other.

        Each is (command, body, credits). Returned with it are the places
        of the message ids and what they add to that of the frame.
        """
        frame = bytearray(4)
        ids = []
        charged = 0
        for number, (command, body, charge) in enumerate(requests):
            following = 0
            if number < len(requests) - 1:
                body += bytes(-len(body) % 8)
                following = 64 + len(body)
            ids.append((len(frame) + 24, charged))
            frame += smb2.HEADER.pack(
                b"\xfeSMB", 64, charge, 0, command, 64,
                RELATED if number else 0, following, 0, 0, self._tree,
                self._session, bytes(16)) + body
            charged += charge
        struct.pack_into(">I", frame, 0, len(frame) - 4)
        return frame, ids, charged

    def take_ids(self, count):
        first = self._next_id
        self._next_id += count
        return first


def read_request(handle, offset, length):
    return (smb2.READ, struct.pack("<HBBIQ16sIIIHHB", 49, 80, 0, length,
                                   offset, handle, 0, 0, 0, 0, 0, 0),
            max(1, length // (64 * KIB)))


def write_request(handle, offset, data):
    return (smb2.WRITE, struct.pack("<HHIQ16sIIHHI", 49, 112, len(data),
                                    offset, handle, 0, 0, 0, 0, 0) + data,
            max(1, len(data) // (64 * KIB)))


def open_request(name):
    path = name.encode("utf-16-le")
    return (smb2.CREATE,
            struct.pack("<HBBIQQIIIIIHHII", 57, 0, 0, 2, 0, 0,
                        smb2.GENERIC_READ_WRITE, 0, smb2.SHARE_ALL,
                        smb2.OPEN_IF, 0, 120, len(path), 0, 0) + path, 1)


def close_request(handle):
    return (smb2.CLOSE, struct.pack("<HHI16s", 24, 0, 0, handle), 1)


def echo_request():
    return (ECHO, struct.pack("<HH", 4, 0), 1)


class Replies:
    """Counts the frames that arrive; each must be a success."""

    def __init__(self, sock):
        self._sock = sock
        self._buffer = memoryview(bytearray(MIB))
        self._head = b""
        self._skip = 0

    def receive(self):
        """How many came; waits for bytes, not for a whole frame."""
        try:
            got = self._sock.recv_into(self._buffer)
        except TimeoutError:
            raise smb2.Disconnected("no answer") from None
        except OSError as e:
            raise smb2.Disconnected(e.strerror) from None
        if got == 0:
            raise smb2.Disconnected("connection closed by the server")
        count = 0
        pos = min(self._skip, got)
        if pos:
            self._skip -= pos
            if not self._skip:
                count += self._final()
        while pos < got:
            # the first bytes of a frame, as far as they are here
            head = self._head
            if len(head) < 4:
                step = min(4 - len(head), got - pos)
                head += bytes(self._buffer[pos:pos + step])
                pos += step
                self._head = head
                if len(head) < 4:
                    break
            length = int.from_bytes(head[:4], "big")
            keep = 4 + min(length, HEAD_BYTES)
            step = min(keep - len(head), got - pos)
            self._head = head = head + bytes(self._buffer[pos:pos + step])
            pos += step
            if len(head) < keep:
                break
            self._skip = 4 + length - keep
            step = min(self._skip, got - pos)
            pos += step
            self._skip -= step
            if not self._skip:
                count += self._final()
        return count

    def _final(self):
        head, self._head = self._head, b""
        pos = 4
        while True:
            status, = struct.unpack_from("<I", head, pos + 8)
            if status == NT_STATUS_PENDING:
                return 0
            if status != NT_STATUS_OK:
                raise smb2.SMBError("request", status)
            following, = struct.unpack_from("<I", head, pos + 20)
            if not following:
                return 1
            pos += following


class Load:
    """One kind of request again and again, `depth` of them under way."""

    def __init__(self, client, op, depth):
        self.client = client
        self.replies = Replies(client.sock)
        self.depth = depth
        self.size = 0
        name, _, size = op.partition("/")
        self.size = int(size or 0)
        self.at = None
        self.offset = 0
        if name == "echo":
            request = (echo_request(),)
        elif name == "open":
            request = (open_request(SMALL_NAME), close_request(SAME_FILE))
        else:
            handle, _ = client.open(FILE_NAME)
            if name == "read":
                request = (read_request(handle, 0, self.size),)
            else:
                request = (write_request(handle, 0, os.urandom(self.size)),)
            # of the file offset, the same for both
            self.at = 4 + 64 + 8
        self.frame, self.ids, self.charged = client.frame(*request)

    def send(self, count):
        parts = []
        for _ in range(count):
            first = self.client.take_ids(self.charged)
            for place, plus in self.ids:
                struct.pack_into("<Q", self.frame, place, first + plus)
            if self.at is not None:
                struct.pack_into("<Q", self.frame, self.at, self.offset)
                self.offset = (self.offset + self.size) % FILE_BYTES
            parts.append(bytes(self.frame))
        try:
            self.client.sock.sendall(b"".join(parts))
        except OSError as e:
            raise smb2.Disconnected(e.strerror) from None

    def collect_credits(self):
        """More than `depth` requests need, before they are all sent."""
        frame, ids, _ = self.client.frame(echo_request())
        for _ in range(20):
            struct.pack_into("<Q", frame, ids[0][0], self.client.take_ids(1))
            self.client.sock.sendall(frame)
            while not self.replies.receive():
                pass


def connect(job):
    return Client(job["address"], job["port"], job["share"], job["user"],
                  job["password"])


class Group:
    """Several clients of one server that do the same."""

    def __init__(self, job):
        self.epoll = select.epoll()
        self.loads = {}
        for _ in range(job["connections"]):
            load = Load(connect(job), job["op"], job["depth"])
            load.collect_credits()
            fd = load.client.sock.fileno()
            self.loads[fd] = load
            self.epoll.register(fd, select.EPOLLIN)

    def slice(self, seconds):
        """(requests, seconds): all that were sent are answered at the end."""
        clock = time.perf_counter
        begin = clock()
        end = begin + seconds
        under_way = sent = 0
        for load in self.loads.values():
            load.send(load.depth)
            under_way += load.depth
            sent += load.depth
        while under_way:
            ready = self.epoll.poll(smb2.TIMEOUT)
            if not ready:
                raise smb2.Disconnected("no answer")
            more = clock() < end
            for fd, _ in ready:
                load = self.loads[fd]
                got = load.replies.receive()
                if more and got:
                    load.send(got)
                    sent += got
                else:
                    under_way -= got
        return sent, clock() - begin


def sample(job):
    """Two servers by turns, so that other load of the machine hits both."""
    groups = [Group(dict(job, **server)) for server in job["servers"]]
    for group in groups:
        group.slice(SLICE_SECONDS)
    slices = [[] for _ in groups]
    cpu = cpu_seconds()
    begin = time.perf_counter()
    turn = list(range(len(groups)))
    while time.perf_counter() - begin < job["seconds"] * len(groups):
        for i in turn:
            slices[i].append(groups[i].slice(SLICE_SECONDS))
        # each is first as often as second
        turn.reverse()
    say(slices=slices, client_cpu=(cpu_seconds() - cpu) /
        (time.perf_counter() - begin))


def commands():
    """Lines of standard input, "quit" at its end."""
    lines = queue.SimpleQueue()

    def read():
        for line in sys.stdin:
            lines.put(line.strip())
        lines.put("quit")

    threading.Thread(target=read, daemon=True).start()
    return lines


def watch(job):
    load = Load(connect(job), job["op"], 1)
    lines = commands()
    clock = time.monotonic
    worst = count = 0
    say(ready=True)
    try:
        while True:
            begin = clock()
            load.send(1)
            while not load.replies.receive():
                pass
            worst = max(worst, clock() - begin)
            count += 1
            if not lines.empty():
                if lines.get() == "quit":
                    return
                say(worst=worst, count=count, port=load.client.port)
                worst = count = 0
    except (smb2.Disconnected, smb2.SMBError) as e:
        say(error=str(e))


def record(job):
    """Whole seconds of before and after; reconnects if it has to."""
    lines = commands()
    clock = time.monotonic
    times = []
    lost = []
    load = Load(connect(job), job["op"], job["depth"])
    load.collect_credits()
    load.send(load.depth)
    say(ready=True)
    told = False
    end = None
    started = clock()
    while end is None or clock() < end:
        try:
            got = load.replies.receive()
            now = clock()
            if got:
                load.send(got)
                times.append((now, got))
        except (smb2.Disconnected, smb2.SMBError) as e:
            lost.append((clock(), str(e)))
            limit = clock() + RECONNECT_SECONDS
            while True:
                try:
                    load = Load(connect(job), job["op"], job["depth"])
                    load.collect_credits()
                    load.send(load.depth)
                    break
                except (OSError, smb2.Disconnected, smb2.SMBError):
                    if clock() > limit:
                        raise
                    time.sleep(RETRY_SECONDS)
            continue
        if not told and now - started > job["before"]:
            told = True
            say(before=True)
        if end is None and not lines.empty():
            lines.get()
            end = now + job["after"]
    say(times=times, size=load.size, lost=lost)


class Many:
    """Clients with some open files each.

    run        each sends a read every MANY_INTERVAL; answers "running" as
               soon as each has had an answer
    stop       ends that; then every handle of every client is tried
    reconnect  waits until the server ends each connection and makes it anew
    """

    def __init__(self, job):
        self.job = job
        self.lines = commands()
        self.clients = []
        for number in range(job["count"]):
            self.clients.append(self.new(job["first"] + number))

    def new(self, number):
        client = connect(self.job)
        client.number = number
        # all under way at once, as a client that has to hurry does
        mids = [client.open_send(f"many-{number}-{i}")
                for i in range(self.job["opens"])]
        client.handles = [client.open_wait(mid)[0] for mid in mids]
        return client

    def loop(self):
        say(ready=True)
        while True:
            command = self.lines.get()
            if command == "quit":
                return
            getattr(self, "do_" + command)()

    def do_run(self):
        epoll = select.epoll()
        states = {}
        due = []
        clock = time.monotonic
        begin = clock()
        for i, client in enumerate(self.clients):
            frame, ids, _ = client.frame(read_request(
                client.handles[i % len(client.handles)], 0, 4 * KIB))
            states[client.sock.fileno()] = [client, frame, ids[0][0],
                                            Replies(client.sock), None, 0]
            epoll.register(client.sock.fileno(), select.EPOLLIN)
            heapq.heappush(due, (begin + MANY_INTERVAL * i /
                                 len(self.clients), client.sock.fileno()))
        worst = 0.0
        answers = 0
        errors = []
        started = set()
        cpu = cpu_seconds()
        stop = told = False
        while not stop or any(s[4] is not None for s in states.values()):
            if not stop and not self.lines.empty():
                self.lines.get()
                stop = True
            now = clock()
            while not stop and due and due[0][0] <= now:
                _, fd = heapq.heappop(due)
                if fd not in states:
                    continue
                client, frame, place, _, _, _ = states[fd]
                struct.pack_into("<Q", frame, place, client.take_ids(1))
                states[fd][4] = clock()
                try:
                    client.sock.sendall(frame)
                except OSError as e:
                    errors.append(f"{client.number}: {e.strerror}")
                    epoll.unregister(fd)
                    del states[fd]
            left = due[0][0] - clock() if due and not stop else 0.05
            for fd, _ in epoll.poll(min(max(left, 0), 0.05)):
                state = states[fd]
                try:
                    got = state[3].receive()
                except smb2.SMBError as e:
                    # what a read beyond the end of an empty file gives
                    if e.status != 0xc0000011:
                        errors.append(f"{state[0].number}: {e}")
                    got = 1
                except smb2.Disconnected as e:
                    errors.append(f"{state[0].number}: {e}")
                    epoll.unregister(fd)
                    del states[fd]
                    continue
                if got:
                    now = clock()
                    worst = max(worst, now - state[4])
                    heapq.heappush(due, (state[4] + max(
                        MANY_INTERVAL, now - state[4]), fd))
                    state[4] = None
                    answers += 1
                    started.add(fd)
            if not told and len(started) >= len(states):
                told = True
                worst = 0.0
                say(running=True)
            if stop and clock() - begin > 300:
                errors.append("no answer")
                break
        used = (cpu_seconds() - cpu) / (clock() - begin)
        broken = 0
        for client in self.clients:
            for handle in client.handles:
                try:
                    client.call(smb2.READ, read_request(handle, 0, 4096)[1],
                                "read", (0xc0000011,))
                except (smb2.Disconnected, smb2.SMBError, OSError):
                    broken += 1
        say(worst=worst, answers=answers, errors=errors[:5],
            num_errors=len(errors), broken=broken, client_cpu=used)

    def do_reconnect(self):
        """In the order in which they are cut off, one by one."""
        poll = select.poll()
        clients = {}
        for client in self.clients:
            poll.register(client.sock.fileno(),
                          select.POLLIN | select.POLLHUP)
            clients[client.sock.fileno()] = client
        say(waiting=True)
        self.clients = []
        cpu = cpu_seconds()
        first = None
        cut = time.monotonic() + RECONNECT_SECONDS
        while clients:
            gone = poll.poll(RECONNECT_SECONDS * 1000)
            if not gone or time.monotonic() > cut:
                say(error="connections were not closed")
                return
            for fd, _ in gone:
                poll.unregister(fd)
                client = clients.pop(fd)
                # kept open: its number must not be used again yet
                self.clients.append(client)
        old, self.clients = self.clients, []
        limit = time.monotonic() + RECONNECT_SECONDS
        for client in old:
            while True:
                begin = time.monotonic()
                try:
                    self.clients.append(self.new(client.number))
                    break
                except (OSError, smb2.Disconnected, smb2.SMBError) as e:
                    if time.monotonic() > limit:
                        say(error=str(e))
                        return
                    time.sleep(RETRY_SECONDS)
            if first is None:
                first = begin
            client.close()
        end = time.monotonic()
        say(first=first, last=end, client_cpu=cpu_seconds() - cpu)


def main():
    job = json.loads(sys.argv[1])
    if job["mode"] == "many":
        Many(job).loop()
    else:
        {"sample": sample, "watch": watch, "record": record}[job["mode"]](job)


if __name__ == "__main__":
    main()
