/* The will message (3.1.2.5): made whole at CONNECT, so that what is wrong with it is told there, and kept by
 * the connection. It leaves when the connection ends in any way but the client's goodbye: a lost socket, the
 * keep alive, a protocol error, a take-over, a node that stops. Its expiry begins when it is published. */
#include "gateway/mqtt/conn_private.h"

#include <stdlib.h>

struct mqtt_will {
    struct msg *msg;
    uint32_t expiry_s; /* 0: none was given */
    bool expires;
};

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
    c->will = will;
    return 0;
}

void mqtt_will_forget(struct mqtt_conn *c)
{
    if (!c->will)
        return;
    msg_unref(c->will->msg);
    free(c->will);
    c->will = NULL;
}

static void will_published(struct publish *p)
{
    publish_free(p); /* what became of it is counted; there is nobody to be told */
}

void mqtt_will_publish(struct mqtt_conn *c)
{
    struct edge *e = c->door->edge;
    struct publish *letter;
    if (!c->will)
        return;
    struct msg *m = c->will->msg;
    m->origin = session_id(c->session);
    m->expires_ms = c->will->expires ? loop_wall_ms(e->loop) + (uint64_t)c->will->expiry_s * 1000 : 0;
    m->accepted_ns = loop_now_ms(e->loop) * 1000000;
    metric_add(e->metrics, M_RECEIVED_MQTT, 1);
    if (publish_create(msg_ref(m), &letter) != ST_OK) {
        msg_unref(m);
        metric_add(e->metrics, M_REFUSED_UNAVAILABLE, 1);
        return;
    }
    letter->wait = true;
    letter->on_published = will_published;
    hub_publish(e->hub, letter);
}
