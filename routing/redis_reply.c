#include "routing/redis_reply.h"

#include <hiredis/hiredis.h>

struct slice redis_reply_text(const struct redisReply *r)
{
    if (!r || (r->type != REDIS_REPLY_STRING && r->type != REDIS_REPLY_STATUS))
        return (struct slice){0};
    return slice_of(r->str, (size_t)r->len);
}

bool redis_reply_is_nil(const struct redisReply *r)
{
    return r && r->type == REDIS_REPLY_NIL;
}

bool redis_reply_is_error(const struct redisReply *r)
{
    return r && r->type == REDIS_REPLY_ERROR;
}

struct slice redis_reply_error(const struct redisReply *r)
{
    return redis_reply_is_error(r) ? slice_of(r->str, (size_t)r->len) : (struct slice){0};
}

size_t redis_reply_count(const struct redisReply *r)
{
    return r && r->type == REDIS_REPLY_ARRAY ? r->elements : 0;
}

const struct redisReply *redis_reply_at(const struct redisReply *r, size_t index)
{
    return index < redis_reply_count(r) ? r->element[index] : NULL;
}
