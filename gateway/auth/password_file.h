/* The password file, <data>/users by default: lines "name:<scrypt.h>", mode 0600. Names have no ':' and no
 * control characters. Blocking; command line and the password thread. */
#ifndef TG_GATEWAY_AUTH_PASSWORD_FILE_H
#define TG_GATEWAY_AUTH_PASSWORD_FILE_H

#include "gateway/auth/scrypt.h"

enum { PASSWORD_FILE_BYTES_MAX = 64 << 20 };

struct password_file;

/* Is it a name that the file can hold? 1 to 256 bytes of UTF-8. */
bool password_name_valid(struct slice name);
/* A file that is not there is an empty one. `error` gets a line: ST_INVALID (which line, why), ST_FORBIDDEN,
 * ST_IO, ST_NO_MEMORY. */
enum status password_file_load(const char *path, struct password_file **out, struct buf *error) MUST_CHECK;
void password_file_free(struct password_file *f); /* NULL is allowed */

/* NULL: there is no such user. */
const struct scrypt *password_file_find(const struct password_file *f, struct slice name);
void password_file_each(const struct password_file *f, void (*on_user)(void *ctx, struct slice name),
                        void *ctx);
/* Adds or replaces. ST_NO_MEMORY. */
enum status password_file_put(struct password_file *f, struct slice name, const struct scrypt *s) MUST_CHECK;
enum status password_file_remove(struct password_file *f, struct slice name) MUST_CHECK; /* ST_NOT_FOUND */
/* Replaces the file as a whole: a reader sees the old one or the new one. */
enum status password_file_save(const struct password_file *f, const char *path, struct buf *error) MUST_CHECK;

#endif
