/*
 * A scripted server for tests of the peer API, see peer-script.h.
 *
 * Holds no test of its own, and keeps no state.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "peer-script.h"

int script_new(IvshmemPeer **peer)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds),
                    ==, 0);
    g_assert_cmpint(ivshmem_peer_attach(fds[0], peer), ==, 0);
    return fds[1];
}

int script_memory(void)
{
    int fd = memfd_create("ivshmem-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, SCRIPT_SHM_SIZE), ==, 0);
    return fd;
}

int script_eventfd(void)
{
    int fd = ivshmem_io_eventfd();

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

void script_send(int sock, int64_t value, int fd)
{
    IvshmemFrame frame = { .value = value, .fd = fd };

    g_assert_cmpint(ivshmem_io_send(sock, &frame, 1), ==, 1);
}

void script_send_part(int sock, int64_t value, int fd, size_t len)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {
        .header = {
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(sizeof(int)),
        },
    };
    struct iovec iov = { .iov_base = bytes, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    ivshmem_wire_encode(bytes, value);
    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
    }
    g_assert_cmpint(sendmsg(sock, &msg, MSG_NOSIGNAL), ==, len);
}

void script_give(int sock, int64_t value, int fd)
{
    g_assert_cmpint(fd, >=, 0);
    script_send(sock, value, fd);
    ivshmem_fd_close(&fd);
}

void script_vectors(int sock, int id, unsigned vectors, int *fds)
{
    for (unsigned v = 0; v < vectors; v++) {
        int fd = script_eventfd();

        script_send(sock, id, fd);
        if (fds) {
            fds[v] = fd;
        } else {
            ivshmem_fd_close(&fd);
        }
    }
}

void script_greet(int sock, int id, int shm)
{
    script_send(sock, IVSHMEM_PROTOCOL_VERSION, -1);
    script_send(sock, id, -1);
    script_send(sock, IVSHMEM_VALUE_SHM, shm);
}

void script_handshake(int sock, int id, int shm)
{
    script_greet(sock, id, shm);
    script_vectors(sock, 5, 2, NULL);
    script_vectors(sock, 9, 2, NULL);
    script_vectors(sock, id, 2, NULL);
}

IvshmemPeerEvent script_expect(IvshmemPeer *peer, IvshmemPeerEventType type)
{
    struct pollfd pollfd = { .fd = ivshmem_peer_fd(peer), .events = POLLIN };
    IvshmemPeerEvent event;

    /* The one pollable fd keeps its promise before every event. */
    g_assert_cmpint(poll(&pollfd, 1, SCRIPT_MS), ==, 1);
    g_assert_cmpint(ivshmem_peer_wait(peer, SCRIPT_MS, &event), ==, 1);
    g_assert_cmpint(event.type, ==, type);
    return event;
}

void script_expect_vector(IvshmemPeer *peer, int id, unsigned vector)
{
    IvshmemPeerEvent event = script_expect(peer, IVSHMEM_PEER_VECTOR);

    g_assert_cmpint(event.id, ==, id);
    g_assert_cmpuint(event.vector, ==, vector);
}

void script_expect_peer(IvshmemPeer *peer, IvshmemPeerEventType type, int id)
{
    g_assert_cmpint(script_expect(peer, type).id, ==, id);
}

void script_expect_rung(IvshmemPeer *peer, unsigned vector, unsigned count)
{
    IvshmemPeerEvent event = script_expect(peer, IVSHMEM_PEER_RUNG);

    g_assert_cmpuint(event.vector, ==, vector);
    g_assert_cmpuint(event.count, ==, count);
}

void script_expect_closed(IvshmemPeer *peer, int error)
{
    g_assert_cmpint(script_expect(peer, IVSHMEM_PEER_CLOSED).error, ==, error);
    g_assert_false(ivshmem_peer_connected(peer));
}

void script_expect_none(IvshmemPeer *peer)
{
    IvshmemPeerEvent event;

    g_assert_cmpint(ivshmem_peer_next(peer, &event), ==, 0);
    g_assert_cmpint(event.type, ==, IVSHMEM_PEER_NONE);
}

void script_expect_ready(IvshmemPeer *peer, int id)
{
    IvshmemPeerEvent event;

    do {
        g_assert_cmpint(ivshmem_peer_wait(peer, SCRIPT_MS, &event), ==, 1);
        g_assert_cmpint(event.type, !=, IVSHMEM_PEER_CLOSED);
    } while (event.type != IVSHMEM_PEER_READY);
    g_assert_cmpint(event.id, ==, id);
    g_assert_cmpint(ivshmem_peer_id(peer), ==, id);
}
