#include "core/status.h"

const char *status_name(enum status status)
{
    static const char *const names[ST_COUNT] = {
        [ST_OK] = "ok",
        [ST_AGAIN] = "again",
        [ST_INVALID] = "invalid",
        [ST_NOT_FOUND] = "not_found",
        [ST_EXISTS] = "exists",
        [ST_TOO_LARGE] = "too_large",
        [ST_FULL] = "full",
        [ST_GONE] = "gone",
        [ST_CORRUPT] = "corrupt",
        [ST_IO] = "io",
        [ST_NO_SPACE] = "no_space",
        [ST_NO_MEMORY] = "no_memory",
        [ST_CLOSED] = "closed",
        [ST_UNSUPPORTED] = "unsupported",
        [ST_FORBIDDEN] = "forbidden",
        [ST_EXPIRED] = "expired",
        [ST_CONFLICT] = "conflict",
        [ST_QUOTA] = "quota",
    };
    return (unsigned)status < ST_COUNT ? names[status] : "unknown";
}
