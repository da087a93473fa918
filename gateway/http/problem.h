/* Problem details (RFC 9457), the body of every answer that is an error. */
#ifndef TG_GATEWAY_HTTP_PROBLEM_H
#define TG_GATEWAY_HTTP_PROBLEM_H

#include "core/buf.h"

struct problem {
    unsigned status;
    const char *code; /* of PROTOCOL.md 1: "bad_request", "unsupported" ... */
    const char *detail; /* a sentence for people; NULL: none */
    uint32_t retry_ms; /* when to try again; 0: waiting does not help. Also as Retry-After */
    const char *members; /* further members, as JSON without braces: "\"unknown\":true"; NULL: none */
    const char *request_id; /* set by request_refuse; NULL: none */
};

extern const char problem_media_type[];
enum status problem_put(struct buf *out, const struct problem *p) MUST_CHECK;
/* The standard's name of a status, "" when we never send it. */
const char *problem_title(unsigned status);

#endif
