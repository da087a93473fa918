/* A loop's TLS: the handshakes under way, for the ports of its doors. A socket goes in, a stream comes out.
 *
 *   acceptor --fd--> [ handshakes: a bounded number of steps a turn ] --stream--> the door
 *
 * Owning loop only, but for tls_server_renew. */
#ifndef TG_GATEWAY_TLS_SERVER_H
#define TG_GATEWAY_TLS_SERVER_H

#include "core/loop.h"
#include "gateway/edge.h"
#include "gateway/stream.h"
#include "gateway/tls/context.h"

struct tls_server;
struct tls_port;

/* The door owns the stream from here on. */
typedef void tls_on_stream(void *ctx, struct stream *stream);

/* Before any door of the loop, so that its hook comes before theirs. Takes a reference of its own.
 * `edge->tls` is set. ST_NO_MEMORY. */
enum status tls_server_create(struct edge *edge, struct tls_context *context,
                              struct tls_server **out) MUST_CHECK;
void tls_server_destroy(struct tls_server *t); /* after the ports. NULL is allowed */

/* Handshakes that begin from now on are done with this one. Any thread. ST_NO_MEMORY: nothing changed. */
enum status tls_server_renew(struct tls_server *t, struct tls_context *context) MUST_CHECK;

/* A port of it. `alpn`: the one application protocol, static. A handshake that takes longer than
 * `timeout_ms` fails. ST_NO_MEMORY, ST_IO; the listener is gone either way. */
enum status tls_port_open(struct tls_server *t, int listen_fd, const char *alpn, uint64_t timeout_ms,
                          tls_on_stream *on_stream, void *ctx, struct tls_port **out) MUST_CHECK;
void tls_port_stop(struct tls_port *p); /* no new ones; handshakes under way end. NULL is allowed */
void tls_port_close(struct tls_port *p); /* NULL is allowed */

#endif
