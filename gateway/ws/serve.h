/* Inside gateway/ws/: the operations of the protocol, one file each. */
#ifndef TG_GATEWAY_WS_SERVE_H
#define TG_GATEWAY_WS_SERVE_H

#include "gateway/ws/conn.h"
#include "gateway/ws/request.h"
#include "routing/topic.h"

/* The operations. The request was not refused by its parser. */
void serve_sub(struct conn *c, const struct ws_request *r);
void serve_unsub(struct conn *c, const struct ws_request *r);
void serve_pub(struct conn *c, const struct ws_request *r);
void serve_get(struct conn *c, const struct ws_request *r);
void serve_ack(struct conn *c, const struct ws_request *r);
void serve_credit(struct conn *c, const struct ws_request *r);
/* hello's window. False: it comes too late and has been refused. */
bool serve_window(struct conn *c, const struct ws_request *r);

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
/* The positions of `after` as a place, of a read that goes forward or back. ST_GONE: *stranger is one of
 * another epoch. ST_INVALID. */
enum status serve_fold(const struct conn *c, const struct ws_request *r, struct place *place,
                       struct slice *stranger) MUST_CHECK;
/* True: the topic begins with $ and the request has been refused. */
bool serve_refuse_internal(struct conn *c, const struct ws_request *r);

#endif
