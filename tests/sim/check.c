/* The promise in plain words. The log is what the simulation has ordered; which of its records count is said
 * here once more:
 *
 *   - nothing of a node's incarnation counts behind its end: a later START of the node, or a NODE_DOWN that
 *     named it while it was alive
 *   - of what is state, what its incarnation has numbered lower than something before does not count
 *   - of one producer and sequence the first counts
 *   - a session's record counts when it was based on the newest one; by a greater attachment when it
 * attaches, by the same when it does not
 *
 * A message that counts is owed to every session whose filter was in place before. */
#include "sim/sim.h"

#include "core/hash.h"
#include "routing/attachment.h"
#include "routing/once_id.h"
#include "routing/topic.h"

enum { TRIES_MAX = 1 << 20 };

struct check_counts check_counts;

static struct {
    struct {
        bool ended, known;
        uint64_t newest;
        int node; /* -1: not said */
    } lives[INCARNATIONS_MAX];
} lanes[LANES];
static uint8_t seen[PRODUCERS][SEQUENCES];
static struct {
    uint64_t place, number;
    uint8_t attached[INCARNATIONS_MAX], served[INCARNATIONS_MAX]; /* how many times */
} sessions[CLIENTS];
static uint8_t tries[TRIES_MAX]; /* the topic of each */
static unsigned try_count;
static uint64_t first_life; /* incarnations of this world are numbered from here */
static struct {
    uint64_t *at;
    uint64_t cap;
} digests[LANES];

void check_reset(void)
{
    memset(lanes, 0, sizeof lanes);
    memset(seen, 0, sizeof seen);
    memset(sessions, 0, sizeof sessions);
    try_count = 0;
    first_life = 0;
}

unsigned check_try(unsigned topic)
{
    REQUIRE(try_count < TRIES_MAX, "too many tries");
    tries[try_count] = (uint8_t)topic;
    return try_count++;
}

static unsigned number_in(struct slice text)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.len; i++)
        n = n * 10 + (unsigned)(text.data[i] - '0');
    return n;
}

static int topic_index(struct slice topic)
{
    for (int i = 0; i < TOPICS; i++)
        if (slice_equal_cstr(topic, sim_topics[i]))
            return i;
    return -1;
}

/* --- what counts -------------------------------------------------------------------------------------- */

static bool node_record_counts(unsigned lane, const struct msg *m, const struct proposal *p, uint64_t life)
{
    int node = msg_topic(m).data[msg_topic(m).len - 1] - '0';
    if (p->condition == PROPOSAL_START) {
        for (unsigned i = 0; i < INCARNATIONS_MAX; i++)
            if (i != life && lanes[lane].lives[i].known && lanes[lane].lives[i].node == node)
                lanes[lane].lives[i].ended = true;
        lanes[lane].lives[life].node = node;
        return true;
    }
    uint64_t dead = p->based_on - first_life;
    if (dead >= INCARNATIONS_MAX || !lanes[lane].lives[dead].known || lanes[lane].lives[dead].ended ||
        lanes[lane].lives[dead].node != node)
        return false;
    lanes[lane].lives[dead].ended = true;
    return true;
}

static bool session_record_counts(const struct msg *m, const struct proposal *p, uint64_t offset)
{
    uint64_t number;
    REQUIRE(attachment_read(msg_key(m), &number) == ST_OK, "a session's record without a number");
    unsigned c = 0;
    while (c < CLIENTS && memcmp(msg_topic(m).data + 9, client_name(c), KEEPER_NAME_BYTES) != 0)
        c++;
    REQUIRE(c < CLIENTS, "a session that nobody has");
    bool attach = p->condition == PROPOSAL_ATTACH;
    bool right = attach ? sessions[c].place == 0 || number > sessions[c].number
                        : sessions[c].place > 0 && number == sessions[c].number;
    if (p->based_on != sessions[c].place || !right)
        return false;
    check_counts.attaches += attach;
    sessions[c].attached[p->incarnation - first_life] += attach;
    sessions[c].place = m->payload_len > 0 ? offset + 1 : 0;
    sessions[c].number = number;
    return true;
}

static bool record_counts(unsigned lane, const struct msg *m, uint64_t offset)
{
    struct proposal p;
    struct once_id id;
    REQUIRE(proposal_read(msg_props(m), &p), "a record that does not say who has proposed it");
    if (first_life == 0)
        first_life = p.incarnation > NODES ? p.incarnation - NODES : 1;
    uint64_t life = p.incarnation - first_life;
    REQUIRE(life < INCARNATIONS_MAX, "too many incarnations");
    bool once = once_id_read(msg_props(m), &id);
    if (lanes[lane].lives[life].ended)
        return false;
    if ((m->flags & MSG_RETAIN) || once) {
        if (!lanes[lane].lives[life].known)
            lanes[lane].lives[life].node = -1;
        lanes[lane].lives[life].known = true;
        if (p.sequence <= lanes[lane].lives[life].newest)
            return false;
        lanes[lane].lives[life].newest = p.sequence;
    }
    if (proposal_of_node(&p))
        return node_record_counts(lane, m, &p, life);
    if (topic_session(msg_topic(m)))
        return session_record_counts(m, &p, offset);
    if (once) {
        uint8_t *times = &seen[number_in(id.name)][id.value];
        return (*times)++ == 0;
    }
    return true;
}

void check_ordered(unsigned lane, uint64_t offset)
{
    struct ordered *r = &sim_lanes[lane].records[offset];
    r->is_void = !record_counts(lane, r->msg, offset);
    r->topic = topic_index(msg_topic(r->msg));
    check_counts.records++;
    check_counts.voids += r->is_void;
    check_counts.messages += r->topic >= 0 && !r->is_void;
    if (offset >= digests[lane].cap) {
        digests[lane].cap = digests[lane].cap ? digests[lane].cap * 2 : 1024;
        digests[lane].at = realloc(digests[lane].at, digests[lane].cap * sizeof(uint64_t));
        REQUIRE(digests[lane].at, "no memory");
    }
    digests[lane].at[offset] = 0;
}

void check_acknowledged(unsigned lane, uint64_t offset, bool session)
{
    REQUIRE(offset < sim_lanes[lane].count, "acknowledged before it was in the log");
    REQUIRE(!sim_lanes[lane].records[offset].is_void, "void, and acknowledged: lane %u offset %lu%s", lane,
            (unsigned long)offset, session ? ", of a session" : "");
    check_counts.acknowledged++;
}

/* --- what is owed ------------------------------------------------------------------------------------- */

uint64_t check_next_owed(unsigned filter, unsigned lane, uint64_t from)
{
    struct slice f = slice_cstr(sim_filters[filter]);
    for (uint64_t i = from; i < sim_lanes[lane].count; i++) {
        const struct ordered *r = &sim_lanes[lane].records[i];
        if (r->topic >= 0 && !r->is_void && topic_matches(f, slice_cstr(sim_topics[r->topic])))
            return i;
    }
    return UINT64_MAX;
}

void check_genuine(const struct msg *m, unsigned lane)
{
    REQUIRE(m->offset < sim_lanes[lane].count, "delivered, and not in the log");
    const struct ordered *r = &sim_lanes[lane].records[m->offset];
    unsigned number = number_in(msg_payload(m));
    REQUIRE(slice_equal(msg_payload(m), msg_payload(r->msg)) &&
                slice_equal(msg_topic(m), msg_topic(r->msg)) && number < try_count &&
                r->topic == (int)tries[number],
            "delivered, and never sent: lane %u offset %lu", lane, (unsigned long)m->offset);
    REQUIRE(!r->is_void, "void, and delivered: lane %u offset %lu", lane, (unsigned long)m->offset);
    check_counts.delivered++;
}

/* --- replicas ----------------------------------------------------------------------------------------- */

/* Each at its own place; who was there first says what the state is. */
void check_digests(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &sim_nodes[i];
        for (unsigned lane = 0; n->up && lane < LANES; lane++) {
            struct shard_digest d;
            uint64_t next = n->log.lanes[lane].count;
            if (next == 0)
                continue;
            shard_digest(n->map.lanes[lane].shard, sim_lanes[lane].records[next - 1].ts_ms, &d);
            uint64_t *at = &digests[lane].at[next - 1];
            *at = *at ? *at : d.digest;
            REQUIRE(*at == d.digest, "node %u has another state: lane %u offset %lu", i, lane,
                    (unsigned long)next - 1);
        }
    }
}

void check_served(unsigned client, uint64_t incarnation)
{
    uint64_t life = incarnation - first_life;
    REQUIRE(first_life > 0 && sessions[client].served[life] < sessions[client].attached[life],
            "client %u is served, and the log has not attached it", client);
    sessions[client].served[life]++;
}

void check_deinit(void)
{
    for (unsigned lane = 0; lane < LANES; lane++)
        free(digests[lane].at);
}

/* What the replicas say of a session's newest record and of the nodes that live. */
struct asked {
    struct read read;
    bool back;
};

static void on_read(struct read *r)
{
    LIST_OF(r, struct asked, read)->back = true;
}

static void check_session(struct node *n, unsigned client)
{
    char topic[9 + KEEPER_NAME_BYTES + 1];
    snprintf(topic, sizeof topic, "$session/%s", client_name(client));
    unsigned lane = topic_partition(slice_cstr(topic), LANES);
    struct asked a = {
        .read = {.store = {.lane = lane, .topic = slice_cstr(topic), .to = UINT64_MAX, .count_max = 1},
                 .on_read = on_read}};
    a.read.session = true;
    hub_read_retained(n->hub, &a.read);
    while (!a.back)
        node_settle(n);
    uint64_t place = a.read.store.found > 0 ? a.read.store.msgs[0]->offset + 1 : 0;
    read_release(&a.read);
    REQUIRE(place == sessions[client].place, "node %u has another record of client %u: that at %ld, not %ld",
            n->index, client, (long)place - 1, (long)sessions[client].place - 1);
}

static void on_live(void *ctx, struct slice node, uint64_t incarnation)
{
    bool *known = ctx;
    unsigned i = node.len == 2 ? node.data[1] - (unsigned)'0' : NODES;
    if (i < NODES && sim_nodes[i].log.incarnation == incarnation)
        known[i] = true;
}

void check_replicas(void)
{
    check_digests();
    for (unsigned client = 0; client < CLIENTS; client++)
        check_session(&sim_nodes[client % NODES], client);
    for (unsigned lane = 0; lane < LANES; lane++) {
        bool known[NODES] = {false};
        shard_each_incarnation(sim_nodes[0].map.lanes[lane].shard, on_live, known);
        for (unsigned i = 0; i < NODES; i++)
            REQUIRE(known[i], "node %u has not said who it is in lane %u", i, lane);
    }
}
