/* The append path, and what a lane remembers of it.
 *
 *   append: record behind the others in the open frame       (offset = next++)
 *   flush:  header, then -> writer (now), -> reader (when it is needed), -> ring of frames in memory
 *   told:   durable moves; frames beyond recent_bytes leave the ring
 *
 * File positions are known when a frame is opened, because a lane is the only one that appends to its
 * segment: so a record's CRC can be seeded by its place, a frame that no longer fits begins the next segment,
 * and the writer has nothing to decide.
 *
 * The reader gets frames late on purpose: it needs them only when something is read, and waking it for each
 * flush would cost as much CPU as all the rest (16 us a wake). They are in the ring meanwhile. */
#include "core/store/lane.h"

#include "core/store/reader.h"
#include "core/store/record.h"
#include "core/store/segment.h"
#include "core/store/writer.h"

#include <stdlib.h>
#include <string.h>

enum {
    FRAME_TARGET_BYTES = 256 << 10, /* a frame is closed when the next record would pass it */
    FRAME_FIRST_BYTES = 4 << 10,
    READER_BATCH_BYTES = 512 << 10,
    MARK_AFTER_MS = 1000,
    RECORDS_UNSYNCED_MAX = STORE_OFFSET_JUMP / 2, /* half: the writer may have as many in sync mode "never" */
    KEPT_ROOM_SHARE = 8, /* of a segment, on a full disk: for state and what is carried */
    HOLE_FILLED_MAX = 64, /* offsets of a mirror's hole: so many are filled */
    CARRY_ROOM_SHARE = 16, /* the last of it: for what is carried alone */
    SEGMENTS_AN_AGE = 4, /* so that what is kept is at most a quarter older than retention_ms */
};

/* Who may take room on a full disk: each one more of it than those before. */
enum rank { RANK_MESSAGE, RANK_STATE, RANK_CARRY };

static void on_lazy_timer(struct timer *t);
static void on_mark_timer(struct timer *t);

void lane_init(struct lane *l, struct lane_env *env, unsigned index)
{
    memset(l, 0, sizeof *l);
    l->env = env;
    l->index = index;
    l->frame_bytes_guess = FRAME_FIRST_BYTES;
    timer_init(&l->lazy_timer, on_lazy_timer);
    timer_init(&l->mark_timer, on_mark_timer);
}

void lane_deinit(struct lane *l)
{
    if (l->open)
        frame_unref(l->open);
    for (struct mail *mail = l->reader_first, *next; mail; mail = next) {
        next = mail->next;
        frame_unref(LIST_OF(mail, struct frame, to_reader));
    }
    for (uint32_t i = 0; i < l->frames_count; i++)
        frame_unref(l->frames[(l->frames_first + i) & (l->frames_cap - 1)]);
    free(l->frames);
    segment_unref(l->segment);
    memset(l, 0, sizeof *l);
}

/* --- frames --- */

static enum status roll(struct lane *l, uint64_t base_time_ms, uint64_t previous_next, uint64_t file_bytes,
                        uint64_t frame_bytes)
{
    if (file_bytes < sizeof(struct segment_header) + frame_bytes)
        file_bytes = sizeof(struct segment_header) + frame_bytes;
    struct segment_header h = {.lane = l->index,
                               .base_offset = l->next,
                               .base_time_ms = base_time_ms,
                               .log_epoch = l->env->log_epoch,
                               .previous_next = previous_next};
    struct segment *s;
    enum status st = segment_create(&h, file_bytes, &s);
    if (st != ST_OK)
        return st;
    segment_unref(l->segment);
    l->segment = s;
    l->position = sizeof h;
    return ST_OK;
}

static enum status ring_reserve(struct lane *l)
{
    if (l->frames_count < l->frames_cap)
        return ST_OK;
    uint32_t cap = l->frames_cap ? l->frames_cap * 2 : 64;
    struct frame **frames = malloc(cap * sizeof *frames);
    if (!frames)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < l->frames_count; i++)
        frames[i] = l->frames[(l->frames_first + i) & (l->frames_cap - 1)];
    free(l->frames);
    l->frames = frames;
    l->frames_cap = cap;
    l->frames_first = 0;
    return ST_OK;
}

static struct frame *ring_at(const struct lane *l, uint32_t i)
{
    return l->frames[(l->frames_first + i) & (l->frames_cap - 1)];
}

/* Bytes that a frame may have at this place. */
static uint64_t frame_limit(const struct lane *l)
{
    uint64_t room = l->segment->file_bytes - l->position;
    return room < FRAME_TARGET_BYTES ? room : FRAME_TARGET_BYTES;
}

static void give_to_reader(struct lane *l)
{
    if (!l->reader_first)
        return;
    l->posted_bytes += l->reader_bytes;
    if (l->metrics)
        metric_add(l->metrics, M_LOG_UNINDEXED_BYTES, l->reader_bytes);
    reader_post_frames(l->env->reader, l->reader_first, l->reader_last);
    l->reader_first = l->reader_last = NULL;
    l->reader_bytes = 0;
}

/* Retention removes whole segments: one that is filled for months would keep its first record as long. */
static bool segment_is_old(const struct lane *l, uint64_t time_ms)
{
    uint64_t age_ms = l->env->options->retention_ms / SEGMENTS_AN_AGE;
    return age_ms > 0 && time_ms > l->segment->header.base_time_ms + age_ms;
}

/* Makes sure that the segment has room for a frame with `least` bytes. On a full disk the rest of the segment
 * is all there is. Its last eighth is for state (MSG_STATE), so that acknowledgements go on, and half of that
 * only for what is carried: retention must go on, it makes room. */
static enum status make_segment_room(struct lane *l, uint64_t time_ms, uint64_t least, enum rank rank)
{
    const struct segment *s = l->segment;
    uint64_t room = s->file_bytes - l->position;
    if (atomic_load_explicit(&l->env->disk_full, memory_order_relaxed)) {
        uint64_t kept = rank == RANK_CARRY   ? 0
                        : rank == RANK_STATE ? s->file_bytes / CARRY_ROOM_SHARE
                                             : s->file_bytes / KEPT_ROOM_SHARE;
        return least + kept <= room ? ST_OK : ST_NO_SPACE;
    }
    if (least <= room && !segment_is_old(l, time_ms))
        return ST_OK;
    return roll(l, time_ms, l->next, l->env->options->segment_bytes, least);
}

/* A frame whose first record has `bytes`. */
static enum status open_frame(struct lane *l, uint64_t time_ms, uint64_t bytes, enum rank rank)
{
    uint64_t least = sizeof(struct frame_header) + bytes;
    enum status st = ring_reserve(l);
    if (st == ST_OK)
        st = make_segment_room(l, time_ms, least, rank);
    if (st != ST_OK)
        return st;
    uint64_t limit = frame_limit(l), cap = l->frame_bytes_guess < limit ? l->frame_bytes_guess : limit;
    struct frame *f;
    st = frame_create(&l->env->pool, l, l->segment, cap > least ? cap : least, &f);
    if (st != ST_OK)
        return st;
    f->position = l->position;
    f->base_offset = l->next;
    f->base_time_ms = time_ms;
    f->opened_ms = l->loop ? loop_now_ms(l->loop) : 0;
    f->limit = limit > least ? limit : least;
    f->seed = record_seed(l->segment->header.segment_epoch, f->base_offset);
    l->open = f;
    l->unsynced_bytes += f->len;
    return ST_OK;
}

static void queue_for_reader(struct lane *l, struct frame *f)
{
    frame_ref(f);
    f->to_reader = (struct mail){.on_arrival = reader_frame_arrival};
    if (l->reader_last)
        l->reader_last->next = &f->to_reader;
    else
        l->reader_first = &f->to_reader;
    l->reader_last = &f->to_reader;
    l->reader_bytes += f->cap;
    /* A new segment: the one before wants its index written, and there may be one too many. */
    bool begins = f->position == sizeof(struct segment_header);
    if (begins || l->reader_bytes >= READER_BATCH_BYTES)
        give_to_reader(l);
}

/* What may be said to be synced: unless that is always so, durable means only written. */
static uint64_t synced_below(const struct lane *l)
{
    if (l->env->options->sync == STORE_SYNC_ALWAYS)
        return l->durable;
    return atomic_load_explicit(&l->synced_next,
                                memory_order_acquire); /* the writer's release after its sync */
}

static void close_frame(struct lane *l)
{
    struct frame *f = l->open;
    l->open = NULL;
    l->marked = synced_below(l);
    frame_close(f, l->segment->header.segment_epoch, l->marked);
    l->position += f->len;
    if (f->len > sizeof(struct frame_header))
        l->frame_bytes_guess = f->len;
    assert(l->frames_count < l->frames_cap); /* open_frame has reserved it */
    l->frames[(l->frames_first + l->frames_count++) & (l->frames_cap - 1)] = f;
    queue_for_reader(l, f);
    frame_ref(f);
    writer_post(l->env->writer, f);
    if (l->metrics) {
        metric_add(l->metrics, M_LOG_RECORDS, f->record_count);
        metric_add(l->metrics, M_LOG_BYTES, f->len);
        metric_add(l->metrics, M_LOG_FRAMES, 1);
        metric_add(l->metrics, M_LOG_UNSYNCED_BYTES, f->record_count ? f->len : 0);
    }
}

/* --- append --- */

/* The open frame has no room, or there is none: makes it larger, or begins another. */
static enum status make_room(struct lane *l, uint64_t time_ms, uint64_t bytes, enum rank rank)
{
    struct frame *f = l->open;
    if (f && f->len + bytes <= f->limit) {
        uint64_t cap = f->cap * 2 < f->limit ? f->cap * 2 : f->limit;
        return frame_grow(&l->open, cap > f->len + bytes ? cap : f->len + bytes);
    }
    if (f)
        close_frame(l);
    return open_frame(l, time_ms, bytes, rank);
}

/* The reader has frames in memory that it has not got to: so many topics are new. */
static bool reader_is_behind(const struct lane *l)
{
    uint64_t most = l->env->options->unindexed_bytes_max;
    uint64_t indexed = atomic_load_explicit(&l->indexed_bytes, memory_order_relaxed);
    return most > 0 && l->posted_bytes - indexed > most;
}

/* Finds room for a record of `bytes` behind the others in the open frame. */
static enum status take_room(struct lane *l, uint64_t time_ms, uint64_t bytes, enum rank rank)
{
    if (bytes > RECORD_BYTES_MAX)
        return ST_TOO_LARGE;
    bool refused = rank == RANK_MESSAGE && atomic_load_explicit(&l->env->disk_refuse, memory_order_relaxed);
    if (refused || atomic_load_explicit(&l->stalled, memory_order_relaxed)) {
        metric_add(l->metrics, M_LOG_REFUSED_FULL, 1);
        return ST_NO_SPACE;
    }
    /* One record however large may be on its way: else it could never be stored. */
    if ((l->unsynced_bytes > 0 && l->unsynced_bytes + bytes > l->env->options->unsynced_bytes_max) ||
        l->next - l->durable >= RECORDS_UNSYNCED_MAX || reader_is_behind(l)) {
        metric_add(l->metrics, M_LOG_REFUSED_FULL, 1);
        return ST_FULL;
    }
    struct frame *f = l->open;
    if (f && f->len + bytes <= f->limit && f->len + bytes <= f->cap)
        return ST_OK;
    enum status st = make_room(l, time_ms, bytes, rank);
    if (st == ST_NO_SPACE)
        metric_add(l->metrics, M_LOG_REFUSED_FULL, 1);
    return st;
}

static uint64_t time_of_append(const struct lane *l)
{
    uint64_t time_ms = loop_wall_ms(l->loop);
    return time_ms > l->last_time_ms ? time_ms : l->last_time_ms;
}

static void took_room(struct lane *l, uint64_t bytes, bool wait)
{
    l->open->record_count++;
    l->open->len += bytes;
    l->open->wait |= wait;
    l->unsynced_bytes += bytes;
}

enum status lane_append(struct lane *l, struct msg *m, bool wait)
{
    uint64_t bytes = record_stored_bytes(m), time_ms = time_of_append(l);
    enum status st = take_room(l, time_ms, bytes, m->flags & MSG_STATE ? RANK_STATE : RANK_MESSAGE);
    if (st != ST_OK)
        return st;
    struct frame *f = l->open;
    m->offset = m->stored = l->next++;
    m->ts_ms = l->last_time_ms = time_ms;
    record_encode(m, f->record_count, f->seed, f->bytes + f->len);
    took_room(l, bytes, wait);
    return ST_OK;
}

/* --- a mirror: offsets are given --- */

/* A record that nobody is shown, at the next offset. */
static enum status append_internal(struct lane *l, struct slice payload, uint64_t time_ms)
{
    uint64_t bytes = record_internal_bytes(payload);
    enum status st = take_room(l, time_ms, bytes, RANK_MESSAGE);
    if (st != ST_OK)
        return st;
    struct frame *f = l->open;
    l->next++;
    l->last_time_ms = time_ms;
    record_encode_internal(payload, time_ms, f->record_count, f->seed, f->bytes + f->len);
    took_room(l, bytes, false);
    return ST_OK;
}

/* Offsets within a segment have no holes (scan.c): a short one is filled with records that say nothing,
 * behind a long one a segment begins. */
static enum status pass_hole(struct lane *l, uint64_t to, uint64_t time_ms)
{
    const uint16_t kind = HOLE_KIND;
    enum status st = ST_OK;
    if (to - l->next <= HOLE_FILLED_MAX) {
        while (l->next < to && st == ST_OK)
            st = append_internal(l, slice_of(&kind, sizeof kind), time_ms);
        return st;
    }
    if (l->open)
        close_frame(l);
    uint64_t end = l->next;
    l->next = to;
    st = roll(l, time_ms, end, l->env->options->segment_bytes, sizeof(struct frame_header));
    if (st != ST_OK)
        l->next = end;
    return st;
}

enum status lane_append_at(struct lane *l, struct msg *m)
{
    assert(l->env->options->mirror_epoch && m->offset >= l->next);
    uint64_t time_ms = m->ts_ms > l->last_time_ms ? m->ts_ms : l->last_time_ms;
    enum status st = m->offset > l->next ? pass_hole(l, m->offset, time_ms) : ST_OK;
    if (st != ST_OK)
        return st;
    if (m->flags & MSG_NOTE) {
        st = append_internal(l, msg_payload(m), time_ms);
    } else {
        uint64_t bytes = record_stored_bytes(m);
        st = take_room(l, time_ms, bytes, RANK_MESSAGE);
        if (st == ST_OK) {
            m->ts_ms = l->last_time_ms = time_ms;
            l->next++;
            record_encode(m, l->open->record_count, l->open->seed, l->open->bytes + l->open->len);
            took_room(l, bytes, false);
        }
    }
    m->stored = m->offset;
    m->ts_ms = st == ST_OK ? time_ms : m->ts_ms;
    return st;
}

enum status lane_carry(struct lane *l, struct msg *m)
{
    uint64_t bytes = record_carried_bytes(m), time_ms = time_of_append(l);
    assert(m->offset < l->next && m->stored >= m->offset);
    enum status st = take_room(l, time_ms, bytes, RANK_CARRY);
    if (st != ST_OK)
        return st;
    struct frame *f = l->open;
    m->stored = l->next++;
    l->last_time_ms = time_ms;
    record_encode_carried(m, f->record_count, f->seed, f->bytes + f->len);
    took_room(l, bytes, true);
    return ST_OK;
}

enum status lane_note(struct lane *l, struct slice note, uint64_t *offset)
{
    uint64_t bytes = record_internal_bytes(note), time_ms = time_of_append(l);
    enum status st = take_room(l, time_ms, bytes, RANK_CARRY);
    if (st != ST_OK)
        return st;
    struct frame *f = l->open;
    *offset = l->next++;
    l->last_time_ms = time_ms;
    record_encode_internal(note, time_ms, f->record_count, f->seed, f->bytes + f->len);
    took_room(l, bytes, true);
    return ST_OK;
}

/* The open frame, which has no record, is a mark. */
static void close_mark(struct lane *l)
{
    l->open->control = true;
    l->unsynced_bytes -= l->open->len; /* nobody waits for it to leave */
    close_frame(l);
}

void lane_flush(struct lane *l)
{
    struct frame *f = l->open;
    if (!f)
        return;
    const struct store_options *o = l->env->options;
    if (f->wait || f->len >= o->lazy_bytes || loop_now_ms(l->loop) - f->opened_ms >= o->lazy_ms)
        close_frame(l);
    else if (!timer_armed(&l->lazy_timer))
        timer_arm(loop_timers(l->loop), &l->lazy_timer, f->opened_ms + o->lazy_ms);
}

/* A mark in the next segment makes the writer seal this one. A segment without a record is not ended: the
 * next one would have its name, and what came before is sealed already, or will be. */
enum status lane_roll(struct lane *l, uint64_t *upto)
{
    if (l->open)
        close_frame(l);
    *upto = l->next;
    if (l->segment->header.base_offset == l->next)
        return ST_OK;
    if (atomic_load_explicit(&l->env->disk_full, memory_order_relaxed))
        return ST_NO_SPACE;
    enum status st = ring_reserve(l);
    if (st == ST_OK)
        st = roll(l, l->last_time_ms, l->next, l->env->options->segment_bytes, sizeof(struct frame_header));
    if (st == ST_OK)
        st = open_frame(l, l->last_time_ms, 0, RANK_CARRY);
    if (st == ST_OK)
        close_mark(l);
    return st;
}

static void on_lazy_timer(struct timer *t)
{
    struct lane *l = LIST_OF(t, struct lane, lazy_timer);
    lane_flush(l); /* closes what is old enough, else comes again */
}

/* The last flight before a quiet moment has no later frame that says it was synced; recovery could
 * take its rot for a torn tail (FORMAT.md 9). */
static void on_mark_timer(struct timer *t)
{
    struct lane *l = LIST_OF(t, struct lane, mark_timer);
    if (l->open || l->durable != l->next || l->marked >= synced_below(l))
        return;
    if (open_frame(l, l->last_time_ms, 0, RANK_CARRY) != ST_OK)
        return; /* no memory, or a full disk: the window stays open, nothing else */
    close_mark(l);
}

void lane_hand_over(struct lane *l)
{
    if (l->open)
        close_frame(l);
    give_to_reader(l);
}

/* --- durable --- */

static void forget_old(struct lane *l)
{
    while (l->frames_durable > 0 && l->durable_bytes > l->env->options->recent_bytes) {
        struct frame *f = ring_at(l, 0);
        l->durable_bytes -= f->cap;
        l->frames_first = (l->frames_first + 1) & (l->frames_cap - 1);
        l->frames_count--;
        l->frames_durable--;
        frame_unref(f);
    }
}

/* False: nothing has moved. */
static bool take_durable(struct lane *l)
{
    /* Acquire: the writer's release store after its sync. */
    uint64_t durable = atomic_load_explicit(&l->durable_next, memory_order_acquire);
    if (durable == l->durable)
        return false;
    uint64_t freed = 0;
    while (l->frames_durable < l->frames_count) {
        struct frame *f = ring_at(l, l->frames_durable);
        if (frame_next_offset(f) > durable)
            break;
        freed += f->record_count ? f->len : 0; /* a mark was never counted */
        l->durable_bytes += f->cap;
        l->frames_durable++;
    }
    l->unsynced_bytes -= freed;
    l->durable = durable;
    forget_old(l);
    return true;
}

void lane_settle(struct lane *l)
{
    take_durable(l);
}

void lane_on_durable(struct lane *l)
{
    uint64_t unsynced = l->unsynced_bytes;
    if (!take_durable(l))
        return;
    metric_sub(l->metrics, M_LOG_UNSYNCED_BYTES, unsynced - l->unsynced_bytes);
    if (l->durable == l->next)
        timer_arm(loop_timers(l->loop), &l->mark_timer,
                  loop_now_ms(l->loop) + MARK_AFTER_MS + l->env->options->sync_interval_ms);
    l->events->on_durable(l->events_ctx, l->index, l->durable);
}

/* --- retention --- */

void lane_on_trim_wanted(struct lane *l)
{
    /* Acquire: pairs with the reader's release; the wish and nothing else. */
    uint64_t wanted = atomic_load_explicit(&l->trim_wanted, memory_order_acquire);
    if (wanted == l->trim_told)
        return;
    l->trim_told = wanted;
    l->events->on_trim_wanted(l->events_ctx, l->index, wanted);
}

void lane_trim(struct lane *l, uint64_t upto)
{
    l->trim_upto = upto;
    l->trim_synced = l->durable;
    reader_post_trim(l->env->reader, l);
}

/* --- start and stop --- */

/* A start makes a file in every lane: together they take no more room than one segment, if that can be. */
static uint64_t first_file_bytes(const struct lane *l)
{
    const struct store_options *o = l->env->options;
    uint64_t bytes = o->segment_bytes / o->lane_count;
    return bytes > STORE_SEGMENT_BYTES_MIN ? bytes : STORE_SEGMENT_BYTES_MIN;
}

/* It says nothing of its own: the next record begins a segment, and with it a file. */
static enum status begin_mirror(struct lane *l, uint64_t next)
{
    l->next = l->durable = next;
    atomic_init(&l->durable_next, next);
    atomic_init(&l->synced_next, next);
    atomic_init(&l->written_next, next);
    atomic_init(&l->sealed_next, next);
    return roll(l, l->last_time_ms, next, first_file_bytes(l), sizeof(struct frame_header));
}

enum status lane_begin(struct lane *l, uint64_t next, uint64_t previous_next, bool after_clean_stop)
{
    if (l->env->options->mirror_epoch)
        return begin_mirror(l, next);
    uint64_t time_ms = clock_wall_ms(l->env->options->clock);
    struct start_payload start = {.kind = START_KIND,
                                  .flags = after_clean_stop ? START_AFTER_CLEAN_STOP : 0,
                                  .incarnation = l->env->incarnation,
                                  .previous_next = previous_next};
    struct slice payload = slice_of(&start, sizeof start);
    uint32_t bytes = record_internal_bytes(payload);
    l->next = l->durable = next;
    l->last_time_ms = time_ms;
    atomic_init(&l->durable_next, next);
    atomic_init(&l->synced_next, next);
    atomic_init(&l->written_next, next);
    atomic_init(&l->sealed_next, previous_next);
    enum status st =
        roll(l, time_ms, previous_next, first_file_bytes(l), sizeof(struct frame_header) + bytes);
    if (st == ST_OK)
        st = open_frame(l, time_ms, bytes, RANK_MESSAGE);
    if (st != ST_OK)
        return st;
    struct frame *f = l->open;
    record_encode_internal(payload, time_ms, f->record_count++, f->seed, f->bytes + f->len);
    f->len += bytes;
    f->control = true;
    f->wait = true;
    l->unsynced_bytes += bytes;
    l->next++;
    close_frame(l);
    return ST_OK;
}

void lane_bind(struct lane *l, struct loop *loop, const struct store_events *events, void *ctx,
               struct metrics *metrics)
{
    assert(!l->loop);
    l->loop = loop;
    l->events = events;
    l->events_ctx = ctx;
    l->metrics = metrics;
    metric_add(metrics, M_LOG_UNSYNCED_BYTES, l->unsynced_bytes); /* START, when the disk was full */
    metric_add(metrics, M_LOG_UNINDEXED_BYTES, l->posted_bytes);
}

void lane_finish(struct lane *l)
{
    if (l->loop) {
        timer_cancel(loop_timers(l->loop), &l->lazy_timer);
        timer_cancel(loop_timers(l->loop), &l->mark_timer);
    }
    lane_hand_over(l);
}
