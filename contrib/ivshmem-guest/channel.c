/*
 * ivshmem-guest: the message channel - one ring each way, each with one writer
 * and one reader, woken by doorbells or polled.
 *
 * What the messages mean is the business of chat.c and ping.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "channel.h"
#include "hw/misc/ivshmem.h"

_Static_assert(sizeof(IvshmemChannelBlock) == 192, "block layout");
_Static_assert(sizeof(IvshmemChannelSlot) == 192, "slot layout");
_Static_assert(sizeof(IvshmemChannelLayout) <= 4096, "fits the smallest region");

/* Polling: spin until here, yield until there, then nap: the other side may need
 * this very CPU. */
#define IVSHMEM_POLL_SPINS  500
#define IVSHMEM_POLL_YIELDS 700
#define IVSHMEM_POLL_NAP_NS 50000

static uint32_t ivshmem_channel_load(const volatile uint32_t *field)
{
    uint32_t value = le32toh(__atomic_load_n(field, __ATOMIC_RELAXED));

    ivshmem_barrier();
    return value;
}

static void ivshmem_channel_store(volatile uint32_t *field, uint32_t value)
{
    ivshmem_barrier();
    __atomic_store_n(field, htole32(value), __ATOMIC_RELAXED);
    ivshmem_barrier();
}

static void ivshmem_channel_notify(IvshmemChannel *channel)
{
    if (channel->doorbell) {
        ivshmem_access_ring(&channel->access, channel->peer, channel->vector);
        channel->rings++;
    }
}

/* CRC-32 (IEEE 802.3), a bit at a time: messages are short. */
static uint32_t ivshmem_channel_crc(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *byte = data;

    for (crc = ~crc; n; n--) {
        crc ^= *byte++;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static uint32_t ivshmem_channel_checksum(const IvshmemChannelSlot *slot, size_t length)
{
    uint32_t crc = ivshmem_channel_crc(0, &slot->sequence, sizeof(slot->sequence));

    crc = ivshmem_channel_crc(crc, &slot->type, 2 * sizeof(uint16_t));
    return ivshmem_channel_crc(crc, slot->data, length);
}

/* Who is who: by ID with doorbells, by the number given without. */
static bool ivshmem_channel_sides(IvshmemChannel *channel, IvshmemError *err)
{
    uint32_t id;

    if (!channel->doorbell) {
        if (channel->peer > 1) {
            return ivshmem_error_set(err, "on ivshmem-plain, which has no IDs, one side "
                                     "says 0 and the other 1, not %u", channel->peer);
        }
        channel->me = channel->side = !channel->peer;
        return true;
    }
    id = ivshmem_access_read_reg(&channel->access, IVSHMEM_REG_IV_POSITION);
    if (id > UINT16_MAX) {
        return ivshmem_error_set(err, "%s has no peer ID: it is not connected to an "
                                 "ivshmem-server", channel->access.dev.address);
    }
    channel->me = id;
    if (channel->me == channel->peer) {
        return ivshmem_error_set(err, "peer %u is this guest itself: give the other "
                                 "one's ID ('ivshmem-guest info' there shows it)",
                                 channel->peer);
    }
    channel->side = channel->me > channel->peer;
    return true;
}

static bool ivshmem_channel_place(IvshmemChannel *channel, uint64_t offset,
                                  IvshmemError *err)
{
    IvshmemAccess *access = &channel->access;

    if (offset % 64) {
        return ivshmem_error_set(err, "--offset %" PRIu64 " is not a multiple of 64",
                                 offset);
    }
    if (offset > access->shm_size ||
        access->shm_size - offset < sizeof(IvshmemChannelLayout)) {
        return ivshmem_error_set(err, "BAR2 of %s is too small: the channel needs %zu "
                                 "bytes at offset %" PRIu64 ", the memory has %" PRIu64
                                 "; lower --offset or give the VM a larger region",
                                 access->dev.address, sizeof(IvshmemChannelLayout),
                                 offset, access->shm_size);
    }
    channel->offset = offset;
    channel->layout = (volatile IvshmemChannelLayout *)(access->shm + offset);
    channel->mine = &channel->layout->block[channel->side];
    channel->theirs = &channel->layout->block[!channel->side];
    return true;
}

bool ivshmem_channel_open(IvshmemChannel *channel, const IvshmemOptions *opt,
                          const char *peer, IvshmemError *err)
{
    IvshmemDevice dev;

    memset(channel, 0, sizeof(*channel));
    if (!ivshmem_parse_u16(peer, "peer", &channel->peer, err) ||
        !ivshmem_device_select(opt, &dev, err)) {
        return false;
    }
    channel->doorbell = dev.doorbell;
    channel->vector = opt->vector;
    if (!ivshmem_access_open(&channel->access, opt, IVSHMEM_NEED_REGS |
                             IVSHMEM_NEED_SHM | (dev.doorbell ? IVSHMEM_NEED_IRQ : 0),
                             err)) {
        return false;
    }
    if (!ivshmem_channel_sides(channel, err) ||
        !ivshmem_channel_place(channel, opt->offset, err)) {
        ivshmem_access_close(&channel->access);
        return false;
    }
    return true;
}

static uint32_t ivshmem_channel_nonce(void)
{
    uint32_t nonce = 0;

    if (getrandom(&nonce, sizeof(nonce), GRND_NONBLOCK) != sizeof(nonce)) {
        nonce = ivshmem_now_ns();
    }
    return nonce | 1;           /* 0 says: nobody */
}

bool ivshmem_channel_connect(IvshmemChannel *channel, int64_t deadline,
                             IvshmemError *err)
{
    volatile IvshmemChannelBlock *mine = channel->mine, *theirs = channel->theirs;

    channel->head = channel->tail = 0;
    channel->nonce = ivshmem_channel_nonce();
    ivshmem_channel_store(&mine->nonce, 0);
    ivshmem_channel_store(&mine->seen, 0);
    ivshmem_channel_store(&mine->head, 0);
    ivshmem_channel_store(&mine->tail, 0);
    ivshmem_channel_store(&mine->magic, IVSHMEM_CHANNEL_MAGIC);
    ivshmem_channel_store(&mine->nonce, channel->nonce);
    ivshmem_channel_notify(channel);
    for (;;) {
        uint32_t nonce = 0;

        if (ivshmem_channel_load(&theirs->magic) == IVSHMEM_CHANNEL_MAGIC) {
            nonce = ivshmem_channel_load(&theirs->nonce);
        }
        if (nonce && nonce != channel->their_nonce) {
            channel->their_nonce = nonce;
            ivshmem_channel_store(&mine->seen, nonce);
            ivshmem_channel_notify(channel);
        }
        if (nonce && ivshmem_channel_load(&theirs->seen) == channel->nonce) {
            return true;
        }
        switch (ivshmem_channel_wait(channel, deadline, -1, err)) {
        case 0:
            return ivshmem_error_set(err, "peer %u did not answer in time: is "
                                     "ivshmem-guest running there, with peer %u%s?",
                                     channel->peer, channel->me, channel->doorbell ?
                                     "" : " and the same memory");
        case -1:
            return false;
        }
    }
}

/* The other side may die and start anew: then nothing in the ring is for us. */
static bool ivshmem_channel_check(IvshmemChannel *channel, IvshmemError *err)
{
    uint32_t nonce = ivshmem_channel_load(&channel->theirs->nonce);

    return nonce == channel->their_nonce ||
           ivshmem_error_set(err, "peer %u %s in the middle of the conversation",
                             channel->peer, nonce ? "started anew" : "left");
}

bool ivshmem_channel_room(IvshmemChannel *channel)
{
    return channel->head - ivshmem_channel_load(&channel->theirs->tail) <
           IVSHMEM_CHANNEL_SLOTS;
}

bool ivshmem_channel_send(IvshmemChannel *channel, uint16_t type, const void *data,
                          size_t length, int64_t deadline, IvshmemError *err)
{
    volatile IvshmemChannelSlot *to =
        &channel->layout->slot[channel->side][channel->head % IVSHMEM_CHANNEL_SLOTS];
    IvshmemChannelSlot slot = {
        .sequence = htole32(channel->head),
        .type = htole16(type),
        .length = htole16(length),
    };

    while (!ivshmem_channel_room(channel)) {
        int ret;

        if (!ivshmem_channel_check(channel, err)) {
            return false;
        }
        ret = ivshmem_channel_wait(channel, deadline, -1, err);
        if (ret <= 0) {
            return ret < 0 ? false :
                   ivshmem_error_set(err, "peer %u does not read: %u messages wait",
                                     channel->peer, IVSHMEM_CHANNEL_SLOTS);
        }
    }
    if (length) {
        memcpy(slot.data, data, length);
    }
    slot.checksum = htole32(ivshmem_channel_checksum(&slot, length));
    ivshmem_copy_out((volatile uint8_t *)to, &slot,
                     offsetof(IvshmemChannelSlot, data) + length);
    ivshmem_channel_store(&channel->mine->head, ++channel->head);
    ivshmem_channel_notify(channel);
    return true;
}

bool ivshmem_channel_bye(IvshmemChannel *channel, int64_t deadline, IvshmemError *err)
{
    channel->bye_sent = true;
    return ivshmem_channel_send(channel, IVSHMEM_CHANNEL_BYE, NULL, 0, deadline, err);
}

int ivshmem_channel_receive(IvshmemChannel *channel, IvshmemMessage *message,
                            IvshmemError *err)
{
    volatile IvshmemChannelSlot *from =
        &channel->layout->slot[!channel->side][channel->tail % IVSHMEM_CHANNEL_SLOTS];
    uint32_t head = ivshmem_channel_load(&channel->theirs->head);
    IvshmemChannelSlot slot;

    if (head == channel->tail) {
        return ivshmem_channel_check(channel, err) ? 0 : -1;
    }
    ivshmem_copy_in(&slot, (volatile uint8_t *)from, sizeof(slot));
    message->type = le16toh(slot.type);
    message->length = le16toh(slot.length);
    if (head - channel->tail > IVSHMEM_CHANNEL_SLOTS ||
        le32toh(slot.sequence) != channel->tail ||
        message->length > IVSHMEM_CHANNEL_DATA ||
        le32toh(slot.checksum) != ivshmem_channel_checksum(&slot, message->length)) {
        ivshmem_error_set(err, "message %" PRIu32 " from peer %u is damaged: does "
                          "another program write at offset %" PRIu64 "?", channel->tail,
                          channel->peer, channel->offset);
        return -1;
    }
    memcpy(message->data, slot.data, message->length);
    ivshmem_channel_store(&channel->mine->tail, ++channel->tail);
    channel->bye_received |= message->type == IVSHMEM_CHANNEL_BYE;
    /* The writer may wait for room, or for its goodbye to be read. */
    head = ivshmem_channel_load(&channel->theirs->head);
    if (head - (channel->tail - 1) >= IVSHMEM_CHANNEL_SLOTS || channel->bye_received) {
        ivshmem_channel_notify(channel);
    }
    channel->idle = 0;
    return 1;
}

static int ivshmem_channel_poll(IvshmemChannel *channel, int64_t deadline, int other_fd)
{
    static const struct timespec nap = { .tv_nsec = IVSHMEM_POLL_NAP_NS };
    struct pollfd input = { other_fd, POLLIN, 0 };

    channel->idle++;
    if (channel->idle % 256 == 0 || channel->idle > IVSHMEM_POLL_YIELDS) {
        if (other_fd >= 0 && poll(&input, 1, 0) > 0) {
            return 2;
        }
        if (ivshmem_expired(deadline)) {
            return 0;
        }
    }
    if (channel->idle > IVSHMEM_POLL_YIELDS) {
        nanosleep(&nap, NULL);
    } else if (channel->idle > IVSHMEM_POLL_SPINS) {
        sched_yield();
    }
    return 1;
}

int ivshmem_channel_wait(IvshmemChannel *channel, int64_t deadline, int other_fd,
                         IvshmemError *err)
{
    uint64_t count;
    int ret;

    if (!channel->doorbell) {
        return ivshmem_channel_poll(channel, deadline, other_fd);
    }
    ret = ivshmem_access_wait(&channel->access, deadline, other_fd,
                              &channel->last_vector, &count, err);
    channel->wakeups += ret == 1;
    return ret;
}

bool ivshmem_channel_finish(IvshmemChannel *channel, int64_t deadline,
                            IvshmemError *err)
{
    IvshmemMessage message;
    int ret;

    if (!channel->bye_sent && !ivshmem_channel_bye(channel, deadline, err)) {
        return false;
    }
    for (;;) {
        if (!channel->bye_received) {
            if (ivshmem_channel_receive(channel, &message, err) < 0) {
                return false;
            }
        } else if (ivshmem_channel_load(&channel->theirs->tail) == channel->head ||
                   ivshmem_channel_load(&channel->theirs->nonce) !=
                   channel->their_nonce) {
            return true;
        }
        ret = ivshmem_channel_wait(channel, deadline, -1, err);
        if (ret <= 0) {
            return ret < 0 ? false :
                   ivshmem_error_set(err, "peer %u has not read everything",
                                     channel->peer);
        }
    }
}

void ivshmem_channel_close(IvshmemChannel *channel)
{
    if (channel->mine) {
        ivshmem_channel_store(&channel->mine->nonce, 0);
        ivshmem_channel_notify(channel);
    }
    ivshmem_access_close(&channel->access);
    channel->mine = NULL;
}
