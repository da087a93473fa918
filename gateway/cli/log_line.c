/* Reading takes nothing on trust: a line comes from a file that anybody may have written, and what it makes
 * is stored as if a door had let it in. So it is held to what the doors hold publishers to, and a member that
 * is not known is refused rather than lost. */
#include "gateway/cli/log_line.h"

#include "core/base64.h"
#include "core/json.h"
#include "core/utf8.h"
#include "gateway/json_out.h"
#include "routing/once_id.h"

enum { LINE_EXTRA_BYTES = 1 << 20, ESCAPED_BYTES = 6, ORIGIN_BYTES = 8 };
#define NUMBER_MAX (((uint64_t)1 << 53) - 1)

uint64_t log_line_bytes_max(const struct line_limits *limits)
{
    return limits->message_bytes * ESCAPED_BYTES + LINE_EXTRA_BYTES;
}

/* --- writing ------------------------------------------------------------------------------------ */

static void put_base64(struct json_out *o, struct slice bytes)
{
    json_out_literal(o, "\"");
    if (o->status == ST_OK)
        o->status = base64_encode(bytes, o->buf);
    json_out_literal(o, "\"");
}

static bool user_parts(struct slice value, struct slice *name, struct slice *text)
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

/* Pairs, since an object would lose their order. */
static void put_users(struct json_out *o, struct slice props)
{
    size_t place = 0, count = 0;
    enum msg_prop type;
    struct slice value, name, text;
    while (props_next(props, &place, &type, &value)) {
        if (type != PROP_USER || !user_parts(value, &name, &text))
            continue;
        if (count++ == 0)
            json_out_literal(o, ",\"props\":[[");
        else
            json_out_literal(o, ",[");
        json_out_string(o, name);
        json_out_literal(o, ",");
        json_out_string(o, text);
        json_out_literal(o, "]");
    }
    if (count > 0)
        json_out_literal(o, "]");
}

/* The properties that have no name of their own here, by their number in FORMAT.md 4. */
static void put_more(struct json_out *o, struct slice props)
{
    size_t place = 0, count = 0;
    enum msg_prop type;
    struct slice value;
    while (props_next(props, &place, &type, &value)) {
        if (type == PROP_USER || type == PROP_CONTENT_TYPE)
            continue;
        if (count++ == 0)
            json_out_literal(o, ",\"more\":[[");
        else
            json_out_literal(o, ",[");
        json_out_number(o, (uint64_t)type);
        json_out_literal(o, ",");
        put_base64(o, value);
        json_out_literal(o, "]");
    }
    if (count > 0)
        json_out_literal(o, "]");
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Would it come back byte for byte as a member of a line? Not with line breaks, white space around it, or
 * when it is nested so deep that the line around it is too deep. */
static bool json_fits(struct slice json)
{
    unsigned depth = 0, deepest = 0;
    bool quoted = false;
    if (json.len == 0 || is_space(json.data[0]) || is_space(json.data[json.len - 1]))
        return false;
    for (size_t i = 0; i < json.len; i++) {
        uint8_t c = json.data[i];
        if (c == '\n' || c == '\r')
            return false;
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '['))
            deepest = ++depth > deepest ? depth : deepest;
        else if (!quoted && (c == '}' || c == ']'))
            depth--;
    }
    return deepest < JSON_DEPTH_MAX && json_valid(json);
}

static void put_payload(struct json_out *o, const struct msg *m)
{
    struct slice payload = msg_payload(m);
    if (m->content == CONTENT_JSON && json_fits(payload)) {
        json_out_literal(o, ",\"data\":");
        json_out_put(o, payload);
    } else if (m->content == CONTENT_TEXT && utf8_valid(payload)) {
        json_out_literal(o, ",\"text\":");
        json_out_string(o, payload);
    } else {
        json_out_literal(o, ",\"b64\":");
        put_base64(o, payload);
        if (m->content == CONTENT_JSON)
            json_out_literal(o, ",\"class\":\"json\"");
        else if (m->content == CONTENT_TEXT)
            json_out_literal(o, ",\"class\":\"text\"");
    }
}

static void put_marks(struct json_out *o, const struct msg *m)
{
    if (m->qos > 0) {
        json_out_literal(o, ",\"qos\":");
        json_out_number(o, m->qos);
    }
    if (m->flags & MSG_RETAIN)
        json_out_literal(o, ",\"retain\":true");
    if (m->expires_ms > 0) {
        json_out_literal(o, ",\"expires\":");
        json_out_number(o, m->expires_ms < NUMBER_MAX ? m->expires_ms : NUMBER_MAX);
    }
    if (m->flags & MSG_PFI_UTF8)
        json_out_literal(o, ",\"pfi\":true");
    if (m->flags & MSG_TYPE_GIVEN)
        json_out_literal(o, ",\"declared\":true");
}

enum status log_line_put(struct buf *buf, uint32_t epoch, const struct msg *m)
{
    struct json_out o = {.buf = buf, .status = ST_OK};
    struct slice type;
    json_out_literal(&o, "{\"topic\":");
    json_out_string(&o, msg_topic(m));
    json_out_literal(&o, ",\"pos\":");
    json_out_position(&o, epoch, m->partition, m->offset);
    json_out_literal(&o, ",\"ts\":");
    json_out_number(&o, m->ts_ms);
    if (m->key_len > 0) {
        json_out_literal(&o, ",\"key\":");
        json_out_string(&o, msg_key(m));
    }
    if (props_find(msg_props(m), PROP_CONTENT_TYPE, &type)) {
        json_out_literal(&o, ",\"type\":");
        json_out_string(&o, type);
    }
    put_users(&o, msg_props(m));
    put_payload(&o, m);
    put_marks(&o, m);
    put_more(&o, msg_props(m));
    json_out_literal(&o, "}");
    return o.status;
}

/* --- reading ------------------------------------------------------------------------------------ */

enum line_member {
    LINE_TOPIC,
    LINE_POS,
    LINE_TS,
    LINE_KEY,
    LINE_TYPE,
    LINE_PROPS,
    LINE_DATA,
    LINE_TEXT,
    LINE_B64,
    LINE_CLASS,
    LINE_QOS,
    LINE_RETAIN,
    LINE_RETAINED,
    LINE_EXPIRES,
    LINE_PFI,
    LINE_DECLARED,
    LINE_MORE,
    LINE_MEMBERS
};

static const char *const member_names[LINE_MEMBERS] = {
    "topic", "pos", "ts",     "key",      "type",    "props", "data",     "text", "b64",
    "class", "qos", "retain", "retained", "expires", "pfi",   "declared", "more"};

struct reading {
    const struct line_limits *limits;
    const char *why;
    struct json_value values[LINE_MEMBERS];
    bool has[LINE_MEMBERS];
    struct buf topic, key, props, payload, scratch;
    enum content_class content;
};

static enum status refuse(struct reading *r, const char *why)
{
    r->why = why;
    return ST_INVALID;
}

static enum status collect(struct reading *r, struct slice line)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    enum status st;
    while ((st = json_member(line, &place, &key, &value)) == ST_OK) {
        unsigned i = 0;
        while (i < LINE_MEMBERS && !json_key_is(key, member_names[i]))
            i++;
        if (i == LINE_MEMBERS)
            return refuse(r, "has a member that this version does not know");
        if (r->has[i])
            return refuse(r, "has a member twice");
        r->has[i] = true;
        r->values[i] = value;
    }
    return st == ST_NOT_FOUND ? ST_OK : refuse(r, "is not a JSON object");
}

/* Text into a buffer; refused by `why` when it is none, or longer than the buffer may be. */
static enum status take_text(struct reading *r, struct json_value value, struct buf *out, const char *why)
{
    enum status st = json_text(value, out);
    return st == ST_OK || st == ST_NO_MEMORY ? st : refuse(r, why);
}

static enum status take_bool(struct reading *r, enum line_member which, bool *out)
{
    *out = false;
    if (!r->has[which])
        return ST_OK;
    *out = r->values[which].type == JSON_IS_TRUE;
    return *out || r->values[which].type == JSON_IS_FALSE
               ? ST_OK
               : refuse(r, "retain, retained, pfi and declared must be true or false");
}

static enum status take_number(struct reading *r, enum line_member which, uint64_t most, uint64_t *out)
{
    *out = 0;
    if (!r->has[which])
        return ST_OK;
    if (json_uint(r->values[which], out) != ST_OK || *out > most)
        return refuse(r, "ts, qos and expires must be whole numbers in their ranges");
    return ST_OK;
}

static enum status take_base64(struct reading *r, struct json_value value, struct buf *out, const char *why)
{
    buf_clear(&r->scratch);
    enum status st = take_text(r, value, &r->scratch, why);
    if (st == ST_OK)
        st = base64_decode(buf_slice(&r->scratch), out);
    return st == ST_OK || st == ST_NO_MEMORY ? st : refuse(r, why);
}

/* --- properties --- */

static enum status add_prop(struct reading *r, enum msg_prop type, struct slice first, struct slice second)
{
    bool user = type == PROP_USER;
    size_t len = first.len + second.len + (user ? 2 : 0);
    uint8_t head[5] = {(uint8_t)type, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)first.len,
                       (uint8_t)(first.len >> 8)};
    if (len > MSG_PROPS_BYTES_MAX)
        return refuse(r, "properties are over 65535 bytes");
    enum status st = buf_put(&r->props, slice_of(head, user ? 5 : 3));
    if (st == ST_OK)
        st = buf_put(&r->props, first);
    if (st == ST_OK)
        st = buf_put(&r->props, second);
    return st == ST_FULL ? refuse(r, "properties are over 65535 bytes") : st;
}

/* `name` lies in r->scratch from 0; the value is decoded behind it. */
static enum status add_user(struct reading *r, struct json_value value)
{
    size_t name_len = r->scratch.len;
    enum status st = take_text(r, value, &r->scratch, "a value in props must be a text");
    if (st != ST_OK)
        return st;
    struct slice all = buf_slice(&r->scratch), name = slice_of(all.data, name_len),
                 text = slice_from(all, name_len);
    if (!utf8_valid_mqtt(name) || !utf8_valid_mqtt(text))
        return refuse(r, "props must not hold U+0000");
    return add_prop(r, PROP_USER, name, text);
}

/* One value, or an array of values, of the name in r->scratch. */
static enum status add_users(struct reading *r, struct json_value value)
{
    size_t place = 0, name_len = r->scratch.len;
    struct json_value item;
    enum status st = ST_OK;
    if (value.type != JSON_IS_ARRAY)
        return add_user(r, value);
    while (st == ST_OK && (st = json_element(value.raw, &place, &item)) == ST_OK) {
        r->scratch.len = name_len;
        st = add_user(r, item);
    }
    return st == ST_NOT_FOUND ? ST_OK : st;
}

static enum status take_props_object(struct reading *r, struct slice object)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    enum status st = ST_OK;
    while (st == ST_OK && (st = json_member(object, &place, &key, &value)) == ST_OK) {
        struct json_value name = {JSON_IS_STRING, slice_of(key.data - 1, key.len + 2)}; /* with its quotes */
        buf_clear(&r->scratch);
        st = take_text(r, name, &r->scratch, "a name in props is too long");
        if (st == ST_OK)
            st = add_users(r, value);
    }
    return st == ST_NOT_FOUND ? ST_OK : st;
}

static enum status take_pair(struct reading *r, struct json_value pair, struct json_value out[2])
{
    size_t place = 0;
    struct json_value rest;
    bool fine = pair.type == JSON_IS_ARRAY && json_element(pair.raw, &place, &out[0]) == ST_OK &&
                json_element(pair.raw, &place, &out[1]) == ST_OK &&
                json_element(pair.raw, &place, &rest) == ST_NOT_FOUND;
    return fine ? ST_OK : refuse(r, "props and more must be arrays of pairs");
}

static enum status take_props(struct reading *r)
{
    size_t place = 0;
    struct json_value pair, parts[2];
    struct json_value props = r->values[LINE_PROPS];
    enum status st = ST_OK;
    if (!r->has[LINE_PROPS])
        return ST_OK;
    if (props.type == JSON_IS_OBJECT)
        return take_props_object(r, props.raw);
    if (props.type != JSON_IS_ARRAY)
        return refuse(r, "props must be an object or an array of pairs");
    while (st == ST_OK && (st = json_element(props.raw, &place, &pair)) == ST_OK) {
        buf_clear(&r->scratch);
        st = take_pair(r, pair, parts);
        if (st == ST_OK)
            st = take_text(r, parts[0], &r->scratch, "a name in props must be a text");
        if (st == ST_OK)
            st = add_user(r, parts[1]);
    }
    return st == ST_NOT_FOUND ? ST_OK : st;
}

static bool once_valid(uint64_t type, struct slice value)
{
    uint8_t prop[ONCE_PROP_BYTES_MAX] = {(uint8_t)type, (uint8_t)value.len, (uint8_t)(value.len >> 8)};
    struct once_id id;
    if (value.len > sizeof prop - 3)
        return false;
    memcpy(prop + 3, value.data, value.len);
    return once_id_read(slice_of(prop, 3 + value.len), &id) && once_name_valid(id.name) &&
           utf8_valid_mqtt(id.principal);
}

/* What other parts of the program rely on: they have been told that the log holds only what a door let in. */
static bool more_valid(const struct reading *r, uint64_t type, struct slice value)
{
    switch (type) {
    case PROP_TRACE:
    case PROP_PUBLISHER:
        return utf8_valid_mqtt(value);
    case PROP_RESPONSE_TOPIC:
        return topic_name_valid(value, &r->limits->topic);
    case PROP_CORRELATION:
        return true;
    case PROP_PRODUCER:
    case PROP_IDEMPOTENCY:
        return value.len > 0 && once_valid(type, value);
    case PROP_ORIGIN:
        return value.len == ORIGIN_BYTES;
    default:
        return false;
    }
}

static enum status take_more(struct reading *r)
{
    size_t place = 0;
    struct json_value pair, parts[2];
    uint64_t type, seen = 0;
    struct buf bytes;
    enum status st = ST_OK;
    if (!r->has[LINE_MORE])
        return ST_OK;
    if (r->values[LINE_MORE].type != JSON_IS_ARRAY)
        return refuse(r, "props and more must be arrays of pairs");
    buf_init(&bytes, MSG_PROPS_BYTES_MAX);
    while (st == ST_OK && (st = json_element(r->values[LINE_MORE].raw, &place, &pair)) == ST_OK) {
        buf_clear(&bytes);
        st = take_pair(r, pair, parts);
        if (st == ST_OK)
            st = take_base64(r, parts[1], &bytes, "a value in more must be base64");
        if (st != ST_OK)
            break;
        if (json_uint(parts[0], &type) != ST_OK || !more_valid(r, type, buf_slice(&bytes)) ||
            (seen & (uint64_t)1 << type) != 0)
            st = refuse(
                r, "has a property in more that is not valid, twice there, or not known to this version");
        else {
            seen |= (uint64_t)1 << type;
            st = add_prop(r, (enum msg_prop)type, buf_slice(&bytes), slice_of(NULL, 0));
        }
    }
    buf_deinit(&bytes);
    return st == ST_NOT_FOUND ? ST_OK : st;
}

static enum status take_type(struct reading *r)
{
    if (!r->has[LINE_TYPE])
        return ST_OK;
    buf_clear(&r->scratch);
    enum status st = take_text(r, r->values[LINE_TYPE], &r->scratch, "type must be a text");
    if (st == ST_OK && !utf8_valid_mqtt(buf_slice(&r->scratch)))
        st = refuse(r, "type must not hold U+0000");
    return st == ST_OK ? add_prop(r, PROP_CONTENT_TYPE, buf_slice(&r->scratch), slice_of(NULL, 0)) : st;
}

/* --- payload --- */

static enum status take_class(struct reading *r)
{
    static const char *const classes[] = {
        [CONTENT_BINARY] = "\"binary\"", [CONTENT_TEXT] = "\"text\"", [CONTENT_JSON] = "\"json\""};
    r->content = CONTENT_BINARY;
    if (!r->has[LINE_CLASS])
        return ST_OK;
    for (unsigned i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (!slice_equal_cstr(r->values[LINE_CLASS].raw, classes[i]))
            continue;
        r->content = (enum content_class)i;
        struct slice payload = buf_slice(&r->payload);
        bool fine = i == CONTENT_JSON ? json_valid(payload) : i != CONTENT_TEXT || utf8_valid(payload);
        return fine ? ST_OK : refuse(r, "its payload is not of its class");
    }
    return refuse(r, "class must be json, text or binary");
}

static enum status take_payload(struct reading *r)
{
    static const char too_large[] = "its payload is no text or base64, or over limit.message_bytes";
    int forms = r->has[LINE_DATA] + r->has[LINE_TEXT] + r->has[LINE_B64];
    if (forms != 1 || (r->has[LINE_CLASS] && !r->has[LINE_B64]))
        return refuse(r, "must have one of data, text and b64; class only with b64");
    if (r->has[LINE_TEXT]) {
        r->content = CONTENT_TEXT;
        return take_text(r, r->values[LINE_TEXT], &r->payload, too_large);
    }
    if (r->has[LINE_DATA]) {
        r->content = CONTENT_JSON;
        enum status st = buf_put(&r->payload, r->values[LINE_DATA].raw);
        return st == ST_FULL ? refuse(r, too_large) : st;
    }
    enum status st = take_base64(r, r->values[LINE_B64], &r->payload, too_large);
    return st == ST_OK ? take_class(r) : st;
}

static enum status take_names(struct reading *r)
{
    if (!r->has[LINE_TOPIC])
        return refuse(r, "has no topic");
    enum status st = take_text(r, r->values[LINE_TOPIC], &r->topic, "topic must be a text, not too long");
    if (st != ST_OK)
        return st;
    struct slice topic = buf_slice(&r->topic);
    if (!topic_name_valid(topic, &r->limits->topic) || topic_internal(topic))
        return refuse(r, "topic is not a topic name to publish to, or over limit.topic_bytes or _levels");
    if (!r->has[LINE_KEY])
        return ST_OK;
    st = take_text(r, r->values[LINE_KEY], &r->key, "key must be a text of at most limit.topic_bytes");
    if (st == ST_OK && !utf8_valid_mqtt(buf_slice(&r->key)))
        st = refuse(r, "key must not hold U+0000");
    return st;
}

static enum status take_marks(struct reading *r, struct msg *m)
{
    bool retain, retained, pfi, declared;
    uint64_t qos, expires, ts;
    enum status st = take_bool(r, LINE_RETAIN, &retain);
    if (st == ST_OK)
        st = take_bool(r, LINE_RETAINED, &retained);
    if (st == ST_OK)
        st = take_bool(r, LINE_PFI, &pfi);
    if (st == ST_OK)
        st = take_bool(r, LINE_DECLARED, &declared);
    if (st == ST_OK)
        st = take_number(r, LINE_QOS, 2, &qos);
    if (st == ST_OK)
        st = take_number(r, LINE_EXPIRES, NUMBER_MAX, &expires);
    if (st == ST_OK)
        st = take_number(r, LINE_TS, NUMBER_MAX, &ts);
    if (st != ST_OK)
        return st;
    m->qos = (uint8_t)qos;
    m->expires_ms = expires;
    m->ts_ms = ts;
    m->content = (uint8_t)r->content;
    m->flags = (uint8_t)((retain || retained ? MSG_RETAIN : 0) | (pfi ? MSG_PFI_UTF8 : 0) |
                         (declared ? MSG_TYPE_GIVEN : 0));
    return ST_OK;
}

static enum status make_message(struct reading *r, struct msg **out)
{
    struct msg *m;
    enum status st = msg_create(buf_slice(&r->topic), buf_slice(&r->key), buf_slice(&r->props),
                                buf_slice(&r->payload), &m);
    if (st != ST_OK)
        return st == ST_TOO_LARGE ? refuse(r, "is too large") : st;
    st = take_marks(r, m);
    if (st != ST_OK) {
        msg_unref(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

enum status log_line_read(struct slice line, const struct line_limits *limits, struct msg **out,
                          const char **why)
{
    struct reading r = {.limits = limits};
    buf_init(&r.topic, limits->topic.bytes_max);
    buf_init(&r.key, limits->topic.bytes_max);
    buf_init(&r.props, MSG_PROPS_BYTES_MAX);
    buf_init(&r.payload, limits->message_bytes);
    buf_init(&r.scratch, log_line_bytes_max(limits));
    enum status st = collect(&r, line);
    if (st == ST_OK)
        st = take_names(&r);
    if (st == ST_OK)
        st = take_payload(&r);
    if (st == ST_OK)
        st = take_type(&r);
    if (st == ST_OK)
        st = take_props(&r);
    if (st == ST_OK)
        st = take_more(&r);
    if (st == ST_OK)
        st = make_message(&r, out);
    if (st == ST_INVALID)
        *why = r.why ? r.why : "is not valid";
    buf_deinit(&r.topic);
    buf_deinit(&r.key);
    buf_deinit(&r.props);
    buf_deinit(&r.payload);
    buf_deinit(&r.scratch);
    return st;
}
