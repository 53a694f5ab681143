// AMX's instructions as loops, for tests: on processors without AMX, and where each access to memory is
// watched, which a tile's are not. Given to the compiler before anything else (-include).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define RADQUANT_TILES_IN_SOFTWARE

namespace tiles_in_software {

struct Tile {
  int rows, bytes;
  alignas(64) uint8_t at[16][64];
};

inline thread_local Tile tiles[8];

inline void configure(const void* asked) {
  const auto* bytes = static_cast<const uint8_t*>(asked);
  for (int i = 0; i < 8; ++i) {
    uint16_t of_row;
    std::memcpy(&of_row, bytes + 16 + 2 * i, 2);
    tiles[i] = {bytes[48 + i], of_row, {}};
  }
}

inline void zero(Tile& tile) { std::memset(tile.at, 0, sizeof tile.at); }

inline void load(Tile& tile, const void* from, int64_t stride) {
  zero(tile);
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(tile.at[r], static_cast<const uint8_t*>(from) + r * stride, tile.bytes);
}

inline void store(const Tile& tile, void* to, int64_t stride) {
  for (int r = 0; r < tile.rows; ++r)
    std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile.at[r], tile.bytes);
}

// Signed times unsigned bytes.
inline void add_bytes(Tile& sums, const Tile& a, const Tile& b) {
  for (int m = 0; m < sums.rows; ++m)
    for (int n = 0; n < sums.bytes / 4; ++n) {
      int32_t sum;
      std::memcpy(&sum, sums.at[m] + 4 * n, 4);
      for (int k = 0; k < a.bytes; ++k)
        sum += static_cast<int8_t>(a.at[m][k]) * static_cast<int32_t>(b.at[k / 4][4 * n + k % 4]);
      std::memcpy(sums.at[m] + 4 * n, &sum, 4);
    }
}

inline float bfloat(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Even and odd inputs are added up apart, from 0 on, as Intel's manual describes TDPBF16PS.
inline void add_bfloats(Tile& sums, const Tile& a, const Tile& b) {
  for (int m = 0; m < sums.rows; ++m)
    for (int n = 0; n < sums.bytes / 4; ++n) {
      float apart[2] = {0, 0}, sum;
      std::memcpy(&sum, sums.at[m] + 4 * n, 4);
      for (int k = 0; k < a.bytes / 2; ++k)
        apart[k % 2] = __builtin_fmaf(bfloat(a.at[m] + 2 * k),
                                      bfloat(b.at[k / 2] + 4 * n + 2 * (k % 2)), apart[k % 2]);
      sum += apart[0] + apart[1];
      std::memcpy(sums.at[m] + 4 * n, &sum, 4);
    }
}

}  // namespace tiles_in_software

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define RADQUANT_TILE(number) tiles_in_software::tiles[number]
#define _tile_loadconfig(asked) tiles_in_software::configure(asked)
#define _tile_release() static_cast<void>(0)
#define _tile_zero(to) tiles_in_software::zero(RADQUANT_TILE(to))
#define _tile_loadd(to, from, stride) tiles_in_software::load(RADQUANT_TILE(to), from, stride)
#define _tile_stored(from, to, stride) tiles_in_software::store(RADQUANT_TILE(from), to, stride)
#define _tile_dpbsud(sums, a, b) \
  tiles_in_software::add_bytes(RADQUANT_TILE(sums), RADQUANT_TILE(a), RADQUANT_TILE(b))
#define _tile_dpbf16ps(sums, a, b) \
  tiles_in_software::add_bfloats(RADQUANT_TILE(sums), RADQUANT_TILE(a), RADQUANT_TILE(b))
