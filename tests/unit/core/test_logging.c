#include "core/logging.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/* Criterion runs each test in a process of its own, so standard error may be replaced. */
static int capture(void)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    return ends[0];
}

static const char *captured(int fd)
{
    static char text[65536];
    fcntl(fd, F_SETFL, O_NONBLOCK);
    ssize_t len = read(fd, text, sizeof text - 1);
    text[len > 0 ? len : 0] = '\0';
    return text;
}

Test(logging, writes_one_json_object_a_line)
{
    int fd = capture();
    log_setup(LOG_INFO, LOG_FORM_JSON);
    log_warn("queue full client=%s dropped=%u", "a\"b\\c\nd\x1b[31m\xff\xc3\xa9", 7u);
    json_error_t error;
    const char *line = captured(fd);
    cr_assert_eq(line[strlen(line) - 1], '\n');
    cr_assert_eq(strchr(line, '\n'), line + strlen(line) - 1);
    json_t *root = json_loads(line, 0, &error);
    cr_assert(root, "%s", line);
    cr_assert_str_eq(json_string_value(json_object_get(root, "level")), "warn");
    cr_assert_str_eq(json_string_value(json_object_get(root, "msg")),
                     "queue full client=a\"b\\c?d?[31m?\xc3\xa9 dropped=7");
    const char *ts = json_string_value(json_object_get(root, "ts"));
    int year, month, day, hour, minute, second, ms;
    char end;
    cr_assert_eq(
        sscanf(ts, "%4d-%2d-%2dT%2d:%2d:%2d.%3d%c", &year, &month, &day, &hour, &minute, &second, &ms, &end),
        8, "%s", ts);
    cr_assert_eq(end, 'Z');
    cr_assert_eq(strlen(ts), 24);
    json_decref(root);
}

Test(logging, writes_text_for_people)
{
    int fd = capture();
    log_setup(LOG_DEBUG, LOG_FORM_TEXT);
    log_debug("hello x=%d", 1);
    const char *line = captured(fd);
    cr_assert(strstr(line, "Z debug hello x=1\n"), "%s", line);
}

Test(logging, replaces_control_characters_of_terminals)
{
    int fd = capture();
    log_setup(LOG_INFO, LOG_FORM_TEXT);
    log_info("a=%s", "\x1b]0;x\x07|\xc2\x9b"
                     "1m|\x7f|\xe2\x82\xac|\xe2\x82");
    cr_assert(strstr(captured(fd), "a=?]0;x?|??1m|?|\xe2\x82\xac|??\n"));
}

Test(logging, omits_what_is_below_the_level)
{
    int fd = capture();
    log_setup(LOG_WARN, LOG_FORM_TEXT);
    log_debug("no");
    log_info("no");
    cr_assert_not(log_enabled(LOG_INFO));
    cr_assert(log_enabled(LOG_ERROR));
    log_error("yes");
    const char *line = captured(fd);
    cr_assert_not(strstr(line, "no\n"));
    cr_assert(strstr(line, "error yes\n"));
}

Test(logging, chooses_json_off_a_terminal_and_text_on_one)
{
    int fd = capture();
    log_setup(LOG_INFO, LOG_FORM_AUTO);
    log_info("x");
    cr_assert_eq(captured(fd)[0], '{');

    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    cr_assert_geq(slave, 0);
    dup2(slave, STDERR_FILENO);
    log_setup(LOG_INFO, LOG_FORM_AUTO);
    log_info("x");
    cr_assert_eq(captured(terminal)[0], '2', "a date");
}

Test(logging, cuts_long_lines_and_stays_valid)
{
    char *text = malloc(100001);
    memset(text, '"', 100000);
    text[100000] = '\0';
    int fd = capture();
    log_setup(LOG_INFO, LOG_FORM_JSON);
    log_info("%s", text);
    const char *line = captured(fd);
    json_error_t error;
    json_t *root = json_loads(line, 0, &error);
    cr_assert(root, "%s", error.text);
    const char *msg = json_string_value(json_object_get(root, "msg"));
    cr_assert_eq(strlen(msg), 2047);
    cr_assert_str_eq(msg + 2044, "...");
    json_decref(root);
    free(text);
}

Test(logging, keeps_errno)
{
    capture();
    log_setup(LOG_INFO, LOG_FORM_JSON);
    close(STDERR_FILENO);
    errno = ENOSPC;
    log_error("cannot write: %m");
    cr_assert_eq(errno, ENOSPC);
}

Test(log_permitted, lets_one_pass_and_counts_the_rest)
{
    struct log_limit limit = {.every_ms = 3600000};
    uint64_t held = 99;
    cr_assert(log_permitted(&limit, &held));
    cr_assert_eq(held, 0);
    for (int i = 0; i < 5; i++)
        cr_assert_not(log_permitted(&limit, &held));
    limit.next_ms = 0; /* as if the hour were over */
    cr_assert(log_permitted(&limit, &held));
    cr_assert_eq(held, 5);
    cr_assert_not(log_permitted(&limit, &held));
}
