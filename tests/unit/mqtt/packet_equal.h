/* Are two decoded packets the same? `raw` is compared by what it says (the order of user properties counts,
 * their place among other properties does not). */
#ifndef TG_TESTS_PACKET_EQUAL_H
#define TG_TESTS_PACKET_EQUAL_H

#include "gateway/mqtt/packet.h"

static inline bool user_properties_equal(struct slice a, struct slice b)
{
    size_t a_place = 0, b_place = 0;
    for (;;) {
        struct slice a_name, a_value, b_name, b_value;
        bool more = mqtt_user_property_next(a, &a_place, &a_name, &a_value);
        if (more != mqtt_user_property_next(b, &b_place, &b_name, &b_value))
            return false;
        if (!more)
            return true;
        if (!slice_equal(a_name, b_name) || !slice_equal(a_value, b_value))
            return false;
    }
}

static inline bool props_equal(const struct mqtt_props *a, const struct mqtt_props *b)
{
    return a->present == b->present && a->payload_format == b->payload_format &&
           a->request_problem == b->request_problem && a->request_response == b->request_response &&
           a->maximum_qos == b->maximum_qos && a->retain_available == b->retain_available &&
           a->wildcard_available == b->wildcard_available &&
           a->subscription_id_available == b->subscription_id_available &&
           a->shared_available == b->shared_available && a->server_keep_alive_s == b->server_keep_alive_s &&
           a->receive_maximum == b->receive_maximum && a->topic_alias_maximum == b->topic_alias_maximum &&
           a->topic_alias == b->topic_alias && a->message_expiry_s == b->message_expiry_s &&
           a->session_expiry_s == b->session_expiry_s && a->will_delay_s == b->will_delay_s &&
           a->maximum_packet_bytes == b->maximum_packet_bytes && a->subscription_id == b->subscription_id &&
           slice_equal(a->content_type, b->content_type) &&
           slice_equal(a->response_topic, b->response_topic) && slice_equal(a->correlation, b->correlation) &&
           slice_equal(a->assigned_client_id, b->assigned_client_id) &&
           slice_equal(a->auth_method, b->auth_method) && slice_equal(a->auth_data, b->auth_data) &&
           slice_equal(a->response_info, b->response_info) &&
           slice_equal(a->server_reference, b->server_reference) &&
           slice_equal(a->reason_string, b->reason_string) && user_properties_equal(a->raw, b->raw);
}

static inline bool connect_equal(const struct mqtt_connect *a, const struct mqtt_connect *b)
{
    return a->version == b->version && a->clean_start == b->clean_start && a->will == b->will &&
           a->will_retain == b->will_retain && a->has_user_name == b->has_user_name &&
           a->has_password == b->has_password && a->will_qos == b->will_qos &&
           a->keep_alive_s == b->keep_alive_s && props_equal(&a->props, &b->props) &&
           props_equal(&a->will_props, &b->will_props) && slice_equal(a->client_id, b->client_id) &&
           slice_equal(a->will_topic, b->will_topic) && slice_equal(a->will_payload, b->will_payload) &&
           slice_equal(a->user_name, b->user_name) && slice_equal(a->password, b->password);
}

static inline bool publish_equal(const struct mqtt_publish *a, const struct mqtt_publish *b)
{
    return a->dup == b->dup && a->retain == b->retain && a->qos == b->qos && a->packet_id == b->packet_id &&
           props_equal(&a->props, &b->props) && slice_equal(a->topic, b->topic) &&
           slice_equal(a->payload, b->payload);
}

static inline bool packet_equal(const struct mqtt_packet *a, const struct mqtt_packet *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case MQTT_CONNECT:
        return connect_equal(&a->connect, &b->connect);
    case MQTT_CONNACK:
        return a->connack.session_present == b->connack.session_present &&
               a->connack.reason == b->connack.reason && props_equal(&a->connack.props, &b->connack.props);
    case MQTT_PUBLISH:
        return publish_equal(&a->publish, &b->publish);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return a->ack.packet_id == b->ack.packet_id && a->ack.reason == b->ack.reason &&
               props_equal(&a->ack.props, &b->ack.props);
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
        return a->subscribe.packet_id == b->subscribe.packet_id && a->subscribe.count == b->subscribe.count &&
               props_equal(&a->subscribe.props, &b->subscribe.props) &&
               slice_equal(a->subscribe.topics, b->subscribe.topics);
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        return a->suback.packet_id == b->suback.packet_id &&
               props_equal(&a->suback.props, &b->suback.props) &&
               slice_equal(a->suback.reasons, b->suback.reasons);
    case MQTT_PINGREQ:
    case MQTT_PINGRESP:
        return true;
    case MQTT_DISCONNECT:
    case MQTT_AUTH:
        return a->reasoned.reason == b->reasoned.reason &&
               props_equal(&a->reasoned.props, &b->reasoned.props);
    }
    return false;
}

#endif
