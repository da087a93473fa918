/* The walk of FORMAT.md 8.
 *
 * A header that does not verify says nothing, not even where the next one is. So the walk looks at every
 * multiple of 8 behind it; a header is believed when its CRC holds and it carries the segment's epoch,
 * which nobody outside knows. Offsets within a segment have no holes, hence the distance from the
 * offset that was due to the one that came is exactly what is lost. In a frame's body it is the same with
 * records, whose CRC is seeded by epoch and frame: a payload that imitates a record does not pass. */
#include "core/store/scan.h"

#include <string.h>

enum { HEADER_BYTES = sizeof(struct frame_header), RECORD_BYTES_MIN = sizeof(struct record_header) };
/* A damaged frame may be full of bytes that look like long records: so much is checked, then it is given up.
 */
enum { SEARCH_BYTES_MAX = 64 << 20 };

void scan_init(struct scan *s, struct source *source, uint64_t segment_epoch, uint64_t base_offset,
               uint64_t position, uint64_t next_offset)
{
    *s = (struct scan){.source = source,
                       .segment_epoch = segment_epoch,
                       .base_offset = base_offset,
                       .position = position,
                       .next_offset = next_offset};
}

static bool header_at(struct scan *s, uint64_t position, const uint8_t *bytes, struct frame_header *h)
{
    return frame_header_decode(bytes, s->source->end - position, s->segment_epoch, h) == ST_OK &&
           h->base_offset >= s->next_offset && h->base_offset - s->base_offset <= UINT32_MAX;
}

static bool is_noise(const struct scan *s, const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return s->reused ? word == s->segment_epoch : word != 0;
}

/* The next valid header at or behind s->position. */
static bool find_header(struct scan *s, struct frame_header *h, uint64_t *position)
{
    uint64_t at = s->position;
    while (at + HEADER_BYTES <= s->source->end) {
        const uint8_t *bytes = source_get(s->source, at, HEADER_BYTES, &s->io_failed);
        if (bytes && header_at(s, at, bytes, h)) {
            *position = at;
            return true;
        }
        if (bytes && is_noise(s, bytes))
            s->noise_end = at + 8;
        at += 8;
    }
    return false;
}

static enum scan_event enter_frame(struct scan *s)
{
    s->frame_held = false;
    s->in_frame = true;
    s->record_index = 0;
    s->search_bytes = 0;
    s->seed = record_seed(s->segment_epoch, s->frame.base_offset);
    s->body_at = s->frame_position + HEADER_BYTES;
    s->body_end = s->frame_position + s->frame.frame_bytes;
    s->position = s->body_end;
    s->next_offset = s->frame.base_offset + s->frame.record_count;
    return SCAN_FRAME;
}

static enum scan_event next_frame(struct scan *s)
{
    if (s->frame_held)
        return enter_frame(s);
    uint64_t expected_position = s->position, expected = s->next_offset;
    if (!find_header(s, &s->frame, &s->frame_position))
        return SCAN_END;
    if (s->frame.base_offset == expected)
        return enter_frame(s);
    s->frame_held = true;
    s->bad_from = expected;
    s->bad_to = s->frame.base_offset;
    s->bad_position = expected_position;
    s->bad_frame_offset = expected;
    return SCAN_BAD;
}

/* Could a record of so many bytes be the next one? The lengths in its header, then its number. */
static uint32_t claimed_at(const struct scan *s, uint64_t at, const uint8_t *bytes)
{
    struct record_header h;
    uint32_t claimed = record_claimed_bytes(bytes, s->body_end - at);
    memcpy(&h, bytes, sizeof h);
    bool due = h.offset_delta >= s->record_index && h.offset_delta < s->frame.record_count;
    return due ? claimed : 0;
}

/* A valid record there is in s->record. */
static bool record_at(struct scan *s, uint64_t at)
{
    if (s->body_end - at < RECORD_BYTES_MIN)
        return false;
    uint64_t ready;
    const uint8_t *bytes = source_peek(s->source, at, &ready);
    if (ready < RECORD_BYTES_MIN)
        bytes = source_get(s->source, at, RECORD_BYTES_MIN, &s->io_failed);
    if (!bytes)
        return false;
    uint32_t claimed = claimed_at(s, at, bytes);
    if (claimed == 0)
        return false;
    if (ready < claimed)
        bytes = source_get(s->source, at, claimed, &s->io_failed);
    if (bytes && record_decode(slice_of(bytes, claimed), s->seed, s->frame.base_offset, &s->record) == ST_OK)
        return true;
    s->search_bytes += claimed;
    return false;
}

static enum scan_event tell_bad_records(struct scan *s, uint32_t to)
{
    s->bad_from = s->frame.base_offset + s->record_index;
    s->bad_to = s->frame.base_offset + to;
    s->bad_position = s->frame_position;
    s->bad_frame_offset = s->frame.base_offset;
    s->record_index = to;
    return SCAN_BAD;
}

static enum scan_event next_record(struct scan *s)
{
    uint64_t at = s->body_at;
    bool found = false;
    while (at < s->body_end && s->search_bytes <= SEARCH_BYTES_MAX && !(found = record_at(s, at)))
        at += 8;
    if (!found) {
        s->in_frame = false;
        return tell_bad_records(s, s->frame.record_count);
    }
    uint32_t index = (uint32_t)(s->record.offset - s->frame.base_offset);
    s->body_at = at;
    if (index > s->record_index)
        return tell_bad_records(s, index); /* the record itself is told next */
    s->record_position = at;
    s->record_index++;
    s->body_at += s->record.stored_bytes;
    return SCAN_RECORD;
}

enum scan_event scan_next(struct scan *s)
{
    if (s->in_frame) {
        if (s->record_index < s->frame.record_count)
            return next_record(s);
        s->in_frame = false;
    }
    return next_frame(s);
}

void scan_skip_frame(struct scan *s)
{
    s->in_frame = false;
}
