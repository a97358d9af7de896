/*
 * The server's status: regions, clients, counters, limits.
 *
 * Not responsible for getting it to those who ask (control.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>
#include "client.h"
#include "json.h"
#include "status.h"
#include "value.h"

static int64_t status_now(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

static char *status_executable(pid_t pid)
{
    g_autofree char *link = g_strdup_printf("/proc/%d/exe", (int)pid);
    g_autofree char *path = pid > 0 ? g_file_read_link(link, NULL) : NULL;

    g_autofree char *name = path ? g_path_get_basename(path) : g_strdup("");

    /* Clients choose it, and a terminal may show it. */
    for (char *c = name; *c; c++) {
        *c = g_ascii_isprint(*c) ? *c : '?';
    }
    return g_steal_pointer(&name);
}

static const char *status_of_client(const IvshmemServer *server,
                                    const IvshmemClient *client)
{
    if (client->queue == &server->blocked) {
        return "does not read";
    }
    if (client->queue == &server->waiting) {
        return "waiting for the system";
    }
    return ivshmem_member_ready(client->member) ? "ready" : "joining";
}

/* The names under which refusals are counted. */
static const struct {
    const char *name;
    IvshmemRefusal refusal;
} status_refusals[] = {
    { "descriptors", IVSHMEM_REFUSED_DESCRIPTORS },
    { "user", IVSHMEM_REFUSED_USER },
    { "id", IVSHMEM_REFUSED_ID },
    { "read_only", IVSHMEM_REFUSED_READ_ONLY },
    { "gone", IVSHMEM_REFUSED_GONE },
    { "other", IVSHMEM_REFUSED_OTHER },
};

/* Everything that only ever grows. */
typedef struct StatusCounter {
    const char *name;
    size_t offset;
    const char *help;
} StatusCounter;

#define COUNTER(field, text) \
    { #field, offsetof(IvshmemCounters, field), text }

static const StatusCounter status_counters[] = {
    COUNTER(joins, "Clients that joined"),
    COUNTER(leaves, "Clients that left or were disconnected"),
    COUNTER(dropped, "Clients that the server disconnected"),
    COUNTER(slow, "Those of them that were too slow"),
    COUNTER(frames, "Messages sent"),
    COUNTER(descriptors, "Descriptors sent"),
    COUNTER(waits, "Waits for the system to have room"),
};

static uint64_t status_counter(const IvshmemServer *server,
                               const StatusCounter *counter)
{
    return G_STRUCT_MEMBER(uint64_t, &server->counters, counter->offset);
}

/* JSON */

static void json_client(IvshmemJson *json, const IvshmemServer *server,
                        const IvshmemClient *client)
{
    g_autofree char *executable = status_executable(client->pid);
    const IvshmemMember *member = client->member;

    ivshmem_json_object(json, NULL);
    ivshmem_json_number(json, "id", ivshmem_member_id(member));
    ivshmem_json_string(json, "name", client->name);
    ivshmem_json_number(json, "pid", client->pid);
    ivshmem_json_number(json, "uid", client->uid);
    ivshmem_json_string(json, "executable", executable);
    ivshmem_json_string(json, "access",
                        client->read_only ? "read-only" : "read-write");
    ivshmem_json_number(json, "vectors", ivshmem_member_vectors(member));
    ivshmem_json_number(json, "connected_since", client->since);
    ivshmem_json_number(json, "queued",
                        (int64_t)ivshmem_member_queued(member));
    ivshmem_json_number(json, "backlog",
                        (int64_t)ivshmem_member_backlog(member));
    ivshmem_json_string(json, "state", status_of_client(server, client));
    ivshmem_json_object_end(json);
}

static void json_region(IvshmemJson *json, const IvshmemRegion *region)
{
    IvshmemMember *member = NULL;

    ivshmem_json_object(json, NULL);
    ivshmem_json_string(json, "name", region->config->name);
    ivshmem_json_object(json, "memory");
    ivshmem_json_string(json, "kind", ivshmem_memory_describe(region->memory));
    ivshmem_json_number(json, "size",
                        (int64_t)ivshmem_memory_size(region->memory));
    ivshmem_json_bool(json, "sealed", ivshmem_memory_sealed(region->memory));
    ivshmem_json_object_end(json);
    ivshmem_json_number(json, "vectors", region->config->vectors);
    ivshmem_json_bool(json, "closing", region->closing);
    ivshmem_json_array(json, "sockets");
    for (unsigned i = 0; i < region->doors->len; i++) {
        const IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        ivshmem_json_string(json, NULL, door->listener.path);
    }
    ivshmem_json_array_end(json);
    ivshmem_json_number(json, "more_clients", ivshmem_client_capacity(
                            region->server, region->config->vectors));
    ivshmem_json_array(json, "clients");
    while ((member = ivshmem_registry_next(region->registry, member))) {
        json_client(json, region->server, ivshmem_member_opaque(member));
    }
    ivshmem_json_array_end(json);
    ivshmem_json_object_end(json);
}

static void json_counters(IvshmemJson *json, const IvshmemServer *server)
{
    ivshmem_json_object(json, "counters");
    for (unsigned i = 0; i < G_N_ELEMENTS(status_counters); i++) {
        ivshmem_json_number(json, status_counters[i].name,
                            (int64_t)status_counter(server,
                                                    &status_counters[i]));
    }
    ivshmem_json_object(json, "refused");
    for (unsigned i = 0; i < G_N_ELEMENTS(status_refusals); i++) {
        ivshmem_json_number(json, status_refusals[i].name, (int64_t)
                            server->counters.refused[
                                status_refusals[i].refusal]);
    }
    ivshmem_json_object_end(json);
    ivshmem_json_object_end(json);
}

GString *ivshmem_status_json(const IvshmemServer *server)
{
    IvshmemJson *json = ivshmem_json_new();

    ivshmem_json_object(json, NULL);
    ivshmem_json_string(json, "version", IVSHMEM_VERSION);
    ivshmem_json_number(json, "pid", getpid());
    ivshmem_json_number(json, "started", server->start_time);
    ivshmem_json_object(json, "limits");
    ivshmem_json_number(json, "descriptors", server->fd_limit);
    ivshmem_json_number(json, "descriptors_free",
                        ivshmem_client_free_fds(server));
    ivshmem_json_number(json, "queue", (int64_t)server->config->queue_limit);
    ivshmem_json_number(json, "stall_timeout",
                        (int64_t)server->config->stall_timeout_ms / 1000);
    ivshmem_json_number(json, "in_flight_per_client", server->window);
    ivshmem_json_object_end(json);
    json_counters(json, server);
    ivshmem_json_array(json, "regions");
    for (unsigned i = 0; i < server->regions->len; i++) {
        json_region(json, g_ptr_array_index(server->regions, i));
    }
    ivshmem_json_array_end(json);
    ivshmem_json_object_end(json);
    return ivshmem_json_finish(json);
}

/* Prometheus */

static void metrics_head(GString *text, const char *name, const char *type,
                         const char *help)
{
    g_string_append_printf(text, "# HELP ivshmem_%s %s\n# TYPE ivshmem_%s %s\n",
                           name, help, name, type);
}

/* Of the text format for Prometheus: UTF-8, but for these three. */
static char *metrics_escape(const char *name)
{
    GString *text = g_string_new(NULL);

    for (const char *c = name; *c; c++) {
        if (*c == '\\' || *c == '"' || *c == '\n') {
            g_string_append_c(text, '\\');
        }
        g_string_append_c(text, *c == '\n' ? 'n' : *c);
    }
    return g_string_free(text, FALSE);
}

/* Label values: a name from a configuration file may have anything in it. */
static void metrics_region(GString *text, const char *name,
                           const IvshmemRegion *region, uint64_t value)
{
    g_autofree char *label = metrics_escape(region->config->name);

    g_string_append_printf(text, "ivshmem_%s{region=\"%s\"} %" G_GUINT64_FORMAT
                           "\n", name, label, value);
}

GString *ivshmem_status_metrics(const IvshmemServer *server)
{
    GString *text = g_string_new(NULL);

    metrics_head(text, "clients", "gauge", "Clients that are connected");
    for (unsigned i = 0; i < server->regions->len; i++) {
        const IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        metrics_region(text, "clients", region,
                       ivshmem_registry_members(region->registry));
    }
    metrics_head(text, "memory_bytes", "gauge", "Size of the shared memory");
    for (unsigned i = 0; i < server->regions->len; i++) {
        const IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        metrics_region(text, "memory_bytes", region,
                       ivshmem_memory_size(region->memory));
    }
    metrics_head(text, "descriptors_free", "gauge",
                 "Descriptors left for newcomers");
    g_string_append_printf(text, "ivshmem_descriptors_free %u\n",
                           ivshmem_client_free_fds(server));
    for (unsigned i = 0; i < G_N_ELEMENTS(status_counters); i++) {
        const StatusCounter *c = &status_counters[i];
        g_autofree char *name = g_strconcat(c->name, "_total", NULL);

        metrics_head(text, name, "counter", c->help);
        g_string_append_printf(text, "ivshmem_%s %" G_GUINT64_FORMAT "\n",
                               name, status_counter(server, c));
    }
    metrics_head(text, "refused_total", "counter", "Clients turned away");
    for (unsigned i = 0; i < G_N_ELEMENTS(status_refusals); i++) {
        g_string_append_printf(
            text, "ivshmem_refused_total{reason=\"%s\"} %" G_GUINT64_FORMAT
            "\n", status_refusals[i].name,
            server->counters.refused[status_refusals[i].refusal]);
    }
    return text;
}

/* For people */

static void text_region(GString *text, const IvshmemRegion *region)
{
    g_autofree char *size =
        ivshmem_value_format_size(ivshmem_memory_size(region->memory));
    IvshmemMember *member = NULL;

    g_string_append_printf(
        text, "\nregion %s: %s in %s%s, %zu clients, room for %u more\n",
        region->config->name, size, ivshmem_memory_describe(region->memory),
        region->closing ? " (closing)" : "",
        ivshmem_registry_members(region->registry),
        ivshmem_client_capacity(region->server, region->config->vectors));
    if (ivshmem_registry_members(region->registry)) {
        g_string_append(text, "   id      pid   user vectors access     "
                        "seconds queued state         program\n");
    }
    while ((member = ivshmem_registry_next(region->registry, member))) {
        const IvshmemClient *client = ivshmem_member_opaque(member);
        g_autofree char *executable = status_executable(client->pid);

        g_string_append_printf(
            text, "%5u %8d %6u %7u %-10s %7" G_GINT64_FORMAT " %6"
            G_GUINT64_FORMAT " %-13s %s%s%s%s\n", ivshmem_member_id(member),
            (int)client->pid, (unsigned)client->uid,
            ivshmem_member_vectors(member),
            client->read_only ? "read-only" : "read-write",
            status_now() - client->since, ivshmem_member_queued(member),
            status_of_client(region->server, client), executable,
            client->name ? " (" : "", client->name ? client->name : "",
            client->name ? ")" : "");
    }
}

GString *ivshmem_status_text(const IvshmemServer *server)
{
    GString *text = g_string_new(NULL);
    uint64_t refused = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(status_refusals); i++) {
        refused += server->counters.refused[status_refusals[i].refusal];
    }
    g_string_append_printf(
        text, "ivshmem-server %s, pid %d, running for %" G_GINT64_FORMAT
        " s\n", IVSHMEM_VERSION, (int)getpid(),
        status_now() - server->start_time);
    for (unsigned i = 0; i < G_N_ELEMENTS(status_counters); i++) {
        g_string_append_printf(text, "%s%s %" G_GUINT64_FORMAT,
                               i ? ", " : "", status_counters[i].name,
                               status_counter(server, &status_counters[i]));
    }
    g_string_append_printf(text, ", refused %" G_GUINT64_FORMAT
                           "; %u of %u descriptors free\n", refused,
                           ivshmem_client_free_fds(server), server->fd_limit);
    for (unsigned i = 0; i < server->regions->len; i++) {
        text_region(text, g_ptr_array_index(server->regions, i));
    }
    return text;
}
