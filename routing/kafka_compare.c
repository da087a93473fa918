/* A mirror's end against Kafka's log (docs/CLUSTER.md, "What tries to break it", 1). After an unclean
 * election records may be lost and others stand in their places; what a producer may have put back is younger
 * than message.timeout.ms. So all records of twice that time are compared, and one at least in any case. */
#include "core/crc32c.h"
#include "core/logging.h"
#include "core/store/view.h"
#include "routing/kafka_private.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>

enum { RECORDS_MAX = 1 << 20, TRY_MS = 200 };

struct print { /* of one record */
    uint64_t offset, time_ms;
    uint32_t bytes, crc;
};

struct tail {
    struct print *prints; /* ascending */
    uint32_t count, cap;
    uint64_t end; /* of the mirror */
};

static enum status tail_add(struct tail *t, const struct msg *m)
{
    if (t->count == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 1024;
        struct print *prints = realloc(t->prints, cap * sizeof *prints);
        if (!prints)
            return ST_NO_MEMORY;
        t->prints = prints;
        t->cap = cap;
    }
    uint64_t bytes = mirror_record_bytes(m);
    uint8_t *encoded = malloc(bytes);
    if (!encoded)
        return ST_NO_MEMORY;
    mirror_record_encode(m, encoded);
    t->prints[t->count++] = (struct print){
        .offset = m->offset, .time_ms = m->ts_ms, .bytes = (uint32_t)bytes, .crc = crc32c(0, encoded, bytes)};
    free(encoded);
    return ST_OK;
}

/* Keeps those whose time is not below; always the newest. */
static void tail_trim(struct tail *t, uint64_t from_ms)
{
    uint32_t drop = 0;
    while (drop + 1 < t->count && (t->prints[drop].time_ms < from_ms || t->count - drop > RECORDS_MAX))
        drop++;
    t->count -= drop;
    for (uint32_t i = 0; drop > 0 && i < t->count; i++)
        t->prints[i] = t->prints[i + drop];
}

/* Messages of the lane from a segment that holds `from` on. */
static enum status tail_walk(struct view *v, unsigned lane, const struct walk_options *o, uint64_t from_ms,
                             struct tail *t, struct buf *error)
{
    struct walk *w;
    enum status st = walk_open(v, lane, o, &w, error);
    bool more = st == ST_OK;
    if (st != ST_OK)
        return st;
    t->count = 0;
    while (more && st == ST_OK) {
        switch (walk_next(w)) {
        case WALK_MESSAGE:
            if (walk_look(w)->msg->offset < t->end)
                st = tail_add(t, walk_look(w)->msg);
            if (t->count > 2 * RECORDS_MAX)
                tail_trim(t, from_ms);
            break;
        case WALK_FAULT:
        case WALK_SEGMENT:
            break;
        case WALK_END:
            more = false;
            break;
        case WALK_FAILED:
            st = ST_NO_MEMORY;
            break;
        }
    }
    walk_close(w);
    return st;
}

static enum status tail_read(struct log_kafka *k, struct view *v, unsigned lane, struct tail *t,
                             struct buf *error)
{
    struct walk_options last = {.messages = true, .from = t->end > 0 ? t->end - 1 : 0};
    enum status st = tail_walk(v, lane, &last, 0, t, error);
    if (st != ST_OK || t->count == 0) /* nothing there but what has no message: HEAD has told whose it is */
        return st;
    uint64_t newest_ms = t->prints[t->count - 1].time_ms, window_ms = 2 * k->options.message_timeout_ms;
    uint64_t from_ms = newest_ms > window_ms ? newest_ms - window_ms : 0;
    if (t->prints[0].time_ms >= from_ms) { /* the segments before have some of them too */
        struct walk_options all = {.messages = true, .from_ms = from_ms};
        st = tail_walk(v, lane, &all, from_ms, t, error);
    }
    if (st == ST_OK)
        tail_trim(t, from_ms);
    return st;
}

/* --- against Kafka --- */

/* The mirror's time is Kafka's, or that of the record before. */
static bool print_matches(const struct tail *t, uint32_t i, const rd_kafka_message_t *m)
{
    const struct print *p = &t->prints[i];
    int64_t ts = rd_kafka_message_timestamp(m, NULL);
    uint64_t ts_ms = ts > 0 ? (uint64_t)ts : 0;
    bool in_time =
        ts_ms == p->time_ms || (ts_ms < p->time_ms && (i == 0 || t->prints[i - 1].time_ms == p->time_ms));
    return in_time && m->payload && m->len == p->bytes && crc32c(0, m->payload, m->len) == p->crc;
}

static enum status differs(const struct log_kafka *k, unsigned lane, uint64_t offset)
{
    log_warn("the mirror and kafka have different records topic=%s partition=%u offset=%" PRIu64, k->topic,
             lane, offset);
    return ST_CONFLICT;
}

static enum status compare_with(struct log_kafka *k, unsigned lane, const struct tail *t, struct buf *error)
{
    uint64_t end_ms = clock_mono_ms(k->options.clock) + k->options.start_ms;
    enum status st = ST_OK;
    for (uint32_t i = 0; i < t->count && st == ST_OK;) {
        rd_kafka_message_t *m = rd_kafka_consume_queue(k->in_queue, TRY_MS);
        if (!m && clock_mono_ms(k->options.clock) > end_ms)
            return kafka_refuse(error, ST_IO, k, "no answer: the mirror cannot be compared");
        if (!m)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE || m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
            st = differs(k, lane, t->prints[i].offset);
        else if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR && (uint64_t)m->offset >= t->prints[i].offset) {
            if ((uint64_t)m->offset != t->prints[i].offset || !print_matches(t, i, m))
                st = differs(k, lane, t->prints[i].offset);
            i++;
        }
        rd_kafka_message_destroy(m);
    }
    return st;
}

static enum status compare_lane(struct log_kafka *k, struct view *v, unsigned lane, uint64_t end,
                                struct buf *error)
{
    struct tail t = {.end = end};
    if (end > k->lanes[lane].start_end)
        return differs(k, lane, k->lanes[lane].start_end);
    enum status st = tail_read(k, v, lane, &t, error);
    if (st == ST_OK && t.count > 0) {
        (void)rd_kafka_consume_start_queue(k->in_topic, (int32_t)lane, (int64_t)t.prints[0].offset,
                                           k->in_queue);
        st = compare_with(k, lane, &t, error);
        (void)rd_kafka_consume_stop(k->in_topic, (int32_t)lane);
        for (rd_kafka_message_t *m; (m = rd_kafka_consume_queue(k->in_queue, 0));)
            rd_kafka_message_destroy(m);
    }
    free(t.prints);
    return st;
}

enum status log_kafka_compare(struct log_kafka *k, struct store *mirror, const char *dir, struct buf *error)
{
    struct view *v;
    enum status st = ST_OK;
    bool any = false;
    for (unsigned lane = 0; lane < k->lane_count; lane++)
        any = any || store_next(mirror, lane) > 0;
    if (!any)
        return ST_OK;
    st = view_open(dir, &v, error);
    if (st != ST_OK)
        return st;
    for (unsigned lane = 0; lane < k->lane_count && st == ST_OK; lane++)
        if (store_next(mirror, lane) > 0)
            st = compare_lane(k, v, lane, store_next(mirror, lane), error);
    view_close(v);
    return st;
}
