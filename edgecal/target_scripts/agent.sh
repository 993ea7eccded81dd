#!/bin/sh
# What edgecal does on a target: sh AGENT ROOT OPERATION ARGUMENT...
#
# Needs a POSIX shell, GNU coreutils, setsid, find, grep and /proc. Values from outside travel as
# arguments and never become shell text.
#
# 0 done   12 cannot write   13 stdin is not what was announced   20 busy   21 a blob is missing
# 22 `current` is not what was expected   23 the release is active   24 a file is missing or differs
# 25 the job has not succeeded   64 wrong arguments
set -u
umask 022 # applications of other users read the engines
newline='
'

fail() { printf 'edgecal: %s\n' "$2" >&2; exit "$1"; } # CODE MESSAGE
busy() { printf 'busy owner=%s release=%s\n' "$lock_owner" "$lock_release"; }

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
    /argv/* | /owner/* | /log/* | /status/* | /status.new/* | /build.json/* | /build.log.gz/*)
        fail 64 "'$link' is edgecal's own file in a job" ;;
    esac
}

# --- files ---------------------------------------------------------------------------------------

bytes() { stat -Lc %s -- "$1" 2>/dev/null || echo 0; }
digest() { sum=$(sha256sum <"$1") || return; sum=${sum%% *}; } # PATH: sets sum
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

# --- processes and the lock ----------------------------------------------------------------------

read_process() { # PID: sets process_session and process_start; 1 if it is gone or a zombie
    stat=
    # The name, in the second field, may hold blanks, parentheses and line ends.
    { while IFS= read -r line || [ "$line" ]; do stat=$line; done <"/proc/$1/stat"; } 2>/dev/null
    case $stat in *') '*) ;; *) return 1 ;; esac
    # shellcheck disable=SC2086 # fields, meant to be split
    set -- ${stat##*) }
    process_session=$4 process_start=${20}
    case $1 in Z | X) return 1 ;; esac
}
kill_rest() { # PID START of a supervisor: kills what it started, not itself
    # The mark tells its session from a later one that was given the same number.
    for entry in /proc/[0-9]*; do
        process=${entry#/proc/}
        [ "$process" != "$1" ] && read_process "$process" && [ "$process_session" = "$1" ] &&
            tr '\0' '\n' <"$entry/environ" 2>/dev/null | grep -qxF "EDGECAL_JOB=$1.$2" &&
            kill -s KILL "$process" 2>/dev/null
    done
}
# A lock is one line: boot id, pid, start time of the process, what it does, release, owner. Boot id
# and start time tell its holder from a later process with that pid. Clocks are not asked: a Jetson
# without a battery wakes up in the past.
read_lock() { # PATH: sets lock_*
    lock_record='' lock_found=''
    { { IFS= read -r lock_record; lock_found=yes; } <"$1"; } 2>/dev/null
    read -r lock_boot lock_pid lock_start lock_work lock_release lock_owner <<EOT
$lock_record
EOT
}
lock_is_held() { # whether the process of the record read last lives
    case $lock_pid in '' | *[!0-9]*) return 1 ;; esac
    [ "$lock_boot" = "$boot" ] && read_process "$lock_pid" && [ "$process_start" = "$lock_start" ]
}
take_lock() { # WORK OWNER; 1 if a living process has it, which lock_* then describe
    read_process "$$"
    my_start=$process_start my_file=$model/new.lock.$$ attempts=0
    my_record="$boot $$ $my_start $1 $release $2"
    # Written first and linked then, so that a lock is whole or not there.
    { rm -f -- "$my_file" && printf '%s\n' "$my_record" >"$my_file"; } ||
        { rm -f -- "$my_file"; fail 12 "cannot write in $model"; }
    until ln -T -- "$my_file" "$model/lock" 2>/dev/null; do
        read_lock "$model/lock"
        if lock_is_held; then rm -f -- "$my_file"; return 1; fi
        [ -z "$lock_found" ] || break_lock
        attempts=$((attempts + 1))
        [ "$attempts" -lt 100 ] || { rm -f -- "$my_file"; fail 12 "cannot make $model/lock"; }
    done
    rm -f -- "$my_file"
    for leftover in "$model"/new.*; do
        read_process "${leftover##*.}" || rm -f -- "$leftover"
    done
}
# Between reading a dead lock and removing it, others may have removed it and taken the lock. So
# whoever removes one first claims the right to, by a link named after its record: only one process
# can have that. It then looks again, for the record may be gone since; and a record never comes
# back. If the claimer dies, its claim is claimed in the same way.
break_lock() { # removes the dead record that read_lock read
    dead=$lock_record
    while :; do
        [ "$lock_boot" != "$boot" ] || kill_rest "$lock_pid" "$lock_start"
        claim=$(printf %s "$lock_record" | sha256sum)
        claim=$model/lock.break.${claim%% *}
        ! ln -T -- "$my_file" "$claim" 2>/dev/null || break
        read_lock "$claim"
        # Somebody alive is at it, or has just been; or a link cannot be made here.
        if lock_is_held || [ -z "$lock_found" ]; then sleep 0.1; return; fi
    done
    read_lock "$model/lock"
    if [ "$lock_found" ] && [ "$lock_record" = "$dead" ]; then rm -f -- "$model/lock"; fi
    rm -f -- "$claim"
}
drop_lock() {
    read_lock "$model/lock"
    [ "$lock_record" != "$my_record" ] || rm -f -- "$model/lock"
}
lock_or_exit() { # WORK
    take_lock "$1" "$(id -un) ($1)" || { busy; exit 20; }
    trap 'drop_lock; rm -f -- "${document-}"' EXIT
}
read_job() { # sets job_state and job_status
    # The lock comes first: a supervisor writes the status before it lets go of it.
    read_lock "$model/lock"
    job_state=none job_status=-
    if lock_is_held && [ "$lock_work $lock_release" = "build $release" ]; then
        job_state=running
    elif [ -d "$job" ]; then
        { read -r job_status <"$job/status"; } 2>/dev/null
        job_state='done'
        # No status: reboot, power loss, kill -9.
        case $job_status in '' | *[!0-9]*) job_state=lost job_status=- ;; esac
    fi
}
await_job() { # TENTHS of a second; 1 if it runs on
    tenths=$1
    while read_job && [ "$job_state" = running ]; do
        [ "$tenths" -gt 0 ] || return 1
        tenths=$((tenths - 1))
        sleep 0.1
    done
}

# --- the supervisor of a build -------------------------------------------------------------------

op_supervise() { # as op_start, which starts it: prints exit code and answer, then builds
    need_release "$1" "$2"
    owner=$3 links=$4 cancelled='' command='' status=143
    shift 4
    trap 'cancelled=yes; [ -z "$command" ] || kill -s TERM "$command" 2>/dev/null' TERM
    { echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null # rather the build than the application
    mkdir -p -- "$model/jobs" "$model/releases" || fail 12 "cannot make $model"
    if ! take_lock build "$owner"; then
        [ "$lock_work $lock_release" != "build $release" ] || { echo '0 running'; exit; }
        echo "20 $(busy)"
        exit
    fi
    trap drop_lock EXIT
    export EDGECAL_JOB="$$.$my_start"
    make_job "$@"
    shift "$links"
    echo '0 started'
    exec >>log 2>&1
    check_blobs && run "$@"
    trap '' TERM # a late one must not end `sync` or `mv`
    [ -z "$cancelled" ] || status=143
    # Overwrites, and so needs no room on a disk that the build may have filled.
    printf '%-4s\n' "$status" 1<>status.new
    sync status.new
    mv -fT status.new status
    sync .
}
make_job() { # LINK=HEX... ARGV...: makes the job's directory and goes there; sets hexes
    { rm -rf -- "$job" && mkdir -- "$job" && cd -- "$job"; } || fail 12 "cannot make $job"
    hexes='' todo=$links
    for value; do
        [ "$todo" -gt 0 ] || break
        todo=$((todo - 1))
        need_link "$value"
        hexes="$hexes $hex"
        # Relative, and the same seen from jobs/RELEASE and from releases/RELEASE.
        target=../../../../blobs/sha256/$hex rest=$link
        while [ "${rest#*/}" != "$rest" ]; do target=../$target rest=${rest#*/}; done
        [ "$rest" = "$link" ] || mkdir -p -- "${link%/*}" || fail 12 "cannot make $link"
        ln -s -- "$target" "$link" || fail 12 "cannot make $link"
    done
    shift "$links"
    { printf '%s\n' "$@" >argv && printf '%s\n' "$owner" >owner && echo 255 >status.new &&
        : >log; } || fail 12 "cannot write $job"
}
check_blobs() { # sets status if one is damaged
    for hex in $hexes; do
        digest "$root/blobs/sha256/$hex"
        code=$?
        [ -z "$cancelled" ] || return
        [ "$code" -ne 0 ] || [ "$sum" != "$hex" ] || continue
        status=21
        # 1 is a file that cannot be read to its end; more is sha256sum itself having been killed.
        [ "$code" -gt 1 ] || rm -f -- "$root/blobs/sha256/$hex"
        echo "edgecal: blob $hex is damaged on this target; push again"
        return 1
    done
}
run() { # ARGV...: sets status
    [ -z "$cancelled" ] || return
    # exec, so that the word is a program, never a builtin or a function of this script. In the
    # background, because a trap waits for a command in the foreground.
    (exec "$@") </dev/null &
    command=$!
    [ -z "$cancelled" ] || kill -s TERM "$command" 2>/dev/null
    while wait "$command"; status=$?; kill -0 "$command" 2>/dev/null; do
        : # only the wait ended, by a trap
    done
}

# --- operations ----------------------------------------------------------------------------------

op_have() { # HEX...
    for hex; do
        need_digest "$hex"
        blob=$root/blobs/sha256/$hex
        if [ -f "$blob" ]; then echo "full $hex"
        elif [ -f "$blob.part" ]; then echo "part $hex $(bytes "$blob.part")"
        else echo "none $hex"; fi
    done
}
op_state() { # NAME RELEASE
    need_release "$1" "$2"
    read_current
    read_job
    if lock_is_held; then lock=held; else lock=free lock_owner='' lock_pid=''; fi
    echo "current=$current"
    if [ -f "$ready/build.json" ]; then echo release=ready; else echo release=absent; fi
    echo "job=$job_state"
    [ "$job_state" != 'done' ] || echo "status=$job_status"
    printf 'log_bytes=%s\nlock=%s\n' "$(bytes "$job/log")" "$lock"
    printf 'lock_owner=%s\nlock_pid=%s\n' "$lock_owner" "$lock_pid"
}
op_start() { # NAME RELEASE OWNER COUNT LINK=HEX... ARGV...
    need_release "$1" "$2"
    need_line "$3"
    need_count "$4"
    last_link=$((4 + $4)) position=0
    [ $# -gt "$last_link" ] || fail 64 "expected $4 links and a command"
    for value; do
        position=$((position + 1))
        if [ "$position" -gt 4 ] && [ "$position" -le "$last_link" ]; then
            need_link "$value"
            [ -f "$root/blobs/sha256/$hex" ] || fail 21 "blob $hex ($link) is missing"
        fi
    done
    # The answer comes through a pipe that the supervisor closes once it has begun. Nothing that it
    # keeps open is the caller's, so the ssh channel can close.
    answer=$(setsid nice -n 10 sh "$0" "$root" supervise "$@" </dev/null &)
    [ "$answer" ] || fail 12 "the build could not be started"
    printf '%s\n' "${answer#* }"
    exit "${answer%% *}"
}
op_wait() { # NAME RELEASE OFFSET SECONDS
    need_release "$1" "$2"
    need_count "$3"
    need_count "$4"
    [ "$4" -le 30 ] || fail 64 "expected at most 30 seconds, found $4"
    await_job $(($4 * 10))
    total=$(bytes "$job/log")
    given=$((total - $3))
    [ "$given" -le 1048576 ] || given=1048576
    [ "$given" -le 0 ] || total=$(($3 + given))
    echo "job=$job_state status=$job_status log_bytes=$total"
    [ "$given" -le 0 ] || dd if="$job/log" bs=64k skip="$3" count="$given" \
        iflag=skip_bytes,count_bytes status=none
}
op_cancel() { # NAME RELEASE
    need_release "$1" "$2"
    read_job
    if [ "$job_state" != running ]; then
        # What a killed supervisor left behind would otherwise run on beside the next build.
        [ "$lock_work $lock_release $lock_boot" != "build $release $boot" ] ||
            kill_rest "$lock_pid" "$lock_start"
        echo none
        return
    fi
    supervisor=$lock_pid start=$lock_start
    kill -s TERM -- "-$supervisor" 2>/dev/null
    if ! await_job 50; then
        kill_rest "$supervisor" "$start" # not the supervisor, which still has to write the status
        await_job 20 || [ "$lock_pid $lock_start" != "$supervisor $start" ] ||
            kill -s KILL -- "-$supervisor"
    fi
    echo cancelled
}
op_install() { # NAME RELEASE DIGEST <build.json
    need_release "$1" "$2"
    need_digest "$3"
    [ -d "$job" ] || fail 25 "there is no job $release"
    receive_document "$3"
    lock_or_exit install
    read_job
    [ "$job_state $job_status" = 'done 0' ] || fail 25 "job $job_state, status $job_status"
    read_current
    [ "$current" != "$release" ] || fail 23 "release $release is active"
    place_document "$job/build.json"
    if command -v gzip >/dev/null && [ -f "$job/log" ]; then
        gzip -c -- "$job/log" >"$job/build.log.gz" || fail 12 "cannot write $job/build.log.gz"
    fi
    find "$job" ! -type l -exec sync -- {} + || fail 12 "cannot sync $job"
    rm -rf -- "$ready.old"
    [ ! -e "$ready" ] || mv -T -- "$ready" "$ready.old" || fail 12 "cannot move $ready"
    mv -T -- "$job" "$ready" || { mv -T -- "$ready.old" "$ready"; fail 12 "cannot move $job"; }
    sync -- "$model/releases" "$model/jobs" "$model" "$root/models" "$root"
    # Not earlier: an interrupted installation must find them when it is repeated.
    rm -f -- "$ready/status" "$ready/argv" "$ready/owner"
    [ ! -f "$ready/build.log.gz" ] || rm -f -- "$ready/log"
    rm -rf -- "$ready.old"
}
op_activate() { # NAME RELEASE EXPECTED ENGINE DIGEST RECORD
    need_release "$1" "$2"
    [ -z "$3" ] || is_hex "$3" 16 || fail 64 "expected a release or nothing, found '$3'"
    need_file "$4"
    need_digest "$5"
    need_line "$6"
    [ -d "$ready" ] || fail 24 "there is no $ready"
    lock_or_exit activate
    read_current
    [ "$current" = "$3" ] || { echo "current=$current"; exit 22; }
    [ -L "$model/current" ] || [ ! -e "$model/current" ] || fail 12 "$model/current is no link"
    [ -f "$ready/build.json" ] || fail 24 "there is no $ready/build.json"
    { digest "$ready/$4" && [ "$sum" = "$5" ]; } || fail 24 "$ready/$4 is not what was built"
    # After a power loss the last line may be half a line: then a new one is begun.
    begin=
    [ ! -s "$model/activations" ] ||
        [ "$(tail -c 1 -- "$model/activations" | wc -l)" -eq 1 ] || begin=$newline
    printf '%s%s %s\n' "$begin" "$(date +%s)" "$6" >>"$model/activations" ||
        fail 12 "cannot write $model/activations"
    { sync -- "$model/activations" && rm -f -- "$model/current.new" &&
        ln -s -- "releases/$release" "$model/current.new" && sync -- "$model" &&
        mv -fT -- "$model/current.new" "$model/current" && sync -- "$model"; } ||
        fail 12 "cannot activate $release"
    echo "active $release"
}
op_models() {
    for model in "$root"/models/*/ "$root"/models/.*/; do
        model=${model%/}
        is_name "${model##*/}" || continue
        read_current
        printf 'model=%s\ncurrent=%s\n' "${model##*/}" "$current"
        for path in "$model"/releases/*/build.json; do
            release=${path%/*} release=${release##*/}
            if is_hex "$release" 16 && [ -f "$path" ]; then echo "release=$release"; fi
        done
        # shellcheck disable=SC1003 # `$a\` ends a last line that lacks its end
        sed -e 's/^/activation=/' -e '$a\' "$model/activations" 2>/dev/null
        for job in "$model"/jobs/*/; do
            job=${job%/} release=${job##*/}
            ! is_hex "$release" 16 || { read_job && echo "job=$release $job_state"; }
        done
    done
}

# --- main ----------------------------------------------------------------------------------------

[ $# -ge 2 ] || fail 64 "expected ROOT OPERATION ARGUMENT..., found $# arguments"
root=$1 operation=$2
case $root in /*) ;; *) fail 64 "expected an absolute root, found '$root'" ;; esac
shift 2
case $operation in
models) expected=0 ;;
have) expected=$# ;;
state | cancel) expected=2 ;;
install) expected=3 ;;
wait) expected=4 ;;
activate) expected=6 ;;
start | supervise) expected=$(($# < 5 ? 5 : $#)) ;;
*) fail 64 "there is no operation '$operation'" ;;
esac
[ $# -eq "$expected" ] || fail 64 "$operation takes $expected arguments, found $#"
read -r boot </proc/sys/kernel/random/boot_id || fail 12 "cannot read the boot id"
"op_$operation" "$@"
