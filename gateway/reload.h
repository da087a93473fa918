/* SIGHUP: the configuration is read again, all or nothing. Keys that may change while the node runs do
 * (core/config.h, live); the others are named. The outcome is logged and written to <data>/reload for
 * `tidegate reload`.
 *
 * What else is to be read again at the same moment (certificates, key files) registers a part. Main thread.
 */
#ifndef TG_GATEWAY_RELOAD_H
#define TG_GATEWAY_RELOAD_H

#include "gateway/node.h"

/* `prepare` reads and checks, and changes nothing; when it cannot, it puts one line into `error`. When all
 * parts and the settings are well, `commit` of each is called, else `abandon` of those that were prepared.
 * `next` is good until then; a part that keeps a text copies it. */
struct reload_part {
    const char *name; /* "certificates", in the log */
    void *ctx;
    enum status (*prepare)(void *ctx, const struct settings *next, struct buf *error);
    void (*commit)(void *ctx);
    void (*abandon)(void *ctx);
};

enum { RELOAD_PARTS_MAX = 8 };

struct reload {
    struct node *node;
    struct settings *settings; /* in use; replaced by a reload that is well */
    struct settings
        *first; /* those of the start: the node's parts may read there for ever what is not live */
    /* Where they come from. */
    const char *config;
    const char *const *assignments;
    size_t assignment_count;
    char *const *environment;
    struct reload_part parts[RELOAD_PARTS_MAX];
    size_t part_count;
};

/* Before the first reload. */
void reload_add(struct reload *r, const struct reload_part *part);
/* ST_OK, or nothing has changed. */
enum status reload_run(struct reload *r);

/* For `tidegate reload`: the outcome file, which is renamed into place. Its first line is the moment at which
 * the reload began (CLOCK_MONOTONIC, ns), the second "ok" or "failed", the others are for people. */
#define RELOAD_FILE "reload"

#endif
