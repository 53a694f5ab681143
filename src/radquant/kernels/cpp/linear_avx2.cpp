// Products on processors with AVX2, FMA and F16C. A block of 16 channels is two registers here.

#pragma GCC target("avx2,fma,f16c")

#include <immintrin.h>

#include <type_traits>

#include "levels.h"

namespace radquant {
namespace {

#include "tiles.h"

constexpr int TALLEST = 4;  // rows of a tile: of 16 registers, two a row

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

inline __m256i four_bytes(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

// Where input k + i of a line of W4 lies: nibble 2·i for i < 4, nibble 2·(i − 4) + 1 for the others.
constexpr int NIBBLE_INPUT[8] = {0, 4, 1, 5, 2, 6, 3, 7};

// A kind and what enters it: products of one line (half of its channels) with one row.

template <int BITS>
struct PackedF32 {
  using Value = float;
  using Sums = Floats;
  static constexpr int inputs = 32 / BITS;
  static __m256 as_float(__m256 sum) { return sum; }
  template <int ROWS>
  static void add(__m256i line, int half, const float* const* x, int64_t k, Sums* sums) {
    const __m256i mask = _mm256_set1_epi32((1 << BITS) - 1);
#pragma GCC unroll 8
    for (int i = 0; i < inputs; ++i) {
      const __m256 weight = _mm256_cvtepi32_ps(_mm256_and_si256(line, mask));
      const int64_t place = k + (BITS == 4 ? NIBBLE_INPUT[i] : i);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r)
        sums[r].half[half] =
            _mm256_fmadd_ps(weight, _mm256_set1_ps(x[r][place]), sums[r].half[half]);
      line = _mm256_srli_epi32(line, BITS);
    }
  }
};

struct W4I8 {
  using Value = int8_t;
  using Sums = Integers;
  static constexpr int inputs = 8;
  static __m256 as_float(__m256i sum) { return _mm256_cvtepi32_ps(sum); }
  template <int ROWS>
  static void add(__m256i line, int half, const int8_t* const* x, int64_t k, Sums* sums) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(line, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi32(line, 4), mask);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      // Four products of at most 15 · 127 stay within 16 bits.
      const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, four_bytes(x[r] + k)),
                                             _mm256_maddubs_epi16(high, four_bytes(x[r] + k + 4)));
      sums[r].half[half] =
          _mm256_add_epi32(sums[r].half[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
};

struct W8I8 {
  using Value = int8_t;
  using Sums = Integers;
  static constexpr int inputs = 4;
  static __m256 as_float(__m256i sum) { return _mm256_cvtepi32_ps(sum); }
  template <int ROWS>
  static void add(__m256i line, int half, const int8_t* const* x, int64_t k, Sums* sums) {
    // Products of bytes would overflow 16 bits: even and odd inputs are widened instead.
    const __m256i even = _mm256_and_si256(line, _mm256_set1_epi16(255));
    const __m256i odd = _mm256_srli_epi16(line, 8);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const __m256i values = four_bytes(x[r] + k);
      const __m256i even_x = _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8);
      const __m256i odd_x = _mm256_srai_epi16(values, 8);
      const __m256i products =
          _mm256_add_epi32(_mm256_madd_epi16(even, even_x), _mm256_madd_epi16(odd, odd_x));
      sums[r].half[half] = _mm256_add_epi32(sums[r].half[half], products);
    }
  }
};

struct BF16F32 {
  using Value = float;
  using Sums = Floats;
  static constexpr int inputs = 2;
  template <int ROWS>
  static void add(__m256i line, int half, const float* const* x, int64_t k, Sums* sums) {
    const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(line, 16));
    const __m256 second = _mm256_castsi256_ps(
        _mm256_and_si256(line, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      __m256& sum = sums[r].half[half];
      sum = _mm256_fmadd_ps(first, _mm256_set1_ps(x[r][k]), sum);
      sum = _mm256_fmadd_ps(second, _mm256_set1_ps(x[r][k + 1]), sum);
    }
  }
};

struct F16F32 {
  using Value = float;
  using Sums = Floats;
  static constexpr int inputs = 2;
  // A half of a line is one of its inputs here, of all channels.
  template <int ROWS>
  static void add(__m256i line, int half, const float* const* x, int64_t k, Sums* sums) {
    const __m256 weights[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(line)),
                               _mm256_cvtph_ps(_mm256_extracti128_si256(line, 1))};
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
      for (int of = 0; of < 2; ++of)
        sums[r].half[of] =
            _mm256_fmadd_ps(weights[of], _mm256_set1_ps(x[r][k + half]), sums[r].half[of]);
  }
};

struct F32F32 {
  using Value = float;
  using Sums = Floats;
  static constexpr int inputs = 1;
  template <int ROWS>
  static void add(__m256i line, int half, const float* const* x, int64_t k, Sums* sums) {
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
      sums[r].half[half] = _mm256_fmadd_ps(_mm256_castsi256_ps(line), _mm256_set1_ps(x[r][k]),
                                           sums[r].half[half]);
  }
};

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

// ANY: of integers by group or shifted, too, for which the others would wait at every group.
template <typename Op, int ROWS, bool ANY>
void grouped_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                  int64_t stride) {
  using Value = typename Op::Value;
  constexpr bool integers = std::is_same_v<Value, int8_t>;
  const bool by_group = ANY && x.by_group, shifted = ANY && x.zeros;
  // Of shifted integers the last row is that of ones: its products are the weights' sums.
  const int rows = ROWS - shifted;
  const int64_t group = weight.group, groups = weight.in / group;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const Value* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const Value*>(x.values) + (r < rows ? row + r : x.rows) * weight.in;
  const float* group_sums = x.sums + row * groups;
  Floats totals[ROWS] = {};
  for (int64_t g = 0; g < groups; ++g) {
    typename Op::Sums sums[ROWS] = {};
    const Floats scale = scales_of(data), zero = zeros_of(data);
    data += LINE;
    for (int64_t k = g * group; k < (g + 1) * group; k += Op::inputs, data += LINE) {
      if (ROWS <= 2) _mm_prefetch(data + AHEAD, _MM_HINT_T0);
      const Integers line = line_at(data);
      Op::template add<ROWS>(line.half[0], 0, values, k, sums);
      Op::template add<ROWS>(line.half[1], 1, values, k, sums);
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const __m256 of_zero = _mm256_set1_ps(group_sums[r * groups + g]);
      const int64_t place = by_group ? (row + r) * groups + g : row + r;
      for (int half = 0; half < 2; ++half) {
        __m256 sum = Op::as_float(sums[r].half[half]);
        if (shifted)
          sum = _mm256_fnmadd_ps(Op::as_float(sums[ROWS - 1].half[half]),
                                 _mm256_set1_ps(x.zeros[place]), sum);
        sum = _mm256_fnmadd_ps(zero.half[half], of_zero, sum);
        __m256 step = scale.half[half];
        if (by_group) step = _mm256_mul_ps(step, _mm256_set1_ps(x.scales[place]));
        totals[r].half[half] = _mm256_fmadd_ps(sum, step, totals[r].half[half]);
      }
    }
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r) {
    Floats total = totals[r];
    if (integers && !by_group)
      for (__m256& half : total.half) half = _mm256_mul_ps(half, _mm256_set1_ps(x.scales[row + r]));
    if (r < rows) write(total, y + (row + r) * stride + channel, weight.out - channel);
  }
}

template <typename Op, int ROWS>
void plain_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                int64_t stride) {
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const float* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const float*>(x.values) + (row + r) * weight.in;
  Floats sums[ROWS] = {};
  for (int64_t k = 0; k < weight.in; k += Op::inputs, data += LINE) {
    if (ROWS <= 2) _mm_prefetch(data + AHEAD, _MM_HINT_T0);
    const Integers line = line_at(data);
    Op::template add<ROWS>(line.half[0], 0, values, k, sums);
    Op::template add<ROWS>(line.half[1], 1, values, k, sums);
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r)
    write(sums[r], y + (row + r) * stride + channel, weight.out - channel);
}

using Tile = void (*)(const Prepared&, const Weight&, int64_t, int64_t, float*, int64_t);

template <typename Op, bool ANY = false>
Tile grouped(int64_t rows) {
  constexpr Tile tiles[] = {grouped_tile<Op, 1, ANY>, grouped_tile<Op, 2, ANY>,
                            grouped_tile<Op, 3, ANY>, grouped_tile<Op, 4, ANY>};
  return tiles[rows - 1];
}

template <typename Op>
Tile plain(int64_t rows) {
  constexpr Tile tiles[] = {plain_tile<Op, 1>, plain_tile<Op, 2>, plain_tile<Op, 3>,
                            plain_tile<Op, 4>};
  return tiles[rows - 1];
}

Tile tile_for(const Prepared& x, Kind kind, int64_t rows) {
  const bool integers = x.format == Input::I8, any = x.by_group || x.zeros;
  switch (kind) {
    case Kind::W4:
      if (integers) return any ? grouped<W4I8, true>(rows) : grouped<W4I8>(rows);
      return grouped<PackedF32<4>>(rows);
    case Kind::W8:
      if (integers) return any ? grouped<W8I8, true>(rows) : grouped<W8I8>(rows);
      return grouped<PackedF32<8>>(rows);
    case Kind::BF16: return plain<BF16F32>(rows);
    case Kind::F16: return plain<F16F32>(rows);
    default: return plain<F32F32>(rows);
  }
}

}  // namespace

namespace avx2 {

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  const int64_t step = rows_at_once(weight.in, bytes_of(x.format)), ones = x.zeros ? 1 : 0;
  for (int64_t first = 0; first < x.rows; first += step) {
    const int64_t count = x.rows - first < step ? x.rows - first : step;
    for (int64_t block = begin; block < end; ++block)
      for_each_tile(TALLEST - ones, first, count, [&](int64_t row, int64_t height) {
        tile_for(x, weight.kind, height + ones)(x, weight, row, block, y, stride);
      });
  }
}

#include "preparing.h"

}  // namespace avx2
}  // namespace radquant
