/* A recurrent layer in one direction over whole sequences, by the weights that are kept.
 *
 * The sequences are cut into tiles of at most 32. Within a tile a state is [units][lanes]: the lanes of a unit lie side
 * by side, so that each weight is one broadcast and one multiply-add for all of them. Tiles know nothing of each other.
 *
 * Rows of x, out and their gradients are packed as in torch.nn.utils.rnn.PackedSequence: all sequences of step 0, then
 * those of step 1, ..., longest sequence first. A kernel's rows are ordered by unit, and by gate within a unit.
 */
#ifndef SPARSE_RNN_ENGINE_H
#define SPARSE_RNN_ENGINE_H

#include <stdint.h>

enum { RNN_TANH, RNN_RELU, GRU, LSTM };
enum { FLOAT32, FLOAT64, BFLOAT16, INT8 };
enum { IH, HH, CH, HR, KERNELS };

/* Pre-activations of a unit: its gates, and for the GRU's candidate the part of the input and that of the state. */
enum { MOST_SLOTS = 4 };

/* A weight matrix; absent where offsets is NULL. "columns" and "rows" count inputs, and slots of all units. */
typedef struct {
  const int32_t *offsets;  /* [rows of the kernel + 1] */
  const uint16_t *columns; /* [kept] */
  const void *values;      /* [kept], of the type below */
  const float *scales;     /* [rows of the kernel], for INT8: what to multiply a row's values by */
  /* The transpose in blocks of BLOCK slots: for each block, for each column, the slots that read it. */
  const int32_t *block_offsets; /* [blocks * inputs + 1] */
  const uint16_t *block_rows;   /* [kept], slots of all units */
  const int32_t *block_order;   /* [kept], positions in values */
  void *block_values;           /* [kept], scratch */
  void *gradient;               /* [kept] */
  int64_t inputs;
  int64_t type;
  int64_t kept;
  /* The same weights in the order of sparse_rnn_windows, for one sequence; NULL: none. */
  const int32_t *window_ends;
  const uint8_t *window_sums;
  const uint16_t *window_starts;
  const uint8_t *window_places;
  const float *window_values;
} kernel;

enum { BLOCK = 256 };

/* How many numbers it is from one step of a sequence to the next, and from one sequence to the next. */
typedef struct {
  int64_t step, sequence;
} strides;

typedef struct {
  int64_t cell, type, threads, reverse;
  int64_t even; /* Whether x and grad_out are [steps][batch] with strides; otherwise rows are packed, and step unused */
  int64_t steps, batch, inputs, units, outputs; /* outputs: of the projection, or units */
  strides x_strides, grad_out_strides;
  const int64_t *starts;                        /* [steps]: the row where a step begins */
  const int64_t *lengths;                       /* [batch], falling */
  kernel kernels[KERNELS];
  const void *bias;     /* [units][slots], or NULL */
  const void *peephole; /* [3][units] of i, f, o, or NULL */
  const void *x, *h_0, *c_0;
  void *out, *h_n, *c_n;
  /* All states and gates of all steps; "lanes" is the sum of the widths of the tiles. */
  void *inputs_kept; /* [lanes * steps * inputs] */
  void *h, *c;       /* [lanes * (steps + 1) * outputs or units] */
  void *gates; /* [lanes * steps * (units + 31) * slots]; NULL: not needed */
  void *unprojected; /* [lanes * steps * units], where there is a projection */
  /* Backward */
  const void *grad_out, *grad_h_n, *grad_c_n; /* grad_out NULL: 0 */
  void *slopes; /* [lanes * steps * units * slots]: the gradient of the pre-activations */
  void *grad_states;   /* [lanes * (2 * units + 3 * outputs)], scratch */
  void *input_scratch; /* [threads * inputs * 32], where grad_x is wanted */
  void *projected;   /* [lanes * steps * outputs], where there is a projection: the gradient of the outputs */
  void *grad_x, *grad_h_0, *grad_c_0, *grad_bias, *grad_peephole; /* grad_x NULL: not needed */
} call;

/* Fills the block_* arrays of a kernel: of "rows" rows, whose slots are slot_of_row[row % gates] + slots * (row / gates). */
void sparse_rnn_transpose(const int32_t *offsets, const uint16_t *columns, int64_t rows, int64_t inputs, int64_t gates,
                          int64_t slots, const int32_t *slot_of_gate, int32_t *block_offsets, uint16_t *block_rows,
                          int32_t *block_order);

/* The rows of a mask [gates * units][inputs], by unit and gate: how many each keeps; then which, and where they are. */
void sparse_rnn_count(const uint8_t *mask, int64_t gates, int64_t units, int64_t inputs, int32_t *offsets);
void sparse_rnn_list(const uint8_t *mask, int64_t gates, int64_t units, int64_t inputs, const int32_t *offsets,
                     uint16_t *columns, int32_t *positions);

/* values[i] = dense[positions[i]], and back; for numbers of 4 or 8 bytes. */
void sparse_rnn_take(const void *dense, const int32_t *positions, int64_t kept, int64_t bytes, int64_t threads,
                     void *values);
void sparse_rnn_put(const void *values, const int32_t *positions, int64_t kept, int64_t bytes, int64_t threads,
                    void *dense);

/* A block is the rows of WINDOW_UNITS units, a group of it WINDOW_ROWS rows, two for each of WINDOW_LANES lanes. A group
 * goes through windows of WINDOW columns; in each window a lane takes up to WINDOW_STEPS weights of its rows. */
enum { WINDOW_UNITS = 32, WINDOW_LANES = 16, WINDOW_ROWS = 32, WINDOW = 64, WINDOW_STEPS = 2 };
/* A place is a column of the window and one of these, or 0 where a lane takes no weight. */
enum { OF_FIRST_ROW = 128, OF_SECOND_ROW = 64 };

/* Whether this processor's kernels read windows. */
int sparse_rnn_reads_windows(void);

/* How many windows a kernel of WINDOW inputs or more takes, and, unless starts is NULL, what is in them:
 * ends [groups], the windows of each group and those before it; sums [groups][WINDOW_ROWS], where the sum of a row
 * belongs in [slots][units of the block]; starts [windows], the first column of each; places and numbers
 * [windows][WINDOW_STEPS][WINDOW_LANES]. Groups are as many as gates in each block. */
int64_t sparse_rnn_windows(const int32_t *offsets, const uint16_t *columns, const float *values, int64_t gates,
                           int64_t units, int64_t inputs, const int32_t *slot_of_gate, int32_t *ends, uint8_t *sums,
                           uint16_t *starts, uint8_t *places, float *numbers);

const char *sparse_rnn_backend(void);
int sparse_rnn_select(const char *backend);
void sparse_rnn_forward(const call *);
void sparse_rnn_backward(const call *);

#endif
