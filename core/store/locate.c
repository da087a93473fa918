/* By time: a volume never holds two lives of the process, because every start begins a new one, and within a
 * life times never fall (lane.c). So within a volume times ascend, its last one is its greatest, and the
 * first record with time >= t lies in the first volume whose last time is >= t. That holds whatever the clock
 * did between two starts. The volumes' last times are in memory; within the volume a binary search over the
 * sparse frame places reads a frame header each, and a walk over one of their distances does the rest. A
 * header that does not verify any more counts as not below t: the walk is then longer, at most the segment.
 * Carried records have the time of their message, which is older than their place: by them a walk can only
 * end too early.
 *
 * By `last`: the topic's postings, newest volume first, until enough have been counted. Nothing but indexes
 * is read. A topic_id that another topic shares is counted with it, as count_only does. */
#include "core/store/locate.h"

#include "core/store/scan.h"
#include "core/store/segment.h"

enum { STEP_VOLUMES_MAX = 32, HEADER_AHEAD_BYTES = 512, WALK_AHEAD_BYTES = 64 << 10 };

void locate_begin(struct store_read *r)
{
    r->next = r->first;
    r->seek = r->end;
    r->seek_left = r->locate_value;
}

static void settle(struct store_read *r, uint64_t offset)
{
    r->locate = STORE_AT_OFFSET;
    if (offset > r->end)
        offset = r->end;
    if (offset < r->first)
        offset = r->first;
    if (r->reverse) {
        query_turn_back(r, offset);
        return;
    }
    r->from = r->next = offset;
    if (r->end < offset)
        r->end = offset;
}

/* --- by time --- */

static bool frame_is_below(struct source *source, const struct volume *v, struct index_place place,
                           uint64_t time_ms)
{
    struct frame_header h;
    bool failed = false;
    uint64_t position = place.place * 8ull;
    const uint8_t *bytes = source_get(source, position, sizeof h, &failed);
    return bytes && frame_header_decode(bytes, source->end - position, v->segment_epoch, &h) == ST_OK &&
           h.base_time_ms < time_ms;
}

/* The number of sparse places whose frame begins below the time. */
static uint32_t frames_below(struct source *source, const struct volume *v, struct index_places frames,
                             uint64_t time_ms)
{
    uint32_t low = 0, high = frames.count;
    source->ahead = HEADER_AHEAD_BYTES;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (frame_is_below(source, v, frames.places[middle], time_ms))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Behind the last record before the first whose time is not below. */
static uint64_t walk_to_time(struct source *source, const struct volume *v, uint64_t time_ms)
{
    struct index_places frames = volume_frames(v);
    uint32_t below = frames_below(source, v, frames, time_ms);
    uint64_t position = sizeof(struct segment_header), offset = v->base_offset;
    if (below > 0) {
        position = frames.places[below - 1].place * 8ull;
        offset += frames.places[below - 1].delta;
    }
    struct scan scan;
    source->ahead = WALK_AHEAD_BYTES;
    scan_init(&scan, source, v->segment_epoch, v->base_offset, position, offset);
    for (;;) {
        switch (scan_next(&scan)) {
        case SCAN_FRAME:
            if (scan.frame.base_time_ms >= time_ms)
                return offset;
            break;
        case SCAN_RECORD:
            if (scan.record.time_ms >= time_ms)
                return offset;
            offset = scan.record.offset + 1;
            break;
        case SCAN_BAD: /* behind it `offset` moves on only by a record that is below */
            break;
        case SCAN_END:
            return offset;
        }
    }
}

static void locate_time(struct query_tools *t, struct shelf *shelf, struct store_read *r)
{
    uint32_t i = 0;
    while (i < shelf->count && shelf->volumes[i]->last_time_ms < r->locate_value)
        i++;
    if (i == shelf->count) {
        settle(r, r->end);
        return;
    }
    struct volume *v = shelf->volumes[i];
    if (volume_use(&t->cache, shelf, v) != ST_OK) {
        settle(r, v->base_offset); /* the read tells of the damage */
        return;
    }
    volume_source(shelf, v, &t->source);
    settle(r, walk_to_time(&t->source, v, r->locate_value));
}

/* --- the last n --- */

/* How many volumes begin below the offset. */
static uint32_t volumes_below(const struct shelf *shelf, uint64_t offset)
{
    uint32_t i = shelf_find(shelf, offset);
    return i < shelf->count && shelf->volumes[i]->base_offset < offset ? i + 1 : i;
}

static bool has_voids(const struct shelf *shelf, const struct volume *v)
{
    return shelf->voids && voids_between(shelf->voids, v->base_offset, v->next_offset) > 0;
}

/* Among places [from, end) of a volume in which some are void. True: settled. */
static bool locate_last_shown(const struct shelf *shelf, const struct volume *v, struct index_places p,
                              uint32_t from, uint32_t end, struct store_read *r)
{
    while (end > from) {
        uint64_t offset = v->base_offset + p.places[--end].delta;
        if (!voids_has(shelf->voids, offset) && --r->seek_left == 0) {
            settle(r, offset);
            return true;
        }
    }
    return false;
}

static bool locate_last(struct query_tools *t, struct shelf *shelf, struct store_read *r)
{
    uint64_t list_id = query_list_id(r);
    uint32_t n = volumes_below(shelf, r->seek);
    for (unsigned steps = 0; steps < STEP_VOLUMES_MAX; steps++, n--) {
        if (n == 0 || shelf->volumes[n - 1]->next_offset <= r->first) {
            settle(r, r->first);
            return true;
        }
        struct volume *v = shelf->volumes[n - 1];
        if (volume_use(&t->cache, shelf, v) != ST_OK) {
            settle(r, v->base_offset);
            return true;
        }
        struct index_places p = volume_find(v, list_id);
        uint64_t kept = r->first > v->base_offset ? r->first - v->base_offset : 0;
        uint32_t from = index_places_below(p, kept), end = index_places_below(p, r->seek - v->base_offset);
        if (has_voids(shelf, v)) {
            if (locate_last_shown(shelf, v, p, from, end, r))
                return true;
        } else if (end >= from && end - from >= r->seek_left) {
            settle(r, v->base_offset + p.places[end - r->seek_left].delta);
            return true;
        } else {
            r->seek_left -= end > from ? end - from : 0;
        }
        r->seek = v->base_offset;
    }
    return false;
}

bool locate_step(struct query_tools *t, struct shelf *shelf, struct store_read *r)
{
    if (r->locate == STORE_AT_LAST)
        return locate_last(t, shelf, r);
    locate_time(t, shelf, r);
    return true;
}
