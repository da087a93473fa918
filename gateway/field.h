/* The syntax of an HTTP field, for both doors: what one of them takes for a name the other must not take for
 * something else. RFC 9110, 5.6.2 and RFC 9112, 5.1. Any thread; nothing is kept. */
#ifndef TG_GATEWAY_FIELD_H
#define TG_GATEWAY_FIELD_H

#include "core/slice.h"

bool field_is_token(struct slice text); /* a name, a method; false when empty */
bool field_is_called(struct slice name, const char *want); /* whatever the case of its letters */
struct slice field_trimmed(struct slice value); /* without white space around it; borrows from `value` */

#endif
