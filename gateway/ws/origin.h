/* Who may open a connection while clients are anonymous: any web page in the world can make its visitor's
 * browser call loopback, so the browser's own words, Host and Origin, decide (PROTOCOL.md 2). Pure, any
 * thread. */
#ifndef TG_GATEWAY_WS_ORIGIN_H
#define TG_GATEWAY_WS_ORIGIN_H

#include "core/slice.h"

/* `listed`: origins such as "https://app.example.com", joined by '\n'; NULL or "" = none.
 * Host: loopback, or that of a listed origin, or with `any_host` (nobody stays anonymous) any. Origin: absent
 * (data NULL), the Host's own, or listed; an opaque one ("null") never is (host.h). */
bool origin_permitted(struct slice host, struct slice origin, const char *listed, bool any_host);

#endif
