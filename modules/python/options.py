# Unix SMB/CIFS implementation.
#
# The durable_state: options of smb.conf.
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

"""One table of all options. vfs_durable_state(8) describes them in the same
order, and smbd checks them by the same rules."""

import difflib
import os
from collections import namedtuple

PREFIX = "durable_state"


class BadValue(ValueError):
    """The value of an option is not of its form."""


def normalise(name):
    """A name as smb.conf compares it: case and spaces do not count."""
    return "".join(name.lower().split())


def _seconds(lowest, highest):
    def parse(value):
        text = value.strip()
        if not (text.isascii() and text.isdigit()):
            raise BadValue(f"'{value}' is not a whole number of seconds")
        seconds = int(text)
        if not lowest <= seconds <= highest:
            raise BadValue(f"{seconds} is not between {lowest} and {highest} "
                           "seconds")
        return seconds
    return parse


def _one_of(*words):
    def parse(value):
        word = value.strip().lower()
        if word not in words:
            raise BadValue(f"'{value}' is not one of: {', '.join(words)}")
        return word
    return parse


def _absolute_path(value):
    path = value.strip()
    if not os.path.isabs(path):
        raise BadValue(f"'{value}' is not an absolute path")
    return path


# parse() returns the value in the unit that the option has, or raises
# BadValue with the end of a sentence.
OptionInfo = namedtuple("OptionInfo", "name default parse")

OPTIONS = (
    OptionInfo("drain timeout", 5, _seconds(1, 600)),
    OptionInfo("hold time", 60, _seconds(1, 3600)),
    OptionInfo("restore timeout", 20, _seconds(1, 600)),
    OptionInfo("on stop", "keep", _one_of("keep", "drop")),
    OptionInfo("unprotected", "cut", _one_of("cut", "veto")),
    # None: durable_stated in the directory of smbd
    OptionInfo("keeper", None, _absolute_path),
)

_BY_NAME = {normalise(info.name): info for info in OPTIONS}


def find(name):
    """The table's entry for what follows the colon, None if there is none."""
    return _BY_NAME.get(normalise(name))


def suggest(name):
    """The option that was probably meant, None if nothing is near."""
    near = difflib.get_close_matches(normalise(name), _BY_NAME, 1)
    return _BY_NAME[near[0]].name if near else None


def get(lp, name):
    """The value in effect, the default where smb.conf has none.

    Raises BadValue, as smbd protects nobody with a wrong value either.
    """
    info = find(name)
    value = lp.get(f"{PREFIX}:{info.name}")
    if value is None:
        return info.default
    try:
        return info.parse(value)
    except BadValue as e:
        raise BadValue(f"{PREFIX}:{info.name}: {e}") from None
