/* Where a read begins whose asker knows a time or a number of records instead of an offset. Reader thread. */
#ifndef TG_CORE_STORE_LOCATE_H
#define TG_CORE_STORE_LOCATE_H

#include "core/store/query.h"

/* r->locate is not STORE_AT_OFFSET; r->first is set. */
void locate_begin(struct store_read *r);
/* True: located; r->from and r->next are set, and r->locate is STORE_AT_OFFSET. False: a bounded amount of
 * work is done and more is left. */
bool locate_step(struct query_tools *t, struct shelf *shelf, struct store_read *r);

#endif
