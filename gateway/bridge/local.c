#include "gateway/bridge/local.h"

#include "core/loop.h"
#include "gateway/stream.h"
#include "session/principal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,
    OUT_EXTRA_BYTES = 1024 * 1024,
    OPTIONS = 1 << 2 | 1 << 3 | 1 << 4, /* MQTT 5.0, 3.8.3.1 */
};

/* --- the other end ------------------------------------------------------------------------------ */

/* The door's end of the pair, on its way to the door's loop. */
struct handover {
    struct mail mail;
    struct edge *edge;
    int fd;
};

static void handover_arrived(struct mail *mail)
{
    struct handover *h = LIST_OF(mail, struct handover, mail);
    static const struct principal_spec spec = {.admin = true}; /* the operator's own configuration */
    struct stream stream = stream_plain(h->fd);
    struct principal *who;
    if (principal_create(&spec, &who) == ST_OK)
        h->edge->mqtt_take(h->edge->mqtt, &stream, who, false);
    else
        stream_close(&stream);
    free(h);
}

static enum status connect_pair(struct local *l, struct edge *edge)
{
    int pair[2];
    struct handover *h = calloc(1, sizeof *h);
    if (!h)
        return ST_NO_MEMORY;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        free(h);
        return ST_IO;
    }
    l->fd = pair[0];
    *h = (struct handover){.mail = {.on_arrival = handover_arrived}, .edge = edge, .fd = pair[1]};
    loop_post(edge->loop, &h->mail);
    return ST_OK;
}

/* --- packets ------------------------------------------------------------------------------------ */

static uint16_t take_id(struct local *l)
{
    l->next_id = l->next_id == UINT16_MAX ? 1 : (uint16_t)(l->next_id + 1);
    return l->next_id;
}

static enum status send_packet(struct local *l, const struct mqtt_packet *p)
{
    return mqtt_encode(p, MQTT_V5, &l->out);
}

static enum status send_topics(struct local *l, enum mqtt_type type, struct slice topics, uint32_t count)
{
    struct mqtt_packet p = {.type = type};
    p.subscribe.packet_id = take_id(l);
    p.subscribe.count = count;
    p.subscribe.topics = topics;
    return send_packet(l, &p);
}

static enum status send_connect(struct local *l, const struct local_session *s)
{
    struct buf id;
    struct mqtt_packet p = {.type = MQTT_CONNECT};
    buf_init(&id, UINT16_MAX);
    enum status st = buf_printf(&id, LOCAL_ID_PREFIX "%s", s->name);
    p.connect.version = MQTT_V5;
    p.connect.clean_start = s->expiry_s == 0;
    p.connect.client_id = buf_slice(&id);
    p.connect.props.present = MQTT_HAS_SESSION_EXPIRY | MQTT_HAS_RECEIVE_MAXIMUM;
    p.connect.props.session_expiry_s = s->expiry_s;
    p.connect.props.receive_maximum = s->receive_max;
    if (st == ST_OK)
        st = send_packet(l, &p);
    buf_deinit(&id);
    if (st == ST_OK && s->gone_count > 0)
        st = send_topics(l, MQTT_UNSUBSCRIBE, s->gone, s->gone_count);
    if (st == ST_OK && s->topic_count > 0)
        st = send_topics(l, MQTT_SUBSCRIBE, s->topics, s->topic_count);
    return st;
}

enum status local_gone(struct buf *gone, struct slice filter)
{
    const uint8_t head[2] = {(uint8_t)(filter.len >> 8), (uint8_t)filter.len};
    enum status st = buf_put(gone, slice_of(head, sizeof head));
    return st == ST_OK ? buf_put(gone, filter) : st;
}

enum status local_topic(struct buf *topics, struct slice filter, uint8_t qos)
{
    enum status st = local_gone(topics, filter);
    return st == ST_OK ? buf_put_byte(topics, OPTIONS | qos) : st;
}

enum status local_open(struct local *l, struct edge *edge, const struct local_session *s,
                       size_t packet_bytes_max)
{
    l->fd = -1;
    l->paused = l->subscribed = false;
    l->packet_max = 0;
    l->pinged_ms = 0;
    buf_init(&l->in, packet_bytes_max + READ_BYTES);
    buf_init(&l->out, packet_bytes_max * 2 + OUT_EXTRA_BYTES);
    enum status st = connect_pair(l, edge);
    if (st == ST_OK)
        st = send_connect(l, s);
    if (st == ST_OK)
        st = local_write(l);
    if (st != ST_OK)
        local_close(l);
    return st;
}

void local_close(struct local *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    l->packet_max = 0;
    buf_deinit(&l->in);
    buf_deinit(&l->out);
}

/* After CONNACK nothing is read until somebody takes the messages. */
static enum status take_connack(struct local *l, const struct mqtt_connack *c)
{
    if (c->reason != MQTT_RC_SUCCESS)
        return ST_CLOSED;
    l->packet_max =
        c->props.present & MQTT_HAS_MAXIMUM_PACKET_SIZE ? c->props.maximum_packet_bytes : UINT32_MAX;
    l->receive_max = c->props.present & MQTT_HAS_RECEIVE_MAXIMUM ? c->props.receive_maximum : UINT16_MAX;
    l->keep_alive_s = c->props.present & MQTT_HAS_SERVER_KEEP_ALIVE ? c->props.server_keep_alive_s : 0;
    l->paused = true;
    return ST_OK;
}

static enum status take_packet(struct local *l, const struct mqtt_packet *p)
{
    if (p->type == MQTT_CONNACK)
        return take_connack(l, &p->connack);
    if (p->type == MQTT_DISCONNECT)
        return ST_CLOSED;
    if (p->type == MQTT_SUBACK) {
        l->subscribed = true;
        for (size_t i = 0; i < p->suback.reasons.len; i++)
            if (p->suback.reasons.data[i] >= MQTT_RC_UNSPECIFIED_ERROR)
                return ST_FORBIDDEN;
    }
    if (p->type == MQTT_PUBLISH || p->type == MQTT_PUBACK)
        l->on_packet(l->ctx, p);
    return ST_OK;
}

/* ST_AGAIN: no whole packet is there. */
static enum status take_next(struct local *l, size_t *from)
{
    const struct mqtt_decode_rules rules = {
        .version = MQTT_V5, .packet_bytes_max = MQTT_REMAINING_BYTES_MAX, .from_server = true};
    struct mqtt_packet p;
    size_t used;
    uint8_t reason;
    struct slice rest = slice_from(buf_slice(&l->in), *from);
    if (rest.len == 0)
        return ST_AGAIN;
    enum status st = mqtt_decode(rest, &rules, &p, &used, &reason);
    if (st != ST_OK)
        return st == ST_AGAIN ? ST_AGAIN : ST_CLOSED;
    *from += used;
    return take_packet(l, &p);
}

enum status local_read(struct local *l)
{
    size_t taken = 0;
    enum status st = ST_OK;
    uint8_t *to = buf_reserve(&l->in, READ_BYTES);
    ssize_t got = to ? recv(l->fd, to, READ_BYTES, 0) : -1;
    if (!to)
        return ST_NO_MEMORY;
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        return ST_CLOSED;
    if (got > 0)
        buf_advance(&l->in, (size_t)got);
    while (st == ST_OK && !l->paused)
        st = take_next(l, &taken);
    buf_consume(&l->in, taken);
    return st == ST_AGAIN ? ST_OK : st;
}

enum status local_write(struct local *l)
{
    while (l->out.len > 0) {
        ssize_t sent = send(l->fd, l->out.data, l->out.len, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return ST_OK;
        if (sent < 0)
            return ST_CLOSED;
        buf_consume(&l->out, (size_t)sent);
    }
    return ST_OK;
}

enum status local_tick(struct local *l, uint64_t now_ms)
{
    if (l->keep_alive_s == 0 || now_ms - l->pinged_ms < (uint64_t)l->keep_alive_s * 500)
        return ST_OK;
    l->pinged_ms = now_ms;
    return send_packet(l, &(struct mqtt_packet){.type = MQTT_PINGREQ});
}

enum status local_publish(struct local *l, struct mqtt_publish *publish)
{
    struct mqtt_packet p = {.type = MQTT_PUBLISH};
    size_t before = l->out.len;
    publish->packet_id = publish->qos > 0 ? take_id(l) : 0;
    p.publish = *publish;
    enum status st = send_packet(l, &p);
    if (st == ST_OK && l->out.len - before > l->packet_max) {
        l->out.len = before;
        return ST_TOO_LARGE;
    }
    return st;
}

enum status local_ack(struct local *l, uint16_t packet_id)
{
    struct mqtt_packet p = {.type = MQTT_PUBACK};
    p.ack.packet_id = packet_id;
    return send_packet(l, &p);
}
