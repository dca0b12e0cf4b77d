#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Tests for samba-tool durable-state.
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

"""No smbd and no durable_stated is needed: this file also plays them.

Called with --smbd DIR it is a process that listens on DIR's control socket
and does what DIR/script.json says; called with --keeper DIR likewise a
keeper. So the tests see real processes end and start.

DS_PREFIX names the installation whose samba-tool is tested.
"""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = os.environ.get("DS_PREFIX",
                        os.path.join(HERE, os.pardir, "build", "prefix"))


def find_samba_python():
    """The directory to import samba from, of the installation under test."""
    found = glob.glob(os.path.join(PREFIX, "lib*", "python3*", "*-packages",
                                   "samba", "netcmd", "durable_state"))
    if found:
        return os.path.normpath(os.path.join(found[0], *[os.pardir] * 3))
    return None


SAMBA_PYTHON = find_samba_python()
if SAMBA_PYTHON:
    sys.path.insert(0, SAMBA_PYTHON)

SAMBA_TOOL = ("import sys; from samba.netcmd.main import samba_tool; "
              "sys.exit(samba_tool(*sys.argv[1:]))")

CONNECTION = {
    "pid": 3, "client": "10.0.0.7:51234", "server": "10.0.0.1:445",
    "user": "DOM\\anna", "dialect": "SMB3_11", "channels": 1, "sessions": 1,
    "tcons": 1, "opens": 2, "locks": 4, "leases": 1, "waiting": 0,
    "image_size": 12345, "shares": ["proj"], "protected": "full",
    "reason": "",
}

UNPROTECTED = dict(CONNECTION, client="10.0.0.8:40000", user="DOM\\bert",
                   dialect="NT1", protected="none",
                   reason="SMB1 is not protected")

PROBLEM = "/etc/smb.conf:7: there is no option 'durable_state:hold tiem'"


def event(time="2026-01-02T03:04:05Z", **more):
    return dict({"kind": "restart", "time": time, "connections": 1,
                 "longest_pause_ms": 87, "lost": 0, "lost_detail": []},
                **more)


#
# The processes that the tests talk to
#

def read_script(directory):
    with open(os.path.join(directory, "script.json"),
              encoding="utf-8") as f:
        return json.load(f)


def listen(directory, name, kind):
    path = os.path.join(directory, "durable_state", name)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    sock.listen(5)
    return sock


def act_smbd(directory):
    """A smbd parent that answers status and stop."""
    script = read_script(directory)
    starts = os.path.join(directory, "starts")
    umask = os.umask(0)
    os.umask(umask)
    with open(starts, "a", encoding="utf-8") as f:
        f.write(json.dumps({"pid": os.getpid(), "cwd": os.getcwd(),
                            "umask": umask,
                            "flag": os.environ.get("FAKE_FLAG"),
                            "notify": os.environ.get("NOTIFY_SOCKET")}) +
                "\n")
    with open(starts, encoding="utf-8") as f:
        nth = len(f.readlines())
    if nth > 1 and script.get("second_start") == "fail":
        sys.exit(7)
    print("smbd is here", flush=True)
    events = script["events"][:nth] if "events" in script else []
    if len(events) == nth:
        # the one that this start recorded
        events[-1]["pid"] = os.getpid()
    states = ["running"]
    if nth > 1:
        states = ["restoring", "restoring", "running"]
    listener = listen(directory, "control", socket.SOCK_STREAM)
    while True:
        conn, _ = listener.accept()
        with conn, conn.makefile("rwb") as stream:
            for line in stream:
                request = json.loads(line)

                def reply(**obj):
                    stream.write(json.dumps(obj).encode() + b"\n")
                    stream.flush()

                if request["command"] == "status":
                    if len(states) > 1:
                        state = states.pop(0)
                    else:
                        state = states[0]
                    reply(ok=True, version="4.22.x",
                          smbd={"pid": os.getpid(), "state": state,
                                "argv": sys.orig_argv,
                                "started": "2026-01-02T00:00:00Z",
                                "problem": script.get("problem")},
                          keeper=script.get("keeper",
                                            {"pid": os.getpid(),
                                             "state": "idle"}),
                          connections=script.get("connections", []),
                          events=events)
                    continue
                with open(os.path.join(directory, "stop"), "w",
                          encoding="utf-8") as f:
                    json.dump(request, f)
                how = script.get("stop", "ok")
                if how == "garbage":
                    stream.write(b"this is not JSON\n")
                    stream.flush()
                    continue
                for c in script.get("connections", []):
                    failed = how == "veto"
                    reply(progress={"client": c["client"],
                                    "state": "failed" if failed else "frozen",
                                    "reason": "busy" if failed else ""})
                if how == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "veto":
                    reply(ok=False, error="1 connection could not be drained")
                    continue
                reply(ok=True, connections=3, failed=2)
                if how == "kill group":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    os.kill(0, signal.SIGTERM)
                os.unlink(listener.getsockname())
                sys.exit(0)


def act_keeper(directory):
    """A keeper that serves one tool after the other."""
    script = read_script(directory)
    holdings = script.get("holdings", [])
    listener = listen(directory, "keeper", socket.SOCK_SEQPACKET)
    while True:
        conn, _ = listener.accept()
        with conn:
            while True:
                packet = conn.recv(65536)
                if not packet:
                    break
                request = json.loads(packet)
                op = request["op"]
                if op == "hello" and script.get("refuse"):
                    replies = [{"ok": False, "error": "version 1 is not "
                                                      "spoken here"}]
                elif op == "hello":
                    replies = [{"ok": True, "version": 1,
                                "pid": os.getpid()}]
                elif op == "status":
                    replies = [{"ok": True, "pid": os.getpid(),
                                "version": 1, "state": "holding",
                                "holdings": len(holdings), "fds": 9,
                                "guarded": 5, "held_seconds_left": 41,
                                "events": script.get("keeper_events", [])}]
                elif op == "list":
                    # one in each packet, as if the list were long
                    replies = [{"ok": True, "holdings": [h], "more": True}
                               for h in holdings]
                    replies += [{"ok": True, "holdings": []}]
                elif op == "wipe":
                    holdings = []
                    replies = [{"ok": True}]
                for reply in replies:
                    conn.send(json.dumps(reply).encode())


#
# The tests
#

class ToolTestCase(unittest.TestCase):
    """An own lock directory and smb.conf, and processes that end with it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ds-tool-")
        self.addCleanup(shutil.rmtree, self.dir)
        os.mkdir(os.path.join(self.dir, "durable_state"), 0o700)
        self.processes = []
        self.addCleanup(self.end_processes)
        self.write_conf("[proj]\npath = /tmp\nvfs objects = durable_state\n")

    def end_processes(self):
        for process in self.processes:
            process.kill()
            process.wait()
        # the one that samba-tool started is nobody's child
        for start in self.starts():
            try:
                os.kill(start["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass

    def write_conf(self, text, global_text=""):
        self.conf = os.path.join(self.dir, "smb.conf")
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write("[global]\n"
                    f"lock directory = {self.dir}\n"
                    f"state directory = {self.dir}\n"
                    f"cache directory = {self.dir}\n"
                    f"private dir = {self.dir}\n"
                    f"pid directory = {self.dir}\n"
                    f"{global_text}{text}")

    def script(self, **script):
        with open(os.path.join(self.dir, "script.json"), "w",
                  encoding="utf-8") as f:
            json.dump(script, f)

    def spawn(self, who, stdout=subprocess.DEVNULL, **popen):
        name, kind = {"--smbd": ("control", socket.SOCK_STREAM),
                      "--keeper": ("keeper", socket.SOCK_SEQPACKET)}[who]
        process = subprocess.Popen([sys.executable, os.path.abspath(__file__),
                                    who, self.dir], stdout=stdout, **popen)
        self.processes.append(process)
        path = os.path.join(self.dir, "durable_state", name)
        for _ in range(500):
            # that of one that was killed may be there yet
            with socket.socket(socket.AF_UNIX, kind) as sock:
                if sock.connect_ex(path) == 0:
                    return process
            time.sleep(0.01)
        self.fail(f"{who} did not start")

    def starts(self):
        try:
            with open(os.path.join(self.dir, "starts"),
                      encoding="utf-8") as f:
                return [json.loads(line) for line in f]
        except FileNotFoundError:
            return []

    def tool(self, *args, code=0, env=None, wrapper=(), group=None):
        """Runs the command, returns (stdout, stderr)."""
        def join():
            if group is not None:
                os.setpgid(0, group)

        environment = dict(os.environ, **(env or {}))
        if SAMBA_PYTHON:
            environment["PYTHONPATH"] = SAMBA_PYTHON
        run = subprocess.run([*wrapper, sys.executable, "-c", SAMBA_TOOL,
                              "durable-state", *args, "-s", self.conf],
                             env=environment, capture_output=True, text=True,
                             timeout=120, preexec_fn=join)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        return run.stdout, run.stderr

    def tool_json(self, *args, **kwargs):
        out, err = self.tool(*args, "--json", **kwargs)
        self.assertEqual(err, "")
        return json.loads(out)


class StatusTests(ToolTestCase):
    def test_running(self):
        self.script(connections=[CONNECTION, UNPROTECTED],
                    events=[event(lost=1, connections=3, lost_detail=[
                        {"client": "10.0.0.9:1", "reason": "share gone"}])])
        self.spawn("--smbd")
        out, err = self.tool("status")
        self.assertIn("2 connections: 1 protected, 0 partly, 1 not", out)
        self.assertRegex(out, r"10\.0\.0\.7:51234 +DOM\\anna +SMB3_11 +1 +2 "
                              r"+4 +1 +0 +12\.1 KiB +full\n")
        self.assertIn("none: SMB1 is not protected", out)
        self.assertIn("3 connections, longest pause 87 ms, 1 lost\n"
                      "  10.0.0.9:1: share gone\n", out)
        self.assertEqual(err, "")

    def test_json(self):
        self.script(connections=[CONNECTION], events=[event()])
        self.spawn("--smbd")
        data = self.tool_json("status")
        self.assertEqual(data["connections"], [CONNECTION])
        self.assertEqual(data["events"], [event(pid=data["smbd"]["pid"])])
        self.assertEqual(data["keeper"]["state"], "idle")
        self.assertEqual(data["version"], "4.22.x")
        self.assertNotIn("ok", data)

    def test_keeper_gone(self):
        self.script(keeper={"pid": 0, "state": "gone"})
        self.spawn("--smbd")
        out, _ = self.tool("status")
        self.assertIn("keeper: gone", out)

    def test_wrong_option(self):
        self.script(problem=PROBLEM, keeper={"pid": 0, "state": "gone"})
        self.spawn("--smbd")
        out, _ = self.tool("status")
        self.assertIn("no client is protected, a restart would cut them all "
                      f"off: {PROBLEM}\n", out)
        self.assertNotIn("keeper: gone", out)
        self.assertEqual(self.tool_json("status")["smbd"]["problem"], PROBLEM)

    def test_nothing_runs(self):
        out, err = self.tool("status", code=1)
        self.assertEqual(out, "")
        self.assertIn("smbd is not running", err)
        data = self.tool_json("status", code=1)
        self.assertEqual(data["keeper"]["state"], "gone")
        self.assertEqual(data["connections"], [])
        self.assertEqual(data["events"], [])
        self.assertTrue(data["version"])

    def test_no_directory(self):
        os.rmdir(os.path.join(self.dir, "durable_state"))
        self.tool("status", code=1)

    def test_stale_socket(self):
        listen(self.dir, "control", socket.SOCK_STREAM).close()
        self.tool("status", code=1)

    def test_keeper_holds(self):
        self.script(holdings=[
            {"label": "listen:0", "info": {}, "fds": 1, "age_ms": 5},
            {"label": "c1", "info": {"client": "a:1"}, "fds": 4, "age_ms": 5},
            {"label": "c2", "info": {"client": "b:1"}, "fds": 4, "age_ms": 5},
        ])
        self.spawn("--keeper")
        out, _ = self.tool("status", code=1)
        self.assertRegex(out, r"smbd is not running; the keeper \(pid \d+\) "
                              r"holds 2 connections\n")
        self.assertIn("41 s", out)
        data = self.tool_json("status", code=1)
        self.assertEqual(data["keeper"]["state"], "holding")
        self.assertEqual(data["keeper"]["held"], 2)
        self.assertRegex(data["version"], r"^4\.")

    def test_keeper_of_another_version(self):
        self.script(refuse=True)
        self.spawn("--keeper")
        _, err = self.tool("status", code=2)
        self.assertIn("version 1 is not spoken here", err)

    def test_long_path(self):
        self.dir = os.path.join(self.dir, "x" * 100)
        os.makedirs(os.path.join(self.dir, "durable_state"))
        self.write_conf("")
        # what smbd could not bind either is not there, and no exception
        self.tool("status", code=1)

    def test_not_root(self):
        if shutil.which("setpriv") is None:
            self.skipTest("no setpriv")
        os.chmod(self.dir, 0o755)
        os.chmod(self.conf, 0o644)
        # reads everything, as the tree may be where only root may look
        _, err = self.tool("status", code=2,
                           wrapper=("setpriv", "--reuid=65534",
                                    "--regid=65534", "--clear-groups",
                                    "--inh-caps=+dac_read_search",
                                    "--ambient-caps=+dac_read_search"))
        self.assertIn("only root", err)

    def test_without_module(self):
        """A process of that name with a pid file and no control socket."""
        path = os.path.join(self.dir, "smbd")
        shutil.copy(shutil.which("sleep"), path)
        process = subprocess.Popen([path, "100"])
        self.processes.append(process)
        with open(os.path.join(self.dir, "smbd.pid"), "w",
                  encoding="ascii") as f:
            f.write(f"{process.pid}\n")
        expected = f"smbd (pid {process.pid}) runs without the module"
        _, err = self.tool("status", code=1)
        self.assertIn(expected, err)
        _, err = self.tool("restart", code=2)
        self.assertIn(expected, err)
        out, _ = self.tool("check", code=2)
        self.assertIn(f"error: smbd (pid {process.pid}): runs without", out)
        self.assertIsNone(process.poll())

    def test_foreign_socket(self):
        """A socket that somebody else put there is not trusted."""
        listener = listen(self.dir, "control", socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        # what counts is who called listen()
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            listener.listen(5)
            os._exit(0)
        os.waitpid(pid, 0)
        _, err = self.tool("status", code=2)
        self.assertIn("not by root", err)


class RestartTests(ToolTestCase):
    def start(self, preexec_fn=None, **script):
        self.script(**dict({"connections": [CONNECTION],
                            "events": [event(), event("2026-01-02T03:05:00Z",
                                                      longest_pause_ms=66)]},
                           **script))
        env = dict(os.environ, FAKE_FLAG="kept", NOTIFY_SOCKET="@gone")
        self.log = os.path.join(self.dir, "log")
        with open(self.log, "a", encoding="utf-8") as log:
            return self.spawn("--smbd", cwd="/usr", env=env, umask=0o027,
                              stdout=log, preexec_fn=preexec_fn)

    def stop_request(self):
        with open(os.path.join(self.dir, "stop"), encoding="utf-8") as f:
            return json.load(f)

    def test_restart(self):
        self.start()
        out, err = self.tool("restart")
        self.assertEqual(err, "")
        self.assertIn("10.0.0.7:51234: frozen\n", out)
        self.assertIn("1 connection, longest pause 66 ms, 0 lost\n", out)
        self.assertEqual(self.stop_request(), {"command": "stop",
                                               "timeout": 5, "force": True})
        first, second = self.starts()
        self.assertNotEqual(first.pop("pid"), second.pop("pid"))
        self.assertEqual(first.pop("notify"), "@gone")
        self.assertIsNone(second.pop("notify"))
        self.assertEqual(first, second)
        self.assertEqual(second, {"cwd": "/usr", "umask": 0o027,
                                  "flag": "kept"})
        with open(self.log, encoding="utf-8") as f:
            self.assertEqual(f.read(), "smbd is here\n" * 2)

    def test_json(self):
        self.start()
        data = self.tool_json("restart")
        self.assertEqual(data["connections"], 1)
        self.assertEqual(data["lost"], 0)
        self.assertEqual(data["longest_pause_ms"], 66)
        self.assertEqual(data["handed_over"], 3)
        self.assertEqual([s["pid"] for s in self.starts()],
                         [data["old_pid"], data["new_pid"]])

    def test_same_process_group(self):
        """smbd ends with SIGTERM to its group."""
        process = self.start(stop="kill group", preexec_fn=os.setpgrp)
        self.tool("restart", group=process.pid)
        self.assertEqual(len(self.starts()), 2)

    def test_options(self):
        self.write_conf("durable_state:drain timeout = 9\n"
                        "durable_state:unprotected = veto\n")
        self.start()
        self.tool("restart")
        self.assertEqual(self.stop_request()["timeout"], 9)
        self.assertEqual(self.stop_request()["force"], False)
        self.end_processes()
        os.unlink(os.path.join(self.dir, "starts"))
        self.start()
        self.tool("restart", "--timeout=2", "--force")
        self.assertEqual(self.stop_request()["timeout"], 2)
        self.assertEqual(self.stop_request()["force"], True)

    def test_same_event_again(self):
        """Times are in seconds."""
        self.start(events=[event(), event()])
        self.tool("restart")

    def test_lost(self):
        lost = event("2026-01-02T03:05:00Z", lost=1, lost_detail=[
            {"client": "10.0.0.7:51234", "reason": "share proj is gone"}])
        self.start(events=[event(), lost])
        out, _ = self.tool("restart", code=1)
        self.assertIn("1 lost\n  10.0.0.7:51234: share proj is gone\n", out)

    def test_no_event(self):
        self.start(events=[event(), event()][:1])
        _, err = self.tool("restart", code=2)
        self.assertIn("did not record", err)

    def test_veto(self):
        process = self.start(stop="veto")
        out, err = self.tool("restart", code=2)
        self.assertIn("10.0.0.7:51234: failed: busy", out)
        self.assertIn("clients were not touched", err)
        self.assertIsNone(process.poll())
        self.assertEqual(len(self.starts()), 1)

    def test_smbd_dies(self):
        self.start(stop="die")
        _, err = self.tool("restart", code=2)
        self.assertIn("ended while it handed over", err)
        self.assertIn("--smbd", err)

    def test_garbage(self):
        self.start(stop="garbage")
        _, err = self.tool("restart", code=2)
        self.assertIn("not a JSON object", err)
        self.assertIn("still runs", err)

    def test_start_fails(self):
        self.start(second_start="fail", holdings=[
            {"label": "c1", "info": {"client": "a:1"}, "fds": 4,
             "age_ms": 5}])
        self.spawn("--keeper")
        _, err = self.tool("restart", code=2)
        self.assertIn("exit code 7", err)
        self.assertIn("holds 1 connection for another 41 s", err)

    def test_start_fails_without_keeper(self):
        self.start(second_start="fail")
        _, err = self.tool("restart", code=2)
        self.assertIn("keeper is gone as well", err)

    def test_keeper_gone(self):
        process = self.start(keeper={"pid": 0, "state": "gone"})
        _, err = self.tool("restart", code=2)
        self.assertIn("clients were not touched", err)
        self.assertIsNone(process.poll())

    def test_not_running(self):
        _, err = self.tool("restart", code=2)
        self.assertIn("smbd is not running", err)

    def test_bad_option(self):
        self.write_conf("durable_state:drain timeout = soon\n")
        _, err = self.tool("restart", code=2)
        self.assertIn("'soon' is not a whole number", err)
        self.assertIn(f"{self.conf}:7: [global]", err)
        self.write_conf("")
        _, err = self.tool("restart", "--timeout=0", code=2)
        self.assertIn("0 is not between 1 and 600 seconds", err)

    def test_next_smbd_would_refuse(self):
        """What was edited while smbd runs, and is for the next one."""
        process = self.start()
        for wrong in ("durable_state:hold tiem = 9\n",
                      "durable_state:keeper = here\n",
                      "[proj]\ndurable_state:hold time = 9\n"):
            self.write_conf(wrong)
            _, err = self.tool("restart", code=2)
            self.assertRegex(err, rf"{self.conf}:[78]: \[(global|proj)\]")
            self.assertIn("clients were not touched", err)
            self.tool("restart", "--dry-run", code=2)
        self.assertIsNone(process.poll())
        self.assertEqual(len(self.starts()), 1)

    def test_smbd_has_wrong_option(self):
        """It says which, and not that there is no keeper."""
        process = self.start(problem=PROBLEM,
                             keeper={"pid": 0, "state": "gone"})
        for args in ((), ("--force",), ("--dry-run",)):
            _, err = self.tool("restart", *args, code=2)
            self.assertIn(PROBLEM, err)
            self.assertIn("clients were not touched", err)
            self.assertNotIn("keeper", err)
        self.assertIsNone(process.poll())

    def test_dry_run(self):
        process = self.start()
        out, _ = self.tool("restart", "--dry-run")
        self.assertIn("1 of 1 connection would survive", out)
        self.assertIsNone(process.poll())

    def test_dry_run_loses(self):
        self.start(connections=[CONNECTION, UNPROTECTED])
        out, _ = self.tool("restart", "--dry-run", code=1)
        self.assertIn("10.0.0.8:40000: would be lost: SMB1", out)
        data = self.tool_json("restart", "--dry-run", code=1)
        self.assertEqual(data["would_survive"], 1)
        self.assertEqual(data["would_be_lost"][0]["client"],
                         "10.0.0.8:40000")

    def test_systemd(self):
        """A service is started by systemctl and by nobody else."""
        process = self.start()
        fake = os.path.join(self.dir, "fake")
        os.mkdir(fake)
        calls = os.path.join(self.dir, "calls")
        with open(os.path.join(fake, "systemctl"), "w",
                  encoding="utf-8") as f:
            f.write("#!/bin/sh\n"
                    f"echo \"$@\" >>'{calls}'\n"
                    "case $1 in\n"
                    f"show) echo {process.pid} ;;\n"
                    f"start) '{sys.executable}' '{os.path.abspath(__file__)}'"
                    f" --smbd '{self.dir}' >/dev/null 2>&1 & ;;\n"
                    "esac\n")
            os.fchmod(f.fileno(), 0o755)
        # a process in a service's group, without a systemd to put it there
        path = f"{fake}:{os.environ['PATH']}"
        code = ("import io, builtins; real = builtins.open\n"
                "def fake(name, *a, **k):\n"
                "    if str(name).endswith('/cgroup'):\n"
                "        return io.StringIO('0::/system.slice/"
                "smbd.service\\n')\n"
                "    return real(name, *a, **k)\n"
                "builtins.open = fake\n")
        global SAMBA_TOOL
        self.addCleanup(globals().__setitem__, "SAMBA_TOOL", SAMBA_TOOL)
        SAMBA_TOOL = code + SAMBA_TOOL.replace("; ", "\n")
        self.tool("restart", env={"PATH": path})
        with open(calls, encoding="utf-8") as f:
            self.assertEqual(f.read().splitlines(), [
                "show --property=MainPID --value -- smbd.service",
                "start -- smbd.service"])
        self.assertEqual(len(self.starts()), 2)


class DiscardTests(ToolTestCase):
    HOLDINGS = [{"label": "c1", "info": {"client": "a:1"}, "fds": 4,
                 "age_ms": 5}]

    def test_discard(self):
        self.script(holdings=self.HOLDINGS)
        self.spawn("--keeper")
        out, _ = self.tool("discard")
        self.assertEqual(out, "1 connection discarded\n")
        out, _ = self.tool("discard")
        self.assertEqual(out, "Nothing was held\n")

    def test_json(self):
        self.script(holdings=self.HOLDINGS)
        self.spawn("--keeper")
        self.assertEqual(self.tool_json("discard"),
                         {"status": "OK", "connections": 1})

    def test_no_keeper(self):
        self.assertEqual(self.tool_json("discard"),
                         {"status": "OK", "connections": 0})

    def test_smbd_running(self):
        self.script(holdings=self.HOLDINGS)
        self.spawn("--smbd")
        self.spawn("--keeper")
        _, err = self.tool("discard", code=2)
        self.assertIn("nothing was discarded", err)
        data = self.tool_json("discard", code=2)
        self.assertEqual(data["status"], "error")


class CheckTests(ToolTestCase):
    """Findings; the exit code depends on what is installed as well."""

    def check(self, *args, conf=None, global_text=""):
        if conf is not None:
            self.write_conf(conf, global_text)
        environment = dict(os.environ)
        if SAMBA_PYTHON:
            environment["PYTHONPATH"] = SAMBA_PYTHON
        run = subprocess.run([sys.executable, "-c", SAMBA_TOOL,
                              "durable-state", "check", *args, "--json",
                              "-s", self.conf],
                             env=environment, capture_output=True, text=True)
        self.assertNotIn("Traceback", run.stderr)
        self.data = json.loads(run.stdout)
        if "result" in self.data:
            codes = {"ready": 0, "degraded": 1, "not possible": 2}
            self.assertEqual(run.returncode, codes[self.data["result"]])
        return self.data

    def finding(self, text):
        found = [f for f in self.data["findings"] if text in f["message"]]
        self.assertEqual(len(found), 1, self.data["findings"])
        return found[0]

    def levels(self):
        """Of what depends on smb.conf, not on the installation."""
        return [f["level"] for f in self.data["findings"]
                if "not installed" not in f["message"] and
                "is no program" not in f["message"]]

    def test_good(self):
        self.check(conf="[a]\npath=/\nvfs objects = acl_xattr durable_state\n"
                        "[b]\npath=/\nvfs objects = durable_state:x\n"
                        "[lp]\nprintable = yes\npath=/tmp\n")
        self.assertEqual(self.levels(), ["note"])
        self.assertEqual([(s["name"], s["protected"])
                          for s in self.data["shares"]],
                         [("a", True), ("b", True)])

    def test_from_global(self):
        self.check(conf="[a]\npath=/\n[b]\npath=/\nvfs objects = catia\n",
                   global_text="vfs objects = durable_state\n")
        self.assertEqual([s["protected"] for s in self.data["shares"]],
                         [True, False])
        self.assertIn("vfs objects = catia durable_state",
                      self.finding("share 'b' does not use")["advice"])

    def test_one_share(self):
        self.check("B", conf="[a]\npath=/\n[b]\npath=/\n"
                             "vfs objects = durable_state\n")
        self.assertEqual(self.levels(), ["note"])
        self.assertEqual([s["name"] for s in self.data["shares"]], ["b"])

    def test_no_such_share(self):
        self.check("nosuch")
        self.assertEqual(self.data["status"], "error")
        self.assertIn("no share [nosuch]", self.data["message"])

    def test_no_share_protected(self):
        self.check(conf="[a]\npath=/\n")
        self.assertEqual(self.finding("no share is protected")["level"],
                         "error")

    def test_not_last(self):
        self.check(conf="[a]\npath=/\n"
                        "vfs objects = durable_state streams_xattr\n")
        found = self.finding("not the last module")
        self.assertEqual(found["level"], "warning")
        self.assertEqual(found["where"], f"{self.conf}:9: [a]")
        self.assertEqual(found["advice"],
                         "vfs objects = streams_xattr durable_state")

    def test_other_store(self):
        self.check(conf="[a]\npath=/\n"
                        "vfs objects = glusterfs durable_state\n")
        self.finding("glusterfs cannot be kept")

    def test_kernel_oplocks(self):
        self.check(conf="[a]\npath=/\nvfs objects = durable_state\n"
                        "kernel oplocks = yes\n")
        self.assertEqual(self.finding("kernel oplocks")["where"],
                         f"{self.conf}:10: [a]")

    def test_smb1(self):
        self.check(conf="[a]\npath=/\nvfs objects = durable_state\n",
                   global_text="server min protocol = NT1\n")
        self.assertEqual(self.finding("clients that use SMB1")["where"],
                         f"{self.conf}:7: [global]")

    def test_only_smb1(self):
        self.check(conf="[a]\npath=/\nvfs objects = durable_state\n",
                   global_text="server min protocol = NT1\n"
                               "server max protocol = NT1\n")
        self.assertEqual(self.finding("all clients use SMB1")["level"],
                         "error")

    def test_unknown_option(self):
        self.check(conf="durable_state:hold tiem = 3\n"
                        "durable_state:colour = red\n")
        found = self.finding("hold tiem")
        self.assertEqual(found["level"], "error")
        self.assertEqual(found["where"], f"{self.conf}:7: [global]")
        self.assertIn("'durable_state:hold time'", found["advice"])
        self.assertNotIn("did you", self.finding("colour")["advice"])

    def test_malformed_values(self):
        self.check(conf="durable_state:hold time = 1m\n"
                        "durable_state:drain timeout = 0\n"
                        "durable_state:on stop = maybe\n"
                        "durable_state:keeper = durable_stated\n"
                        "durable_state:unprotected =\n")
        for text in ("'1m' is not a whole number", "0 is not between",
                     "'maybe' is not one of: keep, drop",
                     "not an absolute path",
                     "'' is not one of: cut, veto"):
            self.assertEqual(self.finding(text)["level"], "error")

    def test_good_values(self):
        self.check(conf="durable_state : HoldTime = 1\n"
                        "durable_state:drain timeout = 600\n"
                        "durable_state:on stop = Keep\n"
                        "durable_state:restore timeout = 7\n"
                        f"durable_state:keeper = {sys.executable}\n"
                        "[a]\npath=/\nvfs objects = durable_state\n")
        self.assertEqual(self.levels(), ["note"])

    def test_option_in_share(self):
        self.check(conf="[a]\npath=/\nvfs objects = durable_state\n"
                        "durable_state:hold time = 3\n")
        found = self.finding("nobody is protected while it is in a share")
        self.assertEqual(found["level"], "error")
        self.assertEqual(found["where"], f"{self.conf}:10: [a]")
        self.assertEqual(found["advice"], "move it to [global]")

    def test_drop(self):
        self.check(conf="durable_state:on stop = drop\n[a]\npath=/\n"
                        "vfs objects = durable_state\n")
        self.assertEqual(self.finding("are cut off when")["level"],
                         "warning")

    def test_include(self):
        other = os.path.join(self.dir, "other.conf")
        with open(other, "w", encoding="utf-8") as f:
            f.write("# a comment\n\ndurable_state:bad = \\\n 1\n")
        self.check(conf=f"include = {other}\n")
        self.assertEqual(self.finding("durable_state:bad")["where"],
                         f"{other}:3: [global]")

    def test_connections(self):
        self.script(connections=[
            CONNECTION, UNPROTECTED,
            dict(CONNECTION, client="10.0.0.9:5", protected="partly",
                 reason="1 open of a named pipe")])
        self.spawn("--smbd")
        self.spawn("--keeper")
        self.check()
        self.finding("would not survive: SMB1 is not protected")
        self.finding("only in part: 1 open of a named pipe")
        self.assertEqual(len(self.data["connections"]), 2)
        out, _ = self.tool("check", code=self.code())
        self.assertIn("warning: 10.0.0.8:40000: this connection would not "
                      "survive: SMB1 is not protected\n", out)

    def code(self):
        return {"ready": 0, "degraded": 1,
                "not possible": 2}[self.data["result"]]

    def test_keeper_gone(self):
        self.script(keeper={"pid": 0, "state": "gone"})
        self.spawn("--smbd")
        self.check()
        self.assertEqual(self.finding("is not running, a restart")["level"],
                         "error")

    def test_smbd_has_wrong_option(self):
        """smb.conf is mended, but smbd has not been restarted."""
        self.script(problem=PROBLEM, keeper={"pid": 0, "state": "gone"},
                    connections=[dict(CONNECTION, protected="none",
                                      reason=PROBLEM)])
        self.spawn("--smbd")
        self.check()
        self.assertEqual(self.data["result"], "not possible")
        found = self.finding(PROBLEM)
        self.assertEqual(found["level"], "error")
        self.assertIn("restart smbd", found["advice"])
        self.assertEqual(len(self.data["connections"]), 1)
        self.tool("check", code=2)

    def test_descriptors(self):
        self.script(connections=[dict(CONNECTION, opens=10 ** 9)])
        self.spawn("--smbd")
        self.spawn("--keeper")
        self.check()
        self.finding("clients of this moment need 1000000003")


class CommandTests(ToolTestCase):
    def test_help(self):
        for command in ("status", "check", "restart", "discard"):
            out, _ = self.tool(command, "--help")
            self.assertIn("--json", out)

    def test_registered(self):
        run = subprocess.run([sys.executable, "-c", SAMBA_TOOL,
                              "durable-state"],
                             env=dict(os.environ, PYTHONPATH=SAMBA_PYTHON or
                                      os.environ.get("PYTHONPATH", "")),
                             capture_output=True, text=True)
        for command in ("status", "check", "restart", "discard"):
            self.assertIn(f"\n  {command}", run.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--smbd"]:
        act_smbd(sys.argv[2])
    elif sys.argv[1:2] == ["--keeper"]:
        act_keeper(sys.argv[2])
    else:
        if os.geteuid() != 0:
            sys.exit("these tests talk to root's sockets: run them as root")
        unittest.main()
