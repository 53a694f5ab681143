#include "linear.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "levels.h"

namespace radquant {
namespace {

struct Processor {
  bool avx2, avx512, bfloats, amx;
};

// What the processor has, or less of it if RADQUANT_CPU_LEVEL says avx2, avx512-vnni or
// avx512-vnni-bf16.
Processor look() {
  __builtin_cpu_init();
  Processor found{};
  found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("f16c");
  found.avx512 = found.avx2 && __builtin_cpu_supports("avx512f") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  found.bfloats = found.avx512 && __builtin_cpu_supports("avx512bf16");
  const char* asked = std::getenv("RADQUANT_CPU_LEVEL");
  const std::string most = asked ? asked : "";
  found.amx = found.bfloats && most.empty() && amx::allowed();
  if (most == "avx512-vnni" || most == "avx2") found.bfloats = false;
  if (most == "avx2") found.avx512 = false;
  return found;
}

const Processor& processor() {
  static const Processor found = look();
  return found;
}

bool grouped(Kind kind) { return kind == Kind::W4 || kind == Kind::W8; }

// BF16 without instructions for it, or for weights that have none, is computed with rounded floats.
Input format_of(Kind kind, Input input, int64_t in) {
  const bool instructions = processor().bfloats && (kind == Kind::W4 || kind == Kind::BF16);
  if (input == Input::I8 || (input == Input::BF16 && instructions)) return input;
  const bool halves = kind == Kind::BF16 || kind == Kind::F16;
  if (input == Input::F32 && halves && processor().amx && in % amx::WIDTH == 0) return Input::PARTS;
  return grouped(kind) && processor().avx512 ? Input::FIXED : Input::F32;
}

size_t lines(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

// Bytes of what `prepare` puts into its scratch, in this order.
struct Layout {
  bool by_group, shifted;
  size_t values, sums, scales, zeros;

  Layout(int64_t rows, int64_t in, int64_t group, Kind kind, Input format,
         const Rounding& rounding) {
    const bool integers = format == Input::I8;
    by_group = format == Input::FIXED || (integers && rounding.by_group());
    shifted = integers && rounding.shifted();
    rows += shifted;  // one of ones
    values = lines(rows * in * bytes_of(format));
    sums = grouped(kind) ? lines(rows * (in / group) * sizeof(float)) : 0;
    scales = lines(rows * (by_group ? in / group : integers) * sizeof(float));
    zeros = shifted ? scales : 0;
  }
};

}  // namespace

bool wide() { return processor().avx512; }

bool supported() { return processor().avx2; }

const char* level() {
  if (processor().amx) return "avx512-vnni-bf16-amx";
  if (processor().bfloats) return "avx512-vnni-bf16";
  if (processor().avx512) return "avx512-vnni";
  return processor().avx2 ? "avx2" : "none";
}

size_t prepared_bytes(int64_t rows, int64_t in, int64_t group, Kind kind, Input input,
                      const Rounding& rounding) {
  const Layout layout(rows, in, group, kind, format_of(kind, input, in), rounding);
  return layout.values + layout.sums + layout.scales + layout.zeros;
}

Prepared prepare(const float* x, int64_t rows, int64_t in, int64_t stride, int64_t group, Kind kind,
                 Input input, void* scratch, const Rounding& rounding, const int64_t* sequences) {
  const bool wide = processor().avx512;
  const auto round = wide ? avx512::round_bfloat16 : avx2::round_bfloat16;
  const auto pack = wide ? avx512::pack_bfloat16 : avx2::pack_bfloat16;
  const Input format = format_of(kind, input, in);
  auto* place = static_cast<uint8_t*>(scratch);
  const Layout layout(rows, in, group, kind, format, rounding);
  auto* values = place;
  auto* sums = reinterpret_cast<float*>(place += layout.values);
  auto* scales = reinterpret_cast<float*>(place += layout.sums);
  auto* zeros = layout.shifted ? reinterpret_cast<float*>(place += layout.scales) : nullptr;
  if (format == Input::I8) {
    auto* integers = reinterpret_cast<int8_t*>(values);
    prepare_integers(x, rows, in, stride, group, rounding, sequences,
                     {integers, sums, scales, zeros});
    return {format, kind, rows, in, group, values, layout.by_group, scales, zeros, sums};
  }
  // Floats that lie row behind row are read where they are.
  const bool in_place = input == Input::F32 && format == input && (stride == in || rows == 1);

  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / in), [&](int64_t begin, int64_t end) {
    float rounded[1024];
    for (int64_t row = begin; row < end; ++row) {
      const float* from = x + row * stride;
      float* row_sums = sums + row * (in / group);
      if (format == Input::FIXED) {
        avx512::digits(from, in, group, input == Input::BF16,
                       reinterpret_cast<int32_t*>(values) + row * (in / 4 * 3),
                       scales + row * (in / group), row_sums);
        continue;
      }
      if (format == Input::PARTS) {
        avx512::parts(from, in, reinterpret_cast<uint16_t*>(values) + 3 * row * in);
        continue;
      }
      if (format == Input::BF16)
        pack(from, in, kind == Kind::W4, reinterpret_cast<uint16_t*>(values) + row * in);
      float* to = reinterpret_cast<float*>(values) + row * in;
      if (format == Input::F32 && input == Input::BF16) {
        round(from, in, to);
        from = to;
      } else if (format == Input::F32 && !in_place) {
        std::memcpy(to, from, in * sizeof(float));
        from = to;
      }
      if (!grouped(kind)) continue;
      const auto sum = [&](const float* of, int64_t count, int64_t size, float* out) {
        wide ? avx512::sum_groups(of, count, size, out) : avx2::sum_groups(of, count, size, out);
      };
      if (format == Input::F32) {
        sum(from, in, group, row_sums);
        continue;
      }
      // The sums are those of the rounded values; a long group is summed piece by piece.
      for (int64_t g = 0; g < in / group; ++g) {
        row_sums[g] = 0;
        for (int64_t k = 0; k < group; k += 1024) {
          const int64_t count = std::min<int64_t>(1024, group - k);
          float piece;
          round(from + g * group + k, count, rounded);
          sum(rounded, count, count, &piece);
          row_sums[g] += piece;
        }
      }
    }
  });
  const void* used = in_place ? static_cast<const void*>(x) : values;
  return {format, kind, rows, in, group, used, layout.by_group,
          layout.scales ? scales : nullptr, nullptr, grouped(kind) ? sums : nullptr};
}

void multiply(const Prepared& x, const Weight& weight, float* y, int64_t stride) {
  if (x.rows == 0) return;
  const auto widest = processor().avx512 ? avx512::multiply_blocks : avx2::multiply_blocks;
  const auto blocks = processor().amx && amx::fits(x, weight) ? amx::multiply_blocks : widest;
  // Of a product that takes less than some ten microseconds, a thread's start would cost more.
  const int64_t work = std::max<int64_t>(1, x.rows * weight.in * BLOCK / 64);
  const int64_t grain = std::max<int64_t>(4, 32768 / work);
  at::parallel_for(0, weight.blocks(), grain, [&](int64_t begin, int64_t end) {
    blocks(x, weight, begin, end, y, stride);
  });
}

void channel_of(const Weight& weight, int64_t channel, float* out) {
  const uint8_t* line = weight.data + channel / BLOCK * weight.block_bytes();
  const int64_t place = channel % BLOCK;
  float scale = 1;
  int zero = 0;
  for (int64_t k = 0; k < weight.in; line += LINE) {
    if (weight.kind == Kind::W8) {
      if (k % weight.group == 0) {
        scale = reinterpret_cast<const c10::Half*>(line)[place];
        zero = line[32 + place];
        line += LINE;
      }
      for (int b = 0; b < 4; ++b) out[k++] = static_cast<float>(line[place * 4 + b] - zero) * scale;
    } else if (weight.kind == Kind::BF16) {
      const auto* two = reinterpret_cast<const c10::BFloat16*>(line) + 2 * place;
      out[k++] = two[0];
      out[k++] = two[1];
    } else if (weight.kind == Kind::F16) {
      const auto* halves = reinterpret_cast<const c10::Half*>(line);
      out[k++] = halves[place];
      out[k++] = halves[BLOCK + place];
    } else {
      out[k++] = reinterpret_cast<const float*>(line)[place];
    }
  }
}

}  // namespace radquant
