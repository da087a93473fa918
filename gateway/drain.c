/* Telling is cheap; what costs is that all who were told come back somewhere else, at once. So the loop tells
 * its share of drain.rate a second, and what it tells (retry_ms) spreads the clients further.
 *
 * A connection that has been told reads no more. It says goodbye when its publishes are answered: an
 * acknowledgement that the log owes must not be lost because the node is leaving. */
#include "gateway/drain.h"

enum { THOUSANDTHS = 1000 };

static unsigned drain_allowed(struct drain *d)
{
    uint64_t now = loop_now_ms(d->edge->loop), one = (uint64_t)THOUSANDTHS * d->loop_count;
    if (d->rate == 0)
        return UINT32_MAX;
    d->credit += d->rate * (now - d->last_ms);
    d->last_ms = now;
    uint64_t count = d->credit / one;
    d->credit -= count * one;
    return count < UINT32_MAX ? (unsigned)count : UINT32_MAX;
}

static void drain_on_timer(struct timer *t)
{
    struct drain *d = LIST_OF(t, struct drain, timer);
    unsigned most = drain_allowed(d);
    unsigned left = mqtt_door_drain(d->mqtt, &most);
    left += web_door_drain(d->web, &most);
    if (left == 0)
        atomic_fetch_add(d->drained, 1); /* read by the main thread; orders nothing else */
    else
        timer_arm(loop_timers(d->edge->loop), t, loop_now_ms(d->edge->loop) + TIMER_TICK_MS);
}

/* Clients come back over at least so long, and no faster than they are told. */
static uint64_t drain_spread_ms(const struct drain *d)
{
    enum { MOST_MS = 60000 };
    uint64_t count = atomic_load(&d->edge->facts->connections);
    uint64_t spread = d->rate > 0 ? count * 1000 / d->rate : 0;
    return spread < DRAIN_SPREAD_MS ? DRAIN_SPREAD_MS : spread > MOST_MS ? MOST_MS : spread;
}

void drain_begin(struct drain *d)
{
    uint64_t spread_ms = drain_spread_ms(d);
    mqtt_door_drain_begin(d->mqtt, spread_ms);
    web_door_drain_begin(d->web, spread_ms);
    d->last_ms = loop_now_ms(d->edge->loop);
    d->credit = (uint64_t)THOUSANDTHS * d->loop_count; /* the first one at once */
    timer_init(&d->timer, drain_on_timer);
    timer_arm(loop_timers(d->edge->loop), &d->timer, d->last_ms);
}

void drain_end(struct drain *d)
{
    if (d->edge)
        timer_cancel(loop_timers(d->edge->loop), &d->timer);
}
