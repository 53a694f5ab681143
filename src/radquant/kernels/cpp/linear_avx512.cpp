// Products on processors with AVX-512 (F, BW, VL, VNNI), and with its bfloat16 where there is one.

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c")

#include <immintrin.h>

#include <utility>

#include "levels.h"

namespace radquant {
namespace {

#include "tiles.h"

constexpr int TALLEST = 12;  // rows of a tile: two registers each, and some for the weights

inline __m512 scales_of(const uint8_t* header) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(header)));
}

inline __m512 zeros_of(const uint8_t* header) {
  const __m128i zeros = _mm_load_si128(reinterpret_cast<const __m128i*>(header + 32));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros));
}

inline __m512i line_at(const uint8_t* data) {
  return _mm512_load_si512(reinterpret_cast<const void*>(data));
}

inline __m512i four_bytes(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}

inline __m512bh two_values(const uint16_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(word));
}

// 0 … 15 as floats, for vpermps, which looks at the low four bits of an index alone; and as bfloat16,
// twice, for vpermw, which looks at the low five.
alignas(64) constexpr float NIBBLES[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
alignas(64) constexpr uint16_t BFLOAT_NIBBLES[32] = {
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
    0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

// Where input k + i of a line of W4 lies: nibble 2·i for i < 4, nibble 2·(i − 4) + 1 for the others.
constexpr int NIBBLE_INPUT[8] = {0, 4, 1, 5, 2, 6, 3, 7};

// One line of weights times ROWS rows: what the kinds and inputs differ in. `inputs` is what a line
// holds of each channel. `add` adds its products to the sums of a group.

template <int ROWS>
struct W4F32 {
  using Value = float;
  using Sum = __m512;
  static constexpr int inputs = 8;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static __m512 as_float(Sum sum) { return sum; }
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512 table = _mm512_load_ps(NIBBLES);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512 weight = _mm512_permutexvar_ps(line, table);
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r)
        sums[r] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x[r][k + NIBBLE_INPUT[i]]), sums[r]);
      line = _mm512_srli_epi32(line, 4);
    }
  }
};

template <int ROWS>
struct W4BF16 {
  using Value = uint16_t;  // in the order 0, 2, 4, 6, 1, 3, 5, 7 of every eight
  using Sum = __m512;
  static constexpr int inputs = 8;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static __m512 as_float(Sum sum) { return sum; }
  static void add(__m512i line, const uint16_t* const* x, int64_t k, Sum* sums) {
    const __m512i table = _mm512_load_si512(BFLOAT_NIBBLES);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512bh weights =
          reinterpret_cast<__m512bh>(_mm512_permutexvar_epi16(line, table));
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r)
        sums[r] = _mm512_dpbf16_ps(sums[r], weights, two_values(x[r] + k + 2 * i));
      line = _mm512_srli_epi32(line, 4);
    }
  }
};

template <int ROWS>
struct W4I8 {
  using Value = int8_t;
  // Sums of few rows would wait for one another: low and high halves have their own then.
  struct Sum {
    __m512i part[ROWS <= 4 ? 2 : 1];
  };
  static constexpr int inputs = 8;
  static Sum nothing() { return {}; }
  static __m512 as_float(const Sum& sum) {
    if constexpr (ROWS <= 4) return _mm512_cvtepi32_ps(_mm512_add_epi32(sum.part[0], sum.part[1]));
    return _mm512_cvtepi32_ps(sum.part[0]);
  }
  static void add(__m512i line, const int8_t* const* x, int64_t k, Sum* sums) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i low = _mm512_and_si512(line, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(line, 4), mask);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      auto& [part] = sums[r];
      part[0] = _mm512_dpbusd_epi32(part[0], low, four_bytes(x[r] + k));
      __m512i& other = part[ROWS <= 4 ? 1 : 0];
      other = _mm512_dpbusd_epi32(other, high, four_bytes(x[r] + k + 4));
    }
  }
};

template <int ROWS>
struct W8F32 {
  using Value = float;
  using Sum = __m512;
  static constexpr int inputs = 4;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static __m512 as_float(Sum sum) { return sum; }
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512i mask = _mm512_set1_epi32(255);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 weight = _mm512_cvtepi32_ps(_mm512_and_si512(line, mask));
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r)
        sums[r] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x[r][k + i]), sums[r]);
      line = _mm512_srli_epi32(line, 8);
    }
  }
};

template <int ROWS>
struct W8I8 {
  using Value = int8_t;
  using Sum = __m512i;
  static constexpr int inputs = 4;
  static Sum nothing() { return _mm512_setzero_si512(); }
  static __m512 as_float(Sum sum) { return _mm512_cvtepi32_ps(sum); }
  static void add(__m512i line, const int8_t* const* x, int64_t k, Sum* sums) {
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r)
      sums[r] = _mm512_dpbusd_epi32(sums[r], line, four_bytes(x[r] + k));
  }
};

template <int ROWS>
struct BF16F32 {
  using Value = float;
  using Sum = __m512;
  static constexpr int inputs = 2;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
    const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(line, 16));
    const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(line, high));
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      sums[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(x[r][k]), sums[r]);
      sums[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(x[r][k + 1]), sums[r]);
    }
  }
};

template <int ROWS>
struct BF16BF16 {
  using Value = uint16_t;
  using Sum = __m512;
  static constexpr int inputs = 2;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static void add(__m512i line, const uint16_t* const* x, int64_t k, Sum* sums) {
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r)
      sums[r] = _mm512_dpbf16_ps(sums[r], reinterpret_cast<__m512bh>(line), two_values(x[r] + k));
  }
};

template <int ROWS>
struct F16F32 {
  using Value = float;
  using Sum = __m512;
  static constexpr int inputs = 2;
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512 first = _mm512_cvtph_ps(_mm512_castsi512_si256(line));
    const __m512 second = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(line, 1));
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      sums[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(x[r][k]), sums[r]);
      sums[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(x[r][k + 1]), sums[r]);
    }
  }
};

template <int ROWS>
struct F32F32 {
  using Value = float;
  using Sum = __m512;
  static constexpr int inputs = 1;
  static Sum nothing() { return _mm512_setzero_ps(); }
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512 weight = _mm512_castsi512_ps(line);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r)
      sums[r] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x[r][k]), sums[r]);
  }
};

inline void write(__m512 values, float* y, int64_t channels) {
  const __mmask16 mask = channels >= BLOCK ? 0xffff : (1u << channels) - 1;
  _mm512_mask_storeu_ps(y, mask, values);
}

// Weights in groups with scales and zeros: one block times ROWS rows. More blocks at once would need
// more streams from memory, which is slower however few rows there are.
template <template <int> class Op, int ROWS>
void grouped_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                  int64_t stride) {
  using Value = typename Op<ROWS>::Value;
  const int64_t group = weight.group, groups = weight.in / group;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const Value* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const Value*>(x.values) + (row + r) * weight.in;
  const float* group_sums = x.sums + row * groups;
  __m512 totals[ROWS];
  for (__m512& total : totals) total = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    typename Op<ROWS>::Sum sums[ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) sums[r] = Op<ROWS>::nothing();
    const __m512 scale = scales_of(data), zero = zeros_of(data);
    data += LINE;
    for (int64_t k = g * group; k < (g + 1) * group; k += Op<ROWS>::inputs, data += LINE) {
      _mm_prefetch(data + AHEAD, _MM_HINT_T0);
      Op<ROWS>::add(line_at(data), values, k, sums);
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const __m512 of_zero = _mm512_set1_ps(group_sums[r * groups + g]);
      const __m512 sum = _mm512_fnmadd_ps(zero, of_zero, Op<ROWS>::as_float(sums[r]));
      totals[r] = _mm512_fmadd_ps(sum, scale, totals[r]);
    }
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r) {
    if (x.scales) totals[r] = _mm512_mul_ps(totals[r], _mm512_set1_ps(x.scales[row + r]));
    write(totals[r], y + (row + r) * stride + channel, weight.out - channel);
  }
}

// Weights that are numbers of their own.
template <template <int> class Op, int ROWS>
void plain_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                int64_t stride) {
  using Value = typename Op<ROWS>::Value;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const Value* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const Value*>(x.values) + (row + r) * weight.in;
  __m512 sums[ROWS];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < weight.in; k += Op<ROWS>::inputs, data += LINE) {
    _mm_prefetch(data + AHEAD, _MM_HINT_T0);
    Op<ROWS>::add(line_at(data), values, k, sums);
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r)
    write(sums[r], y + (row + r) * stride + channel, weight.out - channel);
}

using Tile = void (*)(const Prepared&, const Weight&, int64_t, int64_t, float*, int64_t);

struct Tiles {
  Tile of_height[TALLEST + 1];
};

template <template <int> class Op, int... HEIGHTS>
constexpr Tiles grouped(std::integer_sequence<int, HEIGHTS...>) {
  return {{nullptr, grouped_tile<Op, HEIGHTS + 1>...}};
}

template <template <int> class Op, int... HEIGHTS>
constexpr Tiles plain(std::integer_sequence<int, HEIGHTS...>) {
  return {{nullptr, plain_tile<Op, HEIGHTS + 1>...}};
}

Tiles tiles_for(const Prepared& x, Kind kind) {
  constexpr std::make_integer_sequence<int, TALLEST> heights;
  const bool integers = x.format == Input::I8, bfloats = x.format == Input::BF16;
  switch (kind) {
    case Kind::W4:
      if (integers) return grouped<W4I8>(heights);
      return bfloats ? grouped<W4BF16>(heights) : grouped<W4F32>(heights);
    case Kind::W8: return integers ? grouped<W8I8>(heights) : grouped<W8F32>(heights);
    case Kind::BF16: return bfloats ? plain<BF16BF16>(heights) : plain<BF16F32>(heights);
    case Kind::F16: return plain<F16F32>(heights);
    default: return plain<F32F32>(heights);
  }
}

}  // namespace

namespace avx512 {

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  const Tiles tiles = tiles_for(x, weight.kind);
  const int64_t step = rows_at_once(weight.in, bytes_of(x.format));
  for (int64_t first = 0; first < x.rows; first += step) {
    const int64_t count = x.rows - first < step ? x.rows - first : step;
    // Blocks outside, rows inside: a block's weights stay in the L1 cache for all of the rows.
    for (int64_t block = begin; block < end; ++block)
      for_each_tile<TALLEST>(first, count, [&](int64_t row, int64_t height) {
        tiles.of_height[height](x, weight, row, block, y, stride);
      });
  }
}

#include "preparing.h"

}  // namespace avx512
}  // namespace radquant
