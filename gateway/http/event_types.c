#include "gateway/http/event_types.h"

#include "core/utf8.h"

#include <strings.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static bool is_one_of(uint8_t c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

/* --- strings ------------------------------------------------------------------------------------ */

/* `at` begins a character of valid UTF-8. */
static bool is_noncharacter(const uint8_t *at, size_t left)
{
    if (left >= 3 && at[0] == 0xef && at[1] == 0xb7) /* U+FDD0 to U+FDEF */
        return at[2] >= 0x90 && at[2] <= 0xaf;
    if (left >= 3 && at[0] == 0xef) /* U+FFFE, U+FFFF */
        return at[1] == 0xbf && at[2] >= 0xbe;
    /* The last two of each further plane. */
    return left >= 4 && at[0] >= 0xf0 && (at[1] & 0x0f) == 0x0f && at[2] == 0xbf && at[3] >= 0xbe;
}

bool event_string_valid(struct slice text)
{
    if (!utf8_valid(text))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const uint8_t *at = text.data + i;
        bool of_c1 = at[0] == 0xc2 && at[1] < 0xa0; /* valid, so there is a second byte */
        if (at[0] < 0x20 || at[0] == 0x7f || of_c1 || is_noncharacter(at, text.len - i))
            return false;
    }
    return true;
}

/* --- numbers ------------------------------------------------------------------------------------ */

bool event_integer_valid(struct slice number)
{
    bool minus = number.len > 0 && number.data[0] == '-';
    struct slice digits = slice_from(number, minus);
    int64_t value = 0;
    if (digits.len == 0 || digits.len > 10)
        return false;
    for (size_t i = 0; i < digits.len; i++) {
        if (!is_digit(digits.data[i]))
            return false;
        value = value * 10 + (digits.data[i] - '0');
    }
    return value <= (int64_t)INT32_MAX + minus;
}

/* --- times -------------------------------------------------------------------------------------- */

/* `count` digits at `at`; -1: they are not there. */
static int number_at(struct slice text, size_t at, size_t count)
{
    int value = 0;
    if (text.len < at + count)
        return -1;
    for (size_t i = at; i < at + count; i++) {
        if (!is_digit(text.data[i]))
            return -1;
        value = value * 10 + (text.data[i] - '0');
    }
    return value;
}

static bool date_valid(int year, int month, int day)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return year >= 0 && month >= 1 && month <= 12 && day >= 1 &&
           day <= days[month - 1] + (month == 2 && leap);
}

static bool has_at(struct slice text, size_t at, uint8_t c)
{
    return text.len > at && (text.data[at] == c || (is_letter(c) && text.data[at] == (c | 0x20)));
}

/* "Z", or "+hh:mm" and "-hh:mm", and nothing more. */
static bool offset_valid(struct slice text)
{
    if (has_at(text, 0, 'Z'))
        return text.len == 1;
    int hour = number_at(text, 1, 2), minute = number_at(text, 4, 2);
    return text.len == 6 && is_one_of(text.data[0], "+-") && text.data[3] == ':' && hour >= 0 && hour <= 23 &&
           minute >= 0 && minute <= 59;
}

bool event_timestamp_valid(struct slice text)
{
    enum { SECONDS_END = 19 }; /* 2026-01-02T03:04:05 */
    int hour = number_at(text, 11, 2), minute = number_at(text, 14, 2), second = number_at(text, 17, 2);
    if (!date_valid(number_at(text, 0, 4), number_at(text, 5, 2), number_at(text, 8, 2)) ||
        !has_at(text, 4, '-') || !has_at(text, 7, '-') || !has_at(text, 10, 'T') || !has_at(text, 13, ':') ||
        !has_at(text, 16, ':'))
        return false;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) /* leap seconds */
        return false;
    size_t end = SECONDS_END;
    if (has_at(text, end, '.')) {
        end++;
        while (end < text.len && is_digit(text.data[end]))
            end++;
        if (end == SECONDS_END + 1)
            return false;
    }
    return offset_valid(slice_from(text, end));
}

/* --- references --------------------------------------------------------------------------------- */

static bool is_hex(uint8_t c)
{
    return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

bool event_reference_valid(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '%' && (text.len - i < 3 || !is_hex(text.data[i + 1]) || !is_hex(text.data[i + 2])))
            return false;
        if (!is_digit(c) && !is_letter(c) && !is_one_of(c, "-._~:/?#[]@!$&'()*+,;=%"))
            return false;
    }
    return text.len > 0;
}

bool event_uri_valid(struct slice text)
{
    size_t i = 0;
    while (i < text.len &&
           (is_letter(text.data[i]) || (i > 0 && (is_digit(text.data[i]) || is_one_of(text.data[i], "+-.")))))
        i++;
    return i > 0 && i < text.len && text.data[i] == ':' && event_reference_valid(text);
}

/* --- media types -------------------------------------------------------------------------------- */

static size_t token_length(struct slice text)
{
    size_t n = 0;
    while (n < text.len &&
           (is_digit(text.data[n]) || is_letter(text.data[n]) || is_one_of(text.data[n], "!#$%&'*+-.^_`|~")))
        n++;
    return n;
}

/* "..." with its quotes; 0: it is none. */
static size_t quoted_length(struct slice text)
{
    if (text.len == 0 || text.data[0] != '"')
        return 0;
    for (size_t i = 1; i < text.len; i++) {
        if (text.data[i] == '"')
            return i + 1;
        i += text.data[i] == '\\';
    }
    return 0;
}

static struct slice without_space(struct slice text)
{
    while (text.len > 0 && is_one_of(text.data[0], " \t"))
        text = slice_from(text, 1);
    return text;
}

bool event_media_type_valid(struct slice text)
{
    size_t type = token_length(text);
    if (type == 0 || !has_at(text, type, '/'))
        return false;
    struct slice rest = slice_from(text, type + 1);
    size_t subtype = token_length(rest);
    if (subtype == 0)
        return false;
    rest = without_space(slice_from(rest, subtype));
    while (rest.len > 0) {
        if (rest.data[0] != ';')
            return false;
        rest = without_space(slice_from(rest, 1));
        size_t name = token_length(rest);
        if (name == 0 || !has_at(rest, name, '='))
            return false;
        rest = slice_from(rest, name + 1);
        size_t value = token_length(rest);
        value = value > 0 ? value : quoted_length(rest);
        if (value == 0)
            return false;
        rest = without_space(slice_from(rest, value));
    }
    return true;
}

bool event_media_type_is_json(struct slice text)
{
    size_t type = token_length(text);
    if (!has_at(text, type, '/'))
        return false;
    struct slice rest = slice_from(text, type + 1);
    size_t len = token_length(rest);
    return len >= 4 && strncasecmp((const char *)rest.data + len - 4, "json", 4) == 0 &&
           (len == 4 || rest.data[len - 5] == '+');
}
