/* Sessions and their connections. The door is small, but does what the daemon's doors do: the record is read,
 * written again under an attachment of its own, and only then served; a subscription is in force when the
 * record has it; what a filter has been acknowledged stands in the record; a connection whose session was
 * taken closes.
 *
 * A client may lose a connection without its node knowing (`lost`): what that still delivers nobody gets. */
#include "sim/sim.h"

#include "routing/once_id.h"
#include "routing/topic.h"

#include <stdarg.h>

enum { CONNS_MAX = 12, RETRIES_MAX = 32 };

struct conn;

/* A subscription, as its connection sees it. */
struct feed {
    struct conn *conn;
    unsigned filter, first, count; /* count 0: not subscribed */
    struct subscription *sub;
    bool placed; /* it stands in the record */
    uint64_t next[LANES]; /* all below that match have been handed over */
    uint64_t acked[LANES];
    uint64_t unacked[LANES][WINDOW];
    unsigned unacked_count[LANES];
    struct keeper_wait wait;
};

struct conn {
    struct client *client;
    struct node *node;
    struct session *session;
    struct keeper *keeper;
    struct keeper_wait wait;
    struct buf record; /* as read */
    bool attached, taken, broken, lost;
    uint64_t asked; /* the event at which its attachment was asked for */
    unsigned unacked;
    struct feed feeds[FILTERS];
};

struct client {
    unsigned index;
    char name[KEEPER_NAME_BYTES + 1];
    struct conn *conn; /* that it believes in; NULL: none */
    struct conn *conns[CONNS_MAX]; /* all that are open somewhere */
    bool ending; /* it waits until its session has ended */
    struct keeper_wait ended;
    uint64_t ended_at; /* it may have: the event; 0: it has not */
    uint64_t last_end; /* the newest of these events */
    struct {
        bool on; /* told that it is in force */
        uint64_t at; /* the event */
        uint64_t got[LANES]; /* all below that match have reached it */
    } owed[FILTERS];
};

static struct client clients[CLIENTS];
static uint64_t events;
static uint64_t producer_next[PRODUCERS];
static struct retry {
    unsigned producer, number;
    uint64_t sequence;
} retries[RETRIES_MAX];
static unsigned retry_count;

const char *client_name(unsigned index)
{
    return clients[index].name;
}

void clients_reset(void)
{
    memset(clients, 0, sizeof clients);
    memset(producer_next, 0, sizeof producer_next);
    retry_count = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].index = i;
        for (unsigned k = 0; k < KEEPER_NAME_BYTES; k++)
            clients[i].name[k] = "0123456789abcdef"[(k * 7 + i * 13 + i) & 15];
        clients[i].name[0] = (char)('a' + i);
    }
}

struct client *some_client(void)
{
    return &clients[below(CLIENTS)];
}

/* --- the record --------------------------------------------------------------------------------------- */

static void feed_put(struct feed *f, struct buf *out, enum status *st)
{
    struct record_filter r = {
        .flags = RECORD_ACK, .filter = slice_cstr(sim_filters[f->filter]), .lane_count = (uint16_t)f->count};
    for (unsigned i = 0; i < f->count; i++) {
        unsigned lane = f->first + i;
        uint64_t reached = subscription_reached(f->sub, lane);
        if (f->unacked_count[lane] > 0)
            f->acked[lane] = f->unacked[lane][0];
        else if (reached > f->acked[lane])
            f->acked[lane] = reached;
        r.next[i] = f->acked[lane];
    }
    *st = record_put(out, &r);
}

static enum status on_snapshot(void *ctx, struct buf *out)
{
    struct conn *c = ctx;
    if (!c->attached && c->record.len > 0)
        return buf_put(out, buf_slice(&c->record));
    enum status st = record_begin(out, EPOCH, LANES);
    for (unsigned i = 0; i < FILTERS && st == ST_OK; i++)
        if (c->feeds[i].placed)
            feed_put(&c->feeds[i], out, &st);
    return st;
}

/* --- deliveries --------------------------------------------------------------------------------------- */

static enum status on_deliver(void *ctx, struct subscription *sub, struct delivery *d)
{
    struct conn *c = ctx;
    struct feed *f = subscription_options_of(sub)->door;
    unsigned lane = d->msg->partition;
    if (c->taken || c->broken || c->unacked == WINDOW)
        return ST_AGAIN;
    check_genuine(d->msg, lane);
    uint64_t owed = check_next_owed(f->filter, lane, f->next[lane]);
    REQUIRE(owed == d->msg->offset, "%s: client %u filter %s lane %u: offset %lu comes, %lu is next",
            owed < d->msg->offset ? "a gap" : "out of order", c->client->index, sim_filters[f->filter], lane,
            (unsigned long)d->msg->offset, (unsigned long)owed);
    f->next[lane] = d->msg->offset + 1;
    f->unacked[lane][f->unacked_count[lane]++] = d->msg->offset;
    c->unacked++;
    if (!c->lost && c->client->owed[f->filter].on && c->client->owed[f->filter].got[lane] < f->next[lane])
        c->client->owed[f->filter].got[lane] = f->next[lane];
    return ST_OK;
}

static void on_subscribed(void *ctx, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct conn *c = ctx;
    struct feed *f = subscription_options_of(sub)->door;
    (void)replay;
    if (f->placed) /* it was in the record */
        return;
    f->placed = true;
    for (unsigned lane = 0; lane < LANES; lane++)
        f->next[lane] = f->acked[lane] = at->next[lane];
    keeper_want(c->keeper, &f->wait);
}

static void on_live(void *ctx, struct subscription *sub, const struct place *at)
{
    (void)ctx;
    (void)sub;
    (void)at;
}

static void on_gap(void *ctx, struct subscription *sub, const struct gap *gap)
{
    (void)sub;
    sim_fail("client %u is told of a gap: %s, lane %u, %lu to %lu", ((struct conn *)ctx)->client->index,
             gap->why, gap->lane, (unsigned long)gap->from, (unsigned long)gap->to);
}

static struct slice on_name(void *ctx)
{
    (void)ctx;
    return (struct slice){0};
}

static const struct transport_ops door = {.deliver = on_deliver,
                                          .subscribed = on_subscribed,
                                          .live = on_live,
                                          .gap = on_gap,
                                          .door = "sim",
                                          .name = on_name};

/* --- connections -------------------------------------------------------------------------------------- */

static void conn_close(struct conn *c, enum keeper_end end)
{
    struct client *client = c->client;
    for (unsigned i = 0; i < FILTERS; i++)
        list_unlink(&c->feeds[i].wait.link);
    list_unlink(&c->wait.link);
    if (end == KEEPER_FORGET)
        keeper_close_then(c->keeper, end, &client->ended);
    else
        keeper_close(c->keeper, end);
    session_end(c->session);
    buf_deinit(&c->record);
    for (unsigned i = 0; i < CONNS_MAX; i++)
        if (client->conns[i] == c)
            client->conns[i] = NULL;
    if (client->conn == c)
        client->conn = NULL;
    free(c);
}

static void conn_subscribe(struct conn *c, unsigned filter, const struct place *after)
{
    struct feed *f = &c->feeds[filter];
    const struct subscription_options o = {.qos = 1,
                                           .start = after ? START_AFTER : START_LIVE,
                                           .after = after,
                                           .held = !after,
                                           .owed = true,
                                           .door = f};
    f->placed = after != NULL;
    for (unsigned lane = 0; after && lane < LANES; lane++)
        f->next[lane] = f->acked[lane] = after->next[lane];
    REQUIRE(session_subscribe(c->session, slice_cstr(sim_filters[filter]), &o, &f->sub) == ST_OK,
            "no subscription");
    subscription_lanes(f->sub, &f->first, &f->count);
}

static unsigned filter_index(struct slice filter)
{
    unsigned i = 0;
    while (i < FILTERS && !slice_equal_cstr(filter, sim_filters[i]))
        i++;
    REQUIRE(i < FILTERS, "a record with a filter that nobody has");
    return i;
}

/* It was attached to a session that its client has ended since, or no client hears of it: what it resumes is
 * not what is owed. */
static bool conn_is_stale(const struct conn *c)
{
    return c->lost || c->asked < c->client->last_end;
}

/* A filter of the record: what it passes over must have reached the client. */
static void resume_filter(struct conn *c, const struct record_filter *r)
{
    unsigned filter = filter_index(r->filter), first = 0;
    struct place place = {.lane_count = LANES};
    struct client *client = c->client;
    (void)topic_filter_partition(r->filter, LANES, &first);
    for (unsigned i = 0; i < r->lane_count; i++) {
        unsigned lane = first + i;
        uint64_t *got = &client->owed[filter].got[lane];
        place.next[lane] = r->next[i];
        if (conn_is_stale(c))
            continue;
        if (client->owed[filter].on)
            REQUIRE(check_next_owed(filter, lane, *got) >= r->next[i],
                    "client %u goes on at %lu of lane %u, and has all but what follows %lu", client->index,
                    (unsigned long)r->next[i], lane, (unsigned long)*got);
        else
            *got = r->next[i];
    }
    if (!client->owed[filter].on && !conn_is_stale(c)) {
        client->owed[filter].at = ++events;
        client->owed[filter].on = true;
    }
    conn_subscribe(c, filter, &place);
}

/* It is served from here on. */
static void conn_resume(struct conn *c)
{
    struct client *client = c->client;
    struct slice bytes = buf_slice(&c->record);
    bool had[FILTERS] = {false};
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter r;
    bool whole = bytes.len > 0 && record_open(bytes, &place, &epoch, &lanes) == ST_OK;
    while (whole && record_next(bytes, &place, lanes, &r) == ST_OK) {
        had[filter_index(r.filter)] = true;
        resume_filter(c, &r);
    }
    if (conn_is_stale(c))
        return;
    for (unsigned i = 0; i < FILTERS; i++) {
        if (had[i] || !client->owed[i].on || client->owed[i].at > c->asked)
            continue;
        REQUIRE(client->ended_at > 0, "client %u: the record has lost filter %s", client->index,
                sim_filters[i]);
        client->owed[i].on = false;
    }
    if (client->ended_at < c->asked)
        client->ended_at = 0;
}

static void on_attached(struct keeper_wait *w, enum status status)
{
    struct conn *c = LIST_OF(w, struct conn, wait);
    if (getenv("DBG"))
        fprintf(stderr, "step %lu client %u node %u attached status %d\n", sim_step, c->client->index,
                c->node->index, status);
    if (status == ST_AGAIN) {
        keeper_read_again(c->keeper);
        return;
    }
    if (status != ST_OK) {
        c->broken = true;
        return;
    }
    check_served(c->client->index, c->node->log.incarnation);
    c->attached = true;
    conn_resume(c);
}

static void on_read(void *ctx, enum status status, struct slice record)
{
    struct conn *c = ctx;
    buf_clear(&c->record);
    if (status == ST_OK)
        REQUIRE(buf_put(&c->record, record) == ST_OK, "no memory");
    c->asked = ++events;
    keeper_want(c->keeper, &c->wait);
}

static void on_taken(void *ctx)
{
    ((struct conn *)ctx)->taken = true;
    if (getenv("DBG"))
        fprintf(stderr, "step %lu client %u node %u taken\n", sim_step, ((struct conn *)ctx)->client->index,
                ((struct conn *)ctx)->node->index);
}

/* The client is told that the filter is in force. */
static void on_filter_kept(struct keeper_wait *w, enum status status)
{
    struct feed *f = LIST_OF(w, struct feed, wait);
    struct conn *c = f->conn;
    if (status != ST_OK) {
        c->broken = true;
        return;
    }
    if (!c->lost && !c->client->owed[f->filter].on) {
        c->client->owed[f->filter].on = true;
        c->client->owed[f->filter].at = ++events;
        memcpy(c->client->owed[f->filter].got, f->next, sizeof f->next);
    }
    subscription_begin(f->sub);
}

static const struct keeper_ops keeper_ops = {
    .snapshot = on_snapshot, .on_read = on_read, .on_taken = on_taken};

static void on_session_ended(struct keeper_wait *w, enum status status)
{
    (void)status;
    LIST_OF(w, struct client, ended)->ending = false;
}

static void client_connect(struct client *client, struct node *n)
{
    static const struct keeper_limits limits = {
        .expiry_ms = UINT64_MAX, .save_ms = 20, .save_count = 5, .record_bytes_max = 4096};
    unsigned slot = 0;
    while (slot < CONNS_MAX && client->conns[slot])
        slot++;
    if (client->ending || slot == CONNS_MAX)
        return;
    struct conn *c = calloc(1, sizeof *c);
    REQUIRE(c, "no memory");
    c->client = client;
    c->node = n;
    c->wait.on_kept = on_attached;
    list_init(&c->wait.link);
    buf_init(&c->record, 4096);
    for (unsigned i = 0; i < FILTERS; i++) {
        c->feeds[i] = (struct feed){.conn = c, .filter = i, .wait.on_kept = on_filter_kept};
        list_init(&c->feeds[i].wait.link);
    }
    REQUIRE(session_create(n->hub, &door, c, &c->session) == ST_OK &&
                keeper_resume(n->hub, n->registry, &limits, &keeper_ops, c, client->name, &c->keeper) ==
                    ST_OK,
            "no memory");
    if (client->conn && below(2))
        client->conn->lost = true;
    client->conn = client->conns[slot] = c;
}

/* --- what clients do ---------------------------------------------------------------------------------- */

static void conn_ack(struct conn *c, bool all)
{
    unsigned acks = 0;
    for (unsigned i = 0; i < FILTERS; i++) {
        struct feed *f = &c->feeds[i];
        for (unsigned lane = 0; lane < LANES; lane++) {
            while (f->unacked_count[lane] > 0 && (all || below(2))) {
                f->acked[lane] = f->unacked[lane][0] + 1;
                memmove(f->unacked[lane], f->unacked[lane] + 1,
                        --f->unacked_count[lane] * sizeof f->unacked[lane][0]);
                c->unacked--;
                acks++;
            }
        }
    }
    if (acks == 0)
        return;
    keeper_moved(c->keeper, acks);
    session_room(c->session);
}

static bool conn_serves(const struct conn *c)
{
    return c && c->node->up && !c->node->frozen && c->attached && !c->taken && !c->broken;
}

static void client_end(struct client *client)
{
    client->ended_at = client->last_end = ++events;
    client->ending = true;
    client->ended.on_kept = on_session_ended;
    conn_close(client->conn, KEEPER_FORGET);
}

void client_step(struct client *client)
{
    struct conn *c = client->conn;
    unsigned what = below(100);
    if (!c || what < 4) {
        struct node *n = &sim_nodes[below(NODES)];
        if (n->up && !n->frozen)
            client_connect(client, n);
        return;
    }
    for (unsigned i = 0; i < CONNS_MAX; i++) /* one that is not lost acknowledges, too */
        if (conn_serves(client->conns[i]) && !client->conns[i]->lost && below(3) == 0)
            conn_ack(client->conns[i], false);
    if (what < 6) {
        c->lost = true;
        client->conn = NULL;
    } else if (!conn_serves(c)) {
        return;
    } else if (what < 9) {
        conn_close(c, KEEPER_DETACH);
    } else if (what < 11) {
        client_end(client);
    } else if (what < 30) {
        unsigned filter = below(FILTERS);
        if (c->feeds[filter].count == 0)
            conn_subscribe(c, filter, NULL);
    } else {
        conn_ack(c, false);
    }
}

void clients_close_taken(struct node *n)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        for (unsigned k = 0; k < CONNS_MAX; k++) {
            struct conn *c = clients[i].conns[k];
            if (!c || c->node != n || (!c->taken && !c->broken))
                continue;
            check_counts.takeovers += c->taken;
            conn_close(c, KEEPER_LEAVE);
        }
    }
}

void clients_drop_node(struct node *n)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        for (unsigned k = 0; k < CONNS_MAX; k++)
            if (clients[i].conns[k] && clients[i].conns[k]->node == n)
                conn_close(clients[i].conns[k], KEEPER_LEAVE);
}

/* --- publishing --------------------------------------------------------------------------------------- */

static void on_published(struct publish *p)
{
    struct node *n = p->owner;
    struct once_id id;
    n->open--;
    if (p->status == ST_OK) {
        check_acknowledged(p->msg->partition, p->msg->offset, false);
    } else if (once_id_read(msg_props(p->msg), &id) && retry_count < RETRIES_MAX) {
        unsigned number = 0;
        for (uint32_t i = 0; i < p->msg->payload_len; i++)
            number = number * 10 + (unsigned)(msg_payload(p->msg).data[i] - '0');
        retries[retry_count++] = (struct retry){(unsigned)(id.name.data[0] - '0'), number, id.value};
    }
    publish_free(p);
}

static void publish(struct node *n, unsigned topic, unsigned number, const struct once_id *id)
{
    uint8_t props[ONCE_PROP_BYTES_MAX];
    char payload[16];
    struct msg *m;
    struct publish *p;
    snprintf(payload, sizeof payload, "%u", number);
    struct slice with = slice_of(props, id ? once_id_write(id, props) : 0);
    REQUIRE(msg_create(slice_cstr(sim_topics[topic]), (struct slice){0}, with, slice_cstr(payload), &m) ==
                    ST_OK &&
                publish_create(m, &p) == ST_OK,
            "no memory");
    m->flags = id ? MSG_ONCE : 0;
    p->wait = true;
    p->on_published = on_published;
    p->owner = n;
    n->open++;
    hub_publish(n->hub, p);
}

bool clients_publish(struct node *n)
{
    if (n->open >= WAY_MAX / 2)
        return false;
    unsigned who = below(PRODUCERS), topic = below(TOPICS);
    char name[2] = {(char)('0' + who), 0};
    struct once_id id = {.kind = ONCE_PRODUCER, .name = slice_cstr(name)};
    if (retry_count > 0 && below(3) == 0) {
        struct retry r = retries[--retry_count];
        name[0] = (char)('0' + r.producer);
        id.value = r.sequence;
        publish(n, r.producer, r.number, &id);
    } else if (below(4) == 0 && producer_next[who] < SEQUENCES) {
        id.value = producer_next[who]++;
        publish(n, who, check_try(who), &id);
    } else {
        publish(n, topic, check_try(topic), NULL);
    }
    return true;
}

/* --- the end ------------------------------------------------------------------------------------------ */

static bool client_has_all(const struct client *client)
{
    const struct conn *c = client->conn;
    if (!conn_serves(c) || c->unacked > 0)
        return false;
    for (unsigned i = 0; i < FILTERS; i++)
        for (unsigned lane = 0; client->owed[i].on && lane < LANES; lane++)
            if (check_next_owed(i, lane, client->owed[i].got[lane]) != UINT64_MAX &&
                lane >= c->feeds[i].first && lane < c->feeds[i].first + c->feeds[i].count)
                return false;
    return true;
}

bool clients_quiet(void)
{
    bool all = true;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &clients[i];
        if (!client->conn)
            client_connect(client, &sim_nodes[below(NODES)]);
        else if (conn_serves(client->conn))
            conn_ack(client->conn, true);
        all = client_has_all(client) && all;
    }
    return all;
}

static void client_tell(const struct client *client)
{
    const struct conn *c = client->conn;
    fprintf(stderr, "client %u: %s%s%s\n", client->index, c ? "connected" : "not connected",
            c && c->attached ? " attached" : "", client->ending ? " ending" : "");
    for (unsigned k = 0; k < CONNS_MAX; k++)
        if (client->conns[k])
            fprintf(stderr, "  at node %u: attached %d taken %d broken %d lost %d unacknowledged %u\n",
                    client->conns[k]->node->index, client->conns[k]->attached, client->conns[k]->taken,
                    client->conns[k]->broken, client->conns[k]->lost, client->conns[k]->unacked);
    for (unsigned i = 0; i < FILTERS; i++)
        for (unsigned lane = 0; client->owed[i].on && lane < LANES; lane++)
            if (check_next_owed(i, lane, client->owed[i].got[lane]) != UINT64_MAX)
                fprintf(stderr, "  %s lane %u: has all below %lu, then %ld is owed; handed over %ld\n",
                        sim_filters[i], lane, (unsigned long)client->owed[i].got[lane],
                        (long)check_next_owed(i, lane, client->owed[i].got[lane]),
                        c ? (long)c->feeds[i].next[lane] : -1L);
}

void clients_check_end(void)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        unsigned holders = 0;
        for (unsigned k = 0; k < CONNS_MAX; k++)
            holders += clients[i].conns[k] && clients[i].conns[k]->attached;
        if (holders > 1)
            client_tell(&clients[i]);
        REQUIRE(holders <= 1, "client %u is served by %u connections", i, holders);
        if (!client_has_all(&clients[i])) {
            client_tell(&clients[i]);
            sim_fail("owed and not delivered, to client %u", i);
        }
    }
}
