/* TLS as a stream (gateway/stream.h).
 *
 * Reading. Each SSL_read gives one record, 16 KiB at most, and nothing is read ahead; so as long as there is
 * room for a whole record, no decrypted byte stays inside and epoll tells all that there is to read. When
 * the end comes behind data, the data is given first and reading is shut, which makes the descriptor
 * readable for good: the next read finds the end again.
 *
 * Writing. OpenSSL encrypts a record and then finds the socket full: it wants the same bytes again. What it
 * has encrypted stays in the queue, and `committed` says how much that is.
 *
 * Pieces are put together into one record, for one system call and 22 bytes of overhead a turn. */
#include "gateway/tls/tls_private.h"

#include <assert.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECORD_BYTES_MAX = SSL3_RT_MAX_PLAIN_LENGTH };
static_assert((int)STREAM_READ_BYTES_MIN >= (int)RECORD_BYTES_MAX, "a record fits");

static enum status tls_read(struct stream *s, uint8_t *to, size_t cap, size_t *got)
{
    SSL *ssl = s->state;
    size_t used = 0, n;
    s->read_wants_out = false;
    ERR_clear_error();
    while (cap - used >= RECORD_BYTES_MAX && SSL_read_ex(ssl, to + used, cap - used, &n) == 1)
        used += n;
    int why = cap - used >= RECORD_BYTES_MAX ? SSL_get_error(ssl, 0) : SSL_ERROR_WANT_READ;
    if (why == SSL_ERROR_WANT_WRITE)
        s->read_wants_out = true;
    bool ended = why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE;
    if (used == 0)
        return ended ? ST_CLOSED : ST_AGAIN;
    if (ended)
        (void)shutdown(s->fd, SHUT_RD);
    *got = used;
    return ST_OK;
}

/* At most a record from the front, in one piece: where it lies, or copied. */
static size_t gather(const struct iovec *pieces, int count, uint8_t *copy, const uint8_t **bytes)
{
    size_t used = 0;
    if (count == 1 || pieces[0].iov_len >= RECORD_BYTES_MAX) {
        *bytes = pieces[0].iov_base;
        return pieces[0].iov_len < RECORD_BYTES_MAX ? pieces[0].iov_len : RECORD_BYTES_MAX;
    }
    for (int i = 0; i < count && used < RECORD_BYTES_MAX; i++) {
        size_t room = RECORD_BYTES_MAX - used, len = pieces[i].iov_len < room ? pieces[i].iov_len : room;
        memcpy(copy + used, pieces[i].iov_base, len);
        used += len;
    }
    *bytes = copy;
    return used;
}

static enum status tls_write(struct stream *s, const struct iovec *pieces, int count, size_t *sent)
{
    SSL *ssl = s->state;
    uint8_t copy[RECORD_BYTES_MAX];
    const uint8_t *bytes;
    size_t len = gather(pieces, count, copy, &bytes);
    assert(len >= s->committed);
    ERR_clear_error();
    if (SSL_write_ex(ssl, bytes, len, sent) == 1) {
        s->committed = 0;
        return ST_OK;
    }
    /* SSL_ERROR_WANT_READ is for renegotiation, which is off. */
    if (SSL_get_error(ssl, 0) != SSL_ERROR_WANT_WRITE)
        return ST_CLOSED;
    if (s->committed == 0)
        s->committed = (uint32_t)len;
    return ST_AGAIN;
}

/* close_notify, if it can be sent now; then FIN. A record that is half out stays so. */
static void tls_shut(struct stream *s)
{
    ERR_clear_error();
    if (s->committed == 0)
        (void)SSL_shutdown(s->state);
    (void)shutdown(s->fd, SHUT_WR);
}

static void tls_close(struct stream *s)
{
    SSL_free(s->state);
    close(s->fd);
}

static const struct stream_ops tls_ops = {tls_read, tls_write, tls_shut, tls_close};

struct stream tls_stream(SSL *ssl, int fd)
{
    return (struct stream){.ops = &tls_ops, .state = ssl, .fd = fd};
}

SSL *tls_stream_ssl(const struct stream *s)
{
    return s->ops == &tls_ops ? s->state : NULL;
}
