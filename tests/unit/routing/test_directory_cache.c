#include "routing/directory_cache.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct directory_remote remotes[] = {
    {.node = "a", .door = "ws", .incarnation = 1, .connection = 2, .since_ms = 3},
    {.node = "b", .door = "mqtt", .incarnation = 4, .connection = 5, .since_ms = 6},
};

static bool get(struct directory_cache *c, const char *user, uint64_t *as_of_ms, size_t *count)
{
    const struct directory_remote *found;
    if (!directory_cache_get(c, slice_cstr(user), as_of_ms, &found, count))
        return false;
    cr_assert(*count == 0 || memcmp(found, remotes, *count * sizeof *found) == 0);
    return true;
}

Test(directory_cache, the_last_answer_of_a_user_is_kept)
{
    struct directory_cache *c;
    uint64_t as_of;
    size_t count;
    cr_assert_eq(directory_cache_create(1 << 20, &c), ST_OK);
    cr_assert_not(get(c, "alice", &as_of, &count));
    directory_cache_put(c, slice_cstr("alice"), 10, remotes, 2);
    cr_assert(get(c, "alice", &as_of, &count) && as_of == 10 && count == 2);
    directory_cache_put(c, slice_cstr("alice"), 11, NULL, 0);
    cr_assert(get(c, "alice", &as_of, &count) && as_of == 11 && count == 0);
    cr_assert_not(get(c, "alic", &as_of, &count));
    directory_cache_destroy(c);
}

Test(directory_cache, it_never_has_more_bytes_than_it_may)
{
    enum { MAX = 64 << 10, USERS = 5000 };
    struct directory_cache *c;
    uint64_t as_of;
    size_t count, kept = 0;
    char user[16];
    cr_assert_eq(directory_cache_create(MAX, &c), ST_OK);
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(user, sizeof user, "u%u", i);
        directory_cache_put(c, slice_cstr(user), i + 1, remotes, 2);
        cr_assert_leq(directory_cache_bytes(c), MAX);
        cr_assert(get(c, user, &as_of, &count) && as_of == i + 1);
    }
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(user, sizeof user, "u%u", i);
        kept += get(c, user, &as_of, &count);
    }
    cr_assert_gt(kept, 20);
    directory_cache_destroy(c);
}

Test(directory_cache, what_is_larger_than_all_of_it_is_not_kept)
{
    static struct directory_remote many[512];
    struct directory_cache *c;
    uint64_t as_of;
    size_t count;
    cr_assert_eq(directory_cache_create(64 << 10, &c), ST_OK);
    directory_cache_put(c, slice_cstr("alice"), 10, remotes, 1);
    directory_cache_put(c, slice_cstr("alice"), 11, many, 512);
    cr_assert_not(get(c, "alice", &as_of, &count)); /* nor what it has replaced */
    cr_assert_eq(directory_cache_bytes(c), 0);
    directory_cache_destroy(c);
}
