/* The letter by which the writer tells a loop that lanes of it are durable further, and the reader that
 * retention wants something: one for all its lanes, and none while the last one is still unread. */
#ifndef TG_CORE_STORE_COMPLETION_H
#define TG_CORE_STORE_COMPLETION_H

#include "core/store/lane.h"

struct completion;

/* Start-up: `l` belongs to `loop`. Makes the loop's letter in *all if it has none (no memory ends the
 * process: it is start-up) and notes it in the lane. */
void completion_bind(struct completion **all, struct lane *l, struct loop *loop);
/* Writer, after it has moved durable_next of a lane; reader, trim_wanted. */
void completion_post(struct completion *c);
/* Shutdown, when the writer has ended and the loops do not run. */
void completions_release(struct completion *all);

#endif
