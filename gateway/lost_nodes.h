/* Who has died? With a log that nodes share and a directory that says which of them live: an incarnation that
 * has had a lease there, has none any more and has not ended in the log is ended there by NODE_DOWN
 * (docs/CLUSTER.md). Each loop looks after its own lanes. What cannot be told for sure now is not told. */
#ifndef TG_GATEWAY_LOST_NODES_H
#define TG_GATEWAY_LOST_NODES_H

#include "gateway/edge.h"
#include "routing/directory_record.h"
#include "routing/incarnations.h"

/* An incarnation that has had a lease. */
struct leased_life {
    uint64_t incarnation;
    uint64_t seen_ms; /* with its lease, last */
    uint64_t missed_ms; /* since when it has none; 0: it has one, or nobody could say */
    bool told;
};
enum { LEASED_LIVES_MAX = 2 * INCARNATIONS_LIVE };

struct lost_nodes {
    struct edge *edge;
    struct shard_map *map;
    struct timer timer;
    struct directory_find find;
    uint64_t asked_ms;
    bool asked, stopped;
    unsigned life_count;
    struct leased_life lives[LEASED_LIVES_MAX];
};

/* Before the loop runs. Without such a log, or such a directory, it does nothing. */
void lost_nodes_start(struct lost_nodes *w, struct edge *edge, struct shard_map *map);
void lost_nodes_stop(struct lost_nodes *w); /* a question under way comes back yet. Its loop */

#endif
