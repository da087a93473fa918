/* The bytes of one connection, whatever carries them: a plain socket, TLS (gateway/tls/), WebSocket frames
 * (gateway/ws/carrier.h). A connection reads and writes its stream and watches `fd`; it never asks which of
 * them it is. Nothing here blocks. Owning loop only. */
#ifndef TG_GATEWAY_STREAM_H
#define TG_GATEWAY_STREAM_H

#include "core/slice.h"
#include "core/status.h"

#include <stdbool.h>
#include <sys/uio.h>

enum {
    /* What `cap` of stream_read must be at least: a TLS record and then some. A carrier never keeps bytes
     * back that it could have given, so that the descriptor's readiness tells all there is to know. */
    STREAM_READ_BYTES_MIN = 32 * 1024,
};

struct stream;

struct stream_ops {
    enum status (*read)(struct stream *s, uint8_t *to, size_t cap, size_t *got);
    enum status (*write)(struct stream *s, const struct iovec *pieces, int count, size_t *sent);
    void (*shut)(struct stream *s);
    void (*close)(struct stream *s);
};

struct stream {
    const struct stream_ops *ops; /* NULL: a plain socket */
    void *state; /* the carrier's */
    int fd; /* to watch */
    bool read_wants_out; /* reading goes on when the descriptor is writable */
    /* Bytes from the front of what was offered to write that are half out (encrypted, or announced by a
     * frame's header): the next write must begin with the same ones. Always 0 for a plain socket. */
    uint32_t committed;
};

/* A plain socket, non-blocking. */
static inline struct stream stream_plain(int fd)
{
    return (struct stream){.fd = fd};
}

/* ST_OK: *got > 0 bytes are in `to`, of which a carrier may use all `cap` as scratch. ST_AGAIN: nothing
 * now. ST_CLOSED: the peer has ended it, or it is broken. */
enum status stream_read(struct stream *s, uint8_t *to, size_t cap, size_t *got) MUST_CHECK;
/* ST_OK: *sent bytes from the front are gone (0: bytes of the carrier's own went), go on. ST_AGAIN: wait
 * until it is writable. ST_CLOSED. */
enum status stream_write(struct stream *s, const struct iovec *pieces, int count, size_t *sent) MUST_CHECK;
/* Our half ends: what was written still arrives. Reading goes on. */
void stream_shut(struct stream *s);
/* The descriptor and the carrier's state are gone. Not watched any more by then. */
void stream_close(struct stream *s);

/* What to watch for (epoll events), and which of reading and writing an event allows. */
uint32_t stream_events(const struct stream *s, bool reading, bool writing);
uint32_t stream_ready(const struct stream *s, uint32_t events);

#endif
