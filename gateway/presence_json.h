/* Presence as JSON, the same at the doors that tell it. Pure. */
#ifndef TG_GATEWAY_PRESENCE_JSON_H
#define TG_GATEWAY_PRESENCE_JSON_H

#include "gateway/json_out.h"
#include "session/presence.h"

/* {"topic","count","users":[...]}, with "more":true when not all users are there. */
void presence_json_put(struct json_out *o, const struct presence *p);

#endif
