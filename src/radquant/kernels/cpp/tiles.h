// How a product is cut into tiles, for the files that hold one instruction set each. Included inside
// an anonymous namespace, behind their target pragma: nothing here may be shared between them, or
// the linker would keep one copy, with instructions that another processor lacks.

// Rows from `first` on, `count` of them, in tiles of nearly equal height; `tile(row, height)`.
template <typename Tile>
inline void for_each_tile(int64_t highest, int64_t first, int64_t count, Tile tile) {
  const int64_t tiles = (count + highest - 1) / highest;
  int64_t row = first;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t height = count / tiles + (i < count % tiles);
    tile(row, height);
    row += height;
  }
}

// Rows that are multiplied by all channels before the next are: as many as stay in the L2 cache.
inline int64_t rows_at_once(int64_t in, int64_t bytes_of_value) {
  const int64_t rows = (int64_t{384} << 10) / (in * bytes_of_value);
  return rows < 24 ? 24 : rows;
}

// --- Activations made ready -----------------------------------------------------------------------

// By their bits, magnitudes are in order as integers, and NaN comes after infinity.
inline float largest_magnitude(const float* x, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  float value;
  __builtin_memcpy(&value, &largest, 4);
  return value;
}

// The step of a fixed point of three digits: the smallest power of two in which `largest` stays
// below the largest number of three digits, -128 … 127 each. Values below 2^-100 share a step.
inline float step_of(float largest) {
  uint32_t bits;
  __builtin_memcpy(&bits, &largest, 4);
  if (bits >= 0x7f800000) return __builtin_nanf("");
  const uint32_t exponent = bits >> 23 < 27 ? 27 : bits >> 23;
  bits = (exponent - 22) << 23;
  float step;
  __builtin_memcpy(&step, &bits, 4);
  return largest > 0x7f7f7f * step ? 2 * step : step;
}

// Sums of groups, in an order that depends on nothing but the group's size (a multiple of 8).
template <typename Value>
inline void group_sums(const Value* x, int64_t in, int64_t group, float* sums) {
  for (int64_t g = 0; g < in / group; ++g) {
    float lanes[8] = {};
    for (int64_t i = 0; i < group; i += 8)
      for (int lane = 0; lane < 8; ++lane)
        lanes[lane] += static_cast<float>(x[g * group + i + lane]);
    sums[g] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
              ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  }
}

inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bfloat16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  __builtin_memcpy(&result, &bits, 4);
  return result;
}

inline void round_to_bfloat16(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = from_bfloat16(to_bfloat16(x[i]));
}

// In an order of integers in which floats are in theirs: NaN lies beyond infinity, on either side.
// It is its own inverse.
inline int32_t in_order(int32_t bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

inline Extremes extremes_of(const float* x, int64_t count) {
  int32_t low = 0, high = 0;
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    bits = in_order(bits);
    low = bits < low ? bits : low;
    high = bits > high ? bits : high;
  }
  low = in_order(low);
  Extremes found;
  __builtin_memcpy(&found.low, &low, 4);
  __builtin_memcpy(&found.high, &high, 4);
  return found;
}

inline void round_to_grid(const float* x, int64_t count, const Grid& grid, int8_t* out) {
  const float scale = grid.scale, zero = grid.zero, low = grid.low, high = grid.high;
  const float offset = grid.offset;
  for (int64_t i = 0; i < count; ++i) {
    float value = __builtin_rintf(x[i] / scale) + zero;
    value = value > high ? high : value;
    value = value < low ? low : value;
    out[i] = static_cast<int8_t>(static_cast<int32_t>(value - offset));
  }
}
