/* Publishes of a connection. One on its way holds a reference to the connection's memory: it may come back
 * after the socket has gone. */
#include "core/utf8.h"
#include "gateway/gate.h"
#include "gateway/ws/serve.h"
#include "routing/once_id.h"

enum { TYPE_BYTES_MAX = 1024 };

static void serve_not_published(struct conn *c, struct ws_id id, enum status status)
{
    switch ((int)status) {
    case ST_NO_SPACE:
        serve_error(c, id, "storage_full", "the disk is full");
        break;
    case ST_QUOTA:
        serve_error(c, id, "quota_exceeded", "limit.retained or limit.retained_bytes is reached");
        break;
    case ST_CONFLICT:
        serve_error(c, id, "conflict",
                    "seq is older than what is remembered of this producer, or was used for another topic");
        break;
    case ST_UNSUPPORTED:
        serve_error(c, id, "unsupported",
                    "this topic is not stored, so nothing can be retained there, or stored once");
        break;
    case ST_EXPIRED:
        serve_unknown(c, id,
                      "whether the log has the message is not known: publish it again, with producer and seq "
                      "if it must not be there twice");
        break;
    case ST_CLOSED:
        serve_later(c, id, "unavailable", "the log cannot be reached; nothing was stored");
        break;
    default:
        serve_later(c, id, "unavailable", "the log does not take it now");
    }
}

static void on_published(struct publish *p)
{
    struct conn *c = p->owner;
    struct ws_id id = {.given = true, .value = p->tag};
    c->publish_open--;
    if (c->state == CONN_OPEN) {
        if (p->status == ST_OK)
            serve_put(c, ws_put_published(&c->door->scratch, id, c->door->epoch, p->msg, p->duplicate));
        else
            serve_not_published(c, id, p->status);
        conn_touch(c);
    }
    publish_free(p);
    conn_unref(c);
}

/* The properties of a request's message: its content type and its producer. */
static struct slice serve_make_props(const struct ws_request *r, struct slice user, uint8_t *props)
{
    size_t len = 0;
    if (r->type.len > 0) {
        props[0] = PROP_CONTENT_TYPE;
        props[1] = (uint8_t)r->type.len;
        props[2] = (uint8_t)(r->type.len >> 8);
        memcpy(props + 3, r->type.data, r->type.len);
        len = 3 + r->type.len;
    }
    if (r->has_sequence) {
        const struct once_id id = {
            .kind = ONCE_PRODUCER, .principal = user, .name = r->producer, .value = r->sequence};
        len += once_id_write(&id, props + len);
    }
    return slice_of(props, len);
}

static enum status serve_make_msg(struct conn *c, const struct ws_request *r, struct msg **out)
{
    static const enum content_class classes[] = {
        [WS_PAYLOAD_JSON] = CONTENT_JSON,
        [WS_PAYLOAD_TEXT] = CONTENT_TEXT,
        [WS_PAYLOAD_BINARY] = CONTENT_BINARY,
    };
    uint8_t props[3 + TYPE_BYTES_MAX + ONCE_PROP_BYTES_MAX];
    struct msg *m;
    enum status st =
        msg_create(r->topic, r->key, serve_make_props(r, c->principal->user, props), r->payload, &m);
    if (st != ST_OK)
        return st;
    m->content = (uint8_t)classes[r->payload_kind];
    m->qos = 1;
    m->flags = (uint8_t)(MSG_TYPE_GIVEN | (r->retain ? MSG_RETAIN : 0) | (r->has_sequence ? MSG_ONCE : 0));
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
    struct topic_limits limits = serve_limits(c);
    if (!topic_name_valid(r->topic, &limits))
        serve_refuse_pub(c, serve_id(r), M_REFUSED_INVALID, "bad_request",
                         "topic is not a topic name within the limits");
    else if (topic_internal(r->topic))
        serve_refuse_pub(c, serve_id(r), M_REFUSED_FORBIDDEN, "forbidden",
                         "topics that begin with $ are the node's own");
    else if (!access_may_publish(&c->access, c->principal, r->topic, (struct slice){0}))
        serve_refuse_pub(c, serve_id(r), M_REFUSED_FORBIDDEN, "forbidden", access_denied_text(ACL_PUBLISH));
    else if (r->payload.len > c->door->settings->limit_message_bytes)
        serve_refuse_pub(c, serve_id(r), M_REFUSED_LIMIT, "too_large",
                         "the payload is over limit.message_bytes");
    else if (!utf8_valid_mqtt(r->key) ||
             !utf8_valid_mqtt(r->type)) /* \u0000: no MQTT subscriber could be told */
        serve_refuse_pub(c, serve_id(r), M_REFUSED_INVALID, "bad_request",
                         "key and type must not hold U+0000");
    else if (r->key.len > limits.bytes_max || r->type.len > TYPE_BYTES_MAX)
        serve_refuse_pub(c, serve_id(r), M_REFUSED_LIMIT, "too_large", "key or type is too long");
    else
        return false;
    return true;
}

/* Without an id nobody asks whether it is durable: it goes the way of QoS 0. */
static void serve_pub_lazy(struct conn *c, struct msg *m)
{
    enum status st = hub_publish_lazy(c->door->hub, m);
    if (st != ST_OK)
        serve_not_published(c, (struct ws_id){0}, st);
}

void serve_pub(struct conn *c, const struct ws_request *r)
{
    struct msg *m;
    struct publish *p;
    if (serve_check_pub(c, r))
        return;
    uint32_t wait_ms = gate_publish_wait_ms(c->door->edge, c->address_place, c->user_place);
    if (wait_ms > 0) {
        metric_add(c->door->metrics, M_REFUSED_RATE, 1);
        serve_over_rate(c, serve_id(r), gate_publish_text, wait_ms);
        return;
    }
    if (serve_make_msg(c, r, &m) != ST_OK) {
        metric_add(c->door->metrics, M_REFUSED_UNAVAILABLE, 1);
        serve_later(c, serve_id(r), "unavailable", "no memory");
        return;
    }
    if (!r->has_id) {
        serve_pub_lazy(c, m);
        return;
    }
    if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        metric_add(c->door->metrics, M_REFUSED_UNAVAILABLE, 1);
        serve_later(c, serve_id(r), "unavailable", "no memory");
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
