/* Each lane has a head: its next wanted message. The least time goes first; lanes are at most 64, so they are
 * looked through. The carried ones are a 65th source: their originals lay before everything that is kept, so
 * they are gathered by a pass of their own, and only where retention has removed something. */
#include "gateway/cli/merge.h"

#include "gateway/cli/fault_text.h"
#include "routing/attachment.h"
#include "routing/topic.h"

#include <stdlib.h>

enum { LINE_BYTES_MAX = 8192 };

struct source_lane {
    struct walk *walk; /* NULL: at its end */
    struct msg *head; /* a reference */
};

struct merge {
    struct view *view;
    struct selection wanted;
    struct source_lane lanes[PLACE_LANES_MAX];
    unsigned lane_count;
    struct msg **old; /* references; by time */
    size_t old_count, old_cap, old_at;
    struct msg *told; /* a reference: the message of the last call */
    uint64_t count;
    struct buf line;
};

static bool lane_wanted(const struct merge *m, unsigned lane)
{
    return m->wanted.all_lanes || m->wanted.lane == lane;
}

/* --- what is carried --- */

static int compare_places(const void *a, const void *b)
{
    const struct msg *x = *(struct msg *const *)a, *y = *(struct msg *const *)b;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->stored > y->stored) - (x->stored < y->stored);
}

static int compare_times(const void *a, const void *b)
{
    const struct msg *x = *(struct msg *const *)a, *y = *(struct msg *const *)b;
    if (x->ts_ms != y->ts_ms)
        return x->ts_ms < y->ts_ms ? -1 : 1;
    return compare_places(a, b);
}

static bool is_wanted(const struct merge *m, const struct msg *msg)
{
    const struct selection *w = &m->wanted;
    return msg->ts_ms >= w->from_ms && msg->ts_ms < w->to_ms &&
           (w->topic ? topic_matches(slice_cstr(w->topic), msg_topic(msg)) : !topic_own(msg_topic(msg)));
}

static bool add_old(struct merge *m, struct msg *msg)
{
    if (m->old_count == m->old_cap) {
        size_t cap = m->old_cap ? m->old_cap * 2 : 64;
        struct msg **old = realloc(m->old, cap * sizeof *old);
        if (!old)
            return false;
        m->old = old;
        m->old_cap = cap;
    }
    m->old[m->old_count++] = msg_ref(msg);
    return true;
}

/* One message may have been carried more than once. */
static void drop_doubles(struct merge *m)
{
    size_t kept = 0;
    if (m->old_count == 0)
        return;
    qsort(m->old, m->old_count, sizeof(struct msg *), compare_places);
    for (size_t i = 0; i < m->old_count; i++) {
        struct msg *before = kept > 0 ? m->old[kept - 1] : NULL;
        if (before && before->partition == m->old[i]->partition && before->offset == m->old[i]->offset)
            msg_unref(m->old[i]);
        else
            m->old[kept++] = m->old[i];
    }
    m->old_count = kept;
    qsort(m->old, m->old_count, sizeof(struct msg *), compare_times);
}

static enum status gather_carried(struct merge *m, unsigned lane, struct buf *error)
{
    uint64_t first = view_first(m->view, lane);
    struct walk *walk;
    if (first == 0)
        return ST_OK;
    enum status st = walk_open(m->view, lane, &(struct walk_options){.messages = true}, &walk, error);
    if (st != ST_OK)
        return st;
    /* Faults are told by the main pass. */
    for (enum walk_event e; st == ST_OK && (e = walk_next(walk)) != WALK_END;) {
        struct msg *msg = walk_look(walk)->msg;
        if (e == WALK_FAILED)
            st = ST_NO_MEMORY;
        else if (e == WALK_MESSAGE && msg->stored != msg->offset && msg->offset < first &&
                 is_wanted(m, msg) && !add_old(m, msg))
            st = ST_NO_MEMORY;
    }
    walk_close(walk);
    return st;
}

/* --- heads --- */

/* Fills the head of a lane. False: *event is to be told first. */
static bool fill(struct merge *m, unsigned lane, enum walk_event *event)
{
    struct source_lane *l = &m->lanes[lane];
    const struct selection *w = &m->wanted;
    while (l->walk && !l->head) {
        enum walk_event e = walk_next(l->walk);
        const struct walk_view *look = walk_look(l->walk);
        struct msg *msg = look->msg;
        bool past = e == WALK_MESSAGE && msg->offset >= w->to.next[lane] && msg->stored == msg->offset;
        if (e == WALK_END || past) {
            walk_close(l->walk);
            l->walk = NULL;
        } else if (e == WALK_MESSAGE && msg->stored == msg->offset && is_wanted(m, msg)) {
            l->head = msg_ref(msg);
        } else if (e == WALK_FAILED) {
            *event = e;
            return false;
        } else if (e == WALK_FAULT && look->fault.from < w->to.next[lane]) {
            buf_clear(&m->line);
            const char *suffix = look->fault.kind == FAULT_INDEX ? "idx" : "seg";
            if (fault_text(&m->line, lane, walk_path(l->walk, look->fault.base_offset, suffix),
                           &look->fault) != ST_OK)
                buf_clear(&m->line);
            *event = e;
            return false;
        }
    }
    return true;
}

const char *merge_fault(struct merge *m)
{
    return buf_put_byte(&m->line, '\0') == ST_OK ? (const char *)m->line.data : "a fault";
}

static struct msg *take_least(struct merge *m)
{
    struct msg **least = NULL;
    if (m->old_at < m->old_count)
        least = &m->old[m->old_at];
    for (unsigned i = 0; i < m->lane_count; i++)
        if (m->lanes[i].head && (!least || m->lanes[i].head->ts_ms < (*least)->ts_ms))
            least = &m->lanes[i].head;
    if (!least)
        return NULL;
    struct msg *msg = *least;
    *least = NULL;
    if (m->old_at < m->old_count && least == &m->old[m->old_at])
        m->old_at++;
    return msg;
}

enum walk_event merge_next(struct merge *m, struct msg **out)
{
    enum walk_event event;
    msg_unref(m->told);
    m->told = NULL;
    if (m->count == m->wanted.max)
        return WALK_END;
    for (unsigned i = 0; i < m->lane_count; i++)
        if (!fill(m, i, &event))
            return event;
    m->told = take_least(m);
    if (!m->told)
        return WALK_END;
    m->count++;
    *out = m->told;
    return WALK_MESSAGE;
}

enum status merge_open(struct view *v, const struct selection *wanted, struct merge **out, struct buf *error)
{
    struct merge *m = calloc(1, sizeof *m);
    enum status st = ST_OK;
    if (!m)
        return ST_NO_MEMORY;
    m->view = v;
    m->wanted = *wanted;
    m->lane_count = view_lane_count(v);
    buf_init(&m->line, LINE_BYTES_MAX);
    for (unsigned i = 0; i < m->lane_count && st == ST_OK; i++) {
        struct walk_options o = {
            .messages = true, .tell_removed = true, .from = wanted->from.next[i], .from_ms = wanted->from_ms};
        if (!lane_wanted(m, i))
            continue;
        if (wanted->carried)
            st = gather_carried(m, i, error);
        if (st == ST_OK)
            st = walk_open(v, i, &o, &m->lanes[i].walk, error);
    }
    if (st != ST_OK) {
        merge_close(m);
        return st;
    }
    drop_doubles(m);
    *out = m;
    return ST_OK;
}

void merge_close(struct merge *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->lane_count; i++) {
        msg_unref(m->lanes[i].head);
        walk_close(m->lanes[i].walk);
    }
    for (size_t i = m->old_at; i < m->old_count; i++)
        msg_unref(m->old[i]);
    free(m->old);
    msg_unref(m->told);
    buf_deinit(&m->line);
    free(m);
}
