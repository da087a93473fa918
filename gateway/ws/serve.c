/* The protocol of a connection: lines in, answers and deliveries out.
 *
 * Each request with an `id` is answered once. Answers that wait for the log or a shard travel as what was
 * sent there (a publish, a read) or as a `struct subscribing`; each holds what it needs to answer. A publish
 * or read may come back after its connection is gone: it holds a reference to the memory, no more.
 *
 * A message is encoded once for all its receivers: as WIRE_WS for subscriptions whose filter is the topic,
 * as WIRE_WS_SUB (it names the filter) for each channel of others. */
#include "gateway/ws/conn.h"

#include "gateway/ws/request.h"

#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

enum { PAGE_DEFAULT = 100, PAGE_BYTES_MAX = 512 * 1024, RETRY_MS = 500, TYPE_BYTES_MAX = 1024 };

/* A `sub` that is not yet in place. */
struct subscribing {
    struct list link; /* conn->subscribing */
    struct subscription *subscription;
    struct ws_id id;
    bool live; /* from now on: `live` follows the answer at once */
    size_t gap_len; /* a position of another epoch, for the gap to be told */
    uint8_t gap_from[];
};

/* A `get` under way. */
struct page {
    struct read read;
    struct conn *conn;
    struct ws_id id;
    bool earliest;
    size_t topic_len;
    uint8_t topic[];
};

static struct ws_id id_of(const struct ws_request *r)
{
    return (struct ws_id){.given = r->has_id, .value = r->id};
}

/* --- output ------------------------------------------------------------------------------------- */

static void serve_put(struct conn *c, enum status encoded)
{
    struct buf *scratch = &c->door->scratch;
    if (encoded == ST_OK)
        conn_put_text(c, buf_slice(scratch));
    else
        c->broken = true;
    buf_clear(scratch);
    conn_touch(c);
}

static void serve_error(struct conn *c, struct ws_id id, const char *code, const char *detail)
{
    const struct ws_error e = {.code = code, .detail = detail};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

static void serve_later(struct conn *c, struct ws_id id, const char *code, const char *detail)
{
    const struct ws_error e = {.code = code, .detail = detail, .retry_ms = RETRY_MS, .temporary = true};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

/* --- deliveries --------------------------------------------------------------------------------- */

/* Makes the frame in the hub's scratch space. */
static enum status serve_make_wire(struct web_door *d, struct delivery *delivery, enum wire_kind kind,
                                   const struct slice *filter)
{
    struct buf *scratch = &d->scratch;
    buf_clear(scratch);
    enum status st = ws_put_delivery(scratch, d->epoch, delivery->msg, filter);
    if (st != ST_OK)
        return st;
    size_t header = ws_header_bytes(scratch->len);
    uint8_t *frame = hub_scratch(d->hub, kind, header + scratch->len);
    if (!frame)
        return ST_NO_MEMORY;
    ws_header_write(frame, WS_TEXT, scratch->len);
    memcpy(frame + header, scratch->data, scratch->len);
    delivery->wires[kind] = slice_of(frame, header + scratch->len);
    buf_clear(scratch);
    return ST_OK;
}

static enum status on_deliver(void *conn, struct subscription *sub, struct delivery *delivery)
{
    struct conn *c = conn;
    struct slice filter = subscription_filter(sub);
    bool plain = slice_equal(filter, msg_topic(delivery->msg));
    enum wire_kind kind = plain ? WIRE_WS : WIRE_WS_SUB;
    struct slice *wire = &delivery->wires[kind];
    if (!wire->data && serve_make_wire(c->door, delivery, kind, plain ? NULL : &filter) != ST_OK) {
        metric_add(c->door->metrics, M_DROPPED_QUEUE_FULL, 1);
        c->broken = true; /* a hole that the client cannot see must not be followed by more */
        conn_touch(c);
        return ST_FULL;
    }
    if (!outq_has_room(&c->out, wire->len)) {
        c->starved = true;
        conn_touch(c);
        return ST_AGAIN;
    }
    if (conn_put_frame(c, *wire) != ST_OK) {
        metric_add(c->door->metrics, M_DROPPED_QUEUE_FULL, 1);
        c->broken = true;
        conn_touch(c);
        return ST_FULL;
    }
    metric_add(c->door->metrics, M_DELIVERED_WS, 1);
    return ST_OK;
}

static struct subscribing *find_subscribing(struct conn *c, const struct subscription *sub)
{
    LIST_EACH (node, &c->subscribing) {
        struct subscribing *s = LIST_OF(node, struct subscribing, link);
        if (s->subscription == sub)
            return s;
    }
    return NULL;
}

static void drop_subscribing(struct subscribing *s)
{
    list_unlink(&s->link);
    free(s);
}

static void on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct conn *c = conn;
    struct buf *scratch = &c->door->scratch;
    struct slice filter = subscription_filter(sub);
    struct subscribing *s = find_subscribing(c, sub);
    assert(s);
    if (s->id.given)
        serve_put(c, ws_put_subscribed(scratch, s->id, filter, c->door->epoch, at, replay));
    if (s->gap_len > 0)
        serve_put(c, ws_put_gap_from(scratch, filter, slice_of(s->gap_from, s->gap_len), "epoch"));
    if (s->live)
        serve_put(c, ws_put_live(scratch, filter, c->door->epoch, at));
    drop_subscribing(s);
}

static void on_live(void *conn, struct subscription *sub, const struct place *at)
{
    struct conn *c = conn;
    serve_put(c, ws_put_live(&c->door->scratch, subscription_filter(sub), c->door->epoch, at));
}

static void on_gap(void *conn, struct subscription *sub, unsigned lane, uint64_t from, uint64_t to,
                   const char *why)
{
    struct conn *c = conn;
    serve_put(c,
              ws_put_gap(&c->door->scratch, subscription_filter(sub), c->door->epoch, lane, from, to, why));
}

static const struct transport_ops ops = {
    .deliver = on_deliver, .subscribed = on_subscribed, .live = on_live, .gap = on_gap};

enum status serve_begin(struct conn *c)
{
    return session_create(c->door->hub, &ops, c, &c->session);
}

void serve_end(struct conn *c)
{
    while (!list_empty(&c->subscribing))
        drop_subscribing(LIST_OF(c->subscribing.next, struct subscribing, link));
    session_end(c->session);
    c->session = NULL;
}

/* --- hello -------------------------------------------------------------------------------------- */

static void serve_hello(struct conn *c, const struct ws_request *r)
{
    const struct settings *s = c->door->settings;
    const struct ws_hello hello = {
        .node = s->node_id, .ping_ms = s->ws_ping_ms, .max_bytes = s->limit_message_bytes};
    if (r->has_id)
        serve_put(c, ws_put_hello(&c->door->scratch, id_of(r), &hello));
}

/* --- sub, unsub --------------------------------------------------------------------------------- */

static struct topic_limits limits_of(const struct conn *c)
{
    const struct settings *s = c->door->settings;
    return (struct topic_limits){(uint32_t)s->limit_topic_bytes, (uint32_t)s->limit_topic_levels};
}

/* Folds what the client gave. ST_GONE: *stranger is a position of another epoch. */
static enum status serve_fold(const struct conn *c, const struct ws_request *r, struct place *place,
                              struct slice *stranger)
{
    *place = (struct place){.lane_count = hub_lane_count(c->door->hub)};
    for (unsigned i = 0; i < r->after_count; i++) {
        *stranger = r->after[i];
        enum status st = place_fold(place, c->door->epoch, r->after[i]);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static struct subscribing *find_pending(struct conn *c, struct slice filter)
{
    struct subscription *sub = session_find(c->session, filter);
    return sub ? find_subscribing(c, sub) : NULL;
}

/* One that is replaced or ended before it was in place is answered too. NULL: there was none. */
static void serve_supersede(struct conn *c, struct subscribing *s, const char *detail)
{
    if (!s)
        return;
    if (s->id.given)
        serve_error(c, s->id, "conflict", detail);
    drop_subscribing(s);
}

static void serve_subscribe(struct conn *c, const struct ws_request *r, const struct place *after,
                            struct slice stranger)
{
    struct subscription_options o = {.qos = 1, .retain_as_published = true, .after = after};
    o.start = r->start == WS_START_LIVE ? START_LIVE : after ? START_AFTER : START_EARLIEST;
    struct subscribing *s = calloc(1, sizeof *s + stranger.len);
    if (!s) {
        serve_later(c, id_of(r), "unavailable", "no memory");
        return;
    }
    list_init(&s->link);
    s->id = id_of(r);
    s->live = r->start == WS_START_LIVE;
    s->gap_len = stranger.len;
    if (stranger.len > 0)
        memcpy(s->gap_from, stranger.data, stranger.len);
    struct subscribing *pending = find_pending(c, r->topic);
    enum status st = session_subscribe(c->session, r->topic, &o, &s->subscription);
    if (st == ST_OK) {
        serve_supersede(c, pending, "replaced by a later sub of the same filter");
        list_push(&c->subscribing, &s->link);
        return;
    }
    free(s);
    if (st == ST_FULL)
        serve_error(c, id_of(r), "quota_exceeded", "limit.subscriptions is reached");
    else
        serve_later(c, id_of(r), "unavailable", "no memory");
}

/* Filters below $ are the node's own: an inbox needs an identity, which this build does not have. */
static bool serve_refuse_internal(struct conn *c, const struct ws_request *r)
{
    struct slice user;
    if (!topic_internal(r->topic))
        return false;
    if (topic_user(r->topic, &user))
        serve_error(c, id_of(r), "forbidden", "an anonymous connection has no inbox");
    else
        serve_error(c, id_of(r), "unsupported", "topics that begin with $ are not in this build");
    return true;
}

static void serve_sub(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = limits_of(c);
    struct place after;
    struct slice stranger = {0};
    if (!topic_filter_valid(r->topic, &limits)) {
        serve_error(c, id_of(r), "bad_request", "topic is not a topic filter within the limits");
        return;
    }
    if (serve_refuse_internal(c, r))
        return;
    if (r->start != WS_START_AFTER) {
        serve_subscribe(c, r, NULL, stranger);
        return;
    }
    switch ((int)serve_fold(c, r, &after, &stranger)) {
    case ST_OK:
        serve_subscribe(c, r, &after, (struct slice){0});
        break;
    case ST_GONE: /* another epoch of the log: told as a gap, then all there is */
        serve_subscribe(c, r, NULL, stranger);
        break;
    default:
        serve_error(c, id_of(r), "bad_request", "after holds something that is no position of this log");
    }
}

static void serve_unsub(struct conn *c, const struct ws_request *r)
{
    serve_supersede(c, find_pending(c, r->topic), "ended by unsub");
    if (session_unsubscribe(c->session, r->topic) != ST_OK)
        serve_error(c, id_of(r), "not_found", "there is no such subscription");
    else if (r->has_id)
        serve_put(c, ws_put_unsubscribed(&c->door->scratch, id_of(r), r->topic));
}

/* --- pub ---------------------------------------------------------------------------------------- */

static void on_published(struct publish *p)
{
    struct conn *c = p->owner;
    struct ws_id id = {.given = true, .value = p->tag};
    c->publish_open--;
    if (c->state == CONN_OPEN) {
        switch ((int)p->status) {
        case ST_OK:
            serve_put(c, ws_put_published(&c->door->scratch, id, c->door->epoch, p->msg));
            break;
        case ST_NO_SPACE:
            serve_error(c, id, "storage_full", "the disk is full");
            break;
        default:
            serve_later(c, id, "unavailable", "the log does not take it now");
        }
        conn_touch(c);
    }
    publish_free(p);
    conn_unref(c);
}

/* The message of a request; the content type is its only property. */
static enum status serve_make_msg(struct conn *c, const struct ws_request *r, struct msg **out)
{
    static const enum content_class classes[] = {
        [WS_PAYLOAD_JSON] = CONTENT_JSON,
        [WS_PAYLOAD_TEXT] = CONTENT_TEXT,
        [WS_PAYLOAD_BINARY] = CONTENT_BINARY,
    };
    uint8_t props[3 + TYPE_BYTES_MAX];
    size_t props_len = 0;
    if (r->type.len > 0) {
        props[0] = PROP_CONTENT_TYPE;
        props[1] = (uint8_t)r->type.len;
        props[2] = (uint8_t)(r->type.len >> 8);
        memcpy(props + 3, r->type.data, r->type.len);
        props_len = 3 + r->type.len;
    }
    struct msg *m;
    enum status st = msg_create(r->topic, r->key, slice_of(props, props_len), r->payload, &m);
    if (st != ST_OK)
        return st;
    m->content = (uint8_t)classes[r->payload_kind];
    m->qos = 1;
    m->flags = MSG_TYPE_GIVEN;
    m->expires_ms = r->has_ttl ? loop_wall_ms(c->door->loop) + r->ttl_ms : 0;
    m->origin = session_id(c->session);
    m->accepted_ns = c->read_ns;
    *out = m;
    return ST_OK;
}

static void serve_refuse_pub(struct conn *c, struct ws_id id, enum metric why, const char *code,
                             const char *detail)
{
    metric_add(c->door->metrics, why, 1);
    serve_error(c, id, code, detail);
}

/* True when the request was refused. */
static bool serve_check_pub(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = limits_of(c);
    if (!topic_name_valid(r->topic, &limits))
        serve_refuse_pub(c, id_of(r), M_REFUSED_INVALID, "bad_request",
                         "topic is not a topic name within the limits");
    else if (topic_internal(r->topic))
        serve_refuse_pub(c, id_of(r), M_REFUSED_FORBIDDEN, "forbidden",
                         "topics that begin with $ are the node's own");
    else if (r->payload.len > c->door->settings->limit_message_bytes)
        serve_refuse_pub(c, id_of(r), M_REFUSED_LIMIT, "too_large",
                         "the payload is over limit.message_bytes");
    else if (r->key.len > limits.bytes_max || r->type.len > TYPE_BYTES_MAX)
        serve_refuse_pub(c, id_of(r), M_REFUSED_LIMIT, "too_large", "key or type is too long");
    else
        return false;
    return true;
}

/* Without an id nobody asks whether it is durable: it goes the way of QoS 0. */
static void serve_pub_lazy(struct conn *c, struct msg *m)
{
    if (hub_publish_lazy(c->door->hub, m) != ST_OK)
        serve_later(c, (struct ws_id){0}, "unavailable", "the log does not take it now");
}

static void serve_pub(struct conn *c, const struct ws_request *r)
{
    struct msg *m;
    struct publish *p;
    if (serve_check_pub(c, r))
        return;
    if (serve_make_msg(c, r, &m) != ST_OK) {
        metric_add(c->door->metrics, M_REFUSED_UNAVAILABLE, 1);
        serve_later(c, id_of(r), "unavailable", "no memory");
        return;
    }
    if (!r->has_id) {
        serve_pub_lazy(c, m);
        return;
    }
    if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        metric_add(c->door->metrics, M_REFUSED_UNAVAILABLE, 1);
        serve_later(c, id_of(r), "unavailable", "no memory");
        return;
    }
    p->wait = true;
    p->on_published = on_published;
    p->owner = c;
    p->tag = r->id;
    conn_ref(c);
    c->publish_open++;
    hub_publish(c->door->hub, p);
}

/* --- get ---------------------------------------------------------------------------------------- */

static void page_answer(struct page *p)
{
    struct conn *c = p->conn;
    struct buf *scratch = &c->door->scratch;
    struct store_read *r = &p->read.store;
    if (r->status == ST_OK) {
        struct place next = {.lane_count = hub_lane_count(c->door->hub)};
        next.next[r->lane] = r->next;
        serve_put(c, ws_put_page(scratch, p->id, slice_of(p->topic, p->topic_len), c->door->epoch, r->msgs,
                                 r->found, &next));
    } else if (r->status == ST_GONE) {
        char earliest[POSITION_BYTES + 1];
        position_write(c->door->epoch, r->lane, r->first - 1,
                       earliest); /* strictly after it: the first kept */
        earliest[POSITION_BYTES] = '\0';
        const struct ws_error e = {.code = "position_gone", .earliest = earliest};
        serve_put(c, ws_put_error(scratch, p->id, &e));
    } else {
        serve_error(c, p->id, "internal", "the log cannot be read here");
    }
}

static void on_page(struct read *read)
{
    struct page *p = LIST_OF(read, struct page, read);
    struct conn *c = p->conn;
    struct store_read *r = &p->read.store;
    /* What was the earliest has been removed meanwhile. */
    if (r->status == ST_GONE && p->earliest && r->first > r->from && c->state == CONN_OPEN) {
        read_release(read);
        r->from = r->first;
        hub_read(c->door->hub, read);
        return;
    }
    c->reads_open--;
    if (c->state == CONN_OPEN) {
        page_answer(p);
        conn_touch(c);
    }
    read_release(read);
    free(p);
    conn_unref(c);
}

static void serve_read(struct conn *c, const struct ws_request *r, uint64_t from)
{
    const struct settings *s = c->door->settings;
    struct page *p = calloc(1, sizeof *p + r->topic.len);
    if (!p) {
        serve_later(c, id_of(r), "unavailable", "no memory");
        return;
    }
    uint64_t count = r->has_max ? r->max : PAGE_DEFAULT;
    p->conn = c;
    p->id = id_of(r);
    p->earliest = r->start == WS_START_EARLIEST;
    p->topic_len = r->topic.len;
    memcpy(p->topic, r->topic.data, r->topic.len);
    p->read.store.topic = slice_of(p->topic, p->topic_len);
    p->read.store.from = from;
    p->read.store.count_max = (uint32_t)(count < s->limit_history_count ? count : s->limit_history_count);
    p->read.store.bytes_max = PAGE_BYTES_MAX;
    p->read.on_read = on_page;
    conn_ref(c);
    c->reads_open++;
    hub_read(c->door->hub, &p->read);
}

static void serve_get(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = limits_of(c);
    struct place after;
    struct slice stranger;
    if (!r->has_id)
        serve_error(c, id_of(r), "bad_request", "get needs an id");
    else if (!topic_name_valid(r->topic, &limits))
        serve_error(c, id_of(r), "bad_request", "topic is not a topic name within the limits");
    else if (serve_refuse_internal(c, r))
        return;
    else {
        unsigned lane = topic_partition(r->topic, hub_lane_count(c->door->hub));
        switch ((int)serve_fold(c, r, &after, &stranger)) {
        case ST_OK:
            serve_read(c, r, after.next[lane]);
            break;
        case ST_GONE:
            serve_error(c, id_of(r), "position_gone", "a position of another log epoch: read from earliest");
            break;
        default:
            serve_error(c, id_of(r), "bad_request", "after holds something that is no position of this log");
        }
    }
}

/* --- lines -------------------------------------------------------------------------------------- */

static void serve_request(struct conn *c, const struct ws_request *r)
{
    if (r->operation == WS_OP_PUB)
        metric_add(c->door->metrics, M_RECEIVED_WS, 1);
    if (r->refused) {
        if (r->operation == WS_OP_PUB)
            metric_add(c->door->metrics,
                       strcmp(r->refused, "unsupported") == 0 ? M_REFUSED_UNSUPPORTED : M_REFUSED_INVALID, 1);
        serve_error(c, id_of(r), r->refused, r->detail);
        return;
    }
    switch (r->operation) {
    case WS_OP_HEARTBEAT:
        conn_put_text(c, slice_of("{}", 2));
        break;
    case WS_OP_HELLO:
        serve_hello(c, r);
        break;
    case WS_OP_SUB:
        serve_sub(c, r);
        break;
    case WS_OP_UNSUB:
        serve_unsub(c, r);
        break;
    case WS_OP_PUB:
        serve_pub(c, r);
        break;
    case WS_OP_GET:
        serve_get(c, r);
        break;
    case WS_OP_NONE:
    case WS_OP_OTHER: /* always refused */
    default:
        assert(false);
    }
}

static bool is_blank(struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
            return false;
    return true;
}

static void serve_line(struct conn *c, struct slice line)
{
    struct ws_request request;
    if (is_blank(line)) /* a message may end with a line break */
        return;
    switch ((int)ws_request_parse(line, &c->door->texts, &request)) {
    case ST_OK:
        serve_request(c, &request);
        break;
    case ST_INVALID:
        serve_error(c, (struct ws_id){0}, "bad_request", "a line must be one JSON object, its id an integer");
        if (++c->bad_lines >= CONN_BAD_LINES_MAX)
            conn_close(c, 4201, "too many bad lines", END_PROTOCOL);
        break;
    default:
        c->broken = true;
        conn_touch(c);
    }
}

size_t serve_lines(struct conn *c, struct slice text)
{
    size_t done = 0;
    while (done < text.len && !conn_is_full(c)) {
        struct slice rest = slice_from(text, done);
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        serve_line(c, slice_of(rest.data, len));
        done += end ? len + 1 : len;
    }
    return done;
}
