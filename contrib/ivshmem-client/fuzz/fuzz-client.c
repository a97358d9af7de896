/*
 * Fuzz target: any command line.
 *
 * Lines: those up to the first empty one are arguments of the program, those
 * behind it commands.  Commands run against a server that has said who is
 * there, and then gone: nothing waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "command.h"
#include "fuzz.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "options.h"

#define MEMORY_SIZE 65536
#define RINGS_MAX 1000

int __wrap_ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector);
int __real_ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector);
int __wrap_ivshmem_peer_wait(IvshmemPeer *peer, int timeout_ms,
                             IvshmemPeerEvent *event);
int __real_ivshmem_peer_wait(IvshmemPeer *peer, int timeout_ms,
                             IvshmemPeerEvent *event);

static unsigned rings;

/* "int 5 0 4000000000" is fine, but takes too long here. */
int __wrap_ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector)
{
    return rings++ < RINGS_MAX ? __real_ivshmem_peer_ring(peer, id, vector)
                               : -EIO;
}

/* Nothing is on its way: no use in waiting, as ping does. */
int __wrap_ivshmem_peer_wait(IvshmemPeer *peer,
                             int timeout_ms G_GNUC_UNUSED,
                             IvshmemPeerEvent *event)
{
    return __real_ivshmem_peer_wait(peer, 0, event);
}

static void keep_silent(const char *text G_GNUC_UNUSED)
{
}

static void server_say(int sock, int64_t value, int fd)
{
    IvshmemFrame frame = { .value = value, .fd = fd };

    g_assert_cmpint(ivshmem_io_send(sock, &frame, 1), ==, 1);
    ivshmem_fd_close(&fd);
}

/* Returns our end; the server's is closed already. */
static int server_new(void)
{
    int pair[2], shm = memfd_create("shm", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(shm, MEMORY_SIZE), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    server_say(pair[0], IVSHMEM_PROTOCOL_VERSION, -1);
    server_say(pair[0], 7, -1);
    server_say(pair[0], -1, shm);
    for (int i = 0; i < 4; i++) {
        server_say(pair[0], i < 2 ? 5 : 7,
                   eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    }
    ivshmem_fd_close(&pair[0]);
    return pair[1];
}

/* GLib answers --help itself, and ends the program. */
static bool asks_for_help(const char *arg)
{
    return *arg == '-' && (strstr(arg, "help") || strchr(arg, 'h') ||
                           strchr(arg, '?'));
}

static void run_options(char **args, unsigned n)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    Options options;

    g_ptr_array_add(argv, (char *)"ivshmem-client");
    for (unsigned i = 0; i < n; i++) {
        if (!asks_for_help(args[i])) {
            g_ptr_array_add(argv, args[i]);
        }
    }
    g_ptr_array_add(argv, NULL);
    if (options_parse(&options, (int)argv->len - 1, (char **)argv->pdata,
                      &error)) {
        g_assert_no_error(error);
        g_assert_cmpint(options.timeout_ms, >=, CLIENT_FOREVER);
    } else {
        g_assert_true(error && *error->message);
    }
    options_clear(&options);
}

static void run_commands(char **lines, bool json)
{
    Client client = { .path = "here", .json = json };
    g_autoptr(GError) error = NULL;

    rings = 0;
    g_assert_true(client_open(&client, server_new(), CLIENT_FOREVER, &error));
    for (; *lines && command_run(&client, *lines) != COMMAND_QUIT; lines++) {
        g_assert_true(client.lost);
    }
    client_close(&client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    unsigned n = 0;

    g_set_printerr_handler(keep_silent);
    if (!freopen("/dev/null", "w", stdout)) {
        return 0;
    }
    while (lines[n] && *lines[n]) {
        n++;
    }
    run_options(lines, n);
    if (lines[n]) {
        run_commands(lines + n + 1, size & 1);
    }
    return 0;
}
