/*
 * The command line: the incumbent's short options, and a long one beside each.
 *
 * Not responsible for the range of values (value.c), nor for acting on them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "config.h"
#include "ivshmem-wire.h"
#include "value.h"

typedef struct Options {
    gboolean version;
    gboolean verbose;
    gboolean foreground;
    char *pid_file;
    char *socket;
    char *shm_name;
    char *shm_dir;
    char *size;
    char *vectors;
    char *socket_mode;
    char *socket_owner;
    char *socket_group;
    char *first_id;
    char *queue_limit;
    char *stall_timeout;
    char *ready_fd;
    char *config;
    gboolean check_config;
    gboolean replace;
    gboolean fdstore;
    gboolean status;
    gboolean json;
    gboolean metrics;
    gboolean watch;
    char *control;
    char *user;
    char *group;
} Options;

static void options_clear(Options *o)
{
    g_free(o->pid_file);
    g_free(o->socket);
    g_free(o->shm_name);
    g_free(o->shm_dir);
    g_free(o->size);
    g_free(o->vectors);
    g_free(o->socket_mode);
    g_free(o->socket_owner);
    g_free(o->socket_group);
    g_free(o->first_id);
    g_free(o->queue_limit);
    g_free(o->stall_timeout);
    g_free(o->ready_fd);
    g_free(o->config);
    g_free(o->control);
    g_free(o->user);
    g_free(o->group);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

static const char options_description[] =
    "SIZE is a number of bytes, or one with K, M, G, T or P; a power of two.\n"
    "Exit status: 0 when it started (daemon) or ended as told; 1 on failure.\n";

static GOptionContext *options_context(Options *o)
{
    const GOptionEntry entries[] = {
        { "verbose", 'v', 0, G_OPTION_ARG_NONE, &o->verbose,
          "Log details as well", NULL },
        { "foreground", 'F', 0, G_OPTION_ARG_NONE, &o->foreground,
          "Stay in the foreground, log to stderr", NULL },
        { "pid-file", 'p', 0, G_OPTION_ARG_FILENAME, &o->pid_file,
          "Where to write the process id (daemon: " IVSHMEM_DEFAULT_PID_FILE
          "; foreground: nowhere)", "FILE" },
        { "socket", 'S', 0, G_OPTION_ARG_FILENAME, &o->socket,
          "Socket for the clients (" IVSHMEM_DEFAULT_SOCKET ")", "PATH" },
        { "shm-name", 'M', 0, G_OPTION_ARG_STRING, &o->shm_name,
          "POSIX shared memory object (" IVSHMEM_DEFAULT_SHM_NAME ")", "NAME" },
        { "shm-dir", 'm', 0, G_OPTION_ARG_FILENAME, &o->shm_dir,
          "Use a new file in DIR as memory, e.g. on hugetlbfs", "DIR" },
        { "size", 'l', 0, G_OPTION_ARG_STRING, &o->size,
          "Size of the shared memory (4M)", "SIZE" },
        { "vectors", 'n', 0, G_OPTION_ARG_STRING, &o->vectors,
          "Interrupt vectors of each client (1)", "N" },
        { "socket-mode", 0, 0, G_OPTION_ARG_STRING, &o->socket_mode,
          "Permissions of the socket (what umask leaves)", "MODE" },
        { "socket-owner", 0, 0, G_OPTION_ARG_STRING, &o->socket_owner,
          "Owner of the socket", "USER" },
        { "socket-group", 0, 0, G_OPTION_ARG_STRING, &o->socket_group,
          "Group of the socket", "GROUP" },
        { "first-id", 0, 0, G_OPTION_ARG_STRING, &o->first_id,
          "Lowest id given to clients (0)", "ID" },
        { "queue-limit", 0, 0, G_OPTION_ARG_STRING, &o->queue_limit,
          "Disconnect a client that is N messages behind (65536)", "N" },
        { "stall-timeout", 0, 0, G_OPTION_ARG_STRING, &o->stall_timeout,
          "Disconnect a client that has not read for so long (0: never)",
          "SECONDS" },
        { "ready-fd", 0, 0, G_OPTION_ARG_STRING, &o->ready_fd,
          "Write a newline to this descriptor, and close it, once ready", "N" },
        { "config", 0, 0, G_OPTION_ARG_FILENAME, &o->config,
          "Read regions and clients from FILE; SIGHUP reads it again", "FILE" },
        { "check-config", 0, 0, G_OPTION_ARG_NONE, &o->check_config,
          "Only say whether the configuration file is right", NULL },
        { "replace", 0, 0, G_OPTION_ARG_NONE, &o->replace,
          "Take over from the server that runs with the same sockets; its "
          "clients do not notice", NULL },
        { "user", 0, 0, G_OPTION_ARG_STRING, &o->user,
          "Become that user once everything is open", "USER" },
        { "group", 0, 0, G_OPTION_ARG_STRING, &o->group,
          "And that group (the user's own)", "GROUP" },
        { "fdstore", 0, 0, G_OPTION_ARG_NONE, &o->fdstore,
          "When stopped by systemd, leave everything in its descriptor store "
          "for the next start", NULL },
        { "status", 0, 0, G_OPTION_ARG_NONE, &o->status,
          "Print what the server that runs with the same sockets does", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &o->json,
          "The same, as a JSON document", NULL },
        { "metrics", 0, 0, G_OPTION_ARG_NONE, &o->metrics,
          "The same, as text for Prometheus", NULL },
        { "watch", 0, 0, G_OPTION_ARG_NONE, &o->watch,
          "The same, every second", NULL },
        { "control-socket", 0, 0, G_OPTION_ARG_FILENAME, &o->control,
          "Socket for --status and --replace (that of -S with .ctl)", "PATH" },
        { "version", 0, 0, G_OPTION_ARG_NONE, &o->version,
          "Print the version", NULL },
        { NULL },
    };
    GOptionContext *context = g_option_context_new(
        "- share memory and doorbells between virtual machines");

    g_option_context_set_description(context, options_description);
    g_option_context_add_main_entries(context, entries, NULL);
    return context;
}

static bool options_memory(const Options *o, IvshmemMemoryConfig *memory,
                           GError **errp)
{
    const char *name = o->shm_name ? o->shm_name : IVSHMEM_DEFAULT_SHM_NAME;

    if (o->size && !ivshmem_value_region_size("-l", o->size, &memory->size,
                                              errp)) {
        return false;
    }
    if (o->shm_dir) {
        if (o->shm_name) {
            ivshmem_error(errp, "-M %s and -m %s exclude each other: the first "
                          "names a POSIX shared memory object, the second a "
                          "directory", o->shm_name, o->shm_dir);
            return false;
        }
        memory->kind = IVSHMEM_MEMORY_DIR;
        memory->name = g_canonicalize_filename(o->shm_dir, NULL);
        return true;
    }
    return ivshmem_memory_config_set_shm(memory, "-M", name, errp);
}

static bool options_socket(const Options *o, IvshmemSocketConfig *socket,
                           GError **errp)
{
    const char *path = o->socket ? o->socket : IVSHMEM_DEFAULT_SOCKET;

    socket->path = ivshmem_value_socket_path("-S", path, errp);
    return socket->path &&
        (!o->socket_mode || ivshmem_value_mode("--socket-mode", o->socket_mode,
                                               &socket->mode, errp)) &&
        (!o->socket_owner || ivshmem_value_user("--socket-owner",
                                                o->socket_owner,
                                                &socket->owner, errp)) &&
        (!o->socket_group || ivshmem_value_group("--socket-group",
                                                 o->socket_group,
                                                 &socket->group, errp));
}

static bool options_region(const Options *o, IvshmemRegionConfig *region,
                           GError **errp)
{
    uint64_t number;

    if (!options_memory(o, &region->memory, errp) ||
        !options_socket(o, &region->common->socket, errp)) {
        return false;
    }
    if (o->vectors) {
        if (!ivshmem_value_number("-n", o->vectors, 1, IVSHMEM_VECTORS_MAX,
                                  &number, errp)) {
            return false;
        }
        region->vectors = (unsigned)number;
    }
    if (o->first_id) {
        if (!ivshmem_value_number("--first-id", o->first_id, 0, IVSHMEM_ID_MAX,
                                  &number, errp)) {
            return false;
        }
        region->first_id = (uint16_t)number;
    }
    return true;
}

static bool options_ready_fd(const char *text, int *fd, GError **errp)
{
    uint64_t number;

    if (!ivshmem_value_number("--ready-fd", text, 0, INT_MAX, &number, errp)) {
        return false;
    }
    *fd = (int)number;
    if (fcntl(*fd, F_SETFD, FD_CLOEXEC) < 0) {
        ivshmem_error(errp, "--ready-fd: descriptor %d is not open (%s); pass "
                      "the writing end of a pipe", *fd, g_strerror(errno));
        return false;
    }
    return true;
}

static IvshmemQuery options_query(const Options *o)
{
    if (o->metrics) {
        return IVSHMEM_QUERY_METRICS;
    }
    if (o->json) {
        return IVSHMEM_QUERY_JSON;
    }
    return o->status || o->watch ? IVSHMEM_QUERY_TEXT : IVSHMEM_QUERY_NONE;
}

static bool options_process(const Options *o, IvshmemConfig *config,
                            GError **errp)
{
    const char *pid_file = o->pid_file;
    uint64_t number;

    config->foreground = o->foreground;
    config->verbose = o->verbose;
    config->replace = o->replace;
    config->fdstore = o->fdstore;
    config->watch = o->watch;
    config->query = options_query(o);
    if (o->control) {
        g_free(config->control_path);
        config->control_path = ivshmem_value_socket_path("--control-socket",
                                                         o->control, errp);
        if (!config->control_path) {
            return false;
        }
        config->control_given = true;
    }
    if (!pid_file && !config->foreground) {
        pid_file = IVSHMEM_DEFAULT_PID_FILE;
    }
    if (pid_file) {
        config->pid_file = g_canonicalize_filename(pid_file, NULL);
    }
    if (o->queue_limit &&
        !ivshmem_value_number("--queue-limit", o->queue_limit, 1, UINT32_MAX,
                              &config->queue_limit, errp)) {
        return false;
    }
    if (o->stall_timeout) {
        if (!ivshmem_value_number("--stall-timeout", o->stall_timeout, 0,
                                  UINT32_MAX, &number, errp)) {
            return false;
        }
        config->stall_timeout_ms = number * 1000;
    }
    if ((o->user && !ivshmem_value_user("--user", o->user, &config->user,
                                        errp)) ||
        (o->group && !ivshmem_value_group("--group", o->group, &config->group,
                                          errp))) {
        return false;
    }
    return !o->ready_fd ||
        options_ready_fd(o->ready_fd, &config->ready_fd, errp);
}

/* Regions come from the file, or else one of them from options. */
static bool options_file(const Options *o, IvshmemConfig *config,
                         GError **errp)
{
    const struct {
        const char *value;
        const char *name;
    } exclusive[] = {
        { o->socket, "-S" }, { o->shm_name, "-M" }, { o->shm_dir, "-m" },
        { o->size, "-l" }, { o->vectors, "-n" },
        { o->socket_mode, "--socket-mode" },
        { o->socket_owner, "--socket-owner" },
        { o->socket_group, "--socket-group" }, { o->first_id, "--first-id" },
        { o->queue_limit, "--queue-limit" },
        { o->stall_timeout, "--stall-timeout" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(exclusive); i++) {
        if (exclusive[i].value) {
            ivshmem_error(errp, "%s and --config exclude each other: the file "
                          "says that for each region", exclusive[i].name);
            return false;
        }
    }
    config->file = g_canonicalize_filename(o->config, NULL);
    config->check = o->check_config;
    return ivshmem_config_read_file(config, errp);
}

static bool options_regions(const Options *o, IvshmemConfig *config,
                            GError **errp)
{
    if (o->config) {
        return options_file(o, config, errp);
    }
    if (o->check_config) {
        ivshmem_error(errp, "--check-config needs --config=FILE");
        return false;
    }
    g_ptr_array_add(config->regions, ivshmem_region_config_new("default"));
    return options_region(o, g_ptr_array_index(config->regions, 0), errp);
}

IvshmemConfig *ivshmem_config_from_options(int argc, char **argv, bool *done,
                                           GError **errp)
{
    g_auto(Options) o = { 0 };
    g_autoptr(GOptionContext) context = options_context(&o);
    g_autoptr(IvshmemConfig) config = ivshmem_config_new();
    g_autoptr(GError) error = NULL;

    *done = false;
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        ivshmem_error(errp, "%s; try --help", error->message);
        return NULL;
    }
    if (argc > 1) {
        ivshmem_error(errp, "'%s' is not an option; there are no other "
                      "arguments", argv[1]);
        return NULL;
    }
    if (o.version) {
        puts("ivshmem-server " IVSHMEM_VERSION);
        *done = true;
        return NULL;
    }

    if (!options_regions(&o, config, errp) ||
        !options_process(&o, config, errp)) {
        return NULL;
    }
    return g_steal_pointer(&config);
}
