/* Replicas of one shard, each with its own copy of a log whose order is given elsewhere (docs/CLUSTER.md).
 * Random proposals at each of them, some based on a state that has moved by the time they are ordered, some
 * ordered twice; each replica gets the records at its own pace, is killed and starts from its copy, or from
 * nothing. At each offset all of them must have the same state, and deliver the same. */
#include "routing/attachment.h"
#include "routing/once_id.h"
#include "routing/proposal.h"
#include "routing/shard.h"

#include "fakes/fake_topic_log.h"
#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    REPLICAS = 3,
    STEPS = 20000,
    RECORDS_MAX = 2 * STEPS,
    WAY_MAX = 64,
    PRODUCERS = 5,
    SEQUENCES = 900,
    SESSIONS = 6,
    INCARNATIONS_MAX = 2000 /* of one program */
};

struct replica {
    struct fake_log log;
    struct loop *loop;
    struct courier *courier;
    struct shard_group *group;
    struct shard *shard;
    struct clock clock;
    uint64_t wall_ms, mono_ms;
    struct attach attach;
    bool attached;
    struct msg *way[WAY_MAX]; /* proposed, not ordered yet: in this order */
    unsigned way_count;
    unsigned open; /* letters that will come back */
    uint8_t seen[RECORDS_MAX]; /* delivered since it started */
};

static struct replica replicas[REPLICAS];
static struct shard_limits limits;
static uint64_t incarnations;
static bool strict; /* nothing is ever forgotten */

/* The log, and what is known of each offset from whichever replica was there first. */
static struct {
    struct msg *msg;
    uint64_t ts_ms, digest;
    enum { UNKNOWN, DELIVERED, NOT_DELIVERED } fate;
    bool folded, stored; /* stored: its publisher was told so */
} records[RECORDS_MAX];
static uint64_t record_count;
static uint64_t newest_sequence[PRODUCERS];

static unsigned below(unsigned n)
{
    return (unsigned)rand() % n;
}

/* --- a replica ---------------------------------------------------------------------------------------- */

static uint64_t mono_ns(void *ctx)
{
    return ((struct replica *)ctx)->mono_ms * 1000000;
}

static uint64_t wall(void *ctx)
{
    return ((struct replica *)ctx)->wall_ms;
}

static void turn(struct replica *r)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_dispatch(r->loop);
        loop_prepare(r->loop);
    }
}

static void on_deliver(struct mail *mail)
{
    struct deliver *d = LIST_OF(mail, struct deliver, mail);
    struct replica *r = d->hub;
    for (uint32_t i = 0; i < d->run->count; i++) {
        uint64_t offset = d->run->msgs[i]->offset;
        cr_assert_not(r->seen[offset], "%lu is delivered twice", (unsigned long)offset);
        r->seen[offset] = true;
    }
    deliver_free(d);
}

/* A backend that is slow refuses. */
static enum status on_propose(struct fake_log *f, struct msg *m)
{
    struct replica *r = LIST_OF(f, struct replica, log);
    if (r->way_count == WAY_MAX)
        return ST_FULL;
    r->way[r->way_count++] = msg_ref(m);
    return ST_OK;
}

static void on_attached(struct attach *a)
{
    ((struct replica *)a->owner)->attached = true;
}

static void expect_digest(struct replica *r)
{
    uint64_t offset = r->log.lanes[0].count - 1;
    struct shard_digest d;
    shard_digest(r->shard, records[offset].ts_ms, &d);
    if (!records[offset].folded) {
        records[offset].folded = true;
        records[offset].digest = d.digest;
    }
    cr_assert_eq(d.digest, records[offset].digest, "replica %td has another state at %lu", r - replicas,
                 (unsigned long)offset);
}

struct serving {
    struct loop_hook hook;
    struct fake_log *log;
};

static bool serve(struct loop_hook *h)
{
    return fake_log_serve(LIST_OF(h, struct serving, hook)->log);
}

/* Of what its copy of the log has. */
static void replica_start(struct replica *r)
{
    r->clock = (struct clock){.mono_ns = mono_ns, .wall_ms = wall, .ctx = r};
    r->log.incarnation = ++incarnations;
    r->log.on_propose = on_propose;
    cr_assert_eq(loop_create(&r->clock, 0, &r->loop), ST_OK);
    cr_assert_eq(courier_create(r->loop, &r->courier), ST_OK);
    cr_assert_eq(
        shard_group_create(r->courier, fake_log_port(&r->log), metrics_register(), 1, &limits, &r->group),
        ST_OK);
    cr_assert_eq(shard_create(r->group, 0, &r->shard), ST_OK);
    courier_meet(r->courier, 0, r->loop);
    shard_group_meet(r->group, 0, r, on_deliver);
    struct serving serving = {.hook.on_turn_end = serve, .log = &r->log};
    list_init(&serving.hook.link);
    loop_hook_add(r->loop, &serving.hook);
    cr_assert_eq(shard_fold(r->shard), ST_OK);
    loop_hook_remove(r->loop, &serving.hook);
    shard_group_start(r->group);
    courier_start(r->courier);
    memset(r->seen, 0, sizeof r->seen);
    r->attached = false;
    r->attach = (struct attach){
        .filter = slice_cstr("#"), .wants_interest = true, .on_attached = on_attached, .owner = r};
    shard_attach(r->shard, &r->attach);
    turn(r);
    cr_assert(r->attached && r->open == 0);
    if (r->log.lanes[0].count > 0)
        expect_digest(r);
}

/* What was delivered in this life is what others have delivered. */
static void expect_delivered(struct replica *r)
{
    turn(r);
    for (uint64_t i = r->attach.next; i < r->log.lanes[0].count; i++) {
        if (records[i].fate == UNKNOWN)
            records[i].fate = r->seen[i] ? DELIVERED : NOT_DELIVERED;
        cr_assert_eq(r->seen[i], records[i].fate == DELIVERED, "replica %td, offset %lu", r - replicas,
                     (unsigned long)i);
    }
}

static void replica_stop(struct replica *r)
{
    expect_delivered(r);
    struct detach *d = calloc(1, sizeof *d);
    cr_assert(d);
    d->interest = r->attach.interest;
    shard_detach(r->shard, d);
    shard_group_destroy(r->group); /* nobody is told what has become of what it has proposed */
    courier_destroy(r->courier);
    loop_destroy(r->loop);
    r->open = 0;
}

static void way_drop(struct replica *r)
{
    while (r->way_count > 0)
        msg_unref(r->way[--r->way_count]);
}

static void replica_kill(struct replica *r)
{
    replica_stop(r);
    if (below(2))
        way_drop(r); /* else it reaches the log after all */
    if (below(4) == 0) {
        fake_log_deinit(&r->log);
        fake_log_init(&r->log, 1);
    }
    replica_start(r);
}

/* --- the log ------------------------------------------------------------------------------------------ */

static void order(struct msg *m, uint64_t ts_ms)
{
    cr_assert_lt(record_count, RECORDS_MAX);
    uint64_t before = record_count > 0 ? records[record_count - 1].ts_ms : 0;
    records[record_count].msg = m;
    records[record_count++].ts_ms = ts_ms > before ? ts_ms : before;
}

static void order_next(struct replica *r)
{
    if (r->way_count == 0)
        return;
    struct msg *m = r->way[0];
    memmove(r->way, r->way + 1, --r->way_count * sizeof(struct msg *));
    order(m, r->wall_ms);
    if (below(16) == 0) /* the backend takes one again, now or from long ago */
        order(msg_ref(records[record_count - 1 - below(record_count < 50 ? 1 : 50)].msg), r->wall_ms);
}

static void bring_next(struct replica *r)
{
    uint64_t next = r->log.lanes[0].count;
    if (next == record_count)
        return;
    shard_arrived(r->shard, fake_log_bring(&r->log, 0, records[next].msg, records[next].ts_ms));
    expect_digest(r);
    if (below(3) == 0)
        turn(r);
}

/* --- what is proposed --------------------------------------------------------------------------------- */

static void on_published(struct publish *p)
{
    struct replica *r = p->owner;
    r->open--;
    if (p->status == ST_OK)
        records[p->msg->offset].stored = true;
    publish_free(p);
}

static void publish(struct replica *r, struct msg *m, enum session_write session, uint64_t based_on)
{
    struct publish *p;
    cr_assert_eq(publish_create(m, &p), ST_OK);
    p->wait = true;
    p->session = (uint8_t)session;
    p->based_on = based_on;
    p->on_published = on_published;
    p->owner = r;
    r->open++;
    shard_publish(r->shard, p);
}

static struct msg *message(const char *topic, struct slice key, struct slice props, const char *payload)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), key, props, slice_cstr(payload), &m), ST_OK);
    return m;
}

static uint64_t some_expiry(const struct replica *r)
{
    return below(3) == 0 ? r->wall_ms + below(300) : 0;
}

static void publish_retained(struct replica *r)
{
    char topic[16], payload[16];
    snprintf(topic, sizeof topic, "kept/%u", below(9));
    snprintf(payload, sizeof payload, "%u", below(1000));
    struct msg *m = message(topic, (struct slice){0}, (struct slice){0}, below(5) ? payload : "");
    m->flags = MSG_RETAIN;
    m->expires_ms = some_expiry(r);
    publish(r, m, SESSION_NONE, 0);
}

static void publish_once(struct replica *r)
{
    char name[16], topic[16];
    uint8_t props[ONCE_PROP_BYTES_MAX];
    unsigned who = below(PRODUCERS);
    bool key = below(3) == 0;
    uint64_t sequence = newest_sequence[who] + below(6);
    sequence = key ? below(20) / 19 : sequence > 3 ? sequence - 3 : sequence;
    if (sequence >= SEQUENCES)
        return;
    if (!key && sequence > newest_sequence[who])
        newest_sequence[who] = sequence;
    snprintf(name, sizeof name, "%u", key ? below(9) : who);
    snprintf(topic, sizeof topic, "%s/%u", key ? "key" : "seq", key ? 0 : who + (below(30) == 0));
    const struct once_id id = {key ? ONCE_KEY : ONCE_PRODUCER, {0}, slice_cstr(name), sequence};
    struct msg *m = message(topic, (struct slice){0}, slice_of(props, once_id_write(&id, props)), "x");
    m->flags = (uint8_t)(MSG_ONCE | (below(4) == 0 ? MSG_RETAIN : 0));
    if (below(2)) {
        publish(r, m, SESSION_NONE, 0);
        return;
    }
    (void)!shard_publish_lazy(r->shard, m);
    msg_unref(m);
}

struct asked {
    struct read read;
    bool back;
};

static void on_read(struct read *read)
{
    LIST_OF(read, struct asked, read)->back = true;
}

/* The newest record of a session as the replica has it; borrowed, of the log. NULL: none. */
static const struct msg *session_of(struct replica *r, const char *topic)
{
    struct asked a = {
        .read = {.store = {.topic = slice_cstr(topic), .to = UINT64_MAX, .count_max = 1, .home = r->loop},
                 .retained = true,
                 .session = true,
                 .on_read = on_read}};
    shard_read(r->shard, &a.read);
    while (!a.back)
        turn(r);
    const struct msg *m =
        a.read.store.found > 0 ? r->log.lanes[0].records[a.read.store.msgs[0]->offset] : NULL;
    read_release(&a.read);
    return m;
}

static void write_session(struct replica *r)
{
    char topic[24], key[ATTACHMENT_BYTES], payload[16];
    snprintf(topic, sizeof topic, "$session/%u", below(SESSIONS));
    uint64_t number = 0, based_on = 0;
    const struct msg *newest = session_of(r, topic);
    if (newest) {
        cr_assert_eq(attachment_read(msg_key(newest), &number), ST_OK);
        based_on = newest->offset + 1;
    }
    bool attach = below(3) == 0;
    attachment_write(number + (attach ? 1 + below(2) : below(9) == 0), key);
    snprintf(payload, sizeof payload, "%u", below(1000));
    struct msg *m =
        message(topic, slice_of(key, sizeof key), (struct slice){0}, attach || below(8) ? payload : "");
    m->flags = MSG_RETAIN;
    m->expires_ms = some_expiry(r);
    publish(r, m, attach ? SESSION_ATTACH : SESSION_UPDATE, based_on);
}

struct moving {
    struct inbox_letter letter;
    struct replica *replica;
    char topic[16];
};

static void on_inbox(struct inbox_letter *l)
{
    struct moving *m = LIST_OF(l, struct moving, letter);
    m->replica->open--;
    free(m);
}

static void move_inbox(struct replica *r)
{
    struct moving *m = calloc(1, sizeof *m);
    cr_assert(m);
    m->replica = r;
    snprintf(m->topic, sizeof m->topic, "$inbox/%u", below(6));
    m->letter = (struct inbox_letter){.topic = slice_cstr(m->topic),
                                      .moves = true,
                                      .now = below(2) == 0,
                                      .next = below((unsigned)record_count + 10),
                                      .count = 1 + below(3),
                                      .on_answer = on_inbox};
    r->open++;
    shard_inbox(r->shard, &m->letter);
    turn(r);
}

static void propose(struct replica *r)
{
    static void (*const ways[])(struct replica * r) = {publish_retained, publish_once,  publish_once,
                                                       write_session,    write_session, move_inbox};
    if (r->way_count + 16 > WAY_MAX)
        return;
    ways[below(sizeof ways / sizeof ways[0])](r);
}

/* --- all of it ---------------------------------------------------------------------------------------- */

/* Of all records of one (producer, sequence, topic's producer) that were delivered. */
static void expect_once(void)
{
    static uint8_t told[PRODUCERS][SEQUENCES];
    memset(told, 0, sizeof told);
    for (uint64_t i = 0; i < record_count; i++) {
        struct once_id id;
        if (records[i].fate != DELIVERED || !once_id_read(msg_props(records[i].msg), &id) ||
            id.kind != ONCE_PRODUCER)
            continue;
        uint8_t *times = &told[id.name.data[0] - '0'][id.value];
        cr_assert_eq(*times, 0, "%lu was delivered already", (unsigned long)i);
        *times = 1;
    }
}

/* Of what is state the first copy counts: a later one has no greater number than what has come of its
 * incarnation. */
static bool is_repeated(uint64_t *newest, const struct msg *m, const struct proposal *p)
{
    struct once_id id;
    if (!(m->flags & MSG_RETAIN) && !once_id_read(msg_props(m), &id))
        return false;
    cr_assert_lt(p->incarnation, INCARNATIONS_MAX);
    if (p->sequence <= newest[p->incarnation])
        return true;
    newest[p->incarnation] = p->sequence;
    return false;
}

/* By the rules in plain words: which records of a session count, and which is the newest of each at the end.
 */
static void expect_sessions(void)
{
    static uint64_t newest[INCARNATIONS_MAX];
    memset(newest, 0, sizeof newest);
    struct {
        uint64_t place, number, expires_ms; /* place: offset + 1; 0: none */
    } now[SESSIONS] = {0};
    for (uint64_t i = 0; i < record_count; i++) {
        const struct msg *m = records[i].msg;
        struct proposal p;
        uint64_t number;
        cr_assert(proposal_read(msg_props(m), &p));
        bool repeated = is_repeated(newest, m, &p);
        if (!topic_session(msg_topic(m)))
            continue;
        unsigned k = (unsigned)(msg_topic(m).data[msg_topic(m).len - 1] - '0');
        cr_assert_eq(attachment_read(msg_key(m), &number), ST_OK);
        if (now[k].expires_ms != 0 && now[k].expires_ms <= records[i].ts_ms)
            now[k].place = 0;
        bool later = now[k].place == 0 || number > now[k].number;
        bool counts = !repeated && p.based_on == now[k].place &&
                      (p.condition == PROPOSAL_ATTACH ? later : now[k].place > 0 && number == now[k].number);
        cr_assert(counts || !records[i].stored, "%lu is void and was acknowledged", (unsigned long)i);
        if (!counts)
            continue;
        now[k].place = m->payload_len > 0 ? i + 1 : 0;
        now[k].number = number;
        now[k].expires_ms = m->expires_ms;
    }
    for (unsigned k = 0; k < SESSIONS; k++) {
        char topic[24];
        snprintf(topic, sizeof topic, "$session/%u", k);
        const struct msg *m = session_of(&replicas[0], topic);
        bool over = now[k].place == 0 ||
                    (now[k].expires_ms != 0 && now[k].expires_ms <= records[record_count - 1].ts_ms);
        cr_assert_eq(m ? m->offset + 1 : 0, over ? 0 : now[k].place, "session %u", k);
    }
}

/* Everything that is under way is ordered, and all get all of it. */
static void settle_all(void)
{
    for (unsigned i = 0; i < REPLICAS; i++)
        while (replicas[i].way_count > 0)
            order_next(&replicas[i]);
    for (unsigned i = 0; i < REPLICAS; i++) {
        while (replicas[i].log.lanes[0].count < record_count)
            bring_next(&replicas[i]);
        turn(&replicas[i]);
    }
}

static void expect_all_told(void)
{
    for (unsigned round = 0; round < 4; round++)
        settle_all(); /* inboxes that wait for their timers propose again meanwhile */
    for (unsigned i = 0; i < REPLICAS; i++) {
        expect_delivered(&replicas[i]);
        cr_assert_eq(replicas[i].open, 0, "replica %u has answered all but %u", i, replicas[i].open);
    }
    for (uint64_t i = 0; i < record_count; i++)
        cr_assert(!records[i].stored || records[i].fate == DELIVERED ||
                      msg_topic(records[i].msg).data[0] == '$',
                  "%lu was acknowledged and not delivered", (unsigned long)i);
    expect_sessions();
    if (strict)
        expect_once();
}

static void run(unsigned seed)
{
    srand(seed);
    for (unsigned i = 0; i < REPLICAS; i++) {
        struct replica *r = &replicas[i];
        r->wall_ms = 1700000000000 + below(400);
        r->mono_ms = 1000 + below(100);
        fake_log_init(&r->log, 1);
        replica_start(r);
    }
    for (unsigned step = 0; step < STEPS; step++) {
        struct replica *r = &replicas[below(REPLICAS)];
        unsigned what = below(1000), ms = below(8);
        r->wall_ms += ms;
        r->mono_ms += ms;
        if (what < 300)
            propose(r);
        else if (what < 560)
            order_next(r);
        else if (what < 990)
            bring_next(r);
        else if (what < 996)
            turn(r);
        else
            replica_kill(r);
    }
    expect_all_told();
    for (unsigned i = 0; i < REPLICAS; i++) {
        replica_stop(&replicas[i]);
        way_drop(&replicas[i]);
        fake_log_deinit(&replicas[i].log);
    }
    for (uint64_t i = 0; i < record_count; i++)
        msg_unref(records[i].msg);
}

Test(shard_replicas, have_the_same_state_at_each_offset_and_forget_the_same)
{
    limits = (struct shard_limits){
        {6, 1 << 20}, {3, 5, 1 << 20, 2000}, {4, 1 << 20}, {{4, 1 << 20}, 50, 3, 300}, {2, 4, 1 << 20, 2, 4}};
    run(test_seed());
}

Test(shard_replicas, deliver_once_what_has_an_identity)
{
    strict = true;
    limits = (struct shard_limits){{6, 1 << 20},
                                   {100, 100, 16 << 20, UINT64_C(1) << 40},
                                   {4, 1 << 20},
                                   {{4, 1 << 20}, 50, 3, 300},
                                   {2, 4, 1 << 20, 2, 4}};
    run(test_seed());
}
