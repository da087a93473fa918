/* Members of shared subscriptions: the edge's side (the shard's: routing/shard_share.c).
 *
 * A member has a seat in each lane of its filter. What a lane gives is offered to the connection at once.
 * When that has no room the message goes back to the group, and all that comes until the answer to FULL: so
 * no message waits at a connection that cannot take it while another could, and when the seat says OPEN,
 * nothing older is on its way any more, and what it is given is in order.
 *
 *   full --OPEN--> open --no room: FULL--> [what was on its way comes, and goes back] --answer--> full
 *
 * Every message that came by GIVE is settled once: here, or by the door when the client has answered. A seat
 * lives until its LEAVE is answered; what is given to it until then goes back. */
#include "session/hub_private.h"

#include <assert.h>
#include <stdlib.h>

struct seat {
    struct subscription *sub;
    void *member; /* the shard's; NULL: not joined */
    uint16_t lane;
    bool full; /* what comes goes back */
    bool told; /* FULL was the last word; else OPEN */
    bool room; /* there is some again: OPEN is to follow */
    bool moving; /* `gate` is under way */
    bool left;
    uint64_t until_ms; /* left: what LEAVE says */
    uint32_t owed;
    struct share_letter letter; /* JOIN, later LEAVE */
    struct share_letter gate; /* OPEN, FULL */
};

struct seats {
    unsigned pending; /* JOINs under way */
    bool refused, told; /* told: `subscribed` */
    struct place at;
    struct seat seats[]; /* of the channel's lanes */
};

enum status seats_create(struct subscription *sub)
{
    const struct channel *ch = sub->channel;
    struct seats *s = calloc(1, sizeof *s + ch->lane_count * sizeof s->seats[0]);
    if (!s)
        return ST_NO_MEMORY;
    sub->shared = s;
    return ST_OK;
}

static void letter_send(struct seat *seat, struct share_letter *l, enum share_word word,
                        void (*on_answer)(struct share_letter *l))
{
    struct hub *h = seat->sub->channel->hub;
    l->word = (uint8_t)word;
    l->lane = seat->lane;
    l->member = seat->member;
    l->on_answer = on_answer;
    subscription_letter_sent(seat->sub);
    shard_map_share(h->map, h->courier, l);
}

/* --- what comes --------------------------------------------------------------------------------- */

void hub_settle(struct hub *h, unsigned lane, struct share_ticket *ticket, bool again)
{
    shard_map_settle(h->map, h->courier, lane, &(struct share_settle){.ticket = ticket, .again = again});
}

static void gate_move(struct seat *seat);

static void gate_moved(struct share_letter *l)
{
    struct seat *seat = LIST_OF(l, struct seat, gate);
    subscription_letter_back(seat->sub);
    seat->moving = false;
    gate_move(seat);
    subscription_release(seat->sub);
}

/* The next word to the shard, when the one before has been answered. */
static void gate_move(struct seat *seat)
{
    bool open = seat->told && seat->room, full = !seat->told && seat->full;
    if (seat->left || seat->moving || (!open && !full))
        return;
    seat->moving = true;
    seat->told = full;
    if (open)
        seat->full = false;
    letter_send(seat, &seat->gate, open ? SHARE_OPEN : SHARE_FULL, gate_moved);
}

/* FULL goes before what it gives back, or that would come again. */
static void seat_is_full(struct seat *seat, struct share_ticket *ticket)
{
    struct subscription *sub = seat->sub;
    seat->full = true;
    seat->room = false;
    if (list_empty(&sub->waiting))
        list_push(&sub->session->waiting, &sub->waiting);
    gate_move(seat);
    hub_settle(sub->channel->hub, seat->lane, ticket, true);
}

static void seat_offer(struct seat *seat, const struct share_gift *gift)
{
    struct hub *h = seat->sub->channel->hub;
    struct delivery d = {.msg = gift->msg, .ticket = gift->ticket, .live = false};
    if (hub_offer(h, seat->sub, &d) == ST_AGAIN)
        seat_is_full(seat, gift->ticket);
    else if (d.ticket)
        hub_settle(h, seat->lane, d.ticket, false);
}

static void seat_on_give(struct mail *mail)
{
    struct share_give *g = LIST_OF(mail, struct share_give, mail);
    struct seat *seat = g->seat;
    for (uint32_t i = 0; i < g->count; i++) {
        if (seat->left || seat->full)
            hub_settle(seat->sub->channel->hub, g->lane, g->gifts[i].ticket, true);
        else
            seat_offer(seat, &g->gifts[i]);
        msg_unref(g->gifts[i].msg);
    }
    share_give_free(g);
}

/* --- coming and going --------------------------------------------------------------------------- */

void seats_open(struct subscription *sub)
{
    for (unsigned i = 0; i < sub->channel->lane_count; i++) {
        struct seat *seat = &sub->shared->seats[i];
        if (!seat->full)
            continue;
        seat->room = true;
        gate_move(seat);
    }
}

static void seat_has_left(struct share_letter *l)
{
    struct seat *seat = LIST_OF(l, struct seat, letter);
    subscription_letter_back(seat->sub);
    subscription_release(seat->sub);
}

static void seat_say_leave(struct seat *seat)
{
    seat->letter.until_ms = seat->until_ms;
    seat->letter.owed = seat->owed;
    letter_send(seat, &seat->letter, SHARE_LEAVE, seat_has_left);
}

/* Everything is known that `subscribed` tells. */
static void seats_ready(struct subscription *sub)
{
    struct session *s = sub->session;
    bool held = sub->options.held; /* the callback may begin it, too */
    sub->letters++; /* it may end it */
    s->ops->subscribed(s->conn, sub, &sub->shared->at, 0);
    if (sub->session && !held && !sub->shared->refused)
        seats_open(sub);
    sub->letters--;
}

static void seat_joined(struct share_letter *l)
{
    struct seat *seat = LIST_OF(l, struct seat, letter);
    struct subscription *sub = seat->sub;
    struct seats *s = sub->shared;
    subscription_letter_back(sub);
    seat->member = l->member;
    s->refused |= l->status != ST_OK;
    s->at.next[seat->lane] = l->next;
    s->pending--;
    if (seat->left && seat->member)
        seat_say_leave(seat);
    else if (sub->session && !seat->left && s->pending == 0)
        seats_ready(sub);
    subscription_release(sub);
}

void seats_join(struct subscription *sub)
{
    struct channel *ch = sub->channel;
    struct seats *s = sub->shared;
    uint32_t window = sub->options.window / ch->lane_count;
    s->pending = ch->lane_count;
    s->at.lane_count = ch->hub->map->lane_count;
    for (unsigned i = 0; i < s->at.lane_count; i++)
        s->at.next[i] = shard_next_shown(ch->hub->map->lanes[i].shard);
    for (unsigned i = 0; i < ch->lane_count; i++) {
        struct seat *seat = &s->seats[i];
        seat->sub = sub;
        seat->lane = (uint16_t)(ch->first_lane + i);
        seat->full = seat->told = true;
        seat->letter = (struct share_letter){.filter = slice_of(ch->filter, ch->filter_len),
                                             .window = window > 0 ? window : 1,
                                             .keep_id = sub->options.kept_as,
                                             .seat = seat,
                                             .on_give = seat_on_give};
        letter_send(seat, &seat->letter, SHARE_JOIN, seat_joined);
    }
}

void seats_leave(struct subscription *sub, const struct share_leaving *how)
{
    struct slice filter = subscription_filter(sub);
    for (unsigned i = 0; i < sub->channel->lane_count; i++) {
        struct seat *seat = &sub->shared->seats[i];
        if (seat->left)
            continue;
        seat->left = true;
        seat->until_ms = how ? how->until_ms : 0;
        seat->owed = how && how->owed ? how->owed(how->ctx, filter, seat->lane) : 0;
        if (seat->member)
            seat_say_leave(seat);
    }
}

void session_leave_shares(struct session *s, const struct share_leaving *how)
{
    LIST_EACH (node, &s->subscriptions) {
        struct subscription *sub = LIST_OF(node, struct subscription, link);
        if (sub->shared)
            seats_leave(sub, how);
    }
}

/* --- without a seat ----------------------------------------------------------------------------- */

struct share_call {
    struct share_letter letter;
    struct hub *hub;
    void (*on_taken)(void *ctx, uint32_t tag, enum status status);
    void *ctx;
    uint32_t tag;
    uint8_t filter[]; /* RELEASE */
};

static void call_answered(struct share_letter *l)
{
    struct share_call *call = LIST_OF(l, struct share_call, letter);
    call->hub->letters--;
    if (call->on_taken)
        call->on_taken(call->ctx, call->tag, l->status);
    free(call);
}

static void call_send(struct hub *h, struct share_call *call)
{
    call->hub = h;
    call->letter.on_answer = call_answered;
    h->letters++;
    shard_map_share(h->map, h->courier, &call->letter);
}

enum status hub_share_take(struct hub *h, unsigned lane, struct share_ticket *ticket,
                           void (*on_taken)(void *ctx, uint32_t tag, enum status status), void *ctx,
                           uint32_t tag)
{
    struct share_call *call = calloc(1, sizeof *call);
    if (!call)
        return ST_NO_MEMORY;
    *call = (struct share_call){
        .letter = {.word = SHARE_TAKE, .lane = (uint16_t)lane, .ticket = ticket, .status = ST_OK},
        .on_taken = on_taken,
        .ctx = ctx,
        .tag = tag};
    call_send(h, call);
    return ST_OK;
}

void hub_share_release(struct hub *h, struct slice filter, uint64_t kept_as)
{
    unsigned first = 0, count = h->map->lane_count;
    struct slice matched;
    if (!topic_share_filter(filter, &matched))
        return;
    if (topic_filter_partition(matched, count, &first))
        count = 1;
    for (unsigned lane = first; lane < first + count; lane++) {
        struct share_call *call = calloc(1, sizeof *call + filter.len);
        if (!call)
            return;
        memcpy(call->filter, filter.data, filter.len);
        call->letter = (struct share_letter){.word = SHARE_RELEASE,
                                             .lane = (uint16_t)lane,
                                             .filter = slice_of(call->filter, filter.len),
                                             .keep_id = kept_as};
        call_send(h, call);
    }
}

bool subscription_refused(const struct subscription *sub)
{
    return sub->shared && sub->shared->refused;
}
