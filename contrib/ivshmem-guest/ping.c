/*
 * ivshmem-guest: ping - round trips of a message to another guest and back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "channel.h"
#include "command.h"

#define IVSHMEM_PING_COUNT      10
#define IVSHMEM_PING_COUNT_MAX  10000000
#define IVSHMEM_PING_SHOWN      20      /* with more, only the summary */
#define IVSHMEM_PING_TIMEOUT    (INT64_C(10) * 1000000000)

/*
 * Waits for a message of any kind; false after the deadline.  After something
 * was sent, the answer is looked for only when its interrupt has come
 * (@interrupt_first): else what is timed would be the luck of having looked.
 */
static bool ivshmem_ping_receive(IvshmemChannel *channel, IvshmemMessage *message,
                                 bool interrupt_first, int64_t deadline,
                                 IvshmemError *err)
{
    int ret = 0;

    for (;;) {
        if (!interrupt_first) {
            ret = ivshmem_channel_receive(channel, message, err);
            if (ret) {
                return ret > 0;
            }
        }
        interrupt_first = false;
        ret = ivshmem_channel_wait(channel, deadline, -1, err);
        if (ret < 0) {
            return false;
        }
        if (ret == 0) {
            return ivshmem_error_set(err, "no answer from peer %u in time%s",
                                     channel->peer, channel->doorbell ?
                                     ": a message or an interrupt was lost, or it is "
                                     "stopped" : "");
        }
    }
}

static bool ivshmem_ping_once(IvshmemChannel *channel, uint32_t sequence,
                              int64_t timeout, int64_t *ns, IvshmemError *err)
{
    uint32_t number = htole32(sequence);
    int64_t begin = ivshmem_now_ns(), deadline = ivshmem_deadline(timeout);
    IvshmemMessage message = { 0 };

    if (!ivshmem_channel_send(channel, IVSHMEM_CHANNEL_PING, &number, sizeof(number),
                              deadline, err)) {
        return false;
    }
    do {
        if (!ivshmem_ping_receive(channel, &message, true, deadline, err)) {
            return false;
        }
        if (message.type == IVSHMEM_CHANNEL_BYE) {
            return ivshmem_error_set(err, "peer %u said goodbye", channel->peer);
        }
    } while (message.type != IVSHMEM_CHANNEL_PONG);
    *ns = ivshmem_now_ns() - begin;
    return (message.length == sizeof(number) &&
            !memcmp(message.data, &number, sizeof(number))) ||
           ivshmem_error_set(err, "peer %u answered something else to ping %" PRIu32,
                             channel->peer, sequence);
}

static void ivshmem_ping_report(const IvshmemOptions *opt, const IvshmemChannel *channel,
                                int64_t *ns, uint64_t n)
{
    double min = ivshmem_percentile(ns, n, 0) / 1e3;
    double median = ivshmem_percentile(ns, n, 50) / 1e3;
    double p99 = ivshmem_percentile(ns, n, 99) / 1e3;
    double max = ivshmem_percentile(ns, n, 100) / 1e3;

    if (opt->json) {
        printf("{\"peer\": %u, \"round_trips\": %" PRIu64 ", \"how\": \"%s\", \"min_us\": "
               "%.2f, \"median_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"rings\": "
               "%" PRIu64 ", \"wakeups\": %" PRIu64 "}\n", channel->peer, n,
               channel->doorbell ? "interrupt" : "polling", min, median, p99, max,
               channel->rings, channel->wakeups);
    } else {
        printf("%" PRIu64 " round trips with peer %u by %s, none lost\n"
               "min/median/p99/max = %.1f/%.1f/%.1f/%.1f us\n", n, channel->peer,
               channel->doorbell ? "doorbell and MSI-X" : "polling", min, median, p99,
               max);
    }
}

static bool ivshmem_ping_ask(IvshmemChannel *channel, const IvshmemOptions *opt,
                             int64_t timeout, IvshmemError *err)
{
    uint64_t n = opt->count ? opt->count : IVSHMEM_PING_COUNT;
    int64_t *ns;
    bool ok = true;

    if (n > IVSHMEM_PING_COUNT_MAX) {
        return ivshmem_error_set(err, "--count %" PRIu64 " is more than the %d round "
                                 "trips that are kept", n, IVSHMEM_PING_COUNT_MAX);
    }
    ns = calloc(n, sizeof(*ns));
    if (!ns) {
        return ivshmem_error_set(err, "out of memory");
    }
    for (uint64_t i = 0; ok && i < n; i++) {
        ok = ivshmem_ping_once(channel, i, timeout, &ns[i], err);
        if (ok && !opt->json && n <= IVSHMEM_PING_SHOWN) {
            printf("reply from peer %u: seq=%" PRIu64 " time=%.1f us\n", channel->peer, i,
                   ns[i] / 1e3);
            fflush(stdout);
        }
    }
    ok = ok && ivshmem_channel_finish(channel, ivshmem_deadline(timeout), err);
    if (ok) {
        ivshmem_ping_report(opt, channel, ns, n);
    }
    free(ns);
    return ok;
}

static bool ivshmem_ping_answer(IvshmemChannel *channel, const IvshmemOptions *opt,
                                IvshmemError *err)
{
    int64_t deadline = ivshmem_deadline(opt->timeout_ns);
    IvshmemMessage message;
    uint64_t n = 0;

    while (!channel->bye_received) {
        if (!ivshmem_ping_receive(channel, &message, n, deadline, err)) {
            return false;
        }
        if (message.type == IVSHMEM_CHANNEL_PING) {
            n++;
            if (!ivshmem_channel_send(channel, IVSHMEM_CHANNEL_PONG, message.data,
                                      message.length, deadline, err)) {
                return false;
            }
        }
    }
    if (!ivshmem_channel_finish(channel, deadline, err)) {
        return false;
    }
    printf("answered %" PRIu64 " pings of peer %u, woken %" PRIu64 " times\n", n,
           channel->peer, channel->wakeups);
    return true;
}

bool ivshmem_command_ping(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    int64_t timeout = opt->timeout_ns < 0 ? IVSHMEM_PING_TIMEOUT : opt->timeout_ns;
    IvshmemChannel channel;
    bool ok;

    (void)argc;
    if (!ivshmem_channel_open(&channel, opt, argv[0], err)) {
        return false;
    }
    ok = ivshmem_channel_connect(&channel, ivshmem_deadline(opt->answer ?
                                 opt->timeout_ns : timeout), err);
    if (ok) {
        ok = opt->answer ? ivshmem_ping_answer(&channel, opt, err) :
             ivshmem_ping_ask(&channel, opt, timeout, err);
    }
    ivshmem_channel_close(&channel);
    return ok;
}
