/* JSON without allocation.
 *
 * Everything rests on one function, scan_value, which finds the end of a value and checks all of it on
 * the way. Nesting is not recursion but one bit a level (object or array) in a 64-bit word, so a hostile
 * text costs no stack and JSON_DEPTH_MAX is the width of that word. The pull scanner calls scan_value for
 * each member, therefore what it hands out is valid in itself, whether or not json_valid was asked before.
 *
 * Strings are where the bytes are: they are read 16 or 8 at a time, looking for the three things that end a
 * run (quote, backslash, control character). Whether a byte above 0x7f came by is collected beside, and
 * only then the string is checked as UTF-8; no byte of a UTF-8 sequence looks like a quote or a backslash,
 * so the end can be found first. Section numbers are those of RFC 8259. */
#include "core/json.h"

#include "core/utf8.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

_Static_assert(JSON_DEPTH_MAX <= 64, "scan_value keeps one bit a level in a 64-bit word");

static unsigned depth_max = JSON_DEPTH_MAX;

void json_limit_depth(unsigned depth)
{
    depth_max = depth;
}

static const uint64_t ONES = 0x0101010101010101u;
static const uint64_t HIGHS = 0x8080808080808080u;
static const uint64_t INTEGER_MAX = ((uint64_t)1 << 53) - 1;

/* White space (2). */
static inline const uint8_t *skip_space(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static inline bool is_plain(uint8_t c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

/* Marks (0x80) the bytes of a word that are not plain. The lowest mark is always right; a borrow can only
 * add marks above a right one, so "any mark" is exact and so is "the first". */
static inline uint64_t mark_special(uint64_t word)
{
    uint64_t quote = word ^ ONES * '"', slash = word ^ ONES * '\\';
    return (((word - ONES * 0x20) & ~word) | ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash)) & HIGHS;
}

/* Passes over characters that stand for themselves. *seen collects bit 7 of what came by (and perhaps of a
 * few bytes behind, which is harmless): a mark anywhere means that there was more than ASCII. */
static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end, uint64_t *seen)
{
#ifdef __SSE2__ /* part of every x86-64; 3 times as fast on long strings, a quarter less time on short ones  \
                 */
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    for (; end - p >= 16; p += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i is_control = _mm_cmpeq_epi8(_mm_min_epu8(text, control), text);
        __m128i is_mark = _mm_or_si128(_mm_cmpeq_epi8(text, quote), _mm_cmpeq_epi8(text, slash));
        unsigned specials = (unsigned)_mm_movemask_epi8(_mm_or_si128(is_mark, is_control));
        *seen |= _mm_movemask_epi8(text) != 0 ? HIGHS : 0;
        if (specials != 0)
            return p + __builtin_ctz(specials);
    }
#endif
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        *seen |= word & HIGHS;
        uint64_t marks = mark_special(word);
        if (marks != 0) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return p + (__builtin_ctzll(marks) >> 3);
#else
            break;
#endif
        }
    }
    for (; p < end && is_plain(*p); p++)
        *seen |= *p & 0x80u;
    return p;
}

static inline int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "\uXXXX" at p; -1 if it is not that. */
static int32_t hex_escape(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    int32_t unit = 0;
    for (int i = 2; i < 6; i++) {
        int digit = hex_value(p[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* The escape that begins at p (7). Returns its length and its character, or 0 when it is none. A code
 * point beyond the basic plane is two escapes; one half alone is no character (8.2). */
static unsigned read_escape(const uint8_t *p, const uint8_t *end, uint32_t *character)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2)
        return 0;
    if (p[1] != 'u') {
        const char *at = p[1] != '\0' ? strchr(from, p[1]) : NULL;
        if (!at)
            return 0;
        *character = (uint8_t)to[at - from];
        return 2;
    }
    int32_t unit = hex_escape(p, end);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return 0;
    if (unit < 0xd800 || unit > 0xdbff) {
        *character = (uint32_t)unit;
        return 6;
    }
    int32_t low = hex_escape(p + 6, end);
    if (low < 0xdc00 || low > 0xdfff)
        return 0;
    *character = 0x10000u + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    return 12;
}

/* p is behind the opening quote; the result behind the closing one. All scan_* return NULL when the text
 * breaks the grammar or ends too early. */
static const uint8_t *scan_string(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *begin = p;
    uint64_t seen = 0;
    for (;;) {
        p = skip_plain(p, end, &seen);
        if (p == end)
            return NULL;
        if (*p == '"')
            break;
        uint32_t character;
        unsigned len = *p == '\\' ? read_escape(p, end, &character) : 0;
        if (len == 0)
            return NULL;
        p += len;
    }
    if (seen != 0 && !utf8_valid(slice_of(begin, (size_t)(p - begin))))
        return NULL;
    return p + 1;
}

static inline bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* One digit or more. */
static const uint8_t *scan_digits(const uint8_t *p, const uint8_t *end)
{
    if (p == end || !is_digit(*p))
        return NULL;
    while (p < end && is_digit(*p))
        p++;
    return p;
}

/* Numbers (6). */
static const uint8_t *scan_number(const uint8_t *p, const uint8_t *end)
{
    if (*p == '-')
        p++;
    if (p < end && *p == '0')
        p++;
    else
        p = scan_digits(p, end);
    if (p && p < end && *p == '.')
        p = scan_digits(p + 1, end);
    if (p && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        p = scan_digits(p, end);
    }
    return p;
}

static const uint8_t *scan_word(const uint8_t *p, const uint8_t *end, const char *word, size_t len)
{
    return (size_t)(end - p) >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

/* A value that is neither object nor array; p < end. */
static inline const uint8_t *scan_scalar(const uint8_t *p, const uint8_t *end)
{
    switch (*p) {
    case '"':
        return scan_string(p + 1, end);
    case 't':
        return scan_word(p, end, "true", 4);
    case 'f':
        return scan_word(p, end, "false", 5);
    case 'n':
        return scan_word(p, end, "null", 4);
    default:
        return *p == '-' || is_digit(*p) ? scan_number(p, end) : NULL;
    }
}

/* A member's name and colon; the result is where its value begins. */
static const uint8_t *scan_name(const uint8_t *p, const uint8_t *end)
{
    if (p == end || *p != '"')
        return NULL;
    p = scan_string(p + 1, end);
    if (!p)
        return NULL;
    p = skip_space(p, end);
    if (p == end || *p != ':')
        return NULL;
    return skip_space(p + 1, end);
}

/* The value that begins at p, where there is no white space. */
static const uint8_t *scan_value(const uint8_t *p, const uint8_t *end)
{
    uint64_t in_object = 0; /* bit 0: the innermost container is an object */
    unsigned depth = 0;
    for (;;) {
        if (!p || p == end)
            return NULL;
        if (*p == '{' || *p == '[') {
            if (depth == depth_max)
                return NULL;
            depth++;
            in_object = in_object << 1 | (*p == '{');
            p = skip_space(p + 1, end);
            if (p == end)
                return NULL;
            if (*p != ((in_object & 1) ? '}' : ']')) {
                if (in_object & 1)
                    p = scan_name(p, end);
                continue;
            }
        } else {
            p = scan_scalar(p, end);
            if (!p)
                return NULL;
        }
        /* Behind a value, or at the bracket that ends an empty container. */
        for (;;) {
            if (depth == 0)
                return p;
            p = skip_space(p, end);
            if (p == end)
                return NULL;
            if (*p == ',')
                break;
            if (*p != ((in_object & 1) ? '}' : ']'))
                return NULL;
            p++;
            depth--;
            in_object >>= 1;
        }
        p = skip_space(p + 1, end);
        if (in_object & 1)
            p = scan_name(p, end);
    }
}

bool json_valid(struct slice text)
{
    if (text.len == 0)
        return false;
    const uint8_t *end = text.data + text.len;
    const uint8_t *p = scan_value(skip_space(text.data, end), end);
    return p && skip_space(p, end) == end;
}

static enum json_type type_of(uint8_t first)
{
    switch (first) {
    case '{':
        return JSON_IS_OBJECT;
    case '[':
        return JSON_IS_ARRAY;
    case '"':
        return JSON_IS_STRING;
    case 't':
        return JSON_IS_TRUE;
    case 'f':
        return JSON_IS_FALSE;
    case 'n':
        return JSON_IS_NULL;
    default:
        return JSON_IS_NUMBER;
    }
}

/* A value at p, where there is no white space; NULL or its end. */
static const uint8_t *take_value(const uint8_t *p, const uint8_t *end, struct json_value *out)
{
    const uint8_t *after = scan_value(p, end);
    if (after)
        *out = (struct json_value){type_of(*p), slice_of(p, (size_t)(after - p))};
    return after;
}

enum status json_read(struct slice text, struct json_value *out, size_t *used)
{
    if (text.len == 0)
        return ST_INVALID;
    const uint8_t *end = text.data + text.len;
    const uint8_t *after = take_value(skip_space(text.data, end), end, out);
    if (!after)
        return ST_INVALID;
    *used = (size_t)(after - text.data);
    return ST_OK;
}

/* Goes to the next item of a container whose brackets are given: ST_OK with *item at its first byte,
 * ST_NOT_FOUND at the end (nothing but white space may follow the bracket), ST_INVALID. */
static enum status next_item(struct slice text, size_t place, const char brackets[2], const uint8_t **item)
{
    if (text.len == 0 || place > text.len)
        return ST_INVALID;
    const uint8_t *end = text.data + text.len;
    const uint8_t *p = skip_space(text.data + place, end);
    if (p == end)
        return ST_INVALID;
    if (place == 0) {
        if (*p != (uint8_t)brackets[0])
            return ST_INVALID;
        p = skip_space(p + 1, end);
    }
    if (p < end && *p == (uint8_t)brackets[1])
        return skip_space(p + 1, end) == end ? ST_NOT_FOUND : ST_INVALID;
    if (place != 0) {
        if (p == end || *p != ',')
            return ST_INVALID;
        p = skip_space(p + 1, end);
    }
    *item = p;
    return ST_OK;
}

enum status json_member(struct slice object, size_t *place, struct slice *key, struct json_value *value)
{
    const uint8_t *item;
    enum status st = next_item(object, *place, "{}", &item);
    if (st != ST_OK)
        return st;
    const uint8_t *end = object.data + object.len;
    if (item == end || *item != '"')
        return ST_INVALID;
    const uint8_t *name_end = scan_string(item + 1, end);
    if (!name_end)
        return ST_INVALID;
    const uint8_t *colon = skip_space(name_end, end);
    if (colon == end || *colon != ':')
        return ST_INVALID;
    const uint8_t *after = take_value(skip_space(colon + 1, end), end, value);
    if (!after)
        return ST_INVALID;
    *key = slice_of(item + 1, (size_t)(name_end - item) - 2);
    *place = (size_t)(after - object.data);
    return ST_OK;
}

enum status json_element(struct slice array, size_t *place, struct json_value *value)
{
    const uint8_t *item;
    enum status st = next_item(array, *place, "[]", &item);
    if (st != ST_OK)
        return st;
    const uint8_t *after = take_value(item, array.data + array.len, value);
    if (!after)
        return ST_INVALID;
    *place = (size_t)(after - array.data);
    return ST_OK;
}

static unsigned put_utf8(uint32_t c, uint8_t *to)
{
    if (c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (uint8_t)(0xc0 | c >> 6);
        to[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (uint8_t)(0xe0 | c >> 12);
        to[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        to[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | c >> 18);
    to[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    to[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    to[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

bool json_key_is(struct slice key, const char *name)
{
    struct slice rest = slice_cstr(name);
    if (key.len == 0)
        return rest.len == 0;
    const uint8_t *p = key.data, *end = key.data + key.len;
    if (!memchr(p, '\\', key.len))
        return slice_equal(key, rest);
    while (p < end) {
        uint8_t text[4] = {*p};
        unsigned text_len = 1, used = 1;
        if (*p == '\\') {
            uint32_t character;
            used = read_escape(p, end, &character);
            if (used == 0)
                return false;
            text_len = put_utf8(character, text);
        }
        if (!slice_starts_with(rest, slice_of(text, text_len)))
            return false;
        rest = slice_from(rest, text_len);
        p += used;
    }
    return rest.len == 0;
}

enum status json_find(struct slice object, const char *name, struct json_value *value)
{
    size_t place = 0;
    for (;;) {
        struct slice key;
        struct json_value found;
        enum status st = json_member(object, &place, &key, &found);
        if (st != ST_OK)
            return st;
        if (json_key_is(key, name)) {
            *value = found;
            return ST_OK;
        }
    }
}

enum status json_uint(struct json_value v, uint64_t *out)
{
    const uint8_t *p = v.raw.data;
    if (v.type != JSON_IS_NUMBER || v.raw.len == 0 || v.raw.len > 16 || (p[0] == '0' && v.raw.len > 1))
        return ST_INVALID;
    uint64_t number = 0; /* 16 digits fit */
    for (size_t i = 0; i < v.raw.len; i++) {
        if (!is_digit(p[i]))
            return ST_INVALID;
        number = number * 10 + (uint64_t)(p[i] - '0');
    }
    if (number > INTEGER_MAX)
        return ST_INVALID;
    *out = number;
    return ST_OK;
}

/* buf_reserve does not say why it refused. */
static enum status why_no_room(const struct buf *b, size_t extra)
{
    return extra > b->limit - b->len ? ST_FULL : ST_NO_MEMORY;
}

/* Resolves the escapes of `text` into `to` (NULL: only counts). False when one is malformed. */
static bool decode_text(struct slice text, uint8_t *to, size_t *len)
{
    const uint8_t *p = text.data, *end = text.data + text.len;
    size_t total = 0;
    while (p < end) {
        const uint8_t *slash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((slash ? slash : end) - p);
        if (to && run > 0)
            memcpy(to + total, p, run);
        total += run;
        p += run;
        if (p == end)
            break;
        uint32_t character;
        unsigned used = read_escape(p, end, &character);
        if (used == 0)
            return false;
        uint8_t bytes[4];
        unsigned count = put_utf8(character, to ? to + total : bytes);
        total += count;
        p += used;
    }
    *len = total;
    return true;
}

enum status json_text(struct json_value v, struct buf *out)
{
    if (v.type != JSON_IS_STRING || v.raw.len < 2)
        return ST_INVALID;
    struct slice inside = slice_of(v.raw.data + 1, v.raw.len - 2);
    if (inside.len == 0)
        return ST_OK;
    if (!memchr(inside.data, '\\', inside.len))
        return buf_put(out, inside);
    /* Counted first: the buffer's limit is about the text, not about how it was written. */
    size_t len;
    if (!decode_text(inside, NULL, &len))
        return ST_INVALID;
    uint8_t *to = buf_reserve(out, len);
    if (!to)
        return why_no_room(out, len);
    if (!decode_text(inside, to, &len))
        return ST_INVALID;
    buf_advance(out, len);
    return ST_OK;
}

/* The two-character escape's second character, or 0 when there is only \u00XX. */
static char short_escape(uint8_t c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

static size_t escaped_len(struct slice text)
{
    const uint8_t *p = text.data, *end = text.data + text.len;
    size_t total = text.len;
    uint64_t seen = 0;
    for (p = skip_plain(p, end, &seen); p < end; p = skip_plain(p + 1, end, &seen))
        total += short_escape(*p) ? 1 : 5;
    return total;
}

static uint8_t *put_escape(uint8_t *to, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char letter = short_escape(c);
    *to++ = '\\';
    if (letter) {
        *to++ = (uint8_t)letter;
        return to;
    }
    to[0] = 'u';
    to[1] = '0';
    to[2] = '0';
    to[3] = (uint8_t)hex[c >> 4];
    to[4] = (uint8_t)hex[c & 15];
    return to + 5;
}

enum status json_put_string(struct buf *out, struct slice text)
{
    if (text.len == 0)
        return buf_put(out, slice_of("\"\"", 2));
    if (text.len > (SIZE_MAX - 2) / 6)
        return ST_FULL;
    size_t len = escaped_len(text) + 2;
    uint8_t *to = buf_reserve(out, len);
    if (!to)
        return why_no_room(out, len);
    *to++ = '"';
    const uint8_t *p = text.data, *end = text.data + text.len;
    uint64_t seen = 0;
    for (;;) {
        const uint8_t *stop = skip_plain(p, end, &seen);
        memcpy(to, p, (size_t)(stop - p));
        to += stop - p;
        if (stop == end)
            break;
        to = put_escape(to, *stop);
        p = stop + 1;
    }
    *to = '"';
    buf_advance(out, len);
    return ST_OK;
}

static void blank_out(uint8_t *p, size_t len, int byte)
{
    uint8_t *end = p + len;
    while ((p = memchr(p, byte, (size_t)(end - p))) != NULL)
        *p++ = ' ';
}

enum status json_put_embedded(struct buf *out, struct slice json)
{
    if (json.len == 0)
        return ST_OK;
    uint8_t *to = buf_reserve(out, json.len);
    if (!to)
        return why_no_room(out, json.len);
    memcpy(to, json.data, json.len);
    blank_out(to, json.len, '\n');
    blank_out(to, json.len, '\r');
    buf_advance(out, json.len);
    return ST_OK;
}
