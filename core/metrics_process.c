/* What the kernel knows about this process, read when scraped. A value that cannot be had is not printed:
 * a missing series is seen, a zero is believed. */
#include "core/metrics_process.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static enum status put_number(struct buf *out, const char *name, const char *type, const char *help,
                              double value)
{
    if (value < 0)
        return ST_OK;
    /* 15 digits: a double's integers (bytes) and milliseconds of Unix time come out whole. */
    return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, type, name, value);
}

static double cpu_seconds(void)
{
    struct timespec used;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0)
        return -1;
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Field 0 (total) or 1 (resident) of statm, in bytes (proc(5)). */
static double memory_bytes(unsigned field)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return -1;
    uint64_t pages[2];
    int found = fscanf(file, "%" SCNu64 " %" SCNu64, &pages[0], &pages[1]);
    (void)fclose(file); /* read only: nothing can be lost */
    return found == 2 ? (double)pages[field] * (double)sysconf(_SC_PAGESIZE) : -1;
}

/* Since Linux 6.2 the directory's size is the number. Counting a million entries takes a third of a
 * second, so that is only for older kernels. */
static double open_fds(void)
{
    struct stat info;
    if (stat("/proc/self/fd", &info) == 0 && info.st_size > 0)
        return (double)info.st_size;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -1;
    uint64_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            count++;
    closedir(dir);
    return (double)count - 1; /* without the directory's own */
}

static double max_fds(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (double)limit.rlim_cur : -1;
}

static double boot_time_s(void)
{
    FILE *file = fopen("/proc/stat", "re");
    if (!file)
        return -1;
    char *line = NULL;
    size_t size = 0;
    uint64_t seconds = 0;
    while (getline(&line, &size, file) >= 0)
        if (sscanf(line, "btime %" SCNu64, &seconds) == 1)
            break;
    free(line);
    (void)fclose(file);
    return seconds > 0 ? (double)seconds : -1;
}

/* Field 22 of stat: clock ticks from boot. The command name (field 2) is in brackets and may hold blanks
 * and brackets itself: counting begins behind the last one. */
static double start_after_boot_s(void)
{
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return -1;
    char text[2048];
    size_t len = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[len] = '\0';
    const char *rest = strrchr(text, ')');
    for (unsigned field = 2; rest && field < 22; field++)
        rest = strchr(rest + 1, ' ');
    uint64_t ticks;
    if (!rest || sscanf(rest, "%" SCNu64, &ticks) != 1)
        return -1;
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static double start_time_s = -1;

static void find_start_time(void)
{
    double boot = boot_time_s(), after = start_after_boot_s();
    if (boot >= 0 && after >= 0)
        start_time_s = boot + after;
}

enum status metrics_render_process(struct buf *out)
{
    /* It never changes, and /proc/stat is long on large machines. */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_start_time);
    const struct {
        const char *name, *type, *help;
        double value;
    } facts[] = {
        {"process_cpu_seconds_total", "counter", "User and system CPU time spent.", cpu_seconds()},
        {"process_resident_memory_bytes", "gauge", "Resident memory.", memory_bytes(1)},
        {"process_virtual_memory_bytes", "gauge", "Virtual memory.", memory_bytes(0)},
        {"process_open_fds", "gauge", "Open file descriptors.", open_fds()},
        {"process_max_fds", "gauge", "Limit of open file descriptors.", max_fds()},
        {"process_start_time_seconds", "gauge", "Start of the process, Unix time.", start_time_s},
    };
    enum status st = ST_OK;
    for (size_t i = 0; st == ST_OK && i < sizeof facts / sizeof facts[0]; i++)
        st = put_number(out, facts[i].name, facts[i].type, facts[i].help, facts[i].value);
    return st;
}
