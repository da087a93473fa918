#include "gateway/node_file.h"

#include "core/logging.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A disk without room for a second file may have the former one, of a process that was killed: it is written
 * over. Whoever reads it in this very moment may see half of each. */
static bool write_over(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    size_t len = strlen(text);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, len) == (ssize_t)len && ftruncate(fd, (off_t)len) == 0;
    close(fd);
    return ok;
}

enum status node_file_write(const char *dir, const char *name, const char *text, struct buf *error)
{
    char path[4096], temporary[4096 + 8];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t len = strlen(text);
    bool ok = fd >= 0 && write(fd, text, len) == (ssize_t)len;
    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    if (ok && rename(temporary, path) == 0)
        return ST_OK;
    if (errno == ENOSPC || errno == EDQUOT) {
        (void)unlink(temporary);
        if (!write_over(path, text))
            log_warn("no room on the disk for a file that tools look for path=%s; the node serves", path);
        return ST_OK;
    }
    enum status st = buf_printf(error, "cannot write %s: %s", path, strerror(errno));
    (void)st;
    return ST_IO;
}

void node_file_remove(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}
