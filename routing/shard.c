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
 * PUBLISHes that wait are answered in offset order, because the log's durable mark only moves forward.
 *
 * The log's retention asks before it removes records: retained messages among them are carried first, that is
 * appended once more, a step at a time. The next step waits until the one before is durable, so that carrying
 * however many never takes more of the log's window than a step, and never more of a turn. What need not be
 * carried because it has been replaced or cleared goes only when that is durable too: else a power cut could
 * take both. */
#include "routing/shard.h"

#include "core/logging.h"
#include "core/pool.h"
#include "routing/filter_table.h"
#include "routing/topic.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>

struct interest {
    struct filter_entry entry;
    uint16_t loop;
};

struct shard {
    struct shard_group *group;
    unsigned lane;
    uint64_t durable; /* all below, as told by the log */
    uint64_t retained_end; /* behind the newest record with RETAIN of this run */
    bool dirty; /* appended since the last flush */
    _Atomic uint64_t
        next_shown; /* written here once a turn, read by any loop (shard_next_shown); orders nothing */
    struct publish *first_waiting; /* by mail.next, in offset order */
    struct publish *last_waiting;
    struct filter_table *interests; /* only with several loops */
    size_t interest_count;
    struct run *open[LOOPS_MAX];
    struct retained *retained;
    struct timer sweep; /* armed while some retained message will expire */
    struct {
        uint64_t upto; /* below this the log wants to remove; 0: it has not asked */
        uint64_t next; /* below this nothing needs to be carried any more */
        uint64_t end; /* what the trim relies on lies below */
        struct timer timer; /* armed: the next step comes by it; else when all below `end` is durable */
    } carry;
};

struct shard_group {
    struct courier *courier;
    struct topic_log log;
    struct metrics *metrics;
    unsigned loop_count, shard_count;
    struct retained_limits retained_limits;
    struct shard *shards[PLACE_LANES_MAX];
    struct {
        void *hub;
        void (*on_arrival)(struct mail *mail);
    } hubs[LOOPS_MAX];
};

/* --- DELIVER ------------------------------------------------------------------------------------ */

static void shard_send_run(struct shard *s, unsigned loop)
{
    struct shard_group *g = s->group;
    struct run *run = s->open[loop];
    s->open[loop] = NULL;
    uint8_t pool_class;
    struct deliver *d = pool_alloc(sizeof *d, &pool_class);
    if (!d)
        abort(); /* 64 bytes: the node cannot keep its promise any more; a restart can */
    *d = (struct deliver){.mail.on_arrival = g->hubs[loop].on_arrival,
                          .pool_class = pool_class,
                          .run = run,
                          .hub = g->hubs[loop].hub};
    courier_send(g->courier, loop, &d->mail);
}

static void shard_send_runs(struct shard *s)
{
    for (unsigned i = 0; i < s->group->loop_count; i++)
        if (s->open[i])
            shard_send_run(s, i);
}

static void shard_join_run(struct shard *s, unsigned loop, struct msg *m)
{
    struct run *run = s->open[loop];
    if (run && run->count == run->cap) {
        /* A small run grows by being replaced once; a full one leaves. */
        if (run->cap < RUN_MESSAGES_MAX) {
            struct run *larger;
            if (run_create(s->lane, RUN_MESSAGES_MAX, &larger) != ST_OK)
                abort();
            memcpy(larger->msgs, run->msgs, run->count * sizeof run->msgs[0]);
            larger->count = run->count;
            run->count = 0;
            run_unref(run);
            s->open[loop] = run = larger;
        } else {
            shard_send_run(s, loop);
            run = NULL;
        }
    }
    if (!run) {
        if (run_create(s->lane, 8, &run) != ST_OK)
            abort();
        s->open[loop] = run;
    }
    run->msgs[run->count++] = msg_ref(m);
}

static void shard_offer(struct shard *s, struct msg *m)
{
    if (s->interest_count == 0)
        return;
    if (s->group->loop_count == 1) {
        shard_join_run(s, 0, m);
        return;
    }
    struct filter_matches found = filter_table_match(s->interests, msg_topic(m));
    uint64_t joined = 0; /* a bit a loop */
    for (size_t i = 0; i < found.count; i++) {
        const struct interest *in = LIST_OF(found.entries[i], struct interest, entry);
        if (joined & (UINT64_C(1) << in->loop))
            continue;
        joined |= UINT64_C(1) << in->loop;
        shard_join_run(s, in->loop, m);
    }
}

/* --- PUBLISH ------------------------------------------------------------------------------------ */

static void publish_arrived_home(struct mail *mail)
{
    struct publish *p = LIST_OF(mail, struct publish, mail);
    p->on_published(p);
}

static void shard_answer_publish(struct shard *s, struct publish *p, enum status status)
{
    p->status = status;
    p->mail.on_arrival = publish_arrived_home;
    courier_send(s->group->courier, p->home, &p->mail);
}

/* --- retained messages -------------------------------------------------------------------------- */

/* 488 steps go round a million messages: what has expired counts for 11 s at most, and a step is short. */
enum { SWEEP_STEP_MS = 20, SWEEP_REST_MS = 1000 };

static uint64_t shard_wall_ms(const struct shard *s)
{
    return loop_wall_ms(courier_loop(s->group->courier));
}

/* The gauges follow what has changed since they were told `count` and `bytes`. */
static void retained_changed(struct shard *s, uint64_t count, uint64_t bytes)
{
    metric_add(s->group->metrics, M_RETAINED, retained_count(s->retained) - count);
    metric_add(s->group->metrics, M_RETAINED_BYTES, retained_bytes(s->retained) - bytes);
    s->group->log.ops->set_live_bytes(s->group->log.ctx, s->lane, retained_bytes(s->retained));
}

static void shard_sweep_later(struct shard *s, uint64_t ms)
{
    struct loop *loop = courier_loop(s->group->courier);
    timer_arm(loop_timers(loop), &s->sweep, loop_now_ms(loop) + ms);
}

static bool shard_sweep(struct shard *s)
{
    uint64_t count = retained_count(s->retained), bytes = retained_bytes(s->retained);
    bool end = retained_expire(s->retained, shard_wall_ms(s));
    retained_changed(s, count, bytes);
    return end;
}

static void on_sweep(struct timer *t)
{
    struct shard *s = LIST_OF(t, struct shard, sweep);
    bool end = shard_sweep(s);
    if (retained_expiring(s->retained) > 0)
        shard_sweep_later(s, end ? SWEEP_REST_MS : SWEEP_STEP_MS);
}

static void shard_fold_retained(struct shard *s, struct msg *m)
{
    uint64_t count = retained_count(s->retained), bytes = retained_bytes(s->retained);
    if (retained_fold(s->retained, m) != ST_OK)
        abort(); /* it is in the log: a shard that does not know it would tell subscribers wrongly */
    retained_changed(s, count, bytes);
    if (m->expires_ms && !timer_armed(&s->sweep))
        shard_sweep_later(s, SWEEP_REST_MS);
}

static bool shard_has_room_to_retain(struct shard *s, const struct msg *m)
{
    if (retained_has_room(s->retained, m))
        return true;
    (void)shard_sweep(s); /* perhaps it is full of what has expired */
    return retained_has_room(s->retained, m);
}

/* --- carrying ------------------------------------------------------------------------------------- */

enum { CARRY_COUNT = 1024, CARRY_BYTES = 512 << 10, CARRY_STEP_MS = 1, CARRY_RETRY_MS = 50 };

static void shard_carry_later(struct shard *s, uint64_t ms)
{
    struct loop *loop = courier_loop(s->group->courier);
    timer_arm(loop_timers(loop), &s->carry.timer, loop_now_ms(loop) + ms);
}

/* Appends them; what the log refuses is tried again later. False: it has refused one. */
static bool shard_carry(struct shard *s, struct msg **msgs, uint32_t count)
{
    const struct topic_log *log = &s->group->log;
    uint32_t i = 0;
    while (i < count && log->ops->carry(log->ctx, s->lane, msgs[i]) == ST_OK)
        s->carry.end = msgs[i++]->stored + 1;
    metric_add(s->group->metrics, M_LOG_CARRIED, i);
    s->dirty |= i > 0;
    if (i < count)
        s->carry.next = msgs[i]->offset;
    return i == count;
}

static void shard_carry_step(struct shard *s)
{
    struct msg *msgs[CARRY_COUNT];
    uint32_t found = retained_stored_below(s->retained, s->carry.next, s->carry.upto, shard_wall_ms(s), msgs,
                                           CARRY_COUNT, CARRY_BYTES, &s->carry.next);
    bool all = shard_carry(s, msgs, found);
    if (s->retained_end > s->carry.end)
        s->carry.end = s->retained_end;
    for (uint32_t i = 0; i < found; i++)
        msg_unref(msgs[i]);
    if (!all) {
        shard_carry_later(s, CARRY_RETRY_MS);
    } else if (s->carry.end <= s->durable && s->carry.next < s->carry.upto) {
        shard_carry_later(s, CARRY_STEP_MS); /* a look at 2,048 of a million is a turn's work too */
    } else if (s->carry.end <= s->durable) {
        uint64_t upto = s->carry.upto;
        s->carry.upto = 0;
        s->group->log.ops->trim(s->group->log.ctx, s->lane, upto);
    }
}

static void on_carry_timer(struct timer *t)
{
    shard_carry_step(LIST_OF(t, struct shard, carry.timer));
}

static struct shard *shard_of_lane(struct shard_group *g, unsigned lane)
{
    for (unsigned i = 0; i < g->shard_count; i++)
        if (g->shards[i]->lane == lane)
            return g->shards[i];
    abort(); /* only bound lanes are told of */
}

static void shard_on_trim_wanted(void *ctx, unsigned lane, uint64_t upto)
{
    struct shard *s = shard_of_lane(ctx, lane);
    assert(s->carry.upto == 0);
    s->carry.upto = upto;
    s->carry.next = s->carry.end = 0;
    shard_carry_step(s);
}

/* --- PUBLISH, continued --------------------------------------------------------------------------- */

/* Appends, folds, offers. */
static enum status shard_take(struct shard *s, struct msg *m, bool wait)
{
    bool retain = m->flags & MSG_RETAIN;
    if (retain && !shard_has_room_to_retain(s, m))
        return ST_QUOTA;
    enum status st = s->group->log.ops->append(s->group->log.ctx, s->lane, m, wait);
    if (st != ST_OK)
        return st;
    s->dirty = true;
    if (retain) {
        shard_fold_retained(s, m);
        s->retained_end = m->offset + 1;
    }
    shard_offer(s, m);
    return ST_OK;
}

enum status shard_publish_lazy(struct shard *s, struct msg *m)
{
    enum status st = shard_take(s, m, false);
    if (st == ST_OK)
        metric_add(s->group->metrics, M_STORED, 1);
    return st;
}

void shard_publish(struct shard *s, struct publish *p)
{
    enum status st = shard_take(s, p->msg, p->wait);
    if (st != ST_OK) {
        if (p->wait) {
            shard_answer_publish(s, p, st);
        } else {
            metric_add(s->group->metrics, st == ST_QUOTA ? M_REFUSED_QUOTA : M_REFUSED_UNAVAILABLE, 1);
            publish_free(p);
        }
        return;
    }
    if (!p->wait) {
        metric_add(s->group->metrics, M_STORED, 1);
        publish_free(p);
        return;
    }
    p->mail.next = NULL;
    if (s->last_waiting)
        s->last_waiting->mail.next = &p->mail;
    else
        s->first_waiting = p;
    s->last_waiting = p;
}

static void shard_on_durable(void *ctx, unsigned lane, uint64_t next)
{
    struct shard *s = shard_of_lane(ctx, lane);
    while (s->first_waiting && s->first_waiting->msg->offset < next) {
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        if (!s->first_waiting)
            s->last_waiting = NULL;
        shard_answer_publish(s, p, ST_OK);
    }
    s->durable = next;
    if (s->carry.upto > 0 && !timer_armed(&s->carry.timer) && next >= s->carry.end)
        shard_carry_step(s);
}

/* --- ATTACH, DETACH ----------------------------------------------------------------------------- */

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
    a->next = s->group->log.ops->next(s->group->log.ctx, s->lane);
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

/* --- READ --------------------------------------------------------------------------------------- */

static void read_arrived_home(struct mail *mail)
{
    struct read *r = LIST_OF(mail, struct read, mail);
    r->on_read(r);
}

static void read_done_by_store(struct store_read *sr)
{
    struct read *r = LIST_OF(sr, struct read, store);
    r->on_read(r);
}

/* Tries to answer a cursor from memory. False: it is too far behind. */
static bool shard_read_recent(struct shard *s, struct read *r)
{
    const struct topic_log *log = &s->group->log;
    uint64_t end = log->ops->next(log->ctx, s->lane);
    struct store_read *sr = &r->store;
    sr->status = ST_OK;
    sr->first = log->ops->first(log->ctx, s->lane);
    sr->end = end;
    sr->found = 0;
    sr->msgs = NULL;
    sr->next = end;
    if (sr->from < end) {
        uint32_t found = 0;
        sr->msgs = malloc(sr->count_max * sizeof *sr->msgs);
        if (!sr->msgs)
            return false;
        enum status st = log->ops->recent(log->ctx, s->lane, sr->from, sr->topic, sr->wants, sr->wants_ctx,
                                          sr->count_max, sr->msgs, &found, &sr->next);
        if (st != ST_OK) {
            free(sr->msgs);
            sr->msgs = NULL;
            return false;
        }
        sr->found = found;
    }
    r->live = sr->next >= end;
    if (r->live)
        shard_send_runs(s); /* what was appended before `end` goes in front of this answer */
    return true;
}

static bool shard_reads_topic(struct shard *s, struct store_read *sr)
{
    struct msg *m = retained_get(s->retained, sr->topic);
    if (!m || m->offset < sr->from || m->offset >= sr->end ||
        (m->expires_ms && shard_wall_ms(s) >= m->expires_ms))
        return false;
    if (sr->msgs)
        sr->msgs[0] = msg_ref(m);
    return true;
}

/* One step of a walk over retained messages. */
static void shard_read_retained(struct shard *s, struct read *r)
{
    struct store_read *sr = &r->store;
    uint64_t end = s->group->log.ops->next(s->group->log.ctx, s->lane);
    sr->status = ST_OK;
    sr->end = sr->to < end ? sr->to : end;
    sr->next = sr->end > sr->from ? sr->end : sr->from;
    sr->found = 0;
    sr->msgs = sr->count_only ? NULL : malloc(sr->count_max * sizeof(struct msg *));
    if (!sr->count_only && !sr->msgs) {
        sr->status = ST_NO_MEMORY;
        sr->next = sr->from;
    } else if (sr->topic.data) {
        sr->found = shard_reads_topic(s, sr);
    } else {
        uint64_t count = retained_count(s->retained), bytes = retained_bytes(s->retained);
        sr->found = retained_walk(s->retained, sr->from, sr->end, sr->wants, sr->wants_ctx, shard_wall_ms(s),
                                  sr->msgs, sr->count_max, &sr->next);
        retained_changed(s, count, bytes);
    }
}

void shard_read(struct shard *s, struct read *r)
{
    r->live = false;
    if (r->retained) {
        shard_read_retained(s, r);
        r->mail.on_arrival = read_arrived_home;
        if (r->store.next >= r->store.end)
            courier_send(s->group->courier, r->home, &r->mail);
        else /* by the mailbox, so by another turn: a walk over a million must not be one turn of the loop */
            loop_post(r->store.home, &r->mail);
        return;
    }
    if (r->want_live && shard_read_recent(s, r)) {
        r->mail.on_arrival = read_arrived_home;
        courier_send(s->group->courier, r->home, &r->mail);
        return;
    }
    r->store.lane = s->lane;
    r->store.on_done = read_done_by_store;
    s->group->log.ops->read_start(s->group->log.ctx, &r->store);
}

/* --- life --------------------------------------------------------------------------------------- */

static void shard_show_next(struct shard *s)
{
    atomic_store_explicit(&s->next_shown, s->group->log.ops->next(s->group->log.ctx, s->lane),
                          memory_order_relaxed);
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
        g->log.ops->flush(g->log.ctx, s->lane);
        shard_send_runs(s);
        shard_show_next(s);
    }
}

enum status shard_group_create(struct courier *courier, struct topic_log log, struct metrics *metrics,
                               unsigned loop_count, const struct retained_limits *retained,
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
    g->retained_limits = *retained;
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
    if (retained_create(&g->retained_limits, &s->retained) != ST_OK ||
        (g->loop_count > 1 && filter_table_create(&s->interests) != ST_OK)) {
        retained_destroy(s->retained);
        free(s);
        return ST_NO_MEMORY;
    }
    s->group = g;
    s->lane = lane;
    timer_init(&s->sweep, on_sweep);
    timer_init(&s->carry.timer, on_carry_timer);
    g->shards[g->shard_count++] = s;
    g->log.ops->bind(g->log.ctx, lane, courier_loop(g->courier), &events, g, g->metrics);
    shard_show_next(s);
    *out = s;
    return ST_OK;
}

/* --- the fold at start ---------------------------------------------------------------------------- */

enum { FOLD_COUNT = 1024, FOLD_BYTES = 4 << 20 };

struct fold {
    struct store_read read;
    bool done;
};

static void fold_read_done(struct store_read *r)
{
    struct fold *f = LIST_OF(r, struct fold, read);
    f->done = true;
}

/* One page, waiting for it. The loop does not run yet, so this thread turns it. */
static void fold_page(struct shard *s, struct fold *f)
{
    struct loop *loop = courier_loop(s->group->courier);
    f->done = false;
    s->group->log.ops->read_start(s->group->log.ctx, &f->read);
    while (!f->done) {
        struct pollfd p = {.fd = loop_poll_fd(loop), .events = POLLIN};
        if (loop_prepare(loop) > 0)
            (void)poll(&p, 1, 100);
        loop_dispatch(loop);
    }
}

enum status shard_fold(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    struct fold f = {.read = {.lane = s->lane,
                              .to = UINT64_MAX,
                              .retained_only = true,
                              .count_max = FOLD_COUNT,
                              .bytes_max = FOLD_BYTES,
                              .home = courier_loop(s->group->courier),
                              .on_done = fold_read_done}};
    uint64_t from = log->ops->first(log->ctx, s->lane), end = log->ops->next(log->ctx, s->lane);
    retained_load(s->retained);
    while (from < end) {
        f.read.from = from;
        fold_page(s, &f);
        if (f.read.status == ST_NO_MEMORY)
            return ST_NO_MEMORY;
        if (f.read.status == ST_CORRUPT)
            log_error("records cannot be read: what they retained is not known lane=%u from=%lu to=%lu",
                      s->lane, (unsigned long)from, (unsigned long)f.read.next);
        for (uint64_t i = 0; i < f.read.found; i++) {
            shard_fold_retained(s, f.read.msgs[i]);
            msg_unref(f.read.msgs[i]);
        }
        free(f.read.msgs);
        f.read.msgs = NULL;
        from = f.read.next;
    }
    enum status st = retained_loaded(s->retained);
    if (st == ST_OK)
        log->ops->trim(log->ctx, s->lane, 0); /* retention may begin to ask */
    return st;
}

void shard_destroy(struct shard *s)
{
    if (!s)
        return;
    while (s->first_waiting) { /* shutdown without a last sync: nobody is answered */
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        publish_free(p);
    }
    for (unsigned i = 0; i < s->group->loop_count; i++)
        if (s->open[i])
            run_unref(s->open[i]);
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->sweep);
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->carry.timer);
    filter_table_destroy(s->interests);
    retained_destroy(s->retained);
    free(s);
}

struct loop *shard_loop(const struct shard *s)
{
    return courier_loop(s->group->courier);
}
