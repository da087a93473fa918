#include "core/hash.h"

#include <criterion/criterion.h>

/* Under the zero key: what CPython 3.11 gives for hash(bytes(range(n))) with PYTHONHASHSEED=0, n from 1. */
static const uint64_t zero_key_vectors[] = {
    0x68a914128e01e473u, 0x010bac45c41e3669u, 0x4d4c9a4a8ef6e0adu, 0x7cc43f98813e4dbdu, 0x5abe2169dff36275u,
    0xe3c25f87624f1cdbu, 0x2f098ab0c751325au, 0xead411e67ebe2eeau, 0x75927f9d95124362u, 0xaf9f77a65ab51a1du,
    0xfe64ce8b6617fcffu, 0xa6baf4fb0f9fe1c2u, 0xa0cf3211850f8e0du, 0x7f86049379fbfe67u, 0xf30eb725bb91c9eau,
    0x8972188433a5c5b7u, 0x4883c49a2c009c1du, 0xadc2c0b63044067du, 0x091f4a3329f87d19u, 0x639e355ae68c0100u,
    0xb17bef2cb5213239u, 0xf8aeb1066236ccfeu, 0x37332b1389daa4ffu, 0x31185a47af932f3au, 0xebf352e82ae23e2fu,
    0xed36ff242fe478b2u, 0x2454d97d299299dfu, 0x8cd57fe8130d0ac7u, 0xbe98eb2faf0a0e85u, 0xd427c34ee09470c6u,
    0x169739443111d49bu, 0x31ef8061c910629bu, 0x7fb71d24dfa4c9f6u, 0x92771f49e836d389u, 0x3c393cf6f0853bc3u,
    0xac77921fcc642bd3u, 0x422a9751192ff266u, 0xc680ae8a8c584ddfu, 0x6c76b6d34bb6d26bu, 0x95bc321ab41d8206u,
    0x908a3a97a6d37669u, 0xfcaf3c64874dd0b4u, 0xf689479b32b84a44u, 0xd857641079efd1fdu, 0x8b581578722633f7u,
    0x83cb09d35ea7bcd4u, 0x8485f7f5ae725a0du, 0xfe1f2445ba50237fu, 0x23cece041d7866b0u, 0x416687480b336c09u,
    0xf15960da7e7f3892u, 0xded6177b9826835au, 0xf80dae51668be6beu, 0x17ecc6ee6647df18u, 0x5220d642b4a52110u,
    0xa4f0cf4ba4adc016u, 0xe5125bb26d1f2976u, 0x851b0e75f580d256u, 0x12605250a37e39acu, 0xd95a713568daebf1u,
    0xcdcf4a42ec0dd605u, 0xa5c708712b617164u, 0x385d3e39e5f37359u, 0x75e05fd5bbc870c6u,
};

Test(hash, is_siphash_1_3)
{
    uint8_t bytes[64];
    for (size_t n = 1; n <= sizeof bytes; n++) {
        bytes[n - 1] = (uint8_t)(n - 1);
        cr_assert_eq(hash64(slice_of(bytes, n)), zero_key_vectors[n - 1], "length %zu", n);
    }
}

Test(hash, depends_on_the_key_of_the_process)
{
    struct slice text = slice_cstr("home/kitchen/temp");
    uint64_t before = hash64(text);
    hash_setup();
    uint64_t after = hash64(text);
    cr_assert_neq(before, after);
    cr_assert_eq(hash64(text), after);
    hash_setup();
    cr_assert_neq(hash64(text), after, "the key is drawn, not computed");
}

/* Records lie where these values put them: a change here is a change of the disk format. The values
 * are from a second implementation, in Python, that agrees with CPython's. */
Test(hash, stable_values_never_change)
{
    static const struct {
        const char *text;
        uint64_t want;
    } rows[] = {
        {"", 0xf8ffe66c54b2d282u},
        {"a", 0x30c00c70bb182b6du},
        {"home/kitchen/temp", 0x558c89094137595eu},
        {"$user/alice", 0xdc0563ae54a9d058u},
        {"sport/tennis/player1/ranking", 0xf38d41fc81a04b18u},
        {"0123456789abcdef", 0x4ea5de0e9d091d49u},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            cr_assert_eq(hash64_stable(slice_cstr(rows[i].text)), rows[i].want, "%s", rows[i].text);
        hash_setup();
    }
    cr_assert_eq(hash64_stable(slice_of(NULL, 0)), rows[0].want);
}

Test(hash, does_not_care_how_the_bytes_lie)
{
    uint8_t bytes[80];
    for (size_t shift = 0; shift < 8; shift++) {
        for (size_t i = 0; i < 64; i++)
            bytes[shift + i] = (uint8_t)i;
        for (size_t n = 1; n <= 64; n++)
            cr_assert_eq(hash64(slice_of(bytes + shift, n)), zero_key_vectors[n - 1]);
    }
}
