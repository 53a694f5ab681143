// One implementation for each instruction set; linear.cpp chooses when the program runs.
#pragma once

#include "linear.h"

namespace radquant {

// Bytes that weights are fetched ahead of their use.
constexpr int64_t AHEAD = 3072;

// 0 … 15 as bfloat16, twice, for vpermw, which looks at the low five bits of an index alone.
alignas(64) constexpr uint16_t BFLOAT_NIBBLES[32] = {
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
    0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

constexpr int64_t bytes_of(Input format) {
  constexpr int64_t BYTES[] = {4, 2, 1, 3, 6};
  return BYTES[static_cast<int>(format)];
}

#define RADQUANT_LEVEL(name)                                                                      \
  namespace name {                                                                                \
  void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end,       \
                       float* y, int64_t stride);                                                 \
  Extremes extremes(const float* x, int64_t count);                                               \
  void quantize(const float* x, int64_t count, const Grid& grid, int8_t* out);                    \
  void sum_groups(const float* x, int64_t in, int64_t group, float* sums);                        \
  void sum_groups(const int8_t* x, int64_t in, int64_t group, float* sums);                       \
  void round_bfloat16(const float* x, int64_t count, float* out);                                 \
  void pack_bfloat16(const float* x, int64_t count, bool interleaved, uint16_t* out);             \
  }

RADQUANT_LEVEL(avx512)
RADQUANT_LEVEL(avx2)

#undef RADQUANT_LEVEL

bool wide();  // whether AVX-512 is there and allowed

// Where rounded activations go, as in Prepared.
struct Integers {
  int8_t* values;  // [rows][in]
  float* sums;     // [rows][in / group]
  float* scales;   // [rows], or [rows][in / group] by GROUP
  float* zeros;    // the same, null unless `rounding` is shifted: each has then a row more
};

void prepare_integers(const float* x, int64_t rows, int64_t in, int64_t stride, int64_t group,
                      const Rounding& rounding, const int64_t* sequences, const Integers& to);

namespace avx512 {
// A row in fixed point. x: [in], rounded to bfloat16 first if `bfloats`. out: three words for every
// four values, one for each digit, the lowest first: byte b is that digit of value b. steps, sums:
// [in / group], what a unit is worth, and the units in all.
void digits(const float* x, int64_t in, int64_t group, bool bfloats, int32_t* out, float* steps,
            float* sums);
// A row as three bfloat16 of each value, which add up to it. x: [in]. out: [3][in].
void parts(const float* x, int64_t in, uint16_t* out);
}  // namespace avx512

namespace amx {
constexpr int64_t WIDTH = 32;  // of bfloat16 inputs in a tile
bool allowed();  // whether this process may use AMX; asks the system for it
bool fits(const Prepared& x, const Weight& weight);
// As avx512::multiply_blocks, of what fits: integers to the bit, bfloat16 in AMX's own order. PARTS are
// for these tiles alone.
void multiply_blocks(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride);
}  // namespace amx

}  // namespace radquant
