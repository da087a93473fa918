#include "gateway/http/trace.h"

static bool is_hex(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!((text.data[i] >= '0' && text.data[i] <= '9') || (text.data[i] >= 'a' && text.data[i] <= 'f')))
            return false;
    return true;
}

bool trace_valid(struct slice t)
{
    return t.len == TRACE_BYTES && memcmp(t.data, "00-", 3) == 0 && is_hex(slice_of(t.data + 3, 32)) &&
           t.data[35] == '-' && is_hex(slice_of(t.data + 36, 16)) && t.data[52] == '-' &&
           is_hex(slice_of(t.data + 53, 2));
}
