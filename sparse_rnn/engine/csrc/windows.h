/* The product of a kernel with the states of one sequence, in AVX-512: states are looked up in registers.
 *
 * A load for each weight's state is what the product over rows waits for. Here the states of a window of columns are
 * four vectors, and a step takes a weight in each lane: of one of the lane's two rows, so that with weights in random
 * places few lanes have none. */
#include <immintrin.h>

INLINE __m512 looked_up(__m512i places, const __m512 *window) {
  __m512 near = _mm512_permutex2var_ps(window[0], places, window[1]);
  __m512 far = _mm512_permutex2var_ps(window[2], places, window[3]);
  return _mm512_mask_blend_ps(_mm512_test_epi32_mask(places, _mm512_set1_epi32(WINDOW / 2)), near, far);
}

/* What the two rows of each lane come to. */
typedef struct {
  __m512 first, second;
} row_sums;

INLINE row_sums add_step(row_sums own, const uint8_t *places, const float *values, const __m512 *window) {
  __m512i place = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)places));
  __m512 value = load(values), state = looked_up(place, window);
  __mmask16 of_second = _mm512_test_epi32_mask(place, _mm512_set1_epi32(OF_SECOND_ROW));
  return (row_sums){_mm512_mask3_fmadd_ps(value, state, own.first, _mm512_movepi32_mask(place)),
                    _mm512_mask3_fmadd_ps(value, state, own.second, of_second)};
}

/* out [slots][units of the block] += the rows of a block times the states. */
static void add_windows(const kernel *k, int64_t block, int64_t gates, const float *states, float *out) {
  for (int64_t group = block * gates; group < (block + 1) * gates; group++) {
    row_sums own = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t i = group ? k->window_ends[group - 1] : 0; i < k->window_ends[group]; i++) {
      const float *from = states + k->window_starts[i];
      __m512 window[] = {load(from), load(from + 16), load(from + 32), load(from + 48)};
      const uint8_t *places = k->window_places + i * WINDOW_STEPS * WINDOW_LANES;
      const float *values = k->window_values + i * WINDOW_STEPS * WINDOW_LANES;
      for (int at = 0; at < WINDOW_STEPS * WINDOW_LANES; at += WINDOW_LANES)
        own = add_step(own, places + at, values + at, window);
    }
    float sums[WINDOW_ROWS];
    store(sums, own.first), store(sums + WINDOW_LANES, own.second);
    for (int row = 0; row < WINDOW_ROWS; row++) out[k->window_sums[group * WINDOW_ROWS + row]] += sums[row];
  }
}

/* The same for a kernel that has no windows. */
static void add_rows(const kernel *k, int64_t cell, int role, int64_t first, int64_t last, const float *states,
                     float *out) {
  int gates = gates_of(cell);
  for (int64_t unit = first; unit < last; unit++)
    for (int gate = 0; gate < gates; gate++) {
      float sums[4][1] = {{0}}, *own = out + slot_of(cell, role, gate) * GROUP + unit - first;
      accumulate_reals_1(k, unit * gates + gate, states, sums);
      write_1(*own, sums, own);
    }
}

/* As preactivations_1 does. */
static void preactivations_by_windows(const call *c, int64_t first, int64_t last, const float *x, const float *h,
                                      const float *cells, float *out) {
  const float *bias = c->bias, *states[] = {x, h, cells};
  int slots = slots_of(c->cell);
  for (int slot = 0; slot < slots; slot++)
    for (int64_t unit = first; unit < last; unit++)
      out[slot * GROUP + unit - first] = bias ? bias[unit * slots + slot] : 0;
  for (int role = IH; role <= CH; role++) {
    const kernel *k = &c->kernels[role];
    if (k->window_ends)
      add_windows(k, first / GROUP, gates_of(c->cell), states[role], out);
    else if (k->offsets)
      add_rows(k, c->cell, role, first, last, states[role], out);
  }
}
