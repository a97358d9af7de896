/*
 * An ivshmem server by script, for tests: what it sends, and whether that is
 * right, is the test's affair.  Framing is libivshmem's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/memfd.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-server-script.h"
#include "ivshmem-vm.h"

/* A wait that fails the test, far beyond what a loaded machine needs. */
#define SCRIPT_DEADLINE_MS (IVSHMEM_TEST_DEADLINE_S * 1000)

int ivshmem_memfd_new(uint64_t size)
{
    int fd = qemu_memfd_create("ivshmem-test", size, false, 0, 0,
                               &error_abort);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

IvshmemScript *ivshmem_script_new(uint64_t size)
{
    IvshmemScript *s = g_new0(IvshmemScript, 1);

    s->dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    s->path = g_build_filename(s->dir, "socket", NULL);
    s->listener = ivshmem_io_listen(s->path, 0600);
    g_assert_cmpint(s->listener, >=, 0);
    s->sock = -1;
    s->size = size;
    s->shm = ivshmem_memfd_new(size);
    memset(s->own, -1, sizeof(s->own));
    return s;
}

void ivshmem_script_close(IvshmemScript *s)
{
    ivshmem_fd_close(&s->sock);
    ivshmem_eventfds_close(s->own, s->vectors);
    s->vectors = 0;
}

void ivshmem_script_free(IvshmemScript *s)
{
    ivshmem_script_close(s);
    ivshmem_fd_close(&s->listener);
    ivshmem_fd_close(&s->shm);
    g_unlink(s->path);
    g_rmdir(s->dir);
    g_free(s->path);
    g_free(s->dir);
    g_free(s);
}

static bool script_wait(int fd, short events, int ms)
{
    GPollFD pfd = { .fd = fd, .events = events };

    return g_poll(&pfd, 1, ms) == 1;
}

void ivshmem_script_accept(IvshmemScript *s)
{
    ivshmem_script_close(s);
    g_assert_true(script_wait(s->listener, G_IO_IN, SCRIPT_DEADLINE_MS));
    s->sock = ivshmem_io_accept(s->listener);
    g_assert_cmpint(s->sock, >=, 0);
}

bool ivshmem_script_wait_eof(IvshmemScript *s, int ms)
{
    char byte;

    return script_wait(s->sock, G_IO_IN, ms) &&
           read(s->sock, &byte, 1) <= 0;
}

static bool script_all_read(IvshmemScript *s)
{
    int unread;

    g_assert_cmpint(ioctl(s->sock, SIOCOUTQ, &unread), ==, 0);
    return unread == 0;
}

void ivshmem_script_wait_read(IvshmemScript *s)
{
    IVSHMEM_WAIT(script_all_read(s));
}

bool ivshmem_script_try_send(IvshmemScript *s, int64_t value, int fd)
{
    IvshmemFrame frame = { .value = value, .fd = fd };
    ssize_t ret;

    while ((ret = ivshmem_io_send(s->sock, &frame, 1)) == -EAGAIN ||
           ret == -ETOOMANYREFS) {
        g_assert_true(script_wait(s->sock, G_IO_OUT, SCRIPT_DEADLINE_MS));
    }
    return ret == 1;
}

void ivshmem_script_send(IvshmemScript *s, int64_t value, int fd)
{
    g_assert_true(ivshmem_script_try_send(s, value, fd));
}

void ivshmem_script_send_raw(IvshmemScript *s, const void *data, size_t len,
                             int *fds, size_t n)
{
    IVSHMEM_FD_AUTO int sock = dup(s->sock);
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    QIOChannelSocket *channel = qio_channel_socket_new_fd(sock, &error_abort);

    ivshmem_fd_steal(&sock);    /* the channel closes it */
    g_assert_cmpint(qio_channel_writev_full(QIO_CHANNEL(channel), &iov, 1, fds,
                                            n, 0, &error_abort), ==, len);
    object_unref(OBJECT(channel));
}

void ivshmem_script_send_id(IvshmemScript *s, uint16_t id)
{
    s->id = id;
    ivshmem_script_send(s, IVSHMEM_PROTOCOL_VERSION, -1);
    ivshmem_script_send(s, id, -1);
}

void ivshmem_script_send_shm(IvshmemScript *s)
{
    ivshmem_script_send(s, IVSHMEM_VALUE_SHM, s->shm);
}

void ivshmem_script_send_own(IvshmemScript *s, unsigned vectors)
{
    g_assert_cmpuint(s->vectors + vectors, <=, IVSHMEM_SCRIPT_OWN_MAX);
    ivshmem_script_join(s, s->id, s->own + s->vectors, vectors);
    s->vectors += vectors;
}

void ivshmem_script_hello(IvshmemScript *s, uint16_t id, unsigned vectors)
{
    ivshmem_script_send_id(s, id);
    ivshmem_script_send_shm(s);
    ivshmem_script_send_own(s, vectors);
}

void ivshmem_script_join(IvshmemScript *s, uint16_t id, int *fds, unsigned n)
{
    ivshmem_eventfds_new(fds, n);
    for (unsigned i = 0; i < n; i++) {
        ivshmem_script_send(s, id, fds[i]);
    }
}

void ivshmem_script_leave(IvshmemScript *s, uint16_t id)
{
    ivshmem_script_send(s, id, -1);
}

void ivshmem_script_ring(IvshmemScript *s, unsigned vector)
{
    g_assert_cmpuint(vector, <, s->vectors);
    g_assert_cmpint(ivshmem_io_ring(s->own[vector]), ==, 0);
}

void ivshmem_eventfds_new(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = ivshmem_io_eventfd();
        g_assert_cmpint(fds[i], >=, 0);
    }
}

void ivshmem_eventfds_close(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ivshmem_fd_close(&fds[i]);
    }
}

bool ivshmem_eventfd_take(int fd)
{
    return ivshmem_io_drain(fd, NULL) == 0;
}
