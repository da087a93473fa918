/* GET /v1/nodes: the one that is asked, and those that share its directory, if it has one. In the order of
 * their names, so that the answer is the same at each. */
#include "gateway/http/request.h"

#include "gateway/json_out.h"
#include "gateway/shared_directory.h"
#include "routing/directory_redis.h"

#include <stdio.h>
#include <stdlib.h>

enum { ANSWER_BYTES_MAX = 64 << 10, NODE_BYTES_MAX = 2048, HEX_BYTES = 17 };

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
    json_out_string(o, slice_cstr(node_state(f)));
    json_out_literal(o, ",\"version\":\"" TIDEGATE_VERSION "\"");
    put_number(o, "started_ms", f->started_wall_ms);
    put_hex(o, "incarnation", 1, f->incarnation);
    put_hex(o, "epoch", 8, f->epoch);
    put_number(o, "partitions", f->lane_count);
    put_number(o, "connections", atomic_load(&f->connections));
    put_bridges(o, f);
    json_out_literal(o, "}");
}

/* As its lease says: figures of up to a third of directory.redis.lease_ms ago. */
static void put_other(struct json_out *o, const struct directory_node *n)
{
    json_out_literal(o, "{\"node\":");
    json_out_string(o, slice_cstr(n->id));
    json_out_literal(o, ",\"self\":false,\"state\":");
    json_out_string(o, slice_cstr(n->state));
    put_name(o, slice_cstr("version"));
    json_out_string(o, slice_cstr(n->version));
    put_number(o, "started_ms", n->started_ms);
    put_hex(o, "incarnation", 1, n->incarnation);
    put_hex(o, "epoch", 8, n->epoch);
    put_number(o, "partitions", n->partitions);
    put_number(o, "connections", n->connections);
    json_out_literal(o, "}");
}

static void put_nodes(struct json_out *o, const struct node_facts *f, const struct directory_find *find)
{
    const char *own = f->settings->node_id;
    uint32_t before = 0;
    for (uint32_t i = 0; i < find->node_count; i++) {
        if (strcmp(find->nodes[i].id, own) >= 0)
            continue;
        put_other(o, &find->nodes[i]);
        json_out_literal(o, ",");
        before++;
    }
    put_node(o, f);
    for (uint32_t i = before; i < find->node_count; i++) {
        if (strcmp(find->nodes[i].id, own) == 0)
            continue;
        json_out_literal(o, ",");
        put_other(o, &find->nodes[i]);
    }
}

static void answer(struct request *r, const struct directory_find *find)
{
    struct buf body;
    buf_init(&body, ANSWER_BYTES_MAX + (size_t)find->node_count * NODE_BYTES_MAX);
    struct json_out o = {.buf = &body, .status = ST_OK};
    json_out_literal(&o, "{\"nodes\":[");
    put_nodes(&o, r->api->edge->facts, find);
    json_out_literal(&o, "]");
    json_out_freshness(&o, find->shared, find->stale, find->as_of_ms);
    json_out_literal(&o, "}\n");
    if (o.status == ST_OK) {
        request_reply(r, 200, "application/json", &body);
    } else {
        buf_deinit(&body);
        request_unavailable(r, "no memory");
    }
}

/* --- with a shared directory ------------------------------------------------------------------------ */

struct nodes_look_up {
    struct directory_find find;
    struct request *request; /* NULL: given up; freed when it is back */
};

static void on_found(struct directory_find *f)
{
    struct nodes_look_up *l = LIST_OF(f, struct nodes_look_up, find);
    if (l->request) {
        l->request->pending = NULL;
        answer(l->request, f);
    }
    free(f->nodes);
    free(l);
}

void nodes_run(struct request *r)
{
    const struct directory_find none = {0};
    struct directory d = hub_directory(r->api->edge->hub);
    if (!r->api->edge->facts->directory) {
        answer(r, &none);
        return;
    }
    struct nodes_look_up *l = calloc(1, sizeof *l);
    if (!l) {
        request_unavailable(r, "no memory");
        return;
    }
    l->request = r;
    l->find.on_found = on_found;
    r->pending = l;
    d.ops->find(d.ctx, &l->find);
}

void nodes_give_up(struct request *r)
{
    struct nodes_look_up *l = r->pending;
    l->request = NULL;
    r->pending = NULL;
    request_unavailable(r, "the directory has not answered in time");
}
