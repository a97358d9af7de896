/*
 * What the server is to do: validated settings, from options or from a file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_CONFIG_H
#define IVSHMEM_SERVER_CONFIG_H

#include <stdint.h>
#include <sys/types.h>
#include "error.h"

#define IVSHMEM_DEFAULT_PID_FILE "/var/run/ivshmem-server.pid"
#define IVSHMEM_DEFAULT_SOCKET "/tmp/ivshmem_socket"
#define IVSHMEM_DEFAULT_SHM_NAME "ivshmem"
#define IVSHMEM_DEFAULT_SIZE (4 * 1024 * 1024)
#define IVSHMEM_DEFAULT_VECTORS 1

/* One join or leave of every id there is: who is that far behind is lost. */
#define IVSHMEM_DEFAULT_QUEUE_LIMIT 65536

typedef enum IvshmemMemoryKind {
    IVSHMEM_MEMORY_SHM,         /* POSIX shared memory object @name */
    IVSHMEM_MEMORY_DIR,         /* a nameless file in directory @name */
} IvshmemMemoryKind;

typedef struct IvshmemMemoryConfig {
    IvshmemMemoryKind kind;
    char *name;
    uint64_t size;
} IvshmemMemoryConfig;

typedef struct IvshmemSocketConfig {
    char *path;                 /* absolute */
    mode_t mode;                /* 0: what umask leaves */
    uid_t owner;                /* (uid_t)-1: whoever runs the server */
    gid_t group;
} IvshmemSocketConfig;

typedef struct IvshmemRegionConfig {
    char *name;
    IvshmemMemoryConfig memory;
    IvshmemSocketConfig socket;
    unsigned vectors;
    uint16_t first_id;
} IvshmemRegionConfig;

typedef struct IvshmemConfig {
    GPtrArray *regions;         /* of IvshmemRegionConfig */
    bool foreground;
    bool verbose;
    char *pid_file;             /* absolute; NULL: none */
    int ready_fd;               /* -1: none */
    uint64_t queue_limit;       /* frames, per client */
    uint64_t stall_timeout_ms;  /* 0: none */
} IvshmemConfig;

IvshmemRegionConfig *ivshmem_region_config_new(const char *name);
void ivshmem_region_config_free(IvshmemRegionConfig *region);

IvshmemConfig *ivshmem_config_new(void);
void ivshmem_config_free(IvshmemConfig *config);

/*
 * The command line.  Returns NULL with @errp set, or with *@done when --version
 * has been answered and there is nothing more to do.  --help ends the program.
 */
IvshmemConfig *ivshmem_config_from_options(int argc, char **argv, bool *done,
                                           GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(IvshmemConfig, ivshmem_config_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IvshmemRegionConfig, ivshmem_region_config_free)

#endif /* IVSHMEM_SERVER_CONFIG_H */
