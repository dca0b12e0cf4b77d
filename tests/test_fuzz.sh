#!/bin/sh
# Fuzz what is parsed: images, their records, what restores a client, the
# keeper's socket, the state it leaves to its successor, and what it answers.
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
# usage: test_fuzz.sh [TARGET...]
#
#   FUZZ_SECONDS  for each target, after its corpus (default: 8). All night
#                 for one: FUZZ_SECONDS=28800 tests/test_fuzz.sh fuzz_keeper
#   FUZZ_SEED     0 is another one each time (default: 1)
#   FUZZ_CORPUS   a directory in which targets find and leave inputs beyond
#                 tests/fuzz/corpus (default: build/fuzz/corpus is made anew)
#
# The input that made a target fail stays in build/fuzz/failed: give it to
# build/fuzz/TARGET. When that is mended it belongs into the corpus.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
top=$(cd "$here/.." && pwd) || exit 1
out=$top/build/fuzz
corpus=${FUZZ_CORPUS:-$out/corpus}
seconds=${FUZZ_SECONDS:-8}

[ $# != 0 ] || set -- fuzz_image fuzz_image_writer fuzz_records fuzz_restore \
	fuzz_keeper fuzz_handover fuzz_keeper_client
"$here/fuzz/build" make_restore_seeds "$@" || exit 1
mkdir -p "$out/failed"
[ -n "${FUZZ_CORPUS:-}" ] || rm -rf "$corpus"

# Some inputs are of the version that was compiled
mkdir -p "$corpus/fuzz_records" "$corpus/fuzz_restore"
"$out/make_restore_seeds" "$corpus" || exit 1

failed=0
for target; do
	seeds=$here/fuzz/corpus/$target
	log=$out/$target.log
	mkdir -p "$corpus/$target"
	dict=
	case $target in
	fuzz_keeper* | fuzz_handover) dict=-dict=$here/fuzz/keeper.dict ;;
	esac

	# First each file of the corpus. A target that hangs ends by itself, and
	# is killed from outside only if it does not hear libFuzzer.
	# shellcheck disable=SC2086
	timeout -k 5 $((seconds + 120)) "$out/$target" \
		-timeout=20 -rss_limit_mb=2048 \
		-seed="${FUZZ_SEED:-1}" -max_total_time="$seconds" \
		-max_len=8192 -print_final_stats=1 $dict \
		-artifact_prefix="$out/failed/$target-" \
		"$corpus/$target" "$seeds" >"$log" 2>&1
	rc=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	cover=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	echo "$target: exit code $rc, ${runs:-no} runs, ${cover:-no} edges"
	if [ $rc -ne 0 ]; then
		grep -v '	\(NEW\|REDUCE\|pulse\|RELOAD\) ' "$log" | head -n 60
		failed=1
	fi
done
exit $failed
