/* The walk over damaged bytes. A segment is built in memory (as a temporary file for the source). */
#include "core/store/scan.h"
#include "core/store/survey.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint64_t EPOCH = 0x0102030405060708;

struct bytes {
    uint8_t data[16384];
    size_t len;
    size_t frames[16], records[64]; /* positions */
    unsigned frame_count, record_count;
    uint64_t next;
};

static void begin(struct bytes *b, uint64_t base)
{
    memset(b, 0, sizeof *b);
    b->len = sizeof(struct segment_header);
    b->next = base;
}

static void add_frame(struct bytes *b, const char *const *payloads, unsigned count)
{
    size_t start = b->len;
    uint32_t seed = record_seed(EPOCH, b->next);
    b->frames[b->frame_count++] = start;
    b->len += sizeof(struct frame_header);
    for (unsigned i = 0; i < count; i++) {
        struct msg *m;
        cr_assert_eq(
            msg_create(slice_cstr("t"), (struct slice){0}, (struct slice){0}, slice_cstr(payloads[i]), &m),
            ST_OK);
        b->records[b->record_count++] = b->len;
        record_encode(m, i, seed, b->data + b->len);
        b->len += record_stored_bytes(m);
        msg_unref(m);
    }
    struct frame_header h = {.frame_bytes = (uint32_t)(b->len - start),
                             .segment_epoch = EPOCH,
                             .base_offset = b->next,
                             .record_count = count,
                             .synced_below = b->next,
                             .body_bytes = (uint32_t)(b->len - start - sizeof h)};
    frame_header_encode(&h, b->data + start);
    b->next += count;
}

static const char *const four[] = {"zero", "one", "two", "three"};

static void three_frames(struct bytes *b)
{
    begin(b, 100);
    for (int i = 0; i < 3; i++)
        add_frame(b, four, 4);
}

static int file_of(const struct bytes *b, size_t extra)
{
    int fd = memfd_create("segment", 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, b->data, b->len + extra), (ssize_t)(b->len + extra));
    return fd;
}

/* Walks it; offsets as text: digits that were served, x for damaged ones. */
static void walk(const struct bytes *b, size_t extra, char *out)
{
    int fd = file_of(b, extra);
    struct source source;
    struct scan scan;
    size_t n = 0;
    source_init(&source);
    source_open(&source, fd, b->len + extra, NULL, NULL);
    scan_init(&scan, &source, EPOCH, 100, sizeof(struct segment_header), 100);
    for (bool more = true; more;) {
        switch (scan_next(&scan)) {
        case SCAN_FRAME:
            out[n++] = '|';
            break;
        case SCAN_RECORD:
            out[n++] = (char)('a' + (scan.record.offset - 100));
            break;
        case SCAN_BAD:
            for (uint64_t o = scan.bad_from; o < scan.bad_to; o++)
                out[n++] = 'x';
            break;
        case SCAN_END:
            more = false;
            break;
        }
    }
    out[n] = '\0';
    source_deinit(&source);
    close(fd);
}

Test(scan, walks_what_is_whole)
{
    struct bytes b;
    char out[64];
    three_frames(&b);
    walk(&b, 0, out);
    cr_assert_str_eq(out, "|abcd|efgh|ijkl");
    walk(&b, 4096, out);
    cr_assert_str_eq(out, "|abcd|efgh|ijkl", "zeroes behind");
}

Test(scan, steps_over_damage)
{
    struct {
        const char *what;
        unsigned frame, record; /* record 99: the frame's header */
        size_t at;
        const char *want;
    } rows[] = {
        {"first header", 0, 99, 20, "xxxx|efgh|ijkl"},
        {"second header", 1, 99, 0, "|abcdxxxx|ijkl"},
        {"last header", 2, 99, 64, "|abcd|efgh"},
        {"first record", 0, 0, 41, "|xbcd|efgh|ijkl"},
        {"middle record", 1, 5, 30, "|abcd|exgh|ijkl"},
        {"its length", 1, 5, 4, "|abcd|exgh|ijkl"},
        {"last record of a frame", 1, 7, 0, "|abcd|efgx|ijkl"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bytes b;
        char out[64];
        three_frames(&b);
        size_t start = rows[i].record == 99 ? b.frames[rows[i].frame] : b.records[rows[i].record];
        b.data[start + rows[i].at] ^= 0x40;
        walk(&b, 64, out);
        cr_assert_str_eq(out, rows[i].want, "%s: %s", rows[i].what, out);
    }
}

Test(scan, lost_blocks_are_a_gap)
{
    struct bytes b;
    char out[64];
    three_frames(&b);
    /* From the middle of the second frame into the third. */
    memset(b.data + b.records[6], 0, b.records[9] - b.records[6]);
    walk(&b, 0, out);
    cr_assert_str_eq(out, "|abcd|efxx", "%s", out);
}

Test(scan, does_not_believe_a_record_inside_a_payload)
{
    struct bytes b, inner;
    char out[64];
    /* A publisher knows the format, not the epoch: a record with delta 1 for the frame it guesses. */
    begin(&inner, 100);
    struct msg *m, *outer;
    uint8_t forged[256];
    cr_assert_eq(
        msg_create(slice_cstr("forged"), (struct slice){0}, (struct slice){0}, slice_cstr("lie"), &m), ST_OK);
    size_t forged_len = record_stored_bytes(m);
    record_encode(m, 1, record_seed(EPOCH ^ 1, 100), forged);
    begin(&b, 100);
    size_t start = b.len;
    b.frames[b.frame_count++] = start;
    b.len += sizeof(struct frame_header);
    cr_assert_eq(msg_create(slice_cstr("12345678"), (struct slice){0}, (struct slice){0},
                            slice_of(forged, forged_len), &outer),
                 ST_OK);
    b.records[0] = b.len;
    record_encode(outer, 0, record_seed(EPOCH, 100), b.data + b.len);
    b.len += record_stored_bytes(outer);
    record_encode(m, 1, record_seed(EPOCH, 100), b.data + b.len);
    b.len += forged_len;
    struct frame_header h = {.frame_bytes = (uint32_t)(b.len - start),
                             .segment_epoch = EPOCH,
                             .base_offset = 100,
                             .record_count = 2,
                             .body_bytes = (uint32_t)(b.len - start - sizeof h)};
    frame_header_encode(&h, b.data + start);
    b.data[b.records[0] + 6] ^= 1; /* the outer record's length is damaged: the search enters its payload */
    walk(&b, 0, out);
    cr_assert_str_eq(out, "|xb", "%s", out);
    msg_unref(m);
    msg_unref(outer);
}

Test(survey, says_where_the_log_ends_and_what_vouches)
{
    struct bytes b;
    struct survey s;
    struct survey_tools tools;
    uint32_t bad;
    three_frames(&b);
    b.data[b.frames[1] + 9] ^= 1;
    int fd = file_of(&b, 128);
    survey_tools_init(&tools);
    source_open(&tools.source, fd, b.len + 128, NULL, NULL);
    cr_assert_eq(survey_run(&tools, EPOCH, 100, false, &s), ST_OK);
    cr_assert_eq(s.next_offset, 112);
    cr_assert_eq(s.data_end, b.len);
    cr_assert_eq(s.synced_below, 108);
    cr_assert_eq(s.spot_count, 1);
    cr_assert_eq(s.spots[0].position, b.frames[1]);
    cr_assert_eq(s.spots[0].frame_offset, 104);
    const struct index_range *range = topic_index_bad(s.index, &bad);
    cr_assert(bad == 1 && range->from == 4 && range->to == 8);
    cr_assert_eq(topic_index_posting_count(s.index), 8);
    topic_index_destroy(s.index);
    survey_deinit(&s);
    survey_tools_deinit(&tools);
    close(fd);
}
