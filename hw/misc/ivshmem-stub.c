/*
 * ivshmem: QMP commands of a QEMU that is built without the devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/qapi-commands-ivshmem.h"

IvshmemInfoList *qmp_query_ivshmem(Error **errp)
{
    return NULL;
}
