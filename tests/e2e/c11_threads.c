/* For nodes under ThreadSanitizer, preloaded: librdkafka makes its threads by C11's calls, which the
 * sanitizer does not see being made, and it dies of a thread that it does not know. Here they are POSIX's,
 * which they are in glibc anyway: the same types, by another name. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>

struct start {
    thrd_start_t run;
    void *argument;
};

static void *run(void *given)
{
    struct start start = *(struct start *)given;
    free(given);
    return (void *)(long)start.run(start.argument);
}

static int told(int error)
{
    return error == 0           ? thrd_success
           : error == ETIMEDOUT ? thrd_timedout
           : error == EBUSY     ? thrd_busy
                                : thrd_error;
}

int thrd_create(thrd_t *thread, thrd_start_t function, void *argument)
{
    struct start *start = malloc(sizeof *start);
    if (!start)
        return thrd_nomem;
    *start = (struct start){function, argument};
    return told(pthread_create(thread, NULL, run, start));
}

int thrd_join(thrd_t thread, int *result)
{
    void *value;
    int error = pthread_join(thread, &value);
    if (result)
        *result = (int)(long)value;
    return told(error);
}

int thrd_detach(thrd_t thread)
{
    return told(pthread_detach(thread));
}

#define MUTEX(m) ((pthread_mutex_t *)(m))
#define COND(c)  ((pthread_cond_t *)(c))

int mtx_init(mtx_t *m, int type)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (type & mtx_recursive)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    return told(pthread_mutex_init(MUTEX(m), &attributes));
}

int mtx_lock(mtx_t *m)
{
    return told(pthread_mutex_lock(MUTEX(m)));
}

int mtx_trylock(mtx_t *m)
{
    return told(pthread_mutex_trylock(MUTEX(m)));
}

int mtx_unlock(mtx_t *m)
{
    return told(pthread_mutex_unlock(MUTEX(m)));
}

void mtx_destroy(mtx_t *m)
{
    pthread_mutex_destroy(MUTEX(m));
}

int cnd_init(cnd_t *c)
{
    return told(pthread_cond_init(COND(c), NULL));
}

int cnd_signal(cnd_t *c)
{
    return told(pthread_cond_signal(COND(c)));
}

int cnd_broadcast(cnd_t *c)
{
    return told(pthread_cond_broadcast(COND(c)));
}

int cnd_wait(cnd_t *c, mtx_t *m)
{
    return told(pthread_cond_wait(COND(c), MUTEX(m)));
}

int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until)
{
    return told(pthread_cond_timedwait(COND(c), MUTEX(m), until));
}

void cnd_destroy(cnd_t *c)
{
    pthread_cond_destroy(COND(c));
}
