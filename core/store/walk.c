/* A lane, segment by segment, as a pull: faults of a segment are gathered and told at its end, when it is
 * known that the file was not removed meanwhile by a node's retention (then they are no faults).
 *
 *     enter a segment -> record, record, ... -> end: its index compared -> its faults -> SEGMENT -> the next
 *
 * Rot and tear are judged by view.c's witness, as recovery.c does: a place that does not verify is torn when
 * its frame begins at or above everything that was ever synced, and then nothing behind it counts. */
#include "core/store/view_private.h"

#include "core/store/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct walk {
    struct view *view;
    unsigned lane;
    struct walk_options options;
    struct survey_tools tools;
    struct view_items list;
    struct scan scan;
    uint32_t at; /* of list */
    int fd; /* of the segment that is read; -1: none */
    ino_t inode;
    uint64_t end; /* of what has been passed: the next segment should begin there */
    struct topic_index *index; /* as it should be; NULL: not compared */
    struct walk_fault *faults;
    uint32_t fault_count, fault_cap, fault_told;
    uint64_t frame_end; /* of the last valid frame */
    uint64_t good_end; /* in the file: behind the last record that verified */
    bool gap_open; /* the last fault's position_end is not known yet */
    bool torn; /* nothing behind counts */
    bool begun; /* a record has been passed: what is removed from here on leaves a hole */
    bool finished; /* the segment was read: its faults are told */
    bool failed;
    char path[PATH_MAX];
    struct walk_view look;
};

static const struct view_item *item_of(const struct walk *w)
{
    return &w->list.items[w->at];
}

const struct walk_view *walk_look(const struct walk *w)
{
    return &w->look;
}

const char *walk_path(struct walk *w, uint64_t base_offset, const char *suffix)
{
    return view_path(w->view, w->lane, base_offset, suffix, w->path) ? w->path : "";
}

/* --- faults --- */

static bool add_fault(struct walk *w, const struct walk_fault *fault)
{
    if (w->fault_count == w->fault_cap) {
        uint32_t cap = w->fault_cap ? w->fault_cap * 2 : 16;
        struct walk_fault *faults = realloc(w->faults, cap * sizeof *faults);
        if (!faults)
            return false;
        w->faults = faults;
        w->fault_cap = cap;
    }
    w->faults[w->fault_count++] = *fault;
    return true;
}

static bool add_records_fault(struct walk *w, uint64_t from, uint64_t to, uint64_t position)
{
    w->gap_open = true;
    return add_fault(w, &(struct walk_fault){.kind = FAULT_RECORDS,
                                             .base_offset = item_of(w)->base_offset,
                                             .from = from,
                                             .to = to,
                                             .position = position,
                                             .position_end = position});
}

static bool add_file_fault(struct walk *w, enum walk_fault_kind kind)
{
    const struct view_item *item = item_of(w);
    return add_fault(w, &(struct walk_fault){.kind = kind,
                                             .base_offset = item->base_offset,
                                             .from = item->base_offset,
                                             .to = item->base_offset});
}

/* The damage ends where something verifies again. */
static void close_gap(struct walk *w, uint64_t position)
{
    if (!w->gap_open)
        return;
    w->gap_open = false;
    w->faults[w->fault_count - 1].position_end = position;
}

/* Retention has taken them. Before the first record it is as if the walk had begun later. */
static bool note_removed(struct walk *w, uint64_t from, uint64_t to)
{
    from = from > w->options.from ? from : w->options.from;
    if (!w->options.tell_removed || !w->begun || from >= to)
        return true;
    return add_fault(
        w, &(struct walk_fault){.kind = FAULT_REMOVED, .base_offset = from, .from = from, .to = to});
}

/* What should lie between `w->end` and `to` has no file. */
static bool note_missing(struct walk *w, uint64_t to)
{
    uint64_t from = w->end, first = from;
    if (from < to && w->view->running)
        first = view_first_now(w->view, w->lane);
    if (first > from) {
        if (!note_removed(w, from, first < to ? first : to))
            return false;
        from = first;
    }
    if (from >= to || to <= w->options.from)
        return true;
    return add_fault(
        w, &(struct walk_fault){.kind = FAULT_MISSING, .base_offset = from, .from = from, .to = to});
}

/* --- a segment --- */

/* Where it should end, from what follows it. */
static uint64_t expected_end(const struct walk *w)
{
    const struct view_items *l = &w->list;
    return w->at + 1 < l->count ? l->items[w->at + 1].previous_next : l->synced_below;
}

static bool is_wanted(const struct walk *w, const struct view_item *item)
{
    uint64_t end = item->next_offset > expected_end(w) ? item->next_offset : expected_end(w);
    return end > w->options.from && (!item->indexed || item->last_ms >= w->options.from_ms);
}

/* True: it is open. A file that has gone since it was listed is passed; the next one's header tells whether
 * it should be there. */
static bool open_segment(struct walk *w)
{
    const struct view_item *item = item_of(w);
    struct stat stat;
    w->fd = open(walk_path(w, item->base_offset, "seg"), O_RDONLY | O_CLOEXEC);
    if (w->fd < 0 || fstat(w->fd, &stat) < 0)
        return false;
    w->inode = stat.st_ino;
    source_open(&w->tools.source, w->fd, item->end, NULL, NULL);
    scan_init(&w->scan, &w->tools.source, item->segment_epoch, item->base_offset,
              sizeof(struct segment_header), item->base_offset);
    w->good_end = w->frame_end = sizeof(struct segment_header);
    w->gap_open = false;
    w->look.segment = (struct walk_segment){.base_offset = item->base_offset,
                                            .next_offset = item->next_offset,
                                            .file_bytes = item->file_bytes,
                                            .data_bytes = item->end,
                                            .torn_bytes = item->noise_end - item->end,
                                            .indexed = item->indexed};
    return true;
}

static bool begin_index(struct walk *w)
{
    topic_index_destroy(w->index);
    w->index = NULL;
    return !w->options.check_indexes || !item_of(w)->indexed ||
           topic_index_create_whole(&w->tools.sort, &w->index) == ST_OK;
}

/* Goes to the segment at w->at. False: no memory. */
static bool enter(struct walk *w)
{
    const struct view_item *item = item_of(w);
    bool fine = note_missing(w, item->previous_next);
    if (item->previous_next > w->end)
        w->end = item->previous_next;
    if (item->blank && w->at + 1 == w->list.count)
        return fine; /* made, never written */
    if (item->foreign && w->view->running && w->at + 1 == w->list.count)
        return fine; /* a file that is used again: its new header is on its way */
    if (item->foreign)
        return fine && add_file_fault(w, FAULT_FOREIGN);
    if (!is_wanted(w, item)) {
        w->end = item->next_offset > w->end ? item->next_offset : w->end;
        return fine;
    }
    if (!fine || !open_segment(w))
        return fine;
    if (item->header_bad)
        fine = add_file_fault(w, FAULT_HEADER);
    if (fine && item->index_bad && w->options.check_indexes)
        fine = add_file_fault(w, FAULT_INDEX);
    return fine && begin_index(w);
}

static bool note_bad_records(struct walk *w, uint64_t from, uint64_t to)
{
    uint64_t base = item_of(w)->base_offset;
    struct index_range range = {(uint32_t)(from - base), (uint32_t)(to - base)};
    if (w->index && topic_index_add_bad(w->index, range) != ST_OK)
        return false;
    return add_records_fault(w, from, to, w->good_end);
}

static bool on_bad(struct walk *w)
{
    const struct scan *s = &w->scan;
    if (!item_of(w)->indexed && s->bad_frame_offset >= w->list.synced_below) {
        w->torn = true;
        w->look.segment.torn_bytes = item_of(w)->noise_end - s->bad_position;
        w->look.segment.data_bytes = s->bad_position;
        w->look.segment.next_offset = s->bad_from;
        return true;
    }
    if (w->index &&
        topic_index_add_bad(w->index, (struct index_range){(uint32_t)(s->bad_from - s->base_offset),
                                                           (uint32_t)(s->bad_to - s->base_offset)}) != ST_OK)
        return false;
    return add_records_fault(w, s->bad_from, s->bad_to, w->good_end);
}

static bool index_record(struct walk *w)
{
    const struct scan *s = &w->scan;
    const struct record *r = &s->record;
    if (!w->index || r->internal || r->carried)
        return true;
    struct index_place place = {(uint32_t)(r->offset - s->base_offset), (uint32_t)(s->record_position / 8)};
    return topic_index_add_record(w->index, r->topic_id, r->topic, place) == ST_OK;
}

/* Bytes that were a frame once, without a record that is missing: a mark, which is only a witness. */
static bool note_bad_mark(struct walk *w, uint64_t offset, uint64_t position)
{
    bool judged = item_of(w)->indexed || offset < w->list.synced_below;
    if (position == w->frame_end || w->gap_open || !judged)
        return true;
    topic_index_destroy(w->index); /* it would lack the mark's place */
    w->index = NULL;
    return add_records_fault(w, offset, offset, w->frame_end);
}

static bool on_frame(struct walk *w)
{
    const struct scan *s = &w->scan;
    if (!note_bad_mark(w, s->frame.base_offset, s->frame_position))
        return false;
    close_gap(w, s->frame_position);
    w->frame_end = s->position;
    w->good_end = s->frame_position + sizeof(struct frame_header);
    struct index_place place = {(uint32_t)(s->frame.base_offset - s->base_offset),
                                (uint32_t)(s->frame_position / 8)};
    return !w->index || topic_index_add_frame(w->index, place) == ST_OK;
}

static void count_record(struct walk_segment *seg, const struct record *r)
{
    if (r->internal) {
        seg->internal++;
        return;
    }
    if (r->carried) {
        seg->carried++;
        return;
    }
    if (seg->messages++ == 0 || r->time_ms < seg->first_ms)
        seg->first_ms = r->time_ms;
    if (r->time_ms > seg->last_ms)
        seg->last_ms = r->time_ms;
}

/* *told: it is a message that the caller wants to see. */
static bool on_record(struct walk *w, bool *told)
{
    const struct record *r = &w->scan.record;
    close_gap(w, w->scan.record_position);
    w->good_end = w->scan.record_position + r->stored_bytes;
    w->begun = true;
    count_record(&w->look.segment, r);
    *told = w->options.messages && !r->internal && r->offset >= w->options.from;
    return index_record(w) && (!*told || record_to_msg(r, w->lane, &w->look.msg) == ST_OK);
}

static bool same_index(const struct walk *w, const struct index_file *file)
{
    const struct index_header *h = &file->header;
    uint32_t topics = topic_index_topic_count(w->index), postings = topic_index_posting_count(w->index);
    struct index_places frames = topic_index_frames(w->index), file_frames = index_file_frames(file);
    if (h->topic_count != topics || h->posting_count != postings || file_frames.count != frames.count ||
        (frames.count &&
         memcmp(file_frames.places, frames.places, frames.count * sizeof *frames.places) != 0))
        return false;
    size_t topics_bytes = topics * sizeof(struct index_topic),
           bytes = topics_bytes + postings * sizeof(struct index_place);
    uint8_t *want = malloc(bytes + 8);
    if (!want)
        return true; /* not known to differ */
    topic_index_export(w->index, (struct index_topic *)(void *)want,
                       (struct index_place *)(void *)(want + topics_bytes));
    bool same = memcmp(want, file->bytes + sizeof *h, bytes) == 0;
    free(want);
    return same;
}

/* An index is compared with what its segment holds, unless that is damaged where the index does not say so:
 * then the index is right. */
static bool compare_index(struct walk *w)
{
    struct index_file file;
    uint32_t bad_count, file_bad;
    if (!w->index)
        return true;
    if (topic_index_settle(w->index) != ST_OK)
        return false;
    topic_index_bad(w->index, &bad_count);
    enum status st = index_file_map(walk_path(w, item_of(w)->base_offset, "idx"), true, &file);
    if (st == ST_NOT_FOUND)
        return true; /* it has gone with its segment */
    bool fine = st == ST_OK;
    if (fine) {
        index_file_bad(&file, &file_bad);
        fine = file_bad != bad_count || same_index(w, &file);
        index_file_unmap(&file);
    }
    return fine || add_file_fault(w, FAULT_INDEX);
}

/* The end of what verifies. Is something missing behind it? */
static bool judge_end(struct walk *w)
{
    const struct view_item *item = item_of(w);
    uint64_t next = w->scan.next_offset, expected = expected_end(w);
    close_gap(w, w->scan.position);
    if (w->torn)
        return true;
    if (next < expected && !item->indexed && next >= w->list.synced_below) {
        w->torn = true;
        return true;
    }
    uint64_t due = item->indexed ? item->next_offset : expected;
    bool fine = next < due ? note_bad_records(w, next, due)
                           : !item->indexed || note_bad_mark(w, next, item->file_bytes);
    close_gap(w, item->file_bytes);
    w->end = next > due ? next : due;
    w->look.segment.next_offset = w->end;
    return fine;
}

/* Removed (or used again under another name) while it was read. */
static bool was_removed(struct walk *w)
{
    struct stat stat;
    if (!w->view->running)
        return false;
    const char *path = walk_path(w, item_of(w)->base_offset, "seg");
    bool gone = lstat(path, &stat) < 0 ? errno == ENOENT : stat.st_ino != w->inode;
    return gone && view_first_now(w->view, w->lane) > item_of(w)->base_offset;
}

/* Of a file that was removed while it was read: nothing is wrong with it. What was not read any more has gone
 * with it. */
static void forgive_faults(struct walk *w)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->fault_count; i++) {
        struct walk_fault f = w->faults[i];
        bool unread = f.kind == FAULT_RECORDS && f.from < f.to && w->begun && w->options.tell_removed;
        if (unread)
            f.kind = FAULT_REMOVED;
        if (unread || f.kind == FAULT_MISSING || f.kind == FAULT_REMOVED)
            w->faults[kept++] = f;
    }
    w->fault_count = kept;
}

static bool leave(struct walk *w)
{
    bool fine = judge_end(w) && compare_index(w);
    if (was_removed(w)) {
        forgive_faults(w);
    }
    close(w->fd);
    w->fd = -1;
    w->finished = true;
    return fine;
}

/* --- the walk --- */

static enum walk_event fail(struct walk *w)
{
    w->failed = true;
    return WALK_FAILED;
}

/* One step within the open segment. True: *event is to be told. */
static bool step(struct walk *w, enum walk_event *event)
{
    bool told = false, fine = true;
    switch (scan_next(&w->scan)) {
    case SCAN_FRAME:
        fine = on_frame(w);
        break;
    case SCAN_RECORD:
        fine = on_record(w, &told);
        *event = WALK_MESSAGE;
        break;
    case SCAN_BAD:
        fine = on_bad(w);
        if (fine && w->torn)
            fine = leave(w);
        break;
    case SCAN_END:
        fine = leave(w);
        break;
    }
    if (!fine)
        *event = fail(w);
    return told || !fine;
}

static bool tell_fault(struct walk *w)
{
    if (w->fault_told == w->fault_count) {
        w->fault_told = w->fault_count = 0;
        return false;
    }
    w->look.fault = w->faults[w->fault_told++];
    return true;
}

/* After the last segment: does the log end too early? Once. */
static bool judge_lane_end(struct walk *w)
{
    w->torn = true;
    return w->list.first >= w->list.synced_below || note_missing(w, w->list.synced_below);
}

enum walk_event walk_next(struct walk *w)
{
    enum walk_event event = WALK_END;
    msg_unref(w->look.msg);
    w->look.msg = NULL;
    while (!w->failed) {
        if (w->fd >= 0) {
            if (step(w, &event))
                return event;
            continue;
        }
        if (tell_fault(w))
            return WALK_FAULT;
        if (w->finished) {
            w->finished = false;
            w->at++;
            return WALK_SEGMENT;
        }
        bool more = w->at < w->list.count && !w->torn;
        if (!more && w->torn)
            return WALK_END;
        if (more ? !enter(w) : !judge_lane_end(w))
            return fail(w);
        if (more && w->fd < 0)
            w->at++; /* it was passed */
    }
    return WALK_FAILED;
}

enum status walk_open(struct view *v, unsigned lane, const struct walk_options *o, struct walk **out,
                      struct buf *error)
{
    struct walk *w = calloc(1, sizeof *w);
    if (!w)
        return ST_NO_MEMORY;
    w->view = v;
    w->lane = lane;
    w->options = *o;
    w->fd = -1;
    survey_tools_init(&w->tools);
    enum status st = view_list(v, lane, &w->tools, &w->list, error);
    if (st != ST_OK) {
        walk_close(w);
        return st;
    }
    w->end = w->list.first;
    w->look.segments_total = w->list.count;
    *out = w;
    return ST_OK;
}

void walk_close(struct walk *w)
{
    if (!w)
        return;
    msg_unref(w->look.msg);
    topic_index_destroy(w->index);
    if (w->fd >= 0)
        close(w->fd);
    survey_tools_deinit(&w->tools);
    free(w->list.items);
    free(w->faults);
    free(w);
}
