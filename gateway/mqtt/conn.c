/* One connection: bytes in, timers, closing.
 *
 * Input is read into one buffer of the door and parsed in place; only an incomplete packet at its end is kept
 * by the connection, so an idle one owns no buffer at all.
 *
 * There is one timer a connection. It is armed for the earliest of its deadlines (CONNECT, keep alive,
 * stalled output, lingering) and, when it fires, looks which of them has really come: traffic moves deadlines
 * without touching the wheel. */
#include "gateway/mqtt/keep.h"

#include "core/logging.h"
#include "gateway/drain.h"
#include "gateway/gate.h"
#include "gateway/mqtt/afterlife.h"
#include "gateway/mqtt/inbox.h"
#include "gateway/mqtt/will.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINGER_MS = 1000 };

static void conn_on_event(struct loop_watch *w, uint32_t events);
static void conn_on_timer(struct timer *t);

static uint64_t conn_now(const struct mqtt_conn *c)
{
    return loop_now_ms(c->door->edge->loop);
}

static struct metrics *conn_metrics(const struct mqtt_conn *c)
{
    return c->door->edge->metrics;
}

/* --- life --------------------------------------------------------------------------------------- */

void mqtt_conn_open(struct mqtt_door *d, struct stream *io, struct bucket_place *place, struct principal *who,
                    bool nameless)
{
    struct mqtt_conn *c = calloc(1, sizeof *c);
    if (!c) {
        gate_leave(place);
        stream_close(io);
        principal_unref(who);
        return;
    }
    c->door = d;
    c->principal = who ? who : auth_anonymous(d->edge->auth);
    c->address_place = place;
    c->nameless = nameless;
    c->reading = true;
    c->client_packet_max = UINT32_MAX;
    c->io = *io;
    c->watch = (struct loop_watch){.fd = io->fd, .on_event = conn_on_event};
    outq_init(&c->out, (uint32_t)d->edge->settings->out_bytes_max);
    buf_init(&c->in, (size_t)d->packet_bytes_max + MQTT_READ_BYTES); /* and what follows in the same read */
    buf_init(&c->client_id, 65535);
    list_init(&c->link);
    timer_init(&c->timer, conn_on_timer);
    if (loop_watch_add(d->edge->loop, &c->watch, EPOLLIN) != ST_OK) {
        gate_leave(place);
        stream_close(&c->io);
        principal_unref(c->principal);
        free(c);
        return;
    }
    c->last_in_ms = conn_now(c);
    c->last_progress_ms = c->last_in_ms;
    c->state_deadline_ms = c->last_in_ms + d->edge->settings->mqtt_connect_timeout_ms;
    mqtt_conn_rearm(c);
    list_push(&d->conns, &c->link);
    atomic_fetch_add(&d->edge->facts->connections, 1);
    metric_add(d->edge->metrics, M_CONNECTIONS_MQTT, 1);
}

static void claim_released(struct claim *claim)
{
    struct mqtt_conn *c = LIST_OF(claim, struct mqtt_conn, claim);
    c->letters--;
    mqtt_conn_free_if_done(c);
}

void mqtt_claim_return(struct mqtt_conn *c)
{
    if (!c->claimed)
        return;
    c->claimed = false;
    c->claim.on_released = claim_released;
    c->letters++;
    registry_release(c->door->edge->registry, &c->claim);
}

void mqtt_conn_detached(struct mqtt_conn *c)
{
    if (c->will) { /* not due yet */
        afterlife_add(c->door->afterlife, c->keep->name, c->will);
        c->will = NULL;
    }
    mqtt_claim_return(c);
    mqtt_conn_free_if_done(c);
}

static void conn_will_published(struct publish *p)
{
    struct mqtt_conn *c = p->owner;
    publish_free(p); /* what became of it is counted; there is nobody to be told */
    c->letters--;
    if (c->keep)
        mqtt_keep_close(c);
    else
        mqtt_conn_detached(c);
}

/* The will of a connection that ends without a goodbye. True: it is under way, and the rest follows behind
 * it. One that waits stays in c->will. */
static bool conn_will_leaves(struct mqtt_conn *c)
{
    struct mqtt_will *will = c->will;
    struct edge *e = c->door->edge;
    if (!will || !c->established) {
        mqtt_will_forget(c);
        return false;
    }
    uint64_t delay_s = will->delay_s, expiry_s = c->keep ? c->keep->expiry_s : 0;
    delay_s = expiry_s != RECORD_NEVER && expiry_s < delay_s ? expiry_s : delay_s;
    if (delay_s > 0) {
        will->due_ms = loop_wall_ms(e->loop) + delay_s * 1000;
        return false;
    }
    c->will = NULL;
    if (c->keep)
        mqtt_will_identify(e, will, c->keep->session_incarnation, keeper_attachment(c->keep->keeper));
    c->letters++;
    if (mqtt_will_publish(e, will, session_id(c->session), c, conn_will_published) == ST_OK)
        return true;
    c->letters--;
    return false;
}

/* Session and identifier go back; what is on the way comes back to a closed connection. */
static void conn_detach(struct mqtt_conn *c)
{
    mqtt_subacks_forget(c);
    bool leaving = conn_will_leaves(c);
    mqtt_shared_leave(c);
    if (c->keep)
        mqtt_keep_end(c);
    mqtt_inbox_end(c);
    session_end(c->session);
    c->session = NULL;
    if (leaving)
        return;
    if (c->keep)
        mqtt_keep_close(c);
    else
        mqtt_claim_return(c);
}

static void conn_close_socket(struct mqtt_conn *c)
{
    struct edge *e = c->door->edge;
    loop_watch_remove(e->loop, &c->watch);
    stream_close(&c->io);
    timer_cancel(loop_timers(e->loop), &c->timer);
    metric_sub(e->metrics, M_OUT_QUEUE_BYTES, c->queued_counted);
    c->queued_counted = 0;
    outq_deinit(&c->out);
    buf_deinit(&c->in);
    metric_sub(e->metrics, M_UNACKED_MQTT, c->flights.count);
    metric_add(e->metrics, M_RETURNED, c->flights.count);
    flights_deinit(&c->flights);
    received_deinit(&c->received);
    aliases_deinit(&c->aliases_in);
    aliases_deinit(&c->aliases_out);
    mqtt_connect_forget(c);
    auth_abandon(c->check);
    c->check = NULL;
    gate_leave(c->address_place);
    gate_leave(c->user_place);
    c->address_place = c->user_place = NULL;
    c->state = MQTT_STATE_DEAD;
    list_unlink(&c->link);
    list_push(&c->door->dead, &c->link);
    atomic_fetch_sub(&e->facts->connections, 1);
    metric_sub(e->metrics, M_CONNECTIONS_MQTT, 1);
    mqtt_conn_free_if_done(c);
}

void mqtt_conn_free_if_done(struct mqtt_conn *c)
{
    if (c->state != MQTT_STATE_DEAD || c->publish_letters > 0 || c->letters > 0 || c->in_event)
        return;
    list_unlink(&c->link);
    mqtt_keep_free(c);
    mqtt_will_forget(c);
    free(c->open);
    free(c->access);
    buf_deinit(&c->client_id);
    principal_unref(c->principal);
    free(c);
}

void mqtt_conn_close(struct mqtt_conn *c, enum metric why, bool now)
{
    if (c->state == MQTT_STATE_DEAD)
        return;
    if (c->state < MQTT_STATE_CLOSING) {
        metric_add(conn_metrics(c), why, 1);
        c->state = MQTT_STATE_CLOSING;
        c->state_deadline_ms = conn_now(c) + LINGER_MS;
        c->reading = false;
        conn_detach(c);
    }
    if (now) {
        conn_close_socket(c);
        return;
    }
    mqtt_conn_rewatch(c);
    mqtt_conn_rearm(c);
    mqtt_conn_dirty(c);
}

void mqtt_conn_say(const struct mqtt_conn *c, struct mqtt_props *props, const char *words)
{
    if (!words || !c->problem_information)
        return;
    props->present |= MQTT_HAS_REASON_STRING;
    props->reason_string = slice_cstr(words);
}

void mqtt_conn_refuse_saying(struct mqtt_conn *c, uint8_t reason, const char *words, enum metric why)
{
    if (c->state >= MQTT_STATE_CLOSING)
        return;
    if (c->version == MQTT_V5 && c->state == MQTT_STATE_CONNECTED) {
        struct mqtt_packet p = {.type = MQTT_DISCONNECT, .reasoned = {.reason = reason}};
        mqtt_conn_say(c, &p.reasoned.props, words);
        mqtt_conn_send(c, &p);
    }
    mqtt_conn_close(c, why, false);
}

void mqtt_conn_refuse(struct mqtt_conn *c, uint8_t reason, enum metric why)
{
    mqtt_conn_refuse_saying(c, reason, NULL, why);
}

/* Another server cannot be named: the session is here. So 0x8B, not 0x9C or 0x9D (MQTT 5.0, 3.14.2.1); when
 * to come again is a user property, as `retry_ms` of a WebSocket's bye. */
static void conn_tell_drain(struct mqtt_conn *c)
{
    struct mqtt_packet p = {.type = MQTT_DISCONNECT, .reasoned = {.reason = MQTT_RC_SERVER_SHUTTING_DOWN}};
    char pair[32] = "\x26\0\x08retry_ms\0";
    const size_t value = 1 + 2 + 8 + 2;
    int len = snprintf(pair + value, sizeof pair - value, "%u",
                       drain_retry_ms(c->door->drain_spread_ms, c->door->drain_told++));
    pair[value - 1] = (char)len;
    p.reasoned.props.present = MQTT_HAS_USER_PROPERTY;
    p.reasoned.props.raw = slice_of(pair, value + (size_t)len);
    mqtt_conn_send(c, &p);
}

void mqtt_conn_drain_step(struct mqtt_conn *c)
{
    if (!c->draining || c->state >= MQTT_STATE_CLOSING || c->open_head != c->open_tail)
        return;
    if (c->version == MQTT_V5 && c->state == MQTT_STATE_CONNECTED)
        conn_tell_drain(c);
    mqtt_conn_close(c, M_DISCONNECT_SERVER, false);
}

/* --- output ------------------------------------------------------------------------------------- */

void mqtt_conn_send_bytes(struct mqtt_conn *c, struct slice bytes)
{
    if (c->state >= MQTT_STATE_LINGERING || c->broken)
        return;
    metric_add(conn_metrics(c), M_PACKETS_OUT, 1);
    if (outq_put(&c->out, bytes) != ST_OK)
        c->broken = true;
    mqtt_conn_dirty(c);
}

/* What a packet has to say beside what it is for. */
static struct mqtt_props *packet_words(struct mqtt_packet *p)
{
    switch ((int)p->type) {
    case MQTT_CONNACK:
        return &p->connack.props;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return &p->ack.props;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        return &p->suback.props;
    case MQTT_DISCONNECT:
        return &p->reasoned.props;
    default:
        return NULL;
    }
}

/* Encodes into the door's scratch space, without its words if they make it too large (MQTT-3.2.2-19, -3.4.2-2
 * and so on). False: it is too large for the client all the same, or there is no memory. */
static bool conn_encode(struct mqtt_conn *c, const struct mqtt_packet *p)
{
    struct buf *scratch = &c->door->scratch;
    struct mqtt_packet bare = *p;
    struct mqtt_props *words = packet_words(&bare);
    buf_clear(scratch);
    if (mqtt_encode(p, c->version ? c->version : MQTT_V311, scratch) != ST_OK)
        return false;
    if (scratch->len <= c->client_packet_max)
        return true;
    if (!words || !words->present)
        return false;
    words->present &= ~(uint32_t)(MQTT_HAS_REASON_STRING | MQTT_HAS_RESPONSE_INFO);
    buf_clear(scratch);
    return mqtt_encode(&bare, c->version, scratch) == ST_OK && scratch->len <= c->client_packet_max;
}

void mqtt_conn_send(struct mqtt_conn *c, const struct mqtt_packet *p)
{
    static const uint8_t too_large[] = {MQTT_DISCONNECT << 4, 1, MQTT_RC_PACKET_TOO_LARGE};
    if (conn_encode(c, p)) {
        mqtt_conn_send_bytes(c, buf_slice(&c->door->scratch));
        return;
    }
    /* It must not be sent (MQTT-3.1.2-24), and the client waits for it. */
    if (c->version == MQTT_V5 && c->state == MQTT_STATE_CONNECTED && sizeof too_large <= c->client_packet_max)
        mqtt_conn_send_bytes(c, slice_of(too_large, sizeof too_large));
    c->broken = true;
    mqtt_conn_dirty(c);
}

void mqtt_conn_rewatch(struct mqtt_conn *c)
{
    bool hears = c->state == MQTT_STATE_LINGERING || mqtt_conn_hears(c);
    bool waits = c->out.bytes > 0 && list_empty(&c->out.dirty);
    loop_watch_set(c->door->edge->loop, &c->watch, stream_events(&c->io, hears, waits));
}

static void conn_flushed(struct mqtt_conn *c)
{
    if (c->state == MQTT_STATE_CLOSING) {
        stream_shut(&c->io);
        c->state = MQTT_STATE_LINGERING;
        mqtt_conn_rewatch(c);
    }
}

static void conn_count_queue(struct mqtt_conn *c)
{
    metric_add(conn_metrics(c), M_OUT_QUEUE_BYTES, (uint64_t)c->out.bytes - c->queued_counted);
    c->queued_counted = c->out.bytes;
}

bool mqtt_conn_has_room(struct mqtt_conn *c, size_t len)
{
    if (outq_has_room(&c->out, len))
        return true;
    if (c->queued_counted > 0)
        return false; /* its socket took not all the last time */
    size_t sent;
    if (outq_flush(&c->out, &c->io, &sent) == ST_CLOSED)
        return false; /* the flush at the turn's end hears it again, and may close */
    metric_add(conn_metrics(c), M_BYTES_OUT_MQTT, sent);
    conn_count_queue(c);
    c->last_progress_ms = conn_now(c);
    return outq_has_room(&c->out, len);
}

void mqtt_conn_has_got_room(struct mqtt_conn *c)
{
    if (c->keep && c->keep->resend.open)
        mqtt_resend_go(c);
    if (c->session)
        session_room(c->session);
}

void mqtt_conn_flush(struct mqtt_conn *c)
{
    size_t sent;
    bool was_empty = c->queued_counted == 0; /* after the flush before */
    bool was_hearing = c->watch.events & EPOLLIN;
    enum status st = outq_flush(&c->out, &c->io, &sent);
    metric_add(conn_metrics(c), M_BYTES_OUT_MQTT, sent);
    conn_count_queue(c);
    if (st == ST_CLOSED || c->broken) {
        mqtt_conn_close(c, c->broken ? M_DISCONNECT_LIMIT : M_DISCONNECT_NETWORK, true);
        return;
    }
    if (sent > 0 || was_empty)
        c->last_progress_ms = conn_now(c);
    if (!was_hearing && mqtt_conn_hears(c))
        c->last_in_ms = conn_now(c); /* it could not be heard meanwhile */
    mqtt_conn_rewatch(c);
    if (st == ST_AGAIN)
        mqtt_conn_rearm(c);
    else
        conn_flushed(c);
    if (c->session && c->out.bytes <= c->out.bytes_max / 2)
        mqtt_conn_has_got_room(c);
}

/* --- timers ------------------------------------------------------------------------------------- */

/* Only what a flush has left counts: what this turn has queued was not offered to the socket yet. */
static uint64_t conn_stall_ms(const struct mqtt_conn *c)
{
    return c->queued_counted > 0 ? c->last_progress_ms + c->door->edge->settings->out_stall_ms : UINT64_MAX;
}

static uint64_t conn_deadline(const struct mqtt_conn *c)
{
    uint64_t due = UINT64_MAX;
    if (c->state != MQTT_STATE_CONNECTED)
        due = c->state_deadline_ms;
    else if (c->keep_alive_ms && mqtt_conn_hears(c))
        due = c->last_in_ms + c->keep_alive_ms;
    else if (c->rate_until_ms)
        due = c->rate_until_ms;
    uint64_t stall = conn_stall_ms(c), left = auth_left_ms(c->door->edge->auth, c->principal);
    if (c->state == MQTT_STATE_CONNECTED && left < UINT64_MAX && conn_now(c) + left < due)
        due = conn_now(c) + left;
    return stall < due ? stall : due;
}

void mqtt_conn_rearm(struct mqtt_conn *c)
{
    uint64_t due = conn_deadline(c);
    struct timer_wheel *wheel = loop_timers(c->door->edge->loop);
    if (due == UINT64_MAX)
        timer_cancel(wheel, &c->timer);
    else if (!timer_armed(&c->timer) || due < c->timer.due_ms)
        timer_arm(wheel, &c->timer, due);
}

/* What waits behind the rate is handled; it may close the connection under our feet. */
static void conn_rate_over(struct mqtt_conn *c)
{
    c->rate_until_ms = 0;
    c->in_event = true;
    mqtt_publish_unpause(c);
    if (c->state < MQTT_STATE_CLOSING)
        mqtt_conn_rearm(c);
    c->in_event = false;
    mqtt_conn_free_if_done(c);
}

static void conn_on_timer(struct timer *t)
{
    struct mqtt_conn *c = LIST_OF(t, struct mqtt_conn, timer);
    if (conn_now(c) < conn_deadline(c)) {
        mqtt_conn_rearm(c);
        return;
    }
    if (c->state == MQTT_STATE_CONNECTED && c->rate_until_ms && conn_now(c) >= c->rate_until_ms)
        conn_rate_over(c);
    else if (c->state == MQTT_STATE_CONNECTED && auth_left_ms(c->door->edge->auth, c->principal) == 0)
        mqtt_conn_refuse(c, MQTT_RC_MAXIMUM_CONNECT_TIME, M_DISCONNECT_EXPIRED);
    else if (c->state == MQTT_STATE_CONNECTED && conn_now(c) < conn_stall_ms(c))
        mqtt_conn_refuse(c, MQTT_RC_KEEP_ALIVE_TIMEOUT, M_DISCONNECT_TIMEOUT);
    else
        mqtt_conn_close(c, M_DISCONNECT_TIMEOUT, true);
}

/* --- input -------------------------------------------------------------------------------------- */

static void conn_goodbye(struct mqtt_conn *c, const struct mqtt_reasoned *p)
{
    bool expires = p->props.present & MQTT_HAS_SESSION_EXPIRY;
    bool had_expiry = c->keep && c->keep->expiry_s > 0;
    if (expires && p->props.session_expiry_s > 0 && !had_expiry) { /* MQTT-3.1.2.11.2, MQTT-3.14.2.2.2 */
        mqtt_conn_refuse_saying(c, MQTT_RC_PROTOCOL_ERROR, "the session expiry interval was 0 in CONNECT",
                                M_DISCONNECT_PROTOCOL);
        return;
    }
    if (expires && c->keep)
        c->keep->expiry_s = mqtt_expiry_allowed(c, p->props.session_expiry_s);
    if (p->reason == MQTT_RC_SUCCESS)
        mqtt_will_forget(c); /* MQTT-3.14.4-3; any other reason, 0x04 too, lets it out */
    mqtt_conn_close(c, M_DISCONNECT_CLIENT, true);
}

static void conn_handle(struct mqtt_conn *c, const struct mqtt_packet *p)
{
    if (c->state == MQTT_STATE_NEW) {
        if (p->type == MQTT_CONNECT)
            mqtt_handle_connect(c, &p->connect);
        else
            mqtt_conn_close(c, M_DISCONNECT_PROTOCOL, true); /* MQTT-3.1.0-1 */
        return;
    }
    switch ((int)p->type) {
    case MQTT_PUBLISH:
        mqtt_handle_publish(c, &p->publish);
        return;
    case MQTT_PUBACK:
        mqtt_handle_puback(c, &p->ack);
        return;
    case MQTT_PUBREC:
        mqtt_handle_pubrec(c, &p->ack);
        return;
    case MQTT_PUBREL:
        mqtt_handle_pubrel(c, &p->ack);
        return;
    case MQTT_PUBCOMP:
        mqtt_handle_pubcomp(c, &p->ack);
        return;
    case MQTT_SUBSCRIBE:
        mqtt_handle_subscribe(c, &p->subscribe);
        return;
    case MQTT_UNSUBSCRIBE:
        mqtt_handle_unsubscribe(c, &p->subscribe);
        return;
    case MQTT_PINGREQ: {
        static const uint8_t pong[] = {0xD0, 0x00};
        mqtt_conn_send_bytes(c, slice_of(pong, sizeof pong));
        return;
    }
    case MQTT_DISCONNECT:
        conn_goodbye(c, &p->reasoned);
        return;
    default: /* MQTT-3.1.0-2, MQTT-4.12.0-7 */
        mqtt_conn_refuse_saying(c, MQTT_RC_PROTOCOL_ERROR,
                                p->type == MQTT_CONNECT ? "a second CONNECT"
                                                        : "AUTH, but CONNECT named no authentication method",
                                M_DISCONNECT_PROTOCOL);
    }
}

/* A CONNECT that was understood so far is answered: in 5.0 by the reason (4.13), before that where there is a
 * return code for it (3.1.1: MQTT-3.1.2-2, MQTT-3.1.3-8). Anything else is not MQTT. */
static void conn_bad_connect(struct mqtt_conn *c, const struct mqtt_packet *p, uint8_t reason)
{
    uint8_t version = p->type == MQTT_CONNECT ? p->connect.version : 0;
    if (version == MQTT_V5 || reason == MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION ||
        (version != 0 && reason == MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID)) {
        struct mqtt_packet answer = {.type = MQTT_CONNACK, .connack = {.reason = reason}};
        c->version = version ? version : MQTT_V311;
        mqtt_conn_send(c, &answer);
    }
    metric_add(conn_metrics(c), M_CONNECTS_REFUSED_MQTT, 1);
    mqtt_conn_close(c, M_DISCONNECT_PROTOCOL, false);
}

static const char *type_name(uint8_t type)
{
    static const char *const names[] = {"a packet of type 0",
                                        "CONNECT",
                                        "CONNACK",
                                        "PUBLISH",
                                        "PUBACK",
                                        "PUBREC",
                                        "PUBREL",
                                        "PUBCOMP",
                                        "SUBSCRIBE",
                                        "SUBACK",
                                        "UNSUBSCRIBE",
                                        "UNSUBACK",
                                        "PINGREQ",
                                        "PINGRESP",
                                        "DISCONNECT",
                                        "AUTH"};
    return names[type & 0x0f];
}

/* A packet after CONNECT that the decoder has refused. A second CONNECT is wrong as such (MQTT-3.1.0-2);
 * DISCONNECT has no code for what it holds. */
static void conn_bad_later(struct mqtt_conn *c, uint8_t type, uint8_t reason)
{
    char words[96] = "";
    if (type == MQTT_CONNECT) {
        reason = MQTT_RC_PROTOCOL_ERROR;
        snprintf(words, sizeof words, "a second CONNECT");
    } else if (reason == MQTT_RC_PACKET_TOO_LARGE) {
        snprintf(words, sizeof words, "%s over the maximum packet size, or with too many filters",
                 type_name(type));
    } else if (reason == MQTT_RC_MALFORMED_PACKET) {
        snprintf(words, sizeof words, "%s is malformed", type_name(type));
    } else if (reason == MQTT_RC_PROTOCOL_ERROR) {
        snprintf(words, sizeof words, "%s is not allowed, or not so", type_name(type));
    }
    mqtt_conn_refuse_saying(c, reason, words[0] ? words : NULL, M_DISCONNECT_PROTOCOL);
}

static void conn_bad_packet(struct mqtt_conn *c, const struct mqtt_packet *p, uint8_t reason)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    if (log_permitted(&limit, &held))
        log_info("MQTT packet refused client=%.*s reason=0x%02x repeated=%lu", (int)c->client_id.len,
                 (const char *)c->client_id.data, reason, (unsigned long)held);
    if (c->state == MQTT_STATE_NEW)
        conn_bad_connect(c, p, reason);
    else
        conn_bad_later(c, (uint8_t)p->type, reason);
}

/* Parses what is there. Returns the bytes taken; the rest is an incomplete packet (or the connection is
 * closing). */
static size_t conn_parse(struct mqtt_conn *c, struct slice input)
{
    struct mqtt_decode_rules rules = {.version = c->version, .packet_bytes_max = c->door->packet_bytes_max};
    size_t taken = 0;
    uint64_t packets = 0;
    while (taken < input.len && c->state < MQTT_STATE_CLOSING && c->state != MQTT_STATE_CLAIMING &&
           c->state != MQTT_STATE_CHECKING && !c->publish_paused && !c->draining && !c->broken) {
        struct mqtt_packet p;
        size_t used;
        uint8_t reason;
        rules.version = c->version;
        enum status st = mqtt_decode(slice_from(input, taken), &rules, &p, &used, &reason);
        if (st == ST_AGAIN)
            break;
        if (st != ST_OK) {
            conn_bad_packet(c, &p, reason);
            break;
        }
        if (c->keep && mqtt_keep_holds(c, &p)) {
            c->publish_paused = true; /* until the record is written: mqtt_publish_unpause */
            mqtt_conn_rewatch(c);
            break;
        }
        if (p.type == MQTT_PUBLISH && p.publish.qos > 0 && mqtt_publish_waits(c))
            break;
        conn_handle(c, &p);
        if (c->state == MQTT_STATE_CHECKING) /* it comes again */
            break;
        taken += used;
        packets++;
    }
    metric_add(conn_metrics(c), M_PACKETS_IN, packets);
    return taken;
}

void mqtt_conn_continue(struct mqtt_conn *c)
{
    if (c->in.len == 0 || c->state >= MQTT_STATE_CLOSING)
        return;
    size_t taken = conn_parse(c, buf_slice(&c->in));
    if (c->state >= MQTT_STATE_CLOSING)
        return;
    if (taken == c->in.len) {
        size_t limit = c->in.limit;
        buf_deinit(&c->in);
        buf_init(&c->in, limit);
    } else {
        buf_consume(&c->in, taken);
    }
}

static void conn_input(struct mqtt_conn *c, struct slice bytes)
{
    if (c->in.len > 0) {
        if (buf_put(&c->in, bytes) != ST_OK)
            mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        else
            mqtt_conn_continue(c);
        return;
    }
    size_t taken = conn_parse(c, bytes);
    if (c->state < MQTT_STATE_CLOSING && taken < bytes.len &&
        buf_put(&c->in, slice_from(bytes, taken)) != ST_OK)
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
}

static void conn_read(struct mqtt_conn *c)
{
    struct mqtt_door *d = c->door;
    size_t n;
    enum status st = stream_read(&c->io, d->read, sizeof d->read, &n);
    if (st == ST_AGAIN) {
        mqtt_conn_rewatch(c); /* it may wait for something else now */
        return;
    }
    if (st != ST_OK) {
        mqtt_conn_close(c, M_DISCONNECT_NETWORK, true);
        return;
    }
    if (c->state >= MQTT_STATE_CLOSING)
        return; /* lingering: read and forget */
    metric_add(d->edge->metrics, M_BYTES_IN_MQTT, n);
    c->last_in_ms = conn_now(c);
    conn_input(c, slice_of(d->read, n));
}

static void conn_on_event(struct loop_watch *w, uint32_t events)
{
    struct mqtt_conn *c = LIST_OF(w, struct mqtt_conn, watch);
    events = stream_ready(&c->io, events);
    if (events & EPOLLOUT) {
        mqtt_conn_dirty(c); /* with what else this turn brings: one write */
        if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
            return;
    }
    /* A handler may close it under the parser's feet: with no letter under way that would free it. */
    c->in_event = true;
    if (events & EPOLLIN)
        conn_read(c);
    else if (events & (EPOLLERR | EPOLLHUP))
        mqtt_conn_close(c, M_DISCONNECT_NETWORK, true);
    c->in_event = false;
    mqtt_conn_free_if_done(c);
}
