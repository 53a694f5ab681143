// Products with floats on AVX2, for linear_avx2.cpp. Included inside its anonymous namespace.
//
// A group of packed weights is added up in stretches, as are all inputs of other weights. Even and odd
// lines of a stretch are added up apart, so that a single row's products need not wait for one another.
// A row's sums have the same order in few rows and in many. Few rows read weights as they lie. For many
// a stretch is turned into floats first.

constexpr int64_t STRETCH = 128;  // inputs of a stretch at most
constexpr int64_t FEW = 15;       // with more rows it pays to turn a stretch into floats
constexpr int HEIGHT = 6;         // rows of a tile then: of 16 registers, each takes two
// All channels are multiplied by a panel of MANY rows, which stays in the L2 cache, before the next is.
// A panel has PANEL inputs, less a part of a group, or one longer group.
constexpr int64_t PANEL = 768, MANY = 128;
static_assert(PANEL % STRETCH == 0);  // so that panels cut no stretch

// What the kinds differ in: a line holds `inputs` weights of each channel; `weight` is the i-th of
// half of its channels.

template <int BITS>
struct Packed {
  static constexpr bool grouped = true;
  static constexpr int inputs = 32 / BITS;
  static __m256 weight(const uint8_t* line, int half, int i) {
    const int place = BITS == 8 ? i : i < 4 ? 2 * i : 2 * i - 7;  // of nibbles, see linear.h
    const __m256i moved = _mm256_srli_epi32(line_at(line).half[half], BITS * place);
    return _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32((1 << BITS) - 1)));
  }
};

struct BFloats {
  static constexpr bool grouped = false;
  static constexpr int inputs = 2;
  static __m256 weight(const uint8_t* line, int half, int i) {
    const __m256i two = line_at(line).half[half];
    const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
    return _mm256_castsi256_ps(i ? _mm256_and_si256(two, high) : _mm256_slli_epi32(two, 16));
  }
};

struct Halves {
  static constexpr bool grouped = false;
  static constexpr int inputs = 2;
  static __m256 weight(const uint8_t* line, int half, int i) {
    return _mm256_cvtph_ps(
        _mm_load_si128(reinterpret_cast<const __m128i*>(line + 32 * i + 16 * half)));
  }
};

struct Singles {
  static constexpr bool grouped = false;
  static constexpr int inputs = 1;
  static __m256 weight(const uint8_t* line, int half, int) {
    return _mm256_castsi256_ps(line_at(line).half[half]);
  }
};

inline Floats sum_of(const Floats& a, const Floats& b) {
  return {{_mm256_add_ps(a.half[0], b.half[0]), _mm256_add_ps(a.half[1], b.half[1])}};
}

// What a group adds to a row's total, out of the sum of its products.
inline Floats with_group(const Floats& total, const Floats& sum, const Floats& scale,
                         const Floats& zero, float of_zero) {
  Floats result;
  for (int half = 0; half < 2; ++half) {
    const __m256 centred =
        _mm256_fnmadd_ps(zero.half[half], _mm256_set1_ps(of_zero), sum.half[half]);
    result.half[half] = _mm256_fmadd_ps(centred, scale.half[half], total.half[half]);
  }
  return result;
}

// --- Few rows -------------------------------------------------------------------------------------

template <typename Of, int ROWS>
inline void add_line(const uint8_t* line, const float* const* x, int64_t k, Floats* sums) {
#pragma GCC unroll 8
  for (int i = 0; i < Of::inputs; ++i) {
    const __m256 low = Of::weight(line, 0, i), high = Of::weight(line, 1, i);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const __m256 value = _mm256_set1_ps(x[r][k + i]);
      sums[r].half[0] = _mm256_fmadd_ps(low, value, sums[r].half[0]);
      sums[r].half[1] = _mm256_fmadd_ps(high, value, sums[r].half[1]);
    }
  }
}

// Add a stretch's products to `sums`.
template <typename Of, int ROWS>
inline void add_stretch(const uint8_t* data, int64_t lines, const float* const* x, int64_t k,
                        Floats* sums) {
  Floats even[ROWS] = {}, odd[ROWS] = {};
  if constexpr (ROWS <= 2) {
    int64_t j = 0;
    for (; j + 2 <= lines; j += 2, data += 2 * LINE, k += 2 * Of::inputs) {
      _mm_prefetch(data + AHEAD, _MM_HINT_T0);
      _mm_prefetch(data + AHEAD + LINE, _MM_HINT_T0);
      add_line<Of, ROWS>(data, x, k, even);
      add_line<Of, ROWS>(data + LINE, x, k + Of::inputs, odd);
    }
    if (j < lines) add_line<Of, ROWS>(data, x, k, even);
  } else {  // one after the other, for want of registers
    for (int64_t j = 0; j < lines; j += 2)
      add_line<Of, ROWS>(data + j * LINE, x, k + j * Of::inputs, even);
    for (int64_t j = 1; j < lines; j += 2)
      add_line<Of, ROWS>(data + j * LINE, x, k + j * Of::inputs, odd);
  }
  for (int r = 0; r < ROWS; ++r) sums[r] = sum_of(sums[r], sum_of(even[r], odd[r]));
}

template <typename Of, int ROWS>
void few_rows(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
              int64_t stride) {
  const int64_t in = weight.in, group = Of::grouped ? weight.group : in, groups = in / group;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const float* values[ROWS];
  for (int r = 0; r < ROWS; ++r) values[r] = static_cast<const float*>(x.values) + (row + r) * in;
  Floats totals[ROWS] = {};
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* header = data;
    if (Of::grouped) data += LINE;
    Floats sums[ROWS] = {};
    for (int64_t k = g * group, end = k + group; k < end; k += STRETCH) {
      const int64_t lines = (end - k < STRETCH ? end - k : STRETCH) / Of::inputs;
      add_stretch<Of, ROWS>(data, lines, values, k, sums);
      data += lines * LINE;
    }
    for (int r = 0; r < ROWS; ++r)
      totals[r] = Of::grouped ? with_group(totals[r], sums[r], scales_of(header), zeros_of(header),
                                           x.sums[(row + r) * groups + g])
                              : sums[r];
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r)
    write(totals[r], y + (row + r) * stride + channel, weight.out - channel);
}

template <typename Of>
void multiply_few(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                  int64_t stride) {
  using Tile = decltype(&few_rows<Of, 1>);
  constexpr Tile tiles[] = {few_rows<Of, 1>, few_rows<Of, 2>, few_rows<Of, 3>, few_rows<Of, 4>};
  for (int64_t block = begin; block < end; ++block)
    for_each_tile(4, 0, x.rows, [&](int64_t row, int64_t height) {
      tiles[height - 1](x, weight, row, block, y, stride);
    });
}

// --- Many rows ------------------------------------------------------------------------------------

// A stretch of one block, as floats [inputs][BLOCK].
struct Stretch {
  const float* weights;
  int64_t inputs;
  bool starts, ends;   // whether its group does; without groups sums go on from y, and none starts
  Floats scale, zero;  // of the group
};

template <typename Of>
inline void unfold(const uint8_t* data, int64_t lines, float* weights) {
  for (int64_t j = 0; j < lines; ++j, data += LINE) {
#pragma GCC unroll 8
    for (int i = 0; i < Of::inputs; ++i, weights += BLOCK)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half)
        _mm256_store_ps(weights + 8 * half, Of::weight(data, half, i));
  }
}

// Every second line of a stretch, from input `k` on.
template <typename Of, int ROWS>
inline void add_lines(const Stretch& stretch, int64_t k, const float* const* x, Floats* sums) {
  for (; k < stretch.inputs; k += 2 * Of::inputs) {
    const float* weights = stretch.weights + k * BLOCK;
#pragma GCC unroll 8
    for (int i = 0; i < Of::inputs; ++i, weights += BLOCK) {
      const __m256 low = _mm256_load_ps(weights), high = _mm256_load_ps(weights + 8);
#pragma GCC unroll 6
      for (int r = 0; r < ROWS; ++r) {
        const __m256 value = _mm256_set1_ps(x[r][k + i]);
        sums[r].half[0] = _mm256_fmadd_ps(low, value, sums[r].half[0]);
        sums[r].half[1] = _mm256_fmadd_ps(high, value, sums[r].half[1]);
      }
    }
  }
}

// x: the rows' inputs of the stretch, `width` floats apart. sums: [rows][BLOCK], of the group so far.
// totals: [rows][BLOCK], of the groups before it; weights without groups have `sums` alone. of_zero:
// the rows' sums of the group's inputs, `groups` floats apart.
template <typename Of, int ROWS>
void add_rows(const Stretch& stretch, const float* x, int64_t width, float* sums, float* totals,
              const float* of_zero, int64_t groups) {
  const float* values[ROWS];
  for (int r = 0; r < ROWS; ++r) values[r] = x + r * width;
  Floats even[ROWS] = {}, odd[ROWS] = {};
  add_lines<Of, ROWS>(stretch, 0, values, even);
  add_lines<Of, ROWS>(stretch, Of::inputs, values, odd);
  for (int r = 0; r < ROWS; ++r, sums += BLOCK, totals += BLOCK) {
    Floats sum = sum_of(even[r], odd[r]);
    sum = sum_of(stretch.starts ? Floats{} : read(sums, BLOCK), sum);
    if (Of::grouped && stretch.ends)
      write(with_group(read(totals, BLOCK), sum, stretch.scale, stretch.zero, of_zero[r * groups]),
            totals, BLOCK);
    else
      write(sum, sums, BLOCK);
  }
}

// Multiplies `count` rows from `top` on by inputs left ... right - 1 of a block. If `left` is not 0, y
// holds what the inputs before it gave.
template <typename Of>
void add_panel(const Prepared& x, const Weight& weight, int64_t block, int64_t left, int64_t right,
               int64_t top, int64_t count, float* y, int64_t stride) {
  using Tile = decltype(&add_rows<Of, 1>);
  constexpr Tile tiles[HEIGHT] = {add_rows<Of, 1>, add_rows<Of, 2>, add_rows<Of, 3>,
                                  add_rows<Of, 4>, add_rows<Of, 5>, add_rows<Of, 6>};
  alignas(64) float weights[STRETCH * BLOCK], sums[MANY * BLOCK], totals[MANY * BLOCK];
  const int64_t in = weight.in, group = Of::grouped ? weight.group : in, groups = in / group;
  const int64_t channels = weight.out - block * BLOCK;
  const float* values = static_cast<const float*>(x.values);
  float* kept = Of::grouped ? totals : sums;
  y += top * stride + block * BLOCK;
  for (int64_t r = 0; r < count; ++r)
    write(left ? read(y + r * stride, channels) : Floats{}, kept + r * BLOCK, BLOCK);
  const uint8_t* data = weight.data + block * weight.block_bytes() + left / Of::inputs * LINE;
  if (Of::grouped) data += left / group * LINE;
  Stretch stretch{weights};
  for (int64_t k = left, inputs; k < right; k += inputs) {
    const int64_t g = k / group, end = Of::grouped ? (g + 1) * group : right;
    inputs = stretch.inputs = end - k < STRETCH ? end - k : STRETCH;
    stretch.starts = Of::grouped && k == g * group;
    stretch.ends = k + inputs == end;
    if (stretch.starts) {
      stretch.scale = scales_of(data);
      stretch.zero = zeros_of(data);
      data += LINE;
    }
    const int64_t lines = inputs / Of::inputs;
    unfold<Of>(data, lines, weights);
    data += lines * LINE;
    for_each_tile(HEIGHT, 0, count, [&](int64_t row, int64_t height) {
      tiles[height - 1](stretch, values + (top + row) * in + k, in, sums + row * BLOCK,
                        totals + row * BLOCK,
                        Of::grouped ? x.sums + (top + row) * groups + g : nullptr, groups);
    });
  }
  for (int64_t r = 0; r < count; ++r)
    write(read(kept + r * BLOCK, BLOCK), y + r * stride, channels);
}

template <typename Of>
void multiply_many(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                   int64_t stride) {
  const int64_t in = weight.in, group = Of::grouped ? weight.group : STRETCH;
  const int64_t panel = group < PANEL ? PANEL / group * group : group;
  for (int64_t top = 0; top < x.rows; top += MANY)
    for (int64_t left = 0; left < in; left += panel)
      for (int64_t block = begin; block < end; ++block)
        add_panel<Of>(x, weight, block, left, left + panel < in ? left + panel : in, top,
                      x.rows - top < MANY ? x.rows - top : MANY, y, stride);
}

template <typename Of>
void multiply_floats(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                     int64_t stride) {
  const auto multiply = x.rows <= FEW ? multiply_few<Of> : multiply_many<Of>;
  multiply(x, weight, begin, end, y, stride);
}
