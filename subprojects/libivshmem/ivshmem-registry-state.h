/*
 * A registry that moves to another process: a server hands over to its
 * successor, and no peer misses a frame.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_REGISTRY_STATE_H
#define IVSHMEM_REGISTRY_STATE_H

#include <glib.h>
#include "ivshmem-registry.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * All members, what each has been sent, and the ids that are free; reserved
 * ids are not part of it.  Descriptors are in it as the numbers they have here.
 * Floating, as GVariants are at birth.
 */
GVariant *ivshmem_registry_save(const IvshmemRegistry *registry);

/*
 * What was saved, in another process: @fd_of gives the descriptor for a number
 * in @state, which the registry owns on success.  Returns NULL if @state is not
 * what a registry saves.  Members have no memory and no opaque pointer yet.
 */
IVSHMEM_WARN_UNUSED
IvshmemRegistry *ivshmem_registry_restore(GVariant *state, uint16_t first_id,
                                          int (*fd_of)(int saved,
                                                       void *opaque),
                                          void *opaque);

/* As in IvshmemJoin, for a member that was restored. */
void ivshmem_member_attach(IvshmemMember *member, int shm_fd, void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_REGISTRY_STATE_H */
