/* GET /v1/drops: the ledgers of drops of all loops (session/drops.h). A visit goes from loop to loop and each
 * writes its entries into the answer, so nobody looks into another loop's memory. */
#include "gateway/http/request.h"

#include "gateway/json_out.h"

#include <stdio.h>
#include <stdlib.h>

enum { DROPS_BYTES_MAX = 64 << 20 };

struct ledger {
    struct hub_visit visit;
    struct request *request; /* NULL: given up; freed when it is back */
    uint32_t epoch;
    uint64_t entries, evicted;
    struct buf text;
    struct json_out out;
};

static void put_drop(void *ctx, const struct drop *drop)
{
    struct ledger *l = ctx;
    struct json_out *o = &l->out;
    char session[24];
    snprintf(session, sizeof session, "%lu", (unsigned long)drop->session); /* may be over 2^53-1 */
    if (l->entries++ > 0)
        json_out_literal(o, ",");
    json_out_literal(o, "{\"topic\":");
    json_out_string(o, drop->filter);
    json_out_literal(o, ",\"session\":");
    json_out_string(o, slice_cstr(session));
    json_out_literal(o, ",\"name\":");
    json_out_string(o, drop->name);
    json_out_literal(o, ",\"why\":");
    json_out_string(o, slice_cstr(drop_reason(drop->why)));
    json_out_literal(o, ",\"count\":");
    json_out_number(o, drop->count);
    if (drop->why != M_DROPPED_UNSTORED && drop->why != M_REFUSED_RATE) {
        json_out_literal(o, ",\"from\":");
        json_out_position(o, l->epoch, drop->lane, drop->from);
        json_out_literal(o, ",\"to\":");
        json_out_position(o, l->epoch, drop->lane, drop->to);
    }
    json_out_literal(o, ",\"first\":");
    json_out_number(o, drop->first_ms);
    json_out_literal(o, ",\"last\":");
    json_out_number(o, drop->last_ms);
    json_out_literal(o, "}");
}

static void on_visit(struct hub_visit *v, struct hub *h)
{
    struct ledger *l = LIST_OF(v, struct ledger, visit);
    l->evicted += drops_evicted(hub_drops(h));
    drops_each(hub_drops(h), put_drop, l);
}

static void on_back(struct hub_visit *v)
{
    struct ledger *l = LIST_OF(v, struct ledger, visit);
    struct request *r = l->request;
    json_out_literal(&l->out, "],\"evicted\":");
    json_out_number(&l->out, l->evicted);
    json_out_literal(&l->out, "}\n");
    if (r) {
        r->pending = NULL;
        if (l->out.status == ST_OK)
            request_reply(r, 200, "application/json", &l->text);
        else
            request_unavailable(r, "no memory");
    }
    buf_deinit(&l->text);
    free(l);
}

void drops_run(struct request *r)
{
    struct ledger *l = calloc(1, sizeof *l);
    if (!l) {
        request_unavailable(r, "no memory");
        return;
    }
    l->request = r;
    l->epoch = r->api->edge->facts->epoch;
    buf_init(&l->text, DROPS_BYTES_MAX);
    l->out = (struct json_out){.buf = &l->text, .status = ST_OK};
    json_out_literal(&l->out, "{\"drops\":[");
    l->visit.on_visit = on_visit;
    l->visit.on_back = on_back;
    r->pending = l;
    hub_visit_all(r->api->edge->hub, &l->visit);
}

void drops_give_up(struct request *r)
{
    struct ledger *l = r->pending;
    l->request = NULL; /* it comes back some time, and is freed */
    r->pending = NULL;
    request_unavailable(r, "not all loops have answered in time");
}
