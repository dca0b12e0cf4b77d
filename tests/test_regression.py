#!/usr/bin/env python3
#
# Unix SMB/CIFS implementation.
#
# Samba's own smbtorture suites, with the module and without.
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

"""usage: test_regression.py [SUITE...]

Whatever passes without durable_state has to pass with it. A test that does
not is run twice more by itself: some of Samba's tests depend on the moment.

DS_PREFIX       the installed tree (default: build/prefix)
REGRESSION=all  also suites that take minutes

Many of the tests need a server that is set up for them, a domain or a second
user, and fail on both sides; they are counted and say nothing.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from server import PASSWORD, PORT, Server, end_cleanly, program

# Access is checked for this one
USER = "nobody"

# The longest first, for they decide when all is done
SUITES = """
    smb2.oplock smb2.durable-v2-open smb2.maxfid smb2.notify smb2.multichannel
    smb2.timestamps smb2.create smb2.durable-v2-delay smb2.scan
    smb2.compound_find smb2.compound_async smb2.rename smb2.dir
    smb2.kernel-oplocks smb2.credits smb2.session smb2.lock smb2.ioctl
    smb2.durable-open smb2.connect smb2.read smb2.rw smb2.compound
    smb2.delete-on-close-perms smb2.getinfo smb2.setinfo smb2.streams
    smb2.tcon smb2.mkdir smb2.fileid smb2.openattr smb2.winattr
    smb2.deny smb2.sharemode smb2.acls smb2.session-id smb2.charset
    smb2.name-mangling smb2.stream-inherit-perms smb2.async_dosmode
    smb2.durable-open-disconnect smb2.notify-inotify smb2.maximum_allowed
    smb2.set-sparse-ioctl smb2.zero-data-ioctl smb2.ea smb2.dosmode
""".split()
# Of these the tests one by one, without those that wait for minutes until the
# server gives up, unless all are wanted
IN_PARTS = "smb2.lease smb2.replay".split()
SLOW = re.compile(r"smb2\.lease\.(timeout.*|oplock|break)|"
                  r"smb2\.replay\.dhv2-pending.*")
ONLY_ALL = "smb2.dirlease smb2.durable-v2-regressions".split()

# smbtorture mostly waits
WORKERS = 4
ALL = os.environ.get("REGRESSION") == "all"
TIMEOUT = 1800 if ALL else 240


class Side:
    """A server, and a share of it for each suite: they do not meet."""

    def __init__(self, server):
        self.server = server

    def run(self, suite, share):
        """{test: "success", "failure", "error" or "skip"}, and the end."""
        command = [program("smbtorture"), f"//{self.server.address}/{share}",
                   f"-p{PORT}", f"-U{USER}%{PASSWORD}",
                   "-s", self.server.path("client.conf"),
                   *parts_of(suite)]
        try:
            run = subprocess.run(command, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, timeout=TIMEOUT,
                                 stdin=subprocess.DEVNULL,
                                 cwd=self.server.directory)
            output, end = run.stdout, None
            if run.returncode not in (0, 1):
                end = f"ended with {run.returncode}"
        except subprocess.TimeoutExpired as e:
            output, end = e.stdout or b"", f"not done after {TIMEOUT} s"
        found = re.findall(r"^(success|failure|error|skip): (.*?)(?: \[)?$",
                           output.decode(errors="replace"), re.MULTILINE)
        return {test: result for result, test in found}, end

    def full_name(self, suite, test):
        """"rw.invalid" of the suite "smb2.rw" is smb2.rw.invalid."""
        if suite.endswith("." + test):
            return suite
        parts = test.split(".")
        # the result may repeat the last part of the suite's name
        if parts[0] == suite.rpartition(".")[2]:
            parts = parts[1:]
        return ".".join([suite, *parts])


def parts_of(suite):
    """The names to tell smbtorture."""
    if suite not in IN_PARTS or ALL:
        return [suite]
    listing = subprocess.run([program("smbtorture"), "--list"],
                             capture_output=True, text=True).stdout
    # the last part is there twice
    names = [line.strip().rpartition(".")[0] for line in listing.splitlines()
             if line.strip().startswith(suite + ".")]
    return [name for name in names if not SLOW.fullmatch(name)]


def passed(results):
    return {test for test, result in results.items() if result == "success"}


class Comparison:
    def __init__(self, stock, module):
        self.sides = [Side(stock), Side(module)]

    def compare(self, suite, share):
        """Both sides at the same time: they see the same load."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda side: side.run(suite, share),
                                 self.sides))

    def suite(self, number, suite):
        """Returns the tests that pass without and fail with the module."""
        start = time.monotonic()
        (stock, stock_end), (module, module_end) = self.compare(
            suite, f"s{number}")
        lost = sorted(passed(stock) - passed(module))
        text = (f"{suite:32} {len(passed(stock)):4} pass without, "
                f"{len(passed(module)):4} with, of "
                f"{len(stock.keys() | module.keys()):4}"
                f" {time.monotonic() - start:6.1f} s")
        for side, end in (("without", stock_end), ("with", module_end)):
            if end is not None:
                text += f"  {side}: {end}"
        if lost:
            text += "  differ: " + ", ".join(lost)
        print(text, flush=True)
        return [(suite, test, f"s{number}") for test in lost]

    def confirmed(self, suite, test, share):
        """Fails with the module again, and passes without it again?"""
        name = self.sides[0].full_name(suite, test)
        for attempt in (2, 3):
            (stock, _), (module, _) = self.compare(name, share)
            ok = [bool(passed(r)) for r in (stock, module)]
            print(f"{name}: run {attempt}: without "
                  f"{'passes' if ok[0] else 'fails'}, with "
                  f"{'passes' if ok[1] else 'fails'}", flush=True)
            if ok[1] or not ok[0]:
                return False
        return True


def main():
    end_cleanly()
    suites = sys.argv[1:] or ((ONLY_ALL if ALL else []) + IN_PARTS + SUITES)
    start = time.monotonic()
    with Server("DSSTOCK", "127.0.0.63", module=False) as stock, \
            Server("DSMODULE", "127.0.0.64") as module:
        for server in (stock, module):
            objects = "acl_xattr streams_xattr"
            if server is module:
                objects += " durable_state"
            for number in range(len(suites)):
                server.share(f"s{number}", f"vfs objects = {objects}",
                             "acl_xattr:ignore system acls = yes",
                             "kernel oplocks = no",
                             "kernel share modes = no", "posix locking = no")
            server.sh("ds_server_user", USER, PASSWORD)
            server.start()
        comparison = Comparison(stock, module)
        lost = []
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for found in pool.map(comparison.suite, range(len(suites)),
                                  suites):
                lost += found
        lost = [entry for entry in lost if comparison.confirmed(*entry)]
    print(f"{len(suites)} suites and tests in "
          f"{time.monotonic() - start:.0f} s")
    for suite, test, _ in lost:
        print(f"REGRESSION: {suite}: {test} passes without the module only")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
