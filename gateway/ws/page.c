/* Pages of history. A read on its way holds a reference to the connection's memory. */
#include "gateway/ws/serve.h"

#include <stdlib.h>

enum { PAGE_DEFAULT = 100, PAGE_BYTES_MAX = 512 * 1024 };

/* A `get` under way. */
struct page {
    struct read read;
    struct conn *conn;
    struct ws_id id;
    bool earliest;
    size_t topic_len;
    uint8_t topic[];
};

static void page_answer(struct page *p)
{
    struct conn *c = p->conn;
    struct buf *scratch = &c->door->scratch;
    struct store_read *r = &p->read.store;
    if (r->status == ST_OK) {
        struct place next = {.lane_count = hub_lane_count(c->door->hub)};
        next.next[r->lane] = r->next;
        serve_put(c, ws_put_page(scratch, p->id, slice_of(p->topic, p->topic_len), c->door->epoch, r->msgs,
                                 r->found, &next));
    } else if (r->status == ST_GONE) {
        char earliest[POSITION_BYTES + 1];
        position_write(c->door->epoch, r->lane, r->first - 1,
                       earliest); /* strictly after it: the first kept */
        earliest[POSITION_BYTES] = '\0';
        const struct ws_error e = {.code = "position_gone", .earliest = earliest};
        serve_put(c, ws_put_error(scratch, p->id, &e));
    } else {
        serve_error(c, p->id, "internal", "the log cannot be read here");
    }
}

static void on_page(struct read *read)
{
    struct page *p = LIST_OF(read, struct page, read);
    struct conn *c = p->conn;
    struct store_read *r = &p->read.store;
    /* What was the earliest has been removed meanwhile. */
    if (r->status == ST_GONE && p->earliest && r->first > r->from && c->state == CONN_OPEN) {
        read_release(read);
        r->from = r->first;
        hub_read(c->door->hub, read);
        return;
    }
    c->reads_open--;
    if (c->state == CONN_OPEN) {
        page_answer(p);
        conn_touch(c);
    }
    read_release(read);
    free(p);
    conn_unref(c);
}

static void serve_read(struct conn *c, const struct ws_request *r, uint64_t from)
{
    const struct settings *s = c->door->settings;
    struct page *p = calloc(1, sizeof *p + r->topic.len);
    if (!p) {
        serve_later(c, serve_id(r), "unavailable", "no memory");
        return;
    }
    uint64_t count = r->has_max ? r->max : PAGE_DEFAULT;
    p->conn = c;
    p->id = serve_id(r);
    p->earliest = r->start == WS_START_EARLIEST;
    p->topic_len = r->topic.len;
    memcpy(p->topic, r->topic.data, r->topic.len);
    p->read.store.topic = slice_of(p->topic, p->topic_len);
    p->read.store.from = from;
    p->read.store.count_max = (uint32_t)(count < s->limit_history_count ? count : s->limit_history_count);
    p->read.store.bytes_max = PAGE_BYTES_MAX;
    p->read.on_read = on_page;
    conn_ref(c);
    c->reads_open++;
    hub_read(c->door->hub, &p->read);
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
    else if (serve_refuse_internal(c, r))
        return;
    else {
        unsigned lane = topic_partition(r->topic, hub_lane_count(c->door->hub));
        switch ((int)serve_fold(c, r, &after, &stranger)) {
        case ST_OK:
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
