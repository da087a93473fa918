#include "gateway/cli/line_input.h"

#include <errno.h>

enum status line_input_open(struct line_input *in, const char *path, size_t line_bytes_max)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file)
        return ST_IO;
    *in = (struct line_input){.file = file};
    buf_init(&in->line, line_bytes_max);
    return ST_OK;
}

void line_input_close(struct line_input *in)
{
    if (in->file && in->file != stdin)
        fclose(in->file);
    buf_deinit(&in->line);
    in->file = NULL;
}

/* One line of any length. ST_NOT_FOUND: the end was there before the first byte. */
static enum status read_line(struct line_input *in)
{
    enum status st = ST_OK;
    bool any = false;
    int c;
    buf_clear(&in->line);
    errno = 0;
    while ((c = getc_unlocked(in->file)) != EOF) {
        any = true;
        if (c == '\n')
            break;
        if (st == ST_OK)
            st = buf_put_byte(&in->line, (uint8_t)c);
    }
    if (ferror(in->file))
        return ST_IO;
    in->number += any;
    if (!any)
        return ST_NOT_FOUND;
    return st == ST_FULL ? ST_TOO_LARGE : st;
}

enum status line_input_next(struct line_input *in)
{
    enum status st;
    do {
        st = read_line(in);
        if (st == ST_OK && in->line.len > 0 && in->line.data[in->line.len - 1] == '\r')
            in->line.len--;
    } while (st == ST_OK && in->line.len == 0);
    return st;
}
