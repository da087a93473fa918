/* JSON over slices, without allocation: a validator and a pull scanner (RFC 8259, strict). For the
 * hot path; everything else uses jansson. Nesting is bounded (json_limit_depth). Any thread. */
#ifndef TG_CORE_JSON_H
#define TG_CORE_JSON_H

#include "core/buf.h"

enum { JSON_DEPTH_MAX = 64 };

/* Text that is nested deeper is not valid; at first JSON_DEPTH_MAX, and at most that, at least 1. Of the
 * process: before other threads run. */
void json_limit_depth(unsigned depth);

/* Not JSON_NULL, JSON_STRING ...: those are jansson's, and a file may need both. */
enum json_type {
    JSON_IS_NULL,
    JSON_IS_TRUE,
    JSON_IS_FALSE,
    JSON_IS_NUMBER,
    JSON_IS_STRING,
    JSON_IS_ARRAY,
    JSON_IS_OBJECT,
};

struct json_value {
    enum json_type type;
    struct slice raw; /* the whole value as written; a string with its quotes */
};

/* Exactly one JSON value with optional white space around it, UTF-8, no lone surrogate escapes. */
bool json_valid(struct slice text);

/* The value at the start of `text` (white space skipped); *used = bytes up to its end. ST_INVALID. */
enum status json_read(struct slice text, struct json_value *out, size_t *used) MUST_CHECK;

/* Members of an object, in order: `place` starts at 0. ST_OK, ST_NOT_FOUND at the end, ST_INVALID.
 * The key is raw text between its quotes (compare by json_key_is, which knows escapes).
 * What is passed over is checked: a text need not be checked before, and a walk that ends with
 * ST_NOT_FOUND has proved all of it valid. (A walk that stops early has said nothing about the rest.) */
enum status json_member(struct slice object, size_t *place, struct slice *key,
                        struct json_value *value) MUST_CHECK;
enum status json_element(struct slice array, size_t *place, struct json_value *value) MUST_CHECK;
bool json_key_is(struct slice key, const char *name);

/* The member of that name (the first), ST_NOT_FOUND, ST_INVALID. */
enum status json_find(struct slice object, const char *name, struct json_value *value) MUST_CHECK;

/* Values. Integers are 0 to 2^53-1 (PROTOCOL.md 1); "1.0", "-1", "1e3" are ST_INVALID. */
enum status json_uint(struct json_value v, uint64_t *out) MUST_CHECK;
/* Appends the decoded text (escapes resolved, UTF-8). ST_INVALID when it is not a string. */
enum status json_text(struct json_value v, struct buf *out) MUST_CHECK;

/* Appends `text` (valid UTF-8) as a JSON string with quotes, escaping what must be. */
enum status json_put_string(struct buf *out, struct slice text) MUST_CHECK;
/* Appends a valid JSON text such that the result has no raw CR or LF: those between tokens (the only
 * place where valid JSON has them) become spaces. */
enum status json_put_embedded(struct buf *out, struct slice json) MUST_CHECK;

#endif
