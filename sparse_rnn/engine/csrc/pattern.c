/* The positions of the weights that are kept: from a mask, transposed, and between a dense matrix and its values. */
#include "engine.h"
#include "threads.h"

#include <string.h>

static const uint8_t *mask_row(const uint8_t *mask, int64_t gates, int64_t units, int64_t inputs, int64_t row) {
  return mask + (row % gates * units + row / gates) * inputs;
}

void sparse_rnn_count(const uint8_t *mask, int64_t gates, int64_t units, int64_t inputs, int32_t *offsets) {
  offsets[0] = 0;
  for (int64_t row = 0; row < gates * units; row++) {
    const uint8_t *kept = mask_row(mask, gates, units, inputs, row);
    int32_t count = 0;
    for (int64_t i = 0; i < inputs; i++) count += kept[i] != 0;
    offsets[row + 1] = offsets[row] + count;
  }
}

void sparse_rnn_list(const uint8_t *mask, int64_t gates, int64_t units, int64_t inputs, const int32_t *offsets,
                     uint16_t *columns, int32_t *positions) {
  for (int64_t row = 0; row < gates * units; row++) {
    const uint8_t *kept = mask_row(mask, gates, units, inputs, row);
    int64_t place = offsets[row], end = offsets[row + 1];
    for (int64_t i = 0; place < end; i++)
      if (kept[i]) {
        columns[place] = (uint16_t)i;
        positions[place++] = (int32_t)(kept - mask + i);
      }
  }
}

void sparse_rnn_transpose(const int32_t *offsets, const uint16_t *columns, int64_t rows, int64_t inputs, int64_t gates,
                          int64_t slots, const int32_t *slot_of_gate, int32_t *block_offsets, uint16_t *block_rows,
                          int32_t *block_order) {
  int64_t blocks = (rows / gates * slots + BLOCK - 1) / BLOCK;
  /* Counts go two places to the right: filling then moves each to where its own entries begin. */
  memset(block_offsets, 0, (blocks * inputs + 2) * sizeof *block_offsets);
  for (int filling = 0; filling < 2; filling++) {
    for (int64_t row = 0; row < rows; row++) {
      int64_t slot = row / gates * slots + slot_of_gate[row % gates];
      int32_t *own = block_offsets + slot / BLOCK * inputs;
      for (int32_t i = offsets[row]; i < offsets[row + 1]; i++) {
        if (!filling) {
          own[columns[i] + 2]++;
        } else {
          int32_t place = own[columns[i] + 1]++;
          block_rows[place] = (uint16_t)slot;
          block_order[place] = i;
        }
      }
    }
    if (!filling)
      for (int64_t i = 2; i < blocks * inputs + 2; i++) block_offsets[i] += block_offsets[i - 1];
  }
}

typedef struct {
  const void *from;
  const int32_t *positions;
  int64_t kept, bytes;
  void *to;
} copy;

#define PART(type, statement)                                                                                          \
  for (int64_t i = first; i < last; i++) ((type *)c->to)statement;

static void take(void *data, int thread, int threads) {
  copy *c = data;
  int64_t first = c->kept * thread / threads, last = c->kept * (thread + 1) / threads;
  if (c->bytes == 4)
    PART(uint32_t, [i] = ((const uint32_t *)c->from)[c->positions[i]])
  else
    PART(uint64_t, [i] = ((const uint64_t *)c->from)[c->positions[i]])
}

static void put(void *data, int thread, int threads) {
  copy *c = data;
  int64_t first = c->kept * thread / threads, last = c->kept * (thread + 1) / threads;
  if (c->bytes == 4)
    PART(uint32_t, [c->positions[i]] = ((const uint32_t *)c->from)[i])
  else
    PART(uint64_t, [c->positions[i]] = ((const uint64_t *)c->from)[i])
}

void sparse_rnn_take(const void *dense, const int32_t *positions, int64_t kept, int64_t bytes, int64_t threads,
                     void *values) {
  copy c = {dense, positions, kept, bytes, values};
  run_parallel(take, &c, kept < 16384 ? 1 : (int)threads);
}

void sparse_rnn_put(const void *values, const int32_t *positions, int64_t kept, int64_t bytes, int64_t threads,
                    void *dense) {
  copy c = {values, positions, kept, bytes, dense};
  run_parallel(put, &c, kept < 16384 ? 1 : (int)threads);
}
