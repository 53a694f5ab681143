// A decoder's arithmetic on processors with AVX-512.

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

#include <immintrin.h>

#include "decoder_levels.h"

namespace radquant {
namespace {

using V = __m512;
constexpr int AT_ONCE = 4;  // vectors of keys or values that MOST_QUERIES queries meet in registers

inline V load(const float* x) { return _mm512_loadu_ps(x); }
inline V load_bytes(const int8_t* x) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}
inline void store(float* x, V value) { _mm512_storeu_ps(x, value); }
inline V all(float value) { return _mm512_set1_ps(value); }
inline V add_to(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V div(V a, V b) { return _mm512_div_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
// A NaN in b is what comes out, one in a is lost.
inline V largest_of(V a, V b) { return _mm512_max_ps(a, b); }
inline V least(V a, V b) { return _mm512_min_ps(a, b); }
inline V nearest(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | 8); }
inline V times_power(V x, V n) { return _mm512_scalef_ps(x, n); }
inline V zero_below(V y, V x, float limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, all(limit), _CMP_NLT_UQ), y);
}
inline V keep_lanes(V x, uint32_t lanes) {
  return _mm512_mask_mov_ps(all(-__builtin_inff()), static_cast<__mmask16>(lanes), x);
}
inline uint32_t equal_lanes(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline float sum_of(V x) { return _mm512_reduce_add_ps(x); }
inline float maximum_of(V x) { return _mm512_reduce_max_ps(x); }

#include "decoder_math.h"

}  // namespace

const Functions functions_avx512{rms_norm, add, rotate, gated, soft_cap, largest, attend, unpack};

}  // namespace radquant
