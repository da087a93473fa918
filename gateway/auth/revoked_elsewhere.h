/* A revocation that another node has published: it has come out of the log here. Every loop's desk is told,
 * as by POST /v1/revocations at this node. On the edge's loop. */
#ifndef TG_GATEWAY_AUTH_REVOKED_ELSEWHERE_H
#define TG_GATEWAY_AUTH_REVOKED_ELSEWHERE_H

#include "gateway/edge.h"

struct msg;

void revoked_elsewhere(struct edge *e, const struct msg *m); /* nothing, if it is no such record */

#endif
