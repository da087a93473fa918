/* The filter table when allocations fail: linking refuses and changes nothing, matching and unlinking go
 * on. The C library's allocator is replaced by one that can be told to fail, which a sanitizer's cannot
 * be; under a sanitizer this file is empty. */
#include "routing/filter_table.h"
#include "routing/topic.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#if !defined(__SANITIZE_ADDRESS__)

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static long fail_at = -1; /* this many more succeed, then all fail; negative: none fails */
static unsigned failed;

static bool refuses(void)
{
    if (fail_at < 0)
        return false;
    if (fail_at > 0) {
        fail_at--;
        return false;
    }
    failed++;
    return true;
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    return refuses() ? NULL : __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size)
{
    return refuses() ? NULL : __libc_calloc(count, size);
}

__attribute__((visibility("default"))) void *realloc(void *block, size_t size)
{
    return refuses() ? NULL : __libc_realloc(block, size);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t size)
{
    return refuses() ? NULL : __libc_memalign(alignment, size);
}

static const char *const filters[] = {
    "a/b",         "a/b",         "a/+",
    "a/+",         "a/#",         "#",
    "a/b/c/d/e/f", "+/+/+/+/+/+", "a/a level that does not fit into its node/+",
    "+/b",         "+/b",         "+/b",
    "a/b",         "$user/u1/#",  "x/1",
    "x/2",         "x/3",         "x/4",
    "x/5",         "x/6",         "x/7",
    "y/1/+",       "y/2/+",       "y/3/+",
    "y/4/+",       "y/5/+",
};
enum { FILTERS = sizeof(filters) / sizeof(filters[0]) };

static const char *const topics[] = {
    "a/b",      "a/x", "b",     "a/b/c/d/e/f", "a/a level that does not fit into its node/z",
    "$user/u1", "x/3", "y/4/q",
};
enum { TOPICS = sizeof(topics) / sizeof(topics[0]) };

static void expect_matches(struct filter_table *t, size_t linked_from, size_t linked_to, const char *when)
{
    cr_assert_eq(filter_table_count(t), linked_to - linked_from, "%s", when);
    for (size_t i = 0; i < TOPICS; i++) {
        size_t want = 0;
        for (size_t f = linked_from; f < linked_to; f++)
            want += topic_matches(slice_cstr(filters[f]), slice_cstr(topics[i]));
        size_t found = filter_table_match(t, slice_cstr(topics[i])).count;
        cr_assert_eq(found, want, "%s: topic %s: %zu, want %zu", when, topics[i], found, want);
    }
}

static void link_with_failures(struct filter_table *t, size_t i, struct filter_entry *e)
{
    for (long n = 0;; n++) {
        fail_at = n;
        failed = 0;
        enum status st = filter_table_link(t, slice_cstr(filters[i]), e);
        fail_at = -1;
        if (st == ST_OK)
            return;
        cr_assert_eq(st, ST_NO_MEMORY);
        cr_assert_gt(failed, 0);
        cr_assert_null(e->node);
        expect_matches(t, 0, i, "a link that failed changes nothing");
    }
}

Test(filter_table_memory, link_fails_whole_at_every_allocation)
{
    struct filter_table *t = NULL;
    struct filter_entry e[FILTERS] = {0};
    cr_assert_eq(filter_table_create(&t), ST_OK);
    for (size_t i = 0; i < FILTERS; i++) {
        link_with_failures(t, i, &e[i]);
        expect_matches(t, 0, i + 1, "after a link");
    }
    filter_table_destroy(t);
}

Test(filter_table_memory, match_and_unlink_need_none)
{
    struct filter_table *t = NULL;
    struct filter_entry e[FILTERS] = {0};
    cr_assert_eq(filter_table_create(&t), ST_OK);
    for (size_t i = 0; i < FILTERS; i++)
        cr_assert_eq(filter_table_link(t, slice_cstr(filters[i]), &e[i]), ST_OK);
    for (size_t i = 0; i < FILTERS; i++) {
        size_t counts[TOPICS];
        fail_at = 0;
        for (size_t k = 0; k < TOPICS; k++)
            counts[k] = filter_table_match(t, slice_cstr(topics[k])).count;
        filter_table_unlink(t, &e[i]);
        fail_at = -1;
        for (size_t k = 0; k < TOPICS; k++) {
            bool matched = topic_matches(slice_cstr(filters[i]), slice_cstr(topics[k]));
            cr_assert_eq(filter_table_match(t, slice_cstr(topics[k])).count, counts[k] - matched);
        }
        expect_matches(t, i + 1, FILTERS, "after an unlink");
    }
    filter_table_destroy(t);
}

Test(filter_table_memory, create_fails_whole)
{
    for (long n = 0;; n++) {
        struct filter_table *t = NULL;
        fail_at = n;
        enum status st = filter_table_create(&t);
        fail_at = -1;
        if (st == ST_OK) {
            cr_expect_gt(n, 0);
            filter_table_destroy(t);
            return;
        }
        cr_assert_eq(st, ST_NO_MEMORY);
        cr_assert_null(t);
    }
}

#endif
