/* part: ws */
/* A line of a client. Properties: "this is a line at all" is exactly "a valid JSON object whose id, if any,
 * is an integer", whatever is decoded lies inside the line or the text buffer, and what an answer repeats of
 * it is read back by jansson as the same text, in one JSON object without a line break. */
#include "core/json.h"
#include "gateway/ws/reply.h"
#include "gateway/ws/request.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct slice s, struct slice line, const struct buf *texts)
{
    const uint8_t *from = s.data;
    if (!from)
        return;
    bool in_line = from >= line.data && from + s.len <= line.data + line.len;
    bool in_texts = from >= texts->data && from + s.len <= texts->data + texts->len;
    assert(in_line || in_texts);
}

static void check_repeat(struct slice topic, uint64_t id, bool has_id)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    struct ws_id given = {.given = has_id, .value = id};
    if (ws_put_unsubscribed(&out, given, topic) == ST_OK) {
        assert(!memchr(out.data, '\n', out.len) && !memchr(out.data, '\r', out.len));
        json_t *root =
            json_loadb((const char *)out.data, out.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert(json_is_object(root));
        json_t *repeated = json_object_get(json_object_get(root, "ok"), "topic");
        assert(json_string_length(repeated) == topic.len);
        assert(topic.len == 0 || memcmp(json_string_value(repeated), topic.data, topic.len) == 0);
        json_decref(root);
    }
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 16)
        return 0;
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    struct slice line = slice_of(copy, size);
    struct buf texts;
    struct ws_request r;
    buf_init(&texts, 2 * size + 1);
    enum status st = ws_request_parse(line, &texts, &r);
    assert(st == ST_OK || st == ST_INVALID);
    if (st == ST_OK) {
        assert(json_valid(line));
        inside(r.topic, line, &texts);
        if (!r.refused) {
            inside(r.payload, line, &texts);
            inside(r.key, line, &texts);
            inside(r.type, line, &texts);
            inside(r.session, line, &texts);
            inside(r.after_filters, line, &texts);
            for (unsigned i = 0; i < r.after_count; i++)
                inside(r.after[i], line, &texts);
            if (r.operation == WS_OP_UNSUB || r.operation == WS_OP_SUB)
                check_repeat(r.topic, r.id, r.has_id);
        }
        assert(r.operation != WS_OP_OTHER || r.refused);
        assert(r.operation != WS_OP_ACK || r.refused || r.has_n);
        assert(r.n < (uint64_t)1 << 53 && r.msgs < (uint64_t)1 << 53 && r.bytes < (uint64_t)1 << 53);
        assert(!r.has_id || r.id < (uint64_t)1 << 53);
    } else {
        /* A line is refused as a whole for its JSON, for not being an object, or for its id. */
        struct json_value id;
        assert(!json_valid(line) || json_find(line, "id", &id) != ST_NOT_FOUND);
    }
    buf_deinit(&texts);
    free(copy);
    return 0;
}
