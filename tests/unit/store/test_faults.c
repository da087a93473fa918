/* A disk that refuses: what was acknowledged stays, and the process says why and ends with 75. */
#include "fakes/faulty_files.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/wait.h>

static struct world w;
static struct faulty_files faults;

static void begin(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    faulty_files_init(&faults);
    w.options.files = &faults.port;
}

/* Appends 1,000 byte records one by one, each waited for, for ever; tells the pipe what is durable. */
static void child_run(int pipe, enum faulty_call call, int error)
{
    static uint8_t block[1000];
    world_open(&w);
    faults.fail_errno = error;
    faults.fail_on = true;
    faults.fail_at[call] = atomic_load(&faults.count[call]) + 1;
    for (int i = 0; i < 1000; i++) {
        uint64_t offset;
        if (world_append(&w, 0, "t", slice_of(block, sizeof block), true, &offset) != ST_OK)
            _exit(3);
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, offset + 1);
        if (write(pipe, &offset, sizeof offset) != (ssize_t)sizeof offset)
            _exit(4);
    }
    _exit(0);
}

struct row {
    const char *name;
    enum faulty_call call;
    int error;
    const char *say; /* in the line */
};

static const struct row rows[] = {
    {"write error", FAULTY_PWRITEV, EIO, "Input/output error"},
    {"disk full in a write", FAULTY_PWRITEV, ENOSPC, "make room on this disk"},
    {"sync error", FAULTY_DATASYNC, EIO, "sync the log"},
    {"a new segment that cannot be made", FAULTY_ALLOCATE, EIO, "make a log segment"},
    {"no new file", FAULTY_OPEN, EMFILE, "00.seg"},
    {"a segment that cannot be cut", FAULTY_TRUNCATE, EIO, "cut a log segment"},
};

static void end_of_child(const struct row *row, pid_t pid, int acks, int lines, uint64_t *last,
                         unsigned *acked)
{
    int status;
    uint64_t offset;
    char text[4096];
    size_t len = 0;
    *acked = 0;
    while (read(acks, &offset, sizeof offset) == (ssize_t)sizeof offset) {
        *last = offset;
        (*acked)++;
    }
    for (ssize_t n; (n = read(lines, text + len, sizeof text - 1 - len)) > 0;)
        len += (size_t)n;
    text[len] = '\0';
    waitpid(pid, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 75, "%s: status %x: %s", row->name, status, text);
    if (row->call != FAULTY_OPEN)
        cr_assert(strstr(text, row->say), "%s: %s", row->name, text);
    cr_assert(strstr(text, w.dir), "%s: says where: %s", row->name, text);
}

static void fails_with(const struct row *row)
{
    int acks[2], lines[2];
    uint64_t last = 0;
    unsigned acked;
    begin();
    cr_assert_eq(pipe(acks), 0);
    cr_assert_eq(pipe(lines), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(lines[1], STDERR_FILENO);
        close(lines[1]);
        child_run(acks[1], row->call, row->error);
    }
    close(acks[1]);
    close(lines[1]);
    end_of_child(row, pid, acks[0], lines[0], &last, &acked);
    close(acks[0]);
    close(lines[0]);
    faults.fail_on = false;
    memset(faults.fail_at, 0, sizeof faults.fail_at);
    world_open(&w);
    cr_assert_geq(world_count(&w, 0, "t"), acked, "%s", row->name);
    cr_assert_gt(store_next(w.store, 0), last + 1);
    world_deinit(&w);
}

Test(faults, any_write_or_sync_error_ends_the_process_with_75)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fails_with(&rows[i]);
}

Test(faults, short_writes_are_finished)
{
    begin();
    faults.write_bytes_max = 13;
    world_open(&w);
    for (int i = 0; i < 1000; i++) {
        world_put(&w, 0, "t", "some text that takes several writes of 13 bytes each");
        if (i % 10 == 9)
            store_flush(w.store, 0);
    }
    world_wait_durable(&w, 0, store_next(w.store, 0));
    world_close(&w);
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), 1000);
    world_deinit(&w);
}

/* In order or by topic: pages of all there is. `status` of the first that is not ST_OK. */
static uint64_t read_pages(const char *topic, enum status *status)
{
    uint64_t found = 0, end = store_next(w.store, 0);
    *status = ST_OK;
    for (uint64_t next = 0; next < end && *status == ST_OK;) {
        struct world_read r;
        world_read_init(&r, 0, next);
        r.read.count_max = 50;
        if (topic)
            r.read.topic = slice_cstr(topic);
        world_read_run(&w, &r);
        *status = r.read.status;
        found += r.read.found;
        next = r.read.next;
        world_read_free(&r);
    }
    return found;
}

static void begin_with_files(void)
{
    begin();
    world_open(&w);
    for (int i = 0; i < 1500; i++) {
        world_put(&w, 0, i % 3 ? "t" : "u", "sixty bytes of text or so, that make some segments of 64 KiB");
        if (i % 10 == 9)
            store_flush(w.store, 0);
    }
    world_wait_durable(&w, 0, store_next(w.store, 0));
    world_close(&w);
    world_open(&w);
}

/* What the disk cannot read is answered as damaged and never left out; when it can again it is there. */
Test(faults, a_read_error_is_an_answer)
{
    static const char *const topics[] = {NULL, "t"};
    enum status st;
    begin_with_files();
    for (int i = 0; i < 2; i++) {
        uint64_t whole = i ? 1000 : 1500;
        faults.fail_on = true;
        faults.fail_at[FAULTY_PREAD] = atomic_load(&faults.count[FAULTY_PREAD]) + 1;
        cr_assert_eq(read_pages(topics[i], &st), 0);
        cr_assert_eq(st, ST_CORRUPT, "%s", status_name(st));
        faults.fail_at[FAULTY_PREAD] = 0;
        cr_assert_eq(read_pages(topics[i], &st), whole);
        cr_assert_eq(st, ST_OK);
        faults.fail_on = false; /* once, somewhere in the middle */
        faults.fail_at[FAULTY_PREAD] = atomic_load(&faults.count[FAULTY_PREAD]) + 2;
        uint64_t found = read_pages(topics[i], &st);
        cr_assert(st == ST_OK ? found == whole : st == ST_CORRUPT && found < whole, "%s: %lu",
                  status_name(st), (unsigned long)found);
        faults.fail_at[FAULTY_PREAD] = 0;
    }
    world_deinit(&w);
}

Test(faults, short_reads_are_finished)
{
    enum status st;
    begin_with_files();
    world_close(&w);
    faults.read_bytes_max = 77;
    world_open(&w);
    cr_assert_eq(read_pages(NULL, &st), 1500);
    cr_assert_eq(read_pages("u", &st), 500);
    world_deinit(&w);
}

/* A file that cannot be made ahead is made when it is needed. */
Test(faults, one_failed_allocation_ahead_is_only_a_warning)
{
    static uint8_t block[1000];
    begin();
    world_open(&w);
    faults.fail_errno = ENOSPC;
    faults.fail_at[FAULTY_ALLOCATE] = atomic_load(&faults.count[FAULTY_ALLOCATE]) + 1;
    for (int i = 0; i < 200; i++) {
        enum status st;
        while ((st = world_append(&w, 0, "t", slice_of(block, sizeof block), true, NULL)) == ST_NO_SPACE)
            world_turn(&w); /* for the tenth of a second until it is tried again */
        cr_assert_eq(st, ST_OK);
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, store_next(w.store, 0));
    }
    cr_assert_eq(world_count(&w, 0, "t"), 200);
    world_deinit(&w);
}

/* An index that cannot be written stays in memory and is made at the next start. */
Test(faults, an_index_that_cannot_be_written_loses_nothing)
{
    static uint8_t block[1000];
    begin();
    world_open(&w);
    faults.fail_errno = EROFS;
    faults.fail_on = true;
    faults.fail_at[FAULTY_SYNC] = 0;
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(world_append(&w, 0, i % 2 ? "odd" : "even", slice_of(block, sizeof block), false, NULL),
                     ST_OK);
        store_flush(w.store, 0);
    }
    world_put(&w, 0, "odd", "last");
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    faults.fail_at[FAULTY_RENAME] = 1; /* from now on: no .idx.tmp gets its name */
    cr_assert_eq(world_count(&w, 0, "odd"), 101);
    world_close(&w); /* also without a clean-stop mark: the MANIFEST cannot be replaced */
    faults.fail_at[FAULTY_RENAME] = 0;
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "odd"), 101);
    cr_assert_eq(world_count(&w, 0, "even"), 100);
    cr_assert_geq(store_next(w.store, 0), STORE_OFFSET_JUMP, "that stop was not clean");
    world_deinit(&w);
}

/* A start that fails half way leaves a folder that a later start can use. */
Test(faults, every_call_of_a_start_may_fail)
{
    unsigned refused = 0;
    char dir[256];
    begin();
    world_open(&w);
    for (int i = 0; i < 1500; i++) {
        world_put(&w, 0, "t", "sixty bytes of text or so, that make some segments of 64 KiB");
        if (i % 10 == 9)
            store_flush(w.store, 0);
    }
    world_wait_durable(&w, 0, store_next(w.store, 0));
    world_crash_copy(&w, dir);
    world_close(&w);
    w.options.dir = dir;
    for (int call = 0; call < FAULTY_CALLS; call++) {
        for (long n = 1;; n++) {
            faults.fail_errno = n % 2 ? EIO : ENOSPC;
            faults.fail_at[call] = atomic_load(&faults.count[call]) + n;
            long before = atomic_load(&faults.count[call]);
            enum status st = world_try_open(&w);
            bool reached = atomic_load(&faults.count[call]) - before >= n;
            faults.fail_at[call] = 0;
            if (st == ST_OK) { /* not reached, or one that can be done without */
                cr_assert_eq(world_count(&w, 0, "t"), 1500, "call %d number %ld", call, n);
                world_close(&w);
            } else {
                cr_assert(st == ST_IO || st == ST_NO_SPACE, "call %d number %ld: %s", call, n,
                          status_name(st));
                cr_assert(memmem(w.error.data, w.error.len, dir, strlen(dir)), "%.*s", (int)w.error.len,
                          w.error.data);
                w.store = NULL;
                refused++;
            }
            if (!reached)
                break;
        }
    }
    cr_assert_gt(refused, 10, "%u", refused);
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), 1500);
    world_close(&w);
    world_remove(dir);
    w.store = NULL;
    w.options.dir = w.dir;
    world_open(&w);
    world_deinit(&w);
}

/* --- a start on a full disk --- */

static const char start_text[] = "sixty bytes of text or so, that make some segments of 64 KiB";
static const enum faulty_call growing[] = {FAULTY_PWRITEV, FAULTY_TRUNCATE, FAULTY_ALLOCATE, FAULTY_RENAME};
enum { GROWING = sizeof growing / sizeof *growing, FRAME_RECORDS = 10, START_RECORDS = 1500 };

/* The last byte of what was written to the newest segment turns round: of a frame that nothing vouches for.
 */
static void tear_end(const char *dir)
{
    char command[600], path[300];
    snprintf(command, sizeof command, "ls %s/0/*.seg | tail -1", dir);
    FILE *names = popen(command, "r");
    cr_assert(names && fscanf(names, "%299s", path) == 1);
    pclose(names);
    int fd = open(path, O_RDWR);
    off_t at = lseek(fd, 0, SEEK_END);
    uint8_t byte = 0;
    while (byte == 0 && at > 0)
        cr_assert_eq(pread(fd, &byte, 1, --at), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* A log that was killed, in a folder of its own: w.options.dir. */
static void begin_killed(char dir[256])
{
    begin();
    w.options.ballast_bytes = 0;
    world_open(&w);
    for (int i = 0; i < START_RECORDS + FRAME_RECORDS; i++) {
        world_put(&w, 0, "t", start_text);
        if (i % FRAME_RECORDS == FRAME_RECORDS - 1)
            store_flush(w.store, 0);
    }
    world_wait_durable(&w, 0, store_next(w.store, 0));
    world_crash_copy(&w, dir);
    world_close(&w);
    tear_end(dir);
    w.options.dir = dir;
}

static void end_killed(const char *dir)
{
    world_close(&w);
    world_remove(dir);
    w.store = NULL;
    w.options.dir = w.dir;
    world_open(&w);
    world_deinit(&w);
}

/* These calls find no room, from the first on; ~0: none of them. */
static void fill_disk(unsigned which)
{
    faults.fail_errno = ENOSPC;
    faults.fail_on = true;
    for (unsigned i = 0; i < GROWING; i++)
        faults.fail_at[growing[i]] = which & 1u << i ? 1 : 0;
}

static void put_when_there_is_room(void)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (world_append(&w, 0, "t", slice_cstr(start_text), true, NULL) != ST_OK) {
        cr_assert_lt(world_now_ms(), deadline);
        world_turn(&w);
    }
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
}

/* Whatever of what a start writes finds no room: it serves what there is, refuses, and goes on by itself. */
Test(faults, a_start_on_a_full_disk_reads_refuses_and_goes_on)
{
    for (unsigned which = 1; which < 1u << GROWING; which++) {
        char dir[256];
        begin_killed(dir);
        fill_disk(which);
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, "t"), START_RECORDS, "%x", which);
        if (which & 1u << 2 || which & 1) { /* no file for START, or no MANIFEST */
            cr_assert(store_is_full(w.store), "%x", which);
            cr_assert_eq(world_append(&w, 0, "t", slice_cstr(start_text), true, NULL), ST_NO_SPACE);
        }
        fill_disk(0);
        put_when_there_is_room();
        cr_assert_not(store_is_full(w.store), "%x", which);
        world_close(&w);
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, "t"), START_RECORDS + 1, "%x: nor is what was torn taken for rot",
                     which);
        end_killed(dir);
    }
}

/* Nothing has been written by then, so nothing may be said to have been. */
Test(faults, a_start_on_a_full_disk_may_end_again)
{
    char dir[256];
    begin_killed(dir);
    for (int round = 0; round < 3; round++) {
        fill_disk(~0u);
        world_open(&w);
        cr_assert_eq(world_count(&w, 0, "t"), START_RECORDS);
        cr_assert(store_is_full(w.store));
        if (round == 1) { /* as a kill does */
            char command[1200];
            snprintf(command, sizeof command, "cp -r %s %s.copy", dir, dir);
            cr_assert_eq(system(command), 0);
            world_close(&w);
            world_remove(dir);
            snprintf(command, sizeof command, "mv %s.copy %s", dir, dir);
            cr_assert_eq(system(command), 0);
        } else {
            world_close(&w);
        }
    }
    fill_disk(0);
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), START_RECORDS);
    put_when_there_is_room();
    world_close(&w);
    world_open(&w);
    cr_assert_eq(world_count(&w, 0, "t"), START_RECORDS + 1);
    end_killed(dir);
}
