#include "gateway/pulse.h"

static void pulse_arrived(struct mail *mail)
{
    /* Release: pairs with the acquire in pulse_beats, which then owns the mail again. */
    atomic_store_explicit(&LIST_OF(mail, struct pulse, mail)->out, false, memory_order_release);
}

bool pulse_beats(struct pulse *p, struct loop *l)
{
    if (atomic_load_explicit(&p->out, memory_order_acquire))
        return false;
    p->mail.on_arrival = pulse_arrived;
    atomic_store_explicit(&p->out, true, memory_order_relaxed);
    loop_post(l, &p->mail);
    return true;
}
