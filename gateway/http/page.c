/* A page of messages: of a topic's past, or of what is retained.
 *
 * One read of the log scans a bounded number of bytes, and one step of a walk over retained messages looks at
 * a bounded number of them, so a page may take several: they run one after the other, lane after lane, until
 * the page is full or the end is reached. The page is encoded as the reads come, and ends early when its text
 * is long enough; `next` always says where to go on. */
#include "gateway/http/request.h"

#include "gateway/message_json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MESSAGES_DEFAULT = 100,
    READ_COUNT_MAX = 256,
    READ_BYTES_MAX = 256 * 1024,
    PAGE_BYTES_ENOUGH = 1 << 20, /* a page ends with the message that reaches this */
    PAGE_BYTES_MAX = 1 << 30, /* the largest payload (128 MiB) as escaped text is below it */
    PAGE_END_BYTES = BOOKMARK_BYTES_MAX + 32,
};

struct page {
    struct read read;
    struct request *request; /* NULL: given up */
    struct api *api;
    struct place place; /* next offsets */
    unsigned last_lane;
    uint32_t left; /* messages */
    bool earliest; /* begins wherever the log begins */
    bool retained;
    bool full;
    struct buf text;
    size_t filter_len;
    uint8_t filter[];
};

/* --- parameters --------------------------------------------------------------------------------- */

static const struct problem other_epoch = {.status = 410,
                                           .code = "position_gone",
                                           .detail = "this position is of another log epoch",
                                           .members = "\"earliest\":\"earliest\""};
static const struct problem lost_future = {
    .status = 410,
    .code = "position_gone",
    .detail = "this position lies behind the end of the log: the log was put back to an older state",
    .members = "\"earliest\":\"earliest\""};

static const struct problem elsewhere = {
    .status = 400,
    .code = "bad_request",
    .detail = "this bookmark is of another topic: it names no place in this topic's partition"};

/* from=time:<ms>, from=last:<n>. False: something else. */
static bool read_located(struct request *r, struct slice text)
{
    enum { PREFIX = 5 }; /* of both */
    uint64_t value;
    bool last = slice_starts_with(text, slice_cstr("last:"));
    if (!last && !slice_starts_with(text, slice_cstr("time:")))
        return false;
    if (last ? !read_number(slice_from(text, PREFIX), &value) : !place_time_read(text, &value)) {
        request_bad(r, last ? "last: must be followed by an integer of at least 1"
                            : "time: must be followed by Unix milliseconds");
    } else if (r->page.retained) {
        request_unsupported(r, "retained messages are read from earliest, a position or a bookmark");
    } else if (last && r->page.reverse) { /* the newest: the page's length */
        r->page.max = value < r->page.max ? (uint32_t)value : r->page.max;
    } else {
        r->page.locate = last ? STORE_AT_LAST : STORE_AT_TIME;
        r->page.locate_value = value;
    }
    return true;
}

static void read_place(struct request *r, struct slice text)
{
    uint32_t epoch = r->api->edge->facts->epoch;
    r->page.earliest = false;
    switch ((int)(r->page.reverse ? place_fold_before(&r->page.from, epoch, text)
                                  : place_fold(&r->page.from, epoch, text))) {
    case ST_OK:
        break;
    case ST_GONE:
        request_refuse(r, &other_epoch);
        break;
    default:
        request_bad(r, "from must be earliest, time:, last:, a position or a bookmark of this log");
    }
}

void page_settle(struct request *r)
{
    struct slice text = r->page.from_text;
    for (unsigned i = 0; r->page.reverse && i < r->page.from.lane_count; i++)
        r->page.from.next[i] = UINT64_MAX;
    if (!text.data)
        return;
    if (!slice_equal_cstr(text, "earliest")) {
        if (!read_located(r, text))
            read_place(r, text);
    } else if (r->page.reverse) {
        request_bad(r, "nothing lies before the earliest");
    }
}

static void read_max(struct request *r, struct slice value)
{
    uint64_t most = r->api->edge->settings->limit_history_count, max;
    if (!read_number(value, &max))
        request_bad(r, "max must be an integer of at least 1");
    else
        r->page.max = (uint32_t)(max < most ? max : most);
}

bool page_parameter(struct request *r, struct slice name, struct slice value)
{
    if (slice_equal_cstr(name, "from"))
        r->page.from_text = value;
    else if (slice_equal_cstr(name, "max"))
        read_max(r, value);
    else
        return false;
    return true;
}

void page_defaults(struct request *r)
{
    uint64_t most = r->api->edge->settings->limit_history_count;
    r->page.from_text = (struct slice){0};
    r->page.earliest = true;
    r->page.reverse = false;
    r->page.locate = STORE_AT_OFFSET;
    r->page.max = (uint32_t)(MESSAGES_DEFAULT < most ? MESSAGES_DEFAULT : most);
    r->page.from = (struct place){.lane_count = r->api->edge->facts->lane_count};
}

/* --- page --------------------------------------------------------------------------------------- */

static void page_free(struct page *p)
{
    p->api->pages_open--;
    buf_deinit(&p->text);
    free(p);
}

/* The answer is made; the page is gone. */
static void page_refuse(struct page *p, const struct problem *problem)
{
    struct request *r = p->request;
    r->pending = NULL;
    page_free(p);
    request_refuse(r, problem);
}

static void page_unavailable(struct page *p, const char *detail)
{
    struct request *r = p->request;
    r->pending = NULL;
    page_free(p);
    request_unavailable(r, detail);
}

static void page_reply(struct page *p)
{
    static const char type[] = "application/json";
    struct request *r = p->request;
    char next[BOOKMARK_BYTES_MAX];
    uint64_t *own = &p->place.next[p->read.store.lane];
    if (p->read.store.reverse && *own == 0)
        *own = 1; /* nothing of ours is below either: 0 says that a bookmark knows nothing of a partition */
    size_t len = bookmark_write(r->api->edge->facts->epoch, &p->place, next);
    enum status st = buf_printf(&p->text, "],\"next\":\"%.*s\"}\n", (int)len, next);
    if (st != ST_OK) {
        page_unavailable(p, "no memory");
        return;
    }
    r->pending = NULL;
    request_reply(r, 200, type, &p->text);
    page_free(p);
}

/* Appends one message. False: it does not fit, and the page ends before it. */
static bool page_put(struct page *p, const struct msg *m, bool first)
{
    struct buf *text = &p->text;
    size_t before = text->len;
    enum status st = first ? ST_OK : buf_put_byte(text, ',');
    if (st == ST_OK)
        st = message_json_put(text, p->api->edge->facts->epoch, m, p->retained);
    uint64_t need = text->len + PAGE_END_BYTES, kept = p->request->kept_bytes;
    if (st == ST_OK && (need <= kept || request_keep(p->request, need - kept)))
        return true;
    text->len = before;
    return false;
}

/* Takes over what a read has found. False: not even one message fits. */
static bool page_take(struct page *p)
{
    struct store_read *s = &p->read.store;
    uint64_t *next = &p->place.next[s->lane];
    for (uint64_t i = 0; i < s->found && !p->full; i++) {
        const struct msg *m = s->msgs[i];
        bool first = p->left == p->request->page.max;
        if (hub_shows(p->api->edge->hub, m, p->retained)) {
            if (!page_put(p, m, first)) {
                p->full = true;
                return !first;
            }
            p->left--;
        }
        *next = s->reverse ? m->offset : m->offset + 1;
        p->full = p->left == 0 || p->text.len >= PAGE_BYTES_ENOUGH;
    }
    if (!p->full)
        *next = s->next;
    return true;
}

static void page_read(struct page *p)
{
    struct store_read *s = &p->read.store;
    if (s->reverse)
        s->to = p->place.next[s->lane];
    else
        s->from = p->place.next[s->lane];
    s->count_max = p->left < READ_COUNT_MAX ? p->left : READ_COUNT_MAX;
    if (p->retained)
        hub_read_retained(p->api->edge->hub, &p->read);
    else
        hub_read(p->api->edge->hub, &p->read);
}

/* `next` of a position before the first record kept: reading from it gives all there is. */
static void page_gone(struct page *p)
{
    struct store_read *s = &p->read.store;
    char members[POSITION_BYTES + 32], position[POSITION_BYTES];
    assert(s->first > 0); /* nothing lies below offset 0 */
    position_write(p->api->edge->facts->epoch, s->lane, s->first - 1, position);
    snprintf(members, sizeof members, "\"earliest\":\"%.*s\"", POSITION_BYTES, position);
    page_refuse(p, &(struct problem){.status = 410,
                                     .code = "position_gone",
                                     .detail = "what followed this position has been removed by retention",
                                     .members = members});
}

/* A record that cannot be read. Where to go on is told, so that a client can get over it. */
static void page_corrupt(struct page *p)
{
    struct store_read *s = &p->read.store;
    char members[BOOKMARK_BYTES_MAX + 32], next[BOOKMARK_BYTES_MAX];
    p->place.next[s->lane] = s->next;
    size_t len = bookmark_write(p->api->edge->facts->epoch, &p->place, next);
    snprintf(members, sizeof members, "\"next\":\"%.*s\"", (int)len, next);
    page_refuse(p, &(struct problem){.status = 500,
                                     .code = "internal",
                                     .detail = "a record of the log cannot be read; next leads past it",
                                     .members = members});
}

static void page_failed(struct page *p)
{
    struct store_read *s = &p->read.store;
    bool begun = p->left < p->request->page.max;
    if (s->status == ST_GONE && !begun && p->earliest && s->first > s->from) {
        p->place.next[s->lane] = s->first;
        page_read(p);
    } else if (begun && (s->status == ST_GONE || s->status == ST_CORRUPT)) {
        page_reply(p); /* the next page tells of it */
    } else if (p->read.beyond) {
        page_refuse(p, &lost_future);
    } else if (s->status == ST_GONE) {
        page_gone(p);
    } else if (s->status == ST_CORRUPT) {
        page_corrupt(p);
    } else {
        page_unavailable(p, "the log cannot be read now");
    }
}

/* The lane has more, or there is another one: its reads go on where `place` says. */
static bool page_has_more(struct page *p)
{
    struct store_read *s = &p->read.store;
    if (!store_read_complete(s))
        return true;
    if (s->lane == p->last_lane)
        return false;
    s->lane++;
    return true;
}

static bool page_wants(void *ctx, struct slice topic)
{
    const struct page *p = ctx;
    return topic_matches(slice_of(p->filter, p->filter_len), topic);
}

static void on_read(struct read *read)
{
    struct page *p = LIST_OF(read, struct page, read);
    struct store_read *s = &read->store;
    if (!p->request) {
        read_release(read);
        page_free(p);
        return;
    }
    if (s->status != ST_OK) {
        read_release(read);
        page_failed(p);
        return;
    }
    bool fits = page_take(p);
    read_release(read);
    if (!fits)
        page_unavailable(p, "too many pages are being read");
    else if (p->full || !page_has_more(p))
        page_reply(p);
    else
        page_read(p);
}

static struct page *page_create(struct request *r)
{
    struct page *p = calloc(1, sizeof *p + r->topic.len);
    if (!p)
        return NULL;
    p->request = r;
    p->api = r->api;
    p->place = r->page.from;
    p->left = r->page.max;
    p->earliest = r->page.earliest;
    p->retained = r->page.retained;
    p->filter_len = r->topic.len;
    memcpy(p->filter, r->topic.data, r->topic.len);
    struct store_read *s = &p->read.store;
    struct slice filter = slice_of(p->filter, p->filter_len);
    if (topic_filter_literal(filter)) {
        s->topic = filter;
        s->lane = p->last_lane = topic_partition(filter, p->place.lane_count);
    } else {
        s->wants = page_wants;
        s->wants_ctx = p;
        p->last_lane = p->place.lane_count - 1;
    }
    /* The end of other lanes is nowhere that a page could go on. */
    for (unsigned i = 0; i < p->place.lane_count; i++)
        if (p->place.next[i] == UINT64_MAX && i != s->lane)
            p->place.next[i] = 0;
    s->to = UINT64_MAX;
    s->reverse = r->page.reverse;
    s->locate = r->page.locate;
    s->locate_value = r->page.locate_value;
    s->bytes_max = READ_BYTES_MAX;
    p->read.on_read = on_read;
    buf_init(&p->text, PAGE_BYTES_MAX);
    p->api->pages_open++;
    return p;
}

void page_run(struct request *r)
{
    struct page *p = NULL;
    if (r->api->pages_open < PAGES_OPEN_MAX && request_keep(r, PAGE_END_BYTES))
        p = page_create(r);
    if (!p) {
        request_unavailable(r, "too many pages are being read");
        return;
    }
    r->pending = p;
    if (p->read.store.reverse && p->place.next[p->read.store.lane] == 0)
        page_refuse(p, &elsewhere);
    else if (buf_put_cstr(&p->text, "{\"messages\":[") != ST_OK)
        page_unavailable(p, "no memory");
    else
        page_read(p);
}

void page_give_up(struct request *r)
{
    struct page *p = r->pending;
    p->request = NULL; /* its read comes back some time, and frees it */
    r->pending = NULL;
    request_unavailable(r, "the page was not read in time");
}
