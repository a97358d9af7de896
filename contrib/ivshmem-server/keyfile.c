/*
 * The configuration file: sections and keys, each checked, and then whether
 * they go together.  Goes on after an error, to find all of them.
 *
 * Not responsible for the range of single values (value.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "config.h"
#include "ivshmem-registry.h"
#include "value.h"

/* Where a value comes from, for errors; and all errors so far. */
typedef struct KeyFile {
    IvshmemConfig *config;
    GKeyFile *file;
    GString *errors;
} KeyFile;

static void G_GNUC_PRINTF(3, 4) keyfile_complain(KeyFile *k, const char *where,
                                                 const char *format, ...)
{
    va_list ap;

    g_string_append_printf(k->errors, "%s%s%s%s: ",
                           k->errors->len ? "\n" : "", k->config->file,
                           where ? ": " : "", where ? where : "");
    va_start(ap, format);
    g_string_append_vprintf(k->errors, format, ap);
    va_end(ap);
}

static void keyfile_complain_error(KeyFile *k, GError *error)
{
    keyfile_complain(k, NULL, "%s", error->message);
    g_error_free(error);
}

/* Setters: one for each key */

typedef bool KeySetter(void *target, const char *what, const char *text,
                       GError **errp);

static bool set_size(void *target, const char *what, const char *text,
                     GError **errp)
{
    IvshmemRegionConfig *region = target;

    return ivshmem_value_region_size(what, text, &region->memory.size, errp);
}

static bool set_memory(void *target, const char *what, const char *text,
                       GError **errp)
{
    return ivshmem_memory_config_set(&((IvshmemRegionConfig *)target)->memory,
                                     what, text, errp);
}

static bool set_persistent(void *target, const char *what, const char *text,
                           GError **errp)
{
    IvshmemRegionConfig *region = target;

    bool yes = false;
    bool ok = ivshmem_value_bool(what, text, &yes, errp);

    region->memory.persistent = yes;
    return ok;
}

static bool set_prealloc(void *target, const char *what, const char *text,
                         GError **errp)
{
    IvshmemRegionConfig *region = target;

    return ivshmem_value_bool(what, text, &region->memory.prealloc, errp);
}

static bool set_numa_node(void *target, const char *what, const char *text,
                          GError **errp)
{
    IvshmemRegionConfig *region = target;
    uint64_t number;

    if (!ivshmem_value_number(what, text, 0, IVSHMEM_NUMA_NODES - 1, &number,
                              errp)) {
        return false;
    }
    region->memory.numa_node = (int)number;
    return true;
}

static bool set_count(const char *what, const char *text, unsigned *vectors,
                      GError **errp)
{
    uint64_t number;

    if (!ivshmem_value_number(what, text, 1, IVSHMEM_VECTORS_MAX, &number,
                              errp)) {
        return false;
    }
    *vectors = (unsigned)number;
    return true;
}

static bool set_region_vectors(void *target, const char *what,
                               const char *text, GError **errp)
{
    return set_count(what, text, &((IvshmemRegionConfig *)target)->vectors,
                     errp);
}

static bool set_client_vectors(void *target, const char *what,
                               const char *text, GError **errp)
{
    return set_count(what, text, &((IvshmemClientConfig *)target)->vectors,
                     errp);
}

static bool set_first_id(void *target, const char *what, const char *text,
                         GError **errp)
{
    uint64_t number;

    if (!ivshmem_value_number(what, text, 0, IVSHMEM_ID_MAX, &number, errp)) {
        return false;
    }
    ((IvshmemRegionConfig *)target)->first_id = (uint16_t)number;
    return true;
}

static bool set_id(void *target, const char *what, const char *text,
                   GError **errp)
{
    uint64_t number;

    if (!ivshmem_value_number(what, text, 0, IVSHMEM_ID_MAX, &number, errp)) {
        return false;
    }
    ((IvshmemClientConfig *)target)->id = (int)number;
    return true;
}

static bool set_access(void *target, const char *what, const char *text,
                       GError **errp)
{
    IvshmemClientConfig *client = target;

    client->read_only = strcmp(text, "read-only") == 0;
    if (!client->read_only && strcmp(text, "read-write") != 0) {
        ivshmem_error(errp, "%s: '%s' is neither read-only nor read-write",
                      what, text);
        return false;
    }
    return true;
}

static bool set_second(void *target, const char *what, const char *text,
                       GError **errp)
{
    IvshmemClientConfig *client = target;

    client->replace = strcmp(text, "replace") == 0;
    if (!client->replace && strcmp(text, "refuse") != 0) {
        ivshmem_error(errp, "%s: '%s' is neither refuse (a second connection) "
                      "nor replace (the first one)", what, text);
        return false;
    }
    return true;
}

static bool set_socket(void *target, const char *what, const char *text,
                       GError **errp)
{
    IvshmemClientConfig *client = target;

    if (!g_path_is_absolute(text)) {
        ivshmem_error(errp, "%s: '%s' does not start with /; the server has "
                      "no directory of its own", what, text);
        return false;
    }
    g_free(client->socket.path);
    client->socket.path = ivshmem_value_socket_path(what, text, errp);
    return client->socket.path;
}

static bool set_socket_mode(void *target, const char *what, const char *text,
                            GError **errp)
{
    IvshmemClientConfig *client = target;

    return ivshmem_value_mode(what, text, &client->socket.mode, errp);
}

static bool set_socket_owner(void *target, const char *what, const char *text,
                             GError **errp)
{
    IvshmemClientConfig *client = target;

    return ivshmem_value_user(what, text, &client->socket.owner, errp);
}

static bool set_socket_group(void *target, const char *what, const char *text,
                             GError **errp)
{
    IvshmemClientConfig *client = target;

    return ivshmem_value_group(what, text, &client->socket.group, errp);
}

static bool set_allow_users(void *target, const char *what, const char *text,
                            GError **errp)
{
    IvshmemClientConfig *client = target;
    g_auto(GStrv) names = g_strsplit(text, ";", 0);

    if (client->socket.users) {
        g_array_unref(client->socket.users);
    }
    client->socket.users = g_array_new(FALSE, FALSE, sizeof(uid_t));
    for (char **name = names; *name; name++) {
        uid_t uid;

        g_strstrip(*name);
        if (!**name) {
            continue;           /* a ; at the end */
        }
        if (!ivshmem_value_user(what, *name, &uid, errp)) {
            return false;
        }
        g_array_append_val(client->socket.users, uid);
    }
    return true;
}

static bool set_queue_limit(void *target, const char *what, const char *text,
                            GError **errp)
{
    return ivshmem_value_number(what, text, 1, UINT32_MAX,
                                &((IvshmemConfig *)target)->queue_limit, errp);
}

static bool set_stall_timeout(void *target, const char *what, const char *text,
                              GError **errp)
{
    uint64_t number;

    if (!ivshmem_value_number(what, text, 0, UINT32_MAX, &number, errp)) {
        return false;
    }
    ((IvshmemConfig *)target)->stall_timeout_ms = number * 1000;
    return true;
}

static bool set_control_socket(void *target, const char *what,
                               const char *text, GError **errp)
{
    IvshmemConfig *config = target;
    IvshmemClientConfig socket = { 0 };

    if (!set_socket(&socket, what, text, errp)) {
        return false;
    }
    g_free(config->control_path);
    config->control_path = socket.socket.path;
    return true;
}

static bool set_control_mode(void *target, const char *what, const char *text,
                             GError **errp)
{
    return ivshmem_value_mode(what, text,
                              &((IvshmemConfig *)target)->control.mode, errp);
}

static bool set_control_group(void *target, const char *what, const char *text,
                              GError **errp)
{
    return ivshmem_value_group(what, text,
                               &((IvshmemConfig *)target)->control.group, errp);
}

typedef struct Key {
    const char *name;
    KeySetter *set;
} Key;

static const Key server_keys[] = {
    { "queue-limit", set_queue_limit },
    { "stall-timeout", set_stall_timeout },
    { "control-socket", set_control_socket },
    { "control-mode", set_control_mode },
    { "control-group", set_control_group },
    { NULL },
};

static const Key region_keys[] = {
    { "size", set_size }, { "memory", set_memory },
    { "persistent", set_persistent }, { "prealloc", set_prealloc },
    { "numa-node", set_numa_node }, { "vectors", set_region_vectors },
    { "first-id", set_first_id },
    { NULL },
};

static const Key socket_keys[] = {
    { "socket", set_socket }, { "socket-mode", set_socket_mode },
    { "socket-owner", set_socket_owner }, { "socket-group", set_socket_group },
    { "allow-users", set_allow_users },
    { NULL },
};

static const Key client_keys[] = {
    { "id", set_id }, { "access", set_access },
    { "vectors", set_client_vectors }, { "second", set_second },
    { NULL },
};

/* Up to two tables of keys apply to a section, each with its own target. */
typedef struct KeyTable {
    const Key *keys;
    void *target;
} KeyTable;

static char *keyfile_known_keys(const KeyTable tables[2])
{
    GString *text = g_string_new(NULL);

    for (int t = 0; t < 2; t++) {
        for (const Key *key = tables[t].keys; key && key->name; key++) {
            g_string_append_printf(text, "%s%s", text->len ? ", " : "",
                                   key->name);
        }
    }
    return g_string_free(text, FALSE);
}

static void keyfile_set(KeyFile *k, const char *group, const char *name,
                        const KeyTable tables[2])
{
    g_autofree char *text = g_key_file_get_value(k->file, group, name, NULL);
    g_autofree char *what = g_strdup_printf("[%s] %s", group, name);
    g_autofree char *known = NULL;
    GError *error = NULL;

    for (int t = 0; t < 2; t++) {
        for (const Key *key = tables[t].keys; key && key->name; key++) {
            if (strcmp(key->name, name) != 0) {
                continue;
            }
            if (!key->set(tables[t].target, what, g_strstrip(text), &error)) {
                keyfile_complain_error(k, error);
            }
            return;
        }
    }
    known = keyfile_known_keys(tables);
    keyfile_complain(k, what, "there is no such key; there are: %s", known);
}

static void keyfile_section(KeyFile *k, const char *group,
                            const KeyTable tables[2])
{
    g_auto(GStrv) keys = g_key_file_get_keys(k->file, group, NULL, NULL);

    for (char **name = keys; name && *name; name++) {
        keyfile_set(k, group, *name, tables);
    }
}

static void keyfile_region(KeyFile *k, const char *group, const char *name)
{
    IvshmemRegionConfig *region = ivshmem_region_config_new(name);
    const KeyTable tables[2] = {
        { region_keys, region }, { socket_keys, region->common },
    };

    g_ptr_array_add(k->config->regions, region);
    if (!*name || strchr(name, '/')) {
        keyfile_complain(k, group, "write [region NAME], NAME without '/'");
    }
    keyfile_section(k, group, tables);
}

static void keyfile_client(KeyFile *k, const char *group, const char *name)
{
    const char *slash = strchr(name, '/');
    g_autofree char *region_name =
        g_strndup(name, slash ? (gsize)(slash - name) : 0);
    IvshmemRegionConfig *region = ivshmem_config_find(k->config, region_name);
    IvshmemClientConfig *client;
    KeyTable tables[2] = { { client_keys }, { socket_keys } };

    if (!slash || !slash[1] || !region) {
        keyfile_complain(k, group, "write [client REGION/NAME], where REGION "
                         "is one of the regions of this file");
        return;
    }
    client = ivshmem_client_config_new(region, slash + 1);
    tables[0].target = client;
    tables[1].target = client;
    keyfile_section(k, group, tables);
    if (!client->socket.path) {
        keyfile_complain(k, group, "socket= is missing: who may open it is "
                         "this client");
    }
}

/* What follows "region " or "client ". */
static const char *keyfile_name(const char *group)
{
    const char *name = strchr(group, ' ');

    return name + strspn(name, " \t");
}

static void keyfile_sections(KeyFile *k)
{
    g_auto(GStrv) groups = g_key_file_get_groups(k->file, NULL);
    const KeyTable tables[2] = { { server_keys, k->config } };

    /* Regions first: clients may stand anywhere. */
    for (char **group = groups; *group; group++) {
        if (g_str_has_prefix(*group, "region ")) {
            keyfile_region(k, *group, keyfile_name(*group));
        }
    }
    for (char **group = groups; *group; group++) {
        if (g_str_has_prefix(*group, "client ")) {
            keyfile_client(k, *group, keyfile_name(*group));
        } else if (strcmp(*group, "server") == 0) {
            keyfile_section(k, *group, tables);
        } else if (!g_str_has_prefix(*group, "region ")) {
            keyfile_complain(k, *group, "there is no such section; there are "
                             "[server], [region NAME] and [client REGION/NAME]");
        }
    }
}

/* What must not be used twice, and by whom it has been. */
static void keyfile_claim(KeyFile *k, GHashTable *claimed, char *what,
                          const char *who)
{
    const char *other = g_hash_table_lookup(claimed, what);

    if (other) {
        keyfile_complain(k, who, "%s belongs to %s already", what, other);
        g_free(what);
    } else {
        g_hash_table_insert(claimed, what, g_strdup(who));
    }
}

static void keyfile_check_client(KeyFile *k, GHashTable *claimed,
                                 const IvshmemRegionConfig *region,
                                 const IvshmemClientConfig *client)
{
    g_autofree char *who = client->name ?
        g_strdup_printf("[client %s/%s]", region->name, client->name) :
        g_strdup_printf("[region %s]", region->name);

    if (client->socket.path) {
        keyfile_claim(k, claimed, g_strdup_printf("socket %s",
                                                  client->socket.path), who);
    }
    if (client->id != IVSHMEM_ID_ANY) {
        keyfile_claim(k, claimed, g_strdup_printf("id %d of region %s",
                                                  client->id, region->name),
                      who);
    }
    if (client->read_only && region->memory.kind != IVSHMEM_MEMORY_MEMFD &&
        region->memory.kind != IVSHMEM_MEMORY_HUGETLB) {
        keyfile_complain(k, who, "access=read-only needs memory=memfd or "
                         "hugetlb: what has a name can be opened by it");
    }
}

static void keyfile_check_region(KeyFile *k, GHashTable *claimed,
                                 const IvshmemRegionConfig *region)
{
    const IvshmemMemoryConfig *memory = &region->memory;
    g_autofree char *who = g_strdup_printf("[region %s]", region->name);

    if (memory->name && memory->kind != IVSHMEM_MEMORY_DIR) {
        keyfile_claim(k, claimed, g_strdup_printf("memory %s", memory->name),
                      who);
    }
    if (memory->persistent == 1 && !memory->name) {
        keyfile_complain(k, who, "persistent=yes needs memory=shm: or file:, "
                         "which have a name to be found by");
    }
    if (!region->common->socket.path && region->clients->len == 0) {
        keyfile_complain(k, who, "socket= is missing, and there is no "
                         "[client %s/NAME] either", region->name);
    }
    keyfile_check_client(k, claimed, region, region->common);
    for (unsigned i = 0; i < region->clients->len; i++) {
        keyfile_check_client(k, claimed, region,
                             g_ptr_array_index(region->clients, i));
    }
}

static void keyfile_check(KeyFile *k)
{
    g_autoptr(GHashTable) claimed = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, g_free);

    if (k->config->regions->len == 0) {
        keyfile_complain(k, NULL, "there is no [region NAME]");
    }
    for (unsigned i = 0; i < k->config->regions->len; i++) {
        keyfile_check_region(k, claimed,
                             g_ptr_array_index(k->config->regions, i));
    }
}

bool ivshmem_config_read_file(IvshmemConfig *config, GError **errp)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GString) errors = g_string_new(NULL);
    KeyFile k = { config, file, errors };
    GError *error = NULL;

    if (!g_key_file_load_from_file(file, config->file, G_KEY_FILE_NONE,
                                   &error)) {
        keyfile_complain_error(&k, error);
    } else {
        keyfile_sections(&k);
        keyfile_check(&k);
    }
    if (errors->len) {
        ivshmem_error(errp, "%s", errors->str);
        return false;
    }
    return true;
}
