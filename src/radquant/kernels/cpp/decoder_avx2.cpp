// A decoder's arithmetic on processors with AVX2 and FMA: a vector is two registers.

#pragma GCC target("avx2,fma")

#include <immintrin.h>

#include "decoder_levels.h"

namespace radquant {
namespace {

struct V {
  __m256 low, high;
};
constexpr int AT_ONCE = 1;  // vectors of keys or values that MOST_QUERIES queries meet in registers

inline V load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
inline V load_bytes(const int8_t* x) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
inline void store(float* x, V value) {
  _mm256_storeu_ps(x, value.low);
  _mm256_storeu_ps(x + 8, value.high);
}
inline V all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
#define RADQUANT_PAIRWISE(name, call) \
  inline V name(V a, V b) { return {call(a.low, b.low), call(a.high, b.high)}; }
RADQUANT_PAIRWISE(add_to, _mm256_add_ps)
RADQUANT_PAIRWISE(sub, _mm256_sub_ps)
RADQUANT_PAIRWISE(mul, _mm256_mul_ps)
RADQUANT_PAIRWISE(div, _mm256_div_ps)
// A NaN in b is what comes out, one in a is lost.
RADQUANT_PAIRWISE(largest_of, _mm256_max_ps)
RADQUANT_PAIRWISE(least, _mm256_min_ps)
#undef RADQUANT_PAIRWISE
inline V fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline V nearest(V x) {
  return {_mm256_round_ps(x.low, _MM_FROUND_TO_NEAREST_INT | 8),
          _mm256_round_ps(x.high, _MM_FROUND_TO_NEAREST_INT | 8)};
}
// 2^n by its exponent bits, for whole n from -126 to 127.
inline __m256 power(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline V times_power(V x, V n) { return mul(x, {power(n.low), power(n.high)}); }
inline V zero_below(V y, V x, float limit) {
  const __m256 at = _mm256_set1_ps(limit);
  return {_mm256_and_ps(y.low, _mm256_cmp_ps(x.low, at, _CMP_NLT_UQ)),
          _mm256_and_ps(y.high, _mm256_cmp_ps(x.high, at, _CMP_NLT_UQ))};
}
inline __m256 keep_eight(__m256 x, uint32_t lanes) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i kept = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bits);
  const __m256 mask = _mm256_castsi256_ps(_mm256_cmpeq_epi32(kept, bits));
  return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), x, mask);
}
inline V keep_lanes(V x, uint32_t lanes) {
  return {keep_eight(x.low, lanes), keep_eight(x.high, lanes >> 8)};
}
inline uint32_t equal_lanes(V a, V b) {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ));
  return low | _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ)) << 8;
}
inline float sum_of(V x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float maximum_of(V x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}

#include "decoder_math.h"

}  // namespace

const Functions functions_avx2{rms_norm, add, rotate, gated, soft_cap, largest, attend, unpack};

}  // namespace radquant
