// Rows that begin as others do.

#include <ATen/core/Tensor.h>

#include "decoder.h"

namespace radquant {

void Decoder::begin_as(int64_t row, int64_t other, int64_t tokens) {
  const auto known = [&](int64_t number) {
    return number >= 0 && static_cast<size_t>(number) < rows_.size();
  };
  TORCH_CHECK(row >= 0 && known(other) && row != other, "there is no row ", other);
  TORCH_CHECK(!whole_rows_, "all tokens of a row share a scale, and must come together");
  if (!known(row)) rows_.resize(row + 1);
  TORCH_CHECK(rows_[row].length == 0, "row ", row, " has begun already");
  TORCH_CHECK(0 <= tokens && tokens <= rows_[other].length, "row ", other, " holds no ", tokens,
              " tokens");
  release(row);  // what it was to hold
  rows_[row] = rows_[other];
  rows_[row].pages.resize(tokens / PAGE);
  rows_[row].length = tokens / PAGE * PAGE;
  if (tokens % PAGE == 0) return;
  reserve(row, tokens % PAGE, rows_[other].bytes);
  rows_[row].pages.back().copy_(rows_[other].pages[tokens / PAGE]);
  rows_[row].length = tokens;
}

}  // namespace radquant
