#include "gateway/json_out.h"

#include "core/json.h"
#include "routing/position.h"

void json_out_put(struct json_out *o, struct slice bytes)
{
    if (o->status == ST_OK)
        o->status = buf_put(o->buf, bytes);
}

void json_out_string(struct json_out *o, struct slice text)
{
    if (o->status == ST_OK)
        o->status = json_put_string(o->buf, text);
}

void json_out_number(struct json_out *o, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    json_out_put(o, slice_of(digits + at, sizeof digits - at));
}

void json_out_position(struct json_out *o, uint32_t epoch, unsigned lane, uint64_t offset)
{
    char text[POSITION_BYTES + 2];
    text[0] = text[POSITION_BYTES + 1] = '"';
    position_write(epoch, lane, offset, text + 1);
    json_out_put(o, slice_of(text, sizeof text));
}

void json_out_freshness(struct json_out *o, bool shared, bool stale, uint64_t as_of_ms)
{
    if (!shared)
        return;
    if (stale)
        json_out_literal(o, ",\"stale\":true,\"as_of\":");
    else
        json_out_literal(o, ",\"stale\":false,\"as_of\":");
    if (as_of_ms > 0)
        json_out_number(o, as_of_ms);
    else
        json_out_literal(o, "null");
}
