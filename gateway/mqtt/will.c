/* The will message (3.1.2.5): made whole at CONNECT, so that what is wrong with it is told there, and kept by
 * the connection and, while it lives, by its session's record: so it survives the node. It leaves when the
 * connection ends in any way but the client's goodbye: a lost socket, the keep alive, a protocol error, a
 * take-over, a node that stops. When the session goes on, a Will Delay Interval lets it wait (afterlife.c);
 * it does not outlive the session. Its expiry begins when it is published. */
#include "gateway/mqtt/will.h"

#include "routing/once_id.h"

#include <stdio.h>
#include <stdlib.h>

uint8_t mqtt_will_keep(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    const struct mqtt_publish as_publish = {.topic = p->will_topic,
                                            .payload = p->will_payload,
                                            .props = p->will_props,
                                            .qos = p->will_qos,
                                            .retain = p->will_retain};
    enum metric why;
    uint8_t reason = mqtt_publish_objection(c, &as_publish, &why);
    if (reason)
        return reason;
    struct mqtt_will *will = calloc(1, sizeof *will);
    if (!will)
        return MQTT_RC_SERVER_BUSY;
    if (mqtt_publish_message(c, &as_publish, &will->msg, &reason) != ST_OK) {
        free(will);
        return reason;
    }
    will->expires = p->will_props.present & MQTT_HAS_MESSAGE_EXPIRY;
    will->expiry_s = p->will_props.message_expiry_s;
    will->delay_s = p->will_props.will_delay_s;
    c->will = will;
    return 0;
}

void mqtt_will_free(struct mqtt_will *will)
{
    if (!will)
        return;
    msg_unref(will->msg);
    free(will);
}

void mqtt_will_forget(struct mqtt_conn *c)
{
    mqtt_will_free(c->will);
    c->will = NULL;
}

void mqtt_will_record(const struct mqtt_will *will, struct record_will *out)
{
    const struct msg *m = will->msg;
    *out = (struct record_will){.delay_s = will->delay_s,
                                .expiry_s = will->expiry_s,
                                .due_ms = will->due_ms,
                                .expires = will->expires,
                                .qos = m->qos,
                                .content = m->content,
                                .flags = m->flags,
                                .topic = msg_topic(m),
                                .key = msg_key(m),
                                .props = msg_props(m),
                                .payload = msg_payload(m)};
}

enum status mqtt_will_read(const struct record_will *from, struct mqtt_will **out)
{
    struct mqtt_will *will = calloc(1, sizeof *will);
    if (!will)
        return ST_NO_MEMORY;
    enum status st = msg_create(from->topic, from->key, from->props, from->payload, &will->msg);
    if (st != ST_OK) {
        free(will);
        return st;
    }
    will->msg->qos = from->qos;
    will->msg->content = from->content;
    will->msg->flags = from->flags & (MSG_RETAIN | MSG_PFI_UTF8 | MSG_TYPE_GIVEN | MSG_ONCE);
    will->expires = from->expires;
    will->expiry_s = from->expiry_s;
    will->delay_s = from->delay_s;
    will->due_ms = from->due_ms;
    *out = will;
    return ST_OK;
}

void mqtt_will_identify(struct edge *e, struct mqtt_will *will, uint64_t session_incarnation,
                        uint64_t attachment)
{
    char name[ONCE_NAME_BYTES_MAX];
    uint8_t prop[ONCE_PROP_BYTES_MAX];
    struct buf props;
    struct msg *m = will->msg, *identified;
    /* Topics that are not stored have no place for it. */
    if ((m->flags & MSG_ONCE) || attachment > ONCE_SEQUENCE_MAX || !hub_stores(e->hub, msg_topic(m)))
        return;
    /* Nobody can guess the incarnation, so no client's `tg-producer` is taken for it. */
    int len = snprintf(name, sizeof name, "$will/%016lx", (unsigned long)session_incarnation);
    const struct once_id id = {
        .kind = ONCE_PRODUCER, .name = slice_of(name, (size_t)len), .value = attachment};
    size_t prop_len = once_id_write(&id, prop);
    buf_init(&props, MSG_PROPS_BYTES_MAX);
    if (buf_put(&props, msg_props(m)) == ST_OK && buf_put(&props, slice_of(prop, prop_len)) == ST_OK &&
        msg_create(msg_topic(m), msg_key(m), buf_slice(&props), msg_payload(m), &identified) == ST_OK) {
        identified->qos = m->qos;
        identified->content = m->content;
        identified->flags = m->flags | MSG_ONCE;
        will->msg = identified;
        msg_unref(m);
    }
    buf_deinit(&props);
}

enum status mqtt_will_publish(struct edge *e, struct mqtt_will *will, uint64_t origin, void *owner,
                              void (*on_published)(struct publish *p))
{
    struct publish *letter;
    struct msg *m = will->msg;
    m->origin = origin;
    m->expires_ms = will->expires ? loop_wall_ms(e->loop) + (uint64_t)will->expiry_s * 1000 : 0;
    m->accepted_ns = loop_now_ms(e->loop) * 1000000;
    metric_add(e->metrics, M_RECEIVED_MQTT + m->qos, 1);
    if (publish_create(m, &letter) != ST_OK) {
        metric_add(e->metrics, M_REFUSED_UNAVAILABLE, 1);
        mqtt_will_free(will);
        return ST_NO_MEMORY;
    }
    free(will);
    letter->wait = true;
    letter->owner = owner;
    letter->on_published = on_published;
    hub_publish(e->hub, letter);
    return ST_OK;
}
