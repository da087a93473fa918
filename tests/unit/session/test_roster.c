/* Sessions by number: against a plain array, through many joins and leaves. */
#include "session/roster.h"

#include <criterion/criterion.h>

enum { IDS = 2000 };

static struct session *as_session(uint64_t id)
{
    return (struct session *)(uintptr_t)(id * 16);
}

static void check(const struct roster *r, const bool *there)
{
    size_t at = roster_after(r, 0);
    for (uint64_t id = 1; id < IDS; id++) {
        cr_assert_eq(roster_find(r, id), there[id] ? as_session(id) : NULL, "%lu", (unsigned long)id);
        if (!there[id])
            continue;
        while (at < r->count && !r->entries[at].session)
            at++;
        cr_assert(at < r->count && r->entries[at].id == id);
        at++;
        size_t after = roster_after(r, id);
        cr_assert(after == r->count || r->entries[after].id > id);
        cr_assert(after > 0 && r->entries[after - 1].id <= id);
    }
}

Test(roster, is_what_it_should_be_whoever_comes_and_goes)
{
    struct roster r = {0};
    static bool there[IDS];
    uint64_t next = 1, random = 88172645463325252u;
    cr_assert_null(roster_find(&r, 1));
    cr_assert_eq(roster_after(&r, 0), 0);
    for (unsigned step = 0; step < 6000; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint64_t id = random % IDS;
        if (there[id]) {
            roster_remove(&r, id);
            there[id] = false;
        } else if (next < IDS && random % 3 != 0) {
            cr_assert_eq(roster_add(&r, next, as_session(next)), ST_OK);
            there[next++] = true;
        }
        if (step % 500 == 0)
            check(&r, there);
        cr_assert(r.holes <= 17 || r.holes <= r.count / 2 + 1);
    }
    check(&r, there);
    roster_deinit(&r);
}
