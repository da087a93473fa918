/* A thread that owns the index: what it reads and what it writes nobody else touches, so there is nothing to
 * lock. Frames and reads of a lane come by one mailbox in the order in which its loop posted them; a read
 * therefore sees everything that was appended before it.
 *
 * Reads take turns, a bounded step each. Between them indexes of sealed segments are written: a tenth of a
 * second for 256 MiB, in which reads wait and appends do not. And between two steps retention removes
 * segments: so no read ever looks at a file that goes under its eyes (retention.c). */
#include "core/store/reader.h"

#include "core/logging.h"
#include "core/pool.h"
#include "core/store/completion.h"
#include "core/store/onset.h"
#include "core/store/query.h"
#include "core/store/retention.h"
#include "core/store/scrub.h"
#include "core/store/segment.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EXIT_RETRY = 75,
    TURNS_AN_INDEX = 256,
    TRIM_RETRY_MS = 1000,
    TRIM_SYNC_MS = 10,
    AGE_LOOK_MS_MAX = 60000
};

struct reader {
    const struct store_options *options;
    struct lane *lanes;
    struct shelf *shelves;
    unsigned lane_count;
    struct mailbox box;
    struct mail stop;
    pthread_t thread;
    struct metrics *metrics;
    struct store_read *queue_first, *queue_last;
    bool stopping;
    uint32_t turns;
    struct query_tools tools;
    struct scrub scrub;
    struct manifest *manifest;
    struct maker *maker;
    uint64_t size_bytes; /* as told to the gauge */
    struct {
        bool open; /* the owner has answered the last wish, or said that it is ready for the first */
        uint64_t upto; /* it has agreed to: not done yet when above `first` */
        uint64_t synced; /* when all below this is synced */
        uint64_t retry_at_ms; /* and failed */
    } trims[STORE_LANES_MAX];
};

/* --- frames --- */

static enum status index_records(struct volume *v, const struct frame *f)
{
    uint64_t at = sizeof(struct frame_header);
    for (uint32_t i = 0; i < f->record_count; i++) {
        struct record_header h;
        memcpy(&h, f->bytes + at, sizeof h);
        struct index_place place = {(uint32_t)(f->base_offset + h.offset_delta - v->base_offset),
                                    (uint32_t)((f->position + at) / 8)};
        const uint8_t *topic = f->bytes + at + sizeof h + record_optional_bytes(h.flags);
        enum status st =
            h.flags & RECORD_HIDDEN
                ? ST_OK
                : topic_index_add_record(v->index, h.topic_id, slice_of(topic, h.topic_bytes), place);
        if (st != ST_OK)
            return st;
        if (h.time_ms > v->last_time_ms)
            v->last_time_ms = h.time_ms;
        at += align8(h.record_bytes);
    }
    return ST_OK;
}

static enum status index_frame(struct shelf *shelf, const struct frame *f)
{
    const struct segment_header *h = &f->segment->header;
    struct volume *v = shelf->count ? shelf->volumes[shelf->count - 1] : NULL;
    enum status st = ST_OK;
    if (!v || v->segment_epoch != h->segment_epoch) {
        st = shelf_add(shelf, h->base_offset, h->previous_next, h->segment_epoch, &v);
        if (st == ST_OK)
            st = topic_index_create(&v->index);
        if (st != ST_OK)
            return st;
    }
    st = topic_index_add_frame(v->index, (struct index_place){(uint32_t)(f->base_offset - v->base_offset),
                                                              (uint32_t)(f->position / 8)});
    if (st == ST_OK && !f->control)
        st = index_records(v, f);
    v->next_offset = frame_next_offset(f);
    if (f->base_time_ms > v->last_time_ms)
        v->last_time_ms = f->base_time_ms; /* a carried record is older than its place */
    shelf_set_end(shelf, v, f->position + f->len);
    return st;
}

/* Drops frames that can be read from the file. A mark has no offset of its own, so it goes with the next
 * frame that has. */
static void drop_written(struct reader *r, unsigned lane)
{
    struct shelf *shelf = &r->shelves[lane];
    /* Acquire: the writer's release after its write. */
    uint64_t written = atomic_load_explicit(&r->lanes[lane].written_next, memory_order_acquire);
    struct frame *keep = shelf->memory_first;
    for (struct frame *f = keep; f && frame_next_offset(f) <= written; f = f->reader_next) {
        if (f->record_count > 0)
            keep = f->reader_next;
    }
    while (shelf->memory_first != keep) {
        struct frame *f = shelf->memory_first;
        shelf->memory_first = f->reader_next;
        frame_unref(f);
    }
    if (!shelf->memory_first)
        shelf->memory_last = NULL;
}

void reader_frame_arrival(struct mail *mail)
{
    struct frame *f = LIST_OF(mail, struct frame, to_reader);
    struct reader *r = f->lane->env->reader;
    struct shelf *shelf = &r->shelves[f->lane->index];
    if (index_frame(shelf, f) != ST_OK) {
        /* An index with holes would lose records in silence; the next start makes it from the files. */
        log_error("no memory for the log's index lane=%u; give the process more, then start again",
                  shelf->lane);
        _exit(EXIT_RETRY);
    }
    f->reader_next = NULL;
    if (shelf->memory_last)
        shelf->memory_last->reader_next = f;
    else
        shelf->memory_first = f;
    shelf->memory_last = f;
    atomic_fetch_add_explicit(&f->lane->indexed_bytes, f->cap,
                              memory_order_relaxed); /* pairs with the lane's */
    metric_sub(r->metrics, M_LOG_UNINDEXED_BYTES, f->cap);
    drop_written(r, f->lane->index); /* before the next letter: there may be many */
}

/* Writes one index that is due. False: none was. */
static bool write_index(struct reader *r)
{
    for (unsigned lane = 0; lane < r->lane_count; lane++) {
        struct shelf *shelf = &r->shelves[lane];
        /* Acquire: the writer's release after it has synced the sealed file. */
        uint64_t sealed = atomic_load_explicit(&r->lanes[lane].sealed_next, memory_order_acquire);
        while (shelf->unwritten < shelf->count &&
               (!shelf->volumes[shelf->unwritten]->index || shelf->volumes[shelf->unwritten]->write_refused))
            shelf->unwritten++;
        /* Of the last one more frames may be on their way, even when the writer has sealed it. */
        if (shelf->unwritten + !r->stopping >= shelf->count)
            continue;
        struct volume *v = shelf->volumes[shelf->unwritten];
        if (v->next_offset > sealed)
            continue;
        enum status st = volume_write_index(shelf, v);
        assert(st == ST_OK || v->write_refused); /* logged there; the index stays in memory */
        return true;
    }
    return false;
}

/* --- retention --- */

static uint64_t lane_first(const struct reader *r, unsigned lane)
{
    return atomic_load_explicit(&r->lanes[lane].first, memory_order_relaxed); /* this thread writes it */
}

static void on_trim(struct mail *mail)
{
    struct lane *l = LIST_OF(mail, struct lane, trim_mail);
    struct reader *r = l->env->reader;
    r->trims[l->index].open = true;
    r->trims[l->index].upto = l->trim_upto;
    r->trims[l->index].synced = l->trim_synced;
    r->trims[l->index].retry_at_ms = 0;
}

/* A segment that ends is synced, so this is often asked and seldom waits long (TRIM_SYNC_MS): a publisher
 * must not outrun retention. What was carried must be on the disk before what it was carried from is not;
 * mode "never" promises nothing of the kind. */
static bool may_trim(const struct reader *r, unsigned lane)
{
    return r->options->sync == STORE_SYNC_NEVER ||
           /* Acquire: the writer's release after its sync. */
           atomic_load_explicit(&r->lanes[lane].synced_next, memory_order_acquire) >= r->trims[lane].synced;
}

/* False: a snapshot is being made of what would go, or the disk has no room yet for this process's MANIFEST.
 */
static bool enter_trim(struct reader *r, unsigned lane)
{
    struct lane_env *env = r->lanes[lane].env;
    if (!onset_done(env->onset))
        return false;
    atomic_store(&env->trim_open, true);
    if (!atomic_load(&env->snapshot_open))
        return true;
    atomic_store(&env->trim_open, false);
    return false;
}

static void trim(struct reader *r, unsigned lane)
{
    uint64_t now_ms = clock_mono_ms(r->options->clock);
    if (now_ms < r->trims[lane].retry_at_ms)
        return;
    if (!may_trim(r, lane)) {
        r->trims[lane].retry_at_ms = now_ms + TRIM_SYNC_MS;
        return;
    }
    struct shelf *shelf = &r->shelves[lane];
    uint32_t count = retention_count_below(shelf, r->trims[lane].upto);
    uint64_t bytes = shelf->bytes;
    if (count == 0) { /* not a whole segment */
        r->trims[lane].upto = 0;
        return;
    }
    bool entered = enter_trim(r, lane);
    if (!entered || retention_mark(r->manifest, r->options, shelf, count) != ST_OK) {
        if (entered)
            atomic_store(&r->lanes[lane].env->trim_open, false);
        r->trims[lane].retry_at_ms = now_ms + TRIM_RETRY_MS;
        return;
    }
    /* Release: pairs with store_first's acquire. */
    atomic_store_explicit(&r->lanes[lane].first, shelf->volumes[count]->base_offset, memory_order_release);
    retention_remove(&r->tools.cache, shelf, r->maker, count);
    metric_sub(r->metrics, M_LOG_NAMES_BYTES, shelf_trim_words(shelf));
    atomic_store(&r->lanes[lane].env->trim_open, false);
    metric_add(r->metrics, M_LOG_TRIMMED_BYTES, bytes - shelf->bytes);
    metric_add(r->metrics, M_LOG_TRIMMED_SEGMENTS, count);
}

static void wish(struct reader *r, unsigned lane)
{
    struct lane *l = &r->lanes[lane];
    uint64_t upto = retention_due(&r->shelves[lane], r->options,
                                  /* Acquire: the writer's release after it has synced the sealed file. */
                                  atomic_load_explicit(&l->sealed_next, memory_order_acquire),
                                  atomic_load_explicit(&l->live_bytes, memory_order_relaxed),
                                  clock_wall_ms(r->options->clock));
    if (upto == 0)
        return;
    r->trims[lane].open = false;
    /* Release: pairs with lane_on_trim_wanted. */
    atomic_store_explicit(&l->trim_wanted, upto, memory_order_release);
    completion_post(l->completion);
}

static void look_at_retention(struct reader *r)
{
    uint64_t size_bytes = 0;
    for (unsigned lane = 0; lane < r->lane_count; lane++) {
        if (r->trims[lane].open && r->trims[lane].upto > lane_first(r, lane))
            trim(r, lane);
        else if (r->trims[lane].open && !r->stopping)
            wish(r, lane);
        size_bytes += r->shelves[lane].bytes;
    }
    metric_add(r->metrics, M_LOG_SIZE_BYTES, size_bytes - r->size_bytes);
    r->size_bytes = size_bytes;
}

/* When to look again though nothing comes. */
static int wait_ms(const struct reader *r)
{
    uint64_t wait = scrub_due_ms(&r->scrub), wall_ms = clock_wall_ms(r->options->clock);
    for (unsigned lane = 0; lane < r->lane_count; lane++) {
        if (!r->trims[lane].open)
            continue;
        uint64_t ms = r->trims[lane].upto > lane_first(r, lane)
                          ? (may_trim(r, lane) ? (uint64_t)TRIM_RETRY_MS : (uint64_t)TRIM_SYNC_MS)
                          : retention_due_ms(&r->shelves[lane], r->options, wall_ms);
        wait = ms < wait ? ms : wait;
    }
    /* The wall clock may be set meanwhile. */
    return wait == UINT64_MAX ? -1 : wait < AGE_LOOK_MS_MAX ? (int)wait : AGE_LOOK_MS_MAX;
}

/* --- reads --- */

static void on_home(struct mail *mail)
{
    struct store_read *read = (struct store_read *)mail; /* its first member */
    read->on_done(read);
}

static void on_read(struct mail *mail)
{
    struct store_read *read = (struct store_read *)mail;
    struct reader *r = read->reader;
    query_begin(read, lane_first(r, read->lane));
    read->queue_next = NULL;
    if (r->queue_last)
        r->queue_last->queue_next = read;
    else
        r->queue_first = read;
    r->queue_last = read;
}

static struct store_read *queue_pop(struct reader *r)
{
    struct store_read *read = r->queue_first;
    r->queue_first = read->queue_next;
    if (!r->queue_first)
        r->queue_last = NULL;
    return read;
}

static void serve_one(struct reader *r)
{
    struct store_read *read = queue_pop(r);
    drop_written(r, read->lane);
    if (!query_step(&r->tools, &r->shelves[read->lane], read, lane_first(r, read->lane))) {
        read->queue_next = NULL;
        if (r->queue_last)
            r->queue_last->queue_next = read;
        else
            r->queue_first = read;
        r->queue_last = read;
        return;
    }
    metric_add(r->metrics, M_LOG_READS, 1);
    metric_add(r->metrics, M_LOG_READ_RECORDS, read->count_only ? 0 : read->found);
    read->mail.on_arrival = on_home;
    loop_post(read->home, &read->mail);
}

/* --- the thread --- */

static void take_letters(struct reader *r)
{
    for (struct mail *mail = mailbox_take(&r->box), *next; mail; mail = next) {
        next = mail->next;
        if (mail == &r->stop)
            r->stopping = true;
        else
            mail->on_arrival(mail);
    }
}

static void wait_for_letters(struct reader *r)
{
    if (!mailbox_sleep(&r->box))
        return;
    struct pollfd pfd = {.fd = r->box.wake_fd, .events = POLLIN};
    poll(&pfd, 1, wait_ms(r));
    mailbox_awake(&r->box);
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    for (;;) {
        take_letters(r);
        for (unsigned i = 0; i < r->lane_count; i++)
            drop_written(r, i);
        look_at_retention(r);
        if (!r->stopping)
            scrub_turn(&r->scrub, r->shelves, r->lanes);
        /* Now and then an index even if reads never end: it holds memory. */
        if (++r->turns % TURNS_AN_INDEX == 0)
            write_index(r);
        if (r->queue_first)
            serve_one(r);
        else if (!write_index(r)) {
            if (r->stopping)
                break;
            wait_for_letters(r);
        }
    }
    pool_drain();
    return NULL;
}

enum status reader_start(struct reader *r)
{
    return pthread_create(&r->thread, NULL, reader_main, r) == 0 ? ST_OK : ST_NO_MEMORY;
}

void reader_stop(struct reader *r)
{
    mailbox_post(&r->box, &r->stop);
    pthread_join(r->thread, NULL);
}

void reader_post_frames(struct reader *r, struct mail *first, struct mail *last)
{
    mailbox_post_chain(&r->box, first, last);
}

void reader_post_trim(struct reader *r, struct lane *l)
{
    l->trim_mail.on_arrival = on_trim;
    mailbox_post(&r->box, &l->trim_mail);
}

void reader_post_read(struct reader *r, struct store_read *read)
{
    read->reader = r;
    read->mail.on_arrival = on_read;
    mailbox_post(&r->box, &read->mail);
}

/* --- life --- */

enum status reader_create(const struct store_options *options, struct lane *lanes, struct shelf *shelves,
                          struct manifest *m, struct maker *maker, struct reader **out)
{
    struct reader *r = calloc(1, sizeof *r);
    if (!r)
        return ST_NO_MEMORY;
    r->options = options;
    r->lanes = lanes;
    r->shelves = shelves;
    r->manifest = m;
    r->maker = maker;
    r->lane_count = options->lane_count;
    enum status st = mailbox_open(&r->box);
    if (st != ST_OK) {
        free(r);
        return st;
    }
    r->metrics = metrics_register();
    query_tools_init(&r->tools);
    r->tools.metrics = r->metrics;
    scrub_init(&r->scrub, options, r->metrics);
    *out = r;
    return ST_OK;
}

static void drop_memory(struct shelf *shelf)
{
    for (struct frame *f = shelf->memory_first, *next; f; f = next) {
        next = f->reader_next;
        frame_unref(f);
    }
    shelf->memory_first = shelf->memory_last = NULL;
}

void reader_destroy(struct reader *r)
{
    if (!r)
        return;
    /* Only after a start that failed half way. */
    for (struct mail *mail = mailbox_take(&r->box), *next; mail; mail = next) {
        next = mail->next;
        frame_unref(LIST_OF(mail, struct frame, to_reader));
    }
    for (unsigned i = 0; i < r->lane_count; i++)
        drop_memory(&r->shelves[i]);
    query_tools_deinit(&r->tools);
    scrub_deinit(&r->scrub);
    mailbox_close(&r->box);
    free(r);
}
