#include "gateway/mqtt/refusal.h"

#include <criterion/criterion.h>
#include <string.h>

struct row {
    const char *bytes;
    size_t len;
    enum status status;
    uint8_t level;
};
#define BYTES(text) text, sizeof text - 1

static const struct row rows[] = {
    {BYTES("\x10\x0c\0\4MQTT\5"), ST_OK, 5},
    {BYTES("\x10\x0c\0\4MQTT\4"), ST_OK, 4},
    {BYTES("\x10\x0e\0\6MQIsdp\3"), ST_OK, 3},
    {BYTES("\x10\xff\xff\xff\x7f\0\6MQIsdp\3"), ST_OK, 3},
    {BYTES("\x10\xff\xff\xff\xff\0\4MQTT\5"), ST_INVALID, 0},
    {BYTES("\x11\x0c\0\4MQTT\5"), ST_INVALID, 0},
    {BYTES("GET / HTTP"), ST_INVALID, 0},
    {BYTES("\x10\x0c\0\4MQTX\5"), ST_INVALID, 0},
    {BYTES("\x10\x0c\0\6MQTT\5 "), ST_INVALID, 0},
    {BYTES("\x10\x0c\1\4MQTT\5"), ST_INVALID, 0},
};

Test(mqtt_refusal, knows_the_level_from_the_first_bytes)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t level = 0;
        enum status st = mqtt_refusal_level(slice_of(rows[i].bytes, rows[i].len), &level);
        cr_assert_eq(st, rows[i].status, "row %zu: %s", i, status_name(st));
        cr_assert_eq(level, rows[i].level, "row %zu: %u", i, level);
        cr_assert_leq(rows[i].len, MQTT_REFUSAL_HEAD_BYTES);
    }
}

Test(mqtt_refusal, waits_for_more_at_every_cut)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t len = 0; rows[i].status == ST_OK && len < rows[i].len; len++) {
            uint8_t level = 0;
            cr_assert_eq(mqtt_refusal_level(slice_of(rows[i].bytes, len), &level), ST_AGAIN, "row %zu at %zu",
                         i, len);
        }
    }
}
