/*
 * Memory objects: made or found, checked, sized, removed.
 *
 * Not responsible for mapping them (the server never looks inside), nor for
 * who gets them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "ivshmem-fd.h"
#include "shm.h"
#include "value.h"

/* Clients get a descriptor; the name is for the server's own user. */
#define MEMORY_MODE 0600

/*
 * Marks an object as made by a server: the sticky bit means nothing on a file.
 * So a server that comes back after a crash knows what is its own to remove.
 */
#define MEMORY_MARK S_ISVTX

#define MEMORY_LOCK_TRIES 200
#define MEMORY_LOCK_PAUSE_US 10000

/* Somebody else would have to remove it at each of them. */
#define MEMORY_OPEN_TRIES 100

struct IvshmemMemory {
    int fd;
    uint64_t size;
    int lock;                   /* shared lock: the object has a server */
    int read_only;              /* another open file; -1: not needed so far */
    char *shm_name;             /* with its '/'; NULL: no such name */
    char *path;                 /* of a file; NULL: no such name */
    bool made;                  /* by a server, not by somebody else */
    bool sealed;
    bool immutable;             /* nobody can open it for writing again */
    char *description;
    bool found;
};

static bool memory_resize(IvshmemMemory *memory, GError **errp)
{
    if (ftruncate(memory->fd, (off_t)memory->size) < 0) {
        g_autofree char *size = ivshmem_value_format_size(memory->size);

        ivshmem_error(errp, "cannot make %s %s large: %s",
                      memory->description, size, g_strerror(errno));
        return false;
    }
    return true;
}

/* Whether what stood there already is what was asked for. */
static bool memory_check_found(IvshmemMemory *memory, GError **errp)
{
    g_autofree char *want = ivshmem_value_format_size(memory->size);
    g_autofree char *is = NULL;
    struct stat st;

    if (fstat(memory->fd, &st) < 0) {
        ivshmem_error(errp, "cannot examine %s: %s", memory->description,
                      g_strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        ivshmem_error(errp, "%s is not a memory object; remove it, or use "
                      "another name", memory->description);
        return false;
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        ivshmem_error(errp, "%s belongs to user %u; remove it, or use another "
                      "name", memory->description, (unsigned)st.st_uid);
        return false;
    }
    memory->made = st.st_mode & MEMORY_MARK;
    if (st.st_size == 0) {
        return memory_resize(memory, errp);     /* its maker died too early */
    }
    if ((uint64_t)st.st_size != memory->size) {
        is = ivshmem_value_format_size((uint64_t)st.st_size);
        ivshmem_error(errp, "%s exists with size %s, not %s, and may be in use;"
                      " use it as it is with size %s, take another name, or "
                      "remove it", memory->description, is, want, is);
        return false;
    }
    return true;
}

/*
 * On an open file of its own: the clients share the other one.  Whoever is
 * about to remove the object holds the lock for well under a millisecond;
 * somebody who keeps it only costs us that others wait for us.
 */
static void memory_lock(IvshmemMemory *memory)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", memory->fd);

    memory->lock = open(self, O_RDONLY | O_CLOEXEC);
    for (int i = 0; memory->lock >= 0 && i < MEMORY_LOCK_TRIES; i++) {
        if (flock(memory->lock, LOCK_SH | LOCK_NB) == 0) {
            return;
        }
        g_usleep(MEMORY_LOCK_PAUSE_US);
    }
}

/* Several servers may hand out one object: the last one removes it. */
static bool memory_is_last_user(const IvshmemMemory *memory)
{
    return memory->lock >= 0 && flock(memory->lock, LOCK_EX | LOCK_NB) == 0;
}

/* hugetlbfs has room for whole pages only. */
static bool memory_round_up(IvshmemMemory *memory, GError **errp)
{
    struct statfs fs;
    uint64_t page;

    if (fstatfs(memory->fd, &fs) < 0) {
        ivshmem_error(errp, "cannot examine %s: %s", memory->description,
                      g_strerror(errno));
        return false;
    }
    if (fs.f_type == HUGETLBFS_MAGIC) {
        page = (uint64_t)fs.f_bsize;
        memory->size = (memory->size + page - 1) / page * page;
    }
    return true;
}

static int memory_open_name(const IvshmemMemory *memory, int flags)
{
    flags |= O_RDWR | O_NOFOLLOW | O_NONBLOCK;
    return memory->path ? open(memory->path, flags | O_CLOEXEC, MEMORY_MODE)
                        : shm_open(memory->shm_name, flags, MEMORY_MODE);
}

/* False with errno set; ESTALE: it lost its name before it was locked. */
static bool memory_try_named(IvshmemMemory *memory)
{
    struct stat st;

    memory->fd = memory_open_name(memory, O_CREAT | O_EXCL);
    memory->found = memory->fd < 0 && errno == EEXIST;
    if (memory->found) {
        memory->fd = memory_open_name(memory, 0);
        if (memory->fd < 0 && errno == ENOENT) {
            errno = ESTALE;
        }
    }
    if (memory->fd < 0) {
        return false;
    }
    memory_lock(memory);
    if (fstat(memory->fd, &st) == 0 && st.st_nlink == 0) {
        ivshmem_fd_close(&memory->lock);
        ivshmem_fd_close(&memory->fd);
        errno = ESTALE;
        return false;
    }
    return true;
}

/* A server that ends removes the object, perhaps while we open it. */
static bool memory_open_named(IvshmemMemory *memory, GError **errp)
{
    for (int i = 0; i < MEMORY_OPEN_TRIES; i++) {
        if (memory_try_named(memory)) {
            return true;
        }
        if (errno != ESTALE) {
            break;
        }
    }
    ivshmem_error(errp, "cannot open %s: %s%s", memory->description,
                  g_strerror(errno),
                  errno == ELOOP ? "; it is a symbolic link" : "");
    return false;
}

/* An object with a name is open: is it new, or fit for use? */
static bool memory_adopt(IvshmemMemory *memory, GError **errp)
{
    if (memory->found) {
        return memory_check_found(memory, errp);
    }
    memory->made = fchmod(memory->fd, MEMORY_MODE | MEMORY_MARK) == 0;
    return memory_resize(memory, errp);
}

static bool memory_open_shm(IvshmemMemory *memory, const char *name,
                            GError **errp)
{
    memory->shm_name = g_strconcat("/", name, NULL);
    return memory_open_named(memory, errp) && memory_adopt(memory, errp);
}

static bool memory_open_file(IvshmemMemory *memory, const char *path,
                             GError **errp)
{
    memory->path = g_strdup(path);
    return memory_open_named(memory, errp) && memory_round_up(memory, errp) &&
        memory_adopt(memory, errp);
}

/*
 * The file never gets a name that lasts: nobody can shrink it by its name,
 * and no crash leaves it behind, which on hugetlbfs would cost pages.
 */
static bool memory_open_dir(IvshmemMemory *memory, const char *dir,
                            GError **errp)
{
    g_autofree char *path = g_build_filename(dir, "ivshmem.XXXXXX", NULL);

    memory->fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, MEMORY_MODE);
    if (memory->fd < 0) {
        ivshmem_error(errp, "cannot create a file in %s: %s; -m wants a "
                      "directory that exists (-M a name)", dir,
                      g_strerror(errno));
        return false;
    }
    unlink(path);
    return memory_round_up(memory, errp) && memory_resize(memory, errp);
}

static bool memory_open_memfd(IvshmemMemory *memory,
                              const IvshmemMemoryConfig *config, GError **errp)
{
    unsigned pages = 0;
    uint64_t page = config->page_size;

    if (config->kind == IVSHMEM_MEMORY_HUGETLB) {
        pages = MFD_HUGETLB;
        if (page) {
            pages |= (unsigned)g_bit_nth_lsf(page, -1) << MFD_HUGE_SHIFT;
        }
    }
    memory->fd = memfd_create("ivshmem",
                              MFD_CLOEXEC | MFD_ALLOW_SEALING | pages);
    if (memory->fd < 0) {
        ivshmem_error(errp, "cannot make %s: %s", memory->description,
                      g_strerror(errno));
        return false;
    }
    /* Through /proc others could open it again, if they may. */
    fchmod(memory->fd, MEMORY_MODE);
    if (!memory_round_up(memory, errp) || !memory_resize(memory, errp)) {
        return false;
    }
    memory->sealed = fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK |
                           F_SEAL_GROW | F_SEAL_SEAL) == 0;
    return true;
}

/* Shared memory keeps the policy of its pages when it is unmapped again. */
static bool memory_bind(const IvshmemMemory *memory, int node, GError **errp)
{
    const int bits = 8 * (int)sizeof(unsigned long);
    unsigned long mask[IVSHMEM_NUMA_NODES / (8 * sizeof(unsigned long))] = {
        0,
    };
    void *map = mmap(NULL, memory->size, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_NORESERVE, memory->fd, 0);
    long ret = -1;

    if (map != MAP_FAILED) {
        mask[node / bits] = 1UL << node % bits;
        ret = syscall(SYS_mbind, map, memory->size, MPOL_BIND, mask,
                      IVSHMEM_NUMA_NODES + 1, 0);
    }
    if (ret < 0) {
        ivshmem_error(errp, "cannot bind %s to NUMA node %d: %s",
                      memory->description, node, g_strerror(errno));
    }
    if (map != MAP_FAILED) {
        munmap(map, memory->size);
    }
    return ret == 0;
}

static bool memory_prepare(IvshmemMemory *memory,
                           const IvshmemMemoryConfig *config, GError **errp)
{
    if (config->numa_node >= 0 &&
        !memory_bind(memory, config->numa_node, errp)) {
        return false;
    }
    if (config->prealloc &&
        fallocate(memory->fd, 0, 0, (off_t)memory->size) < 0) {
        ivshmem_error(errp, "cannot allocate all of %s: %s",
                      memory->description, g_strerror(errno));
        return false;
    }
    return true;
}

/* For people, and to compare. */
static char *memory_describe(const IvshmemMemoryConfig *config)
{
    switch (config->kind) {
    case IVSHMEM_MEMORY_SHM:
        return g_strconcat("POSIX shared memory object /", config->name, NULL);
    case IVSHMEM_MEMORY_FILE:
        return g_strconcat("file ", config->name, NULL);
    case IVSHMEM_MEMORY_DIR:
        return g_strconcat("a file in ", config->name, NULL);
    case IVSHMEM_MEMORY_HUGETLB:
        return g_strdup("sealed memory of huge pages");
    default:
        return g_strdup("sealed memory");
    }
}

static IvshmemMemory *memory_new(const IvshmemMemoryConfig *config)
{
    IvshmemMemory *memory = g_new0(IvshmemMemory, 1);

    memory->fd = -1;
    memory->lock = -1;
    memory->read_only = -1;
    memory->size = config->size;
    memory->description = memory_describe(config);
    return memory;
}

IvshmemMemory *ivshmem_memory_open(const IvshmemMemoryConfig *config,
                                   GError **errp)
{
    IvshmemMemory *memory = memory_new(config);
    bool ok = false;

    switch (config->kind) {
    case IVSHMEM_MEMORY_SHM:
        ok = memory_open_shm(memory, config->name, errp);
        break;
    case IVSHMEM_MEMORY_FILE:
        ok = memory_open_file(memory, config->name, errp);
        break;
    case IVSHMEM_MEMORY_MEMFD:
    case IVSHMEM_MEMORY_HUGETLB:
        ok = memory_open_memfd(memory, config, errp);
        break;
    case IVSHMEM_MEMORY_DIR:
        ok = memory_open_dir(memory, config->name, errp);
        break;
    }
    if (!ok || !memory_prepare(memory, config, errp)) {
        ivshmem_memory_close(memory, !memory->found);
        return NULL;
    }
    return memory;
}

IvshmemMemory *ivshmem_memory_found_again(const IvshmemMemoryConfig *config,
                                          int fd, GError **errp)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    bool in_dir = config->kind == IVSHMEM_MEMORY_DIR;
    IvshmemMemory *memory = memory_new(config);
    struct stat st;

    memory->fd = fd;
    memory->found = true;
    memory->sealed = (fcntl(fd, F_GET_SEALS) & seals) == seals;
    if (memory_round_up(memory, errp)) {
        if (fstat(fd, &st) < 0) {
            ivshmem_error(errp, "cannot examine the memory that they have: %s",
                          g_strerror(errno));
        } else if ((in_dir ? st.st_nlink == 0 : memory->sealed) &&
                   (uint64_t)st.st_size == memory->size) {
            return memory;
        } else {
            ivshmem_error(errp, "the memory that clients of a former server "
                          "have is of another kind, or has another size");
        }
    }
    ivshmem_memory_close(memory, false);
    return NULL;
}

void ivshmem_memory_close(IvshmemMemory *memory, bool remove)
{
    if (!memory) {
        return;
    }
    if (remove && memory->made && memory_is_last_user(memory)) {
        if (memory->shm_name) {
            shm_unlink(memory->shm_name);
        } else if (memory->path) {
            unlink(memory->path);
        }
    }
    ivshmem_fd_close(&memory->read_only);
    ivshmem_fd_close(&memory->lock);
    ivshmem_fd_close(&memory->fd);
    g_free(memory->shm_name);
    g_free(memory->path);
    g_free(memory->description);
    g_free(memory);
}

#define MEMORY_TYPE "(iitmsmssbbb)"

GVariant *ivshmem_memory_save(const IvshmemMemory *memory, GArray *fds)
{
    g_array_append_val(fds, memory->fd);
    if (memory->read_only >= 0) {
        g_array_append_val(fds, memory->read_only);
    }
    return g_variant_new(MEMORY_TYPE, memory->fd, memory->read_only,
                         memory->size, memory->shm_name, memory->path,
                         memory->description, (gboolean)memory->made,
                         (gboolean)memory->sealed, (gboolean)memory->immutable);
}

IvshmemMemory *ivshmem_memory_restore(GVariant *saved,
                                      int (*fd_of)(int saved, void *opaque),
                                      void *opaque)
{
    IvshmemMemory *memory;
    gboolean made, sealed, immutable;

    if (!g_variant_is_of_type(saved, G_VARIANT_TYPE(MEMORY_TYPE))) {
        return NULL;
    }
    memory = g_new0(IvshmemMemory, 1);
    g_variant_get(saved, MEMORY_TYPE, &memory->fd, &memory->read_only,
                  &memory->size, &memory->shm_name, &memory->path,
                  &memory->description, &made, &sealed, &immutable);
    memory->fd = fd_of(memory->fd, opaque);
    memory->read_only = memory->read_only < 0 ? -1 : fd_of(memory->read_only,
                                                           opaque);
    memory->made = made;
    memory->sealed = sealed;
    memory->immutable = immutable;
    memory->found = true;
    memory->lock = -1;
    if (memory->shm_name || memory->path) {
        memory_lock(memory);
    }
    if (memory->fd < 0) {
        ivshmem_memory_close(memory, false);
        return NULL;
    }
    return memory;
}

bool ivshmem_memory_check(const IvshmemMemory *memory,
                          const IvshmemMemoryConfig *config, GError **errp)
{
    g_autofree char *description = memory_describe(config);
    IvshmemMemory want = {
        .fd = memory->fd, .size = config->size, .description = description,
    };
    g_autofree char *wanted = NULL, *is = NULL;

    if (!memory_round_up(&want, errp)) {
        return false;
    }
    if (want.size == memory->size &&
        strcmp(want.description, memory->description) == 0) {
        return true;
    }
    wanted = ivshmem_value_format_size(want.size);
    is = ivshmem_value_format_size(memory->size);
    ivshmem_error(errp, "the server that runs has %s (%s), not %s (%s), and "
                  "goes on; configure what it has, or stop it before the start",
                  memory->description, is, description, wanted);
    return false;
}

int ivshmem_memory_fd(const IvshmemMemory *memory)
{
    return memory->fd;
}

/*
 * A descriptor for reading cannot be mapped for writing, but through /proc it
 * could be opened again for writing by whoever may write to the object.  The
 * object's mode keeps other users out.  An immutable one keeps everybody out,
 * even root, while descriptors that are open for writing go on working.
 */
bool ivshmem_memory_prepare_read_only(IvshmemMemory *memory, GError **errp)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", memory->fd);
    int flags = FS_IMMUTABLE_FL;

    if (memory->read_only >= 0) {
        return true;
    }
    if (memory->shm_name || memory->path) {
        ivshmem_error(errp, "%s has a name to be opened by, so that "
                      "access=read-only cannot be granted; stop the server, "
                      "and start it with memory=memfd", memory->description);
        return false;
    }
    memory->read_only = open(self, O_RDONLY | O_CLOEXEC);
    if (memory->read_only < 0) {
        ivshmem_error(errp, "cannot open %s for reading: %s",
                      memory->description, g_strerror(errno));
        return false;
    }
    memory->immutable = ioctl(memory->fd, FS_IOC_SETFLAGS, &flags) == 0;
    return true;
}

int ivshmem_memory_read_only_fd(IvshmemMemory *memory, uid_t user,
                                GError **errp)
{
    struct stat st;

    if (!ivshmem_memory_prepare_read_only(memory, errp)) {
        return -1;
    }
    if (fstat(memory->read_only, &st) < 0 ||
        (!memory->immutable && (user == 0 || user == st.st_uid))) {
        ivshmem_error(errp, "user %u could open the memory again for writing, "
                      "so access=read-only cannot be granted; run the server "
                      "as another user (for memfd, CAP_LINUX_IMMUTABLE helps "
                      "as well)",
                      (unsigned)user);
        return -1;
    }
    return memory->read_only;
}

bool ivshmem_memory_sealed(const IvshmemMemory *memory)
{
    return memory->sealed;
}

uint64_t ivshmem_memory_lacks(const IvshmemMemory *memory)
{
    struct statfs fs;
    struct stat st;
    uint64_t room;

    /* Nothing limits memfd but memory; huge pages are taken at mmap(). */
    if (fstatfs(memory->fd, &fs) < 0 || fstat(memory->fd, &st) < 0 ||
        fs.f_blocks == 0 || fs.f_type == HUGETLBFS_MAGIC) {
        return 0;
    }
    room = (uint64_t)st.st_blocks * 512 +
        (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    return memory->size - MIN(memory->size, room);
}

uint64_t ivshmem_memory_size(const IvshmemMemory *memory)
{
    return memory->size;
}

const char *ivshmem_memory_describe(const IvshmemMemory *memory)
{
    return memory->description;
}

bool ivshmem_memory_found(const IvshmemMemory *memory)
{
    return memory->found;
}
