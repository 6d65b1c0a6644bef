/* A layer over whole sequences, forwards and backwards; compiled once for each processor and each type of numbers. */
#include "engine.h"
#include "threads.h"

#if REAL_IS_DOUBLE
#define REAL double
#define REAL_BYTES 8
#define INTEGER int64_t
#else
#define REAL float
#define REAL_BYTES 4
#define INTEGER int32_t
#endif

#include "vector.h"

#include "cells.h"

enum { WIDEST = 32, MOST_TOGETHER = 4, PENDING = 64, SECOND_LEVEL_CACHE = 1024 * 1024 };

#if !REAL_IS_DOUBLE
INLINE float from_bfloat(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Several numbers are read as one, the first of them from its lowest bits."
#endif

typedef INTEGER four_places __attribute__((vector_size(4 * sizeof(REAL))));

/* Of four columns, which are one load, as loads are what the product of one sequence waits for. */
INLINE quad four_at(const REAL *states, const uint16_t *columns) {
  uint64_t four;
  memcpy(&four, columns, sizeof four);
  return (quad){states[four & 0xFFFF], states[four >> 16 & 0xFFFF], states[four >> 32 & 0xFFFF], states[four >> 48]};
}

/* The others become 0, whatever they are. */
INLINE quad first_of(int64_t count, quad numbers) {
  const four_places places = {0, 1, 2, 3};
  return (quad)((four_places)numbers & (places < (INTEGER)count));
}

/* Four weights as they are stored. */
INLINE quad four_REAL(const REAL *values) {
  quad four;
  memcpy(&four, values, sizeof four);
  return four;
}

#if !REAL_IS_DOUBLE
INLINE quad four_uint16_t(const uint16_t *values) {
  return (quad){from_bfloat(values[0]), from_bfloat(values[1]), from_bfloat(values[2]), from_bfloat(values[3])};
}

INLINE quad four_int8_t(const int8_t *values) {
  INTEGER four;
  memcpy(&four, values, sizeof four);
  const four_places shifts = {24, 16, 8, 0};
  return __builtin_convertvector(((four_places){four, four, four, four} << shifts) >> 24, quad);
}
#endif

#define WIDTH 1
#include "product.h"
#define WIDTH 4
#include "product.h"
#define WIDTH 8
#include "product.h"
#define WIDTH 16
#include "product.h"
#define WIDTH 32
#include "product.h"

#define AT_ITS_WIDTH(width, call)                                                                                      \
  switch (width) {                                                                                                     \
  case 1: call(1); break;                                                                                              \
  case 4: call(4); break;                                                                                              \
  case 8: call(8); break;                                                                                              \
  case 16: call(16); break;                                                                                            \
  default: call(32);                                                                                                   \
  }

#if VECTOR_BYTES == 64 && !REAL_IS_DOUBLE
#include "windows.h"
#endif

static void preactivations(const call *c, int64_t width, int64_t first, int64_t last, const REAL *x, const REAL *h,
                           const REAL *cells, REAL *out) {
#if VECTOR_BYTES == 64 && !REAL_IS_DOUBLE
  if (width == 1 && (c->kernels[IH].window_ends || c->kernels[HH].window_ends)) {
    preactivations_by_windows(c, first, last, x, h, cells, out);
    return;
  }
#endif
#define CALL(width) preactivations_##width(c, first, last, x, h, cells, out)
  AT_ITS_WIDTH(width, CALL)
#undef CALL
}

typedef struct {
  int64_t first, count, width, steps;
} tile;

/* What is shared by the threads of a call. */
typedef struct {
  const call *c;
  int64_t tiles;
  barrier all;
  barrier *teams; /* [threads] */
} work;

static int64_t tiles_of(int64_t batch) { return (batch + WIDEST - 1) / WIDEST; }

static int64_t width_for(int64_t count) {
  return count > 16 ? 32 : count > 8 ? 16 : count > 4 ? 8 : count > 1 ? 4 : 1;
}

static tile tile_at(const call *c, int64_t index) {
  int64_t first = index * WIDEST, left = c->batch - first, count = left < WIDEST ? left : WIDEST;
  return (tile){first, count, width_for(count), c->lengths[first]};
}

/* All tiles before one are of the widest kind. */
static REAL *within(void *all, tile t, int64_t per_lane) { return (REAL *)all + t.first * per_lane; }

static int64_t in_order_of_time(const call *c, int64_t sequence, int64_t step) {
  return c->reverse ? c->lengths[sequence] - 1 - step : step;
}

static const REAL *row_read(const call *c, const REAL *rows, strides s, int64_t sequence, int64_t step) {
  int64_t at = in_order_of_time(c, sequence, step);
  return rows + (c->even ? at * s.step : c->starts[at] * s.sequence) + sequence * s.sequence;
}

static REAL *row_written(const call *c, REAL *rows, int64_t size, int64_t sequence, int64_t step) {
  return rows + (c->starts[in_order_of_time(c, sequence, step)] + sequence) * size;
}

static int64_t running(const call *c, tile t, int64_t step) {
  int64_t count = t.count;
  while (count > 0 && c->lengths[t.first + count - 1] <= step) count--;
  return count;
}

enum { SQUARE = 8 };

typedef REAL square_row __attribute__((vector_size(SQUARE * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef INTEGER square_places __attribute__((vector_size(SQUARE * sizeof(REAL))));

/* Exchanges rows and columns of a square of 8 numbers by 8, in three rounds of pairs. */
#define TRANSPOSE_ROUND(half)                                                                                          \
  _Pragma("GCC unroll 8") for (int i = 0; i < SQUARE; i++) if (!(i & half)) {                                          \
    square_row a = r[i], b = r[i + half];                                                                              \
    r[i] = SHUFFLED(a, b, ((square_places)PLACES_8(FIRST_BLOCKS, SQUARE, half)));                                      \
    r[i + half] = SHUFFLED(a, b, ((square_places)PLACES_8(SECOND_BLOCKS, SQUARE, half)));                              \
  }

INLINE void transpose_square(square_row r[SQUARE]) {
  TRANSPOSE_ROUND(4)
  TRANSPOSE_ROUND(2)
  TRANSPOSE_ROUND(1)
}

/* Rows [size] to [size][lanes], of some of their numbers; lanes without a row are 0. */
static void gather_rows(const call *c, tile t, int64_t step, const REAL *rows, strides s, int64_t first, int64_t last,
                        REAL *out) {
  int64_t count = running(c, t, step), W = t.width;
  if (count < W) memset(out + first * W, 0, (last - first) * W * sizeof(REAL));
  const REAL *row[WIDEST];
  for (int64_t lane = 0; lane < count; lane++) row[lane] = row_read(c, rows, s, t.first + lane, step);
  for (int64_t lane = 0; lane < count; lane += SQUARE)
    for (int64_t from = first; from < last; from += SQUARE) {
      if (lane + SQUARE <= count && from + SQUARE <= last) {
        square_row square[SQUARE];
        for (int i = 0; i < SQUARE; i++) square[i] = *(const square_row *)(row[lane + i] + from);
        transpose_square(square);
        for (int i = 0; i < SQUARE; i++) *(square_row *)(out + (from + i) * W + lane) = square[i];
      } else {
        for (int64_t i = lane; i < lane + SQUARE && i < count; i++)
          for (int64_t k = from; k < from + SQUARE && k < last; k++) out[k * W + i] = row[i][k];
      }
    }
}

static void gather_grad_out(const call *c, tile t, int64_t step, int64_t first, int64_t last, REAL *out) {
  if (c->grad_out)
    gather_rows(c, t, step, c->grad_out, c->grad_out_strides, first, last, out);
  else if (step == t.steps - 1)
    memset(out + first * t.width, 0, (last - first) * t.width * sizeof(REAL));
}

static void scatter_rows(const call *c, tile t, int64_t step, const REAL *in, int64_t size, REAL *rows) {
  int64_t count = running(c, t, step), W = t.width;
  REAL *row[WIDEST];
  for (int64_t lane = 0; lane < count; lane++) row[lane] = row_written(c, rows, size, t.first + lane, step);
  for (int64_t lane = 0; lane < count; lane += SQUARE)
    for (int64_t from = 0; from < size; from += SQUARE) {
      if (lane + SQUARE <= count && from + SQUARE <= size) {
        square_row square[SQUARE];
        for (int i = 0; i < SQUARE; i++) square[i] = *(const square_row *)(in + (from + i) * W + lane);
        transpose_square(square);
        for (int i = 0; i < SQUARE; i++) *(square_row *)(row[lane + i] + from) = square[i];
      } else {
        for (int64_t i = lane; i < lane + SQUARE && i < count; i++)
          for (int64_t k = from; k < from + SQUARE && k < size; k++) row[i][k] = in[k * W + i];
      }
    }
}

/* States [batch][size] to [size][lanes], or back. */
static void gather_states(tile t, const REAL *states, int64_t size, REAL *out) {
  memset(out, 0, size * t.width * sizeof(REAL));
  for (int64_t lane = 0; lane < t.count; lane++)
    for (int64_t i = 0; i < size; i++) out[i * t.width + lane] = states[(t.first + lane) * size + i];
}

static void scatter_states(tile t, const REAL *in, int64_t size, REAL *states) {
  for (int64_t lane = 0; lane < t.count; lane++)
    for (int64_t i = 0; i < size; i++) states[(t.first + lane) * size + i] = in[i * t.width + lane];
}

/* The rows before a unit, weighed by what they cost. */
static int64_t cost_before(const call *c, int64_t unit) {
  int64_t row = unit * gates_of(c->cell), cost = 16 * unit;
  for (int role = IH; role <= CH; role++)
    if (c->kernels[role].offsets) cost += c->kernels[role].offsets[row];
  return cost;
}

/* Where the units of a member of a team begin; whole groups, so that each group is of one member. */
static int64_t first_unit(const call *c, int64_t per_group, int member, int members) {
  if (member == members) return c->units;
  int64_t wanted = cost_before(c, c->units) * member / members, low = 0, high = c->units / per_group;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (cost_before(c, middle * per_group) < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low * per_group;
}

static void spread_peephole(const call *c, int64_t first, int64_t last, int64_t width, group *g) {
  const REAL *peephole = c->peephole;
  for (int gate = 0; gate < 3; gate++)
    for (int64_t unit = first; unit < last; unit++)
      for (int64_t lane = 0; lane < width; lane++)
        g->peephole[gate][(unit - first) * width + lane] = peephole[gate * c->units + unit];
}

/* What stays as it was: the states of sequences that are over. */
static void keep_ended(int64_t units, int64_t width, int64_t count, const REAL *before, REAL *after) {
  for (int64_t unit = 0; unit < units; unit++)
    memcpy(after + unit * width + count, before + unit * width + count, (width - count) * sizeof(REAL));
}

/* A row of GROUP numbers, by vectors: a memcpy of a constant size moves 16 bytes at a time. */
INLINE void copy_whole(REAL *to, const REAL *from) {
  EACH_VECTOR store(to + at, load(from + at));
}

/* Nearly always a whole group. */
INLINE void copy_group(REAL *to, const REAL *from, int64_t size) {
  if (size == GROUP)
    copy_whole(to, from);
  else
    memcpy(to, from, size * sizeof(REAL));
}

typedef struct {
  int member, members;
  barrier *waits;
} team;

static void tile_forward(const call *c, tile t, team own) {
  int64_t W = t.width, H = c->units, P = c->outputs, per_group = GROUP / W, slots = slots_of(c->cell);
  int64_t groups = (H + per_group - 1) / per_group;
  int64_t begin = first_unit(c, per_group, own.member, own.members);
  int64_t end = first_unit(c, per_group, own.member + 1, own.members);
  int projected = c->kernels[HR].offsets != NULL, has_c = c->cell == LSTM;
  REAL *X = within(c->inputs_kept, t, c->steps * c->inputs), *Hs = within(c->h, t, (c->steps + 1) * P);
  REAL *Cs = has_c ? within(c->c, t, (c->steps + 1) * H) : NULL;
  REAL *G = c->gates ? within(c->gates, t, c->steps * (H + 31) * slots) : NULL;
  REAL *U = projected ? within(c->unprojected, t, c->steps * H) : NULL;
  int64_t out_begin = P * own.member / own.members, out_end = P * (own.member + 1) / own.members;
  group g;
  memset(&g, 0, sizeof g);
  for (int64_t step = 0; step < t.steps; step++) {
    int64_t count = running(c, t, step);
    const REAL *x = X + step * c->inputs * W, *h_before = Hs + step * P * W;
    const REAL *c_before = has_c ? Cs + step * H * W : NULL;
    REAL *h = projected ? U + step * H * W : Hs + (step + 1) * P * W, *cells = has_c ? Cs + (step + 1) * H * W : NULL;
    for (int64_t unit = begin; unit < end; unit += per_group) {
      int64_t last = unit + per_group < H ? unit + per_group : H, size = (last - unit) * W;
      preactivations(c, W, unit, last, x, h_before, c_before, g.pre[0]);
      if (!projected) copy_group(g.h_before, h_before + unit * W, size);
      if (has_c) copy_group(g.c_before, c_before + unit * W, size);
      if (c->peephole) spread_peephole(c, unit, last, W, &g);
      cell_forward(c->cell, c->peephole != NULL, &g);
      if (count < W) {
        if (!projected) keep_ended(last - unit, W, count, g.h_before, g.h);
        if (has_c) keep_ended(last - unit, W, count, g.c_before, g.c);
      }
      copy_group(h + unit * W, g.h, size);
      if (has_c) copy_group(cells + unit * W, g.c, size);
      for (int slot = 0; G && slot < slots; slot++)
        copy_whole(G + ((step * groups + unit / per_group) * slots + slot) * GROUP, g.pre[slot]);
    }
    wait_for(own.waits, own.members);
    if (projected) {
      REAL *out = Hs + (step + 1) * P * W;
#define CALL(width) projection_##width(&c->kernels[HR], out_begin, out_end, h, out)
      AT_ITS_WIDTH(W, CALL)
#undef CALL
      if (count < W)
        keep_ended(out_end - out_begin, W, count, h_before + out_begin * W, out + out_begin * W);
      wait_for(own.waits, own.members);
    }
  }
}

static void tile_backward(const call *c, tile t, team own) {
  int64_t W = t.width, H = c->units, P = c->outputs, per_group = GROUP / W, slots = slots_of(c->cell);
  int64_t groups = (H + per_group - 1) / per_group;
  int64_t begin = first_unit(c, per_group, own.member, own.members);
  int64_t end = first_unit(c, per_group, own.member + 1, own.members);
  int projected = c->kernels[HR].offsets != NULL, has_c = c->cell == LSTM;
  const REAL *Hs = within(c->h, t, (c->steps + 1) * P), *Cs = has_c ? within(c->c, t, (c->steps + 1) * H) : NULL;
  const REAL *G = c->gates ? within(c->gates, t, c->steps * (H + 31) * slots) : NULL;
  REAL *S = within(c->slopes, t, c->steps * H * slots);
  REAL *D = projected ? within(c->projected, t, c->steps * P) : NULL;
  /* Of h: now, before, and what is given for it; of c, in place; of what is projected. */
  REAL *grad_h = within(c->grad_states, t, 2 * H + 3 * P), *grad_before = grad_h + P * W;
  REAL *grad_out = grad_before + P * W, *grad_c = grad_out + P * W, *grad_unprojected = grad_c + H * W;
  int64_t out_begin = P * own.member / own.members, out_end = P * (own.member + 1) / own.members;
  if (own.member == 0) {
    gather_states(t, c->grad_h_n, P, grad_h);
    if (has_c) gather_states(t, c->grad_c_n, H, grad_c);
  }
  wait_for(own.waits, own.members);
  group g;
  memset(&g, 0, sizeof g);
  for (int64_t step = t.steps - 1; step >= 0; step--) {
    int64_t count = running(c, t, step);
    REAL *slopes = S + step * H * slots * W;
    if (projected) {
      REAL *grad = D + step * P * W;
      gather_grad_out(c, t, step, out_begin, out_end, grad_out);
      for (int64_t unit = out_begin; unit < out_end; unit++)
        for (int64_t lane = 0; lane < W; lane++) {
          int64_t i = unit * W + lane;
          grad[i] = lane < count ? grad_h[i] + grad_out[i] : 0;
          grad_before[i] = lane < count ? 0 : grad_h[i];
        }
      wait_for(own.waits, own.members);
      memset(grad_unprojected + begin * W, 0, (end - begin) * W * sizeof(REAL));
#define CALL(width) transposed_##width(&c->kernels[HR], P, begin, end, grad, grad_unprojected)
      AT_ITS_WIDTH(W, CALL)
#undef CALL
    } else {
      gather_grad_out(c, t, step, begin, end, grad_out);
    }
    for (int64_t unit = begin; unit < end; unit += per_group) {
      int64_t last = unit + per_group < H ? unit + per_group : H, size = (last - unit) * W;
      for (int slot = 0; G && slot < slots; slot++)
        copy_whole(g.pre[slot], G + ((step * groups + unit / per_group) * slots + slot) * GROUP);
      if (projected) {
        copy_group(g.grad_h, grad_unprojected + unit * W, size);
      } else {
        copy_group(g.h_before, Hs + (step * P + unit) * W, size);
        copy_group(g.h, Hs + ((step + 1) * P + unit) * W, size);
        copy_group(g.grad_h, grad_h + unit * W, size);
        copy_group(g.grad_out, grad_out + unit * W, size);
        EACH_VECTOR store(g.grad_h + at, load(g.grad_h + at) + load(g.grad_out + at));
      }
      if (has_c) {
        copy_group(g.c_before, Cs + (step * H + unit) * W, size);
        copy_group(g.c, Cs + ((step + 1) * H + unit) * W, size);
        copy_group(g.grad_c, grad_c + unit * W, size);
      }
      if (c->peephole) spread_peephole(c, unit, last, W, &g);
      cell_backward(c->cell, c->peephole != NULL, &g);
      if (count < W) {
        if (!projected) keep_ended(last - unit, W, count, g.grad_h, g.grad_h_before);
        if (has_c) keep_ended(last - unit, W, count, g.grad_c, g.grad_c_before);
        for (int slot = 0; slot < slots; slot++)
          for (int64_t i = 0; i < last - unit; i++)
            memset(g.slopes[slot] + i * W + count, 0, (W - count) * sizeof(REAL));
      }
      if (!projected) copy_group(grad_before + unit * W, g.grad_h_before, size);
      if (has_c) copy_group(grad_c + unit * W, g.grad_c_before, size);
      for (int64_t i = unit; i < last; i++)
        for (int slot = 0; slot < slots; slot++)
          copy_group(slopes + (i * slots + slot) * W, g.slopes[slot] + (i - unit) * W, W);
    }
    wait_for(own.waits, own.members);
#define CALL(width) transposed_##width(&c->kernels[HH], H * slots, out_begin, out_end, slopes, grad_before)
    AT_ITS_WIDTH(W, CALL)
#undef CALL
    if (c->kernels[CH].offsets) {
      int64_t from = H * own.member / own.members, to = H * (own.member + 1) / own.members;
#define CALL(width) transposed_##width(&c->kernels[CH], H * slots, from, to, slopes, grad_c)
      AT_ITS_WIDTH(W, CALL)
#undef CALL
    }
    wait_for(own.waits, own.members);
    REAL *old = grad_h;
    grad_h = grad_before, grad_before = old;
  }
  if (own.member == 0) {
    scatter_states(t, grad_h, P, c->grad_h_0);
    if (has_c) scatter_states(t, grad_c, H, c->grad_c_0);
  }
}

/* The gradients of some rows of a kernel, and of the biases of slots that it is the first to add to. */
static void kernel_gradients(const call *c, int role, int64_t begin, int64_t end) {
  const kernel *k = &c->kernels[role];
  if (!k->offsets) return;
  int64_t gates = gates_in(c->cell, role), slots_all = role == HR ? c->outputs : c->units * slots_in(c->cell, role);
  int64_t first = k->offsets[begin * gates], kept = k->offsets[end * gates] - first;
  if (kept > 0) memset((REAL *)k->gradient + first, 0, kept * sizeof(REAL)); /* where nothing is kept it is NULL */
  void *read = role == IH ? c->inputs_kept : role == HH ? c->h : role == CH ? c->c : c->unprojected;
  int64_t kept_steps = role == HH || role == CH ? c->steps + 1 : c->steps;
  for (int64_t index = 0; index < tiles_of(c->batch); index++) {
    tile t = tile_at(c, index);
    int64_t state_stride = k->inputs * t.width, slope_stride = slots_all * t.width;
    const REAL *states = within(read, t, kept_steps * k->inputs);
    const REAL *slopes = within(role == HR ? c->projected : c->slopes, t, c->steps * slots_all);
    int64_t fitting = SECOND_LEVEL_CACHE / (state_stride * (int64_t)sizeof(REAL));
    int64_t together = fitting < 1 ? 1 : fitting > MOST_TOGETHER ? MOST_TOGETHER : fitting;
    for (int64_t step = 0; step < t.steps; step += together) {
      int steps = (int)(step + together < t.steps ? together : t.steps - step);
#define CALL(width) gradients_##width(steps, c, role, begin, end, slopes + step * slope_stride, slope_stride, states + step * state_stride, state_stride)
      AT_ITS_WIDTH(t.width, CALL)
#undef CALL
    }
  }
}

static void peephole_gradients(const call *c, int64_t begin, int64_t end) {
  REAL *grad = c->grad_peephole;
  for (int gate = 0; gate < 3; gate++)
    for (int64_t unit = begin; unit < end; unit++) {
      REAL sum = 0;
      for (int64_t index = 0; index < tiles_of(c->batch); index++) {
        tile t = tile_at(c, index);
        const REAL *cells = within(c->c, t, (c->steps + 1) * c->units);
        const REAL *slopes = within(c->slopes, t, c->steps * c->units * 4);
        for (int64_t step = 0; step < t.steps; step++) {
          /* The output gate reads the new cell state, the others the one before. */
          const REAL *read = cells + ((step + (gate == 2)) * c->units + unit) * t.width;
          const REAL *own = slopes + ((step * c->units + unit) * 4 + (gate == 2 ? 3 : gate)) * t.width;
          for (int64_t lane = 0; lane < t.width; lane++) sum += own[lane] * read[lane];
        }
      }
      grad[gate * c->units + unit] = sum;
    }
}

/* Teams of threads take tiles in turn; where tiles are too few to keep all threads busy, all are one team. */
static void each_tile(work *w, int thread, int threads, void (*f)(const call *, tile, team)) {
  int64_t teams = w->tiles % threads == 0 || w->tiles > 4 * threads ? threads : 1;
  team own = {thread / (int)teams, threads / (int)teams, &w->teams[thread % teams]};
  for (int64_t index = thread % teams; index < w->tiles; index += teams) f(w->c, tile_at(w->c, index), own);
}

static void forward_thread(void *data, int thread, int threads) {
  work *w = data;
  const call *c = w->c;
  for (int64_t item = thread; item < w->tiles * c->steps; item += threads) {
    tile t = tile_at(c, item % w->tiles);
    int64_t step = item / w->tiles;
    if (step < t.steps)
      gather_rows(c, t, step, c->x, c->x_strides, 0, c->inputs,
                  within(c->inputs_kept, t, c->steps * c->inputs) + step * c->inputs * t.width);
  }
  for (int64_t index = thread; index < w->tiles; index += threads) {
    tile t = tile_at(c, index);
    gather_states(t, c->h_0, c->outputs, within(c->h, t, (c->steps + 1) * c->outputs));
    if (c->cell == LSTM) gather_states(t, c->c_0, c->units, within(c->c, t, (c->steps + 1) * c->units));
  }
  wait_for(&w->all, threads);
  each_tile(w, thread, threads, tile_forward);
  wait_for(&w->all, threads);
  for (int64_t item = thread; item < w->tiles * c->steps; item += threads) {
    tile t = tile_at(c, item % w->tiles);
    int64_t step = item / w->tiles;
    if (step < t.steps)
      scatter_rows(c, t, step, within(c->h, t, (c->steps + 1) * c->outputs) + (step + 1) * c->outputs * t.width,
                   c->outputs, c->out);
  }
  for (int64_t index = thread; index < w->tiles; index += threads) {
    tile t = tile_at(c, index);
    scatter_states(t, within(c->h, t, (c->steps + 1) * c->outputs) + t.steps * c->outputs * t.width, c->outputs, c->h_n);
    if (c->cell == LSTM)
      scatter_states(t, within(c->c, t, (c->steps + 1) * c->units) + t.steps * c->units * t.width, c->units, c->c_n);
  }
}

static void order_values(const kernel *k, int64_t first, int64_t last) {
  REAL *ordered = k->block_values;
  const REAL *values = k->values;
  for (int64_t i = first; i < last; i++) ordered[i] = values[k->block_order[i]];
}

static void backward_thread(void *data, int thread, int threads) {
  work *w = data;
  const call *c = w->c;
  int gates = gates_of(c->cell);
  int64_t slots = slots_of(c->cell);
  for (int role = IH; role < KERNELS; role++) {
    const kernel *k = &c->kernels[role];
    if (!k->offsets || (role == IH && !c->grad_x)) continue;
    int64_t kept = k->offsets[role == HR ? c->outputs : c->units * gates];
    order_values(k, kept * thread / threads, kept * (thread + 1) / threads);
  }
  wait_for(&w->all, threads);
  each_tile(w, thread, threads, tile_backward);
  wait_for(&w->all, threads);
  if (c->grad_x)
    for (int64_t item = thread; item < w->tiles * c->steps; item += threads) {
      tile t = tile_at(c, item % w->tiles);
      int64_t step = item / w->tiles;
      if (step >= t.steps) continue;
      REAL *scratch = (REAL *)c->input_scratch + thread * c->inputs * WIDEST;
      const REAL *slopes = within(c->slopes, t, c->steps * c->units * slots) + step * c->units * slots * t.width;
      memset(scratch, 0, c->inputs * t.width * sizeof(REAL));
#define CALL(width) transposed_##width(&c->kernels[IH], c->units * slots, 0, c->inputs, slopes, scratch)
      AT_ITS_WIDTH(t.width, CALL)
#undef CALL
      scatter_rows(c, t, step, scratch, c->inputs, c->grad_x);
    }
  int64_t begin = first_unit(c, 1, thread, threads), end = first_unit(c, 1, thread + 1, threads);
  if (c->grad_bias) memset((REAL *)c->grad_bias + begin * slots, 0, (end - begin) * slots * sizeof(REAL));
  for (int role = IH; role <= CH; role++) kernel_gradients(c, role, begin, end);
  kernel_gradients(c, HR, c->outputs * thread / threads, c->outputs * (thread + 1) / threads);
  if (c->grad_peephole) peephole_gradients(c, begin, end);
}

#define NAME_(backend, type, what) sparse_rnn_##what##_##backend##_##type
#define NAME(backend, type, what) NAME_(backend, type, what)

static void run(const call *c, void (*f)(void *, int, int)) {
  int threads = c->threads > 1 ? (int)c->threads : 1;
  barrier teams[threads];
  memset(teams, 0, sizeof teams);
  work w = {.c = c, .tiles = tiles_of(c->batch), .teams = teams};
  run_parallel(f, &w, threads);
}

void NAME(BACKEND, REAL, forward)(const call *c) { run(c, forward_thread); }
void NAME(BACKEND, REAL, backward)(const call *c) { run(c, backward_thread); }
