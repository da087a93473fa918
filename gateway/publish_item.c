/* The object is walked once, by a table of members. The walk checks every value on its way, so an object
 * that is broken anywhere is refused as a whole, whatever was read of it before.
 *
 * Decoded strings go into one buffer that is reserved to twice the object's length before the first is
 * decoded, so that slices into it stay where they are (gateway/ws/request.c does the same). */
#include "gateway/publish_item.h"

#include "core/base64.h"
#include "core/json.h"
#include "core/utf8.h"

#include <assert.h>

struct parse {
    struct publish_item *item;
    struct buf *texts;
    enum status status; /* ST_NO_MEMORY is the only trouble that is not the client's */
};

static void refuse(struct publish_item *item, const char *code, const char *detail)
{
    if (item->refused)
        return;
    item->refused = code;
    item->detail = detail;
}

static void bad(struct parse *p, const char *detail)
{
    refuse(p->item, "bad_request", detail);
}

static bool read_text(struct parse *p, struct json_value v, struct slice *out)
{
    size_t before = p->texts->len;
    if (v.type != JSON_IS_STRING)
        return false;
    enum status st = json_text(v, p->texts);
    if (st != ST_OK) {
        p->status = st == ST_INVALID ? p->status : ST_NO_MEMORY;
        return false;
    }
    /* Not NULL even when empty: a member that is there. */
    *out = slice_of(p->texts->data + before, p->texts->len - before);
    return true;
}

static void read_topic(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->item->topic))
        bad(p, "topic must be a string");
}

static void read_key(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->item->key) || !utf8_valid_mqtt(p->item->key))
        bad(p, "key must be a string without U+0000");
}

static void read_type(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->item->type) || !utf8_valid_mqtt(p->item->type) ||
        p->item->type.len > ITEM_TYPE_BYTES_MAX)
        bad(p, "type must be a string of at most 1,024 bytes without U+0000");
}

static void read_ttl(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->item->ttl_ms) != ST_OK || p->item->ttl_ms == 0)
        bad(p, "ttl_ms must be an integer from 1 to 2^53-1");
}

static void read_retain(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_TRUE && v.type != JSON_IS_FALSE)
        bad(p, "retain must be true or false");
    p->item->retain = v.type == JSON_IS_TRUE;
}

static void read_producer(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->item->producer) || !once_name_valid(p->item->producer))
        bad(p, "producer must be a string of 1 to 255 bytes without U+0000");
}

static void read_sequence(struct parse *p, struct json_value v)
{
    p->item->has_sequence = true;
    if (json_uint(v, &p->item->sequence) != ST_OK)
        bad(p, "seq must be an integer from 0 to 2^53-1");
}

static void read_once_key(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->item->once_key) || !once_name_valid(p->item->once_key))
        bad(p, "idempotency_key must be a string of 1 to 255 bytes without U+0000");
}

static void read_refused(struct parse *p, struct json_value v)
{
    (void)v;
    refuse(p->item, "unsupported", "deliver_at is not in this build");
}

/* --- payload ------------------------------------------------------------------------------------ */

static void set_payload(struct parse *p, enum content_class content)
{
    if (p->item->has_payload)
        bad(p, "one of data, text and b64 only");
    p->item->has_payload = true;
    p->item->content = content;
}

static void read_data(struct parse *p, struct json_value v)
{
    set_payload(p, CONTENT_JSON);
    p->item->payload = v.raw;
}

static void read_payload_text(struct parse *p, struct json_value v)
{
    set_payload(p, CONTENT_TEXT);
    if (!read_text(p, v, &p->item->payload))
        bad(p, "text must be a string");
}

static void read_b64(struct parse *p, struct json_value v)
{
    struct slice text;
    set_payload(p, CONTENT_BINARY);
    if (!read_text(p, v, &text)) {
        bad(p, "b64 must be a string");
        return;
    }
    size_t before = p->texts->len;
    enum status st = base64_decode(text, p->texts);
    if (st == ST_OK)
        p->item->payload = slice_of(p->texts->data + before, p->texts->len - before);
    else if (st == ST_INVALID)
        bad(p, "b64 is not canonical base64");
    else
        p->status = ST_NO_MEMORY;
}

/* --- the whole ---------------------------------------------------------------------------------- */

static const struct member {
    const char *name;
    void (*read)(struct parse *p, struct json_value v);
} members[] = {
    {"topic", read_topic},
    {"data", read_data},
    {"text", read_payload_text},
    {"b64", read_b64},
    {"key", read_key},
    {"type", read_type},
    {"ttl_ms", read_ttl},
    {"retain", read_retain},
    {"producer", read_producer},
    {"seq", read_sequence},
    {"idempotency_key", read_once_key},
    {"deliver_at", read_refused},
};
enum { MEMBER_COUNT = sizeof members / sizeof members[0] };

static void read_member(struct parse *p, struct slice key, struct json_value value, uint32_t *seen)
{
    for (unsigned i = 0; i < MEMBER_COUNT; i++) {
        if (!json_key_is(key, members[i].name))
            continue;
        if (*seen & 1u << i)
            bad(p, "a member stands twice");
        *seen |= 1u << i;
        /* data may be null: that is a value like any other */
        if (value.type != JSON_IS_NULL || members[i].read == read_data)
            members[i].read(p, value);
        return;
    }
    bad(p, "there is a member that no message has; there are topic, data, text, b64, key, type, ttl_ms, "
           "retain, producer, seq and idempotency_key");
}

static void check_complete(struct parse *p)
{
    const struct publish_item *item = p->item;
    if (!item->topic.data)
        bad(p, "topic is missing");
    else if (!item->has_payload)
        bad(p, "one of data, text and b64 is wanted");
    else if ((item->producer.data != NULL) != item->has_sequence)
        bad(p, "producer and seq go together");
    else if (item->producer.data && item->once_key.data)
        bad(p, "a producer or an idempotency_key, not both");
}

enum status publish_item_parse(struct slice object, struct buf *texts, struct publish_item *out)
{
    struct parse p = {.item = out, .texts = texts, .status = ST_OK};
    size_t place = 0;
    uint32_t seen = 0;
    struct slice key;
    struct json_value value;
    enum status st = ST_INVALID;
    assert(texts->limit >= 2 * object.len);
    *out = (struct publish_item){0};
    buf_clear(texts);
    if (object.len > 0 && !buf_reserve(texts, 2 * object.len))
        return ST_NO_MEMORY;
    while (object.len > 0 && p.status == ST_OK && (st = json_member(object, &place, &key, &value)) == ST_OK)
        read_member(&p, key, value, &seen);
    if (p.status != ST_OK)
        return p.status;
    if (st == ST_NOT_FOUND) {
        check_complete(&p);
    } else {
        *out = (struct publish_item){0}; /* what was wrong before is not what is wrong */
        bad(&p, "a message must be one JSON object, at most 64 levels deep");
    }
    return ST_OK;
}

size_t publish_item_props(const struct publish_item *item, struct slice principal, uint8_t *out)
{
    size_t len = 0;
    struct once_id id = {.principal = principal};
    assert(item->type.len <= ITEM_TYPE_BYTES_MAX);
    if (item->type.len > 0)
        len = props_put(out, PROP_CONTENT_TYPE, item->type);
    if (item->has_sequence) {
        id.kind = ONCE_PRODUCER;
        id.name = item->producer;
        id.value = item->sequence;
    } else if (item->once_key.data) {
        id.kind = ONCE_KEY;
        id.name = item->once_key;
        id.value = once_digest(item->payload, item->type, item->key, item->retain);
    }
    return id.name.len > 0 ? len + once_id_write(&id, out + len) : len;
}

void publish_item_mark(const struct publish_item *item, uint64_t wall_ms, struct msg *m)
{
    bool once = item->has_sequence || item->once_key.data;
    m->content = (uint8_t)item->content;
    m->qos = 1;
    m->flags = (uint8_t)(MSG_TYPE_GIVEN | (item->retain ? MSG_RETAIN : 0) | (once ? MSG_ONCE : 0));
    m->expires_ms = item->ttl_ms > 0 ? wall_ms + item->ttl_ms : 0;
}
