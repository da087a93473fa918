#include "gateway/http/problem.h"

#include "core/json.h"

const char problem_media_type[] = "application/problem+json";

const char *problem_title(unsigned status)
{
    static const struct {
        unsigned status;
        const char *title;
    } rows[] = {
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].status == status)
            return rows[i].title;
    return "";
}

/* "about:blank" says that the title is the status's own; `code` is what programs look at. */
enum status problem_put(struct buf *out, const struct problem *p)
{
    enum status st =
        buf_printf(out, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"code\":\"%s\"",
                   problem_title(p->status), p->status, p->code);
    if (st == ST_OK && p->detail) {
        st = buf_put_cstr(out, ",\"detail\":");
        if (st == ST_OK)
            st = json_put_string(out, slice_cstr(p->detail));
    }
    if (st == ST_OK && p->retry_ms > 0)
        st = buf_printf(out, ",\"retry_ms\":%u", (unsigned)p->retry_ms);
    if (st == ST_OK && p->request_id)
        st = buf_printf(out, ",\"request_id\":\"%s\"", p->request_id);
    if (st == ST_OK && p->members)
        st = buf_printf(out, ",%s", p->members);
    if (st == ST_OK)
        st = buf_put_cstr(out, "}\n");
    return st;
}
