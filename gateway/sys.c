/* The values are messages that are replaced when their text changes: what is there is what a new subscriber
 * gets, and only what has changed is sent to those who are there already, as mosquitto does it.
 *
 * The loads are means of a rate a minute that forget exponentially: after a minute (5, 15) of another rate
 * the mean has gone 63 % of the way. */
#include "gateway/sys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SYS "$SYS/broker/"

enum { SPANS = 3, TOPIC_BYTES_MAX = 64, TEXT_BYTES_MAX = 64 };

/* Neighbours in enum metric, both inclusive. */
struct range {
    enum metric first, last;
};
#define RECEIVED_RANGE                                                                                       \
    {                                                                                                        \
        M_RECEIVED_MQTT, M_RECEIVED_HTTP                                                                     \
    }
#define SENT_RANGE                                                                                           \
    {                                                                                                        \
        M_SENT_MQTT, M_SENT_POLL                                                                             \
    }
#define DROPPED_RANGE                                                                                        \
    {                                                                                                        \
        M_DROPPED_QUEUE_FULL, M_DROPPED_EPOCH                                                                \
    }
#define BYTES_IN_RANGE                                                                                       \
    {                                                                                                        \
        M_BYTES_IN_MQTT, M_BYTES_IN_HTTP                                                                     \
    }
#define BYTES_OUT_RANGE                                                                                      \
    {                                                                                                        \
        M_BYTES_OUT_MQTT, M_BYTES_OUT_POLL                                                                   \
    }
#define CONNECTED_RANGE                                                                                      \
    {                                                                                                        \
        M_CONNECTIONS_MQTT, M_CONNECTIONS_WS                                                                 \
    }
#define CONNECTS_RANGE                                                                                       \
    {                                                                                                        \
        M_CONNECTS_OK_MQTT, M_CONNECTS_OK_WS                                                                 \
    }
#define SOCKETS_RANGE                                                                                        \
    {                                                                                                        \
        M_CONNECTS_OK_MQTT, M_CONNECTS_REFUSED_DRAIN                                                         \
    }
/* Packets of MQTT, messages of the others. */
#define PACKETS_IN_RANGE                                                                                     \
    {M_PACKETS_IN, M_PACKETS_IN},                                                                            \
    {                                                                                                        \
        M_RECEIVED_WS, M_RECEIVED_HTTP                                                                       \
    }
#define PACKETS_OUT_RANGE {M_PACKETS_OUT, M_PACKETS_OUT}, SENT_RANGE
#define ONE(id)                                                                                              \
    {                                                                                                        \
        id, id                                                                                               \
    }

struct sys {
    struct edge *edge;
    struct timer timer;
    uint64_t sampled_ms; /* monotonic; 0: not yet */
    uint64_t connected_max;
    struct msg **values; /* of the rows, then of the loads */
    struct sys_load {
        uint64_t before;
        double a_minute[SPANS];
    } * loads;
};

static uint64_t connected(void)
{
    return metrics_sum(M_CONNECTIONS_MQTT) + metrics_sum(M_CONNECTIONS_WS);
}

/* Kept sessions whose client is away. The two gauges may be seen between two writes. */
static uint64_t disconnected(void)
{
    uint64_t kept = metrics_sum(M_SESSIONS), attached = metrics_sum(M_SESSIONS_ATTACHED);
    return (int64_t)(kept - attached) > 0 ? kept - attached : 0;
}

static void put_number(char *text, uint64_t n)
{
    snprintf(text, TEXT_BYTES_MAX, "%lu", (unsigned long)n);
}

static void put_version(const struct sys *s, char *text)
{
    (void)s;
    snprintf(text, TEXT_BYTES_MAX, "tidegate version " TIDEGATE_VERSION);
}

static void put_uptime(const struct sys *s, char *text)
{
    uint64_t now = loop_wall_ms(s->edge->loop), since = s->edge->facts->started_wall_ms;
    snprintf(text, TEXT_BYTES_MAX, "%lu seconds", (unsigned long)(now > since ? (now - since) / 1000 : 0));
}

static void put_disconnected(const struct sys *s, char *text)
{
    (void)s;
    put_number(text, disconnected());
}

static void put_total(const struct sys *s, char *text)
{
    (void)s;
    put_number(text, connected() + disconnected());
}

static void put_maximum(const struct sys *s, char *text)
{
    put_number(text, s->connected_max);
}

static const struct sys_row {
    const char *topic;
    void (*put)(const struct sys *s, char *text); /* NULL: the sum of the ranges */
    struct range ranges[2]; /* the second may be {0, 0}: none */
} rows[] = {
    {SYS "version", put_version, {{0}}},
    {SYS "uptime", put_uptime, {{0}}},
    {SYS "clients/connected", NULL, {CONNECTED_RANGE}},
    {SYS "clients/active", NULL, {CONNECTED_RANGE}},
    {SYS "clients/disconnected", put_disconnected, {{0}}},
    {SYS "clients/inactive", put_disconnected, {{0}}},
    {SYS "clients/total", put_total, {{0}}},
    {SYS "clients/maximum", put_maximum, {{0}}},
    {SYS "messages/received", NULL, {PACKETS_IN_RANGE}},
    {SYS "messages/sent", NULL, {PACKETS_OUT_RANGE}},
    {SYS "publish/messages/received", NULL, {RECEIVED_RANGE}},
    {SYS "publish/messages/sent", NULL, {SENT_RANGE}},
    {SYS "publish/messages/dropped", NULL, {DROPPED_RANGE}},
    {SYS "publish/bytes/received", NULL, {ONE(M_PAYLOAD_IN)}},
    {SYS "publish/bytes/sent", NULL, {ONE(M_PAYLOAD_OUT)}},
    {SYS "bytes/received", NULL, {BYTES_IN_RANGE}},
    {SYS "bytes/sent", NULL, {BYTES_OUT_RANGE}},
    {SYS "subscriptions/count", NULL, {ONE(M_SUBSCRIPTIONS)}},
    {SYS "retained messages/count", NULL, {ONE(M_RETAINED)}},
    {SYS "store/messages/bytes", NULL, {ONE(M_LOG_SIZE_BYTES)}},
};

static const struct load_row {
    const char *name;
    struct range ranges[2];
} load_rows[] = {
    {"messages/received", {PACKETS_IN_RANGE}}, {"messages/sent", {PACKETS_OUT_RANGE}},
    {"publish/received", {RECEIVED_RANGE}},    {"publish/sent", {SENT_RANGE}},
    {"publish/dropped", {DROPPED_RANGE}},      {"bytes/received", {BYTES_IN_RANGE}},
    {"bytes/sent", {BYTES_OUT_RANGE}},         {"sockets", {SOCKETS_RANGE}},
    {"connections", {CONNECTS_RANGE}},
};

static const struct {
    const char *name;
    double ms;
} spans[SPANS] = {{"1min", 60e3}, {"5min", 300e3}, {"15min", 900e3}};

enum {
    ROWS = sizeof rows / sizeof rows[0],
    LOADS = sizeof load_rows / sizeof load_rows[0],
    VALUES = ROWS + LOADS * SPANS
};

static uint64_t sum_ranges(const struct range ranges[2])
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned id = ranges[i].first; (i == 0 || ranges[i].last > 0) && id <= ranges[i].last; id++)
            sum += metrics_sum((enum metric)id);
    return sum;
}

/* Without memory the value stays what it was until the next time. */
static void say(struct sys *s, unsigned index, const char *topic, const char *text)
{
    struct msg *old = s->values[index], *m;
    struct slice none = {0};
    if (old && slice_equal_cstr(msg_payload(old), text))
        return;
    if (msg_create(slice_cstr(topic), none, none, slice_cstr(text), &m) != ST_OK)
        return;
    m->content = CONTENT_TEXT;
    m->flags = MSG_RETAIN | MSG_UNSTORED;
    m->ts_ms = loop_wall_ms(s->edge->loop);
    s->values[index] = m;
    hub_deliver_system(s->edge->hub, m);
    msg_unref(old);
}

static void sample(struct sys *s)
{
    uint64_t now = loop_now_ms(s->edge->loop), count = connected();
    double passed_ms = (double)(now - s->sampled_ms);
    if (count > s->connected_max && (int64_t)count > 0)
        s->connected_max = count;
    for (unsigned i = 0; i < LOADS; i++) {
        struct sys_load *l = &s->loads[i];
        uint64_t sum = sum_ranges(load_rows[i].ranges);
        double rate = passed_ms > 0 ? (double)(sum - l->before) * 60e3 / passed_ms : 0;
        for (unsigned k = 0; k < SPANS && s->sampled_ms > 0; k++)
            l->a_minute[k] = rate + exp(-passed_ms / spans[k].ms) * (l->a_minute[k] - rate);
        l->before = sum;
    }
    s->sampled_ms = now;
}

static void say_all(struct sys *s)
{
    char text[TEXT_BYTES_MAX], topic[TOPIC_BYTES_MAX];
    for (unsigned i = 0; i < ROWS; i++) {
        if (rows[i].put)
            rows[i].put(s, text);
        else
            put_number(text, sum_ranges(rows[i].ranges));
        say(s, i, rows[i].topic, text);
    }
    for (unsigned i = 0; i < LOADS * SPANS; i++) {
        snprintf(topic, sizeof topic, SYS "load/%s/%s", load_rows[i / SPANS].name, spans[i % SPANS].name);
        snprintf(text, sizeof text, "%.2f", s->loads[i / SPANS].a_minute[i % SPANS]);
        say(s, ROWS + i, topic, text);
    }
}

static void sys_on_timer(struct timer *t)
{
    struct sys *s = LIST_OF(t, struct sys, timer);
    struct loop *loop = s->edge->loop;
    sample(s);
    say_all(s);
    timer_arm(loop_timers(loop), t, loop_now_ms(loop) + s->edge->settings->sys_interval_ms);
}

static void forget_values(struct sys *s)
{
    for (unsigned i = 0; i < VALUES; i++) {
        msg_unref(s->values[i]);
        s->values[i] = NULL;
    }
}

/* The first values are there before anybody can ask. */
static void begin(struct sys *s)
{
    timer_cancel(loop_timers(s->edge->loop), &s->timer);
    s->sampled_ms = 0;
    if (s->edge->settings->sys_interval_ms > 0)
        sys_on_timer(&s->timer);
    else
        forget_values(s);
}

void sys_use_settings(struct sys *s)
{
    begin(s);
}

enum status sys_create(struct edge *edge, struct sys **out)
{
    struct sys *s = calloc(1, sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    s->edge = edge;
    s->values = calloc(VALUES, sizeof(struct msg *));
    s->loads = calloc(LOADS, sizeof *s->loads);
    timer_init(&s->timer, sys_on_timer);
    if (!s->values || !s->loads) {
        sys_destroy(s);
        return ST_NO_MEMORY;
    }
    hub_set_system(edge->hub, s->values, VALUES);
    begin(s);
    *out = s;
    return ST_OK;
}

void sys_destroy(struct sys *s)
{
    if (!s)
        return;
    timer_cancel(loop_timers(s->edge->loop), &s->timer);
    if (s->values) {
        hub_set_system(s->edge->hub, NULL, 0);
        forget_values(s);
    }
    free(s->values);
    free(s->loads);
    free(s);
}
