/* The output queue of a connection (outq.h).
 *
 * Order on the wire: chunks first, then the span. So a copy may only be appended while there is no span: a
 * put that meets a span first turns the span into chunks. A connection that gets only adjacent spans in a
 * turn (the fan-out case) never copies; one that gets scattered small pieces (one-to-one) copies each once,
 * which is cheaper than a longer iovec. */
#include "gateway/outq.h"

#include <assert.h>
#include <stdlib.h>

#include "core/pool.h"

enum {
    CHUNK_BYTES = 4096,
    CHUNK_SMALL_BYTES = 512, /* the first chunk of a queue: most turns of most connections need no more */
    FLUSH_PIECES = 16,
};

struct outq_chunk {
    struct outq_chunk *next;
    uint32_t used, sent, cap;
    uint8_t pool_class;
    uint8_t bytes[];
};

void outq_init(struct outq *q, uint32_t bytes_max)
{
    *q = (struct outq){.bytes_max = bytes_max};
    list_init(&q->dirty);
}

static void outq_drop_first(struct outq *q)
{
    struct outq_chunk *c = q->first;
    q->first = c->next;
    if (!q->first)
        q->last = NULL;
    pool_free(c, c->pool_class);
}

void outq_deinit(struct outq *q)
{
    while (q->first)
        outq_drop_first(q);
    list_unlink(&q->dirty);
    q->span = (struct slice){0};
    q->bytes = 0;
}

static struct outq_chunk *outq_grow(struct outq *q, size_t len)
{
    size_t room = q->first ? CHUNK_BYTES : CHUNK_SMALL_BYTES;
    if (room - sizeof(struct outq_chunk) < len)
        room = len + sizeof(struct outq_chunk) > CHUNK_BYTES ? len + sizeof(struct outq_chunk) : CHUNK_BYTES;
    uint8_t pool_class;
    struct outq_chunk *c = pool_alloc(room, &pool_class);
    if (!c)
        return NULL;
    c->next = NULL;
    c->used = 0;
    c->sent = 0;
    c->cap = (uint32_t)(room - sizeof *c);
    c->pool_class = pool_class;
    if (q->last)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    return c;
}

uint8_t *outq_reserve(struct outq *q, size_t len)
{
    if (q->span.len > 0 && outq_own(q) != ST_OK)
        return NULL;
    struct outq_chunk *c = q->last;
    if ((!c || c->cap - c->used < len) && !(c = outq_grow(q, len)))
        return NULL;
    uint8_t *place = c->bytes + c->used;
    c->used += (uint32_t)len;
    q->bytes += (uint32_t)len;
    return place;
}

enum status outq_put(struct outq *q, struct slice bytes)
{
    if (bytes.len == 0)
        return ST_OK;
    uint8_t *place = outq_reserve(q, bytes.len);
    if (!place)
        return ST_NO_MEMORY;
    memcpy(place, bytes.data, bytes.len);
    return ST_OK;
}

enum status outq_put_span(struct outq *q, struct slice scratch)
{
    if (q->span.len > 0) {
        if (q->span.data + q->span.len != scratch.data)
            return outq_put(q, scratch);
        q->span.len += scratch.len;
        q->bytes += (uint32_t)scratch.len;
        return ST_OK;
    }
    /* Behind copies of this turn a small piece is better copied too: one piece to send, not two. */
    if (q->last && scratch.len <= CHUNK_SMALL_BYTES)
        return outq_put(q, scratch);
    q->span = scratch;
    q->bytes += (uint32_t)scratch.len;
    return ST_OK;
}

enum status outq_own(struct outq *q)
{
    struct slice span = q->span;
    if (span.len == 0)
        return ST_OK;
    struct outq_chunk *c = q->last;
    if ((!c || c->cap - c->used < span.len) && !(c = outq_grow(q, span.len)))
        return ST_NO_MEMORY;
    memcpy(c->bytes + c->used, span.data, span.len);
    c->used += (uint32_t)span.len;
    q->span = (struct slice){0};
    return ST_OK;
}

int outq_gather(const struct outq *q, struct iovec *pieces, int most)
{
    int n = 0;
    for (struct outq_chunk *c = q->first; c && n < most; c = c->next)
        if (c->used > c->sent)
            pieces[n++] = (struct iovec){c->bytes + c->sent, c->used - c->sent};
    /* iovec is not const-correct; sendmsg does not write there. */
    if (n < most && q->span.len > 0)
        pieces[n++] = (struct iovec){(void *)(uintptr_t)q->span.data, q->span.len};
    return n;
}

void outq_sent(struct outq *q, size_t n)
{
    assert(n <= q->bytes);
    q->bytes -= (uint32_t)n;
    while (q->first) {
        struct outq_chunk *c = q->first;
        size_t left = c->used - c->sent;
        if (n < left) {
            c->sent += (uint32_t)n;
            return;
        }
        n -= left;
        outq_drop_first(q);
    }
    q->span = slice_from(q->span, n);
}

enum status outq_flush(struct outq *q, struct stream *stream, size_t *sent)
{
    *sent = 0;
    while (q->bytes > 0) {
        struct iovec pieces[FLUSH_PIECES];
        size_t n;
        enum status st = stream_write(stream, pieces, outq_gather(q, pieces, FLUSH_PIECES), &n);
        if (st == ST_AGAIN)
            return outq_own(q) == ST_OK ? ST_AGAIN : ST_CLOSED;
        if (st != ST_OK)
            return st;
        outq_sent(q, n);
        *sent += n;
    }
    return ST_OK;
}
