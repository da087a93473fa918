/* What the server says (PROTOCOL.md 1), as bytes. Every function appends one whole object, without a
 * line break and without a frame. ST_FULL (the buffer's limit) or ST_NO_MEMORY. Pure, any thread. */
#ifndef TG_GATEWAY_WS_REPLY_H
#define TG_GATEWAY_WS_REPLY_H

#include "core/buf.h"
#include "core/msg.h"
#include "session/presence.h"

struct ws_id {
    bool given;
    uint64_t value;
};

/* {"msg":<object>}, or {"sub":"<filter>","msg":<object>} when the filter is not the topic. */
enum status ws_put_delivery(struct buf *out, uint32_t epoch, const struct msg *m, bool retained,
                            const struct slice *filter) MUST_CHECK;

struct ws_hello {
    const char *session, *node;
    struct slice user; /* "" = anonymous: not said */
    struct slice inbox; /* the filter of the user's inbox, when it is subscribed; else empty */
    bool resumed;
    struct slice lost; /* JSON strings with commas between them */
    uint64_t ping_ms, max_bytes;
};
enum status ws_put_hello(struct buf *out, struct ws_id id, const struct ws_hello *h) MUST_CHECK;
enum status ws_put_subscribed(struct buf *out, struct ws_id id, struct slice filter, uint32_t epoch,
                              const struct place *at, uint64_t replay) MUST_CHECK;
enum status ws_put_unsubscribed(struct buf *out, struct ws_id id, struct slice filter) MUST_CHECK;
/* {"end":{"topic","code","detail"}}: nothing more comes of this subscription. */
enum status ws_put_end(struct buf *out, struct slice filter, const char *code, const char *detail) MUST_CHECK;
enum status ws_put_authenticated(struct buf *out, struct ws_id id, struct slice user) MUST_CHECK;
enum status ws_put_live(struct buf *out, struct slice filter, uint32_t epoch,
                        const struct place *at) MUST_CHECK;
enum status ws_put_published(struct buf *out, struct ws_id id, uint32_t epoch, const struct msg *m,
                             bool duplicate) MUST_CHECK;
/* A page: {"id","ok":{"topic","messages":[...],"next":"<bookmark>"}}. */
enum status ws_put_page(struct buf *out, struct ws_id id, struct slice topic, uint32_t epoch,
                        struct msg *const *msgs, uint64_t count, const struct place *next) MUST_CHECK;
enum status ws_put_presence(struct buf *out, struct ws_id id, const struct presence *p) MUST_CHECK;
/* A run of one lane that cannot be had: from and to are positions, count their number. */
enum status ws_put_gap(struct buf *out, struct slice filter, uint32_t epoch,
                       const struct gap *gap) MUST_CHECK;
/* Continuity is lost for a reason that has no positions here: a position of another epoch. */
enum status ws_put_gap_from(struct buf *out, struct slice filter, struct slice from,
                            const char *why) MUST_CHECK;

struct ws_error {
    const char *code, *detail;
    uint64_t retry_ms; /* 0: not said */
    bool temporary;
    bool unknown; /* the outcome: it may have happened, or happen yet */
    const char *earliest; /* position_gone; NULL: not said */
    const char *next; /* behind what cannot be read; NULL: not said */
};
enum status ws_put_error(struct buf *out, struct ws_id id, const struct ws_error *e) MUST_CHECK;
enum status ws_put_bye(struct buf *out, uint16_t code, const char *why, uint64_t retry_ms) MUST_CHECK;

#endif
