/* What all TLS connections of a node have in common: certificates with their keys, the versions, and whose
 * clients' certificates are believed. Immutable once loaded and counted (any thread); a reload makes a new
 * one, and connections that stand keep the one they were opened with. */
#ifndef TG_GATEWAY_TLS_CONTEXT_H
#define TG_GATEWAY_TLS_CONTEXT_H

#include "core/buf.h"
#include "gateway/settings.h"

struct tls_context;

/* Reads the files that tls.* names; blocks on the disk, so not on a loop. ST_INVALID, ST_NO_MEMORY: `error`
 * gets one line that says which file and why. */
enum status tls_context_load(const struct settings *s, struct tls_context **out,
                             struct buf *error) MUST_CHECK;
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t); /* NULL is allowed */

/* When the first of the certificates ends, Unix seconds. */
int64_t tls_context_expiry(const struct tls_context *t);

static inline bool tls_configured(const struct settings *s)
{
    return s->tls_cert_file[0] != '\0';
}

#endif
