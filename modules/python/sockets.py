# Unix SMB/CIFS implementation.
#
# Talking to smbd and to the keeper.
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

"""Clients for the two sockets in <lock directory>/durable_state.

`control` belongs to the smbd parent: lines of JSON on a stream.
`keeper` belongs to durable_stated: one JSON object a packet.
"""

import contextlib
import json
import os
import socket
import struct

CONTROL = "control"
KEEPER = "keeper"
KEEPER_PROTOCOL = 1
MAX_PACKET = 64 * 1024
# A status has a line of some hundred bytes for each connection.
MAX_LINE = 256 * 1024 * 1024
TRUSTED_UID = 0


class NotThere(Exception):
    """Nobody listens on the socket."""


class PeerError(Exception):
    """The other side refused, broke off or said what makes no sense."""


class Refused(PeerError):
    """The other side said no, and did nothing."""


def directory(lp):
    """Where the sockets are: durable_state in the lock directory."""
    return os.path.join(lp.get("lock directory"), "durable_state")


def _connect(path, kind, timeout):
    """A connected socket and the credentials (pid, uid) of its listener.

    Goes through a descriptor of the directory, as sun_path has room for
    107 bytes only. timeout is in seconds.
    """
    try:
        dirfd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(path) from None
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.settimeout(timeout)
        sock.connect(f"/proc/self/fd/{dirfd}/{os.path.basename(path)}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        raise NotThere(path) from None
    except OSError as e:
        sock.close()
        raise PeerError(f"{path}: {e.strerror or e}") from None
    finally:
        os.close(dirfd)
    cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED,
                           struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", cred)
    if uid != TRUSTED_UID:
        sock.close()
        raise PeerError(f"{path} is served by uid {uid} (pid {pid}), not by "
                        "root: not talking to it; find out who made it and "
                        "remove it")
    return sock, pid


class _Client(contextlib.AbstractContextManager):
    """What both protocols share: a socket, and replies with an "ok"."""

    def __init__(self, path, kind, timeout):
        self.path = path
        self._sock, self.pid = _connect(path, kind, timeout)

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Ends the connection; neither side changes anything by it."""
        self._sock.close()

    def _parse(self, data):
        try:
            reply = json.loads(data)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise PeerError(f"{self.path}: the answer is not a JSON object; "
                            "are smbd, durable_stated and samba-tool of the "
                            "same version?")
        return reply

    def _check(self, reply):
        if reply.get("ok") is not True:
            raise Refused(reply.get("error") or
                          f"{self.path}: refused without a reason")
        return reply


class Control(_Client):
    """A connection to the smbd parent."""

    def __init__(self, directory, timeout=10):
        super().__init__(os.path.join(directory, CONTROL),
                         socket.SOCK_STREAM, timeout)
        self._buffer = b""

    def _line(self):
        parts = [self._buffer]
        size = len(self._buffer)
        while b"\n" not in parts[-1]:
            try:
                data = self._sock.recv(1024 * 1024)
            except OSError as e:
                raise PeerError(f"{self.path}: no answer from smbd (pid "
                                f"{self.pid}): {e.strerror or e}") from None
            size += len(data)
            if not data or size > MAX_LINE:
                raise PeerError(f"{self.path}: smbd (pid {self.pid}) broke "
                                "off the answer; see its log")
            parts.append(data)
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line

    def _send(self, request):
        try:
            self._sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError as e:
            raise PeerError(f"{self.path}: cannot ask smbd (pid {self.pid}): "
                            f"{e.strerror or e}") from None

    def status(self):
        """The status object of interfaces.md, with nothing empty missing."""
        self._send({"command": "status"})
        status = self._check(self._parse(self._line()))
        status["smbd"] = status.get("smbd") or {}
        for key in ("connections", "events"):
            status[key] = status.get(key) or []
        return status

    def stop(self, timeout, force, progress):
        """Asks smbd to hand all clients to the keeper and end.

        timeout is the time to drain, in seconds. progress(dict) is called
        for each connection. Returns the last line of the answer. Refused
        means that all clients are thawed and smbd goes on; after any
        other PeerError nobody knows.
        """
        # Capture and hand-over follow the drain: some milliseconds a client.
        self._sock.settimeout(timeout + 60)
        self._send({"command": "stop", "timeout": timeout, "force": force})
        while True:
            reply = self._parse(self._line())
            if "progress" not in reply:
                return self._check(reply)
            progress(reply["progress"])


class Keeper(_Client):
    """A connection to durable_stated."""

    def __init__(self, directory, timeout=10):
        super().__init__(os.path.join(directory, KEEPER),
                         socket.SOCK_SEQPACKET, timeout)
        try:
            hello = self._request("hello", version=KEEPER_PROTOCOL,
                                  role="tool")
        except PeerError:
            self.close()
            raise
        self.version = hello.get("version")

    def _reply(self):
        try:
            data = self._sock.recv(MAX_PACKET)
        except OSError as e:
            raise PeerError(f"{self.path}: no answer from durable_stated "
                            f"(pid {self.pid}): {e.strerror or e}") from None
        if not data:
            raise PeerError(f"{self.path}: durable_stated (pid {self.pid}) "
                            "closed the connection; see its log")
        return self._check(self._parse(data))

    def _request(self, op, **args):
        try:
            self._sock.send(json.dumps({"op": op, **args}).encode())
        except OSError as e:
            raise PeerError(f"{self.path}: cannot ask durable_stated (pid "
                            f"{self.pid}): {e.strerror or e}") from None
        return self._reply()

    def status(self):
        """The keeper's own status object."""
        return self._request("status")

    def holdings(self):
        """All holdings: label, info, number of descriptors, age."""
        reply = self._request("list")
        holdings = list(reply.get("holdings") or [])
        while reply.get("more"):
            reply = self._reply()
            holdings += reply.get("holdings") or []
        return holdings

    def wipe(self):
        """Closes everything that is held, clients' connections with it."""
        return self._request("wipe")
