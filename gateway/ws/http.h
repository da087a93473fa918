/* Inside gateway/ws/: what a request to the public port gets: a page, a feed, a WebSocket, or an error. */
#ifndef TG_GATEWAY_WS_HTTP_H
#define TG_GATEWAY_WS_HTTP_H

#include "gateway/ws/conn.h"

struct web_flaw;

/* The request in hand of c->front: answers it (front_answer), or begins what it asks for. */
void http_serve(struct conn *c);
/* What came is no request; the last answer. */
void http_refuse(struct conn *c, const struct web_flaw *flaw);

/* An answer that is a problem. `headers`: further lines, each with its CRLF; NULL: none. False always. */
bool http_answer_problem(struct conn *c, int status, const char *code, const char *detail,
                         const char *headers);

/* The standard's words for a status. */
const char *http_reason(int status);
/* A problem (RFC 9457) as text; returns its length. The texts are ours, and fit. `id`: of the request; empty:
 * it has got none, and gets one. */
int http_problem(struct web_door *d, char *out, size_t size, int status, const char *code, const char *detail,
                 uint32_t retry_ms, const char *id);

/* Before there is a connection: too many of them (503), or of one address (429). Takes the stream over. */
void http_refuse_stream(struct web_door *d, struct stream *io, int status);

#endif
