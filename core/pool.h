/* Small-block allocator with a free list a thread and size class: letters and messages are made and
 * dropped a million times a second, and a block that comes back to the thread that needs the next
 * one costs 16 ns where malloc and free across threads cost 443 (measured, ARCHITECTURE.md 1).
 * A block may be freed by another thread than the one that took it: it joins that thread's list.
 * Lists are bounded; what is over goes back to malloc. Any thread. */
#ifndef TG_CORE_POOL_H
#define TG_CORE_POOL_H

#include <stddef.h>
#include <stdint.h>

enum { POOL_CLASS_NONE = 255 }; /* the block came from malloc */

/* Size classes: 64, 128, 256, ... 8192 bytes. Larger: malloc, class POOL_CLASS_NONE. The memory is
 * not cleared. NULL: no memory. The caller keeps *pool_class for pool_free. */
void *pool_alloc(size_t size, uint8_t *pool_class);
void pool_free(void *block, uint8_t pool_class); /* NULL is allowed */

/* Gives the calling thread's free blocks back to malloc (at thread end, so that leak checks and
 * valgrind see a clean exit). */
void pool_drain(void);

#endif
