#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Processes are killed at random moments while clients work.
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

"""usage: test_crash_load.py [NAME...]

The short form of "make torture": three runs, always the same ones.

DS_PREFIX   the installed tree (default: build/prefix)
DS_ADDRESS  address of the server (default: 127.0.0.71)
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(HERE, "torture-run")]
# it says where Samba's programs and our library are
import crash

PLANS = (
    crash.Plan("signed", seed=1, signing=True, child_kills=15, tree_kills=1,
               keeper_kills=1),
    crash.Plan("encrypted", seed=2, encryption=True, child_kills=15,
               tree_kills=1, keeper_kills=0, io=1 << 20, clients=2),
    crash.Plan("small, no aio", seed=3, aio=False, child_kills=15,
               tree_kills=1, keeper_kills=0, io=4096, dialect="SMB2_10"),
)


def main():
    crash.end_cleanly()
    plans = [plan for plan in PLANS
             if len(sys.argv) == 1 or plan.name in sys.argv[1:]]
    failed = [plan.name for plan in plans if crash.execute(plan).failures]
    if failed:
        print("failed: " + ", ".join(failed))
    return 1 if failed or not plans else 0


if __name__ == "__main__":
    sys.exit(main())
