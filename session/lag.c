/* How far a subscription may be behind (limit.lag_messages, in positions of its partition). What it was asked
 * to replay is no lag: that counts from where it began to follow.
 *
 * A cursor that is over the limit is looked at when it wants to read, jumps to the newest half of the limit,
 * and is told how many of its messages lay between, counted by the index. By half, so that a reader that
 * stays too slow is told once for many messages, and not before each of its reads. */
#include "session/hub_private.h"

static void lag_counted(struct read *r)
{
    struct lane_cursor *lc = LIST_OF(r, struct lane_cursor, read);
    struct subscription *sub = lc->sub;
    struct store_read *sr = &r->store;
    if (sub->session && sr->status == ST_GONE && sr->first < sr->to) {
        cursor_jump(lc, sr->first, sr->first - lc->next, M_DROPPED_RETENTION); /* and then looks again */
    } else if (sub->session) {
        /* What could not be counted is told as if every position had been for it. */
        uint64_t count = sr->status == ST_OK ? sr->found : sr->to - lc->next;
        cursor_jump(lc, sr->to, count, M_DROPPED_LAG);
    }
    read_release(r);
    subscription_letter_back(sub);
    if (sub->session)
        cursor_go(lc);
    else
        subscription_release(sub);
}

bool lag_is_over(struct lane_cursor *lc)
{
    struct hub *h = lc->sub->channel->hub;
    uint64_t limit = h->limits.lag_messages;
    uint64_t from = lc->next > lc->replay_to ? lc->next : lc->replay_to;
    uint64_t end = limit > 0 ? shard_next_shown(h->map->lanes[lc->lane].shard) : 0;
    if (end <= from || end - from <= limit || lc->walking)
        return false;
    cursor_prepare_read(lc, end - limit / 2);
    lc->read.store.count_only = true;
    lc->read.on_read = lag_counted;
    subscription_letter_sent(lc->sub);
    shard_map_read(h->map, h->courier, &lc->read);
    return true;
}
