/* The digest of a shard's state: equal for equal states, however they came about. A fold that is made anew
 * from the log must have that of the shard that has been running; the tests compare the two
 * (tests/e2e/node.py). What expires before a given time is left out, for the one may have let it go and the
 * other not. */
#include "routing/shard_private.h"

#include "core/hash.h"

static uint64_t message_digest(const struct msg *m)
{
    const uint64_t parts[] = {hash64_stable(msg_topic(m)),
                              hash64_stable(msg_key(m)),
                              hash64_stable(msg_props(m)),
                              hash64_stable(msg_payload(m)),
                              m->offset,
                              m->ts_ms,
                              m->expires_ms};
    return hash64_stable(slice_of(parts, sizeof parts));
}

struct summing {
    uint64_t at_ms, count, sum;
};

/* A sum does not depend on the order. */
static void add_message(void *ctx, const struct msg *m)
{
    struct summing *s = ctx;
    if (m->expires_ms != 0 && m->expires_ms <= s->at_ms)
        return;
    s->count++;
    s->sum += message_digest(m);
}

void shard_digest(const struct shard *s, uint64_t at_ms, struct shard_digest *out)
{
    uint64_t *counts[TABLES] = {&out->retained, &out->sessions, &out->inboxes, &out->groups};
    *out = (struct shard_digest){0};
    for (unsigned i = 0; i < TABLES; i++) {
        struct summing sum = {.at_ms = at_ms};
        retained_each(shard_table(s, i), add_message, &sum);
        *counts[i] = sum.count;
        out->digest = out->digest * 31 + sum.sum;
    }
    uint64_t once = once_state_digest(s->once, at_ms, &out->once);
    out->digest = out->digest * 31 + once;
    if (s->incarnations)
        out->digest = out->digest * 31 + incarnations_digest(s->incarnations);
}
