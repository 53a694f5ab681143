// Products with weights that are numbers of their own, in bfloat16 or float16. Included as amx_tiles.h
// is.
//
// Floats enter as the sum of three bfloat16, and a float16 weight is the sum of two: both exactly, as
// 3 x 8 and 2 x 8 bits hold 24 and 11. Their products are exact in float32, in which they are added
// up. That of the least of both is left out: it is at most 2^-25 of the whole.

// Rows and inputs that are multiplied at once by all channels. They stay in the L2 cache, which has
// 2 MB on processors with AMX.
constexpr int64_t PLAIN_ROWS = 256, PLAIN_INPUTS = 2048, PLAIN_INPUTS_IN_PARTS = 768;
// Inputs of two blocks of weights, which stay in the L1 cache until all those rows are multiplied.
constexpr int64_t SHALLOW = 512, SHALLOW_IN_HALVES = 256;
// Which part of the inputs is multiplied with which half of the weights, one after the other.
constexpr int64_t PART[] = {0, 1, 2, 0, 1}, HALF[] = {0, 0, 0, 1, 1};

// Where the sums of two tiles of rows times two blocks are, and how many bytes from each other. `at`
// is null where they are still 0.
struct Place {
  uint8_t* at;
  int64_t row, tile, block;
};

// Those of one tile of rows, or of two.
inline void store_sums(const Place& to, bool two) {
  _tile_stored(0, to.at, to.row);
  _tile_stored(1, to.at + to.block, to.row);
  if (!two) return;
  _tile_stored(2, to.at + to.tile, to.row);
  _tile_stored(3, to.at + to.tile + to.block, to.row);
}

// What is multiplied while it stays in the cache.
struct Piece {
  const uint8_t *values[2], *weights[2];  // of two tiles of rows, of two blocks
  const uint8_t* next[2];                 // weights that come into the cache meanwhile
  int64_t part, half;    // bytes from one part of the values, or half of the weights, to the next
  int64_t steps, lines;  // tiles of inputs; lines of each next block with every step
  bool two;              // or one tile of rows alone
};

// Adds a piece's products, as many for each input, to the sums in `from`. ONCE: its weights are used
// for these rows alone, and the next ones come into the L1 cache, not the L2 cache.
template <int PRODUCTS, bool ONCE>
inline void add_piece(const Piece& piece, const Place& from, const Place& to) {
  write_out(piece.values[0]);
  if (from.at) {
    _tile_loadd(0, from.at, from.row);
    _tile_loadd(1, from.at + from.block, from.row);
    if (piece.two) {
      _tile_loadd(2, from.at + from.tile, from.row);
      _tile_loadd(3, from.at + from.tile + from.block, from.row);
    }
  } else {
    zero_sums();
  }
  for (int64_t k = 0; k < piece.steps; ++k) {
    for (int i = 0; i < PRODUCTS; ++i) {
      const int64_t of_values = k * TILE + PART[i] * piece.part;
      const int64_t of_weights = k * TILE + HALF[i] * piece.half;
      _tile_loadd(6, piece.weights[0] + of_weights, LINE);
      _tile_loadd(4, piece.values[0] + of_values, LINE);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, piece.weights[1] + of_weights, LINE);
      _tile_dpbf16ps(1, 4, 7);
      if (!piece.two) continue;
      _tile_loadd(5, piece.values[1] + of_values, LINE);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    for (int64_t i = k * piece.lines; i < (k + 1) * piece.lines; ++i) {
      _mm_prefetch(piece.next[0] + i * LINE, ONCE ? _MM_HINT_T0 : _MM_HINT_T1);
      _mm_prefetch(piece.next[1] + i * LINE, ONCE ? _MM_HINT_T0 : _MM_HINT_T1);
    }
  }
  store_sums(to, piece.two);
}

// A stretch of rows times `depth` inputs from `deep` on. The products are added to y, or written to it
// if `deep` is 0.
struct Stretch {
  const Weight& weight;
  const uint8_t* values;  // as pack_row leaves them, each part apart
  int64_t part;           // bytes from one part to the next
  int64_t rows, deep, depth;
  float* y;  // of its first row
  int64_t stride;
  uint8_t* sums;    // room for those of all rows
  uint8_t* halves;  // room for two blocks' weights of float16

  // Pairs of tiles of rows. Each takes the same weights: those of one alone are used once.
  int64_t pairs() const { return (rows + 2 * ROWS - 1) / (2 * ROWS); }
};

// Two tiles of rows from `first` on, of which some rows or channels do not exist: between y and sums.
template <bool READ>
void copy_sums(const Stretch& of, int64_t first, const int64_t* blocks, const Place& sums) {
  for (int64_t row = first; row < std::min(of.rows, first + 2 * ROWS); ++row)
    for (int i = 0; i < 2; ++i) {
      const __mmask16 mask = channels_from(blocks[i] * BLOCK, of.weight);
      float* out = of.y + row * of.stride + blocks[i] * BLOCK;
      uint8_t* sum = sums.at + (row - first) * sums.row + i * sums.block;
      if constexpr (READ)
        _mm512_store_ps(sum, _mm512_maskz_loadu_ps(mask, out));
      else
        _mm512_mask_storeu_ps(out, mask, _mm512_load_ps(sum));
    }
}

// Two tiles of rows, from `first` on, times inputs from `k` on to `end`.
template <int PRODUCTS>
inline void multiply_pair(const Stretch& of, const int64_t* blocks, Piece piece, int64_t first,
                          int64_t k, int64_t end) {
  const int64_t stride = of.stride * sizeof(float), width = of.depth / WIDTH * TILE;
  piece.values[0] = of.values + first / ROWS * width + k / WIDTH * TILE;
  piece.values[1] = piece.values[0] + width;
  piece.two = first + ROWS < of.rows;
  const Place sums = {of.sums + first * 2 * LINE, LINE, ROWS * LINE, 2 * ROWS * LINE};
  const Place out = {reinterpret_cast<uint8_t*>(of.y + first * of.stride + blocks[0] * BLOCK),
                     stride, ROWS * stride, (blocks[1] - blocks[0]) * LINE};
  const bool first_piece = k == 0, last_piece = end == of.depth;
  const bool whole = first + 2 * ROWS <= of.rows && blocks[1] < of.weight.out / BLOCK;
  if (first_piece && of.deep > 0 && !whole) copy_sums<true>(of, first, blocks, sums);
  const Place none = {};
  const Place& before = first_piece && whole ? out : sums;
  const Place& from = first_piece && of.deep == 0 ? none : before;
  const Place& to = last_piece && whole ? out : sums;
  if (of.pairs() == 1)
    add_piece<PRODUCTS, true>(piece, from, to);
  else
    add_piece<PRODUCTS, false>(piece, from, to);
  if (last_piece && !whole) copy_sums<false>(of, first, blocks, sums);
}

// The nearest bfloat16 of each, as floats. It must be finite.
inline __m512 nearest_bfloats(__m512 values) {
  const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(values), _mm512_set1_epi32(0x8000));
  return _mm512_castsi512_ps(_mm512_and_si512(bits, high));
}

// A line of two inputs, of floats that are bfloat16.
inline __m512i line_of(__m512 first, __m512 second) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(first), 16);
  return _mm512_or_si512(low, _mm512_castps_si512(second));
}

// Lines of float16 weights, of `inputs` inputs, as lines of bfloat16: the nearest ones, and behind
// `half` bytes what those lack.
inline void halve(const uint8_t* from, int64_t inputs, int64_t half, uint8_t* to) {
  for (int64_t k = 0; k < inputs; k += 2, from += LINE, to += LINE) {
    _mm_prefetch(from + AHEAD, _MM_HINT_T0);
    const auto* stored = reinterpret_cast<const __m256i*>(from);
    const __m512 first = _mm512_cvtph_ps(_mm256_load_si256(stored));
    const __m512 second = _mm512_cvtph_ps(_mm256_load_si256(stored + 1));
    const __m512 of_first = nearest_bfloats(first), of_second = nearest_bfloats(second);
    _mm512_store_si512(to, line_of(of_first, of_second));
    const __m512i rest = line_of(_mm512_sub_ps(first, of_first), _mm512_sub_ps(second, of_second));
    _mm512_store_si512(to + half, rest);
  }
}

// Two blocks of float16 weights, of all inputs, times one pair of tiles of rows, which are all rows.
// Weights are halved while others are multiplied, as both take about as long.
inline void multiply_few_rows(const Stretch& of, const int64_t* blocks) {
  constexpr int64_t BLOCK_HALVES = 2 * TILE;  // bytes of a block's halves, high and low, of WIDTH inputs
  const bool two = of.rows > ROWS;
  const int64_t width = of.depth / WIDTH * TILE;
  const auto room_for = [&](int64_t k) { return of.halves + k / WIDTH % 2 * 2 * BLOCK_HALVES; };
  const auto halve_quarter = [&](int64_t k, int64_t quarter) {
    if (k >= of.depth) return;
    for (int i = 0; i < 2; ++i) {
      const uint8_t* stored = of.weight.data + blocks[i] * of.weight.block_bytes();
      const int64_t from = quarter * TILE / 4;
      halve(stored + k / WIDTH * TILE + from, WIDTH / 4, TILE, room_for(k) + i * BLOCK_HALVES + from);
    }
  };
  for (int64_t quarter = 0; quarter < 4; ++quarter) halve_quarter(0, quarter);
  zero_sums();
  for (int64_t k = 0; k < of.depth; k += WIDTH) {
    const uint8_t* halves = room_for(k);
    write_out(halves);
#pragma GCC unroll 5
    for (int i = 0; i < 5; ++i) {
      const uint8_t* values = of.values + k / WIDTH * TILE + PART[i] * of.part;
      if (i == 0 || HALF[i] != HALF[i - 1]) {
        _tile_loadd(6, halves + HALF[i] * TILE, LINE);
        _tile_loadd(7, halves + HALF[i] * TILE + BLOCK_HALVES, LINE);
      }
      _tile_loadd(4, values, LINE);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (two) {
        _tile_loadd(5, values + width, LINE);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      if (i < 4) halve_quarter(k + WIDTH, i);
    }
  }
  const Place sums = {of.sums, LINE, ROWS * LINE, 2 * ROWS * LINE};
  store_sums(sums, two);
  copy_sums<false>(of, 0, blocks, sums);
}

template <int PRODUCTS>
inline void multiply_two_blocks(const Stretch& of, const int64_t* blocks) {
  constexpr bool IN_HALVES = PRODUCTS == 5;
  constexpr int64_t SHALLOW_HERE = IN_HALVES ? SHALLOW_IN_HALVES : SHALLOW;
  const int64_t pairs = of.pairs(), block_bytes = of.weight.block_bytes();
  for (int64_t k = 0; k < of.depth; k += SHALLOW_HERE) {
    const int64_t end = std::min(of.depth, k + SHALLOW_HERE);
    Piece piece = {};
    piece.part = of.part;
    piece.half = SHALLOW_HERE / 2 * LINE;
    piece.steps = (end - k) / WIDTH;
    piece.lines = (ROWS + pairs - 1) / pairs;
    // What follows is fetched: the blocks' next inputs, or the first ones of the next two blocks. Weights
    // that are used once come from memory, and are fetched a fixed distance ahead.
    int64_t ahead = piece.steps * TILE;
    if (end == of.depth) ahead = 2 * block_bytes - k / 2 * LINE;
    if (pairs == 1) ahead = AHEAD;
    const uint8_t* stored[2];
    for (int i = 0; i < 2; ++i) {
      stored[i] = of.weight.data + blocks[i] * block_bytes + (of.deep + k) / 2 * LINE;
      piece.weights[i] = IN_HALVES ? of.halves + i * 2 * piece.half : stored[i];
      if (IN_HALVES) halve(stored[i], end - k, piece.half, of.halves + i * 2 * piece.half);
    }
    for (int64_t pair = 0; pair < pairs; ++pair) {
      for (int i = 0; i < 2; ++i)
        piece.next[i] = stored[i] + ahead + pair * piece.lines * piece.steps * LINE;
      multiply_pair<PRODUCTS>(of, blocks, piece, pair * 2 * ROWS, k, end);
    }
  }
}

// Rows of values, [rows][parts][in], times weights, in as many products for each input.
template <int PRODUCTS>
void multiply_plain(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                    int64_t stride) {
  static thread_local std::vector<uint8_t> of_sums, of_values, of_halves;
  constexpr int64_t PARTS = PRODUCTS == 1 ? 1 : 3;
  const int64_t step = rows_of_a_stretch(x.rows, PLAIN_ROWS);
  // Weights that are used once need no stretches of inputs.
  const bool few = x.rows <= 2 * ROWS;
  const int64_t deepest = few ? x.in : PARTS == 1 ? PLAIN_INPUTS : PLAIN_INPUTS_IN_PARTS;
  auto* sums = room<uint8_t>(of_sums, step * 2 * LINE);
  const int64_t part = step * std::min(x.in, deepest) * 2;
  auto* values = room<uint8_t>(of_values, PARTS * part);
  auto* halves = room<uint8_t>(of_halves, PRODUCTS == 5 ? 2 * SHALLOW_IN_HALVES * LINE : 0);
  configure(LINE, std::min(x.rows, ROWS));
  for (int64_t deep = 0; deep < x.in; deep += deepest) {
    const int64_t depth = std::min(deepest, x.in - deep);
    for (int64_t first = 0; first < x.rows; first += step) {
      const int64_t rows = std::min(step, x.rows - first);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < PARTS; ++i)
          pack_row(static_cast<const uint8_t*>(x.values) +
                       (((first + row) * PARTS + i) * x.in + deep) * 2,
                   depth * 2, LINE, row, ROWS * depth * 2, values + i * part);
      float* of_rows = y + first * stride;
      const Stretch stretch = {weight, values, part, rows, deep, depth, of_rows, stride, sums, halves};
      for (int64_t block = begin; block < end; block += 2) {
        const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
        if (PRODUCTS == 5 && few)
          multiply_few_rows(stretch, blocks);
        else
          multiply_two_blocks<PRODUCTS>(stretch, blocks);
      }
    }
  }
  _tile_release();
}
