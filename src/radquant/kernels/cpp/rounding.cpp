// Activations that enter a product as integers of at most 8 bits.

#include "rounding.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "levels.h"

namespace radquant {
namespace {

constexpr float LEAST_RANGE = 1e-12f;  // so that values that are all zero have a scale

bool finite(Extremes range) { return std::isfinite(range.low) && std::isfinite(range.high); }

// The grid of a static range, of the row's i-th scale. What is infinite goes to the end of the range;
// what is no number stays none.
Grid static_grid(const Rounding& rounding, int64_t i, Extremes values) {
  const bool numbers = !std::isnan(values.low) && !std::isnan(values.high);
  const float low = static_cast<float>(rounding.low), high = static_cast<float>(rounding.high);
  const float zero = rounding.zeros[i], offset = rounding.shifted() ? high - 127.0f : zero;
  return {numbers ? rounding.scales[i] : __builtin_nanf(""), zero, low, high, offset};
}

// Of each row the range of its whole sequence.
std::vector<Extremes> ranges_of_sequences(const float* x, int64_t rows, int64_t in, int64_t stride,
                                          const int64_t* sequences) {
  std::vector<Extremes> ranges(rows);
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) ranges[row] = extremes(x + row * stride, in);
  });
  for (int64_t begin = 0, end; sequences && begin < rows; begin = end) {
    Extremes whole{0.0f, 0.0f};
    for (end = begin; end < rows && sequences[end] == sequences[begin]; ++end) {
      whole = {std::min(whole.low, ranges[end].low), std::max(whole.high, ranges[end].high)};
      if (!finite(ranges[end])) whole.low = -__builtin_inff();
    }
    std::fill(ranges.begin() + begin, ranges.begin() + end, whole);
  }
  return ranges;
}

}  // namespace

Rounding rounding_of(at::IntArrayRef numbers, double keep, const std::optional<at::Tensor>& ranges,
                     int64_t in, int64_t group) {
  Rounding rounding;
  if (numbers.empty()) return rounding;
  TORCH_CHECK(numbers.size() == 5 && 0 <= numbers[0] && numbers[0] <= 2, "unknown rounding");
  rounding.shared = static_cast<Rounding::Shared>(numbers[0]);
  rounding.low = static_cast<int32_t>(numbers[1]);
  rounding.high = static_cast<int32_t>(numbers[2]);
  rounding.symmetric = numbers[3] != 0;
  rounding.group = numbers[4];
  rounding.keep = static_cast<float>(keep);
  const int64_t levels = numbers[2] - numbers[1];
  TORCH_CHECK(0 < levels && levels < 256 && -128 <= numbers[1] && numbers[2] < 256 && keep > 0,
              "integers from ", numbers[1], " to ", numbers[2], " are no grid of 8 bits");
  TORCH_CHECK(!rounding.symmetric || numbers[2] < 128, "a grid about 0 holds signed bytes");
  const int64_t inputs = rounding.by_group() ? rounding.group : in;
  TORCH_CHECK(inputs > 0 && in % inputs == 0 && inputs % group == 0, "groups of ", inputs,
              " inputs do not fit weights in groups of ", group, " of ", in);
  if (ranges) {
    TORCH_CHECK(ranges->is_contiguous() && ranges->scalar_type() == at::kFloat &&
                    ranges->sizes() == at::IntArrayRef({2, in / inputs}),
                "a static range has float32 scales and zeros, [2, ", in / inputs, "]");
    rounding.scales = ranges->const_data_ptr<float>();
    rounding.zeros = rounding.scales + in / inputs;
  }
  return rounding;
}

Extremes extremes(const float* x, int64_t count) {
  return wide() ? avx512::extremes(x, count) : avx2::extremes(x, count);
}

void quantize(const float* x, int64_t count, const Grid& grid, int8_t* out) {
  wide() ? avx512::quantize(x, count, grid, out) : avx2::quantize(x, count, grid, out);
}

Grid grid_of(const Rounding& rounding, Extremes range) {
  const float least = static_cast<float>(rounding.low), most = static_cast<float>(rounding.high);
  const float low = range.low * rounding.keep, high = range.high * rounding.keep;
  if (!finite(range)) return {__builtin_nanf(""), 0.0f, least, most, 0.0f};
  if (rounding.symmetric) return {std::max({-low, high, LEAST_RANGE}) / most, 0, least, most, 0};
  const float scale = std::max(high - low, LEAST_RANGE) / (most - least);
  const float zero = least + std::rint(-low / scale);
  return {scale, zero, least, most, rounding.shifted() ? most - 127.0f : zero};
}

void prepare_integers(const float* x, int64_t rows, int64_t in, int64_t stride, int64_t group,
                      const Rounding& rounding, const int64_t* sequences, const Integers& to) {
  const int64_t groups = in / group, of_row = rounding.by_group() ? in / rounding.group : 1;
  const int64_t width = in / of_row, kept = to.zeros ? rows + 1 : rows;
  const int64_t scales_row = rounding.by_group() ? groups : 1, repeated = scales_row / of_row;
  std::vector<Extremes> shared;
  if (rounding.by_sequence()) shared = ranges_of_sequences(x, rows, in, stride, sequences);
  at::parallel_for(0, kept, std::max<int64_t>(1, 16384 / in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int8_t* values = to.values + row * in;
      float* sums = to.sums + row * groups;
      float* scales = to.scales + row * scales_row;
      float* zeros = to.zeros ? to.zeros + row * scales_row : nullptr;
      if (row == rows) {  // the ones, whose products are sums of weights
        std::memset(values, 1, in);
        for (float* each : {sums, scales, zeros})
          std::fill(each, each + (each == sums ? groups : scales_row), 0.0f);
        continue;
      }
      for (int64_t i = 0; i < of_row; ++i) {
        const float* from = x + row * stride + i * width;
        const Extremes range = shared.empty() ? extremes(from, width) : shared[row];
        const Grid grid =
            rounding.scales ? static_grid(rounding, i, range) : grid_of(rounding, range);
        if (std::isnan(grid.scale)) std::memset(values + i * width, 0, width);
        else quantize(from, width, grid, values + i * width);
        std::fill_n(scales + i * repeated, repeated, grid.scale);
        if (zeros) std::fill_n(zeros + i * repeated, repeated, grid.zero - grid.offset);
      }
      wide() ? avx512::sum_groups(values, in, group, sums) : avx2::sum_groups(values, in, group, sums);
      for (int64_t g = 0; zeros && g < groups; ++g)
        sums[g] -= zeros[rounding.by_group() ? g : 0] * static_cast<float>(group);
    }
  });
}

}  // namespace radquant
