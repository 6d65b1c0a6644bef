/* Runs a function in the threads that torch computes with, and lets them wait for each other. */
#ifndef SPARSE_RNN_THREADS_H
#define SPARSE_RNN_THREADS_H

#include <stdatomic.h>

typedef struct {
  atomic_int waiting, round;
} barrier;

/* Calls f(data, thread, threads) in each thread; threads may be fewer than asked for. */
void run_parallel(void (*f)(void *, int, int), void *data, int threads);
void wait_for(barrier *, int threads);

#endif
