# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2154
#
# Puts our glue into QEMU's own files, below $stage; overlay and series do so.
# Sourced after lib.sh. The caller defines stage_original FILE, which sees to it
# that QEMU's FILE lies there, and has_original FILE, whether QEMU has it. Not
# responsible for files that are ours alone.

glue=$top/scripts/qemu-glue
misfit="the glue is made for QEMU $qemu_series: use such a tree, or adapt scripts/qemu-glue"

# drop TABLE [FILE]: a line of TABLE is a file of QEMU's and the sed script that
# takes the incumbent's lines out of it. With FILE only the lines about that.
drop() {
    while read -r file script; do
        case $file in '#'* | '') continue ;; esac
        [ "${2:-$file}" = "$file" ] || continue
        stage_original "$file"
        sed "$script" "$stage/$file" >"$stage/dropped"
        ! cmp -s "$stage/$file" "$stage/dropped" ||
            die "lay over" "QEMU's $file lacks what $script should take out" "$misfit"
        mv "$stage/dropped" "$stage/$file"
    done <"$1"
}

# Whether the tree's FILE has WORD without us: "Unless: FILE WORD" in a patch
# leaves it out then, as newer trees bring what it adds.
has_already() {
    [ -n "$1" ] && has_original "${1% *}" || return 1
    stage_original "${1% *}"
    grep -q "${1#* }" "$stage/${1% *}"
}

patched_files() { sed -n 's,^+++ b/\([^[:space:]]*\).*,\1,p' "$1"; }

# A patch that says "Needs: FILE" waits until the project has that file.
apply_glue() {
    needs=$(sed -n 's/^Needs: //p' "$1")
    [ -z "$needs" ] || [ -f "$top/$needs" ] || return 0
    ! has_already "$(sed -n 's/^Unless: //p' "$1")" || return 0
    for file in $(patched_files "$1"); do
        stage_original "$file"
    done
    said=$(patch -d "$stage" -p1 --fuzz=0 --batch --forward --no-backup-if-mismatch \
                 -r "$build/rejected" <"$1" 2>&1) || {
        printf '%s\n' "$said" >&2
        cat "$build/rejected" >&2
        die "lay over" "${1##*/} does not fit this tree" "$misfit"
    }
}

# append/FILE goes to the end of QEMU's FILE.
append_glue() {
    stage_original "$1"
    { echo; cat "$glue/append/$1"; } >>"$stage/$1"
}
