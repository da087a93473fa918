/* GET /v1/sessions/<name>: what outlives a connection. The name is the MQTT client identifier, or the hash of
 * a WebSocket's token (what /v1/connections calls `session`; the token itself is told to nobody but the
 * client), or of user and client identifier. First whether it is connected, by a walk over all loops; else
 * its record is read from its shard, or looked for among all records: they are named by hashes, and whose the
 * client identifier is, the request does not say. */
#include "gateway/http/request.h"

#include "gateway/http/connection_json.h"
#include "gateway/mqtt/record.h"
#include "session/away.h"
#include "session/record.h"
#include "session/walk.h"

#include <stdlib.h>

enum { TEXT_BYTES_MAX = 64 << 20, DESCRIBE_COST = 4 };

static const char record_prefix[] = "$session/";

struct session_request {
    struct walk walk;
    struct read read;
    struct away_walk records;
    struct request *request; /* NULL: given up; freed when it is back */
    struct edge *edge;
    bool hash; /* the name may be that of a WebSocket's session */
    struct buf text;
    struct json_out out;
    size_t len; /* of `topic`, whose end is the name */
    uint8_t topic[];
};

static struct slice name_of(const struct session_request *q)
{
    return slice_from(slice_of(q->topic, q->len), sizeof record_prefix - 1);
}

static bool is_hash(struct slice name)
{
    if (name.len != KEEPER_NAME_BYTES)
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!(name.data[i] >= '0' && name.data[i] <= '9') && !(name.data[i] >= 'a' && name.data[i] <= 'f'))
            return false;
    return true;
}

static void end(struct session_request *q)
{
    struct request *r = q->request;
    if (r) {
        r->pending = NULL;
        if (q->out.status != ST_OK)
            request_unavailable(r, "no memory");
        else if (q->text.len > 0)
            request_reply(r, 200, "application/json", &q->text);
        else
            request_not_found(r, "there is no such session");
    }
    buf_deinit(&q->text);
    free(q);
}

/* --- its record --------------------------------------------------------------------------------- */

static void put_topic(struct session_request *q, struct slice filter, const struct place *place, bool first)
{
    struct json_out *o = &q->out;
    char text[BOOKMARK_BYTES_MAX];
    if (!first)
        json_out_literal(o, ",");
    json_out_literal(o, "{\"topic\":");
    json_out_string(o, filter);
    if (place) {
        json_out_literal(o, ",\"pos\":");
        json_out_string(o, slice_of(text, bookmark_write(q->edge->facts->epoch, place, text)));
    }
}

static void put_filter(struct session_request *q, const struct record_filter *f, bool first)
{
    unsigned lanes = q->edge->facts->lane_count, lane = 0;
    struct place place = {.lane_count = lanes};
    if ((f->flags & RECORD_ACK) && f->lane_count == 1)
        (void)topic_filter_partition(f->filter, lanes, &lane);
    for (unsigned i = 0; (f->flags & RECORD_ACK) && i < f->lane_count && lane + i < lanes; i++)
        place.next[lane + i] = f->next[i];
    put_topic(q, f->filter, f->flags & RECORD_ACK ? &place : NULL, first);
    json_out_literal(&q->out, "}");
}

static void put_number(struct json_out *o, struct slice name, uint64_t value)
{
    json_out_literal(o, ",");
    json_out_string(o, name);
    json_out_literal(o, ":");
    json_out_number(o, value);
}

static void put_subscriptions(struct session_request *q, struct slice filters)
{
    struct json_out *o = &q->out;
    struct record_reader r = {.rest = filters, .lanes = q->edge->facts->lane_count};
    struct record_subscription s;
    uint64_t count = 0;
    json_out_literal(o, ",\"filters\":[");
    for (; mqtt_record_next_subscription(&r, &s) == ST_OK; count++) {
        if (count >= CONNECTION_FILTERS_MAX)
            continue;
        put_topic(q, s.filter, &s.next, count == 0);
        put_number(o, slice_cstr("qos"), s.qos);
        json_out_literal(o, "}");
    }
    json_out_literal(o, "]");
    put_number(o, slice_cstr("subscriptions"), count);
}

/* An MQTT session. Its end is not there when it has none, or not yet: it ended with its node a moment ago.
 * One that has ended, or whose record is there for its will alone, is none. */
static bool put_mqtt_record(struct session_request *q, struct slice name, struct slice bytes)
{
    const struct node_facts *facts = q->edge->facts;
    struct json_out *o = &q->out;
    struct record_reader r;
    struct record_head head;
    struct received received;
    struct flight flight;
    struct slice filters;
    uint16_t id;
    uint64_t flights = 0;
    if (mqtt_record_open(bytes, &r, &head) != ST_OK || head.expiry_s == 0 ||
        (head.expires_ms > 0 && head.expires_ms <= loop_wall_ms(q->edge->loop)) ||
        !mqtt_record_valid(bytes, facts->epoch, facts->lane_count, &filters))
        return false;
    while (mqtt_record_next_received(&r, &received) == ST_OK) {
    }
    while (mqtt_record_next_flight(&r, &id, &flight) == ST_OK)
        flights++;
    json_out_literal(o, "{\"connected\":false,\"session\":");
    json_out_string(o, name);
    json_out_literal(o, ",\"client_id\":");
    json_out_string(o, head.client_id);
    if (head.expiry_s != RECORD_NEVER)
        put_number(o, slice_cstr("expiry_s"), head.expiry_s);
    if (head.expires_ms > 0)
        put_number(o, slice_cstr("expires_ms"), head.expires_ms);
    put_number(o, slice_cstr("unacknowledged"), flights);
    if (head.has_will && head.will.due_ms > 0)
        put_number(o, slice_cstr("will_ms"), head.will.due_ms);
    put_subscriptions(q, filters);
    json_out_literal(o, "}\n");
    return true;
}

/* A record of another epoch, or one that cannot be read, is as good as none: nobody can resume by it. */
static void put_record(struct session_request *q, struct slice bytes)
{
    if (put_mqtt_record(q, name_of(q), bytes))
        return;
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    struct json_out *o = &q->out;
    if (record_open(bytes, &place, &epoch, &lanes) != ST_OK || epoch != q->edge->facts->epoch)
        return;
    json_out_literal(o, "{\"connected\":false,\"session\":");
    json_out_string(o, name_of(q));
    json_out_literal(o, ",\"filters\":[");
    for (bool first = true; record_next(bytes, &place, lanes, &f) == ST_OK; first = false)
        put_filter(q, &f, first);
    json_out_literal(o, "]}\n");
}

/* --- all records -------------------------------------------------------------------------------- */

static void search_on_record(struct away_walk *w, const char name[KEEPER_NAME_BYTES], struct slice record)
{
    struct session_request *q = LIST_OF(w, struct session_request, records);
    struct record_reader r;
    struct record_head head;
    w->enough = !q->request ||
                (mqtt_record_open(record, &r, &head) == ST_OK && slice_equal(head.client_id, name_of(q)) &&
                 put_mqtt_record(q, slice_of(name, KEEPER_NAME_BYTES), record));
}

static void search_on_end(struct away_walk *w)
{
    struct session_request *q = LIST_OF(w, struct session_request, records);
    if (!w->enough && ++w->lane < q->edge->facts->lane_count)
        away_walk_start(w);
    else
        end(q);
}

static void search(struct session_request *q)
{
    q->records =
        (struct away_walk){.hub = q->edge->hub, .on_record = search_on_record, .on_end = search_on_end};
    away_walk_start(&q->records);
}

/* --- one record ---------------------------------------------------------------------------------- */

static void on_read(struct read *read)
{
    struct session_request *q = LIST_OF(read, struct session_request, read);
    struct store_read *s = &read->store;
    if (s->status == ST_OK && s->found > 0 && hub_shows(q->edge->hub, s->msgs[0], true))
        put_record(q, msg_payload(s->msgs[0]));
    read_release(read);
    if (q->text.len == 0)
        search(q); /* a client identifier may look like a hash */
    else
        end(q);
}

static void read_record(struct session_request *q)
{
    struct slice topic = slice_of(q->topic, q->len);
    q->read = (struct read){.store = {.lane = topic_partition(topic, q->edge->facts->lane_count),
                                      .to = UINT64_MAX,
                                      .topic = topic,
                                      .count_max = 1},
                            .session = true,
                            .on_read = on_read};
    hub_read_retained(q->edge->hub, &q->read);
}

/* --- its connection ----------------------------------------------------------------------------- */

static bool on_session(struct walk *w, struct session *s)
{
    struct session_request *q = LIST_OF(w, struct session_request, walk);
    struct connection_facts known;
    session_describe(s, &known);
    if (!slice_equal(known.client_id, name_of(q)) && !(q->hash && slice_equal(known.session, name_of(q))))
        return true;
    json_out_literal(&q->out, "{\"connected\":true,\"connection\":");
    connection_json_put(&q->out, q->edge->facts, s, true);
    json_out_literal(&q->out, "}\n");
    return false;
}

static void on_end(struct walk *w)
{
    struct session_request *q = LIST_OF(w, struct session_request, walk);
    if (q->text.len > 0 || !q->request || q->out.status != ST_OK)
        end(q);
    else if (q->hash)
        read_record(q);
    else
        search(q);
}

/* --- the whole ---------------------------------------------------------------------------------- */

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    if (!slice_equal_cstr(name, "name"))
        request_unknown_parameter(r, name, "; there is name");
    else if (r->user.len > 0)
        request_bad(r, "the session is named twice");
    else
        r->user = value;
}

void sessions_begin(struct request *r)
{
    r->user = slice_from(r->target.path, strlen(r->route->path) + 1);
    request_read_parameters(r, on_parameter);
    if (request_is_answered(r))
        return;
    if (r->topic.len > 0)
        request_unknown_parameter(r, slice_cstr("topic"), "; there is name");
    else if (r->user.len == 0)
        request_bad(r, "name a session in the path or in ?name=: an MQTT client identifier, or what a "
                       "connection has as `session`");
}

void sessions_run(struct request *r)
{
    size_t prefix = sizeof record_prefix - 1;
    struct session_request *q = calloc(1, sizeof *q + prefix + r->user.len);
    if (!q) {
        request_unavailable(r, "no memory");
        return;
    }
    memcpy(q->topic, record_prefix, prefix);
    memcpy(q->topic + prefix, r->user.data, r->user.len);
    q->len = prefix + r->user.len;
    q->hash = is_hash(r->user);
    q->request = r;
    q->edge = r->api->edge;
    buf_init(&q->text, TEXT_BYTES_MAX);
    q->out = (struct json_out){.buf = &q->text, .status = ST_OK};
    q->walk.cost = DESCRIBE_COST;
    q->walk.on_session = on_session;
    q->walk.on_end = on_end;
    r->pending = q;
    walk_begin(q->edge->hub, &q->walk);
}

void sessions_give_up(struct request *r)
{
    struct session_request *q = r->pending;
    q->request = NULL; /* it comes back some time, and is freed */
    r->pending = NULL;
    request_unavailable(r, "the session was not found in time");
}
