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
newline='
'

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
    probe_mount "$root_parent"
}

# probe_mount FOLDER: what it lies on. /proc names a mount point's blanks \040, which %b reads
probe_mount() {
    mount_folder=$(cd "$1" && pwd -P) || return 0
    mount_longest=
    mount_found=
    while read -r _ mount_point mount_type mount_options _; do
        case $mount_point in *\\*) mount_point=$(printf '%b' "$mount_point") ;; esac
        mount_prefix=${mount_point%/} # bash reads the pattern "${mount_point%/}"/* as another one
        case $mount_folder/ in
            "$mount_prefix"/*)
                # of two on one point the later one is what is seen
                if [ ${#mount_point} -ge ${#mount_longest} ]; then
                    mount_longest=$mount_point
                    mount_found="$mount_type $mount_options"
                fi
                ;;
        esac
    done </proc/self/mounts
    say root_mount "$mount_found"
}

say_kib() {
    case $2 in
        '' | *[!0-9]*) ;;
        *) say "$1" $(($2 * 1024)) ;;
    esac
}

probe_system() {
    say user "$(quiet 10 id -un)"
    say groups "$(quiet 10 id -Gn)"
    say clock "$(quiet 10 date +%s)"
    say hostname "$(quiet 10 uname -n)"
    say arch "$(quiet 10 uname -m)"
    say nv_tegra_release "$(first_line /etc/nv_tegra_release)"
    if [ -r /proc/device-tree/model ]; then
        say model "$(tr -d '\000' </proc/device-tree/model)"
    fi
    is_tegra=
    if [ -r /proc/device-tree/compatible ]; then
        compatible=$(tr '\000' ' ' </proc/device-tree/compatible)
        say compatible "$compatible"
        case $compatible in *nvidia,tegra*) is_tegra=yes ;; esac
    fi
    if [ -r /proc/meminfo ]; then
        while read -r name amount _; do
            case $name in
                MemTotal:) say_kib memory_bytes "$amount" ;;
                MemAvailable:) say_kib memory_available_bytes "$amount" ;;
                SwapTotal:) say_kib swap_bytes "$amount" ;;
            esac
        done </proc/meminfo
    fi
    # /usr/sbin is on the PATH of few ordinary users
    say power_mode "$(
        PATH=$PATH:/usr/sbin
        has nvpmodel && quiet 10 nvpmodel -q | sed -n 's/^NV Power Mode: *//p'
    )"
    probe_container
    probe_gpu
}

probe_container() {
    if [ -e /.dockerenv ]; then
        say container docker
    elif [ -e /run/.containerenv ]; then
        say container podman
    elif [ -n "$KUBERNETES_SERVICE_HOST" ]; then
        say container kubernetes
    elif [ -n "$container" ]; then # set by systemd-nspawn and LXC
        say container "$container"
    elif [ -r /proc/1/cgroup ]; then
        while read -r cgroup; do
            case $cgroup in
                *docker*) say container docker ;;
                *libpod*) say container podman ;;
                *kubepods*) say container kubernetes ;;
                *containerd*) say container containerd ;;
                */lxc/* | *lxc.payload*) say container lxc ;;
                *) continue ;;
            esac
            break
        done </proc/1/cgroup
    fi
}

# opens NODE: whether the user can. Trying is what counts: in a container the permissions may say yes
# and the kernel no. nvmap is for reading only on newer releases (root:video, 0440).
opens() {
    case $1 in
        */nvmap) [ -r "$1" ] ;;
        *) [ -r "$1" ] && [ -w "$1" ] ;;
    esac || return 1
    # shellcheck disable=SC2016 # the $1 is the inner shell's
    ! has timeout || quiet 5 sh -c ': <"$1"' sh "$1"
}

probe_gpu() {
    set -- /dev/nvhost-ctrl-gpu /dev/nvgpu/igpu0/ctrl /dev/nvmap /dev/nvidiactl /dev/nvidia0
    # elsewhere the render nodes may be another maker's GPU
    [ -z "$is_tegra" ] || set -- "$@" /dev/dri/renderD*
    for node; do
        if [ ! -e "$node" ]; then
            continue
        elif opens "$node"; then
            say gpu_node "$node yes"
        else
            say gpu_node "$node no $(quiet 10 stat -c %G "$node")"
        fi
    done
    if [ -z "$is_tegra" ] && [ -e /dev/nvidia0 ] && has nvidia-smi; then
        say gpu "$(quiet 10 nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader |
            sed -n 1p)"
    fi
}

probe_packages() {
    nvcc=
    libraries=
    if has dpkg-query; then
        # shellcheck disable=SC2016 # the ${} are dpkg's
        packages=$(quiet 10 dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' \
            nvidia-l4t-core 'libnvinfer[0-9]*' 'cuda-nvcc-[0-9]*' | sed -n 's/^.i. *//p')
        rest=$packages
        while [ -n "$rest" ]; do
            package=${rest%%"$newline"*}
            case $rest in *"$newline"*) rest=${rest#*"$newline"} ;; *) rest= ;; esac
            case $package in
                nvidia-l4t-core*) say l4t_core "${package#* }" ;;
                libnvinfer*)
                    libraries=yes
                    say libnvinfer "$package"
                    ;;
                cuda-nvcc*) nvcc=${package#* } ;;
            esac
        done
    fi
    # without debs: Yocto, tar archives, containers into which JetPack 4 mounts the device's own
    for file in /usr/lib/*-linux-gnu/libnvinfer.so.*.*.* /usr/lib/libnvinfer.so.*.*.* \
        /usr/lib64/libnvinfer.so.*.*.* /usr/local/lib/libnvinfer.so.*.*.*; do
        if [ -f "$file" ] && [ ! -h "$file" ]; then
            libraries=yes
            say libnvinfer_file "$file"
        fi
    done
    if [ -r /usr/local/cuda/version.json ]; then
        say cuda "$(tr -d '\n' </usr/local/cuda/version.json |
            sed -n 's/.*"cuda"[^}]*"version"[ :]*"\([^"]*\)".*/\1/p')"
    elif [ -r /usr/local/cuda/version.txt ]; then
        say cuda "$(first_line /usr/local/cuda/version.txt | sed 's/^CUDA Version *//')"
    else
        say cuda_nvcc "$nvcc"
    fi
}

probe_trtexec() {
    seen=$newline
    on_path=$(command -v trtexec)
    say trtexec_on_path "$on_path"
    # the debs' place, then those of NVIDIA's tar archives, unpacked where people do
    for trtexec in "$on_path" /usr/src/tensorrt/bin/trtexec /usr/local/[Tt]ensor[Rr][Tt]*/bin/trtexec \
        /opt/[Tt]ensor[Rr][Tt]*/bin/trtexec "$HOME"/[Tt]ensor[Rr][Tt]*/bin/trtexec; do
        if [ ! -f "$trtexec" ] || [ ! -x "$trtexec" ]; then continue; fi
        real=$(quiet 10 readlink -f "$trtexec")
        case $seen in *"$newline${real:-$trtexec}$newline"*) continue ;; esac
        seen=$seen${real:-$trtexec}$newline
        # before TensorRT 8 the banner names no version
        output=$(limited 20 "$trtexec" --help)
        status=$?
        banner=$(printf '%s\n' "$output" | sed -n '/\[TensorRT v/{p;q;}
            /&&&& RUNNING TensorRT/{p;q;}')
        # one that cannot start gives a reason in place of help; one that was killed gives neither
        if [ -z "$banner" ] && has timeout; then
            case $status$output in
                0* | 137* | *--*) ;;
                *) banner="status $status: $(printf '%s\n' "$output" | tail -n 1)" ;;
            esac
        fi
        say trtexec "$(printf '%s\t%s' "$trtexec" "$banner")"
    done
}

# Where the system has no TensorRT, a container may. Only docker is asked what runs: podman would
# write to the home folder.
probe_engines() {
    if [ -n "$libraries" ] || [ "$seen" != "$newline" ]; then return 0; fi
    for engine in docker podman nerdctl; do
        if has "$engine"; then say container_engine "$engine"; fi
    done
    has docker || return 0
    if ! running=$(quiet 5 docker ps --format '{{.Names}} {{.Image}}'); then
        say containers_hidden yes
        return 0
    fi
    while [ -n "$running" ]; do
        say container_runs "docker ${running%%"$newline"*}"
        case $running in *"$newline"*) running=${running#*"$newline"} ;; *) running= ;; esac
    done
}

probe_python() {
    case $1 in
        */*) python=$(absolute "$1") ;;
        *) python=$(command -v "${1:-python3}") ;;
    esac
    if [ ! -f "$python" ] || [ ! -x "$python" ]; then return 0; fi
    # Metadata only: importing onnxruntime or tensorrt takes seconds and memory. Python 3.6 has no
    # importlib.metadata. -B: nothing is written, compiled modules neither.
    packages=$(quiet 30 "$python" -B -c '
import os, sys
try:
    from importlib.metadata import distribution
    folder = lambda found: found.locate_file("")
except ImportError:
    from pkg_resources import get_distribution as distribution
    folder = lambda found: found.location
print("edgecal:python_version=%d.%d.%d" % sys.version_info[:3])
wanted = [("numpy", "numpy"), ("onnx", "onnx"), ("onnxruntime", "onnxruntime"),
          ("onnxruntime", "onnxruntime-gpu"), ("tensorrt", "tensorrt"),
          ("tensorrt", "tensorrt-cu12"), ("tensorrt", "tensorrt-cu13")]
for key, name in wanted:
    try:
        found = distribution(name)
        print("edgecal:python_%s=%s" % (key, found.version))
        if key == "tensorrt":
            print("edgecal:python_tensorrt_folder=%s" % os.path.abspath(str(folder(found))))
    except Exception:
        pass
')
    [ -n "$packages" ] || return 0
    say python "$python"
    printf '%s\n' "$packages"
}

probe_tools() {
    for tool in sha256sum mv sync cat ln mkdir nice setsid flock timeout gzip stat df date od tail \
        head readlink mktemp; do
        has "$tool" || say missing_tool "$tool"
    done
    # GNU: mv -T replaces a symlink to a folder, sync FILE flushes one file
    has mv && { limited 10 mv -T --help >/dev/null || say missing_tool 'mv -T'; }
    has sync && case $(limited 10 sync --help) in
        *FILE*) ;;
        *) say missing_tool 'sync FILE' ;;
    esac
}

# What judges signatures here, and what of it the user could change: whoever owns a file can make it
# writable. Fingerprints are over a key's DER form, as on the host.
probe_signing() {
    etc=/etc/edgecal
    if [ ! -e "$etc" ]; then
        say signing absent
        return 0
    fi
    say signing present
    if has openssl; then say signing_openssl yes; fi
    me=$(id -u)
    for file in "$etc" "$etc/policy" "$etc/keys" "$etc"/keys/*.pem; do
        if [ ! -e "$file" ]; then continue; fi
        if [ -w "$file" ] || [ "$(stat -L -c %u -- "$file")" = "$me" ]; then
            say signing_writable "$file"
        fi
        case $file in *.pem) probe_key "$file" ;; esac
    done
    if [ ! -x "$etc" ]; then
        say signing_problem "$etc cannot be entered"
    elif [ -e "$etc/policy" ] || [ -h "$etc/policy" ]; then
        if [ -f "$etc/policy" ] && [ -r "$etc/policy" ]; then
            while read -r line || [ -n "$line" ]; do
                say signing_policy "$line"
            done <"$etc/policy"
        else
            say signing_problem "$etc/policy cannot be read"
        fi
    fi
}

probe_key() {
    # the digest of nothing is none: openssl must have read it
    if has openssl && key=$(quiet 5 openssl pkey -pubin -in "$1" -outform DER | sha256sum) &&
        quiet 5 openssl pkey -pubin -in "$1" -noout; then
        say signing_key "sha256:${key%% *}"
    else
        say signing_unusable_key "$1"
    fi
}

main() {
    printf '\n' # ends a line of noise
    say schema 1
    probe_root "$1"
    probe_system
    probe_packages
    probe_trtexec
    probe_engines
    probe_python "$2"
    probe_tools
    probe_signing
    say probe complete
    exit 0
}

main "$1" "$2" </dev/null 2>/dev/null
