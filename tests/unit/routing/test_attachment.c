#include "routing/attachment.h"

#include <criterion/criterion.h>

Test(attachment, is_read_as_it_was_written)
{
    const uint64_t rows[] = {0, 1, 0x0123456789abcdef, UINT64_MAX};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[ATTACHMENT_BYTES];
        uint64_t back = 5;
        attachment_write(rows[i], text);
        cr_expect_eq(attachment_read(slice_of(text, sizeof text), &back), ST_OK);
        cr_expect_eq(back, rows[i]);
    }
}

Test(attachment, refuses_what_is_none)
{
    static const char *const rows[] = {"",
                                       "0",
                                       "000000000000000",
                                       "00000000000000000",
                                       "000000000000000G",
                                       "000000000000000A",
                                       "-000000000000001"};
    uint64_t back;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(attachment_read(slice_cstr(rows[i]), &back), ST_INVALID, "%s", rows[i]);
}

Test(attachment, topics_of_records)
{
    cr_expect(topic_session(slice_cstr("$session/x")));
    cr_expect(!topic_session(slice_cstr("$session")));
    cr_expect(!topic_session(slice_cstr("$sessions/x")));
    cr_expect(!topic_session(slice_cstr("session/x")));
}
