/* Random schedules over a cluster of nodes, in worlds of some thousand steps; each ends quietly, and then all
 * that was promised must have come true.
 *
 *   unit.sim.cluster [steps]      TEST_SEED=n: the same again */
#include "sim/sim.h"

#include "fakes/seed.h"
#include "routing/shard.h"

#include <stdarg.h>

enum { WORLD_STEPS = 4000, QUIET_ROUNDS = 3000, STILL_ROUNDS = 8 };

const char *const sim_topics[TOPICS] = {"t/0", "t/1", "t/2", "u/3", "u/4", "u/5"};
const char *const sim_filters[FILTERS] = {"t/0", "t/1", "u/3", "t/+", "u/#", "#"};
uint64_t sim_step;
static uint64_t state;
static unsigned seed;

void sim_seed(uint64_t from)
{
    state = from * 2 + 1;
}

/* xorshift64* */
unsigned below(unsigned n)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (unsigned)((state * UINT64_C(2685821657736338717)) >> 33) % n;
}

_Noreturn void sim_fail(const char *says, ...)
{
    va_list args;
    va_start(args, says);
    fprintf(stderr, "TEST_SEED=%u step %lu: ", seed, (unsigned long)sim_step);
    vfprintf(stderr, says, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static struct node *some_node(void)
{
    return &sim_nodes[below(NODES)];
}

static bool runs(const struct node *n)
{
    return n->up && !n->frozen;
}

/* Rare: it is killed, or frozen. */
static void fate(struct node *n)
{
    if (!runs(n))
        return;
    if (below(2))
        node_kill(n, below(4) == 0);
    else
        n->frozen = true;
}

/* It is started again, or goes on where it was; or others find its lease gone, also when it is only the
 * directory that was away. */
static void fate_turns(struct node *n)
{
    struct node *other = some_node();
    if (!runs(n) && below(50) == 0) {
        n->frozen = false;
        if (!n->up)
            node_start(n);
    } else if (n != other && runs(other) && below(runs(n) ? 2000 : 60) == 0) {
        node_report_dead(other, n);
    }
}

static void order_some(void)
{
    for (unsigned tries = 0; tries < NODES * LANES; tries++) {
        struct node *n = some_node();
        unsigned lane = below(LANES);
        if (n->ways[lane].count > 0) { /* what a node has sent goes on without it */
            log_order_some(n, lane);
            return;
        }
    }
}

static void bring_some(struct node *n, unsigned lane)
{
    for (unsigned i = 0; i < 2 && log_bring(n, lane); i++)
        ;
}

static void step(void)
{
    struct node *n = some_node();
    unsigned what = below(1000), lane = below(LANES), ms = below(4);
    sim_step++;
    n->wall_ms += ms;
    n->mono_ms += ms;
    fate_turns(n);
    if (what < 4)
        fate(n);
    else if (what < 250)
        order_some();
    else if (!runs(n))
        return;
    else if (what < 350)
        (void)clients_publish(n);
    else if (what < 550)
        client_step(some_client());
    else if (what < 800)
        bring_some(n, lane);
    else if (n->down_read)
        node_be_born_again(n);
    else
        node_turn(n);
    if (what == 999)
        check_digests();
}

/* All nodes run, everything is ordered and brought, every client comes back and gets what it is owed. */
static void quiet_round(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &sim_nodes[i];
        n->frozen = false;
        if (!n->up)
            node_start(n);
        if (n->down_read)
            node_be_born_again(n);
        n->mono_ms += 30;
        n->wall_ms += 30;
        for (unsigned lane = 0; lane < LANES; lane++) {
            while (n->ways[lane].count > 0)
                log_order_some(n, lane);
            while (log_bring(n, lane))
                ;
        }
        node_settle(n);
    }
}

static unsigned still_open(void)
{
    unsigned open = 0;
    for (unsigned i = 0; i < NODES; i++)
        open += sim_nodes[i].open;
    return open;
}

static void quiet(void)
{
    /* A connection that was asked for long ago may still be attached, and take over. */
    for (unsigned rounds = 0, still = 0; rounds < QUIET_ROUNDS && still < STILL_ROUNDS; rounds++) {
        quiet_round();
        for (unsigned i = 0; i < NODES && still_open() > 0; i++)
            (void)clients_publish(&sim_nodes[i]); /* what it overtakes was lost, and is told so */
        still = clients_quiet() && still_open() == 0 ? still + 1 : 0;
    }
    REQUIRE(still_open() == 0, "%u publishes are never answered", still_open());
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned lane = 0; lane < LANES; lane++)
            while (log_bring(&sim_nodes[i], lane))
                ;
    clients_check_end();
    check_replicas();
}

static void world(uint64_t steps)
{
    log_reset();
    check_reset();
    clients_reset();
    for (unsigned i = 0; i < NODES; i++) {
        node_init(&sim_nodes[i], i);
        node_start(&sim_nodes[i]);
    }
    for (uint64_t i = 0; i < steps; i++)
        step();
    quiet();
    for (unsigned i = 0; i < NODES; i++)
        node_deinit(&sim_nodes[i]);
    log_reset();
}

int main(int argc, char **argv)
{
    uint64_t steps = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    seed = test_seed();
    sim_seed(seed);
    while (sim_step < steps)
        world(WORLD_STEPS);
    check_deinit();
    printf(
        "%lu steps: %lu records, %lu void, %lu messages, %lu acknowledged, %lu delivered, %lu attachments, "
        "%lu taken over, %lu nodes that read of their end\n",
        (unsigned long)sim_step, (unsigned long)check_counts.records, (unsigned long)check_counts.voids,
        (unsigned long)check_counts.messages, (unsigned long)check_counts.acknowledged,
        (unsigned long)check_counts.delivered, (unsigned long)check_counts.attaches,
        (unsigned long)check_counts.takeovers, (unsigned long)check_counts.ends);
    return 0;
}
