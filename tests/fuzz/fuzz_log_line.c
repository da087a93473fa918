/* part: cli
 * Lines of `tidegate log import`. Of any bytes: a line is refused with words, or it makes a message that a
 * door would have let in; and that message written as a line and read again is the same, to the last byte. */
#include "core/utf8.h"
#include "gateway/cli/log_line.h"

#include <stdio.h>
#include <stdlib.h>

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct line_limits limits = {.topic = {.bytes_max = 256, .levels_max = 16},
                                              .message_bytes = 1 << 16};
    struct msg *m, *again;
    const char *why = NULL;
    if (log_line_read(slice_of(data, size), &limits, &m, &why) != ST_OK) {
        MUST(why);
        return 0;
    }
    MUST(topic_name_valid(msg_topic(m), &limits.topic) && !topic_internal(msg_topic(m)));
    MUST(props_valid(msg_props(m)) && utf8_valid_mqtt(msg_key(m)) && m->qos <= 2);
    MUST(m->content != CONTENT_TEXT || utf8_valid(msg_payload(m)));

    struct buf line, second;
    buf_init(&line, 8 << 20);
    buf_init(&second, 8 << 20);
    MUST(log_line_put(&line, 1, m) == ST_OK);
    MUST(log_line_read(buf_slice(&line), &limits, &again, &why) == ST_OK);
    MUST(log_line_put(&second, 1, again) == ST_OK);
    MUST(slice_equal(buf_slice(&line), buf_slice(&second)));
    MUST(slice_equal(msg_payload(m), msg_payload(again)) && slice_equal(msg_key(m), msg_key(again)));
    MUST(m->content == again->content && m->flags == again->flags && m->qos == again->qos);
    MUST(m->ts_ms == again->ts_ms && m->expires_ms == again->expires_ms && m->props_len == again->props_len);
    buf_deinit(&line);
    buf_deinit(&second);
    msg_unref(m);
    msg_unref(again);
    return 0;
}
