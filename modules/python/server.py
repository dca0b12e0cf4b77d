# Unix SMB/CIFS implementation.
#
# The running smbd: how it was started, and starting it again.
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

import os
import resource
import select
import shutil
import subprocess
import time

# Namespaces in which a smbd started from here would be another one.
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE,
          resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK,
          resource.RLIMIT_STACK)
# These belong to the start that made them, not to the next one.
ONE_START_ONLY = ("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES",
                  "LISTEN_FDS", "LISTEN_PID", "MAINPID", "NOTIFY_SOCKET",
                  "WATCHDOG_PID", "WATCHDOG_USEC")


class CannotRestart(Exception):
    """smbd could not be started again from here; nothing was changed."""


def systemd_service(pid):
    """The service in whose control group a process is, or None."""
    unit = None
    try:
        with open(f"/proc/{pid}/cgroup", encoding="ascii",
                  errors="replace") as f:
            for line in f:
                last = line.rstrip("\n").rpartition("/")[2]
                if last.endswith(".service"):
                    unit = last
    except OSError:
        return None
    return unit if shutil.which("systemctl") else None


def systemd_property(unit, name):
    """One property of a unit as text, empty if systemd does not say."""
    show = subprocess.run(["systemctl", "show", f"--property={name}",
                           "--value", "--", unit],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    return show.stdout.strip()


def systemd_unit(pid):
    """The service whose main process is pid, or None."""
    unit = systemd_service(pid)
    if unit is not None and systemd_property(unit, "MainPID") != str(pid):
        return None
    return unit


class Server:
    """A running smbd parent.

    Everything that is needed to start the next one is read when this is
    made, as it is gone from /proc with the process. argv is what smbd says
    of itself (the title of the process may have been changed).
    """

    def __init__(self, pid, argv=None):
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as e:
            raise CannotRestart(f"cannot watch smbd (pid {pid}): "
                                f"{e.strerror}") from None
        self.unit = systemd_unit(pid)
        self.argv = list(argv or self._strings("cmdline"))
        if self.unit is None:
            self._read_start()

    def _strings(self, name):
        with open(f"/proc/{self.pid}/{name}", "rb") as f:
            return [os.fsdecode(s) for s in f.read().split(b"\0") if s]

    def _read_start(self):
        if self.pid == 1:
            raise CannotRestart(
                "smbd is process 1 of a container, which ends with it; "
                "restart it from outside, the keeper has to be in another "
                "container with the same lock directory")
        try:
            for ns in NAMESPACES:
                theirs = os.readlink(f"/proc/{self.pid}/ns/{ns}")
                if theirs != os.readlink(f"/proc/self/ns/{ns}"):
                    raise CannotRestart(
                        f"smbd (pid {self.pid}) runs in another {ns} "
                        "namespace; run samba-tool there (nsenter "
                        f"--target {self.pid} --all)")
            environment = [s.partition("=") for s in self._strings("environ")]
            self._environment = {name: value
                                 for name, equals, value in environment
                                 if equals and name not in ONE_START_ONLY}
            self._directory = os.readlink(f"/proc/{self.pid}/cwd")
            self._umask = self._read_umask()
            self._limits = [(which, resource.prlimit(self.pid, which))
                            for which in LIMITS]
            self._output = [self._reopen(fd) for fd in (1, 2)]
            self._program = self._find_program()
        except OSError as e:
            raise CannotRestart("cannot read how smbd was started from "
                                f"{e.filename or '/proc'}: {e.strerror}"
                                ) from None

    def _read_umask(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii",
                  errors="replace") as f:
            for line in f:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
        return 0o022

    def _reopen(self, fd):
        """Where smbd writes to, as its log may be a pipe or a terminal."""
        try:
            return os.open(f"/proc/{self.pid}/fd/{fd}",
                           os.O_WRONLY | os.O_APPEND | os.O_NOCTTY |
                           os.O_CLOEXEC)
        except OSError:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _find_program(self):
        """The file to execute, which an upgrade may have replaced."""
        name = self.argv[0]
        if "/" in name:
            found = os.path.join(self._directory, name)
        else:
            found = shutil.which(name,
                                 path=self._environment.get("PATH")) or ""
        if not os.access(found, os.X_OK):
            found = os.readlink(f"/proc/{self.pid}/exe")
            found = found.removesuffix(" (deleted)")
        if not os.access(found, os.X_OK):
            raise CannotRestart(f"the program of smbd (pid {self.pid}) is "
                                f"not there any more: {found}")
        return found

    def how(self):
        """The words an administrator would start it with."""
        if self.unit is not None:
            return f"systemctl start {self.unit}"
        return " ".join(self.argv)

    def prepare(self):
        """What can be done before the pause: limits are inherited."""
        if self.unit is not None:
            return
        for which, (soft, hard) in self._limits:
            try:
                resource.setrlimit(which, (soft, hard))
            except (OSError, ValueError):
                # not allowed to raise them: smbd does what it can itself
                pass

    def wait_end(self, timeout):
        """True if the process ended within timeout seconds."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def start(self):
        """Starts the next smbd; returns the process that does it."""
        if self.unit is not None:
            return subprocess.Popen(["systemctl", "start", "--", self.unit],
                                    stdin=subprocess.DEVNULL)
        return subprocess.Popen(self.argv, executable=self._program,
                                cwd=self._directory, env=self._environment,
                                umask=self._umask, stdin=subprocess.DEVNULL,
                                stdout=self._output[0],
                                stderr=self._output[1],
                                start_new_session=True)


def milliseconds_since(start):
    """start is a value of time.monotonic()"""
    return round((time.monotonic() - start) * 1000)
