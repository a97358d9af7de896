/*
 * ivshmem: our own vectors, from the eventfd a peer rings to the MSI-X message
 * the guest gets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_MSIX_H
#define HW_MISC_IVSHMEM_MSIX_H

#include "hw/pci/pci_device.h"
#include "qapi/qapi-types-ivshmem.h"

typedef struct IvshmemMsix IvshmemMsix;

/*
 * Give @pci an MSI-X capability with @vectors entries in BAR @bar.  KVM
 * delivers interrupts where it can (irqfd), else a thread does, which polls
 * for up to @poll_max_ns nanoseconds before it sleeps.  The vector notifiers
 * must be set to functions that call ivshmem_msix_update() and
 * ivshmem_msix_poll().  NULL on error.
 */
IvshmemMsix *ivshmem_msix_new(PCIDevice *pci, unsigned vectors, uint8_t bar,
                              uint32_t poll_max_ns, Error **errp);

/* Close all vectors and remove the capability.  NULL is fine. */
void ivshmem_msix_free(IvshmemMsix *msix);

/*
 * Rings on @fd become interrupts of @vector (< vectors) from now on; @fd
 * belongs to @msix.  Rings that came before are delivered too.  A vector that
 * was connected before is still heard on its old descriptor for
 * IVSHMEM_MSIX_LINGER_MS, since peers may not yet know the new one.
 */
void ivshmem_msix_connect(IvshmemMsix *msix, unsigned vector, int fd);

/* As long as peers that the server no longer lists can be rung. */
#define IVSHMEM_MSIX_LINGER_MS 30000

/* Bring one vector, or all, in line with what guest and VM state demand. */
void ivshmem_msix_update(IvshmemMsix *msix, unsigned vector);
void ivshmem_msix_update_all(IvshmemMsix *msix);

/* The guest reads the pending bits of vectors @start to @end - 1. */
void ivshmem_msix_poll(IvshmemMsix *msix, unsigned start, unsigned end);

/* Turn rings that were not delivered into pending bits, which migrate. */
void ivshmem_msix_save(IvshmemMsix *msix);

/* Device reset: undelivered rings stay with their eventfds. */
void ivshmem_msix_reset(IvshmemMsix *msix);

unsigned ivshmem_msix_vectors(const IvshmemMsix *msix);
void ivshmem_msix_info(IvshmemMsix *msix, unsigned vector,
                       IvshmemVectorInfo *info);

#endif /* HW_MISC_IVSHMEM_MSIX_H */
