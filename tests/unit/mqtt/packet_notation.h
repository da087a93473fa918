/* Bytes of packets as tests write them:
 *   1a ff      hex, blanks do not count
 *   'text'     its characters
 *   < ... >    a string: 2 bytes of length before what is inside
 *   ( ... )    a variable byte integer before what is inside: remaining length, property length */
#ifndef TG_TESTS_PACKET_NOTATION_H
#define TG_TESTS_PACKET_NOTATION_H

#include <assert.h>
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/mqtt/packet.h"

enum { NOTATION_BYTES_MAX = 4096 };

static inline uint8_t notation_hex_digit(char c)
{
    assert(isxdigit((unsigned char)c));
    return (uint8_t)(isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10);
}

/* Appends to `out` until `closing`; returns how many bytes. */
static inline size_t notation_part(const char **text, char closing, uint8_t *out)
{
    size_t n = 0;
    while (**text != closing) {
        char c = *(*text)++;
        assert(c != '\0' && n < NOTATION_BYTES_MAX);
        if (c == ' ')
            continue;
        if (c == '\'') {
            while (**text != '\'')
                out[n++] = (uint8_t) * (*text)++;
            ++*text;
        } else if (c == '<' || c == '(') {
            uint8_t inside[NOTATION_BYTES_MAX];
            size_t len = notation_part(text, c == '<' ? '>' : ')', inside);
            ++*text;
            if (c == '(') {
                n += mqtt_varint_write((uint32_t)len, out + n);
            } else {
                out[n++] = (uint8_t)(len >> 8);
                out[n++] = (uint8_t)len;
            }
            memcpy(out + n, inside, len);
            n += len;
        } else {
            out[n++] = (uint8_t)(notation_hex_digit(c) << 4 | notation_hex_digit(*(*text)++));
        }
    }
    return n;
}

/* In memory of just that size, so that a sanitizer sees a read beyond it; notation_free it. */
static inline struct slice notation_bytes(const char *text)
{
    uint8_t bytes[NOTATION_BYTES_MAX];
    size_t len = notation_part(&text, '\0', bytes);
    uint8_t *copy = malloc(len > 0 ? len : 1);
    assert(copy != NULL);
    memcpy(copy, bytes, len);
    return slice_of(copy, len);
}

static inline void notation_free(struct slice bytes)
{
    free((void *)(uintptr_t)bytes.data); /* a slice borrows, so its pointer is const; this one is ours */
}

#endif
