/* A connection as JSON (PROTOCOL.md 2, Connections). On the loop of its session. */
#ifndef TG_GATEWAY_HTTP_CONNECTION_JSON_H
#define TG_GATEWAY_HTTP_CONNECTION_JSON_H

#include "gateway/edge.h"
#include "gateway/json_out.h"

/* {"id","node","door","address","user","client_id","session","since_ms","subscriptions","queued_bytes",
 * "unacknowledged"}; with `filters` also "filters", at most CONNECTION_FILTERS_MAX of them. */
enum { CONNECTION_FILTERS_MAX = 1000 };
void connection_json_put(struct json_out *o, const struct node_facts *facts, struct session *s, bool filters);
/* "[{"topic","pos","behind",...},...]" of a session. */
void connection_json_filters(struct json_out *o, const struct node_facts *facts, struct session *s);
void connection_json_id(struct json_out *o, const struct node_facts *facts, uint64_t id);

#endif
