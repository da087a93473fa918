#include "gateway/presence_json.h"

void presence_json_put(struct json_out *o, const struct presence *p)
{
    struct slice user;
    json_out_literal(o, "{\"topic\":");
    json_out_string(o, p->topic);
    json_out_literal(o, ",\"count\":");
    json_out_number(o, p->connections);
    json_out_literal(o, ",\"users\":[");
    for (size_t place = 0, first = 1; presence_user_next(p, &place, &user); first = 0) {
        if (!first)
            json_out_literal(o, ",");
        json_out_string(o, user);
    }
    json_out_literal(o, "]");
    if (p->more_users)
        json_out_literal(o, ",\"more\":true");
    json_out_literal(o, "}");
}
