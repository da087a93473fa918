/* A listening TCP socket of a loop. With several loops each opens its own with SO_REUSEPORT and the
 * kernel spreads connections. Accepts in bounded batches a turn; when descriptors run out it rests for
 * 100 ms instead of spinning. Owning loop only. */
#ifndef TG_GATEWAY_ACCEPTOR_H
#define TG_GATEWAY_ACCEPTOR_H

#include "core/buf.h"
#include "core/loop.h"
#include "core/metrics.h"

struct acceptor;

/* `fd`: accepted, non-blocking, close-on-exec, TCP_NODELAY; the callee owns it. */
typedef void acceptor_on_socket(void *ctx, int fd);

/* A bound, listening, non-blocking socket, or an error line for the operator that names the process
 * that holds a taken port. `port` 0: any; *port is what it became. `address`: IPv4 or IPv6 literal.
 * ST_EXISTS: taken. ST_INVALID: not an address. ST_FORBIDDEN. ST_IO. Start-up only (blocks on /proc). */
enum status listen_open(const char *what, const char *address, uint16_t *port, bool share, const char *key,
                        int *fd, struct buf *error) MUST_CHECK;

enum status acceptor_create(struct loop *loop, int listen_fd /* taken over */, struct metrics *metrics,
                            acceptor_on_socket *on_socket, void *ctx, struct acceptor **out) MUST_CHECK;
void acceptor_pause(struct acceptor *a); /* stops taking connections (shutdown, limits) */
void acceptor_destroy(struct acceptor *a); /* closes the listener; NULL is allowed */

#endif
