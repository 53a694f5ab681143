// A Rounding out of what Python says of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "linear.h"

namespace radquant {

// numbers: what shares a scale, low, high, symmetric, group, as in Rounding; none for the grid of 8
// bits a row. keep: of a dynamic range. ranges: scales and zeros of a static one, [2, 1] float32 or
// [2, in / numbers[4]], which must outlive the Rounding. group: of the weights.
Rounding rounding_of(at::IntArrayRef numbers, double keep, const std::optional<at::Tensor>& ranges,
                     int64_t in, int64_t group);

}  // namespace radquant
