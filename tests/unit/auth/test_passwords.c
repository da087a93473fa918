#include "gateway/auth/password_file.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char hash_a[] =
    "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

Test(scrypt, knows_the_password_and_no_other)
{
    struct scrypt s, again, other;
    struct buf text;
    buf_init(&text, 256);
    cr_assert_eq(scrypt_make(slice_cstr("pässword"), &s), ST_OK);
    cr_assert_eq(scrypt_write(&s, &text), ST_OK);
    cr_assert_eq(scrypt_read(buf_slice(&text), &again), ST_OK);
    cr_expect_eq(memcmp(&s, &again, sizeof s), 0);
    cr_expect_eq(scrypt_check(&again, slice_cstr("pässword")), ST_OK);
    cr_expect_eq(scrypt_check(&again, slice_cstr("password")), ST_FORBIDDEN);
    cr_expect_eq(scrypt_check(&again, slice_cstr("")), ST_FORBIDDEN);
    cr_assert_eq(scrypt_make(slice_cstr("pässword"), &other), ST_OK);
    cr_expect_neq(memcmp(s.salt, other.salt, sizeof s.salt), 0);
    buf_deinit(&text);
}

/* hashlib.scrypt(b"pleaseletmein", salt=b"0123456789abcdef", n=1024, r=8, p=1, dklen=32) of Python. */
Test(scrypt, is_the_one_of_the_standard)
{
    struct scrypt s;
    cr_assert_eq(
        scrypt_read(
            slice_cstr(
                "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$o3zBilPc86r0aNumivxDqGJbs1CVkVYyLfGzVSIFS0U"),
            &s),
        ST_OK);
    cr_expect_eq(scrypt_check(&s, slice_cstr("pleaseletmein")), ST_OK);
}

Test(scrypt, refuses_other_texts_and_unreasonable_costs)
{
    static const char *const bad[] = {
        "",
        "$scrypt$",
        "plain",
        "$2b$10$abcdefghijklmnopqrstuv",
        "$scrypt$ln=9,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=21,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=20,r=16,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=0,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=8,p=17$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
        "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=10,r=8,p=1$$",
        "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA$",
        "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAA!$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    struct scrypt s;
    cr_expect_eq(scrypt_read(slice_cstr(hash_a), &s), ST_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(scrypt_read(slice_cstr(bad[i]), &s), ST_INVALID, "%s", bad[i]);
}

static char path[64];

static void setup(void)
{
    char folder[] = "/tmp/tidegate-users-XXXXXX";
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/users", folder);
}

static void cleanup(void)
{
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

TestSuite(password_file, .init = setup, .fini = cleanup);

static void count(void *ctx, struct slice name)
{
    (void)name;
    (*(unsigned *)ctx)++;
}

Test(password_file, keeps_users)
{
    struct password_file *f;
    struct buf error;
    struct scrypt s;
    char name[16];
    unsigned users = 0;
    buf_init(&error, 1024);
    cr_assert_eq(scrypt_read(slice_cstr(hash_a), &s), ST_OK);
    cr_assert_eq(password_file_load(path, &f, &error), ST_OK, "none is an empty one");
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "user%u", i * 37 % 100);
        s.salt[0] = (uint8_t)(i * 37 % 100);
        cr_assert_eq(password_file_put(f, slice_cstr(name), &s), ST_OK);
    }
    cr_assert_eq(password_file_save(f, path, &error), ST_OK);
    password_file_free(f);
    cr_assert_eq(password_file_load(path, &f, &error), ST_OK);
    password_file_each(f, count, &users);
    cr_expect_eq(users, 100u);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "user%u", i);
        const struct scrypt *found = password_file_find(f, slice_cstr(name));
        cr_assert(found && found->salt[0] == i, "%s", name);
    }
    cr_expect_null(password_file_find(f, slice_cstr("user")));
    cr_expect_null(password_file_find(f, slice_cstr("user100")));
    cr_expect_null(password_file_find(f, (struct slice){0}));
    cr_assert_eq(password_file_remove(f, slice_cstr("user50")), ST_OK);
    cr_expect_eq(password_file_remove(f, slice_cstr("user50")), ST_NOT_FOUND);
    cr_expect_null(password_file_find(f, slice_cstr("user50")));
    password_file_free(f);
    buf_deinit(&error);
}

Test(password_file, tells_what_is_wrong_with_it)
{
    /* Texts with a hash between them. */
    static const char *const bad[][3] = {
        {"ann\n"}, {"ann:secret\n"}, {":", "\n"}, {"a\tb:", "\n"}, {"ann:", "\nann:", "\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct password_file *f;
        struct buf error;
        char text[512];
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int len = snprintf(text, sizeof text, "%s%s%s%s%s", bad[i][0], bad[i][1] ? hash_a : "",
                           bad[i][1] ? bad[i][1] : "", bad[i][2] ? hash_a : "", bad[i][2] ? bad[i][2] : "");
        cr_assert_eq(write(fd, text, (size_t)len), len);
        close(fd);
        buf_init(&error, 1024);
        cr_expect_eq(password_file_load(path, &f, &error), ST_INVALID, "%s", text);
        cr_expect_gt(error.len, 0u);
        buf_deinit(&error);
    }
}
