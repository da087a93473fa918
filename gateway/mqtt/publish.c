/* PUBLISH from a client: checked, made into a message, handed to the hub. QoS 1 and 2 are acknowledged when
 * the record is durable, in the order in which the packets came (MQTT-4.6.0-2, -3): a ring keeps that order,
 * whatever lane answers first. The identifier of a QoS 2 message is remembered until it is released (acks.c),
 * so that a repetition is acknowledged and not stored. */
#include "gateway/mqtt/keep.h"

#include "core/hash.h"
#include "core/utf8.h"
#include "gateway/content.h"
#include "gateway/gate.h"
#include "routing/once_id.h"

#include <stdlib.h>

enum { OPEN_CAP_FIRST = 8 };

/* --- acknowledging ------------------------------------------------------------------------------ */

static struct mqtt_open_publish *open_slot(const struct mqtt_conn *c, uint64_t sequence)
{
    return &c->open[sequence & (c->open_cap - 1)];
}

static enum status open_grow(struct mqtt_conn *c)
{
    uint32_t cap = c->open_cap ? c->open_cap * 2 : OPEN_CAP_FIRST;
    struct mqtt_open_publish *ring = calloc(cap, sizeof *ring);
    if (!ring)
        return ST_NO_MEMORY;
    for (uint64_t i = c->open_head; i < c->open_tail; i++)
        ring[i & (cap - 1)] = *open_slot(c, i);
    free(c->open);
    c->open = ring;
    c->open_cap = cap;
    return ST_OK;
}

/* A place in the order of acknowledgements. */
static enum status open_push(struct mqtt_conn *c, const struct mqtt_publish *p, uint64_t *sequence)
{
    if (c->open_tail - c->open_head == c->open_cap && open_grow(c) != ST_OK)
        return ST_NO_MEMORY;
    *sequence = c->open_tail++;
    *open_slot(c, *sequence) = (struct mqtt_open_publish){.packet_id = p->packet_id, .qos = p->qos};
    return ST_OK;
}

/* What counts against the Receive Maximum we announce: QoS 1 until PUBACK, QoS 2 until PUBCOMP (4.9). */
static uint64_t open_count(const struct mqtt_conn *c)
{
    return c->open_tail - c->open_head - c->open_counted + c->received.count;
}

/* Of what was refused before it came to the log. */
static const char *refusal_text(uint8_t reason)
{
    switch (reason) {
    case MQTT_RC_TOPIC_NAME_INVALID:
        return "no topic name, or over limit.topic_bytes or limit.topic_levels";
    case MQTT_RC_QUOTA_EXCEEDED:
        return "over limit.message_bytes, or properties larger than a record holds";
    case MQTT_RC_PAYLOAD_FORMAT_INVALID:
        return "the payload is not what its payload format indicator or content type says";
    case MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR:
        return "a tg- property that cannot be kept";
    default:
        return NULL;
    }
}

/* What a reason code does not say, for whoever wants to know (Reason String, 3.4.2.2.2). NULL: nothing. */
static const char *reason_text(uint8_t reason, enum status status)
{
    switch ((int)status) {
    case ST_OK:
        return refusal_text(reason);
    case ST_FULL:
        return "the log is behind";
    case ST_CLOSED:
        return "the log cannot be reached";
    case ST_EXPIRED:
        return "whether the log has the message is not known";
    case ST_QUOTA:
        return "limit.retained is reached";
    case ST_NO_SPACE:
        return "the disk is full";
    case ST_UNSUPPORTED:
        return "the topic is not stored: nothing is retained or remembered there";
    case ST_CONFLICT:
        return "tg-seq is too old, or was used for another topic";
    default:
        return NULL;
    }
}

static void open_send(struct mqtt_conn *c, const struct mqtt_open_publish *slot)
{
    enum mqtt_type type = slot->qos == 2 ? MQTT_PUBREC : MQTT_PUBACK;
    /* 5.0 leaves out reason 0x00 and properties (3.4.2.1), so success is the same four bytes in every
     * version. */
    const uint8_t success[] = {(uint8_t)(type << 4), 0x02, (uint8_t)(slot->packet_id >> 8),
                               (uint8_t)slot->packet_id};
    struct mqtt_packet p = {.type = type, .ack = {.packet_id = slot->packet_id, .reason = slot->reason}};
    if (slot->reason == MQTT_RC_SUCCESS) {
        mqtt_conn_send_bytes(c, slice_of(success, sizeof success));
        return;
    }
    mqtt_conn_say(c, &p.ack.props, reason_text(slot->reason, (enum status)slot->status));
    mqtt_conn_send(c, &p);
}

/* Before 5.0 PUBACK and PUBREC can only say yes: no acknowledgement, and the connection ends (PROTOCOL.md 3).
 */
static void open_acknowledge(struct mqtt_conn *c)
{
    while (c->open_head < c->open_tail && mqtt_conn_active(c)) {
        const struct mqtt_open_publish *slot = open_slot(c, c->open_head);
        if (!slot->done)
            break;
        if (slot->reason >= 0x80 && c->version != MQTT_V5) {
            mqtt_conn_close(c, M_DISCONNECT_LIMIT, false);
            return;
        }
        open_send(c, slot);
        c->open_counted -= slot->counted;
        c->open_head++;
    }
    mqtt_publish_unpause(c);
    mqtt_conn_drain_step(c);
}

void mqtt_publish_unpause(struct mqtt_conn *c)
{
    if (!c->publish_paused || c->rate_until_ms || c->draining || !mqtt_conn_active(c) ||
        c->open_tail - c->open_head > c->door->edge->settings->limit_publish_open / 2)
        return;
    c->publish_paused = false;
    c->last_in_ms = loop_now_ms(c->door->edge->loop); /* it could not be heard meanwhile */
    mqtt_conn_continue(c);
    if (c->state < MQTT_STATE_CLOSING) {
        mqtt_conn_rewatch(c);
        mqtt_conn_rearm(c);
    }
}

/* Back-pressure, as clients of a broker expect it: an acknowledgement with 0x97 would make most of them drop
 * the message. */
bool mqtt_publish_waits(struct mqtt_conn *c)
{
    if (!mqtt_conn_active(c))
        return false;
    uint32_t wait_ms = gate_publish_wait_ms(c->door->edge, c->address_place, c->user_place);
    if (wait_ms == 0)
        return false;
    c->rate_until_ms = loop_now_ms(c->door->edge->loop) + wait_ms;
    c->publish_paused = true;
    mqtt_conn_rewatch(c);
    mqtt_conn_rearm(c);
    return true;
}

/* QoS 0 does not wait: it would hold up what is behind it. */
static bool publish_over_rate(struct mqtt_conn *c, const struct mqtt_publish *p)
{
    struct edge *e = c->door->edge;
    if (p->qos > 0 || gate_publish_wait_ms(e, c->address_place, c->user_place) == 0)
        return false;
    metric_add(e->metrics, M_REFUSED_RATE, 1);
    hub_note_refused(e->hub, c->session, p->topic, buf_slice(&c->client_id), M_REFUSED_RATE);
    return true;
}

static uint8_t reason_of(enum status status)
{
    switch ((int)status) {
    case ST_OK:
        return MQTT_RC_SUCCESS;
    case ST_FULL:
    case ST_CLOSED:
    case ST_QUOTA:
    case ST_NO_SPACE:
        return MQTT_RC_QUOTA_EXCEEDED;
    case ST_UNSUPPORTED:
    case ST_CONFLICT: /* the standard has no code for it (PROTOCOL.md 3) */
        return MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    default:
        return MQTT_RC_UNSPECIFIED_ERROR;
    }
}

static void publish_answer(struct mqtt_conn *c, uint64_t sequence, uint8_t reason, enum status status)
{
    struct mqtt_open_publish *slot = open_slot(c, sequence);
    slot->done = 1;
    slot->reason = reason;
    slot->status = (uint8_t)status;
    if (sequence == c->open_head)
        open_acknowledge(c);
}

/* A QoS 2 message is stored, or will not be: its identifier is then free again (4.3.3). */
static void received_settle(struct mqtt_conn *c, uint16_t packet_id, enum status status)
{
    struct received *got = received_find(&c->received, packet_id);
    if (status == ST_OK)
        got->state = RECEIVED_STORED;
    else
        received_remove(&c->received, packet_id);
}

static void on_published(struct publish *p)
{
    struct mqtt_conn *c = p->owner;
    c->publish_letters--;
    if (mqtt_conn_active(c)) {
        if (open_slot(c, p->tag)->qos == 2)
            received_settle(c, open_slot(c, p->tag)->packet_id, p->status);
        publish_answer(c, p->tag, reason_of(p->status), p->status);
    }
    publish_free(p);
    mqtt_conn_free_if_done(c);
}

/* --- checking ----------------------------------------------------------------------------------- */

/* What is wrong with the packet as such: the connection ends. 0 = nothing. */
static uint8_t publish_violation(const struct mqtt_conn *c, const struct mqtt_publish *p, enum metric *why)
{
    *why = M_REFUSED_INVALID;
    if ((p->props.present & MQTT_HAS_TOPIC_ALIAS) && p->props.topic_alias > c->aliases_in.max)
        return MQTT_RC_TOPIC_ALIAS_INVALID; /* MQTT-3.3.2-9 */
    *why = M_REFUSED_LIMIT;
    if (p->qos > 0 && c->version == MQTT_V5 && open_count(c) >= c->receive_max &&
        !(p->qos == 2 && received_find(&c->received, p->packet_id)))
        return MQTT_RC_RECEIVE_MAXIMUM_EXCEEDED; /* refused ones wait for their PUBACK too: 4.9 */
    return 0;
}

uint8_t mqtt_publish_objection(struct mqtt_conn *c, const struct mqtt_publish *p, enum metric *why)
{
    const struct settings *s = c->door->edge->settings;
    struct topic_limits limits = {(uint32_t)s->limit_topic_bytes, (uint32_t)s->limit_topic_levels};
    *why = M_REFUSED_FORBIDDEN;
    if (topic_internal(p->topic))
        return MQTT_RC_NOT_AUTHORIZED;
    *why = M_REFUSED_LIMIT;
    if (!topic_name_valid(p->topic, &limits))
        return MQTT_RC_TOPIC_NAME_INVALID;
    *why = M_REFUSED_FORBIDDEN;
    if (!access_may_publish(&c->access, c->principal, p->topic, buf_slice(&c->client_id)))
        return MQTT_RC_NOT_AUTHORIZED;
    *why = M_REFUSED_LIMIT;
    if (p->payload.len > s->limit_message_bytes)
        return MQTT_RC_QUOTA_EXCEEDED;
    *why = M_REFUSED_INVALID;
    if (s->mqtt_check_payload_format && (p->props.present & MQTT_HAS_PAYLOAD_FORMAT) &&
        p->props.payload_format == 1 && !utf8_valid(p->payload))
        return MQTT_RC_PAYLOAD_FORMAT_INVALID;
    return 0;
}

/* --- making the message ------------------------------------------------------------------------- */

static uint8_t *prop_write(uint8_t *out, enum msg_prop type, struct slice first, struct slice second,
                           bool two)
{
    size_t len = first.len + second.len + (two ? 2u : 0u);
    *out++ = (uint8_t)type;
    *out++ = (uint8_t)len;
    *out++ = (uint8_t)(len >> 8);
    if (two) {
        *out++ = (uint8_t)first.len;
        *out++ = (uint8_t)(first.len >> 8);
    }
    if (first.len > 0)
        memcpy(out, first.data, first.len);
    out += first.len;
    if (second.len > 0)
        memcpy(out, second.data, second.len);
    return out + second.len;
}

uint64_t mqtt_origin(const struct mqtt_conn *c)
{
    return hash64_stable(buf_slice(&c->client_id));
}

/* What a packet says in user properties of ours. */
struct tg_props {
    struct slice key, producer, sequence;
    bool kept_once; /* the session's identity was written */
};

/* ST_NOT_FOUND: it is not one of ours. ST_UNSUPPORTED: not in this build. ST_INVALID: given twice, which is a
 * protocol error as with any property that may be there once. */
static enum status tg_prop_read(struct tg_props *tg, struct slice name, struct slice value)
{
    struct slice *place = slice_equal_cstr(name, "tg-key")        ? &tg->key
                          : slice_equal_cstr(name, "tg-producer") ? &tg->producer
                          : slice_equal_cstr(name, "tg-seq")      ? &tg->sequence
                                                                  : NULL;
    if (!place)
        return slice_equal_cstr(name, "tg-deliver-at") ? ST_UNSUPPORTED : ST_NOT_FOUND;
    if (place->data)
        return ST_INVALID;
    *place = value;
    return ST_OK;
}

/* The identity, if there is one. False: half of one, or malformed. */
static bool tg_once_write(const struct tg_props *tg, struct slice user, uint8_t **w)
{
    struct once_id id = {.kind = ONCE_PRODUCER, .principal = user, .name = tg->producer};
    if (!tg->producer.data && !tg->sequence.data)
        return true;
    if (!tg->sequence.data || !once_name_valid(tg->producer) || !once_sequence_read(tg->sequence, &id.value))
        return false;
    *w += once_id_write(&id, *w);
    return true;
}

/* A QoS 2 message of a session that is kept has the session's identity, unless the client gave it one. Topics
 * that are not stored have no place for it. */
static uint8_t *session_once_write(const struct mqtt_conn *c, const struct mqtt_publish *p,
                                   struct tg_props *tg, uint8_t *w)
{
    char name[ONCE_NAME_BYTES_MAX];
    if (p->qos != 2 || p->packet_id == 0 || !c->keep || tg->producer.data || tg->sequence.data ||
        !hub_stores(c->door->edge->hub, p->topic))
        return w;
    const struct received *got = received_find(&c->received, p->packet_id);
    struct once_id id =
        mqtt_keep_identity(c->keep, got ? got->sequence : mqtt_keep_sequence(c->keep, p->packet_id), name);
    tg->kept_once = true;
    return w + once_id_write(&id, w);
}

/* Properties of the packet as properties of the message (msg.h). Else *reason, and ST_TOO_LARGE;
 * ST_UNSUPPORTED: a tg- property that this build does not have; ST_INVALID. */
static enum status publish_props(const struct mqtt_conn *c, const struct mqtt_publish *p, struct buf *out,
                                 struct tg_props *tg, uint8_t *reason)
{
    struct slice name, value, none = {0};
    size_t place = 0;
    *reason = MQTT_RC_QUOTA_EXCEEDED; /* of ST_TOO_LARGE */
    /* Every property of the packet has at least its own length there, so this is room enough for all but the
     * user. */
    uint8_t *w = buf_reserve(out, p->props.raw.len * 2 + 64 + c->principal->user.len + ONCE_PROP_BYTES_MAX);
    uint8_t *start = w;
    if (!w)
        return ST_TOO_LARGE;
    if (p->props.present & MQTT_HAS_CONTENT_TYPE)
        w = prop_write(w, PROP_CONTENT_TYPE, p->props.content_type, none, false);
    if (p->props.present & MQTT_HAS_RESPONSE_TOPIC)
        w = prop_write(w, PROP_RESPONSE_TOPIC, p->props.response_topic, none, false);
    if (p->props.present & MQTT_HAS_CORRELATION)
        w = prop_write(w, PROP_CORRELATION, p->props.correlation, none, false);
    while (mqtt_user_property_next(p->props.raw, &place, &name, &value)) {
        enum status st = tg_prop_read(tg, name, value);
        if (st == ST_OK)
            continue;
        if (st != ST_NOT_FOUND) {
            *reason = st == ST_INVALID ? MQTT_RC_PROTOCOL_ERROR : MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
            return st;
        }
        if (name.len + value.len + 2 > 65535)
            return ST_TOO_LARGE;
        w = prop_write(w, PROP_USER, name, value, true);
    }
    w = session_once_write(c, p, tg, w);
    if (tg->key.len > c->door->edge->settings->limit_topic_bytes) /* as at the other doors */
        return ST_TOO_LARGE;
    if (!tg_once_write(tg, c->principal->user, &w)) {
        *reason = MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
        return ST_INVALID;
    }
    if (c->no_local) {
        uint64_t origin = mqtt_origin(c);
        w = prop_write(w, PROP_ORIGIN, slice_of(&origin, sizeof origin), none, false);
    }
    buf_advance(out, (size_t)(w - start));
    if (out->len > MSG_PROPS_BYTES_MAX)
        return ST_TOO_LARGE;
    *reason = MQTT_RC_SUCCESS;
    return ST_OK;
}

enum status mqtt_publish_message(struct mqtt_conn *c, const struct mqtt_publish *p, struct msg **out,
                                 uint8_t *reason)
{
    struct edge *e = c->door->edge;
    struct buf *props = &c->door->scratch;
    struct tg_props tg = {0};
    struct slice type = {0};
    enum content_class content;
    buf_clear(props);
    if (p->props.present || c->no_local || (p->qos == 2 && c->keep)) {
        enum status st = publish_props(c, p, props, &tg, reason);
        if (st != ST_OK)
            return st;
    }
    if (p->props.present & MQTT_HAS_CONTENT_TYPE)
        type = p->props.content_type;
    if (content_classify(type, p->payload, &content) != ST_OK) {
        *reason = MQTT_RC_PAYLOAD_FORMAT_INVALID;
        return ST_INVALID;
    }
    struct msg *m;
    enum status st = msg_create(p->topic, tg.key, buf_slice(props), p->payload, &m);
    if (st != ST_OK) {
        *reason = MQTT_RC_QUOTA_EXCEEDED;
        return st;
    }
    m->content = (uint8_t)content;
    m->qos = p->qos;
    m->flags =
        (uint8_t)(((p->props.present & MQTT_HAS_PAYLOAD_FORMAT) && p->props.payload_format ? MSG_PFI_UTF8
                                                                                           : 0) |
                  (type.len > 0 ? MSG_TYPE_GIVEN : 0) | (p->retain ? MSG_RETAIN : 0) |
                  (tg.producer.data || tg.kept_once ? MSG_ONCE : 0));
    if (p->props.present & MQTT_HAS_MESSAGE_EXPIRY)
        m->expires_ms = loop_wall_ms(e->loop) + (uint64_t)p->props.message_expiry_s * 1000;
    m->origin = c->session ? session_id(c->session) : 0; /* a will has none yet */
    m->accepted_ns = loop_now_ms(e->loop) * 1000000;
    *out = m;
    return ST_OK;
}

/* --- PUBLISH ------------------------------------------------------------------------------------ */

/* QoS 0 has no answer: refused and counted. Before 5.0 a refusal of QoS 1 is the end of the connection. */
static void publish_refuse(struct mqtt_conn *c, const struct mqtt_publish *p, uint8_t reason, enum metric why)
{
    uint64_t sequence;
    metric_add(c->door->edge->metrics, why, 1);
    if (c->version != MQTT_V5 && (p->qos > 0 || reason == MQTT_RC_NOT_AUTHORIZED)) {
        mqtt_conn_close(c, M_DISCONNECT_PROTOCOL, false);
        return;
    }
    if (p->qos == 0)
        return;
    if (open_push(c, p, &sequence) != ST_OK)
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
    else
        publish_answer(c, sequence, reason, ST_OK);
}

/* The same QoS 2 message once more (MQTT-4.3.3-10): acknowledged again, not stored again. */
static void publish_repeated(struct mqtt_conn *c, const struct mqtt_publish *p, const struct received *got)
{
    uint64_t sequence;
    metric_add(c->door->edge->metrics, M_DUPLICATES, 1);
    if (got->state == RECEIVED_STORING)
        return; /* the PUBREC of the first answers both */
    if (open_push(c, p, &sequence) != ST_OK)
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
    else
        publish_answer(c, sequence, MQTT_RC_SUCCESS, ST_OK);
}

/* Its identifier stands for it from now on. False: no memory. */
static bool received_take(struct mqtt_conn *c, uint16_t packet_id)
{
    struct received *got = received_find(&c->received, packet_id); /* RECEIVED_UNSURE: it has its sequence */
    if (!got) {
        got = received_add(&c->received, packet_id);
        if (!got)
            return false;
        got->sequence = c->keep ? mqtt_keep_sequence(c->keep, packet_id) : 0;
    }
    got->state = RECEIVED_STORING;
    if (c->keep)
        c->keep->accepted++;
    return true;
}

static void publish_durable(struct mqtt_conn *c, const struct mqtt_publish *p, struct msg *m)
{
    const struct settings *s = c->door->edge->settings;
    struct publish *letter;
    if (publish_create(m, &letter) != ST_OK) {
        msg_unref(m);
        metric_add(c->door->edge->metrics, M_REFUSED_UNAVAILABLE, 1);
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    if (open_push(c, p, &letter->tag) != ST_OK || (p->qos == 2 && !received_take(c, p->packet_id))) {
        publish_free(letter);
        metric_add(c->door->edge->metrics, M_REFUSED_UNAVAILABLE, 1);
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    if (p->qos == 2) {
        open_slot(c, letter->tag)->counted = true;
        c->open_counted++;
    }
    letter->wait = true;
    letter->owner = c;
    letter->on_published = on_published;
    c->publish_letters++;
    hub_publish(c->door->edge->hub, letter);
    if (c->version != MQTT_V5 && c->open_tail - c->open_head >= s->limit_publish_open) {
        c->publish_paused = true; /* older clients are slowed by their socket */
        mqtt_conn_rewatch(c);
    }
}

/* The packet itself is against the rules: the end of the connection. */
static void publish_violates(struct mqtt_conn *c, uint8_t reason, const char *words, enum metric why)
{
    metric_add(c->door->edge->metrics, why, 1);
    mqtt_conn_refuse_saying(c, reason, words,
                            reason == MQTT_RC_RECEIVE_MAXIMUM_EXCEEDED ? M_DISCONNECT_LIMIT
                                                                       : M_DISCONNECT_PROTOCOL);
}

static void publish_take(struct mqtt_conn *c, const struct mqtt_publish *p)
{
    struct msg *m;
    enum metric why;
    const struct received *got = p->qos == 2 ? received_find(&c->received, p->packet_id) : NULL;
    if (publish_over_rate(c, p))
        return;
    if (got && got->state != RECEIVED_UNSURE) {
        publish_repeated(c, p, got);
        return;
    }
    uint8_t reason = mqtt_publish_objection(c, p, &why);
    if (!reason) {
        enum status st = mqtt_publish_message(c, p, &m, &reason);
        why = st == ST_UNSUPPORTED ? M_REFUSED_UNSUPPORTED
              : st == ST_INVALID   ? M_REFUSED_INVALID
                                   : M_REFUSED_LIMIT;
    }
    if (reason == MQTT_RC_PROTOCOL_ERROR) {
        publish_violates(c, reason, "a tg- property is there twice", why);
        return;
    }
    if (reason) {
        publish_refuse(c, p, reason, why);
        return;
    }
    if (p->qos == 0) {
        enum status st = hub_publish_lazy(c->door->edge->hub, m);
        (void)st; /* counted there; QoS 0 has no answer */
        return;
    }
    publish_durable(c, p, m);
}

/* The topic's name in place of its alias. 0x82: an alias that stands for nothing. */
static uint8_t publish_name(struct mqtt_conn *c, struct mqtt_publish *p)
{
    uint16_t alias = p->props.topic_alias;
    if (p->topic.len == 0)
        return aliases_get(&c->aliases_in, alias, &p->topic) ? 0 : MQTT_RC_PROTOCOL_ERROR;
    if (p->topic.len > c->door->edge->settings->limit_topic_bytes)
        return 0; /* the message will be refused; its name is not kept */
    return aliases_set(&c->aliases_in, alias, p->topic) == ST_OK ? 0 : MQTT_RC_UNSPECIFIED_ERROR;
}

void mqtt_handle_publish(struct mqtt_conn *c, const struct mqtt_publish *p)
{
    enum metric why;
    metric_add(c->door->edge->metrics, M_RECEIVED_MQTT + p->qos, 1);
    uint8_t reason = publish_violation(c, p, &why);
    if (reason) {
        publish_violates(c, reason,
                         reason == MQTT_RC_TOPIC_ALIAS_INVALID ? "over the topic alias maximum" : NULL, why);
        return;
    }
    if (!(p->props.present & MQTT_HAS_TOPIC_ALIAS)) {
        publish_take(c, p);
        return;
    }
    struct mqtt_publish named = *p;
    reason = publish_name(c, &named);
    if (reason)
        publish_violates(c, reason, "the topic alias stands for no topic", M_REFUSED_INVALID);
    else
        publish_take(c, &named);
}
