/* Postings of a whole segment, gathered in any number and put in the order of an index file at the end: by
 * topic_id, within a topic as they were added. One after the other may use it: its memory stays. One
 * thread. */
#ifndef TG_CORE_STORE_POSTING_SORT_H
#define TG_CORE_STORE_POSTING_SORT_H

#include "core/status.h"
#include "core/store/format.h"

struct posting {
    uint64_t topic_id;
    struct index_place place;
};

struct posting_sort {
    struct posting *entries, *spare;
    uint32_t count, cap, spare_cap;
};

/* What comes out, the caller's to free(): arrays as FORMAT.md 6 wants them. */
struct postings {
    struct index_topic *topics;
    struct index_place *places;
    uint32_t topic_count, place_count;
};

enum status posting_sort_grow(struct posting_sort *s) MUST_CHECK; /* ST_NO_MEMORY */

static inline enum status posting_sort_add(struct posting_sort *s, uint64_t topic_id,
                                           struct index_place place)
{
    if (s->count == s->cap) {
        enum status st = posting_sort_grow(s);
        if (st != ST_OK)
            return st;
    }
    s->entries[s->count++] = (struct posting){topic_id, place};
    return ST_OK;
}

/* Sorts what was added. `s` is empty in any case. ST_NO_MEMORY. */
enum status posting_sort_finish(struct posting_sort *s, struct postings *out) MUST_CHECK;
void posting_sort_deinit(struct posting_sort *s); /* leaves zeroes, which is how one begins */

#endif
