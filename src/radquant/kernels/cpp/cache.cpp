// The cache of keys and values: pages, in floats or in bytes.

#include <ATen/ops/empty.h>

#include "decoder.h"

namespace radquant {

int64_t Decoder::cache_group() const { return std::min(cache_->group, sizes_.head_dim); }

int64_t Decoder::head_bytes(bool bytes) const {
  const int64_t values = 2 * PAGE * sizes_.head_dim;
  constexpr int64_t item = sizeof(float);
  return bytes ? values + 4 * item * PAGE * (sizes_.head_dim / cache_group()) : values * item;
}

uint8_t* Decoder::head_of(const Sequence& sequence, int64_t page, size_t layer,
                          int64_t head) const {
  return sequence.pages[page].mutable_data_ptr<uint8_t>() +
         (static_cast<int64_t>(layer) * sizes_.kv_heads + head) * head_bytes(sequence.bytes);
}

KeptPage Decoder::kept_page(uint8_t* head) const {
  const int64_t states = PAGE * sizes_.head_dim, numbers = PAGE * sizes_.head_dim / cache_group();
  const auto* bytes = reinterpret_cast<const int8_t*>(head);
  const auto* scales = reinterpret_cast<const float*>(head + 2 * states);
  return {bytes,  bytes + states, scales, scales + numbers, scales + 2 * numbers, scales + 3 * numbers,
          cache_group()};
}

void Decoder::keep(size_t layer, const Sequence& sequence, int64_t place, const float* keys,
                   const float* values, int8_t* scratch) {
  const int64_t dim = sizes_.head_dim, page = place / PAGE, seat = place % PAGE;
  const auto put = [&](auto* to, const auto* from, bool of_keys) {
    if (of_keys)
      for (int64_t d = 0; d < dim; ++d) to[d * PAGE + seat] = from[d];
    else
      std::copy(from, from + dim, to + (PAGE + seat) * dim);
  };
  for (const float* states : {keys, values}) {
    const bool of_keys = states == keys;
    if (!sequence.bytes) {
      for (int64_t i = 0; i < sizes_.kv_heads; ++i)
        put(reinterpret_cast<float*>(head_of(sequence, page, layer, i)), states + i * dim, of_keys);
      continue;
    }
    const int64_t all = sizes_.kv_heads * dim, of_head = dim / cache_group();
    for (int64_t from = 0; from < all; from += cache_->group) {
      const Grid grid = grid_of(*cache_, extremes(states + from, cache_->group));
      quantize(states + from, cache_->group, grid, scratch + from);
      for (int64_t at = from; at < from + cache_->group; at += cache_group()) {
        uint8_t* head = head_of(sequence, page, layer, at / dim);
        auto* scales = reinterpret_cast<float*>(head + 2 * PAGE * dim) + !of_keys * 2 * of_head * PAGE;
        const int64_t number = at % dim / cache_group() * PAGE + seat;
        scales[number] = grid.scale;
        scales[of_head * PAGE + number] = grid.zero - grid.offset;
      }
    }
    for (int64_t i = 0; i < sizes_.kv_heads; ++i)
      put(reinterpret_cast<int8_t*>(head_of(sequence, page, layer, i)), scratch + i * dim, of_keys);
  }
}

// Make room for more tokens of a row.
void Decoder::reserve(int64_t row, int64_t tokens, bool bytes) {
  if (rows_.size() <= static_cast<size_t>(row)) rows_.resize(row + 1);
  Sequence& sequence = rows_[row];
  TORCH_CHECK(sequence.length == 0 || sequence.bytes == bytes, "share what was loaded first");
  sequence.bytes = bytes;
  const int64_t needed = (sequence.length + tokens + PAGE - 1) / PAGE;
  auto& spare = spare_[bytes];
  while (static_cast<int64_t>(sequence.pages.size()) < needed) {
    if (spare.empty()) {
      const int64_t heads = static_cast<int64_t>(layers_.size()) * sizes_.kv_heads;
      spare.push_back(at::empty({heads * head_bytes(bytes)}, at::kByte));
      ++pages_[bytes];
    }
    sequence.pages.push_back(spare.back());
    spare.pop_back();
  }
}

void Decoder::release(int64_t row) {
  TORCH_CHECK(row >= 0, "there is no row ", row);
  if (rows_.size() <= static_cast<size_t>(row)) return;
  for (auto& page : rows_[row].pages)
    if (page.use_count() == 1)  // else another row reads it, too
      spare_[rows_[row].bytes].push_back(std::move(page));
  rows_[row] = {};
}

void Decoder::clear() {
  for (size_t row = 0; row < rows_.size(); ++row) release(static_cast<int64_t>(row));
  for (Sequence& sequence : shared_)
    for (auto& page : sequence.pages) spare_[sequence.bytes].push_back(std::move(page));
  shared_.clear();
  shared_length_ = 0;
}

void Decoder::share(int64_t row) {
  TORCH_CHECK(row >= 0 && static_cast<size_t>(row) < rows_.size(), "there is no row ", row);
  for (size_t other = 0; other < rows_.size(); ++other)
    TORCH_CHECK(static_cast<int64_t>(other) == row || rows_[other].length == 0,
                "other rows began without what is to be shared");
  shared_length_ += rows_[row].length;
  shared_.push_back(std::move(rows_[row]));
  rows_[row] = {};
}

void Decoder::round_cache(const std::vector<int64_t>& numbers) {
  clear();
  TORCH_CHECK(numbers.size() == 5, "need five numbers");
  const int64_t all = sizes_.kv_heads * sizes_.head_dim, group = numbers[4];
  cache_ = rounding_of(numbers, 1.0, std::nullopt, all, group);
  TORCH_CHECK(group == all || (group % LANES == 0 && sizes_.head_dim % group == 0),
              "groups of ", group, " do not fit heads of ", sizes_.head_dim, " channels");
  for (int bytes : {0, 1}) {
    spare_[bytes].clear();
    pages_[bytes] = 0;
  }
}

void Decoder::load(int64_t row, const std::vector<at::Tensor>& keys,
                   const std::vector<at::Tensor>& values) {
  TORCH_CHECK(keys.size() == layers_.size() && values.size() == layers_.size() && row >= 0,
              "need keys and values of each layer");
  const int64_t dim = sizes_.head_dim, tokens = keys.empty() ? 0 : keys[0].size(1);
  for (const auto* states : {&keys, &values})
    for (const at::Tensor& of_layer : *states)
      TORCH_CHECK(of_layer.sizes() == at::IntArrayRef({sizes_.kv_heads, tokens, dim}) &&
                      of_layer.scalar_type() == at::kFloat && of_layer.is_contiguous(),
                  "keys and values must be float32 [kv_heads, tokens, head_dim]");
  reserve(row, tokens, false);
  Sequence& sequence = rows_[row];
  TORCH_CHECK(sequence.length == 0, "row ", row, " is not empty");
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const at::Tensor of_keys = keys[layer].transpose(0, 1).contiguous();
    const at::Tensor of_values = values[layer].transpose(0, 1).contiguous();
    for (int64_t i = 0, from = 0; i < tokens; ++i, from += sizes_.kv_heads * dim)
      keep(layer, sequence, i, of_keys.const_data_ptr<float>() + from,
           of_values.const_data_ptr<float>() + from, nullptr);
  }
  sequence.length = tokens;
}

int64_t Decoder::cache_bytes() const {
  const int64_t heads = static_cast<int64_t>(layers_.size()) * sizes_.kv_heads;
  return heads * (pages_[0] * head_bytes(false) + (cache_ ? pages_[1] * head_bytes(true) : 0));
}

}  // namespace radquant
