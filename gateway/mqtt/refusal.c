#include "gateway/mqtt/refusal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    CODE_UNAVAILABLE = 3, /* 3.1.1, 3.2.2.3 */
    ANSWER_BYTES_MAX = 5,
};

struct refusal {
    struct list link;
    struct mqtt_door *door;
    struct stream io;
    struct loop_watch watch;
    struct timer timer;
    uint8_t reason;
    bool answered; /* the answer is out, and our half is shut */
    uint8_t head[MQTT_REFUSAL_HEAD_BYTES];
    size_t head_bytes;
    uint8_t answer[ANSWER_BYTES_MAX];
    size_t answer_bytes; /* 0: not made yet */
};

static void refusal_close(struct refusal *r)
{
    struct mqtt_door *d = r->door;
    loop_watch_remove(d->edge->loop, &r->watch);
    timer_cancel(loop_timers(d->edge->loop), &r->timer);
    stream_close(&r->io);
    list_unlink(&r->link);
    d->refused_count--;
    metric_sub(d->edge->metrics, M_CONNECTS_BEING_REFUSED, 1);
    free(r);
}

static void refusal_on_timer(struct timer *t)
{
    refusal_close(LIST_OF(t, struct refusal, timer));
}

enum status mqtt_refusal_level(struct slice head, uint8_t *level)
{
    static const uint8_t new_name[] = {0, 4, 'M', 'Q', 'T', 'T'},
                         old_name[] = {0, 6, 'M', 'Q', 'I', 's', 'd', 'p'};
    size_t at = 1;
    if (head.len > 0 && head.data[0] != MQTT_CONNECT << 4)
        return ST_INVALID;
    while (at < head.len && at < 4 && head.data[at] >= 0x80)
        at++;
    if (at < head.len && head.data[at] >= 0x80) /* a fifth byte of Remaining Length */
        return ST_INVALID;
    struct slice rest = slice_from(head, at + 1 < head.len ? at + 1 : head.len);
    size_t name = rest.len > 1 && rest.data[1] == 6 ? sizeof old_name : sizeof new_name;
    const uint8_t *want = name == sizeof old_name ? old_name : new_name;
    if (memcmp(rest.data, want, rest.len < name ? rest.len : name) != 0)
        return ST_INVALID;
    if (rest.len <= name)
        return ST_AGAIN;
    *level = rest.data[name];
    return ST_OK;
}

/* False: there is nothing to say to it. */
static bool refusal_make_answer(struct refusal *r)
{
    uint8_t level = 0;
    enum status st = mqtt_refusal_level(slice_of(r->head, r->head_bytes), &level);
    if (st == ST_AGAIN)
        return true;
    if (st != ST_OK)
        return false;
    const uint8_t five[] = {MQTT_CONNACK << 4, 3, 0, r->reason, 0};
    const uint8_t before[] = {MQTT_CONNACK << 4, 2, 0, CODE_UNAVAILABLE};
    if (level != MQTT_V5 && level != MQTT_V311 && level != MQTT_V31)
        return false;
    r->answer_bytes = level == MQTT_V5 ? sizeof five : sizeof before;
    memcpy(r->answer, level == MQTT_V5 ? five : before, r->answer_bytes);
    return true;
}

/* False: it has ended. */
static bool refusal_read(struct refusal *r)
{
    uint8_t bytes[STREAM_READ_BYTES_MIN];
    size_t got = 0;
    enum status st = stream_read(&r->io, bytes, sizeof bytes, &got);
    if (st != ST_OK)
        return st == ST_AGAIN;
    size_t room = sizeof r->head - r->head_bytes, more = got < room ? got : room;
    memcpy(r->head + r->head_bytes, bytes, more);
    r->head_bytes += more;
    return r->answer_bytes > 0 || refusal_make_answer(r);
}

/* False: it has ended. So few bytes fit into a new socket, unless the peer sees to it that they do not. */
static bool refusal_write(struct refusal *r)
{
    const struct iovec piece = {.iov_base = r->answer, .iov_len = r->answer_bytes};
    size_t sent = 0;
    enum status st = stream_write(&r->io, &piece, 1, &sent);
    if (st == ST_OK && sent == r->answer_bytes) {
        r->answered = true;
        stream_shut(&r->io);
    }
    return st == ST_AGAIN || (st == ST_OK && (sent == 0 || r->answered));
}

static void refusal_on_event(struct loop_watch *w, uint32_t events)
{
    struct refusal *r = LIST_OF(w, struct refusal, watch);
    bool lives = true;
    if (stream_ready(&r->io, events) & (EPOLLIN | EPOLLHUP | EPOLLERR))
        lives = refusal_read(r);
    if (lives && r->answer_bytes > 0 && !r->answered)
        lives = refusal_write(r);
    if (lives)
        loop_watch_set(r->door->edge->loop, &r->watch,
                       stream_events(&r->io, true, r->answer_bytes > 0 && !r->answered));
    else
        refusal_close(r);
}

void mqtt_refusal_open(struct mqtt_door *d, struct stream *io, uint8_t reason)
{
    struct refusal *r = d->refused_count < d->edge->settings->mqtt_refused_max ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        metric_add(d->edge->metrics, M_CONNECTS_UNANSWERED, 1);
        stream_close(io);
        return;
    }
    r->door = d;
    r->io = *io;
    r->reason = reason;
    r->watch = (struct loop_watch){.fd = io->fd, .on_event = refusal_on_event};
    timer_init(&r->timer, refusal_on_timer);
    if (loop_watch_add(d->edge->loop, &r->watch, stream_events(&r->io, true, false)) != ST_OK) {
        stream_close(&r->io);
        free(r);
        return;
    }
    timer_arm(loop_timers(d->edge->loop), &r->timer,
              loop_now_ms(d->edge->loop) + d->edge->settings->mqtt_connect_timeout_ms);
    list_push(&d->refused, &r->link);
    d->refused_count++;
    metric_add(d->edge->metrics, M_CONNECTS_BEING_REFUSED, 1);
}

void mqtt_refusals_close(struct mqtt_door *d)
{
    while (!list_empty(&d->refused))
        refusal_close(LIST_OF(d->refused.next, struct refusal, link));
}
