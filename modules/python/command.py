# Unix SMB/CIFS implementation.
#
# What all durable-state commands have in common.
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

import samba.getopt as options
from samba.netcmd import Command, CommandError

from . import sockets
from .options import BadValue
from .sockets import Control, Keeper, NotThere, PeerError


class DurableStateCommand(Command):
    """Subclasses implement work(lp, ...), which returns the exit code."""

    takes_optiongroups = {
        "sambaopts": options.Samba3Options,
        "versionopts": options.VersionOptions,
    }

    # 1 tells of clients that are or would be lost, so errors are 2.
    EXIT_ERROR = 2

    def run(self, *args, sambaopts=None, versionopts=None, output_format=None,
            **kwargs):
        self.json = output_format == "json"
        try:
            if os.geteuid() != 0:
                raise CommandError(
                    f"{self.command_name}: only root may talk to smbd and "
                    "to its keeper; run it as root")
            try:
                lp = sambaopts.get_loadparm()
            except RuntimeError as e:
                raise CommandError(f"Cannot read the configuration: {e}; "
                                   "try testparm") from None
            try:
                return self.work(lp, *args, **kwargs)
            except (PeerError, BadValue) as e:
                raise CommandError(str(e)) from None
        except CommandError as e:
            self.show_command_error(e)
            return self.EXIT_ERROR

    def work(self, lp, *args, **kwargs):
        raise NotImplementedError(self.command_name)

    def warn(self, text):
        """A line for the administrator that is no part of the result."""
        print(text, file=self.errf)


def smbd_status(lp):
    """The status of the running smbd, None when no smbd listens."""
    try:
        with Control(sockets.directory(lp)) as control:
            return control.status()
    except NotThere:
        return None


def smbd_without_module(lp):
    """The pid of a smbd that runs but has no control socket, or None."""
    try:
        with open(os.path.join(lp.get("pid directory"), "smbd.pid"),
                  encoding="ascii") as f:
            pid = int(f.read())
        with open(f"/proc/{pid}/comm", encoding="ascii",
                  errors="replace") as f:
            return pid if f.read().startswith("smbd") else None
    except (OSError, ValueError):
        return None


def keeper_status(lp):
    """The keeper's status and holdings, asked directly, None without one."""
    try:
        with Keeper(sockets.directory(lp)) as keeper:
            status = keeper.status()
            status["list"] = keeper.holdings()
            return status
    except NotThere:
        return None


def held_connections(holdings):
    """How many of the keeper's holdings are clients.

    Listening sockets are held as well; what belongs to a client names it.
    """
    return sum(1 for h in holdings if (h.get("info") or {}).get("client"))


def newest_event(events):
    """The event that happened last, None if there is none."""
    if not events:
        return None
    # ISO times sort as text; of equal ones the log has the newest last
    return sorted(events, key=lambda e: e.get("time") or "")[-1]


def count(number, noun):
    """'1 connection', '2 connections'"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(octets):
    """A number of bytes as people read it."""
    if octets < 1024:
        return f"{octets} B"
    if octets < 1024 * 1024:
        return f"{octets / 1024:.1f} KiB"
    return f"{octets / 1024 / 1024:.1f} MiB"


def table(outf, heads, rows):
    """Columns as wide as they need to be; the last one is not padded."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    for row in [heads] + rows:
        line = "  ".join(cell.ljust(w) for cell, w in zip(row, widths))
        outf.write(line.rstrip() + "\n")


def lost_line(detail):
    """One client that was lost, and why."""
    return (f"  {detail.get('client') or 'unknown client'}: "
            f"{detail.get('reason') or 'no reason was recorded'}\n")
