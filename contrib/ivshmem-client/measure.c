/*
 * Round trips: one side rings and waits, the other answers.
 *
 * Not responsible for statistics beyond the order of the samples.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "command.h"

/* ping: rounds without COUNT, and at most: samples are kept in memory. */
#define PING_DEFAULT 100
#define PING_MAX 10000000

/* How long one answer may take without TIME. */
#define PING_TIMEOUT_MS 1000

typedef struct PingArgs {
    guint64 peer;
    guint64 count;
    int ms;
} PingArgs;

static gboolean ping_args(const Command *cmd, PingArgs *args, GError **error)
{
    return command_number(cmd, 0, "peer id", IVSHMEM_ID_MAX, &args->peer,
                          error) &&
        command_number(cmd, 1, "count", PING_MAX, &args->count, error) &&
        command_time(cmd, 2, &args->ms, error);
}

static gboolean ping_ring(Command *cmd, guint64 peer, GError **error)
{
    int ret = ivshmem_peer_ring(cmd->client->peer, (uint16_t)peer, 0);

    if (ret < 0) {
        return command_error(error, "cannot ring peer %u: %s", (unsigned)peer,
                             ivshmem_strerror(ret));
    }
    return TRUE;
}

static gboolean ping_answered(Client *client, const void *opaque G_GNUC_UNUSED)
{
    return client_rings(client, 0) > 0;
}

/* One ring of ours there, one back: vector 0 both ways. */
static gboolean ping_round(Command *cmd, const PingArgs *args, guint64 round,
                           GError **error)
{
    Client *client = cmd->client;
    g_autofree char *what = NULL;

    client_forget_rings(client, 0);
    if (!ping_ring(cmd, args->peer, error)) {
        return FALSE;
    }
    /* The plain case, without the bookkeeping around it. */
    if (client_step(client, args->ms) == 1 && ping_answered(client, NULL)) {
        return TRUE;
    }
    what = g_strdup_printf("peer %u answered ring %" G_GUINT64_FORMAT
                           " (a host peer answers with: pong %d)",
                           (unsigned)args->peer, round + 1,
                           ivshmem_peer_id(client->peer));
    return client_wait(client, args->ms, ping_answered, NULL, what, error);
}

static int ping_compare(const void *a, const void *b)
{
    gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;

    return x < y ? -1 : x > y;
}

static void ping_answer(Answer *answer, guint64 peer, GArray *samples)
{
    static const struct {
        const char *name, *key;
        unsigned percent;
    } show[] = {
        { "min", "min_ns", 0 }, { "median", "median_ns", 50 },
        { "p99", "p99_ns", 99 }, { "max", "max_ns", 100 },
    };

    g_array_sort(samples, ping_compare);
    answer_number(answer, "peer", peer);
    answer_number(answer, "count", samples->len);
    answer_text(answer, "%u round trips with peer %u:", samples->len,
                (unsigned)peer);
    for (size_t i = 0; i < G_N_ELEMENTS(show); i++) {
        unsigned at = (unsigned)((guint64)(samples->len - 1) *
                                 show[i].percent / 100);
        gint64 ns = g_array_index(samples, gint64, at);

        answer_number(answer, show[i].key, (guint64)ns);
        answer_text(answer, "%s %s %.1f us", i ? "," : "", show[i].name,
                    (double)ns / 1000);
    }
    answer_text(answer, "\n");
}

static gint64 ping_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * G_GINT64_CONSTANT(1000000000) + now.tv_nsec;
}

/* ping PEER [COUNT [TIME]] */
gboolean command_ping(Command *cmd, GError **error)
{
    PingArgs args = { .count = PING_DEFAULT, .ms = PING_TIMEOUT_MS };
    g_autoptr(GArray) samples = g_array_new(FALSE, FALSE, sizeof(gint64));

    if (!ping_args(cmd, &args, error)) {
        return FALSE;
    }
    if (!args.count) {
        return command_error(error, "the count must be 1 at least");
    }
    client_poll(cmd->client);
    for (guint64 i = 0; i < args.count; i++) {
        gint64 time = ping_now_ns();

        if (!ping_round(cmd, &args, i, error)) {
            return FALSE;
        }
        time = ping_now_ns() - time;
        g_array_append_val(samples, time);
    }
    client_forget_rings(cmd->client, 0);
    ping_answer(cmd->answer, args.peer, samples);
    return TRUE;
}

/* pong PEER [COUNT [TIME]]: without COUNT, until nothing came for TIME. */
gboolean command_pong(Command *cmd, GError **error)
{
    PingArgs args = { .count = 0, .ms = CLIENT_FOREVER };
    guint64 n;

    if (!ping_args(cmd, &args, error)) {
        return FALSE;
    }
    for (n = 0; !args.count || n < args.count; n++) {
        g_autoptr(GError) local = NULL;

        if (!client_wait(cmd->client, args.ms, ping_answered, NULL,
                         "vector 0 was rung", &local)) {
            if (n && !args.count && local->code == IVSHMEM_E_TIMEOUT) {
                break;
            }
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        client_forget_rings(cmd->client, 0);
        if (!ping_ring(cmd, args.peer, error)) {
            return FALSE;
        }
    }
    answer_number(cmd->answer, "peer", args.peer);
    answer_number(cmd->answer, "answered", n);
    answer_text(cmd->answer, "answered %" G_GUINT64_FORMAT " rings of vector 0 "
                "by ringing peer %u\n", n, (unsigned)args.peer);
    return TRUE;
}
