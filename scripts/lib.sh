# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034
#
# What every script here shares: places, messages, logs, the private apt.
# Sourced, never run. Responsible for no step of its own.

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
build=$top/build
logs=$build/logs
cache=${IVSHMEM_CACHE:-${XDG_CACHE_HOME:-${HOME:-$build}/.cache}/ivshmem}

# The series of QEMU we build on, and Debian's suite that has it. QEMU_NEWEST=1:
# the newest one instead, from the first of these suites that gives one, in
# folders of its own; or any tree at QEMU_SRC.
if [ -z "${QEMU_NEWEST:-}" ]; then
    qemu_series=10.0 qemu_suites='trixie stable' other=
else
    qemu_series=newest qemu_suites='sid trixie-backports trixie' other=-newest
fi
src=$build/qemu-src$other
stamp=$src.stamp

# Without a working home directory the cache goes into the clone.
mkdir -p "$logs" || {
    echo "ivshmem: cannot write to $build: make the clone writable" >&2
    exit 1
}
mkdir -p "$cache" 2>/dev/null || { cache=$build/cache; mkdir -p "$cache"; }

say() { printf '%s\n' "== $*" >&2; }
note() { printf '%s\n' "   $*" >&2; }

# die STEP CAUSE [REMEDY]
die() {
    printf '%s\n' "ivshmem: step \"$1\" failed: $2" >&2
    [ -z "${3:-}" ] || printf '%s\n' "ivshmem: $3" >&2
    exit 1
}

# logged STEP LOG REMEDY COMMAND...: the output goes to build/logs/LOG, and the
# progress of it to the terminal. On failure: the end of the log, and what to do.
logged() {
    step=$1 log=$logs/$2 remedy=$3
    shift 3
    say "$step (log: ${log#"$top"/})"
    : >"$log"
    watch_log "$log" $$ 9>&- &
    watcher=$!
    # In the foreground, so that Ctrl-C reaches it.
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$watcher" 2>/dev/null || :
    wait "$watcher" 2>/dev/null || :
    [ ! -t 2 ] || printf '\r' >&2
    [ "$status" = 0 ] && return 0
    tail -n 25 "$log" >&2
    die "$step" "see ${log#"$top"/}" "$remedy"
}

# watch_log LOG PID: shows how LOG gets on, for as long as PID lives.
watch_log() {
    shown=
    while kill -0 "$2" 2>/dev/null; do
        shown=$(progress "$1" "$shown")
        sleep 1
    done
}

# The newest "[n/m]" of ninja, or nothing: rewritten in place on a terminal,
# else one line for every tenth part.
progress() {
    now=$(tail -c 4096 "$1" | tr '\r' '\n' |
          sed -n 's/^\(\[[0-9]*\/[0-9]*\]\).*/\1/p' | tail -n 1)
    if [ -z "$now" ] || [ "$now" = "$2" ]; then
        printf '%s' "$2"
    elif [ -t 2 ]; then
        printf '\r   %s' "$now" >&2
        printf '%s' "$now"
    elif [ "$(tenth "$now")" != "$(tenth "${2:-[0/1]}")" ]; then
        printf '   %s\n' "$now" >&2
        printf '%s' "$now"
    else
        printf '%s' "$2"
    fi
}

tenth() {
    echo "$1" | tr '[]/' '   ' | { read -r n m; echo $((n * 10 / (m > 0 ? m : 1))); }
}

# QEMU's configure and make cannot live with these in a path.
case $top in
*[[:space:]:]*)
    die "start" "the clone's path has a space or colon: $top" "move it elsewhere" ;;
esac

# One run at a time works in build/; the lock goes with the process.
take_lock() {
    [ -z "${IVSHMEM_LOCKED:-}" ] || return 0
    exec 9>"$build/.lock"
    flock -n 9 || { say "waiting for another run in this clone"; flock 9; }
    IVSHMEM_LOCKED=1
    export IVSHMEM_LOCKED
}

# The compiler, through one ccache for every clone: paths do not count in it.
use_ccache() {
    cc=cc
    command -v ccache >/dev/null || return 0
    export CCACHE_DIR="$cache/ccache" CCACHE_BASEDIR="$top" CCACHE_NOHASHDIR=1
    cc='ccache cc'
}

# put FILE: standard input becomes FILE, at once or not at all, and keeps its
# time stamp when nothing changed.
put() {
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then rm -f "$1.new"; else mv "$1.new" "$1"; fi
}

# A folder of downloads is whole when its checksums, written last, are right.
verify_store() {
    [ -f "$1/SHA256SUMS" ] &&
        (cd "$1" && sha256sum --quiet --strict -c SHA256SUMS) >&2
}
seal_store() {
    (cd "$1" && find . -type f ! -name sums.new -exec sha256sum {} + >sums.new &&
        mv sums.new SHA256SUMS)
}

# The address from which this system takes its packages.
mirror() {
    . /etc/os-release
    apt-get indextargets --format '$(RELEASE) $(REPO_URI) $(COMPONENT)' \
            'Created-By: Packages' |
        awk -v codename="${VERSION_CODENAME:-}" '
            $3 == "main" && ($1 == codename || $1 == "stable" || $1 == "testing") {
                print $2; exit
            }'
}

# apt_private SUITE KIND ARGS...: apt-get with lists, cache and one source of its
# own under build/apt; the system's sources, lists and hooks are not touched.
apt_private() {
    suite=$1 kind=$2
    shift 2
    apt=$build/apt/$suite
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/empty"
    uri=$(mirror)
    [ -n "$uri" ] || die "private apt" \
        "apt-get indextargets names no main archive of this system" \
        "check the system's apt sources, or set QEMU_SRC=DIR"
    case $kind in deb) target=Packages ;; *) target=Sources ;; esac
    put "$apt/sources.list" <<END
$kind [target=$target signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main
END
    put "$apt/apt.conf" <<END
#clear APT::Update;
#clear DPkg::Post-Invoke;
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/empty";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$apt/empty";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "3";
END
    LC_ALL=C apt-get -c="$apt/apt.conf" "$@"
}
