/* CRC-32C, bit by bit from its definition (reversed polynomial 0x82F63B78), for log_files.py: nothing of the
 * program under test may judge its files. */
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t len);

uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t len)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int bit = 0; bit < 8; bit++)
                c = c >> 1 ^ (c & 1 ? 0x82F63B78 : 0);
            table[i] = c;
        }
    }
    crc = ~crc;
    while (len-- > 0)
        crc = crc >> 8 ^ table[(crc ^ *bytes++) & 0xff];
    return ~crc;
}
