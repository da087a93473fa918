/* Presence (session/presence.h). A question on its way holds a reference to the connection's memory, and
 * counts with the pages of history that are being read. */
#include "gateway/ws/serve.h"

#include "session/presence.h"

#include <stdlib.h>

struct question {
    struct presence *presence;
    struct conn *conn;
    struct ws_id id;
    uint8_t topic[];
};

static void on_counted(struct presence *p)
{
    struct question *q = p->owner;
    struct conn *c = q->conn;
    c->reads_open--;
    if (c->state == CONN_OPEN) {
        serve_put(c, ws_put_presence(&c->door->scratch, q->id, p));
        conn_touch(c);
    }
    presence_free(p);
    free(q);
    conn_unref(c);
}

static void ask(struct conn *c, const struct ws_request *r)
{
    struct question *q = calloc(1, sizeof *q + r->topic.len);
    if (!q || presence_create(&q->presence) != ST_OK) {
        free(q);
        serve_later(c, serve_id(r), "unavailable", "no memory");
        return;
    }
    memcpy(q->topic, r->topic.data, r->topic.len);
    q->conn = c;
    q->id = serve_id(r);
    q->presence->topic = slice_of(q->topic, r->topic.len);
    q->presence->on_counted = on_counted;
    q->presence->owner = q;
    conn_ref(c);
    c->reads_open++;
    presence_ask(c->door->hub, q->presence);
}

void serve_who(struct conn *c, const struct ws_request *r)
{
    struct topic_limits limits = serve_limits(c);
    if (!r->has_id)
        serve_error(c, serve_id(r), "bad_request", "who needs an id");
    else if (!topic_name_valid(r->topic, &limits))
        serve_error(c, serve_id(r), "bad_request", "topic is not a topic name within the limits");
    else if (!serve_refuse_topic(c, r, ACL_PRESENCE))
        ask(c, r);
}
