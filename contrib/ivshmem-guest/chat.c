/*
 * ivshmem-guest: chat - lines of text to and from another guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include "channel.h"
#include "command.h"

typedef struct IvshmemChat {
    IvshmemChannel channel;
    const IvshmemOptions *opt;
    int64_t deadline;
    char input[4096];           /* read, but not sent */
    size_t input_used;
    bool input_ended;
    bool in_line;               /* the message received last goes on */
    char character[4];          /* in UTF-8, also from one message to the next */
    unsigned used, length;      /* length 0: between two */
    uint32_t code;
    uint64_t received, sent;    /* lines */
    uint64_t shown_wakeups;
} IvshmemChat;

static void ivshmem_chat_end_character(IvshmemChat *chat)
{
    if (chat->length) {
        putchar('?');
        chat->length = 0;
    }
}

/* A peer shall not control this terminal: neither by ASCII nor by C1 codes. */
static void ivshmem_chat_put(IvshmemChat *chat, uint8_t c)
{
    static const uint32_t least[] = { 0, 0, 0xa0, 0x800, 0x10000 };

    if (chat->length && (c & 0xc0) == 0x80) {
        chat->code = chat->code << 6 | (c & 0x3f);
    } else {
        ivshmem_chat_end_character(chat);
        if (c < 0xc0 || c > 0xf4) {
            putchar((c < 0x20 && c != '\t') || c >= 0x7f ? '?' : c);
            return;
        }
        chat->length = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        chat->used = 0;
        chat->code = c & (0x7f >> chat->length);
    }
    chat->character[chat->used++] = c;
    if (chat->used == chat->length && chat->code >= least[chat->length]) {
        fwrite(chat->character, 1, chat->length, stdout);
        chat->length = 0;
    } else if (chat->used == chat->length) {
        ivshmem_chat_end_character(chat);
    }
}

static void ivshmem_chat_print(IvshmemChat *chat, const IvshmemMessage *message)
{
    if (!chat->in_line) {
        if (chat->opt->verbose && chat->channel.wakeups > chat->shown_wakeups) {
            chat->shown_wakeups = chat->channel.wakeups;
            printf("  [woken by MSI-X vector %u]\n", chat->channel.last_vector);
        }
        printf("peer %u: ", chat->channel.peer);
    }
    for (unsigned i = 0; i < message->length; i++) {
        ivshmem_chat_put(chat, message->data[i]);
    }
    chat->in_line = message->type == IVSHMEM_CHANNEL_MORE;
    if (!chat->in_line) {
        ivshmem_chat_end_character(chat);
        putchar('\n');
        chat->received++;
    }
    fflush(stdout);
}

static bool ivshmem_chat_receive(IvshmemChat *chat, IvshmemError *err)
{
    IvshmemChannel *channel = &chat->channel;
    IvshmemMessage message;
    int ret = 0;

    while (!channel->bye_received &&
           (ret = ivshmem_channel_receive(channel, &message, err)) > 0) {
        switch (message.type) {
        case IVSHMEM_CHANNEL_TEXT:
        case IVSHMEM_CHANNEL_MORE:
            ivshmem_chat_print(chat, &message);
            break;
        case IVSHMEM_CHANNEL_PING:
            if (!ivshmem_channel_send(channel, IVSHMEM_CHANNEL_PONG, message.data,
                                      message.length, chat->deadline, err)) {
                return false;
            }
            break;
        }
    }
    return ret >= 0;
}

/* The length of the line that comes next, its end included; 0: none yet. */
static size_t ivshmem_chat_next_line(IvshmemChat *chat)
{
    char *end = memchr(chat->input, '\n', chat->input_used);

    if (end) {
        return end - chat->input + 1;
    }
    if (chat->input_ended || chat->input_used == sizeof(chat->input)) {
        return chat->input_used;
    }
    return 0;
}

/* With --reply or --lead each line waits for its turn. */
static bool ivshmem_chat_may_send(IvshmemChat *chat)
{
    bool turns = chat->opt->reply || chat->opt->lead;

    return !chat->channel.bye_sent && !chat->channel.bye_received &&
           (!turns || chat->sent < chat->received + chat->opt->lead);
}

static bool ivshmem_chat_send_part(IvshmemChat *chat, size_t line, IvshmemError *err)
{
    IvshmemChannel *channel = &chat->channel;
    size_t text = line, n, drop;
    uint64_t at = channel->offset + offsetof(IvshmemChannelLayout, slot) +
        (channel->side * IVSHMEM_CHANNEL_SLOTS + channel->head % IVSHMEM_CHANNEL_SLOTS)
        * sizeof(IvshmemChannelSlot);
    bool more;

    text -= chat->input[line - 1] == '\n';
    more = text > IVSHMEM_CHANNEL_DATA;
    n = more ? IVSHMEM_CHANNEL_DATA : text;
    drop = more ? n : line;
    if (!ivshmem_channel_send(channel, more ? IVSHMEM_CHANNEL_MORE :
                              IVSHMEM_CHANNEL_TEXT, chat->input, n, chat->deadline,
                              err)) {
        return false;
    }
    if (chat->opt->verbose) {
        printf("  [wrote %zu bytes at 0x%" PRIx64 "%s", n, at,
               channel->doorbell ? "" : "]\n");
        if (channel->doorbell) {
            printf(", rang peer %u vector %u]\n", channel->peer, channel->vector);
        }
        fflush(stdout);
    }
    chat->sent += !more;
    chat->input_used -= drop;
    memmove(chat->input, chat->input + drop, chat->input_used);
    return true;
}

static bool ivshmem_chat_send(IvshmemChat *chat, IvshmemError *err)
{
    size_t line;

    while (ivshmem_chat_may_send(chat) && (line = ivshmem_chat_next_line(chat)) &&
           ivshmem_channel_room(&chat->channel)) {
        if (!ivshmem_chat_send_part(chat, line, err)) {
            return false;
        }
    }
    return true;
}

static bool ivshmem_chat_read_input(IvshmemChat *chat, IvshmemError *err)
{
    ssize_t n = read(STDIN_FILENO, chat->input + chat->input_used,
                     sizeof(chat->input) - chat->input_used);

    if (n < 0) {
        return errno == EINTR || errno == EAGAIN ||
               ivshmem_error_set(err, "cannot read standard input: %s",
                                 strerror(errno));
    }
    chat->input_ended = n == 0;
    chat->input_used += n;
    return true;
}

/* Says goodbye when all is sent and all that was expected has come. */
static bool ivshmem_chat_maybe_bye(IvshmemChat *chat, IvshmemError *err)
{
    bool done = chat->input_ended && !chat->input_used &&
                chat->received >= chat->opt->expect;

    if (chat->channel.bye_sent || (!done && !chat->channel.bye_received)) {
        return true;
    }
    return ivshmem_channel_bye(&chat->channel, chat->deadline, err);
}

static bool ivshmem_chat_loop(IvshmemChat *chat, IvshmemError *err)
{
    IvshmemChannel *channel = &chat->channel;

    while (!channel->bye_sent || !channel->bye_received) {
        bool want_input;
        int ret;

        if (!ivshmem_chat_receive(chat, err) || !ivshmem_chat_send(chat, err) ||
            !ivshmem_chat_maybe_bye(chat, err)) {
            return false;
        }
        if (channel->bye_sent && channel->bye_received) {
            break;
        }
        want_input = !chat->input_ended && !ivshmem_chat_next_line(chat);
        ret = ivshmem_channel_wait(channel, chat->deadline,
                                   want_input ? STDIN_FILENO : -1, err);
        if (ret < 0 || (ret == 2 && !ivshmem_chat_read_input(chat, err))) {
            return false;
        }
        if (ret == 0) {
            return ivshmem_error_set(err, "time is up; %" PRIu64 " messages sent, %"
                                     PRIu64 " received", chat->sent, chat->received);
        }
    }
    return ivshmem_channel_finish(channel, chat->deadline, err);
}

static bool ivshmem_chat_result(IvshmemChat *chat, IvshmemError *err)
{
    if (chat->received < chat->opt->expect) {
        return ivshmem_error_set(err, "peer %u said goodbye after %" PRIu64 " of %" PRIu64
                                 " messages", chat->channel.peer, chat->received,
                                 chat->opt->expect);
    }
    if (chat->input_used) {
        return ivshmem_error_set(err, "peer %u said goodbye before everything was sent",
                                 chat->channel.peer);
    }
    return true;
}

bool ivshmem_command_chat(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    static IvshmemChat chat;
    bool ok;

    (void)argc;
    chat.opt = opt;
    if (!ivshmem_channel_open(&chat.channel, opt, argv[0], err)) {
        return false;
    }
    chat.deadline = ivshmem_deadline(opt->timeout_ns);
    if (opt->verbose) {
        printf("  [I am %s %u; %s]\n", chat.channel.doorbell ? "peer" : "side",
               chat.channel.me, chat.channel.doorbell ? "doorbell and MSI-X" :
               "polling the memory");
        fflush(stdout);
    }
    ok = ivshmem_channel_connect(&chat.channel, chat.deadline, err);
    if (ok) {
        fprintf(stderr, "peer %u is here\n", chat.channel.peer);
        ok = ivshmem_chat_loop(&chat, err) && ivshmem_chat_result(&chat, err);
    }
    ivshmem_channel_close(&chat.channel);
    return ok;
}
