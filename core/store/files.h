/* The store's port to the file system: what changes the disk, and what reads segments, goes through here, so
 * that a test can make the n-th call fail or fall short. (Indexes are mapped; they are not read through it.)
 * Each returns as the system call does: -1 and errno. */
#ifndef TG_CORE_STORE_FILES_H
#define TG_CORE_STORE_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct files_space {
    uint64_t total_bytes; /* that a user without privileges could have */
    uint64_t free_bytes; /* of these */
};

struct store_files {
    int (*open)(void *ctx, const char *path, int flags, mode_t mode);
    ssize_t (*pread)(void *ctx, int fd, void *bytes, size_t len, off_t position);
    ssize_t (*pwritev)(void *ctx, int fd, const struct iovec *iov, int count, off_t position);
    int (*datasync)(void *ctx, int fd); /* fdatasync */
    int (*sync)(void *ctx, int fd); /* fsync, of files and folders */
    int (*truncate)(void *ctx, int fd, off_t length);
    int (*allocate)(void *ctx, int fd, off_t length); /* posix_fallocate from 0 */
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int (*space)(void *ctx, const char *path, struct files_space *out); /* of the file system: statvfs */
    void *ctx;
};

/* The kernel's. Any thread; static storage. */
const struct store_files *store_files_system(void);

/* Reads until `len` bytes are there or the file ends. How many; -1 and errno. */
ssize_t files_read_all(const struct store_files *files, int fd, void *bytes, size_t len, off_t position);
/* Writes all of iov, however often the system writes short. `iov` is used up. -1 and errno. */
int files_write_all(const struct store_files *files, int fd, struct iovec *iov, int count, off_t position);
/* Opens a folder, fsyncs it and closes it: makes names durable. -1 and errno. */
int files_sync_folder(const struct store_files *files, const char *path);
/* Replaces `path` by the parts: writes a file beside it, syncs, renames, syncs the folder. `parts` is used
 * up. -1 and errno. */
int files_replace(const struct store_files *files, const char *folder, const char *path, struct iovec *parts,
                  int count);

#endif
