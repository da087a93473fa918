#include "gateway/ws/reply.h"

#include "gateway/json_out.h"
#include "gateway/message_json.h"
#include "gateway/presence_json.h"

static void put_bookmark(struct json_out *o, uint32_t epoch, const struct place *place)
{
    char text[BOOKMARK_BYTES_MAX + 2];
    text[0] = '"';
    size_t len = bookmark_write(epoch, place, text + 1);
    text[1 + len] = '"';
    json_out_put(o, slice_of(text, len + 2));
}

/* Opens the object, with `"id":n,` if there is one. */
static struct json_out begin(struct buf *buf, struct ws_id id)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{");
    if (id.given) {
        json_out_literal(&o, "\"id\":");
        json_out_number(&o, id.value);
        json_out_literal(&o, ",");
    }
    return o;
}

static void put_message(struct json_out *o, uint32_t epoch, const struct msg *m, bool retained)
{
    if (o->status == ST_OK)
        o->status = message_json_put(o->buf, epoch, m, retained);
}

/* --- deliveries --------------------------------------------------------------------------------- */

enum status ws_put_delivery(struct buf *buf, uint32_t epoch, const struct msg *m, bool retained,
                            const struct slice *filter)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{");
    if (filter) {
        json_out_literal(&o, "\"sub\":");
        json_out_string(&o, *filter);
        json_out_literal(&o, ",");
    }
    json_out_literal(&o, "\"msg\":");
    put_message(&o, epoch, m, retained);
    json_out_literal(&o, "}");
    return o.status;
}

/* --- answers --- */

enum status ws_put_hello(struct buf *buf, struct ws_id id, const struct ws_hello *h)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":{\"session\":");
    json_out_string(&o, slice_cstr(h->session));
    json_out_put(&o, slice_cstr(h->resumed ? ",\"resumed\":true" : ",\"resumed\":false"));
    json_out_literal(&o, ",\"lost\":[");
    json_out_put(&o, h->lost);
    json_out_literal(&o, "]");
    if (h->user.len > 0) {
        json_out_literal(&o, ",\"user\":");
        json_out_string(&o, h->user);
    }
    if (h->inbox.len > 0) {
        json_out_literal(&o, ",\"inbox\":");
        json_out_string(&o, h->inbox);
    }
    json_out_literal(&o, ",\"node\":");
    json_out_string(&o, slice_cstr(h->node));
    json_out_literal(&o, ",\"ping_ms\":");
    json_out_number(&o, h->ping_ms);
    json_out_literal(&o, ",\"max_bytes\":");
    json_out_number(&o, h->max_bytes);
    json_out_literal(
        &o, ",\"features\":[\"sub\",\"unsub\",\"pub\",\"get\",\"get.reverse\",\"from.earliest\","
            "\"from.after\",\"from.time\",\"from.last\",\"mode.all\",\"key\",\"ttl\",\"retain\",\"producer\","
            "\"ack\",\"window\",\"credit\",\"session\",\"after\",\"token\",\"auth\",\"who\",\"inbox\"]}}");
    return o.status;
}

enum status ws_put_subscribed(struct buf *buf, struct ws_id id, struct slice filter, uint32_t epoch,
                              const struct place *at, uint64_t replay)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, ",\"pos\":");
    put_bookmark(&o, epoch, at);
    json_out_literal(&o, ",\"replay\":");
    json_out_number(&o, replay);
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_unsubscribed(struct buf *buf, struct ws_id id, struct slice filter)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_end(struct buf *buf, struct slice filter, const char *code, const char *detail)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{\"end\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, ",\"code\":");
    json_out_string(&o, slice_cstr(code));
    json_out_literal(&o, ",\"detail\":");
    json_out_string(&o, slice_cstr(detail));
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_authenticated(struct buf *buf, struct ws_id id, struct slice user)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":{\"user\":");
    json_out_string(&o, user);
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_live(struct buf *buf, struct slice filter, uint32_t epoch, const struct place *at)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{\"live\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, ",\"pos\":");
    put_bookmark(&o, epoch, at);
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_published(struct buf *buf, struct ws_id id, uint32_t epoch, const struct msg *m,
                             bool duplicate)
{
    struct json_out o = begin(buf, id);
    if (m->flags & MSG_UNSTORED) {
        json_out_literal(&o, "\"ok\":{\"stored\":false,\"dup\":false}}");
        return o.status;
    }
    json_out_literal(&o, "\"ok\":{\"pos\":");
    json_out_position(&o, epoch, m->partition, m->offset);
    json_out_put(&o, slice_cstr(duplicate ? ",\"dup\":true}}" : ",\"dup\":false}}"));
    return o.status;
}

enum status ws_put_page(struct buf *buf, struct ws_id id, struct slice topic, uint32_t epoch,
                        struct msg *const *msgs, uint64_t count, const struct place *next)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":{\"topic\":");
    json_out_string(&o, topic);
    json_out_literal(&o, ",\"messages\":[");
    for (uint64_t i = 0; i < count && o.status == ST_OK; i++) {
        if (i > 0)
            json_out_literal(&o, ",");
        put_message(&o, epoch, msgs[i], false);
    }
    json_out_literal(&o, "],\"next\":");
    put_bookmark(&o, epoch, next);
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_presence(struct buf *buf, struct ws_id id, const struct presence *p)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"ok\":");
    presence_json_put(&o, p);
    json_out_literal(&o, "}");
    return o.status;
}

enum status ws_put_gap(struct buf *buf, struct slice filter, uint32_t epoch, const struct gap *gap)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{\"gap\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, ",\"from\":");
    json_out_position(&o, epoch, gap->lane, gap->from);
    json_out_literal(&o, ",\"to\":");
    json_out_position(&o, epoch, gap->lane, gap->to);
    json_out_literal(&o, ",\"count\":");
    json_out_number(&o, gap->count);
    json_out_literal(&o, ",\"why\":");
    json_out_string(&o, slice_cstr(gap->why));
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_gap_from(struct buf *buf, struct slice filter, struct slice from, const char *why)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{\"gap\":{\"topic\":");
    json_out_string(&o, filter);
    json_out_literal(&o, ",\"from\":");
    json_out_string(&o, from);
    json_out_literal(&o, ",\"why\":");
    json_out_string(&o, slice_cstr(why));
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_error(struct buf *buf, struct ws_id id, const struct ws_error *e)
{
    struct json_out o = begin(buf, id);
    json_out_literal(&o, "\"err\":{\"code\":");
    json_out_string(&o, slice_cstr(e->code));
    if (e->retry_ms > 0) {
        json_out_literal(&o, ",\"retry_ms\":");
        json_out_number(&o, e->retry_ms);
    }
    if (e->temporary)
        json_out_literal(&o, ",\"temporary\":true");
    if (e->unknown)
        json_out_literal(&o, ",\"unknown\":true");
    if (e->earliest) {
        json_out_literal(&o, ",\"earliest\":");
        json_out_string(&o, slice_cstr(e->earliest));
    }
    if (e->next) {
        json_out_literal(&o, ",\"next\":");
        json_out_string(&o, slice_cstr(e->next));
    }
    if (e->detail) {
        json_out_literal(&o, ",\"detail\":");
        json_out_string(&o, slice_cstr(e->detail));
    }
    json_out_literal(&o, "}}");
    return o.status;
}

enum status ws_put_bye(struct buf *buf, uint16_t code, const char *why, uint64_t retry_ms)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    json_out_literal(&o, "{\"bye\":{\"code\":");
    json_out_number(&o, code);
    json_out_literal(&o, ",\"why\":");
    json_out_string(&o, slice_cstr(why));
    if (retry_ms > 0) {
        json_out_literal(&o, ",\"retry_ms\":");
        json_out_number(&o, retry_ms);
    }
    json_out_literal(&o, "}}");
    return o.status;
}
