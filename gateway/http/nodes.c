/* GET /v1/nodes: the nodes of the cluster, which in this build is the one that is asked. */
#include "gateway/http/request.h"

#include "gateway/json_out.h"

#include <stdio.h>

enum { ANSWER_BYTES_MAX = 64 << 10, HEX_BYTES = 17 };

static void put_name(struct json_out *o, struct slice name)
{
    json_out_literal(o, ",");
    json_out_string(o, name);
    json_out_literal(o, ":");
}

static void put_number(struct json_out *o, const char *name, uint64_t value)
{
    put_name(o, slice_cstr(name));
    json_out_number(o, value);
}

static void put_hex(struct json_out *o, const char *name, int digits, uint64_t value)
{
    char text[HEX_BYTES];
    snprintf(text, sizeof text, "%0*lx", digits, (unsigned long)value);
    put_name(o, slice_cstr(name));
    json_out_string(o, slice_cstr(text));
}

static const char *state_of(const struct node_facts *f)
{
    if (atomic_load(&f->stopping))
        return "stopping";
    if (atomic_load(&f->draining))
        return "draining";
    return atomic_load(&f->ready) ? "ready" : "starting";
}

static void put_bridge(struct json_out *o, const struct bridge_figures *b)
{
    const char *why = atomic_load(&b->why);
    json_out_literal(o, "{\"name\":");
    json_out_string(o, slice_cstr(b->name));
    put_name(o, slice_cstr("connected"));
    if (atomic_load(&b->connected))
        json_out_literal(o, "true");
    else
        json_out_literal(o, "false");
    put_number(o, "since_ms", atomic_load(&b->since_ms));
    put_name(o, slice_cstr("why"));
    if (atomic_load(&b->connected) || !why)
        json_out_literal(o, "null");
    else
        json_out_string(o, slice_cstr(why));
    put_number(o, "in", atomic_load(&b->in));
    put_number(o, "out", atomic_load(&b->out));
    put_number(o, "dropped", atomic_load(&b->dropped));
    put_number(o, "reconnects", atomic_load(&b->reconnects));
    json_out_literal(o, "}");
}

static void put_bridges(struct json_out *o, const struct node_facts *f)
{
    put_name(o, slice_cstr("bridges"));
    json_out_literal(o, "[");
    /* Acquire: pairs with the release of whoever has put the list there. */
    const struct bridge_list *list = atomic_load_explicit(&f->bridges, memory_order_acquire);
    for (size_t i = 0; list && i < list->count; i++) {
        if (i > 0)
            json_out_literal(o, ",");
        put_bridge(o, list->each[i]);
    }
    json_out_literal(o, "]");
}

static void put_node(struct json_out *o, const struct node_facts *f)
{
    json_out_literal(o, "{\"node\":");
    json_out_string(o, slice_cstr(f->settings->node_id));
    json_out_literal(o, ",\"self\":true,\"state\":");
    json_out_string(o, slice_cstr(state_of(f)));
    json_out_literal(o, ",\"version\":\"" TIDEGATE_VERSION "\"");
    put_number(o, "started_ms", f->started_wall_ms);
    put_hex(o, "incarnation", 1, f->incarnation);
    put_hex(o, "epoch", 8, f->epoch);
    put_number(o, "partitions", f->lane_count);
    put_number(o, "connections", atomic_load(&f->connections));
    put_bridges(o, f);
    json_out_literal(o, "}");
}

void nodes_run(struct request *r)
{
    struct buf body;
    buf_init(&body, ANSWER_BYTES_MAX);
    struct json_out o = {.buf = &body, .status = ST_OK};
    json_out_literal(&o, "{\"nodes\":[");
    put_node(&o, r->api->edge->facts);
    json_out_literal(&o, "]}\n");
    if (o.status == ST_OK) {
        request_reply(r, 200, "application/json", &body);
    } else {
        buf_deinit(&body);
        request_unavailable(r, "no memory");
    }
}
