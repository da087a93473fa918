/* Publishes with an identity, from hub to shard and back, with the disk held by the test. A story: "p3" =
 * stored at 3, "d3" = a duplicate of 3, a status' name = refused. */
#include "fakes/exchange.h"
#include "routing/once_id.h"

#include <criterion/criterion.h>

static struct exchange x;
static char story[16384];

static void setup(void)
{
    exchange_open(&x, 2, 1);
    story[0] = '\0';
}

static void close_all(void)
{
    exchange_settle(&x);
    exchange_close(&x);
}

TestSuite(hub_once, .init = setup, .fini = close_all);

static void on_published(struct publish *p)
{
    size_t len = strlen(story);
    if (p->status == ST_OK)
        snprintf(story + len, sizeof story - len, " %c%lu", p->duplicate ? 'd' : 'p',
                 (unsigned long)p->msg->offset);
    else
        snprintf(story + len, sizeof story - len, " %s", status_name(p->status));
    publish_free(p);
}

static struct msg *message(enum once_kind kind, const char *name, uint64_t value, const char *topic)
{
    const struct once_id id = {.kind = kind, .name = slice_cstr(name), .value = value};
    uint8_t props[ONCE_PROP_BYTES_MAX];
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, slice_of(props, once_id_write(&id, props)),
                            slice_cstr("x"), &m),
                 ST_OK);
    m->flags = MSG_ONCE;
    m->qos = 1;
    return m;
}

static void send(unsigned loop, struct msg *m)
{
    struct publish *p;
    cr_assert_eq(publish_create(m, &p), ST_OK);
    p->wait = true;
    p->on_published = on_published;
    hub_publish(x.hubs[loop], p);
}

static void put(unsigned loop, uint64_t sequence)
{
    send(loop, message(ONCE_PRODUCER, "p", sequence, "t"));
}

static void key(unsigned loop, uint64_t digest)
{
    send(loop, message(ONCE_KEY, "k", digest, "t"));
}

/* Nothing becomes durable. */
static void turns(void)
{
    for (unsigned n = 0; n < 5; n++)
        for (unsigned i = 0; i < x.loop_count; i++)
            exchange_turn(&x, i);
}

#define expect(want)                                                                                         \
    do {                                                                                                     \
        turns();                                                                                             \
        cr_expect_str_eq(story, want, "line %d: \"%s\" instead of \"%s\"", __LINE__, story, want);           \
        story[0] = '\0';                                                                                     \
    } while (0)

Test(hub_once, a_duplicate_waits_for_its_original)
{
    put(0, 7);
    put(1, 8);
    put(1, 7);
    put(0, 7);
    expect("");
    cr_expect_eq(x.log.lanes[0].count, 2u);
    fake_log_sync(&x.log, 0, 1);
    expect(" p0 d0"); /* those of loop 0, which came first */
    fake_log_sync(&x.log, 0, 2);
    expect(" p1 d0");
    put(0, 7);
    expect(" d0");
    cr_expect_eq(exchange_metric(&x, M_STORED), 2);
    cr_expect_eq(exchange_metric(&x, M_DUPLICATES), 3);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 0);
}

Test(hub_once, a_duplicate_of_what_is_durable_does_not_wait_for_others)
{
    put(0, 1);
    exchange_settle(&x);
    put(0, 2);
    put(0, 1);
    expect(" p0 d0");
    fake_log_sync(&x.log, 0, 2);
    expect(" p1");
}

Test(hub_once, a_key_that_still_runs_is_told)
{
    key(0, 1);
    key(0, 1);
    key(0, 2);
    expect(" again exists");
    exchange_settle(&x);
    key(0, 1);
    key(0, 2);
    expect(" p0 d0 exists");
    cr_expect_eq(exchange_metric(&x, M_REFUSED_CONFLICT), 3);
    cr_expect_eq(exchange_metric(&x, M_DUPLICATES), 1);
}

Test(hub_once, another_topic_is_a_conflict)
{
    put(0, 1);
    exchange_settle(&x);
    send(0, message(ONCE_PRODUCER, "p", 1, "u"));
    expect(" p0 conflict");
}

Test(hub_once, what_the_log_refused_is_new_when_it_comes_again)
{
    x.log.append_status = ST_FULL;
    x.log.append_failures = 1;
    put(0, 1);
    expect(" full");
    put(0, 1);
    exchange_settle(&x);
    put(0, 1);
    expect(" p0 d0");
}

Test(hub_once, without_an_answer_it_is_counted_all_the_same)
{
    for (unsigned i = 0; i < 2; i++)
        cr_expect_eq(hub_publish_lazy(x.hubs[i], message(ONCE_PRODUCER, "p", 1, "t")), ST_OK);
    turns();
    cr_expect_eq(hub_publish_lazy(x.hubs[0], message(ONCE_PRODUCER, "p", 1, "u")), ST_CONFLICT);
    cr_expect_eq(hub_publish_lazy(x.hubs[1], message(ONCE_PRODUCER, "p", 1, "u")), ST_OK, "it cannot know");
    turns();
    cr_expect_eq(x.log.lanes[0].count, 1u);
    cr_expect_eq(exchange_metric(&x, M_STORED), 1);
    cr_expect_eq(exchange_metric(&x, M_DUPLICATES), 1);
    cr_expect_eq(exchange_metric(&x, M_REFUSED_CONFLICT), 2);
}

static void want_trim(uint64_t upto)
{
    x.log.lanes[0].trim_open = true;
    fake_log_want_trim(&x.log, 0, upto);
}

Test(hub_once, what_is_known_is_noted_before_the_log_is_trimmed)
{
    put(0, 1);
    put(0, 2);
    key(0, 7);
    exchange_settle(&x);
    put(0, 3);
    turns();
    want_trim(3);
    fake_log_sync(&x.log, 0, 4);
    turns();
    cr_expect_eq(x.log.lanes[0].count, 6u, "a note for the producer, one for the key");
    cr_expect_eq(x.log.lanes[0].first, 0u, "not before they are durable");
    exchange_settle(&x);
    cr_expect_eq(x.log.lanes[0].first, 3u);
    story[0] = '\0';
    put(0, 1);
    key(0, 7);
    key(0, 8);
    expect(" d0 d2 exists");
    want_trim(5);
    for (unsigned i = 0; i < 4; i++) {
        ex_mono_ms += 10;
        exchange_settle(&x);
    }
    cr_expect_eq(x.log.lanes[0].first, 5u);
    cr_expect_eq(x.log.lanes[0].count, 7u, "the third sequence, and the first two once more");
    cr_expect_eq(exchange_metric(&x, M_LOG_NOTES), 3);
}

/* A power cut must not take what pushed a sequence out of the window while that sequence is gone already. */
Test(hub_once, what_was_pushed_out_goes_when_that_is_durable)
{
    for (unsigned i = 0; i < 1024; i++)
        put(0, i);
    exchange_settle(&x);
    put(0, 5000); /* at 1024: pushes out the one at 0 */
    turns();
    want_trim(1);
    for (unsigned i = 0; i < 4; i++) {
        ex_mono_ms += 10;
        turns();
    }
    cr_expect_eq(x.log.lanes[0].count, 1025u, "nothing to note");
    cr_expect_eq(x.log.lanes[0].first, 0u, "but not yet");
    for (unsigned i = 0; i < 4; i++) {
        ex_mono_ms += 10;
        exchange_settle(&x);
    }
    cr_expect_eq(x.log.lanes[0].first, 1u);
}

/* The disk is always one publish behind. */
Test(hub_once, a_busy_lane_is_trimmed_all_the_same)
{
    for (unsigned i = 0; i < 10; i++)
        put(0, i);
    exchange_settle(&x);
    want_trim(9);
    for (unsigned i = 10; i < 60 && x.log.lanes[0].first == 0; i++) {
        uint64_t count = x.log.lanes[0].count;
        ex_mono_ms += 10;
        put(0, i);
        turns();
        fake_log_sync(&x.log, 0, count);
        turns();
    }
    cr_expect_eq(x.log.lanes[0].first, 9u);
}

Test(hub_once, a_log_that_cannot_take_a_note_is_asked_again)
{
    put(0, 1);
    put(0, 2);
    exchange_settle(&x);
    x.log.append_status = ST_FULL;
    x.log.append_failures = 2;
    want_trim(1);
    exchange_settle(&x);
    cr_expect_eq(x.log.lanes[0].first, 0u);
    for (unsigned i = 0; i < 4; i++) {
        ex_mono_ms += 60;
        exchange_settle(&x);
    }
    cr_expect_eq(x.log.lanes[0].first, 1u);
    cr_expect_eq(exchange_metric(&x, M_LOG_NOTES), 1);
}
