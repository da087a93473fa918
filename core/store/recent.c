/* A live reader that has fallen a little behind finds what it missed here, without a letter to the reader
 * thread. Frames are contiguous in offsets from the oldest one in memory to the open one; within a frame
 * records are found by walking, which a frame's size bounds. */
#include "core/store/recent.h"

#include "core/store/record.h"

#include <string.h>

/* The number of the frame in the ring that holds `offset`, or of the next; frames_count: none. */
static uint32_t frame_of(const struct lane *l, uint64_t offset)
{
    uint32_t low = 0, high = l->frames_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (frame_next_offset(lane_frame(l, middle)) <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct query {
    struct slice topic;
    bool (*wants)(void *ctx, struct slice topic);
    void *wants_ctx;
    uint32_t count_max, found;
    struct msg **msgs;
    uint64_t next; /* behind the last record that was looked at */
};

static bool is_wanted(const struct query *q, struct slice topic)
{
    if (q->topic.data)
        return slice_equal(q->topic, topic);
    return !q->wants || q->wants(q->wants_ctx, topic);
}

/* False: enough, or no memory. */
static bool look_at_frame(const struct lane *l, const struct frame *f, struct query *q)
{
    uint64_t at = sizeof(struct frame_header);
    for (uint32_t i = 0; i < f->record_count; i++) {
        struct record_header h;
        memcpy(&h, f->bytes + at, sizeof h);
        uint32_t bytes = (uint32_t)align8(h.record_bytes);
        uint64_t offset = f->base_offset + h.offset_delta;
        struct slice topic =
            slice_of(f->bytes + at + sizeof h + record_optional_bytes(h.flags), h.topic_bytes);
        bool shown = !f->control && !(h.flags & RECORD_HIDDEN);
        if (offset >= q->next && shown && is_wanted(q, topic) && !voids_has(l->voids, offset)) {
            struct record r;
            if (q->found == q->count_max)
                return false;
            /* Its own bytes a moment ago: this is memory, it cannot be corrupt. */
            enum status st = record_decode(slice_of(f->bytes + at, bytes), f->seed, f->base_offset, &r);
            assert(st == ST_OK);
            if (record_to_msg(&r, l->index, &q->msgs[q->found]) != ST_OK)
                return false;
            q->found++;
        }
        if (offset >= q->next)
            q->next = offset + 1;
        at += bytes;
    }
    return true;
}

enum status recent_read(const struct lane *l, uint64_t from, struct slice topic,
                        bool (*wants)(void *ctx, struct slice topic), void *wants_ctx, uint32_t count_max,
                        struct msg **msgs, uint32_t *found, uint64_t *next)
{
    uint64_t oldest = l->frames_count ? lane_frame(l, 0)->base_offset
                      : l->open       ? l->open->base_offset
                                      : l->next;
    /* What retention has removed is gone, though it may lie in memory still. */
    if (from < oldest || from < atomic_load_explicit(&l->first, memory_order_acquire))
        return ST_NOT_FOUND;
    struct query q = {.topic = topic,
                      .wants = wants,
                      .wants_ctx = wants_ctx,
                      .count_max = count_max,
                      .msgs = msgs,
                      .next = from};
    bool more = true;
    for (uint32_t i = frame_of(l, from); more && i < l->frames_count; i++)
        more = look_at_frame(l, lane_frame(l, i), &q);
    if (more && l->open)
        look_at_frame(l, l->open, &q);
    *found = q.found;
    *next = q.next;
    return ST_OK;
}
