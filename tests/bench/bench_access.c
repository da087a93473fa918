/* What the right to publish costs a message: nothing to look up without rules, a rule list walked each time,
 * and the decision remembered by topic (session/access_cache.h), which the publish path uses. ARCHITECTURE.md
 * gives everything that MQTT adds to a message 0.4 us together. */
#include "core/hash.h"
#include "session/access_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ASKED = 2000000, TEXT_BYTES = 64, RULES_MAX = 1000 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static struct principal *make(size_t rule_count)
{
    static char topics[RULES_MAX][TEXT_BYTES];
    static struct acl_rule rules[RULES_MAX];
    struct principal_spec spec = {.user = slice_cstr("device-17")};
    struct principal *p;
    for (size_t i = 0; i < rule_count; i++) {
        snprintf(topics[i], TEXT_BYTES, i + 1 == rule_count ? "site/+/device/%%u/#" : "other/%zu/+/%%u/#", i);
        rules[i] = (struct acl_rule){.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr(topics[i])};
    }
    if ((rule_count > 0 && acl_create(rules, rule_count, &spec.policy) != ST_OK) ||
        principal_create(&spec, &p) != ST_OK)
        abort();
    acl_unref(spec.policy);
    return p;
}

/* ns a decision, for a publisher that goes round `topic_count` topics. */
static double run(const struct principal *p, size_t topic_count, bool cached, unsigned asked)
{
    char topics[32][TEXT_BYTES];
    struct slice names[32], nobody = {0};
    struct access_cache *cache = NULL;
    unsigned permitted = 0;
    for (size_t i = 0; i < topic_count; i++) {
        snprintf(topics[i], TEXT_BYTES, "site/%zu/device/device-17/temperature", i);
        names[i] = slice_cstr(topics[i]);
    }
    uint64_t start_ns = now_ns();
    for (unsigned n = 0; n < asked; n++) {
        struct slice topic = names[n % topic_count];
        permitted += cached ? access_may_publish(&cache, p, topic, nobody)
                            : principal_may(p, ACL_PUBLISH, topic, nobody);
    }
    double ns = (double)(now_ns() - start_ns) / asked;
    if (permitted != asked)
        abort();
    free(cache);
    return ns;
}

int main(void)
{
    static const size_t rule_counts[] = {0, 1, 10, 100, RULES_MAX};
    hash_setup();
    for (size_t i = 0; i < sizeof rule_counts / sizeof *rule_counts; i++) {
        struct principal *p = make(rule_counts[i]);
        unsigned walked = rule_counts[i] < 100 ? ASKED : (unsigned)(ASKED / rule_counts[i]);
        printf("%4zu rules: walked %7.1f ns, remembered %5.1f ns (1 topic), %5.1f ns (4), %7.1f ns (32)\n",
               rule_counts[i], run(p, 1, false, walked), run(p, 1, true, ASKED), run(p, 4, true, ASKED),
               run(p, 32, true, ASKED));
        principal_unref(p);
    }
    return 0;
}
