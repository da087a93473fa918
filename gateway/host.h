/* What a browser says of where a request goes and where it comes from: Host (RFC 9110, 7.2) and Origin
 * (RFC 6454, 7). The doors' rules of who may call stand on this (PROTOCOL.md 2). Pure, any thread.
 *
 * A name that merely resolves to loopback is not loopback: evil.example may resolve to 127.0.0.1 for its
 * visitors (DNS rebinding), but it cannot make their browser write another Host. */
#ifndef TG_GATEWAY_HOST_H
#define TG_GATEWAY_HOST_H

#include "core/slice.h"

/* "name[:port]"; an IPv6 literal keeps its brackets, *port is empty when there is none. False: not of this
 * form. */
bool host_split(struct slice host, struct slice *name, struct slice *port);
/* Names have no case. */
bool host_name_equal(struct slice a, struct slice b);

/* An address as one binds to it, 127.0.0.0/8 or ::1. */
bool host_address_is_loopback(struct slice address);
/* A name without its port: 127.0.0.0/8, [::1] or localhost. */
bool host_name_is_loopback(struct slice name);
/* The same with any port or none. */
bool host_is_loopback(struct slice host);

/* "http://host" or "https://host": *host, and the port that is meant when none is written. False: another
 * scheme, or the opaque "null". */
bool host_split_origin(struct slice origin, struct slice *host, struct slice *default_port);
/* The origin is that of the host's own pages. A port that is not written is the scheme's. */
bool host_is_origin(struct slice host, struct slice origin);

/* Calls of it walk a '\n'-joined list (NULL = empty): *item, never empty, without slashes at its end (an
 * origin has no path, but people write one). False: the end. */
bool host_next_listed(const char **list, struct slice *item);
/* The origin, such as "https://app.example.com", is one of the list's. "null" is every sandboxed page in the
 * world, and never listed. */
bool host_origin_is_listed(const char *list, struct slice origin);

#endif
