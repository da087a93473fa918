/* The log beside bare system calls: bench_log FOLDER [commit|reads|scan|topics]...   (all of them)
 *
 * commit: records a second with 1, 16, 256 and 1,024 waiting, beside a bare writer that copies as many bytes
 * and does nothing but pwrite and fdatasync, into blocks that were only allocated and into written ones;
 * turns of a quarter of a second within one run, medians.
 *
 * reads: single records at random and pages in order, beside bare preads of as many bytes, from the page
 * cache.
 *
 * scan: a start that must read everything (indexes lost), beside two bare scans of the same files: one that
 * walks over the records, verifies each and keeps nothing, and one that only reads the bytes and takes their
 * CRC, a mebibyte at a time, without looking for records.
 *
 * topics: 10 million records of a million topics: what the process takes, how long a look-up and a start are.
 *
 * Release preset. Needs about 3 GB in FOLDER. */
#include "core/crc32c.h"
#include "core/store/scan.h"
#include "core/store/segment.h"
#include "fakes/store_world.h"

#include <fcntl.h>

enum {
    PAYLOAD_BYTES = 140,
    STORED_BYTES = 200, /* of such a record with its topic */
    FRAME_BYTES = 72,
    TURN_NS = 250000000,
    ROUNDS = 11,
    BARE_FILE_BYTES = 128 << 20,
    READ_RECORDS = 1000000,
    READ_TOPICS = 1000,
    READS = 100000,
    READS_OPEN = 64,
    PAGE = 1000,
    MANY_TOPICS = 1000000,
    MANY_RECORDS = 10000000,
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static double seconds_since(uint64_t begun_ns)
{
    return (double)(now_ns() - begun_ns) / 1e9;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
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

static void begin(struct world *w)
{
    world_init(w, 1);
    w->options.segment_bytes = 256 << 20;
    w->options.unsynced_bytes_max = 256 << 20;
    w->options.recovery_threads = 0;
    w->options.unindexed_bytes_max = 64 << 20; /* the default */
    world_open(w);
}

static void put(struct world *w, unsigned topic, bool wait)
{
    static const uint8_t payload[PAYLOAD_BYTES] = "a reading of some sensor";
    char name[32];
    snprintf(name, sizeof name, "plant/%07u/press", topic);
    enum status st;
    while ((st = world_append(w, 0, name, slice_of(payload, sizeof payload), wait, NULL)) == ST_FULL) {
        store_flush(w->store, 0);
        world_turn(w);
    }
    if (st != ST_OK)
        world_die("append refused");
}

/* --- commit --- */

static double commit_store(struct world *w, unsigned waiting, double *cpu)
{
    uint64_t begun = now_ns(), cpu_begun = cpu_ns(), first = store_durable(w->store, 0);
    while (now_ns() - begun < TURN_NS) {
        unsigned open = (unsigned)(store_next(w->store, 0) - store_durable(w->store, 0));
        for (unsigned i = open; i < waiting; i++)
            put(w, i, true);
        store_flush(w->store, 0);
        world_turn(w);
    }
    double done = (double)(store_durable(w->store, 0) - first);
    *cpu = (double)(cpu_ns() - cpu_begun) / done;
    return done / seconds_since(begun);
}

struct bare {
    int fd;
    off_t at;
    bool written; /* its blocks are */
};

static void bare_open(struct bare *b, const char *dir, bool written)
{
    static uint8_t zeros[1 << 20];
    char path[300];
    snprintf(path, sizeof path, "%s/bare-%d", dir, written);
    *b = (struct bare){.fd = open(path, O_RDWR | O_CREAT, 0600), .written = written};
    if (b->fd < 0 || posix_fallocate(b->fd, 0, BARE_FILE_BYTES) != 0)
        world_die("no file");
    for (off_t at = 0; written && at < BARE_FILE_BYTES; at += (off_t)sizeof zeros)
        if (pwrite(b->fd, zeros, sizeof zeros, at) < 0)
            world_die("cannot write");
    if (fsync(b->fd) < 0)
        world_die("cannot sync");
}

static double commit_bare(struct bare *b, unsigned waiting, double *cpu)
{
    static uint8_t from[STORED_BYTES], batch[FRAME_BYTES + 1024 * STORED_BYTES];
    size_t bytes = FRAME_BYTES + (size_t)waiting * STORED_BYTES;
    uint64_t begun = now_ns(), cpu_begun = cpu_ns(), done = 0;
    while (now_ns() - begun < TURN_NS) {
        for (unsigned i = 0; i < waiting; i++)
            memcpy(batch + FRAME_BYTES + (size_t)i * STORED_BYTES, from, STORED_BYTES);
        if (b->at + (off_t)bytes > BARE_FILE_BYTES) {
            if (!b->written && (ftruncate(b->fd, 0) < 0 || posix_fallocate(b->fd, 0, BARE_FILE_BYTES) != 0))
                world_die("no file");
            b->at = 0;
        }
        if (pwrite(b->fd, batch, bytes, b->at) != (ssize_t)bytes || fdatasync(b->fd) < 0)
            world_die("cannot write");
        b->at += (off_t)bytes;
        done += waiting;
    }
    *cpu = (double)(cpu_ns() - cpu_begun) / (double)done;
    return (double)done / seconds_since(begun);
}

static void bench_commit(void)
{
    static const unsigned counts[] = {1, 16, 256, 1024};
    struct world w;
    struct bare bares[2];
    begin(&w);
    bare_open(&bares[0], w.dir, false);
    bare_open(&bares[1], w.dir, true);
    printf("commit   waiting      store/s  CPU ns   bare, allocated/s  ratio   bare, written/s  ratio  CPU "
           "ns\n");
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        double rate[3][ROUNDS], cpu[3][ROUNDS], ratio[2][ROUNDS];
        for (unsigned i = 0; i < ROUNDS; i++) {
            for (unsigned k = 0; k < 3;
                 k++) { /* each goes first in turn: the disk remembers what was before */
                unsigned who = (i + k) % 3;
                rate[who][i] = who == 0 ? commit_store(&w, counts[c], &cpu[0][i])
                                        : commit_bare(&bares[who - 1], counts[c], &cpu[who][i]);
            }
            ratio[0][i] = rate[0][i] / rate[1][i];
            ratio[1][i] = rate[0][i] / rate[2][i];
        }
        printf("         %7u  %11.0f  %6.0f  %17.0f  %5.2f  %16.0f  %5.2f  %6.0f\n", counts[c],
               median(rate[0], ROUNDS), median(cpu[0], ROUNDS), median(rate[1], ROUNDS),
               median(ratio[0], ROUNDS), median(rate[2], ROUNDS), median(ratio[1], ROUNDS),
               median(cpu[2], ROUNDS));
    }
    close(bares[0].fd);
    close(bares[1].fd);
    world_deinit(&w);
}

/* --- files --- */

/* Bytes of all files with this suffix; `use` is called for each. */
static uint64_t each_file(const struct world *w, const char *suffix, void (*use)(const char *path))
{
    char folder[300];
    uint64_t bytes = 0;
    snprintf(folder, sizeof folder, "%s/0", w->dir);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[700];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (!strstr(e->d_name, suffix) || stat(path, &st) < 0)
            continue;
        bytes += (uint64_t)st.st_size;
        if (use)
            use(path);
    }
    closedir(dir);
    return bytes;
}

static uint32_t crc_of_all;

static void read_and_crc(const char *path)
{
    static uint8_t window[1 << 20];
    int fd = open(path, O_RDONLY);
    for (ssize_t n; (n = read(fd, window, sizeof window)) > 0;)
        crc_of_all ^= crc32c(0, window, (size_t)n);
    close(fd);
}

static uint64_t walked; /* records */

static void walk_over(const char *path)
{
    uint8_t head[sizeof(struct segment_header)];
    struct segment_header h;
    struct stat st;
    struct scan scan;
    struct source source;
    int fd = open(path, O_RDONLY);
    if (fstat(fd, &st) == 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
        segment_header_decode(head, &h) == ST_OK) {
        source_init(&source);
        source_open(&source, fd, (uint64_t)st.st_size, NULL, NULL);
        scan_init(&scan, &source, h.segment_epoch, h.base_offset, sizeof head, h.base_offset);
        scan.reused = h.life > 0;
        for (enum scan_event e; (e = scan_next(&scan)) != SCAN_END;)
            walked += e == SCAN_RECORD;
        source_deinit(&source);
    }
    close(fd);
}

static void remove_one(const char *path)
{
    unlink(path);
}

static void fill(struct world *w, unsigned records, unsigned topics)
{
    uint32_t x = 1;
    for (unsigned i = 0; i < records; i++) {
        x = x * 1664525u + 1013904223u;
        bool wait = i % 32768 == 32767; /* else the disk would be told of it only after a second */
        put(w, (uint32_t)((uint64_t)x * topics >> 32), wait);
        if (i % 64 == 63)
            store_flush(w->store, 0);
        if (wait && i > 65536)
            world_wait_durable(w, 0, store_next(w->store, 0) - 65536);
    }
    put(w, 0, true);
    store_flush(w->store, 0);
    world_wait_durable(w, 0, store_next(w->store, 0));
}

/* --- reads --- */

struct many {
    struct store_read read;
    unsigned *open;
};

static void on_many(struct store_read *r)
{
    struct many *m = (struct many *)(void *)r;
    for (uint64_t i = 0; i < r->found; i++)
        msg_unref(r->msgs[i]);
    free(r->msgs);
    r->msgs = NULL;
    --*m->open;
}

static void random_reads(struct world *w)
{
    static struct many many[READS_OPEN];
    static char names[READS_OPEN][32];
    unsigned open = 0, left = READS;
    uint32_t x = 7;
    uint64_t begun = now_ns();
    while (left > 0 || open > 0) {
        if (open == 0)
            for (unsigned i = 0; i < READS_OPEN && left > 0; i++, left--, open++) {
                x = x * 1664525u + 1013904223u;
                snprintf(names[i], sizeof names[i], "plant/%07u/press", x % READ_TOPICS);
                many[i] = (struct many){.read = {.from = 1 + (uint64_t)x * (READ_RECORDS - 1) / UINT32_MAX,
                                                 .to = UINT64_MAX,
                                                 .topic = slice_of(names[i], strlen(names[i])),
                                                 .count_max = 1,
                                                 .bytes_max = 1 << 20,
                                                 .home = w->loop,
                                                 .on_done = on_many},
                                        .open = &open};
                store_read_start(w->store, &many[i].read);
            }
        world_turn(w);
    }
    double store = READS / seconds_since(begun);
    printf("reads    %.0f records/s of a topic at a random place, %d in flight;", store, READS_OPEN);
}

static void bare_random_reads(const char *path)
{
    uint8_t bytes[STORED_BYTES];
    struct stat st;
    uint32_t x = 7;
    int fd = open(path, O_RDONLY);
    if (fstat(fd, &st) < 0 || st.st_size < 1 << 20)
        return;
    uint64_t begun = now_ns();
    for (unsigned i = 0; i < READS; i++) {
        x = x * 1664525u + 1013904223u;
        if (pread(fd, bytes, sizeof bytes, (off_t)((uint64_t)x * ((uint64_t)st.st_size - 4096) >> 32)) < 0)
            world_die("pread");
    }
    printf(" bare pread %.0f/s\n", READS / seconds_since(begun));
    close(fd);
}

static void ordered_reads(struct world *w)
{
    uint64_t from = 0, bytes = 0, found = 0, begun = now_ns();
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        r.read.count_max = PAGE;
        world_read_run(w, &r);
        for (uint64_t i = 0; i < r.read.found; i++)
            bytes += r.read.msgs[i]->payload_len;
        found += r.read.found;
        from = r.read.next;
        bool all = store_read_complete(&r.read);
        world_read_free(&r);
        if (all)
            break;
    }
    double seconds = seconds_since(begun);
    printf("         %.0f records/s in order, pages of %d: %.0f MB/s of the files;", (double)found / seconds,
           PAGE, (double)found * STORED_BYTES / 1e6 / seconds);
}

static void bench_reads(void)
{
    struct world w;
    begin(&w);
    fill(&w, READ_RECORDS, READ_TOPICS);
    world_close(&w);
    world_open(&w);
    random_reads(&w);
    each_file(&w, ".seg", bare_random_reads);
    ordered_reads(&w);
    world_close(&w);
    uint64_t begun = now_ns(), bytes = each_file(&w, ".seg", read_and_crc);
    printf(" bare read and CRC %.0f MB/s\n", (double)bytes / 1e6 / seconds_since(begun));
    printf("bytes    %.3f written for each byte of payload (%d B each), .idx included: %.3f\n",
           (double)bytes / READ_RECORDS / PAYLOAD_BYTES, PAYLOAD_BYTES,
           (double)(bytes + each_file(&w, ".idx", NULL)) / READ_RECORDS / PAYLOAD_BYTES);
    world_deinit(&w);
}

/* --- scan --- */

static double open_seconds(struct world *w)
{
    uint64_t begun = now_ns();
    world_open(w);
    return seconds_since(begun);
}

/* A start without indexes less one with them, beside the bare scans of the same files: `rounds` in turn. */
static void rebuilds(struct world *w, const char *name, unsigned rounds)
{
    double one[ROUNDS], all[ROUNDS], bare[ROUNDS], clean[ROUNDS], one_ratio[ROUNDS], all_ratio[ROUNDS];
    double cpu_ratio[ROUNDS], walk[ROUNDS], walk_one_ratio[ROUNDS], walk_all_ratio[ROUNDS],
        walk_cpu_ratio[ROUNDS];
    uint64_t bytes = 0;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t begun = now_ns(), begun_cpu = cpu_ns(), bare_cpu, walk_cpu, clean_cpu;
        bytes = each_file(w, ".seg", read_and_crc);
        bare[i] = seconds_since(begun);
        bare_cpu = cpu_ns() - begun_cpu;
        begun = now_ns();
        begun_cpu = cpu_ns();
        each_file(w, ".seg", walk_over);
        walk[i] = seconds_since(begun);
        walk_cpu = cpu_ns() - begun_cpu;
        begun_cpu = cpu_ns();
        clean[i] = open_seconds(w);
        clean_cpu = cpu_ns() - begun_cpu;
        world_close(w);
        for (unsigned threads = 0; threads < 2; threads++) { /* 0: as many as there are CPUs */
            each_file(w, ".idx", remove_one);
            w->options.recovery_threads = threads;
            begun_cpu = cpu_ns();
            (threads ? one : all)[i] = open_seconds(w) - clean[i];
            double cpu = (double)(cpu_ns() - begun_cpu - clean_cpu);
            cpu_ratio[i] = (double)bare_cpu / cpu; /* of one thread: it comes last */
            walk_cpu_ratio[i] = (double)walk_cpu / cpu;
            world_close(w);
        }
        one_ratio[i] = bare[i] / one[i];
        all_ratio[i] = bare[i] / all[i];
        walk_one_ratio[i] = walk[i] / one[i];
        walk_all_ratio[i] = walk[i] / all[i];
    }
    double gb = (double)bytes / 1e9, one_median_s = median(one, rounds), all_median_s = median(all, rounds);
    double scans[2] = {median(walk, rounds), median(bare, rounds)};
    double *ones[2] = {walk_one_ratio, one_ratio}, *alls[2] = {walk_all_ratio, all_ratio};
    double *cpus[2] = {walk_cpu_ratio, cpu_ratio}; /* what other work on the machine changes least */
    printf("%s verified and indexed, %.0f MB: one thread %.2f GB/s, all CPUs %.2f GB/s; fastest %.2f, %.2f\n",
           name, gb * 1e3, gb / one_median_s, gb / all_median_s, gb / one[0], gb / all[0]);
    for (int i = 0; i < 2; i++) {
        double one_median = median(ones[i], rounds), all_median = median(alls[i], rounds);
        double cpu_median = median(cpus[i], rounds);
        printf("         beside %s, %.2f GB/s (fastest %.2f): one thread %.2f (%.2f to %.2f), all CPUs %.2f "
               "(%.2f to %.2f), CPU %.2f (%.2f to %.2f)\n",
               i == 0 ? "a walk over the records" : "a bare read and CRC", gb / scans[i],
               gb / (i == 0 ? walk : bare)[0], one_median, ones[i][0], ones[i][rounds - 1], all_median,
               alls[i][0], alls[i][rounds - 1], cpu_median, cpus[i][0], cpus[i][rounds - 1]);
    }
}

static void bench_scan(void)
{
    struct world w;
    begin(&w);
    fill(&w, READ_RECORDS * 4, READ_TOPICS);
    world_close(&w);
    rebuilds(&w, "scan    ", ROUNDS);
    world_open(&w);
    world_deinit(&w);
}

/* --- many topics --- */

static unsigned long status_kb(const char *name)
{
    char line[256];
    unsigned long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            kb = strtoul(line + strlen(name) + 1, NULL, 10);
    fclose(f);
    return kb;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* . and .. and the folder's own */
}

static void look_up(struct world *w, const char *when)
{
    double times[ROUNDS];
    uint64_t found = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char name[32];
        struct world_read r;
        snprintf(name, sizeof name, "plant/%07u/press", i * 90001u % MANY_TOPICS);
        world_read_init(&r, 0, 0);
        r.read.topic = slice_cstr(name);
        uint64_t begun = now_ns();
        world_read_run(w, &r);
        times[i] = seconds_since(begun);
        found += r.read.found;
        world_read_free(&r);
    }
    qsort(times, ROUNDS, sizeof *times, by_value);
    printf("         %s: all of one topic in %.2f ms (slowest %.2f; %.1f records each), RSS %lu MB (%lu MB "
           "anonymous), %u descriptors\n",
           when, times[ROUNDS / 2] * 1e3, times[ROUNDS - 1] * 1e3, (double)found / ROUNDS,
           status_kb("VmRSS:") >> 10, status_kb("RssAnon:") >> 10, descriptors());
}

static void bench_topics(void)
{
    struct world w;
    begin(&w);
    uint64_t begun = now_ns();
    fill(&w, MANY_RECORDS, MANY_TOPICS);
    double seconds = seconds_since(begun);
    printf(
        "topics   %d records of %d topics appended in %.1f s (%.0f k/s), RSS at most %lu MB, %lu refused\n",
        MANY_RECORDS, MANY_TOPICS, seconds, MANY_RECORDS / 1e3 / seconds, status_kb("VmHWM:") >> 10,
        (unsigned long)metrics_sum(M_LOG_REFUSED_FULL));
    look_up(&w, "written");
    world_close(&w);
    uint64_t log = each_file(&w, ".seg", NULL), index = each_file(&w, ".idx", NULL);
    printf("         %.0f MB of segments, %.0f MB of indexes (%.1f B a record)\n", (double)log / 1e6,
           (double)index / 1e6, (double)index / MANY_RECORDS);
    printf("         start %.3f s\n", open_seconds(&w));
    look_up(&w, "after a start, first look-ups");
    look_up(&w, "and again");
    world_close(&w);
    rebuilds(&w, "        ", ROUNDS / 2);
    world_open(&w);
    world_deinit(&w);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {
        {"commit", bench_commit}, {"reads", bench_reads}, {"scan", bench_scan}, {"topics", bench_topics}};
    if (argc < 2) {
        fprintf(stderr, "usage: bench_log FOLDER [commit|reads|scan|topics]...\n");
        return 2;
    }
    setenv("TMPDIR", argv[1], 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        bool wanted = argc == 2;
        for (int k = 2; k < argc; k++)
            wanted |= strcmp(argv[k], parts[i].name) == 0;
        if (wanted)
            parts[i].run();
    }
    return 0;
}
