#!/bin/sh
# Tells what a target is. Run as: sh -s -- ROOT PYTHON   (this file on stdin, no root rights)
#
# ROOT    edgecal's folder on the target; empty: $HOME/.edgecal
# PYTHON  the Python of the reference builder; empty: python3
#
# Prints lines "edgecal:KEY=VALUE"; whatever else appears (a motd, a profile that talks) is noise.
# What cannot be found out is left out. Always exits 0; the last line is "edgecal:probe=complete".
#
# POSIX sh (dash, bash, busybox). Everything is inside main: a script that arrived cut does nothing,
# and no command can read the rest of the script from stdin. Every command that might hang is
# killed after some seconds.

LC_ALL=C
export LC_ALL

# say KEY VALUE: one line, whatever the value holds; nothing where the value is empty
say() {
    case $2 in
        '') return 0 ;;
        *[[:cntrl:]]*) say_value=$(printf '%s' "$2" | tr '\001-\010\012-\037\177' ' ') ;;
        *) say_value=$2 ;;
    esac
    printf 'edgecal:%s=%s\n' "$1" "$say_value"
}

# has NAME: whether the session can run it
has() {
    command -v "$1" >/dev/null 2>&1
}

# limited SECONDS COMMAND...: killed when the time is up, not run at all where nothing could kill it
limited() {
    limited_s=$1
    shift
    has timeout && timeout -s KILL "$limited_s" "$@" 2>&1 </dev/null
}

# quiet SECONDS COMMAND...: the same without the command's complaints
quiet() {
    quiet_s=$1
    shift
    has timeout && timeout -s KILL "$quiet_s" "$@" 2>/dev/null </dev/null
}

first_line() {
    first_line_text=
    [ -r "$1" ] && IFS= read -r first_line_text <"$1"
    printf '%s' "$first_line_text"
}

# nearest PATH: the deepest existing folder on the way to PATH
nearest() {
    nearest_path=$1
    while [ -n "$nearest_path" ] && [ ! -d "$nearest_path" ]; do
        nearest_path=${nearest_path%/*}
    done
    printf '%s' "${nearest_path:-/}"
}

# absolute PATH: as a user means it, from the home folder
# shellcheck disable=SC2088 # a literal tilde is what is looked for
absolute() {
    absolute_home=${HOME:-$(pwd)}
    case $1 in
        /*) printf '%s' "$1" ;;
        '~') printf '%s' "$absolute_home" ;;
        '~/'*) printf '%s/%s' "$absolute_home" "${1#'~/'}" ;;
        "\$HOME/"*) printf '%s/%s' "$absolute_home" "${1#"\$HOME/"}" ;;
        *) printf '%s/%s' "$absolute_home" "$1" ;;
    esac
}

probe_root() {
    root=$(absolute "${1:-.edgecal}")
    root=${root%/}
    say root "${root:-/}"
    root_parent=$(nearest "$root")
    if [ -w "$root_parent" ] && [ -x "$root_parent" ]; then
        say root_writable yes
    else
        say root_writable no
    fi
    # POSIX form: the number before the percentage is what is available, in KiB
    free_kib=$(quiet 10 df -Pk "$root_parent" | tail -n 1 |
        sed -n 's/.* \([0-9][0-9]*\)  *[0-9][0-9]*% .*/\1/p')
    say_kib disk_free_bytes "$free_kib"
}

say_kib() {
    case $2 in
        '' | *[!0-9]*) ;;
        *) say "$1" $(($2 * 1024)) ;;
    esac
}

probe_system() {
    say user "$(quiet 10 id -un)"
    say hostname "$(quiet 10 uname -n)"
    say arch "$(quiet 10 uname -m)"
    say nv_tegra_release "$(first_line /etc/nv_tegra_release)"
    if [ -r /proc/device-tree/model ]; then
        say model "$(tr -d '\000' </proc/device-tree/model)"
    fi
    if [ -r /proc/device-tree/compatible ]; then
        say compatible "$(tr '\000' ' ' </proc/device-tree/compatible)"
    fi
    if [ -r /proc/meminfo ]; then
        while read -r name amount _; do
            case $name in
                MemTotal:) say_kib memory_bytes "$amount" ;;
                MemAvailable:) say_kib memory_available_bytes "$amount" ;;
            esac
        done </proc/meminfo
    fi
    # /usr/sbin is on the PATH of few ordinary users
    say power_mode "$(
        PATH=$PATH:/usr/sbin
        has nvpmodel && quiet 10 nvpmodel -q | sed -n 's/^NV Power Mode: *//p'
    )"
    for node in /dev/nvhost-ctrl-gpu /dev/nvidia0 /dev/nvmap; do
        if [ ! -e "$node" ]; then
            say gpu_node "$node absent"
        elif [ -r "$node" ] && [ -w "$node" ]; then
            say gpu_node "$node yes"
        else
            say gpu_node "$node no"
        fi
    done
}

# installed PATTERN: "PACKAGE VERSION" of each installed deb
installed() {
    has dpkg-query || return 0
    # shellcheck disable=SC2016 # the ${} are dpkg's
    quiet 10 dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' "$1" |
        sed -n 's/^.i. *//p'
}

probe_packages() {
    say l4t_core "$(installed nvidia-l4t-core | sed -n '1s/^[^ ]* //p')"
    installed 'libnvinfer[0-9]*' | while read -r package; do
        say libnvinfer "$package"
    done
    if [ -r /usr/local/cuda/version.json ]; then
        say cuda "$(tr -d '\n' </usr/local/cuda/version.json |
            sed -n 's/.*"cuda"[^}]*"version"[ :]*"\([^"]*\)".*/\1/p')"
    elif [ -r /usr/local/cuda/version.txt ]; then
        say cuda "$(first_line /usr/local/cuda/version.txt | sed 's/^CUDA Version *//')"
    else
        say cuda_nvcc "$(installed 'cuda-nvcc-[0-9]*' | sed -n '$s/^[^ ]* //p')"
    fi
}

probe_trtexec() {
    seen=
    for trtexec in "$(command -v trtexec)" /usr/src/tensorrt/bin/trtexec; do
        if [ ! -f "$trtexec" ] || [ ! -x "$trtexec" ]; then continue; fi
        real=$(quiet 10 readlink -f "$trtexec")
        [ "${real:-$trtexec}" = "$seen" ] && continue
        seen=${real:-$trtexec}
        banner=$(limited 20 "$trtexec" --help | sed -n '/\[TensorRT v/{p;q;}')
        say trtexec "$(printf '%s\t%s' "$trtexec" "$banner")"
    done
}

probe_python() {
    case $1 in
        */*) python=$(absolute "$1") ;;
        *) python=$(command -v "${1:-python3}") ;;
    esac
    if [ ! -f "$python" ] || [ ! -x "$python" ]; then return 0; fi
    # Metadata only: importing onnxruntime or tensorrt takes seconds and memory. Python 3.6 has no
    # importlib.metadata.
    packages=$(quiet 30 "$python" -c '
import sys
try:
    from importlib.metadata import version
except ImportError:
    from pkg_resources import get_distribution
    version = lambda name: get_distribution(name).version
print("edgecal:python_version=%d.%d.%d" % sys.version_info[:3])
wanted = [("numpy", "numpy"), ("onnx", "onnx"), ("onnxruntime", "onnxruntime"),
          ("onnxruntime", "onnxruntime-gpu"), ("tensorrt", "tensorrt")]
for key, name in wanted:
    try:
        print("edgecal:python_%s=%s" % (key, version(name)))
    except Exception:
        pass
')
    [ -n "$packages" ] || return 0
    say python "$python"
    printf '%s\n' "$packages"
}

probe_tools() {
    for tool in sha256sum mv sync cat ln mkdir nice setsid timeout gzip stat df date od tail head \
        readlink mktemp; do
        has "$tool" || say missing_tool "$tool"
    done
    # GNU: mv -T replaces a symlink to a folder, sync FILE flushes one file
    has mv && { limited 10 mv -T --help >/dev/null || say missing_tool 'mv -T'; }
    has sync && case $(limited 10 sync --help) in
        *FILE*) ;;
        *) say missing_tool 'sync FILE' ;;
    esac
}

main() {
    printf '\n' # ends a line of noise
    say schema 1
    probe_root "$1"
    probe_system
    probe_packages
    probe_trtexec
    probe_python "$2"
    probe_tools
    say probe complete
    exit 0
}

main "$1" "$2" </dev/null 2>/dev/null
