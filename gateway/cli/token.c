#include "gateway/cli/token.h"

#include "core/clock.h"
#include "core/config_value.h"
#include "gateway/auth/auth.h"
#include "gateway/auth/jwt.h"
#include "gateway/auth/key_file.h"
#include "gateway/auth/mint.h"
#include "gateway/cli/arguments.h"

#include <stdio.h>
#include <stdlib.h>

enum { ERROR_BYTES_MAX = 4096, TTL_MS_DEFAULT = 3600000 };

struct words {
    struct arguments arguments;
    const char *data, *ttl, *id, *claims;
};

/* The folder: --data, else data.dir. */
static const char *folder(const struct words *w, const struct settings *s)
{
    return w->data ? w->data : s->data_dir;
}

static int parse(int count, char **words, struct words *w, struct settings *s)
{
    const struct argument_option options[] = {{"--data", &w->data, NULL},
                                              {"--ttl", &w->ttl, NULL},
                                              {"--id", &w->id, NULL},
                                              {"--claims", &w->claims, NULL}};
    int code = arguments_parse(count, words, options, sizeof options / sizeof *options, 1, &w->arguments);
    return code != 0 ? code : arguments_settings(&w->arguments, s);
}

/* The same texts as in the configuration: 90s, 15m, 12h. */
static bool read_ttl(const char *text, uint64_t *ttl_ms)
{
    static const struct config_option option = {
        .key = "--ttl", .type = CONFIG_MS, .most = UINT64_C(3155760000000)};
    struct buf error;
    buf_init(&error, ERROR_BYTES_MAX);
    bool valid = config_value_set(&option, ttl_ms, slice_cstr(text), "--ttl", &error) == ST_OK;
    buf_deinit(&error);
    return valid;
}

/* --- create ------------------------------------------------------------------------------------- */

/* A token of ours satisfies our own rules. */
static struct slice first_of(const char *list)
{
    return slice_of(list, strcspn(list, "\n"));
}

static int print_token(const struct words *w, const struct settings *s, uint64_t ttl_ms)
{
    struct buf error, token;
    uint8_t secret[TOKEN_KEY_BYTES];
    int code = EXIT_CODE_OK;
    const struct mint_claims claims = {.user = slice_cstr(w->arguments.operands[0]),
                                       .token_id = slice_cstr(w->id),
                                       .now_ms = clock_wall_ms(clock_system()),
                                       .ttl_ms = ttl_ms,
                                       .issuer = first_of(s->auth_issuers),
                                       .audience = first_of(s->auth_audiences),
                                       .more = slice_cstr(w->claims)};
    buf_init(&error, ERROR_BYTES_MAX);
    buf_init(&token, JWT_BYTES_MAX);
    enum status st = key_file_load(folder(w, s), secret, &error);
    if (st == ST_NOT_FOUND)
        code = arguments_complain(&error, EXIT_CODE_UNAVAILABLE);
    else if (st != ST_OK)
        code = arguments_complain(&error, arguments_exit_code(st));
    else if (mint_token(slice_of(secret, sizeof secret), &claims, &token) != ST_OK)
        code = arguments_refuse(
            "--claims must be a JSON object without sub, jti, iss, aud, iat and exp, of at most some "
            "5,000 bytes",
            NULL);
    else
        printf("%.*s\n", SLICE_ARG(buf_slice(&token)));
    buf_deinit(&token);
    buf_deinit(&error);
    return code;
}

static int create(int count, char **words)
{
    struct words w = {0};
    struct settings s;
    uint64_t ttl_ms = TTL_MS_DEFAULT;
    int code = parse(count, words, &w, &s);
    if (code != 0)
        return code;
    size_t len = w.arguments.operand_count == 1 ? strlen(w.arguments.operands[0]) : 0;
    if (len == 0 || len > PRINCIPAL_USER_BYTES_MAX)
        code = arguments_refuse("token create needs the name of a user, of 1 to 256 bytes", NULL);
    else if (w.ttl && !read_ttl(w.ttl, &ttl_ms))
        code = arguments_refuse(
            "--ttl must be a time such as 90s, 15m or 12h, or 0 for a token that never expires; not", w.ttl);
    else
        code = print_token(&w, &s, ttl_ms);
    settings_free(&s);
    return code;
}

/* --- check -------------------------------------------------------------------------------------- */

static int print_claims(struct slice text)
{
    struct jwt token;
    if (jwt_open(text, &token) != ST_OK)
        return EXIT_CODE_FAILED;
    printf("good %s %.*s\n", jwt_alg_name(token.alg), SLICE_ARG(buf_slice(&token.payload)));
    jwt_close(&token);
    return EXIT_CODE_OK;
}

static int check_token(struct slice text, const struct settings *s)
{
    struct auth_office *office;
    struct principal *p;
    struct buf error;
    int code;
    buf_init(&error, ERROR_BYTES_MAX);
    enum status st = auth_office_create(s, &office, &error);
    if (st != ST_OK) {
        code =
            arguments_complain(&error, st == ST_NOT_FOUND ? EXIT_CODE_UNAVAILABLE : arguments_exit_code(st));
    } else {
        enum auth_verdict v = auth_office_judge(office, text, clock_wall_ms(clock_system()), &p, &error);
        if (v == AUTH_OK) {
            code = print_claims(text);
            principal_unref(p);
        } else {
            if (error.len > 0)
                fprintf(stderr, "tidegate: auth.jwks_url: %.*s\n", SLICE_ARG(buf_slice(&error)));
            fprintf(stderr, "tidegate: %s\n", auth_text(v));
            code = EXIT_CODE_FAILED;
        }
        auth_office_destroy(office);
    }
    buf_deinit(&error);
    return code;
}

static int check(int count, char **words)
{
    struct words w = {0};
    struct settings s;
    int code = parse(count, words, &w, &s);
    if (code != 0)
        return code;
    if (w.arguments.operand_count != 1 || w.ttl || w.id || w.claims) {
        code = arguments_refuse("token check needs a token", NULL);
    } else {
        char *configured = s.data_dir;
        if (w.data)
            s.data_dir = strdup(w.data);
        code = s.data_dir ? check_token(slice_cstr(w.arguments.operands[0]), &s) : EXIT_CODE_FAILED;
        if (w.data) {
            free(s.data_dir);
            s.data_dir = configured;
        }
    }
    settings_free(&s);
    return code;
}

int token_command(int count, char **words)
{
    const char *what = count > 0 ? words[0] : "";
    if (strcmp(what, "create") == 0)
        return create(count - 1, words + 1);
    if (strcmp(what, "check") == 0)
        return check(count - 1, words + 1);
    return arguments_refuse("token needs one of create, check", NULL);
}
