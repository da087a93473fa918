/* The sender: takes what loops have proposed to librdkafka, and its reports back. It sleeps on two
 * descriptors: its mailbox's, and one that librdkafka writes when it has a report.
 *
 * Whether Kafka is there: it is away when librdkafka has no broker left, or when what is under way has waited
 * for stall_ms without any report. While it is away nothing new is proposed, so nothing would tell that it is
 * back but a question, which is asked now and then. */
#include "routing/kafka_private.h"

#include "core/logging.h"
#include "core/pool.h"

#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PROBE_EVERY_MS = 250,
    PROBE_MS = 2000, /* brokers that have just come back, on a busy machine, may take longer than a moment */
    SLEEP_MS = 250, /* how late a stall is noticed */
    QUEUE_FULL_MS = 10,
    FLUSH_MS = 2000, /* at a stop: for what is under way */
};

static uint64_t now_ms(const struct log_kafka *k)
{
    return clock_mono_ms(k->options.clock);
}

/* --- under way --- */

static void link_newest(struct log_kafka *k, struct kafka_proposal *p)
{
    p->next = NULL;
    p->prev = k->newest;
    if (k->newest)
        k->newest->next = p;
    else
        k->oldest = p;
    k->newest = p;
}

static void unlink_proposal(struct log_kafka *k, struct kafka_proposal *p)
{
    *(p->prev ? &p->prev->next : &k->oldest) = p->next;
    *(p->next ? &p->next->prev : &k->newest) = p->prev;
}

static void set_away(struct log_kafka *k, bool away)
{
    if (atomic_load_explicit(&k->away, memory_order_relaxed) == away)
        return;
    atomic_store_explicit(&k->away, away, memory_order_relaxed);
    metric_set(k->metrics, M_KAFKA_UP, !away);
    if (away)
        log_warn("kafka does not answer: publishes are refused until it does topic=%s", k->topic);
    else
        log_info("kafka answers topic=%s", k->topic);
}

/* One producer is told of a partition's records in their order. */
static void report(struct kafka_lane *l, uint64_t sequence)
{
    if (sequence > atomic_load(&l->reported))
        atomic_store(&l->reported, sequence);
    if (!atomic_exchange(&l->report_wanted, false))
        return;
    l->report.on_arrival = kafka_reports_arrived;
    loop_post(l->loop, &l->report);
}

void kafka_delivered(struct log_kafka *k, struct kafka_proposal *p, enum status st)
{
    if (!p) /* a HEAD */
        return;
    unlink_proposal(k, p);
    atomic_fetch_sub_explicit(&p->lane->queued_bytes, p->len, memory_order_relaxed);
    metric_sub(k->metrics, M_KAFKA_UNDER_WAY, 1);
    if (st == ST_OK) {
        metric_add(k->metrics, M_KAFKA_ACKNOWLEDGED, 1);
        k->lost_brokers = false;
        k->reported_ms = now_ms(k);
        set_away(k, false);
        report(p->lane, p->sequence);
        free(p);
        return;
    }
    metric_add(k->metrics, st == ST_EXPIRED ? M_KAFKA_UNKNOWN : M_KAFKA_FAILED, 1);
    p->status = st;
    p->mail.on_arrival = kafka_proposal_lost;
    loop_post(p->lane->loop, &p->mail);
}

static void hand_over(struct log_kafka *k, struct kafka_proposal *p)
{
    p->since_ms = now_ms(k);
    link_newest(k, p);
    metric_add(k->metrics, M_KAFKA_UNDER_WAY, 1);
    for (;;) {
        if (rd_kafka_produce(k->out_topic, (int32_t)p->lane->index, 0, p->bytes, p->len, NULL, 0, p) == 0)
            return;
        rd_kafka_resp_err_t err = rd_kafka_last_error();
        if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            kafka_delivered(k, p, err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? ST_TOO_LARGE : ST_CLOSED);
            return;
        }
        kafka_client_poll(k, QUEUE_FULL_MS);
    }
}

static void take_letters(struct log_kafka *k)
{
    for (struct mail *mail = mailbox_take(&k->box), *next; mail; mail = next) {
        next = mail->next;
        if (mail == &k->stop)
            k->stopping = true;
        else
            hand_over(k, LIST_OF(mail, struct kafka_proposal, mail));
    }
}

/* --- is it there? --- */

/* By metadata: in librdkafka 2.0.2 a question for a partition's end does not come back when no broker is
 * there, whatever its time-out. */
static bool answers(struct log_kafka *k)
{
    const struct rd_kafka_metadata *md;
    if (rd_kafka_metadata(k->producer, 0, k->out_topic, &md, PROBE_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    bool led = false;
    for (int i = 0; md->topic_cnt == 1 && i < md->topics[0].partition_cnt; i++)
        led = led || md->topics[0].partitions[i].leader >= 0;
    rd_kafka_metadata_destroy(md);
    return led;
}

static void look(struct log_kafka *k)
{
    uint64_t now = now_ms(k);
    /* One partition without a leader is not all of Kafka: others still report. */
    if (k->oldest && now - k->oldest->since_ms > k->options.stall_ms &&
        now - k->reported_ms > k->options.stall_ms)
        k->lost_brokers = true;
    if (!k->lost_brokers) {
        set_away(k, false);
        return;
    }
    set_away(k, true);
    if (now < k->probe_at_ms)
        return;
    if (answers(k)) {
        k->lost_brokers = false;
        k->reported_ms = now_ms(k);
    }
    k->probe_at_ms = now_ms(k) + PROBE_EVERY_MS;
}

/* --- the thread --- */

static void wait_for_work(struct log_kafka *k)
{
    uint64_t count;
    if (!mailbox_sleep(&k->box))
        return;
    struct pollfd fds[] = {{.fd = k->box.wake_fd, .events = POLLIN}, {.fd = k->report_fd, .events = POLLIN}};
    (void)poll(fds, 2, SLEEP_MS);
    mailbox_awake(&k->box);
    if (fds[1].revents & POLLIN && read(k->report_fd, &count, sizeof count) < 0)
        return; /* somebody else's wake-up: there is nobody else */
}

void *kafka_sender(void *log)
{
    struct log_kafka *k = log;
    static const uint64_t one = 1;
    rd_kafka_queue_t *reports = rd_kafka_queue_get_main(k->producer);
    (void)pthread_setname_np(pthread_self(), "kafka sender");
    rd_kafka_queue_io_event_enable(reports, k->report_fd, &one, sizeof one);
    metric_set(k->metrics, M_KAFKA_UP, 1);
    while (!k->stopping) {
        wait_for_work(k);
        take_letters(k);
        kafka_client_poll(k, 0);
        look(k);
    }
    uint64_t end_ms = now_ms(k) + FLUSH_MS;
    while (k->oldest && now_ms(k) < end_ms)
        kafka_client_poll(k, QUEUE_FULL_MS);
    /* What is still under way may come into the log or not: nobody is told any more. */
    rd_kafka_purge(k->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (k->oldest && now_ms(k) < end_ms + FLUSH_MS)
        kafka_client_poll(k, QUEUE_FULL_MS);
    rd_kafka_queue_io_event_enable(reports, -1, NULL, 0);
    rd_kafka_queue_destroy(reports);
    pool_drain();
    return NULL;
}
