/* The public port: the door and libwebsockets' callbacks.
 *
 *   acceptor, TLS port --stream--> front --requests--> http_serve -> answer, and the next request
 *                                        --handshake--> libwebsockets -> 101, ESTABLISHED
 *                                               -> at the end of the turn: ours (conn_take_over)
 *
 * libwebsockets never has the socket, only an end of a pair with a handshake that is ours (front.h). What it
 * would do with anything else does not matter: it gets nothing else. */
#include "gateway/ws/conn.h"

#include "core/logging.h"
#include "gateway/acceptor.h"
#include "gateway/gate.h"
#include "gateway/tls/server.h"
#include "gateway/ws/carrier.h"
#include "gateway/ws/feed.h"
#include "gateway/ws/files.h"
#include "gateway/ws/front.h"
#include "gateway/ws/host.h"
#include "gateway/ws/http.h"
#include "gateway/ws/serve.h"

#include <libwebsockets.h>
#include <stdlib.h>
#include <unistd.h>

enum { SCRATCH_KEEP_BYTES = 256 * 1024, WRITE_BYTES_MAX = 1 << 20, RX_BYTES = 16 };

/* --- libwebsockets' callbacks ------------------------------------------------------------------- */

static int on_established(struct conn *c)
{
    c->state = CONN_FRESH;
    list_push(&c->door->fresh, &c->turn);
    return 0;
}

/* RFC 6455, 4.1: it "MUST wait" for our answer. */
static void on_early_bytes(struct conn *c)
{
    c->deaf = true;
    conn_close(c, WS_CLOSE_PROTOCOL, "frames before the handshake was answered", END_PROTOCOL);
}

static int on_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct conn *c = wsi ? lws_get_opaque_user_data(wsi) : NULL;
    (void)user, (void)in, (void)len;
    if (!c)
        return 0;
    c->wsi = wsi;
    loop_update_time(c->door->loop);
    switch ((int)reason) {
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(c);
    case LWS_CALLBACK_HTTP: /* none of these: see the top */
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_RAW_ADOPT:
    case LWS_CALLBACK_RAW_RX:
        return -1;
    case LWS_CALLBACK_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
        lws_set_opaque_user_data(wsi, NULL);
        conn_lost(c);
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {.name = "tidegate.v1.json",
     .callback = on_callback,
     .rx_buffer_size = RX_BYTES, /* it reads no frame; see above */
     .tx_packet_size = WRITE_BYTES_MAX},
    {.name = "mqtt", .callback = on_callback, .rx_buffer_size = RX_BYTES, .tx_packet_size = WRITE_BYTES_MAX},
    {.name = NULL},
};

/* --- sockets ------------------------------------------------------------------------------------ */

void conn_adopt(struct conn *c, int fd)
{
    conn_ref(c); /* it may be lost inside */
    struct lws *wsi = host_adopt(c->door->host, fd, c);
    if (wsi && c->state != CONN_DEAD)
        c->wsi = wsi;
    else
        conn_lost(c);
    conn_unref(c);
}

static bool is_full(struct web_door *d)
{
    struct node_facts *facts = d->edge->facts;
    if (atomic_load(&facts->connections) < atomic_load(&facts->connections_max))
        return false;
    metric_add(d->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
    return true;
}

/* The address may have one more connection. */
static void on_stream(struct web_door *d, struct stream *io, struct bucket_place *place)
{
    struct conn *c = is_full(d) ? NULL : conn_create(d);
    if (!c) {
        gate_leave(place);
        http_refuse_stream(d, io, 503);
        return;
    }
    c->address_place = place;
    if (front_open(c, io) != ST_OK)
        conn_kill(c, END_LIMIT);
}

static void on_socket(void *ctx, int fd)
{
    struct web_door *d = ctx;
    struct bucket_place *place;
    struct stream io = stream_plain(fd);
    if (gate_admits(d->edge, fd) && gate_enter(d->edge, fd, &place) == ST_OK)
        on_stream(d, &io, place);
    else
        http_refuse_stream(d, &io, 429);
}

static void on_tls_stream(void *ctx, struct stream *stream)
{
    struct web_door *d = ctx;
    struct bucket_place *place;
    if (gate_enter(d->edge, stream->fd, &place) == ST_OK)
        on_stream(d, stream, place);
    else
        http_refuse_stream(d, stream, 429);
}

/* The stream of the front, and libwebsockets has nothing of it any more. True: early bytes are lost. */
static bool take_stream(struct conn *c)
{
    struct lws *wsi = c->wsi;
    bool early = front_hand_over(c);
    c->wsi = NULL;
    if (wsi)
        host_drop(wsi);
    return early;
}

/* The stream of an MQTT client. */
static enum status mqtt_stream(struct conn *c, struct stream *out)
{
    size_t sent;
    bool early = take_stream(c);
    enum status st = outq_flush(&c->out, &c->io, &sent); /* the 101; a fresh socket takes it */
    if (early || c->broken || st != ST_OK)
        return ST_CLOSED;
    *out = c->io;
    c->io = (struct stream){.fd = -1};
    return ST_OK;
}

/* To the MQTT door; the connection is gone after it. */
static void hand_over_mqtt(struct conn *c)
{
    struct stream inner, carried;
    enum status st = mqtt_stream(c, &inner);
    if (st == ST_OK && carrier_create(&inner, &carried) != ST_OK) {
        stream_close(&inner);
        st = ST_NO_MEMORY;
    }
    struct edge *edge = c->door->edge;
    bool named = !c->nameless && c->principal->user.len > 0;
    struct principal *who = named ? principal_ref(c->principal) : NULL;
    bool nameless = c->nameless;
    conn_kill(c, st == ST_OK ? END_CLIENT
                             : END_LIMIT); /* counts no disconnect: it was never a WebSocket of ours */
    if (st == ST_OK)
        edge->mqtt_take(edge->mqtt, &carried, who, nameless);
    else
        principal_unref(who);
}

static void take_over(struct conn *c)
{
    bool early = take_stream(c), feeds = c->opening_feed;
    if ((feeds ? feed_open(c) : conn_take_over(c)) != ST_OK)
        conn_kill(c, END_LIMIT);
    else if (feeds)
        return; /* what came behind its request is thrown away, early or not; it may be gone */
    else if (early)
        on_early_bytes(c);
    else
        conn_touch(c);
}

static bool feeds_turn_end(struct web_door *d)
{
    struct list now;
    bool more = false;
    list_init(&now);
    list_splice(&now, &d->feeds_turn);
    while (!list_empty(&now)) {
        struct feed *f = LIST_OF(now.next, struct feed, turn);
        list_unlink(&f->turn);
        more |= feed_turn_end(f);
    }
    return more;
}

static void take_over_fresh(struct web_door *d)
{
    struct list now;
    list_init(&now);
    list_splice(&now, &d->fresh);
    while (!list_empty(&now)) {
        struct conn *c = LIST_OF(now.next, struct conn, turn);
        list_unlink(&c->turn);
        if (c->speaks_mqtt)
            hand_over_mqtt(c);
        else
            take_over(c);
    }
}

static void release_large(struct buf *b)
{
    size_t limit = b->limit;
    if (b->cap <= SCRATCH_KEEP_BYTES)
        return;
    buf_deinit(b);
    buf_init(b, limit);
}

static bool on_turn_end(struct loop_hook *hook)
{
    struct web_door *d = LIST_OF(hook, struct web_door, hook);
    struct list now;
    take_over_fresh(d);
    bool more = front_turn_end(d); /* after it: pairs have become free */
    list_init(&now);
    list_splice(&now, &d->dirty);
    while (!list_empty(&now)) {
        struct conn *c = LIST_OF(now.next, struct conn, out.dirty);
        list_unlink(&c->out.dirty);
        more |= conn_turn_end(c);
    }
    more |= feeds_turn_end(d);
    release_large(&d->scratch);
    release_large(&d->texts);
    return more || !list_empty(&d->fresh) || !list_empty(&d->dirty) || !list_empty(&d->feeds_turn);
}

/* --- life --------------------------------------------------------------------------------------- */

static void on_revoked(struct auth_watcher *w, const struct revocation *what)
{
    struct web_door *d = LIST_OF(w, struct web_door, watcher);
    LIST_EACH (node, &d->conns) {
        struct conn *c = LIST_OF(node, struct conn, link);
        if (c->state == CONN_OPEN && auth_concerns(d->edge->auth, what, c->principal))
            conn_close(c, 4101, "revoked", END_REVOKED);
        else if (c->state == CONN_FEED && c->feed->principal &&
                 auth_concerns(d->edge->auth, what, c->feed->principal))
            feed_goodbye(c->feed, 4101, "revoked");
    }
}

/* False: no memory. */
static bool renew(struct web_door *d, struct principal **p)
{
    struct principal *renewed = *p ? auth_renew(d->edge->auth, *p) : NULL;
    if (!renewed)
        return *p == NULL;
    principal_unref(*p);
    *p = renewed;
    return true;
}

static void conn_on_rules(struct web_door *d, struct conn *c)
{
    bool renewed = renew(d, &c->principal) && renew(d, &c->named);
    free(c->access);
    c->access = NULL;
    if (c->state == CONN_FEED) {
        if (!renew(d, &c->feed->principal) || !feed_permitted(c->feed))
            feed_goodbye(c->feed, 4202, "forbidden");
    } else if (!renewed) { /* rather than go on with rights that are gone */
        conn_close(c, 4005, "overloaded", END_LIMIT);
    } else if (c->state == CONN_OPEN) {
        serve_review(c);
    }
}

static void on_rules(struct auth_watcher *w)
{
    struct web_door *d = LIST_OF(w, struct web_door, watcher);
    LIST_EACH (node, &d->conns)
        conn_on_rules(d, LIST_OF(node, struct conn, link));
}

static size_t scratch_bytes_max(const struct web_door *d)
{
    /* A text of control characters grows sixfold as JSON; a page of history holds half a MiB of them. */
    return (size_t)d->settings->limit_message_bytes * 6 + (8 << 20);
}

static void door_init(struct web_door *d, struct edge *edge)
{
    d->edge = edge;
    d->loop = edge->loop;
    d->hub = edge->hub;
    d->metrics = edge->metrics;
    d->settings = edge->settings;
    d->epoch = hub_epoch(edge->hub);
    d->message_bytes_max = (uint32_t)edge->settings->limit_message_bytes + CONN_ENVELOPE_BYTES;
    list_init(&d->conns);
    list_init(&d->buried);
    list_init(&d->fresh);
    list_init(&d->fronts);
    list_init(&d->unpaired);
    list_init(&d->dirty);
    list_init(&d->feeds_turn);
    list_init(&d->hook.link);
    d->hook.on_turn_end = on_turn_end;
    d->watcher.on_revoked = on_revoked;
    d->watcher.on_rules = on_rules;
    auth_watch(edge->auth, &d->watcher);
    buf_init(&d->scratch, scratch_bytes_max(d));
    buf_init(&d->texts, 2 * (size_t)d->message_bytes_max);
}

enum status web_door_create(struct edge *edge, int listen_fd, struct web_door **out, struct buf *error)
{
    struct web_door *d = calloc(1, sizeof *d);
    enum status st = ST_NO_MEMORY;
    if (!d || !(d->input = malloc(CONN_READ_BYTES))) {
        free(d);
        close(listen_fd);
        return st;
    }
    door_init(d, edge);
    st = files_load(d->settings->demo_dir, &d->files, error);
    if (st == ST_OK)
        st = host_create(d->loop, protocols, &d->host, error);
    if (st == ST_OK)
        st = acceptor_create(d->loop, listen_fd, d->metrics, on_socket, d, &d->acceptor);
    if (!d->acceptor)
        close(listen_fd);
    if (st != ST_OK) {
        web_door_destroy(d);
        return st;
    }
    loop_hook_add(d->loop, &d->hook);
    *out = d;
    return ST_OK;
}

enum status web_door_listen_tls(struct web_door *d, int listen_fd)
{
    return tls_port_open(d->edge->tls, listen_fd, "http/1.1", d->settings->ws_hello_timeout_ms, on_tls_stream,
                         d, &d->tls);
}

void web_door_run(struct web_door *d)
{
    host_run(d->host);
}

void web_door_use_settings(struct web_door *d)
{
    d->settings = d->edge->settings;
}

void web_door_drain_begin(struct web_door *d, uint64_t spread_ms)
{
    d->drain_spread_ms = spread_ms;
}

/* Pages that are being sent, and upgrades that are being refused, end by themselves. */
unsigned web_door_drain(struct web_door *d, unsigned *most)
{
    unsigned left = 0;
    struct list *next;
    for (struct list *node = d->conns.next; node != &d->conns; node = next) {
        struct conn *c = LIST_OF(node, struct conn, link);
        next = node->next;
        if (c->state != CONN_OPEN && c->state != CONN_FRESH && (c->state != CONN_FEED || c->draining))
            continue;
        left++;
        if (c->draining || *most == 0 || c->state == CONN_FRESH)
            continue;
        --*most;
        if (c->state == CONN_OPEN) {
            conn_drain(c);
        } else {
            c->draining = true;
            feed_goodbye(c->feed, 4001, "drain");
        }
    }
    return left;
}

void web_door_stop(struct web_door *d)
{
    acceptor_pause(d->acceptor);
    tls_port_stop(d->tls);
    LIST_EACH (node, &d->conns) {
        struct conn *c = LIST_OF(node, struct conn, link);
        if (c->state == CONN_OPEN)
            conn_close(c, 4000, "shutdown", END_SERVER);
        else if (c->state == CONN_FEED)
            feed_goodbye(c->feed, 4000, "shutdown");
        else if (c->state != CONN_CLOSING)
            conn_kill(c, END_SERVER);
    }
}

void web_door_destroy(struct web_door *d)
{
    if (!d)
        return;
    acceptor_destroy(d->acceptor);
    tls_port_close(d->tls);
    while (!list_empty(&d->conns))
        conn_kill(LIST_OF(d->conns.next, struct conn, link), END_SERVER);
    while (!list_empty(&d->buried)) { /* publishes and reads that will not come back any more */
        conn_free(LIST_OF(d->buried.next, struct conn, link));
    }
    list_unlink(&d->watcher.link);
    if (!list_empty(&d->hook.link))
        loop_hook_remove(d->loop, &d->hook);
    host_destroy(d->host);
    files_free(d->files);
    buf_deinit(&d->scratch);
    buf_deinit(&d->texts);
    free(d->input);
    free(d);
}
