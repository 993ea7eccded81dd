# --- everything a target keeps -------------------------------------------------------------------

op_models() {
    for model in "$root"/models/*/ "$root"/models/.*/; do
        model=${model%/}
        is_name "${model##*/}" || continue
        read_lock "$model/switch.lock" # before what is active: whoever lets go later may change it
        if lock_is_held; then switching=$lock_work; else switching=; fi
        read_current
        printf 'model=%s\ncurrent=%s\n' "${model##*/}" "$current"
        [ -z "$switching" ] || echo "switching=$switching"
        say_trial
        for path in "$model"/releases/*/build.json; do
            release=${path%/*} release=${release##*/}
            if is_hex "$release" 16 && [ -f "$path" ]; then
                echo "release=$release"
                sed -n 's/^  "built": "\([0-9TZ:.+-]*\)".*/built=\1/p' "$path"
            fi
        done
        # shellcheck disable=SC1003 # `$a\` ends a last line that lacks its end
        sed -e 's/^/activation=/' -e '$a\' "$model/activations" 2>/dev/null
        for job in "$model"/jobs/*/; do
            job=${job%/} release=${job##*/} owner=
            is_hex "$release" 16 || continue
            read_job
            { read -r owner <"$job/owner"; } 2>/dev/null
            echo "job=$release $job_state $job_status $owner"
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
install | deactivate | confirm | trial_state) expected=3 ;;
wait | break) expected=4 ;;
want) expected=$(($# < 3 ? 3 : $#)) ;;
prune) expected=$(($# < 2 ? 2 : $#)) ;;
activate) expected=$(($# < 8 ? 7 : $# < 11 ? 11 : $#)) ;;
trial) expected=$(($# < 6 ? 6 : $#)) ;;
start | supervise) expected=$(($# < 8 ? 8 : $#)) ;;
*) fail 64 "there is no operation '$operation'" ;;
esac
[ $# -eq "$expected" ] || fail 64 "$operation takes $expected arguments, found $#"
read -r boot </proc/sys/kernel/random/boot_id || fail 12 "cannot read the boot id"
"op_$operation" "$@"
