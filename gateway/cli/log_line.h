/* A message as a line of JSON that keeps everything the log keeps of it, but its place: what `tidegate log
 * export` writes and `import` reads (PROTOCOL.md 5). Pure, any thread.
 *
 *   {"topic":"a/b","pos":"...","ts":1790000000123,"key":"k","type":"text/plain","props":[["n","v"],["n","w"]],
 *    "text":"hello","qos":1,"retain":true,"expires":1790000009999,"pfi":true,"declared":true,"more":[[2,"MDAt.."]]}
 */
#ifndef TG_GATEWAY_CLI_LOG_LINE_H
#define TG_GATEWAY_CLI_LOG_LINE_H

#include "core/buf.h"
#include "core/msg.h"
#include "routing/topic.h"

/* Appends the line without a line break. The payload stands as it is where JSON can say it byte for byte
 * (`data`, `text`), else as `b64` with its class in `class`. ST_FULL, ST_NO_MEMORY. */
enum status log_line_put(struct buf *out, uint32_t epoch, const struct msg *m) MUST_CHECK;

struct line_limits {
    struct topic_limits topic;
    uint64_t message_bytes; /* of a payload */
};

/* Bytes that a line may have: each byte of a payload may be written as six. */
uint64_t log_line_bytes_max(const struct line_limits *limits);

/* The message of a line, made anew: the caller's reference; ts_ms 0 when the line has no `ts`. Takes also
 * what `tidegate log cat` and history write (`props` as an object, `retained`). `pos` is not looked at.
 * ST_INVALID: *why says what is wrong, in words (static storage); ST_NO_MEMORY. */
enum status log_line_read(struct slice line, const struct line_limits *limits, struct msg **out,
                          const char **why) MUST_CHECK;

#endif
