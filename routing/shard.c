/* The shard.
 *
 * Order is the whole point. Within one turn a shard appends PUBLISHes as they come and collects them in
 * one open run a loop with interest. A run leaves
 *   - at the end of the turn, after the log's frame has been flushed (the record is on its way to the disk),
 *   - before any answer that says "from n on everything comes live" (ATTACHED, LIVE): what was appended
 *     before n must lie in front of that answer in the same FIFO,
 *   - when it is full.
 * So a subscription that becomes live at n sees each record exactly once: below n by reading, from n on by
 * DELIVER (ARCHITECTURE.md 4).
 *
 * PUBLISHes that wait are answered in offset order, because the log's durable mark only moves forward. */
#include "routing/shard_private.h"

#include "routing/once_note.h"
#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

uint64_t shard_wall_ms(const struct shard *s)
{
    return loop_wall_ms(courier_loop(s->group->courier));
}

struct shard *shard_of_lane(struct shard_group *g, unsigned lane)
{
    for (unsigned i = 0; i < g->shard_count; i++)
        if (g->shards[i]->lane == lane)
            return g->shards[i];
    abort(); /* only bound lanes are told of */
}

bool shard_elsewhere(const struct shard *s)
{
    return shard_deferred(s);
}

/* --- ATTACH, DETACH ----------------------------------------------------------------------------------- */

static void attach_arrived_home(struct mail *mail)
{
    struct attach *a = LIST_OF(mail, struct attach, mail);
    a->on_attached(a);
}

void shard_attach(struct shard *s, struct attach *a)
{
    shard_send_runs(s);
    a->interest = NULL;
    if (a->wants_interest) {
        struct interest *in = calloc(1, sizeof *in);
        if (!in || (s->interests && filter_table_link(s->interests, a->filter, &in->entry) != ST_OK))
            abort(); /* a subscription that is answered must get its messages */
        in->loop = a->home;
        a->interest = in;
        s->interest_count++;
    }
    a->next = shard_end(s);
    a->first = s->group->log.ops->first(s->group->log.ctx, s->lane);
    bool literal = topic_filter_literal(a->filter);
    a->has_retained =
        literal ? retained_get(s->retained, a->filter) != NULL : retained_count(s->retained) > 0;
    a->mail.on_arrival = attach_arrived_home;
    courier_send(s->group->courier, a->home, &a->mail);
}

void shard_detach(struct shard *s, struct detach *d)
{
    struct interest *in = d->interest;
    if (s->interests)
        filter_table_unlink(s->interests, &in->entry);
    s->interest_count--;
    free(in);
    free(d);
}

/* --- life --------------------------------------------------------------------------------------------- */

static void shard_show_next(struct shard *s)
{
    atomic_store_explicit(&s->next_shown, shard_end(s), memory_order_relaxed);
}

uint64_t shard_next_shown(const struct shard *s)
{
    return atomic_load_explicit(&s->next_shown, memory_order_relaxed);
}

static void shard_group_round(void *ctx)
{
    struct shard_group *g = ctx;
    for (unsigned i = 0; i < g->shard_count; i++) {
        struct shard *s = g->shards[i];
        if (!s->dirty)
            continue;
        s->dirty = false;
        shard_shares_save(s);
        g->log.ops->flush(g->log.ctx, s->lane);
        shard_send_runs(s);
        shard_show_next(s);
    }
}

enum status shard_group_create(struct courier *courier, struct topic_log log, struct metrics *metrics,
                               unsigned loop_count, const struct shard_limits *limits,
                               struct shard_group **out)
{
    struct shard_group *g = calloc(1, sizeof *g);
    if (!g)
        return ST_NO_MEMORY;
    assert(loop_count >= 1 && loop_count <= LOOPS_MAX);
    g->courier = courier;
    g->log = log;
    g->metrics = metrics;
    g->loop_count = loop_count;
    g->limits = *limits;
    *out = g;
    return ST_OK;
}

void shard_group_destroy(struct shard_group *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->shard_count; i++)
        shard_destroy(g->shards[i]);
    free(g);
}

void shard_group_meet(struct shard_group *g, unsigned loop_index, void *hub,
                      void (*on_arrival)(struct mail *mail))
{
    assert(loop_index < g->loop_count);
    g->hubs[loop_index].hub = hub;
    g->hubs[loop_index].on_arrival = on_arrival;
}

void shard_group_set_policies(struct shard_group *g, struct policies *p)
{
    g->policies = p;
}

void shard_group_set_node(struct shard_group *g, struct slice node)
{
    assert(node.len <= NODE_NAME_BYTES_MAX);
    g->node.len = (uint8_t)node.len;
    if (node.len > 0)
        memcpy(g->node.name, node.data, node.len);
}

void shard_group_watch(struct shard_group *g, const struct shard_watch *watch, void *ctx)
{
    g->watch = watch;
    g->watch_ctx = ctx;
}

void shard_group_start(struct shard_group *g)
{
    courier_before(g->courier, shard_group_round, g);
}

enum status shard_create(struct shard_group *g, unsigned lane, struct shard **out)
{
    static const struct store_events events = {.on_durable = shard_on_durable,
                                               .on_trim_wanted = shard_on_trim_wanted};
    struct shard *s = calloc(1, sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    assert(g->shard_count < PLACE_LANES_MAX);
    s->group = g;
    s->lane = lane;
    buf_init(&s->carry.note, ONCE_NOTE_BYTES_MAX);
    if (retained_create(&g->limits.retained, &s->retained) != ST_OK ||
        retained_create(&g->limits.sessions, &s->sessions) != ST_OK ||
        once_create(&g->limits.once, &s->once) != ST_OK || shard_inboxes_init(s) != ST_OK ||
        (shard_deferred(s) && incarnations_create(&s->incarnations) != ST_OK) ||
        shard_shares_init(s) != ST_OK || (g->loop_count > 1 && filter_table_create(&s->interests) != ST_OK)) {
        once_destroy(s->once);
        retained_destroy(s->retained);
        retained_destroy(s->sessions);
        retained_destroy(s->inboxes.records);
        incarnations_destroy(s->incarnations);
        filter_table_destroy(s->shares.filters);
        retained_destroy(s->shares.records);
        free(s);
        return ST_NO_MEMORY;
    }
    timer_init(&s->sweep, shard_on_sweep);
    timer_init(&s->carry.timer, shard_on_carry_timer);
    timer_init(&s->ahead.timer, shard_on_ahead_timer);
    g->shards[g->shard_count++] = s;
    g->log.ops->bind(g->log.ctx, lane, courier_loop(g->courier), &events, g, g->metrics);
    if (g->log.ops->meet)
        g->log.ops->meet(g->log.ctx, lane, &shard_log_events, g);
    shard_show_next(s);
    *out = s;
    return ST_OK;
}

void shard_destroy(struct shard *s)
{
    if (!s)
        return;
    shard_drop_waiting(s);
    shard_drop_held(s);
    shard_ahead_drop(s);
    for (unsigned i = 0; i < s->group->loop_count; i++)
        if (s->open[i])
            run_unref(s->open[i]);
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->sweep);
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->carry.timer);
    filter_table_destroy(s->interests);
    once_destroy(s->once);
    incarnations_destroy(s->incarnations);
    retained_destroy(s->retained);
    buf_deinit(&s->carry.note);
    free(s->proposed.unreported);
    retained_destroy(s->sessions);
    shard_inboxes_deinit(s);
    shard_shares_deinit(s);
    free(s);
}

struct loop *shard_loop(const struct shard *s)
{
    return courier_loop(s->group->courier);
}
