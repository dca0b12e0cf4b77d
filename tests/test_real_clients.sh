#!/bin/sh
# Clients that people use, at work while smbd is restarted under them.
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
# usage: test_real_clients.sh [large|small|libsmbclient|bindings...]
#
#   DS_PREFIX    the installed tree (default: build/prefix)
#   DS_ADDRESS   address of the server (default: 127.0.0.62)
#   DS_SIZE      size of the large file in MiB (default: 2048, less if there
#                is no room)
#   DS_RESTARTS  restarts during one transfer of it (default: 20)
#
# A restart comes when a transfer has got to a certain point, never at a
# time. None of these clients reconnects and goes on by itself, with one
# exception: libsmbclient does. So the local port of each is compared.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
DS_PREFIX=$(cd "${DS_PREFIX:-$here/../build/prefix}" && pwd) || exit 1
export DS_PREFIX
. "$here/lib/server.sh"
export DS_PORT

address=${DS_ADDRESS:-127.0.0.62}
size=${DS_SIZE:-2048}
restarts=${DS_RESTARTS:-20}
user=$(id -un)
password=ds-Secret1
wanted=${*:-large small libsmbclient bindings}
failed=0

# Nothing here may take longer
patience=120

bad() {
	echo "FAILED: $*"
	failed=$((failed + 1))
	return 1
}

# What the server has to say about it
show_log() {
	echo "  the server's log, the end of it:"
	cat "$dir"/log/* | tail -n 40 | sed 's/^/    /'
}

# Local ports of a process' connections to any server. The state 01 is
# "established".
local_ports() {
	for fd in "/proc/$1/fd"/*; do
		readlink "$fd"
	done 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p' \
		>"$scratch/inodes"
	awk 'NR == FNR { inode[$1]; next }
		$4 == "01" && $10 in inode { sub(/.*:/, "", $2); print $2 }' \
		"$scratch/inodes" /proc/net/tcp | sort | tr '\n' ' '
}

file_size() {
	stat -c %s "$1" 2>/dev/null || echo 0
}

file_count() {
	find "$1" -type f 2>/dev/null | wc -l
}

# wait_progress PID COMMAND ARGUMENT LEAST: until COMMAND says at least
# LEAST. 1 if the process ends before; 2 if there is no progress.
wait_progress() {
	deadline=$(($(date +%s) + patience))
	while [ "$($2 "$3")" -lt "$4" ]; do
		kill -0 "$1" 2>/dev/null || return 1
		[ "$(date +%s)" -lt $deadline ] || return 2
		sleep 0.005
	done
	kill -0 "$1" 2>/dev/null
}

# As "systemctl restart smbd", and no look at whether clients are served: that
# the transfer goes on says it
restart() {
	ds_pid_stop "$dir/pid/smbd.pid" || return 1
	stopped_at=$($1 "$2")
	"$DS_PREFIX/sbin/smbd" -D -s "$dir/smb.conf" || return 1
	tries=0
	until [ -s "$dir/pid/smbd.pid" ] &&
		ds_pid_alive "$(tr -cd 0-9 <"$dir/pid/smbd.pid")"; do
		tries=$((tries + 1))
		[ $tries -lt 1000 ] || return 1
		sleep 0.01
	done
}

# restarts_during NAME PID COMMAND ARGUMENT ALL COUNT STEP
#
# Restarts smbd COUNT times while process PID works: at equal parts of what
# COMMAND ARGUMENT says, of which there is ALL at the end, and never before
# it has gone on by STEP since the last time. Then waits for the end of PID.
restarts_during() {
	name=$1
	pid=$2
	done=0
	before=
	after=
	gone_on=0
	failed_before=$failed
	start=$(date +%s)

	while [ $done -lt "$6" ]; do
		least=$(($5 * (done + 1) / ($6 + 1)))
		[ $least -ge $gone_on ] || least=$gone_on
		wait_progress "$pid" "$3" "$4" "$least" || break
		[ -n "$before" ] || before=$(local_ports "$pid")
		restart "$3" "$4" || {
			bad "$name: restart failed"
			break
		}
		done=$((done + 1))
		gone_on=$((stopped_at + $7))
		wait_progress "$pid" "$3" "$4" $gone_on || break
		ports=$(local_ports "$pid")
		# it may just have come to its end, and closed the connection
		[ -z "$ports" ] || after=$ports
	done
	wait "$pid"
	rc=$?
	echo "$name: $done restarts, the last after $stopped_at of $5," \
		"exit code $rc, local port ${before:-?}-> ${after:-?}(hex)," \
		"$(($(date +%s) - start)) s"

	[ $rc -eq 0 ] || bad "$name: exit code $rc"
	[ $done -eq "$6" ] || bad "$name: ended after $done restarts of $6"
	[ -n "$before" ] && [ "$before" = "$after" ] ||
		bad "$name: connection lost"
	[ $failed -eq $failed_before ] || show_log
}

# no_errors NAME FILE: with what smbclient has said in FILE.
no_errors() {
	if grep -q 'NT_STATUS_' "$2"; then
		bad "$1: smbclient says: $(grep -m 3 'NT_STATUS_' "$2")"
	fi
}

same() {
	if [ "$2" = "$3" ]; then
		echo "$1: checksums equal"
	else
		bad "$1: $2 became $3"
	fi
}

sum() {
	sha256sum "$1" | cut -d ' ' -f 1
}

smbclient() {
	# in the background: the process is the client itself
	exec "$DS_PREFIX/bin/smbclient" "//$address/durable" -p "$DS_PORT" \
		-U "$user%$password" -s "$dir/client.conf" -t $patience -c "$1"
}

# The same bytes each time
pseudo_random() {
	openssl enc -aes-128-ctr -nosalt -K 000102030405060708090a0b0c0d0e0f \
		-iv 00000000000000000000000000000000 -in /dev/zero \
		2>/dev/null | head -c "$1"
}

new_server() {
	ds_server_tmp dir || exit 1
	scratch="$dir/scratch"
	mkdir "$scratch"
	: >"$dir/client.conf"
	ds_server_conf "$dir" DSCLIENTS "$address" "${DS_MODULE:-on}" || exit 1
	ds_server_user "$dir" "$user" "$password" || exit 1
	ds_server_start "$dir" || exit 1
}

end_server() {
	ds_server_stop "$dir"
	rm -rf "$dir"
}

# One large file up and down again
large() {
	new_server
	# two copies at a time, and something left for others
	room=$(df --output=avail -m "$dir" | tail -n 1)
	while [ $((2 * size + 512)) -gt "$room" ] && [ "$size" -gt 64 ]; do
		size=$((size / 2))
	done
	echo "large file: $size MiB (of $room MiB that are free)"
	bytes=$((size * 1024 * 1024))

	pseudo_random $bytes >"$scratch/source"
	wanted_sum=$(sum "$scratch/source")

	smbclient "put $scratch/source large" >"$scratch/log" 2>&1 &
	restarts_during "put" $! file_size "$dir/durable/large" $bytes \
		"$restarts" 65536
	no_errors "put" "$scratch/log"
	same "put" "$wanted_sum" "$(sum "$dir/durable/large")"

	mv -f "$scratch/source" "$dir/durable/large"
	smbclient "get large $scratch/target" >"$scratch/log" 2>&1 &
	restarts_during "get" $! file_size "$scratch/target" $bytes \
		"$restarts" 65536
	no_errors "get" "$scratch/log"
	same "get" "$wanted_sum" "$(sum "$scratch/target")"
	end_server
}

tree_sum() {
	(cd "$1" && find . -type f -exec sha256sum {} + | sort | sha256sum)
}

# make_tree DIR COUNT: files of 0 to some thousand bytes
make_tree() {
	mkdir -p "$1"
	pseudo_random $(($2 * 2048)) |
		split -b 2048 -a 4 -d - "$1/file"
	: >"$1/file0000"
}

# Small files up and down again: so many that it does not come to its end while
# a busy machine restarts smbd
small() {
	new_server
	make_tree "$scratch/source" 6000
	mkdir "$dir/durable/many" "$scratch/target"
	chmod 777 "$dir/durable/many"

	smbclient "prompt off; lcd $scratch/source; cd many; mput *" \
		>"$scratch/log" 2>&1 &
	restarts_during "mput" $! file_count "$dir/durable/many" 6000 5 1
	no_errors "mput" "$scratch/log"
	same "mput" "$(tree_sum "$scratch/source")" \
		"$(tree_sum "$dir/durable/many")"

	smbclient "prompt off; lcd $scratch/target; cd many; mget *" \
		>"$scratch/log" 2>&1 &
	restarts_during "mget" $! file_count "$scratch/target" 6000 5 1
	no_errors "mget" "$scratch/log"
	same "mget" "$(tree_sum "$scratch/source")" \
		"$(tree_sum "$scratch/target")"
	end_server
}

# A program that uses libsmbclient: a tree up and down again
libsmbclient() {
	new_server
	lib="$DS_PREFIX/lib"
	${CC:-gcc} -Wall -Werror -D_FILE_OFFSET_BITS=64 \
		-I"$DS_PREFIX/include/samba-4.0" -o "$scratch/copy" \
		"$here/clients/libsmbclient_copy.c" -L"$lib" \
		-Wl,-rpath,"$lib:$lib/samba" -lsmbclient || {
		bad "libsmbclient: the program cannot be built"
		return
	}

	# files beside directories, and one that takes a while
	for name in a b c a/d a/d/e; do
		make_tree "$scratch/source/$name" 300
	done
	pseudo_random 67108864 >"$scratch/source/b/large"
	all=$(file_count "$scratch/source")

	libsmbclient_copy up "$scratch/source" >"$scratch/log" 2>&1 &
	restarts_during "libsmbclient up" $! file_count "$dir/durable/tree" \
		"$all" 5 1
	cat "$scratch/log"
	same "libsmbclient up" "$(tree_sum "$scratch/source")" \
		"$(tree_sum "$dir/durable/tree")"

	libsmbclient_copy down "$scratch/target" >"$scratch/log" 2>&1 &
	restarts_during "libsmbclient down" $! file_count "$scratch/target" \
		"$all" 5 1
	cat "$scratch/log"
	same "libsmbclient down" "$(tree_sum "$scratch/source")" \
		"$(tree_sum "$scratch/target")"
	end_server
}

libsmbclient_copy() {
	export USER="$user" PASSWORD="$password" HOME="$scratch"
	exec "$scratch/copy" "$1" "$dir/client.conf" "$DS_PORT" "$2" \
		"smb://$address/durable/tree"
}

# Samba's Python bindings know the standard port only
bindings() {
	_port=$DS_PORT
	DS_PORT=445
	new_server
	restart=". '$here/lib/server.sh' && ds_server_restart '$dir'"
	timeout $patience python3 "$here/clients/bindings.py" "$dir/client.conf" \
		"$address" durable "$user" "$password" "$restart" ||
		bad "Python bindings"
	end_server
	DS_PORT=$_port
}

for part in $wanted; do
	$part
done

if [ $failed -ne 0 ]; then
	echo "$failed failures"
	exit 1
fi
exit 0
