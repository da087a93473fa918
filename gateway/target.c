/* The raw path is split at its slashes first and each segment decoded after that, once: the other order lets
 * %2F make levels, and decoding twice lets %252F do it. A decoded segment with a '/' in it is refused, so the
 * segments can be joined again and the whole path be handled as one text.
 *
 * Decoding never makes a text longer, so one space as large as the target holds the path and, behind it,
 * every parameter of the query. */
#include "gateway/target.h"

#include <assert.h>
#include <strings.h>

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The byte that "%xy" at `at` stands for, -1 when it is not one. */
static int percent_byte(struct slice raw, size_t at)
{
    if (raw.len - at < 3)
        return -1;
    int high = hex_digit(raw.data[at + 1]), low = hex_digit(raw.data[at + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* --- path --------------------------------------------------------------------------------------- */

static enum target_flaw decode_segment(struct slice raw, uint8_t *out, size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        int byte = raw.data[i];
        if (byte == '%') {
            byte = percent_byte(raw, i);
            if (byte < 0)
                return TARGET_BAD_PERCENT;
            if (byte == '/')
                return TARGET_ENCODED_SLASH;
            if (byte == 0)
                return TARGET_ENCODED_NUL;
            i += 2;
        }
        out[n++] = (uint8_t)byte;
    }
    if (n == 0)
        return TARGET_EMPTY_SEGMENT;
    if (out[0] == '.' && (n == 1 || (n == 2 && out[1] == '.')))
        return TARGET_DOT_SEGMENT;
    *len = n;
    return TARGET_FINE;
}

static bool has_bad_byte(struct slice raw)
{
    for (size_t i = 0; i < raw.len; i++)
        if (raw.data[i] <= ' ' || raw.data[i] == 0x7f || raw.data[i] == '#')
            return true;
    return false;
}

/* `raw` without the trailing slash, which may leave nothing. */
static enum target_flaw decode_path(struct slice raw, uint8_t *space, size_t *len)
{
    size_t used = 0;
    for (size_t at = 0; at < raw.len;) {
        size_t end = at + 1, n = 0;
        while (end < raw.len && raw.data[end] != '/')
            end++;
        space[used++] = '/';
        enum target_flaw flaw = decode_segment(slice_of(raw.data + at + 1, end - at - 1), space + used, &n);
        if (flaw != TARGET_FINE)
            return flaw;
        used += n;
        at = end;
    }
    *len = used;
    return TARGET_FINE;
}

enum target_flaw target_parse(struct slice raw, uint8_t *space, struct target *out)
{
    if (raw.len == 0 || raw.data[0] != '/')
        return TARGET_NOT_ORIGIN_FORM;
    if (has_bad_byte(raw))
        return TARGET_BAD_BYTE;
    const uint8_t *mark = memchr(raw.data, '?', raw.len);
    struct slice path = mark ? slice_of(raw.data, (size_t)(mark - raw.data)) : raw;
    bool slash = path.data[path.len - 1] == '/';
    size_t len = 0;
    enum target_flaw flaw = decode_path(slice_of(path.data, path.len - slash), space, &len);
    if (flaw != TARGET_FINE)
        return flaw;
    if (len == 0) { /* "/" */
        space[len++] = '/';
        slash = false;
    }
    out->path = slice_of(space, len);
    out->trailing_slash = slash;
    out->query = slice_from(raw, path.len + 1);
    out->space = space + len;
    return TARGET_FINE;
}

bool target_take_authority(struct slice *raw, struct slice *authority)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t start = strlen(schemes[i]), end = start;
        if (raw->len < start || strncasecmp((const char *)raw->data, schemes[i], start) != 0)
            continue;
        while (end < raw->len && raw->data[end] != '/' && raw->data[end] != '?')
            end++;
        *authority = slice_of(raw->data + start, end - start);
        *raw = slice_from(*raw, end);
        return authority->len > 0;
    }
    return false;
}

const char *target_flaw_text(enum target_flaw flaw)
{
    switch (flaw) {
    case TARGET_FINE:
        break;
    case TARGET_NOT_ORIGIN_FORM:
        return "the request target must begin with '/'";
    case TARGET_BAD_BYTE:
        return "the request target has a control character, a space or a fragment in it";
    case TARGET_BAD_PERCENT:
        return "a '%' in the path must be followed by two hexadecimal digits";
    case TARGET_EMPTY_SEGMENT:
        return "the path has an empty segment; a topic with an empty level goes into ?topic=, any user into "
               "?user=";
    case TARGET_DOT_SEGMENT:
        return "the path has a segment '.' or '..'; a topic with such a level goes into ?topic=, any "
               "user into ?user=";
    case TARGET_ENCODED_SLASH:
        return "the path has %2F in it; a topic's levels are segments of the path, any other topic goes into "
               "?topic=, any user into ?user=";
    case TARGET_ENCODED_NUL:
        return "the path has %00 in it; no topic has one, see ?topic=";
    }
    return "";
}

/* --- query -------------------------------------------------------------------------------------- */

/* Is the '+' at `at` a whole level? Before it the text, decoded so far, ends with a slash. */
static bool plus_is_level(struct slice raw, size_t at, const uint8_t *out, size_t used)
{
    if (used > 0 && out[used - 1] != '/')
        return false;
    return at + 1 == raw.len || raw.data[at + 1] == '/' ||
           (raw.data[at + 1] == '%' && percent_byte(raw, at + 1) == '/');
}

static enum status decode_text(struct target *t, struct slice raw, struct slice *text)
{
    uint8_t *out = t->space;
    size_t used = 0;
    for (size_t i = 0; i < raw.len; i++) {
        int byte = raw.data[i];
        if (byte == '%') {
            byte = percent_byte(raw, i);
            if (byte < 0)
                return ST_INVALID;
            i += 2;
        } else if (byte == '+' && !plus_is_level(raw, i, out, used)) {
            byte = ' ';
        }
        out[used++] = (uint8_t)byte;
    }
    t->space += used;
    *text = slice_of(out, used);
    return ST_OK;
}

enum status target_parameter(struct target *t, struct slice *name, struct slice *value)
{
    while (t->query.len > 0 && t->query.data[0] == '&')
        t->query = slice_from(t->query, 1);
    if (t->query.len == 0)
        return ST_NOT_FOUND;
    const uint8_t *end = memchr(t->query.data, '&', t->query.len);
    struct slice pair = end ? slice_of(t->query.data, (size_t)(end - t->query.data)) : t->query;
    t->query = slice_from(t->query, pair.len);
    const uint8_t *equals = memchr(pair.data, '=', pair.len);
    size_t name_len = equals ? (size_t)(equals - pair.data) : pair.len;
    enum status st = decode_text(t, slice_of(pair.data, name_len), name);
    if (st == ST_OK)
        st = decode_text(t, slice_from(pair, name_len + 1), value);
    return st;
}
