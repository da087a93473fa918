/* Requests of a command to the node that uses a data folder. Its ports are in <data>/ports, or, where that
 * file cannot be read, those of the configuration; api.bind, http.bind and api.key are of the configuration.
 * Blocking. */
#ifndef TG_GATEWAY_CLI_NODE_API_H
#define TG_GATEWAY_CLI_NODE_API_H

#include "gateway/settings.h"

#include <stdio.h>

enum { NODE_API_ANSWER_BYTES_MAX = 1 << 20 };

struct node_request {
    bool public_port; /* else the private API's */
    const char *method, *target;
    struct slice fields; /* header lines, each with CRLF; the key or token is added */
    const char *token; /* NULL: at the private API api.key, where there is one */
    struct slice body;
};

/* ST_OK: *status is the answer's, `body` (whose limit is NODE_API_ANSWER_BYTES_MAX) its body, ended by NUL.
 * ST_NOT_FOUND: nobody answers. ST_IO: no answer came, though the request may have been taken. */
enum status node_call(const struct settings *s, const struct node_request *r, unsigned *status,
                      struct buf *body) MUST_CHECK;
/* The same, but what comes is read by the caller. */
enum status node_open(const struct settings *s, const struct node_request *r, FILE **out) MUST_CHECK;
const char *node_address(const struct settings *s, bool public_port);

/* Tells of a status that node_call or node_open did not expect, or of an answer that is none of the 2xx, on
 * stderr. The exit code. */
int node_call_failed(const struct settings *s, const struct node_request *r, enum status st, unsigned status,
                     const char *body);

/* Percent-encodes all but letters, digits and "-._~". ST_FULL, ST_NO_MEMORY. */
enum status node_put_encoded(struct buf *out, struct slice text) MUST_CHECK;

#endif
