#!/bin/sh
# Stores one file by its digest: sh -c "$RECEIVE" edgecal ROOT HEX OFFSET SIZE <bytes from OFFSET
#
# 0 stored   10 the digest differs, part removed   11 the part has another size than OFFSET
# 12 cannot write   13 stdin ended before SIZE, part kept   64 wrong arguments
# With 11 and 13 stdout says `part=BYTES`: where to go on.
set -u
umask 022 # applications of other users read what is stored here

refuse() { printf 'edgecal: expected %s\n' "$1" >&2; exit 64; }
bytes() { stat -c %s -- "$1" 2>/dev/null || echo 0; }
stored() { [ -f "$blob" ] && [ "$(bytes "$blob")" -eq "$size" ]; }
# Whatever went wrong here does not matter where another receiver of the same file was faster.
resume() { stored && exit 0; echo "part=$(bytes "$part")"; exit "$1"; }
fail() { stored && exit 0; printf 'edgecal: %s\n' "$2" >&2; exit "$1"; }

[ $# -eq 4 ] || refuse "ROOT HEX OFFSET SIZE, found $# arguments"
case $1 in /*) ;; *) refuse "an absolute root, found '$1'" ;; esac
case $2 in *[!0-9a-f]*) refuse "a sha256 digest, found '$2'" ;; esac
case $3 in '' | *[!0-9]*) refuse "an offset, found '$3'" ;; esac
case $4 in '' | *[!0-9]*) refuse "a size, found '$4'" ;; esac
[ ${#2} -eq 64 ] || refuse "a sha256 digest, found '$2'"
store=$1/blobs/sha256 offset=$3 size=$4
blob=$store/$2 part=$store/$2.part

stored && exit 0
mkdir -p -- "$store" || fail 12 "cannot make $store"

# A receiver whose connection hangs may live for hours and wake up beside a newer one. So each writes
# at its own position, never "at the end": both put the same bytes in the same place. Whoever begins
# anew takes a new file: cutting the old one short would leave a hole under the other's next write.
[ "$offset" -ne 0 ] || rm -f -- "$part" || fail 12 "cannot begin $part anew"
[ "$(bytes "$part")" -eq "$offset" ] || resume 11
dd of="$part" bs=64k seek="$offset" oflag=seek_bytes conv=notrunc,fsync status=none ||
    fail 12 "cannot write $part"
[ "$(bytes "$part")" -ge "$size" ] || resume 13

# Renamed is what was read, and not what somebody who began anew has put there since.
read_file=$(stat -c %i:%s -- "$part")
sum=$(sha256sum <"$part") || fail 12 "cannot read $part"
[ "${sum%% *}" = "$2" ] || { rm -f -- "$part"; fail 10 "$2 arrived damaged: ${sum%% *}"; }
[ "$(stat -c %i:%s -- "$part")" = "$read_file" ] || resume 13
{ chmod 0444 -- "$part" && mv -fT -- "$part" "$blob"; } || fail 12 "cannot store $blob"
sync -- "$store" "$1/blobs" "$1" || { echo "edgecal: cannot sync $store" >&2; exit 12; }
