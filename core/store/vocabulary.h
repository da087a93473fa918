/* The topic names of a lane, as far as reads by a filter have met them, and which of them such filters want.
 * So a filter that wants few topics goes by their lists (query.c) and does not look at every record.
 *
 * A topic_id is a hash with a public key, and its list may hold strangers' records. So names are not taken
 * from the index but learned by a scan, which sees the name of every record: volumes say of which of their
 * records all names are known (volume.h). Nothing is learned until somebody reads by a filter.
 *
 * What it costs is bounded: names by `bytes_max` (then nothing more is learned until retention has removed
 * something), filters by PLANS_MAX, and matching names against filters by what has been scanned: where many
 * filters take turns, they scan as they did without it. Reader thread. */
#ifndef TG_CORE_STORE_VOCABULARY_H
#define TG_CORE_STORE_VOCABULARY_H

#include "core/slice.h"
#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { PLAN_LISTS_MAX = 64, PLAN_FILTER_BYTES_MAX = 256, PLANS_MAX = 128 };

/* What a filter wants. */
struct plan {
    uint64_t hash; /* of the filter; `filter` is compared */
    uint64_t used;
    uint64_t dense_base; /* base offset + 1 of a volume where its topics have too many records; 0: none */
    uint32_t seen; /* names it has been asked about */
    uint16_t filter_len;
    uint16_t list_count;
    bool broad; /* wants more topics than PLAN_LISTS_MAX */
    uint8_t filter[PLAN_FILTER_BYTES_MAX];
    uint64_t lists[PLAN_LISTS_MAX]; /* topic_ids, each once */
};

struct vocabulary;

enum status vocabulary_create(uint64_t bytes_max, struct vocabulary **out) MUST_CHECK; /* ST_NO_MEMORY */
void vocabulary_destroy(struct vocabulary *v); /* NULL is allowed */
/* False: there is no room for it. */
bool vocabulary_learn(struct vocabulary *v, uint64_t topic_id, struct slice topic);
/* Retention has removed something: a full one begins anew, and then knows nothing of any volume: true. */
bool vocabulary_trimmed(struct vocabulary *v);
/* So many records have been scanned. */
void vocabulary_earn(struct vocabulary *v, uint64_t records);
/* NULL: the filter wants too many topics, or is not to be matched now: scan. Good until the next call. */
struct plan *vocabulary_plan(struct vocabulary *v, struct slice filter,
                             bool (*wants)(void *ctx, struct slice topic), void *ctx);
/* It is known to want more than PLAN_LISTS_MAX topics. */
bool vocabulary_is_broad(struct vocabulary *v, struct slice filter);
uint64_t vocabulary_bytes(const struct vocabulary *v);

#endif
