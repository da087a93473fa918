/* Shared subscriptions (MQTT 5.0, 4.8.2; ADR 10), one lane of them. A group is all subscriptions of
 * `$share/<name>/<filter>`; each message that matches goes to one of its members.
 *
 *   appended --> [all taken so far?] --> whose turn is it? --GIVE--> member --SETTLE--> done with
 *                    | nobody has room        ^                         |
 *                    v                        +------- back <-----------+ again
 *                 cursor --READ---------------+
 *
 * A group owns no queue but what lies with its members and what they have given back: while one of them has
 * room it is live and takes each record as it is appended; else only its cursor stays, and it READs from
 * there when there is room again. Each message that is given has a ticket. The ticket comes back exactly
 * once, whatever becomes of the member, so a message is with one member at a time, and never with none and
 * not in `back`.
 *
 * Whose turn it is: every member has a pass, the lowest is next, and what it is given adds to it the less the
 * more of its window is free (stride scheduling); from 16 free places on all are equal, because clients'
 * windows are 20 or 65,535 by habit and not by strength. A member that says FULL is given nothing until it
 * says OPEN; what was on its way comes back before that (session/share.c), so nothing overtakes it.
 *
 * LEAVE is answered when no ticket of the member is out, and no READ is under way: then nothing of the lane
 * points to the member's loop, nor waits for this one.
 *
 * A group with a kept member (shard_share_kept.c) goes on without a connection: its cursor, and the places of
 * what was given and not settled. The messages themselves are then read again. */
#include "routing/share_private.h"

#include "core/hash.h"
#include "core/pool.h"
#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

enum { STRIDE = 1 << 20, FREE_WEIGHT_MAX = 16 };
enum { READ_COUNT_MAX = 256, READ_BYTES_MAX = 64 << 10, NOT_READY = 0 };

struct share_member {
    struct share *share;
    struct list link; /* share->members */
    struct list giving_link; /* shares.giving */
    struct share_give *giving; /* the open letter */
    void *seat;
    void (*on_give)(struct mail *mail);
    uint16_t loop;
    uint32_t window, open; /* tickets out with it */
    bool full;
    struct share_kept *kept; /* its session; NULL: it ends with the connection */
    struct share_letter *leaving; /* LEAVE, to be answered */
    uint64_t pass;
    uint32_t place; /* in share->ready, from 1; NOT_READY */
};

/* --- whose turn it is --------------------------------------------------------------------------------- */

static void ready_set(struct share *g, uint32_t place, struct share_member *m)
{
    g->ready[place - 1] = m;
    m->place = place;
}

static void ready_up(struct share *g, struct share_member *m)
{
    uint32_t place = m->place;
    while (place > 1 && g->ready[place / 2 - 1]->pass > m->pass) {
        ready_set(g, place, g->ready[place / 2 - 1]);
        place /= 2;
    }
    ready_set(g, place, m);
}

static void ready_down(struct share *g, struct share_member *m)
{
    uint32_t place = m->place;
    for (;;) {
        uint32_t child = place * 2;
        if (child < g->ready_count && g->ready[child]->pass < g->ready[child - 1]->pass)
            child++;
        if (child > g->ready_count || g->ready[child - 1]->pass >= m->pass)
            break;
        ready_set(g, place, g->ready[child - 1]);
        place = child;
    }
    ready_set(g, place, m);
}

/* Whether it can be given to has perhaps changed. Room for it was made when it joined. */
static void member_judge(struct share_member *m)
{
    struct share *g = m->share;
    bool can = !m->leaving && !m->full && m->open < m->window;
    if (can && m->place == NOT_READY) {
        if (m->pass < g->pass) /* it does not make up for the time in which it had no room */
            m->pass = g->pass;
        ready_set(g, ++g->ready_count, m);
        ready_up(g, m);
    } else if (!can && m->place != NOT_READY) {
        uint32_t place = m->place;
        struct share_member *last = g->ready[--g->ready_count];
        m->place = NOT_READY;
        if (last == m)
            return;
        ready_set(g, place, last);
        ready_up(g, last);
        ready_down(g, last);
    }
}

/* --- giving ------------------------------------------------------------------------------------------- */

static void member_send(struct share_member *m)
{
    struct share_give *letter = m->giving;
    assert(letter);
    m->giving = NULL;
    list_unlink(&m->giving_link);
    letter->mail.on_arrival = m->on_give;
    courier_send(m->share->shard->group->courier, m->loop, &letter->mail);
}

void shard_share_send(struct shard *s)
{
    while (!list_empty(&s->shares.giving))
        member_send(LIST_OF(s->shares.giving.next, struct share_member, giving_link));
}

static struct share_give *member_letter(struct share_member *m)
{
    struct shard *s = m->share->shard;
    uint8_t pool_class;
    if (m->giving && m->giving->count == SHARE_GIFTS_MAX)
        member_send(m);
    if (m->giving)
        return m->giving;
    struct share_give *letter = pool_alloc(sizeof *letter, &pool_class);
    if (!letter)
        return NULL;
    letter->pool_class = pool_class;
    letter->lane = (uint16_t)s->lane;
    letter->count = 0;
    letter->seat = m->seat;
    m->giving = letter;
    list_push(&s->shares.giving, &m->giving_link);
    s->dirty = true; /* it leaves in this turn */
    return letter;
}

/* Some member has room, and the limits let one more go out. A message is never too large for an idle group.
 */
static bool share_has_room(const struct share *g)
{
    const struct shard_limits *limits = &g->shard->group->limits;
    uint64_t most = limits->share.given;
    if (g->kept_count > 0 && limits->share.kept_given < most)
        most = limits->share.kept_given; /* the record has them all */
    return g->ready_count > 0 && g->given < most &&
           (g->given == 0 || g->given_bytes < limits->share.given_bytes);
}

static uint64_t msg_weight(const struct msg *m)
{
    return (uint64_t)m->topic_len + m->payload_len + m->props_len;
}

/* False: no memory. */
static bool share_give_ticket(struct share *g, struct share_ticket *t)
{
    struct share_member *m = g->ready[0];
    struct share_give *letter = member_letter(m);
    if (!letter)
        return false;
    letter->gifts[letter->count++] = (struct share_gift){.msg = msg_ref(t->msg), .ticket = t};
    t->member = m;
    list_unlink(&t->link);
    list_push(&g->out, &t->link);
    g->pass = m->pass;
    uint32_t free_count = m->window - m->open;
    m->pass += STRIDE / (free_count < FREE_WEIGHT_MAX ? free_count : FREE_WEIGHT_MAX);
    m->open++;
    g->given++;
    g->given_bytes += msg_weight(t->msg);
    metric_add(g->shard->group->metrics, M_SHARE_GIVEN, 1);
    ready_down(g, m);
    member_judge(m);
    return true;
}

void share_ticket_drop(struct share_ticket *t)
{
    list_unlink(&t->link);
    msg_unref(t->msg);
    free(t);
}

static bool share_give_new(struct share *g, struct msg *m)
{
    struct share_ticket *t = share_has_room(g) ? malloc(sizeof *t) : NULL;
    if (!t)
        return false;
    *t = (struct share_ticket){.share = g, .msg = msg_ref(m), .offset = m->offset};
    list_init(&t->link);
    if (share_give_ticket(g, t))
        return true;
    share_ticket_drop(t);
    return false;
}

enum status share_owe(struct share *g, uint64_t offset)
{
    struct share_ticket *t = malloc(sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    *t = (struct share_ticket){.share = g, .offset = offset};
    list_init(&t->link);
    list_push(&g->back, &t->link);
    return ST_OK;
}

void share_count(struct share *g, enum metric why, uint64_t count)
{
    metric_add(g->shard->group->metrics, M_OFFERED, count);
    metric_add(g->shard->group->metrics, why, count);
}

void share_set_live(struct share *g, bool live)
{
    if (g->live == live)
        return;
    g->live = live;
    if (live)
        metric_sub(g->shard->group->metrics, M_SHARE_BEHIND, 1);
    else
        metric_add(g->shard->group->metrics, M_SHARE_BEHIND, 1);
}

void shard_share_offer(struct shard *s, struct msg *m)
{
    struct filter_matches found = filter_table_match(s->shares.filters, msg_topic(m));
    for (size_t i = 0; i < found.count; i++) {
        struct share *g = LIST_OF(found.entries[i], struct share, entry);
        if (g->live && share_give_new(g, m))
            continue;
        if (m->flags & MSG_UNSTORED) {
            share_count(g, M_DROPPED_UNSTORED, 1);
        } else if (g->live) {
            share_set_live(g, false);
            g->next = m->offset;
        }
    }
}

/* --- the cursor --------------------------------------------------------------------------------------- */

static void share_pump(struct share *g);

static bool share_wants(void *ctx, struct slice topic)
{
    const struct share *g = ctx; /* the reader's thread: the filter does not change */
    return topic_matches(g->filter, topic);
}

static uint32_t share_room(const struct share *g)
{
    uint64_t room = 0;
    for (uint32_t i = 0; i < g->ready_count && room < READ_COUNT_MAX; i++)
        room += g->ready[i]->window - g->ready[i]->open;
    return room < READ_COUNT_MAX ? (uint32_t)room : READ_COUNT_MAX;
}

/* What was read is given, and `msgs` freed; `next` lies behind all of it. */
static void share_take(struct share *g, struct msg **msgs, uint64_t found, uint64_t next)
{
    g->next = next;
    for (uint64_t i = 0; i < found; i++) {
        bool due = g->next == next && !share_has_passed(g, msgs[i]->offset);
        if (due && !share_give_new(g, msgs[i]))
            g->next = msgs[i]->offset;
        msg_unref(msgs[i]);
    }
    free(msgs);
}

static void share_has_read(struct store_read *r)
{
    struct share *g = LIST_OF(r, struct share, read);
    g->reading = false;
    if (r->status == ST_GONE) {
        share_count(g, M_DROPPED_RETENTION, r->first - g->next);
        g->next = r->first;
    } else if (r->status == ST_CORRUPT) {
        share_count(g, M_DROPPED_DAMAGED, r->next - g->next);
        g->next = r->next;
    } else if (r->status == ST_OK) {
        share_take(g, r->msgs, r->found, r->next);
    }
    share_part(g);
}

/* From the log: the reader's thread. */
static void share_read_log(struct share *g, uint64_t from, uint64_t to, uint32_t count,
                           void (*on_done)(struct store_read *r))
{
    const struct topic_log *log = &g->shard->group->log;
    struct slice inbox;
    g->reading = true;
    g->read = (struct store_read){.lane = g->shard->lane,
                                  .from = from,
                                  .to = to,
                                  .count_max = count,
                                  .bytes_max = READ_BYTES_MAX,
                                  .wants = share_wants,
                                  .wants_ctx = g,
                                  .home = courier_loop(g->shard->group->courier),
                                  .on_done = on_done};
    if (topic_filter_literal(g->filter)) {
        g->read.topic = g->filter;
    } else if (topic_inbox_filter(g->filter, &inbox)) {
        g->read.topic = inbox;
        g->read.inbox = true;
    }
    log->ops->read_start(log->ctx, &g->read);
}

/* From memory. False: it is too far behind. */
static bool share_read_recent(struct share *g)
{
    const struct topic_log *log = &g->shard->group->log;
    uint64_t end = shard_end(g->shard), next = end;
    uint32_t count = share_room(g), found = 0;
    if (g->next >= end) {
        share_set_live(g, true);
        return true;
    }
    struct msg **msgs = malloc(count * sizeof(struct msg *));
    if (!msgs || log->ops->recent(log->ctx, g->shard->lane, g->next, (struct slice){0}, share_wants, g, count,
                                  msgs, &found, &next) != ST_OK) {
        free(msgs);
        return false;
    }
    while (found > 0 && msgs[found - 1]->offset >= end) /* what is still held back */
        msg_unref(msgs[--found]);
    share_take(g, msgs, found, next < end ? next : end);
    if (g->next >= end)
        share_set_live(g, true);
    return true;
}

/* --- what has come back and is not in memory any more ------------------------------------------------- */

/* Of the tickets to be read, those below `to` that were not found: they cannot be had any more. */
static void share_lost(struct share *g, uint64_t to, enum metric why)
{
    LIST_EACH (node, &g->back) {
        struct share_ticket *t = LIST_OF(node, struct share_ticket, link);
        if (t->msg || t->offset >= to)
            continue;
        share_count(g, why, 1);
        share_ticket_drop(t);
        share_moved(g);
    }
}

/* Both are in the order of offsets. Frees `msgs`. */
static void share_found(struct share *g, struct msg **msgs, uint64_t found)
{
    uint64_t i = 0;
    LIST_EACH (node, &g->back) {
        struct share_ticket *t = LIST_OF(node, struct share_ticket, link);
        while (i < found && msgs[i]->offset < t->offset)
            i++;
        if (i < found && !t->msg && msgs[i]->offset == t->offset)
            t->msg = msg_ref(msgs[i]);
    }
    for (i = 0; i < found; i++)
        msg_unref(msgs[i]);
    free(msgs);
}

static void share_has_fetched(struct store_read *r)
{
    struct share *g = LIST_OF(r, struct share, read);
    g->reading = false;
    if (r->status == ST_GONE) {
        share_lost(g, r->first, M_DROPPED_RETENTION);
    } else if (r->status == ST_CORRUPT) {
        share_lost(g, r->next, M_DROPPED_DAMAGED);
    } else if (r->status == ST_OK) {
        share_found(g, r->msgs, r->found);
        share_lost(g, r->next, M_DROPPED_RETENTION);
    }
    share_part(g);
}

/* From the first of `back`, which is not in memory, on. */
static void share_fetch(struct share *g)
{
    if (!g->reading)
        share_read_log(g, LIST_OF(g->back.next, struct share_ticket, link)->offset,
                       LIST_OF(g->back.prev, struct share_ticket, link)->offset + 1, READ_COUNT_MAX,
                       share_has_fetched);
}

/* What has come back goes first, then what the cursor reads. Once something has been given, the next SETTLE
 * comes here again. */
static void share_pump(struct share *g)
{
    while (!list_empty(&g->back) && share_has_room(g)) {
        struct share_ticket *t = LIST_OF(g->back.next, struct share_ticket, link);
        if (!t->msg) {
            share_fetch(g);
            return;
        }
        if (!share_give_ticket(g, t))
            return;
        metric_add(g->shard->group->metrics, M_SHARE_MOVED, 1);
    }
    uint64_t given = g->given;
    while (!g->live && !g->reading && share_has_room(g) && g->given == given)
        if (!share_read_recent(g))
            share_read_log(g, g->next, shard_end(g->shard), share_room(g), share_has_read);
}

/* --- members come and go ------------------------------------------------------------------------------ */

struct share *share_find(const struct shard *s, struct slice name)
{
    uint64_t hash = hash64(name);
    size_t at = 0;
    struct share *g = hash_slots_first(&s->shares.names, hash, &at);
    while (g && !slice_equal(slice_of(g->name, g->name_len), name))
        g = hash_slots_next(&s->shares.names, hash, &at);
    return g;
}

enum status share_create(struct shard *s, struct slice name, struct share **out)
{
    if (s->shares.names.count >= s->group->limits.share.groups)
        return ST_FULL;
    struct share *g = calloc(1, sizeof *g + name.len);
    if (!g)
        return ST_NO_MEMORY;
    g->shard = s;
    g->hash = hash64(name);
    g->tag = hash64_stable(name);
    g->name_len = name.len;
    memcpy(g->name, name.data, name.len);
    bool shared = topic_share_filter(slice_of(g->name, name.len), &g->filter);
    assert(shared);
    (void)shared;
    list_init(&g->members);
    list_init(&g->out);
    list_init(&g->back);
    share_kept_init(g);
    g->live = true;
    if (hash_slots_reserve(&s->shares.names) != ST_OK ||
        filter_table_link(s->shares.filters, g->filter, &g->entry) != ST_OK) {
        free(g);
        return ST_NO_MEMORY;
    }
    hash_slots_insert(&s->shares.names, g->hash, g);
    list_push(&s->shares.all, &g->link);
    metric_add(s->group->metrics, M_SHARE_GROUPS, 1);
    *out = g;
    return ST_OK;
}

static void share_drop_back(struct share *g)
{
    while (!list_empty(&g->back))
        share_ticket_drop(LIST_OF(g->back.next, struct share_ticket, link));
}

void share_end(struct share *g)
{
    struct shard *s = g->shard;
    share_set_live(g, true);
    g->over = true;
    share_forget(g);
    hash_slots_remove(&s->shares.names, g->hash, g);
    filter_table_unlink(s->shares.filters, &g->entry);
    metric_sub(s->group->metrics, M_SHARE_GROUPS, 1);
    share_drop_back(g);
}

static void share_free(struct share *g)
{
    list_unlink(&g->link);
    share_kept_deinit(g);
    free(g->ready);
    free(g);
}

static void letter_arrived_home(struct mail *mail)
{
    struct share_letter *l = LIST_OF(mail, struct share_letter, mail);
    l->on_answer(l);
}

void share_answer(struct shard *s, struct share_letter *l)
{
    l->mail.on_arrival = letter_arrived_home;
    courier_send(s->group->courier, l->home, &l->mail);
}

/* Only kept members are left, and they are away: what came back is read again when somebody is there. */
static void share_rest(struct share *g)
{
    if (g->live) {
        g->next = shard_end(g->shard);
        share_set_live(g, false);
    }
    LIST_EACH (node, &g->back) {
        struct share_ticket *t = LIST_OF(node, struct share_ticket, link);
        if (t->msg && (t->msg->flags & MSG_UNSTORED)) {
            share_count(g, M_DROPPED_UNSTORED, 1);
            share_ticket_drop(t);
            continue;
        }
        msg_unref(t->msg);
        t->msg = NULL;
    }
    share_save_now(g);
}

void share_part(struct share *g)
{
    struct shard *s = g->shard;
    LIST_EACH (node, &g->members) {
        struct share_member *m = LIST_OF(node, struct share_member, link);
        if (!m->leaving || m->open > 0 || g->reading)
            continue;
        list_unlink(&m->link);
        share_answer(s, m->leaving);
        free(m);
    }
    bool empty = list_empty(&g->members) && !g->reading;
    if (g->member_count > 0)
        share_pump(g);
    else if (empty && g->kept_count > 0)
        share_rest(g);
    else if (empty)
        share_free(g);
}

/* One more may be ready. */
static enum status share_make_room(struct share *g)
{
    if (g->member_count < g->ready_cap)
        return ST_OK;
    uint32_t cap = g->ready_cap ? g->ready_cap * 2 : 4;
    struct share_member **ready = realloc(g->ready, cap * sizeof(struct share_member *));
    if (!ready)
        return ST_NO_MEMORY;
    g->ready = ready;
    g->ready_cap = cap;
    return ST_OK;
}

static enum status member_create(struct shard *s, const struct share_letter *l, struct share_member **out)
{
    struct share *g = share_find(s, l->filter);
    struct share_member *m = calloc(1, sizeof *m);
    struct share_kept *kept = NULL;
    enum status st = m ? ST_OK : ST_NO_MEMORY;
    bool fresh = !g;
    if (st == ST_OK && fresh)
        st = share_create(s, l->filter, &g);
    bool made = fresh && st == ST_OK;
    if (st == ST_OK)
        st = share_make_room(g);
    if (st == ST_OK && l->keep_id)
        st = share_keep(g, l->keep_id, &kept);
    if (st != ST_OK) {
        if (made) {
            share_end(g);
            share_free(g);
        }
        free(m);
        return st;
    }
    *m = (struct share_member){.share = g,
                               .seat = l->seat,
                               .on_give = l->on_give,
                               .loop = l->home,
                               .window = l->window,
                               .kept = kept,
                               .full = true};
    list_init(&m->giving_link);
    list_init(&m->link);
    list_push(&g->members, &m->link);
    g->member_count++;
    *out = m;
    return ST_OK;
}

static void share_join(struct shard *s, struct share_letter *l)
{
    struct share_member *m = NULL;
    l->status = member_create(s, l, &m);
    l->member = m;
    l->next = shard_end(s);
    metric_add(s->group->metrics, l->status == ST_OK ? M_SHARE_MEMBERS : M_SHARE_REFUSED, 1);
    if (m && m->kept)
        share_save_then(m->share, l);
    else
        share_answer(s, l);
}

static void share_leave(struct share_letter *l)
{
    struct share_member *m = l->member;
    struct share *g = m->share;
    m->leaving = l;
    member_judge(m);
    if (m->giving)
        member_send(m);
    metric_sub(g->shard->group->metrics, M_SHARE_MEMBERS, 1);
    g->member_count--;
    if (m->kept)
        share_kept_leaves(g, m->kept, l);
    if (!share_lives(g))
        share_end(g);
    share_part(g);
}

/* The ticket comes back. */
static void ticket_returns(struct share_ticket *t)
{
    struct share *g = t->share;
    t->member->open--;
    g->given--;
    g->given_bytes -= msg_weight(t->msg);
    list_unlink(&t->link);
    metric_sub(g->shard->group->metrics, M_SHARE_GIVEN, 1);
}

/* The member has room now, and the message is somewhere else. */
static void member_goes_on(struct share_member *m)
{
    member_judge(m);
    if (m->leaving)
        share_part(m->share);
    else
        share_pump(m->share);
}

/* A kept session has written down that the message is with it: the group has to know as well. */
static void share_take_ticket(struct share_letter *l)
{
    struct share_ticket *t = l->ticket;
    struct share_member *m = t->member;
    struct share *g = t->share;
    ticket_returns(t);
    share_ticket_drop(t);
    share_save_then(g, l);
    member_goes_on(m);
}

void shard_share(struct shard *s, struct share_letter *l)
{
    struct share_member *m = l->member;
    switch ((enum share_word)l->word) {
    case SHARE_JOIN:
        share_join(s, l);
        break;
    case SHARE_OPEN:
        m->full = false;
        member_judge(m);
        share_pump(m->share);
        share_answer(s, l);
        break;
    case SHARE_FULL:
        m->full = true;
        member_judge(m);
        if (m->giving)
            member_send(m);
        share_answer(s, l);
        break;
    case SHARE_LEAVE:
        share_leave(l);
        break;
    case SHARE_TAKE:
        share_take_ticket(l);
        break;
    case SHARE_RELEASE:
        share_release(s, l);
        break;
    }
}

static void share_put_back(struct share *g, struct share_ticket *t)
{
    struct list *at = &g->back;
    while (at->prev != &g->back && LIST_OF(at->prev, struct share_ticket, link)->offset > t->offset)
        at = at->prev;
    list_push(at, &t->link);
}

void shard_settle(struct shard *s, const struct share_settle *what)
{
    struct share_ticket *t = what->ticket;
    struct share_member *m = t->member;
    struct share *g = t->share;
    (void)s;
    ticket_returns(t);
    if (what->again && share_lives(g)) {
        share_put_back(g, t);
    } else {
        share_ticket_drop(t);
        share_moved(g);
    }
    member_goes_on(m);
}

/* --- life --------------------------------------------------------------------------------------------- */

enum status shard_shares_init(struct shard *s)
{
    static const struct retained_limits no_limits = {UINT64_MAX, UINT64_MAX}; /* by what is in them */
    list_init(&s->shares.all);
    list_init(&s->shares.giving);
    list_init(&s->shares.saving);
    list_init(&s->shares.written);
    list_init(&s->shares.unanswered);
    timer_init(&s->shares.again, shard_on_share_timer);
    enum status st = filter_table_create(&s->shares.filters);
    return st == ST_OK ? retained_create(&no_limits, &s->shares.records) : st;
}

/* All members have left by then, but for a node that could not wait for them. */
void shard_shares_deinit(struct shard *s)
{
    LIST_EACH (node, &s->shares.all) {
        struct share *g = LIST_OF(node, struct share, link);
        LIST_EACH (member, &g->members) {
            free(LIST_OF(member, struct share_member, link));
        }
        share_drop_back(g);
        share_free(g);
    }
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->shares.again);
    retained_destroy(s->shares.records);
    filter_table_destroy(s->shares.filters);
    hash_slots_deinit(&s->shares.names);
}
