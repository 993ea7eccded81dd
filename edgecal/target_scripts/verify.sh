#!/bin/sh
# Judges a bundle's signature with the device's own openssl, keys and policy.
#
# sh -c TEXT edgecal ROOT check REQUIRED ORIGIN MANIFEST SIGNATURE SIGNED_CACHE BUILT_CACHE
#     [NAME HEX]...
#   REQUIRED     yes or no: whether the caller wants a signature whatever the policy says
#   ORIGIN       host; or here for what is built again from this store, which may be an older one
#   MANIFEST     digest of the manifest, which lies in the store as everything else
#   SIGNATURE    that of its signature, or a dash
#   *_CACHE      those of the cache as signed and as the build will read it, or two dashes
#   NAME HEX     what else of the bundle the build will read; names as the manifest spells them
#   prints `verified KEY NAME COUNTER`, `unsigned`, `unchecked no-key` or `unchecked no-openssl`
# sh -c TEXT edgecal ROOT keep NAME COUNTER
#   remembers the highest counter of a bundle that became active
#
# 0 done   12 cannot write   21 a blob is missing or damaged   30 refused: stdout says
# `refused WORD DETAIL`   64 wrong arguments
#
# JSON is not parsed here. A signed manifest is laid out by edgecal: one value a line, and only its
# own keys stand behind exactly two blanks, for a line end inside of a text is written \n. A
# manifest that is laid out otherwise is refused.
set -u
umask 022
LC_ALL=C
export LC_ALL
newline='
'
carriage=$(printf '\r')
etc=/etc/edgecal

fail() { printf 'edgecal: %s\n' "$2" >&2; exit "$1"; } # CODE MESSAGE
refuse() { printf 'refused %s\n' "$*"; exit 30; } # WORD DETAIL
is_hex() {
    case $1 in *[!0-9a-f]*) return 1 ;; esac
    [ ${#1} -eq 64 ]
}
is_name() {
    case $1 in '' | *[!A-Za-z0-9._-]*) return 1 ;; esac
}
is_count() { # 15 digits, which every shell can compare
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    [ ${#1} -le 15 ]
}
need_whole() { # HEX: the blob is there and has that digest
    is_hex "$1" || fail 64 "expected a sha256 digest, found '$1'"
    sum=$(sha256sum 2>/dev/null <"$store/$1") || fail 21 "$1 is missing"
    [ "${sum%% *}" = "$1" ] || { rm -f -- "$store/$1"; fail 21 "$1 was damaged and was removed"; }
}

read_policy() { # sets device; sets required to yes if the policy says so
    device=
    [ -e "$etc" ] || return 0
    { [ -d "$etc" ] && [ -x "$etc" ]; } || refuse policy "$etc cannot be entered"
    [ -e "$etc/policy" ] || [ -h "$etc/policy" ] || return 0
    { [ -f "$etc/policy" ] && [ -r "$etc/policy" ]; } || refuse policy "$etc/policy cannot be read"
    while read -r line || [ "$line" ]; do
        line=${line%"$carriage"}
        case $line in
        '' | '#'* | require_signature=no) ;;
        require_signature=yes) required=yes ;;
        name=*)
            device=${line#name=}
            is_name "$device" || refuse policy "$line"
            ;;
        counter.*=*)
            rest=${line#counter.}
            { is_name "${rest%%=*}" && is_count "${rest#*=}"; } || refuse policy "$line"
            ;;
        *) refuse policy "$line" ;;
        esac
    done <"$etc/policy"
}

find_key() { # sets key to the file of the key that verifies the signature
    command -v openssl >/dev/null || { lacks no-openssl; }
    tried=0
    for key in "$etc"/keys/*.pem; do
        [ -f "$key" ] || continue
        tried=$((tried + 1))
        openssl dgst -sha256 -verify "$key" -signature "$store/$1" "$manifest" \
            >/dev/null 2>&1 </dev/null && return
    done
    [ "$tried" -gt 0 ] || lacks no-key
    refuse wrong-signature "$tried"
}
lacks() { # WORD
    [ "$required" = no ] || refuse "$1"
    echo "unchecked $1"
    exit 0
}

field() { # KEY: sets value to what stands behind that key of the manifest, which must be there once
    value=$(sed -n "s/^  \"$1\": //p" "$manifest")
    value=${value%,}
    case $value in '' | *"$newline"*) refuse layout "$1" ;; esac
}
read_manifest() { # sets name and counter
    field schema
    [ "$value" = '"edgecal.bundle/1"' ] || refuse layout schema
    field name
    name=${value#'"'} name=${name%'"'}
    is_name "$name" || refuse layout name
    field counter
    counter=$value
    is_count "$counter" || refuse layout counter
}

highest() { # PREFIX FILE: raises last to the highest number behind that prefix
    [ -f "$2" ] || return 0
    while read -r line || [ "$line" ]; do
        line=${line%"$carriage"}
        case $line in
        "$1"*)
            line=${line#"$1"}
            ! is_count "$line" || [ "$line" -le "$last" ] || last=$line
            ;;
        esac
    done <"$2"
}
read_last() { # NAME: sets last
    last=0
    highest "$1 " "$root/counters"
}

check_device() { # `targets`, where the manifest has it, names this device
    patterns=$(sed -n '/^  "targets": /,/^  \]/p' "$manifest")
    [ "$patterns" ] || return 0
    [ "$device" ] || refuse unnamed
    place=before
    while IFS= read -r line; do
        case $place$line in
        'before  "targets": [') place=inside ;;
        'inside    "'*)
            line=${line#'    "'} line=${line%,} line=${line%'"'}
            case $line in '' | *[!A-Za-z0-9._*?-]*) refuse layout targets ;; esac
            # shellcheck disable=SC2254 # a pattern, of these letters alone
            case $device in $line) return 0 ;; esac
            ;;
        'inside  ]' | 'inside  ],') place=after ;;
        *) refuse layout targets ;;
        esac
    done <<EOT
$patterns
EOT
    refuse other-device "$device"
}

check_file() { # NAME HEX: the manifest lists them together, and the blob is whole
    case $listing in
    *"$newline    \"$1\": {$newline      \"digest\": \"sha256:$2\",$newline"*) ;;
    *) refuse file "$1" ;;
    esac
    need_whole "$2"
}
body() { # HEX: sets sum to the digest of a cache without its header line
    sum=$(tail -n +2 -- "$store/$1" | sha256sum)
}

op_check() { # REQUIRED ORIGIN MANIFEST SIGNATURE SIGNED_CACHE BUILT_CACHE [NAME HEX]...
    required=$1 origin=$2 manifest=$store/$3 signature=$4 signed_cache=$5 built_cache=$6
    case $required in yes | no) ;; *) fail 64 "expected yes or no, found '$required'" ;; esac
    case $origin in host | here) ;; *) fail 64 "expected host or here, found '$origin'" ;; esac
    need_whole "$3"
    read_policy
    if [ "$signature" = - ]; then
        [ "$required" = no ] || refuse unsigned
        echo unsigned
        exit 0
    fi
    need_whole "$signature"
    find_key "$signature"
    shift 6
    read_manifest
    check_device
    last=0
    [ "$origin" = here ] || read_last "$name"
    highest "counter.$name=" "$etc/policy"
    [ "$counter" -ge "$last" ] || refuse old "$counter $last"
    listing=$newline$(sed -n '/^  "files": {$/,/^  }/p' "$manifest")
    if [ "$signed_cache" != - ]; then
        check_file calibration.cache "$signed_cache"
        need_whole "$built_cache"
        body "$signed_cache"
        signed_sum=$sum
        body "$built_cache"
        [ "$sum" = "$signed_sum" ] || refuse cache
    fi
    while [ $# -gt 0 ]; do
        check_file "$1" "$2"
        shift 2
    done
    print=$(openssl pkey -pubin -in "$key" -outform DER 2>/dev/null </dev/null | sha256sum)
    echo "verified sha256:${print%% *} $name $counter"
}
op_keep() { # NAME COUNTER
    { is_name "$1" && is_count "$2"; } || fail 64 "expected a name and a number, found '$1' '$2'"
    read_last "$1"
    [ "$2" -gt "$last" ] || exit 0
    # After a power loss the last line may be half a line: then a new one is begun.
    begin=
    [ ! -s "$root/counters" ] || [ "$(tail -c 1 -- "$root/counters" | wc -l)" -eq 1 ] ||
        begin=$newline
    { printf '%s%s %s\n' "$begin" "$1" "$2" >>"$root/counters" &&
        sync -- "$root/counters" "$root"; } || fail 12 "cannot write $root/counters"
}

[ $# -ge 2 ] || fail 64 "expected ROOT OPERATION ARGUMENT..., found $# arguments"
root=$1 operation=$2 store=$1/blobs/sha256
case $root in /*) ;; *) fail 64 "expected an absolute root, found '$root'" ;; esac
shift 2
case $operation in
check) [ $# -ge 6 ] && [ $(($# % 2)) -eq 0 ] ;;
keep) [ $# -eq 2 ] ;;
*) false ;;
esac || fail 64 "expected check or keep and what they take, found '$operation' and $# arguments"
"op_$operation" "$@"
