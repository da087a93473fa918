/* Topics whose policy says `deliver: durable`. A record of such a topic is delivered when the log has it on
 * disk, and what comes behind it in the lane waits with it, so that the order of the lane stays. Until then
 * the lane's past ends before it, for everybody who asks (shard_end): ATTACHED, a READ that becomes live,
 * pages.
 *
 *   0 1 2 [3 4 5 6]       3 waits for the disk, 4 to 6 wait for 3; shard_end = 3
 *
 * The ring holds only what is not yet durable, so the log's limit of unsynced bytes bounds it. */
#include "routing/shard_private.h"

#include <stdlib.h>

struct held {
    struct msg *msg; /* a reference */
    bool after_sync;
};

enum { HELD_CAP_FIRST = 64 };

static struct held *held_at(const struct shard *s, uint32_t i)
{
    return &s->held.ring[(s->held.head + i) & (s->held.cap - 1)];
}

static void held_grow(struct shard *s)
{
    uint32_t cap = s->held.cap ? s->held.cap * 2 : HELD_CAP_FIRST;
    struct held *ring = calloc(cap, sizeof *ring);
    if (!ring)
        abort(); /* it is in the log, and must be delivered in its place */
    for (uint32_t i = 0; i < s->held.count; i++)
        ring[i] = *held_at(s, i);
    free(s->held.ring);
    s->held.ring = ring;
    s->held.head = 0;
    s->held.cap = cap;
}

void shard_deliver_in_order(struct shard *s, struct msg *m, bool after_sync)
{
    if (s->held.count == 0 && !after_sync) {
        shard_offer(s, m);
        return;
    }
    if (s->held.count == s->held.cap)
        held_grow(s);
    *held_at(s, s->held.count++) = (struct held){msg_ref(m), after_sync};
}

void shard_release_durable(struct shard *s)
{
    while (s->held.count > 0) {
        struct held *first = held_at(s, 0);
        if (first->after_sync && first->msg->offset >= s->durable)
            break;
        s->held.head++;
        s->held.count--;
        shard_offer(s, first->msg);
        msg_unref(first->msg);
        s->dirty = true; /* the run leaves in this turn */
    }
}

uint64_t shard_end(const struct shard *s)
{
    return s->held.count > 0 ? held_at(s, 0)->msg->offset
                             : s->group->log.ops->next(s->group->log.ctx, s->lane);
}

void shard_drop_held(struct shard *s)
{
    for (uint32_t i = 0; i < s->held.count; i++)
        msg_unref(held_at(s, i)->msg);
    free(s->held.ring);
}
