# Unix SMB/CIFS implementation.
#
# A server of the benchmark.
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

"""smbd with directories of its own, with the module or without."""

import glob
import json
import os
import re
import select
import signal
import socket
import subprocess
import time

START_SECONDS = 30
RESTART_SECONDS = 180
USER, PASSWORD = "root", "benchmark"
SHARE = "bench"

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something that is measured does not work at all."""


def wait_end(pidfd, seconds):
    """Waits for the end of a process that need not be our child."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def end_process(pid, signum=signal.SIGTERM, seconds=START_SECONDS):
    """True if it is gone."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        os.kill(pid, signum)
        return wait_end(watch, seconds)
    except ProcessLookupError:
        return True
    finally:
        os.close(watch)


def descendants(pid):
    """A process and all that it has started."""
    found = [pid]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children",
                      encoding="ascii") as f:
                found += map(int, f.read().split())
        except OSError:
            pass
    return found


class Server:
    """What both have in common; they differ in one line of smb.conf."""

    def __init__(self, prefix, directory, address, protected):
        self.prefix = prefix
        self.directory = directory
        self.address = address
        self.protected = protected
        self.share = os.path.join(directory, "share")
        self.log = os.path.join(directory, "log", "log.smbd")
        os.mkdir(directory, 0o755)
        for name in ("share", "lock", "private", "log"):
            os.mkdir(os.path.join(directory, name), 0o755)
        with socket.socket() as probe:
            probe.bind((address, 0))
            self.port = probe.getsockname()[1]
        self.conf = os.path.join(directory, "smb.conf")
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(self.configuration())
        add = subprocess.run([self.program("smbpasswd"), "-c", self.conf,
                              "-L", "-s", "-a", USER],
                             input=f"{PASSWORD}\n{PASSWORD}\n", text=True,
                             capture_output=True)
        if add.returncode != 0:
            raise Failed("smbpasswd: " + add.stdout + add.stderr)

    def program(self, name):
        for directory in ("bin", "sbin"):
            path = os.path.join(self.prefix, directory, name)
            if os.access(path, os.X_OK):
                return path
        raise Failed(f"{self.prefix} has no {name}: run make first")

    def configuration(self):
        lock = os.path.join(self.directory, "lock")
        module = "vfs objects = durable_state" if self.protected else ""
        return f"""[global]
    netbios name = bench
    workgroup = bench
    interfaces = {self.address}/8
    bind interfaces only = yes
    smb ports = {self.port}
    disable netbios = yes
    server role = standalone
    rpc start on demand helpers = no
    load printers = no
    lock directory = {lock}
    state directory = {lock}
    cache directory = {lock}
    pid directory = {lock}
    ncalrpc dir = {lock}/ncalrpc
    private dir = {self.directory}/private
    log file = {self.log}
    max log size = 0
    {module}

[{SHARE}]
    path = {self.share}
    read only = no
"""

    def pid(self):
        """Of the smbd parent, None if it is not running."""
        return self._running(os.path.join(self.directory, "lock", "smbd.pid"))

    def keeper_pid(self):
        return self._running(os.path.join(self.directory, "lock",
                                          "durable_state", "keeper.pid"))

    @staticmethod
    def _running(path):
        try:
            with open(path, encoding="ascii") as f:
                pid = int(f.read())
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            return None

    def processes(self, keeper=True):
        found = []
        for pid in (self.pid(), self.keeper_pid() if keeper else None):
            if pid is not None:
                found += descendants(pid)
        return found

    def start(self):
        start = subprocess.run([self.program("smbd"), "-D",
                                f"--configfile={self.conf}",
                                f"--log-basename={self.directory}/log"],
                               capture_output=True, text=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.address, self.port),
                                         1).close()
                return
            except OSError:
                time.sleep(0.005)
        raise Failed("smbd does not start: " + start.stdout + start.stderr +
                     self.last_log())

    def stop(self):
        pid = self.pid()
        if pid is not None and not end_process(pid):
            raise Failed(f"smbd (pid {pid}) does not end")

    def restart(self):
        """What the administrator does; returns what it says."""
        if not self.protected:
            self.stop()
            self.start()
            return {}
        run = subprocess.run([self.program("samba-tool"), "durable-state",
                              "restart", "--json", "-s", self.conf],
                             capture_output=True, text=True,
                             timeout=RESTART_SECONDS)
        try:
            result = json.loads(run.stdout)
        except ValueError:
            result = {}
        if run.returncode == 2 or "new_pid" not in result:
            raise Failed("samba-tool durable-state restart: " +
                         (str(result.get("message") or "") or
                          run.stderr or run.stdout).strip())
        return result

    def status(self):
        run = subprocess.run([self.program("samba-tool"), "durable-state",
                              "status", "--json", "-s", self.conf],
                             capture_output=True, text=True, timeout=60)
        return json.loads(run.stdout)

    def event(self):
        """The newest one in the status."""
        events = self.status()["events"]
        return events[-1] if events else {}

    # what nobody does on purpose

    def child(self, port):
        """The process that serves the client at this port, or None"""
        for connection in self.status()["connections"]:
            if connection["client"].endswith(f":{port}"):
                return connection["pid"]
        return None

    def kill_child(self, port, signum):
        """Returns when another one serves the client."""
        former = self.child(port)
        if former is None:
            raise Failed(f"no process for port {port}")
        os.kill(former, signum)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.child(port) not in (None, former):
                return
        raise Failed(f"nobody serves port {port} any more")

    def kill_tree(self):
        """All of smbd at once, and a start as of a service manager."""
        # the parent first: it would see to its children
        for pid in self.processes(keeper=False):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.start()

    def add_option(self, line):
        with open(self.conf, encoding="utf-8") as f:
            text = f.read()
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(text.replace("[global]\n", f"[global]\n    {line}\n", 1))

    # what it costs

    def cpu_seconds(self, keeper=True):
        """Of all processes that live, and of those that were waited for."""
        total = 0
        for pid in self.processes(keeper):
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii",
                          errors="replace") as f:
                    field = f.read().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(map(int, field[11:15]))
        return total / TICKS

    def pss_kib(self):
        """Of all processes, and how many they are."""
        total = count = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                    total += int(re.search(r"^Pss:\s+(\d+) kB", f.read(),
                                           re.M)[1])
            except (OSError, TypeError):
                continue
            count += 1
        return total, count

    def wait_clients(self, count, seconds=60):
        """Until that many processes are there for clients."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = len(self.processes())
            if now == self.idle_processes + count:
                return
            time.sleep(0.01)
        raise Failed(f"{now - self.idle_processes} processes for {count} "
                     "clients")

    def settle(self):
        """Remembers how many processes there are without a client.

        The one that the probe in start() has had ends by itself.
        """
        deadline = time.monotonic() + START_SECONDS
        last = since = None
        while time.monotonic() < deadline:
            now = sorted(self.processes())
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > 0.5:
                break
            time.sleep(0.02)
        self.idle_processes = len(last)

    # the log

    def log_size(self):
        try:
            return os.stat(self.log).st_size
        except FileNotFoundError:
            return 0

    def log_since(self, offset):
        try:
            with open(self.log, "rb") as f:
                f.seek(offset)
                return f.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def last_log(self):
        text = ""
        for name in glob.glob(os.path.join(self.directory, "log", "log*")):
            with open(name, encoding="utf-8", errors="replace") as f:
                text += f.read()
        return text[-2000:]

    def remove(self):
        """Ends all that was started here, the keeper last."""
        others = self.processes()
        for pid in (self.pid(), self.keeper_pid()):
            if pid is not None and not end_process(pid):
                end_process(pid, signal.SIGKILL, 5)
        # ours only: their directories are in their open files
        for pid in others:
            if self._ours(pid):
                end_process(pid, signal.SIGKILL, 5)

    def _ours(self, pid):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(
                        self.directory + "/"):
                    return True
        except OSError:
            pass
        return False
