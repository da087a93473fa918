/* The .idx file of a sealed segment (FORMAT.md 6): written once, mapped when used. */
#ifndef TG_CORE_STORE_INDEX_FILE_H
#define TG_CORE_STORE_INDEX_FILE_H

#include "core/store/files.h"
#include "core/store/topic_index.h"

/* A mapped file. */
struct index_file {
    const uint8_t *bytes; /* NULL: not mapped */
    uint64_t len;
    struct index_header header;
};

/* `header` with every field but magic, version, counts, body_bytes and CRCs. Writes beside, syncs,
 * renames, syncs the folder. ST_IO, ST_NO_SPACE (errno tells), ST_NO_MEMORY. */
enum status index_file_write(const struct store_files *files, const char *folder, const char *path,
                             const struct index_header *header, const struct topic_index *x) MUST_CHECK;

/* The header alone. ST_NOT_FOUND; ST_CORRUPT: not usable; ST_IO. */
enum status index_file_peek(const char *path, struct index_header *out) MUST_CHECK;

/* Maps it. With `verify` the body's CRC is computed. Statuses as peek. */
enum status index_file_map(const char *path, bool verify, struct index_file *out) MUST_CHECK;
void index_file_unmap(struct index_file *f);

struct index_places index_file_find(const struct index_file *f, uint64_t topic_id);
struct index_places index_file_frames(const struct index_file *f);
const struct index_range *index_file_bad(const struct index_file *f, uint32_t *count);

#endif
