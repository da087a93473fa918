/* The kernel behind the port, and the three sequences that are easy to get wrong: a write that may be
 * short, a folder that must be synced after a name in it has changed, a file that is replaced whole. */
#include "core/store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int system_open(void *ctx, const char *path, int flags, mode_t mode)
{
    (void)ctx;
    return open(path, flags | O_CLOEXEC, mode);
}

static ssize_t system_pread(void *ctx, int fd, void *bytes, size_t len, off_t position)
{
    (void)ctx;
    return pread(fd, bytes, len, position);
}

static ssize_t system_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t position)
{
    (void)ctx;
    return pwritev(fd, iov, count, position);
}

static int system_datasync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd);
}

static int system_sync(void *ctx, int fd)
{
    (void)ctx;
    return fsync(fd);
}

static int system_truncate(void *ctx, int fd, off_t length)
{
    (void)ctx;
    return ftruncate(fd, length);
}

static int system_allocate(void *ctx, int fd, off_t length)
{
    (void)ctx;
    errno = posix_fallocate(fd, 0, length);
    return errno ? -1 : 0;
}

static int system_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to);
}

static int system_unlink(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path);
}

static int system_space(void *ctx, const char *path, struct files_space *out)
{
    (void)ctx;
    struct statvfs fs;
    if (statvfs(path, &fs) < 0)
        return -1;
    /* As df counts: what is kept for root is neither used nor free. */
    out->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    out->total_bytes = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize + out->free_bytes;
    return 0;
}

const struct store_files *store_files_system(void)
{
    static const struct store_files files = {
        .open = system_open,
        .pread = system_pread,
        .pwritev = system_pwritev,
        .datasync = system_datasync,
        .sync = system_sync,
        .truncate = system_truncate,
        .allocate = system_allocate,
        .rename = system_rename,
        .unlink = system_unlink,
        .space = system_space,
    };
    return &files;
}

ssize_t files_read_all(const struct store_files *files, int fd, void *bytes, size_t len, off_t position)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = files->pread(files->ctx, fd, (uint8_t *)bytes + done, len - done, position + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int files_write_all(const struct store_files *files, int fd, struct iovec *iov, int count, off_t position)
{
    while (count > 0) {
        if (iov->iov_len == 0) {
            iov++;
            count--;
            continue;
        }
        ssize_t n = files->pwritev(files->ctx, fd, iov, count < IOV_MAX ? count : IOV_MAX, position);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n == 0 ? EIO : errno; /* a write of nothing would be tried for ever */
            return -1;
        }
        position += n;
        for (size_t left = (size_t)n; left > 0 && count > 0;) {
            size_t part = left < iov->iov_len ? left : iov->iov_len;
            if (part > 0) /* an empty piece may have no address */
                iov->iov_base = (char *)iov->iov_base + part;
            iov->iov_len -= part;
            left -= part;
            if (iov->iov_len == 0) {
                iov++;
                count--;
            }
        }
    }
    return 0;
}

int files_sync_folder(const struct store_files *files, const char *path)
{
    int fd = files->open(files->ctx, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return -1;
    int rc = files->sync(files->ctx, fd), error = errno;
    close(fd);
    errno = error;
    return rc;
}

int files_replace(const struct store_files *files, const char *folder, const char *path, struct iovec *parts,
                  int count)
{
    char beside[PATH_MAX];
    if (snprintf(beside, sizeof beside, "%s.tmp", path) >= (int)sizeof beside) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = files->open(files->ctx, beside, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (fd < 0)
        return -1;
    int rc = files_write_all(files, fd, parts, count, 0);
    if (rc == 0)
        rc = files->sync(files->ctx, fd);
    int error = errno;
    close(fd);
    errno = error;
    if (rc == 0)
        rc = files->rename(files->ctx, beside, path);
    return rc == 0 ? files_sync_folder(files, folder) : -1;
}
