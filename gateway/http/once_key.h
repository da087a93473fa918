/* The value of an Idempotency-Key field. Pure; any thread. */
#ifndef TG_GATEWAY_HTTP_ONCE_KEY_H
#define TG_GATEWAY_HTTP_ONCE_KEY_H

#include "routing/once_id.h"

/* Bare or as a quoted string of RFC 9651, 3.3.3 (a backslash before a quote or a backslash), which means the
 * same. *out points into `space`. False: not such a value, or not 1 to ONCE_NAME_BYTES_MAX bytes of UTF-8. */
bool once_key_read(struct slice field, uint8_t space[ONCE_NAME_BYTES_MAX], struct slice *out);

#endif
