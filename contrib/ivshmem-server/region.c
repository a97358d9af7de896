/*
 * Regions: opening and closing what belongs to one, and its doors.
 *
 * Not responsible for the clients inside (client.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include "client.h"
#include "handover.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "log.h"
#include "region.h"
#include "systemd.h"

/*
 * Newcomers of one turn.  They are told of each other together, which is what
 * makes a burst cheap; and those inside do not wait for long.
 */
#define DOOR_BATCH 256

/* How often we look whether those who may come back are still alive. */
#define REMEMBER_CHECK_SECONDS 10

/* How often we try to write a state file that cannot be written. */
#define SAVE_AGAIN_SECONDS 2

/* How long a door stays shut when the system cannot accept anybody. */
#define DOOR_PAUSE_MS 100

static gboolean door_resume(gpointer opaque)
{
    IvshmemDoor *door = opaque;

    door->pause_timer = 0;
    ivshmem_loop_set_events(door->region->server->loop, &door->watch, EPOLLIN);
    return G_SOURCE_REMOVE;
}

/* Whoever is at the door waits there; we do not spin. */
static void door_pause(IvshmemDoor *door, int error)
{
    IvshmemLogSubject subject = { door->region->config->name, -1, -1 };

    if (!door->shut) {
        ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_WAIT, &subject,
                          "newcomers have to wait: accept: %s",
                          ivshmem_strerror(error));
    }
    door->shut = true;
    door->region->server->counters.waits++;
    ivshmem_loop_set_events(door->region->server->loop, &door->watch, 0);
    door->pause_timer = g_timeout_add(DOOR_PAUSE_MS, door_resume, door);
}

static void door_open_again(IvshmemDoor *door)
{
    IvshmemLogSubject subject = { door->region->config->name, -1, -1 };

    if (door->shut) {
        door->shut = false;
        ivshmem_log_event(G_LOG_LEVEL_MESSAGE, IVSHMEM_LOG_WAIT, &subject,
                          "newcomers need not wait any more");
    }
}

static void door_ready(IvshmemWatch *watch, uint32_t events)
{
    IvshmemDoor *door = (IvshmemDoor *)watch;

    G_STATIC_ASSERT(offsetof(IvshmemDoor, watch) == 0);
    for (int i = 0; i < DOOR_BATCH; i++) {
        int sock = ivshmem_io_accept(door->listener.fd);

        if (sock == -EAGAIN) {
            return;
        }
        if (sock < 0) {
            door_pause(door, sock);
            return;
        }
        door_open_again(door);
        ivshmem_client_admit(door, sock);
    }
}

unsigned ivshmem_door_vectors(const IvshmemDoor *door)
{
    return door->config->vectors ? door->config->vectors
                                 : door->region_config->vectors;
}

static void door_reserve(IvshmemDoor *door, bool reserved)
{
    if (door->config->id != IVSHMEM_ID_ANY) {
        ivshmem_registry_reserve(door->region->registry,
                                 (uint16_t)door->config->id, reserved);
    }
}

static void door_free(IvshmemDoor *door)
{
    g_clear_handle_id(&door->pause_timer, g_source_remove);
    ivshmem_loop_remove(door->region->server->loop, &door->watch);
    ivshmem_listener_close(&door->listener);
    door_reserve(door, false);
    ivshmem_region_config_unref(door->region_config);
    g_free(door);
}

/* Listens, but lets nobody in before door_start(). */
static IvshmemDoor *door_open(IvshmemRegion *region,
                              IvshmemRegionConfig *region_config,
                              const IvshmemClientConfig *config, GError **errp)
{
    IvshmemDoor *door = g_new0(IvshmemDoor, 1);

    door->region = region;
    door->region_config = ivshmem_region_config_ref(region_config);
    door->config = config;
    door->listener.fd = -1;
    if (!ivshmem_handover_listener(region->server->handover,
                                   config->socket.path, &door->listener) &&
        !ivshmem_systemd_listener(config->socket.path, &door->listener) &&
        !ivshmem_listener_open(&door->listener, &config->socket, errp)) {
        ivshmem_region_config_unref(door->region_config);
        g_free(door);
        return NULL;
    }
    door->watch = (IvshmemWatch) {
        .fd = door->listener.fd, .events = EPOLLIN, .ready = door_ready,
    };
    door_reserve(door, true);
    g_ptr_array_add(region->doors, door);
    return door;
}

static bool door_start(IvshmemDoor *door, GError **errp)
{
    int ret = ivshmem_loop_add(door->region->server->loop, &door->watch);

    if (ret < 0) {
        ivshmem_error(errp, "cannot watch %s: %s", door->listener.path,
                      ivshmem_strerror(ret));
        return false;
    }
    return true;
}

/* The sockets of @config: the region's own, if it has one, is number -1. */
static const IvshmemClientConfig *
region_nth_socket(const IvshmemRegionConfig *config, int n)
{
    return n < 0 ? config->common
                 : g_ptr_array_index(config->clients, (guint)n);
}

bool ivshmem_region_id_is_fixed(const IvshmemRegion *region, uint16_t id)
{
    for (unsigned i = 0; i < region->doors->len; i++) {
        const IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        if (door->config->id == id) {
            return true;
        }
    }
    return false;
}

static bool region_open_doors(IvshmemRegion *region, GError **errp)
{
    for (int i = -1; i < (int)region->config->clients->len; i++) {
        const IvshmemClientConfig *config = region_nth_socket(region->config,
                                                              i);

        if (config->socket.path &&
            !door_open(region, region->config, config, errp)) {
            return false;
        }
    }
    return true;
}

/* Under which the service manager keeps it; it wants no strange characters. */
static char *region_memory_name(const IvshmemRegion *region)
{
    char *name = g_strconcat("ivshmem-memory-", region->config->name, NULL);

    return g_strcanon(name, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-_.", '_');
}

static bool region_has_reader(const IvshmemRegion *region)
{
    for (unsigned i = 0; i < region->doors->len; i++) {
        const IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        if (door->config->read_only) {
            return true;
        }
    }
    return false;
}

/* Not before the region is complete: whoever comes early waits. */
static bool region_start(IvshmemRegion *region, GError **errp)
{
    ivshmem_region_store(region);
    if (region_has_reader(region) &&
        !ivshmem_memory_prepare_read_only(region->memory, errp)) {
        return false;
    }
    for (unsigned i = 0; i < region->doors->len; i++) {
        if (!door_start(g_ptr_array_index(region->doors, i), errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Ids of processes that lived through the crash of the server before us wait
 * for them; those of processes that have died since are free again.
 */
static void region_reserve_remembered(uint16_t id, bool alive, void *opaque)
{
    IvshmemRegion *region = opaque;

    if (!ivshmem_region_id_is_fixed(region, id)) {
        ivshmem_registry_reserve(region->registry, id, alive);
    }
}

static gboolean region_check_remembered(gpointer opaque)
{
    IvshmemRegion *region = opaque;

    if (ivshmem_state_each(region->state, region_reserve_remembered, region)) {
        return G_SOURCE_CONTINUE;
    }
    region->state_timer = 0;
    return G_SOURCE_REMOVE;
}

/* Beside the first socket, where the next server looks; NULL: none. */
static char *region_state_path(const IvshmemRegion *region)
{
    const IvshmemDoor *door;

    if (!region->doors->len) {
        return NULL;
    }
    door = g_ptr_array_index(region->doors, 0);
    return g_strconcat(door->listener.path, ".state", NULL);
}

static void region_open_state(IvshmemRegion *region)
{
    g_autofree char *path = region_state_path(region);

    region->state = ivshmem_state_open(path, region->server->config->user);
}

static void region_remember(IvshmemRegion *region)
{
    unsigned left = ivshmem_state_each(region->state,
                                       region_reserve_remembered, region);

    if (left) {
        ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: %u clients of a server "
                    "that crashed may come back", region->config->name, left);
        region->state_timer = g_timeout_add_seconds(REMEMBER_CHECK_SECONDS,
                                                    region_check_remembered,
                                                    region);
    }
}

/* Memory without a name lives on in the clients of a server that crashed. */
static IvshmemMemory *region_find_memory(IvshmemRegion *region)
{
    const IvshmemMemoryConfig *config = &region->config->memory;
    g_autoptr(GError) error = NULL;
    g_autofree char *name = NULL;
    IvshmemMemory *memory = NULL;
    int fd, lost = 0;

    if (config->kind == IVSHMEM_MEMORY_SHM ||
        config->kind == IVSHMEM_MEMORY_FILE) {
        return NULL;
    }
    name = region_memory_name(region);
    fd = ivshmem_systemd_take(name);
    if (fd < 0) {
        fd = ivshmem_state_find_memory(region->state, &lost);
    }
    if (fd >= 0) {
        memory = ivshmem_memory_found_again(config, fd, &error);
    }
    if (!memory && (fd >= 0 || lost)) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "region %s: clients that come back "
                    "will find other memory: %s%s", region->config->name,
                    error ? error->message : ivshmem_strerror(lost),
                    error ? ""
                    : ": cannot take theirs (run as root, or use memory=shm:)");
    }
    return memory;
}

/* From a predecessor that is about to end. */
static bool region_take_over(IvshmemRegion *region, GError **errp)
{
    IvshmemHandover *handover = region->server->handover;
    g_autofree char *name = region_memory_name(region);
    G_GNUC_UNUSED IVSHMEM_FD_AUTO int known = ivshmem_systemd_take(name);

    region->registry = ivshmem_handover_registry(handover, region->config,
                                                 errp);
    if (!region->registry || !region_open_doors(region, errp)) {
        return false;
    }
    region->closing = !region->doors->len;
    region_open_state(region);
    ivshmem_state_forget(region->state);
    region->memory = ivshmem_handover_memory(handover, region->config, errp);
    if (!region->memory ||
        !ivshmem_handover_clients(handover, region, errp)) {
        return false;
    }
    ivshmem_region_set_changed(region);
    return region_start(region, errp);
}

static bool region_open(IvshmemRegion *region, GError **errp)
{
    region->registry = ivshmem_registry_new(region->config->first_id);
    /* The sockets first: who cannot have them must not touch the memory. */
    if (!region_open_doors(region, errp)) {
        return false;
    }
    region_open_state(region);
    region_remember(region);
    region->memory = region_find_memory(region);
    if (!region->memory) {
        region->memory = ivshmem_memory_open(&region->config->memory, errp);
    }
    return region->memory && region_start(region, errp);
}

IvshmemRegion *ivshmem_region_new(IvshmemServer *server,
                                  IvshmemRegionConfig *config, GError **errp)
{
    IvshmemRegion *region = g_new0(IvshmemRegion, 1);
    bool ok;

    region->server = server;
    region->config = ivshmem_region_config_ref(config);
    region->keep_memory = ivshmem_memory_config_is_persistent(&config->memory);
    region->doors = g_ptr_array_new_with_free_func((GDestroyNotify)door_free);
    ok = ivshmem_handover_has_region(server->handover, config->name)
        ? region_take_over(region, errp) : region_open(region, errp);
    if (!ok && !server->handover) {
        ivshmem_region_free(region, true);
    }
    if (!ok) {
        return NULL;
    }
    return region;
}

static gboolean region_save_again(gpointer opaque)
{
    IvshmemRegion *region = opaque;

    region->save_timer = 0;
    ivshmem_region_save(region);
    return G_SOURCE_REMOVE;
}

/* A disk that is full may have room before anybody else joins or leaves. */
static void region_set_saved(IvshmemRegion *region, const GError *error)
{
    IvshmemLogSubject subject = { region->config->name, -1, -1 };

    if (error && !region->unsaved) {
        ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_WAIT, &subject,
                          "%s", error->message);
    } else if (!error && region->unsaved) {
        ivshmem_log_event(G_LOG_LEVEL_MESSAGE, IVSHMEM_LOG_WAIT, &subject,
                          "the state file could be written again");
    }
    region->unsaved = error;
    if (error && !region->save_timer) {
        region->save_timer = g_timeout_add_seconds(SAVE_AGAIN_SECONDS,
                                                   region_save_again, region);
    }
}

void ivshmem_region_save(IvshmemRegion *region)
{
    g_autoptr(GError) error = NULL;
    IvshmemMember *member = NULL;

    region->served = true;
    if (ivshmem_state_append(region->state)) {
        return;
    }
    ivshmem_state_begin(region->state, ivshmem_memory_fd(region->memory));
    while ((member = ivshmem_registry_next(region->registry, member))) {
        const IvshmemClient *client = ivshmem_member_opaque(member);

        ivshmem_state_add(region->state, ivshmem_member_id(member),
                          client->process);
    }
    region_set_saved(region, ivshmem_state_end(region->state, &error) ? NULL
                                                                       : error);
}

void ivshmem_region_store(const IvshmemRegion *region)
{
    g_autofree char *name = region_memory_name(region);

    ivshmem_systemd_store(name, ivshmem_memory_fd(region->memory));
}

void ivshmem_region_unstore(const IvshmemRegion *region)
{
    g_autofree char *name = region_memory_name(region);

    ivshmem_systemd_forget(name);
}

void ivshmem_region_free(IvshmemRegion *region, bool remove)
{
    IvshmemMember *member;

    if (!region) {
        return;
    }
    /* What is a crashed server's stays, for a start that succeeds. */
    if (remove && region->served) {
        ivshmem_region_unstore(region);
    }
    g_clear_handle_id(&region->state_timer, g_source_remove);
    g_clear_handle_id(&region->save_timer, g_source_remove);
    g_ptr_array_unref(region->doors);
    while ((member = ivshmem_registry_next(region->registry, NULL))) {
        ivshmem_client_free(ivshmem_member_opaque(member));
    }
    ivshmem_region_reap(region);
    ivshmem_registry_free(region->registry);
    ivshmem_state_close(region->state, remove && region->served);
    ivshmem_memory_close(region->memory, remove && !region->keep_memory &&
        (region->served ||
         (region->memory && !ivshmem_memory_found(region->memory))));
    ivshmem_region_config_unref(region->config);
    g_free(region);
}

void ivshmem_region_shut(IvshmemRegion *region)
{
    g_ptr_array_set_size(region->doors, 0);
    region->closing = true;
    /* Its path may be another region's from now on; nobody comes back. */
    ivshmem_state_move(region->state, NULL);
}

static void region_move_state(IvshmemRegion *region)
{
    g_autofree char *path = region_state_path(region);

    if (ivshmem_state_move(region->state, path)) {
        ivshmem_region_set_changed(region);
    }
}

/* A door that stays as it is takes its part of the new configuration. */
static void door_renew(IvshmemRegion *region, IvshmemRegionConfig *config,
                       const IvshmemClientConfig *socket)
{
    for (unsigned i = 0; i < region->doors->len; i++) {
        IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        if (door->region_config == region->config &&
            g_strcmp0(door->config->name, socket->name) == 0 &&
            ivshmem_client_config_equal(door->config, socket)) {
            ivshmem_region_config_unref(door->region_config);
            door->region_config = ivshmem_region_config_ref(config);
            door->config = socket;
            return;
        }
    }
}

static void region_close_old_doors(IvshmemRegion *region,
                                   const IvshmemRegionConfig *config)
{
    for (unsigned i = region->doors->len; i-- > 0;) {
        IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        if (door->region_config != config) {
            ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: closed socket %s",
                        config->name, door->listener.path);
            g_ptr_array_remove_index(region->doors, i);
        }
    }
}

static void region_open_new_door(IvshmemRegion *region,
                                 IvshmemRegionConfig *config,
                                 const IvshmemClientConfig *socket)
{
    g_autoptr(GError) error = NULL;
    IvshmemDoor *door = door_open(region, config, socket, &error);

    if (door && door_start(door, &error)) {
        ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: opened socket %s",
                    config->name, socket->socket.path);
        return;
    }
    ivshmem_log(G_LOG_LEVEL_CRITICAL, "region %s: %s", config->name,
                error->message);
    if (door) {
        g_ptr_array_remove(region->doors, door);
    }
}

void ivshmem_region_close_old(IvshmemRegion *region,
                              IvshmemRegionConfig *config)
{
    if (!ivshmem_memory_config_equal(&region->config->memory,
                                     &config->memory)) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "region %s: its memory cannot change "
                    "while the server runs; stop it, and start it again",
                    config->name);
    } else {
        region->keep_memory =
            ivshmem_memory_config_is_persistent(&config->memory);
    }
    for (int i = -1; i < (int)config->clients->len; i++) {
        door_renew(region, config, region_nth_socket(config, i));
    }
    region_close_old_doors(region, config);
    ivshmem_region_config_unref(region->config);
    region->config = ivshmem_region_config_ref(config);
}

static bool region_has_door(const IvshmemRegion *region,
                            const IvshmemClientConfig *config)
{
    for (unsigned i = 0; i < region->doors->len; i++) {
        const IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        if (door->config == config) {
            return true;
        }
    }
    return false;
}

void ivshmem_region_open_new(IvshmemRegion *region)
{
    for (int i = -1; i < (int)region->config->clients->len; i++) {
        const IvshmemClientConfig *socket = region_nth_socket(region->config,
                                                              i);

        if (socket->socket.path && !region_has_door(region, socket)) {
            region_open_new_door(region, region->config, socket);
        }
    }
    region->closing = false;
    region_move_state(region);
}

void ivshmem_region_set_changed(IvshmemRegion *region)
{
    region->changed = true;
    ivshmem_loop_wake(region->server->loop);
}

void ivshmem_region_reap(IvshmemRegion *region)
{
    int fd;

    while ((fd = ivshmem_registry_reap(region->registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
}
