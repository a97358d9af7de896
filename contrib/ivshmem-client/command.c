/*
 * Parses and runs commands: those about peers and rings stand here.
 *
 * Not responsible for where commands come from (main.c), nor for those about
 * the memory (memory.c) and about time (measure.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"

/* The longest time that can be given: a day. */
#define COMMAND_TIME_MAX_S 86400

typedef struct CommandInfo {
    const char *name;
    unsigned min_args, max_args;
    CommandFunc *func;
    const char *usage;
    const char *help;
} CommandInfo;

static const CommandInfo command_table[];

gboolean command_error(GError **error, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_propagate_error(error, g_error_new_valist(CLIENT_ERROR, -EINVAL, format,
                                                ap));
    va_end(ap);
    return FALSE;
}

static const CommandInfo *command_find(const char *name)
{
    for (const CommandInfo *info = command_table; info->name; info++) {
        if (strcmp(info->name, name) == 0) {
            return info;
        }
    }
    return NULL;
}

gboolean command_number(const Command *cmd, unsigned i, const char *name,
                        guint64 max, guint64 *value, GError **error)
{
    static const char suffixes[] = "KMGT";
    const char *text, *suffix;
    unsigned shift = 0;
    guint64 number;
    char *end;

    if (i >= cmd->argc) {
        return TRUE;
    }
    text = cmd->argv[i];
    errno = 0;
    number = g_ascii_strtoull(text, &end,
                              g_ascii_strncasecmp(text, "0x", 2) ? 10 : 16);
    suffix = *end ? strchr(suffixes, g_ascii_toupper(*end)) : NULL;
    if (suffix) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (!g_ascii_isdigit(*text) || *end) {
        return command_error(error, "%s \"%s\" is not a number", name, text);
    }
    if (errno == ERANGE || number > max >> shift) {
        return command_error(error, "%s %s is more than %" G_GUINT64_FORMAT,
                             name, text, max);
    }
    *value = number << shift;
    return TRUE;
}

gboolean command_parse_time(const char *text, int *ms, GError **error)
{
    double seconds;
    char *end;

    if (strcmp(text, "forever") == 0) {
        *ms = CLIENT_FOREVER;
        return TRUE;
    }
    seconds = g_ascii_strtod(text, &end);
    if (strcmp(end, "ms") == 0) {
        seconds /= 1000;
    } else if (strcmp(end, "m") == 0) {
        seconds *= 60;
    } else if (*end && strcmp(end, "s") != 0) {
        end = (char *)text;
    }
    if (end == text || !g_ascii_isdigit(*text) ||
        !(seconds <= COMMAND_TIME_MAX_S)) {
        return command_error(error, "\"%s\" is not a time: try 500ms, 2s, 1m, "
                             "or forever", text);
    }
    *ms = (int)ceil(seconds * 1000);
    return TRUE;
}

gboolean command_time(const Command *cmd, unsigned i, int *ms, GError **error)
{
    return i >= cmd->argc || command_parse_time(cmd->argv[i], ms, error);
}

/* "2 peers", "1 vector" */
static char *command_plural(guint64 n, const char *noun)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT " %s%s", n, noun,
                           n == 1 ? "" : "s");
}

static gboolean command_help(Command *cmd, GError **error)
{
    const CommandInfo *only = NULL;

    if (cmd->argc) {
        only = command_find(cmd->argv[0]);
        if (!only) {
            return command_error(error, "no command \"%s\"", cmd->argv[0]);
        }
    }
    answer_array(cmd->answer, "commands");
    for (const CommandInfo *info = command_table; info->name; info++) {
        if (!only || info == only) {
            g_autofree char *usage = g_strdup_printf("%s %s", info->name,
                                                     info->usage);

            answer_text(cmd->answer, "%-31s %s\n", usage, info->help);
            answer_object(cmd->answer);
            answer_string(cmd->answer, "name", info->name);
            answer_string(cmd->answer, "usage", info->usage);
            answer_string(cmd->answer, "help", info->help);
            answer_object_end(cmd->answer);
        }
    }
    answer_array_end(cmd->answer);
    if (!only) {
        answer_text(cmd->answer, "Times: 500ms, 2s (or 2), 1m, forever (the "
                    "default).  Numbers: 4096, 0x1000, 4K.\n");
    }
    return TRUE;
}

static gboolean command_quit(Command *cmd G_GNUC_UNUSED,
                             GError **error G_GNUC_UNUSED)
{
    return TRUE;
}

static gboolean command_id(Command *cmd, GError **error G_GNUC_UNUSED)
{
    int id = ivshmem_peer_id(cmd->client->peer);

    answer_number(cmd->answer, "id", (guint64)id);
    answer_text(cmd->answer, "id %d\n", id);
    return TRUE;
}

static gboolean command_info(Command *cmd, GError **error G_GNUC_UNUSED)
{
    IvshmemPeer *peer = cmd->client->peer;
    gboolean connected = ivshmem_peer_connected(peer);
    int fd = ivshmem_peer_shm_fd(peer), flags = fcntl(fd, F_GETFL);
    int seals = fcntl(fd, F_GET_SEALS);
    gboolean writable = flags >= 0 && (flags & O_ACCMODE) == O_RDWR &&
        ivshmem_peer_map(peer, true, NULL, NULL) == 0;
    gboolean sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
    g_autofree char *size = g_format_size_full(ivshmem_peer_size(peer),
                                               G_FORMAT_SIZE_IEC_UNITS |
                                               G_FORMAT_SIZE_LONG_FORMAT);

    answer_boolean(cmd->answer, "connected", connected);
    answer_string(cmd->answer, "server", cmd->client->path);
    answer_number(cmd->answer, "id", (guint64)ivshmem_peer_id(peer));
    answer_number(cmd->answer, "vectors", ivshmem_peer_vectors(peer));
    answer_number(cmd->answer, "size", ivshmem_peer_size(peer));
    answer_boolean(cmd->answer, "writable", writable);
    answer_boolean(cmd->answer, "sealed", sealed);
    answer_number(cmd->answer, "npeers", client_peers(cmd->client));

    answer_text(cmd->answer, "server   %s (%s)\n", cmd->client->path,
                connected ? "connected" : "not connected");
    answer_text(cmd->answer, "id       %d\n", ivshmem_peer_id(peer));
    answer_text(cmd->answer, "vectors  %u\n", ivshmem_peer_vectors(peer));
    answer_text(cmd->answer, "memory   %s, %s, %s\n", size,
                writable ? "read-write" : "read-only",
                sealed ? "cannot shrink" : "can shrink (not sealed)");
    answer_text(cmd->answer, "peers    %u\n", client_peers(cmd->client));
    return TRUE;
}

static gboolean command_dump(Command *cmd, GError **error)
{
    IvshmemPeer *peer = cmd->client->peer;
    int id = -1;

    command_info(cmd, error);
    answer_array(cmd->answer, "peers");
    while ((id = ivshmem_peer_next_id(peer, id)) >= 0) {
        unsigned vectors = ivshmem_peer_vectors_of(peer, (uint16_t)id);
        g_autofree char *text = command_plural(vectors, "vector");

        answer_object(cmd->answer);
        answer_number(cmd->answer, "id", (guint64)id);
        answer_number(cmd->answer, "vectors", vectors);
        answer_object_end(cmd->answer);
        answer_text(cmd->answer, "peer %d: %s\n", id, text);
    }
    answer_array_end(cmd->answer);
    return TRUE;
}

static gboolean command_peer_id(const Command *cmd, unsigned i, uint16_t *id,
                                GError **error)
{
    guint64 number = 0;

    if (!command_number(cmd, i, "peer id", IVSHMEM_ID_MAX, &number, error)) {
        return FALSE;
    }
    *id = (uint16_t)number;
    return TRUE;
}

static gboolean command_ring_one(Command *cmd, uint16_t id, unsigned vector,
                                 GError **error)
{
    IvshmemPeer *peer = cmd->client->peer;
    unsigned vectors = ivshmem_peer_vectors_of(peer, id);
    int ret = ivshmem_peer_ring(peer, id, vector);

    if (ret == 0) {
        return TRUE;
    }
    if (vectors && ret == IVSHMEM_E_NO_PEER) {
        return command_error(error, "peer %u has no vector %u: it has 0 to %u",
                             id, vector, vectors - 1);
    }
    if (ret == IVSHMEM_E_NO_PEER) {
        return command_error(error, "no peer %u is connected; dump shows who "
                             "is", id);
    }
    return command_error(error, "peer %u, vector %u: %s", id, vector,
                         ivshmem_strerror(ret));
}

static gboolean command_ring_peer(Command *cmd, uint16_t id, guint64 *rung,
                                  GError **error)
{
    unsigned vectors = ivshmem_peer_vectors_of(cmd->client->peer, id);

    for (unsigned v = 0; v < MAX(vectors, 1); v++) {
        if (!command_ring_one(cmd, id, v, error)) {
            return FALSE;
        }
        ++*rung;
    }
    return TRUE;
}

static gboolean command_ring_all(Command *cmd, guint64 *rung, GError **error)
{
    int id = -1;

    while ((id = ivshmem_peer_next_id(cmd->client->peer, id)) >= 0) {
        if (!command_ring_peer(cmd, (uint16_t)id, rung, error)) {
            return FALSE;
        }
    }
    return TRUE;
}

/* int all | int PEER all | int PEER [VECTOR [COUNT]] */
static gboolean command_int(Command *cmd, GError **error)
{
    guint64 vector = 0, count = 1, rung = 0;
    g_autofree char *text = NULL;
    uint16_t id;

    if (strcmp(cmd->argv[0], "all") == 0) {
        if (!command_ring_all(cmd, &rung, error)) {
            return FALSE;
        }
    } else if (!command_peer_id(cmd, 0, &id, error)) {
        return FALSE;
    } else if (cmd->argc > 1 && strcmp(cmd->argv[1], "all") == 0) {
        if (!command_ring_peer(cmd, id, &rung, error)) {
            return FALSE;
        }
    } else {
        if (!command_number(cmd, 1, "vector", G_MAXUINT16, &vector, error) ||
            !command_number(cmd, 2, "count", G_MAXUINT32, &count, error)) {
            return FALSE;
        }
        for (; rung < count; rung++) {
            if (!command_ring_one(cmd, id, (unsigned)vector, error)) {
                return FALSE;
            }
        }
    }
    text = command_plural(rung, "ring");
    answer_number(cmd->answer, "rung", rung);
    answer_text(cmd->answer, "sent %s\n", text);
    return TRUE;
}

typedef struct WaitRing {
    gboolean any;
    unsigned vector;            /* where it came, if any */
    guint64 count;
} WaitRing;

static gboolean command_test_ring(Client *client, const void *opaque)
{
    WaitRing *wait = (WaitRing *)opaque;

    if (wait->any) {
        for (unsigned v = 0; v < client->rings->len; v++) {
            if (client_rings(client, v) >= wait->count) {
                wait->vector = v;
                return TRUE;
            }
        }
        return FALSE;
    }
    return client_rings(client, wait->vector) >= wait->count;
}

/* wait [TIME [VECTOR [COUNT]]] */
static gboolean command_wait(Command *cmd, GError **error)
{
    WaitRing wait = { .any = cmd->argc < 2 };
    guint64 vector = 0, count = 1;
    int ms = CLIENT_FOREVER;
    g_autofree char *what = NULL;

    if (!command_time(cmd, 0, &ms, error) ||
        !command_number(cmd, 1, "vector", IVSHMEM_VECTORS_MAX - 1, &vector,
                        error) ||
        !command_number(cmd, 2, "count", G_MAXUINT32, &count, error)) {
        return FALSE;
    }
    wait.vector = (unsigned)vector;
    wait.count = MAX(count, 1);
    what = wait.any ? g_strdup("a ring came")
        : g_strdup_printf("vector %u was rung %u time(s)", wait.vector,
                          (unsigned)wait.count);
    if (!client_wait(cmd->client, ms, command_test_ring, &wait, what, error)) {
        return FALSE;
    }
    count = client_rings(cmd->client, wait.vector);
    client_forget_rings(cmd->client, wait.vector);
    answer_number(cmd->answer, "vector", wait.vector);
    answer_number(cmd->answer, "count", count);
    answer_text(cmd->answer, "rung: vector %u, count %" G_GUINT64_FORMAT "\n",
                wait.vector, count);
    return TRUE;
}

typedef struct WaitPeer {
    uint16_t id;
    unsigned vectors;           /* at least */
    unsigned peers;             /* exactly */
} WaitPeer;

static gboolean command_test_peer(Client *client, const void *opaque)
{
    const WaitPeer *wait = opaque;

    return ivshmem_peer_vectors_of(client->peer, wait->id) >= wait->vectors;
}

static gboolean command_test_gone(Client *client, const void *opaque)
{
    const WaitPeer *wait = opaque;

    return ivshmem_peer_vectors_of(client->peer, wait->id) == 0;
}

static gboolean command_test_peers(Client *client, const void *opaque)
{
    const WaitPeer *wait = opaque;

    return client_peers(client) == wait->peers;
}

/* wait-peer ID [TIME [VECTORS]] */
static gboolean command_wait_peer(Command *cmd, GError **error)
{
    int ms = CLIENT_FOREVER;
    guint64 vectors = 1;
    WaitPeer wait;
    g_autofree char *what = NULL, *text = NULL;

    if (!command_peer_id(cmd, 0, &wait.id, error) ||
        !command_time(cmd, 1, &ms, error) ||
        !command_number(cmd, 2, "number of vectors", IVSHMEM_VECTORS_MAX,
                        &vectors, error)) {
        return FALSE;
    }
    wait.vectors = MAX((unsigned)vectors, 1);
    text = command_plural(wait.vectors, "vector");
    what = g_strdup_printf("peer %u joined with %s", wait.id, text);
    if (!client_wait(cmd->client, ms, command_test_peer, &wait, what, error)) {
        return FALSE;
    }
    wait.vectors = ivshmem_peer_vectors_of(cmd->client->peer, wait.id);
    g_free(text);
    text = command_plural(wait.vectors, "vector");
    answer_number(cmd->answer, "peer", wait.id);
    answer_number(cmd->answer, "vectors", wait.vectors);
    answer_text(cmd->answer, "peer %u: %s\n", wait.id, text);
    return TRUE;
}

/* wait-gone ID [TIME] */
static gboolean command_wait_gone(Command *cmd, GError **error)
{
    int ms = CLIENT_FOREVER;
    WaitPeer wait;
    g_autofree char *what = NULL;

    if (!command_peer_id(cmd, 0, &wait.id, error) ||
        !command_time(cmd, 1, &ms, error)) {
        return FALSE;
    }
    what = g_strdup_printf("peer %u left", wait.id);
    if (!client_wait(cmd->client, ms, command_test_gone, &wait, what, error)) {
        return FALSE;
    }
    answer_number(cmd->answer, "peer", wait.id);
    answer_text(cmd->answer, "peer %u is not connected\n", wait.id);
    return TRUE;
}

/* wait-peers N [TIME] */
static gboolean command_wait_peers(Command *cmd, GError **error)
{
    int ms = CLIENT_FOREVER;
    guint64 peers = 0;
    WaitPeer wait;
    g_autofree char *what = NULL, *text = NULL;

    if (!command_number(cmd, 0, "number of peers", IVSHMEM_ID_MAX, &peers,
                        error) ||
        !command_time(cmd, 1, &ms, error)) {
        return FALSE;
    }
    wait.peers = (unsigned)peers;
    text = command_plural(peers, "peer");
    what = g_strdup_printf("there were %s", text);
    if (!client_wait(cmd->client, ms, command_test_peers, &wait, what,
                     error)) {
        return FALSE;
    }
    answer_number(cmd->answer, "npeers", peers);
    answer_text(cmd->answer, "%s\n", text);
    return TRUE;
}

static const CommandInfo command_table[] = {
    { "help", 0, 1, command_help, "[COMMAND]", "what there is" },
    { "dump", 0, 0, command_dump, "", "ourselves, the memory, all peers" },
    { "info", 0, 0, command_info, "", "the same without the list of peers" },
    { "id", 0, 0, command_id, "", "our peer id" },
    { "int", 1, 3, command_int, "PEER [VECTOR [COUNT]]",
      "ring; VECTOR may be all, PEER too" },
    { "ring", 1, 3, command_int, "PEER [VECTOR [COUNT]]", "the same" },
    { "wait", 0, 3, command_wait, "[TIME [VECTOR [COUNT]]]",
      "until rung since the last wait" },
    { "wait-peer", 1, 3, command_wait_peer, "PEER [TIME [VECTORS]]",
      "until PEER is connected" },
    { "wait-gone", 1, 2, command_wait_gone, "PEER [TIME]",
      "until PEER is not connected" },
    { "wait-peers", 1, 2, command_wait_peers, "N [TIME]",
      "until N other peers are connected" },
    { "peek", 1, 2, command_peek, "OFFSET [LENGTH]", "show memory" },
    { "poke", 2, G_MAXUINT, command_poke, "OFFSET HEX|\"TEXT\"",
      "change memory; \\n, \\000 in TEXT" },
    { "fill", 3, 3, command_fill, "OFFSET LENGTH BYTE", "fill memory" },
    { "cat", 0, 2, command_cat, "[OFFSET [LENGTH]]",
      "memory as it is to stdout" },
    { "ping", 1, 3, command_ping, "PEER [COUNT [TIME]]",
      "time round trips; PEER answers (pong)" },
    { "pong", 1, 3, command_pong, "PEER [COUNT [TIME]]",
      "answer rings by ringing PEER" },
    { "quit", 0, 0, command_quit, "", "end; so does end of input" },
    { NULL },
};

/*
 * Splits @line at spaces.  A string in quotes is one word that keeps its first
 * quote, with C escapes resolved.
 */
static gboolean command_split(const char *line, GPtrArray *words,
                              GError **error)
{
    const char *p = line;

    while (*(p += strspn(p, " \t\r"))) {
        size_t len = strcspn(p, " \t\r");

        if (*p == '"') {
            g_autofree char *raw = NULL;

            for (len = 1; p[len] && p[len] != '"'; len++) {
                len += p[len] == '\\' && p[len + 1];
            }
            if (!p[len]) {
                return command_error(error, "a \" has no partner");
            }
            raw = g_strndup(p, len);
            g_ptr_array_add(words, g_strdup(raw));
            p += len + 1;
            continue;
        }
        g_ptr_array_add(words, g_strndup(p, len));
        p += len;
    }
    return TRUE;
}

static gboolean command_call(Command *cmd, const CommandInfo *info,
                             const char *name, GError **error)
{
    if (!info) {
        return command_error(error, "no such command: %s; try help", name);
    }
    if (cmd->argc < info->min_args || cmd->argc > info->max_args) {
        return command_error(error, "usage: %s %s", name, info->usage);
    }
    return info->func(cmd, error);
}

/* What a command that failed has collected so far is not for printing. */
static gboolean command_answer(Command *cmd, const char *name, gboolean ok,
                               const GError *error)
{
    Answer *answer = cmd->answer;

    if (!ok) {
        g_autofree char *prefix = g_strdup_printf("ivshmem-client: %s: ", name);

        g_printerr("%s%s\n", prefix, error->message);
        answer_reset(answer);
        answer_string(answer, "command", name);
        answer_boolean(answer, "ok", FALSE);
        answer_boolean(answer, "timeout", error->code == IVSHMEM_E_TIMEOUT);
        answer_string(answer, "error", error->message);
    }
    return answer_print(answer);
}

CommandResult command_run(Client *client, const char *line)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    const CommandInfo *info = NULL;
    const char *name = line;
    Answer answer;
    Command cmd = { .client = client, .answer = &answer };
    gboolean ok = command_split(line, words, &error);

    if (ok && (!words->len || *(char *)words->pdata[0] == '#')) {
        return COMMAND_OK;
    }
    answer_init(&answer, client->json);
    if (ok) {
        name = words->pdata[0];
        cmd.argc = words->len - 1;
        cmd.argv = (char **)words->pdata + 1;
        info = command_find(name);
        answer_string(&answer, "command", name);
        answer_boolean(&answer, "ok", TRUE);
        ok = command_call(&cmd, info, name, &error);
    }
    ok = command_answer(&cmd, name, ok, error) && ok;
    answer_clear(&answer);
    return !ok ? COMMAND_FAILED
        : info->func == command_quit ? COMMAND_QUIT : COMMAND_OK;
}
