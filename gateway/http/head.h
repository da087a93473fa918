/* What the API reads of a request's header fields. Pure; the texts are borrowed from whoever parsed them. */
#ifndef TG_GATEWAY_HTTP_HEAD_H
#define TG_GATEWAY_HTTP_HEAD_H

#include "core/slice.h"

enum head_field {
    HEAD_HOST,
    HEAD_ORIGIN,
    HEAD_AUTHORIZATION,
    HEAD_FORWARDED,
    HEAD_X_FORWARDED_FOR,
    HEAD_TRANSFER_ENCODING,
    HEAD_CONTENT_LENGTH,
    HEAD_CONTENT_TYPE,
    HEAD_CONTENT_ENCODING,
    HEAD_EXPECT,
    HEAD_TRACEPARENT,
    HEAD_IDEMPOTENCY_KEY,
    HEAD_REQUEST_ID,
    HEAD_CE_SPECVERSION,
    HEAD_KEY,
    HEAD_TTL_MS,
    HEAD_WAIT,
    HEAD_RETAIN,
    HEAD_DELIVER_AT,
    HEAD_FIELD_COUNT
};

enum { HEAD_CE_MAX = 48 };

struct head {
    uint32_t given; /* a bit a field */
    struct slice fields[HEAD_FIELD_COUNT];
    bool bad_name; /* a field name that is not a token (RFC 9110, 5.6.2) */
    /* ce-<name> fields, in order (CloudEvents, binary mode) */
    unsigned ce_count;
    bool ce_over; /* there are more */
    struct {
        struct slice name, value;
    } ce[HEAD_CE_MAX];
    bool unknown_tidegate; /* Tidegate-<something this build has never heard of> */
    const char *repeated; /* name of a field that may be given once and was given twice; NULL: none */
};

static inline bool head_has(const struct head *h, enum head_field field)
{
    return (h->given & 1u << field) != 0;
}

void head_add(struct head *h, struct slice name, struct slice value);

#endif
