/* Made under another name and linked into place: whoever looks sees no file or a whole one, and of two makers
 * the second finds that there is one. */
#include "gateway/auth/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BYTES = 2 * TOKEN_KEY_BYTES };

static enum status complain(const char *what, const char *path, struct buf *error)
{
    int reason = errno;
    bool full = reason == ENOSPC || reason == EDQUOT;
    enum status st = buf_printf(error, "%s %s: %s%s", what, path, strerror(reason),
                                full ? "; make room on this disk or move data.dir, then start again" : "");
    (void)st;
    if (reason == EACCES || reason == EPERM || reason == EROFS)
        return ST_FORBIDDEN;
    return reason == ENOENT ? ST_NOT_FOUND : full ? ST_NO_SPACE : ST_IO;
}

static bool read_hex(const char text[TEXT_BYTES], uint8_t key[TOKEN_KEY_BYTES])
{
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        key[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : key[i / 2] | digit);
    }
    return true;
}

static enum status read_key(const char *path, uint8_t key[TOKEN_KEY_BYTES], struct buf *error)
{
    char text[TEXT_BYTES + 2];
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return complain("cannot read", path, error);
    ssize_t n = read(fd, text, sizeof text);
    bool secret = fstat(fd, &about) == 0 && (about.st_mode & (S_IRWXG | S_IRWXO)) == 0;
    close(fd);
    bool whole = n == TEXT_BYTES || (n == TEXT_BYTES + 1 && text[TEXT_BYTES] == '\n');
    if (whole && secret && read_hex(text, key))
        return ST_OK;
    enum status st = buf_printf(
        error, "%s: %s", path,
        secret ? "must hold 64 hexadecimal digits; take it away, and the next start makes a new one (every "
                 "token signed with the old one is then refused)"
               : "may be read by others: anybody with this key can make tokens. chmod 600 it, or take it "
                 "away and let the next start make a new one");
    (void)st;
    return ST_INVALID;
}

static enum status make_key(const char *dir, const char *path, struct buf *error)
{
    char fresh[PATH_MAX], text[TEXT_BYTES + 2];
    uint8_t key[TOKEN_KEY_BYTES];
    snprintf(fresh, sizeof fresh, "%s/token.key.%ld", dir, (long)getpid());
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        return complain("no random bytes for", path, error);
    for (size_t i = 0; i < sizeof key; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
    text[TEXT_BYTES] = '\n';
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return complain("cannot make", path, error);
    bool ok = write(fd, text, TEXT_BYTES + 1) == TEXT_BYTES + 1 && fsync(fd) == 0;
    ok = close(fd) == 0 && ok && (link(fresh, path) == 0 || errno == EEXIST);
    enum status st = ok ? ST_OK : complain("cannot make", path, error);
    (void)unlink(fresh);
    return st;
}

enum status key_file_load(const char *data_dir, uint8_t key[TOKEN_KEY_BYTES], struct buf *error)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/token.key", data_dir) >= (int)sizeof path - 32) {
        errno = ENAMETOOLONG;
        return complain("cannot read", data_dir, error);
    }
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        enum status st = make_key(data_dir, path, error);
        if (st != ST_OK)
            return st;
    }
    return read_key(path, key, error);
}
