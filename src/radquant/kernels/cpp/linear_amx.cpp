// Products on processors with AMX: 16 rows times 16 channels times up to 64 inputs in one instruction.
// Sums of integers within a group are exact. What follows is done in floats, in the order of
// linear_avx512.cpp, so that results are the same to the bit. Sums of bfloat16 are added up in an
// order of AMX's own. So it computes them for any number of rows, lest a row depend on the others.

#include "levels.h"

#if defined(__clang__) ? __has_include(<amxintrin.h>) : __has_include(<amxbf16intrin.h>)

#pragma GCC target("amx-tile,amx-int8,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace radquant {
namespace {

#include "tiles.h"
#include "amx_tiles.h"

int64_t depth_of(int64_t group) { return group % LINE == 0 ? LINE : group; }

// The lines of a group of W4 as those of W8.
void unpack(const uint8_t* from, int64_t group, uint8_t* to) {
  const __m512i mask = _mm512_set1_epi8(15);
  for (int64_t k = 0; k < group; k += 8, from += LINE, to += 2 * LINE) {
    _mm_prefetch(from + AHEAD, _MM_HINT_T0);
    const __m512i line = _mm512_load_si512(from);
    _mm512_store_si512(to, _mm512_and_si512(line, mask));
    _mm512_store_si512(to + LINE, _mm512_and_si512(_mm512_srli_epi32(line, 4), mask));
  }
}

// The lines of a group of W4 as those of BF16, inputs in the order that its activations have.
void unpack_bfloats(const uint8_t* from, int64_t group, uint8_t* to) {
  const __m512i table = _mm512_load_si512(BFLOAT_NIBBLES);
  for (int64_t k = 0; k < group; k += 8, from += LINE, to += 4 * LINE) {
    _mm_prefetch(from + AHEAD, _MM_HINT_T0);
    const __m512i line = _mm512_load_si512(from);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(line, table));
    _mm512_store_si512(to + LINE, _mm512_permutexvar_epi16(_mm512_srli_epi32(line, 4), table));
    _mm512_store_si512(to + 2 * LINE, _mm512_permutexvar_epi16(_mm512_srli_epi32(line, 8), table));
    _mm512_store_si512(to + 3 * LINE, _mm512_permutexvar_epi16(_mm512_srli_epi32(line, 12), table));
  }
}

// Three words for every four values, one for each digit, as one row of bytes for each digit.
void separate(const int32_t* words, int64_t in, int8_t* to) {
  auto* digits = reinterpret_cast<int32_t*>(to);
  for (int64_t k = 0; k < in / 4; ++k)
    for (int d = 0; d < 3; ++d) digits[d * (in / 4) + k] = words[3 * k + d];
}

using Sums = int32_t[2][2 * ROWS][BLOCK];  // of two blocks, of two tiles of rows; floats of bfloat16

// Rows that are multiplied at once by all channels, and bytes of inputs of each, unless a single group
// has more. They stay in the L2 cache. Their totals of two blocks, and a group's weights, stay in the
// L1 cache.
constexpr int64_t GROUPED_ROWS = 128, GROUPED_BYTES = 8192;
constexpr int64_t FEW = 4;  // rows that no tile pays for

// _tile_dpbf16ps takes and makes no numbers that are too small for a float's full precision: 0
// instead. It rounds to the nearest. So does what computes the same meanwhile.
class Flushing {
 public:
  Flushing() { _mm_setcsr((before_ & ~0x6000u) | 0x8040u); }
  ~Flushing() { _mm_setcsr(before_); }

 private:
  const unsigned before_ = _mm_getcsr();
};

struct Header {
  __m512 scales, zeros;
};

inline Header header_of(const uint8_t* data) {
  const auto* header = reinterpret_cast<const __m256i*>(data);
  const __m128i zeros = _mm_load_si128(reinterpret_cast<const __m128i*>(header + 1));
  return {_mm512_cvtph_ps(_mm256_load_si256(header)),
          _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros))};
}

// What follows is for integers of DIGITS digits, or for bfloat16 where there are none.
constexpr int parts_of(int digits) { return digits == 0 ? 1 : digits; }

inline __m512 floats_of(const int32_t* sums) {
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

// As number_of in linear_avx512.cpp.
template <int DIGITS>
inline __m512 number_of(const Sums* sums, int block, int64_t row) {
  if constexpr (DIGITS == 0) return _mm512_load_ps(sums[0][block][row]);
  const __m512 first = floats_of(sums[0][block][row]);
  if constexpr (DIGITS == 1) return first;
  const __m512 two = _mm512_fmadd_ps(floats_of(sums[1 % DIGITS][block][row]),
                                     _mm512_set1_ps(256.0f), first);
  return _mm512_fmadd_ps(floats_of(sums[2 % DIGITS][block][row]), _mm512_set1_ps(65536.0f), two);
}

// A stretch of rows, and of each the groups from `begin` to `end`.
struct Rows {
  int64_t first, count, begin, end;
  const uint8_t* values;       // as pack_row leaves them, each digit's bytes apart
  int64_t tile, part;          // bytes from one tile of rows to the next, from one digit to the next
  int64_t depth;               // bytes of a row in a tile
  const float *sums, *scales;  // those of Prepared, by group first: [groups][count]
};

// Products of a group of two blocks with two tiles of rows, in `steps` tiles of inputs of each digit.
// After each of them the processor is given something else to do that does not wait for it.
template <int DIGITS, typename Work>
inline void multiply_tiles(const uint8_t* values, const Rows& rows, const uint8_t* const* weights,
                           int64_t steps, bool two, Sums* sums, Work meanwhile) {
  write_out(weights[0]);
  for (int part = 0; part < parts_of(DIGITS); ++part, values += rows.part) {
    zero_sums();
    for (int64_t at = 0; at < steps * ROWS * rows.depth; at += ROWS * rows.depth) {
      _tile_loadd(6, weights[0] + at, LINE);
      _tile_loadd(4, values + at, rows.depth);
      _tile_loadd(7, weights[1] + at, LINE);
      if constexpr (DIGITS == 0) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
      } else {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
      }
      if (two) {
        _tile_loadd(5, values + rows.tile + at, rows.depth);
        if constexpr (DIGITS == 0) {
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        } else {
          _tile_dpbsud(2, 5, 6);
          _tile_dpbsud(3, 5, 7);
        }
      }
      meanwhile();
    }
    _tile_stored(0, sums[part][0][0], LINE);
    _tile_stored(1, sums[part][1][0], LINE);
    if (!two) continue;
    _tile_stored(2, sums[part][0][ROWS], LINE);
    _tile_stored(3, sums[part][1][ROWS], LINE);
  }
}

// Sums of two tiles' rows that are not yet in the totals.
struct Pending {
  const Sums* sums;
  Header of_blocks[2];
  const float *of_zeros, *scales;  // [count], as of Rows
  float* totals;                   // [count][2][BLOCK]
  int64_t count;
};

template <int DIGITS>
inline void add_pending(const Pending& pending, int64_t begin, int64_t end) {
#pragma GCC unroll 4
  for (int64_t row = begin; row < end; ++row) {
    const __m512 of_zero = _mm512_set1_ps(pending.of_zeros[row]);
    for (int block = 0; block < 2; ++block) {
      float* total = pending.totals + (2 * row + block) * BLOCK;
      const Header& header = pending.of_blocks[block];
      const __m512 number = number_of<DIGITS>(pending.sums, block, row);
      const __m512 sum = _mm512_fnmadd_ps(header.zeros, of_zero, number);
      __m512 step = header.scales;
      if constexpr (DIGITS == 3) step = _mm512_mul_ps(step, _mm512_set1_ps(pending.scales[row]));
      _mm512_store_ps(total, _mm512_fmadd_ps(sum, step, _mm512_load_ps(total)));
    }
  }
}

// Between totals and two blocks' channels of y. scales: of rows, of what is written; null: none.
template <bool READ>
void copy_totals(const Weight& weight, const Rows& rows, const int64_t* blocks, float* totals,
                 const float* scales, float* y, int64_t stride) {
  for (int64_t row = 0; row < rows.count; ++row)
    for (int i = 0; i < 2; ++i) {
      const __mmask16 mask = channels_from(blocks[i] * BLOCK, weight);
      float* out = y + (rows.first + row) * stride + blocks[i] * BLOCK;
      float* total = totals + (2 * row + i) * BLOCK;
      if constexpr (READ) {
        _mm512_store_ps(total, _mm512_maskz_loadu_ps(mask, out));
        continue;
      }
      __m512 value = _mm512_load_ps(total);
      if (scales) value = _mm512_mul_ps(value, _mm512_set1_ps(scales[rows.first + row]));
      _mm512_mask_storeu_ps(out, mask, value);
    }
}

// Two blocks times a stretch of rows, added to y unless its groups are the first.
template <int DIGITS>
void multiply_groups(const Prepared& x, const Weight& weight, const Rows& rows,
                     const int64_t* blocks, float* y, int64_t stride) {
  static thread_local std::vector<uint8_t> of_totals, of_weights;
  constexpr int PARTS = parts_of(DIGITS), BYTES = DIGITS == 0 ? 2 : 1;
  const bool packed = weight.kind == Kind::W4;
  float* totals = room<float>(of_totals, rows.count * 2 * BLOCK);
  if (rows.begin == 0)
    std::fill(totals, totals + rows.count * 2 * BLOCK, 0.0f);
  else
    copy_totals<true>(weight, rows, blocks, totals, nullptr, y, stride);
  const int64_t row_bytes = x.group * BYTES, unpacked_bytes = row_bytes * BLOCK;
  uint8_t* unpacked = room<uint8_t>(of_weights, packed ? 2 * unpacked_bytes : 0);
  const int64_t group_bytes = LINE + x.group * BLOCK / (packed ? 2 : 1);
  const int64_t steps = row_bytes / rows.depth;
  const int64_t share = (2 * ROWS + PARTS * steps - 1) / (PARTS * steps);
  alignas(64) Sums sums[2][PARTS];  // by turns: one is added to the totals, the other computed
  Pending pending = {};
  int turn = 0;
  for (int64_t g = rows.begin; g < rows.end; ++g) {
    const uint8_t *headers[2], *weights[2];
    for (int i = 0; i < 2; ++i) {
      headers[i] = weight.data + blocks[i] * weight.block_bytes() + g * group_bytes;
      weights[i] = packed ? unpacked + i * unpacked_bytes : headers[i] + LINE;
      if (packed)
        (DIGITS == 0 ? unpack_bfloats : unpack)(headers[i] + LINE, x.group,
                                                unpacked + i * unpacked_bytes);
    }
    const uint8_t* values = rows.values + (g - rows.begin) * row_bytes * ROWS;
    for (int64_t first = 0; first < rows.count; first += 2 * ROWS, values += 2 * rows.tile) {
      int64_t done = 0;
      const auto add_share = [&] {
        const int64_t end = std::min(done + share, pending.count);
        add_pending<DIGITS>(pending, done, end);
        done = end;
      };
      const bool two = first + ROWS < rows.count;
      multiply_tiles<DIGITS>(values, rows, weights, steps, two, sums[turn], add_share);
      const int64_t place = (g - rows.begin) * rows.count + first;
      pending = {sums[turn], {header_of(headers[0]), header_of(headers[1])}, rows.sums + place,
                 rows.scales ? rows.scales + place : nullptr, totals + first * 2 * BLOCK,
                 std::min(2 * ROWS, rows.count - first)};
      turn ^= 1;
    }
  }
  add_pending<DIGITS>(pending, 0, pending.count);
  const bool scaled = DIGITS == 1 && rows.end == x.in / x.group;
  copy_totals<false>(weight, rows, blocks, totals, scaled ? x.scales : nullptr, y, stride);
}

// Rows from `first` on, packed: their inputs of the groups from `begin` to `end`.
template <int DIGITS>
Rows rows_from(const Prepared& x, int64_t first, int64_t count, int64_t begin, int64_t end,
               int64_t depth) {
  static thread_local std::vector<uint8_t> of_values, of_digits, of_sums, of_scales;
  constexpr int64_t PARTS = parts_of(DIGITS), BYTES = DIGITS == 0 ? 2 : 1;
  const int64_t groups = end - begin, inputs = groups * x.group;
  const int64_t tile = inputs * BYTES * ROWS, part = (count + ROWS - 1) / ROWS * tile;
  auto* to = room<uint8_t>(of_values, PARTS * part);
  auto* digits = room<int8_t>(of_digits, DIGITS == 3 ? 3 * inputs : 0);
  auto* sums = room<float>(of_sums, groups * count);
  auto* scales = DIGITS == 3 ? room<float>(of_scales, groups * count) : nullptr;
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t place = (first + row) * (x.in / x.group) + begin + g;
      sums[g * count + row] = x.sums[place];
      if constexpr (DIGITS == 3) scales[g * count + row] = x.scales[place];
    }
    if constexpr (DIGITS == 3) {
      const auto* words = static_cast<const int32_t*>(x.values);
      separate(words + ((first + row) * x.in + begin * x.group) / 4 * 3, inputs, digits);
      for (int64_t d = 0; d < 3; ++d)
        pack_row(reinterpret_cast<const uint8_t*>(digits) + d * inputs, inputs, depth, row, tile,
                 to + d * part);
    } else {
      const auto* bytes = static_cast<const uint8_t*>(x.values);
      bytes += ((first + row) * x.in + begin * x.group) * BYTES;
      pack_row(bytes, inputs * BYTES, depth, row, tile, to);
    }
  }
  return {first, count, begin, end, to, tile, part, depth, sums, scales};
}

template <int DIGITS>
void multiply_grouped(const Prepared& x, const Weight& weight, int64_t begin, int64_t end,
                      float* y, int64_t stride) {
  constexpr int64_t BYTES = DIGITS == 0 ? 2 : parts_of(DIGITS);
  const int64_t depth = DIGITS == 0 ? LINE : depth_of(x.group), groups = x.in / x.group;
  const int64_t at_once = std::max(GROUPED_BYTES / (x.group * BYTES), int64_t{1});
  const int64_t step = rows_of_a_stretch(x.rows, GROUPED_ROWS);
  configure(depth, std::min(x.rows, ROWS));
  for (int64_t g = 0; g < groups; g += at_once)
    for (int64_t first = 0; first < x.rows; first += step) {
      const int64_t count = std::min(step, x.rows - first), last = std::min(groups, g + at_once);
      const Rows rows = rows_from<DIGITS>(x, first, count, g, last, depth);
      for (int64_t block = begin; block < end; block += 2) {
        const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
        multiply_groups<DIGITS>(x, weight, rows, blocks, y, stride);
      }
    }
  _tile_release();
}

// For few rows, a tile's preparation takes longer than its product: what _tile_dpbf16ps does, in its
// order. Of each 32 inputs, the even and the odd ones are added up apart, from 0 on.
template <int N>
void multiply_rows(const Prepared& x, const float* values, const Weight& weight, int64_t block,
                  float* y, int64_t stride) {
  const __m512i table = _mm512_load_si512(BFLOAT_NIBBLES);
  const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const int64_t groups = x.in / x.group;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  __m512 totals[N];
  for (__m512& total : totals) total = _mm512_setzero_ps();
  for (int64_t g = 0, k = 0; g < groups; ++g) {
    const Header header = header_of(data);
    data += LINE;
    __m512 sums[N];
    for (__m512& sum : sums) sum = _mm512_setzero_ps();
    for (const int64_t end = k + x.group; k < end;) {
      __m512 even[N], odd[N];
      for (int r = 0; r < N; ++r) even[r] = odd[r] = _mm512_setzero_ps();
      for (const int64_t last = k + WIDTH; k < last; data += LINE) {
        _mm_prefetch(data + AHEAD, _MM_HINT_T0);
        __m512i line = _mm512_load_si512(data);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i, k += 2) {
          const __m512i two = _mm512_permutexvar_epi16(line, table);
          const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(two, 16));
          const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(two, high));
#pragma GCC unroll 4
          for (int r = 0; r < N; ++r) {
            const float* value = values + r * x.in + k;
            even[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(value[0]), even[r]);
            odd[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(value[1]), odd[r]);
          }
          line = _mm512_srli_epi32(line, 4);
        }
      }
      for (int r = 0; r < N; ++r) sums[r] = _mm512_add_ps(sums[r], _mm512_add_ps(even[r], odd[r]));
    }
    for (int r = 0; r < N; ++r) {
      const __m512 of_zero = _mm512_set1_ps(x.sums[r * groups + g]);
      const __m512 sum = _mm512_fnmadd_ps(header.zeros, of_zero, sums[r]);
      totals[r] = _mm512_fmadd_ps(sum, header.scales, totals[r]);
    }
  }
  const int64_t channel = block * BLOCK;
  const __mmask16 mask = channels_from(channel, weight);
  for (int r = 0; r < N; ++r) _mm512_mask_storeu_ps(y + r * stride + channel, mask, totals[r]);
}

void multiply_few(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                  int64_t stride) {
  static thread_local std::vector<uint8_t> of_values;
  float* values = room<float>(of_values, x.rows * x.in);
  const auto* rounded = static_cast<const uint16_t*>(x.values);
  for (int64_t i = 0; i < x.rows * x.in; ++i) values[i] = from_bfloat16(rounded[i]);
  constexpr decltype(&multiply_rows<1>) of_rows[FEW] = {multiply_rows<1>, multiply_rows<2>,
                                                        multiply_rows<3>, multiply_rows<4>};
  for (int64_t block = begin; block < end; ++block)
    of_rows[x.rows - 1](x, values, weight, block, y, stride);
}

#include "amx_plain.h"

}  // namespace

namespace amx {

// Whether the processor has the instructions and the system lets this process use them.
bool allowed() {
#ifdef RADQUANT_TILES_IN_SOFTWARE  // a test's, which need nothing of the processor
  return true;
#endif
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, integers = d >> 25 & 1, bfloats = d >> 22 & 1;
  constexpr int ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM; the state's number
  return tiles && integers && bfloats && syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}

bool fits(const Prepared& x, const Weight& weight) {
  if (x.format == Input::PARTS) return true;
  if (x.format == Input::BF16)
    return (weight.kind == Kind::BF16 ? x.in : x.group) % (WIDTH) == 0;
  if (x.rows < ROWS || (weight.kind != Kind::W4 && weight.kind != Kind::W8)) return false;
  if (x.group % LINE != 0 && x.group != 32) return false;
  return x.format == Input::FIXED || (x.format == Input::I8 && !x.by_group && !x.zeros);
}

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  if (x.format == Input::FIXED) return multiply_grouped<3>(x, weight, begin, end, y, stride);
  if (x.format == Input::I8) return multiply_grouped<1>(x, weight, begin, end, y, stride);
  const Flushing flushing;
  const auto packed = x.rows > FEW ? multiply_grouped<0> : multiply_few;
  const auto in_parts = weight.kind == Kind::F16 ? multiply_plain<5> : multiply_plain<3>;
  const auto plain = x.format == Input::PARTS ? in_parts : multiply_plain<1>;
  (weight.kind == Kind::W4 ? packed : plain)(x, weight, begin, end, y, stride);
}

}  // namespace amx
}  // namespace radquant

#else  // a compiler that does not know them

namespace radquant::amx {

bool allowed() { return false; }
bool fits(const Prepared&, const Weight&) { return false; }
void multiply_blocks(const Prepared&, const Weight&, int64_t, int64_t, float*, int64_t) {}

}  // namespace radquant::amx

#endif
