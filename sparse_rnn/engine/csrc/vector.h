/* Vectors of the widest kind that this file is compiled for, and the functions of a gate on them.
 *
 * REAL is float or double, VECTOR_BYTES the width of a register. A group is what the gates are computed on at once. */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))

enum { GROUP = 32 };
#define VECTORS (GROUP / LANES)

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES)));
typedef INTEGER ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL quad __attribute__((vector_size(4 * sizeof(REAL))));

/* Places in two vectors after each other, as constants: only those become one instruction. f(lanes, half, i) gives that
 * of each lane i. */
#define PLACES_2(f, lanes, half) {f(lanes, half, 0), f(lanes, half, 1)}
#define PLACES_4(f, lanes, half) {f(lanes, half, 0), f(lanes, half, 1), f(lanes, half, 2), f(lanes, half, 3)}
#define PLACES_8(f, lanes, half)                                                                                       \
  {f(lanes, half, 0), f(lanes, half, 1), f(lanes, half, 2), f(lanes, half, 3),                                         \
   f(lanes, half, 4), f(lanes, half, 5), f(lanes, half, 6), f(lanes, half, 7)}
#define PLACES_16(f, lanes, half)                                                                                      \
  {f(lanes, half, 0),  f(lanes, half, 1),  f(lanes, half, 2),  f(lanes, half, 3),                                      \
   f(lanes, half, 4),  f(lanes, half, 5),  f(lanes, half, 6),  f(lanes, half, 7),                                      \
   f(lanes, half, 8),  f(lanes, half, 9),  f(lanes, half, 10), f(lanes, half, 11),                                     \
   f(lanes, half, 12), f(lanes, half, 13), f(lanes, half, 14), f(lanes, half, 15)}

#define OTHER_HALF(lanes, half, i) ((i) ^ (half))
/* Two vectors to be added up in one: the lanes of the first half are the first vector's, the others the second's. */
#define OWN_HALVES(lanes, half, i) ((i) & (half) ? (lanes) + (i) : (i))
#define OTHER_HALVES(lanes, half, i) ((i) & (half) ? (lanes) + (i) - (half) : (i) + (half))
/* Two rows of a square of blocks of half numbers, to be transposed. */
#define FIRST_BLOCKS(lanes, half, i) ((i) & (half) ? (lanes) + (i) - (half) : (i))
#define SECOND_BLOCKS(lanes, half, i) ((i) & (half) ? (lanes) + (i) : (i) + (half))

/* Clang has no __builtin_shuffle, and older GCC no __builtin_shufflevector. */
#if defined(__clang__)
#define SHUFFLED(a, b, places)                                                                                         \
  ({                                                                                                                   \
    __typeof__(a) a_ = (a), b_ = (b), made_;                                                                           \
    __typeof__(places) places_ = (places);                                                                             \
    const int lanes_ = sizeof a_ / sizeof a_[0];                                                                       \
    for (int i_ = 0; i_ < lanes_; i_++)                                                                                \
      made_[i_] = places_[i_] < lanes_ ? a_[places_[i_]] : b_[places_[i_] - lanes_];                                   \
    made_;                                                                                                             \
  })
#else
#define SHUFFLED(a, b, places) __builtin_shuffle(a, b, places)
#endif

INLINE vec load(const REAL *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store(REAL *p, vec v) { memcpy(p, &v, sizeof v); }

INLINE vec either(ivec condition, vec yes, vec no) {
  return (vec)((condition & (ivec)yes) | (~condition & (ivec)no));
}

INLINE vec smaller(vec a, vec b) { return either(a < b, a, b); }
INLINE vec greater(vec a, vec b) { return either(a > b, a, b); }

#if REAL_IS_DOUBLE
INLINE vec exponential(vec x) {
  for (int i = 0; i < LANES; i++) x[i] = exp(x[i]);
  return x;
}
INLINE vec hyperbolic_tangent(vec x) {
  for (int i = 0; i < LANES; i++) x[i] = tanh(x[i]);
  return x;
}
#else
/* 2^n e^r, n whole and |r| <= log(2) / 2, e^r by its polynomial of degree 7 (relative error below 2e-7). */
INLINE vec exponential(vec x) {
  const vec zero = {0};
  /* NaN passes through: a comparison with it is false. */
  vec clipped = either(x > 88.0f, zero + 88.0f, either(x < -87.0f, zero - 87.0f, x));
  vec shifted = clipped * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to whole numbers */
  ivec n = (ivec)shifted - 0x4B400000;
  vec whole = shifted - 12582912.0f;
  vec r = clipped - whole * 0.693359375f + whole * 2.12194440e-4f;
  vec p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * (vec)((n + 127) << 23);
}

/* By the exponential; near 0, where that loses digits, by the polynomial of the Cephes library. */
INLINE vec hyperbolic_tangent(vec x) {
  vec far = 1.0f - 2.0f / (exponential(x + x) + 1.0f);
  vec z = x * x, zero = {0};
  vec p = zero - 5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  vec near = x + x * z * p;
  return either(z < 0.390625f, near, far);
}
#endif

INLINE vec sigmoid(vec x) { return (REAL)1 / ((REAL)1 + exponential(-x)); }
