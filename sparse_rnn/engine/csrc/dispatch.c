/* Chooses, once, the code for the processor at hand. */
#include "engine.h"

#include <stddef.h>
#include <string.h>

#define DECLARE(backend)                                                                                               \
  void sparse_rnn_forward_##backend##_float(const call *);                                                             \
  void sparse_rnn_backward_##backend##_float(const call *);                                                            \
  void sparse_rnn_forward_##backend##_double(const call *);                                                            \
  void sparse_rnn_backward_##backend##_double(const call *);

#define BACKEND(name, supported)                                                                                       \
  { #name, supported, {sparse_rnn_forward_##name##_float, sparse_rnn_forward_##name##_double},                         \
    {sparse_rnn_backward_##name##_float, sparse_rnn_backward_##name##_double} }

static int always(void) { return 1; }

#if defined(__aarch64__)
DECLARE(neon)
#else
DECLARE(plain)
#endif
#if defined(__x86_64__)
DECLARE(avx512)
DECLARE(avx2)
static int has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

typedef struct {
  const char *name;
  int (*supported)(void);
  void (*forward[2])(const call *);
  void (*backward[2])(const call *);
} backend;

/* The best first. Every 64-bit ARM has NEON. */
static const backend backends[] = {
#if defined(__x86_64__)
    BACKEND(avx512, has_avx512),
    BACKEND(avx2, has_avx2),
#endif
#if defined(__aarch64__)
    BACKEND(neon, always),
#else
    BACKEND(plain, always),
#endif
};

static const backend *chosen;

static const backend *choose(const char *name) {
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if ((name == NULL || strcmp(name, backends[i].name) == 0) && backends[i].supported()) return &backends[i];
  return NULL;
}

static const backend *current(void) {
  if (chosen == NULL) chosen = choose(NULL);
  return chosen;
}

const char *sparse_rnn_backend(void) { return current()->name; }

int sparse_rnn_reads_windows(void) { return strcmp(current()->name, "avx512") == 0; }

int sparse_rnn_select(const char *name) {
  const backend *found = choose(name);
  if (found == NULL) return 0;
  chosen = found;
  return 1;
}

void sparse_rnn_forward(const call *c) { current()->forward[c->type == FLOAT64](c); }
void sparse_rnn_backward(const call *c) { current()->backward[c->type == FLOAT64](c); }
