// Products of activations with weights that stay packed in memory.
//
// A weight [in, out] is repacked once into blocks of 16 output channels, so that one 512-bit
// register (or two of 256) holds a value of each channel. All blocks have the same size, one after
// the other; `in` runs inside a block:
//
//   W4    each group: a header of 64 bytes (16 fp16 scales, 16 uint8 zeros, 16 bytes of padding), then
//         for every 8 inputs 64 bytes: channel c's 32-bit lane holds input k + b in the low and
//         k + 4 + b in the high four bits of its byte b. weight = (q - zero) * scale.
//   W8    the same header, then for every 4 inputs 64 bytes: byte b of lane c holds input k + b.
//   BF16  for every 2 inputs 64 bytes: the low half of lane c holds input k, the high half k + 1.
//   F32   for every input 64 bytes, one float a channel.
//   F16   for every 2 inputs 64 bytes: the first 32 hold input k of each channel, the others k + 1.
//
// Channels that fill the last block up have scale 0 or weight 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace radquant {

constexpr int64_t BLOCK = 16;  // output channels of a block
constexpr int64_t LINE = 64;   // bytes; every block and every header starts at a multiple of it

enum class Kind : int32_t { W4 = 0, W8 = 1, BF16 = 2, F32 = 3, F16 = 4 };

// How activations enter a product.
//   F32   as they are; sums in float32. With AVX-512, W4 and W8 take them in fixed point (FIXED)
//   BF16  rounded to bfloat16 (nearest, ties to even); sums in float32
//   I8    rounded to a grid of at most 8 bits (see Rounding); sums in int32 within a group of weights,
//         exactly, then float32. W4 and W8 only. What a shifted grid adds is taken off in float32:
//         exactly for groups of up to 512 inputs (8 bits) or 8,192 (4 bits).
//   FIXED rounded within each group of weights to three digits of 8 bits, at most a 0x7f7f7f-th
//         (about 2^-23) of the group's largest magnitude off. Sums of digits are exact, so that the
//         result is nearer to the true one than float32's own sums if a group's values are of like
//         size, and some times as far if one outweighs them. Three integer instructions take four
//         inputs, where floats need four and the weights' change into floats. Not to be asked for:
//         it is how F32 is computed.
//   PARTS as three bfloat16 that add up to the float; sums in float32. BF16 and F16 only, where AMX is.
//         Not to be asked for, either: it is how F32 is computed there.
enum class Input : int32_t { F32 = 0, BF16 = 1, I8 = 2, FIXED = 3, PARTS = 4 };

// The grid of I8, as radquant.runtime.activations has it: q = nearest(x / scale) + zero, ties to even,
// held within low ... high; what is multiplied is (q - zero) * scale.
struct Rounding {
  enum class Shared : int32_t { ROW = 0, SEQUENCE = 1, GROUP = 2 };
  Shared shared = Shared::ROW;  // what shares a scale; GROUP: inputs of a row
  int32_t low = -127, high = 127;
  bool symmetric = true;  // about 0, so that zero is 0
  float keep = 1.0f;      // share of a dynamic range that is covered
  int64_t group = 0;      // GROUP: a multiple of the weights' group that divides `in`
  // Of a static range [1], or [in / group] by GROUP; null: it is taken of the values themselves.
  const float* scales = nullptr;
  const float* zeros = nullptr;

  bool by_group() const { return shared == Shared::GROUP; }
  bool by_sequence() const { return shared == Shared::SEQUENCE && !scales; }
  // Whether q - zero may need 9 bits. What is kept is then q less a constant, and zero apart.
  bool shifted() const { return !symmetric && high - low > 127; }
};

// From the least to the largest of values, stretched to hold 0; not finite if a value is not.
struct Extremes {
  float low, high;
};

// One grid: what is kept of a value is its q - offset, which fits 8 bits.
struct Grid {
  float scale, zero, low, high, offset;
};

Extremes extremes(const float* x, int64_t count);
Grid grid_of(const Rounding& rounding, Extremes range);
void quantize(const float* x, int64_t count, const Grid& grid, int8_t* out);

struct Weight {
  Kind kind;
  int64_t in;     // a multiple of 8
  int64_t out;
  int64_t group;  // inputs that share a scale, a multiple of 8 that divides `in`; `in` for the others
  const uint8_t* data;  // aligned to LINE; blocks() * block_bytes() bytes

  int64_t blocks() const { return (out + BLOCK - 1) / BLOCK; }
  int64_t block_bytes() const {
    switch (kind) {
      case Kind::W4: return in / group * LINE + in / 8 * LINE;
      case Kind::W8: return in / group * LINE + in / 4 * LINE;
      case Kind::BF16:
      case Kind::F16: return in / 2 * LINE;
      default: return in * LINE;
    }
  }
};

// Bytes of scratch that `prepare` needs for these activations.
size_t prepared_bytes(int64_t rows, int64_t in, int64_t group, Kind kind, Input input,
                      const Rounding& rounding = {});

// Activations made ready once for all weights of one kind and group size that read them.
struct Prepared {
  Input format;  // what `values` are; rounded ones stand in for BF16 where it has no instruction
  Kind kind;
  int64_t rows, in, group;
  const void* values;   // [rows][in] float, bfloat16, int8 or words of digits, or [rows][3][in] PARTS
                        // (see levels.h), inputs in the order the kind reads; if `zeros`, a row of
                        // ones behind the last
  bool by_group;        // scales and zeros are [rows][in / group] as with FIXED, else [rows]
  const float* scales;  // I8 and FIXED: what an integer is worth
  const float* zeros;   // I8, shifted: what the integers are too large by; else null
  const float* sums;    // W4, W8: [rows][in / group], the sum of each group's values as they enter
                        // the product; of the integers, less their zeros, for I8 and FIXED
};

// x: `rows` rows of `in` floats, `stride` floats apart. scratch: aligned to LINE. rounding: of I8.
// sequences: [rows], neighbours of one number are one sequence; null: each row is one by itself.
Prepared prepare(const float* x, int64_t rows, int64_t in, int64_t stride, int64_t group, Kind kind,
                 Input input, void* scratch, const Rounding& rounding = {},
                 const int64_t* sequences = nullptr);

// y = x * weight, `rows` rows of `out` floats, `stride` floats apart. Runs on PyTorch's threads,
// channels shared out among them; a row's result does not depend on the other rows, nor on threads.
void multiply(const Prepared& x, const Weight& weight, float* y, int64_t stride);

// The weights of one output channel of any kind but W4: out [in].
void channel_of(const Weight& weight, int64_t channel, float* out);

// Whether this processor can run any of it (AVX2 with FMA and F16C at least).
bool supported();
// "avx512-vnni-bf16-amx", "avx512-vnni-bf16", "avx512-vnni", "avx2" or "none": what `multiply` runs on here.
const char* level();

}  // namespace radquant
