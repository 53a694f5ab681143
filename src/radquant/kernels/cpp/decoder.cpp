#include "decoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <string>

namespace radquant {
namespace {

using at::Tensor;

constexpr int64_t CHUNK = 512;    // tokens that pass all layers together; bounds the memory
constexpr int64_t GRAIN = 16384;  // floats that are worth a thread

const Functions& functions_here() {
  TORCH_CHECK(supported(), "this processor lacks AVX2");
  return std::string(level()).starts_with("avx512") ? functions_avx512 : functions_avx2;
}

Tensor as_floats(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->to(at::kFloat).contiguous() : Tensor();
}

// At least `count` floats (or bytes) in a buffer that is kept.
template <typename T>
T* grown(Tensor& buffer, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  if (!buffer.defined() || buffer.numel() < bytes) buffer = at::empty({bytes}, at::kByte);
  return reinterpret_cast<T*>(buffer.mutable_data_ptr<uint8_t>());
}

void check_rising(const int64_t* places, int64_t count, int64_t tokens, const char* name) {
  for (int64_t i = 0; i < count; ++i)
    TORCH_CHECK(0 <= places[i] && places[i] < tokens && (i == 0 || places[i - 1] < places[i]), name,
                " must rise and lie among the tokens");
}

// Where the tokens end that pass all layers together, beginning with `first`. A block goes as a
// whole: in the next chunk, or in one of its size. Its tokens see those behind them, or share scales.
int64_t chunk_end(int64_t first, int64_t count, const int64_t* blocks, int64_t numbers) {
  const int64_t end = std::min(first + CHUNK, count);
  for (int64_t i = 0; i < numbers; i += 2)
    if (blocks[i] < end && end < blocks[i + 1]) return blocks[i] > first ? blocks[i] : blocks[i + 1];
  return end;
}

int64_t rows_worth_a_thread(int64_t width) { return std::max<int64_t>(1, GRAIN / width); }

}  // namespace

Decoder::Decoder(const std::vector<int64_t>& sizes, const std::vector<double>& numbers, bool gelu,
                 std::optional<Tensor> embedding, int64_t plain)
    : gelu_(gelu),
      embedding_(embedding ? embedding->contiguous() : Tensor()),
      plain_(static_cast<Input>(plain)),
      functions_(functions_here()) {
  TORCH_CHECK(sizes.size() == 5 && numbers.size() == 4, "need 5 sizes and 4 numbers");
  TORCH_CHECK(0 <= plain && plain <= 1, "unknown input");
  sizes_ = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  eps_ = static_cast<float>(numbers[0]);
  query_scale_ = static_cast<float>(numbers[1]);
  embedding_scale_ = numbers[2];
  cap_ = static_cast<float>(numbers[3]);
  for (int64_t width : {sizes_.hidden, sizes_.head_dim, sizes_.inner})
    TORCH_CHECK(width > 0 && width % LANES == 0, "a width of ", width, " is no multiple of ", LANES);
  TORCH_CHECK(sizes_.kv_heads > 0 && sizes_.heads % sizes_.kv_heads == 0,
              sizes_.heads, " heads cannot share ", sizes_.kv_heads);
  TORCH_CHECK(!embedding || (embedding_.dim() == 2 && embedding_.size(1) == sizes_.hidden),
              "unfit embedding");
}

Part Decoder::part_of(Tensor data, const std::optional<Tensor>& bias, int64_t kind, int64_t in,
                      int64_t out, int64_t group) const {
  TORCH_CHECK(kind >= 0 && kind <= 4, "unknown kind ", kind);
  Part part{data.contiguous(), {static_cast<Kind>(kind), in, out, group, nullptr}, as_floats(bias),
            plain_, {}, {}};
  part.weight.data = part.data.const_data_ptr<uint8_t>();
  TORCH_CHECK(out > 0 && in % 8 == 0 && group > 0 && group % 8 == 0 && in % group == 0 &&
                  (part.weight.kind < Kind::BF16 ? group <= 65536 : group == in),
              "in ", in, ", out ", out, " and group ", group, " do not fit");
  TORCH_CHECK(part.data.numel() == part.weight.blocks() * part.weight.block_bytes() &&
                  reinterpret_cast<uintptr_t>(part.weight.data) % LINE == 0,
              "these are not the bytes of a weight of this shape");
  TORCH_CHECK(!part.bias.defined() || part.bias.numel() == out, "unfit bias");
  return part;
}

void Decoder::set_rounding(std::vector<int64_t> numbers, double keep) {
  TORCH_CHECK(numbers.size() == 5, "need five numbers");
  whole_rows_ = numbers[0] == static_cast<int64_t>(Rounding::Shared::SEQUENCE);
  rounding_ = std::move(numbers);
  keep_ = keep;
}

void Decoder::add_part(Product& product, Part part, int64_t input,
                       const std::optional<Tensor>& ranges) const {
  TORCH_CHECK(input == static_cast<int64_t>(plain_) ||
                  (input == static_cast<int64_t>(Input::I8) && part.weight.kind < Kind::BF16),
              "activations cannot enter so");
  part.input = static_cast<Input>(input);
  if (part.input == Input::I8) {
    part.ranges = as_floats(ranges);
    const auto stored = ranges ? std::optional(part.ranges) : std::nullopt;
    part.rounding = rounding_of(rounding_, keep_, stored, part.weight.in, part.weight.group);
  }
  if (!product.parts.empty()) {
    const Part& last = product.parts.back();
    const bool ranged = part.ranges.defined();
    part.as_before = last.weight.kind == part.weight.kind && last.input == part.input &&
                     last.weight.group == part.weight.group && last.ranges.defined() == ranged &&
                     (!ranged || at::equal(last.ranges, part.ranges));
  }
  product.out += part.weight.out;
  product.parts.push_back(std::move(part));
}

void Decoder::add_layer(const std::vector<std::optional<Tensor>>& norms,
                        const std::vector<Tensor>& weights,
                        const std::vector<std::vector<int64_t>>& shapes,
                        const std::vector<std::optional<Tensor>>& biases,
                        const std::vector<std::optional<Tensor>>& ranges, int64_t window,
                        int64_t rope) {
  TORCH_CHECK(norms.size() == 6 && norms[0] && norms[2], "need six norms, two of them given");
  TORCH_CHECK(weights.size() == shapes.size() && weights.size() == biases.size() &&
                  weights.size() == ranges.size() && window > 0,
              "each weight needs a shape and places for a bias and a range");
  Layer layer;
  Tensor* places[] = {&layer.before_attention, &layer.after_attention, &layer.before_mlp,
                      &layer.after_mlp,        &layer.of_queries,      &layer.of_keys};
  for (int i = 0; i < 6; ++i) {
    *places[i] = as_floats(norms[i]);
    TORCH_CHECK(!norms[i] || places[i]->numel() == (i < 4 ? sizes_.hidden : sizes_.head_dim),
                "norm ", i, " has another width");
  }
  Product* products[] = {&layer.qkv, &layer.output, &layer.gate_up, &layer.down};
  const int64_t attended = sizes_.heads * sizes_.head_dim;
  const int64_t in[] = {sizes_.hidden, attended, sizes_.hidden, sizes_.inner};
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK(shapes[i].size() == 5 && shapes[i][0] >= 0 && shapes[i][0] < 4, "unfit shape");
    add_part(*products[shapes[i][0]],
             part_of(weights[i], biases[i], shapes[i][1], in[shapes[i][0]], shapes[i][2],
                     shapes[i][3]),
             shapes[i][4], ranges[i]);
  }
  const int64_t out[] = {attended + 2 * sizes_.kv_heads * sizes_.head_dim, sizes_.hidden,
                         2 * sizes_.inner, sizes_.hidden};
  for (int i = 0; i < 4; ++i)
    TORCH_CHECK(products[i]->out == out[i], "product ", i, " writes ", products[i]->out,
                " channels, not ", out[i]);
  layer.window = window;
  layer.rope = rope;
  layers_.push_back(std::move(layer));
}

void Decoder::set_head(Tensor norm, Tensor weight, const std::vector<int64_t>& shape) {
  TORCH_CHECK(shape.size() == 3 && norm.numel() == sizes_.hidden, "unfit head");
  TORCH_CHECK(embedding_.defined() || shape[0] >= 1, "a head of 4 bits cannot be the embedding");
  final_norm_ = as_floats(norm);
  head_.parts = {part_of(weight, std::nullopt, shape[0], sizes_.hidden, shape[1], shape[2])};
  head_.out = shape[1];
}

void Decoder::set_rope(std::vector<Tensor> cosines, std::vector<Tensor> sines) {
  TORCH_CHECK(cosines.size() == sines.size() && !cosines.empty(), "need cosines and sines");
  for (auto* tables : {&cosines, &sines})
    for (Tensor& table : *tables) {
      table = as_floats(table);
      TORCH_CHECK(table.dim() == 2 && table.size(1) == sizes_.head_dim &&
                      table.size(0) == cosines[0].size(0),
                  "unfit rotary table");
    }
  cosines_ = std::move(cosines);
  sines_ = std::move(sines);
}

Tensor Decoder::run(const Tensor& ids, const Tensor& rows, const Tensor& wanted) {
  const Tensor none = at::empty({0}, at::kLong);
  return run_shown(ids, rows, wanted, at::empty({0, sizes_.hidden}, at::kFloat), none,
                   none.view({0, 2}));
}

Tensor Decoder::run_shown(const Tensor& ids, const Tensor& rows, const Tensor& wanted,
                          const Tensor& vectors, const Tensor& seats, const Tensor& blocks) {
  TORCH_CHECK(ids.scalar_type() == at::kLong && rows.scalar_type() == at::kLong &&
                  wanted.scalar_type() == at::kLong && ids.dim() == 1 &&
                  ids.sizes() == rows.sizes() && wanted.dim() == 1,
              "ids, rows and wanted must be int64 vectors, the first two of equal length");
  TORCH_CHECK(seats.scalar_type() == at::kLong && seats.dim() == 1 &&
                  blocks.scalar_type() == at::kLong && blocks.dim() == 2 && blocks.size(1) == 2 &&
                  vectors.scalar_type() == at::kFloat &&
                  vectors.sizes() == at::IntArrayRef({seats.size(0), sizes_.hidden}),
              "need a float32 vector of ", sizes_.hidden, " for each int64 place, and blocks [k, 2]");
  TORCH_CHECK(head_.out > 0 && !cosines_.empty(), "there is no head or no rotary table yet");
  const int64_t count = ids.numel();
  const Tensor tokens = ids.clone(at::MemoryFormat::Contiguous);
  const Tensor of_rows = rows.contiguous(), picked = wanted.contiguous();
  const Tensor shown = vectors.contiguous(), seated = seats.contiguous();
  const Tensor together = blocks.contiguous();
  const auto* row = of_rows.const_data_ptr<int64_t>();
  auto* token = tokens.mutable_data_ptr<int64_t>();
  const auto* pick = picked.const_data_ptr<int64_t>();
  const auto* seat = seated.const_data_ptr<int64_t>();
  const auto* block = together.const_data_ptr<int64_t>();
  const int64_t shown_count = seated.numel(), last_block = together.numel();
  check_rising(pick, picked.numel(), count, "wanted places");
  check_rising(seat, shown_count, count, "places of vectors");
  for (int64_t i = 0; i < shown_count; ++i) token[seat[i]] = 0;  // a table need not know image tokens
  for (int64_t i = 0; i < count; ++i)
    TORCH_CHECK(0 <= token[i] && token[i] < vocabulary(), "there is no token ", token[i]);
  for (int64_t i = 0; i < last_block; i += 2)
    TORCH_CHECK((i ? block[i - 1] : 0) <= block[i] && block[i] < block[i + 1] &&
                    block[i + 1] <= count && row[block[i]] == row[block[i + 1] - 1],
                "blocks must rise, and each lie within the tokens of a row");
  std::vector<bool> seen(rows_.size());
  std::vector<int64_t> of_row;  // where each row's tokens begin and end
  for (int64_t begin = 0, end; begin < count; begin = end) {
    for (end = begin + 1; end < count && row[end] == row[begin]; ++end) {}
    TORCH_CHECK(row[begin] >= 0, "there is no row ", row[begin]);
    if (seen.size() <= static_cast<size_t>(row[begin])) seen.resize(row[begin] + 1);
    TORCH_CHECK(!seen[row[begin]], "the tokens of row ", row[begin], " are not neighbours");
    seen[row[begin]] = true;
    of_row.insert(of_row.end(), {begin, end});
    reserve(row[begin], end - begin, cache_.has_value());
    const int64_t length = shared_length_ + rows_[row[begin]].length + end - begin;
    TORCH_CHECK(length <= cosines_[0].size(0), "the rotary tables are too short for ", length,
                " tokens");
  }
  // Nothing fails from here on: rows are either all longer or, by an error above, none.
  Tensor result = at::empty({picked.numel(), sizes_.hidden}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  int64_t next = 0, next_seat = 0, next_block = 0;
  for (int64_t first = 0, end; first < count; first = end) {
    end = whole_rows_ ? chunk_end(first, count, of_row.data(), static_cast<int64_t>(of_row.size()))
                      : chunk_end(first, count, block, last_block);
    Places places;
    for (int64_t i = first; i < end; ++i) {
      places.row.push_back(row[i]);
      places.position.push_back(shared_length_ + rows_[row[i]].length++);
      places.sees_to.push_back(places.position.back() + 1);
    }
    for (; next_block < last_block && block[next_block] < end; next_block += 2)
      for (int64_t i = block[next_block]; i < block[next_block + 1]; ++i)
        places.sees_to[i - first] = places.position[block[next_block + 1] - 1 - first] + 1;
    float* x = grown<float>(x_, (end - first) * sizes_.hidden);
    embed(tokens.narrow(0, first, end - first), x);
    for (; next_seat < shown_count && seat[next_seat] < end; ++next_seat)
      std::memcpy(x + (seat[next_seat] - first) * sizes_.hidden,
                  shown.const_data_ptr<float>() + next_seat * sizes_.hidden,
                  sizes_.hidden * sizeof(float));
    forward(places, x);
    for (; next < picked.numel() && pick[next] < end; ++next)
      functions_.rms_norm(x + (pick[next] - first) * sizes_.hidden,
                          final_norm_.const_data_ptr<float>(), sizes_.hidden, eps_,
                          out + next * sizes_.hidden);
  }
  return result;
}

int64_t Decoder::vocabulary() const { return embedding_.defined() ? embedding_.size(0) : head_.out; }

void Decoder::embed(const Tensor& ids, float* x) const {
  if (embedding_.defined()) {
    const Tensor embedded = embedding_.index_select(0, ids).to(at::kFloat).mul_(embedding_scale_);
    std::memcpy(x, embedded.const_data_ptr<float>(), embedded.numel() * sizeof(float));
    return;
  }
  const auto* token = ids.const_data_ptr<int64_t>();
  const auto scale = static_cast<float>(embedding_scale_);
  for (int64_t i = 0; i < ids.numel(); ++i, x += sizes_.hidden) {
    channel_of(head_.parts[0].weight, token[i], x);
    for (int64_t k = 0; k < sizes_.hidden; ++k) x[k] *= scale;
  }
}

void Decoder::forward(const Places& places, float* x) {
  const int64_t rows = places.count();
  grown<float>(normed_, rows * sizes_.hidden);
  grown<float>(y_, rows * sizes_.hidden);
  grown<float>(qkv_, rows * layers_[0].qkv.out);
  grown<float>(attended_, rows * sizes_.heads * sizes_.head_dim);
  grown<float>(inner_, rows * 2 * sizes_.inner);
  for (size_t number = 0; number < layers_.size(); ++number) run_layer(number, places, x);
}

void Decoder::run_layer(size_t number, const Places& places, float* x) {
  const Layer& layer = layers_[number];
  const int64_t rows = places.count(), hidden = sizes_.hidden, inner = sizes_.inner;
  const int64_t attended = sizes_.heads * sizes_.head_dim;
  const int64_t* sequences = places.row.data();
  auto* normed = grown<float>(normed_, 0);
  auto* y = grown<float>(y_, 0);
  auto* wide = grown<float>(inner_, 0);
  norm_rows(layer.before_attention, x, rows, normed);
  multiply_all(layer.qkv, normed, rows, hidden, hidden, sequences, grown<float>(qkv_, 0));
  place_heads(layer, number, places);
  attend(layer, number, places);
  multiply_all(layer.output, grown<float>(attended_, 0), rows, attended, attended, sequences, y);
  add_rows(layer.after_attention, y, rows, x);
  norm_rows(layer.before_mlp, x, rows, normed);
  multiply_all(layer.gate_up, normed, rows, hidden, hidden, sequences, wide);
  at::parallel_for(0, rows, rows_worth_a_thread(inner), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      functions_.gated(wide + row * 2 * inner, wide + row * 2 * inner + inner, inner, gelu_);
  });
  multiply_all(layer.down, wide, rows, inner, 2 * inner, sequences, y);
  add_rows(layer.after_mlp, y, rows, x);
}

void Decoder::norm_rows(const Tensor& weight, const float* x, int64_t rows, float* out) {
  const float* factors = weight.const_data_ptr<float>();
  at::parallel_for(0, rows, rows_worth_a_thread(sizes_.hidden), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * sizes_.hidden; i < end * sizes_.hidden; i += sizes_.hidden)
      functions_.rms_norm(x + i, factors, sizes_.hidden, eps_, out + i);
  });
}

// x += y, which is normalized first where there is a norm.
void Decoder::add_rows(const Tensor& norm, float* y, int64_t rows, float* x) {
  if (norm.defined()) norm_rows(norm, y, rows, y);
  functions_.add(y, rows * sizes_.hidden, x);
}

void Decoder::multiply_all(const Product& product, const float* x, int64_t rows, int64_t in,
                           int64_t stride, const int64_t* sequences, float* y) {
  Prepared ready{};
  for (const Part& part : product.parts) {
    const Weight& weight = part.weight;
    if (!part.as_before) {
      const Input input = rounds_ ? part.input : plain_;
      const int64_t bytes =
          prepared_bytes(rows, in, weight.group, weight.kind, input, part.rounding);
      ready = prepare(x, rows, in, stride, weight.group, weight.kind, input,
                      grown<uint8_t>(scratch_, bytes), part.rounding, sequences);
    }
    multiply(ready, weight, y, product.out);
    if (part.bias.defined())
      for (int64_t row = 0; row < rows; ++row)
        functions_.add(part.bias.const_data_ptr<float>(), weight.out, y + row * product.out);
    y += weight.out;
  }
}

Tensor Decoder::logits(const Tensor& hidden) {
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == sizes_.hidden &&
                  hidden.scalar_type() == at::kFloat && head_.out > 0,
              "hidden states must be float32 [n, ", sizes_.hidden, "]");
  const Tensor read = hidden.contiguous();
  Tensor result = at::empty({read.size(0), head_.out}, at::kFloat);
  if (!read.size(0)) return result;
  auto* scores = result.mutable_data_ptr<float>();
  multiply_all(head_, read.const_data_ptr<float>(), read.size(0), sizes_.hidden, sizes_.hidden,
               nullptr, scores);
  if (cap_ > 0) functions_.soft_cap(scores, result.numel(), cap_);
  return result;
}

Tensor Decoder::greedy(const Tensor& hidden) {
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == sizes_.hidden &&
                  hidden.scalar_type() == at::kFloat && head_.out > 0,
              "hidden states must be float32 [n, ", sizes_.hidden, "]");
  const Tensor read = hidden.contiguous();
  const int64_t rows = read.size(0), out = head_.out;
  Tensor result = at::empty({rows}, at::kLong);
  if (!rows) return result;
  auto* scores = grown<float>(scores_, rows * out);
  // The cap would change no order.
  multiply_all(head_, read.const_data_ptr<float>(), rows, sizes_.hidden, sizes_.hidden, nullptr,
               scores);
  auto* best = result.mutable_data_ptr<int64_t>();
  at::parallel_for(0, rows, rows_worth_a_thread(out), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      best[row] = functions_.largest(scores + row * out, out);
  });
  return result;
}

int64_t Decoder::weight_bytes() const {
  int64_t bytes = 0;
  const auto add = [&](const Tensor& tensor) { bytes += tensor.defined() ? tensor.nbytes() : 0; };
  add(embedding_);
  add(final_norm_);
  const auto add_product = [&](const Product& product) {
    for (const Part& part : product.parts) {
      add(part.data);
      add(part.bias);
    }
  };
  add_product(head_);
  for (const Layer& layer : layers_) {
    for (const auto* norm : {&layer.before_attention, &layer.after_attention, &layer.before_mlp,
                             &layer.after_mlp, &layer.of_queries, &layer.of_keys})
      add(*norm);
    for (const auto* product : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down})
      add_product(*product);
  }
  return bytes;
}

}  // namespace radquant
