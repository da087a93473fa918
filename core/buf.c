#include "core/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_FIRST_BYTES = 64 };

void buf_init(struct buf *b, size_t limit_bytes)
{
    assert(limit_bytes > 0);
    *b = (struct buf){.limit = limit_bytes};
}

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

/* Doubles, so that appending is O(1) a byte over the life of the buffer, but never beyond the limit:
 * a buffer of limit 1 MB + 1 must not cost 2 MB. */
static enum status buf_grow(struct buf *b, size_t extra)
{
    assert(b->limit > 0); /* a buffer that was never initialised, or used after buf_deinit */
    if (extra > b->limit - b->len)
        return ST_FULL;
    size_t need = b->len + extra;
    if (need <= b->cap && b->data)
        return ST_OK;
    size_t cap = b->cap > b->limit / 2 ? b->limit : b->cap * 2;
    if (cap < BUF_FIRST_BYTES)
        cap = BUF_FIRST_BYTES < b->limit ? BUF_FIRST_BYTES : b->limit;
    if (cap < need)
        cap = need;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return ST_NO_MEMORY;
    b->data = data;
    b->cap = cap;
    return ST_OK;
}

uint8_t *buf_reserve(struct buf *b, size_t extra)
{
    return buf_grow(b, extra) == ST_OK ? b->data + b->len : NULL;
}

enum status buf_put(struct buf *b, struct slice bytes)
{
    if (bytes.len == 0) /* its pointer may be NULL, which memcpy does not take */
        return ST_OK;
    enum status st = buf_grow(b, bytes.len);
    if (st != ST_OK)
        return st;
    memcpy(b->data + b->len, bytes.data, bytes.len);
    b->len += bytes.len;
    return ST_OK;
}

enum status buf_put_byte(struct buf *b, uint8_t byte)
{
    enum status st = buf_grow(b, 1);
    if (st != ST_OK)
        return st;
    b->data[b->len++] = byte;
    return ST_OK;
}

enum status buf_put_cstr(struct buf *b, const char *text)
{
    return buf_put(b, slice_cstr(text));
}

/* Formats into a temporary when the text and its NUL do not fit into what is there: the NUL that
 * vsnprintf insists on must not count against the limit. */
__attribute__((format(printf, 3, 0))) static enum status buf_put_formatted(struct buf *b, size_t len,
                                                                           const char *format, va_list args)
{
    char *text = malloc(len + 1);
    if (!text)
        return ST_NO_MEMORY;
    int again = vsnprintf(text, len + 1, format, args);
    assert(again >= 0 && (size_t)again == len);
    enum status st = buf_put(b, slice_of(text, len));
    free(text);
    return st;
}

enum status buf_printf(struct buf *b, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assert(len >= 0); /* only a faulty format, or a text beyond INT_MAX */
    if ((size_t)len < sizeof text)
        return buf_put(b, slice_of(text, (size_t)len));
    if ((size_t)len > b->limit - b->len)
        return ST_FULL;
    va_start(args, format);
    enum status st = buf_put_formatted(b, (size_t)len, format, args);
    va_end(args);
    return st;
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    b->len -= n;
    if (n > 0 && b->len > 0)
        memmove(b->data, b->data + n, b->len);
}
