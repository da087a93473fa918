/* The inbox of the connection's user: `$user/<id>/#`. A subscription of all of it, with acknowledgements,
 * that began at the inbox's cursor, or at a place that the client has named (session, after, earliest), moves
 * the cursor by what is acknowledged. One that began with the present does not: it would count as seen what
 * nobody has seen. */
#include "gateway/ws/serve.h"

#include "session/inbox.h"

#include <assert.h>

static const char prefix[] = "$user/", all[] = "/#";

bool inbox_is_whole(const struct conn *c, struct slice filter)
{
    struct slice id = c->principal->inbox_id, head = slice_cstr(prefix), tail = slice_cstr(all);
    return id.len > 0 && filter.len == head.len + id.len + tail.len && slice_starts_with(filter, head) &&
           memcmp(filter.data + head.len, id.data, id.len) == 0 &&
           slice_equal(slice_from(filter, head.len + id.len), tail);
}

enum status inbox_put_filter(const struct conn *c, struct buf *out)
{
    enum status st = buf_put_cstr(out, prefix);
    if (st == ST_OK)
        st = buf_put(out, c->principal->inbox_id);
    return st == ST_OK ? buf_put_cstr(out, all) : st;
}

static enum status open_inbox(struct conn *c)
{
    const struct settings *s = c->door->settings;
    const struct inbox_limits limits = {.keep_ms = s->inbox_keep_ms, .keep_messages = s->inbox_keep_messages};
    return c->inbox ? ST_OK : inbox_create(c->door->hub, &limits, c->principal->inbox_id, c, &c->inbox);
}

enum status inbox_ask_place(struct conn *c,
                            void (*on_found)(void *conn, enum status status, const struct inbox_place *place))
{
    enum status st = open_inbox(c);
    if (st == ST_OK)
        inbox_find(c->inbox, on_found);
    return st;
}

enum status inbox_follow(struct conn *c, struct tally *t)
{
    enum status st = open_inbox(c);
    if (st != ST_OK)
        return st;
    tally_unref(c->inbox_tally);
    c->inbox_tally = t;
    t->refs++;
    return ST_OK;
}

uint64_t inbox_open_count(const struct conn *c)
{
    return c->inbox_tally ? c->inbox_tally->lanes[0].open : 0;
}

void inbox_acked(struct conn *c, uint64_t count)
{
    if (count == 0)
        return;
    assert(c->inbox_tally->lane_count == 1); /* an inbox lies in one partition */
    inbox_moved(c->inbox, c->inbox_tally->lanes[0].acked, count);
}

void inbox_end(struct conn *c)
{
    tally_unref(c->inbox_tally);
    c->inbox_tally = NULL;
    inbox_close(c->inbox);
    c->inbox = NULL;
}
