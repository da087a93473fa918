/* What the directory writes into Redis, and reads back from there: keys and values, as text. Values come from
 * outside when they are read: only what we would write is taken, so decode and encode are inverse. Pure.
 *
 *   <prefix>:node:<node>     string, expires   "1 <incarnation> <registration> <settled> <life> <state>
 * <version> <started> <epoch> <partitions> <connections>" <prefix>:nodes           set of the nodes' names
 *   <prefix>:user:<user>     hash, expires     "<registration>.<name of the connection>" -> "<since> <door>"
 *   <prefix>:born            string            the run of the server that this data is of
 *   <prefix>:young           string, expires   there: nodes may still have to register */
#ifndef TG_ROUTING_DIRECTORY_RECORD_H
#define TG_ROUTING_DIRECTORY_RECORD_H

#include "core/buf.h"

enum { DIRECTORY_NODE_BYTES_MAX = 128, DIRECTORY_WORD_BYTES_MAX = 31, DIRECTORY_RECORD_BYTES_MAX = 320 };

/* A node, as its lease describes it. */
struct directory_node {
    char id[DIRECTORY_NODE_BYTES_MAX + 1]; /* from the key, not from the value */
    uint64_t incarnation;
    uint64_t registration; /* entries of an older one do not count any more */
    bool settled; /* all its connections are registered */
    uint64_t life; /* drawn by the process: two that call themselves by one name differ */
    char state[DIRECTORY_WORD_BYTES_MAX + 1], version[DIRECTORY_WORD_BYTES_MAX + 1];
    uint64_t started_ms, epoch, partitions, connections;
};
enum status directory_node_write(const struct directory_node *n, struct buf *out) MUST_CHECK;
/* All but `id`. ST_INVALID. */
enum status directory_node_read(struct slice text, struct directory_node *out) MUST_CHECK;

/* A connection, as a field is named. A field is never written for two registrations, so who has seen one that
 * does not count any more may remove it, whatever has happened since. */
struct directory_field {
    char node[DIRECTORY_NODE_BYTES_MAX + 1];
    uint64_t incarnation, registration, connection;
};
enum { DIRECTORY_FIELD_BYTES_MAX = DIRECTORY_NODE_BYTES_MAX + 64 };
enum status directory_field_write(const struct directory_field *f, struct buf *out) MUST_CHECK;
enum status directory_field_read(struct slice text, struct directory_field *out) MUST_CHECK; /* ST_INVALID */

/* What is said of it. */
struct directory_place {
    uint64_t since_ms;
    char door[DIRECTORY_WORD_BYTES_MAX + 1];
};
enum status directory_place_write(const struct directory_place *p, struct buf *out) MUST_CHECK;
enum status directory_place_read(struct slice text, struct directory_place *out) MUST_CHECK;

#endif
