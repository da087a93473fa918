/* A running node finds the changed file by itself, at the next password. Two commands at once are kept apart
 * by a lock on a file beside it. */
#include "gateway/cli/user.h"

#include "gateway/auth/password_file.h"
#include "gateway/cli/arguments.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/file.h>
#include <termios.h>
#include <unistd.h>

enum { ERROR_BYTES_MAX = 4096 };

struct job {
    const char *what;
    struct slice name;
    char path[PATH_MAX];
    struct buf error;
    struct password_file *file;
};

/* --- the password ------------------------------------------------------------------------------- */

/* One line of the standard input, not shown when that is a terminal. False: none. */
static bool read_password(char *out, size_t size)
{
    struct termios before, silent;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        fputs("Password: ", stderr);
        silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    bool given = fgets(out, (int)size, stdin) != NULL;
    if (terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    return given;
}

static int add(struct job *j)
{
    char password[PASSWORD_BYTES_MAX + 2];
    struct scrypt s;
    if (!read_password(password, sizeof password))
        return arguments_refuse("user add reads the password from the standard input, and there was none",
                                NULL);
    size_t len = strcspn(password, "\r\n");
    if (len == 0 || len > PASSWORD_BYTES_MAX)
        return arguments_refuse("a password has 1 to 1024 bytes", NULL);
    enum status st = scrypt_make(slice_of(password, len), &s);
    OPENSSL_cleanse(password, sizeof password);
    if (st == ST_OK)
        st = password_file_put(j->file, j->name, &s);
    if (st == ST_OK)
        st = password_file_save(j->file, j->path, &j->error);
    if (st != ST_OK && j->error.len == 0)
        st = buf_printf(&j->error, "cannot add the user: %s", status_name(st)) == ST_OK ? st : ST_NO_MEMORY;
    return st == ST_OK ? EXIT_CODE_OK : arguments_complain(&j->error, arguments_exit_code(st));
}

static int drop(struct job *j)
{
    enum status st = password_file_remove(j->file, j->name);
    if (st == ST_NOT_FOUND) {
        st = buf_printf(&j->error, "%s has no user of this name; tidegate user list", j->path);
        (void)st;
        return arguments_complain(&j->error, EXIT_CODE_FAILED);
    }
    st = password_file_save(j->file, j->path, &j->error);
    return st == ST_OK ? EXIT_CODE_OK : arguments_complain(&j->error, arguments_exit_code(st));
}

static void print_name(void *ctx, struct slice name)
{
    (void)ctx;
    printf("%.*s\n", SLICE_ARG(name));
}

/* --- the file ----------------------------------------------------------------------------------- */

static int run_with_file(struct job *j)
{
    enum status st = password_file_load(j->path, &j->file, &j->error);
    if (st != ST_OK)
        return arguments_complain(&j->error, arguments_exit_code(st));
    int code = EXIT_CODE_OK;
    if (strcmp(j->what, "add") == 0)
        code = add(j);
    else if (strcmp(j->what, "remove") == 0)
        code = drop(j);
    else
        password_file_each(j->file, print_name, NULL);
    password_file_free(j->file);
    return code;
}

static int run_locked(struct job *j)
{
    char lock[PATH_MAX + 8];
    snprintf(lock, sizeof lock, "%s.lock", j->path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        int reason = errno;
        enum status st = buf_printf(&j->error, "cannot lock %s: %s", lock, strerror(reason));
        (void)st;
        if (fd >= 0)
            close(fd);
        return arguments_complain(&j->error, reason == ENOENT   ? EXIT_CODE_UNAVAILABLE
                                             : reason == EACCES ? EXIT_CODE_PERMISSION
                                                                : EXIT_CODE_RETRY);
    }
    int code = run_with_file(j);
    close(fd);
    return code;
}

int user_command(int count, char **words)
{
    struct job j = {.what = count > 0 ? words[0] : ""};
    struct arguments a = {0};
    struct settings s;
    const char *data = NULL;
    const struct argument_option options[] = {{"--data", &data, NULL}};
    bool list = strcmp(j.what, "list") == 0;
    if (!list && strcmp(j.what, "add") != 0 && strcmp(j.what, "remove") != 0)
        return arguments_refuse("user needs one of add, remove, list", NULL);
    int code = arguments_parse(count - 1, words + 1, options, 1, list ? 0 : 1, &a);
    if (code != 0)
        return code;
    j.name = slice_cstr(a.operand_count ? a.operands[0] : NULL);
    if (!list && !password_name_valid(j.name))
        return arguments_refuse(
            "a user's name has 1 to 256 bytes of UTF-8, no ':' and no control characters, and does "
            "not begin with '#'",
            NULL);
    if ((code = arguments_settings(&a, &s)) != 0)
        return code;
    if (s.auth_users[0] && !data)
        snprintf(j.path, sizeof j.path, "%s", s.auth_users);
    else
        snprintf(j.path, sizeof j.path, "%s/users", data ? data : s.data_dir);
    buf_init(&j.error, ERROR_BYTES_MAX);
    code = list ? run_with_file(&j) : run_locked(&j);
    buf_deinit(&j.error);
    settings_free(&s);
    return code;
}
