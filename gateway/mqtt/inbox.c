#include "gateway/mqtt/inbox.h"

#include <stdlib.h>

static const char prefix[] = "$user/", all[] = "/#";

bool mqtt_inbox_is_whole(const struct mqtt_conn *c, struct slice filter)
{
    struct slice id = c->principal->inbox_id, head = slice_cstr(prefix), tail = slice_cstr(all);
    return id.len > 0 && filter.len == head.len + id.len + tail.len && slice_starts_with(filter, head) &&
           memcmp(filter.data + head.len, id.data, id.len) == 0 &&
           slice_equal(slice_from(filter, head.len + id.len), tail);
}

enum status mqtt_inbox_open(struct mqtt_conn *c)
{
    const struct settings *s = c->door->edge->settings;
    const struct inbox_limits limits = {.keep_ms = s->inbox_keep_ms, .keep_messages = s->inbox_keep_messages};
    struct slice id = c->principal->inbox_id;
    if (c->inbox)
        return ST_OK;
    struct mqtt_inbox *i = calloc(1, sizeof *i + sizeof prefix + id.len + sizeof all);
    if (!i)
        return ST_NO_MEMORY;
    uint8_t *to = i->filter;
    memcpy(to, prefix, sizeof prefix - 1);
    memcpy(to + sizeof prefix - 1, id.data, id.len);
    memcpy(to + sizeof prefix - 1 + id.len, all, sizeof all - 1);
    i->filter_len = sizeof prefix - 1 + id.len + sizeof all - 1;
    enum status st = inbox_create(c->door->edge->hub, &limits, id, c, &i->cursor);
    if (st != ST_OK) {
        free(i);
        return st;
    }
    c->inbox = i;
    return ST_OK;
}

void mqtt_inbox_follow(struct mqtt_conn *c, const struct subscription *sub)
{
    if (mqtt_inbox_open(c) == ST_OK)
        c->inbox->followed = sub;
}

void mqtt_inbox_leave(struct mqtt_conn *c, const struct subscription *sub)
{
    if (mqtt_inbox_follows(c, sub))
        c->inbox->followed = NULL;
}

void mqtt_inbox_sent(struct mqtt_conn *c, uint16_t packet_id)
{
    flights_find(&c->flights, packet_id)->flags |= FLIGHT_INBOX;
    if (c->inbox->first == 0)
        c->inbox->first = packet_id;
}

/* The first marked one behind `id`; 0: none. Identifiers only go forward here, so all acknowledgements of a
 * window together look at each flight once. */
static uint16_t next_marked(const struct flights *f, uint16_t id)
{
    struct flight *flight;
    while ((flight = flights_behind(f, &id)))
        if (flight->flags & FLIGHT_INBOX)
            return id;
    return 0;
}

void mqtt_inbox_done(struct mqtt_conn *c, uint16_t packet_id, const struct flight *flight)
{
    struct mqtt_inbox *i = c->inbox;
    if (!i || !(flight->flags & FLIGHT_INBOX))
        return;
    if (flight->offset >= i->next)
        i->next = flight->offset + 1;
    if (packet_id == i->first)
        i->first = next_marked(&c->flights, packet_id);
    const struct flight *first = i->first > 0 ? flights_find(&c->flights, i->first) : NULL;
    inbox_moved(i->cursor, first && first->offset < i->next ? first->offset : i->next, 1);
}

void mqtt_inbox_restore(struct mqtt_conn *c)
{
    uint16_t first = next_marked(&c->flights, 0);
    if (first > 0 && c->principal->inbox_id.len > 0 && mqtt_inbox_open(c) == ST_OK)
        c->inbox->first = first;
}

void mqtt_inbox_end(struct mqtt_conn *c)
{
    if (!c->inbox)
        return;
    inbox_close(c->inbox->cursor);
    free(c->inbox);
    c->inbox = NULL;
}
