/* Where the Redis server is that may be written to, and the link to it: resolves its name, connects, shakes
 * hands, says who we are, asks who it is; with Sentinels asks them first, each time anew. When the link is
 * lost it tries again, after a wait that doubles, with jitter. Owning loop only; nothing waits. */
#ifndef TG_ROUTING_REDIS_HOME_H
#define TG_ROUTING_REDIS_HOME_H

#include "core/loop.h"
#include "core/metrics.h"
#include "core/slice.h"
#include "core/status.h"

struct redis_home;
struct redis_link;
struct redis_tls;

enum { REDIS_HOST_BYTES_MAX = 255, REDIS_SENTINELS_MAX = 16, REDIS_RUN_BYTES_MAX = 64 };

struct redis_address {
    char host[REDIS_HOST_BYTES_MAX + 1];
    uint16_t port;
};

/* "host:port", "[address]:port", or without the port, which is then `port`. */
enum status redis_address_read(struct slice text, uint16_t port, struct redis_address *out) MUST_CHECK;

struct redis_login {
    const char *user; /* "": Redis's "default" */
    const char *password_file; /* first line; read each time. "": none, and no AUTH unless `password` */
    const char *password;
};

struct redis_home_options {
    struct redis_address server; /* without Sentinels */
    struct redis_address sentinels[REDIS_SENTINELS_MAX];
    unsigned sentinel_count;
    const char *master; /* its name at the Sentinels */
    struct redis_login login, sentinel_login;
    uint64_t db;
    struct redis_tls *tls; /* NULL: plain; also to Sentinels */
    uint64_t timeout_ms; /* for each step, and for the oldest reply that is owed */
    uint64_t retry_min_ms, retry_max_ms;
};

struct redis_home_ops {
    /* A master, and we may talk to it. `run` names this run of it. */
    void (*on_up)(void *ctx, struct redis_link *link, struct slice run);
    /* The link has gone: it must not be used from here on. Only after on_up. */
    void (*on_down)(void *ctx);
};

/* `options` is copied, what it points to outlives the home. Nothing begins before redis_home_start. */
enum status redis_home_create(struct loop *loop, struct metrics *metrics, const struct redis_home_options *o,
                              const struct redis_home_ops *ops, void *ctx,
                              struct redis_home **out) MUST_CHECK;
void redis_home_start(struct redis_home *h);
/* The owner has found the link to be bad. on_down is called inside; the home goes on trying. */
void redis_home_fail(struct redis_home *h, const char *why);
/* Why the last attempt has failed, for people; "": none has, or it has succeeded since. */
const char *redis_home_why(const struct redis_home *h);
void redis_home_destroy(struct redis_home *h); /* no on_down; NULL is allowed */

#endif
