/* What is remembered of producers and keys, against plain arrays that are simple enough to believe: all that
 * was ever stored, and the rule "the 1,024 greatest". */
#include "routing/once.h"

#include "fakes/seed.h"
#include "routing/once_id.h"
#include "routing/once_note.h"

#include <criterion/criterion.h>
#include <stdio.h>

enum { LOG_MAX = 40000, KEEP_MS = 1000 };

static struct once *table;
static struct once_limits limits;
static uint64_t now_ms, next_offset;

/* The log: messages by offset, notes by offset; trimmed below log_first. */
static struct {
    struct msg *msg;
    struct buf note;
} records[LOG_MAX];
static uint64_t log_first;

static void open_with(uint64_t producers_max, uint64_t keys_max, uint64_t bytes_max)
{
    limits = (struct once_limits){producers_max, keys_max, bytes_max, KEEP_MS};
    cr_assert_eq(once_create(&limits, &table), ST_OK);
    now_ms = 1700000000000;
    next_offset = log_first = 0;
}

static void setup(void)
{
    open_with(1000, 1000, 64 << 20);
}

static void close_all(void)
{
    once_destroy(table);
    for (uint64_t i = 0; i < next_offset; i++) {
        msg_unref(records[i].msg);
        buf_deinit(&records[i].note);
    }
}

TestSuite(once, .init = setup, .fini = close_all);

static struct msg *message(enum once_kind kind, const char *principal, const char *name, uint64_t value,
                           const char *topic)
{
    const struct once_id id = {kind, slice_cstr(principal), slice_cstr(name), value};
    uint8_t props[ONCE_PROP_BYTES_MAX];
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, slice_of(props, once_id_write(&id, props)),
                            slice_cstr("x"), &m),
                 ST_OK);
    m->flags = MSG_ONCE;
    return m;
}

static void append(struct msg *m)
{
    cr_assert(next_offset < LOG_MAX);
    m->offset = m->stored = next_offset;
    m->ts_ms = now_ms;
    records[next_offset++].msg = m;
}

/* As a shard does. 'n': new, and stored; 'd': duplicate; 'b': below; 'o': other. */
static char publish_as(enum once_kind kind, const char *principal, const char *name, uint64_t value,
                       const char *topic, uint64_t *original)
{
    struct msg *m = message(kind, principal, name, value, topic);
    enum once_verdict verdict = once_ask(table, m, now_ms, original);
    if (verdict != ONCE_NEW) {
        msg_unref(m);
        return verdict == ONCE_DUPLICATE ? 'd' : verdict == ONCE_BELOW ? 'b' : 'o';
    }
    append(m);
    *original = m->offset;
    cr_assert_eq(once_fold(table, m, now_ms), ST_OK);
    return 'n';
}

static char put(const char *producer, uint64_t sequence)
{
    uint64_t original;
    return publish_as(ONCE_PRODUCER, "", producer, sequence, "t", &original);
}

static char put_key(const char *key, uint64_t digest, const char *topic)
{
    uint64_t original;
    return publish_as(ONCE_KEY, "", key, digest, topic, &original);
}

/* A start: all is forgotten but the log. */
static void restart(void)
{
    once_destroy(table);
    cr_assert_eq(once_create(&limits, &table), ST_OK);
    once_load(table);
    for (uint64_t i = log_first; i < next_offset; i++) {
        if (records[i].msg)
            cr_assert_eq(once_fold(table, records[i].msg, now_ms), ST_OK);
        if (records[i].note.len > 0)
            cr_assert_eq(once_fold_note(table, buf_slice(&records[i].note), i, now_ms), ST_OK);
    }
    once_loaded(table, now_ms);
}

/* Retention: notes what is needed, then removes everything below. `between` is called between the steps. */
static void trim(uint64_t upto, void (*between)(void))
{
    enum status st;
    once_carry_begin(table, upto);
    do {
        struct buf note;
        buf_init(&note, ONCE_NOTE_BYTES_MAX);
        st = once_carry_next(table, now_ms, &note);
        if (st == ST_OK) {
            cr_assert(next_offset < LOG_MAX);
            records[next_offset].note = note;
            once_carried(table, next_offset++);
        } else {
            buf_deinit(&note);
        }
        if (between)
            between();
    } while (st != ST_NOT_FOUND);
    log_first = upto;
}

Test(once, a_sequence_is_stored_once)
{
    uint64_t first, again = UINT64_MAX;
    cr_expect_eq(publish_as(ONCE_PRODUCER, "", "p", 17, "t", &first), 'n');
    cr_expect_eq(publish_as(ONCE_PRODUCER, "", "p", 17, "t", &again), 'd');
    cr_expect_eq(again, first);
    cr_expect_eq(publish_as(ONCE_PRODUCER, "", "p", 17, "u", &again), 'o', "another topic of the partition");
    cr_expect_eq(publish_as(ONCE_PRODUCER, "", "p", 18, "u", &again), 'n');
    cr_expect_eq(publish_as(ONCE_PRODUCER, "alice", "p", 17, "t", &again), 'n', "another principal");
    cr_expect_eq(publish_as(ONCE_PRODUCER, "al", "icep", 17, "t", &again), 'n');
    cr_expect_eq(put("q", 17), 'n');
    cr_expect_eq(once_counts(table)->producers, 4);
}

Test(once, holes_and_late_ones_are_legal)
{
    cr_expect_eq(put("p", 1000), 'n');
    cr_expect_eq(put("p", 3), 'n');
    cr_expect_eq(put("p", 500), 'n');
    cr_expect_eq(put("p", 3), 'd');
    cr_expect_eq(put("p", 4), 'n');
    cr_expect_eq(put("p", 0), 'n');
    cr_expect_eq(put("p", 0), 'd');
}

Test(once, below_the_window_nothing_is_told)
{
    for (uint64_t i = 0; i < ONCE_WINDOW; i++)
        cr_assert_eq(put("p", 2 * i + 1), 'n');
    cr_expect_eq(put("p", 1), 'd', "the window holds 1,024");
    cr_expect_eq(put("p", 0), 'b', "below all that is remembered");
    cr_expect_eq(put("p", 4), 'n', "a hole within");
    cr_expect_eq(put("p", 1), 'b', "it was pushed out, and is never taken for new or for known");
    cr_expect_eq(put("p", 3), 'd');
    cr_expect_eq(put("p", 2 * ONCE_WINDOW), 'n');
    cr_expect_eq(put("p", 3), 'b');
    cr_expect_eq(put("p", 4), 'd');
}

Test(once, a_key_is_used_once_a_topic)
{
    cr_expect_eq(put_key("k", 7, "t"), 'n');
    cr_expect_eq(put_key("k", 7, "t"), 'd');
    cr_expect_eq(put_key("k", 8, "t"), 'o');
    cr_expect_eq(put_key("k", 8, "u"), 'n');
    cr_expect_eq(put_key("K", 8, "t"), 'n');
    cr_expect_eq(put("k", 7), 'n', "a producer is no key");
}

Test(once, what_is_idle_too_long_is_forgotten_and_begins_anew)
{
    put("p", 1);
    put("busy", 1);
    put_key("k", 7, "t");
    now_ms += KEEP_MS - 1;
    cr_expect_eq(put("p", 1), 'd');
    cr_expect_eq(put_key("k", 8, "t"), 'o');
    put("busy", 2);
    now_ms += 1;
    cr_expect_eq(put("busy", 1), 'd', "a producer is kept while it publishes");
    cr_expect_eq(put_key("k", 8, "t"), 'n');
    cr_expect_eq(put("p", 5), 'n');
    cr_expect_eq(put("p", 1), 'n');
    cr_expect_eq(once_counts(table)->forgotten, 0, "it was its time");
    restart();
    cr_expect_eq(put_key("k", 8, "t"), 'd');
    cr_expect_eq(put("p", 1), 'd');
    cr_expect_eq(put("busy", 1), 'd');
}

Test(once, sequences_that_begin_again_after_the_time_are_not_taken_for_old_ones_by_a_restart)
{
    for (uint64_t i = 0; i < 20; i++)
        put("p", i);
    now_ms += KEEP_MS;
    cr_expect_eq(put("p", 0), 'n');
    restart();
    cr_expect_eq(put("p", 0), 'd');
    cr_expect_eq(put("p", 5), 'n');
}

Test(once, over_the_limits_the_longest_idle_goes)
{
    char name[16];
    once_destroy(table);
    open_with(3, 2, 64 << 20);
    put("a", 1), put("b", 1), put("c", 1), put("a", 2);
    put("d", 1);
    cr_expect_eq(put("a", 1), 'd');
    cr_expect_eq(once_counts(table)->forgotten, 1, "b");
    cr_expect_eq(put("b", 1), 'n');
    cr_expect_eq(put("c", 1), 'n');
    put_key("k", 1, "t"), put_key("l", 1, "t"), put_key("m", 1, "t");
    cr_expect_eq(put_key("l", 1, "t"), 'd');
    cr_expect_eq(put_key("k", 1, "t"), 'n');
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        put(name, 1);
    }
    cr_expect_eq(once_counts(table)->producers, 3);
    restart();
    cr_expect_eq(once_counts(table)->producers, 3);
    cr_expect_eq(put("99", 1), 'd');
    cr_expect_eq(put("97", 1), 'd');
    cr_expect_eq(put("96", 1), 'n');
}

Test(once, memory_is_bounded)
{
    char name[16];
    once_destroy(table);
    open_with(1000, 1000, 20000);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%u", i);
        put(name, 1);
        put_key(name, 1, "t");
        cr_assert_leq(once_counts(table)->bytes, 20000);
    }
    cr_expect_gt(once_counts(table)->forgotten, 0);
    cr_expect_eq(put("299", 1), 'd');
    cr_expect_eq(put_key("299", 1, "t"), 'd');
    for (uint64_t i = 0; i < ONCE_WINDOW; i++)
        put("large", i);
    cr_expect_eq(put("large", 0), 'd', "one that is too large alone is kept, whole");
    cr_expect_eq(once_counts(table)->producers, 1);
}

Test(once, survives_the_records_it_was_learnt_from)
{
    for (uint64_t i = 0; i < 2 * ONCE_WINDOW; i++)
        put("p", i);
    put_key("k", 7, "t");
    uint64_t upto = next_offset;
    put("p", 2 * ONCE_WINDOW);
    put("late", 1);
    trim(upto, NULL);
    cr_expect_eq(next_offset, upto + 2 + 2, "one note for the producer, one for the key");
    restart();
    cr_expect_eq(put("p", ONCE_WINDOW + 1), 'd');
    cr_expect_eq(put("p", ONCE_WINDOW), 'b');
    cr_expect_eq(put("p", 2 * ONCE_WINDOW), 'd');
    cr_expect_eq(put_key("k", 7, "t"), 'd');
    cr_expect_eq(put_key("k", 8, "t"), 'o');
    cr_expect_eq(put("late", 1), 'd');
    trim(next_offset, NULL); /* the notes themselves go */
    restart();
    cr_expect_eq(put("p", ONCE_WINDOW + 1), 'd');
    cr_expect_eq(put_key("k", 7, "t"), 'd');
}

Test(once, a_note_is_of_no_other_kind)
{
    static const uint8_t other[] = {3, 0, 0, 0}, empty[24] = {2}, short_one[] = {2};
    cr_expect_eq(once_fold_note(table, slice_of(other, sizeof other), 1, now_ms), ST_UNSUPPORTED);
    cr_expect_eq(once_fold_note(table, slice_of(empty, sizeof empty), 1, now_ms), ST_INVALID);
    cr_expect_eq(once_fold_note(table, slice_of(short_one, 1), 1, now_ms), ST_INVALID);
    cr_expect_eq(once_fold_note(table, (struct slice){0}, 1, now_ms), ST_INVALID);
    cr_expect_eq(once_counts(table)->producers, 0);
}

/* --- the model -------------------------------------------------------------------------------------- */

enum { PRODUCERS = 5, SEQUENCES = 2600, KEYS = 40, STEPS = 30000 };

static struct {
    uint64_t offset; /* + 1; 0: never stored */
    unsigned topic;
} model[PRODUCERS][SEQUENCES], model_keys[KEYS];
static uint64_t most_stored[PRODUCERS];

static const char *const producers[PRODUCERS] = {"a", "b", "aa", "longer-than-most", "z"};
static const char *const topics[2] = {"t/1", "t/2"};

/* How many of the producer's are greater. */
static unsigned greater(unsigned p, uint64_t sequence)
{
    unsigned n = 0;
    for (uint64_t i = sequence + 1; i < SEQUENCES; i++)
        n += model[p][i].offset != 0;
    return n;
}

static void model_publish(void)
{
    unsigned p = (unsigned)rand() % PRODUCERS, topic = (unsigned)rand() % 20 == 0;
    /* Mostly near the newest, sometimes anywhere. */
    uint64_t sequence = rand() % 4 ? most_stored[p] + (uint64_t)rand() % 4 : (uint64_t)rand() % SEQUENCES;
    uint64_t original = UINT64_MAX;
    if (sequence >= SEQUENCES)
        return;
    char want = model[p][sequence].offset == 0        ? (greater(p, sequence) >= ONCE_WINDOW ? 'b' : 'n')
                : greater(p, sequence) >= ONCE_WINDOW ? 'b'
                : model[p][sequence].topic == topic   ? 'd'
                                                      : 'o';
    char got = publish_as(ONCE_PRODUCER, "", producers[p], sequence, topics[topic], &original);
    cr_assert_eq(got, want, "%s %lu: %c instead of %c", producers[p], (unsigned long)sequence, got, want);
    if (got == 'd')
        cr_assert_eq(original + 1, model[p][sequence].offset);
    if (got != 'n')
        return;
    model[p][sequence].offset = original + 1;
    model[p][sequence].topic = topic;
    if (sequence > most_stored[p] && rand() % 50)
        most_stored[p] = sequence;
}

static void model_publish_key(void)
{
    char name[8];
    unsigned k = (unsigned)rand() % KEYS, digest = (unsigned)rand() % 2;
    uint64_t original = UINT64_MAX;
    snprintf(name, sizeof name, "%u", k);
    char want = model_keys[k].offset == 0 ? 'n' : model_keys[k].topic == digest ? 'd' : 'o';
    char got = publish_as(ONCE_KEY, "me", name, digest, "t", &original);
    cr_assert_eq(got, want, "key %u: %c instead of %c", k, got, want);
    if (got == 'd')
        cr_assert_eq(original + 1, model_keys[k].offset);
    if (got == 'n')
        model_keys[k].offset = original + 1, model_keys[k].topic = digest;
}

static void model_step(void)
{
    if (next_offset + 200 > LOG_MAX)
        return;
    if (rand() % 20 == 0)
        model_publish_key();
    else
        model_publish();
}

Test(once, is_what_a_plain_table_of_all_says, .timeout = 60)
{
    srand(test_seed());
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned what = (unsigned)rand() % 1000;
        if (what == 0)
            restart();
        else if (what < 3 && next_offset > log_first)
            trim(log_first + (uint64_t)rand() % (next_offset - log_first), model_step);
        else
            model_step();
    }
    const struct once_counts before = *once_counts(table);
    restart();
    cr_expect_eq(once_counts(table)->producers, before.producers);
    cr_expect_eq(once_counts(table)->keys, before.keys);
    cr_expect_eq(once_counts(table)->log_bytes, before.log_bytes);
    for (unsigned p = 0; p < PRODUCERS; p++)
        for (uint64_t s = 0; s < SEQUENCES; s++) {
            uint64_t original;
            if (model[p][s].offset == 0)
                continue;
            char want = greater(p, s) >= ONCE_WINDOW ? 'b' : 'd';
            cr_assert_eq(publish_as(ONCE_PRODUCER, "", producers[p], s, topics[model[p][s].topic], &original),
                         want);
        }
}
