/* Users in topics. A user is an authenticated identity, any text; its inbox is the topic `$user/<id>` and all
 * below it, where the id is written with `%`, `/`, `+`, `#` and control characters percent-encoded, in upper
 * case, and nothing else: each user has one spelling. Pure, any thread. */
#ifndef TG_ROUTING_USER_H
#define TG_ROUTING_USER_H

#include "core/buf.h"

/* An id of a user: UTF-8, not empty. */
bool user_valid(struct slice user);
/* Appends the id as topics have it. ST_FULL, ST_NO_MEMORY: part of it may have been added. */
enum status user_encode(struct slice user, struct buf *out) MUST_CHECK;
/* Appends `$user/<id>`, and `/` and `below` unless that is empty. The same statuses. */
enum status user_put_inbox(struct buf *out, struct slice user, struct slice below) MUST_CHECK;

#endif
