/* Objects are put together by hand, in one pass, with no tree between. A `struct out` carries the first
 * error, so that an encoder reads as the list of what it writes; nobody looks at a buffer after one. */
#include "gateway/ws/reply.h"

#include "core/json.h"
#include "gateway/message_json.h"

struct out {
    struct buf *buf;
    enum status status;
};

static void put(struct out *o, struct slice bytes)
{
    if (o->status == ST_OK)
        o->status = buf_put(o->buf, bytes);
}

#define put_literal(o, text) put(o, slice_of("" text, sizeof text - 1))

static void put_string(struct out *o, struct slice text)
{
    if (o->status == ST_OK)
        o->status = json_put_string(o->buf, text);
}

static void put_number(struct out *o, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    put(o, slice_of(digits + at, sizeof digits - at));
}

static void put_position(struct out *o, uint32_t epoch, unsigned lane, uint64_t offset)
{
    char text[POSITION_BYTES + 2];
    text[0] = text[POSITION_BYTES + 1] = '"';
    position_write(epoch, lane, offset, text + 1);
    put(o, slice_of(text, sizeof text));
}

static void put_bookmark(struct out *o, uint32_t epoch, const struct place *place)
{
    char text[BOOKMARK_BYTES_MAX + 2];
    text[0] = '"';
    size_t len = bookmark_write(epoch, place, text + 1);
    text[1 + len] = '"';
    put(o, slice_of(text, len + 2));
}

/* Opens the object, with `"id":n,` if there is one. */
static struct out begin(struct buf *buf, struct ws_id id)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{");
    if (id.given) {
        put_literal(&o, "\"id\":");
        put_number(&o, id.value);
        put_literal(&o, ",");
    }
    return o;
}

static void put_message(struct out *o, uint32_t epoch, const struct msg *m, bool retained)
{
    if (o->status == ST_OK)
        o->status = message_json_put(o->buf, epoch, m, retained);
}

/* --- deliveries --------------------------------------------------------------------------------- */

enum status ws_put_delivery(struct buf *buf, uint32_t epoch, const struct msg *m, bool retained,
                            const struct slice *filter)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{");
    if (filter) {
        put_literal(&o, "\"sub\":");
        put_string(&o, *filter);
        put_literal(&o, ",");
    }
    put_literal(&o, "\"msg\":");
    put_message(&o, epoch, m, retained);
    put_literal(&o, "}");
    return o.status;
}

/* --- answers --- */

enum status ws_put_hello(struct buf *buf, struct ws_id id, const struct ws_hello *h)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"ok\":{\"node\":");
    put_string(&o, slice_cstr(h->node));
    put_literal(&o, ",\"ping_ms\":");
    put_number(&o, h->ping_ms);
    put_literal(&o, ",\"max_bytes\":");
    put_number(&o, h->max_bytes);
    put_literal(&o, ",\"features\":[\"sub\",\"unsub\",\"pub\",\"get\",\"from.earliest\",\"from.after\","
                    "\"mode.all\",\"key\",\"ttl\",\"retain\"]}}");
    return o.status;
}

enum status ws_put_subscribed(struct buf *buf, struct ws_id id, struct slice filter, uint32_t epoch,
                              const struct place *at, uint64_t replay)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"ok\":{\"topic\":");
    put_string(&o, filter);
    put_literal(&o, ",\"pos\":");
    put_bookmark(&o, epoch, at);
    put_literal(&o, ",\"replay\":");
    put_number(&o, replay);
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_unsubscribed(struct buf *buf, struct ws_id id, struct slice filter)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"ok\":{\"topic\":");
    put_string(&o, filter);
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_live(struct buf *buf, struct slice filter, uint32_t epoch, const struct place *at)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{\"live\":{\"topic\":");
    put_string(&o, filter);
    put_literal(&o, ",\"pos\":");
    put_bookmark(&o, epoch, at);
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_published(struct buf *buf, struct ws_id id, uint32_t epoch, const struct msg *m)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"ok\":{\"pos\":");
    put_position(&o, epoch, m->partition, m->offset);
    put_literal(&o, ",\"dup\":false}}");
    return o.status;
}

enum status ws_put_page(struct buf *buf, struct ws_id id, struct slice topic, uint32_t epoch,
                        struct msg *const *msgs, uint64_t count, const struct place *next)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"ok\":{\"topic\":");
    put_string(&o, topic);
    put_literal(&o, ",\"messages\":[");
    for (uint64_t i = 0; i < count && o.status == ST_OK; i++) {
        if (i > 0)
            put_literal(&o, ",");
        put_message(&o, epoch, msgs[i], false);
    }
    put_literal(&o, "],\"next\":");
    put_bookmark(&o, epoch, next);
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_gap(struct buf *buf, struct slice filter, uint32_t epoch, unsigned lane, uint64_t from,
                       uint64_t to, const char *why)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{\"gap\":{\"topic\":");
    put_string(&o, filter);
    put_literal(&o, ",\"from\":");
    put_position(&o, epoch, lane, from);
    put_literal(&o, ",\"to\":");
    put_position(&o, epoch, lane, to);
    put_literal(&o, ",\"count\":");
    put_number(&o, to - from + 1);
    put_literal(&o, ",\"why\":");
    put_string(&o, slice_cstr(why));
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_gap_from(struct buf *buf, struct slice filter, struct slice from, const char *why)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{\"gap\":{\"topic\":");
    put_string(&o, filter);
    put_literal(&o, ",\"from\":");
    put_string(&o, from);
    put_literal(&o, ",\"why\":");
    put_string(&o, slice_cstr(why));
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_error(struct buf *buf, struct ws_id id, const struct ws_error *e)
{
    struct out o = begin(buf, id);
    put_literal(&o, "\"err\":{\"code\":");
    put_string(&o, slice_cstr(e->code));
    if (e->retry_ms > 0) {
        put_literal(&o, ",\"retry_ms\":");
        put_number(&o, e->retry_ms);
    }
    if (e->temporary)
        put_literal(&o, ",\"temporary\":true");
    if (e->earliest) {
        put_literal(&o, ",\"earliest\":");
        put_string(&o, slice_cstr(e->earliest));
    }
    if (e->detail) {
        put_literal(&o, ",\"detail\":");
        put_string(&o, slice_cstr(e->detail));
    }
    put_literal(&o, "}}");
    return o.status;
}

enum status ws_put_bye(struct buf *buf, uint16_t code, const char *why, uint64_t retry_ms)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{\"bye\":{\"code\":");
    put_number(&o, code);
    put_literal(&o, ",\"why\":");
    put_string(&o, slice_cstr(why));
    if (retry_ms > 0) {
        put_literal(&o, ",\"retry_ms\":");
        put_number(&o, retry_ms);
    }
    put_literal(&o, "}}");
    return o.status;
}
