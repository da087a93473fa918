#include "core/store/format.h"
#include "core/hash.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/wait.h>

static struct world w;

static void with_lanes(unsigned lanes)
{
    /* What is tested is not the disk; a real one is in tests/crash. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, lanes);
}

/* `count` records on "t/0" to "t/<topics - 1>" in turn; all are durable on return. */
static uint64_t put_many(unsigned lane, unsigned count, unsigned topics)
{
    uint64_t first = store_next(w.store, lane);
    for (unsigned i = 0; i < count; i++) {
        char topic[32], text[64];
        snprintf(topic, sizeof topic, "t/%u", i % topics);
        snprintf(text, sizeof text, "lane %u offset %lu", lane, store_next(w.store, lane));
        world_put(&w, lane, topic, text);
        if (i % 50 == 49)
            store_flush(w.store, lane);
    }
    store_flush(w.store, lane);
    world_wait_durable(&w, lane, store_next(w.store, lane));
    return first;
}

static void check_text(const struct msg *m, unsigned lane)
{
    char text[64];
    snprintf(text, sizeof text, "lane %u offset %lu", lane, m->offset);
    cr_assert(slice_equal_cstr(msg_payload(m), text), "offset %lu: %.*s", m->offset,
              SLICE_ARG(msg_payload(m)));
}

static void file_path(const char *suffix, unsigned lane, unsigned number, char *out, size_t size)
{
    char folder[300], names[64][64];
    unsigned n = 0;
    snprintf(folder, sizeof folder, "%s/%u", w.dir, lane);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strstr(e->d_name, suffix) && n < 64)
            snprintf(names[n++], sizeof names[0], "%.60s", e->d_name);
    }
    closedir(dir);
    cr_assert_lt(number, n, "no file %u%s", number, suffix);
    qsort(names, n, sizeof names[0], (int (*)(const void *, const void *))strcmp);
    snprintf(out, size, "%s/%s", folder, names[number]);
}

static void flip_byte(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* Where the text stands in the file. */
static off_t place_of(const char *path, const char *text)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    char *bytes = malloc((size_t)st.st_size);
    cr_assert_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
    char *at = memmem(bytes, (size_t)st.st_size, text, strlen(text));
    cr_assert_not_null(at, "no \"%s\" in %s", text, path);
    off_t place = at - bytes;
    free(bytes);
    close(fd);
    return place;
}

static off_t place_of_record(const char *path, uint64_t offset)
{
    char text[64];
    snprintf(text, sizeof text, "lane 0 offset %lu", offset);
    return place_of(path, text);
}

/* --- append, read, reopen --- */

Test(store, appends_and_reads_back)
{
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    uint64_t a = put_many(0, 100, 4);
    world_read_init(&r, 0, a);
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_OK);
    cr_assert_eq(r.read.found, 100);
    cr_assert_eq(r.read.next, a + 100);
    cr_assert_eq(r.read.end, a + 100);
    for (unsigned i = 0; i < 100; i++) {
        cr_assert_eq(r.read.msgs[i]->offset, a + i);
        check_text(r.read.msgs[i], 0);
    }
    world_read_free(&r);
    world_deinit(&w);
}

Test(store, keeps_every_field_of_a_message)
{
    struct msg *m;
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    cr_assert_eq(msg_create(slice_cstr("topic"), slice_cstr("key"), slice_of("\x01\x02\x00hi", 5),
                            slice_cstr("{}"), &m),
                 ST_OK);
    m->content = CONTENT_JSON;
    m->qos = 2;
    m->flags = MSG_RETAIN | MSG_TYPE_GIVEN;
    m->expires_ms = 1234567890123;
    uint64_t before = clock_wall_ms(clock_system());
    loop_update_time(w.loop);
    cr_assert_eq(store_append(w.store, 0, m, true), ST_OK);
    cr_assert_geq(m->ts_ms, before);
    store_flush(w.store, 0);
    for (int opened = 0; opened < 2; opened++) {
        world_read_init(&r, 0, m->offset);
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 1);
        const struct msg *back = r.read.msgs[0];
        cr_assert(back->content == CONTENT_JSON && back->qos == 2 && back->flags == m->flags);
        cr_assert(back->expires_ms == m->expires_ms && back->ts_ms == m->ts_ms && back->offset == m->offset);
        cr_assert(slice_equal(msg_key(back), msg_key(m)) && slice_equal(msg_props(back), msg_props(m)));
        cr_assert_eq(back->topic_hash, hash64(msg_topic(m)));
        world_read_free(&r);
        world_close(&w);
        world_open(&w);
    }
    msg_unref(m);
    world_deinit(&w);
}

static void reopen_keeps_all(unsigned lanes)
{
    uint64_t first[STORE_LANES_MAX], incarnation = 0;
    with_lanes(lanes);
    world_open(&w);
    uint32_t epoch = store_epoch(w.store);
    cr_assert_neq(epoch, 0);
    cr_assert_eq(store_lane_count(w.store), lanes);
    for (unsigned lane = 0; lane < lanes; lane++)
        first[lane] = put_many(lane, 200 + lane, 5);
    for (int round = 0; round < 3; round++) {
        uint64_t next[STORE_LANES_MAX];
        for (unsigned lane = 0; lane < lanes; lane++)
            next[lane] = store_next(w.store, lane);
        cr_assert_gt(store_incarnation(w.store), incarnation);
        incarnation = store_incarnation(w.store);
        world_close(&w);
        world_open(&w);
        cr_assert_eq(store_epoch(w.store), epoch);
        for (unsigned lane = 0; lane < lanes; lane++) {
            struct world_read r;
            cr_assert_eq(store_next(w.store, lane), next[lane] + 1, "START uses one offset, no jump");
            cr_assert_eq(store_durable(w.store, lane), store_next(w.store, lane));
            world_read_init(&r, lane, first[lane]);
            world_read_run(&w, &r);
            cr_assert_eq(r.read.found, 200 + lane);
            cr_assert_eq(r.read.next, r.read.end, "control records are passed");
            check_text(r.read.msgs[150], lane);
            world_read_free(&r);
        }
    }
    world_deinit(&w);
}

Test(store, reopens_one_lane)
{
    reopen_keeps_all(1);
}

Test(store, reopens_four_lanes)
{
    reopen_keeps_all(4);
}

Test(store, one_letter_tells_several_lanes)
{
    with_lanes(4);
    world_open(&w);
    for (unsigned lane = 0; lane < 4; lane++) {
        world_put(&w, lane, "t", "x");
        store_flush(w.store, lane);
    }
    for (unsigned lane = 0; lane < 4; lane++) {
        world_wait_durable(&w, lane, store_next(w.store, lane));
        cr_assert_eq(w.durable[lane], store_next(w.store, lane));
    }
    cr_assert_eq(w.durable_calls, 4, "each lane is told once");
    world_deinit(&w);
}

Test(store, begins_new_segments_and_reads_across_them)
{
    struct world_read r;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    uint64_t first = put_many(0, 5000, 7);
    cr_assert_eq(world_count(&w, 0, NULL), 5000);
    cr_assert_eq(world_count(&w, 0, "t/3"), 714);
    for (int round = 0; round < 2; round++) {
        char path[400];
        struct stat st;
        file_path(".seg", 0, 5, path, sizeof path);
        cr_assert_eq(stat(path, &st), 0);
        cr_assert_leq(st.st_size, 64 << 10);
        world_read_init(&r, 0, first + 2500);
        r.read.topic = slice_cstr("t/6");
        r.read.count_max = 10;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 10);
        for (unsigned i = 0; i < 10; i++)
            check_text(r.read.msgs[i], 0);
        cr_assert_eq(r.read.next, r.read.msgs[9]->offset + 1);
        world_read_free(&r);
        world_close(&w);
        file_path(".idx", 0, 5, path, sizeof path);
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, NULL), 5000);
        cr_assert_eq(world_count(&w, 0, "t/3"), 714);
    }
    world_deinit(&w);
}

Test(store, a_record_larger_than_a_segment_gets_its_own)
{
    struct world_read r;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    size_t len = 3 << 20;
    uint8_t *large = malloc(len);
    memset(large, 'x', len);
    uint64_t offset;
    put_many(0, 10, 1);
    cr_assert_eq(world_append(&w, 0, "large", slice_of(large, len), true, &offset), ST_OK);
    put_many(0, 10, 1);
    for (int opened = 0; opened < 2; opened++) {
        world_read_init(&r, 0, offset);
        r.read.topic = slice_cstr("large");
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 1);
        cr_assert(slice_equal(msg_payload(r.read.msgs[0]), slice_of(large, len)));
        world_read_free(&r);
        cr_assert_eq(world_count(&w, 0, NULL), 21);
        world_close(&w);
        world_open(&w);
    }
    free(large);
    world_deinit(&w);
}

/* --- reads --- */

static bool wants_odd(void *ctx, struct slice topic)
{
    unsigned *calls = ctx;
    (*calls)++;
    return (topic.data[topic.len - 1] - '0') % 2 == 1;
}

Test(store, reads_by_predicate_asking_once_a_topic)
{
    struct world_read r;
    unsigned calls = 0;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 1000, 10);
    world_read_init(&r, 0, first);
    r.read.wants = wants_odd;
    r.read.wants_ctx = &calls;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 500);
    cr_assert_leq(calls, 10 * 3, "asked %u times", calls);
    for (unsigned i = 0; i < 500; i++)
        cr_assert_eq((r.read.msgs[i]->offset - first) % 2, 1);
    world_read_free(&r);
    world_deinit(&w);
}

Test(store, read_keeps_to_its_limits)
{
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 100, 2);
    for (int by_topic = 0; by_topic < 2; by_topic++) {
        uint64_t step = by_topic ? 2 : 1;
        world_read_init(&r, 0, first);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        r.read.count_max = 7;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 7);
        cr_assert_eq(r.read.next, first + 6 * step + 1);
        cr_assert_eq(r.read.end, first + 100);
        world_read_free(&r);
        world_read_init(&r, 0, first);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        r.read.bytes_max = 1;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 1, "at least one");
        cr_assert_eq(r.read.next, first + step, "on to the first that did not fit");
        world_read_free(&r);
        world_read_init(&r, 0, first + 10);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        r.read.to = first + 20;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 10 / step);
        cr_assert_eq(r.read.next, first + 20);
        cr_assert_eq(r.read.end, first + 20);
        world_read_free(&r);
    }
    world_deinit(&w);
}

Test(store, read_counts_without_records)
{
    struct world_read r;
    unsigned calls = 0;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    uint64_t first = put_many(0, 3000, 10);
    for (int kind = 0; kind < 3; kind++) {
        static const uint64_t want[] = {2990, 299, 1495};
        world_read_init(&r, 0, first + 10);
        r.read.count_only = true;
        r.read.count_max = 0;
        if (kind == 1)
            r.read.topic = slice_cstr("t/4");
        if (kind == 2) {
            r.read.wants = wants_odd;
            r.read.wants_ctx = &calls;
        }
        world_read_run(&w, &r);
        cr_assert_eq(r.read.status, ST_OK);
        cr_assert_eq(r.read.found, want[kind], "kind %d: %lu", kind, r.read.found);
        cr_assert_eq(r.read.next, r.read.end);
        cr_assert_null(r.read.msgs);
    }
    world_deinit(&w);
}

Test(store, read_of_nothing)
{
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    put_many(0, 10, 1);
    uint64_t next = store_next(w.store, 0);
    world_read_init(&r, 0, next);
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 0 && r.read.next == next && r.read.end == next);
    world_read_init(&r, 0, next + 1000); /* a position that is not there yet */
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 0 && r.read.next == next + 1000);
    cr_assert_eq(r.read.next, r.read.end);
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("never published");
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 0 && r.read.next == next);
    world_deinit(&w);
}

Test(store, read_sees_what_is_not_yet_written)
{
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 5, 1);
    uint64_t last = world_put(&w, 0, "t/0", "open frame");
    world_read_init(&r, 0, first);
    r.read.topic = slice_cstr("t/0");
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 6);
    cr_assert_eq(r.read.msgs[5]->offset, last);
    world_read_free(&r);
    world_deinit(&w);
}

/* More than one step's worth of bytes that nobody wants: the place moves on. */
Test(store, a_long_scan_comes_back_in_steps)
{
    struct world_read r;
    unsigned calls = 0, reads = 0;
    with_lanes(1);
    w.options.segment_bytes = 64 << 20;
    world_open(&w);
    size_t len = 100 << 10;
    uint8_t *block = calloc(1, len);
    for (int i = 0; i < 120; i++) {
        cr_assert_eq(world_append(&w, 0, "t/2", slice_of(block, len), true, NULL), ST_OK);
        store_flush(w.store, 0);
        if (i % 20 == 19)
            world_wait_durable(&w, 0, store_next(w.store, 0));
    }
    uint64_t wanted = world_put(&w, 0, "t/1", "at last"), from = store_first(w.store, 0);
    for (;;) {
        world_read_init(&r, 0, from);
        r.read.wants = wants_odd;
        r.read.wants_ctx = &calls;
        world_read_run(&w, &r);
        reads++;
        cr_assert_eq(r.read.status, ST_OK);
        cr_assert_gt(r.read.next, from);
        from = r.read.next;
        if (r.read.found)
            break;
    }
    cr_assert_eq(r.read.msgs[0]->offset, wanted);
    cr_assert(reads >= 2 && reads <= 8, "%u reads", reads);
    world_read_free(&r);
    world_read_init(&r, 0, store_first(w.store, 0)); /* counting goes on to the end by itself */
    r.read.wants = wants_odd;
    r.read.wants_ctx = &calls;
    r.read.count_only = true;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 1);
    cr_assert_eq(r.read.next, r.read.end);
    free(block);
    world_deinit(&w);
}

/* --- what is in memory --- */

Test(store, recent_gives_what_is_in_memory)
{
    struct msg *msgs[64];
    uint32_t found;
    uint64_t next;
    unsigned calls = 0;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 40, 4);
    world_put(&w, 0, "t/0", "open");
    struct slice any = {0};
    cr_assert_eq(store_recent(w.store, 0, first, any, NULL, NULL, 64, msgs, &found, &next), ST_OK);
    cr_assert(found == 41 && next == first + 41);
    check_text(msgs[17], 0);
    cr_assert_eq(msgs[17]->offset, first + 17);
    for (uint32_t i = 0; i < found; i++)
        msg_unref(msgs[i]);
    cr_assert_eq(store_recent(w.store, 0, first + 5, slice_cstr("t/1"), NULL, NULL, 3, msgs, &found, &next),
                 ST_OK);
    cr_assert_eq(found, 3);
    cr_assert_eq(msgs[0]->offset, first + 5);
    cr_assert_eq(next, first + 17, "stopped before the fourth that matches");
    for (uint32_t i = 0; i < found; i++)
        msg_unref(msgs[i]);
    cr_assert_eq(store_recent(w.store, 0, first + 38, any, wants_odd, &calls, 8, msgs, &found, &next), ST_OK);
    cr_assert(found == 1 && next == first + 41);
    msg_unref(msgs[0]);
    cr_assert_eq(store_recent(w.store, 0, next, any, NULL, NULL, 8, msgs, &found, &next), ST_OK);
    cr_assert(found == 0 && next == first + 41);
    world_deinit(&w);
}

Test(store, recent_forgets_what_is_old)
{
    struct msg *msgs[4];
    uint32_t found;
    uint64_t next;
    with_lanes(1);
    w.options.recent_bytes = 16 << 10;
    world_open(&w);
    uint64_t first = put_many(0, 2000, 3);
    struct slice any = {0};
    cr_assert_eq(store_recent(w.store, 0, first, any, NULL, NULL, 4, msgs, &found, &next), ST_NOT_FOUND);
    cr_assert_eq(store_recent(w.store, 0, first + 1999, any, NULL, NULL, 4, msgs, &found, &next), ST_OK);
    cr_assert_eq(found, 1);
    msg_unref(msgs[0]);
    world_deinit(&w);
}

/* --- laziness and back-pressure --- */

Test(store, nobody_waits_and_it_is_durable_all_the_same)
{
    with_lanes(1);
    world_open(&w);
    cr_assert_eq(world_append(&w, 0, "t", slice_cstr("x"), false, NULL), ST_OK);
    uint64_t begun = world_now_ms();
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    cr_assert_geq(world_now_ms() - begun, 15, "it was not written at once");
    world_deinit(&w);
}

Test(store, a_waiting_frame_covers_lazy_ones)
{
    with_lanes(1);
    world_open(&w);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(world_append(&w, 0, "t", slice_cstr("x"), false, NULL), ST_OK);
    store_flush(w.store, 0);
    world_put(&w, 0, "t", "y");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    cr_assert_eq(w.durable_calls, 1);
    world_deinit(&w);
}

Test(store, too_much_unsynced_is_refused_and_room_comes_back)
{
    static uint8_t block[1000];
    with_lanes(1);
    w.options.unsynced_bytes_max = 50000;
    world_open(&w);
    unsigned accepted = 0;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), false, NULL) == ST_OK)
        accepted++;
    cr_assert(accepted > 40 && accepted < 50, "%u", accepted);
    uint64_t next = store_next(w.store, 0);
    cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL), ST_FULL);
    cr_assert_eq(store_next(w.store, 0), next, "nothing happened");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, next);
    cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL), ST_OK);
    cr_assert_eq(world_count(&w, 0, "t"), accepted + 1);
    cr_assert_geq(metrics_sum(M_LOG_REFUSED_FULL), 2);
    world_deinit(&w);
}

Test(store, one_record_over_the_limit_is_taken_when_nothing_else_is_open)
{
    static uint8_t block[100000];
    with_lanes(1);
    w.options.unsynced_bytes_max = 50000;
    world_open(&w);
    cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL), ST_OK);
    cr_assert_eq(world_append(&w, 0, "t", slice_of(block, 10), true, NULL), ST_FULL);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL), ST_OK);
    world_deinit(&w);
}

/* The reader is held up by a read's own code, and then is not. */
static atomic_bool held;

static bool hold(void *ctx, struct slice topic)
{
    (void)ctx, (void)topic;
    while (atomic_load(&held))
        usleep(1000);
    return true;
}

Test(store, what_the_reader_has_not_indexed_has_a_bound)
{
    static uint8_t block[10000];
    enum { MOST = 2 << 20, FRAMES_SPARE = 1 << 20 };
    with_lanes(1);
    w.options.unindexed_bytes_max = MOST;
    world_open(&w);
    world_put(&w, 0, "t", "one");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    struct world_read r;
    world_read_init(&r, 0, 0);
    r.read.wants = hold;
    r.read.home = w.loop;
    atomic_store(&held, true);
    store_read_start(w.store, &r.read);
    enum status st = ST_OK;
    unsigned taken = 0;
    while (st == ST_OK && taken < 10000) {
        st = world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL);
        taken += st == ST_OK;
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, store_next(w.store, 0));
    }
    cr_assert_eq(st, ST_FULL, "%u taken", taken);
    cr_assert_gt(metrics_sum(M_LOG_UNINDEXED_BYTES), MOST);
    cr_assert_lt(metrics_sum(M_LOG_UNINDEXED_BYTES), MOST + FRAMES_SPARE);
    atomic_store(&held, false);
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL) != ST_OK) {
        cr_assert_lt(world_now_ms(), deadline);
        world_turn(&w);
    }
    while (!r.done)
        world_turn(&w);
    world_read_free(&r);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    cr_assert_eq(world_count(&w, 0, "t"), taken + 2);
    cr_assert_eq(metrics_sum(M_LOG_UNINDEXED_BYTES), 0);
    world_deinit(&w);
}

Test(store, mode_never_tells_when_it_is_written)
{
    with_lanes(2);
    w.options.sync = STORE_SYNC_NEVER;
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    put_many(1, 3000, 3);
    cr_assert_eq(world_count(&w, 1, NULL), 3000);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(world_count(&w, 1, NULL), 3000);
    world_deinit(&w);
}

/* --- refusing to open --- */

Test(store, a_second_process_is_refused)
{
    struct world other;
    with_lanes(1);
    world_open(&w);
    world_init(&other, 1);
    other.options.dir = w.dir;
    cr_assert_eq(world_try_open(&other), ST_EXISTS);
    cr_assert(other.error.len > 0);
    world_close(&w);
    cr_assert_eq(world_try_open(&other), ST_OK, "the lock went with the first");
    world_deinit(&other);
    world_deinit(&w);
}

Test(store, another_number_of_lanes_is_refused)
{
    with_lanes(4);
    world_open(&w);
    world_close(&w);
    w.options.lane_count = 2;
    cr_assert_eq(world_try_open(&w), ST_INVALID);
    cr_assert(memmem(w.error.data, w.error.len, "4 lanes", 7));
    w.options.lane_count = 4;
    world_open(&w);
    world_deinit(&w);
}

Test(store, a_folder_without_its_manifest_is_refused)
{
    char path[400];
    with_lanes(1);
    world_open(&w);
    put_many(0, 10, 1);
    world_close(&w);
    snprintf(path, sizeof path, "%s/MANIFEST", w.dir);
    unlink(path);
    cr_assert_eq(world_try_open(&w), ST_CORRUPT);
    world_deinit(&w);
}

/* --- crashes and damage --- */

static void open_copy(char dir[256])
{
    world_crash_copy(&w, dir);
    world_deinit(&w);
    strcpy(w.dir, dir);
    w.loop = NULL;
    cr_assert_eq(loop_create(clock_system(), 0, &w.loop), ST_OK);
    w.options.dir = w.dir;
    buf_init(&w.error, 4096);
}

Test(store, after_a_crash_offsets_jump)
{
    char dir[256];
    with_lanes(2);
    world_open(&w);
    uint64_t first = put_many(0, 100, 3), next = store_next(w.store, 0);
    for (int crashes = 0; crashes < 3; crashes++) {
        open_copy(dir);
        world_open(&w);
        cr_assert_geq(store_next(w.store, 0), next + STORE_OFFSET_JUMP);
        cr_assert_geq(store_next(w.store, 1), STORE_OFFSET_JUMP);
        cr_assert_eq(world_count(&w, 0, NULL), 100);
        cr_assert_eq(world_count(&w, 0, "t/1"), 33);
        next = store_next(w.store, 0);
    }
    struct world_read r;
    world_read_init(&r, 0, first + 100); /* from inside the jump */
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 0 && r.read.next == next);
    world_deinit(&w);
}

Test(store, a_lost_or_damaged_index_is_made_anew)
{
    char path[400];
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    put_many(0, 5000, 7);
    world_close(&w);
    for (int kind = 0; kind < 3; kind++) {
        file_path(".idx", 0, (unsigned)kind + 1, path, sizeof path);
        if (kind == 0)
            unlink(path);
        else
            flip_byte(path, kind == 1 ? 50 : 5000);
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, "t/3"), 714);
        cr_assert_eq(world_count(&w, 0, NULL), 5000);
        world_close(&w);
        cr_assert_eq(access(path, R_OK), 0);
    }
    world_open(&w);
    world_deinit(&w);
}

/* The files of a log that has lost all its indexes, and has rot in it: read by one thread or by several, what
 * is made and told is the same. */
Test(store, all_indexes_made_anew_by_several_threads)
{
    enum { RECORDS = 6000, ROTTEN = 2000 };
    static const unsigned threads[] = {1, 2, 8};
    char path[400], next[400], command[700];
    with_lanes(2);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    uint64_t first = put_many(0, RECORDS, 11);
    put_many(1, RECORDS, 1);
    world_close(&w);
    for (unsigned i = 1;; i++) { /* the file that holds it */
        file_path(".seg", 0, i, next, sizeof next);
        if (strtoull(strrchr(next, '/') + 1, NULL, 10) > first + ROTTEN)
            break;
        strcpy(path, next);
    }
    flip_byte(path, place_of_record(path, first + ROTTEN));
    for (unsigned t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct world_read r;
        snprintf(command, sizeof command, "rm -f %s/0/*.idx %s/1/*.idx", w.dir, w.dir);
        cr_assert_eq(system(command), 0);
        w.options.recovery_threads = threads[t];
        world_open(&w);
        world_read_init(&r, 0, first + ROTTEN - 5);
        world_read_run(&w, &r);
        cr_assert(r.read.found == 5 && r.read.next == first + ROTTEN, "%u threads: ends before the rot",
                  threads[t]);
        world_read_free(&r);
        world_read_init(&r, 0, first + ROTTEN + 1);
        r.read.topic = slice_cstr("t/3");
        r.read.count_only = true;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.found, 364, "%u threads: %lu", threads[t], r.read.found);
        world_read_free(&r);
        cr_assert_eq(world_count(&w, 1, "t/0"), RECORDS);
        world_close(&w);
    }
    world_open(&w);
    world_deinit(&w);
}

static void damage_is_told(bool index_knows)
{
    char path[400];
    struct world_read r;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 100, 1); /* two frames of 50 */
    world_close(&w);
    file_path(".seg", 0, 0, path, sizeof path);
    flip_byte(path, place_of_record(path, first + 10));
    if (index_knows) {
        char index[400];
        file_path(".idx", 0, 0, index, sizeof index);
        unlink(index);
    }
    world_open(&w);
    for (int by_topic = 0; by_topic < 2; by_topic++) {
        world_read_init(&r, 0, first);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK && r.read.found == 10, "found %lu", r.read.found);
        cr_assert_eq(r.read.next, first + 10, "ends before the damage");
        world_read_free(&r);
        world_read_init(&r, 0, first + 10);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        world_read_run(&w, &r);
        cr_assert_eq(r.read.status, ST_CORRUPT);
        cr_assert(r.read.found == 0 && r.read.next == first + 11);
        world_read_init(&r, 0, first + 11);
        r.read.topic = by_topic ? slice_cstr("t/0") : (struct slice){0};
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK && r.read.found == 89, "found %lu", r.read.found);
        check_text(r.read.msgs[0], 0);
        world_read_free(&r);
    }
    world_deinit(&w);
}

Test(store, damage_since_the_index_was_made_is_told)
{
    damage_is_told(false);
}

Test(store, damage_that_the_index_knows_is_told)
{
    damage_is_told(true);
}

Test(store, a_rotten_end_after_a_clean_stop_is_no_torn_tail)
{
    char path[400];
    struct world_read r;
    struct stat st;
    with_lanes(1);
    world_open(&w);
    uint64_t first = put_many(0, 100, 1);
    world_close(&w);
    file_path(".idx", 0, 0, path, sizeof path);
    unlink(path);
    file_path(".seg", 0, 0, path, sizeof path);
    cr_assert_eq(stat(path, &st), 0);
    flip_byte(path, place_of_record(path, first + 50) - 43 - 72 + 20); /* the header of the last frame */
    world_open(&w);
    cr_assert_geq(store_next(w.store, 0), first + 100, "its offsets are not used again");
    world_read_init(&r, 0, first + 50);
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_CORRUPT);
    cr_assert_eq(r.read.next, first + 100);
    struct stat after;
    cr_assert_eq(stat(path, &after), 0);
    cr_assert_eq(after.st_size, st.st_size, "nothing was cut");
    world_deinit(&w);
}

Test(store, a_removed_file_is_missed)
{
    char path[400];
    struct world_read r;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    put_many(0, 3000, 7);
    world_close(&w);
    file_path(".seg", 0, 1, path, sizeof path);
    uint64_t from = strtoull(strrchr(path, '/') + 1, NULL, 10), to;
    unlink(path);
    file_path(".seg", 0, 1, path, sizeof path);
    to = strtoull(strrchr(path, '/') + 1, NULL, 10);
    world_open(&w);
    world_read_init(&r, 0, from - 5);
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 5 && r.read.next == from);
    world_read_free(&r);
    world_read_init(&r, 0, from + 3);
    r.read.topic = slice_cstr("t/1");
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_CORRUPT && r.read.next == to);
    world_deinit(&w);
}

/* Also when it was the oldest, and also after another start: nothing but a trim moves the beginning. */
Test(store, a_removed_oldest_file_is_missed)
{
    char path[400];
    struct world_read r;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    put_many(0, 3000, 7);
    world_close(&w);
    file_path(".seg", 0, 0, path, sizeof path);
    unlink(path);
    file_path(".seg", 0, 0, path, sizeof path);
    uint64_t to = strtoull(strrchr(path, '/') + 1, NULL, 10);
    cr_assert_gt(to, 100u);
    for (int start = 0; start < 2; start++) {
        world_open(&w);
        cr_assert_eq(store_first(w.store, 0), 0u);
        world_read_init(&r, 0, 0);
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_CORRUPT && r.read.next == to, "start %d: %s", start,
                  status_name(r.read.status));
        world_read_free(&r);
        world_read_init(&r, 0, to);
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK && r.read.found > 0, "what is there is served");
        world_read_free(&r);
        if (start == 0)
            world_close(&w);
    }
    world_deinit(&w);
}

/* A mark that does not fit begins a segment, which then holds no record: the next start begins one under the
 * same name. */
Test(store, a_segment_with_nothing_but_a_mark_is_in_nobodys_way)
{
    enum { SEGMENT = 64 << 10, BEFORE = 64 + 136 + 72 + 40 + 1, LEFT = 40 };
    with_lanes(1);
    w.options.segment_bytes = SEGMENT;
    world_open(&w);
    char *text = malloc(SEGMENT);
    memset(text, 'x', SEGMENT);
    text[SEGMENT - BEFORE - LEFT] = '\0';
    uint64_t at = world_put(&w, 0, "t", text);
    free(text);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, at + 1);
    char path[400];
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    snprintf(path, sizeof path, "%s/0/%020lu.seg", w.dir, (unsigned long)at + 1);
    while (access(path, F_OK) != 0 && world_now_ms() < deadline)
        world_turn(&w);
    cr_assert_eq(access(path, F_OK), 0, "the mark has begun a segment");
    world_close(&w);
    for (int start = 0; start < 2; start++) {
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, "t"), 1u);
        world_close(&w);
    }
    world_open(&w);
    world_deinit(&w);
}

/* The mark that is written after a quiet second vouches for the last flight. */
Test(store, a_mark_makes_rot_of_the_last_frame_visible)
{
    char path[400], dir[256];
    struct world_read r;
    with_lanes(1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    uint64_t first = put_many(0, 10, 1);
    uint64_t frames = metrics_sum(M_LOG_FRAMES), deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (metrics_sum(M_LOG_FRAMES) == frames && world_now_ms() < deadline)
        world_turn(&w);
    world_put(&w, 0, "t/1", "later");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    open_copy(dir);
    file_path(".seg", 0, 0, path, sizeof path);
    flip_byte(path, place_of_record(path, first));
    world_open(&w);
    world_read_init(&r, 0, first);
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_CORRUPT);
    world_read_init(&r, 0, r.read.next);
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_OK);
    cr_assert_eq(r.read.msgs[r.read.found - 1]->offset, first + 10);
    world_read_free(&r);
    world_deinit(&w);
}
