/* Owned, growable bytes with a limit given at birth. Every byte that a peer can make us keep goes
 * through one of these, so "how much" has an answer at the place where the buffer is made. */
#ifndef TG_CORE_BUF_H
#define TG_CORE_BUF_H

#include "core/slice.h"
#include "core/status.h"

struct buf {
    uint8_t *data;
    size_t len, cap, limit;
};

/* No memory is taken until the first byte. `limit_bytes` > 0. */
void buf_init(struct buf *b, size_t limit_bytes);
void buf_deinit(struct buf *b); /* leaves zeroes; the limit too */
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
}

/* Makes room for `extra` more bytes and returns where to write them (then add to len by
 * buf_advance). NULL when the limit would be exceeded or there is no memory; nothing has changed. */
uint8_t *buf_reserve(struct buf *b, size_t extra) MUST_CHECK;
static inline void buf_advance(struct buf *b, size_t n)
{
    b->len += n;
}

/* Append. ST_FULL: over the limit (nothing was added). ST_NO_MEMORY. */
enum status buf_put(struct buf *b, struct slice bytes) MUST_CHECK;
enum status buf_put_byte(struct buf *b, uint8_t byte) MUST_CHECK;
enum status buf_put_cstr(struct buf *b, const char *text) MUST_CHECK;
enum status buf_printf(struct buf *b, const char *format, ...) MUST_CHECK
__attribute__((format(printf, 2, 3)));

/* Removes the first `n` bytes (n <= len) by moving the rest down. */
void buf_consume(struct buf *b, size_t n);

static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data, b->len};
}

#endif
