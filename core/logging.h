/* The program's own log: one line an event, a sentence, then key=value facts.
 *   log_warn("output queue full client=%s dropped=%u", id, n);
 * On a terminal lines are for people; elsewhere one JSON object a line {"ts","level","msg"}.
 * Never secrets, never payloads. Any thread; a line is written by one write(2). */
#ifndef TG_CORE_LOGGING_H
#define TG_CORE_LOGGING_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_form { LOG_FORM_AUTO, LOG_FORM_TEXT, LOG_FORM_JSON };

/* Before threads start. Lines go to standard error. */
void log_setup(enum log_level least, enum log_form form);
void log_set_level(enum log_level least); /* any thread */
bool log_enabled(enum log_level level);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_line(LOG_DEBUG, __VA_ARGS__);                                                                \
    } while (0)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

/* For a warning that a peer can repeat: at most one line in `every_ms`; the next line then says how
 * many were held back. One static `struct log_limit` at the place of the call. Any thread.
 *   static struct log_limit limit = {.every_ms = 1000};
 *   uint64_t held;
 *   if (log_permitted(&limit, &held)) log_warn("bad packet peer=%s repeated=%lu", peer, held); */
struct log_limit {
    uint64_t every_ms;
    _Atomic uint64_t next_ms, held_count;
};
bool log_permitted(struct log_limit *limit, uint64_t *held);

#endif
