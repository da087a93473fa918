/* Loaded into the node by LD_PRELOAD: the faults that the power cut must find. Only syncs of data: a log
 * whose folders and names survive shows best that its records do not. $SYNC_MUTANT is one of
 *
 *     none        syncs do nothing and say that all went well
 *     writeback   syncs hand the pages to the disk and wait, and the disk keeps them in its write cache
 *     early       syncs say at once that all went well and are done right after: nothing waits for them
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_mutant(const char *name)
{
    const char *mutant = getenv("SYNC_MUTANT");
    return mutant && strcmp(mutant, name) == 0;
}

static void *sync_and_close(void *arg)
{
    int fd = (int)(intptr_t)arg;
    syscall(SYS_fdatasync, fd);
    close(fd);
    return NULL;
}

static int sync_later(int fd)
{
    pthread_t thread;
    int own = dup(fd);
    if (own < 0 || pthread_create(&thread, NULL, sync_and_close, (void *)(intptr_t)own) != 0)
        abort();
    return pthread_detach(thread);
}

int fdatasync(int fd)
{
    if (is_mutant("none"))
        return 0;
    if (is_mutant("writeback"))
        return sync_file_range(
            fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    if (is_mutant("early"))
        return sync_later(fd);
    return (int)syscall(SYS_fdatasync, fd);
}
