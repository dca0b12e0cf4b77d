# Unix SMB/CIFS implementation.
#
# samba-tool durable-state status
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

import samba
from samba.netcmd import CommandError, Option

from .command import (DurableStateCommand, count, held_connections,
                      keeper_status, lost_line, newest_event, size,
                      smbd_status, smbd_without_module, table)


class cmd_durable_state_status(DurableStateCommand):
    """Show what is kept for each client, and how the last restart went.

    The exit code is 0 if smbd is running, 1 if it is not, 2 if it could
    not be asked.
    """

    synopsis = "%prog [options]"

    takes_options = [
        Option("--json", help="Output results in JSON format.",
               dest="output_format", action="store_const", const="json"),
    ]

    def work(self, lp):
        status = smbd_status(lp)
        if status is None:
            return self.without_smbd(keeper_status(lp),
                                     smbd_without_module(lp))
        if self.json:
            status.pop("ok", None)
            self.print_json(status)
        else:
            self.show(status)
        return 0

    def show(self, status):
        smbd = status["smbd"]
        keeper = status.get("keeper") or {}
        connections = status["connections"]

        since = f" since {smbd['started']}" if smbd.get("started") else ""
        self.message(f"smbd {status.get('version', '')} (pid "
                     f"{smbd.get('pid')}): {smbd.get('state')}{since}")
        if smbd.get("problem"):
            self.message("no client is protected, a restart would cut them "
                         f"all off: {smbd['problem']}")
        elif keeper.get("state") == "gone":
            self.message("keeper: gone; clients are served, but a restart "
                         "would cut them all off")
        else:
            self.message(f"keeper (pid {keeper.get('pid')}): "
                         f"{keeper.get('state')}")

        levels = [c.get("protected") for c in connections]
        full, partly = levels.count("full"), levels.count("partly")
        self.message(f"{count(len(levels), 'connection')}: {full} protected, "
                     f"{partly} partly, {len(levels) - full - partly} not")
        if connections:
            self.message("")
            self.show_connections(connections)
        self.show_crashes(status.get("crashes") or {})
        self.show_event(newest_event(status["events"]))

    def show_crashes(self, crashes):
        if not crashes.get("survived") and not crashes.get("dropped"):
            return
        again = ", ".join(f"{command} {number}" for command, number
                          in crashes.get("requests", {}).items())
        self.message(f"\nCrashes: {crashes.get('survived', 0)} survived"
                     + (f" (run again: {again})" if again else "")
                     + f", {crashes.get('dropped', 0)} clients dropped")
        for reason, number in crashes.get("reasons", {}).items():
            self.message(f"  {number} times: {reason}")

    def show_connections(self, connections):
        rows = []
        for c in connections:
            protected = c.get("protected") or "none"
            if c.get("reason"):
                protected += f": {c['reason']}"
            rows.append([c.get("client", ""), c.get("user", ""),
                         c.get("dialect", ""), c.get("sessions", 0),
                         c.get("opens", 0), c.get("locks", 0),
                         c.get("leases", 0), c.get("waiting", 0),
                         size(c.get("image_size") or 0), protected])
        table(self.outf,
              ["Client", "User", "Dialect", "Sessions", "Opens", "Locks",
               "Leases", "Waiting", "Image", "Protected"], rows)

    def show_event(self, event):
        if event is None:
            return
        self.message(f"\nLast {event.get('kind', 'event')}: "
                     f"{event.get('time')}, "
                     f"{count(event.get('connections', 0), 'connection')}, "
                     f"longest pause {event.get('longest_pause_ms', 0)} ms, "
                     f"{event.get('lost', 0)} lost")
        for detail in event.get("lost_detail") or []:
            self.outf.write(lost_line(detail))

    def without_smbd(self, keeper, pid):
        """pid: of a smbd that has not loaded the module, or None"""
        events = (keeper or {}).get("events") or []
        held = held_connections((keeper or {}).get("list") or [])
        if self.json:
            self.print_json({
                "version": samba.version,
                "smbd": None,
                "keeper": {
                    "pid": (keeper or {}).get("pid"),
                    "state": (keeper or {}).get("state") or "gone",
                    "held": held,
                    "held_seconds_left":
                        (keeper or {}).get("held_seconds_left"),
                },
                "connections": [],
                "events": events,
            })
            return 1
        if pid is not None:
            self.show_command_error(CommandError(
                f"smbd (pid {pid}) runs without the module: no client is "
                "protected; see 'samba-tool durable-state check'"))
            return 1
        if keeper is None:
            self.show_command_error(CommandError(
                "smbd is not running, and no keeper either: nothing is held "
                "for any client"))
            return 1
        self.message("smbd is not running; the keeper (pid "
                     f"{keeper.get('pid')}) holds {count(held, 'connection')}")
        left = keeper.get("held_seconds_left")
        if held and left is not None:
            self.message(f"They are closed unless smbd starts within {left} s")
        self.show_event(newest_event(events))
        return 1
