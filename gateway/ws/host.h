/* The thread of an edge: a libev loop that libwebsockets and our own loop share. libwebsockets must own a
 * loop it knows, libev's is the cheap one (LWS.md 3), and ours lives inside as one descriptor:
 *
 *   libev: [our epoll fd readable, or our timer] -> loop_dispatch
 *          [before it blocks]                    -> loop_prepare: turn hooks, how long may we sleep?
 *          [sockets that libwebsockets reads]    -> its callbacks
 */
#ifndef TG_GATEWAY_WS_HOST_H
#define TG_GATEWAY_WS_HOST_H

#include "core/buf.h"
#include "core/loop.h"

struct host;
struct lws;
struct lws_protocols;

/* Creates the context; on the main thread, one after the other, before any serves (LWS.md 2).
 * `protocols` ends with an empty one and outlives the host. ST_NO_MEMORY; ST_IO: `error` gets a line. */
enum status host_create(struct loop *loop, const struct lws_protocols *protocols, struct host **out,
                        struct buf *error) MUST_CHECK;
void host_destroy(struct host *h); /* sockets that are still adopted are closed. NULL is allowed */

/* Runs on the calling thread until loop_stop. */
void host_run(struct host *h);

/* Hands a socket to libwebsockets as one that will speak HTTP; `opaque` is what
 * lws_get_opaque_user_data answers. The descriptor is gone either way. NULL: refused. */
struct lws *host_adopt(struct host *h, int fd, void *opaque) MUST_CHECK;
/* Closes it now; its callbacks come without `opaque`. */
void host_drop(struct lws *wsi);

#endif
