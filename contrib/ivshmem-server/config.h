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

/* As many NUMA nodes as the kernel's mask of 64 bits has room for. */
#define IVSHMEM_NUMA_NODES 64

typedef enum IvshmemMemoryKind {
    IVSHMEM_MEMORY_MEMFD,       /* sealed, without a name */
    IVSHMEM_MEMORY_HUGETLB,     /* the same, of huge pages */
    IVSHMEM_MEMORY_SHM,         /* POSIX shared memory object @name */
    IVSHMEM_MEMORY_FILE,        /* the file @name */
    IVSHMEM_MEMORY_DIR,         /* a nameless file in directory @name */
} IvshmemMemoryKind;

typedef struct IvshmemMemoryConfig {
    IvshmemMemoryKind kind;
    char *name;
    uint64_t size;
    uint64_t page_size;         /* HUGETLB; 0: the system's default */
    int persistent;             /* not removed in the end; -1: only files */
    bool prealloc;
    int numa_node;              /* -1: any */
} IvshmemMemoryConfig;

typedef struct IvshmemSocketConfig {
    char *path;                 /* absolute; NULL: none */
    mode_t mode;                /* 0: what umask leaves */
    uid_t owner;                /* (uid_t)-1: whoever runs the server */
    gid_t group;
    GArray *users;              /* of uid_t: who may connect; NULL: anybody */
} IvshmemSocketConfig;

/* What those who come in by one socket get. */
typedef struct IvshmemClientConfig {
    char *name;                 /* NULL: the region's own socket */
    IvshmemSocketConfig socket;
    int id;                     /* or IVSHMEM_ID_ANY */
    bool read_only;
    unsigned vectors;           /* 0: as many as the region says */
    bool replace;               /* a second one ends the first's connection */
} IvshmemClientConfig;

/* Reference-counted: ivshmem_region_config_ref(), _unref(). */
typedef struct IvshmemRegionConfig {
    char *name;
    IvshmemMemoryConfig memory;
    unsigned vectors;
    uint16_t first_id;
    IvshmemClientConfig *common;    /* the region's own socket */
    GPtrArray *clients;         /* of IvshmemClientConfig: with their own */
} IvshmemRegionConfig;

/* --status and its forms. */
typedef enum IvshmemQuery {
    IVSHMEM_QUERY_NONE,
    IVSHMEM_QUERY_TEXT,
    IVSHMEM_QUERY_JSON,
    IVSHMEM_QUERY_METRICS,
} IvshmemQuery;

typedef struct IvshmemConfig {
    GPtrArray *regions;         /* of IvshmemRegionConfig */
    IvshmemSocketConfig control;    /* but for its path */
    char *control_path;         /* NULL: beside the first socket */
    bool control_given;         /* the path is an option's */
    IvshmemQuery query;         /* ask the server that runs, and end */
    bool watch;                 /* ask it again and again */
    bool fdstore;               /* leave all to the service manager at a stop */
    bool replace;               /* take over from the one that runs */
    char *file;                 /* NULL: all of it came from options */
    bool check;                 /* validate only */
    bool foreground;
    bool verbose;
    uid_t user;                 /* to become; (uid_t)-1: stay */
    gid_t group;
    char *pid_file;             /* absolute; NULL: none */
    int ready_fd;               /* -1: none */
    uint64_t queue_limit;       /* frames, per client */
    uint64_t stall_timeout_ms;  /* 0: none */
} IvshmemConfig;

IvshmemRegionConfig *ivshmem_region_config_new(const char *name);
IvshmemRegionConfig *ivshmem_region_config_ref(IvshmemRegionConfig *region);
void ivshmem_region_config_unref(IvshmemRegionConfig *region);

/* Owned by @region. */
IvshmemClientConfig *ivshmem_client_config_new(IvshmemRegionConfig *region,
                                               const char *name);

/* "memfd", "hugetlb", "hugetlb:2M", "shm:NAME", "file:PATH". */
bool ivshmem_memory_config_set(IvshmemMemoryConfig *memory, const char *what,
                               const char *text, GError **errp);

/* POSIX shared memory object @name, with or without its '/'. */
bool ivshmem_memory_config_set_shm(IvshmemMemoryConfig *memory,
                                   const char *what, const char *name,
                                   GError **errp);

bool ivshmem_memory_config_is_persistent(const IvshmemMemoryConfig *memory);

/* Whether two sockets, or two memories, are described the same way. */
bool ivshmem_client_config_equal(const IvshmemClientConfig *a,
                                 const IvshmemClientConfig *b);
bool ivshmem_memory_config_equal(const IvshmemMemoryConfig *a,
                                 const IvshmemMemoryConfig *b);

IvshmemRegionConfig *ivshmem_config_find(const IvshmemConfig *config,
                                         const char *region);

/* Settings with all defaults and no region. */
IvshmemConfig *ivshmem_config_new(void);
void ivshmem_config_free(IvshmemConfig *config);

/*
 * The command line.  Returns NULL with @errp set, or with *@done when --version
 * has been answered and there is nothing more to do.  --help ends the program.
 */
IvshmemConfig *ivshmem_config_from_options(int argc, char **argv, bool *done,
                                           GError **errp);

/*
 * The file config->file.  Adds its regions and settings to @config; on failure
 * @errp names everything that is wrong, a line each.
 */
bool ivshmem_config_read_file(IvshmemConfig *config, GError **errp);

/* The file of @config once more; what came from options stays. */
IvshmemConfig *ivshmem_config_reload(const IvshmemConfig *config,
                                     GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(IvshmemConfig, ivshmem_config_free)

#endif /* IVSHMEM_SERVER_CONFIG_H */
