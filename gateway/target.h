/* The request target (RFC 9112, 3.2.1) by the rules of PROTOCOL.md 2. Pure, any thread. */
#ifndef TG_GATEWAY_TARGET_H
#define TG_GATEWAY_TARGET_H

#include "core/slice.h"
#include "core/status.h"

/* Why a target is refused. The last four: clients and proxies rewrite such paths, so what was published
 * would land on another topic; such topics go through ?topic=. */
enum target_flaw {
    TARGET_FINE,
    TARGET_NOT_ORIGIN_FORM, /* does not begin with '/' */
    TARGET_BAD_BYTE, /* a control character, a space or a fragment */
    TARGET_BAD_PERCENT, /* '%' without two hexadecimal digits */
    TARGET_EMPTY_SEGMENT,
    TARGET_DOT_SEGMENT, /* "." or "..", also when written with %2E */
    TARGET_ENCODED_SLASH,
    TARGET_ENCODED_NUL,
};

struct target {
    struct slice path; /* begins with '/'; each segment decoded once, none empty, none with a '/' in it */
    bool trailing_slash; /* not in `path`; below a topic's route it is an empty level */
    struct slice query; /* as it came, without the '?' */
    uint8_t *space; /* where the query's texts go */
};

/* Takes scheme and authority off an absolute target (RFC 9112, 3.2.2); the authority is the request's host,
 * whatever Host says, and may be of any form. What is left begins with '/', or is empty or a query alone,
 * which mean "/". False: it is none, or names nobody. */
bool target_take_authority(struct slice *raw, struct slice *authority);
/* `space`: at least raw.len bytes, kept by the caller as long as `out` is used. "/" alone is fine. */
enum target_flaw target_parse(struct slice raw, uint8_t *space, struct target *out);
/* One sentence for people. */
const char *target_flaw_text(enum target_flaw flaw);

/* Takes the next parameter off the query. Percent signs are decoded; '+' is a space unless it is a whole
 * level of a topic ("a/+/b"). Both texts live in the target's space. ST_NOT_FOUND: none left.
 * ST_INVALID: '%' without two digits. */
enum status target_parameter(struct target *t, struct slice *name, struct slice *value) MUST_CHECK;

#endif
