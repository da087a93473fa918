/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF"; one round a word, three to
 * finish): the variant that Rust, Python and Ruby use for their tables. */
#include "core/hash.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <sys/random.h>

struct sip_key {
    uint64_t k0, k1;
};

/* Written by hash_setup before there are threads, only read from then on. */
static struct sip_key process_key;

/* "tidegate" "partitio": where records live depends on it. Never change. */
static const struct sip_key stable_key = {0x6574616765646974u, 0x6f69746974726170u};

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static uint64_t siphash13(const struct sip_key *key, struct slice bytes)
{
    struct sip s = {
        key->k0 ^ 0x736f6d6570736575u,
        key->k1 ^ 0x646f72616e646f6du,
        key->k0 ^ 0x6c7967656e657261u,
        key->k1 ^ 0x7465646279746573u,
    };
    size_t whole = bytes.len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word;
        memcpy(&word, bytes.data + i, sizeof word);
        sip_word(&s, le64toh(word));
    }
    /* The last word: up to seven bytes, and the length in the topmost one. */
    uint64_t last = (uint64_t)bytes.len << 56;
    for (size_t i = whole; i < bytes.len; i++)
        last |= (uint64_t)bytes.data[i] << 8 * (i - whole);
    sip_word(&s, last);
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

void hash_setup(void)
{
    ssize_t got;
    do
        got = getrandom(&process_key, sizeof process_key, 0);
    while (got < 0 && errno == EINTR);
    assert(got == (ssize_t)sizeof process_key); /* up to 256 bytes never come short: getrandom(2) */
}

uint64_t hash64(struct slice bytes)
{
    return siphash13(&process_key, bytes);
}

uint64_t hash64_stable(struct slice bytes)
{
    return siphash13(&stable_key, bytes);
}
