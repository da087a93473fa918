/* What a look-up in the filter table costs, and what a filter costs in memory, by the number of filters.
 * Prints one line a table; PERFORMANCE.md wants <= 400 ns a literal topic, <= 150 bytes a filter, both
 * flat in the number of filters. Topics come in random order, as they do from sockets. */
#include "core/hash.h"
#include "routing/filter_table.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOKUPS = 1000000, TEXT_BYTES = 48 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static uint64_t random_next(void)
{
    static uint64_t state = 88172645463325252U;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* What one read costs that no cache holds, on this machine, now: a look-up among 1 M filters needs two. */
static double memory_ns(void)
{
    enum { LINES = 1 << 20, LINE_BYTES = 64 };
    char *lines = malloc((size_t)LINES * LINE_BYTES);
    if (!lines)
        abort();
    /* A full cycle through all lines: a linear congruential generator with odd step. */
    size_t at = 0;
    for (size_t i = 0; i < LINES; i++) {
        size_t next = (at * 1664525U + 1013904223U) % LINES;
        memcpy(lines + at * LINE_BYTES, &next, sizeof(next));
        at = next;
    }
    uint64_t start_ns = now_ns();
    for (size_t i = 0; i < LINES; i++)
        memcpy(&at, lines + at * LINE_BYTES, sizeof(at));
    uint64_t ns = now_ns() - start_ns;
    free(lines);
    return at == LINES ? 0 : (double)ns / LINES;
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static struct slice literal_text(char *out, size_t i)
{
    return slice_of(out, (size_t)snprintf(out, TEXT_BYTES, "site/%zu/device/%zu/temperature", i % 97, i));
}

static struct slice wildcard_text(char *out, size_t i)
{
    static const char *const forms[] = {"site/%zu/+/7/#", "+/%zu/device/+/state", "$user/%zu/#",
                                        "alarm/%zu/+"};
    /* The forms are the four above: */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return slice_of(out, (size_t)snprintf(out, TEXT_BYTES, forms[i % 4], i));
#pragma GCC diagnostic pop
}

static void link_all(struct filter_table *t, struct filter_entry *entries, size_t count,
                     struct slice (*text)(char *, size_t))
{
    char filter[TEXT_BYTES];
    for (size_t i = 0; i < count; i++) {
        if (filter_table_link(t, text(filter, i), &entries[i]) != ST_OK)
            abort();
    }
}

/* Nanoseconds a match; every topic must find exactly its one filter. */
static double measure(struct filter_table *t, size_t topic_count)
{
    struct topic {
        uint8_t len;
        char text[TEXT_BYTES - 1];
    } *topics = malloc(LOOKUPS * sizeof(*topics));
    if (!topics)
        abort();
    for (size_t i = 0; i < LOOKUPS; i++) {
        char text[TEXT_BYTES];
        topics[i].len = (uint8_t)literal_text(text, random_next() % topic_count).len;
        memcpy(topics[i].text, text, sizeof(topics[i].text));
    }
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        size_t found = 0;
        uint64_t start_ns = now_ns();
        for (size_t i = 0; i < LOOKUPS; i++)
            found += filter_table_match(t, slice_of(topics[i].text, topics[i].len)).count;
        double ns = (double)(now_ns() - start_ns) / LOOKUPS;
        best = ns < best ? ns : best;
        if (found != LOOKUPS)
            abort();
    }
    free(topics);
    return best;
}

static void run(size_t literal_count, size_t wildcard_count)
{
    struct filter_entry *entries = calloc(literal_count + wildcard_count, sizeof(*entries));
    struct filter_table *t = NULL;
    if (!entries || filter_table_create(&t) != ST_OK)
        abort();
    size_t heap_before = heap_bytes();
    uint64_t start_ns = now_ns();
    link_all(t, entries, literal_count, literal_text);
    uint64_t linked_ns = now_ns();
    size_t heap = heap_bytes() - heap_before;
    link_all(t, entries + literal_count, wildcard_count, wildcard_text);
    double match_ns = measure(t, literal_count);
    uint64_t unlink_ns = now_ns();
    for (size_t i = 0; i < literal_count + wildcard_count; i++)
        filter_table_unlink(t, &entries[i]);
    unlink_ns = now_ns() - unlink_ns;
    printf(
        "%8zu literal %4zu wildcard: match %4.0f ns, link %4.0f ns, unlink %4.0f ns, %4.0f bytes a filter\n",
        literal_count, wildcard_count, match_ns, (double)(linked_ns - start_ns) / (double)literal_count,
        (double)unlink_ns / (double)(literal_count + wildcard_count), (double)heap / (double)literal_count);
    filter_table_destroy(t);
    free(entries);
}

/* Inboxes of MQTT clients: as many wildcard filters as clients. */
static void run_inboxes(size_t count)
{
    struct filter_entry *entries = calloc(count, sizeof(*entries));
    struct filter_table *t = NULL;
    if (!entries || filter_table_create(&t) != ST_OK)
        abort();
    char text[TEXT_BYTES];
    size_t heap_before = heap_bytes(), found = 0;
    for (size_t i = 0; i < count; i++) {
        if (filter_table_link(t, slice_of(text, (size_t)snprintf(text, sizeof(text), "$user/user-%zu/#", i)),
                              &entries[i]) != ST_OK)
            abort();
    }
    size_t heap = heap_bytes() - heap_before;
    uint64_t start_ns = now_ns();
    for (size_t i = 0; i < LOOKUPS; i++) {
        int len = snprintf(text, sizeof(text), "$user/user-%zu/orders", (size_t)(random_next() % count));
        found += filter_table_match(t, slice_of(text, (size_t)len)).count;
    }
    uint64_t ns = (now_ns() - start_ns) / LOOKUPS;
    if (found != LOOKUPS)
        abort();
    printf("%8zu $user/<id>/#: match %4llu ns (with snprintf of the topic), %4.0f bytes a filter\n", count,
           (unsigned long long)ns, (double)heap / (double)count);
    filter_table_destroy(t);
    free(entries);
}

int main(void)
{
    hash_setup();
    static const size_t literal_counts[] = {1000, 100000, 1000000};
    for (size_t i = 0; i < 3; i++) {
        printf("a read from memory: %.0f ns\n", memory_ns());
        run(literal_counts[i], 0);
        run(literal_counts[i], 100);
    }
    for (size_t i = 0; i < 3; i++)
        run_inboxes(literal_counts[i]);
    return 0;
}
