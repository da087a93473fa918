/* A node: one loop with a shard of each lane, a hub and a registry, as the daemon wires them. */
#include "sim/sim.h"

#include "routing/shard.h"

#include <poll.h>

struct node sim_nodes[NODES];
static uint64_t incarnations;

static uint64_t node_mono(void *ctx)
{
    return ((struct node *)ctx)->mono_ms * 1000000;
}

static uint64_t node_wall(void *ctx)
{
    return ((struct node *)ctx)->wall_ms;
}

static enum status on_propose(struct fake_log *f, struct msg *m)
{
    return log_propose(LIST_OF(f, struct node, log), m->partition, m);
}

static void on_attached(void *ctx, struct slice topic, uint64_t offset)
{
    struct node *n = ctx;
    registry_attached_elsewhere(n->registry, topic, offset);
}

static void on_ended(void *ctx, unsigned lane, uint64_t incarnation, bool own)
{
    struct node *n = ctx;
    (void)lane;
    (void)incarnation;
    n->down_read |= own;
}

static const struct shard_watch watch = {.on_attached = on_attached, .on_ended = on_ended};

void node_init(struct node *n, unsigned index)
{
    *n = (struct node){.index = index};
    fake_log_init(&n->log, LANES);
}

static void node_recent(struct node *n)
{
    for (unsigned lane = 0; lane < LANES; lane++)
        n->log.lanes[lane].recent = below(2) ? 16 : UINT64_MAX;
}

struct serving {
    struct loop_hook hook;
    struct fake_log *log;
};

static bool serve(struct loop_hook *h)
{
    return fake_log_serve(LIST_OF(h, struct serving, hook)->log);
}

static void node_build(struct node *n)
{
    static const struct hub_limits hub_limits = {.subscriptions_max = FILTERS,
                                                 .read_count = 8,
                                                 .read_bytes = 4096,
                                                 .drops_max = 10,
                                                 .catchup_share = 50,
                                                 .topic = {1024, 32}};
    static const struct shard_limits limits = {
        .retained = {100, 1 << 20},
        .once = {100, 100, 16 << 20, UINT64_C(1) << 40},
        .sessions = {100, 1 << 20},
        .inbox = {.records = {10, 1 << 20}, .save_ms = 10000, .save_count = 5}};
    char name[8];
    REQUIRE(loop_create(&n->clock, 0, &n->loop) == ST_OK && courier_create(n->loop, &n->courier) == ST_OK &&
                shard_group_create(n->courier, fake_log_port(&n->log), n->metrics, 1, &limits, &n->group) ==
                    ST_OK &&
                hub_create(n->courier, &n->map, n->metrics, &hub_limits, &n->hub) == ST_OK &&
                registry_create(n->courier, &n->registry) == ST_OK,
            "no memory");
    snprintf(name, sizeof name, "n%u", n->index);
    shard_group_set_node(n->group, slice_cstr(name));
    shard_group_watch(n->group, &watch, n);
    n->map = (struct shard_map){.lane_count = LANES, .epoch = EPOCH};
    for (unsigned lane = 0; lane < LANES; lane++)
        REQUIRE(shard_create(n->group, lane, &n->map.lanes[lane].shard) == ST_OK, "no memory");
    courier_meet(n->courier, 0, n->loop);
    shard_group_meet(n->group, 0, n->hub, hub_on_deliver);
    hub_meet(n->hub, 0, n->hub, 1);
    registry_meet(n->registry, 0, n->registry, 1);
}

static void node_introduce(struct node *n)
{
    for (unsigned lane = 0; lane < LANES; lane++)
        (void)!shard_introduce(n->map.lanes[lane].shard); /* else with the first proposal */
}

void node_start(struct node *n)
{
    static uint64_t skew;
    n->wall_ms = 1700000000000 + below(2000);
    n->mono_ms = ++skew * 1000;
    n->clock = (struct clock){.mono_ns = node_mono, .wall_ms = node_wall, .ctx = n};
    n->metrics = n->metrics ? n->metrics : metrics_register();
    n->log.on_propose = on_propose;
    n->log.incarnation = ++incarnations;
    n->cut = n->down_read = false;
    node_recent(n);
    node_build(n);
    struct serving serving = {.hook.on_turn_end = serve, .log = &n->log};
    list_init(&serving.hook.link);
    loop_hook_add(n->loop, &serving.hook);
    for (unsigned lane = 0; lane < LANES; lane++)
        REQUIRE(shard_fold(n->map.lanes[lane].shard) == ST_OK, "the fold fails");
    loop_hook_remove(n->loop, &serving.hook);
    shard_group_start(n->group);
    courier_start(n->courier);
    hub_start(n->hub);
    n->up = true;
    node_introduce(n);
}

static bool node_moves(struct node *n)
{
    struct pollfd waker = {.fd = loop_poll_fd(n->loop), .events = POLLIN};
    bool woken = poll(&waker, 1, 0) == 1;
    loop_dispatch(n->loop);
    bool more = loop_prepare(n->loop) == 0 || woken;
    clients_close_taken(n);
    return more;
}

void node_turn(struct node *n)
{
    (void)node_moves(n);
    while (below(4) && fake_log_serve(&n->log))
        ;
}

void node_settle(struct node *n)
{
    for (unsigned quiet = 0; quiet < 3;) {
        bool moved = node_moves(n);
        while (fake_log_serve(&n->log))
            moved = true;
        quiet = moved ? 0 : quiet + 1;
    }
}

/* Nothing of it gets out any more, and what it waits for does not come: it is told so, for its memory's sake,
 * by a START that stands in no log. */
static void node_unwind(struct node *n)
{
    struct proposal p = {.condition = PROPOSAL_START, .incarnation = ++incarnations, .sequence = 1};
    char topic[16];
    n->cut = true;
    n->log.incarnation = p.incarnation;
    snprintf(topic, sizeof topic, "$node/n%u", n->index);
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct msg *plain, *m;
        REQUIRE(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, slice_cstr("end"),
                           &plain) == ST_OK &&
                    proposal_stamp(plain, &p, &m) == ST_OK,
                "no memory");
        m->flags = MSG_RETAIN;
        m->offset = m->stored = n->log.lanes[lane].count;
        shard_arrived(n->map.lanes[lane].shard, m);
        msg_unref(m);
        msg_unref(plain);
    }
    clients_drop_node(n);
    node_settle(n);
    for (unsigned rounds = 0; !hub_idle(n->hub) || n->open > 0; rounds++) {
        REQUIRE(rounds < 1000, "node %u: letters that do not come back", n->index);
        n->mono_ms += 1000;
        node_settle(n);
    }
}

void node_kill(struct node *n, bool mirror_lost)
{
    node_unwind(n);
    n->up = n->frozen = false;
    hub_destroy(n->hub);
    shard_group_destroy(n->group);
    registry_destroy(n->registry);
    courier_destroy(n->courier);
    loop_destroy(n->loop);
    log_drop_way(n, below(2));
    if (mirror_lost) {
        fake_log_deinit(&n->log);
        fake_log_init(&n->log, LANES);
    }
}

void node_deinit(struct node *n)
{
    if (n->up)
        node_kill(n, false);
    fake_log_deinit(&n->log);
}

void node_report_dead(struct node *by, const struct node *dead)
{
    char name[8];
    snprintf(name, sizeof name, "n%u", dead->index);
    for (unsigned lane = 0; lane < LANES; lane++)
        (void)!shard_node_down(by->map.lanes[lane].shard, slice_cstr(name), dead->log.incarnation);
}

void node_be_born_again(struct node *n)
{
    n->down_read = false;
    clients_drop_node(n);
    n->log.incarnation = ++incarnations;
    node_introduce(n);
    check_counts.ends++;
}
