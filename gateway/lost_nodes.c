/* Three times in a lease the directory is asked which nodes have one. The first of the living, in the order
 * of their names, tells of a loss at once; the next one half a lease later, if it still must, and so on: so
 * the loss is told also when the first cannot. That two tell it does no harm, as the record counts once.
 *
 * An answer counts when it is not `stale` (Redis is there, is the one we have written to, is not `young`, and
 * has our own lease), and while this node itself is ready and not behind. An
 * incarnation that this node has never seen with a lease is left alone: it may be one that cannot reach
 * Redis.
 */
#include "gateway/lost_nodes.h"

#include "core/logging.h"
#include "routing/shard.h"
#include "routing/topic_log_kafka.h"

#include <stdlib.h>

enum { LOOKS_A_LEASE = 3 };

static uint64_t lease_ms(const struct lost_nodes *w)
{
    return w->edge->facts->settings->redis_lease_ms;
}

static struct leased_life *life_of(struct lost_nodes *w, uint64_t incarnation)
{
    for (unsigned i = 0; i < w->life_count; i++)
        if (w->lives[i].incarnation == incarnation)
            return &w->lives[i];
    return NULL;
}

/* Where all places are taken, that which has been away for longest goes. */
static struct leased_life *life_make(struct lost_nodes *w, uint64_t incarnation)
{
    struct leased_life *l = life_of(w, incarnation);
    if (l)
        return l;
    if (w->life_count < LEASED_LIVES_MAX) {
        l = &w->lives[w->life_count++];
    } else {
        l = &w->lives[0];
        for (unsigned i = 1; i < w->life_count; i++)
            if (w->lives[i].seen_ms < l->seen_ms)
                l = &w->lives[i];
    }
    *l = (struct leased_life){.incarnation = incarnation};
    return l;
}

/* May what the directory says be believed, and acted on? */
static bool sure(const struct lost_nodes *w, const struct directory_find *f, uint64_t now)
{
    const struct node_facts *facts = w->edge->facts;
    return f->status == ST_OK && f->shared && !f->stale && now - w->asked_ms < lease_ms(w) / 2 &&
           atomic_load(&facts->ready) && !atomic_load(&facts->drain_wanted) &&
           !atomic_load(&facts->stopping) && log_kafka_state(facts->kafka) == LOG_KAFKA_READY;
}

static void note_leases(struct lost_nodes *w, const struct directory_find *f, uint64_t now)
{
    for (uint32_t i = 0; i < f->node_count; i++) {
        struct leased_life *l = life_make(w, f->nodes[i].incarnation);
        *l = (struct leased_life){.incarnation = l->incarnation, .seen_ms = now};
    }
    for (unsigned i = 0; i < w->life_count; i++)
        if (w->lives[i].seen_ms != now && w->lives[i].missed_ms == 0)
            w->lives[i].missed_ms = now;
}

/* How many of those that live come before this node. */
static uint64_t rank_of(const struct lost_nodes *w, const struct directory_find *f)
{
    uint64_t rank = 0;
    for (uint32_t i = 0; i < f->node_count; i++)
        rank += strcmp(f->nodes[i].id, w->edge->facts->settings->node_id) < 0;
    return rank;
}

struct round {
    struct lost_nodes *watch;
    struct shard *shard;
    uint64_t now, patience_ms;
};

static void judge(void *ctx, struct slice node, uint64_t incarnation)
{
    const struct round *r = ctx;
    struct leased_life *l = life_of(r->watch, incarnation);
    if (!l || l->missed_ms == 0 || r->now - l->missed_ms < r->patience_ms || node.len == 0 ||
        slice_equal_cstr(node, r->watch->edge->facts->settings->node_id))
        return;
    if (shard_node_down(r->shard, node, incarnation) != ST_OK)
        return; /* the next look tries again */
    metric_add(r->watch->edge->metrics, M_NODES_DOWN_PROPOSED, 1);
    if (!l->told)
        log_warn(
            "a node is declared dead: it has no lease in the directory any more node=%.*s incarnation=%lx",
            (int)node.len, (const char *)node.data, (unsigned long)incarnation);
    l->told = true;
}

static void judge_lanes(struct lost_nodes *w, const struct directory_find *f, uint64_t now)
{
    struct round r = {.watch = w, .now = now, .patience_ms = rank_of(w, f) * lease_ms(w) / 2};
    for (unsigned lane = 0; lane < w->map->lane_count; lane++) {
        if (w->map->lanes[lane].loop_index != loop_index(w->edge->loop))
            continue;
        r.shard = w->map->lanes[lane].shard;
        shard_each_incarnation(r.shard, judge, &r);
    }
}

static void on_found(struct directory_find *f)
{
    struct lost_nodes *w = LIST_OF(f, struct lost_nodes, find);
    uint64_t now = loop_now_ms(w->edge->loop);
    w->asked = false;
    if (w->stopped) {
        free(f->nodes);
        return;
    }
    if (sure(w, f, now)) {
        note_leases(w, f, now);
        judge_lanes(w, f, now);
    } else {
        for (unsigned i = 0; i < w->life_count; i++)
            w->lives[i].missed_ms = 0;
    }
    free(f->nodes);
}

/* An incarnation can be ended only where it is known, so it is to be known in every lane. */
static void introduce(const struct lost_nodes *w)
{
    for (unsigned lane = 0; lane < w->map->lane_count; lane++)
        if (w->map->lanes[lane].loop_index == loop_index(w->edge->loop))
            (void)!shard_introduce(w->map->lanes[lane].shard); /* else at the next look */
}

static void on_timer(struct timer *t)
{
    struct lost_nodes *w = LIST_OF(t, struct lost_nodes, timer);
    uint64_t now = loop_now_ms(w->edge->loop);
    timer_arm(loop_timers(w->edge->loop), t, now + lease_ms(w) / LOOKS_A_LEASE);
    introduce(w);
    if (w->asked)
        return;
    struct directory d = hub_directory(w->edge->hub);
    w->asked = true;
    w->asked_ms = now;
    w->find = (struct directory_find){.on_found = on_found};
    d.ops->find(d.ctx, &w->find);
}

void lost_nodes_start(struct lost_nodes *w, struct edge *edge, struct shard_map *map)
{
    if (!edge->facts->kafka || !edge->facts->directory)
        return;
    *w = (struct lost_nodes){.edge = edge, .map = map};
    timer_init(&w->timer, on_timer);
    timer_arm(loop_timers(edge->loop), &w->timer, loop_now_ms(edge->loop));
}

void lost_nodes_stop(struct lost_nodes *w)
{
    if (!w->edge)
        return;
    w->stopped = true;
    timer_cancel(loop_timers(w->edge->loop), &w->timer);
}
