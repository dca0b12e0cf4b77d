# Servers for tests: a directory each, everything of a server inside it.
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
# To be sourced by a POSIX shell. Uses
#   DS_PREFIX  the installed tree, with bin/ and sbin/
#   DS_PORT    TCP port of all servers (they differ in their addresses)
#
#   . "$(dirname "$0")/lib/server.sh"
#   ds_server_tmp dir                 # sets $dir to a new directory
#   ds_server_conf "$dir" NAME 127.0.0.9 [on|off]
#   ds_server_start "$dir"
#   ds_server_user "$dir" root secret
#   ... //127.0.0.9/durable, //127.0.0.9/plain, port $DS_PORT ...
#   ds_server_stop "$dir"
#
# Whatever was made with ds_server_tmp is stopped and removed at exit.

DS_PORT=${DS_PORT:-44450}
DS_SERVER_DIRS=

# ds_server_tmp VARIABLE: a directory that goes away at exit.
ds_server_tmp() {
	_ds_tmp=$(mktemp -d "${TMPDIR:-/tmp}/durable_state.XXXXXX") || return 1
	DS_SERVER_DIRS="$DS_SERVER_DIRS $_ds_tmp"
	trap ds_server_cleanup EXIT
	trap 'exit 1' HUP INT TERM
	eval "$1=\$_ds_tmp"
}

# ds_server_conf DIR NAME ADDRESS [on|off]: writes DIR/smb.conf.
#
# Three shares on directories of their own: "durable" gives durable handles,
# "plain" has the defaults, "apple" has vfs_fruit. "on" puts durable_state on
# all.
ds_server_conf() {
	_ds_dir=$1
	_ds_objects=streams_xattr
	if [ "${4:-off}" = on ]; then
		_ds_objects="streams_xattr durable_state"
	fi

	for _ds_d in lock state cache pid private ncalrpc log durable plain apple; do
		mkdir -p "$_ds_dir/$_ds_d" || return 1
	done
	chmod 700 "$_ds_dir/private"
	chmod 777 "$_ds_dir/durable" "$_ds_dir/plain" "$_ds_dir/apple"
	# a guest must be able to walk to the shares
	chmod 755 "$_ds_dir"

	cat >"$_ds_dir/smb.conf" <<-END
	[global]
		netbios name = $2
		workgroup = DSTEST
		server role = standalone server
		interfaces = $3/8
		bind interfaces only = yes
		smb ports = $DS_PORT
		disable netbios = yes
		server min protocol = SMB2_02
		map to guest = Bad User
		passdb backend = tdbsam
		lock directory = $_ds_dir/lock
		state directory = $_ds_dir/state
		cache directory = $_ds_dir/cache
		pid directory = $_ds_dir/pid
		private dir = $_ds_dir/private
		ncalrpc dir = $_ds_dir/ncalrpc
		log file = $_ds_dir/log/log.smbd
		max log size = 0
		load printers = no
		printcap name = /dev/null
		vfs objects = $_ds_objects
		read only = no
		guest ok = yes

	[durable]
		path = $_ds_dir/durable
		kernel oplocks = no
		kernel share modes = no
		posix locking = no

	[plain]
		path = $_ds_dir/plain

	[apple]
		path = $_ds_dir/apple
		vfs objects = fruit $_ds_objects
	END
	echo "$3" >"$_ds_dir/address"
}

# ds_server_option DIR LINE...: more lines for [global].
ds_server_option() {
	_ds_dir=$1
	shift
	for _ds_line; do
		sed -i "s|^\[global\]$|&\\n\\t$_ds_line|" "$_ds_dir/smb.conf" ||
			return 1
	done
}

# ds_server_user DIR USER PASSWORD: USER must be known to the system.
ds_server_user() {
	printf '%s\n%s\n' "$3" "$3" |
		"$DS_PREFIX/bin/smbpasswd" -c "$1/smb.conf" -s -a "$2" \
			>/dev/null
}

# True when the server takes connections.
ds_server_ready() {
	"$DS_PREFIX/bin/smbclient" "//$(cat "$1/address")/IPC\$" \
		-s "$1/smb.conf" -p "$DS_PORT" -N -c exit >/dev/null 2>&1
}

# ds_server_start DIR: returns when the server takes connections.
ds_server_start() {
	"$DS_PREFIX/sbin/smbd" -D -s "$1/smb.conf" || return 1
	_ds_i=0
	until ds_server_ready "$1"; do
		_ds_i=$((_ds_i + 1))
		if [ $_ds_i -gt 100 ]; then
			echo "smbd does not answer, see $1/log" >&2
			return 1
		fi
		sleep 0.1
	done
}

# ds_pid_alive PID: a zombie is not. It may take init a second to collect one.
ds_pid_alive() {
	case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
	'' | Z*) return 1 ;;
	esac
}

# A zombie has ended, its parent just has not looked yet.
ds_pid_alive() {
	kill -0 "$1" 2>/dev/null &&
		! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# ds_pid_stop FILE: ends the process whose pid is in FILE, and waits for it.
ds_pid_stop() {
	[ -s "$1" ] || return 0
	_ds_pid=$(tr -cd 0-9 <"$1")
	[ -n "$_ds_pid" ] || return 0
	kill -TERM "$_ds_pid" 2>/dev/null || return 0
	_ds_i=0
	while ds_pid_alive "$_ds_pid"; do
		_ds_i=$((_ds_i + 1))
		if [ $_ds_i -eq 500 ]; then
			kill -KILL "$_ds_pid" 2>/dev/null
		elif [ $_ds_i -gt 600 ]; then
			return 1
		fi
		sleep 0.02
	done
}

# ds_server_restart DIR: as "systemctl restart smbd" does it, the processes
# that smbd has started stay.
ds_server_restart() {
	ds_pid_stop "$1/pid/smbd.pid" && ds_server_start "$1"
}

# ds_server_stop DIR: with everything that the server has started.
ds_server_stop() {
	ds_pid_stop "$1/pid/smbd.pid"
	ds_pid_stop "$1/pid/samba-dcerpcd.pid"
	ds_pid_stop "$1/lock/durable_state/keeper.pid"
}

ds_server_cleanup() {
	for _ds_dir in $DS_SERVER_DIRS; do
		ds_server_stop "$_ds_dir"
		rm -rf "$_ds_dir"
	done
	DS_SERVER_DIRS=
}
