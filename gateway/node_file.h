/* Files of a node's data folder that tools look for: pid, ports. The thread that starts and stops the node.
 */
#ifndef TG_GATEWAY_NODE_FILE_H
#define TG_GATEWAY_NODE_FILE_H

#include "core/buf.h"

/* Replaces <dir>/<name> as a whole: a reader sees the old file or the new one. On a full disk the node
 * serves all the same. */
enum status node_file_write(const char *dir, const char *name, const char *text,
                            struct buf *error) MUST_CHECK;
void node_file_remove(const char *dir, const char *name);

#endif
