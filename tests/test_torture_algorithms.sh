#!/bin/sh
# smb2.durable-state with every encryption and signing algorithm.
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

exec "$(dirname "$0")/test_torture_suite.sh" \
	3.11-AES-128-CCM 3.11-AES-128-GCM 3.11-AES-256-CCM 3.11-AES-256-GCM \
	3.11-AES-128-GMAC 3.11-AES-128-CMAC 3.11-HMAC-SHA256
