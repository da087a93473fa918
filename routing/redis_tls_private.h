/* For redis_link.c, which speaks it. */
#ifndef TG_ROUTING_REDIS_TLS_PRIVATE_H
#define TG_ROUTING_REDIS_TLS_PRIVATE_H

#include "routing/redis_tls.h"

#include <openssl/ssl.h>

struct redis_tls {
    SSL_CTX *context;
};

/* A client's side on the socket, which must show a certificate for `host`, a name or an address. NULL: no
 * memory. */
SSL *redis_tls_begin(struct redis_tls *t, int fd, const char *host);
/* Why the last call on `ssl` has failed, for people; the queue of errors is empty then. */
const char *redis_tls_why(SSL *ssl, char *text, size_t size);

#endif
