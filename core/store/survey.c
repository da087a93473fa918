#include "core/store/survey.h"

#include "core/store/scan.h"

#include <stdlib.h>
#include <string.h>

static enum status add_spot(struct survey *s, const struct scan *scan, uint64_t base_offset)
{
    struct survey_spot *spots = realloc(s->spots, (s->spot_count + 1) * sizeof *spots);
    if (!spots)
        return ST_NO_MEMORY;
    s->spots = spots;
    s->spots[s->spot_count++] = (struct survey_spot){scan->bad_position, scan->bad_frame_offset};
    return topic_index_add_bad(s->index, (struct index_range){(uint32_t)(scan->bad_from - base_offset),
                                                              (uint32_t)(scan->bad_to - base_offset)});
}

static enum status add_frame(struct survey *s, const struct scan *scan, uint64_t base_offset)
{
    if (scan->frame.synced_below > s->synced_below)
        s->synced_below = scan->frame.synced_below;
    s->next_offset = scan->next_offset;
    s->data_end = scan->position;
    if (scan->frame.base_time_ms > s->last_time_ms)
        s->last_time_ms = scan->frame.base_time_ms;
    return topic_index_add_frame(s->index,
                                 (struct index_place){(uint32_t)(scan->frame.base_offset - base_offset),
                                                      (uint32_t)(scan->frame_position / 8)});
}

static enum status add_record(struct survey *s, const struct scan *scan, uint64_t base_offset)
{
    if (scan->record.time_ms > s->last_time_ms)
        s->last_time_ms = scan->record.time_ms;
    if (scan->record.internal || scan->record.carried)
        return ST_OK;
    return topic_index_add_record(s->index, scan->record.topic_id, scan->record.topic,
                                  (struct index_place){(uint32_t)(scan->record.offset - base_offset),
                                                       (uint32_t)(scan->record_position / 8)});
}

void survey_tools_init(struct survey_tools *t)
{
    *t = (struct survey_tools){0};
    source_init(&t->source);
}

void survey_tools_deinit(struct survey_tools *t)
{
    source_deinit(&t->source);
    posting_sort_deinit(&t->sort);
}

enum status survey_run(struct survey_tools *t, uint64_t segment_epoch, uint64_t base_offset, bool reused,
                       struct survey *out)
{
    struct survey s = {.next_offset = base_offset, .data_end = sizeof(struct segment_header)};
    enum status st = topic_index_create_whole(&t->sort, &s.index);
    struct scan scan;
    scan_init(&scan, &t->source, segment_epoch, base_offset, s.data_end, base_offset);
    scan.reused = reused;
    for (bool more = true; st == ST_OK && more;) {
        switch (scan_next(&scan)) {
        case SCAN_FRAME:
            st = add_frame(&s, &scan, base_offset);
            break;
        case SCAN_RECORD:
            st = add_record(&s, &scan, base_offset);
            break;
        case SCAN_BAD:
            st = add_spot(&s, &scan, base_offset);
            break;
        case SCAN_END:
            more = false;
            break;
        }
    }
    if (st == ST_OK)
        st = topic_index_settle(s.index);
    if (st != ST_OK) {
        topic_index_destroy(s.index);
        survey_deinit(&s);
        return st;
    }
    s.io_failed = scan.io_failed;
    s.noise_end = scan.noise_end > s.data_end ? scan.noise_end : s.data_end;
    *out = s;
    return ST_OK;
}

void survey_deinit(struct survey *s)
{
    free(s->spots);
    memset(s, 0, sizeof *s);
}
