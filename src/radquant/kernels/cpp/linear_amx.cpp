// Products on processors with AMX: 16 rows times 16 channels times up to 64 inputs in one instruction.
// Sums of integers within a group are exact, and what follows is done in floats in the order of
// linear_avx512.cpp, so that results are the same to the bit. Those of bfloat16 are added up in an
// order of AMX's own. So it computes them for any number of rows, lest a row depend on the others.

#include "levels.h"

#if defined(__clang__) ? __has_include(<amxintrin.h>) : __has_include(<amxbf16intrin.h>)

#pragma GCC target("amx-tile,amx-int8,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

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

// A tile of weights holds four bytes of each channel in a row, as lines of W8 and BF16 do. bytes: of
// the inputs of a row that a tile takes.
void configure(int64_t bytes, int64_t rows = ROWS) {
  Configuration tiles;
  for (int tile = 0; tile < TILES; ++tile) {
    const bool values = SUMS <= tile && tile < WEIGHTS;
    tiles.row_bytes[tile] = static_cast<uint16_t>(values ? bytes : LINE);
    tiles.rows[tile] = static_cast<uint8_t>(tile < WEIGHTS ? rows : bytes / 4);
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

using Sums = int32_t[2][2][ROWS][BLOCK];  // of each tile of rows, of each block; floats of bfloat16

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void store_sums(Sums& sums) {
  _tile_stored(0, sums[0][0], LINE);
  _tile_stored(1, sums[0][1], LINE);
  _tile_stored(2, sums[1][0], LINE);
  _tile_stored(3, sums[1][1], LINE);
}

// values: of two tiles of rows, `stride` bytes apart. weights: a group of two blocks, as of W8.
inline void multiply_integers(const int8_t* const* values, int64_t stride,
                              const uint8_t* const* weights, int64_t group, int64_t depth) {
  write_out(weights[0]);
  zero_sums();
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
}

constexpr int64_t PAIRS = 16;  // of bfloat16 inputs in a tile, a line of weights each
constexpr int64_t FEW = 4;     // rows that no tile pays for

// _tile_dpbf16ps takes and makes no numbers that are too small for a float's full precision: 0
// instead. It rounds to the nearest. So does what computes the same meanwhile.
class Flushing {
 public:
  Flushing() { _mm_setcsr((before_ & ~0x6000u) | 0x8040u); }
  ~Flushing() { _mm_setcsr(before_); }

 private:
  const unsigned before_ = _mm_getcsr();
};

// Which of a block's channels, from `channel` on, there are.
inline __mmask16 channels_from(int64_t channel, const Weight& weight) {
  const int64_t left = weight.out - channel;
  return left >= BLOCK ? 0xffff : (1u << left) - 1;
}

struct Header {
  __m512 scales, zeros;
};

inline Header header_of(const uint8_t* data) {
  const auto* header = reinterpret_cast<const __m256i*>(data);
  const __m128i zeros = _mm_load_si128(reinterpret_cast<const __m128i*>(header + 1));
  return {_mm512_cvtph_ps(_mm256_load_si256(header)),
          _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros))};
}

inline void fetch_ahead(const uint8_t* lines) {
  for (int64_t i = 0; i < PAIRS; ++i) _mm_prefetch(lines + AHEAD + i * LINE, _MM_HINT_T0);
}

// As multiply_integers, of bfloat16; one tile of rows unless `two`. FETCH: weights from memory.
template <bool FETCH>
inline void multiply_bfloats(const int8_t* const* values, int64_t stride,
                             const uint8_t* const* weights, int64_t in, bool two) {
  write_out(weights[0]);
  zero_sums();
  for (int64_t k = 0; k < in / 2; k += PAIRS) {
    const int64_t line = k * LINE, pair = k * 4;
    if constexpr (FETCH) fetch_ahead(weights[0] + line);
    _tile_loadd(6, weights[0] + line, LINE);
    _tile_loadd(4, values[0] + pair, stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (FETCH) fetch_ahead(weights[1] + line);
    _tile_loadd(7, weights[1] + line, LINE);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) continue;
    _tile_loadd(5, values[1] + pair, stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// What follows is for integers of DIGITS digits, or for bfloat16 where there are none.
constexpr int parts_of(int digits) { return digits == 0 ? 1 : digits; }

inline __m512 floats_of(const int32_t* sums) {
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

// As number_of in linear_avx512.cpp.
template <int DIGITS>
inline __m512 number_of(const Sums* sums, int tile, int block, int row) {
  if constexpr (DIGITS == 0) return _mm512_load_ps(sums[0][tile][block][row]);
  const __m512 first = floats_of(sums[0][tile][block][row]);
  if constexpr (DIGITS == 1) return first;
  const __m512 two = _mm512_fmadd_ps(floats_of(sums[1 % DIGITS][tile][block][row]),
                                     _mm512_set1_ps(256.0f), first);
  return _mm512_fmadd_ps(floats_of(sums[2 % DIGITS][tile][block][row]), _mm512_set1_ps(65536.0f),
                         two);
}

// A stretch of rows with their digits, each digit's bytes `apart` from the last one's.
struct Rows {
  int64_t first, count, height;  // of a tile: ROWS, or all rows if they are fewer
  const int8_t* values;
  int64_t stride, apart;
};

// One group of two blocks times all rows. totals: [rows.count][2][BLOCK].
template <int DIGITS>
void add_group(const Prepared& x, const Rows& rows, int64_t g, const uint8_t* const* headers,
               const uint8_t* const* weights, int64_t depth, float* totals) {
  const int64_t groups = x.in / x.group;
  const Header of_blocks[2] = {header_of(headers[0]), header_of(headers[1])};
  constexpr int PARTS = parts_of(DIGITS), BYTES = DIGITS == 0 ? 2 : 1;
  alignas(64) Sums sums[2][PARTS];  // by turns, lest a product wait until the last one is read
  int64_t done = 0;
  for (int turn = 0; done < rows.count; turn ^= 1) {
    // The last tiles begin early enough to be whole: rows of both are added by one of them alone.
    const int64_t left = rows.count - done;
    const int64_t first = left < ROWS ? rows.count - rows.height : done;
    const int64_t second = left < 2 * ROWS ? rows.count - rows.height : done + ROWS;
    const int64_t starts[2] = {first, second};
    const int64_t fresh[2] = {done, left < ROWS ? rows.count : done + ROWS};
    for (int part = 0; part < PARTS; ++part) {
      const int8_t* from = rows.values + part * rows.apart + g * x.group * BYTES;
      const int8_t* values[2] = {from + first * rows.stride, from + second * rows.stride};
      if constexpr (DIGITS == 0)
        multiply_bfloats<false>(values, rows.stride, weights, x.group, left > ROWS);
      else
        multiply_integers(values, rows.stride, weights, x.group, depth);
      store_sums(sums[turn][part]);
    }
    for (int tile = 0; tile < 2; ++tile) {
      const int64_t end = starts[tile] + rows.height;
      for (int64_t row = fresh[tile]; row < end; ++row) {
        const int64_t place = (rows.first + row) * groups + g;
        const __m512 of_zero = _mm512_set1_ps(x.sums[place]);
        float* total = totals + row * 2 * BLOCK;
        for (int block = 0; block < 2; ++block, total += BLOCK) {
          const __m512 number =
              number_of<DIGITS>(sums[turn], tile, block, static_cast<int>(row - starts[tile]));
          const __m512 sum = _mm512_fnmadd_ps(of_blocks[block].zeros, of_zero, number);
          __m512 step = of_blocks[block].scales;
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
  const int64_t unpacked_bytes = x.group * BLOCK * (DIGITS == 0 ? 2 : 1);  // of a block
  uint8_t* unpacked = room<uint8_t>(of_weights, packed ? 2 * unpacked_bytes : 0);
  const int64_t group_bytes = LINE + x.group * BLOCK / (packed ? 2 : 1);
  for (int64_t g = 0; g < x.in / x.group; ++g) {
    const uint8_t *headers[2], *weights[2];
    for (int i = 0; i < 2; ++i) {
      headers[i] = weight.data + blocks[i] * weight.block_bytes() + g * group_bytes;
      weights[i] = packed ? unpacked + i * unpacked_bytes : headers[i] + LINE;
      if (packed)
        (DIGITS == 0 ? unpack_bfloats : unpack)(headers[i] + LINE, x.group,
                                                unpacked + i * unpacked_bytes);
    }
    add_group<DIGITS>(x, rows, g, headers, weights, depth, totals);
  }
  for (int64_t row = 0; row < rows.count; ++row)
    for (int i = 0; i < 2; ++i) {
      const int64_t channel = blocks[i] * BLOCK;
      const __mmask16 mask = channels_from(channel, weight);
      __m512 total = _mm512_load_ps(totals + (2 * row + i) * BLOCK);
      if constexpr (DIGITS == 1)
        total = _mm512_mul_ps(total, _mm512_set1_ps(x.scales[rows.first + row]));
      _mm512_mask_storeu_ps(y + (rows.first + row) * stride + channel, mask, total);
    }
}

template <int DIGITS>
Rows rows_from(const Prepared& x, int64_t first, int64_t count, int64_t height) {
  if constexpr (DIGITS < 2) {
    const int64_t bytes = DIGITS == 0 ? 2 * x.in : x.in;
    return {first, count, height, static_cast<const int8_t*>(x.values) + first * bytes, bytes, 0};
  }
  static thread_local std::vector<uint8_t> of_digits;
  auto* digits = room<int8_t>(of_digits, count * 3 * x.in);
  for (int64_t row = 0; row < count; ++row)
    separate(static_cast<const int32_t*>(x.values) + (first + row) * (x.in / 4 * 3), x.in,
             digits + row * 3 * x.in);
  return {first, count, height, digits, 3 * x.in, x.in};
}

template <int DIGITS>
void multiply_with(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                   int64_t stride) {
  const int64_t depth = DIGITS == 0 ? LINE : depth_of(x.group), height = std::min(x.rows, ROWS);
  const int64_t fitting = rows_at_once(x.in, DIGITS == 0 ? 2 : DIGITS) / ROWS * ROWS;
  const int64_t step = fitting < FEWEST ? FEWEST : fitting;
  configure(depth, height);
  for (int64_t first = 0; first < x.rows;) {
    // No stretch is left that is shorter than a tile.
    const int64_t left = x.rows - first, count = left < step + ROWS ? left : step;
    const Rows rows = rows_from<DIGITS>(x, first, count, height);
    for (int64_t block = begin; block < end; block += 2) {
      const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
      multiply_blocks_by<DIGITS>(x, weight, rows, blocks, depth, y, stride);
    }
    first += count;
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
      for (const int64_t last = k + 2 * PAIRS; k < last; data += LINE) {
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

// Weights that are numbers of their own, in bfloat16.
void multiply_plain(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                    int64_t stride) {
  const int64_t height = std::min(x.rows, ROWS), row_bytes = x.in * 2;
  const int64_t step = std::max(rows_at_once(x.in, 2) / (2 * ROWS), int64_t{2}) * 2 * ROWS;
  const auto* values = static_cast<const int8_t*>(x.values);
  alignas(64) Sums sums;
  configure(LINE, height);
  for (int64_t top = 0; top < x.rows; top += step)
    for (int64_t block = begin; block < end; block += 2) {
      const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
      const uint8_t* weights[2] = {weight.data + blocks[0] * weight.block_bytes(),
                                   weight.data + blocks[1] * weight.block_bytes()};
      for (int64_t row = top; row < std::min(x.rows, top + step); row += 2 * ROWS) {
        // The last tiles begin early enough to be whole, and write some rows once more.
        const int64_t starts[2] = {std::min(row, x.rows - height),
                                   std::min(row + ROWS, x.rows - height)};
        const int8_t* tiles[2] = {values + starts[0] * row_bytes, values + starts[1] * row_bytes};
        const bool two = row + ROWS < x.rows;
        multiply_bfloats<true>(tiles, row_bytes, weights, x.in, two);
        store_sums(sums);
        for (int tile = 0; tile < (two ? 2 : 1); ++tile)
          for (int64_t r = 0; r < height; ++r)
            for (int i = 0; i < 2; ++i) {
              const int64_t channel = blocks[i] * BLOCK;
              const __mmask16 mask = channels_from(channel, weight);
              _mm512_mask_storeu_epi32(y + (starts[tile] + r) * stride + channel, mask,
                                       _mm512_load_si512(sums[tile][i][r]));
            }
      }
    }
  _tile_release();
}

}  // namespace

namespace amx {

// Whether the processor has the instructions and the system lets this process use them.
bool allowed() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, integers = d >> 25 & 1, bfloats = d >> 22 & 1;
  constexpr int ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM; the state's number
  return tiles && integers && bfloats && syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}

bool fits(const Prepared& x, const Weight& weight) {
  if (x.format == Input::BF16)
    return (weight.kind == Kind::BF16 ? x.in : x.group) % (2 * PAIRS) == 0;
  if (x.rows < ROWS || (weight.kind != Kind::W4 && weight.kind != Kind::W8)) return false;
  if (x.group % DEEPEST != 0 && x.group != 32) return false;
  return x.format == Input::FIXED || (x.format == Input::I8 && !x.by_group && !x.zeros);
}

void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  if (x.format == Input::FIXED) return multiply_with<3>(x, weight, begin, end, y, stride);
  if (x.format == Input::I8) return multiply_with<1>(x, weight, begin, end, y, stride);
  const Flushing flushing;
  const auto packed = x.rows > FEW ? multiply_with<0> : multiply_few;
  (weight.kind == Kind::BF16 ? multiply_plain : packed)(x, weight, begin, end, y, stride);
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
