/*
 * Records what a program does to the files under one directory, in order, so that a test can rebuild that
 * directory as it would be after a power loss at any moment.
 *
 *   cc -O2 -shared -fPIC -o preload.so preload.c -ldl -lpthread
 *   HALLEY_POWER_DIR=/canonical/dir HALLEY_POWER_LOG=/elsewhere/log LD_PRELOAD=preload.so program
 *
 * A record is: u32 whole length, u8 kind, 3 bytes of nothing, u64 inode, u64 a, u32 length of each of two
 * paths (relative to the directory), the paths, the data; numbers are big-endian.
 *
 * What changes contents is recorded before it is done, under one lock with the doing of it: a kill leaves at most
 * the last record undone or half done. What changes names is announced (INTENT), done, then recorded, because a new
 * file's inode is known only then. A sync is recorded at its begin and, if it succeeded, at its end: it makes
 * durable what was recorded before its begin. sync_file_range is counted, and makes nothing durable.
 *
 * HALLEY_POWER_STOP=N kills the program when it has recorded N events.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The 64-bit names are given beside the plain ones; here off_t has 64 bits anyway. */
_Static_assert(sizeof(off_t) == 8, "off_t has 64 bits");

enum kind {
    CREATE = 1, /* inode, path: a new, empty file */
    MKDIR = 2, /* inode, path */
    WRITE = 3, /* inode, a = offset, data */
    TRUNCATE = 4, /* inode, a = new length */
    RENAME = 5, /* path, path */
    UNLINK = 6, /* path of a file or of an empty directory */
    LINK = 7, /* path, path */
    SYNC_BEGIN = 8, /* inode of a file or directory, 0 for everything; a = ticket */
    SYNC_END = 9, /* a = ticket */
    RANGE = 10, /* inode: sync_file_range, which is no sync */
    ODD = 11, /* path = words: something that this recorder cannot follow */
    INTENT = 12, /* path, path: names that are about to change */
};

struct head {
    uint32_t length;
    uint8_t kind;
    uint8_t nothing[3];
    uint64_t inode, a;
    uint32_t first, second;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int on, log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;
static dev_t device;
static uint64_t tickets, left;
static unsigned char tracked[1 << 20];

#define REAL(name) static __typeof__(&name) real_##name
REAL(open);
REAL(openat);
REAL(close);
REAL(dup);
REAL(dup2);
REAL(dup3);
REAL(fcntl);
REAL(write);
REAL(pwrite);
REAL(writev);
REAL(pwritev);
REAL(ftruncate);
REAL(truncate);
REAL(renameat2);
REAL(linkat);
REAL(unlinkat);
REAL(mkdirat);
REAL(fallocate);
REAL(copy_file_range);
REAL(fsync);
REAL(fdatasync);
REAL(sync);
REAL(syncfs);
REAL(sync_file_range);
REAL(mmap);
static ssize_t (*real_sendfile)(int, int, off_t *, size_t);
static ssize_t (*real_splice)(int, off_t *, int, off_t *, size_t, unsigned);

static void load(void)
{
#define FIND(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
    FIND(open);
    FIND(openat);
    FIND(close);
    FIND(dup);
    FIND(dup2);
    FIND(dup3);
    FIND(fcntl);
    FIND(write);
    FIND(pwrite);
    FIND(writev);
    FIND(pwritev);
    FIND(ftruncate);
    FIND(truncate);
    FIND(renameat2);
    FIND(linkat);
    FIND(unlinkat);
    FIND(mkdirat);
    FIND(fallocate);
    FIND(copy_file_range);
    FIND(fsync);
    FIND(fdatasync);
    FIND(sync);
    FIND(syncfs);
    FIND(sync_file_range);
    FIND(mmap);
    FIND(sendfile);
    FIND(splice);
    const char *dir = getenv("HALLEY_POWER_DIR"), *log = getenv("HALLEY_POWER_LOG");
    struct stat meta;
    if (!dir || !log || strlen(dir) >= sizeof root || stat(dir, &meta) != 0)
        return;
    strcpy(root, dir);
    const char *stop = getenv("HALLEY_POWER_STOP");
    left = stop ? strtoull(stop, NULL, 10) : 0;
    root_length = strlen(root);
    device = meta.st_dev;
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        abort();
    on = 1;
}

__attribute__((constructor)) static void start(void)
{
    pthread_once(&once, load);
}

static void enter(void)
{
    start();
    pthread_mutex_lock(&lock);
}

static void leave(void)
{
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
}

/* Under the lock. The log loses nothing: better no program than a wrong log. */
static void record(enum kind kind, uint64_t inode, uint64_t a, const char *first, const char *second,
                   const void *data, size_t length)
{
    int kept = errno;
    size_t firsts = first ? strlen(first) : 0, seconds = second ? strlen(second) : 0;
    size_t whole = sizeof(struct head) + firsts + seconds + length;
    struct head head = {.length = htobe32(whole),
                        .kind = kind,
                        .inode = htobe64(inode),
                        .a = htobe64(a),
                        .first = htobe32(firsts),
                        .second = htobe32(seconds)};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)first, firsts},
                            {(void *)second, seconds},
                            {(void *)data, length}};
    if (whole > UINT32_MAX || real_writev(log_fd, parts, 4) != (ssize_t)whole)
        abort();
    if (left && --left == 0)
        kill(getpid(), SIGKILL);
    errno = kept;
}

/* The path relative to the root, or NULL when it lies elsewhere. The last part need not exist. */
static const char *below(int at, const char *path, char *out)
{
    char whole[PATH_MAX * 2], base[PATH_MAX];
    if (!on || !path)
        return NULL;
    int kept = errno;
    const char *found = NULL;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else if (at == AT_FDCWD) {
        if (!getcwd(base, sizeof base))
            goto end;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0)
            goto end;
        base[n] = 0;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    size_t n = strlen(whole);
    while (n > 1 && whole[n - 1] == '/')
        whole[--n] = 0;
    char *slash = strrchr(whole, '/');
    *slash = 0;
    if (!realpath(slash == whole ? "/" : whole, base))
        goto end;
    if (strlen(base) + 1 + strlen(slash + 1) >= PATH_MAX)
        goto end;
    strcat(strcat(strcpy(out, base), "/"), slash + 1);
    if (strncmp(out, root, root_length) == 0 && out[root_length] == '/')
        found = out + root_length + 1;
end:
    errno = kept;
    return found;
}

/* Whether the descriptor is a file or directory under the root: looks it up once, at its birth. */
static void learn(int fd)
{
    char link[64], path[PATH_MAX];
    if (fd < 0 || (size_t)fd >= sizeof tracked)
        return;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    tracked[fd] = n >= (ssize_t)root_length && strncmp(path, root, root_length) == 0 &&
                  (n == (ssize_t)root_length || path[root_length] == '/');
    errno = kept;
}

static void copied(int from, int to)
{
    if (on && from >= 0 && to >= 0 && (size_t)from < sizeof tracked && (size_t)to < sizeof tracked)
        tracked[to] = tracked[from];
}

static int ours(int fd, struct stat *meta)
{
    int kept = errno;
    int yes = on && fd >= 0 && (size_t)fd < sizeof tracked && tracked[fd] && fstat(fd, meta) == 0 &&
              meta->st_dev == device;
    errno = kept;
    return yes;
}

static int ours_file(int fd, struct stat *meta)
{
    return ours(fd, meta) && S_ISREG(meta->st_mode);
}

/* ---- names ---- */

static int do_open(int at, const char *path, int flags, mode_t mode)
{
    enter();
    char buffer[PATH_MAX];
    struct stat meta;
    const char *name = (flags & (O_CREAT | O_TRUNC)) ? below(at, path, buffer) : NULL;
    int existed = name && fstatat(at, path, &meta, 0) == 0;
    if (name && !existed)
        record(INTENT, 0, 0, name, NULL, NULL, 0);
    if (existed && (flags & O_TRUNC) && !((flags & O_CREAT) && (flags & O_EXCL)) && S_ISREG(meta.st_mode))
        record(TRUNCATE, meta.st_ino, 0, NULL, NULL, NULL, 0);
    int fd = real_openat(at, path, flags, mode);
    if (fd >= 0 && on) {
        learn(fd);
        if ((flags & O_TMPFILE) == O_TMPFILE && tracked[fd])
            record(ODD, 0, 0, "O_TMPFILE", NULL, NULL, 0);
        if (name && !existed && fstat(fd, &meta) == 0)
            record(CREATE, meta.st_ino, 0, name, NULL, NULL, 0);
    }
    leave();
    return fd;
}

#define MODE(flags, mode)                                  \
    mode_t mode = 0;                                       \
    if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {  \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return do_open(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return do_open(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return do_open(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return do_open(at, path, flags, mode);
}
int creat(const char *path, mode_t mode)
{
    return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd)
{
    start();
    if (fd >= 0 && (size_t)fd < sizeof tracked)
        tracked[fd] = 0;
    return real_close(fd);
}

int dup(int fd)
{
    enter();
    int to = real_dup(fd);
    copied(fd, to);
    leave();
    return to;
}
int dup2(int fd, int want)
{
    enter();
    int to = real_dup2(fd, want);
    copied(fd, to);
    leave();
    return to;
}
int dup3(int fd, int want, int flags)
{
    enter();
    int to = real_dup3(fd, want, flags);
    copied(fd, to);
    leave();
    return to;
}

/* Every third argument of fcntl fits in a pointer. Not under the lock: F_SETLKW may wait. */
static int do_fcntl(int fd, int what, void *third)
{
    start();
    int result = real_fcntl(fd, what, third);
    if (what == F_DUPFD || what == F_DUPFD_CLOEXEC)
        copied(fd, result);
    return result;
}
int fcntl(int fd, int what, ...)
{
    va_list rest;
    va_start(rest, what);
    void *third = va_arg(rest, void *);
    va_end(rest);
    return do_fcntl(fd, what, third);
}
int fcntl64(int fd, int what, ...)
{
    va_list rest;
    va_start(rest, what);
    void *third = va_arg(rest, void *);
    va_end(rest);
    return do_fcntl(fd, what, third);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    enter();
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *from_name = below(from_at, from, from_buffer), *to_name = below(to_at, to, to_buffer);
    if (from_name || to_name)
        record(INTENT, 0, 0, from_name, to_name, NULL, 0);
    int result = real_renameat2(from_at, from, to_at, to, flags);
    if (result == 0 && from_name && to_name && (flags & ~(unsigned)RENAME_NOREPLACE) == 0)
        record(RENAME, 0, 0, from_name, to_name, NULL, 0);
    else if (result == 0 && (from_name || to_name))
        record(ODD, 0, 0, "rename into or out of the directory, or an exchange", NULL, NULL, 0);
    leave();
    return result;
}
int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return renameat2(from_at, from, to_at, to, 0);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    enter();
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *from_name = below(from_at, from, from_buffer), *to_name = below(to_at, to, to_buffer);
    if (to_name)
        record(INTENT, 0, 0, to_name, NULL, NULL, 0);
    int result = real_linkat(from_at, from, to_at, to, flags);
    if (result == 0 && to_name)
        record(from_name ? LINK : ODD, 0, 0, from_name ? from_name : "link from outside", to_name, NULL, 0);
    leave();
    return result;
}
int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    enter();
    char buffer[PATH_MAX];
    const char *name = below(at, path, buffer);
    if (name)
        record(INTENT, 0, 0, name, NULL, NULL, 0);
    int result = real_unlinkat(at, path, flags);
    if (result == 0 && name)
        record(UNLINK, 0, 0, name, NULL, NULL, 0);
    leave();
    return result;
}
int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    enter();
    char buffer[PATH_MAX];
    struct stat meta;
    const char *name = below(at, path, buffer);
    if (name)
        record(INTENT, 0, 0, name, NULL, NULL, 0);
    int result = real_mkdirat(at, path, mode);
    if (result == 0 && name && fstatat(at, path, &meta, 0) == 0)
        record(MKDIR, meta.st_ino, 0, name, NULL, NULL, 0);
    leave();
    return result;
}
int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

/* ---- contents ---- */

static void wrote(int fd, off_t offset, const struct iovec *parts, int count)
{
    struct stat meta;
    if (!ours_file(fd, &meta))
        return;
    if (real_fcntl(fd, F_GETFL) & O_APPEND)
        offset = meta.st_size;
    else if (offset < 0)
        offset = lseek(fd, 0, SEEK_CUR);
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len)
            record(WRITE, meta.st_ino, offset, NULL, NULL, parts[i].iov_base, parts[i].iov_len);
        offset += parts[i].iov_len;
    }
}

/* A write that did less than was recorded (a full disk) makes the log wrong: say so. */
static void finished(int fd, ssize_t did, const struct iovec *parts, int count)
{
    struct stat meta;
    ssize_t asked = 0;
    for (int i = 0; i < count; i++)
        asked += parts[i].iov_len;
    if (did != asked && ours_file(fd, &meta))
        record(ODD, 0, 0, "a short or failed write", NULL, NULL, 0);
}

ssize_t write(int fd, const void *data, size_t length)
{
    start();
    if (!on || fd < 0 || (size_t)fd >= sizeof tracked || !tracked[fd])
        return real_write(fd, data, length);
    enter();
    struct iovec part = {(void *)data, length};
    wrote(fd, -1, &part, 1);
    ssize_t did = real_write(fd, data, length);
    finished(fd, did, &part, 1);
    leave();
    return did;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    start();
    if (!on || fd < 0 || (size_t)fd >= sizeof tracked || !tracked[fd])
        return real_writev(fd, parts, count);
    enter();
    wrote(fd, -1, parts, count);
    ssize_t did = real_writev(fd, parts, count);
    finished(fd, did, parts, count);
    leave();
    return did;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    enter();
    struct iovec part = {(void *)data, length};
    wrote(fd, offset, &part, 1);
    ssize_t did = real_pwrite(fd, data, length, offset);
    finished(fd, did, &part, 1);
    leave();
    return did;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite(fd, data, length, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    enter();
    wrote(fd, offset, parts, count);
    ssize_t did = real_pwritev(fd, parts, count, offset);
    finished(fd, did, parts, count);
    leave();
    return did;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(fd, parts, count, offset);
}

int ftruncate(int fd, off_t length)
{
    enter();
    struct stat meta;
    if (ours_file(fd, &meta))
        record(TRUNCATE, meta.st_ino, length, NULL, NULL, NULL, 0);
    int result = real_ftruncate(fd, length);
    leave();
    return result;
}
int ftruncate64(int fd, off_t length)
{
    return ftruncate(fd, length);
}
int truncate(const char *path, off_t length)
{
    enter();
    char buffer[PATH_MAX];
    struct stat meta;
    if (below(AT_FDCWD, path, buffer) && stat(path, &meta) == 0 && S_ISREG(meta.st_mode))
        record(TRUNCATE, meta.st_ino, length, NULL, NULL, NULL, 0);
    int result = real_truncate(path, length);
    leave();
    return result;
}
int truncate64(const char *path, off_t length)
{
    return truncate(path, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    enter();
    struct stat meta;
    if (ours_file(fd, &meta)) {
        if (mode == 0 && offset + length > meta.st_size)
            record(TRUNCATE, meta.st_ino, offset + length, NULL, NULL, NULL, 0);
        else if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE)
            record(ODD, 0, 0, "fallocate that changes contents", NULL, NULL, 0);
    }
    int result = real_fallocate(fd, mode, offset, length);
    leave();
    return result;
}
int fallocate64(int fd, int mode, off_t offset, off_t length)
{
    return fallocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int fd, off_t offset, off_t length)
{
    return posix_fallocate(fd, offset, length);
}

/* Copies inside the kernel are refused as unsupported: their callers then read and write. */
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags)
{
    struct stat meta;
    start();
    if (ours(to, &meta)) {
        errno = EXDEV;
        return -1;
    }
    return real_copy_file_range(from, from_at, to, to_at, length, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t length)
{
    struct stat meta;
    start();
    if (ours(to, &meta)) {
        errno = EINVAL;
        return -1;
    }
    return real_sendfile(to, from, offset, length);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t length)
{
    return sendfile(to, from, offset, length);
}
ssize_t splice(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags)
{
    struct stat meta;
    start();
    if (ours(to, &meta)) {
        errno = EINVAL;
        return -1;
    }
    return real_splice(from, from_at, to, to_at, length, flags);
}

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct stat meta;
    start();
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && ours(fd, &meta)) {
        enter();
        record(ODD, 0, 0, "a shared writable mapping", NULL, NULL, 0);
        leave();
    }
    return real_mmap(where, length, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(where, length, protection, flags, fd, offset);
}

/* ---- syncs: never under the lock, they take long ---- */

static uint64_t begin(uint64_t inode)
{
    enter();
    uint64_t ticket = ++tickets;
    record(SYNC_BEGIN, inode, ticket, NULL, NULL, NULL, 0);
    leave();
    return ticket;
}

static void end(uint64_t ticket)
{
    enter();
    record(SYNC_END, 0, ticket, NULL, NULL, NULL, 0);
    leave();
}

int fsync(int fd)
{
    struct stat meta;
    start();
    if (!ours(fd, &meta))
        return real_fsync(fd);
    uint64_t ticket = begin(meta.st_ino);
    int result = real_fsync(fd);
    if (result == 0)
        end(ticket);
    return result;
}
int fdatasync(int fd)
{
    struct stat meta;
    start();
    if (!ours(fd, &meta))
        return real_fdatasync(fd);
    uint64_t ticket = begin(meta.st_ino);
    int result = real_fdatasync(fd);
    if (result == 0)
        end(ticket);
    return result;
}
void sync(void)
{
    start();
    if (!on) {
        real_sync();
        return;
    }
    uint64_t ticket = begin(0);
    real_sync();
    end(ticket);
}
int syncfs(int fd)
{
    struct stat meta;
    start();
    if (!ours(fd, &meta))
        return real_syncfs(fd);
    uint64_t ticket = begin(0);
    int result = real_syncfs(fd);
    if (result == 0)
        end(ticket);
    return result;
}
int sync_file_range(int fd, off_t offset, off_t length, unsigned flags)
{
    struct stat meta;
    enter();
    if (ours(fd, &meta))
        record(RANGE, meta.st_ino, 0, NULL, NULL, NULL, 0);
    leave();
    return real_sync_file_range(fd, offset, length, flags);
}
