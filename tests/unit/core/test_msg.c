#include "core/msg.h"

#include "core/hash.h"
#include "core/pool.h"

#include <criterion/criterion.h>
#include <stdlib.h>

TestSuite(msg, .fini = pool_drain);

Test(msg, carries_its_four_parts)
{
    static const char prop[] = {PROP_TRACE, 2, 0, 'x', 'y'};
    struct msg *m = NULL;
    cr_assert_eq(msg_create(slice_cstr("home/temp"), slice_cstr("key"), slice_of(prop, sizeof prop),
                            slice_cstr("21.5"), &m),
                 ST_OK);
    cr_assert(slice_equal_cstr(msg_topic(m), "home/temp"));
    cr_assert(slice_equal_cstr(msg_key(m), "key"));
    cr_assert(slice_equal(msg_props(m), slice_of(prop, sizeof prop)));
    cr_assert(slice_equal_cstr(msg_payload(m), "21.5"));
    cr_assert_eq(m->topic_hash, hash64(slice_cstr("home/temp")));
    cr_assert_eq(m->refs, 1);
    cr_assert(m->content == 0 && m->qos == 0 && m->flags == 0 && m->partition == 0 && m->offset == 0 &&
              m->ts_ms == 0 && m->expires_ms == 0 && m->origin == 0 && m->accepted_ns == 0);
    msg_unref(m);
}

Test(msg, parts_may_be_empty_or_as_large_as_allowed)
{
    static const size_t sizes[] = {0, 1, 65535};
    static uint8_t bytes[1 << 17];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (int t = 0; t < 3; t++)
        for (int k = 0; k < 3; k++)
            for (int p = 0; p < 3; p++)
                for (size_t payload = 0; payload < sizeof bytes; payload = payload * 4 + 1) {
                    struct slice topic = slice_of(bytes, sizes[t]), key = slice_of(bytes + 1, sizes[k]);
                    struct slice props = slice_of(bytes + 2, sizes[p]), load = slice_of(bytes + 3, payload);
                    struct msg *m;
                    cr_assert_eq(msg_create(topic, key, props, load, &m), ST_OK);
                    cr_assert(slice_equal(msg_topic(m), topic) && slice_equal(msg_key(m), key) &&
                              slice_equal(msg_props(m), props) && slice_equal(msg_payload(m), load));
                    msg_unref(m);
                }
}

Test(msg, refuses_parts_that_are_too_large)
{
    static const uint8_t big[65536];
    struct slice none = {0}, over = slice_of(big, sizeof big);
    struct msg *m = NULL;
    cr_assert_eq(msg_create(over, none, none, none, &m), ST_TOO_LARGE);
    cr_assert_eq(msg_create(none, over, none, none, &m), ST_TOO_LARGE);
    cr_assert_eq(msg_create(none, none, over, none, &m), ST_TOO_LARGE);
    cr_assert_eq(msg_create(none, none, none, slice_of(big, (size_t)UINT32_MAX + 1), &m), ST_TOO_LARGE);
    cr_assert_null(m);
}

Test(msg, lives_until_its_last_reference)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr("t"), slice_cstr(NULL), slice_cstr(NULL), slice_cstr("p"), &m), ST_OK);
    cr_assert_eq(msg_ref(m), m);
    msg_unref(m);
    cr_assert(slice_equal_cstr(msg_payload(m), "p"));
    msg_unref(m);
    msg_unref(NULL);
}

/* A run of properties is written as in C, so that a row may hold NULs. */
#define RUN(text)                                                                                            \
    {                                                                                                        \
        text, sizeof text - 1                                                                                \
    }

Test(props, well_formed_runs_only)
{
    static const struct {
        struct {
            const char *bytes;
            size_t len;
        } run;
        bool want;
    } rows[] = {
        {RUN(""), true},
        {RUN("\x01\x00\x00"), true},
        {RUN("\x01\x03\x00"
             "abc"),
         true},
        {RUN("\x01\x03\x00"
             "abc\x02\x00\x00"),
         true},
        {RUN("\x63\x01\x00?"), true}, /* a later version's type */
        {RUN("\x08\x02\x00\x00\x00"), true}, /* user: empty name, empty value */
        {RUN("\x08\x05\x00\x02\x00"
             "abc"),
         true},
        {RUN("\x08\x04\x00\x02\x00"
             "ab"),
         true}, /* no value */
        {RUN("\x01"), false},
        {RUN("\x01\x00"), false},
        {RUN("\x01\x01\x00"), false},
        {RUN("\x01\x00\x01"), false}, /* 256 bytes said */
        {RUN("\x01\x03\x00"
             "ab"),
         false},
        {RUN("\x01\x00\x00\x02"), false}, /* a piece is left over */
        {RUN("\x08\x00\x00"), false}, /* user without the length of its name */
        {RUN("\x08\x01\x00\x00"), false},
        {RUN("\x08\x03\x00\x02\x00"
             "a"),
         false}, /* a name longer than the property */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        /* On the heap, to the byte, so that AddressSanitizer sees a look beyond the end. */
        uint8_t *copy = malloc(rows[i].run.len + 1);
        memcpy(copy + 1, rows[i].run.bytes, rows[i].run.len);
        cr_assert_eq(props_valid(slice_of(copy + 1, rows[i].run.len)), rows[i].want, "row %zu", i);
        free(copy);
    }
}

Test(props, are_walked_in_the_order_given)
{
    static const char run[] = "\x08\x04\x00\x01\x00"
                              "a1\x01\x02\x00"
                              "ct\x08\x04\x00\x01\x00"
                              "b2";
    struct slice props = slice_of(run, sizeof run - 1), value;
    enum msg_prop type;
    size_t place = 0;
    cr_assert(props_next(props, &place, &type, &value));
    cr_assert(type == PROP_USER && slice_equal(value, slice_of("\x01\x00"
                                                               "a1",
                                                               4)));
    cr_assert(props_next(props, &place, &type, &value));
    cr_assert(type == PROP_CONTENT_TYPE && slice_equal_cstr(value, "ct"));
    cr_assert(props_next(props, &place, &type, &value));
    cr_assert(type == PROP_USER);
    cr_assert_not(props_next(props, &place, &type, &value));
    cr_assert_eq(place, props.len);

    cr_assert(props_find(props, PROP_CONTENT_TYPE, &value) && slice_equal_cstr(value, "ct"));
    cr_assert(props_find(props, PROP_USER, &value) && value.data[2] == 'a', "the first one");
    cr_assert_not(props_find(props, PROP_TRACE, &value));
}
