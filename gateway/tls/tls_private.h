/* Inside gateway/tls/: what may see OpenSSL. */
#ifndef TG_GATEWAY_TLS_PRIVATE_H
#define TG_GATEWAY_TLS_PRIVATE_H

#include "gateway/stream.h"
#include "gateway/tls/context.h"

#include <openssl/ssl.h>

/* The one protocol (RFC 7301) of a port, as it stands in ClientHello: its length, then its name. */
struct tls_alpn {
    uint8_t bytes[16];
};

/* A connection whose handshake is to be done. It refuses clients that offer other protocols than `alpn`
 * (static). NULL: no memory. */
SSL *tls_context_connection(struct tls_context *t, int fd, const struct tls_alpn *alpn);

/* Unix seconds. */
int64_t tls_not_after(const X509 *cert);

/* NULL: another kind of stream. */
SSL *tls_stream_ssl(const struct stream *s);
/* stream.c: the stream of a connection whose handshake is done. Takes both over. */
struct stream tls_stream(SSL *ssl, int fd);

#endif
