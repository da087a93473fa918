/* Three bytes become four letters of six bits each. The decoder takes the canonical form only: padding
 * must be there, stand at the end, and the bits that padding leaves over must be zero (RFC 4648, 3.5).
 * So a text has one meaning and a meaning has one text, and nobody can smuggle bits past a comparison. */
#include "core/base64.h"

static const uint8_t letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { NOT_A_LETTER = 0xff };

static inline uint8_t letter_value(uint8_t letter)
{
    if (letter >= 'A' && letter <= 'Z')
        return (uint8_t)(letter - 'A');
    if (letter >= 'a' && letter <= 'z')
        return (uint8_t)(letter - 'a' + 26);
    if (letter >= '0' && letter <= '9')
        return (uint8_t)(letter - '0' + 52);
    if (letter == '+')
        return 62;
    return letter == '/' ? 63 : NOT_A_LETTER;
}

/* buf_reserve does not say why it refused. */
static enum status why_no_room(const struct buf *b, size_t extra)
{
    return extra > b->limit - b->len ? ST_FULL : ST_NO_MEMORY;
}

enum status base64_encode(struct slice bytes, struct buf *out)
{
    if (bytes.len == 0)
        return ST_OK;
    if (bytes.len > SIZE_MAX / 4 * 3 - 3)
        return ST_FULL;
    size_t text_len = (bytes.len + 2) / 3 * 4;
    uint8_t *to = buf_reserve(out, text_len);
    if (!to)
        return why_no_room(out, text_len);
    const uint8_t *from = bytes.data;
    size_t left = bytes.len;
    for (; left >= 3; left -= 3, from += 3, to += 4) {
        uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
        to[0] = letters[bits >> 18];
        to[1] = letters[bits >> 12 & 63];
        to[2] = letters[bits >> 6 & 63];
        to[3] = letters[bits & 63];
    }
    if (left > 0) {
        uint32_t bits = (uint32_t)from[0] << 16 | (left == 2 ? (uint32_t)from[1] << 8 : 0);
        to[0] = letters[bits >> 18];
        to[1] = letters[bits >> 12 & 63];
        to[2] = left == 2 ? letters[bits >> 6 & 63] : '=';
        to[3] = '=';
    }
    buf_advance(out, text_len);
    return ST_OK;
}

/* Four letters, of which the last `pad_count` are '='; writes 3 - pad_count bytes. */
static bool decode_group(const uint8_t *from, unsigned pad_count, uint8_t *to)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t value = i < 4 - pad_count ? letter_value(from[i]) : 0;
        if (value == NOT_A_LETTER)
            return false;
        bits = bits << 6 | value;
    }
    uint32_t spare = pad_count == 0 ? 0 : pad_count == 1 ? bits & 0xff : bits & 0xffff;
    if (spare != 0)
        return false;
    to[0] = (uint8_t)(bits >> 16);
    if (pad_count < 2)
        to[1] = (uint8_t)(bits >> 8);
    if (pad_count < 1)
        to[2] = (uint8_t)bits;
    return true;
}

enum status base64_decode(struct slice text, struct buf *out)
{
    if (text.len == 0)
        return ST_OK;
    if (text.len % 4 != 0)
        return ST_INVALID;
    unsigned pad_count = 0;
    if (text.data[text.len - 1] == '=')
        pad_count = text.data[text.len - 2] == '=' ? 2 : 1;
    size_t bytes_len = text.len / 4 * 3 - pad_count;
    uint8_t *to = buf_reserve(out, bytes_len);
    if (!to)
        return why_no_room(out, bytes_len);
    const uint8_t *last = text.data + text.len - 4;
    for (const uint8_t *from = text.data; from < last; from += 4, to += 3)
        if (!decode_group(from, 0, to))
            return ST_INVALID;
    if (!decode_group(last, pad_count, to))
        return ST_INVALID;
    buf_advance(out, bytes_len);
    return ST_OK;
}

/* --- for URLs ----------------------------------------------------------------------------------- */

enum status base64url_encode(struct slice bytes, struct buf *out)
{
    size_t before = out->len;
    enum status st = base64_encode(bytes, out);
    if (st != ST_OK)
        return st;
    while (out->len > before && out->data[out->len - 1] == '=')
        out->len--;
    for (size_t i = before; i < out->len; i++)
        out->data[i] = out->data[i] == '+' ? '-' : out->data[i] == '/' ? '_' : out->data[i];
    return ST_OK;
}

static uint8_t plain_letter(uint8_t letter)
{
    if (letter == '-')
        return '+';
    if (letter == '_')
        return '/';
    return letter == '+' || letter == '/' ? 0 : letter; /* 0 is none of the alphabet */
}

/* Whole groups through a small window; the last one gets the padding that the form leaves out. */
enum status base64url_decode(struct slice text, struct buf *out)
{
    size_t before = out->len;
    for (size_t at = 0; at < text.len; at += 4) {
        uint8_t group[4] = {'=', '=', '=', '='};
        size_t letters_count = text.len - at < 4 ? text.len - at : 4;
        for (size_t i = 0; i < letters_count; i++) {
            group[i] = plain_letter(text.data[at + i]);
            if (group[i] == '=')
                group[i] = 0;
        }
        enum status st = base64_decode(slice_of(group, sizeof group), out);
        if (st != ST_OK) {
            out->len = before;
            return st;
        }
    }
    return ST_OK;
}
