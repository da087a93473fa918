/* The directory: which connections does a user have, on which nodes? The port; adapters: directory_local.c
 * (one node), and on top of it directory_redis.c (nodes that share a Redis). It holds only what can be
 * rebuilt: an entry is there as long as its connection, and losing one costs a look-up a moment of truth,
 * never a message.
 *
 *   ADD    -> on_added: ST_OK, or ST_QUOTA: the user has entry->user_max connections already, and it is not
 * in REMOVE -> on_removed: after it nothing of the directory refers to the entry any more FIND   -> on_found
 *
 * Answers come later, on the asker's loop, never inside the call. One letter of an entry at a time: REMOVE
 * not before on_added. Each loop has a handle of its own, for its own thread. */
#ifndef TG_ROUTING_DIRECTORY_H
#define TG_ROUTING_DIRECTORY_H

#include "core/list.h"
#include "core/mailbox.h"
#include "core/slice.h"
#include "core/status.h"

/* One connection of a user; embedded, stays in memory until on_removed, or until on_added with ST_QUOTA. */
struct directory_entry {
    struct slice user; /* the id as it is, not as in topics; the owner keeps the bytes */
    uint64_t connection; /* unique in this life of the node */
    uint64_t since_ms; /* Unix time */
    const char *door; /* "ws", "mqtt", "sse", "poll"; static */
    uint32_t user_max; /* connections of the user at a time; 0 = any number */
    enum status status; /* of ADD */
    void (*on_added)(struct directory_entry *e);
    void (*on_removed)(struct directory_entry *e);
    /* the adapter's own */
    struct mail mail;
    struct list link;
    void *share, *known;
    uint16_t home;
    void *beyond;
    struct list shelf; /* directory_register.c */
    uint64_t written_ms, registration;
    bool waits;
};

struct directory_found {
    uint64_t connection, since_ms, incarnation; /* of the node's life */
    const char *door, *node; /* live as long as the array that this is in */
};

struct directory_node;

enum { DIRECTORY_FOUND_MAX = 1000 };

struct directory_find {
    struct slice user; /* the owner keeps the bytes; empty: the nodes are asked for */
    struct directory_found *found; /* answer, by malloc: the owner frees it; the first DIRECTORY_FOUND_MAX */
    uint32_t found_count;
    uint64_t total; /* answer */
    enum status status; /* answer: ST_OK, ST_NO_MEMORY */
    /* Of a directory that nodes share: */
    bool shared; /* answer: it is one, and what follows counts */
    bool stale; /* answer: other nodes may have more, or less, than it says */
    uint64_t as_of_ms; /* answer: Unix time of what it says of other nodes; 0: it says nothing of them */
    struct directory_node *nodes; /* answer, when no user was asked for: by malloc, the owner frees it */
    uint32_t node_count;
    void (*on_found)(struct directory_find *f);
    /* the adapter's own */
    struct mail mail;
    void *share, *beyond;
    struct list queue;
    uint16_t home;
};

struct directory_ops {
    void (*add)(void *ctx, struct directory_entry *e);
    void (*remove)(void *ctx, struct directory_entry *e);
    void (*find)(void *ctx, struct directory_find *f);
};

/* Every answer of a look-up but `status` and the like starts from here. */
static inline void directory_find_clear(struct directory_find *f)
{
    f->found = NULL;
    f->found_count = 0;
    f->total = 0;
    f->status = ST_OK;
    f->shared = f->stale = false;
    f->as_of_ms = 0;
    f->nodes = NULL;
    f->node_count = 0;
}

struct directory {
    const struct directory_ops *ops;
    void *ctx;
};

/* The name of a connection in the whole cluster: "<node>-<incarnation in hex>-<connection>". Returns its
 * length, or 0 when `size` has no room for it and a NUL. */
enum { CONNECTION_ID_TAIL_BYTES = 1 + 16 + 1 + 20 }; /* what comes behind the node's name, at most */
size_t connection_id_write(const char *node, uint64_t incarnation, uint64_t connection, char *out,
                           size_t size);

/* Reads it back; `node` lies inside `text`. False: not such a name. */
bool connection_id_read(struct slice text, struct slice *node, uint64_t *incarnation, uint64_t *connection);

/* --- one node: users are spread over its loops by hash, each loop keeps its share (directory_local.c) --- */

struct courier;
struct directory_local;
/* `node` lives as long as the process. ST_NO_MEMORY. */
enum status directory_local_create(struct courier *courier, const char *node, uint64_t incarnation,
                                   struct directory_local **out) MUST_CHECK;
void directory_local_destroy(struct directory_local *d); /* entries are forgotten; NULL is allowed */
/* Before the loops run: every share meets every other, itself too. */
void directory_local_meet(struct directory_local *d, unsigned loop_index, struct directory_local *other,
                          unsigned loop_count);
/* Who goes on from here: gets each entry when it has been taken in, or out, and each look-up with what this
 * node knows in it, on the share's loop; and answers the owner, on its loop (`home`). Before the loops run.
 */
struct directory_beyond {
    void (*entered)(void *ctx, struct directory_entry *e);
    void (*left)(void *ctx, struct directory_entry *e);
    void (*find)(void *ctx, struct directory_find *f);
    void *ctx;
};
void directory_local_set_beyond(struct directory_local *d, const struct directory_beyond *b);
/* The port, by this loop's handle. */
struct directory directory_local_port(struct directory_local *d);
size_t directory_local_users(const struct directory_local *d); /* of this share */

#endif
