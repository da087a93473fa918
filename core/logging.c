/* The program's own log. A line is made in a fixed buffer on the stack and leaves by one write(2): no
 * lock, no allocation, and lines of several threads never mix (a pipe keeps writes up to PIPE_BUF whole,
 * a file opened for appending keeps all).
 *
 * What is logged may come from a stranger (a client id), so bytes that could end the line, steer a terminal
 * or break the JSON are replaced before the line is built. */
#include "core/logging.h"

#include "core/clock.h"
#include "core/json.h"
#include "core/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES_MAX = 2048,
    LINE_BYTES_MAX = 2 * MESSAGE_BYTES_MAX + 128, /* JSON doubles quotes and backslashes, nothing else */
    TIME_TEXT_BYTES = 32,
};

static _Atomic(enum log_level) level_least = LOG_INFO; /* alone: it orders nothing else */
static bool form_json; /* written before threads start, read by all */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level least)
{
    atomic_store_explicit(&level_least, least, memory_order_relaxed);
}

void log_setup(enum log_level least, enum log_form form)
{
    log_set_level(least);
    form_json = form == LOG_FORM_JSON || (form == LOG_FORM_AUTO && !isatty(STDERR_FILENO));
}

bool log_enabled(enum log_level level)
{
    return level >= atomic_load_explicit(&level_least, memory_order_relaxed);
}

/* Length of the UTF-8 sequence at p, whose first byte is not ASCII; 0 when it is malformed. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    for (size_t len = 2; len <= 4 && len <= left; len++)
        if (utf8_valid(slice_of(p, len)))
            return len;
    return 0;
}

/* Control characters (C0, DEL and the two-byte C1, which terminals obey too) and malformed UTF-8 become
 * question marks, byte by byte. */
static void make_printable(uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t step = 1;
        if (text[i] >= 0x80)
            step = sequence_len(text + i, len - i);
        else if (text[i] < 0x20 || text[i] == 0x7f)
            step = 0;
        bool is_c1 = step == 2 && text[i] == 0xc2 && text[i + 1] < 0xa0;
        if (step == 0 || is_c1) {
            text[i] = '?';
            step = 1;
        }
        i += step;
    }
}

/* RFC 3339, UTC, milliseconds. */
static void format_time(char text[TIME_TEXT_BYTES])
{
    uint64_t now_ms = clock_wall_ms(clock_system());
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t len = strftime(text, TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + len, TIME_TEXT_BYTES - len, ".%03uZ", (unsigned)(now_ms % 1000));
}

static enum status build_line(struct buf *line, enum log_level level, struct slice message)
{
    char now[TIME_TEXT_BYTES];
    format_time(now);
    if (!form_json)
        return buf_printf(line, "%s %-5s %.*s\n", now, level_names[level], SLICE_ARG(message));
    enum status st = buf_printf(line, "{\"ts\":\"%s\",\"level\":\"%s\",\"msg\":", now, level_names[level]);
    if (st == ST_OK)
        st = json_put_string(line, message);
    return st == ST_OK ? buf_put(line, slice_of("}\n", 2)) : st;
}

static void write_line(struct slice line)
{
    while (line.len > 0) {
        ssize_t written = write(STDERR_FILENO, line.data, line.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* there is no other place to complain to */
        line = slice_from(line, (size_t)written);
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    int saved_errno = errno; /* callers log a failure and then go on deciding by errno */
    uint8_t message[MESSAGE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf((char *)message, sizeof message, format, args);
    va_end(args);
    size_t len = wanted < 0 ? 0 : (size_t)wanted;
    if (len >= sizeof message) {
        len = sizeof message - 1;
        memset(message + len - 3, '.', 3); /* says that it was cut */
    }
    make_printable(message, len);

    /* The buffer is the stack's and full size from the start, so that it is never grown or freed. */
    uint8_t space[LINE_BYTES_MAX];
    struct buf line = {.data = space, .len = 0, .cap = sizeof space, .limit = sizeof space};
    if (build_line(&line, level, slice_of(message, len)) == ST_OK)
        write_line(buf_slice(&line));
    errno = saved_errno;
}

bool log_permitted(struct log_limit *limit, uint64_t *held)
{
    uint64_t now_ms = clock_mono_ms(clock_system());
    uint64_t next_ms = atomic_load_explicit(&limit->next_ms, memory_order_relaxed);
    /* Of several threads that find the time come, the exchange lets one pass. */
    if (now_ms < next_ms ||
        !atomic_compare_exchange_strong(&limit->next_ms, &next_ms, now_ms + limit->every_ms)) {
        atomic_fetch_add_explicit(&limit->held_count, 1, memory_order_relaxed);
        return false;
    }
    *held = atomic_exchange_explicit(&limit->held_count, 0, memory_order_relaxed);
    return true;
}
