/* READs from a place that this replica has not reached yet: of a session that another node has served, whose
 * replica was ahead. The place is not wrong, so the READ waits for the record before it, and is answered as
 * if it had been asked then. It comes back unanswered after a while, so that nobody's letter lies here for
 * ever; a cursor asks again. Only where the order of records is given elsewhere: else what lies behind the
 * end does not exist. */
#include "routing/shard_private.h"

enum { AHEAD_MS = 5000 };

static struct read *ahead_next(const struct read *r)
{
    return r->mail.next ? LIST_OF(r->mail.next, struct read, mail) : NULL;
}

static struct timer_wheel *ahead_timers(const struct shard *s)
{
    return loop_timers(courier_loop(s->group->courier));
}

bool shard_read_waits(struct shard *s, struct read *r)
{
    const struct topic_log *log = &s->group->log;
    uint64_t place = shard_read_place(r);
    if (!shard_deferred(s) || r->retained || r->once || r->store.reverse || r->beyond ||
        place <= log->ops->next(log->ctx, s->lane))
        return false;
    r->mail.next = s->ahead.first ? &s->ahead.first->mail : NULL;
    if (!s->ahead.first || place < s->ahead.lowest)
        s->ahead.lowest = place;
    s->ahead.first = r;
    if (!timer_armed(&s->ahead.timer))
        timer_arm(ahead_timers(s), &s->ahead.timer, loop_now_ms(courier_loop(s->group->courier)) + AHEAD_MS);
    return true;
}

/* Each is asked once more; `in_vain`: and does not wait again (shard_read_beyond answers). */
static void ahead_ask_again(struct shard *s, bool in_vain)
{
    struct read *all = s->ahead.first;
    s->ahead.first = NULL;
    for (struct read *r = all, *next; r; r = next) {
        next = ahead_next(r);
        r->beyond = in_vain;
        shard_read(s, r);
    }
    if (!s->ahead.first)
        timer_cancel(ahead_timers(s), &s->ahead.timer);
}

void shard_ahead_go(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    if (s->ahead.first && s->ahead.lowest <= log->ops->next(log->ctx, s->lane))
        ahead_ask_again(s, false);
}

void shard_on_ahead_timer(struct timer *t)
{
    ahead_ask_again(LIST_OF(t, struct shard, ahead.timer), true);
}

void shard_ahead_drop(struct shard *s)
{
    s->ahead.first = NULL;
    timer_cancel(ahead_timers(s), &s->ahead.timer);
}
