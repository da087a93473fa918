/* When syncs come, and what is told before them, by a clock that stands still until the test moves it. */
#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>

enum { INTERVAL_MS = 50 };

static struct world w;
static struct faulty_files faults;
static _Atomic uint64_t now_ms = 1000000;

static uint64_t mono_ns(void *ctx)
{
    (void)ctx;
    return atomic_load(&now_ms) * 1000000u;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return 1700000000000u + atomic_load(&now_ms);
}

static const struct clock test_clock = {.mono_ns = mono_ns, .wall_ms = wall_ms};

static void begin(enum store_sync sync)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 2);
    faulty_files_init(&faults);
    w.options.files = &faults.port;
    w.options.clock = &test_clock;
    w.options.sync = sync;
    w.options.sync_interval_ms = sync == STORE_SYNC_INTERVAL ? INTERVAL_MS : 0;
    world_open(&w);
}

static long syncs(void)
{
    return atomic_load(&faults.count[FAULTY_DATASYNC]);
}

static void put_durable(unsigned lane)
{
    uint64_t offset = world_put(&w, lane, "t", "text");
    store_flush(w.store, lane);
    world_wait_durable(&w, lane, offset + 1);
}

static void wait_syncs(long count)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (syncs() < count) {
        cr_assert_lt(world_now_ms(), deadline, "the sync comes");
        usleep(1000);
    }
}

Test(sync_modes, interval_tells_what_is_written_and_syncs_when_it_is_due)
{
    begin(STORE_SYNC_INTERVAL);
    long before = syncs();
    for (unsigned i = 0; i < 10; i++) {
        put_durable(i % 2);
        usleep(INTERVAL_MS * 1000 / 5); /* real time: the writer wakes and finds that it is not due */
    }
    cr_assert_eq(syncs(), before, "told before any sync");
    atomic_fetch_add(&now_ms, INTERVAL_MS - 1);
    put_durable(0);
    cr_assert_eq(syncs(), before, "not yet due");
    atomic_fetch_add(&now_ms, 1);
    wait_syncs(before + 2); /* one a lane, with nothing new to write */
    for (unsigned i = 0; i < 10; i++)
        put_durable(0);
    cr_assert_eq(syncs(), before + 2, "the next interval begins with what is written next");
    atomic_fetch_add(&now_ms, INTERVAL_MS);
    wait_syncs(before + 3);
    world_deinit(&w);
}

/* A frame says what was synced, not what was only told: else recovery would take lost sectors for rot. */
Test(sync_modes, a_frame_does_not_vouch_for_what_is_only_written)
{
    char path[300];
    static uint8_t bytes[4096];
    uint64_t synced_below, base = 0;
    begin(STORE_SYNC_INTERVAL);
    uint64_t first = store_next(w.store, 0);
    for (unsigned i = 0; i < 5; i++)
        put_durable(0);
    snprintf(path, sizeof path, "%s/0/%020u.seg", w.dir, 0);
    FILE *file = fopen(path, "r");
    cr_assert(file && fread(bytes, 1, sizeof bytes, file) == sizeof bytes);
    fclose(file);
    for (size_t at = 64; at + 72 < sizeof bytes && bytes[at]; at += *(uint32_t *)(void *)(bytes + at)) {
        memcpy(&base, bytes + at + 16, sizeof base);
        memcpy(&synced_below, bytes + at + 40, sizeof synced_below);
        cr_assert_leq(synced_below, first, "frame of %lu", base);
    }
    cr_assert_eq(base, first + 4);
    world_deinit(&w);
}

Test(sync_modes, never_does_not_sync_what_it_tells)
{
    begin(STORE_SYNC_NEVER);
    long before = syncs();
    for (unsigned i = 0; i < 10; i++)
        put_durable(i % 2);
    atomic_fetch_add(&now_ms, 60000);
    put_durable(0);
    cr_assert_eq(syncs(), before);
    world_deinit(&w);
}

Test(sync_modes, retention_waits_for_the_sync_of_what_was_carried)
{
    static uint8_t block[1000];
    begin(STORE_SYNC_INTERVAL);
    world_close(&w);
    loop_dispatch(w.loop);
    world_remove(w.dir);
    w.options.lane_count = 1;
    w.options.segment_bytes = 64 << 10;
    w.options.retention_bytes = 128 << 10;
    world_open(&w);
    store_trim(w.store, 0, 0);
    for (unsigned i = 0; i < 300; i++) { /* the store seals old segments, but the newest one is not synced */
        uint64_t offset;
        cr_assert_eq(world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset), ST_OK);
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, offset + 1);
    }
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_first(w.store, 0) < 150) { /* it goes on as syncs come */
        cr_assert_lt(world_now_ms(), deadline);
        atomic_fetch_add(&now_ms, INTERVAL_MS);
        put_durable(0);
    }
    world_deinit(&w);
}

Test(sync_modes, an_interval_of_nothing_is_refused)
{
    world_init(&w, 1);
    w.options.sync = STORE_SYNC_INTERVAL;
    cr_assert_eq(world_try_open(&w), ST_INVALID);
    w.store = NULL;
    world_deinit(&w);
}
