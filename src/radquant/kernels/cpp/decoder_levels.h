// What a decoder computes beside its products, once for each instruction set.
#pragma once

#include <cstdint>

namespace radquant {

constexpr int64_t LANES = 16;       // floats of a vector; head and hidden widths are multiples of it
constexpr int64_t PAGE = 64;        // positions of a page of the cache
constexpr int MOST_QUERIES = 6;     // that read a page together

// One head of one token: what it asks, and its softmax so far.
struct Query {
  const float* query;  // [dim], scaled
  float* sum;          // [dim], the values weighted by exp(score - largest)
  float largest;       // of the scores; -infinity before the first
  float total;         // of exp(score - largest)
};

// A page of keys and values of one head, as `attend` reads it.
struct Page {
  const float* keys;    // [dim][PAGE]
  const float* values;  // [PAGE][dim]
};

// The same as integers of 8 bits, (integer - zero) * scale. Scales and zeros are [groups][PAGE], of
// `group` neighbouring channels of a head each.
struct KeptPage {
  const int8_t* keys;    // [dim][PAGE]
  const int8_t* values;  // [PAGE][dim]
  const float *key_scales, *key_zeros, *value_scales, *value_zeros;
  int64_t group;  // a multiple of LANES that divides dim
};

// The positions of a page that a query sees: begin <= position < end.
struct Range {
  int begin, end;
};

struct Functions {
  // out = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, int64_t count, float eps, float* out);
  void (*add)(const float* x, int64_t count, float* sum);
  // Rotary embedding of one head in place, then times `scale`. cosine, sine: [dim].
  void (*rotate)(float* x, const float* cosine, const float* sine, int64_t dim, float scale);
  // gate = silu(gate) * up, or gelu(gate) * up by the tanh formula
  void (*gated)(float* gate, const float* up, int64_t count, bool gelu);
  void (*soft_cap)(float* x, int64_t count, float cap);
  // Place of the first of the largest; -1 if that is not finite.
  int64_t (*largest)(const float* x, int64_t count);
  // Let queries, MOST_QUERIES at most, read a page. Each one's result is independent of the others.
  void (*attend)(const Page& page, int64_t dim, Query* const* queries, const Range* seen, int count);
  // A Page out of a KeptPage; out: its keys, and its values behind them.
  void (*unpack)(const KeptPage& page, int64_t dim, float* out);
};

extern const Functions functions_avx512, functions_avx2;

}  // namespace radquant
