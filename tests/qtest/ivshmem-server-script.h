/*
 * ivshmem servers for tests.
 *
 * IvshmemScript sends exactly what the test says, right or wrong, byte by byte
 * if need be.  IvshmemGroup is a well-behaved server in a thread of its own.
 * Both stand on libivshmem.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_IVSHMEM_SERVER_SCRIPT_H
#define TESTS_QTEST_IVSHMEM_SERVER_SCRIPT_H

#include "ivshmem-wire.h"

/* A server by script: everything happens when the test says so. */

#define IVSHMEM_SCRIPT_OWN_MAX 512

typedef struct IvshmemScript {
    char *dir;
    char *path;
    int listener;
    int sock;                   /* the one connection, or -1 */
    int shm;
    uint64_t size;
    uint16_t id;                /* what the device was told it is */
    unsigned vectors;
    int own[IVSHMEM_SCRIPT_OWN_MAX]; /* the device's eventfds */
} IvshmemScript;

/* With shared memory of @size bytes. */
IvshmemScript *ivshmem_script_new(uint64_t size);
void ivshmem_script_free(IvshmemScript *s);

/* Waits for the next connection, which takes the place of the one before. */
void ivshmem_script_accept(IvshmemScript *s);
void ivshmem_script_close(IvshmemScript *s);

/* True if the client has closed the connection, or does so within @ms. */
bool ivshmem_script_wait_eof(IvshmemScript *s, int ms);

/* Waits until the client has read everything. */
void ivshmem_script_wait_read(IvshmemScript *s);

/* One frame; @fd (-1: none) stays the caller's. */
void ivshmem_script_send(IvshmemScript *s, int64_t value, int fd);

/* The same, but the client may have hung up: then false. */
bool ivshmem_script_try_send(IvshmemScript *s, int64_t value, int fd);

/* Any bytes with any number of descriptors. */
void ivshmem_script_send_raw(IvshmemScript *s, const void *data, size_t len,
                             int *fds, size_t n);

/* The parts of a handshake. */
void ivshmem_script_send_id(IvshmemScript *s, uint16_t id);
void ivshmem_script_send_shm(IvshmemScript *s);
void ivshmem_script_send_own(IvshmemScript *s, unsigned vectors);

/* All of it, for a device that is alone. */
void ivshmem_script_hello(IvshmemScript *s, uint16_t id, unsigned vectors);

/* A peer with vectors, whose eventfds go into @fds and belong to the caller. */
void ivshmem_script_join(IvshmemScript *s, uint16_t id, int *fds, unsigned n);
void ivshmem_script_leave(IvshmemScript *s, uint16_t id);

/* Somebody rings the device. */
void ivshmem_script_ring(IvshmemScript *s, unsigned vector);

/* Eventfds as peers have them. */
void ivshmem_eventfds_new(int *fds, unsigned n);
void ivshmem_eventfds_close(int *fds, unsigned n);
bool ivshmem_eventfd_take(int fd);

/* A well-behaved server */

typedef struct IvshmemGroup IvshmemGroup;

/*
 * @first_id: the lowest ID it gives.  @shm: the memory's descriptor, of @size
 * bytes, borrowed; -1: makes its own.
 */
IvshmemGroup *ivshmem_group_new(unsigned vectors, uint64_t size,
                                uint16_t first_id, int shm);
void ivshmem_group_free(IvshmemGroup *group);

const char *ivshmem_group_path(const IvshmemGroup *group);
int ivshmem_group_shm(const IvshmemGroup *group);

/* Members at the moment. */
size_t ivshmem_group_members(IvshmemGroup *group);

/* Rings a member as a peer would; false if there is no such one. */
bool ivshmem_group_ring(IvshmemGroup *group, uint16_t id, unsigned vector);

/* Disconnects a member. */
void ivshmem_group_kick(IvshmemGroup *group, uint16_t id);

/* Memory for a server: an anonymous file of @size bytes. */
int ivshmem_memfd_new(uint64_t size);

#endif /* TESTS_QTEST_IVSHMEM_SERVER_SCRIPT_H */
