/* Free lists a thread and size class.
 *
 * A block is in exactly one of three hands: its user's, one thread's list, or malloc's. No list is
 * ever touched by a second thread, so there is nothing to lock: a block that is freed by another
 * thread than its maker joins the freer's list. Where messages flow one way (an edge makes, a shard
 * drops) the dropping thread's list would grow without end; hence the bound of bytes a class, beyond
 * which blocks go back to malloc.
 *
 * Under AddressSanitizer blocks in a list are poisoned behind their link, so that a use after free is
 * found here as it is with malloc. The link itself stays readable: LeakSanitizer does not follow
 * pointers that lie in poisoned memory. */
#include "core/pool.h"

#include <assert.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, len)   ((void)(start), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(start, len) ((void)(start), (void)(len))
#endif

enum {
    POOL_SHIFT_MIN = 6, /* 64 bytes */
    POOL_CLASSES = 8, /* up to 8192 bytes */
    POOL_BLOCK_BYTES_MAX = 1 << (POOL_SHIFT_MIN + POOL_CLASSES - 1),
    POOL_KEPT_BYTES_MAX = 1 << 20, /* a class and thread */
};

struct pool_block {
    struct pool_block *next;
};

struct pool_list {
    struct pool_block *first;
    uint32_t count;
};

/* initial-exec: the program is one executable, and the general model would cost a call an access. */
static __thread struct pool_list lists[POOL_CLASSES] __attribute__((tls_model("initial-exec")));

static inline unsigned class_of(size_t size)
{
    if (size <= (size_t)1 << POOL_SHIFT_MIN)
        return 0;
    return 64u - POOL_SHIFT_MIN - (unsigned)__builtin_clzll((unsigned long long)size - 1);
}

static inline size_t class_bytes(unsigned size_class)
{
    return (size_t)1 << (POOL_SHIFT_MIN + size_class);
}

void *pool_alloc(size_t size, uint8_t *pool_class)
{
    if (size > POOL_BLOCK_BYTES_MAX) {
        *pool_class = POOL_CLASS_NONE;
        return malloc(size);
    }
    unsigned size_class = class_of(size);
    struct pool_list *list = &lists[size_class];
    *pool_class = (uint8_t)size_class;
    struct pool_block *block = list->first;
    if (!block)
        return malloc(class_bytes(size_class));
    list->first = block->next;
    list->count--;
    ASAN_UNPOISON_MEMORY_REGION(block, class_bytes(size_class));
    return block;
}

void pool_free(void *memory, uint8_t pool_class)
{
    struct pool_block *block = memory;
    if (!block)
        return;
    if (pool_class == POOL_CLASS_NONE) {
        free(block);
        return;
    }
    assert(pool_class < POOL_CLASSES);
    struct pool_list *list = &lists[pool_class];
    if (list->count >= (uint32_t)POOL_KEPT_BYTES_MAX >> (POOL_SHIFT_MIN + pool_class)) {
        free(block);
        return;
    }
    block->next = list->first;
    list->first = block;
    list->count++;
    ASAN_POISON_MEMORY_REGION(block + 1, class_bytes(pool_class) - sizeof *block);
}

void pool_drain(void)
{
    for (unsigned size_class = 0; size_class < POOL_CLASSES; size_class++) {
        struct pool_block *block = lists[size_class].first;
        lists[size_class] = (struct pool_list){0};
        while (block) {
            struct pool_block *next = block->next;
            ASAN_UNPOISON_MEMORY_REGION(block, class_bytes(size_class));
            free(block);
            block = next;
        }
    }
}
