/*
 * ivshmem-guest: the commands; each returns true for success.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_GUEST_COMMAND_H
#define IVSHMEM_GUEST_COMMAND_H

#include "guest.h"

typedef bool IvshmemCommandFunc(const IvshmemOptions *opt, int argc, char **argv,
                                IvshmemError *err);

IvshmemCommandFunc ivshmem_command_list;
IvshmemCommandFunc ivshmem_command_info;
IvshmemCommandFunc ivshmem_command_bind;
IvshmemCommandFunc ivshmem_command_unbind;
IvshmemCommandFunc ivshmem_command_read;
IvshmemCommandFunc ivshmem_command_write;
IvshmemCommandFunc ivshmem_command_dump;
IvshmemCommandFunc ivshmem_command_fill;
IvshmemCommandFunc ivshmem_command_cat;
IvshmemCommandFunc ivshmem_command_ring;
IvshmemCommandFunc ivshmem_command_wait;
IvshmemCommandFunc ivshmem_command_ping;
IvshmemCommandFunc ivshmem_command_bench;
IvshmemCommandFunc ivshmem_command_chat;

#endif /* IVSHMEM_GUEST_COMMAND_H */
