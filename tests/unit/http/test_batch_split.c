/* A batch's body as items: every form, and what is none. */
#include "gateway/http/batch_split.h"

#include "core/json.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* The items joined by '|', then '.' at a proper end or '!' . */
static void split(enum batch_form form, struct slice text, char *out, size_t size)
{
    struct batch_split s = batch_split_begin(form);
    struct slice item;
    size_t len = 0;
    enum status st;
    out[0] = '\0';
    while ((st = batch_split_next(&s, text, &item)) == ST_OK)
        len += (size_t)snprintf(out + len, size - len, "%.*s|", SLICE_ARG(item));
    snprintf(out + len, size - len, "%s", st == ST_NOT_FOUND ? "." : "!");
    if (st == ST_NOT_FOUND)
        cr_expect_eq(batch_split_next(&s, text, &item), ST_NOT_FOUND, "the end stays the end");
}

Test(batch_split, forms)
{
    static const struct {
        enum batch_form form;
        const char *text, *want;
    } rows[] = {
        {BATCH_DOCUMENT, "{\"messages\":[1,{\"a\":[2]}]}", "1|{\"a\":[2]}|."},
        {BATCH_DOCUMENT, " { \"messages\" : [ ] } \n", "."},
        {BATCH_DOCUMENT, "{\"messages\":[\"],\"]}", "\"],\"|."},
        {BATCH_DOCUMENT, "{\"a\":0,\"messages\":[1]}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":[1],\"a\":0}", "1|!"},
        {BATCH_DOCUMENT, "{\"m\\u0065ssages\":[1]}", "1|."},
        {BATCH_DOCUMENT, "", "!"},
        {BATCH_DOCUMENT, "{}", "!"},
        {BATCH_DOCUMENT, "{\"a\":1}", "!"},
        {BATCH_DOCUMENT, "[1]", "!"},
        {BATCH_DOCUMENT, "{\"messages\":1}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":{}}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":[1]", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1,]}", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[,1]}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":[1 2]}", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1]}x", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1],}", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1],\"messages\":[2]}", "1|!"},
        {BATCH_DOCUMENT, "{\"messages\":[1]} {\"messages\":[1]}", "1|!"},
        {BATCH_DOCUMENT, "{messages:[1]}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":[\"\xff\"]}", "!"},
        {BATCH_DOCUMENT, "{\"messages\":[01]}", "0|!"},
        {BATCH_ARRAY, "[1,2]", "1|2|."},
        {BATCH_ARRAY, " [ ] ", "."},
        {BATCH_ARRAY, "[[],[]]", "[]|[]|."},
        {BATCH_ARRAY, "[1]]", "1|!"},
        {BATCH_ARRAY, "{}", "!"},
        {BATCH_ARRAY, "", "!"},
        {BATCH_LINES, "1\n{\"a\":2}\n", "1|{\"a\":2}|."},
        {BATCH_LINES, "\n \r\n1\r\n\n2", "1\r|2|."},
        {BATCH_LINES, "x\n\xff", "x|\xff|."},
        {BATCH_LINES, "", "."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char got[200];
        split(rows[i].form, slice_cstr(rows[i].text), got, sizeof got);
        cr_expect_str_eq(got, rows[i].want, "%s: %s", rows[i].text, got);
    }
}

/* What a batch wraps around an item does not take from the depth that the item may have. */
Test(batch_split, depth_is_that_of_an_item)
{
    char text[300];
    for (unsigned depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        char got[300];
        int len = snprintf(text, sizeof text, "{\"messages\":[");
        memset(text + len, '[', depth);
        memset(text + len + depth, ']', depth);
        snprintf(text + len + 2 * depth, sizeof text - (size_t)len - 2 * depth, "]}");
        split(BATCH_DOCUMENT, slice_cstr(text), got, sizeof got);
        cr_expect_eq(got[strlen(got) - 1], depth > JSON_DEPTH_MAX ? '!' : '.', "%u", depth);
    }
}
