/* The index has a list for each inbox: what it brings, against going through everything. */
#include "fakes/seed.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>

enum { RECORDS_MAX = 4000, NAMES = 9 };

static struct world w;
static const char *const names[NAMES] = {"$user/a",     "$user/a/x", "$user/a/x/y", "$user/ab", "$user/ab/x",
                                         "$user/a%2Fx", "user/a",    "$user/a/",    "t"};

static struct {
    uint64_t offset;
    unsigned name;
} log_of[RECORDS_MAX];
static unsigned count;

static void put(unsigned name)
{
    struct msg *m;
    cr_assert_eq(
        msg_create(slice_cstr(names[name]), (struct slice){0}, (struct slice){0}, slice_cstr("payload"), &m),
        ST_OK);
    cr_assert_eq(store_append(w.store, 0, m, true), ST_OK);
    log_of[count].offset = m->offset;
    log_of[count++].name = name;
    msg_unref(m);
}

static bool in_a(unsigned name)
{
    return strcmp(names[name], "$user/a") == 0 || strncmp(names[name], "$user/a/", 8) == 0;
}

static bool wants_x(void *ctx, struct slice topic)
{
    (void)ctx;
    return topic.len > 0 && topic.data[topic.len - 1] == 'x';
}

static void run(struct world_read *r)
{
    r->read.lane = 0;
    r->read.topic = slice_cstr("$user/a");
    r->read.inbox = true;
    world_read_run(&w, r);
    cr_assert_eq(r->read.status, ST_OK);
}

static void check(bool part)
{
    struct world_read all, number;
    unsigned k = 0;
    world_read_init(&all, 0, store_first(w.store, 0));
    all.read.wants = part ? wants_x : NULL;
    number = all;
    number.read.count_only = true;
    run(&all);
    run(&number);
    for (unsigned i = 0; i < count; i++) {
        if (!in_a(log_of[i].name) || (part && !wants_x(NULL, slice_cstr(names[log_of[i].name]))))
            continue;
        cr_assert_lt(k, all.read.found);
        cr_assert_eq(all.read.msgs[k]->offset, log_of[i].offset);
        cr_assert(slice_equal_cstr(msg_topic(all.read.msgs[k]), names[log_of[i].name]));
        k++;
    }
    cr_assert_eq(all.read.found, k);
    cr_assert_eq(number.read.found, k);
    world_read_free(&all);
}

/* The n newest of the inbox. */
static void check_last(unsigned n)
{
    struct world_read last;
    unsigned left = n, i = count;
    world_read_init(&last, 0, 0);
    last.read.count_only = true;
    last.read.locate = STORE_AT_LAST;
    last.read.locate_value = n;
    run(&last);
    while (i > 0 && left > 0)
        left -= in_a(log_of[--i].name);
    cr_assert_eq(last.read.found, n - left);
    if (left == 0)
        cr_assert_eq(last.read.from, log_of[i].offset);
}

Test(inbox_list, brings_what_is_in_the_inbox)
{
    unsigned seed = test_seed();
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    world_open(&w);
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 0; i < 600; i++) {
            put((unsigned)rand_r(&seed) % NAMES);
            if (rand_r(&seed) % 50 == 0)
                store_flush(w.store, 0);
        }
        store_flush(w.store, 0);
        world_wait_durable(&w, 0, store_next(w.store, 0));
        check(false);
        check(true);
        check_last(1);
        check_last(1 + (unsigned)rand_r(&seed) % 100);
        check_last(100000);
        world_close(&w);
        if (round == 2) { /* indexes are made anew by a scan */
            char command[400];
            snprintf(command, sizeof command, "find %s -name '*.idx' -delete", w.dir);
            cr_assert_eq(system(command), 0);
        }
        loop_dispatch(w.loop);
        world_open(&w);
        check(false);
        check(true);
    }
    world_close(&w);
    world_remove(w.dir);
}
