/*
 * A host program's whole session with libivshmem's peers, once for each system
 * call that it makes, which fails.  What has failed is tried again, and then
 * everything must be as if nothing had been; descriptors are counted.
 *
 *   fault-peer PATH DOOR CALL ERRNO...
 *
 * PATH and DOOR are a server's sockets, DOOR one at which a newcomer replaces
 * who is there.  CALL fails in turn with each ERRNO; without one, prints how
 * often each is called.  Not responsible for the shim (shim.c, linked in), nor
 * for what errnos make sense (tests/e2e/fault.py).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <glib.h>
#include "fault.h"
#include "ivshmem-peer.h"

#define WAIT_MS 10000
#define VECTORS 2

/* One fault makes one call fail, and another one later as its consequence. */
#define TRIES 4

/* Comes never: only what is known counts. */
#define NO_EVENT ((IvshmemPeerEventType)-1)

static const char *what;

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) fail(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_printerr("fault-peer: %s: %s\n", what, text);
    exit(EXIT_FAILURE);
}

/* Only the calls of the peer under test count. */
#define FAULTY(expression) \
    (fault_control->on = 1, FAULTY_result = (expression), \
     fault_control->on = 0, FAULTY_result)

static int FAULTY_result;

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

/* An error is a negative number that has words. */
static bool went_well(int ret, int *tries)
{
    if (ret >= 0) {
        return true;
    }
    if (!*ivshmem_strerror(ret) || ++*tries > TRIES) {
        fail("failed %d times, in the end with %d (%s)", *tries, ret,
             ivshmem_strerror(ret));
    }
    return false;
}

/* Connected, and told of all: what went wrong on the way is tried again. */
static void make_ready(IvshmemPeer *peer, int *tries)
{
    int ret;

    do {
        ret = 0;
        if (!ivshmem_peer_connected(peer)) {
            ret = FAULTY(ivshmem_peer_reconnect(peer));
        }
        if (ret == 0) {
            ret = FAULTY(ivshmem_peer_wait_ready(peer, WAIT_MS));
        }
    } while (!went_well(ret, tries));
}

/*
 * Until an event comes, or @peer knows all vectors of @id.  False: it did not
 * in time, or a ring that was awaited may have gone with the connection.
 */
static bool take_events(IvshmemPeer *peer, IvshmemPeerEventType type, int id,
                        int timeout_ms, int *tries)
{
    gint64 end = g_get_monotonic_time() + timeout_ms * 1000LL;
    IvshmemPeerEvent event = { .type = IVSHMEM_PEER_NONE };
    int tried = *tries;

    while (event.type != type &&
           (id < 0 || ivshmem_peer_vectors_of(peer, (uint16_t)id) < VECTORS)) {
        int ret = FAULTY(ivshmem_peer_wait(peer, 50, &event));

        if (ret != 1) {
            event.type = IVSHMEM_PEER_NONE;
        }
        if ((ret == IVSHMEM_E_TIMEOUT && g_get_monotonic_time() > end) ||
            (type == IVSHMEM_PEER_RUNG && *tries > tried)) {
            return false;
        }
        if ((ret == IVSHMEM_E_TIMEOUT || went_well(ret, tries)) &&
            event.type == IVSHMEM_PEER_CLOSED &&
            type != IVSHMEM_PEER_CLOSED) {
            went_well(event.error, tries);
            make_ready(peer, tries);
        }
    }
    return true;
}

/* What the one that is not under test is told is out of the way. */
static void catch_up(IvshmemPeer *other, bool alone)
{
    IvshmemPeerEvent event;
    int ret;

    do {
        ret = alone && ivshmem_peer_next_id(other, -1) >= 0
            ? ivshmem_peer_wait(other, WAIT_MS, &event)
            : ivshmem_peer_next(other, &event);
    } while (ret == 1);
    if (ret < 0) {
        fail("the other peer: %s", ivshmem_strerror(ret));
    }
}

/* Rings @peer, who has to notice the first ring if nothing has failed. */
static void ring_it(IvshmemPeer *peer, IvshmemPeer *other, int *tries)
{
    int timeout_ms = *tries ? 100 : WAIT_MS;

    for (int i = 0; i < WAIT_MS / 100; i++) {
        uint16_t id = (uint16_t)ivshmem_peer_id(peer);

        while (ivshmem_peer_vectors_of(other, id) < VECTORS) {
            IvshmemPeerEvent event;

            if (ivshmem_peer_wait(other, WAIT_MS, &event) != 1) {
                fail("the other is not told of it");
            }
        }
        if (ivshmem_peer_ring(other, id, 0) == 0 &&
            take_events(peer, IVSHMEM_PEER_RUNG, -1, timeout_ms, tries)) {
            return;
        }
        if (*tries == 0) {
            break;
        }
        catch_up(other, false);
        timeout_ms = 100;
    }
    fail("a ring was lost");
}

/* The one that is under test and one that is not ring each other. */
static void ring_both_ways(IvshmemPeer *peer, IvshmemPeer *other, int *tries)
{
    IvshmemPeerEvent event;

    if (!take_events(peer, NO_EVENT, ivshmem_peer_id(other), WAIT_MS,
                     tries)) {
        fail("it is not told of the other");
    }
    while (!went_well(FAULTY(ivshmem_peer_ring(
               peer, (uint16_t)ivshmem_peer_id(other), 1)), tries)) {
    }
    do {
        if (ivshmem_peer_wait(other, WAIT_MS, &event) != 1) {
            fail("its ring did not arrive");
        }
    } while (event.type != IVSHMEM_PEER_RUNG);
    ring_it(peer, other, tries);
}

static IvshmemPeer *connect_peer(const char *path)
{
    IvshmemPeerEvent event;
    IvshmemPeer *peer;

    if (ivshmem_peer_connect(path, &peer) < 0) {
        fail("the server is not there");
    }
    while (ivshmem_peer_vectors(peer) < VECTORS) {
        if (ivshmem_peer_wait(peer, WAIT_MS, &event) != 1) {
            fail("the server does not say all");
        }
    }
    return peer;
}

static void session(const char *door, IvshmemPeer *other)
{
    IvshmemPeer *peer = NULL, *usurper;
    uint64_t size;
    char *memory, *theirs;
    int tries = 0;

    while (!went_well(FAULTY(ivshmem_peer_connect(door, &peer)), &tries)) {
    }
    make_ready(peer, &tries);
    while (!went_well(FAULTY(ivshmem_peer_map(peer, true, (void **)&memory,
                                              &size)), &tries)) {
    }
    ring_both_ways(peer, other, &tries);
    /* Somebody takes its place, and it comes back. */
    usurper = connect_peer(door);
    if (!take_events(peer, IVSHMEM_PEER_CLOSED, -1, WAIT_MS, &tries)) {
        fail("it did not notice the end of its connection");
    }
    ivshmem_peer_free(usurper);
    catch_up(other, true);
    make_ready(peer, &tries);
    ring_both_ways(peer, other, &tries);
    if (ivshmem_peer_map(other, true, (void **)&theirs, NULL) < 0) {
        fail("no memory");
    }
    strcpy(memory, what);
    if (strcmp(theirs, what) != 0 || size != 65536) {
        fail("the memory is another");
    }
    fault_control->on = 1;
    ivshmem_peer_free(peer);
    fault_control->on = 0;
}

static uint32_t call_number(const char *name)
{
    for (uint32_t i = 0; i < fault_control->calls; i++) {
        if (strcmp(fault_control->call[i].name, name) == 0) {
            return i;
        }
    }
    fail("the shim knows no %s", name);
}

static void run_once(const char *door, IvshmemPeer *other, uint32_t which,
                     uint32_t nth, int error)
{
    g_autofree char *text = g_strdup_printf(
        "%s number %u: %s", fault_control->call[which].name, nth,
        error ? g_strerror(error) : "no fault");
    int before;

    what = text;
    for (uint32_t i = 0; i < fault_control->calls; i++) {
        fault_control->call[i].count = 0;
    }
    fault_control->which = which;
    fault_control->nth = nth;
    fault_control->error = error;
    before = descriptors();
    session(door, other);
    catch_up(other, true);
    if (descriptors() != before) {
        fail("%d descriptors, before it was %d", descriptors(), before);
    }
    what = "between";
}

int main(int argc, char **argv)
{
    IvshmemPeer *other;
    uint32_t which, calls;
    int faults = 0;

    what = "start";
    if (argc < 3) {
        fail("usage: fault-peer PATH DOOR [CALL ERRNO...]");
    }
    other = connect_peer(argv[1]);
    which = argc > 3 ? call_number(argv[3]) : 0;
    run_once(argv[2], other, which, 0, 0);
    if (argc == 3) {
        for (uint32_t i = 0; i < fault_control->calls; i++) {
            g_print("%s %u\n", fault_control->call[i].name,
                    fault_control->call[i].count);
        }
    }
    calls = fault_control->call[which].count;
    for (int i = 4; i < argc; i++) {
        for (uint32_t nth = 1; nth <= calls; nth++) {
            run_once(argv[2], other, which, nth, atoi(argv[i]));
            faults++;
        }
    }
    ivshmem_peer_free(other);
    g_print("faults %d\n", faults);
    return EXIT_SUCCESS;
}
