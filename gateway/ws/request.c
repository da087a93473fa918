/* A line is walked once: `id` and the operation's key are found, whatever else stands beside them is
 * ignored. The operation's own object is then walked by a table of members, one row for each member
 * that the protocol names; a row says how to read it and where to, or that this build refuses it. The walk
 * over the line checks every value on its way, so a line is never taken in part: what was read before the
 * fault is thrown away with the answer ST_INVALID, and the walks inside cannot meet a broken value.
 *
 * Decoded strings go into one buffer that is reserved to twice the line's length before the first is
 * decoded, so that slices into it stay where they are: an escaped string never gets longer by decoding,
 * and base64, which is first text and then bytes, stays below double. */
#include "gateway/ws/request.h"

#include "core/base64.h"
#include "core/json.h"
#include "routing/once_id.h"

#include <assert.h>

struct parse {
    struct ws_request *r;
    struct buf *texts;
    enum status status; /* ST_NO_MEMORY is the only trouble that is not the client's */
};

static void refuse(struct ws_request *r, const char *code, const char *detail)
{
    if (!r->refused) {
        r->refused = code;
        r->detail = detail;
    }
}

static void bad(struct ws_request *r, const char *detail)
{
    refuse(r, "bad_request", detail);
}

/* --- values --- */

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
    *out = slice_of(p->texts->data + before, p->texts->len - before);
    return true;
}

static void read_topic(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->topic))
        bad(p->r, "topic must be a string");
}

static void read_key(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->key))
        bad(p->r, "key must be a string");
}

static void read_type(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->type))
        bad(p->r, "type must be a string");
}

static void read_ttl(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->r->ttl_ms) != ST_OK || p->r->ttl_ms == 0)
        bad(p->r, "ttl_ms must be an integer from 1 to 2^53-1");
    p->r->has_ttl = true;
}

static void read_max(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->r->max) != ST_OK || p->r->max == 0)
        bad(p->r, "max must be an integer from 1");
    p->r->has_max = true;
}

static void read_reverse(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_TRUE && v.type != JSON_IS_FALSE)
        bad(p->r, "true or false is wanted");
    p->r->reverse = v.type == JSON_IS_TRUE;
}

static void set_payload(struct parse *p, enum ws_payload kind)
{
    if (p->r->payload_kind != WS_PAYLOAD_NONE)
        bad(p->r, "one of data, text and b64 only");
    p->r->payload_kind = kind;
}

static void read_data(struct parse *p, struct json_value v)
{
    set_payload(p, WS_PAYLOAD_JSON);
    p->r->payload = v.raw;
}

static void read_payload_text(struct parse *p, struct json_value v)
{
    set_payload(p, WS_PAYLOAD_TEXT);
    if (!read_text(p, v, &p->r->payload))
        bad(p->r, "text must be a string");
}

static void read_b64(struct parse *p, struct json_value v)
{
    set_payload(p, WS_PAYLOAD_BINARY);
    struct slice text;
    if (!read_text(p, v, &text)) {
        bad(p->r, "b64 must be a string");
        return;
    }
    size_t before = p->texts->len;
    enum status st = base64_decode(text, p->texts);
    if (st == ST_OK)
        p->r->payload = slice_of(p->texts->data + before, p->texts->len - before);
    else if (st == ST_INVALID)
        bad(p->r, "b64 is not canonical base64");
    else
        p->status = ST_NO_MEMORY;
}

static void read_ack(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_TRUE && v.type != JSON_IS_FALSE)
        bad(p->r, "true or false is wanted");
    p->r->ack = v.type == JSON_IS_TRUE;
}

static void read_n(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->r->n) != ST_OK)
        bad(p->r, "n must be an integer from 0 to 2^53-1");
    p->r->has_n = true;
}

static void read_msgs(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->r->msgs) != ST_OK)
        bad(p->r, "msgs must be an integer from 0 to 2^53-1");
    p->r->has_msgs = true;
}

static void read_bytes(struct parse *p, struct json_value v)
{
    if (json_uint(v, &p->r->bytes) != ST_OK)
        bad(p->r, "bytes must be an integer from 0 to 2^53-1");
    p->r->has_bytes = true;
}

static void read_retain(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_TRUE && v.type != JSON_IS_FALSE)
        bad(p->r, "true or false is wanted");
    p->r->retain = v.type == JSON_IS_TRUE;
}

static void read_inbox(struct parse *p, struct json_value v)
{
    if (v.type == JSON_IS_TRUE || v.type == JSON_IS_FALSE)
        p->r->inbox = v.type == JSON_IS_TRUE;
    else
        bad(p->r, "inbox must be true or false");
}

static void read_retained(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_TRUE && v.type != JSON_IS_FALSE)
        bad(p->r, "true or false is wanted");
    p->r->not_retained = v.type == JSON_IS_FALSE;
}

static void read_producer(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->producer) || !once_name_valid(p->r->producer))
        bad(p->r, "producer must be a string of 1 to 255 bytes without U+0000");
}

static void read_sequence(struct parse *p, struct json_value v)
{
    p->r->has_sequence = true;
    if (json_uint(v, &p->r->sequence) != ST_OK)
        bad(p->r, "seq must be an integer from 0 to 2^53-1");
}

static void read_token(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->token))
        bad(p->r, "token must be a string");
}

static void read_session(struct parse *p, struct json_value v)
{
    if (!read_text(p, v, &p->r->session))
        bad(p->r, "session must be a string");
}

/* A position or an array of them. */
static bool are_positions(struct json_value v)
{
    size_t place = 0;
    struct json_value item;
    unsigned count = 0;
    if (v.type != JSON_IS_ARRAY)
        return v.type == JSON_IS_STRING;
    while (json_element(v.raw, &place, &item) == ST_OK)
        if (item.type != JSON_IS_STRING || ++count > WS_AFTER_MAX)
            return false;
    return count > 0;
}

/* {} asks for nothing. The filters and positions are decoded by whoever resumes. */
static void read_hello_after(struct parse *p, struct json_value v)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    unsigned count = 0;
    if (v.type != JSON_IS_OBJECT) {
        bad(p->r, "after must be an object");
        return;
    }
    while (!p->r->refused && json_member(v.raw, &place, &key, &value) == ST_OK) {
        if (!are_positions(value))
            bad(p->r, "after names for each filter a position, or an array of 1 to 128");
        if (++count > WS_AFTER_FILTERS_MAX)
            bad(p->r, "too many filters in after");
    }
    if (count > 0)
        p->r->after_filters = v.raw;
}

static void read_mode(struct parse *p, struct json_value v)
{
    struct slice mode;
    if (v.type == JSON_IS_OBJECT)
        refuse(p->r, "unsupported", "only mode all is in this build");
    else if (!read_text(p, v, &mode))
        bad(p->r, "mode must be a string or an object");
    else if (slice_equal_cstr(mode, "latest"))
        refuse(p->r, "unsupported", "only mode all is in this build");
    else if (!slice_equal_cstr(mode, "all"))
        bad(p->r, "unknown mode");
}

static void add_after(struct parse *p, struct json_value v)
{
    if (p->r->after_count == WS_AFTER_MAX) {
        bad(p->r, "too many positions");
        return;
    }
    if (read_text(p, v, &p->r->after[p->r->after_count]))
        p->r->after_count++;
    else
        bad(p->r, "a position must be a string");
}

/* One position alone is taken as a list of one. */
static void read_after(struct parse *p, struct json_value v)
{
    if (v.type != JSON_IS_ARRAY) {
        add_after(p, v);
        return;
    }
    size_t place = 0;
    struct json_value item;
    while (!p->r->refused && p->status == ST_OK && json_element(v.raw, &place, &item) == ST_OK)
        add_after(p, item);
    if (p->r->after_count == 0)
        bad(p->r, "after is empty");
}

static void read_from_object(struct parse *p, struct slice object)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    unsigned forms = 0;
    while (json_member(object, &place, &key, &value) == ST_OK) {
        if (json_key_is(key, "after")) {
            forms++;
            p->r->start = WS_START_AFTER;
            read_after(p, value);
        } else if (json_key_is(key, "time")) {
            forms++;
            p->r->start = WS_START_TIME;
            if (json_uint(value, &p->r->start_value) != ST_OK)
                bad(p->r, "time must be an integer from 0 to 2^53-1");
        } else if (json_key_is(key, "last")) {
            forms++;
            p->r->start = WS_START_LAST;
            if (json_uint(value, &p->r->start_value) != ST_OK || p->r->start_value == 0)
                bad(p->r, "last must be an integer from 1");
        }
    }
    if (forms != 1)
        bad(p->r, "unknown from");
}

static void read_from(struct parse *p, struct json_value v)
{
    struct slice word;
    if (v.type == JSON_IS_OBJECT)
        read_from_object(p, v.raw);
    else if (!read_text(p, v, &word))
        bad(p->r, "from must be a string or an object");
    else if (slice_equal_cstr(word, "live"))
        p->r->start = WS_START_LIVE;
    else if (slice_equal_cstr(word, "earliest"))
        p->r->start = WS_START_EARLIEST;
    else
        bad(p->r, "unknown from");
}

/* --- operations --- */

struct member {
    const char *name;
    void (*read)(struct parse *p, struct json_value v);
};

static const struct member credit_members[] = {
    {"msgs", read_msgs},
    {"bytes", read_bytes},
    {NULL, NULL},
};
static void read_members(struct parse *p, const struct member *members, struct slice object);

static void read_window(struct parse *p, struct json_value v)
{
    if (v.type == JSON_IS_OBJECT)
        read_members(p, credit_members, v.raw);
    else
        bad(p->r, "window must be an object");
}

static const struct member auth_members[] = {{"token", read_token}, {NULL, NULL}};
static const struct member ack_members[] = {{"n", read_n}, {NULL, NULL}};
static const struct member hello_members[] = {
    {"token", read_token},   {"session", read_session}, {"after", read_hello_after},
    {"window", read_window}, {"inbox", read_inbox},     {NULL, NULL},
};
static const struct member sub_members[] = {
    {"topic", read_topic}, {"from", read_from},         {"mode", read_mode},
    {"ack", read_ack},     {"retained", read_retained}, {NULL, NULL},
};
static const struct member unsub_members[] = {{"topic", read_topic}, {NULL, NULL}};
static const struct member pub_members[] = {
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
    {NULL, NULL},
};
static const struct member get_members[] = {
    {"topic", read_topic}, {"from", read_from}, {"max", read_max}, {"reverse", read_reverse}, {NULL, NULL},
};

static const struct operation {
    const char *name;
    enum ws_operation operation;
    const struct member *members; /* NULL: not in this build */
} operations[] = {
    {"pub", WS_OP_PUB, pub_members},          {"sub", WS_OP_SUB, sub_members},
    {"unsub", WS_OP_UNSUB, unsub_members},    {"hello", WS_OP_HELLO, hello_members},
    {"get", WS_OP_GET, get_members},          {"ack", WS_OP_ACK, ack_members},
    {"credit", WS_OP_CREDIT, credit_members}, {"auth", WS_OP_AUTH, auth_members},
    {"who", WS_OP_WHO, unsub_members},
};
enum { OPERATION_COUNT = sizeof operations / sizeof *operations, MEMBERS_MAX = 16 };

static void read_members(struct parse *p, const struct member *members, struct slice object)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    uint32_t seen = 0;
    while (p->status == ST_OK && json_member(object, &place, &key, &value) == ST_OK) {
        for (unsigned i = 0; members[i].name; i++) {
            if (!json_key_is(key, members[i].name))
                continue;
            if (seen & 1u << i)
                bad(p->r, "a member stands twice");
            seen |= 1u << i;
            /* data may be null: that is a value like any other */
            if (value.type != JSON_IS_NULL || members[i].read == read_data)
                members[i].read(p, value);
            break;
        }
    }
}

static void check_complete(struct ws_request *r)
{
    bool wants_topic = r->operation == WS_OP_SUB || r->operation == WS_OP_UNSUB ||
                       r->operation == WS_OP_PUB || r->operation == WS_OP_GET || r->operation == WS_OP_WHO;
    if (wants_topic && !r->topic.data)
        bad(r, "topic is missing");
    if (r->operation == WS_OP_PUB && r->payload_kind == WS_PAYLOAD_NONE)
        bad(r, "one of data, text and b64 is wanted");
    if (r->operation == WS_OP_PUB && (r->producer.data != NULL) != r->has_sequence)
        bad(r, "producer and seq go together");
    if (r->operation == WS_OP_AUTH && !r->token.data)
        bad(r, "token is missing");
    if (r->operation == WS_OP_ACK && !r->has_n)
        bad(r, "n is missing");
    if (r->operation == WS_OP_CREDIT && !r->has_msgs && !r->has_bytes)
        bad(r, "msgs or bytes is wanted");
    if (r->operation != WS_OP_GET)
        return;
    if (r->start == WS_START_DEFAULT)
        r->start = r->reverse ? WS_START_LIVE : WS_START_EARLIEST;
    if (r->start == WS_START_LIVE && !r->reverse)
        bad(r, "get reads the past: from earliest, after, time or last, or reverse");
    if (r->start == WS_START_EARLIEST && r->reverse)
        bad(r, "nothing lies before the earliest");
}

static void read_operation(struct parse *p, const struct operation *o, struct json_value value)
{
    if (p->r->operation != WS_OP_NONE && p->r->operation != WS_OP_HEARTBEAT) {
        bad(p->r, "one operation in an object");
        return;
    }
    p->r->operation = o->operation;
    if (!o->members) {
        refuse(p->r, "unsupported", "this operation is not in this build");
        return;
    }
    if (value.type != JSON_IS_OBJECT) {
        bad(p->r, "the operation's value must be an object");
        return;
    }
    if (o->operation == WS_OP_GET)
        p->r->start = WS_START_DEFAULT;
    read_members(p, o->members, value.raw);
    check_complete(p->r);
}

static const struct operation *find_operation(struct slice key)
{
    for (unsigned i = 0; i < OPERATION_COUNT; i++)
        if (json_key_is(key, operations[i].name))
            return &operations[i];
    return NULL;
}

/* The members of the line: `id`, one operation, others that are ignored. */
static enum status read_line(struct parse *p, struct slice line)
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    bool others = false;
    enum status st;
    while ((st = json_member(line, &place, &key, &value)) == ST_OK && p->status == ST_OK) {
        const struct operation *o;
        if (json_key_is(key, "id")) {
            if (p->r->has_id || json_uint(value, &p->r->id) != ST_OK)
                return ST_INVALID;
            p->r->has_id = true;
        } else if ((o = find_operation(key))) {
            read_operation(p, o, value);
        } else {
            others = true;
        }
    }
    if (p->status != ST_OK)
        return p->status;
    if (st != ST_NOT_FOUND)
        return ST_INVALID;
    if (p->r->operation == WS_OP_NONE && others) {
        p->r->operation = WS_OP_OTHER;
        refuse(p->r, "unsupported", "unknown operation");
    } else if (p->r->operation == WS_OP_NONE && p->r->has_id) {
        bad(p->r, "no operation");
    } else if (p->r->operation == WS_OP_NONE) {
        p->r->operation = WS_OP_HEARTBEAT;
    }
    return ST_OK;
}

enum status ws_request_parse(struct slice line, struct buf *texts, struct ws_request *out)
{
    assert(texts->limit >= 2 * line.len);
    buf_clear(texts);
    if (line.len == 0)
        return ST_INVALID;
    if (!buf_reserve(texts, 2 * line.len))
        return ST_NO_MEMORY;
    out->operation = WS_OP_NONE;
    out->has_id = out->has_ttl = out->has_max = out->retain = out->not_retained = false;
    out->reverse = out->ack = out->has_n = out->has_msgs = out->has_bytes = false;
    out->n = out->msgs = out->bytes = 0;
    out->id = out->ttl_ms = out->max = out->start_value = 0;
    out->refused = out->detail = NULL;
    out->topic = out->payload = out->key = out->type = out->producer = (struct slice){0};
    out->has_sequence = false;
    out->sequence = 0;
    out->inbox = false;
    out->session = out->token = out->after_filters = (struct slice){0};
    out->start = WS_START_LIVE;
    out->after_count = 0;
    out->payload_kind = WS_PAYLOAD_NONE;
    struct parse p = {.r = out, .texts = texts, .status = ST_OK};
    return read_line(&p, line);
}
