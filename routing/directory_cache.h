/* Earlier answers of the directory, for the time when it cannot be asked: of each user the connections that
 * other nodes had. Bounded in bytes; who is asked for again stays, and of two whose names meet in one place
 * the later. Owning loop only. */
#ifndef TG_ROUTING_DIRECTORY_CACHE_H
#define TG_ROUTING_DIRECTORY_CACHE_H

#include "routing/directory_record.h"

struct directory_remote {
    char node[DIRECTORY_NODE_BYTES_MAX + 1], door[DIRECTORY_WORD_BYTES_MAX + 1];
    uint64_t incarnation, connection, since_ms;
};

struct directory_cache;

enum status directory_cache_create(uint64_t bytes_max, struct directory_cache **out) MUST_CHECK;
void directory_cache_destroy(struct directory_cache *c); /* NULL is allowed */
/* Replaces what there is of the user; `count` 0: no other node has any. Too large, or no memory: it is not
 * kept. */
void directory_cache_put(struct directory_cache *c, struct slice user, uint64_t as_of_ms,
                         const struct directory_remote *remotes, size_t count);
/* False: never asked, or not kept. Borrowed until the next put. */
bool directory_cache_get(const struct directory_cache *c, struct slice user, uint64_t *as_of_ms,
                         const struct directory_remote **remotes, size_t *count);
uint64_t directory_cache_bytes(const struct directory_cache *c);

#endif
