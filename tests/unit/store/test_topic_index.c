#include "core/store/index_file.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOPICS = 5000 };

/* Topic t has (t % 5) + 1 records; record number n of topic t is at a place that tells both. */
static void fill(struct topic_index *x)
{
    for (uint32_t n = 0; n < 5; n++) {
        for (uint64_t t = 0; t < TOPICS; t++) {
            if (n <= t % 5)
                cr_assert_eq(topic_index_add(x, t * 0x9e3779b97f4a7c15u,
                                             (struct index_place){n * TOPICS + (uint32_t)t, (uint32_t)t}),
                             ST_OK);
        }
    }
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(topic_index_add_frame(x, (struct index_place){i * 1000, i * INDEX_FRAME_DISTANCE / 16}),
                     ST_OK);
    cr_assert_eq(topic_index_add_bad(x, (struct index_range){3, 9}), ST_OK);
}

static void check(struct index_places p, uint64_t t)
{
    cr_assert_eq(p.count, t % 5 + 1, "topic %lu has %u", t, p.count);
    for (uint32_t n = 0; n < p.count; n++)
        cr_assert(p.places[n].delta == n * TOPICS + t && p.places[n].place == t, "topic %lu", t);
}

Test(topic_index, finds_every_topic_and_no_other)
{
    struct topic_index *x;
    cr_assert_eq(topic_index_create(&x), ST_OK);
    fill(x);
    for (uint64_t t = 0; t < TOPICS; t++)
        check(topic_index_find(x, t * 0x9e3779b97f4a7c15u), t);
    cr_assert_eq(topic_index_find(x, 12345).count, 0);
    cr_assert_eq(topic_index_topic_count(x), TOPICS);
    cr_assert_eq(topic_index_posting_count(x), TOPICS * 3);
    cr_assert_eq(topic_index_frames(x).count, 5, "one for each 64 KiB");
    topic_index_destroy(x);
}

struct place {
    char dir[64], path[128];
};

static void write_file(struct place *p)
{
    struct topic_index *x;
    struct index_header h = {.lane = 2, .base_offset = 77, .segment_epoch = 5, .next_offset = 90000};
    strcpy(p->dir, "/tmp/tg-index-XXXXXX");
    cr_assert_not_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof p->path, "%s/x.idx", p->dir);
    cr_assert_eq(topic_index_create(&x), ST_OK);
    fill(x);
    cr_assert_eq(index_file_write(store_files_system(), p->dir, p->path, &h, x), ST_OK);
    topic_index_destroy(x);
}

static void remove_file(struct place *p)
{
    unlink(p->path);
    cr_assert_eq(rmdir(p->dir), 0, "nothing else is left in the folder");
}

Test(index_file, gives_back_what_was_written)
{
    struct place p;
    struct index_file f;
    struct index_header h;
    uint32_t bad;
    write_file(&p);
    cr_assert_eq(index_file_peek(p.path, &h), ST_OK);
    cr_assert(h.lane == 2 && h.base_offset == 77 && h.next_offset == 90000);
    cr_assert_eq(index_file_map(p.path, true, &f), ST_OK);
    for (uint64_t t = 0; t < TOPICS; t++)
        check(index_file_find(&f, t * 0x9e3779b97f4a7c15u), t);
    cr_assert_eq(index_file_find(&f, 12345).count, 0);
    cr_assert_eq(index_file_find(&f, UINT64_MAX).count, 0);
    cr_assert_eq(index_file_frames(&f).count, 5);
    const struct index_range *range = index_file_bad(&f, &bad);
    cr_assert(bad == 1 && range->from == 3 && range->to == 9);
    index_file_unmap(&f);
    remove_file(&p);
}

Test(index_file, damage_is_seen)
{
    struct place p;
    struct index_file f;
    struct stat st;
    write_file(&p);
    cr_assert_eq(stat(p.path, &st), 0);
    int fd = open(p.path, O_RDWR);
    for (off_t at = 0; at < st.st_size; at += at < 96 ? 1 : 997) {
        uint8_t byte;
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        cr_assert_eq(index_file_map(p.path, true, &f), ST_CORRUPT, "byte %ld", at);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    }
    cr_assert_eq(ftruncate(fd, st.st_size - 1), 0);
    cr_assert_eq(index_file_map(p.path, true, &f), ST_CORRUPT);
    cr_assert_eq(ftruncate(fd, 10), 0);
    cr_assert_eq(index_file_map(p.path, true, &f), ST_CORRUPT);
    close(fd);
    remove_file(&p);
    cr_assert_eq(index_file_map(p.path, true, &f), ST_NOT_FOUND);
}
