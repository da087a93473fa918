/* Group commit. There is no timer in the way of a waiting frame: the sync that is running is the window
 * in which the next batch gathers.
 *
 *   take all letters -> for each lane: pwritev its run -> fdatasync each file that has waiters
 *                    -> move durable_next of those lanes -> one letter a loop -> drop the frames
 *
 * A lane without waiters is synced when a quarter of what may be unsynced has gathered, or after a second. In
 * mode "interval" nobody waits for a sync: told is what is written, and what is dirty is synced when it is
 * due. When a frame begins a new segment the old file is cut to its length and synced at once, so at most one
 * file of a lane is ever unsynced, and everything in older ones is durable.
 *
 * Any error is final: after a failed sync the kernel may have marked the pages clean, and a second sync
 * would succeed without having written them. The process ends and recovery reads what is really there.
 *
 * But one: a disk without room for the next segment. Nothing has been written to it, so nothing is in doubt.
 * The lane stalls: what was appended waits in memory (unanswered), loops refuse more, and the file is tried
 * again until there is room; so does one whose START finds no room. Mostly it does not come to that, because
 * the file is made ahead (maker.c): when that fails, loops are told (disk_full) and fill the segment that
 * they have to its end. */
#include "core/store/writer.h"

#include "core/logging.h"
#include "core/pool.h"
#include "core/store/completion.h"
#include "core/store/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RUN_IOVECS = 512,
    SYNC_AFTER_MS = 1000, /* of what nobody waits for */
    EXIT_RETRY = 75, /* sysexits' EX_TEMPFAIL: the supervisor starts us again */
    RECORDS_UNSYNCED_SYNC = STORE_OFFSET_JUMP / 4,
    STALL_MS = 100, /* how often a lane without room asks the maker */
    ONSET_RETRY_MS = 500,
};

struct writer_lane {
    struct lane *lane;
    char folder[PATH_MAX];
    int fd; /* of `segment`; -1: none yet */
    struct segment *segment; /* a reference */
    struct segment_header header; /* as it goes into the file */
    uint64_t end; /* of what has been written to it */
    uint64_t written_next;
    bool dirty; /* written since the last sync */
    uint64_t dirty_bytes, dirty_records, dirty_since_ms;
    bool stalled; /* no room for its next segment; first is the first frame of that one */
    bool unbound; /* stalled since before it had a loop: tried again when it has one */
    struct mail bound; /* it has */
    struct frame *first, *last; /* to be written: of this turn, and older ones of a lane that stalls */
    /* this turn */
    struct frame *unwritten; /* from here on none has been */
    bool touched;
    bool wait, start;
    struct writer_lane *touched_next;
};

struct writer {
    const struct store_options *options;
    const struct store_files *files;
    struct mailbox box;
    struct mail stop;
    pthread_t thread;
    struct metrics *metrics;
    struct writer_lane *lanes;
    unsigned lane_count;
    struct completion *completions;
    struct maker *maker;
    struct onset *onset;
    uint64_t onset_at_ms; /* when it is tried again */
    unsigned wanted; /* as the maker was told */
    bool stopping;
    bool complete; /* the thread has written everything */
    bool lost; /* and what it has not are messages too */
    bool quiet; /* nothing came for SYNC_AFTER_MS */
    struct writer_lane *touched;
    _Atomic uint64_t busy_since_ms; /* of the turn that is going on; 0: none is */
    char failure[PATH_MAX + 256];
};

/* --- failure --- */

static enum status fail(struct writer *w, const char *what, const char *path)
{
    bool full = errno == ENOSPC || errno == EDQUOT;
    snprintf(w->failure, sizeof w->failure, "cannot %s: path=%s error=\"%s\"; %s", what, path,
             strerror(errno),
             full ? "make room on this disk or move data.dir, then start again"
                  : "what was acknowledged is kept; check the disk, then start again");
    return full ? ST_NO_SPACE : ST_IO;
}

const char *writer_failure(const struct writer *w)
{
    return w->failure;
}

static const char *file_path(const struct writer_lane *wl, const struct segment *s, char out[PATH_MAX])
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(s->header.base_offset, "seg", name);
    /* writer_create has refused folders that leave no room for it. */
    int len = snprintf(out, PATH_MAX, "%s/%s", wl->folder, name);
    assert(len < PATH_MAX);
    return out;
}

/* --- segments --- */

static void publish_durable(struct writer_lane *wl)
{
    /* Release: the sync (or only the write, unless syncs are for "always") comes before it. */
    atomic_store_explicit(&wl->lane->durable_next, wl->written_next, memory_order_release);
}

static enum status sync_lane(struct writer *w, struct writer_lane *wl)
{
    char path[PATH_MAX];
    uint64_t begun = clock_mono_ns(w->options->clock);
    if (w->files->datasync(w->files->ctx, wl->fd) < 0)
        return fail(w, "sync the log", file_path(wl, wl->segment, path));
    histogram_record(w->metrics, H_SYNC_SECONDS, clock_mono_ns(w->options->clock) - begun);
    histogram_record(w->metrics, H_BATCH_RECORDS, wl->dirty_records);
    metric_add(w->metrics, M_LOG_SYNCS, 1);
    wl->dirty = false;
    wl->dirty_bytes = wl->dirty_records = 0;
    publish_durable(wl);
    atomic_store_explicit(&wl->lane->synced_next, wl->written_next, memory_order_release);
    return ST_OK;
}

/* The file is complete: it ends where the log ends, and all of it is on disk. */
static enum status seal(struct writer *w, struct writer_lane *wl)
{
    char path[PATH_MAX];
    if (wl->fd < 0)
        return ST_OK;
    if (w->files->truncate(w->files->ctx, wl->fd, (off_t)wl->end) < 0)
        return fail(w, "cut a log segment to its length", file_path(wl, wl->segment, path));
    enum status st = sync_lane(w, wl);
    if (st != ST_OK)
        return st;
    close(wl->fd);
    wl->fd = -1;
    segment_unref(wl->segment);
    wl->segment = NULL;
    /* Release; the reader's acquire: it may now write the index. */
    atomic_store_explicit(&wl->lane->sealed_next, wl->written_next, memory_order_release);
    return ST_OK;
}

/* What a start writes before anything else. ST_AGAIN: no room for that. */
static enum status begin(struct writer *w)
{
    uint64_t now_ms = clock_mono_ms(w->options->clock);
    if (onset_done(w->onset))
        return ST_OK;
    if (now_ms < w->onset_at_ms)
        return ST_AGAIN;
    w->onset_at_ms = now_ms + ONSET_RETRY_MS;
    enum status st = onset_try(w->onset);
    if (st == ST_AGAIN)
        maker_note_full(w->maker, w->onset->where);
    return st == ST_OK || st == ST_AGAIN ? st : fail(w, "begin the log", w->onset->where);
}

/* ST_AGAIN: no room on the disk, nothing has changed but that the segment before is sealed. */
static enum status begin_segment(struct writer *w, struct writer_lane *wl, struct segment *s)
{
    enum status st = seal(w, wl);
    char path[PATH_MAX];
    struct made_file made;
    if (st == ST_OK)
        st = begin(w);
    if (st != ST_OK)
        return st;
    st = maker_take(w->maker, file_path(wl, s, path), s->file_bytes, &made);
    if (st == ST_AGAIN)
        return st;
    if (st != ST_OK)
        return fail(w, "make a log segment", path);
    metric_add(w->metrics,
               made.life > 0 ? M_LOG_SEGMENTS_REUSED
               : made.ahead  ? M_LOG_SEGMENTS_AHEAD
                             : M_LOG_SEGMENTS_LATE,
               1);
    wl->fd = made.fd;
    wl->header = segment_header_of(s, made.life);
    wl->segment = segment_ref(s);
    wl->end = 0;
    /* The name must be durable before anything in the file is acknowledged. */
    if (files_sync_folder(w->files, wl->folder) < 0)
        return fail(w, "sync a log folder", wl->folder);
    return ST_OK;
}

/* Half of a segment is time enough to make the next one. */
static void want_ahead(struct writer *w)
{
    unsigned wanted = 0;
    for (unsigned i = 0; i < w->lane_count; i++)
        wanted += w->lanes[i].fd >= 0 && w->lanes[i].end > w->lanes[i].segment->file_bytes / 2;
    if (wanted != w->wanted)
        maker_want(w->maker, wanted);
    w->wanted = wanted;
}

/* --- writing --- */

/* Writes frames of one segment from `f` on; returns the first that it did not, by *rest. */
static enum status write_run(struct writer *w, struct writer_lane *wl, struct frame *f, struct frame **rest)
{
    struct iovec iov[RUN_IOVECS + 1];
    char path[PATH_MAX];
    int count = 0;
    uint64_t at = wl->end, bytes = 0, records = 0;
    if (at == 0) { /* the header goes with the first frame */
        iov[count++] = (struct iovec){&wl->header, sizeof wl->header};
        bytes = sizeof wl->header;
    }
    uint64_t next = wl->written_next;
    for (; f && f->segment == wl->segment && count <= RUN_IOVECS; f = f->next) {
        assert(f->position == at + bytes); /* the lane computed it, FIFO kept it */
        iov[count++] = (struct iovec){f->bytes, f->len};
        bytes += f->len;
        records += f->record_count;
        wl->wait |= f->wait;
        wl->start |= f->control && f->wait;
        next = frame_next_offset(f);
    }
    *rest = f;
    if (files_write_all(w->files, wl->fd, iov, count, (off_t)at) < 0)
        return fail(w, "write the log", file_path(wl, wl->segment, path));
    wl->end = at + bytes;
    wl->written_next = next;
    if (!wl->dirty)
        wl->dirty_since_ms = clock_mono_ms(w->options->clock);
    wl->dirty = true;
    wl->dirty_bytes += bytes;
    wl->dirty_records += records;
    return ST_OK;
}

static enum status write_lane(struct writer *w, struct writer_lane *wl)
{
    enum status st = ST_OK;
    struct frame *f = wl->first;
    while (f && st == ST_OK) {
        if (f->segment != wl->segment)
            st = begin_segment(w, wl, f->segment);
        if (st == ST_OK)
            st = write_run(w, wl, f, &f);
    }
    wl->unwritten = f;
    if (wl->stalled != (st == ST_AGAIN)) {
        wl->stalled = st == ST_AGAIN;
        atomic_store_explicit(&wl->lane->stalled, wl->stalled, memory_order_relaxed);
    }
    /* Release; the reader's acquire: these frames can be read from the file. */
    atomic_store_explicit(&wl->lane->written_next, wl->written_next, memory_order_release);
    return st == ST_AGAIN ? ST_OK : st;
}

static bool needs_sync(const struct writer *w, const struct writer_lane *wl)
{
    if (!wl->dirty)
        return false;
    if (w->stopping || wl->start || wl->dirty_records >= RECORDS_UNSYNCED_SYNC)
        return true;
    uint64_t dirty_ms = clock_mono_ms(w->options->clock) - wl->dirty_since_ms;
    if (w->options->sync == STORE_SYNC_INTERVAL)
        return dirty_ms >= w->options->sync_interval_ms;
    if (w->options->sync == STORE_SYNC_NEVER)
        return false;
    return wl->wait || w->quiet || wl->dirty_bytes >= w->options->unsynced_bytes_max / 4 ||
           dirty_ms >= SYNC_AFTER_MS;
}

/* --- telling the loops --- */

/* One letter a loop, however many of its lanes moved; none when the last one is still unread. */
static void tell_loops(struct writer *w)
{
    for (struct writer_lane *wl = w->touched; wl; wl = wl->touched_next) {
        if (wl->lane->completion)
            completion_post(wl->lane->completion);
    }
}

static void tell_written(struct writer *w)
{
    for (struct writer_lane *wl = w->touched; wl; wl = wl->touched_next)
        publish_durable(wl);
    tell_loops(w);
}

/* --- a turn --- */

static void touch(struct writer *w, struct writer_lane *wl)
{
    if (wl->touched)
        return;
    wl->touched = true;
    wl->touched_next = w->touched;
    w->touched = wl;
}

static void on_bound(struct mail *mail)
{
    LIST_OF(mail, struct writer_lane, bound)->unbound = false;
}

/* Sorts letters by lane, keeping each lane's order. */
static void take_letters(struct writer *w)
{
    w->touched = NULL;
    for (unsigned i = 0; i < w->lane_count; i++) {
        w->lanes[i].touched = false;
        if (w->lanes[i].stalled && !w->lanes[i].unbound)
            touch(w, &w->lanes[i]);
    }
    for (struct mail *mail = mailbox_take(&w->box), *next; mail; mail = next) {
        next = mail->next;
        if (mail == &w->stop) {
            w->stopping = true;
            continue;
        }
        if (mail->on_arrival == on_bound) {
            mail->on_arrival(mail);
            continue;
        }
        struct frame *f = LIST_OF(mail, struct frame, to_writer);
        struct writer_lane *wl = &w->lanes[f->lane->index];
        f->next = NULL;
        if (wl->first)
            wl->last->next = f;
        else
            wl->first = f;
        wl->last = f;
        touch(w, wl);
    }
}

static void drop_frames(struct writer_lane *wl, const struct frame *end)
{
    while (wl->first != end) {
        struct frame *f = wl->first;
        wl->first = f->next;
        frame_unref(f);
    }
    if (!wl->first)
        wl->last = NULL;
    wl->unwritten = NULL;
    wl->wait = wl->start = false;
}

enum status writer_turn(struct writer *w)
{
    enum status st = ST_OK;
    take_letters(w);
    for (struct writer_lane *wl = w->touched; wl && st == ST_OK; wl = wl->touched_next)
        st = write_lane(w, wl);
    if (w->options->sync != STORE_SYNC_ALWAYS && st == ST_OK)
        tell_written(w); /* before the syncs, which nobody is to wait for */
    for (unsigned i = 0; i < w->lane_count && st == ST_OK; i++) {
        struct writer_lane *wl = &w->lanes[i];
        if (!needs_sync(w, wl))
            continue;
        touch(w, wl);
        st = sync_lane(w, wl);
    }
    if (st == ST_OK && w->options->sync == STORE_SYNC_ALWAYS)
        tell_loops(w);
    for (struct writer_lane *wl = w->touched; wl; wl = wl->touched_next)
        drop_frames(wl, wl->unwritten);
    w->quiet = false;
    if (st == ST_OK && !w->stopping)
        want_ahead(w);
    return st;
}

/* --- the thread --- */

/* Until the lane's sync is due; -1: none is. */
static int sync_due_ms(const struct writer *w, const struct writer_lane *wl)
{
    if (!wl->dirty || w->options->sync == STORE_SYNC_NEVER)
        return -1;
    if (w->options->sync == STORE_SYNC_ALWAYS)
        return SYNC_AFTER_MS;
    uint64_t dirty_ms = clock_mono_ms(w->options->clock) - wl->dirty_since_ms;
    return dirty_ms < w->options->sync_interval_ms ? (int)(w->options->sync_interval_ms - dirty_ms) : 0;
}

static int wait_ms(const struct writer *w)
{
    int least = -1;
    for (unsigned i = 0; i < w->lane_count; i++) {
        bool waits = w->lanes[i].stalled && !w->lanes[i].unbound;
        int ms = waits ? STALL_MS : sync_due_ms(w, &w->lanes[i]);
        if (ms >= 0 && (least < 0 || ms < least))
            least = ms;
    }
    return least;
}

static void wait_for_letters(struct writer *w)
{
    if (!mailbox_sleep(&w->box))
        return;
    struct pollfd pfd = {.fd = w->box.wake_fd, .events = POLLIN};
    w->quiet = poll(&pfd, 1, wait_ms(w)) == 0;
    mailbox_awake(&w->box);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    enum status st = ST_OK;
    (void)pthread_setname_np(pthread_self(), "log writer");
    while (st == ST_OK && !w->stopping) {
        wait_for_letters(w);
        atomic_store_explicit(&w->busy_since_ms, clock_mono_ms(w->options->clock), memory_order_relaxed);
        st = writer_turn(w);
        atomic_store_explicit(&w->busy_since_ms, 0, memory_order_relaxed);
    }
    w->complete = true;
    for (unsigned i = 0; i < w->lane_count && st == ST_OK; i++) {
        st = seal(w, &w->lanes[i]);
        w->complete &= !w->lanes[i].stalled;
        for (const struct frame *f = w->lanes[i].first; f; f = f->next)
            w->lost |= !f->control;
    }
    if (st != ST_OK) {
        log_error("%s", w->failure);
        _exit(EXIT_RETRY);
    }
    pool_drain();
    return NULL;
}

uint64_t writer_busy_ms(const struct writer *w)
{
    uint64_t since_ms = atomic_load_explicit(&w->busy_since_ms, memory_order_relaxed);
    uint64_t now_ms = clock_mono_ms(w->options->clock);
    return since_ms && now_ms > since_ms ? now_ms - since_ms : 0;
}

enum status writer_start(struct writer *w)
{
    for (unsigned i = 0; i < w->lane_count; i++)
        w->lanes[i].unbound = w->lanes[i].stalled;
    return pthread_create(&w->thread, NULL, writer_main, w) == 0 ? ST_OK : ST_NO_MEMORY;
}

bool writer_stop(struct writer *w, bool *lost)
{
    mailbox_post(&w->box, &w->stop);
    pthread_join(w->thread, NULL);
    *lost = w->lost;
    return w->complete;
}

void writer_post(struct writer *w, struct frame *f)
{
    mailbox_post(&w->box, &f->to_writer);
}

/* --- life --- */

enum status writer_create(const struct store_options *options, const struct store_files *files,
                          struct lane *lanes, struct maker *maker, struct onset *onset, struct writer **out)
{
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        return ST_NO_MEMORY;
    enum status st = ST_NO_MEMORY;
    w->options = options;
    w->files = files;
    w->maker = maker;
    w->onset = onset;
    w->lane_count = options->lane_count;
    w->lanes = calloc(w->lane_count, sizeof *w->lanes);
    if (!w->lanes)
        goto fail_writer;
    for (unsigned i = 0; i < w->lane_count; i++) {
        struct writer_lane *wl = &w->lanes[i];
        wl->lane = &lanes[i];
        wl->fd = -1;
        int len = snprintf(wl->folder, sizeof wl->folder, "%s/%u", options->dir, i);
        st = ST_TOO_LARGE;
        if (len + SEGMENT_NAME_BYTES + 1 >= PATH_MAX)
            goto fail_lanes;
    }
    w->metrics = metrics_register();
    st = mailbox_open(&w->box);
    if (st != ST_OK)
        goto fail_lanes;
    *out = w;
    return ST_OK;

fail_lanes:
    free(w->lanes);
fail_writer:
    free(w);
    return st;
}

void writer_destroy(struct writer *w)
{
    if (!w)
        return;
    completions_release(w->completions);
    for (unsigned i = 0; i < w->lane_count; i++) {
        drop_frames(&w->lanes[i], NULL); /* of a lane that stalled to the end */
        if (w->lanes[i].fd >= 0)
            close(w->lanes[i].fd);
        segment_unref(w->lanes[i].segment);
    }
    free(w->lanes);
    /* Only after a start that failed half way. */
    for (struct mail *mail = mailbox_take(&w->box), *next; mail; mail = next) {
        next = mail->next;
        frame_unref(LIST_OF(mail, struct frame, to_writer));
    }
    mailbox_close(&w->box);
    free(w);
}

void writer_bind(struct writer *w, struct lane *l, struct loop *loop)
{
    struct writer_lane *wl = &w->lanes[l->index];
    completion_bind(&w->completions, l, loop);
    /* Relaxed: only a start sets it before this. */
    if (!atomic_load_explicit(&l->stalled, memory_order_relaxed))
        return;
    wl->bound.on_arrival = on_bound;
    mailbox_post(&w->box, &wl->bound);
}
