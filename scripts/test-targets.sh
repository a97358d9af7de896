# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2154
#
# What "test --all-targets" does besides: QEMU for aarch64 and ppc64 with our
# devices, its qtests there, and Linux guests on aarch64. Sourced by test, whose
# needs and suite it uses.

targets=$build/qemu-targets$other

if needs build-targets "$top/scripts/build-qemu" --targets \
        qemu-system-aarch64 qemu-system-ppc64 tests/qtest/ivshmem-test; then
    say "qtests for aarch64 and ppc64"
    rm -f "$targets"/meson-logs/testlog.*
    suite meson "$targets" "$targets/pyvenv/bin/meson" test -C "$targets" \
        --no-rebuild --print-errorlogs -t "$slower" \
        qtest-aarch64/ivshmem-test qtest-ppc64/ivshmem-test
    if needs build-tools "$top/scripts/build-tools"; then
        say "end-to-end tests on aarch64"
        suite summary "$results/e2e-targets.log" env IVSHMEM_BUILD="$build" \
            QEMU_AARCH64="$targets/qemu-system-aarch64" \
            /usr/bin/python3 "$top/tests/e2e/targets/run.py"
    fi
fi
