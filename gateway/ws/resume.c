/* hello: the session begins, or goes on.
 *
 *   hello {session} -> keeper: claim, READ -> resume_on_read -> our own write of the record -> on_attached
 *                                                                -> filters subscribed, ok
 *   hello {after}   -> filters subscribed, ok
 *
 * While the record is on its way reading rests, so that what the client sent behind hello is handled behind
 * it. What was read is written again before anything is sent: from then on the older connection's writes are
 * refused, and nobody acknowledges for the session but this one.
 *
 *   hello {inbox}   -> before the filters, unless session or after say where it begins: where is the inbox's
 * cursor?
 *
 * A filter of the session that is acknowledged goes on after what was; hello.after may only move it forward.
 * Others begin where hello.after says, or are `lost`. */
#include "gateway/ws/serve.h"

#include "core/json.h"
#include "gateway/json_out.h"
#include "session/inbox.h"
#include "session/record.h"

#include <stdlib.h>

/* A hello that is not answered yet. */
struct opening {
    struct conn *conn;
    struct ws_id id;
    struct keeper_wait wait;
    struct buf after; /* hello.after as written */
    struct buf record; /* as read; empty: a new session */
    struct buf inbox; /* the filter of its user's inbox, if it asks for it; else empty */
    bool placed; /* it begins here: */
    struct inbox_place place;
};

/* A filter that hello.after names. */
struct named {
    struct slice filter; /* decoded */
    struct slice raw_filter; /* as written, with quotes */
    struct json_value positions;
    bool used;
};

/* What is being resumed. */
struct resumption {
    struct conn *conn;
    struct named *named; /* by filter */
    size_t named_count;
    struct buf texts; /* the decoded filters */
    struct slice inbox; /* wherever this filter begins, it has acknowledgements; empty: not asked for */
    bool has_inbox; /* it is subscribed */
    struct buf lost;
    enum status status;
};

void opening_free(struct opening *o)
{
    if (!o)
        return;
    list_unlink(&o->wait.link);
    buf_deinit(&o->after);
    buf_deinit(&o->record);
    buf_deinit(&o->inbox);
    free(o);
}

struct slice resume_record(const struct opening *o)
{
    return buf_slice(&o->record);
}

/* --- hello.after -------------------------------------------------------------------------------- */

static int compare_named(const void *a, const void *b)
{
    struct slice x = ((const struct named *)a)->filter, y = ((const struct named *)b)->filter;
    size_t shorter = x.len < y.len ? x.len : y.len;
    int order = shorter > 0 ? memcmp(x.data, y.data, shorter) : 0;
    return order != 0 ? order : x.len < y.len ? -1 : x.len > y.len;
}

static struct named *named_find(const struct resumption *r, struct slice filter)
{
    const struct named key = {.filter = filter};
    return r->named_count > 0 ? bsearch(&key, r->named, r->named_count, sizeof key, compare_named) : NULL;
}

static size_t count_named(struct slice after)
{
    size_t place = 0, count = 0;
    struct slice key;
    struct json_value value;
    while (after.len > 0 && json_member(after, &place, &key, &value) == ST_OK)
        count++;
    return count;
}

/* `after` has been checked by the parser and outlives r. */
static enum status resumption_init(struct resumption *r, struct conn *c, struct slice after)
{
    size_t place = 0, count = count_named(after);
    struct slice key;
    *r = (struct resumption){.conn = c, .status = ST_OK};
    buf_init(&r->texts, after.len + 1);
    buf_init(&r->lost, c->door->scratch.limit);
    r->named = calloc(count + 1, sizeof *r->named);
    /* Reserved at once: decoded filters are slices into it, and decoding makes no text longer. */
    if (!r->named || !buf_reserve(&r->texts, after.len + 1))
        return ST_NO_MEMORY;
    for (; r->named_count < count; r->named_count++) {
        struct named *n = &r->named[r->named_count];
        size_t before = r->texts.len;
        if (json_member(after, &place, &key, &n->positions) != ST_OK)
            break;
        n->raw_filter = slice_of(key.data - 1, key.len + 2);
        if (json_text((struct json_value){JSON_IS_STRING, n->raw_filter}, &r->texts) != ST_OK)
            return ST_NO_MEMORY;
        n->filter = slice_of(r->texts.data + before, r->texts.len - before);
    }
    qsort(r->named, r->named_count, sizeof *r->named, compare_named);
    return ST_OK;
}

static void resumption_deinit(struct resumption *r)
{
    free(r->named);
    buf_deinit(&r->texts);
    buf_deinit(&r->lost);
}

static enum status fold_text(struct conn *c, struct json_value v, struct place *place)
{
    struct buf text;
    buf_init(&text, v.raw.len + 1);
    enum status st = json_text(v, &text);
    if (st == ST_OK)
        st = place_fold(place, c->door->epoch, buf_slice(&text));
    buf_deinit(&text);
    return st;
}

/* ST_GONE: one of them is of another epoch. ST_INVALID. */
static enum status fold_positions(struct conn *c, struct json_value positions, struct place *place)
{
    size_t at = 0;
    struct json_value item;
    enum status st = ST_OK;
    if (positions.type == JSON_IS_STRING)
        return fold_text(c, positions, place);
    while (st == ST_OK && json_element(positions.raw, &at, &item) == ST_OK)
        st = fold_text(c, item, place);
    return st;
}

/* Before anything is begun: what is no position at all makes the whole hello wrong. */
static bool positions_valid(struct conn *c, struct slice after)
{
    size_t at = 0;
    struct slice key;
    struct json_value positions;
    while (after.len > 0 && json_member(after, &at, &key, &positions) == ST_OK) {
        struct place place = {.lane_count = hub_lane_count(c->door->hub)};
        if (fold_positions(c, positions, &place) == ST_INVALID)
            return false;
    }
    return true;
}

/* --- filters ------------------------------------------------------------------------------------ */

static void put_lost_raw(struct resumption *r, struct slice json)
{
    struct json_out o = {.buf = &r->lost, .status = r->status};
    if (r->lost.len > 0)
        json_out_literal(&o, ",");
    json_out_put(&o, json);
    r->status = o.status;
}

static void put_lost(struct resumption *r, struct slice filter)
{
    struct json_out o = {.buf = &r->lost, .status = r->status};
    if (r->lost.len > 0)
        json_out_literal(&o, ",");
    json_out_string(&o, filter);
    r->status = o.status;
}

/* True: it begins after the positions that hello.after has for it. */
static bool resume_named(struct resumption *r, const struct named *n)
{
    struct place place = {.lane_count = hub_lane_count(r->conn->door->hub)};
    struct subscription_options o = {.after = &place};
    bool inbox = slice_equal(n->filter, r->inbox);
    bool resumed = fold_positions(r->conn, n->positions, &place) == ST_OK &&
                   serve_resume_filter(r->conn, n->filter, &o, inbox) == ST_OK;
    r->has_inbox |= inbox && resumed;
    return resumed;
}

static bool resume_kept(struct resumption *r, const struct record_filter *f, const struct named *n)
{
    struct conn *c = r->conn;
    struct place place = {.lane_count = hub_lane_count(c->door->hub)}, moved;
    struct subscription_options o = {.after = &place,
                                     .retained_again = (f->flags & RECORD_RETAINED_OPEN) != 0};
    unsigned first = 0;
    (void)topic_filter_partition(f->filter, place.lane_count, &first);
    for (unsigned i = 0; i < f->lane_count; i++)
        place.next[first + i] = f->next[i];
    moved = place;
    if (n && fold_positions(c, n->positions, &moved) == ST_OK)
        place = moved;
    return serve_resume_filter(c, f->filter, &o, true) == ST_OK;
}

static void resume_record_filters(struct resumption *r, struct slice record)
{
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    if (record.len == 0 || record_open(record, &place, &epoch, &lanes) != ST_OK)
        return;
    while (record_next(record, &place, lanes, &f) == ST_OK) {
        struct named *n = named_find(r, f.filter);
        bool resumed = f.flags & RECORD_ACK ? resume_kept(r, &f, n) : n && resume_named(r, n);
        if (n)
            n->used = true;
        if (!resumed)
            put_lost(r, f.filter);
        else
            r->has_inbox |= slice_equal(f.filter, r->inbox);
    }
}

static void resume_named_filters(struct resumption *r)
{
    for (size_t i = 0; i < r->named_count; i++)
        if (!r->named[i].used && !resume_named(r, &r->named[i]))
            put_lost_raw(r, r->named[i].raw_filter);
}

/* The inbox begins at its cursor. */
static void resume_inbox(struct resumption *r, const struct inbox_place *at)
{
    struct place place = {.lane_count = hub_lane_count(r->conn->door->hub)};
    struct subscription_options o = {.after = &place};
    place.next[at->lane] = at->next;
    if (at->skipped > 0) {
        o.skipped_from = at->cursor;
        o.skipped_count = at->skipped;
    }
    r->has_inbox = serve_resume_filter(r->conn, r->inbox, &o, true) == ST_OK;
    if (!r->has_inbox)
        put_lost(r, r->inbox);
}

/* --- the answer --------------------------------------------------------------------------------- */

static void put_hello(struct conn *c, struct ws_id id, bool resumed, const struct resumption *r)
{
    const struct settings *s = c->door->settings;
    const struct ws_hello hello = {.session = c->token,
                                   .user = c->principal->user,
                                   .inbox = r->has_inbox ? r->inbox : (struct slice){0},
                                   .resumed = resumed,
                                   .lost = buf_slice(&r->lost),
                                   .node = s->node_id,
                                   .ping_ms = s->ws_ping_ms,
                                   .max_bytes = s->limit_message_bytes};
    if (id.given)
        serve_put(c, ws_put_hello(&c->door->scratch, id, &hello));
}

/* Subscriptions only begin here: what they bring comes behind the answer. */
static void hello_go_on(struct conn *c, const struct opening *o)
{
    struct resumption r;
    enum status st = resumption_init(&r, c, buf_slice(&o->after));
    r.inbox = buf_slice(&o->inbox);
    if (st == ST_OK) {
        resume_record_filters(&r, buf_slice(&o->record));
        resume_named_filters(&r);
        if (o->placed)
            resume_inbox(&r, &o->place);
        st = r.status;
    }
    if (st == ST_OK)
        put_hello(c, o->id, o->record.len > 0, &r);
    else
        conn_break(c);
    resumption_deinit(&r);
}

static void opening_is_over(struct conn *c)
{
    opening_free(c->opening);
    c->opening = NULL;
    conn_touch(c); /* reading goes on */
}

/* From here on the record is what is subscribed. */
static void opening_finish(struct conn *c)
{
    struct opening *o = c->opening;
    c->opening = NULL;
    hello_go_on(c, o);
    c->opening = o;
    opening_is_over(c);
}

/* Nothing has begun; the client may say hello again. */
static void opening_give_up(struct conn *c)
{
    keeper_close(c->keeper, KEEPER_LEAVE);
    c->keeper = NULL;
    c->token[0] = '\0';
    opening_is_over(c);
}

/* --- where the inbox begins --------------------------------------------------------------------- */

static void on_inbox_found(void *conn, enum status status, const struct inbox_place *place)
{
    struct conn *c = conn;
    struct opening *o = c->opening;
    if (status != ST_OK) {
        serve_later(c, o->id, "unavailable", "the inbox could not be read");
        opening_give_up(c);
        return;
    }
    o->placed = true;
    o->place = *place;
    opening_finish(c);
}

/* Does the session go on with the filter? */
static bool record_has(struct slice record, struct slice filter)
{
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    if (record.len == 0 || record_open(record, &place, &epoch, &lanes) != ST_OK)
        return false;
    while (record_next(record, &place, lanes, &f) == ST_OK)
        if ((f.flags & RECORD_ACK) && slice_equal(f.filter, filter))
            return true;
    return false;
}

static bool after_has(struct conn *c, struct slice after, struct slice filter)
{
    struct resumption r;
    bool has = resumption_init(&r, c, after) == ST_OK && named_find(&r, filter);
    resumption_deinit(&r);
    return has;
}

/* It is known which session this is. */
static void opening_go_on(struct conn *c)
{
    struct opening *o = c->opening;
    struct slice inbox = buf_slice(&o->inbox);
    if (inbox.len == 0 || record_has(buf_slice(&o->record), inbox) ||
        after_has(c, buf_slice(&o->after), inbox))
        opening_finish(c);
    else if (inbox_ask_place(c, on_inbox_found) != ST_OK)
        conn_break(c);
}

/* --- a session that goes on --------------------------------------------------------------------- */

static void on_attached(struct keeper_wait *w, enum status status)
{
    struct opening *o = LIST_OF(w, struct opening, wait);
    struct conn *c = o->conn;
    if (status == ST_AGAIN) { /* an older connection has written since */
        keeper_read_again(c->keeper);
        return;
    }
    if (status == ST_OK) {
        metric_add(c->door->metrics, M_SESSIONS_RESUMED, 1);
        opening_go_on(c);
        return;
    }
    keep_refused(c, o->id, status);
    opening_give_up(c);
}

/* Of this log, and whole? */
static bool record_fits(const struct conn *c, struct slice record)
{
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    enum status st;
    if (record_open(record, &place, &epoch, &lanes) != ST_OK || epoch != c->door->epoch ||
        lanes != hub_lane_count(c->door->hub))
        return false;
    do
        st = record_next(record, &place, lanes, &f);
    while (st == ST_OK);
    return st == ST_NOT_FOUND;
}

/* Nobody knows the token (any more): a new session, under a token of ours. */
static void begin_anew(struct conn *c)
{
    metric_add(c->door->metrics, M_SESSIONS_UNKNOWN, 1);
    if (token_make(c->token) == ST_OK)
        opening_go_on(c);
    else
        conn_break(c);
}

void resume_on_read(void *conn, enum status status, struct slice record)
{
    struct conn *c = conn;
    if (status != ST_OK || !record_fits(c, record)) {
        keeper_close(c->keeper, KEEPER_LEAVE);
        c->keeper = NULL;
        begin_anew(c);
        return;
    }
    buf_clear(&c->opening->record);
    if (buf_put(&c->opening->record, record) != ST_OK) {
        conn_break(c);
        return;
    }
    c->opening->wait.on_kept = on_attached;
    keeper_want(c->keeper, &c->opening->wait);
}

static struct opening *opening_create(struct conn *c, const struct ws_request *r)
{
    struct opening *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->conn = c;
    o->id = serve_id(r);
    list_init(&o->wait.link);
    buf_init(&o->after, c->door->message_bytes_max);
    buf_init(&o->record, UINT32_MAX);
    buf_init(&o->inbox, UINT16_MAX);
    if (buf_put(&o->after, r->after_filters) == ST_OK &&
        (!r->inbox || inbox_put_filter(c, &o->inbox) == ST_OK))
        return o;
    opening_free(o);
    return NULL;
}

static void hello_resume(struct conn *c, const struct ws_request *r)
{
    if (!token_valid(r->session)) {
        begin_anew(c);
        return;
    }
    memcpy(c->token, r->session.data, TOKEN_BYTES);
    c->token[TOKEN_BYTES] = '\0';
    if (keep_resume(c) != ST_OK)
        conn_break(c);
}

/* True: there is no inbox for this connection, and that has been said. */
static bool hello_refuse_inbox(struct conn *c, const struct ws_request *r)
{
    struct buf filter;
    buf_init(&filter, UINT16_MAX);
    bool may = c->principal->inbox_id.len > 0 && inbox_put_filter(c, &filter) == ST_OK &&
               conn_may(c, ACL_SUBSCRIBE, buf_slice(&filter));
    buf_deinit(&filter);
    if (!may)
        serve_error(c, serve_id(r), "forbidden", "there is no inbox for you; anonymous clients have none");
    return !may;
}

void serve_hello(struct conn *c, const struct ws_request *r)
{
    if (r->token.data && !serve_identify(c, r))
        return;
    if (r->token.data)
        serve_review(c);
    if (c->token[0] && (r->session.data || r->after_filters.data)) {
        serve_error(c, serve_id(r), "conflict", "session and after are for the first hello");
        return;
    }
    if (!positions_valid(c, r->after_filters)) {
        serve_error(c, serve_id(r), "bad_request", "after holds something that is no position of this log");
        return;
    }
    if ((r->inbox && hello_refuse_inbox(c, r)) || !serve_window(c, r))
        return;
    c->opening = opening_create(c, r);
    if (!c->opening || (!r->session.data && !c->token[0] && token_make(c->token) != ST_OK))
        conn_break(c);
    else if (r->session.data)
        hello_resume(c, r);
    else
        opening_go_on(c);
}
