#include "gateway/mqtt/afterlife.h"

#include "core/logging.h"
#include "gateway/gate.h"
#include "gateway/host.h"
#include "gateway/mqtt/refusal.h"
#include "gateway/mqtt/shared.h"
#include "gateway/tls/identity.h"
#include "gateway/tls/server.h"

#include <stdlib.h>

/* A PUBLISH may carry the largest payload, the longest topic and properties beside it. */
enum { PACKET_OVERHEAD_BYTES = 128 * 1024 };

static void door_take(struct mqtt_door *d, struct stream *stream, struct principal *who, bool nameless)
{
    struct bucket_place *place;
    bool full = atomic_load(&d->edge->facts->connections) >= atomic_load(&d->edge->facts->connections_max);
    if (d->draining || full) {
        metric_add(d->edge->metrics, d->draining ? M_CONNECTS_REFUSED_DRAIN : M_CONNECTS_REFUSED_LIMIT, 1);
        mqtt_refusal_open(d, stream, d->draining ? MQTT_RC_SERVER_UNAVAILABLE : MQTT_RC_QUOTA_EXCEEDED);
        principal_unref(who);
        return;
    }
    if (gate_enter(d->edge, stream->fd, &place) != ST_OK) {
        stream_close(stream);
        principal_unref(who);
        return;
    }
    mqtt_conn_open(d, stream, place, who, nameless);
}

static void door_on_stream(void *ctx, struct stream *stream)
{
    struct mqtt_door *d = ctx;
    bool loopback = host_address_is_loopback(slice_cstr(d->edge->settings->mqtt_bind));
    door_take(d, stream, tls_identity(d->edge, stream), !auth_takes_anonymous(d->edge->auth, loopback));
}

static void door_on_socket(void *ctx, int fd)
{
    struct mqtt_door *d = ctx;
    struct stream stream = stream_plain(fd);
    if (gate_admits(d->edge, fd))
        door_on_stream(d, &stream);
    else
        stream_close(&stream);
}

/* Everything that this turn queued leaves now, one write a connection. */
static bool door_flush(struct loop_hook *hook)
{
    struct mqtt_door *d = LIST_OF(hook, struct mqtt_door, flush);
    while (!list_empty(&d->dirty)) {
        struct outq *q = LIST_OF(d->dirty.next, struct outq, dirty);
        list_unlink(&q->dirty);
        mqtt_conn_flush(LIST_OF(q, struct mqtt_conn, out));
    }
    return false;
}

static void door_on_revoked(struct auth_watcher *w, const struct revocation *what)
{
    struct mqtt_door *d = LIST_OF(w, struct mqtt_door, watcher);
    LIST_EACH (node, &d->conns) {
        struct mqtt_conn *c = LIST_OF(node, struct mqtt_conn, link);
        if (auth_concerns(d->edge->auth, what, c->principal))
            mqtt_conn_refuse(c, MQTT_RC_NOT_AUTHORIZED, M_DISCONNECT_REVOKED);
    }
}

/* --- other rules -------------------------------------------------------------------------------- */

struct review {
    const struct mqtt_conn *conn;
    bool lost;
};

static void review_subscription(void *ctx, struct subscription *sub)
{
    struct review *r = ctx;
    r->lost =
        r->lost || !mqtt_conn_may(r->conn, ACL_SUBSCRIBE, mqtt_shared_matched(subscription_filter(sub)));
}

/* MQTT has no word for a subscription that the server ends: the client is disconnected, and told why when it
 * subscribes again (PROTOCOL.md 6). */
static void door_on_rules(struct auth_watcher *w)
{
    struct mqtt_door *d = LIST_OF(w, struct mqtt_door, watcher);
    LIST_EACH (node, &d->conns) {
        struct mqtt_conn *c = LIST_OF(node, struct mqtt_conn, link);
        struct principal *p = auth_renew(d->edge->auth, c->principal);
        struct review review = {.conn = c, .lost = !p};
        if (p) {
            principal_unref(c->principal);
            c->principal = p;
        }
        free(c->access);
        c->access = NULL;
        if (p && c->session)
            session_each(c->session, review_subscription, &review);
        if (review.lost)
            mqtt_conn_refuse(c, MQTT_RC_NOT_AUTHORIZED, M_DISCONNECT_REVOKED);
    }
}

enum status mqtt_door_create(struct edge *edge, int listen_fd, struct mqtt_door **out)
{
    struct mqtt_door *d = calloc(1, sizeof *d);
    if (!d)
        return ST_NO_MEMORY;
    d->edge = edge;
    uint64_t packet = edge->settings->limit_message_bytes + PACKET_OVERHEAD_BYTES;
    d->packet_bytes_max = packet > MQTT_REMAINING_BYTES_MAX ? MQTT_REMAINING_BYTES_MAX : (uint32_t)packet;
    list_init(&d->conns);
    list_init(&d->dirty);
    list_init(&d->dead);
    list_init(&d->refused);
    buf_init(&d->scratch, (size_t)d->packet_bytes_max * 2);
    enum status st = acceptor_create(edge->loop, listen_fd, edge->metrics, door_on_socket, d, &d->acceptor);
    if (st != ST_OK) {
        buf_deinit(&d->scratch);
        free(d);
        return st;
    }
    st = afterlife_create(d, &d->afterlife);
    if (st != ST_OK) {
        acceptor_destroy(d->acceptor);
        buf_deinit(&d->scratch);
        free(d);
        return st;
    }
    list_init(&d->flush.link);
    d->flush.on_turn_end = door_flush;
    loop_hook_add(edge->loop, &d->flush);
    d->watcher.on_revoked = door_on_revoked;
    d->watcher.on_rules = door_on_rules;
    auth_watch(edge->auth, &d->watcher);
    edge->mqtt = d;
    edge->mqtt_take = door_take;
    *out = d;
    return ST_OK;
}

enum status mqtt_door_listen_tls(struct mqtt_door *d, int listen_fd)
{
    return tls_port_open(d->edge->tls, listen_fd, "mqtt", d->edge->settings->mqtt_connect_timeout_ms,
                         door_on_stream, d, &d->tls);
}

void mqtt_door_drain_begin(struct mqtt_door *d, uint64_t spread_ms)
{
    d->draining = true;
    d->drain_spread_ms = spread_ms;
}

unsigned mqtt_door_drain(struct mqtt_door *d, unsigned *most)
{
    unsigned left = 0;
    struct list *next;
    for (struct list *node = d->conns.next; node != &d->conns; node = next) {
        struct mqtt_conn *c = LIST_OF(node, struct mqtt_conn, link);
        next = node->next;
        if (c->state >= MQTT_STATE_CLOSING)
            continue;
        if (c->draining || *most == 0) {
            left++;
            continue;
        }
        --*most;
        c->draining = true;
        mqtt_conn_rewatch(c);
        mqtt_conn_drain_step(c);
        left += c->state < MQTT_STATE_CLOSING;
    }
    return left;
}

void mqtt_door_start(struct mqtt_door *d)
{
    afterlife_start(d->afterlife);
}

void mqtt_door_lane_lost(struct mqtt_door *d, unsigned lane)
{
    afterlife_lane_lost(d->afterlife, lane);
}

void mqtt_door_stop(struct mqtt_door *d)
{
    acceptor_pause(d->acceptor);
    tls_port_stop(d->tls);
    LIST_EACH (node, &d->conns) {
        struct mqtt_conn *c = LIST_OF(node, struct mqtt_conn, link);
        mqtt_conn_refuse(c, MQTT_RC_SERVER_SHUTTING_DOWN, M_DISCONNECT_SERVER);
    }
    mqtt_refusals_close(d);
}

/* The loop has ended: letters do not come back any more. */
void mqtt_door_destroy(struct mqtt_door *d)
{
    if (!d)
        return;
    acceptor_destroy(d->acceptor);
    tls_port_close(d->tls);
    mqtt_refusals_close(d);
    loop_hook_remove(d->edge->loop, &d->flush);
    list_unlink(&d->watcher.link);
    while (!list_empty(&d->conns))
        mqtt_conn_close(LIST_OF(d->conns.next, struct mqtt_conn, link), M_DISCONNECT_SERVER, true);
    while (!list_empty(&d->dead)) {
        struct mqtt_conn *c = LIST_OF(d->dead.next, struct mqtt_conn, link);
        c->publish_letters = 0;
        c->letters = 0;
        mqtt_conn_free_if_done(c);
    }
    afterlife_destroy(d->afterlife);
    buf_deinit(&d->scratch);
    free(d);
}
