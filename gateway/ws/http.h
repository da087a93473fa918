/* Inside gateway/ws/: what libwebsockets is allowed to do with an HTTP request. Called from its callbacks;
 * answers by lws_write. */
#ifndef TG_GATEWAY_WS_HTTP_H
#define TG_GATEWAY_WS_HTTP_H

#include "gateway/ws/conn.h"

/* A request that is not an upgrade, before libwebsockets acts on it. False: answered, close. */
bool http_filter(struct conn *c);
/* Answers it. False: close. */
bool http_request(struct conn *c);
/* Goes on with a body; called when the socket has room. False: done, close. */
bool http_writable(struct conn *c);
/* A request with `Upgrade`. True: a WebSocket that may be opened. False: answered, close. */
bool upgrade_permitted(struct conn *c);

/* The standard's words for a status. */
const char *http_reason(int status);
/* A problem (RFC 9457) as text; returns its length. The texts are ours, and fit. */
int http_problem(struct web_door *d, char *out, size_t size, int status, const char *code, const char *detail,
                 uint32_t retry_ms);

/* Before there is anything of libwebsockets: too many connections (503), or of one address (429). Takes the
 * descriptor over. */
void http_refuse_socket(int fd, int status);

#endif
