# Unix SMB/CIFS implementation.
#
# samba-tool durable-state discard
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

from samba.netcmd import CommandError, Option

from . import sockets
from .command import (DurableStateCommand, count, held_connections,
                      smbd_status)
from .sockets import Keeper, NotThere


class cmd_durable_state_discard(DurableStateCommand):
    """Close what the keeper holds for clients while smbd is not running.

    The clients' connections end, as on a normal stop of smbd. The exit code
    is 0 if nothing is held any more, 2 if it could not be done.
    """

    synopsis = "%prog [options]"

    takes_options = [
        Option("--json", help="Output results in JSON format.",
               dest="output_format", action="store_const", const="json"),
    ]

    def work(self, lp):
        status = smbd_status(lp)
        if status is not None:
            pid = (status.get("smbd") or {}).get("pid")
            raise CommandError(
                f"smbd is running (pid {pid}): the state is in use and "
                "nothing was discarded; stop smbd first, or use 'smbcontrol "
                "smbd close-share' to cut off clients")
        try:
            with Keeper(sockets.directory(lp)) as keeper:
                held = held_connections(keeper.holdings())
                keeper.wipe()
        except NotThere:
            held = 0
        if self.json:
            self.print_json_status(connections=held)
        elif held:
            self.message(f"{count(held, 'connection')} discarded")
        else:
            self.message("Nothing was held")
        return 0
