#include "gateway/content.h"

#include "core/json.h"
#include "core/utf8.h"

#include <strings.h>

/* The type without parameters: "application/json; charset=utf-8" -> "application/json". */
static struct slice bare_type(struct slice type)
{
    size_t len = 0;
    while (len < type.len && type.data[len] != ';')
        len++;
    while (len > 0 && (type.data[len - 1] == ' ' || type.data[len - 1] == '\t'))
        len--;
    return slice_of(type.data, len);
}

static bool ends_with(struct slice text, const char *end)
{
    size_t len = strlen(end);
    return text.len >= len && strncasecmp((const char *)text.data + text.len - len, end, len) == 0;
}

static bool type_is_json(struct slice type)
{
    return (type.len == 16 && ends_with(type, "application/json")) || ends_with(type, "+json");
}

static bool looks_like_json(struct slice payload)
{
    size_t i = 0;
    while (i < payload.len && (payload.data[i] == ' ' || payload.data[i] == '\t' || payload.data[i] == '\r' ||
                               payload.data[i] == '\n'))
        i++;
    return i < payload.len && (payload.data[i] == '{' || payload.data[i] == '[');
}

enum status content_classify(struct slice type, struct slice payload, enum content_class *out)
{
    struct slice bare = bare_type(type);
    if (bare.len > 0 && type_is_json(bare)) {
        if (!json_valid(payload))
            return ST_INVALID;
        *out = CONTENT_JSON;
    } else if (bare.len >= 5 && strncasecmp((const char *)bare.data, "text/", 5) == 0) {
        *out = utf8_valid(payload) ? CONTENT_TEXT : CONTENT_BINARY;
    } else if (looks_like_json(payload) && json_valid(payload)) {
        *out = CONTENT_JSON;
    } else {
        *out = utf8_valid(payload) ? CONTENT_TEXT : CONTENT_BINARY;
    }
    return ST_OK;
}
