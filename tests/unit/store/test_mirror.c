/* The store as a mirror: what a source gives, at the source's offsets and times, and nothing else. The source
 * is a function of the offset here, so after whatever has happened each record can be told to be the right
 * one. */
#include "core/store/store_mirror.h"
#include "core/store/voids.h"
#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/wait.h>

enum { START_MS = 1000000, LONG_HOLE = 100000 };

static struct world w;

static void begin(unsigned lanes)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, lanes);
    w.options.mirror_epoch = 77;
    w.options.voids_max = 10000;
    w.options.sync = STORE_SYNC_NEVER;
    w.options.segment_bytes = 64 << 10;
}

static uint64_t time_of(uint64_t offset)
{
    return START_MS + offset / 10;
}

static struct msg *record_of(uint64_t offset)
{
    char topic[32], text[64];
    struct msg *m;
    snprintf(topic, sizeof topic, "t/%lu", offset % 3);
    snprintf(text, sizeof text, "record %lu", offset);
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, slice_cstr(text), &m),
                 ST_OK);
    m->flags = offset % 5 == 0 ? MSG_RETAIN : 0;
    m->offset = offset;
    m->ts_ms = time_of(offset);
    return m;
}

static enum status give(unsigned lane, uint64_t offset)
{
    struct msg *m = record_of(offset);
    loop_update_time(w.loop);
    enum status st = store_append_at(w.store, lane, m);
    if (st == ST_OK) {
        cr_assert_eq(m->offset, offset);
        cr_assert_eq(m->stored, offset);
    }
    msg_unref(m);
    return st;
}

static void give_all(unsigned lane, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        while (give(lane, i) != ST_OK) { /* behind a long hole: until what lies before it is written */
            store_flush(w.store, lane);
            world_turn(&w);
        }
        if (i % 20 == 19)
            store_flush(w.store, lane);
    }
}

static void check_record(const struct msg *m, const char *what)
{
    struct msg *want = record_of(m->offset);
    cr_assert(slice_equal(msg_payload(m), msg_payload(want)), "%s: offset %lu has %.*s", what, m->offset,
              SLICE_ARG(msg_payload(m)));
    cr_assert_eq(m->ts_ms, want->ts_ms, "%s: offset %lu", what, m->offset);
    msg_unref(want);
}

/* Reads everything; how many records came. */
static uint64_t check_all(unsigned lane, const char *what)
{
    uint64_t found = 0;
    for (uint64_t from = 0;;) {
        struct world_read r;
        world_read_init(&r, lane, from);
        world_read_run(&w, &r);
        cr_assert_eq(r.read.status, ST_OK, "%s: %s at %lu", what, status_name(r.read.status), from);
        for (uint64_t i = 0; i < r.read.found; i++)
            check_record(r.read.msgs[i], what);
        found += r.read.found;
        from = r.read.next;
        bool end = store_read_complete(&r.read);
        world_read_free(&r);
        if (end)
            return found;
    }
}

static void newest_segment(char out[512])
{
    char folder[300], best[64] = "";
    snprintf(folder, sizeof folder, "%s/0", w.dir);
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strstr(e->d_name, ".seg") && strcmp(e->d_name, best) > 0)
            snprintf(best, sizeof best, "%.60s", e->d_name);
    closedir(d);
    cr_assert(best[0], "no segment");
    snprintf(out, 512, "%s/%s", folder, best);
}

/* --- offsets, times, holes --- */

Test(mirror, offsets_and_times_are_those_of_the_source_also_after_a_stop)
{
    begin(2);
    world_open(&w);
    cr_assert_eq(store_epoch(w.store), 77);
    cr_assert_eq(store_next(w.store, 1), 0, "no START");
    give_all(1, 0, 1000);
    cr_assert_eq(store_next(w.store, 1), 1000);
    cr_assert_eq(check_all(1, "first run"), 1000);
    for (int i = 0; i < 3; i++) { /* also a start in which nothing comes */
        world_close(&w);
        world_open(&w);
        cr_assert_eq(store_next(w.store, 1), 1000, "a start adds nothing");
        cr_assert_eq(store_next(w.store, 0), 0);
    }
    give_all(1, 1000, 3000);
    cr_assert_eq(check_all(1, "second run"), 3000);
    struct world_read r;
    world_read_init(&r, 1, 0);
    r.read.locate = STORE_AT_TIME;
    r.read.locate_value = time_of(2500);
    world_read_run(&w, &r);
    cr_assert_eq(r.read.from, 2500, "by time: %lu", r.read.from);
    world_read_free(&r);
    world_deinit(&w);
}

Test(mirror, a_time_that_falls_is_that_of_the_record_before)
{
    begin(1);
    world_open(&w);
    struct msg *m = record_of(0);
    m->ts_ms = START_MS + 500;
    cr_assert_eq(store_append_at(w.store, 0, m), ST_OK);
    msg_unref(m);
    world_close(&w);
    world_open(&w);
    m = record_of(1);
    m->ts_ms = START_MS;
    cr_assert_eq(store_append_at(w.store, 0, m), ST_OK);
    cr_assert_eq(m->ts_ms, START_MS + 500, "also over a start");
    msg_unref(m);
    world_deinit(&w);
}

Test(mirror, holes_of_any_length_are_no_damage)
{
    begin(1);
    world_open(&w);
    give_all(0, 3, 10); /* a log whose beginning does not exist */
    give_all(0, 12, 20); /* short */
    give_all(0, LONG_HOLE, LONG_HOLE + 30);
    give_all(0, 2 * LONG_HOLE, 2 * LONG_HOLE + 30);
    cr_assert_eq(check_all(0, "running"), 7 + 8 + 30 + 30);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(store_next(w.store, 0), 2 * LONG_HOLE + 30);
    cr_assert_eq(check_all(0, "again"), 7 + 8 + 30 + 30);
    world_deinit(&w);
}

/* --- void records --- */

static uint64_t count_of(const char *topic, bool count_only)
{
    struct world_read r;
    world_read_init(&r, 0, 0);
    if (topic)
        r.read.topic = slice_cstr(topic);
    r.read.count_only = count_only;
    world_read_run(&w, &r);
    uint64_t found = r.read.found;
    world_read_free(&r);
    return found;
}

static void check_hidden(const char *what)
{
    struct world_read r;
    cr_assert_eq(check_all(0, what), 300 - 30, "%s: in order", what);
    cr_assert_eq(count_of("t/0", false), 100 - 10, "%s: of a topic", what);
    cr_assert_eq(count_of("t/0", true), 100 - 10, "%s: counted", what);
    cr_assert_eq(count_of(NULL, true), 300 - 30, "%s: all counted", what);
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("t/0");
    r.read.locate = STORE_AT_LAST;
    r.read.locate_value = 50;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 50, "%s: the last 50 are %lu", what, r.read.found);
    world_read_free(&r);
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("t/0");
    r.read.reverse = true;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 90, "%s: back", what);
    world_read_free(&r);
    world_read_init(&r, 0, 0);
    r.read.state_only = true;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 60, "%s: the fold sees them all", what);
    world_read_free(&r);
}

Test(mirror, void_records_are_read_by_the_fold_alone)
{
    begin(1);
    world_open(&w);
    give_all(0, 0, 300);
    for (uint64_t i = 0; i < 30; i++)
        store_hide(w.store, 0, 100 + i);
    check_hidden("running");
    struct msg *msgs[300];
    uint32_t found;
    uint64_t next;
    cr_assert_eq(store_recent(w.store, 0, 0, (struct slice){0}, NULL, NULL, 300, msgs, &found, &next), ST_OK);
    cr_assert_eq(found, 270);
    while (found > 0)
        msg_unref(msgs[--found]);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(check_all(0, "not kept"), 300);
    for (uint64_t i = 0; i < 30; i++)
        store_hide(w.store, 0, 100 + i);
    check_hidden("hidden again");
    world_deinit(&w);
}

Test(mirror, voids_have_a_limit)
{
    struct voids *v;
    cr_assert_eq(voids_create(3 * VOIDS_CHUNK, &v), ST_OK);
    for (uint64_t i = 0; i < 3 * VOIDS_CHUNK; i++)
        cr_assert_eq(voids_add(v, i * 7), ST_OK);
    cr_assert_eq(voids_add(v, 3 * VOIDS_CHUNK * 7), ST_FULL);
    cr_assert_eq(voids_add(v, (3 * VOIDS_CHUNK - 1) * 7), ST_OK, "the same once more");
    for (uint64_t i = 0; i < 3 * VOIDS_CHUNK * 7; i++)
        cr_assert_eq(voids_has(v, i), i % 7 == 0, "%lu", i);
    voids_destroy(v);
}

/* --- after a crash --- */

/* Opens what is in w.dir now, and goes on from where it ends. */
static uint64_t go_on_to(uint64_t end, const char *what)
{
    world_open(&w);
    uint64_t next = store_next(w.store, 0);
    cr_assert_eq(check_all(0, what), next, "%s: all below %lu", what, next);
    give_all(0, next, end);
    cr_assert_eq(check_all(0, what), end, "%s: and what came again", what);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(check_all(0, what), end, "%s: for good", what);
    world_close(&w);
    return next;
}

/* Kept running: the clean-stop mark is not there. */
static void crash(uint64_t records)
{
    world_open(&w);
    give_all(0, 0, records);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, records - records % 20);
    char copy[256];
    world_crash_copy(&w, copy);
    world_close(&w);
    world_remove(w.dir);
    cr_assert_eq(rename(copy, w.dir), 0);
}

Test(mirror, after_an_unclean_stop_it_goes_on_where_it_ends)
{
    begin(1);
    crash(2000);
    cr_assert_geq(go_on_to(4000, "after kill -9"), 1980);
    world_deinit(&w);
}

static void spoil(const char *path, off_t at)
{
    static const uint8_t junk[64] = {0xff, 1, 2, 3};
    int fd = open(path, O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, junk, sizeof junk, at), (ssize_t)sizeof junk);
    close(fd);
}

Test(mirror, what_does_not_verify_is_cut_with_all_behind_it)
{
    static const off_t places[] = {0, 64, 200, 3000, 9000};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[512];
        begin(1);
        crash(2000);
        newest_segment(path);
        spoil(path, places[i]);
        /* Of a header that is lost the first frame knows what is needed. */
        cr_assert_leq(go_on_to(3000, "spoilt"), places[i] ? 1999 : 2000, "place %ld", (long)places[i]);
        world_deinit(&w);
    }
}

Test(mirror, a_lost_segment_ends_it)
{
    char path[700];
    begin(1);
    crash(2000);
    snprintf(path, sizeof path, "rm -f \"$(ls %s/0/*.seg | sed -n 2p)\" \"$(ls %s/0/*.idx | sed -n 2p)\"",
             w.dir, w.dir);
    cr_assert_eq(system(path), 0);
    uint64_t next = go_on_to(3000, "a file is gone");
    cr_assert_gt(next, 0);
    cr_assert_lt(next, 1500);
    world_deinit(&w);
    begin(1);
    crash(2000);
    snprintf(path, sizeof path, "rm -f \"$(ls %s/0/*.seg | sed -n 1p)\"", w.dir);
    cr_assert_eq(system(path), 0);
    cr_assert_eq(go_on_to(3000, "the first file is gone"), 0);
    world_deinit(&w);
}

/* The process ends before its n-th write, sync, cut or new name, whichever is tried. */
static bool run_child(enum faulty_call call, long at)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct faulty_files *f = calloc(1, sizeof *f);
        faulty_files_init(f);
        f->exit_at[call] = at;
        w.options.files = &f->port;
        world_open(&w);
        uint64_t next = store_next(w.store, 0);
        give_all(0, next, next + 700);
        world_close(&w);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 99 || WEXITSTATUS(status) == 0), "status %x",
              status);
    return WEXITSTATUS(status) == 99;
}

Test(mirror, killed_before_any_call_that_changes_the_disk_it_goes_on)
{
    static const enum faulty_call calls[] = {FAULTY_OPEN,     FAULTY_PWRITEV, FAULTY_DATASYNC, FAULTY_SYNC,
                                             FAULTY_TRUNCATE, FAULTY_RENAME,  FAULTY_UNLINK};
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        begin(1);
        for (long at = 1; at < 12; at++)
            if (!run_child(calls[c], at))
                break;
        w.options.files = NULL;
        world_open(&w);
        uint64_t next = store_next(w.store, 0);
        cr_assert_eq(check_all(0, "killed"), next, "call %zu", c);
        world_close(&w);
        (void)go_on_to(next + 500, "killed and on");
        world_deinit(&w);
    }
}

/* --- whose it is --- */

static const struct mirror_source source = {
    .kind = "kafka", .place = "cluster-1", .name = "a.log", .lane_count = 1, .heads = {42}};

static enum status prepare(const struct mirror_source *s, bool spoilt, bool *kept)
{
    buf_clear(&w.error);
    return mirror_prepare(w.dir, s, spoilt, &w.options.mirror_epoch, kept, &w.error);
}

static void fill(void)
{
    world_open(&w);
    give_all(0, 0, 1000);
    world_close(&w);
}

static void expect_empty(void)
{
    world_open(&w);
    cr_assert_eq(store_next(w.store, 0), 0);
    cr_assert_eq(check_all(0, "emptied"), 0);
    world_close(&w);
}

Test(mirror, of_another_source_it_is_emptied_and_has_another_epoch)
{
    struct mirror_source others[] = {source, source, source};
    bool kept;
    others[0].place = "cluster-2";
    others[1].name = "b.log";
    others[2].heads[0] = 43; /* deleted and made anew under its name */
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        begin(1);
        cr_assert_eq(prepare(&source, false, &kept), ST_OK);
        cr_assert(!kept);
        uint32_t epoch = w.options.mirror_epoch;
        fill();
        cr_assert_eq(prepare(&source, false, &kept), ST_OK);
        cr_assert(kept && w.options.mirror_epoch == epoch);
        cr_assert_eq(prepare(&others[i], false, &kept), ST_OK);
        cr_assert(!kept && w.options.mirror_epoch != epoch, "other %zu", i);
        expect_empty();
        world_deinit(&w);
    }
}

Test(mirror, spoilt_it_has_a_new_epoch_and_lost_it_has_the_old_one)
{
    bool kept;
    begin(1);
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    uint32_t epoch = w.options.mirror_epoch;
    fill();
    world_remove(w.dir);
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    cr_assert(!kept && w.options.mirror_epoch == epoch, "the same records have the same places");
    fill();
    cr_assert_eq(prepare(&source, true, &kept), ST_OK);
    cr_assert(!kept && w.options.mirror_epoch != epoch);
    uint32_t second = w.options.mirror_epoch;
    expect_empty();
    fill();
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    cr_assert(kept && w.options.mirror_epoch == second, "it stays so");
    world_deinit(&w);
}

Test(mirror, a_log_of_its_own_is_never_emptied_and_a_mirror_is_never_served_as_one)
{
    bool kept;
    begin(1);
    w.options.mirror_epoch = 0;
    world_open(&w);
    world_put(&w, 0, "t", "mine");
    world_close(&w);
    uint32_t epoch;
    cr_assert_eq(mirror_prepare(w.dir, &source, false, &epoch, &kept, &w.error), ST_INVALID);
    cr_assert(memmem(w.error.data, w.error.len, "data.dir", 8));
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), 1);
    world_deinit(&w);
    begin(1);
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    fill();
    w.options.mirror_epoch = 0;
    cr_assert_eq(world_try_open(&w), ST_INVALID);
    cr_assert(memmem(w.error.data, w.error.len, "mirror", 6));
    world_deinit(&w);
}

Test(mirror, emptying_that_was_cut_short_is_done_again)
{
    bool kept;
    char command[700];
    begin(1);
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    fill();
    /* As a crash in it leaves it: nothing but the mark says so. A file that says nothing is no better. */
    snprintf(command, sizeof command, "echo junk > %s/MIRROR", w.dir);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(prepare(&source, false, &kept), ST_OK);
    cr_assert(!kept);
    expect_empty();
    world_deinit(&w);
}

/* --- on the way --- */

Test(mirror, a_record_comes_back_from_the_source_as_it_was)
{
    static const uint8_t prop[] = {PROP_TRACE, 2, 0, 'a', 'b'};
    struct msg *m, *back;
    cr_assert_eq(
        msg_create(slice_cstr("a/b"), slice_cstr("key"), slice_of(prop, sizeof prop), slice_cstr("text"), &m),
        ST_OK);
    m->flags = MSG_RETAIN | MSG_TYPE_GIVEN;
    m->content = CONTENT_TEXT;
    m->qos = 2;
    m->expires_ms = 123456;
    m->ts_ms = 99;
    size_t size = mirror_record_bytes(m);
    uint8_t *bytes = aligned_alloc(8, size), *again = aligned_alloc(8, size);
    mirror_record_encode(m, bytes);
    cr_assert_eq(mirror_record_decode(slice_of(bytes, size), 3, 1000, 555, &back), ST_OK);
    cr_assert(slice_equal(msg_topic(back), msg_topic(m)) && slice_equal(msg_key(back), msg_key(m)) &&
              slice_equal(msg_props(back), msg_props(m)) && slice_equal(msg_payload(back), msg_payload(m)));
    cr_assert(back->flags == m->flags && back->content == m->content && back->qos == 2 &&
              back->expires_ms == 123456);
    cr_assert(back->offset == 1000 && back->stored == 1000 && back->ts_ms == 555 && back->partition == 3);
    mirror_record_encode(back, again);
    cr_assert_arr_eq(bytes, again, size, "its place and time are not in it");
    for (size_t i = 0; i < size; i++) {
        struct msg *none;
        bytes[i] ^= 0x40;
        cr_assert_eq(mirror_record_decode(slice_of(bytes, size), 3, 1000, 555, &none), ST_CORRUPT, "byte %zu",
                     i);
        bytes[i] ^= 0x40;
        if (i < size - 1)
            cr_assert_eq(mirror_record_decode(slice_of(bytes, i), 3, 1000, 555, &none), ST_CORRUPT);
    }
    free(bytes);
    free(again);
    msg_unref(m);
    msg_unref(back);
}
