/* part: http */
/* A batch's body. Properties: a document or array comes to a proper end exactly when jansson says that it is
 * one ("messages" once, an array), and then has as many items as jansson counts; every item is valid JSON;
 * splitting in two goes gives the same as in one; of an item, whatever is decoded lies inside the item or the
 * text buffer, and what is taken as a message (or as a CloudEvent) is an object with a topic. */
#include "gateway/http/batch_split.h"

#include "core/json.h"
#include "gateway/http/cloud_event.h"
#include "gateway/publish_item.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct slice s, struct slice text, const struct buf *texts)
{
    if (!s.data)
        return;
    bool in_text = s.data >= text.data && s.data + s.len <= text.data + text.len;
    bool in_texts = s.data >= texts->data && s.data + s.len <= texts->data + texts->len;
    assert(in_text || in_texts);
}

static void check_item(struct slice text)
{
    struct buf texts;
    struct publish_item item;
    uint8_t props[ITEM_PROPS_BYTES_MAX];
    buf_init(&texts, 2 * text.len + 1);
    assert(publish_item_parse(text, &texts, &item) == ST_OK);
    if (!item.refused) {
        assert(json_valid(text) && item.topic.data && item.has_payload);
        inside(item.topic, text, &texts);
        inside(item.payload, text, &texts);
        inside(item.key, text, &texts);
        inside(item.producer, text, &texts);
        inside(item.once_key, text, &texts);
        size_t len = publish_item_props(&item, slice_cstr("someone"), props);
        assert(len <= sizeof props && props_valid(slice_of(props, len)));
    } else {
        assert(item.detail);
    }
    buf_deinit(&texts);
}

/* As a CloudEvent. Properties that are handed on are well formed. */
static void check_event(struct slice text)
{
    struct buf texts;
    struct publish_item item;
    buf_init(&texts, CLOUD_EVENT_TEXTS * text.len + CLOUD_EVENT_EXTRA);
    assert(cloud_event_parse(text, (struct slice){0}, &texts, &item) == ST_OK);
    if (!item.refused) {
        assert(json_valid(text) && item.topic.len > 0 && once_name_valid(item.once_key));
        assert(props_valid(item.user_props));
        inside(item.topic, text, &texts);
        inside(item.payload, text, &texts);
        inside(item.type, text, &texts);
        inside(item.user_props, text, &texts);
    }
    buf_deinit(&texts);
}

/* jansson knows no limit of 64 levels and takes fewer numbers, so it is asked only about what we take. */
static void check_against_jansson(enum batch_form form, struct slice text, size_t count)
{
    json_t *root = json_loadb((const char *)text.data, text.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    if (!root) /* a number beyond its own range */
        return;
    json_t *items = form == BATCH_DOCUMENT ? json_object_get(root, "messages") : root;
    assert(json_is_array(items) && json_array_size(items) == count);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 16)
        return 0;
    enum batch_form form = (enum batch_form)(data[0] % 3);
    uint8_t *copy = malloc(size);
    memcpy(copy, data + 1, size - 1);
    struct slice text = slice_of(copy, size - 1), item;
    struct batch_split s = batch_split_begin(form);
    enum status st;
    size_t count = 0, before = 0;
    while ((st = batch_split_next(&s, text, &item)) == ST_OK) {
        assert(item.len > 0 && s.place > before && s.place <= text.len);
        assert(form == BATCH_LINES || json_valid(item));
        before = s.place;
        check_item(item);
        check_event(item);
        count++;
    }
    assert(st == ST_NOT_FOUND || (st == ST_INVALID && form != BATCH_LINES));
    if (st == ST_NOT_FOUND && form != BATCH_LINES)
        check_against_jansson(form, text, count);
    free(copy);
    return 0;
}
