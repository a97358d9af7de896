/*
 * ivshmem-guest: a two-way stream of messages between two guests, in the first
 * 4 KiB of the memory (or at --offset).
 *
 * Each side owns one block and writes nothing in the other's; all numbers are
 * little-endian.  A session starts when each side has seen the other's nonce,
 * so what an earlier run left behind is never taken for a message.
 *
 *   offset 0     block of side 0     64 bytes magic, nonce, peer's nonce seen
 *                                    64 bytes head: messages written
 *                                    64 bytes tail: messages read
 *   offset 192   block of side 1
 *   offset 384   8 slots of 192 bytes, side 0 to side 1
 *   offset 1920  8 slots, side 1 to side 0
 *
 * Of two doorbell peers the one with the lower ID is side 0.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_GUEST_CHANNEL_H
#define IVSHMEM_GUEST_CHANNEL_H

#include "access.h"

#define IVSHMEM_CHANNEL_MAGIC   0x4d565649u     /* "IVVM" */
#define IVSHMEM_CHANNEL_SLOTS   8u
#define IVSHMEM_CHANNEL_DATA    176

typedef struct IvshmemChannelBlock {
    uint32_t magic, nonce, seen, pad0[13];
    uint32_t head, pad1[15];
    uint32_t tail, pad2[15];
} IvshmemChannelBlock;

typedef struct IvshmemChannelSlot {
    uint32_t sequence;
    uint16_t type, length;
    uint32_t checksum;          /* of type, length, sequence and data */
    uint32_t reserved;
    uint8_t data[IVSHMEM_CHANNEL_DATA];
} IvshmemChannelSlot;

typedef struct IvshmemChannelLayout {
    IvshmemChannelBlock block[2];
    IvshmemChannelSlot slot[2][IVSHMEM_CHANNEL_SLOTS];
} IvshmemChannelLayout;

enum {
    IVSHMEM_CHANNEL_TEXT = 1,
    IVSHMEM_CHANNEL_MORE = 2,   /* text that goes on in the next message */
    IVSHMEM_CHANNEL_PING = 3,
    IVSHMEM_CHANNEL_PONG = 4,
    IVSHMEM_CHANNEL_BYE = 5,
};

typedef struct IvshmemMessage {
    uint16_t type, length;
    uint8_t data[IVSHMEM_CHANNEL_DATA];
} IvshmemMessage;

typedef struct IvshmemChannel {
    IvshmemAccess access;
    volatile IvshmemChannelLayout *layout;
    volatile IvshmemChannelBlock *mine, *theirs;
    unsigned side;
    uint16_t me, peer, vector;
    bool doorbell;              /* else both sides poll */
    uint32_t nonce, their_nonce;
    uint32_t head, tail;
    bool bye_sent, bye_received;
    uint64_t offset;
    uint64_t rings, wakeups;
    unsigned last_vector;       /* of the last wake-up */
    unsigned idle;              /* polls without news */
} IvshmemChannel;

bool ivshmem_channel_open(IvshmemChannel *channel, const IvshmemOptions *opt,
                          const char *peer, IvshmemError *err);
/* Waits until the other side is there. */
bool ivshmem_channel_connect(IvshmemChannel *channel, int64_t deadline,
                             IvshmemError *err);
bool ivshmem_channel_room(IvshmemChannel *channel);
/* Waits while the ring is full. */
bool ivshmem_channel_send(IvshmemChannel *channel, uint16_t type, const void *data,
                          size_t length, int64_t deadline, IvshmemError *err);
/* 1: a message; 0: none there; -1: damaged, or the other side has started anew. */
int ivshmem_channel_receive(IvshmemChannel *channel, IvshmemMessage *message,
                            IvshmemError *err);
/*
 * Waits for a sign of life, or input on @other_fd.  1: look; 2: input (look as
 * well); 0: the deadline passed; -1: failed.
 */
int ivshmem_channel_wait(IvshmemChannel *channel, int64_t deadline, int other_fd,
                         IvshmemError *err);
bool ivshmem_channel_bye(IvshmemChannel *channel, int64_t deadline,
                         IvshmemError *err);
/*
 * Ends the conversation: says goodbye unless said, waits for the other side's
 * (dropping what comes before it), and until all of ours has been read.
 */
bool ivshmem_channel_finish(IvshmemChannel *channel, int64_t deadline,
                            IvshmemError *err);
void ivshmem_channel_close(IvshmemChannel *channel);

#endif /* IVSHMEM_GUEST_CHANNEL_H */
