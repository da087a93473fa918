/* RFC 6455 frames: a reader of what clients send (strict: 5.1 masking, 5.2 minimal lengths and reserved
 * bits, 5.4 fragmentation, 5.5 control frames) and a writer of headers for what we send. Pure, any
 * thread. Message text is checked as UTF-8 by whoever puts the pieces together (8.1). */
#ifndef TG_GATEWAY_WS_FRAME_H
#define TG_GATEWAY_WS_FRAME_H

#include "core/slice.h"

enum ws_opcode { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

enum {
    WS_CONTROL_BYTES_MAX = 125,
    WS_HEADER_BYTES_MAX = 14, /* a client's; ours has no mask: 10 */
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_UNSUPPORTED = 1003,
    WS_CLOSE_NO_STATUS = 1005,
    WS_CLOSE_INVALID = 1007,
    WS_CLOSE_TOO_LARGE = 1009,
};

struct ws_reader {
    uint64_t left; /* payload bytes of the current frame still to come */
    uint64_t message_bytes; /* of the current message so far */
    uint64_t message_bytes_max;
    uint8_t mask[4];
    uint8_t mask_index;
    uint8_t opcode; /* of the current frame */
    bool final; /* FIN of the current frame */
    bool in_frame; /* header done, payload to come */
    uint8_t message_opcode; /* WS_TEXT or WS_BINARY inside a message, else 0 */
    bool at_message_start;
    uint8_t header_len, control_len;
    uint8_t header[WS_HEADER_BYTES_MAX];
    uint8_t control[WS_CONTROL_BYTES_MAX];
};

enum ws_event {
    WS_EVENT_MORE, /* all input is used; come with more */
    WS_EVENT_DATA, /* a piece of a message: payload, first, last */
    WS_EVENT_CONTROL, /* a whole control frame: opcode, payload (the reader's, until the next call) */
    WS_EVENT_BAD, /* the stream is over: close with close_code */
};

struct ws_piece {
    uint8_t opcode; /* of the message (WS_TEXT, WS_BINARY) or of the control frame */
    bool first, last;
    struct slice payload; /* unmasked; WS_EVENT_DATA: inside the input */
    uint16_t close_code;
};

void ws_reader_init(struct ws_reader *r, uint64_t message_bytes_max);

/* One event. Payload is unmasked in place: `input` is written to. *used = bytes to step over. */
enum ws_event ws_reader_next(struct ws_reader *r, uint8_t *input, size_t len, size_t *used,
                             struct ws_piece *piece);

/* A close frame's payload (5.5.1, 7.4): ST-like answer by code. 0 bytes: WS_CLOSE_NO_STATUS. A code that
 * must not be on the wire, one byte alone or a reason that is not UTF-8: WS_CLOSE_PROTOCOL or
 * WS_CLOSE_INVALID, which is then what we answer; *valid says which it was. */
uint16_t ws_close_code(struct slice payload, bool *valid);

/* Header of an unfragmented, unmasked frame; returns its length (2, 4 or 10). */
size_t ws_header_write(uint8_t *out, enum ws_opcode opcode, uint64_t payload_bytes);
size_t ws_header_bytes(uint64_t payload_bytes);
/* Length of the header that one of our own frames begins with. */
size_t ws_header_length(const uint8_t *frame);
/* Whole length (header and payload) of one of our own frames whose first bytes are given; 0 when `len`
 * does not reach over the header. */
uint64_t ws_frame_bytes(const uint8_t *frame, size_t len);

#endif
