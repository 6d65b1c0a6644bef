/* The second order of a kernel's weights, in which the product with one sequence looks states up in registers. */
#include "engine.h"

typedef struct {
  const int32_t *offsets;
  const uint16_t *columns;
  const float *values;
  int64_t gates, rows, inputs;
  const int32_t *slot_of_gate;
} weights;

/* A group of rows on its way through the columns: each of them at its next weight. */
typedef struct {
  int32_t next[WINDOW_ROWS], end[WINDOW_ROWS];
} progress;

enum { MOST_ROWS = 4 * WINDOW_UNITS };

static int32_t length_of(const weights *w, int64_t row) {
  return row < w->rows ? w->offsets[row + 1] - w->offsets[row] : 0;
}

/* The rows of a block by their lengths, so that those that share a lane can be a short and a long one. */
static void order_rows(const weights *w, int64_t first, int count, uint8_t *order) {
  for (int row = 0; row < count; row++) {
    int32_t own = length_of(w, first + row);
    int place = 0;
    for (int other = 0; other < count; other++) {
      int32_t its = length_of(w, first + other);
      place += its < own || (its == own && other < row);
    }
    order[place] = (uint8_t)row;
  }
}

/* The rows of a group, at their first weights; sums gets where they belong. */
static progress begin(const weights *w, int64_t first, const uint8_t *order, int group, uint8_t *sums) {
  progress p;
  int count = (int)w->gates * WINDOW_UNITS;
  for (int place = 0; place < WINDOW_ROWS; place++) {
    int lane = group * WINDOW_LANES + place % WINDOW_LANES;
    int row = order[place < WINDOW_LANES ? lane : count - 1 - lane];
    int32_t length = length_of(w, first + row);
    p.next[place] = length ? w->offsets[first + row] : 0, p.end[place] = p.next[place] + length;
    sums[place] = (uint8_t)(w->slot_of_gate[row % w->gates] * WINDOW_UNITS + row / w->gates);
  }
  return p;
}

static int32_t column_of(const weights *w, const progress *p, int row) {
  return p->next[row] < p->end[row] ? w->columns[p->next[row]] : INT32_MAX;
}

static int32_t lowest_column(const weights *w, const progress *p) {
  int32_t lowest = INT32_MAX;
  for (int row = 0; row < WINDOW_ROWS; row++) {
    int32_t column = column_of(w, p, row);
    if (column < lowest) lowest = column;
  }
  return lowest;
}

/* Starts are where vectors start, as others take longer to load; the last window ends where the states end. */
static int32_t start_of(int32_t lowest, int64_t inputs) {
  int32_t start = lowest / WINDOW_LANES * WINDOW_LANES, last = (int32_t)inputs - WINDOW;
  return start < last ? start : last;
}

/* What a lane does in a step: the next weight of one of its rows, if it is in the window. */
static void take_next(const weights *w, progress *p, int lane, int32_t start, uint8_t *place, float *number) {
  int second = column_of(w, p, lane + WINDOW_LANES) < column_of(w, p, lane);
  int row = second ? lane + WINDOW_LANES : lane;
  int32_t within = column_of(w, p, row) - start;
  *place = 0, *number = 0;
  if (within >= WINDOW) return;
  *place = (uint8_t)(within | (second ? OF_SECOND_ROW : OF_FIRST_ROW));
  *number = w->values[p->next[row]++];
}

static void fill(const weights *w, progress *p, int32_t start, uint8_t *places, float *numbers) {
  for (int step = 0; step < WINDOW_STEPS; step++)
    for (int lane = 0; lane < WINDOW_LANES; lane++) take_next(w, p, lane, start, places++, numbers++);
}

int64_t sparse_rnn_windows(const int32_t *offsets, const uint16_t *columns, const float *values, int64_t gates,
                           int64_t units, int64_t inputs, const int32_t *slot_of_gate, int32_t *ends, uint8_t *sums,
                           uint16_t *starts, uint8_t *places, float *numbers) {
  enum { SIZE = WINDOW_STEPS * WINDOW_LANES };
  weights w = {offsets, columns, values, gates, gates * units, inputs, slot_of_gate};
  uint8_t order[MOST_ROWS], unwanted_places[SIZE];
  float unwanted_numbers[SIZE];
  int64_t windows = 0;
  for (int64_t first = 0; first < w.rows; first += gates * WINDOW_UNITS) {
    order_rows(&w, first, (int)gates * WINDOW_UNITS, order);
    for (int group = 0; group < gates; group++, ends++, sums += WINDOW_ROWS) {
      progress p = begin(&w, first, order, group, sums);
      for (int32_t lowest; (lowest = lowest_column(&w, &p)) != INT32_MAX; windows++) {
        int32_t start = start_of(lowest, inputs);
        if (starts) {
          starts[windows] = (uint16_t)start;
          fill(&w, &p, start, places + windows * SIZE, numbers + windows * SIZE);
        } else {
          fill(&w, &p, start, unwanted_places, unwanted_numbers);
        }
      }
      *ends = (int32_t)windows;
    }
  }
  return windows;
}
