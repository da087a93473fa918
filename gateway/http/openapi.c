/* GET /openapi.json: openapi.json of this folder, which the build makes part of the program. That it says
 * what the program does is for tests/e2e/test_openapi.py to prove. */
#include "gateway/http/request.h"

extern const unsigned char openapi_json[];
extern const size_t openapi_json_len;

void openapi_run(struct request *r)
{
    struct buf body;
    buf_init(&body, openapi_json_len);
    if (buf_put(&body, slice_of(openapi_json, openapi_json_len)) != ST_OK) {
        request_unavailable(r, "no memory");
        return;
    }
    request_reply(r, 200, "application/json", &body);
}
