# --- processes and locks -------------------------------------------------------------------------

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
is_alive() { # BOOT PID START
    case $2 in '' | *[!0-9]*) return 1 ;; esac
    [ "$1" = "$boot" ] && read_process "$2" && [ "$process_start" = "$3" ]
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
#
#   models/NAME/lock          a build, for as long as it lasts
#   models/NAME/switch.lock   moments: a job is made, installed, activated, removed
#   store.lock                moments and prune: blobs are asked for or removed; taken before the others
read_lock() { # PATH: sets lock_*
    lock_record='' lock_found=''
    { { IFS= read -r lock_record; lock_found=yes; } <"$1"; } 2>/dev/null
    read -r lock_boot lock_pid lock_start lock_work lock_release lock_owner <<EOT
$lock_record
EOT
}
lock_is_held() { is_alive "$lock_boot" "$lock_pid" "$lock_start"; } # of the record read last
busy() { # says who has the lock that could not be taken, and for how long by the uptime
    read_uptime
    # A start time counts hundredths of a second since the boot, on every Linux.
    printf 'busy lock=%s pid=%s start=%s work=%s age=%s release=%s owner=%s\n' "${held##*/}" \
        "$lock_pid" "$lock_start" "$lock_work" "$((uptime - lock_start / 100))" "$lock_release" \
        "$lock_owner"
}
take_lock() { # PATH WORK OWNER; 1 if a living process has it, which lock_* then describe
    read_process "$$"
    held=$1 my_start=$process_start my_file=${own_lock:-${1%/*}/new.lock.$$} attempts=0
    # Written first and linked then, so that a lock is whole or not there. Who has one already links
    # that, which needs no more room on a full disk.
    [ "${own_lock-}" ] || { rm -f -- "$my_file" &&
        printf '%s\n' "$boot $$ $my_start $2 $release $3" >"$my_file"; } ||
        { forget_record; fail 12 "cannot write in ${1%/*}"; }
    until ln -T -- "$my_file" "$held" 2>/dev/null; do
        read_lock "$held"
        if lock_is_held; then forget_record; return 1; fi
        [ -z "$lock_found" ] || break_lock
        attempts=$((attempts + 1))
        [ "$attempts" -lt 100 ] || { forget_record; fail 12 "cannot make $held"; }
    done
    forget_record
    for leftover in "${1%/*}"/new.*; do
        read_process "${leftover##*.}" || rm -f -- "$leftover"
    done
}
forget_record() { [ "${own_lock-}" ] || rm -f -- "$my_file"; }
# Between reading a dead lock and removing it, others may have removed it and taken the lock. So
# whoever removes one first claims the right to, by a link named after its record: only one process
# can have that. It then looks again, for the record may be gone since; and a record never comes
# back. If the claimer dies, its claim is claimed in the same way.
break_lock() { # removes the dead record that read_lock read
    dead=$lock_record
    while :; do
        [ "$lock_boot" != "$boot" ] || kill_rest "$lock_pid" "$lock_start"
        claim=$(printf %s "$lock_record" | sha256sum)
        claim=$held.break.${claim%% *}
        ! ln -T -- "$my_file" "$claim" 2>/dev/null || break
        read_lock "$claim"
        # Somebody alive is at it, or has just been; or a link cannot be made here.
        if lock_is_held || [ -z "$lock_found" ]; then sleep 0.1; return; fi
    done
    read_lock "$held"
    if [ "$lock_found" ] && [ "$lock_record" = "$dead" ]; then rm -f -- "$held"; fi
    rm -f -- "$claim"
}
drop_lock() { # PATH
    read_lock "$1"
    [ "$lock_boot $lock_pid $lock_start" != "$boot $$ ${my_start-}" ] || rm -f -- "$1"
}
drop_locks() {
    for lock in "$root/store.lock" "$model/switch.lock" "$model/lock"; do drop_lock "$lock"; done
}
hold() { # PATH WORK: takes a lock of moments, after five seconds of waiting at most; else 1
    waits=50
    until take_lock "$1" "$2" "$(id -un) ($2)"; do
        [ "$waits" -gt 0 ] || return 1
        waits=$((waits - 1))
        sleep 0.1
    done
}
hold_or_exit() { # PATH WORK
    trap 'drop_locks; rm -f -- "${document-}"' EXIT
    hold "$1" "$2" || { busy; exit 20; }
}

op_break() { # NAME LOCK PID START: ends the process that was said to hold the lock
    is_name "$1" || fail 64 "expected a model name, found '$1'"
    need_count "$3"
    need_count "$4"
    model=$root/models/$1
    case $2 in
    lock | switch.lock) lock=$model/$2 ;;
    store.lock) lock=$root/$2 ;;
    *) fail 64 "there is no lock '$2'" ;;
    esac
    read_lock "$lock"
    if [ "$lock_pid $lock_start" != "$3 $4" ] || ! lock_is_held; then echo none; return; fi
    if [ "$2" = lock ] && is_hex "$lock_release" 16; then
        op_cancel "$1" "$lock_release"
    else
        kill -s KILL "$lock_pid" 2>/dev/null || fail 12 "cannot end process $lock_pid"
        echo cancelled
    fi
}

