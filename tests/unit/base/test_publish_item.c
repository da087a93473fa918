/* A message to be published, as JSON. */
#include "gateway/publish_item.h"

#include <criterion/criterion.h>

static struct buf texts;

static struct publish_item parse(const char *object)
{
    struct publish_item item;
    buf_deinit(&texts);
    buf_init(&texts, 2 * strlen(object) + 1);
    cr_assert_eq(publish_item_parse(slice_cstr(object), &texts, &item), ST_OK);
    return item;
}

static void drop_texts(void)
{
    buf_deinit(&texts);
}

Test(publish_item, has_what_was_given, .fini = drop_texts)
{
    struct publish_item item =
        parse("{\"topic\":\"a\\/b\",\"data\":{\"x\":[1]},\"key\":\"k\\u00e4\",\"type\":\"t\","
              "\"ttl_ms\":5,\"retain\":true,\"producer\":\"p\",\"seq\":0}");
    cr_assert_null(item.refused, "%s", item.detail);
    cr_expect(slice_equal_cstr(item.topic, "a/b") && slice_equal_cstr(item.payload, "{\"x\":[1]}"));
    cr_expect(slice_equal_cstr(item.key, "k\xc3\xa4") && slice_equal_cstr(item.type, "t"));
    cr_expect(item.content == CONTENT_JSON && item.retain && item.ttl_ms == 5);
    cr_expect(item.has_sequence && item.sequence == 0 && slice_equal_cstr(item.producer, "p"));
    cr_expect_not_null(parse("{\"topic\":\"a\",\"text\":\"\",\"other\":[{}]}").refused);
}

Test(publish_item, payloads, .fini = drop_texts)
{
    static const struct {
        const char *object, *payload;
        enum content_class content;
    } rows[] = {
        {"{\"topic\":\"a\",\"data\":null}", "null", CONTENT_JSON},
        {"{\"topic\":\"a\",\"data\":\"x\"}", "\"x\"", CONTENT_JSON},
        {"{\"topic\":\"a\",\"text\":\"\"}", "", CONTENT_TEXT},
        {"{\"topic\":\"a\",\"text\":\"\\n\"}", "\n", CONTENT_TEXT},
        {"{\"topic\":\"a\",\"b64\":\"AGE=\",\"text\":null}", "\0a", CONTENT_BINARY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct publish_item item = parse(rows[i].object);
        size_t len = i == 4 ? 2 : strlen(rows[i].payload);
        cr_expect(!item.refused && item.content == rows[i].content, "%s", rows[i].object);
        cr_expect(slice_equal(item.payload, slice_of(rows[i].payload, len)), "%s", rows[i].object);
    }
}

Test(publish_item, refusals, .fini = drop_texts)
{
    static const struct {
        const char *object, *code;
    } rows[] = {
        {"", "bad_request"},
        {"[]", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1}}", "bad_request"},
        {"{\"data\":1}", "bad_request"},
        {"{\"topic\":null,\"data\":1}", "bad_request"},
        {"{\"topic\":1,\"data\":1}", "bad_request"},
        {"{\"topic\":\"a\"}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"text\":\"x\"}", "bad_request"},
        {"{\"topic\":\"a\",\"topic\":\"a\",\"data\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"text\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"b64\":\"A\"}", "bad_request"},
        {"{\"topic\":\"a\",\"b64\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"key\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"key\":\"\\u0000\"}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"type\":[]}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"ttl_ms\":0}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"ttl_ms\":-1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"retain\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"producer\":\"p\"}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"seq\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"producer\":\"\",\"seq\":1}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"producer\":\"p\",\"seq\":1.5}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"idempotency_key\":\"\"}", "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"producer\":\"p\",\"seq\":1,\"idempotency_key\":\"k\"}",
         "bad_request"},
        {"{\"topic\":\"a\",\"data\":1,\"deliver_at\":5}", "unsupported"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct publish_item item = parse(rows[i].object);
        cr_assert(item.refused && item.detail, "%s", rows[i].object);
        cr_expect_str_eq(item.refused, rows[i].code, "%s", rows[i].object);
    }
}

/* The same as a POST of that one message with the same Idempotency-Key: its digest must be equal. */
Test(publish_item, makes_properties, .fini = drop_texts)
{
    uint8_t props[ITEM_PROPS_BYTES_MAX];
    struct once_id id;
    struct slice type;
    struct publish_item item = parse(
        "{\"topic\":\"a\",\"text\":\"x\",\"type\":\"text/plain\",\"key\":\"k\",\"idempotency_key\":\"i\"}");
    struct slice got = slice_of(props, publish_item_props(&item, slice_cstr("me"), props));
    cr_expect(props_valid(got));
    cr_expect(props_find(got, PROP_CONTENT_TYPE, &type) && slice_equal_cstr(type, "text/plain"));
    cr_assert(once_id_read(got, &id));
    cr_expect(id.kind == ONCE_KEY && slice_equal_cstr(id.name, "i") && slice_equal_cstr(id.principal, "me"));
    cr_expect_eq(id.value, once_digest(slice_cstr("x"), slice_cstr("text/plain"), slice_cstr("k"), false));
    item = parse("{\"topic\":\"a\",\"text\":\"x\",\"producer\":\"p\",\"seq\":7}");
    cr_assert(once_id_read(slice_of(props, publish_item_props(&item, (struct slice){0}, props)), &id));
    cr_expect(id.kind == ONCE_PRODUCER && id.value == 7 && slice_equal_cstr(id.name, "p"));
    item = parse("{\"topic\":\"a\",\"text\":\"x\"}");
    cr_expect_eq(publish_item_props(&item, (struct slice){0}, props), 0);
}
