/* What directory_redis.c (life, letters, lease), directory_register.c (writing) and directory_look.c
 * (reading) share. All of it is the one thread's, except where it says otherwise. */
#ifndef TG_ROUTING_DIRECTORY_REDIS_PRIVATE_H
#define TG_ROUTING_DIRECTORY_REDIS_PRIVATE_H

#include "routing/courier.h"
#include "routing/directory_cache.h"
#include "routing/directory_redis.h"
#include "routing/redis_link.h"
#include "routing/redis_reply.h"

#include <pthread.h>

enum { DIRECTORY_NODES_MAX = 256, DIRECTORY_KEY_BYTES_MAX = 1024 };

struct directory_redis {
    struct directory_redis_options o;
    struct loop *loop;
    pthread_t thread;
    bool started;
    struct loop *loops[LOOPS_MAX]; /* before the thread starts; then read only */
    struct metrics *metrics;
    _Atomic uint64_t lent; /* letters: added where they come in, taken off where they are home */
    atomic_bool up;
    struct redis_home *home;
    struct redis_link *link; /* NULL: Redis is away */
    char run[REDIS_RUN_BYTES_MAX + 1]; /* of the server at the other end of it */
    struct loop_hook hook;
    struct timer timer; /* of the lease, and of figures */
    uint64_t lease_due_ms, away_since_ms;
    uint64_t life;
    unsigned leases; /* sent over this link */
    bool born_asked; /* or being set */
    struct mail stop_mail;
    bool stopping;
    struct timer stop_timer;

    /* directory_register.c */
    struct list waiting, written, removals; /* entries; struct removal */
    uint64_t entry_count, waiting_count, removal_count;
    uint64_t updates_open; /* commands whose reply is owed */
    uint64_t registration, visible; /* the one that is being written; the oldest that counts */
    bool settled;

    /* directory_look.c */
    struct list asking, looking, sweeps; /* finds that wait for room; struct look; struct sweep */
    struct directory_cache *cache;
    struct directory_node *nodes; /* as last seen */
    uint32_t node_count;
    uint64_t nodes_as_of_ms;
};

/* "<prefix>:<kind>[:<name>]" at the end of `out`. */
enum status directory_key(const struct directory_redis *d, struct buf *out, const char *kind,
                          struct slice name) MUST_CHECK;
/* A reply that says the server is of no use: the link goes down, everything begins anew. */
void directory_redis_refused(struct directory_redis *d, const struct redisReply *r);
void directory_redis_send_lease(struct directory_redis *d);

/* --- directory_register.c: this node's entries, in Redis -------------------------------------------- */
void register_add(struct directory_redis *d, struct directory_entry *e);
void register_remove(struct directory_redis *d, struct directory_entry *e);
/* All of them again, under a new number; `why` is counted. */
void register_again(struct directory_redis *d, enum metric why);
void register_link_lost(struct directory_redis *d);
/* Sends what there is room for. */
void register_pump(struct directory_redis *d);
void register_refresh(struct directory_redis *d,
                      uint64_t now_ms); /* those that would go by themselves soon */
void register_figures(struct directory_redis *d);
void register_forget(struct directory_redis *d);

/* --- directory_look.c -------------------------------------------------------------------------------- */
void look_begin(struct directory_redis *d, struct directory_find *f);
void look_pump(struct directory_redis *d);
void look_link_lost(struct directory_redis *d); /* all that are under way are answered by what is known */
void look_forget(
    struct directory_redis *d); /* at the end: what is under way is freed, finds are their owners' */
void directory_redis_found(struct directory_redis *d, struct directory_find *f); /* home with it */

#endif
