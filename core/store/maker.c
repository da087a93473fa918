/* A few places, each for one file under <dir>/ahead-<n>.seg:
 *
 *   EMPTY --want--> MAKING --> READY --take (rename, with its descriptor)--> EMPTY
 *   EMPTY --offer (rename)--> OLD --> MAKING --> READY
 *
 * What makes a used file safe (FORMAT.md 2): its first 4 KiB are zero, durably, before it can get a segment's
 * name, so after any cut it reads as a file that was never begun until the first frame of its new life is on
 * it; and that frame has a new segment_epoch, which no frame or record of an old life verifies under. A file
 * with a second name (a snapshot's) is never written to.
 *
 * A READY file may still be filled with zeros, a chunk at a time. The writer may take it between two chunks;
 * during one it waits, which is a write and a sync of 256 KiB. The lock is never held over a call to the
 * system: `busy` and the states say whose a file is. */
#include "core/store/maker.h"

#include "core/logging.h"
#include "core/metrics.h"
#include "core/store/segment.h"
#include "core/store/space.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    FILL_BYTES = 256 << 10,
    FILL_REST_TIMES = 3, /* so many times as long as a chunk took: a quarter of the disk at most */
    FILL_REST_MS_MIN = 2,
    BLANK_BYTES = 4096, /* more than the headers that say where a segment begins */
    SPACE_RETRY_MS = 100, /* the first time, then twice that, and so on up to */
    SPACE_RETRY_MS_MAX = 3200,
    SPACE_LOOK_MS = 1000,
    NICENESS = 10,
};

enum place_state { EMPTY, OLD, MAKING, READY };

struct place {
    enum place_state state;
    bool busy; /* READY, and a chunk is being written */
    int fd; /* READY */
    uint32_t life;
    uint64_t filled; /* bytes that have been written in some life */
};

struct maker {
    const struct store_options *options;
    const struct store_files *files;
    struct metrics *metrics;
    atomic_bool *disk_full; /* told to the loops */
    pthread_t thread;
    bool started;
    struct space space; /* the thread's */
    uint64_t look_at_ms;

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    bool stopping;
    bool refused; /* it could not be made, not for want of room: once is enough for each segment */
    unsigned wanted;
    struct place places[MAKER_FILES_MAX];
    unsigned place_count;
    uint64_t retry_at_ms, retry_ms; /* retry_ms 0: there is room */
};

static const uint8_t zeros[FILL_BYTES];

static void ahead_path(const char *dir, unsigned number, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/ahead-%u.seg", dir, number);
}

/* --- room --- */

static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT;
}

void maker_note_full(struct maker *m, const char *path)
{
    pthread_mutex_lock(&m->lock);
    bool first = m->retry_ms == 0;
    m->retry_ms = first ? SPACE_RETRY_MS : m->retry_ms * 2;
    if (m->retry_ms > SPACE_RETRY_MS_MAX)
        m->retry_ms = SPACE_RETRY_MS_MAX;
    m->retry_at_ms = clock_mono_ms(m->options->clock) + m->retry_ms;
    if (first)
        metric_add(m->metrics, M_LOG_DISK_FULL, 1);
    atomic_store_explicit(m->disk_full, true, memory_order_relaxed);
    pthread_cond_broadcast(&m->changed); /* the thread is the one that looks again */
    pthread_mutex_unlock(&m->lock);
    if (first)
        log_error("the log's disk is full: publishes will be refused until there is room path=%s "
                  "error=\"%s\"",
                  path, strerror(ENOSPC));
}

static void note_room(struct maker *m)
{
    pthread_mutex_lock(&m->lock);
    bool was_full = m->retry_ms > 0;
    m->retry_ms = 0;
    if (was_full)
        metric_sub(m->metrics, M_LOG_DISK_FULL, 1);
    atomic_store_explicit(m->disk_full, false, memory_order_relaxed);
    pthread_mutex_unlock(&m->lock);
    if (was_full)
        log_warn("the log's disk has room again path=%s", m->options->dir);
}

static uint64_t retry_ms(const struct maker *m)
{
    if (m->retry_ms == 0)
        return UINT64_MAX;
    uint64_t now_ms = clock_mono_ms(m->options->clock);
    return m->retry_at_ms > now_ms ? m->retry_at_ms - now_ms : 0;
}

uint64_t maker_retry_ms(struct maker *m)
{
    pthread_mutex_lock(&m->lock);
    uint64_t ms = retry_ms(m);
    pthread_mutex_unlock(&m->lock);
    return ms;
}

/* --- files --- */

/* A new file with room for `bytes`, or -1 and errno. */
static int make_file(struct maker *m, const char *path, uint64_t bytes)
{
    int fd = m->files->open(m->files->ctx, path, O_WRONLY | O_CREAT | O_EXCL, 0640);
    if (fd < 0)
        return -1;
    if (m->files->allocate(m->files->ctx, fd, (off_t)bytes) < 0) {
        int error = errno;
        close(fd);
        m->files->unlink(m->files->ctx, path);
        errno = error;
        return -1;
    }
    return fd;
}

static int write_zeros(struct maker *m, int fd, uint64_t at, size_t bytes)
{
    /* pwritev takes a non-const base and does not write through it. */
    struct iovec iov = {.iov_base = (void *)(uintptr_t)zeros, .iov_len = bytes};
    return files_write_all(m->files, fd, &iov, 1, (off_t)at);
}

/* -1 with errno 0: it has a second name, or is no file. */
static int look_at_old(const struct store_files *files, int fd, uint64_t *bytes, uint32_t *life)
{
    struct stat stat;
    struct segment_header h;
    uint8_t head[sizeof h] = {0};
    if (fstat(fd, &stat) < 0 || files_read_all(files, fd, head, sizeof head, 0) < 0)
        return -1;
    errno = 0;
    if (!S_ISREG(stat.st_mode) || stat.st_nlink != 1)
        return -1;
    *bytes = (uint64_t)stat.st_size;
    *life = segment_header_decode(head, &h) == ST_OK && h.life < UINT32_MAX ? h.life + 1 : 1;
    return 0;
}

/* An old segment's file becomes one that was never begun. The descriptor, or -1 and errno. */
static int renew_file(struct maker *m, const char *path, struct place *p)
{
    uint64_t bytes = m->options->segment_bytes;
    int fd = m->files->open(m->files->ctx, path, O_RDWR, 0);
    if (fd < 0)
        return -1;
    if (look_at_old(m->files, fd, &p->filled, &p->life) == 0 && write_zeros(m, fd, 0, BLANK_BYTES) == 0 &&
        (p->filled <= bytes || m->files->truncate(m->files->ctx, fd, (off_t)bytes) == 0) &&
        (p->filled >= bytes || m->files->allocate(m->files->ctx, fd, (off_t)bytes) == 0) &&
        m->files->sync(m->files->ctx, fd) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Whole sequence for one place that is MAKING. */
static void make_ready(struct maker *m, unsigned number, bool old)
{
    char path[PATH_MAX];
    struct place *p = &m->places[number];
    ahead_path(m->options->dir, number, path);
    p->life = 0;
    p->filled = 0;
    bool given = !old && !space_take_ballast_back(&m->space);
    int fd = given ? -1 : old ? renew_file(m, path, p) : make_file(m, path, m->options->segment_bytes);
    if (fd >= 0 && !old && m->files->sync(m->files->ctx, fd) < 0) {
        int error = errno;
        close(fd);
        fd = -1;
        errno = error;
    }
    int error = errno;
    if (fd < 0)
        m->files->unlink(m->files->ctx, path);
    if (fd < 0 && is_full(error))
        maker_note_full(m, path);
    else if (fd < 0 && error != 0) /* not an error yet: the segment that is being written has its blocks */
        log_warn("cannot make the next log segment ahead path=%s error=\"%s\"", path, strerror(error));
    else if (fd >= 0)
        note_room(m);
    pthread_mutex_lock(&m->lock);
    m->refused |= fd < 0 && error != 0 && !is_full(error);
    p->fd = fd;
    p->state = fd >= 0 ? READY : EMPTY;
    if (m->options->sync == STORE_SYNC_NEVER)
        p->filled = m->options->segment_bytes; /* nobody waits for its syncs */
    pthread_mutex_unlock(&m->lock);
}

/* One chunk of zeros into a READY file. Returns how long to rest, in milliseconds. */
static uint64_t fill_some(struct maker *m, struct place *p, int fd, uint64_t at)
{
    uint64_t left = m->options->segment_bytes - at, begun_ms = clock_mono_ms(clock_system());
    size_t bytes = left < FILL_BYTES ? (size_t)left : FILL_BYTES;
    bool failed = write_zeros(m, fd, at, bytes) < 0 || m->files->datasync(m->files->ctx, fd) < 0;
    if (failed) /* what is not filled is only slower; whether the disk can be written to, the writer finds out
                 */
        log_warn("cannot fill the next log segment path=%s error=\"%s\"", m->options->dir, strerror(errno));
    uint64_t took_ms = clock_mono_ms(clock_system()) - begun_ms;
    pthread_mutex_lock(&m->lock);
    p->busy = false;
    p->filled = failed ? m->options->segment_bytes : at + bytes;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return took_ms * FILL_REST_TIMES > FILL_REST_MS_MIN ? took_ms * FILL_REST_TIMES : FILL_REST_MS_MIN;
}

/* --- the thread --- */

static struct place *find_place(struct maker *m, enum place_state state)
{
    for (unsigned i = 0; i < m->place_count; i++)
        if (m->places[i].state == state)
            return &m->places[i];
    return NULL;
}

static struct place *find_unfilled(struct maker *m)
{
    for (unsigned i = 0; i < m->place_count; i++)
        if (m->places[i].state == READY && m->places[i].filled < m->options->segment_bytes)
            return &m->places[i];
    return NULL;
}

static unsigned count_taken(const struct maker *m)
{
    unsigned count = 0;
    for (unsigned i = 0; i < m->place_count; i++)
        count += m->places[i].state != EMPTY;
    return count;
}

static bool is_wanted(const struct maker *m)
{
    if (m->retry_ms > 0) /* is there room again? */
        return count_taken(m) == 0 && retry_ms(m) == 0;
    return count_taken(m) < m->wanted && !m->refused;
}

/* Until something changes, but no longer than `ms`. Under the lock. */
static void rest(struct maker *m, uint64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms % 1000 * 1000000u;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_cond_timedwait(&m->changed, &m->lock, &until);
}

/* One piece of work; the lock is held before and after. Returns how long to rest. */
static uint64_t make_or_fill(struct maker *m)
{
    struct place *p = find_place(m, OLD);
    bool old = p != NULL;
    if (!p && is_wanted(m))
        p = find_place(m, EMPTY);
    if (p) {
        p->state = MAKING;
        pthread_mutex_unlock(&m->lock);
        make_ready(m, (unsigned)(p - m->places), old);
        pthread_mutex_lock(&m->lock);
        return 0;
    }
    p = find_unfilled(m);
    if (!p) {
        uint64_t ms = retry_ms(m);
        return ms > 0 ? ms : SPACE_RETRY_MS; /* it is another's turn to try: a file is ready, or being made */
    }
    p->busy = true;
    int fd = p->fd;
    uint64_t at = p->filled;
    pthread_mutex_unlock(&m->lock);
    uint64_t ms = fill_some(m, p, fd, at);
    pthread_mutex_lock(&m->lock);
    return ms;
}

/* The disk: what is left of it is looked at now and then, and the ballast goes as soon as there is nothing.
 */
static void look_at_space(struct maker *m)
{
    uint64_t now_ms = clock_mono_ms(clock_system());
    bool full = m->retry_ms > 0;
    if (now_ms < m->look_at_ms && !(full && m->space.ballast_held))
        return;
    m->look_at_ms = now_ms + SPACE_LOOK_MS;
    pthread_mutex_unlock(&m->lock);
    if (full)
        space_give_ballast(&m->space);
    space_look(&m->space, full);
    pthread_mutex_lock(&m->lock);
}

static uint64_t work(struct maker *m)
{
    look_at_space(m);
    uint64_t ms = make_or_fill(m);
    return ms < SPACE_LOOK_MS ? ms : SPACE_LOOK_MS;
}

static void *maker_main(void *arg)
{
    struct maker *m = arg;
    /* Of this thread alone, on Linux. Refused or not, the work is done. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
    pthread_mutex_lock(&m->lock);
    while (!m->stopping) {
        uint64_t ms = work(m);
        if (ms > 0 && !m->stopping)
            rest(m, ms);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

enum status maker_start(struct maker *m)
{
    m->started = pthread_create(&m->thread, NULL, maker_main, m) == 0;
    return m->started ? ST_OK : ST_NO_MEMORY;
}

void maker_stop(struct maker *m)
{
    if (!m || !m->started)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    m->started = false;
}

/* --- the writer's side --- */

/* The place whose file is handed over, now the caller's; NULL: none is ready. The filled one before others.
 */
static struct place *claim(struct maker *m, int *fd, uint32_t *life)
{
    struct place *best = NULL;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->place_count; i++) {
        struct place *p = &m->places[i];
        if (p->state == READY && (!best || p->filled > best->filled))
            best = p;
    }
    while (best && best->busy)
        pthread_cond_wait(&m->changed, &m->lock);
    if (best) {
        best->state = MAKING; /* nobody's but ours */
        *fd = best->fd;
        *life = best->life;
    }
    pthread_mutex_unlock(&m->lock);
    return best;
}

static void leave(struct maker *m, struct place *p)
{
    pthread_mutex_lock(&m->lock);
    p->state = EMPTY;
    p->fd = -1;
    m->refused = false; /* one more try for the next one */
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

enum status maker_take(struct maker *m, const char *path, uint64_t bytes, struct made_file *out)
{
    char ahead[PATH_MAX];
    struct made_file made = {.fd = -1};
    struct place *p = bytes == m->options->segment_bytes ? claim(m, &made.fd, &made.life) : NULL;
    if (p) {
        ahead_path(m->options->dir, (unsigned)(p - m->places), ahead);
        int rc = m->files->rename(m->files->ctx, ahead, path), error = errno;
        leave(m, p);
        if (rc == 0) {
            made.ahead = true;
            *out = made;
            return ST_OK;
        }
        close(made.fd);
        errno = error;
        return ST_IO;
    }
    uint64_t wait_ms = maker_retry_ms(m);
    if (wait_ms != UINT64_MAX && (wait_ms > 0 || bytes == m->options->segment_bytes))
        return ST_AGAIN; /* the thread is the one that finds room, behind the ballast's */
    if (atomic_load_explicit(&m->space.ballast_given, memory_order_relaxed)) {
        maker_note_full(m, path);
        return ST_AGAIN;
    }
    made.fd = make_file(m, path, bytes);
    if (made.fd < 0 && is_full(errno)) {
        maker_note_full(m, path);
        return ST_AGAIN;
    }
    if (made.fd < 0)
        return ST_IO;
    note_room(m);
    *out = made;
    return ST_OK;
}

void maker_want(struct maker *m, unsigned count)
{
    pthread_mutex_lock(&m->lock);
    bool more = count > m->wanted;
    m->wanted = count < m->place_count ? count : m->place_count;
    if (more)
        pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

/* --- the reader's side --- */

bool maker_offer(struct maker *m, const char *path)
{
    char ahead[PATH_MAX];
    pthread_mutex_lock(&m->lock);
    struct place *p = m->stopping ? NULL : find_place(m, EMPTY);
    if (p)
        p->state = MAKING;
    pthread_mutex_unlock(&m->lock);
    if (!p)
        return false;
    ahead_path(m->options->dir, (unsigned)(p - m->places), ahead);
    bool taken = m->files->rename(m->files->ctx, path, ahead) == 0;
    pthread_mutex_lock(&m->lock);
    p->state = taken ? OLD : EMPTY;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return taken;
}

/* --- life --- */

void maker_remove_left(const struct store_files *files, const char *dir)
{
    char path[PATH_MAX];
    for (unsigned i = 0; i < MAKER_FILES_MAX; i++) {
        ahead_path(dir, i, path);
        files->unlink(files->ctx, path);
    }
}

enum status maker_create(const struct store_options *options, const struct store_files *files,
                         atomic_bool *disk_full, atomic_bool *disk_refuse, struct maker **out)
{
    struct maker *m = calloc(1, sizeof *m);
    pthread_condattr_t monotonic;
    if (!m)
        return ST_NO_MEMORY;
    m->options = options;
    m->files = files;
    m->disk_full = disk_full;
    m->metrics = metrics_register();
    space_init(&m->space, options, files, m->metrics, disk_refuse);
    m->place_count = options->lane_count < MAKER_FILES_MAX ? options->lane_count : MAKER_FILES_MAX;
    for (unsigned i = 0; i < MAKER_FILES_MAX; i++)
        m->places[i].fd = -1;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = m;
    return ST_OK;
}

void maker_destroy(struct maker *m)
{
    if (!m)
        return;
    space_deinit(&m->space);
    metric_sub(m->metrics, M_LOG_DISK_FULL, m->retry_ms > 0);
    for (unsigned i = 0; i < m->place_count; i++)
        if (m->places[i].fd >= 0)
            close(m->places[i].fd);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    free(m);
}
