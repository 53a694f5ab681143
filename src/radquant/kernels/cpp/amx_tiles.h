// What products in AMX tiles share. Included inside an anonymous namespace, as tiles.h is.

constexpr int64_t ROWS = 16;           // of a tile
constexpr int64_t TILE = ROWS * LINE;  // bytes
using amx::WIDTH;

// GCC's intrinsics do not say what memory they read: it must be written before them.
inline void write_out(const void* place) { asm volatile("" : : "r"(place) : "memory"); }

// Two tiles of rows times two blocks of channels: four sums at once, lest one wait for another. Tiles
// 0 to 3 hold the sums, 4 and 5 the rows, 6 and 7 the weights. Intrinsics take literal numbers alone.
constexpr int SUMS = 4, WEIGHTS = 6, TILES = 8;

struct Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// A tile of weights holds four bytes of each channel in a row, as lines of W8 and BF16 do. bytes: of
// the inputs of a row that a tile takes.
void configure(int64_t bytes, int64_t rows = ROWS) {
  Configuration tiles;
  for (int tile = 0; tile < TILES; ++tile) {
    const bool values = SUMS <= tile && tile < WEIGHTS;
    tiles.row_bytes[tile] = static_cast<uint16_t>(values ? bytes : LINE);
    tiles.rows[tile] = static_cast<uint8_t>(tile < WEIGHTS ? rows : bytes / 4);
  }
  write_out(&tiles);
  _tile_loadconfig(&tiles);
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Which of a block's channels, from `channel` on, there are.
inline __mmask16 channels_from(int64_t channel, const Weight& weight) {
  const int64_t left = weight.out - channel;
  return left >= BLOCK ? 0xffff : (1u << left) - 1;
}

// Room for `size` values that begins at a line. It is kept from call to call, but not what was in it.
// Pointers to it that were given out before are void.
template <typename Value>
Value* room(std::vector<uint8_t>& bytes, int64_t size) {
  bytes.resize(std::max<size_t>(bytes.size(), size * sizeof(Value) + LINE));
  const auto place = reinterpret_cast<uintptr_t>(bytes.data());
  return reinterpret_cast<Value*>(bytes.data() + (LINE - place % LINE) % LINE);
}

// A row's `count` bytes to tiles, which take `depth` (32 or 64) bytes of each row:
// [rows / 16][count / depth][16][depth]. So a tile's rows do not compete for places in the cache. Rows
// that fill the last tile up hold anything. tile: bytes from 16 rows to the next ones.
inline void pack_row(const uint8_t* from, int64_t count, int64_t depth, int64_t row, int64_t tile,
                     uint8_t* to) {
  to += row / ROWS * tile + row % ROWS * depth;
  for (int64_t k = 0; k < count; k += depth, to += ROWS * depth)
    if (depth == LINE)
      std::memcpy(to, from + k, LINE);
    else
      std::memcpy(to, from + k, LINE / 2);
}

// Of `rows`, those that are multiplied at once, at most `most`, a multiple of two tiles. Stretches are
// of nearly equal height, lest a last row read all weights again.
inline int64_t rows_of_a_stretch(int64_t rows, int64_t most) {
  const int64_t pairs = (rows + 2 * ROWS - 1) / (2 * ROWS), fitting = most / (2 * ROWS);
  const int64_t stretches = (pairs + fitting - 1) / fitting;
  return (pairs + stretches - 1) / stretches * 2 * ROWS;
}
