# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154
#
# Suites of tests and their sum, for scripts/test and its modes. Sourced after
# lib.sh, with $tools, $qemu and $slower set. Builds nothing.

qtests='ivshmem-test qos-test device-introspect-test'
results=$build/results
counted=
rm -rf "$results"
mkdir -p "$results"

# needs NAME COMMAND...: a step without which a suite cannot run.
needs() {
    name=$1
    shift
    "$@" && return 0
    printf 'not ok 1 - %s\n1..1\n' "$name" >"$results/$name.tap"
    counted="$counted tap:$results/$name.tap"
    return 1
}

# suite KIND PATH COMMAND...: runs it and notes for the sum what count-tests is to
# read: its output, kept as PATH, or for meson the build folder PATH. A sum of its
# own is marked, for only the last line speaks for the whole.
suite() {
    counted="$counted $1:$2"
    case $1 in meson) log=$results/meson.log ;; *) log=$2 ;; esac
    shift 2
    { "$@" 2>&1 </dev/null || true; } | tee "$log" |
        sed -u 's/^\([0-9]* passed, \)/   \1/'
}

# skipped NAME REASON: what cannot run here, for the sum.
skipped() {
    printf 'ok 1 - %s # SKIP %s\n1..1\n' "$1" "$2" >"$results/$1.tap"
    counted="$counted tap:$results/$1.tap"
}

# unit_tests ARGS...: library and tools.
unit_tests() {
    say "unit tests and fuzz corpus"
    rm -f "$tools"/meson-logs/testlog.*
    suite meson "$tools" "$build/venv/bin/meson" test -C "$tools" --no-rebuild \
        --print-errorlogs -t "$slower" "$@"
}

# device_tests: what "make check-qtest" runs, cut to what has to do with us.
device_tests() {
    say "qtests"
    rm -f "$qemu"/meson-logs/testlog.*
    # shellcheck disable=SC2046 # one word per program
    suite meson "$qemu" "$qemu/pyvenv/bin/meson" test -C "$qemu" --no-rebuild \
        --print-errorlogs -t "$slower" $(printf 'qtest-x86_64/%s ' $qtests)
}

# with_programs COMMAND...: of this build, with its patience.
with_programs() {
    env IVSHMEM_BUILD="$tools" QEMU="$qemu/qemu-system-x86_64" \
        IVSHMEM_TEST_SCALE="$slower" /usr/bin/python3 "$@"
}

# sum: the last line of every mode, and its exit status.
sum() {
    say "all tests"
    # shellcheck disable=SC2086 # one word per result
    exec "$top/scripts/count-tests" $counted
}
