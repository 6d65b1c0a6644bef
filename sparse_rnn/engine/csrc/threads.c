#define _GNU_SOURCE
#include "threads.h"

#include <dlfcn.h>
#include <sched.h>
#include <stddef.h>

/* torch has loaded an OpenMP already. A pool of one's own would fight with its threads, which go on spinning for
 * milliseconds after each of torch's own operations. */
typedef void (*parallel_function)(void (*)(void *), void *, unsigned, unsigned);
typedef int (*count_function)(void);

typedef struct {
  void (*f)(void *, int, int);
  void *data;
  count_function count;
  atomic_int next;
} job;

static void enter(void *data) {
  job *work = data;
  work->f(work->data, atomic_fetch_add(&work->next, 1), work->count());
}

void run_parallel(void (*f)(void *, int, int), void *data, int threads) {
  parallel_function parallel = NULL;
  count_function count = NULL;
  if (threads > 1) {
    *(void **)&parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    *(void **)&count = dlsym(RTLD_DEFAULT, "omp_get_num_threads");
  }
  if (parallel == NULL || count == NULL) {
    f(data, 0, 1);
    return;
  }
  job work = {f, data, count, 0};
  parallel(enter, &work, (unsigned)threads, 0);
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

void wait_for(barrier *b, int threads) {
  if (threads == 1) return;
  int round = atomic_load_explicit(&b->round, memory_order_acquire);
  if (atomic_fetch_add_explicit(&b->waiting, 1, memory_order_acq_rel) == threads - 1) {
    atomic_store_explicit(&b->waiting, 0, memory_order_relaxed);
    atomic_store_explicit(&b->round, round + 1, memory_order_release);
    return;
  }
  for (int spins = 0; atomic_load_explicit(&b->round, memory_order_acquire) == round; spins++) {
    /* Where there are more threads than processors the one that is waited for may not be running. */
    if (spins < 4096)
      pause_briefly();
    else
      sched_yield();
  }
}
