/* X-Request-Id: what a caller calls his request, so that its answer and our log lines can be found by it.
 * Pure; any thread. */
#ifndef TG_GATEWAY_REQUEST_ID_H
#define TG_GATEWAY_REQUEST_ID_H

#include "core/slice.h"

enum { REQUEST_ID_BYTES = 65 }; /* with a NUL */

/* 1 to 64 letters, digits and -._~+/=:@ : nothing that means something in a log line, in JSON or in a header.
 * Any other is as good as none. */
bool request_id_valid(struct slice id);

#endif
