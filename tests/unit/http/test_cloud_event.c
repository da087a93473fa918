/* CloudEvents as messages, and what is none. */
#include "gateway/http/cloud_event.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct buf texts;

static void drop_texts(void)
{
    buf_deinit(&texts);
}

static struct publish_item parse(const char *object, const char *topic)
{
    struct publish_item item;
    buf_deinit(&texts);
    buf_init(&texts, CLOUD_EVENT_TEXTS * strlen(object) + CLOUD_EVENT_EXTRA);
    cr_assert_eq(cloud_event_parse(slice_cstr(object), slice_cstr(topic), &texts, &item), ST_OK);
    return item;
}

/* "name=value name=value" of user properties. */
static void list_props(struct slice props, char *out, size_t size)
{
    size_t place = 0, len = 0;
    enum msg_prop type;
    struct slice value;
    out[0] = '\0';
    cr_assert(props_valid(props));
    while (props_next(props, &place, &type, &value)) {
        size_t name = value.data[0];
        cr_assert_eq(type, PROP_USER);
        len += (size_t)snprintf(out + len, size - len, "%s%.*s=%.*s", len ? " " : "", (int)name,
                                value.data + 2, (int)(value.len - 2 - name), value.data + 2 + name);
    }
}

Test(cloud_event, keeps_attributes_in_order, .fini = drop_texts)
{
    char props[200];
    struct publish_item item =
        parse("{\"id\":\"1\",\"source\":\"s\",\"specversion\":\"1.0\",\"n\":5,\"data\":[1],\"type\":\"t\","
              "\"b\":true,\"none\":null,\"subject\":\"a\\/b\",\"datacontenttype\":\"application/json\"}",
              "");
    cr_assert_null(item.refused, "%s", item.detail);
    list_props(item.user_props, props, sizeof props);
    cr_expect_str_eq(props, "id=1 source=s specversion=1.0 n=5 type=t b=true subject=a/b");
    cr_expect(slice_equal_cstr(item.topic, "a/b") && slice_equal_cstr(item.payload, "[1]"));
    cr_expect(slice_equal_cstr(item.type, "application/json") && item.content == CONTENT_JSON);
    cr_expect(slice_starts_with(item.once_key, slice_cstr("ce:")) &&
              item.once_key.data[item.once_key.len - 1] == '1');
}

Test(cloud_event, is_the_same_by_source_and_id, .fini = drop_texts)
{
    static const char *const events[] = {
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}",
        "{\"type\":\"u\",\"id\":\"1\",\"source\":\"s\",\"specversion\":\"1.0\"}",
        "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"s\",\"type\":\"t\"}",
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"r\",\"type\":\"t\"}",
    };
    char keys[4][100];
    for (size_t i = 0; i < 4; i++) {
        struct publish_item item = parse(events[i], "topic");
        cr_assert_null(item.refused, "%s", item.detail);
        snprintf(keys[i], sizeof keys[i], "%.*s", SLICE_ARG(item.once_key));
    }
    cr_expect_str_eq(keys[0], keys[1]);
    cr_expect_str_neq(keys[0], keys[2]);
    cr_expect_str_neq(keys[0], keys[3]);
}

Test(cloud_event, reads_heads, .fini = drop_texts)
{
    struct head h = {0};
    struct publish_item item = {.type = slice_cstr("text/plain")};
    char props[200];
    head_add(&h, slice_cstr("CE-SpecVersion"), slice_cstr(" 1.0 "));
    head_add(&h, slice_cstr("ce-ID"), slice_cstr("%41%zz%%4!%"));
    head_add(&h, slice_cstr("Content-Type"), slice_cstr("text/plain"));
    head_add(&h, slice_cstr("ce-source"), slice_cstr("s"));
    head_add(&h, slice_cstr("ce-type"), slice_cstr("t"));
    head_add(&h, slice_cstr("ce-subject"), slice_cstr("a"));
    buf_init(&texts, 1 << 16);
    cr_assert_eq(cloud_event_read_head(&h, &texts, &item), ST_OK);
    cr_assert_null(item.refused, "%s", item.detail);
    list_props(item.user_props, props, sizeof props);
    cr_expect_str_eq(props, "specversion=1.0 id=A%zz%%4!% source=s type=t subject=a");
    cr_expect(slice_equal_cstr(item.topic, "a") && slice_equal_cstr(item.type, "text/plain"));
}
