/*
 * What a server needs to know after a crash: who had which id, and which
 * memory it was.  One small file per region.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_STATE_H
#define IVSHMEM_SERVER_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>

typedef struct IvshmemState IvshmemState;

/* A process: its pid alone may be somebody else's by now. */
typedef struct IvshmemProcess {
    pid_t pid;                  /* 0: not known */
    uint64_t start;             /* clock ticks after boot */
} IvshmemProcess;

/* Fills in the start time; pid 0 if that cannot be found out, see @errp. */
IvshmemProcess ivshmem_process_of(pid_t pid, GError **errp);

/* Reads what a server that crashed has left at @path, if anything. */
IvshmemState *ivshmem_state_open(const char *path);

/* Removes the file, if @remove.  NULL is fine. */
void ivshmem_state_close(IvshmemState *state, bool remove);

/*
 * The id that @process had, or -1.  Each one is given once, in the order in
 * which they were handed out.
 */
int ivshmem_state_recall(IvshmemState *state, IvshmemProcess process);

/*
 * The ids of those who have not come back: calls @func for each with whether
 * its process still lives; those that do not are forgotten.  Returns how many
 * are left.
 */
unsigned ivshmem_state_each(IvshmemState *state,
                            void (*func)(uint16_t id, bool alive, void *opaque),
                            void *opaque);

/*
 * The memory that the dead server's clients may still have, as an open file
 * that the caller owns, or -1.  *@lost: why it could not be taken from some
 * client that has it, as -errno, or 0.
 */
int ivshmem_state_find_memory(const IvshmemState *state, int *lost);

/* Nobody has to come back. */
void ivshmem_state_forget(IvshmemState *state);

/* Write: begin, one add for each client, end. */
void ivshmem_state_begin(IvshmemState *state, int memory_fd);
void ivshmem_state_add(IvshmemState *state, uint16_t id,
                       IvshmemProcess process);
bool ivshmem_state_end(IvshmemState *state, GError **errp);

#endif /* IVSHMEM_SERVER_STATE_H */
