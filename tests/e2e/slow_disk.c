/* Loaded into the node by LD_PRELOAD: a disk whose syncs can be held back or made to fail, as the folder
 * $SLOW_DISK says. While the file `hold` is there a sync does not return, and `held` tells that one waits;
 * when `fail` is there it answers EIO. kill -9 cannot test the order of sync and acknowledgement: the kernel
 * keeps what was written. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int exists(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", getenv("SLOW_DISK"), name);
    return access(path, F_OK) == 0;
}

static int wait_then(long number, int fd)
{
    char path[PATH_MAX];
    while (exists("hold")) {
        snprintf(path, sizeof path, "%s/held", getenv("SLOW_DISK"));
        int mark = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (mark >= 0)
            close(mark);
        usleep(2000);
    }
    if (exists("fail")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fdatasync(int fd)
{
    return wait_then(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return wait_then(SYS_fsync, fd);
}
