/* The static files under /demo/, read into memory at start: nothing that a client asks for ever becomes a
 * path of the file system, so there is nothing to traverse. Immutable after load; any thread. */
#ifndef TG_GATEWAY_WS_FILES_H
#define TG_GATEWAY_WS_FILES_H

#include "core/buf.h"

struct files;

struct file {
    struct slice name; /* relative, "demo.js", "img/logo.svg" */
    struct slice bytes;
    const char *type; /* Content-Type */
};

enum { FILES_BYTES_MAX = 16 << 20, FILES_COUNT_MAX = 512, FILES_DEPTH_MAX = 8 };

/* A folder that is missing is an empty set (and a warning in the log). Names that begin with '.' and what is
 * neither a regular file nor a folder (links too) are left out. ST_TOO_LARGE: over the maxima above;
 * ST_IO; `error` gets a line. */
enum status files_load(const char *folder, struct files **out, struct buf *error) MUST_CHECK;
void files_free(struct files *f); /* NULL is allowed */
/* `name` as in the URL behind /demo/, percent-decoded; "" and a trailing '/' mean index.html. NULL: none. */
const struct file *files_find(const struct files *f, struct slice name);

#endif
