#!/bin/sh
# Stop and start of smbd under valgrind, with clients that have something of
# everything.
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
# usage: test_valgrind.sh [TEST...]
#
#   DS_PREFIX   the installed tree (default: build/prefix)
#   DS_ADDRESS  address of the server (default: 127.0.0.66)
#
# The tests are those of smb2.durable-state. The smbd that smbtorture starts
# with is a normal one, every later one runs in valgrind: restore and, from
# the second restart of a test on, capture.
#
# An error fails the test wherever it is, in Samba's own code too: there is
# none.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
DS_PREFIX=$(cd "${DS_PREFIX:-$here/../build/prefix}" && pwd) || exit 1
export DS_PREFIX
. "$here/lib/server.sh"
export DS_PORT

command -v valgrind >/dev/null || {
	echo "there is no valgrind"
	exit 77
}

address=${DS_ADDRESS:-127.0.0.66}
user=$(id -un)
password=ds-Secret1
failed=0

# One for each kind of record, and those where much happens at once
tests=${*:-session-two session-encryption channel-bind open-stream
	open-delete-on-close open-unlinked oplock-break-pending
	lease-v2-break-pending lock-two-clients lock-sequence dir-two-scans
	notify-waiting notify-buffered wait-lock wait-create durable-v2-lease
	replay-create half-body half-reply pipe}

# Clients wait for as long as it takes: their connections are held
restart_in_valgrind() {
	cat <<-END
		. '$here/lib/server.sh'
		pid=\$(tr -cd 0-9 <'$dir/pid/smbd.pid')
		kill -TERM \$pid || exit 1
		i=0
		while ds_pid_alive \$pid; do
			i=\$((i + 1))
			[ \$i -lt 6000 ] || exit 1
			sleep 0.01
		done
		valgrind --quiet --leak-check=no --num-callers=30 \
			--fullpath-after= --log-file='$dir/valgrind/%p' \
			'$DS_PREFIX/sbin/smbd' -D -s '$dir/smb.conf' || exit 1
		i=0
		until [ -s '$dir/pid/smbd.pid' ] &&
			ds_pid_alive \$(tr -cd 0-9 <'$dir/pid/smbd.pid'); do
			i=\$((i + 1))
			[ \$i -lt 6000 ] || exit 1
			sleep 0.01
		done
	END
}

ds_server_tmp dir || exit 1
mkdir "$dir/valgrind"
: >"$dir/client.conf"
ds_server_conf "$dir" DSVALGRIND "$address" on || exit 1
ds_server_option "$dir" "durable_state:drain timeout = 60" \
	"durable_state:hold time = 300" \
	"durable_state:restore timeout = 120" || exit 1
ds_server_user "$dir" "$user" "$password" || exit 1
ds_server_start "$dir" || exit 1
restart_in_valgrind >"$dir/restart"

names=
for test in $tests; do
	names="$names smb2.durable-state.$test"
done
start=$(date +%s)
# shellcheck disable=SC2086
"$DS_PREFIX/bin/smbtorture" "//$address/durable" -p "$DS_PORT" \
	-U "$user%$password" -s "$dir/client.conf" \
	--option="torture:restart_command=sh '$dir/restart'" \
	$names >"$dir/torture.log" 2>&1
rc=$?
echo "smbtorture: exit code $rc, $(grep -c '^success: ' "$dir/torture.log")" \
	"passed, $(grep -c '^skip: ' "$dir/torture.log") skipped," \
	"$(grep -c '^\(failure\|error\): ' "$dir/torture.log") failed," \
	"$(($(date +%s) - start)) s"
if [ $rc -ne 0 ]; then
	grep -A 3 '^\(failure\|error\): ' "$dir/torture.log"
	tail -n 3 "$dir/torture.log"
	failed=1
fi

# The last of them also ends in valgrind
pid=$(tr -cd 0-9 <"$dir/pid/smbd.pid")
kill -TERM "$pid"
i=0
while ds_pid_alive "$pid" && [ $i -lt 3000 ]; do
	i=$((i + 1))
	sleep 0.01
done

processes=$(find "$dir/valgrind" -type f | wc -l)
# "--": what valgrind has to say of itself
grep -h '^==' "$dir"/valgrind/* >"$dir/errors"
with_errors=$(cut -d ' ' -f 1 "$dir/errors" | sort -u | wc -l)
echo "valgrind: $processes processes, $with_errors of them with errors"
if [ "$processes" -eq 0 ]; then
	echo "no smbd ran in valgrind"
	failed=1
fi
if [ "$with_errors" -ne 0 ]; then
	sed -e 's/^==[0-9]*== //' -e "s|$DS_PREFIX/||g" "$dir/errors" |
		head -n 150
	failed=1
fi
exit $failed
