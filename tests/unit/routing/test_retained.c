/* Retained messages against a plain table that is simple enough to believe. */
#include "routing/retained.h"

#include "fakes/seed.h"
#include "routing/topic.h"

#include <criterion/criterion.h>

enum { TOPICS = 200, STEPS = 60000, WALKS = 6 };

static struct retained *kept;
static uint64_t next_offset, now_ms;

static void open_with(uint64_t count_max, uint64_t bytes_max)
{
    const struct retained_limits limits = {count_max, bytes_max};
    cr_assert_eq(retained_create(&limits, &kept), ST_OK);
    next_offset = 0;
    now_ms = 1700000000000;
}

static void setup(void)
{
    open_with(TOPICS, 1 << 20);
}

static void close_all(void)
{
    retained_destroy(kept);
}

TestSuite(retained, .init = setup, .fini = close_all);

static struct msg *message(const char *topic, size_t payload_len, uint64_t expires_ms)
{
    static const uint8_t payload[4096];
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0},
                            slice_of(payload, payload_len), &m),
                 ST_OK);
    m->flags = MSG_RETAIN;
    m->expires_ms = expires_ms;
    m->offset = next_offset++;
    return m;
}

static void fold(const char *topic, size_t payload_len, uint64_t expires_ms)
{
    struct msg *m = message(topic, payload_len, expires_ms);
    cr_assert_eq(retained_fold(kept, m), ST_OK);
    msg_unref(m);
}

static bool fits(const char *topic, size_t payload_len)
{
    struct msg *m = message(topic, payload_len, 0);
    bool room = retained_has_room(kept, m);
    msg_unref(m);
    return room;
}

/* --- limits ------------------------------------------------------------------------------------- */

Test(retained, nothing_is_kept_at_first)
{
    uint64_t next = 0;
    cr_expect_null(retained_get(kept, slice_cstr("a")));
    cr_expect_eq(retained_walk(kept, 0, 100, NULL, NULL, now_ms, NULL, 0, &next), 0u);
    cr_expect_eq(next, 100u);
    cr_expect(retained_expire(kept, now_ms));
    fold("a", 0, 0);
    cr_expect_eq(retained_count(kept), 0u);
}

Test(retained, a_limit_of_messages)
{
    close_all();
    open_with(2, 1 << 20);
    fold("a", 1, 0);
    fold("b", 1, 0);
    cr_expect_not(fits("c", 1));
    cr_expect(fits("a", 1), "another of the same topic takes its place");
    cr_expect(fits("c", 0), "clearing needs no room");
    fold("a", 0, 0);
    cr_expect(fits("c", 1));
}

Test(retained, a_limit_of_bytes)
{
    close_all();
    open_with(100, 2 * (sizeof(struct msg) + 101));
    fold("a", 100, 0);
    cr_expect_eq(retained_bytes(kept), sizeof(struct msg) + 101);
    cr_expect(fits("b", 100));
    cr_expect_not(fits("b", 101));
    fold("b", 100, 0);
    cr_expect(fits("b", 100));
    cr_expect(fits("b", 50));
    cr_expect_not(fits("b", 101));
    fold("b", 0, 0);
    fold("a", 0, 0);
    cr_expect_eq(retained_bytes(kept), 0u);
}

Test(retained, nothing_at_all_may_be_kept)
{
    close_all();
    open_with(0, 0);
    cr_expect_not(fits("a", 1));
    cr_expect(fits("a", 0));
    fold("a", 1, 0); /* the log says so */
    cr_expect_not(fits("a", 1));
    cr_expect_eq(retained_count(kept), 1u);
}

/* --- expiry ------------------------------------------------------------------------------------- */

Test(retained, what_has_expired_goes_in_steps_round_and_round)
{
    enum { MANY = 3 * RETAINED_STEP + 5 };
    char topic[16];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(topic, sizeof topic, "%u", i);
        fold(topic, 1, i % 2 ? now_ms + 10 : 0);
    }
    cr_expect_eq(retained_expiring(kept), (uint64_t)MANY / 2);
    now_ms += 9;
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(retained_expire(kept, now_ms), i == 3, "%u", i);
    cr_expect_eq(retained_count(kept), (uint64_t)MANY);
    now_ms++;
    cr_expect_not(retained_expire(kept, now_ms));
    cr_expect_eq(retained_count(kept), (uint64_t)MANY - RETAINED_STEP / 2);
    for (unsigned i = 0; i < 4; i++)
        (void)retained_expire(kept, now_ms);
    cr_expect_eq(retained_count(kept), (uint64_t)MANY - MANY / 2);
    cr_expect_eq(retained_expiring(kept), 0u);
    cr_expect_not_null(retained_get(kept, slice_cstr("0")));
    cr_expect_null(retained_get(kept, slice_cstr("1")));
}

/* --- read from the log ---------------------------------------------------------------------------- */

/* A carried message stands behind younger ones, under the position that it had. */
static void load(const char *topic, uint64_t offset, uint64_t stored)
{
    struct msg *m = message(topic, 1, 0);
    m->offset = offset;
    m->stored = stored;
    cr_assert_eq(retained_fold(kept, m), ST_OK);
    msg_unref(m);
}

Test(retained, what_is_loaded_is_walked_in_the_order_of_publishing)
{
    struct msg *msgs[8];
    uint64_t next;
    retained_load(kept);
    load("b", 7, 7);
    load("c", 8, 8);
    load("a", 3, 9);
    load("c", 8, 10);
    load("d", 11, 11);
    load("a", 3, 12);
    cr_expect_eq(retained_count(kept), 4u);
    cr_assert_eq(retained_loaded(kept), ST_OK);
    next_offset = 20;
    fold("b", 1, 0);
    uint64_t stored[] = {12, 10, 11, 0};
    uint32_t found = retained_walk(kept, 0, 100, NULL, NULL, now_ms, msgs, 8, &next);
    cr_assert_eq(found, 4u);
    for (unsigned i = 0; i < found; i++) {
        cr_expect_eq(msgs[i]->topic_len, 1);
        cr_expect_eq(msgs[i]->bytes[0], "acdb"[i]);
        cr_expect_eq(msgs[i]->stored, stored[i]);
        msg_unref(msgs[i]);
    }
    msgs[0] = retained_get(kept, slice_cstr("b"));
    msgs[0]->stored = 20;
    /* Below 12: c, stored at 10, and d; not a, which has been carried above. */
    found = retained_stored_below(kept, 0, 12, now_ms, msgs, 8, 1 << 20, &next);
    cr_assert_eq(found, 2u);
    cr_expect_eq(next, 12u);
    for (unsigned i = 0; i < found; i++) {
        cr_expect_eq(msgs[i]->bytes[0], "cd"[i]);
        msg_unref(msgs[i]);
    }
    found = retained_stored_below(kept, 0, 12, now_ms, msgs, 8, 1, &next);
    cr_assert_eq(found, 1u, "one at least, however large");
    cr_expect_eq(next, 11u);
    msg_unref(msgs[0]);
}

/* --- the model ---------------------------------------------------------------------------------- */

static struct entry {
    char topic[16];
    uint64_t offset, expires_ms;
    size_t payload_len;
    bool there;
} model[TOPICS];

/* A walk under way. `due`: what it must still bring, unless it is replaced, removed or expired before. */
struct walker {
    const char *filter; /* NULL: all */
    uint64_t from, to;
    bool due[TOPICS];
};

static bool wants(void *ctx, struct slice topic)
{
    return topic_matches(slice_cstr(ctx), topic);
}

static bool alive(const struct entry *e)
{
    return e->there && (e->expires_ms == 0 || now_ms < e->expires_ms);
}

static void walker_begin(struct walker *w, unsigned *seed)
{
    static const char *const filters[] = {NULL, "#", "+/1", "3/#", "5/7", "none"};
    w->filter = filters[(unsigned)rand_r(seed) % 6];
    w->from = rand_r(seed) % 3 ? 0 : (uint64_t)rand_r(seed) % (next_offset + 1);
    w->to = rand_r(seed) % 3 ? next_offset : (uint64_t)rand_r(seed) % (next_offset + 1);
    for (unsigned t = 0; t < TOPICS; t++)
        w->due[t] = alive(&model[t]) && model[t].offset >= w->from && model[t].offset < w->to &&
                    (!w->filter || topic_matches(slice_cstr(w->filter), slice_cstr(model[t].topic)));
}

/* Must it come in the range? What was replaced meanwhile lies above w->to. */
static bool is_due(const struct walker *w, unsigned t, uint64_t from, uint64_t to)
{
    return w->due[t] && alive(&model[t]) && model[t].offset >= from && model[t].offset < to;
}

static void walker_step(struct walker *w, unsigned *seed)
{
    struct msg *msgs[50];
    uint64_t next, place = w->from;
    bool counts = rand_r(seed) % 4 == 0;
    char *filter = w->filter ? strdup(w->filter) : NULL;
    uint32_t most = (uint32_t)rand_r(seed) % 50 + 1, expected = 0;
    uint32_t found = retained_walk(kept, w->from, w->to, filter ? wants : NULL, filter, now_ms,
                                   counts ? NULL : msgs, most, &next);
    free(filter);
    cr_assert((next > w->from || w->from >= w->to) && (counts || found <= most));
    for (unsigned t = 0; t < TOPICS; t++)
        expected += is_due(w, t, w->from, next);
    cr_assert_eq(found, expected, "%u found, %u expected", found, expected);
    for (uint32_t i = 0; i < found && !counts; i++) {
        unsigned t = 0;
        while (!slice_equal_cstr(msg_topic(msgs[i]), model[t].topic))
            t++;
        cr_assert(is_due(w, t, place, next));
        cr_assert_eq(msgs[i]->offset, model[t].offset);
        place = msgs[i]->offset + 1; /* in order */
        msg_unref(msgs[i]);
    }
    w->from = next;
}

static void check_state(void)
{
    uint64_t count = 0, bytes = 0, expiring = 0;
    for (unsigned t = 0; t < TOPICS; t++) {
        struct msg *m = retained_get(kept, slice_cstr(model[t].topic));
        if (alive(&model[t]))
            cr_assert(m && m->offset == model[t].offset, "%s", model[t].topic);
        else
            cr_assert(!m || (m->expires_ms && m->expires_ms <= now_ms), "%s", model[t].topic);
        if (!m)
            continue;
        count++;
        bytes += sizeof *m + m->topic_len + m->payload_len;
        expiring += m->expires_ms != 0;
    }
    cr_assert_eq(retained_count(kept), count);
    cr_assert_eq(retained_bytes(kept), bytes);
    cr_assert_eq(retained_expiring(kept), expiring);
}

Test(retained, is_what_a_plain_table_says)
{
    static struct walker walkers[WALKS];
    unsigned seed = test_seed();
    for (unsigned t = 0; t < TOPICS; t++)
        snprintf(model[t].topic, sizeof model[t].topic, "%u/%u", t / 10, t % 10);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned what = (unsigned)rand_r(&seed) % 100;
        if (what < 70) {
            struct entry *e = &model[(unsigned)rand_r(&seed) % TOPICS];
            next_offset += (unsigned)rand_r(&seed) % 3;
            e->offset = next_offset;
            e->payload_len = rand_r(&seed) % 3 ? (unsigned)rand_r(&seed) % 100 + 1 : 0;
            e->there = e->payload_len > 0;
            e->expires_ms = rand_r(&seed) % 3 ? 0 : now_ms + (unsigned)rand_r(&seed) % 300;
            fold(e->topic, e->payload_len, e->expires_ms);
        } else if (what < 75) {
            now_ms += (unsigned)rand_r(&seed) % 20;
        } else if (what < 78) {
            (void)retained_expire(kept, now_ms);
        } else {
            struct walker *w = &walkers[(unsigned)rand_r(&seed) % WALKS];
            if (w->from >= w->to)
                walker_begin(w, &seed);
            walker_step(w, &seed);
        }
        if (step % 16 == 0)
            check_state();
    }
}
