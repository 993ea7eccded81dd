# --- releases ------------------------------------------------------------------------------------

append_record() { # LINE of JSON
    # After a power loss the last line may be half a line: then a new one is begun.
    begin=
    [ ! -s "$model/activations" ] ||
        [ "$(tail -c 1 -- "$model/activations" | wc -l)" -eq 1 ] || begin=$newline
    : step append-record
    printf '%s%s %s\n' "$begin" "$(date +%s)" "$1" >>"$model/activations" &&
        sync -- "$model/activations"
}
point_to() { # RELEASE
    : step link-current
    rm -f -- "$model/current.new" && ln -s -- "releases/$1" "$model/current.new" &&
        sync -- "$model" || return
    : step rename-current
    mv -fT -- "$model/current.new" "$model/current" && sync -- "$model"
}
# An application that must not be disturbed holds a flock on models/NAME/not-now, shared or
# exclusive; the kernel lets go of it when the application ends, however that comes.
ask_application() { # holds it in turn, until this process ends
    [ -e "$model/not-now" ] || return 0
    command -v flock >/dev/null || fail 26 "flock is not there to ask whether now is a good time"
    exec 9<"$model/not-now"
    flock -n 9 || fail 26 "an application holds $model/not-now"
}

op_install() { # NAME RELEASE DIGEST <build.json
    need_release "$1" "$2"
    need_digest "$3"
    [ -d "$job" ] || fail 25 "there is no job $release"
    receive_document "$3"
    : step lock-install
    hold_or_exit "$model/switch.lock" install
    read_job
    [ "$job_state $job_status" = 'done 0' ] || fail 25 "job $job_state, status $job_status"
    read_current
    [ "$current" != "$release" ] || fail 23 "release $release is active"
    : step write-record
    place_document "$job/build.json"
    if command -v gzip >/dev/null && [ -f "$job/log" ]; then
        gzip -c -- "$job/log" >"$job/build.log.gz" || fail 12 "cannot write $job/build.log.gz"
    fi
    : step sync-job
    find "$job" ! -type l -exec sync -- {} + || fail 12 "cannot sync $job"
    rm -rf -- "$ready.old"
    : step rename-old-release
    [ ! -e "$ready" ] || mv -T -- "$ready" "$ready.old" || fail 12 "cannot move $ready"
    : step rename-job
    mv -T -- "$job" "$ready" || { mv -T -- "$ready.old" "$ready"; fail 12 "cannot move $job"; }
    sync -- "$model/releases" "$model/jobs" "$model" "$root/models" "$root"
    # Not earlier: an interrupted installation must find them when it is repeated.
    : step tidy-release
    rm -f -- "$ready/status" "$ready/argv" "$ready/owner"
    [ ! -f "$ready/build.log.gz" ] || rm -f -- "$ready/log"
    rm -rf -- "$ready.old"
}
# FORCE is `now` or empty. A release with a health command is on trial: see below.
op_activate() { # NAME RELEASE EXPECTED ENGINE DIGEST RECORD FORCE [BACK SOAK RECORD HEALTH...]
    need_release "$1" "$2"
    [ -z "$3" ] || is_hex "$3" 16 || fail 64 "expected a release or nothing, found '$3'"
    need_file "$4"
    need_digest "$5"
    need_line "$6"
    if [ $# -gt 7 ]; then
        [ -z "$8" ] || is_hex "$8" 16 || fail 64 "expected a release or nothing, found '$8'"
        need_count "$9"
        need_line "${10}"
    fi
    [ -d "$ready" ] || fail 24 "there is no $ready"
    : step lock-activate
    hold_or_exit "$model/switch.lock" activate
    read_current
    [ "$current" = "$3" ] || { echo "current=$current"; exit 22; }
    [ -L "$model/current" ] || [ ! -e "$model/current" ] || fail 12 "$model/current is no link"
    [ -f "$ready/build.json" ] || fail 24 "there is no $ready/build.json"
    { digest "$ready/$4" && [ "$sum" = "$5" ]; } || fail 24 "$ready/$4 is not what was built"
    [ "$7" = now ] || ask_application
    [ $# -le 7 ] || write_trial pending || fail 12 "cannot write $model/trial"
    { append_record "$6" && point_to "$release"; } || fail 12 "cannot activate $release"
    : step activated
    rm -f -- "$root/wanted/$1.$release"
    if [ $# -gt 7 ]; then
        back=$8 soak=$9 record=${10}
        shift 10
        start_trial "$@"
    else
        rm -f -- "$model/trial"
    fi
    echo "active $release"
}
op_deactivate() { # NAME EXPECTED RECORD: nothing of this model is active then
    need_release "$1" "$2"
    need_line "$3"
    [ -d "$model" ] || fail 24 "there is no model $1"
    : step lock-deactivate
    hold_or_exit "$model/switch.lock" deactivate
    read_current
    [ "$current" = "$2" ] || { echo "current=$current"; exit 22; }
    ask_application
    { append_record "$3" && deactivate; } || fail 12 "cannot deactivate $release"
    rm -f -- "$model/trial"
}

# --- trials --------------------------------------------------------------------------------------
#
# With a health command, a process of its own runs that again and again until the soak time is over.
# If it fails once, or nobody has confirmed the release a minute later, what was active before is
# made active again; nothing is, if nothing was. models/NAME/trial is one line: boot id, pid and
# start time of that process, release, state, reason.
#
# pending: not begun   soaking   passed: waits to be confirmed   confirmed   failed, unconfirmed:
# gone back   stuck: there was nothing whole to go back to

write_trial() { # STATE REASON
    read_process "$$"
    printf '%s\n' "$boot $$ $process_start $release $1 ${2-}" >"$model/new.trial.$$" &&
        sync -- "$model/new.trial.$$" && mv -fT -- "$model/new.trial.$$" "$model/trial" &&
        sync -- "$model"
}
read_trial() { # sets trial_state, `none` if there is none of $release, `lost` if its process died
    trial_state=none trial_pid='' trial_reason=''
    { read -r trial_boot trial_pid trial_start trial_release trial_state trial_reason \
        <"$model/trial"; } 2>/dev/null || return 0
    [ "$trial_release" = "$release" ] || { trial_state=none; return; }
    case $trial_state in
    pending | soaking | passed)
        is_alive "$trial_boot" "$trial_pid" "$trial_start" || trial_state=lost ;;
    confirmed | failed | unconfirmed | stuck) ;;
    *) trial_state=lost ;;
    esac
}
say_trial() { # of the active release
    [ "$current" ] || return 0
    release=$current
    read_trial
    echo "trial=$trial_state"
}
start_trial() { # HEALTH...
    drop_lock "$model/switch.lock"
    : step start-trial
    answer=$(setsid sh "$0" "$root" trial "${model##*/}" "$release" "$back" "$soak" "$record" "$@" \
        </dev/null 9<&- &)
    [ "$answer" = started ] || fail 12 "the trial of $release could not be started"
}
op_trial() { # NAME RELEASE BACK SOAK RECORD HEALTH...: as start_trial starts it
    need_release "$1" "$2"
    back=$3 soak=$4 record=$5 reason=''
    shift 5
    trap drop_locks EXIT
    write_trial soaking || fail 12 "cannot write $model/trial"
    echo started
    cd "$ready" || true # the health command will say
    exec >"$model/trial.log" 2>&1
    read_uptime
    end=$((uptime + soak))
    while :; do
        : step health
        (exec timeout -k 5 $((soak + 60)) "$@") </dev/null
        status=$?
        [ "$status" -eq 0 ] || { reason="the health command ended with status $status"; break; }
        read_uptime
        [ "$uptime" -lt "$end" ] || break
        is_on_trial || exit
        sleep 1
    done
    if [ -z "$reason" ]; then
        : step passed
        # Whoever pushed again meanwhile has a trial of his own, and may have confirmed it already.
        lock_switch
        is_on_trial || exit
        write_trial passed || reason='the outcome could not be written'
        drop_lock "$model/switch.lock"
        waits=120
        while [ -z "$reason" ] && read_trial && [ "$trial_state" = passed ]; do
            [ "$waits" -gt 0 ] || reason='nobody confirmed it'
            waits=$((waits - 1))
            sleep 0.5
        done
    fi
    [ -z "$reason" ] || go_back
}
is_on_trial() { # whether nobody has activated anything since
    read_current
    [ "$current" = "$release" ] && read_trial && [ "$trial_pid" = "$$" ]
}
lock_switch() { until take_lock "$model/switch.lock" trial 'the health check'; do sleep 0.1; done; }
go_back() { # to $back, for $reason
    : step go-back
    lock_switch
    is_on_trial && [ "$trial_state" != confirmed ] || return
    state=failed
    [ "$reason" != 'nobody confirmed it' ] || state=unconfirmed
    if [ "$back" ] && [ ! -f "$model/releases/$back/build.json" ]; then
        write_trial stuck "$reason; release $back is not there any more"
        return
    fi
    append_record "${record%\}},\"reason\":\"$reason\"}" # a full disk does not keep it from going
    if [ "$back" ]; then point_to "$back"; else deactivate; fi
    write_trial "$state" "$reason"
}
deactivate() {
    : step deactivate
    rm -f -- "$model/current" && sync -- "$model"
}
op_trial_state() { # NAME RELEASE SECONDS: waits for the end of the soak time, so long at most
    need_release "$1" "$2"
    need_count "$3"
    [ "$3" -le 30 ] || fail 64 "expected at most 30 seconds, found $3"
    waits=$(($3 * 10))
    while read_trial && [ "$waits" -gt 0 ]; do
        case $trial_state in pending | soaking) ;; *) break ;; esac
        waits=$((waits - 1))
        sleep 0.1
    done
    printf 'trial=%s\nreason=%s\n' "$trial_state" "$trial_reason"
}
op_confirm() { # NAME RELEASE RECORD
    need_release "$1" "$2"
    need_line "$3"
    : step lock-confirm
    [ -d "$model" ] || fail 27 "there is no model $1"
    hold_or_exit "$model/switch.lock" confirm
    read_current
    read_trial
    [ "$trial_state $current" != "confirmed $release" ] || return 0
    [ "$trial_state $current" = "passed $release" ] || fail 27 "the trial is $trial_state"
    { append_record "$3" && write_trial confirmed; } || fail 12 "cannot write in $model"
}

