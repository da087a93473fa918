#include "gateway/http/request.h"

/* What there is, and what PROTOCOL.md 2 names and this build does not have. A longer path stands before its
 * beginning. */
const struct route routes[] = {
    {"/v1/publish", true, "POST", publish_begin, publish_run, publish_give_up, true, true, ACL_PUBLISH},
    {"/v1/history", true, "GET, HEAD", history_begin, page_run, page_give_up, false, true, ACL_HISTORY},
    {"/v1/retained", true, "GET, HEAD, DELETE", retained_begin, retained_run, retained_give_up, false, true,
     ACL_SUBSCRIBE},
    {"/v1/drops", false, "GET, HEAD", NULL, drops_run, drops_give_up, false, false, 0},
    {"/v1/capabilities", false, "GET, HEAD", NULL, capabilities_run, NULL, false, true, 0},
    {"/healthz", false, "GET, HEAD", NULL, health_live, NULL, false, true, 0},
    {"/livez", false, "GET, HEAD", NULL, health_live, NULL, false, true, 0},
    {"/readyz", false, "GET, HEAD", NULL, health_ready, NULL, false, true, 0},
    {"/metrics", false, "GET, HEAD", NULL, health_metrics, NULL, false, false, 0},
    {"/v1/users", true, "GET, HEAD, POST", users_begin, users_run, users_give_up, true, true, ACL_PUBLISH},
    {"/v1/connections", true, "GET, HEAD, DELETE", connections_begin, connections_run, connections_give_up,
     false, false, 0},
    {"/v1/sessions", true, "GET, HEAD", sessions_begin, sessions_run, sessions_give_up, false, false, 0},
    {"/v1/presence", true, "GET, HEAD", presence_begin, presence_run, presence_give_up, false, true,
     ACL_PRESENCE},
    {"/v1/nodes", false, "GET, HEAD", NULL, nodes_run, nodes_give_up, false, false, 0},
    {"/v1/node/snapshot", false, "POST", NULL, snapshot_run, snapshot_give_up, true, false, 0},
    {"/v1/node/drain", false, "POST", NULL, drain_run, NULL, false, false, 0},
    {"/v1/revocations", false, "POST", revocations_begin, revocations_run, revocations_give_up, true, false,
     0},
    {"/v1/tickets", false, "POST", tickets_begin, tickets_run, NULL, true, true, 0},
    {"/openapi.json", false, "GET, HEAD", NULL, openapi_run, NULL, false, true, 0},
    {.path = "/console", .below = true},
    {0},
};

const struct route *route_find(struct slice path)
{
    for (const struct route *r = routes; r->path; r++) {
        struct slice start = slice_cstr(r->path);
        if (slice_starts_with(path, start) &&
            (path.len == start.len || (r->below && path.data[start.len] == '/')))
            return r;
    }
    return NULL;
}
