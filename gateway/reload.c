/* The steps, each of which may fail and then leaves everything as it was:
 *
 *   load the file, the environment and --set anew  ->  keep what is not live  ->  prepare the parts
 *   ->  the loops go over (node_use_settings)  ->  commit the parts, free the former settings
 *
 * The last step cannot fail. The thread that waits for signals does all of it; no loop waits for a file. */
#include "gateway/reload.h"

#include "core/clock.h"
#include "core/logging.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_BYTES_MAX = 256 * 1024, ERROR_BYTES_MAX = 4096, VALUE_BYTES_MAX = 16 * 1024 };

void reload_add(struct reload *r, const struct reload_part *part)
{
    assert(r->part_count < RELOAD_PARTS_MAX);
    r->parts[r->part_count++] = *part;
}

/* --- what has changed --------------------------------------------------------------------------- */

struct difference {
    const struct settings *from, *to;
    struct buf *report;
    bool live; /* tell of keys that have changed; else of those that need a restart */
    unsigned count;
};

static void tell_key(void *ctx, const char *key)
{
    struct difference *d = ctx;
    const struct config_table *t = settings_table();
    struct buf line;
    if (config_is_live(t, key) != d->live)
        return;
    d->count++;
    buf_init(&line, VALUE_BYTES_MAX);
    enum status st = buf_printf(&line, "%s %s: ", d->live ? "changed" : "needs a restart", key);
    if (st == ST_OK)
        st = config_show(t, d->from, key, &line);
    if (st == ST_OK)
        st = buf_put_cstr(&line, " -> ");
    if (st == ST_OK)
        st = config_show(t, d->to, key, &line);
    if (d->live)
        log_info("configuration %.*s", SLICE_ARG(buf_slice(&line)));
    else
        log_warn("configuration %.*s", SLICE_ARG(buf_slice(&line)));
    st = buf_put(d->report, buf_slice(&line)); /* what does not fit is in the log */
    if (st == ST_OK)
        st = buf_put_byte(d->report, '\n');
    (void)st;
    buf_deinit(&line);
}

static void tell(const struct settings *from, const struct settings *to, bool live, struct buf *report,
                 unsigned *count)
{
    struct difference d = {.from = from, .to = to, .report = report, .live = live};
    config_diff(settings_table(), from, to, tell_key, &d);
    *count = d.count;
}

/* --- the steps ---------------------------------------------------------------------------------- */

static enum status prepare_parts(struct reload *r, const struct settings *next, size_t *prepared,
                                 struct buf *error)
{
    for (*prepared = 0; *prepared < r->part_count; ++*prepared) {
        const struct reload_part *part = &r->parts[*prepared];
        enum status st = part->prepare(part->ctx, next, error);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static void end_parts(struct reload *r, size_t prepared, bool commit)
{
    for (size_t i = 0; i < prepared; i++) {
        const struct reload_part *part = &r->parts[i];
        if (commit)
            part->commit(part->ctx);
        else
            part->abandon(part->ctx);
    }
}

/* `next` is what was loaded; it becomes what is used, or is freed. */
static enum status go_over(struct reload *r, struct settings *next, struct buf *error)
{
    size_t prepared = 0;
    enum status st = settings_succeed(next, r->settings, error);
    if (st != ST_OK)
        return st;
    st = prepare_parts(r, next, &prepared, error);
    if (st == ST_OK)
        st = node_use_settings(r->node, next);
    end_parts(r, prepared, st == ST_OK);
    if (st != ST_OK) {
        settings_leave(next);
        return st;
    }
    log_set_level((enum log_level)next->log_level);
    settings_leave(r->settings);
    if (r->settings != r->first)
        free(r->settings);
    r->settings = next;
    return ST_OK;
}

static enum status reload_settings(struct reload *r, struct buf *report, struct buf *error)
{
    struct settings *next = malloc(sizeof *next);
    unsigned changed, waiting;
    enum status st =
        next ? settings_load(next, r->config, r->environment, r->assignments, r->assignment_count, error)
             : ST_NO_MEMORY;
    if (st != ST_OK) {
        free(next);
        return st;
    }
    /* Told before it happens: afterwards the values are gone. If it then fails, that is told too. */
    tell(r->settings, next, true, report, &changed);
    tell(r->settings, next, false, report, &waiting);
    st = go_over(r, next, error);
    if (st != ST_OK) {
        free(next);
        return st;
    }
    log_info("configuration reloaded changed=%u restart_needed=%u", changed, waiting);
    return buf_printf(report, "%u changed, %u need a restart\n", changed, waiting);
}

/* --- the outcome -------------------------------------------------------------------------------- */

static void write_outcome(const char *dir, uint64_t begun_ns, bool ok, const struct buf *report)
{
    char path[4096], temporary[sizeof path + 8];
    snprintf(path, sizeof path, "%s/%s", dir, RELOAD_FILE);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "we");
    bool written = f && fprintf(f, "%" PRIu64 "\n%s\n", begun_ns, ok ? "ok" : "failed") > 0 &&
                   fwrite(report->data, 1, report->len, f) == report->len;
    if (f)
        written = fclose(f) == 0 && written;
    if (!written || rename(temporary, path) != 0)
        log_warn("cannot write %s: %s; `tidegate reload` will not see the outcome", path, strerror(errno));
}

enum status reload_run(struct reload *r)
{
    struct buf report, error;
    uint64_t begun_ns = clock_mono_ns(clock_system());
    buf_init(&report, REPORT_BYTES_MAX);
    buf_init(&error, ERROR_BYTES_MAX);
    enum status st = reload_settings(r, &report, &error);
    if (st != ST_OK) {
        if (error.len == 0 && buf_put_cstr(&error, status_name(st)) != ST_OK)
            buf_clear(&error);
        log_error("configuration not reloaded, nothing has changed: %.*s", SLICE_ARG(buf_slice(&error)));
        buf_clear(&report);
        if (buf_printf(&report, "nothing has changed: %.*s\n", SLICE_ARG(buf_slice(&error))) != ST_OK)
            buf_clear(&report);
    }
    write_outcome(r->settings->data_dir, begun_ns, st == ST_OK, &report);
    buf_deinit(&report);
    buf_deinit(&error);
    return st;
}
