/* The types of CloudEvents attributes (CloudEvents 1.0.2, 3: "Type System"). Pure; any thread. */
#ifndef TG_GATEWAY_HTTP_EVENT_TYPES_H
#define TG_GATEWAY_HTTP_EVENT_TYPES_H

#include "core/slice.h"

/* UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F) and noncharacters. */
bool event_string_valid(struct slice text);
/* Of a JSON number: digits, perhaps behind a minus, within 32 bits. */
bool event_integer_valid(struct slice number);
bool event_timestamp_valid(struct slice text); /* RFC 3339, 5.6 */
/* RFC 3986: the characters of a URI-reference, not empty. */
bool event_reference_valid(struct slice text);
bool event_uri_valid(struct slice text); /* the same, and it begins with a scheme */
bool event_media_type_valid(struct slice text); /* RFC 2045, 5.1: type/subtype; name=value ... */
/* Is what a media type says JSON: subtype json or +json (JSON event format, 3.1.1)? */
bool event_media_type_is_json(struct slice text);

#endif
