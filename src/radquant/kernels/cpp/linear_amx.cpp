// Products of integers on processors with AMX: 16 rows times 16 channels times up to 64 inputs in one
// instruction. Sums of integers within a group are exact, and what follows is done in floats in the
// order of linear_avx512.cpp, so that results are the same to the bit.

#include "levels.h"

#if defined(__clang__) ? __has_include(<amxintrin.h>) : __has_include(<amxint8intrin.h>)

#pragma GCC target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace radquant {
namespace {

#include "tiles.h"

constexpr int64_t ROWS = 16;     // of a tile
constexpr int64_t DEEPEST = 64;  // inputs of a tile
constexpr int64_t FEWEST = 64;   // rows that share weights that are unpacked, if there are as many

// Two tiles of rows times two blocks of channels: four sums at once, lest one wait for another. Tiles
// 0 to 3 hold the sums, 4 and 5 the rows, 6 and 7 the weights. Intrinsics take literal numbers alone.
constexpr int SUMS = 4, WEIGHTS = 6, TILES = 8;

// GCC's intrinsics do not say what memory they read: it must be written before them.
inline void write_out(const void* place) { asm volatile("" : : "r"(place) : "memory"); }

struct Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// A tile of weights holds four inputs of each channel in a row, as a line of W8 does.
void configure(int64_t depth) {
  Configuration tiles;
  for (int tile = 0; tile < TILES; ++tile) {
    const bool values = SUMS <= tile && tile < WEIGHTS;
    tiles.row_bytes[tile] = static_cast<uint16_t>(values ? depth : LINE);
    tiles.rows[tile] = static_cast<uint8_t>(tile < WEIGHTS ? ROWS : depth / 4);
  }
  write_out(&tiles);
  _tile_loadconfig(&tiles);
}

int64_t depth_of(int64_t group) { return group % DEEPEST == 0 ? DEEPEST : group; }

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

// Three words for every four values, one for each digit, as one row of bytes for each digit.
void separate(const int32_t* words, int64_t in, int8_t* to) {
  auto* digits = reinterpret_cast<int32_t*>(to);
  for (int64_t k = 0; k < in / 4; ++k)
    for (int d = 0; d < 3; ++d) digits[d * (in / 4) + k] = words[3 * k + d];
}

using Sums = int32_t[2][2][ROWS][BLOCK];  // of each tile of rows, of each block

// values: of two tiles of rows, `stride` bytes apart. weights: a group of two blocks, as of W8.
inline void multiply_integers(const int8_t* const* values, int64_t stride,
                              const uint8_t* const* weights, int64_t group, int64_t depth,
                              Sums& sums) {
  write_out(weights[0]);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < group; k += depth) {
    _tile_loadd(6, weights[0] + k / 4 * LINE, LINE);
    _tile_loadd(4, values[0] + k, stride);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, weights[1] + k / 4 * LINE, LINE);
    _tile_dpbsud(1, 4, 7);
    _tile_loadd(5, values[1] + k, stride);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums[0][0], LINE);
  _tile_stored(1, sums[0][1], LINE);
  _tile_stored(2, sums[1][0], LINE);
  _tile_stored(3, sums[1][1], LINE);
}

inline __m512 floats_of(const int32_t* sums) {
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

// As number_of in linear_avx512.cpp.
template <int DIGITS>
inline __m512 number_of(const Sums* sums, int tile, int block, int row) {
  const __m512 first = floats_of(sums[0][tile][block][row]);
  if constexpr (DIGITS == 1) return first;
  const __m512 two = _mm512_fmadd_ps(floats_of(sums[1 % DIGITS][tile][block][row]),
                                     _mm512_set1_ps(256.0f), first);
  return _mm512_fmadd_ps(floats_of(sums[2 % DIGITS][tile][block][row]), _mm512_set1_ps(65536.0f),
                         two);
}

// A stretch of rows with their digits, each digit's bytes `apart` from the last one's.
struct Rows {
  int64_t first, count;  // at least ROWS
  const int8_t* values;
  int64_t stride, apart;
};

// One group of two blocks times all rows. totals: [rows.count][2][BLOCK].
template <int DIGITS>
void add_group(const Prepared& x, const Rows& rows, int64_t g, const uint8_t* const* headers,
               const uint8_t* const* weights, int64_t depth, float* totals) {
  const int64_t groups = x.in / x.group;
  __m512 scales[2], zeros[2];
  for (int block = 0; block < 2; ++block) {
    const auto* header = reinterpret_cast<const __m256i*>(headers[block]);
    scales[block] = _mm512_cvtph_ps(_mm256_load_si256(header));
    const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(header + 1));
    zeros[block] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  alignas(64) Sums sums[2][DIGITS];  // by turns, lest a product wait until the last one is read
  int64_t done = 0;
  for (int turn = 0; done < rows.count; turn ^= 1) {
    // The last tiles begin early enough to be whole: rows of both are added by one of them alone.
    const int64_t left = rows.count - done;
    const int64_t first = left < ROWS ? rows.count - ROWS : done;
    const int64_t second = left < 2 * ROWS ? rows.count - ROWS : done + ROWS;
    const int64_t starts[2] = {first, second};
    const int64_t fresh[2] = {done, left < ROWS ? rows.count : done + ROWS};
    for (int digit = 0; digit < DIGITS; ++digit) {
      const int8_t* from = rows.values + digit * rows.apart + g * x.group;
      const int8_t* values[2] = {from + first * rows.stride, from + second * rows.stride};
      multiply_integers(values, rows.stride, weights, x.group, depth, sums[turn][digit]);
    }
    for (int tile = 0; tile < 2; ++tile) {
      const int64_t end = starts[tile] + ROWS;
      for (int64_t row = fresh[tile]; row < end; ++row) {
        const int64_t place = (rows.first + row) * groups + g;
        const __m512 of_zero = _mm512_set1_ps(x.sums[place]);
        float* total = totals + row * 2 * BLOCK;
        for (int block = 0; block < 2; ++block, total += BLOCK) {
          const __m512 number =
              number_of<DIGITS>(sums[turn], tile, block, static_cast<int>(row - starts[tile]));
          const __m512 sum = _mm512_fnmadd_ps(zeros[block], of_zero, number);
          __m512 step = scales[block];
          if constexpr (DIGITS == 3) step = _mm512_mul_ps(step, _mm512_set1_ps(x.scales[place]));
          _mm512_store_ps(total, _mm512_fmadd_ps(sum, step, _mm512_load_ps(total)));
        }
      }
    }
    done += 2 * ROWS;
  }
}

// `size` values that begin at a line; room for them is kept from call to call.
template <typename Value>
Value* room(std::vector<uint8_t>& bytes, int64_t size) {
  bytes.resize(std::max<size_t>(bytes.size(), size * sizeof(Value) + LINE));
  const auto place = reinterpret_cast<uintptr_t>(bytes.data());
  return reinterpret_cast<Value*>(bytes.data() + (LINE - place % LINE) % LINE);
}

// Two blocks times a stretch of rows.
template <int DIGITS>
void multiply_blocks_by(const Prepared& x, const Weight& weight, const Rows& rows,
                        const int64_t* blocks, int64_t depth, float* y, int64_t stride) {
  static thread_local std::vector<uint8_t> of_totals, of_weights;
  const bool packed = weight.kind == Kind::W4;
  float* totals = room<float>(of_totals, rows.count * 2 * BLOCK);
  std::fill(totals, totals + rows.count * 2 * BLOCK, 0.0f);
  uint8_t* unpacked = room<uint8_t>(of_weights, packed ? 2 * x.group * BLOCK : 0);
  const int64_t group_bytes = LINE + x.group * BLOCK / (packed ? 2 : 1);
  for (int64_t g = 0; g < x.in / x.group; ++g) {
    const uint8_t *headers[2], *weights[2];
    for (int i = 0; i < 2; ++i) {
      headers[i] = weight.data + blocks[i] * weight.block_bytes() + g * group_bytes;
      weights[i] = packed ? unpacked + i * x.group * BLOCK : headers[i] + LINE;
      if (packed) unpack(headers[i] + LINE, x.group, unpacked + i * x.group * BLOCK);
    }
    add_group<DIGITS>(x, rows, g, headers, weights, depth, totals);
  }
  for (int64_t row = 0; row < rows.count; ++row)
    for (int i = 0; i < 2; ++i) {
      const int64_t channel = blocks[i] * BLOCK, left = weight.out - channel;
      const __mmask16 mask = left >= BLOCK ? 0xffff : (1u << left) - 1;
      __m512 total = _mm512_load_ps(totals + (2 * row + i) * BLOCK);
      if constexpr (DIGITS == 1)
        total = _mm512_mul_ps(total, _mm512_set1_ps(x.scales[rows.first + row]));
      _mm512_mask_storeu_ps(y + (rows.first + row) * stride + channel, mask, total);
    }
}

template <int DIGITS>
Rows rows_from(const Prepared& x, int64_t first, int64_t count) {
  if constexpr (DIGITS == 1)
    return {first, count, static_cast<const int8_t*>(x.values) + first * x.in, x.in, 0};
  static thread_local std::vector<uint8_t> of_digits;
  auto* digits = room<int8_t>(of_digits, count * 3 * x.in);
  for (int64_t row = 0; row < count; ++row)
    separate(static_cast<const int32_t*>(x.values) + (first + row) * (x.in / 4 * 3), x.in,
             digits + row * 3 * x.in);
  return {first, count, digits, 3 * x.in, x.in};
}

template <int DIGITS>
void multiply_with(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                   int64_t stride) {
  const int64_t depth = depth_of(x.group);
  const int64_t fitting = rows_at_once(x.in, DIGITS) / ROWS * ROWS;
  const int64_t step = fitting < FEWEST ? FEWEST : fitting;
  configure(depth);
  for (int64_t first = 0; first < x.rows;) {
    // No stretch is left that is shorter than a tile.
    const int64_t left = x.rows - first, count = left < step + ROWS ? left : step;
    const Rows rows = rows_from<DIGITS>(x, first, count);
    for (int64_t block = begin; block < end; block += 2) {
      const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
      multiply_blocks_by<DIGITS>(x, weight, rows, blocks, depth, y, stride);
    }
    first += count;
  }
  _tile_release();
}

}  // namespace

namespace amx {

// Whether the processor has the instructions and the system lets this process use them.
bool allowed() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, integers = d >> 25 & 1;
  constexpr int ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM; the state's number
  return tiles && integers && syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}

bool fits(const Prepared& x, const Weight& weight) {
  if (x.rows < ROWS || (weight.kind != Kind::W4 && weight.kind != Kind::W8)) return false;
  if (x.group % DEEPEST != 0 && x.group != 32) return false;
  return x.format == Input::FIXED || (x.format == Input::I8 && !x.by_group && !x.zeros);
}

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  (x.format == Input::FIXED ? multiply_with<3> : multiply_with<1>)(x, weight, begin, end, y, stride);
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
