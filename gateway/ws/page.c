/* Pages of history. A read on its way holds a reference to the connection's memory.
 *
 * What has expired is left out and does not count, so a page may take several reads: one after the other,
 * until it is full or the end is reached. An empty page therefore is the end. Its messages are kept until
 * then and encoded at once; PAGE_BYTES_MAX of everything that is written of them keeps the text within the
 * door's scratch space (door.c, scratch_bytes_max), and the first message is always taken. */
#include "gateway/ws/serve.h"

#include <stdlib.h>

enum { PAGE_DEFAULT = 100, PAGE_BYTES_MAX = 512 * 1024 };

/* A `get` under way. */
struct page {
    struct read read;
    struct conn *conn;
    struct ws_id id;
    bool earliest; /* begins wherever the log begins: what retention has removed meanwhile is no gap */
    bool full;
    uint64_t next; /* offset to go on at; in reverse, below which */
    uint32_t count, count_max;
    size_t bytes; /* of its messages */
    struct msg **msgs; /* count_max places; each a reference */
    size_t topic_len;
    uint8_t topic[];
};

static void page_free(struct page *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        msg_unref(p->msgs[i]);
    free(p->msgs);
    free(p);
}

/* Where to go on: `next` of the topic's lane, nowhere in others. */
static struct place page_place(const struct page *p, uint64_t next)
{
    struct place place = {.lane_count = hub_lane_count(p->conn->door->hub)};
    /* In reverse 0 would say that it knows nothing of the lane (serve_get); offset 0 is no message's. */
    place.next[p->read.store.lane] = p->read.store.reverse && next == 0 ? 1 : next;
    return place;
}

static void page_put(struct page *p)
{
    struct conn *c = p->conn;
    struct place next = page_place(p, p->next);
    serve_put(c, ws_put_page(&c->door->scratch, p->id, slice_of(p->topic, p->topic_len), c->door->epoch,
                             p->msgs, p->count, &next));
}

static void page_failed(struct page *p)
{
    struct conn *c = p->conn;
    struct store_read *r = &p->read.store;
    if (p->count > 0) {
        page_put(p); /* the next page tells of it */
    } else if (p->read.beyond) {
        serve_error(c, p->id, "position_gone",
                    "this position lies behind the end of the log: the log was put back to an older state");
    } else if (r->status == ST_GONE) {
        char earliest[POSITION_BYTES + 1];
        position_write(c->door->epoch, r->lane, r->first - 1,
                       earliest); /* strictly after it: the first kept */
        earliest[POSITION_BYTES] = '\0';
        const struct ws_error e = {.code = "position_gone", .earliest = earliest};
        serve_put(c, ws_put_error(&c->door->scratch, p->id, &e));
    } else if (r->status == ST_CORRUPT) {
        char text[BOOKMARK_BYTES_MAX + 1];
        struct place next = page_place(p, r->next);
        text[bookmark_write(c->door->epoch, &next, text)] = '\0';
        const struct ws_error e = {.code = "internal",
                                   .detail = "a record of the log cannot be read; next leads past it",
                                   .next = text};
        serve_put(c, ws_put_error(&c->door->scratch, p->id, &e));
    } else {
        serve_later(c, p->id, "unavailable", "the log cannot be read now");
    }
}

static size_t message_bytes(const struct msg *m)
{
    return (size_t)m->topic_len + m->key_len + m->props_len + m->payload_len;
}

/* Takes over what a read has found. */
static void page_take(struct page *p)
{
    struct store_read *r = &p->read.store;
    for (uint64_t i = 0; i < r->found; i++) {
        struct msg *m = r->msgs[i];
        if (!hub_shows(p->conn->door->hub, m, false))
            continue;
        p->full = p->count > 0 && p->bytes + message_bytes(m) > PAGE_BYTES_MAX;
        if (p->full) {
            p->next = m->offset + r->reverse;
            return;
        }
        p->bytes += message_bytes(m);
        p->msgs[p->count++] = m;
        r->msgs[i] = NULL;
    }
    p->next = r->next;
    p->full = p->count == p->count_max || p->bytes >= PAGE_BYTES_MAX;
}

static void page_read(struct page *p)
{
    if (p->read.store.reverse)
        p->read.store.to = p->next;
    else
        p->read.store.from = p->next;
    p->read.store.count_max = p->count_max - p->count;
    p->read.store.bytes_max = (uint32_t)(PAGE_BYTES_MAX - p->bytes);
    hub_read(p->conn->door->hub, &p->read);
}

/* False: another read is needed. */
static bool page_is_done(struct page *p)
{
    struct store_read *r = &p->read.store;
    if (p->conn->state != CONN_OPEN)
        return true;
    if (r->status == ST_OK) {
        page_take(p);
        return p->full || store_read_complete(r);
    }
    /* What was the earliest has been removed meanwhile. */
    if (r->status != ST_GONE || !p->earliest || p->count > 0 || r->first <= r->from)
        return true;
    p->next = r->first;
    return false;
}

static void on_page(struct read *read)
{
    struct page *p = LIST_OF(read, struct page, read);
    struct conn *c = p->conn;
    bool done = page_is_done(p);
    read_release(read);
    if (!done) {
        page_read(p);
        return;
    }
    c->reads_open--;
    if (c->state == CONN_OPEN) {
        if (read->store.status == ST_OK)
            page_put(p);
        else
            page_failed(p);
        conn_touch(c);
    }
    page_free(p);
    conn_unref(c);
}

/* The store's words for what is asked. */
static void page_set_range(struct page *p, const struct ws_request *r)
{
    struct store_read *s = &p->read.store;
    s->reverse = r->reverse;
    s->to = UINT64_MAX;
    if (r->start == WS_START_TIME)
        s->locate = STORE_AT_TIME;
    else if (r->start == WS_START_LAST && !r->reverse) /* in reverse it is a page's length */
        s->locate = STORE_AT_LAST;
    s->locate_value = r->start_value;
}

/* `place` is of the topic's lane. */
static struct page *page_create(struct conn *c, const struct ws_request *r, uint64_t place)
{
    uint64_t count = r->has_max ? r->max : PAGE_DEFAULT, most = c->door->settings->limit_history_count;
    if (r->reverse && r->start == WS_START_LAST && r->start_value < count)
        count = r->start_value;
    struct page *p = calloc(1, sizeof *p + r->topic.len);
    if (!p)
        return NULL;
    p->count_max = (uint32_t)(count < most ? count : most);
    p->msgs = calloc(p->count_max, sizeof(struct msg *));
    if (!p->msgs) {
        free(p);
        return NULL;
    }
    p->conn = c;
    p->id = serve_id(r);
    p->earliest = r->start != WS_START_AFTER;
    p->next = place;
    p->topic_len = r->topic.len;
    memcpy(p->topic, r->topic.data, r->topic.len);
    p->read.store.topic = slice_of(p->topic, p->topic_len);
    page_set_range(p, r);
    p->read.on_read = on_page;
    return p;
}

static void serve_read(struct conn *c, const struct ws_request *r, uint64_t place)
{
    struct page *p = page_create(c, r, place);
    if (!p) {
        serve_later(c, serve_id(r), "unavailable", "no memory");
        return;
    }
    conn_ref(c);
    c->reads_open++;
    page_read(p);
}

void serve_get(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = serve_limits(c);
    struct place after;
    struct slice stranger;
    if (!r->has_id)
        serve_error(c, serve_id(r), "bad_request", "get needs an id");
    else if (!topic_name_valid(r->topic, &limits))
        serve_error(c, serve_id(r), "bad_request", "topic is not a topic name within the limits");
    else if (serve_refuse_topic(c, r, ACL_HISTORY))
        return;
    else {
        unsigned lane = topic_partition(r->topic, hub_lane_count(c->door->hub));
        switch ((int)serve_fold(c, r, &after, &stranger)) {
        case ST_OK:
            if (r->reverse && after.next[lane] == 0)
                serve_error(
                    c, serve_id(r), "bad_request",
                    "after holds a bookmark of another topic: it names no place in this topic's partition");
            else
                serve_read(c, r, after.next[lane]);
            break;
        case ST_GONE:
            serve_error(c, serve_id(r), "position_gone",
                        "a position of another log epoch: read from earliest");
            break;
        default:
            serve_error(c, serve_id(r), "bad_request",
                        "after holds something that is no position of this log");
        }
    }
}
