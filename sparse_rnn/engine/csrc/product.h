/* The products of a kernel with the states of a tile of WIDTH lanes; included once for each width. */

#if WIDTH == 1
#define TILE_LANES 1
#elif WIDTH * REAL_BYTES < VECTOR_BYTES
#define TILE_LANES WIDTH
#elif VECTOR_BYTES == 16 * REAL_BYTES
#define TILE_LANES 16
#elif VECTOR_BYTES == 8 * REAL_BYTES
#define TILE_LANES 8
#elif VECTOR_BYTES == 4 * REAL_BYTES
#define TILE_LANES 4
#else
#define TILE_LANES 2
#endif
#define TILE_VECTORS (WIDTH / TILE_LANES)
/* Sums that are made side by side: a multiply-add has to wait for the one before it in the same sum. */
#define CHAINS (TILE_VECTORS >= 4 ? 1 : TILE_VECTORS == 2 ? 2 : 4)

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define AT_WIDTH(name) PASTE(name, WIDTH)

#if TILE_LANES == 1
typedef REAL AT_WIDTH(tile);
#else
typedef REAL AT_WIDTH(tile) __attribute__((vector_size(TILE_LANES * REAL_BYTES), aligned(REAL_BYTES), may_alias));
#endif

#if WIDTH == 1
/* Four states are put together to a vector, so that a load brings four weights; the sums are the lanes of a vector. What
 * is left of a row is done by two vectors, whose other lanes are of the next rows and count as 0: how much is left is
 * never the same, and a jump that is guessed wrong costs more. */
#define ACCUMULATE(name, type, number)                                                                                 \
  INLINE void AT_WIDTH(name)(const kernel *k, int64_t row, const REAL *states, REAL sums[CHAINS][TILE_VECTORS]) {      \
    const uint16_t *columns = k->columns;                                                                              \
    const type *values = k->values;                                                                                    \
    quad own[2];                                                                                                       \
    memcpy(own, sums, sizeof own[0]), memset(own + 1, 0, sizeof own[1]);                                               \
    int64_t i = k->offsets[row], end = k->offsets[row + 1];                                                            \
    for (; i + 8 <= end; i += 8)                                                                                       \
      for (int half = 0; half < 8; half += 4)                                                                          \
        own[half / 4] += four_##type(values + i + half) * four_at(states, columns + i + half);                         \
    if (i + 8 <= k->kept)                                                                                              \
      for (int half = 0; half < 8; half += 4)                                                                          \
        own[half / 4] += first_of(end - i - half, four_##type(values + i + half) * four_at(states, columns + i + half)); \
    else                                                                                                               \
      for (; i < end; i++) own[0][0] += number(values[i]) * states[columns[i]];                                        \
    own[0] += own[1];                                                                                                  \
    memcpy(sums, own, sizeof own[0]);                                                                                  \
  }
#else
#define ACCUMULATE(name, type, number)                                                                                 \
  INLINE void AT_WIDTH(name)(const kernel *k, int64_t row, const REAL *states,                                         \
                             AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS]) {                                              \
    typedef AT_WIDTH(tile) part;                                                                                       \
    const uint16_t *columns = k->columns;                                                                              \
    const type *values = k->values;                                                                                    \
    int64_t i = k->offsets[row], end = k->offsets[row + 1];                                                            \
    for (; i + CHAINS <= end; i += CHAINS)                                                                             \
      for (int chain = 0; chain < CHAINS; chain++) {                                                                   \
        REAL value = number(values[i + chain]);                                                                        \
        const part *state = (const part *)(states + (int64_t)columns[i + chain] * WIDTH);                              \
        for (int v = 0; v < TILE_VECTORS; v++) sums[chain][v] += value * state[v];                                     \
      }                                                                                                                \
    for (; i < end; i++) {                                                                                             \
      REAL value = number(values[i]);                                                                                  \
      const part *state = (const part *)(states + (int64_t)columns[i] * WIDTH);                                        \
      for (int v = 0; v < TILE_VECTORS; v++) sums[0][v] += value * state[v];                                           \
    }                                                                                                                  \
  }
#endif

#define AS_IT_IS(value) (value)
ACCUMULATE(accumulate_reals, REAL, AS_IT_IS)
#if !REAL_IS_DOUBLE
ACCUMULATE(accumulate_bfloats, uint16_t, from_bfloat)
ACCUMULATE(accumulate_bytes, int8_t, AS_IT_IS)
#endif
#undef AS_IT_IS
#undef ACCUMULATE

/* GCC makes a memset a slow instruction, and the sums go through memory. */
INLINE void AT_WIDTH(clear)(AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS]) {
  for (int chain = 0; chain < CHAINS; chain++)
    for (int v = 0; v < TILE_VECTORS; v++) sums[chain][v] = (AT_WIDTH(tile)){0};
}

/* sums += a row of the kernel times the states; what has a scale is added up by itself first. The type is k's, spelled
 * out, so that it is not asked for in each row. */
INLINE void AT_WIDTH(accumulate)(int64_t type, const kernel *k, int64_t row, const REAL *states,
                                 AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS]) {
#if REAL_IS_DOUBLE
  (void)type;
#else
  if (type == INT8) {
    AT_WIDTH(tile) own[CHAINS][TILE_VECTORS];
    AT_WIDTH(clear)(own);
    AT_WIDTH(accumulate_bytes)(k, row, states, own);
    for (int chain = 0; chain < CHAINS; chain++)
      for (int v = 0; v < TILE_VECTORS; v++) sums[chain][v] += k->scales[row] * own[chain][v];
    return;
  }
  if (type == BFLOAT16) return AT_WIDTH(accumulate_bfloats)(k, row, states, sums);
#endif
  AT_WIDTH(accumulate_reals)(k, row, states, sums);
}

INLINE void AT_WIDTH(write)(REAL start, AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS], REAL *out) {
  for (int v = 0; v < TILE_VECTORS; v++) {
    AT_WIDTH(tile) sum = sums[0][v];
    for (int chain = 1; chain < CHAINS; chain++) sum += sums[chain][v];
    ((AT_WIDTH(tile) *)out)[v] = sum + start;
  }
}

/* The pre-activations [slots][units of the group * WIDTH] of some units; their order is that of a group. */
INLINE void AT_WIDTH(preactivations_of)(int64_t type, const call *c, int64_t first, int64_t last, const REAL *x,
                                        const REAL *h, const REAL *cells, REAL *out) {
  const REAL *bias = c->bias;
  const kernel *k = c->kernels;
  int gates = gates_of(c->cell), slots = slots_of(c->cell);
  for (int64_t unit = first; unit < last; unit++)
    for (int gate = 0; gate < gates; gate++) {
      int64_t row = unit * gates + gate;
      int slot = slot_of(c->cell, HH, gate);
      REAL *own = out + (unit - first) * WIDTH;
      AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS];
      AT_WIDTH(clear)(sums);
      AT_WIDTH(accumulate)(type, &k[IH], row, x, sums);
      if (slot != gate) {
        AT_WIDTH(write)(bias ? bias[unit * slots + gate] : 0, sums, own + gate * GROUP);
        AT_WIDTH(clear)(sums);
      }
      AT_WIDTH(accumulate)(type, &k[HH], row, h, sums);
      if (k[CH].offsets) AT_WIDTH(accumulate)(type, &k[CH], row, cells, sums);
      AT_WIDTH(write)(bias ? bias[unit * slots + slot] : 0, sums, own + slot * GROUP);
    }
}

/* out [outputs][WIDTH], of some rows: a projection of states. */
INLINE void AT_WIDTH(projection_of)(int64_t type, const kernel *k, int64_t first, int64_t last, const REAL *states,
                                    REAL *out) {
  for (int64_t row = first; row < last; row++) {
    AT_WIDTH(tile) sums[CHAINS][TILE_VECTORS];
    AT_WIDTH(clear)(sums);
    AT_WIDTH(accumulate)(type, k, row, states, sums);
    AT_WIDTH(write)(0, sums, out + row * WIDTH);
  }
}

#if REAL_IS_DOUBLE
#define OF_ITS_TYPE(type, f, ...) f(FLOAT64, __VA_ARGS__);
#else
#define OF_ITS_TYPE(type, f, ...)                                                                                      \
  switch (type) {                                                                                                      \
  case INT8: f(INT8, __VA_ARGS__); break;                                                                              \
  case BFLOAT16: f(BFLOAT16, __VA_ARGS__); break;                                                                      \
  default: f(FLOAT32, __VA_ARGS__);                                                                                    \
  }
#endif

static void AT_WIDTH(preactivations)(const call *c, int64_t first, int64_t last, const REAL *x, const REAL *h,
                                     const REAL *cells, REAL *out) {
  OF_ITS_TYPE(c->kernels[HH].type, AT_WIDTH(preactivations_of), c, first, last, x, h, cells, out)
}

static void AT_WIDTH(projection)(const kernel *k, int64_t first, int64_t last, const REAL *states, REAL *out) {
  OF_ITS_TYPE(k->type, AT_WIDTH(projection_of), k, first, last, states, out)
}

#undef OF_ITS_TYPE

/* out [inputs][WIDTH] += the kernel's transpose times slopes [slots][WIDTH], of some of its inputs. A block of slopes
 * stays in the first-level cache while all inputs read it. */
static void AT_WIDTH(transposed)(const kernel *k, int64_t slots, int64_t first, int64_t last, const REAL *slopes,
                                 REAL *out) {
  typedef AT_WIDTH(tile) part;
  const REAL *values = k->block_values;
  for (int64_t block = 0; block * BLOCK < slots; block++) {
    const int32_t *offsets = k->block_offsets + block * k->inputs;
    for (int64_t column = first; column < last; column++) {
      int64_t i = offsets[column], end = offsets[column + 1];
      if (i == end) continue;
      part *target = (part *)(out + column * WIDTH), sums[TILE_VECTORS];
      for (int v = 0; v < TILE_VECTORS; v++) sums[v] = target[v];
      for (; i < end; i++) {
        const part *slope = (const part *)(slopes + (int64_t)k->block_rows[i] * WIDTH);
        for (int v = 0; v < TILE_VECTORS; v++) sums[v] += values[i] * slope[v];
      }
      for (int v = 0; v < TILE_VECTORS; v++) target[v] = sums[v];
    }
  }
}

#if TILE_LANES == 1
INLINE REAL AT_WIDTH(total)(REAL x) { return x; }
INLINE REAL AT_WIDTH(totals)(const REAL *x) { return x[0]; }
#else
typedef INTEGER AT_WIDTH(places) __attribute__((vector_size(TILE_LANES * REAL_BYTES)));

#define PLACES_OF_LANES PASTE(PLACES, TILE_LANES)
#define CONSTANT(f, half) ((AT_WIDTH(places))PLACES_OF_LANES(f, TILE_LANES, half))

/* Each round adds up halves: of one vector, or of two in one. */
#define TOTAL_ROUND(half)                                                                                              \
  if (TILE_LANES > half) x += SHUFFLED(x, x, CONSTANT(OTHER_HALF, half));
#define TOTALS_ROUND(half)                                                                                             \
  if (TILE_LANES > half)                                                                                               \
    _Pragma("GCC unroll 16") for (int i = 0; i < half; i++)                                                            \
      x[i] = SHUFFLED(x[i], x[i + half], CONSTANT(OWN_HALVES, half)) +                                                 \
             SHUFFLED(x[i], x[i + half], CONSTANT(OTHER_HALVES, half));

INLINE REAL AT_WIDTH(total)(AT_WIDTH(tile) x) {
  TOTAL_ROUND(8)
  TOTAL_ROUND(4)
  TOTAL_ROUND(2)
  TOTAL_ROUND(1)
  return x[0];
}

/* The totals of as many vectors as they have lanes. */
INLINE AT_WIDTH(tile) AT_WIDTH(totals)(AT_WIDTH(tile) x[TILE_LANES]) {
  TOTALS_ROUND(8)
  TOTALS_ROUND(4)
  TOTALS_ROUND(2)
  TOTALS_ROUND(1)
  return x[0];
}

#undef TOTAL_ROUND
#undef TOTALS_ROUND
#undef CONSTANT
#undef PLACES_OF_LANES
#endif

/* Sums of weights that follow each other, of which as many at once are added up over their lanes as a vector has: a row
 * is too short for that, and the next one has another length. */
typedef struct {
  REAL *gradient;
  int64_t first; /* whose sum is the first */
  int count;
  AT_WIDTH(tile) sums[PENDING];
} AT_WIDTH(pending);

INLINE void AT_WIDTH(add_up)(AT_WIDTH(pending) * p) {
  int whole = p->count / TILE_LANES * TILE_LANES;
  for (int i = 0; i < whole; i += TILE_LANES)
    *(AT_WIDTH(tile) *)(p->gradient + p->first + i) += AT_WIDTH(totals)(p->sums + i);
  for (int i = whole; i < p->count; i++) p->gradient[p->first + i] += AT_WIDTH(total)(p->sums[i]);
  p->first += p->count, p->count = 0;
}

/* The gradient of a row's weights += the sum over lanes and over "steps" steps, MOST_TOGETHER at most, of its slopes
 * times the states; from one step to the next it is slope_stride and state_stride numbers. */
INLINE void AT_WIDTH(gradient)(const kernel *k, int64_t row, int steps, const REAL *slopes, int64_t slope_stride,
                               const REAL *states, int64_t state_stride, AT_WIDTH(pending) * p) {
  typedef AT_WIDTH(tile) part;
  part slope[MOST_TOGETHER * TILE_VECTORS];
  for (int step = 0; step < steps; step++)
    for (int v = 0; v < TILE_VECTORS; v++)
      slope[step * TILE_VECTORS + v] = ((const part *)(slopes + step * slope_stride))[v];
  for (int64_t i = k->offsets[row], end = k->offsets[row + 1]; i < end;) {
    int64_t last = end - i < PENDING - p->count ? end : i + PENDING - p->count;
    for (; i < last; i++) {
      const REAL *state = states + (int64_t)k->columns[i] * WIDTH;
      part sum = slope[0] * ((const part *)state)[0];
      for (int v = 1; v < TILE_VECTORS; v++) sum += slope[v] * ((const part *)state)[v];
      for (int step = 1; step < steps; step++)
        for (int v = 0; v < TILE_VECTORS; v++)
          sum += slope[step * TILE_VECTORS + v] * ((const part *)(state + step * state_stride))[v];
      p->sums[p->count++] = sum;
    }
    if (p->count == PENDING) AT_WIDTH(add_up)(p);
  }
}

/* The sum over lanes and steps of the slopes of one slot. */
INLINE REAL AT_WIDTH(sum)(int steps, const REAL *slopes, int64_t slope_stride) {
  typedef AT_WIDTH(tile) part;
  part sum = ((const part *)slopes)[0];
  for (int v = 1; v < TILE_VECTORS; v++) sum += ((const part *)slopes)[v];
  for (int step = 1; step < steps; step++)
    for (int v = 0; v < TILE_VECTORS; v++) sum += ((const part *)(slopes + step * slope_stride))[v];
  return AT_WIDTH(total)(sum);
}

/* The gradients of the weights of some units, and of the biases of slots that the kernel is the first to add to, += what
 * some steps give. */
INLINE void AT_WIDTH(gradients_of)(int steps, const call *c, int role, int64_t begin, int64_t end, const REAL *slopes,
                                   int64_t slope_stride, const REAL *states, int64_t state_stride) {
  const kernel *k = &c->kernels[role];
  int gates = gates_in(c->cell, role), slots = slots_in(c->cell, role);
  REAL *grad_bias = c->grad_bias;
  AT_WIDTH(pending) p;
  p.gradient = k->gradient, p.first = k->offsets[begin * gates], p.count = 0;
  for (int64_t unit = begin; unit < end; unit++)
    for (int gate = 0; gate < gates; gate++) {
      int slot = slot_of(c->cell, role, gate);
      const REAL *own = slopes + (unit * slots + slot) * WIDTH;
      AT_WIDTH(gradient)(k, unit * gates + gate, steps, own, slope_stride, states, state_stride, &p);
      if (grad_bias && (role == IH || (role == HH && slot != gate)))
        grad_bias[unit * slots + slot] += AT_WIDTH(sum)(steps, own, slope_stride);
    }
  AT_WIDTH(add_up)(&p);
}

/* The same; the numbers of steps are spelled out, so that the slopes stay in registers. */
static void AT_WIDTH(gradients)(int steps, const call *c, int role, int64_t begin, int64_t end, const REAL *slopes,
                                int64_t slope_stride, const REAL *states, int64_t state_stride) {
#define OF_STEPS(steps) AT_WIDTH(gradients_of)(steps, c, role, begin, end, slopes, slope_stride, states, state_stride)
  switch (steps) {
  case 4: OF_STEPS(4); break;
  case 3: OF_STEPS(3); break;
  case 2: OF_STEPS(2); break;
  default: OF_STEPS(1);
  }
#undef OF_STEPS
}

#undef WIDTH
#undef TILE_LANES
#undef TILE_VECTORS
#undef CHAINS
#undef AT_WIDTH
#undef PASTE
#undef PASTE_
