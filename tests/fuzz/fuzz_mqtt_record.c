/* part: mqtt */
/* The record of an MQTT session, as it is read from the log. Property: what is read, written again, is the
 * same bytes. */
#include "gateway/mqtt/record.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool claim)
{
    if (!claim)
        abort();
}

/* Identifiers of QoS 2 from the client stand in any order: their number must fit. */
static bool put_received(struct record_reader *r, struct buf *out)
{
    struct received_ids ids = {0};
    struct received got;
    enum status st;
    while ((st = mqtt_record_next_received(r, &got)) == ST_OK) {
        struct received *to = received_find(&ids, got.id) ? NULL : received_add(&ids, got.id);
        if (!to)
            break;
        *to = got;
    }
    bool whole = st == ST_NOT_FOUND && mqtt_record_put_received(out, &ids) == ST_OK;
    received_deinit(&ids);
    return whole;
}

static bool put_flights(struct record_reader *r, struct buf *out)
{
    struct flights flights;
    struct flight got;
    enum status st;
    uint16_t id;
    flights_init(&flights, 1);
    while ((st = mqtt_record_next_flight(r, &id, &got)) == ST_OK)
        if (flights_restore(&flights, id, &got) != ST_OK)
            break;
    bool whole = st == ST_NOT_FOUND && mqtt_record_put_flights(out, &flights) == ST_OK;
    flights_deinit(&flights);
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record_reader r;
    struct record_head head;
    struct record_subscription s;
    struct buf out;
    enum status st;
    if (mqtt_record_open(slice_of(data, size), &r, &head) != ST_OK)
        return 0;
    buf_init(&out, size + 64);
    check(mqtt_record_begin(&out, &head) == ST_OK);
    check(out.len <= size && memcmp(out.data, data, out.len) == 0);
    if (put_received(&r, &out) && put_flights(&r, &out)) {
        while ((st = mqtt_record_next_subscription(&r, &s)) == ST_OK)
            check(mqtt_record_put_subscription(&out, &s) == ST_OK);
        check(st != ST_NOT_FOUND || out.len == size);
    }
    buf_deinit(&out);
    return 0;
}
