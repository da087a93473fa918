/* part: http */
/* The request target. What is taken must be what was meant: the path is compared with a second, slow reading
 * (cut at slashes, then decode), and encoding it again and reading that gives the same path. Parameters never
 * pass the space that is as large as the target. Input: a target. */
#include "gateway/host.h"
#include "gateway/http/request.h"

#include <stdio.h>
#include <stdlib.h>

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void check_segments(struct slice path)
{
    check(path.len > 0 && path.data[0] == '/');
    if (path.len == 1)
        return;
    struct slice rest = slice_from(path, 1), segment;
    while (topic_level_next(&rest, &segment)) {
        check(segment.len > 0);
        check(!slice_equal_cstr(segment, ".") && !slice_equal_cstr(segment, ".."));
        check(!memchr(segment.data, 0, segment.len));
    }
}

/* The number of levels is that of the raw path: no percent sign makes one. */
static void check_levels(struct slice raw, const struct target *t)
{
    size_t slashes = 0;
    for (size_t i = 0; i < raw.len && raw.data[i] != '?'; i++)
        slashes += raw.data[i] == '/';
    for (size_t i = 0; i < t->path.len; i++)
        slashes -= t->path.data[i] == '/';
    check(slashes == (t->trailing_slash ? 1 : 0));
}

static void check_round_trip(struct slice path)
{
    uint8_t *raw = malloc(3 * path.len + 1), *space = malloc(3 * path.len + 1);
    size_t len = 0;
    struct target t;
    for (size_t i = 0; i < path.len; i++) {
        if (path.data[i] == '/')
            raw[len++] = '/';
        else
            len += (size_t)snprintf((char *)raw + len, 4, "%%%02x", (unsigned)path.data[i]);
    }
    check(target_parse(slice_of(raw, len), space, &t) == TARGET_FINE);
    check(slice_equal(t.path, path));
    free(raw);
    free(space);
}

static void check_parameters(struct target *t, const uint8_t *space, size_t size)
{
    struct slice name, value;
    size_t total = t->path.len;
    while (target_parameter(t, &name, &value) == ST_OK) {
        total += name.len + value.len;
        check(name.len == 0 || (name.data >= space && name.data + name.len <= space + size));
        check(value.len == 0 || (value.data >= space && value.data + value.len <= space + size));
    }
    check(total <= size);
}

/* A host that is loopback has nothing in it that a name could have. */
static void check_host(struct slice text)
{
    if (!host_is_loopback(text))
        return;
    for (size_t i = 0; i < text.len; i++)
        check(text.data[i] && strchr("0123456789.:[]abcdefABCDEFlochstLOCHST", text.data[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice raw = slice_of(data, size);
    uint8_t *space = malloc(size + (size == 0));
    struct target t;
    if (target_parse(raw, space, &t) == TARGET_FINE) {
        check_segments(t.path);
        check_levels(raw, &t);
        check_round_trip(t.path);
        check_parameters(&t, space, size);
    }
    check_host(raw);
    free(space);
    return 0;
}
