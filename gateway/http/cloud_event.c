/* Both modes come down to a run of attributes, name and text, in order: note_attribute sees each once, writes
 * it as a user property, and keeps what has a meaning here. The texts go into one buffer that is reserved
 * before the first, so that slices into it stay where they are. */
#include "gateway/http/cloud_event.h"

#include "core/base64.h"
#include "core/hash.h"
#include "core/json.h"
#include "gateway/http/event_types.h"

#include <stdio.h>
#include <strings.h>

enum {
    NAME_BYTES_MAX = 64,
    ID_BYTES_MAX = 200,
    ATTRIBUTES_MAX = 256,
    PROPS_BYTES_MAX = 32 * 1024,
    USER_LENGTH_BYTES = 2
};

struct event {
    struct publish_item *item;
    struct buf *texts;
    struct slice source, id, type, subject, version, time, schema;
    unsigned count;
    struct slice names[ATTRIBUTES_MAX]; /* of `count` attributes so far */
    struct buf props;
    enum status status; /* ST_NO_MEMORY */
};

static void bad(struct event *e, const char *detail)
{
    if (e->item->refused)
        return;
    e->item->refused = "bad_request";
    e->item->detail = detail;
}

/* CloudEvents 1.0, 3.1: lower-case letters and digits. */
static bool name_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!(name.data[i] >= 'a' && name.data[i] <= 'z') && !(name.data[i] >= '0' && name.data[i] <= '9'))
            return false;
    return name.len > 0 && name.len <= NAME_BYTES_MAX;
}

/* PROP_USER: {u16 length of the name, name, value}. */
static void put_property(struct event *e, struct slice name, struct slice value)
{
    size_t len = USER_LENGTH_BYTES + name.len + value.len;
    uint8_t *to = len <= UINT16_MAX ? buf_reserve(&e->props, PROP_HEAD_BYTES + len) : NULL;
    if (!to) {
        bad(e, "the attributes are larger than 32 KiB");
        return;
    }
    to[0] = PROP_USER;
    to[1] = (uint8_t)len;
    to[2] = (uint8_t)(len >> 8);
    to[3] = (uint8_t)name.len;
    to[4] = 0;
    memcpy(to + PROP_HEAD_BYTES + USER_LENGTH_BYTES, name.data, name.len);
    if (value.len > 0)
        memcpy(to + PROP_HEAD_BYTES + USER_LENGTH_BYTES + name.len, value.data, value.len);
    buf_advance(&e->props, PROP_HEAD_BYTES + len);
}

static bool is_known(struct slice name, struct event *e, struct slice **at)
{
    const struct {
        const char *name;
        struct slice *at;
    } known[] = {
        {"source", &e->source},       {"id", &e->id},
        {"type", &e->type},           {"subject", &e->subject},
        {"specversion", &e->version}, {"datacontenttype", &e->item->type},
        {"time", &e->time},           {"dataschema", &e->schema},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_equal_cstr(name, known[i].name)) {
            *at = known[i].at;
            return true;
        }
    return false;
}

static void note_name(struct event *e, struct slice name)
{
    for (unsigned i = 0; i < e->count; i++)
        if (slice_equal(e->names[i], name))
            bad(e, "an attribute is given twice");
    if (e->count == ATTRIBUTES_MAX)
        bad(e, "more than 256 attributes");
    else
        e->names[e->count++] = name;
}

static void note_attribute(struct event *e, struct slice name, struct slice value)
{
    struct slice *at;
    if (!name_valid(name))
        bad(e, "an attribute's name has other than lower-case letters and digits");
    else if (!event_string_valid(value))
        bad(e, "an attribute's value is not UTF-8, or has control characters");
    if (e->item->refused)
        return;
    note_name(e, name);
    if (is_known(name, e, &at))
        *at = value;
    if (!e->item->refused && !slice_equal_cstr(name, "datacontenttype"))
        put_property(e, name, value);
}

/* Into e->texts. data NULL: it has no more room, which cannot be. */
static struct slice keep(struct event *e, struct slice text)
{
    size_t before = e->texts->len;
    if (buf_put(e->texts, text) != ST_OK) {
        e->status = ST_NO_MEMORY;
        return (struct slice){0};
    }
    return slice_of(e->texts->data + before, text.len);
}

/* "ce:", a hash of the source, ':', the id: of its own within the keys of a topic, and not too long. */
static void make_once_key(struct event *e)
{
    char start[32];
    int len = snprintf(start, sizeof start, "ce:%016lx:", (unsigned long)hash64_stable(e->source));
    struct slice head = keep(e, slice_of(start, (size_t)len)), tail = keep(e, e->id);
    if (e->status == ST_OK)
        e->item->once_key = slice_of(head.data, head.len + tail.len);
}

/* What the attributes of the specification must be (CloudEvents 1.0.2, 3). NULL: they are. */
static const char *flaw(const struct event *e)
{
    if (e->subject.data && e->subject.len == 0)
        return "subject must not be empty";
    if (!event_reference_valid(e->source))
        return "source must be a URI reference (RFC 3986)";
    if (e->time.data && !event_timestamp_valid(e->time))
        return "time must be as in RFC 3339: 2026-01-02T03:04:05Z";
    if (e->schema.data && !event_uri_valid(e->schema))
        return "dataschema must be a URI (RFC 3986) with its scheme";
    if (e->item->type.data && !event_media_type_valid(e->item->type))
        return "datacontenttype must be a media type, as in RFC 2046: type/subtype";
    return NULL;
}

/* All attributes have been noted. */
static void settle(struct event *e)
{
    struct publish_item *item = e->item;
    const char *wrong = flaw(e);
    if (!e->version.data)
        bad(e, "specversion is missing: what has ce- fields, or is called a CloudEvent, is one");
    else if (!slice_equal_cstr(e->version, "1.0"))
        bad(e, "specversion must be 1.0");
    else if (e->id.len == 0 || e->source.len == 0 || e->type.len == 0)
        bad(e, "an event needs id, source and type");
    else if (wrong)
        bad(e, wrong);
    else if (e->id.len > ID_BYTES_MAX)
        bad(e, "the event's id is longer than 200 bytes");
    else if (item->type.len > ITEM_TYPE_BYTES_MAX)
        bad(e, "datacontenttype is longer than 1,024 bytes");
    if (item->topic.len == 0)
        item->topic = e->subject;
    if (item->topic.len == 0)
        bad(e, "name a topic in the path, in ?topic= or as the event's subject");
    if (!item->refused)
        make_once_key(e);
    item->user_props = keep(e, buf_slice(&e->props));
    buf_deinit(&e->props);
}

static struct event begin(struct publish_item *item, struct buf *texts, size_t bytes)
{
    struct event e = {.item = item, .texts = texts};
    buf_clear(texts);
    buf_init(&e.props, PROPS_BYTES_MAX);
    if (!buf_reserve(texts, CLOUD_EVENT_TEXTS * bytes + CLOUD_EVENT_EXTRA))
        e.status = ST_NO_MEMORY;
    return e;
}

/* --- structured mode ---------------------------------------------------------------------------- */

static struct slice decoded(struct event *e, struct json_value v)
{
    size_t before = e->texts->len;
    if (json_text(v, e->texts) != ST_OK)
        e->status = ST_NO_MEMORY;
    return slice_of(e->texts->data + before, e->texts->len - before);
}

static void read_base64(struct event *e, struct json_value v)
{
    struct slice text = v.type == JSON_IS_STRING ? decoded(e, v) : (struct slice){0};
    size_t before = e->texts->len;
    if (v.type != JSON_IS_STRING || base64_decode(text, e->texts) != ST_OK)
        bad(e, "data_base64 must be canonical base64");
    e->item->payload = slice_of(e->texts->data + before, e->texts->len - before);
    e->item->content = CONTENT_BINARY;
}

/* Strings of a type that is not JSON are the text itself (JSON event format, 3.1). */
static void settle_data(struct event *e, struct json_value data)
{
    struct slice type = e->item->type;
    bool json = type.len == 0 || event_media_type_is_json(type);
    if (data.type == JSON_IS_STRING && !json) {
        e->item->payload = decoded(e, data);
        e->item->content = CONTENT_TEXT;
    } else {
        e->item->payload = data.raw;
        e->item->content = CONTENT_JSON;
    }
}

static void read_member(struct event *e, struct slice key, struct json_value v)
{
    if (v.type == JSON_IS_NULL) /* as good as absent */
        return;
    struct slice *at;
    if (v.type == JSON_IS_STRING)
        note_attribute(e, key, decoded(e, v));
    else if (is_known(key, e, &at))
        bad(e, "attributes of the specification are strings");
    else if (v.type == JSON_IS_OBJECT || v.type == JSON_IS_ARRAY)
        bad(e, "an attribute must be a string, an integer or a boolean");
    else if (v.type == JSON_IS_NUMBER && !event_integer_valid(v.raw))
        bad(e, "a number that is an attribute must be an integer of 32 bits: no fraction, no exponent");
    else
        note_attribute(e, key, v.raw);
}

enum status cloud_event_parse(struct slice object, struct slice topic, struct buf *texts,
                              struct publish_item *out)
{
    size_t place = 0;
    struct slice key;
    struct json_value value, data = {.raw = {0}};
    enum status st = ST_INVALID;
    *out = (struct publish_item){.topic = topic, .content = CONTENT_TEXT, .has_payload = true};
    struct event e = begin(out, texts, object.len);
    bool base64 = false;
    while (object.len > 0 && e.status == ST_OK && (st = json_member(object, &place, &key, &value)) == ST_OK) {
        bool is_data = json_key_is(key, "data"), is_base64 = json_key_is(key, "data_base64");
        if ((is_data && data.raw.data) || (is_base64 && base64))
            bad(&e, "data is given twice");
        if (is_data)
            data = value;
        else if (is_base64)
            base64 = true, read_base64(&e, value);
        else
            read_member(&e, key, value);
    }
    if (data.raw.data && base64)
        bad(&e, "data or data_base64, not both");
    else if (data.raw.data)
        settle_data(&e, data);
    if (st != ST_NOT_FOUND && e.status == ST_OK) {
        out->refused = NULL;
        bad(&e, "an event must be one JSON object, at most 64 levels deep");
    }
    settle(&e);
    return e.status;
}

/* --- binary mode -------------------------------------------------------------------------------- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* HTTP protocol binding, 3.1.3.2: what older senders have quoted (RFC 9110, 5.6.4). */
static struct slice unquoted(struct event *e, struct slice value)
{
    size_t before = e->texts->len, end = value.len - 1;
    if (value.len < 2 || value.data[0] != '"' || value.data[end] != '"')
        return value;
    for (size_t i = 1; i < end; i++) {
        if (value.data[i] == '\\' && i + 1 < end)
            i++;
        if (buf_put_byte(e->texts, value.data[i]) != ST_OK)
            e->status = ST_NO_MEMORY;
    }
    return slice_of(e->texts->data + before, e->texts->len - before);
}

/* Then values are percent-encoded. What is no encoding stands for itself. */
static struct slice percent_decoded(struct event *e, struct slice quoted)
{
    struct slice value = unquoted(e, quoted);
    size_t before = e->texts->len;
    enum status st = ST_OK;
    for (size_t i = 0; i < value.len && st == ST_OK; i++) {
        int high = value.data[i] == '%' && value.len - i > 2 ? hex_digit(value.data[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(value.data[i + 2]) : -1;
        uint8_t byte = value.data[i];
        if (low >= 0)
            byte = (uint8_t)((unsigned)high << 4 | (unsigned)low);
        st = buf_put_byte(e->texts, byte);
        i += low >= 0 ? 2 : 0;
    }
    e->status = st == ST_OK ? e->status : ST_NO_MEMORY;
    return slice_of(e->texts->data + before, e->texts->len - before);
}

/* Field names have no case; attributes are lower case. */
static struct slice lowered(struct event *e, struct slice name)
{
    struct slice kept = keep(e, name);
    uint8_t *at = e->texts->data + (e->texts->len - name.len);
    for (size_t i = 0; i < kept.len; i++)
        at[i] = name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] | 0x20 : name.data[i];
    return kept;
}

enum status cloud_event_read_head(const struct head *h, struct buf *texts, struct publish_item *out)
{
    size_t bytes = 0;
    struct slice type = out->type;
    for (unsigned i = 0; i < h->ce_count; i++)
        bytes += h->ce[i].name.len + h->ce[i].value.len + PROP_HEAD_BYTES;
    struct event e = begin(out, texts, bytes);
    for (unsigned i = 0; i < h->ce_count && e.status == ST_OK; i++) {
        struct slice name = lowered(&e, h->ce[i].name);
        if (slice_equal_cstr(name, "datacontenttype"))
            bad(&e, "the data's type is Content-Type");
        else
            note_attribute(&e, name, percent_decoded(&e, h->ce[i].value));
    }
    if (h->ce_over)
        bad(&e, "too many ce- fields");
    out->type = type;
    settle(&e);
    return e.status;
}
