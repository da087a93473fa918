#include "core/store/posting_sort.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { RECORDS = 20000 };

static uint64_t random64(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return *x ^ *x >> 29;
}

/* Record n has the place {n, 5 n}. */
static void add_all(struct posting_sort *s, const uint64_t *ids, uint32_t count)
{
    for (uint32_t n = 0; n < count; n++)
        cr_assert_eq(posting_sort_add(s, ids[n], (struct index_place){n, 5 * n}), ST_OK);
}

/* Ascending topics without holes in the places; within a topic ascending; each record under its topic. */
static void check(const struct postings *p, const uint64_t *ids, uint32_t count, const char *what)
{
    uint32_t at = 0;
    cr_assert_eq(p->place_count, count);
    for (uint32_t t = 0; t < p->topic_count; t++) {
        const struct index_topic *topic = &p->topics[t];
        cr_assert(t == 0 || topic->topic_id > topic[-1].topic_id, "%s: topics ascend", what);
        cr_assert(topic->first == at && topic->count > 0, "%s: topic %u", what, t);
        for (uint32_t i = at; i < at + topic->count; i++) {
            cr_assert(i == at || p->places[i].delta > p->places[i - 1].delta, "%s: in order", what);
            cr_assert(p->places[i].delta < count && ids[p->places[i].delta] == topic->topic_id, "%s", what);
            cr_assert_eq(p->places[i].place, 5 * p->places[i].delta);
        }
        at += topic->count;
    }
    cr_assert_eq(at, count, "%s: all of them", what);
}

/* One after the other with the same memory, more and fewer. */
Test(posting_sort, puts_any_mixture_of_topics_in_order)
{
    static const struct {
        const char *what;
        uint64_t mask;
        uint32_t count;
    } rows[] = {
        {"nothing", 0, 0},
        {"one record", 0, 1},
        {"one topic", 0, RECORDS},
        {"a topic a record", UINT64_MAX, RECORDS},
        {"a few topics", 0x8000000000000007u, RECORDS},
        {"upper bits alike", 0x000003ffffffffffu, RECORDS},
        {"all but the last bits alike", 0x1ff, RECORDS},
        {"lower bits alike", 0xfffffc0000000000u, RECORDS / 3},
        {"two records", UINT64_MAX, 2},
    };
    static uint64_t ids[RECORDS];
    struct posting_sort s = {0};
    uint64_t x = 42;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct postings p;
        for (uint32_t n = 0; n < rows[r].count; n++)
            ids[n] = random64(&x) & rows[r].mask;
        add_all(&s, ids, rows[r].count);
        cr_assert_eq(posting_sort_finish(&s, &p), ST_OK);
        check(&p, ids, rows[r].count, rows[r].what);
        cr_assert_eq(s.count, 0, "empty for the next");
        free(p.topics);
        free(p.places);
    }
    posting_sort_deinit(&s);
    cr_assert_null(s.entries);
}
