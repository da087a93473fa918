#include "fakes/store_world.h"

#include <criterion/criterion.h>

Test(store, appends_and_reads_back)
{
    struct world w;
    struct world_read r;
    world_init(&w, 1);
    world_open(&w);
    uint64_t a = world_put(&w, 0, "a/b", "one");
    world_put(&w, 0, "c", "two");
    uint64_t c = world_put(&w, 0, "a/b", "three");
    cr_assert_eq(c, a + 2);
    store_flush(w.store, 0);
    world_wait_durable(&w, 0, c + 1);
    world_read_init(&r, 0, store_first(w.store, 0));
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_OK);
    cr_assert_eq(r.read.found, 3);
    cr_assert_eq(r.read.next, c + 1);
    cr_assert(slice_equal_cstr(msg_payload(r.read.msgs[2]), "three"));
    cr_assert_eq(r.read.msgs[2]->offset, c);
    world_read_free(&r);
    world_read_init(&r, 0, a);
    r.read.topic = slice_cstr("a/b");
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 2);
    cr_assert_eq(r.read.msgs[0]->offset, a);
    cr_assert_eq(r.read.msgs[1]->offset, c);
    world_read_free(&r);
    world_close(&w);
    world_open(&w);
    world_read_init(&r, 0, a);
    r.read.topic = slice_cstr("a/b");
    world_read_run(&w, &r);
    cr_assert_eq(r.read.status, ST_OK);
    cr_assert_eq(r.read.found, 2);
    world_read_free(&r);
    world_deinit(&w);
}
