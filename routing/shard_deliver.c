/* DELIVER: the runs of a shard. A run is what was appended since the last one left, one a loop with interest;
 * shard.c says when it leaves. */
#include "routing/shard_private.h"

#include "core/pool.h"

#include <stdlib.h>

static void shard_send_run(struct shard *s, unsigned loop)
{
    struct shard_group *g = s->group;
    struct run *run = s->open[loop];
    s->open[loop] = NULL;
    uint8_t pool_class;
    struct deliver *d = pool_alloc(sizeof *d, &pool_class);
    if (!d)
        abort(); /* 64 bytes: the node cannot keep its promise any more; a restart can */
    *d = (struct deliver){.mail.on_arrival = g->hubs[loop].on_arrival,
                          .pool_class = pool_class,
                          .run = run,
                          .hub = g->hubs[loop].hub};
    courier_send(g->courier, loop, &d->mail);
}

void shard_send_runs(struct shard *s)
{
    for (unsigned i = 0; i < s->group->loop_count; i++)
        if (s->open[i])
            shard_send_run(s, i);
    shard_share_send(s);
}

static void shard_join_run(struct shard *s, unsigned loop, struct msg *m)
{
    struct run *run = s->open[loop];
    if (run && run->count == run->cap) {
        /* A small run grows by being replaced once; a full one leaves. */
        if (run->cap < RUN_MESSAGES_MAX) {
            struct run *larger;
            if (run_create(s->lane, RUN_MESSAGES_MAX, &larger) != ST_OK)
                abort();
            memcpy(larger->msgs, run->msgs, run->count * sizeof run->msgs[0]);
            larger->count = run->count;
            run->count = 0;
            run_unref(run);
            s->open[loop] = run = larger;
        } else {
            shard_send_run(s, loop);
            run = NULL;
        }
    }
    if (!run) {
        if (run_create(s->lane, 8, &run) != ST_OK)
            abort();
        s->open[loop] = run;
    }
    run->msgs[run->count++] = msg_ref(m);
}

void shard_offer(struct shard *s, struct msg *m)
{
    if (s->shares.names.count > 0)
        shard_share_offer(s, m);
    if (s->interest_count == 0)
        return;
    if (s->group->loop_count == 1) {
        shard_join_run(s, 0, m);
        return;
    }
    struct filter_matches found = filter_table_match(s->interests, msg_topic(m));
    uint64_t joined = 0; /* a bit a loop */
    for (size_t i = 0; i < found.count; i++) {
        const struct interest *in = LIST_OF(found.entries[i], struct interest, entry);
        if (joined & (UINT64_C(1) << in->loop))
            continue;
        joined |= UINT64_C(1) << in->loop;
        shard_join_run(s, in->loop, m);
    }
}
