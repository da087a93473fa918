/* Values of the configuration. Each type has one way in and one way out, and what goes out comes in again
 * as the same value: the fuzz target prints and loads. Texts are printed in double quotes the way JSON does;
 * so that this is YAML as well, a text may not hold characters that YAML takes for control characters or
 * line breaks. */
#include "core/config_value.h"

#include "core/json.h"
#include "core/utf8.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { SHOWN_BYTES_MAX = 80, EXPECTATION_BYTES_MAX = 256 };

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit byte_units[] = {
    {"T", (uint64_t)1 << 40}, {"G", 1u << 30}, {"M", 1u << 20}, {"K", 1u << 10}, {"", 1}, {NULL, 0},
};
static const struct unit ms_units[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {"", 1}, {NULL, 0},
};

static const struct unit *units_of(enum config_type type)
{
    static const struct unit none[] = {{"", 1}, {NULL, 0}};
    if (type == CONFIG_BYTES)
        return byte_units;
    return type == CONFIG_MS ? ms_units : none;
}

enum status config_refuse(struct buf *error, enum status st, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    size_t len = wanted < 0 ? 0 : (size_t)wanted;
    if (len >= sizeof line)
        len = sizeof line - 1;
    if (len > error->limit - error->len)
        len = error->limit - error->len;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    /* Without memory for the explanation the status still says that it went wrong. */
    enum status put = buf_put(error, slice_of(line, len));
    (void)put;
    return st;
}

static uint64_t *number_at(const struct config_option *o, void *settings)
{
    return (uint64_t *)(void *)((char *)settings + o->place);
}
static bool *bool_at(const struct config_option *o, void *settings)
{
    return (bool *)(void *)((char *)settings + o->place);
}
static unsigned *choice_at(const struct config_option *o, void *settings)
{
    return (unsigned *)(void *)((char *)settings + o->place);
}
static char **text_at(const struct config_option *o, void *settings)
{
    return (char **)(void *)((char *)settings + o->place);
}

/* Reading does not change the struct; one set of accessors serves both. */
static void *readable(const void *settings)
{
    union {
        const void *in;
        void *out;
    } both = {.in = settings};
    return both.out;
}

static void print_number(const struct unit *unit, uint64_t value, char *text, size_t size)
{
    if (value == 0) {
        snprintf(text, size, "0");
        return;
    }
    while (value % unit->factor != 0)
        unit++;
    snprintf(text, size, "%" PRIu64 "%s", value / unit->factor, unit->suffix);
}

static void expect_range(const struct config_option *o, const char *what, char *text, size_t size)
{
    char least[32], most[32];
    print_number(units_of(o->type), o->least, least, sizeof least);
    print_number(units_of(o->type), o->most, most, sizeof most);
    if (o->most != 0)
        snprintf(text, size, "%s from %s to %s", what, least, most);
    else if (o->least != 0)
        snprintf(text, size, "%s, %s or more", what, least);
    else
        snprintf(text, size, "%s", what);
}

static void expect_choice(const struct config_option *o, char *text, size_t size)
{
    size_t len = (size_t)snprintf(text, size, "one of ");
    for (const char *p = o->choices; *p && len + 3 < size; p++) {
        if (*p == '|') {
            text[len++] = ',';
            text[len++] = ' ';
        } else {
            text[len++] = *p;
        }
    }
    text[len] = '\0';
}

void config_value_expectation(const struct config_option *o, char *text, size_t size)
{
    switch (o->type) {
    case CONFIG_UINT:
        expect_range(o, "a whole number", text, size);
        break;
    case CONFIG_BYTES:
        expect_range(o, "a size such as 64K, 1M or 2G", text, size);
        break;
    case CONFIG_MS:
        expect_range(o, "a time such as 500ms, 10s, 5m or 2h", text, size);
        break;
    case CONFIG_BOOL:
        snprintf(text, size, "true or false");
        break;
    case CONFIG_TEXT:
        snprintf(text, size, "text without control characters");
        break;
    case CONFIG_LIST:
        snprintf(text, size, "a list, no item empty or with control characters");
        break;
    case CONFIG_ENUM:
        expect_choice(o, text, size);
        break;
    }
}

/* Digits and a unit. False: malformed or beyond 2^64. */
static bool parse_number(enum config_type type, struct slice text, uint64_t *out)
{
    uint64_t number = 0;
    size_t i = 0;
    for (; i < text.len && text.data[i] >= '0' && text.data[i] <= '9'; i++)
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(text.data[i] - '0'), &number))
            return false;
    if (i == 0)
        return false;
    struct slice suffix = slice_from(text, i);
    for (const struct unit *unit = units_of(type); unit->suffix; unit++)
        if (strlen(unit->suffix) == suffix.len &&
            strncasecmp(unit->suffix, (const char *)suffix.data, suffix.len) == 0)
            return !__builtin_mul_overflow(number, unit->factor, out);
    return false;
}

static bool in_range(const struct config_option *o, uint64_t value)
{
    return value >= o->least && (o->most == 0 || value <= o->most);
}

static bool parse_bool(struct slice text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (unsigned i = 0; i < 6; i++)
        if (strlen(words[i]) == text.len && strncasecmp(words[i], (const char *)text.data, text.len) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    return false;
}

static bool parse_choice(const char *choices, struct slice text, unsigned *out)
{
    unsigned index = 0;
    for (const char *p = choices;; p++, index++) {
        size_t len = strcspn(p, "|");
        if (slice_equal(slice_of(p, len), text)) {
            *out = index;
            return true;
        }
        p += len;
        if (*p == '\0')
            return false;
    }
}

/* UTF-8 without what YAML (1.1, 4.1 and 4.2) counts as control characters or line breaks. */
static bool is_printable(struct slice text)
{
    if (text.len == 0)
        return true;
    for (size_t i = 0; i < text.len; i++) {
        const uint8_t *p = text.data + i;
        size_t left = text.len - i;
        bool is_control = p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && left > 1 && p[1] < 0xa0);
        bool is_line_break = p[0] == 0xe2 && left > 2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9);
        bool is_mark =
            p[0] == 0xef && left > 2 &&
            ((p[1] == 0xbb && p[2] == 0xbf) || (p[1] == 0xbf && p[2] >= 0xbe)); /* U+FEFF FFFE FFFF */
        if (is_control || is_line_break || is_mark)
            return false;
    }
    return utf8_valid(text);
}

static bool replace_text(const struct config_option *o, void *settings, struct slice text)
{
    char *copy = malloc(text.len + 1);
    if (!copy)
        return false;
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    char **place = text_at(o, settings);
    free(*place);
    *place = copy;
    return true;
}

/* The item before `end` (a comma, '\n' or the end of the text) without blanks around it. */
static struct slice trim(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return slice_of(p, (size_t)(end - p));
}

/* Items separated by `separator`, put into `joined` (as large as the text) with '\n' between them. */
static bool join_items(struct slice text, char separator, uint8_t *joined, size_t *joined_len)
{
    *joined_len = 0;
    if (text.len == 0)
        return true;
    const uint8_t *end = text.data + text.len;
    for (const uint8_t *p = text.data;; p++) {
        const uint8_t *stop = memchr(p, separator, (size_t)(end - p));
        struct slice item = trim(p, stop ? stop : end);
        if (item.len == 0 || !is_printable(item))
            return false;
        if (*joined_len > 0)
            joined[(*joined_len)++] = '\n';
        memcpy(joined + *joined_len, item.data, item.len);
        *joined_len += item.len;
        if (!stop)
            return true;
        p = stop; /* behind a separator that ends the text there is an empty item, refused above */
    }
}

static bool parse_list(const struct config_option *o, void *settings, struct slice text, char separator)
{
    uint8_t *joined = malloc(text.len + 1);
    if (!joined)
        return false;
    size_t len;
    bool ok = join_items(text, separator, joined, &len) && replace_text(o, settings, slice_of(joined, len));
    free(joined);
    return ok;
}

static bool parse_value(const struct config_option *o, void *settings, struct slice text)
{
    uint64_t number;
    switch (o->type) {
    case CONFIG_UINT:
    case CONFIG_BYTES:
    case CONFIG_MS:
        if (!parse_number(o->type, text, &number) || !in_range(o, number))
            return false;
        *number_at(o, settings) = number;
        return true;
    case CONFIG_BOOL:
        return parse_bool(text, bool_at(o, settings));
    case CONFIG_TEXT:
        return is_printable(text) && replace_text(o, settings, text);
    case CONFIG_LIST:
        return parse_list(o, settings, trim(text.data, text.data + text.len), ',');
    case CONFIG_ENUM:
        return parse_choice(o->choices, text, choice_at(o, settings));
    }
    return false;
}

/* Texts may be secrets: they are not repeated. */
static enum status refuse_value(const struct config_option *o, struct slice text, const char *where,
                                struct buf *error)
{
    char expected[EXPECTATION_BYTES_MAX];
    config_value_expectation(o, expected, sizeof expected);
    if (o->type == CONFIG_TEXT || o->type == CONFIG_LIST)
        return config_refuse(error, ST_INVALID, "%s: the value of \"%s\" must be %s", where, o->key,
                             expected);
    int shown = text.len > SHOWN_BYTES_MAX ? SHOWN_BYTES_MAX : (int)text.len;
    return config_refuse(error, ST_INVALID, "%s: \"%s\" is \"%.*s\"; it must be %s", where, o->key, shown,
                         shown > 0 ? (const char *)text.data : "", expected);
}

enum status config_value_set(const struct config_option *o, void *settings, struct slice text,
                             const char *where, struct buf *error)
{
    if (!text.data)
        text.data = (const uint8_t *)"";
    return parse_value(o, settings, text) ? ST_OK : refuse_value(o, text, where, error);
}

enum status config_value_set_items(const struct config_option *o, void *settings, struct slice items,
                                   const char *where, struct buf *error)
{
    assert(o->type == CONFIG_LIST);
    return parse_list(o, settings, items, '\n') ? ST_OK : refuse_value(o, items, where, error);
}

bool config_value_equal(const struct config_option *o, const void *a, const void *b)
{
    void *x = readable(a), *y = readable(b);
    switch (o->type) {
    case CONFIG_UINT:
    case CONFIG_BYTES:
    case CONFIG_MS:
        return *number_at(o, x) == *number_at(o, y);
    case CONFIG_BOOL:
        return *bool_at(o, x) == *bool_at(o, y);
    case CONFIG_ENUM:
        return *choice_at(o, x) == *choice_at(o, y);
    case CONFIG_TEXT:
    case CONFIG_LIST:
        return slice_equal(slice_cstr(*text_at(o, x)), slice_cstr(*text_at(o, y)));
    }
    return false;
}

void config_value_free(const struct config_option *o, void *settings)
{
    if (o->type != CONFIG_TEXT && o->type != CONFIG_LIST)
        return;
    char **place = text_at(o, settings);
    free(*place);
    *place = NULL;
}

void config_value_share(const struct config_option *o, void *to, const void *from)
{
    void *source = readable(from);
    switch (o->type) {
    case CONFIG_UINT:
    case CONFIG_BYTES:
    case CONFIG_MS:
        *number_at(o, to) = *number_at(o, source);
        return;
    case CONFIG_BOOL:
        *bool_at(o, to) = *bool_at(o, source);
        return;
    case CONFIG_ENUM:
        *choice_at(o, to) = *choice_at(o, source);
        return;
    case CONFIG_TEXT:
    case CONFIG_LIST:
        free(*text_at(o, to));
        *text_at(o, to) = *text_at(o, source);
        return;
    }
}

static enum status print_list(const char *items, struct buf *out)
{
    enum status st = buf_put_byte(out, '[');
    for (const char *p = items; st == ST_OK && *p;) {
        size_t len = strcspn(p, "\n");
        st = json_put_string(out, slice_of(p, len));
        p += len;
        if (st == ST_OK && *p) {
            st = buf_put_cstr(out, ", ");
            p++;
        }
    }
    return st == ST_OK ? buf_put_byte(out, ']') : st;
}

static enum status print_choice(const char *choices, unsigned index, struct buf *out)
{
    for (; index > 0; index--)
        choices += strcspn(choices, "|") + 1;
    return buf_put(out, slice_of(choices, strcspn(choices, "|")));
}

enum status config_value_print(const struct config_option *o, const void *settings, struct buf *out)
{
    void *from = readable(settings);
    char number[32];
    switch (o->type) {
    case CONFIG_UINT:
    case CONFIG_BYTES:
    case CONFIG_MS:
        print_number(units_of(o->type), *number_at(o, from), number, sizeof number);
        return buf_put_cstr(out, number);
    case CONFIG_BOOL:
        return buf_put_cstr(out, *bool_at(o, from) ? "true" : "false");
    case CONFIG_TEXT:
        return json_put_string(out, slice_cstr(*text_at(o, from)));
    case CONFIG_LIST:
        return print_list(*text_at(o, from), out);
    case CONFIG_ENUM:
        return print_choice(o->choices, *choice_at(o, from), out);
    }
    return ST_INVALID;
}

/* A cell of a Markdown table: '|' would end it. */
static enum status put_cell(struct buf *out, const char *text)
{
    enum status st = ST_OK;
    for (const char *p = text; st == ST_OK && *p; p++)
        st = *p == '|' ? buf_put_cstr(out, "\\|") : buf_put_byte(out, (uint8_t)*p);
    return st;
}

enum status config_value_document(const struct config_option *o, struct buf *out)
{
    char expected[EXPECTATION_BYTES_MAX];
    config_value_expectation(o, expected, sizeof expected);
    bool has_default = o->fallback && o->fallback[0];
    enum status st = buf_printf(out, "| `%s` | ", o->key);
    if (st == ST_OK)
        st = has_default ? buf_put_byte(out, '`') : buf_put_cstr(out, "(empty)");
    if (st == ST_OK && has_default)
        st = put_cell(out, o->fallback);
    if (st == ST_OK)
        st = buf_put_cstr(out, has_default ? "` | " : " | ");
    if (st == ST_OK)
        st = put_cell(out, expected);
    if (st == ST_OK)
        st = buf_put_cstr(out, " | ");
    if (st == ST_OK)
        st = put_cell(out, o->help);
    return st == ST_OK ? buf_put_cstr(out, " |") : st;
}

enum status config_value_print_plain(const struct config_option *o, const void *settings, struct buf *out)
{
    if (o->type != CONFIG_TEXT && o->type != CONFIG_LIST)
        return config_value_print(o, settings, out);
    enum status st = ST_OK;
    for (const char *p = *text_at(o, readable(settings)); *p && st == ST_OK; p++)
        st = buf_put_byte(out, *p == '\n' ? (uint8_t)',' : (uint8_t)*p);
    return st;
}
