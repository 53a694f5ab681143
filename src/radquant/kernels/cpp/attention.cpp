// The cache of keys and values, and attention over it.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "decoder.h"

namespace radquant {
namespace {

constexpr int64_t TOKENS_AT_ONCE = 16;  // that read the shared pages of a head while they are cached
constexpr float NOTHING_SEEN = -__builtin_inff();

int within_page(int64_t position) {
  return static_cast<int>(std::clamp<int64_t>(position, 0, PAGE));
}

}  // namespace

float* Decoder::head_of(const Sequence& sequence, int64_t page, size_t layer, int64_t head) const {
  const int64_t of_head = 2 * PAGE * sizes_.head_dim;
  return sequence.pages[page].mutable_data_ptr<float>() +
         (static_cast<int64_t>(layer) * sizes_.kv_heads + head) * of_head;
}

// Make room for more tokens of a row.
void Decoder::reserve(int64_t row, int64_t tokens) {
  if (rows_.size() <= static_cast<size_t>(row)) rows_.resize(row + 1);
  Sequence& sequence = rows_[row];
  const int64_t needed = (sequence.length + tokens + PAGE - 1) / PAGE;
  while (static_cast<int64_t>(sequence.pages.size()) < needed) {
    if (spare_.empty()) {
      const int64_t layers = static_cast<int64_t>(layers_.size());
      spare_.push_back(
          at::empty({layers, sizes_.kv_heads, 2 * PAGE * sizes_.head_dim}, at::kFloat));
      ++pages_;
    }
    sequence.pages.push_back(spare_.back());
    spare_.pop_back();
  }
}

void Decoder::release(int64_t row) {
  TORCH_CHECK(row >= 0, "there is no row ", row);
  if (rows_.size() <= static_cast<size_t>(row)) return;
  for (auto& page : rows_[row].pages)
    if (page.use_count() == 1) spare_.push_back(std::move(page));  // else another row reads it, too
  rows_[row] = {};
}

void Decoder::clear() {
  for (size_t row = 0; row < rows_.size(); ++row) release(static_cast<int64_t>(row));
  for (auto& page : shared_.pages) spare_.push_back(std::move(page));
  shared_ = {};
}

void Decoder::share(int64_t row) {
  TORCH_CHECK(shared_.length == 0, "something is shared already");
  TORCH_CHECK(row >= 0 && static_cast<size_t>(row) < rows_.size(), "there is no row ", row);
  for (size_t other = 0; other < rows_.size(); ++other)
    TORCH_CHECK(static_cast<int64_t>(other) == row || rows_[other].length == 0,
                "other rows began without what is to be shared");
  shared_ = std::move(rows_[row]);
  rows_[row] = {};
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
  reserve(row, tokens);
  Sequence& sequence = rows_[row];
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    for (int64_t head = 0; head < sizes_.kv_heads; ++head)
      for (int64_t i = 0; i < tokens; ++i) {
        const int64_t place = sequence.length + i, from = (head * tokens + i) * dim;
        float* page = head_of(sequence, place / PAGE, layer, head);
        const float* key = keys[layer].const_data_ptr<float>() + from;
        const float* value = values[layer].const_data_ptr<float>() + from;
        for (int64_t d = 0; d < dim; ++d) page[d * PAGE + place % PAGE] = key[d];
        std::copy(value, value + dim, page + (PAGE + place % PAGE) * dim);
      }
  sequence.length += tokens;
}

int64_t Decoder::cache_bytes() const {
  return pages_ * static_cast<int64_t>(layers_.size()) * sizes_.kv_heads * 2 * PAGE *
         sizes_.head_dim * static_cast<int64_t>(sizeof(float));
}

// Normalize and rotate queries and keys, and put keys and values into the cache.
void Decoder::place_heads(const Layer& layer, size_t number, const Places& places) {
  const int64_t dim = sizes_.head_dim, heads = sizes_.heads, kv_heads = sizes_.kv_heads;
  auto* qkv = reinterpret_cast<float*>(qkv_.mutable_data_ptr<uint8_t>());
  const float* cosines = cosines_[layer.rope].const_data_ptr<float>();
  const float* sines = sines_[layer.rope].const_data_ptr<float>();
  const auto norm = [&](const at::Tensor& weight, float* head) {
    if (weight.defined())
      functions_.rms_norm(head, weight.const_data_ptr<float>(), dim, eps_, head);
  };
  at::parallel_for(0, places.count(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t position = places.position[token], place = position - shared_.length;
      const float* cosine = cosines + position * dim;
      const float* sine = sines + position * dim;
      float* head = qkv + token * layer.qkv.out;
      for (int64_t i = 0; i < heads; ++i, head += dim) {
        norm(layer.of_queries, head);
        functions_.rotate(head, cosine, sine, dim, query_scale_);
      }
      for (int64_t i = 0; i < kv_heads; ++i, head += dim) {
        norm(layer.of_keys, head);
        functions_.rotate(head, cosine, sine, dim, 1.0f);
        float* page = head_of(rows_[places.row[token]], place / PAGE, number, i);
        for (int64_t d = 0; d < dim; ++d) page[d * PAGE + place % PAGE] = head[d];
        const float* value = head + kv_heads * dim;
        std::copy(value, value + dim, page + (PAGE + place % PAGE) * dim);
      }
    }
  });
}

void Decoder::attend(const Layer& layer, size_t number, const Places& places) {
  const int64_t blocks = (places.count() + TOKENS_AT_ONCE - 1) / TOKENS_AT_ONCE;
  at::parallel_for(0, sizes_.kv_heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % blocks * TOKENS_AT_ONCE;
      attend_block(layer, number, places, item / blocks, first,
                   std::min(first + TOKENS_AT_ONCE, places.count()));
    }
  });
}

// Tokens begin … end - 1, all query heads that share one head of keys and values.
void Decoder::attend_block(const Layer& layer, size_t number, const Places& places, int64_t head,
                           int64_t begin, int64_t end) {
  const int64_t dim = sizes_.head_dim, sharing = sizes_.heads / sizes_.kv_heads;
  const auto* qkv = reinterpret_cast<const float*>(qkv_.const_data_ptr<uint8_t>());
  auto* attended = reinterpret_cast<float*>(attended_.mutable_data_ptr<uint8_t>());
  std::vector<Query> queries;
  for (int64_t token = begin; token < end; ++token)
    for (int64_t i = head * sharing; i < (head + 1) * sharing; ++i) {
      float* sum = attended + (token * sizes_.heads + i) * dim;
      std::fill(sum, sum + dim, 0.0f);
      queries.push_back({qkv + token * layer.qkv.out + i * dim, sum, NOTHING_SEEN, 0.0f});
    }
  // Queries of tokens [from, to) read a sequence whose first position is `start`.
  const auto read = [&](const Sequence& sequence, int64_t start, int64_t from, int64_t to) {
    const int64_t first = (from - begin) * sharing, count = (to - from) * sharing;
    const int64_t tiles = (count + MOST_QUERIES - 1) / MOST_QUERIES;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t low = first + count * tile / tiles, high = first + count * (tile + 1) / tiles;
      Query* members[MOST_QUERIES];
      int64_t sees_from[MOST_QUERIES], sees_to[MOST_QUERIES], least = sequence.length, most = 0;
      for (int64_t i = low; i < high; ++i) {
        const int64_t token = begin + i / sharing, position = places.position[token];
        members[i - low] = &queries[i];
        sees_from[i - low] = std::max<int64_t>(0, position + 1 - layer.window - start);
        sees_to[i - low] = std::min(sequence.length, places.sees_to[token] - start);
        least = std::min(least, sees_from[i - low]);
        most = std::max(most, sees_to[i - low]);
      }
      for (int64_t page = least / PAGE; page * PAGE < most; ++page) {
        Range seen[MOST_QUERIES];
        for (int64_t i = 0; i < high - low; ++i)
          seen[i] = {within_page(sees_from[i] - page * PAGE), within_page(sees_to[i] - page * PAGE)};
        const float* keys = head_of(sequence, page, number, head);
        functions_.attend({keys, keys + PAGE * dim}, dim, members, seen,
                          static_cast<int>(high - low));
      }
    }
  };
  if (shared_.length) read(shared_, 0, begin, end);
  for (int64_t from = begin, to; from < end; from = to) {
    for (to = from + 1; to < end && places.row[to] == places.row[from]; ++to) {}
    read(rows_[places.row[from]], shared_.length, from, to);
  }
  for (const Query& query : queries)
    for (int64_t d = 0; d < dim; ++d) query.sum[d] /= query.total;
}

}  // namespace radquant
