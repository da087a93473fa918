/* Lines of a file or of stdin, of limited length, with their numbers. One thread. */
#ifndef TG_GATEWAY_CLI_LINE_INPUT_H
#define TG_GATEWAY_CLI_LINE_INPUT_H

#include "core/buf.h"

#include <stdio.h>

struct line_input {
    FILE *file;
    struct buf line;
    uint64_t number; /* of the line that was read, from 1 */
};

/* `path` "-" is stdin. ST_IO: errno. */
enum status line_input_open(struct line_input *in, const char *path, size_t line_bytes_max) MUST_CHECK;
void line_input_close(struct line_input *in);
/* The next line that is not empty, without its end, in in->line. ST_NOT_FOUND: there is none; ST_TOO_LARGE:
 * it is too long, and has been passed; ST_IO: errno; ST_NO_MEMORY. */
enum status line_input_next(struct line_input *in) MUST_CHECK;

#endif
