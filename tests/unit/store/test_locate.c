/* Reads that begin at a time or at the last n of a topic, and reads in reverse, against a list that is simple
 * enough to believe: several segments, starts between, a clock that is set back before some of them, records
 * that are not yet written. */
#include "fakes/seed.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>

enum { LANES_MAX = 4, RECORDS_MAX = 20000, TOPICS = 24, NO_TOPIC = 99 };

struct entry {
    uint64_t offset, time_ms;
    unsigned topic;
};

static struct world w;
static struct entry log_of[LANES_MAX][RECORDS_MAX];
static unsigned count_of[LANES_MAX];
static uint64_t wall_ms = 1790000000000;
static unsigned seed;

static uint64_t mono_ns(void *ctx)
{
    (void)ctx;
    return clock_mono_ns(clock_system());
}

static uint64_t test_wall_ms(void *ctx)
{
    (void)ctx;
    return wall_ms;
}

static const struct clock test_clock = {.mono_ns = mono_ns, .wall_ms = test_wall_ms};

static unsigned pick(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

static void open_with(unsigned lanes, uint64_t segment_bytes)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, lanes);
    loop_destroy(w.loop);
    cr_assert_eq(loop_create(&test_clock, 0, &w.loop), ST_OK);
    w.options.clock = &test_clock;
    w.options.segment_bytes = segment_bytes;
    world_open(&w);
}

static void topic_name(unsigned topic, char out[16])
{
    snprintf(out, 16, "t/%u", topic);
}

static void put(unsigned lane, unsigned topic, unsigned bytes)
{
    char name[16], text[1024];
    topic_name(topic, name);
    cr_assert_lt(count_of[lane], RECORDS_MAX);
    struct entry *e = &log_of[lane][count_of[lane]++];
    memset(text, 'x', bytes);
    *e = (struct entry){.topic = topic};
    struct msg *m;
    cr_assert_eq(
        msg_create(slice_cstr(name), (struct slice){0}, (struct slice){0}, slice_of(text, bytes), &m), ST_OK);
    m->partition = lane;
    loop_update_time(w.loop);
    cr_assert_eq(store_append(w.store, lane, m, true), ST_OK);
    e->offset = m->offset;
    e->time_ms = m->ts_ms;
    msg_unref(m);
}

static void flush(unsigned lane, bool wait)
{
    store_flush(w.store, lane);
    if (wait)
        world_wait_durable(&w, lane, store_next(w.store, lane));
}

static void put_some(unsigned lane)
{
    bool still = pick(4) == 0; /* the clock: many frames of the same time */
    for (unsigned i = pick(400); i > 0; i--) {
        /* One topic is half of all, and some are rare. */
        unsigned topic = pick(2) ? 0 : pick(pick(TOPICS) + 1);
        put(lane, topic, pick(4) ? pick(100) : pick(1000));
        if (!still && pick(3) == 0)
            wall_ms += pick(5);
        if (pick(200) == 0)
            wall_ms -= 3; /* within a life it has no effect */
        if (pick(40) == 0)
            flush(lane, pick(4) == 0);
    }
}

/* Each start appends a record that nobody is given. It has a time like the others: where the clock was set
 * back before the next start, and nothing came between, no other record may have one so late. */
static void note_starts(void)
{
    for (unsigned lane = 0; lane < w.options.lane_count; lane++) {
        cr_assert_lt(count_of[lane], RECORDS_MAX);
        log_of[lane][count_of[lane]++] =
            (struct entry){.offset = store_next(w.store, lane) - 1, .time_ms = wall_ms, .topic = NO_TOPIC};
    }
}

/* As after kill -9: offsets jump. */
static void crash(void)
{
    char dir[256];
    for (unsigned lane = 0; lane < w.options.lane_count; lane++)
        flush(lane, true);
    world_crash_copy(&w, dir);
    world_close(&w);
    world_remove(w.dir);
    strcpy(w.dir, dir);
}

static void start_again(void)
{
    if (pick(3) == 0)
        crash();
    else
        world_close(&w);
    loop_dispatch(w.loop);
    wall_ms = pick(2) ? wall_ms - pick(3000) : wall_ms + pick(3000);
    world_open(&w);
    note_starts();
}

/* --- the reference ------------------------------------------------------------------------------ */

/* The first entry whose time is not below. */
static unsigned first_at(unsigned lane, uint64_t time_ms)
{
    unsigned i = 0;
    while (i < count_of[lane] && log_of[lane][i].time_ms < time_ms)
        i++;
    return i;
}

static bool is_wanted(const struct entry *e, int topic)
{
    return topic < 0 ? e->topic != NO_TOPIC : e->topic == (unsigned)topic;
}

/* The n-th newest of the topic, or 0. */
static unsigned last_of(unsigned lane, unsigned topic, unsigned n)
{
    unsigned i = count_of[lane];
    while (i > 0 && n > 0)
        n -= log_of[lane][--i].topic == topic;
    return i;
}

/* --- comparing ---------------------------------------------------------------------------------- */

static void compare(const struct msg *m, const struct entry *e)
{
    char name[16];
    topic_name(e->topic, name);
    cr_assert(m->offset == e->offset && m->ts_ms == e->time_ms && slice_equal_cstr(msg_topic(m), name),
              "offset %lu instead of %lu", (unsigned long)m->offset, (unsigned long)e->offset);
}

/* Reads all pages of `r` and compares them with the entries from `i` on. */
static void expect_forward(struct world_read *r, unsigned lane, int topic, unsigned i)
{
    do {
        r->read.count_max = 1 + pick(300);
        r->read.bytes_max = pick(2) ? 1000 : 64 << 20;
        world_read_run(&w, r);
        cr_assert_eq(r->read.status, ST_OK);
        cr_assert_eq(r->read.locate, STORE_AT_OFFSET);
        for (uint64_t k = 0; k < r->read.found; k++, i++) {
            while (i < count_of[lane] && !is_wanted(&log_of[lane][i], topic))
                i++;
            cr_assert_lt(i, count_of[lane], "more than there is");
            compare(r->read.msgs[k], &log_of[lane][i]);
        }
        bool complete = store_read_complete(&r->read);
        r->read.from = r->read.next;
        world_read_free(r);
        if (complete)
            break;
    } while (true);
    while (i < count_of[lane] && !is_wanted(&log_of[lane][i], topic))
        i++;
    cr_assert_eq(i, count_of[lane], "entry %u of %u did not come", i, count_of[lane]);
}

/* ... and in reverse those below `i` whose offset is not below `from`. */
static void expect_back(struct world_read *r, unsigned lane, unsigned topic, unsigned i, uint64_t from)
{
    for (bool complete = false; !complete;) {
        r->read.count_max = 1 + pick(300);
        r->read.bytes_max = pick(2) ? 1000 : 64 << 20;
        world_read_run(&w, r);
        cr_assert_eq(r->read.status, ST_OK);
        for (uint64_t k = 0; k < r->read.found; k++) {
            cr_assert_gt(i, 0);
            while (log_of[lane][--i].topic != topic)
                cr_assert_gt(i, 0);
            compare(r->read.msgs[k], &log_of[lane][i]);
        }
        complete = store_read_complete(&r->read);
        cr_assert(complete || r->read.found > 0, "a page of a topic is empty only at the end");
        r->read.to = r->read.next;
        world_read_free(r);
    }
    while (i > 0 && log_of[lane][i - 1].offset >= from)
        cr_assert_neq(log_of[lane][--i].topic, topic, "offset %lu did not come",
                      (unsigned long)log_of[lane][i].offset);
}

static void set_topic(struct world_read *r, int topic, char name[16])
{
    topic_name((unsigned)topic, name);
    if (topic >= 0)
        r->read.topic = slice_cstr(name);
}

static void check_time(unsigned lane)
{
    char name[16];
    struct world_read r;
    int topic = (int)pick(TOPICS + 2) - 1; /* all; each; one that has no records */
    unsigned n = count_of[lane];
    uint64_t time_ms = n > 0 && pick(8) ? log_of[lane][pick(n)].time_ms + pick(3) - 1
                       : pick(2)        ? 0
                                        : wall_ms + 1000000;
    unsigned first = first_at(lane, time_ms);
    world_read_init(&r, lane, 77);
    set_topic(&r, topic, name);
    r.read.locate = STORE_AT_TIME;
    r.read.locate_value = time_ms;
    if (topic >= 0 && pick(2)) {
        r.read.reverse = true;
        expect_back(&r, lane, (unsigned)topic, first, 0);
        return;
    }
    if (pick(3) == 0) {
        uint64_t want = 0;
        for (unsigned i = first; i < n; i++)
            want += is_wanted(&log_of[lane][i], topic);
        r.read.count_only = true;
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK && r.read.found == want, "%lu instead of %lu",
                  (unsigned long)r.read.found, (unsigned long)want);
        cr_assert(r.read.next == r.read.end);
        cr_assert(first == n || r.read.from <= log_of[lane][first].offset);
        cr_assert(first == 0 || r.read.from > log_of[lane][first - 1].offset);
        return;
    }
    expect_forward(&r, lane, topic, first);
}

static void check_last(unsigned lane)
{
    char name[16];
    struct world_read r;
    unsigned topic = pick(TOPICS + 1), n = pick(4) ? 1 + pick(20) : 1 + pick(count_of[lane] + 1);
    world_read_init(&r, lane, 0);
    set_topic(&r, (int)topic, name);
    r.read.locate = STORE_AT_LAST;
    r.read.locate_value = n;
    expect_forward(&r, lane, (int)topic, last_of(lane, topic, n));
}

static void check_reverse(unsigned lane)
{
    char name[16];
    struct world_read r;
    unsigned topic = pick(TOPICS + 1), n = count_of[lane], below = n;
    world_read_init(&r, lane, 0);
    set_topic(&r, (int)topic, name);
    r.read.reverse = true;
    if (n > 0 && pick(3)) {
        below = pick(n);
        r.read.to = log_of[lane][below].offset;
        if (pick(3) == 0)
            r.read.from = log_of[lane][pick(below + 1)].offset;
    }
    expect_back(&r, lane, topic, below, r.read.from);
}

/* Segments of 64 KiB are many; in larger ones the time is looked for between frames. */
static void run_model(unsigned lanes, uint64_t segment_bytes)
{
    seed = test_seed();
    open_with(lanes, segment_bytes);
    note_starts();
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned lane = 0; lane < lanes; lane++)
            put_some(lane);
        if (pick(6) == 0)
            start_again();
        for (unsigned i = 0; i < 12; i++) {
            unsigned lane = pick(lanes);
            check_time(lane);
            check_last(lane);
            check_reverse(lane);
        }
    }
    world_deinit(&w);
}

Test(locate, agrees_with_a_list_in_one_lane)
{
    run_model(1, 64 << 10);
    memset(count_of, 0, sizeof count_of);
    run_model(1, 512 << 10);
}

Test(locate, agrees_with_a_list_in_four_lanes)
{
    run_model(4, 64 << 10);
    memset(count_of, 0, sizeof count_of);
    run_model(4, 512 << 10);
}

/* What is told is never less than was asked for: the record of the start counts. */
Test(locate, a_start_with_a_later_clock_counts_though_nothing_came_behind_it)
{
    struct world_read r;
    open_with(1, 64 << 10);
    put(0, 0, 10);
    uint64_t asked = wall_ms + 1000;
    world_close(&w);
    wall_ms += 2000;
    world_open(&w);
    uint64_t start = store_next(w.store, 0) - 1;
    world_close(&w);
    wall_ms -= 2000;
    world_open(&w);
    put(0, 0, 10);
    flush(0, true);
    world_read_init(&r, 0, 77);
    r.read.locate = STORE_AT_TIME;
    r.read.locate_value = asked;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.from <= start && r.read.found == 1);
    compare(r.read.msgs[0], &log_of[0][1]);
    cr_assert_lt(log_of[0][1].time_ms, asked);
    world_read_free(&r);
    world_deinit(&w);
}

/* --- damage ------------------------------------------------------------------------------------- */

/* `count` records of one topic, a millisecond each, in frames of ten; on disk. */
static uint64_t put_row(unsigned count, unsigned bytes)
{
    uint64_t first = store_next(w.store, 0);
    for (unsigned i = 0; i < count; i++) {
        put(0, 0, bytes);
        wall_ms++;
        if (i % 10 == 9)
            flush(0, i % 100 == 99);
    }
    flush(0, true);
    return first;
}

static void nth_file(const char *suffix, unsigned number, char *out, size_t size)
{
    char folder[300];
    struct dirent **names;
    snprintf(folder, sizeof folder, "%s/0", w.dir);
    int n = scandir(folder, &names, NULL, alphasort);
    *out = '\0';
    for (int i = 0; i < n; i++) {
        if (strstr(names[i]->d_name, suffix) && number-- == 0)
            snprintf(out, size, "%s/%.60s", folder, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    cr_assert_neq(*out, '\0');
}

static uint64_t base_of(const char *path)
{
    return strtoull(strrchr(path, '/') + 1, NULL, 10);
}

Test(locate, in_reverse_a_removed_file_is_missed)
{
    char path[400];
    struct world_read r;
    open_with(1, 64 << 10);
    uint64_t first = put_row(2000, 64);
    world_close(&w);
    nth_file(".seg", 1, path, sizeof path);
    uint64_t from = base_of(path), to;
    unlink(path);
    nth_file(".seg", 1, path, sizeof path);
    to = base_of(path);
    world_open(&w);
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("t/0");
    r.read.reverse = true;
    r.read.to = to + 5;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 5 && r.read.next == to);
    world_read_free(&r);
    r.read.to = r.read.next;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_CORRUPT && r.read.next == from);
    r.read.to = r.read.next;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == from - first);
    world_read_free(&r);
    world_deinit(&w);
}

/* Flips a byte of each record's topic in [from, to) of segment 0, whose index is then lost. */
static void damage_first_segment(uint64_t from, uint64_t to)
{
    char path[400];
    struct stat st;
    uint8_t *bytes;
    world_close(&w);
    nth_file(".seg", 0, path, sizeof path);
    int fd = open(path, O_RDWR);
    cr_assert_eq(fstat(fd, &st), 0);
    bytes = malloc((size_t)st.st_size);
    cr_assert_eq(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    uint64_t offset = log_of[0][0].offset;
    for (uint8_t *at = bytes; (at = memmem(at, (size_t)(bytes + st.st_size - at), "t/0", 3)); at++, offset++)
        if (offset >= from && offset < to)
            *at ^= 1;
    cr_assert_eq(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    free(bytes);
    nth_file(".idx", 0, path, sizeof path);
    unlink(path);
    world_open(&w);
}

Test(locate, damage_is_told_in_reverse_and_right_before_a_time)
{
    struct world_read r;
    open_with(1, 64 << 10);
    uint64_t first = put_row(2000, 64), t0 = log_of[0][0].time_ms;
    damage_first_segment(first + 100, first + 103);
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("t/0");
    r.read.reverse = true;
    r.read.to = first + 105;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 2 && r.read.next == first + 103);
    world_read_free(&r);
    r.read.to = r.read.next;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_CORRUPT && r.read.next == first + 100);
    r.read.to = r.read.next;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 100);
    world_read_free(&r);

    /* The time of what is damaged is not known: it is told when it may be meant. */
    static const struct {
        uint64_t time, from;
    } rows[] = {{99, 99}, {100, 100}, {101, 100}, {103, 100}, {104, 104}, {105, 105}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world_read_init(&r, 0, 0);
        r.read.locate = STORE_AT_TIME;
        r.read.locate_value = t0 + rows[i].time;
        r.read.count_max = 1;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.from, first + rows[i].from, "time +%lu begins at +%lu",
                     (unsigned long)rows[i].time, (unsigned long)(r.read.from - first));
        cr_assert_eq(r.read.status, rows[i].from == 100 ? ST_CORRUPT : ST_OK);
        world_read_free(&r);
    }
    world_deinit(&w);
}

/* More segments than are looked at in a step, and than may be open. */
Test(locate, looks_for_a_rare_topic_through_many_segments)
{
    struct world_read r;
    open_with(1, 64 << 10);
    put(0, 1, 10);
    put_row(15000, 600);
    put(0, 1, 10);
    flush(0, true);
    uint64_t end = store_next(w.store, 0);
    for (unsigned n = 1; n <= 3; n++) {
        world_read_init(&r, 0, 0);
        r.read.topic = slice_cstr("t/1");
        r.read.locate = STORE_AT_LAST;
        r.read.locate_value = n;
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK && r.read.found == (n < 2 ? 1 : 2) && r.read.next == end);
        world_read_free(&r);
    }
    world_read_init(&r, 0, 0);
    r.read.topic = slice_cstr("t/1");
    r.read.reverse = true;
    world_read_run(&w, &r);
    cr_assert(r.read.status == ST_OK && r.read.found == 2 && store_read_complete(&r.read));
    world_read_free(&r);
    world_deinit(&w);
}
