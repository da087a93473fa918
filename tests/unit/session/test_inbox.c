/* The cursor of an inbox: moved by any of the user's connections, from any loop; durable in time; never back.
 */
#include "fakes/exchange.h"
#include "fakes/seed.h"
#include "routing/inbox_record.h"
#include "session/inbox.h"

static struct exchange x;
static const struct inbox_limits everything = {0, 0};
static struct inbox_limits kept = {0, 0};

struct asker {
    struct inbox *inbox;
    bool back;
    enum status status;
    struct inbox_place place;
};

static void setup(void)
{
    exchange_open(&x, 2, 2);
}

static void teardown(void)
{
    exchange_expect_fold(&x);
    exchange_close(&x);
}

TestSuite(inbox, .init = setup, .fini = teardown);

static struct fake_lane *lane_of(const char *user)
{
    char topic[64];
    snprintf(topic, sizeof topic, "$user/%s", user);
    return &x.log.lanes[topic_partition(slice_cstr(topic), x.log.lane_count)];
}

static void send(const char *user, unsigned count)
{
    char topic[64];
    snprintf(topic, sizeof topic, "$user/%s/x", user);
    for (unsigned i = 0; i < count; i++)
        exchange_publish(&x, 0, topic);
    exchange_settle(&x);
}

static struct inbox *open_inbox(unsigned loop, const char *user, struct asker *a)
{
    *a = (struct asker){0};
    cr_assert_eq(inbox_create(x.hubs[loop], &kept, slice_cstr(user), a, &a->inbox), ST_OK);
    return a->inbox;
}

static void on_found(void *owner, enum status status, const struct inbox_place *place)
{
    struct asker *a = owner;
    a->back = true;
    a->status = status;
    a->place = *place;
}

/* What a connection that comes now is told. */
static struct inbox_place place_of(const char *user, unsigned loop)
{
    struct asker a;
    inbox_find(open_inbox(loop, user, &a), on_found);
    cr_assert(!a.back); /* never inside the call */
    exchange_settle(&x);
    cr_assert(a.back);
    cr_assert_eq(a.status, ST_OK);
    inbox_close(a.inbox);
    exchange_settle(&x);
    return a.place;
}

/* Records of cursors in the log. */
static unsigned records(const char *user)
{
    char topic[64];
    unsigned count = 0;
    snprintf(topic, sizeof topic, "$inbox/%s", user);
    struct fake_lane *l = lane_of(user);
    for (uint64_t i = 0; i < l->count; i++)
        count += l->records[i] && slice_equal_cstr(msg_topic(l->records[i]), topic);
    return count;
}

static void wait_ms(uint64_t ms)
{
    ex_mono_ms += ms;
    ex_wall_ms += ms;
    exchange_settle(&x);
}

Test(inbox, of_a_user_who_never_came_begins_with_what_is_kept)
{
    send("bob", 3);
    struct inbox_place p = place_of("alice", 0);
    cr_assert(!p.known);
    cr_assert_eq(p.unread, 0);
    send("alice", 2);
    send("alicea", 2);
    p = place_of("alice", 1);
    cr_assert(!p.known);
    cr_assert_eq(p.next, lane_of("alice")->first);
    cr_assert_eq(p.unread, 2);
    cr_assert_eq(p.skipped, 0);
}

Test(inbox, is_moved_by_any_connection_and_the_furthest_counts)
{
    struct asker a, b;
    send("alice", 6);
    uint64_t first = lane_of("alice")->count - 6;
    open_inbox(0, "alice", &a);
    open_inbox(1, "alice", &b);
    inbox_moved(a.inbox, first + 2, 2);
    exchange_settle(&x);
    cr_assert_eq(place_of("alice", 1).cursor, first + 2); /* not written yet, and known all the same */
    cr_assert_eq(records("alice"), 0);
    inbox_moved(b.inbox, first + 4, 2);
    exchange_settle(&x);
    inbox_moved(a.inbox, first + 3, 1);
    exchange_settle(&x);
    struct inbox_place p = place_of("alice", 0);
    cr_assert_eq(p.cursor, first + 4);
    cr_assert_eq(p.next, first + 4);
    cr_assert_eq(p.unread, 2);
    inbox_close(a.inbox);
    inbox_close(b.inbox);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 1);
    cr_assert_eq(place_of("alice", 0).cursor, first + 4);
    cr_assert_eq(exchange_metric(&x, M_INBOXES), 1);
}

Test(inbox, is_durable_after_its_time)
{
    struct asker a;
    send("alice", 3);
    open_inbox(1, "alice", &a);
    inbox_moved(a.inbox, lane_of("alice")->count - 2, 1);
    wait_ms(5000);
    inbox_moved(a.inbox, lane_of("alice")->count - 1, 1);
    wait_ms(4000);
    cr_assert_eq(records("alice"), 0);
    wait_ms(2000); /* counted from the first */
    cr_assert_eq(records("alice"), 1);
    wait_ms(60000);
    cr_assert_eq(records("alice"), 1);
    inbox_close(a.inbox);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 1); /* nothing has moved since */
}

Test(inbox, is_durable_with_so_many)
{
    struct asker a;
    send("alice", 8);
    uint64_t first = lane_of("alice")->count - 8;
    open_inbox(1, "alice", &a);
    inbox_moved(a.inbox, first + 4, 4);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 0);
    inbox_moved(a.inbox, first + 5, 1);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 1);
    inbox_close(a.inbox);
    exchange_settle(&x);
}

Test(inbox, is_written_when_the_connection_ends)
{
    struct asker a;
    send("alice", 3);
    uint64_t next = lane_of("alice")->count;
    open_inbox(1, "alice", &a);
    inbox_moved(a.inbox, next - 1, 1);
    inbox_moved(a.inbox, next, 1); /* while the letter is under way */
    inbox_close(a.inbox);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 1);
    cr_assert_eq(place_of("alice", 0).cursor, next);
}

Test(inbox, can_be_closed_while_it_is_asked_for)
{
    struct asker a;
    send("alice", 3);
    for (unsigned turns = 0; turns < 8; turns++) {
        inbox_find(open_inbox(1, "alice", &a), on_found);
        for (unsigned i = 0; i < turns; i++) {
            exchange_turn(&x, i % 2);
            if (i % 3 == 2)
                fake_log_serve(&x.log);
        }
        if (!a.back)
            inbox_close(a.inbox);
        exchange_settle(&x);
        if (a.back)
            inbox_close(a.inbox);
    }
    cr_assert_eq(records("alice"), 0);
}

Test(inbox, waits_for_a_log_that_takes_nothing)
{
    struct asker a;
    send("alice", 5);
    uint64_t next = lane_of("alice")->count;
    open_inbox(0, "alice", &a);
    x.log.append_status = ST_NO_SPACE;
    x.log.append_failures = 2;
    inbox_moved(a.inbox, next, 5);
    inbox_close(a.inbox);
    exchange_settle(&x);
    cr_assert_eq(records("alice"), 0);
    cr_assert_eq(place_of("alice", 0).cursor, next);
    wait_ms(10000);
    wait_ms(10000);
    cr_assert_eq(records("alice"), 1);
    cr_assert_eq(exchange_metric(&x, M_INBOX_WRITES_REFUSED), 2);
}

Test(inbox, gives_the_newest_and_counts_what_it_skips)
{
    struct asker a;
    kept = (struct inbox_limits){0, 3};
    send("alice", 4);
    uint64_t first = lane_of("alice")->count - 4;
    struct inbox_place p = place_of("alice", 0);
    cr_assert_eq(p.next, first + 1); /* who never came has missed nothing */
    cr_assert_eq(p.unread, 3);
    cr_assert_eq(p.skipped, 0);
    open_inbox(0, "alice", &a);
    inbox_moved(a.inbox, first + 1, 1);
    inbox_close(a.inbox);
    send("alice", 7);
    p = place_of("alice", 1);
    cr_assert(p.known);
    cr_assert_eq(p.unread, 3);
    cr_assert_eq(p.skipped, 7);
    kept = everything;
    p = place_of("alice", 1);
    cr_assert_eq(p.unread, 10);
    cr_assert_eq(p.skipped, 0);
}

Test(inbox, gives_what_is_young_enough)
{
    struct asker a;
    send("alice", 2);
    uint64_t first = lane_of("alice")->count - 2;
    open_inbox(0, "alice", &a);
    inbox_moved(a.inbox, first + 1, 1);
    inbox_close(a.inbox);
    exchange_settle(&x);
    wait_ms(5000);
    send("bob", 1);
    send("alice", 3);
    kept = (struct inbox_limits){4000, 0};
    struct inbox_place p = place_of("alice", 1);
    cr_assert_eq(p.unread, 3);
    cr_assert_eq(p.skipped, 1);
    kept = (struct inbox_limits){4000, 2};
    p = place_of("alice", 1);
    cr_assert_eq(p.unread, 2);
    cr_assert_eq(p.skipped, 2);
    kept = (struct inbox_limits){6000, 0};
    p = place_of("alice", 1);
    cr_assert_eq(p.unread, 4);
    cr_assert_eq(p.skipped, 0);
    kept = everything;
}

Test(inbox, survives_retention_and_tells_what_it_took)
{
    struct asker a;
    send("alice", 2);
    struct fake_lane *l = lane_of("alice");
    unsigned lane = (unsigned)(l - x.log.lanes);
    uint64_t next = l->count;
    open_inbox(0, "alice", &a);
    inbox_moved(a.inbox, next, 2);
    inbox_close(a.inbox);
    exchange_settle(&x);
    send("alice", 4);
    l->trim_open = true;
    fake_log_want_trim(&x.log, lane, l->count - 1);
    for (unsigned i = 0; i < 50; i++)
        wait_ms(60); /* carrying goes in steps */
    cr_assert_gt(l->first, next);
    struct inbox_place p = place_of("alice", 1);
    cr_assert(p.known);
    cr_assert_eq(p.cursor, next);
    cr_assert_eq(p.next, l->first);
    cr_assert_eq(p.skipped, l->first - next); /* positions: nobody knows any more whose they were */
    l->trim_open = false;
}

Test(inbox_limits, of_which_there_are_too_many_is_not_durable)
{
    struct asker a;
    ex_inboxes_max = 2;
    setup();
    static const char *const users[] = {"a", "b", "c", "d", "e", "f"};
    for (unsigned i = 0; i < 6; i++) {
        send(users[i], 1);
        open_inbox(0, users[i], &a);
        inbox_moved(a.inbox, lane_of(users[i])->count, 1);
        inbox_close(a.inbox);
        exchange_settle(&x);
    }
    cr_assert_leq(exchange_metric(&x, M_INBOXES), 4);
    cr_assert_geq(exchange_metric(&x, M_INBOX_WRITES_REFUSED), 2);
    teardown();
}

Test(inbox_limits, cursor_expires_with_what_it_is_about)
{
    struct asker a;
    ex_inbox_keep_ms = 60000;
    setup();
    kept = (struct inbox_limits){60000, 0};
    send("alice", 1);
    open_inbox(0, "alice", &a);
    inbox_moved(a.inbox, lane_of("alice")->count, 1);
    inbox_close(a.inbox);
    exchange_settle(&x);
    wait_ms(60000);
    cr_assert(place_of("alice", 0).known);
    wait_ms(2000);
    struct inbox_place p = place_of("alice", 0);
    cr_assert(!p.known);
    cr_assert_eq(p.unread, 0);
    kept = everything;
    wait_ms(2000);
    cr_assert_eq(exchange_metric(&x, M_INBOXES), 0);
    teardown();
}

Test(inbox, record_is_of_one_epoch)
{
    uint8_t bytes[INBOX_RECORD_BYTES];
    uint64_t next = 0;
    inbox_record_write(7, UINT64_C(0x123456789abcdef), bytes);
    cr_assert_eq(inbox_record_read(slice_of(bytes, sizeof bytes), 7, &next), ST_OK);
    cr_assert_eq(next, UINT64_C(0x123456789abcdef));
    cr_assert_eq(inbox_record_read(slice_of(bytes, sizeof bytes), 8, &next), ST_GONE);
    cr_assert_eq(inbox_record_read(slice_of(bytes, sizeof bytes - 1), 7, &next), ST_INVALID);
    bytes[0] = 2;
    cr_assert_eq(inbox_record_read(slice_of(bytes, sizeof bytes), 7, &next), ST_INVALID);
}

/* Random acknowledgements of several connections on two loops against the greatest of them. */
Test(inbox, model)
{
    enum { CONNS = 5 };
    static const char *const users[] = {"a", "b", "c"};
    struct asker askers[CONNS] = {{0}};
    unsigned user_of[CONNS] = {0}, seed = test_seed();
    uint64_t furthest[3] = {0};
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % CONNS, u = user_of[i];
        switch (rand_r(&seed) % 4) {
        case 0:
            exchange_publish(&x, 0, u == 0 ? "$user/a" : u == 1 ? "$user/b/x" : "$user/c");
            break;
        case 1:
            if (!askers[i].inbox) {
                user_of[i] = (unsigned)rand_r(&seed) % 3;
                open_inbox(i % 2, users[user_of[i]], &askers[i]);
            }
            break;
        case 2:
            if (askers[i].inbox && rand_r(&seed) % 4 == 0) {
                inbox_close(askers[i].inbox);
                askers[i].inbox = NULL;
            }
            break;
        default:
            if (askers[i].inbox) {
                uint64_t end = lane_of(users[u])->count, back = (uint64_t)rand_r(&seed) % 4;
                uint64_t next = end > back ? end - back : end;
                inbox_moved(askers[i].inbox, next, 1);
                if (next > furthest[u])
                    furthest[u] = next;
            }
        }
        exchange_turn(&x, (unsigned)rand_r(&seed) % 2);
        if (rand_r(&seed) % 30 == 0)
            wait_ms((uint64_t)rand_r(&seed) % 12000);
        if (rand_r(&seed) % 20 > 0)
            continue;
        exchange_settle(&x);
        for (unsigned k = 0; k < 3; k++) {
            struct inbox_place p = place_of(users[k], step % 2);
            cr_assert_eq(p.known, furthest[k] > 0);
            cr_assert_eq(p.known ? p.cursor : 0, furthest[k]);
        }
    }
    for (unsigned i = 0; i < CONNS; i++)
        inbox_close(askers[i].inbox);
    exchange_settle(&x);
    for (unsigned k = 0; k < 3; k++)
        cr_assert_eq(place_of(users[k], 0).known ? place_of(users[k], 0).cursor : 0, furthest[k]);
}
