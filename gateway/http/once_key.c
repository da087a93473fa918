#include "gateway/http/once_key.h"

static bool put(uint8_t space[ONCE_NAME_BYTES_MAX], size_t *len, uint8_t byte)
{
    if (*len == ONCE_NAME_BYTES_MAX)
        return false;
    space[(*len)++] = byte;
    return true;
}

/* What stands between the quotes. */
static bool unescape(struct slice text, uint8_t space[ONCE_NAME_BYTES_MAX], size_t *len)
{
    for (size_t i = 0; i < text.len; i++) {
        bool escaped = text.data[i] == '\\';
        if (escaped && ++i == text.len)
            return false;
        bool special = text.data[i] == '"' || text.data[i] == '\\';
        if (special != escaped || !put(space, len, text.data[i]))
            return false;
    }
    return true;
}

bool once_key_read(struct slice field, uint8_t space[ONCE_NAME_BYTES_MAX], struct slice *out)
{
    size_t len = 0;
    if (field.len > 0 && field.data[0] == '"') {
        if (field.len < 2 || field.data[field.len - 1] != '"' ||
            !unescape(slice_of(field.data + 1, field.len - 2), space, &len))
            return false;
    } else {
        for (size_t i = 0; i < field.len; i++)
            if (!put(space, &len, field.data[i]))
                return false;
    }
    *out = slice_of(space, len);
    return once_name_valid(*out);
}
