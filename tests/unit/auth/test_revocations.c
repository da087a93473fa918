#include "gateway/auth/revocations.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct principal *make(const char *user, const char *token_id, uint64_t issued_ms)
{
    const struct principal_spec spec = {
        .user = slice_cstr(user), .token_id = slice_cstr(token_id), .issued_ms = issued_ms};
    struct principal *p;
    cr_assert_eq(principal_create(&spec, &p), ST_OK);
    return p;
}

Test(revocations, concern_users_up_to_a_moment_and_tokens_by_their_id)
{
    static const struct revocation user = {.name = {(const uint8_t *)"ann", 3}, .at_ms = 100},
                                   token = {.name = {(const uint8_t *)"ann", 3},
                                            .of_token = true,
                                            .at_ms = 100,
                                            .until_ms = 200};
    static const struct {
        const char *user, *token_id;
        uint64_t issued_ms, now_ms;
        bool by_user, by_token;
    } rows[] = {
        {"ann", "", 50, 150, true, false},     {"ann", "", 100, 150, true, false},
        {"ann", "", 101, 150, false, false},   {"ann", "", 0, 150, true, false},
        {"bob", "ann", 50, 150, false, true},  {"bob", "ann", 300, 150, false, true},
        {"bob", "ann", 50, 200, false, false}, {"ann", "ann", 50, 500, true, false},
        {"", "", 0, 150, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct principal *p = make(rows[i].user, rows[i].token_id, rows[i].issued_ms);
        struct revocations *r;
        cr_assert_eq(revocations_create(&r), ST_OK);
        cr_expect_not(revocations_have(r, p, rows[i].now_ms));
        cr_expect_eq(revocation_concerns(&user, p, rows[i].now_ms), rows[i].by_user, "row %zu", i);
        cr_expect_eq(revocation_concerns(&token, p, rows[i].now_ms), rows[i].by_token, "row %zu", i);
        cr_assert_eq(revocations_put(r, &user, 100), ST_OK);
        cr_assert_eq(revocations_put(r, &token, 100), ST_OK);
        cr_expect_eq(revocations_count(r), 2u);
        cr_expect_eq(revocations_have(r, p, rows[i].now_ms), rows[i].by_user || rows[i].by_token, "row %zu",
                     i);
        principal_unref(p);
        revocations_destroy(r);
    }
}

Test(revocations, let_go_what_has_lapsed)
{
    struct revocations *r;
    char name[32];
    cr_assert_eq(revocations_create(&r), ST_OK);
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "t%u", i);
        const struct revocation what = {
            .name = slice_cstr(name), .of_token = true, .at_ms = i, .until_ms = i % 10 ? i + 1 : 0};
        cr_assert_eq(revocations_put(r, &what, i), ST_OK);
        cr_assert_eq(revocations_put(r, &what, i), ST_OK);
    }
    cr_expect_lt(revocations_count(r), 5000u);
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "t%u", i);
        struct principal *p = make("x", name, 0);
        cr_assert_eq(revocations_have(r, p, 20000), i % 10 == 0, "%s", name);
        principal_unref(p);
    }
    revocations_destroy(r);
}

Test(revocations, are_read_as_they_were_written)
{
    static const struct revocation rows[] = {
        {.name = {(const uint8_t *)"a/b+\"\x01", 6}, .at_ms = 5},
        {.name = {(const uint8_t *)"t", 1}, .of_token = true, .at_ms = 7, .until_ms = 9},
    };
    for (size_t i = 0; i < 2; i++) {
        struct buf topic, payload, text;
        struct revocation back;
        struct msg *m;
        buf_init(&topic, REVOCATION_RECORD_BYTES_MAX);
        buf_init(&payload, REVOCATION_RECORD_BYTES_MAX);
        buf_init(&text, REVOCATION_RECORD_BYTES_MAX);
        cr_assert_eq(revocation_write(&rows[i], &topic, &payload), ST_OK);
        cr_expect(revocation_topic(buf_slice(&topic)));
        cr_assert_eq(
            msg_create(buf_slice(&topic), (struct slice){0}, (struct slice){0}, buf_slice(&payload), &m),
            ST_OK);
        cr_assert_eq(revocation_read(m, &text, &back), ST_OK);
        cr_expect(slice_equal(back.name, rows[i].name) && back.of_token == rows[i].of_token);
        cr_expect(back.at_ms == rows[i].at_ms && back.until_ms == rows[i].until_ms);
        msg_unref(m);
        buf_deinit(&topic);
        buf_deinit(&payload);
        buf_deinit(&text);
    }
    static const char *const bad[] = {"",
                                      "{}",
                                      "{\"user\":\"\",\"at\":1}",
                                      "{\"user\":\"a\"}",
                                      "{\"user\":5,\"at\":1}",
                                      "{\"user\":\"a\",\"at\":1,\"until\":-1}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf text;
        struct revocation back;
        struct msg *m;
        buf_init(&text, REVOCATION_RECORD_BYTES_MAX);
        cr_assert_eq(msg_create(slice_cstr("$revoked/user/a"), (struct slice){0}, (struct slice){0},
                                slice_cstr(bad[i]), &m),
                     ST_OK);
        cr_expect_eq(revocation_read(m, &text, &back), ST_INVALID, "%s", bad[i]);
        msg_unref(m);
        buf_deinit(&text);
    }
}
