/* What a frame holds is read back by the decoder of packets, which knows nothing of how it was made. */
#include "gateway/mqtt/frame.h"

#include "gateway/mqtt/packet.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const uint8_t props[] = {PROP_CONTENT_TYPE, 1, 0, 't', PROP_USER,           4, 0, 1,  0, 'n', 'v',
                                PROP_PRODUCER,     1, 0, 'x', PROP_RESPONSE_TOPIC, 1, 0, 'r'};

static struct msg *make(struct slice payload)
{
    struct msg *m;
    cr_assert_eq(
        msg_create(slice_cstr("a/topic"), slice_cstr("key"), slice_of(props, sizeof props), payload, &m),
        ST_OK);
    m->flags = MSG_PFI_UTF8;
    m->expires_ms = 10500;
    return m;
}

static struct mqtt_packet read_back(struct slice frame, uint8_t version)
{
    const struct mqtt_decode_rules rules = {
        .version = version, .packet_bytes_max = UINT32_MAX, .from_server = true};
    struct mqtt_packet p;
    size_t used;
    uint8_t reason;
    cr_assert_eq(mqtt_decode(frame, &rules, &p, &used, &reason), ST_OK, "reason %02x", reason);
    cr_assert_eq(used, frame.len);
    cr_assert_eq(p.type, MQTT_PUBLISH);
    return p;
}

static void check(const struct frame_shape *shape, struct slice payload)
{
    struct msg *m = make(payload);
    struct frame_plan plan;
    cr_assert(frame_plan(m, shape, 2000, &plan));
    uint8_t *frame = malloc(plan.bytes);
    frame_write(m, &plan, frame);
    struct mqtt_packet p = read_back(slice_of(frame, plan.bytes), shape->version);
    const struct mqtt_publish *got = &p.publish;
    cr_expect(shape->topic_known ? got->topic.len == 0 : slice_equal_cstr(got->topic, "a/topic"));
    cr_expect(slice_equal(got->payload, payload));
    cr_expect_eq(got->qos, shape->qos);
    cr_expect_eq(got->retain, shape->retain);
    cr_expect_eq(got->dup, shape->dup);
    cr_expect_eq(got->packet_id, shape->packet_id);
    if (shape->version == MQTT_V5) {
        cr_expect_eq(got->props.subscription_id, shape->subscription_id);
        cr_expect_eq(got->props.topic_alias, shape->alias);
        cr_expect_eq(got->props.message_expiry_s, 9); /* 8.5 s, rounded up */
        cr_expect_eq(got->props.payload_format, 1);
        cr_expect(slice_equal_cstr(got->props.content_type, "t"));
        cr_expect(slice_equal_cstr(got->props.response_topic, "r"));
        cr_expect_eq(got->props.correlation.len, 0u);
        cr_expect(got->props.present & MQTT_HAS_USER_PROPERTY);
    }
    free(frame);
    msg_unref(m);
}

Test(mqtt_frame, holds_what_the_shape_says)
{
    static uint8_t large[200000];
    const struct slice payloads[] = {slice_cstr(""), slice_cstr("hello"), slice_of(large, 127),
                                     slice_of(large, 16384), slice_of(large, sizeof large)};
    for (unsigned i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        for (uint8_t version = MQTT_V31; version <= MQTT_V5; version++) {
            for (uint8_t qos = 0; qos <= 2; qos++) {
                struct frame_shape s = {.version = version, .qos = qos, .packet_id = qos ? 0x1234 : 0};
                check(&s, payloads[i]);
                s.retain = true;
                s.dup = qos > 0;
                check(&s, payloads[i]);
            }
        }
        const struct frame_shape v5[] = {
            {.version = MQTT_V5, .subscription_id = 1},
            {.version = MQTT_V5, .subscription_id = 268435455, .qos = 2, .packet_id = 65535},
            {.version = MQTT_V5, .alias = 7},
            {.version = MQTT_V5, .alias = 7, .topic_known = true, .qos = 1, .packet_id = 1},
        };
        for (unsigned k = 0; k < sizeof v5 / sizeof v5[0]; k++)
            check(&v5[k], payloads[i]);
    }
}

Test(mqtt_frame, a_shared_frame_is_stamped)
{
    struct msg *m = make(slice_cstr("payload"));
    const struct frame_shape shared = {.version = MQTT_V5, .qos = 1};
    const struct frame_shape mine = {
        .version = MQTT_V5, .qos = 2, .packet_id = 0xABCD, .retain = true, .dup = true};
    struct frame_plan plan;
    uint8_t frame[256];
    cr_assert(frame_plan(m, &shared, 2000, &plan) && plan.bytes <= sizeof frame);
    frame_write(m, &plan, frame);
    frame_stamp(frame, m, &mine);
    struct mqtt_packet p = read_back(slice_of(frame, plan.bytes), MQTT_V5);
    cr_expect(p.publish.qos == 2 && p.publish.packet_id == 0xABCD && p.publish.retain && p.publish.dup);
    cr_expect(slice_equal_cstr(p.publish.topic, "a/topic") && slice_equal_cstr(p.publish.payload, "payload"));
    msg_unref(m);
}
