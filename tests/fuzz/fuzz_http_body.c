/* part: http */
/* A request as the private API has it in hand: header fields, and a body. Properties: what is read of a field
 * is the field without the white space around it, one that may be given once and was given twice is noticed;
 * a key that is taken is a key; the content class is what a second reading says; a body or a head that is
 * taken as a CloudEvent has well-formed properties, and reading it again gives the same message.
 * Input: lines `name: value`, an empty line, the body; without an empty line all of it is head. */
#include "core/json.h"
#include "core/utf8.h"
#include "gateway/content.h"
#include "gateway/http/cloud_event.h"
#include "gateway/http/once_key.h"
#include "gateway/http/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

enum { FIELDS_MAX = 200, TEXTS_BYTES_MAX = 1 << 20 };

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool ends_with(struct slice text, const char *end)
{
    size_t len = strlen(end);
    return text.len >= len && strncasecmp((const char *)text.data + text.len - len, end, len) == 0;
}

/* Lines up to the empty one; what is behind it is the body. */
static struct slice read_head(struct slice input, struct head *h)
{
    unsigned count = 0;
    while (input.len > 0 && count++ < FIELDS_MAX) {
        const uint8_t *end = memchr(input.data, '\n', input.len);
        struct slice line = slice_of(input.data, end ? (size_t)(end - input.data) : input.len);
        input = slice_from(input, line.len + (end != NULL));
        if (line.len == 0)
            return input;
        const uint8_t *colon = memchr(line.data, ':', line.len);
        size_t name = colon ? (size_t)(colon - line.data) : line.len;
        head_add(h, slice_of(line.data, name), slice_from(line, name + (colon != NULL)));
    }
    return (struct slice){0};
}

static void check_head(const struct head *h)
{
    assert(h->ce_count <= HEAD_CE_MAX && (!h->ce_over || h->ce_count == HEAD_CE_MAX));
    for (unsigned i = 0; i < HEAD_FIELD_COUNT; i++) {
        struct slice value = h->fields[i];
        assert(head_has(h, (enum head_field)i) || value.len == 0);
        assert(value.len == 0 || (!is_blank(value.data[0]) && !is_blank(value.data[value.len - 1])));
    }
}

static void check_key(struct slice field)
{
    uint8_t space[ONCE_NAME_BYTES_MAX], again[ONCE_NAME_BYTES_MAX], quoted[2 * ONCE_NAME_BYTES_MAX + 2];
    struct slice key, same;
    size_t len = 0;
    if (!once_key_read(field, space, &key))
        return;
    assert(once_name_valid(key) && utf8_valid(key));
    quoted[len++] = '"';
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] == '"' || key.data[i] == '\\')
            quoted[len++] = '\\';
        quoted[len++] = key.data[i];
    }
    quoted[len++] = '"';
    bool taken = once_key_read(slice_of(quoted, len), again, &same);
    assert(taken && slice_equal(key, same)); /* quoted is as good as bare */
}

/* The rules of PROTOCOL.md once more, slowly. */
static void check_class(struct slice type, struct slice body)
{
    enum content_class got;
    size_t len = 0, start = 0;
    while (len < type.len && type.data[len] != ';')
        len++;
    while (len > 0 && is_blank(type.data[len - 1]))
        len--;
    struct slice bare = slice_of(type.data, len);
    bool says_json = ends_with(bare, "+json") || (len == 16 && ends_with(bare, "application/json"));
    bool says_text = !says_json && len >= 5 && strncasecmp((const char *)bare.data, "text/", 5) == 0;
    while (start < body.len && strchr(" \t\r\n", body.data[start]) && body.data[start])
        start++;
    bool seems_json = start < body.len && (body.data[start] == '{' || body.data[start] == '[');
    enum status st = content_classify(type, body, &got);
    assert((st == ST_INVALID) == (says_json && !json_valid(body)));
    if (st != ST_OK)
        return;
    bool is_json = says_json || (!says_text && seems_json && json_valid(body));
    assert(got == (is_json ? CONTENT_JSON : utf8_valid(body) ? CONTENT_TEXT : CONTENT_BINARY));
}

static void check_same(const struct publish_item *a, const struct publish_item *b)
{
    assert(!a->refused == !b->refused);
    if (a->refused)
        return;
    assert(props_valid(a->user_props) && once_name_valid(a->once_key) && a->topic.len > 0);
    assert(a->type.len <= ITEM_TYPE_BYTES_MAX && (!a->type.data || utf8_valid_mqtt(a->type)));
    assert(a->content == b->content && slice_equal(a->topic, b->topic) &&
           slice_equal(a->payload, b->payload));
    assert(slice_equal(a->user_props, b->user_props) && slice_equal(a->once_key, b->once_key));
}

static void check_binary_event(const struct head *h, struct slice type)
{
    struct buf texts, more;
    struct publish_item once = {.topic = slice_cstr("t"), .type = type}, again = once;
    buf_init(&texts, TEXTS_BYTES_MAX);
    buf_init(&more, TEXTS_BYTES_MAX);
    enum status st = cloud_event_read_head(h, &texts, &once);
    assert(st == ST_OK && cloud_event_read_head(h, &more, &again) == ST_OK);
    assert(slice_equal(once.type, type)); /* Content-Type is the data's, whatever ce- fields say */
    if (type.len <= ITEM_TYPE_BYTES_MAX && utf8_valid_mqtt(type))
        check_same(&once, &again);
    buf_deinit(&texts);
    buf_deinit(&more);
}

static void check_structured_event(struct slice topic, struct slice body)
{
    struct buf texts, more;
    struct publish_item once, again;
    buf_init(&texts, CLOUD_EVENT_TEXTS * body.len + CLOUD_EVENT_EXTRA);
    buf_init(&more, CLOUD_EVENT_TEXTS * body.len + CLOUD_EVENT_EXTRA);
    enum status st = cloud_event_parse(body, topic, &texts, &once);
    assert(st == ST_OK && cloud_event_parse(body, topic, &more, &again) == ST_OK);
    check_same(&once, &again);
    assert(once.refused || !topic.len || slice_equal(once.topic, topic));
    buf_deinit(&texts);
    buf_deinit(&more);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct head h = {0};
    if (size > 1 << 15)
        return 0;
    struct slice body = read_head(slice_of(data, size), &h), type = h.fields[HEAD_CONTENT_TYPE];
    check_head(&h);
    check_key(h.fields[HEAD_IDEMPOTENCY_KEY]);
    check_class(type, body);
    if (trace_valid(h.fields[HEAD_TRACEPARENT]))
        assert(utf8_valid_mqtt(h.fields[HEAD_TRACEPARENT]));
    check_binary_event(&h, type);
    check_structured_event((struct slice){0}, body);
    check_structured_event(slice_cstr("t"), body);
    return 0;
}
