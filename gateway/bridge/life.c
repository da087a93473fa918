/* One bridge is a loop of lives. A life connects to the own node, then to the remote, carries messages, and
 * ends when either side ends; nothing of it is kept but what the log and the remote keep:
 *
 *   out  the own node owes the messages to the session "$bridge/<name>", a durable cursor. One is
 * acknowledged to it when the remote has acknowledged it. Whoever is killed in between: it is sent again. in
 * the remote owes the messages to its session of ours. What is read in one go is published here, and until
 * every one of these is acknowledged, which means durable, nothing is written to the remote, so that no
 * acknowledgement leaves too early (remote.h). Meanwhile nothing is read from it either: that is the
 * back-pressure.
 *
 * The loop guard: what the bridge itself has brought is marked in the log as its own (No Local, PROP_ORIGIN)
 * and never comes back to it; No Local at the remote keeps away what it has sent there. Around longer ways
 * messages carry where they have been (bridge_topics.h). */
#include "gateway/bridge/life.h"

#include "core/logging.h"
#include "gateway/bridge_topics.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOPICS_BYTES_MAX = 1024 * 1024,
    PACKET_OVERHEAD_BYTES = 256 * 1024,
    OUT_BYTES_MAX = 1024 * 1024, /* queued for the own node, before the remote is read no further */
    TICK_MS = 500,
    ANSWER_MS = 30000, /* CONNACK of either side; the log's acknowledgement of what was brought */
    LEAVE_MS = 2000, /* to settle what is under way */
};

static void drop(struct bridge *b, enum metric why)
{
    metric_add(b->metrics, why, 1);
    bridge_count(&b->figures.dropped);
}

/* The life ends after this turn. */
static void fail(struct bridge *b, enum bridge_trouble trouble, const char *why)
{
    if (!b->failed) {
        b->trouble = trouble;
        b->why = why;
    }
    b->failed = true;
}

static void fail_remote(struct bridge *b)
{
    fail(b, remote_trouble(b->remote), remote_why(b->remote));
}

static uint64_t now_ms(void)
{
    return clock_mono_ms(clock_system());
}

static const struct bridge_topic_settings *topics_of(const struct bridge *b, size_t *count)
{
    *count = b->plan->topic_count;
    return b->plan->topics;
}

/* Has it been through this node already, in the way that `property` says? */
static bool has_been_here(const struct bridge *b, struct slice raw, const char *property)
{
    struct slice name, value;
    size_t place = 0;
    while (mqtt_user_property_next(raw, &place, &name, &value))
        if (slice_equal_cstr(name, property) && slice_equal_cstr(value, b->node_id))
            return true;
    return false;
}

/* --- out ---------------------------------------------------------------------------------------- */

static void ack_local(struct bridge *b, uint16_t packet_id)
{
    if (packet_id != 0 && local_ack(&b->local, packet_id) != ST_OK)
        fail(b, BRIDGE_TROUBLE_OWN, "no memory");
}

static void crossing_add(struct bridge *b, int message_id, uint16_t local_id)
{
    if (b->crossing_count == b->settings->inflight) {
        fail(b, BRIDGE_TROUBLE_OWN, "the own node sends more than was asked for");
        return;
    }
    b->crossings[b->crossing_count++] = (struct crossing){message_id, local_id};
}

/* A topic of ours -> b->topic. NULL: nobody sends it. */
static const struct bridge_topic_settings *route_out(struct bridge *b, struct slice topic)
{
    size_t count;
    const struct bridge_topic_settings *t = topics_of(b, &count);
    for (size_t i = 0; i < count; i++)
        if (bridge_topic_out(&t[i], topic, &b->topic))
            return &t[i];
    return NULL;
}

static void send_out(struct bridge *b, const struct mqtt_publish *p)
{
    int message_id = 0;
    const struct bridge_topic_settings *t = route_out(b, p->topic);
    if (!t || has_been_here(b, p->props.raw, BRIDGE_LEFT)) {
        drop(b, t ? M_BRIDGE_DROPPED_LOOP : M_BRIDGE_DROPPED_NO_ROUTE);
        ack_local(b, p->packet_id);
        return;
    }
    int qos = p->qos < t->qos ? p->qos : (int)t->qos;
    enum status st = remote_publish(b->remote, buf_slice(&b->topic), p, qos, b->node_id, &message_id);
    if (st == ST_TOO_LARGE || st == ST_INVALID) {
        drop(b, st == ST_INVALID ? M_BRIDGE_DROPPED_REFUSED : M_BRIDGE_DROPPED_TOO_LARGE);
        ack_local(b, p->packet_id);
    } else if (st != ST_OK) {
        fail_remote(b);
    } else if (p->packet_id != 0) {
        crossing_add(b, message_id, p->packet_id);
    } else {
        metric_add(b->metrics, M_BRIDGE_OUT, 1);
        bridge_count(&b->figures.out);
    }
}

/* What the remote may well take at another time. */
static bool passing(uint8_t reason)
{
    return reason == MQTT_RC_UNSPECIFIED_ERROR || reason == MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR ||
           reason == MQTT_RC_QUOTA_EXCEEDED || reason == MQTT_RC_PACKET_IDENTIFIER_IN_USE;
}

static void on_acked(void *ctx, int message_id, uint8_t reason)
{
    struct bridge *b = ctx;
    uint32_t i = 0;
    while (i < b->crossing_count && b->crossings[i].message_id != message_id)
        i++;
    if (i == b->crossing_count)
        return; /* QoS 0 to the remote, of QoS 0 here */
    if (passing(reason)) {
        fail(b, BRIDGE_TROUBLE_REFUSED, "the remote cannot take messages now");
        return;
    }
    ack_local(b, b->crossings[i].local_id);
    b->crossing_count--;
    memmove(&b->crossings[i], &b->crossings[i + 1], (b->crossing_count - i) * sizeof b->crossings[0]);
    if (reason >= MQTT_RC_UNSPECIFIED_ERROR) {
        drop(b, M_BRIDGE_DROPPED_REFUSED);
        return;
    }
    metric_add(b->metrics, M_BRIDGE_OUT, 1);
    bridge_count(&b->figures.out);
}

/* --- in ----------------------------------------------------------------------------------------- */

static bool route_in(struct bridge *b, struct slice topic)
{
    size_t count;
    const struct bridge_topic_settings *t = topics_of(b, &count);
    for (size_t i = 0; i < count; i++)
        if (bridge_topic_in(&t[i], topic, &b->topic))
            return true;
    return false;
}

/* The user properties of `raw` and BRIDGE_ENTERED -> b->user. */
static bool mark_entered(struct bridge *b, struct slice raw)
{
    const char *texts[] = {BRIDGE_ENTERED, b->node_id};
    buf_clear(&b->user);
    bool ok = buf_put(&b->user, raw) == ST_OK && buf_put_byte(&b->user, 0x26) == ST_OK; /* 2.2.2.2 */
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(texts[i]);
        ok = ok && buf_put_byte(&b->user, (uint8_t)(len >> 8)) == ST_OK &&
             buf_put_byte(&b->user, (uint8_t)len) == ST_OK && buf_put_cstr(&b->user, texts[i]) == ST_OK;
    }
    return ok;
}

static void on_message(void *ctx, const struct mqtt_publish *message)
{
    struct bridge *b = ctx;
    struct mqtt_publish p = *message;
    struct slice raw = message->props.raw;
    if (b->failed)
        return;
    if (!route_in(b, p.topic)) {
        drop(b, M_BRIDGE_DROPPED_NO_ROUTE);
        return;
    }
    if (has_been_here(b, raw, BRIDGE_LEFT) || has_been_here(b, raw, BRIDGE_ENTERED)) {
        drop(b, M_BRIDGE_DROPPED_LOOP);
        return;
    }
    if (!mark_entered(b, raw)) {
        drop(b, M_BRIDGE_DROPPED_TOO_LARGE);
        return;
    }
    p.topic = buf_slice(&b->topic);
    p.props.raw = buf_slice(&b->user);
    p.props.present |= MQTT_HAS_USER_PROPERTY;
    enum status st = local_publish(&b->local, &p);
    if (st == ST_TOO_LARGE) {
        drop(b, M_BRIDGE_DROPPED_TOO_LARGE);
    } else if (st != ST_OK) {
        fail(b, BRIDGE_TROUBLE_OWN, "no room for what the remote sends");
    } else {
        b->unacked_in += p.qos > 0;
        metric_add(b->metrics, M_BRIDGE_IN, 1);
        bridge_count(&b->figures.in);
    }
}

/* The log's word on a message that was brought. */
static void on_stored(struct bridge *b, uint8_t reason)
{
    if (b->unacked_in == 0)
        return;
    b->unacked_in--;
    if (passing(reason))
        fail(b, BRIDGE_TROUBLE_OWN, "the own node cannot take messages now"); /* the remote keeps it */
    else if (reason >= MQTT_RC_UNSPECIFIED_ERROR)
        drop(b, M_BRIDGE_DROPPED_REFUSED);
}

static void on_local_packet(void *ctx, const struct mqtt_packet *p)
{
    struct bridge *b = ctx;
    bool late = p->type == MQTT_PUBLISH && p->publish.packet_id != 0 && atomic_load(&b->leaving);
    if (p->type == MQTT_PUBLISH && b->remote && !late) /* what is late stays owed */
        send_out(b, &p->publish);
    else if (p->type == MQTT_PUBACK)
        on_stored(b, p->ack.reason);
}

/* --- a life ------------------------------------------------------------------------------------- */

static void on_up(void *ctx)
{
    struct bridge *b = ctx;
    size_t count;
    const struct bridge_topic_settings *t = topics_of(b, &count);
    b->remote_up = true;
    for (size_t i = 0; i < count; i++) {
        if (!bridge_topic_takes(&t[i]))
            continue;
        buf_clear(&b->topic);
        if (bridge_topic_filter(t[i].remote_prefix, t[i].filter, &b->topic) != ST_OK ||
            buf_put_byte(&b->topic, 0) != ST_OK ||
            remote_subscribe(b->remote, (const char *)b->topic.data, (int)t[i].qos) != ST_OK)
            fail_remote(b);
    }
    for (size_t place = 0; place < b->remote_gone.len;) {
        const char *filter = (const char *)b->remote_gone.data + place;
        if (remote_unsubscribe(b->remote, filter) != ST_OK)
            fail_remote(b);
        place += strlen(filter) + 1;
    }
    b->local.paused = false;
    atomic_store(&b->figures.why, NULL);
    atomic_store(&b->figures.since_ms, clock_wall_ms(clock_system()));
    atomic_store(&b->figures.connected, true);
    metric_add(b->metrics, M_BRIDGES_CONNECTED, 1);
    log_info("bridge connected bridge=%s host=%s port=%lu", b->settings->name, b->settings->host,
             (unsigned long)b->settings->port);
}

static enum status open_local(struct bridge *b, size_t *topic_count)
{
    struct buf topics;
    size_t count;
    const struct bridge_topic_settings *t = topics_of(b, &count);
    struct local_session s = {.name = b->settings->name,
                              .receive_max = (uint16_t)b->settings->inflight,
                              .gone = buf_slice(&b->gone),
                              .gone_count = b->primed ? 0 : b->gone_count};
    enum status st = ST_OK;
    buf_init(&topics, TOPICS_BYTES_MAX);
    for (size_t i = 0; i < count && st == ST_OK; i++) {
        if (!bridge_topic_sends(&t[i]))
            continue;
        buf_clear(&b->topic);
        st = bridge_topic_filter(t[i].local_prefix, t[i].filter, &b->topic);
        if (st == ST_OK)
            st = local_topic(&topics, buf_slice(&b->topic), (uint8_t)t[i].qos);
        s.topic_count++;
    }
    s.topics = buf_slice(&topics);
    *topic_count = s.topic_count;
    s.expiry_s = b->settings->clean || s.topic_count == 0 ? 0 : UINT32_MAX;
    if (st == ST_OK)
        st = local_open(&b->local, b->home.edge, &s, b->home.message_bytes_max + PACKET_OVERHEAD_BYTES);
    buf_deinit(&topics);
    return st;
}

/* May the remote be read further? One message at a time is added, so the bounds are exceeded by one. */
static bool takes_in(const struct bridge *b)
{
    uint32_t window =
        b->local.receive_max < b->settings->inflight ? b->local.receive_max : (uint32_t)b->settings->inflight;
    return !b->failed && b->unacked_in < window && b->local.out.len < OUT_BYTES_MAX;
}

/* All that is there, within the window; then it is to settle. Before the remote has answered one read a turn:
 * libmosquitto takes a TLS handshake whose other side has gone for one that goes on, whatever the socket
 * says. */
static void read_remote(struct bridge *b)
{
    struct pollfd ready = {.fd = remote_fd(b->remote), .events = POLLIN};
    do {
        if (remote_read(b->remote) != ST_OK)
            fail_remote(b);
    } while (b->remote_up && takes_in(b) && (ready.fd = remote_fd(b->remote)) >= 0 &&
             poll(&ready, 1, 0) == 1);
    b->settling = b->unacked_in > 0;
    b->since_ms = now_ms();
}

static void turn(struct bridge *b)
{
    bool remote = b->remote != NULL;
    struct pollfd fds[3] = {{.fd = b->wake, .events = POLLIN}, {.fd = b->local.fd}, {.fd = -1}};
    fds[1].events = (short)((b->local.paused ? 0 : POLLIN) | (b->local.out.len > 0 ? POLLOUT : 0));
    if (remote) {
        fds[2].fd = remote_fd(b->remote);
        if (!b->settling)
            fds[2].events = (short)(POLLIN | (remote_wants_write(b->remote) ? POLLOUT : 0));
        else
            fds[2].fd = -1;
    }
    if (poll(fds, 3, TICK_MS) < 0 && errno != EINTR)
        fail(b, BRIDGE_TROUBLE_OWN, "poll failed");
    if (fds[0].revents)
        bridge_calm(b);
    if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) && local_read(&b->local) != ST_OK)
        fail(b, BRIDGE_TROUBLE_OWN, "the own node has ended the connection");
    if (b->settling && b->unacked_in == 0)
        b->settling = false;
    if (fds[2].revents & (POLLIN | POLLHUP | POLLERR) && !b->failed)
        read_remote(b);
    if (fds[2].revents & (POLLHUP | POLLERR) && !b->remote_up && !b->failed)
        fail(b, BRIDGE_TROUBLE_UNREACHABLE, "the remote has ended the connection before it answered");
    if (remote && !b->settling && !b->failed && remote_wants_write(b->remote) &&
        remote_write(b->remote) != ST_OK)
        fail_remote(b);
    if (local_tick(&b->local, now_ms()) != ST_OK || local_write(&b->local) != ST_OK)
        fail(b, BRIDGE_TROUBLE_OWN, "the own node has ended the connection");
    if (remote && !b->settling && !b->failed && remote_tick(b->remote) != ST_OK)
        fail_remote(b);
}

static bool goes_on(const struct bridge *b)
{
    return !b->failed && !bridge_is_over(b);
}

/* Turns until *what; false: it has failed, or it takes too long. */
static bool turn_until(struct bridge *b, bool (*what)(const struct bridge *), enum bridge_trouble trouble,
                       const char *late)
{
    uint64_t end_ms = now_ms() + ANSWER_MS;
    while (goes_on(b) && !what(b)) {
        turn(b);
        if (now_ms() > end_ms)
            fail(b, trouble, late);
    }
    return goes_on(b);
}

static bool node_answered(const struct bridge *b)
{
    return local_up(&b->local);
}

static bool remote_answered(const struct bridge *b)
{
    return b->remote_up;
}

/* Nothing that has left one side waits for the other's word. */
static bool is_settled(const struct bridge *b)
{
    return b->crossing_count == 0 && b->unacked_in == 0 && !b->settling && b->local.out.len == 0 &&
           !remote_wants_write(b->remote);
}

static void carry(struct bridge *b)
{
    uint64_t leave_ms = 0;
    if (local_read(&b->local) != ST_OK) /* what had come while it was paused */
        fail(b, BRIDGE_TROUBLE_OWN, "the own node has ended the connection");
    while (!b->failed && !atomic_load(&b->stopping)) {
        if (atomic_load(&b->leaving)) {
            leave_ms = leave_ms ? leave_ms : now_ms();
            if (is_settled(b) || now_ms() - leave_ms > LEAVE_MS)
                break;
        }
        turn(b);
        if (b->settling && now_ms() - b->since_ms > ANSWER_MS)
            fail(b, BRIDGE_TROUBLE_OWN, "the log does not take what the remote has sent");
    }
}

static bool node_subscribed(const struct bridge *b)
{
    return b->local.subscribed;
}

/* The session has its filters before the remote is asked for: from then on it is owed what is published, also
 * when the remote is not there. What comes already is not acknowledged, so it comes again. */
static void prime(struct bridge *b)
{
    size_t topics = 0;
    if (b->primed)
        return;
    if (open_local(b, &topics) == ST_OK &&
        turn_until(b, node_answered, BRIDGE_TROUBLE_OWN, "the own node does not answer")) {
        b->local.paused = false;
        if (topics > 0 && local_read(&b->local) != ST_OK)
            fail(b, BRIDGE_TROUBLE_OWN, "the own node has ended the connection");
        b->primed = topics == 0 || turn_until(b, node_subscribed, BRIDGE_TROUBLE_OWN,
                                              "the own node does not answer SUBSCRIBE");
    }
    local_close(&b->local);
}

void life_init(struct bridge *b)
{
    b->local = (struct local){.fd = -1, .on_packet = on_local_packet, .ctx = b};
}

void life_live(struct bridge *b)
{
    static const struct remote_ops ops = {.on_up = on_up, .on_message = on_message, .on_acked = on_acked};
    b->failed = b->remote_up = b->settling = false;
    b->why = "";
    b->unacked_in = b->crossing_count = 0;
    size_t topics;
    prime(b);
    if (!goes_on(b))
        return;
    if (open_local(b, &topics) != ST_OK) {
        fail(b, BRIDGE_TROUBLE_OWN, "no connection to the own node");
        return;
    }
    if (!turn_until(b, node_answered, BRIDGE_TROUBLE_OWN, "the own node does not answer"))
        return;
    if (remote_open(b->settings, b->node_id, &ops, b, &b->remote) != ST_OK) {
        if (b->remote)
            fail_remote(b);
        else
            fail(b, BRIDGE_TROUBLE_OWN, "no memory");
        return;
    }
    if (turn_until(b, remote_answered, BRIDGE_TROUBLE_UNREACHABLE, "the remote does not answer CONNECT"))
        carry(b);
}

/* Reasons are few; `why` is gone with this life. */
static const char *keep_why(struct bridge *b, const char *why)
{
    for (unsigned i = 0; i < b->why_count; i++)
        if (strcmp(b->whys[i], why) == 0)
            return b->whys[i];
    char *copy = b->why_count < BRIDGE_WHY_COUNT_MAX ? strdup(why) : NULL;
    if (!copy)
        return "see the log";
    b->whys[b->why_count++] = copy;
    return copy;
}

static void tell_failure(struct bridge *b)
{
    static const enum metric by_trouble[] = {
        [BRIDGE_TROUBLE_UNREACHABLE] = M_BRIDGE_FAILURES_UNREACHABLE,
        [BRIDGE_TROUBLE_TLS] = M_BRIDGE_FAILURES_TLS,
        [BRIDGE_TROUBLE_CREDENTIALS] = M_BRIDGE_FAILURES_CREDENTIALS,
        [BRIDGE_TROUBLE_REFUSED] = M_BRIDGE_FAILURES_REFUSED,
        [BRIDGE_TROUBLE_LOST] = M_BRIDGE_FAILURES_LOST,
        [BRIDGE_TROUBLE_OWN] = M_BRIDGE_FAILURES_OWN,
    };
    log_warn("bridge not connected bridge=%s host=%s port=%lu why=\"%s\"", b->settings->name,
             b->settings->host, (unsigned long)b->settings->port, b->why);
    metric_add(b->metrics, by_trouble[b->trouble], 1);
    if (b->remote_up || !atomic_load(&b->figures.why))
        atomic_store(&b->figures.since_ms, clock_wall_ms(clock_system()));
    atomic_store(&b->figures.why, keep_why(b, b->why));
}

void life_end(struct bridge *b)
{
    if (b->remote_up) {
        atomic_store(&b->figures.connected, false);
        metric_sub(b->metrics, M_BRIDGES_CONNECTED, 1);
    }
    if (b->failed)
        tell_failure(b);
    /* DISCONNECT would take acknowledgements along. */
    bool politely = b->remote_up && !b->failed && b->unacked_in == 0;
    remote_close(b->remote, politely, atomic_load(&b->leaving) && b->expiry_ms > 0);
    b->remote = NULL;
    local_close(&b->local);
}

void life_release_session(struct bridge *b)
{
    struct local_session s = {
        .name = b->settings->name, .receive_max = 1, .expiry_s = (uint32_t)((b->expiry_ms + 999) / 1000)};
    size_t sends = 0;
    for (size_t i = 0; i < b->plan->topic_count; i++)
        sends += bridge_topic_sends(&b->plan->topics[i]);
    if (sends == 0 || b->settings->clean)
        return;
    uint64_t end_ms = now_ms() + ANSWER_MS;
    b->failed =
        local_open(&b->local, b->home.edge, &s, b->home.message_bytes_max + PACKET_OVERHEAD_BYTES) != ST_OK;
    while (!b->failed && !atomic_load(&b->stopping) && !local_up(&b->local) && now_ms() < end_ms)
        turn(b);
    if (!b->failed && !local_up(&b->local))
        log_warn("the session of a removed bridge stays bridge=%s", b->settings->name);
    local_close(&b->local);
}
