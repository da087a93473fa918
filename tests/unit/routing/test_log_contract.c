/* What every topic log does, whoever orders the records: the embedded store, the fake, and Kafka when
 * TG_KAFKA has the addresses of brokers (tests/e2e/test_kafka.py runs it so). One thread, which is the lane's
 * loop. */
#include "fakes/fake_topic_log.h"
#include "fakes/store_world.h"
#include "routing/proposal.h"
#include "routing/topic_log_kafka.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sys/random.h>

enum { RECORDS_MAX = 4000, TOPICS = 3, RECORD_BYTES_MAX_HERE = 1 << 20 };

enum kind { EMBEDDED, FAKE, KAFKA, KINDS };
static const char *const names[KINDS] = {"embedded", "fake", "kafka"};

static struct world w; /* the store, or the mirror; its folder and loop in any case */
static enum kind kind;
static struct topic_log port;
static struct fake_log fake;
static struct log_kafka *kafka;
static struct log_kafka_options options;
static char prefix[64];

/* What was submitted, and what became of it. */
static struct {
    uint64_t offset, ts_ms;
    bool complete;
} records[RECORDS_MAX];
static uint64_t submitted, completed, sequence_base;
static struct msg *proposed[RECORDS_MAX]; /* the fake's, not brought yet */
static unsigned proposed_count;

static void complete(uint64_t number, uint64_t offset, uint64_t ts_ms)
{
    cr_assert(loop_is_current(w.loop), "a completion on another thread");
    cr_assert_eq(number, completed, "%s: %lu is complete before %lu", names[kind], number, completed);
    records[number].offset = offset;
    records[number].ts_ms = ts_ms;
    records[number].complete = true;
    completed++;
}

/* --- an order given at once --- */

static void on_durable(struct world *of, unsigned lane, uint64_t next)
{
    (void)of, (void)lane;
    while (completed < submitted && records[completed].offset < next)
        complete(completed, records[completed].offset, records[completed].ts_ms);
}

/* --- an order given elsewhere --- */

static void on_arrived(void *ctx, unsigned lane, struct msg *m)
{
    struct proposal p;
    (void)ctx;
    cr_assert_eq(m->offset + 1, port.ops->next(port.ctx, lane), "the node's own copy has it by now");
    if (proposal_read(msg_props(m), &p) && p.incarnation == port.ops->incarnation(port.ctx))
        complete(sequence_base + p.sequence - 1, m->offset, m->ts_ms);
}

/* Asked for by is_reported; and it says what that says then. */
static void on_reported(void *ctx, unsigned lane, uint64_t sequence)
{
    (void)ctx;
    cr_assert(loop_is_current(w.loop), "a report on another thread");
    cr_assert(port.ops->is_reported(port.ctx, lane, sequence));
}

static void on_lost(void *ctx, unsigned lane, uint64_t sequence, enum status st)
{
    (void)ctx, (void)lane;
    cr_assert_fail("%s: %lu is lost: %s", names[kind], sequence, status_name(st));
}

static const struct topic_log_events events = {
    .on_arrived = on_arrived, .on_reported = on_reported, .on_lost = on_lost};

static enum status on_propose(struct fake_log *f, struct msg *m)
{
    (void)f;
    proposed[proposed_count++] = msg_ref(m);
    return ST_OK;
}

static void turn(void)
{
    for (unsigned i = 0; i < proposed_count; i++) {
        struct msg *m = fake_log_bring(&fake, 0, proposed[i], loop_wall_ms(w.loop));
        on_arrived(NULL, 0, m);
        msg_unref(proposed[i]);
    }
    proposed_count = 0;
    while (kind == FAKE && fake_log_serve(&fake))
        ;
    world_turn(&w);
}

/* --- opening and closing --- */

static void open_kafka(void)
{
    struct mirror_source source;
    bool kept;
    options = (struct log_kafka_options){.node_id = "contract",
                                         .brokers = getenv("TG_KAFKA"),
                                         .prefix = prefix,
                                         .ca_file = "",
                                         .cert_file = "",
                                         .key_file = "",
                                         .user = "",
                                         .password = "",
                                         .lane_count = 1,
                                         .replication = 1,
                                         .min_isr = 1,
                                         .record_bytes_max = RECORD_BYTES_MAX_HERE,
                                         .message_timeout_ms = 60000,
                                         .stall_ms = 60000,
                                         .queue_bytes = 1 << 20,
                                         .start_ms = 60000,
                                         .behind_ms = 5000,
                                         .clock = clock_system()};
    buf_clear(&w.error);
    enum status st = log_kafka_open(&options, &kafka, &w.error);
    cr_assert_eq(st, ST_OK, "%.*s", (int)w.error.len, w.error.data);
    log_kafka_source(kafka, &source);
    cr_assert_eq(mirror_prepare(w.dir, &source, false, &w.options.mirror_epoch, &kept, &w.error), ST_OK);
    w.options.voids_max = 1000;
    w.options.sync = STORE_SYNC_NEVER;
    cr_assert_eq(store_open(&w.options, &w.store, &w.error), ST_OK);
    cr_assert_eq(log_kafka_compare(kafka, w.store, w.dir, &w.error), ST_OK);
    port = log_kafka_port(kafka, w.store);
    port.ops->bind(port.ctx, 0, w.loop, NULL, NULL, w.metrics);
    port.ops->meet(port.ctx, 0, &events, NULL);
    loop_dispatch(w.loop);
    cr_assert_eq(log_kafka_start(kafka), ST_OK);
    for (uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS; log_kafka_state(kafka) != LOG_KAFKA_READY;) {
        cr_assert_lt(world_now_ms(), deadline, "the end that was seen at the start is not reached");
        turn();
    }
}

static void open_log(void)
{
    sequence_base = submitted;
    if (kind == KAFKA) {
        open_kafka();
    } else if (kind == FAKE) {
        fake.incarnation++;
        fake.on_propose = on_propose;
        port = fake_log_port(&fake);
        port.ops->bind(port.ctx, 0, w.loop, NULL, NULL, w.metrics);
    } else {
        world_open(&w);
        w.on_durable = on_durable;
        port = topic_log_local(w.store);
    }
    loop_dispatch(w.loop);
}

static void close_log(void)
{
    log_kafka_stop(kafka);
    world_turn(&w);
    if (kind != FAKE)
        world_close(&w);
    log_kafka_close(kafka);
    kafka = NULL;
}

static bool begin(enum kind which)
{
    uint64_t chance;
    kind = which;
    if (kind == KAFKA && !getenv("TG_KAFKA"))
        return false;
    cr_assert_eq(getrandom(&chance, sizeof chance, 0), (ssize_t)sizeof chance);
    snprintf(prefix, sizeof prefix, "contract-%016lx", chance);
    submitted = completed = 0;
    world_init(&w, 1);
    if (kind == FAKE)
        fake_log_init(&fake, 1);
    open_log();
    return true;
}

static void end(void)
{
    close_log();
    if (kind == FAKE)
        fake_log_deinit(&fake);
    world_deinit(&w);
}

/* --- submitting and reading --- */

static struct msg *record_of(uint64_t number, uint32_t bytes)
{
    char topic[32];
    struct msg *m;
    char *text = calloc(1, bytes < 32 ? 32 : bytes);
    int len = snprintf(text, 32, "record %lu", number);
    snprintf(topic, sizeof topic, "t/%lu", number % TOPICS);
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0},
                            slice_of(text, bytes ? bytes : (uint32_t)len), &m),
                 ST_OK);
    free(text);
    return m;
}

static enum status submit_sized(uint32_t bytes)
{
    struct msg *m = record_of(submitted, bytes);
    enum status st;
    loop_update_time(w.loop);
    if (port.ops->propose) {
        const struct proposal p = {.condition = PROPOSAL_FREE,
                                   .incarnation = port.ops->incarnation(port.ctx),
                                   .sequence = submitted - sequence_base + 1};
        struct msg *stamped;
        cr_assert_eq(proposal_stamp(m, &p, &stamped), ST_OK);
        st = port.ops->propose(port.ctx, 0, stamped);
        msg_unref(stamped);
    } else {
        st = port.ops->append(port.ctx, 0, m, true);
        records[submitted].offset = m->offset;
        records[submitted].ts_ms = m->ts_ms;
    }
    msg_unref(m);
    submitted += st == ST_OK;
    return st;
}

static void submit(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(submit_sized(0), ST_OK);
    port.ops->flush(port.ctx, 0);
}

static bool all_reported(void)
{
    return !port.ops->propose || !port.ops->is_reported || submitted == sequence_base ||
           port.ops->is_reported(port.ctx, 0, submitted - sequence_base);
}

/* All have come, and are known to be durable. */
static void wait_complete(void)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (completed < submitted || !all_reported()) {
        cr_assert_lt(world_now_ms(), deadline, "%s: %lu of %lu are complete", names[kind], completed,
                     submitted);
        turn();
    }
}

static void read_run(struct world_read *r)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    r->read.home = w.loop;
    r->done = false;
    loop_update_time(w.loop);
    port.ops->read_start(port.ctx, &r->read);
    while (!r->done) {
        cr_assert_lt(world_now_ms(), deadline);
        turn();
    }
    cr_assert_eq(r->read.status, ST_OK);
}

/* All that was submitted is there, in order, at the places that were told. */
static void check_records(const char *topic)
{
    uint64_t number = 0, from = port.ops->first(port.ctx, 0);
    for (bool all = false; !all;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        if (topic)
            r.read.topic = slice_cstr(topic);
        read_run(&r);
        for (uint64_t i = 0; i < r.read.found; i++, number++) {
            while (topic && number % TOPICS != (uint64_t)(topic[2] - '0'))
                number++;
            struct msg *want = record_of(number, 0);
            cr_assert(slice_equal(msg_payload(want), msg_payload(r.read.msgs[i])), "%s: %lu is %.*s",
                      names[kind], number, SLICE_ARG(msg_payload(r.read.msgs[i])));
            cr_assert_eq(r.read.msgs[i]->offset, records[number].offset);
            cr_assert_eq(r.read.msgs[i]->ts_ms, records[number].ts_ms);
            msg_unref(want);
        }
        from = r.read.next;
        all = store_read_complete(&r.read);
        world_read_free(&r);
    }
    while (topic && number < submitted && number % TOPICS != (uint64_t)(topic[2] - '0'))
        number++;
    cr_assert_eq(number, submitted, "%s: %lu of %lu are there", names[kind], number, submitted);
}

ParameterizedTestParameters(log_contract, kinds)
{
    static enum kind all[] = {EMBEDDED, FAKE, KAFKA};
    return cr_make_param_array(enum kind, all, KINDS);
}

/* The parameter comes by a pointer into another process's memory, as Criterion has it. */
static void batches_and_restarts(enum kind which)
{
    if (!begin(which))
        return;
    for (unsigned run = 0; run < 3; run++) {
        for (unsigned batch = 1; batch <= 100; batch *= 10) {
            submit(batch);
            wait_complete();
        }
        submit(200);
        wait_complete();
        check_records(NULL);
        check_records("t/1");
        uint64_t next = port.ops->next(port.ctx, 0);
        uint32_t epoch = port.ops->epoch(port.ctx);
        uint64_t incarnation = port.ops->incarnation(port.ctx);
        close_log();
        open_log();
        cr_assert_geq(port.ops->next(port.ctx, 0), next, "offsets are never given twice");
        cr_assert_eq(port.ops->epoch(port.ctx), epoch);
        cr_assert_neq(port.ops->incarnation(port.ctx), incarnation);
        check_records(NULL);
    }
    end();
}

static void times(enum kind which)
{
    if (!begin(which))
        return;
    for (unsigned i = 0; i < 20; i++) {
        submit(5);
        wait_complete();
        usleep(2000);
    }
    for (unsigned i = 0; i < 100; i++) {
        struct world_read r;
        world_read_init(&r, 0, 0);
        r.read.locate = STORE_AT_TIME;
        r.read.locate_value = records[i].ts_ms;
        read_run(&r);
        cr_assert_gt(r.read.found, 0);
        cr_assert_geq(r.read.msgs[0]->ts_ms, records[i].ts_ms);
        cr_assert_leq(r.read.msgs[0]->offset, records[i].offset, "%s: by time %u comes behind its record",
                      names[kind], i);
        cr_assert(i == 0 || records[i].ts_ms >= records[i - 1].ts_ms, "times fall");
        world_read_free(&r);
    }
    end();
}

static void refusals(enum kind which)
{
    enum { LARGE = 100 << 10 };
    if (!begin(which))
        return;
    uint64_t before = port.ops->next(port.ctx, 0);
    if (kind == FAKE) {
        fake.append_failures = 1;
        fake.append_status = ST_FULL;
    }
    /* Nothing leaves before the flush: so much is too much, however fast the disk or the brokers are. */
    enum status st = ST_OK;
    while (st == ST_OK && submitted < 1000)
        st = submit_sized(LARGE);
    cr_assert_eq(st, ST_FULL, "%s: %s", names[kind], status_name(st));
    port.ops->flush(port.ctx, 0);
    wait_complete();
    cr_assert_eq(port.ops->next(port.ctx, 0) - before, submitted, "what was refused has no place");
    /* What is done with is told after what came out of it: for a moment it may be full still. */
    for (uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS; (st = submit_sized(LARGE)) == ST_FULL;) {
        cr_assert_lt(world_now_ms(), deadline, "%s: it does not go on", names[kind]);
        turn();
    }
    cr_assert_eq(st, ST_OK, "and then it goes on");
    port.ops->flush(port.ctx, 0);
    wait_complete();
    if (kind == KAFKA) {
        cr_assert_eq(submit_sized(RECORD_BYTES_MAX_HERE), ST_TOO_LARGE);
        cr_assert_eq(log_kafka_state(kafka), LOG_KAFKA_READY);
    }
    end();
}

ParameterizedTest(enum kind *which, log_contract, kinds)
{
    batches_and_restarts(*which);
    times(*which);
    refusals(*which);
}

Test(log_contract, brokers_that_do_not_answer_are_no_log)
{
    struct log_kafka *none;
    struct buf error;
    buf_init(&error, 4096);
    const struct log_kafka_options o = {.node_id = "n",
                                        .brokers = "127.0.0.1:1",
                                        .prefix = "p",
                                        .ca_file = "",
                                        .cert_file = "",
                                        .key_file = "",
                                        .user = "",
                                        .password = "",
                                        .lane_count = 1,
                                        .replication = 1,
                                        .min_isr = 1,
                                        .record_bytes_max = 1 << 20,
                                        .message_timeout_ms = 1000,
                                        .queue_bytes = 1 << 20,
                                        .start_ms = 200,
                                        .clock = clock_system()};
    cr_assert_eq(log_kafka_open(&o, &none, &error), ST_IO);
    cr_assert(memmem(error.data, error.len, "does not answer", 15));
    buf_deinit(&error);
}
