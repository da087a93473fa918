/* Base64 (RFC 4648): section 4, with padding, and section 5, for URLs and tokens, without (RFC 7515, 2).
 * Decoding accepts exactly the canonical form. */
#ifndef TG_CORE_BASE64_H
#define TG_CORE_BASE64_H

#include "core/buf.h"

enum status base64_encode(struct slice bytes, struct buf *out) MUST_CHECK;
enum status base64_decode(struct slice text, struct buf *out) MUST_CHECK; /* ST_INVALID */
enum status base64url_encode(struct slice bytes, struct buf *out) MUST_CHECK;
enum status base64url_decode(struct slice text, struct buf *out) MUST_CHECK; /* ST_INVALID */

#endif
