/* A connection for tests: it writes down what a session tells it, takes as many messages as the test gives it
 * room for, and may be told to do something in the middle of a callback. One thread. */
#ifndef TG_TESTS_FAKE_TRANSPORT_H
#define TG_TESTS_FAKE_TRANSPORT_H

#include "session/transport.h"

enum fake_event_kind { FAKE_SUBSCRIBED, FAKE_LIVE, FAKE_GAP, FAKE_MESSAGE };

struct fake_event {
    enum fake_event_kind kind;
    struct subscription *sub;
    struct msg *msg; /* FAKE_MESSAGE: a reference */
    bool live; /* FAKE_MESSAGE: it came by DELIVER */
    bool retained; /* FAKE_MESSAGE: because of the subscription */
    unsigned lane; /* FAKE_GAP: from..to, inclusive */
    uint64_t from, to, count;
    struct place at; /* FAKE_SUBSCRIBED, FAKE_LIVE */
    uint64_t replay; /* FAKE_SUBSCRIBED */
    const char *why; /* FAKE_GAP */
};

struct fake_conn {
    uint64_t room; /* messages it still takes; UINT64_MAX = any number */
    bool too_many; /* it was told that its user has too many connections */
    bool kicked; /* an operator wants it closed */
    bool starved; /* it has said "no room" since the test has last looked */
    unsigned drops; /* so many of the next messages are dropped (ST_FULL) */
    struct fake_event *events;
    size_t count, cap;
    /* After the event was written down; not called for messages. */
    void (*on_event)(struct fake_conn *c, const struct fake_event *e);
    void *ctx; /* the test's */
};

extern const struct transport_ops fake_transport;

void fake_conn_init(struct fake_conn *c, uint64_t room);
void fake_conn_deinit(struct fake_conn *c);
void fake_conn_clear(struct fake_conn *c); /* forgets the events */
/* The n-th event of a kind, from 0; NULL. */
const struct fake_event *fake_conn_event(const struct fake_conn *c, enum fake_event_kind kind, size_t n);
size_t fake_conn_count(const struct fake_conn *c, enum fake_event_kind kind);
/* All events, a word each: "subscribed(2) a@0 a@1! live a@2* gap(3-5)"; `*`: live, `!`:
 * retained. Static storage. */
const char *fake_conn_story(const struct fake_conn *c);

#endif
