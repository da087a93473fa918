/* What the store costs: bench_store [folder] [rounds]
 *
 *   append   CPU of the loop for one record of 160 bytes (topic and payload), nobody waiting
 *   commit   records a second with 256 waiting, against a bare loop that copies as many bytes, pwrites and
 * fdatasyncs into a preallocated file; in turns of a quarter of a second, median of each figure and of the
 * pairs' ratios scan     start-up's verifying walk with index, bytes a second topic    reads of one topic's
 * records by the index */
#include "fakes/store_world.h"

#include <fcntl.h>

enum {
    WAITING = 256,
    TOPICS = 1000,
    PAYLOAD_BYTES = 140,
    ROUNDS_MAX = 99,
    APPENDS = 400000,
    BARE_RECORD = 200,
    TURN_NS = 250000000
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static uint64_t cpu_ns(clockid_t whose)
{
    struct timespec t;
    clock_gettime(whose, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static struct msg *messages[TOPICS];

static void make_messages(void)
{
    static const uint8_t payload[PAYLOAD_BYTES] = "a reading of some sensor";
    for (unsigned i = 0; i < TOPICS; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "plant/%04u/pressure", i);
        if (msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0},
                       slice_of(payload, sizeof payload), &messages[i]) != ST_OK)
            world_die("no memory");
    }
}

static void append(struct world *w, unsigned i, bool wait)
{
    if (store_append(w->store, 0, messages[i % TOPICS], wait) != ST_OK)
        world_die("append refused");
}

static void bench_append(struct world *w)
{
    double costs[9];
    for (unsigned round = 0; round < 9; round++) {
        uint64_t begun = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
        for (unsigned i = 0; i < APPENDS; i++) {
            append(w, i, false);
            if (i % 64 == 63)
                store_flush(w->store, 0);
        }
        costs[round] = (double)(cpu_ns(CLOCK_THREAD_CPUTIME_ID) - begun) / APPENDS;
        append(w, 0, true);
        store_flush(w->store, 0);
        world_wait_durable(w, 0, store_next(w->store, 0));
    }
    printf("append   %.0f ns of the loop's CPU a record\n", median(costs, 9));
}

/* Records a second in one turn. */
static double commit_store(struct world *w, double *cpu)
{
    uint64_t cpu_begun = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t begun = now_ns(), first = store_next(w->store, 0);
    while (now_ns() - begun < TURN_NS) {
        uint64_t waiting = store_next(w->store, 0) - store_durable(w->store, 0);
        for (unsigned i = (unsigned)waiting; i < WAITING; i++)
            append(w, i, true);
        store_flush(w->store, 0);
        world_turn(w);
    }
    *cpu =
        (double)(cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_begun) / (double)(store_durable(w->store, 0) - first);
    return (double)(store_durable(w->store, 0) - first) / ((double)(now_ns() - begun) / 1e9);
}

static double commit_bare(int fd, off_t *at, double *cpu)
{
    static uint8_t from[BARE_RECORD], batch[WAITING * BARE_RECORD];
    uint64_t begun = now_ns(), cpu_begun = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), records = 0;
    while (now_ns() - begun < TURN_NS) {
        for (unsigned i = 0; i < WAITING; i++)
            memcpy(batch + i * BARE_RECORD, from, BARE_RECORD);
        /* Always into blocks that have never been written, as an append: overwriting would be a different
         * disk. */
        if (*at + (off_t)sizeof batch > 256 << 20) {
            if (ftruncate(fd, 0) < 0 || posix_fallocate(fd, 0, 256 << 20) != 0)
                world_die("no file");
            *at = 0;
        }
        if (pwrite(fd, batch, sizeof batch, *at) != (ssize_t)sizeof batch || fdatasync(fd) < 0)
            world_die("cannot write");
        *at += (off_t)sizeof batch;
        records += WAITING;
    }
    *cpu = (double)(cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_begun) / (double)records;
    return (double)records / ((double)(now_ns() - begun) / 1e9);
}

static void bench_commit(struct world *w, unsigned rounds)
{
    double store[ROUNDS_MAX], bare[ROUNDS_MAX], ratio[ROUNDS_MAX];
    double store_cpu[ROUNDS_MAX], bare_cpu[ROUNDS_MAX];
    char path[300];
    off_t at = 0;
    snprintf(path, sizeof path, "%s/bare", w->dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, 256 << 20) != 0 || fsync(fd) < 0)
        world_die("no file");
    for (unsigned i = 0; i < rounds; i++) {
        /* Each goes first in turn: the disk remembers what was before. */
        if (i % 2 == 0)
            bare[i] = commit_bare(fd, &at, &bare_cpu[i]);
        store[i] = commit_store(w, &store_cpu[i]);
        if (i % 2 == 1)
            bare[i] = commit_bare(fd, &at, &bare_cpu[i]);
        ratio[i] = store[i] / bare[i];
    }
    close(fd);
    printf("commit   store %.0f/s (%.0f ns of CPU a record)  bare %.0f/s (%.0f ns)  ratio %.2f  (%u waiting, "
           "%u pairs)\n",
           median(store, rounds), median(store_cpu, rounds), median(bare, rounds), median(bare_cpu, rounds),
           median(ratio, rounds), WAITING, rounds);
}

static void bench_topic(struct world *w)
{
    struct world_read r;
    uint64_t begun = now_ns(), found = 0, from = store_first(w->store, 0);
    for (;;) {
        world_read_init(&r, 0, from);
        r.read.topic = msg_topic(messages[7]);
        world_read_run(w, &r);
        from = r.read.next;
        found += r.read.found;
        bool all = from >= r.read.end;
        world_read_free(&r);
        if (all)
            break;
    }
    printf("topic    %.0f records/s by the index (%lu records, from the page cache)\n",
           (double)found / ((double)(now_ns() - begun) / 1e9), found);
}

/* The time of a start with its only large segment's index gone. */
static void bench_scan(struct world *w)
{
    char path[300], largest[300] = "";
    off_t bytes = 0;
    world_close(w);
    snprintf(path, sizeof path, "%s/0", w->dir);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char file[700];
        struct stat st;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (strstr(e->d_name, ".seg") && stat(file, &st) == 0 && st.st_size > bytes) {
            bytes = st.st_size;
            snprintf(largest, sizeof largest, "%.*s.idx", (int)(strlen(file) - 4), file);
        }
    }
    closedir(dir);
    uint64_t begun = now_ns();
    world_open(w);
    uint64_t without = now_ns() - begun;
    world_close(w);
    unlink(largest);
    begun = now_ns();
    world_open(w);
    uint64_t with = now_ns() - begun;
    printf("scan     %.2f GB/s (%ld MB in %.0f ms)\n", (double)bytes / (double)(with - without), bytes >> 20,
           (double)(with - without) / 1e6);
}

int main(int argc, char **argv)
{
    struct world w;
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 21;
    if (argc > 1)
        setenv("TMPDIR", argv[1], 1);
    if (rounds < 1 || rounds > ROUNDS_MAX)
        rounds = 21;
    world_init(&w, 1);
    w.options.segment_bytes = 256 << 20;
    w.options.unsynced_bytes_max = 256 << 20;
    world_open(&w);
    make_messages();
    bench_append(&w);
    bench_commit(&w, rounds);
    bench_topic(&w);
    bench_scan(&w);
    for (unsigned i = 0; i < TOPICS; i++)
        msg_unref(messages[i]);
    world_deinit(&w);
    return 0;
}
