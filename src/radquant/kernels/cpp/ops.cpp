// What PyTorch calls: operators of the namespace `radquant`.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

#include "linear.h"
#include "rounding.h"

namespace radquant {
namespace {

using at::Tensor;

constexpr int ORDER4[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // of output channels in a word of AutoAWQ's
constexpr int ORDER8[4] = {0, 2, 1, 3};

struct Words {
  const int32_t* data;
  int64_t row_words;
  int bits;

  uint8_t at(int64_t row, int64_t channel) const {
    const int per_word = 32 / bits, place = channel % per_word;
    const int* order = bits == 4 ? ORDER4 : ORDER8;
    int field = 0;
    while (order[field] != place) ++field;
    const auto word = static_cast<uint32_t>(data[row * row_words + channel / per_word]);
    return word >> (field * bits) & ((1u << bits) - 1);
  }
};

// qweight [in, out / per_word], qzeros [in / group, out / per_word] int32, scales [in / group, out]
// float16, as AutoAWQ stores them -> the bytes of a Weight.
Tensor repack(const Tensor& qweight, const Tensor& qzeros, const Tensor& scales, int64_t bits) {
  TORCH_CHECK(bits == 4 || bits == 8, "bits must be 4 or 8, not ", bits);
  TORCH_CHECK(qweight.scalar_type() == at::kInt && qzeros.scalar_type() == at::kInt &&
                  scales.scalar_type() == at::kHalf,
              "qweight and qzeros must be int32, scales float16");
  TORCH_CHECK(qweight.dim() == 2 && qzeros.dim() == 2 && scales.dim() == 2, "need matrices");
  const int64_t in = qweight.size(0), out = scales.size(1), groups = scales.size(0);
  const int64_t words = out * bits / 32;
  TORCH_CHECK(groups > 0 && in % groups == 0 && in / groups % 8 == 0, in, " inputs in ", groups,
              " groups do not fit: a group has a multiple of 8");
  TORCH_CHECK(out * bits % 32 == 0 && qweight.size(1) == words && qzeros.size(0) == groups &&
                  qzeros.size(1) == words,
              "qweight, qzeros and scales do not fit each other");
  const Tensor weights = qweight.contiguous(), zeros = qzeros.contiguous(), steps = scales.contiguous();
  const Words integers{weights.const_data_ptr<int32_t>(), words, static_cast<int>(bits)};
  const Words zero{zeros.const_data_ptr<int32_t>(), words, static_cast<int>(bits)};
  const auto* scale = static_cast<const uint16_t*>(steps.const_data_ptr());
  const int64_t group = in / groups, inputs = 32 / bits;
  const Weight shape{bits == 4 ? Kind::W4 : Kind::W8, in, out, group, nullptr};
  Tensor packed = at::empty({shape.blocks() * shape.block_bytes()}, at::kByte);
  auto* bytes = packed.mutable_data_ptr<uint8_t>();
  std::memset(bytes, 0, packed.numel());
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    uint8_t* line = bytes + block * shape.block_bytes();
    const int64_t first = block * BLOCK, channels = std::min(BLOCK, out - first);
    for (int64_t g = 0; g < groups; ++g) {
      std::memcpy(line, scale + g * out + first, channels * sizeof(uint16_t));
      for (int64_t c = 0; c < channels; ++c) line[32 + c] = zero.at(g, first + c);
      line += LINE;
      for (int64_t k = g * group; k < (g + 1) * group; k += inputs, line += LINE)
        for (int64_t c = 0; c < channels; ++c)
          for (int b = 0; b < 4; ++b) {
            uint8_t byte = integers.at(k + b, first + c);
            if (bits == 4) byte |= integers.at(k + 4 + b, first + c) << 4;
            line[c * 4 + b] = byte;
          }
    }
  }
  return packed;
}

// weight [out, in] bfloat16, float16 or float32 -> the bytes of a Weight.
Tensor repack_dense(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2, "need a matrix");
  const bool bfloat = weight.scalar_type() == at::kBFloat16, half = weight.scalar_type() == at::kHalf;
  TORCH_CHECK(bfloat || half || weight.scalar_type() == at::kFloat,
              "weights must be bfloat16, float16 or float32");
  const int64_t out = weight.size(0), in = weight.size(1);
  TORCH_CHECK(in % 8 == 0, in, " inputs are no multiple of 8");
  const Tensor plain = weight.contiguous();
  const Weight shape{bfloat ? Kind::BF16 : half ? Kind::F16 : Kind::F32, in, out, in, nullptr};
  Tensor packed = at::empty({shape.blocks() * shape.block_bytes()}, at::kByte);
  auto* bytes = packed.mutable_data_ptr<uint8_t>();
  std::memset(bytes, 0, packed.numel());
  // Of BF16 two inputs lie side by side, of F16 behind all channels of the first.
  const int64_t size = bfloat || half ? 2 : 4, inputs = bfloat ? 2 : 1;
  const int64_t together = size * inputs, step = BLOCK * together;
  const auto* from = static_cast<const uint8_t*>(plain.const_data_ptr());
  for (int64_t channel = 0; channel < out; ++channel) {
    uint8_t* block = bytes + channel / BLOCK * shape.block_bytes() + channel % BLOCK * together;
    for (int64_t k = 0; k < in; k += inputs, block += step)
      std::memcpy(block, from + (channel * in + k) * size, together);
  }
  return packed;
}

// x [..., in] float32 or bfloat16 times a Weight -> [..., out] in x's dtype. rounding, keep, ranges:
// as `rounding_of` takes them, of input I8. sequences: int64, of each of x's rows, as in `prepare`.
Tensor linear(const Tensor& x, const Tensor& weight, int64_t kind, int64_t out, int64_t group,
              int64_t input, const std::optional<Tensor>& bias, at::IntArrayRef rounding,
              double keep, const std::optional<Tensor>& ranges,
              const std::optional<Tensor>& sequences) {
  TORCH_CHECK(supported(), "this processor lacks AVX2");
  TORCH_CHECK(x.dim() >= 1 && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
              "x must be float32 or bfloat16");
  TORCH_CHECK(kind >= 0 && kind <= 4 && input >= 0 && input <= 2, "unknown kind or input");
  const int64_t in = x.size(-1);
  const Weight shape{static_cast<Kind>(kind), in, out, group, weight.const_data_ptr<uint8_t>()};
  const bool grouped = shape.kind == Kind::W4 || shape.kind == Kind::W8;
  const auto entering = static_cast<Input>(input);
  TORCH_CHECK(out > 0 && in > 0 && in % 8 == 0 && group > 0 && group % 8 == 0 && in % group == 0,
              "in ", in, ", out ", out, " and group ", group, " do not fit");
  TORCH_CHECK(grouped || (group == in && entering != Input::I8),
              "weights without groups take no integers");
  // The largest sum of a group must stay below 2^31.
  TORCH_CHECK(!grouped || group <= 65536, "a group of ", group, " can overflow");
  TORCH_CHECK(weight.is_contiguous() && weight.numel() == shape.blocks() * shape.block_bytes() &&
                  reinterpret_cast<uintptr_t>(shape.data) % LINE == 0,
              "these are not the bytes of a weight of this shape");
  const Tensor floats = x.to(at::kFloat).contiguous();
  const int64_t rows = floats.numel() / in;
  const Tensor of_rows = sequences ? sequences->contiguous() : Tensor();
  TORCH_CHECK(!sequences || (of_rows.scalar_type() == at::kLong && of_rows.numel() == rows),
              "need an int64 sequence of each row");
  const Rounding grid = rounding_of(rounding, keep, ranges, in, group);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = out;
  Tensor y = at::empty(sizes, floats.options());
  if (rows > 0) {
    const int64_t size = prepared_bytes(rows, in, group, shape.kind, entering, grid);
    Tensor scratch = at::empty({size}, at::kByte);
    const Prepared ready = prepare(floats.const_data_ptr<float>(), rows, in, in, group, shape.kind,
                                   entering, scratch.mutable_data_ptr(), grid,
                                   sequences ? of_rows.const_data_ptr<int64_t>() : nullptr);
    multiply(ready, shape, y.mutable_data_ptr<float>(), out);
  }
  if (bias) y.add_(*bias);
  return y.to(x.scalar_type());
}

std::string kernel_level() { return level(); }

}  // namespace

TORCH_LIBRARY(radquant, library) {
  library.def("repack(Tensor qweight, Tensor qzeros, Tensor scales, int bits) -> Tensor", &repack);
  library.def("repack_dense(Tensor weight) -> Tensor", &repack_dense);
  library.def(
      "linear(Tensor x, Tensor weight, int kind, int out, int group, int input, Tensor? bias, "
      "int[] rounding=[], float keep=1.0, Tensor? ranges=None, Tensor? sequences=None) -> Tensor");
  library.def("kernel_level() -> str", &kernel_level);
}

TORCH_LIBRARY_IMPL(radquant, CPU, library) { library.impl("linear", &linear); }

}  // namespace radquant
