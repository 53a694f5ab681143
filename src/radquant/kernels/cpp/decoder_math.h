// What decoder_levels.h promises, written with a vector V of 16 floats. Included inside an anonymous
// namespace of the files that define V and its operations for one instruction set, so that the
// linker mixes nothing up.

// exp(x) within 2 units in the last place; 0 below -87.3; exactly 1 for 0; NaN stays.
inline V exponential(V x) {
  const V limited = least(all(88.0f), largest_of(all(-88.0f), x));
  const V n = nearest(mul(limited, all(1.44269504f)));
  V r = fma(n, all(-0.693359375f), limited);  // -ln 2 in two parts
  r = fma(n, all(2.12194440e-4f), r);
  V y = all(1.0f / 5040);
  y = fma(y, r, all(1.0f / 720));
  y = fma(y, r, all(1.0f / 120));
  y = fma(y, r, all(1.0f / 24));
  y = fma(y, r, all(1.0f / 6));
  y = fma(y, r, all(0.5f));
  y = fma(y, r, all(1.0f));
  y = fma(y, r, all(1.0f));
  return zero_below(times_power(y, n), x, -87.3f);
}

inline V hyperbolic_tangent(V x) {
  return sub(all(1.0f), div(all(2.0f), add_to(exponential(add_to(x, x)), all(1.0f))));
}

void rms_norm(const float* x, const float* weight, int64_t count, float eps, float* out) {
  V squares = all(0.0f);
  for (int64_t i = 0; i < count; i += LANES) squares = fma(load(x + i), load(x + i), squares);
  const float mean = sum_of(squares) / static_cast<float>(count);
  const V factor = all(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < count; i += LANES)
    store(out + i, mul(load(weight + i), mul(load(x + i), factor)));
}

void add(const float* x, int64_t count, float* sum) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(sum + i, add_to(load(sum + i), load(x + i)));
  for (; i < count; ++i) sum[i] += x[i];
}

void rotate(float* x, const float* cosine, const float* sine, int64_t dim, float scale) {
  const int64_t half = dim / 2;
  float* high = x + half;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = high[i];
    x[i] = (a * cosine[i] - b * sine[i]) * scale;
    high[i] = (b * cosine[half + i] + a * sine[half + i]) * scale;
  }
}

void gated(float* gate, const float* up, int64_t count, bool gelu) {
  for (int64_t i = 0; i < count; i += LANES) {
    const V x = load(gate + i);
    V active;
    if (gelu) {
      const V cubed = mul(mul(x, x), x);
      const V inner = mul(all(0.79788456f), fma(all(0.044715f), cubed, x));
      active = mul(mul(all(0.5f), x), add_to(all(1.0f), hyperbolic_tangent(inner)));
    } else {
      active = div(x, add_to(all(1.0f), exponential(sub(all(0.0f), x))));
    }
    store(gate + i, mul(active, load(up + i)));
  }
}

void soft_cap(float* x, int64_t count, float cap) {
  float rest[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    store(x + i, mul(hyperbolic_tangent(div(load(x + i), all(cap))), all(cap)));
  for (int64_t k = i; k < count; ++k) rest[k - i] = x[k];
  store(rest, mul(hyperbolic_tangent(div(load(rest), all(cap))), all(cap)));
  for (int64_t k = i; k < count; ++k) x[k] = rest[k - i];
}

int64_t largest(const float* x, int64_t count) {
  V lanes = all(-__builtin_inff());
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) lanes = largest_of(load(x + i), lanes);
  float best = maximum_of(lanes);
  for (; i < count; ++i) best = x[i] > best ? x[i] : best;
  if (!(__builtin_fabsf(best) <= 3.402823466e38f)) return -1;
  for (i = 0; i + LANES <= count; i += LANES)
    if (const uint32_t equal = equal_lanes(load(x + i), all(best)))
      return i + __builtin_ctz(equal);
  while (x[i] != best) ++i;
  return i;
}

// --- Attention ------------------------------------------------------------------------------------

void unpack(const KeptPage& page, int64_t dim, float* out) {
  for (int64_t d = 0; d < dim; ++d) {
    const float* scales = page.key_scales + d / page.group * PAGE;
    const float* zeros = page.key_zeros + d / page.group * PAGE;
    for (int64_t i = 0; i < PAGE; i += LANES, out += LANES)
      store(out, mul(sub(load_bytes(page.keys + d * PAGE + i), load(zeros + i)), load(scales + i)));
  }
  for (int64_t i = 0; i < PAGE; ++i)
    for (int64_t d = 0; d < dim; d += LANES, out += LANES) {
      const int64_t place = d / page.group * PAGE + i;
      const V integers = load_bytes(page.values + i * dim + d);
      store(out, mul(sub(integers, all(page.value_zeros[place])), all(page.value_scales[place])));
    }
}

// Bits begin … end - 1 of 16; what lies outside is cut off.
inline uint32_t lanes_within(int begin, int end) {
  const int low = begin < 0 ? 0 : begin > 16 ? 16 : begin, high = end < 0 ? 0 : end > 16 ? 16 : end;
  return ((1u << high) - 1) & ~((1u << low) - 1);
}

// Scores of AT_ONCE vectors of keys, masked, into `scores` [ROWS][PAGE].
template <int ROWS>
inline void score(const float* keys, int64_t dim, Query* const* queries, const Range* seen,
                  float (*scores)[PAGE]) {
  for (int first = 0; first < PAGE; first += AT_ONCE * LANES) {
    V sums[ROWS][AT_ONCE];
#pragma GCC unroll 6
    for (int q = 0; q < ROWS; ++q)
#pragma GCC unroll 4
      for (int i = 0; i < AT_ONCE; ++i) sums[q][i] = all(0.0f);
    for (int64_t d = 0; d < dim; ++d) {
      V key[AT_ONCE];
#pragma GCC unroll 4
      for (int i = 0; i < AT_ONCE; ++i) key[i] = load(keys + d * PAGE + first + i * LANES);
#pragma GCC unroll 6
      for (int q = 0; q < ROWS; ++q) {
        const V asked = all(queries[q]->query[d]);
#pragma GCC unroll 4
        for (int i = 0; i < AT_ONCE; ++i) sums[q][i] = fma(asked, key[i], sums[q][i]);
      }
    }
#pragma GCC unroll 6
    for (int q = 0; q < ROWS; ++q)
#pragma GCC unroll 4
      for (int i = 0; i < AT_ONCE; ++i) {
        const int lane = first + i * static_cast<int>(LANES);
        store(scores[q] + lane,
              keep_lanes(sums[q][i], lanes_within(seen[q].begin - lane, seen[q].end - lane)));
      }
  }
}

// Scores become weights; returns by how much what was summed before has to shrink.
inline float soften(Query& query, float* scores) {
  V most = load(scores);
  for (int64_t i = LANES; i < PAGE; i += LANES) most = largest_of(most, load(scores + i));
  const float page = maximum_of(most);
  const float largest = page > query.largest ? page : query.largest;
  // Where nothing was seen yet, nothing is subtracted: infinities would give NaN.
  const V level = all(largest == -__builtin_inff() ? 0.0f : largest);
  V total = all(0.0f);
  for (int64_t i = 0; i < PAGE; i += LANES) {
    const V weight = exponential(sub(load(scores + i), level));
    store(scores + i, weight);
    total = add_to(total, weight);
  }
  float shrink[LANES];
  store(shrink, exponential(sub(all(query.largest), level)));
  query.total = query.total * shrink[0] + sum_of(total);
  query.largest = largest;
  return shrink[0];
}

template <int ROWS, int WIDTH>
inline void weigh(const float* values, int64_t dim, int64_t channel, Range seen,
                  Query* const* queries, const float* shrink, const float (*weights)[PAGE]) {
  V sums[ROWS][WIDTH];
#pragma GCC unroll 6
  for (int q = 0; q < ROWS; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < WIDTH; ++i)
      sums[q][i] = mul(load(queries[q]->sum + channel + i * LANES), all(shrink[q]));
  for (int position = seen.begin; position < seen.end; ++position) {
    V value[WIDTH];
#pragma GCC unroll 4
    for (int i = 0; i < WIDTH; ++i) value[i] = load(values + position * dim + channel + i * LANES);
#pragma GCC unroll 6
    for (int q = 0; q < ROWS; ++q) {
      const V weight = all(weights[q][position]);
#pragma GCC unroll 4
      for (int i = 0; i < WIDTH; ++i) sums[q][i] = fma(weight, value[i], sums[q][i]);
    }
  }
#pragma GCC unroll 6
  for (int q = 0; q < ROWS; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < WIDTH; ++i) store(queries[q]->sum + channel + i * LANES, sums[q][i]);
}

template <int ROWS>
void attend_rows(const Page& page, int64_t dim, Query* const* queries, const Range* seen) {
  alignas(64) float scores[ROWS][PAGE];
  float shrink[ROWS];
  score<ROWS>(page.keys, dim, queries, seen, scores);
  // Positions that none of the queries sees may hold anything.
  Range any = seen[0];
  for (int q = 0; q < ROWS; ++q) {
    shrink[q] = soften(*queries[q], scores[q]);
    any.begin = seen[q].begin < any.begin ? seen[q].begin : any.begin;
    any.end = seen[q].end > any.end ? seen[q].end : any.end;
  }
  int64_t channel = 0;
  for (; channel + AT_ONCE * LANES <= dim; channel += AT_ONCE * LANES)
    weigh<ROWS, AT_ONCE>(page.values, dim, channel, any, queries, shrink, scores);
  for (; channel < dim; channel += LANES)
    weigh<ROWS, 1>(page.values, dim, channel, any, queries, shrink, scores);
}

void attend(const Page& page, int64_t dim, Query* const* queries, const Range* seen, int count) {
  switch (count) {
    case 1: return attend_rows<1>(page, dim, queries, seen);
    case 2: return attend_rows<2>(page, dim, queries, seen);
    case 3: return attend_rows<3>(page, dim, queries, seen);
    case 4: return attend_rows<4>(page, dim, queries, seen);
    case 5: return attend_rows<5>(page, dim, queries, seen);
    default: return attend_rows<6>(page, dim, queries, seen);
  }
}
