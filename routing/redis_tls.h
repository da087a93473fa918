/* What TLS to a Redis server needs: whom we believe, and who we are. Made once; any thread afterwards. */
#ifndef TG_ROUTING_REDIS_TLS_H
#define TG_ROUTING_REDIS_TLS_H

#include "core/buf.h"

struct redis_tls;

/* PEM files. `ca_file` empty: the authorities of the system. `cert_file` and `key_file` empty: no certificate
 * of our own. ST_INVALID: `error` says which file and why. */
enum status redis_tls_load(const char *ca_file, const char *cert_file, const char *key_file,
                           struct redis_tls **out, struct buf *error) MUST_CHECK;
void redis_tls_destroy(struct redis_tls *t); /* NULL is allowed */

#endif
