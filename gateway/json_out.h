/* Writes JSON by hand, in one pass, with no tree between. A `struct json_out` carries the first error, so
 * that an encoder reads as the list of what it writes; nobody looks at the buffer after one. Pure, any
 * thread. */
#ifndef TG_GATEWAY_JSON_OUT_H
#define TG_GATEWAY_JSON_OUT_H

#include "core/buf.h"

struct json_out {
    struct buf *buf;
    enum status status; /* ST_OK; ST_FULL: the buffer's limit; ST_NO_MEMORY */
};

/* Bytes as they are: the caller knows that they are JSON. */
void json_out_put(struct json_out *o, struct slice bytes);
#define json_out_literal(o, text) json_out_put(o, slice_of("" text, sizeof text - 1))
void json_out_string(struct json_out *o, struct slice text);
void json_out_number(struct json_out *o, uint64_t value);
/* A position as a string. */
void json_out_position(struct json_out *o, uint32_t epoch, unsigned lane, uint64_t offset);
/* Of an answer from a directory that nodes share: ,"stale":<bool>,"as_of":<Unix ms, or null when nothing is
 * known of other nodes>; else nothing. */
void json_out_freshness(struct json_out *o, bool shared, bool stale, uint64_t as_of_ms);

#endif
