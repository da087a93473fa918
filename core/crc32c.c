/* CRC-32C, polynomial 0x1EDC6F41, bits reflected.
 *
 * The CPU's crc32 instruction takes 8 bytes in one cycle but has a latency of three, so one stream
 * uses a third of it. Hence three streams over neighbouring blocks of N bytes, whose values are then
 * brought together: what precedes n bytes counts x^(8n) times. The multiplication is carry-less
 * (PCLMULQDQ); its 63 bit product, reflected, stands for a * k * x, and the crc32 instruction that
 * reduces it multiplies by x^32 more. So the factor for n bytes is k(n) = x^(8n - 33) mod P.
 *
 *     | block a: N bytes | block b: N bytes | block c: N bytes |
 *     crc = reduce(a * k(2N) ^ b * k(N)) ^ c
 *
 * Without the instructions: eight tables, eight bytes a step ("slicing by 8"). */
#include "core/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef uint32_t crc_function(uint32_t state, const uint8_t *p, size_t len);

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

/* --- tables --- */

enum { CRC_POLYNOMIAL_REFLECTED = 0x82F63B78u };

static uint32_t tables[8][256]; /* [k][b]: byte b followed by k zero bytes */

static void fill_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? (uint32_t)CRC_POLYNOMIAL_REFLECTED : 0);
        tables[0][b] = crc;
    }
    for (uint32_t b = 0; b < 256; b++)
        for (int k = 1; k < 8; k++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
}

static uint32_t crc_by_tables(uint32_t state, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word = load64(p) ^ state;
        state = 0;
        for (int k = 0; k < 8; k++)
            state ^= tables[7 - k][word >> 8 * k & 0xff];
    }
    for (; len > 0; p++, len--)
        state = state >> 8 ^ tables[0][(state ^ *p) & 0xff];
    return state;
}

/* --- instruction --- */

#if defined(__x86_64__)
#include <immintrin.h>

#define CPU_TARGET __attribute__((target("sse4.2,pclmul")))

CPU_TARGET static inline uint64_t multiply(uint64_t crc, uint32_t factor)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)factor), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* One run of three blocks of n bytes, n a multiple of 8; k1 = k(n), k2 = k(2n). */
CPU_TARGET static inline uint64_t three_blocks(uint64_t a, const uint8_t *p, size_t n, uint32_t k1,
                                               uint32_t k2)
{
    uint64_t b = 0, c = 0;
    for (size_t i = 0; i < n; i += 8) {
        a = _mm_crc32_u64(a, load64(p + i));
        b = _mm_crc32_u64(b, load64(p + n + i));
        c = _mm_crc32_u64(c, load64(p + 2 * n + i));
    }
    return _mm_crc32_u64(0, multiply(a, k2) ^ multiply(b, k1)) ^ c;
}

CPU_TARGET static uint32_t crc_by_cpu(uint32_t state, const uint8_t *p, size_t len)
{
    enum { LONG = 1024, SHORT = 128, RECORD = 64 };
    uint64_t crc = state;
    for (; len >= 3 * LONG; p += 3 * LONG, len -= 3 * LONG)
        crc = three_blocks(crc, p, LONG, 0x170076fau, 0xa51b6135u);
    for (; len >= 3 * SHORT; p += 3 * SHORT, len -= 3 * SHORT)
        crc = three_blocks(crc, p, SHORT, 0x0d3b6092u, 0xb9e02b86u);
    for (; len >= 3 * RECORD; p += 3 * RECORD, len -= 3 * RECORD) /* most records are so long */
        crc = three_blocks(crc, p, RECORD, 0x9e4addf8u, 0x0d3b6092u);
    for (; len >= 8; p += 8, len -= 8)
        crc = _mm_crc32_u64(crc, load64(p));
    state = (uint32_t)crc;
    for (; len > 0; p++, len--)
        state = _mm_crc32_u8(state, *p);
    return state;
}

static crc_function *choose(void)
{
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
        return crc_by_cpu;
    fill_tables();
    return crc_by_tables;
}

#else

static crc_function *choose(void)
{
    fill_tables();
    return crc_by_tables;
}

#endif

/* --- choice, once --- */

static crc_function crc_first_call;
static _Atomic(crc_function *) crc_chosen = crc_first_call;

static void set_choice(void)
{
    /* Release: the tables are complete for whoever sees the pointer (acquire in crc32c). */
    atomic_store_explicit(&crc_chosen, choose(), memory_order_release);
}

static uint32_t crc_first_call(uint32_t state, const uint8_t *p, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_choice);
    return atomic_load_explicit(&crc_chosen, memory_order_acquire)(state, p, len);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    crc_function *function = atomic_load_explicit(&crc_chosen, memory_order_acquire);
    return ~function(~crc, data, len);
}
