/* The body of a batch as items, one at a time: whoever has little time takes some and comes back. Pure; any
 * thread; keeps no text. */
#ifndef TG_GATEWAY_HTTP_BATCH_SPLIT_H
#define TG_GATEWAY_HTTP_BATCH_SPLIT_H

#include "core/slice.h"
#include "core/status.h"

enum batch_form {
    BATCH_DOCUMENT, /* {"messages":[<item>,...]}; other members are passed over */
    BATCH_ARRAY, /* [<item>,...] */
    BATCH_LINES, /* NDJSON: an item a line; blank lines are none */
    BATCH_ONE, /* the whole text, whatever it is */
};

struct batch_split {
    enum batch_form form;
    size_t place;
    enum { SPLIT_BEFORE, SPLIT_ITEMS, SPLIT_BEHIND } phase;
    bool found; /* "messages" has been met */
};

static inline struct batch_split batch_split_begin(enum batch_form form)
{
    return (struct batch_split){.form = form};
}
/* The next item of `text`, the same at every call. ST_OK: *item is one valid JSON value, or with BATCH_LINES
 * a line that may be anything. ST_NOT_FOUND: the end; all of the text was what it should be. ST_INVALID: it
 * is not, and what was handed out before was part of no batch. */
enum status batch_split_next(struct batch_split *s, struct slice text, struct slice *item) MUST_CHECK;

#endif
