/* The session of a connection that uses acknowledgements, as its keeper sees it: what stands in its record,
 * and who waits for the record. A session costs nothing durable until the first `sub` with `ack`. */
#include "gateway/ws/serve.h"

#include "session/record.h"

#include <assert.h>
#include <stdlib.h>

/* An `unsub` that waits for the record without its filter. */
struct leaving {
    struct list link; /* conn->leaving */
    struct conn *conn;
    struct ws_id id;
    struct keeper_wait wait;
    size_t len;
    uint8_t filter[];
};

/* --- the record --------------------------------------------------------------------------------- */

struct snapshot {
    struct buf *out;
    unsigned lanes;
    enum status status;
};

/* Those with acknowledgements: they must be in it. */
static void put_kept(void *ctx, struct subscription *sub)
{
    struct snapshot *s = ctx;
    struct tally *t = subscription_tally(sub);
    struct record_filter f = {.flags = RECORD_ACK, .filter = subscription_filter(sub)};
    if (!t || t->places == TALLY_UNPLACED || s->status != ST_OK)
        return;
    f.lane_count = t->lane_count;
    for (unsigned i = 0; i < t->lane_count; i++) {
        unsigned lane = t->first_lane + i;
        if (t->places == TALLY_OWN)
            tally_reached(t, lane, subscription_reached(sub, lane));
        f.next[i] = tally_lane(t, lane)->acked;
    }
    if (t->places == TALLY_OWN && (subscription_walking(sub) || t->retained_open > 0))
        f.flags |= RECORD_RETAINED_OPEN;
    s->status = record_put(s->out, &f);
}

/* The others by name, as far as there is room: for `lost`. */
static void put_name(void *ctx, struct subscription *sub)
{
    struct snapshot *s = ctx;
    const struct record_filter f = {.filter = subscription_filter(sub)};
    if (!subscription_tally(sub) && s->status == ST_OK)
        s->status = record_put(s->out, &f);
}

static enum status on_snapshot(void *conn, struct buf *out)
{
    struct conn *c = conn;
    if (c->opening) /* nothing has changed yet but whose it is */
        return buf_put(out, resume_record(c->opening));
    struct snapshot s = {.out = out, .lanes = hub_lane_count(c->door->hub)};
    s.status = record_begin(out, c->door->epoch, s.lanes);
    session_each(c->session, put_kept, &s);
    if (s.status != ST_OK)
        return s.status == ST_FULL ? ST_TOO_LARGE : s.status;
    session_each(c->session, put_name, &s);
    return ST_OK;
}

/* --- the keeper --------------------------------------------------------------------------------- */

static void on_taken(void *conn)
{
    conn_close(conn, 4204, "replaced", END_SERVER);
}

static const struct keeper_ops ops = {
    .snapshot = on_snapshot, .on_read = resume_on_read, .on_taken = on_taken};

static struct keeper_limits keep_limits(const struct conn *c)
{
    const struct settings *s = c->door->settings;
    return (struct keeper_limits){.expiry_ms = s->session_expiry_ms,
                                  .save_ms = s->session_save_ms,
                                  .save_count = s->session_save_count,
                                  .record_bytes_max = (uint32_t)s->limit_session_bytes};
}

struct keeper *keep_keeper(struct conn *c)
{
    char name[KEEPER_NAME_BYTES];
    struct keeper_limits limits = keep_limits(c);
    if (c->keeper)
        return c->keeper;
    if (token_name(slice_cstr(c->token), c->principal->user, name) != ST_OK ||
        keeper_start(c->door->hub, c->door->edge->registry, &limits, &ops, c, name, &c->keeper) != ST_OK)
        return NULL;
    return c->keeper;
}

enum status keep_resume(struct conn *c)
{
    char name[KEEPER_NAME_BYTES];
    struct keeper_limits limits = keep_limits(c);
    enum status st = token_name(slice_cstr(c->token), c->principal->user, name);
    if (st != ST_OK)
        return st;
    return keeper_resume(c->door->hub, c->door->edge->registry, &limits, &ops, c, name, &c->keeper);
}

/* --- who waits for it --------------------------------------------------------------------------- */

void keep_refused(struct conn *c, struct ws_id id, enum status status)
{
    switch ((int)status) {
    case ST_QUOTA:
        serve_error(c, id, "quota_exceeded", "limit.sessions or limit.sessions_bytes is reached");
        break;
    case ST_TOO_LARGE:
        serve_error(c, id, "quota_exceeded", "limit.session_bytes: too many filters for one session");
        break;
    case ST_NO_SPACE:
        serve_error(c, id, "storage_full", "the disk is full");
        break;
    default:
        serve_later(c, id, "unavailable", "the session's record could not be written");
    }
}

static void on_subscription_kept(struct keeper_wait *w, enum status status)
{
    struct subscribing *s = LIST_OF(w, struct subscribing, wait);
    struct conn *c = s->conn;
    struct subscription *sub = s->subscription;
    if (status == ST_OK) {
        serve_subscribed(c, s);
        subscription_begin(sub);
        return;
    }
    struct tally *t = subscription_tally(sub);
    keep_refused(c, s->id, status);
    serve_drop_subscribing(s);
    if (session_unsubscribe(c->session, subscription_filter(sub)) != ST_OK)
        assert(false); /* it was there */
    tally_unref(t);
}

void keep_subscription(struct conn *c, struct subscribing *s)
{
    s->wait.on_kept = on_subscription_kept;
    keeper_want(c->keeper, &s->wait);
}

static void drop_leaving(struct leaving *l)
{
    list_unlink(&l->link);
    list_unlink(&l->wait.link);
    free(l);
}

static void on_filter_left(struct keeper_wait *w, enum status status)
{
    struct leaving *l = LIST_OF(w, struct leaving, wait);
    struct conn *c = l->conn;
    if (status != ST_OK)
        keep_refused(c, l->id, status);
    else if (l->id.given)
        serve_put(c, ws_put_unsubscribed(&c->door->scratch, l->id, slice_of(l->filter, l->len)));
    drop_leaving(l);
}

void keep_without(struct conn *c, struct ws_id id, struct slice filter)
{
    struct leaving *l = calloc(1, sizeof *l + filter.len);
    if (!l) {
        conn_break(c);
        return;
    }
    l->conn = c;
    l->id = id;
    l->len = filter.len;
    memcpy(l->filter, filter.data, filter.len);
    l->wait.on_kept = on_filter_left;
    list_init(&l->link);
    list_push(&c->leaving, &l->link);
    keeper_want(c->keeper, &l->wait);
}

/* --- the end ------------------------------------------------------------------------------------ */

void keep_end(struct conn *c)
{
    /* A broken connection may have passed over a message: the places it would write now are not true. */
    enum keeper_end end = c->broken ? KEEPER_LEAVE : c->over ? KEEPER_FORGET : KEEPER_DETACH;
    while (!list_empty(&c->leaving))
        drop_leaving(LIST_OF(c->leaving.next, struct leaving, link));
    if (c->opening && !c->over)
        end = KEEPER_LEAVE;
    keeper_close(c->keeper, end);
    c->keeper = NULL;
    opening_free(c->opening);
    c->opening = NULL;
}
