#!/bin/sh
# smb2.durable-state with every dialect, signing and encryption algorithm.
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
# usage: test_torture_suite.sh [COMBINATION...]
#
# Without a name: every dialect, the two ways of restarting, and both shares;
# test_torture_algorithms.sh has the other combinations.
#
#   DS_PREFIX         the installed tree (default: build/prefix)
#   DS_NETWORK        where the servers are (default: 127.0.61)
#   DS_JOBS           combinations at a time (default: 4, they mostly wait)
#   DS_TORTURE_TESTS  tests to run (default: smb2.durable-state)
#
# Prints a line for each combination and the tests that failed in it; exits
# with 1 if any did.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
DS_PREFIX=$(cd "${DS_PREFIX:-$here/../build/prefix}" && pwd) || exit 1
export DS_PREFIX
. "$here/lib/server.sh"
export DS_PORT

network=${DS_NETWORK:-127.0.61}
jobs=${DS_JOBS:-4}
tests=${DS_TORTURE_TESTS:-smb2.durable-state}
user=$(id -un)
password=ds-Secret1
wanted=${*:-3.11-command 3.11-plain 2.02 2.10 3.00 3.02 3.11 3.11-unsigned}
running=
number=0
failed=0

# Two ways of restarting: the administrator's command, and what a service
# manager does. The second is faster, most combinations use it.
by_command() {
	echo "'$DS_PREFIX/bin/samba-tool' durable-state restart -s '$dir/smb.conf'"
}
by_signal() {
	echo ". '$here/lib/server.sh' && ds_server_restart '$dir'"
}

# What smbtorture found, shorter: the tests that failed, and why. A warning
# is what a function that the test has called found.
failures() {
	sed -n -e '/^\(failure\|error\): /,/^\]/p' -e '/^WARNING!: /p' "$1" |
		sed -e '/^\]/d' -e 's/^\(failure\|error\): \(.*\) \[/  \2: /' \
			-e 's/^WARNING!: /    /' \
			-e 's/\.\.\/[^ ]*\/ds_/ds_/' -e 's/^ds_/    ds_/'
}

# run NAME SHARE RESTART OPTION...: with a server of its own, in $dir at
# $address.
run() {
	name=$1
	share=$2
	restart=$($3)
	log="$dir/torture.log"
	shift 3

	: >"$dir/client.conf"
	ds_server_conf "$dir" DSTORTURE "$address" "${DS_MODULE:-on}" &&
		ds_server_user "$dir" "$user" "$password" &&
		ds_server_start "$dir" || return 1

	start=$(date +%s)
	"$DS_PREFIX/bin/smbtorture" "//$address/$share" -p "$DS_PORT" \
		-U "$user%$password" -s "$dir/client.conf" \
		--option="torture:restart_command=$restart" \
		"$@" "$tests" >"$log" 2>&1
	rc=$?
	seconds=$(($(date +%s) - start))
	ds_server_stop "$dir"

	planned=$(sed -n 's/^progress: //p' "$log" | head -n 1)
	ok=$(grep -c '^success: ' "$log")
	skip=$(grep -c '^skip: ' "$log")
	bad=$(grep -c '^\(failure\|error\): ' "$log")
	printf '%-24s %3d passed %3d skipped %3d failed  %4d s\n' \
		"$name" "$ok" "$skip" "$bad" "$seconds"
	failures "$log"

	if [ $((ok + skip + bad)) -lt "${planned:-1}" ]; then
		echo "  smbtorture ended early, with $rc:"
		tail -n 5 "$log" | sed 's/^/    /'
		return 1
	fi
	return $rc
}

# Waits for the combinations that are running, and prints what they say.
finish() {
	for job in $running; do
		wait "${job%%:*}" || failed=$((failed + 1))
		cat "${job#*:}/result"
	done
	running=
}

# combination NAME SHARE RESTART OPTION...
combination() {
	case " $wanted " in
	*" $1 "*) ;;
	*) return ;;
	esac

	ds_server_tmp dir || exit 1
	number=$((number + 1))
	address=$network.$number
	run "$@" >"$dir/result" 2>&1 &
	running="$running $!:$dir"
	if [ $((number % jobs)) -eq 0 ]; then
		finish
	fi
}

dialect() {
	name=$1
	protocol=$2
	shift 2
	combination "$name" durable by_signal \
		--option="client min protocol=$protocol" \
		--option="client max protocol=$protocol" \
		--option="client signing=required" "$@"
}

encryption() {
	combination "3.11-$1" durable by_signal \
		--client-protection=encrypt \
		--option="client smb3 encryption algorithms=$1"
}

signing() {
	combination "3.11-$1" durable by_signal \
		--option="client signing=required" \
		--option="client smb3 signing algorithms=$1"
}

combination 3.11-command durable by_command \
	--option="client signing=required" --option=torture:slow=yes
combination 3.11-plain plain by_signal --option="client signing=required"
dialect 2.02 SMB2_02
dialect 2.10 SMB2_10
dialect 3.00 SMB3_00
dialect 3.02 SMB3_02
dialect 3.11 SMB3_11
combination 3.11-unsigned durable by_signal
encryption AES-128-CCM
encryption AES-128-GCM
encryption AES-256-CCM
encryption AES-256-GCM
signing AES-128-GMAC
signing AES-128-CMAC
signing HMAC-SHA256
finish

if [ $failed -ne 0 ]; then
	echo "$failed combinations with failures"
	exit 1
fi
exit 0
