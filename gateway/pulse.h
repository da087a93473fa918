/* Does a loop move? A letter is sent to it, and whether it has been handled by the next time is the answer.
 * One for each loop; the thread that asks. */
#ifndef TG_GATEWAY_PULSE_H
#define TG_GATEWAY_PULSE_H

#include "core/loop.h"

#include <stdatomic.h>

struct pulse {
    struct mail mail;
    atomic_bool out; /* it is on its way */
};

/* True: the letter of the call before, if any, has been handled; the next one is sent. `p` begins as zeroes.
 */
bool pulse_beats(struct pulse *p, struct loop *l);

#endif
