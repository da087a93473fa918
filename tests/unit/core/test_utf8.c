#include "core/utf8.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

/* Puts the bytes at every place of a longer ASCII text, so that both the wide and the narrow step see
 * them, in memory that ends where the text does. */
static void check(const char *bytes, size_t len, bool want, bool want_mqtt, const char *what)
{
    for (size_t before = 0; before < 20; before++)
        for (size_t after = 0; after < 20; after++) {
            size_t total = before + len + after;
            uint8_t *text = malloc(total ? total : 1);
            memset(text, 'a', total);
            memcpy(text + before, bytes, len);
            cr_assert_eq(utf8_valid(slice_of(text, total)), want, "%s after %zu", what, before);
            cr_assert_eq(utf8_valid_mqtt(slice_of(text, total)), want_mqtt, "mqtt: %s after %zu", what,
                         before);
            free(text);
        }
}

Test(utf8, edge_cases_of_table_3_7)
{
    static const struct {
        const char *bytes;
        bool want;
    } rows[] = {
        {"", true},
        {"\x01", true},
        {"\x7F", true},
        {"\x80", false}, /* a tail byte alone */
        {"\xBF", false},
        {"\xC0\x80", false}, /* overlong U+0000 */
        {"\xC1\xBF", false}, /* overlong U+007F */
        {"\xC2\x80", true}, /* U+0080 */
        {"\xC2\x7F", false},
        {"\xC2\xC0", false},
        {"\xC2", false},
        {"\xDF\xBF", true}, /* U+07FF */
        {"\xE0\x80\x80", false},
        {"\xE0\x9F\xBF", false}, /* overlong U+07FF */
        {"\xE0\xA0\x80", true}, /* U+0800 */
        {"\xE0\xA0", false},
        {"\xE0\xA0\x7F", false},
        {"\xE1\x80\x80", true},
        {"\xE1\x7F\x80", false},
        {"\xED\x9F\xBF", true}, /* U+D7FF */
        {"\xED\xA0\x80", false}, /* U+D800, the first surrogate */
        {"\xED\xBF\xBF", false}, /* U+DFFF, the last */
        {"\xED\xA0\xBD\xED\xB8\x80", false}, /* CESU-8 */
        {"\xEE\x80\x80", true}, /* U+E000 */
        {"\xEF\xBB\xBF", true}, /* U+FEFF is no error: MQTT 5.0, 1.5.4-3 */
        {"\xEF\xBF\xBD", true},
        {"\xEF\xBF\xBE", true}, /* U+FFFE, a non-character: "should not", MQTT 5.0, 1.5.4 */
        {"\xEF\xBF\xBF", true},
        {"\xF0\x80\x80\x80", false},
        {"\xF0\x8F\xBF\xBF", false}, /* overlong U+FFFF */
        {"\xF0\x90\x80\x80", true}, /* U+10000 */
        {"\xF0\x9F\x98\x80", true},
        {"\xF0\x9F\x98", false},
        {"\xF0\x9F", false},
        {"\xF0", false},
        {"\xF0\x9F\x98\x7F", false},
        {"\xF0\x9F\x7F\x80", false},
        {"\xF4\x8F\xBF\xBF", true}, /* U+10FFFF */
        {"\xF4\x90\x80\x80", false}, /* U+110000 */
        {"\xF5\x80\x80\x80", false},
        {"\xF8\x88\x80\x80\x80", false},
        {"\xFC\x84\x80\x80\x80\x80", false},
        {"\xFE", false},
        {"\xFF", false},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", true}, /* 2, 3, 4 bytes in a row */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char what[16];
        snprintf(what, sizeof what, "row %zu", i);
        check(rows[i].bytes, strlen(rows[i].bytes), rows[i].want, rows[i].want, what);
    }
}

Test(utf8, mqtt_has_no_nul)
{
    check("\0", 1, true, false, "NUL");
    check("\xC2\x80\0", 3, true, false, "NUL after a sequence");
    check("\0\x80", 2, false, false, "NUL before a wrong byte");
}

/* The definition, code point by code point, against all 65536 pairs of leading bytes and a tail. */
static bool decodes(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t point = p[i++];
        int tails = point < 0x80   ? 0
                    : point < 0xC0 ? -1
                    : point < 0xE0 ? 1
                    : point < 0xF0 ? 2
                    : point < 0xF8 ? 3
                                   : -1;
        if (tails < 0)
            return false;
        if (tails > 0)
            point &= 0x3Fu >> tails;
        for (int t = 0; t < tails; t++, i++) {
            if (i >= len || (p[i] & 0xC0) != 0x80)
                return false;
            point = point << 6 | (p[i] & 0x3F);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[tails] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
            return false;
    }
    return true;
}

Test(utf8, agrees_with_the_definition)
{
    static const uint8_t ends[] = {0x00, 0x41, 0x7F, 0x80, 0xBF, 0xC2};
    for (unsigned first = 0; first < 256; first++)
        for (unsigned second = 0; second < 256; second++)
            for (size_t e = 0; e < sizeof ends * sizeof ends; e++) {
                uint8_t text[4] = {(uint8_t)first, (uint8_t)second, ends[e / sizeof ends],
                                   ends[e % sizeof ends]};
                for (size_t len = 1; len <= 4; len++)
                    if (utf8_valid(slice_of(text, len)) != decodes(text, len))
                        cr_assert_fail("%02x %02x %02x %02x, %zu bytes", text[0], text[1], text[2], text[3],
                                       len);
            }
}
