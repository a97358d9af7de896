# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2207
#
# Completion for ivshmem-server in bash.

_ivshmem_server() {
    local cur prev words cword split
    _init_completion -s || return
    case $prev in
    -S | --socket | -p | --pid-file | --config | --control-socket)
        _filedir
        return ;;
    -m | --shm-dir)
        _filedir -d
        return ;;
    -M | --shm-name)
        COMPREPLY=($(cd /dev/shm 2>/dev/null && compgen -f -- "$cur"))
        return ;;
    -l | --size)
        COMPREPLY=($(compgen -W '1M 4M 16M 64M 256M 1G' -- "$cur"))
        return ;;
    --user | --socket-owner)
        COMPREPLY=($(compgen -u -- "$cur"))
        return ;;
    --group | --socket-group)
        COMPREPLY=($(compgen -g -- "$cur"))
        return ;;
    --socket-mode)
        COMPREPLY=($(compgen -W '0600 0660 0666' -- "$cur"))
        return ;;
    -n | --vectors | --first-id | --queue-limit | --stall-timeout | --ready-fd)
        return ;;
    esac
    $split && return
    COMPREPLY=($(compgen -W '-h --help -v --verbose -F --foreground -p
        --pid-file= -S --socket= -M --shm-name= -m --shm-dir= -l --size= -n
        --vectors= --socket-mode= --socket-owner= --socket-group= --first-id=
        --queue-limit= --stall-timeout= --ready-fd= --config= --check-config
        --replace --user= --group= --fdstore --status --json --metrics --watch
        --control-socket= --version' -- "$cur"))
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
} &&
    complete -F _ivshmem_server ivshmem-server
