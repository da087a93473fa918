#include "gateway/http/problem.h"

#include <criterion/criterion.h>

static void expect(const struct problem *p, const char *want)
{
    struct buf out;
    buf_init(&out, 4096);
    cr_assert_eq(problem_put(&out, p), ST_OK);
    cr_expect(slice_equal_cstr(buf_slice(&out), want), "%.*s", SLICE_ARG(buf_slice(&out)));
    buf_deinit(&out);
}

Test(http_problem, is_what_rfc_9457_says)
{
    expect(&(struct problem){.status = 404, .code = "not_found", .detail = "no \"such\" thing"},
           "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,\"code\":\"not_found\","
           "\"detail\":\"no \\\"such\\\" thing\"}\n");
    expect(
        &(struct problem){
            .status = 503, .code = "unavailable", .retry_ms = 1000, .members = "\"unknown\":true"},
        "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"unavailable\","
        "\"retry_ms\":1000,\"unknown\":true}\n");
}

Test(http_problem, does_not_pass_the_buffers_limit)
{
    struct buf out;
    buf_init(&out, 40);
    cr_expect_eq(problem_put(&out, &(struct problem){.status = 404, .code = "not_found"}), ST_FULL);
    buf_deinit(&out);
}
