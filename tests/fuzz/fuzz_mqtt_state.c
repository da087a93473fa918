/* part: mqtt, fakes */
/* Sequences of packets against the MQTT door: three clients of any version on sockets, the fake log behind
 * it, and in between turns of the loop, syncs, answered reads, time, lost connections, a log that refuses.
 * The input is a list of steps:
 *
 *   step = kind (low 4 bits), client (next 2) | one or two bytes of what it is about
 *
 * Claimed of what each client hears, whatever it has said:
 *   - it decodes, by the decoder that refuses whatever the standard does not allow a server;
 *   - CONNACK comes first and once; nothing comes behind a refusal, nor behind DISCONNECT, which only 5.0
 * has;
 *   - a PUBLISH above QoS 0 has an identifier that is not in use, unless it is sent again (DUP), and no more
 * are out than the client's Receive Maximum;
 *   - no more is acknowledged than was sent.
 * And of the node: in the end every gauge and every claim is where it was before. */
#include <assert.h>
#include <stdlib.h>

#define cr_assert_eq(a, b, ...) assert((a) == (b))
#define cr_assert_lt(a, b, ...) assert((a) < (b))
#define cr_expect_eq(a, b, ...) assert((a) == (b))
#define cr_expect(a, ...)       assert(a)

#include "core/metrics.h"

/* One for all inputs: what is registered stays. */
static struct metrics *metrics_once(void)
{
    static struct metrics *m;
    return m ? m : (m = metrics_register());
}
#define metrics_register metrics_once

#include "fakes/exchange.h"
#include "gateway/acceptor.h"
#include "gateway/edge.h"
#include "gateway/mqtt/packet.h"
#include "gateway/stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 3, HEARD_BYTES_MAX = 1 << 20, RECEIVE_MAXIMUM = 3, STEPS_MAX = 300 };

struct client {
    int fd; /* -1: none */
    uint8_t version;
    bool connected, over; /* over: the server has said its last */
    bool wild; /* has sent bytes that nobody knows */
    uint8_t in_use[65536];
    unsigned out, asked, answered;
    struct buf heard;
};

static struct exchange x;
static struct settings settings;
static struct node_facts facts;
static struct registry *registry;
static struct edge edge;
static struct mqtt_door *door;
static struct client clients[CLIENTS];

/* --- the node ----------------------------------------------------------------------------------- */

static void load_settings(void)
{
    static const char *const assignments[] = {"limit.publish_open=6", "limit.inflight=8",
                                              "mqtt.topic_aliases=3", "limit.message_bytes=256",
                                              "mqtt.response_information=a/%c"};
    char *no_environment[] = {NULL};
    struct buf error;
    if (settings.limit_inflight)
        return;
    buf_init(&error, 4096);
    assert(settings_load(&settings, NULL, no_environment, assignments,
                         sizeof assignments / sizeof assignments[0], &error) == ST_OK);
    buf_deinit(&error);
}

static void node_open(void)
{
    struct buf error;
    uint16_t port = 0;
    int fd;
    load_settings();
    exchange_build(&x, 1, 2);
    assert(registry_create(x.couriers[0], &registry) == ST_OK);
    registry_meet(registry, 0, registry, 1);
    facts.settings = &settings;
    facts.incarnation = 1;
    facts.connections_max = 100;
    edge = (struct edge){.loop = x.loops[0],
                         .hub = x.hubs[0],
                         .registry = registry,
                         .metrics = x.metrics[0],
                         .facts = &facts,
                         .settings = &settings};
    buf_init(&error, 4096);
    assert(listen_open("fuzz", "127.0.0.1", &port, false, "mqtt.port", &fd, &error) == ST_OK);
    buf_deinit(&error);
    assert(mqtt_door_create(&edge, fd, &door) == ST_OK);
    mqtt_door_start(door);
    exchange_start(&x);
}

static void node_close(void)
{
    x.log.append_failures = 0;
    mqtt_door_stop(door);
    for (int i = 0; i < 10; i++)
        exchange_turn(&x, 0);
    exchange_settle(&x);
    mqtt_door_destroy(door);
    assert(atomic_load(&facts.connections) == 0);
    assert(exchange_metric(&x, M_CONNECTIONS_MQTT) == 0);
    assert(exchange_metric(&x, M_OUT_QUEUE_BYTES) == 0);
    assert(exchange_metric(&x, M_UNACKED_MQTT) == 0);
    assert(registry_count(registry) == 0);
    registry_destroy(registry);
    exchange_close(&x);
}

/* --- what a client hears ------------------------------------------------------------------------ */

static void hear_publish(struct client *c, const struct mqtt_publish *p)
{
    if (p->qos == 0 || c->wild)
        return;
    assert(p->packet_id != 0 && (p->dup || !c->in_use[p->packet_id]));
    c->out += !c->in_use[p->packet_id];
    c->in_use[p->packet_id] = 1;
    assert(c->version < MQTT_V5 || c->out <= RECEIVE_MAXIMUM);
}

static void hear_packet(struct client *c, const struct mqtt_packet *p)
{
    assert(!c->over);
    assert((p->type == MQTT_CONNACK) == !c->connected);
    switch ((int)p->type) {
    case MQTT_CONNACK:
        c->connected = true;
        c->over = p->connack.reason != 0;
        break;
    case MQTT_DISCONNECT:
        assert(p->reasoned.reason >= 0x80);
        c->over = true;
        break;
    case MQTT_PUBLISH:
        hear_publish(c, &p->publish);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
        c->answered++;
        assert(c->wild || c->answered <= c->asked);
        break;
    default:
        break;
    }
}

static void client_hear(struct client *c)
{
    uint8_t bytes[16384];
    ssize_t got;
    while (c->fd >= 0 && (got = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        assert(buf_put(&c->heard, slice_of(bytes, (size_t)got)) == ST_OK);
    struct mqtt_decode_rules rules = {
        .version = c->version, .packet_bytes_max = MQTT_REMAINING_BYTES_MAX, .from_server = true};
    struct mqtt_packet p;
    size_t used;
    uint8_t reason;
    /* A CONNECT of its own making may be of another version: then only the first answer is known. */
    while (c->heard.len > 0 && !(c->wild && c->connected)) {
        if (c->wild) {
            assert(c->heard.data[0] == MQTT_CONNACK << 4);
            c->connected = true;
            break;
        }
        enum status st = mqtt_decode(buf_slice(&c->heard), &rules, &p, &used, &reason);
        assert(st == ST_OK || st == ST_AGAIN);
        if (st == ST_AGAIN)
            break;
        hear_packet(c, &p);
        buf_consume(&c->heard, used);
    }
}

static void turn(void)
{
    exchange_turn(&x, 0);
    for (int i = 0; i < CLIENTS; i++)
        client_hear(&clients[i]);
}

/* --- what a client says ------------------------------------------------------------------------- */

static void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    buf_deinit(&c->heard);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}

static void client_open(struct client *c, uint8_t version)
{
    int pair[2];
    client_close(c);
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    c->fd = pair[0];
    c->version = version;
    buf_init(&c->heard, HEARD_BYTES_MAX);
    struct stream stream = stream_plain(pair[1]);
    edge.mqtt_take(door, &stream, NULL, false);
}

static void client_say(struct client *c, const struct mqtt_packet *p)
{
    struct buf bytes;
    if (c->fd < 0)
        return;
    buf_init(&bytes, 4096);
    assert(mqtt_encode(p, c->version, &bytes) == ST_OK);
    (void)!send(c->fd, bytes.data, bytes.len, MSG_NOSIGNAL);
    buf_deinit(&bytes);
}

static struct slice topic_of(uint8_t what)
{
    static const char *const topics[] = {"a", "a/b", "$SYS/x", "c"};
    return slice_cstr(topics[what & 3]);
}

static void say_connect(struct client *c, uint8_t how)
{
    static const uint8_t versions[] = {MQTT_V5, MQTT_V311, MQTT_V5, MQTT_V31};
    static const char *const names[] = {"one", "two"};
    client_open(c, versions[how & 3]);
    struct mqtt_packet p = {.type = MQTT_CONNECT,
                            .connect = {.version = c->version,
                                        .clean_start = how & 4,
                                        .client_id = slice_cstr(names[how >> 3 & 1]),
                                        .keep_alive_s = how & 16 ? 2 : 0,
                                        .will = how & 32}};
    if (p.connect.will) {
        p.connect.will_qos = how >> 6 & 1;
        p.connect.will_topic = slice_cstr("a/b");
        p.connect.will_payload = slice_cstr("will");
    }
    if (c->version == MQTT_V5) {
        p.connect.props.present = MQTT_HAS_RECEIVE_MAXIMUM | MQTT_HAS_SESSION_EXPIRY |
                                  MQTT_HAS_TOPIC_ALIAS_MAXIMUM | MQTT_HAS_REQUEST_RESPONSE;
        p.connect.props.receive_maximum = RECEIVE_MAXIMUM;
        p.connect.props.session_expiry_s = how & 128 ? 60 : 0;
        p.connect.props.topic_alias_maximum = how & 64 ? 2 : 0;
        p.connect.props.request_response = 1;
        if (p.connect.will && how & 128) {
            p.connect.will_props.present = MQTT_HAS_WILL_DELAY;
            p.connect.will_props.will_delay_s = 1;
        }
    }
    client_say(c, &p);
}

static void say_publish(struct client *c, uint8_t how, uint8_t id)
{
    struct mqtt_packet p = {.type = MQTT_PUBLISH,
                            .publish = {.qos = how % 3,
                                        .retain = how & 4,
                                        .topic = topic_of(how >> 3),
                                        .payload = slice_cstr(how & 32 ? "payload" : "")}};
    p.publish.dup = p.publish.qos > 0 && how & 64;
    p.publish.packet_id = p.publish.qos > 0 ? (id & 7) + 1 : 0;
    if (c->version == MQTT_V5 && how & 128) {
        p.publish.props.present = MQTT_HAS_TOPIC_ALIAS | MQTT_HAS_MESSAGE_EXPIRY;
        p.publish.props.topic_alias = (id >> 3 & 3) + 1;
        p.publish.props.message_expiry_s = id >> 6;
        if (id & 32)
            p.publish.topic = (struct slice){0};
    }
    c->asked += p.publish.qos > 0;
    client_say(c, &p);
}

static void say_ack(struct client *c, enum mqtt_type type, uint8_t id)
{
    uint16_t packet_id = (id & 15) + 1;
    bool refuses = c->version == MQTT_V5 && (type == MQTT_PUBACK || type == MQTT_PUBREC) && id & 64;
    struct mqtt_packet p = {.type = type, .ack = {.packet_id = packet_id, .reason = refuses ? 0x80 : 0}};
    if ((type == MQTT_PUBACK || type == MQTT_PUBCOMP || refuses) && c->in_use[packet_id]) {
        c->in_use[packet_id] = 0;
        c->out--;
    }
    client_say(c, &p);
}

static void say_filters(struct client *c, enum mqtt_type type, uint8_t how)
{
    static const char *const filters[] = {"a/#", "+", "a", "#"};
    uint8_t topics[16];
    const char *filter = filters[how & 3];
    size_t len = strlen(filter);
    topics[0] = 0;
    topics[1] = (uint8_t)len;
    memcpy(topics + 2, filter, len);
    topics[2 + len] = how >> 2 & 3;
    if (topics[2 + len] == 3) /* not a quality */
        topics[2 + len] = 2;
    if (c->version == MQTT_V5)
        topics[2 + len] |= how & 0x1c;
    struct mqtt_packet p = {.type = type,
                            .subscribe = {.packet_id = 9,
                                          .count = 1,
                                          .topics = slice_of(topics, 2 + len + (type == MQTT_SUBSCRIBE))}};
    if (c->version == MQTT_V5 && type == MQTT_SUBSCRIBE && how & 128) {
        p.subscribe.props.present = MQTT_HAS_SUBSCRIPTION_ID;
        p.subscribe.props.subscription_id = 5;
    }
    client_say(c, &p);
}

static void say_goodbye(struct client *c, uint8_t how)
{
    struct mqtt_packet p = {.type = MQTT_DISCONNECT,
                            .reasoned = {.reason = c->version == MQTT_V5 && how & 1 ? 0x04 : 0}};
    if (c->version == MQTT_V5 && how & 2) {
        p.reasoned.props.present = MQTT_HAS_SESSION_EXPIRY;
        p.reasoned.props.session_expiry_s = how >> 2 & 3;
    }
    client_say(c, &p);
}

static void say_bytes(struct client *c, const uint8_t *data, size_t size)
{
    if (c->fd < 0)
        return;
    c->wild = true;
    (void)!send(c->fd, data, size, MSG_NOSIGNAL);
}

/* --- steps -------------------------------------------------------------------------------------- */

static void step_world(uint8_t how)
{
    if (how & 1)
        for (unsigned lane = 0; lane < x.log.lane_count; lane++)
            fake_log_sync(&x.log, lane, UINT64_MAX);
    if (how & 2)
        fake_log_serve(&x.log);
    if (how & 4)
        exchange_settle(&x);
    if (how & 8)
        ex_mono_ms += (uint64_t)(how >> 5) * 500, ex_wall_ms += (uint64_t)(how >> 5) * 500;
    if (how & 16) {
        x.log.append_status = how & 32 ? ST_FULL : ST_NO_SPACE;
        x.log.append_failures = 1 + (how >> 6);
    }
    turn();
}

static void step(struct client *c, uint8_t kind, uint8_t how, uint8_t more)
{
    static const struct mqtt_packet ping = {.type = MQTT_PINGREQ};
    bool known = c->fd >= 0 && !c->wild;
    if (kind == 0 || kind == 1)
        step_world(how);
    else if (kind == 2)
        say_connect(c, how);
    else if (kind == 3)
        client_close(c);
    else if (known && kind <= 5)
        say_publish(c, how, more);
    else if (known && kind == 6)
        say_ack(c, MQTT_PUBACK, how);
    else if (known && kind == 7)
        say_ack(c, MQTT_PUBREC, how);
    else if (known && kind == 8)
        say_ack(c, MQTT_PUBREL, how);
    else if (known && kind == 9)
        say_ack(c, MQTT_PUBCOMP, how);
    else if (known && kind <= 11)
        say_filters(c, MQTT_SUBSCRIBE, how);
    else if (known && kind == 12)
        say_filters(c, MQTT_UNSUBSCRIBE, how);
    else if (known && kind == 13)
        client_say(c, &ping);
    else if (known && kind == 14)
        say_goodbye(c, how);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name; it has no header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0;
    for (int i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    node_open();
    for (int n = 0; n < STEPS_MAX && at + 3 <= size; n++) {
        struct client *c = &clients[(data[at] >> 4) % CLIENTS];
        uint8_t kind = data[at] & 15, how = data[at + 1];
        at += 2;
        if (kind == 15) { /* bytes as they are */
            size_t bytes = how % 64 < size - at ? how % 64 : size - at;
            say_bytes(c, data + at, bytes);
            at += bytes;
        } else {
            bool two = kind == 4 || kind == 5;
            step(c, kind, how, two ? data[at] : 0);
            at += two;
        }
    }
    turn();
    exchange_settle(&x);
    turn();
    for (int i = 0; i < CLIENTS; i++)
        client_close(&clients[i]);
    node_close();
    return 0;
}
