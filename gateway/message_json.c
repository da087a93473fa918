#include "gateway/message_json.h"

#include "core/base64.h"
#include "core/json.h"
#include "gateway/json_out.h"

#include <stdlib.h>

/* --- user properties ---------------------------------------------------------------------------- */

struct user {
    struct slice name, text;
};
enum { USERS_ON_STACK = 32 };

static bool user_property(struct slice value, struct user *out)
{
    if (value.len < 2)
        return false;
    size_t name_len = (size_t)value.data[0] | (size_t)value.data[1] << 8;
    if (name_len > value.len - 2)
        return false;
    out->name = slice_of(value.data + 2, name_len);
    out->text = slice_from(value, 2 + name_len);
    return true;
}

/* The next user property from *place on. */
static bool next_user(struct slice props, size_t *place, struct user *out)
{
    enum msg_prop type;
    struct slice value;
    while (props_next(props, place, &type, &value))
        if (type == PROP_USER && user_property(value, out)) {
            return true;
        } else if (type == PROP_TRACE) { /* as any property, under the name of its HTTP field */
            *out = (struct user){slice_cstr("traceparent"), value};
            return true;
        }
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

static void put_users(struct json_out *o, const struct user *users, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && slice_equal(users[end].name, users[i].name);)
            end++;
        if (i > 0)
            json_out_literal(o, ",");
        json_out_string(o, users[i].name);
        json_out_literal(o, ":");
        if (end > i + 1)
            json_out_literal(o, "[");
        for (size_t at = i; at < end; at++) {
            if (at > i)
                json_out_literal(o, ",");
            json_out_string(o, users[at].text);
        }
        if (end > i + 1)
            json_out_literal(o, "]");
    }
}

/* ,"props":{...}, or nothing when there is no user property. They are sorted to bring equal names
 * together: a stranger may send 13,000 of them, so comparing each with each is out of the question. */
static void put_props(struct json_out *o, struct slice props)
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
    json_out_literal(o, ",\"props\":{");
    put_users(o, users, at);
    json_out_literal(o, "}");
    if (users != few)
        free(users);
}

/* --- the whole ---------------------------------------------------------------------------------- */

static void put_payload(struct json_out *o, const struct msg *m)
{
    struct slice payload = msg_payload(m);
    switch ((enum content_class)m->content) {
    case CONTENT_JSON:
        json_out_literal(o, ",\"data\":");
        if (o->status == ST_OK)
            o->status = json_put_embedded(o->buf, payload);
        break;
    case CONTENT_TEXT:
        json_out_literal(o, ",\"text\":");
        json_out_string(o, payload);
        break;
    case CONTENT_BINARY:
    default:
        json_out_literal(o, ",\"b64\":\"");
        if (o->status == ST_OK)
            o->status = base64_encode(payload, o->buf);
        json_out_literal(o, "\"");
        break;
    }
}

enum status message_json_put(struct buf *buf, uint32_t epoch, const struct msg *m, bool retained)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    struct slice type;
    json_out_literal(&o, "{\"topic\":");
    json_out_string(&o, msg_topic(m));
    if (m->flags & MSG_UNSTORED) {
        json_out_literal(&o, ",\"stored\":false");
    } else {
        json_out_literal(&o, ",\"pos\":");
        json_out_position(&o, epoch, m->partition, m->offset);
    }
    json_out_literal(&o, ",\"ts\":");
    json_out_number(&o, m->ts_ms);
    if (m->key_len > 0) {
        json_out_literal(&o, ",\"key\":");
        json_out_string(&o, msg_key(m));
    }
    if (m->props_len > 0 && props_find(msg_props(m), PROP_CONTENT_TYPE, &type)) {
        json_out_literal(&o, ",\"type\":");
        json_out_string(&o, type);
    }
    if (m->props_len > 0)
        put_props(&o, msg_props(m));
    put_payload(&o, m);
    if (retained)
        json_out_literal(&o, ",\"retained\":true");
    json_out_literal(&o, "}");
    return o.status;
}
