// Attention over the cache of keys and values.

#include <ATen/Parallel.h>

#include "decoder.h"

namespace radquant {
namespace {

constexpr int64_t TOKENS_AT_ONCE = 16;  // that read the shared pages of a head while they are cached
constexpr float NOTHING_SEEN = -__builtin_inff();

int within_page(int64_t position) {
  return static_cast<int>(std::clamp<int64_t>(position, 0, PAGE));
}

}  // namespace

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
    std::vector<int8_t> scratch(kv_heads * dim);
    for (int64_t token = begin; token < end; ++token) {
      const int64_t position = places.position[token];
      const float* cosine = cosines + position * dim;
      const float* sine = sines + position * dim;
      float* head = qkv + token * layer.qkv.out;
      for (int64_t i = 0; i < heads; ++i, head += dim) {
        norm(layer.of_queries, head);
        functions_.rotate(head, cosine, sine, dim, query_scale_);
      }
      const float* keys = head;
      for (int64_t i = 0; i < kv_heads; ++i, head += dim) {
        norm(layer.of_keys, head);
        functions_.rotate(head, cosine, sine, dim, 1.0f);
      }
      keep(number, rows_[places.row[token]], position - shared_length_, keys, head,
           scratch.data());
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
  int64_t start = 0;
  for (const Sequence& sequence : shared_) {
    read(layer, number, head, sequence, start, places, begin, end, queries.data());
    start += sequence.length;
  }
  for (int64_t from = begin, to; from < end; from = to) {
    for (to = from + 1; to < end && places.row[to] == places.row[from]; ++to) {}
    read(layer, number, head, rows_[places.row[from]], start, places, from, to,
         queries.data() + (from - begin) * sharing);
  }
  for (const Query& query : queries)
    for (int64_t d = 0; d < dim; ++d) query.sum[d] /= query.total;
}

// Let the queries of tokens first ... end - 1 read a sequence whose first position is `start`.
void Decoder::read(const Layer& layer, size_t number, int64_t head, const Sequence& sequence,
                   int64_t start, const Places& places, int64_t first, int64_t end,
                   Query* queries) {
  struct Tile {
    Query* members[MOST_QUERIES];
    int64_t from[MOST_QUERIES], to[MOST_QUERIES];  // what each sees
    int64_t least = 0, most = 0;
    int count = 0;
  };
  const int64_t dim = sizes_.head_dim, sharing = sizes_.heads / sizes_.kv_heads;
  const int64_t count = (end - first) * sharing;
  const int64_t parts = (count + MOST_QUERIES - 1) / MOST_QUERIES;
  std::vector<Tile> tiles(parts);
  int64_t least = sequence.length, most = 0, next = 0;
  for (int64_t part = 0; part < parts; ++part) {
    Tile& tile = tiles[part];
    tile.least = sequence.length;
    const int64_t high = count * (part + 1) / parts;
    for (; next < high; ++next, ++tile.count) {
      const int64_t token = first + next / sharing;
      const int64_t from = places.position[token] + 1 - layer.window - start;
      tile.members[tile.count] = queries + next;
      tile.from[tile.count] = std::max<int64_t>(0, from);
      tile.to[tile.count] = std::min(sequence.length, places.sees_to[token] - start);
      tile.least = std::min(tile.least, tile.from[tile.count]);
      tile.most = std::max(tile.most, tile.to[tile.count]);
    }
    least = std::min(least, tile.least);
    most = std::max(most, tile.most);
  }
  static thread_local std::vector<float> unpacked;
  if (sequence.bytes) unpacked.resize(2 * PAGE * dim);
  // Pages outside: one in bytes is unpacked once for all tiles.
  for (int64_t page = least / PAGE; page * PAGE < most; ++page) {
    uint8_t* kept = head_of(sequence, page, number, head);
    const float* keys = reinterpret_cast<const float*>(kept);
    if (sequence.bytes) {
      functions_.unpack(kept_page(kept), dim, unpacked.data());
      keys = unpacked.data();
    }
    for (const Tile& tile : tiles) {
      if (page < tile.least / PAGE || page * PAGE >= tile.most) continue;
      Range seen[MOST_QUERIES];
      for (int i = 0; i < tile.count; ++i)
        seen[i] = {within_page(tile.from[i] - page * PAGE), within_page(tile.to[i] - page * PAGE)};
      functions_.attend({keys, keys + PAGE * dim}, dim, tile.members, seen, tile.count);
    }
  }
}

}  // namespace radquant
