/* The log: what nodes propose stands in a way of its own for each node and lane, in order; chance says whose
 * next record is ordered, which is lost, and which is ordered once more. Each node gets the records of a lane
 * in that order, at its own pace. */
#include "sim/sim.h"

#include "routing/shard.h"

struct sim_lane sim_lanes[LANES];
static uint64_t log_ms;

void log_reset(void)
{
    for (unsigned i = 0; i < LANES; i++) {
        for (uint64_t k = 0; k < sim_lanes[i].count; k++)
            msg_unref(sim_lanes[i].records[k].msg);
        free(sim_lanes[i].records);
        sim_lanes[i] = (struct sim_lane){0};
    }
    log_ms = 1700000000000;
}

/* A backend that is slow refuses. */
enum status log_propose(struct node *n, unsigned lane, struct msg *m)
{
    struct way *w = &n->ways[lane];
    if (n->cut || w->count == WAY_MAX)
        return ST_FULL;
    w->msgs[w->count++] = msg_ref(m);
    return ST_OK;
}

static void order(unsigned lane, struct msg *m)
{
    struct sim_lane *l = &sim_lanes[lane];
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 1024;
        l->records = realloc(l->records, l->cap * sizeof *l->records);
        REQUIRE(l->records, "no memory");
    }
    log_ms += below(3);
    l->records[l->count++] = (struct ordered){.msg = m, .ts_ms = log_ms, .topic = -1};
    check_ordered(lane, l->count - 1);
}

static struct msg *way_next(struct way *w)
{
    struct msg *m = w->msgs[0];
    memmove(w->msgs, w->msgs + 1, --w->count * sizeof w->msgs[0]);
    return m;
}

/* One of the newest; rather the beginning of a session, which harms most. */
static struct msg *some_record(const struct sim_lane *l)
{
    struct msg *m = l->records[l->count - 1].msg;
    struct proposal p = {0};
    unsigned most = l->count < 200 ? (unsigned)l->count : 200;
    for (unsigned tries = below(2) ? 30 : 0; tries > 0; tries--) {
        m = l->records[l->count - 1 - below(most)].msg;
        if (proposal_read(msg_props(m), &p) && p.condition == PROPOSAL_ATTACH && p.based_on == 0)
            break;
    }
    return m;
}

void log_order_some(struct node *n, unsigned lane)
{
    struct sim_lane *l = &sim_lanes[lane];
    struct way *w = &n->ways[lane];
    if (w->count == 0)
        return;
    struct msg *m = way_next(w);
    if (below(60) == 0 && w->count > 0) { /* and what comes behind it gets through */
        msg_unref(m);
        return;
    }
    order(lane, m);
    if (below(16) == 0) /* once more, that or an older one */
        order(lane, msg_ref(some_record(l)));
}

void log_drop_way(struct node *n, bool reaches)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        while (n->ways[lane].count > 0) {
            struct msg *m = way_next(&n->ways[lane]);
            if (reaches)
                order(lane, m);
            else
                msg_unref(m);
        }
    }
}

bool log_bring(struct node *n, unsigned lane)
{
    uint64_t next = n->log.lanes[lane].count;
    const struct ordered *r = &sim_lanes[lane].records[next];
    if (next == sim_lanes[lane].count)
        return false;
    shard_arrived(n->map.lanes[lane].shard, fake_log_bring(&n->log, lane, r->msg, r->ts_ms));
    return true;
}
