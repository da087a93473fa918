/* Replays of filters with wildcards, by the lists of their topics and by a walk: bench_filter_read FOLDER
 *
 * A log of 2 million records of 100,000 topics in one lane. CPU of the whole process (loop and reader thread)
 * to read all that a filter wants, in pages of 256: as reads without names do it (every record is looked at),
 * by the first read of a process (which learns names), and by later ones. The same for filters that the rule
 * leaves to the walk. Medians of 5, in turn. Release preset. */
#include "fakes/store_world.h"

enum { RECORDS = 2000000, TOPICS = 100000, ROUNDS = 5, PAGE = 256 };

struct wish {
    const char *filter;
    unsigned every; /* of so many topics one */
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Topics are "t/<number>". */
static bool wants(void *ctx, struct slice topic)
{
    unsigned number = 0;
    for (size_t i = 2; i < topic.len; i++)
        number = number * 10 + (unsigned)(topic.data[i] - '0');
    return number % ((struct wish *)ctx)->every == 0;
}

static double replay_ms(struct world *w, struct wish *wish, bool lists, uint64_t *found)
{
    uint64_t from = 0, begun = cpu_ns();
    *found = 0;
    for (bool end = false; !end;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        r.read.count_max = PAGE;
        r.read.bytes_max = 64 << 10;
        r.read.wants = wants;
        r.read.wants_ctx = wish;
        r.read.filter = lists ? slice_cstr(wish->filter) : (struct slice){0};
        world_read_run(w, &r);
        *found += r.read.found;
        from = r.read.next;
        end = from >= r.read.end;
        world_read_free(&r);
    }
    return (double)(cpu_ns() - begun) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void compare(struct world *w, struct wish *wish)
{
    double walk[ROUNDS], lists[ROUNDS], ratio[ROUNDS];
    uint64_t found, again;
    for (unsigned i = 0; i < ROUNDS; i++) {
        walk[i] = replay_ms(w, wish, false, &found);
        lists[i] = replay_ms(w, wish, true, &again);
        ratio[i] = lists[i] / walk[i];
        if (found != again)
            world_die("they differ");
    }
    qsort(walk, ROUNDS, sizeof walk[0], by_value);
    qsort(lists, ROUNDS, sizeof lists[0], by_value);
    qsort(ratio, ROUNDS, sizeof ratio[0], by_value);
    printf("%-16s %8llu records: walk %8.1f ms, with names %8.2f ms, ratio %.4f (%.4f to %.4f)\n",
           wish->filter, (unsigned long long)found, walk[ROUNDS / 2], lists[ROUNDS / 2], ratio[ROUNDS / 2],
           ratio[0], ratio[ROUNDS - 1]);
}

int main(int argc, char **argv)
{
    static struct wish wishes[] = {{"10 topics", 10000},
                                   {"60 topics", 1667},
                                   {"100 topics", 1000},
                                   {"10,000 topics", 10},
                                   {"all topics", 1}};
    struct wish first = {"first", 10000};
    struct world w;
    char payload[140] = {0};
    uint64_t found;
    world_init(&w, 1);
    if (argc > 1)
        snprintf(w.dir, sizeof w.dir, "%s/tg-filter-XXXXXX", argv[1]);
    if (argc > 1 && !mkdtemp(w.dir))
        world_die("no folder");
    w.options.segment_bytes = 256 << 20;
    w.options.names_bytes = 16 << 20;
    world_open(&w);
    for (unsigned i = 0; i < RECORDS; i++) {
        char topic[24];
        snprintf(topic, sizeof topic, "t/%u", (unsigned)((uint64_t)i * 2654435761u % TOPICS));
        while (world_append(&w, 0, topic, slice_of(payload, sizeof payload), false, NULL) != ST_OK)
            world_turn(&w);
        if (i % 64 == 0)
            store_flush(w.store, 0);
    }
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, store_next(w.store, 0));
    world_close(&w);
    loop_dispatch(w.loop);
    world_open(&w);
    double without = replay_ms(&w, &first, false, &found);
    without = replay_ms(&w, &first, false, &found);
    double learning = replay_ms(&w, &first, true, &found);
    printf("first read of a process: walk %.1f ms, learning %.1f ms, ratio %.2f\n", without, learning,
           learning / without);
    for (unsigned i = 0; i < sizeof wishes / sizeof wishes[0]; i++)
        compare(&w, &wishes[i]);
    world_deinit(&w);
    return 0;
}
