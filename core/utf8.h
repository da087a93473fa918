/* UTF-8 as the Unicode standard defines it (no surrogates, no overlong forms). Any thread. */
#ifndef TG_CORE_UTF8_H
#define TG_CORE_UTF8_H

#include "core/slice.h"

bool utf8_valid(struct slice text);
/* MQTT 5.0, 1.5.4: valid UTF-8 without U+0000. (Other control and non-characters "should" not be
 * there and are allowed.) */
bool utf8_valid_mqtt(struct slice text);

#endif
