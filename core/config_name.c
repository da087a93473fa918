/* The distance is that of optimal string alignment; three rows of its table suffice. */
#include "core/config_name.h"

static unsigned least_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned config_distance(struct slice a, struct slice b)
{
    unsigned rows[3][CONFIG_NAME_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned *now = rows[i % 3];
        const unsigned *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned change = a.data[i - 1] == b.data[j - 1] ? 0 : 1;
            now[j] = least_of(least_of(last[j] + 1, now[j - 1] + 1), last[j - 1] + change);
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1])
                now[j] = least_of(now[j], before[j - 2] + 1);
        }
    }
    return rows[a.len % 3][b.len];
}

struct slice config_name_cut(struct slice text)
{
    return slice_of(text.data, text.len < CONFIG_NAME_BYTES_MAX ? text.len : CONFIG_NAME_BYTES_MAX);
}

const char *config_nearest(const struct config_table *t, struct slice name)
{
    const char *nearest = "";
    unsigned least = ~0u;
    for (size_t i = 0; i < t->count + t->list_count; i++) {
        const char *known = i < t->count ? t->options[i].key : t->lists[i - t->count].key;
        unsigned distance = config_distance(config_name_cut(name), config_name_cut(slice_cstr(known)));
        if (distance < least) {
            least = distance;
            nearest = known;
        }
    }
    return nearest;
}
