/* Bytes in WebSocket frames, as a stream (gateway/stream.h): MQTT over WebSocket (MQTT 5.0, 6). What is read
 * is the payload of binary messages, wherever they begin and end; what is written leaves in binary frames.
 * Pings are answered, a close frame is answered and ends the stream; a text message ends it with 1003 and a
 * broken frame with its code. Owning loop only. */
#ifndef TG_GATEWAY_WS_CARRIER_H
#define TG_GATEWAY_WS_CARRIER_H

#include "gateway/stream.h"

/* A stream on top of `inner`, whose opening handshake is done; takes `inner` over. ST_NO_MEMORY: `inner` is
 * still the caller's. */
enum status carrier_create(const struct stream *inner, struct stream *out) MUST_CHECK;

#endif
