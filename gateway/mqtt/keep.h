/* Inside gateway/mqtt/: the part of a connection whose session has a record, because it outlives the
 * connection, or has a will that must.
 *
 *   keep.c      what stands in the record, and who waits for it
 *   resume.c    CONNECT: the record is read, made this connection's, and its filters are subscribed again
 *   resend.c    what was in flight is sent again
 *   afterlife.c records that no connection has: wills and expiry
 *   shared.h    shared subscriptions
 *
 * The rule: nothing is told to the client that the record must know first. SUBACK, UNSUBACK and CONNACK wait
 * for it; so do a QoS 2 PUBLISH (who gets what under which identifier), PUBREL (PUBREC has come) and PUBCOMP
 * (the identifier is free again). These three stand in one queue (`steps`), in the order in which they fell
 * due, and leave when a record that was made after that is durable.
 *
 * A QoS 2 message from the client is stored under an identity (routing/once_id.h): the session's incarnation,
 * and a sequence made of `releases` and the packet identifier. `releases` grows by one with each record that
 * knows of a PUBREL, and while one is on its way no QoS 2 PUBLISH is taken in. So after a crash the sequence
 * of a repetition is known: that of the record, if it lists the identifier; else the record's `releases`, for
 * then no PUBREL has been answered since. But before the client has said all of it again, another PUBREL may
 * make `releases` grow: so a session whose connection ended with its node first asks the shards what is
 * stored under the record's `releases` (resume.c). */
#ifndef TG_GATEWAY_MQTT_KEEP_H
#define TG_GATEWAY_MQTT_KEEP_H

#include "gateway/mqtt/conn_private.h"
#include "gateway/mqtt/record.h"
#include "gateway/mqtt/shared.h"
#include "routing/once_id.h"
#include "session/keeper.h"

struct mqtt_step {
    uint16_t packet_id;
    uint8_t type; /* MQTT_PUBLISH, _PUBREL, _PUBCOMP */
    uint8_t reason;
};

struct mqtt_keep {
    struct mqtt_conn *conn;
    struct keeper *keeper; /* NULL: closed */
    uint64_t session_incarnation, releases;
    uint32_t expiry_s; /* RECORD_NEVER: none */
    bool clean_start, wanted; /* wanted: a record is needed even if there was none */
    bool attached; /* the record may be ours: our first write is under way or durable */
    bool present; /* an earlier session goes on */
    bool final; /* `record` is the last one: the connection has ended */
    char name[KEEPER_NAME_BYTES];
    struct buf record; /* as read, until its filters are subscribed; later the last one to be written */
    struct slice filters; /* in it; also what snapshots say of the filters until then */
    bool unclean; /* the shards are to be asked */
    unsigned placing; /* subscriptions that are not in place yet, and 1 while they are being made */
    struct place resumed_at; /* where "now" was then: QoS 0 below was not kept for it */

    struct mqtt_step *steps; /* ring, cap is a power of two */
    uint32_t step_cap;
    uint64_t step_head, step_known, step_covered, step_tail; /* below `covered`: the record under way knows of
                                                                it, below `known`: the durable one does */
    uint32_t releasing; /* PUBCOMPs among them */
    uint32_t accepted; /* QoS 2 taken in since the last record, */
    uint32_t accepted_covered; /* and what the one under way knows of them */
    bool settling; /* `settle` waits */
    struct keeper_wait attach, settle, closed;
    struct list subacks; /* struct pending_suback: wait for the record */
    uint64_t held_bytes; /* of messages that are not sent yet */

    struct mqtt_shared_left *left; /* shared.c: go back to their groups when the last record is written */
    uint32_t left_count;

    struct { /* resend.c */
        bool open; /* not finished */
        bool reading;
        uint16_t last, before; /* up to here all has been looked at; `before` that was so the time before */
        struct read read;
    } resend;
};

/* --- keep.c --- */
/* The session of this CONNECT has a record, or may have had one: it is claimed and read, and resume.c goes
 * on. ST_NO_MEMORY. */
enum status mqtt_keep_open(struct mqtt_conn *c, const struct keeper_ops *ops) MUST_CHECK;
/* The connection ends: what is to be written of it is made now, while its session is still there. */
void mqtt_keep_end(struct mqtt_conn *c);
/* And is written; mqtt_conn_detached follows. */
void mqtt_keep_close(struct mqtt_conn *c);
void mqtt_keep_free(struct mqtt_conn *c);
enum status mqtt_keep_snapshot(void *conn, struct buf *out);
/* The client may send this when the record knows of it. */
void mqtt_keep_step(struct mqtt_conn *c, enum mqtt_type type, uint16_t packet_id, uint8_t reason);
/* Something that held the steps up has gone. */
void mqtt_keep_go_on(struct mqtt_conn *c);
/* The packet is not taken in now, but when the record has been written: a QoS 2 PUBLISH behind a PUBREL, and
 * whatever would let more wait for the record than there is a bound for. */
bool mqtt_keep_holds(struct mqtt_conn *c, const struct mqtt_packet *p);
/* What identifies a QoS 2 message of this session; `name` has ONCE_NAME_BYTES_MAX bytes and outlives it. */
struct once_id mqtt_keep_identity(const struct mqtt_keep *k, uint64_t sequence, char *name);
uint64_t mqtt_keep_sequence(const struct mqtt_keep *k, uint16_t packet_id);
/* Bytes that the filters take in the record, and one more of this length. */
bool mqtt_keep_has_room(struct mqtt_conn *c, struct slice filter);
/* The message came while nobody was there: with QoS 0 it is not owed. */
static inline bool mqtt_keep_missed(const struct mqtt_keep *k, const struct msg *m)
{
    return m->partition < k->resumed_at.lane_count && m->offset < k->resumed_at.next[m->partition];
}

/* --- resume.c --- */
/* The client identifier is claimed: mqtt_connect_done follows, or a refusal. ST_NO_MEMORY. */
enum status mqtt_resume(struct mqtt_conn *c, bool clean_start, uint32_t expiry_s) MUST_CHECK;
void mqtt_resume_placed(struct mqtt_conn *c, const struct place *at); /* a subscription is in place */

/* --- resend.c --- */
void mqtt_resend_begin(struct mqtt_conn *c);
void mqtt_resend_go(struct mqtt_conn *c); /* there may be room again */

#endif
