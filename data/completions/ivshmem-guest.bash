# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2207
#
# Completion for ivshmem-guest in bash.

_ivshmem_guest() {
    local cur prev words cword split
    _init_completion -s || return
    case $prev in
    -d | --device)
        COMPREPLY=($(compgen -W "$(ivshmem-guest list 2>/dev/null |
            sed -n 's/^\([0-9a-f]*:[0-9a-f.:]*\) .*/\1/p')" -- "$cur"))
        return ;;
    --via)
        COMPREPLY=($(compgen -W 'auto vfio sysfs uio' -- "$cur"))
        return ;;
    -m | --map)
        COMPREPLY=($(compgen -W 'auto uc wc' -- "$cur"))
        return ;;
    --sysfs)
        _filedir -d
        return ;;
    -c | --count | -t | --timeout | -x | --vector | -o | --offset | -s | --size | \
        -e | --expect)
        return ;;
    esac
    $split && return
    if [[ $cword -eq 1 && $cur != -* ]]; then
        COMPREPLY=($(compgen -W 'list info bind unbind read write dump fill cat
            ring wait ping bench chat' -- "$cur"))
        return
    fi
    COMPREPLY=($(compgen -W '-d --device= --via= -m --map= -c --count= -t
        --timeout= -x --vector= -o --offset= -s --size= -a --answer -r --reply
        -l --lead -e --expect= --no-iommu -j --json -v --verbose --sysfs= -h
        --help --version' -- "$cur"))
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
} &&
    complete -F _ivshmem_guest ivshmem-guest
