/* A reply of Redis, as hiredis has read it: read-only, borrowed for the callback that gets it. What is in it
 * comes from outside. Pure. */
#ifndef TG_ROUTING_REDIS_REPLY_H
#define TG_ROUTING_REDIS_REPLY_H

#include "core/slice.h"

struct redisReply;

struct slice redis_reply_text(const struct redisReply *r); /* a string or status; else empty, data NULL */
bool redis_reply_is_nil(const struct redisReply *r);
bool redis_reply_is_error(const struct redisReply *r);
struct slice redis_reply_error(const struct redisReply *r); /* its words; else empty */
size_t redis_reply_count(const struct redisReply *r); /* of an array; else 0 */
const struct redisReply *redis_reply_at(const struct redisReply *r, size_t index); /* NULL: beyond its end */

#endif
