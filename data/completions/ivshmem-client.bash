# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2207
#
# Completion for ivshmem-client in bash.

_ivshmem_client() {
    local cur prev words cword split
    _init_completion -s || return
    case $prev in
    -S | --socket)
        _filedir
        return ;;
    -c | --command)
        COMPREPLY=($(compgen -W 'cat dump fill help id info int peek ping poke
            pong quit ring wait wait-gone wait-peer wait-peers' -- "$cur"))
        return ;;
    --timeout)
        COMPREPLY=($(compgen -W '500ms 5s 1m forever' -- "$cur"))
        return ;;
    --fd)
        return ;;
    esac
    $split && return
    COMPREPLY=($(compgen -W '-h --help -S --socket= --fd= -c --command= --json
        --events --reconnect --timeout= -v --verbose --version' -- "$cur"))
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
} &&
    complete -F _ivshmem_client ivshmem-client
