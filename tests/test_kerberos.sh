#!/bin/sh
# Clients that log in with Kerberos, while smbd is restarted.
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
# usage: test_kerberos.sh [upload|torture...]
#
#   DS_PREFIX    the installed tree (default: build/prefix)
#   DS_KERBEROS  last number of the address, 127.0.0.x, of the server and of
#                the KDC (default: 71)
#   DS_KDC_PORT  port of the KDC (default: 44488)
#
# A standalone server with a keytab and a KDC of its own, both in a directory
# that goes away: the machine's krb5.conf, KDC and tickets are not looked at.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
DS_PREFIX=$(cd "${DS_PREFIX:-$here/../build/prefix}" && pwd) || exit 1
export DS_PREFIX
. "$here/lib/server.sh"
export DS_PORT
PATH=$PATH:/usr/sbin:/sbin

# There is no Kerberos with an address, it takes a host name, and no name on
# a machine that is not ours to change leads to this address. In this form
# Samba takes it for a name, and the resolver for 127.0.0.x.
host=127.${DS_KERBEROS:-71}
address=127.0.0.${DS_KERBEROS:-71}
kdc_port=${DS_KDC_PORT:-44488}
realm=DURABLE.TEST
user=$(id -un)
password=ds-Secret1
wanted=${*:-upload torture}
kdc=
feeder=
upload=
failed=0

# Nothing here may take longer, in seconds
patience=120

bad() {
	printf 'FAILED: %s\n' "$*"
	failed=$((failed + 1))
	return 1
}

for program in krb5kdc kdb5_util kadmin.local kinit; do
	command -v $program >/dev/null && continue
	echo "no $program: packages krb5-kdc, krb5-admin-server, krb5-user"
	exit 77
done

end_process() {
	[ -n "$1" ] || return 0
	kill "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}

cleanup() {
	end_process "$upload"
	end_process "$feeder"
	end_process "$kdc"
	ds_server_cleanup
}

# until_true SECONDS COMMAND...
until_true() {
	deadline=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt $deadline ] || return 1
		sleep 0.05
	done
}

kadmin() {
	kadmin.local -r $realm "$@" >>"$dir/log/kadmin" 2>&1
}

# A ticket for the user in $KRB5CCNAME
ticket() {
	echo "$password" | kinit "$user@$realm" >"$dir/log/kinit" 2>&1
}

# Heimdal, which is in Samba, and MIT, which has the KDC, read the same file.
kdc_conf() {
	KRB5_CONFIG=$dir/krb5.conf
	KRB5_KDC_PROFILE=$dir/kdc.conf
	KRB5CCNAME=FILE:$dir/tickets
	export KRB5_CONFIG KRB5_KDC_PROFILE KRB5CCNAME
	# what else would lead elsewhere
	unset KRB5_KTNAME KRB5_CLIENT_KTNAME KRB5RCACHENAME KRB5RCACHETYPE

	cat >"$KRB5_CONFIG" <<-END
	[libdefaults]
		default_realm = $realm
		dns_lookup_realm = false
		dns_lookup_kdc = false
		dns_canonicalize_hostname = false
		rdns = false
	[realms]
		$realm = {
			kdc = $address:$kdc_port
		}
	[domain_realm]
		$host = $realm
	END
	cat >"$KRB5_KDC_PROFILE" <<-END
	[kdcdefaults]
		kdc_listen = $address:$kdc_port
		kdc_tcp_listen = $address:$kdc_port
	[realms]
		$realm = {
			database_name = $dir/kdc/principal
			key_stash_file = $dir/kdc/stash
			acl_file = $dir/kdc/acl
			supported_enctypes = aes256-cts-hmac-sha1-96:normal
			master_key_type = aes256-cts-hmac-sha1-96
			max_life = 1h
		}
	[logging]
		kdc = FILE:$dir/log/kdc
		admin_server = FILE:$dir/log/kadmin
	END
}

# Returns when the KDC gives tickets
kdc_start() {
	mkdir -m 700 "$dir/kdc" &&
		kdb5_util -r $realm create -s -P "$password" \
			>"$dir/log/kadmin" 2>&1 &&
		kadmin addprinc -pw "$password" "$user@$realm" &&
		kadmin addprinc -randkey "cifs/$host@$realm" &&
		kadmin ktadd -k "$dir/private/cifs.keytab" \
			"cifs/$host@$realm" || {
		cat "$dir/log/kadmin"
		return 1
	}
	krb5kdc -n -r $realm >"$dir/log/krb5kdc" 2>&1 &
	kdc=$!
	until_true 20 ticket || {
		echo "the KDC does not answer"
		cat "$dir/log/krb5kdc" "$dir/log/kdc" "$dir/log/kinit"
		return 1
	}
}

start() {
	ds_server_tmp dir || return 1
	trap cleanup EXIT
	ds_server_conf "$dir" DSKERBEROS "$address" "${DS_MODULE:-on}" ||
		return 1
	kdc_conf
	kdc_start || return 1
	ds_server_option "$dir" \
		"realm = $realm" \
		"kerberos method = dedicated keytab" \
		"dedicated keytab file = $dir/private/cifs.keytab" \
		"ntlm auth = disabled" &&
		ds_server_user "$dir" "$user" "$password" &&
		ds_server_start "$dir"
}

# check_status WHEN: the only connection, and sets $client to its address
check_status() {
	"$DS_PREFIX/bin/samba-tool" durable-state status \
		-s "$dir/smb.conf" --json >"$dir/status" ||
		bad "status $1: exit code $?"
	shown=$(python3 -c '
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    for c in json.load(f)["connections"]:
        print(c["client"], c["user"], c["protected"])
' "$dir/status")
	client=${shown%% *}
	[ "$shown" = "$client DSTEST\\$user full" ] ||
		bad "status $1: '$shown'"
}

has_size() {
	[ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -ge "$2" ]
}

# A file that is written while smbd restarts: smbclient has got the first part
# of it and the server has written some of that, then comes the restart, then
# the rest. smbclient reads as much as it may send, before it sends anything:
# the first part is larger than that.
upload() {
	first=67108864
	rest=8388608
	head -c $((first + rest)) /dev/urandom >"$dir/source"
	mkfifo "$dir/fifo"
	{
		head -c $first "$dir/source"
		until_true $patience test -e "$dir/restarted"
		tail -c $rest "$dir/source"
	} >"$dir/fifo" &
	feeder=$!
	# the ticket is that of kinit
	"$DS_PREFIX/bin/smbclient" "//$host/durable" -p "$DS_PORT" \
		-s "$dir/client.conf" -t $patience \
		--use-kerberos=required --use-krb5-ccache="$KRB5CCNAME" \
		-c "put - uploaded" <"$dir/fifo" >"$dir/log/upload" 2>&1 &
	upload=$!

	if ! until_true $patience has_size "$dir/durable/uploaded" 1048576; then
		bad "upload: did not start"
		cat "$dir/log/upload"
		return
	fi
	check_status before
	client_before=$client
	"$DS_PREFIX/bin/samba-tool" durable-state restart -s "$dir/smb.conf" ||
		bad "restart: exit code $?"
	check_status after
	[ "$client" = "$client_before" ] ||
		bad "upload: the connection is another one: $client"
	: >"$dir/restarted"

	wait $upload || bad "upload: smbclient: exit code $?"
	upload=
	wait $feeder
	feeder=
	if grep NT_STATUS "$dir/log/upload"; then
		bad "upload: smbclient says so"
	fi
	cmp "$dir/source" "$dir/durable/uploaded" || bad "upload: not the same"
	[ $failed -ne 0 ] || echo "upload: ok"
}

# torture_run NAME TESTS OPTION...
torture_run() {
	name=$1
	tests=
	planned=0
	for test in $2; do
		tests="$tests smb2.durable-state.$test"
		planned=$((planned + 1))
	done
	shift 2
	log="$dir/log/$name"
	restart="'$DS_PREFIX/bin/samba-tool' durable-state restart"

	# shellcheck disable=SC2086
	timeout --foreground 200 "$DS_PREFIX/bin/smbtorture" \
		"//$host/durable" -p "$DS_PORT" -s "$dir/client.conf" \
		-U "$user@$realm%$password" --use-kerberos=required \
		--option="torture:restart_command=$restart -s '$dir/smb.conf'" \
		"$@" $tests >"$log" 2>&1
	rc=$?
	ok=$(grep -c '^success: ' "$log")
	echo "$name: $ok of $planned ok"
	# a test that was skipped has not tested Kerberos
	[ $rc -eq 0 ] && [ "$ok" -eq $planned ] || {
		bad "$name: smbtorture: exit code $rc"
		grep -v '^\(time\|progress\): ' "$log"
	}
}

# session-expiry is the last one: it leaves a ticket behind that ends soon.
torture() {
	torture_run signed "session session-signing session-encryption \
		session-reauth lease-v2-rwh lock-exclusive wait-lock \
		channel-bind session-expiry" \
		--option="client signing=required"
	# with Kerberos the session key has 32 bytes, all of them count here
	torture_run encrypted "session session-reauth channel-bind" \
		--client-protection=encrypt \
		--option="client smb3 encryption algorithms=AES-256-GCM"
}

start || exit 1
: >"$dir/client.conf"
for part in $wanted; do
	$part
done
if [ $failed -ne 0 ]; then
	echo "the server's log, the end of it:"
	tail -n 40 "$dir/log/log.smbd"
	exit 1
fi
exit 0
