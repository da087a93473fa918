#include "gateway/descriptors.h"

#include "core/logging.h"

#include <sys/resource.h>

uint64_t descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return UINT64_MAX;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        limit.rlim_cur = before;
    log_info("descriptor limit soft=%lu hard=%lu", (unsigned long)limit.rlim_cur,
             (unsigned long)limit.rlim_max);
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

enum status descriptors_share(uint64_t limit, uint64_t own, const struct descriptor_shares *wanted,
                              struct descriptor_shares *out)
{
    if (limit <= own)
        return ST_FULL;
    uint64_t left = limit - own;
    out->api = lesser(wanted->api, left / 4);
    out->clients = lesser(wanted->clients, left - out->api);
    return out->api > 0 && out->clients > 0 ? ST_OK : ST_FULL;
}
