/* part: ws */
/* The head of a request to the public port. However its bytes are cut on the way the answer is the same; a
 * head that is taken is read once more in a slow and plain way, which must find the same lengths and the same
 * fields; and nothing of it lies outside of the bytes that it consumed. Input: what a connection sends. */
#include "gateway/ws/head.h"

#include <stdlib.h>
#include <strings.h>

enum { BYTES_MAX = 4096, VALUE_MAX = 256 };

static void check(bool claim)
{
    if (!claim)
        abort();
}

struct reading {
    enum status status;
    struct web_head head;
    struct web_flaw flaw;
    uint8_t *bytes;
};

/* As it comes: `step` bytes more each time. */
static struct reading take(const uint8_t *data, size_t size, size_t step)
{
    struct reading r = {.status = ST_AGAIN, .bytes = malloc(size + 1)};
    size_t scanned = 0, len = 0;
    memcpy(r.bytes, data, size);
    while (r.status == ST_AGAIN && len < size) {
        len = size - len < step ? size : len + step;
        r.status = web_head_read(r.bytes, len, BYTES_MAX, &scanned, &r.head, &r.flaw);
        check(scanned <= len);
    }
    return r;
}

static void check_inside(const struct reading *r, struct slice part)
{
    if (part.len > 0)
        check(part.data >= r->bytes && part.data + part.len <= r->bytes + r->head.bytes);
}

/* The value of the `nth` field of that name, by the raw bytes. */
static bool find_field(const uint8_t *data, size_t size, const char *name, unsigned nth, struct slice *value)
{
    size_t line = 0;
    for (size_t i = 0; i + 1 < size; i++) {
        if (data[i] != '\r')
            continue;
        size_t n = strlen(name);
        if (i - line > n && data[line + n] == ':' && strncasecmp((const char *)data + line, name, n) == 0 &&
            nth-- == 0) {
            *value = slice_of(data + line + n + 1, i - line - n - 1);
            while (value->len > 0 && (value->data[0] == ' ' || value->data[0] == '\t'))
                *value = slice_from(*value, 1);
            while (value->len > 0 &&
                   (value->data[value->len - 1] == ' ' || value->data[value->len - 1] == '\t'))
                value->len--;
            return true;
        }
        line = i + 2;
    }
    return false;
}

/* What could be smuggled: where the body begins, and how long it is. */
static void check_body(const uint8_t *data, const struct web_head *h)
{
    struct slice value, second;
    bool has_length = find_field(data, h->bytes, "Content-Length", 0, &value);
    check(data[h->bytes - 4] == '\r' && data[h->bytes - 3] == '\n' && data[h->bytes - 2] == '\r' &&
          data[h->bytes - 1] == '\n');
    check(!find_field(data, h->bytes, "Content-Length", 1, &second));
    check(h->chunked == find_field(data, h->bytes, "Transfer-Encoding", 0, &second));
    check(!(h->chunked && has_length));
    uint64_t n = 0;
    for (size_t i = 0; has_length && i < value.len; i++) {
        check(value.data[i] >= '0' && value.data[i] <= '9');
        n = n * 10 + (uint64_t)(value.data[i] - '0');
    }
    check(!has_length || value.len > 0);
    check(n == h->body_bytes);
}

static void check_lines(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        check(data[i] != 0);
        check((data[i] == '\n') == (i > 0 && data[i - 1] == '\r'));
        check(i == 0 || data[i - 1] != '\n' || (data[i] != ' ' && data[i] != '\t')); /* no folded line */
    }
}

static void check_values(const struct reading *r)
{
    char value[VALUE_MAX];
    size_t place = 0, before = 0;
    for (unsigned i = 0; i < WEB_FIELD_COUNT; i++) {
        check_inside(r, r->head.fields[i]);
        if (web_head_copy(&r->head, (enum web_field)i, value, sizeof value))
            check(strlen(value) > 0 && web_head_has(&r->head, (enum web_field)i));
    }
    for (long len;
         !r->head.target_flaw && (len = web_head_parameter(&r->head, &place, value, sizeof value)) >= 0;) {
        check((size_t)len <= sizeof value && place > before);
        check(!memchr(value, 0, (size_t)len));
        before = place;
    }
}

static void check_head(const uint8_t *data, const struct reading *r)
{
    const struct web_head *h = &r->head;
    check(h->method.len > 0);
    check_inside(r, h->method);
    check_inside(r, h->lines);
    check_inside(r, h->query);
    check_inside(r, h->host);
    if (!h->target_flaw)
        check(h->path.len > 0 && h->path.data[0] == '/' && !memchr(h->path.data, 0, h->path.len));
    check_lines(data, h->bytes);
    check_body(data, h);
    check_values(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading whole = take(data, size, size + 1), cut = take(data, size, 1);
    /* A second request behind the head is nobody's yet: the first must not depend on it. */
    check(whole.status == cut.status);
    if (whole.status == ST_INVALID)
        check(whole.flaw.status == cut.flaw.status || size > BYTES_MAX);
    if (whole.status == ST_OK) {
        check(whole.head.bytes <= size && whole.head.bytes <= BYTES_MAX);
        check(cut.head.bytes == whole.head.bytes && cut.head.body_bytes == whole.head.body_bytes &&
              cut.head.persists == whole.head.persists && cut.head.chunked == whole.head.chunked);
        check_head(data, &whole);
    }
    free(whole.bytes);
    free(cut.bytes);
    return 0;
}
