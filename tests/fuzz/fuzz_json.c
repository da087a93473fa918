/* JSON against jansson. Properties, of any bytes:
 *   1. json_valid says what jansson says, but for the differences listed at `expected_difference`;
 *   2. the scanner walks what the validator accepts, finds what jansson found, and never reads outside;
 *   3. json_put_embedded keeps the meaning and leaves no raw CR or LF;
 *   4. json_put_string and json_text undo each other on valid UTF-8. */
#include "core/json.h"
#include "core/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* Unlike assert it says what the input was about; libFuzzer keeps the input. */
#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

enum { OUT_BYTES_MAX = 1 << 20 };

/* Deepest nesting of a text that jansson accepted. Counted in the text: of two members with one name jansson
 * keeps only the last. */
static unsigned depth_of(struct slice text)
{
    unsigned depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest)
                deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

/* Where we say no and jansson yes: deeper than JSON_DEPTH_MAX; a raw NUL behind a number or a word, which
 * jansson overlooks (the byte it puts back looks like its empty buffer). Where we say yes and jansson no: a
 * number that no C type holds; U+0000 in a name (it keeps names as C strings). */
static bool expected_difference(struct slice text, bool ours, const json_t *theirs, json_error_t *error)
{
    if (!ours && theirs)
        return depth_of(text) > JSON_DEPTH_MAX || memchr(text.data, 0, text.len) != NULL;
    enum json_error_code code = json_error_code(error);
    return ours && !theirs && (code == json_error_numeric_overflow || code == json_error_null_byte_in_key);
}

static void check_string(struct json_value v, const json_t *theirs)
{
    struct buf text;
    buf_init(&text, OUT_BYTES_MAX);
    MUST(json_text(v, &text) == ST_OK);
    if (theirs)
        MUST(slice_equal(buf_slice(&text), slice_of(json_string_value(theirs), json_string_length(theirs))));
    MUST(utf8_valid(buf_slice(&text)));
    buf_deinit(&text);
}

static void check_number(struct json_value v, const json_t *theirs)
{
    uint64_t n = 0;
    enum status st = json_uint(v, &n);
    if (!theirs)
        return;
    json_int_t integer = json_is_integer(theirs) ? json_integer_value(theirs) : -1;
    bool is_uint = integer >= 0 && integer < (json_int_t)1 << 53 && v.raw.data[0] != '-';
    MUST((st == ST_OK) == is_uint);
    MUST(st != ST_OK || n == (uint64_t)integer);
}

static void check_value(struct json_value v, const json_t *theirs);

static void check_array(struct slice array, const json_t *theirs)
{
    size_t place = 0, count = 0;
    struct json_value element;
    enum status st;
    while ((st = json_element(array, &place, &element)) == ST_OK)
        check_value(element, theirs ? json_array_get(theirs, count++) : NULL);
    MUST(st == ST_NOT_FOUND);
    MUST(!theirs || json_array_size(theirs) == count);
}

/* Names may repeat: then jansson has fewer, and whose value it has is not compared. */
static void check_object(struct slice object, const json_t *theirs)
{
    size_t place = 0, count = 0;
    struct slice key;
    struct json_value value;
    enum status st;
    while ((st = json_member(object, &place, &key, &value)) == ST_OK)
        count++;
    MUST(st == ST_NOT_FOUND);
    bool comparable = theirs && json_object_size(theirs) == count;
    for (place = 0; json_member(object, &place, &key, &value) == ST_OK;) {
        struct buf name;
        buf_init(&name, OUT_BYTES_MAX);
        MUST(json_text((struct json_value){JSON_IS_STRING, slice_of(key.data - 1, key.len + 2)}, &name) ==
             ST_OK);
        bool has_nul = name.len > 0 && memchr(name.data, 0, name.len);
        MUST(buf_put_byte(&name, 0) == ST_OK);
        const json_t *same = comparable ? json_object_get(theirs, (const char *)name.data) : NULL;
        MUST(!comparable || same);
        MUST(json_key_is(key, (const char *)name.data) == !has_nul);
        struct json_value found;
        if (!has_nul)
            MUST(json_find(object, (const char *)name.data, &found) == ST_OK);
        if (comparable)
            MUST(slice_equal(found.raw, value.raw));
        buf_deinit(&name);
        check_value(value, same);
    }
}

/* Recursion is bounded: the value is valid, so JSON_DEPTH_MAX deep at most. */
static void check_value(struct json_value v, const json_t *theirs)
{
    MUST(json_valid(v.raw));
    switch (v.type) {
    case JSON_IS_NULL:
        MUST(!theirs || json_is_null(theirs));
        break;
    case JSON_IS_TRUE:
        MUST(!theirs || json_is_true(theirs));
        break;
    case JSON_IS_FALSE:
        MUST(!theirs || json_is_false(theirs));
        break;
    case JSON_IS_NUMBER:
        MUST(!theirs || json_is_number(theirs));
        check_number(v, theirs);
        break;
    case JSON_IS_STRING:
        MUST(!theirs || json_is_string(theirs));
        check_string(v, theirs);
        break;
    case JSON_IS_ARRAY:
        MUST(!theirs || json_is_array(theirs));
        check_array(v.raw, theirs);
        break;
    case JSON_IS_OBJECT:
        MUST(!theirs || json_is_object(theirs));
        check_object(v.raw, theirs);
        break;
    }
}

static json_t *jansson_load(struct slice text, json_error_t *error)
{
    return json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, error);
}

static void check_embedded(struct slice text, const json_t *theirs)
{
    struct buf out;
    buf_init(&out, OUT_BYTES_MAX);
    MUST(json_put_embedded(&out, text) == ST_OK);
    MUST(!memchr(out.data, '\n', out.len) && !memchr(out.data, '\r', out.len));
    MUST(json_valid(buf_slice(&out)));
    json_error_t error;
    json_t *again = jansson_load(buf_slice(&out), &error);
    MUST(!theirs == !again);
    MUST(!theirs || json_equal(theirs, again));
    json_decref(again);
    buf_deinit(&out);
}

static void check_put_string(struct slice text)
{
    struct buf json, back;
    buf_init(&json, OUT_BYTES_MAX * 6);
    buf_init(&back, OUT_BYTES_MAX);
    MUST(json_put_string(&json, text) == ST_OK);
    MUST(json_valid(buf_slice(&json)));
    MUST(json_text((struct json_value){JSON_IS_STRING, buf_slice(&json)}, &back) == ST_OK);
    MUST(slice_equal(buf_slice(&back), text));
    buf_deinit(&json);
    buf_deinit(&back);
}

/* On anything at all the scanner ends and stays inside (AddressSanitizer watches). */
static void walk_unchecked(struct slice text)
{
    size_t place = 0, used;
    struct slice key;
    struct json_value v;
    while (json_member(text, &place, &key, &v) == ST_OK)
        MUST(place <= text.len);
    place = 0;
    while (json_element(text, &place, &v) == ST_OK)
        MUST(place <= text.len);
    if (json_read(text, &v, &used) == ST_OK)
        MUST(used <= text.len && json_valid(v.raw));
    struct buf out;
    buf_init(&out, OUT_BYTES_MAX);
    if (json_text((struct json_value){JSON_IS_STRING, text}, &out) == ST_OK)
        MUST(out.len + 2 <= text.len);
    buf_deinit(&out);
    MUST(!json_key_is(text, "name") || text.len >= 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name; it has no header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size);
    walk_unchecked(text);
    if (utf8_valid(text))
        check_put_string(text);
    bool ours = json_valid(text);
    json_error_t error;
    json_t *theirs = size > 0 ? jansson_load(text, &error) : NULL;
    if (size > 0 && ours != (theirs != NULL))
        MUST(expected_difference(text, ours, theirs, &error));
    if (ours) {
        struct json_value v;
        size_t used;
        MUST(json_read(text, &v, &used) == ST_OK);
        check_value(v, theirs);
        check_embedded(text, theirs);
    }
    json_decref(theirs);
    return 0;
}
