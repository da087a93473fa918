#include "gateway/stream.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static enum status plain_read(struct stream *s, uint8_t *to, size_t cap, size_t *got)
{
    ssize_t n = recv(s->fd, to, cap, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return ST_AGAIN;
    if (n <= 0)
        return ST_CLOSED;
    *got = (size_t)n;
    return ST_OK;
}

static enum status plain_write(struct stream *s, const struct iovec *pieces, int count, size_t *sent)
{
    ssize_t n;
    do {
        if (count == 1) {
            n = send(s->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
        } else {
            /* msghdr is not const-correct; sendmsg does not write there. */
            struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces,
                                     .msg_iovlen = (size_t)count};
            n = sendmsg(s->fd, &message, MSG_NOSIGNAL);
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? ST_AGAIN : ST_CLOSED;
    *sent = (size_t)n;
    return ST_OK;
}

enum status stream_read(struct stream *s, uint8_t *to, size_t cap, size_t *got)
{
    assert(cap >= STREAM_READ_BYTES_MIN);
    return s->ops ? s->ops->read(s, to, cap, got) : plain_read(s, to, cap, got);
}

enum status stream_write(struct stream *s, const struct iovec *pieces, int count, size_t *sent)
{
    return s->ops ? s->ops->write(s, pieces, count, sent) : plain_write(s, pieces, count, sent);
}

void stream_shut(struct stream *s)
{
    if (s->ops)
        s->ops->shut(s);
    else
        (void)shutdown(s->fd, SHUT_WR);
}

void stream_close(struct stream *s)
{
    if (s->ops)
        s->ops->close(s);
    else
        close(s->fd);
    *s = (struct stream){.fd = -1};
}

uint32_t stream_events(const struct stream *s, bool reading, bool writing)
{
    uint32_t events = writing ? EPOLLOUT : 0u;
    if (reading)
        events |= s->read_wants_out ? EPOLLOUT : EPOLLIN;
    return events;
}

uint32_t stream_ready(const struct stream *s, uint32_t events)
{
    return s->read_wants_out && (events & EPOLLOUT) ? events | EPOLLIN : events;
}
