/* GET /v1/connections: the connections of all loops, page by page; GET and DELETE of one.
 *
 * A list is a walk (session/walk.h): each loop writes its own connections into the answer while it has the
 * letter, so nobody looks into another loop's memory. One connection is a walk that begins right before its
 * number and ends with it.
 *
 * Of a user, the last page ends with what the directory knows of him at other nodes: which, not how far. */
#include "gateway/http/request.h"

#include "gateway/http/connection_json.h"
#include "session/walk.h"

#include <stdlib.h>

enum { LIST_DEFAULT = 100, LIST_MAX = 1000, TEXT_BYTES_MAX = 64 << 20 };

struct list_request {
    struct walk walk;
    struct directory_find find; /* of `user`, when the walk is over */
    struct request *request; /* NULL: given up; freed when it is back */
    struct edge *edge;
    uint64_t only; /* this one, whole; 0: a list */
    bool kick, listed; /* listed: there is one in the answer */
    uint32_t left;
    uint64_t last; /* what `next` names when there may be more */
    struct slice user, topic; /* in `texts`; empty: any */
    struct buf text;
    struct json_out out;
    uint8_t texts[];
};

/* --- the target --------------------------------------------------------------------------------- */

static bool own_connection(const struct request *r, struct slice text, uint64_t *id)
{
    const struct edge *e = r->api->edge;
    struct slice node;
    uint64_t incarnation;
    return connection_id_read(text, &node, &incarnation, id) && incarnation == e->facts->incarnation &&
           slice_equal_cstr(node, e->settings->node_id) && *id > 0;
}

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    uint64_t max;
    if (slice_equal_cstr(name, "user")) {
        r->user = value;
    } else if (slice_equal_cstr(name, "max")) {
        if (!read_number(value, &max))
            request_bad(r, "max must be an integer of at least 1");
        else
            r->list.max = max < LIST_MAX ? (uint32_t)max : LIST_MAX;
    } else if (!slice_equal_cstr(name, "after")) {
        request_unknown_parameter(r, name, "; there are user, topic, max and after");
    } else if (!own_connection(r, value, &r->list.after)) {
        request_bad(r, "after must be a connection of this life of the node, as `next` names it");
    }
}

static void begin_one(struct request *r, struct slice id)
{
    request_read_parameters(r, NULL);
    if (request_is_answered(r))
        return;
    if (r->topic.len > 0) {
        request_unknown_parameter(r, slice_cstr("topic"), "");
        return;
    }
    r->list.one = true;
    if (!own_connection(r, id, &r->list.after))
        request_not_found(r, "there is no such connection");
}

void connections_begin(struct request *r)
{
    struct slice id = slice_from(r->target.path, strlen(r->route->path) + 1);
    r->list.max = LIST_DEFAULT;
    if (id.len > 0) {
        begin_one(r, id);
        return;
    }
    request_read_parameters(r, on_parameter);
    if (request_is_answered(r))
        return;
    if (r->deletes)
        request_bad(r, "name one connection in the path");
    else if (r->topic.len > 0 && !topic_name_valid(r->topic, &r->api->topic))
        request_bad(r, "the topic is not a topic name within the limits");
}

/* --- answers ------------------------------------------------------------------------------------ */

static void reply(struct list_request *l, unsigned status)
{
    struct request *r = l->request;
    if (!r)
        return;
    r->pending = NULL;
    if (l->out.status == ST_OK)
        request_reply(r, status, "application/json", &l->text);
    else
        request_unavailable(r, "no memory");
}

static void reply_one(struct list_request *l)
{
    if (l->text.len > 0) {
        json_out_literal(&l->out, "\n");
        reply(l, 200);
    } else if (l->request) {
        l->request->pending = NULL;
        request_not_found(l->request, "there is no such connection");
    }
}

static void reply_list(struct list_request *l)
{
    json_out_literal(&l->out, "]");
    json_out_freshness(&l->out, l->find.shared, l->find.stale, l->find.as_of_ms);
    if (l->walk.stopped) {
        json_out_literal(&l->out, ",\"next\":");
        connection_json_id(&l->out, l->edge->facts, l->last);
    }
    json_out_literal(&l->out, "}\n");
    reply(l, 200);
}

static void finish(struct list_request *l)
{
    if (l->only)
        reply_one(l);
    else
        reply_list(l);
    buf_deinit(&l->text);
    free(l->find.found);
    free(l);
}

/* --- at other nodes ------------------------------------------------------------------------------ */

static void put_elsewhere(struct list_request *l, const struct directory_found *f)
{
    struct json_out *o = &l->out;
    char id[256 + CONNECTION_ID_TAIL_BYTES + 1];
    size_t len = connection_id_write(f->node, f->incarnation, f->connection, id, sizeof id);
    json_out_put(o, slice_cstr(l->listed ? ",{\"id\":" : "{\"id\":"));
    json_out_string(o, slice_of(id, len));
    json_out_literal(o, ",\"node\":");
    json_out_string(o, slice_cstr(f->node));
    json_out_literal(o, ",\"door\":");
    json_out_string(o, slice_cstr(f->door));
    json_out_literal(o, ",\"user\":");
    json_out_string(o, l->user);
    json_out_literal(o, ",\"since_ms\":");
    json_out_number(o, f->since_ms);
    json_out_literal(o, "}");
    l->listed = true;
}

static void on_found(struct directory_find *f)
{
    struct list_request *l = LIST_OF(f, struct list_request, find);
    for (uint32_t i = 0; i < f->found_count; i++)
        if (strcmp(f->found[i].node, l->edge->settings->node_id) != 0)
            put_elsewhere(l, &f->found[i]);
    if (f->status != ST_OK)
        l->out.status = f->status;
    finish(l);
}

static void on_end(struct walk *w)
{
    struct list_request *l = LIST_OF(w, struct list_request, walk);
    struct directory d = hub_directory(l->edge->hub);
    if (!l->request || l->user.len == 0 || l->topic.len > 0 || w->stopped) {
        finish(l);
        return;
    }
    l->find.user = l->user;
    l->find.on_found = on_found;
    d.ops->find(d.ctx, &l->find);
}

/* --- on each loop ------------------------------------------------------------------------------- */

static bool take_one(struct list_request *l, struct session *s)
{
    if (session_id(s) != l->only)
        return false;
    connection_json_put(&l->out, l->edge->facts, s, !l->kick);
    if (l->kick)
        session_kick(s);
    return false;
}

static bool on_session(struct walk *w, struct session *s)
{
    struct list_request *l = LIST_OF(w, struct list_request, walk);
    if (l->only)
        return take_one(l, s);
    if ((l->user.len > 0 && !slice_equal(session_user(s), l->user)) ||
        (l->topic.len > 0 && !session_wants(s, l->topic)))
        return true;
    if (l->left == 0) /* there is one more: that is why there is a `next` */
        return false;
    if (l->listed)
        json_out_literal(&l->out, ",");
    l->listed = true;
    connection_json_put(&l->out, l->edge->facts, s, false);
    l->last = session_id(s);
    l->left--;
    return true;
}

/* --- the whole ---------------------------------------------------------------------------------- */

static struct slice keep_text(struct slice text, uint8_t *to)
{
    if (text.len > 0)
        memcpy(to, text.data, text.len);
    return slice_of(to, text.len);
}

void connections_run(struct request *r)
{
    struct list_request *l = calloc(1, sizeof *l + r->user.len + r->topic.len);
    if (!l) {
        request_unavailable(r, "no memory");
        return;
    }
    l->request = r;
    l->edge = r->api->edge;
    l->kick = r->deletes;
    l->left = r->list.max;
    l->only = r->list.one ? r->list.after : 0;
    l->walk.after = r->list.one ? r->list.after - 1 : r->list.after;
    l->user = keep_text(r->user, l->texts);
    l->topic = keep_text(r->topic, l->texts + r->user.len);
    l->walk.on_session = on_session;
    l->walk.on_end = on_end;
    buf_init(&l->text, TEXT_BYTES_MAX);
    l->out = (struct json_out){.buf = &l->text, .status = ST_OK};
    if (!l->only)
        json_out_literal(&l->out, "{\"connections\":[");
    r->pending = l;
    walk_begin(r->api->edge->hub, &l->walk);
}

void connections_give_up(struct request *r)
{
    struct list_request *l = r->pending;
    l->request = NULL; /* it comes back some time, and is freed */
    r->pending = NULL;
    request_unavailable(r, "not all loops, or not the directory, have answered in time");
}
