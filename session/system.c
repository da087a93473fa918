/* The node's own topics ($SYS/...), on this loop.
 *
 * Their messages are in no log and in no lane: a subscription to them is attached to the lanes like any
 * other, so that all of a door's machinery holds (it just never gets anything from there), and what the node
 * says comes from here, to whoever is in place and has room. */
#include "session/hub_private.h"

void hub_set_system(struct hub *h, struct msg *const *values, unsigned count)
{
    h->system = values;
    h->system_count = count;
}

static void system_offer(struct hub *h, struct subscription *sub, struct delivery *d)
{
    const struct gap lost = {.lane = d->msg->partition, .count = 1};
    if (hub_offer(h, sub, d) == ST_AGAIN)
        subscription_dropped(sub, &lost, M_DROPPED_UNSTORED);
}

void hub_deliver_system(struct hub *h, struct msg *m)
{
    struct delivery d = {.msg = m, .live = true};
    struct filter_matches found = filter_table_match(h->filters, msg_topic(m));
    for (size_t c = 0; c < found.count; c++) {
        struct channel *ch = LIST_OF(found.entries[c], struct channel, entry);
        d.wires[WIRE_WS_SUB] = (struct slice){0}; /* valid for one channel */
        for (uint32_t i = 0; i < ch->count; i++)
            if (!ch->subs[i]->behind) /* else it gets the newest when it is in place */
                system_offer(h, ch->subs[i], &d);
    }
}

void subscription_begin_system(struct subscription *sub)
{
    struct hub *h = sub->channel->hub;
    const struct subscription_options *o = &sub->options;
    if (!(o->start == START_LIVE ? o->retained : o->retained_again))
        return;
    for (unsigned i = 0; i < h->system_count; i++) {
        struct delivery d = {.msg = h->system[i], .live = true, .retained = true};
        if (d.msg && topic_matches(subscription_filter(sub), msg_topic(d.msg)))
            system_offer(h, sub, &d);
    }
}
