/*
 * Values that people write, checked and turned into numbers.
 *
 * Not responsible for where they come from, nor for how they go together.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "value.h"

/* The largest power of two that an off_t holds. */
#define REGION_SIZE_MAX (UINT64_C(1) << 62)

static const char size_suffixes[] = "BKMGTP";

/* The digits at the start of @text; false when there are none or too many. */
static bool value_digits(const char *text, uint64_t *number, const char **end)
{
    char *stop;

    if (!g_ascii_isdigit(text[0])) {
        return false;
    }
    errno = 0;
    *number = g_ascii_strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0;
}

bool ivshmem_value_number(const char *what, const char *text, uint64_t min,
                          uint64_t max, uint64_t *number, GError **errp)
{
    const char *end;

    if (!value_digits(text, number, &end) || *end ||
        *number < min || *number > max) {
        ivshmem_error(errp, "%s: '%s' is not a number from %" G_GUINT64_FORMAT
                      " to %" G_GUINT64_FORMAT, what, text, min, max);
        return false;
    }
    return true;
}

bool ivshmem_value_size(const char *what, const char *text, uint64_t *size,
                        GError **errp)
{
    const char *end, *suffix;
    unsigned shift = 0;

    if (!value_digits(text, size, &end)) {
        ivshmem_error(errp, "%s: '%s' is not a size; write a number of bytes, "
                      "or a number with K, M, G, T or P, like 4M", what, text);
        return false;
    }
    if (*end) {
        suffix = strchr(size_suffixes, g_ascii_toupper(*end));
        if (!suffix || end[1]) {
            ivshmem_error(errp, "%s: '%s' ends with '%s', which is no unit; "
                          "use K, M, G, T or P, like 4M", what, text, end);
            return false;
        }
        shift = 10 * (unsigned)(suffix - size_suffixes);
    }
    if (*size > UINT64_MAX >> shift) {
        ivshmem_error(errp, "%s: '%s' is more than 64 bits hold", what, text);
        return false;
    }
    *size <<= shift;
    return true;
}

bool ivshmem_value_region_size(const char *what, const char *text,
                               uint64_t *size, GError **errp)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t power = page;
    g_autofree char *better = NULL;

    if (!ivshmem_value_size(what, text, size, errp)) {
        return false;
    }
    if (*size < page || *size > REGION_SIZE_MAX) {
        ivshmem_error(errp, "%s: '%s' is too %s; a region has from %"
                      G_GUINT64_FORMAT " bytes (one page) to 4096P", what, text,
                      *size < page ? "small" : "large", page);
        return false;
    }
    while (power < *size) {
        power <<= 1;
    }
    if (power != *size) {
        better = ivshmem_value_format_size(power);
        ivshmem_error(errp, "%s: '%s' is not a power of two, as a PCI BAR must "
                      "be; the next one is %s", what, text, better);
        return false;
    }
    return true;
}

bool ivshmem_value_mode(const char *what, const char *text, mode_t *mode,
                        GError **errp)
{
    size_t len = strlen(text);
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 8);

    if (len == 0 || len > 4 || strspn(text, "01234567") != len || *end ||
        value > 0777 || value == 0) {
        ivshmem_error(errp, "%s: '%s' is not a mode; write octal digits, "
                      "like 0660", what, text);
        return false;
    }
    *mode = (mode_t)value;
    return true;
}

bool ivshmem_value_bool(const char *what, const char *text, bool *yes,
                        GError **errp)
{
    static const char *const words[2][4] = {
        { "no", "off", "false", "0" }, { "yes", "on", "true", "1" },
    };

    for (unsigned i = 0; i < 8; i++) {
        if (g_ascii_strcasecmp(text, words[i / 4][i % 4]) == 0) {
            *yes = i / 4;
            return true;
        }
    }
    ivshmem_error(errp, "%s: '%s' is neither yes nor no", what, text);
    return false;
}

static bool value_is_id(const char *text, uint64_t *id)
{
    const char *end;

    /* The highest number means "nobody in particular" to chown(). */
    return value_digits(text, id, &end) && !*end && *id < UINT32_MAX;
}

bool ivshmem_value_user(const char *what, const char *text, uid_t *uid,
                        GError **errp)
{
    const struct passwd *entry = getpwnam(text);
    uint64_t id;

    if (!entry && !value_is_id(text, &id)) {
        ivshmem_error(errp, "%s: there is no user '%s'; see getent passwd",
                      what, text);
        return false;
    }
    *uid = entry ? entry->pw_uid : (uid_t)id;
    return true;
}

bool ivshmem_value_group(const char *what, const char *text, gid_t *gid,
                         GError **errp)
{
    const struct group *entry = getgrnam(text);
    uint64_t id;

    if (!entry && !value_is_id(text, &id)) {
        ivshmem_error(errp, "%s: there is no group '%s'; see getent group",
                      what, text);
        return false;
    }
    *gid = entry ? entry->gr_gid : (gid_t)id;
    return true;
}

char *ivshmem_value_socket_path(const char *what, const char *text,
                                GError **errp)
{
    g_autofree char *path = g_canonicalize_filename(text, NULL);
    const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

    if (!*text) {
        ivshmem_error(errp, "%s: a path is missing", what);
        return NULL;
    }
    if (strlen(path) > max) {
        ivshmem_error(errp, "%s: '%s' has %zu characters; the path of a socket "
                      "has %zu at most", what, path, strlen(path), max);
        return NULL;
    }
    return g_steal_pointer(&path);
}

char *ivshmem_value_format_size(uint64_t size)
{
    unsigned unit = 0;

    while (size && size % 1024 == 0 && unit < strlen(size_suffixes) - 1) {
        size /= 1024;
        unit++;
    }
    return unit == 0 ? g_strdup_printf("%" G_GUINT64_FORMAT, size)
                     : g_strdup_printf("%" G_GUINT64_FORMAT "%c", size,
                                       size_suffixes[unit]);
}
