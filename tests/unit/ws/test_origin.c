#include "gateway/ws/origin.h"

#include <criterion/criterion.h>

Test(ws_origin, permits_ours_and_listed_ones)
{
    static const char listed[] = "https://app.example\nhttp://dev.example:3000";
    static const struct {
        const char *host, *origin, *listed;
        bool want;
    } rows[] = {
        {"127.0.0.1:8080", NULL, NULL, true},
        {"127.0.0.1:8080", NULL, "", true},
        {"127.0.0.1:8080", "http://127.0.0.1:8080", NULL, true},
        {"localhost:8080", "http://LOCALHOST:8080", NULL, true},
        {"localhost:80", "http://localhost", NULL, true},
        {"localhost", "http://localhost:80", NULL, true},
        {"localhost", "https://localhost:443", NULL, true},
        {"localhost:8443", "https://localhost", NULL, false},
        {"127.0.0.1:8080", "http://127.0.0.1:8081", NULL, false},
        {"127.0.0.1:8080", "http://localhost:8080", NULL, false},
        {"127.0.0.1:8080", "http://evil.example", NULL, false},
        {"127.0.0.1:8080", "null", NULL, false},
        {"127.0.0.1:8080", "null", "null", false}, /* it would let every sandboxed page in */
        {"127.0.0.1:8080", "", NULL, false},
        {"127.0.0.1:8080", "file://127.0.0.1:8080", NULL, false},
        {"evil.example", NULL, NULL, false},
        {"evil.example", "http://evil.example", NULL, false}, /* rebinding */
        {"127.0.0.1:8080", "https://app.example", listed, true},
        {"127.0.0.1:8080", "http://app.example", listed, false},
        {"127.0.0.1:8080", "https://app.example.evil", listed, false},
        {"app.example", "https://app.example", listed, true},
        {"app.example", NULL, listed, true},
        {"dev.example:3000", "http://dev.example:3000", listed, true},
        {"dev.example", "http://dev.example:3000", listed, false},
        {"slash.example", "https://slash.example", "https://slash.example/", true},
        {"127.0.0.1:8080", "https://app.example", "", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool got =
            origin_permitted(slice_cstr(rows[i].host), slice_cstr(rows[i].origin), rows[i].listed, false);
        cr_expect_eq(got, rows[i].want, "%s from %s", rows[i].host, rows[i].origin ? rows[i].origin : "-");
    }
}
