#include "core/store/restore.h"
#include "core/store/snapshot.h"

#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>

static uint64_t messages_in(const char *dir)
{
    struct view *v;
    struct walk *w;
    struct buf error;
    uint64_t count = 0;
    buf_init(&error, 4096);
    cr_assert_eq(view_open(dir, &v, &error), ST_OK, "%.*s", SLICE_ARG(buf_slice(&error)));
    cr_assert_eq(walk_open(v, 0, &(struct walk_options){.messages = true, .check_indexes = true}, &w, &error),
                 ST_OK);
    for (enum walk_event e; (e = walk_next(w)) != WALK_END;) {
        cr_assert(e == WALK_MESSAGE || e == WALK_SEGMENT);
        count += e == WALK_MESSAGE;
    }
    walk_close(w);
    view_close(v);
    buf_deinit(&error);
    return count;
}

static void fill(struct world *w, unsigned count)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < count; i++)
        last = world_put(w, 0, "a", "text");
    store_flush(w->store, 0);
    world_wait_durable(w, 0, last + 1);
}

static enum status take(struct world *w, const char *name, struct snapshot_report *report)
{
    uint64_t upto;
    buf_clear(&w->error);
    loop_update_time(w->loop);
    cr_assert_eq(store_roll(w->store, 0, &upto), ST_OK);
    return store_snapshot(w->store, &upto, name, 4, report, &w->error);
}

Test(snapshot, names_are_names_and_nothing_else)
{
    char name[SNAPSHOT_NAME_BYTES_MAX + 1];
    static const char *const good[] = {"a", "A-1_b", "20260102T030405Z"};
    static const char *const bad[] = {"", ".", "..", "a/b", "a.b", "-a", "a b", "a\n", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        cr_expect(snapshot_name_valid(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect(!snapshot_name_valid(bad[i]), "%s", bad[i]);
    snapshot_name_of_time(1767323045000, name);
    cr_expect_str_eq(name, "20260102T030405Z");
}

Test(snapshot, holds_what_was_there_and_survives_the_log)
{
    struct world w;
    struct snapshot_report report, again;
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    fill(&w, 100);
    cr_assert_eq(take(&w, "one", &report), ST_OK, "%.*s", SLICE_ARG(buf_slice(&w.error)));
    fill(&w, 50);
    cr_expect_eq(messages_in(report.path), 100);
    cr_assert_eq(take(&w, "two", &again), ST_OK);
    cr_assert_eq(take(&w, "three", &again), ST_OK); /* nothing in between */
    cr_expect_eq(messages_in(again.path), 150);
    cr_expect_eq(take(&w, "one", &again), ST_EXISTS);
    cr_expect_eq(world_count(&w, 0, "a"), 150);
    world_close(&w);
    world_open(&w);
    cr_expect_eq(world_count(&w, 0, "a"), 150);
    world_deinit(&w);
}

Test(snapshot, a_restored_log_opens_with_a_new_epoch_and_goes_on)
{
    struct world w, other;
    struct snapshot_report report;
    struct restore_report restored;
    struct view *v;
    world_init(&w, 1);
    world_open(&w);
    fill(&w, 100);
    cr_assert_eq(take(&w, "s", &report), ST_OK);
    world_init(&other, 1);
    cr_assert_eq(view_open(report.path, &v, &w.error), ST_OK);
    cr_assert_eq(restore_run(store_files_system(), v, other.dir, &restored, &w.error), ST_OK, "%.*s",
                 SLICE_ARG(buf_slice(&w.error)));
    cr_expect_eq(restored.messages, 100);
    cr_expect_eq(restore_run(store_files_system(), v, other.dir, &restored, &w.error), ST_EXISTS);
    view_close(v);
    world_open(&other);
    cr_expect_neq(store_epoch(other.store), store_epoch(w.store));
    cr_expect_eq(world_count(&other, 0, "a"), 100);
    cr_expect_eq(store_next(other.store, 0), report.next[0] + 1); /* START, and no jump */
    fill(&other, 1);
    world_deinit(&other);
    world_deinit(&w);
}

/* Every call that a snapshot and a restore make may fail: then nothing is left behind. */
Test(snapshot, a_failed_one_leaves_nothing)
{
    struct world w;
    struct manifest m;
    struct snapshot_report report;
    struct restore_report restored;
    struct view *v;
    char path[600];
    static const enum faulty_call calls[] = {FAULTY_OPEN, FAULTY_PWRITEV, FAULTY_SYNC, FAULTY_RENAME};
    world_init(&w, 1);
    world_open(&w);
    fill(&w, 20);
    world_close(&w);
    cr_assert_eq(manifest_read(w.dir, &m), ST_OK);
    cr_assert_eq(snapshot_make(store_files_system(), w.dir, "good", 9, &m, &report, &w.error), ST_OK);
    cr_assert_eq(view_open(report.path, &v, &w.error), ST_OK);
    for (size_t i = 0; i < 2 * sizeof calls / sizeof calls[0]; i++) {
        bool restore = i % 2;
        unsigned failures = 0;
        for (long at = 1;; at++) {
            struct faulty_files faulty;
            faulty_files_init(&faulty);
            faulty.fail_at[calls[i / 2]] = at;
            buf_clear(&w.error);
            snprintf(path, sizeof path, restore ? "%s/copy" : "%s/snapshots/bad", w.dir);
            enum status st = restore ? restore_run(&faulty.port, v, path, &restored, &w.error)
                                     : snapshot_make(&faulty.port, w.dir, "bad", 9, &m, &report, &w.error);
            bool there = restore ? rmdir(path) < 0 && errno != ENOENT : access(path, F_OK) == 0;
            cr_assert_eq(there, st == ST_OK, "call %d number %ld: %s", (int)calls[i / 2], at, path);
            world_remove(path);
            if (st == ST_OK)
                break;
            cr_expect_eq(st, ST_IO);
            cr_expect_gt(w.error.len, 0);
            failures++;
        }
        cr_expect_gt(failures, 0);
    }
    view_close(v);
    world_deinit(&w);
}
