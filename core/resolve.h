/* Names to addresses, off the loop: getaddrinfo(3) may take as long as a name server likes, so it runs on a
 * thread of its own, one for each look-up. Owning loop only. */
#ifndef TG_CORE_RESOLVE_H
#define TG_CORE_RESOLVE_H

#include "core/loop.h"

#include <stdbool.h>
#include <sys/socket.h>

enum { RESOLVE_ADDRESSES_MAX = 8 };

struct resolve_answer {
    const char *why; /* in words, when count is 0 */
    unsigned count;
    struct resolve_address {
        struct sockaddr_storage address;
        socklen_t len;
    } addresses[RESOLVE_ADDRESSES_MAX];
};

struct resolve;

/* TCP addresses of `host` (a name, or an address as text). on_resolved follows on the loop, not inside the
 * call, and frees the look-up. ST_NO_MEMORY: no memory or no thread. */
enum status resolve_start(struct loop *loop, const char *host, uint16_t port,
                          void (*on_resolved)(void *ctx, const struct resolve_answer *a), void *ctx,
                          struct resolve **out) MUST_CHECK;
/* on_resolved will not be called. A look-up that still runs ends by itself, without the loop; of one that has
 * just ended a letter may be in the loop's box: it needs one more turn. NULL is allowed. */
void resolve_cancel(struct resolve *r);

#endif
