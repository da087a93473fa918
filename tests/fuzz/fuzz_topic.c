/* Topic rules against a second, slow reading of MQTT 5.0, 4.7: whole arrays of levels and recursion, no
 * code shared with routing/topic.c. What is valid is also linked into a filter table, which must agree.
 * Input: filters and topic names, separated by newlines; each filter meets each name. */
#include "core/utf8.h"
#include "routing/filter_table.h"
#include "routing/topic.h"

#include <stdlib.h>

enum { LEVELS_MAX = 16, BYTES_MAX = 200, TEXTS_MAX = 12 };

static const struct topic_limits limits = {.bytes_max = BYTES_MAX, .levels_max = LEVELS_MAX};

static void check(bool claim)
{
    if (!claim)
        abort();
}

struct levels {
    size_t count;
    struct slice level[BYTES_MAX + 1];
};

static void levels_of(struct slice text, struct levels *out)
{
    size_t start = 0;
    out->count = 0;
    for (size_t i = 0; i <= text.len; i++) {
        if (i == text.len || text.data[i] == '/') {
            out->level[out->count++] = slice_of(text.data + start, i - start);
            start = i + 1;
        }
    }
}

static size_t wildcards_in(struct slice level)
{
    size_t count = 0;
    for (size_t i = 0; i < level.len; i++)
        count += level.data[i] == '+' || level.data[i] == '#';
    return count;
}

static bool slow_valid(struct slice text, bool filter)
{
    struct levels levels;
    if (text.len == 0 || text.len > BYTES_MAX || !utf8_valid_mqtt(text))
        return false;
    levels_of(text, &levels);
    if (levels.count > LEVELS_MAX)
        return false;
    for (size_t i = 0; i < levels.count; i++) {
        struct slice level = levels.level[i];
        bool whole = filter && level.len == 1;
        bool last = i == levels.count - 1;
        if (wildcards_in(level) > 0 && !(whole && (level.data[0] == '+' || last)))
            return false;
    }
    return true;
}

static bool is(struct slice level, const char *text)
{
    return slice_equal_cstr(level, text);
}

static bool slow_match_from(const struct levels *f, size_t fi, const struct levels *n, size_t ni)
{
    if (fi == f->count)
        return ni == n->count;
    if (is(f->level[fi], "#"))
        return true; /* any number of levels, none too: the parent */
    if (ni == n->count)
        return false;
    if (!is(f->level[fi], "+") && !slice_equal(f->level[fi], n->level[ni]))
        return false;
    return slow_match_from(f, fi + 1, n, ni + 1);
}

static bool slow_match(struct slice filter, struct slice name)
{
    struct levels f, n;
    levels_of(filter, &f);
    levels_of(name, &n);
    bool leading = is(f.level[0], "+") || is(f.level[0], "#");
    if (leading && name.data[0] == '$')
        return false;
    return slow_match_from(&f, 0, &n, 0);
}

static void check_text(struct slice text)
{
    bool name = topic_name_valid(text, &limits), filter = topic_filter_valid(text, &limits);
    check(name == slow_valid(text, false));
    check(filter == slow_valid(text, true));
    if (name)
        check(filter && topic_filter_literal(text) && topic_matches(text, text));
    if (filter)
        check(topic_filter_literal(text) == name);
    struct slice user;
    if (name && topic_user(text, &user)) {
        struct levels levels;
        levels_of(text, &levels);
        check(is(levels.level[0], "$user") && slice_equal(levels.level[1], user) && user.len > 0);
        check(topic_partition(text, 64) < 64);
    }
}

struct registered {
    struct filter_entry entry;
    struct slice filter;
};

static void check_name(struct filter_table *t, struct registered *all, size_t count, struct slice name)
{
    struct filter_matches m = filter_table_match(t, name);
    size_t want = 0;
    for (size_t i = 0; i < count; i++) {
        bool matches = topic_matches(all[i].filter, name);
        check(matches == slow_match(all[i].filter, name));
        want += matches;
    }
    check(m.count == want);
    for (size_t i = 0; i < m.count; i++)
        check(topic_matches(((struct registered *)(void *)m.entries[i])->filter, name));
}

static size_t split(struct slice input, struct slice *texts)
{
    size_t count = 0, start = 0;
    for (size_t i = 0; i <= input.len && count < TEXTS_MAX; i++) {
        if (i == input.len || input.data[i] == '\n') {
            texts[count++] = slice_of(input.data + start, i - start);
            start = i + 1;
        }
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice texts[TEXTS_MAX];
    struct registered all[TEXTS_MAX] = {0};
    struct filter_table *t = NULL;
    size_t text_count = split(slice_of(data, size), texts), linked = 0;
    check(filter_table_create(&t) == ST_OK);
    for (size_t i = 0; i < text_count; i++) {
        check_text(texts[i]);
        if (!topic_filter_valid(texts[i], &limits))
            continue;
        all[linked].filter = texts[i];
        check(filter_table_link(t, texts[i], &all[linked].entry) == ST_OK);
        linked++;
    }
    /* Twice, because the second look comes from the cache; then with fewer filters each time. */
    for (;;) {
        for (size_t i = 0; i < 2 * text_count; i++) {
            if (topic_name_valid(texts[i / 2], &limits))
                check_name(t, all, linked, texts[i / 2]);
        }
        if (linked == 0)
            break;
        filter_table_unlink(t, &all[--linked].entry);
    }
    filter_table_destroy(t);
    return 0;
}
