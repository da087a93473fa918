/* json_member would do for a document, but it looks at the whole array before it returns, and a batch may be
 * many megabytes: a loop would stand still for it. So the brackets and commas around the items are read here,
 * and every value between them by json_read, once. */
#include "gateway/http/batch_split.h"

#include "core/json.h"

static void skip_space(struct slice text, size_t *at)
{
    while (*at < text.len && (text.data[*at] == ' ' || text.data[*at] == '\t' || text.data[*at] == '\n' ||
                              text.data[*at] == '\r'))
        (*at)++;
}

/* Is this the next character? Then it is passed. */
static bool take(struct batch_split *s, struct slice text, char c)
{
    skip_space(text, &s->place);
    if (s->place == text.len || text.data[s->place] != (uint8_t)c)
        return false;
    s->place++;
    return true;
}

static enum status at_end(struct batch_split *s, struct slice text)
{
    skip_space(text, &s->place);
    s->phase = SPLIT_BEHIND;
    return s->place == text.len ? ST_NOT_FOUND : ST_INVALID;
}

static enum status read_value(struct batch_split *s, struct slice text, struct json_value *out)
{
    size_t used;
    if (json_read(slice_from(text, s->place), out, &used) != ST_OK)
        return ST_INVALID;
    s->place += used;
    return ST_OK;
}

/* --- documents ---------------------------------------------------------------------------------- */

/* Behind a member: another one (ST_OK), or the end of the document. */
static enum status next_member(struct batch_split *s, struct slice text)
{
    if (take(s, text, ','))
        return ST_OK;
    if (!take(s, text, '}') || !s->found)
        return ST_INVALID;
    return at_end(s, text);
}

/* The one member that there is. ST_OK: behind the bracket that opens the array. */
static enum status find_messages(struct batch_split *s, struct slice text)
{
    struct json_value key;
    if (read_value(s, text, &key) != ST_OK || key.type != JSON_IS_STRING || !take(s, text, ':'))
        return ST_INVALID;
    if (s->found || !json_key_is(slice_of(key.raw.data + 1, key.raw.len - 2), "messages") ||
        !take(s, text, '['))
        return ST_INVALID;
    s->found = true;
    return ST_OK;
}

/* --- items -------------------------------------------------------------------------------------- */

/* ST_OK: behind the opening bracket. */
static enum status open_items(struct batch_split *s, struct slice text)
{
    if (s->form == BATCH_ARRAY)
        return take(s, text, '[') ? ST_OK : ST_INVALID;
    return take(s, text, '{') ? find_messages(s, text) : ST_INVALID;
}

static enum status close_items(struct batch_split *s, struct slice text)
{
    if (s->form == BATCH_ARRAY)
        return at_end(s, text);
    enum status st = next_member(s, text);
    return st == ST_OK ? find_messages(s, text) : st; /* a second member is refused there */
}

static enum status next_line(struct batch_split *s, struct slice text, struct slice *item)
{
    while (s->place < text.len) {
        struct slice rest = slice_from(text, s->place);
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len, from = 0;
        s->place += end ? len + 1 : len;
        skip_space(slice_of(rest.data, len), &from);
        *item = slice_of(rest.data + from, len - from);
        if (item->len > 0)
            return ST_OK;
    }
    return ST_NOT_FOUND;
}

enum status batch_split_next(struct batch_split *s, struct slice text, struct slice *item)
{
    struct json_value value;
    if (s->form == BATCH_LINES)
        return next_line(s, text, item);
    if (s->form == BATCH_ONE) {
        bool done = s->place > 0;
        *item = text;
        s->place = text.len + 1;
        return done ? ST_NOT_FOUND : ST_OK;
    }
    if (s->phase == SPLIT_BEHIND)
        return at_end(s, text);
    bool first = s->phase == SPLIT_BEFORE;
    if (first) {
        enum status st = open_items(s, text);
        if (st != ST_OK)
            return st == ST_NOT_FOUND ? ST_INVALID : st; /* a document that ends before its messages */
        s->phase = SPLIT_ITEMS;
    }
    if (take(s, text, ']'))
        return close_items(s, text);
    if (!first && !take(s, text, ','))
        return ST_INVALID;
    enum status st = read_value(s, text, &value);
    if (st == ST_OK)
        *item = value.raw;
    return st;
}
