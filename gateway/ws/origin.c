#include "gateway/ws/origin.h"

#include "gateway/host.h"

static bool host_is_listed(const char *listed, struct slice host)
{
    struct slice item;
    while (host_next_listed(&listed, &item))
        if (host_is_origin(host, item))
            return true;
    return false;
}

bool origin_permitted(struct slice host, struct slice origin, const char *listed, bool any_host)
{
    return (any_host || host_is_loopback(host) || host_is_listed(listed, host)) &&
           (!origin.data || host_is_origin(host, origin) || host_origin_is_listed(listed, origin));
}
