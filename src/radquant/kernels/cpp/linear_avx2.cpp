// Products on processors with AVX2, FMA and F16C. A block of 16 channels is two registers here.

#pragma GCC target("avx2,fma,f16c")

#include <immintrin.h>

#include "levels.h"

namespace radquant {
namespace {

#include "tiles.h"

struct Floats {
  __m256 half[2];
};
struct Integers {
  __m256i half[2];
};

inline Integers line_at(const uint8_t* data) {
  const __m256i* line = reinterpret_cast<const __m256i*>(data);
  return {{_mm256_load_si256(line), _mm256_load_si256(line + 1)}};
}

inline Floats scales_of(const uint8_t* header) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(header);
  return {{_mm256_cvtph_ps(_mm_load_si128(halves)), _mm256_cvtph_ps(_mm_load_si128(halves + 1))}};
}

inline Floats zeros_of(const uint8_t* header) {
  const __m128i zeros = _mm_load_si128(reinterpret_cast<const __m128i*>(header + 32));
  return {{_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(zeros)),
           _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(zeros, 8)))}};
}

inline Floats read(const float* y, int64_t channels) {
  if (channels >= BLOCK) return {{_mm256_loadu_ps(y), _mm256_loadu_ps(y + 8)}};
  float all[BLOCK] = {};
  __builtin_memcpy(all, y, channels * sizeof(float));
  return {{_mm256_loadu_ps(all), _mm256_loadu_ps(all + 8)}};
}

inline void write(const Floats& values, float* y, int64_t channels) {
  if (channels >= BLOCK) {
    _mm256_storeu_ps(y, values.half[0]);
    _mm256_storeu_ps(y + 8, values.half[1]);
    return;
  }
  float all[BLOCK];
  _mm256_storeu_ps(all, values.half[0]);
  _mm256_storeu_ps(all + 8, values.half[1]);
  __builtin_memcpy(y, all, channels * sizeof(float));
}

#include "avx2_floats.h"
#include "avx2_integers.h"

using Multiply = void (*)(const Prepared&, const Weight&, int64_t, int64_t, float*, int64_t);

Multiply multiply_of(const Prepared& x, Kind kind) {
  const bool integers = x.format == Input::I8;
  switch (kind) {
    case Kind::W4: return integers ? multiply_integers<Nibbles> : multiply_floats<Packed<4>>;
    case Kind::W8: return integers ? multiply_integers<Bytes> : multiply_floats<Packed<8>>;
    case Kind::BF16: return multiply_floats<BFloats>;
    case Kind::F16: return multiply_floats<Halves>;
    default: return multiply_floats<Singles>;
  }
}

}  // namespace

namespace avx2 {

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  multiply_of(x, weight.kind)(x, weight, begin, end, y, stride);
}

#include "preparing.h"

}  // namespace avx2
}  // namespace radquant
