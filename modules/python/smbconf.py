# Unix SMB/CIFS implementation.
#
# Where in smb.conf something is set.
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

"""loadparm knows the value in effect but not the line it came from. This
reads the text once more, only to name file and line in a message."""

from collections import namedtuple

from .options import normalise

Setting = namedtuple("Setting", "file line section name value")

# As Samba's own limit: a file that includes itself ends here.
MAX_INCLUDE_DEPTH = 100


class SmbConfText:
    """All settings of a configuration file and of what it includes."""

    def __init__(self, path):
        self.settings = []
        # what could not be read: registry, names with macros in them
        self.unread = []
        self._read(path, "global", 0)

    def _logical_lines(self, path):
        """Pairs of (number of the first line, text), continuations joined."""
        with open(path, encoding="utf-8", errors="replace") as f:
            start, parts = 0, []
            for number, line in enumerate(f, 1):
                if not parts:
                    start = number
                line = line.rstrip()
                if line.endswith("\\") and line.lstrip()[:1] not in "#;":
                    parts.append(line[:-1])
                    continue
                yield start, "".join(parts + [line]).strip()
                parts = []
            if parts:
                yield start, "".join(parts).strip()

    def _read(self, path, section, depth):
        if depth > MAX_INCLUDE_DEPTH:
            return section
        try:
            lines = list(self._logical_lines(path))
        except OSError:
            self.unread.append(path)
            return section
        for number, line in lines:
            if not line or line[0] in "#;":
                continue
            if line[0] == "[" and "]" in line:
                section = line[1:line.index("]")].strip()
                if normalise(section) == "globals":
                    section = "global"
                continue
            name, equals, value = line.partition("=")
            if not equals:
                continue
            name, value = name.strip(), value.strip()
            self.settings.append(Setting(path, number, section, name, value))
            if normalise(name) == "include":
                if "%" in value or value == "registry":
                    self.unread.append(value)
                elif value:
                    section = self._read(value, section, depth + 1)
            elif normalise(name) == "configbackend" and value == "registry":
                self.unread.append("registry")
        return section

    def find(self, name, section="global"):
        """The last line that sets a parameter in a section, or None."""
        for s in reversed(self.settings):
            if (normalise(s.name) == normalise(name) and
                    normalise(s.section) == normalise(section)):
                return s
        return None

    def with_prefix(self, prefix):
        """All lines 'prefix:something = value'."""
        return [s for s in self.settings
                if normalise(s.name.partition(":")[0]) == prefix and
                ":" in s.name]
