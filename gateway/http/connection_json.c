#include "gateway/http/connection_json.h"

#include <stdlib.h>

enum { NODE_BYTES_USUAL = 128 };

void connection_json_id(struct json_out *o, const struct node_facts *facts, uint64_t id)
{
    const char *node = facts->settings->node_id;
    size_t size = strlen(node) + CONNECTION_ID_TAIL_BYTES + 1;
    char few[NODE_BYTES_USUAL], *text = size <= sizeof few ? few : malloc(size);
    if (!text) {
        o->status = ST_NO_MEMORY;
        return;
    }
    size_t len = connection_id_write(node, facts->incarnation, id, text, size);
    json_out_string(o, slice_of(text, len));
    if (text != few)
        free(text);
}

/* ,"name":"text", or nothing when it is empty. */
static void put_text(struct json_out *o, struct slice name, struct slice text)
{
    if (text.len == 0)
        return;
    json_out_literal(o, ",");
    json_out_string(o, name);
    json_out_literal(o, ":");
    json_out_string(o, text);
}

static void put_number(struct json_out *o, struct slice name, uint64_t value)
{
    json_out_literal(o, ",");
    json_out_string(o, name);
    json_out_literal(o, ":");
    json_out_number(o, value);
}

/* --- subscriptions ------------------------------------------------------------------------------ */

struct filters {
    struct json_out *out;
    const struct node_facts *facts;
    unsigned count;
};

static void put_filter(void *ctx, struct subscription *sub)
{
    struct filters *f = ctx;
    struct json_out *o = f->out;
    struct place place = {.lane_count = f->facts->lane_count};
    char text[BOOKMARK_BYTES_MAX];
    unsigned first, count;
    if (f->count == CONNECTION_FILTERS_MAX)
        return;
    subscription_lanes(sub, &first, &count);
    for (unsigned lane = first; lane < first + count; lane++)
        place.next[lane] = subscription_reached(sub, lane);
    json_out_put(o, slice_cstr(f->count++ > 0 ? ",{\"topic\":" : "{\"topic\":"));
    json_out_string(o, subscription_filter(sub));
    put_text(o, slice_cstr("pos"), slice_of(text, bookmark_write(f->facts->epoch, &place, text)));
    put_number(o, slice_cstr("behind"), subscription_behind(sub));
    put_number(o, slice_cstr("qos"), subscription_options_of(sub)->qos);
    json_out_literal(o, "}");
}

void connection_json_filters(struct json_out *o, const struct node_facts *facts, struct session *s)
{
    struct filters f = {.out = o, .facts = facts};
    json_out_literal(o, "[");
    session_each(s, put_filter, &f);
    json_out_literal(o, "]");
}

/* --- the whole ---------------------------------------------------------------------------------- */

void connection_json_put(struct json_out *o, const struct node_facts *facts, struct session *s, bool filters)
{
    struct connection_facts known;
    session_describe(s, &known);
    json_out_literal(o, "{\"id\":");
    connection_json_id(o, facts, session_id(s));
    put_text(o, slice_cstr("node"), slice_cstr(facts->settings->node_id));
    put_text(o, slice_cstr("door"), slice_cstr(session_door(s)));
    put_text(o, slice_cstr("address"), known.address);
    put_text(o, slice_cstr("user"), session_user(s));
    put_text(o, slice_cstr("client_id"), known.client_id);
    put_text(o, slice_cstr("session"), known.session);
    put_number(o, slice_cstr("since_ms"), session_since_ms(s));
    put_number(o, slice_cstr("subscriptions"), session_subscriptions(s));
    put_number(o, slice_cstr("queued_bytes"), known.queued_bytes);
    put_number(o, slice_cstr("unacknowledged"), known.unacknowledged);
    if (filters) {
        json_out_literal(o, ",\"filters\":");
        connection_json_filters(o, facts, s);
    }
    json_out_literal(o, "}");
}
