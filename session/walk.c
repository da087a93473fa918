#include "session/walk.h"

#include "session/hub_private.h"

/* Subscriptions, and sessions, that are looked at before the loop gets its turn back. */
enum { WALK_LOOK_MAX = 4096 };

static unsigned first_loop(const struct walk *w)
{
    return w->after == 0 ? 0 : session_id_loop(w->after);
}

/* As much as one visit has time for. */
static void walk_some(struct walk *w, struct hub *h)
{
    const struct roster *r = &h->roster;
    size_t looked = 0;
    for (size_t i = roster_after(r, w->after); i < r->count && !w->stopped; i++) {
        struct session *s = r->entries[i].session;
        if (looked >= WALK_LOOK_MAX) {
            w->more = true;
            return;
        }
        looked += (w->cost ? w->cost : 1) + (s ? s->subscription_count : 0);
        w->after = r->entries[i].id;
        w->stopped = s && !w->on_session(w, s);
    }
}

static void on_visit(struct hub_visit *v, struct hub *h)
{
    struct walk *w = LIST_OF(v, struct walk, visit);
    if (!w->stopped && !w->more && courier_index(h->courier) >= first_loop(w))
        walk_some(w, h);
}

static void on_back(struct hub_visit *v)
{
    struct walk *w = LIST_OF(v, struct walk, visit);
    if (w->stopped || !w->more) {
        w->on_end(w);
        return;
    }
    w->more = false;
    hub_visit_all(v->home, v);
}

void walk_begin(struct hub *h, struct walk *w)
{
    w->stopped = w->more = false;
    w->visit.on_visit = on_visit;
    w->visit.on_back = on_back;
    hub_visit_all(h, &w->visit);
}

bool session_wants(const struct session *s, struct slice topic)
{
    LIST_EACH (node, &s->subscriptions) {
        struct subscription *sub = LIST_OF(node, struct subscription, link);
        if (topic_matches(subscription_filter(sub), topic))
            return true;
    }
    return false;
}
