#include "gateway/message_json.h"

#include <criterion/criterion.h>

static size_t prop(uint8_t *out, enum msg_prop type, const char *bytes, size_t len)
{
    out[0] = (uint8_t)type;
    out[1] = (uint8_t)len;
    out[2] = (uint8_t)(len >> 8);
    memcpy(out + 3, bytes, len);
    return 3 + len;
}

static void expect(enum content_class content, struct slice props, const char *key, const char *payload,
                   const char *want)
{
    struct msg *m;
    struct buf out;
    cr_assert_eq(msg_create(slice_cstr("a/b"), slice_cstr(key), props, slice_cstr(payload), &m), ST_OK);
    m->content = (uint8_t)content;
    m->partition = 2;
    m->offset = 255;
    m->ts_ms = 1790000000123;
    buf_init(&out, 4096);
    cr_assert_eq(message_json_put(&out, 0xabc, m, false), ST_OK);
    cr_expect(slice_equal_cstr(buf_slice(&out), want), "%.*s", SLICE_ARG(buf_slice(&out)));
    buf_deinit(&out);
    msg_unref(m);
}

Test(http_message_json, carries_the_payload_by_its_class)
{
#define HEAD "{\"topic\":\"a/b\",\"pos\":\"00000abc0002.00000000000000ff\",\"ts\":1790000000123"
    struct slice none = {0};
    expect(CONTENT_JSON, none, "", "{\"a\": 1.50}", HEAD ",\"data\":{\"a\": 1.50}}");
    expect(CONTENT_JSON, none, "", "{\n\"a\":\r1}", HEAD ",\"data\":{ \"a\": 1}}");
    expect(CONTENT_TEXT, none, "k\n", "say \"hi\"\n",
           HEAD ",\"key\":\"k\\n\",\"text\":\"say \\\"hi\\\"\\n\"}");
    expect(CONTENT_BINARY, none, "", "\xff\xfe", HEAD ",\"b64\":\"//4=\"}");
    expect(CONTENT_TEXT, none, "", "", HEAD ",\"text\":\"\"}");
}

Test(http_message_json, carries_type_and_user_properties)
{
    uint8_t props[200];
    size_t len = 0;
    len += prop(props + len, PROP_USER, "\1\0b2", 4);
    len += prop(props + len, PROP_CONTENT_TYPE, "text/plain", 10);
    len += prop(props + len, PROP_TRACE, "00-x", 4);
    len += prop(props + len, PROP_USER, "\1\0a1", 4);
    len += prop(props + len, PROP_USER, "\1\0b1", 4);
    expect(CONTENT_TEXT, slice_of(props, len), "", "x",
           HEAD
           ",\"type\":\"text/"
           "plain\",\"props\":{\"a\":\"1\",\"b\":[\"2\",\"1\"],\"traceparent\":\"00-x\"},\"text\":\"x\"}");
}

Test(http_message_json, does_not_pass_the_buffers_limit)
{
    struct msg *m;
    struct buf out;
    cr_assert_eq(
        msg_create(slice_cstr("a"), (struct slice){0}, (struct slice){0}, slice_cstr("xxxxxxxx"), &m), ST_OK);
    m->content = CONTENT_TEXT;
    buf_init(&out, 20);
    cr_expect_eq(message_json_put(&out, 1, m, false), ST_FULL);
    cr_expect(out.len <= 20);
    buf_deinit(&out);
    msg_unref(m);
}
