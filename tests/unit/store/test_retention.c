/* Retention: how much stays, what readers are told, what is carried, and that a crash at any step of a trim
 * loses nothing but what was to go. */
#include "fakes/faulty_files.h"
#include "fakes/store_keeper.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

enum { SEGMENT = 64 << 10, LIMIT = 4 * SEGMENT, BLOCK = 1000 };

static struct world w;
static uint8_t block[BLOCK];

static void begin(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 1);
    w.options.segment_bytes = SEGMENT;
    w.options.retention_bytes = LIMIT;
}

static uint64_t files_bytes(const char *dir, unsigned *segments, unsigned *indexes)
{
    char path[700];
    uint64_t bytes = 0;
    snprintf(path, sizeof path, "%s/0", dir);
    DIR *d = opendir(path);
    *segments = *indexes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_size;
        *segments += strstr(e->d_name, ".seg") != NULL;
        *indexes += strstr(e->d_name, ".idx") != NULL;
    }
    closedir(d);
    return bytes;
}

static uint64_t put_block(void)
{
    uint64_t offset;
    if (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset) != ST_OK)
        world_die("append refused");
    store_flush(w.store, 0);
    return offset;
}

/* So many blocks, durable, in steps. */
static void put_blocks(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = put_block();
        if (i % 50 == 49 || i + 1 == count)
            world_wait_durable(&w, 0, offset + 1);
    }
}

static void wait_first_above(uint64_t offset)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_first(w.store, 0) <= offset) {
        cr_assert_lt(world_now_ms(), deadline, "the log is trimmed in time");
        world_turn(&w);
    }
}

/* Nothing more is to go: the newest segments hold no more than the limit. */
static void wait_trimmed(void)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    unsigned segments, indexes;
    for (;;) {
        struct world_read r; /* hands what was appended to the reader */
        world_read_init(&r, 0, store_next(w.store, 0));
        world_read_run(&w, &r);
        world_read_free(&r);
        world_turn(&w);
        files_bytes(w.dir, &segments, &indexes);
        if (segments <= LIMIT / SEGMENT)
            return;
        cr_assert_lt(world_now_ms(), deadline, "%u segments", segments);
    }
}

Test(retention, the_log_stays_below_its_limit)
{
    unsigned segments, indexes;
    uint64_t trimmed = metrics_sum(M_LOG_TRIMMED_SEGMENTS);
    begin();
    world_open(&w);
    store_trim(w.store, 0, 0);
    put_blocks(2000); /* 2 MB: eight times over */
    wait_trimmed();
    uint64_t first = store_first(w.store, 0), next = store_next(w.store, 0);
    cr_assert_leq(files_bytes(w.dir, &segments, &indexes), LIMIT + SEGMENT);
    cr_assert_leq(indexes, segments);
    cr_assert_gt(first, 1500u);
    cr_assert_geq(next - first, (uint64_t)(LIMIT - 2 * SEGMENT) / 1200, "and not much less than it may");
    cr_assert_eq(world_count(&w, 0, "t"), next - first);
    cr_assert_gt(metrics_sum(M_LOG_TRIMMED_SEGMENTS), trimmed + 20);
    cr_assert_leq(metrics_sum(M_LOG_SIZE_BYTES), (uint64_t)LIMIT);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(store_first(w.store, 0), first);
    world_deinit(&w);
}

Test(retention, nothing_goes_before_the_owner_is_ready_nor_without_a_limit)
{
    begin();
    world_open(&w);
    put_blocks(1000);
    cr_assert_eq(world_count(&w, 0, "t"), 1000u);
    world_close(&w);
    w.options.retention_bytes = 0;
    world_open(&w);
    store_trim(w.store, 0, 0);
    put_blocks(1000);
    cr_assert_eq(world_count(&w, 0, "t"), 2000u);
    world_close(&w);
    w.options.retention_bytes = LIMIT; /* a log that gets a limit late */
    world_open(&w);
    store_trim(w.store, 0, 0);
    wait_trimmed();
    cr_assert_gt(world_count(&w, 0, "t"), 100u);
    world_deinit(&w);
}

Test(retention, a_position_below_is_gone_and_says_where_the_log_begins)
{
    begin();
    world_open(&w);
    store_trim(w.store, 0, 0);
    put_blocks(1000);
    wait_trimmed();
    for (int count_only = 0; count_only < 2; count_only++) {
        struct world_read r;
        world_read_init(&r, 0, 5);
        r.read.count_only = count_only;
        world_read_run(&w, &r);
        cr_assert_eq(r.read.status, ST_GONE);
        cr_assert_eq(r.read.first, store_first(w.store, 0));
        cr_assert_eq(r.read.next, r.read.first);
        cr_assert_eq(r.read.found, 0u);
        world_read_free(&r);
    }
    world_deinit(&w);
}

/* Pages through the log while it is trimmed under the pages: each is whole, or gone, never damaged. */
Test(retention, a_reader_is_overtaken_and_told)
{
    uint64_t from = 0, gone = 0;
    begin();
    world_open(&w);
    store_trim(w.store, 0, 0);
    put_blocks(60);
    for (int i = 0; i < 2000; i++) {
        struct world_read r;
        put_blocks(i % 3 ? 2 : 1);
        world_read_init(&r, 0, from);
        r.read.count_max = 1;
        if (i % 2)
            r.read.topic = slice_cstr("t");
        world_read_run(&w, &r);
        cr_assert(r.read.status == ST_OK || r.read.status == ST_GONE, "%s", status_name(r.read.status));
        cr_assert_gt(r.read.next, from);
        if (r.read.status == ST_GONE)
            gone++;
        else if (r.read.found)
            cr_assert_geq(r.read.msgs[0]->offset, from);
        from = r.read.next;
        world_read_free(&r);
    }
    cr_assert_gt(gone, 2u);
    world_deinit(&w);
}

Test(retention, by_age)
{
    begin();
    w.options.retention_bytes = 0;
    w.options.retention_ms = 400;
    world_open(&w);
    store_trim(w.store, 0, 0);
    put_blocks(300);
    uint64_t first = store_next(w.store, 0) - 1;
    /* The last segment is not touched: but a record after a quarter of the time begins a new one. */
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_first(w.store, 0) <= first) {
        cr_assert_lt(world_now_ms(), deadline, "what is old goes");
        put_block();
        world_turn(&w);
    }
    world_deinit(&w);
}

/* --- carrying --- */

static void check_kept(struct keeper *k, char texts[KEEPER_TOPICS][32], const uint64_t offsets[KEEPER_TOPICS])
{
    for (unsigned i = 0; i < KEEPER_TOPICS; i++) {
        cr_assert_eq(k->msgs[i] != NULL, texts[i][0] != 0, "topic %u", i);
        if (!k->msgs[i])
            continue;
        cr_assert(slice_equal_cstr(msg_payload(k->msgs[i]), texts[i]), "topic %u: %.*s, not %s", i,
                  (int)k->msgs[i]->payload_len, (const char *)msg_payload(k->msgs[i]).data, texts[i]);
        cr_assert_eq(k->msgs[i]->offset, offsets[i], "topic %u keeps its position", i);
        cr_assert_geq(k->msgs[i]->stored, store_first(w.store, 0), "topic %u is in the log", i);
    }
}

/* Turnovers, restarts and copies of the folder at any moment, against a table. */
Test(retention, what_is_retained_outlives_its_segments)
{
    char texts[KEEPER_TOPICS][32] = {{0}};
    uint64_t offsets[KEEPER_TOPICS] = {0};
    struct keeper k;
    unsigned trims = 0, carried = 0;
    srand(4711);
    begin();
    world_open(&w);
    keeper_open(&k, &w);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < 6; i++) {
            unsigned topic = (unsigned)rand() % (round < 30 ? KEEPER_TOPICS : 4);
            snprintf(texts[topic], sizeof texts[topic], "%s", rand() % 5 ? "" : "x");
            if (!texts[topic][0] || rand() % 2)
                snprintf(texts[topic], sizeof texts[topic], "round %u %u", round, i);
            if (rand() % 6 == 0)
                texts[topic][0] = 0;
            offsets[topic] = keeper_put(&k, topic, texts[topic], true);
            put_blocks((unsigned)rand() % 40);
        }
        uint64_t last = put_block();
        world_wait_durable(&w, 0, last + 1);
        check_kept(&k, texts, offsets);
        trims += k.trims;
        carried += k.carried;
        char copy[256];
        if (round % 2)
            world_crash_copy(&w, copy);
        keeper_close(&k);
        world_close(&w);
        loop_dispatch(w.loop);
        if (round % 2) {
            world_remove(w.dir);
            memcpy(w.dir, copy, sizeof w.dir);
        }
        world_open(&w);
        keeper_open(&k, &w);
        check_kept(&k, texts, offsets);
    }
    /* How many segments one trim takes depends on the machine's load; that there were many turnovers does
     * not. */
    cr_assert_gt(trims, 10u);
    cr_assert_gt(carried, 10u);
    cr_assert_gt(store_first(w.store, 0), 1000u);
    keeper_close(&k);
    world_deinit(&w);
}

Test(retention, a_carried_record_is_shown_to_nobody_but_the_fold)
{
    struct keeper k;
    begin();
    world_open(&w);
    keeper_open(&k, &w);
    uint64_t offset = keeper_put(&k, 7, "the message", true), ts_ms = k.msgs[7]->ts_ms;
    put_blocks(600);
    wait_first_above(offset);
    wait_trimmed();
    cr_assert_gt(k.carried, 0u);
    cr_assert_eq(k.msgs[7]->offset, offset);
    uint64_t stored = k.msgs[7]->stored;
    cr_assert_gt(stored, offset);
    cr_assert_eq(world_count(&w, 0, "r/07/"), 0u, "not in its topic's history");
    uint64_t all = world_count(&w, 0, NULL);
    cr_assert_eq(all, world_count(&w, 0, "t"), "nor in anybody's");
    uint32_t found;
    uint64_t next;
    struct msg *msgs[8];
    if (store_recent(w.store, 0, stored, (struct slice){0}, NULL, NULL, 8, msgs, &found, &next) == ST_OK) {
        for (uint32_t i = 0; i < found; i++) {
            cr_assert_neq(msgs[i]->stored, stored, "nor in what is recent");
            msg_unref(msgs[i]);
        }
    }
    keeper_close(&k);
    world_close(&w);
    world_open(&w);
    keeper_open(&k, &w);
    cr_assert_eq(k.msgs[7]->offset, offset);
    cr_assert_eq(k.msgs[7]->stored, stored);
    cr_assert_eq(k.msgs[7]->ts_ms, ts_ms);
    cr_assert(slice_equal_cstr(msg_payload(k.msgs[7]), "the message"));
    keeper_close(&k);
    world_deinit(&w);
}

/* The fold's read from `from`: the payload of the only note. */
static void expect_note(uint64_t at, const char *want)
{
    unsigned notes = 0;
    struct world_read r;
    world_read_init(&r, 0, store_first(w.store, 0));
    r.read.state_only = true;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_OK);
    for (uint64_t i = 0; i < r.read.found; i++) {
        struct msg *m = r.read.msgs[i];
        cr_assert(m->flags & MSG_NOTE);
        cr_assert_eq(m->stored, at);
        cr_assert(slice_equal_cstr(msg_payload(m), want));
        notes++;
    }
    cr_assert_eq(notes, 1u);
    world_read_free(&r);
}

Test(retention, a_note_is_shown_to_nobody_but_the_fold)
{
    uint64_t at, next;
    uint32_t found;
    struct msg *msgs[8];
    begin();
    world_open(&w);
    put_blocks(3);
    cr_assert_eq(store_note(w.store, 0, slice_cstr("\x02 the note"), &at), ST_OK);
    put_blocks(1);
    uint64_t all = world_count(&w, 0, NULL);
    cr_assert_eq(all, 4u);
    cr_assert_eq(world_count(&w, 0, "t"), 4u);
    cr_assert_eq(store_recent(w.store, 0, at, (struct slice){0}, NULL, NULL, 8, msgs, &found, &next), ST_OK);
    cr_assert_eq(found, 1u);
    cr_assert_neq(msgs[0]->offset, at);
    msg_unref(msgs[0]);
    expect_note(at, "\x02 the note");
    world_close(&w);
    world_open(&w); /* by the index, and by a scan that makes it */
    cr_assert_eq(world_count(&w, 0, NULL), all);
    cr_assert_eq(world_count(&w, 0, "t"), all);
    expect_note(at, "\x02 the note");
    world_close(&w);
    world_deinit(&w);
}

/* A log of nothing but state does not write itself anew for ever. */
Test(retention, live_bytes_raise_the_limit)
{
    struct keeper k;
    static char text[16000];
    begin();
    world_open(&w);
    keeper_open(&k, &w);
    memset(text, 'x', sizeof text - 1);
    for (unsigned i = 0; i < 200; i++)
        keeper_put(&k, i, text, true); /* 32 x 16 KB = 512 KB, twice the limit */
    put_blocks(100);
    uint64_t deadline = world_now_ms() + 1000;
    while (world_now_ms() < deadline)
        world_turn(&w);
    unsigned carried = k.carried;
    deadline = world_now_ms() + 500;
    while (world_now_ms() < deadline)
        world_turn(&w);
    cr_assert_eq(k.carried, carried, "it has come to rest");
    for (unsigned i = 0; i < KEEPER_TOPICS; i++)
        cr_assert_not_null(k.msgs[i]);
    keeper_close(&k);
    world_deinit(&w);
}

/* --- faults --- */

/* The process dies at the n-th call that changes the disk; then a start. */
static void child_dies_at(struct faulty_files *faults, enum faulty_call call, long n, int pipe)
{
    struct keeper k;
    world_open(&w);
    keeper_open(&k, &w);
    faults->exit_at[call] = atomic_load(&faults->count[call]) + n;
    for (unsigned i = 0; i < 40; i++) {
        char text[32];
        snprintf(text, sizeof text, "text %u", i);
        uint64_t offset = keeper_put(&k, i % 4, text, true);
        put_blocks(20);
        world_wait_durable(&w, 0, offset + 1);
        if (write(pipe, &i, sizeof i) != (ssize_t)sizeof i)
            _exit(4);
    }
    /* The trims run behind: all that are due must have been made before this counts as a run without a crash.
     */
    while (store_first(w.store, 0) <= 450)
        world_turn(&w);
    _exit(0);
}

static unsigned dies_at(enum faulty_call call, long n)
{
    struct faulty_files faults;
    int acks[2], status;
    unsigned last = 0, got = 0;
    begin();
    faulty_files_init(&faults);
    w.options.files = &faults.port;
    cr_assert_eq(pipe(acks), 0);
    pid_t pid = fork();
    if (pid == 0)
        child_dies_at(&faults, call, n, acks[1]);
    close(acks[1]);
    for (unsigned i; read(acks[0], &i, sizeof i) == (ssize_t)sizeof i; got++)
        last = i;
    close(acks[0]);
    waitpid(pid, &status, 0);
    loop_destroy(w.loop); /* its descriptors were the child's too */
    cr_assert_eq(loop_create(clock_system(), 0, &w.loop), ST_OK);
    cr_assert(WIFEXITED(status), "call %d %ld: status %x", call, n, status);
    world_open(&w);
    struct keeper k;
    keeper_open(&k, &w);
    for (unsigned i = last >= 3 ? last - 3 : 0; got > 0 && i <= last; i++) {
        const struct msg *m = k.msgs[i % 4];
        cr_assert(m && m->payload_len > 5, "call %d %ld: topic %u is lost", call, n, i % 4);
        unsigned has = keeper_number(m, 5);
        cr_assert_geq(has, i, "call %d %ld: topic %u has an old text", call, n, i % 4);
    }
    world_count(&w, 0, NULL); /* dies on damage */
    unsigned segments, indexes;
    files_bytes(w.dir, &segments, &indexes);
    cr_assert_leq(indexes, segments, "no index is left over");
    keeper_close(&k);
    world_deinit(&w);
    return (unsigned)WEXITSTATUS(status);
}

Test(retention, a_crash_at_any_call_loses_nothing, .timeout = 120)
{
    unsigned all = 0;
    for (int call = 0; call < FAULTY_SPACE; call++) {
        unsigned crashes = 0;
        for (long n = 1; dies_at((enum faulty_call)call, n) != 0; n++)
            crashes++;
        cr_assert_gt(crashes, 4u, "call %d", call);
        all += crashes;
    }
    cr_log_info("%u crashes", all);
}

Test(retention, a_manifest_that_cannot_be_written_keeps_the_segments)
{
    struct faulty_files faults;
    begin();
    faulty_files_init(&faults);
    w.options.files = &faults.port;
    world_open(&w);
    store_trim(w.store, 0, 0);
    faults.fail_path = "MANIFEST";
    put_blocks(600);
    cr_assert_eq(store_first(w.store, 0), 0u);
    cr_assert_eq(world_count(&w, 0, "t"), 600u);
    faults.fail_path = NULL;
    wait_trimmed(); /* it was tried again */
    world_deinit(&w);
}

/* --- a full disk --- */

/* The n-th segment cannot be made, for a while. */
Test(retention, a_full_disk_refuses_publishes_and_recovers)
{
    struct faulty_files faults;
    begin();
    w.options.retention_bytes = 0;
    faulty_files_init(&faults);
    w.options.files = &faults.port;
    world_open(&w);
    put_blocks(10);
    faults.fail_errno = ENOSPC;
    faults.fail_on = true;
    faults.fail_at[FAULTY_ALLOCATE] = 1;
    unsigned taken = 10;
    uint64_t offset = 0, deadline = world_now_ms() + WORLD_DEADLINE_MS;
    enum status st = ST_OK;
    while (st == ST_OK) {
        cr_assert_lt(world_now_ms(), deadline);
        st = world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset);
        taken += st == ST_OK;
        store_flush(w.store, 0);
        world_turn(&w);
    }
    cr_assert_eq(st, ST_NO_SPACE);
    cr_assert_eq(metrics_sum(M_LOG_DISK_FULL), 1u);
    cr_assert_eq(world_count(&w, 0, "t"), taken, "reads go on");
    faults.fail_at[FAULTY_ALLOCATE] = 0;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset) != ST_OK) {
        cr_assert_lt(world_now_ms(), deadline, "it goes on when there is room");
        world_turn(&w);
    }
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, offset + 1);
    cr_assert_eq(metrics_sum(M_LOG_DISK_FULL), 0u);
    cr_assert_eq(world_count(&w, 0, "t"), taken + 1);
    world_close(&w);
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), taken + 1);
    world_deinit(&w);
}

/* Without a file made ahead: what was taken before the writer knew is durable later, or never acknowledged.
 */
static void stalls(bool recovers)
{
    struct faulty_files faults;
    uint64_t offset = 0, durable;
    begin();
    w.options.retention_bytes = 0;
    faulty_files_init(&faults);
    w.options.files = &faults.port;
    world_open(&w);
    faults.fail_errno = ENOSPC;
    faults.fail_on = true;
    faults.fail_at[FAULTY_ALLOCATE] = 1;
    unsigned taken = 0;
    for (unsigned i = 0; i < 150; i++) { /* more than two segments, mostly before the writer can look once */
        uint64_t next = 0;
        enum status st = world_append(&w, 0, "t", slice_of(block, sizeof block), true, &next);
        cr_assert(st == ST_OK || st == ST_NO_SPACE, "%s", status_name(st));
        offset = st == ST_OK ? next : offset;
        taken += st == ST_OK;
    }
    store_flush(w.store, 0);
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS, next = 0;
    while (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &next) != ST_NO_SPACE) {
        cr_assert_lt(world_now_ms(), deadline);
        offset = next;
        taken++;
        store_flush(w.store, 0);
        world_turn(&w);
    }
    durable = store_durable(w.store, 0);
    cr_assert_eq(world_count(&w, 0, "t"), taken, "reads go on, also of what is only in memory");
    if (recovers) {
        faults.fail_at[FAULTY_ALLOCATE] = 0;
        world_wait_durable(&w, 0, offset + 1);
    }
    world_close(&w);
    faults.fail_at[FAULTY_ALLOCATE] = 0;
    loop_dispatch(w.loop);
    world_open(&w);
    uint64_t kept = world_count(&w, 0, "t");
    cr_assert_gt(store_next(w.store, 0), offset, "no offset comes twice");
    if (recovers)
        cr_assert_eq(kept, taken);
    else
        cr_assert_geq(kept, durable - 1);
    world_deinit(&w);
}

Test(retention, what_was_taken_when_the_disk_was_full_becomes_durable_when_there_is_room)
{
    stalls(true);
}

Test(retention, a_stop_on_a_full_disk_is_no_clean_stop)
{
    stalls(false);
}
