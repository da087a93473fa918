/* POST /v1/node/drain: as SIGTERM, which it sends to the own process; the main thread does the rest. A second
 * request changes nothing, where a second SIGTERM would end the drain. */
#include "gateway/http/request.h"

#include <signal.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 256 };

void drain_run(struct request *r)
{
    struct node_facts *facts = r->api->edge->facts;
    struct buf body;
    if (!atomic_exchange(&facts->drain_wanted, true))
        (void)kill(getpid(), SIGTERM); /* cannot fail: the process is our own */
    buf_init(&body, ANSWER_BYTES_MAX);
    if (buf_put_cstr(&body, "{\"status\":\"draining\"}\n") != ST_OK)
        buf_clear(&body);
    request_reply(r, 202, "application/json", &body);
}
