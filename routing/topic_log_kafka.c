/* The port, and what happens on loops: proposals are encoded and handed to the sender, batches that arrive go
 * record by record into the mirror and to the shard. When the mirror does not take one now (its disk is full,
 * or behind) the rest waits, in order, and is tried again when the mirror has moved, or after a while. */
#include "routing/kafka_private.h"

#include "core/hash.h"
#include "core/logging.h"
#include "routing/attachment.h"
#include "routing/proposal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

enum { RETRY_MS = 50, TURN_RECORDS = 512, TURN_BYTES = 1 << 20 };

/* --- records that have come --- */

void kafka_batch_free(struct kafka_batch *b)
{
    for (; b->at < b->count; b->at++)
        msg_unref(b->msgs[b->at]);
    free(b);
}

/* False: not now. */
static bool lane_apply(struct kafka_lane *l, struct msg *m)
{
    struct log_kafka *k = l->log;
    enum status st = store_append_at(k->mirror, l->index, m);
    if (st != ST_OK)
        return false;
    bool message = !(m->flags & MSG_NOTE);
    if (message)
        l->events->on_arrived(l->events_ctx, l->index, m);
    if (message && k->on_own && topic_own(msg_topic(m)))
        k->on_own(k->on_own_ctx, l->index, m);
    atomic_store_explicit(&l->applied, m->offset + 1, memory_order_release); /* the feeder's acquire */
    return true;
}

static void lane_drain(struct kafka_lane *l);

static void lane_has_a_turn(struct kafka_lane *l)
{
    l->share.of_ms = loop_now_ms(l->loop);
    l->share.records = TURN_RECORDS;
    l->share.bytes = TURN_BYTES;
}

static void on_again(struct mail *mail)
{
    struct kafka_lane *l = LIST_OF(mail, struct kafka_lane, share.again);
    l->share.posted = false;
    lane_has_a_turn(l);
    lane_drain(l);
}

/* False: that is enough for this turn. */
static bool lane_shares(struct kafka_lane *l, const struct msg *m)
{
    if (l->share.records == 0 || l->share.bytes == 0)
        return false;
    l->share.records--;
    l->share.bytes -= m->payload_len < l->share.bytes ? m->payload_len : l->share.bytes;
    return true;
}

static void lane_drain(struct kafka_lane *l)
{
    bool enough = false;
    if (loop_now_ms(l->loop) != l->share.of_ms)
        lane_has_a_turn(l);
    while (l->first_batch) {
        struct kafka_batch *b = l->first_batch;
        while (b->at < b->count && !(enough = !lane_shares(l, b->msgs[b->at])) &&
               lane_apply(l, b->msgs[b->at]))
            msg_unref(b->msgs[b->at++]);
        if (b->at < b->count)
            break;
        l->first_batch = b->next;
        atomic_fetch_sub_explicit(&l->waiting_bytes, b->bytes, memory_order_relaxed);
        kafka_batch_free(b);
    }
    /* Nobody waits for the mirror's disk: frames go when they are old or large enough. */
    store_flush(l->log->mirror, l->index);
    if (!l->first_batch) {
        l->last_batch = NULL;
        timer_cancel(loop_timers(l->loop), &l->retry);
    } else if (enough) {
        if (!l->share.posted)
            loop_post(l->loop, &l->share.again);
        l->share.posted = true;
    } else if (!timer_armed(&l->retry)) {
        timer_arm(loop_timers(l->loop), &l->retry, loop_now_ms(l->loop) + RETRY_MS);
    }
}

void kafka_batch_arrived(struct mail *mail)
{
    struct kafka_batch *b = LIST_OF(mail, struct kafka_batch, mail);
    struct kafka_lane *l = b->lane;
    if (l->last_batch)
        l->last_batch->next = b;
    else
        l->first_batch = b;
    l->last_batch = b;
    if (l->first_batch == b)
        lane_drain(l);
}

static void on_retry(struct timer *t)
{
    lane_drain(LIST_OF(t, struct kafka_lane, retry));
}

static void on_mirror_moved(void *ctx, unsigned lane, uint64_t next)
{
    struct log_kafka *k = ctx;
    (void)next;
    if (k->lanes[lane].first_batch)
        lane_drain(&k->lanes[lane]);
}

void kafka_proposal_lost(struct mail *mail)
{
    struct kafka_proposal *p = LIST_OF(mail, struct kafka_proposal, mail);
    struct kafka_lane *l = p->lane;
    if (l->events)
        l->events->on_lost(l->events_ctx, l->index, p->sequence, p->status);
    free(p);
}

/* --- reports --- */

void kafka_reports_arrived(struct mail *mail)
{
    struct kafka_lane *l = LIST_OF(mail, struct kafka_lane, report);
    l->report_asked = false;
    l->events->on_reported(l->events_ctx, l->index, atomic_load(&l->reported));
}

/* The sender writes a letter only when one is wanted: mostly the report is there before the record. */
static bool kafka_is_reported(void *ctx, unsigned lane, uint64_t sequence)
{
    struct kafka_lane *l = &((struct log_kafka *)ctx)->lanes[lane];
    if (atomic_load(&l->reported) >= sequence)
        return true;
    if (l->report_asked)
        return false;
    atomic_store(&l->report_wanted, true);
    l->report_asked = true;
    if (atomic_load(&l->reported) < sequence)
        return false;
    if (atomic_exchange(&l->report_wanted, false))
        l->report_asked = false; /* taken back */
    return true;
}

/* --- the port --- */

static uint64_t kafka_incarnation(void *ctx)
{
    return ((struct log_kafka *)ctx)->incarnation;
}

static uint32_t kafka_epoch(void *ctx)
{
    return store_epoch(((struct log_kafka *)ctx)->mirror);
}

static unsigned kafka_lane_count(void *ctx)
{
    return ((struct log_kafka *)ctx)->lane_count;
}

static void kafka_bind(void *ctx, unsigned lane, struct loop *loop, const struct store_events *events,
                       void *events_ctx, struct metrics *metrics)
{
    struct log_kafka *k = ctx;
    (void)events, (void)events_ctx; /* durable is what arrives; nothing is trimmed */
    k->lanes[lane].loop = loop;
    k->lanes[lane].metrics = metrics;
    store_bind(k->mirror, lane, loop, &k->events, k, metrics);
}

static void kafka_meet(void *ctx, unsigned lane, const struct topic_log_events *events, void *events_ctx)
{
    struct log_kafka *k = ctx;
    k->lanes[lane].events = events;
    k->lanes[lane].events_ctx = events_ctx;
}

static enum status kafka_propose(void *ctx, unsigned lane, const struct msg *m)
{
    struct log_kafka *k = ctx;
    struct kafka_lane *l = &k->lanes[lane];
    struct proposal said;
    uint64_t bytes = mirror_record_bytes(m);
    if (bytes > k->options.record_bytes_max)
        return ST_TOO_LARGE;
    if (atomic_load_explicit(&k->away, memory_order_relaxed))
        return ST_CLOSED;
    if (store_is_full(k->mirror))
        return ST_NO_SPACE; /* it would not be seen to come here */
    uint64_t queued = atomic_load_explicit(&l->queued_bytes, memory_order_relaxed);
    if (queued > 0 && queued + bytes > k->options.queue_bytes / k->lane_count)
        return ST_FULL;
    struct kafka_proposal *p = malloc(sizeof *p + bytes);
    if (!p)
        return ST_NO_MEMORY;
    p->lane = l;
    p->len = (uint32_t)bytes;
    p->sequence = proposal_read(msg_props(m), &said) ? said.sequence : 0;
    p->mail = (struct mail){0};
    mirror_record_encode(m, p->bytes);
    atomic_fetch_add_explicit(&l->queued_bytes, bytes, memory_order_relaxed);
    if (l->last)
        l->last->next = &p->mail;
    else
        l->first = &p->mail;
    l->last = &p->mail;
    return ST_OK;
}

static void kafka_flush(void *ctx, unsigned lane)
{
    struct log_kafka *k = ctx;
    struct kafka_lane *l = &k->lanes[lane];
    if (l->first)
        mailbox_post_chain(&k->box, l->first, l->last);
    l->first = l->last = NULL;
}

static void kafka_hide(void *ctx, unsigned lane, uint64_t offset)
{
    store_hide(((struct log_kafka *)ctx)->mirror, lane, offset);
}

static void kafka_set_live_bytes(void *ctx, unsigned lane, uint64_t bytes)
{
    (void)ctx, (void)lane, (void)bytes; /* of interest to retention, which there is not */
}

static uint64_t kafka_first(void *ctx, unsigned lane)
{
    return store_first(((struct log_kafka *)ctx)->mirror, lane);
}

static uint64_t kafka_next(void *ctx, unsigned lane)
{
    return store_next(((struct log_kafka *)ctx)->mirror, lane);
}

static void kafka_read_start(void *ctx, struct store_read *r)
{
    store_read_start(((struct log_kafka *)ctx)->mirror, r);
}

static enum status kafka_recent(void *ctx, unsigned lane, uint64_t from, struct slice topic,
                                bool (*wants)(void *ctx, struct slice topic), void *wants_ctx,
                                uint32_t count_max, struct msg **msgs, uint32_t *found, uint64_t *next)
{
    return store_recent(((struct log_kafka *)ctx)->mirror, lane, from, topic, wants, wants_ctx, count_max,
                        msgs, found, next);
}

struct topic_log log_kafka_port(struct log_kafka *k, struct store *mirror)
{
    static const struct topic_log_ops ops = {
        .propose = kafka_propose,
        .hide = kafka_hide,
        .meet = kafka_meet,
        .is_reported = kafka_is_reported,
        .incarnation = kafka_incarnation,
        .epoch = kafka_epoch,
        .lane_count = kafka_lane_count,
        .bind = kafka_bind,
        .set_live_bytes = kafka_set_live_bytes,
        .flush = kafka_flush,
        .first = kafka_first,
        .next = kafka_next,
        .read_start = kafka_read_start,
        .recent = kafka_recent,
    };
    k->mirror = mirror;
    k->events = (struct store_events){.on_durable = on_mirror_moved};
    return (struct topic_log){&ops, k};
}

/* --- life --- */

/* Nodes of one log must not share one; a node's own earlier ones are known by its name. */
static enum status make_incarnation(struct log_kafka *k)
{
    uint32_t chance;
    if (getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
        return ST_IO;
    k->incarnation = hash64_stable(slice_cstr(k->options.node_id)) << 32 | chance;
    return ST_OK;
}

enum status log_kafka_open(const struct log_kafka_options *o, struct log_kafka **out, struct buf *error)
{
    struct log_kafka *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    assert(o->lane_count >= 1 && o->lane_count <= STORE_LANES_MAX);
    k->options = *o;
    k->lane_count = o->lane_count;
    k->report_fd = -1;
    k->box.wake_fd = -1;
    k->metrics = metrics_register();
    k->feed_metrics = metrics_register();
    snprintf(k->topic, sizeof k->topic, "%.240s.log", o->prefix);
    for (unsigned i = 0; i < k->lane_count; i++) {
        k->lanes[i].log = k;
        k->lanes[i].index = i;
        timer_init(&k->lanes[i].retry, on_retry);
        k->lanes[i].share.again.on_arrival = on_again;
    }
    enum status st = mailbox_open(&k->box);
    k->report_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (st != ST_OK || k->report_fd < 0 || make_incarnation(k) != ST_OK)
        st = kafka_refuse(error, ST_IO, k, "no file descriptor left, or no random numbers");
    if (st == ST_OK)
        st = kafka_client_open(k, error);
    if (st == ST_OK)
        st = kafka_topic_check(k, error);
    if (st != ST_OK) {
        log_kafka_close(k);
        return st;
    }
    *out = k;
    return ST_OK;
}

void log_kafka_source(const struct log_kafka *k, struct mirror_source *out)
{
    *out = (struct mirror_source){
        .kind = "kafka", .place = k->cluster, .name = k->topic, .lane_count = k->lane_count};
    memcpy(out->heads, k->heads, sizeof k->heads);
}

void log_kafka_watch(struct log_kafka *k, void (*on_own)(void *ctx, unsigned lane, const struct msg *m),
                     void *ctx)
{
    k->on_own = on_own;
    k->on_own_ctx = ctx;
}

enum status log_kafka_start(struct log_kafka *k)
{
    for (unsigned i = 0; i < k->lane_count; i++) {
        assert(k->lanes[i].loop && k->lanes[i].events);
        atomic_store(&k->lanes[i].applied, store_next(k->mirror, i));
    }
    if (pthread_create(&k->sender, NULL, kafka_sender, k) != 0)
        return ST_IO;
    if (pthread_create(&k->feeder, NULL, kafka_feeder, k) != 0) {
        mailbox_post(&k->box, &k->stop);
        pthread_join(k->sender, NULL);
        return ST_IO;
    }
    k->started = true;
    return ST_OK;
}

void log_kafka_stop(struct log_kafka *k)
{
    if (!k || !k->started)
        return;
    k->started = false;
    mailbox_post(&k->box, &k->stop);
    pthread_join(k->sender, NULL);
    atomic_store(&k->feed_stopping, true);
    pthread_join(k->feeder, NULL);
}

static void lane_close(struct kafka_lane *l)
{
    if (l->loop)
        timer_cancel(loop_timers(l->loop), &l->retry);
    for (struct kafka_batch *b = l->first_batch, *next; b; b = next) {
        next = b->next;
        kafka_batch_free(b);
    }
    if (l->filling)
        kafka_batch_free(l->filling);
    for (struct mail *mail = l->first, *next; mail; mail = next) {
        next = mail->next;
        free(LIST_OF(mail, struct kafka_proposal, mail));
    }
}

void log_kafka_close(struct log_kafka *k)
{
    if (!k)
        return;
    log_kafka_stop(k);
    kafka_client_close(k);
    for (unsigned i = 0; i < k->lane_count; i++)
        lane_close(&k->lanes[i]);
    if (k->box.wake_fd >= 0) {
        for (struct mail *mail = mailbox_take(&k->box), *next; mail; mail = next) {
            next = mail->next;
            free(LIST_OF(mail, struct kafka_proposal, mail));
        }
        mailbox_close(&k->box);
    }
    while (k->oldest) {
        struct kafka_proposal *p = k->oldest;
        k->oldest = p->next;
        free(p);
    }
    if (k->report_fd >= 0)
        close(k->report_fd);
    free(k);
}

uint64_t log_kafka_incarnation(const struct log_kafka *k)
{
    return k->incarnation;
}

enum log_kafka_state log_kafka_state(const struct log_kafka *k)
{
    if (atomic_load_explicit(&k->away, memory_order_relaxed))
        return LOG_KAFKA_AWAY;
    for (unsigned i = 0; i < k->lane_count; i++)
        if (atomic_load_explicit(&k->lanes[i].applied, memory_order_acquire) < k->lanes[i].start_end)
            return LOG_KAFKA_STARTING;
    return atomic_load_explicit(&k->behind, memory_order_relaxed) ? LOG_KAFKA_BEHIND : LOG_KAFKA_READY;
}

struct log_kafka_facts log_kafka_facts(const struct log_kafka *k)
{
    return k->facts;
}
