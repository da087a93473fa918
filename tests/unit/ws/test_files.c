#include "gateway/ws/files.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tidegate-files-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fputs(text, file);
    fclose(file);
}

static void begin(void)
{
    char path[256];
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sub", folder);
    cr_assert_eq(mkdir(path, 0700), 0);
    write_file("index.html", "<p>");
    write_file("demo.js", "1");
    write_file("empty.css", "");
    write_file(".secret", "s");
    write_file("sub/index.html", "sub");
    write_file("sub/a.svg", "svg");
    snprintf(path, sizeof path, "%s/link.txt", folder);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
}

static void end(void)
{
    static const char *const names[] = {"index.html", "demo.js",  "empty.css", ".secret", "sub/index.html",
                                        "sub/a.svg",  "link.txt", "sub",       ""};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
}

TestSuite(ws_files, .init = begin, .fini = end);

Test(ws_files, finds_what_was_there_and_nothing_else)
{
    static const struct {
        const char *name, *bytes, *type;
    } rows[] = {
        {"", "<p>", "text/html; charset=utf-8"},
        {"index.html", "<p>", "text/html; charset=utf-8"},
        {"demo.js", "1", "text/javascript; charset=utf-8"},
        {"empty.css", "", "text/css; charset=utf-8"},
        {"sub/", "sub", "text/html; charset=utf-8"},
        {"sub/a.svg", "svg", "image/svg+xml"},
        {"sub", NULL, NULL},
        {".secret", NULL, NULL},
        {"link.txt", NULL, NULL},
        {"../index.html", NULL, NULL},
        {"sub/../index.html", NULL, NULL},
        {"./index.html", NULL, NULL},
        {"/index.html", NULL, NULL},
        {"index.htm", NULL, NULL},
        {"/", NULL, NULL},
    };
    struct files *files;
    struct buf error;
    buf_init(&error, 1024);
    cr_assert_eq(files_load(folder, &files, &error), ST_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct file *f = files_find(files, slice_cstr(rows[i].name));
        cr_expect_eq(f != NULL, rows[i].bytes != NULL, "%s", rows[i].name);
        if (!f || !rows[i].bytes)
            continue;
        cr_expect(slice_equal_cstr(f->bytes, rows[i].bytes), "%s", rows[i].name);
        cr_expect_str_eq(f->type, rows[i].type);
    }
    files_free(files);
    buf_deinit(&error);
}

Test(ws_files, a_missing_folder_is_empty_and_a_large_one_refused)
{
    struct files *files;
    struct buf error;
    buf_init(&error, 1024);
    cr_assert_eq(files_load("/nonexistent/demo", &files, &error), ST_OK);
    cr_assert_null(files_find(files, slice_cstr("")));
    files_free(files);
    cr_assert_eq(files_load(NULL, &files, &error), ST_OK);
    files_free(files);

    char path[256];
    snprintf(path, sizeof path, "%s/demo.js", folder);
    cr_assert_eq(truncate(path, FILES_BYTES_MAX + 1), 0);
    cr_assert_eq(files_load(folder, &files, &error), ST_TOO_LARGE);
    cr_assert(error.len > 0);
    buf_deinit(&error);
}
