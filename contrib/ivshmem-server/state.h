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

/*
 * A process: its pid alone may be somebody else's by now.  Whoever has the pid
 * and was started before @seen is the same process.
 */
typedef struct IvshmemProcess {
    pid_t pid;                  /* 0: not known */
    uint64_t seen;              /* clock ticks after boot; it was alive then */
} IvshmemProcess;

/* A process that is alive now. */
IvshmemProcess ivshmem_process_seen(pid_t pid);

/*
 * Reads what a server that crashed has left at @path, if anything: one of ours,
 * of root, or of @user, whom we will become.
 */
IvshmemState *ivshmem_state_open(const char *path, uid_t user);

/* Whether there was a file of that kind. */
bool ivshmem_state_found(const IvshmemState *state);

/* Written to @path from now on (NULL: nowhere); true if it was not before. */
bool ivshmem_state_move(IvshmemState *state, const char *path);

/* Removes the file, if @remove.  NULL is fine. */
void ivshmem_state_close(IvshmemState *state, bool remove);

/*
 * The id that the process with @pid had, or -1; with @fixed, only that one (-1:
 * any).  Each one is given once, in the order in which they were handed out.
 */
int ivshmem_state_recall(IvshmemState *state, pid_t pid, int fixed);

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

/* What to write: somebody came or went. */
void ivshmem_state_add(IvshmemState *state, uint16_t id,
                       IvshmemProcess process);
void ivshmem_state_remove(IvshmemState *state, uint16_t id);

/* Writes it.  If that cannot be, all must be written anew. */
bool ivshmem_state_append(IvshmemState *state) G_GNUC_WARN_UNUSED_RESULT;

/* Write all anew: begin, one add for each client, end. */
void ivshmem_state_begin(IvshmemState *state, int memory_fd);
bool ivshmem_state_end(IvshmemState *state, GError **errp);

#endif /* IVSHMEM_SERVER_STATE_H */
