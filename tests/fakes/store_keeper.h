/* Who owns state in a lane, as a shard does: the newest message with RETAIN of each of a few topics, carried
 * before the log is trimmed. Lane 0 of a world. */
#ifndef TG_TESTS_FAKES_STORE_KEEPER_H
#define TG_TESTS_FAKES_STORE_KEEPER_H

#include "fakes/store_world.h"

enum { KEEPER_TOPICS = 32 };

struct keeper {
    struct world *w;
    struct msg *msgs[KEEPER_TOPICS]; /* of topic r/<n>; NULL: none */
    uint64_t upto, end; /* asked for; the trim relies on what lies below */
    uint64_t put_end; /* behind the last that was put */
    unsigned trims, carried;
};

static inline uint64_t keeper_live_bytes(const struct keeper *k)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < KEEPER_TOPICS; i++)
        bytes += k->msgs[i] ? k->msgs[i]->payload_len + 100u : 0;
    return bytes;
}

static inline void keeper_go_on(struct keeper *k)
{
    if (k->upto == 0 || store_durable(k->w->store, 0) < k->end)
        return;
    uint64_t upto = k->upto;
    k->upto = 0;
    k->trims++;
    store_trim(k->w->store, 0, upto);
}

static inline void keeper_on_durable(struct world *w, unsigned lane, uint64_t next)
{
    (void)lane, (void)next;
    keeper_go_on(w->owner);
}

static inline void keeper_on_trim_wanted(struct world *w, unsigned lane, uint64_t upto)
{
    struct keeper *k = w->owner;
    (void)lane;
    if (k->upto != 0)
        world_die("asked twice");
    k->upto = upto;
    k->end = k->put_end; /* it may have replaced what is not carried therefore */
    for (unsigned i = 0; i < KEEPER_TOPICS; i++) {
        if (!k->msgs[i] || k->msgs[i]->stored >= upto)
            continue;
        if (store_carry(w->store, 0, k->msgs[i]) != ST_OK)
            world_die("carry refused");
        k->end = k->msgs[i]->stored + 1;
        k->carried++;
    }
    store_flush(w->store, 0);
    keeper_go_on(k);
}

/* The number behind `skip` bytes of the payload, which has no terminating zero. */
static inline unsigned keeper_number(const struct msg *m, size_t skip)
{
    char text[64];
    struct slice payload = msg_payload(m);
    if (payload.len <= skip || payload.len >= sizeof text)
        world_die("not a number");
    memcpy(text, payload.data, payload.len);
    text[payload.len] = '\0';
    return (unsigned)strtoul(text + skip, NULL, 10);
}

static inline unsigned keeper_topic(const struct msg *m)
{
    struct slice topic = msg_topic(m);
    if (topic.len < 3 || memcmp(topic.data, "r/", 2) != 0)
        world_die("a topic that is not the keeper's");
    return (unsigned)atoi((const char *)topic.data + 2) % KEEPER_TOPICS;
}

static inline void keeper_take(struct keeper *k, struct msg *m)
{
    struct msg **place = &k->msgs[keeper_topic(m)];
    msg_unref(*place);
    *place = m->payload_len ? msg_ref(m) : NULL;
}

/* Takes over an open world: folds its lane, then lets retention ask. */
static inline void keeper_open(struct keeper *k, struct world *w)
{
    *k = (struct keeper){.w = w};
    w->owner = k;
    w->on_durable = keeper_on_durable;
    w->on_trim_wanted = keeper_on_trim_wanted;
    for (uint64_t from = store_first(w->store, 0);;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        r.read.state_only = true;
        world_read_run(w, &r);
        if (r.read.status != ST_OK)
            world_die("damaged");
        for (uint64_t i = 0; i < r.read.found; i++)
            if (r.read.msgs[i]->flags & MSG_RETAIN)
                keeper_take(k, r.read.msgs[i]);
        from = r.read.next;
        bool all = from >= r.read.end;
        world_read_free(&r);
        if (all)
            break;
    }
    store_set_live_bytes(w->store, 0, keeper_live_bytes(k));
    store_trim(w->store, 0, 0);
}

static inline void keeper_close(struct keeper *k)
{
    for (unsigned i = 0; i < KEEPER_TOPICS; i++)
        msg_unref(k->msgs[i]);
    k->w->owner = NULL;
    k->w->on_durable = NULL;
    k->w->on_trim_wanted = NULL;
}

/* Publishes with RETAIN; an empty text clears. */
static inline uint64_t keeper_put(struct keeper *k, unsigned topic, const char *text, bool wait)
{
    char name[16];
    struct msg *m;
    /* The terminating zero is not part of the topic, but atoi above must not run into a digit. */
    snprintf(name, sizeof name, "r/%02u/", topic % KEEPER_TOPICS);
    if (msg_create(slice_cstr(name), (struct slice){0}, (struct slice){0}, slice_cstr(text), &m) != ST_OK)
        world_die("no memory");
    m->flags = MSG_RETAIN;
    loop_update_time(k->w->loop);
    if (store_append(k->w->store, 0, m, wait) != ST_OK)
        world_die("append refused");
    uint64_t offset = m->offset;
    k->put_end = offset + 1;
    keeper_take(k, m);
    msg_unref(m);
    store_set_live_bytes(k->w->store, 0, keeper_live_bytes(k));
    return offset;
}

#endif
