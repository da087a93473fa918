/* Catch-up and the tail share a loop. What is read from the log for those that are behind (deep reads: by the
 * reader thread, or a walk over retained messages) comes in pieces of read_bytes, at most PACE_OPEN of them
 * are under way on a loop, and each is paid for: handling it makes a debt of the time it took, which
 * everything else that the loop does pays off at the rate share / (100 - share). While there is a debt no
 * further piece is asked for, unless nothing else waits for the loop: then the debt is let off, and catching
 * up goes as fast as it can.
 *
 * So a loop that has work all the time gives catching up at most its share, a live message waits for at most
 * PACE_OPEN pieces, and a thousand that catch up hold no more memory than two. They take turns.
 *
 * READs that memory can answer are not paced: they are the way back to being live, and bounded by
 * recent_bytes. */
#include "session/hub_private.h"

enum { PACE_OPEN = 2 };

void pace_init(struct pace *p, uint32_t share)
{
    *p = (struct pace){.share = share};
    list_init(&p->queue);
}

static uint64_t now_ns(const struct hub *h)
{
    return clock_mono_ns(loop_clock(h->loop));
}

static bool pace_has_room(const struct pace *p)
{
    return p->open < PACE_OPEN && p->debt_ns == 0;
}

bool pace_ask(struct lane_cursor *lc)
{
    struct hub *h = lc->sub->channel->hub;
    struct pace *p = &h->pace;
    if (!lc->deep)
        return true;
    if (p->open == 0 && list_empty(&p->queue)) {
        p->debt_ns = p->spent_ns = 0;
        p->turn_end_ns = now_ns(h);
    }
    if (list_empty(&p->queue) && pace_has_room(p)) {
        p->open++;
        lc->paced = true;
        return true;
    }
    list_push(&p->queue, &lc->turn);
    metric_add(h->metrics, M_CATCHUP_WAITING, 1);
    return false;
}

void pace_forget(struct lane_cursor *lc)
{
    if (list_empty(&lc->turn))
        return;
    list_unlink(&lc->turn);
    metric_sub(lc->sub->channel->hub->metrics, M_CATCHUP_WAITING, 1);
}

uint64_t pace_begin(const struct lane_cursor *lc)
{
    return lc->paced ? now_ns(lc->sub->channel->hub) : 0;
}

void pace_end(struct hub *h, uint64_t begun_ns)
{
    if (begun_ns == 0)
        return;
    uint64_t took_ns = now_ns(h) - begun_ns;
    h->pace.debt_ns += took_ns;
    h->pace.spent_ns += took_ns;
    h->pace.open--;
    histogram_record(h->metrics, H_CATCHUP_SECONDS, took_ns);
}

/* What the turn did besides pays. */
static void pace_pay(struct hub *h)
{
    struct pace *p = &h->pace;
    uint64_t now = now_ns(h), other_ns = now - p->turn_end_ns;
    other_ns = other_ns > p->spent_ns ? other_ns - p->spent_ns : 0;
    uint64_t paid_ns = other_ns * p->share / (100 - p->share);
    p->debt_ns = p->debt_ns > paid_ns ? p->debt_ns - paid_ns : 0;
    p->spent_ns = 0;
    p->turn_end_ns = now;
}

bool pace_turn_end(struct hub *h)
{
    struct pace *p = &h->pace;
    if (list_empty(&p->queue))
        return false;
    pace_pay(h);
    if (p->debt_ns > 0 && !loop_has_work(h->loop))
        p->debt_ns = 0;
    while (!list_empty(&p->queue) && pace_has_room(p)) {
        struct lane_cursor *lc = LIST_OF(p->queue.next, struct lane_cursor, turn);
        pace_forget(lc);
        p->open++;
        lc->paced = true;
        cursor_send_read(lc);
    }
    /* Others wait for the loop, so it comes again; but what it then does may be too little to pay. */
    return !list_empty(&p->queue) && p->open == 0;
}
