/* A segment's index in memory: topic_id -> where its records are, ascending; where frames begin; what is
 * damaged. Of the active segment, and of a sealed one until its file is written. Reader thread (or
 * start-up). What it returns is valid until the next add. */
#ifndef TG_CORE_STORE_TOPIC_INDEX_H
#define TG_CORE_STORE_TOPIC_INDEX_H

#include "core/slice.h"
#include "core/status.h"
#include "core/store/posting_sort.h"

#include <stdbool.h>

struct topic_index;

struct index_places {
    const struct index_place *places;
    uint32_t count;
};

/* How many of them lie below `delta`. */
static inline uint32_t index_places_below(struct index_places p, uint64_t delta)
{
    uint32_t low = 0, high = p.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p.places[middle].delta < delta)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The same for topics: the number of the first that is not below `topic_id`. */
static inline uint32_t index_topics_below(const struct index_topic *topics, uint32_t count, uint64_t topic_id)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (topics[middle].topic_id < topic_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum { INDEX_FRAME_DISTANCE = 64 << 10 }; /* bytes between two sparse entries, about */

enum status topic_index_create(struct topic_index **out) MUST_CHECK; /* ST_NO_MEMORY, as all below */
/* For a segment that is read from end to end: an add costs next to nothing, and nothing is found, counted or
 * exported before topic_index_settle; after it, or when it has failed, no record is added. `sort` is borrowed
 * until then, what it held is dropped. */
enum status topic_index_create_whole(struct posting_sort *sort, struct topic_index **out) MUST_CHECK;
enum status topic_index_settle(struct topic_index *x) MUST_CHECK; /* a live one: nothing to do */
void topic_index_destroy(struct topic_index *x); /* NULL is allowed */

enum status topic_index_add(struct topic_index *x, uint64_t topic_id, struct index_place place) MUST_CHECK;
/* A record of this topic, whose topic_id is given: in the lists that it belongs to (record.h). */
enum status topic_index_add_record(struct topic_index *x, uint64_t topic_id, struct slice topic,
                                   struct index_place place) MUST_CHECK;
/* A frame begins there. Notes it when it is far enough behind the one noted before. */
enum status topic_index_add_frame(struct topic_index *x, struct index_place place) MUST_CHECK;
enum status topic_index_add_bad(struct topic_index *x, struct index_range range) MUST_CHECK;

struct index_places topic_index_find(const struct topic_index *x, uint64_t topic_id);
struct index_places topic_index_frames(const struct topic_index *x);
const struct index_range *topic_index_bad(const struct topic_index *x, uint32_t *count);

uint32_t topic_index_topic_count(const struct topic_index *x);
uint32_t topic_index_posting_count(const struct topic_index *x);
/* They, as FORMAT.md 6 wants them, where they are. A live index has only the counts, and no arrays. */
struct postings topic_index_sorted(const struct topic_index *x);
/* Fills arrays of those counts with them. */
void topic_index_export(const struct topic_index *x, struct index_topic *topics,
                        struct index_place *postings);

#endif
