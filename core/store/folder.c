#include "core/store/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { LOCK_TRIES = 10, LOCK_RETRY_US = 20000 };

enum status folder_refuse(struct buf *error, const char *where, const char *what)
{
    enum status st = ST_IO;
    const char *advice = "check the disk";
    if (errno == ENOSPC || errno == EDQUOT) {
        st = ST_NO_SPACE;
        advice = "make room on this disk or move data.dir, then start again";
    } else if (errno == EACCES || errno == EPERM || errno == EROFS) {
        st = ST_FORBIDDEN;
        advice = "give this process's user the right to read and write it, or set another data.dir";
    }
    if (errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG) {
        st = ST_INVALID;
        advice = "this is no folder; set another data.dir";
    }
    if (buf_printf(error, "%s: cannot %s: %s; %s", where, what, strerror(errno), advice) != ST_OK)
        buf_clear(error);
    return st;
}

enum status folder_make(const struct store_files *files, const char *path, const char *parent,
                        struct buf *error)
{
    if (mkdir(path, 0750) == 0)
        return files_sync_folder(files, parent) == 0 ? ST_OK : folder_refuse(error, parent, "sync it");
    if (errno == EEXIST)
        return ST_OK;
    if (errno != ENOENT)
        return folder_refuse(error, path, "make this folder");
    if (buf_printf(error, "%s: the folder above it does not exist; make it, or set another data.dir", path) !=
        ST_OK)
        buf_clear(error);
    return ST_INVALID;
}

/* The process that holds the lock on this file, by the kernel's own list; 0: it does not say (another
 * container's process, say). */
static long lock_holder(int fd)
{
    struct stat st;
    char line[256];
    long holder = 0;
    FILE *f = fstat(fd, &st) == 0 ? fopen("/proc/locks", "re") : NULL;
    if (!f)
        return 0;
    while (holder == 0 && fgets(line, sizeof line, f)) {
        long pid;
        unsigned device_major, device_minor;
        unsigned long inode;
        /* 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF */
        if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%lu", &pid, &device_major, &device_minor, &inode) ==
                4 &&
            pid > 0 && inode == st.st_ino && device_major == major(st.st_dev) &&
            device_minor == minor(st.st_dev))
            holder = pid;
    }
    fclose(f);
    return holder;
}

/* What the process itself has written there. */
static long pid_file(const char *dir)
{
    char path[PATH_MAX];
    long pid = 0;
    if (snprintf(path, sizeof path, "%s/pid", dir) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%ld", &pid) != 1)
        pid = 0;
    fclose(f);
    return pid;
}

static enum status tell_holder(const char *dir, int fd, struct buf *error)
{
    long pid = lock_holder(fd);
    char who[64] = "another process";
    if (pid == 0)
        pid = pid_file(dir);
    if (pid > 0)
        snprintf(who, sizeof who, "process %ld", pid);
    if (buf_printf(error, "%s: %s uses this log; stop it, or give this one another data.dir", dir, who) !=
        ST_OK)
        buf_clear(error);
    return ST_EXISTS;
}

enum status folder_lock(const char *dir, int *fd, struct buf *error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/LOCK", dir);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (*fd < 0)
        return folder_refuse(error, path, "open it");
    /* A tool that looks whether the log is in use (view.c) holds it for an instant, shared. */
    for (int tries = 0; flock(*fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK)
            return folder_refuse(error, path, "lock it");
        if (tries == LOCK_TRIES)
            return tell_holder(dir, *fd, error);
        usleep(LOCK_RETRY_US);
    }
    return ST_OK;
}

long folder_holder(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/LOCK", dir) >= (int)sizeof path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long pid = 0;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        pid = lock_holder(fd);
        if (pid == 0)
            pid = pid_file(dir);
    }
    close(fd);
    return pid;
}
