#!/bin/sh
# What edgecal does on a target: sh AGENT ROOT OPERATION ARGUMENT...
#
# Needs a POSIX shell, GNU coreutils, setsid, find, grep and /proc. Values from outside travel as
# arguments and never become shell text. The parts of this script, in the order in which they are
# put together: base, lock, build, release, prune, main.
#
# 0 done   12 cannot write   13 stdin is not what was announced   20 busy   21 a blob is missing
# 22 `current` is not what was expected   23 the release is active   24 a file is missing or differs
# 25 the job has not succeeded   26 an application holds `not-now`   27 there is no such trial
# 64 wrong arguments
#
# `: step NAME` does nothing. It names the places at which tests cut the power.
set -u
umask 022 # applications of other users read the engines
newline='
'

fail() { printf 'edgecal: %s\n' "$2" >&2; exit "$1"; } # CODE MESSAGE

# --- arguments -----------------------------------------------------------------------------------

is_name() {
    case $1 in '' | . | .. | *[!A-Za-z0-9._-]*) return 1 ;; esac
    [ ${#1} -le 64 ]
}
is_hex() { # TEXT DIGITS
    case $1 in *[!0-9a-f]*) return 1 ;; esac
    [ ${#1} -eq "$2" ]
}
need_digest() { is_hex "$1" 64 || fail 64 "expected a sha256 digest, found '$1'"; }
need_count() { case $1 in '' | *[!0-9]* | 0?*) fail 64 "expected a number, found '$1'" ;; esac; }
need_line() { case $1 in '' | *"$newline"*) fail 64 "expected one line, found '$1'" ;; esac; }
need_file() { case $1 in '' | . | .. | */*) fail 64 "expected a file name, found '$1'" ;; esac; }
need_release() { # NAME RELEASE: sets model, release, job and ready
    is_name "$1" || fail 64 "expected a model name, found '$1'"
    is_hex "$2" 16 || fail 64 "expected a release of 16 hex digits, found '$2'"
    model=$root/models/$1 release=$2
    job=$model/jobs/$2 ready=$model/releases/$2
}
need_link() { # LINK=HEX: sets link and hex
    link=${1%=*} hex=${1##*=}
    need_digest "$hex"
    need_line "$link"
    case /$link/ in
    *//* | */./* | */../*) fail 64 "expected a path inside the job, found '$link'" ;;
    /argv/* | /owner/* | /log/* | /after/* | /status/* | /status.new/* | /build.json/* | \
        /build.log.gz/*)
        fail 64 "'$link' is edgecal's own file in a job" ;;
    esac
}

# --- files ---------------------------------------------------------------------------------------

bytes() { stat -Lc %s -- "$1" 2>/dev/null || echo 0; }
digest() { sum=$(sha256sum <"$1") || return; sum=${sum%% *}; } # PATH: sets sum
read_uptime() { read -r uptime _ </proc/uptime; uptime=${uptime%%.*}; } # seconds since the boot
read_current() { # sets current, empty if nothing is active
    current=$(readlink -- "$model/current") || current=
    current=${current#releases/}
}
# Documents are read before any lock is taken, for a connection can hang; and compared with their
# digest, for a cut connection looks like the end of stdin.
receive_document() { # DIGEST <document
    document=$model/new.document.$$
    trap 'rm -f -- "$document"' EXIT
    cat >"$document" || fail 12 "cannot write $document"
    { digest "$document" && [ "$sum" = "$1" ]; } || fail 13 "stdin arrived damaged or cut"
}
place_document() { # PATH
    { sync -- "$document" && mv -fT -- "$document" "$1" && sync -- "${1%/*}"; } ||
        fail 12 "cannot write $1"
}

