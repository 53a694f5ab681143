// Products on processors with AVX-512 (F, BW, VL, VNNI), and with its bfloat16 where there is one.

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c")

#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "levels.h"

namespace radquant {
namespace {

#include "tiles.h"

// Rows of a tile, by the registers that each takes; some are left for the weights.
constexpr int TALLEST = 12, TALLEST_OF_THREE = 8, TALLEST_OF_FOUR = 6;

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

// What the sums of three digits, the lowest first, stand for.
inline __m512 number_of(__m512i first, __m512i second, __m512i third) {
  const __m512 two = _mm512_fmadd_ps(_mm512_cvtepi32_ps(second), _mm512_set1_ps(256.0f),
                                     _mm512_cvtepi32_ps(first));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(third), _mm512_set1_ps(65536.0f), two);
}

// One line of weights times ROWS rows: what the kinds and inputs differ in. A line holds `inputs`
// weights of each channel, which are multiplied by `values` of a row from the k-th on. `add` adds the
// products to the sums of a group, of which each row has `parts`.

// Floats in the fixed point of `digits`: every digit has its own sums, exact within a group. Of few
// rows, low and high halves have their own, too, lest they wait for one another.
template <int ROWS>
struct W4Fixed {
  using Value = int32_t;
  using Sum = __m512i;
  static constexpr int inputs = 8, values = 6, parts = ROWS <= 4 ? 6 : 3;
  static __m512 as_float(const Sum* sums) {
    if constexpr (parts == 3) return number_of(sums[0], sums[1], sums[2]);
    return number_of(_mm512_add_epi32(sums[0], sums[3]), _mm512_add_epi32(sums[1], sums[4]),
                     _mm512_add_epi32(sums[2], sums[5]));
  }
  static void add(__m512i line, const int32_t* const* x, int64_t k, Sum* sums) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i low = _mm512_and_si512(line, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(line, 4), mask);
#pragma GCC unroll 18
    for (int i = 0; i < 3 * ROWS; ++i) {
      const int32_t* words = x[i / 3] + k + i % 3;
      Sum& first = sums[i / 3 * parts + i % 3];
      first = _mm512_dpbusd_epi32(first, low, _mm512_set1_epi32(words[0]));
      Sum& second = sums[i / 3 * parts + parts - 3 + i % 3];
      second = _mm512_dpbusd_epi32(second, high, _mm512_set1_epi32(words[3]));
    }
  }
};

// Each row has two sums, lest a single row's products wait for one another; it has as many beside
// others, because a row's result must not depend on them.
template <int ROWS>
struct W4BF16 {
  using Value = uint16_t;  // in the order 0, 2, 4, 6, 1, 3, 5, 7 of every eight
  using Sum = __m512;
  static constexpr int inputs = 8, values = 8, parts = 2;
  static __m512 as_float(const Sum* sums) { return _mm512_add_ps(sums[0], sums[1]); }
  static void add(__m512i line, const uint16_t* const* x, int64_t k, Sum* sums) {
    const __m512i table = _mm512_load_si512(BFLOAT_NIBBLES);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512bh weights =
          reinterpret_cast<__m512bh>(_mm512_permutexvar_epi16(line, table));
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        Sum& sum = sums[2 * r + i % 2];
        sum = _mm512_dpbf16_ps(sum, weights, two_values(x[r] + k + 2 * i));
      }
      line = _mm512_srli_epi32(line, 4);
    }
  }
};

template <int ROWS>
struct W4I8 {
  using Value = int8_t;
  using Sum = __m512i;
  static constexpr int inputs = 8, values = 8, parts = ROWS <= 4 ? 2 : 1;  // as in W4Fixed
  static __m512 as_float(const Sum* sums) {
    if constexpr (parts == 1) return _mm512_cvtepi32_ps(sums[0]);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(sums[0], sums[parts - 1]));
  }
  static void add(__m512i line, const int8_t* const* x, int64_t k, Sum* sums) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i low = _mm512_and_si512(line, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(line, 4), mask);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      Sum& first = sums[r * parts];
      first = _mm512_dpbusd_epi32(first, low, four_bytes(x[r] + k));
      Sum& second = sums[r * parts + parts - 1];
      second = _mm512_dpbusd_epi32(second, high, four_bytes(x[r] + k + 4));
    }
  }
};

template <int ROWS>
struct W8Fixed {
  using Value = int32_t;
  using Sum = __m512i;
  static constexpr int inputs = 4, values = 3, parts = 3;
  static __m512 as_float(const Sum* sums) { return number_of(sums[0], sums[1], sums[2]); }
  static void add(__m512i line, const int32_t* const* x, int64_t k, Sum* sums) {
#pragma GCC unroll 18
    for (int i = 0; i < 3 * ROWS; ++i)
      sums[i] = _mm512_dpbusd_epi32(sums[i], line, _mm512_set1_epi32(x[i / 3][k + i % 3]));
  }
};

template <int ROWS>
struct W8I8 {
  using Value = int8_t;
  using Sum = __m512i;
  static constexpr int inputs = 4, values = 4;
  static constexpr int parts = 1;
  static __m512 as_float(const Sum* sums) { return _mm512_cvtepi32_ps(*sums); }
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
  static constexpr int inputs = 2, values = 2;
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
  static constexpr int inputs = 2, values = 2;
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
  static constexpr int inputs = 2, values = 2;
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
  static constexpr int inputs = 1, values = 1;
  static void add(__m512i line, const float* const* x, int64_t k, Sum* sums) {
    const __m512 weight = _mm512_castsi512_ps(line);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r)
      sums[r] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x[r][k]), sums[r]);
  }
};

// The nearest bfloat16 of each, ties to even, as floats. NaN may become anything.
inline __m512 as_bfloats(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

inline void write(__m512 values, float* y, int64_t channels) {
  const __mmask16 mask = channels >= BLOCK ? 0xffff : (1u << channels) - 1;
  _mm512_mask_storeu_ps(y, mask, values);
}

// Weights in groups with scales and zeros: one block times ROWS rows. More blocks at once would need
// more streams from memory, which is slower however few rows there are. Without the attribute GCC
// carries loaded values from line to line, and sums to and from memory for want of registers. ANY: of
// integers by group or shifted, too, for which the others would wait at every group.
template <template <int> class Op, int ROWS, bool ANY>
__attribute__((optimize("no-tree-pre")))
void grouped_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                  int64_t stride) {
  using Value = typename Op<ROWS>::Value;
  using Sum = typename Op<ROWS>::Sum;
  constexpr bool fixed = std::is_same_v<Value, int32_t>, integers = std::is_same_v<Value, int8_t>;
  const bool by_group = fixed || (ANY && x.by_group), shifted = ANY && x.zeros;
  // Of shifted integers the last row is that of ones: its products are the weights' sums.
  const int rows = ROWS - shifted;
  const int64_t group = weight.group, groups = weight.in / group;
  const int64_t group_lines = group / Op<ROWS>::inputs;
  const int64_t row_values = groups * group_lines * Op<ROWS>::values;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const Value* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const Value*>(x.values) + (r < rows ? row + r : x.rows) * row_values;
  const float* group_sums = x.sums + row * groups;
  const float* steps = by_group ? x.scales + row * groups : nullptr;
  __m512 totals[ROWS];
  for (__m512& total : totals) total = _mm512_setzero_ps();
  for (int64_t g = 0, k = 0; g < groups; ++g) {
    Sum sums[ROWS * Op<ROWS>::parts];
#pragma GCC unroll 24
    for (int i = 0; i < ROWS * Op<ROWS>::parts; ++i) sums[i] = Sum{};
    const __m512 scale = scales_of(data), zero = zeros_of(data);
    data += LINE;
    for (const uint8_t* end = data + group_lines * LINE; data != end;
         data += LINE, k += Op<ROWS>::values) {
      _mm_prefetch(data + AHEAD, _MM_HINT_T0);
      Op<ROWS>::add(line_at(data), values, k, sums);
    }
    __m512 weights = zero;
    if (shifted) weights = Op<ROWS>::as_float(sums + (ROWS - 1) * Op<ROWS>::parts);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const __m512 of_zero = _mm512_set1_ps(group_sums[r * groups + g]);
      __m512 sum = Op<ROWS>::as_float(sums + r * Op<ROWS>::parts);
      if (shifted) {
        const int64_t place = by_group ? (row + r) * groups + g : row + r;
        sum = _mm512_fnmadd_ps(weights, _mm512_set1_ps(x.zeros[place]), sum);
      }
      sum = _mm512_fnmadd_ps(zero, of_zero, sum);
      __m512 step = scale;
      if (by_group) step = _mm512_mul_ps(step, _mm512_set1_ps(steps[r * groups + g]));
      totals[r] = _mm512_fmadd_ps(sum, step, totals[r]);
    }
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r) {
    if (integers && !by_group)
      totals[r] = _mm512_mul_ps(totals[r], _mm512_set1_ps(x.scales[row + r]));
    if (r < rows) write(totals[r], y + (row + r) * stride + channel, weight.out - channel);
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

template <template <int> class Op, bool ANY = false, int... HEIGHTS>
constexpr Tiles grouped(std::integer_sequence<int, HEIGHTS...>) {
  return {{nullptr, grouped_tile<Op, HEIGHTS + 1, ANY>...}};
}

template <template <int> class Op, int... HEIGHTS>
constexpr Tiles plain(std::integer_sequence<int, HEIGHTS...>) {
  return {{nullptr, plain_tile<Op, HEIGHTS + 1>...}};
}

Tiles tiles_for(const Prepared& x, Kind kind) {
  constexpr std::make_integer_sequence<int, TALLEST> heights;
  constexpr std::make_integer_sequence<int, TALLEST_OF_THREE> of_three;
  constexpr std::make_integer_sequence<int, TALLEST_OF_FOUR> of_four;
  const bool integers = x.format == Input::I8, bfloats = x.format == Input::BF16;
  const bool any = x.by_group || x.zeros;
  switch (kind) {
    case Kind::W4:
      if (integers) return any ? grouped<W4I8, true>(heights) : grouped<W4I8>(heights);
      return bfloats ? grouped<W4BF16>(of_three) : grouped<W4Fixed>(of_four);
    case Kind::W8:
      if (integers) return any ? grouped<W8I8, true>(heights) : grouped<W8I8>(heights);
      return grouped<W8Fixed>(of_four);
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
  const bool three = x.format == Input::BF16 && weight.kind == Kind::W4;
  const int64_t ones = x.zeros ? 1 : 0;
  const int64_t tallest =
      x.format == Input::FIXED ? TALLEST_OF_FOUR : three ? TALLEST_OF_THREE : TALLEST - ones;
  const int64_t step = rows_at_once(weight.in, bytes_of(x.format));
  for (int64_t first = 0; first < x.rows; first += step) {
    const int64_t count = x.rows - first < step ? x.rows - first : step;
    // Blocks outside, rows inside: a block's weights stay in the L1 cache for all of the rows.
    for (int64_t block = begin; block < end; ++block)
      for_each_tile(tallest, first, count, [&](int64_t row, int64_t height) {
        tiles.of_height[height + ones](x, weight, row, block, y, stride);
      });
  }
}

void digits(const float* x, int64_t in, int64_t group, bool bfloats, int32_t* out, float* steps,
            float* sums) {
  const __m512i offset = _mm512_set1_epi32(0x808080);
  // Of each four words, byte i into word i; then those that hold the three digits.
  const __m512i transposed = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
  for (int64_t first = 0; first < in; first += group) {
    const float largest = largest_magnitude(x + first, group);
    const float step = step_of(bfloats ? from_bfloat16(to_bfloat16(largest)) : largest);
    const __m512 inverse = _mm512_set1_ps(1.0f / step);
    __m512i total = _mm512_setzero_si512();
    for (int64_t k = first; k < first + group; k += 16) {
      const bool whole = first + group - k >= 16;
      __m512 value = _mm512_maskz_loadu_ps(whole ? 0xffff : 0xff, x + k);
      if (bfloats) value = as_bfloats(value);
      const __m512i units = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
      const __m512i upper = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(units, 1));
      const __m512i lower = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(units));
      total = _mm512_add_epi64(total, _mm512_add_epi64(lower, upper));
      const __m512i bytes = _mm512_xor_si512(_mm512_add_epi32(units, offset), offset);
      const __m512i words = _mm512_shuffle_epi8(bytes, transposed);
      _mm512_mask_storeu_epi32(out, whole ? 0xfff : 0x3f, _mm512_maskz_compress_epi32(0x7777, words));
      out += whole ? 12 : 6;
    }
    *steps++ = step;
    *sums++ = static_cast<float>(_mm512_reduce_add_epi64(total));
  }
}

void parts(const float* x, int64_t in, uint16_t* out) {
  for (int64_t i = 0; i < in; ++i) {
    float rest = x[i];
    for (int part = 0; part < 3; ++part) {
      out[part * in + i] = to_bfloat16(rest);
      rest -= from_bfloat16(out[part * in + i]);
    }
  }
}

#include "preparing.h"

}  // namespace avx512
}  // namespace radquant
