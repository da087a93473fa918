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
 * points to the member's loop, nor waits for this one. */
#include "routing/shard_private.h"

#include "core/hash.h"
#include "core/pool.h"
#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

enum { STRIDE = 1 << 20, FREE_WEIGHT_MAX = 16 };
enum { READ_COUNT_MAX = 256, READ_BYTES_MAX = 64 << 10, NOT_READY = 0 };

struct share {
    struct shard *shard;
    struct filter_entry entry;
    struct list link; /* shares.all */
    struct list members; /* those that leave too */
    uint32_t member_count; /* that do not leave; 0: the group has ended */
    struct share_member **ready; /* a heap by pass: those that can be given to */
    uint32_t ready_count, ready_cap;
    uint64_t pass; /* of the one that was given to last */
    uint64_t given, given_bytes; /* tickets out */
    struct list back; /* tickets of messages to be given again, by offset */
    bool live; /* all records have been looked at */
    bool reading;
    uint64_t next; /* not live: all below have been looked at */
    struct store_read read;
    uint64_t hash;
    struct slice filter; /* within name */
    size_t name_len;
    uint8_t name[];
};

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
    struct share_letter *leaving; /* LEAVE, to be answered */
    uint64_t pass;
    uint32_t place; /* in share->ready, from 1; NOT_READY */
};

struct share_ticket {
    struct share_member *member;
    struct share *share;
    struct list link; /* share->back */
    struct msg *msg; /* a reference */
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
    return g->ready_count > 0 && g->given < limits->share.given &&
           (g->given == 0 || g->given_bytes < limits->share.given_bytes);
}

static uint64_t msg_weight(const struct msg *m)
{
    return (uint64_t)m->topic_len + m->payload_len + m->props_len;
}

/* False: no memory. The ticket is not in `back`. */
static bool share_give_ticket(struct share *g, struct share_ticket *t)
{
    struct share_member *m = g->ready[0];
    struct share_give *letter = member_letter(m);
    if (!letter)
        return false;
    letter->gifts[letter->count++] = (struct share_gift){.msg = msg_ref(t->msg), .ticket = t};
    t->member = m;
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

static void ticket_drop(struct share_ticket *t)
{
    msg_unref(t->msg);
    free(t);
}

static bool share_give_new(struct share *g, struct msg *m)
{
    struct share_ticket *t = share_has_room(g) ? malloc(sizeof *t) : NULL;
    if (!t)
        return false;
    *t = (struct share_ticket){.share = g, .msg = msg_ref(m)};
    list_init(&t->link);
    if (share_give_ticket(g, t))
        return true;
    ticket_drop(t);
    return false;
}

static void share_count(struct share *g, enum metric why, uint64_t count)
{
    metric_add(g->shard->group->metrics, M_OFFERED, count);
    metric_add(g->shard->group->metrics, why, count);
}

static void share_set_live(struct share *g, bool live)
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
static void share_part(struct share *g);

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
        if (g->next == next && !share_give_new(g, msgs[i]))
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
static void share_read_log(struct share *g)
{
    const struct topic_log *log = &g->shard->group->log;
    struct slice inbox;
    g->reading = true;
    g->read = (struct store_read){.lane = g->shard->lane,
                                  .from = g->next,
                                  .to = shard_end(g->shard),
                                  .count_max = share_room(g),
                                  .bytes_max = READ_BYTES_MAX,
                                  .wants = share_wants,
                                  .wants_ctx = g,
                                  .home = courier_loop(g->shard->group->courier),
                                  .on_done = share_has_read};
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

/* What has come back goes first, then what the cursor reads. Once something has been given, the next SETTLE
 * comes here again. */
static void share_pump(struct share *g)
{
    while (!list_empty(&g->back) && share_has_room(g)) {
        struct share_ticket *t = LIST_OF(g->back.next, struct share_ticket, link);
        if (!share_give_ticket(g, t))
            return;
        list_unlink(&t->link);
        metric_add(g->shard->group->metrics, M_SHARE_MOVED, 1);
    }
    uint64_t given = g->given;
    while (!g->live && !g->reading && share_has_room(g) && g->given == given)
        if (!share_read_recent(g))
            share_read_log(g);
}

/* --- members come and go ------------------------------------------------------------------------------ */

static struct share *share_find(const struct shard *s, struct slice name)
{
    uint64_t hash = hash64(name);
    size_t at = 0;
    struct share *g = hash_slots_first(&s->shares.names, hash, &at);
    while (g && !slice_equal(slice_of(g->name, g->name_len), name))
        g = hash_slots_next(&s->shares.names, hash, &at);
    return g;
}

static enum status share_create(struct shard *s, struct slice name, struct share **out)
{
    if (s->shares.names.count >= s->group->limits.share.groups)
        return ST_FULL;
    struct share *g = calloc(1, sizeof *g + name.len);
    if (!g)
        return ST_NO_MEMORY;
    g->shard = s;
    g->hash = hash64(name);
    g->name_len = name.len;
    memcpy(g->name, name.data, name.len);
    bool shared = topic_share_filter(slice_of(g->name, name.len), &g->filter);
    assert(shared);
    (void)shared;
    list_init(&g->members);
    list_init(&g->back);
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
    while (!list_empty(&g->back)) {
        struct share_ticket *t = LIST_OF(g->back.next, struct share_ticket, link);
        list_unlink(&t->link);
        ticket_drop(t);
    }
}

/* Nobody is left to be given to, and a new member makes a new group. */
static void share_end(struct share *g)
{
    struct shard *s = g->shard;
    share_set_live(g, true);
    hash_slots_remove(&s->shares.names, g->hash, g);
    filter_table_unlink(s->shares.filters, &g->entry);
    metric_sub(s->group->metrics, M_SHARE_GROUPS, 1);
    share_drop_back(g);
}

static void share_free(struct share *g)
{
    list_unlink(&g->link);
    free(g->ready);
    free(g);
}

static void letter_arrived_home(struct mail *mail)
{
    struct share_letter *l = LIST_OF(mail, struct share_letter, mail);
    l->on_answer(l);
}

static void letter_answer(struct shard *s, struct share_letter *l)
{
    l->mail.on_arrival = letter_arrived_home;
    courier_send(s->group->courier, l->home, &l->mail);
}

/* Members that leave and have nothing out any more are gone; then the group goes on, or is gone too. */
static void share_part(struct share *g)
{
    struct shard *s = g->shard;
    LIST_EACH (node, &g->members) {
        struct share_member *m = LIST_OF(node, struct share_member, link);
        if (!m->leaving || m->open > 0 || g->reading)
            continue;
        list_unlink(&m->link);
        letter_answer(s, m->leaving);
        free(m);
    }
    if (g->member_count > 0)
        share_pump(g);
    else if (list_empty(&g->members) && !g->reading)
        share_free(g);
}

static enum status member_create(struct shard *s, const struct share_letter *l, struct share_member **out)
{
    struct share *g = share_find(s, l->filter);
    struct share_member *m = calloc(1, sizeof *m);
    enum status st = m ? ST_OK : ST_NO_MEMORY;
    bool fresh = !g;
    if (st == ST_OK && fresh)
        st = share_create(s, l->filter, &g);
    if (st == ST_OK && g->member_count == g->ready_cap) {
        uint32_t cap = g->ready_cap ? g->ready_cap * 2 : 4;
        struct share_member **ready = realloc(g->ready, cap * sizeof(struct share_member *));
        st = ready ? ST_OK : ST_NO_MEMORY;
        if (ready) {
            g->ready = ready;
            g->ready_cap = cap;
        } else if (fresh) {
            share_end(g);
            share_free(g);
        }
    }
    if (st != ST_OK) {
        free(m);
        return st;
    }
    *m = (struct share_member){.share = g,
                               .seat = l->seat,
                               .on_give = l->on_give,
                               .loop = l->home,
                               .window = l->window,
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
    letter_answer(s, l);
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
    if (--g->member_count == 0)
        share_end(g);
    share_part(g);
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
        letter_answer(s, l);
        break;
    case SHARE_FULL:
        m->full = true;
        member_judge(m);
        if (m->giving)
            member_send(m);
        letter_answer(s, l);
        break;
    case SHARE_LEAVE:
        share_leave(l);
        break;
    }
}

static void share_put_back(struct share *g, struct share_ticket *t)
{
    struct list *at = &g->back;
    while (at->prev != &g->back && LIST_OF(at->prev, struct share_ticket, link)->msg->offset > t->msg->offset)
        at = at->prev;
    list_push(at, &t->link);
}

void shard_settle(struct shard *s, const struct share_settle *what)
{
    struct share_ticket *t = what->ticket;
    struct share_member *m = t->member;
    struct share *g = t->share;
    m->open--;
    g->given--;
    g->given_bytes -= msg_weight(t->msg);
    metric_sub(s->group->metrics, M_SHARE_GIVEN, 1);
    if (what->again && g->member_count > 0)
        share_put_back(g, t);
    else
        ticket_drop(t);
    member_judge(m);
    if (m->leaving)
        share_part(g);
    else
        share_pump(g);
}

/* --- life --------------------------------------------------------------------------------------------- */

enum status shard_shares_init(struct shard *s)
{
    list_init(&s->shares.all);
    list_init(&s->shares.giving);
    return filter_table_create(&s->shares.filters);
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
    filter_table_destroy(s->shares.filters);
    hash_slots_deinit(&s->shares.names);
}
