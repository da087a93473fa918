/* Inside gateway/ws/: the operations of the protocol, one file each. */
#ifndef TG_GATEWAY_WS_SERVE_H
#define TG_GATEWAY_WS_SERVE_H

#include "gateway/ws/conn.h"
#include "gateway/ws/request.h"
#include "routing/topic.h"
#include "session/keeper.h"

/* The operations. The request was not refused by its parser. */
void serve_sub(struct conn *c, const struct ws_request *r);
void serve_unsub(struct conn *c, const struct ws_request *r);
void serve_pub(struct conn *c, const struct ws_request *r);
void serve_get(struct conn *c, const struct ws_request *r);
void serve_who(struct conn *c, const struct ws_request *r);
void serve_ack(struct conn *c, const struct ws_request *r);
void serve_credit(struct conn *c, const struct ws_request *r);
void serve_auth(struct conn *c, const struct ws_request *r);
/* hello's window. False: it comes too late and has been refused. */
bool serve_window(struct conn *c, const struct ws_request *r);

/* --- subscribe.c ---------------------------------------------------------------------------------- */

/* A `sub` that is not yet in place; or a filter that is being resumed, which is not answered. */
struct subscribing {
    struct list link; /* conn->subscribing */
    struct conn *conn;
    struct subscription *subscription;
    struct ws_id id;
    struct keeper_wait wait; /* of one that is held: its `ok` comes when the session's record has it */
    struct place at;
    uint64_t replay;
    size_t gap_len; /* a position of another epoch, for the gap to be told */
    uint8_t gap_from[];
};
/* It is in place: its `ok`. Frees s. */
void serve_subscribed(struct conn *c, struct subscribing *s);
void serve_drop_subscribing(struct subscribing *s);
static inline struct tally *subscription_tally(const struct subscription *sub)
{
    return subscription_options_of(sub)->door;
}
/* A filter of the session, or of hello.after, which has no tally: begins at `o->after`. ST_INVALID: no filter
 * that may be subscribed to. ST_FORBIDDEN, ST_FULL, ST_NO_MEMORY. */
enum status serve_resume_filter(struct conn *c, struct slice filter, struct subscription_options *o,
                                bool ack) MUST_CHECK;

/* The rights to it are gone: no more of it, and out of the session's record. */
void serve_end_subscription(struct conn *c, struct slice filter);

/* --- keep.c: the session's record ------------------------------------------------------------------ */

/* The connection's keeper, made when there is none. NULL: no memory. The connection has a token. */
struct keeper *keep_keeper(struct conn *c);
enum status keep_resume(struct conn *c) MUST_CHECK; /* reads the record of c->token; resume_* follow */
/* A held subscription has its places: asks for the record. */
void keep_subscription(struct conn *c, struct subscribing *s);
/* The filter is not in the session any more: its `ok` when the record says so. */
void keep_without(struct conn *c, struct ws_id id, struct slice filter);
void keep_end(struct conn *c); /* the connection ends */
/* An `err` for a record that could not be written. */
void keep_refused(struct conn *c, struct ws_id id, enum status status);

/* --- resume.c: hello ------------------------------------------------------------------------------- */

void serve_hello(struct conn *c, const struct ws_request *r);
/* What the keeper says to a connection that resumes. */
void resume_on_read(void *conn, enum status status, struct slice record);
struct slice resume_record(const struct opening *o); /* as it was read */
void opening_free(struct opening *o); /* NULL is allowed */

/* --- inbox.c: what the connection acknowledges of its user's inbox ------------------------------------ */

struct inbox_place;
bool inbox_is_whole(const struct conn *c, struct slice filter); /* `$user/<own id>/#` */
enum status inbox_put_filter(const struct conn *c,
                             struct buf *out) MUST_CHECK; /* that; the connection has a user */
/* on_found follows, not inside this call, unless the connection ends before (session/inbox.h). ST_NO_MEMORY.
 */
enum status inbox_ask_place(struct conn *c, void (*on_found)(void *conn, enum status status,
                                                             const struct inbox_place *place)) MUST_CHECK;
/* From now on what is acknowledged of this tally, of the whole inbox, moves the inbox's cursor. ST_NO_MEMORY.
 */
enum status inbox_follow(struct conn *c, struct tally *t) MUST_CHECK;
uint64_t inbox_open_count(const struct conn *c); /* its unacknowledged messages */
void inbox_acked(struct conn *c, uint64_t count); /* so many of them have been acknowledged */
void inbox_end(struct conn *c);

/* --- ack.c: numbered messages. `shared` is the object's text without the number --- */
size_t ack_text_bytes(const struct conn *c, struct slice shared);
/* Queues it under the next number, which is spent then. ST_NO_MEMORY. */
enum status ack_put(struct conn *c, struct slice shared, const struct flow_sent *sent) MUST_CHECK;

/* What they have in common. */
struct ws_id serve_id(const struct ws_request *r);
struct topic_limits serve_limits(const struct conn *c);
/* Sends what an encoder has put into the door's scratch buffer, whose status is given. */
void serve_put(struct conn *c, enum status encoded);
void serve_error(struct conn *c, struct ws_id id, const char *code, const char *detail);
void serve_later(struct conn *c, struct ws_id id, const char *code, const char *detail); /* temporary */
/* The same of a publish that the log may have, or may get yet. */
void serve_unknown(struct conn *c, struct ws_id id, const char *detail);
void serve_over_rate(struct conn *c, struct ws_id id, const char *detail, uint32_t wait_ms);
/* The positions of `after` as a place, of a read that goes forward or back. ST_GONE: *stranger is one of
 * another epoch. ST_INVALID. */
enum status serve_fold(const struct conn *c, const struct ws_request *r, struct place *place,
                       struct slice *stranger) MUST_CHECK;
/* True: the connection may not do that with the topic or filter, and the request has been refused. */
bool serve_refuse_topic(struct conn *c, const struct ws_request *r, enum access_op op);
/* Whose token it is. AUTH_PENDING: the request is to be left alone; its line comes again. */
enum auth_verdict serve_judge(struct conn *c, struct slice token, struct principal **out);
/* The connection becomes the one whom the request's token names. False: refused, or not known yet. Who has a
 * name already may say it again, no other. */
bool serve_identify(struct conn *c, const struct ws_request *r);
/* What the connection's rights do not cover any more is ended, and told. */
void serve_review(struct conn *c);
/* Takes the reference over. False: no memory, the connection breaks. */
bool serve_become(struct conn *c, struct principal *p);
/* Its user comes in, if it has one. False: too often; it is being closed. */
bool serve_enter(struct conn *c, const struct principal *p);
/* A credential was refused: `err`, then the connection is closed with the code that says why. */
void serve_unauthorized(struct conn *c, struct ws_id id, enum auth_verdict v);
static inline bool conn_may(const struct conn *c, enum access_op op, struct slice topic)
{
    return principal_may(c->principal, op, topic,
                         (struct slice){0}); /* a WebSocket has no client identifier */
}

#endif
