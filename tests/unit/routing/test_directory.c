#include "routing/directory.h"

#include "fakes/seed.h"
#include "routing/courier.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

/* Loops driven by the test, all on this thread. */
enum { LOOPS = 3, CONNS = 40, USERS = 5 };

static struct loop *loops[LOOPS];
static struct courier *couriers[LOOPS];
static struct directory_local *shares[LOOPS];

enum place { OUT, JOINING, IN, REFUSED, LEAVING };

struct member {
    struct directory_entry entry;
    enum place place;
    unsigned loop;
};

struct look_up {
    struct directory_find find;
    bool back;
};

static void setup(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        cr_assert_eq(loop_create(clock_system(), i, &loops[i]), ST_OK);
        cr_assert_eq(courier_create(loops[i], &couriers[i]), ST_OK);
        cr_assert_eq(directory_local_create(couriers[i], "n1", 0xab, &shares[i]), ST_OK);
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        for (unsigned k = 0; k < LOOPS; k++) {
            courier_meet(couriers[i], k, loops[k]);
            directory_local_meet(shares[i], k, shares[k], LOOPS);
        }
        courier_start(couriers[i]);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        directory_local_destroy(shares[i]);
        courier_destroy(couriers[i]);
        loop_destroy(loops[i]);
    }
}

TestSuite(directory, .init = setup, .fini = teardown);

static void turn(unsigned loop)
{
    loop_dispatch(loops[loop]);
    loop_prepare(loops[loop]);
}

static void settle(void)
{
    for (unsigned n = 0; n < 6; n++)
        for (unsigned i = 0; i < LOOPS; i++)
            turn(i);
}

static void on_added(struct directory_entry *e)
{
    struct member *m = LIST_OF(e, struct member, entry);
    cr_assert_eq(m->place, JOINING);
    m->place = e->status == ST_OK ? IN : REFUSED;
}

static void on_removed(struct directory_entry *e)
{
    struct member *m = LIST_OF(e, struct member, entry);
    cr_assert_eq(m->place, LEAVING);
    m->place = OUT;
}

static void join(struct member *m, unsigned loop, const char *user, uint64_t connection, uint32_t most)
{
    struct directory d = directory_local_port(shares[loop]);
    *m = (struct member){.entry = {.user = slice_cstr(user),
                                   .connection = connection,
                                   .since_ms = 1000 + connection,
                                   .door = "ws",
                                   .user_max = most,
                                   .on_added = on_added,
                                   .on_removed = on_removed},
                         .place = JOINING,
                         .loop = loop};
    d.ops->add(d.ctx, &m->entry);
    cr_assert_eq(m->place, JOINING); /* never inside the call */
}

static void leave(struct member *m)
{
    struct directory d = directory_local_port(shares[m->loop]);
    m->place = LEAVING;
    d.ops->remove(d.ctx, &m->entry);
}

static void on_found(struct directory_find *f)
{
    LIST_OF(f, struct look_up, find)->back = true;
}

static void look_up(struct look_up *l, unsigned loop, const char *user)
{
    struct directory d = directory_local_port(shares[loop]);
    *l = (struct look_up){.find = {.user = slice_cstr(user), .on_found = on_found}};
    d.ops->find(d.ctx, &l->find);
    settle();
    cr_assert(l->back);
    cr_assert_eq(l->find.status, ST_OK);
}

Test(directory, finds_the_connections_of_a_user_from_any_loop)
{
    struct member a, b, other;
    struct look_up l;
    join(&a, 0, "alice", 7, 0);
    settle();
    join(&b, 2, "alice", 8, 0);
    join(&other, 1, "bob", 9, 0);
    settle();
    for (unsigned loop = 0; loop < LOOPS; loop++) {
        look_up(&l, loop, "alice");
        cr_assert_eq(l.find.total, 2);
        cr_assert_eq(l.find.found_count, 2);
        cr_assert_eq(l.find.found[0].connection, 7);
        cr_assert_eq(l.find.found[1].connection, 8);
        cr_assert_eq(l.find.found[1].since_ms, 1008);
        cr_assert_eq(l.find.found[1].incarnation, 0xab);
        cr_assert_str_eq(l.find.found[1].door, "ws");
        cr_assert_str_eq(l.find.found[1].node, "n1");
        free(l.find.found);
    }
    leave(&a);
    settle();
    look_up(&l, 1, "alice");
    cr_assert_eq(l.find.total, 1);
    cr_assert_eq(l.find.found[0].connection, 8);
    free(l.find.found);
    look_up(&l, 1, "alic");
    cr_assert_eq(l.find.total, 0);
    free(l.find.found);
    leave(&b);
    leave(&other);
    settle();
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(directory_local_users(shares[i]), 0);
}

Test(directory, lets_a_user_have_so_many_connections)
{
    struct member a, b, c;
    join(&a, 0, "alice", 1, 2);
    join(&b, 0, "alice", 2, 2);
    join(&c, 0, "alice", 3, 2);
    settle();
    cr_assert(a.place == IN && b.place == IN && c.place == REFUSED);
    leave(&a);
    settle();
    join(&c, 1, "alice", 3, 2);
    settle();
    cr_assert_eq(c.place, IN);
    leave(&b);
    leave(&c);
    settle();
}

Test(directory, names_connections)
{
    char id[64];
    cr_assert_eq(connection_id_write("n1", 0x1f, 281474976710657, id, sizeof id), 21);
    cr_assert_str_eq(id, "n1-1f-281474976710657");
    cr_assert_eq(connection_id_write("n1", 0x1f, 1, id, 7), 0);
}

Test(directory, reads_names_back)
{
    static const struct {
        const char *text, *node; /* NULL: refused */
        uint64_t incarnation, connection;
    } rows[] = {
        {"n1-1f-281474976710657", "n1", 0x1f, 281474976710657},
        {"a-b--0-0", "a-b-", 0, 0},
        {"-ffffffffffffffff-18446744073709551615", "", UINT64_MAX, UINT64_MAX},
        {"n1-10000000000000000-1", NULL, 0, 0},
        {"n1-1-18446744073709551616", NULL, 0, 0},
        {"n1-1-99999999999999999999", NULL, 0, 0},
        {"n1-01-1", NULL, 0, 0},
        {"n1-1-01", NULL, 0, 0},
        {"n1-1F-1", NULL, 0, 0},
        {"n1-1-a", NULL, 0, 0},
        {"n1-1-", NULL, 0, 0},
        {"n1--1", NULL, 0, 0},
        {"1-1", NULL, 0, 0},
        {"1", NULL, 0, 0},
        {"", NULL, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice node;
        uint64_t incarnation, connection;
        bool read = connection_id_read(slice_cstr(rows[i].text), &node, &incarnation, &connection);
        cr_assert_eq(read, rows[i].node != NULL, "%s", rows[i].text);
        if (read)
            cr_expect(slice_equal_cstr(node, rows[i].node) && incarnation == rows[i].incarnation &&
                          connection == rows[i].connection,
                      "%s", rows[i].text);
    }
}

/* Random joining, leaving and looking, with answers in any order, against a count for each user. */
Test(directory, model)
{
    static struct member members[CONNS];
    static const char *const users[USERS] = {"a", "b", "c/d", "", "e"};
    static unsigned user_of[CONNS];
    unsigned seed = test_seed(), count[USERS] = {0};
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % CONNS;
        struct member *m = &members[i];
        if (m->place == OUT || m->place == REFUSED) {
            user_of[i] = (unsigned)rand_r(&seed) % USERS;
            if (users[user_of[i]][0])
                join(m, (unsigned)rand_r(&seed) % LOOPS, users[user_of[i]], i, 0);
        } else if (m->place == IN) {
            leave(m);
        }
        turn((unsigned)rand_r(&seed) % LOOPS);
        if (step % 500 > 0)
            continue;
        settle();
        memset(count, 0, sizeof count);
        for (unsigned k = 0; k < CONNS; k++)
            count[user_of[k]] += members[k].place == IN;
        for (unsigned u = 0; u < USERS; u++) {
            struct look_up l;
            look_up(&l, step % LOOPS, users[u]);
            cr_assert_eq(l.find.total, users[u][0] ? count[u] : 0);
            free(l.find.found);
        }
    }
    settle();
    for (unsigned k = 0; k < CONNS; k++)
        if (members[k].place == IN)
            leave(&members[k]);
    settle();
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(directory_local_users(shares[i]), 0);
}
