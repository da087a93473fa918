/* SUBSCRIBE and UNSUBSCRIBE. SUBACK waits until every filter of the packet is in place in all its lanes
 * (ARCHITECTURE.md 4), so that what is published after SUBACK is delivered. */
#include "gateway/mqtt/inbox.h"
#include "gateway/mqtt/keep.h"

#include <stdlib.h>

/* A SUBACK or UNSUBACK that waits. Subscriptions point to it (their `door`) until they are in place; then,
 * when the session has a record, that must know of them. */
struct pending_suback {
    struct list link; /* keep->subacks: it waits for the record */
    struct keeper_wait wait;
    enum mqtt_type type;
    struct mqtt_conn *conn; /* NULL: the client has gone */
    uint32_t waiting; /* filters not in place yet, and 1 while the packet is being read */
    uint16_t packet_id;
    uint32_t count;
    uint8_t reasons[];
};

/* The Reason String of a SUBACK is about its first refusal; NULL: the code says it all. */
static const char *suback_words(const struct pending_suback *pending)
{
    uint8_t reason = 0;
    for (uint32_t i = 0; i < pending->count && reason < 0x80; i++)
        reason = pending->reasons[i];
    switch (reason) {
    case MQTT_RC_TOPIC_FILTER_INVALID:
        return "no topic filter, or over limit.topic_bytes or limit.topic_levels";
    case MQTT_RC_QUOTA_EXCEEDED:
        return "limit.subscriptions, limit.session_bytes, limit.shared_groups or limit.shared_kept is "
               "reached";
    case MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR:
        return "no such $ topics, or a tg- property that cannot be kept";
    default:
        return NULL;
    }
}

static void suback_send(struct pending_suback *pending)
{
    struct mqtt_conn *c = pending->conn;
    if (c && mqtt_conn_active(c)) {
        struct mqtt_packet p = {.type = pending->type,
                                .suback = {.packet_id = pending->packet_id,
                                           .reasons = slice_of(pending->reasons, pending->count)}};
        mqtt_conn_say(c, &p.suback.props, suback_words(pending));
        mqtt_conn_send(c, &p);
    }
    free(pending);
}

static void begin_if_placed(void *ctx, struct subscription *sub)
{
    const struct subscription_options *o = subscription_options_of(sub);
    (void)ctx;
    if (o->held && !o->door)
        subscription_begin(sub);
}

void mqtt_subscriptions_begin(struct mqtt_conn *c)
{
    session_each(c->session, begin_if_placed, NULL);
}

static void suback_on_kept(struct keeper_wait *w, enum status status)
{
    struct pending_suback *pending = LIST_OF(w, struct pending_suback, wait);
    struct mqtt_conn *c = pending->conn;
    list_unlink(&pending->link);
    if (status != ST_OK) { /* what the client is not told of it does not have when it returns */
        free(pending);
        mqtt_conn_refuse_saying(c, MQTT_RC_QUOTA_EXCEEDED, "the session's record could not be written",
                                M_DISCONNECT_LIMIT);
        return;
    }
    suback_send(pending);
    if (c->session && !c->keep->resend.open)
        mqtt_subscriptions_begin(c);
}

static void suback_done(struct pending_suback *pending)
{
    if (--pending->waiting > 0)
        return;
    struct mqtt_conn *c = pending->conn;
    if (!c || !c->keep || !c->keep->keeper) {
        suback_send(pending);
        return;
    }
    pending->wait.on_kept = suback_on_kept;
    list_init(&pending->link);
    list_push(&c->keep->subacks, &pending->link);
    keeper_want(c->keep->keeper, &pending->wait);
}

void mqtt_on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct pending_suback *pending = subscription_options_of(sub)->door;
    struct mqtt_conn *c = conn;
    (void)replay;
    subscription_set_door(sub, NULL);
    uint32_t index = subscription_options_of(sub)->door_index;
    if (subscription_refused(sub) && !pending && c->state == MQTT_STATE_CLAIMING) {
        mqtt_connect_refuse(c, MQTT_RC_QUOTA_EXCEEDED, "a shared subscription of the session has no room");
        return; /* it stays in the session's record */
    }
    if (subscription_refused(sub) && session_unsubscribe(c->session, subscription_filter(sub)) == ST_OK &&
        pending)
        pending->reasons[index] = c->version == MQTT_V5 ? MQTT_RC_QUOTA_EXCEEDED : 0x80;
    if (pending)
        suback_done(pending);
    else if (c->state == MQTT_STATE_CLAIMING)
        mqtt_resume_placed(c, at);
}

/* A subscription that goes before it was in place (replaced, or unsubscribed at once): its SUBACK need not
 * wait. */
static void suback_let_go(struct subscription *sub)
{
    struct pending_suback *pending = subscription_options_of(sub)->door;
    subscription_set_door(sub, NULL);
    if (pending)
        suback_done(pending);
}

static void suback_forget(void *ctx, struct subscription *sub)
{
    struct pending_suback *pending = subscription_options_of(sub)->door;
    (void)ctx;
    subscription_set_door(sub, NULL);
    if (!pending)
        return;
    pending->conn = NULL;
    suback_done(pending);
}

/* A SUBSCRIBE of the inbox that waits for its place: another takes its place, or it is unsubscribed. */
static bool wish_let_go(struct mqtt_conn *c)
{
    struct pending_suback *pending = c->inbox ? c->inbox->wish.pending : NULL;
    if (!pending)
        return false;
    c->inbox->wish.pending = NULL;
    suback_done(pending);
    return true;
}

void mqtt_subacks_forget(struct mqtt_conn *c)
{
    if (c->inbox && c->inbox->wish.pending)
        c->inbox->wish.pending->conn = NULL;
    wish_let_go(c);
    if (c->session)
        session_each(c->session, suback_forget, NULL);
    while (c->keep && !list_empty(&c->keep->subacks)) {
        struct pending_suback *pending = LIST_OF(c->keep->subacks.next, struct pending_suback, link);
        list_unlink(&pending->link);
        list_unlink(&pending->wait.link);
        free(pending);
    }
}

/* --- the user properties of SUBSCRIBE (PROTOCOL.md 3) ------------------------------------------- */

/* ST_UNSUPPORTED: something that this build does not have, or nonsense. ST_INVALID: tg-from twice. */
static enum status subscribe_start(struct mqtt_conn *c, const struct mqtt_subscribe *p,
                                   struct subscription_options *o, struct place *place, bool *at_cursor)
{
    struct slice name, value;
    size_t at = 0;
    bool given = false;
    place->lane_count = hub_lane_count(c->door->edge->hub);
    while (mqtt_user_property_next(p->props.raw, &at, &name, &value)) {
        if (slice_equal_cstr(name, "tg-mode") && !slice_equal_cstr(value, "all"))
            return ST_UNSUPPORTED;
        if (!slice_equal_cstr(name, "tg-from"))
            continue;
        if (given)
            return ST_INVALID;
        given = true;
        if (slice_equal_cstr(value, "inbox")) {
            *at_cursor = true;
        } else if (slice_equal_cstr(value, "live")) {
            o->start = START_LIVE;
        } else if (slice_equal_cstr(value, "earliest")) {
            o->start = START_EARLIEST;
        } else if (place_time_read(value, &o->start_value)) {
            o->start = START_TIME;
        } else {
            if (place_fold(place, hub_epoch(c->door->edge->hub), value) != ST_OK)
                return ST_UNSUPPORTED;
            o->start = START_AFTER;
            o->after = place;
        }
    }
    return ST_OK;
}

bool mqtt_shared_available(const struct mqtt_conn *c)
{
    return c->door->edge->settings->limit_shared_groups > 0;
}

static uint8_t filter_objection(const struct mqtt_conn *c, struct slice filter, enum start start)
{
    const struct settings *s = c->door->edge->settings;
    struct topic_limits limits = {(uint32_t)s->limit_topic_bytes, (uint32_t)s->limit_topic_levels};
    bool shared = slice_starts_with(filter, slice_cstr("$share/"));
    if (shared && (filter.len > limits.bytes_max || !topic_share_filter(filter, &filter)))
        return MQTT_RC_TOPIC_FILTER_INVALID;
    if (shared && !mqtt_shared_available(c))
        return MQTT_RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;
    if (shared && start != START_LIVE) /* the group has one place, not its members */
        return MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    if (!topic_filter_valid(filter, &limits))
        return MQTT_RC_TOPIC_FILTER_INVALID;
    bool system = topic_system(filter);
    if (topic_internal(filter) && !system && !slice_starts_with(filter, slice_cstr("$user/")))
        return MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    /* Off; it has no past; and it is in no log that a group could have its place in. */
    if (system && (s->sys_interval_ms == 0 || start != START_LIVE || shared))
        return MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    if (!mqtt_conn_may(c, ACL_SUBSCRIBE, filter) ||
        (start != START_LIVE && !mqtt_conn_may(c, ACL_HISTORY, filter)))
        return MQTT_RC_NOT_AUTHORIZED;
    return 0;
}

/* A live subscription that replaces another goes on where that one was, so that nothing is lost between
 * (MQTT-3.8.4-4); where it was nobody knows before it is in place itself. */
static void subscribe_in_place_of(struct mqtt_conn *c, const struct subscription *old,
                                  struct subscription_options *o, struct place *place)
{
    const struct subscription_options *before = subscription_options_of(old);
    unsigned first, count;
    if (o->start != START_LIVE || (before->door && before->start != START_AFTER))
        return;
    if (slice_starts_with(subscription_filter(old), slice_cstr("$share/"))) {
        o->start = START_AFTER; /* in place, as the one before: a record that is made meanwhile has it */
        o->after = NULL;
        return;
    }
    subscription_lanes(old, &first, &count);
    *place = (struct place){.lane_count = hub_lane_count(c->door->edge->hub)};
    for (unsigned i = first; i < first + count; i++)
        place->next[i] = subscription_reached(old, i);
    o->start = START_AFTER;
    o->after = place;
    o->retained_again = o->retained || subscription_walking(old);
}

/* The filter is subscribed, or the reason why not. */
static uint8_t subscribe_filter(struct mqtt_conn *c, struct slice filter,
                                const struct subscription_options *o)
{
    struct pending_suback *pending = o->door;
    struct subscription *sub, *old = session_find(c->session, filter);
    struct subscription_options chosen = *o;
    struct place place;
    bool names_place = o->start == START_AFTER || o->start == START_EARLIEST;
    if (c->keep && !mqtt_keep_has_room(c, filter))
        return MQTT_RC_QUOTA_EXCEEDED; /* limit.session_bytes */
    chosen.held = c->keep != NULL; /* until SUBACK */
    chosen.kept_as = mqtt_shared_name(c);
    if (old) {
        subscribe_in_place_of(c, old, &chosen, &place);
        suback_let_go(old);
    }
    bool followed = old && mqtt_inbox_follows(c, old), goes_on = chosen.start != o->start;
    pending->waiting++;
    switch ((int)session_subscribe(c->session, filter, &chosen, &sub)) {
    case ST_OK:
        if (followed)
            c->inbox->followed = NULL; /* it is no more */
        if (o->qos > 0 && (names_place || (followed && goes_on)) && mqtt_inbox_is_whole(c, filter))
            mqtt_inbox_follow(c, sub);
        c->no_local |= o->no_local;
        return o->qos;
    case ST_FULL:
        pending->waiting--;
        return MQTT_RC_QUOTA_EXCEEDED;
    case ST_INVALID:
        pending->waiting--;
        return MQTT_RC_TOPIC_FILTER_INVALID;
    default:
        pending->waiting--;
        return MQTT_RC_UNSPECIFIED_ERROR;
    }
}

/* --- the inbox: where does it begin? ------------------------------------------------------------ */

/* It goes on at the inbox's cursor when that was asked for, and when nothing is unread there: then that is
 * the present, and nobody can miss what is acknowledged from it on. */
static uint8_t subscribe_found(struct mqtt_conn *c, const struct mqtt_inbox_wish *wish, enum status status,
                               const struct inbox_place *at)
{
    struct slice filter = slice_of(c->inbox->filter, c->inbox->filter_len);
    struct subscription_options o = wish->options;
    struct place place = {.lane_count = hub_lane_count(c->door->edge->hub)};
    if (status != ST_OK && wish->at_cursor)
        return MQTT_RC_UNSPECIFIED_ERROR;
    if (status == ST_OK && (wish->at_cursor || at->unread == 0)) {
        place.next[at->lane] = at->next;
        o.start = START_AFTER;
        o.after = &place;
        o.retained_again = o.retained && !wish->at_cursor;
        o.skipped_from = at->cursor;
        o.skipped_count = at->skipped;
    }
    return subscribe_filter(c, filter, &o);
}

static void inbox_on_found(void *conn, enum status status, const struct inbox_place *at)
{
    struct mqtt_conn *c = conn;
    struct mqtt_inbox_wish wish = c->inbox->wish;
    c->inbox->finding = false;
    c->inbox->wish.pending = NULL;
    if (!wish.pending)
        return;
    uint8_t reason = subscribe_found(c, &wish, status, at);
    wish.pending->reasons[wish.index] = reason >= 0x80 && c->version != MQTT_V5 ? 0x80 : reason;
    suback_done(wish.pending);
}

/* False: no memory. */
static bool subscribe_later(struct mqtt_conn *c, const struct subscription_options *o, bool at_cursor)
{
    struct pending_suback *pending = o->door;
    if (mqtt_inbox_open(c) != ST_OK)
        return false;
    wish_let_go(c);
    pending->waiting++;
    c->inbox->wish = (struct mqtt_inbox_wish){
        .pending = pending, .index = pending->count, .at_cursor = at_cursor, .options = *o};
    if (!c->inbox->finding) { /* else its answer, which is still to come, is as good */
        c->inbox->finding = true;
        inbox_find(c->inbox->cursor, inbox_on_found);
    }
    return true;
}

/* Its reason; what waits for its place counts as granted meanwhile. */
static uint8_t subscribe_one(struct mqtt_conn *c, const struct mqtt_topic_request *r,
                             struct subscription_options *o, bool at_cursor)
{
    uint8_t reason = filter_objection(c, r->filter, o->start);
    if (reason)
        return reason;
    bool whole = mqtt_inbox_is_whole(c, r->filter);
    if (at_cursor && !whole)
        return MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    o->qos = r->qos;
    o->no_local = r->no_local;
    o->retain_as_published = r->retain_as_published;
    o->window = c->flights.max;
    o->door_index = ((const struct pending_suback *)o->door)->count;
    struct subscription *old = session_find(c->session, r->filter);
    /* 3.8.3.1, Retain Handling: 0 always, 1 only if the subscription is new, 2 never. */
    o->retained = r->retain_handling == 0 || (r->retain_handling == 1 && !old);
    bool acknowledges = whole && r->qos > 0 && o->start == START_LIVE && !old;
    if ((at_cursor || acknowledges) && subscribe_later(c, o, at_cursor))
        return o->qos;
    if (at_cursor)
        return MQTT_RC_UNSPECIFIED_ERROR;
    if (whole)
        wish_let_go(c);
    return subscribe_filter(c, r->filter, o);
}

void mqtt_handle_subscribe(struct mqtt_conn *c, const struct mqtt_subscribe *p)
{
    struct mqtt_topic_request request;
    struct subscription_options options = {0};
    struct place place = {0};
    size_t at = 0;
    options.subscription_id = p->props.subscription_id; /* 0: none */
    bool at_cursor = false;
    enum status start = subscribe_start(c, p, &options, &place, &at_cursor);
    if (start == ST_INVALID) { /* as any property that may be there once */
        mqtt_conn_refuse_saying(c, MQTT_RC_PROTOCOL_ERROR, "tg-from is there twice", M_DISCONNECT_PROTOCOL);
        return;
    }
    struct pending_suback *pending = calloc(1, sizeof *pending + p->count);
    if (!pending) {
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    *pending =
        (struct pending_suback){.conn = c, .type = MQTT_SUBACK, .waiting = 1, .packet_id = p->packet_id};
    options.door = pending;
    bool refused = false;
    while (mqtt_topic_next(p, c->version, false, &at, &request)) {
        uint8_t reason = start == ST_OK ? subscribe_one(c, &request, &options, at_cursor)
                                        : MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
        refused = refused || reason >= 0x80;
        /* MQTT 3.1.1, 3.9.3: one failure code. */
        pending->reasons[pending->count++] = reason >= 0x80 && c->version != MQTT_V5 ? 0x80 : reason;
    }
    if (refused && c->version == MQTT_V31) { /* 3.1 has no failure code at all */
        pending->conn = NULL;
        suback_done(pending);
        mqtt_conn_close(c, M_DISCONNECT_PROTOCOL, false);
        return;
    }
    suback_done(pending);
}

void mqtt_handle_unsubscribe(struct mqtt_conn *c, const struct mqtt_subscribe *p)
{
    struct mqtt_topic_request request;
    size_t at = 0;
    struct pending_suback *pending = calloc(1, sizeof *pending + p->count);
    if (!pending) {
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    *pending =
        (struct pending_suback){.conn = c, .type = MQTT_UNSUBACK, .waiting = 1, .packet_id = p->packet_id};
    while (mqtt_topic_next(p, c->version, true, &at, &request)) {
        struct subscription *sub = session_find(c->session, request.filter);
        bool waited = mqtt_inbox_is_whole(c, request.filter) && wish_let_go(c);
        if (sub) {
            suback_let_go(sub);
            mqtt_inbox_leave(c, sub);
        }
        bool ended = sub && session_unsubscribe(c->session, request.filter) == ST_OK;
        pending->reasons[pending->count++] =
            ended || waited ? MQTT_RC_SUCCESS : MQTT_RC_NO_SUBSCRIPTION_EXISTED;
    }
    suback_done(pending);
}
