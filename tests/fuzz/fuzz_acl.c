/* Two filters and a name, apart by zeros: what filter_covers and filter_meets say of the filters is true of
 * the name, as topic_matches sees it. And a rule with placeholders gives no user more than his own levels. */
#include "routing/topic.h"
#include "session/acl.h"

#include <assert.h>

static bool next_part(struct slice *rest, struct slice *part)
{
    const uint8_t *zero = rest->len > 0 ? memchr(rest->data, 0, rest->len) : NULL;
    *part = slice_of(rest->data, zero ? (size_t)(zero - rest->data) : rest->len);
    *rest = slice_from(*rest, part->len + 1);
    return part->len > 0;
}

static void placeholders(struct slice topic, struct slice user, struct slice name)
{
    const struct acl_rule rule = {.ops = ACL_ANY_OP, .topic = topic};
    const struct acl_asker one = {.user = user, .encoded_user = slice_cstr("me"), .client_id = user};
    const struct acl_asker nobody = {.user = {0}};
    struct acl *a;
    if (acl_create(&rule, 1, &a) != ST_OK)
        return;
    bool mine = acl_allows(a, &one, ACL_PUBLISH, name);
    if (acl_allows(a, &nobody, ACL_PUBLISH, name)) /* there is no placeholder in it */
        assert(mine);
    if (mine && topic_internal(name))
        assert(topic_internal(topic));
    acl_unref(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct topic_limits any = {1024, 64};
    struct slice rest = slice_of(data, size), x, y, name;
    if (!next_part(&rest, &x) || !next_part(&rest, &y) || !next_part(&rest, &name) ||
        !topic_name_valid(name, &any))
        return 0;
    placeholders(x, y, name);
    if (!topic_filter_valid(x, &any) || !topic_filter_valid(y, &any))
        return 0;
    bool in_x = topic_matches(x, name), in_y = topic_matches(y, name);
    assert(filter_covers(x, x) && filter_meets(x, x));
    assert(filter_meets(x, y) == filter_meets(y, x));
    assert(!filter_covers(x, y) || filter_meets(x, y));
    assert(!(filter_covers(x, y) && in_y) || in_x);
    assert(!(in_x && in_y) || filter_meets(x, y));
    assert(filter_covers(x, name) == in_x && filter_meets(x, name) == in_x);
    return 0;
}
