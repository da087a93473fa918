/* Connections in the directory: from the moment they say who they are until they end, whatever letters are
 * under way. */
#include "fakes/exchange.h"

#include <stdlib.h>

static struct exchange x;
static struct directory_local *shares[EX_LOOPS_MAX];
static struct fake_conn conns[4];
static struct session *sessions[4];

static void setup(void)
{
    exchange_open(&x, 2, 2);
    for (unsigned i = 0; i < x.loop_count; i++)
        cr_assert_eq(directory_local_create(x.couriers[i], "n1", 1, &shares[i]), ST_OK);
    for (unsigned i = 0; i < x.loop_count; i++) {
        for (unsigned k = 0; k < x.loop_count; k++)
            directory_local_meet(shares[i], k, shares[k], x.loop_count);
        hub_set_directory(x.hubs[i], directory_local_port(shares[i]));
    }
    for (unsigned i = 0; i < 4; i++) {
        fake_conn_init(&conns[i], UINT64_MAX);
        cr_assert_eq(session_create(x.hubs[i % 2], &fake_transport, &conns[i], &sessions[i]), ST_OK);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < 4; i++) {
        session_end(sessions[i]);
        fake_conn_deinit(&conns[i]);
    }
    exchange_settle(&x);
    cr_assert_eq(exchange_metric(&x, M_USER_CONNECTIONS), 0);
    for (unsigned i = 0; i < x.loop_count; i++) {
        cr_assert(hub_idle(x.hubs[i]));
        cr_assert_eq(directory_local_users(shares[i]), 0);
        directory_local_destroy(shares[i]);
    }
    exchange_close(&x);
}

TestSuite(membership, .init = setup, .fini = teardown);

struct asked {
    struct directory_find find;
    uint64_t total;
};

static void on_found(struct directory_find *f)
{
    struct asked *a = LIST_OF(f, struct asked, find);
    a->total = f->total;
    free(f->found);
}

static uint64_t count(const char *user)
{
    struct directory d = hub_directory(x.hubs[1]);
    struct asked a = {.find = {.user = slice_cstr(user), .on_found = on_found}, .total = UINT64_MAX};
    d.ops->find(d.ctx, &a.find);
    exchange_settle(&x);
    return a.total;
}

static void identify(unsigned i, const char *user, uint32_t most)
{
    cr_assert_eq(session_identify(sessions[i], slice_cstr(user), most), ST_OK);
}

static void end(unsigned i)
{
    session_end(sessions[i]);
    sessions[i] = NULL;
}

Test(membership, lasts_as_long_as_the_connection)
{
    identify(0, "alice", 0);
    identify(1, "alice", 0);
    identify(2, "", 0);
    cr_assert_eq(count("alice"), 2);
    cr_assert_eq(exchange_metric(&x, M_USER_CONNECTIONS), 2);
    cr_assert(slice_equal_cstr(session_user(sessions[1]), "alice"));
    cr_assert_eq(session_user(sessions[2]).len, 0);
    end(0);
    cr_assert_eq(count("alice"), 1);
}

Test(membership, ends_also_while_it_is_being_entered)
{
    identify(0, "alice", 0);
    end(0);
    exchange_settle(&x);
    cr_assert_eq(count("alice"), 0);
}

Test(membership, changes_with_the_user)
{
    identify(0, "alice", 0);
    identify(0, "alice", 0); /* the same: nothing happens */
    cr_assert_eq(count("alice"), 1);
    identify(0, "bob", 0);
    cr_assert_eq(count("alice"), 0);
    cr_assert_eq(count("bob"), 1);
    identify(0, "", 0);
    cr_assert_eq(count("bob"), 0);
}

Test(membership, is_refused_to_one_too_many)
{
    identify(0, "alice", 2);
    identify(1, "alice", 2);
    exchange_settle(&x);
    identify(2, "alice", 2);
    identify(3, "alice", 2);
    end(3); /* before it is refused: nobody is told */
    exchange_settle(&x);
    cr_assert(!conns[0].too_many && !conns[1].too_many && conns[2].too_many && !conns[3].too_many);
    cr_assert_eq(exchange_metric(&x, M_USER_CONNECTIONS_REFUSED), 2);
    cr_assert_eq(count("alice"), 2);
    end(0);
    exchange_settle(&x);
    identify(2, "alice", 2);
    cr_assert_eq(count("alice"), 2);
}

static void collect(void *ctx, struct session *s)
{
    struct session ***to = ctx;
    *(*to)++ = s;
}

Test(membership, sessions_of_a_loop_can_be_gone_through)
{
    struct session *found[4], **to = found;
    hub_each_session(x.hubs[0], collect, &to);
    cr_assert_eq(to - found, 2);
    cr_assert(found[0] == sessions[0] && found[1] == sessions[2]);
    cr_assert_eq(session_id_loop(session_id(sessions[1])), 1);
    cr_assert_eq(hub_find_session(x.hubs[1], session_id(sessions[3])), sessions[3]);
    cr_assert_null(hub_find_session(x.hubs[0], session_id(sessions[3])));
    cr_assert_eq(session_since_ms(sessions[0]), ex_wall_ms);
    cr_assert_str_eq(session_door(sessions[0]), "ws");
}
