#include "gateway/mqtt/alias.h"

#include <criterion/criterion.h>

Test(mqtt_alias, stands_for_nothing_until_it_is_set)
{
    struct aliases a = {.max = 4};
    struct slice topic;
    cr_assert(!aliases_get(&a, 1, &topic));
    cr_assert_eq(aliases_set(&a, 4, slice_cstr("a/b")), ST_OK);
    cr_assert(!aliases_get(&a, 1, &topic));
    cr_assert(!aliases_get(&a, 0, &topic));
    cr_assert(!aliases_get(&a, 5, &topic));
    cr_assert(aliases_get(&a, 4, &topic) && slice_equal_cstr(topic, "a/b"));
    aliases_deinit(&a);
    cr_assert(!aliases_get(&a, 4, &topic));
}

Test(mqtt_alias, the_last_name_counts)
{
    struct aliases a = {.max = 1};
    struct slice topic;
    cr_assert_eq(aliases_set(&a, 1, slice_cstr("first")), ST_OK);
    cr_assert_eq(aliases_set(&a, 1, slice_cstr("second")), ST_OK);
    cr_assert(aliases_get(&a, 1, &topic) && slice_equal_cstr(topic, "second"));
    aliases_forget(&a, 1);
    cr_assert(!aliases_get(&a, 1, &topic));
    aliases_deinit(&a);
}

/* Of two topics with one hash neither is taken for the other. */
Test(mqtt_alias, a_hash_is_no_name)
{
    struct aliases a = {.max = 8};
    bool known;
    uint16_t alias = aliases_choose(&a, slice_cstr("x"), 0x1234567, &known);
    cr_assert(!known && alias >= 1 && alias <= 8);
    cr_assert_eq(aliases_set(&a, alias, slice_cstr("x")), ST_OK);
    cr_assert_eq(aliases_choose(&a, slice_cstr("x"), 0x1234567, &known), alias);
    cr_assert(known);
    cr_assert_eq(aliases_choose(&a, slice_cstr("y"), 0x1234567, &known), alias);
    cr_assert(!known);
    aliases_deinit(&a);
}
