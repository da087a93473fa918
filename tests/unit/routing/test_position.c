#include "routing/position.h"

#include <criterion/criterion.h>
#include <inttypes.h>

enum { EPOCH = 0xbeef0001 };

static enum status fold(struct place *place, const char *text)
{
    return place_fold(place, EPOCH, slice_cstr(text));
}

Test(position, has_a_fixed_width_text)
{
    char text[POSITION_BYTES + 1] = {0};
    position_write(EPOCH, 7, 0x1234, text);
    cr_expect_str_eq(text, "beef00010007.0000000000001234");
    memset(text, 0, sizeof(text));
    position_write(0, 63, UINT64_MAX, text);
    cr_expect_str_eq(text, "00000000003f.ffffffffffffffff");
}

Test(position, of_two_in_a_lane_the_later_is_the_greater_string)
{
    static const uint64_t offsets[] = {0, 1, 9, 10, 15, 16, 255, 256, 1ULL << 32, UINT64_MAX - 1};
    char before[POSITION_BYTES + 1] = {0}, after[POSITION_BYTES + 1] = {0};
    for (size_t i = 1; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        position_write(EPOCH, 3, offsets[i - 1], before);
        position_write(EPOCH, 3, offsets[i], after);
        cr_expect(strcmp(before, after) < 0, "%s %s", before, after);
    }
}

Test(bookmark, has_one_next_a_lane)
{
    char text[BOOKMARK_BYTES_MAX + 1] = {0};
    struct place place = {.lane_count = 4, .next = {0, 10, 0xabcdef, UINT64_MAX}};
    cr_expect_eq(bookmark_write(EPOCH, &place, text), strlen("bbeef0001.0-a-abcdef-ffffffffffffffff"));
    cr_expect_str_eq(text, "bbeef0001.0-a-abcdef-ffffffffffffffff");
}

Test(bookmark, of_the_most_and_longest_lanes_fits_its_maximum)
{
    char text[BOOKMARK_BYTES_MAX];
    struct place place = {.lane_count = PLACE_LANES_MAX}, back = {.lane_count = PLACE_LANES_MAX};
    for (size_t i = 0; i < PLACE_LANES_MAX; i++)
        place.next[i] = UINT64_MAX - 1 - i;
    size_t len = bookmark_write(EPOCH, &place, text);
    cr_assert_leq(len, BOOKMARK_BYTES_MAX);
    cr_expect_eq(place_fold(&back, EPOCH, slice_of(text, len)), ST_OK);
    cr_expect_arr_eq(back.next, place.next, sizeof(place.next));
}

Test(place, goes_strictly_after_a_position)
{
    struct place place = {.lane_count = 4};
    cr_expect_eq(fold(&place, "beef00010002.000000000000000a"), ST_OK);
    cr_expect_eq(place.next[2], 11);
    cr_expect_eq(place.next[0] | place.next[1] | place.next[3], 0, "other lanes stay");
}

Test(place, before_goes_strictly_before_and_takes_the_oldest)
{
    struct place place = {.lane_count = 3, .next = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    cr_expect_eq(place_fold_before(&place, EPOCH, slice_cstr("beef00010001.0000000000000008")), ST_OK);
    cr_expect(place.next[0] == UINT64_MAX && place.next[1] == 8 && place.next[2] == UINT64_MAX);
    cr_expect_eq(place_fold_before(&place, EPOCH, slice_cstr("bbeef0001.7-9-0")), ST_OK);
    cr_expect(place.next[0] == 7 && place.next[1] == 8 && place.next[2] == 0);
    cr_expect_eq(place_fold_before(&place, EPOCH, slice_cstr("bbeef0002.7-9-0")), ST_GONE);
    cr_expect_eq(place_fold_before(&place, EPOCH, slice_cstr("earliest")), ST_INVALID);
}

Test(place, a_time_has_one_text)
{
    static const char *const bad[] = {
        "time:",    "time:-1", "time:01", "time:1 ", "time:9007199254740992",
        "time:1e3", "Time:1",  "last:1",  "1",       "time:99999999999999999999"};
    uint64_t time_ms = 1;
    cr_expect(place_time_read(slice_cstr("time:0"), &time_ms) && time_ms == 0);
    cr_expect(place_time_read(slice_cstr("time:9007199254740991"), &time_ms));
    cr_expect_eq(time_ms, (UINT64_C(1) << 53) - 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(place_time_read(slice_cstr(bad[i]), &time_ms), "%s", bad[i]);
}

Test(place, takes_the_newest_of_several_in_any_order)
{
    static const char *const texts[] = {
        "bbeef0001.5-5-5",
        "beef00010001.0000000000000008",
        "beef00010001.0000000000000003",
        "beef00010002.0000000000000001",
        "bbeef0001.7-2-0",
    };
    struct place forth = {.lane_count = 3}, back = {.lane_count = 3};
    for (size_t i = 0; i < 5; i++) {
        cr_expect_eq(fold(&forth, texts[i]), ST_OK, "%s", texts[i]);
        cr_expect_eq(fold(&back, texts[4 - i]), ST_OK, "%s", texts[4 - i]);
    }
    static const uint64_t want[] = {7, 9, 5};
    for (size_t lane = 0; lane < 3; lane++) {
        cr_expect_eq(forth.next[lane], want[lane], "lane %zu: %" PRIu64, lane, forth.next[lane]);
        cr_expect_eq(back.next[lane], want[lane], "lane %zu: %" PRIu64, lane, back.next[lane]);
    }
}

struct fold_row {
    const char *text;
    enum status want;
};

/* Three lanes, epoch beef0001. */
static const struct fold_row fold_rows[] = {
    {"beef00010000.0000000000000000", ST_OK},
    {"beef00010002.fffffffffffffffd", ST_OK},
    {"beef00010002.fffffffffffffffe", ST_INVALID},
    {"bbeef0001.0-0-0", ST_OK},
    {"bbeef0001.fffffffffffffffe-1-10", ST_OK},
    {"bbeef0001.ffffffffffffffff-1-10", ST_INVALID},
    /* another epoch */
    {"beef00020000.0000000000000000", ST_GONE},
    {"beef0002ffff.0000000000000000", ST_GONE}, /* its lanes are not ours to judge */
    {"bbeef0002.0-0-0", ST_GONE},
    {"bbeef0000.1", ST_GONE},
    {"b00000000.1-2-3-4-5", ST_GONE},
    {"b00000010000.0000000000000000", ST_GONE}, /* a position whose epoch begins with b */
    /* lanes that do not exist */
    {"beef00010003.0000000000000000", ST_INVALID},
    {"beef0001ffff.0000000000000000", ST_INVALID},
    {"bbeef0001.1-2", ST_INVALID},
    {"bbeef0001.1-2-3-4", ST_INVALID},
    /* nothing comes after the last offset */
    {"beef00010000.ffffffffffffffff", ST_INVALID},
    /* not such texts */
    {"", ST_INVALID},
    {"b", ST_INVALID},
    {".", ST_INVALID},
    {"earliest", ST_INVALID},
    {"bbeef0001", ST_INVALID},
    {"bbeef0001.", ST_INVALID},
    {"bbeef0001.1-2-", ST_INVALID},
    {"bbeef0001.-1-2", ST_INVALID},
    {"bbeef0001.1--2", ST_INVALID},
    {"bbeef0001.1-2-3-", ST_INVALID},
    {"bbeef0001.01-2-3", ST_INVALID},
    {"bbeef0001.00-2-3", ST_INVALID},
    {"bbeef0001.A-2-3", ST_INVALID},
    {"bbeef0001.1-2-10000000000000000", ST_INVALID},
    {"bbeef0001.1-2-3 ", ST_INVALID},
    {"Bbeef0001.1-2-3", ST_INVALID},
    {"cbeef0001.1-2-3", ST_INVALID},
    {"bBEEF0001.1-2-3", ST_INVALID},
    {"bbeef001.1-2-3", ST_INVALID},
    {"beef00010000.000000000000000", ST_INVALID},
    {"beef00010000.00000000000000000", ST_INVALID},
    {"beef00010000-0000000000000000", ST_INVALID},
    {"beef00010000.000000000000000G", ST_INVALID},
    {"BEEF00010000.0000000000000000", ST_INVALID},
    {"beef0001000x.0000000000000000", ST_INVALID},
    {"+eef00010000.0000000000000000", ST_INVALID},
    {"beef00010000. 000000000000000", ST_INVALID},
};

Test(place, takes_only_texts_of_this_log)
{
    for (size_t i = 0; i < sizeof(fold_rows) / sizeof(fold_rows[0]); i++) {
        struct place place = {.lane_count = 3, .next = {1, 2, 3}}, before = place;
        enum status st = fold(&place, fold_rows[i].text);
        cr_expect_eq(st, fold_rows[i].want, "'%s': %s", fold_rows[i].text, status_name(st));
        if (st != ST_OK)
            cr_expect_arr_eq(&place, &before, sizeof(place), "'%s' changed the place", fold_rows[i].text);
    }
}

Test(place, refuses_more_lanes_than_there_can_be)
{
    char text[2048] = "b00000000.0";
    for (size_t i = 0; i < PLACE_LANES_MAX; i++)
        strcat(text, "-0");
    struct place place = {.lane_count = 3};
    cr_expect_eq(fold(&place, text), ST_INVALID);
}

Test(place, takes_no_bytes_after_a_zero_byte)
{
    struct place place = {.lane_count = 1};
    cr_expect_eq(place_fold(&place, EPOCH, slice_of("bbeef0001.1\0", 12)), ST_INVALID);
    cr_expect_eq(place_fold(&place, EPOCH, slice_of(NULL, 0)), ST_INVALID);
}
