/* Runs the kernels on awkward sizes, for sanitizers and valgrind to watch: .ci/sanitize compiles it.
 *
 * Each array has exactly the size that engine.h asks for, and all bits set, which are NaN: what is read before it was
 * written shows in a result. The numbers themselves are compared with torch's by the tests in Python. */
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 32 };

typedef struct {
  int64_t cell, batch, steps, inputs, units, projected, full, diagonal, is_double, reverse, threads, percent, even;
} shape;

static void *owned[128];
static int count_owned;
static uint32_t state;

static uint32_t next(void) { return state = state * 1664525u + 1013904223u; }

/* NULL where there are no numbers, as the addresses of torch's empty tensors are. */
static void *fresh(int64_t numbers, int64_t bytes) {
  if (numbers == 0) return NULL;
  void *made = malloc((size_t)(numbers * bytes));
  memset(made, 0xFF, (size_t)(numbers * bytes));
  return owned[count_owned++] = made;
}

static void *reals(const shape *s, int64_t numbers) { return fresh(numbers, s->is_double ? 8 : 4); }

static void *random_reals(const shape *s, int64_t numbers) {
  void *made = reals(s, numbers);
  for (int64_t i = 0; i < numbers; i++) {
    double value = (next() >> 8) / 8388608.0 - 1;
    if (s->is_double)
      ((double *)made)[i] = value;
    else
      ((float *)made)[i] = (float)value;
  }
  return made;
}

/* What one sequence reads; its arrays are as long as the count says. */
static void find_windows(const shape *s, kernel *k, int64_t gates, const int32_t *slot_of_gate, int64_t units) {
  if (s->is_double || s->batch > 1 || k->inputs < WINDOW || !sparse_rnn_reads_windows()) return;
  int64_t groups = (units + WINDOW_UNITS - 1) / WINDOW_UNITS * gates;
  int32_t *ends = fresh(groups, 4);
  uint8_t *sums = fresh(groups * WINDOW_ROWS, 1);
  int64_t count = sparse_rnn_windows(k->offsets, k->columns, k->values, gates, units, k->inputs, slot_of_gate, ends, sums,
                                     NULL, NULL, NULL);
  uint16_t *starts = fresh(count, 2);
  uint8_t *places = fresh(count * WINDOW_STEPS * WINDOW_LANES, 1);
  float *values = fresh(count * WINDOW_STEPS * WINDOW_LANES, 4);
  if (count)
    sparse_rnn_windows(k->offsets, k->columns, k->values, gates, units, k->inputs, slot_of_gate, ends, sums, starts,
                       places, values);
  k->window_ends = ends, k->window_sums = sums;
  k->window_starts = starts, k->window_places = places, k->window_values = values;
}

static kernel random_kernel(const shape *s, int64_t gates, int64_t slots, const int32_t *slot_of_gate, int64_t units,
                            int64_t inputs) {
  int64_t rows = gates * units, blocks = (units * slots + BLOCK - 1) / BLOCK;
  uint8_t *mask = fresh(rows * inputs, 1);
  for (int64_t i = 0; i < rows * inputs; i++) mask[i] = next() % 101 < s->percent;
  int32_t *offsets = fresh(rows + 1, 4);
  sparse_rnn_count(mask, gates, units, inputs, offsets);
  int64_t kept = offsets[rows];
  uint16_t *columns = fresh(kept, 2), *block_rows = fresh(kept, 2);
  int32_t *positions = fresh(kept, 4), *block_offsets = fresh(blocks * inputs + 2, 4), *block_order = fresh(kept, 4);
  sparse_rnn_list(mask, gates, units, inputs, offsets, columns, positions);
  sparse_rnn_transpose(offsets, columns, rows, inputs, gates, slots, slot_of_gate, block_offsets, block_rows,
                       block_order);
  void *dense = random_reals(s, rows * inputs), *values = reals(s, kept);
  sparse_rnn_take(dense, positions, kept, s->is_double ? 8 : 4, s->threads, values);
  sparse_rnn_put(values, positions, kept, s->is_double ? 8 : 4, s->threads, dense);
  kernel k = {.offsets = offsets, .columns = columns, .values = values, .block_offsets = block_offsets,
              .block_rows = block_rows, .block_order = block_order, .block_values = reals(s, kept),
              .gradient = reals(s, kept), .inputs = inputs, .type = s->is_double ? FLOAT64 : FLOAT32, .kept = kept};
  find_windows(s, &k, gates, slot_of_gate, units);
  return k;
}

static void require_numbers(const shape *s, const void *all, int64_t numbers, const char *name) {
  for (int64_t i = 0; i < numbers; i++)
    if (!isfinite(s->is_double ? ((const double *)all)[i] : ((const float *)all)[i])) {
      fprintf(stderr, "%s, cell %d, batch %d, units %d: %s[%d] is not a number\n", sparse_rnn_backend(), (int)s->cell,
              (int)s->batch, (int)s->units, name, (int)i);
      exit(1);
    }
}

static void run(const shape *s) {
  static const int32_t in_order[] = {0, 1, 2, 3}, of_states[] = {0, 1, 3};
  int64_t gates = s->cell == LSTM ? 4 : s->cell == GRU ? 3 : 1, slots = gates == 1 ? 1 : 4, has_c = s->cell == LSTM;
  int64_t H = s->units, P = s->projected ? (H + 2) / 3 : H, T = s->steps, B = s->batch, I = s->inputs, rows = 0;
  int64_t lanes = (B + WIDEST - 1) / WIDEST * WIDEST;
  int64_t *starts = fresh(T, 8), *lengths = fresh(B, 8);
  for (int64_t b = 0; b < B; b++) lengths[b] = s->even ? T : T - b * T / B;
  for (int64_t t = 0; t < T; t++) {
    starts[t] = rows;
    for (int64_t b = 0; b < B; b++) rows += lengths[b] > t;
  }
  call c = {.cell = s->cell, .type = s->is_double ? FLOAT64 : FLOAT32, .threads = s->threads, .reverse = s->reverse,
            .steps = T, .batch = B, .inputs = I, .units = H, .outputs = P, .starts = starts, .lengths = lengths,
            .even = s->even, .x_strides = {0, I}, .grad_out_strides = {0, P}};
  if (s->even) c.x_strides = (strides){I, T * I}, c.grad_out_strides = (strides){P, T * P}; /* batch first */
  c.kernels[IH] = random_kernel(s, gates, slots, in_order, H, I);
  c.kernels[HH] = random_kernel(s, gates, slots, s->cell == GRU ? of_states : in_order, H, P);
  if (s->full) c.kernels[CH] = random_kernel(s, gates, slots, in_order, H, H);
  if (s->projected) c.kernels[HR] = random_kernel(s, 1, 1, in_order, P, H);
  c.bias = random_reals(s, H * slots), c.peephole = s->diagonal ? random_reals(s, 3 * H) : NULL;
  c.x = random_reals(s, rows * I), c.h_0 = random_reals(s, B * P), c.c_0 = has_c ? random_reals(s, B * H) : NULL;
  c.out = reals(s, rows * P), c.h_n = reals(s, B * P), c.c_n = has_c ? reals(s, B * H) : NULL;
  c.inputs_kept = reals(s, lanes * T * I), c.h = reals(s, lanes * (T + 1) * P);
  c.c = has_c ? reals(s, lanes * (T + 1) * H) : NULL, c.gates = reals(s, lanes * T * (H + WIDEST - 1) * slots);
  c.unprojected = s->projected ? reals(s, lanes * T * H) : NULL;
  sparse_rnn_forward(&c);
  require_numbers(s, c.out, rows * P, "out"), require_numbers(s, c.h_n, B * P, "h_n");
  c.grad_out = s->even && s->reverse ? NULL : random_reals(s, rows * P), c.grad_h_n = random_reals(s, B * P);
  c.grad_c_n = has_c ? random_reals(s, B * H) : NULL;
  c.slopes = reals(s, lanes * T * H * slots), c.grad_states = reals(s, lanes * (2 * H + 3 * P));
  c.input_scratch = reals(s, s->threads * I * WIDEST), c.projected = s->projected ? reals(s, lanes * T * P) : NULL;
  c.grad_x = reals(s, rows * I), c.grad_h_0 = reals(s, B * P), c.grad_c_0 = has_c ? reals(s, B * H) : NULL;
  c.grad_bias = reals(s, H * slots), c.grad_peephole = s->diagonal ? reals(s, 3 * H) : NULL;
  sparse_rnn_backward(&c);
  require_numbers(s, c.grad_x, rows * I, "grad_x"), require_numbers(s, c.grad_h_0, B * P, "grad_h_0");
  require_numbers(s, c.grad_bias, H * slots, "grad_bias");
  for (int role = IH; role < KERNELS; role++)
    if (c.kernels[role].offsets) {
      int64_t last = role == HR ? P : H * gates;
      require_numbers(s, c.kernels[role].gradient, c.kernels[role].offsets[last], "gradient");
    }
  if (s->diagonal) require_numbers(s, c.grad_peephole, 3 * H, "grad_peephole");
  while (count_owned > 0) free(owned[--count_owned]);
}

int main(void) {
  static const char *backends[] = {"plain", "neon", "avx2", "avx512"};
  static const int64_t batches[] = {1, 2, 5, 9, 17, 33, 70}, units[] = {1, 7, 37, 70}, percents[] = {0, 20, 101};
  int runs = 0;
  for (size_t backend = 0; backend < sizeof backends / sizeof *backends; backend++) {
    if (!sparse_rnn_select(backends[backend])) continue;
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
      for (size_t u = 0; u < sizeof units / sizeof *units; u++)
        for (int64_t kind = 0; kind < 14; kind++, runs++) {
          int64_t form = kind / 2 % 7, at = (int64_t)(b + u) + kind;
          shape s = {.cell = form < 3 ? form : LSTM, .projected = form == 4, .full = form == 5, .diagonal = form == 6};
          s.is_double = kind % 2, s.reverse = at % 2, s.batch = batches[b], s.units = units[u];
          s.steps = 1 + at % 5, s.inputs = 1 + at * 7 % 80, s.percent = percents[at % 3], s.threads = 1 + at % 3, s.even = at / 3 % 2;
          run(&s);
        }
  }
  printf("The kernels: %d runs, all results are numbers\n", runs);
  return 0;
}
