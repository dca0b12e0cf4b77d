# Unix SMB/CIFS implementation.
#
# samba-tool durable-state: keep SMB clients connected over restarts.
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

from samba.netcmd import SuperCommand

from .check import cmd_durable_state_check
from .discard import cmd_durable_state_discard
from .restart import cmd_durable_state_restart
from .status import cmd_durable_state_status


class cmd_durable_state(SuperCommand):
    """Keep SMB clients connected while smbd is restarted."""

    subcommands = {
        "check": cmd_durable_state_check(),
        "discard": cmd_durable_state_discard(),
        "restart": cmd_durable_state_restart(),
        "status": cmd_durable_state_status(),
    }
