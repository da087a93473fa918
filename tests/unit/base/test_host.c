#include "gateway/host.h"

#include <criterion/criterion.h>

Test(host, knows_loopback)
{
    static const struct {
        const char *host;
        bool want;
    } rows[] = {
        {"127.0.0.1", true},
        {"127.0.0.1:8081", true},
        {"127.255.0.9:1", true},
        {"localhost", true},
        {"LocalHost:9999", true},
        {"[::1]", true},
        {"[::1]:8081", true},
        {"[0:0:0:0:0:0:0:1]:80", true},
        {"127.0.0.1:", true},
        {"", false},
        {":8081", false},
        {"128.0.0.1", false},
        {"0.0.0.0:8081", false},
        {"127.1", false},
        {"0177.0.0.1", false},
        {"0x7f.0.0.1", false},
        {"2130706433", false},
        {"127.0.0.1.evil.example", false},
        {"localhost.evil.example", false},
        {"evil.example", false},
        {"evil.example#localhost", false},
        {"user@localhost", false},
        {"localhost,evil.example", false},
        {"127.0.0.1, evil.example", false},
        {"127.0.0.1:80:80", false},
        {"127.0.0.1:80x", false},
        {"127.0.0.1:123456", false},
        {"::1", false},
        {"[::1", false},
        {"[::1]x", false},
        {"[::2]", false},
        {"[::ffff:127.0.0.1]", false},
        {"[localhost]", false},
        {"[127.0.0.1]", false},
        {"[", false},
        {"[]", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(host_is_loopback(slice_cstr(rows[i].host)), rows[i].want, "%s", rows[i].host);
}

Test(host, knows_addresses_to_bind_to)
{
    static const struct {
        const char *address;
        bool want;
    } rows[] = {
        {"127.0.0.1", true},       {"127.9.8.7", true}, {"::1", true},
        {"0:0:0:0:0:0:0:1", true}, {"", false},         {"localhost", false},
        {"0.0.0.0", false},        {"::", false},       {"10.0.0.1", false},
        {"[::1]", false},          {"127.1", false},    {"::ffff:127.0.0.1", false},
        {"127.0.0.1:1", false},    {"::1%lo", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(host_address_is_loopback(slice_cstr(rows[i].address)), rows[i].want, "%s",
                     rows[i].address);
}

Test(host, a_zero_byte_hides_nothing)
{
    static const char name[] = "127.0.0.1\0.evil.example";
    cr_expect_not(host_is_loopback(slice_of(name, sizeof name - 1)));
    cr_expect_not(host_address_is_loopback(slice_of(name, sizeof name - 1)));
}

Test(host, splits_names_and_ports)
{
    static const struct {
        const char *host, *name, *port; /* NULL: not of this form */
    } rows[] = {
        {"a.example", "a.example", ""},
        {"a.example:80", "a.example", "80"},
        {"a.example:", "a.example", ""},
        {"[::1]", "[::1]", ""},
        {"[::1]:65535", "[::1]", "65535"},
        {"", NULL, NULL},
        {":80", NULL, NULL},
        {"[::1", NULL, NULL},
        {"[::1]80", NULL, NULL},
        {"a:b", NULL, NULL},
        {"a:1:2", NULL, NULL},
        {"a:123456", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice name, port;
        bool split = host_split(slice_cstr(rows[i].host), &name, &port);
        cr_expect_eq(split, rows[i].name != NULL, "%s", rows[i].host);
        if (split && rows[i].name) {
            cr_expect(slice_equal_cstr(name, rows[i].name), "%s", rows[i].host);
            cr_expect(slice_equal_cstr(port, rows[i].port), "%s", rows[i].host);
        }
    }
}

Test(host, an_origin_is_its_own_hosts)
{
    static const struct {
        const char *host, *origin;
        bool want;
    } rows[] = {
        {"a.example", "http://a.example", true},
        {"A.example:80", "HTTP://a.EXAMPLE", true},
        {"a.example", "https://a.example:443", true},
        {"[::1]:8080", "http://[::1]:8080", true},
        {"a.example:443", "http://a.example", false},
        {"a.example", "http://b.example", false},
        {"a.example", "ftp://a.example", false},
        {"a.example", "http://a.example/", false},
        {"a.example", "http://user@a.example", false},
        {"a.example", "null", false},
        {"a.example", "", false},
        {"", "http://", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(host_is_origin(slice_cstr(rows[i].host), slice_cstr(rows[i].origin)), rows[i].want,
                     "%s at %s", rows[i].origin, rows[i].host);
}

Test(host, lists_are_walked_to_their_end)
{
    const char *list = "\na\n\n/\nb//\n", *none = NULL;
    struct slice item;
    cr_assert(host_next_listed(&list, &item) && slice_equal_cstr(item, "a"));
    cr_assert(host_next_listed(&list, &item) && slice_equal_cstr(item, "b"));
    cr_assert_not(host_next_listed(&list, &item));
    cr_assert_not(host_next_listed(&list, &item));
    cr_assert_not(host_next_listed(&none, &item));
}

Test(host, listed_origins)
{
    static const char list[] = "https://a.example\nhttp://b.example:3000/\nnull\n";
    static const struct {
        const char *origin;
        bool want;
    } rows[] = {
        {"https://a.example", true},
        {"HTTPS://A.example", true},
        {"http://b.example:3000", true},
        {"http://a.example", false},
        {"https://a.exampl", false},
        {"https://a.example.evil", false},
        {"https://a.example:443", false},
        {"null", false},
        {"NULL", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(host_origin_is_listed(list, slice_cstr(rows[i].origin)), rows[i].want, "%s",
                     rows[i].origin);
        cr_expect_not(host_origin_is_listed(NULL, slice_cstr(rows[i].origin)));
        cr_expect_not(host_origin_is_listed("\n", slice_cstr(rows[i].origin)));
    }
}
