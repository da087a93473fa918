/* Files that are used again: what an earlier life has left in them is never taken for the new one's, and a
 * file that somebody else knows is not written to. */
#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include "core/store/format.h"
#include "core/store/maker.h"

#include <criterion/criterion.h>
#include <fcntl.h>

enum { SEGMENT = 64 << 10, LIMIT = 3 * SEGMENT, BLOCK = 1000 };

static struct world w;
static unsigned put_count;

static void begin(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 1);
    w.options.segment_bytes = SEGMENT;
    w.options.retention_bytes = LIMIT;
    world_open(&w);
    store_trim(w.store, 0, 0);
}

static void put(void)
{
    uint64_t offset;
    char text[BLOCK];
    memset(text, 'x', sizeof text);
    snprintf(text, sizeof text, "block %u", put_count++);
    cr_assert_eq(world_append(&w, 0, "t", slice_of(text, sizeof text), true, &offset), ST_OK);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, offset + 1);
}

/* The newest segment's file in `dir`. */
static void newest(const char *dir, char out[700])
{
    char folder[300], name[300] = "";
    snprintf(folder, sizeof folder, "%s/0", dir);
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, ".seg") && strcmp(e->d_name, name) > 0)
            snprintf(name, sizeof name, "%s", e->d_name);
    closedir(d);
    snprintf(out, 700, "%s/%s", folder, name);
}

static uint8_t *read_file(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0, "%s", path);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    cr_assert_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *len = (size_t)st.st_size;
    return bytes;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static struct segment_header header_of(const uint8_t *bytes)
{
    struct segment_header h;
    memcpy(&h, bytes, sizeof h);
    return h;
}

/* Appends until the newest segment lies in a file that was one before, with some frames in it. */
static void put_until_reused(void)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    for (uint32_t life = 0; life == 0;) {
        uint64_t before = metrics_sum(M_LOG_SEGMENTS_REUSED);
        char path[700];
        size_t len;
        while (metrics_sum(M_LOG_SEGMENTS_REUSED) == before) {
            cr_assert_lt(world_now_ms(), deadline, "retention's files are used again");
            put();
        }
        for (int i = 0; i < 10; i++)
            put();
        newest(w.dir, path);
        uint8_t *bytes = read_file(path, &len);
        life = header_of(bytes).life;
        free(bytes);
    }
}

/* Where the last frame with records begins, and where the frames end. */
static size_t last_frame(const uint8_t *bytes, size_t len, size_t *end)
{
    uint64_t epoch = header_of(bytes).segment_epoch;
    size_t last = 0, at = sizeof(struct segment_header);
    for (struct frame_header h; at + sizeof h <= len; at += h.frame_bytes) {
        memcpy(&h, bytes + at, sizeof h);
        if (h.segment_epoch != epoch)
            break;
        last = h.record_count > 0 ? at : last;
    }
    *end = at;
    return last;
}

/* Goes over to a copy of the folder, as after a crash; the world is closed. */
static void crash(void)
{
    char copy[256];
    world_crash_copy(&w, copy);
    world_close(&w);
    loop_dispatch(w.loop);
    world_remove(w.dir);
    memcpy(w.dir, copy, sizeof w.dir);
}

/* All that is kept is as it was written, in order; dies on damage. Returns the number of the last block. */
static unsigned check(void)
{
    uint64_t from = store_first(w.store, 0);
    unsigned last = 0, found = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        world_read_run(&w, &r);
        cr_assert_eq(r.read.status, ST_OK, "%s", status_name(r.read.status));
        for (uint64_t i = 0; i < r.read.found; i++) {
            unsigned number = (unsigned)atoi((const char *)msg_payload(r.read.msgs[i]).data + 6);
            cr_assert(found == 0 || number == last + 1, "%u after %u", number, last);
            last = number;
            found++;
        }
        from = r.read.next;
        bool all = store_read_complete(&r.read);
        world_read_free(&r);
        if (all)
            break;
    }
    cr_assert_gt(found, 10u);
    cr_assert_eq(world_count(&w, 0, "t"), found, "the index agrees");
    return last;
}

Test(maker, a_crash_in_a_reused_file_loses_nothing_and_tells_of_no_damage)
{
    begin();
    put_until_reused();
    crash();
    uint64_t torn = metrics_sum(M_LOG_TORN_BYTES);
    world_open(&w);
    cr_assert_eq(check(), put_count - 1);
    cr_assert_eq(metrics_sum(M_LOG_TORN_BYTES), torn, "what an old life has left is no torn write");
    world_deinit(&w);
}

Test(maker, a_torn_frame_over_old_ones_is_cut)
{
    char path[700];
    size_t len, end;
    begin();
    put_until_reused();
    crash();
    newest(w.dir, path);
    uint8_t *bytes = read_file(path, &len);
    size_t frame = last_frame(bytes, len, &end), half = frame + (end - frame) / 2;
    cr_assert_leq(end + (end - half), len, "there is something of the old life behind it");
    memcpy(bytes + half, bytes + end, end - half);
    write_file(path, bytes, len);
    free(bytes);
    uint64_t torn = metrics_sum(M_LOG_TORN_BYTES);
    world_open(&w);
    cr_assert_eq(check(), put_count - 2, "only the torn one is gone");
    cr_assert_gt(metrics_sum(M_LOG_TORN_BYTES), torn);
    world_deinit(&w);
}

/* The file has its new name, the power goes before the first frame: nothing says that it is anybody's. */
Test(maker, a_file_that_got_its_name_and_was_not_begun_is_removed)
{
    char path[700];
    size_t len;
    begin();
    put_until_reused();
    crash();
    newest(w.dir, path);
    uint8_t *bytes = read_file(path, &len);
    memset(bytes, 0, 4096);
    snprintf(path, sizeof path, "%s/0/%020u.seg", w.dir, 9999999);
    write_file(path, bytes, len);
    free(bytes);
    world_open(&w);
    cr_assert_eq(access(path, F_OK), -1);
    cr_assert_eq(check(), put_count - 1);
    world_deinit(&w);
}

Test(maker, a_file_with_another_name_is_not_written_to)
{
    char path[700], beside[300];
    size_t len, len_after;
    begin();
    put();
    newest(w.dir, path);
    snprintf(beside, sizeof beside, "%s/snapshot", w.dir);
    uint64_t base = store_first(w.store, 0);
    while (store_next(w.store, 0) < 70)
        put(); /* the first one is sealed */
    cr_assert_eq(link(path, beside), 0);
    uint8_t *bytes = read_file(beside, &len);
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_first(w.store, 0) == base || metrics_sum(M_LOG_SEGMENTS_REUSED) == 0) {
        cr_assert_lt(world_now_ms(), deadline);
        put();
    }
    for (int i = 0; i < 200; i++)
        put();
    uint8_t *after = read_file(beside, &len_after);
    cr_assert(len == len_after && memcmp(bytes, after, len) == 0, "the snapshot is as it was");
    free(bytes);
    free(after);
    world_deinit(&w);
}

Test(maker, files_of_other_sizes_get_the_size_of_a_segment)
{
    static uint8_t giant[4 * SEGMENT];
    char path[700];
    begin();
    for (int round = 0; round < 3; round++) {
        uint64_t offset;
        cr_assert_eq(world_append(&w, 0, "giant", slice_of(giant, sizeof giant), true, &offset), ST_OK);
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, offset + 1);
        put_until_reused();
        struct stat st;
        newest(w.dir, path);
        cr_assert(stat(path, &st) == 0 && st.st_size == SEGMENT, "%ld bytes", (long)st.st_size);
        world_close(&w); /* the segment of a start is sealed when it has hardly begun */
        world_open(&w);
        store_trim(w.store, 0, 0);
    }
    cr_assert_gt(world_count(&w, 0, "t"), 0u); /* dies on damage */
    world_deinit(&w);
}

/* What many lanes take when they start is about one segment. */
Test(maker, a_start_of_many_lanes_takes_little_room)
{
    begin();
    world_close(&w);
    world_remove(w.dir);
    w.options.lane_count = 16;
    w.options.segment_bytes = 4 << 20;
    world_open(&w);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 16; i++) {
        char path[300];
        struct stat st;
        snprintf(path, sizeof path, "%s/%u/%020u.seg", w.dir, i, 0);
        cr_assert_eq(stat(path, &st), 0);
        bytes += (uint64_t)st.st_blocks * 512;
    }
    cr_assert_leq(bytes, (uint64_t)5 << 20);
    world_deinit(&w);
}

/* --- the maker alone --- */

static struct faulty_files faults;
static atomic_bool disk_full, disk_refuse;

static struct maker *make(void)
{
    struct maker *m;
    begin();
    faulty_files_init(&faults);
    cr_assert_eq(maker_create(&w.options, &faults.port, &disk_full, &disk_refuse, &m), ST_OK);
    return m;
}

static void wait_until_file(const char *path, bool there)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while ((access(path, F_OK) == 0) != there) {
        cr_assert_lt(world_now_ms(), deadline, "%s", path);
        usleep(500);
    }
}

Test(maker, makes_a_file_when_none_is_ready_and_hands_out_one_that_is)
{
    char ahead[300], path[300];
    struct made_file made;
    struct maker *m = make();
    snprintf(ahead, sizeof ahead, "%s/ahead-0.seg", w.dir);
    snprintf(path, sizeof path, "%s/one", w.dir);
    cr_assert_eq(maker_take(m, path, SEGMENT, &made), ST_OK);
    cr_assert(!made.ahead && made.life == 0);
    close(made.fd);
    cr_assert_eq(maker_start(m), ST_OK);
    maker_want(m, 1);
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    snprintf(path, sizeof path, "%s/two", w.dir);
    do { /* its name is there a moment before it is ready */
        cr_assert_lt(world_now_ms(), deadline);
        wait_until_file(ahead, true);
        unlink(path);
        cr_assert_eq(maker_take(m, path, SEGMENT, &made), ST_OK);
        close(made.fd);
    } while (!made.ahead);
    struct stat st;
    cr_assert(stat(path, &st) == 0 && st.st_size == SEGMENT);
    maker_stop(m);
    maker_destroy(m);
    world_deinit(&w);
}

Test(maker, says_when_there_is_no_room_and_when_there_is_again)
{
    char path[300];
    struct made_file made;
    struct maker *m = make();
    snprintf(path, sizeof path, "%s/one", w.dir);
    faults.fail_errno = ENOSPC;
    faults.fail_on = true;
    faults.fail_at[FAULTY_ALLOCATE] = 1;
    cr_assert_eq(maker_take(m, path, SEGMENT, &made), ST_AGAIN, "nor does a start fail for it");
    cr_assert_eq(maker_start(m), ST_OK);
    cr_assert_eq(maker_take(m, path, SEGMENT, &made), ST_AGAIN);
    cr_assert(atomic_load(&disk_full));
    cr_assert_neq(maker_retry_ms(m), UINT64_MAX);
    faults.fail_at[FAULTY_ALLOCATE] = 0;
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (atomic_load(&disk_full)) { /* nobody asks: it looks by itself */
        cr_assert_lt(world_now_ms(), deadline);
        usleep(1000);
    }
    cr_assert_eq(maker_take(m, path, SEGMENT, &made), ST_OK);
    close(made.fd);
    maker_stop(m);
    maker_destroy(m);
    world_deinit(&w);
}
