/* The one result type. The value a function computes travels through an `out` parameter, which is
 * untouched unless the status is ST_OK (STYLE: "the status carries meaning, the out parameter the
 * value"). ST_AGAIN always means "not now", never "broken". */
#ifndef TG_CORE_STATUS_H
#define TG_CORE_STATUS_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum status {
    ST_OK = 0,
    ST_AGAIN, /* not now: no room, more input needed; try when told */
    ST_INVALID, /* the input breaks its rules (a peer's or an operator's fault) */
    ST_NOT_FOUND, /* there is no such thing */
    ST_EXISTS, /* there is one already */
    ST_TOO_LARGE, /* over a configured limit of size */
    ST_FULL, /* over a configured limit of count or bytes kept */
    ST_GONE, /* it was there and has been removed (retention, older epoch) */
    ST_CORRUPT, /* stored bytes do not agree with their checksum or format */
    ST_IO, /* the operating system refused; errno was logged where it happened */
    ST_NO_SPACE, /* the disk is full */
    ST_NO_MEMORY, /* an allocation failed */
    ST_CLOSED, /* the other side has gone */
    ST_UNSUPPORTED, /* known, but not in this build */
    ST_FORBIDDEN, /* the principal may not */
    ST_EXPIRED, /* its time is over */
    ST_CONFLICT, /* it contradicts what is there already, or that cannot be told any more */
    ST_QUOTA, /* over the operator's limit for kept things (retained messages) */
    ST_COUNT
};

/* A short lower-case name, for logs ("too_large"). Any thread; static storage. */
const char *status_name(enum status status);

#endif
