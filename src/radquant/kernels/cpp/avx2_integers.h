// Products with integers on AVX2, for linear_avx2.cpp. Included inside its anonymous namespace.
// Integers' sums are exact within a group, in whatever order.

inline __m256i four_bytes(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

constexpr int TALLEST = 4;  // rows of a tile, for which registers suffice

// What the kinds differ in: `add` adds the products of `lines` lines with ROWS rows, from input k on.

struct Nibbles {
  static constexpr int inputs = 8;

  template <int ROWS>
  static void add(const uint8_t* data, int64_t lines, const int8_t* const* x, int64_t k,
                  Integers* sums) {
    int64_t j = 0;
    for (; j + 4 <= lines; j += 4) add_lines<ROWS, 4>(data + j * LINE, x, k + inputs * j, sums);
    for (; j < lines; ++j) add_lines<ROWS, 1>(data + j * LINE, x, k + inputs * j, sums);
  }

 private:
  // 16 bits hold eight sums of two products, each at most 15 * 128.
  template <int ROWS, int LINES>
  static void add_lines(const uint8_t* data, const int8_t* const* x, int64_t k, Integers* sums) {
    static_assert(LINES * 2 * 2 * 15 * 128 < 32768);
    const __m256i mask = _mm256_set1_epi8(15);
    Integers pairs[ROWS];
#pragma GCC unroll 4
    for (int j = 0; j < LINES; ++j) {
      if (ROWS <= 2) _mm_prefetch(data + j * LINE + AHEAD, _MM_HINT_T0);
      const Integers line = line_at(data + j * LINE);
      __m256i low[2], high[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        low[half] = _mm256_and_si256(line.half[half], mask);
        high[half] = _mm256_and_si256(_mm256_srli_epi32(line.half[half], 4), mask);
      }
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const __m256i of_low = four_bytes(x[r] + k + inputs * j);
        const __m256i of_high = four_bytes(x[r] + k + inputs * j + 4);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          __m256i& sum = pairs[r].half[half];
          const __m256i products = _mm256_maddubs_epi16(low[half], of_low);
          sum = j == 0 ? products : _mm256_add_epi16(sum, products);
          sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(high[half], of_high));
          // Without this GCC adds up in another order, for which registers do not suffice.
          asm("" : "+x"(sum));
        }
      }
    }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        __m256i& sum = sums[r].half[half];
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[r].half[half], ones));
      }
  }
};

struct Bytes {
  static constexpr int inputs = 4;

  // Products of bytes would overflow 16 bits: even and odd inputs are widened instead.
  template <int ROWS>
  static void add(const uint8_t* data, int64_t lines, const int8_t* const* x, int64_t k,
                  Integers* sums) {
    Integers own[ROWS];  // stay in registers
    for (int r = 0; r < ROWS; ++r) own[r] = sums[r];
    for (int64_t j = 0; j < lines; ++j, data += LINE, k += inputs) {
      if (ROWS <= 2) _mm_prefetch(data + AHEAD, _MM_HINT_T0);
      const Integers line = line_at(data);
      const __m256i bytes = _mm256_set1_epi16(255);
      const Integers even = {{_mm256_and_si256(line.half[0], bytes),
                              _mm256_and_si256(line.half[1], bytes)}};
      const Integers odd = {{_mm256_srli_epi16(line.half[0], 8),
                             _mm256_srli_epi16(line.half[1], 8)}};
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const __m256i values = four_bytes(x[r] + k);
        const __m256i even_x = _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8);
        const __m256i odd_x = _mm256_srai_epi16(values, 8);
        for (int half = 0; half < 2; ++half) {
          __m256i& sum = own[r].half[half];
          sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even.half[half], even_x));
          sum = _mm256_add_epi32(sum, _mm256_madd_epi16(odd.half[half], odd_x));
        }
      }
    }
    for (int r = 0; r < ROWS; ++r) sums[r] = own[r];
  }
};

// ANY: also integers that are scaled by group or shifted. Others have a version without those tests,
// which cost time at every group.
template <typename Of, int ROWS, bool ANY>
void integer_tile(const Prepared& x, const Weight& weight, int64_t row, int64_t block, float* y,
                  int64_t stride) {
  const bool by_group = ANY && x.by_group, shifted = ANY && x.zeros;
  // Of shifted integers the last row is that of ones: its products are the weights' sums.
  const int rows = ROWS - shifted;
  const int64_t group = weight.group, groups = weight.in / group, lines = group / Of::inputs;
  const uint8_t* data = weight.data + block * weight.block_bytes();
  const int8_t* values[ROWS];
  for (int r = 0; r < ROWS; ++r)
    values[r] = static_cast<const int8_t*>(x.values) + (r < rows ? row + r : x.rows) * weight.in;
  const float* of_zeros = x.sums + row * groups;
  Floats totals[ROWS] = {};
  for (int64_t g = 0; g < groups; ++g) {
    Integers sums[ROWS] = {};
    const Floats scale = scales_of(data), zero = zeros_of(data);
    data += LINE;
    Of::template add<ROWS>(data, lines, values, g * group, sums);
    data += lines * LINE;
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const __m256 of_zero = _mm256_set1_ps(of_zeros[r * groups + g]);
      const int64_t place = by_group ? (row + r) * groups + g : row + r;
      for (int half = 0; half < 2; ++half) {
        __m256 sum = _mm256_cvtepi32_ps(sums[r].half[half]);
        if (shifted)
          sum = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(sums[ROWS - 1].half[half]),
                                 _mm256_set1_ps(x.zeros[place]), sum);
        sum = _mm256_fnmadd_ps(zero.half[half], of_zero, sum);
        __m256 step = scale.half[half];
        if (by_group) step = _mm256_mul_ps(step, _mm256_set1_ps(x.scales[place]));
        totals[r].half[half] = _mm256_fmadd_ps(sum, step, totals[r].half[half]);
      }
    }
  }
  const int64_t channel = block * BLOCK;
  for (int r = 0; r < ROWS; ++r) {
    Floats total = totals[r];
    if (!by_group)
      for (__m256& half : total.half) half = _mm256_mul_ps(half, _mm256_set1_ps(x.scales[row + r]));
    if (r < rows) write(total, y + (row + r) * stride + channel, weight.out - channel);
  }
}

template <typename Of>
void multiply_integers(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                       int64_t stride) {
  using Tile = decltype(&integer_tile<Of, 1, false>);
  constexpr Tile tiles[2][TALLEST] = {
      {integer_tile<Of, 1, false>, integer_tile<Of, 2, false>, integer_tile<Of, 3, false>,
       integer_tile<Of, 4, false>},
      {integer_tile<Of, 1, true>, integer_tile<Of, 2, true>, integer_tile<Of, 3, true>,
       integer_tile<Of, 4, true>}};
  const bool any = x.by_group || x.zeros;
  const int64_t step = rows_at_once(weight.in, bytes_of(x.format)), ones = x.zeros ? 1 : 0;
  for (int64_t first = 0; first < x.rows; first += step) {
    const int64_t count = x.rows - first < step ? x.rows - first : step;
    for (int64_t block = begin; block < end; ++block)
      for_each_tile(TALLEST - ones, first, count, [&](int64_t row, int64_t height) {
        tiles[any][height + ones - 1](x, weight, row, block, y, stride);
      });
  }
}
