/* What a GET of /sse or /poll asks for, parameter by parameter (PROTOCOL.md 1, SSE and long polling). Pure;
 * any thread. */
#ifndef TG_GATEWAY_WS_FEED_REQUEST_H
#define TG_GATEWAY_WS_FEED_REQUEST_H

#include "core/slice.h"
#include "gateway/unknown.h"
#include "routing/topic.h"

enum feed_kind { FEED_SSE, FEED_POLL };

enum {
    FEED_TOPICS_MAX = 16,
    FEED_TEXT_BYTES = 4096, /* of all parameters */
    FEED_WAIT_MS_MAX = 60000,
};

struct feed_request {
    enum feed_kind kind;
    const char *refused; /* what is wrong with it; NULL: nothing so far */
    unsigned topic_count;
    struct slice topics[FEED_TOPICS_MAX];
    struct slice from; /* `from`, `after` or Last-Event-ID, as given; data NULL: none */
    bool has_wait, has_max;
    bool resumes; /* there was a Last-Event-ID */
    uint64_t wait_ms; /* poll */
    uint32_t max; /* poll; 0: the default */
    char refused_text[UNKNOWN_TEXT_BYTES]; /* `refused`, where it names something */
    size_t used;
    char texts[FEED_TEXT_BYTES];
};

void feed_request_init(struct feed_request *r, enum feed_kind kind);
/* "name=value", percent signs decoded. */
void feed_request_add(struct feed_request *r, struct slice pair);
/* A field of that name came with the request: it stands in for `from`. Empty is as good as none. */
void feed_request_last_event(struct feed_request *r, struct slice id);
/* When all is added: at least one filter, all of them valid, none twice. */
void feed_request_settle(struct feed_request *r, const struct topic_limits *limits);

#endif
