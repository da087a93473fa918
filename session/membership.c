/* A connection that has said who it is stands in the directory until it ends. The entry outlives the session
 * by the letters that are under way. */
#include "session/hub_private.h"

#include <stdlib.h>

struct membership {
    struct directory_entry entry;
    struct hub *hub;
    struct session *session; /* NULL: ended */
    bool letter; /* under way */
    uint8_t user[];
};

static void membership_free(struct membership *m)
{
    if (m->session)
        m->session->membership = NULL;
    free(m);
}

static void membership_sent(struct membership *m)
{
    m->letter = true;
    m->hub->letters++;
}

static void membership_back(struct membership *m)
{
    m->letter = false;
    m->hub->letters--;
}

static void on_removed(struct directory_entry *e)
{
    struct membership *m = LIST_OF(e, struct membership, entry);
    membership_back(m);
    metric_sub(m->hub->metrics, M_USER_CONNECTIONS, 1);
    membership_free(m);
}

static void membership_remove(struct membership *m)
{
    membership_sent(m);
    m->hub->directory.ops->remove(m->hub->directory.ctx, &m->entry);
}

static void on_added(struct directory_entry *e)
{
    struct membership *m = LIST_OF(e, struct membership, entry);
    struct session *s = m->session;
    membership_back(m);
    if (e->status != ST_OK) {
        metric_add(m->hub->metrics, M_USER_CONNECTIONS_REFUSED, 1);
        membership_free(m);
        if (s)
            s->ops->too_many(s->conn);
        return;
    }
    metric_add(m->hub->metrics, M_USER_CONNECTIONS, 1);
    if (!s)
        membership_remove(m);
    else if (s->ops->admitted)
        s->ops->admitted(s->conn);
}

bool session_admitted(const struct session *s)
{
    return !s->membership || !s->membership->letter;
}

enum status session_identify(struct session *s, struct slice user, uint32_t user_max)
{
    struct hub *h = s->hub;
    if (s->membership && slice_equal(s->membership->entry.user, user))
        return ST_OK;
    membership_end(s);
    if (user.len == 0 || !h->directory.ops)
        return ST_OK;
    struct membership *m = calloc(1, sizeof *m + user.len);
    if (!m)
        return ST_NO_MEMORY;
    memcpy(m->user, user.data, user.len);
    m->entry = (struct directory_entry){.user = slice_of(m->user, user.len),
                                        .connection = s->id,
                                        .since_ms = s->since_ms,
                                        .door = s->ops->door,
                                        .user_max = user_max,
                                        .on_added = on_added,
                                        .on_removed = on_removed};
    m->hub = h;
    m->session = s;
    s->membership = m;
    membership_sent(m);
    h->directory.ops->add(h->directory.ctx, &m->entry);
    return ST_OK;
}

struct slice session_user(const struct session *s)
{
    return s->membership ? s->membership->entry.user : (struct slice){0};
}

void membership_end(struct session *s)
{
    struct membership *m = s->membership;
    if (!m)
        return;
    s->membership = NULL;
    m->session = NULL;
    if (!m->letter) /* else when that is back */
        membership_remove(m);
}
