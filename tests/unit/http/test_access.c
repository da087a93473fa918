#include "gateway/http/access.h"

#include <criterion/criterion.h>

static const struct access_rules open_rules = {
    .key = "",
    .hosts = "",
    .origins = "",
    .ports = {8081, 8080},
    .loopback_only = true,
};
static const struct access_rules key_rules = {
    .key = "s3cret",
    .hosts = "api.example.com\nother.example.com:8443",
    .origins = "https://app.example.com\nhttp://tool.example.com:3000/",
    .ports = {8081, 8080},
    .loopback_only = true,
};
static const struct access_rules remote_rules = {
    .key = "s3cret",
    .hosts = "api.example.com",
    .origins = "",
    .ports = {8081, 8080},
    .loopback_only = false,
};

static struct head head_of(const char *host, const char *origin, const char *authorization)
{
    struct head h = {0};
    if (host)
        head_add(&h, slice_cstr("Host"), slice_cstr(host));
    if (origin)
        head_add(&h, slice_cstr("Origin"), slice_cstr(origin));
    if (authorization)
        head_add(&h, slice_cstr("Authorization"), slice_cstr(authorization));
    return h;
}

Test(http_access, judges_host_origin_and_key)
{
    static const struct {
        const struct access_rules *rules;
        const char *host, *origin, *authorization;
        enum access want;
    } rows[] = {
        {&open_rules, "127.0.0.1:8081", NULL, NULL, ACCESS_GRANTED},
        {&open_rules, "localhost:1234", NULL, NULL, ACCESS_GRANTED},
        {&open_rules, "evil.example:8081", NULL, NULL, ACCESS_BAD_HOST},
        {&open_rules, "evil.example:8081", "http://evil.example:8081", NULL, ACCESS_BAD_HOST},
        {&open_rules, "api.example.com", NULL, NULL, ACCESS_BAD_HOST},
        {&open_rules, "", NULL, NULL, ACCESS_BAD_HOST},
        {&open_rules, NULL, NULL, NULL, ACCESS_BAD_HOST},
        {&open_rules, "127.0.0.1:8081", "http://127.0.0.1:8081", NULL, ACCESS_GRANTED},
        {&open_rules, "127.0.0.1:9", "http://127.0.0.1:9", NULL, ACCESS_GRANTED},
        {&open_rules, "127.0.0.1:9", "http://127.0.0.1:10", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "http://localhost:8080", NULL, ACCESS_GRANTED},
        {&open_rules, "127.0.0.1:8081", "http://localhost:3000", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "localhost", "http://localhost", NULL, ACCESS_GRANTED},
        {&open_rules, "localhost:80", "http://localhost", NULL, ACCESS_GRANTED},
        {&open_rules, "localhost:80", "https://localhost", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "localhost", "HTTP://LOCALHOST", NULL, ACCESS_GRANTED},
        {&open_rules, "127.0.0.1:8081", "null", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "http://", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "file://127.0.0.1:8081", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "http://127.0.0.1:8081.evil.example", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "http://evil.example:8081", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", "http://user@127.0.0.1:8081", NULL, ACCESS_BAD_ORIGIN},
        {&open_rules, "127.0.0.1:8081", NULL, "Bearer x", ACCESS_BAD_KEY},
        {&open_rules, "127.0.0.1:8081", NULL, "Bearer ", ACCESS_BAD_KEY},
        {&open_rules, "127.0.0.1:8081", NULL, "", ACCESS_BAD_KEY},

        {&key_rules, "127.0.0.1:8081", NULL, NULL, ACCESS_GRANTED},
        {&key_rules, "api.example.com", NULL, NULL, ACCESS_GRANTED},
        {&key_rules, "API.example.com:77", NULL, NULL, ACCESS_GRANTED},
        {&key_rules, "other.example.com:8443", NULL, NULL, ACCESS_GRANTED},
        {&key_rules, "other.example.com", NULL, NULL, ACCESS_BAD_HOST},
        {&key_rules, "other.example.com:8444", NULL, NULL, ACCESS_BAD_HOST},
        {&key_rules, "evil.example", NULL, "Bearer s3cret", ACCESS_GRANTED},
        {&key_rules, "evil.example", NULL, "bearer  s3cret", ACCESS_GRANTED},
        {&key_rules, "evil.example", NULL, "Bearer s3creT", ACCESS_BAD_KEY},
        {&key_rules, "evil.example", NULL, "Bearer s3cre", ACCESS_BAD_KEY},
        {&key_rules, "evil.example", NULL, "Bearer s3crets", ACCESS_BAD_KEY},
        {&key_rules, "evil.example", NULL, "Basic s3cret", ACCESS_GRANTED}, /* judged by auth_check */
        {&key_rules, "evil.example", NULL, "Basic ", ACCESS_BAD_KEY},
        {&key_rules, "evil.example", NULL, "s3cret", ACCESS_BAD_KEY},
        {&key_rules, "127.0.0.1:8081", NULL, "Bearer wrong", ACCESS_BAD_KEY},
        {&key_rules, "127.0.0.1:8081", "https://app.example.com", NULL, ACCESS_GRANTED},
        {&key_rules, "127.0.0.1:8081", "http://app.example.com", NULL, ACCESS_BAD_ORIGIN},
        {&key_rules, "127.0.0.1:8081", "http://tool.example.com:3000", NULL, ACCESS_GRANTED},
        {&key_rules, "127.0.0.1:8081", "https://app.example.com.evil.example", NULL, ACCESS_BAD_ORIGIN},
        {&key_rules, "evil.example", "http://evil.example", "Bearer s3cret", ACCESS_GRANTED},
        {&key_rules, "a.example", "http://b.example", "Bearer s3cret", ACCESS_BAD_ORIGIN},

        {&remote_rules, "127.0.0.1:8081", NULL, NULL, ACCESS_NEEDS_KEY},
        {&remote_rules, "api.example.com", NULL, NULL, ACCESS_NEEDS_KEY},
        {&remote_rules, "10.0.0.1:8081", NULL, "Bearer s3cret", ACCESS_GRANTED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct head h = head_of(rows[i].host, rows[i].origin, rows[i].authorization);
        enum access got = access_judge(rows[i].rules, &h);
        cr_expect_eq(got, rows[i].want, "row %zu: host %s origin %s authorization %s: %d", i, rows[i].host,
                     rows[i].origin, rows[i].authorization, got);
    }
}

Test(http_access, null_is_never_listed)
{
    struct access_rules rules = open_rules;
    rules.origins = "null";
    struct head h = head_of("127.0.0.1", "null", NULL);
    cr_expect_eq(access_judge(&rules, &h), ACCESS_BAD_ORIGIN);
}

Test(http_access, a_proxy_takes_anonymity_away)
{
    static const char *const fields[] = {"Forwarded", "X-Forwarded-For", "x-forwarded-for"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct head h = head_of("127.0.0.1:8081", NULL, NULL);
        head_add(&h, slice_cstr(fields[i]), slice_cstr("for=10.0.0.1"));
        cr_expect_eq(access_judge(&open_rules, &h), ACCESS_FORWARDED, "%s", fields[i]);
        cr_expect_eq(access_judge(&key_rules, &h), ACCESS_FORWARDED, "%s", fields[i]);
        head_add(&h, slice_cstr("Authorization"), slice_cstr("Bearer s3cret"));
        cr_expect_eq(access_judge(&key_rules, &h), ACCESS_GRANTED, "%s", fields[i]);
    }
}
