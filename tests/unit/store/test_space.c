/* A disk that fills up: levels with their hysteresis, the ballast, and what publishers and readers see of it.
 */
#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include "core/store/space.h"

#include <criterion/criterion.h>

enum { TOTAL = 1000 << 10, BALLAST = 64 << 10 };

static struct world w;
static struct faulty_files faults;
static struct space space;
static atomic_bool refuse;

static void begin(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 1);
    faulty_files_init(&faults);
    faults.space_total = TOTAL;
    atomic_store(&faults.space_free, TOTAL);
    w.options.files = &faults.port;
    w.options.segment_bytes = 64 << 10;
    w.options.disk_warn_percent = 80;
    w.options.disk_refuse_percent = 95;
    w.options.ballast_bytes = BALLAST;
}

static void end(void)
{
    space_deinit(&space);
    world_deinit(&w);
}

static void begin_space(void)
{
    begin();
    space_init(&space, &w.options, &faults.port, w.metrics, &refuse);
}

static void use(unsigned percent)
{
    atomic_store(&faults.space_free, (uint64_t)TOTAL / 100 * (100 - percent));
    space_look(&space, false);
}

static bool has_ballast(void)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/ballast", w.dir);
    return stat(path, &st) == 0 && st.st_size == BALLAST;
}

Test(space, levels_are_left_below_where_they_begin)
{
    static const struct {
        unsigned percent, level;
    } rows[] = {{10, 0}, {79, 0}, {80, 1}, {79, 1}, {78, 1}, {77, 0}, {79, 0}, {94, 1}, {95, 2},
                {99, 2}, {94, 2}, {93, 2}, {92, 1}, {94, 1}, {95, 2}, {50, 0}, {97, 2}};
    begin_space();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        use(rows[i].percent);
        cr_expect_eq(space.level, rows[i].level, "row %zu: %u %%: level %d", i, rows[i].percent, space.level);
        cr_expect_eq(atomic_load(&refuse), rows[i].level == 2, "row %zu", i);
        cr_expect_eq(metrics_sum(M_LOG_DISK_LEVEL), rows[i].level);
        cr_expect_eq(metrics_sum(M_LOG_DISK_FREE_BYTES), atomic_load(&faults.space_free));
    }
    end();
    cr_expect_eq(metrics_sum(M_LOG_DISK_LEVEL), 0u);
    cr_expect_eq(metrics_sum(M_LOG_DISK_FREE_BYTES), 0u);
}

Test(space, a_hundred_percent_is_never)
{
    begin();
    w.options.disk_warn_percent = w.options.disk_refuse_percent = 100;
    space_init(&space, &w.options, &faults.port, w.metrics, &refuse);
    atomic_store(&faults.space_free, 0);
    space_look(&space, false);
    cr_expect_eq(space.level, SPACE_OK);
    end();
}

Test(space, a_file_system_that_does_not_tell_changes_nothing)
{
    begin_space();
    use(96);
    faults.fail_at[FAULTY_SPACE] = atomic_load(&faults.count[FAULTY_SPACE]) + 1;
    use(10);
    cr_expect_eq(space.level, SPACE_REFUSE);
    use(10);
    cr_expect_eq(space.level, SPACE_OK);
    end();
}

Test(space, the_ballast_is_made_given_up_and_made_again_when_there_is_room)
{
    begin_space();
    cr_assert(!has_ballast());
    use(90); /* 100 KiB are free, less than twice the ballast */
    cr_assert(!has_ballast(), "not the last of the disk");
    use(10);
    cr_assert(has_ballast() && space.ballast_held);
    space_give_ballast(&space);
    cr_assert(!has_ballast() && atomic_load(&space.ballast_given));
    cr_assert_eq(metrics_sum(M_LOG_BALLAST_GIVEN), 1u);
    space_give_ballast(&space);
    cr_assert_eq(metrics_sum(M_LOG_BALLAST_GIVEN), 1u, "there is one only");
    faults.fail_errno = ENOSPC;
    faults.fail_at[FAULTY_ALLOCATE] = atomic_load(&faults.count[FAULTY_ALLOCATE]) + 1;
    cr_assert(!space_take_ballast_back(&space), "what is still full stays full");
    cr_assert(atomic_load(&space.ballast_given));
    space_look(&space, true);
    cr_assert(!has_ballast(), "nor does a look take the room while nothing else can be made");
    cr_assert(space_take_ballast_back(&space));
    cr_assert(has_ballast() && !atomic_load(&space.ballast_given));
    end();
}

Test(space, a_ballast_of_an_earlier_process_is_found_or_removed)
{
    begin_space();
    use(10);
    space_deinit(&space);
    space_init(&space, &w.options, &faults.port, w.metrics, &refuse);
    cr_assert(space.ballast_held);
    space_deinit(&space);
    w.options.ballast_bytes = 0;
    space_init(&space, &w.options, &faults.port, w.metrics, &refuse);
    cr_assert(!space.ballast_held && !has_ballast());
    use(10);
    cr_assert(!has_ballast());
    end();
}

/* --- the whole store --- */

static uint64_t deadline;

static void wait_level(unsigned level)
{
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (metrics_sum(M_LOG_DISK_LEVEL) != level) {
        cr_assert_lt(world_now_ms(), deadline, "level %u", level);
        world_turn(&w);
    }
}

Test(space, a_disk_that_is_nearly_full_refuses_publishes_only)
{
    uint64_t offset;
    struct msg *m;
    begin();
    world_open(&w);
    cr_assert_eq(msg_create(slice_cstr("kept"), (struct slice){0}, (struct slice){0}, slice_cstr("1"), &m),
                 ST_OK);
    m->flags = MSG_RETAIN;
    loop_update_time(w.loop);
    cr_assert_eq(store_append(w.store, 0, m, true), ST_OK);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, m->offset + 1);
    atomic_store(&faults.space_free, TOTAL / 100 * 4);
    wait_level(2);
    /* The flag is set right after the gauge. */
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    uint64_t refused = metrics_sum(M_LOG_REFUSED_FULL);
    while (world_append(&w, 0, "t", slice_cstr("text"), true, &offset) != ST_NO_SPACE)
        cr_assert_lt(world_now_ms(), deadline);
    cr_assert_gt(metrics_sum(M_LOG_REFUSED_FULL), refused);
    cr_assert_eq(world_count(&w, 0, "kept"), 1u, "reads go on");
    cr_assert_eq(store_carry(w.store, 0, m), ST_OK, "and so does retention");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, m->stored + 1);
    msg_unref(m);
    atomic_store(&faults.space_free, TOTAL);
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (world_append(&w, 0, "t", slice_cstr("text"), true, &offset) != ST_OK) {
        cr_assert_lt(world_now_ms(), deadline, "it recovers by itself");
        world_turn(&w);
    }
    world_deinit(&w);
}

static void wait_ballast(bool there)
{
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (has_ballast() != there) {
        cr_assert_lt(world_now_ms(), deadline, "ballast %d", there);
        world_turn(&w);
    }
}

Test(space, a_full_disk_takes_the_ballast_and_gives_it_back_first)
{
    static uint8_t block[1000];
    uint64_t offset;
    begin();
    world_open(&w);
    wait_ballast(true);
    faults.fail_errno = ENOSPC;
    faults.fail_on = true;
    faults.fail_at[FAULTY_ALLOCATE] = 1;
    unsigned taken = 0;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset) == ST_OK) {
        store_flush(w.store, 0);
        world_turn(&w);
        taken++;
    }
    wait_ballast(false);
    cr_assert_eq(metrics_sum(M_LOG_DISK_FULL), 1u);
    cr_assert_eq(world_count(&w, 0, "t"), taken);
    faults.fail_at[FAULTY_ALLOCATE] = 0;
    deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset) != ST_OK) {
        cr_assert_lt(world_now_ms(), deadline);
        world_turn(&w);
    }
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, offset + 1);
    cr_assert(has_ballast(), "before anything else is made");
    world_deinit(&w);
}
