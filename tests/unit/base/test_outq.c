#include "gateway/outq.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

static struct outq q;
static int ends[2];

static void setup(void)
{
    outq_init(&q, 1000);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
}

static void teardown(void)
{
    outq_deinit(&q);
    close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
}

TestSuite(outq, .init = setup, .fini = teardown);

/* All bytes in order, as gather gives them. */
static struct slice queued(void)
{
    static uint8_t bytes[1 << 20];
    struct iovec pieces[64];
    size_t len = 0;
    int n = outq_gather(&q, pieces, 64);
    for (int i = 0; i < n; i++) {
        memcpy(bytes + len, pieces[i].iov_base, pieces[i].iov_len);
        len += pieces[i].iov_len;
    }
    cr_assert_eq(len, q.bytes, "gather and the count agree");
    return slice_of(bytes, len);
}

#define expect_queued(want)                                                                                  \
    do {                                                                                                     \
        struct slice got_bytes = queued();                                                                   \
        cr_expect(slice_equal_cstr(got_bytes, want), "\"%.*s\" instead of \"%s\"", SLICE_ARG(got_bytes),     \
                  want);                                                                                     \
    } while (0)

static void put(const char *text)
{
    cr_assert_eq(outq_put(&q, slice_cstr(text)), ST_OK);
}

static void put_span(const char *text, size_t from, size_t len)
{
    cr_assert_eq(outq_put_span(&q, slice_of(text + from, len)), ST_OK);
}

Test(outq, adjacent_spans_stay_one_borrowed_piece)
{
    static const char scratch[] = "abcdefghij";
    struct iovec pieces[4];
    put_span(scratch, 0, 3);
    put_span(scratch, 3, 4);
    put_span(scratch, 7, 3);
    cr_assert_eq(outq_gather(&q, pieces, 4), 1);
    cr_expect_eq(pieces[0].iov_base, (const void *)scratch, "not copied");
    expect_queued("abcdefghij");
}

Test(outq, what_is_put_after_a_span_comes_after_it)
{
    static const char scratch[] = "abcdefghij";
    put_span(scratch, 0, 3);
    put("XY");
    put_span(scratch, 5, 2);
    put_span(scratch, 2, 1);
    expect_queued("abcXYfgc");
}

Test(outq, a_span_apart_from_the_one_before_is_copied_behind_it)
{
    static const char scratch[] = "abcdefghij";
    put_span(scratch, 4, 2);
    put_span(scratch, 0, 2);
    put_span(scratch, 2, 2); /* adjacent to what was copied, not to a span */
    expect_queued("efabcd");
}

Test(outq, owning_a_span_lets_its_bytes_go)
{
    char scratch[2000];
    memset(scratch, 'a', sizeof scratch);
    cr_assert_eq(outq_put_span(&q, slice_of(scratch, sizeof scratch)), ST_OK);
    cr_assert_eq(outq_own(&q), ST_OK);
    memset(scratch, 'b', sizeof scratch);
    struct slice got = queued();
    cr_assert_eq(got.len, sizeof scratch);
    for (size_t i = 0; i < got.len; i++)
        cr_assert_eq(got.data[i], 'a');
}

Test(outq, room_is_bounded_but_an_empty_queue_takes_one_of_any_size)
{
    cr_expect(outq_has_room(&q, 5000));
    put("x");
    cr_expect(outq_has_room(&q, 999));
    cr_expect_not(outq_has_room(&q, 1000));
    outq_sent(&q, 1);
    cr_expect_eq(q.bytes, 0u);
    cr_expect(outq_has_room(&q, 5000));
}

Test(outq, nothing_put_is_nothing)
{
    put("");
    cr_expect_eq(q.bytes, 0u);
    struct iovec piece;
    cr_expect_eq(outq_gather(&q, &piece, 1), 0);
}

Test(outq, flushes_to_a_socket_and_keeps_what_it_does_not_take)
{
    static char large[4 << 20];
    static char got[4 << 20];
    size_t sent, total = 0, received = 0;
    struct stream stream = stream_plain(ends[0]);
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 >> 3);
    put("head");
    cr_assert_eq(outq_put_span(&q, slice_of(large, sizeof large)), ST_OK);
    enum status st = outq_flush(&q, &stream, &sent);
    cr_assert_eq(st, ST_AGAIN);
    cr_expect_eq(q.span.len, 0u, "the rest is owned");
    cr_expect_eq(q.bytes, 4 + sizeof large - sent);
    total = sent;
    char head[4];
    cr_assert_eq(recv(ends[1], head, 4, 0), 4);
    cr_expect_eq(memcmp(head, "head", 4), 0);
    while (received < sizeof large) {
        ssize_t n = recv(ends[1], got + received, sizeof got - received, 0);
        if (n > 0)
            received += (size_t)n;
        if (st == ST_AGAIN) {
            st = outq_flush(&q, &stream, &sent);
            cr_assert(st == ST_OK || st == ST_AGAIN);
            total += sent;
        }
    }
    cr_expect_eq(total, 4 + sizeof large);
    cr_expect_eq(st, ST_OK);
    cr_expect_eq(q.bytes, 0u);
    cr_expect_eq(memcmp(got, large, sizeof large), 0);
}

Test(outq, a_peer_that_has_gone_is_told_without_a_signal)
{
    size_t sent;
    struct stream stream = stream_plain(ends[0]);
    close(ends[1]);
    ends[1] = -1;
    put("x");
    cr_expect_eq(outq_flush(&q, &stream, &sent), ST_CLOSED);
    cr_expect_eq(sent, 0u);
}

Test(outq, deinit_leaves_the_list_of_dirty_ones)
{
    struct list dirty;
    list_init(&dirty);
    list_push(&dirty, &q.dirty);
    put("x");
    outq_deinit(&q);
    cr_expect(list_empty(&dirty));
    cr_expect_eq(q.bytes, 0u);
}

/* Puts, spans (adjacent or not), turns' ends and partial sends against one flat array. */
Test(outq, random_against_a_flat_array)
{
    static uint8_t scratch[64 << 10], want[64 << 20];
    size_t put_total = 0, sent_total = 0, used = 0;
    unsigned seed = test_seed();
    for (unsigned step = 0; step < 20000; step++) {
        unsigned what = (unsigned)rand_r(&seed) % 10;
        size_t len = (unsigned)rand_r(&seed) % (what == 9 ? 9000 : 300) + 1;
        uint8_t byte = (uint8_t)step;
        if (what < 3) {
            uint8_t *place = outq_reserve(&q, len);
            cr_assert(place);
            memset(place, byte, len);
        } else if (what < 6 || what == 9) {
            if (rand_r(&seed) % 4 == 0 && used + 1 < sizeof scratch)
                used++; /* not adjacent */
            if (used + len > sizeof scratch)
                continue;
            memset(scratch + used, byte, len);
            cr_assert_eq(outq_put_span(&q, slice_of(scratch + used, len)), ST_OK);
            used += len;
        } else if (what < 8) {
            size_t n = q.bytes ? (unsigned)rand_r(&seed) % (q.bytes + 1) : 0;
            struct slice got = queued();
            cr_assert_eq(memcmp(got.data, want + sent_total, got.len), 0, "step=%u", step);
            outq_sent(&q, n);
            sent_total += n;
            continue;
        } else {
            cr_assert_eq(outq_own(&q), ST_OK); /* the turn ends: scratch is used anew */
            memset(scratch, 0xee, sizeof scratch);
            used = 0;
            continue;
        }
        memset(want + put_total, byte, len);
        put_total += len;
        cr_assert_eq(q.bytes, put_total - sent_total, "step=%u", step);
        if (q.bytes > 200000) {
            sent_total += q.bytes;
            outq_sent(&q, q.bytes);
        }
    }
}
