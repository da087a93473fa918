#include "routing/directory_record.h"

#include <criterion/criterion.h>

static const struct directory_node node = {.incarnation = 0x1f,
                                           .registration = 3,
                                           .settled = true,
                                           .life = 0xabcdef0123456789,
                                           .state = "ready",
                                           .version = "0.1.0",
                                           .started_ms = 1790000000000,
                                           .epoch = 0x5ac7,
                                           .partitions = 8,
                                           .connections = 12};
#define NODE_TEXT "1 1f 3 1 abcdef0123456789 ready 0.1.0 1790000000000 5ac7 8 12"

Test(directory_record, a_node_is_read_as_it_was_written)
{
    struct directory_node back = {.id = "n1"};
    struct buf text;
    buf_init(&text, DIRECTORY_RECORD_BYTES_MAX);
    cr_assert_eq(directory_node_write(&node, &text), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&text), NODE_TEXT));
    cr_assert_eq(directory_node_read(buf_slice(&text), &back), ST_OK);
    cr_assert_str_eq(back.id, "n1");
    cr_assert(back.incarnation == node.incarnation && back.registration == 3 && back.settled);
    cr_assert(back.life == node.life && back.started_ms == node.started_ms && back.epoch == node.epoch);
    cr_assert(back.partitions == 8 && back.connections == 12);
    cr_assert_str_eq(back.state, "ready");
    cr_assert_str_eq(back.version, "0.1.0");
    buf_deinit(&text);
}

Test(directory_record, what_is_no_node_changes_nothing)
{
    static const char *const wrong[] = {"",
                                        " ",
                                        "1",
                                        "2"
                                        " 1f 3 1 ab ready 0.1.0 1 5ac7 8 12",
                                        "1 1f 3 2 ab ready 0.1.0 1 5ac7 8 12",
                                        "1 1F 3 1 ab ready 0.1.0 1 5ac7 8 12",
                                        "1 01f 3 1 ab ready 0.1.0 1 5ac7 8 12",
                                        "1 1f 3 1 ab re/dy 0.1.0 1 5ac7 8 12",
                                        "1 1f 3 1 ab  0.1.0 1 5ac7 8 12",
                                        "1 1f 3 1 ab ready 0.1.0 1 5ac7 8",
                                        "1 1f 3 1 ab ready 0.1.0 1 5ac7 8 12 ",
                                        "1 1f 3 1 ab ready 0.1.0 1 5ac7 8 12 1",
                                        "1 1f 3 1 ab ready 0.1.0 -1 5ac7 8 12",
                                        "1 1f 3 1 ab ready 0.1.0 18446744073709551616 5ac7 8 12",
                                        "1 1f 3 1 ab abcdefghijklmnopqrstuvwxyzabcdef 0.1.0 1 5ac7 8 12"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct directory_node n = node;
        cr_assert_eq(directory_node_read(slice_cstr(wrong[i]), &n), ST_INVALID, "row %zu: %s", i, wrong[i]);
        cr_assert_eq(memcmp(&n, &node, sizeof n), 0, "row %zu", i);
    }
}

Test(directory_record, a_field_names_node_life_registration_and_connection)
{
    const struct directory_field f = {
        .node = "eu-1.a b", .incarnation = 0x2a, .registration = 0x10, .connection = 99};
    struct directory_field back;
    struct buf text;
    buf_init(&text, DIRECTORY_FIELD_BYTES_MAX);
    cr_assert_eq(directory_field_write(&f, &text), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&text), "10.eu-1.a b-2a-99"));
    cr_assert_eq(directory_field_read(buf_slice(&text), &back), ST_OK);
    cr_assert_str_eq(back.node, f.node);
    cr_assert(back.incarnation == 0x2a && back.registration == 0x10 && back.connection == 99);
    buf_deinit(&text);
}

Test(directory_record, what_is_no_field)
{
    static const char *const wrong[] = {"",         ".",        "1.",       ".n-1-1", "n-1-1",
                                        "1.-1-1",   "01.n-1-1", "1 .n-1-1", "1.n-1",  "g.n-1-1",
                                        "1.n-01-1", "1.n-1-01", "1.n-1-"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct directory_field f;
        cr_assert_eq(directory_field_read(slice_cstr(wrong[i]), &f), ST_INVALID, "row %zu: %s", i, wrong[i]);
    }
    char longest[2 + DIRECTORY_NODE_BYTES_MAX + 1 + 5] = "1.";
    struct directory_field f;
    memset(longest + 2, 'n', DIRECTORY_NODE_BYTES_MAX + 1);
    memcpy(longest + 2 + DIRECTORY_NODE_BYTES_MAX + 1, "-1-1", 4);
    struct slice text = slice_of(longest, 2 + DIRECTORY_NODE_BYTES_MAX + 1 + 4);
    cr_assert_eq(directory_field_read(text, &f), ST_INVALID);
    memmove(longest + 2, longest + 3, text.len - 3);
    cr_assert_eq(directory_field_read(slice_of(longest, text.len - 1), &f), ST_OK);
}

Test(directory_record, a_place_is_read_as_it_was_written)
{
    const struct directory_place p = {.since_ms = 1790000000123, .door = "mqtt"};
    struct directory_place back;
    struct buf text;
    buf_init(&text, 100);
    cr_assert_eq(directory_place_write(&p, &text), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&text), "1790000000123 mqtt"));
    cr_assert_eq(directory_place_read(buf_slice(&text), &back), ST_OK);
    cr_assert_str_eq(back.door, "mqtt");
    cr_assert_eq(back.since_ms, p.since_ms);
    cr_assert_eq(directory_place_read(slice_cstr("1790000000123"), &back), ST_INVALID);
    cr_assert_eq(directory_place_read(slice_cstr("1 m<t"), &back), ST_INVALID);
    buf_deinit(&text);
}
