/* Rot in a sealed segment is found without anybody reading it; nothing is found where nothing is wrong. */
#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>

static struct world w;
static uint64_t deadline;

static void begin(unsigned lanes, uint64_t speed)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, lanes);
    w.options.segment_bytes = 64 << 10;
    w.options.scrub_bytes_per_s = speed;
    world_open(&w);
}

static void fill(unsigned lane)
{
    static uint8_t block[1000];
    for (int i = 0; i < 300; i++) {
        uint64_t offset;
        cr_assert_eq(world_append(&w, lane, "t", slice_of(block, sizeof block), true, &offset), ST_OK);
        store_flush(w.store, lane);
        world_wait_durable(&w, lane, offset + 1);
    }
}

static void flip(unsigned lane, off_t at)
{
    char path[300];
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%u/%020u.seg", w.dir, lane, 0);
    int fd = open(path, O_RDWR);
    cr_assert(pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    cr_assert(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

static void wait_damaged(uint64_t count)
{
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (metrics_sum(M_LOG_SCRUB_DAMAGED) != count) {
        cr_assert_lt(world_now_ms(), deadline, "%lu damaged, not %lu", metrics_sum(M_LOG_SCRUB_DAMAGED),
                     count);
        usleep(1000);
    }
}

static void wait_bytes(uint64_t more)
{
    uint64_t until = metrics_sum(M_LOG_SCRUB_BYTES) + more;
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (metrics_sum(M_LOG_SCRUB_BYTES) < until) {
        cr_assert_lt(world_now_ms(), deadline, "the scrub goes on");
        usleep(1000);
    }
}

Test(scrub, finds_a_flipped_bit_of_a_record_and_of_a_frame_header)
{
    begin(2, 64 << 20);
    fill(0);
    fill(1);
    wait_bytes(1 << 20); /* more than one cycle: 2 x 0.25 MB are sealed */
    cr_assert_eq(metrics_sum(M_LOG_SCRUB_DAMAGED), 0u);
    flip(1, 30000);
    wait_damaged(1);
    wait_bytes(1 << 20);
    cr_assert_eq(metrics_sum(M_LOG_SCRUB_DAMAGED), 1u, "it is counted once");
    flip(0, 64 + 72 +
                48); /* START is 136 bytes long; this is in the header or the record of the first message */
    wait_damaged(2);
    flip(1, 30000);
    wait_damaged(1);
    world_deinit(&w);
    cr_assert_eq(metrics_sum(M_LOG_SCRUB_DAMAGED), 0u);
}

static unsigned lines_of(const char *path, const char *text)
{
    char line[1024];
    unsigned count = 0;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        count += strstr(line, text) != NULL;
    fclose(f);
    return count;
}

Test(scrub, logs_a_damage_once_and_again_when_it_comes_back)
{
    char path[300];
    begin(1, 64 << 20);
    fill(0);
    snprintf(path, sizeof path, "%s/stderr", w.dir);
    cr_assert_not_null(freopen(path, "w", stderr));
    flip(0, 30000);
    wait_damaged(1);
    wait_bytes(1 << 20); /* cycles of 0.25 MB */
    cr_assert_eq(lines_of(path, "found by the scrub"), 1u);
    flip(0, 30000);
    wait_damaged(0);
    flip(0, 30000);
    wait_damaged(1);
    wait_bytes(1 << 19);
    cr_assert_eq(lines_of(path, "found by the scrub"), 2u);
    world_deinit(&w);
}

Test(scrub, what_it_found_is_answered_as_damaged)
{
    begin(1, 64 << 20);
    fill(0);
    flip(0, 30000);
    wait_damaged(1);
    uint64_t from = 0, found = 0, damaged = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        world_read_run(&w, &r);
        damaged += r.read.status == ST_CORRUPT;
        found += r.read.found;
        from = r.read.next;
        bool all = store_read_complete(&r.read);
        world_read_free(&r);
        if (all)
            break;
    }
    cr_assert_eq(damaged, 1u);
    cr_assert_eq(found, 299u);
    world_deinit(&w);
}

Test(scrub, keeps_its_speed)
{
    begin(1, 64 << 10);
    uint64_t begun = world_now_ms();
    fill(0); /* 0.3 MB, four segments and a half */
    wait_bytes(1);
    uint64_t bytes = metrics_sum(M_LOG_SCRUB_BYTES), ms = world_now_ms() - begun;
    /* One step may be ahead, of a whole segment at most. */
    cr_assert_leq(bytes, ms * 64 * 1024 / 1000 + 2 * (64 << 10), "%lu bytes in %lu ms", bytes, ms);
    world_deinit(&w);
}

Test(scrub, goes_on_beside_retention)
{
    begin(1, 64 << 20);
    world_close(&w);
    loop_dispatch(w.loop);
    w.options.retention_bytes = 128 << 10;
    world_open(&w);
    store_trim(w.store, 0, 0);
    for (int round = 0; round < 5; round++)
        fill(0);
    wait_bytes(1 << 18);
    cr_assert_eq(metrics_sum(M_LOG_SCRUB_DAMAGED), 0u, "what is removed or used again is no damage");
    world_deinit(&w);
}
