/* Finding the place is a few questions, one after the other, to the shard and, through it, to the log's
 * index:
 *
 *   INBOX            the cursor, and which offsets the lane has
 *   count from time  where the messages that are young enough begin, and how many there are from the later of
 * both on count the last   only when that is more than keep_messages: where the newest so many begin count
 * skipped    only when the cursor lies below all that: how many of its messages lie between
 *
 * Each is answered from postings, without a look at any message. */
#include "session/inbox.h"

#include "session/hub_private.h"

#include <assert.h>
#include <stdlib.h>

struct inbox {
    struct hub *hub;
    struct inbox_limits limits;
    void *owner;
    bool closed, moving, asking; /* a letter is under way that moves; a question is */
    uint64_t next, told; /* acknowledged, and what the shard has been told of it */
    uint64_t count; /* messages acknowledged since it was told */
    bool ended; /* the last word has been said */
    struct inbox_letter move, ask;
    struct read read;
    struct inbox_place place;
    uint64_t first, end; /* of the lane */
    void (*on_found)(void *owner, enum status status, const struct inbox_place *place);
    size_t id_len;
    char topics[]; /* "$inbox/<id>", then "$user/<id>" */
};

static const char record_prefix[] = "$inbox/", user_prefix[] = "$user/";

static struct slice record_topic(const struct inbox *i)
{
    return slice_of(i->topics, sizeof record_prefix - 1 + i->id_len);
}

static struct slice user_topic(const struct inbox *i)
{
    return slice_of(i->topics + sizeof record_prefix - 1 + i->id_len, sizeof user_prefix - 1 + i->id_len);
}

enum status inbox_create(struct hub *h, const struct inbox_limits *limits, struct slice inbox_id, void *owner,
                         struct inbox **out)
{
    struct inbox *i = calloc(1, sizeof *i + sizeof record_prefix + sizeof user_prefix + 2 * inbox_id.len);
    if (!i)
        return ST_NO_MEMORY;
    i->hub = h;
    i->limits = *limits;
    i->owner = owner;
    i->id_len = inbox_id.len;
    char *to = i->topics;
    memcpy(to, record_prefix, sizeof record_prefix - 1);
    memcpy(to + sizeof record_prefix - 1, inbox_id.data, inbox_id.len);
    to += sizeof record_prefix - 1 + inbox_id.len;
    memcpy(to, user_prefix, sizeof user_prefix - 1);
    memcpy(to + sizeof user_prefix - 1, inbox_id.data, inbox_id.len);
    *out = i;
    return ST_OK;
}

/* --- moving ------------------------------------------------------------------------------------- */

static void inbox_go_on(struct inbox *i);

static void has_moved(struct inbox_letter *l)
{
    struct inbox *i = LIST_OF(l, struct inbox, move);
    i->moving = false;
    inbox_go_on(i);
}

/* What has moved meanwhile; at the end a last word, then the memory. */
static void inbox_go_on(struct inbox *i)
{
    if (i->moving)
        return;
    bool last = i->closed && !i->ended && i->next > 0;
    if (i->next > i->told || last) {
        i->move = (struct inbox_letter){.topic = record_topic(i),
                                        .moves = true,
                                        .now = i->closed,
                                        .next = i->next,
                                        .count = i->count,
                                        .on_answer = has_moved};
        i->ended = i->closed;
        i->told = i->next;
        i->count = 0;
        i->moving = true;
        hub_inbox(i->hub, &i->move);
    } else if (i->closed && !i->asking) {
        free(i);
    }
}

void inbox_moved(struct inbox *i, uint64_t next, uint64_t count)
{
    assert(!i->closed);
    if (next > i->next)
        i->next = next;
    i->count += count;
    inbox_go_on(i);
}

void inbox_close(struct inbox *i)
{
    if (!i)
        return;
    i->closed = true;
    inbox_go_on(i);
}

/* --- finding the place -------------------------------------------------------------------------- */

static void inbox_found(struct inbox *i, enum status status)
{
    i->asking = false;
    if (i->closed)
        inbox_go_on(i);
    else
        i->on_found(i->owner, status, &i->place);
}

/* Counts the inbox's messages from `from` to `to`; what is located may move `from`. */
static void inbox_count(struct inbox *i, uint64_t from, uint64_t to, void (*on_read)(struct read *r))
{
    i->read = (struct read){.store = {.from = from > i->first ? from : i->first,
                                      .to = to,
                                      .topic = user_topic(i),
                                      .inbox = true,
                                      .count_only = true,
                                      .count_max = 1,
                                      .bytes_max = 1},
                            .on_read = on_read};
}

static void cursor_known(struct inbox_letter *l);

static void inbox_ask(struct inbox *i)
{
    i->ask = (struct inbox_letter){.topic = record_topic(i), .on_answer = cursor_known};
    hub_inbox(i->hub, &i->ask);
}

/* What came back. False: it is the end, told, or begins anew: retention has gone on meanwhile. */
static bool inbox_counted(struct inbox *i)
{
    struct store_read *sr = &i->read.store;
    enum status st = sr->status;
    if (!i->closed && st == ST_GONE && sr->first > i->first) {
        inbox_ask(i);
        return false;
    }
    if (i->closed || st != ST_OK) {
        inbox_found(i, st == ST_OK ? ST_AGAIN : st);
        return false;
    }
    return true;
}

static void skipped_counted(struct read *r)
{
    struct inbox *i = LIST_OF(r, struct inbox, read);
    if (!inbox_counted(i))
        return;
    i->place.skipped += r->store.found;
    inbox_found(i, ST_OK);
}

/* `next` is known, and `unread`. */
static void inbox_count_skipped(struct inbox *i)
{
    struct inbox_place *p = &i->place;
    if (!p->known || p->cursor >= p->next) {
        inbox_found(i, ST_OK);
        return;
    }
    /* Nobody knows any more what lay below the first that the log has. */
    p->skipped = p->cursor < i->first ? i->first - p->cursor : 0;
    inbox_count(i, p->cursor, p->next, skipped_counted);
    hub_read(i->hub, &i->read);
}

static void last_counted(struct read *r)
{
    struct inbox *i = LIST_OF(r, struct inbox, read);
    if (!inbox_counted(i))
        return;
    if (r->store.from > i->place.next)
        i->place.next = r->store.from;
    i->place.unread = r->store.found;
    inbox_count_skipped(i);
}

static void unread_counted(struct read *r)
{
    struct inbox *i = LIST_OF(r, struct inbox, read);
    if (!inbox_counted(i))
        return;
    i->place.unread = r->store.found;
    if (i->limits.keep_messages == 0 || r->store.found <= i->limits.keep_messages) {
        inbox_count_skipped(i);
        return;
    }
    inbox_count(i, 0, UINT64_MAX, last_counted);
    r->store.locate = STORE_AT_LAST;
    r->store.locate_value = i->limits.keep_messages;
    hub_read(i->hub, r);
}

static void inbox_count_unread(struct inbox *i)
{
    inbox_count(i, i->place.next, UINT64_MAX, unread_counted);
    hub_read(i->hub, &i->read);
}

static void time_located(struct read *r)
{
    struct inbox *i = LIST_OF(r, struct inbox, read);
    if (!inbox_counted(i))
        return;
    if (r->store.from > i->place.next)
        i->place.next = r->store.from;
    inbox_count_unread(i);
}

static void cursor_known(struct inbox_letter *l)
{
    struct inbox *i = LIST_OF(l, struct inbox, ask);
    uint64_t now_ms = loop_wall_ms(i->hub->loop);
    i->first = l->first;
    i->end = l->end;
    i->place = (struct inbox_place){.known = l->known, .lane = l->lane, .cursor = l->next, .next = l->first};
    if (l->known && l->next > l->first)
        i->place.next = l->next;
    if (i->closed ||
        i->place.next > l->end) { /* a future that this log does not have: whoever begins there is told */
        inbox_found(i, i->closed ? ST_AGAIN : ST_OK);
        return;
    }
    if (i->limits.keep_ms == 0 || now_ms < i->limits.keep_ms) {
        inbox_count_unread(i);
        return;
    }
    inbox_count(i, 0, UINT64_MAX, time_located);
    i->read.store.locate = STORE_AT_TIME;
    i->read.store.locate_value = now_ms - i->limits.keep_ms;
    hub_read(i->hub, &i->read);
}

void inbox_find(struct inbox *i,
                void (*on_found)(void *owner, enum status status, const struct inbox_place *place))
{
    assert(!i->asking && !i->closed);
    i->asking = true;
    i->on_found = on_found;
    inbox_ask(i);
}
