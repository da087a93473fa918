/* Well-formed UTF-8 by table 3-7 of the Unicode standard. The lead byte fixes the length and, for
 * four of them, a narrower range of the second byte; that range alone keeps out overlong forms
 * (E0, F0), surrogates (ED) and what is beyond U+10FFFF (F4).
 *
 * Text is mostly ASCII, so eight bytes at a time are looked at first. */
#include "core/utf8.h"

static bool is_tail(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* Bytes of the well-formed sequence of two to four bytes at `p`, 0 when there is none. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    if (lead < 0xC2 || lead > 0xF4) /* a tail byte, an overlong C0 or C1, beyond U+10FFFF */
        return 0;
    size_t len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (left < len)
        return 0;
    uint8_t least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < least || p[1] > most)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (!is_tail(p[i]))
            return 0;
    return len;
}

static inline bool valid(struct slice text, bool nul_allowed)
{
    const uint64_t high = 0x8080808080808080u, ones = 0x0101010101010101u;
    size_t i = 0;
    while (i < text.len) {
        uint64_t eight;
        while (text.len - i >= sizeof eight) {
            memcpy(&eight, text.data + i, sizeof eight);
            /* Without high bits, a subtraction borrows into a high bit only where a byte is 0. */
            if ((eight & high) || (!nul_allowed && ((eight - ones) & high)))
                break;
            i += sizeof eight;
        }
        if (i == text.len)
            break;
        uint8_t byte = text.data[i];
        if (byte == 0 && !nul_allowed)
            return false;
        size_t len = byte < 0x80 ? 1 : sequence_len(text.data + i, text.len - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

bool utf8_valid(struct slice text)
{
    return valid(text, true);
}

bool utf8_valid_mqtt(struct slice text)
{
    return valid(text, false);
}
