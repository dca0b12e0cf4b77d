#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Processes of a server are killed again and again while clients work.
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

"""smbtorture smb2.durable-state-load knows what each reply must be. While it
runs, processes of its server are killed at random moments: a client's process,
all of smbd, the keeper. Nothing may be lost, answered differently, done twice,
or be left over at the end.

DS_PREFIX   the installed tree (default: build/prefix)
DS_ADDRESS  address of the server (default: 127.0.0.71)
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, "lib")]
from server import (PASSWORD, PORT, USER, Server, alive, end_cleanly, program,
                    wait_until)

SUITE = "smb2.durable-state-load"
# Seconds between two kills, on average
BETWEEN_KILLS = 0.12
# A status that is asked for while a process returns takes two seconds
RETURN_SECONDS = 0.05
# What a client may wait for, and an administrator for full protection
RECOVERY_SECONDS = 30
# A program that kills itself does it in one of these ways; most are ended by
# the kernel, or by an administrator
SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGSEGV, signal.SIGABRT]
# Nothing may be in them when all clients have left
DATABASES = ("locking", "brlock", "leases", "smbXsrv_session_global",
             "smbXsrv_tcon_global", "smbXsrv_open_global",
             "smbXsrv_client_global")
FAILED_LOGS = os.path.join(os.path.dirname(TESTS), "build", "torture")


class Failure(Exception):
    pass


@dataclasses.dataclass
class Plan:
    """One run."""
    name: str = "load"
    address: str = os.environ.get("DS_ADDRESS", "127.0.0.71")
    seed: int = 1
    child_kills: int = 20
    tree_kills: int = 2
    keeper_kills: int = 1
    clients: int = 4
    io: int = 65536
    dialect: str = None
    signing: bool = False
    encryption: bool = False
    aio: bool = True
    avoid: str = ""

    def server_options(self):
        options = ["log level = 1"]
        if not self.aio:
            options += ["aio read size = 0", "aio write size = 0"]
        return options

    def torture_options(self):
        options = [f"torture:clients={self.clients}",
                   f"torture:io={self.io}", f"torture:seed={self.seed}",
                   f"torture:avoid={self.avoid}"]
        if self.dialect:
            options += [f"client min protocol={self.dialect}",
                        f"client max protocol={self.dialect}"]
        if self.signing:
            options.append("client signing=required")
        options = [f"--option={option}" for option in options]
        if self.encryption:
            options.append("--client-protection=encrypt")
        return options

    def said(self):
        """How to do it again."""
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default or field.name in ("name", "address"):
                continue
            option = "--" + field.name.replace("_", "-")
            if field.name == "aio":
                words.append("--no-aio")
            elif value is True:
                words.append(option)
            else:
                words.append(f"{option} {value}")
        return " ".join(words)


@dataclasses.dataclass
class Outcome:
    children: int = 0
    trees: int = 0
    keepers: int = 0
    seconds: float = 0
    # of the events in the status
    pauses: list = dataclasses.field(default_factory=list)
    restarts: list = dataclasses.field(default_factory=list)
    load: str = ""
    failures: list = dataclasses.field(default_factory=list)

    def line(self, plan):
        text = (f"{plan.name:24} {self.children:4} children "
                f"{self.trees:3} trees {self.keepers:3} keepers killed"
                f"{self.seconds:7.1f} s")
        for what, pauses in (("child", self.pauses),
                             ("tree", self.restarts)):
            if pauses:
                pauses = sorted(pauses)
                text += (f"  {what} {pauses[len(pauses) // 2]}"
                         f"/{pauses[-1]} ms")
        return text + ("  FAILED" if self.failures else "  ok")


class Run:
    """A server, its clients, and what happens to it."""

    def __init__(self, plan, server):
        self.plan = plan
        self.server = server
        self.random = random.Random(plan.seed)
        self.outcome = Outcome()
        self.torture = None
        self.clients = set()
        self.stop_file = server.path("stop")
        self.last_event = None
        # what was killed
        self.history = []
        # how often the status had a connection twice
        self.twice = 0

    # what the server says

    def ask(self):
        control = socket.socket(socket.AF_UNIX)
        with control:
            control.settimeout(20)
            control.connect(self.server.path("lock", "durable_state",
                                             "control"))
            control.sendall(b'{"command": "status"}\n')
            text = b""
            while not text.endswith(b"\n"):
                data = control.recv(1 << 20)
                if not data:
                    raise ConnectionResetError("the control socket ended")
                text += data
        return json.loads(text)

    def status(self):
        """Also where the parent was just killed, and starts."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                return self.ask()
            except OSError as e:
                if time.monotonic() > deadline:
                    raise Failure(f"no status: {e}") from e
                time.sleep(0.02)

    def connections(self, status):
        """Of our clients: others only look whether the server is ready."""
        found = [c for c in status["connections"]
                 if not self.clients or c["client"] in self.clients]
        names = [c["client"] for c in found]
        if len(set(names)) != len(names):
            self.twice += 1
        return list({c["client"]: c for c in found}.values())

    def wait_protected(self, after):
        """Of all clients, by processes that live."""
        seen = {}

        def done():
            self.check_torture()
            status = self.status()
            for c in self.connections(status):
                if alive(c["pid"]):
                    seen[c["client"]] = c
            return (status["keeper"]["state"] != "gone" and
                    len(seen) == self.plan.clients and
                    all(c["protected"] == "full" and alive(c["pid"])
                        for c in seen.values()))
        try:
            wait_until(done, "protection", RECOVERY_SECONDS)
        except TimeoutError as e:
            found = {client: (c["pid"], c["protected"], c["reason"])
                     for client, c in seen.items()}
            raise Failure(f"after {after}: not all are protected after "
                          f"{RECOVERY_SECONDS} s: {found} of "
                          f"{sorted(self.clients)}") from e
        self.note_events()
        return set(seen)

    def note_events(self):
        """The keeper has the newest hundred only, and none if it is new."""
        events = self.status()["events"]
        new = events
        if self.last_event in events:
            new = events[len(events) - events[::-1].index(self.last_event):]
        for event in new:
            pause = event.get("longest_pause_ms")
            if pause is not None:
                (self.outcome.pauses if event["kind"] == "crash"
                 else self.outcome.restarts).append(pause)
            if event.get("lost"):
                raise Failure(f"lost: {json.dumps(event)}")
        self.last_event = events[-1] if events else None

    # the clients

    def start_torture(self):
        self.log = open(self.server.path("torture.log"), "w+b")
        self.torture = subprocess.Popen(
            [program("smbtorture"), f"//{self.plan.address}/durable",
             f"-p{PORT}", f"-U{USER}%{PASSWORD}",
             "-s", self.server.path("client.conf"),
             "--option=torture:seconds=86400",
             f"--option=torture:stop_file={self.stop_file}",
             *self.plan.torture_options(), SUITE],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            cwd=self.server.directory)
        wait_until(lambda: "load: " in self.torture_log() or
                   self.torture.poll() is not None, "clients that work")
        self.check_torture()
        self.clients = self.wait_protected("the start")

    def torture_log(self):
        with open(self.server.path("torture.log"), encoding="utf-8",
                  errors="replace") as f:
            return f.read()

    def check_torture(self):
        if self.torture.poll() is not None:
            raise Failure(f"smbtorture ended with {self.torture.returncode}")

    def end_torture(self):
        with open(self.stop_file, "w", encoding="ascii"):
            pass
        try:
            self.torture.wait(180)
        except subprocess.TimeoutExpired as e:
            raise Failure("smbtorture does not end") from e
        if self.torture.returncode != 0:
            raise Failure(f"smbtorture ended with {self.torture.returncode}")

    # kills

    def kill(self, pid, number=signal.SIGKILL):
        assert pid > 1
        self.history.append(f"{time.strftime('%H:%M:%S')} {number.name} "
                            f"to {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_child(self):
        """Sometimes several at once, sometimes the next one as soon as it
        is there."""
        found = wait_until(lambda: self.connections(self.status()),
                           "the connections", RECOVERY_SECONDS)
        again = self.random.random() < 0.2
        many = self.random.random() < 0.1
        number = self.random.choice(SIGNALS)
        victims = self.random.sample(found, min(len(found),
                                                2 if many else 1))
        for victim in victims:
            self.kill(victim["pid"], number)
            self.outcome.children += 1
        if again:
            self.kill_next(victims[0])
        self.wait_successors(victims)

    def kill_next(self, victim):
        def successor():
            self.check_torture()
            for c in self.connections(self.status()):
                if c["client"] == victim["client"]:
                    return c["pid"] != victim["pid"] and c["pid"]
            return None
        try:
            pid = wait_until(successor, "a successor", RECOVERY_SECONDS)
        except TimeoutError as e:
            raise Failure(f"{victim['client']}: {e}") from e
        time.sleep(self.random.random() * 0.02)
        self.kill(pid)
        self.outcome.children += 1

    def wait_successors(self, victims):
        """They go on; the others may be busy."""
        pids = {victim["client"]: victim["pid"] for victim in victims}
        wait_until(lambda: not any(map(alive, pids.values())), "their end",
                   RECOVERY_SECONDS)
        time.sleep(RETURN_SECONDS)

        def done():
            self.check_torture()
            for c in self.connections(self.status()):
                if c["pid"] != pids.get(c["client"]) and alive(c["pid"]):
                    pids.pop(c["client"], None)
            return not pids
        try:
            wait_until(done, "successors", RECOVERY_SECONDS)
        except TimeoutError as e:
            raise Failure(f"no successors: {pids}") from e
        self.note_events()

    def kill_tree(self):
        """All at once, one after the other, or the parent only."""
        way = self.random.choice(["at once", "in turn", "parent"])
        if way == "parent":
            parent = self.server.pid()
            self.kill(parent)
            wait_until(lambda: not alive(parent), "the end of the parent")
        else:
            pids = self.server.processes()
            self.random.shuffle(pids)
            if way == "at once":
                for pid in pids:
                    self.kill(pid, signal.SIGSTOP)
            for pid in pids:
                self.kill(pid)
            # and those that came in the meantime
            wait_until(self.no_process, "the end of smbd")
        self.outcome.trees += 1
        self.server.start()
        self.wait_protected(f"a kill of smbd, {way}")

    def no_process(self):
        rest = self.server.processes()
        for pid in rest:
            self.kill(pid)
        return not rest

    def kill_keeper(self):
        # what is not in it yet, only its process has
        self.wait_protected("children")
        former = self.server.keeper_pid()
        self.kill(former)
        wait_until(lambda: not alive(former), "the end of the keeper")
        self.outcome.keepers += 1
        # its events have ended with it
        self.last_event = None
        self.wait_protected("a kill of the keeper")

    # all of it

    def kills(self):
        plan = self.plan
        kills = ([self.kill_child] * plan.child_kills +
                 [self.kill_tree] * plan.tree_kills +
                 [self.kill_keeper] * plan.keeper_kills)
        self.random.shuffle(kills)
        for kill in kills:
            if (kill == self.kill_child and
                    self.outcome.children >= plan.child_kills):
                continue
            time.sleep(self.random.expovariate(1 / BETWEEN_KILLS))
            self.check_torture()
            kill()
        time.sleep(BETWEEN_KILLS)

    def check_nothing_left(self):
        wait_until(lambda: not self.connections(self.status()),
                   "the end of the connections")
        left = {}

        def empty():
            left.clear()
            for name in DATABASES:
                count = self.records(name)
                if count:
                    left[name] = count
            return not left
        try:
            wait_until(empty, "empty databases", 10)
        except TimeoutError as e:
            raise Failure(f"records that nobody needs: {left}") from e
        held = self.holdings()
        if held:
            raise Failure(f"the keeper still has {held}")

    def records(self, name):
        for directory in ("lock", "state", "cache"):
            path = self.server.path(directory, f"{name}.tdb")
            if os.path.exists(path):
                run = subprocess.run([program("tdbdump"), path],
                                     capture_output=True, check=True,
                                     timeout=60)
                return len(re.findall(rb"^key\(", run.stdout,
                                      re.MULTILINE))
        return 0

    def holdings(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
            keeper.settimeout(20)
            keeper.connect(self.server.path("lock", "durable_state",
                                            "keeper"))
            found = []
            for request in ({"op": "hello", "version": 1, "role": "tool"},
                            {"op": "list"}):
                keeper.send(json.dumps(request).encode())
                more = True
                while more:
                    reply = json.loads(keeper.recv(1 << 17))
                    if not reply["ok"]:
                        raise Failure(f"keeper: {reply}")
                    found += reply.get("holdings", [])
                    more = reply.get("more", False)
        return [holding["label"] for holding in found]

    def run(self):
        start = time.monotonic()
        try:
            self.server.start()
            self.start_torture()
            self.kills()
            same = self.wait_protected("all")
            if same != self.clients:
                raise Failure(f"other connections: {same}, were "
                              f"{self.clients}")
            self.end_torture()
            self.check_nothing_left()
            if self.twice:
                raise Failure(f"{self.twice} times the status had a "
                              f"connection twice")
        except (Failure, TimeoutError, OSError,
                subprocess.SubprocessError) as e:
            self.outcome.failures.append(f"{type(e).__name__}: {e}")
            self.let_torture_end()
        finally:
            if self.torture is not None and self.torture.poll() is None:
                self.torture.kill()
                self.torture.wait()
        self.outcome.seconds = time.monotonic() - start
        self.read_torture_log()
        if self.outcome.failures:
            self.outcome.failures.append(
                "killed last: " + ", ".join(self.history[-6:]))
            self.keep_logs()
        return self.outcome

    def let_torture_end(self):
        """What it says of it is worth more than what we saw."""
        if self.torture is not None and self.torture.poll() is None:
            with open(self.stop_file, "w", encoding="ascii"):
                pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.torture.wait(10)

    def read_torture_log(self):
        if self.torture is None:
            return
        text = self.torture_log()
        found = re.findall(r"^load: .*operations.*$", text, re.MULTILINE)
        self.outcome.load = found[-1] if found else ""
        for failure in re.findall(r"^(?:failure|error): .*? \[\n(.*?)^\]",
                                  text, re.MULTILINE | re.DOTALL):
            self.outcome.failures.append(failure.strip())
            self.outcome.failures += re.findall(r"^before: .*$", text,
                                                re.MULTILINE)

    def keep_logs(self):
        path = os.path.join(FAILED_LOGS,
                            f"{self.plan.name}-{self.plan.seed}")
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        shutil.copy(self.server.conf, path)
        with open(os.path.join(path, "server.log"), "w",
                  encoding="utf-8") as f:
            f.write(self.server.log())
        if self.torture is not None:
            shutil.copy(self.server.path("torture.log"), path)
        shutil.copytree(self.server.path("lock"),
                        os.path.join(path, "lock"),
                        ignore=lambda _, names: [
                            name for name in names
                            if not name.endswith(".tdb")])
        self.outcome.failures.append(f"logs: {path}")


# In the server's log; not that a signal of ours has ended somebody
INTERESTING = re.compile(r"connection .*(lost|cannot|clos)|INTERNAL ERROR|"
                         r"cannot|killed again|not (have|restored)",
                         re.IGNORECASE)
OURS = re.compile(r"Signal (6|11): ")


def execute(plan):
    """Prints a summary; returns the Outcome."""
    # dumps would only take their time; "enable core files = no" is not the
    # same, that process calls exit()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Server("DSLOAD", plan.address) as server:
        server.option(*plan.server_options())
        outcome = Run(plan, server).run()
        print(outcome.line(plan), flush=True)
        if outcome.load:
            print(f"    {outcome.load}", flush=True)
        for failure in outcome.failures:
            print(f"    {failure}", flush=True)
        if outcome.failures:
            print(f"    again: tests/torture-run/crash.py {plan.said()}")
            lines = [line for line in server.log().splitlines()
                     if INTERESTING.search(line) and
                     not OURS.search(line)]
            for line in lines[-12:]:
                print(f"    | {line}", flush=True)
    return outcome


def main():
    end_cleanly()
    default = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (("child-kills", "processes of clients to kill"),
                       ("tree-kills", "how often to kill all of smbd"),
                       ("keeper-kills", "how often to kill the keeper"),
                       ("seed", "of the clients' work and of the kills"),
                       ("clients", "connections"),
                       ("io", "bytes of the largest READ and WRITE")):
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=value,
                            help=f"{text} [{value}]")
    parser.add_argument("--dialect", help="SMB2_02 ... SMB3_11 [the best]")
    parser.add_argument("--signing", action="store_true",
                        help="signing is required")
    parser.add_argument("--encryption", action="store_true")
    parser.add_argument("--no-aio", dest="aio", action="store_false",
                        help="aio read size = 0, aio write size = 0")
    parser.add_argument("--avoid", default="",
                        help="operations or lanes to leave out, with commas")
    parser.add_argument("--address", default=default.address)
    plan = Plan(**vars(parser.parse_args()))
    return 1 if execute(plan).failures else 0


if __name__ == "__main__":
    sys.exit(main())
