/* One line of a client (PROTOCOL.md 1) as a struct. Pure, any thread.
 *
 * What the protocol names but this build does not have (modes ...) is recognised
 * and refused, never ignored; what it does not name is ignored. `null` is as good as absent. */
#ifndef TG_GATEWAY_WS_REQUEST_H
#define TG_GATEWAY_WS_REQUEST_H

#include "core/buf.h"

enum ws_operation {
    WS_OP_NONE, /* an object without a member but `id` */
    WS_OP_HEARTBEAT, /* {} */
    WS_OP_HELLO,
    WS_OP_SUB,
    WS_OP_UNSUB,
    WS_OP_PUB,
    WS_OP_GET,
    WS_OP_ACK,
    WS_OP_CREDIT,
    WS_OP_WHO,
    WS_OP_AUTH,
    WS_OP_OTHER, /* known but not in this build, or unknown */
};

enum ws_start {
    WS_START_LIVE,
    WS_START_EARLIEST,
    WS_START_AFTER,
    WS_START_TIME,
    WS_START_LAST,
    WS_START_DEFAULT, /* inside the parser: a `get` whose `from` has not been met */
};
enum ws_payload { WS_PAYLOAD_NONE, WS_PAYLOAD_JSON, WS_PAYLOAD_TEXT, WS_PAYLOAD_BINARY };

enum {
    WS_AFTER_MAX = 128, /* positions in one `after` */
    WS_AFTER_FILTERS_MAX = 16384, /* filters in hello.after */
};

struct ws_request {
    enum ws_operation operation;
    bool has_id;
    uint64_t id;
    /* NULL, or an `err` code and what is wrong: the answer to a line that is JSON but not a request that
     * can be served. The rest of the struct is then not to be used. */
    const char *refused;
    const char *detail;

    struct slice topic; /* sub, unsub, pub, get; present, not checked as topic or filter */
    enum ws_start start; /* sub (default live), get (default earliest, or live in reverse) */
    uint64_t start_value; /* of time and last */
    bool reverse; /* get */
    struct slice after[WS_AFTER_MAX];
    unsigned after_count;
    enum ws_payload payload_kind; /* pub */
    struct slice payload; /* JSON as written, text and binary decoded */
    struct slice key, type;
    struct slice producer; /* pub; `has_sequence` with it, and not without it */
    bool has_sequence;
    uint64_t sequence;
    bool retain; /* pub */
    bool not_retained; /* sub: without the retained messages */
    bool has_ttl;
    uint64_t ttl_ms;
    bool ack; /* sub */
    struct slice session, token; /* hello, auth; data NULL: not given */
    bool inbox; /* hello */
    struct slice
        after_filters; /* hello.after as written: an object of at least one filter, each with its positions */
    bool has_n;
    uint64_t n; /* ack */
    bool has_msgs, has_bytes;
    uint64_t msgs, bytes; /* credit, hello.window; 0 when not given */
    bool has_max;
    uint64_t max; /* get */
};

/* Slices point into `line` or `texts`, which is cleared first and must have a limit of at least twice
 * the line's length. ST_OK: `out` is filled (see `refused`). ST_INVALID: not such a line at all: no JSON
 * object, or an `id` that is no integer. ST_NO_MEMORY. */
enum status ws_request_parse(struct slice line, struct buf *texts, struct ws_request *out) MUST_CHECK;

#endif
