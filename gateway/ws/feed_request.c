#include "gateway/ws/feed_request.h"

#include "gateway/unknown.h"

void feed_request_init(struct feed_request *r, enum feed_kind kind)
{
    r->kind = kind;
    r->refused = NULL;
    r->topic_count = 0;
    r->from = (struct slice){0};
    r->has_wait = r->has_max = r->resumes = false;
    r->wait_ms = 0;
    r->max = 0;
    r->used = 0;
}

static void refuse(struct feed_request *r, const char *why)
{
    if (!r->refused)
        r->refused = why;
}

/* A copy; data is not NULL even when it is empty. */
static struct slice keep(struct feed_request *r, struct slice text)
{
    char *to = r->texts + r->used;
    if (text.len > sizeof r->texts - r->used) {
        refuse(r, "the parameters are too long");
        return slice_of(r->texts, 0);
    }
    if (text.len > 0)
        memcpy(to, text.data, text.len);
    r->used += text.len;
    return slice_of(to, text.len);
}

/* Decimal, no sign, no leading zeros. */
static bool read_number(struct slice text, uint64_t *out)
{
    enum { DIGITS_MAX = 9 };
    uint64_t value = 0;
    if (text.len == 0 || text.len > DIGITS_MAX || (text.data[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return true;
}

/* Decoding makes a space of each '+', as forms do. "room/+" is meant far more often than a level that is
 * one space, which therefore cannot be named here. */
static void restore_plus(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == ' ' && (i == 0 || text[i - 1] == '/') && (i + 1 == len || text[i + 1] == '/'))
            text[i] = '+';
}

static void add_topic(struct feed_request *r, struct slice value)
{
    unsigned most = r->kind == FEED_SSE ? FEED_TOPICS_MAX : 1;
    if (r->topic_count == most)
        refuse(r, most == 1 ? "one topic a poll" : "at most 16 topics");
    else
        r->topics[r->topic_count++] = keep(r, value);
    if (!r->refused)
        restore_plus(r->texts + r->used - value.len, value.len);
}

static void add_from(struct feed_request *r, struct slice value)
{
    if (r->from.data)
        refuse(r, "from is given twice");
    r->from = keep(r, value);
}

static void add_wait(struct feed_request *r, struct slice value)
{
    if (r->has_wait || !read_number(value, &r->wait_ms) || r->wait_ms > FEED_WAIT_MS_MAX)
        refuse(r, "wait_ms must be an integer from 0 to 60000, once");
    r->has_wait = true;
}

static void add_max(struct feed_request *r, struct slice value)
{
    uint64_t max = 0;
    if (r->has_max || !read_number(value, &max) || max == 0)
        refuse(r, "max must be an integer of at least 1, once");
    r->has_max = true;
    r->max = (uint32_t)max;
}

void feed_request_add(struct feed_request *r, struct slice pair)
{
    const uint8_t *equals = pair.len > 0 ? memchr(pair.data, '=', pair.len) : NULL;
    struct slice name = equals ? slice_of(pair.data, (size_t)(equals - pair.data)) : pair;
    struct slice value = equals ? slice_from(pair, name.len + 1) : slice_of("", 0);
    bool poll = r->kind == FEED_POLL;
    if (pair.len == 0)
        return;
    if (slice_equal_cstr(name, "topic"))
        add_topic(r, value);
    else if (slice_equal_cstr(name, "from") || slice_equal_cstr(name, "after"))
        add_from(r, value);
    else if (poll && slice_equal_cstr(name, "wait_ms"))
        add_wait(r, value);
    else if (poll && slice_equal_cstr(name, "max"))
        add_max(r, value);
    else if (!r->refused) {
        unknown_parameter_text(name,
                               poll ? "; there are topic, from, after, wait_ms, max and ticket"
                                    : "; there are topic, from, after and ticket",
                               r->refused_text);
        r->refused = r->refused_text;
    }
}

void feed_request_last_event(struct feed_request *r, struct slice id)
{
    r->resumes = id.len > 0;
    if (r->resumes)
        r->from = keep(r, id);
}

void feed_request_settle(struct feed_request *r, const struct topic_limits *limits)
{
    if (r->topic_count == 0)
        refuse(r, "name a topic filter: ?topic=");
    for (unsigned i = 0; i < r->topic_count; i++) {
        if (!topic_filter_valid(r->topics[i], limits))
            refuse(r, "topic is not a topic filter within the limits");
        for (unsigned k = 0; k < i; k++)
            if (slice_equal(r->topics[i], r->topics[k]))
                refuse(r, "a topic is given twice");
    }
}
