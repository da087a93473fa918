#include "gateway/auth/revoked_elsewhere.h"

#include "core/logging.h"
#include "gateway/auth/auth.h"
#include "gateway/auth/revocations.h"
#include "session/hub.h"

#include <stdlib.h>

struct hearing {
    struct hub_visit visit;
    struct auth *auth;
    struct revocation what; /* its name is in `text` */
    struct buf text;
};

static void on_visit(struct hub_visit *visit, struct hub *h)
{
    struct hearing *g = LIST_OF(visit, struct hearing, visit);
    auth_revoke(auth_desk(g->auth, loop_index(hub_loop(h))), &g->what);
}

static void on_back(struct hub_visit *visit)
{
    struct hearing *g = LIST_OF(visit, struct hearing, visit);
    buf_deinit(&g->text);
    free(g);
}

void revoked_elsewhere(struct edge *e, const struct msg *m)
{
    if (!e->auth || !revocation_topic(msg_topic(m)) || msg_payload(m).len == 0)
        return;
    struct hearing *g = calloc(1, sizeof *g);
    if (!g) {
        log_error("no memory for a revocation of another node: it counts here after a restart only");
        return;
    }
    buf_init(&g->text, REVOCATION_RECORD_BYTES_MAX);
    g->auth = e->auth;
    if (revocation_read(m, &g->text, &g->what) != ST_OK) {
        log_error("a revocation of the log is not understood, written by a later version? lane=%u offset=%lu",
                  m->partition, (unsigned long)m->offset);
        on_back(&g->visit);
        return;
    }
    g->visit.on_visit = on_visit;
    g->visit.on_back = on_back;
    hub_visit_all(e->hub, &g->visit);
}
