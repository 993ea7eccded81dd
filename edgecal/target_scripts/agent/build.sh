# --- jobs and their supervisor -------------------------------------------------------------------

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

# The words that follow the numbers are COUNT links, then the command before the build, then the
# one after it, then the build's own.
op_supervise() { # as op_start, which starts it: prints exit code and answer, then builds
    need_release "$1" "$2"
    owner=$3 seconds=$4 links=$5 before=$6 after=$7 cancelled='' command='' status=143
    shift 7
    trap 'cancelled=yes; [ -z "$command" ] || kill -s TERM "$command" 2>/dev/null' TERM
    { echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null # rather the build than the application
    : step make-model
    mkdir -p -- "$model/jobs" "$model/releases" || fail 12 "cannot make $model"
    [ -e "$model/not-now" ] || : >"$model/not-now" || fail 12 "cannot write $model/not-now"
    : step lock-build
    if ! take_lock "$model/lock" build "$owner"; then
        [ "$lock_work $lock_release" != "build $release" ] || { echo '0 running'; exit; }
        echo "20 $(busy)"
        exit
    fi
    trap drop_locks EXIT
    own_lock=$model/lock
    : step lock-job
    { hold "$root/store.lock" start && hold "$model/switch.lock" start; } ||
        { echo "20 $(busy)"; exit; }
    export EDGECAL_JOB="$$.$my_start"
    : step make-job
    make_job "$@"
    shift "$links"
    for hex in $hexes; do # `prune` may have been here since op_start looked
        [ -f "$root/blobs/sha256/$hex" ] || { echo "21 blob $hex is missing"; exit; }
    done
    drop_lock "$model/switch.lock"
    drop_lock "$root/store.lock"
    : step started
    echo '0 started'
    exec >>log 2>&1
    build "$@"
    kill_rest "$$" "$my_start" # nothing of the build is left beside what comes next
    trap : TERM # not '', which the application that is started again would inherit
    [ -z "$cancelled" ] || status=143
    : step after-build
    if [ "$after" -gt 0 ]; then run_after "$@"; fi
    trap '' TERM # a late one must not end `sync` or `mv`
    : step write-status
    # Overwrites, and so needs no room on a disk that the build may have filled.
    printf '%-4s\n' "$status" 1<>status.new
    sync status.new
    : step rename-status
    mv -fT status.new status
    sync .
    : step unlock-build
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
    shift $((links + before + after))
    { printf '%s\n' "$@" >argv && printf '%s\n' "$owner" >owner && echo 255 >status.new &&
        : >log; } || fail 12 "cannot write $job"
}
build() { # BEFORE... AFTER... ARGV...: sets status
    : step check-blobs
    check_blobs || return
    : step before-build
    if [ "$before" -gt 0 ]; then
        run 0 "$before" 120 "$@"
        if [ "$status" -ne 0 ]; then
            echo "edgecal: pre_build ended with status $status, so nothing was built"
            return
        fi
    fi
    : step build
    read_uptime
    began=$uptime
    run $((before + after)) $(($# - before - after)) "$seconds" "$@"
    read_uptime
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ] && [ "$seconds" -gt 0 ] &&
        [ $((uptime - began)) -ge "$seconds" ]; then
        status=124
        echo "edgecal: the build took longer than $seconds s and was ended"
    fi
}
run_after() { # BEFORE... AFTER... ARGV...: leaves status as it is
    result=$status cancelled=''
    unset EDGECAL_JOB # what it starts is the application, and lives on
    : >after # `cancel` waits for it
    run "$before" "$after" 120 "$@"
    [ "$status" -eq 0 ] || echo "edgecal: post_build ended with status $status"
    rm -f after
    status=$result
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
run() { # SKIP COUNT SECONDS WORD...: runs COUNT of the words as a command; sets status
    [ -z "$cancelled" ] || return
    count=$2 limit=$3
    shift $((3 + $1))
    position=0
    for word; do # the list was taken before the first round
        [ "$position" -gt 0 ] || set --
        position=$((position + 1))
        [ "$position" -gt "$count" ] || set -- "$@" "$word"
    done
    # A program, never a builtin or a function of this script. In the background, because a trap
    # waits for a command in the foreground.
    (exec timeout -k 10 "$limit" "$@") </dev/null &
    command=$!
    [ -z "$cancelled" ] || kill -s TERM "$command" 2>/dev/null
    while wait "$command"; status=$?; kill -0 "$command" 2>/dev/null; do
        : # only the wait ended, by a trap
    done
    command=
}

# --- operations of builds ------------------------------------------------------------------------

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
    say_trial
}
# NAME RELEASE OWNER SECONDS LINKS BEFORE AFTER LINK=HEX... BEFORE... AFTER... ARGV...
op_start() {
    need_release "$1" "$2"
    need_line "$3"
    for value in "$4" "$5" "$6" "$7"; do need_count "$value"; done
    last_link=$((7 + $5)) position=0
    [ $# -gt $((last_link + $6 + $7)) ] || fail 64 "expected $5 links, and commands"
    for value; do
        position=$((position + 1))
        if [ "$position" -gt 7 ] && [ "$position" -le "$last_link" ]; then
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
        await_job 20
        # What starts the application again gets its time.
        [ ! -e "$job/after" ] || await_job 1400
        [ "$job_state" != running ] || [ "$lock_pid $lock_start" != "$supervisor $start" ] ||
            kill -s KILL -- "-$supervisor"
    fi
    echo cancelled
}

