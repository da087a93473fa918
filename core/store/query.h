/* One step of one read: its start is located, then it goes on by topic through the index (in either
 * direction), or in order by a walk over frames. Reader thread. */
#ifndef TG_CORE_STORE_QUERY_H
#define TG_CORE_STORE_QUERY_H

#include "core/store/source.h"
#include "core/store/store.h"
#include "core/store/volume.h"

enum { MEMO_SLOTS = 1024, MEMO_TOPIC_BYTES = 54 };

/* What wants() said about a topic, during one step. The name is compared: topic_id has a public key. */
struct memo_slot {
    uint32_t step; /* of which it is */
    uint8_t len;
    bool wanted, learned; /* its name is in the vocabulary */
    uint8_t topic[MEMO_TOPIC_BYTES];
};

/* What reads share; one at a time uses it. */
struct query_tools {
    struct source source;
    struct volume_cache cache;
    uint32_t step;
    struct metrics *metrics; /* NULL: not counted */
    struct memo_slot memo[MEMO_SLOTS];
};

void query_tools_init(struct query_tools *t);
void query_tools_deinit(struct query_tools *t);

/* Readies the answer's fields. `first`: the lowest offset kept. */
void query_begin(struct store_read *r, uint64_t first);
/* Makes it a read in reverse of all below `to`. */
void query_turn_back(struct store_read *r, uint64_t to);
/* The list of the index that the read goes by. */
uint64_t query_list_id(const struct store_read *r);
/* True: the answer is complete. False: a bounded amount of work is done and more is left. `first` may have
 * risen since the step before. */
bool query_step(struct query_tools *t, struct shelf *shelf, struct store_read *r, uint64_t first);

#endif
