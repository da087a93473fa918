/* The bytes of docs/FORMAT.md as structs: every field is naturally aligned and the host is little
 * endian, so a struct is its bytes. Nothing outside core/store includes this. */
#ifndef TG_CORE_STORE_FORMAT_H
#define TG_CORE_STORE_FORMAT_H

#include <assert.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little endian");

enum {
    FORMAT_VERSION = 1,
    RECORD_BYTES_MAX = 512 << 20,
    FRAME_BYTES_MAX = 1 << 30,
};

#define SEGMENT_MAGIC "TGSEG1\n"
#define INDEX_MAGIC   "TGIDX1\n"

struct segment_header {
    char magic[8];
    uint16_t version, flags;
    uint32_t lane;
    uint64_t base_offset;
    uint64_t base_time_ms;
    uint64_t segment_epoch;
    uint32_t key_id;
    uint32_t log_epoch;
    uint64_t previous_next;
    uint32_t life;
    uint32_t crc;
};
static_assert(sizeof(struct segment_header) == 64, "FORMAT.md 2");

enum { FRAME_CONTROL = 1 << 5, FRAME_FLAGS_KNOWN = FRAME_CONTROL };

struct frame_header {
    uint32_t frame_bytes;
    uint32_t crc;
    uint64_t segment_epoch;
    uint64_t base_offset;
    uint32_t record_count;
    uint32_t flags;
    uint64_t base_time_ms;
    uint64_t synced_below;
    uint64_t producer_id;
    uint16_t producer_epoch, leader_epoch;
    uint32_t base_sequence;
    uint32_t body_bytes;
    uint32_t body_crc;
};
static_assert(sizeof(struct frame_header) == 72, "FORMAT.md 3");

enum {
    RECORD_QOS_MASK = 0x03,
    RECORD_CONTENT_SHIFT = 2,
    RECORD_RETAIN = 0x10,
    RECORD_PFI_UTF8 = 0x20,
    RECORD_TYPE_GIVEN = 0x40,
};
enum {
    RECORD_EXPIRES = 0x02,
    RECORD_INTERNAL = 0x10,
    RECORD_CARRIED = 0x20,
    RECORD_FLAGS_KNOWN = RECORD_EXPIRES | RECORD_INTERNAL | RECORD_CARRIED,
};

struct record_header {
    uint32_t crc;
    uint32_t record_bytes;
    uint32_t offset_delta;
    uint32_t topic_sequence;
    uint64_t topic_id;
    uint64_t time_ms;
    uint16_t topic_bytes, key_bytes, props_bytes;
    uint8_t bits, flags;
};
static_assert(sizeof(struct record_header) == 40, "FORMAT.md 4");

/* Of the optional fields between header and topic: expires_ms, original. */
static inline uint32_t record_optional_bytes(uint8_t flags)
{
    return (flags & RECORD_EXPIRES ? 8u : 0u) + (flags & RECORD_CARRIED ? 8u : 0u);
}

/* Records that no reader of messages is shown. */
enum { RECORD_HIDDEN = RECORD_INTERNAL | RECORD_CARRIED };

/* What an internal record is: its payload's first two bytes. 2 is once_note.h's. */
enum { START_KIND = 1, HOLE_KIND = 3, START_AFTER_CLEAN_STOP = 1 };

struct start_payload {
    uint16_t kind, flags;
    uint32_t reserved;
    uint64_t incarnation;
    uint64_t previous_next;
};
static_assert(sizeof(struct start_payload) == 24, "FORMAT.md 5");

struct index_header {
    char magic[8];
    uint16_t version, flags;
    uint32_t lane;
    uint64_t base_offset;
    uint64_t segment_epoch;
    uint64_t next_offset;
    uint64_t segment_bytes;
    uint32_t topic_count, posting_count, frame_count, bad_count;
    uint64_t last_time_ms;
    uint64_t body_bytes;
    uint32_t body_crc;
    uint8_t reserved[8];
    uint32_t crc;
};
static_assert(sizeof(struct index_header) == 96, "FORMAT.md 6");

struct index_topic {
    uint64_t topic_id;
    uint32_t first, count;
};
/* A record or a frame: offset less the segment's base, position in the file / 8. */
struct index_place {
    uint32_t delta, place;
};
/* Offsets that do not verify, [from, to), less the segment's base. */
struct index_range {
    uint32_t from, to;
};

static inline uint64_t align8(uint64_t n)
{
    return (n + 7) & ~(uint64_t)7;
}

#endif
