#include "routing/user.h"

#include "core/utf8.h"

/* MQTT 5.0, 1.5.4: control characters are U+0000 to U+001F and U+007F to U+009F. */
static size_t plain_bytes(struct slice text)
{
    size_t i = 0;
    for (; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0);
        if (control || c == '%' || c == '/' || c == '+' || c == '#')
            break;
    }
    return i;
}

/* Of a character that is encoded: one byte, or the two of U+0080 to U+009F. */
static size_t encoded_bytes(struct slice text)
{
    return text.data[0] == 0xc2 ? 2 : 1;
}

static void encode_byte(uint8_t byte, char out[3])
{
    static const char digits[] = "0123456789ABCDEF";
    out[0] = '%';
    out[1] = digits[byte >> 4];
    out[2] = digits[byte & 15];
}

bool user_valid(struct slice user)
{
    return user.len > 0 && utf8_valid(user);
}

enum status user_encode(struct slice user, struct buf *out)
{
    enum status st = ST_OK;
    while (user.len > 0 && st == ST_OK) {
        size_t plain = plain_bytes(user);
        st = buf_put(out, slice_of(user.data, plain));
        user = slice_from(user, plain);
        for (size_t n = user.len > 0 ? encoded_bytes(user) : 0; n > 0 && st == ST_OK; n--) {
            char hex[3];
            encode_byte(user.data[0], hex);
            st = buf_put(out, slice_of(hex, sizeof hex));
            user = slice_from(user, 1);
        }
    }
    return st;
}

enum status user_put_inbox(struct buf *out, struct slice user, struct slice below)
{
    enum status st = buf_put_cstr(out, "$user/");
    if (st == ST_OK)
        st = user_encode(user, out);
    if (st == ST_OK && below.len > 0)
        st = buf_put_byte(out, '/');
    return st == ST_OK ? buf_put(out, below) : st;
}
