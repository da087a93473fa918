/* The log's folder: made when it is missing, and held against a second process. Start-up only. */
#ifndef TG_CORE_STORE_FOLDER_H
#define TG_CORE_STORE_FOLDER_H

#include "core/buf.h"
#include "core/store/files.h"

/* What a start answers for an errno, with one line in `error`: ST_NO_SPACE (which says what to do),
 * ST_FORBIDDEN (no right to it, or read-only), ST_IO. */
enum status folder_refuse(struct buf *error, const char *where, const char *what) MUST_CHECK;
/* Makes `path` unless it is there; its name in `parent` is durable. */
enum status folder_make(const struct store_files *files, const char *path, const char *parent,
                        struct buf *error) MUST_CHECK;
/* <dir>/LOCK. ST_EXISTS: another process has it; `error` names it. *fd is to be closed: that unlocks. */
enum status folder_lock(const char *dir, int *fd, struct buf *error) MUST_CHECK;
/* The process that holds it, as the kernel says or, where it does not, as the process itself has written. 0:
 * none holds it, or nobody says who. */
long folder_holder(const char *dir);

#endif
