/*
 * ivshmem: our own vectors, from the eventfd a peer rings to the MSI-X message
 * the guest gets.
 *
 * A vector is *live* while the VM runs, the guest has it enabled and unmasked,
 * and its message can be sent.  Only then is its eventfd listened to, by KVM
 * (irqfd) or by a thread of ours; at all other times the eventfd's own counter
 * keeps the rings.  Not responsible for how descriptors arrive
 * (ivshmem-link.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "ivshmem-io.h"
#include "ivshmem-msix.h"
#include "ivshmem-watch.h"
#include "trace.h"

/*
 * Restarts of the server within IVSHMEM_MSIX_LINGER_MS that lose no ring; one
 * that dies again and again must not use up all descriptors.
 */
#define IVSHMEM_MSIX_RETIRED_MAX 2

typedef struct MsixVector {
    IvshmemMsix *msix;
    EventNotifier notifier;
    bool connected;
    bool live;
    bool irqfd;                 /* live by KVM */
    IvshmemWatch *watch;        /* live by our thread, or was */
    int virq;                   /* KVM's route; -1: none */
    MSIMessage message;         /* of that route */
    unsigned retired;           /* descriptors of former connections */
    uint64_t delivered;
} MsixVector;

/* The descriptor of a connection that is no more. */
typedef struct MsixRetired {
    EventNotifier notifier;
    MsixVector *vector;
    int64_t expires;
    QTAILQ_ENTRY(MsixRetired) next;
} MsixRetired;

struct IvshmemMsix {
    PCIDevice *pci;
    unsigned n;
    MsixVector *vector;
    IvshmemWatcher *watcher;    /* NULL: KVM delivers */
    QTAILQ_HEAD(, MsixRetired) retired;
    QEMUTimer *linger;
};

static unsigned vector_number(const MsixVector *v)
{
    return v - v->msix->vector;
}

static void vector_notify(MsixVector *v)
{
    v->delivered++;
    trace_ivshmem_interrupt(v->msix->pci->name, vector_number(v));
    msix_notify(v->msix->pci, vector_number(v));
}

/* Whether there were rings.  Peers hold the eventfd too: never wait for one. */
static bool notifier_rung(const EventNotifier *notifier)
{
    return ivshmem_io_drain(event_notifier_get_fd(notifier), NULL) == 0;
}

static void vector_rung(void *opaque)
{
    MsixVector *v = opaque;

    if (notifier_rung(&v->notifier)) {
        vector_notify(v);
    }
}

static void vector_readable(EventNotifier *notifier)
{
    vector_rung(container_of(notifier, MsixVector, notifier));
}

/* KVM */

static bool vector_route_new(MsixVector *v)
{
    KVMRouteChange change = kvm_irqchip_begin_route_changes(kvm_state);
    int virq = kvm_irqchip_add_msi_route(&change, vector_number(v),
                                         v->msix->pci);

    if (virq < 0) {
        trace_ivshmem_irqfd_refused(v->msix->pci->name, vector_number(v),
                                    virq);
        return false;
    }
    kvm_irqchip_commit_route_changes(&change);
    v->virq = virq;
    return true;
}

/* The message counts at the moment of unmasking, no earlier. */
static bool vector_route(MsixVector *v)
{
    MSIMessage message = msix_get_message(v->msix->pci, vector_number(v));

    if (v->virq < 0) {
        if (!vector_route_new(v)) {
            return false;
        }
    } else if (message.address != v->message.address ||
               message.data != v->message.data) {
        int ret = kvm_irqchip_update_msi_route(kvm_state, v->virq, message,
                                               v->msix->pci);

        if (ret < 0) {
            trace_ivshmem_irqfd_refused(v->msix->pci->name, vector_number(v),
                                        ret);
            return false;
        }
        kvm_irqchip_commit_routes(kvm_state);
    }
    v->message = message;
    return true;
}

static void vector_release_route(MsixVector *v)
{
    if (v->virq >= 0) {
        kvm_irqchip_release_virq(kvm_state, v->virq);
        v->virq = -1;
    }
}

static bool vector_add_irqfd(MsixVector *v)
{
    int ret;

    if (!kvm_msi_via_irqfd_enabled() || !vector_route(v)) {
        return false;
    }
    ret = kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &v->notifier, NULL,
                                             v->virq);
    if (ret < 0) {
        trace_ivshmem_irqfd_refused(v->msix->pci->name, vector_number(v), ret);
        vector_release_route(v);
    }
    return ret >= 0;
}

/* Our thread */

static bool vector_start_watch(MsixVector *v)
{
    IvshmemMsix *msix = v->msix;

    if (msix->watcher && !v->watch) {
        v->watch = ivshmem_watch_new(msix->watcher,
                                     event_notifier_get_fd(&v->notifier),
                                     vector_rung, v);
    }
    if (v->watch) {
        ivshmem_watch_set(v->watch, true);
    }
    return v->watch;
}

/* Going live and back */

static void vector_start(MsixVector *v)
{
    PCIDevice *pci = v->msix->pci;

    v->irqfd = vector_add_irqfd(v);
    if (!v->irqfd && !vector_start_watch(v)) {
        event_notifier_set_handler(&v->notifier, vector_readable);
    }
    v->live = true;
    trace_ivshmem_vector_live(pci->name, vector_number(v), v->irqfd);
}

static void vector_stop(MsixVector *v)
{
    if (!v->live) {
        return;
    }
    if (v->irqfd) {
        int ret = kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state,
                                                        &v->notifier, v->virq);

        if (ret < 0) {
            trace_ivshmem_irqfd_refused(v->msix->pci->name, vector_number(v),
                                        ret);
        }
    } else if (v->watch) {
        ivshmem_watch_set(v->watch, false);
    } else {
        event_notifier_set_handler(&v->notifier, NULL);
    }
    v->live = false;
    v->irqfd = false;
    trace_ivshmem_vector_quiet(v->msix->pci->name, vector_number(v));
}

/* KVM sends messages without regard to bus mastering, QEMU would drop them. */
static bool msix_can_send(const PCIDevice *pci)
{
    return kvm_msi_via_irqfd_enabled() ||
           pci_get_word(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

static bool vector_wanted(const MsixVector *v)
{
    PCIDevice *pci = v->msix->pci;

    return v->connected && runstate_is_running() && msix_enabled(pci) &&
           !msix_is_masked(pci, vector_number(v)) && msix_can_send(pci);
}

/*
 * While the VM was stopped, a save or a look at the pending bits took the rings
 * from the eventfd.
 */
static void vector_deliver_pending(MsixVector *v)
{
    PCIDevice *pci = v->msix->pci;
    unsigned n = vector_number(v);

    if (pci->msix_pba[n / 8] & (1u << n % 8)) {
        msix_clr_pending(pci, n);
        vector_notify(v);
    }
}

void ivshmem_msix_update(IvshmemMsix *msix, unsigned vector)
{
    MsixVector *v = &msix->vector[vector];

    if (!vector_wanted(v)) {
        vector_stop(v);
        return;
    }
    if (v->live && v->irqfd) {
        MSIMessage message = msix_get_message(msix->pci, vector);

        if (message.address != v->message.address ||
            message.data != v->message.data) {
            vector_stop(v);
        }
    }
    if (!v->live) {
        vector_start(v);
    }
    vector_deliver_pending(v);
}

void ivshmem_msix_update_all(IvshmemMsix *msix)
{
    bool enabled = msix_enabled(msix->pci);

    for (unsigned i = 0; i < msix->n; i++) {
        ivshmem_msix_update(msix, i);
        if (!enabled) {
            vector_release_route(&msix->vector[i]);
        }
    }
}

void ivshmem_msix_poll(IvshmemMsix *msix, unsigned start, unsigned end)
{
    if (!msix_enabled(msix->pci)) {
        return;
    }
    for (unsigned i = start; i < MIN(end, msix->n); i++) {
        MsixVector *v = &msix->vector[i];

        if (v->connected && !v->live &&
            notifier_rung(&v->notifier)) {
            msix_set_pending(msix->pci, i);
        }
    }
}

void ivshmem_msix_save(IvshmemMsix *msix)
{
    for (unsigned i = 0; i < msix->n; i++) {
        MsixVector *v = &msix->vector[i];

        if (v->connected && !v->live &&
            notifier_rung(&v->notifier)) {
            msix_set_pending(msix->pci, i);
        }
    }
}

void ivshmem_msix_reset(IvshmemMsix *msix)
{
    for (unsigned i = 0; i < msix->n; i++) {
        MsixVector *v = &msix->vector[i];

        vector_stop(v);
        vector_release_route(v);
    }
}

/* Connections */

/* Its successor can be the same eventfd: ringing that would never end. */
static void retired_rung(EventNotifier *notifier)
{
    MsixVector *v = container_of(notifier, MsixRetired, notifier)->vector;

    if (!notifier_rung(notifier)) {
        return;
    }
    if (v->live) {
        vector_notify(v);
    } else {
        msix_set_pending(v->msix->pci, vector_number(v));
    }
}

static void retired_free(IvshmemMsix *msix, MsixRetired *old)
{
    QTAILQ_REMOVE(&msix->retired, old, next);
    old->vector->retired--;
    event_notifier_set_handler(&old->notifier, NULL);
    event_notifier_cleanup(&old->notifier);
    g_free(old);
}

static void msix_expire(void *opaque)
{
    IvshmemMsix *msix = opaque;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    MsixRetired *old;

    while ((old = QTAILQ_FIRST(&msix->retired)) && old->expires <= now) {
        retired_free(msix, old);
    }
    if (old) {
        timer_mod(msix->linger, old->expires);
    }
}

static void vector_limit_retired(MsixVector *v)
{
    MsixRetired *old;

    if (++v->retired <= IVSHMEM_MSIX_RETIRED_MAX) {
        return;
    }
    QTAILQ_FOREACH(old, &v->msix->retired, next) {
        if (old->vector == v) {
            retired_free(v->msix, old);
            return;
        }
    }
}

static void vector_retire(MsixVector *v)
{
    IvshmemMsix *msix = v->msix;
    MsixRetired *old = g_new0(MsixRetired, 1);

    vector_stop(v);
    ivshmem_watch_free(g_steal_pointer(&v->watch));
    old->vector = v;
    event_notifier_init_fd(&old->notifier,
                           event_notifier_get_fd(&v->notifier));
    old->expires = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                   IVSHMEM_MSIX_LINGER_MS;
    QTAILQ_INSERT_TAIL(&msix->retired, old, next);
    event_notifier_set_handler(&old->notifier, retired_rung);
    vector_limit_retired(v);
    if (!timer_pending(msix->linger)) {
        timer_mod(msix->linger, old->expires);
    }
}

void ivshmem_msix_connect(IvshmemMsix *msix, unsigned vector, int fd)
{
    MsixVector *v = &msix->vector[vector];

    if (v->connected) {
        vector_retire(v);
    }
    event_notifier_init_fd(&v->notifier, fd);
    v->connected = true;
    ivshmem_msix_update(msix, vector);
}

/* Life */

IvshmemMsix *ivshmem_msix_new(PCIDevice *pci, unsigned vectors, uint8_t bar,
                              uint32_t poll_max_ns, Error **errp)
{
    IvshmemMsix *msix;

    if (msix_init_exclusive_bar(pci, vectors, bar, errp) < 0) {
        return NULL;
    }
    msix = g_new0(IvshmemMsix, 1);
    msix->pci = pci;
    msix->n = vectors;
    msix->vector = g_new0(MsixVector, vectors);
    msix->linger = timer_new_ms(QEMU_CLOCK_REALTIME, msix_expire, msix);
    QTAILQ_INIT(&msix->retired);
    /* Not later: a vCPU would pass its CPU affinity on to the thread. */
    if (!kvm_msi_via_irqfd_enabled()) {
        msix->watcher = ivshmem_watcher_new(poll_max_ns);
    }
    for (unsigned i = 0; i < vectors; i++) {
        msix->vector[i].msix = msix;
        msix->vector[i].virq = -1;
        msix_vector_use(pci, i);
    }
    return msix;
}

void ivshmem_msix_free(IvshmemMsix *msix)
{
    MsixRetired *old, *next;

    if (!msix) {
        return;
    }
    timer_free(msix->linger);
    QTAILQ_FOREACH_SAFE(old, &msix->retired, next, next) {
        retired_free(msix, old);
    }
    ivshmem_msix_reset(msix);
    for (unsigned i = 0; i < msix->n; i++) {
        ivshmem_watch_free(g_steal_pointer(&msix->vector[i].watch));
        if (msix->vector[i].connected) {
            event_notifier_cleanup(&msix->vector[i].notifier);
        }
    }
    ivshmem_watcher_free(msix->watcher);
    msix_uninit_exclusive_bar(msix->pci);
    g_free(msix->vector);
    g_free(msix);
}

unsigned ivshmem_msix_vectors(const IvshmemMsix *msix)
{
    return msix->n;
}

void ivshmem_msix_info(IvshmemMsix *msix, unsigned vector,
                       IvshmemVectorInfo *info)
{
    MsixVector *v = &msix->vector[vector];
    PCIDevice *pci = msix->pci;

    ivshmem_msix_poll(msix, vector, vector + 1);
    *info = (IvshmemVectorInfo) {
        .vector = vector,
        .connected = v->connected,
        .masked = !msix_enabled(pci) || msix_is_masked(pci, vector),
        .pending = pci->msix_pba[vector / 8] & (1u << vector % 8),
        .irqfd = v->irqfd,
        .delivered = v->delivered,
    };
}
