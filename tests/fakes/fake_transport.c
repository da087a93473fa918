#include "fakes/fake_transport.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct fake_event *note(struct fake_conn *c, enum fake_event_kind kind, struct subscription *sub)
{
    if (c->count == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 16;
        c->events = realloc(c->events, c->cap * sizeof *c->events);
        assert(c->events);
    }
    struct fake_event *e = &c->events[c->count++];
    *e = (struct fake_event){.kind = kind, .sub = sub};
    return e;
}

static void tell(struct fake_conn *c, const struct fake_event *e)
{
    if (c->on_event) {
        struct fake_event copy = *e; /* the callback may add events */
        c->on_event(c, &copy);
    }
}

static enum status fake_deliver(void *conn, struct subscription *sub, struct delivery *d)
{
    struct fake_conn *c = conn;
    if (c->drops > 0) {
        c->drops--;
        return ST_FULL;
    }
    if (c->room == 0) {
        c->starved = true;
        return ST_AGAIN;
    }
    if (c->room != UINT64_MAX)
        c->room--;
    struct fake_event *e = note(c, FAKE_MESSAGE, sub);
    e->msg = msg_ref(d->msg);
    e->live = d->live;
    e->retained = d->retained;
    return ST_OK;
}

static void fake_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct fake_event *e = note(conn, FAKE_SUBSCRIBED, sub);
    e->at = *at;
    e->replay = replay;
    tell(conn, e);
}

static void fake_live(void *conn, struct subscription *sub, const struct place *at)
{
    struct fake_event *e = note(conn, FAKE_LIVE, sub);
    e->at = *at;
    tell(conn, e);
}

static void fake_gap(void *conn, struct subscription *sub, const struct gap *gap)
{
    struct fake_event *e = note(conn, FAKE_GAP, sub);
    e->lane = gap->lane;
    e->from = gap->from;
    e->to = gap->to;
    e->count = gap->count;
    e->why = gap->why;
    tell(conn, e);
}

static struct slice fake_name(void *conn)
{
    (void)conn;
    return slice_cstr("fake");
}

static void fake_too_many(void *conn)
{
    struct fake_conn *c = conn;
    c->too_many = true;
}

static void fake_describe(void *conn, struct connection_facts *out)
{
    const struct fake_conn *c = conn;
    out->address = slice_cstr("192.0.2.1:5");
    out->client_id = slice_cstr("fake");
    out->unacknowledged = c->count;
}

static void fake_kick(void *conn)
{
    struct fake_conn *c = conn;
    c->kicked = true;
}

const struct transport_ops fake_transport = {
    .describe = fake_describe,
    .kick = fake_kick,
    .deliver = fake_deliver,
    .subscribed = fake_subscribed,
    .live = fake_live,
    .gap = fake_gap,
    .name = fake_name,
    .too_many = fake_too_many,
    .door = "ws",
};

void fake_conn_init(struct fake_conn *c, uint64_t room)
{
    *c = (struct fake_conn){.room = room};
}

void fake_conn_clear(struct fake_conn *c)
{
    for (size_t i = 0; i < c->count; i++)
        msg_unref(c->events[i].msg);
    c->count = 0;
}

void fake_conn_deinit(struct fake_conn *c)
{
    fake_conn_clear(c);
    free(c->events);
    *c = (struct fake_conn){0};
}

const struct fake_event *fake_conn_event(const struct fake_conn *c, enum fake_event_kind kind, size_t n)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->events[i].kind == kind && n-- == 0)
            return &c->events[i];
    return NULL;
}

size_t fake_conn_count(const struct fake_conn *c, enum fake_event_kind kind)
{
    size_t n = 0;
    while (fake_conn_event(c, kind, n))
        n++;
    return n;
}

__attribute__((format(printf, 3, 4))) static void put(char *text, size_t size, const char *format, ...)
{
    size_t len = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + len, size - len, format, args);
    va_end(args);
}

const char *fake_conn_story(const struct fake_conn *c)
{
    static char text[4096];
    text[0] = '\0';
    for (size_t i = 0; i < c->count; i++) {
        const struct fake_event *e = &c->events[i];
        const char *space = i > 0 ? " " : "";
        switch (e->kind) {
        case FAKE_SUBSCRIBED:
            put(text, sizeof text, "%ssubscribed(%lu)", space, (unsigned long)e->replay);
            break;
        case FAKE_LIVE:
            put(text, sizeof text, "%slive", space);
            break;
        case FAKE_GAP:
            put(text, sizeof text, "%sgap(%lu-%lu)", space, (unsigned long)e->from, (unsigned long)e->to);
            break;
        case FAKE_MESSAGE:
            put(text, sizeof text, "%s%.*s@%lu%s%s", space, SLICE_ARG(msg_topic(e->msg)),
                (unsigned long)e->msg->offset, e->live ? "*" : "", e->retained ? "!" : "");
            break;
        }
    }
    return text;
}
