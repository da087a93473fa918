/* Propose and apply (docs/CLUSTER.md). Whoever wants a record in the lane checks what can be checked and
 * proposes it; nothing of the state changes by that. A record that has come out of the log at its offset is
 * applied: folded, and delivered if it is a message. The state changes nowhere else, so it is the same
 * whoever has proposed what.
 *
 * The embedded store gives the offset at once: apply follows propose in the same call, and nothing can have
 * come between, so what propose has found is true of apply too. */
#include "routing/shard_private.h"

enum status shard_propose(struct shard *s, struct msg *m, bool wait, bool after_sync)
{
    enum status st = s->group->log.ops->append(s->group->log.ctx, s->lane, m, wait || after_sync);
    if (st != ST_OK)
        return st;
    s->dirty = true;
    shard_apply(s, m, after_sync);
    return ST_OK;
}

void shard_apply(struct shard *s, struct msg *m, bool after_sync)
{
    bool message = true;
    if (m->flags & MSG_RETAIN)
        message = shard_fold_retained(s, m) == TABLE_RETAINED;
    if (m->flags & MSG_ONCE)
        shard_fold_once(s, m);
    if (m->flags & (MSG_RETAIN | MSG_ONCE))
        s->state_end = m->offset + 1;
    if (message)
        shard_deliver_in_order(s, m, after_sync);
}
