# Unix SMB/CIFS implementation.
#
# samba-tool durable-state restart
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

import contextlib
import signal
import time

from samba.netcmd import CommandError, Option

from . import options, sockets
from .check import Check
from .command import (DurableStateCommand, count, held_connections,
                      keeper_status, lost_line, newest_event, smbd_status,
                      smbd_without_module)
from .server import CannotRestart, Server, milliseconds_since
from .sockets import Control, NotThere, PeerError, Refused

# From the end of a conversation to the end of the process.
CLOSE_TIMEOUT = 2
# smbd has nothing left to do but to end when it has answered "stop".
END_TIMEOUT = 30
# The new smbd reads its configuration and opens its databases first.
START_TIMEOUT = 30


@contextlib.contextmanager
def undisturbed():
    """Nobody shall end us while there is no smbd.

    An impatient administrator might, and so does smbd itself: it sends
    SIGTERM to its process group, which is ours if the same script has
    started both. These are handlers, as what is ignored would be inherited.
    """
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    saved = [signal.signal(s, lambda *_: None) for s in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, saved):
            signal.signal(number, handler)


class cmd_durable_state_restart(DurableStateCommand):
    """Restart smbd; its clients keep their connections.

    Every smbd process ends and new ones start, through systemd where smbd is
    a service of it, else with the command line that smbd was started with.
    Meanwhile durable_stated keeps the clients' connections, and the new smbd
    goes on where the old one stopped.

    The exit code is 0 if all clients are still there, 1 if a client was lost
    (--dry-run: would be lost), 2 if smbd could not be restarted.
    """

    synopsis = "%prog [options]"

    takes_options = [
        Option("--timeout", type=int, metavar="SECONDS",
               help="Time for requests in progress to complete "
                    "(default: durable_state:drain timeout)."),
        Option("--dry-run", action="store_true", default=False,
               help="Only show which clients would survive."),
        Option("--force", action="store_true", default=False,
               help="Cut off clients that cannot be kept, also with "
                    "durable_state:unprotected = veto."),
        Option("--json", help="Output results in JSON format.",
               dest="output_format", action="store_const", const="json"),
    ]

    def work(self, lp, timeout=None, dry_run=False, force=False):
        before = smbd_status(lp)
        self.check_options(lp, before)
        if timeout is None:
            timeout = options.get(lp, "drain timeout")
        else:
            options.find("drain timeout").parse(str(timeout))
        force = force or options.get(lp, "unprotected") == "cut"

        if before is None:
            pid = smbd_without_module(lp)
            if pid is not None:
                raise CommandError(
                    f"smbd (pid {pid}) runs without the module, a restart "
                    "would cut off all clients; clients were not touched. "
                    "See 'samba-tool durable-state check'")
            raise CommandError(
                "smbd is not running: nothing listens in "
                f"{sockets.directory(lp)}. Start it as usual: it takes back "
                "what the keeper holds")
        if dry_run:
            return self.show_forecast(before)

        state = (before.get("smbd") or {}).get("state")
        if state != "running":
            raise CommandError(f"smbd is {state}; clients were not touched, "
                               "try again when it is running")
        if (before.get("keeper") or {}).get("state") == "gone":
            raise CommandError(
                "the keeper (durable_stated) is gone, all clients would be "
                "cut off; clients were not touched. Start durable_stated, "
                "or restart smbd without this command")

        old = self.find_server(before)
        self.result = {"old_pid": old.pid, "new_pid": None}
        with undisturbed():
            self.stop(lp, old, timeout, force)
            process = old.start()
        after = self.wait_running(lp, old, process,
                                  options.get(lp, "restore timeout") +
                                  START_TIMEOUT)
        return self.summary(after)

    def check_options(self, lp, before):
        """Neither smbd, the running and the next one, may refuse them."""
        smbd = (before or {}).get("smbd") or {}
        if smbd.get("problem"):
            raise CommandError(
                f"smbd (pid {smbd.get('pid')}) protects no client, a restart "
                f"would cut them all off: {smbd['problem']}; clients were "
                "not touched. Mend it, then restart smbd without this "
                "command: clients will notice that one")
        check = Check(lp)
        check.wrong_options()
        for wrong in check.findings:
            raise CommandError(
                f"{wrong.where}: {wrong.message}: the next smbd would not "
                "take the clients back; clients were not touched. Mend it "
                f"({wrong.advice}) and try again")

    def show_forecast(self, before):
        lost = []
        for c in before["connections"]:
            if c.get("protected") != "full":
                lost.append({"client": c.get("client"),
                             "protected": c.get("protected") or "none",
                             "reason": c.get("reason") or ""})
        kept = len(before["connections"]) - len(lost)
        keeper_gone = (before.get("keeper") or {}).get("state") == "gone"
        if self.json:
            self.print_json({"dry_run": True, "keeper_gone": keeper_gone,
                             "connections": len(before["connections"]),
                             "would_survive": 0 if keeper_gone else kept,
                             "would_be_lost": lost})
        else:
            for item in lost:
                word = ("would survive in part"
                        if item["protected"] == "partly" else "would be lost")
                self.message(f"{item['client']}: {word}: {item['reason']}")
            if keeper_gone:
                self.message("The keeper is gone: nothing would survive. "
                             "Start durable_stated")
            else:
                total = count(len(before["connections"]), "connection")
                self.message(f"{kept} of {total} would survive a restart")
        return 1 if lost or keeper_gone else 0

    def find_server(self, before):
        smbd = before.get("smbd") or {}
        try:
            old = Server(smbd["pid"], smbd.get("argv"))
            old.prepare()
        except KeyError:
            raise CommandError("smbd does not say its process id; clients "
                               "were not touched. Are smbd and samba-tool of "
                               "the same version?") from None
        except CannotRestart as e:
            raise CommandError(f"{e}; clients were not touched") from None
        return old

    def progress(self, item):
        if not self.json:
            reason = f": {item['reason']}" if item.get("reason") else ""
            self.message(f"{item.get('client')}: {item.get('state')}{reason}")

    def stop(self, lp, old, timeout, force):
        """Returns when the old smbd has ended and its clients are kept."""
        try:
            control = Control(sockets.directory(lp))
        except NotThere:
            raise CommandError("smbd ended by itself before it was asked "
                               "to; start it as usual") from None
        started = time.monotonic()
        with control:
            try:
                answer = control.stop(timeout, force, self.progress)
            except Refused as e:
                raise CommandError(f"{e}; nothing was stopped, clients were "
                                   "not touched. --force cuts off those that "
                                   "cannot be kept") from None
            except PeerError as e:
                # a process closes its sockets before its end is known
                if old.wait_end(CLOSE_TIMEOUT):
                    raise CommandError(f"smbd (pid {old.pid}) ended while it "
                                       f"handed over its clients: {e}; start "
                                       f"it with: {old.how()}") from None
                raise CommandError(f"{e}; smbd (pid {old.pid}) still runs, "
                                   "see 'samba-tool durable-state status'"
                                   ) from None
        self.result["stop_ms"] = milliseconds_since(started)
        ended = old.wait_end(END_TIMEOUT)
        self.result["end_ms"] = milliseconds_since(started)
        if not ended:
            raise CommandError(
                f"smbd (pid {old.pid}) handed over its clients but did not "
                f"end within {END_TIMEOUT} s; find out why (gdb, log), end "
                f"it, then start the new one with: {old.how()}")
        self.result["handed_over"] = answer.get("connections", 0)

    def wait_running(self, lp, old, process, timeout):
        """The status of the new smbd as soon as it serves all clients."""
        deadline = time.monotonic() + timeout
        code = status = None
        while time.monotonic() < deadline:
            try:
                status = smbd_status(lp)
            except PeerError:
                # it listens already, but does not answer yet
                status = None
            smbd = (status or {}).get("smbd") or {}
            if smbd.get("state") == "running" and smbd.get("pid") != old.pid:
                self.result["new_pid"] = smbd["pid"]
                return status
            if not smbd and code not in (None, 0):
                break
            # 0 is a smbd that went into the background
            code = process.poll()
            time.sleep(0.02)
        self.failed_start(lp, old, status, code, timeout)

    def failed_start(self, lp, old, status, code, timeout):
        if status is not None:
            state = (status.get("smbd") or {}).get("state")
            raise CommandError(
                f"the new smbd started, but is still {state} after "
                f"{timeout} s; see its log and 'samba-tool durable-state "
                "status'")
        why = (f"exit code {code}" if code
               else f"nothing answers after {timeout} s")
        text = (f"the new smbd did not start ({why}: {old.how()}); see its "
                "log and testparm.")
        try:
            keeper = keeper_status(lp)
        except PeerError:
            keeper = None
        if keeper is None:
            raise CommandError(f"{text} The keeper is gone as well: the "
                               "clients are cut off")
        left = keeper.get("held_seconds_left")
        limit = "" if left is None else f" for another {left} s"
        raise CommandError(
            f"{text} The keeper holds "
            f"{count(held_connections(keeper['list']), 'connection')}{limit}: "
            "mend it and start smbd within that time, and the clients go on")

    def summary(self, after):
        event = newest_event(after["events"])
        # two restarts in one second may look the same
        if event is None or event.get("pid") != self.result["new_pid"]:
            raise CommandError("smbd was restarted (pid "
                               f"{self.result['new_pid']}), but it did not "
                               "record what became of the clients; see its "
                               "log and 'samba-tool durable-state status'")
        for key, nothing in (("connections", 0), ("longest_pause_ms", 0),
                             ("lost", 0), ("lost_detail", [])):
            self.result[key] = event.get(key) or nothing
        if self.json:
            self.print_json(self.result)
        else:
            self.message(
                f"smbd was restarted (pid {self.result['old_pid']} -> "
                f"{self.result['new_pid']}): "
                f"{count(self.result['connections'], 'connection')}, longest "
                f"pause {self.result['longest_pause_ms']} ms, "
                f"{self.result['lost']} lost")
            for detail in self.result["lost_detail"]:
                self.outf.write(lost_line(detail))
        return 1 if self.result["lost"] else 0
