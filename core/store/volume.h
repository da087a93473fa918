/* A segment as the reader knows it: where its bytes are, its index (in memory while it is active, a
 * file when it is sealed), its file while it is in use. And a lane's row of them. Start-up, then the reader
 * thread only. */
#ifndef TG_CORE_STORE_VOLUME_H
#define TG_CORE_STORE_VOLUME_H

#include "core/store/files.h"
#include "core/store/frame.h"
#include "core/store/index_file.h"
#include "core/store/source.h"
#include "core/store/vocabulary.h"
#include "core/store/voids.h"

struct volume {
    uint64_t base_offset;
    uint64_t next_offset; /* end */
    uint64_t
        previous_next; /* where the one before should have ended; from there to base_offset a start jumped */
    uint64_t segment_epoch;
    uint64_t data_end; /* bytes of the file that are the log's */
    uint64_t known_from, known_to; /* the lane's vocabulary has the names of all records between */
    uint64_t last_time_ms; /* of the newest record, and no other is newer: a start begins a volume */
    struct topic_index *index; /* in memory; NULL: by file */
    struct index_file file;
    bool file_verified; /* in this process */
    bool write_refused; /* the index could not be written: it stays in memory */
    bool uncut; /* its file is longer than data_end: there was no room for cutting it (onset.h) */
    bool lost; /* the index can be neither read nor made: everything reads as damaged */
    int fd;
    uint64_t used; /* of the last use, for closing the one not used for longest */
};

/* Which volumes are open: a bounded number. */
enum { VOLUMES_OPEN_MAX = 64 };
struct volume_cache {
    struct volume *open[VOLUMES_OPEN_MAX];
    uint32_t count;
    uint64_t uses;
};

/* A lane's volumes, ascending, and its frames that the writer may not have written yet. */
struct shelf {
    unsigned lane;
    const char *folder;
    const struct store_files *files;
    struct volume **volumes;
    uint32_t count, cap;
    uint32_t unwritten; /* all before it have their index file, or cannot get one */
    uint64_t bytes; /* of the log in all of them */
    struct vocabulary *words; /* NULL: none */
    const struct voids *voids; /* of a mirror; NULL: none */
    struct frame *memory_first, *memory_last; /* by reader_next */
};

void shelf_deinit(struct shelf *s); /* frames must be gone */
/* A new last volume. It has only a header (shelf_set_end tells more). ST_NO_MEMORY. */
enum status shelf_add(struct shelf *s, uint64_t base_offset, uint64_t previous_next, uint64_t segment_epoch,
                      struct volume **out) MUST_CHECK;
void shelf_set_end(struct shelf *s, struct volume *v, uint64_t data_end);
/* The first `count` of them go; their files stay. */
void shelf_remove_first(struct volume_cache *cache, struct shelf *s, uint32_t count);
/* After it: a vocabulary that was full begins anew. Returns the bytes that it has let go. */
uint64_t shelf_trim_words(struct shelf *s);
/* The number of the volume that holds `offset`, or else of the next one; count when there is none. */
uint32_t shelf_find(const struct shelf *s, uint64_t offset);
/* Path of one of its files. ST_TOO_LARGE. */
enum status shelf_path(const struct shelf *s, uint64_t base_offset, const char *suffix, char *out,
                       size_t size) MUST_CHECK;

/* Makes a volume usable: its file open (when something of it is on file), its index in memory, or mapped, or
 * made anew. May rest another one. ST_CORRUPT: it cannot be used. */
enum status volume_use(struct volume_cache *cache, const struct shelf *s, struct volume *v) MUST_CHECK;
/* Writes the index of a sealed and synced segment and drops it from memory. On failure it stays. */
enum status volume_write_index(const struct shelf *s, struct volume *v) MUST_CHECK;

/* Turns `source` to the volume's bytes: its file, and the frames in memory that belong to it. */
void volume_source(const struct shelf *s, const struct volume *v, struct source *source);

/* Look-ups in a loaded index. */
struct index_places volume_find(const struct volume *v, uint64_t topic_id);
struct index_places volume_frames(const struct volume *v);
/* Position of a frame that begins at or below `offset`, and its first offset. */
void volume_frame_before(const struct volume *v, uint64_t offset, uint64_t *position, uint64_t *frame_offset);
/* The damage at or behind `offset`: [*from, *to). False: none in this volume. */
bool volume_bad_from(const struct volume *v, uint64_t offset, uint64_t *from, uint64_t *to);
/* The newest damage that begins below `offset`. False: none in this volume. */
bool volume_bad_below(const struct volume *v, uint64_t offset, uint64_t *from, uint64_t *to);

#endif
