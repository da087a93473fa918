/* The source, not the header: both ways of computing are compared, whichever this CPU would choose. */
#include "core/crc32c.c"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { BYTES = 10000 };

static uint8_t *some_bytes(void)
{
    uint8_t *bytes = malloc(BYTES);
    uint64_t x = 88172645463325252u; /* xorshift: any bytes do, the same each time */
    for (size_t i = 0; i < BYTES; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        bytes[i] = (uint8_t)x;
    }
    return bytes;
}

Test(crc32c, vectors_of_rfc_3720_b_4)
{
    uint8_t zeroes[32], ones[32], up[32], down[32];
    for (int i = 0; i < 32; i++) {
        zeroes[i] = 0;
        ones[i] = 0xff;
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    static const uint8_t iscsi_read[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0,
    };
    const struct {
        const void *data;
        size_t len;
        uint32_t want;
    } rows[] = {
        {zeroes, 32, 0x8a9136aa},
        {ones, 32, 0x62a8ab43},
        {up, 32, 0x46dd794e},
        {down, 32, 0x113fdb5c},
        {iscsi_read, 48, 0xd9963a56},
        {"123456789", 9, 0xe3069283},
        {"", 0, 0},
        {"a", 1, 0xc1d04330},
    };
    fill_tables();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(crc32c(0, rows[i].data, rows[i].len), rows[i].want, "row %zu", i);
        cr_assert_eq(~crc_by_tables(~0u, rows[i].data, rows[i].len), rows[i].want, "row %zu by tables", i);
    }
    cr_assert_eq(crc32c(0, NULL, 0), 0);
}

/* The definition, bit by bit. */
static uint32_t crc_by_bits(uint32_t state, const uint8_t *p, size_t len)
{
    for (; len > 0; p++, len--) {
        state ^= *p;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? 0x82F63B78u : 0);
    }
    return state;
}

Test(crc32c, all_ways_agree_at_every_length_and_alignment)
{
    uint8_t *bytes = some_bytes();
    fill_tables();
    uint32_t want = ~0u; /* grows with the length */
    for (size_t len = 0; len < BYTES - 16; len++) {
        if (len > 0)
            want = crc_by_bits(want, bytes + len - 1, 1);
        cr_assert_eq(crc_by_tables(~0u, bytes, len), want, "tables, length %zu", len);
        cr_assert_eq(~crc32c(0, bytes, len), want, "chosen, length %zu", len);
        size_t shift = len % 16;
        cr_assert_eq(~crc32c(0, bytes + shift, len), crc_by_tables(~0u, bytes + shift, len), "length %zu",
                     len);
    }
    free(bytes);
}

Test(crc32c, goes_on_from_the_piece_before)
{
    uint8_t *bytes = some_bytes();
    uint32_t whole = crc32c(0, bytes, BYTES);
    for (size_t cut = 0; cut <= BYTES; cut += 97)
        cr_assert_eq(crc32c(crc32c(0, bytes, cut), bytes + cut, BYTES - cut), whole, "cut at %zu", cut);
    free(bytes);
}
