# Unix SMB/CIFS implementation.
#
# Servers for tests, for those in Python: server.sh does the work.
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

"""with Server("NAME", "127.0.0.9", module=True) as server: ...

It is started by start(), and stopped and removed at the end of "with".
"""

import getpass
import glob
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PREFIX = os.path.abspath(
    os.environ.get("DS_PREFIX",
                   os.path.join(TESTS, os.pardir, "build", "prefix")))
PORT = int(os.environ.get("DS_PORT", "44450"))
USER = getpass.getuser()
PASSWORD = "ds-Secret1"

sys.dont_write_bytecode = True


def import_bindings():
    """Samba's Python modules of the installation under test."""
    sys.path[:0] = glob.glob(os.path.join(PREFIX, "lib*", "python3*",
                                          "*-packages"))


def program(name):
    for directory in ("bin", "sbin"):
        path = os.path.join(PREFIX, directory, name)
        if os.access(path, os.X_OK):
            return path
    sys.exit(f"{PREFIX} has no {name}")


def end_cleanly():
    """What is in finally and with blocks also happens when one ends us."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))


def wait_until(condition, what, seconds=20):
    """Returns what condition() returned when it was true."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def alive(pid):
    """A process that has ended and was not yet waited for is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii",
                  errors="replace") as f:
            return f.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


class Server:
    def __init__(self, name, address, module=True):
        self.name = name
        self.address = address
        self.module = module
        self.directory = None

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="durable_state.")
        os.chmod(self.directory, 0o755)
        self.sh("ds_server_conf", self.name, self.address,
                "on" if self.module else "off")
        self.sh("ds_server_user", USER, PASSWORD)
        with open(self.path("client.conf"), "w", encoding="ascii"):
            pass
        return self

    def __exit__(self, *exc):
        self.sh("ds_server_stop")
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    @property
    def conf(self):
        return self.path("smb.conf")

    def sh(self, function, *args):
        """Calls a function of server.sh for this server."""
        command = shlex.join([function, self.directory, *args])
        library = os.path.join(TESTS, "lib", "server.sh")
        subprocess.run(["sh", "-c", f". {library} && {command}"], check=True,
                       stdin=subprocess.DEVNULL,
                       env=dict(os.environ, DS_PREFIX=PREFIX,
                                DS_PORT=str(PORT)))

    def start(self):
        self.sh("ds_server_start")

    def stop(self):
        """Only smbd: what it has started stays, the keeper too."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not alive(pid), "the end of smbd")

    def restart(self):
        self.sh("ds_server_restart")

    def option(self, *lines):
        self.sh("ds_server_option", *lines)

    def share(self, name, *lines):
        """One more share, with a directory of its own."""
        os.mkdir(self.path(name))
        os.chmod(self.path(name), 0o777)
        with open(self.conf, "a", encoding="utf-8") as f:
            f.write(f"[{name}]\n\tpath = {self.path(name)}\n" +
                    "".join(f"\t{line}\n" for line in lines))

    def _pid(self, *names):
        try:
            with open(self.path(*names), encoding="ascii") as f:
                pid = int("".join(c for c in f.read() if c.isdigit()) or 0)
        except FileNotFoundError:
            return None
        return pid if pid and alive(pid) else None

    def pid(self):
        """Of smbd's parent."""
        return self._pid("pid", "smbd.pid")

    def keeper_pid(self):
        return self._pid("lock", "durable_state", "keeper.pid")

    def processes(self):
        """All processes of this smbd."""
        found = []
        for entry in glob.glob("/proc/[0-9]*"):
            try:
                with open(os.path.join(entry, "cmdline"), "rb") as f:
                    args = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            pid = int(os.path.basename(entry))
            if (os.path.basename(args[0]).startswith("smbd") and
                    self.conf in args and alive(pid)):
                found.append(pid)
        return found

    def status(self):
        """What "samba-tool durable-state status" says."""
        run = subprocess.run([sys.executable, program("samba-tool"),
                              "durable-state", "status", "--json", "-s",
                              self.conf],
                             capture_output=True, text=True, timeout=60)
        return json.loads(run.stdout)

    def log(self):
        text = ""
        for name in sorted(glob.glob(self.path("log", "*"))):
            if os.path.isfile(name):
                with open(name, encoding="utf-8", errors="replace") as f:
                    text += f.read()
        return text
