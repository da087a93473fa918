/* The claims of a verified token as a principal (PROTOCOL.md 6). Pure; any thread. */
#ifndef TG_GATEWAY_AUTH_CLAIMS_H
#define TG_GATEWAY_AUTH_CLAIMS_H

#include "gateway/auth/verdict.h"
#include "session/principal.h"

enum { CLAIMS_RULES_MAX = 512 };

struct claims_rules {
    const char *issuers, *audiences; /* '\n'-joined; "" = any */
    uint64_t leeway_ms;
    struct acl *policy; /* of the configuration; may be NULL */
};

/* *out only when AUTH_OK. */
enum auth_verdict claims_read(struct slice payload, const struct claims_rules *rules, uint64_t now_ms,
                              struct principal **out);

#endif
