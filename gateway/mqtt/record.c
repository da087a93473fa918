#include "gateway/mqtt/record.h"

#include "routing/topic.h"

#include <assert.h>

enum {
    VERSION = 2,
    HEAD_BYTES = 1 + 4 + 2 + 8 + 8 + 8 + 4 + 8 + 2,
    WILL_BYTES = 4 + 8 + 1 + 4 + 3 + 2 + 2 + 2 + 4
};
enum { RECEIVED_BYTES = 2 + 1 + 8, FLIGHT_BYTES = 2 + 1 + 1 + 1 + 2 + 8 + 4, FILTER_BYTES = 1 + 4 + 2 };
enum {
    OPTION_QOS = 3,
    OPTION_NO_LOCAL = 4,
    OPTION_RETAIN_AS_PUBLISHED = 8,
    OPTION_WALKING = 16,
    OPTION_INBOX = 32,
    OPTIONS = 63
};
enum { KEPT_FLIGHT_FLAGS = FLIGHT_RETAIN | FLIGHT_UNSTORED | FLIGHT_INBOX | FLIGHT_SHARED, GROUP_BYTES = 8 };

/* --- writing: room is taken first, so nothing is added by half ---------------------------------- */

static uint8_t *put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *to++ = (uint8_t)(value >> 8 * i);
    return to;
}

static uint8_t *put_bytes(uint8_t *to, struct slice bytes)
{
    if (bytes.len > 0)
        memcpy(to, bytes.data, bytes.len);
    return to + bytes.len;
}

static enum status room(struct buf *out, size_t bytes, uint8_t **to)
{
    *to = buf_reserve(out, bytes);
    if (*to)
        return ST_OK;
    return out->len + bytes > out->limit ? ST_FULL : ST_NO_MEMORY;
}

static uint8_t *put_will(uint8_t *to, const struct record_will *w)
{
    to = put_le(to, w->delay_s, 4);
    to = put_le(to, w->due_ms, 8);
    to = put_le(to, w->expires, 1);
    to = put_le(to, w->expiry_s, 4);
    to = put_le(to, w->qos, 1);
    to = put_le(to, w->content, 1);
    to = put_le(to, w->flags, 1);
    to = put_le(to, w->topic.len, 2);
    to = put_le(to, w->key.len, 2);
    to = put_le(to, w->props.len, 2);
    to = put_le(to, w->payload.len, 4);
    return put_bytes(put_bytes(put_bytes(put_bytes(to, w->topic), w->key), w->props), w->payload);
}

enum status mqtt_record_begin(struct buf *out, const struct record_head *h)
{
    const struct record_will *w = &h->will;
    size_t bytes = HEAD_BYTES + h->client_id.len + 1u;
    uint8_t *to;
    assert(h->client_id.len <= UINT16_MAX);
    if (h->has_will)
        bytes += WILL_BYTES + w->topic.len + w->key.len + w->props.len + w->payload.len;
    enum status st = room(out, bytes, &to);
    if (st != ST_OK)
        return st;
    to = put_le(to, VERSION, 1);
    to = put_le(to, h->epoch, 4);
    to = put_le(to, h->lanes, 2);
    to = put_le(to, h->node_incarnation, 8);
    to = put_le(to, h->session_incarnation, 8);
    to = put_le(to, h->releases, 8);
    to = put_le(to, h->expiry_s, 4);
    to = put_le(to, h->expires_ms, 8);
    to = put_le(to, h->client_id.len, 2);
    to = put_bytes(to, h->client_id);
    to = put_le(to, (uint64_t)(h->has_will | h->unclean << 1), 1);
    if (h->has_will)
        put_will(to, w);
    buf_advance(out, bytes);
    return ST_OK;
}

enum status mqtt_record_put_received(struct buf *out, const struct received_ids *ids)
{
    uint32_t place = 0, count = 0;
    const struct received *r;
    uint8_t *to;
    while ((r = received_next(ids, &place)))
        count += r->state != RECEIVED_RELEASING;
    enum status st = room(out, 2 + (size_t)count * RECEIVED_BYTES, &to);
    if (st != ST_OK)
        return st;
    to = put_le(to, count, 2);
    for (place = 0; (r = received_next(ids, &place));) {
        if (r->state == RECEIVED_RELEASING)
            continue;
        to = put_le(to, r->id, 2);
        to = put_le(to, r->state == RECEIVED_STORED, 1);
        to = put_le(to, r->sequence, 8);
    }
    buf_advance(out, 2 + (size_t)count * RECEIVED_BYTES);
    return ST_OK;
}

/* With QoS 1 a message of a shared subscription is the group's, until it is acknowledged. */
static bool is_the_groups(const struct flight *f)
{
    return f->ticket && f->qos == 1;
}

enum status mqtt_record_put_flights(struct buf *out, const struct flights *flights)
{
    size_t bytes = 2, count = 0;
    const struct flight *f;
    uint32_t place = 0;
    uint16_t id;
    uint8_t *to;
    while ((f = flights_next(flights, &place, &id))) {
        if (is_the_groups(f))
            continue;
        count++;
        bytes += FLIGHT_BYTES;
        if (f->flags & FLIGHT_SHARED)
            bytes += GROUP_BYTES;
    }
    enum status st = room(out, bytes, &to);
    if (st != ST_OK)
        return st;
    to = put_le(to, count, 2);
    for (place = 0; (f = flights_next(flights, &place, &id));) {
        if (is_the_groups(f))
            continue;
        to = put_le(to, id, 2);
        to = put_le(to, f->qos, 1);
        to = put_le(to, f->state, 1);
        to = put_le(to, f->flags & KEPT_FLIGHT_FLAGS, 1);
        to = put_le(to, f->lane, 2);
        to = put_le(to, f->offset, 8);
        to = put_le(to, f->subscription_id, 4);
        if (f->flags & FLIGHT_SHARED)
            to = put_le(to, f->group, GROUP_BYTES);
    }
    buf_advance(out, bytes);
    return ST_OK;
}

enum status mqtt_record_put_subscription(struct buf *out, const struct record_subscription *s)
{
    size_t bytes = FILTER_BYTES + s->filter.len + 8u * s->lane_count * (s->walking ? 2u : 1u);
    uint8_t *to;
    assert(s->filter.len <= UINT16_MAX && s->first_lane + s->lane_count <= PLACE_LANES_MAX);
    enum status st = room(out, bytes, &to);
    if (st != ST_OK)
        return st;
    to = put_le(to,
                (uint64_t)(s->qos | (s->no_local ? OPTION_NO_LOCAL : 0) |
                           (s->retain_as_published ? OPTION_RETAIN_AS_PUBLISHED : 0) |
                           (s->walking ? OPTION_WALKING : 0) | (s->inbox ? OPTION_INBOX : 0)),
                1);
    to = put_le(to, s->subscription_id, 4);
    to = put_le(to, s->filter.len, 2);
    to = put_bytes(to, s->filter);
    for (unsigned i = 0; i < s->lane_count; i++)
        to = put_le(to, s->next.next[s->first_lane + i], 8);
    for (unsigned i = 0; s->walking && i < s->lane_count; i++)
        to = put_le(to, s->walk.next[s->first_lane + i], 8);
    buf_advance(out, bytes);
    return ST_OK;
}

/* --- reading: a take that finds too little empties the rest and notes it ------------------------ */

struct taker {
    struct slice rest;
    bool failed;
};

static struct slice take(struct taker *t, size_t bytes)
{
    if (t->failed || t->rest.len < bytes) {
        t->failed = true;
        return (struct slice){0};
    }
    struct slice taken = slice_of(t->rest.data, bytes);
    t->rest = slice_from(t->rest, bytes);
    return taken;
}

static uint64_t take_le(struct taker *t, unsigned bytes)
{
    struct slice taken = take(t, bytes);
    uint64_t value = 0;
    for (unsigned i = 0; i < taken.len; i++)
        value |= (uint64_t)taken.data[i] << 8 * i;
    return value;
}

static bool take_flag(struct taker *t)
{
    uint64_t value = take_le(t, 1);
    t->failed |= value > 1;
    return value == 1;
}

static void take_will(struct taker *t, struct record_will *w)
{
    w->delay_s = (uint32_t)take_le(t, 4);
    w->due_ms = take_le(t, 8);
    w->expires = take_flag(t);
    w->expiry_s = (uint32_t)take_le(t, 4);
    w->qos = (uint8_t)take_le(t, 1);
    w->content = (uint8_t)take_le(t, 1);
    w->flags = (uint8_t)take_le(t, 1);
    size_t topic = take_le(t, 2), key = take_le(t, 2), props = take_le(t, 2), payload = take_le(t, 4);
    w->topic = take(t, topic);
    w->key = take(t, key);
    w->props = take(t, props);
    w->payload = take(t, payload);
    t->failed |= w->qos > 2 || w->content > CONTENT_JSON || w->topic.len == 0 || !props_valid(w->props);
}

enum status mqtt_record_open(struct slice bytes, struct record_reader *r, struct record_head *h)
{
    struct taker t = {.rest = bytes};
    *h = (struct record_head){0};
    if (take_le(&t, 1) != VERSION)
        return ST_INVALID;
    h->epoch = (uint32_t)take_le(&t, 4);
    h->lanes = (unsigned)take_le(&t, 2);
    h->node_incarnation = take_le(&t, 8);
    h->session_incarnation = take_le(&t, 8);
    h->releases = take_le(&t, 8);
    h->expiry_s = (uint32_t)take_le(&t, 4);
    h->expires_ms = take_le(&t, 8);
    h->client_id = take(&t, take_le(&t, 2));
    uint64_t flags = take_le(&t, 1);
    t.failed |= flags > 3;
    h->has_will = flags & 1;
    h->unclean = flags & 2;
    if (h->has_will)
        take_will(&t, &h->will);
    uint32_t received = (uint32_t)take_le(&t, 2);
    if (t.failed || h->lanes == 0 || h->lanes > PLACE_LANES_MAX)
        return ST_INVALID;
    *r = (struct record_reader){.rest = t.rest, .lanes = h->lanes, .left = received};
    return ST_OK;
}

/* The end of a part: the count of the next one follows, if `more`. */
static enum status part_end(struct record_reader *r, bool more)
{
    struct taker t = {.rest = r->rest};
    if (more)
        r->left = (uint32_t)take_le(&t, 2);
    r->rest = t.rest;
    return t.failed ? ST_INVALID : ST_NOT_FOUND;
}

enum status mqtt_record_next_received(struct record_reader *r, struct received *out)
{
    struct taker t = {.rest = r->rest};
    if (r->left == 0)
        return part_end(r, true);
    out->id = (uint16_t)take_le(&t, 2);
    out->state = take_flag(&t) ? RECEIVED_STORED : RECEIVED_UNSURE;
    out->sequence = take_le(&t, 8);
    out->covered = false;
    if (t.failed || out->id == 0)
        return ST_INVALID;
    r->rest = t.rest;
    r->left--;
    return ST_OK;
}

enum status mqtt_record_next_flight(struct record_reader *r, uint16_t *id, struct flight *out)
{
    struct taker t = {.rest = r->rest};
    if (r->left == 0)
        return part_end(r, false);
    *out = (struct flight){0};
    *id = (uint16_t)take_le(&t, 2);
    out->qos = (uint8_t)take_le(&t, 1);
    out->state = (uint8_t)take_le(&t, 1);
    out->flags = (uint8_t)take_le(&t, 1);
    out->lane = (uint16_t)take_le(&t, 2);
    out->offset = take_le(&t, 8);
    out->subscription_id = (uint32_t)take_le(&t, 4);
    if (out->flags & FLIGHT_SHARED)
        out->group = take_le(&t, GROUP_BYTES);
    bool half = out->state == FLIGHT_RECEIVED || out->state == FLIGHT_RELEASED;
    bool unsent = out->state == FLIGHT_HELD || out->state == FLIGHT_SENT || out->state == FLIGHT_OWED;
    if (t.failed || *id == 0 || out->qos < 1 || out->qos > 2 || (out->flags & ~KEPT_FLIGHT_FLAGS) ||
        !(unsent || (half && out->qos == 2)) || out->lane >= r->lanes)
        return ST_INVALID;
    r->rest = t.rest;
    r->left--;
    return ST_OK;
}

enum status mqtt_record_next_subscription(struct record_reader *r, struct record_subscription *s)
{
    struct taker t = {.rest = r->rest};
    if (r->rest.len == 0)
        return ST_NOT_FOUND;
    uint8_t options = (uint8_t)take_le(&t, 1);
    s->subscription_id = (uint32_t)take_le(&t, 4);
    s->filter = take(&t, take_le(&t, 2));
    if (t.failed || (options & ~OPTIONS) || (options & OPTION_QOS) == 3 || s->filter.len == 0)
        return ST_INVALID;
    s->qos = options & OPTION_QOS;
    s->no_local = options & OPTION_NO_LOCAL;
    s->retain_as_published = options & OPTION_RETAIN_AS_PUBLISHED;
    s->walking = options & OPTION_WALKING;
    s->inbox = options & OPTION_INBOX;
    s->first_lane = 0;
    struct slice matched = s->filter;
    if (!topic_share_filter(s->filter, &matched)) /* a shared one lies where its messages do */
        matched = s->filter;
    s->lane_count = topic_filter_partition(matched, r->lanes, &s->first_lane) ? 1 : r->lanes;
    s->next = s->walk = (struct place){.lane_count = r->lanes};
    for (unsigned i = 0; i < s->lane_count; i++)
        s->next.next[s->first_lane + i] = take_le(&t, 8);
    for (unsigned i = 0; s->walking && i < s->lane_count; i++)
        s->walk.next[s->first_lane + i] = take_le(&t, 8);
    if (t.failed)
        return ST_INVALID;
    r->rest = t.rest;
    return ST_OK;
}

bool mqtt_record_valid(struct slice bytes, uint32_t epoch, unsigned lanes, struct slice *filters)
{
    struct record_reader r;
    struct record_head head;
    struct received received;
    struct flight flight;
    struct record_subscription subscription;
    uint16_t id;
    enum status st;
    if (mqtt_record_open(bytes, &r, &head) != ST_OK || head.epoch != epoch || head.lanes != lanes)
        return false;
    while ((st = mqtt_record_next_received(&r, &received)) == ST_OK)
        ;
    while (st == ST_NOT_FOUND && (st = mqtt_record_next_flight(&r, &id, &flight)) == ST_OK)
        st = ST_NOT_FOUND;
    if (st != ST_NOT_FOUND)
        return false;
    *filters = r.rest;
    while ((st = mqtt_record_next_subscription(&r, &subscription)) == ST_OK)
        ;
    return st == ST_NOT_FOUND;
}
