/* A view of folders that a store has made, sound and damaged. */
#include "core/store/view.h"

#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>

struct result {
    uint64_t messages, faults, segments, torn_bytes;
    struct walk_fault last;
};

static struct result look(const char *dir, uint64_t from)
{
    struct result r = {0};
    struct view *v;
    struct walk *w;
    struct buf error;
    buf_init(&error, 4096);
    cr_assert_eq(view_open(dir, &v, &error), ST_OK, "%.*s", SLICE_ARG(buf_slice(&error)));
    struct walk_options o = {.messages = true, .check_indexes = true, .from = from};
    cr_assert_eq(walk_open(v, 0, &o, &w, &error), ST_OK);
    for (enum walk_event e; (e = walk_next(w)) != WALK_END;) {
        cr_assert_neq(e, WALK_FAILED);
        r.messages += e == WALK_MESSAGE;
        r.segments += e == WALK_SEGMENT;
        if (e == WALK_SEGMENT)
            r.torn_bytes += walk_look(w)->segment.torn_bytes;
        if (e == WALK_FAULT) {
            r.faults++;
            r.last = walk_look(w)->fault;
        }
    }
    walk_close(w);
    view_close(v);
    buf_deinit(&error);
    return r;
}

static void fill(struct world *w, unsigned count)
{
    char text[1000];
    memset(text, 'x', sizeof text);
    uint64_t offset = 0;
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(world_append(w, 0, i % 2 ? "a" : "b", slice_of(text, sizeof text), true, &offset),
                     ST_OK);
        store_flush(w->store, 0);
        if (i % 4 == 3) /* so that the next frames say what is synced */
            world_wait_durable(w, 0, offset + 1);
    }
    world_wait_durable(w, 0, offset + 1);
}

static void make(struct world *w, unsigned count)
{
    world_init(w, 1);
    w->options.segment_bytes = 64 << 10;
    world_open(w);
    fill(w, count);
    world_close(w);
}

/* The n-th segment's file. */
static void path_of(const struct world *w, unsigned number, const char *suffix, char out[600])
{
    struct dirent **names;
    char folder[300];
    snprintf(folder, sizeof folder, "%s/0", w->dir);
    int count = scandir(folder, &names, NULL, alphasort);
    unsigned at = 0;
    out[0] = '\0';
    for (int i = 0; i < count; i++) {
        if (strstr(names[i]->d_name, suffix) && at++ == number)
            snprintf(out, 600, "%s/%s", folder, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    cr_assert(out[0] != '\0');
}

static void flip(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    cr_assert(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

Test(view, a_sound_log_has_no_fault)
{
    struct world w;
    make(&w, 300);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.messages, 300);
    cr_expect_eq(r.faults, 0);
    cr_expect_gt(r.segments, 3);
    world_deinit(&w);
}

Test(view, reads_from_an_offset_on)
{
    struct world w;
    make(&w, 300);
    struct result r = look(w.dir, 251); /* 0 is START */
    cr_expect_eq(r.messages, 50);
    cr_expect_lt(r.segments, 4);
    world_deinit(&w);
}

Test(view, a_log_in_use_and_one_that_crashed_are_clean)
{
    struct world w;
    char copy[256];
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    fill(&w, 300);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.messages, 300);
    cr_expect_eq(r.faults, 0);
    world_crash_copy(&w, copy);
    r = look(copy, 0);
    cr_expect_eq(r.messages, 300);
    cr_expect_eq(r.faults, 0);
    world_remove(copy);
    world_deinit(&w);
}

Test(view, a_torn_end_is_no_fault_and_a_cut_below_it_is_one)
{
    struct world w;
    char copy[256], path[600];
    struct stat stat_of;
    world_init(&w, 1);
    world_open(&w);
    fill(&w, 20);
    world_crash_copy(&w, copy);
    struct world other = w;
    memcpy(other.dir, copy, sizeof copy);
    path_of(&other, 0, ".seg", path);
    cr_assert_eq(stat(path, &stat_of), 0);
    /* The last frame: nothing behind it vouches for it. */
    struct result sound = look(copy, 0);
    cr_assert_eq(sound.faults, 0);
    uint64_t frame = 72 + 1048; /* of one record of this test */
    int fd = open(path, O_RDWR);
    off_t end = 64 + 72 + 64 + 20 * (off_t)frame; /* header, START, messages; a mark may follow */
    cr_assert_eq(ftruncate(fd, end - 100), 0);
    close(fd);
    struct result r = look(copy, 0);
    cr_expect_eq(r.faults, 0, "from %lu to %lu", r.last.from, r.last.to);
    cr_expect_eq(r.messages, 19);
    cr_expect_gt(r.torn_bytes, 0);
    /* In the middle: what follows says that it was synced. */
    path_of(&other, 0, ".seg", path);
    flip(path, 64 + 72 + 64 + 5 * (off_t)frame + 500);
    r = look(copy, 0);
    cr_expect_eq(r.faults, 1);
    cr_expect_eq(r.last.kind, FAULT_RECORDS);
    cr_expect_eq(r.last.from, 6);
    cr_expect_eq(r.last.to, 7);
    cr_expect_eq(r.messages, 18);
    world_remove(copy);
    world_deinit(&w);
}

Test(view, every_flipped_byte_of_a_sealed_segment_is_found)
{
    struct world w;
    char path[600];
    struct stat stat_of;
    make(&w, 150);
    path_of(&w, 1, ".seg", path);
    cr_assert_eq(stat(path, &stat_of), 0);
    for (off_t at = 0; at < stat_of.st_size; at += 397) {
        flip(path, at);
        struct result r = look(w.dir, 0);
        /* Of the frame header all is under its CRC, of a record all; the segment's header likewise. */
        cr_expect_eq(r.faults, 1, "byte %ld of %ld: %lu faults, the last is %d", (long)at,
                     (long)stat_of.st_size, r.faults, r.last.kind);
        flip(path, at);
    }
    cr_expect_eq(look(w.dir, 0).faults, 0);
    world_deinit(&w);
}

Test(view, a_missing_file_is_named)
{
    struct world w;
    char path[600], last[600];
    make(&w, 300);
    path_of(&w, 1, ".seg", path);
    unlink(path);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.faults, 1);
    cr_expect_eq(r.last.kind, FAULT_MISSING);
    cr_expect_eq(r.messages + (r.last.to - r.last.from), 300);
    snprintf(last, sizeof last, "%s/0/%020lu.seg", w.dir, (unsigned long)r.last.base_offset);
    cr_expect_str_eq(last, path);
    world_deinit(&w);
}

Test(view, a_missing_first_or_last_file_is_named_too)
{
    struct world w;
    char path[600];
    make(&w, 300);
    path_of(&w, 0, ".seg", path);
    unlink(path);
    cr_expect_eq(look(w.dir, 0).last.kind, FAULT_MISSING);
    world_deinit(&w);
    make(&w, 300);
    unsigned last = (unsigned)look(w.dir, 0).segments - 1;
    path_of(&w, last, ".seg", path);
    unlink(path);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.faults, 1);
    cr_expect_eq(r.last.kind, FAULT_MISSING);
    cr_expect_eq(r.last.to, 301);
    world_deinit(&w);
}

Test(view, a_truncated_sealed_file_is_damage)
{
    struct world w;
    char path[600];
    make(&w, 300);
    path_of(&w, 1, ".seg", path);
    cr_assert_eq(truncate(path, 30000), 0);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.faults, 2); /* its index does not agree either */
    world_deinit(&w);
}

Test(view, an_index_that_does_not_agree_is_told)
{
    struct world w;
    char path[600];
    make(&w, 150);
    path_of(&w, 0, ".idx", path);
    for (off_t at = 0; at < 140; at += 7) { /* its header and its first topics */
        flip(path, at);
        struct result r = look(w.dir, 0);
        cr_expect_eq(r.faults, 1, "byte %ld", (long)at);
        cr_expect_eq(r.last.kind, FAULT_INDEX);
        cr_expect_eq(r.messages, 150);
        flip(path, at);
    }
    unlink(path); /* a missing one is made anew */
    cr_expect_eq(look(w.dir, 0).faults, 0);
    world_deinit(&w);
}

Test(view, a_file_of_another_log_is_told)
{
    struct world w, other;
    char path[600], strange[600], command[1300];
    make(&w, 150);
    make(&other, 150);
    path_of(&w, 0, ".seg", path);
    path_of(&other, 0, ".seg", strange);
    snprintf(command, sizeof command, "cp %s %s", strange, path);
    cr_assert_eq(system(command), 0);
    struct result r = look(w.dir, 0);
    cr_expect_eq(r.faults, 2); /* and what it stands for is not there */
    world_deinit(&w);
    world_deinit(&other);
}

Test(view, no_log_and_a_damaged_manifest_are_told_apart)
{
    struct world w;
    char path[600];
    struct view *v;
    struct buf error;
    buf_init(&error, 4096);
    world_init(&w, 1);
    cr_expect_eq(view_open(w.dir, &v, &error), ST_NOT_FOUND);
    world_open(&w);
    world_close(&w);
    snprintf(path, sizeof path, "%s/MANIFEST", w.dir);
    flip(path, 20);
    cr_expect_eq(view_open(w.dir, &v, &error), ST_CORRUPT);
    unlink(path);
    cr_expect_eq(view_open(w.dir, &v, &error), ST_CORRUPT);
    cr_expect_gt(error.len, 0);
    buf_deinit(&error);
    world_deinit(&w);
}

static void note_seen(const struct walk *walk, enum walk_event e, uint64_t *seen, uint64_t *begin)
{
    if (e == WALK_MESSAGE && (*seen)++ == 0)
        *begin = walk_look(walk)->msg->offset;
}

/* Retention takes most of the lane after `early` messages have been seen, or before any. What is seen and
 * what is told as removed must be all there is. */
static void removed_meanwhile(bool early, bool tell)
{
    enum { COUNT = 1000 };
    struct world w;
    struct view *v;
    struct walk *walk;
    struct buf error;
    uint64_t seen = 0, removed = 0, faults = 0, last = 0, begin = 0;
    world_init(&w, 1);
    buf_init(&error, 4096);
    w.options.segment_bytes = 64 << 10;
    w.options.retention_bytes = 128 << 10;
    world_open(&w);
    for (unsigned i = 0; i < COUNT; i++) {
        static uint8_t block[1000];
        cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, &last), ST_OK);
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, last + 1);
    }
    cr_assert_eq(view_open(w.dir, &v, &error), ST_OK);
    struct walk_options o = {.messages = true, .tell_removed = tell};
    cr_assert_eq(walk_open(v, 0, &o, &walk, &error), ST_OK);
    while (early && seen < 10)
        note_seen(walk, walk_next(walk), &seen, &begin);
    store_trim(w.store, 0, 0);
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_first(w.store, 0) < COUNT / 2) {
        struct world_read r; /* hands what was appended to the reader */
        world_read_init(&r, 0, store_next(w.store, 0));
        world_read_run(&w, &r);
        world_read_free(&r);
        world_turn(&w);
        cr_assert_lt(world_now_ms(), deadline, "retention has removed something");
    }
    for (enum walk_event e; (e = walk_next(walk)) != WALK_END;) {
        cr_assert_neq(e, WALK_FAILED);
        note_seen(walk, e, &seen, &begin);
        if (e != WALK_FAULT)
            continue;
        const struct walk_fault *f = &walk_look(walk)->fault;
        cr_assert_eq(f->kind, FAULT_REMOVED, "kind %d, %lu to %lu", (int)f->kind, f->from, f->to);
        removed += f->to - f->from;
        faults++;
    }
    cr_assert(early ? begin == 1 && (faults > 0) == tell : tell);
    if (tell) /* from the first that was seen on; without an early look this may be any */
        cr_assert_eq(seen + removed, last + 1 - begin, "%lu seen, %lu told", seen, removed);
    walk_close(walk);
    view_close(v);
    buf_deinit(&error);
    world_deinit(&w);
}

Test(view, what_retention_removes_behind_a_walk_is_told_when_asked_for)
{
    removed_meanwhile(true, true);
    removed_meanwhile(true, false);
    removed_meanwhile(false, true);
}
