# Unix SMB/CIFS implementation.
#
# samba-tool durable-state check
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

import glob
import os
import resource
from collections import namedtuple

from samba.netcmd import CommandError, Option
from samba.param import modules_dir, sbin_dir

from . import options, sockets
from .command import (DurableStateCommand, count, keeper_status, smbd_status,
                      smbd_without_module, table)
from .options import PREFIX, BadValue, normalise
from .server import systemd_property, systemd_service
from .smbconf import SmbConfText

READY, DEGRADED, IMPOSSIBLE = 0, 1, 2
RESULTS = {READY: "ready", DEGRADED: "degraded", IMPOSSIBLE: "not possible"}

# A finding that changes nothing, but which an administrator wants to know.
NOTE = -1
LEVELS = {NOTE: "note", DEGRADED: "warning", IMPOSSIBLE: "error"}

# These open files elsewhere than in the kernel, so there is no descriptor
# that could be kept.
OTHER_STORES = ("ceph", "ceph_new", "glusterfs", "gluster", "nfs")

# What the kernel ends together with the process that asked for it.
KERNEL_PROMISES = ("kernel oplocks", "kernel share modes")

# Below this a keeper with some hundred clients runs out of descriptors.
LOW_DESCRIPTOR_LIMIT = 4096
# socket, image and what the keeper needs for itself
DESCRIPTORS_PER_CONNECTION = 3

Finding = namedtuple("Finding", "level where message advice")


def module_name(entry):
    """'worm' for the forms worm, worm:instance and /path/to/worm.so"""
    name = entry.partition(":")[0]
    return os.path.basename(name).removesuffix(".so")


def descriptor_limit(pid):
    """The hard limit of open files of a process, in files."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]


class Check:
    """Collects findings; the result is the worst of them."""

    def __init__(self, lp, share=None):
        self.lp = lp
        self.text = SmbConfText(lp.configfile)
        self.findings = []
        self.shares = []
        self.only = share

    @property
    def result(self):
        return max([READY] + [f.level for f in self.findings])

    def add(self, level, where, message, advice=""):
        self.findings.append(Finding(level, where, message, advice))

    def line(self, name, share="global"):
        """'file:line: [share]' of a parameter, as exactly as it is known."""
        for section in (share, "global"):
            setting = self.text.find(name, section)
            if setting is not None:
                return self.place(setting)
        return f"[{share}]"

    @staticmethod
    def place(setting):
        return f"{setting.file}:{setting.line}: [{setting.section}]"

    def run(self):
        self.module_file()
        self.protocols()
        self.options()
        for share in self.disk_shares():
            self.share(share)
        if self.only is None:
            self.usershares()
            if not any(s["protected"] for s in self.shares):
                self.add(IMPOSSIBLE, self.lp.configfile,
                         "no share is protected",
                         f"add 'vfs objects = {PREFIX}' to [global] or to "
                         "the shares")
        self.servers()

    def module_file(self):
        path = os.path.join(modules_dir(), "vfs", f"{PREFIX}.so")
        if not os.access(path, os.R_OK):
            self.add(IMPOSSIBLE, path, "the module is not installed",
                     "install it for exactly this version of Samba")

    def protocols(self):
        lowest = self.lp.get("server min protocol")
        highest = self.lp.get("server max protocol")
        if not highest.startswith("SMB"):
            self.add(IMPOSSIBLE, self.line("server max protocol"),
                     f"server max protocol = {highest}: all clients use "
                     "SMB1, which is not protected",
                     "remove the line")
        elif not lowest.startswith("SMB"):
            self.add(DEGRADED, self.line("server min protocol"),
                     f"server min protocol = {lowest}: clients that use SMB1 "
                     "are not protected",
                     "set it to SMB2_02 if no client needs SMB1")

    def wrong_options(self):
        """Options with which a smbd that starts would protect nobody."""
        reported = set()
        for setting in self.text.with_prefix(PREFIX):
            name = setting.name.partition(":")[2].strip()
            info = options.find(name)
            where = self.place(setting)
            if info is None:
                near = options.suggest(name)
                self.add(IMPOSSIBLE, where,
                         f"{setting.name}: unknown option, nobody is "
                         "protected until it is mended",
                         f"did you mean '{PREFIX}:{near}'?" if near
                         else f"see vfs_{PREFIX}(8)")
                continue
            if normalise(setting.section) != "global":
                self.add(IMPOSSIBLE, where,
                         f"{setting.name} holds for the whole server, nobody "
                         "is protected while it is in a share",
                         "move it to [global]")
                continue
            try:
                info.parse(setting.value)
            except BadValue as e:
                reported.add(info.name)
                self.add(IMPOSSIBLE, where, f"{setting.name}: {e}",
                         f"see vfs_{PREFIX}(8)")
        for info in options.OPTIONS:
            if info.name in reported:
                continue
            try:
                options.get(self.lp, info.name)
            except BadValue as e:
                # from the registry, where there are no lines
                reported.add(info.name)
                self.add(IMPOSSIBLE, "[global]", str(e),
                         f"see vfs_{PREFIX}(8)")
        return reported

    def options(self):
        wrong = self.wrong_options()
        if ("on stop" not in wrong and
                options.get(self.lp, "on stop") == "drop"):
            self.add(DEGRADED, self.line(f"{PREFIX}:on stop"),
                     "clients are cut off when smbd is stopped or "
                     "restarted by its service manager",
                     f"remove '{PREFIX}:on stop = drop'")
        if "keeper" not in wrong:
            self.keeper_program(options.get(self.lp, "keeper"))
        for name in self.text.unread:
            self.add(NOTE, self.lp.configfile,
                     f"include of '{name}' was not searched for misspelt "
                     f"{PREFIX} options")

    def keeper_program(self, path):
        where = self.line(f"{PREFIX}:keeper")
        if path is None:
            path = os.path.join(sbin_dir(), "durable_stated")
            where = path
        if not os.access(path, os.X_OK):
            self.add(IMPOSSIBLE, where, f"{path} is no program: smbd cannot "
                     "start the keeper", "install it or correct "
                     f"'{PREFIX}:keeper'")

    def disk_shares(self):
        names = [name for name in self.lp.services()
                 if normalise(name) not in ("global", "ipc$")]
        if self.only is not None:
            names = [n for n in names if n.lower() == self.only.lower()]
            if not names:
                raise CommandError(f"{self.lp.configfile} has no share "
                                   f"[{self.only}]")
        return [n for n in names if not self.lp.get("printable", n)]

    def share(self, share):
        modules = [module_name(m) for m in self.lp.get("vfs objects", share)]
        known = len(self.findings)
        where = self.line("vfs objects", share)
        if PREFIX not in modules:
            self.add(DEGRADED, where,
                     f"share '{share}' does not use the module: its clients "
                     "are not protected",
                     "add 'vfs objects = " +
                     " ".join(modules + [PREFIX]) + f"' to [{share}]")
        elif modules[-1] != PREFIX:
            others = [m for m in modules if m != PREFIX]
            self.add(DEGRADED, where,
                     f"share '{share}': {PREFIX} is not the last module, so "
                     f"it does not see the files that {modules[-1]} opens",
                     f"vfs objects = {' '.join(others + [PREFIX])}")
        for module in modules:
            if module in OTHER_STORES:
                self.add(DEGRADED, where,
                         f"share '{share}': files opened by {module} cannot "
                         "be kept")
        for name in KERNEL_PROMISES:
            if self.lp.get(name, share):
                self.add(DEGRADED, self.line(name, share),
                         f"share '{share}': {name} = yes: the kernel gives "
                         "them up while smbd is away, local programs can "
                         "come between", f"set '{name} = no'")
        self.shares.append({
            "name": share,
            "modules": modules,
            "protected": not any(f.level > READY
                                 for f in self.findings[known:]),
        })

    def usershares(self):
        path = self.lp.get("usershare path")
        if not path or self.lp.get("usershare max shares") < 1:
            return
        shares = [p for p in glob.glob(os.path.join(path, "*"))
                  if os.path.isfile(p)]
        template = self.lp.get("usershare template share")
        modules = self.lp.get("vfs objects", *([template] if template else []))
        if shares and PREFIX not in map(module_name, modules):
            self.add(DEGRADED, self.line("vfs objects"),
                     f"{count(len(shares), 'user share')} in {path} do not "
                     "use the module",
                     f"add 'vfs objects = {PREFIX}' to "
                     f"[{template or 'global'}]")

    def servers(self):
        """What smbd and the keeper say, as far as they run."""
        self.connections = []
        where = sockets.directory(self.lp)
        smbd = smbd_status(self.lp)
        keeper = keeper_status(self.lp)
        if smbd is None:
            pid = smbd_without_module(self.lp)
            if pid is not None:
                self.add(IMPOSSIBLE, f"smbd (pid {pid})",
                         "runs without the module",
                         "restart it once; its clients will notice that")
                return
            self.add(NOTE, where,
                     "smbd is not running with this configuration: the "
                     "keeper was not checked"
                     if keeper is None else
                     "smbd is not running; the keeper is")
            return
        self.connections = smbd["connections"]
        if smbd["smbd"].get("problem"):
            self.add(IMPOSSIBLE, f"smbd (pid {smbd['smbd'].get('pid')})",
                     "protects no client since it started: "
                     f"{smbd['smbd']['problem']}",
                     "mend it and restart smbd; its clients will notice that")
            # without a keeper, and each client has the same reason
            return
        if keeper is None or smbd.get("keeper", {}).get("state") == "gone":
            self.add(IMPOSSIBLE, where, "the keeper (durable_stated) is not "
                     "running, a restart would cut off all clients",
                     "start it: systemctl start durable_stated, or "
                     "durable_stated -s " + self.lp.configfile)
        else:
            self.descriptors(keeper["pid"])
            self.keeper_unit(smbd["smbd"].get("pid"), keeper["pid"])
        self.clients()

    def descriptors(self, pid):
        needed = sum(DESCRIPTORS_PER_CONNECTION + c.get("opens", 0)
                     for c in self.connections)
        try:
            limit = descriptor_limit(pid)
        except OSError:
            return
        if limit == resource.RLIM_INFINITY:
            return
        advice = "raise LimitNOFILE of durable_stated.service or 'ulimit -Hn'"
        if needed > limit:
            self.add(IMPOSSIBLE, f"durable_stated (pid {pid})",
                     f"may have {limit} files open, the clients of this "
                     f"moment need {needed}", advice)
        elif needed * 5 > limit * 4 or limit < LOW_DESCRIPTOR_LIMIT:
            self.add(DEGRADED, f"durable_stated (pid {pid})",
                     f"may have only {limit} files open (the clients of this "
                     f"moment need {needed})", advice)

    def keeper_unit(self, smbd, keeper):
        unit = systemd_service(smbd)
        if unit is None or systemd_service(keeper) != unit:
            return
        if systemd_property(unit, "KillMode") in ("control-group", "mixed"):
            self.add(IMPOSSIBLE, unit,
                     "the keeper runs in the service of smbd, systemd ends "
                     "both together",
                     "systemctl enable --now durable_stated")

    def clients(self):
        for c in self.connections:
            if c.get("protected") == "full":
                continue
            if self.only is not None:
                shares = [s.lower() for s in c.get("shares") or []]
                if self.only.lower() not in shares:
                    continue
            word = ("would survive only in part"
                    if c.get("protected") == "partly" else
                    "would not survive")
            self.add(DEGRADED, c.get("client", ""),
                     f"this connection {word}: {c.get('reason') or ''}")


class cmd_durable_state_check(DurableStateCommand):
    """Find out beforehand which clients would not survive a restart, and why.

    Looks at smb.conf and, when smbd is running, at its connections.

    The exit code is 0 if all clients are protected (ready), 1 if some are
    not (degraded), 2 if none can be (not possible).
    """

    synopsis = "%prog [SHARE] [options]"

    takes_args = ["share?"]

    takes_options = [
        Option("--json", help="Output results in JSON format.",
               dest="output_format", action="store_const", const="json"),
    ]

    def work(self, lp, share=None):
        check = Check(lp, share)
        check.run()
        if self.json:
            self.print_json({
                "result": RESULTS[check.result],
                "shares": check.shares,
                "findings": [{**f._asdict(), "level": LEVELS[f.level]}
                             for f in check.findings],
                "connections": [c for c in check.connections
                                if c.get("protected") != "full"],
            })
        else:
            self.show(check)
        return check.result

    def show(self, check):
        if check.shares:
            table(self.outf, ["Share", "Modules", "Protected"],
                  [[s["name"], " ".join(s["modules"]) or "-",
                    "yes" if s["protected"] else "no"]
                   for s in check.shares])
            self.message("")
        for f in sorted(check.findings, key=lambda f: -f.level):
            self.message(f"{LEVELS[f.level]}: {f.where}: {f.message}")
            if f.advice:
                self.message(f"    {f.advice}")
        self.message(f"Result: {RESULTS[check.result]}")
