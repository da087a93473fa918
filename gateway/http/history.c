/* GET /v1/history: a page of a topic's past. */
#include "gateway/http/request.h"

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    if (slice_equal_cstr(name, "reverse")) {
        r->page.reverse = slice_equal_cstr(value, "1");
        if (!r->page.reverse && !slice_equal_cstr(value, "0"))
            request_bad(r, "reverse must be 0 or 1");
    } else if (!page_parameter(r, name, value)) {
        request_unknown_parameter(r, name, "; there are topic, from, max and reverse");
    }
}

void history_begin(struct request *r)
{
    page_defaults(r);
    if (!request_read_topic(r, on_parameter))
        return;
    if (r->topic.len == 0)
        request_bad(r, "name a topic in the path or in ?topic=");
    else
        page_settle(r);
}
