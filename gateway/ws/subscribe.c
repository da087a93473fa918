/* Subscriptions of a connection and what they deliver.
 *
 * A message is encoded once for all its receivers: as WIRE_WS for subscriptions whose filter is the topic,
 * as WIRE_WS_SUB (it names the filter) for each channel of others. */
#include "gateway/ws/serve.h"

#include "gateway/peer.h"

#include <assert.h>
#include <stdlib.h>

/* --- deliveries --------------------------------------------------------------------------------- */

/* Makes the frame in the hub's scratch space. */
static enum status serve_make_wire(struct web_door *d, struct delivery *delivery, enum wire_kind kind,
                                   const struct slice *filter)
{
    struct buf *scratch = &d->scratch;
    buf_clear(scratch);
    enum status st = ws_put_delivery(scratch, d->epoch, delivery->msg, delivery->retained, filter);
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

/* The object within one of our own frames. */
static struct slice frame_text(struct slice frame)
{
    return slice_from(frame, ws_header_length(frame.data));
}

static enum flow_kind message_kind(const struct delivery *d)
{
    return d->retained ? FLOW_RETAINED : d->msg->flags & MSG_UNSTORED ? FLOW_UNSTORED : FLOW_STORED;
}

/* Queues it, unless the window or the queue has no room. */
static enum status serve_deliver(struct conn *c, struct tally *tally, const struct delivery *delivery,
                                 struct slice frame)
{
    struct slice text = frame_text(frame);
    size_t bytes = tally ? ack_text_bytes(c, text) : text.len;
    if (!flow_admits(&c->flow, bytes, tally != NULL)) {
        c->flow.waiting = true;
        return ST_AGAIN;
    }
    if (!outq_has_room(&c->out, bytes + WS_HEADER_BYTES_MAX)) {
        c->starved = true;
        conn_touch(c);
        return ST_AGAIN;
    }
    if (!tally) {
        flow_spend(&c->flow, bytes);
        return conn_put_frame(c, frame);
    }
    /* One that is not stored lies before the record of its offset: acknowledging it says nothing of that. */
    uint64_t place = delivery->msg->offset - ((delivery->msg->flags & MSG_UNSTORED) ? 1 : 0);
    const struct flow_sent sent = {.tally = tally,
                                   .offset = place,
                                   .bytes = (uint32_t)bytes,
                                   .lane = delivery->msg->partition,
                                   .kind = message_kind(delivery)};
    return ack_put(c, text, &sent);
}

static enum status on_deliver(void *conn, struct subscription *sub, struct delivery *delivery)
{
    struct conn *c = conn;
    struct slice filter = subscription_filter(sub);
    bool plain = slice_equal(filter, msg_topic(delivery->msg));
    enum wire_kind kind = plain ? WIRE_WS : WIRE_WS_SUB;
    struct slice *wire = &delivery->wires[kind];
    if (!wire->data && serve_make_wire(c->door, delivery, kind, plain ? NULL : &filter) != ST_OK) {
        conn_break(c); /* a hole that the client cannot see must not be followed by more */
        return ST_FULL;
    }
    enum status st = serve_deliver(c, subscription_tally(sub), delivery, *wire);
    if (st == ST_AGAIN)
        return ST_AGAIN;
    if (st != ST_OK) {
        conn_break(c);
        return ST_FULL;
    }
    metric_add(c->door->metrics, M_SENT_WS, 1);
    if (!subscription_options_of(sub)->door) /* else when it is acknowledged */
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

void serve_drop_subscribing(struct subscribing *s)
{
    list_unlink(&s->link);
    list_unlink(&s->wait.link);
    free(s);
}

void serve_subscribed(struct conn *c, struct subscribing *s)
{
    struct buf *scratch = &c->door->scratch;
    struct slice filter = subscription_filter(s->subscription);
    if (s->id.given)
        serve_put(c, ws_put_subscribed(scratch, s->id, filter, c->door->epoch, &s->at, s->replay));
    if (s->gap_len > 0)
        serve_put(c, ws_put_gap_from(scratch, filter, slice_of(s->gap_from, s->gap_len), "epoch"));
    serve_drop_subscribing(s);
}

/* From here on what is acknowledged counts from where this subscription begins. */
static void place_tally(struct tally *t, const struct subscription *sub)
{
    /* Resumed: it began with them. Where the log does not reach so far it goes on at the end, and a place
     * that stayed behind that would pass over what comes there. */
    bool resumed = t->places == TALLY_OWN;
    for (unsigned i = 0; i < t->lane_count; i++) {
        uint64_t begins = subscription_reached(sub, t->first_lane + i);
        if (!resumed || begins < t->lanes[i].acked)
            t->lanes[i].acked = begins;
    }
    t->places = TALLY_OWN;
}

static void on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct conn *c = conn;
    struct subscribing *s = find_subscribing(c, sub);
    struct tally *tally = subscription_tally(sub);
    assert(s);
    s->at = *at;
    s->replay = replay;
    if (tally)
        place_tally(tally, sub);
    if (subscription_options_of(sub)->held)
        keep_subscription(c, s);
    else
        serve_subscribed(c, s);
}

static void on_live(void *conn, struct subscription *sub, const struct place *at)
{
    struct conn *c = conn;
    serve_put(c, ws_put_live(&c->door->scratch, subscription_filter(sub), c->door->epoch, at));
}

static void on_gap(void *conn, struct subscription *sub, const struct gap *gap)
{
    struct conn *c = conn;
    serve_put(c, ws_put_gap(&c->door->scratch, subscription_filter(sub), c->door->epoch, gap));
}

static struct slice on_name(void *conn)
{
    const struct conn *c = conn;
    return c->principal->user;
}

static void on_too_many(void *conn)
{
    struct conn *c = conn;
    serve_error(c, (struct ws_id){0}, "quota_exceeded",
                "limit.user_connections: the user has too many connections");
    conn_close(c, 4202, "too many connections of the user", END_LIMIT);
}

static void on_describe(void *conn, struct connection_facts *out)
{
    const struct conn *c = conn;
    char *name = out->texts + ADDRESS_BYTES_MAX;
    out->address = slice_of(out->texts, peer_address(c->watch.fd, out->texts));
    if (c->token[0] && token_name(slice_cstr(c->token), c->principal->user, name) == ST_OK)
        out->session = slice_of(name, KEEPER_NAME_BYTES);
    out->queued_bytes = c->waiting_bytes;
    out->unacknowledged = c->flow.sent - c->flow.acked;
}

static void on_kick(void *conn)
{
    conn_close(conn, 4203, "kicked", END_SERVER);
}

static const struct transport_ops ops = {.door = "ws",
                                         .describe = on_describe,
                                         .kick = on_kick,
                                         .deliver = on_deliver,
                                         .subscribed = on_subscribed,
                                         .live = on_live,
                                         .gap = on_gap,
                                         .too_many = on_too_many,
                                         .name = on_name};

enum status serve_begin(struct conn *c)
{
    const struct principal *p = c->principal; /* a name it has by its certificate */
    enum status st = session_create(c->door->hub, &ops, c, &c->session);
    if (st != ST_OK || c->nameless || p->user.len == 0)
        return st;
    return session_identify(c->session, p->user,
                            principal_connections_max(p, c->door->settings->limit_user_connections));
}

static void drop_tally(void *ctx, struct subscription *sub)
{
    (void)ctx;
    tally_unref(subscription_tally(sub));
}

void serve_end(struct conn *c)
{
    while (!list_empty(&c->subscribing))
        serve_drop_subscribing(LIST_OF(c->subscribing.next, struct subscribing, link));
    auth_abandon(c->check);
    c->check = NULL;
    if (!c->session)
        return;
    keep_end(c);
    inbox_end(c);
    metric_sub(c->door->metrics, M_UNACKED_WS, c->flow.sent - c->flow.acked);
    metric_add(c->door->metrics, M_RETURNED, c->flow.sent - c->flow.acked);
    flow_deinit(&c->flow);
    session_each(c->session, drop_tally, NULL);
    session_end(c->session);
    c->session = NULL;
}

/* --- sub, unsub --------------------------------------------------------------------------------- */

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
    serve_drop_subscribing(s);
}

/* One place for each lane that messages of this filter come from. */
static struct tally *make_tally(const struct conn *c, struct slice filter)
{
    unsigned lanes = hub_lane_count(c->door->hub), lane;
    return topic_filter_partition(filter, lanes, &lane) ? tally_create(lane, 1) : tally_create(0, lanes);
}

static struct subscribing *make_subscribing(struct conn *c, struct ws_id id, struct slice stranger)
{
    struct subscribing *s = calloc(1, sizeof *s + stranger.len);
    if (!s)
        return NULL;
    list_init(&s->link);
    list_init(&s->wait.link);
    s->conn = c;
    s->id = id;
    s->gap_len = stranger.len;
    if (stranger.len > 0)
        memcpy(s->gap_from, stranger.data, stranger.len);
    return s;
}

/* Until it has places of its own, the record keeps those of the one it replaces. */
static void inherit_places(struct tally *t, const struct tally *old)
{
    if (!t || !old || t->places != TALLY_UNPLACED || old->places == TALLY_UNPLACED)
        return;
    for (unsigned i = 0; i < t->lane_count; i++)
        t->lanes[i].acked = old->lanes[i].acked;
    t->places = TALLY_INHERITED;
}

/* Takes over s and the tally in o->door; they are freed unless ST_OK. */
static enum status subscribe_with(struct conn *c, struct slice filter, struct subscription_options *o,
                                  struct subscribing *s)
{
    struct subscribing *pending = find_pending(c, filter);
    struct subscription *old = session_find(c->session, filter);
    struct tally *old_tally = old ? subscription_tally(old) : NULL;
    if (c->keeper && old_tally)
        o->held = true; /* the record changes, also when the new one needs none */
    enum status st = session_subscribe(c->session, filter, o, &s->subscription);
    if (st != ST_OK) {
        free(s);
        tally_unref(o->door);
        return st;
    }
    inherit_places(o->door, old_tally);
    tally_unref(old_tally);
    serve_supersede(c, pending, "replaced by a later sub of the same filter");
    list_push(&c->subscribing, &s->link);
    return ST_OK;
}

static void serve_subscribe(struct conn *c, const struct ws_request *r, const struct place *after,
                            struct slice stranger)
{
    struct subscription_options o = {
        .qos = 1, .retain_as_published = true, .retained = !r->not_retained, .after = after};
    static const enum start starts[] = {[WS_START_LIVE] = START_LIVE,
                                        [WS_START_EARLIEST] = START_EARLIEST,
                                        [WS_START_AFTER] = START_AFTER,
                                        [WS_START_TIME] = START_TIME,
                                        [WS_START_LAST] = START_LAST};
    o.start = starts[r->start];
    o.start_value = r->start_value;
    if (r->start == WS_START_AFTER && !after)
        o.start = START_EARLIEST;
    o.held = r->ack && c->token[0];
    struct subscribing *s = make_subscribing(c, serve_id(r), stranger);
    if (r->ack)
        o.door = make_tally(c, r->topic);
    if (!s || (r->ack && !o.door) || (o.held && !keep_keeper(c))) {
        free(s);
        tally_unref(o.door);
        serve_later(c, serve_id(r), "unavailable", "no memory");
        return;
    }
    enum status st = subscribe_with(c, r->topic, &o, s);
    bool names_place = r->start == WS_START_AFTER || r->start == WS_START_EARLIEST;
    if (st == ST_OK && r->ack && names_place && inbox_is_whole(c, r->topic))
        st = inbox_follow(c, o.door);
    if (st == ST_FULL)
        serve_error(c, serve_id(r), "quota_exceeded", "limit.subscriptions is reached");
    else if (st != ST_OK)
        serve_later(c, serve_id(r), "unavailable", "no memory");
}

/* What the session's record holds may be gone on with; a place that the client names is a wish to read the
 * past. */
static enum status check_resumed(struct conn *c, struct slice filter, bool ack)
{
    struct topic_limits limits = serve_limits(c);
    struct slice user;
    if (!topic_filter_valid(filter, &limits) || (topic_internal(filter) && !topic_user(filter, &user)))
        return ST_INVALID;
    return conn_may(c, ACL_SUBSCRIBE, filter) && (ack || conn_may(c, ACL_HISTORY, filter)) ? ST_OK
                                                                                           : ST_FORBIDDEN;
}

enum status serve_resume_filter(struct conn *c, struct slice filter, struct subscription_options *o, bool ack)
{
    enum status permitted = check_resumed(c, filter, ack);
    if (permitted != ST_OK)
        return permitted;
    struct tally *t = ack ? make_tally(c, filter) : NULL;
    struct subscribing *s = make_subscribing(c, (struct ws_id){0}, (struct slice){0});
    if (!s || (ack && !t)) {
        free(s);
        tally_unref(t);
        return ST_NO_MEMORY;
    }
    for (unsigned i = 0; t && i < t->lane_count; i++)
        t->lanes[i].acked = o->after->next[t->first_lane + i];
    if (t)
        t->places = TALLY_OWN;
    o->start = START_AFTER;
    o->qos = 1;
    o->retain_as_published = true;
    o->door = t;
    enum status st = subscribe_with(c, filter, o, s);
    return st == ST_OK && ack && inbox_is_whole(c, filter) ? inbox_follow(c, t) : st;
}

void serve_sub(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = serve_limits(c);
    struct place after;
    struct slice stranger = {0};
    if (!topic_filter_valid(r->topic, &limits)) {
        serve_error(c, serve_id(r), "bad_request", "topic is not a topic filter within the limits");
        return;
    }
    if (serve_refuse_topic(c, r, ACL_SUBSCRIBE) ||
        (r->start != WS_START_LIVE && serve_refuse_topic(c, r, ACL_HISTORY)))
        return;
    if (r->start == WS_START_LAST && !topic_filter_literal(r->topic)) {
        serve_error(c, serve_id(r), "unsupported", "last is of one topic: the filter has a wildcard");
        return;
    }
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
        serve_error(c, serve_id(r), "bad_request", "after holds something that is no position of this log");
    }
}

void serve_unsub(struct conn *c, const struct ws_request *r)
{
    serve_supersede(c, find_pending(c, r->topic), "ended by unsub");
    struct subscription *sub = session_find(c->session, r->topic);
    struct tally *tally = sub ? subscription_tally(sub) : NULL;
    if (session_unsubscribe(c->session, r->topic) != ST_OK)
        serve_error(c, serve_id(r), "not_found", "there is no such subscription");
    else if (tally && c->keeper)
        keep_without(c, serve_id(r), r->topic);
    else if (r->has_id)
        serve_put(c, ws_put_unsubscribed(&c->door->scratch, serve_id(r), r->topic));
    tally_unref(tally);
}

void serve_end_subscription(struct conn *c, struct slice filter)
{
    serve_supersede(c, find_pending(c, filter), "ended by auth: the new token does not permit it");
    struct subscription *sub = session_find(c->session, filter);
    struct tally *tally = sub ? subscription_tally(sub) : NULL;
    if (sub && session_unsubscribe(c->session, filter) == ST_OK && tally && c->keeper)
        keep_without(c, (struct ws_id){0}, filter);
    tally_unref(tally);
}
