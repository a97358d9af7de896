/*
 * Commands about the shared memory.
 *
 * Not responsible for what the bytes mean.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "command.h"

/* What peek shows without LENGTH, in one line's width, and at most. */
#define MEMORY_PEEK_DEFAULT 64
#define MEMORY_PEEK_LINE 16
#define MEMORY_PEEK_MAX (16 * 1024 * 1024)

/*
 * The address of @len bytes at @offset, or NULL with @error.  A peer that
 * shrinks the memory between the check and the access is main()'s business.
 */
static uint8_t *memory_at(Command *cmd, bool writable, guint64 offset,
                          guint64 len, GError **error)
{
    IvshmemPeer *peer = cmd->client->peer;
    guint64 size = ivshmem_peer_size(peer);
    struct stat now;
    void *base;
    int ret;

    if (len > size || offset > size - len) {
        command_error(error, "%" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT
                      " reach past the end of the memory, which has %"
                      G_GUINT64_FORMAT, len, offset, size);
        return NULL;
    }
    if (fstat(ivshmem_peer_shm_fd(peer), &now) < 0) {
        command_error(error, "cannot examine the shared memory: %s",
                      g_strerror(errno));
        return NULL;
    }
    if ((guint64)now.st_size < offset + len) {
        command_error(error, "another peer has shrunk the shared memory");
        return NULL;
    }
    ret = ivshmem_peer_map(peer, writable, &base, NULL);
    if (ret < 0) {
        command_error(error, "cannot map the shared memory: %s%s",
                      ivshmem_strerror(ret), ret == -EACCES && writable
                      ? "; the server lets us read only" : "");
        return NULL;
    }
    return (uint8_t *)base + offset;
}

static void memory_show(Answer *answer, guint64 offset, const uint8_t *bytes,
                        size_t len)
{
    g_autoptr(GString) hex = g_string_sized_new(2 * len);

    for (size_t line = 0; line < len; line += MEMORY_PEEK_LINE) {
        size_t n = MIN(len - line, MEMORY_PEEK_LINE);
        char chars[MEMORY_PEEK_LINE + 1] = "";

        answer_text(answer, "%08" G_GINT64_MODIFIER "x ", offset + line);
        for (size_t i = 0; i < MEMORY_PEEK_LINE; i++) {
            if (i < n) {
                uint8_t byte = bytes[line + i];

                chars[i] = g_ascii_isprint(byte) ? (char)byte : '.';
                answer_text(answer, " %02x", byte);
                g_string_append_printf(hex, "%02x", byte);
            } else {
                answer_text(answer, "   ");
            }
        }
        answer_text(answer, "  |%s|\n", chars);
    }
    answer_number(answer, "offset", offset);
    answer_number(answer, "length", len);
    answer_string(answer, "hex", hex->str);
}

/* peek OFFSET [LENGTH] */
gboolean command_peek(Command *cmd, GError **error)
{
    guint64 offset = 0, len = MEMORY_PEEK_DEFAULT;
    g_autofree uint8_t *copy = NULL;
    uint8_t *bytes;

    if (!command_number(cmd, 0, "offset", G_MAXUINT64, &offset, error) ||
        !command_number(cmd, 1, "length", MEMORY_PEEK_MAX, &len, error)) {
        return FALSE;
    }
    bytes = memory_at(cmd, false, offset, len, error);
    if (!bytes) {
        return FALSE;
    }
    /* Others may write meanwhile: text and hex are to say the same. */
    copy = g_malloc(MAX(len, 1));
    memcpy(copy, bytes, len);
    memory_show(cmd->answer, offset, copy, len);
    return TRUE;
}

static gboolean memory_hex(const char *text, GByteArray *out)
{
    for (; *text; text += 2) {
        int high = g_ascii_xdigit_value(text[0]);
        int low = high < 0 ? -1 : g_ascii_xdigit_value(text[1]);
        guint8 byte;

        if (low < 0) {
            return FALSE;
        }
        byte = (guint8)(high << 4 | low);
        g_byte_array_append(out, &byte, 1);
    }
    return TRUE;
}

/* @text as it stands between quotes, with C escapes; \0 is a byte as well. */
static void memory_text(const char *text, GByteArray *out)
{
    while (*text) {
        static const char from[] = "ntr", to[] = "\n\t\r";
        guint8 byte = (guint8)*text++;
        const char *escape;

        if (byte == '\\' && *text) {
            escape = strchr(from, *text);
            if (escape) {
                byte = (guint8)to[escape - from];
                text++;
            } else if (*text >= '0' && *text <= '7') {
                byte = 0;
                for (int i = 0; i < 3 && *text >= '0' && *text <= '7'; i++) {
                    byte = (guint8)(byte * 8 + (*text++ - '0'));
                }
            } else {
                byte = (guint8)*text++;
            }
        }
        g_byte_array_append(out, &byte, 1);
    }
}

/* poke OFFSET HEX.. or "TEXT".. */
gboolean command_poke(Command *cmd, GError **error)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    guint64 offset = 0;
    uint8_t *bytes;

    if (!command_number(cmd, 0, "offset", G_MAXUINT64, &offset, error)) {
        return FALSE;
    }
    for (unsigned i = 1; i < cmd->argc; i++) {
        const char *arg = cmd->argv[i];

        if (*arg == '"') {
            memory_text(arg + 1, data);
        } else if (!memory_hex(arg, data)) {
            return command_error(error, "\"%s\" is not pairs of hexadecimal "
                                 "digits; text goes in quotes", arg);
        }
    }
    bytes = memory_at(cmd, true, offset, data->len, error);
    if (!bytes) {
        return FALSE;
    }
    if (data->len) {
        memcpy(bytes, data->data, data->len);
    }
    answer_number(cmd->answer, "offset", offset);
    answer_number(cmd->answer, "length", data->len);
    answer_text(cmd->answer, "wrote %u bytes\n", data->len);
    return TRUE;
}

/* fill OFFSET LENGTH BYTE */
gboolean command_fill(Command *cmd, GError **error)
{
    guint64 offset = 0, len = 0, byte = 0;
    uint8_t *bytes;

    if (!command_number(cmd, 0, "offset", G_MAXUINT64, &offset, error) ||
        !command_number(cmd, 1, "length", G_MAXUINT64, &len, error) ||
        !command_number(cmd, 2, "byte", 0xff, &byte, error)) {
        return FALSE;
    }
    bytes = memory_at(cmd, true, offset, len, error);
    if (!bytes) {
        return FALSE;
    }
    memset(bytes, (int)byte, len);
    answer_number(cmd->answer, "offset", offset);
    answer_number(cmd->answer, "length", len);
    answer_text(cmd->answer, "filled %" G_GUINT64_FORMAT " bytes\n", len);
    return TRUE;
}

/* cat [OFFSET [LENGTH]] */
gboolean command_cat(Command *cmd, GError **error)
{
    guint64 offset = 0, len = ivshmem_peer_size(cmd->client->peer);
    uint8_t *bytes;

    if (cmd->answer->json) {
        return command_error(error, "bytes are no JSON; use peek");
    }
    if (!command_number(cmd, 0, "offset", len, &offset, error)) {
        return FALSE;
    }
    len -= offset;
    if (!command_number(cmd, 1, "length", G_MAXUINT64, &len, error)) {
        return FALSE;
    }
    bytes = memory_at(cmd, false, offset, len, error);
    if (!bytes) {
        return FALSE;
    }
    if (fwrite(bytes, 1, len, stdout) != len) {
        return command_error(error, "stdout takes no more");
    }
    return TRUE;
}
