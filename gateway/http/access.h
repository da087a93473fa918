/* Who may call the private API (PROTOCOL.md 2: "any web page can POST to loopback"). Pure, any thread.
 *
 * A page of another site cannot choose Host (unless its name is rebound to loopback, hence the Host rule) and
 * cannot hide Origin on anything that changes something (hence the Origin rule). A proxy on this machine
 * would make strangers look local: its Forwarded headers take the anonymous privilege away. */
#ifndef TG_GATEWAY_HTTP_ACCESS_H
#define TG_GATEWAY_HTTP_ACCESS_H

#include "gateway/http/head.h"

struct access_rules {
    const char *key; /* bearer key, "" = none */
    const char *hosts; /* '\n'-joined further Host values; without a port: any port */
    const char *origins; /* '\n'-joined further origins */
    uint16_t ports[2]; /* ours on loopback: pages from there are our own; 0 = none */
    bool loopback_only; /* the listener is bound to loopback: anonymous requests are possible */
};

enum access {
    ACCESS_GRANTED,
    ACCESS_BAD_KEY, /* 401: Authorization is neither our key nor a token nor Basic */
    ACCESS_FORWARDED, /* 401: anonymous through a proxy */
    ACCESS_NEEDS_KEY, /* 401: anonymous at an address that is not loopback */
    ACCESS_BAD_HOST, /* 403 */
    ACCESS_BAD_ORIGIN, /* 403 */
};

/* What Authorization holds; *text is the token, or what Basic has in base64 (RFC 7617). Neither is judged
 * here: auth_check does. */
enum access_credential {
    CREDENTIAL_NONE,
    CREDENTIAL_KEY,
    CREDENTIAL_TOKEN,
    CREDENTIAL_BASIC,
    CREDENTIAL_BAD
};
enum access_credential access_credential(const struct access_rules *rules, const struct head *head,
                                         struct slice *text);

/* The place and the way, with a credential that looks like one. */
enum access access_judge(const struct access_rules *rules, const struct head *head);
const char *access_text(enum access access);

#endif
