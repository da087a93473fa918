/* Words for a query parameter that there is not. Pure; any thread. */
#ifndef TG_GATEWAY_UNKNOWN_H
#define TG_GATEWAY_UNKNOWN_H

#include "core/slice.h"

enum { UNKNOWN_TEXT_BYTES = 160 };

/* "there is no query parameter <name>" and `more`. The name ends where it is not plain ASCII or has gone on
 * for too long: the text may stand in JSON and in a terminal. */
void unknown_parameter_text(struct slice name, const char *more, char out[UNKNOWN_TEXT_BYTES]);

#endif
