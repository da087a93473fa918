#include "gateway/unknown.h"

#include <stdio.h>

static size_t plain_length(struct slice text)
{
    enum { MOST = 40 };
    size_t n = 0;
    while (n < text.len && n < MOST &&
           ((text.data[n] >= '0' && text.data[n] <= '9') || text.data[n] == '_' || text.data[n] == '-' ||
            ((text.data[n] | 0x20) >= 'a' && (text.data[n] | 0x20) <= 'z')))
        n++;
    return n;
}

void unknown_parameter_text(struct slice name, const char *more, char out[UNKNOWN_TEXT_BYTES])
{
    snprintf(out, UNKNOWN_TEXT_BYTES, "there is no query parameter %.*s%s", (int)plain_length(name),
             (const char *)name.data, more);
}
