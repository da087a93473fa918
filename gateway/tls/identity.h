/* Who a client is by its certificate (tls.client_identity). Owning loop of the stream. */
#ifndef TG_GATEWAY_TLS_IDENTITY_H
#define TG_GATEWAY_TLS_IDENTITY_H

#include "gateway/edge.h"
#include "gateway/stream.h"

struct principal;

/* The user that a verified certificate names, with a reference for the caller. NULL: the stream is not TLS,
 * there is no certificate, or it has no such name: the client is then as one that has none. */
struct principal *tls_identity(const struct edge *edge, const struct stream *s);

#endif
