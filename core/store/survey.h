/* Reads a whole segment and says what is in it: the index of what verifies and the places that do not.
 * Start-up (segments without an index) and the reader thread (an index that was lost). */
#ifndef TG_CORE_STORE_SURVEY_H
#define TG_CORE_STORE_SURVEY_H

#include "core/store/posting_sort.h"
#include "core/store/source.h"
#include "core/store/topic_index.h"

/* A place that does not verify; its offsets stand at the same number in the index's bad ranges. */
struct survey_spot {
    uint64_t position; /* of its frame, or where one was due */
    uint64_t frame_offset;
};

struct survey {
    struct topic_index *index; /* the caller's */
    uint64_t next_offset; /* end of the last valid frame */
    uint64_t data_end; /* its place in the file */
    uint64_t noise_end; /* what was written behind it in this life of the file reaches to here, as far as can
                           be told; data_end when nothing was */
    uint64_t synced_below; /* the highest that any valid frame says; 0 when there is none */
    uint64_t last_time_ms;
    struct survey_spot *spots; /* the caller's; survey_deinit */
    uint32_t spot_count;
    bool io_failed; /* the disk could not read something */
};

/* What a survey needs, for one after the other: their memory stays. */
struct survey_tools {
    struct source source;
    struct posting_sort sort;
};
void survey_tools_init(struct survey_tools *t);
void survey_tools_deinit(struct survey_tools *t);

/* t->source is open on the segment; `reused`: its file was a segment before, perhaps. ST_NO_MEMORY. */
enum status survey_run(struct survey_tools *t, uint64_t segment_epoch, uint64_t base_offset, bool reused,
                       struct survey *out) MUST_CHECK;
void survey_deinit(struct survey *s);

#endif
