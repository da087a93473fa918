/* Objects are put together by hand, in one pass, with no tree between. A `struct out` carries the first
 * error, so that an encoder reads as the list of what it writes; nobody looks at a buffer after one. */
#include "gateway/ws/reply.h"

#include "core/base64.h"
#include "core/json.h"

#include <stdlib.h>

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

/* --- messages --- */

static bool user_property(struct slice value, struct slice *name, struct slice *text)
{
    if (value.len < 2)
        return false;
    size_t name_len = (size_t)value.data[0] | (size_t)value.data[1] << 8;
    if (name_len > value.len - 2)
        return false;
    *name = slice_of(value.data + 2, name_len);
    *text = slice_from(value, 2 + name_len);
    return true;
}

struct user {
    struct slice name, text;
};
enum { USERS_ON_STACK = 32 };

/* The next user property from *place on. */
static bool next_user(struct slice props, size_t *place, struct user *out)
{
    enum msg_prop type;
    struct slice value;
    while (props_next(props, place, &type, &value))
        if (type == PROP_USER && user_property(value, &out->name, &out->text))
            return true;
    return false;
}

/* By name; equal names in the order they were given, which is that of their bytes in memory. */
static int compare_users(const void *left, const void *right)
{
    const struct user *a = left, *b = right;
    size_t len = a->name.len < b->name.len ? a->name.len : b->name.len;
    int order = memcmp(a->name.data, b->name.data, len);
    if (order != 0)
        return order;
    if (a->name.len != b->name.len)
        return a->name.len < b->name.len ? -1 : 1;
    return a->name.data < b->name.data ? -1 : 1;
}

static void put_users(struct out *o, const struct user *users, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && slice_equal(users[end].name, users[i].name);)
            end++;
        if (i > 0)
            put_literal(o, ",");
        put_string(o, users[i].name);
        put_literal(o, ":");
        if (end > i + 1)
            put_literal(o, "[");
        for (size_t at = i; at < end; at++) {
            if (at > i)
                put_literal(o, ",");
            put_string(o, users[at].text);
        }
        if (end > i + 1)
            put_literal(o, "]");
    }
}

/* ,"props":{...}, or nothing when there is no user property. They are sorted to bring equal names
 * together: a stranger may send 13,000 of them, so comparing each with each is out of the question. */
static void put_props(struct out *o, struct slice props)
{
    struct user few[USERS_ON_STACK], *users = few;
    size_t place = 0, count = 0, at = 0;
    struct user one;
    while (next_user(props, &place, &one))
        count++;
    if (count == 0 || o->status != ST_OK)
        return;
    if (count > USERS_ON_STACK && !(users = malloc(count * sizeof *users))) {
        o->status = ST_NO_MEMORY;
        return;
    }
    for (place = 0; at < count && next_user(props, &place, &users[at]);)
        at++;
    qsort(users, at, sizeof *users, compare_users);
    put_literal(o, ",\"props\":{");
    put_users(o, users, at);
    put_literal(o, "}");
    if (users != few)
        free(users);
}

static void put_payload(struct out *o, const struct msg *m)
{
    struct slice payload = msg_payload(m);
    switch ((enum content_class)m->content) {
    case CONTENT_JSON:
        put_literal(o, ",\"data\":");
        if (o->status == ST_OK)
            o->status = json_put_embedded(o->buf, payload);
        break;
    case CONTENT_TEXT:
        put_literal(o, ",\"text\":");
        put_string(o, payload);
        break;
    case CONTENT_BINARY:
    default:
        put_literal(o, ",\"b64\":\"");
        if (o->status == ST_OK)
            o->status = base64_encode(payload, o->buf);
        put_literal(o, "\"");
        break;
    }
}

static void put_message(struct out *o, uint32_t epoch, const struct msg *m)
{
    put_literal(o, "{\"topic\":");
    put_string(o, msg_topic(m));
    put_literal(o, ",\"pos\":");
    put_position(o, epoch, m->partition, m->offset);
    put_literal(o, ",\"ts\":");
    put_number(o, m->ts_ms);
    if (m->key_len > 0) {
        put_literal(o, ",\"key\":");
        put_string(o, msg_key(m));
    }
    struct slice type;
    if (m->props_len > 0 && props_find(msg_props(m), PROP_CONTENT_TYPE, &type)) {
        put_literal(o, ",\"type\":");
        put_string(o, type);
    }
    if (m->props_len > 0)
        put_props(o, msg_props(m));
    put_payload(o, m);
    put_literal(o, "}");
}

enum status ws_put_message(struct buf *buf, uint32_t epoch, const struct msg *m)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_message(&o, epoch, m);
    return o.status;
}

enum status ws_put_delivery(struct buf *buf, uint32_t epoch, const struct msg *m, const struct slice *filter)
{
    struct out o = {.buf = buf, .status = ST_OK};
    put_literal(&o, "{");
    if (filter) {
        put_literal(&o, "\"sub\":");
        put_string(&o, *filter);
        put_literal(&o, ",");
    }
    put_literal(&o, "\"msg\":");
    put_message(&o, epoch, m);
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
                    "\"mode.all\",\"key\",\"ttl\"]}}");
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
        put_message(&o, epoch, msgs[i]);
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
