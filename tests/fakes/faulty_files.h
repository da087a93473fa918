/* The store's file port with faults: the n-th call of a kind fails with an error, or every write is
 * short. Otherwise it is the kernel's. For one store at a time; calls may come from any thread. */
#ifndef TG_TESTS_FAKES_FAULTY_FILES_H
#define TG_TESTS_FAKES_FAULTY_FILES_H

#include "core/store/files.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum faulty_call {
    FAULTY_OPEN,
    FAULTY_PWRITEV,
    FAULTY_DATASYNC,
    FAULTY_SYNC,
    FAULTY_TRUNCATE,
    FAULTY_ALLOCATE,
    FAULTY_RENAME,
    FAULTY_UNLINK,
    FAULTY_SPACE, /* from here on: what changes nothing */
    FAULTY_PREAD,
    FAULTY_CALLS
};

struct faulty_files {
    struct store_files port;
    atomic_long count[FAULTY_CALLS]; /* calls so far */
    long fail_at[FAULTY_CALLS]; /* the call with this number fails, from 1; 0 = none */
    bool fail_on; /* and all behind it */
    long exit_at[FAULTY_CALLS]; /* the process ends before this call; 0 = none */
    const char *fail_path; /* opening a file with this in its path fails; NULL: none */
    int fail_errno;
    uint64_t space_total; /* what the disk is said to have; 0 = the truth */
    _Atomic uint64_t space_free; /* of it; may be changed while the store runs */
    size_t write_bytes_max; /* 0 = whole; else no write takes more */
    size_t read_bytes_max; /* 0 = whole; else no read gives more */
};

static inline bool faulty_now(struct faulty_files *f, enum faulty_call call)
{
    long n = atomic_fetch_add(&f->count[call], 1) + 1;
    if (f->exit_at[call] == n)
        _exit(99);
    long at = f->fail_at[call];
    if (at == 0 || n < at || (n > at && !f->fail_on))
        return false;
    errno = f->fail_errno;
    return true;
}

static int faulty_open(void *ctx, const char *path, int flags, mode_t mode)
{
    const struct faulty_files *f = ctx;
    const char *fail_path = f->fail_path;
    if (fail_path && strstr(path, fail_path)) {
        errno = f->fail_errno;
        return -1;
    }
    return faulty_now(ctx, FAULTY_OPEN) ? -1 : store_files_system()->open(NULL, path, flags, mode);
}

static ssize_t faulty_pread(void *ctx, int fd, void *bytes, size_t len, off_t position)
{
    const struct faulty_files *f = ctx;
    if (faulty_now(ctx, FAULTY_PREAD))
        return -1;
    return pread(fd, bytes, f->read_bytes_max && f->read_bytes_max < len ? f->read_bytes_max : len, position);
}

static ssize_t faulty_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t position)
{
    struct faulty_files *f = ctx;
    if (faulty_now(f, FAULTY_PWRITEV))
        return -1;
    if (f->write_bytes_max == 0)
        return pwritev(fd, iov, count, position);
    size_t len = iov->iov_len < f->write_bytes_max ? iov->iov_len : f->write_bytes_max;
    return pwrite(fd, iov->iov_base, len, position);
}

static int faulty_datasync(void *ctx, int fd)
{
    return faulty_now(ctx, FAULTY_DATASYNC) ? -1 : fdatasync(fd);
}

static int faulty_sync(void *ctx, int fd)
{
    return faulty_now(ctx, FAULTY_SYNC) ? -1 : fsync(fd);
}

static int faulty_truncate(void *ctx, int fd, off_t length)
{
    return faulty_now(ctx, FAULTY_TRUNCATE) ? -1 : ftruncate(fd, length);
}

static int faulty_allocate(void *ctx, int fd, off_t length)
{
    return faulty_now(ctx, FAULTY_ALLOCATE) ? -1 : store_files_system()->allocate(NULL, fd, length);
}

static int faulty_rename(void *ctx, const char *from, const char *to)
{
    return faulty_now(ctx, FAULTY_RENAME) ? -1 : store_files_system()->rename(NULL, from, to);
}

static int faulty_unlink(void *ctx, const char *path)
{
    return faulty_now(ctx, FAULTY_UNLINK) ? -1 : unlink(path);
}

static int faulty_space(void *ctx, const char *path, struct files_space *out)
{
    struct faulty_files *f = ctx;
    if (faulty_now(f, FAULTY_SPACE))
        return -1;
    if (f->space_total == 0)
        return store_files_system()->space(NULL, path, out);
    *out = (struct files_space){f->space_total, atomic_load(&f->space_free)};
    return 0;
}

static inline void faulty_files_init(struct faulty_files *f)
{
    *f = (struct faulty_files){.fail_errno = EIO};
    f->port = (struct store_files){.open = faulty_open,
                                   .pread = faulty_pread,
                                   .pwritev = faulty_pwritev,
                                   .datasync = faulty_datasync,
                                   .sync = faulty_sync,
                                   .truncate = faulty_truncate,
                                   .allocate = faulty_allocate,
                                   .rename = faulty_rename,
                                   .unlink = faulty_unlink,
                                   .space = faulty_space,
                                   .ctx = f};
}

#endif
