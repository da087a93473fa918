/* GET /v1/history: a page of a topic's past. */
#include "gateway/http/request.h"

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    if (slice_equal_cstr(name, "reverse"))
        request_unsupported(r, "reverse is not in this build");
    else if (!page_parameter(r, name, value))
        request_bad(r, "there is no such query parameter here; there are topic, from and max");
}

void history_begin(struct request *r)
{
    page_defaults(r);
    if (request_read_topic(r, on_parameter) && r->topic.len == 0)
        request_bad(r, "name a topic in the path or in ?topic=");
}
