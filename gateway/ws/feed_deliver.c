/* Messages of a feed, and what stands around them.
 *
 * An event stream's message is one block, `data: <msg>`, made once for all event streams of the loop
 * (WIRE_SSE). It has no id: that would be another one for each reader. Instead an id-only block follows
 * within a second, which a browser keeps as its last event id: a bookmark below which everything has been
 * handed over, for every filter of the stream. What came after it comes again when the stream is resumed;
 * nothing is left out. While retained messages are still coming there is no such place, and no id.
 *
 * A poll collects messages into its page and is answered at the end of the turn in which there is no more to
 * wait for: the page is full, or it has a message and the past is used up, or its time is over. */
#include "gateway/ws/feed.h"

#include "core/hash.h"
#include "gateway/gate.h"
#include "gateway/json_out.h"
#include "gateway/message_json.h"
#include "gateway/peer.h"
#include "gateway/ws/http.h"
#include "routing/once_id.h"

#include <stdio.h>

enum {
    PAGE_DEFAULT = 100,
    PAGE_BYTES_ENOUGH = 1 << 20,
    RETRY_MS = 1000,
};

static struct feed_request *request_of(struct feed *f)
{
    return &f->opening->request;
}

static bool is_sse(const struct feed *f)
{
    return f->opening->request.kind == FEED_SSE;
}

/* --- heads and events --------------------------------------------------------------------------- */

/* `more`: further fields, each with its CRLF. */
void feed_head(struct feed *f, int status, const char *type, const char *more)
{
    char text[1024];
    const struct feed_opening *o = f->opening;
    int len =
        snprintf(text, sizeof text,
                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\nConnection: close\r\n"
                 "X-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\n%s",
                 status, http_reason(status), type, o->request_id, more);
    if (o->origin_len > 0)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "Access-Control-Allow-Origin: %.*s\r\nAccess-Control-Allow-Credentials: true\r\n"
                        "Vary: Origin\r\n",
                        (int)o->origin_len, o->origin);
    feed_put(f, slice_of(text, (size_t)len));
    feed_put(f, slice_of("\r\n", 2));
}

/* Sends what an encoder has put into the door's scratch buffer. */
static void put_scratch(struct feed *f, enum status encoded)
{
    struct buf *scratch = &f->door->scratch;
    if (encoded == ST_OK)
        feed_put(f, buf_slice(scratch));
    else
        f->broken = true;
    buf_clear(scratch);
}

void feed_put_bye(struct feed *f, uint16_t code, const char *why)
{
    struct buf *scratch = &f->door->scratch;
    unsigned retry_ms = web_door_retry_ms(f->door, session_id(f->session));
    feed_put_bookmark(f);
    put_scratch(f, buf_printf(scratch, "retry: %u\nevent: bye\ndata: {\"code\":%u,\"why\":\"%s\"}\n\n",
                              retry_ms, (unsigned)code, why));
}

/* --- places ------------------------------------------------------------------------------------- */

struct lowest {
    struct place place;
    bool walking;
};

static void take_lowest(void *ctx, struct subscription *sub)
{
    struct lowest *l = ctx;
    unsigned first, count;
    subscription_lanes(sub, &first, &count);
    l->walking |= subscription_walking(sub);
    for (unsigned lane = first; lane < first + count; lane++) {
        uint64_t reached = subscription_reached(sub, lane);
        if (reached < l->place.next[lane])
            l->place.next[lane] = reached;
    }
}

/* Where all subscriptions have got to at least; lanes that none of them has stay where they were at first.
 * False: there is no such place yet. */
static bool reached(struct feed *f, struct place *out)
{
    struct lowest l = {.place = {.lane_count = f->at.lane_count}};
    if (f->placed < request_of(f)->topic_count)
        return false;
    for (unsigned i = 0; i < l.place.lane_count; i++)
        l.place.next[i] = UINT64_MAX;
    session_each(f->session, take_lowest, &l);
    for (unsigned i = 0; i < l.place.lane_count; i++)
        if (l.place.next[i] == UINT64_MAX)
            l.place.next[i] = f->at.next[i];
    *out = l.place;
    return !l.walking;
}

void feed_put_bookmark(struct feed *f)
{
    struct place place;
    char text[BOOKMARK_BYTES_MAX + 8];
    f->id_ms = loop_now_ms(f->door->loop);
    if (!f->session || !is_sse(f) || !reached(f, &place))
        return; /* f->moved stays: in a second again */
    f->moved = false;
    size_t len = bookmark_write(f->door->epoch, &place, text + 4);
    uint64_t hash = hash64(slice_of(text + 4, len));
    if (hash == f->id_hash)
        return;
    f->id_hash = hash;
    memcpy(text, "id: ", 4);
    memcpy(text + 4 + len, "\n\n", 2);
    feed_put(f, slice_of(text, 4 + len + 2));
}

/* --- messages ----------------------------------------------------------------------------------- */

static enum status make_block(struct feed *f, struct delivery *d)
{
    struct buf *scratch = &f->door->scratch;
    buf_clear(scratch);
    enum status st = buf_put_cstr(scratch, "data: ");
    if (st == ST_OK)
        st = message_json_put(scratch, f->door->epoch, d->msg, d->retained);
    if (st == ST_OK)
        st = buf_put_cstr(scratch, "\n\n");
    if (st != ST_OK)
        return st;
    uint8_t *to = hub_scratch(f->door->hub, WIRE_SSE, scratch->len);
    if (!to)
        return ST_NO_MEMORY;
    memcpy(to, scratch->data, scratch->len);
    d->wires[WIRE_SSE] = slice_of(to, scratch->len);
    buf_clear(scratch);
    return ST_OK;
}

static enum status deliver_event(struct feed *f, struct delivery *d)
{
    struct slice *block = &d->wires[WIRE_SSE];
    if (!block->data && make_block(f, d) != ST_OK)
        return ST_NO_MEMORY;
    if (!outq_has_room(&f->out, block->len)) {
        f->starved = true;
        feed_touch(f);
        return ST_AGAIN;
    }
    if (outq_put_span(&f->out, *block) != ST_OK)
        return ST_NO_MEMORY;
    f->moved = true;
    f->last_out_ms = loop_now_ms(f->door->loop);
    feed_touch(f);
    return ST_OK;
}

static uint32_t page_max(struct feed *f)
{
    uint64_t most = f->door->settings->limit_history_count, max = request_of(f)->max;
    max = max == 0 ? PAGE_DEFAULT : max;
    return (uint32_t)(max < most ? max : most);
}

static enum status deliver_to_page(struct feed *f, const struct delivery *d)
{
    size_t before = f->page.len;
    if (f->count >= page_max(f) || f->page.len >= PAGE_BYTES_ENOUGH) {
        f->finished = true;
        feed_touch(f);
        return ST_AGAIN;
    }
    enum status st = f->count > 0 ? buf_put_byte(&f->page, ',') : ST_OK;
    if (st == ST_OK)
        st = message_json_put(&f->page, f->door->epoch, d->msg, d->retained);
    if (st == ST_OK) {
        f->count++;
    } else if (f->count > 0) { /* it begins the next page */
        f->page.len = before;
        f->finished = true;
        st = ST_AGAIN;
    }
    if (f->live == request_of(f)->topic_count || f->count >= page_max(f))
        f->finished = true;
    feed_touch(f);
    return st;
}

static enum status on_deliver(void *conn, struct subscription *sub, struct delivery *d)
{
    struct feed *f = conn;
    bool sse = is_sse(f);
    (void)sub;
    if (f->state == FEED_ENDING || f->broken)
        return ST_AGAIN;
    if (sse && f->state != FEED_OPEN) { /* the head comes first */
        f->starved = true;
        return ST_AGAIN;
    }
    enum status st = sse ? deliver_event(f, d) : deliver_to_page(f, d);
    if (st == ST_AGAIN)
        return st;
    if (st != ST_OK) { /* a hole that the reader cannot see must not be followed by more */
        f->broken = true;
        feed_touch(f);
        return ST_FULL;
    }
    metric_add(f->door->metrics, sse ? M_SENT_SSE : M_SENT_POLL, 1);
    metric_add(f->door->metrics, sse ? M_DELIVERED_SSE : M_DELIVERED_POLL, 1);
    return ST_OK;
}

/* --- subscriptions ------------------------------------------------------------------------------ */

/* A gap as an event, or in the page's list. */
static void put_gap(struct feed *f, struct slice object)
{
    if (is_sse(f)) {
        feed_put(f, slice_cstr("event: gap\ndata: "));
        feed_put(f, object);
        feed_put(f, slice_cstr("\n\n"));
        f->moved = true;
        return;
    }
    enum status st = f->gaps.len > 0 ? buf_put_byte(&f->gaps, ',') : ST_OK;
    if (st == ST_OK)
        st = buf_put(&f->gaps, object);
    f->broken |= st != ST_OK;
}

/* A position of another epoch: what it stood for cannot be had. */
static void put_stranger(struct feed *f)
{
    struct buf *scratch = &f->door->scratch;
    struct feed_request *r = request_of(f);
    for (unsigned i = 0; i < r->topic_count; i++) {
        struct json_out o = {.buf = scratch, .status = ST_OK};
        json_out_literal(&o, "{\"topic\":");
        json_out_string(&o, r->topics[i]);
        json_out_literal(&o, ",\"from\":");
        json_out_string(&o, r->from);
        json_out_literal(&o, ",\"why\":\"epoch\"}");
        if (o.status == ST_OK)
            put_gap(f, buf_slice(scratch));
        f->broken |= o.status != ST_OK;
        buf_clear(scratch);
    }
}

/* All is in place: an event stream is answered. */
static void feed_begin(struct feed *f)
{
    if (!is_sse(f)) {
        uint64_t wait_ms = request_of(f)->wait_ms;
        /* Without a wait the past is read all the same. */
        f->deadline_ms =
            loop_now_ms(f->door->loop) + (wait_ms > 0 ? wait_ms : f->door->settings->ws_hello_timeout_ms);
        if (f->stranger)
            put_stranger(f);
        feed_touch(f);
        return;
    }
    f->state = FEED_OPEN;
    metric_add(f->door->metrics, M_HTTP_2XX, 1);
    metric_add(f->door->metrics, M_CONNECTS_OK_SSE, 1);
    feed_head(f, 200, "text/event-stream", "X-Accel-Buffering: no\r\n");
    if (f->stranger)
        put_stranger(f);
    f->moved = true;
    feed_touch(f); /* some may have waited for it */
    feed_put_bookmark(f); /* at once: who is cut off before any message can come back to here */
}

static void on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct feed *f = conn;
    (void)sub, (void)replay;
    if (f->placed == 0)
        f->at = *at;
    if (++f->placed == request_of(f)->topic_count)
        feed_begin(f);
}

static void on_live(void *conn, struct subscription *sub, const struct place *at)
{
    struct feed *f = conn;
    (void)sub, (void)at;
    if (++f->live < request_of(f)->topic_count)
        return;
    if (is_sse(f)) {
        feed_put_bookmark(f); /* behind the retained messages there was none */
        return;
    }
    if (f->count > 0 || f->gaps.len > 0 || request_of(f)->wait_ms == 0)
        f->finished = true;
    feed_touch(f);
}

static void on_gap(void *conn, struct subscription *sub, const struct gap *gap)
{
    struct feed *f = conn;
    struct buf *scratch = &f->door->scratch;
    struct json_out o = {.buf = scratch, .status = ST_OK};
    json_out_literal(&o, "{\"topic\":");
    json_out_string(&o, subscription_filter(sub));
    json_out_literal(&o, ",\"from\":");
    json_out_position(&o, f->door->epoch, gap->lane, gap->from);
    json_out_literal(&o, ",\"to\":");
    json_out_position(&o, f->door->epoch, gap->lane, gap->to);
    json_out_literal(&o, ",\"count\":");
    json_out_number(&o, gap->count);
    json_out_literal(&o, ",\"why\":");
    json_out_string(&o, slice_cstr(gap->why));
    json_out_literal(&o, "}");
    if (o.status == ST_OK)
        put_gap(f, buf_slice(scratch));
    f->broken |= o.status != ST_OK;
    buf_clear(scratch);
    feed_touch(f);
}

static void on_admitted(void *conn);

static void on_too_many(void *conn)
{
    struct feed *f = conn;
    if (f->state == FEED_SUBSCRIBING)
        feed_refuse(f, 503, "quota_exceeded", "limit.user_connections: the user has too many connections", 0);
    else
        feed_goodbye(f, 4202, "too many connections of the user");
}

static void on_kick(void *conn)
{
    feed_goodbye(conn, 4203, "kicked");
}

static void on_describe(void *conn, struct connection_facts *out)
{
    const struct feed *f = conn;
    out->address = slice_of(out->texts, peer_address(f->watch.fd, out->texts));
    out->queued_bytes = f->waiting_bytes;
}

static struct slice on_name(void *conn)
{
    (void)conn;
    return (struct slice){0};
}

#define FEED_OPS(text)                                                                                       \
    {                                                                                                        \
        .door = (text), .deliver = on_deliver, .subscribed = on_subscribed, .live = on_live, .gap = on_gap,  \
        .too_many = on_too_many, .admitted = on_admitted, .kick = on_kick, .describe = on_describe,          \
        .name = on_name                                                                                      \
    }
static const struct transport_ops sse_ops = FEED_OPS("sse"), poll_ops = FEED_OPS("poll");

/* Where it begins. NULL, or what is wrong with `from`. */
static const char *read_start(struct feed *f, struct subscription_options *o, struct place *after)
{
    struct slice from = request_of(f)->from;
    bool last = slice_starts_with(from, slice_cstr("last:"));
    *after = (struct place){.lane_count = hub_lane_count(f->door->hub)};
    o->start = START_LIVE;
    if (!from.data || slice_equal_cstr(from, "live")) {
        o->retained = is_sse(f); /* a page could end among them, and has no word for that */
        return NULL;
    }
    if (slice_equal_cstr(from, "earliest")) {
        o->start = START_EARLIEST;
        return NULL;
    }
    if (last || slice_starts_with(from, slice_cstr("time:"))) {
        o->start = last ? START_LAST : START_TIME;
        if (last ? once_sequence_read(slice_from(from, 5), &o->start_value) && o->start_value > 0
                 : place_time_read(from, &o->start_value))
            return NULL;
        return last ? "last: must be followed by an integer of at least 1"
                    : "time: must be followed by Unix milliseconds";
    }
    o->start = START_AFTER;
    switch ((int)place_fold(after, f->door->epoch, from)) {
    case ST_OK:
        o->after = after;
        return NULL;
    case ST_GONE: /* told as a gap, then all there is */
        f->stranger = true;
        o->start = START_EARLIEST;
        return NULL;
    default:
        return "from must be live, earliest, time:, last:, a position or a bookmark of this log";
    }
}

/* True: refused. */
static bool refuse_topic(struct feed *f, struct slice topic, const struct subscription_options *o)
{
    struct slice user, nobody = {0};
    if (topic_internal(topic) && !topic_user(topic, &user))
        feed_refuse(f, 403, "forbidden", "topics that begin with $ are the node's own", 0);
    else if (!principal_may(f->principal, ACL_SUBSCRIBE, topic, nobody))
        feed_refuse(f, 403, "forbidden", access_denied_text(ACL_SUBSCRIBE), 0);
    else if (o->start != START_LIVE && !principal_may(f->principal, ACL_HISTORY, topic, nobody))
        feed_refuse(f, 403, "forbidden", access_denied_text(ACL_HISTORY), 0);
    else if (o->start == START_LAST && !topic_filter_literal(topic))
        feed_refuse(f, 501, "unsupported", "last is of one topic: the filter has a wildcard", 0);
    else
        return false;
    return true;
}

bool feed_permitted(const struct feed *f)
{
    const struct feed_request *r = &f->opening->request;
    for (unsigned i = 0; f->principal && i < r->topic_count; i++)
        if (!principal_may(f->principal, ACL_SUBSCRIBE, r->topics[i], (struct slice){0}))
            return false;
    return true;
}

/* It is one of its user's connections. */
static void subscribe_all(struct feed *f)
{
    struct subscription_options o = {.qos = 1, .retain_as_published = true};
    struct place after;
    struct feed_request *r = request_of(f);
    struct subscription *sub;
    enum status st = read_start(f, &o, &after) ? ST_INVALID : ST_OK; /* it was good before */
    for (unsigned i = 0; i < r->topic_count && st == ST_OK; i++)
        st = session_subscribe(f->session, r->topics[i], &o, &sub);
    if (st == ST_FULL)
        feed_refuse(f, 503, "quota_exceeded", "limit.subscriptions is reached", 0);
    else if (st != ST_OK)
        feed_refuse(f, 503, "unavailable", "no memory", RETRY_MS);
}

/* Nothing is answered before: else who is one too many would be told 200 first. */
static void on_admitted(void *conn)
{
    struct feed *f = conn;
    if (f->state == FEED_SUBSCRIBING)
        subscribe_all(f);
}

static enum status join(struct feed *f)
{
    enum status st = session_create(f->door->hub, is_sse(f) ? &sse_ops : &poll_ops, f, &f->session);
    if (st == ST_OK)
        st = session_identify(
            f->session, f->principal->user,
            principal_connections_max(f->principal, f->door->settings->limit_user_connections));
    return st;
}

/* True: the user comes too often. */
static bool refuse_rate(struct feed *f)
{
    struct edge *e = f->door->edge;
    f->conn->user_place = gate_user(e, f->principal->user);
    uint32_t wait_ms = gate_connect_wait_ms(e, f->conn->user_place);
    if (wait_ms > 0)
        feed_refuse(f, 429, "rate_limited", gate_connect_text, wait_ms);
    return wait_ms > 0;
}

void feed_subscribe(struct feed *f)
{
    struct subscription_options o = {.qos = 1, .retain_as_published = true};
    struct place after;
    struct feed_request *r = request_of(f);
    if (refuse_rate(f))
        return;
    const char *wrong = read_start(f, &o, &after);
    if (wrong) {
        feed_refuse(f, 400, "bad_request", wrong, 0);
        return;
    }
    for (unsigned i = 0; i < r->topic_count; i++)
        if (refuse_topic(f, r->topics[i], &o))
            return;
    if (join(f) != ST_OK)
        feed_refuse(f, 503, "unavailable", "no memory", RETRY_MS);
    else if (session_admitted(f->session))
        subscribe_all(f);
}

/* --- the page ----------------------------------------------------------------------------------- */

void feed_answer_page(struct feed *f)
{
    struct place place;
    char next[BOOKMARK_BYTES_MAX], more[64];
    struct json_out o = {.buf = &f->page, .status = ST_OK};
    if (!reached(f, &place)) {
        feed_refuse(f, 503, "unavailable", "the log cannot be read now", RETRY_MS);
        return;
    }
    json_out_literal(&o, "],\"next\":");
    json_out_string(&o, slice_of(next, bookmark_write(f->door->epoch, &place, next)));
    if (f->gaps.len > 0) {
        json_out_literal(&o, ",\"gaps\":[");
        json_out_put(&o, buf_slice(&f->gaps));
        json_out_literal(&o, "]");
    }
    json_out_literal(&o, "}\n");
    if (o.status != ST_OK) {
        f->broken = true;
        return;
    }
    static const char begin[] = "{\"messages\":[";
    snprintf(more, sizeof more, "Content-Length: %zu\r\n", sizeof begin - 1 + f->page.len);
    metric_add(f->door->metrics, M_HTTP_2XX, 1);
    feed_head(f, 200, "application/json", more);
    feed_put(f, slice_cstr(begin));
    feed_put(f, buf_slice(&f->page));
    buf_deinit(&f->page);
}
