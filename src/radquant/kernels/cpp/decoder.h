// A whole step of a decoder-only language model: tokens in, hidden states or next tokens out.
//
// Everything is computed in float32 (residual stream, norms, rotary embedding, attention, keys and
// values); only products take their inputs as asked. Tokens of all rows stand one behind the other,
// so nothing is padded, and no row's result depends on the rows beside it.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <optional>
#include <vector>

#include "decoder_levels.h"
#include "linear.h"
#include "rounding.h"

namespace radquant {

struct Part {
  at::Tensor data;
  Weight weight;
  at::Tensor bias;  // [out] float32, or undefined
  Input input;      // how activations enter
  Rounding rounding;
  at::Tensor ranges;       // what `rounding` points into, or undefined
  bool as_before = false;  // what enters is what enters the part before
};

// Products that read the same and are written side by side.
struct Product {
  std::vector<Part> parts;
  int64_t out = 0;
};

struct Layer {
  // Weights of norms, float32. Undefined where the architecture has none.
  at::Tensor before_attention, after_attention, before_mlp, after_mlp;  // [hidden]
  at::Tensor of_queries, of_keys;                                       // [head_dim]
  Product qkv, output, gate_up, down;
  int64_t window;  // positions that a token sees, itself included
  int64_t rope;    // which of the rotary tables
};

struct Sizes {
  int64_t hidden, heads, kv_heads, head_dim, inner;  // inner: of the MLP
};

// Positions of one row, or of what all rows begin with: pages of keys and values. A page holds PAGE
// positions of all layers, [layers][kv_heads][keys [head_dim][PAGE], values [PAGE][head_dim]] in
// floats, or in bytes with scales and zeros of keys and of values behind them (see KeptPage).
struct Sequence {
  std::vector<at::Tensor> pages;
  int64_t length = 0;
  bool bytes = false;
};

// Tokens of a step: where they stand. Tokens of a row are neighbours.
struct Places {
  std::vector<int64_t> row, position;  // the shared prefix included
  // Behind the last position that a token sees: its own or, of an image's tokens, the last of these.
  std::vector<int64_t> sees_to;
  int64_t count() const { return static_cast<int64_t>(row.size()); }
};

class Decoder : public torch::CustomClassHolder {
 public:
  // sizes: hidden, heads, kv_heads, head_dim, inner. numbers: eps, scale of queries, scale of
  // embeddings, cap of logits (0: none). embedding: [vocabulary, hidden]; none if it is the head's
  // weight, which is then kept once. plain: how activations enter what does not round them, and the
  // head.
  Decoder(const std::vector<int64_t>& sizes, const std::vector<double>& numbers, bool gelu,
          std::optional<at::Tensor> embedding, int64_t plain);

  // To what activations are rounded that enter as integers, of all layers that follow; as
  // `rounding_of` takes it.
  void set_rounding(std::vector<int64_t> numbers, double keep);
  void start_rounding() { rounds_ = true; }  // until then all inputs enter as they are
  // norms: the six of a Layer, in its order. weights: bytes as in linear.h, each with its shape
  // [product 0 … 3, kind, out, group, input], its bias, and the static range of its input.
  void add_layer(const std::vector<std::optional<at::Tensor>>& norms,
                 const std::vector<at::Tensor>& weights,
                 const std::vector<std::vector<int64_t>>& shapes,
                 const std::vector<std::optional<at::Tensor>>& biases,
                 const std::vector<std::optional<at::Tensor>>& ranges, int64_t window,
                 int64_t rope);
  void set_head(at::Tensor norm, at::Tensor weight, const std::vector<int64_t>& shape);
  // Cosines and sines of each table, [positions, head_dim] float32.
  void set_rope(std::vector<at::Tensor> cosines, std::vector<at::Tensor> sines);

  // Append tokens to rows. ids, rows: int64 [tokens]. wanted: int64 [n], places among the tokens.
  // Returns what the head reads there, [n, hidden] float32.
  at::Tensor run(const at::Tensor& ids, const at::Tensor& rows, const at::Tensor& wanted);
  // The same with vectors, [m, hidden] float32, in the place of what is embedded of m tokens. seats:
  // int64 [m], where among the tokens these stand; ids are not read there. blocks: int64 [k, 2],
  // from which to behind which token each sees all the later ones, too. (What lies before a token's
  // window it does not see, as transformers has it for Gemma 3.)
  at::Tensor run_shown(const at::Tensor& ids, const at::Tensor& rows, const at::Tensor& wanted,
                       const at::Tensor& vectors, const at::Tensor& seats, const at::Tensor& blocks);
  at::Tensor logits(const at::Tensor& hidden);  // [n, hidden] -> [n, vocabulary] float32
  // The likeliest token of each, int64 [n]; -1 where scores are not finite.
  at::Tensor greedy(const at::Tensor& hidden);

  // Round keys and values when they enter the cache from now on, and keep them in bytes. numbers: as
  // `rounding_of` takes them; the last: how many neighbouring channels of a token, of all its heads,
  // share a scale. The cache must be empty.
  void round_cache(const std::vector<int64_t>& numbers);
  // Keys and values of each layer, [kv_heads, tokens, head_dim] float32, in an empty row; as they are.
  void load(int64_t row, const std::vector<at::Tensor>& keys, const std::vector<at::Tensor>& values);
  // What the row holds is what all rows begin with from now on, behind what they began with so far.
  void share(int64_t row);
  // Let an empty row begin with the first tokens of another. Both then hold the whole pages of them,
  // as a row is only ever written to behind what it holds; of the last page it gets a copy.
  void begin_as(int64_t row, int64_t other, int64_t tokens);
  void release(int64_t row);
  void clear();  // release all rows, and what they begin with

  int64_t shared_length() const { return shared_length_; }
  int64_t weight_bytes() const;
  int64_t cache_bytes() const;  // of all pages made so far

 private:
  void reserve(int64_t row, int64_t tokens, bool bytes);
  int64_t head_bytes(bool bytes) const;  // of a head of a layer in a page
  int64_t vocabulary() const;
  void embed(const at::Tensor& ids, float* x) const;
  void forward(const Places& places, float* x);
  void run_layer(size_t number, const Places& places, float* x);
  void place_heads(const Layer& layer, size_t number, const Places& places);
  void attend(const Layer& layer, size_t number, const Places& places);
  void attend_block(const Layer& layer, size_t number, const Places& places, int64_t head,
                    int64_t begin, int64_t end);
  // sequences: of each row, as in `prepare`.
  void multiply_all(const Product& product, const float* x, int64_t rows, int64_t in,
                    int64_t stride, const int64_t* sequences, float* y);
  void norm_rows(const at::Tensor& weight, const float* x, int64_t rows, float* out);
  void add_rows(const at::Tensor& norm, float* y, int64_t rows, float* x);
  uint8_t* head_of(const Sequence& sequence, int64_t page, size_t layer, int64_t head) const;
  KeptPage kept_page(uint8_t* head) const;
  int64_t cache_group() const;  // channels of a head that share a scale
  // Of one token: keys and values are [kv_heads][head_dim], scratch bytes for as many.
  void keep(size_t layer, const Sequence& sequence, int64_t place, const float* keys,
            const float* values, int8_t* scratch);
  void read(const Layer& layer, size_t number, int64_t head, const Sequence& sequence,
            int64_t start, const Places& places, int64_t first, int64_t end, Query* queries);
  Part part_of(at::Tensor data, const std::optional<at::Tensor>& bias, int64_t kind, int64_t in,
               int64_t out, int64_t group) const;
  void add_part(Product& product, Part part, int64_t input,
                const std::optional<at::Tensor>& ranges) const;

  Sizes sizes_;
  float eps_, query_scale_, cap_;
  double embedding_scale_;
  bool gelu_;
  at::Tensor embedding_, final_norm_;
  Input plain_;
  std::vector<int64_t> rounding_;  // numbers, as `rounding_of` takes them
  double keep_ = 1.0;
  bool rounds_ = false;
  bool whole_rows_ = false;  // whether scales are of all tokens of a row, which then come together
  std::vector<Layer> layers_;
  Product head_;
  std::vector<at::Tensor> cosines_, sines_;
  std::optional<Rounding> cache_;  // how keys and values are rounded
  std::vector<Sequence> shared_;   // what all rows begin with, in this order
  int64_t shared_length_ = 0;
  std::vector<Sequence> rows_;
  std::vector<at::Tensor> spare_[2];  // pages of floats and of bytes, to be used again
  int64_t pages_[2] = {0, 0};
  const Functions& functions_;
  // Grown as needed and kept: fresh memory costs page faults in every step.
  at::Tensor x_, normed_, qkv_, attended_, inner_, y_, scores_, scratch_;
};

}  // namespace radquant
