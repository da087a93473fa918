/* Borrowed bytes, passed by value, without a NUL. A slice never owns: it is valid as long as what
 * it points into. A slice of length 0 may have a NULL pointer. */
#ifndef TG_CORE_SLICE_H
#define TG_CORE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

static inline struct slice slice_of(const void *data, size_t len)
{
    return (struct slice){(const uint8_t *)data, len};
}

/* A NUL-terminated string; NULL is the empty slice. */
static inline struct slice slice_cstr(const char *text)
{
    return (struct slice){(const uint8_t *)text, text ? strlen(text) : 0};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_equal_cstr(struct slice a, const char *text)
{
    return slice_equal(a, slice_cstr(text));
}

static inline bool slice_starts_with(struct slice a, struct slice prefix)
{
    return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.data, prefix.data, prefix.len) == 0);
}

/* The part from `from` on; `from` at or beyond the end gives the empty slice. */
static inline struct slice slice_from(struct slice a, size_t from)
{
    return from >= a.len ? (struct slice){a.data, 0} : (struct slice){a.data + from, a.len - from};
}

/* For printf: ("%.*s", SLICE_ARG(s)). Lengths beyond INT_MAX are cut. */
#define SLICE_ARG(s) (int)((s).len > 0x7fffffff ? 0x7fffffff : (s).len), (const char *)(s).data

#endif
