#include "gateway/mqtt/record.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { LANES = 4 };

static struct buf out;
static struct received_ids received;
static struct flights flights;

static void setup(void)
{
    buf_init(&out, 65536);
    flights_init(&flights, 10);
}

static void teardown(void)
{
    buf_deinit(&out);
    received_deinit(&received);
    flights_deinit(&flights);
}

TestSuite(mqtt_record, .init = setup, .fini = teardown);

static struct record_head head_with_will(void)
{
    return (struct record_head){.epoch = 7,
                                .lanes = LANES,
                                .node_incarnation = 3,
                                .session_incarnation = UINT64_C(0x123456789abcdef0),
                                .releases = 99,
                                .expiry_s = RECORD_NEVER,
                                .expires_ms = 1700000000000,
                                .client_id = slice_cstr("a client"),
                                .unclean = true,
                                .has_will = true,
                                .will = {.delay_s = 5,
                                         .expiry_s = 6,
                                         .due_ms = 1234,
                                         .expires = true,
                                         .qos = 2,
                                         .content = CONTENT_TEXT,
                                         .flags = MSG_RETAIN,
                                         .topic = slice_cstr("w"),
                                         .key = slice_cstr("k"),
                                         .payload = slice_cstr("gone")}};
}

static void put_subscription(const char *filter, bool walking)
{
    struct record_subscription s = {.qos = 1,
                                    .no_local = true,
                                    .walking = walking,
                                    .inbox = !walking,
                                    .subscription_id = 268435455,
                                    .filter = slice_cstr(filter),
                                    .lane_count = LANES};
    for (unsigned i = 0; i < LANES; i++) {
        s.next.next[i] = 1000 + i;
        s.walk.next[i] = i == 2 ? UINT64_MAX : i;
    }
    cr_assert_eq(mqtt_record_put_subscription(&out, &s), ST_OK);
}

static void put_all(void)
{
    const struct record_head head = head_with_will();
    uint16_t id;
    struct flight *flight;
    cr_assert_eq(mqtt_record_begin(&out, &head), ST_OK);
    received_add(&received, 5)->sequence = 50;
    received_find(&received, 5)->state = RECEIVED_STORED;
    received_add(&received, 9)->sequence = 90; /* storing */
    received_add(&received, 11)->state = RECEIVED_RELEASING; /* is left out */
    cr_assert_eq(mqtt_record_put_received(&out, &received), ST_OK);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(flights_take(&flights, &id, &flight), ST_OK);
        flight->qos = (uint8_t)(i == 0 ? 1 : 2);
        flight->state = i == 2 ? FLIGHT_RECEIVED : FLIGHT_SENT;
        flight->flags = i == 0 ? FLIGHT_RETAIN | FLIGHT_COVERED : FLIGHT_INBOX;
        flight->lane = (uint16_t)i;
        flight->offset = UINT64_C(1) << (40 + i);
        flight->subscription_id = i;
    }
    flights_end(&flights, 2);
    cr_assert_eq(mqtt_record_put_flights(&out, &flights), ST_OK);
    put_subscription("x/#", true);
    put_subscription("y/+", false);
}

Test(mqtt_record, gives_back_what_was_put)
{
    struct record_reader r;
    struct record_head h;
    struct received got;
    struct flight flight;
    struct record_subscription s;
    uint16_t id;
    put_all();
    cr_assert_eq(mqtt_record_open(buf_slice(&out), &r, &h), ST_OK);
    cr_expect(h.epoch == 7 && h.lanes == LANES && h.node_incarnation == 3 && h.releases == 99);
    cr_expect(h.session_incarnation == UINT64_C(0x123456789abcdef0) && h.expiry_s == RECORD_NEVER);
    cr_expect(h.expires_ms == 1700000000000 && slice_equal_cstr(h.client_id, "a client"));
    cr_expect(h.unclean && h.has_will && h.will.delay_s == 5 && h.will.expiry_s == 6 &&
              h.will.due_ms == 1234);
    cr_expect(h.will.expires && h.will.qos == 2 && h.will.flags == MSG_RETAIN &&
              h.will.content == CONTENT_TEXT);
    cr_expect(slice_equal_cstr(h.will.topic, "w") && slice_equal_cstr(h.will.key, "k") &&
              slice_equal_cstr(h.will.payload, "gone") && h.will.props.len == 0);
    unsigned seen = 0;
    while (mqtt_record_next_received(&r, &got) == ST_OK) {
        cr_expect(got.id == 5 ? got.sequence == 50 && got.state == RECEIVED_STORED
                              : got.id == 9 && got.sequence == 90 && got.state == RECEIVED_UNSURE);
        seen++;
    }
    cr_expect_eq(seen, 2u);
    cr_assert_eq(mqtt_record_next_flight(&r, &id, &flight), ST_OK);
    cr_expect(id == 1 && flight.qos == 1 && flight.state == FLIGHT_SENT && flight.flags == FLIGHT_RETAIN);
    cr_assert_eq(mqtt_record_next_flight(&r, &id, &flight), ST_OK);
    cr_expect(id == 3 && flight.qos == 2 && flight.state == FLIGHT_RECEIVED && flight.lane == 2 &&
              flight.offset == UINT64_C(1) << 42 && flight.subscription_id == 2 && !flight.open &&
              flight.flags == FLIGHT_INBOX);
    cr_assert_eq(mqtt_record_next_flight(&r, &id, &flight), ST_NOT_FOUND);
    cr_assert_eq(mqtt_record_next_subscription(&r, &s), ST_OK);
    cr_expect(slice_equal_cstr(s.filter, "x/#") && s.walking && !s.inbox && s.no_local &&
              !s.retain_as_published && s.qos == 1);
    cr_expect(s.subscription_id == 268435455 && s.lane_count == LANES && s.next.next[3] == 1003 &&
              s.walk.next[2] == UINT64_MAX);
    cr_assert_eq(mqtt_record_next_subscription(&r, &s), ST_OK);
    cr_expect(slice_equal_cstr(s.filter, "y/+") && !s.walking && s.inbox);
    cr_assert_eq(mqtt_record_next_subscription(&r, &s), ST_NOT_FOUND);
}

Test(mqtt_record, is_of_one_log)
{
    struct slice filters;
    put_all();
    cr_expect(mqtt_record_valid(buf_slice(&out), 7, LANES, &filters));
    cr_expect_not(mqtt_record_valid(buf_slice(&out), 8, LANES, &filters), "of an older epoch");
    cr_expect_not(mqtt_record_valid(buf_slice(&out), 7, LANES + 1, &filters));
}

/* Wherever it is cut, nothing outside is read (the sanitizer looks), and it is only whole where a filter
 * ends. */
Test(mqtt_record, cut_anywhere)
{
    struct slice filters, cut;
    unsigned whole = 0;
    put_all();
    for (size_t len = 0; len <= out.len; len++) {
        uint8_t *copy = malloc(len + 1);
        memcpy(copy, out.data, len);
        cut = slice_of(copy, len);
        whole += mqtt_record_valid(cut, 7, LANES, &filters);
        free(copy);
    }
    cr_expect_eq(whole, 3u, "no filter, one, both");
}

Test(mqtt_record, over_the_limit_nothing_is_added)
{
    const struct record_head head = head_with_will();
    struct buf small;
    buf_init(&small, 60);
    cr_expect_eq(mqtt_record_begin(&small, &head), ST_FULL);
    cr_expect_eq(small.len, 0u);
    buf_deinit(&small);
}
