/* A read goes through its range in spans: a span lies within one volume and holds no damage that is known.
 * So damage is met only at a span's end, whichever way the span is read:
 *
 *     |--- span ---|xxx bad xxx|------ span ------| next volume ...
 *                  ^ the read ends here; the next one begins here, answers ST_CORRUPT and says where to go on
 *
 * Damage that is newer than the index (a record that does not verify now) is met by the walk itself and
 * handled the same way. In reverse the same spans are gone through from the other end.
 *
 * A read by a filter goes by the lists of the topics that it wants, put together by offset, where their names
 * are known and their records are few; else by a walk, which learns the names (vocabulary.h). The walk is the
 * truth: where the two could differ, in a list that strangers share, each record's name is asked for again.
 *
 * Of a topic a step goes through a bounded number of spans and the read waits its turn for the next ones: a
 * topic without records would else be looked for in thousands of segments at one go. */
#include "core/store/query.h"

#include "core/hash.h"
#include "core/metrics.h"
#include "core/store/locate.h"
#include "core/store/scan.h"
#include "core/store/segment.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCAN_STEP_BYTES_MAX = 4 << 20,
    STEP_SPANS_MAX = 64,
    NEAR_BYTES = 32 << 10, /* the next record is so near that one window should hold both */
    DENSE_SURE = 512,
    SPARSE = 8, /* a record by its list costs about as much as so many that a scan passes */
    FAR_AHEAD_BYTES = 2 << 10,
    NEAR_AHEAD_BYTES = 64 << 10,
};

enum go { GO_ON, GO_STOP };

struct step {
    struct query_tools *tools;
    struct shelf *shelf;
    struct store_read *read;
    struct volume *volume;
    uint64_t list_id; /* of the index: the topic's, or the inbox's */
    bool out_of_budget;
    bool unlearned; /* not all names of this walk are in the vocabulary */
    uint64_t walk_from; /* where this walk began */
};

void query_tools_init(struct query_tools *t)
{
    memset(t, 0, sizeof *t);
    source_init(&t->source);
}

void query_tools_deinit(struct query_tools *t)
{
    source_deinit(&t->source);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t greatest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void query_begin(struct store_read *r, uint64_t first)
{
    r->status = ST_OK;
    r->first = first;
    r->found = 0;
    r->msgs = NULL;
    r->msgs_cap = 0;
    r->bytes = 0;
    if (r->locate != STORE_AT_OFFSET) {
        locate_begin(r);
    } else if (r->reverse) {
        r->status = r->end < first ? ST_GONE : ST_OK; /* all that lay before it, and it is missed */
        query_turn_back(r, greatest(r->end, first));
    } else {
        r->status = r->from < first ? ST_GONE : ST_OK;
        r->next = r->from < first ? first : r->from;
    }
}

void query_turn_back(struct store_read *r, uint64_t to)
{
    uint64_t bottom = greatest(r->from, r->first);
    r->next = to;
    r->end = least(bottom, to);
}

/* Retention has gone on between two steps. False: the answer is complete. */
static bool follow_first(struct store_read *r, uint64_t first)
{
    if (first <= r->first)
        return true;
    r->first = first;
    if (r->locate != STORE_AT_OFFSET)
        return true;
    if (r->reverse) {
        r->end = least(greatest(r->end, first), r->next);
        return true;
    }
    if (r->next >= first)
        return true;
    if (!r->count_only && r->found > 0)
        return false;
    r->status = r->count_only ? ST_OK : ST_GONE;
    r->next = first;
    return r->count_only;
}

/* --- collecting --- */

/* [from, to) cannot be read. What has been found is the answer; with nothing found the damage is. */
static enum go damaged(struct step *s, uint64_t from, uint64_t to)
{
    struct store_read *r = s->read;
    uint64_t before = r->reverse ? to : from, behind = r->reverse ? from : to;
    if (r->count_only) {
        r->next = behind;
        return GO_ON;
    }
    if (r->found > 0) {
        r->next = before;
        return GO_STOP;
    }
    r->status = ST_CORRUPT;
    r->next = behind;
    return GO_STOP;
}

static bool msgs_reserve(struct store_read *r)
{
    if (r->found < r->msgs_cap)
        return true;
    uint32_t cap = r->msgs_cap ? r->msgs_cap * 2 : 16;
    struct msg **msgs = realloc(r->msgs, cap * sizeof(struct msg *));
    if (!msgs)
        return false;
    r->msgs = msgs;
    r->msgs_cap = cap;
    return true;
}

/* A record that is wanted. Moves `next` past it when it was taken. */
static enum go collect(struct step *s, const struct record *record)
{
    struct store_read *r = s->read;
    uint64_t before = record->offset + r->reverse, behind = record->offset + !r->reverse;
    if (!r->state_only && voids_has(s->shelf->voids, record->offset)) {
        r->next = behind;
        return GO_ON;
    }
    if (r->count_only) {
        r->found++;
        r->next = behind;
        return GO_ON;
    }
    uint64_t bytes = record->topic.len + record->payload.len;
    if (r->found > 0 && r->bytes + bytes > r->bytes_max) {
        r->next = before;
        return GO_STOP;
    }
    if (!msgs_reserve(r) || record_to_msg(record, r->lane, &r->msgs[r->found]) != ST_OK) {
        r->next = before;
        r->status = r->found > 0 ? ST_OK : ST_NO_MEMORY;
        return GO_STOP;
    }
    r->found++;
    r->bytes += bytes;
    r->next = behind;
    return r->found == r->count_max ? GO_STOP : GO_ON;
}

/* --- by topic --- */

/* Lists are named by hashes, and an inbox may be asked for in part: is the record meant? */
static bool is_meant(const struct store_read *r, struct slice topic)
{
    if (!r->inbox)
        return slice_equal(topic, r->topic);
    return slice_starts_with(topic, r->topic) &&
           (topic.len == r->topic.len || topic.data[r->topic.len] == '/') &&
           (!r->wants || r->wants(r->wants_ctx, topic));
}

/* The record that an index entry names. ST_CORRUPT: it is not there. */
static enum status fetch(struct step *s, struct index_place place, struct record *out)
{
    struct source *source = &s->tools->source;
    uint64_t position = place.place * 8ull, offset = s->volume->base_offset + place.delta;
    bool failed = false;
    struct record_header h;
    const uint8_t *bytes = source_get(source, position, sizeof h, &failed);
    if (!bytes)
        return ST_CORRUPT;
    memcpy(&h, bytes, sizeof h);
    uint32_t claimed = record_claimed_bytes(bytes, source->end - position);
    if (claimed == 0 || h.offset_delta > offset)
        return ST_CORRUPT;
    bytes = source_get(source, position, claimed, &failed);
    if (!bytes)
        return ST_CORRUPT;
    uint64_t frame_base = offset - h.offset_delta;
    return record_decode(slice_of(bytes, claimed), record_seed(s->volume->segment_epoch, frame_base),
                         frame_base, out);
}

static bool has_voids(const struct step *s, uint64_t from, uint64_t to)
{
    return s->shelf->voids && voids_between(s->shelf->voids, from, to) > 0;
}

static enum go topic_span(struct step *s, uint64_t stop)
{
    struct store_read *r = s->read;
    struct index_places p = volume_find(s->volume, s->list_id);
    uint32_t i = index_places_below(p, r->next - s->volume->base_offset);
    uint32_t end = index_places_below(p, stop - s->volume->base_offset);
    /* By the index alone: a name whose topic_id collides would be counted too. */
    if (r->count_only && !(r->inbox && r->wants) && !has_voids(s, r->next, stop)) {
        r->found += end - i;
        i = end;
    }
    for (; i < end; i++) {
        bool near = i + 1 < end && (p.places[i + 1].place - p.places[i].place) * 8ull < NEAR_BYTES;
        s->tools->source.ahead = near ? NEAR_AHEAD_BYTES : FAR_AHEAD_BYTES;
        uint64_t offset = s->volume->base_offset + p.places[i].delta;
        struct record record;
        if (fetch(s, p.places[i], &record) != ST_OK)
            return damaged(s, offset, offset + 1);
        if (is_meant(r, record.topic) && collect(s, &record) == GO_STOP)
            return GO_STOP;
    }
    r->next = stop;
    return GO_ON;
}

/* The same from the other end, down to `bottom`. */
static enum go topic_span_back(struct step *s, uint64_t bottom)
{
    struct store_read *r = s->read;
    assert(r->topic.data); /* only a topic is read back */
    struct index_places p = volume_find(s->volume, s->list_id);
    uint32_t i = index_places_below(p, r->next - s->volume->base_offset);
    uint32_t end = index_places_below(p, bottom - s->volume->base_offset);
    s->tools->source.ahead = FAR_AHEAD_BYTES;
    while (i-- > end) {
        uint64_t offset = s->volume->base_offset + p.places[i].delta;
        struct record record;
        if (fetch(s, p.places[i], &record) != ST_OK)
            return damaged(s, offset, offset + 1);
        if (is_meant(r, record.topic) && collect(s, &record) == GO_STOP)
            return GO_STOP;
    }
    r->next = bottom;
    return GO_ON;
}

/* --- in order --- */

/* Is it part of what a lane's state is folded from? */
static bool is_state(const struct record *record)
{
    struct slice value;
    return record->internal || (record->bits & RECORD_RETAIN) ||
           (record->props.len > 0 && (props_find(record->props, PROP_PRODUCER, &value) ||
                                      props_find(record->props, PROP_IDEMPOTENCY, &value)));
}

/* A read by a filter teaches names, and may go by them. */
static bool by_filter(const struct step *s)
{
    const struct store_read *r = s->read;
    return s->shelf->words && r->filter.len > 0 && r->wants && !r->topic.data && !r->state_only;
}

/* True: the vocabulary has the record's name. */
static bool learn(struct step *s, const struct record *record)
{
    struct vocabulary *words = s->shelf->words;
    const struct store_read *r = s->read;
    if (s->unlearned)
        return false;
    /* Names cost a walk more than they are worth to a filter that wants much of it. */
    if (r->found * SPARSE > record->offset - s->walk_from + DENSE_SURE) {
        s->unlearned = true;
        return false;
    }
    uint64_t bytes = vocabulary_bytes(words);
    s->unlearned = !vocabulary_learn(words, record->topic_id, record->topic);
    if (s->tools->metrics)
        metric_add(s->tools->metrics, M_LOG_NAMES_BYTES, vocabulary_bytes(words) - bytes);
    return !s->unlearned;
}

/* Not what is known already, nor for a filter that wants too many topics. */
static bool worth_learning(const struct step *s, uint64_t stop)
{
    const struct volume *v = s->volume;
    return !(s->read->next >= v->known_from && stop <= v->known_to) &&
           !vocabulary_is_broad(s->shelf->words, s->read->filter);
}

/* The walk has seen every name in [from, to) of the volume. */
static void learned(struct step *s, uint64_t from, uint64_t to)
{
    struct volume *v = s->volume;
    if (!by_filter(s) || to <= from)
        return;
    vocabulary_earn(s->shelf->words, to - from);
    if (s->tools->metrics)
        metric_add(s->tools->metrics, M_LOG_FILTER_SCANNED, to - from);
    if (s->unlearned)
        return;
    if (from <= v->known_to && to >= v->known_from && v->known_to > 0) {
        v->known_from = least(v->known_from, from);
        v->known_to = greatest(v->known_to, to);
    } else if (to - from > v->known_to - v->known_from) {
        v->known_from = from;
        v->known_to = to;
    }
}

static bool wanted(struct step *s, const struct record *record)
{
    const struct store_read *r = s->read;
    struct slice topic = record->topic;
    if (r->state_only && !is_state(record))
        return false;
    if (!r->wants)
        return true;
    if (topic.len > MEMO_TOPIC_BYTES) {
        (void)learn(s, record);
        return r->wants(r->wants_ctx, topic);
    }
    struct memo_slot *slot = &s->tools->memo[record->topic_id % MEMO_SLOTS];
    if (slot->step != s->tools->step || !slice_equal(slice_of(slot->topic, slot->len), topic)) {
        slot->step = s->tools->step;
        slot->len = (uint8_t)topic.len;
        if (topic.len > 0)
            memcpy(slot->topic, topic.data, topic.len);
        slot->wanted = r->wants(r->wants_ctx, topic);
        slot->learned = false;
    }
    /* The slot may be of a part of this step in which nothing was learned. */
    if (!s->unlearned && !slot->learned)
        slot->learned = learn(s, record);
    return slot->wanted;
}

static void advance(struct store_read *r, uint64_t to, uint64_t stop)
{
    to = to < stop ? to : stop;
    r->next = to > r->next ? to : r->next;
}

static enum go on_frame(struct step *s, struct scan *scan, uint64_t begun, uint64_t stop)
{
    struct store_read *r = s->read;
    const struct frame_header *f = &scan->frame;
    uint64_t end = f->base_offset + f->record_count;
    if (f->base_offset > r->next)
        advance(r, f->base_offset, stop);
    if (f->flags & FRAME_CONTROL)
        advance(r, end, stop);
    if (end <= r->next)
        scan_skip_frame(scan);
    else if (scan->frame_position - begun > SCAN_STEP_BYTES_MAX) {
        s->out_of_budget = true;
        return GO_STOP;
    }
    return GO_ON;
}

static enum go on_record(struct step *s, const struct record *record)
{
    struct store_read *r = s->read;
    if (record->offset < r->next)
        return GO_ON;
    /* A carried record is the newest retained message of its topic once more, a note is state alone: for
     * whoever folds those. */
    bool shown = r->state_only || !(record->internal || record->carried);
    if (shown && wanted(s, record))
        return collect(s, record);
    r->next = record->offset + 1;
    return GO_ON;
}

static enum go scan_span(struct step *s, uint64_t stop)
{
    struct store_read *r = s->read;
    uint64_t position, frame_offset;
    struct scan scan;
    volume_frame_before(s->volume, r->next, &position, &frame_offset);
    scan_init(&scan, &s->tools->source, s->volume->segment_epoch, s->volume->base_offset, position,
              frame_offset);
    enum go go = GO_ON;
    uint64_t begun = s->walk_from = r->next;
    s->unlearned = !by_filter(s) || !worth_learning(s, stop);
    while (r->next < stop && go == GO_ON) {
        switch (scan_next(&scan)) {
        case SCAN_FRAME:
            go = on_frame(s, &scan, position, stop);
            break;
        case SCAN_RECORD:
            go = on_record(s, &scan.record);
            break;
        case SCAN_BAD: /* newer than the index; whose records these are nobody knows */
            s->unlearned = true;
            if (scan.bad_to > r->next)
                go = damaged(s, scan.bad_from > r->next ? scan.bad_from : r->next, scan.bad_to);
            break;
        case SCAN_END:
            s->unlearned = true;
            go = damaged(s, r->next, stop);
            break;
        }
    }
    learned(s, begun, r->next);
    return go;
}

/* --- by the lists of a filter --- */

struct merge {
    struct index_places lists[PLAN_LISTS_MAX]; /* what of each lies in the span */
    unsigned count;
    uint64_t records;
};

static void merge_gather(const struct step *s, const struct plan *p, uint64_t from, uint64_t stop,
                         struct merge *m)
{
    m->count = 0;
    m->records = 0;
    for (unsigned i = 0; i < p->list_count; i++) {
        struct index_places all = volume_find(s->volume, p->lists[i]);
        uint32_t begin = index_places_below(all, from - s->volume->base_offset);
        uint32_t end = index_places_below(all, stop - s->volume->base_offset);
        if (begin == end)
            continue;
        m->lists[m->count++] = (struct index_places){all.places + begin, end - begin};
        m->records += end - begin;
    }
}

/* True: the lists are to be read, up to `stop`. The rule: all names of the span are known, the filter wants
 * at most PLAN_LISTS_MAX topics, and they have less than one of SPARSE records of what is known of the
 * volume.
 */
static bool merge_begin(struct step *s, uint64_t stop, struct merge *m)
{
    const struct store_read *r = s->read;
    const struct volume *v = s->volume;
    if (!by_filter(s) || r->next < v->known_from || r->next >= v->known_to)
        return false;
    struct plan *p = vocabulary_plan(s->shelf->words, r->filter, r->wants, r->wants_ctx);
    if (!p || p->dense_base == v->base_offset + 1)
        return false;
    merge_gather(s, p, v->known_from, v->known_to, m);
    if (m->records * SPARSE > v->known_to - v->known_from) {
        p->dense_base = v->base_offset + 1;
        return false;
    }
    merge_gather(s, p, r->next, stop, m);
    return true;
}

/* Takes the record with the lowest offset out of the lists. False: they are empty. */
static bool merge_next(struct merge *m, struct index_place *out)
{
    struct index_places *first = NULL;
    for (unsigned i = 0; i < m->count; i++)
        if (m->lists[i].count > 0 && (!first || m->lists[i].places->delta < first->places->delta))
            first = &m->lists[i];
    if (!first)
        return false;
    *out = *first->places++;
    first->count--;
    return true;
}

static enum go merge_span(struct step *s, struct merge *m, uint64_t stop)
{
    struct store_read *r = s->read;
    uint64_t begun = r->next;
    enum go go = GO_ON;
    struct index_place place;
    s->tools->source.ahead = FAR_AHEAD_BYTES;
    bool by_lists = r->count_only && !has_voids(s, r->next, stop); /* as topic_span */
    if (by_lists)
        r->found += m->records;
    while (!by_lists && go == GO_ON && merge_next(m, &place)) {
        uint64_t offset = s->volume->base_offset + place.delta;
        struct record record;
        if (fetch(s, place, &record) != ST_OK)
            go = damaged(s, offset, offset + 1);
        else if (r->wants(r->wants_ctx, record.topic))
            go = collect(s, &record);
    }
    if (go == GO_ON)
        r->next = stop;
    if (s->tools->metrics)
        metric_add(s->tools->metrics, M_LOG_FILTER_MERGED, r->next - begun);
    return go;
}

/* --- spans --- */

static enum go next_span(struct step *s)
{
    struct store_read *r = s->read;
    uint32_t i = shelf_find(s->shelf, r->next);
    if (i == s->shelf->count) { /* offsets that a start has jumped over */
        r->next = r->end;
        return GO_ON;
    }
    struct volume *v = s->shelf->volumes[i];
    s->volume = v;
    if (r->next < v->base_offset) {
        /* A file that is gone, or its end: that is missed, unlike what a start jumped over. */
        if (r->next < v->previous_next)
            return damaged(s, r->next, least(v->previous_next, r->end));
        r->next = least(v->base_offset, r->end);
        return GO_ON;
    }
    uint64_t stop = least(r->end, v->next_offset), bad_from, bad_to;
    if (volume_use(&s->tools->cache, s->shelf, v) != ST_OK)
        return damaged(s, r->next, stop);
    if (volume_bad_from(v, r->next, &bad_from, &bad_to)) {
        if (bad_from <= r->next)
            return damaged(s, r->next, least(bad_to, r->end));
        stop = least(stop, bad_from);
    }
    volume_source(s->shelf, v, &s->tools->source);
    struct merge merge;
    if (r->topic.data)
        return topic_span(s, stop);
    if (r->next >= v->known_from && r->next < v->known_to)
        stop = least(stop, v->known_to); /* what is known is walked without learning */
    return merge_begin(s, stop, &merge) ? merge_span(s, &merge, stop) : scan_span(s, stop);
}

/* Between volume i and the one before, or below or behind all of them; cf. next_span. */
static enum go hole_back(struct step *s, uint32_t i)
{
    const struct shelf *shelf = s->shelf;
    struct store_read *r = s->read;
    uint64_t before = i > 0 ? shelf->volumes[i - 1]->next_offset : 0;
    uint64_t missed = i < shelf->count ? shelf->volumes[i]->previous_next : before;
    uint64_t bottom = greatest(before, r->end);
    if (r->next <= missed)
        return damaged(s, bottom, r->next);
    r->next = greatest(missed, bottom);
    return GO_ON;
}

static enum go next_span_back(struct step *s)
{
    struct store_read *r = s->read;
    uint32_t i = shelf_find(s->shelf, r->next - 1);
    if (i == s->shelf->count || s->shelf->volumes[i]->base_offset >= r->next)
        return hole_back(s, i);
    struct volume *v = s->shelf->volumes[i];
    s->volume = v;
    uint64_t bottom = greatest(r->end, v->base_offset), bad_from, bad_to;
    if (volume_use(&s->tools->cache, s->shelf, v) != ST_OK)
        return damaged(s, bottom, r->next);
    if (volume_bad_below(v, r->next, &bad_from, &bad_to)) {
        if (bad_to >= r->next)
            return damaged(s, greatest(bad_from, r->end), r->next);
        bottom = greatest(bottom, bad_to);
    }
    volume_source(s->shelf, v, &s->tools->source);
    return topic_span_back(s, bottom);
}

uint64_t query_list_id(const struct store_read *r)
{
    uint64_t id;
    return r->inbox && record_inbox_list(r->topic, &id) ? id : hash64_stable(r->topic);
}

bool query_step(struct query_tools *t, struct shelf *shelf, struct store_read *r, uint64_t first)
{
    struct step s = {.tools = t, .shelf = shelf, .read = r};
    if (r->status != ST_OK || !follow_first(r, first))
        return true;
    if (r->locate != STORE_AT_OFFSET && !locate_step(t, shelf, r))
        return false;
    if (r->topic.data)
        s.list_id = query_list_id(r);
    t->step++;
    for (unsigned spans = 0; !store_read_complete(r); spans++) {
        if (spans == STEP_SPANS_MAX) {
            s.out_of_budget = true;
            break;
        }
        if ((r->reverse ? next_span_back(&s) : next_span(&s)) == GO_STOP)
            break;
    }
    /* A read in order goes back to its owner: what has not matched cost as much as a page. */
    return !(s.out_of_budget && (r->count_only || r->topic.data));
}
