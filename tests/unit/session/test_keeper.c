#include "session/keeper.h"

#include "routing/attachment.h"

#include "fakes/exchange.h"
#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { LOOPS = 3, LANES = 4, STORY_BYTES = 64 };

static struct exchange x;
static struct registry *registries[LOOPS];
static struct keeper_limits limits;

/* A connection: its state is one text. */
struct fake {
    struct keeper *keeper;
    char state[32];
    char story[STORY_BYTES]; /* "read(<record>)", "none", "kept", "<status>", "taken" */
    struct keeper_wait wait;
    bool waiting;
    enum status kept;
};

static void tell(struct fake *f, const char *what)
{
    size_t len = strlen(f->story);
    snprintf(f->story + len, sizeof f->story - len, "%s%s", len > 0 ? " " : "", what);
}

static enum status on_snapshot(void *conn, struct buf *out)
{
    struct fake *f = conn;
    enum status st = buf_put_cstr(out, f->state);
    return st == ST_FULL ? ST_TOO_LARGE : st;
}

static void on_read(void *conn, enum status status, struct slice record)
{
    struct fake *f = conn;
    char text[48];
    snprintf(text, sizeof text, "read(%.*s)", SLICE_ARG(record));
    tell(f, status == ST_OK ? text : "none");
    if (status == ST_OK)
        snprintf(f->state, sizeof f->state, "%.*s", SLICE_ARG(record));
}

/* As the door does, in the callback. */
static void on_taken(void *conn)
{
    struct fake *f = conn;
    tell(f, "taken");
    keeper_close(f->keeper, KEEPER_DETACH);
    f->keeper = NULL;
}

static const struct keeper_ops ops = {.snapshot = on_snapshot, .on_read = on_read, .on_taken = on_taken};

static void on_kept(struct keeper_wait *w, enum status status)
{
    struct fake *f = LIST_OF(w, struct fake, wait);
    f->waiting = false;
    f->kept = status;
    tell(f, status == ST_OK ? "kept" : status_name(status));
    if (status == ST_AGAIN)
        keeper_read_again(f->keeper);
}

static void setup(void)
{
    limits = (struct keeper_limits){
        .expiry_ms = 100000, .save_ms = 1000, .save_count = 10, .record_bytes_max = 20};
    exchange_open(&x, LOOPS, LANES);
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(registry_create(x.couriers[i], &registries[i]), ST_OK);
    for (unsigned i = 0; i < LOOPS; i++)
        for (unsigned k = 0; k < LOOPS; k++)
            registry_meet(registries[i], k, registries[k], LOOPS);
}

static void pass(uint64_t ms)
{
    ex_mono_ms += ms;
    ex_wall_ms += ms;
    exchange_settle(&x);
    ex_mono_ms += 8; /* what was armed for now */
    exchange_settle(&x);
}

static void teardown(void)
{
    pass(8);
    cr_expect_eq(exchange_metric(&x, M_REFUSED_QUOTA), 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        cr_expect_eq(registry_count(registries[i]), 0, "all claims are given back");
        registry_destroy(registries[i]);
    }
    exchange_close(&x);
}

TestSuite(keeper, .init = setup, .fini = teardown);

static const char *name_of(unsigned n)
{
    static char name[KEEPER_NAME_BYTES + 1];
    snprintf(name, sizeof name, "%064u", n);
    return name;
}

static void start(struct fake *f, unsigned loop, unsigned name, const char *state)
{
    *f = (struct fake){0};
    list_init(&f->wait.link);
    f->wait.on_kept = on_kept;
    snprintf(f->state, sizeof f->state, "%s", state);
    cr_assert_eq(keeper_start(x.hubs[loop], registries[loop], &limits, &ops, f, name_of(name), &f->keeper),
                 ST_OK);
}

static void resume(struct fake *f, unsigned loop, unsigned name)
{
    *f = (struct fake){0};
    list_init(&f->wait.link);
    f->wait.on_kept = on_kept;
    cr_assert_eq(keeper_resume(x.hubs[loop], registries[loop], &limits, &ops, f, name_of(name), &f->keeper),
                 ST_OK);
}

static void want(struct fake *f)
{
    f->waiting = true;
    keeper_want(f->keeper, &f->wait);
}

static void close_as(struct fake *f, enum keeper_end end)
{
    keeper_close(f->keeper, end);
    f->keeper = NULL;
}

/* What somebody who resumes reads; nothing is changed. */
static void expect_record(unsigned name, const char *story)
{
    struct fake f;
    resume(&f, 0, name);
    pass(8);
    cr_expect_str_eq(f.story, story);
    close_as(&f, KEEPER_LEAVE);
    pass(8);
}

Test(keeper, what_is_wanted_is_told_when_it_is_durable)
{
    struct fake f;
    start(&f, 1, 1, "s1");
    want(&f);
    ex_mono_ms += 8;
    for (unsigned n = 0; n < 20; n++)
        for (unsigned i = 0; i < LOOPS; i++)
            exchange_turn(&x, i);
    cr_expect_str_eq(f.story, "", "it is appended, but nothing is durable yet");
    pass(8);
    cr_expect_str_eq(f.story, "kept");
    close_as(&f, KEEPER_LEAVE);
    pass(8);
    expect_record(1, "read(s1)");
}

Test(keeper, nothing_is_written_before_it_is_wanted)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    keeper_moved(f.keeper, 100);
    pass(5000);
    close_as(&f, KEEPER_DETACH);
    pass(8);
    expect_record(1, "none");
    cr_expect_eq(exchange_metric(&x, M_SESSION_WRITES), 0);
}

Test(keeper, moved_places_are_written_after_a_while_or_a_number)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    want(&f);
    pass(8);
    keeper_moved(f.keeper, 1);
    pass(900);
    cr_expect_eq(exchange_metric(&x, M_SESSION_WRITES), 1);
    pass(200);
    cr_expect_eq(exchange_metric(&x, M_SESSION_WRITES), 2);
    keeper_moved(f.keeper, 9);
    pass(8);
    cr_expect_eq(exchange_metric(&x, M_SESSION_WRITES), 2);
    keeper_moved(f.keeper, 1);
    pass(8);
    cr_expect_eq(exchange_metric(&x, M_SESSION_WRITES), 3);
    close_as(&f, KEEPER_LEAVE);
}

Test(keeper, detaching_writes_and_forgetting_removes)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    want(&f);
    pass(8);
    snprintf(f.state, sizeof f.state, "s2");
    close_as(&f, KEEPER_DETACH);
    pass(8);
    expect_record(1, "read(s2)");
    resume(&f, 2, 1);
    pass(8);
    want(&f);
    pass(8);
    close_as(&f, KEEPER_FORGET);
    pass(8);
    expect_record(1, "none");
    cr_expect_eq(exchange_metric(&x, M_SESSIONS), 0);
}

Test(keeper, closed_at_any_moment)
{
    static const enum keeper_end ends[] = {KEEPER_LEAVE, KEEPER_DETACH, KEEPER_FORGET};
    unsigned name = 100;
    for (unsigned e = 0; e < 3; e++) {
        for (unsigned turns = 0; turns < 24; turns++, name++) {
            struct fake f, g;
            start(&f, turns % LOOPS, name, "s1");
            want(&f);
            pass(8);
            close_as(&f, KEEPER_LEAVE);
            pass(8);
            resume(&g, (turns + 1) % LOOPS, name);
            for (unsigned n = 0; n < turns; n++) {
                exchange_turn(&x, n % LOOPS);
                ex_mono_ms += 4;
                if (!g.waiting && strcmp(g.story, "read(s1)") == 0)
                    want(&g);
            }
            close_as(&g, ends[e]);
            pass(8);
            expect_record(name, ends[e] == KEEPER_FORGET ? "none" : "read(s1)");
        }
    }
}

Test(keeper, whoever_resumes_takes_over)
{
    struct fake first, second;
    start(&first, 0, 1, "s1");
    want(&first);
    pass(8);
    resume(&second, 2, 1);
    pass(8);
    cr_expect_str_eq(first.story, "kept taken");
    cr_expect_str_eq(second.story, "read(s1)");
    snprintf(second.state, sizeof second.state, "s2");
    want(&second);
    pass(8);
    cr_expect_str_eq(second.story, "read(s1) kept");
    close_as(&second, KEEPER_LEAVE);
    pass(8);
    expect_record(1, "read(s2)");
}

Test(keeper, a_refusal_is_told_and_tried_again)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    x.log.append_status = ST_NO_SPACE;
    x.log.append_failures = 1;
    want(&f);
    pass(8);
    cr_expect_str_eq(f.story, "no_space");
    pass(1100);
    close_as(&f, KEEPER_LEAVE);
    pass(8);
    expect_record(1, "read(s1)");
}

Test(keeper, a_record_has_a_limit)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    want(&f);
    pass(8);
    snprintf(f.state, sizeof f.state, "more than twenty bytes");
    want(&f);
    pass(8);
    cr_expect_str_eq(f.story, "kept too_large");
    close_as(&f, KEEPER_DETACH);
    pass(8);
    expect_record(1, "read(s1)");
}

Test(keeper, a_session_expires_unless_somebody_has_it)
{
    struct fake f;
    start(&f, 0, 1, "s1");
    want(&f);
    for (unsigned i = 0; i < 10; i++)
        pass(30000);
    close_as(&f, KEEPER_LEAVE);
    pass(8);
    expect_record(1, "read(s1)");
    pass(100000);
    expect_record(1, "none");
}

/* --- what the shard admits ------------------------------------------------------------------------ */

static enum status answered;

static void on_answer(struct publish *p)
{
    answered = p->status;
    publish_free(p);
}

static enum status write_record(enum session_write how, uint64_t attachment, uint64_t based_on,
                                const char *payload, uint64_t *offset)
{
    char key[ATTACHMENT_BYTES];
    struct msg *m;
    struct publish *p;
    attachment_write(attachment, key);
    cr_assert_eq(msg_create(slice_cstr("$session/x"), slice_of(key, sizeof key), (struct slice){0},
                            slice_cstr(payload), &m),
                 ST_OK);
    m->flags = MSG_RETAIN;
    msg_ref(m);
    cr_assert_eq(publish_create(m, &p), ST_OK);
    p->wait = true;
    p->session = (uint8_t)how;
    p->based_on = based_on;
    p->on_published = on_answer;
    answered = ST_COUNT;
    shard_map_publish(&x.map, x.couriers[0], topic_partition(slice_cstr("$session/x"), LANES), p);
    exchange_settle(&x);
    if (answered == ST_OK)
        *offset = m->offset;
    msg_unref(m);
    return answered;
}

Test(keeper, the_shard_admits_the_newest_attachment_only)
{
    uint64_t at = 0;
    cr_expect_eq(write_record(SESSION_UPDATE, 1, 0, "a", &at), ST_GONE, "there is none");
    cr_expect_eq(write_record(SESSION_ATTACH, 1, 5, "a", &at), ST_AGAIN, "there is none to be based on");
    cr_expect_eq(write_record(SESSION_ATTACH, 1, 0, "a", &at), ST_OK);
    cr_expect_eq(write_record(SESSION_ATTACH, 1, at + 1, "b", &at), ST_GONE, "not later");
    uint64_t read = at;
    cr_expect_eq(write_record(SESSION_UPDATE, 1, 0, "b", &at), ST_OK);
    cr_expect_eq(write_record(SESSION_ATTACH, 2, read + 1, "c", &at), ST_AGAIN, "it was written since");
    cr_expect_eq(write_record(SESSION_ATTACH, 2, at + 1, "c", &at), ST_OK);
    cr_expect_eq(write_record(SESSION_UPDATE, 1, 0, "d", &at), ST_GONE, "of an older attachment");
    cr_expect_eq(write_record(SESSION_UPDATE, 1, 0, "", &at), ST_GONE);
    cr_expect_eq(write_record(SESSION_ATTACH, 2, read + 1, "e", &at), ST_AGAIN, "the second of two");
    cr_expect_eq(write_record(SESSION_UPDATE, 2, 0, "", &at), ST_OK);
    cr_expect_eq(write_record(SESSION_UPDATE, 2, 0, "f", &at), ST_GONE, "it is over");
    cr_expect_eq(exchange_metric(&x, M_SESSIONS), 0);
    cr_expect_eq(exchange_metric(&x, M_RETAINED), 0);
}

/* --- many of them, in any order --------------------------------------------------------------------- */

/* A state is a number that only grows. What a holder was told is kept, nobody reads older. */
enum { NAMES = 3, FAKES = 6, STEPS = 3000 };

static unsigned long number_of(const char *text)
{
    return strtoul(text, NULL, 10);
}

static void walk_at_random(unsigned seed)
{
    static struct fake fakes[FAKES];
    unsigned names[FAKES] = {0};
    unsigned long next = 1, kept[NAMES] = {0}, sent[FAKES] = {0};
    memset(fakes, 0, sizeof fakes);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rand_r(&seed) % FAKES;
        struct fake *f = &fakes[i];
        switch (rand_r(&seed) % 8) {
        case 0:
            if (!f->keeper) {
                names[i] = (unsigned)rand_r(&seed) % NAMES;
                resume(f, (unsigned)rand_r(&seed) % LOOPS, 1000 + names[i]);
                sent[i] = 0;
            }
            break;
        case 1:
            if (f->keeper && rand_r(&seed) % 4 == 0)
                close_as(f, rand_r(&seed) % 2 ? KEEPER_DETACH : KEEPER_LEAVE);
            break;
        default:
            exchange_turn(&x, (unsigned)rand_r(&seed) % LOOPS);
            while (rand_r(&seed) % 2 && fake_log_serve(&x.log))
                ;
            fake_log_sync(&x.log, (unsigned)rand_r(&seed) % LANES, UINT64_MAX);
            ex_mono_ms += 4;
        }
        for (unsigned k = 0; k < FAKES; k++) {
            struct fake *g = &fakes[k];
            if (g->story[0] == '\0' || !g->keeper) {
                g->story[0] = '\0';
                continue;
            }
            const char *last = strrchr(g->story, ' ') ? strrchr(g->story, ' ') + 1 : g->story;
            bool was_read = strncmp(last, "read(", 5) == 0, none = strcmp(last, "none") == 0;
            if (strcmp(last, "kept") == 0 && sent[k] > kept[names[k]])
                kept[names[k]] = sent[k];
            if (was_read)
                cr_assert_geq(number_of(g->state), kept[names[k]], "an older state was read than was kept");
            if (none && kept[names[k]] == 0) { /* the first of this name */
                close_as(g, KEEPER_LEAVE);
                start(g, k % LOOPS, 1000 + names[k], "");
            }
            if (!g->waiting && (was_read || none || strcmp(last, "kept") == 0)) {
                sent[k] = next++;
                snprintf(g->state, sizeof g->state, "%lu", sent[k]);
                g->story[0] = '\0';
                want(g);
            } else {
                g->story[0] = '\0';
            }
        }
    }
    for (unsigned k = 0; k < FAKES; k++)
        if (fakes[k].keeper)
            close_as(&fakes[k], KEEPER_LEAVE);
    pass(8);
}

Test(keeper, nobody_reads_older_than_what_was_kept)
{
    walk_at_random(test_seed());
}

/* By a refused write the record is on its way already: a second READ of it would be one letter in two chains.
 */
Test(keeper, a_claim_that_is_answered_while_the_record_is_read)
{
    walk_at_random(4138819100u);
}
