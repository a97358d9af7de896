/*
 * Example: a peer in the GLib main loop.
 *
 *   mainloop SOCKET RINGS    print events; end after RINGS rings of vector 0
 *
 * Shows two ways beside each other: all events by the one pollable fd, and one
 * vector by a source of its own, as one would have it with another priority or
 * in another thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib-unix.h>
#include "ivshmem-io.h"
#include "ivshmem-peer.h"

typedef struct Example {
    GMainLoop *loop;
    IvshmemPeer *peer;
    guint64 rings, wanted;
    int status;
} Example;

static void example_end(Example *example, int status)
{
    example->status = status;
    g_main_loop_quit(example->loop);
}

/*
 * Our vector 0 is rung: the eventfd counts.  A plain read() could wait, since
 * others hold the same eventfd, may be faster, and QEMU makes it blocking.
 */
static gboolean example_on_vector(int fd, GIOCondition condition G_GNUC_UNUSED,
                                  gpointer opaque)
{
    Example *example = opaque;
    guint64 count;

    if (ivshmem_io_drain(fd, &count) == 0) {
        example->rings += count;
        g_print("vector 0: %" G_GUINT64_FORMAT "\n", example->rings);
    }
    if (example->rings >= example->wanted) {
        example_end(example, 0);
    }
    return G_SOURCE_CONTINUE;
}

static void example_event(Example *example, const IvshmemPeerEvent *event)
{
    int fd;

    switch (event->type) {
    case IVSHMEM_PEER_READY:
        g_print("connected as peer %u\n", event->id);
        break;
    case IVSHMEM_PEER_JOINED:
        g_print("peer %u has joined\n", event->id);
        break;
    case IVSHMEM_PEER_LEFT:
        g_print("peer %u has left\n", event->id);
        break;
    case IVSHMEM_PEER_RUNG:
        g_print("vector %u: %" G_GUINT64_FORMAT "\n", event->vector,
                event->count);
        break;
    case IVSHMEM_PEER_VECTOR:
        if (event->id == ivshmem_peer_id(example->peer) && !event->vector) {
            fd = ivshmem_peer_take_vector(example->peer, 0);
            g_unix_fd_add(fd, G_IO_IN, example_on_vector, example);
        }
        break;
    case IVSHMEM_PEER_CLOSED:
        g_printerr("mainloop: %s\n", ivshmem_strerror(event->error));
        example_end(example, 1);
        break;
    case IVSHMEM_PEER_NONE:
        break;
    }
}

static gboolean example_on_peer(int fd G_GNUC_UNUSED,
                                GIOCondition condition G_GNUC_UNUSED,
                                gpointer opaque)
{
    Example *example = opaque;
    IvshmemPeerEvent event;

    /* One at a time: the fd stays readable while there are more. */
    if (ivshmem_peer_next(example->peer, &event) == 1) {
        example_event(example, &event);
    }
    return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv)
{
    Example example = { NULL };
    int ret;

    if (argc != 3) {
        g_printerr("usage: mainloop SOCKET RINGS\n");
        return 2;
    }
    example.wanted = g_ascii_strtoull(argv[2], NULL, 10);
    ret = ivshmem_peer_connect(argv[1], &example.peer);
    if (ret < 0) {
        g_printerr("mainloop: %s: %s\n", argv[1], ivshmem_strerror(ret));
        return 1;
    }
    example.loop = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(ivshmem_peer_fd(example.peer), G_IO_IN, example_on_peer,
                  &example);
    g_main_loop_run(example.loop);
    g_main_loop_unref(example.loop);
    ivshmem_peer_free(example.peer);
    return example.status;
}
