/* One connection to a Redis server: commands go out in batches, one write a turn of the loop, and their
 * replies come back in order. Plain or TLS. Owning loop only; nothing waits. */
#ifndef TG_ROUTING_REDIS_LINK_H
#define TG_ROUTING_REDIS_LINK_H

#include "core/loop.h"
#include "core/metrics.h"
#include "core/slice.h"
#include "core/status.h"

#include <stdbool.h>
#include <sys/socket.h>

struct redis_link;
struct redis_tls;
struct redisReply;

struct redis_link_ops {
    void (*on_open)(void *ctx); /* connected, and TLS has shaken hands */
    /* It is of no use any more: close it. Replies that are owed will not come. `why` is for people. */
    void (*on_down)(void *ctx, const char *why);
};

/* Commands without their reply, and bytes that wait for the socket; above, redis_link_ask says ST_FULL. */
enum { REDIS_LINK_OPEN_MAX = 4096, REDIS_LINK_OUT_BYTES_MAX = 4 << 20 };
/* A reply beyond these is not believed, and the link is down. */
enum { REDIS_REPLY_BYTES_MAX = 4 << 20, REDIS_REPLY_ELEMENTS_MAX = 1 << 16 };
enum { REDIS_ARGUMENTS_MAX = 300 };

/* `tls` NULL: plain; else `host` is the name that its certificate must have, for the call. ST_IO: it cannot
 * even begin. The ops are never called inside this. */
enum status redis_link_open(struct loop *loop, struct metrics *metrics, const struct sockaddr *address,
                            socklen_t address_len, struct redis_tls *tls, const char *host,
                            const struct redis_link_ops *ops, void *ctx, struct redis_link **out) MUST_CHECK;
void redis_link_close(struct redis_link *l); /* allowed inside every callback; NULL is allowed */

/* After on_open. on_reply(ctx, subject, reply) follows, not inside the call, unless the link goes
 * down. ST_FULL: not now. ST_NO_MEMORY. */
enum status redis_link_ask(struct redis_link *l, const struct slice *arguments, unsigned count,
                           void (*on_reply)(void *ctx, void *subject, const struct redisReply *r), void *ctx,
                           void *subject) MUST_CHECK;
unsigned redis_link_open_count(const struct redis_link *l); /* commands whose reply is owed */
/* Since when the server owes us anything: a reply, or the end of a handshake. UINT64_MAX: it does not. */
uint64_t redis_link_owed_since_ms(const struct redis_link *l);

#endif
