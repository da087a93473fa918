#include "gateway/request_id.h"

bool request_id_valid(struct slice id)
{
    for (size_t i = 0; i < id.len; i++) {
        uint8_t c = id.data[i];
        bool alphanumeric = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        if (!alphanumeric && (c == 0 || !strchr("-._~+/=:@", c)))
            return false;
    }
    return id.len > 0 && id.len < REQUEST_ID_BYTES;
}
