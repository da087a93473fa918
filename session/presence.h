/* Who is there: how many connections have a subscription for a topic, and whose they are. Over all loops of
 * the node, exact for those that stay while it is counted. */
#ifndef TG_SESSION_PRESENCE_H
#define TG_SESSION_PRESENCE_H

#include "session/walk.h"

enum { PRESENCE_USERS_MAX = 1000, PRESENCE_SLOTS = 2048 };

struct presence {
    struct walk walk;
    struct slice topic; /* a topic name; the owner keeps the bytes */
    uint64_t connections; /* answer: those of nobody (anonymous ones) too */
    uint32_t user_count; /* answer: in `users`, each once, in the order in which they were met */
    bool more_users; /* answer: there are more than PRESENCE_USERS_MAX */
    struct buf users; /* a run of {u16 length little endian, bytes} */
    uint32_t slots[PRESENCE_SLOTS]; /* by hash: place in `users` + 1, 0 = free */
    void (*on_counted)(struct presence *p); /* at home; owns p again */
    void *owner; /* the asker's */
};

/* ST_OK: `topic` and on_counted are set by the caller after it, then presence_ask. ST_NO_MEMORY. */
enum status presence_create(struct presence **out) MUST_CHECK;
void presence_free(struct presence *p); /* NULL is allowed; not while it is asked */
void presence_ask(struct hub *h, struct presence *p);
/* Walks the users: *place starts at 0. False at the end. */
bool presence_user_next(const struct presence *p, size_t *place, struct slice *user);

#endif
