/* Users: what is sent to one, and where he is.
 *
 *   POST /v1/users/<user>/messages[/<sub/topic>]    publishes to `$user/<id>[/<sub/topic>]`, by publish.c
 *   GET  /v1/users/<user>                           FIND at the directory, then where his inbox's cursor is
 *   both as /v1/users?user=<any user>[&topic=<sub/topic>]: a path cannot carry every name
 *
 * The path and the query name the user as he is; only in topics is he encoded (routing/user.h). */
#include "gateway/http/request.h"

#include "gateway/json_out.h"
#include "routing/user.h"
#include "session/inbox.h"

#include <stdlib.h>

enum { ENTRY_BYTES_MAX = 128, ANSWER_BYTES = 256 };

/* A look-up under way. */
struct look_up {
    struct directory_find find;
    struct inbox *inbox;
    uint32_t epoch;
    struct request *request; /* NULL: given up; freed when it is back */
    size_t len;
    uint8_t user[];
};

/* --- the target --------------------------------------------------------------------------------- */

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    if (!slice_equal_cstr(name, "user"))
        request_unknown_parameter(r, name, "");
    else if (r->user.len > 0)
        request_bad(r, "the user is given twice");
    else
        r->user = value;
}

/* "<user>", "<user>/messages", "<user>/messages/<sub/topic>" or nothing. False: something else. */
static bool read_path(struct request *r)
{
    static const char messages[] = "messages";
    struct slice rest = slice_from(r->target.path, strlen(r->route->path) + 1), level;
    r->topic = (struct slice){0};
    if (rest.len == 0)
        return true;
    topic_level_next(&rest, &r->user);
    if (!r->posts)
        return !rest.data;
    if (!topic_level_next(&rest, &level) || !slice_equal_cstr(level, messages))
        return false;
    if (rest.data)
        r->topic = rest;
    return true;
}

static void refuse_user(struct request *r)
{
    if (r->user.len == 0)
        request_bad(r, "name a user in the path or in ?user=");
    else
        request_bad(r, "a user is UTF-8 of 1 to 256 bytes");
}

/* r->topic, which is what comes below the inbox, becomes the topic. False: refused. */
static bool make_topic(struct request *r)
{
    enum status st;
    buf_init(&r->made, r->api->topic.bytes_max);
    st = user_put_inbox(&r->made, r->user, r->topic);
    if (st == ST_NO_MEMORY) {
        request_unavailable(r, "no memory");
        return false;
    }
    r->topic = buf_slice(&r->made);
    if (st == ST_OK && topic_name_valid(r->topic, &r->api->topic))
        return true;
    request_bad(r, "what is below the user is no topic name, or the inbox's topic is beyond the limits");
    return false;
}

void users_begin(struct request *r)
{
    if (!read_path(r)) {
        request_refuse(r, &(struct problem){.status = 404,
                                            .code = "not_found",
                                            .detail = "there is POST /v1/users/<user>/messages[/<topic>] and "
                                                      "GET /v1/users/<user>"});
        return;
    }
    request_read_parameters(r, on_parameter);
    if (request_is_answered(r))
        return;
    if (!user_valid(r->user) || r->user.len > PRINCIPAL_USER_BYTES_MAX)
        refuse_user(r);
    else if (!r->posts && r->topic.len > 0)
        request_unknown_parameter(r, slice_cstr("topic"), "");
    else if (make_topic(r) && request_require(r, r->posts ? ACL_PUBLISH : ACL_PRESENCE) && r->posts)
        publish_look_at_head(r);
}

/* --- where he is -------------------------------------------------------------------------------- */

static void put_connection(struct json_out *o, const struct directory_found *f)
{
    char id[256 + CONNECTION_ID_TAIL_BYTES + 1];
    size_t len = connection_id_write(f->node, f->incarnation, f->connection, id, sizeof id);
    json_out_literal(o, "{\"id\":");
    json_out_string(o, slice_of(id, len));
    json_out_literal(o, ",\"node\":");
    json_out_string(o, slice_cstr(f->node));
    json_out_literal(o, ",\"door\":");
    json_out_string(o, slice_cstr(f->door));
    json_out_literal(o, ",\"since_ms\":");
    json_out_number(o, f->since_ms);
    json_out_literal(o, "}");
}

/* `pos` is the last that he has seen: what is unread lies strictly after it. */
static void put_inbox(struct json_out *o, uint32_t epoch, const struct inbox_place *at)
{
    json_out_literal(o, ",\"inbox\":{\"pos\":");
    if (at->known && at->cursor > 0)
        json_out_position(o, epoch, at->lane, at->cursor - 1);
    else
        json_out_literal(o, "null");
    json_out_literal(o, ",\"unread\":");
    json_out_number(o, at->unread);
    json_out_literal(o, "}");
}

static enum status put_user(struct buf *out, const struct look_up *l, const struct inbox_place *at)
{
    const struct directory_find *f = &l->find;
    struct json_out o = {.buf = out, .status = ST_OK};
    json_out_literal(&o, "{\"user\":");
    json_out_string(&o, f->user);
    if (f->total > 0)
        json_out_literal(&o, ",\"online\":true,\"count\":");
    else
        json_out_literal(&o, ",\"online\":false,\"count\":");
    json_out_number(&o, f->total);
    json_out_literal(&o, ",\"connections\":[");
    for (uint32_t i = 0; i < f->found_count; i++) {
        if (i > 0)
            json_out_literal(&o, ",");
        put_connection(&o, &f->found[i]);
    }
    json_out_literal(&o, "]");
    put_inbox(&o, l->epoch, at);
    json_out_freshness(&o, f->shared, f->stale, f->as_of_ms);
    json_out_literal(&o, "}\n");
    return o.status;
}

static void look_up_free(struct look_up *l)
{
    inbox_close(l->inbox);
    free(l->find.found);
    free(l);
}

static size_t longest_node(const struct directory_find *f)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < f->found_count; i++)
        if (strlen(f->found[i].node) > longest)
            longest = strlen(f->found[i].node);
    return longest;
}

static void on_place(void *owner, enum status status, const struct inbox_place *place)
{
    struct look_up *l = owner;
    const struct directory_find *f = &l->find;
    struct request *r = l->request;
    struct buf body;
    if (r) {
        size_t entry = ENTRY_BYTES_MAX + 12 * longest_node(f);
        r->pending = NULL;
        buf_init(&body, ANSWER_BYTES + 6 * f->user.len + f->found_count * entry);
        if (status == ST_OK && put_user(&body, l, place) == ST_OK) {
            request_reply(r, 200, "application/json", &body);
        } else {
            buf_deinit(&body);
            request_unavailable(r, "the inbox could not be read");
        }
    }
    look_up_free(l);
}

static enum status ask_inbox(struct look_up *l)
{
    struct edge *e = l->request->api->edge;
    const struct inbox_limits limits = {e->settings->inbox_keep_ms, e->settings->inbox_keep_messages};
    struct slice id;
    if (l->find.status != ST_OK || !topic_user(l->request->topic, &id))
        return ST_NO_MEMORY;
    l->epoch = e->facts->epoch;
    enum status st = inbox_create(e->hub, &limits, id, l, &l->inbox);
    if (st == ST_OK)
        inbox_find(l->inbox, on_place);
    return st;
}

static void on_found(struct directory_find *f)
{
    struct look_up *l = LIST_OF(f, struct look_up, find);
    struct request *r = l->request;
    if (r && ask_inbox(l) == ST_OK)
        return;
    if (r) {
        r->pending = NULL;
        request_unavailable(r, "no memory");
    }
    look_up_free(l);
}

static void look_up(struct request *r)
{
    struct look_up *l = calloc(1, sizeof *l + r->user.len);
    struct directory d = hub_directory(r->api->edge->hub);
    if (!l) {
        request_unavailable(r, "no memory");
        return;
    }
    l->request = r;
    l->len = r->user.len;
    memcpy(l->user, r->user.data, r->user.len);
    l->find.user = slice_of(l->user, l->len);
    l->find.on_found = on_found;
    r->pending = l;
    d.ops->find(d.ctx, &l->find);
}

void users_run(struct request *r)
{
    if (r->posts)
        publish_run(r);
    else
        look_up(r);
}

void users_give_up(struct request *r)
{
    if (r->posts) {
        publish_give_up(r);
        return;
    }
    struct look_up *l = r->pending;
    l->request = NULL; /* it comes back some time, and is freed */
    r->pending = NULL;
    request_unavailable(r, "the directory has not answered in time");
}
