#include "gateway/ws/flow.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct flow f;
static struct tally *t;

static void setup(void)
{
    flow_init(&f, 1000);
    t = tally_create(0, 4);
}

static void teardown(void)
{
    flow_deinit(&f);
    tally_unref(t);
}

TestSuite(flow, .init = setup, .fini = teardown);

static void send_numbered(unsigned lane, uint64_t offset, uint32_t bytes)
{
    const struct flow_sent s = {.tally = t, .lane = lane, .offset = offset, .bytes = bytes};
    cr_assert(flow_admits(&f, bytes, true));
    cr_assert_eq(flow_spend_numbered(&f, &s), ST_OK);
}

static uint64_t ack(uint64_t n)
{
    uint64_t count = UINT64_MAX;
    cr_assert_eq(flow_ack(&f, n, &count), ST_OK);
    return count;
}

Test(flow, without_a_window_only_the_open_ones_are_bounded)
{
    f.open_max = 3;
    for (uint64_t i = 0; i < 3; i++)
        send_numbered(0, i, 1 << 20);
    cr_expect(!flow_admits(&f, 1, true));
    cr_expect(flow_admits(&f, UINT32_MAX, false), "what has no number is not bounded by them");
    cr_expect_eq(ack(1), 1);
    cr_expect(flow_admits(&f, 1, true));
}

Test(flow, acknowledgements_are_cumulative_and_never_go_back)
{
    uint64_t count;
    for (uint64_t i = 0; i < 10; i++)
        send_numbered(0, i, 1);
    cr_expect_eq(ack(4), 4);
    cr_expect_eq(ack(4), 0);
    cr_expect_eq(ack(2), 0);
    cr_expect_eq(ack(0), 0);
    cr_expect_eq(flow_ack(&f, 11, &count), ST_INVALID);
    cr_expect_eq(flow_ack(&f, UINT64_MAX, &count), ST_INVALID);
    cr_expect_eq(ack(10), 6);
}

Test(flow, a_full_window_admits_one_larger_message)
{
    flow_set_bytes(&f, 100);
    cr_expect(flow_admits(&f, 5000, false));
    flow_spend(&f, 5000);
    cr_expect(!flow_admits(&f, 1, false));
    cr_expect_eq(flow_add(&f, 0, 4999), ST_OK);
    cr_expect(!flow_admits(&f, 5000, false), "one byte is still out");
    cr_expect_eq(flow_add(&f, 0, 1), ST_OK);
    cr_expect(flow_admits(&f, 5000, false));
    flow_spend(&f, 60);
    cr_expect(!flow_admits(&f, 41, false), "a part of the window is not exceeded");
    cr_expect(flow_admits(&f, 40, false));
}

Test(flow, an_empty_window_waits_for_credit)
{
    flow_set_msgs(&f, 0);
    flow_set_bytes(&f, 0);
    cr_expect(!flow_admits(&f, 1, false));
    cr_expect_eq(flow_add(&f, 1, 0), ST_OK);
    cr_expect(!flow_admits(&f, 1, false));
    cr_expect_eq(flow_add(&f, 0, 1), ST_OK);
    cr_expect(flow_admits(&f, 1, false));
}

Test(flow, credit_does_not_overflow)
{
    const uint64_t most = (UINT64_C(1) << 53) - 1;
    flow_set_msgs(&f, most - 5);
    flow_set_bytes(&f, 10);
    cr_expect_eq(flow_add(&f, 6, 7), ST_INVALID);
    cr_expect_eq(f.bytes.left, 10, "nothing is added of what is refused");
    cr_expect_eq(flow_add(&f, UINT64_MAX, 0), ST_INVALID);
    cr_expect_eq(flow_add(&f, 5, most - 10), ST_OK);
    cr_expect_eq(flow_add(&f, 0, 1), ST_INVALID);
    cr_expect_eq(flow_add(&f, 0, 0), ST_OK);
    /* an acknowledgement on top of a window that credit has filled meanwhile */
    send_numbered(0, 1, 8);
    cr_expect_eq(flow_add(&f, 1, 8), ST_OK);
    cr_expect_eq(ack(1), 1);
    cr_expect_eq(f.msgs.left, (int64_t)most);
    cr_expect_eq(f.bytes.left, (int64_t)most);
}

Test(flow, what_is_not_bounded_needs_no_credit)
{
    flow_set_msgs(&f, 2);
    cr_expect_eq(flow_add(&f, 0, UINT64_MAX), ST_OK);
    cr_expect(flow_admits(&f, UINT32_MAX, false));
}

Test(flow, a_retained_message_moves_no_place)
{
    tally_reached(t, 1, 50);
    const struct flow_sent s = {.tally = t, .lane = 1, .offset = 7, .bytes = 1, .kind = FLOW_RETAINED};
    cr_assert_eq(flow_spend_numbered(&f, &s), ST_OK);
    cr_expect_eq(t->retained_open, 1);
    cr_expect_eq(ack(1), 1);
    cr_expect_eq(t->retained_open, 0);
    cr_expect_eq(tally_lane(t, 1)->acked, 50);
}

Test(flow, what_is_not_stored_has_no_place)
{
    tally_reached(t, 1, 50);
    const struct flow_sent s = {.tally = t, .lane = 1, .offset = 50, .bytes = 1, .kind = FLOW_UNSTORED};
    cr_assert_eq(flow_spend_numbered(&f, &s), ST_OK);
    cr_expect_eq(t->retained_open, 0);
    cr_expect_eq(ack(1), 1);
    cr_expect_eq(tally_lane(t, 1)->acked, 50, "the next record has that offset");
}

Test(flow, a_tally_outlives_its_subscription)
{
    send_numbered(2, 9, 1);
    tally_unref(t);
    t = NULL;
    cr_expect_eq(ack(1), 1);
}

Test(flow, a_burst_does_not_keep_its_memory)
{
    for (uint64_t i = 0; i < 900; i++)
        send_numbered(0, i, 1);
    cr_expect_eq(f.cap, 1024);
    cr_expect_eq(ack(900), 900);
    cr_expect_eq(f.cap, 0);
    send_numbered(0, 900, 1);
    cr_expect_eq(ack(901), 1);
    cr_expect_eq(f.cap, 16);
}

/* --- against a naive model: a list of everything that was ever sent -------------------------------- */

enum { MODEL_LANES = 3, MODEL_SENT_MAX = 20000 };

static struct {
    struct {
        unsigned lane;
        uint64_t offset;
        uint32_t bytes;
        bool acked;
    } sent[MODEL_SENT_MAX];
    uint64_t count, acked;
    int64_t msgs, bytes;
    uint64_t offsets[MODEL_LANES], start[MODEL_LANES];
} model;

/* Below the first of the lane that is not acknowledged; behind the last one when all are. */
static uint64_t model_place(unsigned lane)
{
    uint64_t place = model.start[lane];
    for (uint64_t i = 0; i < model.count; i++) {
        if (model.sent[i].lane != lane)
            continue;
        if (!model.sent[i].acked)
            break;
        place = model.sent[i].offset + 1;
    }
    return place;
}

static void model_send(unsigned *seed)
{
    unsigned lane = (unsigned)rand_r(seed) % MODEL_LANES;
    uint32_t bytes = 1 + (uint32_t)rand_r(seed) % 60;
    bool fits = model.msgs > 0 && model.bytes >= (int64_t)bytes;
    cr_assert_eq(flow_admits(&f, bytes, false), fits);
    cr_assert_eq(flow_admits(&f, bytes, true), fits && model.count - model.acked < f.open_max);
    if (!flow_admits(&f, bytes, true))
        return;
    model.offsets[lane] += 1 + (uint64_t)rand_r(seed) % 5;
    send_numbered(lane, model.offsets[lane], bytes);
    model.sent[model.count].lane = lane;
    model.sent[model.count].offset = model.offsets[lane];
    model.sent[model.count].bytes = bytes;
    model.count++;
    model.msgs--;
    model.bytes -= bytes;
}

static void model_ack(unsigned *seed)
{
    uint64_t n = model.count > 0 ? (uint64_t)rand_r(seed) % (model.count + 1) : 0, want = 0;
    for (uint64_t i = model.acked; i < n; i++) {
        model.sent[i].acked = true;
        model.msgs++;
        model.bytes += model.sent[i].bytes;
        want++;
    }
    model.acked += want;
    cr_assert_eq(ack(n), want);
}

Test(flow, agrees_with_a_naive_model)
{
    unsigned seed = test_seed();
    memset(&model, 0, sizeof model);
    f.open_max = 100;
    model.msgs = 80;
    model.bytes = 1000; /* no single message is larger */
    flow_set_msgs(&f, 80);
    flow_set_bytes(&f, 1000);
    for (unsigned lane = 0; lane < MODEL_LANES; lane++) {
        model.start[lane] = model.offsets[lane] = 5;
        tally_reached(t, lane, 5);
    }
    for (unsigned step = 0; step < MODEL_SENT_MAX - 1; step++) {
        unsigned what = (unsigned)rand_r(&seed) % 20;
        if (what == 0) {
            model_ack(&seed);
        } else if (what == 1 && model.msgs < 1000) {
            cr_assert_eq(flow_add(&f, 3, 20), ST_OK);
            model.msgs += 3;
            model.bytes += 20;
        } else {
            model_send(&seed);
        }
        cr_assert_eq(f.sent - f.acked, model.count - model.acked);
        cr_assert_eq(f.msgs.left, model.msgs);
        cr_assert_eq(f.bytes.left, model.bytes);
        if (step % 64 == 0)
            for (unsigned lane = 0; lane < MODEL_LANES; lane++)
                cr_assert_eq(tally_lane(t, lane)->acked, model_place(lane), "lane %u", lane);
    }
}
