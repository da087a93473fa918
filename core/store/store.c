/* Opening and closing; all work is done by the parts:
 *
 *     lane.c (loops) --frames--> writer.c (thread) --durable--> lane.c
 *            \-------frames, reads--> reader.c (thread) --answers--> loops
 *     maker.c (thread) --the next files--> writer.c;   reader.c --files that retention removes--> maker.c
 *     recovery.c, manifest.c, onset.c: before the threads exist; on a full disk the writer ends what onset.c
 * began */
#include "core/store/store.h"

#include "core/crew.h"
#include "core/logging.h"
#include "core/store/folder.h"
#include "core/store/maker.h"
#include "core/store/manifest.h"
#include "core/store/onset.h"
#include "core/store/reader.h"
#include "core/store/recent.h"
#include "core/store/recovery.h"
#include "core/store/snapshot.h"
#include "core/store/store_mirror.h"
#include "core/store/writer.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    FRAME_POOL_BYTES = 16 << 20,
    SEAL_MS_MAX = 20000,
    SEAL_POLL_US = 1000,
    ERROR_BYTES_MAX = 4096,
};
#define SEGMENT_BYTES_MAX ((uint64_t)4 << 30)

struct store {
    struct store_options options; /* dir is ours */
    const struct store_files *files;
    int lock_fd;
    struct metrics *metrics; /* of start-up */
    struct manifest manifest;
    struct onset onset;
    struct lane_env env;
    struct lane *lanes;
    struct shelf shelves[STORE_LANES_MAX];
    char *folders[STORE_LANES_MAX];
    struct voids *voids[STORE_LANES_MAX]; /* of a mirror */
};

static enum status refuse(struct buf *error, enum status st, const char *where, const char *what)
{
    if (buf_printf(error, "%s: %s", where, what) != ST_OK)
        buf_clear(error);
    return st;
}

/* --- opening: folder, lock, manifest --- */

static enum status check_options(const struct store_options *o, struct buf *error)
{
    if (o->lane_count < 1 || o->lane_count > STORE_LANES_MAX)
        return refuse(error, ST_INVALID, o->dir, "the number of lanes must be 1 to 64");
    if (o->segment_bytes < STORE_SEGMENT_BYTES_MIN || o->segment_bytes > SEGMENT_BYTES_MAX)
        return refuse(error, ST_INVALID, o->dir, "a segment must have 64 KiB to 4 GiB");
    if (o->sync == STORE_SYNC_INTERVAL && o->sync_interval_ms == 0)
        return refuse(error, ST_INVALID, o->dir, "the interval of syncs must be at least 1 ms");
    if (o->voids_max > VOIDS_MAX)
        return refuse(error, ST_INVALID, o->dir, "too many void records are to be remembered");
    if (!o->mirror_epoch && mirror_is_here(o->dir))
        return refuse(error, ST_INVALID, o->dir,
                      "this folder holds a mirror of a log that is kept elsewhere; give this one a folder of "
                      "its own (data.dir), or set log.backend to what it was");
    if (strlen(o->dir) > PATH_MAX - 64)
        return refuse(error, ST_INVALID, o->dir, "the path is too long");
    return ST_OK;
}

static enum status make_top_folder(const struct store *s, struct buf *error)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s/..", s->options.dir);
    return folder_make(s->files, s->options.dir, parent, error);
}

static enum status load_manifest(struct store *s, struct buf *error)
{
    struct manifest *m = &s->manifest;
    enum status st = manifest_read(s->options.dir, m);
    if (st == ST_NOT_FOUND) {
        *m = (struct manifest){.lane_count = s->options.lane_count, .stopped = true};
        m->epoch = s->options.mirror_epoch;
        while (m->epoch == 0) {
            if (getrandom(&m->epoch, sizeof m->epoch, 0) != (ssize_t)sizeof m->epoch)
                return folder_refuse(error, s->options.dir, "get random numbers");
        }
        return ST_OK;
    }
    if (st == ST_CORRUPT)
        return refuse(error, st, s->options.dir, "MANIFEST is damaged; restore it from a backup");
    if (st == ST_UNSUPPORTED)
        return refuse(error, st, s->options.dir, "a newer version wrote this log; start that version");
    if (st == ST_OK && m->snapshot)
        return refuse(error, ST_INVALID, s->options.dir,
                      "this is a snapshot, and served it would give positions twice; "
                      "tidegate log restore makes a log of it");
    if (st != ST_OK)
        return folder_refuse(error, s->options.dir, "read MANIFEST");
    if (s->options.mirror_epoch && m->epoch != s->options.mirror_epoch)
        return refuse(error, ST_CORRUPT, s->options.dir, "the log is of another epoch than its mirror says");
    if (m->lane_count != s->options.lane_count) {
        char what[128];
        snprintf(what, sizeof what,
                 "this log has %u lanes and the configuration says %u; set log.partitions to %u",
                 m->lane_count, s->options.lane_count, m->lane_count);
        return refuse(error, ST_INVALID, s->options.dir, what);
    }
    return ST_OK;
}

/* --- opening: lanes --- */

struct lane_recovery {
    struct recovery r;
    enum status status;
    struct buf error;
};

struct recoveries {
    struct store *store;
    struct lane_recovery lanes[STORE_LANES_MAX];
};

static enum status make_lane_folder(struct store *s, unsigned i, struct buf *error)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s/%u", s->options.dir, i);
    s->folders[i] = strdup(folder);
    if (!s->folders[i])
        return refuse(error, ST_NO_MEMORY, folder, "no memory");
    if (s->options.mirror_epoch && voids_create(s->options.voids_max, &s->voids[i]) != ST_OK)
        return refuse(error, ST_NO_MEMORY, folder, "no memory");
    s->shelves[i] =
        (struct shelf){.lane = i, .folder = s->folders[i], .files = s->files, .voids = s->voids[i]};
    /* Without memory reads by filters look at every record. */
    if (s->options.names_bytes > 0 &&
        vocabulary_create(s->options.names_bytes, &s->shelves[i].words) != ST_OK)
        s->shelves[i].words = NULL;
    return folder_make(s->files, folder, s->options.dir, error);
}

/* One lane; several at once. */
static void recover_lane(void *ctx, unsigned worker, uint32_t i)
{
    struct recoveries *all = ctx;
    struct lane_recovery *l = &all->lanes[i];
    (void)worker;
    l->status = recovery_run(&all->store->shelves[i], &l->r, &l->error);
}

static void take_recovered(struct store *s, unsigned i, const struct recovery *r)
{
    metric_add(s->metrics, M_LOG_TORN_BYTES, r->torn_bytes);
    if (r->torn_bytes > 0)
        log_warn("cut a torn end off the log lane=%u bytes=%llu next=%llu", i,
                 (unsigned long long)r->torn_bytes, (unsigned long long)r->end);
    uint64_t next = r->end;
    if (!s->manifest.stopped && !s->options.mirror_epoch) {
        next = s->manifest.lanes[i].next > next ? s->manifest.lanes[i].next : next;
        next += STORE_OFFSET_JUMP;
    }
    s->manifest.lanes[i].end = r->end;
    s->manifest.lanes[i].next = next;
    /* `first` stays what the MANIFEST says, also when the file that held it is not there: only a trim moves
     * it. So what lies between is answered as damaged, not passed over as if it had never been. */
}

static enum status recover_lanes(struct store *s, struct buf *error)
{
    struct recoveries *all = calloc(1, sizeof *all);
    if (!all)
        return refuse(error, ST_NO_MEMORY, s->options.dir, "no memory");
    all->store = s;
    enum status st = ST_OK;
    unsigned count = s->options.lane_count, threads = s->options.recovery_threads;
    threads = threads == 0 ? crew_cpus() : threads > CREW_MAX ? (unsigned)CREW_MAX : threads;
    for (unsigned i = 0; i < count && st == ST_OK; i++) {
        all->lanes[i].r = (struct recovery){.log_epoch = s->manifest.epoch,
                                            .first = s->manifest.lanes[i].first,
                                            .synced_below = s->manifest.lanes[i].end,
                                            .mirror = s->options.mirror_epoch != 0,
                                            .threads = threads > count ? threads / count : 1};
        buf_init(&all->lanes[i].error, ERROR_BYTES_MAX);
        st = make_lane_folder(s, i, error);
    }
    if (st == ST_OK)
        crew_run(threads < count ? threads : count, count, recover_lane, all);
    for (unsigned i = 0; i < count && st == ST_OK; i++) {
        st = all->lanes[i].status;
        if (st == ST_OK)
            take_recovered(s, i, &all->lanes[i].r);
        else if (buf_put(error, buf_slice(&all->lanes[i].error)) != ST_OK)
            buf_clear(error); /* only a line for people */
    }
    for (unsigned i = 0; i < count; i++)
        buf_deinit(&all->lanes[i].error);
    free(all);
    return st;
}

/* START in every lane, durable; or, on a full disk, with the writer. */
static enum status begin_lanes(struct store *s, bool after_clean_stop, struct buf *error)
{
    for (unsigned i = 0; i < s->options.lane_count; i++) {
        const struct shelf *shelf = &s->shelves[i];
        lane_init(&s->lanes[i], &s->env, i);
        s->lanes[i].voids = s->voids[i];
        if (s->options.mirror_epoch && shelf->count > 0)
            s->lanes[i].last_time_ms = shelf->volumes[shelf->count - 1]->last_time_ms;
        atomic_init(&s->lanes[i].first, s->manifest.lanes[i].first);
    }
    for (unsigned i = 0; i < s->options.lane_count; i++) {
        if (lane_begin(&s->lanes[i], s->manifest.lanes[i].next, s->manifest.lanes[i].end, after_clean_stop) !=
            ST_OK)
            return refuse(error, ST_NO_MEMORY, s->options.dir, "no memory");
    }
    enum status st = writer_turn(s->env.writer);
    if (st != ST_OK)
        return refuse(error, st, s->options.dir, writer_failure(s->env.writer));
    for (unsigned i = 0; i < s->options.lane_count; i++) {
        lane_settle(&s->lanes[i]);
        lane_hand_over(&s->lanes[i]);
    }
    return ST_OK;
}

static enum status start_threads(struct store *s, struct buf *error)
{
    if (maker_start(s->env.maker) != ST_OK)
        goto fail;
    if (reader_start(s->env.reader) != ST_OK)
        goto fail_maker;
    if (writer_start(s->env.writer) != ST_OK)
        goto fail_reader;
    return ST_OK;

fail_reader:
    reader_stop(s->env.reader);
fail_maker:
    maker_stop(s->env.maker);
fail:
    return refuse(error, ST_NO_MEMORY, s->options.dir, "cannot start a thread");
}

static void free_store(struct store *s)
{
    writer_destroy(s->env.writer);
    reader_destroy(s->env.reader);
    maker_destroy(s->env.maker);
    onset_deinit(&s->onset);
    for (unsigned i = 0; i < s->options.lane_count; i++) {
        shelf_deinit(&s->shelves[i]);
        free(s->folders[i]);
        voids_destroy(s->voids[i]);
        if (s->lanes && s->lanes[i].env)
            lane_deinit(&s->lanes[i]);
    }
    free(s->lanes);
    frame_pool_deinit(&s->env.pool);
    if (s->lock_fd >= 0)
        close(s->lock_fd); /* also unlocks */
    free((char *)(uintptr_t)s->options.dir);
    free(s);
}

static enum status open_parts(struct store *s, struct buf *error)
{
    size_t lanes_bytes = s->options.lane_count * sizeof *s->lanes;
    s->lanes = aligned_alloc(_Alignof(struct lane), lanes_bytes);
    if (!s->lanes)
        return refuse(error, ST_NO_MEMORY, s->options.dir, "no memory");
    memset(s->lanes, 0, lanes_bytes);
    enum status st =
        maker_create(&s->options, s->files, &s->env.disk_full, &s->env.disk_refuse, &s->env.maker);
    if (st == ST_OK)
        st = writer_create(&s->options, s->files, s->lanes, s->env.maker, &s->onset, &s->env.writer);
    if (st == ST_OK)
        st = reader_create(&s->options, s->lanes, s->shelves, &s->manifest, s->env.maker, &s->env.reader);
    return st == ST_OK ? ST_OK : refuse(error, st, s->options.dir, "no memory or no descriptor left");
}

static enum status open_log(struct store *s, struct buf *error)
{
    enum status st = make_top_folder(s, error);
    if (st == ST_OK)
        st = folder_lock(s->options.dir, &s->lock_fd, error);
    if (st == ST_OK)
        st = load_manifest(s, error);
    if (st != ST_OK)
        return st;
    maker_remove_left(s->files, s->options.dir);
    st = recover_lanes(s, error);
    if (st != ST_OK)
        return st;
    bool after_clean_stop = s->manifest.stopped;
    s->manifest.stopped = false;
    s->env.log_epoch = s->manifest.epoch;
    s->env.incarnation = ++s->manifest.incarnation;
    st = onset_init(&s->onset, s->files, s->options.dir, &s->manifest, s->shelves, s->options.lane_count);
    if (st != ST_OK)
        return refuse(error, st, s->options.dir, "no memory");
    st = open_parts(s, error);
    if (st == ST_OK)
        st = begin_lanes(s, after_clean_stop, error);
    return st == ST_OK ? start_threads(s, error) : st;
}

enum status store_open(const struct store_options *o, struct store **out, struct buf *error)
{
    enum status st = check_options(o, error);
    if (st != ST_OK)
        return st;
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    s->options = *o;
    s->options.dir = strdup(o->dir);
    s->files = o->files ? o->files : store_files_system();
    s->lock_fd = -1;
    s->metrics = metrics_register();
    s->env.options = &s->options;
    s->env.onset = &s->onset;
    frame_pool_init(&s->env.pool, FRAME_POOL_BYTES);
    st = s->options.dir ? open_log(s, error) : ST_NO_MEMORY;
    if (st != ST_OK) {
        free_store(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->options.lane_count; i++)
        lane_finish(&s->lanes[i]);
    bool lost, complete = writer_stop(s->env.writer, &lost);
    reader_stop(s->env.reader);
    maker_stop(s->env.maker);
    if (!complete) {
        if (lost) /* nobody was told that it is kept */
            log_error("the disk is full: the last records that were published are lost path=%s",
                      s->options.dir);
        free_store(s);
        return;
    }
    s->manifest.stopped = true;
    for (unsigned i = 0; i < s->options.lane_count; i++)
        s->manifest.lanes[i].end = s->manifest.lanes[i].next = s->lanes[i].next;
    if (manifest_write(s->files, s->options.dir, &s->manifest) < 0)
        log_error("cannot write the clean-stop mark path=%s/MANIFEST error=\"%s\"; the next start will "
                  "check the log as after a crash",
                  s->options.dir, strerror(errno));
    free_store(s);
}

/* --- the rest is the lanes' --- */

uint32_t store_epoch(const struct store *s)
{
    return s->manifest.epoch;
}

uint64_t store_incarnation(const struct store *s)
{
    return s->env.incarnation;
}

bool store_is_full(const struct store *s)
{
    bool full = atomic_load_explicit(&s->env.disk_full, memory_order_relaxed) ||
                atomic_load_explicit(&s->env.disk_refuse, memory_order_relaxed);
    for (unsigned i = 0; i < s->options.lane_count && !full; i++)
        full = atomic_load_explicit(&s->lanes[i].stalled, memory_order_relaxed);
    return full;
}

unsigned store_lane_count(const struct store *s)
{
    return s->options.lane_count;
}

uint64_t store_busy_ms(const struct store *s)
{
    return writer_busy_ms(s->env.writer);
}

static struct lane *lane_of(const struct store *s, unsigned lane)
{
    assert(lane < s->options.lane_count);
    return &s->lanes[lane];
}

static struct lane *own_lane(const struct store *s, unsigned lane)
{
    struct lane *l = lane_of(s, lane);
    assert(l->loop && loop_is_current(l->loop));
    return l;
}

void store_bind(struct store *s, unsigned lane, struct loop *loop, const struct store_events *events,
                void *ctx, struct metrics *metrics)
{
    struct lane *l = lane_of(s, lane);
    lane_bind(l, loop, events, ctx, metrics);
    writer_bind(s->env.writer, l, loop);
}

enum status store_append(struct store *s, unsigned lane, struct msg *m, bool wait)
{
    return lane_append(own_lane(s, lane), m, wait);
}

enum status store_append_at(struct store *s, unsigned lane, struct msg *m)
{
    return lane_append_at(own_lane(s, lane), m);
}

void store_hide(struct store *s, unsigned lane, uint64_t offset)
{
    struct lane *l = lane_of(s, lane);
    uint64_t before = voids_count(l->voids);
    enum status st = voids_add(l->voids, offset);
    metric_add(l->metrics, M_LOG_VOIDS, voids_count(l->voids) - before);
    metric_add(l->metrics, M_LOG_VOIDS_SHOWN, st != ST_OK);
}

enum status store_carry(struct store *s, unsigned lane, struct msg *m)
{
    return lane_carry(own_lane(s, lane), m);
}

enum status store_note(struct store *s, unsigned lane, struct slice note, uint64_t *offset)
{
    return lane_note(own_lane(s, lane), note, offset);
}

void store_trim(struct store *s, unsigned lane, uint64_t upto)
{
    lane_trim(own_lane(s, lane), upto);
}

enum status store_roll(struct store *s, unsigned lane, uint64_t *upto)
{
    return lane_roll(own_lane(s, lane), upto);
}

static bool all_sealed(const struct store *s, const uint64_t *upto)
{
    for (unsigned i = 0; i < s->options.lane_count; i++)
        /* Acquire: the writer's release after it has synced the sealed file. */
        if (atomic_load_explicit(&s->lanes[i].sealed_next, memory_order_acquire) < upto[i])
            return false;
    return true;
}

enum status store_snapshot(struct store *s, const uint64_t *upto, const char *name, uint64_t snapshots_max,
                           struct snapshot_report *out, struct buf *error)
{
    struct manifest m = {.epoch = s->manifest.epoch,
                         .lane_count = s->options.lane_count,
                         .incarnation = s->env.incarnation,
                         .stopped = true,
                         .snapshot = true};
    uint64_t end_ms = clock_mono_ms(clock_system()) + SEAL_MS_MAX;
    while (!all_sealed(s, upto)) {
        if (clock_mono_ms(clock_system()) > end_ms)
            return refuse(error, ST_EXPIRED, s->options.dir, "the disk did not seal the segments in time");
        usleep(SEAL_POLL_US);
    }
    atomic_store(&s->env.snapshot_open, true);
    while (atomic_load(&s->env.trim_open))
        usleep(SEAL_POLL_US);
    for (unsigned i = 0; i < m.lane_count; i++) {
        m.lanes[i].first = store_first(s, i);
        m.lanes[i].end = m.lanes[i].next = upto[i];
    }
    enum status st = snapshot_make(s->files, s->options.dir, name, snapshots_max, &m, out, error);
    atomic_store(&s->env.snapshot_open, false);
    return st;
}

void store_set_live_bytes(struct store *s, unsigned lane, uint64_t bytes)
{
    atomic_store_explicit(&own_lane(s, lane)->live_bytes, bytes, memory_order_relaxed);
}

void store_flush(struct store *s, unsigned lane)
{
    lane_flush(own_lane(s, lane));
}

uint64_t store_first(const struct store *s, unsigned lane)
{
    /* Acquire: pairs with the reader's release when retention moves it. */
    return atomic_load_explicit(&lane_of(s, lane)->first, memory_order_acquire);
}

uint64_t store_next(const struct store *s, unsigned lane)
{
    return lane_of(s, lane)->next;
}

uint64_t store_durable(const struct store *s, unsigned lane)
{
    return lane_of(s, lane)->durable;
}

void store_read_start(struct store *s, struct store_read *r)
{
    struct lane *l = own_lane(s, r->lane);
    lane_hand_over(l);
    assert(r->count_only || (r->count_max >= 1 && r->count_max <= STORE_READ_COUNT_MAX));
    assert(!r->reverse || (r->topic.data && !r->count_only));
    assert(r->locate != STORE_AT_LAST || (r->topic.data && r->locate_value >= 1));
    if (r->locate != STORE_AT_OFFSET)
        r->from = 0;
    r->end = r->to < l->next ? r->to : l->next;
    if (r->end < r->from)
        r->end = r->from;
    reader_post_read(s->env.reader, r);
}

enum status store_recent(struct store *s, unsigned lane, uint64_t from, struct slice topic,
                         bool (*wants)(void *ctx, struct slice topic), void *wants_ctx, uint32_t count_max,
                         struct msg **msgs, uint32_t *found, uint64_t *next)
{
    return recent_read(own_lane(s, lane), from, topic, wants, wants_ctx, count_max, msgs, found, next);
}
