// Products with weights that are numbers of their own, in bfloat16. Included as amx_tiles.h is.

// Rows and inputs that are multiplied at once by all channels. They stay in the L2 cache, which has
// 2 MB on processors with AMX.
constexpr int64_t PLAIN_ROWS = 256, PLAIN_INPUTS = 2048;
// Inputs of two blocks of weights, which stay in the L1 cache until all those rows are multiplied.
constexpr int64_t SHALLOW = 512;

// Where the sums of two tiles of rows times two blocks are, and how many bytes from each other. `at`
// is null where they are still 0.
struct Place {
  uint8_t* at;
  int64_t row, tile, block;
};

// What is multiplied while it stays in the cache.
struct Piece {
  const uint8_t *values[2], *weights[2];  // of two tiles of rows, of two blocks
  const uint8_t* next[2];                 // weights that come into the cache meanwhile
  int64_t steps, lines;  // tiles of inputs; lines of each next block with every step
  bool two;              // or one tile of rows alone
};

// Adds a piece's products to the sums in `from`. ONCE: its weights are used for these rows alone, and
// the next ones come into the L1 cache, not the L2 cache.
template <bool ONCE>
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
    _tile_loadd(6, piece.weights[0] + k * TILE, LINE);
    _tile_loadd(4, piece.values[0] + k * TILE, LINE);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, piece.weights[1] + k * TILE, LINE);
    _tile_dpbf16ps(1, 4, 7);
    for (int64_t i = k * piece.lines; i < (k + 1) * piece.lines; ++i) {
      _mm_prefetch(piece.next[0] + i * LINE, ONCE ? _MM_HINT_T0 : _MM_HINT_T1);
      _mm_prefetch(piece.next[1] + i * LINE, ONCE ? _MM_HINT_T0 : _MM_HINT_T1);
    }
    if (!piece.two) continue;
    _tile_loadd(5, piece.values[1] + k * TILE, LINE);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, to.at, to.row);
  _tile_stored(1, to.at + to.block, to.row);
  if (!piece.two) return;
  _tile_stored(2, to.at + to.tile, to.row);
  _tile_stored(3, to.at + to.tile + to.block, to.row);
}

// A stretch of rows times `depth` inputs from `deep` on. The products are added to y, or written to it
// if `deep` is 0.
struct Stretch {
  const Weight& weight;
  const uint8_t* values;  // as pack_row leaves them
  int64_t rows, deep, depth;
  float* y;  // of its first row
  int64_t stride;
  uint8_t* sums;  // room for those of all rows

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

// Two tiles of rows, from `first` on, times inputs from `k` on.
inline void multiply_pair(const Stretch& of, const int64_t* blocks, Piece piece, int64_t first,
                          int64_t k) {
  const int64_t stride = of.stride * sizeof(float), width = of.depth / WIDTH * TILE;
  piece.values[0] = of.values + first / ROWS * width + k / WIDTH * TILE;
  piece.values[1] = piece.values[0] + width;
  piece.two = first + ROWS < of.rows;
  const Place sums = {of.sums + first * 2 * LINE, LINE, ROWS * LINE, 2 * ROWS * LINE};
  const Place out = {reinterpret_cast<uint8_t*>(of.y + first * of.stride + blocks[0] * BLOCK),
                     stride, ROWS * stride, (blocks[1] - blocks[0]) * LINE};
  const bool first_piece = k == 0, last_piece = k + SHALLOW >= of.depth;
  const bool whole = first + 2 * ROWS <= of.rows && blocks[1] < of.weight.out / BLOCK;
  if (first_piece && of.deep > 0 && !whole) copy_sums<true>(of, first, blocks, sums);
  const Place none = {};
  const Place& before = first_piece && whole ? out : sums;
  const Place& from = first_piece && of.deep == 0 ? none : before;
  const Place& to = last_piece && whole ? out : sums;
  if (of.pairs() == 1)
    add_piece<true>(piece, from, to);
  else
    add_piece<false>(piece, from, to);
  if (last_piece && !whole) copy_sums<false>(of, first, blocks, sums);
}

inline void multiply_two_blocks(const Stretch& of, const int64_t* blocks) {
  const int64_t pairs = of.pairs(), block_bytes = of.weight.block_bytes();
  for (int64_t k = 0; k < of.depth; k += SHALLOW) {
    Piece piece = {};
    piece.steps = std::min(SHALLOW, of.depth - k) / WIDTH;
    piece.lines = (ROWS + pairs - 1) / pairs;
    // What follows is fetched: the blocks' next inputs, or the first ones of the next two blocks. Weights
    // that are used once come from memory, and are fetched a fixed distance ahead.
    int64_t ahead = piece.steps * TILE;
    if (k + SHALLOW >= of.depth) ahead = 2 * block_bytes - k / 2 * LINE;
    if (pairs == 1) ahead = AHEAD;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      for (int i = 0; i < 2; ++i) {
        piece.weights[i] = of.weight.data + blocks[i] * block_bytes + (of.deep + k) / 2 * LINE;
        piece.next[i] = piece.weights[i] + ahead + pair * piece.lines * piece.steps * LINE;
      }
      multiply_pair(of, blocks, piece, pair * 2 * ROWS, k);
    }
  }
}

void multiply_plain(const Prepared& x, const Weight& weight, int64_t begin, int64_t end, float* y,
                    int64_t stride) {
  static thread_local std::vector<uint8_t> of_sums, of_values;
  const int64_t step = rows_of_a_stretch(x.rows, PLAIN_ROWS);
  // Weights that are used once need no stretches of inputs.
  const int64_t deepest = x.rows <= 2 * ROWS ? x.in : PLAIN_INPUTS;
  auto* sums = room<uint8_t>(of_sums, step * 2 * LINE);
  auto* values = room<uint8_t>(of_values, step * std::min(x.in, deepest) * 2);
  configure(LINE, std::min(x.rows, ROWS));
  for (int64_t deep = 0; deep < x.in; deep += deepest) {
    const int64_t depth = std::min(deepest, x.in - deep);
    for (int64_t first = 0; first < x.rows; first += step) {
      const int64_t rows = std::min(step, x.rows - first);
      for (int64_t row = 0; row < rows; ++row)
        pack_row(static_cast<const uint8_t*>(x.values) + ((first + row) * x.in + deep) * 2,
                 depth * 2, LINE, row, ROWS * depth * 2, values);
      float* of_rows = y + first * stride;
      const Stretch stretch = {weight, values, rows, deep, depth, of_rows, stride, sums};
      for (int64_t block = begin; block < end; block += 2) {
        const int64_t blocks[2] = {block, block + 1 < end ? block + 1 : block};
        multiply_two_blocks(stretch, blocks);
      }
    }
  }
  _tile_release();
}
