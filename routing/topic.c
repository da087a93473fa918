/* Topic rules. Everything here works on whole levels, taken one by one from the left, because that is
 * how the standard states its rules; there is no pattern compiler. In a valid filter each byte '+' or
 * '#' is a wildcard (neither is allowed inside a level), so "has it a wildcard" is a search for a byte.
 */
#include "routing/topic.h"

#include "core/hash.h"
#include "core/utf8.h"

#include <assert.h>

enum { TOPIC_BYTES_MAX = 65535 }; /* MQTT 5.0, 1.5.4: the length has 16 bits */

static const char user_prefix[] = "$user/", inbox_prefix[] = "$inbox/", share_prefix[] = "$share/";

static bool level_is(struct slice level, char c)
{
    return level.len == 1 && level.data[0] == (uint8_t)c;
}

static bool has_byte(struct slice text, char c)
{
    return text.len > 0 && memchr(text.data, c, text.len) != NULL;
}

static bool text_valid(struct slice text, const struct topic_limits *limits)
{
    /* MQTT 5.0, 4.7.3: at least one character, no U+0000, at most 65,535 bytes. */
    return text.len > 0 && text.len <= limits->bytes_max && text.len <= TOPIC_BYTES_MAX &&
           utf8_valid_mqtt(text);
}

static bool level_count_valid(struct slice text, const struct topic_limits *limits)
{
    struct slice level;
    for (uint32_t count = 0; topic_level_next(&text, &level); count++) {
        if (count == limits->levels_max)
            return false;
    }
    return true;
}

bool topic_name_valid(struct slice name, const struct topic_limits *limits)
{
    return text_valid(name, limits) && topic_filter_literal(name) && level_count_valid(name, limits);
}

bool topic_filter_valid(struct slice filter, const struct topic_limits *limits)
{
    if (!text_valid(filter, limits) || !level_count_valid(filter, limits))
        return false;
    struct slice level;
    bool complete = false; /* '#' was seen: nothing may follow (MQTT 5.0, 4.7.1.2) */
    while (topic_level_next(&filter, &level)) {
        if (complete)
            return false;
        if (level_is(level, '#'))
            complete = true;
        else if (!level_is(level, '+') && (has_byte(level, '+') || has_byte(level, '#')))
            return false;
    }
    return true;
}

bool topic_filter_literal(struct slice filter)
{
    return !has_byte(filter, '+') && !has_byte(filter, '#');
}

bool topic_matches(struct slice filter, struct slice name)
{
    assert(filter.len > 0 && name.len > 0);
    if (topic_internal(name) && (filter.data[0] == '+' || filter.data[0] == '#'))
        return false; /* MQTT 5.0, 4.7.2 */
    struct slice wanted, level;
    while (topic_level_next(&filter, &wanted)) {
        /* Before the name is asked for a level: '#' stands for the parent too (4.7.1.2). */
        if (level_is(wanted, '#'))
            return true;
        if (!topic_level_next(&name, &level))
            return false;
        if (!level_is(wanted, '+') && !slice_equal(wanted, level))
            return false;
    }
    return !topic_level_next(&name, &level);
}

bool topic_user(struct slice name, struct slice *user)
{
    if (!slice_starts_with(name, slice_cstr(user_prefix)))
        return false;
    struct slice rest = slice_from(name, sizeof(user_prefix) - 1);
    struct slice id;
    if (!topic_level_next(&rest, &id) || id.len == 0)
        return false; /* "$user/" and "$user//x" name nobody */
    *user = id;
    return true;
}

bool topic_share_filter(struct slice text, struct slice *filter)
{
    struct slice name;
    if (!slice_starts_with(text, slice_cstr(share_prefix)))
        return false;
    *filter = slice_from(text, sizeof(share_prefix) - 1);
    return topic_level_next(filter, &name) && name.len > 0 && topic_filter_literal(name) && filter->data &&
           filter->len > 0;
}

unsigned topic_partition(struct slice name, unsigned partition_count)
{
    assert(partition_count > 0);
    struct slice key = name;
    if (!topic_user(name, &key) && topic_inbox_record(name))
        key = slice_from(name, sizeof(inbox_prefix) - 1);
    return (unsigned)(hash64_stable(key) % partition_count);
}

bool topic_inbox_filter(struct slice filter, struct slice *inbox)
{
    struct slice user;
    if (!topic_user(filter, &user) || !topic_filter_literal(user))
        return false;
    *inbox = slice_of(filter.data, (size_t)(user.data + user.len - filter.data));
    return true;
}

bool topic_filter_partition(struct slice filter, unsigned partition_count, unsigned *partition)
{
    struct slice inbox;
    if (!topic_filter_literal(filter) && !topic_inbox_filter(filter, &inbox))
        return false;
    *partition = topic_partition(filter, partition_count);
    return true;
}

bool topic_inbox_record(struct slice name)
{
    return slice_starts_with(name, slice_cstr(inbox_prefix));
}
