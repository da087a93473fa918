/* CRC-32C (Castagnoli, RFC 3720 B.4), by the CPU's instruction where there is one. Any thread. */
#ifndef TG_CORE_CRC32C_H
#define TG_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* `crc` is 0 for the first piece, then the result of the piece before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
