#include "gateway/auth/authorization.h"

#include "core/base64.h"

#include <strings.h>

/* data NULL: it is another scheme, or nothing follows. */
static struct slice after_scheme(struct slice value, const char *scheme)
{
    size_t len = strlen(scheme);
    if (value.len <= len || strncasecmp((const char *)value.data, scheme, len) != 0 || value.data[len] != ' ')
        return (struct slice){0};
    struct slice rest = slice_from(value, len);
    while (rest.len > 0 && rest.data[0] == ' ')
        rest = slice_from(rest, 1);
    return rest.len > 0 ? rest : (struct slice){0};
}

enum authorization authorization_read(struct slice value, struct slice *text)
{
    *text = after_scheme(value, "Basic");
    if (text->len > 0)
        return AUTHORIZATION_BASIC;
    *text = after_scheme(value, "Bearer");
    return text->len > 0 ? AUTHORIZATION_BEARER : AUTHORIZATION_OTHER;
}

bool authorization_split_basic(struct slice text, struct buf *space, struct slice *user,
                               struct slice *password)
{
    if (base64_decode(text, space) != ST_OK)
        return false;
    const uint8_t *colon = space->len > 0 ? memchr(space->data, ':', space->len) : NULL;
    if (!colon)
        return false;
    *user = slice_of(space->data, (size_t)(colon - space->data));
    *password = slice_from(buf_slice(space), user->len + 1);
    return true;
}
