# --- the store -----------------------------------------------------------------------------------

op_have() { # HEX...
    for hex; do
        need_digest "$hex"
        blob=$root/blobs/sha256/$hex
        if [ -f "$blob" ]; then echo "full $hex"
        elif [ -f "$blob.part" ]; then echo "part $hex $(bytes "$blob.part")"
        else echo "none $hex"; fi
    done
}
# What a push is about to use is written down in wanted/NAME.RELEASE, so that `prune` lets it be until
# the release is active. It counts for a day of this boot, by the uptime.
op_want() { # NAME RELEASE OWNER HEX...: as op_have
    need_release "$1" "$2"
    need_line "$3"
    name=$1 owner=$3
    shift 3
    for hex; do need_digest "$hex"; done
    : step lock-want
    mkdir -p -- "$root/wanted" || fail 12 "cannot make $root/wanted"
    hold_or_exit "$root/store.lock" want
    # What `prune` gives back first, for it too needs a little room on a full disk.
    [ -e "$root/room" ] || head -c 65536 /dev/zero >"$root/room" ||
        { rm -f -- "$root/room"; fail 12 "cannot write in $root"; }
    read_uptime
    : step write-want
    { printf '%s\n' "$boot $uptime $owner" "$@" >"$root/new.wanted.$$" &&
        mv -fT -- "$root/new.wanted.$$" "$root/wanted/$name.$release"; } ||
        fail 12 "cannot write in $root"
    op_have "$@"
}
is_wanted() { # PATH of a record
    { read -r wanted_boot wanted_since _ <"$1"; } 2>/dev/null || return
    case $wanted_since in '' | *[!0-9]*) return 1 ;; esac
    read_uptime
    [ "$wanted_boot" = "$boot" ] && [ $((uptime - wanted_since)) -lt 86400 ]
}
size_of() { # FOLDER: sets size, of the files in it
    size=$(find "$1" -type f -exec stat -c %s {} + | {
        total=0
        while read -r value; do total=$((total + value)); done
        echo "$total"
    })
}
find_wanted() { # sets wanted: digests, each on a line of its own
    wanted=$newline
    for path in "$root"/wanted/*; do
        if is_wanted "$path"; then wanted=$wanted$(tail -n +2 -- "$path")$newline
        elif [ -f "$path" ] && [ "$mode" = remove ]; then rm -f -- "$path"; fi
    done
}
find_used() { # sets used: the digests that releases and jobs link to, apart from doomed ones
    used=$newline
    for path in "$root"/models/*/releases/* "$root"/models/*/jobs/* \
        "$root"/models/.*/releases/* "$root"/models/.*/jobs/*; do
        [ -d "$path" ] || continue
        case $doomed in *"$newline$path$newline"*) continue ;; esac
        found=$(find "$path" -type l -exec readlink -- {} + | sed 's,.*/,,')
        used=$used$found$newline
    done
}
is_agent() { # PATH: a script like this one, of any edgecal: another push may be running it
    case $1 in *.part) return 1 ;; esac
    { IFS= read -r line && IFS= read -r line; } <"$1" 2>/dev/null &&
        [ "$line" = '# What edgecal does on a target: sh AGENT ROOT OPERATION ARGUMENT...' ]
}

# Says what goes, or with `remove` lets it go: folders that the caller names, then every blob that
# nothing refers to. The caller says what was active when it chose. With FORCE `now` what pushes
# want is no obstacle.
op_prune() { # plan|remove FORCE [releases|jobs NAME EXPECTED RELEASE]...
    mode=$1 force=$2 doomed=$newline freed=0 release=- model=$root
    shift 2
    case $mode in plan | remove) ;; *) fail 64 "expected plan or remove, found '$mode'" ;; esac
    [ $(($# % 4)) -eq 0 ] || fail 64 "expected kind, name, active release and release"
    if [ "$mode" = remove ]; then
        rm -f -- "$root/room"
        : step lock-prune
        hold_or_exit "$root/store.lock" prune
    fi
    while [ $# -gt 0 ]; do
        doom "$1" "$2" "$3" "$4"
        shift 4
    done
    if [ "$mode" = remove ]; then
        : step remove-folders
        rm -rf -- "$root"/models/*/releases/*.gone "$root"/models/*/jobs/*.gone \
            "$root"/models/.*/releases/*.gone "$root"/models/.*/jobs/*.gone
    fi
    find_wanted
    [ "$force" != now ] || wanted=$newline
    find_used
    for path in "$root"/blobs/sha256/*; do
        hex=${path##*/} links=$used$wanted
        case $hex in *.part) hex=${hex%.part} links=$wanted ;; esac
        is_hex "$hex" 64 || continue
        case $links in *"$newline$hex$newline"*) continue ;; esac
        ! is_agent "$path" || continue
        size=$(bytes "$path")
        freed=$((freed + size))
        echo "blob ${path##*/} $size"
        : step remove-blob
        [ "$mode" = plan ] || rm -f -- "$path" || fail 12 "cannot remove $path"
    done
    echo "freed=$freed"
}
doom() { # KIND NAME EXPECTED RELEASE
    case $1 in releases | jobs) ;; *) fail 64 "expected releases or jobs, found '$1'" ;; esac
    need_release "$2" "$4"
    [ -z "$3" ] || is_hex "$3" 16 || fail 64 "expected a release or nothing, found '$3'"
    folder=$model/$1/$release
    [ -d "$folder" ] || return 0
    [ "$mode" = plan ] || hold "$model/switch.lock" prune || { busy; exit 20; }
    read_current
    [ "$current" = "$3" ] || { echo "current=$current"; exit 22; }
    read_job
    if [ "$job_state" = running ] || [ "$1 $current" = "releases $release" ]; then
        echo "kept $2 $release"
    elif [ "$force" != now ] && is_wanted "$root/wanted/$2.$release"; then
        echo "kept $2 $release"
    else
        size_of "$folder"
        freed=$((freed + size)) doomed=$doomed$folder$newline
        echo "$1 $2 $release $size"
        # Renamed before it is removed: half a release must not look like one.
        : step rename-gone
        [ "$mode" = plan ] || { rm -rf -- "$folder.gone" && mv -T -- "$folder" "$folder.gone" &&
            sync -- "$model/$1"; } || fail 12 "cannot remove $folder"
    fi
    [ "$mode" = plan ] || drop_lock "$model/switch.lock"
}

