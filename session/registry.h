/* Who holds a client identifier? MQTT allows one connection for each (MQTT 5.0, 3.1.4: a second CONNECT takes
 * over, 0x8E). The identifiers of a node are spread over its loops by hash; each loop keeps its share, and
 * claims travel as letters, so there is nothing to lock.
 *
 *   CLAIM -> whoever held it is told `on_taken_over`; the claimer gets `on_claimed`
 *   RELEASE -> `on_released`: after it nothing of the registry refers to the claim any more
 *
 * A patient claim is answered only when whoever held the identifier has released it: what he leaves is then
 * whole.
 *
 * A claim is embedded in its connection, which stays in memory until on_released. Owning loop only. */
#ifndef TG_SESSION_REGISTRY_H
#define TG_SESSION_REGISTRY_H

#include "core/slice.h"
#include "routing/courier.h"

struct registry;

struct claim {
    struct mail mail; /* CLAIM and RELEASE, one at a time */
    struct mail taken; /* the notice of a take-over */
    struct claim *next_in_bucket;
    struct registry *share; /* where the identifier lives */
    uint64_t hash;
    uint16_t home;
    bool held; /* the registry's */
    bool patient; /* the claimer's */
    struct claim *heir; /* patient, and waits for the release of this one */
    struct slice id; /* the owner keeps the bytes until on_released */
    void (*on_claimed)(struct claim *c);
    void (*on_taken_over)(struct claim *c); /* at most once; may come before on_claimed: that comes too */
    void (*on_released)(struct claim *c);
    /* Somebody attached what the identifier stands for in the record at `offset` of a log that several nodes
     * share; the claim stays. May come before on_claimed. NULL: it is nothing that can be attached. */
    void (*on_attached_elsewhere)(struct claim *c, uint64_t offset);
};

enum status registry_create(struct courier *courier, struct registry **out) MUST_CHECK;
void registry_destroy(struct registry *r); /* claims are forgotten; NULL is allowed */
/* Before the loops run: every registry meets every other, itself too. */
void registry_meet(struct registry *r, unsigned loop_index, struct registry *other, unsigned loop_count);

/* `c->id` and the callbacks are set. From the claimer's loop, by its own registry. */
void registry_claim(struct registry *r, struct claim *c);
/* Once, after registry_claim (it may still be under way: then only after on_claimed). */
void registry_release(struct registry *r, struct claim *c);
/* The session of this topic (`$session/..`) has been attached by another node (shard_watch). From any loop,
 * by its own registry. No memory for the letter: aborts, as two would serve one session. */
void registry_attached_elsewhere(struct registry *r, struct slice topic, uint64_t offset);
size_t registry_count(const struct registry *r);

#endif
